"""What is foretold about a conversion is what the conversion does."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from studio.checkpoints.convert import convert_to_gguf
from studio.checkpoints.gguf_header import GgufHeader, read_header
from studio.checkpoints.gguf_outline import outline
from studio.checkpoints.reference import open_reference
from studio.errors import InputError
from studio.families import shape_of_gguf
from studio.quantize.fit import context_length, kv_bytes
from studio.quantize.forecast import predict_bytes
from studio.quantize.tiers import TIERS

DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo-model"
SMALL = {"rope_freqs.weight"}


@pytest.fixture(scope="module")
def demo_header(tmp_path_factory: pytest.TempPathFactory) -> GgufHeader:
    """The header of the demo, converted."""
    return read_header(convert_to_gguf(DEMO, tmp_path_factory.mktemp("demo") / "demo.gguf"))


def test_the_outline_has_the_tensors_that_the_converter_writes(tiny_model: Path, tiny_gguf: Path) -> None:
    foretold = {tensor.name: (tensor.shape, tensor.type) for tensor in outline(open_reference(tiny_model)).tensors}
    converted = {tensor.name: (tensor.shape, tensor.type) for tensor in read_header(tiny_gguf).tensors}
    missing = {name for name in converted if name not in foretold and not name.endswith(".scale")} - SMALL
    assert not missing
    assert {name: converted.get(name) for name in foretold} == foretold


def test_the_outline_describes_the_same_grid(tiny_model: Path, tiny_gguf: Path) -> None:
    reference = open_reference(tiny_model)
    assert shape_of_gguf(outline(reference).values) == reference.shape
    assert outline(open_reference(tiny_gguf)).path == tiny_gguf


@pytest.mark.parametrize("tier", ["F16", "Q8_0", "Q4_K_M"])
def test_foretold_sizes_differ_from_those_of_the_converted_model_by_the_vocabulary_only(
    tiny_model: Path, tiny_gguf: Path, tier: str
) -> None:
    converted = read_header(tiny_gguf)
    vocabulary = converted.data_start
    foretold = predict_bytes(outline(open_reference(tiny_model)), TIERS[tier], 4)
    assert 0 <= predict_bytes(converted, TIERS[tier], 4) - foretold <= vocabulary + 4096


CONTEXTS = (1, 100, 512, 4096)


def test_keys_and_values_are_as_large_as_those_of_the_converted_model(tiny_model: Path, tiny_gguf: Path) -> None:
    foretold, converted = outline(open_reference(tiny_model)), read_header(tiny_gguf)
    assert context_length(foretold) == context_length(converted) == 512
    assert [kv_bytes(foretold, one) for one in CONTEXTS] == [kv_bytes(converted, one) for one in CONTEXTS]


def test_keys_and_values_of_the_demo_are_as_large_as_those_of_its_gguf(demo_header: GgufHeader) -> None:
    foretold = outline(open_reference(DEMO))
    assert context_length(foretold) == context_length(demo_header) == 4096
    assert [kv_bytes(foretold, one) for one in CONTEXTS] == [kv_bytes(demo_header, one) for one in CONTEXTS]


@pytest.mark.parametrize("key", ["head_dim", "sliding_window", "max_position_embeddings"])
def test_a_config_whose_attention_makes_no_sense_is_refused(tiny_model: Path, tmp_path: Path, key: str) -> None:
    folder = tmp_path / "wrong"
    shutil.copytree(tiny_model, folder, copy_function=os.link)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, key: "many"}))
    with pytest.raises(InputError, match=key):
        outline(open_reference(folder))
