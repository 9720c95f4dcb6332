"""The table and the figure of results, as HTML: nothing in them but what was measured."""

from __future__ import annotations

import csv
import io
import json
import re
from base64 import b64decode
from html import unescape
from typing import Any

import pytest

from components.library import Library
from components.results_figure import figures_html, round_sizes
from components.results_view import Measured, Sorting, measured, older_files, results_html
from studio.checkpoints.digests import digest_file
from studio.errors import InputError
from studio.evaluate.results import Answer, ModelRecord, Result, Value
from studio.evaluate.runner import values_of

BIG = ModelRecord(name="demo", path="cache/converted/demo.gguf", bytes=32 << 20, sha256="a" * 64)
SMALL = ModelRecord(name="small<b>.gguf", path="artifacts/pear-6e/gguf/small.gguf", bytes=8 << 20, sha256="b" * 64)


def result_of(model: ModelRecord, rights: str, configuration: str = "greedy", **inputs: Any) -> Result:
    """A task's result; `rights` has a + for every right answer."""
    answers = [
        Answer(id=str(n), category="math", right=mark == "+", outcome="answered", expected="x", given="y")
        for n, mark in enumerate(rights)
    ]
    right = rights.count("+")
    return Result(
        kind="task",
        name="exam",
        model=model,
        configuration={"name": configuration},
        inputs={"questions": len(rights), **inputs},
        values=values_of(answers),
        answers=tuple(answers),
        details={"categories": {"math": {"right": right, "asked": len(rights), "low": 0.1, "high": 0.9}}},
    )


BOTH = Measured((result_of(BIG, "+" * 40), result_of(SMALL, "+" * 20 + "-" * 20)), (), BIG.path)


def saved(html: str, name: str) -> str:
    found = re.search(rf'download="{name}" href="data:[^"]*base64,([^"]*)"', html)
    assert found
    return b64decode(found[1]).decode()


def rows_of(html: str) -> list[str]:
    return re.findall(r'<tr data-model="([^"]*)"', html)


def test_a_candidate_is_compared_with_the_reference_in_a_sentence() -> None:
    html = results_html(BOTH, None, Sorting())
    assert "20 of 40 answers differ; 0 better, 20 worse; p &lt; 0.001: evidence of a loss." in html
    assert html.count("the reference</td>") == 1
    assert "100.0 %<small>91.2 to 100.0</small>" in html
    assert "small&lt;b&gt;.gguf" in html and "small<b>" not in html
    assert "20 of 40" in html and "Everything to run it again" in html and "&quot;sha256&quot;" in html


def test_rows_are_sorted_by_what_is_clicked() -> None:
    assert rows_of(results_html(BOTH, None, Sorting("exam accuracy", descending=False)))[0].startswith("small")
    html = results_html(BOTH, None, Sorting("exam accuracy", descending=True))
    assert rows_of(html)[0] == "demo" and html.count("aria-sort='descending'") == 1
    assert re.search(r"data-sort=\"exam accuracy\" data-descending='0'", html)
    with pytest.raises(InputError, match="cannot be sorted"):
        results_html(BOTH, None, Sorting("colour"))


def test_the_links_save_the_table_as_it_is_shown() -> None:
    html = results_html(BOTH, None, Sorting("bytes", descending=False))
    rows = list(csv.DictReader(io.StringIO(saved(html, "results.csv"))))
    assert [row["bytes"] for row in rows] == [str(8 << 20), str(32 << 20)]
    assert float(rows[0]["exam accuracy"]) == 0.5
    assert saved(html, "results.md").startswith("| Model | GiB | exam accuracy |")


def test_another_configuration_has_columns_of_its_own_and_the_page_says_why() -> None:
    mixed = Measured((*BOTH.results, result_of(SMALL, "++--", "official-gemma4")), (), BIG.path)
    html = results_html(mixed, None, Sorting())
    assert "exam was measured in more than one way" in html
    assert html.count("scope='colgroup'") == 2
    assert html.count("answers differ") == 1
    assert "more than one way" not in results_html(BOTH, None, Sorting())


