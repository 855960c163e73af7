"""Where concepts enter a model, and which models are refused: SGLang's own classes, unloaded."""

from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models
import torch
from sglang.srt.layers.engram import EngramHasher
from sglang.srt.layers.moe.hash_topk import HashTopK
from sglang.srt.layers.n_gram_embedding import NgramEmbedding
from sglang.srt.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from sglang.srt.lora.layers import BaseLayerWithLoRA, VocabParallelEmbeddingWithLoRA
from sglang.srt.models.gemma3_mm import Gemma3ForConditionalGeneration
from sglang.srt.models.gemma3n_causal import Gemma3nForCausalLM
from sglang.srt.models.gemma4_causal import Gemma4ForCausalLM
from sglang.srt.models.gpt2 import GPT2LMHeadModel
from sglang.srt.models.llama import LlamaForCausalLM
from sglang.srt.models.opt import OPTForCausalLM
from sglang.srt.models.phi import PhiForCausalLM
from sglang.srt.models.qwen2 import Qwen2ForCausalLM
from sglang.srt.runtime_context import get_context, get_parallel
from transformers import AutoConfig

from soft_sglang.patches.model_worker.input_embedding import (
    UnsupportedModelError,
    find_input_embedding,
    refuse_readers_of_ids,
)

GEMMA = {"head_dim": 16, "layer_types": ["sliding_attention", "full_attention"]}
GEMMA3N = {
    **GEMMA,
    "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": 200,
    "num_kv_shared_layers": 0,
    "laurel_rank": 8,
    "activation_sparsity_pattern": [0.0, 0.0],
}
GEMMA4 = {
    **GEMMA,
    "global_head_dim": 16,
    "num_kv_shared_layers": 0,
    "enable_moe_block": False,
    "vocab_size_per_layer_input": 200,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}


@pytest.fixture(autouse=True, scope="module")
def one_process():
    """What SGLang's layers want to know when they are built: a tensor-parallel group of one."""
    alone = SimpleNamespace(
        world_size=1, rank=0, rank_in_group=0, is_first_rank=True, is_last_rank=True
    )
    with ExitStack() as stack:
        stack.enter_context(get_context().override_server_args(device="cpu"))
        stack.enter_context(
            get_parallel().override(tp_rank=0, attn_tp_rank=0, pp_rank=0, pp_group=alone)
        )
        yield


def built(model_class: type, model_type: str, **more: Any) -> torch.nn.Module:
    """A tiny model of one of SGLang's classes, without memory for its weights."""
    config = AutoConfig.for_model(model_type, **{**tiny_models.SMALL, **more})
    with torch.device("meta"):
        return model_class(config)


def table(rows: int = tiny_models.VOCAB_SIZE) -> torch.nn.Module:
    with torch.device("meta"):
        return VocabParallelEmbedding(rows, 8)


def modules(**children: torch.nn.Module) -> torch.nn.Module:
    return torch.nn.ModuleDict(children)


@pytest.mark.parametrize(
    ("model_class", "model_type", "config", "path"),
    [
        (LlamaForCausalLM, "llama", {}, "model.embed_tokens"),
        (LlamaForCausalLM, "llama", {"tie_word_embeddings": True}, "model.embed_tokens"),
        (GPT2LMHeadModel, "gpt2", {}, "transformer.wte"),  # no getter
        (OPTForCausalLM, "opt", {"word_embed_proj_dim": 64}, "model.decoder.embed_tokens"),
        (PhiForCausalLM, "phi", {}, "model.embed_tokens"),  # the getter takes ids
        (
            Gemma4ForCausalLM,
            "gemma4_text",
            {**GEMMA4, "hidden_size_per_layer_input": 0},
            "model.embed_tokens",
        ),
        (
            Gemma3ForConditionalGeneration,
            "gemma3",
            {"text_config": {**tiny_models.SMALL, **GEMMA}, "vision_config": VISION},
            "language_model.model.embed_tokens",
        ),
    ],
)
def test_found(model_class, model_type, config, path):
    model = built(model_class, model_type, **config)
    assert find_input_embedding(model) is model.get_submodule(path)


@pytest.mark.parametrize(
    ("model_class", "model_type", "config"),
    [
        (Gemma3nForCausalLM, "gemma3n_text", GEMMA3N),
        (Gemma4ForCausalLM, "gemma4_text", {**GEMMA4, "hidden_size_per_layer_input": 16}),
    ],
)
def test_per_layer_embeddings_of_the_token_id_are_refused(model_class, model_type, config):
    model = built(model_class, model_type, **config)
    with pytest.raises(UnsupportedModelError) as refused:
        find_input_embedding(model)
    for what in (model_class.__name__, "model.embed_tokens_per_layer", "token ids"):
        assert what in str(refused.value)


