"""Where a model runs is known from its header, its quantization and the card."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.checkpoints.gguf_header import GgufHeader
from studio.quantize import fit
from studio.quantize.fit import CARDS, CUDA_CONTEXT, GIB, Need, card_bytes, gpu_of_answer, placement, this_gpu


def test_a_model_is_on_the_card_or_leaves_its_experts_in_memory_or_does_not_run() -> None:
    need = Need(weights=10 * GIB, expert_weights=8 * GIB, kv=GIB, compute=GIB)
    whole = 12 * GIB + CUDA_CONTEXT
    assert placement(need, whole, 0) == "card"
    assert placement(need, whole - 1, 8 * GIB) == "experts in RAM"
    assert placement(need, whole - 1, 8 * GIB - 1) == "no"
    assert placement(need, whole - 8 * GIB, 8 * GIB) == "experts in RAM"
    assert placement(need, whole - 8 * GIB - 1, 64 * GIB) == "no"


def test_a_dense_model_has_no_experts_to_leave_in_memory() -> None:
    assert placement(Need(10 * GIB, 0, 0, 0), 8 * GIB, 64 * GIB) == "no"


@pytest.mark.parametrize("card", CARDS)
def test_a_little_of_a_card_is_not_for_models(card: int) -> None:
    assert 0.9 * card * GIB < card_bytes(card) < card * GIB


def test_the_compute_buffer_holds_at_least_the_logits_of_a_batch(gemma4: GgufHeader) -> None:
    assert fit.compute_bytes(gemma4) > fit.logit_bytes(gemma4) == 512 * 262144 * 4


@pytest.mark.parametrize(
    ("said", "gpu"),
    [
        ("NVIDIA GeForce RTX 4090, 24564\n", ("NVIDIA GeForce RTX 4090", 24564 << 20)),
        ("NVIDIA H100 80GB HBM3, 81559\nNVIDIA H100 80GB HBM3, 81559\n", ("NVIDIA H100 80GB HBM3", 81559 << 20)),
        ("NVIDIA GB10, [N/A]\n", None),
        ("No devices were found\n", None),
        ("", None),
    ],
)
def test_the_answer_of_nvidia_smi_is_read(said: str, gpu: tuple[str, int] | None) -> None:
    assert gpu_of_answer(said) == gpu


@pytest.mark.parametrize("script", ["exit 9", "exec sleep 30", r"printf '\377\376'"])
def test_a_command_that_fails_hangs_or_babbles_is_no_card(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setattr(fit.shutil, "which", lambda _: str(command))
    monkeypatch.setattr(fit, "QUERY_S", 0.3)
    this_gpu.cache_clear()
    assert this_gpu() is None
    this_gpu.cache_clear()
