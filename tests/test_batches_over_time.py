"""Many requests over time against the oracle: batches that change, retraction, widths."""

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import tolerances
import torch
from float64_oracle import Row, concept
from one_thread import one_thread  # noqa: F401 - the import switches it on
from soft_batches import (
    INF,
    PARAMS,
    SAMPLED,
    THINK_END,
    TOP_K_OFF,
    VOCAB,
    Request,
    assert_rows_unchanged,
    assert_same,
    contents,
    fed,
    logits_of,
    run,
    started,
)

from soft_sglang.concept_table import ConceptTable, RowStart
from soft_sglang.kernels import noise
from soft_sglang.kernels.table_rows import NO_LIMIT
from soft_sglang.parameters import SoftThinkingParams
from soft_sglang.state_machine import Phase, ThinkingState


def oracle_row(request: Request, step: int) -> Row:
    """The request's parameters as the device sees them, with its noise at an output position."""
    params = request.params
    assert params is not None
    seed, position = torch.tensor([params.seed]), torch.tensor([step])

    def gumbel(token: int) -> float:
        return noise.gumbel(seed, position, torch.tensor([[token]])).item()

    def log_gamma(ids: list[int], concentrations: list[float]) -> list[float]:
        arguments = seed, position, torch.tensor([ids])
        return noise.log_gamma_variate(torch.tensor([concentrations]), *arguments)[0].tolist()

    return Row(
        temperature=float(np.float32(request.temperature)),
        top_k=None if request.top_k == TOP_K_OFF else request.top_k,
        top_p=float(np.float32(request.top_p)),
        min_p=float(np.float32(request.min_p)),
        max_topk=params.max_topk,
        gumbel=gumbel if params.noise == "gumbel" else None,
        gumbel_temperature=params.gumbel_softmax_temperature,
        log_gamma=log_gamma if params.noise == "dirichlet" else None,
        dirichlet_alpha=params.dirichlet_alpha,
    )


