"""A bounded round of `make fuzz`: another claim of every reader than its own tests make."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from studio.errors import EspalierError, FormatError
from tests.fuzz.kinds import kinds
from tests.fuzz.run import damaged, outcome

ROOT = Path(__file__).parents[2]
INPUTS, SEED = 1600, 7


def test_no_damaged_file_crashes_hangs_or_fills_the_memory() -> None:
    line = [sys.executable, "-m", "tests.fuzz.run", "--inputs", str(INPUTS), "--seed", str(SEED)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    told = json.loads(done.stdout)
    assert (told["failures"], told["failed"], done.returncode) == ([], 0, 0), done.stderr
    assert told["inputs"] == INPUTS
    assert all(counts["refused"] > counts["read"] for counts in told["kinds"].values()), "the damage is felt"


def test_the_same_seed_gives_the_same_damage(tmp_path: Path) -> None:
    for kind in kinds(tmp_path):
        assert [damaged(kind, 1, number) for number in range(5)] == [damaged(kind, 1, number) for number in range(5)]
        assert len({damaged(kind, 1, number) for number in range(20)}) > 10


@pytest.mark.parametrize(
    ("raised", "verdict"),
    [
        (None, "read"),
        (FormatError("FILE/damaged.bin", "byte 7", "it is damaged"), "refused"),
        (EspalierError("Something is wrong."), "failed"),
        (ZeroDivisionError("no reader may let this out"), "failed"),
        (MemoryError(), "failed"),
    ],
)
def test_only_a_sentence_that_names_the_file_counts_as_refused(raised: BaseException | None, verdict: str) -> None:
    class Fake:
        @staticmethod
        def read(path: Path) -> None:
            if raised is not None:
                raise raised

    assert outcome(Fake, Path("damaged.bin"))[0] == verdict  # type: ignore[arg-type]


def test_a_sentence_can_be_printed_and_ends_whatever_a_file_says() -> None:
    error = FormatError("file.json", "\ud800" * 5000, "it is damaged")
    assert len(str(error).encode()) < 5000 and error.said_of("folder").what.startswith("folder: file.json, ")
