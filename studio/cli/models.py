"""The verbs that write models: prune, convert, plan, quantize."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from json import loads
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.cli.terminal import Json, Overwrite, model_path, note, progress_bar, read_bytes, result, size, story_path
from studio.errors import InputError

if TYPE_CHECKING:
    from studio.checkpoints.gguf_header import GgufHeader
    from studio.families import MoeShape
    from studio.progress import Progress
    from studio.quantize.plan import TensorPlan
    from studio.quantize.tiers import Tier
    from studio.recipes.dropmap import DropMap

Map = Annotated[Path, typer.Option("--map", help="A drop map: JSON with the dropped experts of each layer.")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="The recipe that makes the map (JSON).")]
Preset = Annotated[str | None, typer.Option(help="A published recipe, as `map` has them.")]
Drop = Annotated[int | None, typer.Option(min=0, help="Experts to drop in every layer.")]
ClassWeights = Annotated[list[str] | None, typer.Option(metavar="CLASS=WEIGHT", help="May be given several times.")]
ImatrixFile = Annotated[Path | None, typer.Option("--imatrix", help="An importance matrix (GGUF or .dat).")]
Ranking = Annotated[
    Path | None, typer.Option("--contributions", help="An analysis that ranks the layers, for the CD tiers.")
]
TensorTypes = Annotated[
    Path | None, typer.Option("--tensor-types", help="Exceptions from the tier: llama.cpp's per-tensor file.")
]


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
    drop = drop_map_at(map_, opened.shape)
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
    file: Annotated[
        str,
        typer.Argument(help="A GGUF file, a safetensors folder, or hf:OWNER/NAME[/FILE.gguf].", metavar="FILE.gguf"),
    ],
    *,
    tier: Annotated[str, typer.Option(help="The tier, for instance Q4_K_M, or a JSON file of your own.")],
    imatrix: ImatrixFile = None,
    contributions: Ranking = None,
    tensor_types: TensorTypes = None,
    export: Annotated[
        Path | None, typer.Option(help="Write the types as llama.cpp's --tensor-type-file takes them.")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Say what a tier makes of a model: types and bytes.

    No model is written.
    """
    from studio.quantize.custom import tensor_types as as_file
    from studio.quantize.dynamic import ranking_of_imatrix
    from studio.quantize.plan import make_plan
    from studio.quantize.writer import fitting_imatrix
    from studio.staging import staged

    header = _header(file)
    matrix = None if imatrix is None else fitting_imatrix(imatrix, header)
    ranking = _ranking(contributions) or (ranking_of_imatrix(matrix) if matrix else None)
    known = matrix.entries.keys() if matrix else None
    planned = make_plan(header, _tier(tier, tensor_types), imatrix=known, ranking=ranking)
    if export is not None:
        with staged(export, overwrite=overwrite) as partial:
            partial.write_text(as_file(planned, header.architecture), encoding="utf-8")
    fields = {
        "tier": planned.tier,
        "tensors": {name: kind.name for name, kind in planned.types.items()},
        "tensor_bytes": planned.tensor_bytes,
    }
    result(json, fields, _plan_text(planned))


