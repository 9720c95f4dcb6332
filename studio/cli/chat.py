"""The verb that talks to one model, or to several side by side."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.cli.terminal import Json, note, result
from studio.workspace import Workspace

if TYPE_CHECKING:
    from studio.serve.conversation import Answer, Conversation


def chat(
    file: Annotated[Path, typer.Argument(help="A GGUF file.", metavar="FILE.gguf")],
    *,
    prompt: Annotated[str, typer.Option(help="What to ask.")],
    against: Annotated[
        list[Path] | None, typer.Option(help="Another GGUF file, asked the same; up to three times.")
    ] = None,
    system: Annotated[str, typer.Option(help="A system prompt.")] = "",
    max_tokens: Annotated[int, typer.Option(help="The longest answer, in tokens.")] = 512,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same answer.")] = 0,
    thinking: Annotated[
        bool, typer.Option("--thinking", help="Let the model think first; thoughts go to stderr.")
    ] = False,
    context: Annotated[int, typer.Option(min=1, help="Tokens of prompt and answer together.")] = 4096,
    json: Json = False,
) -> None:
    """Ask a model, or up to four the same.

    Answers go to stdout, timing to stderr.
    """
    from studio.errors import InputError
    from studio.serve.client import sampler_of
    from studio.serve.columns import MOST_COLUMNS, Columns
    from studio.serve.conversation import Conversation
    from studio.serve.pool import ServerPool
    from studio.serve.served import GgufModel, Request

    sampler = sampler_of(max_tokens=max_tokens, temperature=temperature, seed=seed)
    files = [file, *(against or [])]
    if len(files) > MOST_COLUMNS:
        raise InputError(f"{len(files)} files are too many.", f"Ask up to {MOST_COLUMNS} side by side.")
    # The file that was named first is heard first.
    names = {str(number): str(path) for number, path in enumerate(files, 1)}
    pool = ServerPool(Workspace.open().cache / "chat-logs", context=context)
    columns = Columns(pool, {column: GgufModel(Path(name)) for column, name in names.items()})
    conversation = Conversation().asked(prompt, names)
    try:
        if not (fit := columns.fit()).together:
            note(fit.reason)
        requests = {
            column: Request(conversation.messages(column, system), sampler, thinking=thinking) for column in names
        }
        speaker = None if json else _Speaker(names)
        for column, event in columns.stream(requests):
            conversation = conversation.heard(column, event)
            if speaker is not None:
                speaker.catch_up(conversation)
    finally:
        pool.close()
    answers = {column: answer for column in names if (answer := conversation.answer(column)) is not None}
    for column, answer in answers.items():
        _tell_timing(names[column], answer)
    if failed := [answer.error for answer in answers.values() if answer.error is not None]:
        raise failed[0]
    if json:
        result(True, {"answers": [_fields(names[column], answer) for column, answer in answers.items()]}, "")


class _Speaker:
    """Prints answers that come at the same time one after the other, each as it comes once its turn has come."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._waiting = list(names)
        self._labelled = False
        self._thought = self._spoken = 0  # characters of the current answer

    def catch_up(self, conversation: Conversation) -> None:
        """Print what is new in `conversation`."""
        while self._waiting:
            column = self._waiting[0]
            answer = conversation.answer(column)
            if answer is None:
                return
            self._say(self._names[column], answer)
            if not answer.over:
                return
            if self._labelled:
                print("\n" if len(self._waiting) > 1 else "", flush=True)
            self._waiting.pop(0)
            self._labelled, self._thought, self._spoken = False, 0, 0

    def _say(self, name: str, answer: Answer) -> None:
        if not self._labelled and (answer.text or answer.finish):
            print(f"{name}:", flush=True)
            self._labelled = True
        print(answer.reasoning[self._thought :], end="", file=sys.stderr, flush=True)
        print(answer.text[self._spoken :], end="", flush=True)
        self._thought, self._spoken = len(answer.reasoning), len(answer.text)


def _tell_timing(name: str, answer: Answer) -> None:
    if timing := answer.timing:
        note(
            f"{name}: {timing.first_token_s:.2f} s to the first token, {timing.tokens} tokens, "
            f"{timing.tokens_per_s:.1f} tokens/s ({answer.finish or 'failed'})"
        )


def _fields(name: str, answer: Answer) -> dict[str, Any]:
    timing = answer.timing
    return {
        "file": name,
        "text": answer.text,
        "reasoning": answer.reasoning,
        "finish": answer.finish,
        "first_token_s": timing.first_token_s if timing else None,
        "tokens": timing.tokens if timing else None,
        "tokens_per_s": timing.tokens_per_s if timing else None,
    }
