"""How long a new map of the demo model takes to be measured without building anything."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BUDGET_S = 3.0
PER_CLASS = 40
MAPS = 5


def benchmarks() -> dict[str, Callable[[], dict[str, Any]]]:
    return {"virtual_measure_demo_s": virtual_measure_demo_s}


def virtual_measure_demo_s() -> dict[str, Any]:
    """The median over new maps, with the reference's logits kept: one masked pass and the comparison, in seconds."""
    import torch

    from studio.contributions.sources import prompts_of
    from studio.evaluate.held_out import DEMO_MODEL, DEMO_PROMPTS, held_out
    from studio.evaluate.virtual import Ruler, VirtualModel
    from studio.recipes.dropmap import DropMap

    virtual = VirtualModel.load(DEMO_MODEL)
    prompts = held_out(virtual.tokenizer, prompts_of(str(DEMO_PROMPTS), per_class=PER_CLASS))
    shape, seconds, cpu = virtual.shape, [], []
    with tempfile.TemporaryDirectory(prefix="espalier-bench-") as folder:
        ruler = Ruler(virtual, prompts, Path(folder))
        start = time.perf_counter()
        ruler.prepare()
        reference_s = time.perf_counter() - start
        for seed in range(MAPS):
            lots = np.random.default_rng(seed).random((shape.layers, shape.experts)).argsort(axis=1)
            begin = time.process_time()
            found = ruler.measure(DropMap.from_mask(lots < shape.experts // 2, shape.layer_ids))
            seconds.append(found.seconds)
            cpu.append(time.process_time() - begin)
    median = float(np.median(seconds))
    sizes = {
        "prompts": found.prompts,
        "tokens": sum(len(passage.tokens) for passage in prompts.passages),
        "counted_tokens": found.overall.tokens,
        "threads": torch.get_num_threads(),
        "reference_s": round(reference_s, 2),
        "slowest_s": round(max(seconds), 2),
        "cpu_s": round(float(np.median(cpu)), 2),
    }
    return {"value": round(median, 2), "budget": BUDGET_S, "met": median <= BUDGET_S, "sizes": sizes}
