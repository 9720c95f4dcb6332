"""Where the numbers of a preflight come from: headers, prompts, and a moment on the devices and the disk."""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studio.contributions import four_bit
from studio.contributions.preflight import BATCH_TOKENS, Machine, Preflight, Work, preflight
from studio.contributions.prompts import Prompt
from studio.contributions.stored_tensors import StoredTensor, stored_tensors
from studio.errors import InputError
from studio.families.base import Family, MoeShape
from studio.families.lookup import family_of_config, shape_of_config, text_config
from studio.machine import free_ram

DTYPES = ("auto", "bfloat16", "float16", "float32", four_bit.NAME)
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_NOT_LOADED = re.compile(r"(?:^|\.)mtp\.")  # blocks that draft tokens ahead
_FLOATS = ("F64", "F32", "F16", "BF16")
_PROBE_BYTES = 64 << 20
_PROBE_SECONDS = 0.05
_REACHED = 0.25
"""Share of that rate which a pass reaches, with attention, norms and observing: on the demo model and one core between
0.21 and 0.31 of it (40 and 200 prompts, fp32 and bf16)."""


def measure(
    model_dir: Path,
    config: Mapping[str, Any],
    prompts: Sequence[Prompt],
    *,
    dtype: str = "auto",
    max_tokens: int = 4096,
    continuation_tokens: int = 128,
    thinking: bool = False,
) -> Preflight:
    """What observing the model in `model_dir` on `prompts` takes on this machine; the arguments are those of `analyze`.

    Reads headers, the tokenizer, and 64 MiB of weights to see how fast the disk is. Raises `InputError` for a model or
    a prompt that is not there or not right, or a `dtype` that the model cannot be loaded in, `FormatError` for a
    damaged file.
    """
    import torch

    from studio.contributions.encoding import load_tokenizer
    from studio.contributions.sequences import tokenize

    require_dtype(dtype, shape_of_config(config))
    tensors = stored_tensors(model_dir)
    tokenizer = load_tokenizer(model_dir)
    sequences = [tokenize(tokenizer, prompt, max_tokens=max_tokens, thinking=thinking) for prompt in prompts]
    work = work_of(
        tensors,
        config,
        [len(sequence.tokens) for sequence in sequences],
        unanswered=sum(sequence.open for sequence in sequences) if continuation_tokens else 0,
        new_tokens=continuation_tokens,
        value_bytes=None if dtype in ("auto", four_bit.NAME) else getattr(torch, dtype).itemsize,
        packed=dtype == four_bit.NAME,
    )
    rows = max(1, min(work.tokens, BATCH_TOKENS) * work.top_k // shape_of_config(config).experts)
    product = (rows, work.hidden_size, work.expert_size)
    return preflight(work, machine(tensors, "float32" if work.bytes_per_value == 4 else "bfloat16", product))


def require_dtype(dtype: str, shape: MoeShape) -> None:
    """Raise `InputError` for a `dtype` that is none of `DTYPES`, or "nf4" where it lacks something."""
    if dtype not in DTYPES:
        raise InputError(f"{dtype!r} is nothing that a model can be loaded in.", f"Give one of {', '.join(DTYPES)}.")
    if dtype == four_bit.NAME:
        four_bit.require_bitsandbytes()
        four_bit.require_blocks((shape.hidden_size, shape.expert_size))


def work_of(
    tensors: Mapping[str, StoredTensor],
    config: Mapping[str, Any],
    lengths: Sequence[int],
    *,
    unanswered: int = 0,
    new_tokens: int = 0,
    value_bytes: int | None = None,
    packed: bool = False,
) -> Work:
    """What `tensors` say of a model with that `config.json`; `value_bytes` None leaves values as they are stored.

    `packed` is for experts in four bits.
    """
    family, shape = family_of_config(config), shape_of_config(config)
    decoder_layers = int(text_config(config, family)["num_hidden_layers"])
    weights, unpacked, embeddings, active = 0, 0, 0, 0.0
    layers: dict[int, int] = defaultdict(int)
    for name, tensor in tensors.items():
        found = _LAYER.search(name)
        layer = int(found.group(1)) if found and "vision" not in name and "audio" not in name else None
        if _NOT_LOADED.search(name) or (layer is not None and layer >= decoder_layers):
            continue
        size = tensor.elements * value_bytes if value_bytes and tensor.dtype in _FLOATS else tensor.size
        unpacked += size
        if packed and _of_experts(family, name, tensor):
            size = int(tensor.elements * four_bit.BITS / 8)
        weights += size
        if layer is not None:
            layers[layer] += size
            active += tensor.elements * (shape.top_k / shape.experts if _of_experts(family, name, tensor) else 1.0)
        elif "embed_tokens" in name:
            embeddings += size
    values = sum(tensor.elements for tensor in tensors.values()) or 1
    stored = round(sum(tensor.size for tensor in tensors.values()) / values)
    return Work(
        weights=weights,
        layer_weights=sum(layers.values()),
        largest_layer=max(layers.values(), default=0),
        embeddings=embeddings,
        layers=decoder_layers,
        active=round(active),
        hidden_size=shape.hidden_size,
        expert_size=shape.expert_size,
        top_k=shape.top_k,
        bytes_per_value=value_bytes or max(2, stored),
        tokens=sum(lengths),
        longest=max(lengths, default=0),
        questions=len(lengths),
        unanswered=unanswered,
        new_tokens=new_tokens,
        quantized=bool(config.get("quantization_config")),
        unpacked=unpacked if packed else 0,
    )


def _of_experts(family: Family, name: str, tensor: StoredTensor) -> bool:
    """Whether a token meets only its own experts' part: one expert's tensor, or matrices of all."""
    place = family.place(name)
    return place is not None and (place.expert is not None or len(tensor.shape) > 2)


def machine(tensors: Mapping[str, StoredTensor], dtype: str, product: tuple[int, int, int]) -> Machine:
    """This machine: what is free, how fast it reads these weights, and computes a `product` such as one expert does."""
    import torch

    gpu = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None
    return Machine(
        ram=free_ram(),
        gpu=gpu,
        disk_rate=disk_rate(tensors),
        flops=_REACHED * product_rate("cpu", dtype, product),
        gpu_flops=0.0 if gpu is None else _REACHED * product_rate("cuda", dtype, product),
    )


def product_rate(device: str, dtype: str, product: tuple[int, int, int]) -> float:
    """Floating-point operations per second of the matrix product (M, K) × (K, N): the best of a moment.

    The mean would be that of whatever else runs just then.
    """
    import torch

    rows, inner, columns = product
    left = torch.ones(rows, inner, device=device, dtype=getattr(torch, dtype))
    right = torch.ones(inner, columns, device=device, dtype=getattr(torch, dtype))

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    left @ right  # the first one prepares
    wait()
    begin, best = time.perf_counter(), float("inf")
    while time.perf_counter() - begin < _PROBE_SECONDS or best == float("inf"):
        start = time.perf_counter()
        left @ right
        wait()
        best = min(best, time.perf_counter() - start)
    return float(2 * rows * inner * columns / best)


def disk_rate(tensors: Mapping[str, StoredTensor]) -> float:
    """Bytes per second at which weights are read; what the system had in memory of them is dropped and read again."""
    largest = max((tensor.file for tensor in tensors.values()), key=lambda file: file.stat().st_size)
    length = min(_PROBE_BYTES, largest.stat().st_size)
    with largest.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, length, os.POSIX_FADV_DONTNEED)
        memory = bytearray(length)
        start = time.perf_counter()
        file.readinto(memory)
        return length / max(time.perf_counter() - start, 1e-6)
