"""Every verb on a tiny model, from prompts to an answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.checkpoints.gguf_header import read_header
from studio.checkpoints.reference import open_reference
from studio.contributions.file import load
from studio.recipes.dropmap import DropMap
from studio.recipes.permalink import Permalink
from tests.cli.tiny_gemma import EXPERTS, LAYERS

Run = Callable[..., Any]


def test_analyze_writes_contributions_and_says_what_they_hold(
    verb: Run, checkpoint: Path, prompts: Path, tmp_path: Path
) -> None:
    arguments = ("--prompts", prompts, "--out", tmp_path / "c.safetensors", "--max-tokens", 12, "--continuation", 2)
    told = verb("analyze", checkpoint, *arguments, "--json").json
    assert (told["layers"], told["experts"], told["questions"]) == (LAYERS, EXPERTS, 4)
    assert told["classes"] == ["math", "code"] and told["truncated_questions"] > 0
    assert load(tmp_path / "c.safetensors").content_hash == told["contributions_hash"]
    assert "exists already" in verb("analyze", checkpoint, *arguments).mistake
    same = ("--out", tmp_path / "d", "--imatrix", tmp_path / "d")
    assert "Name two files" in verb("analyze", checkpoint, "--prompts", prompts, *same).mistake


def test_an_estimate_of_an_analysis_needs_no_output_and_chooses_a_mode(
    verb: Run, checkpoint: Path, prompts: Path
) -> None:
    asked = ("analyze", checkpoint, "--prompts", prompts)
    found = verb(*asked, "--estimate", "--mode", "whole", "--json").json
    assert found["estimate"] is True
    assert found["chosen"]["mode"] == "whole"
    assert found["ways"][-1]["mode"] == "layered"
    assert found["work"]["questions"] == 4
    assert "→ layered on the " in verb(*asked, "--estimate", "--continuation", 0, "--mode", "layered").out
    assert "--out is missing" in verb(*asked).mistake


def test_a_broken_prompt_file_is_named_with_its_line(verb: Run, checkpoint: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"class": "math", "prompt": "2 + 2"}\n{"class": \n')
    mistake = verb("analyze", checkpoint, "--prompts", broken, "--out", tmp_path / "c.safetensors").mistake
    assert "broken.jsonl, line 2" in mistake


def test_a_map_is_the_published_json_and_nothing_else(verb: Run, contributions: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.json"
    arguments = ("--preset", "98e-v3", "--drop", 2, "--class-weight", "code=3", "--class-weight", "math=0.5")
    told = verb("map", contributions, *arguments, "--out", out, "--json").json
    written = json.loads(out.read_text())
    assert list(written) == [str(layer) for layer in range(LAYERS)]
    assert all(ids == sorted(set(ids)) and len(ids) == 2 for ids in written.values())
    assert told["map_hash"] == DropMap.from_json(written, EXPERTS).content_hash
    assert told["recipe"]["class_weights"] == {"code": 3.0, "math": 0.5} and told["recipe"]["drop"] == 2
    assert set(told["share_kept"]) == {"math", "code"} and all(0 < share <= 1 for share in told["share_kept"].values())


def test_a_map_tells_a_person_what_it_means(verb: Run, contributions: Path, tmp_path: Path) -> None:
    out = verb("map", contributions, "--preset", "109e-v3", "--drop", 3, "--out", tmp_path / "map.json").out
    assert "keeps 5 of 8 experts in each of 4 layers" in out and "math" in out and "Most is lost in layer" in out


def test_a_recipe_file_gives_the_map_that_its_preset_gives(
    verb: Run, contributions: Path, drop_map: Path, tmp_path: Path
) -> None:
    recipe = verb("map", contributions, "--preset", "98e-v4", "--drop", 3, "--out", tmp_path / "a.json", "--json").json
    (tmp_path / "recipe.json").write_text(json.dumps({**recipe["recipe"], "drop": 1}))
    changed = ("--recipe", tmp_path / "recipe.json", "--drop", 3)
    assert verb("map", contributions, *changed, "--out", tmp_path / "b.json").code == 0
    assert (tmp_path / "b.json").read_bytes() == drop_map.read_bytes() == (tmp_path / "a.json").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Exactly one of --preset and --recipe"),
        (["--preset", "98e-v3", "--recipe", "r.json", "--drop", "1"], "Exactly one"),
        (["--preset", "98e-v3"], "--drop is needed"),
        (["--preset", "98e-v9", "--drop", "1"], "98e-v9"),
        (["--preset", "98e-v3", "--drop", "7"], "router uses 2"),
        (["--preset", "98e-v3", "--drop", "1", "--class-weight", "code"], "code=3"),
        (["--preset", "98e-v3", "--drop", "1", "--class-weight", "code=much"], "code=3"),
        (["--preset", "98e-v3", "--drop", "1", "--class-weight", "cooking=3"], "cooking"),
        (["--recipe", "missing.json"], "missing.json"),
    ],
)
def test_a_map_that_cannot_be_made_says_why(
    arguments: list[str], words: str, verb: Run, contributions: Path, tmp_path: Path
) -> None:
    assert words in verb("map", contributions, *arguments, "--out", tmp_path / "map.json").mistake
    assert not (tmp_path / "map.json").exists()


def published_analysis(path: Path) -> Path:
    experts = [{"id": e, "wnorm": e + 1.0, "rnorm": 1.0, "wsum": 0.1, "tc": 5, "cc": 1} for e in range(EXPERTS)]
    layers = {str(layer): experts for layer in range(LAYERS)}
    metadata = {"model": "tiny", "num_layers": LAYERS, "num_experts": EXPERTS, "categories": {"math": 3, "code": 2}}
    path.write_text(json.dumps({"metadata": metadata, "categories": {"math": layers, "code": layers}}))
    return path


def test_a_published_analysis_is_imported_or_mapped_at_once(verb: Run, tmp_path: Path) -> None:
    analysis = published_analysis(tmp_path / "expert_neuron.json")
    told = verb("import", analysis, "--out", tmp_path / "c.safetensors", "--top-k", 2, "--json").json
    assert (told["layers"], told["experts"], told["classes"]) == (LAYERS, EXPERTS, ["math", "code"])
    arguments = ("--preset", "98e-v4", "--drop", 3)
    for source, out in ((analysis, "a.json"), (tmp_path / "c.safetensors", "b.json")):
        assert verb("map", source, *arguments, "--out", tmp_path / out).code == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert json.loads((tmp_path / "a.json").read_text()) == {str(layer): [0, 1, 2] for layer in range(LAYERS)}


ORACLE = Path(__file__).parents[1] / "recipes" / "data" / "oracle"


def test_a_published_map_is_made_again_from_its_arguments(verb: Run, tmp_path: Path) -> None:
    (case,) = (one for one in json.loads((ORACLE / "expected.json").read_bytes()) if one["case"] == 10)
    (tmp_path / "arguments.json").write_text(json.dumps(case["args"]))
    recipe = tmp_path / "recipe.json"
    told = verb("recipe", "import", tmp_path / "arguments.json", "--out", recipe, "--json").json
    assert json.loads(recipe.read_bytes()) == told["recipe"] and told["needs"] == []
    arguments = ("map", ORACLE / case["contributions"], "--recipe", recipe, "--out", tmp_path / "map.json")
    floors = ("--layer-floor", ORACLE / case["layer_floor"])
    assert "--floor-contributions" in verb(*arguments, *floors).mistake
    second = ("--floor-contributions", ORACLE / case["floor_contributions"])
    made = verb(*arguments, *floors, *second, "--json").json
    assert json.loads((tmp_path / "map.json").read_bytes()) == case["drop_map"]
    story = json.loads((tmp_path / "map.story.json").read_bytes())
    assert story["recipe"]["layer_floors"]["2"] == 7 and story["recipe_hash"] == made["recipe_hash"]
    assert story["floor_contributions_hash"] == made["floor_contributions_hash"]
    (tmp_path / "again.json").write_text(json.dumps(story["recipe"]))  # the story alone gives the same map
    again = ("map", ORACLE / case["contributions"], "--recipe", tmp_path / "again.json", "--out", tmp_path / "b.json")
    assert verb(*again, *second).code == 0
    assert (tmp_path / "b.json").read_bytes() == (tmp_path / "map.json").read_bytes()


def test_a_summary_says_what_its_map_needs_beside_the_recipe(verb: Run, tmp_path: Path) -> None:
    summary = ORACLE.parent / "published" / "v7coder_C6v3lcb_drop_map.json.summary.json"
    outcome = verb("recipe", "import", summary, "--out", tmp_path / "recipe.json")
    assert "keeps 98 experts" in outcome.out and "--floor-contributions and --layer-floor" in outcome.out
    assert "exists already" in verb("recipe", "import", summary, "--out", tmp_path / "recipe.json").mistake


def test_a_recipe_is_linked_with_its_analysis_and_has_a_schema(verb: Run, contributions: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text('{"drop": 3, "normalise": "rank"}')
    told = verb("recipe", "link", tmp_path / "recipe.json", "--contributions", contributions, "--json").json
    link = Permalink.from_text(told["permalink"])
    assert link.contributions == load(contributions).content_hash
    assert link.recipe.content_hash == told["recipe_hash"]
    properties = json.loads(verb("recipe", "schema").out)["properties"]
    assert set(properties) == set(link.recipe.model_dump())


@pytest.mark.parametrize(
    ("recipe", "options", "words"),
    [
        ('{"drop": 3, "floor": 2}', [], "Give it as well (--floor-contributions)"),
        ('{"drop": 3, "floor_layers_from": "file", "floor_analysis": "same"}', [], "Give --layer-floor"),
        ('{"drop": 3}', ["--floor-contributions"], "Leave --floor-contributions out"),
        ('{"drop": 3, "floor": 2, "floor_analysis": "same"}', ["--floor-contributions"], "Leave --floor-contributions"),
        ('{"drop": 3, "classes": ["cooking"]}', [], "no class 'cooking'"),
        ('{"drop": 7}', [], "Drop at most 6"),
    ],
)
def test_a_recipe_that_makes_no_map_as_it_stands_is_neither_mapped_nor_linked(
    recipe: str, options: list[str], words: str, *, verb: Run, contributions: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "recipe.json", tmp_path / "map.json"
    file.write_text(recipe)
    given = [part for option in options for part in (option, contributions)]
    assert words in verb("map", contributions, "--recipe", file, "--out", out, *given).mistake
    assert words in verb("recipe", "link", file, "--contributions", contributions, *given).mistake
    assert not out.exists()


def test_a_result_does_not_overwrite_what_it_is_made_from(verb: Run, contributions: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.story.json"  # where the story of mine.json would lie
    recipe.write_text('{"drop": 3}')
    before = contributions.read_bytes()
    for out in (contributions, recipe, tmp_path / "mine.json"):
        given = ("map", contributions, "--recipe", recipe, "--out", out, "--overwrite")
        assert "would be overwritten" in verb(*given).mistake
    assert "would be overwritten" in verb("recipe", "import", recipe, "--out", recipe, "--overwrite").mistake
    assert recipe.read_text() == '{"drop": 3}' and contributions.read_bytes() == before


def test_a_link_holds_the_floors_of_a_file(verb: Run, contributions: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text('{"drop": 3, "floor_layers_from": "file"}')
    (tmp_path / "floors.json").write_text('{"floor_per_layer": {"0": 2, "3": 1}}')
    given = ("--layer-floor", tmp_path / "floors.json", "--floor-contributions", contributions)
    arguments = ("recipe", "link", tmp_path / "recipe.json", "--contributions", contributions, *given)
    link = Permalink.from_text(verb(*arguments, "--json").json["permalink"])
    assert link.recipe.layer_floors == {"0": 2, "3": 1} and link.floor_contributions == link.contributions


@pytest.mark.parametrize("preset", ["98e-v5-coder", "REAP"])
def test_every_preset_makes_a_map_of_a_small_model(verb: Run, contributions: Path, preset: str, tmp_path: Path) -> None:
    arguments = ("--preset", preset, "--drop", 3, "--class-weight", "math=2")
    told = verb("map", contributions, *arguments, "--out", tmp_path / "map.json", "--json").json
    assert told["dropped_experts"] == 3 and told["recipe"]["class_weights"]["math"] == 2.0
    assert told["recipe"].get("floor_clamp") in (None, [1, 2])


def test_json_that_is_no_analysis_is_refused(verb: Run, drop_map: Path, tmp_path: Path) -> None:
    assert "map.json" in verb("import", drop_map, "--out", tmp_path / "c.safetensors").mistake


def test_prune_keeps_the_format_of_the_reference(
    verb: Run, checkpoint: Path, gguf: Path, drop_map: Path, tmp_path: Path
) -> None:
    for reference, out in ((checkpoint, tmp_path / "pruned"), (gguf, tmp_path / "pruned.gguf")):
        told = verb("prune", reference, "--map", drop_map, "--out", out, "--json").json
        assert told["kept_experts"] == EXPERTS - 3 and told["bytes"] > 0
        assert open_reference(out).shape.experts == EXPERTS - 3
        assert "exists already" in verb("prune", reference, "--map", drop_map, "--out", out).mistake
        assert verb("prune", reference, "--map", drop_map, "--out", out, "--overwrite").code == 0
    assert "Pruning keeps the format" in verb("prune", gguf, "--map", drop_map, "--out", tmp_path / "folder").mistake


def test_a_map_for_another_model_is_refused(verb: Run, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(json.dumps({str(layer): [1] for layer in range(30)}))
    mistake = verb("prune", checkpoint, "--map", tmp_path / "other.json", "--out", tmp_path / "pruned").mistake
    assert "layer" in mistake and not (tmp_path / "pruned").exists()


def test_a_plan_is_exactly_tier_tensors_and_bytes(command: Run, gguf: Path) -> None:
    told = command("plan", gguf, "--tier", "q4_k_m", "--json").json
    assert list(told) == ["tier", "tensors", "tensor_bytes"] and told["tier"] == "Q4_K_M"
    header = read_header(gguf)
    assert set(told["tensors"]) == {tensor.name for tensor in header.tensors}
    assert told["tensors"]["blk.0.ffn_gate_up_exps.weight"] == "Q4_K"


def test_a_plan_for_a_person_explains_fallbacks(verb: Run, gguf: Path) -> None:
    out = verb("plan", gguf, "--tier", "Q4_K_M").out
    assert "Q4_K_M" in out and "fall back" in out
    assert "no tier 'Q9'" in verb("plan", gguf, "--tier", "Q9").mistake
    assert "no importance matrix" in verb("plan", gguf, "--tier", "Q2_K", "--imatrix", gguf).mistake


def test_quantize_with_a_map_is_prune_and_quantize_in_one(
    verb: Run, gguf: Path, drop_map: Path, tmp_path: Path
) -> None:
    tiers = ("--tier", "Q4_K_M", "--tier", "Q8_0")
    told = verb("quantize", gguf, *tiers, "--map", drop_map, "--out", tmp_path / "fused", "--json").json
    assert [(file["tier"], Path(file["path"]).name) for file in told["files"]] == [
        ("Q4_K_M", "tiny-Q4_K_M.gguf"),
        ("Q8_0", "tiny-Q8_0.gguf"),
    ]
    pruned = tmp_path / "tiny.gguf"
    assert verb("prune", gguf, "--map", drop_map, "--out", pruned).code == 0
    assert verb("quantize", pruned, *tiers, "--out", tmp_path / "after").code == 0
    for file in told["files"]:
        fused = Path(file["path"])
        assert weights(fused) == weights(tmp_path / "after" / fused.name)
    planned = verb("plan", pruned, "--tier", "Q4_K_M", "--json").json
    made = read_header(tmp_path / "fused" / "tiny-Q4_K_M.gguf")
    assert {tensor.name: tensor.type.name for tensor in made.tensors} == planned["tensors"]
    assert sum(tensor.size for tensor in made.tensors) == planned["tensor_bytes"]


def test_what_was_chosen_travels_with_the_map_into_every_file(
    verb: Run, gguf: Path, checkpoint: Path, drop_map: Path, tmp_path: Path
) -> None:
    story = json.loads(drop_map.with_name("map.story.json").read_text())
    assert story["recipe_hash"] and story["contributions_hash"]
    verb("prune", checkpoint, "--map", drop_map, "--out", tmp_path / "pruned")
    verb("quantize", gguf, "--tier", "Q8_0", "--map", drop_map, "--out", tmp_path)
    folder = json.loads((tmp_path / "pruned" / "espalier-manifest.json").read_text())
    file = json.loads(read_header(tmp_path / "tiny-Q8_0.gguf").values["espalier.manifest"])
    for told in (folder, file):
        assert told["recipe_sha256"] == story["recipe_hash"] and told["recipe"]["drop"] == 3
        assert told["contributions"] == story["contributions_hash"]
    other = tmp_path / "map.json"
    other.write_text(json.dumps({layer: [0, 1, 2] for layer in json.loads(drop_map.read_text())}))
    shutil.copy(drop_map.with_name("map.story.json"), tmp_path)
    verb("quantize", gguf, "--tier", "Q8_0", "--map", other, "--name", "other", "--out", tmp_path)
    assert json.loads(read_header(tmp_path / "other-Q8_0.gguf").values["espalier.manifest"])["recipe"] is None


def test_tiers_by_layer_and_of_ones_own(
    verb: Run, gguf: Path, checkpoint: Path, contributions: Path, tmp_path: Path
) -> None:
    assert "importance, which is not known" in verb("plan", gguf, "--tier", "CD-Q4_K_M").mistake
    planned = verb("plan", gguf, "--tier", "CD-Q4_K_M", "--contributions", contributions, "--json").json
    (tmp_path / "mine.json").write_text(
        json.dumps({"name": "mine", "base": "Q4_K_M", "overrides": [{"role": "attention", "type": "Q8_0"}]})
    )
    tiers = ("--tier", "CD-Q4_K_M", "--tier", str(tmp_path / "mine.json"), "--contributions", contributions)
    told = verb("quantize", checkpoint, *tiers, "--out", tmp_path, "--json").json
    assert [(one["tier"], Path(one["path"]).name) for one in told["files"]] == [
        ("CD-Q4_K_M", "tiny-gemma-CD-Q4_K_M.gguf"),
        ("mine", "tiny-gemma-mine.gguf"),
    ]
    made = {one.name: one.type.name for one in read_header(tmp_path / "tiny-gemma-CD-Q4_K_M.gguf").tensors}
    assert made == planned["tensors"]
    mine = read_header(tmp_path / "tiny-gemma-mine.gguf")
    assert mine.tensor("blk.0.attn_q.weight").type.name == "Q8_0"


def test_types_go_out_to_llama_cpp_and_come_back(verb: Run, gguf: Path, tmp_path: Path) -> None:
    types = tmp_path / "types.txt"
    verb("plan", gguf, "--tier", "Q5_K_M", "--export", types)
    planned = verb("plan", gguf, "--tier", "Q5_K_M", "--json").json
    assert "^blk\\.0\\.attn_q\\.weight$=" in types.read_text()
    back = verb("plan", gguf, "--tier", "Q4_0", "--tensor-types", types, "--json").json
    assert back["tensors"] == planned["tensors"] and back["tier"] == "Q4_0-custom"


def test_a_model_is_split_and_taken_as_a_source_again(verb: Run, gguf: Path, tmp_path: Path) -> None:
    assert (
        "5G or 500M" in verb("quantize", gguf, "--tier", "Q8_0", "--split-max-size", "huge", "--out", tmp_path).mistake
    )
    told = verb("quantize", gguf, "--tier", "F16", "--split-max-size", "1M", "--out", tmp_path, "--json").json
    parts = [Path(one["path"]) for one in told["files"]]
    assert len(parts) > 1 and parts[0].name == f"tiny-F16-00001-of-{len(parts):05d}.gguf"
    assert {one["tier"] for one in told["files"]} == {"F16"}
    assert "is F16" not in verb("plan", parts[-1], "--tier", "Q8_0").out
    (small,) = verb("quantize", parts[0], "--tier", "Q8_0", "--out", tmp_path, "--json").json["files"]
    again = ("quantize", small["path"], "--tier", "Q4_0", "--out", tmp_path)
    assert "allow requantizing" in verb(*again).mistake
    assert verb(*again, "--allow-requantize").code == 0


def weights(path: Path) -> dict[str, bytes]:
    header, content = read_header(path), path.read_bytes()
    starts = {tensor.name: header.data_start + tensor.offset for tensor in header.tensors}
    return {tensor.name: content[starts[tensor.name] :][: tensor.size] for tensor in header.tensors}


def test_convert_refuses_what_it_cannot_do(verb: Run, checkpoint: Path, gguf: Path, tmp_path: Path) -> None:
    assert "exists already" in verb("convert", checkpoint, "--out", gguf).mistake
    assert "q4_0" in verb("convert", checkpoint, "--out", tmp_path / "x.gguf", "--outtype", "q4_0").mistake
    assert "not a folder" in verb("convert", gguf, "--out", tmp_path / "x.gguf").mistake


def test_chat_streams_an_answer_with_its_label(command: Run, gguf: Path) -> None:
    outcome = command("chat", gguf, "--prompt", "What is 2 + 2?", "--max-tokens", 8, "--context", 512)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith(f"{gguf}:\n")
    assert "tokens/s" in outcome.err and "tokens/s" not in outcome.out


def test_chat_against_another_gives_both_answers(verb: Run, gguf: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(gguf, tmp_path / "other.gguf"))
    arguments = ("--prompt", "What is 2 + 2?", "--max-tokens", 8, "--temperature", 0, "--context", 512)
    told = verb("chat", gguf, "--against", other, *arguments, "--json").json
    first, second = told["answers"]
    assert (first["file"], second["file"]) == (str(gguf), str(other))
    assert first["text"] == second["text"] and first["tokens"] == second["tokens"] == 8
    spoken = verb("chat", gguf, "--against", other, *arguments)
    assert spoken.out == f"{gguf}:\n{first['text']}\n\n{other}:\n{second['text']}\n"


def test_chat_names_a_file_that_is_no_model(verb: Run, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF but not really")
    assert "x.gguf" in verb("chat", tmp_path / "x.gguf", "--prompt", "Hello").mistake
    assert "temperature" in verb("chat", tmp_path / "x.gguf", "--prompt", "Hello", "--temperature", -1).mistake


def test_analyses_are_merged(contributions: Path, tmp_path: Path, verb: Run) -> None:
    other = tmp_path / "v4.json"
    experts = [{"id": expert, "wnorm": 1.0 + expert, "rnorm": 1.0, "tc": 3} for expert in range(EXPERTS)]
    other.write_text(json.dumps({"questions": {"q": {str(layer): experts for layer in range(LAYERS)}}}))
    said = verb("merge", contributions, other, "--out", tmp_path / "both.safetensors", "--json").json
    assert (said["questions"], said["classes"]) == (5, ["math", "code", "questions"])
    assert said["sums"] == ["tokens", "norm_squared", "weighted_norm_squared"]
    assert "left out, because not all of them have it: gate, norm, weighted_norm" in said["source"]
    twice = verb("merge", contributions, contributions, "--out", tmp_path / "twice.safetensors").mistake
    assert "would count twice" in twice


def test_recipes_are_kept_by_name_and_used_wherever_a_file_may_be(
    verb: Run, contributions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESPALIER_HOME", str(tmp_path / "home"))
    assert "No recipe has a name yet" in verb("recipe", "list").out
    (tmp_path / "recipe.json").write_text('{"drop": 3, "normalise": "rank"}')
    assert verb("recipe", "save", "for code", "--recipe", tmp_path / "recipe.json", "--json").json == {
        "name": "for code"
    }
    assert verb("recipe", "save", "again", "--recipe", "for code").code == 0
    assert verb("recipe", "list", "--json").json == {"recipes": ["again", "for code"]}
    (tmp_path / "shown.json").write_text(verb("recipe", "show", "for code").out)
    made = [
        verb("map", contributions, "--recipe", recipe, "--out", tmp_path / f"{number}.json", "--json").json["map_hash"]
        for number, recipe in enumerate(["for code", tmp_path / "recipe.json", tmp_path / "shown.json"])
    ]
    assert len(set(made)) == 1
    link = verb("recipe", "link", "for code", "--contributions", contributions, "--json").json["permalink"]
    assert Permalink.from_text(link).model == "tiny-gemma"
    assert verb("recipe", "delete", "for code").code == 0
    for again in (("show", "for code"), ("delete", "for code"), ("save", "x", "--recipe", "for code")):
        assert "`recipe list` prints the names" in verb("recipe", *again).mistake
    assert (
        "cannot be the name of a recipe"
        in verb("recipe", "save", "../up", "--recipe", tmp_path / "recipe.json").mistake
    )
