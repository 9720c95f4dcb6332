"""A grid small enough to check by eye, and a model folder that is nothing but headers that fit it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from components.library import Library
from studio.contributions import file
from studio.contributions.model import Contributions, Question
from studio.families import MoeShape
from studio.workspace import Workspace

LAYERS, EXPERTS, TOP_K, HIDDEN, INNER = 3, 8, 2, 64, 32
SHAPE = MoeShape("gemma4", tuple(range(LAYERS)), EXPERTS, TOP_K, HIDDEN, INNER)


@pytest.fixture
def contributions() -> Contributions:
    """Two classes; expert e of layer l has weight e + 1 in math and 8 − e in code."""
    rising = np.tile(np.arange(1, EXPERTS + 1, dtype=np.float64), (LAYERS, 1))
    values = np.stack([rising, rising[:, ::-1]])
    sums = dict.fromkeys(("tokens", "weighted_norm", "weighted_norm_squared"), values)
    questions = (Question("q1", "math"), Question("q2", "code"))
    return Contributions(SHAPE, "tiny", questions, sums, "made for a test")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "home")


@pytest.fixture
def library(workspace: Workspace, contributions: Contributions) -> Library:
    """A workspace with one model, `pear`, and one analysis of it."""
    model_folder(workspace.references / "pear")
    file.save(contributions, workspace.contributions / "pear.safetensors")
    return Library(workspace)


@pytest.fixture
def make_model() -> Callable[..., Path]:
    return model_folder


def model_folder(folder: Path, experts: int = EXPERTS) -> Path:
    """A Gemma 4 checkpoint of the smallest kind that its header describes correctly; the weights are zeros."""
    folder.mkdir(parents=True)
    config = {
        "model_type": "gemma4_text",
        "num_hidden_layers": LAYERS,
        "num_experts": experts,
        "top_k_experts": TOP_K,
        "hidden_size": HIDDEN,
        "moe_intermediate_size": INNER,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {"model.embed_tokens.weight": np.zeros((32, HIDDEN), np.float16)}
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        tensors[f"{name}.experts.gate_up_proj"] = np.zeros((experts, 2 * INNER, HIDDEN), np.float16)
        tensors[f"{name}.experts.down_proj"] = np.zeros((experts, HIDDEN, INNER), np.float16)
        tensors[f"{name}.router.proj.weight"] = np.zeros((experts, HIDDEN), np.float16)
    save_file(tensors, folder / "model.safetensors")
    return folder
