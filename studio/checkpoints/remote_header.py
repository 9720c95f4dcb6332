"""Models on the Hub of which only the headers are fetched, to plan and foretell sizes before a download.

What stands before the weights of each file is read by range request, some megabytes at most. It is laid down in files
that are as long as the real ones and otherwise empty, which takes no disk: whatever reads headers reads these, and
nothing may ever read their weights.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from studio.checkpoints.gguf_header import MAGIC, MAX_HEADER_BYTES, GgufHeader, read_header, read_part
from studio.checkpoints.gguf_outline import outline
from studio.checkpoints.model_folder import CONFIG, INDEX
from studio.checkpoints.reference import open_reference
from studio.errors import EspalierError, FormatError, InputError, ResourceError

FIRST_BYTES = 1 << 20
"""Read of each file at first; more where its header is longer."""
PREFIX = "hf:"

_OFFLINE = "Look at a model on this machine, or try again with a connection."


def remote_header(model: str, folder: Path) -> GgufHeader:
    """The header of `hf:OWNER/NAME/FILE.gguf`, or the outline of the safetensors model `hf:OWNER/NAME`.

    `folder` is an empty folder for the stand-ins, needed no longer than the header's tensors are looked at. A commit or
    branch may be given as `OWNER/NAME@REVISION`. Raises `InputError` where there is no such model or file,
    `ResourceError` where the Hub cannot be reached, and what `read_header` and `outline` raise.
    """
    repository, revision, name = _parts(model)
    with _explained(model):
        sizes = _sizes(repository, revision)
        if name is not None:
            for part in _split_parts(name, sizes, model):
                _lay_down_gguf(repository, revision, part, sizes[part], folder)
            return read_header(folder / Path(name).name)
        weights = [file for file in sizes if file.endswith(".safetensors") and "/" not in file]
        if CONFIG not in sizes or not weights:
            ggufs = [file for file in sizes if file.endswith(".gguf")]
            remedy = f"Name one of its files, such as {model}/{ggufs[0]}." if ggufs else ""
            raise InputError(f"{model} has no safetensors checkpoint.", remedy)
        for file in (CONFIG, INDEX):
            if file in sizes:
                (folder / file).write_bytes(_fetch(repository, revision, file, 0, sizes[file]))
        for file in weights:
            _lay_down_safetensors(repository, revision, file, sizes[file], folder)
        return outline(open_reference(folder))


def _parts(model: str) -> tuple[str, str | None, str | None]:
    """(owner/name, revision, file) of a model's name."""
    named = model.removeprefix(PREFIX).strip("/").split("/", 2)
    if len(named) < 2 or not all(named):
        raise InputError(f"{model!r} names no model.", "Write OWNER/NAME, or OWNER/NAME/FILE.gguf.")
    name, _, revision = named[1].partition("@")
    file = named[2] if len(named) > 2 else None
    if file is not None and not file.endswith(".gguf"):
        raise InputError(f"{file} is no GGUF file.", "Write OWNER/NAME, or OWNER/NAME/FILE.gguf.")
    return f"{named[0]}/{name}", revision or None, file


def _split_parts(name: str, sizes: dict[str, int], model: str) -> list[str]:
    """All files of the model that `name` is, or is a part of."""
    if name not in sizes:
        others = ", ".join(file for file in sizes if file.endswith(".gguf"))
        raise InputError(f"{model} does not exist.", f"There are {others}." if others else "")
    stem, of, count = name.removesuffix(".gguf").rpartition("-of-")
    prefix = stem.rpartition("-")[0]
    parts = [file for file in sizes if of and file.startswith(f"{prefix}-") and file.endswith(f"-of-{count}.gguf")]
    return parts or [name]


def _lay_down_gguf(repository: str, revision: str | None, name: str, size: int, folder: Path) -> None:
    """A stand-in for a GGUF file, as much of whose beginning is fetched as the header takes."""
    path, held = folder / Path(name).name, b""
    while len(held) < min(size, MAX_HEADER_BYTES):
        wanted = min(size, max(FIRST_BYTES, 4 * len(held)))
        held += _fetch(repository, revision, name, len(held), wanted)
        with path.open("wb") as file:
            file.write(held)
            file.truncate(size)
        if not held.startswith(MAGIC):
            break
        with suppress(InputError):  # cut off
            if read_part(path).data_start <= len(held):
                return
    if len(held) >= size or not held.startswith(MAGIC):
        return  # whatever is wrong with it, reading it says so
    raise FormatError(name, "", f"its header is longer than {MAX_HEADER_BYTES} bytes")


def _lay_down_safetensors(repository: str, revision: str | None, name: str, size: int, folder: Path) -> None:
    """A stand-in for a safetensors file: its length, its header, and nothing."""
    held = _fetch(repository, revision, name, 0, min(size, FIRST_BYTES))
    length = struct.unpack_from("<Q", held.ljust(8, b"\0"))[0] + 8
    if length > MAX_HEADER_BYTES:
        raise FormatError(name, "byte 0", f"it claims a header of {length} bytes")
    if length > len(held):
        held += _fetch(repository, revision, name, len(held), min(size, length))
    with (folder / name).open("wb") as file:
        file.write(held[:length])
        file.truncate(size)


def _sizes(repository: str, revision: str | None) -> dict[str, int]:
    from huggingface_hub import HfApi

    info = HfApi().model_info(repository, revision=revision, files_metadata=True)
    return {file.rfilename: int(file.size or 0) for file in info.siblings or ()}


def _fetch(repository: str, revision: str | None, name: str, start: int, end: int) -> bytes:
    """Bytes [start, end) of a file."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils._http import hf_raise_for_status

    headers: dict[str, str] = {**build_hf_headers(), "Range": f"bytes={start}-{end - 1}"}
    answer: Any = get_session().get(hf_hub_url(repository, name, revision=revision), headers=headers)
    hf_raise_for_status(answer)
    content = bytes(answer.content)
    # A server that knows no ranges sends everything.
    return content[start:end] if answer.status_code == 200 else content


@contextmanager
def _explained(model: str) -> Iterator[None]:
    """What the Hub's library raises, in words."""
    from httpx2 import HTTPError  # what huggingface_hub asks with
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError:
        raise InputError(f"{model} is gated.", "Accept its terms on the Hub and log in with `hf auth login`.") from None
    except EspalierError:
        raise
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError):
        remedy = "Look at its spelling; a private one needs `hf auth login`."
        raise InputError(f"There is no model {model} on the Hub.", remedy) from None
    except OfflineModeIsEnabled:
        raise ResourceError(f"{model} cannot be looked at: HF_HUB_OFFLINE is set.", _OFFLINE) from None
    except (HTTPError, OSError) as error:
        raise ResourceError(f"The Hub cannot be reached for {model} ({type(error).__name__}).", _OFFLINE) from None
