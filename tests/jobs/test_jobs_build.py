"""The build job: what it refuses, what it makes, and that it tells the whole story."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from studio.checkpoints.gguf_header import read_header
from studio.checkpoints.reference import open_reference
from studio.contributions.file import save
from studio.contributions.model import Contributions, Question
from studio.errors import EspalierError, InputError, MismatchError, OutputExistsError, ResourceError, UnsupportedError
from studio.families import MoeShape
from studio.jobs import runner
from studio.jobs.build import Build
from studio.jobs.tasks import TASKS, check
from studio.publish.manifest import Manifest
from studio.recipes.apply import make_map
from studio.recipes.dropmap import DropMap
from studio.recipes.presets import preset
from studio.workspace import Workspace
from tests.cli.tiny_gemma import EXPERTS, LAYERS, write_checkpoint
from tests.patience import eventually

MAP = json.dumps({str(layer): [0, layer + 1] for layer in range(LAYERS)})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny-gemma")


@pytest.fixture(scope="module")
def converted(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which the checkpoint is converted already."""
    from studio.checkpoints.convert import cached_gguf

    cache = tmp_path_factory.mktemp("cache")
    cached_gguf(checkpoint, cache)
    return cache


@pytest.fixture
def prepared(workspace: Workspace, checkpoint: Path) -> Workspace:
    """A workspace with the checkpoint among its references."""
    (workspace.references / "tiny").symlink_to(checkpoint)
    return workspace


@pytest.fixture
def quick(prepared: Workspace, converted: Path) -> Workspace:
    """The same, with the conversion done."""
    shutil.copytree(converted, prepared.cache, dirs_exist_ok=True)
    return prepared


class Watcher:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, str, str]] = []

    def __call__(self, done: int, total: int, unit: str = "", message: str = "") -> None:
        self.seen.append((done, total, unit, message))


def run(workspace: Workspace, progress: Any = None, **parameters: Any) -> dict[str, Any]:
    task = check("build", {"reference": "tiny", "map": MAP, "name": "mine", **parameters}, workspace)
    return task.run(workspace, progress or Watcher())


def test_a_build_makes_every_output_and_a_manifest_with_the_hash_of_each_file(quick: Workspace) -> None:
    watcher = Watcher()
    result = run(quick, watcher, outputs=["safetensors", "gguf"], tiers=["Q4_K_M", "Q8_0"])
    folder = quick.root / result["folder"]
    assert result["folder"] == "artifacts/mine"
    made = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"gguf/mine-Q4_K_M.gguf", "gguf/mine-Q8_0.gguf", "safetensors/model.safetensors"} <= made
    manifest = Manifest.read(quick.root / result["manifest"])
    assert {file.name for file in manifest.files} == made - {"espalier-manifest.json"}
    for file, told in zip(manifest.files, result["files"], strict=True):
        content = (folder / file.name).read_bytes()
        assert told == {"path": f"artifacts/mine/{file.name}", "bytes": len(content), "sha256": file.sha256}
        assert hashlib.sha256(content).hexdigest() == file.sha256
    assert manifest.tiers == ("Q4_K_M", "Q8_0") and manifest.map is not None and manifest.map.kept == EXPERTS - 2
    assert open_reference(folder / "safetensors").shape.experts == EXPERTS - 2
    header = read_header(folder / "gguf" / "mine-Q4_K_M.gguf")
    assert header.values["gemma4.expert_count"] == EXPERTS - 2
    assert json.loads(str(header.values["espalier.manifest"]))["map"]["sha256"] == manifest.map.sha256

    done = [one[0] for one in watcher.seen]
    assert done == sorted(done) and {one[1:3] for one in watcher.seen} == {(watcher.seen[0][1], "bytes")}
    assert done[-1] == watcher.seen[-1][1]
    titles = list(dict.fromkeys(one[3].partition(":")[0] for one in watcher.seen))
    assert titles[1:] == ["Converting, once for this reference", "Pruning safetensors", "Quantizing", "Hashing"]


def test_the_reference_is_converted_once(quick: Workspace) -> None:
    before = {path: path.stat().st_mtime_ns for path in quick.cache.rglob("*.gguf")}
    run(quick, outputs=["gguf"], tiers=["Q8_0"])
    assert before == {path: path.stat().st_mtime_ns for path in quick.cache.rglob("*.gguf")} and before


def test_two_builds_give_the_same_bytes(quick: Workspace) -> None:
    first = run(quick, outputs=["safetensors", "gguf"], tiers=["Q8_0"])
    second = run(quick, outputs=["safetensors", "gguf"], tiers=["Q8_0"], overwrite=True)
    assert first == second


