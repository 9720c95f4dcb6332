"""What the collector says a model's experts did is what they did."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from studio.contributions.collector import collect
from studio.contributions.model import SUMS
from studio.contributions.observer import _expert_outputs, _norms, observing, question_of_token
from studio.contributions.prompts import Prompt
from studio.contributions.sequences import continue_greedily, plan_batches, tokenize
from studio.errors import InputError, MismatchError, UnsupportedError
from studio.families import GEMMA4, MoeShape, shape_of_config
from tests.contributions.slow import sums_of_question
from tests.contributions.tiny import tiny_config, tiny_model, tiny_tokenizer


def ask(text: str, answer: str | None = "Yes, indeed.", klass: str = "talk") -> Prompt:
    return Prompt(f"{klass}: {text}", klass, ({"role": "user", "content": text},), answer)


QUESTIONS = [ask("Is it?"), ask("Tell me about trees on walls, and why they are pruned.", klass="garden"), ask("x")]


def slow_sums(model, tokenizer, prompts):
    """Sums `[6, Q, L, E]`, question by question and without any batching."""
    tokens = [list(tokenize(tokenizer, prompt, max_tokens=4096).tokens) for prompt in prompts]
    return np.stack([sums_of_question(model, sequence) for sequence in tokens], axis=1)


def all_sums(contributions):
    return np.stack([contributions.sum(name) for name in SUMS])


def test_the_six_sums_are_those_of_a_slow_recomputation_in_fp64(model, tokenizer, shape):
    collected = collect(model, tokenizer, QUESTIONS, shape=shape)
    np.testing.assert_allclose(all_sums(collected), slow_sums(model, tokenizer, QUESTIONS), rtol=1e-5)
    assert collected.classes == ("talk", "garden")
    assert (collected.sum("tokens") > 0).mean() > 0.5


def test_the_gate_weight_includes_the_scale_per_expert(model, tokenizer, shape):
    gate = collect(model, tokenizer, QUESTIONS, shape=shape).sum("gate").sum(-1)
    tokens = [len(tokenize(tokenizer, prompt, max_tokens=4096).tokens) for prompt in QUESTIONS]
    assert not np.allclose(gate, np.array(tokens)[:, None], rtol=0.01), "weights that sum to 1 would be without it"


def test_a_bf16_model_is_reduced_in_fp32_or_better(tokenizer):
    model = tiny_model(dtype="bfloat16")
    shape = shape_of_config(model.config.to_dict())
    collected = all_sums(collect(model, tokenizer, QUESTIONS[:1], shape=shape))
    np.testing.assert_allclose(collected, slow_sums(model, tokenizer, QUESTIONS[:1]), rtol=0.03)
    # The outputs themselves carry bf16's 3 digits, but nothing that is added up may be rounded to them.
    assert np.any(collected[SUMS.index("norm")].astype(np.float32) != collected[SUMS.index("norm")])


@pytest.mark.parametrize("scale", [1e20, 1e36, 1e-25])
def test_norms_whose_squares_leave_the_range_of_bf16_and_fp32_come_out_right(tokenizer, scale):
    """Published analyses hold 3.9e18 and inf for want of this."""
    model = tiny_model(dtype="bfloat16", layers=2)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.experts.down_proj.mul_(scale)
    shape = shape_of_config(model.config.to_dict())
    collected = collect(model, tokenizer, QUESTIONS, shape=shape)
    assert not collected.nonfinite.any()
    assert sum(question.skipped_tokens for question in collected.questions) == 0
    np.testing.assert_allclose(all_sums(collected)[2:], slow_sums(model, tokenizer, QUESTIONS)[2:], rtol=0.06)
    assert collected.sum("norm").max() > scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_norm_is_right_for_every_finite_value(dtype):
    scales = torch.tensor([0.0, 1e-37, 1e-30, 1e-20, 1e-13, 1e-6, 1.0, 1e6, 1e18, 1e19, 1e30, 1e37])
    outputs = (
        torch.randn(scales.numel(), 3, 500, generator=torch.Generator().manual_seed(1)) * scales[:, None, None]
    ).to(dtype)
    wide = outputs if dtype == torch.float64 else outputs.float()
    expected = torch.linalg.vector_norm(outputs.double(), dim=-1)
    torch.testing.assert_close(_norms(wide), expected, rtol=2e-6, atol=0.0)


def test_observing_changes_no_logits_and_leaves_no_trace(tokenizer, shape, model):
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    tokens = torch.tensor([tokenize(tokenizer, QUESTIONS[1], max_tokens=4096).tokens])
    registered, before = set(ALL_EXPERTS_FUNCTIONS), model.get_experts_implementation()
    with torch.inference_mode():
        plain = model(input_ids=tokens).logits
        with observing(model, shape) as observer:
            observer.expect(torch.zeros(tokens.numel(), dtype=torch.int64), 1)
            torch.testing.assert_close(model(input_ids=tokens).logits, plain, rtol=1e-5, atol=1e-5)
    assert set(ALL_EXPERTS_FUNCTIONS) == registered
    assert model.get_experts_implementation() == before
    with pytest.raises(KeyError), observing(model, shape):
        raise KeyError
    assert set(ALL_EXPERTS_FUNCTIONS) == registered
    assert model.get_experts_implementation() == before


class ExpertRows(TorchDispatchMode):
    """Counts the rows that go through an expert's matrices."""

    rows = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if "grouped_mm" in str(operation):
            self.rows += args[0].shape[0]
        return operation(*args, **(kwargs or {}))


