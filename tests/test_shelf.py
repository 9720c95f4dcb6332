"""Recipes under a name: kept, found again, never lost by accident, and nowhere but in their folder."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import EspalierError, FormatError, InputError
from studio.recipes.recipe import Recipe
from studio.shelf import LONGEST_NAME, Shelf

RECIPE = Recipe(drop=3, force_keep={"1": [2, 5]})


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    (tmp_path / "0123456789ab.json").write_text("{}")  # what a job reads has no name
    return Shelf(tmp_path)


def test_a_named_recipe_is_found_again_until_it_is_deleted(shelf: Shelf) -> None:
    assert shelf.save("  for   code ", RECIPE) == "for code"
    shelf.save("Älter", RECIPE)
    shelf.save("b" * LONGEST_NAME, RECIPE)
    assert shelf.names() == ["b" * LONGEST_NAME, "for code", "Älter"]
    assert shelf.read("for code") == RECIPE
    shelf.delete("for code")
    shelf.delete("for code")
    assert "for code" not in shelf.names()
    with pytest.raises(InputError, match="no recipe 'for code' any more"):
        shelf.read("for code")


def test_another_recipe_does_not_take_a_name_that_is_taken(shelf: Shelf) -> None:
    shelf.save("mine", RECIPE)
    shelf.save("mine", RECIPE)
    with pytest.raises(InputError, match="another recipe 'mine'"):
        shelf.save("mine", RECIPE.but(drop=4))
    assert shelf.read("mine") == RECIPE


@pytest.mark.parametrize(
    "name",
    ["", " ", "../up", "/etc/passwd", ".hidden", "a\x00b", "x" * (LONGEST_NAME + 1), "🌳" * LONGEST_NAME, "\ud800"],
)
def test_what_cannot_be_a_name_is_refused(shelf: Shelf, name: str) -> None:
    for act in (lambda: shelf.save(name, RECIPE), lambda: shelf.read(name), lambda: shelf.delete(name)):
        with pytest.raises(InputError):
            act()


@given(name=st.text(max_size=LONGEST_NAME))
def test_every_name_that_is_taken_lies_in_the_folder(name: str) -> None:
    with TemporaryDirectory() as folder:
        shelf = Shelf(Path(folder))
        try:
            saved = shelf.save(name, RECIPE)
        except InputError:
            return
        assert shelf.names() == [saved] and shelf.read(saved) == RECIPE
        assert [path.name for path in Path(folder).iterdir()] == [f"{saved}.recipe.json"]


@pytest.mark.parametrize("letter", ["x", "é", "木", "🌳"])
def test_the_longest_names_can_be_saved(shelf: Shelf, letter: str) -> None:
    longest = letter * min(LONGEST_NAME, 200 // len(letter.encode()))
    assert shelf.read(shelf.save(longest, RECIPE)) == RECIPE


def test_only_what_can_be_read_is_listed(shelf: Shelf) -> None:
    for name in ("a:b", ".hidden", " ", "fine"):
        (shelf.folder / f"{name}.recipe.json").write_text(RECIPE.to_json())
    assert shelf.names() == ["fine"]


def test_a_damaged_file_is_named(shelf: Shelf) -> None:
    (shelf.folder / "old.recipe.json").write_text("{")
    with pytest.raises(FormatError, match="The recipe 'old'"):
        shelf.read("old")


FLOORED = Recipe(drop=3, floor=2)
SECOND, OTHER = "ab" * 32, "cd" * 32


def test_the_second_analysis_is_kept_beside_a_recipe_whose_floors_go_by_it(shelf: Shelf) -> None:
    shelf.save("mine", FLOORED, SECOND)
    assert (shelf.read("mine"), shelf.second("mine"), shelf.names()) == (FLOORED, SECOND, ["mine"])
    assert Recipe.from_json((shelf.folder / "mine.recipe.json").read_bytes()) == FLOORED, "a file as any other"
    shelf.save("mine", FLOORED)
    assert shelf.second("mine") == SECOND, "whoever does not know it does not forget it"
    with pytest.raises(InputError, match="another recipe 'mine'"):
        shelf.save("mine", FLOORED, OTHER)
    shelf.delete("mine")
    assert list(shelf.folder.glob("mine*")) == []
    shelf.save("plain", RECIPE, SECOND)
    assert shelf.second("plain") is None, "nothing of it goes by another analysis"


def test_a_recipe_of_before_learns_its_second_analysis_when_it_is_saved_again(shelf: Shelf) -> None:
    (shelf.folder / "old.recipe.json").write_text(FLOORED.to_json())
    assert shelf.second("old") is None
    shelf.save("old", FLOORED, SECOND)
    assert shelf.second("old") == SECOND
    (shelf.folder / "old.recipe.json").unlink()
    shelf.save("old", FLOORED)
    assert shelf.second("old") is None, "that was another recipe's"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "old.floors.json"),
        ('{"version": 1, "floor_contributions": "x"}', "floor_contributions"),
        ('{"version": 1}', "floor_contributions"),
        ('{"version": 0, "floor_contributions": "' + SECOND + '"}', "version"),
        ('{"version": 1, "floor_contributions": "' + SECOND + '", "more": 1}', "no field 'more'"),
        ('{"version": 2, "else": 1}', "Update Espalier"),
    ],
)
def test_what_lies_beside_is_checked_by_name(shelf: Shelf, text: str, said: str) -> None:
    (shelf.folder / "old.recipe.json").write_text(FLOORED.to_json())
    (shelf.folder / "old.floors.json").write_text(text)
    with pytest.raises(EspalierError, match=said):
        shelf.second("old")
