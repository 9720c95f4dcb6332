"""Sources of prompts, the built-in ones, fair parts of them, and what an analysis says about them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.contributions.analyze import analyze
from studio.contributions.calibration import Calibration
from studio.contributions.encoding import load_tokenizer
from studio.contributions.prompt_preview import preview_prompts
from studio.contributions.prompts import LINE_BYTES, Prompt, read_prompts
from studio.contributions.sources import BUILTIN_CLASSES, builtin_prompts, columns_of, prompts_of
from studio.errors import FormatError, InputError
from tests.contributions.tiny import tiny_model, tiny_tokenizer

DEMO_MODEL = Path(__file__).parents[2] / "assets" / "demo-model"
TABLE = {
    "question": ["What is 2 + 2?", "Name a bird.", "Why?"],
    "solution": ["4", "Wren", None],
    "subject": ["math", "science", "math"],
}
COLUMNS = {"prompt": "question", "answer": "solution", "class": "subject"}
EXPECTED = [
    Prompt("math-0", "math", ({"role": "user", "content": "What is 2 + 2?"},), "4"),
    Prompt("science-1", "science", ({"role": "user", "content": "Name a bird."},), "Wren"),
    Prompt("math-2", "math", ({"role": "user", "content": "Why?"},), None),
]


@pytest.fixture(scope="module")
def builtin():
    return prompts_of()


@pytest.fixture
def parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def write(table: dict, name: str = "table.parquet"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.table(table), path)
        return path

    return write


# The built-in prompts.


def test_every_built_in_class_has_at_least_24_different_prompts(builtin):
    assert tuple(builtin.classes) == BUILTIN_CLASSES
    assert min(builtin.classes.values()) >= 24
    assert len({prompt.id for prompt in builtin.prompts}) == len(builtin.prompts)
    said = Counter(json.dumps(prompt.messages) for prompt in builtin.prompts)
    assert [text[:80] for text, count in said.items() if count > 1] == []
    assert len({prompt.answer for prompt in builtin.prompts}) == len(builtin.prompts)


def test_built_in_conversations_fit_any_chat_template(builtin):
    for prompt in builtin.prompts:
        roles = [turn["role"] for turn in prompt.messages]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2) + ["user"], prompt.id
        assert prompt.answer is not None and prompt.answer.strip() == prompt.answer, prompt.id
        assert prompt.id.startswith(f"{prompt.klass}-")
    several = Counter(prompt.klass for prompt in builtin.prompts if len(prompt.messages) > 1)
    assert several["tools"] == builtin.classes["tools"] and len(several) == len(BUILTIN_CLASSES)


def test_built_in_prompts_have_the_lengths_of_their_classes(builtin):
    tokenizer = load_tokenizer(DEMO_MODEL)
    classes = preview_prompts(tokenizer, builtin.prompts, max_tokens=100_000).classes
    # This tokenizer has only 2,048 entries: English takes it about one and a half times the usual number of tokens.
    long = classes.pop("long-context")
    assert long.shortest > 2_000 and long.median > 3_000 and long.longest < 7_000
    assert all(100 < of.median < 600 and of.longest < 2_000 for of in classes.values())
    assert all(of.open == of.cut == 0 for of in classes.values())


def test_classes_of_the_built_in_prompts_can_be_chosen():
    assert list(prompts_of("builtin:code,math").classes) == ["code", "math"]
    assert {prompt.klass for prompt in builtin_prompts(["logic"])} == {"logic"}
    with pytest.raises(InputError, match=r"'cooking'.*math, logic"):
        prompts_of("builtin:cooking")
    with pytest.raises(InputError, match="the class ''"):
        prompts_of("builtin:math,")


# Files.


def test_json_lines_take_columns_a_class_and_passages(prompt_file):
    path = prompt_file({"q": "Why?", "a": "Because.", "prompt": "ignored"}, {"q": "How?", "class": "craft"})
    read = prompts_of(str(path), columns={"prompt": "q", "answer": "a"}, klass="mine")
    assert [(p.id, p.klass, p.messages[0]["content"], p.answer) for p in read.prompts] == [
        ("mine-1", "mine", "Why?", "Because."),
        ("craft-2", "craft", "How?", None),
    ]
    (passage,) = prompts_of(str(prompt_file({"class": "prose", "text": "It rained."}))).prompts
    assert passage == Prompt("prose-1", "prose", (), None, "It rained.")
    with pytest.raises(FormatError, match='line 1: "q" is missing'):
        prompts_of(str(prompt_file({"prompt": "Why?"})), columns={"prompt": "q"}, klass="mine")
    with pytest.raises(FormatError, match=r"line 1: .*plain passage"):
        read_prompts(prompt_file({"class": "prose", "text": "It rained.", "answer": "No."}))


def test_paragraphs_of_a_text_file_are_passages(tmp_path):
    path = tmp_path / "prose.txt"
    path.write_bytes("\ufeffOne.\r\nStill one.\r\n \t\r\n\r\n    Two, indented.\n\n\n".encode())
    assert prompts_of(str(path)).prompts == (
        Prompt("text-1", "text", (), passage="One.\nStill one."),
        Prompt("text-2", "text", (), passage="    Two, indented."),
    )
    assert prompts_of(str(path), klass="prose").prompts[1].id == "prose-2"


def test_a_text_file_without_text_or_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "prose.txt"
    path.write_text("\n \n")
    with pytest.raises(FormatError, match="no text in it"):
        prompts_of(str(path))
    path.write_bytes("Stoß".encode("latin-1"))
    with pytest.raises(FormatError, match="byte 3: this is not UTF-8"):
        prompts_of(str(path))


def test_a_parquet_file_is_read_through_its_columns(parquet):
    path = parquet({**TABLE, "embedding": [[0.0] * 4] * 3})
    assert list(prompts_of(str(path), columns=COLUMNS).prompts) == EXPECTED
    turns = [[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]]
    (prompt,) = prompts_of(str(parquet({"messages": turns, "id": [7]})), klass="chat").prompts
    assert prompt == Prompt("7", "chat", ({"role": "user", "content": "Hi"},), "Hello")


def test_a_table_that_does_not_fit_is_named_with_row_and_column(parquet):
    def refused(table: dict, match: str, **options: object) -> None:
        with pytest.raises(FormatError, match=match):
            prompts_of(str(parquet(table)), **options)

    refused(TABLE, r"column 'query'.*Its columns are question, solution", columns={"prompt": "query"})
    refused(TABLE, "no column is the prompt", klass="a")
    refused({"prompt": ["x", " "]}, 'row 1: "prompt" has to be a text that is not empty', klass="a")
    refused({"prompt": ["x", None]}, 'row 1: "prompt" is missing', klass="a")
    refused({"q": [1, 2]}, 'row 0: "q" has to be a text', klass="a", columns={"prompt": "q"})
    refused({"prompt": ["x"]}, 'row 0: "class" is missing')
    refused({"prompt": ["x", "y"], "id": ["one", "one"]}, "row 1: .*that of row 0 too", klass="a")
    refused({"messages": ["x"]}, 'row 0: "messages" has to be a list', klass="a")
    refused({"prompt": []}, "not one row", klass="a")


def test_a_broken_parquet_file_is_refused(parquet):
    path = parquet({"prompt": ["x" * 1000] * 500})
    whole = path.read_bytes()
    for broken in (b"", b"PAR1", whole[: len(whole) // 2], b"\0" * 200 + whole[200:], b'{"class": "a"}'):
        path.write_bytes(broken)
        with pytest.raises(FormatError, match="not a whole parquet file"):
            prompts_of(str(path), klass="a")


def test_what_is_not_installed_is_named_with_its_remedy(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    for library in ("pyarrow", "datasets"):
        monkeypatch.setitem(sys.modules, library, None)  # as Python marks what cannot be imported
    with pytest.raises(InputError, match="pip install pyarrow"):
        prompts_of(str(tmp_path / "t.parquet"))
    with pytest.raises(InputError, match="pip install datasets"):
        prompts_of("hf:owner/name")


def test_a_giant_line_and_half_a_character_are_refused(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"class": "a", "prompt": "x"}\n{"class": "a", "prompt": "' + b"x" * LINE_BYTES + b'"}\n')
    with pytest.raises(FormatError, match="line 2: it is longer than 16 MiB"):
        prompts_of(str(path))
    path.write_text('{"class": "a", "prompt": "smile \\ud83d"}\n')
    with pytest.raises(FormatError, match='line 1: "prompt" holds half a character at position 6'):
        prompts_of(str(path))


# Data sets.


def test_a_data_set_is_read_by_the_real_library(parquet, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)  # a folder owner/name goes before the Hub
    parquet(TABLE, "owner/name/train.parquet")
    read = prompts_of("hf:owner/name", columns=COLUMNS)
    assert (list(read.prompts), read.sources) == (EXPECTED, ("hf:owner/name",))
    drawn = prompts_of("hf:owner/name::train", columns=COLUMNS, limit=2, seed=3).prompts
    assert len(drawn) == 2 and {prompt.id for prompt in drawn} < {"math-0", "science-1", "math-2"}
    for source, words in (("hf:owner/name::test", "test"), ("hf:owner/name:extra", "extra")):
        with pytest.raises(InputError, match=rf"cannot be loaded: .*{words}.*OWNER/NAME:CONFIG:SPLIT"):
            prompts_of(source, columns=COLUMNS)
    with pytest.raises(FormatError, match="column 'query'"):
        prompts_of("hf:owner/name", columns={"prompt": "query"})
    with pytest.raises(InputError, match=r"the Hub cannot be reached .*unset HF_HUB_OFFLINE"):
        prompts_of("hf:owner/elsewhere")


def test_labels_of_a_data_set_are_read_as_their_names(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["world", "sports"]))
    made = datasets.Dataset.from_dict({"text": ["A goal.", "A vote.", "?"], "label": [1, 0, -1]}, features=features)
    (tmp_path / "owner/news").mkdir(parents=True)
    made.to_parquet(tmp_path / "owner/news/train.parquet")
    read = prompts_of("hf:owner/news", columns={"class": "label"}, klass="none").prompts
    assert [(prompt.klass, prompt.passage) for prompt in read] == [
        ("sports", "A goal."),
        ("world", "A vote."),
        ("none", "?"),
    ]


@given(st.binary(max_size=80))
def test_no_bytes_do_anything_but_parse_or_raise_a_format_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    for name in ("any.txt", "any.parquet") if "pyarrow" in sys.modules else ("any.txt",):
        (folder / name).write_bytes(data)
        with suppress(FormatError):
            assert prompts_of(str(folder / name)).prompts


@pytest.mark.parametrize("source", ["hf:", "hf:name", "hf:../name", "hf:/etc/x", "hf:a/b:c:d:e", "hf:a/b/c"])
def test_what_names_no_data_set_is_refused_before_anything_is_fetched(source):
    with pytest.raises(InputError, match="does not name a data set"):
        prompts_of(source)


# Several sources, and parts of them.


def test_several_sources_are_joined_and_ids_stay_different(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"A passage of {name}.")
    both = prompts_of([str(tmp_path / "a.txt"), "builtin:math", str(tmp_path / "b.txt")])
    assert [prompt.id for prompt in both.prompts if prompt.passage] == ["a.txt/text-1", "b.txt/text-1"]
    assert both.prompts[1].id == "math-01"
    assert both.sources == ("a.txt", "builtin:math", "b.txt")
    with pytest.raises(InputError, match="builtin:math is named twice"):
        prompts_of(["builtin:math", "builtin:math"])
    assert len(prompts_of(["builtin", "builtin:math"]).prompts) > 200  # a person's choice; ids tell them apart


def test_a_source_that_is_nothing_is_refused():
    with pytest.raises(InputError, match=r"no prompt file buildin.*hf:OWNER/NAME"):
        prompts_of("buildin")
    with pytest.raises(InputError, match="No source"):
        prompts_of([])
    with pytest.raises(InputError, match="builtin has none"):
        prompts_of("builtin", columns={"prompt": "q"})


def test_column_mappings_are_read_as_people_write_them():
    assert columns_of(["prompt=question", "answer=a=b"]) == {"prompt": "question", "answer": "a=b"}
    for wrong in ("question", "prompt=", "question=prompt"):
        with pytest.raises(InputError, match="is not KEY=COLUMN"):
            columns_of([wrong])
    with pytest.raises(InputError, match="named twice"):
        columns_of(["prompt=a", "prompt=b"])


@given(seed=st.integers(), small=st.integers(1, 30), more=st.integers(0, 10))
def test_a_part_is_fair_repeatable_and_grows_with_its_size(seed, small, more):
    whole = Calibration(tuple(Prompt(f"{n}", "ab"[n % 3 == 0], ()) for n in range(30)), ("x",))
    part, larger = whole.at_most(small, seed), whole.at_most(small + more, seed)
    assert part == whole.at_most(small, seed) and set(part.prompts) <= set(larger.prompts)
    assert part.classes == {klass: min(small, count) for klass, count in whole.classes.items()}
    assert list(part.prompts) == [prompt for prompt in whole.prompts if prompt in part.prompts]


def test_the_draw_depends_on_the_seed(builtin):
    draws = {builtin.at_most(5, seed).digest for seed in range(4)}
    assert len(draws) == 4
    assert prompts_of(per_class=5, seed=1).digest == builtin.at_most(5, 1).digest


def test_the_digest_is_of_what_is_said_and_not_of_where_it_lay(builtin, tmp_path):
    copy = tmp_path / "copy.jsonl"
    copy.write_text(
        "".join(
            json.dumps({"answer": p.answer, "messages": p.messages, "class": p.klass, "id": p.id}) + "\n"
            for p in builtin.prompts
        )
    )
    assert prompts_of(str(copy)).digest == builtin.digest != builtin.without_answers().digest


def test_an_analysis_says_which_prompts_it_was_made_with(tmp_path):
    tiny_model(layers=2).save_pretrained(tmp_path / "tiny")
    tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    (tmp_path / "prose.txt").write_text("It rained.\n\nThen it did not.")
    calibration = prompts_of([str(tmp_path / "prose.txt"), "builtin:math"], per_class=1)
    made = analyze(tmp_path / "tiny", calibration, tmp_path / "c.safetensors", max_tokens=40)
    assert made.source.endswith(f"; prompts: prose.txt + builtin:math (sha256 {calibration.digest[:12]})")
    assert made.classes == ("text", "math")
