"""The verbs for importance matrices: show, merge, convert, slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.cli.terminal import Json, Overwrite, read_bytes, result, size

if TYPE_CHECKING:
    from studio.quantize.imatrix import Coverage, Imatrix

File = Annotated[Path, typer.Argument(help="An importance matrix: GGUF, or a legacy .dat.", metavar="FILE")]
Out = Annotated[Path, typer.Option(help="The .gguf file to write.")]


def show(file: File, json: Json = False) -> None:
    """Say what an importance matrix was computed on, and which experts it knows little about."""
    from studio.quantize.imatrix_file import read_imatrix

    imatrix = read_imatrix(file)
    layers = {
        layer: {"experts": len(one.tokens), "unseen": list(one.unseen), "scarce": list(one.scarce())}
        for layer, one in imatrix.coverage.items()
    }
    result(json, {**_fields(imatrix), "coverage": layers}, f"{_line(file, imatrix)}\n{_coverage(imatrix.coverage)}")


def merge(
    files: Annotated[
        list[Path], typer.Argument(help="Importance matrices of the same model, GGUF or legacy.", metavar="FILE…")
    ],
    *,
    out: Out,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Add several importance matrices up, as llama-imatrix does with --in-file."""
    from studio.quantize.imatrix import merge as add_up
    from studio.quantize.imatrix_file import read_imatrix

    _write(add_up([read_imatrix(file) for file in files]), out, overwrite, json)


def convert(file: File, *, out: Out, overwrite: Overwrite = False, json: Json = False) -> None:
    """Turn a legacy importance matrix (.dat) into GGUF.

    A chunk is taken for 512 tokens, which the old format does not say.
    """
    from studio.quantize.imatrix import merge as add_up
    from studio.quantize.imatrix_file import read_imatrix

    _write(add_up([read_imatrix(file)]), out, overwrite, json)


def slice_(
    file: File,
    *,
    map_: Annotated[Path, typer.Option("--map", help="The drop map that the model is pruned with.")],
    model: Annotated[Path, typer.Option(help="The GGUF file of the whole model.")],
    out: Out,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Leave out the experts that a map drops, so that the rest fits the pruned model."""
    from studio.checkpoints.gguf_header import read_header
    from studio.families import shape_of_gguf
    from studio.quantize.imatrix_file import read_imatrix
    from studio.quantize.writer import kept_experts
    from studio.recipes.dropmap import DropMap

    header = read_header(model)
    shape = shape_of_gguf(header.values)
    drop = DropMap.from_json(read_bytes(map_, "drop map"), shape=shape, name=str(map_))
    kept = kept_experts(header, drop)
    whole = read_imatrix(file).matched({tensor.name: tensor.shape for tensor in header.tensors})
    _write(whole.kept(kept or {}), out, overwrite, json)


def _write(imatrix: Imatrix, out: Path, overwrite: bool, as_json: bool) -> None:
    from studio.quantize.imatrix_file import read_imatrix, write_imatrix

    written = read_imatrix(write_imatrix(imatrix, out, overwrite))
    fields = {"out": str(out), "bytes": out.stat().st_size, **_fields(written)}
    result(as_json, fields, f"{_line(out, written)}; {size(out.stat().st_size)}.")


def _fields(imatrix: Imatrix) -> dict[str, Any]:
    return {
        "entries": len(imatrix.entries),
        "datasets": list(imatrix.datasets),
        "chunks": imatrix.chunk_count,
        "chunk_size": imatrix.chunk_size,
        "legacy": imatrix.legacy,
        "imatrix_hash": imatrix.content_hash,
    }


def _line(path: Path, imatrix: Imatrix) -> str:
    chunks = f"{imatrix.chunk_count} chunks" + (f" of {imatrix.chunk_size} tokens" if imatrix.chunk_size else "")
    return f"{path}: {len(imatrix.entries)} entries, {chunks} of {', '.join(imatrix.datasets) or 'an unnamed text'}"


def _coverage(coverage: Mapping[int, Coverage]) -> str:
    if not coverage:
        return "It does not say how many tokens each expert saw."
    lines = []
    for layer, one in coverage.items():
        parts = [f"no data about {_listed(one.unseen)}"] if one.unseen else []
        parts += [f"little about {_listed(one.scarce())}"] if one.scarce() else []
        lines += [f"  layer {layer}: {', '.join(parts)}"] if parts else []
    if not lines:
        return f"The experts of all {len(coverage)} layers saw at least an eighth of the even share of tokens."
    return "\n".join(["Experts with no data, or with less than an eighth of the even share of tokens:", *lines])


def _listed(experts: Sequence[int]) -> str:
    return ("expert " if len(experts) == 1 else "experts ") + ", ".join(map(str, experts))
