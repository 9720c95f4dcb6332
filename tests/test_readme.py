"""Every command of the README works as it stands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser.conftest import running_app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)


def test_the_verbs_of_the_readme_run_one_after_the_other(tmp_path: Path) -> None:
    for name in ("assets", "studio"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = {**os.environ, "ESPALIER_HOME": str(tmp_path / "home")}
    commands = [command for block in BLOCKS[:2] for command in block.strip().splitlines()]
    assert len(commands) >= 15
    for command in commands:
        words = shlex.split(command.replace("~/.espalier", environment["ESPALIER_HOME"]))
        assert words[0] == "python"
        done = subprocess.run(
            [sys.executable, *words[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_the_page_opens_on_a_model_of_ones_own(tmp_path: Path) -> None:
    (command,) = [block.split() for block in BLOCKS if block.startswith("python app.py")]
    assert command[2] == "--reference" and command[4] == "--contributions"
    flags = [
        command[2],
        str(ROOT / "assets/demo-model"),
        command[4],
        str(ROOT / "assets/demo-contributions.safetensors"),
    ]
    with running_app(tmp_path / "workspace", *flags) as app:
        assert app.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("path", re.findall(r"\]\((assets/[^)]+)\)", README))
def test_what_the_readme_links_to_is_there(path: str) -> None:
    assert (ROOT / path).is_file()
