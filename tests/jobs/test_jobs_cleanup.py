"""What takes room in a workspace, and removing it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from studio.cli.app import main
from studio.errors import InputError
from studio.jobs.cleanup import OLD_S, clean, inventory, kept_story
from studio.jobs.store import JobStore
from studio.jobs.task import ASSETS, DEMO
from studio.jobs.tasks import check
from studio.progress import silent
from studio.publish.manifest import FILE_NAME
from studio.publish.verify import verify
from studio.workspace import Workspace

MAP = "{" + ", ".join(f'"{layer}": [0]' for layer in range(6)) + "}"


def write(path: Path, size: int = 5000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


@pytest.fixture
def store(own_workspace: Path) -> JobStore:
    store = JobStore(Workspace.open(own_workspace))
    store.closing = True  # jobs only wait here
    return store


def keys(store: JobStore) -> dict[str, str]:
    return {item.key: item.again for item in inventory(store)}


def test_what_comes_back_what_can_be_made_again_and_what_is_gone_for_good(store: JobStore) -> None:
    root = store.workspace.root
    for name in ("cache/converted/ab.gguf", "cache/logits/cd/0.safetensors", "contributions/own.safetensors"):
        write(root / name)
    for name in ("imatrix/own.gguf", "prompts/own.jsonl", "artifacts/strange/file", "searches/found/journal.jsonl"):
        write(root / name)
    (root / "references" / "linked").symlink_to(root)
    build = {"reference": DEMO, "map": MAP, "name": "small", "outputs": ["safetensors"]}
    check("build", build, store.workspace).run(store.workspace, silent)
    found = keys(store)
    assert found["cache/converted/ab.gguf"] == found["cache/logits/cd"] == found["cache/digests"] == "by itself"
    assert found["artifacts/small"] == found["searches/found"] == "when asked"
    gone = ("contributions/own.safetensors", "imatrix/own.gguf", "prompts/own.jsonl", "artifacts/strange")
    assert {found[name] for name in gone} == {"never"}
    assert "references/linked" not in found
    sizes = [item.bytes for item in inventory(store)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 1 << 20


def test_a_build_that_was_removed_is_built_again_from_what_stays(store: JobStore) -> None:
    workspace = store.workspace
    build = {"reference": DEMO, "map": MAP, "name": "small", "outputs": ["safetensors"]}
    check("build", build, workspace).run(workspace, silent)
    (item,) = (item for item in inventory(store) if item.key == "artifacts/small")
    small = workspace.artifacts / "small"
    write(small / "measures" / "task.json")
    (small / "README.md").write_text("By hand.")
    write(small / "ollama" / "small.Modelfile")
    kept = kept_story(workspace, "artifacts/small")
    clean(store, ["artifacts/small"])
    assert not small.exists() and not list(kept.rglob("*.safetensors"))
    assert keys(store)["manifests/small"] == "never"
    command = re.search("`(replay [^`]+)`", item.source)
    assert command is not None and main(shlex.split(command[1])) == 0
    assert verify(small).problems == () and (small / "README.md").read_text() == "By hand."
    assert (small / "measures" / "task.json").is_file() and (small / "ollama" / "small.Modelfile").is_file()
    story = (kept / FILE_NAME).relative_to(workspace.root).as_posix()
    found = check("replay", {"manifest": story, "reference": DEMO, "name": "again"}, workspace).run(workspace, silent)
    assert found["equal"] is True and (workspace.artifacts / "again" / "README.md").is_file()


def test_a_build_from_a_model_that_all_people_share_can_be_made_again(store: JobStore) -> None:
    shutil.copytree(ASSETS / "demo-model", store.workspace.references / "ours")
    part = store.workspace.of("ann")
    build = {"reference": "ours", "map": MAP, "name": "small", "outputs": ["safetensors"]}
    check("build", build, part).run(part, silent)
    own = JobStore(part)
    own.closing = True
    (item,) = (item for item in inventory(own) if item.key == "artifacts/small")
    assert item.again == "when asked" and "from ours" in item.source
    told = {"manifest": f"artifacts/small/{FILE_NAME}", "name": "again"}
    assert check("replay", told, part).run(part, silent)["equal"] is True


def test_a_build_that_takes_the_name_of_a_removed_one_leaves_its_story(store: JobStore) -> None:
    stories = store.workspace.root / "manifests"
    for dropped in (0, 1):
        drop = MAP.replace("[0]", f"[{dropped}]")
        build = {"reference": DEMO, "map": drop, "name": "small", "outputs": ["safetensors"]}
        check("build", build, store.workspace).run(store.workspace, silent)
        clean(store, ["artifacts/small"])
    assert len(list(stories.iterdir())) == 2 and (stories / "small").is_dir()


def test_a_person_sees_what_is_theirs_and_not_the_caches_of_all(store: JobStore) -> None:
    root = store.workspace.root
    for name in ("cache/converted/ab.gguf", "cache/logits/cd", "cache/digests/ef", "cache/logits-old/file"):
        write(root / name)
    os.utime(root / "cache/logits-old", (time.time() - 2 * OLD_S,) * 2)
    part = store.workspace.of("ada")
    write(part.prompts / "own.jsonl")
    assert keys(store.of(part)) == {"prompts/own.jsonl": "never"}
    with pytest.raises(InputError, match="nothing called"):
        clean(store.of(part), ["cache/converted/ab.gguf"])
    clean(store.of(part), ["prompts/own.jsonl"])
    assert (root / "cache/converted/ab.gguf").exists() and "cache/converted/ab.gguf" in keys(store)


def test_leftovers_of_dead_processes_go_and_those_of_living_ones_are_not_listed(store: JobStore) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    artifacts, cache = store.workspace.artifacts, store.workspace.cache
    left = write(artifacts / f".a.partial-abc.1-{dead.pid}" / "file").parent
    write(artifacts / f".b.partial-abc.1-{os.getppid()}")
    write(artifacts / ".c.partial-resume-key" / "file")
    old, young = write(cache / "logits-old" / "file").parent, write(cache / "logits-young" / "file").parent
    os.utime(old, (time.time() - 2 * OLD_S,) * 2)
    partials = {"artifacts/.a.partial-abc.1-" + str(dead.pid), "artifacts/.c.partial-resume-key", "cache/logits-old"}
    assert set(keys(store)) == partials
    clean(store, partials)
    assert not left.exists() and not old.exists() and young.exists() and keys(store) == {}


def test_what_a_job_needs_stays(store: JobStore) -> None:
    workspace = store.workspace
    write(workspace.contributions / "own.safetensors")
    write(workspace.contributions / "other.safetensors")
    write(workspace.cache / "converted" / "ab.gguf")
    store.add("analyze", "Look", {"reference": DEMO, "name": "x", "contributions": "contributions/own.safetensors"})
    used = {item.key for item in inventory(store) if item.used_by}
    assert used == {"contributions/own.safetensors", "cache/converted/ab.gguf"}
    with pytest.raises(InputError, match="Look"):
        clean(store, ["contributions/other.safetensors", "contributions/own.safetensors"])
    assert (workspace.contributions / "other.safetensors").exists()


@pytest.mark.parametrize("key", ["artifacts", "../outside", "jobs/store", "votes", "/etc", ""])
def test_only_what_is_listed_can_be_removed(store: JobStore, key: str) -> None:
    with pytest.raises(InputError, match="nothing called"):
        clean(store, [key])


def test_logs_of_ended_jobs_go_and_their_records_stay(store: JobStore) -> None:
    job = store.add("similarity", "Compare", {"reference": DEMO})
    write(store.log_path(job.id))
    assert keys(store) == {}
    store.finish(job.id, "failed", when=("queued",))
    clean(store, [f"jobs/{job.id}/log.txt"])
    assert store.get(job.id).status == "failed" and store.log_tail(job.id) == ""
    assert json.loads(json.dumps(keys(store))) == {}
