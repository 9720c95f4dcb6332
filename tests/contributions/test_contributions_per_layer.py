"""Arrays per layer, as REAP records them, in every file and under every name that they come with."""

from __future__ import annotations

import io
import json
import pickle
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from studio.contributions.importers import import_analysis
from studio.contributions.model import Contributions
from studio.contributions.per_layer_files import CONVERSION
from studio.errors import FormatError, InputError

LAYERS, EXPERTS = (1, 3, 4), 6
LOTS = np.random.default_rng(0)
TOKENS = np.floor(LOTS.random((3, EXPERTS)) * 50)
TOKENS[1, 2] = 0
NORM, WEIGHTED = LOTS.random((3, EXPERTS)) * TOKENS, LOTS.random((3, EXPERTS)) * TOKENS
MEAN = np.divide(WEIGHTED, TOKENS, out=np.full(TOKENS.shape, np.nan), where=TOKENS > 0)

Named = dict[str, np.ndarray]
Write = Callable[[Path, Named], Path]


def write_npz(folder: Path, named: Named) -> Path:
    np.savez_compressed(folder / "a.npz", **named)
    return folder / "a.npz"


def write_safetensors(folder: Path, named: Named) -> Path:
    save_file({name: np.ascontiguousarray(values) for name, values in named.items()}, folder / "a.safetensors")
    return folder / "a.safetensors"


def write_json(folder: Path, named: Named) -> Path:
    nested: dict = {}
    for name, values in named.items():
        *levels, last = name.split("/")
        place = nested
        for level in levels:
            place = place.setdefault(level, {})
        place[last] = values.tolist()
    (folder / "a.json").write_text(json.dumps(nested))
    return folder / "a.json"


WRITERS = pytest.mark.parametrize("write", [write_npz, write_safetensors, write_json])


def by_layer(pattern: str, metrics: dict[str, np.ndarray]) -> Named:
    return {
        pattern.format(layer=layer, metric=metric): values[row]
        for metric, values in metrics.items()
        for row, layer in enumerate(LAYERS)
    }


def check(made: Contributions) -> None:
    assert made.shape.layer_ids == LAYERS and made.shape.experts == EXPERTS
    assert np.array_equal(made.sum("tokens")[0], TOKENS)
    assert np.array_equal(made.sum("norm")[0], NORM)
    assert made.sum("weighted_norm")[0] == pytest.approx(WEIGHTED)


@WRITERS
@pytest.mark.parametrize(
    "pattern",
    [
        "{layer}/{metric}",
        "layers/{layer}/{metric}",
        "layer_{layer}/{metric}",
        "layer_{layer}_{metric}",
        "layers.{layer}.{metric}",
        "model.layers.{layer}.mlp.{metric}",
        "model.language_model.layers.{layer}/{metric}",
        "{metric}/{layer}",
        "{metric}/layer_{layer}",
    ],
)
def test_a_name_says_the_layer_in_many_ways(write: Write, pattern: str, tmp_path: Path) -> None:
    metrics = {"expert_frequency": TOKENS, "ean_sum": NORM, "weighted_ean_sum": WEIGHTED}
    others = {"pairwise_expert_frequency": TOKENS, "max_activations": TOKENS, "reap_l2": NORM}
    made = import_analysis(write(tmp_path, by_layer(pattern, metrics | others)))
    check(made)
    assert (made.classes, tuple(made.sums)) == (("all",), ("tokens", "norm", "weighted_norm"))


@WRITERS
def test_arrays_of_all_layers_name_them_or_count_from_zero(write: Write, tmp_path: Path) -> None:
    metrics = {"expert_frequency": TOKENS, "ean_sum": NORM, "weighted_ean_sum": WEIGHTED}
    check(import_analysis(write(tmp_path, metrics | {"layer_ids": np.array(LAYERS)})))
    assert import_analysis(write(tmp_path, metrics)).shape.layer_ids == (0, 1, 2)


