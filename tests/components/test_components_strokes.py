"""What a browser sends about the map is read exactly, or refused."""

from __future__ import annotations

import pytest

from components.strokes import MOST_ACTIONS, Stroke, actions_of, message_of, typed_stroke
from studio.errors import InputError
from studio.families import MoeShape

SHAPE = MoeShape("gemma4", (2, 5, 7), 8, 2, 64, 32)


def test_a_drag_is_read_whichever_way_it_went() -> None:
    sent = [{"do": "keep", "rows": [2, 1], "experts": [0, 3]}, {"do": "undo"}]
    assert actions_of(sent, SHAPE) == (Stroke("keep", range(1, 3), range(4)), "undo")


@pytest.mark.parametrize(
    "sent",
    [
        None,
        [],
        {},
        "undo",
        ["undo"],
        [{"do": "redo"}] * (MOST_ACTIONS + 1),
        [{"do": "burn", "rows": [0, 0], "experts": [0, 0]}],
        [{"do": ["keep"], "rows": [0, 0], "experts": [0, 0]}],
        [{"do": "keep"}],
        [{"do": "keep", "rows": [0], "experts": [0, 0]}],
        [{"do": "keep", "rows": [0, 3], "experts": [0, 0]}],
        [{"do": "keep", "rows": [-1, 0], "experts": [0, 0]}],
        [{"do": "drop", "rows": [0, 0], "experts": [0, 8]}],
        [{"do": "drop", "rows": [0, 0], "experts": [True, 1]}],
        [{"do": "drop", "rows": [0, 0.5], "experts": [0, 1]}],
        [{"do": "drop", "rows": "01", "experts": [0, 1]}],
    ],
)
def test_anything_else_is_refused(sent: object) -> None:
    with pytest.raises(InputError):
        actions_of(sent, SHAPE)


@pytest.mark.parametrize("data", [None, [], "x", {"ask": "1"}, {"ask": True}])
def test_a_message_without_a_number_has_none(data: object) -> None:
    assert message_of(data)[0] == 0


def test_layers_are_typed_by_their_id() -> None:
    assert typed_stroke("drop", "5..7", "0,2..3", SHAPE) == Stroke("drop", (1, 2), (0, 2, 3))
