"""The six sums recomputed the slow, obvious way: a loop over tokens and experts, in fp64, from what the experts saw."""

from __future__ import annotations

import numpy as np

from studio.contributions.model import SUMS


def experts_inputs(model, tokens, path="experts"):
    """(hidden states, experts chosen, weights) of every decoder layer, on one plain pass over one question."""
    import torch

    seen = []
    hooks = [
        layer.get_submodule(path).register_forward_pre_hook(lambda module, inputs: seen.append((module, *inputs)))
        for layer in model.get_decoder().layers
    ]
    try:
        with torch.inference_mode():
            model(input_ids=torch.tensor([tokens]), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def sums_of_question(model, tokens):
    """Sums `[6, L, E]` of one question."""
    import torch

    layers = experts_inputs(model, tokens)
    sums = np.zeros((len(SUMS), len(layers), layers[0][0].num_experts))
    for layer, (module, hidden_states, top_k_index, top_k_weights) in enumerate(layers):
        gate_up, down = module.gate_up_proj.double(), module.down_proj.double()
        for state, chosen, weights in zip(hidden_states, top_k_index.tolist(), top_k_weights.tolist(), strict=True):
            for expert, weight in zip(chosen, weights, strict=True):
                gate, up = (gate_up[expert] @ state.double()).chunk(2)
                output = (down[expert] @ (torch.nn.functional.gelu(gate, approximate="tanh") * up)).detach().numpy()
                norm = np.abs(output).max() * np.linalg.norm(output / np.abs(output).max())
                sums[:, layer, expert] += [1, weight, norm, norm**2, weight * norm, (weight * norm) ** 2]
    return sums
