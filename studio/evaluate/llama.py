"""llama.cpp's C functions that give the logits of a GGUF, in the shared object of xllamacpp, called through ctypes.

To be used in a child process only: a damaged file or too little memory can end the process. The structures are those of
llama.h in the source distribution of the very version that is pinned (sizes 80, 168 and 56 bytes on 64 bits); another
version may have others, so it is refused until someone has compared its header and added it to `KNOWN_BUILDS`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf.constants import GGMLQuantizationType

from studio.errors import EspalierError, InputError, UnsupportedError
from studio.quantize.fit import UBATCH
from studio.quantize.ggml import library
from studio.quantize.placement import Offload, expert_pattern

KNOWN_BUILDS = ("2026.10.11549",)
"""Versions of xllamacpp whose llama.h has been compared with the structures here."""
OUTPUT_BYTES = 64 << 20
"""Logits that are computed at a time take at most this much: 64 tokens of a vocabulary of 262,144."""

_FLASH_ATTENTION_OFF = 0  # LLAMA_FLASH_ATTN_TYPE_DISABLED

_pointer, _int32, _uint32, _float, _bool = (
    ctypes.c_void_p,
    ctypes.c_int32,
    ctypes.c_uint32,
    ctypes.c_float,
    ctypes.c_bool,
)


class BufferOverride(ctypes.Structure):
    """`llama_model_tensor_buft_override`: tensors whose names match go into another kind of memory."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", _pointer))


class ModelParams(ctypes.Structure):
    """`llama_model_params`."""

    _fields_ = (
        ("devices", _pointer),
        ("tensor_buft_overrides", ctypes.POINTER(BufferOverride)),
        ("n_gpu_layers", _int32),
        ("split_mode", _int32),
        ("load_mode", _int32),
        ("lazy_mode", _int32),
        ("main_gpu", _int32),
        ("tensor_split", _pointer),
        ("progress_callback", _pointer),
        ("progress_callback_user_data", _pointer),
        ("kv_overrides", _pointer),
        ("vocab_only", _bool),
        ("check_tensors", _bool),
        ("use_extra_bufts", _bool),
        ("no_host", _bool),
        ("no_alloc", _bool),
        ("load_mtp", _bool),
    )


class ContextParams(ctypes.Structure):
    """`llama_context_params`."""

    _fields_ = (
        ("n_ctx", _uint32),
        ("n_batch", _uint32),
        ("n_ubatch", _uint32),
        ("n_seq_max", _uint32),
        ("n_rs_seq", _uint32),
        ("n_outputs_max", _uint32),
        ("n_outputs_max_per_seq", _uint32),
        ("n_threads", _int32),
        ("n_threads_batch", _int32),
        ("ctx_type", _int32),
        ("rope_scaling_type", _int32),
        ("pooling_type", _int32),
        ("attention_type", _int32),
        ("flash_attn_type", _int32),
        ("rope_freq_base", _float),
        ("rope_freq_scale", _float),
        ("yarn_ext_factor", _float),
        ("yarn_attn_factor", _float),
        ("yarn_beta_fast", _float),
        ("yarn_beta_slow", _float),
        ("yarn_orig_ctx", _uint32),
        ("defrag_thold", _float),
        ("cb_eval", _pointer),
        ("cb_eval_user_data", _pointer),
        ("type_k", _int32),
        ("type_v", _int32),
        ("moe_cache_size", ctypes.c_size_t),
        ("abort_callback", _pointer),
        ("abort_callback_data", _pointer),
        ("embeddings", _bool),
        ("offload_kqv", _bool),
        ("no_perf", _bool),
        ("op_offload", _bool),
        ("swa_full", _bool),
        ("kv_unified", _bool),
        ("samplers", _pointer),
        ("n_samplers", ctypes.c_size_t),
        ("ctx_other", _pointer),
    )


