"""From a moved slider, or a click that keeps an expert, to new pixels, in a real browser, on grids of several sizes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from studio.contributions import file
from studio.contributions.model import SUMS, Contributions, Question
from studio.families import MoeShape
from tests.chromium import chromium

ROOT = Path(__file__).resolve().parents[2]
BUDGET_MS = 250.0
MOVES = 60
WARM_UP = 5
HIDDEN, INNER = 64, 32
CLASSES = 8

MOVE = """async (value) => {
  const slider = document.querySelector('#drop input[type=range]');
  const plot = document.querySelector('.plot');
  const before = plot.dataset.drawn;
  const frame = () => new Promise(requestAnimationFrame);
  const start = performance.now();
  slider.value = value;
  slider.dispatchEvent(new Event('input', { bubbles: true }));
  while (plot.dataset.drawn === before) await frame();
  await frame();
  return performance.now() - start;
}"""


CLICK = """async ([row, expert]) => {
  const plot = document.querySelector('.plot'), box = plot.getBoundingClientRect();
  const { xaxis, yaxis } = plot._fullLayout, { layers, experts } = plot.layout.meta;
  const at = {
    clientX: box.left + xaxis._offset + (xaxis._length * (expert + 0.5)) / experts,
    clientY: box.top + yaxis._offset + (yaxis._length * (row + 0.5)) / layers.length,
    bubbles: true, cancelable: true,
  };
  plot.setPointerCapture = () => {};  // there is no real pointer to capture
  const before = plot.dataset.drawn;
  const frame = () => new Promise(requestAnimationFrame);
  const start = performance.now();
  plot.dispatchEvent(new PointerEvent('pointerdown', at));
  plot.dispatchEvent(new PointerEvent('pointerup', at));
  while (plot.dataset.drawn === before) await frame();
  await frame();
  return performance.now() - start;
}"""


def benchmarks() -> dict[str, Callable[[], dict[str, Any]]]:
    return {
        "slider_to_pixels_6x32_ms": partial(slider_to_pixels, layers=6, experts=32, top_k=4),
        "slider_to_pixels_30x128_ms": partial(slider_to_pixels, layers=30, experts=128, top_k=8),
        "click_to_pixels_30x128_ms": partial(click_to_pixels, layers=30, experts=128, top_k=8, classes=8),
        "click_to_pixels_61x384_ms": partial(click_to_pixels, layers=61, experts=384, top_k=8, classes=16),
    }


def slider_to_pixels(layers: int, experts: int, top_k: int) -> dict[str, Any]:
    """The 95th percentile over moves of the drop slider, in milliseconds."""
    shape = MoeShape("gemma4", tuple(range(layers)), experts, top_k, HIDDEN, INNER)
    with _page_of(shape, CLASSES) as url:
        return _measured(_moves(url, experts - top_k), shape, CLASSES)


def click_to_pixels(layers: int, experts: int, top_k: int, classes: int) -> dict[str, Any]:
    """The 95th percentile over clicks that keep one expert each, in milliseconds."""
    shape = MoeShape("gemma4", tuple(range(layers)), experts, top_k, HIDDEN, INNER)
    with _page_of(shape, classes) as url:
        return _measured(_clicks(url, shape), shape, classes)


def _measured(times: list[float], shape: MoeShape, classes: int) -> dict[str, Any]:
    slow, middle = (float(np.percentile(times, percent)) for percent in (95, 50))
    grid = {"layers": shape.layers, "experts": shape.experts, "classes": classes}
    sizes = {**grid, "moves": MOVES, "median_ms": round(middle, 1)}
    return {"value": round(slow, 1), "budget": BUDGET_MS, "met": slow <= BUDGET_MS, "sizes": sizes}


@contextmanager
def _page_of(shape: MoeShape, classes: int) -> Iterator[str]:
    """The address of a page that shows a made-up analysis of `shape`."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        _write_model(home / "grid", shape)
        file.save(_analysis(shape, classes), home / "grid.safetensors")
        flags = ["--reference", str(home / "grid"), "--contributions", str(home / "grid.safetensors")]
        with _running(["--workspace", str(home / "workspace"), *flags]) as url:
            yield url


def _clicks(url: str, shape: MoeShape) -> list[float]:
    """Milliseconds of each click, after some to warm up."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.context.set_default_timeout(120_000)
        page.goto(url)
        page.wait_for_selector(".plot[data-drawn]")
        page.wait_for_timeout(2000)
        page.click("#map-mode label:has-text('Keep')")
        cells = np.random.default_rng(0).choice(shape.layers * shape.experts, WARM_UP + MOVES, replace=False)
        times = [float(page.evaluate(CLICK, list(divmod(int(cell), shape.experts)))) for cell in cells]
    return times[WARM_UP:]


def _moves(url: str, most: int) -> list[float]:
    """Milliseconds of each move, after some to warm up."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.context.set_default_timeout(120_000)
        page.goto(url)
        page.wait_for_selector(".plot[data-drawn]")
        page.wait_for_timeout(2000)
        drops = (
            np.cumsum(np.random.default_rng(0).integers(1, most - 1, WARM_UP + MOVES)) % most
        )  # never twice the same
        times = [float(page.evaluate(MOVE, int(drop))) for drop in drops]
    return times[WARM_UP:]


def _analysis(shape: MoeShape, classes: int) -> Contributions:
    random = np.random.default_rng(0)
    values = random.lognormal(sigma=1.0, size=(10 * classes, shape.layers, shape.experts))
    questions = tuple(Question(f"q{index}", f"class {index % classes}") for index in range(len(values)))
    return Contributions(shape, "grid", questions, dict.fromkeys(SUMS, values), "")


def _write_model(folder: Path, shape: MoeShape) -> None:
    """A checkpoint whose header has the right grid; the page reads no weights."""
    folder.mkdir()
    config = {
        "model_type": "gemma4_text",
        "num_hidden_layers": shape.layers,
        "num_experts": shape.experts,
        "top_k_experts": shape.top_k,
        "hidden_size": HIDDEN,
        "moe_intermediate_size": INNER,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {"model.embed_tokens.weight": np.zeros((32, HIDDEN), np.float16)}
    for layer in range(shape.layers):
        name = f"model.layers.{layer}"
        tensors[f"{name}.experts.gate_up_proj"] = np.zeros((shape.experts, 2 * INNER, HIDDEN), np.float16)
        tensors[f"{name}.experts.down_proj"] = np.zeros((shape.experts, HIDDEN, INNER), np.float16)
        tensors[f"{name}.router.proj.weight"] = np.zeros((shape.experts, HIDDEN), np.float16)
    save_file(tensors, folder / "model.safetensors")


@contextmanager
def _running(flags: list[str]) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    process = subprocess.Popen([sys.executable, "app.py", "--no-browser", "--port", str(port), *flags], cwd=ROOT)
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(url, timeout=10):
                    break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()
