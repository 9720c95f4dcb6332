"""What a trial says is what was measured; what cannot be tried says why; nothing from outside becomes markup."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from components.kept_values import KeptValues
from components.library import Library, Opened
from components.prompts import AskedPrompts
from components.state import StudioState
from components.trial import kept_of, question_of
from components.trial_view import KEPT, Tried, nats, other_choices, progress_html, tried_html, with_tried
from studio.errors import Cancelled, InputError, ProcessError, ResourceError
from studio.evaluate.divergence import Divergence
from studio.evaluate.trials import Trial
from studio.evaluate.virtual import Measurement

ATTACK = "<img src=x onerror=alert(1)>"
NONE = AskedPrompts([], 4, None, "", "", "")


@pytest.fixture
def opened(library: Library) -> Opened:
    reference = library.reference("pear")
    key = library.open_analysis(library.workspace.contributions / "pear.safetensors", reference)
    return library.open(StudioState.opening("pear", key, reference.shape))


def divergence(kl: float, error: float = 0.001) -> Divergence:
    return Divergence(100, kl, error, kl / 2, kl * 9, kl * 10, 0.975, 2.0, 2.1)


def tried(math: float, code: float, name: str = "98e-v4", story: str = "held out") -> Tried:
    classes = {"math": divergence(math), "code": divergence(code)}
    found = Measurement(name, story, 8, 1.5, divergence((math + code) / 2), classes)
    return Tried(0, name, name, 2, 8, "", found)


def test_the_sentence_and_the_table_are_the_measurement() -> None:
    html = tried_html(with_tried((), tried(0.02, 0.06)), 0, "98e-v4")
    assert "With 2 of 8 experts dropped, predictions move by 0.0400 nats per token" in html
    assert "Code moves most (0.0600)" in html and "same on 97.5 %" in html
    assert "0.0200 <small>± 0.0010</small>" in html and "× 1.050" in html
    assert "another map" not in html and "Before" not in html


def test_two_maps_are_compared_and_what_is_within_the_errors_is_no_difference() -> None:
    kept = with_tried(with_tried((), tried(0.02, 0.06, "first")), tried(0.01, 0.03, "second"))
    html = tried_html(kept, 0, "second")
    assert "1: first, 2 dropped, moves them by 0.0400, so this map is 0.0200 closer to the reference" in html
    assert "<th class=number>Before</th>" in html
    kept = with_tried(kept, tried(0.0101, 0.0301, "third"))
    assert "no difference that 100 tokens could tell" in tried_html(kept, 0, "third")
    assert "so this map is 0.0199 closer" in tried_html(kept, 1, "third"), "with the first, as was chosen"
    assert other_choices(kept)[1:] == [("2: second, 2 dropped", 2), ("1: first, 2 dropped", 1)]


def test_other_prompts_are_not_compared_and_another_map_is_told() -> None:
    kept = with_tried(with_tried((), tried(0.02, 0.06)), tried(0.01, 0.03, "second", "others"))
    html = tried_html(kept, 0, "a third map")
    assert "measured on other prompts" in html and "Before" not in html
    assert "These numbers are of another map: second, 2 dropped" in html


def test_what_is_measured_again_keeps_its_number_and_old_results_go() -> None:
    kept: tuple[Tried, ...] = ()
    for number in range(KEPT + 3):
        kept = with_tried(kept, tried(0.1, 0.1, f"map {number}"))
    assert len(kept) == KEPT and kept[-1].number == KEPT + 3
    again = with_tried(kept, tried(0.1, 0.1, "map 5"))
    assert again[-1].number == 6 and len(again) == KEPT


def test_progress_errors_and_cancelling_are_said() -> None:
    assert "3 of 8 prompts" in progress_html(Trial("measuring", 3, 8, "prompts"))
    assert "Cancelled." in progress_html(Trial(error=Cancelled()))
    assert "Measure again" in progress_html(Trial(error=ProcessError("It died.", "Measure again.")))
    assert progress_html(Trial(result=tried(0.1, 0.1).found)) == ""


def test_numbers_that_are_none_are_dashes() -> None:
    nan, infinite = float("nan"), float("inf")
    assert [nats(value) for value in (nan, infinite, 0.0, 0.00001, 0.5, 123.4)] == [
        "–",
        "∞",
        "0.0000",
        "< 0.0001",
        "0.5000",
        "123",
    ]
    empty = Divergence(0, *[nan] * 8)
    one = replace(
        tried(0.1, 0.1), found=Measurement("x", "s", 1, 1.0, divergence(0.1), {"math": divergence(0.1), "code": empty})
    )
    assert "nan" not in tried_html((one,), 0, "x")


def test_names_are_never_markup() -> None:
    one = tried(0.1, 0.2, ATTACK, ATTACK)
    evil = replace(one, warning=ATTACK, found=replace(one.found, classes={ATTACK: divergence(0.1)}))
    said = tried_html((evil, evil), 0, "") + progress_html(Trial(ATTACK, 1, 2, ATTACK))
    assert "<img" not in said


def test_the_question_is_the_map_that_is_shown(library: Library, opened: Opened) -> None:
    question, watched = question_of(library, opened, NONE)
    assert opened.drop is not None
    assert question.drop == opened.drop and watched.map_hash == opened.drop.content_hash
    assert question.prompts.sources == ("builtin",) and question.prompts.reading["per_class"] == 4
    again, other = question_of(library, opened, NONE)[1], question_of(library, opened, replace(NONE, per_class=5))[1]
    assert again == watched and other.key != watched.key


def test_prompts_of_ones_own_are_copied_and_told_when_the_analysis_knows_them(
    library: Library, opened: Opened, tmp_path: Path
) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({"class": "math", "prompt": "2 + 2?", "answer": "4"}) + "\n")
    question, watched = question_of(library, opened, replace(NONE, files=[str(file)]))
    assert question.prompts.sources == (str(library.workspace.prompts / "mine.jsonl"),) and not watched.warning
    assert opened.contributions is not None
    known = replace(opened, contributions=replace(opened.contributions, source="x; prompts: mine.jsonl"))
    assert "mine.jsonl was a source" in question_of(library, known, replace(NONE, files=[str(file)]))[1].warning


def test_what_cannot_be_tried_says_why(library: Library, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    for without, words in (("reference", "No model"), ("drop", "no map")):
        with pytest.raises(InputError, match=words):
            question_of(library, replace(opened, **{without: None}), NONE)
    with pytest.raises(InputError, match="KEY=COLUMN"):
        question_of(library, opened, replace(NONE, columns="nonsense"))
    monkeypatch.setenv("ESPALIER_MODEL_MEMORY", "100")
    with pytest.raises(ResourceError, match=" is free"):
        question_of(library, opened, NONE)


def test_what_was_tried_is_there_after_a_reload_and_only_for_who_tried_it(tmp_path: Path) -> None:
    shelf, now = KeptValues(tmp_path, "trials"), replace(StudioState.opening("pear", None, None), user="ann")
    kept = with_tried(with_tried((), tried(0.02, 0.06, "first")), tried(0.01, math.inf, "second"))
    shelf.write("ann", "pear", [one.to_json() for one in kept])
    assert [one.name for one in kept_of(shelf, now)] == [one.name for one in kept]
    assert kept_of(shelf, now)[0] == kept[0]
    assert kept_of(shelf, replace(now, user="bob")) == kept_of(shelf, replace(now, reference="plum")) == ()
    shelf.write("ann", "pear", [{"number": 1}])
    assert kept_of(shelf, now) == ()
