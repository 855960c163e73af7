"""The thinking step, kernels and reference, against float64 and the scheduler's state machine."""

from dataclasses import replace
from decimal import Decimal, localcontext
from itertools import cycle

import pytest
import tolerances
import torch
from filters import FILTERS
from float64_oracle import Row
from one_thread import one_thread  # noqa: F401 - the import switches it on
from random_inputs import DEVICE, INF, KINDS, LAYOUTS, generator, random_logits, strided
from steps import IMPLEMENTATIONS, Batch, Request, check_row, step_and_check

from soft_sglang.kernels import thinking_step_triton
from soft_sglang.kernels.thinking_step import StepPlan, StepResult
from soft_sglang.state_machine import Phase

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")
BOTH = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16

# Every filter, kind of logits, size, type, layout and number of candidates, but not their product.
VARIETY = list(
    zip(
        [list(FILTERS)[i : i + 3] for i in range(0, 17, 2)] * 2,
        cycle(KINDS),
        cycle([1, 2, 100, 4096, 5000, 7, 4095, 4097, 33, 900]),
        cycle([F32, BF16, F16, F32]),
        cycle(LAYOUTS[:5]),
        cycle([2, 200, 32, 33, 64]),
        strict=False,
    )
)


@BOTH
@pytest.mark.parametrize(("names", "kind", "vocab", "dtype", "layout", "candidates"), VARIETY)
def test_variety(implementation, names, kind, vocab, dtype, layout, candidates) -> None:
    rng = generator("variety", names, kind, vocab)
    logits = strided(random_logits(kind, len(names), vocab, dtype, rng), layout)
    batch = Batch([Request(FILTERS[name]) for name in names], candidates=candidates)
    before = logits.clone()
    step_and_check(batch, logits, implementation)
    assert torch.equal(logits, before)


@pytest.mark.parametrize(
    ("vocab", "kind", "dtype", "layout"),
    [
        (151935, "ordinary", F32, "odd row stride"),
        (151936, "masked", BF16, "padded vocabulary"),
        (151937, "few values", F16, "contiguous"),
        (262144, "ordinary", F32, "transposed"),
    ],
)
def test_large_vocabularies(vocab, kind, dtype, layout) -> None:
    rng = generator("large", vocab)
    logits = strided(random_logits(kind, 2, vocab, dtype, rng), layout)
    requests = [Request(FILTERS["the paper's"]), Request(FILTERS["none"])]
    step_and_check(Batch(requests, candidates=32), logits)


def test_reference_on_a_large_vocabulary() -> None:
    logits = random_logits("ordinary", 2, 151937, F32, generator("large reference"))
    requests = [Request(FILTERS["the paper's"]), Request(FILTERS["none"])]
    step_and_check(Batch(requests), logits, "reference")


# The entropy.


def exact_entropy(logits: torch.Tensor, temperature: float) -> float:
    """With 40 digits: an entropy of 1e-12 is lost in the float64 oracle's ``log p``."""
    with localcontext() as context:
        context.prec = 40
        values = [Decimal(x) / Decimal(temperature) for x in logits.tolist()]
        peak = max(values)
        weights = [(x - peak).exp() for x in values]
        total = sum(weights)
        spread = sum(w * (x - peak) for w, x in zip(weights, values, strict=True))
        return float(total.ln() - spread / total)


@BOTH
def test_entropies_of_every_size(implementation) -> None:
    """From one token that has nearly everything to the uniform distribution over two chunks."""
    vocab, temperature = 4500, 0.75
    rng = generator("entropies")
    noise = torch.rand(8, vocab, generator=rng)
    below = torch.tensor([41.0, 31.0, 24.0, 18.0, 12.0, 7.0, 3.0, 0.0])[:, None]
    logits = temperature * (noise * (below > 0) - below)
    peaks = torch.randint(0, vocab, (7,), generator=rng)
    logits[torch.arange(7), peaks] = 0.0
    requests = [Request(Row(temperature=temperature, max_topk=2))] * 8
    result = Batch(requests).run(implementation, logits)
    expected = [exact_entropy(row, temperature) for row in logits]
    assert expected[0] < 1e-11 and expected[7] > 8.4
    for actual, exact in zip(result.entropy.tolist(), expected, strict=True):
        assert actual == pytest.approx(exact, rel=tolerances.ENTROPY["rel"], abs=0)


