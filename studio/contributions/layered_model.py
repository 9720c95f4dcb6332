"""A transformers model that is larger than memory: only one decoder layer has its weights at a time.

The model is built without weights. Each layer is run by the model's own forward pass, which prepares masks, positions
and whatever else its architecture wants, so that no family needs code here: the layers before are passed over, the
stored hidden states take the place of what they would have given, and the pass ends after the layer. The weights are
read by transformers' own loader, which renames, fuses and converts what checkpoints store in other ways.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    convert_and_load_state_dict_in_model,
    rename_source_key,
)
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils import logging as transformers_logging

from studio.contributions.reading import readable
from studio.contributions.stored_tensors import StoredTensor, stored_tensors
from studio.errors import InputError, UnsupportedError

_WITHOUT_THREADS = "HF_DEACTIVATE_ASYNC_LOAD"


class _Reached(Exception):
    """Ends a forward pass at the layer that it was started for."""

    def __init__(self, result: torch.Tensor) -> None:
        super().__init__()
        self.result = result


class LayeredModel:
    """The model in the folder `path`, whose weights are read when they are needed.

    `model` is the transformers model, in evaluation mode. What lies outside of layers and token embeddings it has all
    along, and buffers that are computed and not stored.

    Raises `InputError` for a model that cannot be built, `UnsupportedError` for one that cannot be run layer by layer.
    """

    def __init__(self, path: Path, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> None:
        self.path = path
        self.device = torch.device(device)
        self.model = _without_weights(path, dtype)
        self.decoder = self.model.get_decoder()
        layers = getattr(self.decoder, "layers", None)
        if not isinstance(layers, torch.nn.ModuleList):
            raise UnsupportedError(f"{type(self.model).__name__} has no list of decoder layers to run one by one.")
        self.layers: torch.nn.ModuleList = layers
        self._weight_mapping: list[Any] = get_model_conversion_mapping(self.model)
        self._sources = self._sources_by_target()
        self._prefixes = {id(module): name for name, module in self.model.named_modules()}
        self._embeddings = self.decoder.get_input_embeddings()
        _compute_buffers(self.model, self.device)
        heavy = {name for module in (self._embeddings, self.layers) for name in self._names(module)}
        self._load([name for name in self._names(self.decoder) if name not in heavy])

    @contextmanager
    def embedding(self) -> Iterator[None]:
        """Within the block the token embeddings have weights."""
        with self._loaded(self._embeddings):
            yield

    @contextmanager
    def layer(self, index: int) -> Iterator[None]:
        """Within the block the decoder layer `index` has weights."""
        with self._loaded(self.layers[index]):
            yield

    def embed(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What the first layer is given, `[B, T, H]`, for `tokens` `[B, T]`; within `embedding`."""

        def end(*arguments: Any, **named: Any) -> None:
            raise _Reached(arguments[0] if arguments else named["hidden_states"])

        return self._run({0: end}, mask, input_ids=tokens.to(self.device))

    def forward(self, index: int, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What layer `index` makes of `hidden` `[B, T, H]`; within `layer`."""
        hidden = hidden.to(self.device)
        compute = self.layers[index].forward

        def pass_over(*arguments: Any, **named: Any) -> torch.Tensor:
            return hidden

        def end(*arguments: Any, **named: Any) -> None:
            if arguments:
                arguments = (hidden, *arguments[1:])
            else:
                named["hidden_states"] = hidden
            result = compute(*arguments, **named)
            if not isinstance(result, torch.Tensor):
                raise UnsupportedError(
                    f"A layer of {type(self.model).__name__} gives more than hidden states to the next one.",
                    "Such a model can only be observed whole.",
                )
            raise _Reached(result)

        replaced: dict[int, Callable[..., Any]] = dict.fromkeys(range(index), pass_over)
        try:
            return self._run({**replaced, index: end}, mask, inputs_embeds=hidden)
        finally:
            _trim()

    def _run(self, forwards: Mapping[int, Callable[..., Any]], mask: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """The decoder's forward pass with the `forward` of some layers replaced, up to one that ends it."""
        try:
            for index, forward in forwards.items():
                self.layers[index].forward = forward
            self.decoder(**inputs, attention_mask=mask.to(self.device), use_cache=False)
        except _Reached as reached:
            return reached.result
        finally:
            for index in forwards:
                del self.layers[index].forward  # the method of its class is back
        raise UnsupportedError(f"{type(self.model).__name__} does not call its decoder layers one after the other.")

    @contextmanager
    def _loaded(self, module: torch.nn.Module) -> Iterator[None]:
        before = [
            (owner, name, tensor)
            for owner in module.modules()
            for name, tensor in [*owner._parameters.items(), *owner._buffers.items()]
            if tensor is not None
        ]
        try:
            self._load(self._names(module))
            yield
        finally:
            for owner, name, tensor in before:
                setattr(owner, name, tensor)
            _give_back_memory()

    def _names(self, module: torch.nn.Module) -> list[str]:
        """Names in the model of what a checkpoint stores for `module`."""
        prefix = self._prefixes[id(module)]
        return [f"{prefix}.{name}" for name in module.state_dict()]

    def _load(self, names: Sequence[str]) -> None:
        """Give the tensors called `names` their values. Largest first and one after the other: the least memory."""
        wanted = set(names)
        targets = [target for target in self._sources if target in wanted]
        sizes = {target: self.model.get_parameter_or_buffer(target).nbytes for target in targets}
        missing = set(wanted)
        for target in sorted(targets, key=sizes.__getitem__, reverse=True):
            missing &= self._load_one(target)
        ignored = [re.compile(pattern) for pattern in self.model._keys_to_ignore_on_load_missing or ()]
        missing = {name for name in missing if not any(pattern.search(name) for pattern in ignored)}
        if missing:
            raise InputError(
                f"The checkpoint in {self.path} lacks {len(missing)} tensors, among them {min(missing)!r}.",
                "Is the download complete?",
            )

    def _load_one(self, target: str) -> set[str]:
        """Load what belongs to `target`, and give the names of the model that have no values by that."""
        settings = LoadStateDictConfig(
            device_map={"": self.device},
            dtype=self.model.dtype,
            dtype_plan=self.model._get_dtype_plan(self.model.dtype),
            weight_mapping=self._weight_mapping,
        )
        dtype = self.model.get_parameter_or_buffer(target).dtype
        with _one_after_the_other(), torch.no_grad():
            sources = readable(self._sources[target], dtype)
            info, _ = convert_and_load_state_dict_in_model(self.model, sources, settings, None)
        if problems := [*info.mismatched_keys, *info.conversion_errors.items(), *info.error_msgs]:
            raise InputError(
                f"{target} of the model in {self.path} cannot be loaded: {' '.join(str(problems[0]).split())[:300]}.",
                "Does config.json belong to these weights?",
            )
        missing: set[str] = info.missing_keys
        return missing

    def _sources_by_target(self) -> dict[str, dict[str, StoredTensor]]:
        """Name in the model → the tensors of the checkpoint that it is made of."""
        known = self.model.state_dict()
        renamings = [entry for entry in self._weight_mapping if isinstance(entry, WeightRenaming)]
        converters = [entry for entry in self._weight_mapping if isinstance(entry, WeightConverter)]
        sources: dict[str, dict[str, StoredTensor]] = defaultdict(dict)
        for name, stored in stored_tensors(self.path).items():
            target, _ = rename_source_key(name, renamings, converters, self.model.base_model_prefix, known)
            if target not in known and name in known:
                target, _ = rename_source_key(name, [], [], self.model.base_model_prefix, known)
            sources[target][name] = stored
        return sources


def _without_weights(path: Path, dtype: torch.dtype | None) -> Any:
    """The model of `path` on the meta device; `dtype` None is that of the checkpoint."""
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        dtype = dtype or config.dtype or config.get_text_config().dtype or torch.float32
        with torch.device("meta"):
            build: Any = AutoModelForCausalLM.from_config
            model = build(config, dtype=dtype, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"The model in {path} cannot be loaded: {reason}.") from error
    if getattr(config, "quantization_config", None):
        raise UnsupportedError(
            f"The weights in {path} are stored quantized ({config.quantization_config.get('quant_method')}).",
            "Layer by layer, Espalier reads 16-bit and 32-bit checkpoints.",
        )
    return model.eval()


def _compute_buffers(model: Any, device: torch.device) -> None:
    """Give the buffers that no checkpoint stores their values, as transformers does after loading."""
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor._is_hf_initialized = True
    for name, buffer in model.named_non_persistent_buffers():
        owner, _, own_name = name.rpartition(".")
        setattr(model.get_submodule(owner), own_name, torch.empty_like(buffer, device=device))
    model.initialize_weights()


@contextmanager
def _one_after_the_other() -> Iterator[None]:
    """transformers' loader without its threads, which hold on to memory, and its bar, which begins anew each time."""
    logging: Any = transformers_logging
    shown, before = logging.is_progress_bar_enabled(), os.environ.get(_WITHOUT_THREADS)
    logging.disable_progress_bar()
    os.environ[_WITHOUT_THREADS] = "1"
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
        if before is None:
            del os.environ[_WITHOUT_THREADS]
        else:
            os.environ[_WITHOUT_THREADS] = before


def _give_back_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    _trim()


def _trim() -> None:
    """Let the system have what was freed; glibc keeps much of it otherwise, and the holes add up."""
    with suppress(OSError, AttributeError, TypeError):  # another C library has no such function
        ctypes.CDLL(None).malloc_trim(0)
