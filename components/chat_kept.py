"""What the chat finds again after a reload, beside the conversation: its settings, and which experts fired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.chat_parts import ChatSources, ChatStation, Updates, Values
from components.chat_settings import sampling_values
from studio.families import Family

SETTINGS, ROUTING = "chat-settings", "routing"


def kept_value(sources: ChatSources, kind: str, states: Sequence[Any]) -> Any:
    """What was kept under `kind` for whoever these states belong to; None for nothing."""
    shelf = sources.values(kind)
    return shelf.read(*sources.owner(*states)) if shelf else None


def keep_value(sources: ChatSources, kind: str, states: Sequence[Any], value: Any) -> None:
    """Remember a value that JSON can say."""
    if shelf := sources.values(kind):
        shelf.write(*sources.owner(*states), value)


def settings_again(station: ChatStation, kept: Any, values: Values, family: Family | None) -> Updates:
    """The settings as they were, as far as they are of the same kind as those of `values`."""
    if not isinstance(kept, Mapping):
        return {}
    numbers = (int, float)
    found: Updates = {}
    for name, part in station.kept.items():
        value, now = kept.get(name), values[part]
        same = (isinstance(value, numbers) and isinstance(now, numbers)) or type(value) is type(now)
        if same and isinstance(value, bool) == isinstance(now, bool):
            found[part] = value
    settings = station.settings
    chosen = {**values, **found}
    official = sampling_values(chosen[settings.how], family, bool(chosen[settings.thinking]))
    return {**found, **{getattr(settings, name): value for name, value in official.items()}}