def test_without_the_reference_nothing_is_compared_and_without_results_that_is_said() -> None:
    html = results_html(Measured(BOTH.results[1:], (), BIG.path), BIG.path, Sorting())
    assert "The reference was not measured" in html and "differ" not in html
    assert "Nothing has been measured yet" in results_html(Measured(), None, Sorting())


def test_a_model_can_be_compared_with_any_other() -> None:
    assert BOTH.choices == [("demo", BIG.path), (SMALL.name, SMALL.path)]
    assert BOTH.against(None) == BOTH.against("gone") == BIG.path
    assert "20 better, 0 worse" in results_html(BOTH, SMALL.path, Sorting())


def test_only_results_about_the_open_model_are_read_and_a_damaged_one_is_named(library: Library) -> None:
    folder = library.workspace.measures
    BOTH.results[0].write(folder)
    (folder / "task-broken.json").write_text("{}")
    found = measured(library, "pear")
    assert found.results == () and found.reference is None
    assert "task-broken.json" in results_html(found, None, Sorting())
    assert measured(library, "") == Measured()


def test_the_figure_answers_what_is_lost_for_how_many_bytes() -> None:
    html = figures_html(BOTH.table(None))
    title = "small&lt;b&gt;.gguf has 25 % of the bytes of demo, and accuracy 50.0 % instead of 100.0 %"
    assert f"<h3>{title}</h3>" in html
    assert html.count("class='interval'") == 2 and "class='band'" in html and "<b>2</b>" in html
    assert figures_html(Measured(BOTH.results[:1], (), None).table(None)) == ""


def test_a_divergence_is_drawn_and_taken_apart_by_class() -> None:
    one = {"kl_mean": 0.1, "kl_p99": None, "same_top": 0.9, "tokens": 10}
    results = [
        Result(
            kind="divergence",
            name="builtin",
            model=model,
            reference=BIG,
            configuration={"context": 512},
            inputs={},
            values={"KL divergence": Value(value=value, low=0.0, high=0.2, unit="nats", better="lower")},
            details={"by_class": {"math": one}, "overall": one},
        )
        for model, value in ((SMALL, 0.1), (SMALL.model_copy(update={"path": "artifacts/x/y.gguf", "bytes": 1}), 0.05))
    ]
    found = Measured(tuple(results), (), BIG.path)
    html = results_html(found, None, Sorting())
    assert "Text: builtin" in html and "divergence, 512 tokens at a time" in html and "99th percentile" in html
    again = json.loads(unescape(re.findall(r"<pre class='log'>(.*?)</pre>", html, re.DOTALL)[0]))
    assert again["reference"]["sha256"] == BIG.sha256 and again["configuration"] == {"context": 512}
    figure = figures_html(found.table(None))
    assert "Lower is better." in figure and "KL divergence 0.05 instead of 0.1" in figure


@pytest.mark.parametrize(("widest", "sizes"), [(36 << 20, [0, 10, 20, 30]), (9.4 * 2**20, [0, 5])])
def test_sizes_below_the_figure_are_round(widest: float, sizes: list[int]) -> None:
    assert [size / 2**20 for size in round_sizes(widest)] == sizes
    assert 2 <= len(round_sizes(1)) <= 6 and len(round_sizes(3 * 2**40)) >= 2


def test_a_row_about_a_file_that_was_built_again_or_removed_says_so(library: Library) -> None:
    workspace = library.workspace
    path = workspace.artifacts / "pear-6e" / "gguf" / "again.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"first")
    first = ModelRecord(name="again.gguf", path="artifacts/pear-6e/gguf/again.gguf", bytes=5, sha256=digest_file(path))
    gone = first.model_copy(update={"path": "artifacts/pear-6e/gguf/gone.gguf"})
    assert set(older_files([first, gone], workspace)) == {(gone.path, gone.sha256)}
    path.write_bytes(b"other")
    digest_file(path)
    older = older_files([first], workspace)
    assert "older file" in older[first.path, first.sha256]
    html = results_html(Measured((result_of(first, "+-"),), (), None, older), None, Sorting())
    assert f"of an older file ({first.sha256[:8]})" in html
