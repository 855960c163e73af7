"""LoRA adapters made by hand, in the layout of PEFT, and the same weights merged into a model."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

RANK, ALPHA = 4, 6
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
EMBEDDING = "embed_tokens"


def create(folder: Path, model: torch.nn.Module, modules: list[str], seed: int) -> str:
    """Save a random adapter of a model's modules to ``folder`` and return its path."""
    draw = torch.Generator().manual_seed(seed)
    weights = {}
    for name, parameter in model.named_parameters():
        layer = name.removesuffix(".weight")
        if layer.rpartition(".")[2] not in modules:
            continue
        outputs, inputs = parameter.shape
        if layer.endswith(EMBEDDING):
            shapes = {"lora_embedding_A": (RANK, outputs), "lora_embedding_B": (inputs, RANK)}
        else:
            shapes = {"lora_A.weight": (RANK, inputs), "lora_B.weight": (outputs, RANK)}
        for suffix, shape in shapes.items():
            weights[f"base_model.model.{layer}.{suffix}"] = 0.1 * torch.randn(shape, generator=draw)
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "spelling",
        "target_modules": modules,
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return str(folder)


def merge(model: torch.nn.Module, adapter: str) -> None:
    """Add ``alpha / r * B @ A`` to a model's weights."""
    weights = load_file(f"{adapter}/adapter_model.safetensors")
    parameters = dict(model.named_parameters())
    for name, a in weights.items():
        if not name.endswith("lora_A.weight"):
            continue
        parameter = parameters[name.removeprefix("base_model.model.").replace("lora_A.", "")]
        b = weights[name.replace("lora_A", "lora_B")]
        change = ALPHA / RANK * b.double() @ a.double()
        # a new tensor: the loaded one may share its memory with other models
        parameter.data = (parameter.data.double() + change).to(parameter.dtype)
