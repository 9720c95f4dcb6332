"""What goes into a repository on the Hub, decided before anything is sent: every file, its size, where it comes from.

A repository holds one format, at its root: so llama.cpp, Ollama and transformers find what they look for, and the
model's relation to its base can be told in one word.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from studio.checkpoints.model_folder import BASE_CARD
from studio.errors import InputError
from studio.evaluate.results import Result
from studio.publish.artifact import Artifact, Format
from studio.publish.card import make_card
from studio.publish.card_head import head_of, head_problem, licence_in
from studio.publish.card_kept import CARD, own_card, pictures_in
from studio.publish.front_matter import is_repository
from studio.publish.manifest import FILE_NAME, FileRecord
from studio.publish.measures import Comparison
from studio.publish.ollama import ollama_model
from studio.publish.verify import inside

WEIGHTS = (".gguf", ".safetensors")
REPLACED = {CARD, BASE_CARD, FILE_NAME}
"""Files of a pruned checkpoint that the repository has of its own: its base's card, and a part of the story."""


@dataclass(frozen=True)
class RepositoryFile:
    """One file: of the artifact, or a text that is made for the repository."""

    name: str
    bytes: int
    source: Path | None = None
    text: str | None = None

    def place(self, folder: Path) -> None:
        """Put it into `folder`: a link to what is on the disk, else the text."""
        target = folder / self.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if self.source is not None:
            target.symlink_to(self.source.resolve())
        else:
            target.write_text(self.text or "", encoding="utf-8", newline="")


@dataclass(frozen=True)
class Upload:
    """All that is sent."""

    repository: str
    private: bool
    files: tuple[RepositoryFile, ...]
    """The weights first: a card never speaks of files that are not there yet."""
    remarks: tuple[str, ...] = ()
    """What whoever sends it should know before: a card without a head, or without a licence."""

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def plan_upload(
    artifact: Artifact,
    repository: str,
    *,
    chosen: Format | None = None,
    public: bool = False,
    measured: Iterable[Comparison] = (),
    base_model: str | None = None,
) -> Upload:
    """What the files of `artifact` in the format `chosen` become in `repository` (OWNER/NAME).

    The card that lies in the artifact is taken as it is where somebody wrote or changed it; else one is made, in which
    the base is called `base_model` (see `make_card`). Raises `InputError` for a name that the Hub does not take, a
    format that was not built, or none where there are two, and a card whose head the Hub cannot read.
    """
    if not is_repository(repository):
        raise InputError(f"{repository!r} cannot be a repository on the Hub.", "Write OWNER/NAME.")
    part = chosen_format(artifact, chosen)
    prefix = f"{part}/"
    told = artifact.manifest
    records = [
        FileRecord(name=record.name.removeprefix(prefix), bytes=record.bytes, sha256=record.sha256)
        for record in told.files
        if record.name.startswith(prefix) and record.name.removeprefix(prefix) not in REPLACED
    ]
    measures = {record.name: _without_answers(inside(artifact.folder, record.name)) for record in told.measures}
    results = [_record(name, text) for name, text in measures.items()]
    manifest = told.model_copy(update={"part": part, "files": tuple(records), "measures": tuple(results)})
    files = [
        RepositoryFile(record.name, record.bytes, source=inside(artifact.folder, prefix + record.name))
        for record in records
    ]
    files += _texts({FILE_NAME: manifest.to_json(), **measures, **_side_files(artifact, part)})
    card, pictures = _card_files(artifact, repository, part, measured, base_model)
    files += [card, *pictures]
    order = sorted(files, key=lambda file: (not file.name.endswith(WEIGHTS), file.name))
    return Upload(repository, not public, tuple(order), card_remarks(card))


def chosen_format(artifact: Artifact, chosen: Format | None) -> Format:
    """`chosen`, or the only one that was built; `InputError` for one that was not, or none where there are two."""
    built = artifact.formats
    if chosen is None and len(built) == 1:
        return built[0]
    if chosen is None:
        raise InputError(
            f"{artifact.name} has {' and '.join(built) or 'no known'} files, and a repository takes one format.",
            "Say which: --format gguf or --format safetensors; the other goes to a repository of its own.",
        )
    if chosen not in built:
        raise InputError(f"{artifact.name} was not built as {chosen}.", f"It has {', '.join(built) or 'nothing'}.")
    return chosen


def _side_files(artifact: Artifact, part: Format) -> dict[str, str]:
    """What Ollama reads beside GGUF files; the same for all tiers."""
    whole = [file for file in artifact.ggufs if len(file.names) == 1]
    return ollama_model(whole[0].path).side_files() if part == "gguf" and whole else {}


def _card_files(
    artifact: Artifact, repository: str, part: Format, measured: Iterable[Comparison], base_model: str | None
) -> tuple[RepositoryFile, list[RepositoryFile]]:
    """The card, and the pictures in it."""
    own = own_card(artifact, part)
    if own is None:
        made = make_card(artifact, repository=repository, formats=[part], measured=measured, base_model=base_model)
        return _texts({CARD: made.text})[0], _texts(made.pictures)
    return RepositoryFile(CARD, own.stat().st_size, source=own), [
        RepositoryFile(path.relative_to(artifact.folder).as_posix(), path.stat().st_size, source=path)
        for path in pictures_in(artifact.folder)
    ]


def card_remarks(card: RepositoryFile) -> tuple[str, ...]:
    """What the Hub would miss in the head of `card`. Raises `InputError` for one that it would not take."""
    text = card.text if card.source is None else card.source.read_bytes().decode("utf-8", errors="replace")
    where = card.source or "The card"
    if not head_of(text or ""):
        return (
            f"{where} has no head: the Hub will not know its licence, its base, or what it is.",
            "The card names no licence: without one, nobody knows what they may do with the model.",
        )
    if problem := head_problem(text or ""):
        raise InputError(f"{where}: {problem}", "The Hub refuses such a card: mend it, or remove it to have one made.")
    if not licence_in(text or ""):
        return ("The card names no licence: without one, nobody knows what they may do with the model.",)
    return ()


def _without_answers(path: Path) -> str:
    """A result as it may leave: questions and answers of a benchmark stay here, and where files lie on this machine."""
    told = Result.read(path)
    models = {
        name: record.model_copy(update={"path": record.name})
        for name, record in (("model", told.model), ("reference", told.reference))
        if record is not None
    }
    public = told.model_copy(update={**models, "answers": (), "details": {}})
    return json.dumps(public.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"


def _record(name: str, text: str) -> FileRecord:
    content = text.encode()
    return FileRecord(name=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _texts(texts: dict[str, str]) -> list[RepositoryFile]:
    return [RepositoryFile(name, len(text.encode()), text=text) for name, text in texts.items()]
