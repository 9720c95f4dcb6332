"""The preview foretells exactly what the collector observes."""

from __future__ import annotations

import pytest

from studio.contributions.collector import collect
from studio.contributions.encoding import encode, load_tokenizer
from studio.contributions.prompt_preview import Lengths, preview_prompts
from studio.contributions.prompts import Prompt
from studio.contributions.sequences import tokenize
from studio.errors import InputError
from tests.contributions.tiny import tiny_tokenizer

ASK = ({"role": "user", "content": "Why?"},)
ANSWERED = Prompt("answered", "a", ASK, "Because.")
OPEN = Prompt("open", "a", ASK)
PASSAGE = Prompt("passage", "b", (), passage="It rained.")


def test_what_is_shown_is_the_template_with_its_special_tokens(tokenizer):
    answered, open_, passage = preview_prompts(tokenizer, [ANSWERED, OPEN, PASSAGE]).prompts
    assert answered.question == "<bos><|turn>user\nWhy?<turn|>\n<|turn>model\n"
    assert (answered.answer, answered.answer_tokens, answered.cut) == ("Because.", 8, "")
    assert (open_.question, open_.answer, open_.continuation_tokens) == (answered.question, "", 128)
    assert (passage.question, passage.continuation_tokens) == ("It rained.", 0)
    thinking = preview_prompts(tokenizer, [ANSWERED], thinking=True).prompts[0]
    assert thinking.question == answered.question + "<|think|>"


def test_what_is_cut_is_told_from_what_is_seen(tokenizer):
    whole = preview_prompts(tokenizer, [ANSWERED]).prompts[0]
    for limit in range(1, whole.tokens + 2):
        seen = preview_prompts(tokenizer, [ANSWERED], max_tokens=limit).prompts[0]
        assert seen.question + seen.answer + seen.cut == whole.question + whole.answer
        assert (seen.tokens, seen.cut_tokens) == (min(limit, whole.tokens), max(0, whole.tokens - limit))
        assert seen.tokens == len(tokenize(tokenizer, ANSWERED, max_tokens=limit).tokens)


def test_lengths_are_those_of_each_class(tokenizer):
    preview = preview_prompts(tokenizer, [ANSWERED, PASSAGE, OPEN], max_tokens=25)
    question = len(encode(tokenizer, OPEN)[0])
    assert preview.classes == {
        "a": Lengths(2, question, (25 + question) / 2, 25, 25 + question, cut=1, open=1),
        "b": Lengths(1, 10, 10, 10, 10, cut=0, open=0),
    }


def test_the_collector_observes_as_many_tokens_as_the_preview_says(model, tokenizer, shape):
    prompts = [ANSWERED, PASSAGE]
    made = collect(model, tokenizer, prompts, shape=shape, max_tokens=26)
    for question, seen in enumerate(preview_prompts(tokenizer, prompts, max_tokens=26).prompts):
        assert (made.sum("tokens")[question].sum(axis=-1) == seen.tokens * shape.top_k).all()


def test_passages_need_no_chat_template():
    plain = tiny_tokenizer()
    plain.chat_template = None
    assert preview_prompts(plain, [PASSAGE]).prompts[0].tokens == 10
    with pytest.raises(InputError, match="no chat template"):
        preview_prompts(plain, [OPEN])


def test_a_template_that_refuses_a_prompt_is_named_with_it():
    strict = tiny_tokenizer()
    strict.chat_template = "{{ raise_exception('roles have to alternate') }}"
    with pytest.raises(InputError, match="'open': roles have to alternate"):
        preview_prompts(strict, [OPEN])


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(InputError, match="There is no folder"):
        load_tokenizer(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(InputError, match="cannot be loaded"):
        load_tokenizer(tmp_path)
