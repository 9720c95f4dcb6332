"""Damaged files of every kind, read by our readers: `make fuzz`, and a bounded round of it among the tests.

    python -m tests.fuzz.run --inputs 10000 --seed 1

The claim: whatever a file holds, it is read, or refused with an `EspalierError` that names the file and the place; no
crash, no other exception, no input that takes `SECONDS`, none for which the process needs `MEMORY_BYTES` more.

The files are read in a child process whose address space is limited. A child that dies or hangs is a failure of the
input it was at, and another child goes on with the next one. Prints one JSON object; the exit status is 1 where an
input failed. The same seed gives the same inputs; what failed is kept in `--keep`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from studio.errors import EspalierError
from tests.fuzz.kinds import Kind, kinds

SECONDS = 5.0
MEMORY_BYTES = 1 << 30
LONGEST_SENTENCE = 2000
"""Characters of a message: nothing that a file says is repeated at any length."""


def damaged(kind: Kind, seed: int, number: int) -> bytes:
    """Input `number`, always the same for one seed."""
    random_ = random.Random(f"{seed} {kind.name} {number}")
    return kind.damaged(random_.choice(kind.whole), random_)


def outcome(kind: Kind, path: Path) -> tuple[str, str]:
    """("read" or "refused" or "failed", what was said)."""
    try:
        kind.read(path)
    except EspalierError as error:
        fault = fault_of(error, path)
        return ("failed", f"{fault}: {str(error)[:300]}") if fault else ("refused", str(error))
    except BaseException as error:  # whatever it is, no reader may let it out
        return "failed", f"{type(error).__name__}: {str(error)[:300]}"
    return "read", ""


def fault_of(error: EspalierError, path: Path) -> str:
    """What is wrong with the sentence itself, empty where nothing is."""
    sentence = str(error)
    if len(sentence) > LONGEST_SENTENCE:
        return f"a message of {len(sentence)} characters"
    try:
        sentence.encode()
    except UnicodeEncodeError:
        return "a message that cannot be printed"
    if path.stem not in sentence:
        return "a message that does not name the file"
    return ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Read damaged files.")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one kind")
    parser.add_argument("--keep", type=Path, help="where inputs that failed are kept")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="espalier-fuzz-") as name:
        told = run(Path(name), given.inputs, given.seed, given.only, given.keep)
    print(json.dumps(told, indent=2))
    return 1 if told["failed"] else 0


def run(folder: Path, inputs: int, seed: int, only: str | None = None, keep: Path | None = None) -> dict[str, Any]:
    """Read `inputs` damaged files, equally many of each kind, and tell what came of them."""
    all_kinds = [kind for kind in kinds(folder) if only in (None, kind.name)]
    for (
        kind
    ) in all_kinds:  # the whole ones are read, and whatever is imported late is imported before memory is measured
        for whole in kind.whole:
            path = folder / f"whole{kind.suffix}"
            path.write_bytes(whole)
            kind.read(path)
    failures: list[dict[str, Any]] = []
    results: dict[str, Counter[str]] = {kind.name: Counter() for kind in all_kinds}
    slowest, peak, started, number = 0.0, 0, time.monotonic(), 0
    while number < inputs:
        reports, ending = _child(folder, all_kinds, seed, number, inputs)
        for report in reports:
            kind = all_kinds[report["number"] % len(all_kinds)]
            results[kind.name][report["outcome"]] += 1
            slowest, peak = max(slowest, report["seconds"]), max(peak, report["peak"])
            if report["outcome"] == "failed":
                failures.append({"number": report["number"], "kind": kind.name, "said": report["said"]})
        number += len(reports)
        if ending and number < inputs:
            kind = all_kinds[number % len(all_kinds)]
            results[kind.name]["failed"] += 1
            failures.append({"number": number, "kind": kind.name, "said": ending})
            number += 1
    for failure in failures if keep else ():
        assert keep is not None
        keep.mkdir(parents=True, exist_ok=True)
        kind = next(one for one in all_kinds if one.name == failure["kind"])
        file = keep / f"{seed}-{failure['number']}{kind.suffix}"
        file.write_bytes(damaged(kind, seed, failure["number"]))
        failure["file"] = str(file)
    return {
        "seed": seed,
        "inputs": number,
        "failed": len(failures),
        "seconds": round(time.monotonic() - started, 1),
        "slowest_input_seconds": round(slowest, 3),
        "most_memory_mib": peak >> 20,
        "kinds": {name: dict(counts) for name, counts in results.items()},
        "failures": failures[:50],
    }


def _child(folder: Path, all_kinds: list[Kind], seed: int, first: int, end: int) -> tuple[list[dict[str, Any]], str]:
    """Reports of inputs from `first` on, and how the child that read them died; empty where it came to the end."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _read_all(folder, all_kinds, seed, range(first, end), writing)
    os.close(writing)
    reports: list[dict[str, Any]] = []
    buffer, ending = b"", ""
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while True:
            if not select.select([pipe], [], [], SECONDS)[0]:
                os.kill(child, signal.SIGKILL)
                ending = f"it took more than {SECONDS:g} s"
                break
            if not (block := pipe.read(1 << 16)):
                break
            *lines, buffer = (buffer + block).split(b"\n")
            reports += [json.loads(line) for line in lines]
    status = os.waitpid(child, 0)[1]
    if not ending and status:
        ending = f"the process ended: {os.waitstatus_to_exitcode(status)}"
    return reports, ending


def _read_all(folder: Path, all_kinds: list[Kind], seed: int, numbers: range, writing: int) -> None:
    """What the child does: read each input, and write a line about it. Never returns."""
    before = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (before + MEMORY_BYTES, before + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    for number in numbers:
        kind = all_kinds[number % len(all_kinds)]
        path = folder / f"damaged{kind.suffix}"
        path.write_bytes(damaged(kind, seed, number))
        started = time.monotonic()
        result, said = outcome(kind, path)
        report = {
            "number": number,
            "outcome": result,
            "said": said,
            "seconds": time.monotonic() - started,
            "peak": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - resident,
        }
        os.write(writing, json.dumps(report).encode() + b"\n")
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