def test_a_gguf_reference_is_quantized_or_pruned_as_it_is(quick: Workspace) -> None:
    source = next(quick.cache.rglob("*.gguf"))
    (quick.references / "tiny.gguf").symlink_to(source)
    tiers = run(quick, reference="tiny.gguf", outputs=["gguf"], tiers=["Q8_0"])
    assert [file["path"] for file in tiers["files"]] == ["artifacts/mine/gguf/mine-Q8_0.gguf"]
    same = run(quick, reference="tiny.gguf", name="same", outputs=["gguf"])
    assert [file["path"] for file in same["files"]] == ["artifacts/same/gguf/same.gguf"]
    with pytest.raises(InputError, match="cannot become a safetensors"):
        run(quick, reference="tiny.gguf", name="other", outputs=["safetensors"])


def test_the_recipe_travels_into_the_manifest_when_it_gives_the_map(quick: Workspace) -> None:
    random = np.random.default_rng(0)
    questions = tuple(Question(f"q{number}", "math") for number in range(3))
    sums = {name: random.random((3, LAYERS, EXPERTS)) for name in ("tokens", "weighted_norm_squared")}
    shape = MoeShape("gemma4", tuple(range(LAYERS)), EXPERTS, 2, 256, 48)
    contributions = Contributions(shape, "tiny", questions, sums, "made up")
    save(contributions, quick.contributions / "tiny.safetensors")
    recipe = preset("98e-v3", drop=3)
    drop = make_map(contributions, recipe)
    story = {"recipe": recipe.to_json(), "contributions": "contributions/tiny.safetensors"}
    result = run(quick, map=drop.to_json(), outputs=["safetensors"], **story)
    for place in (result["manifest"], "artifacts/mine/safetensors/espalier-manifest.json"):
        manifest = Manifest.read(quick.root / place)
        assert manifest.recipe_sha256 == recipe.content_hash
        assert manifest.contributions == contributions.content_hash
        assert manifest.map is not None and manifest.map.sha256 == drop.content_hash
    with pytest.raises(MismatchError, match="another map"):
        run(quick, name="lie", outputs=["safetensors"], **story)

    second = replace(contributions, sums={name: random.random((3, LAYERS, EXPERTS)) for name in sums})
    save(second, quick.contributions / "generic.safetensors")
    recipe = recipe.but(floor=2)
    story |= {"recipe": recipe.to_json(), "floor_contributions": "contributions/generic.safetensors"}
    drop = make_map(contributions, recipe, second)
    result = run(quick, name="floored", map=drop.to_json(), outputs=["safetensors"], **story)
    manifest = Manifest.read(quick.root / result["manifest"])
    assert (manifest.contributions, manifest.floor_contributions) == (contributions.content_hash, second.content_hash)


def test_pruning_alone_is_a_build_with_one_output(prepared: Workspace) -> None:
    task = check("prune", {"reference": "tiny", "map": MAP, "name": "slim"}, prepared)
    result = task.run(prepared, Watcher())
    assert (prepared.root / "artifacts/slim/safetensors/model.safetensors").is_file()
    assert result["folder"] == "artifacts/slim"


def test_a_converted_reference_can_be_opened_as_a_reference(prepared: Workspace) -> None:
    result = check("convert", {"reference": "tiny", "name": "tiny-bf16"}, prepared).run(prepared, Watcher())
    assert result["path"] == "references/tiny-bf16.gguf"
    assert open_reference(prepared.root / str(result["path"])).shape.experts == EXPERTS


WRONG: list[tuple[dict[str, Any], type[EspalierError], str]] = [
    ({"name": "../outside"}, InputError, "cannot be a name"),
    ({"name": ".hidden"}, InputError, "cannot be a name"),
    ({"name": "a..b"}, InputError, "cannot be a name"),
    ({"name": ""}, InputError, "cannot be a name"),
    ({"name": "x" * 65}, InputError, "cannot be a name"),
    ({"outputs": []}, InputError, "outputs"),
    ({"outputs": ["onnx"]}, InputError, "outputs"),
    ({"outputs": ["gguf"]}, InputError, "no tier"),
    ({"outputs": ["gguf"], "tiers": ["Q9_Z"]}, InputError, "no tier 'Q9_Z'"),
    ({"outputs": ["gguf"], "tiers": ["Q8_0", "q8_0"]}, InputError, "named twice"),
    ({"outputs": ["gguf"], "tiers": ["IQ2_XXS"]}, UnsupportedError, "importance matrix"),
    ({"map": "{}"}, InputError, "layer"),
    ({"map": '{"0": [1]}'}, MismatchError, "no entry for layer"),
    ({"map": json.dumps({str(layer): list(range(7)) for layer in range(LAYERS)})}, InputError, "router uses 2"),
    ({"map": "/etc/passwd"}, InputError, "outside the workspace"),
    ({"map": "maps/../../secret.json"}, InputError, "outside the workspace"),
    ({"map": "maps/none.json"}, InputError, "no file"),
    ({"reference": "/etc"}, InputError, "outside the workspace"),
    ({"reference": "../tiny"}, InputError, "outside the workspace"),
    ({"reference": "references/../.."}, InputError, "outside the workspace"),
    ({"reference": "nothing"}, InputError, "no model 'nothing'"),
    ({"recipe": "{"}, InputError, "recipe"),
    ({"contributions": "/etc/passwd"}, InputError, "outside the workspace"),
]


