"""What cards have, and what nvidia-smi says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.checkpoints.gguf_header import GgufHeader
from studio.quantize import fit
from studio.quantize.fit import CARDS, card_bytes, gpu_of_answer, this_gpu
from studio.units import GIB


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
