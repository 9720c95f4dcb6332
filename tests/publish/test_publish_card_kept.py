"""What somebody makes of a card is kept, is what leaves, and is never replaced without being asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from studio.checkpoints.reference import open_reference
from studio.errors import InputError, MismatchError
from studio.jobs.task import ASSETS
from studio.publish.artifact import Artifact, open_artifact
from studio.publish.card_head import base_in, head_problem, licence_in, with_base, with_licence
from studio.publish.card_kept import (
    LONGEST_CARD,
    bring_card_back,
    keep_card,
    read_card,
    set_card_aside,
)
from studio.publish.licence import licences_of
from studio.publish.manifest import FILE_NAME, Manifest
from studio.publish.repository import plan_upload


def nameless(artifact: Artifact) -> Artifact:
    """`artifact`, its base naming no licence."""
    base = artifact.manifest.reference.model_copy(update={"licenses": (), "licenses_from": None})
    return replace(artifact, manifest=artifact.manifest.model_copy(update={"reference": base}))


def test_each_format_has_a_text_of_its_own_which_is_what_leaves(artifact: Path) -> None:
    opened = open_artifact(artifact)
    made = read_card(opened, "gguf", repository="me/small")
    assert not made.is_own and "me/small" in made.text
    kept = keep_card(opened, "gguf", made.text + "\nMine.\r\n", made.digest)
    assert kept.is_own and kept.text.endswith("\nMine.\r\n")
    assert kept.pictures == made.pictures, "text and pictures tell the same"
    assert not read_card(opened, "safetensors").is_own
    sent = {file.name: file for file in plan_upload(opened, "me/small", chosen="gguf").files}
    assert sent["README.md"].source == artifact / "README-gguf.md"
    assert set(made.pictures) <= set(sent)
    other = {file.name: file for file in plan_upload(opened, "me/whole", chosen="safetensors").files}
    assert "Mine." not in (other["README.md"].text or "Mine.")


def test_a_text_that_changed_elsewhere_is_not_overwritten(artifact: Path) -> None:
    opened = open_artifact(artifact)
    seen = read_card(opened, "gguf")
    mine = keep_card(opened, "gguf", "mine", seen.digest)
    with pytest.raises(MismatchError, match=r"README-gguf\.md was changed elsewhere"):
        keep_card(opened, "gguf", "another tab's", seen.digest)
    assert keep_card(opened, "gguf", "mine, longer", mine.digest).text == "mine, longer"
    with pytest.raises(InputError, match="200,000 are the most"):
        keep_card(opened, "gguf", "x" * (LONGEST_CARD + 1), mine.digest)


def test_generating_again_sets_a_text_aside_and_it_can_be_brought_back(artifact: Path) -> None:
    opened = open_artifact(artifact)
    keep_card(opened, "gguf", "mine", read_card(opened, "gguf").digest)
    set_card_aside(opened, "gguf")
    generated = read_card(opened, "gguf")
    assert not generated.is_own and generated.has_former
    keep_card(opened, "gguf", "the second", generated.digest)
    bring_card_back(opened, "gguf")
    assert read_card(opened, "gguf").text == "mine"
    bring_card_back(opened, "gguf")
    assert read_card(opened, "gguf").text == "the second", "what was there is set aside in turn"


def test_a_licence_that_somebody_names_goes_into_the_head_and_the_text(artifact: Path) -> None:
    made = read_card(nameless(open_artifact(artifact)), "gguf").text
    assert licence_in(made) == "" and "unknown, ask the author" in made
    told = with_licence(made, "Apache-2.0")
    assert licence_in(told) == "apache-2.0" and "unknown" not in told.partition("## Licence")[2]
    own = with_licence(told, "acme: terms")
    head = yaml.safe_load(own.split("---")[1])
    assert (head["license"], head["license_name"]) == ("other", "acme: terms")
    assert head["tags"] == yaml.safe_load(made.split("---")[1])["tags"], "the rest stays"
    for wrong in ("", "  \n"):
        with pytest.raises(InputError, match="No licence"):
            with_licence(made, wrong)


def test_a_base_that_somebody_names_goes_into_the_head(artifact: Path) -> None:
    made = read_card(open_artifact(artifact), "gguf").text
    assert base_in(made) == "", "a folder of the demo's is no name on the Hub"
    told = with_base(made, " acme/Big-MoE ", ["gguf"])
    assert base_in(told) == "acme/Big-MoE" and told.endswith(made.split("---", 2)[2])
    again = yaml.safe_load(with_base(told, "acme/other", ["safetensors"]).split("---")[1])
    assert (again["base_model"], again["base_model_relation"]) == (["acme/other"], "finetune")
    assert again["tags"] == yaml.safe_load(made.split("---")[1])["tags"], "the rest stays"
    for wrong in ("", "acme", "../x/y", "acme/big moe", "acme/big--moe", "acme/.."):
        with pytest.raises(InputError, match="OWNER/NAME"):
            with_base(made, wrong, ["gguf"])


@pytest.mark.parametrize(
    ("head", "lines"),
    [
        ("tags:\n- x\nbase_model:\n# orig\n- a/b\n", ["tags:", "- x"]),
        ("'base_model' : ''\n\nlicense: mit\n", ["license: mit"]),
        ("license_link: |\n  one\n\n  two\nbase_model: a/b\n", ["license_link: |", "  one", "", "  two"]),
    ],
)
def test_only_the_lines_of_a_field_are_changed(head: str, lines: list[str]) -> None:
    told = with_base(f"---\n{head}---\n# x\n", "acme/Big-MoE", ["gguf"])
    assert told.splitlines() == [
        "---", *lines, "base_model:", "- acme/Big-MoE", "base_model_relation: quantized", "---", "# x",
    ]  # fmt: skip


@pytest.mark.parametrize("head", ["{tags: [x]}", "  tags: [x]\n  license: mit", "tags: [x]\n..."])
def test_a_head_that_has_no_line_for_each_field_is_left_as_it_is(head: str) -> None:
    for change in (lambda text: with_base(text, "a/b", ["gguf"]), lambda text: with_licence(text, "mit")):
        with pytest.raises(InputError, match="line by line"):
            change(f"---\n{head}\n---\n# x\n")


def test_a_date_that_is_none_is_no_yaml() -> None:
    text = "---\ndate: 2024-13-45\n---\n"
    assert "month must be in" in head_problem(text) and licence_in(text) == base_in(text) == ""


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("---\nbase_model: a/b\n---\n", "a/b"),
        ("---\nbase_model:\n- a/b\n- c/d\n---\n", "a/b"),
        ("---\n- x\n---\n", ""),
    ],
)
def test_a_base_is_read_however_it_is_written(text: str, base: str) -> None:
    assert base_in(text) == base


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("---\nlicense: mit\n---\n# x\n", ""),
        ("# x\n", "does not begin"),
        ("---\na: [1\nb: 2\n---\n", "not YAML at line"),
        ("---\njust words\n---\n", "no `name: value`"),
    ],
)
def test_a_head_that_the_hub_cannot_read_is_said(text: str, problem: str) -> None:
    assert problem in head_problem(text) and bool(problem) == bool(head_problem(text))
    if problem:
        with pytest.raises(InputError):
            with_licence(text, "mit")


def test_where_the_licence_was_read_is_told_and_older_manifests_stay_as_they_are(artifact: Path) -> None:
    told = Manifest.read(artifact / FILE_NAME)
    assert told.reference.licenses_from == "the head of its card, README.md"
    gguf = next((artifact / "gguf").glob("*.gguf"))
    assert licences_of(open_reference(gguf)).places == f"general.license in the header of {gguf.name}"
    assert licences_of(open_reference(ASSETS / "demo-model")).places == told.reference.licenses_from
    older = nameless(open_artifact(artifact)).manifest
    assert "licenses_from" not in json.loads(older.to_json())["reference"]
