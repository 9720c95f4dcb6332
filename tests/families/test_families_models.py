"""Every family, on a tiny random model: observed, pruned, masked, converted."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from studio.checkpoints.gguf_header import read_header
from studio.checkpoints.gguf_outline import outline
from studio.checkpoints.prune_gguf import prune_gguf
from studio.checkpoints.prune_safetensors import prune_safetensors
from studio.checkpoints.reference import open_reference
from studio.contributions.model import SUMS, Contributions, Question
from studio.contributions.modules import modules_by_layer
from studio.contributions.observer import observing, question_of_token
from studio.errors import FormatError, InputError, MismatchError, UnsupportedError
from studio.evaluate.masking import masked
from studio.families import ExpertPlace, draft_layers_of_gguf, family_named, shape_of_config, shape_of_gguf
from studio.recipes.apply import make_map, scores
from studio.recipes.dropmap import DropMap
from studio.recipes.presets import preset
from tests.families.tiny_models import CONFIGS, NAMED_DRAFT, NUMBERED_DRAFT, add_draft, save, tiny

TOKENS = torch.randint(3, 120, (2, 24), generator=torch.Generator().manual_seed(0))
FAMILIES = sorted(CONFIGS)
CONVERTED = sorted(CONFIGS.keys() - {"gemma4_text", "phimoe"})
"""Gemma 4's converter needs a vocabulary (tests/checkpoints has one), and PhiMoE's tables for long texts."""


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny(request.param)


def shape_of(model: Any) -> Any:
    return shape_of_config(model.config.to_dict())


def drop_of(shape: Any, per_group: int, seed: int = 0) -> DropMap:
    """Other experts in every layer, equally many of each group."""
    lots = np.random.default_rng(seed)
    size = shape.experts // shape.groups
    mask = np.zeros((shape.layers, shape.experts), dtype=bool)
    for row in mask:
        for start in range(0, shape.experts, size):
            row[start + lots.permutation(size)[:per_group]] = True
    return DropMap.from_mask(mask, shape.layer_ids, family=shape.family)


def logits_of(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=TOKENS, use_cache=False).logits


@pytest.mark.parametrize("layout", ["hub", "fused", "shards"])
def test_the_masked_reference_is_the_pruned_checkpoint(model: Any, layout: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    shape = shape_of(model)
    folder = save(model, tmp_path / "whole", fused=layout == "fused", shards="40KB" if layout == "shards" else None)
    drop = drop_of(shape, per_group=1 if shape.groups > 1 else 5)
    prune_safetensors(folder, drop, tmp_path / "pruned")
    pruned = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned", dtype=torch.float32).eval()
    assert shape_of(pruned).experts == drop.kept_count
    with masked(model, drop.mask, shape):
        virtual = logits_of(model)
    plain = logits_of(model)
    torch.testing.assert_close(logits_of(pruned), virtual, rtol=1e-4, atol=1e-4)
    assert (plain - virtual).abs().max() > 1e-3, "the mask has to matter"


def test_every_routed_token_is_observed_and_nothing_changes(model: Any) -> None:
    shape = shape_of(model)
    plain = logits_of(model)
    with observing(model, shape) as observer:
        observer.expect(question_of_token([24, 20], 24, torch.device("cpu")), 2)
        observed = logits_of(model)
        sums, skipped = observer.totals()
    torch.testing.assert_close(observed, plain, rtol=1e-4, atol=1e-4)
    by_name = dict(zip(SUMS, sums, strict=True))
    assert skipped.tolist() == [0, 0]
    expected = np.array([24, 20])[:, None] * np.full(shape.layers, shape.top_k)
    assert (by_name["tokens"].sum(axis=2) == expected).all()
    assert all((by_name[name] > 0).any() for name in SUMS)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, DropMap]]:
    """By model type: the GGUF of the whole model, that of the pruned one, and the map between them."""
    place = tmp_path_factory.mktemp("converted")
    arguments: list[str] = []
    found = {}
    for model_type in CONVERTED:
        model = tiny(model_type)
        folder = save(model, place / model_type)
        if model_type in NAMED_DRAFT | NUMBERED_DRAFT:
            add_draft(folder, model_type)
        shape = shape_of(model)
        drop = drop_of(shape, per_group=1 if shape.groups > 1 else 5)
        pruned = prune_safetensors(folder, drop, place / f"{model_type}-pruned")
        files = [path.with_suffix(".gguf") for path in (folder, pruned)]
        arguments += [str(folder), str(files[0]), str(pruned), str(files[1])]
        found[model_type] = (files[0], files[1], drop)
    script = Path(__file__).with_name("convert_without_vocabulary.py")
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return found


@pytest.mark.parametrize("model_type", CONVERTED)
def test_pruning_the_gguf_equals_converting_the_pruned_checkpoint(
    model_type: str, converted: dict[str, tuple[Path, Path, DropMap]], tmp_path: Path
) -> None:
    whole, expected, drop = converted[model_type]
    shape = shape_of_gguf(read_header(whole).values)
    assert (shape.layer_ids, shape.experts) == (drop.layer_ids, drop.experts)
    sliced = read_header(prune_gguf(whole, drop, tmp_path / "sliced.gguf"))
    again = read_header(expected)
    assert shape_of_gguf(sliced.values).experts == drop.kept_count
    assert tensors_of(sliced) == tensors_of(again)
    keys = again.values.keys() | sliced.values.keys()
    differing = {key for key in keys if again.values.get(key) != sliced.values.get(key)}
    assert differing <= {"espalier.manifest", "general.size_label"}, differing


def tensors_of(header: Any) -> dict[str, tuple[Any, bytes]]:
    data = header.path.read_bytes()
    return {
        tensor.name: (tensor.shape, data[header.start_of(tensor) : header.start_of(tensor) + tensor.size])
        for tensor in header.tensors
    }


@pytest.mark.parametrize("model_type", sorted(NAMED_DRAFT | {"glm4_moe"}))
def test_the_experts_that_draft_tokens_are_pruned_too(
    model_type: str, converted: dict[str, tuple[Path, Path, DropMap]]
) -> None:
    header = read_header(converted[model_type][1])
    drafts = draft_layers_of_gguf(header.values)
    assert list(drafts) == [3]
    found = [tensor for tensor in header.tensors if "blk.3." in tensor.name and "_exps" in tensor.name]
    assert len(found) == 3 and all(tensor.shape[-1] == 7 for tensor in found)


@pytest.mark.parametrize("model_type", CONVERTED)
def test_the_outline_before_conversion_is_what_the_converter_writes(
    model_type: str, converted: dict[str, tuple[Path, Path, DropMap]]
) -> None:
    whole = converted[model_type][0]
    told = outline(open_reference(whole.with_suffix("")))
    written = read_header(whole)
    left, right = ({one.name: one.shape for one in header.tensors} for header in (told, written))
    assert left == right
    assert shape_of_gguf(told.values) == shape_of_gguf(written.values)


def test_the_norms_are_those_of_each_experts_own_output(model: Any) -> None:
    """Against the module's own forward, asked for one expert at a time with the weight one."""
    shape = shape_of(model)
    seen: list[tuple[Any, ...]] = []
    modules = modules_by_layer(model, family_named(shape.family).experts_module, shape)
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: seen.append((module, *inputs))) for module in modules
    ]
    logits_of(model)
    for hook in hooks:
        hook.remove()
    expected = np.zeros((2, shape.layers, shape.experts))
    with torch.inference_mode():
        for layer, (module, hidden, index, weights) in enumerate(seen):
            for expert in range(shape.experts):
                token, place = torch.nonzero(index == expert, as_tuple=True)
                only = torch.full((len(token), 1), expert)
                output = module(hidden[token], only, torch.ones(len(token), 1))
                norm = output.double().norm(dim=-1)
                expected[:, layer, expert] = norm.sum(), (weights[token, place].double().abs() * norm).sum()
    with observing(model, shape) as observer:
        observer.expect(question_of_token([48], 48, torch.device("cpu")), 1)
        logits_of(model)
        by_name = dict(zip(SUMS, observer.totals()[0][:, 0], strict=True))
    np.testing.assert_allclose(by_name["norm"], expected[0], rtol=1e-4)
    np.testing.assert_allclose(by_name["weighted_norm"], expected[1], rtol=1e-4)


