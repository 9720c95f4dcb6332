"""What a model may be used for: read from what lies with it, carried on, never guessed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from studio.checkpoints.reference import Reference

UNKNOWN = "unknown, ask the author"

_RANKS: tuple[tuple[str, ...], ...] = (
    ("cc0-1.0", "unlicense", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "apache-2.0", "zlib", "cc-by-4.0"),
    ("mpl-2.0", "lgpl-3.0", "gpl-2.0", "gpl-3.0", "agpl-3.0", "cc-by-sa-4.0"),
    ("openrail", "bigscience-openrail-m", "bigcode-openrail-m", "creativeml-openrail-m"),
    ("gemma", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "deepseek", "other"),
    ("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "cc-by-nd-4.0"),
)
"""The Hub's names of licences, the mildest first: use at will; share alike; conditions on use; terms of their own;
nothing commercial."""
HUB_LICENSES = frozenset(name for names in _RANKS for name in names)


def licenses_of(reference: Reference) -> tuple[str, ...]:
    """The licences that the card, the config or the GGUF header of `reference` names; empty where none does.

    A card that names a licence of its own (`license: other`) gives its `license_name` instead.
    """
    return _found(reference)[0]


def licenses_from(reference: Reference) -> str | None:
    """Where `licenses_of` read them, in words; None where there are none."""
    return _found(reference)[1]


def _found(reference: Reference) -> tuple[tuple[str, ...], str | None]:
    """The licences, and where they were read."""
    if reference.kind == "gguf":
        keys = sorted(key for key in reference.config if key.startswith("general.") and key.endswith("license"))
        named = _named(reference.config[key] for key in keys)
        return named, f"{', '.join(keys)} in the header of {reference.path.name}" if named else None
    card = _card(reference)
    if named := _named([card.get("license_name") or card.get("license")]):
        return named, "the head of its card, README.md"
    named = _named([reference.config.get("license")])
    return named, "its config.json" if named else None


def strictest(licenses: Iterable[str]) -> str:
    """The one of `licenses` that asks most of a person; `UNKNOWN` where there is none.

    One that is not known here is taken for stricter than all that are: its terms have to be read.
    """
    named = list(licenses)
    return max(named, key=_rank) if named else UNKNOWN


def _rank(name: str) -> int:
    known = (rank for rank, names in enumerate(_RANKS) if name.lower() in names)
    return next(known, len(_RANKS))


def _card(reference: Reference) -> Mapping[str, Any]:
    """The front matter of the model's card."""
    from huggingface_hub.repocard import metadata_load

    path = reference.files.get("README.md")
    try:
        return (metadata_load(path) if path else None) or {}
    except (ValueError, UnicodeDecodeError):  # somebody else's card; a wrong one names no licence
        return {}


def _named(values: Iterable[Any]) -> tuple[str, ...]:
    """The texts among `values` and in lists among them, each once."""
    flat = [one for value in values for one in (value if isinstance(value, list | tuple) else [value])]
    return tuple(dict.fromkeys(one.strip() for one in flat if isinstance(one, str) and one.strip()))