@pytest.mark.parametrize(("wrong", "error", "words"), WRONG, ids=[str(wrong) for wrong, _, _ in WRONG])
def test_a_build_that_cannot_succeed_is_refused_before_it_starts(
    wrong: dict[str, Any], error: type[EspalierError], words: str, prepared: Workspace
) -> None:
    parameters = {"reference": "tiny", "map": MAP, "name": "mine", "outputs": ["safetensors"], **wrong}
    with pytest.raises(error, match=words):
        check("build", parameters, prepared)
    assert not list(prepared.artifacts.iterdir())


def test_an_existing_artifact_is_replaced_only_when_told_to(prepared: Workspace) -> None:
    run(prepared, outputs=["safetensors"])
    with pytest.raises(OutputExistsError):
        run(prepared, outputs=["safetensors"])
    other = json.dumps({str(layer): [1, 2, 3] for layer in range(LAYERS)})
    run(prepared, outputs=["safetensors"], map=other, overwrite=True)
    assert open_reference(prepared.artifacts / "mine/safetensors").shape.experts == EXPERTS - 3


def test_a_disk_that_is_too_small_is_known_before(small_disk: Path, checkpoint: Path) -> None:
    workspace = Workspace.open(small_disk)
    (workspace.references / "tiny").symlink_to(checkpoint)
    (small_disk / "filler").write_bytes(bytes(3 << 20))
    with pytest.raises(ResourceError, match="free"):
        run(workspace, outputs=["safetensors"])
    assert not list(workspace.artifacts.iterdir())


def test_the_bytes_known_before_are_those_that_are_made(quick: Workspace) -> None:
    parameters = {"reference": "tiny", "map": MAP, "name": "mine", "outputs": ["safetensors", "gguf"]}
    build = check("build", {**parameters, "tiers": ["Q8_0", "Q4_K_M"]}, quick)
    assert isinstance(build, Build)
    known = build._open(quick).made
    files = build.run(quick, Watcher())["files"]
    assert isinstance(files, list)
    made = sum(file["bytes"] for file in files if file["path"].endswith((".gguf", "/model.safetensors")))
    assert 0.95 * made < known <= made  # the rest is vocabulary and manifests


def test_every_kind_of_job_has_a_title_a_person_understands() -> None:
    build = Build(reference="demo", map=MAP, name="mine", outputs=("safetensors", "gguf"), tiers=("Q4_K_M", "Q8_0"))
    assert build.title() == "Build mine: safetensors, Q4_K_M, Q8_0"
    assert TASKS["analyze"](reference="demo", prompts="p", name="n").title() == "Measure demo"


def test_a_map_may_be_a_file_of_the_workspace(prepared: Workspace) -> None:
    (prepared.maps / "mine.json").write_text(MAP)
    result = run(prepared, map="maps/mine.json", outputs=["safetensors"])
    kept = Manifest.read(prepared.root / str(result["manifest"])).map
    assert kept is not None and kept.sha256 == DropMap.from_json(MAP, EXPERTS).content_hash


def test_a_build_cancelled_while_it_converts_is_gone_within_two_seconds(
    store: Any, prepared: Workspace, until: Callable[..., Any], partials: Callable[[], list[Path]]
) -> None:
    parameters = {"reference": "tiny", "map": MAP, "name": "mine", "outputs": ["gguf"], "tiers": ["Q8_0"]}
    job = until(store, runner.start(store, "build", parameters).id, lambda job: "Starting" in job.message)
    converter = psutil.Process(job.pid).children()
    assert converter and partials()
    begin = time.monotonic()
    cancelled = runner.cancel(store, job.id)
    assert time.monotonic() - begin < 2.0
    running = [one for one in psutil.wait_procs(converter, timeout=1)[1] if one.status() != psutil.STATUS_ZOMBIE]
    assert cancelled.status == "cancelled" and not running
    assert not partials() and not list(prepared.artifacts.iterdir())


