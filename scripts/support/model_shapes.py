"""Model folders of realistic shape without weights, to measure speed where no checkpoint is.

SGLang fills them with random numbers (``--load-format dummy``). The tokenizer is the bundled
model's, its vocabulary filled up to the shape's, so that every id has a text.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from soft_sglang.bundled import MODEL_PATH

_QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "dtype": "bfloat16",
    "bos_token_id": None,
    "eos_token_id": 4,
    "pad_token_id": 0,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "head_dim": 128,
    "num_key_value_heads": 8,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-06,
    "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
    "sliding_window": None,
    "use_sliding_window": False,
    "use_cache": True,
    "transformers_version": "5.12.1",
    "vocab_size": 151936,
}


def _shape(hidden: int, inner: int, layers: int, heads: int, **other: Any) -> dict[str, Any]:
    return {
        **_QWEN3,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "tie_word_embeddings": False,
        **other,
    }


SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-0.6b": _shape(1024, 3072, 28, 16, tie_word_embeddings=True),
    "qwen3-8b": _shape(4096, 12288, 36, 32),
    "qwen3-32b": _shape(5120, 25600, 64, 64),
    "tiny": _shape(64, 128, 2, 4, num_key_value_heads=2, head_dim=16, dtype="float32"),
}
"""Configurations by name. ``tiny`` has the vocabulary of the others and runs on a CPU."""


def create(name: str, folder: Path) -> str:
    """Write the model folder of one of the shapes; its path."""
    config = SHAPES[name]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    source = Path(MODEL_PATH)
    for file in ("chat_template.jinja", "generation_config.json"):
        shutil.copy(source / file, folder)

    settings = json.loads((source / "tokenizer_config.json").read_text())
    settings["model_max_length"] = config["max_position_embeddings"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))

    tokenizer = json.loads((source / "tokenizer.json").read_text())
    scores: list[tuple[str, float]] = tokenizer["model"]["vocab"]  # of a unigram model, by id
    scores += [(f" w{i}", -10.0) for i in range(len(scores), config["vocab_size"])]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return str(folder)
