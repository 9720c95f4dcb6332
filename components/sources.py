"""Where the chat station gets its models and example questions: from what is open, and from what was built."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from itertools import count
from pathlib import Path

import gradio as gr

from components.chat_parts import REFERENCE, VIRTUAL, Ballots, ChatModel, ChatSources
from components.chat_settings import Asked
from components.kept_conversations import KeptConversations
from components.kept_values import KeptValues
from components.page import Studio
from components.state import StudioState
from studio.checkpoints.convert import cached_path
from studio.checkpoints.reference import Reference
from studio.contributions.prompts import read_prompts
from studio.errors import EspalierError, ProcessError
from studio.evaluate.virtual_served import VirtualServed
from studio.evaluate.votes import VoteStore
from studio.families import Family, family_named
from studio.jobs import runner
from studio.jobs.store import JobStore
from studio.jobs.task import ASSETS
from studio.publish import manifest
from studio.publish.manifest import Manifest
from studio.recipes.dropmap import DropMap
from studio.serve.conversation import Conversation
from studio.serve.pool import ServerPool
from studio.serve.served import GgufModel, Served

EXAMPLES = ASSETS / "demo-heldout.jsonl"
"""Questions that the demo model was not trained on; any model can be asked them."""
EXAMPLES_PER_CLASS = 12
POLL_S = 0.3
_VIRTUAL_ABOUT = "Not built: follows the map above. In torch, whose last bits are not llama.cpp’s"

_WITHOUT_FILE = {
    "math": ("What is 17 plus 26?",),
    "code": ("Write a Python function that reverses a string.",),
    "creative": ("Write two lines about a pear tree.",),
}


def chat_sources(studio: Studio, state: gr.State) -> ChatSources:
    """The models and examples of one tab."""
    library, cache = studio.library, studio.library.workspace.cache
    kept = KeptConversations(library.workspace.sessions)

    def models(now: StudioState) -> Mapping[str, ChatModel]:
        if not now.reference:
            return {}
        opened = library.reference(now.reference)
        path = opened.path if opened.kind == "gguf" else converted(opened)
        found = {REFERENCE: ChatModel(opened.name, "Reference", path, partial(prepare, now))}
        for name, file in built(library.workspace.artifacts, opened.name).items():
            found[name] = ChatModel(name, "Candidate", file, partial(iter, [GgufModel(file)]))
        if opened.kind == "safetensors" and (drop := shown_map(now)) is not None:
            virtual = VirtualServed(opened.path, drop)
            found[VIRTUAL] = ChatModel(
                name=f"Map {drop.content_hash[:8]} (virtual)",
                role="Virtual",
                path=None,
                prepare=partial(iter, [virtual]),
                about=_VIRTUAL_ABOUT,
                served=virtual,
                listed="The current map (virtual)",
            )
        return found

    def shown_map(now: StudioState) -> DropMap | None:
        with suppress(EspalierError):  # the station that chooses says what is wrong with it
            return library.open(now).drop
        return None

    def converted(opened: Reference) -> Path | None:
        """The GGUF of a checkpoint, where there is one already."""
        digests = cache / "digests"
        file = cached_path(opened.content_hash(cache=digests), cache) if opened.hash_is_known(digests) else None
        return file if file is not None and file.exists() else None

    def prepare(now: StudioState) -> Iterator[str | Served]:
        opened = library.reference(now.reference)
        if opened.kind == "gguf":
            yield GgufModel(opened.path)
            return
        if converted(opened) is None:
            yield from _conversion(studio.store, now.reference)
        yield GgufModel(cached_path(opened.content_hash(cache=cache / "digests"), cache))

    def family(now: StudioState) -> Family | None:
        return family_named(library.reference(now.reference).shape.family) if now.reference else None

    def what_was_said(now: StudioState) -> Conversation | None:
        return kept.read(now.user, now.reference)

    def keep(conversation: Conversation, now: StudioState) -> None:
        kept.write(now.user, now.reference, conversation)

    asked_before = count()

    def bounded(asked: Asked) -> Asked:
        access = library.workspace.access
        access.require_question(next(asked_before))
        tokens = min(asked.sampler.max_tokens, access.answer_tokens or asked.sampler.max_tokens)
        return replace(asked, sampler=asked.sampler.model_copy(update={"max_tokens": tokens}))

    return ChatSources(
        bounded=bounded,
        pool=shared_pool(library.workspace.cache / "chat"),
        models=models,
        examples=examples(),
        family=family,
        kept=what_was_said,
        keep=keep,
        states=[state],
        values=partial(KeptValues, library.workspace.sessions),
        owner=lambda now: (now.user, now.reference),
        ballots=Ballots(VoteStore(library.workspace.votes), library.workspace.cache / "digests", lambda now: now.user),
    )


@lru_cache
def shared_pool(folder: Path) -> ServerPool:
    """The models of all pages of this process: two people who ask the same one need it in memory once."""
    return ServerPool(folder)


def _conversion(store: JobStore, reference: str) -> Iterator[str]:
    """The job that converts a reference, started unless it is under way, until it is done.

    It is a job because it may take an hour, and a page may be closed. Raises `ProcessError` when it fails.
    """
    parameters = {"reference": reference}
    under_way = [one for one in store.list() if one.kind == "convert" and not one.is_finished]
    same = [one for one in under_way if one.parameters.get("reference") == reference and not one.parameters.get("name")]
    job = same[0] if same else runner.start(store, "convert", parameters)
    while not job.is_finished:
        waiting = "it waits for another job" if job.status == "queued" else f"{job.fraction:.0%}"
        yield f"Converting the reference to GGUF, once: {waiting} …"
        time.sleep(POLL_S)
        runner.refresh(store)
        job = store.get(job.id)
    if job.status != "done":
        why = job.error or "it was cancelled."
        raise ProcessError(f"The reference was not converted: {why}", "Ask again to try again.", job.log_tail)


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
