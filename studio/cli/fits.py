"""The verb that says where a model runs before it is loaded."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.cli.terminal import Json, result, size

if TYPE_CHECKING:
    from studio.quantize.fit import Need
    from studio.quantize.placement import Placement


def fits(
    file: Annotated[Path, typer.Argument(help="A GGUF file.", metavar="MODEL.gguf")],
    *,
    with_: Annotated[
        list[Path] | None, typer.Option("--with", help="Another GGUF file that is asked the same, as a pair is.")
    ] = None,
    gpu_gib: Annotated[
        float | None,
        typer.Option(min=0, help="A card as it is sold, in GiB; 0 is none. By default what this machine has free."),
    ] = None,
    ram_gib: Annotated[
        float | None, typer.Option(min=0, help="Main memory for models. By default what this machine has free.")
    ] = None,
    context: Annotated[int, typer.Option(min=1, help="Tokens of a conversation.")] = 4096,
    conversations: Annotated[int, typer.Option(min=1, help="How many are held at once.")] = 2,
    gpu_layers: Annotated[
        int | None, typer.Option(min=0, help="Decide yourself: how many of the last layers and the output go to it.")
    ] = None,
    cpu_moe_layers: Annotated[
        int | None, typer.Option(min=0, help="Decide yourself: of how many of the first layers experts stay in RAM.")
    ] = None,
    json: Json = False,
) -> None:
    """Say where a model will run, or several asked the same: on the card, partly in main memory, or in turn.

    Only headers are read. Sizes of compute buffers are estimates.
    """
    from studio.quantize.card import free_card_bytes
    from studio.quantize.fit import card_bytes
    from studio.quantize.placement import Offload, placed, placements
    from studio.serve.memory import free_bytes, model_need
    from studio.units import GIB

    paths = [file, *(with_ or [])]
    wanted = [model_need(path, context, conversations) for path in paths]
    needs = [one.need for one in wanted]
    card = (free_card_bytes() or 0) if gpu_gib is None else card_bytes(gpu_gib)
    ram = free_bytes() if ram_gib is None else int(ram_gib * GIB)
    if gpu_layers is None and cpu_moe_layers is None:
        found = placements(needs, card, ram)
        models, together, reason = found.models, found.together, found.reason
    else:
        offload = Offload(gpu_layers, cpu_moe_layers or 0)
        models = tuple(placed(need, offload, card, ram) for need in needs)
        together = all(one.kind != "no" for one in models)
        together &= sum(one.card for one in models) <= card and sum(one.ram for one in models) <= ram
        reason = "They fit at the same time." if together else "They do not fit at the same time."
    files = [
        {"path": str(path), "context": one.context, **_sizes(one.need), **_fields(model)}
        for path, one, model in zip(paths, wanted, models, strict=True)
    ]
    lines = [_text(path, need, model) for path, need, model in zip(paths, needs, models, strict=True)]
    lines += [reason] if len(paths) > 1 else []
    fields = {"card_bytes": card, "ram_bytes": ram, "together": together, "reason": reason, "files": files}
    result(json, fields, "\n".join(lines))


def _sizes(need: Need) -> dict[str, int]:
    layers = need.layers
    return {
        "weights_bytes": sum(layer.weights + layer.experts for layer in layers) + need.output + need.embeddings,
        "expert_bytes": sum(layer.experts for layer in layers),
        "kv_bytes": sum(layer.kv for layer in layers),
        "compute_bytes": need.compute,
    }


def _fields(model: Placement) -> dict[str, Any]:
    told = asdict(model)
    return {"kind": told["kind"], **told["offload"], "card": model.card, "ram": model.ram, "reason": model.reason}


def _text(path: Path, need: Need, model: Placement) -> str:
    sizes = _sizes(need)
    offload = model.offload
    layers = "all" if offload.gpu_layers is None else offload.gpu_layers
    return (
        f"{path}: {size(sizes['weights_bytes'])} of weights ({size(sizes['expert_bytes'])} of them experts), "
        f"{size(sizes['kv_bytes'])} of keys and values, {size(sizes['compute_bytes'])} to compute in\n"
        f"  {model.reason}\n"
        f"  as llama.cpp says it: --n-gpu-layers {layers} --n-cpu-moe {offload.cpu_moe_layers}"
    )
