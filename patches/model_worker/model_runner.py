"""Model runner: the table, the embedding and the sampling step of the target model."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from soft_sglang.concept_table import ConceptTable
from soft_sglang.kernels.thinking_step import warm_up
from soft_sglang.patches.model_worker.eager import (
    must_be_eager,
    server_captures_hidden,
    without_graphs,
)
from soft_sglang.patches.model_worker.embedding import ConceptEmbedding
from soft_sglang.patches.model_worker.forward_batch import soft_batch_of
from soft_sglang.patches.model_worker.input_embedding import refuse_readers_of_ids
from soft_sglang.patches.model_worker.sampler import SamplingStep, SoftSampler
from soft_sglang.patches.options import options_of
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.unsupported_modes import unsupported_mode
from soft_sglang.patches.versions import last_hidden_states


class SoftRuntime:
    """What a model runner owns for soft thinking.

    In a pipeline each stage has a table: the first one embeds from its own, the last one samples
    into its own, from where the first one's is written.
    """

    def __init__(self, model_runner: Any) -> None:
        stage = model_runner.pp_group
        slots = model_runner.req_to_token_pool.req_to_token.shape[0]
        width = options_of(model_runner.server_args).max_topk
        self.table = ConceptTable(slots, width, model_runner.device)
        if server_captures_hidden():
            config = model_runner.model_config  # graphs will hold what reads them
            self.table.hidden_rows(torch.zeros(1, config.hidden_size, dtype=config.dtype))
        self.embedding: ConceptEmbedding | None = None
        """Of the first stage."""
        if stage.is_first_rank:
            self.embedding = ConceptEmbedding(model_runner.model, self.table)
        else:
            refuse_readers_of_ids(model_runner.model)
        self.sampler: SoftSampler | None = None
        """Of the last stage."""
        if stage.is_last_rank:
            self.sampler = SoftSampler(model_runner.sampler)
        if self.table.device.type == "cuda" and options_of(model_runner.server_args).required:
            # no request shall wait for the compiler; a server that is not for soft thinking
            # compiles when the first request asks for it
            if self.embedding is not None:
                self.embedding.warm_up()
            if self.sampler is not None:
                warm_up(self.table.rows, model_runner.model_config.vocab_size)


@patch(
    "model_executor.model_runner.ModelRunner._init_post_memory_pool_components",
    When.AFTER,
    why=(
        "The number of request slots is known now, and graphs are not captured yet: a graph "
        "captured before would not read the table."
    ),
    how="Allocates the table and wraps the model's input embedding.",
    upstream="Not applicable.",
)
def create_runtime(_result: None, self: Any) -> None:
    """Create the runtime of a target model's runner."""
    if self.is_draft_worker or not self.is_generation or unsupported_mode(self.server_args):
        return
    if getattr(self, "decode_cuda_graph_runner", None) is not None:
        raise RuntimeError(
            "soft-sglang: decode graphs were captured before the concept table was allocated; "
            "soft thinking would silently do nothing."
        )
    try:
        self.soft_thinking = SoftRuntime(self)
    except Exception as error:
        if options_of(self.server_args).required:
            raise
        # the server was not started for soft thinking: only requests that ask for it fail
        self.soft_thinking_unsupported = str(error)


@patch(
    "model_executor.model_runner.ModelRunner._forward_raw",
    When.AROUND,
    why=(
        "The embedding is called deep inside the model, without the batch. And what a captured "
        "prefill embeds are ids: it has no place for a resumed request's concepts."
    ),
    how="Tells the embedding which batch is computed, and computes it eagerly where it must be.",
    upstream="Not applicable.",
)
def announce_batch(
    original: Callable[..., Any], self: Any, forward_batch: Any, *args: Any, **kwargs: Any
) -> Any:
    """Run a forward pass with its concept inputs announced."""
    soft = soft_batch_of(forward_batch)
    if soft is None:
        return original(self, forward_batch, *args, **kwargs)
    embedding: ConceptEmbedding | None = self.soft_thinking.embedding
    feeding = nullcontext() if embedding is None else embedding.feeding(soft.inputs)
    eager = without_graphs(self) if must_be_eager(self, forward_batch, soft) else nullcontext()
    with feeding, eager:
        return original(self, forward_batch, *args, **kwargs)


@patch(
    "model_executor.model_runner.ModelRunner.sample",
    When.AROUND,
    why="The sampler sees neither the request slots nor the table.",
    how="Hands it the step, and the step's result to the scheduler.",
    upstream="SamplingObserver sees logits but cannot replace tokens.",
)
def sample_softly(
    original: Callable[..., Any], self: Any, logits_output: Any, forward_batch: Any
) -> Any:
    """Sample a batch with soft requests."""
    soft = soft_batch_of(forward_batch)
    if soft is None:
        return original(self, logits_output, forward_batch)
    hidden = _last_hidden(logits_output, forward_batch) if soft.plan.feeds_hidden else None
    step = SamplingStep(self.soft_thinking.table, soft.plan, forward_batch.req_pool_indices, hidden)
    with self.soft_thinking.sampler.taking(step):
        next_ids = original(self, logits_output, forward_batch)
    step.report_to(logits_output, relayed=self.soft_thinking.embedding is None)
    return next_ids


def _last_hidden(logits_output: Any, forward_batch: Any) -> torch.Tensor:
    """``[B, D]`` last hidden states, taken out of the output unless a request asked for them."""
    hidden: torch.Tensor = last_hidden_states(logits_output)
    slots = forward_batch.req_pool_indices
    if forward_batch.soft_thinking.captured_here:
        logits_output.hidden_states = None
    if hidden.shape[0] != slots.shape[0]:  # of all tokens
        hidden = hidden[torch.cumsum(forward_batch.extend_seq_lens, 0) - 1]
    return hidden
