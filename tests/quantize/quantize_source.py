"""A small Gemma 4 MoE as a BF16 GGUF, the same bytes on every machine.

Weights come from the raw output of PCG64 (which numpy never changes) by exact arithmetic. Imports nothing of Espalier,
so that the recorder of tests/oracle_recorder can build the same file.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

LAYERS, EXPERTS, TOP_K = 8, 6, 2
HIDDEN, EXPERT_SIZE, DENSE_SIZE = 256, 32, 256  # rows of 32 are no whole K-quant block, as 704 is not
HEADS, KEY_HEADS, HEAD_SIZE = 4, 1, 64
VOCABULARY = 2100  # more values than Espalier converts at once
ROWS = 32  # of all other matrices, fewer than the sizes above ask for: types depend on columns only

BF16 = gguf.GGMLQuantizationType.BF16
F32 = gguf.GGMLQuantizationType.F32


class Weights:
    """Numbers that look like weights: a sum of four bytes is nearly normal."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.PCG64(seed)

    def float32(self, *shape: int) -> npt.NDArray[np.float32]:
        """Of about unit size divided by 16, with a few outliers and some rows of zeros."""
        count = int(np.prod(shape))
        raw = self._generator.random_raw(-(-count // 2)).astype("<u8").view(np.uint8).reshape(-1, 4)[:count]
        values = (raw.sum(axis=1, dtype=np.int64) - 510).astype(np.float32) / np.float32(4096)
        values[::997] *= np.float32(8)
        values = values.reshape(shape)
        if len(shape) > 1:
            values[..., 3::16, : shape[-1] // 2] = 0
        return values

    def bf16(self, *shape: int) -> npt.NDArray[np.uint8]:
        """The bytes of BF16 weights: float32 with the lower half cut off."""
        halves = (self.float32(*shape).view(np.uint32) >> 16).astype("<u2")
        return halves.view(np.uint8)


def build_source(path: Path) -> Path:
    """Write the model to `path`."""
    writer = gguf.GGUFWriter(path, "gemma4")
    _write_keys(writer)
    weights = Weights(seed=7)

    def matrix(name: str, *shape: int) -> None:
        writer.add_tensor(name, weights.bf16(*shape), raw_dtype=BF16)

    def vector(name: str, *shape: int) -> None:
        writer.add_tensor(name, weights.float32(*shape), raw_dtype=F32)

    matrix("token_embd.weight", VOCABULARY, HIDDEN)
    vector("output_norm.weight", HIDDEN)
    vector("rope_freqs.weight", HEAD_SIZE // 2)
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        vector(block + "attn_norm.weight", HIDDEN)
        matrix(block + "attn_q.weight", 2 * ROWS, HIDDEN)
        matrix(block + "attn_k.weight", ROWS, HIDDEN)
        if layer % 6 != 5:  # full layers take the keys for values
            matrix(block + "attn_v.weight", ROWS, HIDDEN)
        matrix(block + "attn_output.weight", ROWS, HEADS * HEAD_SIZE)
        vector(block + "ffn_norm.weight", HIDDEN)
        matrix(block + "ffn_gate.weight", ROWS, HIDDEN)
        matrix(block + "ffn_up.weight", ROWS, HIDDEN)
        matrix(block + "ffn_down.weight", ROWS, DENSE_SIZE)
        vector(block + "ffn_gate_inp.weight", EXPERTS, HIDDEN)
        vector(block + "ffn_gate_inp.scale", HIDDEN)
        matrix(block + "ffn_gate_up_exps.weight", EXPERTS, ROWS // 2, HIDDEN)
        matrix(block + "ffn_down_exps.weight", EXPERTS, ROWS, EXPERT_SIZE)
        vector(block + "ffn_down_exps.scale", EXPERTS)
        vector(block + "layer_output_scale.weight", 1)
    matrix("blk.0.odd.weight", 6, 80)  # rows that no block type fits
    writer.add_tensor("blk.1.half.weight", weights.float32(4, HIDDEN).astype(np.float16))
    vector("blk.1.full.weight", 4, HIDDEN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_keys(writer: gguf.GGUFWriter) -> None:
    writer.add_name("Tiny Gemma 4")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_quantization_version(2)
    writer.add_context_length(4096)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(DENSE_SIZE)
    writer.add_expert_feed_forward_length(EXPERT_SIZE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv([KEY_HEADS] * LAYERS)
    writer.add_key_length(HEAD_SIZE)
    writer.add_value_length(HEAD_SIZE)
    writer.add_uint32("gemma4.attention.key_length_swa", HEAD_SIZE)
    writer.add_uint32("gemma4.attention.value_length_swa", HEAD_SIZE)
    writer.add_uint32("gemma4.embedding_length_per_layer_input", 0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_sliding_window(1024)
    writer.add_array("gemma4.attention.sliding_window_pattern", [layer % 6 != 5 for layer in range(LAYERS)])
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(TOP_K)
    writer.add_vocab_size(VOCABULARY)
