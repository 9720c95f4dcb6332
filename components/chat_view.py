"""What the chat station shows, as functions of what was said: nothing of gradio here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from components.markup import failure
from studio.errors import InputError, ProcessError
from studio.serve.conversation import Answer, Conversation
from studio.units import size_text

NO_MODEL = "**Nothing to talk to here yet.** Choose a model above, or build one in step 4."
ANSWERS_HERE = "Its answers appear here."
NO_REFERENCE = "**No reference yet.** Open a model in step 1."
STOPPED_WAITING = "Stopped waiting for the reference; its conversion goes on in the list of jobs."

LATEX: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
]
"""How models mark formulas; those between single dollars become one of these, see `with_formulas`."""

_CODE_OR_FORMULA = re.compile(
    r"(?P<code>```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|(?P<ticks>`+)[^`].*?(?P=ticks))"
    r"|(?<![\\$])\$(?![\s$])(?P<formula>[^$\n]*?(?<![\s\\]))\$(?![\d$])",
    re.DOTALL,
)


def with_formulas(text: str) -> str:
    """Markdown with `$x$` as `\\(x\\)`, but for code, and for prices: as in pandoc, the first dollar has no space after
    it, the second none before it and no digit after it."""

    def marked(found: re.Match[str]) -> str:
        return found[0] if found["code"] else f"\\({found['formula']}\\)"

    return _CODE_OR_FORMULA.sub(marked, text)


def chat_messages(conversation: Conversation, column: str) -> list[dict[str, Any]]:
    """One column of a conversation, as messages of a gradio chatbot; thoughts come folded, before their answers."""
    return [message for _, message in _numbered(conversation, column)]


def turn_of_message(conversation: Conversation, column: str, message: int) -> int:
    """Number of the turn that message number `message` of `chat_messages` belongs to; `InputError` for none."""
    turns = [turn for turn, _ in _numbered(conversation, column)]
    if not 0 <= message < len(turns):
        raise InputError("That question is no longer there.", "Reload the page.")
    return turns[message]


def _numbered(conversation: Conversation, column: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of the turn, message)."""
    for number, turn in enumerate(conversation.turns):
        answer = turn.answers.get(column)
        if answer is None:
            continue
        yield number, {"role": "user", "content": _text(turn.prompt)}
        if answer.reasoning:
            thought = {
                "role": "assistant",
                "content": _text(with_formulas(answer.reasoning)),
                "metadata": _thought(answer),
            }
            yield number, thought
        if answer.text:
            yield number, {"role": "assistant", "content": _text(with_formulas(answer.text))}


def _text(text: str) -> list[dict[str, str]]:
    """Text as it is; gradio would take the indentation from a plain string."""
    return [{"type": "text", "text": text}]


def _thought(answer: Answer) -> dict[str, str]:
    """Metadata of the message with the thought: gradio folds it when it is done, with an answer to follow."""
    count = answer.thought_tokens
    title = f"Thought, {count} token{'s' if count != 1 else ''}" if count else "Thought"
    if answer.text:
        return {"title": title, "status": "done"}
    return {"title": title} if answer.over else {"title": title, "status": "pending"}


def stats_text(answer: Answer | None) -> str:
    """The line under an answer: "first token 0.12 s · 64.3 tokens/s · 38 tokens", or what is waited for."""
    if answer is None:
        return ""
    if answer.status:
        return answer.status
    timing = answer.timing
    if timing is None:
        return {"": "Waiting for the first token …", "stopped": "stopped before the first token"}.get(answer.finish, "")
    parts = [f"first token {timing.first_token_s:.2f} s"]
    if timing.tokens_per_s:
        parts.append(f"{timing.tokens_per_s:.1f} tokens/s")
    parts.append(f"{timing.tokens} token{'s' if timing.tokens != 1 else ''}")
    silent = "ended without an answer" if answer.reasoning and not answer.text else None
    ending = {"stopped": "stopped", "length": "cut off, no tokens left", "stop": silent}.get(answer.finish)
    return " · ".join([*parts, ending] if ending else parts)


def stats_html(answer: Answer | None) -> str:
    """`stats_text` in a line that keeps its height when it is empty."""
    failed = answer is not None and answer.error is not None
    return f"<p class='chat-stats quiet number'>{'' if failed else escape(stats_text(answer)) or '&nbsp;'}</p>"


def problem_html(answer: Answer | None) -> str:
    """Why an answer failed, with the last lines of its server's log; empty where it did not."""
    if answer is None or answer.error is None:
        return ""
    log = answer.error.log_tail if isinstance(answer.error, ProcessError) else ""
    return failure(answer.error) + (f"<pre class='log' tabindex='0'><code>{escape(log)}</code></pre>" if log else "")


def heading_html(role: str, path: Path | None) -> str:
    """What answers in a column: its role and size."""
    size = f" · {size_text(path.stat().st_size)}" if path is not None and path.is_file() else ""
    return f"<p class='chat-heading quiet'>{escape(role)}{size}&nbsp;</p>"


def next_example(examples: Sequence[str], current: str) -> str:
    """The example after `current`, so that pressing a chip again shows another one."""
    following = examples.index(current) + 1 if current in examples else 0
    return examples[following % len(examples)]
