"""Tokens of rows that do not think: drawn from the filtered distribution, replayed by seed."""

from dataclasses import replace

import numpy as np
import pytest
import tolerances
import torch
from float64_oracle import Row, concept
from one_thread import one_thread  # noqa: F401 - the import switches it on
from random_inputs import DEVICE, INF, generator, random_logits
from scipy import stats
from steps import IMPLEMENTATIONS, Batch, Request, as_float32, check

from soft_sglang.kernels import noise
from soft_sglang.state_machine import Phase

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")
BOTH = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
RULES = pytest.mark.parametrize("joint", [True, False], ids=["joint", "one after another"])


def discrete(**parameters: float) -> Request:
    return Request(Row(**parameters), phase=Phase.DISCRETE)


def answering(**parameters: float) -> Request:
    """Its own parameters are not the ones of its answer."""
    return Request(UNUSED, phase=Phase.ANSWERING, answer=Row(**parameters), think_end=3)


UNUSED = Row(temperature=3.0, top_k=2, max_topk=2)


def sampling_row(request: Request) -> Row:
    return as_float32(request.answer if request.phase is Phase.ANSWERING else request.row)


def distribution(logits: torch.Tensor, row: Row, joint: bool) -> dict[int, float]:
    """The filtered distribution in float64.

    Joint: every filter looks at the probabilities as they are. Else, with a min-p, each looks at
    those that the one before has left, renormalised, as in a concept.
    """
    scores = logits.double().numpy() / row.temperature
    if not joint and row.min_p > 0:
        kept = concept(logits.double().numpy(), replace(row, max_topk=len(scores)))
        return dict(zip(kept.ids, kept.weights, strict=True))
    p = np.exp(scores - scores.max())
    p /= p.sum()
    order = np.argsort(-scores, kind="stable")
    before = np.cumsum(p[order]) - p[order]
    rank = np.arange(len(p))
    keep = rank < (row.top_k or len(p))
    if row.top_p < 1:
        keep &= (before < row.top_p) | (rank == 0)
    keep &= p[order] >= row.min_p * p.max()
    kept = order[keep & (p[order] > 0)]
    return dict(zip(kept.tolist(), (p[kept] / p[kept].sum()).tolist(), strict=True))


def distributions(logits: torch.Tensor, row: Row, joint: bool) -> list[dict[int, float]]:
    """With the cuts of top-p and min-p where they are and a little beside."""
    return [
        distribution(
            logits,
            replace(
                row,
                top_p=row.top_p * (1 + cut) if row.top_p < 1 else row.top_p,
                min_p=min(1.0, row.min_p * (1 - cut)),
            ),
            joint,
        )
        for cut in (0.0, tolerances.CUT, -tolerances.CUT)
    ]


def wins(token: int, p: dict[int, float], seed: int) -> bool:
    """Whether a token has the largest perturbed log probability, in float64."""
    if token not in p:
        return False
    ids = torch.tensor([list(p)])
    gumbel = noise.sampling_gumbel(torch.tensor([seed]), torch.tensor([0]), ids)[0].double()
    scores = torch.tensor(list(p.values()), dtype=torch.float64).log() + gumbel
    winner = scores[list(p).index(token)]
    return bool(winner >= scores.max() - tolerances.SCORE)


MIXED = [
    discrete(top_k=1),
    discrete(top_k=30, top_p=0.8, temperature=0.9),
    discrete(),
    Request(Row(top_k=9), think_end=4),
    answering(),
    answering(top_k=12, top_p=0.7, min_p=0.02, temperature=1.5),
    answering(top_k=1),
    discrete(top_k=20, min_p=0.1),
    discrete(temperature=0.02),
    discrete(top_p=0.5, temperature=0.1, max_topk=32),
]


@pytest.fixture(scope="module")
def mixed_logits() -> torch.Tensor:
    return random_logits("ordinary", len(MIXED), 5000, torch.float32, generator("mixed"))


def some_seeds(count: int, *key: object) -> list[int]:
    rng = generator("seeds", *key)
    return torch.randint(-(2**63), 2**63 - 1, (count,), generator=rng).tolist()


@RULES
def test_the_token_wins_the_race_of_its_seed(mixed_logits, joint) -> None:
    """Filtered and unfiltered rows of every phase in one batch; nothing else is written."""
    seeds = some_seeds(len(MIXED), joint)
    plan = {"samples": True, "with_unfiltered": True, "joint_filters": joint}
    batch = Batch(MIXED, candidates=32)
    before = batch.copy()
    result = batch.run("kernels", mixed_logits, seeds, **plan)
    check(batch, before, mixed_logits, result)
    for i, request in enumerate(MIXED):
        if request.phase is not Phase.THINKING:
            choices = distributions(mixed_logits[i], sampling_row(request), joint)
            assert any(wins(int(result.token[i]), p, seeds[i]) for p in choices), i
    # a part of the batch: every row draws as before
    rows = [1, 2, 4, 9]
    part = Batch(MIXED, candidates=32, rows=rows).run("kernels", mixed_logits, seeds, **plan)
    assert part.token.tolist() == result.token[rows].tolist()


def test_other_seeds_give_other_tokens() -> None:
    """Equal ones the same, wherever the row is."""
    batch = Batch([discrete()] * 4)
    logits = torch.zeros(4, 5000)
    tokens = batch.run("kernels", logits, [7, 8, 9, 7], samples=True, with_unfiltered=True).token
    assert tokens[0] == tokens[3]
    assert len(set(tokens.tolist())) == 3


