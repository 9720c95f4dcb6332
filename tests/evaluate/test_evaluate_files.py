"""Two GGUF files are compared on the same tokens, and the numbers are those of llama.cpp's own tool."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from studio.checkpoints.gguf_header import read_header
from studio.contributions.sources import prompts_of
from studio.errors import InputError, MismatchError, ProcessError, ResourceError, UnsupportedError
from studio.evaluate import files as module
from studio.evaluate import llama
from studio.evaluate.file_results import Ground, in_words, measure
from studio.evaluate.files import diverge
from studio.evaluate.logits import BLOCK_BYTES, LogitsProcess, block_sizes
from studio.evaluate.reference_logits import LogitCache
from studio.evaluate.reference_rows import Keep
from studio.evaluate.samples import Samples, read_text, samples_of_prompts, samples_of_text
from studio.jobs.tasks import check
from studio.quantize.placement import Offload
from studio.workspace import Workspace

RECORDED = json.loads((Path(__file__).parent / "data" / "llama_perplexity.json").read_text())
CHUNK, CHUNKS = RECORDED["chunk"], RECORDED["chunks"]
ASSETS = Path(__file__).parents[2] / "assets"
Files = tuple[Path, Path]


def first_chunks(text: Path, count: int) -> Any:
    def prepare(model: LogitsProcess, header: Any) -> Samples:
        return Samples(samples_of_text(model, read_text(text), CHUNK).samples[:count])

    return prepare


def compared(files: Files, scratch: Path, prepare: Any, **options: Any) -> Any:
    reference, candidate = files
    return diverge(candidate, reference, prepare, context=CHUNK, scratch=scratch, threads=1, **options)


def test_the_numbers_are_those_of_llama_perplexity(files: Files, text: Path, tmp_path: Path) -> None:
    found, oracle = compared(files, tmp_path, first_chunks(text, CHUNKS), wide=True).overall, RECORDED["wide"]
    assert found.tokens == CHUNKS * (CHUNK - 1 - CHUNK // 2)
    assert found.reference_perplexity == pytest.approx(oracle["reference_perplexity"], rel=1e-5)
    assert found.candidate_perplexity == pytest.approx(oracle["candidate_perplexity"], rel=3e-4)
    assert found.kl_mean == pytest.approx(oracle["kl_mean"], abs=1e-5)
    assert found.kl_mean_error == pytest.approx(oracle["kl_mean_error"], rel=1e-3)
    # The tool reads the reference from 16 bits per log-probability, which shows in single tokens.
    assert found.kl_median == pytest.approx(oracle["kl_median"], abs=1e-5)
    assert found.kl_p99 == pytest.approx(oracle["kl_p99"], rel=1e-3)
    assert found.kl_max == pytest.approx(oracle["kl_max"], rel=1e-3)
    assert 100 * found.same_top == pytest.approx(oracle["same_top_percent"], abs=6e-4)


def test_with_keys_and_values_in_f16_they_are_the_same_but_for_rounding(
    files: Files, text: Path, tmp_path: Path
) -> None:
    found, oracle = compared(files, tmp_path, first_chunks(text, CHUNKS)).overall, RECORDED["usual"]
    assert found.reference_perplexity == pytest.approx(oracle["reference_perplexity"], rel=5e-3)
    assert found.candidate_perplexity == pytest.approx(oracle["candidate_perplexity"], rel=5e-3)
    assert abs(found.kl_mean - oracle["kl_mean"]) < oracle["kl_mean_error"]
    assert 100 * found.same_top == pytest.approx(oracle["same_top_percent"], abs=0.5)


def test_the_tokens_are_those_of_llama_perplexity(files: Files, text: Path, tmp_path: Path) -> None:
    with LogitsProcess(files[0], context=CHUNK, threads=1, log=tmp_path / "log") as model:
        samples = samples_of_text(model, read_text(text), CHUNK).samples[:CHUNKS]
        start = model.about["bos"]
    recorded = np.array(RECORDED["tokens"]).reshape(CHUNKS, CHUNK)
    for sample, chunk in zip(samples, recorded, strict=True):
        assert sample.tokens == (start, *chunk[1:])  # the tool puts the first token in when it computes


def test_one_after_the_other_gives_the_same_numbers_and_leaves_no_file(
    files: Files, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.evaluate.logits.BLOCK_BYTES", 40 * 2048 * 4)  # of 63 rows, the last block is smaller
    at_once, in_turn = (compared(files, tmp_path, first_chunks(text, 2), together=one) for one in (True, False))
    assert replace(in_turn, together=True) == at_once
    assert {path.name for path in tmp_path.iterdir()} == {"reference.log", "candidate.log"}


def test_a_file_does_not_diverge_from_itself(files: Files, text: Path, tmp_path: Path) -> None:
    found = compared((files[0], files[0]), tmp_path, first_chunks(text, 1)).overall
    assert (found.kl_max, found.same_top, found.perplexity_ratio) == (0.0, 1.0, 1.0)


def test_answers_are_scored_by_class_after_the_template_of_the_file(files: Files, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from studio.contributions.encoding import encode

    calibration = prompts_of(str(ASSETS / "demo-heldout.jsonl"), per_class=2)
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "demo-model")
    template = read_header(files[0]).values.get("tokenizer.chat_template")
    with LogitsProcess(files[0], context=256, threads=1, log=tmp_path / "log") as model:
        samples = samples_of_prompts(model, template, calibration.prompts, context=256).samples
    for sample, prompt in zip(samples, calibration.prompts, strict=True):
        question, answer = encode(tokenizer, prompt)
        assert (sample.klass, sample.tokens) == (prompt.klass, (*question, *answer))
        assert sample.first == len(question) - 1 and sample.scored == len(answer)


def test_an_open_prompt_is_answered_by_the_reference_and_a_long_one_is_cut(files: Files, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    said = [
        {"class": "math", "prompt": "What is twice 10?"},
        {"class": "math", "prompt": "What is twice 10?", "answer": "20 " * 60, "id": "cut"},
        {"class": "math", "prompt": "twice 10 " * 60, "answer": "20", "id": "left out"},
        {"class": "prose", "text": "The pear is ripe."},
    ]
    prompts.write_text("\n".join(map(json.dumps, said)))
    template = read_header(files[0]).values.get("tokenizer.chat_template")
    with LogitsProcess(files[0], context=64, threads=1, log=tmp_path / "log") as model:
        found = samples_of_prompts(model, template, prompts_of(str(prompts)).prompts, context=64, continuation=5)
        opened, cut, passage = found.samples
        model.ask(opened.tokens[:-1], opened.first)
        likeliest = np.concatenate([block.argmax(axis=1) for block in model.rows(opened.scored)])
    assert (found.cut, found.left_out) == (2, 1)
    assert 1 <= opened.scored <= 5 and likeliest.tolist() == list(opened.tokens[opened.first + 1 :])
    assert len(cut.tokens) == 64 and passage.first == 0


def test_a_result_lies_with_the_model_and_is_found_again(
    files: Files, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = tmp_path / "short.txt"
    short.write_text(read_text(text)[:1500])
    workspace, ground = Workspace.open(tmp_path / "home"), Ground(text=short, context=64)
    result, path = measure(files[1], files[0], ground, workspace, threads=1)
    assert path == workspace.measures / result.file_name and path.is_file()
    assert result.values["KL divergence"].value > 0 and "demo-Q4_K_M.gguf against demo.gguf" in in_words(result)
    monkeypatch.setattr("studio.evaluate.file_results.diverge", None)  # nothing is computed again
    assert measure(files[1], files[0], ground, workspace) == (result, path)
    assert not list(workspace.cache.glob("logits-*"))


def test_a_job_refuses_what_cannot_be_compared_before_it_starts(files: Files, tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "home")
    (workspace.artifacts / "demo.gguf").symlink_to(files[1])
    with pytest.raises(InputError, match="outside the workspace"):
        check("diverge", {"candidate": "artifacts/demo.gguf", "reference": "demo"}, workspace)
    (workspace.artifacts / "demo.gguf").unlink()
    os.link(files[1], workspace.artifacts / "demo.gguf")
    given = {"candidate": "artifacts/demo.gguf", "reference": "demo"}
    assert check("diverge", given, workspace).title() == "Compare demo.gguf with demo"
    with pytest.raises(InputError, match="There is no file"):
        check("diverge", {**given, "prompts": "nothing.jsonl"}, workspace)
    with pytest.raises(InputError, match="made for"):
        check("diverge", {**given, "context": 1 << 20}, workspace)


def test_a_crash_in_c_ends_only_the_child(files: Files, tmp_path: Path) -> None:
    with LogitsProcess(files[1], context=64, threads=1, log=tmp_path / "log") as model:
        assert model.about["vocabulary"] == 2048
        os.kill(model._process.pid, signal.SIGSEGV)
        with pytest.raises(ProcessError, match="SIGSEGV"):
            model.tokens("Hello", add_special=False, parse_special=False)


def test_a_damaged_file_is_refused_with_the_words_of_llama_cpp(files: Files, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(files[1].read_bytes()[:-100_000])
    opened = LogitsProcess(damaged, context=64, threads=1, log=tmp_path / "log")
    with opened as model, pytest.raises(ProcessError, match="could not be computed") as raised:
        _ = model.about
    assert "llama.cpp cannot load" in raised.value.log_tail


def write_gguf(path: Path, architecture: str, **values: Any) -> Path:
    """A GGUF with a header and one small tensor."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in values.items():
        name = f"{architecture}.{key.replace('__', '.')}"
        writer.add_bool(name, value) if isinstance(value, bool) else writer.add_uint32(name, value)
    writer.add_tensor("token_embd.weight", np.zeros((64, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_files_that_cannot_be_compared_are_refused_before_anything_is_loaded(files: Files, tmp_path: Path) -> None:
    def refused(path: Path) -> Any:
        return diverge(path, files[0], first_chunks(path, 1), context=CHUNK, scratch=tmp_path)

    with pytest.raises(UnsupportedError, match="no language model"):
        refused(write_gguf(tmp_path / "vision.gguf", "clip", vision__block_count=2))
    with pytest.raises(UnsupportedError, match="predicts no next token"):
        refused(write_gguf(tmp_path / "encoder.gguf", "bert", block_count=2, attention__causal=False))
    with pytest.raises(MismatchError, match="another vocabulary"):
        refused(write_gguf(tmp_path / "other.gguf", "gemma4", block_count=2))
    with pytest.raises(InputError, match="made for"):
        diverge(files[1], files[0], first_chunks(files[0], 1), context=1 << 20, scratch=tmp_path)


def test_too_little_memory_is_said_before_anything_is_loaded(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "free_ram", lambda: 100 << 20)
    with pytest.raises(ResourceError, match=r"demo\.gguf needs"):
        compared(files, tmp_path, first_chunks(files[0], 1))


def test_a_text_shorter_than_a_chunk_is_refused(files: Files, tmp_path: Path) -> None:
    opened = LogitsProcess(files[1], context=64, threads=1, log=tmp_path / "log")
    with opened as model, pytest.raises(InputError, match="tokens, and a chunk is 64"):
        samples_of_text(model, "Too short.", 64)


def test_a_build_that_nobody_compared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama, "version", lambda package: "2027.1.1")
    with pytest.raises(UnsupportedError, match=r"2027\.1\.1 is installed"):
        llama.bound()


def test_the_pinned_build_is_a_known_one_and_its_structures_have_the_sizes_of_its_header() -> None:
    import ctypes

    pinned = (Path(__file__).parents[2] / "requirements.txt").read_text().partition("xllamacpp==")[2].split()[0]
    assert pinned in llama.KNOWN_BUILDS
    # As a C++ compiler lays out llama.h of that version's source distribution.
    sizes = [ctypes.sizeof(one) for one in (llama.ModelParams, llama.ContextParams, llama.Batch)]
    assert sizes == [80, 168, 56]
    offsets = {name: getattr(llama.ContextParams, name).offset for name in ("cb_eval", "type_k", "embeddings")}
    assert offsets == {"cb_eval": 88, "type_k": 104, "embeddings": 136}
    assert (llama.ContextParams.ctx_other.offset, llama.ModelParams.vocab_only.offset) == (160, 72)


def test_the_memory_of_a_large_vocabulary_is_bounded() -> None:
    vocabulary = 262_144
    assert llama.rows_at_a_time(vocabulary) * vocabulary * 4 == llama.OUTPUT_BYTES
    assert (
        max(block_sizes(1000, vocabulary)) * vocabulary * 4 == BLOCK_BYTES
        and sum(block_sizes(1000, vocabulary)) == 1000
    )


def test_the_reference_is_computed_once_for_all_candidates_of_the_same_ground(
    files: Files, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    class Counted(LogitsProcess):
        def __init__(self, path: Path, **settings: Any) -> None:
            opened.append(path.name)
            super().__init__(path, **settings)

    monkeypatch.setattr(module, "LogitsProcess", Counted)
    plain = compared(files, tmp_path, first_chunks(text, 1))
    keep = Keep(LogitCache(tmp_path / "kept"), "the ground")
    opened.clear()
    first, again = (compared(files, tmp_path, first_chunks(text, 1), keep=keep) for _ in range(2))
    assert replace(first, together=plain.together) == replace(again, together=plain.together) == plain
    assert opened == ["demo.gguf", "demo-Q4_K_M.gguf", "demo-Q4_K_M.gguf"]
    (entry,) = (tmp_path / "kept").iterdir()
    assert (entry / "rows.f32").stat().st_size == plain.overall.tokens * 2048 * 4
    os.truncate(entry / "rows.f32", 1000)  # what is damaged is no entry
    assert keep.open(entry.name) is None and not entry.exists()


def test_what_is_larger_than_the_limit_is_not_kept(files: Files, text: Path, tmp_path: Path) -> None:
    small = Keep(LogitCache(tmp_path / "kept", limit=1000), "the ground")
    plain, found = (compared(files, tmp_path, first_chunks(text, 1), keep=keep) for keep in (None, small))
    assert found == plain and not list((tmp_path / "kept").iterdir())


def test_the_entry_is_named_after_all_that_decides_a_logit(tmp_path: Path) -> None:
    keep = Keep(LogitCache(tmp_path), "the ground")
    usual: dict[str, Any] = {"context": 64, "threads": 1, "offload": None, "wide": False}
    others = [{"context": 128}, {"threads": 2}, {"offload": Offload(gpu_layers=3)}, {"wide": True}]
    keys = {keep.key(**usual), *(keep.key(**{**usual, **other}) for other in others)}
    assert len(keys) == 5 and Keep(keep.cache, "another").key(**usual) not in keys