def quantize(
    file: Annotated[
        Path, typer.Argument(help="A GGUF file (or any part of a split one), or a safetensors folder.", metavar="MODEL")
    ],
    *,
    tier: Annotated[
        list[str],
        typer.Option(metavar="TIER", help="For instance Q4_K_M, or a JSON file; may be given several times."),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write NAME-TIER.gguf to.")],
    map_: Annotated[Path | None, typer.Option("--map", help="Prune on the way: a drop map.")] = None,
    imatrix: ImatrixFile = None,
    contributions: Ranking = None,
    tensor_types: TensorTypes = None,
    split_max_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Split into files of this size, such as 5G."),
    ] = None,
    allow_requantize: Annotated[
        bool,
        typer.Option("--allow-requantize", help="Take a source that is quantized already."),
    ] = False,
    zero_nonfinite: Annotated[
        bool, typer.Option("--zero-nonfinite", help="Make zeros of NaN and infinity instead of refusing them.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="What the files are called; by default as the source.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="By default one per core.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write a model in one or more tiers.

    It is read once, and pruned on the way if a map is given. Killed and called again, it goes on where it was.
    """
    from studio.checkpoints.gguf_header import read_header
    from studio.families import shape_of_gguf
    from studio.quantize.writer import Options
    from studio.quantize.writer import quantize as write

    tiers = [_tier(one, tensor_types) for one in tier]
    options = Options(
        imatrix=imatrix,
        ranking=_ranking(contributions),
        split_bytes=None if split_max_size is None else bytes_of(split_max_size),
        requantize=allow_requantize,
        zero_nonfinite=zero_nonfinite,
        threads=threads,
        overwrite=overwrite,
    )
    with progress_bar() as progress:
        source = as_gguf(file, progress)
        drop = None if map_ is None else drop_map_at(map_, shape_of_gguf(read_header(source).values))
        named = name or (model_path(file).resolve().name if source != file else None)
        if allow_requantize:
            _warn_of_loss(source, tiers)
        story = {"manifest": _manifest(source, drop, tiers, imatrix, progress)} if drop else None
        paths = write(source, tiers, out, drop=drop, name=named, options=options, progress=progress, provenance=story)
    written = {path: path.stat().st_size for path in paths}
    files = [{"path": str(path), "tier": _tier_in(path, tiers), "bytes": count} for path, count in written.items()]
    result(json, {"files": files}, "\n".join(f"{path}: {size(count)}" for path, count in written.items()))


def drop_map_at(path: Path, shape: MoeShape) -> DropMap:
    """The drop map at `path`, which fits `shape`, with the story that `map` wrote beside it."""
    from studio.recipes.dropmap import DropMap

    drop = DropMap.from_json(read_bytes(path, "drop map"), shape=shape, name=str(path))
    return replace(drop, provenance={**drop.provenance, **_story(path, drop.content_hash)})


def _story(map_path: Path, map_hash: str) -> dict[str, Any]:
    """What `map` wrote beside the map about how it came to be; nothing where that is about another map."""
    from studio.recipes.published import telling

    path = story_path(map_path)
    try:
        told = loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return telling(told) if isinstance(told, dict) and told.pop("map_hash", None) == map_hash else {}


def _manifest(source: Path, drop: DropMap, tiers: Sequence[Tier], matrix: Path | None, progress: Progress) -> str:
    """The story of files that are pruned on the way; as a job, it names its reference by its hash."""
    from studio.checkpoints.reference import open_reference
    from studio.publish import manifest
    from studio.quantize import ggml
    from studio.quantize.imatrix_file import read_imatrix
    from studio.workspace import Workspace

    reference = open_reference(source)
    digest = reference.content_hash(progress, Workspace.open().cache / "digests")
    used = matrix and manifest.ImatrixRecord(name=matrix.name, sha256=read_imatrix(matrix).content_hash)
    record = manifest.ReferenceRecord(name=reference.name, sha256=digest)
    told = manifest.describe(
        record,
        drop,
        tiers=[tier.name for tier in tiers],
        imatrix=used or None,
        versions=ggml.versions() | manifest.versions_of("gguf", "numpy"),
    )
    return told.to_json()


def _tier(text: str, tensor_types: Path | None) -> Tier:
    """The tier that a person named, with the exceptions of a per-tensor file."""
    from studio.quantize.custom import tier_of, with_tensor_types

    tier = tier_of(text)
    if tensor_types is None:
        return tier
    told = read_bytes(tensor_types, "per-tensor file").decode("utf-8", "replace")
    return with_tensor_types(tier, told, tensor_types)


def _tier_in(path: Path, tiers: Sequence[Tier]) -> str:
    """Which of `tiers` the file at `path` is of."""
    return max((tier.name for tier in tiers if f"-{tier.name}" in path.name), key=len)


def _header(model: str) -> GgufHeader:
    """The header of a GGUF file, or the one that a safetensors model will have; also of a model on the Hub."""
    from studio.checkpoints.gguf_header import read_header
    from studio.checkpoints.gguf_outline import outline
    from studio.checkpoints.reference import open_reference
    from studio.checkpoints.remote_header import PREFIX, remote_header

    if model.startswith(PREFIX):
        with TemporaryDirectory(prefix="espalier-") as folder:
            return remote_header(model, Path(folder))
    path = model_path(Path(model))
    return outline(open_reference(path)) if path.is_dir() else read_header(path)


def _ranking(contributions: Path | None) -> tuple[int, ...] | None:
    if contributions is None:
        return None
    from studio.contributions.importers import import_analysis
    from studio.quantize.dynamic import ranking_of_contributions

    return ranking_of_contributions(import_analysis(contributions))


def bytes_of(text: str) -> int:
    """5G, 500M: as llama.cpp reads `--split-max-size`, in powers of 1000."""
    match = re.fullmatch(r"([1-9]\d*)([MG])", text.upper())
    if match is None:
        raise InputError(f"--split-max-size {text!r} is no size.", "Say for instance 5G or 500M.")
    return int(match[1]) * {"M": 1000**2, "G": 1000**3}[match[2]]


def as_gguf(path: Path, progress: Progress) -> Path:
    """`path`, or what a safetensors model becomes, converted once and kept in the workspace."""
    from studio.checkpoints.convert import cached_gguf
    from studio.workspace import Workspace

    model = model_path(path)
    return cached_gguf(model, Workspace.open().cache, progress=progress) if model.is_dir() else model


def _warn_of_loss(source: Path, tiers: Sequence[Tier]) -> None:
    from studio.checkpoints.gguf_header import read_header
    from studio.quantize.ggml import FLOAT_TYPES

    quantized = Counter(tensor.type.name for tensor in read_header(source).tensors if tensor.type not in FLOAT_TYPES)
    if quantized:
        lost = ", ".join(f"{count} tensors in {kind}" for kind, count in quantized.most_common())
        note(
            f"{source} is quantized already ({lost}): {', '.join(tier.name for tier in tiers)} is made of weights that "
            "have lost precision, and loses more than it would from the original."
        )


def _plan_text(planned: TensorPlan) -> str:
    counts = Counter(kind.name for kind in planned.types.values())
    lines = [f"{planned.tier}: {size(planned.tensor_bytes)} of tensors, {size(planned.file_bytes)} with the header"]
    lines += [f"  {kind:<8} {count} tensors" for kind, count in counts.most_common()]
    reasons = Counter(planned.fallbacks.values())
    lines += [f"  {count} tensors fall back, {reason}" for reason, count in reasons.most_common()]
    if planned.without_importance:
        lines.append(f"  {len(planned.without_importance)} tensors need an importance matrix that covers them")
    return "\n".join(lines)
