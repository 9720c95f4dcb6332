"""One answer of a virtual model, token by token: runs in the process that holds the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from studio.errors import InputError
from studio.evaluate.routing import Routing, Watch, watched
from studio.evaluate.virtual import VirtualModel
from studio.recipes.dropmap import DropMap
from studio.serve.client import TOP, Delta, Likely, Message, Sampler, Timing, Token
from studio.serve.sampling import choose
from studio.serve.thoughts import Detokenizer, Splitter, marks_of

ROUTING_EVERY_S = 0.25
"""How often the routing is told while an answer comes."""
TURN_S = 0.25
"""After so many seconds another answer has its turn, if there is one; to mask the experts anew takes milliseconds."""


@dataclass(frozen=True)
class VirtualDelta(Delta):
    """A piece of a virtual model's answer; now and then, and at its end, with the routing of all of it so far."""

    routing: Routing | None = None


def answer(
    virtual: VirtualModel,
    messages: Sequence[Message],
    sampler: Sampler,
    *,
    context: int,
    thinking: bool = False,
    drop: DropMap | None = None,
    probabilities: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    turn_s: float = TURN_S,
) -> Iterator[VirtualDelta | None]:
    """What the model that `drop` leaves (the reference for None) answers, at most `context` tokens with the question.

    After every `turn_s` seconds comes None: there the model is the reference again, and another answer of it may be
    worked on, which changes not a bit of this one.

    With `probabilities` each token comes with the likeliest others. A piece whose end may be a mark's is held back, and
    its tokens with it.

    Greedy answers are those of transformers' `generate` on the pruned checkpoint. A thought that is longer than its
    budget is closed, and the answer follows. The last delta is `done`. Raises `InputError` for a conversation that does
    not fit or that the template refuses, and what `DropMap.check` raises.
    """
    started = time.monotonic()
    text, prompt = _prompt(virtual, messages, thinking)
    if len(prompt) >= context:
        raise InputError(
            f"This conversation has {len(prompt)} tokens, and the model is open for {context}.",
            "Clear the chat, or ask something shorter.",
        )
    marks = marks_of(str(virtual.tokenizer.chat_template))
    splitter, detokenizer = Splitter(marks, text), Detokenizer(virtual.tokenizer, marks)
    close = virtual.tokenizer(marks.close, add_special_tokens=False)["input_ids"] if marks else []
    budget = sampler.thought_tokens if thinking else 0
    limit = min(sampler.max_tokens, context - len(prompt))
    ends, lots = _ends(virtual), np.random.default_rng(sampler.seed)
    said, waiting = list[int](), list[Token]()
    thought, forced, finish = 0, list[int](), ""
    first_s, told = 0.0, started
    watch, passes = None, _passes(virtual, prompt, said)
    while not finish:
        with watched(virtual.model, drop, virtual.shape, watch) as watch:
            turn = time.monotonic()
            while not finish and time.monotonic() - turn < turn_s:
                logits = next(passes)
                if stopped():
                    finish = "stopped"
                    break
                if splitter.thinking and thought >= budget and not forced:
                    forced = list(close)
                token = forced.pop(0) if forced else choose(logits, sampler, [*prompt, *said], lots)
                if token in ends:
                    finish = "stop"
                    break
                said.append(token)
                if probabilities:
                    waiting.append(_told(virtual, token, logits, splitter.thinking))
                thought += splitter.thinking
                piece = splitter.feed(detokenizer.feed(token))
                if any(piece):
                    first_s = first_s or time.monotonic() - started
                    routing = None
                    if time.monotonic() - told >= ROUTING_EVERY_S:
                        routing, told = watch.routing, time.monotonic()
                    timing, tokens, waiting = _timing(started, first_s, said, prompt), tuple(waiting), []
                    yield VirtualDelta(*piece, timing=timing, routing=routing, tokens=tokens)
                if len(said) >= limit:
                    finish = "length"
        if not finish:
            yield None
    rest = splitter.flush()
    if any(rest) or waiting:
        yield VirtualDelta(*rest, tokens=tuple(waiting))
    assert watch is not None
    yield _last(watch, finish, _timing(started, first_s, said, prompt))


def _told(virtual: VirtualModel, token: int, logits: Any, thought: bool) -> Token:
    """A token with the likeliest at its place, by the model's own `logits` `[V]`."""
    values = logits.astype(np.float64)
    values -= values.max()
    values -= np.log(np.exp(values).sum())
    top = np.argsort(-values, kind="stable")[:TOP]
    likely = tuple(Likely(int(one), _text_of(virtual, int(one)), round(float(values[one]), 5)) for one in top)
    return Token(_text_of(virtual, token), thought, token, likely)


def _text_of(virtual: VirtualModel, token: int) -> str:
    text: str = virtual.tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _last(watch: Watch, finish: str, timing: Timing) -> VirtualDelta:
    return VirtualDelta(done=True, finish=finish, timing=timing, routing=watch.routing)


def _passes(virtual: VirtualModel, prompt: Sequence[int], said: Sequence[int]) -> Iterator[Any]:
    """Logits `[V]` of the next token, again and again; whoever takes them appends the token to `said`."""
    import torch

    from studio.contributions.modules import input_device

    device = input_device(virtual.model)
    tokens, cache = list(prompt), None
    while True:
        with torch.inference_mode():
            result = virtual.model(
                input_ids=torch.tensor([tokens], device=device), past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            cache = result.past_key_values
            logits = result.logits[0, -1].float().cpu().numpy()
        yield logits
        tokens = [said[-1]]


def _prompt(virtual: VirtualModel, messages: Sequence[Message], thinking: bool) -> tuple[str, list[int]]:
    tokenizer = virtual.tokenizer
    if not tokenizer.chat_template:
        raise InputError("The tokenizer of this model has no chat template.", "Choose an instruction-tuned model.")
    try:
        text = str(
            tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=thinking,
            )
        )
    except Exception as error:  # jinja2's, and whatever a template raises
        raise InputError(f"The chat template refuses this conversation: {error}.") from error
    return text, list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _ends(virtual: VirtualModel) -> set[int]:
    """The tokens that end an answer."""
    from studio.contributions.sequences import end_tokens

    own = virtual.tokenizer.eos_token_id
    return {*end_tokens(virtual.model), *([] if own is None else [int(own)])}


def _timing(started: float, first_s: float, said: Sequence[int], prompt: Sequence[int]) -> Timing:
    since = time.monotonic() - started - first_s
    rate = (len(said) - 1) / since if len(said) > 1 and since > 0 else 0.0
    return Timing(first_s or time.monotonic() - started, len(said), rate, len(prompt))
