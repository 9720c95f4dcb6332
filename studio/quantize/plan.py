"""What a tier makes of a model, known before anything is touched: the type and the bytes of every tensor.

Pure and quick: a plan is made from a header alone, and can be made anew for every position of a slider.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from gguf.constants import GGMLQuantizationType as Type

from studio.checkpoints.gguf_header import GgufHeader, GgufTensor, aligned, laid_out
from studio.checkpoints.gguf_values import Malformed
from studio.errors import InputError, MismatchError, UnsupportedError
from studio.families import MoeShape, family_named, shape_of_gguf
from studio.quantize.dynamic import settled
from studio.quantize.ggml import FLOAT_TYPES, can_dequantize
from studio.quantize.header import header_size
from studio.quantize.roles import Role, file_order, role_of
from studio.quantize.rule import Model, Shape, Weight, fitting, needs_importance, wanted_types
from studio.quantize.tiers import Tier


@dataclass(frozen=True)
class TensorPlan:
    """The consequence of a tier for one model."""

    tier: str
    tensors: tuple[GgufTensor, ...] = field(repr=False)
    """The tensors of the new file as they will lie in it: shapes after pruning, types, offsets, bytes."""
    fallbacks: Mapping[str, str]
    """Tensor → why it does not get the type that the tier wants, as "Q4_K → Q5_0: rows of 704 …"."""
    without_importance: tuple[str, ...]
    """Tensors whose type cannot be made without an importance matrix, and have none."""
    header_bytes: int
    """What stands before the tensors, exactly, when no provenance is added."""
    file_bytes: int
    """The size of the file, under the same condition."""

    @cached_property
    def types(self) -> Mapping[str, Type]:
        """Tensor → type, in the order of the file."""
        return {tensor.name: tensor.type for tensor in self.tensors}

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Tensor → shape in ne order."""
        return {tensor.name: tensor.shape for tensor in self.tensors}

    @cached_property
    def bytes(self) -> Mapping[str, int]:
        """Tensor → bytes, without padding."""
        return {tensor.name: tensor.size for tensor in self.tensors}

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors, without padding and header."""
        return sum(tensor.size for tensor in self.tensors)


def make_plan(
    header: GgufHeader,
    tier: Tier,
    *,
    imatrix: Container[str] | None = None,
    kept_experts: int | None = None,
    ranking: Sequence[int] | None = None,
) -> TensorPlan:
    """What `tier` makes of the model of `header`, pruned to `kept_experts` per layer where that is given.

    `imatrix` holds the names of the tensors about which an importance matrix says something; None is no matrix.
    `ranking` names layers, the most important first, for tiers that go by that.

    Raises `InputError` for an impossible number of experts and for a ranking that is missing or of another model,
    `UnsupportedError` for what cannot be pruned or quantized.
    """
    weights = sorted(_kept_weights(header, kept_experts), key=lambda weight: file_order(weight.name))
    model = _model(header, weights, kept_experts, imatrix is not None)
    tier = settled(tier, model.layers, ranking, imatrix=imatrix is not None)
    wanted = wanted_types(model, tier, weights)
    used = {weight.name: fitting(wanted[weight.name], weight.shape[0]) for weight in weights}
    try:
        laid = laid_out(((weight.name, weight.shape, used[weight.name]) for weight in weights), header.alignment)
    except Malformed as problem:  # only a type that the tier forces on its embeddings or output
        raise UnsupportedError(f"{tier.name} does not fit {header.path}: {problem}.", "Choose another tier.") from None
    fallbacks = {
        weight.name: f"{wanted[weight.name].name} → {kind.name}: rows of {weight.shape[0]} values are not whole blocks"
        for weight in weights
        if (kind := used[weight.name]) is not wanted[weight.name]
    }
    without_importance = tuple(
        weight.name
        for weight in weights
        if (kind := used[weight.name]) is not weight.type
        and needs_importance(weight.name, kind, tier)
        and (imatrix is None or weight.name not in imatrix)
    )
    data_bytes = aligned(laid[-1].offset + laid[-1].size, header.alignment) if laid else 0
    start = header_size(header, laid)
    return TensorPlan(tier.name, laid, fallbacks, without_importance, start, start + data_bytes)


def check_buildable(header: GgufHeader, plan: TensorPlan, *, requantize: bool = False) -> None:
    """Raise `UnsupportedError` where `plan` cannot be carried out, naming tensors.

    `requantize` allows a source whose weights are quantized already.
    """
    if plan.without_importance:
        named = [f"{name} as {plan.types[name].name}" for name in plan.without_importance]
        several = f"{', '.join(named[:3])} and {len(named) - 3} more" if len(named) > 3 else ", ".join(named)
        raise UnsupportedError(
            f"{plan.tier} makes these tensors too small to do without an importance matrix that covers them: "
            f"{several}.",
            "Give one, or choose a tier that does without, such as Q3_K_S or IQ4_XS.",
        )
    twice = requantized(header, plan)
    if twice and not requantize:
        name, (before, after) = next(iter(twice.items()))
        raise UnsupportedError(
            f"{header.path}, tensor {name} is {before.name}, and {plan.tier} wants {after.name}.",
            "Quantizing twice loses more than once: start from an F32, F16 or BF16 file, or allow requantizing.",
        )
    for name, (before, _) in twice.items():
        if not can_dequantize(before):
            raise UnsupportedError(f"{header.path}, tensor {name} is {before.name}, which cannot be read as numbers.")


def requantized(header: GgufHeader, plan: TensorPlan) -> dict[str, tuple[Type, Type]]:
    """Tensors that are quantized already and get another type: name → (type now, type then)."""
    types = {tensor.name: (tensor.type, plan.types[tensor.name]) for tensor in header.tensors}
    return {
        name: (before, after)
        for name, (before, after) in types.items()
        if after is not before and before not in FLOAT_TYPES
    }


def check_kept(moe: MoeShape, kept_experts: int) -> None:
    """Raise `InputError` unless a model of shape `moe` can be pruned to `kept_experts` per layer."""
    if not moe.top_k <= kept_experts <= moe.experts:
        raise InputError(
            f"Keeping {kept_experts} of {moe.experts} experts is impossible: each token uses {moe.top_k}.",
            f"Keep between {moe.top_k} and {moe.experts}.",
        )


def _kept_weights(header: GgufHeader, kept_experts: int | None) -> list[Weight]:
    """All tensors, the expert axis cut to `kept_experts`."""
    if kept_experts is None:
        return [Weight(tensor.name, _trimmed(tensor.shape), tensor.type) for tensor in header.tensors]
    moe = shape_of_gguf(header.values)
    check_kept(moe, kept_experts)
    family = family_named(moe.family)
    kept: list[Weight] = []
    for tensor in header.tensors:
        shape = tensor.shape
        if family.gguf_layer(tensor.name) is not None:
            if shape[-1] != moe.experts:
                raise MismatchError(
                    f"{header.path}, tensor {tensor.name} has {shape[-1]} experts, and the header says {moe.experts}."
                )
            shape = (*shape[:-1], kept_experts)
        kept.append(Weight(tensor.name, _trimmed(shape), tensor.type))
    return kept


def _trimmed(shape: Shape) -> Shape:
    """`shape` without dimensions of one at its end, as ggml counts dimensions."""
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape or (1,)


_LAYERS_OF_70B = {"llama": 80, "qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68}
"""Architecture → depth at which llama.cpp calls a model "70B"."""


def _model(header: GgufHeader, weights: list[Weight], kept_experts: int | None, imatrix: bool) -> Model:
    architecture = header.architecture

    def number(key: str, default: int = 0) -> int:
        value = header.values.get(f"{architecture}.{key}", default)
        if isinstance(value, list):  # one per layer
            value = value[0] if value else default
        if not isinstance(value, int):
            raise UnsupportedError(f"{header.path}: {architecture}.{key} is {value!r}, and should be a whole number.")
        return value

    heads = number("attention.head_count")
    key_heads = number("attention.head_count_kv", heads)
    layers = number("block_count")
    depth = layers - number("nextn_predict_layers")
    roles = [role_of(weight.name) for weight in weights]
    return Model(
        architecture=architecture,
        layers=layers,
        experts=number("expert_count") if kept_experts is None else kept_experts,
        queries_per_key=heads // key_heads if key_heads else 0,
        # A llama with a key head per query head is the 65B model instead.
        is_70b=_LAYERS_OF_70B.get(architecture) == depth and (architecture != "llama" or heads != key_heads),
        values=roles.count(Role.VALUE),
        tied=Role.OUTPUT not in roles,
        imatrix=imatrix,
    )