class Expected:
    """One request on the host: the oracle and the scheduler's state machine."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.emitted = 0
        """Output tokens, as far as the device counts them."""
        self.fed: list[tuple[int, float]] = []
        self.state: ThinkingState | None = None
        self.seen: set[str] = set()
        """What has happened to the request."""
        if request.params is not None:
            self.state = request.state()

    def step(self, logits: torch.Tensor, sampled: int, counts_answers: bool) -> int:
        """The token that the step emits."""
        state = self.state
        if state is None:
            return sampled
        if state.phase is not Phase.THINKING:
            self.emitted += counts_answers
            if state.answer(sampled):
                self.seen.add("thinks again")
            return sampled
        expected = concept(logits.double().numpy(), oracle_row(self.request, self.emitted))
        rules, forced = state.rules, state.forced
        allowed = all(bool(logits[i] > -INF) for i in rules.forced_ids[forced:])
        token = state.advance(expected.ids[0], expected.entropy, allowed)
        self.fed = list(zip(expected.ids, expected.weights, strict=True))
        if state.phase is Phase.ANSWERING or state.forced:
            self.fed = [(token, 1.0)]
        self.emitted += 1
        if state.phase is Phase.ANSWERING:
            assert state.end is not None
            natural = state.end == "think_end"
            ids = rules.end_ids if natural else rules.forced_ids
            self.seen.add(f"{state.end} of {'one' if len(ids) == 1 else 'several'}")
            if natural and len(rules.end_ids) < len(self.request.params.think_end_ids):
                self.seen.add("first token")
        elif forced and not state.forced:
            self.seen.add("given up")
        elif state.forced > forced + 1:
            self.seen.add("the rest of the marker")
        return token

    def check(self, table: ConceptTable) -> None:
        slot = self.request.slot
        row = fed(table, slot)
        # what is missing underflowed
        assert all(w < tolerances.DIRICHLET_WEIGHT["atol"] for _, w in self.fed[len(row) :])
        assert_same(row, self.fed[: len(row)], tolerances.DIRICHLET_WEIGHT)
        state = self.state
        if state is None:
            assert table.rows.phase[slot] == Phase.DISCRETE
            return
        columns = [state.phase, state.run, self.emitted, state.steps, state.forced, state.matched]
        assert table.rows.state[slot].tolist() == columns

    def favour(self, logits: torch.Tensor) -> None:
        """Make the next token of a match the heaviest one."""
        if self.state is not None and self.state.phase is Phase.THINKING:
            end_ids = self.state.rules.end_ids
            # the first token of a marker is the first match; what is forced may be more of them
            logits[end_ids[self.state.matched.bit_length() % len(end_ids)]] = 12.0


FEW = 5
"""Tokens that markers are made of: few, so that they begin, overlap and occur."""


def random_markers(rng: np.random.Generator) -> dict[str, Any]:
    """What begins and ends the thoughts of a request."""

    def random_ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.integers(FEW, size=rng.integers(low, high + 1)).tolist())

    think_end = random_ids(1, 4) if rng.random() < 0.7 else (int(rng.integers(VOCAB)),)
    before: tuple[int, ...] = ()
    if rng.random() < 0.4:  # without the marker
        before = tuple(i + FEW for i in random_ids(1, 3))
    return {
        "think_end_ids": think_end,
        "cold_stop_ids": before + think_end,
        "think_end_first_token": bool(rng.random() < 0.2),
        "think_start_ids": random_ids(1, 2) if rng.random() < 0.3 else (),
        "max_thinking_steps": int(rng.choice([0, 3, 8])) if rng.random() < 0.4 else NO_LIMIT,
    }


def random_request(rng: np.random.Generator, slot: int) -> Request:
    params = None
    if rng.random() < 0.75:
        params = replace(
            PARAMS,
            max_topk=int(rng.integers(1, 7)),
            early_stopping_entropy_threshold=float(rng.choice([0.0, 0.5, 1.5])),
            early_stopping_length_threshold=int(rng.integers(1, 5)),
            **random_markers(rng),
            seed=int(rng.integers(-(2**63), 2**63 - 1)),
            noise=str(rng.choice(["none", "gumbel", "dirichlet"])),
            dirichlet_alpha=float(rng.choice([1.0, 30.0])),
            separate_answer=bool(rng.random() < 0.5),
        )
    return Request(
        slot,
        params,
        temperature=float(rng.choice([0.6, 1.0, 1.5])),
        top_p=float(rng.choice([0.8, 0.95, 1.0])),
        top_k=int(rng.choice([1, 3, 20, TOP_K_OFF])),
        min_p=float(rng.choice([0.0, 0.05])),
    )


COMMON = {
    *(f"{end} of several" for end in ("think_end", "cold_stop", "budget")),
    *("think_end of one", "first token", "the rest of the marker", "given up", "thinks again"),
}


@pytest.mark.parametrize("seed", range(4))
def test_random_batches_over_time(seed: int) -> None:
    """Requests come, think, answer and go; slots are reused; the batch changes every step."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    table = ConceptTable(rows=8, width=6, device="cpu")
    live: list[Expected] = []
    seen: set[str] = set()
    for _ in range(250):
        free = sorted(set(range(1, 8)) - {e.request.slot for e in live})
        arriving = [
            random_request(rng, int(slot)) for slot in rng.permutation(free)[: rng.integers(0, 3)]
        ]
        table.start([r.start() if r.params else RowStart(r.slot, None) for r in arriving])
        live += [Expected(request) for request in arriving]

        batch = [live[i] for i in rng.permutation(len(live)) if rng.random() < 0.8]
        requests = [expected.request for expected in batch]
        if any(request.params for request in requests):
            logits = 3 * torch.randn(len(batch), VOCAB, generator=generator)
            for expected, row in zip(batch, logits, strict=True):
                if rng.random() < 0.5:
                    expected.favour(row)
            masked = torch.rand(len(batch), 1, generator=generator) < 0.5
            masked = masked & (torch.rand(logits.shape, generator=generator) < 0.2)
            logits.masked_fill_(masked, -INF)
            few = torch.rand(len(batch), generator=generator) < 0.5
            sampled = torch.randint(0, VOCAB, (len(batch),), generator=generator)
            sampled = torch.where(few, sampled % FEW, sampled)
            before = contents(table)
            ids, _ = run(table, requests, logits, sampled)
            counts_answers = any(r.params and r.params.think_start_ids for r in requests)
            assert ids.tolist() == [
                expected.step(row, token, counts_answers)
                for expected, row, token in zip(batch, logits, sampled.tolist(), strict=True)
            ]
            inside = {request.slot for request in requests if request.params}
            assert_rows_unchanged(table, before, sorted(set(range(8)) - inside))
        for expected in live:
            expected.check(table)
        assert all(not value[0].any() for value in contents(table).values())
        seen |= set().union(*(expected.seen for expected in live))
        live = [expected for expected in live if rng.random() < 0.9]
    assert seen >= COMMON


@pytest.mark.parametrize("noise_name", ["none", "gumbel", "dirichlet"])
def test_a_resumed_request_goes_on_as_if_nothing_had_happened(noise_name: str) -> None:
    """Retracted after 5 steps, in another slot and among others: the same concepts."""
    params = replace(
        PARAMS,
        noise=noise_name,
        early_stopping_entropy_threshold=2.5,
        early_stopping_length_threshold=9,
    )
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(12, VOCAB, generator=generator)
    request, resumed, other = Request(2, params), Request(6, params), Request(1, PARAMS)
    table = started(request, other)
    whole, pieces, emitted = [], [], []
    for t in range(12):
        ids, _ = run(table, [request], logits[t : t + 1], SAMPLED[:1])
        whole.append(fed(table, 2))
        emitted.append(ids.item())
        if t == 4:
            state = ThinkingState(params.rules, run=int(table.rows.run[2]), steps=5)
    assert THINK_END in emitted[5:]  # Cold Stop's run went across the retraction

    table.start([resumed.start(state, step=5)])
    for t in range(5, 12):
        both = torch.stack([logits[(t + 1) % 12], logits[t]])
        ids, _ = run(table, [other, resumed], both, SAMPLED[:2])
        pieces.append(fed(table, 6))
        answering = THINK_END in emitted[5:t]
        assert ids[1] == (31 if answering else emitted[t])
    for piece, expected in zip(pieces, whole[5:], strict=True):
        assert_same(piece, expected, tolerances.ACROSS_BATCHES)


