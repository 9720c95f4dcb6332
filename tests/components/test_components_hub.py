"""Sizes of models that are elsewhere: from the stand-in of the Hub, and in words where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from components.hub import hub_html
from tests.checkpoints.test_remote_header import hub as hub  # noqa: PLC0414 (a fixture)

ROOT = Path(__file__).parents[2]


def test_a_model_on_the_hub_has_a_table_of_sizes(hub: tuple[str, Path]) -> None:
    script = "import sys; from components.hub import hub_html; print(hub_html(sys.argv[1]))"
    environment = {**os.environ, "HF_ENDPOINT": hub[0], "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script, "someone/demo"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "data-tier='Q4_K_M'" in done.stdout and "32 experts" in done.stdout and "16 experts" in done.stdout


def test_without_the_hub_it_says_so_and_names_nothing_for_nothing() -> None:
    assert "HF_HUB_OFFLINE is set" in hub_html("someone/demo")
    assert "No model was named" in hub_html(" ")
    assert "names no model" in hub_html("<script>") and "<script>" not in hub_html("<script>")
