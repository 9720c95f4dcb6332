"""A person's own tiers: any tier, with exceptions by layer, by role or by pattern; and llama.cpp's per-tensor file.

    {"name": "code-Q4", "base": "Q4_K_M", "embeddings": "Q8_0", "output": "Q8_0",
     "overrides": [{"role": "experts down", "layers": "0-3,28", "type": "Q6_K"},
                   {"pattern": "attn_v", "type": "Q8_0"}]}

The first override that covers a tensor decides, as in llama.cpp. Patterns are searched for in names, as there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from studio.errors import EspalierError, FormatError, InputError
from studio.quantize.plan import TensorPlan
from studio.quantize.roles import is_quantized
from studio.quantize.tiers import Override, Tier, tier_named, type_named

ROLES: Mapping[str, str] = {
    "attention": r"attn_",
    "dense": r"ffn_(?:up|gate|down)\.",
    "experts gate/up": r"ffn_(?:gate_up|gate|up)_exps\.",
    "experts down": r"ffn_down_exps\.",
    "shared experts": r"ffn_(?:up|gate|down)_shexp\.",
    "embeddings": r"token_embd\.",
    "output": r"^output\.",
}
"""What an override can be about → how its tensors are called."""
_IN_BLOCKS = frozenset(ROLES) - {"embeddings", "output"}

_FIELDS = frozenset({"name", "base", "embeddings", "output", "overrides"})
_OVERRIDE_FIELDS = frozenset({"type", "layers", "role", "pattern"})
_RANGE = re.compile(r"(\d+)(?:(?:-|\.\.)(\d+))?")
_MOST_LAYERS = 1024


def tier_of(name_or_path: str) -> Tier:
    """The tier that a person means by `name_or_path`: a known name, or a JSON file of the form above.

    Raises `InputError` for an unknown name, `FormatError` for a file that says something else.
    """
    if not name_or_path.endswith(".json"):
        return tier_named(name_or_path)
    path = Path(name_or_path)
    try:
        return tier_from_json(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}.", "Name a tier, or the JSON file of one.") from None


def tier_from_json(text: str, path: Path = Path("tier")) -> Tier:
    """The tier that `text` describes; `FormatError` naming the field that is wrong (`path` is for messages)."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(path, "", f"this is not JSON ({error})", _EXAMPLE) from None
    _check_fields(path, "", given, _FIELDS, needed=("name", "base"))
    name = given["name"]
    if not isinstance(name, str) or not re.fullmatch(r"[\w.+-]{1,64}", name):
        raise FormatError(
            path, "name", f"{name!r:.60} cannot be part of a file's name", "Use letters, digits, - and _."
        )
    base = _said(path, "base", tier_named, given["base"])
    own = given.get("overrides", [])
    if not isinstance(own, list):
        raise FormatError(path, "overrides", "this is no list", _EXAMPLE)
    types = {
        field: _said(path, field, type_named, given[field])
        for field in ("embeddings", "output")
        if given.get(field) is not None
    }
    overrides = tuple(_override(path, f"overrides[{index}]", one) for index, one in enumerate(own))
    return _with_overrides(replace(base, name=name, **types), overrides)


def tier_to_json(tier: Tier, base: str) -> str:
    """JSON of `tier`, which was made from the tier called `base`; `tier_from_json` gives the same tier again."""
    known = tier_named(base)
    own = tier.overrides[: len(tier.overrides) - len(known.overrides)]
    described: dict[str, Any] = {"name": tier.name, "base": base}
    for field in ("embeddings", "output"):
        if (kind := getattr(tier, field)) is not getattr(known, field):
            described[field] = kind.name
    described["overrides"] = [{"pattern": one.pattern, "type": one.type.name} for one in own]
    return json.dumps(described, indent=2) + "\n"


def with_tensor_types(tier: Tier, text: str, path: Path = Path("tensor types")) -> Tier:
    """`tier` with the exceptions that `text` names in llama.cpp's form: `pattern=type`, between blanks, no comments.

    As llama.cpp does, patterns are taken in lower case. Raises `FormatError` naming the entry that is wrong.
    """
    overrides = []
    for number, entry in enumerate(text.split(), start=1):
        pattern, _, kind = entry.partition("=")
        place = f"entry {number} ({entry[:60]!r})"
        if not pattern or not kind:
            raise FormatError(path, place, "this is not of the form pattern=type", "Write for instance attn_v=q8_0.")
        overrides.append(Override(_pattern(path, place, pattern.lower()), _said(path, place, type_named, kind)))
    return _with_overrides(replace(tier, name=f"{tier.name}-custom"), tuple(overrides))


