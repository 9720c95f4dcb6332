"""`doctor`: what is installed, what is broken, and how it is mended."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from studio import doctor
from studio.errors import EspalierError
from studio.jobs.store import JobStore
from studio.workspace import Workspace

Run = Callable[..., Any]


def states(findings: list[doctor.Finding]) -> dict[str, str]:
    return {finding.name: finding.state for finding in findings}


def test_a_whole_installation_has_nothing_broken(verb: Run, own_workspace: Path) -> None:
    told = verb("doctor", "--json").json
    found = {finding["name"]: finding for finding in told["findings"]}
    assert told["broken"] == []
    assert found["gradio"]["found"] == version("gradio") and found["torch"]["state"] == "good"
    assert "xllamacpp" in found["ggml, which quantizes"]["found"]
    assert "build number" in found["llama.cpp's server, which chats"]["found"]
    assert found["llama.cpp's converter"]["found"].split(" (")[0].endswith("convert_hf_to_gguf.py")
    assert str(own_workspace) in found["workspace"]["found"] and "graphics card" in found
    assert not any(own_workspace.glob("tmp*")), "what was written to try it is gone"


def test_what_is_missing_is_broken_and_another_version_is_poor(tmp_path: Path) -> None:
    pins = tmp_path / "requirements.txt"
    pins.write_text(f"gradio==0.1.0  # old\ntyper=={version('typer')}\nno-such-package-of-ours==1.0\n")
    found = list(doctor.packages(pins))
    assert states(found) == {"gradio": "poor", "typer": "good", "no-such-package-of-ours": "broken"}
    assert found[0].remedy.endswith("pip install gradio==0.1.0")
    assert states(list(doctor.packages(tmp_path / "none.txt"))) == {"packages": "poor"}


def test_something_broken_is_named_with_its_remedy_and_exit_code_1(verb: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where a folder is to be")
    outcome = verb("doctor", "--workspace", tmp_path / "file")
    assert outcome.code == 1 and outcome.err == ""
    assert "BROKEN workspace" in outcome.out and "ESPALIER_HOME" in outcome.out
    assert outcome.out.endswith("Broken: workspace.\n")
    outcome = verb("doctor", "--workspace", tmp_path / "file", "--json")
    assert outcome.code == 1 and json.loads(outcome.out)["broken"] == ["workspace"]


def test_jobs_that_cannot_be_read_are_broken(verb: Run, own_workspace: Path) -> None:
    JobStore(Workspace.open(own_workspace)).close()
    (jobs,) = (finding for finding in doctor.room(own_workspace) if finding.name == "jobs")
    assert (jobs.state, jobs.found) == ("good", "0 on record, 0 of them not finished")
    (own_workspace / "jobs" / "store" / "cache.db").write_bytes(b"not a database" * 1000)
    outcome = verb("doctor")
    assert outcome.code == 1 and "BROKEN jobs" in outcome.out and "no artifact is in it" in outcome.out


def test_without_a_package_the_rest_is_still_told() -> None:
    script = (
        "import sys\nsys.modules['gguf'] = sys.modules['psutil'] = sys.modules['numpy'] = None\n"
        "from studio.doctor import examine\n"
        "print(*(one.name for one in examine() if one.state == 'broken'), sep='\\n')"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    broken = done.stdout.splitlines()
    assert {"ggml, which quantizes", "llama.cpp's converter", "main memory"} <= set(broken)
    assert "workspace" not in broken and "gradio" not in broken


def test_a_library_that_cannot_be_loaded_is_said_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise EspalierError("No library with ggml's quantization functions was found.", "Install one.")

    monkeypatch.setattr("studio.quantize.ggml.library", none)
    monkeypatch.setattr("studio.doctor._BUILD", "raise ImportError('libgomp.so.1: cannot open shared object file')")
    found = {finding.name: finding for finding in doctor.examine()}
    assert found["ggml, which quantizes"].remedy == "Install one."
    server = found["llama.cpp's server, which chats"]
    assert server.state == "broken" and "libgomp.so.1" in server.found and "libgomp1" in server.remedy


def test_a_card_that_this_llama_cpp_cannot_use_is_said_to_be_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.quantize.fit.this_gpu", lambda: ("NVIDIA H100", 80 << 30))
    monkeypatch.setattr("studio.quantize.fit.free_gpu_bytes", lambda: 70 << 30)
    for used, state in ((True, "good"), (False, "poor")):
        monkeypatch.setattr("studio.quantize.ggml.computes_on_gpu", lambda used=used: used)
        (card,) = (finding for finding in doctor.examine() if finding.name == "graphics card")
        assert card.state == state and "NVIDIA H100, 80 GiB, 70 GiB free" in card.found


def test_little_disk_is_said(monkeypatch: pytest.MonkeyPatch, small_disk: Path) -> None:
    assert states(list(doctor.room(small_disk)))["disk of the workspace"] == "poor"


def test_what_fits_is_told_of_every_model_and_a_damaged_one_is_no_reason_to_stop(
    own_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = own_workspace / "references" / "broken"
    broken.mkdir(parents=True)
    found = {finding.name: finding for finding in doctor.fitting(own_workspace)}
    assert found["model demo-model"].state == "good" and "in Q8_0 take" in found["model demo-model"].found
    assert found["model broken"].state == "poor" and found["model broken"].remedy
    monkeypatch.setenv("ESPALIER_MODEL_MEMORY", "1M")
    small = {finding.name: finding for finding in doctor.fitting(own_workspace)}
    assert small["model demo-model"].state == "poor" and "Half of the experts" in small["model demo-model"].remedy


def test_limits_are_told_and_a_wrong_one_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPALIER_QUOTA", "20G")
    monkeypatch.setenv("ESPALIER_MAX_UPLOAD", "plenty")
    found = {finding.name: finding for finding in doctor.limits()}
    assert "ESPALIER_QUOTA 20 GiB" in found["limits"].found
    assert found["limit ESPALIER_MAX_UPLOAD"].state == "broken"
