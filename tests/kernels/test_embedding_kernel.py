"""The concept embedding's kernel against float64 loops; plain rows and shards bit for bit."""

from itertools import pairwise

import pytest
import tolerances
import torch
from one_thread import one_thread  # noqa: F401 - the import switches it on
from random_inputs import DEVICE, generator

from soft_sglang.kernels import concept_embedding_triton

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
V = 90
COUNTS = (0, 1, 2, 9, 10, 32)
"""Tokens of a concept: none yet, one, a first round of the loop, full rounds of 8, all."""


def padded(values: torch.Tensor, columns: int = 8) -> torch.Tensor:
    """The same rows on the device, with NaN or a wild id between them."""
    fill = torch.nan if values.is_floating_point() else 2**30
    shape = (values.shape[0], values.shape[1] + columns)
    wide = torch.full(shape, fill, dtype=values.dtype, device=DEVICE)
    view = wide[:, : values.shape[1]]
    view.copy_(values)
    return view


def concepts(width: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """``[R, K]`` ids and weights of a table whose row 0 is the padding row; ``R`` is 7."""
    counts = torch.tensor([0, *COUNTS]).clamp_max(width)
    ids = torch.stack([torch.randperm(V, generator=rng)[:width] for _ in counts])
    weights = torch.rand(len(counts), width, generator=rng).sort(-1, descending=True).values + 0.01
    weights[torch.arange(width) >= counts[:, None]] = 0
    weights /= weights.sum(-1, keepdim=True).clamp_min(1e-30)
    return torch.where(weights > 0, ids, 0), weights


def embed(
    weight: torch.Tensor,
    input_ids: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    slots: torch.Tensor,
    vocab_start: int = 0,
) -> torch.Tensor:
    """Into poisoned memory with padded rows, which must stay as it is between them."""
    input_ids = input_ids.contiguous()
    out = padded(torch.full((len(input_ids), weight.shape[1]), torch.nan, dtype=weight.dtype))
    tensors = (tensor.to(DEVICE) for tensor in (input_ids, ids, weights, slots))
    result = concept_embedding_triton.concept_embedding(weight, *tensors, vocab_start, out)
    assert result is out
    between = out.as_strided((len(out), 8), out.stride(), weight.shape[1])
    assert between.isnan().all()
    return result.cpu()


def exact(
    weight: torch.Tensor,
    input_ids: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    slots: torch.Tensor,
    vocab_start: int = 0,
) -> torch.Tensor:
    """Row by row, term by term, in float64."""
    weight = weight.cpu()
    shard = range(vocab_start, vocab_start + len(weight))
    result = torch.zeros(len(input_ids), weight.shape[1], dtype=torch.float64)
    for n, slot in enumerate(slots.tolist()):
        concept = list(zip(ids[slot].tolist(), weights[slot].tolist(), strict=True))
        if sum(w > 0 for _, w in concept) < 2:
            concept = [(int(input_ids[n]), 1.0)]
        for token, w in concept:
            if w > 0 and token in shard:
                result[n] += w * weight[token - vocab_start].double()
    return result


def inputs(ids: torch.Tensor, weights: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Input ids: a mixture's first token; any other for a row that is none."""
    mixture = (weights[slots] > 0).sum(-1) > 1
    return torch.where(mixture, ids[slots, 0], (slots * 13 + 5) % V)


@pytest.mark.parametrize(
    ("dim", "dtype", "width", "id_type"),
    [
        (1, F32, 32, torch.int64),
        (24, F16, 9, torch.int32),
        (576, BF16, 10, torch.int64),
        (1000, F32, 1, torch.int32),
        (1024, BF16, 32, torch.int32),
        (1536, F16, 2, torch.int64),
        (2056, BF16, 17, torch.int64),
        (2056, F32, 32, torch.int64),
    ],
)
def test_sum(dim, dtype, width, id_type) -> None:
    rng = generator("embedding", dim, width)
    weight = padded(torch.randn(V, dim, generator=rng).to(dtype))
    ids, weights = concepts(width, rng)
    slots = torch.tensor([6, 0, 3, 4, 5, 0, 2, 1, 6])  # padding and other slots repeat
    input_ids = inputs(ids, weights, slots)
    ids, weights = padded(ids.to(id_type), 3), padded(weights, 5)
    result = embed(weight, input_ids.to(id_type), ids, weights, slots.to(id_type))
    expected = exact(weight, input_ids, ids.cpu(), weights.cpu(), slots)
    torch.testing.assert_close(result.double(), expected, **tolerances.EMBEDDING[dtype])
    single = (weights.cpu()[slots] > 0).sum(-1) < 2
    assert single.any()
    plain = weight.cpu()[input_ids[single]]
    assert torch.equal(result[single].view(torch.uint8), plain.view(torch.uint8))


def test_a_batch_large_enough_for_wide_blocks() -> None:
    rng = generator("wide blocks")
    weight = torch.randn(V, 1024, generator=rng).to(DEVICE)
    ids, weights = concepts(4, rng)
    slots = torch.randint(0, 7, (270,), generator=rng)
    input_ids = inputs(ids, weights, slots)
    result = embed(weight, input_ids, ids, weights, slots)
    expected = exact(weight, input_ids, ids, weights, slots)
    torch.testing.assert_close(result.double(), expected, **tolerances.EMBEDDING[F32])


@pytest.mark.parametrize("dtype", [F32, F16, BF16])
def test_a_single_token_is_copied_bit_for_bit(dtype) -> None:
    weight = torch.randn(V, 40, generator=generator("copy")).to(dtype)
    weight[5, :6] = torch.tensor([torch.inf, -torch.inf, -0.0, torch.nan, 1e-7, 0.0])
    ids = torch.tensor([[0, 0], [9, 7], [9, 0], [5, 8]])
    weights = torch.tensor([[0.0, 0.0], [0.9999999, 0.0], [1.0, 0.0], [1.0, 0.0]])
    slots = torch.tensor([0, 1, 2, 3])
    result = embed(weight.to(DEVICE), torch.full((4,), 5), ids, weights, slots)
    for row in result:
        assert torch.equal(row.view(torch.uint8), weight[5].view(torch.uint8))


def test_no_rows() -> None:
    ids, weights = concepts(4, generator("no rows"))
    none = torch.empty(0, dtype=torch.int64)
    assert embed(torch.ones(V, 8, device=DEVICE), none, ids, weights, none).shape == (0, 8)


def test_equal_ids_add_up() -> None:
    weight = torch.randn(V, 40, generator=generator("equal ids")).to(DEVICE)
    ids, weights = torch.tensor([[7, 7, 7]]), torch.tensor([[0.5, 0.25, 0.25]])
    result = embed(weight, torch.tensor([7]), ids, weights, torch.tensor([0]))
    assert torch.equal(result[0], weight[7].cpu())


# Shards of the vocabulary.


@pytest.mark.parametrize("dtype", [F32, F16, BF16])
@pytest.mark.parametrize("bounds", [(0, 45, V), (0, 1, 2, 60, V)])
def test_shards_add_up(dtype, bounds) -> None:
    rng = generator("shards", bounds)
    weight = torch.randn(V, 24, generator=rng).to(dtype).to(DEVICE)
    ids, weights = concepts(10, rng)
    ids[6] = torch.tensor([0, 1, 44, 45, 59, 60, 89, 2, 88, 46])  # both sides of every border
    slots = torch.arange(7)
    input_ids = inputs(ids, weights, slots)
    total = torch.zeros(7, 24)
    for start, end in pairwise(bounds):
        total += embed(weight[start:end], input_ids, ids, weights, slots, start).float()
    expected = exact(weight, input_ids, ids, weights, slots)
    # every rank rounds its own part, which may be larger than the sum
    rounding = (len(bounds) - 1) * tolerances.EMBEDDING[dtype]["rtol"] * weight.abs().max().item()
    torch.testing.assert_close(total.double(), expected, rtol=0, atol=rounding)
    single = (weights > 0).sum(-1) < 2
    assert torch.equal(total[single], weight[input_ids[single]].cpu().float())


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_ids_outside_the_shard_are_not_read(dtype) -> None:
    """The shard lies in a larger buffer of NaN; any number read from outside would show."""
    start, end = 40, 60
    buffer = torch.full((V, 24), torch.nan, dtype=dtype, device=DEVICE)
    buffer[start:end] = torch.randn(20, 24, generator=generator("outside")).to(dtype).to(DEVICE)
    shard = buffer[start:end]
    outside = [0, 39, 60, V, -1, -40, -(2**63), 2**63 - 1, 2**40, 2**31, -(2**31)]
    count = len(outside)
    ids = torch.tensor([[i, 45] for i in outside] + [[45, i] for i in outside])
    weights = torch.tensor([0.75, 0.25]).repeat(2 * count, 1)
    result = embed(shard, ids[:, 0], ids, weights, torch.arange(2 * count), start)
    scale = torch.tensor([0.25] * count + [0.75] * count, dtype=torch.float64)
    expected = scale[:, None] * shard[5].cpu().double()
    torch.testing.assert_close(result.double(), expected, **tolerances.EMBEDDING[dtype])
    # rows that are no mixtures
    weights[:] = torch.tensor([1.0, 0.0])
    result = embed(shard, ids[:count, 0], ids, weights, torch.arange(count), start)
    assert torch.equal(result, torch.zeros(count, 24, dtype=dtype))


POLICY_WEIGHTS = [[0.0, 0.7, 0.3], [-0.5, 0.9, 0.6], [0.0, 1.0, 0.0], [0.6, -0.2, 0.6], [1, 0, 0]]
"""Policies may leave the emitted token out of the mixture, or push away from a token."""


def test_weights_of_policies() -> None:
    rng = generator("policies")
    weight = torch.randn(V, 96, generator=rng)
    weights = torch.tensor(POLICY_WEIGHTS)
    ids = torch.stack([torch.randperm(V, generator=rng)[:3] for _ in weights])
    slots = torch.arange(len(ids))
    result = embed(padded(weight), ids[:, 0], ids, weights, slots)
    expected = torch.einsum("rk,rkd->rd", weights.double(), weight[ids].double())
    torch.testing.assert_close(result.double(), expected, **tolerances.EMBEDDING[F32])
    torch.testing.assert_close(result[-1], weight[ids[-1, 0]], rtol=0, atol=0)
