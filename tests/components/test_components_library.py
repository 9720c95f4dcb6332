"""What is open: names and hashes lead to models, analyses and maps, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components import forecast, transitions
from components.library import Library, Opened
from components.outputs import command_text
from components.state import StudioState
from components.transitions import is_recipe
from studio.contributions import file
from studio.contributions.model import Contributions, Question
from studio.errors import FormatError, InputError, MismatchError
from studio.recipes.apply import make_map
from studio.recipes.presets import preset


@pytest.fixture
def opened(library: Library, contributions: Contributions) -> Opened:
    key = library.open_analysis(library.workspace.contributions / "pear.safetensors", library.reference("pear"))
    return library.open(StudioState.opening("pear", key, contributions.shape))


def test_an_opened_state_has_the_map_of_its_recipe(opened: Opened, contributions: Contributions) -> None:
    assert opened.drop == make_map(contributions, opened.state.recipe)
    assert opened.preview is not None and opened.preview.kept_experts == 6
    assert (opened.classes, opened.most, opened.name) == (("math", "code"), 6, "pear")


def test_an_analysis_of_another_grid_is_refused_by_name(library: Library, make_model: Callable[..., Path]) -> None:
    make_model(library.workspace.references / "plum", experts=16)
    with pytest.raises(MismatchError, match=r"3 layers × 8 experts, and plum has 3 × 16"):
        library.open_analysis(library.workspace.contributions / "pear.safetensors", library.reference("plum"))


def test_an_analysis_from_elsewhere_is_kept_in_the_workspace(
    library: Library, contributions: Contributions, tmp_path: Path
) -> None:
    outside = tmp_path / "downloaded.safetensors"
    file.save(contributions, outside)
    kept = library.analysis_path(library.open_analysis(outside))
    assert kept.is_relative_to(library.workspace.contributions)
    assert file.load(kept).content_hash == contributions.content_hash


def test_an_analysis_is_added_to_the_open_one(
    library: Library, opened: Opened, contributions: Contributions, tmp_path: Path
) -> None:
    outside = tmp_path / "verse.safetensors"
    verse = (Question("q1", "verse"), Question("q3", "verse"))
    file.save(replace(contributions, questions=verse), outside)
    state = transitions.with_added(library, opened.state, outside)
    assert library.open(state).classes == ("math", "code", "verse")
    assert library.analysis_path(state.analysis or "").is_relative_to(library.workspace.contributions)
    with pytest.raises(InputError, match="would count twice"):
        transitions.with_added(library, state, outside)


@pytest.mark.parametrize("sums", [("tokens",), ("tokens", "weighted_norm"), ("gate",), ("norm_squared",)])
def test_an_analysis_with_fewer_sums_opens_with_a_recipe_that_it_has_them_for(
    library: Library, opened: Opened, contributions: Contributions, tmp_path: Path, sums: tuple[str, ...]
) -> None:
    outside = tmp_path / "elsewhere.safetensors"
    file.save(replace(contributions, sums=dict.fromkeys(sums, np.ones(contributions.nonfinite.shape))), outside)
    shown = library.open(transitions.with_analysis(library, opened.state, outside))
    assert shown.drop is not None and shown.drop.dropped_count == 2 and shown.state.preset == "own"
    assert transitions.fitted(library, opened.state) is opened.state


def test_another_model_takes_the_analysis_along_only_where_it_fits(
    library: Library, opened: Opened, make_model: Callable[..., Path]
) -> None:
    make_model(library.workspace.references / "quince")
    make_model(library.workspace.references / "plum", experts=16)
    assert transitions.with_reference(library, opened.state, "quince").analysis == opened.state.analysis
    assert transitions.with_reference(library, opened.state, "plum").analysis is None


def test_another_grid_leaves_the_tab_with_its_user_and_what_is_unfolded(
    library: Library, opened: Opened, make_model: Callable[..., Path]
) -> None:
    make_model(library.workspace.references / "plum", experts=16)
    state = transitions.with_reference(library, replace(opened.state, user="ann", tuning=True), "plum")
    assert (state.user, state.tuning, state.analysis) == ("ann", True, None)


def test_classes_that_another_analysis_lacks_leave_the_recipe(
    library: Library, opened: Opened, contributions: Contributions, tmp_path: Path
) -> None:
    outside = tmp_path / "verse.safetensors"
    file.save(replace(contributions, questions=(Question("q1", "math"), Question("q2", "verse"))), outside)
    minimums = [("code", 1), ("math", 1)]
    recipe = opened.state.recipe.but(floor_analysis="same", class_minimums=minimums, classes=["code", "math"])
    state = transitions.with_analysis(library, transitions.cooking(library, opened.state, recipe), outside)
    assert (state.recipe.classes, state.recipe.class_minimums) == (["math"], [("math", 1)])
    assert library.open(state).drop is not None


def test_a_model_outside_the_workspace_is_linked_for_the_command_line_and_refused_for_the_page(
    library: Library, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    outside = make_model(tmp_path / "elsewhere" / "medlar")
    with pytest.raises(InputError):
        library.reference(str(outside))
    assert library.reference(library.adopt_reference(outside)).path.resolve() == outside


def test_two_models_cannot_have_one_name(library: Library, make_model: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="another model"):
        library.adopt_reference(make_model(tmp_path / "pear"))


@pytest.mark.parametrize("name", ["../..", "/etc", "references/../../.."])
def test_the_page_cannot_open_a_path(library: Library, name: str) -> None:
    with pytest.raises(InputError):
        library.reference(name)


def test_a_file_of_a_choice_is_recognised_by_what_is_in_it(library: Library, opened: Opened, tmp_path: Path) -> None:
    assert opened.drop is not None
    chosen = tmp_path / "choice.json"
    chosen.write_text(opened.drop.to_json())
    assert transitions.read_choice(library, opened.state, chosen).imported == opened.drop
    chosen.write_text(preset("98e-v3", 3, {"code": 2.0}).to_json())
    assert transitions.read_choice(library, opened.state, chosen).recipe.drop == 3


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"0": [1, 1]}', '{"0": [0], "1": [0], "2": [99]}', "\x00\x01"])
def test_a_file_that_is_no_choice_is_refused(library: Library, opened: Opened, tmp_path: Path, text: str) -> None:
    chosen = tmp_path / "choice.json"
    chosen.write_text(text)
    with pytest.raises(InputError):
        transitions.read_choice(library, opened.state, chosen)


def test_a_huge_file_is_refused_before_it_is_read(library: Library, opened: Opened, tmp_path: Path) -> None:
    chosen = tmp_path / "choice.json"
    with chosen.open("wb") as sparse:
        sparse.truncate(1 << 30)
    with pytest.raises(InputError, match="too many"):
        transitions.read_choice(library, opened.state, chosen)


def test_what_a_job_reads_is_what_was_shown(library: Library, opened: Opened) -> None:
    map_path, recipe_path = library.keep_choice(opened.state)
    assert opened.drop is not None and json.loads(map_path.read_text()) == json.loads(opened.drop.to_json())
    assert recipe_path is not None and recipe_path.read_text() == opened.state.recipe.to_json()
    assert library.keep_choice(opened.state.showing(opened.drop))[1] is None


def test_without_an_analysis_there_is_nothing_to_build(library: Library) -> None:
    with pytest.raises(InputError, match="no map"):
        library.keep_choice(StudioState.opening("pear", None, None))


def test_sizes_fall_with_every_dropped_expert_and_with_the_tier(library: Library, opened: Opened) -> None:
    def sizes(output: str) -> list[int]:
        states = [opened.state.choosing("98e-v4", drop, {}) for drop in range(7)]
        return [forecast.foretold_bytes(library, library.open(state), output) for state in states]

    for output in ("safetensors", "Q8_0", "Q4_K_M"):
        assert (np.diff(sizes(output)) < 0).all()
    assert sizes("F16")[0] > sizes("Q8_0")[0] > sizes("Q4_K_M")[0]


def test_a_recipe_in_other_terms_is_shown_in_those_of_the_page(
    library: Library, opened: Opened, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.json"
    path.write_text('{"keep": 5, "class_weights": {"#1": 1, "#2": 3}}')
    recipe = transitions.read_choice(library, opened.state, path).recipe
    assert (recipe.drop, recipe.keep, recipe.class_weights) == (3, None, {"code": 3.0})


def test_a_preset_brings_its_own_weights_once_and_protects_the_same_share(library: Library, opened: Opened) -> None:
    coder = transitions.choosing(library, opened.state, "98e-v5-coder", 2, {"math": 2.0})
    assert coder.recipe.class_weights == {"code": 3.0}
    assert (coder.recipe.protect_top, coder.recipe.floor_clamp) == (1, (1, 2))
    moved = transitions.choosing(library, coder, "98e-v5-coder", 3, {})
    assert moved.recipe.class_weights == {} and moved.recipe.floor_clamp == (1, 2)
    shown = library.open(moved)
    assert shown.drop is not None and shown.drop.dropped_count == 3
    assert "--class-weight math=1 --class-weight code=1" in command_text(library, shown, "small", ["safetensors"])


def test_a_map_is_not_taken_for_a_recipe() -> None:
    assert is_recipe(b'{"drop": 3}') and is_recipe(b'{"keep": 3}')
    assert not is_recipe(b'{"0": [1]}') and not is_recipe(b"{") and not is_recipe(b"[1]")


def test_an_unreadable_analysis_is_named(library: Library, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"questions": 3}')
    with pytest.raises(FormatError, match=r"broken\.json"):
        library.open_analysis(broken)
