"""Where models run: on the card, with experts or layers in main memory, together or in turn. Pure arithmetic."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from studio.quantize.fit import CUDA_CONTEXT, PROCESS_BYTES, Need
from studio.units import GIB

Kind = Literal["card", "experts in RAM", "layers in RAM", "RAM", "no"]
"""All on the card; the experts of some or all layers in main memory; whole layers too; everything; it does not run."""


@dataclass(frozen=True)
class Offload:
    """How much of a model goes to the card: what `placement` chose, or a person."""

    gpu_layers: int | None = None
    """How many of the last layers, the output counted as one; None is all that there are."""
    cpu_moe_layers: int = 0
    """Of how many of the first layers the routed experts stay in main memory (`--n-cpu-moe`)."""

    @property
    def overrides(self) -> str:
        """The experts that stay in main memory, as llama.cpp's `--override-tensor` takes it."""
        return ",".join(f"{expert_pattern(layer)}=CPU" for layer in range(self.cpu_moe_layers))


@dataclass(frozen=True)
class Placement:
    """Where one model runs, and why."""

    kind: Kind
    offload: Offload
    card: int
    """Bytes of the card."""
    ram: int
    """Bytes of main memory."""
    reason: str


@dataclass(frozen=True)
class Placements:
    """Where several models run, and whether at the same time."""

    together: bool
    models: tuple[Placement, ...]
    """In the order of the needs. Where they take turns, each has the machine to itself."""
    reason: str


def taken(need: Need, offload: Offload) -> tuple[int, int]:
    """(bytes of the card, bytes of main memory) that a model takes with `offload`, as llama.cpp lays it out.

    It puts the last layers on the card, the output being one of them, and leaves the experts of the first ones in main
    memory. A process that uses the card at all takes `CUDA_CONTEXT` of it, and the compute buffer lies there.
    """
    layers = len(need.layers)
    on_card = layers + 1 if offload.gpu_layers is None else offload.gpu_layers
    if not on_card:
        return 0, need.in_ram
    card, ram = CUDA_CONTEXT + need.compute + need.output + need.tied, PROCESS_BYTES + need.embeddings
    for number, layer in enumerate(need.layers):
        if number < layers + 1 - on_card:
            ram += layer.weights + layer.experts + layer.kv
        elif number < offload.cpu_moe_layers:
            card, ram = card + layer.weights + layer.kv, ram + layer.experts
        else:
            card += layer.weights + layer.experts + layer.kv
    return card, ram


def offloads(need: Need) -> list[Offload]:
    """All that is considered, from the fastest to the slowest; each leaves no more on the card than the one before.

    First experts leave the card, layer by layer: they are large, and of each only the few that a token uses are read.
    Then whole layers do.
    """
    layers = len(need.layers)
    routed = layers if any(layer.experts for layer in need.layers) else 0
    by_experts = [Offload(None, count) for count in range(routed + 1)]
    return [*by_experts, *(Offload(count, routed) for count in range(layers, 0, -1)), Offload(0)]


def placement(need: Need, card: int, ram: int) -> Placement:
    """Where a model runs that has `card` bytes of a graphics card (0 without one) and `ram` of main memory."""
    choices = offloads(need)
    first = bisect_left(choices, -card, key=lambda one: -taken(need, one)[0])
    # The card has room from here on; main memory fills up, so if it is too small now, it stays so.
    return placed(need, choices[first], card, ram)


def placed(need: Need, offload: Offload, card: int, ram: int) -> Placement:
    """Where a model runs with an `offload` that is given; its kind is "no" where there is no room for that."""
    of_card, of_ram = taken(need, offload)
    kind = _kind(need, offload) if of_card <= card and of_ram <= ram else "no"
    return Placement(kind, offload, of_card, of_ram, _reason(need, kind, offload, (of_card, card), (of_ram, ram)))