def test_no_expert_is_computed_twice(tokenizer, shape, model):
    tokens = torch.tensor([tokenize(tokenizer, QUESTIONS[1], max_tokens=4096).tokens])
    with observing(model, shape) as observer, torch.inference_mode(), ExpertRows() as counter:
        observer.expect(torch.zeros(tokens.numel(), dtype=torch.int64), 1)
        model(input_ids=tokens, use_cache=False)
    assert counter.rows == 2 * tokens.numel() * shape.top_k * shape.layers, "up and down, once per token and expert"


@pytest.mark.parametrize(
    ("family", "experts"),
    [
        ("qwen3_moe", "Qwen3MoeExperts"),  # gated, as Gemma 4
        ("nemotron_h", "NemotronHExperts"),  # no gate
        ("gpt_oss", "GptOssExperts"),  # transposed and interleaved, with biases
        ("muse_spark", "MuseSparkExperts"),  # normed afterwards
    ],
)
def test_every_kind_of_experts_in_the_registry_is_computed_as_transformers_does(family, experts):
    from transformers.integrations.moe import grouped_mm_experts_forward

    config = SimpleNamespace(
        **dict.fromkeys(["num_experts", "n_routed_experts", "num_local_experts"], 5),
        **dict.fromkeys(["hidden_size", "moe_hidden_size"], 16),
        **dict.fromkeys(["intermediate_size", "moe_intermediate_size"], 12),
        **{"hidden_act": "silu", "mlp_hidden_act": "relu", "swiglu_alpha": 1.7, "swiglu_limit": 7.0},
        **{"moe_latent_size": None, "post_norm_eps": 1e-6},
    )
    modeling = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    module = getattr(modeling, experts)(config)
    torch.manual_seed(0)
    states, weights = torch.randn(30, 16), torch.rand(30, 2)
    chosen = torch.rand(30, 5).argsort(dim=1)[:, :2]
    with torch.inference_mode():
        for parameter in module.parameters():
            parameter.normal_()
        expected = grouped_mm_experts_forward(module, states, chosen, weights)
        weighted = (_expert_outputs(module, states, chosen) * weights.unsqueeze(-1)).sum(1)
    torch.testing.assert_close(weighted, expected, rtol=1e-5, atol=1e-5)