def test_routing_by_token_id_is_refused():
    """DeepSeek-V4's first layers choose their experts by a table from token id to expert."""
    model = built(LlamaForCausalLM, "llama")
    topk = HashTopK.__new__(HashTopK)  # its arguments are another version's
    torch.nn.Module.__init__(topk)
    model.model.layers[1].mlp.topk = topk
    with pytest.raises(UnsupportedModelError, match=r"model\.layers\.1\.mlp\.topk \(HashTopK\)"):
        find_input_embedding(model)


@pytest.mark.parametrize("hashing", [EngramHasher, NgramEmbedding])
def test_n_gram_embeddings_are_refused(hashing):
    model = built(LlamaForCausalLM, "llama")
    part = hashing.__new__(hashing)  # its tables need a GPU
    torch.nn.Module.__init__(part)
    model.model.layers[0].n_grams = part
    with pytest.raises(UnsupportedModelError, match=rf"layers\.0\.n_grams \({hashing.__name__}\)"):
        find_input_embedding(model)


def test_an_input_embedding_of_n_grams_is_refused():
    model = built(LlamaForCausalLM, "llama")
    embedding = NgramEmbedding.__new__(NgramEmbedding)  # its tables need a GPU
    torch.nn.Module.__init__(embedding)
    embedding.word_embeder, embedding.oe_embeder = table(), table(1000)
    model.model.embed_tokens = embedding
    with pytest.raises(UnsupportedModelError, match=r"model\.embed_tokens \(NgramEmbedding\)"):
        find_input_embedding(model)


@pytest.mark.parametrize(
    ("model_class", "model_type", "holder", "name"),
    [
        (LlamaForCausalLM, "llama", "model", "embed_tokens"),
        (GPT2LMHeadModel, "gpt2", "transformer", "wte"),  # no getter
    ],
)
def test_lora_on_the_input_embedding_is_refused(model_class, model_type, holder, name):
    model = built(model_class, model_type)
    owner = model.get_submodule(holder)
    adapted = VocabParallelEmbeddingWithLoRA.__new__(VocabParallelEmbeddingWithLoRA)
    # its own part of the construction needs a GPU
    BaseLayerWithLoRA.__init__(adapted, getattr(owner, name), lora_backend=None)
    setattr(owner, name, adapted)
    with pytest.raises(UnsupportedModelError, match="LoRA"):
        find_input_embedding(model)


@pytest.mark.parametrize(
    ("children", "candidates"),
    [
        ({}, 0),
        ({"head": lambda: torch.nn.Linear(8, 256)}, 0),
        ({"one": table, "other": table}, 2),
    ],
)
def test_no_single_candidate_is_refused(children, candidates):
    model = modules(**{name: child() for name, child in children.items()})
    with pytest.raises(UnsupportedModelError, match=rf"ModuleDict: {candidates} candidates"):
        find_input_embedding(model)


def test_heads_positions_and_types_are_no_input_embeddings():
    with torch.device("meta"):
        head = ParallelLMHead(tiny_models.VOCAB_SIZE, 8)
    model = modules(
        lm_head=head,
        wpe=torch.nn.Embedding(1024, 8),
        embed_positions=torch.nn.Embedding(1024, 8),
        token_type_embeddings=torch.nn.Embedding(1024, 8),
        word_embeddings=table(),
    )
    assert find_input_embedding(model) is model["word_embeddings"]


def test_tables_outside_the_language_model_do_not_matter():
    tower = modules(codebook=torch.nn.Embedding(64, 8))
    model = modules(tower=tower, language_model=modules(embedding=table()))
    assert find_input_embedding(model) is model["language_model"]["embedding"]
    model["language_model"]["extra"] = torch.nn.Embedding(64, 8)
    with pytest.raises(UnsupportedModelError, match=r"language_model\.extra \(Embedding\)"):
        find_input_embedding(model)


@pytest.fixture
def last_stage():
    """The models that are built here are a stage of a pipeline that is not the first one."""
    group = SimpleNamespace(  # of one, so that all of the layers are there
        world_size=1, rank=0, rank_in_group=0, is_first_rank=False, is_last_rank=True
    )
    with get_parallel().override(pp_group=group):
        yield


@pytest.mark.parametrize(
    ("model_class", "model_type"), [(LlamaForCausalLM, "llama"), (Qwen2ForCausalLM, "qwen2")]
)
@pytest.mark.parametrize("part", ["table", "hashing"])
def test_a_later_stage_reads_no_token_ids(last_stage, model_class, model_type, part):
    model = built(model_class, model_type)
    assert not list(model.model.embed_tokens.parameters())
    refuse_readers_of_ids(model)
    model.model.embed_tokens = table()  # to unembed with
    refuse_readers_of_ids(model)
    if part == "table":
        extra = table()
    else:
        extra = EngramHasher.__new__(EngramHasher)  # its tables need a GPU
        torch.nn.Module.__init__(extra)
    model.model.layers[1].extra = extra
    with pytest.raises(UnsupportedModelError, match=r"model\.layers\.1\.extra"):
        refuse_readers_of_ids(model)