MARKED = replace(PARAMS, think_end_ids=(8, 9, 10), cold_stop_ids=(5, 6, 8, 9, 10))


@dataclass(frozen=True)
class Course:
    """A request from its first step to its last."""

    params: SoftThinkingParams
    favourites: list[int]
    """Heaviest token of every step; what another sampler would emit is 20 more."""
    emitted: list[int]
    masked: dict[int, int] = field(default_factory=dict)
    """Tokens that a grammar forbids, by step."""

    def logits(self, number: int) -> torch.Tensor:
        logits = logits_of([self.favourites[number], 30, 31], gap=0.5)
        if number in self.masked:
            logits[0, self.masked[number]] = -INF
        return logits


COURSES = {
    "a match": Course(MARKED, [11, 8, 9, 8, 8, 9, 10, 12], [11, 8, 9, 8, 8, 9, 10, 32]),
    "a forced end": Course(
        replace(MARKED, max_thinking_steps=2),
        [11, 8, 11, 8, 9, 10, 11, 12],
        [11, 8, 5, 6, 8, 9, 10, 32],
    ),
    "the rest of the marker": Course(
        replace(MARKED, early_stopping_entropy_threshold=9.0, early_stopping_length_threshold=3),
        [11, 8, 9, 11, 12],
        [11, 8, 9, 10, 32],
    ),
    "an end that was given up": Course(
        replace(MARKED, max_thinking_steps=1),
        [11, 11, 11, 8, 9, 11, 12],
        [11, 5, 6, 8, 9, 10, 32],
        {3: 10},
    ),
    "an end that was given up for long": Course(
        replace(MARKED, max_thinking_steps=1, think_end_first_token=True),
        [11, 11, 11, 12, 13, 11, 11, 11, 11, 11, 12],
        [11, 5, 6, 12, 13, 5, 6, 8, 9, 10, 32],
        {3: 9, 4: 6},
    ),
    "another thought": Course(
        replace(MARKED, max_thinking_steps=1, think_start_ids=(25, 26)),
        [11, 11, 11, 11, 11, 11, 5, 5, 6, 11, 11, 11, 8, 9, 10, 12],
        [11, 5, 6, 8, 9, 10, 25, 25, 26, 5, 6, 8, 9, 10, 30, 32],
    ),
}


def taken(
    table: ConceptTable, request: Request, course: Course, steps: Iterable[int]
) -> Iterator[tuple[Any, ...]]:
    """The token, the input and the state after each of some steps."""
    for number in steps:
        sampled = torch.tensor([course.favourites[number] + 20])
        ids, step = run(table, [request], course.logits(number), sampled)
        assert step.output is not None
        output = [column.tolist() for column in step.output]
        state = table.rows.state[request.slot].tolist()
        yield ids.item(), fed(table, request.slot), state, output


@pytest.mark.parametrize("name", COURSES)
def test_a_request_resumed_after_any_step_goes_on_as_if_nothing_had_happened(name: str) -> None:
    """In another slot, with what the scheduler knows; with an answer that may think again too."""
    course = COURSES[name]
    request, resumed = Request(2, course.params), Request(6, course.params)
    count, state = len(course.favourites), request.state()
    states = [copy(state)]
    whole = []
    for step in taken(started(request), request, course, range(count)):
        whole.append(step)
        token, *_, (_, _, _, (entropy,), (proposal,), (allowed,)) = step
        if state.phase is Phase.THINKING:
            assert state.advance(proposal, entropy, allowed) == token
        else:
            state.answer(token)
        states.append(copy(state))
    assert [token for token, *_ in whole] == course.emitted

    counts_answers = bool(course.params.think_start_ids)
    for number in range(count):
        emitted = number if counts_answers else states[number].steps
        table = started()
        table.start([resumed.start(copy(states[number]), step=emitted)])
        steps = taken(table, resumed, course, range(number, count))
        for got, expected, before in zip(steps, whole[number:], states[number:-1], strict=True):
            assert got[0] == expected[0] and got[2:] == expected[2:]
            if before.phase is Phase.THINKING:  # an answer leaves the last input as it is
                assert got[1] == expected[1]


def test_a_narrow_step_leaves_no_columns_of_a_wide_one() -> None:
    narrow = Request(2, replace(PARAMS, max_topk=2))
    wide = Request(3, replace(PARAMS, max_topk=6))
    table = started(narrow, wide)
    logits = logits_of(range(10, 16), range(20, 26), gap=0.1)
    run(table, [narrow, wide], logits, SAMPLED[:2])
    assert [len(fed(table, slot)) for slot in (2, 3)] == [2, 6]
    run(table, [narrow], logits[1:], SAMPLED[:1])
    assert [i for i, _ in fed(table, 2)] == [20, 21]
    run(table, [wide], logits_of([THINK_END, 7], gap=0.1), SAMPLED[:1])
    assert fed(table, 3) == [(THINK_END, 1.0)]
