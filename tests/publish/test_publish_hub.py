"""An artifact goes to the Hub whole, private, and over connections that break; the token stays where it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from studio.cli.app import main
from studio.errors import InputError, ProcessError
from studio.evaluate.results import Answer, ModelRecord, Result, Value
from studio.jobs import runner, tokens
from studio.jobs.store import LOGIN_LOST, Job, JobStore
from studio.jobs.tasks import check
from studio.publish import hub as hub_module
from studio.publish.artifact import keep_measures, open_artifact
from studio.publish.hub import Sender
from studio.publish.manifest import FILE_NAME, Manifest
from studio.publish.repository import plan_upload
from studio.publish.verify import verify
from studio.workspace import Workspace
from tests.patience import eventually, job_once
from tests.publish.conftest import NAME
from tests.publish.hub_stand_in import TOKEN, Hub, Repository, start

PERSONS = "hf_oauth_aLoginThatMustNotBeWrittenAnywhere"
PARAMETERS = {"artifact": f"artifacts/{NAME}", "repository": "me/small", "format": "gguf"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    server = start(hub)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # the stand-in speaks Git LFS
    yield hub
    hub.released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def store(artifact: Path) -> Iterator[JobStore]:
    store = JobStore(Workspace.open())
    yield store
    for job in store.list():
        if job.status == "running" and job.process is not None:
            job.process.end(0.1)
    store.close()


def finished(store: JobStore, parameters: dict[str, Any]) -> Job:
    return job_once(store, runner.start(store, "publish", parameters).id, lambda job: job.is_finished)


def downloaded(repository: Repository, folder: Path) -> Path:
    for name, content in repository.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_a_dry_run_lists_every_file_and_sends_nothing(
    artifact: Path, hub: Hub, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in artifact.rglob("*")}
    capfd.readouterr()
    arguments = ["publish", str(artifact), "--repo", "me/small", "--format", "gguf", "--dry-run", "--json"]
    assert main(arguments) == 0
    told = json.loads(capfd.readouterr().out)
    names = [file["name"] for file in told["files"]]
    assert names[:2] == [f"{NAME}-CD-Q4_K_M.gguf", f"{NAME}-Q4_K_M.gguf"]
    assert set(names[2:]) == {"README.md", FILE_NAME, "params", "template", "pictures/kept.svg", "pictures/classes.svg"}
    sizes = {file["name"]: file["bytes"] for file in told["files"]}
    assert sizes[names[0]] == (artifact / "gguf" / names[0]).stat().st_size and told["private"] is True
    assert not hub.requests and before == {path: path.stat().st_mtime_ns for path in artifact.rglob("*")}
    assert main([*arguments[:-1], "--public"]) == 0
    assert "would go to me/small (public). Nothing was sent." in capfd.readouterr().out


def test_what_lies_on_the_hub_is_whole_and_can_be_verified_and_replayed(
    store: JobStore, hub: Hub, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = finished(store, PARAMETERS)
    assert job.status == "done", job.error
    repository = hub.repositories["me/small"]
    assert repository.private and job.result and job.result["url"] == f"{hub.url}/me/small"
    assert repository.commits[-1][0] != repository.commits[0][0] and "README.md" in repository.commits[-1]
    head = yaml.safe_load(repository.files["README.md"].decode().split("---\n")[1])
    assert head["library_name"] == "gguf" and head["license"] == "apache-2.0" and "espalier" in head["tags"]
    folder = downloaded(repository, tmp_path / "clone")
    found = verify(folder)
    assert (
        not found.problems
        and not found.strangers
        and set(found.beside)
        == {
            "README.md",
            "params",
            "template",
            "pictures/kept.svg",
            "pictures/classes.svg",
        }
    )
    capfd.readouterr()
    assert main(["replay", str(folder), "--json"]) == 0, capfd.readouterr()
    assert json.loads(capfd.readouterr().out)["same"] == 2


def test_a_checkpoint_goes_to_a_repository_of_its_own(store: JobStore, hub: Hub, tmp_path: Path) -> None:
    job = finished(store, {**PARAMETERS, "repository": "me/weights", "format": "safetensors", "public": True})
    assert job.status == "done", job.error
    repository = hub.repositories["me/weights"]
    assert not repository.private and {"config.json", "tokenizer.json", "model.safetensors"} <= set(repository.files)
    assert b"library_name: transformers" in repository.files["README.md"]
    assert not verify(downloaded(repository, tmp_path / "clone")).problems
    told = Manifest.model_validate_json(repository.files[FILE_NAME])
    assert told.part == "safetensors" and told.map is not None and told.map.dropped


def test_the_token_is_in_no_record_and_no_log(store: JobStore, hub: Hub) -> None:
    done = finished(store, PARAMETERS)
    hub.refuse_commits = True
    (store.workspace.artifacts / NAME / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Mine\n")
    failed = finished(store, {**PARAMETERS, "repository": "me/other"})
    assert done.status == "done" and failed.status == "failed"
    assert "The Hub refuses me/other (403)" in (failed.error or "")
    searched = 0
    for path in store.workspace.root.rglob("*"):
        if path.is_file() and path.stat().st_size < 1 << 20:
            searched += 1
            assert TOKEN.encode() not in path.read_bytes(), path
    assert searched > 10 and (store.log_path(done.id)).is_file()


def tellers(store: JobStore, token: str) -> list[str]:
    """The files of the workspace that have `token` in them. A process of its own reads them: SQLite loses its locks
    when its process closes a file that it works with."""
    found = subprocess.run(
        ["grep", "--recursive", "--files-with-matches", "--text", "--fixed-strings", token, str(store.workspace.root)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode in (0, 1), found.stderr
    return found.stdout.splitlines()


@pytest.fixture
def persons_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A Hub that knows somebody who has logged in; the studio's own token opens nothing there."""
    hub.token = PERSONS
    monkeypatch.setattr(runner, "_SEE_TO_S", 0.05)
    return hub