def test_a_multimodal_checkpoint_keeps_its_tower_and_is_observed(tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM, Qwen3_5MoeForConditionalGeneration

    text = AutoConfig.for_model("qwen3_5_moe_text", **CONFIGS["qwen3_5_moe_text"], vocab_size=128, hidden_size=64,
                                num_hidden_layers=3, num_experts_per_tok=3)  # fmt: skip
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64}
    config = AutoConfig.for_model("qwen3_5_moe", text_config=text.to_dict(), vision_config=vision)
    whole = Qwen3_5MoeForConditionalGeneration(config).float().eval()
    whole.save_pretrained(tmp_path / "whole")
    shape = shape_of_config(open_reference(tmp_path / "whole").config)
    drop = drop_of(shape, per_group=5)
    prune_safetensors(tmp_path / "whole", drop, tmp_path / "pruned")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "pruned"))
    tower = [name for name in before if "visual" in name]
    assert tower and all(torch.equal(before[name], after[name]) for name in tower)
    language = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.float32).eval()
    pruned = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned", dtype=torch.float32).eval()
    with masked(language, drop.mask, shape):
        torch.testing.assert_close(logits_of(language), logits_of(pruned), rtol=1e-4, atol=1e-4)


def test_a_map_for_a_model_that_routes_by_groups_keeps_equally_many_of_each() -> None:
    shape = shape_of(tiny("deepseek_v3"))
    assert (shape.groups, shape.groups_per_token, shape.layer_ids) == (3, 2, (1, 2))
    drop_of(shape, per_group=1).check(shape)
    with pytest.raises(InputError, match="layer 1 drops 2, 1, 0 of the 4 experts in each of its groups"):
        DropMap(None, 12, ((0, 1, 4), (0, 4, 8)), (1, 2)).check(shape)
    with pytest.raises(InputError, match="Each group of experts would keep 1, and a token uses 3 from 2 groups"):
        drop_of(shape, per_group=3).check(shape)


