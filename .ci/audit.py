"""Known vulnerabilities of everything that is installed here, what other packages brought included.

Asks a service on the network through pip-audit: PyPI, else OSV. Exit status 1 where a package is vulnerable. Where no
service answers, nothing was audited: that is said, and is no failure, as the same check runs without a network.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

SERVICES = (("--vulnerability-service", "pypi"), ("--vulnerability-service", "osv"))
PROBE = "urllib3"
"""A package that every service knows, asked about first: one that knows nothing would have all others look sound."""
ACCEPTED: dict[str, str] = {}
"""Vulnerabilities that do not concern Espalier: id → why."""
PATIENCE_S = 300

Report = dict[str, Any]


def asked(service: Sequence[str], *what: str) -> Report | None:
    """What `service` says of all that is installed, or of `what` pip-audit is told; None where it does not answer."""
    command = [sys.executable, "-m", "pip_audit", *service, "--format", "json", "--progress-spinner", "off", *what]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        report = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return None
    return report if isinstance(report, dict) else None


def answers(service: Sequence[str]) -> bool:
    """Whether `service` can be reached and knows packages."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text(f"{PROBE}=={version(PROBE)}\n", encoding="utf-8")
        report = asked(service, "--requirement", str(wanted), "--no-deps", "--disable-pip", "--timeout", "10")
    return report is not None and any("vulns" in one for one in report.get("dependencies", []))


def told(report: Report) -> tuple[int, str]:
    """The exit status and what to say of `report`."""
    packages = report["dependencies"]
    unknown = [one["name"] for one in packages if "vulns" not in one]
    known = len(packages) - len(unknown)
    found = [
        f"{one['name']} {one['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no version yet'}"
        for one in packages
        for hole in one.get("vulns", [])
        if hole["id"] not in ACCEPTED
    ]
    lines = [f"{known} of {len(packages)} installed packages were audited: {len(found) or 'no'} known vulnerabilities."]
    if unknown:
        lines.append(f"Not audited, as the service does not know them: {', '.join(unknown)}.")
    return int(bool(found)), "\n".join([*found, *lines])


def main(services: Sequence[Sequence[str]] = SERVICES) -> int:
    for service in services:
        if answers(service) and (report := asked(service)) is not None:
            status, says = told(report)
            sys.stdout.write(f"{says}\n")
            return status
    sys.stdout.write(
        "NOT AUDITED: no service for known vulnerabilities could be asked from here. `make audit` asks again.\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main([sys.argv[1:]] if sys.argv[1:] else SERVICES))
