"""Analyses made elsewhere come in whole, or are refused with the place of what is wrong."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.contributions.file import save
from studio.contributions.importers import QUESTIONS_CLASS, import_analysis
from studio.contributions.json_stream import with_quoted_literals, without_arrays
from studio.contributions.model import UNKNOWN_FAMILY
from studio.errors import FormatError, InputError

ROOT = Path(__file__).parents[2]
ORACLE = ROOT.parent / "shared" / "oracle" / "recipes"


def category_analysis(classes=("math", "code"), layers=2, experts=3, **metadata):
    """A complete analysis by category; every number differs."""
    numbers = itertools.count(1)
    return {
        "metadata": {"num_layers": layers, "num_experts": experts, "categories": list(classes), **metadata},
        "categories": {
            klass: {
                str(layer): [
                    {"id": e, "wnorm": next(numbers) / 7, "rnorm": next(numbers) / 3, "wsum": 0.5, "tc": next(numbers),
                     "cc": e, "neuron_act": [0.25, -1e-3, 3]}
                    for e in range(experts)
                ]
                for layer in range(layers)
            }
            for klass in classes
        },
    }  # fmt: skip


def question_analysis():
    """Two questions, 3 layers of 4 experts; some fired, most did not."""
    return {
        "metadata": {"num_layers": 3, "num_experts": 4, "model": "someone/gemma-4-mini"},
        "questions": {
            "What is 2 + 2?": {"0": [{"id": 3, "wnorm": 1.5, "rnorm": 2.5, "tc": 4}], "2": []},
            'And "NaN"?': {
                "1": [{"id": 0, "wnorm": 0.1, "rnorm": 3.0, "tc": 1}, {"id": 2, "wnorm": 7, "rnorm": 8, "tc": 9}]
            },
        },
    }  # fmt: skip


@pytest.fixture
def analysis_file(tmp_path):
    def write(content) -> Path:
        path = tmp_path / "analysis.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def test_an_analysis_by_category_gives_back_its_norms_and_counts_exactly(analysis_file):
    given_analysis = category_analysis(model="google/gemma-4-26B-A4B-it", hidden_size=2816, intermediate_size=704)
    made = import_analysis(analysis_file(given_analysis))
    assert made.classes == ("math", "code")
    assert [question.prompts for question in made.questions] == [2, 2], "the most prompts in which an expert fired"
    for index, klass in enumerate(made.classes):
        for layer in range(2):
            for entry in given_analysis["categories"][klass][str(layer)]:
                place = (index, layer, entry["id"])
                assert made.question_norm()[place] == entry["wnorm"]
                assert made.question_norm(weighted=False)[place] == entry["rnorm"]
                assert made.sum("tokens")[place] == entry["tc"]
    assert (made.shape.family, made.shape.layer_ids, made.shape.experts) == ("gemma4", (0, 1), 3)
    assert (made.shape.hidden_size, made.shape.expert_size) == (2816, 704)
    assert list(made.sums) == ["tokens", "norm_squared", "weighted_norm_squared"]
    assert "analysis.json" in made.source


@given(norm=st.floats(1e-100, 1e100))
def test_the_root_of_a_stored_square_is_the_norm_to_the_last_bit(norm):
    assert math.sqrt(norm**2) == norm


def test_the_number_of_prompts_is_read_where_it_is_given(analysis_file):
    made = import_analysis(analysis_file(category_analysis() | {"metadata": {"categories": {"math": 40, "code": 7}}}))
    assert [question.prompts for question in made.questions] == [40, 7]


def test_experts_may_come_in_any_order(analysis_file):
    straight = category_analysis()
    crooked = json.loads(json.dumps(straight))
    for layers in crooked["categories"].values():
        for experts in layers.values():
            experts.reverse()
    first = import_analysis(analysis_file(straight)).content_hash
    assert import_analysis(analysis_file(crooked)).content_hash == first
    metadata_last = {"categories": straight["categories"], "extra": [{}, [1]], "metadata": straight["metadata"]}
    assert import_analysis(analysis_file(metadata_last)).content_hash == first


def test_classes_come_in_the_order_that_the_metadata_lists(analysis_file):
    analysis = category_analysis(classes=("math", "code", "prose"))
    analysis["metadata"]["categories"] = ["prose", "math", "code"]
    imported = import_analysis(analysis_file(analysis))
    assert imported.classes == ("prose", "math", "code")
    first = [one["tc"] for one in analysis["categories"]["prose"]["0"]]
    assert imported.sum("tokens")[0, 0].tolist() == first


def test_in_an_analysis_by_question_an_absent_expert_never_fired(analysis_file):
    made = import_analysis(analysis_file(question_analysis()))
    assert [question.id for question in made.questions] == ["What is 2 + 2?", 'And "NaN"?']
    assert made.classes == (QUESTIONS_CLASS,)
    assert made.shape.layer_ids == (0, 1, 2)
    assert made.sum("tokens").sum() == 14
    assert made.sum("tokens")[0, 0].tolist() == [0, 0, 0, 4]
    assert made.question_norm()[1, 1].tolist() == [0.1, 0, 7, 0]


def test_top_k_is_taken_from_the_caller_then_the_file_then_the_published_model(analysis_file):
    def top_k(analysis, **options):
        return import_analysis(analysis_file(analysis), **options).shape.top_k

    assert top_k(category_analysis(), top_k=2) == 2
    assert top_k(category_analysis(top_k=3)) == 3
    assert top_k(category_analysis()) == 1
    published = import_analysis(analysis_file(category_analysis(("a",), layers=30, experts=128)))
    assert (published.shape.top_k, published.shape.family) == (8, "gemma4")
    assert import_analysis(analysis_file(category_analysis(model="other/model"))).shape.family == UNKNOWN_FAMILY


@pytest.mark.parametrize("text", ["NaN", "null", '"NaN"', "Infinity", '"Infinity"'])
def test_values_that_are_not_finite_are_kept_and_flagged(analysis_file, text):
    content = json.dumps(category_analysis()).replace('"wnorm": 0.14285714285714285', f'"wnorm": {text}')
    made = import_analysis(analysis_file(content))
    assert np.argwhere(made.nonfinite).tolist() == [[0, 0, 0]]
    value = "inf" if "Inf" in text else "nan"
    assert made.nonfinite_places() == (f"math, layer 0, expert 0: weighted_norm_squared is {value}",)


def test_a_norm_of_3_9e18_is_kept(analysis_file):
    content = json.dumps(category_analysis()).replace('"wnorm": 0.14285714285714285', '"wnorm": 3.9e18')
    made = import_analysis(analysis_file(content))
    assert made.question_norm()[0, 0, 0] == 3.9e18
    assert not made.nonfinite.any()


def broken(change):
    analysis = category_analysis()
    change(analysis)
    return analysis


def math_layer_1(analysis):
    return analysis["categories"]["math"]["1"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda a: math_layer_1(a).pop(1), "categories.math.layer 1, expert 1: this expert is missing"),
        (lambda a: math_layer_1(a).clear(), "categories.math.layer 1, expert 0: .*, and 2 more of this layer"),
        (lambda a: math_layer_1(a)[2].update(id=0), "categories.math.layer 1, expert 0: this expert comes twice"),
        (lambda a: math_layer_1(a)[2].update(id=3), "categories.math.layer 1, expert 3: metadata.num_experts is 3"),
        (lambda a: math_layer_1(a)[2].update(id=-1), 'categories.math.layer 1, entry 2: "id" is -1.0'),
        (lambda a: math_layer_1(a)[2].update(id=1.5), 'categories.math.layer 1, entry 2: "id" is 1.5'),
        (lambda a: math_layer_1(a)[2].update(id=10**15), "not the number of an expert"),
        (lambda a: math_layer_1(a)[2].pop("id"), 'categories.math.layer 1, entry 2: "id" is missing'),
        (lambda a: math_layer_1(a)[2].pop("tc"), 'categories.math.layer 1, expert 2: "tc" is missing'),
        (lambda a: math_layer_1(a)[0].update(tc=-3), 'categories.math.layer 1, expert 0: "tc" is -3.0'),
        (lambda a: math_layer_1(a)[0].update(wnorm="big"), "categories.math.layer 1, entry 0.wnorm: .* not 'big'"),
        (lambda a: math_layer_1(a)[0].update(wnorm=True), "categories.math.layer 1, entry 0.wnorm: .* not True"),
        (lambda a: math_layer_1(a)[0].update(wnorm=[1]), "categories.math.layer 1, entry 0.wnorm: .* not a list"),
        (lambda a: math_layer_1(a).append(7), "categories.math.layer 1, entry 3: an object is expected"),
        (lambda a: a["categories"]["math"].update({"1": {}}), "categories.math.layer 1: a list is expected"),
        (lambda a: a["categories"]["math"].pop("1"), "categories.math.layer 1: this layer is missing"),
        (lambda a: a["categories"]["math"].update({"01": []}), "categories.math.layer 01: this layer comes twice"),
        (lambda a: a["categories"]["math"].update({"first": []}), "'first' is not the number of a layer"),
        (lambda a: a["categories"]["math"].update({"9" * 5000: []}), "is not the number of a layer"),
        (lambda a: a["categories"].update({"code": []}), "categories.code: an object is expected"),
        (lambda a: a["categories"].pop("code"), "metadata.categories: the class 'code' is missing"),
        (lambda a: a["categories"].clear(), "categories: there is not one layer in it"),
        (lambda a: a["metadata"].update(num_layers=3), "metadata.num_layers: it is 3, but the classes have 2 layers"),
        (lambda a: a["metadata"].update(num_layers="two"), "metadata.num_layers: it is 'two'"),
        (lambda a: a["metadata"].update(num_experts=0), "metadata.num_experts: it is 0"),
        (lambda a: a["metadata"].update(num_experts=10**12), "metadata.num_experts: it is 10{12}"),
        (lambda a: a["metadata"].update(num_experts=10**6), "2 layers of 1000000 experts are more than any model has"),
        (lambda a: a.update(metadata=[]), "metadata: an object is expected"),
        (lambda a: a.update(questions={}), 'both "categories" and "questions"'),
        (lambda a: a.pop("categories"), 'neither "categories" nor "questions"'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(analysis_file, change, problem):
    path = analysis_file(broken(change))
    with pytest.raises(FormatError, match=problem) as raised:
        import_analysis(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "not readable as JSON|too early"),
        ("hello", "not readable as JSON"),
        ("[1, 2]", "not a contribution analysis"),
        ('"text"', "not a contribution analysis"),
        ("{}", 'neither "categories" nor "questions"'),
        ('{"0": [1, 2], "1": [3, 4]}', 'neither "categories" nor "questions"'),  # a drop map
        ('{"categories": {"math": {"0": [{"id": 0, "wno', "categories.math.layer 0"),
        ('{"categories": {"math": {"0": [{"id": 0, "wnorm": 1e999', "categories.math.layer 0"),
        ('{"categories": {"a": {}, "a": {}}}', "categories.a: this key comes twice"),
        ('{"categories": {}} trailing', "follows the end|not readable"),
        ('{"categories": {}} {}', "follows the end|not readable"),
        ("{" * 100_000, "readable|expected"),
        ('{"x": ' + "[" * 100_000, "readable|too early"),
        ('{"x": 1' + "0" * 30 + "}", "integer overflow"),
        ('{"questions": {"q": {"9": []}}, "metadata": {"num_layers": 3}}', "metadata.num_layers is 3"),
        ('{"questions": {"q": {"0": []}}}', "no expert is listed anywhere"),
    ],
)
def test_what_is_not_an_analysis_is_refused(analysis_file, content, problem):
    with pytest.raises(FormatError, match=problem):
        import_analysis(analysis_file(content))


def test_bytes_that_are_not_utf8_are_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"categories": {"\xff\xfe": {}}}')
    with pytest.raises(FormatError):
        import_analysis(path)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match="There is no file"):
        import_analysis(tmp_path / "none.json")


def test_a_file_that_espalier_made_passes_through(analysis_file, tmp_path):
    made = import_analysis(analysis_file(question_analysis()))
    save(made, tmp_path / "made.safetensors")
    assert import_analysis(tmp_path / "made.safetensors").content_hash == made.content_hash


def test_progress_ends_at_the_size_of_the_file(analysis_file):
    path, calls = analysis_file(category_analysis()), []
    import_analysis(path, lambda done, total, unit="", message="": calls.append((done, total, unit)))
    assert calls[-1] == (path.stat().st_size, path.stat().st_size, "bytes")


@given(cut=st.floats(0.0, 1.0))
def test_an_analysis_cut_anywhere_is_refused(tmp_path_factory, cut):
    whole = json.dumps(category_analysis())
    path = tmp_path_factory.mktemp("cut") / "a.json"
    path.write_text(whole[: min(int(cut * len(whole)), len(whole) - 1)])
    with pytest.raises(FormatError):
        import_analysis(path)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet='aN"\\nI-fity: [],') | st.just("NaN"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='NaI"\\x'), inner),
    max_leaves=12,
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


def named(value):
    """What JSON with quoted literals should say: NaN and infinities as strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if isinstance(value, list):
        return [named(item) for item in value]
    if isinstance(value, dict):
        return {key: named(item) for key, item in value.items()}
    return value


