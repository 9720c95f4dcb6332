"""What every test starts from: its own workspace, no network, repeatable property tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser

from tests.chromium import Person, chromium, person

settings.register_profile(
    "espalier", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("espalier")


@pytest.fixture(autouse=True)
def own_workspace(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test touches the person's own workspace."""
    home = tmp_path_factory.mktemp("espalier-home")
    monkeypatch.setenv("ESPALIER_HOME", str(home))
    return home


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """What a test, or the app in it, says in the environment is gone with it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for all tests of a session."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def visitor(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """The person who opens most pages of a session."""
    with person(browser, tmp_path_factory.mktemp("visitor")) as somebody:
        yield somebody


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MiB, so that "disk full" is the kernel's answer and not ours."""
    mount_point = tmp_path / "small-disk"
    mount_point.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(mount_point)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mount.returncode:
        pytest.skip(f"mounting a small tmpfs needs root: {mount.stderr.strip()}")
    try:
        yield mount_point
    finally:
        subprocess.run(["umount", "--lazy", str(mount_point)], check=True)
