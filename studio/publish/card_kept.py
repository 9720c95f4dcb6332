"""The card of an artifact as it will leave: what somebody made of it, kept with the artifact, else what is generated.

A text of one's own lies in the artifact as `README.md`, with the pictures that it shows; where safetensors and GGUF go
to repositories of their own, each has one (`README-gguf.md`). Generating again sets such a text aside, and it can be
brought back.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from studio.errors import InputError, MismatchError
from studio.publish.artifact import Artifact
from studio.publish.card import PICTURES, Format, make_card
from studio.publish.escape import plain
from studio.publish.licence import HUB_LICENSES, UNKNOWN
from studio.publish.measures import Comparison
from studio.staging import staged

CARD = "README.md"
LONGEST_CARD = 200_000
"""Characters; a generated card has some ten thousand."""
PICTURE_KINDS = (".svg", ".png")

_HEAD = re.compile(r"\A---\r?\n(.*?)\r?\n---\r?(?:\n|\Z)", re.DOTALL)
_LICENCE_KEYS = ("license", "license_name", "license_link")


@dataclass(frozen=True)
class CardText:
    """A card and whose it is."""

    text: str
    pictures: dict[str, bytes]
    """Name in the text → contents, SVG or PNG."""
    is_own: bool
    """Whether somebody wrote it; else it is generated, anew whenever it is looked at."""
    has_former: bool
    """Whether a text that generating replaced can be brought back."""

    @property
    def digest(self) -> str:
        """Tells whether the card is still the one that somebody saw."""
        return text_digest(self.text)


def text_digest(text: str) -> str:
    """What `CardText.digest` is of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def card_path(artifact: Artifact, part: Format | None) -> Path:
    """Where the text of somebody's own lies for the files in the format `part`."""
    both = artifact.manifest.build is not None and len(artifact.manifest.build.outputs) > 1
    return artifact.folder / (f"README-{part}.md" if both and part else CARD)


def own_card(artifact: Artifact, part: Format | None) -> Path | None:
    """Where such a text lies now: one for this format, else one for all; None where nobody wrote any."""
    places = (card_path(artifact, part), artifact.folder / CARD)
    return next((path for path in places if path.is_file()), None)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures beside the card in `folder`."""
    found = folder / PICTURES
    return sorted(path for path in found.glob("*") if path.suffix in PICTURE_KINDS and path.is_file())


def read_card(
    artifact: Artifact,
    part: Format | None = None,
    *,
    repository: str | None = None,
    measured: Iterable[Comparison] = (),
) -> CardText:
    """The card as it is now; for the rest see `make_card`. Raises `InputError` for a text that is none."""
    path = own_card(artifact, part)
    former = _former(artifact, part).is_file()
    if path is not None:
        try:
            text = path.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read: {error}.", "Mend it, or remove it.") from error
        shown = {f"{PICTURES}/{one.name}": one.read_bytes() for one in pictures_in(artifact.folder)}
        return CardText(text, shown, is_own=True, has_former=former)
    made = make_card(artifact, repository=repository, formats=[part] if part else None, measured=measured)
    return CardText(made.text, {name: one.encode() for name, one in made.pictures.items()}, False, former)


def keep_card(
    artifact: Artifact, part: Format | None, text: str, seen: str, measured: Iterable[Comparison] = ()
) -> CardText:
    """Keep `text` with the artifact; `seen` is the digest of the card that its writer changed.

    The pictures of a generated card are written when somebody first changes it, so that text and pictures tell the
    same. Raises `InputError` for a text that is too long, `MismatchError` where another text is there by now.
    """
    if len(text) > LONGEST_CARD:
        raise InputError(f"The card has {len(text):,} characters, and {LONGEST_CARD:,} are the most.", "Shorten it.")
    now = own_card(artifact, part)
    if now is None:
        for name, picture in make_card(artifact, measured=measured).pictures.items():
            with staged(artifact.folder / name, overwrite=True) as partial:
                partial.write_text(picture, encoding="utf-8")
    elif text_digest(now.read_bytes().decode("utf-8", errors="replace")) != seen:
        raise MismatchError(
            f"{now.name} was changed elsewhere, in another tab or by hand.",
            "Copy what you wrote, then choose the artifact again to see what is there.",
        )
    with staged(card_path(artifact, part), overwrite=True) as partial:
        partial.write_bytes(text.encode())
    return read_card(artifact, part)


def set_card_aside(artifact: Artifact, part: Format | None) -> None:
    """From now on the card is generated; `bring_card_back` undoes it."""
    path = own_card(artifact, part)
    if path is not None:
        path.replace(_former(artifact, part))


def bring_card_back(artifact: Artifact, part: Format | None) -> None:
    """The text that was set aside is the card again; one that was written meanwhile is set aside in turn."""
    former, place = _former(artifact, part), card_path(artifact, part)
    if not former.is_file():
        raise InputError("There is no text of the card that was set aside.")
    text = former.read_bytes()
    if place.is_file():
        place.replace(former)
    else:
        former.unlink()
    with staged(place, overwrite=True) as partial:
        partial.write_bytes(text)


def _former(artifact: Artifact, part: Format | None) -> Path:
    path = card_path(artifact, part)
    return path.with_name(f"{path.stem}.before.md")


def head_of(text: str) -> str:
    """The YAML between two lines of dashes at the beginning of a card; empty where there is none."""
    found = _HEAD.match(text)
    return found[1] if found else ""


def licence_in(text: str) -> str:
    """The licence that the head of a card names; empty where none does, or the head cannot be read."""
    with suppress(yaml.YAMLError, AttributeError):
        fields = yaml.safe_load(head_of(text)) or {}
        return str(fields.get("license_name") or fields.get("license") or "")
    return ""


def head_problem(text: str) -> str:
    """Why the Hub would not take the head of a card, in a sentence; empty where it would."""
    head = head_of(text)
    if not head:
        return "The card does not begin with the block between two lines of dashes from which the Hub reads what it is."
    try:
        fields = yaml.safe_load(head)
    except yaml.YAMLError as error:
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
    if problem := head_problem(text):
        raise InputError(problem, "Mend it first.")
    head = head_of(text)
    kept = [line for line in head.splitlines() if line.partition(":")[0] not in _LICENCE_KEYS]
    known = name.lower() in HUB_LICENSES
    told = {"license": name.lower()} if known else {"license": "other", "license_name": name}
    lines = [*kept, *yaml.safe_dump(told, sort_keys=False, allow_unicode=True).splitlines()]
    body = text[_HEAD.match(text).end() :]  # type: ignore[union-attr]
    said = f"{plain(name)}, as whoever published this model says. Neither the base's card nor its files name one."
    body = body.replace(f"{UNKNOWN}. Neither its card nor its files name one.", said)
    return "---\n" + "\n".join(lines) + "\n---\n" + body
