"""What a drop map means before anything is built: how much of each class's contribution stays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from studio.contributions.model import Contributions
from studio.recipes.criteria import Measure, class_values, shown_criterion
from studio.recipes.dropmap import DropMap
from studio.recipes.recipe import Criterion

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Preview:
    """Shares, 0 to 1, of the contribution that the kept experts carry. (Parameters and bytes follow from headers.)"""

    kept_experts: int
    """Per layer."""
    dropped_experts: int
    criterion: Criterion
    """What was shared out: Σ‖g·f‖ (`contribution`), or the next best sum of the analysis."""
    classes: tuple[str, ...]
    layer_ids: tuple[int, ...]
    kept_share: Array
    """[C, L]; 1 where a class has no contribution at all in a layer."""
    share_kept_per_class: dict[str, float]
    """Over all layers: Σ kept / Σ total."""
    share_kept_per_layer: Array
    """[L], mean over classes."""
    worst_class: str
    worst_class_share: float
    worst_layer: int
    """Layer id (not position) with the lowest `share_kept_per_layer`."""
    worst_layer_share: float
    outliers: int
    """Entries of the analysis that are not credible; the median of their neighbours stood in for them here."""


def preview(contributions: Contributions, drop: DropMap) -> Preview:
    """What `drop` keeps; `MismatchError` when it is for another grid than `contributions`."""
    drop.check_grid(contributions.shape, "the analysis")
    criterion = shown_criterion(contributions)
    measured = class_values(contributions, Measure(criterion=criterion))
    total = measured.values.sum(axis=2)
    kept = np.where(drop.mask, 0.0, measured.values).sum(axis=2)
    kept_share = _share(kept, total)
    per_class = _share(kept.sum(axis=1), total.sum(axis=1))
    per_layer = kept_share.mean(axis=0)
    worst_class, worst_layer = int(per_class.argmin()), int(per_layer.argmin())
    return Preview(
        kept_experts=drop.kept_count,
        dropped_experts=drop.dropped_count,
        criterion=criterion,
        classes=contributions.classes,
        layer_ids=drop.layer_ids,
        kept_share=kept_share,
        share_kept_per_class=dict(zip(contributions.classes, per_class.tolist(), strict=True)),
        share_kept_per_layer=per_layer,
        worst_class=contributions.classes[worst_class],
        worst_class_share=float(per_class[worst_class]),
        worst_layer=drop.layer_ids[worst_layer],
        worst_layer_share=float(per_layer[worst_layer]),
        outliers=measured.outliers,
    )


def _share(kept: Array, total: Array) -> Array:
    """kept / total; 1 where there was nothing to lose."""
    return np.divide(kept, total, out=np.ones_like(total), where=total > 0)
