"""Talking to one model server: a chat completion, streamed as server-sent events over HTTP on the loopback.

http.client and not httpx: llama.cpp sends the response's headers only together with the first token, and a person may
press Stop before that. Here the socket is in our hands from the start, so `ChatStream.stop` works at any moment.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.errors import EspalierError, InputError, TooLongError

LOOPBACK = "127.0.0.1"
SILENCE_S = 900.0
"""How long a server may say nothing: a long prompt on a slow processor, behind another one, is silent for minutes."""

TOP = 10
"""How many of the likeliest tokens come with each token, where probabilities are asked for."""

Message = Mapping[str, str]
"""`{"role": "system" | "user" | "assistant", "content": …}`."""


class Sampler(BaseModel):
    """How the next token is chosen; the defaults are Gemma's official ones. Temperature 0 takes the likeliest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(1.0, ge=0, le=5)
    top_p: float = Field(0.95, gt=0, le=1)
    top_k: int = Field(64, ge=0, le=100_000, description="0 looks at the whole vocabulary")
    min_p: float = Field(0.0, ge=0, le=1)
    repeat_penalty: float = Field(1.0, ge=0.5, le=2)
    seed: int = Field(0, ge=0, lt=2**32 - 1)  # llama.cpp reads 2³² − 1 as "choose one"
    max_tokens: int = Field(1024, ge=1, le=1_000_000)
    reasoning_budget: int | None = Field(None, ge=0, description="tokens of thought; None is half of max_tokens")

    @property
    def thought_tokens(self) -> int:
        """The thought may take no more than this, so that tokens are left for the answer."""
        return self.max_tokens // 2 if self.reasoning_budget is None else self.reasoning_budget


def sampler_of(**values: Any) -> Sampler:
    """A `Sampler` of values that a person typed; `InputError` names the ones that are out of range."""
    try:
        return Sampler(**values)
    except ValidationError as error:
        wrong = "; ".join(f"{_name(one['loc'])} is {one['input']!r}: {one['msg']}" for one in error.errors())
        raise InputError(f"The sampler cannot be set like this: {wrong}.", "Change it and send again.") from None


def _name(place: tuple[int | str, ...]) -> str:
    return ".".join(map(str, place)).replace("_", " ")


@dataclass(frozen=True)
class Timing:
    """How fast an answer came. Tokens count the thought and the answer, without the one by which a model ends itself;
    their rate is llama.cpp's own measure."""

    first_token_s: float
    """Seconds from the question to the first visible piece, waiting for a free slot included."""
    tokens: int
    tokens_per_s: float
    prompt_tokens: int


class Likely(NamedTuple):
    """A token that could have come, with the natural logarithm of its probability.

    The probability is the model's own: a softmax over the whole vocabulary, before temperature, top-k, top-p and
    penalties have their say.
    """

    id: int
    text: str
    logprob: float


@dataclass(frozen=True)
class Token:
    """A token of an answer or of its thought.

    Where probabilities were asked for it has its `id` and `top`, the likeliest tokens at its place. Where they were
    not, it is what arrived at once, which is a token but for characters that take several.
    """

    text: str
    thought: bool = False
    id: int | None = None
    top: tuple[Likely, ...] = ()


@dataclass(frozen=True)
class Delta:
    """A piece of an answer.

    The last one is `done`, and its `finish` says why: "stop" (the model's own end), "length" or "stopped".
    """

    text: str = ""
    reasoning: str = ""
    done: bool = False
    timing: Timing | None = None
    finish: str = ""
    tokens: tuple[Token, ...] = field(default=(), kw_only=True)
    """The tokens of the piece with what else was likely; empty unless that was asked for."""
    waiting: str = field(default="", kw_only=True)
    """What an answer that has not begun is waiting for, in words; such a delta holds nothing else."""

    @property
    def pieces(self) -> tuple[Token, ...]:
        """`tokens`, or what arrived in their place."""
        arrived = ((self.reasoning, True), (self.text, False))
        return self.tokens or tuple(Token(piece, thought) for piece, thought in arrived if piece)


def request_body(
    messages: Sequence[Message], sampler: Sampler, thinking: bool, probabilities: bool = False
) -> dict[str, Any]:
    """The body of a `/v1/chat/completions` request as llama.cpp's server takes it."""
    return {
        **({"logprobs": True, "top_logprobs": TOP} if probabilities else {}),
        "messages": [dict(message) for message in messages],
        "stream": True,
        "timings_per_token": True,  # so that a stopped answer has its numbers too
        "temperature": sampler.temperature,
        "top_p": sampler.top_p,
        "top_k": sampler.top_k,
        "min_p": sampler.min_p,
        "repeat_penalty": sampler.repeat_penalty,
        "seed": sampler.seed,
        "max_tokens": sampler.max_tokens,
        "reasoning_format": "deepseek",
        "reasoning_budget_tokens": sampler.thought_tokens if thinking else 0,
        "chat_template_kwargs": {"enable_thinking": thinking},
        # A prompt read from the cache and one computed differ in the last bits, enough to change a sampled answer. The
        # first question of a conversation is the one people ask twice to compare; later ones would wait too long.
        "cache_prompt": any(message["role"] == "assistant" for message in messages),
    }


