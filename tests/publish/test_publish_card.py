"""The card tells what the manifest and the measures tell, in words that anybody may copy and nobody can inject into."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from studio.checkpoints.digests import read_digest
from studio.checkpoints.reference import open_reference
from studio.cli.app import main
from studio.contributions.file import load
from studio.errors import FormatError, InputError
from studio.evaluate.results import Result
from studio.jobs.tasks import check
from studio.progress import silent
from studio.publish.artifact import Artifact, Format, keep_measures, open_artifact
from studio.publish.card import Card, chat_template, make_card
from studio.publish.card_head import head_of, with_licence
from studio.publish.card_sections import recipe_in_words
from studio.publish.escape import fenced, plain
from studio.publish.licence import UNKNOWN, is_clear, licences_of, strictest
from studio.publish.measures import comparisons, conditions_in_words
from studio.publish.ollama import CHAT_TEMPLATE, hub_command, ollama_model
from studio.publish.pictures import kept_picture
from studio.publish.repository import plan_upload
from studio.publish.snippets import server_arguments, server_command, transformers_code
from studio.publish.verify import verify
from studio.quantize.ggml import library
from studio.recipes.apply import make_map
from studio.recipes.presets import preset
from studio.workspace import Workspace
from tests.publish.conftest import ASSETS, CONTRIBUTIONS, NAME


def card_of(artifact: Artifact, **changes: Any) -> Card:
    return make_card(artifact, **changes)


def head(card: Card) -> dict[str, Any]:
    return dict(yaml.safe_load(card.text.split("---\n")[1]))


def renamed(artifact: Artifact, **reference: Any) -> Artifact:
    """The artifact of a reference that says other things of itself."""
    told = artifact.manifest.reference.model_copy(update=reference)
    return Artifact(artifact.folder, artifact.manifest.model_copy(update={"reference": told}))


def test_the_front_matter_names_base_relation_and_licence(artifact: Path) -> None:
    opened = open_artifact(artifact)
    assert "base_model" not in head(card_of(opened))  # the demo is not on the Hub
    assert head(card_of(opened))["license"] == "apache-2.0"
    gemma = renamed(opened, name="google/gemma-4-26b-a4b-it", licenses=("apache-2.0", "gemma"))
    told = head(card_of(gemma, formats=["gguf"]))
    assert (told["base_model"], told["base_model_relation"]) == (["google/gemma-4-26b-a4b-it"], "quantized")
    assert told["license"] == "gemma" and told["library_name"] == "gguf" and told["pipeline_tag"] == "text-generation"
    assert {"mixture-of-experts", "pruned", "gguf", "imatrix", "gemma4"} <= set(told["tags"])
    told = head(card_of(gemma, formats=["safetensors"]))
    assert told["base_model_relation"] == "finetune" and told["library_name"] == "transformers"
    assert "gguf" not in told["tags"]


def test_a_licence_is_carried_on_and_never_guessed(artifact: Path, tmp_path: Path) -> None:
    opened = open_artifact(artifact)
    nameless = card_of(renamed(opened, licenses=()))
    assert "license" not in head(nameless) and UNKNOWN in nameless.text
    own = card_of(renamed(opened, licenses=("acme-1", "mit")))
    assert (head(own)["license"], head(own)["license_name"]) == ("other", "acme-1")
    assert (
        "too: acme-1, read from the head of its card, README.md. It names acme-1, mit, of which the first" in own.text
    )
    assert strictest(["apache-2.0", "cc-by-nc-4.0", "gemma"]) == "cc-by-nc-4.0" and strictest([]) == UNKNOWN
    assert licences_of(open_reference(ASSETS / "demo-model")).names == ("apache-2.0",)
    assert licences_of(open_reference(opened.ggufs[0].path)).names == ("apache-2.0",)


def test_the_files_are_told_as_they_are(artifact: Path) -> None:
    opened = open_artifact(artifact)
    rows = re.findall(r"^\| (CD-Q4_K_M|Q4_K_M) \| (\S+) \| (\S+) \| (\S+) \|", card_of(opened).text, re.MULTILINE)
    assert [(tier, name) for tier, name, *_ in rows] == [
        ("CD-Q4_K_M", f"{NAME}-CD-Q4_K_M.gguf"),
        ("Q4_K_M", f"{NAME}-Q4_K_M.gguf"),
    ]
    for file, (_, _, gib, bits) in zip(opened.ggufs, rows, strict=True):
        assert abs(float(gib) - file.path.stat().st_size / 2**30) < 1e-3
        weights = sum(tensor.size for tensor in file.header.tensors)
        assert abs(float(bits) - 8 * weights / file.parameters) < 0.01
    assert opened.manifest.map is not None
    assert opened.manifest.map.parameters == open_reference(artifact / "safetensors").parameters


def result(name: str, sha256: str, size: int, value: float, path: str = "") -> dict[str, Any]:
    return {
        "version": 1,
        "kind": "task",
        "name": "arithmetic",
        "model": {"name": name, "path": path or name, "bytes": size, "sha256": sha256},
        "configuration": {"temperature": 0.0},
        "inputs": {"questions": 100},
        "values": {
            "right": {"value": value, "low": value - 0.05, "high": value + 0.05, "unit": "share", "better": "higher"}
        },
        "answers": [],
    }


def test_measures_stand_beside_those_of_the_reference_on_the_same_ground(artifact: Path) -> None:
    opened = open_artifact(artifact)
    workspace = Workspace.open()
    others = workspace.measures
    (artifact / "measures").mkdir()
    digest = opened.manifest.reference.sha256
    for number, file in enumerate(opened.ggufs):
        told = result(file.path.name, str(number) * 64, file.bytes, 0.9 + number / 100)
        (artifact / "measures" / f"task-{number}.json").write_text(json.dumps(told))
    reference = result("c.gguf", "f" * 64, 40 << 20, 0.97, path=f"cache/converted/{digest[:32]}-bf16.gguf")
    (others / "reference.json").write_text(json.dumps(reference))
    (others / "elsewhere.json").write_text(json.dumps({**reference, "inputs": {"questions": 7}}))
    (others / "secret.json").write_text(json.dumps(result("private.gguf", "e" * 64, 1, 0.5)))
    (others / "broken.json").write_text("{")
    opened = keep_measures(opened)
    (one,) = comparisons(opened, workspace)
    assert [(row.name, row.is_reference) for row in one.rows] == [
        ("demo-model", True),
        (f"{NAME}-CD-Q4_K_M.gguf", False),
        (f"{NAME}-Q4_K_M.gguf", False),
    ]
    made = card_of(opened, measured=[one])
    assert "| **reference**: demo-model | 0.039 | 97.0" in made.text
    assert "private" not in made.text and "![right against size](pictures/size-1.svg)" in made.text
    assert "pictures/size-1.svg" in made.pictures
    assert len(opened.manifest.measures) == 2 and not verify(artifact).problems
    (artifact / "measures" / "task-0.json").write_text("{}")
    assert verify(artifact).problems
    with pytest.raises(FormatError, match="task-0"):
        comparisons(opened, workspace)


def test_the_reference_is_known_by_the_bytes_of_its_conversion_whatever_it_was_called(artifact: Path) -> None:
    """As `convert demo --out demo.gguf` and `evaluate X --against demo.gguf` leave it."""
    opened, workspace = open_artifact(artifact), Workspace.open()
    digest = opened.manifest.reference.sha256
    (converted,) = (workspace.cache / "converted").glob(f"{digest[:32]}*.gguf")
    (artifact / "measures").mkdir()
    file = opened.ggufs[0]
    own = result(file.path.name, "1" * 64, file.bytes, 0.9)
    (artifact / "measures" / "task.json").write_text(json.dumps(own))
    size, sha256 = converted.stat().st_size, read_digest(converted)
    same = result("demo.gguf", sha256, size, 0.97, path="/elsewhere/demo.gguf")
    other = result("demo.gguf", "e" * 64, size, 0.5, path="/elsewhere/demo.gguf")
    (workspace.measures / "other.json").write_text(json.dumps(other))
    (alone,) = comparisons(opened, workspace)
    assert not alone.has_reference
    assert "No result of the reference itself on the same ground was found." in card_of(opened, measured=[alone]).text
    (workspace.measures / "reference.json").write_text(json.dumps(same))
    (one,) = comparisons(opened, workspace)
    assert [(row.name, row.value.value) for row in one.rows if row.is_reference] == [("demo-model", 0.97)]


def test_the_card_says_how_it_was_measured() -> None:
    told = result("x.gguf", "1" * 64, 1, 0.9)
    sampler = {"temperature": 1.0, "top_p": 0.95, "top_k": 64, "seed": 0}
    told["configuration"] = {"name": "official-gemma4", "sampler": sampler, "dry_multiplier": 0.5, "thinking": False}
    told["inputs"] = {"questions": 20, "subset": {"per_category": 4, "seed": 42}}
    assert conditions_in_words(Result.model_validate(told)) == (
        "Task arithmetic: 20 questions, 4 of each class, drawn with seed 42; configuration official-gemma4; "
        "temperature 1.0, top-p 0.95, top-k 64, seed 0, DRY 0.5; without thoughts."
    )


def test_pictures_are_whole_drawings_without_script_or_network(artifact: Path) -> None:
    pictures = card_of(open_artifact(artifact)).pictures
    assert set(pictures) == {"pictures/kept.svg", "pictures/classes.svg"}
    for picture in pictures.values():
        root = ElementTree.fromstring(picture)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "http" not in picture.replace("http://www.w3.org/2000/svg", "") and "<script" not in picture
    dropped = {"0": (1, 2), "1": (0, 3)}
    kept = ElementTree.fromstring(kept_picture(dropped, 4, "<b>&"))
    widths = [
        float(box.get("width", 0))
        for box in kept.iter("{http://www.w3.org/2000/svg}rect")
        if box.get("fill") == "#0072B2"
    ]
    cell = min(widths[:-1])
    assert [round(width / cell) for width in widths[:-1]] == [1, 1, 2]  # experts 0 and 3; 1 and 2 together


@settings(max_examples=60)
@given(st.text(min_size=1))
def test_no_text_from_elsewhere_becomes_markup(text: str) -> None:
    line = plain(text)
    assert "\n" not in line and "<" not in line
    page = MarkdownIt("gfm-like", {"linkify": False}).render(f"Before {line} after\n\n| {line} |\n|---|\n| {line} |")
    assert not re.search(r"<(?!/?(p|table|thead|tbody|tr|th|td)\b)", page), page
    assert page.count("<td>") == 1
    alone = MarkdownIt("gfm-like", {"linkify": False}).render(line)
    assert re.fullmatch(r"(<p>.*</p>\n)?", alone, re.DOTALL), alone
    assert [one.type for one in MarkdownIt().parse(fenced(text, "sh"))] == ["fence"]


def test_a_hostile_manifest_stays_text(artifact: Path) -> None:
    evil = "<img src=x onerror=alert(1)>|`rm`\n# pwned [click](http://evil) ![](http://evil/x.png)"
    opened = renamed(open_artifact(artifact), name=evil, licenses=(evil,), family=evil)
    build = opened.manifest.build
    assert build is not None
    opened = Artifact(opened.folder, opened.manifest.model_copy(update={"versions": {evil: evil}}))
    made = card_of(opened)
    assert head(made)["license_name"] == evil.replace("\r", "")
    body = MarkdownIt("gfm-like", {"linkify": False}).render(made.text.split("\n---\n", 1)[1])
    assert "<img src=x" not in body and 'href="http://evil' not in body and "<h1>pwned" not in body


def test_the_same_artifact_gives_the_same_card(artifact: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asked = ["card", str(artifact), "--repo", "me/demo", "--format", "gguf"]
    assert main(asked[:-2]) == 2 and "takes one format" in capfd.readouterr().err
    assert main(asked) == 0
    first = (artifact / "README-gguf.md").read_bytes()
    assert main(asked) == 2
    assert main([*asked, "--overwrite"]) == 0
    assert (artifact / "README-gguf.md").read_bytes() == first and (artifact / "pictures" / "kept.svg").is_file()
    assert b"llama-server --hf-repo me/demo --hf-file demo-24e-CD-Q4_K_M.gguf --jinja" in first
    assert b"ollama run hf.co/me/demo:demo-24e-CD-Q4_K_M.gguf\n" in first
    assert hub_command("me/demo", "Q4_K_M", "x.gguf") == "ollama run hf.co/me/demo:Q4_K_M"
    capfd.readouterr()


def test_a_card_that_nobody_changed_is_made_anew_when_it_is_published(artifact: Path) -> None:
    assert main(["card", str(artifact), "--repo", "me/old", "--format", "gguf"]) == 0
    written = artifact / "README-gguf.md"

    def sent(part: Format) -> str:
        plan = plan_upload(open_artifact(artifact), "me/new", chosen=part)
        (card,) = (file for file in plan.files if file.name == "README.md")
        return card.text if card.text is not None else (card.source or written).read_text()

    assert "me/new" in sent("gguf") and "me/old" not in sent("gguf")
    assert ".gguf" not in sent("safetensors") and "library_name: transformers" in sent("safetensors")
    written.write_text(written.read_text().replace("## Limits", "## What it cannot do"))
    assert "me/old" in sent("gguf") and "## What it cannot do" in sent("gguf")


def test_the_base_of_a_local_model_can_be_named(artifact: Path) -> None:
    plan = plan_upload(open_artifact(artifact), "me/new", chosen="gguf", base_model="acme/base")
    (card,) = (file for file in plan.files if file.name == "README.md")
    assert yaml.safe_load(head_of(card.text or ""))["base_model"] == ["acme/base"]
    with pytest.raises(InputError, match="OWNER/NAME"):
        card_of(open_artifact(artifact), base_model="acme: base")


def test_what_a_card_says_of_its_weights_is_true_of_them(artifact: Path) -> None:
    opened = open_artifact(artifact)
    gguf, weights = (card_of(opened, formats=[part]).text for part in ("gguf", "safetensors"))
    assert "rounded where these hold less" in gguf and "bit for bit" not in gguf
    assert "bit for bit" in weights and "rounded" not in weights.lower()
    assert "of 128" not in gguf, "that is of the models that the recipe was published with"
    assert gguf.count("Start here.") == 1 and "a rule of thumb" in gguf
    for word in ("Hardly told apart", "two thirds", "As the weights are"):
        assert word not in gguf
    exact = preset("98e-v5-coder", drop=8)
    assert "three times" not in recipe_in_words(json.loads(exact.to_json()), 32)
    assert "Classes were weighed: *code × 3" in recipe_in_words(json.loads(exact.to_json()), 128).replace("\\", "")


def test_llama_server_and_ollama_sample_alike(artifact: Path) -> None:
    file = open_artifact(artifact).ggufs[0]
    words = server_arguments("gemma4", "", {"general.sampling.temp": 0.25})
    assert words[words.index("--temp") + 1] == "0.25", "what the model's own files recommend goes first"
    words = server_arguments("gemma4", str(file.header.values[CHAT_TEMPLATE]), file.header.values)
    told = ollama_model(file.path).parameters
    for switch, name in (("--temp", "temperature"), ("--top-p", "top_p"), ("--top-k", "top_k")):
        assert float(words[words.index(switch) + 1]) == told[name]
    assert [server_arguments(family, "")[3:5] for family in ("qwen3_moe", "mixtral")] == [["--temp", "0.7"], []]


def licensed(folder: Path, card: str | None = None, **files: str) -> Path:
    """The demo model with another card, and files beside it."""
    shutil.copytree(ASSETS / "demo-model", folder)
    (folder / "README.md").unlink()
    texts = {**files, **({"README.md": card} if card is not None else {})}
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


def test_all_sources_of_a_licence_are_told_and_the_strictest_is_named(artifact: Path, tmp_path: Path) -> None:
    card = "---\nlicense: Apache-2.0\n---\n"
    both = licensed(tmp_path / "both", card)
    config = json.loads((both / "config.json").read_text())
    (both / "config.json").write_text(json.dumps({**config, "license": "gemma"}))
    found = licences_of(open_reference(both))
    assert found.names == ("apache-2.0", "gemma")
    assert found.places == "the head of its card, README.md (apache-2.0); its config.json (gemma)"
    told = card_of(renamed(open_artifact(artifact), licenses=found.names, licenses_from=found.places))
    assert head(told)["license"] == "gemma" and "apache-2.0, gemma, of which the first mentioned is" in told.text
    own = licensed(tmp_path / "own", "---\nlicense: other\nlicense_name: acme\nlicense_link: https://acme.org/x\n---\n")
    found = licences_of(open_reference(own))
    assert (found.names, found.link) == (("acme",), "https://acme.org/x")
    named = head(card_of(renamed(open_artifact(artifact), licenses=found.names, license_link=found.link)))
    assert (named["license"], named["license_name"], named["license_link"]) == ("other", "acme", "https://acme.org/x")
    header = {"general.license": "other", "general.license.name": "qwen-research", "general.license.link": "LICENSE"}
    gguf = replace(open_reference(open_artifact(artifact).ggufs[0].path), config=header)
    assert licences_of(gguf).names == ("qwen-research",) and licences_of(gguf).link == "LICENSE"
    for name in ("lgpl-2.1", "bsl-1.0", "cc-by-sa-3.0", "artistic-2.0", "epl-2.0"):
        assert head(card_of(renamed(open_artifact(artifact), licenses=(name,))))["license"] == name
    assert not is_clear(["gemma", "llama3"]) and is_clear(["mit", "gemma"])


def test_the_terms_of_the_base_go_along_into_every_repository(artifact: Path) -> None:
    workspace = Workspace.open()
    folder = licensed(workspace.references / "base", LICENSE="Terms of ACME", NOTICE="By ACME")
    snapshot = workspace.references / "models--acme--base" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (converted,) = (workspace.cache / "converted").glob("*.gguf")
    gguf = Path(shutil.copyfile(converted, snapshot / "base.gguf"))
    for name in ("LICENSE", "NOTICE"):
        shutil.copyfile(folder / name, snapshot / name)
    drop = make_map(load(CONTRIBUTIONS), preset("98e-v4", drop=8)).to_json()
    kinds: dict[Format, Path] = {"safetensors": folder, "gguf": gguf}
    for part, base in kinds.items():
        made = {"reference": str(base), "map": drop, "name": f"small-{part}", "outputs": [part]}
        check("build", made, workspace).run(workspace, silent)
        opened = open_artifact(workspace.artifacts / f"small-{part}")
        opened = renamed(opened, licenses=())
        plan = plan_upload(opened, "me/small", chosen=part)
        files = {file.name: file for file in plan.files}
        assert files["LICENSE"].source and files["LICENSE"].source.read_text() == "Terms of ACME"
        assert files["NOTICE"].source and files["README.md"].text
        text = files["README.md"].text
        assert "a licence whose name its card does not tell" in text and "LICENSE, NOTICE lie here too" in text
        assert "Neither its card nor its files" not in text and any("no licence" in one for one in plan.remarks)
        assert "license: mit" in with_licence(text, "MIT") and "mit, as whoever" in with_licence(text, "mit")


def test_the_transformers_snippet_runs(artifact: Path) -> None:
    opened = open_artifact(artifact)
    code = transformers_code(str(artifact / "safetensors"), "gemma4", chat_template(opened))
    assert "attn_implementation='sdpa'" in code and code.replace(str(artifact / "safetensors"), "safetensors") in (
        card_of(opened).text
    )
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, "snippet", "exec"), {})
    assert "4" in said.getvalue()


def test_the_arguments_of_llama_server_are_those_of_our_build() -> None:
    known = library().path.read_bytes()  # llama.cpp's own reader of arguments is compiled into it
    for template in ("", "{{ enable_thinking }}"):
        for family in ("gemma4", "mixtral", None):
            line = server_command(["--hf-repo", "me/x", "--hf-file", "x.gguf", "--model", "x.gguf"], family, template)
            switches = [word for word in shlex.split(line)[1:] if word.startswith("-")]
            assert "--jinja" in switches and all(b"\0" + word.encode() + b"\0" in known for word in switches), switches
    thinking = server_arguments("gemma4", "{{ enable_thinking }}")
    assert thinking[thinking.index("--reasoning-budget") + 1] == "8192"
    assert "--reasoning-format" not in server_arguments("mixtral", "")
    assert b"\0--no-such-switch\0" not in known
