"""One tiny model for all tests that only read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.contributions.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def model():
    """Shared: tests that change a model build their own."""
    return tiny_model()


@pytest.fixture(scope="session")
def shape(model):
    from studio.families import shape_of_config

    return shape_of_config(model.config.to_dict())


@pytest.fixture
def prompt_file(tmp_path):
    """Writes prompt entries as JSON lines and gives the path."""

    def write(*entries: dict) -> Path:
        path = tmp_path / "prompts.jsonl"
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
        return path

    return write
