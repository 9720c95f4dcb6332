"""How long the page takes to answer, against a gradio page that says hello."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 3
BUDGET = 1.5
LONGEST_S = 120.0

HELLO = """
import sys
import gradio as gr
with gr.Blocks(analytics_enabled=False) as page:
    gr.Markdown("Hello")
page.launch(server_port=int(sys.argv[1]), run_history=False, enable_monitoring=False, ssr_mode=False)
"""


def benchmarks() -> dict[str, Callable[[], dict[str, Any]]]:
    return {"startup_vs_bare_gradio": startup_vs_bare_gradio}


def startup_vs_bare_gradio() -> dict[str, Any]:
    """Seconds from starting `python app.py` to its first page, over those of the smallest gradio app; medians."""
    ours, bare = [], []
    with tempfile.TemporaryDirectory() as home:
        for _ in range(ROUNDS):  # in turn, so that a busy moment of the machine meets both
            bare.append(_seconds_to_first_page(["-c", HELLO]))
            ours.append(_seconds_to_first_page(["app.py", "--no-browser", "--workspace", home, "--port"]))
    ratio = statistics.median(ours) / statistics.median(bare)
    sizes = {"ours_s": round(statistics.median(ours), 2), "bare_s": round(statistics.median(bare), 2), "rounds": ROUNDS}
    return {"value": round(ratio, 2), "budget": BUDGET, "met": ratio <= BUDGET, "sizes": sizes}


def _seconds_to_first_page(arguments: Sequence[str]) -> float:
    """Seconds until `python ARGUMENTS… PORT` answers on its port with a page."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"}
    quiet = subprocess.DEVNULL
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments, str(port)], cwd=ROOT, env=environment, stdout=quiet, stderr=quiet
    )
    try:
        while time.perf_counter() - start < LONGEST_S:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=LONGEST_S) as answer:
                    if answer.status == 200:
                        return time.perf_counter() - start
            except (urllib.error.URLError, OSError):
                if process.poll() is not None:
                    raise RuntimeError(f"{arguments[0]} ended with {process.returncode}") from None
                time.sleep(0.02)
        raise RuntimeError(f"{arguments[0]} did not answer within {LONGEST_S} s")
    finally:
        process.kill()
        process.wait()
