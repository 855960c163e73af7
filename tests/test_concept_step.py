"""The concept step against float64: filters, ties, masks, views, and rows that do not interfere."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import tolerances
import torch
from filters import FILTERS
from float64_oracle import Row, concept
from one_thread import one_thread  # noqa: F401 - the import switches it on

from soft_sglang.kernels import noise
from soft_sglang.kernels.concept_step import (
    DIRICHLET_CANDIDATES,
    NOISE_DIRICHLET,
    NOISE_GUMBEL,
    NOISE_NONE,
    ConceptRows,
    Concepts,
    concept_step,
)

INF = float("inf")
TOP_K_OFF = 1 << 30


def random_logits(kind: str, rows: int, vocab: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(kind) * 1_000_003 + rows * 1009 + vocab)
    normal = torch.randn(rows, vocab, generator=generator)
    match kind:
        case "flat":
            return 0.01 * normal
        case "ordinary":
            return 3 * normal + 10
        case "peaked":
            return 15 * normal - 20
        case "bfloat16":
            return (2 * normal).bfloat16()
        case "float16":
            return (2 * normal + 5).half()
        case "few values":
            return torch.randint(0, 4, (rows, vocab), generator=generator).float()
        case "equal":
            return torch.full((rows, vocab), 7.25)
        case "masked":
            forbidden = torch.rand(rows, vocab, generator=generator) < 0.9
            forbidden[:, vocab // 2] = False
            return (3 * normal).masked_fill(forbidden, -INF)
        case _:
            raise ValueError(kind)


LOGITS = ("flat", "ordinary", "peaked", "bfloat16", "float16", "few values", "equal", "masked")


def concept_rows(rows: Sequence[Row]) -> ConceptRows:
    def reals(name: str) -> torch.Tensor:
        return torch.tensor([getattr(row, name) for row in rows], dtype=torch.float32)

    def integers(values: Sequence[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64)

    def noise_of(row: Row) -> int:
        if row.gumbel is not None:
            return NOISE_GUMBEL
        return NOISE_NONE if row.log_gamma is None else NOISE_DIRICHLET

    return ConceptRows(
        temperature=reals("temperature"),
        top_k=integers([TOP_K_OFF if row.top_k is None else row.top_k for row in rows]),
        top_p=reals("top_p"),
        min_p=reals("min_p"),
        max_topk=integers([row.max_topk for row in rows]),
        noise=integers([noise_of(row) for row in rows]),
        gumbel_temperature=reals("gumbel_temperature"),
        dirichlet_alpha=reals("dirichlet_alpha"),
        seed=integers([1000 + i for i in range(len(rows))]),
        step=integers([3 * i for i in range(len(rows))]),
    )


def step(logits: torch.Tensor, rows: Sequence[Row], more_candidates: int = 0) -> Concepts:
    """The step with as many columns and candidates as the rows need, or more candidates."""
    width = max([row.max_topk for row in rows], default=1)
    needed = max([row.top_k or 0 for row in rows], default=1)
    return concept_step(
        logits,
        concept_rows(rows),
        width=width,
        candidates=max(width, needed, more_candidates),
        with_gumbel=any(row.gumbel is not None for row in rows),
        with_dirichlet=any(row.log_gamma is not None for row in rows),
    )


def as_float32(row: Row) -> Row:
    """The parameters that the device sees."""
    names = ("temperature", "top_p", "min_p", "gumbel_temperature", "dirichlet_alpha")
    return replace(row, **{name: float(np.float32(getattr(row, name))) for name in names})


def check(
    concepts: Concepts,
    logits: torch.Tensor,
    rows: Sequence[Row],
    weight: dict[str, float] = tolerances.WEIGHT,
) -> None:
    """Compare every row with the oracle, and hold the result to its contract."""
    width = max(row.max_topk for row in rows)
    assert concepts.ids.shape == concepts.weights.shape == (len(rows), width)
    assert (concepts.ids.dtype, concepts.weights.dtype) == (torch.int64, torch.float32)
    assert concepts.entropy.shape == (len(rows),) and concepts.entropy.dtype == torch.float32
    check_contract(concepts, logits.shape[-1])
    for i, row in enumerate(rows):
        expected = concept(logits[i].double().numpy(), as_float32(row))
        used = int((concepts.weights[i] > 0).sum())
        assert concepts.ids[i, :used].tolist() == expected.ids[:used]
        np.testing.assert_allclose(concepts.weights[i, :used], expected.weights[:used], **weight)
        # what is missing underflowed
        assert all(w < weight["atol"] for w in expected.weights[used:])
        assert float(concepts.entropy[i]) == pytest.approx(expected.entropy, **tolerances.ENTROPY)


def check_contract(concepts: Concepts, vocab: int) -> None:
    """What holds for every row, whatever its logits."""
    ids, weights, entropy = concepts
    assert torch.isfinite(weights).all() and torch.isfinite(entropy).all()
    assert (entropy >= 0).all()
    assert (weights >= 0).all()
    assert (weights[:, 1:] <= weights[:, :-1]).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(weights)), **tolerances.ROW_SUM)
    assert (ids[weights == 0] == 0).all()
    assert ((ids >= 0) & (ids < vocab)).all()
    for row_ids, row_weights in zip(ids, weights, strict=True):
        used = row_ids[row_weights > 0].tolist()
        assert len(set(used)) == len(used)


@pytest.mark.parametrize("kind", LOGITS)
@pytest.mark.parametrize("name", FILTERS)
def test_filters(name: str, kind: str) -> None:
    logits = random_logits(kind, rows=8, vocab=1000)
    rows = [FILTERS[name]] * 8
    check(step(logits, rows), logits, rows)


@pytest.mark.parametrize("kind", LOGITS)
@pytest.mark.parametrize("vocab", [1, 2, 3, 7, 33, 257])
def test_small_vocabularies_and_mixed_parameters(vocab: int, kind: str) -> None:
    rows = list(FILTERS.values())
    logits = random_logits(kind, len(rows), vocab)
    check(step(logits, rows), logits, rows)


@pytest.mark.parametrize("kind", ["ordinary", "bfloat16", "masked"])
@pytest.mark.parametrize("vocab", [151935, 151936, 151937])
def test_large_vocabularies(vocab: int, kind: str) -> None:
    rows = [FILTERS["the paper's"], FILTERS["none"], FILTERS["top-p, min-p"]]
    logits = random_logits(kind, len(rows), vocab)
    check(step(logits, rows), logits, rows)


@pytest.mark.parametrize("vocab", [5, 100, 1000, 5000])
@pytest.mark.parametrize("count", [1, 2, 10, 32])
def test_lowest_ids_win_a_tie_at_the_cut(vocab: int, count: int) -> None:
    logits = torch.cat([random_logits(kind, 6, vocab).float() for kind in ("few values", "equal")])
    rows = [Row(max_topk=count)] * len(logits)
    check(step(logits, rows), logits, rows)


def test_zeros_of_both_signs_are_equal() -> None:
    logits = torch.tensor([[-0.0, 0.0, -0.0, 0.0]])
    assert step(logits, [Row(max_topk=3)]).ids.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("allowed", [0, 1, 499, 999])
@pytest.mark.parametrize("name", FILTERS)
def test_a_mask_that_leaves_one_token(name: str, allowed: int) -> None:
    logits = torch.full((1, 1000), -INF)
    logits[0, allowed] = -3.5
    concepts = step(logits, [FILTERS[name]])
    assert concepts.ids[0, 0] == allowed
    assert concepts.weights[0, 0] == 1 and concepts.weights[0, 1:].sum() == 0
    assert concepts.entropy[0] == 0


@pytest.mark.parametrize("vocab", [1, 2, 1000])
@pytest.mark.parametrize("name", FILTERS)
def test_a_mask_that_leaves_nothing_gives_token_0(name: str, vocab: int) -> None:
    rows = [FILTERS[name]]
    concepts = step(torch.full((1, vocab), -INF), rows)
    check(concepts, torch.full((1, vocab), -INF), rows)
    assert concepts.ids[0, 0] == 0 and concepts.weights[0, 0] == 1


def test_a_certain_token() -> None:
    logits = random_logits("ordinary", 1, 50)
    logits[0, 17] = INF
    concepts = step(logits, [Row()])
    assert concepts.ids[0, 0] == 17 and concepts.weights[0, 0] == 1 and concepts.entropy[0] == 0


def test_a_top_p_that_float32_rounds_to_0_keeps_the_heaviest_token() -> None:
    concepts = step(random_logits("ordinary", 1, 50), [Row(top_p=1e-50)])
    assert concepts.weights[0, 0] == 1 and concepts.weights[0, 1:].sum() == 0


def test_extreme_finite_logits() -> None:
    limit = torch.finfo(torch.float32).max
    logits = torch.tensor([[limit, -limit, 0.0], [-limit, -limit, -limit], [1e4, 1e4 - 1, -1e30]])
    rows = [Row(temperature=0.5, max_topk=2)] * 3
    check(step(logits, rows), logits, rows)


def test_dirichlet_noise_does_not_depend_on_a_neighbours_candidates() -> None:
    """Without top-k it is drawn for a number of tokens that is the row's own."""
    logits = random_logits("flat", 2, 1000)
    dirichlet = Row(log_gamma=lambda ids, concentrations: [], dirichlet_alpha=200.0)
    alone = step(logits[:1], [dirichlet], more_candidates=DIRICHLET_CANDIDATES)
    beside = step(logits, [dirichlet, Row(top_k=600)])
    assert alone.ids[0].tolist() == beside.ids[0].tolist()
    torch.testing.assert_close(beside.weights[0], alone.weights[0], **tolerances.ACROSS_BATCHES)


