"""What running a model takes of a graphics card and of main memory, layer by layer; known from its header alone."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache

from studio.checkpoints.gguf_header import GgufHeader
from studio.errors import InputError, UnsupportedError
from studio.quantize.roles import Role, block_of, role_of
from studio.units import GIB

KV_BYTES = 2  # keys and values are kept in f16
UBATCH = 512  # llama.cpp's default: tokens of a prompt that are computed together
PROCESS_BYTES = 128 << 20
"""Python and llama.cpp with all that is neither weights, keys and values nor logits."""

CARDS = (12, 16, 24, 32, 48, 80)
"""What graphics cards have, in GiB."""
RESERVE = 0.05
"""Share of a card's memory that is taken to be the driver's, error correction's and the screen's; an estimate."""
CUDA_CONTEXT = 512 << 20
"""Bytes that CUDA and llama.cpp's kernels take on the card before the first tensor; an estimate."""
QUERY_S = 2.0
ROUTED = re.compile(r"\.ffn_(up|down|gate|gate_up)_(ch|)exps")
"""Weights of routed experts as llama.cpp's `--n-cpu-moe` knows them (common.h, LLM_FFN_EXPS_REGEX)."""
_FULL_EVERY_FOURTH = ("qwen3next", "qwen35", "qwen35moe")
"""Architectures with recurrent layers, of which every fourth attends to all unless the header says otherwise."""


@dataclass(frozen=True)
class Layer:
    """Bytes of one layer."""

    weights: int
    """All but the routed experts'."""
    experts: int
    """Those of the routed experts, which llama.cpp can leave in main memory (`--n-cpu-moe`)."""
    kv: int
    """Keys and values, or the recurrent state, of all conversations."""


@dataclass(frozen=True)
class Need:
    """What running a model takes, in bytes."""

    layers: tuple[Layer, ...]
    output: int
    """Weights behind the last layer."""
    embeddings: int
    """Weights before the first layer, which llama.cpp keeps in main memory."""
    tied: int
    """Of those, what is the output too: a card that computes the output has a copy."""
    compute: int
    """What is computed at a time, see `compute_bytes`."""

    @property
    def on_card(self) -> int:
        """What a card needs to hold all of it."""
        layers = sum(layer.weights + layer.experts + layer.kv for layer in self.layers)
        return layers + self.output + self.tied + self.compute + CUDA_CONTEXT

    @property
    def in_ram(self) -> int:
        """What main memory needs to hold all of it."""
        layers = sum(layer.weights + layer.experts + layer.kv for layer in self.layers)
        return layers + self.output + self.embeddings + self.compute + PROCESS_BYTES


def need_of(header: GgufHeader, context: int, conversations: int = 1) -> Need:
    """What the model of `header` takes, for `conversations` of `context` tokens each.

    An estimate: the compute buffer is one of its largest parts. Raises `InputError` where the header describes the
    attention wrongly.
    """
    kv = kv_by_layer(header, context)
    weights, experts = [0] * len(kv), [0] * len(kv)
    output = embeddings = 0
    for tensor in header.tensors:
        layer = block_of(tensor.name)
        if role_of(tensor.name) is Role.EMBEDDINGS:
            embeddings += tensor.size
        elif layer is None or layer >= len(kv):  # what predicts further tokens lies behind the layers
            output += tensor.size
        elif ROUTED.search(tensor.name):
            experts[layer] += tensor.size
        else:
            weights[layer] += tensor.size
    tied = 0
    if not any(tensor.name == "output.weight" for tensor in header.tensors):
        tied = sum(tensor.size for tensor in header.tensors if tensor.name == "token_embd.weight")
    found = (Layer(one, routed, conversations * kept) for one, routed, kept in zip(weights, experts, kv, strict=True))
    return Need(tuple(found), output, embeddings, tied, compute_bytes(header))


