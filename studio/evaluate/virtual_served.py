"""The virtual model as one of those that a chat can talk to: the reference in torch, with a map's experts masked."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

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

    def signature(self) -> Hashable:
        return _signature(self.key)

    def digest(self, cache: Path) -> str:
        reference = self._reference().content_hash(cache=cache)
        if self.drop is None:
            return reference
        return hashlib.sha256(f"virtual\n{reference}\n{self.drop.content_hash}".encode()).hexdigest()

    def need(self, context: int, slots: int) -> ModelNeed:
        """As `Served.need`; there is one conversation at a time, whatever `slots` says."""
        reference = self._reference()
        wide = _is_wide(self.key, _signature(self.key))
        weights = reference.parameters * FLOAT32 if wide else reference.bytes
        # No family's keys and values have more numbers than its hidden state, and what is computed is a few of those.
        shape = reference.shape
        kv = 2 * FLOAT32 * context * shape.layers * shape.hidden_size
        need = Need((Layer(weights, 0, kv),), output=0, embeddings=TORCH_BYTES, tied=0, compute=kv // shape.layers)
        return ModelNeed(context, need)

    def start(self, *, log: Path, context: int, slots: int, threads: int, offload: Offload | None) -> VirtualServer:
        """As `Served.start`; what goes to the card is for torch to say."""
        dtype = "float32" if _is_wide(self.key, _signature(self.key)) else "auto"
        return VirtualServer.start(self.key, log=log, dtype=dtype, context=context, threads=threads)

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
