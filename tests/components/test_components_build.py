"""The build station says what will be made, and how a job stands."""

from __future__ import annotations

import shlex
from dataclasses import replace
from html import unescape
from typing import Any

import pytest

from components import forecast
from components.forecast import AS_IS, SAFETENSORS
from components.jobs import job_choices, job_html
from components.library import Library, Opened
from components.outputs import (
    command_text,
    first_outputs,
    following_name,
    output_choices,
    parameters,
    sizes_html,
    suggested_name,
)
from components.reference import own_model_html
from components.shown import cell_html, map_json, meaning_html, title_of
from components.state import StudioState, View
from studio.access import VISITOR
from studio.contributions.model import Contributions
from studio.errors import InputError
from studio.jobs.store import Job
from studio.jobs.tasks import check
from studio.units import size_text
from studio.workspace import Workspace


@pytest.fixture
def opened(library: Library, contributions: Contributions) -> Opened:
    key = library.open_analysis(library.workspace.contributions / "pear.safetensors", library.reference("pear"))
    return library.open(StudioState.opening("pear", key, contributions.shape).choosing("98e-v4", 4, {"code": 3.0}))


def a_job(**fields: Any) -> Job:
    return Job(**{"id": "j", "kind": "build", "title": "Build <pear>", "parameters": {}, "created": 0.0, **fields})


def test_every_output_is_listed_with_its_foretold_size(library: Library, opened: Opened) -> None:
    table = sizes_html(library, opened, ["Q4_K_M"])
    for label, output in output_choices(opened):
        assert label in table
        assert size_text(forecast.foretold_bytes(library, opened, output)) in table


def test_fallbacks_are_said_for_chosen_tiers_only(library: Library, opened: Opened) -> None:
    assert "Q4_K → Q5_0" in sizes_html(library, opened, ["Q4_K_M"])
    assert "→" not in sizes_html(library, opened, ["F16", "safetensors"])


def test_the_name_follows_the_choice_until_a_person_writes_one(opened: Opened) -> None:
    assert suggested_name(opened) == "pear-4e"
    assert following_name(opened, "") == following_name(opened, "pear-6e") == "pear-4e"
    assert following_name(opened, "my-pear") == "my-pear"


def test_what_the_button_sends_is_what_the_job_takes(library: Library, opened: Opened) -> None:
    told = parameters(library, opened, " pear-4e ", ["safetensors", "Q4_K_M", "Q8_0"])
    assert (told["name"], told["outputs"], told["tiers"]) == ("pear-4e", ["safetensors", "gguf"], ["Q8_0", "Q4_K_M"])
    check("build", told, library.workspace)


@pytest.mark.parametrize("name", ["", "../pear", "a/b", "x" * 200])
def test_a_name_that_leaves_the_workspace_is_refused(library: Library, opened: Opened, name: str) -> None:
    with pytest.raises(InputError):
        check("build", parameters(library, opened, name, ["Q8_0"]), library.workspace)


def test_nothing_to_make_is_refused(library: Library, opened: Opened) -> None:
    with pytest.raises(InputError):
        check("build", parameters(library, opened, "pear-4e", []), library.workspace)


def test_the_equivalent_commands_name_the_choice(library: Library, opened: Opened) -> None:
    lines = command_text(library, opened, "pear-4e", ["safetensors", "Q8_0"]).splitlines()
    words = [shlex.split(line)[3] for line in lines]
    assert words == ["map", "build"]
    assert "--preset 98e-v4 --drop 4 --class-weight code=3" in lines[0]
    assert "--safetensors --tier Q8_0 --contributions" in lines[-1] and lines[-1].endswith("--name pear-4e")


def test_a_name_cannot_break_out_of_the_command(library: Library, opened: Opened) -> None:
    line = command_text(library, opened, "a; rm -rf ~", ["safetensors"]).splitlines()[-1]
    assert shlex.split(line)[-1] == "a; rm -rf ~"


def test_a_running_job_shows_amount_and_time_left(workspace: Workspace) -> None:
    job = a_job(status="running", done=25, total=100, unit="bytes", eta_s=61.0, message="Quantizing <blk.0>")
    shown = job_html(job, workspace)
    assert "aria-valuenow='25'" in shown and "about 1 min 01 s left" in shown and "25 bytes of 100 bytes" in shown
    assert "Quantizing &lt;blk.0&gt;" in shown and "<pear>" not in shown


def test_a_job_that_has_not_counted_yet_promises_nothing(workspace: Workspace) -> None:
    shown = job_html(a_job(status="running"), workspace)
    assert "counting the work" in shown and "estimating" in shown


