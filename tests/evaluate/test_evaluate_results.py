"""Results lie with their models, are compared only where they may be, and make one table."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from studio.errors import FormatError, InputError, MismatchError, OutputExistsError
from studio.evaluate.results import (
    Answer,
    ModelRecord,
    Result,
    Value,
    different_versions,
    find,
    folder_of,
    read_results,
    require_same_ground,
)
from studio.evaluate.results_table import as_csv, as_markdown, compare_results, export, in_words, table_of
from studio.workspace import Workspace


def result(
    model: str = "pruned",
    rights: str = "1101",
    *,
    seed: int = 42,
    temperature: float = 1.0,
    outcomes: dict[int, str] | None = None,
) -> Result:
    outcomes = outcomes or {}
    return Result(
        kind="task",
        name="mmlu pro",
        model=ModelRecord(name=f"{model}.gguf", path=f"artifacts/{model}/gguf/{model}.gguf", bytes=7, sha256=model * 8),
        configuration={"name": "official-gemma4", "sampler": {"temperature": temperature}},
        inputs={"task": "mmlu-pro.jsonl", "task_sha256": "aa", "subset": {"per_category": 20, "seed": seed}},
        values={
            "accuracy": Value(value=rights.count("1") / len(rights), low=0.1, high=0.9, unit="share", better="higher"),
            "unanswered": Value(value=0, unit="count", better="lower"),
        },
        answers=tuple(
            Answer(
                id=f"q{n}",
                category="law",
                right=one == "1",
                expected="A",
                outcome=outcomes.get(n, "answered"),  # type: ignore[arg-type]
            )
            for n, one in enumerate(rights)
        ),
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "home")


def test_a_result_written_is_the_result_read(workspace: Workspace) -> None:
    made = result()
    path = made.write(workspace.measures)
    assert Result.read(path) == made and path.name.startswith("task-mmlu-pro-")
    with pytest.raises(OutputExistsError):
        made.write(workspace.measures)
    made.write(workspace.measures, overwrite=True)


def test_the_results_of_an_artifact_live_with_it(workspace: Workspace, tmp_path: Path) -> None:
    artifact = workspace.artifacts / "pear-98e"
    assert folder_of(artifact / "gguf" / "pear-98e-Q4_K_M.gguf", workspace) == artifact / "measures"
    assert folder_of(tmp_path / "elsewhere.gguf", workspace) == workspace.measures
    assert folder_of(workspace.cache / "gguf" / "x.gguf", workspace) == workspace.measures


def test_the_same_measure_of_the_same_model_has_the_same_name_and_is_found(workspace: Workspace) -> None:
    model = workspace.artifacts / "pruned" / "gguf" / "pruned.gguf"
    made = result()
    assert find(model, made.file_name, workspace) is None
    made.write(folder_of(model, workspace))
    assert find(model, result(rights="0000").file_name, workspace) == made  # the answers are not part of the name
    names = {one.file_name for one in (made, result("other"), result(seed=1), result(temperature=0.5))}
    assert len(names) == 4


def test_results_of_different_configurations_are_not_compared() -> None:
    with pytest.raises(MismatchError, match=r"sampler\.temperature is 0\.5, and was 1\.0") as caught:
        compare_results(result("reference"), result(temperature=0.5))
    assert "sha256" not in caught.value.what
    with pytest.raises(MismatchError, match=r"subset\.seed is 7, and was 42"):
        require_same_ground(result("reference"), result(seed=7))


def test_other_versions_of_the_programs_are_said() -> None:
    old, new = (result().model_copy(update={"versions": {"xllamacpp": one, "gguf": "1"}}) for one in ("1.0", "2.0"))
    assert "xllamacpp 1.0 and 2.0. Measure both again" in different_versions(old, new)
    assert different_versions(old, old) == "" and compare_results(old, new).questions == 4


def test_questions_that_one_could_not_be_asked_are_left_out() -> None:
    compared = compare_results(result("reference", "1111"), result(rights="0110", outcomes={3: "too long"}))
    assert (compared.questions, compared.better, compared.worse) == (3, 0, 1)


def test_the_table_compares_every_model_with_the_reference() -> None:
    table = table_of([result("reference", "1111"), result(rights="0101")], against="reference.gguf")
    assert [column.title for column in table.columns] == ["mmlu pro accuracy"]  # nothing was unanswered anywhere
    reference, pruned = table.rows
    assert not reference.comparisons and [c.worse for c in pruned.comparisons.values()] == [2]
    text = as_markdown(table)
    assert text.splitlines()[0] == ("| Model | GiB | mmlu pro accuracy | mmlu pro accuracy against reference.gguf |")
    assert "| 50.0 % (10.0 to 90.0) | −50.0 points, p = 0.50 (0 better, 2 worse) |" in text
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert rows[1]["mmlu pro accuracy"] == "0.5" and rows[1]["mmlu pro accuracy against reference.gguf worse"] == "2"


def test_the_reference_is_the_same_file_whatever_it_was_called_when_it_was_measured() -> None:
    first, other = result("reference", "1111"), result("reference", "1111", seed=7)
    renamed = other.model_copy(update={"model": other.model.model_copy(update={"name": "demo"})})
    table = table_of([first, renamed, result(rights="0101", seed=7)], against=first.model.path)
    reference, pruned = table.rows
    assert len(reference.results) == 2 and not reference.comparisons
    assert [comparison.worse for comparison in pruned.comparisons.values()] == [2]


def test_columns_of_different_grounds_stay_apart() -> None:
    table = table_of([result("reference"), result(temperature=0.0)], against="reference.gguf")
    assert len({column.title for column in table.columns}) == 2
    assert all("official-gemma4" in column.title for column in table.columns)
    assert not any(row.comparisons for row in table.rows)


def test_sorting_puts_the_best_first_and_the_unmeasured_last() -> None:
    other = result("zebra", "1111", seed=7)
    table = table_of([result("low", "1000"), other, result("high", "1110")])
    first = table.columns[0].title
    assert [row.model.name for row in table.sorted_by(first).rows] == ["high.gguf", "low.gguf", "zebra.gguf"]
    assert table.sorted_by(first, descending=False).rows[0].model.name == "low.gguf"
    assert table.sorted_by("model", descending=True).rows[0].model.name == "zebra.gguf"
    with pytest.raises(InputError, match=r"'colour': no column.*model, bytes, mmlu pro"):
        table.sorted_by("colour")
    with pytest.raises(InputError, match="2 columns have that"):
        table.sorted_by("mmlu")


def test_a_part_of_a_title_is_enough_to_sort_by() -> None:
    table = table_of([result("low", "1000"), result("high", "1110")])
    assert [row.model.name for row in table.sorted_by("Accuracy").rows] == ["high.gguf", "low.gguf"]


def test_questions_that_did_not_fit_are_told_apart_from_those_that_were_scored() -> None:
    told = in_words(result(rights="110", outcomes={2: "too long"}))
    assert "of 2 questions; 1 more too long for" in told and told.endswith("and not scored.")
    assert "too long" not in in_words(result())


def test_a_reference_that_was_not_measured_is_refused() -> None:
    with pytest.raises(InputError, match=r"pear\.gguf was not measured.*artifacts/pruned"):
        table_of([result()], against="pear.gguf")


def test_export_goes_by_the_ending_and_replaces_nothing(tmp_path: Path) -> None:
    table = table_of([result()])
    export(table, tmp_path / "t.csv")
    export(table, tmp_path / "t.md")
    assert (tmp_path / "t.csv").read_text() == as_csv(table) and (tmp_path / "t.md").read_text() == as_markdown(table)
    with pytest.raises(OutputExistsError):
        export(table, tmp_path / "t.md")
    with pytest.raises(InputError, match="neither"):
        export(table, tmp_path / "t.xlsx")


def test_a_name_that_looks_like_a_formula_is_text_in_a_spreadsheet() -> None:
    assert "'=cmd.gguf" in as_csv(table_of([result("=cmd")]))


def test_a_damaged_result_is_named_and_hides_no_other(workspace: Workspace) -> None:
    result().write(workspace.artifacts / "pruned" / "measures")
    (workspace.measures / "task-x-1.json").write_text('{"kind": "task"}')
    results, damaged = read_results(workspace)
    assert results == [result()] and isinstance(damaged[0], FormatError) and "task-x-1.json" in str(damaged[0])


def test_what_is_not_a_number_survives_as_nothing(workspace: Workspace) -> None:
    made = result().model_copy(update={"values": {"kl": Value(value=float("nan"), unit="nats")}})
    assert Result.read(made.write(workspace.measures)).values["kl"].value is None
