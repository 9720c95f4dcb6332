"""`Task`: the questions of a file, read and checked line by line, and stratified subsets of them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from studio.errors import FormatError, InputError
from studio.evaluate.tasks.question import FIELDS, Question, WrongField, entry_of, question_of
from studio.staging import staged

PER_CATEGORY, SEED = 20, 42
"""Of each category, unless somebody asks for more: 20 × 14 questions of MMLU-Pro take a person's patience already."""

_LINE_BYTES = 16 << 20
_REMEDY = 'A line looks like {"category": "law", "question": "Who …?", "options": ["…", "…"], "answer": "B"}.'


@dataclass(frozen=True)
class Task:
    """Questions, and where they come from."""

    name: str
    file: str
    sha256: str
    """Of the file."""
    questions: tuple[Question, ...]
    per_category: int | None = None
    """The most questions of each category, None where it is all of them."""
    seed: int | None = None

    @property
    def categories(self) -> dict[str, int]:
        """Category → questions, in the order of the file."""
        return dict(Counter(question.category for question in self.questions))

    def subset(self, per_category: int | None, seed: int = SEED) -> Task:
        """At most `per_category` questions of each category, in the order of the file; None takes all.

        Each category's are those whose ids, hashed with the seed, come first. So a subset does not change when the file
        is sorted anew, and a smaller one is part of every larger one of the same seed. Raises `InputError` for none.
        """
        if per_category is None:
            return self
        if per_category < 1:
            raise InputError(f"{per_category} questions per category are none.", "Ask for at least 1.")
        places: dict[str, list[tuple[bytes, str]]] = {}
        for question in self.questions:
            rank = hashlib.sha256(f"{seed} {question.id}".encode()).digest()
            places.setdefault(question.category, []).append((rank, question.id))
        chosen = {identity for ranked in places.values() for _, identity in sorted(ranked)[:per_category]}
        kept = tuple(question for question in self.questions if question.id in chosen)
        return replace(self, questions=kept, per_category=per_category, seed=seed)


def read_task(path: Path) -> Task:
    """Read a file of JSON lines; blank lines are passed over.

    Raises `InputError` when there is no such file, `FormatError` with line and field for a broken line.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no task file {path}.", "Name a file of JSON lines.")
    questions: list[Question] = []
    line_of_id: dict[str, int] = {}
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LINE_BYTES + 1), b""), start=1):
            if len(line) > _LINE_BYTES:
                raise FormatError(path, f"line {number}", f"it is longer than {_LINE_BYTES >> 20} MiB", _REMEDY)
            digest.update(line)
            text = line.removeprefix(b"\xef\xbb\xbf").strip()
            if not text:
                continue
            question = _question(path, text, number)
            if question.id in line_of_id:
                same = f'"id" {question.id!r} is that of line {line_of_id[question.id]} too'
                raise FormatError(path, f"line {number}", same, "Every question needs its own.")
            line_of_id[question.id] = number
            questions.append(question)
    if not questions:
        raise FormatError(path, "", "there is not one question in it", _REMEDY)
    return Task(path.stem, path.name, digest.hexdigest(), tuple(questions))


def write_task(path: Path, questions: Iterable[Question], *, overwrite: bool = False) -> int:
    """Write `questions` as JSON lines: how many they were. Raises `OutputExistsError`."""
    count = 0
    with staged(path, overwrite=overwrite) as partial, partial.open("w", encoding="utf-8") as file:
        for question in questions:
            file.write(json.dumps(entry_of(question), ensure_ascii=False) + "\n")
            count += 1
    return count


def _question(path: Path, line: bytes, number: int) -> Question:
    try:
        return question_of(json.loads(line), number)
    except WrongField as error:
        known = f"The fields are {', '.join(FIELDS)}."
        raise FormatError(path, f"line {number}", str(error), f"{_REMEDY} {known}") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(path, f"line {number}", f"this is not JSON ({error})", _REMEDY) from error
