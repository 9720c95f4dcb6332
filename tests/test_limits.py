"""What may be asked of a studio that others use too."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.errors import InputError, ResourceError, TooLongError
from studio.jobs.needs import require_room
from studio.limits import JOBS, LIMITS, PROMPT, QUOTA, UPLOAD, require_prompt, require_upload
from studio.serve.client import Sampler
from studio.serve.served import Request
from studio.workspace import Workspace

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.parametrize(
    ("told", "value"), [("500", 500), ("2G", 2 << 30), ("1 MiB", 1 << 20), ("3kb", 3 << 10), ("", None)]
)
def test_a_limit_is_read_as_people_write_it(monkeypatch: pytest.MonkeyPatch, told: str, value: int | None) -> None:
    monkeypatch.setenv(QUOTA.variable, told)
    assert QUOTA.value == value


@pytest.mark.parametrize("told", ["much", "-1", "0", "1.5G", "9" * 30])
def test_a_limit_that_is_no_number_is_told_by_name(monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    monkeypatch.setenv(UPLOAD.variable, told)
    with pytest.raises(InputError, match=UPLOAD.variable):
        _ = UPLOAD.value


def test_the_readme_names_every_limit_with_its_default() -> None:
    text = README.read_text(encoding="utf-8")
    for limit in LIMITS:
        (line,) = (line for line in text.splitlines() if line.startswith(f"| `{limit.variable}` |"))
        assert limit.said in line, line


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "analysis.json"
    with file.open("wb") as sparse:
        sparse.truncate(3 << 20)
    require_upload(file)
    monkeypatch.setenv(UPLOAD.variable, "2M")
    with pytest.raises(InputError, match=r"analysis\.json has 3 MiB, and this page takes files of at most 2 MiB"):
        require_upload(file)


def test_a_conversation_is_measured_in_characters_before_it_becomes_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROMPT.variable, "10")
    said = [{"role": "system", "content": "12345"}, {"role": "user", "content": "123456"}]
    require_prompt(said[:1])
    with pytest.raises(TooLongError, match="11 characters"):
        Request(said, Sampler())


def test_room_is_what_the_quota_leaves(own_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace.open(own_workspace)
    (workspace.cache / "large").write_bytes(b"x" * (600 << 10))
    require_room(workspace, 600 << 10)
    monkeypatch.setenv(QUOTA.variable, "1M")
    require_room(workspace, 300 << 10)
    require_room(workspace, 0)
    with pytest.raises(ResourceError, match="studio clean"):
        require_room(workspace, 600 << 10)
    (workspace.cache / "more").write_bytes(b"x" * (600 << 10))
    with pytest.raises(ResourceError, match=r"may take 1 MiB; it has 1\.\d+ MiB\. "):
        require_room(workspace, 0)
    with pytest.raises(ResourceError, match="whole workspace may take"):
        require_room(workspace.of("ada"), 0)


def test_there_is_a_most_of_jobs(own_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from studio.jobs import runner
    from studio.jobs.store import JobStore

    store = JobStore(Workspace.open(own_workspace))
    store.closing = True  # nothing is to run here
    monkeypatch.setenv(JOBS.variable, "1")
    runner.start(store, "similarity", {"reference": "demo"})
    with pytest.raises(ResourceError, match="1 jobs wait or run"):
        runner.start(store, "similarity", {"reference": "demo"})


def test_every_job_foretells_what_it_adds_and_is_refused_where_the_quota_is_spent(
    own_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.jobs.tasks import check

    workspace = Workspace.open(own_workspace)
    monkeypatch.setenv(QUOTA.variable, "1M")
    drop = "{" + ", ".join(f'"{layer}": [0]' for layer in range(6)) + "}"
    for kind, parameters in {
        "convert": {"reference": "demo"},
        "build": {"reference": "demo", "map": drop, "name": "x", "outputs": ["safetensors"]},
        "prune": {"reference": "demo", "map": drop, "name": "x"},
        "evaluate": {"model": "demo", "task": "demo"},
    }.items():
        with pytest.raises(ResourceError, match="may take"):
            check(kind, parameters, workspace)
    check("similarity", {"reference": "demo"}, workspace)
    (workspace.cache / "large").write_bytes(b"x" * (2 << 20))
    with pytest.raises(ResourceError, match="may take"):
        check("similarity", {"reference": "demo"}, workspace)
