"""What handlers need that make a choice outside the controls of the third station: the whole page follows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from components.library import Library

Updates = dict[Any, Any]


@dataclass(frozen=True)
class Wiring:
    """The same for all of them."""

    library: Library
    state: gr.State
    render: Callable[..., Updates]
    """The page after a choice, from what is open and the values of `asked`."""
    asked: Sequence[Any]
    """What the page goes by beside the choice."""
    outputs: Sequence[Any]
    """What `render` changes."""
    changed: Sequence[Any]
    """What is different after every choice: panels follow these."""
    problem: gr.HTML
    """Where it is said why a choice cannot be made, unless a part has a place of its own for that."""
    calls: Mapping[str, Any]
    """How gradio calls the handlers."""
