"""The nouns of this room: `MoeShape`, `Family` and `ExpertTensor`."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class MoeShape:
    """The grid on which Espalier works, read from `config.json` or a GGUF header, never from the weights.

    `layer_ids` are the decoder layers that have experts, ascending; `[L, E]` arrays follow their order.
    """

    family: str
    layer_ids: tuple[int, ...]
    experts: int
    """Experts per layer, E."""
    top_k: int
    """Experts used per token."""
    hidden_size: int
    expert_size: int
    """Intermediate size of one expert, in neurons."""

    @property
    def layers(self) -> int:
        """Layers with experts, L."""
        return len(self.layer_ids)

    def same_grid(self, other: MoeShape) -> bool:
        """Whether maps and contributions of one fit the other."""
        return self.layer_ids == other.layer_ids and self.experts == other.experts


@dataclass(frozen=True)
class ExpertTensor:
    """A checkpoint tensor that has one slice per expert.

    `pattern` matches its whole name and has one group, the layer; `axis` is the expert axis in torch order.
    """

    pattern: re.Pattern[str]
    axis: int = 0


@dataclass(frozen=True)
class Family:
    """One row of knowledge about an architecture."""

    name: str
    model_types: tuple[str, ...]
    """`model_type` values of `config.json`, of the text part and of the whole."""
    gguf_architecture: str
    experts_key: str
    top_k_key: str
    expert_size_key: str
    router_module: str
    """Path of the router below a decoder layer in the module tree."""
    router_projection: str
    """Path of the linear layer that gives the router's logits `[tokens, E]`, below a decoder layer."""
    experts_module: str
    """Path of the experts below a decoder layer."""
    checkpoint_tensors: tuple[ExpertTensor, ...]
    """Safetensors with an expert axis."""
    gguf_tensors: tuple[re.Pattern[str], ...]
    """GGUF tensors with an expert axis: last in ne, first in numpy; one group, the layer."""
    text_config_key: str = "text_config"
    """Where a multimodal `config.json` keeps the language model's part."""

    def checkpoint_layer(self, tensor_name: str) -> tuple[int, int] | None:
        """(layer, expert axis) of a safetensors tensor, or None when it has no expert axis."""
        for tensor in self.checkpoint_tensors:
            if match := tensor.pattern.fullmatch(tensor_name):
                return int(match.group(1)), tensor.axis
        return None

    def gguf_layer(self, tensor_name: str) -> int | None:
        """Layer of a GGUF tensor with an expert axis, or None when it has none."""
        for pattern in self.gguf_tensors:
            if match := pattern.fullmatch(tensor_name):
                return int(match.group(1))
        return None
