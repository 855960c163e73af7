"""The model's input embedding: feeds concepts instead of tokens."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any

import torch

from soft_sglang.concept import Mixtures
from soft_sglang.concept_table import ConceptTable
from soft_sglang.kernels.concept_embedding import concept_embedding, mix_embeddings, warm_up
from soft_sglang.patches.model_worker.forward_batch import ConceptInputs
from soft_sglang.patches.model_worker.input_embedding import find_input_embedding
from soft_sglang.patches.record import When, patch


class ConceptEmbedding:
    """Wraps the input embedding of one model.

    The wrapper sits on the instance: on the function that embeds on the local vocabulary shard, so
    that the all-reduce that follows finishes the sum, or on ``forward`` where there is no such
    function.
    """

    def __init__(self, model: torch.nn.Module, table: ConceptTable) -> None:
        self.table = table
        self._inputs: Sequence[ConceptInputs] = ()
        self.layer = find_input_embedding(model)
        self._plain_table = _is_plain_table(self.layer)
        sharded = self._plain_table and self.layer.tp_size > 1
        self._vocab_start = self.layer.shard_indices.org_vocab_start_index if sharded else 0
        on_shard = hasattr(self.layer, "_embed_local_shard")
        summed = on_shard and self.layer.tp_size > 1
        self._feeds_hidden = not summed or self.layer.shard_indices.org_vocab_start_index == 0
        """Whether this rank contributes the hidden states, where a sum over all ranks follows."""
        self._embed_ids: Callable[[torch.Tensor], torch.Tensor]
        if on_shard:
            self._embed_ids = embed_on_shard.override(self.layer, self)
        else:
            self._embed_ids = self.layer.forward
            self.layer.forward = self.embed
        self._wrap_decode(model)

    def warm_up(self) -> None:
        """Compile the kernel for a plain table; any other is read through its own ``forward``."""
        if self._plain_table:
            warm_up(self.layer.weight, self.table.rows.ids, self.table.rows.weights)

    @contextmanager
    def feeding(self, inputs: Sequence[ConceptInputs]) -> Iterator[None]:
        """While active, a forward pass is fed these concepts."""
        self._inputs = inputs
        try:
            yield
        finally:
            self._inputs = ()

    def _wrap_decode(self, model: torch.nn.Module) -> None:
        """Make a decode step read the table through its own slots, static ones in a graph."""
        from sglang.srt.model_executor.runner_utils.capture_mode import get_is_capture_mode

        forward = model.forward

        @wraps(forward)  # runners inspect the signature
        def feed_decode(
            input_ids: torch.Tensor,
            positions: torch.Tensor,
            forward_batch: Any,
            *args: Any,
            **kwargs: Any,
        ) -> Any:
            # on a CPU a step is compiled instead of captured
            in_graph = get_is_capture_mode() or torch.compiler.is_compiling()
            decodes = any(inputs.index is None for inputs in self._inputs)
            if not (decodes or (in_graph and forward_batch.forward_mode.is_decode())):
                return forward(input_ids, positions, forward_batch, *args, **kwargs)
            # its own slots: SGLang may have padded the batch since its inputs were attached
            rows = _first_rows(input_ids, forward_batch.req_pool_indices)
            with self.feeding((rows,)):
                return forward(input_ids, positions, forward_batch, *args, **kwargs)

        model.forward = feed_decode

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The embeddings of a forward pass, mixtures where they are announced.

        Args:
            input_ids: the ids, of any shape, also those of mixtures.
        """
        if len(self._inputs) == 1 and self._inputs[0].index is None and self._plain_table:
            return self._embed_concepts(input_ids, self._inputs[0])
        base = self._embed_ids(input_ids)
        for inputs in self._inputs:
            base = self._mixed(base, input_ids, inputs)
        return base

    @torch.compiler.disable  # Inductor's freezing would take the table for a constant
    def _embed_concepts(self, input_ids: torch.Tensor, inputs: ConceptInputs) -> torch.Tensor:
        """The embeddings of inputs that may all be mixtures, from a plain table."""
        weight, flat = self.layer.weight, input_ids.view(-1)
        out = None
        if weight.is_cuda:
            with self._output_allocation():
                out = weight.new_empty(flat.shape[0], weight.shape[1])
        from_ = self._mixtures(inputs)
        rows = concept_embedding(
            weight, flat, from_.ids, from_.weights, inputs.slots, self._vocab_start, out
        )
        return self._with_hidden(rows, inputs).view(*input_ids.shape, -1)

    @torch.compiler.disable
    def _mixed(
        self, base: torch.Tensor, input_ids: torch.Tensor, inputs: ConceptInputs
    ) -> torch.Tensor:
        """``base`` with mixtures at some positions."""
        index, flat = inputs.index, base.view(-1, base.shape[-1])
        if self._plain_table:
            ids = input_ids.view(-1)
            rows = self._embed_concepts(ids if index is None else ids[index], inputs)
        else:
            from_ = self._mixtures(inputs)
            ids, weights = from_.ids[inputs.slots], from_.weights[inputs.slots]
            embedded = self._embed_ids(ids.reshape(-1)).view(*ids.shape, -1)
            rows = mix_embeddings(embedded, flat if index is None else flat[index], weights)
            rows = self._with_hidden(rows, inputs)
        if index is not None:
            rows = flat.index_copy(0, index, rows)
        return rows.view(base.shape)

    def _mixtures(self, inputs: ConceptInputs) -> Mixtures:
        """What the slots of the inputs point into."""
        if inputs.mixtures is not None:
            return inputs.mixtures
        table = self.table
        return Mixtures(table.rows.ids, table.rows.weights, table.guided.fed_hidden, table.hidden)

    def _with_hidden(self, rows: torch.Tensor, inputs: ConceptInputs) -> torch.Tensor:
        """``rows`` ``[N, D]``, changed to the hidden states where those are fed."""
        from_, slots = self._mixtures(inputs), inputs.slots
        if from_.hidden is None or from_.fed_hidden is None:
            return rows
        hidden = from_.hidden[slots].to(rows.dtype)
        if not self._feeds_hidden:
            hidden = torch.zeros_like(hidden)
        # in place: SGLang may all-reduce it where it was allocated
        return rows.copy_(torch.where(from_.fed_hidden[slots][:, None], hidden, rows))

    def _output_allocation(self) -> AbstractContextManager[Any]:
        """Where the layer's output must lie for the all-reduce that follows."""
        from sglang.srt.distributed.device_communicators.pynccl_allocator import (
            use_symmetric_memory,
        )
        from sglang.srt.layers.dp_attention import is_allocation_symmetric
        from sglang.srt.runtime_context import get_parallel

        return use_symmetric_memory(get_parallel().tp_group, disabled=not is_allocation_symmetric())


