r"""Which letter an answer to a multiple-choice question settles on, in the many ways models say it.

What counts is what is said last of: `the answer is (C)`, `Answer: C`, `\boxed{C}`, `C is correct`, `I choose C`. Where
nothing of that is said, a last line that is nothing but a letter counts (`C`, `(C)`, `Hence C.`), or an option word for
word, with its letter or without. A letter elsewhere does not: "A" is an article, and "I" a person.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from string import ascii_uppercase

from studio.evaluate.tasks.matching import normalise

_LONGEST = 100_000
"""Characters, from the end, that are looked at."""

# Text is made plain first: no marks of emphasis, no brackets, no LaTeX, one blank between words. No pattern below has
# to look for any of that, and none repeats what itself repeats.
_IN_BRACKETS = re.compile(r"[(\[{]([a-z])[)\]}]")
_COMMAND = re.compile(r"\\(?:text|math)(?:bf|rm|it|sf)?\b|\\[()\[\]]|</?[a-z]{1,20}>")
_MARKS = re.compile(r"[*_`$\"“”‘#(){}\[\]\\]|(?<![A-Za-z])['’]|['’](?![A-Za-z])")

_LETTER = r"(?P<letter>[A-Z])(?![A-Za-z0-9'’])"
_HEDGE = (
    r"(?:(?i:most|more|likely|probably|clearly|therefore|thus|indeed|definitely|option|choice|letter)[ :,]{1,2}){0,4}"
)
_NOUN = r"\b(?i:answers?|options?|choices?|solution|conclusion|response)"
_IS = r"(?: ?[:=→⇒]| -| (?i:is|are|would be|should be|must be|will be|has to be|remains)\b)[ :]{0,3}"

_SAID = (
    # "the correct answer is C", "Answer: C", "the answer to the question is therefore option C"
    re.compile(rf"{_NOUN}(?: (?i:to|for) [^.:]{{1,60}}?)?{_IS}{_HEDGE}{_LETTER}"),
    # "C is the correct answer", "option C is right"
    re.compile(
        rf"(?<![A-Za-z0-9]){_LETTER}[.,]? (?i:is|would be|must be|seems) (?i:(?:therefore|thus|clearly|indeed) )?"
        r"(?i:(?:the )?(?:only |most likely |best )?(?:correct|right|best|true|answer))\b"
    ),
    # "I choose C", "we pick option C", "go with C"
    re.compile(rf"\b(?i:choose|chose|pick|select|go with|go for) {_HEDGE}{_LETTER}"),
    re.compile(rf"\b(?:boxed|fbox) {_HEDGE}{_LETTER}"),
)
_ALTERNATIVE = re.compile(r"[ ,.]*(?:(?i:or|and|nor)\b|/|&) ?(?i:(?:option|choice) )?[A-Z](?![A-Za-z0-9])")
_SOMEBODY = re.compile(r" (?:am|was|think|believe|do|don|can|could|would|will|have|had|need|know|guess|see|get|find)\b")
_DENIED = re.compile(r"(?i:\b(?:not|never|neither)|n['’]t) (?:\w+ ){0,2}$")
_ALONE = re.compile(
    r"(?i:(?:hence|therefore|thus|so)[ ,:]{1,2})?(?i:(?:option|choice|answer) )?(?P<letter>[A-Za-z])[ .,:;!]*"
)
_LETTERED = re.compile(r"(?P<letter>[A-Z])[ .:)]{1,3}(?P<option>.+)")


def letter_of(text: str, options: Sequence[str]) -> str | None:
    """The letter that `text`, an answer without its thought, settles on; None where it settles on none."""
    text = text[-_LONGEST:]
    letters = ascii_uppercase[: len(options)]
    said = max(_said(" ".join(_plain(text).split()), letters), default=None)
    if said is not None:
        return said[1]
    lines = [(line.strip(), " ".join(_plain(line).split())) for line in text.splitlines() if line.strip()]
    for _, line in lines[-1:] + lines[:1]:
        if (alone := _ALONE.fullmatch(line)) and alone["letter"].upper() in letters:
            return alone["letter"].upper()
    return _option_repeated(lines, options)


def _plain(text: str) -> str:
    text = _IN_BRACKETS.sub(lambda match: f" {match[1].upper()} ", text)
    return _MARKS.sub(" ", _COMMAND.sub(" ", text))


def _said(text: str, letters: str) -> Iterator[tuple[int, str]]:
    """(where, letter) of everything in `text` that settles on a letter."""
    for pattern in _SAID:
        for match in pattern.finditer(text):
            letter = match["letter"]
            end = match.end("letter")
            somebody = letter == "I" and _SOMEBODY.match(text, end)
            denied = _DENIED.search(text[max(0, match.start() - 40) : match.start()])
            if letter in letters and not somebody and not denied and not _ALTERNATIVE.match(text, match.end()):
                yield end, letter


def _option_repeated(lines: Sequence[tuple[str, str]], options: Sequence[str]) -> str | None:
    """The letter of the one option that the whole answer, or its last line, is; with its letter before it or without.

    A single line that begins with a letter and a bracket or a full stop means that letter, whatever follows.
    """
    if not lines:
        return None
    known = list(zip(ascii_uppercase, map(normalise, options), strict=False))
    wanted = {normalise(lines[-1][0]), normalise(lines[-1][1]), normalise(" ".join(line for line, _ in lines))}
    found = [letter for letter, option in known if option in wanted]
    if len(found) == 1:
        return found[0]
    if match := _LETTERED.fullmatch(lines[-1][1]):
        same_option = (match["letter"], normalise(match["option"])) in known
        marked = len(lines) == 1 and re.match(r"[\s*_`(\[]*[A-Z][*_`]*[).:\]]", lines[0][0])
        if same_option or (marked and match["letter"] in dict(known)):
            return match["letter"]
    return None
