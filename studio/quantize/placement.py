"""Where a model's weights go: all to the graphics card, some layers or experts to main memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Offload:
    """What a person, or `placement`, decided for one model."""

    gpu_layers: int | None = None
    """How many of the last layers, the output counted as one, go to the card; None is all that there are."""
    cpu_moe_layers: int = 0
    """Of how many of the first layers the routed experts stay in main memory, as llama.cpp's `--n-cpu-moe`."""


def expert_pattern(layer: int) -> str:
    """The names of the routed experts' weights of a layer, as llama.cpp's `--override-tensor` matches them.

    From common.h, `LLM_FFN_EXPS_REGEX`.
    """
    return rf"blk\.{layer}\.ffn_(up|down|gate|gate_up)_(ch|)exps"
