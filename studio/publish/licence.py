"""What a model may be used for: read from what lies with it, carried on, never guessed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.checkpoints.model_folder import BASE_CARD, CARD
from studio.checkpoints.reference import Reference

UNKNOWN = "unknown, ask the author"
NOBODY_NAMES_ONE = "Neither its card nor its files name one."
NOT_BY_NAME = "a licence whose name its card does not tell"
"""Where only its terms lie beside it."""
CARDS = (CARD, BASE_CARD)
"""Where a model names its licence; a pruned one has none of its own, and its base's beside it."""

_RANKS: tuple[tuple[str, ...], ...] = (
    (
        *("cc0-1.0", "unlicense", "wtfpl", "pddl", "mit", "isc", "zlib", "ncsa", "postgresql", "bsl-1.0"),
        *("bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "apache-2.0", "afl-3.0", "ecl-2.0"),
        *("artistic-2.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cdla-permissive-1.0"),
        *("cdla-permissive-2.0", "etalab-2.0", "odc-by", "openmdw-1.0"),
    ),
    (
        *("mpl-2.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "gpl", "gpl-2.0", "gpl-3.0", "agpl-3.0", "epl-1.0"),
        *("epl-2.0", "eupl-1.1", "eupl-1.2", "osl-3.0", "ms-pl", "gfdl", "lppl-1.3c", "ofl-1.1", "odbl"),
        *("cdla-sharing-1.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
    ),
    (
        *("openrail", "openrail++", "bigscience-openrail-m", "bigscience-bloom-rail-1.0", "bigcode-openrail-m"),
        "creativeml-openrail-m",
    ),
    (
        *("gemma", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "grok2-community"),
        *("apple-ascl", "c-uda", "cc", "other"),
    ),
    (
        *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
        *("cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nd-4.0", "apple-amlr", "deepfloyd-if-license"),
        *("fair-noncommercial-research-license", "h-research", "intel-research"),
    ),
)
"""The Hub's names of licences, the mildest first: use at will; share alike; conditions on use; terms of their own;
nothing commercial, or nothing changed."""
HUB_LICENSES = frozenset(name for names in _RANKS for name in names)
OTHER = "other"
_NAMELESS = {"unknown", "none", ""}
"""What some write where they know no licence."""

_LEGAL = re.compile(r"((un)?licen[cs]es?|notices?|copying|copyright|use[_-]policy)([._-].*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Licences:
    """What the files of a model say of its licence."""

    names: tuple[str, ...] = ()
    """As the Hub writes them, where it knows them."""
    places: str | None = None
    """Where they were read, in words; None where there are none."""
    link: str | None = None
    """Where the terms are, as the card or the header tells: an address, or the name of a file of the model."""


def is_legal(name: str) -> bool:
    """Whether a file of a model called `name` holds its terms, or a notice that has to go along with it."""
    return _LEGAL.fullmatch(name) is not None and not name.lower().endswith(".py")


def legal_files(reference: Reference) -> dict[str, Path]:
    """Name → file of the terms and notices of `reference`; a GGUF has some where it lies as the Hub's cache has it."""
    found: Mapping[str, Path] = reference.files
    if reference.kind == "gguf" and reference.revision is not None:
        found = {path.name: path for path in sorted(reference.path.parent.iterdir()) if path.is_file()}
    return {name: path for name, path in found.items() if is_legal(name)}


def legal_names(files: Iterable[str], formats: Sequence[str]) -> tuple[str, ...]:
    """Those with terms and notices among the `files` of an artifact, as far as all of `formats` have them."""
    names = set(files)
    found = [name.partition("/")[2] for name in sorted(names) if is_legal(name.partition("/")[2])]
    return tuple(name for name in dict.fromkeys(found) if all(f"{part}/{name}" in names for part in formats))


def licences_of(reference: Reference) -> Licences:
    """The licences that the card, the config or the GGUF header of `reference` names, all of them.

    A licence of its own (`license: other`) has its own name. No text of a licence is read: what it is called there
    would be guessed.
    """
    links: list[str | None] = []
    named: dict[str, tuple[str, ...]] = {}
    if reference.kind == "gguf":
        for key in sorted(key for key in reference.config if key.startswith("general.") and key.endswith("license")):
            found, link = _named(reference.config, key, f"{key}.name", f"{key}.link")
            named[f"{key} in the header of {reference.path.name}"] = found
            links.append(link)
    else:
        for place in CARDS:
            found, link = _named(_head(reference.files.get(place)), "license", "license_name", "license_link")
            named.setdefault(f"the head of its card, {place}", found)
            links.append(link)
            if found:  # the nearest card counts
                break
        named["its config.json"] = _named(reference.config, "license", "license_name", "license_link")[0]
    told = {place: names for place, names in named.items() if names}
    names = tuple(dict.fromkeys(name for found in told.values() for name in found))
    if len(names) > 1:
        places = "; ".join(f"{place} ({', '.join(found)})" for place, found in told.items())
    else:
        places = next(iter(told), "")
    return Licences(names, places or None, next((link for link in links if link), None))


def strictest(licenses: Iterable[str]) -> str:
    """The one of `licenses` that asks most of a person; `UNKNOWN` where there is none.

    One that is not known here is taken for stricter than all that are: its terms have to be read.
    """
    named = list(licenses)
    return max(named, key=_rank) if named else UNKNOWN


def _rank(name: str) -> int:
    known = (rank for rank, names in enumerate(_RANKS) if name.lower() in names)
    return next(known, len(_RANKS))


def is_clear(licenses: Iterable[str]) -> bool:
    """Whether one of `licenses` is known to ask more than all the others."""
    ranks = sorted(map(_rank, licenses))
    return len(ranks) < 2 or ranks[-1] > ranks[-2]


def _head(card: Path | None) -> Mapping[str, Any]:
    """The front matter of a model's card."""
    from huggingface_hub.repocard import metadata_load

    try:
        return (metadata_load(card) if card else None) or {}
    except (ValueError, UnicodeDecodeError):  # somebody else's card; a wrong one names no licence
        return {}


def _named(fields: Mapping[str, Any], key: str, name_key: str, link_key: str) -> tuple[tuple[str, ...], str | None]:
    """The licences in `fields`, each once, and the link to their terms."""
    value, own, link = fields.get(key), fields.get(name_key), fields.get(link_key)
    flat = [*(value if isinstance(value, list | tuple) else [value]), own]
    found = [_as_the_hub_writes(one) for one in flat if isinstance(one, str)]
    names = [name for name in dict.fromkeys(found) if name.lower() not in _NAMELESS]
    if isinstance(own, str) and own.strip():
        names = [name for name in names if name != OTHER]
    return tuple(names), link.strip() if isinstance(link, str) and link.strip() else None


def _as_the_hub_writes(name: str) -> str:
    name = " ".join(name.split())
    return name.lower() if name.lower() in HUB_LICENSES else name
