"""The model card: what a published model is, how it came to be, and how it is run, told by its manifest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from studio.checkpoints.model_folder import read_json_object
from studio.publish.artifact import Artifact, Format
from studio.publish.card_sections import (
    files_section,
    how_section,
    licence_section,
    limits_section,
    measures_section,
    pictures_of,
    title_section,
    usage_section,
)
from studio.publish.front_matter import front_matter
from studio.publish.measures import Comparison
from studio.publish.ollama import CHAT_TEMPLATE
from studio.staging import staged

PICTURES = "pictures"


@dataclass(frozen=True)
class Card:
    """A card and what lies beside it."""

    text: str
    pictures: dict[str, str] = field(default_factory=dict)
    """File name below the card's folder → SVG."""

    def write(self, path: Path) -> None:
        """Write the card to `path`, and the pictures where it looks for them."""
        for target, text in ((path, self.text), *((path.parent / name, one) for name, one in self.pictures.items())):
            with staged(target, overwrite=True) as partial:
                partial.write_text(text, encoding="utf-8")


def make_card(
    artifact: Artifact,
    *,
    repository: str | None = None,
    formats: Sequence[Format] | None = None,
    measured: Iterable[Comparison] = (),
    base_model: str | None = None,
) -> Card:
    """The card of `artifact`, the same for the same artifact and measures.

    `repository` (OWNER/NAME) is where it will lie on the Hub, None where that is not known yet; `formats` are what will
    lie there, by default all that was built; `measured` is what `studio.publish.measures.comparisons` gives;
    `base_model` (OWNER/NAME) is what the Hub calls the reference, by default its name in the manifest if it is one.
    """
    shown = tuple(formats or artifact.formats)
    found = tuple(measured)
    template = chat_template(artifact)
    pictures = {f"{PICTURES}/{name}": picture for name, picture in pictures_of(artifact, found).items()}
    sections = [
        front_matter(artifact, shown, has_conversation=bool(template), base_model=base_model),
        title_section(artifact, shown),
        files_section(artifact) if "gguf" in shown else "",
        measures_section(artifact, shown, found, pictures),
        usage_section(artifact, shown, repository, template),
        how_section(artifact, pictures),
        limits_section(artifact, shown, found),
        licence_section(artifact, shown),
    ]
    return Card("\n\n".join(section for section in sections if section) + "\n", pictures)


def chat_template(artifact: Artifact) -> str:
    """The chat template (Jinja) of the model; empty where it has none."""
    for file in artifact.ggufs:
        return str(file.header.values.get(CHAT_TEMPLATE, ""))
    folder = artifact.safetensors
    if folder is None:
        return ""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8", errors="replace")
    path = folder / "tokenizer_config.json"
    return str(read_json_object(path)[0].get("chat_template", "")) if path.is_file() else ""