def test_no_rows() -> None:
    concepts = concept_step(torch.empty(0, 100), concept_rows([]), width=4, candidates=10)
    assert concepts.ids.shape == concepts.weights.shape == (0, 4)
    assert concepts.entropy.shape == (0,)


def strided(logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same logits with other strides, in the middle of numbers that would be noticed."""
    rows, vocab = logits.shape
    every_second = torch.full((rows, 2 * vocab), 99.0)[:, ::2]
    padded = torch.full((rows, vocab + 24), 99.0)[:, 8 : 8 + vocab]
    every_third_row = torch.full((3 * rows, vocab), 99.0)[1::3]
    views = {
        "every second column": every_second,
        "padded vocabulary": padded,
        "every third row": every_third_row,
        "transposed": torch.full((vocab, rows), 99.0).T,
    }
    for view in views.values():
        view.copy_(logits)
    return views


@pytest.mark.parametrize("layout", strided(torch.zeros(1, 1)))
@pytest.mark.parametrize("kind", ["ordinary", "few values", "masked"])
def test_views(kind: str, layout: str) -> None:
    rows = list(FILTERS.values())
    logits = random_logits(kind, len(rows), 333)
    check(step(strided(logits)[layout], rows), logits, rows)


def test_one_row_of_logits_for_all_requests() -> None:
    rows = list(FILTERS.values())
    logits = random_logits("ordinary", 1, 333).expand(len(rows), -1)
    check(step(logits, rows), logits, rows)


@pytest.mark.parametrize("kind", ["ordinary", "bfloat16", "masked"])
def test_logits_are_not_changed(kind: str) -> None:
    rows = [gumbel_row(0), dirichlet_row(1), *FILTERS.values()]
    logits = random_logits(kind, len(rows), 333)
    before = logits.clone()
    step(logits, rows)
    assert torch.equal(logits, before)


def noise_table(i: int, vocab: int = 1000) -> torch.Tensor:
    """Gumbel noise of row ``i`` of :func:`concept_rows`, by token."""
    seed, output_step = torch.tensor([1000 + i]), torch.tensor([3 * i])
    return noise.gumbel(seed, output_step, torch.arange(vocab)[None])[0]


def gumbel_row(i: int, **parameters: float) -> Row:
    table = noise_table(i).tolist()
    return Row(gumbel=lambda token: table[token], **parameters)


def dirichlet_row(i: int, **parameters: float) -> Row:
    def log_gamma(ids: list[int], concentrations: list[float]) -> list[float]:
        arguments = torch.tensor([1000 + i]), torch.tensor([3 * i]), torch.tensor([ids])
        return noise.log_gamma_variate(torch.tensor([concentrations]), *arguments)[0].tolist()

    return Row(log_gamma=log_gamma, **parameters)


@pytest.mark.parametrize("kind", ["flat", "ordinary", "bfloat16", "masked"])
@pytest.mark.parametrize("tau", [0.1, 0.5, 3.0])
def test_gumbel_noise(kind: str, tau: float) -> None:
    logits = random_logits(kind, rows=9, vocab=1000)
    rows = [gumbel_row(i, gumbel_temperature=tau, max_topk=3 + i) for i in range(6)]
    rows += [gumbel_row(6, top_p=0.9), gumbel_row(7, top_k=30, min_p=0.01), gumbel_row(8, top_k=1)]
    check(step(logits, rows), logits, rows, tolerances.GUMBEL_WEIGHT)


@pytest.mark.parametrize("kind", ["flat", "ordinary", "bfloat16", "masked"])
@pytest.mark.parametrize("alpha", [1.0, 30.0, 1e4])
def test_dirichlet_noise(kind: str, alpha: float) -> None:
    logits = random_logits(kind, rows=4, vocab=1000)
    rows = [dirichlet_row(i, dirichlet_alpha=alpha, top_k=12, max_topk=4 + i) for i in range(2)]
    rows += [
        dirichlet_row(2, dirichlet_alpha=alpha, top_k=30, top_p=0.9, min_p=0.05),
        dirichlet_row(3, dirichlet_alpha=alpha, top_k=1),
    ]
    check(step(logits, rows), logits, rows, tolerances.DIRICHLET_WEIGHT)


def test_noise_of_one_row_leaves_the_others_alone() -> None:
    rows = [gumbel_row(0, top_k=9), Row(), dirichlet_row(2, top_k=9), FILTERS["the paper's"]]
    logits = random_logits("ordinary", len(rows), 1000)
    concepts = step(logits, rows)
    check(concepts, logits, rows, tolerances.DIRICHLET_WEIGHT)
    quiet = Concepts(*(field[1::2] for field in concepts))
    check(quiet, logits[1::2], rows[1::2])


@pytest.mark.parametrize("kind", LOGITS)
def test_a_row_does_not_depend_on_its_neighbours(kind: str) -> None:
    rows = [gumbel_row(0, top_k=50), dirichlet_row(1, top_k=7), *FILTERS.values()]
    logits = random_logits(kind, len(rows), 777)
    together = step(logits, rows, more_candidates=300)
    parameters = concept_rows(rows)
    for i, row in enumerate(rows):
        alone = concept_step(
            logits[i : i + 1],
            ConceptRows(*(field[i : i + 1] for field in parameters)),
            width=row.max_topk,
            candidates=max(row.max_topk, row.top_k or 0),
            with_gumbel=row.gumbel is not None,
            with_dirichlet=row.log_gamma is not None,
        )
        assert torch.equal(alone.ids[0], together.ids[i, : row.max_topk])
        torch.testing.assert_close(
            alone.weights[0], together.weights[i, : row.max_topk], **tolerances.ACROSS_BATCHES
        )
        assert together.weights[i, row.max_topk :].sum() == 0
        torch.testing.assert_close(
            alone.entropy[0], together.entropy[i], **tolerances.ACROSS_BATCHES
        )


@pytest.mark.parametrize("poison", ["one NaN", "all NaN", "NaN and infinity", "+infinity"])
def test_a_poisoned_row_does_not_disturb_the_others(poison: str) -> None:
    rows = [Row(max_topk=10), FILTERS["the paper's"], gumbel_row(2), dirichlet_row(3, top_k=9)]
    logits = random_logits("ordinary", len(rows), 500)
    clean = step(logits, rows)
    for i in range(len(rows)):
        poisoned = logits.clone()
        match poison:
            case "one NaN":
                poisoned[i, 123] = torch.nan
            case "all NaN":
                poisoned[i] = torch.nan
            case "NaN and infinity":
                poisoned[i, ::3] = torch.nan
                poisoned[i, 1::3] = INF
                poisoned[i, 2::3] = -INF
            case "+infinity":
                poisoned[i, [3, 400]] = INF
        concepts = step(poisoned, rows)
        others = [j for j in range(len(rows)) if j != i]
        for result, expected in zip(concepts, clean, strict=True):
            assert torch.equal(result[others], expected[others])
        check_contract(concepts, vocab=500)
