"""What the station "Publish" says of an artifact, a card and a job; the page itself is tested in a browser."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from starlette.requests import Request

from components.jobs import job_html
from components.publish_card import difference_html, pictures_json, place_json, read, status_html
from components.publish_hub import hub_token, last_repository, missing_html, own_token, parameters, plan, plan_html
from components.publish_jobs import CHECKS, OLLAMA, UPLOADS, jobs_html, jobs_of
from components.publish_manifest import artifact_names, facts_html, licence_text, manifest_html, measures_of, opened
from components.publish_outcome import replayed, verified
from components.publish_texts import commands_text, ollama_html, snippets_html, tier_choices
from studio.errors import InputError
from studio.jobs.store import Job, JobStore
from studio.publish.artifact import open_artifact
from studio.workspace import Workspace
from tests.publish.conftest import NAME, artifact, built  # noqa: F401  (fixtures: the demo model, really built)
from tests.publish.test_publish_card_kept import nameless


def job(kind: str, status: Any = "done", **told: Any) -> Job:
    now = time.time()
    return Job(id="0a0b0c0d", kind=kind, title=f"A {kind}", parameters={}, status=status, created=now, **told)


def test_what_it_is_can_be_read_without_knowing_json(artifact: Path) -> None:  # noqa: F811
    workspace = Workspace.open()
    (workspace.artifacts / "half").mkdir()
    (workspace.artifacts / ".gone.partial-1").mkdir()
    assert artifact_names(workspace) == [NAME], "only what is finished"
    found = opened(workspace, NAME)
    facts = facts_html(found, ())
    assert "24 of 32" in facts and "in 6 layers" in facts and "2 GGUF" in facts and "nothing yet" in facts
    assert "apache-2.0" in facts and "read from the head of its card, README.md" in facts
    whole = manifest_html(found, measures_of(workspace, found))
    told = found.manifest
    hashes = [told.reference.sha256, told.contributions, told.recipe_sha256, *(one.sha256 for one in told.files)]
    assert all(f"title='{one}'" in whole for one in hashes)
    assert "98e-v4" in whole and "CD-Q4_K_M" in whole and "prompts.gguf" in whole
    assert all(f"{name} {version}" in whole for name, version in told.versions.items())
    assert whole.count("<td>3</td>") >= 1, "each layer of the map has a row"


def test_a_licence_that_nobody_named_is_asked_for(artifact: Path) -> None:  # noqa: F811
    workspace = Workspace.open()
    unnamed = nameless(open_artifact(artifact))
    assert licence_text(unnamed.manifest) == (
        "unknown, ask the author",
        "neither the card nor the files of the reference name one",
    )
    assert "names no licence" in status_html(unnamed, "gguf", read(workspace, unnamed, "gguf", ""))
    assert "names no licence" not in status_html(unnamed, "gguf", read(workspace, opened(workspace, NAME), "gguf", ""))


def test_lines_to_copy_name_the_files_that_are_there(artifact: Path) -> None:  # noqa: F811
    found = open_artifact(artifact)
    assert [key for _, key in tier_choices(found)] == ["CD-Q4_K_M", "Q4_K_M"]
    lines = snippets_html(found, "Q4_K_M")
    assert str(artifact / f"gguf/{NAME}-Q4_K_M.gguf") in lines and str(artifact / "safetensors") in lines
    there = ollama_html(found, "Q4_K_M", "/usr/bin/ollama")
    assert f"ollama create {NAME}:q4_k_m -f {artifact}/ollama/{NAME}-Q4_K_M.Modelfile" in there
    assert "PARAMETER" in there and "<summary>params</summary>" in there and "no program" not in there
    assert "There is no program ollama on this machine" in ollama_html(found, "Q4_K_M", None)
    verbs = commands_text(found, "", "gguf", False)
    assert f"publish {artifact} --repo OWNER/NAME --format gguf --dry-run" in verbs
    assert commands_text(found, "me/x", "gguf", True).endswith("--repo me/x --format gguf --public")


def test_a_dry_run_is_a_table_with_a_total(artifact: Path) -> None:  # noqa: F811
    workspace = Workspace.open()
    asked = parameters(NAME, " me/small ", "gguf", False)
    planned = plan(workspace, opened(workspace, NAME), asked)
    table = plan_html(planned)
    assert f"{len(planned.files)} files" in table and "private: only you see it" in table
    assert all(file.name in table for file in planned.files)
    for name, repository in ((None, "me/small"), (NAME, "  ")):
        with pytest.raises(InputError):
            parameters(name, repository, "gguf", False)


def test_a_missing_token_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    assert "HF_TOKEN is not set" in missing_html()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert "hf_secret" not in missing_html() and "HF_TOKEN" in missing_html()


def logged_in(**told: Any) -> gr.Request:
    """A request by somebody who has logged in at the Hub, as gradio's session middleware hands it on."""
    login = {
        "access_token": "hf_oauth_hers",
        "scope": "openid profile contribute-repos",
        "expires_at": time.time() + 60,
    }
    scope = {"type": "http", "headers": [], "session": {"oauth_info": {**login, **told}}}
    return gr.Request(Request(scope))


def test_who_has_logged_in_at_the_hub_publishes_with_that_login_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_studios")
    hers = logged_in()
    assert own_token(hers) == hub_token(hers) == "hf_oauth_hers"
    assert "your own login" in missing_html(hers) and "hf_oauth_hers" not in missing_html(hers)
    for nobody in (None, gr.Request(Request({"type": "http", "headers": []})), logged_in(expires_at=0)):
        assert own_token(nobody) is None and hub_token(nobody) == "hf_studios"
    reader = logged_in(scope="openid profile")
    with pytest.raises(InputError, match="not write to your repositories"):
        hub_token(reader)
    assert "hf_oauth_scopes" in missing_html(reader)


