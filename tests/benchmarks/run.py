"""Run all benchmarks, print a table, write bench.json.

Each `bench_*.py` beside this file has `benchmarks()`, which gives name → function; a function measures and returns
`{"value", "budget", "met", "sizes"}`. Names given as arguments select benchmarks.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def discover() -> dict[str, Callable[[], dict[str, Any]]]:
    """All benchmarks by name."""
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    for path in sorted(HERE.glob("bench_*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        found.update(module.benchmarks())
    return found


def main(chosen: list[str]) -> int:
    available = discover()
    unknown = set(chosen) - set(available)
    if unknown:
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there are: {', '.join(available)}", file=sys.stderr)
        return 2
    target = ROOT / "bench.json"
    results: dict[str, Any] = json.loads(target.read_text()) if chosen and target.exists() else {}
    for name in chosen or available:
        results[name] = available[name]()
        row = results[name]
        verdict = {True: "met", False: "MISSED", None: "not measured" if row["budget"] else "no budget"}[row["met"]]
        print(f"{name:32} {row['value']!s:>12}  budget {row['budget']!s:>6}  {verdict:12} {row['sizes']}", flush=True)
        target.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if all(row["met"] is not False for row in results.values()) else 1


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    raise SystemExit(main(sys.argv[1:]))
