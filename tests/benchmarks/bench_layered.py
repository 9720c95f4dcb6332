"""What a contribution pass layer by layer takes of memory, beside the largest layer and the hidden states.

The model is generated: eight layers of 200 MB, far larger than everything else in it, in the layout of the Hub (one
tensor per expert, which has to be fused) and as transformers holds it. The pass runs in a fresh process, which has seen
a tiny model before, so that libraries are not counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

BUDGET = 1.5
LAYERS, EXPERTS, TOP_K, HIDDEN, EXPERT = 8, 32, 4, 1024, 512
QUESTIONS, LETTERS = 8, 490
ROOT = Path(__file__).parents[2]

CHILD = """
import json, re, sys
from pathlib import Path
from studio.contributions.layered import collect_layered
from studio.contributions.layered_model import LayeredModel
from studio.contributions.prompts import Prompt
from studio.families import shape_of_config
from tests.contributions.tiny import tiny_tokenizer

questions = [Prompt(str(i), "talk", ({{"role": "user", "content": "why " * {words}}},), "Yes.") for i in range({count})]

def memory(kind):
    return int(re.search(kind + r":\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

def observe(folder):
    model = LayeredModel(Path(folder))
    shape = shape_of_config(model.model.config.to_dict())
    collect_layered(model, tiny_tokenizer(), questions, shape=shape)
    layers = [sum(weights.nbytes for weights in layer.parameters()) for layer in model.layers]
    return max(layers)

observe(sys.argv[1])
before = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
layer = observe(sys.argv[2])
print(json.dumps({{"peak": memory("VmHWM") - before, "layer": layer}}))
"""


def benchmarks() -> dict[str, Callable[[], dict[str, Any]]]:
    return {"layered_peak_vs_layer": layered_peak_vs_layer}


def layered_peak_vs_layer() -> dict[str, Any]:
    """The worse ratio of two layouts."""
    hidden = QUESTIONS * (LETTERS + 30) * HIDDEN * 4
    ratios, peaks = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        warm = _write(Path(scratch) / "warm", layers=2, hidden=64, expert=32, fused=False)
        for fused in (False, True):
            folder = _write(Path(scratch) / "model", layers=LAYERS, hidden=HIDDEN, expert=EXPERT, fused=fused)
            script = CHILD.format(words=LETTERS // 4, count=QUESTIONS)
            command = [sys.executable, "-c", script, str(warm), str(folder)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
            measured = json.loads(done.stdout)
            layout = "as in memory" if fused else "one tensor per expert"
            peaks[layout] = measured["peak"] >> 20
            ratios[layout] = round(measured["peak"] / (measured["layer"] + hidden), 3)
    worst = max(ratios.values())
    sizes = {
        "layers": LAYERS,
        "layer_mib": measured["layer"] >> 20,
        "hidden_states_mib": hidden >> 20,
        "peak_mib": peaks,
        "by_layout": ratios,
    }
    return {"value": worst, "budget": BUDGET, "met": worst <= BUDGET, "sizes": sizes}


def _write(folder: Path, *, layers: int, hidden: int, expert: int, fused: bool) -> Path:
    """A Qwen3-MoE-shaped checkpoint of random fp32 weights, one file per layer."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "qwen3_moe",
        vocab_size=300,
        hidden_size=hidden,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        num_experts=EXPERTS,
        num_experts_per_tok=TOP_K,
        moe_intermediate_size=expert,
        dtype="float32",
    )
    with torch.device("meta"):
        wanted = AutoModelForCausalLM.from_config(config).state_dict()
    config.architectures = ["Qwen3MoeForCausalLM"]
    folder.mkdir(exist_ok=True)
    config.save_pretrained(folder)
    files: dict[str, dict[str, Any]] = {}
    for name in wanted:
        part = name.split(".")[2] if ".layers." in name else "rest"
        files.setdefault(f"model-{part}.safetensors", {})[name] = wanted[name].shape
    generator = torch.Generator().manual_seed(0)
    index = {}
    for file, shapes in files.items():
        tensors = {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()}
        if not fused:
            tensors = dict(pair for name, tensor in tensors.items() for pair in _apart(name, tensor))
        save_file(tensors, folder / file)
        index.update(dict.fromkeys(tensors, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def _apart(name: str, tensor: Any) -> list[tuple[str, Any]]:
    """A fused tensor as the Hub's checkpoints hold it: one per expert, gate and up apart."""
    if not name.endswith(("gate_up_proj", "down_proj")) or tensor.ndim != 3:
        return [(name, tensor)]
    start, _, kind = name.rpartition(".")
    parts = tensor.chunk(2, dim=1) if kind == "gate_up_proj" else (tensor,)
    kinds = ("gate_proj", "up_proj") if kind == "gate_up_proj" else (kind,)
    return [
        (f"{start}.{expert}.{one}.weight", part[expert].contiguous())
        for one, part in zip(kinds, parts, strict=True)
        for expert in range(tensor.shape[0])
    ]