def tensor_types(plan: TensorPlan, architecture: str) -> str:
    """`plan` as llama.cpp's per-tensor file: `llama-quantize --tensor-type-file` then makes the same tensors."""
    chosen = [
        f"^{re.escape(name)}$={kind.name.lower()}"
        for name, kind in plan.types.items()
        if len(plan.shapes[name]) >= 2 and is_quantized(name, architecture)
    ]
    return "".join(line + "\n" for line in chosen)


_EXAMPLE = (
    'Write for instance {"name": "mine", "base": "Q4_K_M", "overrides": [{"role": "attention", "type": "Q8_0"}]}.'
)


def _with_overrides(tier: Tier, overrides: tuple[Override, ...]) -> Tier:
    if overrides and tier.mix in ("F16", "BF16"):
        raise InputError(
            f"llama.cpp knows no exceptions from {tier.mix}, so {tier.name} could not be made.",
            "Start from Q8_0 and name what stays wide: an override may ask for BF16.",
        )
    changes: dict[str, Any] = {"overrides": (*overrides, *tier.overrides)}
    for field, tensor in (("embeddings", "token_embd.weight"), ("output", "output.weight")):
        if any(one.covers(tensor) for one in overrides):
            changes[field] = None  # what a person says of a tensor goes before what the tier says of it
    return replace(tier, **changes)


def _override(path: Path, place: str, given: Any) -> Override:
    _check_fields(path, place, given, _OVERRIDE_FIELDS, needed=("type",))
    kind = _said(path, f"{place}.type", type_named, given["type"])
    role, layers, pattern = (given.get(field) for field in ("role", "layers", "pattern"))
    if pattern is not None:
        if role is not None or layers is not None:
            raise FormatError(path, place, "a pattern goes with neither role nor layers", "Write it all as a pattern.")
        return Override(_pattern(path, f"{place}.pattern", pattern), kind)
    if role is None and layers is None:
        raise FormatError(path, place, "it covers nothing", f"Name layers, a pattern, or a role: {', '.join(ROLES)}.")
    if role is not None and (not isinstance(role, str) or role not in ROLES):
        raise FormatError(path, f"{place}.role", f"there is no role {role!r:.60}", f"The roles are {', '.join(ROLES)}.")
    if layers is None:
        return Override(ROLES[role], kind)
    if role is not None and role not in _IN_BLOCKS:
        raise FormatError(path, place, f"the {role} lie in no layer", "Leave the layers out.")
    numbers = "|".join(map(str, _layers(path, f"{place}.layers", layers)))
    return Override(rf"^blk\.(?:{numbers})\." + (ROLES[role] if role else ""), kind)


def _layers(path: Path, place: str, given: Any) -> list[int]:
    """Layers out of `[0, 3]`, `5`, or `"0-3,28"`."""
    text = ",".join(map(str, given)) if isinstance(given, list) else str(given)
    found: set[int] = set()
    for part in text.replace(" ", "").split(","):
        match = _RANGE.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < _MOST_LAYERS:
            raise FormatError(path, place, f"{part!r:.60} is no layer or range of layers", "Write for instance 0-3,28.")
        found.update(range(first, last + 1))
    return sorted(found)


def _pattern(path: Path, place: str, pattern: Any) -> str:
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise FormatError(path, place, f"{pattern!r:.60} is no regular expression ({error})") from None
    return str(pattern)


def _said(path: Path, place: str, look_up: Any, name: Any) -> Any:
    """What `look_up` finds by `name`; `FormatError` at `place` where it finds nothing."""
    try:
        return look_up(str(name))
    except EspalierError as error:
        raise FormatError(path, place, error.what.rstrip("."), error.remedy) from None


def _check_fields(path: Path, place: str, given: Any, known: frozenset[str], *, needed: tuple[str, ...]) -> None:
    if not isinstance(given, dict):
        raise FormatError(path, place, "this is no JSON object", _EXAMPLE)
    if unknown := sorted(set(given) - known):
        raise FormatError(
            path, place, f"there is no field {unknown[0]!r:.60}", f"The fields are {', '.join(sorted(known))}."
        )
    for field in needed:
        if field not in given:
            raise FormatError(path, place, f"the field {field!r} is missing", _EXAMPLE)
