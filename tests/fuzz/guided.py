"""Fuzzing that is led by what the readers do with their input: `make fuzz-guided`, on top of `make fuzz`.

atheris follows which lines of a reader an input reaches, and goes on from those that reach new ones. It runs one kind
at a time, for as long as it is told, and stops at the first input that a reader does not refuse with a sentence.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["studio"]):
    from tests.fuzz.kinds import kinds
    from tests.fuzz.run import MEMORY_BYTES, SECONDS, outcome


def main() -> None:
    parser = argparse.ArgumentParser(description="Read inputs that reach new lines.")
    parser.add_argument("--kind", default="GGUF header", help="as tests/fuzz/kinds.py calls it")
    parser.add_argument("--seconds", type=int, default=120)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="espalier-fuzz-") as name:
        folder = Path(name)
        kind = next(kind for kind in kinds(folder) if kind.name == given.kind)
        corpus = folder / "corpus"
        corpus.mkdir()
        for number, whole in enumerate(kind.whole):
            (corpus / str(number)).write_bytes(whole)

        def read(data: bytes) -> None:
            path = folder / f"damaged{kind.suffix}"
            path.write_bytes(data)
            result, said = outcome(kind, path)
            if result == "failed":
                raise RuntimeError(said)

        limits = [f"-timeout={SECONDS:.0f}", f"-rss_limit_mb={2 * MEMORY_BYTES >> 20}", "-max_len=65536"]
        atheris.Setup(
            [sys.argv[0], *limits, f"-max_total_time={given.seconds}", "-print_final_stats=1", str(corpus)], read
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
