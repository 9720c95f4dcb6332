"""ggml's quantization kernels, called where they are already compiled.

The shared object of xllamacpp exports ggml's C functions; ctypes releases the GIL while one of them runs, so threads of
Python work in parallel. Should a later wheel hide the symbols, the library of llama-cpp-python is used where that is
installed; `library()` says which one is in use.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES
from gguf.constants import GGMLQuantizationType as Type

from studio.errors import EspalierError, UnsupportedError

Floats = npt.NDArray[np.float32]
Raw = npt.NDArray[np.uint8]

_PLACES = (("xllamacpp", "", "xllamacpp*"), ("llama_cpp", "lib", "*ggml-base*"))
"""(package, folder in it, file name) of the libraries that may hold the kernels, the preferred one first."""

_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "ggml_quantize_init": (None, [ctypes.c_int]),
    "ggml_quantize_requires_imatrix": (ctypes.c_bool, [ctypes.c_int]),
    "ggml_quantize_chunk": (
        ctypes.c_size_t,
        [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p],
    ),
    "ggml_row_size": (ctypes.c_size_t, [ctypes.c_int, ctypes.c_int64]),
    "ggml_get_type_traits": (ctypes.c_void_p, [ctypes.c_int]),
    "ggml_validate_row_data": (ctypes.c_bool, [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]),
    "ggml_fp16_to_fp32_row": (None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]),
    "ggml_bf16_to_fp32_row": (None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]),
    "ggml_version": (ctypes.c_char_p, []),
    "ggml_commit": (ctypes.c_char_p, []),
}
_PATTERNS: dict[Type, tuple[type[np.unsignedinteger[Any]], int]] = {
    Type.F32: (np.uint32, 0x7F800000),
    Type.F16: (np.uint16, 0x7C00),
    Type.BF16: (np.uint16, 0x7F80),
}
"""Of each float type: the integer of its width, and the bits of infinity; NaN lies above, without its sign."""

FLOAT_TYPES = frozenset(_PATTERNS)
"""Types that can be quantized from without losing more than once."""


class _Traits(ctypes.Structure):
    """`ggml_type_traits` of ggml.h."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("from_float_ref", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class Library:
    """The ggml in use."""

    package: str
    path: Path
    version: str
    commit: str


def library() -> Library:
    """Which ggml quantizes here; `EspalierError` when there is none."""
    package, path, functions = _load()
    return Library(package, path, functions.ggml_version().decode(), functions.ggml_commit().decode())


def versions() -> dict[str, str]:
    """The versions of that library, for a manifest: of its package and of ggml, with the commit where it is known."""
    found = library()
    name = {"xllamacpp": "xllamacpp", "llama_cpp": "llama-cpp-python"}[found.package]
    commit = f" ({found.commit})" if found.commit not in ("", "unknown") else ""
    return {name: version(name), "ggml": f"{found.version}{commit}"}


def computes_on_gpu() -> bool:
    """Whether the llama.cpp in the library was built for a graphics card."""
    supports = getattr(_functions(), "llama_supports_gpu_offload", None)
    if supports is None:
        return False
    supports.restype, supports.argtypes = ctypes.c_bool, []
    return bool(supports())


def quantize_init(kind: Type) -> None:
    """Build the tables that `kind` needs; before several threads ask for it at once."""
    _functions().ggml_quantize_init(kind)


def quantize_chunk(kind: Type, rows: Floats, *, importance: Floats | None = None, out: Raw | None = None) -> Raw:
    """`rows` [R, C] as `kind`: raw bytes [R, bytes of a row], written to `out` where that is given.

    `importance` [C] weighs the columns. Every row is quantized by itself, so rows may be cut into chunks anywhere.
    Raises `UnsupportedError` where C is not a whole number of blocks, or `kind` cannot do without `importance`.
    """
    count, columns = rows.shape
    size = row_bytes(kind, columns)
    functions = _functions()
    if importance is None and functions.ggml_quantize_requires_imatrix(kind):
        raise UnsupportedError(f"{kind.name} cannot be made without an importance matrix.", "Choose another tier.")
    if importance is not None and importance.shape != (columns,):
        raise ValueError(f"an importance of shape {importance.shape} for rows of {columns}")
    if out is None:
        out = np.empty((count, size), dtype=np.uint8)
    assert rows.dtype == np.float32 and rows.flags.c_contiguous
    assert out.flags.c_contiguous and out.nbytes == count * size
    weights = None if importance is None else importance.ctypes.data
    functions.ggml_quantize_chunk(kind, rows.ctypes.data, out.ctypes.data, 0, count, columns, weights)
    return out


