"""The nouns of this room: `MoeShape`, `Family` and what it knows of tensors with experts."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from studio.families.layers import LayersWithExperts, every_layer


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
    groups: int = 1
    """Groups of neighbouring experts that the router chooses among before it chooses experts; 1 where it does not."""
    groups_per_token: int = 1

    @property
    def layers(self) -> int:
        """Layers with experts, L."""
        return len(self.layer_ids)

    @property
    def fields(self) -> dict[str, Any]:
        """What files and hashes say of this shape: groups only where there are some."""
        said = asdict(self)
        if self.groups == 1:
            del said["groups"], said["groups_per_token"]
        return said

    @property
    def group_size(self) -> int:
        """Experts of each group: expert e belongs to group e // group_size."""
        return self.experts // self.groups

    def same_grid(self, other: MoeShape) -> bool:
        """Whether maps and contributions of one fit the other."""
        return self.layer_ids == other.layer_ids and self.experts == other.experts


class ExpertPlace(NamedTuple):
    """Where in the grid a checkpoint tensor belongs."""

    layer: int | None
    """Decoder layer; None for the block that drafts tokens ahead (multi-token prediction), where it has a name."""
    expert: int | None = None
    """The one expert whose tensor it is; None where the tensor holds all of them."""
    axis: int = 0
    """Expert axis of a tensor of all experts, in torch order."""


@dataclass(frozen=True)
class ExpertTensor:
    """A kind of checkpoint tensor with one expert, or with one slice per expert.

    `pattern` matches its whole name. Its group `layer` is the decoder layer (no match: the drafting block), its group
    `expert`, if there is one, the expert. `axis` is the expert axis in torch order where there is not.
    """

    pattern: re.Pattern[str]
    axis: int = 0


_GGUF_EXPERTS = re.compile(
    # Converters write gate and up together or apart; scales and biases per expert where the architecture has them.
    r"blk\.(\d+)\.(?:ffn_(?:gate_up|gate|up|down)_exps\.(?:weight|bias|scale|input_scale)"
    r"|ffn_gate_inp\.(?:weight|bias)|exp_probs_b(?:\.bias)?)"
)
"""GGUF tensors with an expert axis, in every architecture: last in ne, first in numpy."""


class Sampling(NamedTuple):
    """How the makers of a model recommend to choose its next token; `top_k` 0 looks at the whole vocabulary."""

    temperature: float
    top_p: float
    top_k: int = 0
    min_p: float = 0.0


@dataclass(frozen=True)
class Family:
    """One row of knowledge about an architecture; README.md in this folder tells how to write one."""

    name: str
    model_types: tuple[str, ...]
    """`model_type` values of `config.json`, of the text part and of the whole."""
    gguf_architecture: str
    experts_keys: tuple[str, ...]
    """Config keys that hold the number of experts; the first that is there counts, and pruning changes all."""
    top_k_key: str
    expert_size_key: str
    router_module: str
    """Path of the router below a decoder layer of transformers' model; its one linear map gives the logits `[T, E]`."""
    experts_module: str
    """Path of the experts below a decoder layer."""
    checkpoint_tensors: tuple[ExpertTensor, ...]
    """Safetensors of experts and routers."""
    layers_with_experts: LayersWithExperts = every_layer
    transposed: bool = False
    """Whether matrices of experts in a checkpoint have what flows in before what comes out, `[E, in, out]`."""
    correction_bias: str | None = None
    """Path below a decoder layer of the buffer `[E]` that is added to scores only to choose experts by; not every model
    of the family needs to have it."""
    groups_key: str | None = None
    groups_per_token_key: str | None = None
    draft_layers_key: str | None = None
    """How many blocks after the decoder layers, numbered on, draft tokens ahead (multi-token prediction)."""
    text_config_key: str = "text_config"
    """Where a multimodal `config.json` keeps the language model's part."""

    sampling: Sampling | None = None
    """As the makers recommend for chat, where they say the same for the whole family; its file names the source."""
    sampling_thinking: Sampling | None = None
    """The same for answers after a thought, where they recommend something else."""

    def place(self, tensor_name: str) -> ExpertPlace | None:
        """Where a safetensors tensor belongs, or None when it has to do with no single expert."""
        for tensor in self.checkpoint_tensors:
            if match := tensor.pattern.fullmatch(tensor_name):
                found = match.groupdict()
                layer, expert = found.get("layer"), found.get("expert")
                if expert is not None:
                    return ExpertPlace(None if layer is None else int(layer), int(expert))
                return ExpertPlace(None if layer is None else int(layer), axis=tensor.axis)
        return None

    def renumbered(self, tensor_name: str, expert: int) -> str:
        """The name of a tensor of one expert when that expert gets the number `expert`."""
        for tensor in self.checkpoint_tensors:
            if (match := tensor.pattern.fullmatch(tensor_name)) and match.groupdict().get("expert") is not None:
                return f"{tensor_name[: match.start('expert')]}{expert}{tensor_name[match.end('expert') :]}"
        return tensor_name

    def gguf_layer(self, tensor_name: str) -> int | None:
        """Layer of a GGUF tensor with an expert axis, or None when it has none."""
        match = _GGUF_EXPERTS.fullmatch(tensor_name)
        return int(match.group(1)) if match else None


def block_tensors(
    block: str = "mlp",
    router: str = "gate",
    experts: str = r"experts\.(?:gate_up|gate|up|down)_proj(?:[._](?:weight|bias|blocks|scales?|scale_inv))*",
) -> tuple[ExpertTensor, ...]:
    """The tensors of the usual block, `model.layers.N.BLOCK.experts` beside `model.layers.N.BLOCK.ROUTER`.

    Whatever lies below `experts.E.` is of expert E, quantization scales included. Tensors of all experts (`experts`),
    and those of the router, begin with the expert axis. Multimodal checkpoints have `language_model` in their names,
    and the block that drafts tokens ahead is called `mtp`. The arguments are patterns.
    """
    layer = r"(?:model\.language_model|language_model\.model|model)\.layers\.(?P<layer>\d+)"
    start = rf"(?:{layer}|(?:model\.)?mtp\.layers\.\d+)\.{block}\."
    return (
        ExpertTensor(re.compile(rf"{start}experts\.(?P<expert>\d+)\.[^\n]+")),
        ExpertTensor(re.compile(rf"{start}{experts}")),
        ExpertTensor(re.compile(rf"{start}(?:{router}\.(?:weight|bias)|(?:{router}\.)?e_score_correction_bias)")),
    )
