"""What Ollama needs beside a GGUF file: a Modelfile, and the side files `template` and `params`, read on the Hub.

Ollama does not read the chat template of a GGUF: it has a language of its own for templates (Go's), which cannot trim
text or write JSON as Jinja does. So a template is only given where one is known to render the same text as the model's
own, token by token. Where Ollama has a renderer for the family in its own code, that is named instead; where it has
neither, the Modelfile says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from studio.checkpoints.gguf_header import SPLIT_COUNT, GgufHeader, read_header
from studio.errors import InputError
from studio.families import shape_of_gguf
from studio.publish.artifact import Artifact
from studio.publish.licence import strictest
from studio.publish.sampling import GUARDS, sampling_of
from studio.staging import staged

TEMPLATES = Path(__file__).parent / "templates"
CHAT_TEMPLATE = "tokenizer.chat_template"
MOST_CONTEXT = 131_072
"""Tokens of context that are asked for at most: more takes memory that few have, and can be set by hand."""

_TEMPLATES: Mapping[str, str] = {
    "1247f4515a60650995fc1f140f079f8276c0006a50ebcab7ce2af316f63875a7": "demo.gotmpl",
}
"""sha256 of a chat template, without blanks around it → the template in Go's language that renders the same."""

Value = int | float | str | tuple[str, ...]


@dataclass(frozen=True)
class Runtime:
    """What Ollama has for a family in its own code, and what ends its models' turns."""

    renderer: str
    parser: str
    stop: tuple[str, ...]


RUNTIMES: Mapping[str, Runtime] = {
    "gemma4": Runtime(
        renderer="gemma4",
        parser="gemma4",
        stop=("<turn|>", "<|tool_response>"),
    ),
}
"""Family → what Ollama knows of it; a family is only here when somebody has run it."""

_KNOWN_TIER = re.compile(r"I?Q\d_\w+|TQ\d_0|B?F16")


@dataclass(frozen=True)
class OllamaModel:
    """All that Ollama is told about one GGUF file."""

    gguf: Path
    template: str | None
    """In Go's language, where one renders the same as the model's own."""
    renderer: str | None
    parser: str | None
    parameters: Mapping[str, Value]
    license: str | None = None

    @property
    def remark(self) -> str:
        """How prompts come about, for a person."""
        if self.template is not None:
            return "The template renders the same tokens as the model's own chat template."
        if self.renderer is not None:
            return (
                f"No template in Ollama's language is known to be exact for this model; its renderer {self.renderer} "
                "writes the prompts."
            )
        return (
            "Neither a template in Ollama's language nor a renderer is known for this model: Ollama guesses one, "
            "and tool calls and thoughts may come out as plain text. Compare its answers with llama-server's."
        )

    def modelfile(self, source: str) -> str:
        """The Modelfile, with `source` after FROM: a path from the Modelfile's folder, or a name on the Hub."""
        lines = [*(f"# {line}" for line in self.remark.split("; ")), f"FROM {source}"]
        if self.template is not None:
            lines.append(f"TEMPLATE {_quoted(self.template)}")
        lines += [f"{word} {name}" for word, name in (("RENDERER", self.renderer), ("PARSER", self.parser)) if name]
        for name, value in self.parameters.items():
            values = value if isinstance(value, tuple) else (value,)
            lines += [f"PARAMETER {name} {_parameter(one)}" for one in values]
        if self.license:
            lines.append(f"LICENSE {_quoted(self.license)}")
        return "\n".join(lines) + "\n"

    def side_files(self) -> dict[str, str]:
        """File name → contents of what Ollama reads beside a GGUF on the Hub."""
        parameters = {
            name: list(value) if isinstance(value, tuple) else value for name, value in self.parameters.items()
        }
        files = {"params": json.dumps(parameters, indent=2, ensure_ascii=False) + "\n"}
        if self.template is not None:
            files["template"] = self.template
        return files


