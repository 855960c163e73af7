"""Which inputs of a forward pass become mixtures: decode batches, padded ones, mixed ones."""

from types import SimpleNamespace

import pytest
import torch

from soft_sglang.concept import Mixtures
from soft_sglang.concept_table import ConceptTable
from soft_sglang.patches.model_worker.embedding import ConceptEmbedding
from soft_sglang.patches.model_worker.forward_batch import ConceptInputs


class Model(torch.nn.Module):
    """Nothing but an input embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(20, 8)

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.embed_tokens

    def forward(self, input_ids, positions, forward_batch):
        return self.embed_tokens(input_ids)


@pytest.fixture
def model() -> Model:
    return Model().requires_grad_(False)


@pytest.fixture
def embedding(model: Model) -> ConceptEmbedding:
    """Slot 2 holds a mixture of the tokens 5 and 6, slot 4 the token 7 alone."""
    table = ConceptTable(8, 3, "cpu")
    table.rows.ids[2] = torch.tensor([5, 6, 0])
    table.rows.weights[2] = torch.tensor([0.75, 0.25, 0.0])
    table.rows.ids[4, 0], table.rows.weights[4, 0] = 7, 1.0
    return ConceptEmbedding(model, table)


def forward(model: Model, ids: list[int], slots: list[int], decode: bool = True) -> torch.Tensor:
    batch = SimpleNamespace(
        forward_mode=SimpleNamespace(is_decode=lambda: decode),
        req_pool_indices=torch.tensor(slots),
    )
    return model.forward(torch.tensor(ids), None, batch)


def rows(model: Model, *expected: dict[int, float]) -> torch.Tensor:
    table = model.embed_tokens.weight
    return torch.stack([sum(w * table[i] for i, w in row.items()) for row in expected])


MIXTURE, ALONE = {5: 0.75, 6: 0.25}, {7: 1.0}


def test_nothing_is_fed_without_a_soft_batch(model: Model, embedding: ConceptEmbedding) -> None:
    assert torch.equal(forward(model, [5, 7], [2, 4]), rows(model, {5: 1.0}, ALONE))


def test_a_batch_that_was_padded_since(model: Model, embedding: ConceptEmbedding) -> None:
    """SGLang pads some decode batches inside of the forward pass; padding has slot 0."""
    with embedding.feeding((ConceptInputs(None, torch.tensor([4, 2])),)):
        fed = forward(model, [7, 5, 0, 0], [4, 2, 0, 0])
    torch.testing.assert_close(fed, rows(model, ALONE, MIXTURE, {0: 1.0}, {0: 1.0}))
    assert torch.equal(fed[0], model.embed_tokens.weight[7])


def test_a_decode_batch_that_was_padded_as_a_prefill(
    model: Model, embedding: ConceptEmbedding
) -> None:
    """Where ranks attend apart, beside one that prefills: tokens are padded, requests are not."""
    with embedding.feeding((ConceptInputs(None, torch.tensor([4, 2])),)):
        fed = forward(model, [7, 5, 0, 0], [4, 2], decode=False)
    torch.testing.assert_close(fed, rows(model, ALONE, MIXTURE, {0: 1.0}, {0: 1.0}))
    assert torch.equal(fed[0], model.embed_tokens.weight[7])


def test_the_decode_tail_of_a_mixed_batch(model: Model, embedding: ConceptEmbedding) -> None:
    tail = ConceptInputs(torch.tensor([3, 4]), torch.tensor([2, 4]))
    with embedding.feeding((tail,)):
        fed = forward(model, [1, 2, 3, 5, 7], [6, 2, 4], decode=False)
    expected = rows(model, {1: 1.0}, {2: 1.0}, {3: 1.0}, MIXTURE, ALONE)
    torch.testing.assert_close(fed, expected)


def test_mixtures_of_a_resumed_request(model: Model, embedding: ConceptEmbedding) -> None:
    mixtures = Mixtures(torch.tensor([[8, 9, 0]]), torch.tensor([[0.5, 0.5, 0.0]]))
    resumed = ConceptInputs(torch.tensor([1]), torch.tensor([0]), mixtures)
    with embedding.feeding((resumed,)):
        fed = forward(model, [1, 8, 3], [6], decode=False)
    expected = rows(model, {1: 1.0}, {8: 0.5, 9: 0.5}, {3: 1.0})
    torch.testing.assert_close(fed, expected)


def test_weights_that_a_loader_replaces(model: Model, embedding: ConceptEmbedding) -> None:
    """Some loaders and quantisations put another parameter in the place of the old one."""
    model.embed_tokens.weight = torch.nn.Parameter(torch.randn(20, 8), requires_grad=False)
    with embedding.feeding((ConceptInputs(None, torch.tensor([2, 4])),)):
        torch.testing.assert_close(forward(model, [5, 7], [2, 4]), rows(model, MIXTURE, ALONE))
