"""The YAML at the head of a card, from which the Hub knows what a repository holds and what it was made from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from studio.publish.artifact import Artifact
from studio.publish.licence import HUB_LICENSES, UNKNOWN, strictest

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def front_matter(artifact: Artifact, formats: Sequence[str], *, has_conversation: bool) -> str:
    """The block between two lines of dashes.

    The base is named where the manifest has a name of the Hub for it; the licence where the base names one. A licence
    that the Hub has no name for is `other`, with its own name beside it.
    """
    from huggingface_hub.repocard_data import ModelCardData

    manifest = artifact.manifest
    name = manifest.reference.name
    fields: dict[str, Any] = {"tags": _tags(artifact, formats, has_conversation=has_conversation)}
    if _HUB_NAME.fullmatch(name):
        fields |= {
            "base_model": [name],
            "base_model_relation": "quantized" if "gguf" in formats else "finetune",
        }
    license_name = strictest(manifest.reference.licenses)
    if license_name in HUB_LICENSES:
        fields["license"] = license_name
    elif license_name != UNKNOWN:
        fields |= {"license": "other", "license_name": license_name}
    fields["library_name"] = "transformers" if "safetensors" in formats else "gguf"
    fields["pipeline_tag"] = "text-generation"
    return f"---\n{ModelCardData(**fields).to_yaml()}\n---"


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
