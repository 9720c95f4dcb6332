"""Handing a GGUF file to the `ollama` program of this machine, where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import deque
from pathlib import Path
from tempfile import TemporaryDirectory

from studio import child
from studio.errors import InputError, ProcessError
from studio.progress import Progress, silent
from studio.publish.ollama import OllamaModel

PROGRAM = "ollama"
_TAIL_LINES = 20
_TIME_TO_STOP = 2.0  # seconds
_PERCENT = re.compile(r"(\d{1,3})%")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_NAME = re.compile(r"[a-z0-9][a-z0-9._/-]{0,79}(?::[a-z0-9][a-z0-9._-]{0,63})?")


def require_ollama(name: str) -> Path:
    """Where the program is; `InputError` where it is not, or `name` cannot be the name of a model."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot be the name of a model in Ollama.", "Use small letters, digits and dashes: name:tier."
        )
    found = shutil.which(PROGRAM)
    if found is None:
        raise InputError(
            f"There is no program {PROGRAM} on this machine.", "Install Ollama, or take the Modelfile to where it is."
        )
    return Path(found)


def create(model: OllamaModel, name: str, progress: Progress = silent) -> None:
    """Run `ollama create`, which copies the file into Ollama's own store, as `name`.

    Raises what `require_ollama` raises, and `ProcessError` with the program's last lines where it fails.
    """
    program = require_ollama(name)
    total = model.gguf.stat().st_size
    progress(0, total, "bytes", "Starting ollama")
    with TemporaryDirectory(prefix="espalier-ollama-") as folder:
        modelfile = Path(folder) / "Modelfile"
        modelfile.write_text(model.modelfile(str(model.gguf.resolve())), encoding="utf-8")
        _run([str(program), "create", name, "-f", str(modelfile)], total, progress)
    progress(total, total, "bytes", f"{name} is ready")


def _run(command: list[str], total: int, progress: Progress) -> None:
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    done = 0
    # Text with universal line ends: a progress bar ends its lines with a carriage return.
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    try:
        assert process.stdout is not None
        for raw in process.stdout:
            line = _ESCAPES.sub("", raw).strip()
            if not line:
                continue
            tail.append(line)
            found = _PERCENT.search(line)
            if found:
                done = total * min(100, int(found[1])) // 100
            progress(done, total, "bytes", line if found is None else "ollama copies the file")
        code = process.wait()
    finally:
        child.end(process, _TIME_TO_STOP)
    if code:
        raise ProcessError(
            f"ollama failed with exit code {code}: {tail[-1] if tail else 'it said nothing'}.",
            "Is its server running? `ollama serve` starts it.",
            "\n".join(tail),
        )
