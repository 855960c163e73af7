"""One thinking step of a batch: its tables made, its kernels run, its results checked."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import tolerances
import torch
from float64_oracle import Concept, Row, concept
from random_inputs import DEVICE, generator

from soft_sglang.kernels import noise, thinking_step_triton
from soft_sglang.kernels.concept_step import NOISE_DIRICHLET, NOISE_GUMBEL, NOISE_NONE
from soft_sglang.kernels.sampling import Sampling
from soft_sglang.kernels.table_rows import (
    FORCED_LIMIT,
    INTEGERS,
    MARKER_LIMIT,
    NO_LIMIT,
    NO_TOKEN,
    REALS,
    STATE,
    TableRows,
)
from soft_sglang.kernels.thinking_step import StepPlan, StepResult, thinking_step_torch
from soft_sglang.state_machine import Phase, ThinkingState, ThoughtRules

TOP_K_OFF = 1 << 30
NOISE_CODES = {"none": NOISE_NONE, "gumbel": NOISE_GUMBEL, "dirichlet": NOISE_DIRICHLET}
IMPLEMENTATIONS = ("kernels", "reference")
NOTHING = Row()
"""No filter, no noise."""


@dataclass(frozen=True)
class Request:
    """One row of a batch."""

    row: Row = NOTHING
    """Sampling parameters of the batch, and of the noise."""
    phase: Phase = Phase.THINKING
    noise: str = "none"
    seed: int = 0
    step: int = 0
    run: int = 0
    entropy_threshold: float = 0.0
    length_threshold: int = 1 << 30
    think_end: int = 0
    end: tuple[int, ...] = ()
    """The marker that ends thinking; empty: :attr:`think_end` alone."""
    cold_stop: tuple[int, ...] = ()
    """What is forced; empty: the marker."""
    max_thinking_steps: int = NO_LIMIT
    thought: int = 0
    forced: int = 0
    matched: int = 0
    answer: Row = NOTHING
    """Sampling parameters when ANSWERING."""

    @property
    def end_ids(self) -> tuple[int, ...]:
        return self.end or (self.think_end,)

    @property
    def forced_ids(self) -> tuple[int, ...]:
        return self.cold_stop or self.end_ids

    @property
    def state(self) -> ThinkingState:
        """The scheduler's, before the step."""
        rules = ThoughtRules(
            float(np.float32(self.entropy_threshold)),
            self.length_threshold,
            self.end_ids,
            self.forced_ids,
            self.max_thinking_steps,
        )
        return ThinkingState(
            rules,
            run=self.run,
            steps=self.thought,
            forced=self.forced,
            matched=self.matched,
        )

    def is_allowed(self, logits: torch.Tensor) -> bool:
        """Whether no token that is still to be forced is forbidden."""
        return all(float(logits[i]) > -torch.inf for i in self.forced_ids[self.forced :])

    def expected(self, logits: torch.Tensor, **changes: float) -> Concept:
        """What the oracle says, with the parameters as float32."""
        row = as_float32(self.row)
        if self.noise == "gumbel":
            row = replace(row, gumbel=self._gumbel)
        if self.noise == "dirichlet":
            row = replace(row, log_gamma=self._log_gamma)
        return concept(logits.double().cpu().numpy(), replace(row, **changes))

    def _gumbel(self, token: int) -> float:
        key = torch.tensor([self.seed]), torch.tensor([self.step]), torch.tensor([[token]])
        return noise.gumbel(*key).item()

    def _log_gamma(self, ids: list[int], concentrations: list[float]) -> list[float]:
        key = torch.tensor([self.seed]), torch.tensor([self.step]), torch.tensor([ids])
        return noise.log_gamma_variate(torch.tensor([concentrations]), *key)[0].tolist()


def as_float32(row: Row) -> Row:
    """The parameters that the device sees."""
    names = ("temperature", "top_p", "min_p", "gumbel_temperature", "dirichlet_alpha")
    return replace(row, **{name: float(np.float32(getattr(row, name))) for name in names})


