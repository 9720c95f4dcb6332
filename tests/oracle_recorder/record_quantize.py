"""Record what llama.cpp's own quantizer does, for the tests of studio/quantize.

    python3.11 -m venv /tmp/oracle && /tmp/oracle/bin/pip install llama-cpp-python==0.3.36 gguf==0.19.0
    /tmp/oracle/bin/python tests/oracle_recorder/record_quantize.py [--gemma-types TIER-TYPES.json]

llama-cpp-python is built from source (minutes) and is needed only here. Written to tests/quantize/data:

- `digests.json`: for every tier that does without an importance matrix, what `llama_model_quantize` makes of the model
  of tests/quantize/quantize_source.py: sha256 of the file, and of each tensor its type and the first digits of sha256.
  Recorded on x86-64, where ggml is compiled without fused multiply-add; elsewhere K-quants may round otherwise.
- `types.json`: the types that llama.cpp chooses for models of other architectures (`llama_quant_compute_types`, whose
  tensors need no weights), as index strings: one letter per tensor.
- `gemma4_types.json`: with --gemma-types, the types it chooses for Gemma 4 26B-A4B with and without an importance
  matrix, from a list of that shape: {"tensors": [[name, shape, type], …], "with_imatrix": {tier: {"types": […],
  "size_mib": …}}, "without_imatrix": …}; written again in the compact form of `types.json`.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import string
import sys
import tempfile
from pathlib import Path
from typing import Any

import gguf
import llama_cpp

HERE = Path(__file__).parent
DATA = HERE.parent / "quantize" / "data"
sys.path.insert(0, str(HERE.parent / "quantize"))

from quantize_models import MODELS, Mock  # noqa: E402
from quantize_source import build_source  # noqa: E402

LETTERS = string.ascii_letters
NEED_IMATRIX = ("IQ3_XS", "IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "Q2_K_S")
LARGE = {"Q6_K_L": "Q6_K", "Q5_K_L": "Q5_K_M", "Q4_K_L": "Q4_K_M", "Q3_K_XL": "Q3_K_L", "Q2_K_L": "Q2_K"}
NOT_OFFERED = ("NVFP4", "Q1_0")


def file_types() -> dict[str, int]:
    """Name → value of llama.cpp's file types."""
    prefix = "MOSTLY_"
    known = {kind.name.removeprefix(prefix): int(kind) for kind in gguf.LlamaFileType if kind.name.startswith(prefix)}
    return {name: code for name, code in known.items() if name not in NOT_OFFERED}


def quantize(source: Path, out: Path, file_type: int, *, large: bool) -> None:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = file_type, 2
    if large:
        params.token_embedding_type = params.output_tensor_type = int(gguf.GGMLQuantizationType.Q8_0)
    if llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params)):
        raise SystemExit(f"llama.cpp could not make {out.name}")


def digests() -> dict[str, Any]:
    tiers = {name: (code, False) for name, code in file_types().items() if name not in NEED_IMATRIX}
    tiers |= {name: (file_types()[mix], True) for name, mix in LARGE.items()}
    with tempfile.TemporaryDirectory() as folder:
        source = build_source(Path(folder, "source.gguf"))
        recorded: dict[str, Any] = {"source": sha256(source.read_bytes()), "files": {}, "tensors": {}}
        types: dict[str, list[str]] = {}
        for tier, (file_type, large) in sorted(tiers.items()):
            out = Path(folder, f"{tier}.gguf")
            quantize(source, out, file_type, large=large)
            reader = gguf.GGUFReader(out)
            recorded["files"][tier] = sha256(out.read_bytes())
            recorded["names"] = [one.name for one in reader.tensors]  # the same for all tiers
            recorded["tensors"][tier] = " ".join(sha256(one.data.tobytes())[:8] for one in reader.tensors)
            types[tier] = [one.tensor_type.name for one in reader.tensors]
            out.unlink()
    return recorded | {"types": compact(types)}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Description(ctypes.Structure):
    """`llama_quant_model_desc` of src/llama-ext.h."""

    _fields_ = (
        ("architecture", ctypes.c_char_p),
        *[(name, ctypes.c_uint32) for name in ("n_embd", "n_ff", "n_layer", "n_head", "n_head_kv", "n_expert")],
        *[(name, ctypes.c_uint32) for name in ("n_embd_head_k", "n_embd_head_v")],
    )


COMPUTE_TYPES = "_Z25llama_quant_compute_typesP19quantize_state_impl11llama_ftypePP11ggml_tensorP9ggml_typem"


