"""What both formats tell while they are pruned, and afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.checkpoints.reference import Reference
from studio.errors import InputError
from studio.progress import Tally
from studio.publish.manifest import ReferenceRecord


def reference_record(reference: Reference, provenance: Mapping[str, Any], tally: Tally) -> ReferenceRecord:
    """Name and hash of the reference: those in `provenance`, else its own, for which all of it is read."""
    name = str(provenance.get("base_model") or reference.name)
    if digest := provenance.get("reference_hash"):
        return ReferenceRecord(name=name, sha256=str(digest))
    counted = 0

    def hashed(done: int, total: int, unit: str = "", message: str = "") -> None:
        nonlocal counted
        tally.advance(done - counted, message)
        counted = done

    return ReferenceRecord(name=name, sha256=reference.content_hash(hashed))


def refuse_inside(reference: Path, out: Path) -> None:
    """Raise `InputError` when writing `out` would replace the reference, or a folder that holds it."""
    if reference.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{out} is the reference, or holds it.", "Choose another place for the pruned model.")
