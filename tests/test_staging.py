"""Results appear whole or not at all."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from studio.errors import InputError, OutputExistsError, ResourceError
from studio.staging import (
    ELSEWHERE_S,
    FOLDER_MARK,
    is_leftover,
    partial_path,
    remove,
    require_disk,
    staged,
    sweep_process,
    used_bytes,
)
from tests.patience import eventually


def test_a_result_appears_only_when_complete(tmp_path: Path) -> None:
    final = tmp_path / "model.gguf"
    with staged(final) as partial:
        partial.write_bytes(b"weights")
        assert not final.exists()
    assert final.read_bytes() == b"weights"
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_a_folder_is_replaced_only_when_told_to(tmp_path: Path) -> None:
    final = tmp_path / "model"
    for content in ("first", "second"):
        with staged(final, overwrite=content == "second") as partial:
            partial.mkdir()
            (partial / "config.json").write_text(content)
            (partial / FOLDER_MARK).write_text("{}")
    assert (final / "config.json").read_text() == "second"
    with pytest.raises(OutputExistsError, match="--overwrite"), staged(final):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failure_leaves_nothing_and_keeps_the_old_result(tmp_path: Path) -> None:
    final = tmp_path / "model.gguf"
    final.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), staged(final, overwrite=True) as partial:
        partial.write_bytes(b"half")
        raise KeyboardInterrupt
    assert final.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_what_a_killed_process_left_is_swept_by_the_next_one(tmp_path: Path) -> None:
    final = tmp_path / "model.gguf"
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(f"""
                import time
                from pathlib import Path
                from studio.staging import staged
                with staged(Path({str(final)!r})) as partial:
                    partial.write_bytes(b"half")
                    time.sleep(600)
            """),
        ],
    )
    assert eventually(lambda: list(tmp_path.glob(".*partial*")))
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not final.exists()
    with staged(final) as partial:
        partial.write_bytes(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_a_folder_that_was_being_replaced_when_the_process_died_gets_its_name_back(tmp_path: Path) -> None:
    final, aside = tmp_path / "model", tmp_path / ".model.replaced-999999999"
    aside.mkdir()
    (aside / "config.json").write_text("old")
    (aside / FOLDER_MARK).write_text("{}")
    with pytest.raises(OutputExistsError), staged(final):
        pass
    assert (final / "config.json").read_text() == "old"
    aside.mkdir()
    with staged(final, overwrite=True) as partial:
        partial.mkdir()
        (partial / "config.json").write_text("new")
    assert (final / "config.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_espalier_did_not_make_is_never_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter").write_text("one")
    with pytest.raises(InputError, match="did not make"), staged(precious, overwrite=True) as partial:
        partial.write_text("{}")
    (precious / FOLDER_MARK).write_text("{}")
    with pytest.raises(InputError, match="is a folder, and a file"), staged(precious, overwrite=True) as partial:
        partial.write_text("{}")
    assert (precious / "chapter").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_two_threads_that_stage_one_name_do_not_meet(tmp_path: Path) -> None:
    with staged(tmp_path / "x") as first:
        first.write_text("first")
        with staged(tmp_path / "x") as second:
            second.write_text("second")
        assert first.read_text() == "first"
    assert (tmp_path / "x").read_text() == "first"


def test_what_a_container_left_that_had_the_same_numbers_is_swept(tmp_path: Path) -> None:
    left = tmp_path / f".x.partial-0abcde.0-{os.getpid()}"
    left.write_text("half")
    with staged(tmp_path / "x") as partial:
        partial.write_text("whole")
    assert not left.exists()


def test_another_living_process_keeps_its_partial(tmp_path: Path) -> None:
    final = tmp_path / "model.gguf"
    theirs = tmp_path / f".model.gguf.partial-{os.getppid()}"
    theirs.write_bytes(b"theirs")
    with staged(final) as partial:
        partial.write_bytes(b"ours")
    assert theirs.exists()
    assert partial_path(final) != theirs


def test_too_little_disk_is_said_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"iB free"):
        require_disk(tmp_path / "not" / "yet" / "there", 2**60)


def test_a_disk_that_fills_up_in_the_middle_leaves_nothing(small_disk: Path) -> None:
    with pytest.raises(ResourceError, match="filled up"), staged(small_disk / "model.gguf") as partial:
        partial.write_bytes(bytes(8 * 2**20))
    assert not [path for path in small_disk.iterdir() if path.name != "lost+found"]


def test_a_file_that_the_disk_does_not_take_is_said_so(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(ResourceError, match="no file as large"), staged(tmp_path / "model.gguf") as partial:
            partial.write_bytes(bytes(4096))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert not list(tmp_path.iterdir())


def test_what_another_container_writes_is_left_alone_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / ".x.partial-0abcde.0-0123abcd.999999999"
    theirs.mkdir()
    (theirs / "shard").write_text("half")
    with staged(tmp_path / "x") as partial:
        partial.write_text("whole")
    assert theirs.exists() and not is_leftover(theirs)
    later = time.time() + ELSEWHERE_S + 1
    monkeypatch.setattr(time, "time", lambda: later)
    with staged(tmp_path / "x", overwrite=True) as partial:
        partial.write_text("whole")
    assert not theirs.exists()


def test_counting_and_sweeping_go_on_while_somebody_else_removes_folders(tmp_path: Path) -> None:
    (tmp_path / "steady").write_bytes(bytes(8192))
    script = textwrap.dedent(f"""
        import shutil
        from itertools import count
        from pathlib import Path
        for number in count():
            folder = Path({str(tmp_path)!r}, "busy", f".x{{number % 50}}.partial-1", "deep")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "file").write_text("x")
            shutil.rmtree(folder.parent)
    """)
    with subprocess.Popen([sys.executable, "-c", script]) as other:
        try:
            assert eventually((tmp_path / "busy").exists)
            for _ in range(600):
                assert used_bytes(tmp_path) >= 8192
                sweep_process(tmp_path, 99_999_999, resumables=True)
        finally:
            other.kill()
    assert used_bytes(tmp_path / "nothing") == 0


def test_a_folder_that_two_remove_at_once_is_gone(tmp_path: Path) -> None:
    for _ in range(20):
        for number in range(40):
            (tmp_path / "x" / str(number)).mkdir(parents=True)
        with ThreadPoolExecutor(3) as together:
            list(together.map(remove, [tmp_path / "x"] * 3))
        assert not (tmp_path / "x").exists()