def test_a_quantized_reference_is_quantized_again_only_when_asked(quick: Workspace) -> None:
    run(quick, name="small", outputs=["gguf"], tiers=["Q8_0"])
    small = quick.artifacts / "small" / "gguf" / "small-Q8_0.gguf"
    (quick.references / "small.gguf").symlink_to(small)
    kept = read_header(small).values["gemma4.expert_count"]
    again = {"reference": "small.gguf", "map": json.dumps({layer: [0] for layer in range(LAYERS)}), "name": "again"}
    asked = {**again, "outputs": ["gguf"], "tiers": ["Q4_0"]}
    with pytest.raises(UnsupportedError, match="allow requantizing"):
        check("build", asked, quick)
    result = check("build", {**asked, "requantize": True}, quick).run(quick, Watcher())
    made = read_header(quick.root / result["files"][0]["path"])
    assert made.values["gemma4.expert_count"] == kept - 1
    assert made.tensor("blk.0.attn_q.weight").type.name == "Q4_0"


def started_quantizing(store: Any, workspace: Workspace, parameters: dict[str, Any]) -> Any:
    """A job that has just begun to quantize: its journal lies there long before a page looks at its message."""
    job = runner.start(store, "build", parameters)

    def begun() -> bool:
        return any(path.stat().st_size for path in workspace.artifacts.rglob("journal.jsonl"))

    assert eventually(begun, step_s=0.002), store.log_tail(job.id)
    return store.get(job.id)


def test_a_build_killed_while_it_quantizes_goes_on_where_it_was(
    store: Any, prepared: Workspace, until: Callable[..., Any], partials: Callable[[], list[Path]]
) -> None:
    tiers = ["IQ4_XS", "Q2_K", "Q3_K_S", "Q4_K_M", "Q5_K_M", "Q6_K", "Q4_0", "IQ3_S"]
    parameters = {"reference": "tiny", "map": MAP, "name": "mine", "outputs": ["gguf"], "tiers": tiers}
    whole = run(prepared, **{**parameters, "name": "whole"})
    job = started_quantizing(store, prepared, parameters)
    os.kill(job.pid, 9)
    until(store, job.id, lambda job: job.is_finished)
    (journal,) = prepared.artifacts.rglob("journal.jsonl")
    finished = len(journal.read_text().splitlines())
    assert finished and [path.name for path in prepared.artifacts.iterdir() if not path.name.startswith(".")] == [
        "whole"
    ]
    again = until(store, runner.retry(store, job.id).id, lambda job: job.is_finished)
    assert again.status == "done", again.log_tail
    assert not partials()
    made = {Path(file["path"]).name.replace("mine", "whole"): file["bytes"] for file in again.result["files"]}
    assert made == {Path(file["path"]).name: file["bytes"] for file in whole["files"]}
    weights = [read_header(prepared.artifacts / name / "gguf" / f"{name}-Q4_K_M.gguf") for name in ("mine", "whole")]
    data = [header.path.read_bytes()[header.data_start :] for header in weights]
    assert data[0] == data[1]


def test_a_cancelled_build_leaves_nothing_to_go_on_with(
    store: Any, prepared: Workspace, until: Callable[..., Any], partials: Callable[[], list[Path]]
) -> None:
    parameters = {"reference": "tiny", "map": MAP, "name": "mine", "outputs": ["gguf"], "tiers": ["IQ4_XS", "Q2_K"]}
    job = started_quantizing(store, prepared, parameters)
    runner.cancel(store, job.id)
    assert not partials() and not list(prepared.artifacts.iterdir())


def test_a_build_killed_in_the_middle_leaves_nothing_and_can_be_tried_again(
    store: Any, prepared: Workspace, until: Callable[..., Any], partials: Callable[[], list[Path]]
) -> None:
    parameters = {"reference": "tiny", "map": MAP, "name": "mine", "outputs": ["gguf"], "tiers": ["Q8_0"]}
    job = runner.start(store, "build", parameters)
    until(store, job.id, lambda job: job.message.startswith("Converting"))
    os.kill(store.get(job.id).pid, 9)
    failed = until(store, job.id, lambda job: job.is_finished)
    assert failed.status == "failed"
    assert not partials() and not list(prepared.artifacts.iterdir())
    again = until(store, runner.retry(store, job.id).id, lambda job: job.is_finished)
    assert again.status == "done", again.log_tail
    assert again.result["folder"] == "artifacts/mine"
