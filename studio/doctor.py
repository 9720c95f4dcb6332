"""What this installation is made of, what is wrong with it, and how that is mended.

No model is loaded, and no room imported before it is looked at: where a package is missing, the rest is still told.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from studio.errors import EspalierError
from studio.limits import LIMITS
from studio.units import GIB, size_text
from studio.workspace import Workspace

REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements.txt"
OLDEST_PYTHON = (3, 11)
DEMO_MODEL = Path(__file__).resolve().parents[1] / "assets" / "demo-model"
FITTED = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
"""Tiers that are tried, the largest first; all can be made without an importance matrix."""
USABLE = 0.9
"""Of the memory that is free, beside the conversation and what is computed."""
LITTLE_DISK = 5 * GIB
"""Less is free than a small model takes in one tier."""
_PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s#;]+)")
_QUESTION_S = 60
_BUILD = (
    "import json, xllamacpp; print(json.dumps({'build': xllamacpp.BUILD_INFO, 'devices': "
    "[[str(one['description']), int(one['memory_free'])] for one in xllamacpp.get_device_info()]}))"
)
"""Asked in a child process: a library that does not fit this machine can end the process that loads it."""

State = Literal["good", "poor", "broken"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    `poor` works, but not as it was tested or not as well as it could; `broken` does not, and `remedy` says what to do.
    """

    name: str
    state: State
    found: str
    """What is there, in words."""
    remedy: str = ""


def examine(workspace: Path | None = None, requirements: Path = REQUIREMENTS) -> list[Finding]:
    """Look at everything; `workspace` is by default the one that every verb uses."""
    findings = [_python(), *packages(requirements)]
    looks: tuple[tuple[str, Callable[[], tuple[State, str, str]]], ...] = (
        ("ggml, which quantizes", _kernels),
        ("llama.cpp's logits, which measures of GGUF files read", _logits),
        ("llama.cpp's server, which chats", _server),
        ("llama.cpp's converter", _converter),
        ("graphics card", _card),
        ("main memory", _memory),
    )
    seen = [*findings, *(_looked(name, look) for name, look in looks), *room(workspace), *limits()]
    return [*seen, *fitting(workspace)]


def _looked(name: str, look: Callable[[], tuple[State, str, str]]) -> Finding:
    try:
        return Finding(name, *look())
    except EspalierError as error:
        return Finding(name, "broken", error.what, error.remedy)
    except ImportError as error:
        return Finding(name, "broken", f"it cannot be looked at: {error}", "Run: pip install -r requirements.txt")


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    oldest = ".".join(map(str, OLDEST_PYTHON))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Finding("Python", "broken", found, f"Espalier needs Python {oldest} or newer.")
    return Finding("Python", "good", f"{found}, {sys.executable}")


def packages(requirements: Path) -> Iterator[Finding]:
    """Each package that `requirements` pins, beside what is installed."""
    try:
        pinned = _PIN.findall(requirements.read_text(encoding="utf-8"))
    except OSError as error:
        reason = f"{requirements} cannot be read: {error.strerror}"
        yield Finding("packages", "poor", reason, "Run this from a complete copy of Espalier.")
        return
    for name, wanted in pinned:
        remedy = f"Run: {Path(sys.executable).name} -m pip install {name}=={wanted}"
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Finding(name, "broken", f"not installed, and {wanted} is needed", remedy)
            continue
        if found.partition("+")[0] == wanted:  # what follows a plus says for which machine it was built
            yield Finding(name, "good", found)
        else:
            yield Finding(name, "poor", f"{found}, and Espalier is tested with {wanted}", remedy)


def _kernels() -> tuple[State, str, str]:
    from studio.quantize.ggml import library

    found = library()
    commit = f", commit {found.commit}" if found.commit not in ("", "unknown") else ""
    return "good", f"{found.version}{commit}, its C functions in {found.path} ({found.package})", ""


def _logits() -> tuple[State, str, str]:
    from studio.evaluate.llama import bound

    bound()
    return "good", "the structures of this build are known", ""


def _server() -> tuple[State, str, str]:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _BUILD], capture_output=True, text=True, timeout=_QUESTION_S, check=True
        )
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
        remedy = "Install the xllamacpp of requirements.txt; where libgomp.so.1 is missing, the system's libgomp1."
        return "broken", f"xllamacpp cannot be loaded: {last}", remedy
    except (OSError, subprocess.SubprocessError, ValueError, LookupError) as error:
        return "broken", f"xllamacpp does not answer: {error}", "Install the one of requirements.txt."
    build = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in told["build"].items())
    devices = ", ".join(f"{device} ({size_text(free)} free)" for device, free in told["devices"])
    return "good", f"{build}; computes on {devices}", ""


