"""A conversation as a file: JSON with everything that was said and how it was asked for, Markdown to be read.

The JSON is an object with `format` ("espalier conversation"), `version`, `columns` and `turns`, which have the fields
of `Column` and `Turn`: per turn the `prompt`, and per column id an answer with its `text`, `reasoning`, `tokens` (where
probabilities were asked for with `id` and `top`, a list of [id, text, log-probability]), `timing`, `finish`, `error`
and its `origin`: the model's name, its file and bytes, the system prompt, `thinking`, and the `sampler` with its seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic import TypeAdapter, ValidationError

from studio.errors import InputError
from studio.serve.conversation import Answer, Conversation, Origin

FORMAT = "espalier conversation"
VERSION = 1
_CONVERSATION = TypeAdapter(Conversation)


def conversation_json(conversation: Conversation) -> str:
    """The file of a conversation."""
    fields = _CONVERSATION.dump_python(conversation, mode="json")
    return json.dumps({"format": FORMAT, "version": VERSION, **fields}, ensure_ascii=False, allow_nan=False) + "\n"


def conversation_from_json(text: str | bytes, name: str) -> Conversation:
    """The conversation that `conversation_json` wrote; `InputError` for anything else."""
    try:
        content = json.loads(text)
        if content.pop("format") != FORMAT or content.pop("version") != VERSION:
            raise ValueError("another format or version")
        return _CONVERSATION.validate_python(content)
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{name} is no conversation that this Espalier saved ({first}).") from None


def conversation_markdown(conversation: Conversation) -> str:
    """A conversation to read: questions as headings, answers under the names of their models."""
    return "\n\n".join(["# Conversation", *_paragraphs(conversation)]) + "\n"


def _paragraphs(conversation: Conversation) -> Iterator[str]:
    for number, turn in enumerate(conversation.turns, 1):
        yield f"## Question {number}"
        yield _quoted(turn.prompt)
        for column, answer in turn.answers.items():
            yield f"### {answer.origin.model if answer.origin else column}"
            if answer.reasoning:
                summary = f"<summary>Thought, {answer.thought_tokens} tokens</summary>"
                yield f"<details>{summary}\n\n{answer.reasoning}\n\n</details>"
            if answer.text:
                yield answer.text
            yield f"*{_ending(answer)}*"
            if answer.origin and answer.origin.system.strip():
                yield f"System prompt:\n\n{_quoted(answer.origin.system)}"


def _ending(answer: Answer) -> str:
    endings = {"length": "cut off", "stopped": "stopped"}
    parts = [f"failed: {answer.error}" if answer.error else endings.get(answer.finish, "")]
    if answer.timing:
        parts.append(f"{answer.timing.tokens} tokens at {answer.timing.tokens_per_s:.1f} tokens/s")
    if origin := answer.origin:
        parts.append(f"{origin.file}, {origin.file_bytes:,} bytes" if origin.file else "")
        parts.append(sampler_text(origin))
    return " · ".join(part for part in parts if part)


def sampler_text(origin: Origin) -> str:
    """How an answer was sampled, in a line."""
    sampler = origin.sampler
    if sampler.temperature == 0:
        said = "greedy"
    else:
        said = f"temperature {sampler.temperature:g}, top-p {sampler.top_p:g}, top-k {sampler.top_k}"
        said += f", seed {sampler.seed}"
        said += f", min-p {sampler.min_p:g}" if sampler.min_p else ""
    if sampler.repeat_penalty != 1:
        said += f", repeat penalty {sampler.repeat_penalty:g}"
    thought = f", thought of at most {sampler.thought_tokens} tokens" if origin.thinking else ""
    return f"{said}, at most {sampler.max_tokens} tokens{thought}"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines())
