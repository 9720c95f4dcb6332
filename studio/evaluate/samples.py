"""What two GGUF files are compared on: a text in chunks, as llama-perplexity cuts it, or prompts with their answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from studio.contributions.encoding import encode, is_open
from studio.contributions.prompts import Prompt
from studio.contributions.sources import TEXT_CLASS
from studio.errors import FormatError, InputError
from studio.evaluate.logits import LogitsProcess

TEXT_CONTEXT = 512
"""Tokens of a chunk of text unless someone asks for more; llama-perplexity's default."""
PROMPT_CONTEXT = 4096
"""Tokens of a prompt with its answer, unless someone asks for more."""


@dataclass(frozen=True)
class Sample:
    """Tokens that a model reads; what follows number `first` and each later one is what it has to predict."""

    klass: str
    tokens: tuple[int, ...]
    first: int

    @property
    def scored(self) -> int:
        """How many tokens are predicted."""
        return max(0, len(self.tokens) - 1 - self.first)


@dataclass(frozen=True)
class Samples:
    """All that is compared, and what of it could not be."""

    samples: tuple[Sample, ...]
    cut: int = 0
    """Prompts that were cut to the context."""
    left_out: int = 0
    """Prompts of which nothing is scored: the question alone fills the context, or the answer is empty."""

    @property
    def scored(self) -> int:
        return sum(one.scored for one in self.samples)


def read_text(path: Path) -> str:
    """The text of a file as llama-perplexity reads it: without one line feed at its end.

    Raises `InputError` when it cannot be read, `FormatError` when it is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8").removesuffix("\n")
    except OSError as error:
        raise InputError(f"The text {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise FormatError(path, f"byte {error.start}", "this is not UTF-8 text", "Save it as UTF-8.") from None


def samples_of_text(model: LogitsProcess, text: str, context: int = TEXT_CONTEXT) -> Samples:
    """`text` in chunks of `context` tokens, of which the second half is scored, as llama-perplexity does.

    What is left over after the last whole chunk is not used. Where the model's texts begin with a token of their own,
    each chunk begins with it, in place of its first token. Raises `InputError` for a text shorter than one chunk.
    """
    if context < 4:
        raise InputError(f"A context of {context} tokens has nothing to score.", "Choose 4 or more.")
    tokens = model.tokens(text, add_special=True, parse_special=False)
    if len(tokens) < context:
        raise InputError(
            f"The text has {len(tokens)} tokens, and a chunk is {context}.", "Give a longer text, or a shorter context."
        )
    start = [model.about["bos"]] if model.about["add_bos"] else []
    chunks = [tokens[at : at + context] for at in range(0, len(tokens) - context + 1, context)]
    return Samples(
        tuple(Sample(TEXT_CLASS, (*start, *chunk[len(start) :]), context // 2) for chunk in chunks),
    )


def samples_of_prompts(
    model: LogitsProcess,
    template: str | None,
    prompts: Iterable[Prompt],
    *,
    context: int = PROMPT_CONTEXT,
    continuation: int = 128,
    thinking: bool = False,
) -> Samples:
    """Each prompt in the chat `template` of the file, with its answer, whose tokens are scored.

    Of a passage, all tokens are scored. An open prompt is answered by `model` itself, with its likeliest tokens, at
    most `continuation`. What is longer than `context` is cut. Raises `InputError` as `encode` does, and where nothing
    is left to score.
    """
    tokenizer = _Tokenizer(model, template)
    found: list[Sample] = []
    cut = left_out = 0
    for prompt in prompts:
        question, answer = encode(tokenizer, prompt, thinking=thinking)
        if is_open(prompt) and len(question) < context:
            answer = model.continued(question, min(continuation, context - len(question)))
        first = 0 if prompt.passage is not None else len(question) - 1
        whole = Sample(prompt.klass, (*question, *answer), first)
        sample = replace(whole, tokens=whole.tokens[:context])
        cut += sample != whole
        if sample.scored:
            found.append(sample)
        else:
            left_out += 1
    if not found:
        raise InputError(
            f"Not one of {left_out} prompts leaves a token to score within {context} tokens.",
            "Choose a longer context, or shorter prompts.",
        )
    return Samples(tuple(found), cut, left_out)


class _Tokenizer:
    """What `encode` asks of a tokenizer, answered by llama.cpp, and the template of the file.

    Reading the vocabulary into a tokenizer of Python would take half a minute for the largest ones.
    """

    def __init__(self, model: LogitsProcess, chat_template: str | None) -> None:
        self.chat_template = chat_template
        self._model = model

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, str]], *, tokenize: bool, add_generation_prompt: bool, **variables: Any
    ) -> str:
        """The messages as the model reads them, in text; never in tokens."""
        from transformers.utils.chat_template_utils import render_jinja_template

        assert not tokenize
        about = self._model.about
        rendered: Any = render_jinja_template(
            conversations=[[dict(message) for message in messages]],
            chat_template=self.chat_template,
            add_generation_prompt=add_generation_prompt,
            bos_token=about["bos_token"],
            eos_token=about["eos_token"],
            **variables,
        )
        texts, _ = rendered
        return str(texts[0])

    def __call__(self, text: str, *, add_special_tokens: bool = True, verbose: bool = True) -> dict[str, list[int]]:
        tokens = self._model.tokens(text, add_special=add_special_tokens, parse_special=True)
        return {"input_ids": tokens}
