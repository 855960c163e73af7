"""The recipe of the shipped model, and its optimiser schedule."""

import math
from dataclasses import dataclass

from tokenizer import CONTEXT_LENGTH, END, PAD
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, apart from the data."""

    steps: int = 2200
    text_share: float = 0.42
    """Share of the steps, at the start, in which all thoughts are text."""
    practice_share: float = 0.4
    """Share of the conversations that practise a single operation."""
    batch_size: int = 64
    learning_rate: float = 1.5e-3
    final_rate: float = 0.02
    """Learning rate at the end, relative to the peak."""
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    bf16: bool = True
    """Run the forward pass under bfloat16 autocast (weights stay fp32)."""
    seed: int = 0

    @property
    def text_steps(self) -> int:
        return round(self.steps * self.text_share)

    def rate(self, step: int) -> float:
        """Learning-rate factor in (0, 1]: linear warm-up, then a cosine."""
        warmup = min(100, self.steps // 10 + 1)
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, self.steps - warmup)
        return self.final_rate + (1 - self.final_rate) * (1 + math.cos(math.pi * progress)) / 2


def model_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    """A Qwen3 of 1.8 M parameters; every count divides by two, for tensor parallelism."""
    pad, eos = tokenizer.convert_tokens_to_ids([PAD, END])
    return Qwen3Config(
        architectures=["Qwen3ForCausalLM"],
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=True,
        initializer_range=0.05,
        pad_token_id=pad,
        bos_token_id=None,
        eos_token_id=eos,
    )


def generation_config(tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    """The sampling defaults that the model is shipped with."""
    pad, eos = tokenizer.convert_tokens_to_ids([PAD, END])
    return GenerationConfig(
        do_sample=True,
        temperature=0.6,
        top_p=0.95,
        top_k=30,
        min_p=0.001,
        pad_token_id=pad,
        eos_token_id=eos,
    )
