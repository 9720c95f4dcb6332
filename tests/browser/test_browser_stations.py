"""What a person can do in the first three stations, in a real browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from studio.jobs.task import ASSETS

OpenPage = Callable[..., Page]

DROPPED = "Number(document.querySelector('.plot').dataset.dropped)"
SHAPE = "(({layers, experts}) => [layers.length, experts])(document.querySelector('.plot').layout.meta)"


def set_drop(page: Page, count: int) -> None:
    """Move the drop slider, and wait until the map and the numbers have followed."""
    layers, experts = page.evaluate(SHAPE)
    slide = "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', {bubbles: true})) }"
    page.locator("#drop input[type=range]").evaluate(slide, count)
    page.wait_for_function(f"{DROPPED} === {count * layers}")
    page.wait_for_function(f"document.querySelector('#meaning').innerText.includes('{experts - count} of {experts}')")


def choose(page: Page, selector: str, label: str) -> None:
    """Choose an entry of a dropdown."""
    page.click(f"{selector} input")
    page.locator("ul[role=listbox] li", has_text=label).first.click()


def title(page: Page) -> str:
    return page.inner_text(".plot-title")


def wait_for_title(page: Page, part: str) -> None:
    page.wait_for_function(f"document.querySelector('.plot-title').innerText.includes({json.dumps(part)})")


def test_nothing_is_empty_at_first_paint(open_page: OpenPage) -> None:
    page = open_page()
    layers, experts = page.evaluate(SHAPE)
    assert page.evaluate(DROPPED) == layers * (experts // 4)
    assert f"{layers} × {experts}" in page.inner_text("#reference-facts")
    assert "Classes" in page.inner_text("#analysis-facts")
    assert "MiB" in page.inner_text("#sizes") and "MiB" in page.inner_text("#meaning")
    assert page.input_value("#build-name input, #build-name textarea").endswith(f"-{experts - experts // 4}e")
    assert page.locator(".station-head h2").count() == page.locator(".masthead nav a").count() == 7


def test_the_drop_slider_changes_map_numbers_sizes_and_name(open_page: OpenPage) -> None:
    page = open_page()
    before = page.inner_text("#sizes"), page.get_attribute("#saves a", "href")
    set_drop(page, 3)
    assert page.inner_text("#sizes") != before[0]
    assert page.get_attribute("#saves a", "href") != before[1]
    assert page.input_value("#build-name input, #build-name textarea").endswith(f"-{page.evaluate(SHAPE)[1] - 3}e")


def test_class_scale_and_difference_change_the_question_and_the_colours(open_page: OpenPage) -> None:
    page = open_page()
    limits = "(({zmin, zmax}) => [zmin, zmax])(document.querySelector('.plot').data[0])"
    choose(page, "#map-class", "Math")
    wait_for_title(page, "contribute to math")
    page.click("#map-scale label:has-text('Rank')")
    page.wait_for_function(f"({limits})[1] > 0.9")
    choose(page, "#map-minus", "Code")
    wait_for_title(page, "lean to math")
    low, high = page.evaluate(limits)
    assert low == -high < 0


def test_a_class_weight_changes_what_is_dropped(open_page: OpenPage) -> None:
    page = open_page()
    marks = "document.querySelector('.plot').layout.meta.cells"
    set_drop(page, page.evaluate(SHAPE)[1] // 2)
    before = page.evaluate(marks)
    page.locator("#weights .weight", has_text="Code").locator("input[type=number]").fill("5")
    page.wait_for_function(f"{marks} !== {json.dumps(before)}")
    slider = page.locator("#weights .weight", has_text="Code").locator("input[type=range]")
    assert slider.input_value() == "5", "slider and number agree"


def test_presets_explain_themselves_and_choose_differently(open_page: OpenPage) -> None:
    page = open_page()
    page.click("#preset label:has-text('98e-v3')")
    page.wait_for_function("document.querySelector('#choose').innerText.includes('works most over all classes')")


def test_a_preset_with_weights_of_its_own_shows_them_and_they_can_be_changed(open_page: OpenPage) -> None:
    page = open_page()
    code = page.locator("#weights .weight", has_text="Code").locator("input[type=number]")
    page.click("#preset label:has-text('98e-v5-coder')")
    page.wait_for_function("document.querySelector('#choose').innerText.includes('mostly writes code')")
    expect(code).to_have_value("3")
    code.fill("1")
    page.wait_for_function("document.querySelector('#choose').innerText.includes('mostly writes code')")
    expect(code).to_have_value("1")


def test_a_map_can_be_saved_and_brought_back(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    set_drop(page, 5)
    with page.expect_download() as saving:
        page.click("#saves a:has-text('drop map')")
    saved = tmp_path / saving.value.suggested_filename
    saving.value.save_as(saved)
    assert {len(dropped) for dropped in json.loads(saved.read_text()).values()} == {5}
    set_drop(page, 2)
    page.click("button:has-text('Use a published map')")
    page.set_input_files("#choice-upload input[type=file]", saved)
    layers, _ = page.evaluate(SHAPE)
    page.wait_for_function(f"{DROPPED} === {5 * layers}")
    assert "imported map" in page.inner_text("#choose")
    set_drop(page, 4)
    assert "imported map" not in page.inner_text("#choose")


def test_a_file_that_is_no_map_is_refused_in_words_and_changes_nothing(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    before = page.evaluate(DROPPED)
    broken = tmp_path / "broken.json"
    broken.write_text('{"0": [0, 0]}')
    page.click("button:has-text('Use a published map')")
    page.set_input_files("#choice-upload input[type=file]", broken)
    page.wait_for_selector("#choose .notice.error")
    assert "broken.json" in page.inner_text("#choose .notice.error")
    assert page.evaluate(DROPPED) == before


def test_a_cell_shows_its_numbers_to_mouse_and_keyboard(open_page: OpenPage) -> None:
    page = open_page()
    page.locator(".plot").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector("#cell table")
    assert page.inner_text("#cell caption").startswith("Layer 1, expert 1")
    box = page.locator(".plot .nsewdrag").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] - 3, box["y"] + 3)
    experts = page.evaluate(SHAPE)[1]
    page.wait_for_function(
        f"document.querySelector('#cell caption').innerText.startsWith('Layer 0, expert {experts - 1}')"
    )


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_its_window_in_light_and_dark(open_page: OpenPage, width: int, scheme: Any) -> None:
    page = open_page(width=width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    card = "getComputedStyle(document.querySelector('.station')).backgroundColor.match(/[0-9]+/g).map(Number)"
    brightness = sum(page.evaluate(card)[:3]) / 3
    assert brightness < 60 if scheme == "dark" else brightness > 220


def test_the_switch_turns_the_page_and_the_map_dark_and_is_remembered(open_page: OpenPage) -> None:
    page = open_page(color_scheme="light")
    lowest = "document.querySelector('.plot').data[0].colorscale[0][1]"
    before = page.evaluate(lowest)
    page.click(".theme-toggle")
    page.wait_for_function(f"{lowest} !== {json.dumps(before)}")
    page.reload()
    page.wait_for_selector(".plot[data-drawn]")
    assert page.get_attribute(".theme-toggle", "aria-pressed") == "true"


def test_every_control_is_reached_by_keyboard_with_visible_focus(open_page: OpenPage) -> None:
    page = open_page()
    where = """(() => {
      const at = document.activeElement, style = getComputedStyle(at), label = at.closest('label');
      const around = label ? getComputedStyle(label) : style;
      const seen = [style, around].some(one => one.outlineStyle !== 'none' && parseFloat(one.outlineWidth) > 0);
      const place = at.closest('[id]:not(input, button, [id^=component], [id^=html-], [id^=range_id])');
      return [place ? place.id : '', at.className, seen];
    })()"""
    reached: dict[str, bool] = {}
    for _ in range(110):
        page.keyboard.press("Tab")
        place, classes, seen = page.evaluate(where)
        for name in (place, "plot" if "plot" in str(classes).split() else ""):
            if name:
                reached[name] = reached.get(name, True) and seen
    wanted = {"masthead", "reference", "analysis", "map-class", "map-minus", "map-scale", "plot", "drop", "preset"}
    wanted |= {"weights", "saves", "outputs", "build-name", "prompt"}
    assert wanted <= set(reached), f"not reached: {wanted - set(reached)}"
    assert [name for name in wanted if not reached[name]] == [], "no visible focus"


def test_a_number_that_cannot_be_dropped_is_refused_and_goes_back_when_it_is_left(open_page: OpenPage) -> None:
    page = open_page()
    field = page.locator("#drop input[type=number]")
    counts = field.input_value()
    experts = page.evaluate(SHAPE)[1]
    for typed, said in (("999", f"every layer has {experts}"), ("2.5", "valid integer"), ("", "")):
        field.fill(typed)
        expect(page.locator("#choose-problem")).to_contain_text(said)
        field.blur()
        expect(field).to_have_value(counts)
    field.fill("3")
    expect(page.locator("#choose-problem")).to_be_hidden()
    expect(page.locator("#meaning")).to_contain_text(f"{experts - 3} of {experts}")
    field.blur()
    expect(field).to_have_value("3")


def test_a_class_is_subtracted_only_from_another_one_and_the_list_says_so(open_page: OpenPage) -> None:
    page = open_page()
    choose(page, "#map-class", "Code")
    choose(page, "#map-minus", "Math")
    wait_for_title(page, "lean to code")
    choose(page, "#map-class", "All classes")
    wait_for_title(page, "all classes together")
    expect(page.locator("#map-minus input")).to_have_value("Nothing")


def test_the_steps_lead_to_the_stations(open_page: OpenPage) -> None:
    page = open_page(query="?__theme=light")
    page.click(".steps a:has-text('Build')")
    page.wait_for_function("document.querySelector('.steps [aria-current]').innerText.includes('Build')")
    assert "__theme=light" in page.url, "the page was not loaded again"


def test_looking_through_the_lists_of_models_changes_no_choice(open_page: OpenPage) -> None:
    page = open_page()
    page.locator("#drop input[type=number]").fill("3")
    page.locator("#drop input[type=number]").press("Enter")
    weight = page.locator("#weights .weight", has_text="Code").locator("input[type=number]")
    weight.fill("0.3")
    page.wait_for_function("document.querySelector('#meaning').innerText.includes('29 of 32')")
    for station in ("#reference", "#analysis"):
        page.click(f"{station} input")
        page.keyboard.press("Escape")
        page.click("#meaning")
    page.wait_for_timeout(1000)
    assert page.input_value("#drop input[type=number]") == "3"
    assert weight.input_value() == "0.3"
    weight.fill("")
    page.locator("#drop input[type=number]").fill("4")
    page.locator("#drop input[type=number]").press("Enter")
    page.wait_for_function("document.querySelector('#meaning').innerText.includes('28 of 32')")
    page.locator("#build button", has_text="The same as commands").click()
    assert "--class-weight code=0.3" in page.inner_text("#command")


def test_a_model_put_into_the_workspace_can_be_chosen_after_a_reload(open_page: OpenPage, app: Any) -> None:
    (app.workspace / "references" / "late").symlink_to(ASSETS / "demo-model")
    page = open_page()
    page.click("#reference input")
    page.locator("ul[role=listbox] li", has_text="late").click()
    page.wait_for_function(
        "document.querySelector('#build-name input, #build-name textarea').value.startsWith('demo-model-')"
    )