@dataclass
class Batch:
    """Requests in a concept table among rows of others, which nothing may touch."""

    requests: Sequence[Request]
    width: int | None = None
    """Of the plan; None: as needed."""
    candidates: int = 1
    """Of the plan, or as needed."""
    rows: Sequence[int] | None = None
    key: object = None
    """Chooses the slots."""
    slots: torch.Tensor = field(init=False)
    table: TableRows = field(init=False)

    def __post_init__(self) -> None:
        needed = max((request.row.max_topk for request in self.requests), default=1)
        self.width = self.width or needed
        count = len(self.requests)
        order = torch.randperm(2 * count + 1, generator=generator("slots", count, self.key)) + 1
        self.slots = order[:count].to(DEVICE)
        self.table = self._table(2 * count + 2, self.width + 3)

    def _table(self, size: int, width: int) -> TableRows:
        """Nothing that is read is left out; what must be written holds numbers that show."""
        table = TableRows(
            ids=torch.full((size, width), -77),
            weights=torch.full((size, width), torch.nan),
            state=torch.full((size, len(STATE)), -77),
            integers=torch.full((size, len(INTEGERS)), -77),
            reals=torch.full((size, len(REALS)), torch.nan),
            end_ids=torch.full((size, MARKER_LIMIT), NO_TOKEN),
            forced_ids=torch.full((size, FORCED_LIMIT), NO_TOKEN),
        )
        table.phase[:] = Phase.THINKING
        for column in table:
            column[0] = 0  # the padding row
        for slot, request in zip(self.slots.tolist(), self.requests, strict=True):
            write_state(table, slot, request.state, request.step, request.phase)
            table.end_ids[slot, : len(request.end_ids)] = torch.tensor(request.end_ids)
            table.forced_ids[slot, : len(request.forced_ids)] = torch.tensor(request.forced_ids)
            answer = request.answer
            integers = {
                "max_topk": request.row.max_topk,
                "noise": NOISE_CODES[request.noise],
                "seed": request.seed,
                "length_threshold": request.length_threshold,
                "max_thinking_steps": request.max_thinking_steps,
                "end_length": len(request.end_ids),
                "forced_length": len(request.forced_ids),
                "first_forced": request.forced_ids[0],
                "answer_top_k": answer.top_k or TOP_K_OFF,
            }
            reals = {
                "gumbel_temperature": request.row.gumbel_temperature,
                "dirichlet_alpha": request.row.dirichlet_alpha,
                "entropy_threshold": request.entropy_threshold,
                "answer_temperature": answer.temperature,
                "answer_top_p": answer.top_p,
                "answer_min_p": answer.min_p,
            }
            table.integers[slot] = torch.tensor([integers[name] for name in INTEGERS])
            table.reals[slot] = torch.tensor([reals[name] for name in REALS])
        return TableRows(*(column.to(DEVICE) for column in table))

    @property
    def sampling(self) -> Sampling:
        rows = [request.row for request in self.requests]

        def tensor(values: list[float], dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.tensor(values, dtype=dtype, device=DEVICE)

        return Sampling(
            temperatures=tensor([row.temperature for row in rows])[:, None],
            top_ps=tensor([row.top_p for row in rows]),
            top_ks=tensor([row.top_k or TOP_K_OFF for row in rows], torch.int32),
            min_ps=tensor([row.min_p for row in rows]),
        )

    def plan(self, **changes: bool) -> StepPlan:
        parameters = [request.row for request in self.requests]
        parameters += [request.answer for request in self.requests]
        return StepPlan(
            width=self.width,
            candidates=max([self.candidates, self.width, *(row.top_k or 0 for row in parameters)]),
            with_gumbel=any(request.noise == "gumbel" for request in self.requests),
            with_dirichlet=any(request.noise == "dirichlet" for request in self.requests),
            end_width=max((len(request.end_ids) for request in self.requests), default=1),
            forced_width=max((len(request.forced_ids) for request in self.requests), default=1),
            **changes,
        )

    def indices(self) -> list[int]:
        """The batch rows to work on."""
        return list(range(len(self.requests))) if self.rows is None else list(self.rows)

    def run(
        self,
        implementation: str,
        logits: torch.Tensor,
        seeds: Sequence[int] | None = None,
        **plan: bool,
    ) -> StepResult:
        """Take the step; the table is changed. ``plan``: fields of the :class:`StepPlan`."""
        logits = logits.to(DEVICE)
        rows = None
        if self.rows is not None:
            rows = torch.tensor(self.rows, dtype=torch.int64, device=DEVICE)
        arguments = logits, self.sampling, self.table, self.slots, rows, self.plan(**plan)
        seed_tensor = None
        if seeds is not None:
            seed_tensor = torch.tensor(seeds, dtype=torch.int64, device=DEVICE)
        if implementation == "reference":
            return thinking_step_torch(*arguments, seed_tensor)
        with poisoned_memory():
            return StepResult(*thinking_step_triton.thinking_step(*arguments, seed_tensor))

    def copy(self) -> TableRows:
        return TableRows(*(column.clone() for column in self.table))


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fresh tensors hold NaN and the largest integers, so that what is not written shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.utils.deterministic.fill_uninitialized_memory
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def step_and_check(
    batch: Batch, logits: torch.Tensor, implementation: str = "kernels", **plan: bool
) -> StepResult:
    """Take the step without sampling and check all of it."""
    before = batch.copy()
    result = batch.run(implementation, logits, **plan)
    check(batch, before, logits, result)
    return result


def check(batch: Batch, before: TableRows, logits: torch.Tensor, result: StepResult) -> None:
    """Check every row of the result and of the table; tokens of rows that do not think are not."""
    indices = batch.indices()
    width = batch.width
    shapes = [tuple(column.shape) for column in result]
    count = len(indices)
    assert shapes == [(count,), (count, width), (count, width), (count,), (count,), (count,)]
    result = StepResult(*(column.cpu() for column in result))
    table = TableRows(*(column.clone() for column in before))
    for i, b in enumerate(indices):
        request, slot = batch.requests[b], int(batch.slots[b])
        if request.phase is not Phase.THINKING:
            continue
        row = StepResult(*(column[i] for column in result))
        state = check_row(request, logits[b], row)
        table.ids[slot, :width] = row.ids.to(DEVICE)
        table.weights[slot, :width] = row.weights.to(DEVICE)
        write_state(table, slot, state, request.step + 1)
    for name, expected, actual in zip(TableRows._fields, table, batch.table, strict=True):
        # bit for bit, NaN included
        assert torch.equal(expected.view(torch.uint8), actual.view(torch.uint8)), name


def check_row(request: Request, logits: torch.Tensor, row: StepResult) -> ThinkingState:
    """Check a THINKING row and return the state after it."""
    entropy = float(row.entropy)
    expected = request.expected(logits)
    assert entropy == pytest.approx(expected.entropy, **tolerances.ENTROPY)
    state = request.state
    allowed = request.is_allowed(logits)
    assert bool(row.end_allowed) == allowed
    proposal = int(row.proposal)
    assert int(row.token) == state.advance(proposal, entropy, allowed)
    ids, weights = row.ids.tolist(), row.weights.tolist()
    alone = state.phase is Phase.ANSWERING or state.forced > 0
    if alone:
        assert ids == [int(row.token)] + [0] * (len(ids) - 1)
        assert weights == [1.0] + [0.0] * (len(ids) - 1)
        ids = [proposal]
    else:
        assert proposal == ids[0]
        check_contract(ids, weights, len(logits))
    check_concept(request, logits, ids, None if alone else weights)
    return state


def write_state(
    table: TableRows, slot: int, state: ThinkingState, step: int, phase: Phase | None = None
) -> None:
    """Write what the device should have of the scheduler's state."""
    columns = {
        "phase": state.phase if phase is None else phase,
        "run": state.run,
        "step": step,
        "thought": state.steps,
        "forced": state.forced,
        "matched": state.matched,
    }
    table.state[slot] = torch.tensor([columns[name] for name in STATE]).to(table.state)


def check_contract(ids: list[int], weights: list[float], vocab: int) -> None:
    """What holds for every concept, whatever its logits."""
    assert all(w >= 0 for w in weights), weights
    assert weights == sorted(weights, reverse=True)
    assert sum(weights) == pytest.approx(1.0, abs=tolerances.ROW_SUM["atol"])
    used = [i for i, w in zip(ids, weights, strict=True) if w > 0]
    assert len(set(used)) == len(used)
    assert ids == used + [0] * (len(ids) - len(used))
    assert all(0 <= i < vocab for i in used)


def check_concept(
    request: Request, logits: torch.Tensor, ids: list[int], weights: list[float] | None
) -> None:
    """Compare with the oracle; without ``weights`` only the heaviest token."""
    mismatches = []
    for expected in cuts(request, logits):
        mismatch = _mismatch(request, logits, expected, ids, weights)
        if mismatch is None:
            return
        mismatches.append(mismatch)
    raise AssertionError(mismatches[0])


def cuts(request: Request, logits: torch.Tensor) -> Iterator[Concept]:
    """What the oracle says, with the cuts of top-p and min-p where they are and a little beside."""
    row = as_float32(request.row)
    for top_p in (0.0, -tolerances.CUT, tolerances.CUT):
        for min_p in (0.0, -tolerances.CUT, tolerances.CUT):
            yield request.expected(
                logits,
                top_p=row.top_p * (1 + top_p) if row.top_p < 1 else row.top_p,
                min_p=min(1.0, row.min_p * (1 + min_p)),
            )


def _mismatch(
    request: Request,
    logits: torch.Tensor,
    expected: Concept,
    ids: list[int],
    weights: list[float] | None,
) -> str | None:
    tolerance = {
        "none": tolerances.KERNEL_WEIGHT,
        "gumbel": tolerances.GUMBEL_WEIGHT,
        "dirichlet": tolerances.DIRICHLET_WEIGHT,
    }[request.noise]
    by_token = dict(zip(expected.ids, expected.weights, strict=True))
    margin = 1 + 2 * tolerance["rtol"]
    if weights is None or request.noise != "none":
        heaviest = by_token.get(ids[0], 0.0)
        if request.noise == "none" and ids[0] != expected.ids[0]:
            return f"token {ids[0]} is not {expected.ids[0]}"
        if heaviest * margin < expected.weights[0]:
            return f"the weight of the heaviest token is {heaviest}, of {expected.weights[0]}"
    if weights is None:
        return None
    actual = {i: w for i, w in zip(ids, weights, strict=True) if w > 0}
    if request.noise == "dirichlet":
        # the cut to max_topk comes after the noise: weights nearly as large may take its place
        everything = request.expected(logits, max_topk=len(logits))
        by_token = dict(zip(everything.ids, everything.weights, strict=True))
        if not actual.keys() <= by_token.keys():
            return f"{actual.keys() - by_token.keys()} are not among the filtered"
        if len(actual) > request.row.max_topk:
            return f"{len(actual)} tokens"
        total = sum(by_token[i] for i in actual)
        left = max((w for i, w in by_token.items() if i not in actual), default=0.0)
        full = len(actual) == request.row.max_topk
        if left > (min(by_token[i] for i in actual) * margin if full else tolerance["atol"]):
            return f"a token of weight {left} is missing"
        by_token = {i: by_token[i] / total for i in actual}
    elif request.noise == "none" and list(actual) != expected.ids[: len(actual)]:
        return f"{list(actual)} are not {expected.ids}"
    for i in by_token.keys() | actual.keys():
        a, b = actual.get(i, 0.0), by_token.get(i, 0.0)
        if not abs(a - b) <= tolerance["rtol"] * b + tolerance["atol"]:
            return f"token {i} has weight {a}, not {b}"
    return None
