"""Numbers as a person types them: `1,2,250..255`, or `all`."""

from __future__ import annotations

import re
from collections.abc import Collection

from studio.errors import InputError

ALL = "all"
_NUMBER = re.compile(r"[0-9]{1,6}")


def parse_ids(text: str, known: Collection[int], noun: str) -> tuple[int, ...]:
    """The ids that `text` names, ascending and each once: numbers and ranges (both ends count), separated by commas.

    `known` are the ids that there are, and `noun` is what messages call one of them ("layer", "expert"). A range may
    reach over ids that are not known, but not begin or end there. Raises `InputError` for anything else.
    """
    example = f"Write {noun}s like 1,2,5..8, or {ALL}."
    said = text.strip().lower()
    if not said:
        raise InputError(f"No {noun} is named.", example)
    if said == ALL:
        return tuple(sorted(known))
    chosen: set[int] = set()
    for part in (piece.strip() for piece in said.split(",")):
        if not part:
            raise InputError(f"Between two commas of {text.strip()!r} there is no {noun}.", example)
        first, dots, last = (end.strip() for end in part.partition(".."))
        low, high = _known(first, known, noun, example), _known(last if dots else first, known, noun, example)
        if low > high:
            raise InputError(f"The range {part} runs backwards.", f"Write {high}..{low}.")
        chosen.update(number for number in known if low <= number <= high)
    return tuple(sorted(chosen))


def _known(text: str, known: Collection[int], noun: str, example: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise InputError(f"{text!r} is no {noun}'s number." if text else f"A range of {noun}s lacks an end.", example)
    if (number := int(text)) not in known:
        raise InputError(f"There is no {noun} {number}.", f"They go from {min(known)} to {max(known)}.")
    return number
