"""The concept embedding in PyTorch against float64: types, shards, copied rows, empty shapes."""

from itertools import pairwise

import pytest
import tolerances
import torch

from soft_sglang.kernels.concept_embedding import concept_embedding, mix_embeddings

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
V, D = 101, 24


def random_table(dtype: torch.dtype, vocab: int = V, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(vocab, D, generator=generator).to(dtype)


def random_concepts(
    rows: int, width: int, vocab: int = V, seed: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Row i uses i + 1 columns at most, so that narrow and full rows mix."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randperm(vocab, generator=generator)[:width] for _ in range(rows)])
    weights = torch.rand(rows, width, generator=generator).sort(-1, descending=True).values
    weights[torch.arange(width) > torch.arange(rows)[:, None]] = 0
    weights = weights / weights.sum(-1, keepdim=True)
    return torch.where(weights > 0, ids, 0), weights


def exact(table: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The sum in float64, term by term."""
    result = torch.zeros(len(ids), table.shape[1], dtype=torch.float64)
    for b in range(len(ids)):
        for k in range(ids.shape[1]):
            result[b] += weights[b, k].double() * table[ids[b, k]].double()
    return result


def by_gather(
    table: torch.Tensor,
    input_ids: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    vocab_start: int = 0,
) -> torch.Tensor:
    """With the concepts in other rows of a concept table, whose padding row is empty."""
    rows = len(ids)
    slots = torch.randperm(rows, generator=torch.Generator().manual_seed(rows)) + 1
    table_ids = torch.full((rows + 1, ids.shape[1]), -1, dtype=ids.dtype)
    table_weights = torch.zeros(rows + 1, ids.shape[1])
    table_ids[slots], table_weights[slots] = ids, weights
    return concept_embedding(table, input_ids, table_ids, table_weights, slots, vocab_start)


def by_forward(
    table: torch.Tensor, input_ids: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    return mix_embeddings(table[ids], table[input_ids], weights)


BOTH = pytest.mark.parametrize("embed", [by_gather, by_forward])


@BOTH
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(1, 2), (7, 5), (40, 32), (3, 101)])
def test_sum(embed, dtype: torch.dtype, rows: int, width: int) -> None:
    table = random_table(dtype)
    ids, weights = random_concepts(rows, width)
    mixed = embed(table, ids[:, 0], ids, weights)
    assert mixed.shape == (rows, D) and mixed.dtype == dtype
    torch.testing.assert_close(
        mixed.double(), exact(table, ids, weights), **tolerances.EMBEDDING[dtype]
    )


@BOTH
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_single_token_is_copied_bit_for_bit(embed, dtype: torch.dtype) -> None:
    table = random_table(dtype)
    ids, weights = random_concepts(6, 5)
    weights[1::2] = 0
    weights[1::2, 0] = 1
    weights[3, 0] = 0.9999999  # rounding of a sum is no reason to scale
    weights[5, 0] = 0  # a fresh row of the table: no weight at all
    input_ids = torch.tensor([90, 91, 92, 93, 94, 95])  # not the concept's: that is not read
    table[91, :3] = torch.tensor([torch.inf, -0.0, torch.nan])
    mixed = embed(table, input_ids, ids, weights)
    assert torch.equal(mixed[1::2].view(torch.uint8), table[91:96:2].view(torch.uint8))
    assert (mixed[2::2] != table[92:96:2]).all()


@BOTH
@pytest.mark.parametrize("dtype", DTYPES)
def test_width_1_is_the_plain_embedding(embed, dtype: torch.dtype) -> None:
    table = random_table(dtype)
    ids = torch.tensor([[3], [100], [0]])
    plain = table[ids[:, 0]]
    assert torch.equal(embed(table, ids[:, 0], ids, torch.ones(3, 1)), plain)


@BOTH
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 4])
def test_no_rows(embed, dtype: torch.dtype, width: int) -> None:
    table = random_table(dtype)
    ids = torch.empty(0, width, dtype=torch.int64)
    mixed = embed(table, ids[:, 0], ids, torch.empty(0, width))
    assert mixed.shape == (0, D) and mixed.dtype == dtype


@BOTH
def test_nothing_is_changed(embed) -> None:
    arguments = (
        random_table(torch.float32),
        torch.arange(6),
        *random_concepts(6, 5),
    )
    before = [argument.clone() for argument in arguments]
    embed(*arguments)
    assert all(torch.equal(a, b) for a, b in zip(arguments, before, strict=True))


@BOTH
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_depend_on_its_neighbours(embed, dtype: torch.dtype) -> None:
    table = random_table(dtype)
    ids, weights = random_concepts(9, 8)
    together = embed(table, ids[:, 0], ids, weights)
    for i in range(9):
        row = slice(i, i + 1)
        alone = embed(table, ids[row, 0], ids[row], weights[row])
        torch.testing.assert_close(alone, together[row], **tolerances.EMBEDDING[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_ids_add_up(dtype: torch.dtype) -> None:
    table = random_table(dtype)
    ids, weights = torch.tensor([[7, 7, 7]]), torch.tensor([[0.5, 0.25, 0.25]])
    mixed = by_gather(table, ids[:, 0], ids, weights)
    assert torch.equal(mixed[0], table[7])


@pytest.mark.parametrize("dtype", DTYPES)
def test_views(dtype: torch.dtype) -> None:
    """A table with padded columns, and the first columns of a wider concept table."""
    wide = torch.full((V, D + 8), torch.nan, dtype=dtype)
    wide[:, :D] = random_table(dtype)
    ids, weights = random_concepts(6, 5)
    wide_ids, wide_weights = torch.full((6, 9), 10**9), torch.full((6, 9), torch.nan)
    wide_ids[:, :5], wide_weights[:, :5] = ids, weights
    table = wide[:, :D]
    mixed = concept_embedding(
        table, ids[:, 0], wide_ids[:, :5], wide_weights[:, :5], torch.arange(6)
    )
    torch.testing.assert_close(
        mixed.double(), exact(table, ids, weights), **tolerances.EMBEDDING[dtype]
    )


def test_ids_of_32_bits() -> None:
    table = random_table(torch.float32)
    ids, weights = random_concepts(6, 5)
    assert torch.equal(
        by_gather(table, ids[:, 0].int(), ids.int(), weights),
        by_gather(table, ids[:, 0], ids, weights),
    )


# Shards of the vocabulary, as tensor-parallel ranks hold them.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bounds", [(0, 101), (0, 50, 101), (0, 1, 2, 60, 101)])
def test_shards_add_up(dtype: torch.dtype, bounds: tuple[int, ...]) -> None:
    table = random_table(dtype)
    ids, weights = random_concepts(12, 10)
    ids[-1] = torch.tensor([0, 1, 49, 50, 59, 60, 100, 2, 99, 51])  # both sides of every border
    weights[-1] = 0.1
    total = torch.zeros(12, D)
    for start, end in pairwise(bounds):
        shard = table[start:end]
        part = by_gather(shard, ids[:, 0], ids, weights, start)
        assert part.dtype == dtype
        total += part.float()
    # every rank rounds its own part, which may be larger than the sum
    rounding = (len(bounds) - 1) * tolerances.EMBEDDING[dtype]["rtol"] * table.abs().max().item()
    torch.testing.assert_close(total.double(), exact(table, ids, weights), rtol=0, atol=rounding)
    single = (weights > 0).sum(-1) == 1
    assert single.any()
    assert torch.equal(total[single], table[ids[single, 0]].float())


@pytest.mark.parametrize("dtype", DTYPES)
def test_ids_outside_the_shard_are_not_read(dtype: torch.dtype) -> None:
    """The shard lies in a larger buffer of NaN; any number read from outside would show."""
    start, end = 40, 60
    buffer = torch.full((V, D), torch.nan, dtype=dtype)
    buffer[start:end] = random_table(dtype)[start:end]
    shard = buffer[start:end]
    outside = [0, 1, 39, 60, 61, 100, 101, -1, -40, -(2**63), 2**63 - 1, 2**40, 2**31]
    ids = torch.tensor([[i, 45] for i in outside] + [[45, i] for i in outside])
    weights = torch.tensor([0.75, 0.25]).repeat(len(ids), 1)
    mixed = by_gather(shard, ids[:, 0], ids, weights, start)
    scale = torch.tensor([0.25] * len(outside) + [0.75] * len(outside), dtype=torch.float64)
    torch.testing.assert_close(
        mixed.double(), scale[:, None] * shard[5].double(), **tolerances.EMBEDDING[dtype]
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_shard_without_any_of_the_ids_gives_zeros(dtype: torch.dtype) -> None:
    table = random_table(dtype)
    ids, weights = random_concepts(5, 4, vocab=50)
    mixed = by_gather(table[60:], ids[:, 0], ids, weights, 60)
    assert torch.equal(mixed, torch.zeros(5, D, dtype=dtype))


def test_as_many_slots_as_inputs() -> None:
    table = random_table(torch.float32)
    ids, weights = random_concepts(3, 2)
    with pytest.raises(ValueError, match="slots"):
        concept_embedding(table, ids[:, 0], ids, weights, torch.arange(2))


@pytest.mark.parametrize("embed", [by_gather, by_forward])
def test_weights_of_policies(embed) -> None:
    """A policy may leave the emitted token out of the mixture, or push away from a token."""
    table = random_table(torch.float32)
    weights = torch.tensor([[0.0, 0.7, 0.3], [-0.5, 0.9, 0.6], [0.0, 1.0, 0.0], [0.6, -0.2, 0.6]])
    ids = torch.arange(12).view(4, 3) * 7
    result = embed(table, ids[:, 0], ids, weights)
    torch.testing.assert_close(
        result.double(), exact(table, ids, weights), **tolerances.EMBEDDING[torch.float32]
    )
