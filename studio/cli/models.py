"""The verbs that write models: prune, convert, plan, quantize."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studio.cli.terminal import Json, Overwrite, model_path, progress_bar, read_bytes, result, size
from studio.errors import FormatError, InputError

if TYPE_CHECKING:
    from studio.families import MoeShape
    from studio.quantize.plan import TensorPlan
    from studio.recipes.dropmap import DropMap

Map = Annotated[Path, typer.Option("--map", help="A drop map: JSON with the dropped experts of each layer.")]
Imatrix = Annotated[Path | None, typer.Option(help="An importance matrix (GGUF).")]


def prune(
    reference: Annotated[
        Path, typer.Argument(help="Folder of a safetensors model, a GGUF file, or demo.", metavar="REFERENCE")
    ],
    *,
    map_: Map,
    out: Annotated[Path, typer.Option(help="A folder, or a .gguf file, as the reference is.")],
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write a model without the experts that a map drops.

    Everything else stays byte for byte; nothing is quantized anew.
    """
    from studio.checkpoints.prune_gguf import prune_gguf
    from studio.checkpoints.prune_safetensors import prune_safetensors
    from studio.checkpoints.reference import open_reference

    opened = open_reference(model_path(reference))
    if (out.suffix == ".gguf") != (opened.kind == "gguf"):
        wanted = "the name of a .gguf file" if opened.kind == "gguf" else "the name of a folder"
        raise InputError(f"{reference} is {opened.kind}, and --out {out} is not {wanted}.", "Pruning keeps the format.")
    drop = _drop_map(map_, opened.shape)
    write = prune_gguf if opened.kind == "gguf" else prune_safetensors
    with progress_bar() as progress:
        write(opened.path, drop, out, overwrite=overwrite, progress=progress)
    written = (
        sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) if out.is_dir() else out.stat().st_size
    )
    fields = {"out": str(out), "kept_experts": drop.kept_count, "bytes": written, "map_hash": drop.content_hash}
    result(json, fields, f"{out}: {size(written)}, {drop.kept_count} of {drop.experts} experts in each layer.")


def convert(
    model_dir: Annotated[Path, typer.Argument(help="Folder of a safetensors model, or demo.", metavar="MODEL_DIR")],
    *,
    out: Annotated[Path, typer.Option(help="The .gguf file to write.")],
    outtype: Annotated[str, typer.Option(help="f32, f16, bf16 or q8_0.")] = "bf16",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Convert a safetensors model to GGUF.

    llama.cpp's own converter does it, in a process of its own.
    """
    from studio.checkpoints.convert import convert_to_gguf

    with progress_bar() as progress:
        convert_to_gguf(model_path(model_dir), out, outtype=outtype, overwrite=overwrite, progress=progress)
    written = out.stat().st_size
    result(json, {"out": str(out), "bytes": written}, f"{out}: {size(written)}.")


def plan(
    file: Annotated[Path, typer.Argument(help="A GGUF file.", metavar="FILE.gguf")],
    *,
    tier: Annotated[str, typer.Option(help="The tier, for instance Q4_K_M.")],
    imatrix: Imatrix = None,
    json: Json = False,
) -> None:
    """Say what a tier makes of a model: types and bytes.

    Nothing is written.
    """
    from studio.checkpoints.gguf_header import read_header
    from studio.quantize.plan import make_plan
    from studio.quantize.tiers import tier_named

    known = None if imatrix is None else _imatrix_names(imatrix)
    planned = make_plan(read_header(file), tier_named(tier), imatrix=known)
    fields = {
        "tier": planned.tier,
        "tensors": {name: kind.name for name, kind in planned.types.items()},
        "tensor_bytes": planned.tensor_bytes,
    }
    result(json, fields, _plan_text(planned))


def quantize(
    file: Annotated[Path, typer.Argument(help="A GGUF file in F32, F16 or BF16.", metavar="FILE.gguf")],
    *,
    tier: Annotated[list[str], typer.Option(metavar="TIER", help="For instance Q4_K_M; may be given several times.")],
    out: Annotated[Path, typer.Option(help="The folder to write NAME-TIER.gguf to.")],
    map_: Annotated[Path | None, typer.Option("--map", help="Prune on the way: a drop map.")] = None,
    imatrix: Imatrix = None,
    name: Annotated[str | None, typer.Option(help="What the files are called; by default as the source.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="By default one per core.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write a model in one or more tiers.

    It is read once, and pruned on the way if a map is given.
    """
    from studio.checkpoints.gguf_header import read_header
    from studio.families import shape_of_gguf
    from studio.quantize.writer import quantize as write

    drop = None if map_ is None else _drop_map(map_, shape_of_gguf(read_header(file).values))
    with progress_bar() as progress:
        paths = write(
            file,
            tier,
            out,
            drop=drop,
            imatrix=imatrix,
            name=name,
            threads=threads,
            overwrite=overwrite,
            progress=progress,
        )
    sizes = {path: path.stat().st_size for path in paths}
    files = [
        {"path": str(path), "tier": one.upper(), "bytes": sizes[path]} for path, one in zip(paths, tier, strict=True)
    ]
    result(json, {"files": files}, "\n".join(f"{path}: {size(written)}" for path, written in sizes.items()))


def _drop_map(path: Path, shape: MoeShape) -> DropMap:
    from studio.recipes.dropmap import DropMap

    return DropMap.from_json(read_bytes(path, "drop map"), shape=shape, name=str(path))


def _imatrix_names(path: Path) -> frozenset[str]:
    """The tensors about which an importance matrix says something."""
    from studio.checkpoints.gguf_header import read_header

    suffix = ".in_sum2"
    names = frozenset(
        tensor.name.removesuffix(suffix) for tensor in read_header(path).tensors if tensor.name.endswith(suffix)
    )
    if not names:
        raise FormatError(path, "", "it is a GGUF file, but no importance matrix")
    return names


def _plan_text(planned: TensorPlan) -> str:
    counts = Counter(kind.name for kind in planned.types.values())
    lines = [f"{planned.tier}: {size(planned.tensor_bytes)} of tensors, {size(planned.file_bytes)} with the header"]
    lines += [f"  {kind:<8} {count} tensors" for kind, count in counts.most_common()]
    reasons = Counter(planned.fallbacks.values())
    lines += [f"  {count} tensors fall back, {reason}" for reason, count in reasons.most_common()]
    if planned.without_importance:
        lines.append(f"  {len(planned.without_importance)} tensors need an importance matrix: this cannot be built yet")
    return "\n".join(lines)
