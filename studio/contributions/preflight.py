"""How a contribution pass will be made, and what it takes, estimated before anything large is read.

The arithmetic is a pure function of two sets of numbers, those of the work and those of the machine. Where the numbers
come from is in measuring.py. All results are estimates; each says in a sentence where it comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from studio.errors import InputError, ResourceError
from studio.units import size_text

Mode = Literal["whole", "offloaded", "layered"]
MODES: tuple[Mode, ...] = ("whole", "offloaded", "layered")

BATCH_TOKENS, LAYERED_BATCH_TOKENS = 4096, 512
"""Tokens of one forward pass, unless a single question has more."""
USABLE = 0.9
"""Of the memory that is free now: it may become less."""
PROCESS_BYTES = 1 << 30
"""Python, torch and transformers on the host; CUDA's context on a GPU takes about half of it."""
LOADING = 4 / 3
"""Of one layer while its experts are fused: gate and up (two thirds of it) are there twice."""
BUS_RATE = 12e9
"""Bytes per second from main memory to a GPU; PCIe 4.0 x16 has 32e9 on paper. An assumption."""
MEMORY_RATES = {"cpu": 10e9, "cuda": 500e9}
"""Bytes of weights per second that a device reads while it generates. Assumptions."""
GENERATED_TOGETHER = 8
MUCH_FASTER = 2.0
"""A mode that is less simple is chosen where it is estimated to take less than one part in this many of the time."""


@dataclass(frozen=True)
class Work:
    """What is asked of a model: its sizes in bytes, as it is loaded, and the tokens that pass through it."""

    weights: int
    """All that is loaded with the whole model."""
    layer_weights: int
    """Those of the decoder layers together."""
    largest_layer: int
    embeddings: int
    layers: int
    active: int
    """Parameters that a token meets on its way through the layers."""
    hidden_size: int
    expert_size: int
    top_k: int
    bytes_per_value: int
    tokens: int
    longest: int
    """Tokens of the longest question."""
    questions: int
    unanswered: int
    """Questions that the model is to answer itself,"""
    new_tokens: int
    """by at most so many tokens each."""
    quantized: bool = False
    """Whether the checkpoint is stored quantized; what it unpacks to is not known here."""
    unpacked: int = 0
    """Bytes of the weights before their experts are packed in four bits, in main memory; 0 where they are not."""

    @property
    def hidden_states(self) -> int:
        """Bytes of the hidden states of all questions between two layers."""
        return self.tokens * self.hidden_size * self.bytes_per_value

    def activations(self, batch_tokens: int) -> int:
        """Bytes that the largest steps of one batch take: each expert's neurons and output of each of its tokens."""
        tokens = max(min(batch_tokens, self.tokens), self.longest)
        return tokens * self.top_k * 4 * (3 * self.hidden_size + 3 * self.expert_size)


@dataclass(frozen=True)
class Machine:
    """What there is to work with: free memory in bytes, and rates per second."""

    ram: int
    gpu: int | None
    """Free memory of the GPU, None where there is none."""
    disk_rate: float
    """Bytes."""
    flops: float
    """Floating-point operations of the CPU in a pass,"""
    gpu_flops: float = 0.0
    """and of the GPU."""


@dataclass(frozen=True)
class Estimate:
    """One way to make the pass. Peaks are bytes of main memory and of the GPU, beyond what is used now."""

    mode: Mode
    device: str
    """ "cpu", "cuda", or "auto" for both."""
    ram: int
    gpu: int
    seconds: float
    possible: bool
    reason: str
    """One sentence: why it is possible or not."""


@dataclass(frozen=True)
class Preflight:
    """All ways to make a pass, the simplest first, and the numbers that they were estimated from."""

    work: Work
    machine: Machine
    estimates: tuple[Estimate, ...]

    def choose(self, asked: Mode | Literal["auto"] = "auto") -> Estimate:
        """The way to go: what was asked for, or the simplest that is possible and not much slower than another.

        Raises `ResourceError` when nothing is possible, `InputError` when what was asked for cannot be done at all.
        """
        if asked != "auto":
            return self._asked(asked)
        possible = [estimate for estimate in self.estimates if estimate.possible]
        if not possible:
            raise ResourceError(
                "This pass fits in no way: " + " ".join(estimate.reason for estimate in self.estimates),
                "Free some memory, give shorter prompts, or choose a mode to try it all the same.",
            )
        chosen = possible[0]
        for other in possible[1:]:
            if other.seconds * MUCH_FASTER < chosen.seconds:
                chosen = other
        return chosen

    def _asked(self, mode: Mode) -> Estimate:
        ways = [estimate for estimate in self.estimates if estimate.mode == mode]
        if not ways:
            why = "there is no GPU" if self.machine.gpu is None and mode == "offloaded" else "its experts are packed"
            known = dict.fromkeys(estimate.mode for estimate in self.estimates)
            raise InputError(f"This model cannot be observed {mode}: {why}.", f"Possible here: {', '.join(known)}.")
        return next((estimate for estimate in ways if estimate.possible), ways[-1])

    def fields(self, chosen: Estimate | None) -> dict[str, Any]:
        """Everything in plain values, for machines; `chosen` is None where nothing is possible."""
        return {
            "estimate": True,
            "work": asdict(self.work),
            "machine": asdict(self.machine),
            "ways": [asdict(estimate) for estimate in self.estimates],
            "chosen": None if chosen is None else asdict(chosen),
        }


