"""What is foretold about a conversion is what the conversion does."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.checkpoints.gguf_header import read_header
from studio.checkpoints.gguf_outline import outline
from studio.checkpoints.reference import open_reference
from studio.families import shape_of_gguf
from studio.quantize.forecast import predict_bytes
from studio.quantize.tiers import TIERS

SMALL = {"rope_freqs.weight"}


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