@BOTH
def test_greedy(implementation) -> None:
    """Top-k of 1, whatever the rest: the largest logit, of equal ones the lowest id."""
    rng = generator("greedy")
    logits = torch.cat(
        [random_logits(kind, 3, 700, torch.bfloat16, rng) for kind in ("ordinary", "few values")]
    )
    requests = [discrete(top_k=1), discrete(top_k=1, top_p=0.3, min_p=0.5), answering(top_k=1)] * 2
    result = Batch(requests).run(implementation, logits, some_seeds(6), samples=True)
    expected = [int((row == row.max()).nonzero()[0]) for row in logits]
    assert result.token.tolist() == expected


@BOTH
def test_rows_without_a_distribution(implementation) -> None:
    """Token 0; and a single token that is allowed is certain."""
    logits = torch.full((6, 4100), -INF)
    logits[2:4] = torch.nan
    logits[4:, 4099] = -8.0
    requests = [discrete(), discrete(top_k=5)] * 3
    result = Batch(requests, candidates=8).run(
        implementation, logits, some_seeds(6), samples=True, with_unfiltered=True
    )
    assert result.token.tolist() == [0, 0, 0, 0, 4099, 4099]


# Frequencies. The interpreter draws too few tokens to tell more than a broken support.

FILTERED = {
    "top-k": Row(top_k=6),
    "all": Row(top_k=12, top_p=0.75, min_p=0.05, temperature=1.4),
    "top-p": Row(top_k=30, top_p=0.6),
}


def check_frequencies(tokens: torch.Tensor, p: dict[int, float]) -> None:
    counts = torch.bincount(tokens.cpu(), minlength=max(p) + 1)
    assert set(counts.nonzero().flatten().tolist()) <= p.keys()
    expected = np.array(list(p.values())) * len(tokens)
    observed = counts[list(p)].double().numpy()
    order = np.argsort(-expected)
    expected, observed = expected[order], observed[order]
    cells = max(int((expected >= 5).sum()), 1)
    expected = np.append(expected[:cells], expected[cells:].sum())
    observed = np.append(observed[:cells], observed[cells:].sum())
    if expected[-1] < 5:  # the rest joins the smallest cell
        expected = np.append(expected[:-2], expected[-2:].sum())
        observed = np.append(observed[:-2], observed[-2:].sum())
    if len(expected) > 1:
        assert stats.chisquare(observed, expected).pvalue > tolerances.FRESH_P_VALUE


def draws(implementation: str, many: int) -> int:
    return many if implementation == "reference" or DEVICE.type == "cuda" else 6


@BOTH
@RULES
@pytest.mark.parametrize("name", FILTERED)
def test_frequencies_of_filtered_rows(implementation, joint, name) -> None:
    row = FILTERED[name]
    logits = 1.5 * torch.randn(60, generator=generator("frequencies", name))
    count = draws(implementation, 20_000)
    batch = Batch([Request(row, phase=Phase.DISCRETE)])
    batch.requests, batch.slots = batch.requests * count, batch.slots.repeat(count)
    result = batch.run(
        implementation,
        logits.expand(count, -1),
        some_seeds(count, name, joint),
        samples=True,
        joint_filters=joint,
    )
    seen = set(result.token.tolist())
    p = next(
        (p for p in distributions(logits, as_float32(row), joint) if seen <= p.keys()),
        distribution(logits, as_float32(row), joint),
    )
    check_frequencies(result.token, p)


@BOTH
def test_frequencies_of_unfiltered_rows(implementation) -> None:
    """Three chunks, one with little, one with most of the mass, and forbidden tokens."""
    vocab = 9000
    logits = 2 * torch.randn(vocab, generator=generator("unfiltered"))
    logits[4096:8192] += 2
    logits[::5] = -INF
    count = draws(implementation, 4000)
    batch = Batch([discrete(temperature=1.2)])
    batch.requests, batch.slots = batch.requests * count, batch.slots.repeat(count)
    result = batch.run(
        implementation,
        logits.expand(count, -1),
        some_seeds(count, "unfiltered"),
        samples=True,
        with_unfiltered=True,
    )
    check_frequencies(result.token, distribution(logits, as_float32(Row(temperature=1.2)), True))


# The joint rule is that of SGLang's own sampler.


def test_joint_filters_are_those_of_stock_sglang() -> None:
    sampler = pytest.importorskip("sglang.srt.layers.sampler")
    rows = [*FILTERED.values(), Row(top_k=40, min_p=0.2), Row(top_k=1), Row(top_k=50, top_p=0.99)]
    rng = generator("stock")
    for row in map(as_float32, rows):
        logits = 2 * torch.randn(300, generator=rng)
        _, weights, ids, _ = sampler.top_k_top_p_min_p_sampling_from_probs_torch(
            torch.softmax(logits / row.temperature, dim=-1)[None],
            torch.tensor([row.top_k]),
            torch.tensor([row.top_p]),
            torch.tensor([row.min_p]),
            need_min_p_sampling=True,
            sampling_seed=None,
            positions=torch.tensor([0]),
            return_filtered_probs=True,
        )
        support = set(ids[0, weights[0] > 0].tolist())
        assert support in [p.keys() for p in distributions(logits, row, joint=True)]