def _first_rows(input_ids: torch.Tensor, slots: torch.Tensor) -> ConceptInputs:
    """The inputs of a decode batch, from the table.

    Where ranks attend apart and another one prefills, a decode batch may be padded to its length:
    the tokens, but not the slots, of which there is one a request.
    """
    count = slots.shape[0]
    index = None if count == input_ids.shape[0] else torch.arange(count, device=slots.device)
    return ConceptInputs(index, slots)


@patch(
    "layers.vocab_parallel_embedding.VocabParallelEmbedding._embed_local_shard",
    When.OVERRIDE,
    why="A model embeds ids, and a concept is a sum of embeddings.",
    how="Sums on the local vocabulary shard: the all-reduce that follows finishes the sum.",
    upstream="Not applicable. An input embedding without this method is wrapped in whole.",
)
def embed_on_shard(
    _original: Callable[..., torch.Tensor], embedding: ConceptEmbedding, input_ids: torch.Tensor
) -> torch.Tensor:
    """Embed on the local shard."""
    return embedding.embed(input_ids)


def _is_plain_table(layer: Any) -> bool:
    """Whether an embedding is nothing but a look-up of rows of a floating-point table."""
    from sglang.srt.layers.quantization.unquant import UnquantizedEmbeddingMethod

    method = getattr(layer, "quant_method", None)
    return isinstance(method, UnquantizedEmbeddingMethod) and layer.output_dtype is None
