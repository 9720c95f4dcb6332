"""The GGUF header that a reference has, or would have once converted: enough of it to plan tiers and foretell sizes.

A person chooses a tier before anything is converted. What llama.cpp's converter does to names and shapes is known from
gguf-py's own table; only the vocabulary is left out, a thousandth of a large model's file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gguf.constants import MODEL_ARCH_NAMES, GGMLQuantizationType
from gguf.tensor_mapping import get_tensor_name_map

from studio.checkpoints.converted import WITHOUT_DRAFT, text_tensors
from studio.checkpoints.gguf_header import DEFAULT_ALIGNMENT, GgufHeader, laid_out, read_header
from studio.checkpoints.gguf_values import U32, Span, Values, encode, encode_string, type_of
from studio.checkpoints.model_folder import open_model_folder
from studio.checkpoints.reference import Reference
from studio.checkpoints.safetensors_header import SafeTensor
from studio.errors import InputError, UnsupportedError
from studio.families import MoeShape, draft_layers_of_config, family_named
from studio.families.lookup import text_config

_FLOAT32_NAMES = ("ffn_gate_inp.weight",)
"""Matrices that the converter keeps in single precision: the router."""


def outline(reference: Reference) -> GgufHeader:
    """The header of `reference`, which is a GGUF, or (without vocabulary and data) of what it will be converted to.

    Raises `UnsupportedError` when gguf-py does not know the architecture, and what opening the files raises.
    """
    if reference.kind == "gguf":
        return read_header(reference.path)
    tensors = [tensor for header in open_model_folder(reference.path).shards.values() for tensor in header.tensors]
    drafts = _drafts(reference, tensors)
    weights = laid_out(_converted(tensors, reference, drafts), DEFAULT_ALIGNMENT)
    return GgufHeader(
        path=Path(f"{reference.path}.gguf"),
        version=3,
        values=_values(reference, drafts),
        tensors=weights,
        alignment=DEFAULT_ALIGNMENT,
        parts=(),
    )


def _converted(
    tensors: list[SafeTensor], reference: Reference, drafts: range
) -> Iterator[tuple[str, tuple[int, ...], GGMLQuantizationType]]:
    """(name, shape in ne order, type) of what the converter writes; other towers than the text's are left out."""
    shape, family = reference.shape, family_named(reference.shape.family)
    known = {name: architecture for architecture, name in MODEL_ARCH_NAMES.items()}
    if family.gguf_architecture not in known:
        raise UnsupportedError(
            f"gguf-py does not know the architecture {family.gguf_architecture!r}.", "Convert the model first."
        )
    names = get_tensor_name_map(known[family.gguf_architecture], max(*shape.layer_ids, *drafts, 0) + 1)
    config = text_config(reference.config, family)
    sizes = ((tensor.name, tensor.shape) for tensor in tensors)
    for plain, size, dictated in text_tensors(sizes, family, shape, drafts, config):
        name = names.get_name(plain, try_suffixes=(".weight", ".bias")) or _draft_name(plain)
        if name is None:
            continue  # vision, audio, and the small scales that the converter names by hand
        name = name if name.endswith((".weight", ".bias", "ssm_a")) else f"{name}.weight"
        vector = len(size) < 2 or name.endswith(_FLOAT32_NAMES)
        kind = GGMLQuantizationType.F32 if vector else GGMLQuantizationType.BF16
        yield name, tuple(reversed(size)), dictated or kind


def _draft_name(plain: str) -> str | None:
    """What is special to a block that drafts tokens ahead; gguf-py's table knows it for some architectures only."""
    found = re.fullmatch(r"model\.layers\.(\d+)\.(eh_proj|enorm|hnorm|shared_head\.norm)\.weight", plain)
    return f"blk.{found[1]}.nextn.{found[2].replace('.', '_')}.weight" if found else None


