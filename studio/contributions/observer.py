"""Observing every routed token of a running model, through transformers' registry of experts implementations.

The registry hands an implementation the experts module, the hidden states and the routing, in every family that uses
it. The one registered here computes each expert output once, as transformers' `grouped_mm` does, takes its norm while
it is not yet weighted, and then weights and sums it. What the model returns is the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.parametrize import is_parametrized
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, _grouped_linear

from studio.contributions.energies import Meter
from studio.contributions.model import SUMS, Array
from studio.contributions.modules import modules_by_layer
from studio.errors import MismatchError, UnsupportedError
from studio.families.base import MoeShape
from studio.families.lookup import family_named

# Between these a norm computed in fp32 is right to fp32's precision. Above, squares overflow (at 1.8e19). Below,
# squares may be subnormal and lost: at 1e-13 they are less than 1e-6 of the sum, even over 2^20 neurons.
_SMALLEST_FP32_NORM = 1e-13
_LARGEST_FP32_NORM = 1e19
_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


class Observer:
    """The six sums of one batch of questions, collected while the model runs on it.

    Call `expect` before each forward pass and `totals` after it. With `energies` there is a `meter`, too.
    """

    def __init__(self, model: Any, shape: MoeShape, energies: bool = False) -> None:
        modules = modules_by_layer(model, family_named(shape.family).experts_module, shape)
        for layer, module in zip(shape.layer_ids, modules, strict=True):
            _check_module(module, layer, shape)
        self._row = {id(module): row for row, module in enumerate(modules)}
        self.meter: Meter | None = None
        if energies:
            decoder = model.get_decoder()
            self.meter = Meter(decoder, {id(m): name for name, m in decoder.named_modules() if id(m) in self._row})
        self._shape = shape
        self._question = torch.empty(0, dtype=torch.int64)
        self._questions = 0
        self._memberships: dict[torch.device, torch.Tensor] = {}
        self._sums: list[torch.Tensor | None] = [None] * shape.layers
        self._skipped: list[torch.Tensor | None] = [None] * shape.layers

    def expect(self, question: torch.Tensor, questions: int) -> None:
        """Announce a batch: `question` `[T]` is each token's question, in 0 … `questions` - 1, or -1 for padding."""
        self._question = question
        self._questions = questions
        self._memberships = {}
        self._sums = [None] * self._shape.layers
        self._skipped = [None] * self._shape.layers
        if self.meter:
            self.meter.expect(question)

    def totals(self) -> tuple[Array, npt.NDArray[np.int64]]:
        """Sums `[6, Q, L, E]` in the order of `SUMS`, and tokens skipped in any layer `[Q]`, of the last pass."""
        layers = [layer for layer in self._sums if layer is not None]
        if len(layers) < self._shape.layers:
            raise UnsupportedError(
                f"Only {len(layers)} of {self._shape.layers} layers asked transformers' registry for their experts.",
                f"The family {self._shape.family} cannot be observed with this version of transformers.",
            )
        sums = torch.stack([layer.cpu() for layer in layers], dim=2)
        skipped = torch.stack([layer.cpu() for layer in self._skipped if layer is not None]).any(0)
        question = self._question.cpu()
        counted = torch.bincount(question[skipped & (question >= 0)], minlength=self._questions)
        return sums.numpy(), counted.numpy()

    def layer_totals(self, row: int) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Of the layer at `row` of the shape: sums `[6, Q, E]`, and whether a token was skipped there `[T]`."""
        sums, skipped = self._sums[row], self._skipped[row]
        if sums is None or skipped is None:
            raise UnsupportedError(
                f"Layer {self._shape.layer_ids[row]} did not ask transformers' registry for its experts.",
                f"The family {self._shape.family} cannot be observed with this version of transformers.",
            )
        return sums.cpu().numpy(), (skipped & (self._question.to(skipped.device) >= 0)).cpu().numpy()

    def forward(
        self, module: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """The experts implementation: what `module` returns for `hidden_states` `[T, H]`, routing `[T, K]`.

        Synchronises with the device at most once.
        """
        outputs = _expert_outputs(module, hidden_states, top_k_index, self.meter)  # (T, K, H)
        # The weights are often fp32 in a bf16 model; products and sums then happen in fp32, as in transformers.
        wide = torch.promote_types(torch.promote_types(outputs.dtype, top_k_weights.dtype), torch.float32)
        outputs = outputs.to(wide)
        self._record(self._row[id(module)], hidden_states, top_k_index, top_k_weights, _norms(outputs))
        weighted = torch.bmm(top_k_weights.to(wide).unsqueeze(1), outputs).squeeze(1)  # (T, H)
        return weighted.to(hidden_states.dtype)

    def _record(
        self,
        row: int,
        hidden_states: torch.Tensor,
        top_k_index: torch.Tensor,
        top_k_weights: torch.Tensor,
        norms: torch.Tensor,
    ) -> None:
        """Add one layer's tokens to its questions' cells: `norms` is ‖f‖ in fp64, `[T, K]`."""
        gate = top_k_weights.to(torch.float64)
        weighted = gate.abs() * norms  # ‖g·f‖
        # A zero times anything finite is zero, and NaN otherwise: cheaper than asking for every element. An expert's
        # output may overflow where its input did not, and then the token's next hidden state is not finite either.
        finite = torch.isfinite(hidden_states.mul(0).sum(-1)) & torch.isfinite(weighted.sum(-1))  # (T,)
        values = torch.stack([torch.ones_like(norms), gate, norms, norms**2, weighted, weighted**2])  # SUMS' order
        values = torch.where(finite.unsqueeze(-1), values, 0.0)
        # A token has an expert once only, so no two values meet here, and a product adds them in one order always;
        # scattering them onto sums would give other roundings on a GPU every time.
        placed = values.new_zeros(len(SUMS), len(norms), self._shape.experts)
        placed.scatter_(2, top_k_index.expand(len(SUMS), -1, -1), values)
        asked = self._membership(norms.device)  # (Q, T)
        self._sums[row] = asked @ placed
        self._skipped[row] = ~finite

    def _membership(self, device: torch.device) -> torch.Tensor:
        """One where a token belongs to a question, `[Q, T]` in fp64, with nothing for padding."""
        if device not in self._memberships:
            question = self._question.to(device)
            each = torch.arange(self._questions, device=device).unsqueeze(-1)
            self._memberships[device] = (question == each).to(torch.float64)
        return self._memberships[device]


@contextmanager
def observing(model: Any, shape: MoeShape, energies: bool = False) -> Iterator[Observer]:
    """Let an `Observer` compute the experts of `model` (a transformers model of `shape`); afterwards all is as before.

    With `energies` its meter measures what flows into every weight of the decoder.

    Raises `UnsupportedError` or `MismatchError` when the model's experts are not those that `shape` describes.
    """
    observer = Observer(model, shape, energies)
    name = f"espalier_observer_{id(observer)}"
    before = model.get_experts_implementation()
    ALL_EXPERTS_FUNCTIONS[name] = observer.forward
    try:
        model.set_experts_implementation(name)
        with observer.meter.attached() if observer.meter else nullcontext():
            yield observer
    finally:
        model.set_experts_implementation(before)
        ALL_EXPERTS_FUNCTIONS.pop(name)


def _check_module(module: Any, layer: int, shape: MoeShape) -> None:
    experts = getattr(module, "num_experts", None)
    if experts != shape.experts:
        raise MismatchError(f"Layer {layer} of the model has {experts} experts, and the shape says {shape.experts}.")
    if getattr(module, "_is_expert_parallel", False):
        raise UnsupportedError(
            f"The experts of layer {layer} are spread over several processes.",
            "Load the model without expert parallelism to analyze it.",
        )
    _check_weights(module, layer)


def _check_weights(module: Any, layer: int) -> None:
    """Raise `UnsupportedError` unless the experts' weights, once they are read, are numbers to multiply with."""
    for name in ("gate_up_proj" if getattr(module, "has_gate", True) else "up_proj", "down_proj"):
        if is_parametrized(module, name):
            continue  # packed, and unpacked when it is read
        weight = getattr(module, name, None)
        if getattr(weight, "dtype", None) not in _DTYPES:
            kind = getattr(weight, "dtype", type(weight).__name__)
            raise UnsupportedError(
                f"The experts of layer {layer} are {type(module).__name__}, with {name} as {kind}: they are quantized "
                "in a way that cannot be observed.",
                "Load the model without that quantization, or in bfloat16 with its experts packed (nf4).",
            )


