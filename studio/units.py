"""Bytes as people say them."""

from __future__ import annotations

GIB = 1 << 30

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def size_text(count: float) -> str:
    """A number of bytes, three digits of it: "11.3 MiB"."""
    step = 0
    while abs(count) >= 1024 and step < len(_UNITS) - 1:
        count, step = count / 1024, step + 1
    return f"{count:.0f} {_UNITS[0]}" if step == 0 else f"{count:.3g} {_UNITS[step]}"
