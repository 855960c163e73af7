"""Tiny random models of many architectures, in float32, for tests against Hugging Face."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

VOCAB_SIZE = 256
EOS, THINK, THINK_END = 1, 2, 3
"""Token ids; the others are w4 to w255."""

_SMALL: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": None,
    "eos_token_id": EOS,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "mistral": {"sliding_window": None},
    "gemma2": {
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "hidden_act": "gelu_pytorch_tanh",
        "sliding_window": 512,
        "tie_word_embeddings": True,
    },
    "granite": {
        "embedding_multiplier": 3.0,
        "logits_scaling": 2.0,
        "residual_multiplier": 0.7,
        "attention_multiplier": 0.25,
    },
}
"""What each architecture needs beside the common sizes."""

_SEEDS = {"llama": 5, "mistral": 5, "qwen2": 16, "qwen3": 6, "gemma2": 10, "granite": 2}
"""Chosen so that no decision in the tests' trajectories is a near tie."""


def create(architecture: str, folder: Path) -> str:
    """Save a random model to ``folder`` and return its path; its tokenizer is beside it."""
    torch.manual_seed(_SEEDS[architecture])
    config = AutoConfig.for_model(architecture, **{**_SMALL, **ARCHITECTURES[architecture]})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=_embedding_std(config) if "embed" in name else 0.12)
    model.save_pretrained(folder)
    # a folder of its own: transformers picks another tokenizer class for some architectures
    tokenizer().save_pretrained(tokenizer_path(str(folder)))
    AutoConfig.for_model("llama", **_SMALL).save_pretrained(tokenizer_path(str(folder)))
    return str(folder)


def tokenizer_path(folder: str) -> str:
    """Where the tokenizer of a model is."""
    return f"{folder}/tokenizer"


def _embedding_std(config: Any) -> float:
    """Small where the head is tied, or the model would only repeat its input."""
    return 0.05 if config.tie_word_embeddings else 0.25


def tokenizer() -> PreTrainedTokenizerFast:
    """Words w4 to w255 separated by spaces, and the special tokens."""
    words = ["<pad>", "<eos>", "<think>", "</think>"]
    words += [f"w{i}" for i in range(len(words), VOCAB_SIZE)]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>")
    fast.chat_template = (
        "{% for m in messages %}{{ m['content'] }} {% endfor %}"
        "{% if add_generation_prompt %}<think>{% endif %}"
    )
    return fast
