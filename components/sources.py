"""Where the chat station gets its models and example questions: from what is open, and from what was built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import gradio as gr

from components.chat import ChatModel, ChatSources
from components.library import Library
from components.state import StudioState
from studio.checkpoints.convert import cached_gguf
from studio.contributions.prompts import read_prompts
from studio.errors import EspalierError, InputError
from studio.jobs.task import ASSETS
from studio.publish import manifest
from studio.publish.manifest import Manifest
from studio.serve.pool import ServerPool

EXAMPLES = ASSETS / "demo-heldout.jsonl"
"""Questions that the demo model was not trained on; any model can be asked them."""
EXAMPLES_PER_CLASS = 12

_WITHOUT_FILE = {
    "math": ("What is 17 plus 26?",),
    "code": ("Write a Python function that reverses a string.",),
    "creative": ("Write two lines about a pear tree.",),
}


def chat_sources(library: Library, state: gr.State) -> ChatSources:
    """The models and examples of one tab."""

    def reference(now: StudioState) -> ChatModel | None:
        if not now.reference:
            return None
        opened = library.reference(now.reference)
        return ChatModel(opened.name, opened.path if opened.kind == "gguf" else None)

    def prepare(now: StudioState) -> Path:
        if not now.reference:
            raise InputError("No reference is open.", "Open one in the first station.")
        opened = library.reference(now.reference)
        return opened.path if opened.kind == "gguf" else cached_gguf(opened.path, library.workspace.cache)

    def candidates(now: StudioState) -> Mapping[str, Path]:
        name = library.reference(now.reference).name if now.reference else ""
        return built(library.workspace.artifacts, name)

    pool = ServerPool(library.workspace.cache / "chat")
    return ChatSources(pool, reference, prepare, candidates, examples(), states=[state])


def built(artifacts: Path, reference_name: str) -> dict[str, Path]:
    """The GGUF files that were built from the reference of that name: file name → path, the newest build first."""
    stories = sorted(artifacts.glob(f"*/{manifest.FILE_NAME}"), key=lambda path: path.stat().st_mtime, reverse=True)
    found: dict[str, Path] = {}
    for story in stories:
        try:
            made_of = Manifest.read(story).reference.name
        except EspalierError:
            continue  # somebody else's folder; it is not for the chat to complain about
        if made_of == reference_name:
            found |= {file.stem: file for file in sorted(story.parent.glob("gguf/*.gguf"))}
    return found


@lru_cache(1)
def examples() -> Mapping[str, Sequence[str]]:
    """Questions for each class."""
    if not EXAMPLES.exists():
        return _WITHOUT_FILE
    questions: dict[str, list[str]] = {}
    for prompt in read_prompts(EXAMPLES):
        questions.setdefault(prompt.klass, []).append(str(prompt.messages[-1]["content"]))
    return {klass: texts[:EXAMPLES_PER_CLASS] for klass, texts in questions.items()}
