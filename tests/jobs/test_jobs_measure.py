"""The job that measures a map before anything is built."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf.constants import GGMLQuantizationType

from studio.contributions.file import load
from studio.errors import InputError, MismatchError
from studio.jobs import runner
from studio.jobs.store import Job, JobStore
from studio.jobs.tasks import check
from studio.limits import QUOTA
from studio.progress import silent
from studio.recipes.apply import make_map
from studio.recipes.presets import preset
from studio.staging import used_bytes
from studio.workspace import Workspace
from tests.quantize.quantize_experts import weights, write_gguf

ASSETS = Path(__file__).parents[2] / "assets"
CONTRIBUTIONS = ASSETS / "demo-contributions.safetensors"


def test_a_map_and_the_recipe_that_makes_it_measure_the_same(workspace: Workspace) -> None:
    recipe = preset("98e-v4", 16)
    drop = make_map(load(CONTRIBUTIONS), recipe)
    asked = {"reference": "demo", "per_class": 2}
    by_map = check("measure", {**asked, "map": drop.to_json()}, workspace).run(workspace, silent)
    made = {"contributions": str(CONTRIBUTIONS), "recipe": json.loads(recipe.to_json())}
    by_recipe = check("measure", {**asked, **made}, workspace).run(workspace, silent)
    assert by_map["map_hash"] == by_recipe["map_hash"] == drop.content_hash
    assert by_map["overall"] == by_recipe["overall"] and by_map["classes"] == by_recipe["classes"]
    assert by_map["prompts"] == 10 and set(by_map["classes"]) == {"math", "logic", "code", "science", "creative"}
    assert by_map["kl"] > 0 and by_map["dropped"] == 16 and not by_recipe["warning"]
    assert len(list((workspace.cache / "logits").iterdir())) == 1, "the reference was passed over once"


def test_what_cannot_be_measured_is_refused_before_the_job(workspace: Workspace) -> None:
    recipe = json.loads(preset("98e-v4", 30).to_json())
    write_gguf(workspace.references / "m.gguf", weights(), GGMLQuantizationType.F32)
    for wrong, error, words in (
        ({"reference": "demo"}, InputError, "exactly one"),
        ({"reference": "demo", "recipe": recipe}, InputError, "needs the contributions"),
        ({"reference": "m.gguf", "map": "{}"}, InputError, "GGUF"),
        ({"reference": "demo", "map": '{"0": [1]}'}, MismatchError, "layer"),
        ({"reference": "demo", "recipe": recipe, "contributions": str(CONTRIBUTIONS)}, InputError, "at most 28"),
        ({"reference": "demo", "map": "/etc/passwd"}, InputError, "workspace"),
    ):
        with pytest.raises(error, match=words):
            check("measure", wrong, workspace)


def test_the_logits_that_a_measurement_keeps_stay_within_the_quota(
    store: JobStore, until: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are foretold to the byte before any is written, and without room for them the work is done all the same."""
    workspace, drop = store.workspace, make_map(load(CONTRIBUTIONS), preset("98e-v4", 16))
    asked = {"reference": "demo", "per_class": 2, "map": drop.to_json()}

    def measured(quota: int) -> Job:
        monkeypatch.setenv(QUOTA.variable, str(quota))
        return until(store, runner.start(store, "measure", asked).id, lambda job: job.is_finished)

    tight = measured(used_bytes(workspace.root) + (200 << 10))
    assert tight.status == "done", tight.error
    assert not list((workspace.cache / "logits").iterdir()), "they take more than 200 KiB"
    wide = measured(1 << 30)
    (kept,) = (workspace.cache / "logits").iterdir()
    assert used_bytes(kept) > 200 << 10 and wide.result and tight.result
    assert wide.result["overall"] == tight.result["overall"]
