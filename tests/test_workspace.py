"""Paths that come from the page stay inside."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
