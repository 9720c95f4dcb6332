"""How models are loaded for a chat: what a person decides about it, and what is left to the memory there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from studio.quantize.placement import Offload
from studio.serve.server import CONTEXT

Order = Literal["together", "in turn"]


@dataclass(frozen=True)
class Loading:
    """What is decided before models are loaded; as it is by default, everything is chosen by the free memory."""

    context: int = CONTEXT
    """The longest conversation, in tokens; a model's own limit counts where that is less."""
    offload: Offload | None = None
    """What of every model goes to the graphics card; None: chosen for each."""
    order: Order | None = None
    """Whether several models answer at the same time; None: where they fit."""