# Rows without a distribution, and certain ones.


@BOTH
@pytest.mark.parametrize("candidates", [10, 100])
def test_broken_rows(implementation, candidates) -> None:
    """Nothing but one token for NaN and infinity; every other row as if it were alone."""
    vocab = 4200
    logits = random_logits("ordinary", 9, vocab, F32, generator("broken"))
    logits[1] = -INF
    logits[2] = torch.nan
    logits[3, 4150] = torch.nan
    logits[4, 7] = INF
    logits[5, ::2] = torch.nan
    logits[5, 1::2] = -torch.nan
    logits[6, [3, 4100]] = INF
    logits[7] = -INF
    logits[7, vocab - 1] = -3.5
    row = Row(top_k=7, top_p=0.9, min_p=0.01, max_topk=6)
    kinds = ["none", "none", "gumbel", "dirichlet", "gumbel", "none", "dirichlet", "none", "none"]
    requests = [Request(row, noise=kind, seed=i, think_end=9) for i, kind in enumerate(kinds)]
    batch = Batch(requests, candidates=candidates)
    before = batch.copy()
    result = batch.run(implementation, logits)
    for i in (0, 1, 7, 8):
        one = StepResult(*(column[i].cpu() for column in result))
        check_row(requests[i], logits[i], one)
    for i in (1, 2, 3, 4, 5, 6):
        assert result.weights[i].tolist() == [1.0] + [0.0] * 5
        assert result.entropy[i] == 0
        assert result.ids[i, 1:].tolist() == [0] * 5
        assert result.token[i] == result.proposal[i] == result.ids[i, 0]
    assert result.token[1:7].tolist() == [0, 0, 0, 7, 0, 3]
    assert result.end_allowed.tolist() == [bool(x > -INF) for x in logits[:, 9]]
    assert torch.equal(batch.table.integers, before.integers)


@BOTH
@pytest.mark.parametrize("vocab", [1, 4097])
def test_extreme_finite_logits(implementation, vocab) -> None:
    limit = torch.finfo(F32).max
    logits = torch.full((3, vocab), -limit)
    logits[0, vocab - 1] = limit
    logits[2, :2] = torch.tensor([1e4, 1e4 - 1])[: logits.shape[1]]
    requests = [Request(Row(temperature=0.5, max_topk=2))] * 3
    step_and_check(Batch(requests), logits, implementation)


# Ties.


@pytest.mark.parametrize("count", [1, 2, 10, 32])
def test_lowest_ids_win_a_tie_at_the_cut(count) -> None:
    """Ties within a segment, across segments and across chunks."""
    rng = generator("ties", count)
    logits = torch.stack(
        [random_logits(kind, 1, 8200, F32, rng)[0] for kind in ("few values", "equal")]
    )
    logits[0, :4096] -= 4  # the winners lie in the other chunks
    step_and_check(Batch([Request(Row(max_topk=count))] * 2), logits)


@BOTH
def test_zeros_of_both_signs_are_equal(implementation) -> None:
    logits = torch.tensor([[-0.0, 0.0, -0.0, 0.0]])
    result = Batch([Request(Row(max_topk=3))]).run(implementation, logits)
    assert result.proposal.item() == 0
    requests = [Request(Row(max_topk=3), think_end=3)]
    assert Batch(requests).run(implementation, logits).ids.tolist() == [[0, 1, 2]]


# Noise.


def noisy(kind: str, rows: int, rng: torch.Generator) -> list[Request]:
    """Requests with seeds and steps of every size."""
    seeds = torch.randint(-(2**63), 2**63 - 1, (rows,), generator=rng).tolist()
    steps = torch.randint(0, 2**18, (rows,), generator=rng).tolist()
    return [Request(noise=kind, seed=seeds[i], step=steps[i]) for i in range(rows)]


@BOTH
@pytest.mark.parametrize(
    ("kind", "tau", "dtype"), [("flat", 0.1, F32), ("ordinary", 0.5, BF16), ("masked", 3.0, F32)]
)
def test_gumbel_noise(implementation, kind, tau, dtype) -> None:
    rng = generator("gumbel", kind)
    rows = [
        Row(gumbel_temperature=tau, max_topk=32),
        Row(gumbel_temperature=tau, top_p=0.9),
        Row(gumbel_temperature=tau, top_k=30, min_p=0.01, max_topk=3),
    ]
    requests = [replace(r, row=row) for r, row in zip(noisy("gumbel", 3, rng), rows, strict=True)]
    requests[1:1] = [Request(FILTERS["the paper's"])]
    logits = random_logits(kind, len(requests), 1000, dtype, rng)
    step_and_check(Batch(requests), logits, implementation)


