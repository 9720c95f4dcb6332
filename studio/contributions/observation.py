"""A model made ready to be observed: whole, shared between GPU and main memory, or layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from studio.contributions import four_bit
from studio.contributions.checkpoint import key_of, model_key
from studio.contributions.collector import collect
from studio.contributions.encoding import load_tokenizer
from studio.contributions.energies import Energies
from studio.contributions.layered import collect_layered, require_answers
from studio.contributions.layered_model import LayeredModel
from studio.contributions.model import Contributions
from studio.contributions.preflight import Estimate
from studio.contributions.prompts import Prompt
from studio.errors import InputError
from studio.families.base import MoeShape
from studio.machine import free_ram
from studio.progress import Progress

HIDDEN_SHARE = 4
"""One part in so many of the free memory holds hidden states between two layers; all of them are on disk as well."""


@dataclass(frozen=True)
class Request:
    """What is to be observed; the last four are arguments of `analyze`."""

    model_dir: Path
    prompts: Sequence[Prompt]
    shape: MoeShape
    dtype: str
    max_tokens: int
    continuation_tokens: int
    thinking: bool

    @property
    def options(self) -> dict[str, Any]:
        """What `collect` and `collect_layered` are told alike."""
        return {
            "shape": self.shape,
            "max_tokens": self.max_tokens,
            "continuation_tokens": self.continuation_tokens,
            "thinking": self.thinking,
            "model_name": self.model_dir.name,
        }


@dataclass(frozen=True)
class Observation:
    """A model that is ready to be observed."""

    key: str
    """What stands for the model as it is loaded, and so for every number that it gives on the same tokens."""
    collect: Callable[[Path, Progress], Contributions]
    """Given the folder for finished pieces."""


def prepare(request: Request, chosen: Estimate, energies: Energies | None) -> Observation:
    """Load what `chosen` says of the model. `energies` are those of `collect`.

    Raises `InputError` for a model that cannot be loaded or prompts that the mode cannot observe.
    """
    return _layered(request, chosen, energies) if chosen.mode == "layered" else _whole(request, chosen, energies)


def _whole(request: Request, chosen: Estimate, energies: Energies | None) -> Observation:
    model, tokenizer = load(request, chosen.device)
    places = getattr(model, "hf_device_map", {"": model.device})
    place = str(sorted(f"{module} {device}" for module, device in places.items()))

    def observe(checkpoint: Path, progress: Progress) -> Contributions:
        found = collect(
            model,
            tokenizer,
            request.prompts,
            checkpoint=checkpoint,
            progress=progress,
            energies=energies,
            **request.options,
        )
        return in_its_dtype(found, request)

    return Observation(
        model_place_key(request.model_dir, str(model.dtype), f"{place} {request.dtype == four_bit.NAME}"), observe
    )


def _layered(request: Request, chosen: Estimate, energies: Energies | None) -> Observation:
    require_answers(request.prompts, request.continuation_tokens)
    tokenizer = load_tokenizer(request.model_dir)
    dtype = None if request.dtype == "auto" else getattr(torch, request.dtype)
    model = LayeredModel(request.model_dir, dtype, chosen.device)

    def observe(checkpoint: Path, progress: Progress) -> Contributions:
        return collect_layered(
            model,
            tokenizer,
            request.prompts,
            checkpoint=checkpoint,
            progress=progress,
            hidden_bytes=free_ram() // HIDDEN_SHARE,
            energies=energies,
            **request.options,
        )

    return Observation(
        model_place_key(request.model_dir, str(model.model.dtype), f"{chosen.device}, layer by layer"), observe
    )


def in_its_dtype(found: Contributions, request: Request) -> Contributions:
    """`found`, whose source says what its dtype does not."""
    return replace(found, source=f"{found.source}; experts in NF4") if request.dtype == four_bit.NAME else found


def model_place_key(model_dir: Path, dtype: str, place: str) -> str:
    """What stands for the model in `model_dir` as it is loaded at `place`, in a dtype of that name."""
    versions = [torch.__version__, transformers.__version__, torch.get_num_threads()]  # sums round by threads
    return key_of([model_key(model_dir), dtype, place, versions])[:32]


def load(request: Request, device: str) -> tuple[Any, Any]:
    """The model, in evaluation mode on `device`, and its tokenizer; nothing is fetched or executed from it.

    On the device "auto" accelerate fills GPUs first and leaves the rest in main memory. Experts in four bits are packed
    in main memory, before they go to a GPU. Raises `InputError`.
    """
    packed = request.dtype == four_bit.NAME
    tokenizer = load_tokenizer(request.model_dir)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            request.model_dir,
            dtype="auto" if packed else request.dtype,
            device_map="cpu" if packed else device,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"The model in {request.model_dir} cannot be loaded: {reason}.") from error
    if packed:
        four_bit.pack_experts(model, request.shape, device)
    return model.eval(), tokenizer
