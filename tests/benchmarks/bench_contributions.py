"""What observing costs, alone and with imatrix: the pass beside the plain forward pass on the same batches."""

from __future__ import annotations

import time
from collections.abc import Callable

BUDGET = 1.10
ROUNDS = 11
QUESTIONS, TOKENS = 4, 128
# The ratio of expert work to observation is that of the expert size, so that is Gemma 4 26B-A4B's own; so are top-k and
# the tokens that an expert sees in one pass (512 × 8 ÷ 16 = 256, as 4,096 tokens over 128 experts).
SIZES = {"hidden": 704, "expert_size": 704, "experts": 16, "top_k": 8, "layers": 2}


def benchmarks() -> dict[str, Callable[[], dict]]:
    return {
        "contribution_pass_vs_forward": contribution_pass_vs_forward,
        "imatrix_pass_vs_forward": imatrix_pass_vs_forward,
    }


def contribution_pass_vs_forward() -> dict:
    """The worse ratio of two dtypes, each of the quickest of interleaved runs: whatever else runs here only adds."""
    worst, sizes = _worst(energies=False)
    return {"value": worst, "budget": BUDGET, "met": worst <= BUDGET, "sizes": sizes}


def imatrix_pass_vs_forward() -> dict:
    """The same where the pass also measures what flows into every weight; it has no budget of its own."""
    worst, sizes = _worst(energies=True)
    return {"value": worst, "budget": None, "met": None, "sizes": sizes}


def _worst(energies: bool) -> tuple[float, dict]:
    ratios = {dtype: _ratio(dtype, energies) for dtype in ("float32", "bfloat16")}
    sizes = {**SIZES, "questions": QUESTIONS, "tokens_per_question": TOKENS, "rounds": ROUNDS, "by_dtype": ratios}
    return max(ratio["value"] for ratio in ratios.values()), sizes


def _ratio(dtype: str, energies: bool) -> dict[str, float]:
    import torch

    from studio.contributions.observer import observing, question_of_token
    from studio.families import shape_of_config

    model = _model(dtype)
    shape = shape_of_config(model.config.to_dict())
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 500, (QUESTIONS, TOKENS), generator=generator)
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "use_cache": False, "logits_to_keep": 1}
    question = question_of_token([TOKENS] * QUESTIONS, TOKENS, tokens.device)

    def plain() -> None:
        model(**batch)

    def observed() -> None:
        with observing(model, shape, energies) as observer:
            observer.expect(question, QUESTIONS)
            model(**batch)
            observer.totals()
            if observer.meter:
                observer.meter.totals(lambda: model(**batch))

    seconds: dict[Callable[[], None], list[float]] = {plain: [], observed: []}
    with torch.inference_mode():
        plain()
        observed()
        for turn in range(ROUNDS):
            for run in (plain, observed) if turn % 2 else (observed, plain):
                start = time.perf_counter()
                run()
                seconds[run].append(time.perf_counter() - start)
    forward, pass_ = min(seconds[plain]), min(seconds[observed])
    return {"value": round(pass_ / forward, 4), "forward_s": round(forward, 4), "pass_s": round(pass_, 4)}


def _model(dtype: str):
    """A Gemma 4 mixture of experts with few layers and the real one's expert size."""
    import torch
    from transformers import Gemma4ForCausalLM, Gemma4TextConfig

    torch.manual_seed(0)
    config = Gemma4TextConfig(
        vocab_size=512,
        hidden_size=SIZES["hidden"],
        intermediate_size=2112,
        num_hidden_layers=SIZES["layers"],
        layer_types=["sliding_attention"] * (SIZES["layers"] - 1) + ["full_attention"],
        num_attention_heads=8,
        num_key_value_heads=4,
        num_global_key_value_heads=2,
        head_dim=64,
        global_head_dim=128,
        attention_k_eq_v=True,
        enable_moe_block=True,
        num_experts=SIZES["experts"],
        top_k_experts=SIZES["top_k"],
        moe_intermediate_size=SIZES["expert_size"],
        hidden_size_per_layer_input=0,
        vocab_size_per_layer_input=512,
    )
    model = Gemma4ForCausalLM(config).eval()
    with torch.no_grad():
        for layer in model.model.layers:  # no router of equal logits
            layer.router.proj.weight.normal_(0.0, 0.5)
    return model.to(getattr(torch, dtype))