def test_the_language_model_of_a_multimodal_checkpoint_is_observed(tokenizer):
    from transformers import AutoModelForCausalLM, Gemma4Config

    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "num_key_value_heads": 2, "head_dim": 8}  # fmt: skip
    config = Gemma4Config(text_config=tiny_config(layers=2).to_dict(), vision_config=vision, audio_config=None)
    model = AutoModelForCausalLM.from_config(config).eval()
    before = model.get_experts_implementation()
    collected = collect(model, tokenizer, QUESTIONS, shape=shape_of_config(config.to_dict()))
    slow = np.stack(
        [sums_of_question(model, tokenize(tokenizer, prompt, max_tokens=4096).tokens) for prompt in QUESTIONS], axis=1
    )
    np.testing.assert_allclose(all_sums(collected), slow, rtol=1e-5)
    assert model.get_experts_implementation() == before


@pytest.mark.parametrize("batch_tokens", [1, 64, 100, 100_000])
def test_the_batch_size_changes_nothing_beyond_rounding(model, tokenizer, shape, batch_tokens):
    prompts = [
        ask("word " * (1 + 3 * i % 7), klass="ab"[i % 2] + str(i), answer="ok" if i % 3 else None) for i in range(7)
    ]
    alone = collect(model, tokenizer, prompts, shape=shape, batch_tokens=1, continuation_tokens=5)
    together = collect(model, tokenizer, prompts, shape=shape, batch_tokens=batch_tokens, continuation_tokens=5)
    np.testing.assert_array_equal(together.sum("tokens"), alone.sum("tokens"))
    np.testing.assert_allclose(all_sums(together), all_sums(alone), rtol=1e-5)
    assert together.questions == alone.questions


def test_padding_is_never_counted(model, tokenizer, shape):
    collected = collect(model, tokenizer, QUESTIONS, shape=shape)
    for question, prompt in enumerate(QUESTIONS):
        tokens = len(tokenize(tokenizer, prompt, max_tokens=4096).tokens)
        assert (collected.sum("tokens")[question].sum(-1) == tokens * shape.top_k).all()
    np.testing.assert_array_equal(
        question_of_token([2, 3], 4, torch.device("cpu")), torch.tensor([0, 0, -1, -1, 1, 1, 1, -1])
    )


def test_tokens_with_a_hidden_state_that_is_not_finite_are_skipped_and_counted(tokenizer):
    model = tiny_model()
    shape = shape_of_config(model.config.to_dict())
    (broken,) = tokenizer("~", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        model.model.embed_tokens.weight[broken] = float("inf")
    prompts = [ask("all well"), ask("fine so far ~ no more")]
    collected = collect(model, tokenizer, prompts, shape=shape)
    # Attention multiplies what it masks by zero, so one NaN reaches every token of its question, and no other question.
    broken_tokens = len(tokenize(tokenizer, prompts[1], max_tokens=4096).tokens)
    assert [question.skipped_tokens for question in collected.questions] == [0, broken_tokens]
    assert (all_sums(collected)[:, 1] == 0).all()
    np.testing.assert_allclose(all_sums(collected)[:, :1], slow_sums(model, tokenizer, prompts[:1]), rtol=1e-5)
    assert f"{broken_tokens} tokens were skipped" in collected.source


def test_a_token_whose_expert_overflows_is_skipped_in_that_layer_only(tokenizer):
    model = tiny_model()
    shape = shape_of_config(model.config.to_dict())
    before = slow_sums(model, tokenizer, QUESTIONS)
    with torch.no_grad():
        model.model.layers[5].experts.down_proj[4] = 3e38
    collected = collect(model, tokenizer, QUESTIONS, shape=shape)
    assert not collected.nonfinite.any()
    skipped = np.array([question.skipped_tokens for question in collected.questions])
    np.testing.assert_array_equal(skipped, before[0, :, 5, 4])
    assert skipped.sum() > 0
    np.testing.assert_array_equal(
        collected.sum("tokens")[:, 5].sum(-1) + skipped * shape.top_k, before[0, :, 5].sum(-1)
    )
    np.testing.assert_allclose(all_sums(collected)[:, :, :5], before[:, :, :5], rtol=1e-5)


def test_long_prompts_are_cut_and_it_is_said(model, tokenizer, shape, caplog):
    prompts = [ask("long " * 40), ask("short"), ask("long " * 40, answer=None, klass="open")]
    collected = collect(model, tokenizer, prompts, shape=shape, max_tokens=64, continuation_tokens=4)
    assert [question.truncated for question in collected.questions] == [True, False, True]
    tokens = collected.sum("tokens")[:, 0].sum(-1) / shape.top_k
    assert tokens[0] == 64
    assert 64 <= tokens[2] <= 68
    assert "2 questions were cut to 64 tokens" in collected.source
    assert "2 questions were cut to 64 tokens" in caplog.text


def test_without_an_answer_the_model_is_observed_on_its_own_greedy_words(model, tokenizer, shape):
    prompts = [ask("And then?", answer=None), ask("What comes after that?", answer=None)]
    start = [tokenize(tokenizer, prompt, max_tokens=4096) for prompt in prompts]
    sequences = dict(continue_greedily(model, start, 6, 0))
    for index, sequence in enumerate(start):
        tokens = list(sequence.tokens)
        with torch.inference_mode():
            for _ in range(6):
                following = int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax())
                if following == model.config.eos_token_id:
                    break
                tokens.append(following)
        assert list(sequences[index].tokens) == tokens
    collected = collect(model, tokenizer, prompts, shape=shape, continuation_tokens=6)
    slow = np.stack([sums_of_question(model, list(sequences[index].tokens)) for index in range(2)], axis=1)
    np.testing.assert_allclose(all_sums(collected), slow, rtol=1e-5)


