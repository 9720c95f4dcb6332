"""What people type to run what was built, and to do from a terminal what the station does; nothing of gradio."""

from __future__ import annotations

import shlex
from html import escape
from pathlib import Path

from components.markup import copyable, notice
from studio.errors import InputError
from studio.publish.artifact import Artifact, GgufFile
from studio.publish.card import chat_template
from studio.publish.licence import strictest
from studio.publish.manifest import FILE_NAME
from studio.publish.ollama import OllamaModel, commands, local_name, ollama_model
from studio.publish.ollama_create import PROGRAM
from studio.publish.snippets import server_command, transformers_code

SAFE_TIER = "latest"
"""What Ollama calls a file whose tier has no name."""


def snippets_html(artifact: Artifact, tier: str | None) -> str:
    """Lines that run the files where they lie: llama.cpp for the file of `tier`, transformers for the checkpoint."""
    family, template, parts = artifact.manifest.reference.family, chat_template(artifact), []
    if (file := gguf_of(artifact, tier)) is not None:
        command = server_command(["--model", str(file.path)], family, template, file.header.values)
        parts += ["<h3 class='panel-title'>llama.cpp</h3>", copyable(command, "the llama-server command")]
    if artifact.safetensors is not None:
        code = transformers_code(str(artifact.safetensors), family, template)
        parts += ["<h3 class='panel-title'>transformers</h3>", copyable(code, "the Python code")]
    return "".join(parts)


def tier_choices(artifact: Artifact) -> list[tuple[str, str]]:
    """The GGUF files, as a selector lists them."""
    return [(file.tier or "as the reference", file.tier) for file in artifact.ggufs]


def gguf_of(artifact: Artifact, tier: str | None) -> GgufFile | None:
    """The GGUF of `tier`, else the smallest; None where there is none."""
    return next((file for file in artifact.ggufs if file.tier == tier), next(iter(artifact.ggufs), None))


def ollama_folder(artifact: Artifact) -> Path:
    """Where Modelfiles are written, as the verb `ollama` does."""
    return artifact.folder / "ollama"


def ollama_name(artifact: Artifact, file: GgufFile) -> str:
    """What the model is called in Ollama."""
    return local_name(artifact.name, file.tier or SAFE_TIER)


def modelfile_of(artifact: Artifact, file: GgufFile) -> tuple[OllamaModel, str]:
    """What Ollama is told of `file`, and its Modelfile as it is written. Raises as `ollama_model` does."""
    licenses = artifact.manifest.reference.licenses
    model = ollama_model(file.path, strictest(licenses) if licenses else None)
    return model, model.modelfile(f"../{file.names[0]}")


def ollama_html(artifact: Artifact, tier: str | None, program: str | None) -> str:
    """Modelfile, side files and commands for the file of `tier`; `program` is where Ollama is, None where it is not."""
    file = gguf_of(artifact, tier)
    if file is None:
        return notice("Ollama loads GGUF files, and none was built.", "Build a tier to have one.")
    try:
        model, modelfile = modelfile_of(artifact, file)
    except InputError as error:
        return notice(error.what, error.remedy, "warning")
    written = ollama_folder(artifact) / f"{file.path.stem}.Modelfile"
    typed = "\n".join(commands(artifact.name, file.tier or SAFE_TIER, written))
    here = (
        ""
        if program
        else notice(
            f"There is no program {PROGRAM} on this machine.",
            "Install it, or write the files and type the commands where it is.",
        )
    )
    parts = [f"<p>{escape(model.remark)}</p>", here, copyable(typed, "the commands for Ollama")]
    files = {written.name: modelfile, **model.side_files()}
    parts += [
        f"<details class='numbers'><summary>{escape(name)}</summary>{copyable(text, name)}</details>"
        for name, text in files.items()
    ]
    return "".join(parts)


def commands_text(artifact: Artifact, repository: str, part: str | None, public: bool) -> str:
    """The verbs that do what the station does."""
    folder = shlex.quote(str(artifact.folder))
    chosen = f" --format {part}" if part and len(artifact.formats) > 1 else ""
    repo = shlex.quote(repository or "OWNER/NAME")
    seen = " --public" if public else ""
    lines = [
        f"verify {folder}",
        f"replay {shlex.quote(str(artifact.folder / FILE_NAME))}",
        f"card {folder}{chosen}",
        f"ollama {folder}",
        f"publish {folder} --repo {repo}{chosen}{seen} --dry-run",
        f"publish {folder} --repo {repo}{chosen}{seen}",
    ]
    return "\n".join(f"python -m studio {line}" for line in lines)
