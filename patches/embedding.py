"""The model's input embedding: feeds concepts instead of tokens."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch

from soft_sglang.concept_table import ConceptTable
from soft_sglang.kernels.concept_embedding import concept_embedding, mix_embeddings
from soft_sglang.patches.cpu_graph import cpu_graph_is_running
from soft_sglang.patches.forward_batch import ConceptInputs
from soft_sglang.patches.input_embedding import find_input_embedding


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
        name = "_embed_local_shard" if hasattr(self.layer, "_embed_local_shard") else "forward"
        self._embed_ids: Callable[[torch.Tensor], torch.Tensor] = getattr(self.layer, name)
        setattr(self.layer, name, self._embed)
        self._wrap_captured_forward(model)

    @contextmanager
    def feeding(self, inputs: Sequence[ConceptInputs]) -> Iterator[None]:
        """While active, a forward pass is fed these concepts."""
        self._inputs = inputs
        try:
            yield
        finally:
            self._inputs = ()

    def _wrap_captured_forward(self, model: torch.nn.Module) -> None:
        """Make a decode graph read the table through its own static request slots."""
        from sglang.srt.model_executor.runner_utils.capture_mode import get_is_capture_mode

        forward = model.forward

        @wraps(forward)  # runners inspect the signature
        def feed_captured(
            input_ids: torch.Tensor,
            positions: torch.Tensor,
            forward_batch: Any,
            *args: Any,
            **kwargs: Any,
        ) -> Any:
            in_graph = get_is_capture_mode() or cpu_graph_is_running()
            if not (in_graph and forward_batch.forward_mode.is_decode()):
                return forward(input_ids, positions, forward_batch, *args, **kwargs)
            every_row = ConceptInputs(index=None, slots=forward_batch.req_pool_indices)
            with self.feeding((every_row,)):
                return forward(input_ids, positions, forward_batch, *args, **kwargs)

        model.forward = feed_captured

    def _embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        base = self._embed_ids(input_ids)
        for inputs in self._inputs:
            base = self._mixed(base, inputs)
        return base

    @torch.compiler.disable  # Inductor's freezing would take the table for a constant
    def _mixed(self, base: torch.Tensor, inputs: ConceptInputs) -> torch.Tensor:
        ids, weights = inputs.concepts(self.table)
        flat = base.view(-1, base.shape[-1])
        rows = flat if inputs.index is None else flat[inputs.index]
        if self._plain_table:
            shard = self.layer.shard_indices
            start = shard.org_vocab_start_index if self.layer.tp_size > 1 else 0
            rows = concept_embedding(self.layer.weight, rows, ids, weights, vocab_start=start)
        else:
            embedded = self._embed_ids(ids.reshape(-1)).view(*ids.shape, -1)
            rows = mix_embeddings(embedded, rows, weights)
        if inputs.index is not None:
            rows = flat.index_copy(0, inputs.index, rows)
        return rows.view(base.shape)


def _is_plain_table(layer: Any) -> bool:
    """Whether an embedding is nothing but a look-up of rows of a floating-point table."""
    from sglang.srt.layers.quantization.unquant import UnquantizedEmbeddingMethod

    method = getattr(layer, "quant_method", None)
    return isinstance(method, UnquantizedEmbeddingMethod) and layer.output_dtype is None
