"""lm-evaluation-harness against our own server, offline, on a task that lies here; skipped only where it is absent."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from studio.errors import InputError, UnsupportedError
from studio.evaluate import harness
from studio.evaluate.configuration import configuration_named
from studio.evaluate.harness import measure_with_harness
from studio.evaluate.results import read_results
from studio.evaluate.results_table import compare_results
from studio.workspace import Workspace

GENERATIVE = """task: local_sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n\\n"]}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
LIKELIHOOD = """task: local_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: ["yes", "no"]
doc_to_target: 0
metric_list: [{{metric: acc}}]
"""
GREEDY = configuration_named("greedy")
installed = pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-evaluation-harness is optional")


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    folder = tmp_path / "tasks"
    folder.mkdir()
    data = folder / "sums.jsonl"
    rows = [{"question": f"What is {a} + {b}?", "answer": f"{a} + {b} = {a + b}"} for a in (1, 2, 3) for b in (1, 2)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "sums.yaml").write_text(GENERATIVE.format(data=data))
    (folder / "choice.yaml").write_text(LIKELIHOOD.format(data=data))
    return folder


@installed
def test_a_task_of_ones_own_becomes_a_result(demo_gguf: Path, workspace: Workspace, tasks: Path) -> None:
    result = measure_with_harness(demo_gguf, "local_sums", GREEDY, workspace, include=tasks)
    value = result.values["exact_match"]
    assert value.unit == "share" and value.low is not None and value.low < (value.value or 0.0)
    assert len(result.answers) == 6 and sum(answer.right for answer in result.answers) / 6 == value.value
    assert result.versions["lm_eval"] and result.inputs["questions"] == 6
    assert read_results(workspace) == ([result], [])
    limited = measure_with_harness(demo_gguf, "local_sums", GREEDY, workspace, include=tasks, limit=2)
    assert len(limited.answers) == 2 and limited.ground != result.ground
    assert compare_results(result, result).better == 0


@installed
def test_what_it_cannot_measure_is_said_in_a_sentence(demo_gguf: Path, workspace: Workspace, tasks: Path) -> None:
    with pytest.raises(UnsupportedError, match="local_choice scores the likelihood"):
        measure_with_harness(demo_gguf, "local_choice", GREEDY, workspace, include=tasks)
    with pytest.raises(InputError, match="knows no task 'no_such_task'"):
        measure_with_harness(demo_gguf, "no_such_task", GREEDY, workspace, include=tasks)
    assert not read_results(workspace)[0]


@pytest.mark.skipif(find_spec("lm_eval") is not None, reason="it is installed")
def test_without_it_the_remedy_is_named(demo_gguf: Path, workspace: Workspace) -> None:
    with pytest.raises(InputError, match=r"not installed.*pip install"):
        measure_with_harness(demo_gguf, "x", GREEDY, workspace)


def test_an_answer_with_a_line_separator_of_unicode_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    said = {"doc_id": 0, "resps": [["one\u2028two"]]}
    (tmp_path / "out" / "samples_echo_1.jsonl").write_text(
        json.dumps(said, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    assert [sample["resps"] for sample in harness._samples(tmp_path)] == [said["resps"]]