@BOTH
@pytest.mark.parametrize(
    ("kind", "alpha", "candidates"),
    [("flat", 1e4, 12), ("ordinary", 1.0, 256), ("masked", 30.0, 64)],
)
def test_dirichlet_noise(implementation, kind, alpha, candidates) -> None:
    """Without top-k the noise is drawn for all candidates."""
    rng = generator("dirichlet", kind)
    row = Row(dirichlet_alpha=alpha, top_k=min(candidates, 255))
    rows = [row, replace(row, top_p=0.9, min_p=0.01, max_topk=4)]
    requests = [
        replace(r, row=row) for r, row in zip(noisy("dirichlet", 2, rng), rows, strict=True)
    ]
    requests += [replace(noisy("gumbel", 1, rng)[0], row=FILTERS["the paper's"]), Request(Row())]
    logits = random_logits(kind, len(requests), 1000, F32, rng)
    step_and_check(Batch(requests, candidates=candidates), logits, implementation)


# The table.


@BOTH
@pytest.mark.parametrize(
    ("rows", "slot_type"),
    [(None, torch.int64), ([0, 2, 3, 5], torch.int32), ([4], torch.int64), ([], torch.int64)],
)
def test_rows_of_every_phase(implementation, rows, slot_type) -> None:
    """Only THINKING rows of the batch that are asked for are written, and all of what they need."""
    rng = generator("phases")
    logits = random_logits("ordinary", 6, 300, F32, rng)
    top = logits.argmax(-1).tolist()
    requests = [
        Request(FILTERS["the paper's"], think_end=299, step=4, run=3),
        Request(FILTERS["top-k"], phase=Phase.DISCRETE),
        Request(FILTERS["K of 32"], think_end=top[2], step=2**31 + 5),  # ends by itself
        Request(FILTERS["top-p"], phase=Phase.ANSWERING, think_end=5, step=7),
        Request(Row(), entropy_threshold=9.0, length_threshold=3, run=2, think_end=7),  # stopped
        Request(Row(max_topk=2), entropy_threshold=9.0, length_threshold=3, run=1, think_end=7),
    ]
    batch = Batch(requests, rows=rows)
    batch.slots = batch.slots.to(slot_type)
    result = step_and_check(batch, logits, implementation)
    thinking = [requests[b].phase is Phase.THINKING for b in batch.indices()]
    assert [token != -1 for token in result.token.tolist()] == thinking
    if rows is None:
        assert [batch.table.phase[int(s)] for s in batch.slots] == [1, 0, 2, 2, 2, 1]


FORCING = {"end": (7, 8, 9), "cold_stop": (5, 6, 7, 8, 9)}


@BOTH
@pytest.mark.parametrize("rows", [None, [1, 3, 4]])
def test_markers_of_several_tokens(implementation, rows) -> None:
    """Every place of a match and of a forced sequence, among rows of one token."""
    logits = random_logits("ordinary", 12, 300, F32, generator("markers"))
    for row, favourite in {1: 9, 2: 9, 3: 8, 4: 8, 7: 7, 11: 8}.items():
        logits[row, favourite] = logits[row].max() + 2.0
    logits[8, 6] = logits[9, 5] = logits[10, 6] = -INF
    cold = {"entropy_threshold": 90.0, "length_threshold": 3, "run": 2, "thought": 8}
    requests = [
        Request(think_end=299, thought=3),
        Request(**FORCING, matched=0b10, thought=3),  # completed
        Request(**FORCING, matched=0b01, thought=3),  # the middle token is missing
        Request(**FORCING, matched=0b01, thought=3),  # goes on
        Request(**FORCING, **cold, matched=0b01),  # due, and on the way: the rest of the marker
        Request(**FORCING, **cold),  # due
        Request(**FORCING, max_thinking_steps=8, thought=8),  # the budget
        Request(end=(7, 7, 7), matched=0b011),  # overlaps itself
        Request(**FORCING, forced=1, run=5, thought=9),  # the next one is forbidden: given up
        Request(**FORCING, forced=2, run=5, thought=9),  # one that is behind is forbidden
        Request(**FORCING, **cold),  # one that would come is forbidden
        Request(**FORCING, forced=4, run=5, thought=9),  # the last one
    ]
    batch = Batch(requests, rows=rows, key=str(rows))
    result = step_and_check(batch, logits, implementation)
    if rows is None:
        heaviest = logits.argmax(-1).tolist()
        assert result.token.tolist() == [
            heaviest[0],
            9,
            9,
            8,
            8,
            5,
            5,
            7,
            heaviest[8],
            7,
            heaviest[10],
            9,
        ]
        slots = batch.slots
        assert batch.table.phase[slots].tolist() == [1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 2]
        assert batch.table.forced[slots].tolist() == [0, 0, 0, 0, 4, 1, 1, 0, 0, 3, 0, 0]


