r"""Whether a final answer is an accepted one: what the answer is, and what of its writing does not count.

The final answer is what stands in the last `\boxed{…}`, else after the last `the answer is`, `Answer:` or `####`, else
the last line. Case, blanks, marks of emphasis, quotation marks and the last full stop do not count, and numbers are
equal when their values are: 1,000 and 1000.0, $5 and 5. A box that is never closed is none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

_STATED = re.compile(
    r"(?:\banswers?(?: (?:to|for) [^.\n:]{1,60}?)?(?:[ *_]{0,4}[:=]| (?:is|are|would be|should be|must be)\b)|^####)"
    r"[:\s*_]{0,20}(?P<said>\S[^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_WRAPPED = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_NUMBER = re.compile(r"(?<![\w.])[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w]|\.\d)")
_SENTENCE_END = re.compile(r"(?<=[^\d\s])\.\s+(?=[A-Z])|(?<=\d)\.\s+(?=[A-Z])")
_LONGEST = 100_000
"""Characters, from the end, that are looked at."""
_EDGES = " \t\n\"'“”‘’«»`*_$.!"


@dataclass(frozen=True)
class Match:
    """What a text answers, and whether that is accepted."""

    given: str | None
    """None where the text is empty."""
    right: bool


def matched(text: str, accepted: Sequence[str]) -> Match:
    """Compare the final answer in `text`, an answer without its thought, with all that are `accepted`."""
    whole = text[-_LONGEST:].strip()
    if not whole:
        return Match(None, False)
    given = final_answer(whole)
    right = any(same(one, candidate) for one in accepted for candidate in (given, whole))
    return Match(given, right)


def final_answer(text: str) -> str:
    """What `text` gives as its answer; see above."""
    starts = [match.end() for match in _BOX.finditer(text)]
    if starts and (box := _braced(text, starts[-1])) is not None:
        return box.strip()
    stated = [match["said"] for match in _STATED.finditer(text)]
    if stated:
        return _SENTENCE_END.split(stated[-1], maxsplit=1)[0].strip(_EDGES)
    return text.strip().splitlines()[-1].strip(_EDGES)


def same(accepted: str, given: str) -> bool:
    """Whether two answers are the same but for their writing."""
    if normalise(accepted) == normalise(given):
        return True
    number = number_of(accepted)
    return number is not None and number == _only_number(given)


def normalise(text: str) -> str:
    """`text` without what does not count."""
    text = _WRAPPED.sub(r"\1", unicodedata.normalize("NFKC", text)).replace("\\$", "$").replace("\\%", "%")
    return " ".join(text.casefold().replace("−", "-").strip(_EDGES).split()).strip(_EDGES)


def number_of(text: str) -> Decimal | None:
    """The number that `text` is, with a currency sign in front or not; None where it is something else."""
    bare = normalise(text).lstrip("$€£ ").rstrip(" €£")
    return _decimal(bare) if _NUMBER.fullmatch(bare) else None


def _only_number(text: str) -> Decimal | None:
    """The one number in `text`, of an equation the one after its last sign: `x = 5 apples` is 5."""
    found = _NUMBER.findall(normalise(text).rpartition("=")[2].lstrip("$€£ ").replace("$", " "))
    return _decimal(found[0]) if len(found) == 1 else None


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text.replace(",", "").replace("−", "-"))
    except InvalidOperation:
        return None


def _braced(text: str, start: int) -> str | None:
    """What stands up to the brace that closes the one before `start`; None where none does."""
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if not depth:
            return text[start:position]
    return None