def _converter() -> tuple[State, str, str]:
    from studio.checkpoints.convert import PACKAGE, converter

    return "good", f"{converter()} ({PACKAGE})", ""


def _card() -> tuple[State, str, str]:
    from studio.quantize.fit import free_gpu_bytes, this_gpu
    from studio.quantize.ggml import computes_on_gpu

    card, free = this_gpu(), free_gpu_bytes()
    if card is None:
        return "good", "no NVIDIA card answers; models run on the processor", ""
    told = f"{card[0]}, {size_text(card[1])}" + ("" if free is None else f", {size_text(free)} free")
    if computes_on_gpu():
        return "good", told, ""
    remedy = "Install xllamacpp's CUDA build; its README names the index of wheels."
    return "poor", f"{told}; this llama.cpp was built without CUDA and leaves it alone", remedy


def _jobs(root: Path | None) -> tuple[State, str, str]:
    from studio.jobs.store import JobStore

    store = JobStore(Workspace.open(root))
    jobs = store.everyones()
    store.close()
    unfinished = sum(not job.is_finished for job in jobs)
    return "good", f"{len(jobs)} on record, {unfinished} of them not finished", ""


def _memory() -> tuple[State, str, str]:
    from studio.machine import free_ram, usable_cores

    return "good", f"{size_text(free_ram())} free, {usable_cores()} processor cores", ""


def limits() -> Iterator[Finding]:
    """What may be asked of this studio, and the variables that say so."""
    told = []
    for limit in LIMITS:
        try:
            if limit.value is not None:
                told.append(f"{limit.variable} {limit.said}")
        except EspalierError as error:
            yield Finding(f"limit {limit.variable}", "broken", error.what, "Set it to a number, or not at all.")
    yield Finding("limits", "good", ", ".join(told))


def fitting(root: Path | None) -> Iterator[Finding]:
    """Each model that is here: its size, and what of it fits in the memory that is free now."""
    try:
        entries = sorted(Workspace.open(root).references.iterdir())
        for path in [*([DEMO_MODEL] if DEMO_MODEL.exists() else []), *entries]:
            if not path.name.startswith("."):
                yield _looked(f"model {path.name}", partial(_fit, path))
    except OSError:
        return  # `room` has said what is wrong with the workspace


def _fit(path: Path) -> tuple[State, str, str]:
    from studio.checkpoints.gguf_outline import outline
    from studio.checkpoints.reference import open_reference
    from studio.machine import free_ram
    from studio.quantize.card import free_card_bytes
    from studio.quantize.forecast import predict_bytes
    from studio.quantize.tiers import tier_named

    try:
        reference = open_reference(path)
        header = outline(reference)
        experts = reference.shape.experts
        sizes = {name: predict_bytes(header, tier_named(name), experts) for name in FITTED}
    except EspalierError as error:
        return "poor", error.what, error.remedy or "It cannot be opened; the rest works."
    free = (free_ram() + (free_card_bytes() or 0)) * USABLE
    told = f"{size_text(reference.bytes)} as it is, {experts} experts in each layer"
    if (tier := next((name for name in FITTED if sizes[name] <= free), None)) is None:
        half = predict_bytes(header, tier_named(FITTED[-1]), experts // 2)
        remedy = f"Half of the experts in {FITTED[-1]} take {size_text(half)}; {size_text(free)} can be used."
        return "poor", f"{told}; no tier of all of it fits in memory", remedy
    whole = "fits in memory whole" if reference.bytes <= free else "does not fit in memory whole"
    return "good", f"{told}: {whole}; all experts in {tier} take {size_text(sizes[tier])} and fit", ""


def room(root: Path | None) -> Iterator[Finding]:
    """The workspace at `root`: whether it can be written to, its jobs be read, and how much room its disk has."""
    name = "workspace"
    try:
        opened = Workspace.open(root).root
        with tempfile.TemporaryFile(dir=opened) as file:
            file.write(b"written")
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(opened).free
    except OSError as error:
        where = error.filename or root or "the workspace"
        remedy = "Make it writable, or name another folder in ESPALIER_HOME."
        yield Finding(name, "broken", f"{where} cannot be written to: {error.strerror}", remedy)
        return
    yield Finding(name, "good", f"{opened}, writable")
    yield _looked("jobs", partial(_jobs, root))
    told = f"{size_text(free)} free"
    if free < LITTLE_DISK:
        remedy = f"Free some of {opened}, or name a folder on a larger disk in ESPALIER_HOME."
        yield Finding("disk of the workspace", "poor", told, remedy)
    else:
        yield Finding("disk of the workspace", "good", told)