def to_float(kind: Type, raw: Raw, out: Floats) -> None:
    """The values of `raw` as float32 in `out` (as many as `out` holds), as llama.cpp reads them."""
    assert raw.flags.c_contiguous and out.flags.c_contiguous and raw.nbytes == row_bytes(kind, out.size)
    if kind is Type.F32:
        out.reshape(-1)[:] = raw.view(np.float32)
    elif kind is Type.F16:
        _functions().ggml_fp16_to_fp32_row(raw.ctypes.data, out.ctypes.data, out.size)
    elif kind is Type.BF16:
        _functions().ggml_bf16_to_fp32_row(raw.ctypes.data, out.ctypes.data, out.size)
    else:
        _traits(kind).to_float(raw.ctypes.data, out.ctypes.data, out.size)


def can_dequantize(kind: Type) -> bool:
    """Whether `to_float` knows `kind`."""
    if kind is Type.F32:
        return True
    traits = _traits(kind)
    # A guard against another layout of the structure; gguf-py's sizes are wrong for types of intermediate results.
    return bool(traits.to_float) and (traits.blck_size, traits.type_size) == GGML_QUANT_SIZES[kind]


def is_finite(kind: Type, raw: Raw) -> bool:
    """Whether `raw` has neither NaN nor infinity in it: in its values, or in the scales of its blocks."""
    if kind not in _PATTERNS:
        return bool(_functions().ggml_validate_row_data(kind, raw.ctypes.data, raw.nbytes))
    unsigned, infinity = _PATTERNS[kind]
    bits = raw.view(unsigned)
    without_sign = unsigned(np.iinfo(unsigned).max >> 1)
    return bits.size == 0 or int((bits & without_sign).max()) < infinity


def zero_nonfinite(kind: Type, raw: Raw) -> None:
    """Make zeros of NaN and infinity in `raw`, which is of one of `FLOAT_TYPES`."""
    unsigned, infinity = _PATTERNS[kind]
    bits = raw.view(unsigned)
    bits[(bits & unsigned(np.iinfo(unsigned).max >> 1)) >= infinity] = 0


def row_bytes(kind: Type, columns: int) -> int:
    """Bytes of a row of `columns` values; `UnsupportedError` where they are not whole blocks."""
    block, size = GGML_QUANT_SIZES[kind]
    if columns % block:
        raise UnsupportedError(f"A row of {columns} values is not a whole number of {kind.name} blocks of {block}.")
    return columns // block * size


def _functions() -> ctypes.CDLL:
    return _load()[2]


@cache
def _traits(kind: Type) -> Any:
    return ctypes.cast(_functions().ggml_get_type_traits(kind), ctypes.POINTER(_Traits)).contents


@cache
def _load() -> tuple[str, Path, ctypes.CDLL]:
    """(package, file, functions) of the first library that has them all."""
    tried: list[str] = []
    for package, path in _candidates():
        try:
            functions = ctypes.CDLL(str(path))
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(functions, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            tried.append(f"{path}: {error}")
        else:
            return package, path, functions
    raise EspalierError(
        "No library with ggml's quantization functions was found" + (f" ({'; '.join(tried)})." if tried else "."),
        "Install the xllamacpp of requirements.txt.",
    )


def _candidates() -> Iterator[tuple[str, Path]]:
    for package, folder, pattern in _PLACES:
        spec = importlib.util.find_spec(package)
        for location in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(location, folder).glob(pattern)):
                if path.suffix in (".so", ".dylib", ".pyd", ".dll"):
                    yield package, path