def test_the_token_of_a_login_reaches_the_one_job_it_is_for_and_no_file(
    store: JobStore, persons_hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    persons_hub.hold_after = 0
    first = runner.start(store, "publish", PARAMETERS, token=PERSONS)
    next_one = runner.start(store, "publish", {**PARAMETERS, "repository": "me/studios"})
    job_once(store, first.id, lambda job: any(one.startswith("PUT") for one in persons_hub.requests))
    process = psutil.Process(store.get(first.id).pid or 0)
    assert PERSONS not in " ".join([*process.cmdline(), *process.environ().values()])
    assert not tokens._HELD, "the app has handed it over"
    assert not tellers(store, PERSONS)
    persons_hub.hold_after = None
    persons_hub.released.set()
    done = job_once(store, first.id, lambda job: job.is_finished)
    assert done.status == "done", done.error
    assert persons_hub.repositories["me/small"].private and done.login
    failed = job_once(store, next_one.id, lambda job: job.is_finished)
    assert failed.status == "failed" and "(401)" in failed.error, "it was started by the process that had the token"
    assert not failed.login and "Is HF_TOKEN a token" in failed.error
    assert tellers(store, "me/small"), "what is there is found"
    assert not tellers(store, PERSONS)


def test_a_job_with_a_login_that_waited_starts_with_nobody_watching(store: JobStore, persons_hub: Hub) -> None:
    persons_hub.hold_after = 0
    before = runner.start(store, "publish", {**PARAMETERS, "repository": "me/before"}, token=PERSONS)
    job_once(store, before.id, lambda job: any(one.startswith("PUT") for one in persons_hub.requests))
    job = runner.start(store, "publish", PARAMETERS, token=PERSONS)
    assert job.status == "queued" and tokens.is_held(job)
    other = JobStore(store.workspace)  # of another app: it sees that the token is still there
    script = "import sys; from studio.jobs import runner; from studio.jobs.store import JobStore; "
    script += (
        "from studio.workspace import Workspace; print(*[j.status for j in runner.refresh(JobStore(Workspace.open()))])"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["queued", "running"]
    persons_hub.hold_after = None
    persons_hub.released.set()
    assert eventually(lambda: other.get(job.id).is_finished)  # without `refresh`, as pages that are closed
    assert other.get(job.id).status == "done"


def test_a_job_whose_login_is_gone_asks_for_it_again(store: JobStore, persons_hub: Hub) -> None:
    persons_hub.hold_after = 0
    store.owner = "app with logins"
    job = runner.start(store, "publish", PARAMETERS, token=PERSONS)
    job_once(store, job.id, lambda job: any(one.startswith("PUT") for one in persons_hub.requests))
    waiting = store.add("publish", "one that waits", PARAMETERS, login=True)
    tokens.hold(store, waiting, PERSONS)
    runner.pause_own(store, 3.0)
    paused = store.get(job.id)
    assert paused.status == "failed" and "Log in, and start it again" in paused.error
    tokens.release(waiting.id)  # as when its app ends
    following = JobStore(store.workspace)
    runner.refresh(following)
    assert following.get(waiting.id).status == "failed" and following.get(waiting.id).error == LOGIN_LOST
    with pytest.raises(InputError, match="login at the Hub of whoever starts it"):
        runner.retry(following, job.id)
    persons_hub.hold_after = None
    persons_hub.released.set()
    following.owner = ""
    again = job_once(following, runner.retry(following, job.id, token=PERSONS).id, lambda job: job.is_finished)
    assert again.status == "done" and again.login, again.error
    assert not tellers(store, PERSONS)


def test_a_connection_that_breaks_in_the_middle_goes_on(store: JobStore, hub: Hub) -> None:
    hub.breaks = 2
    job = finished(store, PARAMETERS)
    assert job.status == "done", job.error
    assert hub.breaks == 0 and set(hub.received.values()) == {1}
    assert sum(one.startswith("PUT") for one in hub.requests) == 4  # two files, and two that broke off


def test_an_upload_that_was_killed_does_not_send_again_what_arrived(store: JobStore, hub: Hub) -> None:
    hub.hold_after = 1
    job = runner.start(store, "publish", PARAMETERS)
    job_once(store, job.id, lambda job: len([one for one in hub.requests if one.startswith("PUT")]) == 2)
    os.kill(store.get(job.id).pid or 0, 9)
    assert job_once(store, job.id, lambda job: job.is_finished).status == "failed"
    hub.hold_after = None
    hub.released.set()
    again = job_once(store, runner.retry(store, job.id).id, lambda job: job.is_finished)
    assert again.status == "done", again.error
    assert hub.received[next(iter(hub.objects))] == 1 and len(hub.repositories["me/small"].files) == 8
    assert not list(store.workspace.root.rglob(".*upload*"))


def test_a_public_repository_gets_nothing_that_was_meant_to_be_private(store: JobStore, hub: Hub) -> None:
    hub.repositories["me/small"] = Repository(private=False)
    job = finished(store, PARAMETERS)
    assert job.status == "failed" and "exists on the Hub and is public" in (job.error or "")
    assert not hub.repositories["me/small"].files


def test_damaged_files_do_not_leave(store: JobStore, hub: Hub) -> None:
    path = store.workspace.artifacts / NAME / "gguf" / f"{NAME}-Q4_K_M.gguf"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    job = finished(store, PARAMETERS)
    assert job.status == "failed" and "has other contents" in (job.error or "") and not hub.repositories


def test_what_cannot_be_sent_is_said_before(artifact: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace.open()
    with pytest.raises(InputError, match="takes one format"):
        check("publish", {**PARAMETERS, "format": None}, workspace)
    for name in ("small", "me/../x", "me/a b", "me/x.git", "https://huggingface.co/me/x"):
        with pytest.raises(InputError, match="OWNER/NAME"):
            check("publish", {**PARAMETERS, "repository": name}, workspace)
    with pytest.raises(InputError, match="outside the workspace"):
        check("publish", {**PARAMETERS, "artifact": "/etc"}, workspace)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="HF_TOKEN is not set"):
        check("publish", PARAMETERS, workspace)


def test_an_edited_card_is_sent_as_it_is(artifact: Path) -> None:
    (artifact / "README.md").write_text("# My own words\n")
    plan = plan_upload(open_artifact(artifact), "me/small", chosen="gguf")
    (card,) = (file for file in plan.files if file.name == "README.md")
    assert card.source == artifact / "README.md" and card.bytes == 15


def test_a_card_that_the_hub_would_refuse_stops_the_upload_before_it_begins(artifact: Path) -> None:
    (artifact / "README.md").write_text("---\nlicense: [apache\n---\n# Mine\n")
    with pytest.raises(InputError, match=r"README\.md: The block at the head of the card is not YAML"):
        plan_upload(open_artifact(artifact), "me/small", chosen="gguf")
    (artifact / "README.md").write_text("# My own words\n")
    said = plan_upload(open_artifact(artifact), "me/small", chosen="gguf", public=True).remarks
    assert "has no head" in said[0] and "names no licence" in said[1]


def test_results_leave_without_the_questions_of_a_benchmark_and_without_local_paths(
    artifact: Path, tmp_path: Path
) -> None:
    (artifact / "measures").mkdir()
    answer = Answer(id="1", category="x", right=True, outcome="answered", expected="B", text="a secret question")
    file = open_artifact(artifact).ggufs[0]
    told = Result(
        kind="task",
        name="arithmetic",
        model=ModelRecord(name=file.path.name, path=str(file.path), bytes=file.bytes, sha256="a" * 64),
        configuration={},
        inputs={"questions": 1},
        values={"accuracy": Value(value=1.0, unit="share")},
        answers=(answer,),
        details={"log": "/home/somebody"},
    )
    told.write(artifact / "measures")
    plan = plan_upload(keep_measures(open_artifact(artifact)), "me/small", chosen="gguf")
    for one in plan.files:
        one.place(tmp_path / "clone")
    (sent,) = (tmp_path / "clone" / "measures").iterdir()
    content = sent.read_text()
    assert "secret" not in content and "somebody" not in content and str(artifact) not in content
    assert Result.read(sent).ground == told.ground and Result.read(sent).values == told.values
    assert not verify(tmp_path / "clone").problems


def test_what_the_library_says_never_tells_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "PATIENCE_S", (0.0, 0.0))
    tries: list[int] = []

    def broken() -> str:
        tries.append(1)
        raise ConnectionError(f"no route with Bearer {TOKEN}")

    with pytest.raises(ProcessError, match="with Bearer …") as caught:
        Sender("me/x", TOKEN).tried(broken)
    assert TOKEN not in str(caught.value) and len(tries) == 3
    tries.clear()

    def mended() -> str:
        return "done" if len(tries) == 2 else broken()

    assert Sender("me/x", TOKEN).tried(mended) == "done"
