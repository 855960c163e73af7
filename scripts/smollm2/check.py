"""Checks a prepared SmolLM2 folder against the GGUF file that it was made of."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from weights import checkpoint_name

_WORDS, _WORD_TOKENS = "The capital of France", ["The", "Ġcapital", "Ġof", "ĠFrance"]
_PROMPT = "1 2 3 4 5 6 7 8 9 10"
_CONTINUATION = " 11 12 13"
"""Wants every head's positions: with a wrong rotary order the model does not count on."""
_QUESTION = "What is gravity? Answer in one sentence."


def check(directory: Path, source: Path) -> str:
    """Compare the tensors, the ids and the model's answers.

    Returns:
        The model's greedy answer to a question, for the reader to judge.

    Raises:
        ValueError: something differs.
    """
    reader = gguf.GGUFReader(source)
    checkpoint = load_file(directory / "model.safetensors")
    _check_weights(reader, checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    _check_ids(tokenizer, reader.fields["tokenizer.ggml.tokens"].contents())
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    continuation = _greedy(model, tokenizer, tokenizer(_PROMPT).input_ids, tokens=9)
    _expect(
        continuation.startswith(_CONTINUATION), f"{_PROMPT!r} is continued with {continuation!r}"
    )
    question = [{"role": "user", "content": _QUESTION}]
    ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False)
    return f"{_QUESTION} {_greedy(model, tokenizer, ids, tokens=60)}"


def _check_weights(reader: gguf.GGUFReader, checkpoint: dict[str, torch.Tensor]) -> None:
    """Each tensor's rows, dequantised here from the file's bytes, up to the order within a head."""
    _expect(len(reader.tensors) == len(checkpoint), "tensors are missing")
    for tensor in reader.tensors:
        expected = _from_bytes(tensor)
        found = checkpoint[checkpoint_name(tensor.name)].numpy()
        if "attn_q" in tensor.name or "attn_k" in tensor.name:
            head = reader.fields["llama.rope.dimension_count"].contents()
            # row i of a head is the first or the second of pair i modulo half
            order = np.arange(head).reshape(-1, 2).T.reshape(-1)
            expected = expected.reshape(-1, head, expected.shape[-1])[:, order].reshape(found.shape)
        _expect(np.array_equal(expected, found), f"{tensor.name} differs")


def _from_bytes(tensor: Any) -> np.ndarray:
    """Dequantise by the format's definition, not by a library."""
    kind = tensor.tensor_type
    shape = tuple(reversed(tensor.shape.tolist()))
    if kind == gguf.GGMLQuantizationType.F32:
        return tensor.data.view(np.float32).reshape(shape)
    blocks = tensor.data.view(np.uint8).reshape(-1, {"Q8_0": 34, "Q4_1": 20}[kind.name])
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    if kind == gguf.GGMLQuantizationType.Q8_0:
        return (scale * blocks[:, 2:].view(np.int8).astype(np.float32)).reshape(shape)
    minimum = blocks[:, 2:4].copy().view(np.float16).astype(np.float32)
    packed = blocks[:, 4:]
    nibbles = np.concatenate([packed & 15, packed >> 4], axis=1)
    return (scale * nibbles.astype(np.float32) + minimum).reshape(shape)


def _check_ids(tokenizer: Any, tokens: list[str]) -> None:
    """Every id has its token, words are merged, and text survives a round trip."""
    _expect(tokenizer.convert_ids_to_tokens(range(len(tokens))) == tokens, "ids differ")
    _expect(tokenizer.encode(_WORDS) == list(map(tokens.index, _WORD_TOKENS)), "merges differ")
    text = "Zoë's 1234 naïve   cafés,\n\tif x <= 3: return '√2 → 🙂'<|im_end|>"
    _expect(tokenizer.decode(tokenizer.encode(text)) == text, "text does not survive a round trip")


def _greedy(model: Any, tokenizer: Any, ids: list[int], tokens: int) -> str:
    prompt = torch.tensor([ids])
    with torch.inference_mode():
        output = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=tokens,
            do_sample=False,
        )
    text: str = tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)
    return text


def _expect(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(f"The prepared model does not match its source: {problem}.")
