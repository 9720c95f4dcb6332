"""Which type each tensor gets in each of llama.cpp's file types.

llama.cpp spends bits where they were found to matter: on the output projection, on attention values where several
queries share them, on the down projections of the first and last layers. What it does is stated here as tables, role by
role: file type → rule. A rule looks at a tensor's place and names a type, or None for the file type's base type.

The behaviour is that of `llama_tensor_get_type` in src/llama-quant.cpp of llama.cpp, as of llama-cpp-python 0.3.36; the
tests compare it with that function's choices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gguf.constants import GGML_QUANT_SIZES
from gguf.constants import GGMLQuantizationType as Type

from studio.errors import UnsupportedError
from studio.quantize.roles import Role, block_of, is_quantized, role_of
from studio.quantize.tiers import Tier

Shape = tuple[int, ...]


class Weight(NamedTuple):
    """A tensor before quantization; `shape` in ne order."""

    name: str
    shape: Shape
    type: Type


@dataclass(frozen=True)
class Model:
    """What the rule wants to know of a model."""

    architecture: str
    layers: int
    experts: int
    """Experts per layer, after pruning; 0 in a dense model."""
    queries_per_key: int
    """Query heads that share a key head, in the first layer."""
    is_70b: bool
    """Whether llama.cpp takes it for one of the 70B models, whose values are shared by eight queries."""
    values: int
    """Tensors of `Role.VALUE`."""
    tied: bool
    """Whether the embeddings are the output projection as well."""
    imatrix: bool
    """Whether an importance matrix guides the quantization."""


@dataclass(frozen=True)
class Place:
    """Where a tensor stands: the `index`-th of `count`, which are layers or tensors of its role."""

    model: Model
    index: int
    count: int


Rule = Callable[[Place], Type | None]
Test = Callable[[Place], bool]
Rules = Mapping[str, Rule]


# --- what rules are made of


def always(kind: Type | None) -> Rule:
    return lambda place: kind


BASE = always(None)


def when(test: Test, then: Type | Rule, otherwise: Type | Rule = BASE) -> Rule:
    yes = always(then) if isinstance(then, Type) else then
    no = always(otherwise) if isinstance(otherwise, Type) else otherwise
    return lambda place: yes(place) if test(place) else no(place)


def among_first(number: int) -> Test:
    return lambda place: place.index < number


def in_first(part: int) -> Test:
    """In the first 1/part."""
    return lambda place: place.index < place.count // part


def in_middle(place: Place) -> bool:
    """Neither in the first eighth nor in the last."""
    return place.count // 8 <= place.index < 7 * place.count // 8


def in_more_bits(place: Place) -> bool:
    """In the first or the last eighth, or every third between them."""
    return not in_middle(place) or (place.index - place.count // 8) % 3 == 2


def shares_keys(place: Place) -> bool:
    return place.model.queries_per_key >= 4


def shares_keys_or_has_experts(place: Place) -> bool:
    return shares_keys(place) or place.model.experts >= 4


def has_imatrix(place: Place) -> bool:
    return place.model.imatrix


def has_eight_experts(place: Place) -> bool:
    """Mixtral 8x7B, for which these exceptions were made; a model pruned to eight experts falls under them too."""
    return place.model.experts == 8


def both(first: Test, second: Test) -> Test:
    return lambda place: first(place) and second(place)


# --- the tables

LOWEST = frozenset({"IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"})
"""File types of about two bits and less, for which llama.cpp has a rule of their own."""
_SPARE = {mix: Type.IQ3_S if mix in ("IQ2_M", "IQ2_S") else Type.Q2_K for mix in LOWEST}
"""Their type for what should get a little more."""

OUTPUT_TYPES = dict.fromkeys([*LOWEST, "IQ3_XXS"], Type.Q5_K) | {"MXFP4_MOE": Type.Q8_0, "Q8_0": Type.Q8_0}
"""Of the output projection, Q6_K where not listed."""

EMBEDDINGS: Rules = {
    "IQ3_XXS": always(Type.IQ3_S),
    "TQ1_0": always(Type.Q4_K),
    "TQ2_0": always(Type.Q4_K),
    **{mix: always(spare) for mix, spare in _SPARE.items()},
}
"""Of embeddings that are not the output projection as well."""

QUERY: Rules = {"IQ3_XS": always(Type.IQ3_XXS), "IQ3_XXS": always(Type.IQ2_S)}

KEY: Rules = {**QUERY, **{mix: when(has_eight_experts, Type.Q4_K) for mix in LOWEST}}

VALUE: Rules = {
    "Q5_K_M": when(in_more_bits, Type.Q6_K),
    "Q4_K_M": when(in_more_bits, Type.Q6_K),
    "Q4_K_S": when(among_first(4), Type.Q5_K),
    "IQ4_NL": when(shares_keys, Type.Q5_K),
    "IQ4_XS": when(shares_keys, Type.Q5_K),
    "Q3_K_L": always(Type.Q5_K),
    "Q3_K_M": when(among_first(2), Type.Q5_K, Type.Q4_K),
    "IQ3_M": always(Type.Q4_K),
    "IQ3_S": when(shares_keys, Type.Q4_K),
    "IQ3_XS": when(shares_keys, Type.Q4_K),
    "IQ3_XXS": when(shares_keys, Type.Q4_K, when(has_imatrix, Type.IQ3_XXS, Type.IQ3_S)),
    "Q2_K": when(shares_keys, Type.Q4_K, Type.Q3_K),
    "Q2_K_S": when(shares_keys, Type.Q4_K),
    **{mix: when(shares_keys_or_has_experts, Type.Q4_K, spare) for mix, spare in _SPARE.items()},
}

ATTENTION_OUTPUT: Rules = {
    "Q3_K_L": when(has_eight_experts, BASE, Type.Q5_K),
    "Q3_K_M": when(has_eight_experts, Type.Q5_K, Type.Q4_K),
    "IQ3_M": when(has_eight_experts, Type.Q5_K, Type.Q4_K),
    "IQ3_XXS": when(has_eight_experts, Type.Q5_K, Type.IQ3_S),
    "Q2_K": when(has_eight_experts, Type.Q5_K, Type.Q3_K),
    "IQ2_M": when(has_eight_experts, Type.Q5_K, Type.IQ3_S),
    "IQ2_S": when(has_eight_experts, Type.Q5_K, Type.IQ3_S),
    "IQ1_M": when(has_eight_experts, Type.Q5_K, Type.IQ2_XXS),
    "IQ1_S": when(has_eight_experts, Type.Q5_K, Type.IQ2_XXS),
    **{
        mix: when(has_eight_experts, Type.Q5_K)
        for mix in ("Q4_K_M", "Q4_K_S", "IQ4_NL", "IQ4_XS", "Q3_K_S", "IQ3_S", "IQ3_XS", "IQ2_XS", "IQ2_XXS")
    },
}
ATTENTION_OUTPUT_OF_FALCON: Rules = {
    "Q3_K_L": always(Type.Q4_K),
    **{mix: rule for mix, rule in ATTENTION_OUTPUT.items() if mix in LOWEST},
}

UP: Rules = {"IQ3_XS": when(in_middle, Type.IQ3_XXS)}

DOWN: Rules = {
    "Q5_K_M": when(in_more_bits, Type.Q6_K),
    "Q5_0": when(both(has_imatrix, in_first(8)), Type.Q5_1),
    "Q4_K_M": when(in_more_bits, Type.Q6_K),
    "Q4_K_S": when(in_first(8), Type.Q5_K),
    "Q4_0": when(both(has_imatrix, in_first(8)), Type.Q4_1),
    "IQ4_NL": when(has_imatrix, BASE, when(in_first(8), Type.Q5_K)),
    "IQ4_XS": when(has_imatrix, BASE, when(in_first(8), Type.Q5_K)),
    "Q3_K_L": always(Type.Q5_K),
    "Q3_K_M": when(in_first(16), Type.Q5_K, Type.Q4_K),
    "IQ3_M": when(in_first(8), Type.Q4_K, when(both(has_eight_experts, in_more_bits), Type.Q4_K)),
    "IQ3_XXS": when(has_imatrix, BASE, when(in_first(8), Type.Q4_K, Type.Q3_K)),
    "Q2_K": always(Type.Q3_K),
    "Q2_K_S": when(in_first(8), Type.Q4_K),
    **{mix: when(in_first(8), spare) for mix, spare in _SPARE.items()},
}
DOWN_OF_FALCON: Rules = {
    **DOWN,
    "Q4_K_M": when(in_first(16), Type.Q6_K, when(in_more_bits, Type.Q5_K)),
    "Q4_K_S": BASE,
    "Q3_K_L": always(Type.Q4_K),
    "Q3_K_M": when(in_first(16), Type.Q5_K, when(in_more_bits, Type.Q4_K)),
}

RULES: Mapping[Role, Rules] = {
    Role.EMBEDDINGS: EMBEDDINGS,
    Role.QUERY: QUERY,
    Role.KEY: KEY,
    Role.VALUE: VALUE,
    Role.ATTENTION_OUTPUT: ATTENTION_OUTPUT,
    Role.UP: UP,
    Role.GATE: UP,
    Role.DOWN: DOWN,
}
RULES_OF_FALCON: Mapping[Role, Rules] = {
    **RULES,
    Role.ATTENTION_OUTPUT: ATTENTION_OUTPUT_OF_FALCON,
    Role.DOWN: DOWN_OF_FALCON,
}

# --- their application


def wanted_types(model: Model, tier: Tier, weights: Sequence[Weight]) -> dict[str, Type]:
    """The type that `tier` wants for each tensor, whether or not its rows are whole blocks of it (see `fitting`).

    `weights` come in llama.cpp's order (`roles.file_order`): in some file types the place among tensors of a role
    counts. Raises `UnsupportedError` where a model with experts has a feed-forward tensor in none of its layers.
    """
    wanted: dict[str, Type] = {}
    seen: Counter[Role] = Counter()
    for weight in weights:
        name, shape, kind = weight
        if len(shape) >= 2 and is_quantized(name, model.architecture):
            role = role_of(name)
            forced = tier.forced(role, name)
            kind = forced or _chosen(model, tier, weight, seen[role])
            seen[role] += forced is None  # llama.cpp counts only those that it chooses for itself
        wanted[name] = kind
    return wanted


def _chosen(model: Model, tier: Tier, weight: Weight, seen: int) -> Type:
    """The type of `weight`, before which `seen` others of its role came."""
    settled = _wherever_it_stands(model, tier, weight)
    if settled is not None:
        return settled
    role = role_of(weight.name)
    rules = RULES_OF_FALCON if model.architecture == "falcon" else RULES
    rule = rules.get(role, {}).get(tier.mix, BASE)
    kind = rule(_place(model, tier, weight, seen)) or tier.base
    if role is Role.VALUE and model.is_70b and tier.mix not in LOWEST and kind in (Type.Q3_K, Type.Q4_K):
        return Type.Q5_K
    return kind


def _wherever_it_stands(model: Model, tier: Tier, weight: Weight) -> Type | None:
    """The type of `weight` where its place in the model does not matter, else None."""
    role, block = role_of(weight.name), GGML_QUANT_SIZES[tier.base][0]
    kind: Type | None = None
    if block == 1:  # F16, BF16
        kind = tier.base
    elif model.architecture == "glm5-next" and any(part in weight.name for part in _WIDE_IN_GLM5_NEXT):
        kind = Type.Q8_0
    elif role is Role.OUTPUT or (role is Role.EMBEDDINGS and model.tied):
        odd = weight.shape[0] % block != 0
        kind = Type.Q8_0 if odd or model.architecture == "falcon" else OUTPUT_TYPES.get(tier.mix, Type.Q6_K)
    elif tier.mix == "MXFP4_MOE":
        kind = Type.MXFP4 if _holds_experts(model, weight) else Type.Q8_0
    elif role in (Role.KEY, Role.VALUE) and model.experts == 8 and tier.mix not in LOWEST:
        kind = Type.Q8_0
    return kind


_WIDE_IN_GLM5_NEXT = ("attn_q_a", "attn_q_b", "nextn.eh_proj")
_FEED_FORWARD = (Role.UP, Role.GATE, Role.DOWN)


def _holds_experts(model: Model, weight: Weight) -> bool:
    if len(weight.shape) < 3 or weight.shape[2] == 1:
        return False
    # The latent attention of bailingmoe3 has stacked matrices too.
    return model.architecture != "bailingmoe3" or role_of(weight.name) in _FEED_FORWARD


def _place(model: Model, tier: Tier, weight: Weight, seen: int) -> Place:
    """Feed-forward tensors of a model with experts are placed by layer, others by how many of the role came before."""
    role = role_of(weight.name)
    if role is Role.VALUE:
        return Place(model, seen, model.values)
    if role not in _FEED_FORWARD or model.experts <= 1 or tier.mix in LOWEST:
        return Place(model, seen, model.layers)
    layer = block_of(weight.name)
    if layer is None or layer >= model.layers:
        raise UnsupportedError(
            f"Tensor {weight.name} lies in none of the model's {model.layers} layers.",
            "llama.cpp cannot quantize such a model either.",
        )
    return Place(model, layer, model.layers)


# --- shapes that do not fit

_NEAREST = {
    **dict.fromkeys(
        (Type.IQ1_S, Type.IQ1_M, Type.IQ2_XXS, Type.IQ2_XS, Type.IQ2_S, Type.IQ3_XXS, Type.IQ3_S, Type.IQ4_XS),
        Type.IQ4_NL,
    ),
    **dict.fromkeys((Type.Q2_K, Type.Q3_K, Type.TQ1_0, Type.TQ2_0), Type.Q4_0),
    Type.Q4_K: Type.Q5_0,
    Type.Q5_K: Type.Q5_1,
    Type.Q6_K: Type.Q8_0,
}
"""Types in blocks of 256 → what stands in for them, in blocks of 32."""


def fitting(kind: Type, columns: int) -> Type:
    """`kind`, or what llama.cpp takes instead where rows of `columns` values are not whole blocks of it."""
    for candidate in (kind, _NEAREST.get(kind, kind)):
        if columns % GGML_QUANT_SIZES[candidate][0] == 0:
            return candidate
    return Type.F16


def needs_importance(name: str, kind: Type, tier: Tier) -> bool:
    """Whether llama.cpp refuses to make tensor `name` as `kind` without an importance matrix."""
    if role_of(name) in (Role.EMBEDDINGS, Role.OUTPUT):
        return False
    if kind is Type.Q2_K:
        return tier.mix == "Q2_K_S"
    return kind in (Type.IQ3_XXS, Type.IQ2_XXS, Type.IQ2_XS, Type.IQ2_S, Type.IQ1_M, Type.IQ1_S)
