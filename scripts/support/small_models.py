"""Builds SGLang's model classes small, and watches where their forward embeds token ids."""

import importlib
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch

from soft_sglang.patches.model_worker.input_embedding import (
    UnsupportedModelError,
    find_input_embedding,
)
from support.small_model_configs import CONFIGS, SMALL

WORKS, REFUSED = "works", "refused"
_BY_NAME = {"mistral"}
"""Modules whose classes look up others in SGLang's registry, which imports all."""
_VISION = {"in_chans": 3, "in_channels": 3}


class _Embedded(Exception):
    """Raised where the input embedding is called."""


class _Group(SimpleNamespace):
    """A group of one process; whatever else is asked of it is None."""

    def __getattr__(self, name: str) -> None:
        return None


def verdict(name: str, module: str) -> str:
    """Build a class and look for its input embedding.

    Returns:
        ``works`` if the module that is found is the one that the forward pass calls with the ids
        of a decode step, ``refused`` if none is found; otherwise what stood in the way.
    """
    try:
        model = _built(name, module)
    except Exception as error:  # whatever a class of another version, without a GPU, may raise
        return f"not built: {type(error).__name__}: {str(error)[:100]}"
    try:
        layer = find_input_embedding(model)
    except UnsupportedModelError:
        return REFUSED
    return WORKS if _called_with_ids(model, layer) else "another module embeds the ids"


@contextmanager
def surroundings() -> Iterator[None]:
    """What SGLang's layers want to know and to import when they are built on a CPU."""
    from sglang.srt.runtime_context import get_context, get_parallel

    alone = _Group(world_size=1, rank_in_group=0, rank=0, is_first_rank=True, is_last_rank=True)
    ranks = ("tp", "attn_tp", "pp", "moe_ep", "moe_tp", "moe_dp", "attn_dp", "attn_cp")
    groups = ("pp", "tp", "attn_tp", "moe_ep", "moe_tp")
    parallel = get_parallel()
    logging.disable(logging.CRITICAL)
    with ExitStack() as stack:
        stack.callback(logging.disable, logging.NOTSET)
        stack.enter_context(_kernels_by_name())
        stack.enter_context(get_context().override_server_args(device="cpu"))
        for names, value in (
            ({f"{rank}_rank" for rank in ranks}, 0),
            ({f"{group}_group" for group in groups}, alone),
        ):
            stack.enter_context(parallel.override(**dict.fromkeys(names, value)))
        yield


@contextmanager
def _kernels_by_name() -> Iterator[None]:
    """Modules may name kernels for CPUs that are not installed, which nothing here calls."""
    namespace = type(torch.ops.sgl_kernel)
    original = namespace.__getattr__

    def named(self: Any, name: str) -> Any:
        try:
            return original(self, name)
        except AttributeError:
            if self.name != "sgl_kernel" or not name.endswith("_cpu"):
                raise
            return SimpleNamespace(default=MagicMock())

    namespace.__getattr__ = named
    try:
        yield
    finally:
        namespace.__getattr__ = original


def _built(name: str, module: str) -> torch.nn.Module:
    if module in _BY_NAME:
        importlib.import_module("sglang.srt.models.registry")
    model_class = getattr(importlib.import_module(f"sglang.srt.models.{module}"), name)
    model_type, more = CONFIGS[name]
    config = _config(model_type, more)
    with torch.device("meta"):
        return model_class(config=config)


def _config(model_type: str, more: dict[str, Any]) -> Any:
    from sglang.srt.utils.hf_transformers.common import _CONFIG_REGISTRY
    from transformers import AutoConfig

    def make(**values: Any) -> Any:
        own = _CONFIG_REGISTRY.get(model_type)
        return AutoConfig.for_model(model_type, **values) if own is None else own(**values)

    if "text_config" in more:
        config = make(**more)
    else:
        values = {**SMALL, **more}
        try:
            config = make(**values)
        except Exception:  # some check their arguments together; SGLang reads attributes only
            config = make()
            _set(config, values)
        for part in ("text_config", "thinker_config", "llm_config", "language_config"):
            text = getattr(config, part, None)
            if text is not None and not isinstance(text, dict):
                text = getattr(text, "text_config", text)
                _set(text, values)
                if getattr(text, "layer_types", None):
                    text.layer_types = text.layer_types[: text.num_hidden_layers]
    _fill(config, getattr(config, "text_config", None))  # as SGLang does
    _fill(getattr(config, "vision_config", None), SimpleNamespace(to_dict=lambda: _VISION))
    return config


def _set(config: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        try:
            setattr(config, name, value)
        except Exception:  # a property, or a value that this configuration does not take
            continue


def _fill(config: Any, other: Any) -> None:
    """Give a configuration the attributes of another one that it does not have."""
    if config is None or other is None or isinstance(config, dict) or isinstance(other, dict):
        return
    _set(config, {k: v for k, v in other.to_dict().items() if not hasattr(config, k)})


def _called_with_ids(model: Any, layer: Any) -> bool:
    """Whether a decode step calls the layer with its ids before it fails for want of memory."""
    from sglang.srt.model_executor.forward_batch_info import ForwardMode

    seen: list[torch.Tensor] = []

    def embed(ids: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(ids)
        raise _Embedded

    layer.forward = embed
    ids = torch.tensor([5, 6])
    batch = MagicMock(forward_mode=ForwardMode.DECODE, input_embeds=None, mm_inputs=None)
    batch.contains_mm_inputs.return_value = False
    batch.contains_image_inputs.return_value = False
    try:
        model.forward(ids, torch.tensor([1, 2]), batch)
    except _Embedded:
        return torch.equal(seen[0].view(-1), ids)
    except Exception:  # something else came first
        return False
    return False
