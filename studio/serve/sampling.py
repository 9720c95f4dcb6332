"""Choosing the next token as llama.cpp's server does: penalty, top-k, top-p, min-p, then temperature."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from studio.serve.client import Sampler

REPEAT_LAST = 64
"""Tokens that the penalty looks back on, llama.cpp's default."""


def choose(logits: npt.NDArray[np.floating], sampler: Sampler, said: Sequence[int], lots: np.random.Generator) -> int:
    """The next token after the tokens `said`, by `logits` `[V]` and a lot from `lots`.

    Temperature 0 takes the likeliest, the lowest id among equal ones. The steps and their order are those of llama.cpp;
    the lots are not, so that a seed gives the same answer again, but not the same as there.
    """
    values = np.array(logits, dtype=np.float64)
    recent = np.unique(np.array(said[-REPEAT_LAST:], dtype=np.int64))
    if sampler.repeat_penalty != 1 and len(recent):
        penalised = values[recent]
        values[recent] = np.where(penalised > 0, penalised / sampler.repeat_penalty, penalised * sampler.repeat_penalty)
    if sampler.temperature == 0:
        return int(values.argmax())
    order = np.argsort(-values, kind="stable")
    if sampler.top_k:
        order = order[: sampler.top_k]
    order = order[np.isfinite(values[order])]
    if sampler.top_p < 1:
        before = np.cumsum(_softmax(values[order])) - _softmax(values[order])
        order = order[before < sampler.top_p]  # the first is always among them
    if sampler.min_p > 0:
        order = order[values[order] >= values[order[0]] + np.log(sampler.min_p)]
    chances = _softmax(values[order] / sampler.temperature)
    return int(order[np.searchsorted(np.cumsum(chances)[:-1], lots.random(), side="right")])


def _softmax(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())
