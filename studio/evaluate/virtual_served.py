"""The virtual model as one of those that a chat can talk to: the reference in torch, with a map's experts masked."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio.checkpoints.reference import Reference, open_reference
from studio.errors import InputError
from studio.evaluate.virtual_server import VirtualServer, VirtualStream
from studio.quantize.card import free_card_bytes
from studio.quantize.fit import Layer, Need
from studio.quantize.placement import Offload
from studio.recipes.dropmap import DropMap
from studio.serve import memory
from studio.serve.memory import ModelNeed
from studio.serve.served import Request

TORCH_BYTES = 512 << 20
"""Of a process that has torch and transformers loaded, before the first weight; measured, and rounded up."""
FLOAT32 = 4
UNPACKED = 4
"""A quantized checkpoint takes at most so many times its bytes when torch unpacks it."""


@dataclass(frozen=True)
class VirtualServed:
    """The model that `drop` leaves of the safetensors model in `model_dir` (None: the reference itself).

    All maps of one reference share a server, which holds it in memory once. Its answers are those of the pruned
    checkpoint in torch; llama.cpp's from a built file may differ in the last bits of a probability, and so in a word.
    """

    model_dir: Path
    drop: DropMap | None = field(default=None, compare=False)

    @property
    def key(self) -> Path:
        return self.model_dir.resolve()

    @property
    def name(self) -> str:
        which = "all experts" if self.drop is None else f"map {self.drop.content_hash[:12]}"
        return f"{self.key.name}, virtual, {which}"

    @property
    def interleaves(self) -> bool:
        return True

    def signature(self) -> Hashable:
        return _signature(self.key)

    def digest(self, cache: Path) -> str:
        reference = self._reference().content_hash(cache=cache)
        if self.drop is None:
            return reference
        return hashlib.sha256(f"virtual\n{reference}\n{self.drop.content_hash}".encode()).hexdigest()

    def need(self, context: int, slots: int) -> ModelNeed:
        """As `Served.need`, an estimate from above: weights + keys and values + what is computed + torch itself.

        - Weights: parameters × 4 bytes where they are held in float32, else what the checkpoint has, and of a quantized
          one four times that, for torch may unpack it (MXFP4's 4 bits become 16).
        - Keys and values: 4 bytes × slots × context × layers × numbers that a token leaves in a layer (`_cached`).
        - Computed at a time, with the longest question: 4 bytes × context × experts per token × 3 × (hidden size +
          expert size), as `preflight.Work.activations` has it, and 4 × vocabulary for the logits of the last token.
        - `TORCH_BYTES` in main memory; `Need` adds the context that the card's driver takes.
        """
        reference = self._reference()
        shape, config = reference.shape, reference.config
        wide = _is_wide(self.key, _signature(self.key))
        weights = reference.parameters * FLOAT32 if wide else reference.bytes
        if not wide and config.get("quantization_config"):
            weights *= UNPACKED
        layers = int(_text(config).get("num_hidden_layers") or shape.layers)  # those without experts, too
        kv = FLOAT32 * slots * context * layers * _cached(config, shape.hidden_size)
        computed = FLOAT32 * context * shape.top_k * 3 * (shape.hidden_size + shape.expert_size)
        computed += FLOAT32 * int(_text(config).get("vocab_size") or 0)
        return ModelNeed(context, Need((Layer(weights, 0, kv),), 0, TORCH_BYTES, 0, computed))

    def start(self, *, log: Path, context: int, slots: int, threads: int, offload: Offload | None) -> VirtualServer:
        """As `Served.start`; what goes to the card is for torch to say."""
        dtype = "float32" if _is_wide(self.key, _signature(self.key)) else "auto"
        return VirtualServer.start(self.key, log=log, dtype=dtype, context=context, slots=slots, threads=threads)

    def ask(self, server: VirtualServer, request: Request) -> VirtualStream:
        return server.stream(
            request.messages,
            request.sampler,
            thinking=request.thinking,
            drop=self.drop,
            probabilities=request.probabilities,
        )

    def _reference(self) -> Reference:
        reference = _opened(self.key, _signature(self.key))
        if reference.kind != "safetensors":
            raise InputError(f"{self.key.name} is no safetensors checkpoint.", "The virtual model needs one in torch.")
        return reference


def _cached(config: Mapping[str, Any], hidden_size: int) -> int:
    """Numbers that transformers keeps of a token in a layer, keys and values together, at most.

    They are no more than twice the hidden state, but for latent attention (DeepSeek), which is kept unpacked: of every
    head a key, in two parts, and a value.
    """
    text = _text(config)
    parts = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    latent = int(text.get("num_attention_heads") or 0) * sum(int(text.get(part) or 0) for part in parts)
    return max(latent, 2 * hidden_size)


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What of a `config.json` is about the language model."""
    found = config.get("text_config")
    return found if isinstance(found, Mapping) else config


def _signature(path: Path) -> tuple[tuple[str, int, int], ...]:
    """What changes when other weights lie in a folder; raises `InputError` when nothing can be read there."""
    try:
        files = [file for file in sorted(path.iterdir()) if file.suffix in (".safetensors", ".json")]
        return tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", "Open the reference again.") from None


@lru_cache(16)
def _opened(path: Path, _signature: Hashable) -> Reference:
    return open_reference(path)


@lru_cache(16)  # decided once, so that a model that is loaded is not said to need less because it took the memory
def _is_wide(path: Path, signature: Hashable) -> bool:
    """Whether the weights are held in float32, which is faster where there is no graphics card and memory for it."""
    reference = _opened(path, signature)
    if free_card_bytes() or reference.config.get("quantization_config"):
        return False
    return reference.parameters * FLOAT32 + TORCH_BYTES <= memory.free_bytes()