def test_a_continuation_ends_before_the_end_of_sequence(tokenizer):
    model = tiny_model(layers=1)
    start = tokenize(tokenizer, ask("And?", answer=None), max_tokens=4096)
    ((_, free),) = continue_greedily(model, [start], 8, 0)
    model.generation_config.eos_token_id = [free.tokens[len(start.tokens) + 2]]
    ((_, ended),) = continue_greedily(model, [start], 8, 0)
    first = free.tokens.index(model.generation_config.eos_token_id[0], len(start.tokens))
    assert ended.tokens == free.tokens[:first]


def test_the_chat_template_is_applied_without_thinking(tokenizer):
    sequence = tokenize(tokenizer, ask("Hi", answer="Ho"), max_tokens=4096)
    assert tokenizer.decode(sequence.tokens) == "<bos><|turn>user\nHi<turn|>\n<|turn>model\nHo"
    thinking = tokenize(tokenizer, ask("Hi", answer="Ho"), max_tokens=4096, thinking=True)
    assert "<|think|>" in tokenizer.decode(thinking.tokens)


def test_a_prompt_that_the_template_refuses_is_named(model, shape):
    picky = tiny_tokenizer()
    picky.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(InputError, match=r"'talk: Is it\?'.*no system role"):
        collect(model, picky, QUESTIONS, shape=shape)
    picky.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        collect(model, picky, QUESTIONS, shape=shape)


def test_another_models_shape_is_refused(model, tokenizer, shape):
    wrong = [
        MoeShape("gemma4", shape.layer_ids[:-1], shape.experts, shape.top_k, 48, 40),
        MoeShape("gemma4", shape.layer_ids, shape.experts + 1, shape.top_k, 48, 40),
    ]
    for other in wrong:
        with pytest.raises(MismatchError):
            collect(model, tokenizer, QUESTIONS, shape=other)
    with pytest.raises(UnsupportedError, match="no module"):
        from studio.contributions.modules import modules_by_layer

        modules_by_layer(model, "mlp.experts", shape)
    assert GEMMA4.experts_module == "experts"


def test_progress_counts_every_answer_and_every_observation(model, tokenizer, shape):
    calls = []
    prompts = [*QUESTIONS, ask("open", answer=None)]
    collect(
        model, tokenizer, prompts, shape=shape, continuation_tokens=2,
        progress=lambda done, total, unit="", message="": calls.append((done, total, unit)),
    )  # fmt: skip
    assert calls[-1] == (5, 5, "questions")
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)


def test_batches_hold_every_question_once_and_stay_in_budget():
    lengths = [5, 100, 7, 7, 3, 60, 50, 1]
    batches = plan_batches(lengths, 64)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= 64