@BOTH
def test_padding_rows(implementation) -> None:
    """A graph's batch is filled up with the padding slot, which stays discrete and empty."""
    requests = [Request(), *[Request(phase=Phase.DISCRETE)] * 3]
    batch = Batch(requests)
    batch.slots[1:] = 0
    batch.table.phase[0] = Phase.DISCRETE
    before = batch.copy()
    logits = random_logits("ordinary", 4, 100, F32, generator("padding"))
    logits[2:] = torch.nan
    result = batch.run(implementation, logits)
    assert result.token[1:].tolist() == [-1, -1, -1]
    for old, new in zip(before, batch.table, strict=True):
        assert torch.equal(old[0], new[0])


@BOTH
def test_no_rows(implementation) -> None:
    result = step_and_check(Batch([], width=4), torch.empty(0, 100), implementation)
    assert result.ids.dtype == torch.int64 and result.weights.dtype == F32


@BOTH
def test_cold_stop_over_steps(implementation) -> None:
    """Side by side with the scheduler's state machine, think-end forbidden for a while."""
    rng = generator("cold stop")
    think_end, vocab, steps = 11, 60, 6
    sharp = torch.tensor(  # low entropy or not
        [[1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 1], [1, 0, 0, 1, 0, 1]]
    )
    requests = [
        Request(Row(max_topk=3), entropy_threshold=0.5, length_threshold=n, think_end=think_end)
        for n in (3, 3, 2)
    ]
    batch = Batch(requests)
    hosts = [request.state for request in requests]
    for t in range(steps):
        logits = (
            torch.where(sharp[:, t, None] == 1, 20.0, 1.0)
            * torch.rand(3, vocab, generator=rng).square()
        )
        favourite = torch.randint(20, vocab, (3,), generator=rng)
        logits[torch.arange(3), favourite] += torch.where(sharp[:, t] == 1, 40.0, 2.0)
        logits[0, think_end] = -INF if t < 4 else 0.0
        result = batch.run(implementation, logits)
        for i, host in enumerate(hosts):
            slot = int(batch.slots[i])
            if host.phase is Phase.THINKING:
                allowed = bool(logits[i, think_end] > -INF)
                assert bool(result.end_allowed[i]) == allowed
                token = host.advance(int(favourite[i]), float(result.entropy[i]), allowed)
                assert (float(result.entropy[i]) < 0.5) == bool(sharp[i, t])
                assert result.token[i] == token
                assert batch.table.run[slot] == host.run
                assert batch.table.step[slot] == host.steps
            else:
                assert result.token[i] == -1
            assert batch.table.phase[slot] == host.phase
    assert [host.steps for host in hosts] == [5, 6, 6]
    assert [host.phase for host in hosts] == [Phase.ANSWERING] * 2 + [Phase.THINKING]


# What the kernels do not do.


@pytest.mark.parametrize(("vocab", "candidates"), [(2**24, 2), (100, 257)])
def test_refusal(vocab, candidates) -> None:
    batch = Batch([Request(Row(max_topk=2))], candidates=candidates)
    logits = torch.zeros(1, 1, device=DEVICE).expand(1, vocab)
    with pytest.raises(ValueError, match=r"candidates: 257 is above|vocabulary: 16777216 is not"):
        thinking_step_triton.thinking_step(
            logits,
            batch.sampling,
            batch.table,
            batch.slots,
            None,
            StepPlan(width=2, candidates=candidates),
            None,
        )
