"""The energy of what flows into each weight: per column Σ x² over tokens, from which an importance matrix is made.

Measured in the pass that observes the experts. What the experts see is at hand there; every other linear layer gets a
hook, routers too. A batch is summed in fp32 where the layer lies, batches in fp64 on the CPU. That costs 12 bytes per
column of each matrix, some 160 MB for Gemma 4 26B-A4B, two thirds of it on the CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from studio.contributions.checkpoint import Arrays, Checkpoint, key_of
from studio.contributions.model import Array

Pair = tuple[torch.Tensor, torch.Tensor]

_SUMS, _COUNTS = ".sums", ".counts"
_TOTAL, _KEY = "energies", "key"
_WRITING = 20
"""The total is kept this many times less often than it could be, to spend at most a twentieth of the time on it."""
_CACHED_VALUES = 1 << 17
"""Values squared at once on a CPU, so that they are still in its cache when they are added up."""


@dataclass
class Energies:
    """Of every weight, named as in the decoder (`layers.0.self_attn.q_proj`, `layers.0.experts.down_proj`)."""

    sums: dict[str, Array] = field(default_factory=dict)
    """Σ x² per column, `[M, C]`: M is the number of experts, or 1."""
    counts: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    """Tokens that they come from, `[M]`."""

    def add(self, batch: Arrays) -> None:
        """Add what `to_arrays` gives."""
        for key, values in batch.items():
            name, total = (
                (key[: -len(_SUMS)], self.sums) if key.endswith(_SUMS) else (key[: -len(_COUNTS)], self.counts)
            )
            total[name] = total[name] + values if name in total else values  # type: ignore[assignment]

    def to_arrays(self) -> Arrays:
        """Sums and counts under names that tell them apart."""
        return {f"{name}{_SUMS}": values for name, values in self.sums.items()} | {
            f"{name}{_COUNTS}": values for name, values in self.counts.items()
        }


class RunningTotal:
    """`energies` while batch after batch is added to them; `inputs` (plain JSON) say what each batch is made from.

    They are one sum over all batches, because one per batch would fill the disk. `checkpoint` keeps it together with
    what says which batches are in it.
    """

    def __init__(self, energies: Energies, inputs: Sequence[Any], checkpoint: Checkpoint) -> None:
        self._energies = energies
        self._checkpoint = checkpoint
        self._keys = list(accumulate(inputs, lambda before, batch: key_of([before, batch]), initial=""))[1:]
        self._included = 0
        self._written = self._took = 0.0
        found = dict(checkpoint.read(_TOTAL) or {})
        key = bytes(found.pop(_KEY, b"")).hex()
        if key in self._keys:
            self._included = self._keys.index(key) + 1
            energies.add(found)

    def includes(self, number: int) -> bool:
        """Whether batch `number` was added."""
        return number < self._included

    def add(self, number: int, batch: Arrays) -> None:
        """Add batch `number`, the first that is not included."""
        self._energies.add(batch)
        self._included = number + 1
        started = time.monotonic()
        if started - self._written >= _WRITING * self._took:  # a later batch is only computed again
            key = np.frombuffer(bytes.fromhex(self._keys[number]), dtype=np.uint8)
            self._checkpoint.write(_TOTAL, {**self._energies.to_arrays(), _KEY: key})
            self._written = time.monotonic()
            self._took = self._written - started


class Meter:
    """Measures one batch at a time. `names` are those of the modules that hold the experts, by `id`."""

    def __init__(self, decoder: Any, expert_modules: Mapping[int, str]) -> None:
        self.careful = False
        """Whether to look at every token for values that are not finite; else one of them is found in the sum."""
        self._linear = {name: module for name, module in decoder.named_modules() if _is_linear(module)}
        self._experts = expert_modules
        self._measured: dict[str, Pair] = {}
        self._counted: dict[torch.device, torch.Tensor] = {}
        self._rows: dict[torch.device, torch.Tensor] = {}
        self._last: tuple[torch.Tensor, Pair] | None = None

    def expect(self, question: torch.Tensor) -> None:
        """Announce a batch: `question` `[T]` is negative for padding."""
        counted = question >= 0
        self._measured, self._last = {}, None
        self._counted = {question.device: counted}
        # Known at once, so that no layer has to wait for the device to say it; empty where all tokens count.
        self._rows = {question.device: counted.new_empty(0) if counted.all() else counted.nonzero().squeeze(-1)}

    @contextmanager
    def attached(self) -> Iterator[None]:
        """See what flows into the linear layers."""
        hooks = [
            module.register_forward_pre_hook(lambda _, given, name=name: self._linear_inputs(name, given[0]))
            for name, module in self._linear.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def totals(self, again: Callable[[], object]) -> Arrays:
        """The last batch as `Energies.to_arrays` has it; `again` repeats its pass.

        Only where a value was not finite is it repeated, without that token.
        """
        measured = self._totals()
        if measured is None:
            self.careful = True
            try:
                again()
                measured = self._totals()
            finally:
                self.careful = False
        assert measured is not None
        return measured

    def _totals(self) -> Arrays | None:
        """None where a value was not finite and nobody was careful."""
        self._last = None
        sums = _fetched({name: sums for name, (sums, _) in self._measured.items()})
        counts = _fetched({name: counts for name, (_, counts) in self._measured.items()})
        if not all(np.isfinite(values).all() for values in sums.values()):
            return None
        return Energies(
            {name: values.reshape(len(counts[name]), -1) for name, values in sums.items()},
            {name: values.astype(np.int64) for name, values in counts.items()},
        ).to_arrays()

    def expert_inputs(self, module: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor) -> None:
        """What flows into the first matrices of the experts: `hidden_states` `[T, H]`, routed as `[T, K]` says."""
        kept, squares = self._kept_squares(hidden_states, _on(self._counted, hidden_states.device))
        routed = squares.new_zeros(len(squares), module.num_experts)
        routed.scatter_(1, top_k_index, kept.to(routed.dtype).unsqueeze(-1).expand(top_k_index.shape))
        name = f"{self._experts[id(module)]}.{'gate_up_proj' if module.has_gate else 'up_proj'}"
        self._measured[name] = routed.T @ squares, routed.sum(0)

    def expert_neurons(self, module: Any, neurons: torch.Tensor, experts: torch.Tensor, tokens: torch.Tensor) -> None:
        """What flows into the last matrix: `neurons` `[N, C]` of `experts` `[N]`, ascending, for `tokens` `[N]`."""
        name, number = f"{self._experts[id(module)]}.down_proj", int(module.num_experts)
        kept = _on(self._counted, neurons.device)[tokens]
        if neurons.device.type == "cpu" and not self.careful:  # three times as fast as the product
            if len(_on(self._rows, neurons.device)):
                neurons, experts = neurons[kept], experts[kept]
            counts = torch.bincount(experts, minlength=number)
            sums = torch.stack([_column_energies(part) for part in torch.split(neurons, counts.tolist())])
            self._measured[name] = sums, counts
            return
        kept, squares = self._kept_squares(neurons, kept)
        routed = squares.new_zeros(number, len(squares))
        routed.scatter_(0, experts.unsqueeze(0), kept.to(routed.dtype).unsqueeze(0))
        self._measured[name] = routed @ squares, routed.sum(1)

    def _linear_inputs(self, name: str, inputs: torch.Tensor) -> None:
        """What flows into the layer `name`; several layers in a row often share it."""
        if self._last is None or self._last[0] is not inputs:
            counted = _on(self._counted, inputs.device)
            rows = inputs.reshape(-1, inputs.shape[-1])
            if len(rows) != len(counted):
                return  # it sees something else than tokens
            if self.careful:
                counted, squares = self._kept_squares(rows, counted)
                sums = squares.sum(0)
            else:
                some = _on(self._rows, inputs.device)
                sums = _column_energies(rows.index_select(0, some) if len(some) else rows)
            self._last = inputs, (sums, counted.sum().reshape(1))
        self._measured[name] = self._last[1]

    def _kept_squares(self, rows: torch.Tensor, counted: torch.Tensor) -> Pair:
        """Which of `rows` `[N, C]` count, `[N]`, and their squares in fp32; when careful, none that is not finite."""
        squares = rows.to(torch.float32).square()
        if self.careful:
            counted = counted & torch.isfinite(squares.sum(-1))
            squares.masked_fill_(~counted.unsqueeze(-1), 0.0)
        return counted, squares


def _on(copies: dict[torch.device, torch.Tensor], device: torch.device) -> torch.Tensor:
    """The copy on `device` of what `copies` hold, made when it is first asked for."""
    if device not in copies:
        copies[device] = next(iter(copies.values())).to(device)
    return copies[device]


def _fetched(tensors: Mapping[str, torch.Tensor]) -> dict[str, Array]:
    """`tensors`, flat and in fp64, after one transfer from each device."""
    names: dict[torch.device, list[str]] = {}
    for name, tensor in tensors.items():
        names.setdefault(tensor.device, []).append(name)
    found: dict[str, Array] = {}
    for there in names.values():
        together = torch.cat([tensors[name].reshape(-1).to(torch.float32) for name in there]).cpu()
        parts = torch.split(together.to(torch.float64), [tensors[name].numel() for name in there])
        found |= {name: part.numpy() for name, part in zip(there, parts, strict=True)}
    return {name: found[name] for name in tensors}


def _is_linear(module: Any) -> bool:
    """Whether `module` is one weight that multiplies; routers are, and few of them are a `Linear`."""
    if isinstance(module, torch.nn.Linear):
        return True
    weight = module._parameters.get("weight")
    return weight is not None and weight.ndim == 2 and not isinstance(module, torch.nn.Embedding)


def _column_energies(rows: torch.Tensor) -> torch.Tensor:
    """Σ x² of each column of `rows` `[N, C]`, in fp32."""
    at_once = max(1, _CACHED_VALUES // rows.shape[-1]) if rows.device.type == "cpu" else max(1, len(rows))
    total = torch.zeros(rows.shape[-1], device=rows.device)
    for part in torch.split(rows, at_once):
        total += part.to(torch.float32).square().sum(0)
    return total
