"""The verb that talks to one model, or to two side by side."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.cli.terminal import Json, note, result
from studio.workspace import Workspace

if TYPE_CHECKING:
    from studio.serve.conversation import Answer, Conversation
    from studio.serve.pair import Side


def chat(
    file: Annotated[Path, typer.Argument(help="A GGUF file.", metavar="FILE.gguf")],
    *,
    prompt: Annotated[str, typer.Option(help="What to ask.")],
    against: Annotated[Path | None, typer.Option(help="A second GGUF file, asked the same.")] = None,
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
    """Ask a model, or two the same.

    Answers go to stdout, timing to stderr.
    """
    from studio.serve.client import sampler_of
    from studio.serve.conversation import Conversation
    from studio.serve.pair import SIDES, Pair
    from studio.serve.pool import ServerPool

    sampler = sampler_of(max_tokens=max_tokens, temperature=temperature, seed=seed)
    pool = ServerPool(Workspace.open().cache / "chat-logs", context=context)
    pair = Pair(pool, against, file)
    names: dict[Side, str] = {side: str(path) for side, path in pair.paths.items()}
    # The file that was named first is heard first.
    sides: list[Side] = [side for side in reversed(SIDES) if side in names]
    conversation = Conversation().asked(prompt, sides)
    try:
        if not (fit := pair.fit()).together:
            note(fit.reason)
        messages = {side: conversation.messages(side, system) for side in sides}
        speaker = None if json else _Speaker(names, sides)
        for side, event in pair.stream(messages, sampler, thinking=thinking):
            conversation = conversation.heard(side, event)
            if speaker is not None:
                speaker.catch_up(conversation)
    finally:
        pool.close()
    answers = {side: answer for side in sides if (answer := conversation.answer(side)) is not None}
    for side, answer in answers.items():
        _tell_timing(names[side], answer)
    if failed := [answer.error for answer in answers.values() if answer.error is not None]:
        raise failed[0]
    if json:
        result(True, {"answers": [_fields(names[side], answer) for side, answer in answers.items()]}, "")


class _Speaker:
    """Prints answers that come at the same time one after the other, each as it comes once its turn has come."""

    def __init__(self, names: Mapping[Side, str], sides: Sequence[Side]) -> None:
        self._names = names
        self._waiting = list(sides)
        self._labelled = False
        self._thought = self._spoken = 0  # characters of the current side

    def catch_up(self, conversation: Conversation) -> None:
        """Print what is new in `conversation`."""
        while self._waiting:
            side = self._waiting[0]
            answer = conversation.answer(side)
            if answer is None:
                return
            self._say(self._names[side], answer)
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
