"""The weights of a Llama model in a GGUF file, under the names of Hugging Face's checkpoints."""

from collections.abc import Iterator
from typing import Any

import gguf
import numpy as np

_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def dequantised(
    reader: gguf.GGUFReader, heads: int, kv_heads: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of the file in float32 with its name in a checkpoint.

    Args:
        reader: of a Llama model whose output projection is the embedding table.
        heads: number of query heads.
        kv_heads: number of key and value heads.

    Raises:
        KeyError: the file holds a tensor that such a model does not have.
    """
    rotated = {"attn_q": heads, "attn_k": kv_heads}
    for tensor in reader.tensors:
        values = dequantise(tensor)
        kind = tensor.name.removesuffix(".weight").split(".")[-1]
        if kind in rotated:
            values = half_split(values, rotated[kind])
        yield checkpoint_name(tensor.name), np.array(values)  # a copy: the file is read-only


def dequantise(tensor: Any) -> np.ndarray:
    """A tensor's values in float32, in the file's order."""
    return gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)


def checkpoint_name(name: str) -> str:
    """A tensor's name in a checkpoint."""
    parts = name.removesuffix(".weight").split(".")
    if parts[0] == "blk":
        _, layer, kind = parts
        return f"model.layers.{layer}.{_LAYER[kind]}.weight"
    return f"{_OUTSIDE[parts[0]]}.weight"


def half_split(projection: np.ndarray, heads: int) -> np.ndarray:
    """Order the rows of a query or key projection as Hugging Face rotates them.

    Rotary embedding turns pairs of a head's dimensions. GGUF stores the two of a pair side by side,
    a checkpoint in the two halves of the head.
    """
    pairs = projection.reshape(heads, -1, 2, projection.shape[-1])
    return pairs.swapaxes(1, 2).reshape(projection.shape)
