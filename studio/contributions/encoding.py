"""From a prompt to tokens: the chat template, thinking on or off, the given answer. Needs no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studio.contributions.prompts import Prompt
from studio.errors import Cancelled, InputError
from studio.limits import require_prompt


def load_tokenizer(model_dir: Path) -> Any:
    """The tokenizer in a model's folder; nothing is fetched or executed. `InputError` when there is none."""
    from transformers import AutoTokenizer

    if not Path(model_dir).is_dir():
        raise InputError(f"There is no folder {model_dir}.", "Give the folder of a safetensors model.")
    try:
        return AutoTokenizer.from_pretrained(model_dir, local_files_only=True, trust_remote_code=False)
    except Cancelled:
        raise
    except Exception as error:  # tokenizers raises nothing more specific
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise InputError(f"The tokenizer in {model_dir} cannot be loaded: {reason}.") from error


def encode(tokenizer: Any, prompt: Prompt, *, thinking: bool = False) -> tuple[list[int], list[int]]:
    """The tokens of the question in the tokenizer's chat template, and those of the answer, none when it is open.

    A passage has no template, only what the tokenizer itself puts around a text, as a rule a token for its beginning.
    Raises `InputError` naming the prompt when the template refuses it, or when there is no template, `TooLongError` for
    more characters than are taken.
    """
    require_prompt([*prompt.messages, {"content": prompt.answer}, {"content": prompt.passage}])
    if prompt.passage is not None:
        tokens: list[int] = tokenizer(prompt.passage, verbose=False)["input_ids"]
        return _some(tokens, prompt), []
    if not tokenizer.chat_template:
        raise InputError(
            "The tokenizer of this model has no chat template.",
            "Analyze an instruction-tuned model, add a template, or use plain passages (a .txt file).",
        )
    try:
        text = tokenizer.apply_chat_template(
            list(prompt.messages), tokenize=False, add_generation_prompt=True, enable_thinking=thinking
        )
    except Exception as error:  # jinja2's, and whatever a template raises
        raise InputError(f"The chat template refuses the prompt {prompt.id!r}: {error}.") from error
    question = _tokens(tokenizer, text)
    return _some(question, prompt), [] if prompt.answer is None else _tokens(tokenizer, prompt.answer)


def is_open(prompt: Prompt) -> bool:
    """Whether the model is to continue the prompt itself."""
    return prompt.answer is None and prompt.passage is None


def _tokens(tokenizer: Any, text: str) -> list[int]:
    # Not verbose: what is too long for a model is cut by us, and said.
    tokens: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return tokens


def _some(tokens: list[int], prompt: Prompt) -> list[int]:
    if not tokens:
        raise InputError(f"The prompt {prompt.id!r} has no tokens.")
    return tokens