def test_blocks_and_scales_of_gpt_oss_lose_whole_experts(tmp_path: Path) -> None:
    """The published checkpoint keeps its experts as MXFP4, which transformers unpacks when it loads them."""
    from safetensors.numpy import load_file, save_file

    folder = save(tiny("gpt_oss"), tmp_path / "whole")
    tensors = load_file(folder / "model.safetensors")
    lots = np.random.default_rng(0)
    for layer in range(3):
        start = f"model.layers.{layer}.mlp.experts."
        for name, rows in (("gate_up_proj", 64), ("down_proj", 64)):
            del tensors[start + name]
            columns = 2 if name == "gate_up_proj" else 1
            tensors[f"{start}{name}_blocks"] = lots.integers(0, 256, (12, rows, columns, 16), dtype=np.uint8)
            tensors[f"{start}{name}_scales"] = lots.integers(100, 130, (12, rows, columns), dtype=np.uint8)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    drop = drop_of(shape_of_config(open_reference(folder).config), per_group=5)
    pruned = load_file(prune_safetensors(folder, drop, tmp_path / "pruned") / "model.safetensors")
    for index, layer in enumerate(drop.layer_ids):
        for name in ("gate_up_proj_blocks", "gate_up_proj_scales", "gate_up_proj_bias", "down_proj_scales"):
            whole = f"model.layers.{layer}.mlp.experts.{name}"
            np.testing.assert_array_equal(pruned[whole], tensors[whole][list(drop.kept(index))])


