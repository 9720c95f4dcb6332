"""The walls between the rooms, as a running program sees them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIGHT_ROOMS = [
    "studio.families",
    "studio.recipes.apply",
    "studio.recipes.preview",
    "studio.checkpoints.gguf_header",
    "studio.checkpoints.reference",
    "studio.quantize.plan",
    "studio.jobs.store",
    "studio.jobs.runner",
    "studio.evaluate.virtual_server",
    "studio.evaluate.search_run",
]


def modules_of_the_engine() -> list[str]:
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "studio").rglob("*.py"))
        if path.name not in ("__init__.py", "__main__.py")
    ]


def run(script: str) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=ROOT, check=True, timeout=240)


def test_the_engine_works_where_gradio_and_plotly_are_not_installed() -> None:
    run(
        "import sys, importlib; sys.modules['gradio'] = sys.modules['plotly'] = None\n"
        f"for name in {modules_of_the_engine()}: importlib.import_module(name)"
    )


@pytest.mark.parametrize("room", LIGHT_ROOMS)
def test_looking_and_choosing_load_no_model_runtime(room: str) -> None:
    run(
        f"import sys, {room}\n"
        "heavy = {'torch', 'transformers', 'xllamacpp'} & set(sys.modules)\n"
        f"assert not heavy, f'{room} imports {{heavy}}'"
    )
