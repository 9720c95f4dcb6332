"""Telling a model's thought from its answer while both are streaming, by the marks of its chat template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Marks:
    """What stands around a thought, and what else is no part of the answer."""

    open: str
    close: str
    hidden: tuple[str, ...] = ()


KNOWN = (
    Marks("<|channel>thought\n", "<channel|>"),  # Gemma 4
    Marks("<think>", "</think>"),  # Qwen3, DeepSeek, GLM, MiniMax
    Marks(
        "<|channel|>analysis<|message|>", "<|end|>", ("<|start|>assistant", "<|channel|>final<|message|>")
    ),  # gpt-oss
)


def marks_of(chat_template: str) -> Marks | None:
    """The marks that a template writes itself, None for a family that does not think or marks it otherwise."""
    return next((marks for marks in KNOWN if marks.close in chat_template and marks.open[:7] in chat_template), None)


class Splitter:
    """Cuts an answer into (text, thought) as it comes; `prompt` is what the model was given, up to its turn.

    What may be the beginning of a mark is held back until it is known. White space around a thought is no part of it.
    """

    def __init__(self, marks: Marks | None, prompt: str = "") -> None:
        self._marks = marks
        self.thinking = marks is not None and prompt.rfind(marks.open) > prompt.rfind(marks.close)
        self._held = ""
        self._fresh = True

    def feed(self, piece: str) -> tuple[str, str]:
        """What `piece` adds to the text and to the thought."""
        if self._marks is None:
            return piece, ""
        self._held += piece
        text, thought = "", ""
        while found := self._next_mark():
            place, mark = found
            text, thought = self._add(
                text, thought, self._held[:place].rstrip() if self.thinking else self._held[:place]
            )
            self._held = self._held[place + len(mark) :]
            if mark == self._marks.open:
                self.thinking = self._fresh = True
            elif mark == self._marks.close and self.thinking:
                self.thinking, self._fresh = False, True
        keep = self._unsure()
        ready, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return self._add(text, thought, ready)

    def flush(self) -> tuple[str, str]:
        """What was held back, at the end."""
        rest, self._held = self._held, ""
        return self._add("", "", rest)

    def _add(self, text: str, thought: str, piece: str) -> tuple[str, str]:
        if self._fresh:  # nothing of this part yet
            piece = piece.lstrip() if self._marks else piece
            self._fresh = not piece
        return (text, thought + piece) if self.thinking else (text + piece, thought)

    def _all_marks(self) -> tuple[str, ...]:
        assert self._marks is not None
        return (self._marks.open, self._marks.close, *self._marks.hidden)

    def _next_mark(self) -> tuple[int, str] | None:
        """(place, mark) of the first one in what is held."""
        places = [(place, mark) for mark in self._all_marks() if (place := self._held.find(mark)) >= 0]
        return min(places, default=None)

    def _unsure(self) -> int:
        """How many characters at the end may be the beginning of a mark, or white space before one."""
        longest = 0
        for mark in self._all_marks():
            for length in range(1, min(len(mark), len(self._held) + 1)):
                if self._held.endswith(mark[:length]):
                    longest = max(longest, length)
        if self.thinking:
            before = self._held[: len(self._held) - longest]
            longest += len(before) - len(before.rstrip())
        return longest


class Detokenizer:
    """Tokens to text as they come: a character of several tokens is given when it is complete."""

    def __init__(self, tokenizer: Any, marks: Marks | None) -> None:
        self._tokenizer = tokenizer
        shown = "" if marks is None else "".join((marks.open, marks.close, *marks.hidden))
        ids, names = tokenizer.all_special_ids, tokenizer.all_special_tokens
        self._silent = {number for number, name in zip(ids, names, strict=False) if not marks or name not in shown}
        self._tokens: list[int] = []
        self._start = self._read = 0

    def feed(self, token: int) -> str:
        """The text that `token` adds; special tokens add none, but for those of marks."""
        if token in self._silent:
            return ""
        self._tokens.append(token)
        before = self._decode(self._tokens[self._start : self._read])
        now = self._decode(self._tokens[self._start :])
        if len(now) <= len(before) or now.endswith("\ufffd"):
            return ""
        self._start, self._read = self._read, len(self._tokens)
        return now[len(before) :]

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text
