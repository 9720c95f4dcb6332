"""The head of a card, from which the Hub reads what a repository holds: what it says, and what a person adds to it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

import yaml  # type: ignore[import-untyped]

from studio.errors import InputError
from studio.publish.escape import plain
from studio.publish.front_matter import base_fields
from studio.publish.licence import HUB_LICENSES, NOBODY_NAMES_ONE, NOT_BY_NAME, UNKNOWN

_HEAD = re.compile(r"\A---\r?\n(.*?)\r?\n---\r?(?:\n|\Z)", re.DOTALL)
_LICENCE_KEYS = ("license", "license_name", "license_link")
_BASE_KEYS = ("base_model", "base_model_relation")


def head_of(text: str) -> str:
    """The YAML between two lines of dashes at the beginning of a card; empty where there is none."""
    found = _HEAD.match(text)
    return found[1] if found else ""


def licence_in(text: str) -> str:
    """The licence that the head of a card names; empty where none does, or the head cannot be read."""
    fields = _fields(text)
    return str(fields.get("license_name") or fields.get("license") or "")


def base_in(text: str) -> str:
    """The first base model that the head of a card names; empty where none does, or the head cannot be read."""
    named = _fields(text).get("base_model") or ""
    return str(named[0]) if isinstance(named, list) else str(named)


def _fields(text: str) -> dict[str, Any]:
    with suppress(yaml.YAMLError, ValueError):  # the latter for a date that is none
        found = yaml.safe_load(head_of(text))
        return found if isinstance(found, dict) else {}
    return {}


def head_problem(text: str) -> str:
    """Why the Hub would not take the head of a card, in a sentence; empty where it would."""
    head = head_of(text)
    if not head:
        return "The card does not begin with the block between two lines of dashes from which the Hub reads what it is."
    try:
        fields = yaml.safe_load(head)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 2}" if mark else ""
        return f"The block at the head of the card is not YAML{line}: {getattr(error, 'problem', None) or error}."
    if not isinstance(fields, dict):
        return "The block at the head of the card has no `name: value` lines."
    return ""


def with_licence(text: str, name: str) -> str:
    """`text` with the licence `name` in its head, and in the sentence that said it was unknown.

    Raises `InputError` for a head that cannot be read, or a name that is none.
    """
    name = " ".join(name.split())
    if not name or len(name) > 100:
        raise InputError("No licence was named.", "Choose one of the Hub's names, or write its own.")
    known = name.lower() in HUB_LICENSES
    told = {"license": name.lower()} if known else {"license": "other", "license_name": name}
    head, body = _parted(text, _LICENCE_KEYS, told)
    said = f"{plain(name)}, as whoever published this model says."
    body = body.replace(f"{UNKNOWN}. {NOBODY_NAMES_ONE}", f"{said} {NOBODY_NAMES_ONE}").replace(f"{NOT_BY_NAME}.", said)
    return head + body


def with_base(text: str, name: str, formats: Collection[str]) -> str:
    """`text` with the base model `name`, OWNER/NAME on the Hub, in its head; `formats` are those of its files.

    Raises `InputError` for a head that cannot be read, or a name that the Hub would not take.
    """
    return "".join(_parted(text, _BASE_KEYS, base_fields(name.strip(), formats)))


def _parted(text: str, without: Collection[str], told: Mapping[str, Any]) -> tuple[str, str]:
    """(the head of `text` without the fields `without` and with those of `told`, the rest).

    Lines stay as they were written. Raises `InputError` for a head that cannot be read, or whose fields cannot be told
    apart by their lines.
    """
    if problem := head_problem(text):
        raise InputError(problem, "Mend it first.")
    lines, goes = [], False
    for line in head_of(text).splitlines():
        if line.strip() and not line.startswith((" ", "-", "#")):  # else it goes on with the field above
            goes = line.partition(":")[0].strip().strip("\"'") in without
        lines += [] if goes else [line]
    lines += yaml.safe_dump(dict(told), sort_keys=False, allow_unicode=True).splitlines()
    wanted = {**{key: value for key, value in _fields(text).items() if key not in without}, **told}
    head = "---\n" + "\n".join(lines) + "\n---\n"
    if _fields(head) != wanted:
        raise InputError(
            "The head of this card is written in a way that cannot be changed line by line.",
            f"Write it there yourself: {'; '.join(f'{key}: {value}' for key, value in told.items())}.",
        )
    body = text[_HEAD.match(text).end() :]  # type: ignore[union-attr]
    return head, body