def test_a_finished_job_links_its_files_with_their_hashes(workspace: Workspace) -> None:
    digest = "ab" * 32
    result = {
        "folder": "artifacts/p",
        "manifest": "artifacts/p/m.json",
        "files": [{"path": "artifacts/p/a b.gguf", "bytes": 2048, "sha256": digest}],
    }
    shown = job_html(a_job(status="done", started=1.0, finished=9.0, result=result), workspace)
    assert f'href="gradio_api/file={workspace.root}/artifacts/p/a%20b.gguf"' in shown
    assert "2 KiB" in shown and digest in shown and "m.json" in shown and "8 s" in shown
    assert f"<code>{workspace.root}/artifacts/p</code>" in shown


def test_visitors_are_not_told_where_anything_lies_on_this_machine(workspace: Workspace) -> None:
    visited = replace(workspace, access=VISITOR)
    shown = job_html(a_job(status="done", result={"folder": "artifacts/p", "files": []}), visited)
    assert str(workspace.root) not in shown and "go when you leave" in shown
    assert str(workspace.root) not in own_model_html(visited)
    assert str(workspace.references) in own_model_html(workspace)


def test_a_failed_job_says_why_and_shows_the_last_lines_of_its_log(workspace: Workspace) -> None:
    shown = unescape(
        job_html(a_job(status="failed", error="The disk is full.", log_tail="line <1>\nline 2"), workspace)
    )
    assert "The disk is full." in shown and "line <1>\nline 2" in shown


@pytest.mark.parametrize("status", ["queued", "running", "done", "failed", "cancelled"])
def test_every_state_of_a_job_has_a_face(status: str, workspace: Workspace) -> None:
    job = a_job(status=status)
    assert "badge" in job_html(job, workspace)
    assert job_choices([job])[0][1] == "j"


def test_the_meaning_counts_what_stays(opened: Opened, contributions: Contributions) -> None:
    assert opened.drop is not None and opened.preview is not None and opened.reference is not None
    shown = meaning_html(opened.drop, opened.preview, opened.reference, [("Q8_0", 1024)])
    assert "4 of 8" in shown and "1 KiB" in shown
    for share in opened.preview.share_kept_per_class.values():
        assert f"{100 * share:.1f} %" in shown


def test_a_map_without_an_analysis_says_what_is_not_known(opened: Opened) -> None:
    assert opened.drop is not None
    assert "not known" in meaning_html(opened.drop, None, None)


def test_one_cell_tells_share_and_place_for_every_class(opened: Opened, contributions: Contributions) -> None:
    assert opened.drop is not None
    shown = cell_html(contributions, opened.drop, 1, 7)  # the strongest for math, the weakest for code
    assert "Layer 1, expert 7" in shown and "22.2 %" in shown
    assert shown.index("1 of 8") < shown.index("8 of 8")


@pytest.mark.parametrize("cell", [(-1, 0), (0, -1), (3, 0), (0, 8)])
def test_a_cell_that_is_not_there_is_refused(
    opened: Opened, contributions: Contributions, cell: tuple[int, int]
) -> None:
    assert opened.drop is not None
    with pytest.raises(InputError, match="no row"):
        cell_html(contributions, opened.drop, *cell)


@pytest.mark.parametrize(
    "view", [View(), View("math"), View("math", "code"), View("code", None, "rank"), View(scale="raw")]
)
def test_every_view_has_a_map_and_a_question(opened: Opened, contributions: Contributions, view: View) -> None:
    assert opened.drop is not None
    assert title_of(view).endswith("?")
    assert map_json(contributions, view).startswith("{")


def test_a_gguf_reference_keeps_its_types_unless_a_tier_is_asked_for(library: Library, opened: Opened) -> None:
    assert opened.reference is not None
    quantized = replace(opened, reference=replace(opened.reference, kind="gguf"))
    assert first_outputs(quantized) == [AS_IS] and SAFETENSORS not in dict(output_choices(quantized)).values()
    told = parameters(library, quantized, "pear-4e", [AS_IS])
    assert (told["outputs"], told["tiers"]) == (["gguf"], [])
    assert command_text(library, quantized, "pear-4e", [AS_IS]).endswith("--name pear-4e")
    with pytest.raises(InputError, match="Choose one"):
        parameters(library, quantized, "pear-4e", [AS_IS, "Q8_0"])


def test_outliers_of_an_analysis_are_said(opened: Opened) -> None:
    assert opened.drop is not None and opened.preview is not None
    shown = meaning_html(opened.drop, replace(opened.preview, outliers=12), None)
    assert "12 numbers of the analysis are not credible" in shown