@given(value=values, cuts=st.lists(st.integers(0, 10_000), max_size=8))
def test_literals_are_quoted_wherever_the_chunks_end(value, cuts):
    data = json.dumps(value).encode()
    assert json.loads(b"".join(with_quoted_literals(pieces(data, cuts)))) == named(value)


@given(
    arrays=st.lists(st.lists(st.floats(allow_nan=False)), max_size=4),
    cuts=st.lists(st.integers(0, 10_000), max_size=8),
    indent=st.sampled_from([None, 2]),
)
def test_unread_arrays_are_emptied_wherever_the_chunks_end(arrays, cuts, indent):
    entries = [{"id": index, "act": array, "acts": [1, 2]} for index, array in enumerate(arrays)]
    data = json.dumps(entries, indent=indent).encode()
    emptied = json.loads(b"".join(without_arrays(pieces(data, cuts), "act")))
    assert emptied == [entry | {"act": []} for entry in entries]


def write_large(path: Path, megabytes: int) -> None:
    """30 × 128 experts, 5 classes, `neuron_act` as long as it takes."""
    layers, experts, classes = 30, 128, ("math", "logic", "code", "science", "creative")
    count = megabytes * 1_000_000 // (len(classes) * layers * experts * 9)
    activations = json.dumps([round(i * 0.618 % 10, 5) + 1e-6 for i in range(count)])
    entry = f'"wnorm": 1.5, "rnorm": 2.5, "wsum": 1.0, "tc": 3, "cc": 2, "neuron_act": {activations}'
    with path.open("w") as file:
        file.write('{"metadata": {"num_layers": 30, "num_experts": 128}, "categories": {')
        for index, klass in enumerate(classes):
            file.write(f'{", " if index else ""}"{klass}": {{')
            for layer in range(layers):
                listed = ", ".join(f'{{"id": {expert}, {entry}}}' for expert in range(experts))
                file.write(f'{", " if layer else ""}"{layer}": [{listed}]')
            file.write("}")
        file.write("}}")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from Linux's /proc")
