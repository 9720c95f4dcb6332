"""What a build takes of the machine: bytes on disk and memory, known before it starts."""

from __future__ import annotations

from studio.checkpoints.convert import cached_path
from studio.checkpoints.model_folder import open_model_folder
from studio.checkpoints.prune_safetensors import plan_shards
from studio.checkpoints.reference import Reference, open_reference
from studio.errors import InputError, ResourceError
from studio.jobs.task import reference_path
from studio.limits import QUOTA
from studio.machine import free_ram
from studio.recipes.dropmap import DropMap
from studio.staging import require_disk, used_bytes
from studio.units import size_text
from studio.workspace import Workspace

CONVERTED_BYTES = 2
"""Per parameter: references are converted to bf16."""

_BASE_MEMORY = 256 << 20  # pruning and quantizing work in chunks
_CONVERTER_MEMORY = 512 << 20  # Python with torch, before it has read anything


def pruned_bytes(reference: Reference, drop: DropMap) -> int:
    """Bytes of the weights of a safetensors `reference` without the experts in `drop`, exactly."""
    return sum(plan.bytes for plan in plan_shards(open_model_folder(reference.path), reference, drop).values())


def require_room(workspace: Workspace, needed: int) -> None:
    """Raise `ResourceError` unless the disk and the workspace's quota have room for `needed` bytes more.

    Where the quota is exceeded already, nothing is begun, however little it needs.
    """
    remedy = "`python -m studio clean`, or “Disk space” at the end of the page, shows what can go."
    try:
        require_disk(workspace.root, needed)
    except ResourceError as error:
        raise ResourceError(error.what, f"{error.remedy} {remedy}") from None
    quota, left = QUOTA.value, quota_left(workspace)
    if quota is not None and left is not None and needed > left:
        of_all = workspace.whole is not None
        where = "The whole workspace" if of_all else workspace.discreet(f"The workspace {workspace.root}")
        adds = f", and this adds about {size_text(needed)}" if needed else ""
        raise ResourceError(
            f"{where} may take {size_text(quota)}; it has {size_text(quota - left)}{adds}.",
            f"{remedy} {QUOTA.variable} says how much it may take.",
        )


def quota_left(workspace: Workspace) -> int | None:
    """Bytes that the workspace may take beside what it has; None where it has no quota."""
    quota = QUOTA.value
    return None if quota is None else quota - used_bytes(workspace.whole or workspace.root)


def conversion_bytes(workspace: Workspace, reference: Reference) -> int:
    """What `cached_gguf` would add to the workspace for a reference; 0 where it is there, or is none to convert."""
    if reference.kind != "safetensors":
        return 0
    digests = workspace.cache / "digests"
    if (
        reference.hash_is_known(digests)
        and cached_path(reference.content_hash(cache=digests), workspace.cache).exists()
    ):
        return 0
    return reference.parameters * CONVERTED_BYTES


def require_memory(reference: Reference, converting: bool) -> None:
    """Raise `ResourceError` unless there is memory for the work, which grows with the largest tensor."""
    needed = _BASE_MEMORY
    if converting:
        shards = open_model_folder(reference.path).shards.values()
        largest = max(tensor.elements for header in shards for tensor in header.tensors)
        needed += _CONVERTER_MEMORY + 8 * largest  # the converter holds it in f32, and what it becomes
    free = free_ram()
    if free < needed:
        raise ResourceError(
            f"This needs about {size_text(needed)} of memory, and {size_text(free)} is free.",
            "Close something: a chat holds whole models.",
        )


def require_safetensors(workspace: Workspace, reference: str, what: str) -> None:
    """Raise `InputError` for a GGUF, which cannot be `what` (a participle)."""
    if open_reference(reference_path(workspace, reference)).kind != "safetensors":
        raise InputError(f"{reference} is a GGUF file, and cannot be {what}.", "Open the safetensors checkpoint.")