class ChatStream(Iterator[Delta]):
    """One answer in the making. Iterate to receive it; `stop` from any thread ends it here and on the server."""

    def __init__(
        self,
        port: int,
        api_key: str,
        body: Mapping[str, Any],
        lost: Callable[[str], EspalierError],
        silence_s: float = SILENCE_S,
    ) -> None:
        """`lost` turns how the connection broke into the error to raise; it does so after `silence_s` too."""
        self._body = json.dumps(body).encode()
        self._headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
        self._lost = lost
        self._connection = http.client.HTTPConnection(LOOPBACK, port, timeout=silence_s)
        self._socket: socket.socket | None = None
        self._guard = threading.Lock()
        self._stopped = False
        self._deltas = self._receive()

    def __next__(self) -> Delta:
        return next(self._deltas)

    def stop(self) -> None:
        """End the answer: the iteration finishes with a last delta, and llama.cpp frees the slot within a token."""
        with self._guard:
            self._stopped = True
            if self._socket is not None:
                with suppress(OSError):  # it may be closed already
                    self._socket.shutdown(socket.SHUT_RDWR)

    def _receive(self) -> Iterator[Delta]:
        started = time.monotonic()
        timing: Timing | None = None
        first_token_s = 0.0
        finish = ""
        try:
            for event in self._events():
                choice = event["choices"][0] if event.get("choices") else {}
                piece = choice.get("delta", {})
                text, reasoning = piece.get("content") or "", piece.get("reasoning_content") or ""
                if (text or reasoning) and not first_token_s:
                    first_token_s = time.monotonic() - started
                finish = choice.get("finish_reason") or finish
                if "timings" in event:
                    timing = _timing(event["timings"], first_token_s or time.monotonic() - started, finish)
                tokens = _tokens(bool(reasoning), choice.get("logprobs"))
                if text or reasoning or tokens:
                    yield Delta(text, reasoning, timing=timing, tokens=tokens)
        except TimeoutError as error:
            if not self._stopped:
                raise self._lost(f"it has said nothing for {self._connection.timeout:g} seconds") from error
        except (OSError, http.client.HTTPException) as error:
            if not self._stopped:
                raise self._lost(f"{type(error).__name__}: {error}") from error
        finally:
            self._connection.close()
        if not finish and not self._stopped:
            raise self._lost("the answer ended in the middle")
        yield Delta(done=True, timing=timing, finish=finish or "stopped")

    def _events(self) -> Iterator[dict[str, Any]]:
        with self._guard:
            if self._stopped:
                return
            self._connection.connect()
            self._socket = self._connection.sock
        self._connection.request("POST", "/v1/chat/completions", self._body, self._headers)
        response = self._connection.getresponse()
        if response.status != http.client.OK:
            raise self._refusal(_parsed(response.read()))
        buffered = b""
        while received := response.read1(1 << 16):
            *complete, buffered = (buffered + received).split(b"\n\n")
            for block in complete:
                if not block.startswith(b"data: {"):
                    continue  # a ping, or [DONE]
                event = _parsed(block[len(b"data: ") :])
                if "error" in event:
                    raise self._refusal(event)
                yield event

    def _refusal(self, answer: Mapping[str, Any]) -> EspalierError:
        error = answer.get("error", {})
        if error.get("type") == "exceed_context_size_error":
            return TooLongError(
                f"This conversation has {error.get('n_prompt_tokens')} tokens, and the model is open for "
                f"{error.get('n_ctx')}.",
                "Clear the chat, or ask something shorter.",
            )
        message = error.get("message", "no reason given")
        if error.get("code") == http.client.BAD_REQUEST:
            return InputError(f"The model server does not take this question: {message}.")
        return self._lost(f"it answered with error {error.get('code')}: {message}")


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(data)
    except ValueError:
        parsed = {"error": {"message": data[:200].decode(errors="replace")}}
    return parsed if isinstance(parsed, dict) else {}


def _tokens(thought: bool, logprobs: Any) -> tuple[Token, ...]:
    return tuple(
        Token(one["token"], thought, one["id"], tuple(map(_likely, one["top_logprobs"])))
        for one in (logprobs or {}).get("content", ())
    )


def _likely(one: Mapping[str, Any]) -> Likely:
    return Likely(one["id"], one["token"], round(one["logprob"], 5))


def _timing(timings: Mapping[str, Any], first_token_s: float, finish: str) -> Timing:
    predicted = int(timings.get("predicted_n", 0))
    return Timing(
        first_token_s=first_token_s,
        tokens=max(0, predicted - (finish == "stop")),  # llama.cpp counts the one that says that it is the end
        tokens_per_s=float(timings.get("predicted_per_second", 0.0)),
        prompt_tokens=int(timings.get("prompt_n", 0)) + int(timings.get("cache_n", 0)),
    )