def placements(needs: Sequence[Need], card: int, ram: int) -> Placements:
    """Where several models run that are asked the same.

    At the same time if all fit the card entirely; in turn if each does alone, because an answer from main memory takes
    several times as long and loading one anew takes seconds; at the same time with a share of the card each where that
    is possible; else in turn. One that does not run even alone has the kind "no".
    """
    alone = tuple(placement(need, card, ram) for need in needs)
    if len(needs) == 1:
        return Placements(True, alone, alone[0].reason)
    if any(one.kind == "no" for one in alone):
        return Placements(False, alone, next(one.reason for one in alone if one.kind == "no"))
    wanted = [need.on_card for need in needs]
    shares = [card * one // max(1, sum(wanted)) for one in wanted]
    if card and sum(wanted) <= card:
        shares = wanted
    shared = tuple(placement(need, share, ram) for need, share in zip(needs, shares, strict=True))
    fit = all(one.kind != "no" for one in shared) and sum(one.ram for one in shared) <= ram
    full_speed_in_turn = card > 0 and all(one.kind == "card" for one in alone)
    if fit and (not full_speed_in_turn or all(one.kind == "card" for one in shared)):
        share = _together(shared, card, ram)
        return Placements(True, shared, f"They fit at the same time ({share}) and answer together.")
    amounts = " and ".join(f"{_gib(max(one.card, one.ram))}" for one in alone)
    room = f"the card has {_gib(card)} GiB" if full_speed_in_turn else f"{_gib(ram)} GiB of main memory is free"
    return Placements(
        False,
        alone,
        f"They need {amounts} GiB and {room}: they answer in turn, and each is loaded when its turn comes.",
    )


def all_placed(needs: Sequence[Need], offload: Offload, card: int, ram: int) -> Placements:
    """Where several models run with an `offload` that is given for each of them: at the same time if there is room."""
    alone = tuple(placed(need, offload, card, ram) for need in needs)
    wrong = next((one.reason for one in alone if one.kind == "no"), "")
    if len(needs) == 1 or wrong:
        return Placements(not wrong, alone, wrong or alone[0].reason)
    if sum(one.card for one in alone) <= card and sum(one.ram for one in alone) <= ram:
        share = _together(alone, card, ram)
        return Placements(True, alone, f"They fit at the same time ({share}) and answer together.")
    return Placements(
        False, alone, "They do not fit at the same time: they answer in turn, and each is loaded when its turn comes."
    )


def expert_pattern(layer: int) -> str:
    """The names of the routed experts' weights of a layer, as llama.cpp's `--override-tensor` matches them.

    From common.h, `LLM_FFN_EXPS_REGEX`.
    """
    return rf"blk\.{layer}\.ffn_(up|down|gate|gate_up)_(ch|)exps"


def _kind(need: Need, offload: Offload) -> Kind:
    if offload.gpu_layers == 0:
        return "RAM"
    if offload.gpu_layers is not None and offload.gpu_layers <= len(need.layers):
        return "layers in RAM"
    return "experts in RAM" if offload.cpu_moe_layers else "card"


def _reason(need: Need, kind: Kind, offload: Offload, card: tuple[int, int], ram: tuple[int, int]) -> str:
    layers = len(need.layers)
    on_card = f"{_gib(card[0])} of {_gib(card[1])} GiB of the card"
    in_ram = f"{_gib(ram[0])} of {_gib(ram[1])} GiB of main memory"
    if kind == "card":
        return f"It fits the card entirely ({on_card})."
    if kind == "experts in RAM":
        which = "all" if offload.cpu_moe_layers == layers else f"{offload.cpu_moe_layers} of {layers}"
        return f"The experts of {which} layers stay in main memory, all else is on the card ({on_card}, {in_ram})."
    if kind == "layers in RAM":
        count = (offload.gpu_layers or 0) - 1
        return (
            f"{count} of {layers} layers are on the card, without their experts if they have any ({on_card}, {in_ram})."
        )
    if kind == "RAM":
        return f"It runs in main memory alone ({in_ram})."
    short = ("the card", card) if card[0] > card[1] else ("main memory", ram)
    return f"It needs {_gib(short[1][0])} GiB of {short[0]}, and {_gib(short[1][1])} GiB is free."


def _together(shared: Sequence[Placement], card: int, ram: int) -> str:
    of_card = f"{_gib(sum(one.card for one in shared))} of {_gib(card)} GiB of the card"
    of_ram = f"{_gib(sum(one.ram for one in shared))} of {_gib(ram)} GiB of main memory"
    if not card:
        return of_ram
    return of_card if all(one.kind == "card" for one in shared) else f"{of_card}, {of_ram}"


def _gib(count: int) -> str:
    return f"{count / GIB:.1f}"
