"""The manifest tells how a result came to be, and two builds tell the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from studio.errors import FormatError, InputError
from studio.publish.manifest import FileRecord, Manifest, ReferenceRecord, describe, versions_of
from studio.recipes.dropmap import DropMap

REFERENCE = ReferenceRecord(name="google/gemma", sha256="a" * 64)
RECIPE = {"version": 1, "drop": 1, "class_weights": {"code": 3.0}}


def made_map() -> DropMap:
    provenance = {"recipe": RECIPE, "recipe_hash": "b" * 64, "contributions_hash": "c" * 64}
    return DropMap("gemma4", 4, ((0,), (3,)), (0, 1), provenance)


def test_the_story_comes_from_the_map_and_what_is_said_beside_it() -> None:
    story = describe(
        REFERENCE, made_map(), tiers=["Q4_K_M"], files=[FileRecord(name="a.gguf", bytes=1, sha256="d" * 64)]
    )
    assert (story.recipe, story.recipe_sha256, story.contributions) == (RECIPE, "b" * 64, "c" * 64)
    assert story.map is not None
    assert (story.map.sha256, story.map.experts, story.map.kept) == (made_map().content_hash, 4, 3)
    other = describe(
        REFERENCE, made_map(), provenance={"recipe": json.dumps({"drop": 2}), "contributions_hash": "e" * 64}
    )
    assert (other.recipe, other.contributions) == ({"drop": 2}, "e" * 64)
    assert describe(REFERENCE).map is None


def test_a_manifest_survives_its_file_and_holds_no_time(tmp_path: Path) -> None:
    story = describe(REFERENCE, made_map())
    story.write(tmp_path / "one.json")
    describe(REFERENCE, made_map()).write(tmp_path / "two.json")
    assert Manifest.read(tmp_path / "one.json") == story
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_only_the_versions_of_tools_that_were_used_are_named() -> None:
    assert set(describe(REFERENCE).versions) == {"espalier"}
    used = versions_of("gguf", "a-package-that-nobody-has")
    assert set(describe(REFERENCE, versions=used).versions) == {"espalier", "gguf"}


def test_a_map_has_a_line_per_layer_and_comes_back() -> None:
    story = describe(REFERENCE, made_map(), provenance={"recipe": {"note": "[\n 1,\n 2\n]"}})
    assert '"0": [0]' in story.to_json() and Manifest.model_validate_json(story.to_json()) == story
    assert story.map is not None
    assert DropMap.from_json(story.map.to_json(), 4).content_hash == story.map.sha256


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', '{"reference": {"name": "a"}}'])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=r"manifest\.json"):
        Manifest.read(path)
    with pytest.raises(InputError, match="cannot be read"):
        Manifest.read(tmp_path / "absent.json")


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError):
        Manifest.model_validate({"reference": REFERENCE.model_dump(), "built_at": "now"})
