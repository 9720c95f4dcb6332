"""Fine-tuning the recipe on the real page: each group changes the map as the engine says, and everything follows."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from components.library import DEMO_ANALYSIS
from studio.contributions import file
from studio.contributions.model import Contributions
from studio.recipes.apply import make_map
from studio.recipes.presets import preset
from studio.recipes.recipe import Recipe

OpenPage = Callable[..., Page]


def unfold(page: Page) -> None:
    page.click("#options button:has-text('Fine-tune the recipe')")
    page.wait_for_selector("#options .option")


def control(page: Page, field: str) -> Locator:
    return page.locator(f"[data-field={field}] :is(select, input)").first


def saved(page: Page, number: int) -> Any:
    """What the links beside the map save: 0 the drop map, 1 the recipe."""
    address = page.locator("#saves a.save").nth(number).get_attribute("href") or ""
    return json.loads(base64.b64decode(address.partition("base64,")[2]))


def wait_for_recipe(page: Page, **fields: Any) -> Recipe:
    """The recipe that the page shows, once it says `fields`."""
    page.wait_for_function(
        """wanted => {
          const link = document.querySelectorAll('#saves a.save')[1];
          if (!link) return false;
          const recipe = JSON.parse(atob(link.href.split('base64,')[1]));
          return Object.entries(wanted).every(([field, value]) =>
            JSON.stringify(recipe[field]) === JSON.stringify(value));
        }""",
        arg=fields,
    )
    return Recipe.from_json(saved(page, 1))


def expect_map(page: Page, recipe: Recipe, second: Contributions | None = None) -> None:
    """The map on the page is the one that the engine makes."""
    assert saved(page, 0) == json.loads(make_map(file.load(DEMO_ANALYSIS), recipe, second).to_json())


def preset_is(page: Page, name: str) -> None:
    expect(page.locator("#preset input:checked")).to_have_value(name)


def test_each_group_changes_the_map_and_undo_brings_its_controls_back(open_page: OpenPage) -> None:
    page = open_page()
    unfold(page)
    control(page, "add_tokens").click()
    expect_map(page, wait_for_recipe(page, add_tokens=False))
    preset_is(page, "own")
    control(page, "normalise").select_option("rank")
    expect_map(page, wait_for_recipe(page, normalise="rank"))
    control(page, "protect_top_per_class").fill("5")
    expect_map(page, wait_for_recipe(page, protect_top_per_class=5))
    control(page, "floor_layers_from").select_option("importance")
    expect_map(page, wait_for_recipe(page, floor_layers_from="importance", floor_analysis="same"))
    expect(page.locator("[data-field=floor_clamp] input").last).to_have_value("6")
    expect(control(page, "floor")).to_be_disabled()
    page.locator("[data-field=class_minimums] input").nth(1).fill("7")
    expect_map(page, wait_for_recipe(page, class_minimums=[["logic", 7]]))
    control(page, "floor_layers_from").select_option("recipe")
    wait_for_recipe(page, floor_layers_from="recipe")
    control(page, "scope").select_option("model")
    expect_map(page, wait_for_recipe(page, scope="model"))
    expect(page.locator("[data-field=layer_floors] .note")).to_contain_text("the same floor")
    for _ in range(7):
        page.click(".undo")
    wait_for_recipe(page, normalise="mean", add_tokens=True)
    preset_is(page, "98e-v4")
    expect(control(page, "normalise")).to_have_value("mean")
    expect(control(page, "add_tokens")).to_be_checked()
    expect(control(page, "protect_top_per_class")).to_have_value("0")
    page.click(".redo")
    expect(control(page, "add_tokens")).not_to_be_checked()


def test_presets_files_and_names_show_in_the_controls_and_the_other_way_round(
    open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page()
    unfold(page)
    page.click("#preset label:has-text('Coding first')")
    expect(control(page, "normalise")).to_have_value("rank")
    expect(control(page, "protect_top")).to_have_value("4")
    control(page, "protect_top").fill("9")
    preset_is(page, "own")
    control(page, "protect_top").fill("4")
    preset_is(page, "98e-v5-coder")
    path = tmp_path / "recipe.json"
    path.write_text(preset("109e-v3", 5).but(protect_top_per_question=3, classes=["math", "code"]).to_json())
    page.click("#choose button:has-text('Use a published map')")
    page.locator("#choice-upload input[type=file]").set_input_files(path)
    expect(control(page, "criterion")).to_have_value("coverage")
    expect(control(page, "protect_top_per_question")).to_have_value("3")
    expect(page.locator("[data-field=classes] input:checked")).to_have_count(2)
    expect(page.locator("#weights .weight")).to_have_count(2)
    page.reload()
    page.wait_for_selector(".plot[data-drawn]")
    unfold(page)
    expect(control(page, "protect_top_per_question")).to_have_value("3")


def test_one_file_can_follow_another(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    page.click("#choose button:has-text('Use a published map')")
    upload = page.locator("#choice-upload input[type=file]")
    path = tmp_path / "choice.json"
    path.write_text("no JSON")
    upload.set_input_files(path)
    expect(page.locator("#choose-problem")).to_contain_text("choice.json: it cannot be read as JSON")
    for recipe in (Recipe(drop=5, criterion="reap"), Recipe(drop=6, criterion="ean")):
        path.write_text(recipe.to_json())
        upload.set_input_files(path)
        expect_map(page, wait_for_recipe(page, criterion=recipe.criterion, drop=recipe.drop))
        expect(page.locator("#choose-problem")).to_be_hidden()


def test_what_cannot_be_is_said_beside_the_control_and_changes_nothing(open_page: OpenPage) -> None:
    page = open_page()
    unfold(page)
    control(page, "alpha").fill("-3")
    problem = page.locator("[data-field=alpha] .problem")
    expect(problem).to_contain_text("alpha is -3")
    expect(control(page, "alpha")).to_have_value("-3")
    preset_is(page, "98e-v4")
    control(page, "alpha").fill("3")
    wait_for_recipe(page, alpha=3)
    expect(problem).to_be_hidden()
    control(page, "layer_floors").fill("0: 3; 99: 2")
    control(page, "layer_floors").blur()
    expect(page.locator("[data-field=layer_floors] .problem")).to_contain_text("no layer 99")
    control(page, "layer_floors").fill("0..1: 3")
    control(page, "layer_floors").blur()
    expect_map(page, wait_for_recipe(page, layer_floors={"0": 3, "1": 3}))
    control(page, "normalise").select_option("zscore")
    wait_for_recipe(page, normalise="zscore")
    control(page, "aggregate").select_option("geomean")
    expect(page.locator("[data-field=aggregate] .problem")).to_contain_text("geomean needs positive values")
    expect(control(page, "aggregate")).to_have_value("max")


def test_folded_the_options_cost_nothing(open_page: OpenPage) -> None:
    page = open_page()
    answers: list[str] = []
    page.on("response", lambda answer: answers.append(answer.text()) if "/run/" in answer.url else None)
    page.click("#preset label:has-text('Total contribution')")
    wait_for_recipe(page, normalise="none")
    assert answers and not any("Criterion" in answer for answer in answers)
    assert page.locator("#options .option").count() == 0


@pytest.fixture
def generic(app: Any) -> Contributions:
    """A second analysis in the workspace: the demo's, with its experts in the opposite order."""
    demo = file.load(DEMO_ANALYSIS)
    reversed_ = replace(demo, sums={name: values[:, :, ::-1].copy() for name, values in demo.sums.items()})
    path = app.workspace / "contributions" / "generic.safetensors"
    if not path.exists():
        file.save(reversed_, path)
    return reversed_


