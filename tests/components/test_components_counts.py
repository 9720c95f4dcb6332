"""The drop count as a choice: figures say what the engine says, and a size gives a number."""

from __future__ import annotations

import re
from dataclasses import replace

import gradio as gr
import pytest

from components.counts import (
    FILE,
    FIRST_GIB,
    answer_html,
    counts_part,
    fit_of,
    kept_html,
    numbers_html,
    possible,
    rendered,
    sizes_html,
)
from components.library import Library, Opened
from components.state import StudioState
from studio.contributions.model import Contributions
from studio.errors import InputError
from studio.recipes.drop_curve import drop_curve
from studio.units import GIB

ATTACK = "<img src=x onerror=alert(1)>"
SHARE = re.compile(r"([\d.]+),([\d.]+)")


@pytest.fixture
def opened(library: Library, contributions: Contributions) -> Opened:
    reference = library.reference("pear")
    key = library.open_analysis(library.workspace.contributions / "pear.safetensors", reference)
    return library.open(StudioState.opening("pear", key, reference.shape))


def test_the_curve_goes_through_what_stays_at_every_count(opened: Opened, contributions: Contributions) -> None:
    curve = drop_curve(contributions, opened.state.recipe)
    html = kept_html(curve, 2, possible(opened))
    assert "Dropping 2 keeps" in html and "every class" not in html
    drawn = re.search(r"class='line worst' d='M([^']+)'", html)
    assert drawn is not None
    points = [(float(x), 1 - float(y) / 100) for x, y in SHARE.findall(drawn[1])]
    worst = int(curve.kept_share[:, 2].argmin())
    assert [share for _, share in points] == pytest.approx(curve.kept_share[worst, :7].tolist(), abs=1e-4)
    assert points[0][0] == 0 and points[-1][0] == 100
    assert f"Up to {curve.most_keeping(0.8)} can leave" in html


def test_an_imported_map_is_not_on_the_curve(opened: Opened, contributions: Contributions) -> None:
    curve = drop_curve(contributions, opened.state.recipe)
    html = kept_html(curve, 2, possible(opened), imported=True)
    assert "class='dot" not in html and "the imported map is not on them" in html


def test_the_number_for_a_size_is_the_smallest_drop_that_fits(library: Library, opened: Opened) -> None:
    sizes = [one.file_bytes for one in fit_of(library, opened, "Q8_0", FILE, FIRST_GIB).found]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == len(possible(opened))
    fit = fit_of(library, opened, "Q8_0", FILE, (sizes[3] + 1) / GIB)
    assert fit.best is not None and fit.best.kept_experts == 8 - 3
    assert "Drop 3 of 8, and Q8_0 fits a file of" in answer_html(fit, 8)
    assert "Q8_0 takes" in sizes_html(fit, 2, possible(opened))


def test_a_card_asks_for_what_runs_beside_the_file(library: Library, opened: Opened) -> None:
    fit = fit_of(library, opened, "F16", "12", None)
    assert fit.best is not None and fit.best.bytes > fit.best.file_bytes and fit.best.kept_experts == 8
    assert "fits a card with 11.4 GiB for models, with" in answer_html(fit, 8) and "an estimate" in answer_html(fit, 8)
    assert "line other dashed" in sizes_html(fit, 2, possible(opened))


def test_what_never_fits_is_said_with_what_it_takes(library: Library, opened: Opened) -> None:
    fit = fit_of(library, opened, "F16", FILE, 1e-9)
    assert fit.best is None and "Even with 2 experts" in answer_html(fit, 8)


@pytest.mark.parametrize(
    ("tier", "room", "gib"), [("Q9", FILE, 1.0), ("F16", "13", 1.0), ("F16", FILE, None), ("F16", FILE, -1.0)]
)
def test_only_sizes_that_can_be_are_looked_for(
    library: Library, opened: Opened, tier: str, room: str, gib: float | None
) -> None:
    with pytest.raises(InputError):
        fit_of(library, opened, tier, room, gib)


def test_a_table_holds_the_numbers_of_the_figures(
    library: Library, opened: Opened, contributions: Contributions
) -> None:
    fit, curve = fit_of(library, opened, "F16", FILE, 1.0), drop_curve(contributions, opened.state.recipe)
    html = numbers_html(curve, fit, possible(opened), 2, 8)
    assert html.count("<tr>") == 1 + len(possible(opened))
    assert "<b>2</b>" in html and "<th class=number>Math</th>" in html and "<th class=number>F16</th>" in html


def test_without_a_model_the_curve_is_shown_and_without_a_map_nothing(library: Library, opened: Opened) -> None:
    with gr.Blocks():
        part = counts_part()
    bare = library.open(replace(opened.state, reference=""))
    shown = rendered(library, part, bare, "F16", FILE, 1.0)
    assert "Contribution kept" in shown[part.text] and "No model is open" in shown[part.answer]
    assert shown[part.found] is None and shown[part.use].interactive is False
    empty = library.open(StudioState.opening("pear", None, library.reference("pear").shape))
    assert "no map yet" in rendered(library, part, empty, "F16", FILE, 1.0)[part.text]


def test_names_are_never_markup(opened: Opened, contributions: Contributions) -> None:
    questions = tuple(replace(one, klass=f"{ATTACK}{one.klass}") for one in contributions.questions)
    curve = drop_curve(replace(contributions, questions=questions), opened.state.recipe)
    assert "<img" not in kept_html(curve, 2, possible(opened)) + numbers_html(curve, None, possible(opened), 2, 8)