class Chooser:
    """llama.cpp's choice of types for models that consist of names and shapes."""

    def __init__(self) -> None:
        folder = Path(llama_cpp.__file__).parent / "lib"
        self._ggml = ctypes.CDLL(str(next(folder.glob("libggml-base.so"))))
        llama = ctypes.CDLL(str(next(folder.glob("libllama.so"))))
        self._model = self._function(llama, "_Z31llama_quant_model_from_metadataPK22llama_quant_model_desc", 1)
        self._start = self._function(llama, "_Z16llama_quant_initPK11llama_modelPK27llama_model_quantize_params", 2)
        self._allows = llama["_Z38llama_quant_tensor_allows_quantizationPK19quantize_state_implPK11ggml_tensor"]
        self._allows.restype, self._allows.argtypes = ctypes.c_bool, [ctypes.c_void_p] * 2
        self._compute = llama[
            "_Z25llama_quant_compute_typesP19quantize_state_impl11llama_ftypePP11ggml_tensorP9ggml_typem"
        ]
        self._compute.restype = None
        self._compute.argtypes = [ctypes.c_void_p, ctypes.c_int, *[ctypes.c_void_p] * 2, ctypes.c_size_t]
        self._ggml.ggml_init.restype = ctypes.c_void_p
        self._ggml.ggml_init.argtypes = [Memory]
        self._ggml.ggml_free.argtypes = [ctypes.c_void_p]
        self._ggml.ggml_new_tensor.restype = ctypes.c_void_p
        self._ggml.ggml_new_tensor.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
        self._ggml.ggml_set_name.restype = ctypes.c_void_p
        self._ggml.ggml_set_name.argtypes = [ctypes.c_void_p, ctypes.c_char_p]

    @staticmethod
    def _function(library: ctypes.CDLL, name: str, arguments: int) -> Any:
        function = library[name]
        function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_void_p] * arguments
        return function

    def types(self, mock: Mock, file_types: dict[str, int]) -> dict[str, list[str]]:
        """Tier → type of every tensor of `mock`, in the order given; BF16 for what stays as it is."""
        description = Description(
            mock.architecture.encode(), 256, 256, mock.layers, mock.heads, mock.key_heads, mock.experts, 64, 64
        )
        params = llama_cpp.llama_model_quantize_default_params()
        state = self._start(self._model(ctypes.addressof(description)), ctypes.addressof(params))
        context = self._ggml.ggml_init(Memory(1 << 24, None, True))
        tensors = [self._tensor(context, name, shape) for name, shape in mock.tensors]
        allowed = [self._allows(state, tensor) for tensor in tensors]
        chosen = [tensor for tensor, yes in zip(tensors, allowed, strict=True) if yes]
        pointers = (ctypes.c_void_p * len(chosen))(*chosen)
        results = (ctypes.c_int * len(chosen))()
        types: dict[str, list[str]] = {}
        for name, code in file_types.items():
            self._compute(state, code, pointers, results, len(chosen))
            answers = iter(results)
            types[name] = [gguf.GGMLQuantizationType(next(answers)).name if yes else "BF16" for yes in allowed]
        self._ggml.ggml_free(context)
        return types

    def _tensor(self, context: int, name: str, shape: tuple[int, ...]) -> int:
        sizes = (ctypes.c_int64 * len(shape))(*shape)
        kind = int(gguf.GGMLQuantizationType.BF16)
        tensor: int = self._ggml.ggml_new_tensor(context, kind, len(shape), ctypes.addressof(sizes))
        self._ggml.ggml_set_name(tensor, name.encode())
        return tensor


class Memory(ctypes.Structure):
    """`ggml_init_params`."""

    _fields_ = (("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


def compact(types: dict[str, list[str]]) -> dict[str, Any]:
    """Tier → one letter per tensor, with the letters' meaning."""
    names = sorted({kind for kinds in types.values() for kind in kinds})
    letter = dict(zip(names, LETTERS, strict=False))
    return {
        "letters": {value: key for key, value in letter.items()},
        "tiers": {tier: "".join(letter[kind] for kind in kinds) for tier, kinds in types.items()},
    }


def gemma(path: Path) -> dict[str, Any]:
    given = json.loads(path.read_text())
    offered = file_types()
    recorded: dict[str, Any] = {"tensors": given["tensors"]}
    for key in ("with_imatrix", "without_imatrix"):
        tiers = {tier: entry for tier, entry in given[key].items() if tier in offered}
        upper = {tier: [kind.upper() for kind in entry["types"]] for tier, entry in tiers.items()}
        recorded[key] = compact(upper) | {"size_mib": {tier: entry["size_mib"] for tier, entry in tiers.items()}}
    return recorded


def save(name: str, content: Any) -> None:
    (DATA / name).write_text(json.dumps(content, indent=None, separators=(",", ":")) + "\n")
    print("wrote", DATA / name)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--gemma-types", type=Path)
    chosen = arguments.parse_args()
    DATA.mkdir(exist_ok=True)
    if chosen.gemma_types:
        save("gemma4_types.json", gemma(chosen.gemma_types))
    chooser = Chooser()
    save("types.json", {name: compact(chooser.types(mock, file_types())) for name, mock in MODELS.items()})
    save("digests.json", digests())


if __name__ == "__main__":
    main()