def test_floors_go_by_another_analysis_through_link_and_reload(open_page: OpenPage, generic: Contributions) -> None:
    page = open_page()
    unfold(page)
    page.locator("[data-field=second] select").select_option(label="generic")
    control(page, "floor").fill("9")
    recipe = wait_for_recipe(page, floor=9, floor_analysis="second")
    expect_map(page, recipe, generic)
    dropped = saved(page, 0)
    assert dropped != json.loads(make_map(file.load(DEMO_ANALYSIS), recipe.but(floor_analysis="same")).to_json())
    page.click("#build button:has-text('The same as commands')")
    expect(page.locator("#command")).to_contain_text("--floor-contributions")
    link = page.locator("#saves a.permalink").get_attribute("href") or ""
    page.click(".undo")
    preset_is(page, "98e-v4")
    page.click(".undo")
    expect(page.locator("[data-field=second] select")).to_have_value("")
    page.goto(page.url.partition("?")[0] + link)
    wait_for_recipe(page, floor=9)
    assert saved(page, 0) == dropped
    page.reload()
    page.wait_for_selector(".plot[data-drawn]")
    unfold(page)
    expect(page.locator("[data-field=second] option:checked")).to_have_text("generic")
    assert saved(page, 0) == dropped


def test_what_is_changed_while_an_answer_is_on_its_way_counts_too(open_page: OpenPage) -> None:
    page = open_page()
    unfold(page)
    page.evaluate(
        """() => {
          const set = (field, value, event) => {
            const input = document.querySelector(`[data-field=${field}] :is(select, input)`);
            input.value = value;
            input.dispatchEvent(new Event(event, { bubbles: true }));
          };
          set('floor', '2', 'input');
          set('floor', '21', 'input');
          set('aggregate', 'sum', 'change');
          set('floor', '2', 'input');
          setTimeout(() => set('breadth_bonus', '0.25', 'input'), 20);
        }"""
    )
    wait_for_recipe(page, floor=2, aggregate="sum", breadth_bonus=0.25)
    assert control(page, "floor").input_value() == "2"


def test_the_options_fit_a_phone(open_page: OpenPage) -> None:
    page = open_page(390, 844)
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    boxes = [one.bounding_box() for one in page.locator("#options .option").all()]
    assert all(box is None or (box["x"] >= 0 and box["x"] + box["width"] <= 390) for box in boxes)
