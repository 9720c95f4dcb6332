"""Which experts fired for an answer of the virtual model, and where the reference would have used a dropped one."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.markup import percent_text
from studio.evaluate.routing import Routing
from studio.evaluate.virtual_answer import VirtualDelta
from studio.evaluate.virtual_served import VirtualServed
from studio.serve.columns import Event
from studio.serve.conversation import Conversation
from studio.serve.served import Served

CELL = 6
"""Pixels of a cell, the gap to the next one included; the browser stretches the picture."""
FIRED, MISSED = (76, 154, 112), (205, 104, 66)
"""Green and orange that can be told apart on light and dark ground, also by who does not see red."""
HATCH, GROUND, FAINTEST = 130, 26, 70
"""Opacity, of 255, of the lines over dropped experts, of the ground below, and of an expert that fired once."""
NAMED = 3
"""Dropped experts that are named as the most missed ones."""

Known = tuple[Routing, npt.NDArray[np.bool_]]
"""What the routers did for an answer, and which experts [L, E] its map drops."""


@dataclass
class Routed:
    """What the routers of the virtual models among `served` (by column) have done so far for the answers that come."""

    served: Mapping[str, Served]
    _known: dict[str, Known] = field(default_factory=dict)
    _new: bool = False

    def hear(self, column: str, event: Event) -> None:
        """Take note of what an event of a column says."""
        model = self.served.get(column)
        if not isinstance(event, VirtualDelta) or event.routing is None or not isinstance(model, VirtualServed):
            return
        dropped = np.zeros(event.routing.fired.shape, np.bool_) if model.drop is None else model.drop.mask
        self._known[column] = (event.routing, dropped)
        self._new = True

    def news(self) -> Mapping[str, Known]:
        """All that is known, if something was heard since this was last asked for."""
        was_new, self._new = self._new, False
        return dict(sorted(self._known.items())) if was_new else {}

    def to_json(self, conversation: Conversation) -> dict[str, Any]:
        """What is known about the answers of `conversation`, as JSON."""
        return {
            column: {"answer": _answer_key(conversation, column), "dropped": dropped.tolist(), **routing.to_json()}
            for column, (routing, dropped) in self._known.items()
        }


def kept_routings(content: Any, conversation: Conversation) -> Mapping[str, Known]:
    """Of what `Routed.to_json` has said, that which is about the last answers of `conversation`."""
    try:
        return {
            str(column): (Routing.from_json(one), np.array(one["dropped"], np.bool_))
            for column, one in dict(content or {}).items()
            if one["answer"] == _answer_key(conversation, column)
        }
    except (KeyError, TypeError, ValueError):  # of another version
        return {}


def _answer_key(conversation: Conversation, column: str) -> str:
    """Stands for the last answer of a column, and the question."""
    answer = conversation.answer(column)
    said = [conversation.turns[-1].prompt, answer.reasoning, answer.text] if answer else []
    return hashlib.sha256(json.dumps([len(conversation.turns), *said]).encode()).hexdigest()


def routing_html(routings: Mapping[str, Known]) -> str:
    """A panel for each column of `routings`: id → (what fired, dropped [L, E]); empty without any."""
    return "".join(_panel(id, routing, dropped) for id, (routing, dropped) in routings.items() if routing.tokens)


def _panel(id: str, routing: Routing, dropped: npt.NDArray[np.bool_]) -> str:
    return (
        f"<section class='routing' aria-label='Routing of {escape(id)}'>"
        f"<h3 class='panel-title'>{escape(id)}: {escape(sentence(routing, dropped))}</h3>"
        f"{_grid(routing, dropped)}{_remark(routing)}</section>"
    )


def sentence(routing: Routing, dropped: npt.NDArray[np.bool_]) -> str:
    """The finding."""
    total = f"{int(routing.fired.sum()):,}"
    if not dropped.any():
        return f"{total} routings for this answer; the map drops no expert."
    return (
        f"of {total} routings for this answer, the reference would have sent {percent_text(routing.missed_share)} "
        "to a dropped expert."
    )


def _grid(routing: Routing, dropped: npt.NDArray[np.bool_]) -> str:
    """The map, with a line for each layer beside it."""
    layers, experts = routing.fired.shape
    title = f"{layers} layers from top to bottom, {experts} experts from left to right"
    picture = f"<img alt='{title}: which experts fired' src='{picture_url(routing, dropped)}'>"
    rows = "".join(
        f"<span class='number' style='grid-row:{row}'>{layer}</span>"
        f"<span class='meter low' style='grid-row:{row}' aria-hidden='true'>"
        f"<i style='width:{100 * share:.1f}%'></i></span>"
        f"<span class='number share' style='grid-row:{row}'>{percent_text(share)}</span>"
        for row, (layer, share) in enumerate(zip(routing.layer_ids, routing.missed_by_layer, strict=True), 2)
    )
    heads = "<small>Layer</small><small>Experts that fired</small><small class='wide'>To a dropped one</small>"
    return f"<div class='routing-grid' style='--layers:{layers}'>{heads}{rows}{picture}</div>"


def _remark(routing: Routing) -> str:
    legend = (
        "<span><i class='fired'></i>fired, the stronger the more often</span><span><i class='gone'></i>dropped</span>"
        "<span><i class='missed'></i>dropped, and would have been used</span>"
    )
    most = routing.most_missed(NAMED)
    named = ", ".join(f"expert {expert} of layer {layer} ({times} ×)" for layer, expert, times in most)
    missed = f" Most missed: {named}." if named else ""
    return (
        f"<p class='legend'>{legend}</p><p class='quiet parted-remark'>{routing.tokens} tokens, each routed once "
        f"in every layer.{missed} What the reference would have done is said of the state that this answer is in.</p>"
    )


def picture_url(routing: Routing, dropped: npt.NDArray[np.bool_]) -> str:
    """The map as a PNG in a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(_pixels(routing, dropped), "RGBA").save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _pixels(routing: Routing, dropped: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """RGBA [L·CELL, E·CELL, 4]: how often experts fired, lines over dropped ones, full where those were missed."""
    colours = np.where(dropped[..., None], MISSED, FIRED)
    counts = np.where(dropped, routing.missed, routing.fired)
    strength = FAINTEST + (255 - FAINTEST) * np.sqrt(counts / max(1, int(counts.max())))
    alpha = np.where(counts > 0, strength, np.where(dropped, GROUND, 0))
    large = np.repeat(np.repeat(np.dstack([colours, alpha]), CELL, axis=0), CELL, axis=1)
    rows, columns = np.indices(large.shape[:2])
    lines = (rows + columns) % CELL == CELL - 1
    hatched = np.repeat(np.repeat(dropped & (counts == 0), CELL, axis=0), CELL, axis=1) & lines
    large[..., 3] = np.where(hatched, HATCH, large[..., 3])
    gaps = (rows % CELL == CELL - 1) | (columns % CELL == CELL - 1)
    large[..., 3] = np.where(gaps & ~hatched, 0, large[..., 3])
    return large.astype(np.uint8)