class Batch(ctypes.Structure):
    """`llama_batch`; `logits` says for each token whether its logits are wanted."""

    _fields_ = (
        ("n_tokens", _int32),
        ("token", ctypes.POINTER(_int32)),
        ("embd", _pointer),
        ("pos", ctypes.POINTER(_int32)),
        ("n_seq_id", ctypes.POINTER(_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "llama_backend_init": (None, []),
    "llama_model_default_params": (ModelParams, []),
    "llama_context_default_params": (ContextParams, []),
    "llama_model_load_from_file": (_pointer, [ctypes.c_char_p, ModelParams]),
    "llama_init_from_model": (_pointer, [_pointer, ContextParams]),
    "llama_model_get_vocab": (_pointer, [_pointer]),
    "llama_vocab_n_tokens": (_int32, [_pointer]),
    "llama_vocab_get_add_bos": (_bool, [_pointer]),
    "llama_vocab_bos": (_int32, [_pointer]),
    "llama_vocab_eos": (_int32, [_pointer]),
    "llama_vocab_is_eog": (_bool, [_pointer, _int32]),
    "llama_vocab_get_text": (ctypes.c_char_p, [_pointer, _int32]),
    "llama_tokenize": (
        _int32,
        [_pointer, ctypes.c_char_p, _int32, ctypes.POINTER(_int32), _int32, _bool, _bool],
    ),
    "llama_batch_init": (Batch, [_int32, _int32, _int32]),
    "llama_decode": (_int32, [_pointer, Batch]),
    "llama_get_logits": (ctypes.POINTER(_float), [_pointer]),
    "llama_get_memory": (_pointer, [_pointer]),
    "llama_memory_clear": (None, [_pointer, _bool]),
    "llama_supports_gpu_offload": (_bool, []),
    "ggml_backend_cpu_buffer_type": (_pointer, []),
}


def bound() -> ctypes.CDLL:
    """The functions, with their signatures. Raises `UnsupportedError` for a build whose structures are not known."""
    found = library()
    installed = version("xllamacpp").partition("+")[0] if found.package == "xllamacpp" else found.package
    if installed not in KNOWN_BUILDS:
        raise UnsupportedError(
            f"Logits are read from xllamacpp {' or '.join(KNOWN_BUILDS)}, and {installed} is installed.",
            "Install the xllamacpp of requirements.txt.",
        )
    functions = ctypes.CDLL(str(found.path))
    try:
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(functions, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise EspalierError(f"xllamacpp lacks a function: {error}.", "Install that of requirements.txt.") from None
    _check_layout(functions)
    return functions


def rows_at_a_time(vocabulary: int) -> int:
    """Tokens whose logits are computed at a time: as many as `OUTPUT_BYTES` hold, at most a batch."""
    return max(1, min(UBATCH, OUTPUT_BYTES // (4 * vocabulary)))


class LlamaModel:
    """A GGUF that is open for sequences of up to `context` tokens, one after the other.

    With `wide`, keys and values are kept in f32 and attention is computed step by step: slower, and without the
    rounding of f16. Raises `InputError` when llama.cpp cannot load it; why stands in its log, on stderr.
    """

    def __init__(self, path: str, *, context: int, threads: int, offload: Offload, wide: bool) -> None:
        self._llama = llama = bound()
        llama.llama_backend_init()
        model_params = llama.llama_model_default_params()
        model_params.n_gpu_layers = -1 if offload.gpu_layers is None else offload.gpu_layers
        overrides = _overrides(llama, offload.cpu_moe_layers)
        model_params.tensor_buft_overrides = overrides
        self._model = llama.llama_model_load_from_file(path.encode(), model_params)
        if not self._model:
            raise InputError(f"llama.cpp cannot load {path}.")
        self._vocabulary = llama.llama_model_get_vocab(self._model)
        self.vocabulary = int(llama.llama_vocab_n_tokens(self._vocabulary))
        self._rows = rows_at_a_time(self.vocabulary)
        params = llama.llama_context_default_params()
        params.n_ctx = context
        params.n_batch = params.n_ubatch = UBATCH
        params.n_outputs_max = self._rows
        params.n_threads = params.n_threads_batch = threads
        params.swa_full = False  # as in llama.cpp's own tools
        if wide:
            params.type_k = params.type_v = GGMLQuantizationType.F32
            params.flash_attn_type = _FLASH_ATTENTION_OFF
        self._context = llama.llama_init_from_model(self._model, params)
        if not self._context:
            raise InputError(f"llama.cpp cannot open {path} for {context} tokens.")
        self._memory = llama.llama_get_memory(self._context)
        self._batch = llama.llama_batch_init(UBATCH, 0, 1)

    @property
    def special(self) -> dict[str, Any]:
        """How texts begin and end: `add_bos`, the number `bos`, and both texts `bos_token` and `eos_token`."""
        bos, eos = (getattr(self._llama, f"llama_vocab_{name}")(self._vocabulary) for name in ("bos", "eos"))
        return {
            "add_bos": bool(self._llama.llama_vocab_get_add_bos(self._vocabulary)),
            "bos": int(bos),
            "bos_token": self._text(bos),
            "eos_token": self._text(eos),
        }

    def tokens(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """`text` in tokens: with what the model puts around a text, with the names of control tokens read as such."""
        data = text.encode()
        room = len(data) + 2
        while True:
            tokens = (_int32 * room)()
            count = self._llama.llama_tokenize(
                self._vocabulary, data, len(data), tokens, room, add_special, parse_special
            )
            if count >= 0:
                return list(tokens[:count])
            room = -count

    def logits(self, tokens: Sequence[int], first: int) -> Iterator[npt.NDArray[np.float32]]:
        """The logits after each of `tokens` from number `first` on, in blocks `[R, V]` that last until the next one."""
        self._llama.llama_memory_clear(self._memory, True)
        position = 0
        while position < len(tokens):
            wanted = position >= first
            most = self._rows if wanted else min(UBATCH, first - position)
            piece = tokens[position : position + most]
            self._decode(piece, position, every=wanted)
            position += len(piece)
            if wanted:
                yield self._output(len(piece))

    def continued(self, tokens: Sequence[int], count: int) -> list[int]:
        """The `count` likeliest tokens one after the other, fewer where the model ends; its end is not among them."""
        for block in self.logits(tokens, len(tokens) - 1):
            last = block
        said: list[int] = []
        while len(said) < count:
            token = int(last[-1].argmax())
            if self._llama.llama_vocab_is_eog(self._vocabulary, token):
                break
            said.append(token)
            self._decode([token], len(tokens) + len(said) - 1, every=True)
            last = self._output(1)
        return said

    def _decode(self, tokens: Sequence[int], position: int, *, every: bool) -> None:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index] = token
            batch.pos[index] = position + index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = every
        if code := self._llama.llama_decode(self._context, batch):
            raise InputError(f"llama.cpp cannot compute tokens {position} to {position + len(tokens)}: error {code}.")

    def _output(self, rows: int) -> npt.NDArray[np.float32]:
        return np.ctypeslib.as_array(self._llama.llama_get_logits(self._context), shape=(rows, self.vocabulary))

    def _text(self, token: int) -> str:
        return self._llama.llama_vocab_get_text(self._vocabulary, token).decode() if token >= 0 else ""


def _overrides(llama: ctypes.CDLL, layers: int) -> Any:
    """What keeps the experts of the first `layers` in main memory, as `--n-cpu-moe` does; None for no layer."""
    if not layers:
        return None
    memory = llama.ggml_backend_cpu_buffer_type()
    entries = [BufferOverride(expert_pattern(layer).encode(), memory) for layer in range(layers)]
    return (BufferOverride * (layers + 1))(*entries, BufferOverride(None, None))


def _check_layout(llama: ctypes.CDLL) -> None:
    """Raise `EspalierError` unless the defaults come out as llama.cpp's source says: a guard against another layout."""
    context, model = llama.llama_context_default_params(), llama.llama_model_default_params()
    found = (
        *(context.n_ctx, context.n_batch, context.n_ubatch, context.n_outputs_max_per_seq, context.flash_attn_type),
        *(context.yarn_beta_slow, context.type_k, context.type_v, context.offload_kqv, context.swa_full),
        *(model.n_gpu_layers, model.split_mode, model.use_extra_bufts, model.load_mtp),
    )
    if found != (512, 2048, 512, 1, -1, -1.0, 1, 1, True, True, -1, 1, True, False):
        raise EspalierError(
            "The structures of this xllamacpp are not as expected.", "Install that of requirements.txt."
        )
