"""The card tells what the manifest and the measures tell, in words that anybody may copy and nobody can inject into."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from studio.checkpoints.reference import open_reference
from studio.cli.app import main
from studio.errors import FormatError
from studio.publish.artifact import Artifact, keep_measures, open_artifact
from studio.publish.card import Card, chat_template, make_card
from studio.publish.escape import fenced, plain
from studio.publish.licence import UNKNOWN, licenses_of, strictest
from studio.publish.measures import comparisons
from studio.publish.ollama import hub_command
from studio.publish.pictures import kept_picture
from studio.publish.snippets import server_arguments, server_command, transformers_code
from studio.publish.verify import verify
from studio.quantize.ggml import library
from studio.workspace import Workspace
from tests.publish.conftest import ASSETS, NAME


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
    assert "It names acme-1, mit, of which this is the strictest" in own.text
    assert strictest(["apache-2.0", "cc-by-nc-4.0", "gemma"]) == "cc-by-nc-4.0" and strictest([]) == UNKNOWN
    assert licenses_of(open_reference(ASSETS / "demo-model")) == ("apache-2.0",)
    assert licenses_of(open_reference(opened.ggufs[0].path)) == ("apache-2.0",)


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
    others = Workspace.open().measures
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
    (one,) = comparisons(opened, others)
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
        comparisons(opened, others)


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
    assert main(["card", str(artifact), "--repo", "me/demo"]) == 0
    first = (artifact / "README.md").read_bytes()
    assert main(["card", str(artifact), "--repo", "me/demo"]) == 2
    assert main(["card", str(artifact), "--repo", "me/demo", "--overwrite"]) == 0
    assert (artifact / "README.md").read_bytes() == first and (artifact / "pictures" / "kept.svg").is_file()
    assert b"llama-server --hf-repo me/demo --hf-file demo-24e-CD-Q4_K_M.gguf --jinja" in first
    assert b"ollama run hf.co/me/demo:demo-24e-CD-Q4_K_M.gguf\n" in first
    assert hub_command("me/demo", "Q4_K_M", "x.gguf") == "ollama run hf.co/me/demo:Q4_K_M"
    capfd.readouterr()


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