@WRITERS
def test_means_become_sums_and_a_sum_that_is_given_is_preferred(write: Write, tmp_path: Path) -> None:
    metrics = {"reap": MEAN, "expert_frequency": TOKENS, "ean_sum": NORM, "ean_mean": NORM}
    check(import_analysis(write(tmp_path, by_layer("{layer}/{metric}", metrics))))
    with pytest.raises(FormatError, match="reap: it is a mean, and of how many tokens is not said"):
        import_analysis(write(tmp_path, {"reap": TOKENS}))


@WRITERS
def test_classes_are_a_level_of_names(write: Write, tmp_path: Path) -> None:
    named = {f"{klass}/{layer}/tokens": TOKENS[row] for klass in ("code", "v4") for row, layer in enumerate(LAYERS)}
    made = import_analysis(write(tmp_path, named))
    assert (made.classes, made.shape.layer_ids) == (("code", "v4"), LAYERS)
    assert made.questions[0].id == "code"


@WRITERS
def test_experts_per_token_follow_from_the_tokens(write: Write, tmp_path: Path) -> None:
    routed = np.full((2, 8), 30.0)
    named = {f"{layer}/expert_frequency": routed[layer] for layer in range(2)}
    totals = {f"{layer}/total_tokens": np.array([80.0]) for layer in range(2)}
    assert import_analysis(write(tmp_path, named | totals)).shape.top_k == 3
    assert import_analysis(write(tmp_path, named)).shape.top_k == 1
    assert import_analysis(write(tmp_path, named), top_k=4).shape.top_k == 4


def test_json_says_the_model_and_lists_layers(tmp_path: Path) -> None:
    layers = [{"layer": layer, "expert_frequency": TOKENS[row].tolist()} for row, layer in enumerate(LAYERS)]
    content = {"workflow": "w", "model": "own/model", "totalTokens": 7, "layers": layers, "metadata": {"top_k": 2}}
    (tmp_path / "a.json").write_text(json.dumps(content))
    made = import_analysis(tmp_path / "a.json")
    assert (made.model, made.shape.layer_ids, made.shape.top_k) == ("own/model", LAYERS, 2)


def test_numbers_that_are_none_are_outliers_and_not_errors(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"0": {"ean_sum": [1, NaN, null, Infinity]}}')
    assert import_analysis(tmp_path / "a.json").nonfinite.sum() == 3


@WRITERS
@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"weights": TOKENS}, "not a contribution analysis: it has none of expert_frequency|nor arrays per layer"),
        ({"0/tokens": TOKENS[0], "2/norm": TOKENS[0], "0/norm": TOKENS[0]}, "layer 2, tokens: it is missing"),
        ({"a/0/tokens": TOKENS[0], "b/0/norm": TOKENS[0]}, "b, layer 0, tokens: it is missing"),
        ({"a/0/tokens": TOKENS[0], "0/tokens": TOKENS[0]}, "of the class 'a', others of none"),
        ({"0/tokens": TOKENS[0], "1/tokens": TOKENS[0][:4]}, r"layer 1, tokens: it is \[4\], not \[6\]"),
        ({"0/tokens": TOKENS[0], "0/norm": TOKENS[0][:4]}, "different numbers of experts: tokens 6, norm 4"),
        ({"tokens": TOKENS[0]}, r"tokens: it is \[6\], not \[6, experts\]"),
        (
            {"tokens": TOKENS, "norm": TOKENS[:2]},
            r"norm: it is \[2, 6\], not \[3, e|tokens: it is \[3, 6\], not \[2, e",
        ),
        ({"0/tokens": TOKENS}, r"layer 0, tokens: it is \[3, 6\], not \[experts\]"),
        ({"0/tokens": -TOKENS[0]}, "cannot be negative"),
        ({"0/tokens": TOKENS[0], "layer_0/tokens": TOKENS[0]}, "a second array of layer 0, tokens"),
        ({"a/b/0/tokens": TOKENS[0]}, "a/b/0/tokens: this name does not say"),
        ({"0/tokens/norm": TOKENS[0]}, "0/tokens/norm: this name does not say"),
        ({"tokens": TOKENS, "layer_ids": np.array([3, 1, 2])}, "not the ascending numbers of the layers"),
        ({"tokens": TOKENS, "layer_ids": np.array([3.0])}, "not the ascending numbers of the layers"),
    ],
)
def test_what_does_not_fit_is_named(write: Write, named: Named, words: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=words):
        import_analysis(write(tmp_path, named))


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self):
        return (Path.touch, (self.sign,))


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.pkl", "a.bin", "a.npz", "a.json", "a.safetensors"])
@pytest.mark.parametrize("as_torch", [False, True])
def test_a_pickle_is_refused_whatever_it_is_called(name: str, as_torch: bool, tmp_path: Path) -> None:
    path, sign = tmp_path / name, tmp_path / "sign"
    if as_torch:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Trap(sign)))
    else:
        path.write_bytes(pickle.dumps(Trap(sign)))
    with pytest.raises(InputError, match=r"is a pickle.*weights_only=True.*a\.npz"):
        import_analysis(path)
    assert not sign.exists()


