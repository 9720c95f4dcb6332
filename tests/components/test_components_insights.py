"""The panel of insights shows what the engine found, and nothing of what it cannot know."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from components.insights import alike_html, insights_html
from components.jobs import job_html
from components.library import Library
from studio.contributions.answers import answers_of, findings
from studio.contributions.model import Contributions, Question
from studio.families import MoeShape
from studio.jobs.store import Job
from studio.workspace import Workspace

ATTACK = "<img src=x onerror=alert(1)>"


def test_every_finding_is_a_heading_with_its_sentence(contributions: Contributions) -> None:
    answers = answers_of(contributions)
    html = insights_html(answers)
    for one in findings(answers).values():
        assert f"<h3>{one.title}</h3>" in html
    assert html.count("<figure") == 2 and html.count("aria-label") == 2
    assert "How sure the ranking is, is not known" in html and "no single questions" in html
    assert "<summary>The numbers of every layer</summary>" in html


def test_the_curve_ends_at_everything_and_its_guides_meet_it(contributions: Contributions) -> None:
    html = insights_html(answers_of(contributions))
    line = re.search(r"class='line' d='M([^']+)'", html)
    assert line is not None
    points = [tuple(map(float, point.split(","))) for point in line[1].split(" L")]
    assert points[0] == (0, 100) and points[-1] == (100, 0) and len(points) == 9
    assert points == sorted(points)


@pytest.mark.parametrize(("layers", "experts", "classes"), [(61, 384, 16), (1, 2, 1)])
def test_large_and_small_grids_have_few_labels(layers: int, experts: int, classes: int) -> None:
    shape = MoeShape("gemma4", tuple(range(layers)), experts, 1, 8, 8)
    values = np.random.default_rng(0).random((classes * 2, layers, experts))
    questions = tuple(Question(f"q{index}", f"class {index % classes}") for index in range(classes * 2))
    html = insights_html(answers_of(Contributions(shape, "m", questions, {"weighted_norm_squared": values})))
    columns = re.findall(r"<li title='Layer \d+: [^']+'><i style='height:[\d.]+%'></i><span>(\d*)</span>", html)
    assert len(columns) == layers and 1 <= sum(map(bool, columns)) <= 12
    assert html.count("class='shade none'") == (classes if classes > 1 else 0)


def test_an_estimate_is_marked_and_names_are_never_markup(contributions: Contributions) -> None:
    questions = tuple(replace(one, klass=f"{ATTACK}{one.klass}") for one in contributions.questions)
    html = insights_html(answers_of(replace(contributions, questions=questions, estimated=("weighted_norm_squared",))))
    assert "<img" not in html and "an estimate; nobody measured them" in html


def job(**changes) -> Job:
    given = {
        "id": "1f0c9a2e",
        "kind": "similarity",
        "title": "Compare experts of pear",
        "parameters": {},
        "created": 0.0,
    }
    return Job(**{**given, "status": "done", **changes})


def test_the_comparison_of_experts_tells_how_far_it_is(workspace: Workspace) -> None:
    layers = [{"layer": 3, "pairs": 5, "mean": 0.01, "largest": -0.25, "experts": [2, 7]}]
    done = job(result={"says": f"Among 5 pairs {ATTACK}", "layers": layers})
    assert "<img" not in alike_html(done) and "Among 5 pairs" in alike_html(done)
    assert "<td class=number>-0.250</td><td>2 and 7</td>" in alike_html(done)
    assert "Among 5 pairs" in job_html(done, workspace) and "files lie" not in job_html(done, workspace)
    assert "A sample of pairs" in alike_html(None)
    assert "Comparing: 40%" in alike_html(job(status="running", done=4, total=10))
    assert "no down projection" in alike_html(job(status="failed", error="It has no down projection."))


def test_answers_are_computed_once_for_an_analysis(library: Library) -> None:
    key = library.open_analysis(library.workspace.contributions / "pear.safetensors")
    assert library.answers(key) is library.answers(key)
