"""The demo model, pruned and quantized by the real job: what every station of publishing starts from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from studio.contributions.file import load
from studio.jobs.tasks import check
from studio.progress import silent
from studio.recipes.apply import make_map
from studio.recipes.presets import preset
from studio.workspace import Workspace

ASSETS = Path(__file__).parents[2] / "assets"
CONTRIBUTIONS = ASSETS / "demo-contributions.safetensors"
IMATRIX = Path(__file__).parents[1] / "quantize" / "demo-imatrix.gguf"
NAME = "demo-24e"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with the artifact `demo-24e`: safetensors, Q4_K_M, and a CD tier made with an importance matrix."""
    workspace = Workspace.open(tmp_path_factory.mktemp("built"))
    shutil.copy(IMATRIX, workspace.imatrix / "prompts.gguf")
    recipe = preset("98e-v4", drop=8)
    parameters = {
        "reference": "demo",
        "map": make_map(load(CONTRIBUTIONS), recipe).to_json(),
        "name": NAME,
        "outputs": ["safetensors", "gguf"],
        "tiers": ["Q4_K_M", "CD-Q4_K_M"],
        "imatrix": "imatrix/prompts.gguf",
        "recipe": recipe.to_json(),
        "contributions": str(CONTRIBUTIONS),
    }
    check("build", parameters, workspace).run(workspace, silent)
    return workspace


@pytest.fixture
def artifact(built: Workspace, own_workspace: Path) -> Path:
    """A copy of the artifact in this test's own workspace, with the importance matrix and the conversion."""
    for room in ("artifacts", "imatrix"):
        shutil.copytree(built.root / room, own_workspace / room)
    (own_workspace / "cache").symlink_to(built.cache)
    return own_workspace / "artifacts" / NAME