def test_a_difference_says_what_would_be_lost_and_nothing_in_it_is_markup() -> None:
    shown = difference_html("a\n<b>mine</b>\n", "a\nmade\n")
    assert (
        "1 line of your text" in shown
        and "<del>-&lt;b&gt;mine&lt;/b&gt;</del>" in shown
        and "<ins>+made</ins>" in shown
    )
    assert "same as your text" in difference_html("a", "a")


def test_pictures_come_as_data_and_the_text_knows_whose_it_is(artifact: Path) -> None:  # noqa: F811
    card = read(Workspace.open(), open_artifact(artifact), "gguf", "no repository yet")
    assert "no repository yet" not in card.text
    told = json.loads(pictures_json(card.pictures))
    assert told.keys() == card.pictures.keys() and told["pictures/kept.svg"].startswith("data:image/svg+xml;base64,")
    place = json.loads(place_json(NAME, "gguf", "", card))
    assert (place["artifact"], place["part"], place["digest"]) == (NAME, "gguf", card.digest)


def test_outcomes_name_the_file_and_the_first_difference(tmp_path: Path) -> None:
    whole = {"files": 3, "bytes": 2**20, "problems": [], "strangers": ["README.md", "pictures/kept.svg", "x<y.bin"]}
    assert "All 3 files are what they were, 1 MiB" in verified(whole)
    assert "The file is what it was, 1 MiB" in verified({**whole, "files": 1})
    assert "x&lt;y.bin" in verified(whole) and "kept.svg" not in verified(whole), "the card may change"
    damaged = verified({**whole, "problems": ["gguf/a.gguf is missing."], "strangers": []})
    assert "gguf/a.gguf is missing." in damaged and 'role="alert"' in damaged
    workspace = Workspace.open(tmp_path)
    found = {"files": 2, "bytes": 1, "problems": ["gguf/a.gguf is missing."]}
    head = job_html(job("verify", result=found), workspace)
    assert "1 of 2 files is not what it was." in head and ">not the same<" in head and ">done<" not in head
    assert ">done<" in job_html(job("verify", result={**found, "problems": []}), workspace)
    same = replayed({"equal": True, "same": 3, "differences": [], "remarks": ["The recipe gives the map again."]})
    assert "byte for byte" in same and "gives the map again" in same
    other = replayed({"equal": False, "same": 2, "differences": ["a.gguf differs from byte 96 on"], "remarks": []})
    assert "2 files are the same, and 1 is not:" in other and "differs from byte 96" in other


def test_each_part_lists_the_jobs_of_its_artifact_and_an_upload_goes_on(artifact: Path) -> None:  # noqa: F811
    workspace = Workspace.open()
    store = JobStore(workspace)
    other = store.add("verify", "Verify other", {"artifact": "artifacts/other"})
    check = store.add("replay", "Again", {"manifest": f"artifacts/{NAME}/espalier-manifest.json"})
    given = store.add("ollama", "Give", {"gguf": f"artifacts/{NAME}/gguf/x.gguf", "model": "x"})
    sent = store.add("publish", "Send", {"artifact": f"artifacts/{NAME}", "repository": "me/x", "public": True})
    store.finish(sent.id, "failed", when=("queued",), error="The Hub broke off.")
    jobs = store.list()
    ids = {kinds: [one.id for one in jobs_of(jobs, NAME, kinds)] for kinds in (CHECKS, OLLAMA, UPLOADS)}
    assert ids == {CHECKS: [check.id], OLLAMA: [given.id], UPLOADS: [sent.id]}
    assert [one.id for one in jobs_of(jobs, "other", CHECKS)] == [other.id]
    html = jobs_html(jobs_of(jobs, NAME, UPLOADS), store)
    assert "Go on with the upload" in html and "The Hub broke off." in html
    store.finish(check.id, "done", when=("queued",), result={"equal": True, "same": 1})
    store.add("replay", "Later", {"manifest": f"artifacts/{NAME}/espalier-manifest.json"})
    store.finish(store.list()[0].id, "cancelled", when=("queued",))
    shown = jobs_html(jobs_of(store.list(), NAME, CHECKS), store)
    assert "Later" in shown and "Again" not in shown, "an older check is of older files"
    assert last_repository(jobs_of(jobs, NAME, UPLOADS)) == ("me/x", True) and last_repository([]) == ("", False)
    store.close()


def test_the_panel_of_builds_tells_the_same_outcomes(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    sent = job("publish", result={"url": "https://hf.co/me/x", "commit": "c0ffee", "files": 4, "bytes": 2048})
    assert "href='https://hf.co/me/x'" in job_html(sent, workspace) and "4 files, 2 KiB" in job_html(sent, workspace)
    evil = job("publish", result={"url": "javascript:alert(1)", "files": 1, "bytes": 1})
    assert "href" not in job_html(evil, workspace)
    assert "not sent again" in job_html(job("publish", "cancelled"), workspace)
    assert "Nothing was kept" in job_html(job("build", "cancelled"), workspace)
    given = job("ollama", result={"model": "a:b", "says": "Exact.", "run": "ollama run a:b"})
    assert "ollama run a:b" in job_html(given, workspace)