def _expert_outputs(
    module: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, meter: Meter | None = None
) -> torch.Tensor:
    """f: the output of each of a token's experts before weighting, `[T, K, H]`, in the weights' dtype.

    Reads the attributes that transformers' `use_experts_implementation` promises of every experts module.
    """
    tokens, top_k = top_k_index.shape
    experts, order = torch.sort(top_k_index.reshape(-1))  # (T·K,): one expert's tokens lie together
    following = torch.arange(1, module.num_experts + 1, device=experts.device)
    ends = torch.searchsorted(experts, following).to(torch.int32)  # where each expert's tokens end

    def linear(inputs: torch.Tensor, name: str) -> torch.Tensor:
        bias = getattr(module, f"{name}_bias")[experts] if module.has_bias else None
        weight: torch.Tensor = getattr(module, name)
        result: torch.Tensor = _grouped_linear(inputs, weight, ends, bias=bias, is_transposed=module.is_transposed)
        return result

    neurons = linear(hidden_states[order // top_k], "gate_up_proj" if module.has_gate else "up_proj")
    neurons = module._apply_gate(neurons) if module.has_gate else module.act_fn(neurons)
    if meter:
        meter.expert_inputs(module, hidden_states, top_k_index)
        meter.expert_neurons(module, neurons, experts, order // top_k)
    outputs = linear(neurons, "down_proj")
    if module.has_post_expert_norm:
        outputs = module.post_expert_norm(outputs)
    place = torch.empty_like(order)
    place[order] = torch.arange(order.numel(), device=order.device)
    return outputs.index_select(0, place).view(tokens, top_k, outputs.shape[-1])


def _norms(outputs: torch.Tensor) -> torch.Tensor:
    """‖f‖ along the last dimension of `outputs` (fp32 or fp64), in fp64 and right for every finite value."""
    norms: torch.Tensor = torch.linalg.vector_norm(outputs, dim=-1).to(torch.float64)
    if outputs.dtype == torch.float64:
        return norms
    doubtful = ~((norms >= _SMALLEST_FP32_NORM) & (norms <= _LARGEST_FP32_NORM))
    where = torch.nonzero(doubtful, as_tuple=True)  # the one synchronisation with the device
    if where[0].numel():
        norms[where] = torch.linalg.vector_norm(outputs[where].to(torch.float64), dim=-1)
    return norms


def question_of_token(lengths: Sequence[int], width: int, device: torch.device) -> torch.Tensor:
    """For a batch padded on the right to `width`: each token's question, or -1 for padding, flattened `[Q · width]`."""
    position = torch.arange(width, device=device)
    length = torch.tensor(lengths, device=device).unsqueeze(1)
    question = torch.arange(len(lengths), device=device).unsqueeze(1)
    return torch.where(position < length, question, -1).reshape(-1)
