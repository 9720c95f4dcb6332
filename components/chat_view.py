"""What the chat station shows, as functions of what was said: nothing of gradio here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from studio.serve.pair import Side

from components.markup import failure, size_text
from studio.errors import ProcessError
from studio.serve.conversation import Answer, Conversation

NO_CANDIDATE = "**No candidate yet.** Build a pruned model in step 4, and it answers here beside the reference."
ANSWERS_HERE = "Its answers appear here."
NO_REFERENCE = "**No reference yet.** Open a model in step 1."
STOPPED_WAITING = "Stopped waiting for the reference; its conversion goes on in the list of jobs."


def chat_messages(conversation: Conversation, side: Side) -> list[dict[str, Any]]:
    """One side of a conversation, as messages of a gradio chatbot; thoughts come folded, before their answers."""
    messages: list[dict[str, Any]] = []
    for turn in conversation.turns:
        answer = turn.answer(side)
        if answer is None:
            continue
        messages.append({"role": "user", "content": turn.prompt})
        if answer.reasoning:
            messages.append({"role": "assistant", "content": answer.reasoning, "metadata": _thought(answer)})
        if answer.text:
            messages.append({"role": "assistant", "content": answer.text})
    return messages


def _thought(answer: Answer) -> dict[str, str]:
    """Metadata of the message with the thought: gradio folds it when it is done, with an answer to follow."""
    if answer.text:
        return {"title": "Thought", "status": "done"}
    return {"title": "Thought"} if answer.over else {"title": "Thought", "status": "pending"}


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


def heading_html(role: str, name: str, path: Path | None) -> str:
    """Who answers in a column: role, name and size."""
    size = f" · {size_text(path.stat().st_size)}" if path is not None and path.exists() else ""
    return f"<h3 class='chat-heading'>{escape(role)} <small>{escape(name)}{size}</small></h3>"


def next_example(examples: Sequence[str], current: str) -> str:
    """The example after `current`, so that pressing a chip again shows another one."""
    following = examples.index(current) + 1 if current in examples else 0
    return examples[following % len(examples)]