def even_need(weights: int, experts: int, kv: int, compute: int, layers: int) -> Need:
    """What a model takes whose file is only planned: as if all its weights were in its `layers`, all of them alike."""
    shares = (
        [amount * (number + 1) // layers - amount * number // layers for number in range(layers)]
        for amount in (weights - experts, experts, kv)
    )
    return Need(tuple(Layer(*share) for share in zip(*shares, strict=True)), 0, 0, 0, compute)


def card_bytes(gib: float) -> int:
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


def context_length(header: GgufHeader) -> int | None:
    """The most tokens that the model was made for, None where its header does not say."""
    value = header.values.get(f"{architecture_of(header)}.context_length")
    return value if isinstance(value, int) and value > 0 else None


def kv_bytes(header: GgufHeader, context: int) -> int:
    """Bytes of keys and values of one conversation of `context` tokens, see `kv_by_layer`."""
    return sum(kv_by_layer(header, context))


def kv_by_layer(header: GgufHeader, context: int) -> list[int]:
    """Bytes of keys and values of one conversation of `context` tokens, of each layer.

    Sliding layers keep their window and one batch, rounded up to 256 tokens (llama.cpp, llama-kv-cache-iswa.cpp), and
    that twice: one checkpoint lets a conversation go on where it stopped. So do recurrent layers with their state, in
    f32 (llama-hparams.cpp). Compressed attention (MLA) keeps no values: they are part of the keys (llama-kv-cache.cpp).
    Raises `InputError` where the header describes the attention wrongly.
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
        value = 0 if number("attention.value_length_mla") else number("attention.value_length", key)
        sliding_value = number("attention.value_length_swa", value)
        per_token, per_token_sliding = key + value, number("attention.key_length_swa", key) + sliding_value
        window = number("attention.sliding_window")
        sliding = per_layer("attention.sliding_window_pattern", 0) if window else [0] * layers
        kept = min(context, -(-(window + UBATCH) // 256) * 256)
        width, inner = number("ssm.state_size"), number("ssm.inner_size")
        taps = inner + 2 * number("ssm.group_count") * width
        state = 2 * 4 * (max(0, number("ssm.conv_kernel") - 1) * taps + width * inner)
        every = number("full_attention_interval", 4 if inner and architecture in _FULL_EVERY_FOURTH else 1)

        def of(layer: int) -> int:
            if (layer + 1) % every:
                return state
            tokens = 2 * kept * per_token_sliding if sliding[layer] else context * per_token
            return KV_BYTES * kv_heads[layer] * tokens

        own = layers - number("attention.shared_kv_layers")
        return [of(layer) if layer < own else 0 for layer in range(layers)]
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise InputError(f"{header.path} describes its attention wrongly: {error}.", "Convert it again.") from None


def architecture_of(header: GgufHeader) -> str:
    """`general.architecture`; `UnsupportedError` for a file that holds no model that predicts the next token."""
    architecture = header.values.get("general.architecture")
    if not isinstance(architecture, str) or f"{architecture}.block_count" not in header.values:
        raise UnsupportedError(f"{header.path} holds no language model.", "Choose the GGUF of a model that chats.")
    if header.values.get(f"{architecture}.attention.causal") is False:
        raise UnsupportedError(
            f"{header.path} looks at a whole text at once, and predicts no next token.",
            "Choose the GGUF of a model that chats.",
        )
    return architecture


@lru_cache(maxsize=1)  # a card does not come or go while the page is open
def this_gpu() -> tuple[str, int] | None:
    """(name, bytes of memory) of the first NVIDIA card of this machine; None where none is found or none answers."""
    said = _asked("name,memory.total")
    return None if said is None else gpu_of_answer(said)


def free_gpu_bytes() -> int | None:
    """Bytes that the first NVIDIA card of this machine has free now; None where none answers."""
    said = _asked("memory.free")
    return int(said.strip()) << 20 if said is not None and said.strip().isdigit() else None


def _asked(fields: str) -> str | None:
    """What nvidia-smi says of the first card, None where there is no answer."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=QUERY_S, check=True).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return said.strip().partition("\n")[0]


def gpu_of_answer(said: str) -> tuple[str, int] | None:
    """(name, bytes) of the first card in what nvidia-smi answered, "NAME, MiB" per line."""
    name, _, mebibytes = said.strip().partition("\n")[0].rpartition(",")
    return (name.strip(), int(mebibytes) << 20) if name and mebibytes.strip().isdigit() else None
