"""Working in the map: clicking, dragging, typing, keys, undo, and coming back."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, Request, expect

OpenPage = Callable[..., Page]

BY_HAND = "#see .by-hand"
FITS = """() => {
  const plot = document.querySelector('.plot'), canvas = plot.querySelector('canvas.marks'), {xaxis} = plot._fullLayout;
  const drawn = Math.abs(plot.querySelector('.main-svg').getBoundingClientRect().width - plot.clientWidth) < 1;
  return drawn && Math.abs(canvas.getBoundingClientRect().width - xaxis._length) < 1;
}"""
"""The map has the width that the page gives it, and its marks lie on its cells."""


def mode(page: Page, name: str) -> None:
    page.click(f"#map-mode label:has-text('{name}')")
    page.locator(".plot").evaluate("plot => plot.scrollIntoView({block: 'center'})")


def at(page: Page, row: int, expert: int) -> tuple[float, float]:
    """The middle of a cell; row −1 and expert −1 are beside the cells, on the labels."""
    x, y = page.evaluate(
        """([row, expert]) => {
          const plot = document.querySelector('.plot'), box = plot.getBoundingClientRect();
          const {xaxis, yaxis} = plot._fullLayout, {layers, experts} = plot.layout.meta;
          const x = expert < 0 ? -12 : xaxis._length * (expert + 0.5) / experts;
          const y = row < 0 ? yaxis._length + 10 : yaxis._length * (row + 0.5) / layers.length;
          return [box.left + xaxis._offset + x, box.top + yaxis._offset + y];
        }""",
        [row, expert],
    )
    return x, y


def click(page: Page, row: int, expert: int) -> None:
    page.mouse.click(*at(page, row, expert))


def drag(page: Page, start: tuple[int, int], end: tuple[int, int]) -> None:
    page.mouse.move(*at(page, *start))
    page.mouse.down()
    page.mouse.move(*at(page, *end), steps=5)
    page.mouse.up()


def drop_button(page: Page) -> None:
    page.click("#map-typed button:has-text('Drop')")


def from_map(asked: Request) -> bool:
    """Whether the map itself asks: panels that follow a change ask too, and bring nothing along."""
    return bool((asked.post_data_json or {}).get("event_data"))


def test_cells_are_kept_dropped_and_released_by_click_drag_and_label(open_page: OpenPage) -> None:
    page = open_page()
    sent: list[str] = []
    page.on("request", lambda asked: sent.append(asked.url) if asked.method == "POST" and from_map(asked) else None)
    mode(page, "Keep")
    drag(page, (1, 2), (2, 5))
    expect(page.locator(BY_HAND)).to_have_text("By hand: 8 kept.")
    assert len(sent) == 1, "a drag is one message"
    mode(page, "Drop")
    click(page, 0, 9)
    click(page, 3, 10)
    click(page, 3, 11)
    expect(page.locator(BY_HAND)).to_have_text("By hand: 8 kept and 3 dropped.")
    click(page, -1, 20)
    expect(page.locator(BY_HAND)).to_have_text("By hand: 8 kept and 9 dropped.")
    mode(page, "Release")
    click(page, 1, -1)
    expect(page.locator(BY_HAND)).to_have_text("By hand: 4 kept and 8 dropped.")
    undo = page.locator(".undo")
    for _ in range(6):
        undo.click()
    expect(page.locator(BY_HAND)).to_have_text("")
    expect(undo).to_have_attribute("title", "Nothing to undo")
    page.click(".redo")
    expect(page.locator(BY_HAND)).to_have_text("By hand: 8 kept.")


def test_marks_lie_on_their_cells_and_follow_the_width_of_the_page(open_page: OpenPage) -> None:
    page = open_page()
    mode(page, "Drop")
    click(page, 2, 9)
    mode(page, "Keep")
    click(page, 4, 30)
    expect(page.locator(BY_HAND)).to_have_text("By hand: 1 kept and 1 dropped.")
    for width in (1440, 900):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function(FITS)
        opaque = page.evaluate(
            """() => {
              const canvas = document.querySelector('.plot canvas.marks'), plot = document.querySelector('.plot');
              const {layers, experts, dropped} = plot.layout.meta, pen = canvas.getContext('2d');
              const seen = (row, expert) => pen.getImageData(
                Math.round(canvas.width * (expert + 0.5) / experts),
                Math.round(canvas.height * (row + 0.5) / layers.length), 1, 1).data[3] > 0;
              let count = 0;
              for (let row = 0; row < layers.length; row += 1)
                for (let expert = 0; expert < experts; expert += 1) count += seen(row, expert);
              return {count, dropped, one: seen(2, 9), kept: seen(4, 30)};
            }"""
        )
        assert opaque["count"] == opaque["dropped"]
        assert opaque["one"] and not opaque["kept"], "a frame leaves the middle of its cell free"


def test_too_much_is_refused_in_words_and_changes_nothing(open_page: OpenPage) -> None:
    page = open_page()
    mode(page, "Drop")
    click(page, 2, -1)
    problem = page.locator("#map-problem")
    expect(problem).to_contain_text("By hand, 32 experts of layer 2 would leave, and 8 leave every layer.")
    expect(problem).to_contain_text("At most 28 can leave a layer of this model: release 24 of them on the map.")
    click(page, 2, 4)
    expect(page.locator(BY_HAND)).to_have_text("By hand: 1 dropped.")
    expect(page.locator("#map-problem")).to_be_hidden()


def test_keys_and_typed_numbers_do_the_same(open_page: OpenPage) -> None:
    page = open_page()
    page.locator(".plot").focus()
    for key in ("ArrowDown", "ArrowDown", "Shift+ArrowRight", "Shift+ArrowDown", "k", "ArrowUp", "d"):
        page.keyboard.press(key)
    expect(page.locator(BY_HAND)).to_have_text("By hand: 3 kept and 1 dropped.")
    assert page.text_content("#see .spoken") == "Layer 1, expert 1"
    page.keyboard.press("Control+z")
    expect(page.locator(BY_HAND)).to_have_text("By hand: 4 kept.")
    for key in ("Shift+ArrowRight", "Escape"):
        page.keyboard.press(key)
    assert page.text_content("#see .spoken") == "Layer 1, expert 2", "what was selected is let go"
    page.click("#map-typed button:has-text('Type layers')")
    expect(page.locator("#typed-layers").locator("input, textarea")).to_have_value("all")
    page.wait_for_timeout(500)  # what is folded is made when it is opened, and would forget what was typed meanwhile
    page.locator("#typed-layers").locator("input, textarea").fill("4..5")
    page.locator("#typed-experts").locator("input, textarea").fill("1, 20..22")
    drop_button(page)
    expect(page.locator(BY_HAND)).to_have_text("By hand: 4 kept and 8 dropped.")
    page.locator("#typed-experts").locator("input, textarea").fill("1,,2")
    drop_button(page)
    expect(page.locator("#map-problem")).to_contain_text("Between two commas")


def test_a_reload_brings_everything_back_and_can_undo_it(open_page: OpenPage) -> None:
    page = open_page()
    mode(page, "Keep")
    click(page, 1, 1)
    expect(page.locator(BY_HAND)).to_have_text("By hand: 1 kept.")
    page.locator("#drop input[type=number]").fill("11")
    page.locator("#drop input[type=number]").press("Enter")
    page.wait_for_function("document.querySelector('#meaning').innerText.includes('21 of 32')")
    page.reload()
    expect(page.locator(BY_HAND)).to_have_text("By hand: 1 kept.")
    expect(page.locator("#drop input[type=number]")).to_have_value("11")
    page.click(".undo")
    expect(page.locator("#drop input[type=number]")).to_have_value("8")
    expect(page.locator(BY_HAND)).to_have_text("By hand: 1 kept.")


def test_a_recipe_is_kept_under_a_name_and_goes_into_a_link(open_page: OpenPage, app: object) -> None:
    page = open_page()
    mode(page, "Drop")
    click(page, 2, 7)
    expect(page.locator(BY_HAND)).to_have_text("By hand: 1 dropped.")
    page.wait_for_selector("#saves a.permalink")
    link = page.evaluate("document.querySelector('#saves a.permalink').href")
    page.locator("#shelf-name").locator("input, textarea").fill("without seven")
    page.click("#shelf-save")
    expect(page.locator("#shelf-saved input")).to_have_value("without seven")
    page.click(".undo")
    expect(page.locator(BY_HAND)).to_have_text("")
    page.goto(link)
    expect(page.locator(BY_HAND)).to_have_text("By hand: 1 dropped.")
    page.wait_for_function("!location.search")
    page.click(".undo")
    expect(page.locator(BY_HAND)).to_have_text("")
    page.click("#shelf-saved input")
    page.locator("ul[role=listbox] li", has_text="without seven").click()
    expect(page.locator(BY_HAND)).to_have_text("By hand: 1 dropped.")
    page.click("#shelf-delete")
    expect(page.locator("#shelf-saved input")).to_have_value("")


def test_the_history_lists_what_changed_and_a_click_goes_there(open_page: OpenPage) -> None:
    page = open_page()
    page.locator("#steps button", has_text="History of your choices").click()
    current = page.locator("#steps-list [aria-current]")
    expect(current).to_have_text("As the page was opened")
    page.locator("#drop input[type=number]").fill("11")
    page.locator("#drop input[type=number]").press("Enter")
    expect(current).to_have_text("drop 8 → 11")
    mode(page, "Keep")
    click(page, 4, 7)
    expect(current).to_have_text("kept by hand: layer 4, expert 7")
    page.reload()
    expect(page.locator("#drop input[type=number]")).to_have_value("11")
    page.locator("#steps button", has_text="History of your choices").click()
    expect(current).to_have_text("kept by hand: layer 4, expert 7")
    page.locator("#steps-list button", has_text="As the page was opened").click()
    expect(page.locator("#drop input[type=number]")).to_have_value("8")
    expect(page.locator(BY_HAND)).to_have_text("")
    expect(page.locator("#steps-list .undone")).to_have_count(2)
    page.locator("#steps-list button", has_text="drop 8 → 11").click()
    expect(page.locator("#drop input[type=number]")).to_have_value("11")
    expect(current).to_have_text("drop 8 → 11")
