"""A tiny random Llama whose tokens spell text: the printable characters are tokens of their own.

For stop strings, grammars and whatever else reads the text. The tokens after them are the words w99
to w255, written without spaces.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from tiny_models import EOS, VOCAB_SIZE, tokenizer_path
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

_SPECIAL = ["<pad>", "<eos>", "<think>", "</think>"]
_CHARACTERS = [chr(code) for code in range(32, 127)]
_WORDS = [f"w{i}" for i in range(len(_SPECIAL + _CHARACTERS), VOCAB_SIZE)]
TOKENS = _SPECIAL + _CHARACTERS + _WORDS
"""By id."""

_SEED = 5
"""The requests of the tests are chosen for these weights."""


def create(folder: Path) -> str:
    """Save the model to ``folder`` and return its path; its tokenizer is beside it."""
    path = create_model(folder)
    tokenizer().save_pretrained(tokenizer_path(path))
    return path


def create_model(folder: Path, eos: int = EOS) -> str:
    """The model alone."""
    torch.manual_seed(_SEED)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.25 if "embed" in name else 0.12)
    model.save_pretrained(folder)
    return str(folder)


def tokenizer(tokens: Sequence[str] = TOKENS, eos: str = "<eos>") -> PreTrainedTokenizerFast:
    """One token per character, word or special token."""
    inner = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token="<pad>"))
    longest_first = sorted((re.escape(t) for t in tokens if len(t) > 1), key=len, reverse=True)
    one_token = Regex("|".join([*longest_first, r"[\s\S]"]))
    inner.pre_tokenizer = pre_tokenizers.Split(one_token, "isolated")
    # grammar libraries read from the decoder how tokens spell bytes
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=eos, pad_token="<pad>")
