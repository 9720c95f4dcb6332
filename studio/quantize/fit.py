"""Whether a model fits a graphics card, entirely or with its experts in main memory; known from its header alone."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from studio.checkpoints.gguf_header import GgufHeader
from studio.errors import InputError, UnsupportedError

KV_BYTES = 2  # keys and values are kept in f16
UBATCH = 512  # llama.cpp's default: tokens of a prompt that are computed together
GIB = 1 << 30
PROCESS_BYTES = 128 << 20
"""Python and llama.cpp with all that is neither weights, keys and values nor logits."""

CARDS = (12, 16, 24, 32, 48, 80)
"""What graphics cards have, in GiB."""
RESERVE = 0.05
"""Share of a card's memory that is taken to be the driver's, error correction's and the screen's; an estimate."""
CUDA_CONTEXT = 512 << 20
"""Bytes that CUDA and llama.cpp's kernels take on the card before the first tensor; an estimate."""
QUERY_S = 2.0

Placement = Literal["card", "experts in RAM", "no"]


@dataclass(frozen=True)
class Need:
    """What running a model takes, in bytes."""

    weights: int
    """All of them."""
    expert_weights: int
    """Those of the routed experts, which llama.cpp can leave in main memory (`--cpu-moe`)."""
    kv: int
    """Keys and values of one conversation."""
    compute: int
    """What is computed at a time, see `compute_bytes`."""

    @property
    def on_card(self) -> int:
        """What a card needs to hold all of it."""
        return self.weights + self.kv + self.compute + CUDA_CONTEXT


def placement(need: Need, card_bytes: int, ram_bytes: int) -> Placement:
    """Where the model runs: entirely on a card of `card_bytes`, with its experts in `ram_bytes` of RAM, or nowhere.

    On the card are weights, keys and values, the compute buffer and `CUDA_CONTEXT`. With the experts in main memory
    everything else is still on the card. Both additions are estimates that no measurement stands behind: a round number
    for the context, and for the buffer its largest parts. Layers that are only partly on the card are not considered.
    """
    if need.on_card <= card_bytes:
        return "card"
    fits = need.on_card - need.expert_weights <= card_bytes and need.expert_weights <= ram_bytes
    return "experts in RAM" if need.expert_weights and fits else "no"


def card_bytes(gib: int) -> int:
    """What models may take of a card that is sold with `gib` GiB: all but the `RESERVE`."""
    return int(gib * GIB * (1 - RESERVE))


def compute_bytes(header: GgufHeader) -> int:
    """An estimate of llama.cpp's compute buffer: the logits of a batch, and as many hidden states as a layer has inputs
    and outputs at a time (about eight: queries, keys, values, attention, the feed-forward's three, the residual)."""
    hidden = header.values.get(f"{architecture_of(header)}.embedding_length", 0)
    return logit_bytes(header) + UBATCH * 8 * int(hidden) * 4


def logit_bytes(header: GgufHeader) -> int:
    """Bytes of the logits of a batch, in f32: the largest of the compute buffers."""
    vocabulary = next((tensor.shape[-1] for tensor in header.tensors if tensor.name == "token_embd.weight"), 0)
    return UBATCH * vocabulary * 4


def ram_bytes(header: GgufHeader, context: int, conversations: int = 1) -> int:
    """What a model takes in main memory, all of it there: an estimate from above."""
    weights = sum(tensor.size for tensor in header.tensors)
    return weights + conversations * kv_bytes(header, context) + logit_bytes(header) + PROCESS_BYTES


def context_length(header: GgufHeader) -> int | None:
    """The most tokens that the model was made for, None where its header does not say."""
    value = header.values.get(f"{architecture_of(header)}.context_length")
    return value if isinstance(value, int) and value > 0 else None


def kv_bytes(header: GgufHeader, context: int) -> int:
    """Bytes of keys and values of one conversation of `context` tokens.

    Sliding layers keep their window and one batch, rounded up to 256 tokens (llama.cpp, llama-kv-cache-iswa.cpp), and
    that twice: one checkpoint lets a conversation go on where it stopped. Raises `InputError` where the header
    describes the attention wrongly.
    """
    architecture = architecture_of(header)

    def number(key: str, default: int = 0) -> int:
        return int(header.values.get(f"{architecture}.{key}", default))

    def per_layer(key: str, default: int) -> list[int]:
        value = header.values.get(f"{architecture}.{key}", default)
        return list(value) if isinstance(value, list) else [int(value)] * layers

    try:
        layers = number("block_count")
        heads = max(per_layer("attention.head_count", 1))
        kv_heads = per_layer("attention.head_count_kv", heads)
        key = number("attention.key_length", number("embedding_length") // heads)
        value = number("attention.value_length", key)
        per_token = key + value
        per_token_sliding = number("attention.key_length_swa", key) + number("attention.value_length_swa", value)
        window = number("attention.sliding_window")
        sliding = per_layer("attention.sliding_window_pattern", 0) if window else [0] * layers
        kept = min(context, -(-(window + UBATCH) // 256) * 256)
        return sum(
            KV_BYTES * kv_heads[layer] * (2 * kept * per_token_sliding if sliding[layer] else context * per_token)
            for layer in range(layers - number("attention.shared_kv_layers"))
        )
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise InputError(f"{header.path} describes its attention wrongly: {error}.", "Convert it again.") from None


def architecture_of(header: GgufHeader) -> str:
    """`general.architecture`; `UnsupportedError` for a file that holds no language model."""
    architecture = header.values.get("general.architecture")
    if not isinstance(architecture, str) or f"{architecture}.block_count" not in header.values:
        raise UnsupportedError(f"{header.path} holds no language model.", "Choose the GGUF of a model that chats.")
    return architecture


@lru_cache(maxsize=1)  # a card does not come or go while the page is open
def this_gpu() -> tuple[str, int] | None:
    """(name, bytes of memory) of the first NVIDIA card of this machine; None where none is found or none answers."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=QUERY_S, check=True).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return gpu_of_answer(said)


def gpu_of_answer(said: str) -> tuple[str, int] | None:
    """(name, bytes) of the first card in what nvidia-smi answered, "NAME, MiB" per line."""
    name, _, mebibytes = said.strip().partition("\n")[0].rpartition(",")
    return (name.strip(), int(mebibytes) << 20) if name and mebibytes.strip().isdigit() else None
