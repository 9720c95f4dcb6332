"""A small Qwen3 MoE as a BF16 GGUF, the same bytes on every machine; llama.cpp loads it.

Unlike the Gemma 4 of quantize_source.py it has separate gate and up projections, an output projection of its own, two
query heads per key head, and so few layers that none is in the first eighth. Imports nothing of Espalier.
"""

from __future__ import annotations

from pathlib import Path

import gguf

from tests.quantize.quantize_source import BF16, F32, Weights

LAYERS, EXPERTS, TOP_K = 6, 12, 3
HIDDEN, EXPERT_SIZE, HEADS, KEY_HEADS, HEAD_SIZE = 256, 32, 4, 2, 64
"""Rows of 32 are no whole blocks of 256."""
VOCABULARY = 320


def build_qwen3(path: Path) -> Path:
    """Write the model to `path`."""
    writer = gguf.GGUFWriter(path, "qwen3moe")
    _write_keys(writer)
    weights = Weights(seed=3)

    def matrix(name: str, *shape: int) -> None:
        writer.add_tensor(name, weights.bf16(*shape), raw_dtype=BF16)

    def vector(name: str, *shape: int) -> None:
        writer.add_tensor(name, weights.float32(*shape), raw_dtype=F32)

    matrix("token_embd.weight", VOCABULARY, HIDDEN)
    vector("output_norm.weight", HIDDEN)
    matrix("output.weight", VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        vector(block + "attn_norm.weight", HIDDEN)
        matrix(block + "attn_q.weight", HEADS * HEAD_SIZE, HIDDEN)
        matrix(block + "attn_k.weight", KEY_HEADS * HEAD_SIZE, HIDDEN)
        matrix(block + "attn_v.weight", KEY_HEADS * HEAD_SIZE, HIDDEN)
        matrix(block + "attn_output.weight", HIDDEN, HEADS * HEAD_SIZE)
        vector(block + "attn_q_norm.weight", HEAD_SIZE)
        vector(block + "attn_k_norm.weight", HEAD_SIZE)
        vector(block + "ffn_norm.weight", HIDDEN)
        vector(block + "ffn_gate_inp.weight", EXPERTS, HIDDEN)
        matrix(block + "ffn_gate_exps.weight", EXPERTS, EXPERT_SIZE, HIDDEN)
        matrix(block + "ffn_up_exps.weight", EXPERTS, EXPERT_SIZE, HIDDEN)
        matrix(block + "ffn_down_exps.weight", EXPERTS, HIDDEN, EXPERT_SIZE)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_keys(writer: gguf.GGUFWriter) -> None:
    writer.add_name("Tiny Qwen3 MoE")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_quantization_version(2)
    writer.add_context_length(1024)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_expert_feed_forward_length(EXPERT_SIZE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_key_length(HEAD_SIZE)
    writer.add_value_length(HEAD_SIZE)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(TOP_K)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("no_vocab")