def _drafts(reference: Reference, tensors: list[SafeTensor]) -> range:
    """Numbers of the blocks that draft tokens ahead; those with a name of their own follow the decoder layers."""
    numbered = draft_layers_of_config(reference.config)
    found = [re.match(r"(?:model\.)?mtp\.layers\.(\d+)\.", tensor.name) for tensor in tensors]
    named = max((int(match[1]) + 1 for match in found if match), default=0)
    return range(numbered.start, numbered.start + max(named, len(numbered)))


def _values(reference: Reference, drafts: range) -> Values:
    """The pairs that tiers and shapes are read from."""
    shape, family = reference.shape, family_named(reference.shape.family)
    architecture = family.gguf_architecture
    config: Mapping[str, Any] = text_config(reference.config, family)
    drafting = 0 if architecture in WITHOUT_DRAFT else len(drafts)
    pairs: dict[str, Any] = {
        "general.architecture": architecture,
        f"{architecture}.block_count": drafts.start + drafting,
        f"{architecture}.leading_dense_block_count": shape.layer_ids[0],
        f"{architecture}.nextn_predict_layers": drafting,
        f"{architecture}.embedding_length": shape.hidden_size,
        f"{architecture}.expert_count": shape.experts,
        f"{architecture}.expert_used_count": shape.top_k,
        f"{architecture}.expert_feed_forward_length": shape.expert_size,
        **{f"{architecture}.{key}": value for key, value in (_groups(shape) | _attention(config)).items()},
    }
    raw, spans = bytearray(), {}
    for key, value in pairs.items():
        start, kind = len(raw), type_of(value)
        raw += encode_string(key) + U32.pack(kind)
        position = len(raw)
        raw += encode(value, kind)
        spans[key] = Span(kind, start, position, len(raw))
    return Values(bytes(raw), spans)


def _groups(shape: MoeShape) -> dict[str, int]:
    return (
        {}
        if shape.groups == 1
        else {"expert_group_count": shape.groups, "expert_group_used_count": shape.groups_per_token}
    )


def _attention(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the converter says of attention, as far as tiers and the size of keys and values depend on it.

    Full layers may have other heads than sliding ones (llama.cpp, conversion/gemma.py): `global_…` keys say so, or the
    `per_layer_config` of the first full layer that is in it. Raises `InputError` where a key makes no sense.
    """

    def number(key: str, within: Mapping[str, Any] = config) -> int | None:
        value = within.get(key)
        if value is not None and (not isinstance(value, int) or value < 0):
            raise InputError(f"config.json, {key} is {value!r}, and should be a whole number.")
        return value

    kinds = config.get("layer_types") or ()
    sliding = [kind == "sliding_attention" for kind in kinds] if isinstance(kinds, list) else []
    layers = config.get("per_layer_config")
    by_layer = layers if isinstance(layers, Mapping) else {}
    full = [one for index, slides in enumerate(sliding) if not slides for one in [by_layer.get(str(index))]]

    def of_full(key: str, plain: str) -> int | None:
        said = [number(plain, one) for one in full if isinstance(one, Mapping)]
        found = number(key)
        return next((one for one in [found, *said] if one is not None), number(plain))

    heads = number("num_attention_heads") or 1
    kv_heads, full_kv_heads = (
        number("num_key_value_heads"),
        of_full("num_global_key_value_heads", "num_key_value_heads"),
    )
    head, full_head = number("head_dim"), of_full("global_head_dim", "head_dim")
    per_layer = None if kv_heads is None else [kv_heads if slides else full_kv_heads for slides in sliding]
    told = {
        "context_length": number("max_position_embeddings"),
        "attention.head_count": heads,
        "attention.head_count_kv": per_layer or kv_heads or heads,
        "attention.key_length": full_head,
        "attention.value_length": full_head,
        "attention.key_length_swa": head,
        "attention.value_length_swa": head,
        "attention.sliding_window": number("sliding_window"),
        "attention.sliding_window_pattern": sliding or None,
        "attention.shared_kv_layers": number("num_kv_shared_layers"),
    }
    return {key: value for key, value in told.items() if value is not None}
