"""A model's input embedding: where it is, and whether it is the only reader of token ids."""

import re
from typing import Any

import torch

_OF_POSITIONS = re.compile("pos|type|wpe", re.IGNORECASE)
"""Tables that are indexed by positions or token types, by the name of attribute or class."""

_OF_HASHES = re.compile("hash|n_?gram", re.IGNORECASE)
"""Classes that compute with token ids: n-gram embeddings (LongCat, Qwen4), Engram and routing by
token id (DeepSeek-V4)."""


class UnsupportedModelError(ValueError):
    """A model that cannot be fed concepts."""


def find_input_embedding(model: torch.nn.Module) -> Any:
    """The module that embeds a model's input ids, which must be all that token ids are used for.

    Raises:
        UnsupportedModelError: there is none, or more than one candidate, LoRA changes it, or
            another part of the model reads token ids, which a concept does not have.
    """
    layer = _declared(model)
    if layer is None:
        layer = _largest_table(model)
    _refuse_other_readers(model, layer)
    return layer


def refuse_readers_of_ids(model: torch.nn.Module) -> None:
    """Check a later stage of a pipeline, which may hold the input embedding to unembed with it.

    Raises:
        UnsupportedModelError: a part of the stage reads token ids.
    """
    layer = _got(model)  # where there is none, what stands in its place
    _refuse_other_readers(model, model if layer is None else layer)


def _refuse_other_readers(model: torch.nn.Module, layer: torch.nn.Module) -> None:
    # the language model; towers for images and sound are outside
    path = next((name for name, module in model.named_modules() if module is layer), "")
    prefix = path.rpartition(".")[0]
    owner = model.get_submodule(prefix)
    if hasattr(layer, "base_layer") or getattr(owner, "base_layer", None) is layer:
        raise UnsupportedModelError(
            "soft-sglang does not support LoRA on the input embedding (embed_tokens)."
        )
    for name, module in owner.named_modules(prefix=prefix):
        hashes = _OF_HASHES.search(type(module).__name__)
        if hashes or (module is not layer and _is_table(name, module)):
            raise UnsupportedModelError(
                f"soft-sglang does not support {type(model).__name__}: {name} "
                f"({type(module).__name__}) reads token ids too, and a concept has none."
            )


def _declared(model: torch.nn.Module) -> Any:
    """What the model's getter returns; None where it is absent, stale or embeds ids itself."""
    layer = _got(model)
    if layer is None:
        return None
    # a wrapper may hide its table from PyTorch: it is found by its size then
    holds_table = any(_is_table(name, module) for name, module in layer.named_modules())
    return layer if holds_table else None


def _got(model: torch.nn.Module) -> torch.nn.Module | None:
    """The module that the model's getter returns."""
    getter = getattr(model, "get_input_embeddings", None)
    if getter is None:
        return None
    try:
        layer = getter()
    except (TypeError, AttributeError, NotImplementedError):
        return None
    return layer if isinstance(layer, torch.nn.Module) else None


def _largest_table(model: torch.nn.Module) -> Any:
    tables: list[Any] = [m for name, m in model.named_modules() if _is_table(name, m)]
    size = max((table.num_embeddings for table in tables), default=0)
    largest = [table for table in tables if table.num_embeddings == size]
    if len(largest) != 1:
        raise UnsupportedModelError(
            f"soft-sglang cannot find the input embedding of {type(model).__name__}: "
            f"{len(largest)} candidates."
        )
    return largest[0]


def _is_table(name: str, module: torch.nn.Module) -> bool:
    """Whether a module is an embedding that token ids may index."""
    from sglang.srt.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

    if isinstance(module, ParallelLMHead):
        return False
    if not isinstance(module, (VocabParallelEmbedding, torch.nn.Embedding)):
        return False
    return not _OF_POSITIONS.search(f"{name.rpartition('.')[2]} {type(module).__name__}")