def test_tensors_of_one_expert_move_up_whatever_they_are_called() -> None:
    family = family_named("deepseek")
    name = "model.layers.7.mlp.experts.12.down_proj.weight_scale_inv"
    assert family.place(name) == ExpertPlace(7, 12)
    assert family.renumbered(name, 3) == "model.layers.7.mlp.experts.3.down_proj.weight_scale_inv"
    assert family.place("model.layers.7.mlp.shared_experts.down_proj.weight") is None
    assert family_named("qwen3_next").place("mtp.layers.0.mlp.gate.weight") == ExpertPlace(None)


def test_a_checkpoint_that_lacks_an_expert_or_hides_them_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save(tiny("qwen3_moe"), tmp_path / "whole")
    file, tensors = folder / "model.safetensors", load_file(folder / "model.safetensors")
    drop = drop_of(shape_of_config(open_reference(folder).config), per_group=5)
    gone = "model.layers.1.mlp.experts.4."
    save_file({name: values for name, values in tensors.items() if gone not in name}, file, {"format": "pt"})
    with pytest.raises(FormatError, match="layer 1: its expert 4 is missing"):
        prune_safetensors(folder, drop, tmp_path / "pruned")
    save_file(tensors | {"model.layers.0.mlp.odd": torch.zeros(12, 2, 2)}, file, {"format": "pt"})
    with pytest.raises(UnsupportedError, match=r"model\.layers\.0\.mlp\.odd"):
        prune_safetensors(folder, drop, tmp_path / "pruned")


def test_a_recipe_cuts_group_by_group_for_a_model_that_routes_by_groups() -> None:
    shape = shape_of(tiny("deepseek_v3"))
    lots = np.random.default_rng(1)
    sums = {name: lots.random((4, shape.layers, shape.experts)) for name in SUMS}
    questions = tuple(Question(f"q{number}", "ab"[number % 2]) for number in range(4))
    analysis = Contributions(shape, "m", questions, sums)
    chosen = preset("98e-v4", 6, {})
    drop = make_map(analysis, chosen)
    drop.check(shape)
    score = scores(analysis, chosen)
    for row, ids in zip(score, drop.dropped, strict=True):
        for start in range(0, 12, 4):
            lowest = start + np.argsort(row[start : start + 4], kind="stable")[:2]
            assert sorted(lowest) == [expert for expert in ids if start <= expert < start + 4]
    with pytest.raises(InputError, match="Drop 3 or 6"):
        make_map(analysis, preset("98e-v4", 5, {}))


@pytest.mark.parametrize("model_type", sorted(NAMED_DRAFT | NUMBERED_DRAFT))
def test_drafting_experts_leave_the_checkpoint_as_the_map_says_or_the_last_layer(
    model_type: str, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    model = tiny(model_type)
    folder = save(model, tmp_path / "whole")
    add_draft(folder, model_type)
    drop = drop_of(shape_of(model), per_group=1 if shape_of(model).groups > 1 else 5)
    name = "mtp.layers.0." if model_type in NAMED_DRAFT else "model.layers.3."
    router = f"{name}mlp.gate.weight"
    whole = load_file(folder / "model.safetensors")[router]
    kept_first = tuple(range(drop.dropped_count))  # another choice than that of any layer
    groups = shape_of(model).groups
    own = tuple(range(0, 12, 12 // groups)) if groups > 1 else kept_first
    for number, chosen in enumerate((drop, replace(drop, extra=(("mtp", own),)))):
        pruned = load_file(prune_safetensors(folder, chosen, tmp_path / f"pruned-{number}") / "model.safetensors")
        gone = chosen.dropped[-1] if number == 0 else own
        kept = [expert for expert in range(12) if expert not in gone]
        assert torch.equal(pruned[router], whole[kept])
        stacked = [one for one in pruned if one.startswith(f"{name}mlp.experts.")]
        numbers = {int(one.split("experts.")[1].split(".")[0]) for one in stacked if "experts.0." in stacked[0]}
        assert numbers in (set(), set(range(len(kept))))
    if model_type in NUMBERED_DRAFT:
        return
    bare = save(model, tmp_path / "bare")
    with pytest.raises(MismatchError, match="also prunes mtp"):
        prune_safetensors(bare, replace(drop, extra=(("mtp", own),)), tmp_path / "refused")
