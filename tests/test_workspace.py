"""Paths that come from the page stay inside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.access import VISITOR
from studio.errors import InputError
from studio.workspace import ROOMS, Workspace


def test_the_workspace_follows_its_variable_and_has_its_rooms(own_workspace: Path) -> None:
    workspace = Workspace.open()
    assert workspace.root == own_workspace.resolve()
    assert all((workspace.root / room).is_dir() for room in ROOMS)
    assert {getattr(workspace, room).name for room in ROOMS} == set(ROOMS)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "artifacts/../../outside", "link/secret"])
def test_a_path_outside_is_refused(path: str, tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "home")
    (workspace.root / "link").symlink_to("/etc")
    with pytest.raises(InputError, match="outside the workspace"):
        workspace.inside(path)


@given(st.lists(st.sampled_from(["..", ".", "artifacts", "a b", "…", "maps"]), max_size=8).map("/".join))
def test_whatever_is_accepted_lies_inside(path: str) -> None:
    workspace = Workspace(Path("/nowhere/espalier"))
    try:
        assert workspace.inside(path).is_relative_to(workspace.root)
    except InputError:
        assert ".." in path


def test_each_person_has_a_part_and_the_cache_is_shared(tmp_path: Path) -> None:
    house = Workspace.open(tmp_path / "studio")
    ann, bob = house.of("ann"), house.of("../bob")
    assert ann.root != bob.root and ann.root.is_relative_to(house.root / "people")
    assert bob.root.parent == ann.root.parent and bob.person == "../bob"
    assert ann.cache == bob.cache == house.cache
    assert Workspace.open(ann.root) == ann, "a verb with ESPALIER_HOME on a part works in that part"
    assert house.parts() == {"": house, ann.part: ann, bob.part: bob} == ann.parts()
    with pytest.raises(InputError, match="outside"):
        ann.inside(bob.root / "recipes" / "mine.json")
    assert ann.root.stat().st_mode & 0o077 == 0


def test_a_folder_is_nobodys_part_only_because_it_is_called_people(tmp_path: Path) -> None:
    lone = Workspace.open(tmp_path / "people" / "me")
    assert lone.whole is None and lone.cache == lone.root / "cache" and lone.part == ""


def test_models_are_opened_from_allowed_folders_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = Workspace.open(tmp_path / "studio")
    allowed, elsewhere = tmp_path / "models", tmp_path / "elsewhere"
    for folder in (allowed / "qwen", elsewhere / "secret", house.references / "shared"):
        folder.mkdir(parents=True)
    (allowed / "way-out").symlink_to(elsewhere / "secret")
    (house.references / "linked").symlink_to(elsewhere / "secret")
    monkeypatch.setenv("ESPALIER_MODELS", os.pathsep.join([str(allowed), str(tmp_path / "gone")]))
    ann = house.of("ann")
    assert ann.model("qwen") == allowed / "qwen" and ann.model("shared") == house.references / "shared"
    assert ann.model("linked") == house.references / "linked", "whoever runs the studio put this link there"
    for name in ("way-out", "..", ".", "", "../elsewhere/secret", "qwen/../../elsewhere/secret", "nothing"):
        assert ann.model(name) is None
    assert house.of("somebody", VISITOR).model("qwen") is None


def test_no_link_leads_out_of_a_folder_of_models_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = Workspace.open(tmp_path / "studio")
    allowed = tmp_path / "models" / "references"
    allowed.mkdir(parents=True)
    (allowed / "out").symlink_to("/etc")
    monkeypatch.setenv("ESPALIER_MODELS", str(allowed))
    assert house.model("out") is None and house.of("ann").model("out") is None
