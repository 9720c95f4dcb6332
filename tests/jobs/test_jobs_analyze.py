"""The job that observes a reference: which prompts it takes, and what it refuses before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from gguf.constants import GGMLQuantizationType

from studio.contributions.file import load
from studio.errors import InputError
from studio.jobs.analyze import Analyze
from studio.jobs.tasks import check
from studio.progress import silent
from studio.workspace import Workspace
from tests.quantize.quantize_experts import weights, write_gguf

WANTED = {"reference": "demo", "name": "mine"}


def test_built_in_prompts_and_files_of_the_workspace_are_observed_together(workspace: Workspace) -> None:
    (workspace.root / "prose.txt").write_text("It rained.\n\nThen it did not.")
    sources = ["builtin:math", "prose.txt"]
    task = check("analyze", {**WANTED, "prompts": sources, "klass": "prose", "per_class": 1}, workspace)
    result = task.run(workspace, silent)
    made = load(workspace.root / str(result["path"]))
    assert result["questions"] == 2 and made.classes == ("math", "prose")
    assert "; prompts: builtin:math + prose.txt (sha256 " in made.source


def test_what_the_job_takes_is_foreseen_without_its_weights(workspace: Workspace) -> None:
    preview, ways = Analyze(**WANTED, prompts=("builtin:math",), per_class=2).foresee(workspace)
    assert len(preview.prompts) == ways.work.questions == 2
    assert sum(prompt.tokens for prompt in preview.prompts) == ways.work.tokens
    write_gguf(workspace.references / "m.gguf", weights(), GGMLQuantizationType.F32)
    with pytest.raises(InputError, match="is a GGUF file, and cannot be observed"):
        Analyze(**{**WANTED, "reference": "m.gguf"}).foresee(workspace)


def test_prompts_that_cannot_be_read_are_refused_before_the_job(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"class": "a", "prompt": "x"}\n')
    for wrong, words in (
        ({"prompts": str(tmp_path / "mine.jsonl")}, "workspace"),
        ({"prompts": "builtin:cooking"}, "'cooking'"),
        ({"prompts": []}, "No source"),
        ({"columns": {"prompt": "question"}}, "builtin has none"),
        ({"per_class": 0}, "per_class"),
        ({"dtype": "nf4"}, "multiples of 64|bitsandbytes"),
        ({"dtype": "int8"}, "dtype"),
    ):
        with pytest.raises(InputError, match=words):
            check("analyze", {**WANTED, **wrong}, workspace)


def test_a_folder_outside_the_workspace_is_not_read_as_a_data_set(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "private" / "letters").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for source in ("hf:private/letters", "hf:private/letters::train"):
        task = check("analyze", {**WANTED, "prompts": source}, workspace)
        with pytest.raises(InputError, match="outside the workspace"):
            task.run(workspace, silent)


def test_a_data_set_is_not_fetched_before_the_job(workspace: Workspace) -> None:
    pytest.importorskip("datasets")
    task = check("analyze", {**WANTED, "prompts": "hf:owner/elsewhere"}, workspace)
    with pytest.raises(InputError, match="the Hub cannot be reached"):
        task.run(workspace, silent)
