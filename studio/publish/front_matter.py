"""The YAML at the head of a card, from which the Hub knows what a repository holds and what it was made from."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from studio.errors import InputError
from studio.publish.artifact import Artifact
from studio.publish.licence import HUB_LICENSES, OTHER, UNKNOWN, legal_names, strictest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


def front_matter(
    artifact: Artifact, formats: Sequence[str], *, has_conversation: bool, base_model: str | None = None
) -> str:
    """The block between two lines of dashes.

    The base is named where the manifest has a name of the Hub for it; the licence where the base names one. A licence
    that the Hub has no name for is `other`, with its own name beside it, and where its terms are. Raises `InputError`
    for a `base_model` that the Hub would not take.
    """
    from huggingface_hub.repocard_data import ModelCardData

    manifest = artifact.manifest
    name = base_model or manifest.reference.name
    fields: dict[str, Any] = {"tags": _tags(artifact, formats, has_conversation=has_conversation)}
    if base_model or is_repository(name):
        fields |= base_fields(name, formats)
    license_name = strictest(manifest.reference.licenses)
    if license_name in HUB_LICENSES:
        fields["license"] = license_name
    elif license_name != UNKNOWN:
        fields |= {"license": OTHER, "license_name": license_name}
    if fields.get("license") == OTHER and (link := _terms(artifact, formats)):
        fields["license_link"] = link
    fields["library_name"] = "transformers" if "safetensors" in formats else "gguf"
    fields["pipeline_tag"] = "text-generation"
    return f"---\n{ModelCardData(**fields).to_yaml()}\n---"


def is_repository(name: str) -> bool:
    """Whether the Hub takes `name` for a repository."""
    return _NAME.fullmatch(name) is not None and "--" not in name and ".." not in name and not name.endswith(".git")


def base_fields(name: str, formats: Collection[str]) -> dict[str, Any]:
    """What a head says of the base `name` of files in `formats`. Raises `InputError` for what is no name on the Hub."""
    if not is_repository(name):
        raise InputError(f"{name!r} cannot be the name of a model on the Hub.", "Write OWNER/NAME.")
    return {"base_model": [name], "base_model_relation": "quantized" if "gguf" in formats else "finetune"}


def _terms(artifact: Artifact, formats: Sequence[str]) -> str | None:
    """Where the terms are: what the reference says, as far as it leads somewhere from here, else a file of them."""
    here = legal_names((record.name for record in artifact.manifest.files), formats)
    told = artifact.manifest.reference.license_link
    if told and (told.startswith(("https://", "http://")) or told in here):
        return told
    return next((name for name in here if name.lower().startswith(("licen", "unlicen"))), None)


def _tags(artifact: Artifact, formats: Sequence[str], *, has_conversation: bool) -> list[str]:
    manifest = artifact.manifest
    tags = [
        "mixture-of-experts",
        "pruned",
        "espalier",
        *([manifest.reference.family] if manifest.reference.family else []),
    ]
    tags += ["gguf"] if "gguf" in formats else []
    tags += ["imatrix"] if "gguf" in formats and manifest.imatrix else []
    tags += ["conversational"] if has_conversation else []
    return tags