def test_the_way_to_convert_a_pickle_works(tmp_path: Path) -> None:
    import torch

    state = {
        layer: {
            "total_tokens": torch.tensor(9),
            "expert_frequency": torch.tensor(TOKENS[row]).long(),
            "ean_sum": torch.tensor(NORM[row]),
            "reap": torch.tensor(MEAN[row], dtype=torch.float32),
            "pairwise_expert_frequency": torch.ones(EXPERTS, EXPERTS),
        }
        for row, layer in enumerate(LAYERS)
    }
    torch.save(state, tmp_path / "a.pt")
    _, *words = shlex.split(CONVERSION)
    subprocess.run([sys.executable, *words, "a.pt", "b.npz"], cwd=tmp_path, check=True, timeout=60)
    check(import_analysis(tmp_path / "b.npz"))


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (99999, 99999), }"), "no array of numbers over layers"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000, 6), }"), "is not of the 128 bytes"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 6), }", bytes(80)), "is not of the 208 bytes"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (1, 6), }", pickle.dumps(1)), "a pickled object"),
        (npy("{'descr': '<U8', 'fortran_order': False, 'shape': (1, 6), }", bytes(192)), "no array of numbers"),
        (npy("__import__('os').abort()"), "not an array"),
        (b"\x93NUMPY", "not an array"),
        (b"", "not an array"),
    ],
)
def test_a_hostile_npz_costs_nothing(content: bytes, words: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tokens.npy", content)
    with pytest.raises(FormatError, match=words):
        import_analysis(tmp_path / "a.npz")


@given(cut=st.floats(0, 1), flips=st.lists(st.tuples(st.integers(0), st.integers(1, 255)), max_size=4))
def test_a_damaged_npz_is_refused_or_still_an_analysis(
    tmp_path_factory: pytest.TempPathFactory, cut: float, flips: list[tuple[int, int]]
) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, tokens=TOKENS, norm=NORM)
    data = bytearray(buffer.getvalue())
    for place, bits in flips:
        data[place % len(data)] ^= bits
    path = tmp_path_factory.mktemp("damaged") / "a.npz"
    path.write_bytes(data if flips else data[: int(cut * (len(data) - 1))])
    with suppress(InputError):
        assert import_analysis(path).shape.layers


WORDS = st.sampled_from(["tokens", "norm", "0", "layer_1", "layers", "code", "metadata", "reap", "layer"])


@given(
    st.recursive(st.none() | st.floats() | st.text(max_size=3), lambda one: st.lists(one) | st.dictionaries(WORDS, one))
)
def test_any_json_is_an_analysis_or_refused(content: object) -> None:
    with TemporaryDirectory() as folder, suppress(InputError):
        path = Path(folder, "a.json")
        path.write_text(json.dumps({"x": content} if not isinstance(content, dict) else content))
        assert import_analysis(path).shape.experts
