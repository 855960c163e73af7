"""Tiny random models of many architectures, in float32, for tests against Hugging Face."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

VOCAB_SIZE = 256
EOS, THINK, THINK_END = 1, 2, 3
"""Token ids; the others are w4 to w255."""

SMALL: dict[str, Any] = {
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

WINDOW = 16
"""Of sliding-window attention: shorter than every tested sequence."""


@dataclass(frozen=True)
class Architecture:
    """A tiny model, and how to run it."""

    model_type: str
    """Of transformers."""
    seed: int
    """Chosen so that no decision in the tests' trajectories is a near tie."""
    kind: str = "dense"
    special: str = ""
    """What concepts could get wrong here, for the table of the documentation."""
    config: dict[str, Any] = field(default_factory=dict)
    """What it needs beside the common sizes."""
    engine: dict[str, Any] = field(default_factory=dict)
    """Arguments of the engine."""
    environment: dict[str, str] | None = None
    """Of the engine's processes."""
    embedding_std: float = 0.25
    """Smaller where the head is tied, or the model would only repeat its input."""
    layer_std: float = 0.12


_ALL_HEADS = {"num_key_value_heads": 4}
_EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
_LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_SCALES = {
    "embedding_multiplier": 3.0,
    "logits_scaling": 2.0,
    "residual_multiplier": 0.7,
    "attention_multiplier": 0.25,
}
_GEMMA = {
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
}
_WINDOWED = {
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention"],
}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_ROPE_OF_LAYERS = {**_ROPE, "full_attention": _ROPE, "sliding_attention": _ROPE}
"""By kind of layer since Transformers 5.19; SGLang looks for OLMo 3's beside them, and takes
10000 if nothing is there."""
_MLA = {
    **_ALL_HEADS,
    "head_dim": 16,
    "kv_lora_rank": 32,
    "q_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "n_group": 1,
    "topk_group": 1,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
}
_YARN = {
    "rope_type": "yarn",
    "factor": 2.0,
    "original_max_position_embeddings": 512,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 0.707,
    "mscale_all_dim": 0.707,
}
_TRANSFORMERS = {"model_impl": "transformers"}

SIBLINGS = {
    *("qwen2", "mistral", "phi3", "stablelm", "glm4", "gemma", "gemma2"),
    *("olmoe", "granite-moe", "smollm3"),
    *("qwen3", "qwen3-moe"),
}
"""Architectures that concepts enter as they enter another one: ``make test-slow`` tests them."""

EXTERNAL_MODELS = {"SGLANG_EXTERNAL_MODEL_PACKAGE": "external_models"}
"""Environment in which an engine's processes load that package."""

ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture("llama", 5),
    "qwen2": Architecture("qwen2", 16),
    "qwen3": Architecture("qwen3", 6, config={"head_dim": 16}),
    "mistral": Architecture("mistral", 5, config={"sliding_window": None}),
    "phi": Architecture(
        "phi",
        27,
        special="its getter takes ids and returns embeddings",
        config=_ALL_HEADS,
    ),
    "phi3": Architecture("phi3", 7),
    "glm4": Architecture("glm4", 12, config={"head_dim": 16}, embedding_std=0.6),
    "stablelm": Architecture("stablelm", 3),
    "gpt2": Architecture(
        "gpt2",
        100,
        special="learned positions; no getter",
        config={**_ALL_HEADS, "n_inner": 96, "tie_word_embeddings": True},
        embedding_std=0.1,
        layer_std=0.2,
    ),
    "opt": Architecture(
        "opt",
        19,
        special="learned positions; a stale getter",
        config={
            **_ALL_HEADS,
            "ffn_dim": 96,
            "word_embed_proj_dim": 64,
            "tie_word_embeddings": True,
        },
        embedding_std=0.1,
        layer_std=0.2,
    ),
    "cohere2": Architecture(
        "cohere2",
        111,
        special="scaled logits",
        config={"sliding_window": 512, "logit_scale": 1.0, "tie_word_embeddings": True},
        embedding_std=0.06,
    ),
    "granite": Architecture("granite", 2, special="scaled embeddings", config=_SCALES),
    "gemma": Architecture(
        "gemma",
        12,
        special="scaled embeddings",
        # SGLang's class has the exact GELU only
        config={"head_dim": 16, "hidden_act": "gelu", "tie_word_embeddings": True},
        embedding_std=0.05,
        layer_std=0.15,
    ),
    "gemma2": Architecture(
        "gemma2",
        61,
        special="scaled embeddings; sliding window of 16",
        config={**_GEMMA, **_WINDOWED},
        embedding_std=0.06,
        layer_std=0.15,
    ),
    "gemma3": Architecture(
        "gemma3_text",
        13,
        special="embeddings scaled by their own module; sliding window of 16",
        config={**_GEMMA, **_WINDOWED},
        embedding_std=0.07,
        layer_std=0.2,
    ),
    "olmo3": Architecture(
        "olmo3",
        140,
        special="sliding window of 16",
        config={**_WINDOWED, "rope_parameters": _ROPE_OF_LAYERS},
        embedding_std=0.6,
    ),
    "mixtral": Architecture(
        "mixtral", 23, kind="MoE", config={**_LOCAL_EXPERTS, "sliding_window": None}
    ),
    "qwen3-moe": Architecture(
        "qwen3_moe",
        3,
        kind="MoE",
        config={**_EXPERTS, "head_dim": 16, "norm_topk_prob": True},
    ),
    "olmoe": Architecture("olmoe", 25, kind="MoE", config={**_EXPERTS, **_ALL_HEADS}),
    "granite-moe": Architecture(
        "granitemoe",
        62,
        kind="MoE",
        special="scaled embeddings",
        config={**_LOCAL_EXPERTS, **_SCALES},
    ),
    "deepseek-v3": Architecture(
        "deepseek_v3",
        5,
        kind="MLA, MoE",
        special="MLA in absorbed form, in the prefill too",
        config={**_MLA, "rope_scaling": _YARN},
        environment=EXTERNAL_MODELS,
        embedding_std=0.25,
        layer_std=0.1,
    ),
    "llama-transformers": Architecture(
        "llama", 7, special="Transformers backend, asked for", engine=_TRANSFORMERS
    ),
    "gemma3-transformers": Architecture(
        "gemma3_text",
        62,
        special="Transformers backend, asked for; embeddings scaled by their own module",
        config={**_GEMMA, **_WINDOWED, "sliding_window": 512},
        engine=_TRANSFORMERS,
        embedding_std=0.07,
        layer_std=0.2,
    ),
    "smollm3": Architecture("smollm3", 30, special="Transformers backend, as SGLang has no class"),
}
"""By name."""


def create(architecture: str, folder: Path) -> str:
    """Save a random model to ``folder`` and return its path; its tokenizer is beside it."""
    tiny = ARCHITECTURES[architecture]
    random_model(tiny, tiny.seed).save_pretrained(folder)
    # a folder of its own: transformers picks another tokenizer class for some architectures
    tokenizer().save_pretrained(tokenizer_path(str(folder)))
    AutoConfig.for_model("llama", **SMALL).save_pretrained(tokenizer_path(str(folder)))
    return str(folder)


def random_model(tiny: Architecture, seed: int) -> torch.nn.Module:
    """A model whose next tokens vary."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(tiny.model_type, **{**SMALL, **tiny.config})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    embedding = model.get_input_embeddings().weight
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(
                    std=tiny.embedding_std if parameter is embedding else tiny.layer_std
                )
    return model


def tokenizer_path(folder: str) -> str:
    """Where the tokenizer of a model is."""
    return f"{folder}/tokenizer"


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