def ollama_model(gguf: Path, license_name: str | None = None) -> OllamaModel:
    """What Ollama has to be told about the file at `gguf`.

    Raises `InputError` for one part of a split model, which Ollama does not load, and what `read_header` raises.
    """
    header = read_header(gguf)
    if len(header.parts) > 1 or header.values.get(SPLIT_COUNT, 0) > 1:
        raise InputError(
            f"{gguf.name} is one of {len(header.parts)} parts, and Ollama loads whole files only.",
            "Build it without splitting.",
        )
    template = exact_template(str(header.values.get(CHAT_TEMPLATE, "")))
    family = shape_of_gguf(header.values).family
    runtime = RUNTIMES.get(family)
    in_code = runtime is not None and template is None  # the renderer goes by the family's template, not by another
    return OllamaModel(
        gguf=gguf,
        template=template,
        renderer=runtime.renderer if runtime and in_code else None,
        parser=runtime.parser if runtime and in_code else None,
        parameters=_parameters(header, family),
        license=license_name,
    )


def exact_template(chat_template: str) -> str | None:
    """The template in Go's language that renders the same as `chat_template` (Jinja); None where none is known."""
    digest = hashlib.sha256(chat_template.strip().encode()).hexdigest()
    name = _TEMPLATES.get(digest)
    return None if name is None else (TEMPLATES / name).read_text(encoding="utf-8")


def local_name(model: str, tier: str) -> str:
    """What the model is called in Ollama: name:tier."""
    return f"{model.lower()}:{tier.lower()}"


def commands(model: str, tier: str, modelfile: Path | str) -> tuple[str, ...]:
    """What a person types to have and run the model, in the folder that `modelfile` starts from; for a shell."""
    name = shlex.quote(local_name(model, tier))
    return f"ollama create {name} -f {shlex.quote(str(modelfile))}", f"ollama run {name}"


def hub_command(repository: str, tier: str, file_name: str) -> str:
    """What a person types to run a file of `repository` (OWNER/NAME) on the Hub.

    The Hub knows llama.cpp's own tiers by their names, and any file by its own.
    """
    name = tier if _KNOWN_TIER.fullmatch(tier) else file_name
    return f"ollama run {shlex.quote(f'hf.co/{repository}:{name}')}"


def write_files(artifact: Artifact, out: Path) -> dict[str, OllamaModel]:
    """Write to the folder `out` a Modelfile per GGUF, and the side files; gives file name → what it tells.

    Files of split models are left out. Raises what `ollama_model` raises.
    """
    licenses = artifact.manifest.reference.licenses
    written: dict[str, OllamaModel] = {}
    for file in artifact.ggufs:
        if len(file.names) > 1:
            continue
        model = ollama_model(file.path, strictest(licenses) if licenses else None)
        name = f"{file.path.stem}.Modelfile"
        source = os.path.relpath(file.path, out)
        modelfile = model.modelfile(source if source.startswith(".") else f"./{source}")
        for each, text in ((name, modelfile), *model.side_files().items()):  # those are the same for all tiers
            with staged(out / each, overwrite=True) as partial:
                partial.write_text(text, encoding="utf-8")
        written[name] = model
    return written


def _parameters(header: GgufHeader, family: str) -> dict[str, Value]:
    """The same sampling as llama-server is told, and what keeps Ollama from loops."""
    found: dict[str, Value] = dict(sampling_of(family, str(header.values.get(CHAT_TEMPLATE, "")), header.values))
    if guard := GUARDS.get(family):
        found |= {"repeat_penalty": guard.repeat_penalty, "repeat_last_n": guard.repeat_last_n}
    if runtime := RUNTIMES.get(family):
        found["stop"] = runtime.stop
    return {**found, "num_ctx": _context(header)}


def _context(header: GgufHeader) -> int:
    known = header.values.get(f"{header.architecture}.context_length", MOST_CONTEXT)
    return min(int(known), MOST_CONTEXT)


def _parameter(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    if '"""' in text:
        raise InputError('A Modelfile cannot hold a text with """ in it.', "Leave that out of the template or licence.")
    return f'"""{text}"""'