def test_a_large_file_is_read_in_little_memory(tmp_path):
    write_large(tmp_path / "large.json", 60)
    script = (
        "import sys; from pathlib import Path\n"
        "from studio.contributions.importers import import_analysis\n"
        "made = import_analysis(Path(sys.argv[1]))\n"
        "assert made.sum('tokens').sum() == 3 * 5 * 30 * 128\n"
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "large.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (tmp_path / "large.json").stat().st_size > 50_000_000
    assert int(done.stdout) < 200 * 1024, "KiB resident at most"


@pytest.mark.skipif(not ORACLE.exists(), reason="the oracle's analyses are not beside the repository")
@pytest.mark.parametrize("name", ["generic", "targeted"])
@pytest.mark.parametrize("folder", ["recipes-small", "recipes-gemma4"])
def test_the_oracles_analyses_come_in_as_they_are(folder, name):
    made = import_analysis(ORACLE / folder / f"{name}.json")
    published = json.loads((ORACLE / folder / f"{name}.json").read_text())["categories"]
    assert made.classes == tuple(published)
    for norms, layers in zip(made.question_norm(), published.values(), strict=True):
        for layer, entries in layers.items():
            assert norms[int(layer)].tolist() == [entry["wnorm"] for entry in sorted(entries, key=lambda e: e["id"])]
