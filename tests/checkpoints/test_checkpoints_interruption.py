"""Whatever stops a build, no half result stands under a final name, and the next one starts clean."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.checkpoints.prune_gguf import prune_gguf
from studio.checkpoints.prune_safetensors import prune_safetensors
from studio.errors import Cancelled, ResourceError
from studio.recipes.dropmap import DropMap

MakeMap = Callable[..., DropMap]
FilesBelow = Callable[[Path], dict[str, bytes]]
Prune = Callable[..., Path]

PRUNE_FOREVER = """
import sys, time
from pathlib import Path
from studio.checkpoints import slicing
from studio.checkpoints.{module} import {function} as prune
from studio.recipes.dropmap import DropMap
slicing.CHUNK = 10_000
def progress(done, total, unit="", message=""):
    if "Writing" in message and done > total // 2:
        print("in the middle", flush=True)
        time.sleep(60)
drop = DropMap.from_json(Path(sys.argv[2]).read_text(), 8)
prune(Path(sys.argv[1]), drop, Path(sys.argv[3]), overwrite=True, progress=progress)
"""


@pytest.fixture(params=["gguf", "safetensors"])
def case(request: pytest.FixtureRequest, tiny_model: Path, tiny_gguf: Path) -> tuple[Prune, Path]:
    """(function, reference) of either format."""
    return (prune_gguf, tiny_gguf) if request.param == "gguf" else (prune_safetensors, tiny_model)


@pytest.mark.parametrize("existing", [False, True])
def test_a_killed_build_leaves_the_final_name_alone_and_the_next_one_starts_clean(
    case: tuple[Prune, Path], drop_map: MakeMap, tmp_path: Path, existing: bool
) -> None:
    prune, reference = case
    out, map_file = tmp_path / "results" / "out", tmp_path / "map.json"
    map_file.write_text(drop_map(3).to_json())
    if existing:
        prune(reference, drop_map(1), out)
    before = out.stat().st_ino if existing else None
    script = PRUNE_FOREVER.format(module=prune.__module__.rpartition(".")[2], function=prune.__name__)
    arguments = [sys.executable, "-c", script, str(reference), str(map_file), str(out)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in the middle\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (out.stat().st_ino if out.exists() else None) == before
    assert any(".partial-" in path.name for path in out.parent.iterdir())
    prune(reference, drop_map(3), out, overwrite=True)
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_cancelled_build_leaves_nothing(case: tuple[Prune, Path], drop_map: MakeMap, tmp_path: Path) -> None:
    prune, reference = case

    def cancel(done: int, total: int, unit: str = "", message: str = "") -> None:
        raise Cancelled

    started = time.monotonic()
    with pytest.raises(Cancelled):
        prune(reference, drop_map(3), tmp_path / "out", progress=cancel)
    assert time.monotonic() - started < 2
    assert list(tmp_path.iterdir()) == []


def test_too_small_a_disk_is_said_before_the_work_starts(
    case: tuple[Prune, Path], drop_map: MakeMap, small_disk: Path
) -> None:
    prune, reference = case
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 100_000))
    with pytest.raises(ResourceError, match="iB free, and this needs"):
        prune(reference, drop_map(3), small_disk / "out")
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_a_disk_that_fills_up_in_the_middle_is_said_plainly_and_nothing_is_left(
    case: tuple[Prune, Path], drop_map: MakeMap, small_disk: Path
) -> None:
    prune, reference = case
    ballast = small_disk / "ballast"

    def fill(done: int, total: int, unit: str = "", message: str = "") -> None:
        if not ballast.exists():  # someone else takes the space after it was checked
            ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - 100_000))

    with pytest.raises(ResourceError, match=r"disk of .* filled up while writing out") as caught:
        prune(reference, drop_map(3), small_disk / "out", progress=fill)
    assert caught.value.remedy
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]