def preflight(work: Work, machine: Machine) -> Preflight:
    """Every way to do `work` on `machine`."""
    estimates = [_whole(work, machine, "cpu")]
    if machine.gpu is not None:
        estimates = [_whole(work, machine, "cuda"), *estimates, _offloaded(work, machine)]
    if work.unpacked:  # accelerate moves no packed experts, and a single layer is small as it is
        return Preflight(work, machine, tuple(estimate for estimate in estimates if estimate.mode == "whole"))
    return Preflight(work, machine, (*estimates, _layered(work, machine)))


def _whole(work: Work, machine: Machine, device: Literal["cpu", "cuda"]) -> Estimate:
    there = work.weights + work.activations(BATCH_TOKENS)
    ram = PROCESS_BYTES + max(work.unpacked, there + work.largest_layer if device == "cpu" else work.largest_layer)
    gpu = there if device == "cuda" else 0
    flops = machine.flops if device == "cpu" else machine.gpu_flops
    seconds = work.weights / machine.disk_rate + _computing(work, flops) + _answering(work, MEMORY_RATES[device])
    possible = _fits(work, machine, ram, gpu)
    where = "the GPU" if device == "cuda" else "main memory"
    free = machine.gpu if device == "cuda" else machine.ram
    reason = (
        f"The whole model {'fits' if possible else 'does not fit'} in {where}: it takes about "
        f"{size_text(gpu or ram)}, and {size_text(free or 0)} is free."
    )
    return Estimate("whole", device, ram, gpu, seconds, possible, reason)


def _offloaded(work: Work, machine: Machine) -> Estimate:
    """What does not fit on the GPU stays in main memory, and crosses the bus for every batch."""
    free = int((machine.gpu or 0) * USABLE)
    on_gpu = max(0, min(work.weights, free - work.activations(BATCH_TOKENS) - work.largest_layer))
    ram = PROCESS_BYTES + work.weights - on_gpu + work.largest_layer
    gpu = on_gpu + work.activations(BATCH_TOKENS) + work.largest_layer
    passes = -(-work.tokens // BATCH_TOKENS) + -(-work.unanswered // GENERATED_TOGETHER) * work.new_tokens
    seconds = (
        work.weights / machine.disk_rate
        + _computing(work, machine.gpu_flops)
        + passes * (work.weights - on_gpu) / BUS_RATE
    )
    possible = _fits(work, machine, ram, gpu)
    reason = (
        f"{'A part' if possible else 'Too little'} of the model fits on the GPU: about {size_text(on_gpu)} of "
        f"{size_text(work.weights)}; the rest takes {size_text(ram)} of {size_text(machine.ram)} main memory "
        f"and crosses the bus {passes} times."
    )
    return Estimate("offloaded", "auto", ram, gpu, seconds, possible, reason)


def _layered(work: Work, machine: Machine) -> Estimate:
    activations = work.activations(LAYERED_BATCH_TOKENS)
    loading = int(work.largest_layer * LOADING)
    on_gpu = machine.gpu is not None and work.largest_layer + activations < machine.gpu * USABLE
    peak = max(loading, work.largest_layer + activations, work.embeddings)
    ram = PROCESS_BYTES + (loading if on_gpu else peak)
    gpu = work.largest_layer + activations if on_gpu else 0
    flops = machine.gpu_flops if on_gpu else machine.flops
    # Read once, while the hidden states of all questions are written and read beside it, layer for layer.
    moved = work.layer_weights + work.embeddings + 2 * work.layers * work.hidden_states
    seconds = moved / machine.disk_rate + _computing(work, flops)
    fits = _fits(work, machine, ram, gpu)
    reason = (
        f"One layer at a time takes about {size_text(ram)} of {size_text(machine.ram)} main memory, and on disk "
        f"{size_text(2 * work.hidden_states)} for hidden states."
    )
    if work.unanswered:
        reason = (
            f"Layer by layer, the model cannot answer the {work.unanswered} of {work.questions} prompts that have no "
            "answer: give them answers, or observe the prompts alone, with a continuation of 0 tokens."
        )
    if work.quantized:
        reason = "Layer by layer, only checkpoints that are not stored quantized are read."
    possible = fits and not work.unanswered and not work.quantized
    return Estimate("layered", "cuda" if on_gpu else "cpu", ram, gpu, seconds, possible, reason)


def _computing(work: Work, flops: float) -> float:
    """Seconds for the tokens that are observed. A parameter is multiplied and added: two operations for each token."""
    tokens = work.tokens + work.unanswered * work.new_tokens
    return 2.0 * work.active * tokens / flops


def _answering(work: Work, rate: float) -> float:
    """Seconds for answers, beyond computing: each step reads what its questions need, at most all of the weights."""
    steps = -(-work.unanswered // GENERATED_TOGETHER) * work.new_tokens
    return steps * min(work.weights, GENERATED_TOGETHER * work.active * work.bytes_per_value) / rate


def _fits(work: Work, machine: Machine, ram: int, gpu: int) -> bool:
    return ram <= machine.ram * USABLE and gpu <= (machine.gpu or 0) * USABLE


def describe(estimates: Sequence[Estimate], chosen: Estimate | None) -> str:
    """The estimates as a few lines of text."""
    lines = ["Estimated, before anything is read:"]
    for one in estimates:
        where = {"cpu": "on the CPU", "cuda": "on the GPU", "auto": "on GPU and CPU"}[one.device]
        sign = "→" if one == chosen else " "
        memory = f"{size_text(one.ram)} of main memory" + (f", {size_text(one.gpu)} of the GPU" if one.gpu else "")
        lines.append(f"{sign} {one.mode} {where}: about {duration(one.seconds)}, {memory}. {one.reason}")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds for a person."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1.5 else f"{seconds:.1f} s"
