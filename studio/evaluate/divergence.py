"""How far one model's predictions are from another's, token by token, and in a few numbers.

The definitions are those of llama.cpp's `llama-perplexity --kl-divergence`: natural logarithms, the reference's
distribution first, every predicted token counts once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from studio.errors import MismatchError

Floats = npt.NDArray[np.float64]
_ROWS = 256
"""Tokens compared at once: with a vocabulary of 262,144 the float64 intermediate of one block is 0.5 GiB each."""


@dataclass(frozen=True)
class TokenDivergences:
    """Two models on the same `T` predicted tokens, one value per token."""

    kl: Floats
    """`[T]`, Σ p·(ln p − ln q) over the vocabulary, p the reference and q the candidate; in nats, never below 0."""
    same_top: npt.NDArray[np.bool_]
    """`[T]`, whether both find the same token the likeliest."""
    reference_nll: Floats
    """`[T]`, −ln p of the token that really follows."""
    candidate_nll: Floats
    """`[T]`, −ln q of it."""

    def __len__(self) -> int:
        return len(self.kl)


@dataclass(frozen=True)
class Divergence:
    """A candidate against its reference over `tokens` predicted tokens."""

    tokens: int
    kl_mean: float
    """Nats per token; with `kl_mean_error`, its standard error, as if tokens were independent."""
    kl_mean_error: float
    kl_median: float
    kl_p99: float
    kl_max: float
    same_top: float
    """The share of tokens, 0 to 1, on which both find the same one the likeliest."""
    reference_perplexity: float
    """exp of the mean −ln p of the tokens that really follow."""
    candidate_perplexity: float

    @property
    def perplexity_ratio(self) -> float:
        """The candidate's perplexity in units of the reference's; 1 is no change."""
        return self.candidate_perplexity / self.reference_perplexity


def token_divergences(reference: Any, candidate: Any, following: npt.NDArray[np.int64]) -> TokenDivergences:
    """Compare logits `[T, V]` of both models (arrays, or anything `numpy.asarray` takes) with the tokens `[T]` that
    follow each position.

    -inf logits (of tokens that a model can never say) are fine as long as the reference's are among the candidate's
    finite ones or both are -inf; otherwise the divergence of that token is infinite, which is what it is.
    Raises `MismatchError` for different shapes.
    """
    reference, candidate = np.asarray(reference), np.asarray(candidate)
    if reference.shape != candidate.shape or reference.shape[:1] != following.shape:
        raise MismatchError(
            f"The reference's logits have the shape {list(reference.shape)}, the candidate's {list(candidate.shape)}, "
            f"for {len(following)} tokens.",
            "Compare models of one vocabulary on the same tokens.",
        )
    blocks = [slice(start, start + _ROWS) for start in range(0, len(following), _ROWS)]
    parts = [_compared(reference[block], candidate[block], following[block]) for block in blocks]
    return joined(parts)


def joined(parts: Iterable[TokenDivergences]) -> TokenDivergences:
    """All tokens of `parts`, in their order."""
    parts = list(parts) or [_NOTHING]
    names = [field.name for field in fields(TokenDivergences)]
    return TokenDivergences(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def summarised(tokens: TokenDivergences) -> Divergence:
    """The few numbers; all NaN where there are no tokens."""
    count = len(tokens)
    if not count:
        return Divergence(0, *[float("nan")] * (len(fields(Divergence)) - 1))
    error = float(tokens.kl.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan")
    return Divergence(
        tokens=count,
        kl_mean=float(tokens.kl.mean()),
        kl_mean_error=error,
        kl_median=float(np.median(tokens.kl)),
        kl_p99=float(np.percentile(tokens.kl, 99)),
        kl_max=float(tokens.kl.max()),
        same_top=float(tokens.same_top.mean()),
        reference_perplexity=float(np.exp(tokens.reference_nll.mean())),
        candidate_perplexity=float(np.exp(tokens.candidate_nll.mean())),
    )


def _compared(reference: Any, candidate: Any, following: npt.NDArray[np.int64]) -> TokenDivergences:
    before, after = _log_softmax(reference), _log_softmax(candidate)
    p = np.exp(before)
    with np.errstate(invalid="ignore"):  # 0 · (-inf - …) is 0 here
        terms = np.where(p > 0, p * (before - after), 0.0)
    rows = np.arange(len(following))
    return TokenDivergences(
        kl=np.maximum(terms.sum(axis=1), 0.0),
        same_top=before.argmax(axis=1) == after.argmax(axis=1),
        reference_nll=-before[rows, following],
        candidate_nll=-after[rows, following],
    )


def _log_softmax(logits: Any) -> Floats:
    values = np.asarray(logits, dtype=np.float64)
    shifted = values - values.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


_NOTHING = TokenDivergences(np.empty(0), np.empty(0, dtype=np.bool_), np.empty(0), np.empty(0))
