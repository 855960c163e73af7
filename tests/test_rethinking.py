"""Answers that open another thought: the device does it where the scheduler's state says so."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from one_thread import one_thread  # noqa: F401 - the import switches it on
from soft_batches import PARAMS, Request, plan_of, sampling_of

from soft_sglang.concept_sampler import ConceptStep
from soft_sglang.concept_table import AnswerSampling, ConceptTable
from soft_sglang.kernels.table_rows import ANSWERING, DISCRETE, GUIDED, NO_LIMIT, THINKING
from soft_sglang.parameters import SoftThinkingParams
from soft_sglang.policies.registry import policy_named
from soft_sglang.rethinking import answering_rows, plan_rethinking, reopen
from soft_sglang.row_parameters import RowParameters
from soft_sglang.state_machine import Phase, ThinkingState

TOKENS = 4
"""Few, so that markers begin, overlap and occur."""
POLICIES = ("soft_thinking", "discrete", "coconut_tf", "mixture_of_inputs", "swi_reasoning")
GREEDY = AnswerSampling(temperature=1.0, top_p=1.0, top_k=1, min_p=0.0)
HIDDEN = 2

markers = st.lists(st.integers(0, TOKENS - 1), min_size=1, max_size=4).map(tuple)
tokens = st.integers(0, TOKENS - 1)


def own_parameters(policy: str) -> dict[str, object]:
    """What a request's parameters say of its policy."""
    found = policy_named(policy)
    if found is None:
        return {"policy": policy}
    values = (1.0, 0.7, 2.0, -1.0, 0.0, 100.0)[: len(found.parameters)]
    columns = found.columns(PARAMS.max_topk, {})
    return {"policy": policy, "policy_parameters": values, "policy_columns": columns}


def rethinking_params(policy: str = "soft_thinking", **changes: object) -> SoftThinkingParams:
    return replace(PARAMS, **own_parameters(policy), **changes)


# A whole step: thoughts that end in it, answers that go on, other rows between.


@dataclass(frozen=True)
class Course:
    """A request, and the token that the model favours in every step."""

    params: SoftThinkingParams
    favourites: list[int]


@st.composite
def courses(draw: st.DrawFn, length: int) -> Course:
    policy = draw(st.sampled_from(POLICIES))
    think_end = draw(markers.map(lambda ids: ids[:1]) if policy == "swi_reasoning" else markers)
    before = draw(st.just(()) | markers.map(lambda ids: ids[:2]))
    threshold = draw(st.sampled_from([0.0, 5.0]))
    params = rethinking_params(
        policy,
        think_end_ids=think_end,
        cold_stop_ids=before + think_end,
        think_end_first_token=draw(st.booleans()),
        think_start_ids=draw(st.just(()) | markers),
        early_stopping_entropy_threshold=threshold,
        early_stopping_length_threshold=draw(st.integers(2, 6)),
        max_thinking_steps=draw(st.sampled_from([NO_LIMIT, NO_LIMIT, 0, 4])),
        closed=draw(st.booleans()),
        seeded=draw(st.booleans()),
    )
    return Course(params, draw(st.lists(tokens, min_size=length, max_size=length)))


batches = st.integers(1, 18).flatmap(
    lambda length: st.lists(courses(length=length), min_size=1, max_size=6)
)


def first_state(params: SoftThinkingParams) -> ThinkingState:
    phase = Phase.ANSWERING if params.closed else Phase.THINKING
    return ThinkingState(params.rules, phase=phase)


class Batch:
    """Requests on the device and, as the scheduler has them, on the host."""

    def __init__(self, params: Sequence[SoftThinkingParams], samples: bool) -> None:
        self.requests = [
            Request(1 + i, replace(p, separate_answer=False), top_k=1) for i, p in enumerate(params)
        ]
        self.requests.append(Request(len(params) + 1, None, top_p=1.0 if samples else 0.9))
        self.hosts = [first_state(p) for p in params]
        self.emitted = [0] * len(params)
        self.samples = samples
        self.table = ConceptTable(len(params) + 2, 6, "cpu")
        self.restart()

    def restart(self) -> None:
        """As after a retraction of all, but for what the policies remember."""
        soft = self.requests[: len(self.hosts)]
        self.table.start(
            [
                request.start(copy(host), step=emitted)
                for request, host, emitted in zip(soft, self.hosts, self.emitted, strict=True)
            ]
        )

    def step(self, favourites: Sequence[int]) -> None:
        """One step in which the model favours these tokens; checks the device's state."""
        plan = plan_of(self.requests)
        assert plan is not None
        count = len(self.requests)
        logits = torch.full((count, 16), -60.0)
        logits[torch.arange(count), torch.tensor([*favourites, 0])] = 0.0
        slots = torch.arange(1, count + 1)
        step = ConceptStep(self.table, plan, slots)
        step_plan = replace(plan.step, samples=plan.step.samples and self.samples)
        hidden = torch.zeros(count, HIDDEN)
        step.think(logits, sampling_of(self.requests), step_plan, hidden=hidden)
        ids = step.final_ids(None if step_plan.samples else logits.argmax(-1))
        step.rethink(ids)
        assert step.output is not None
        where = {position: i for i, position in enumerate(plan.positions)}
        for position, host in enumerate(self.hosts):
            token, row = int(ids[position]), where[position]
            if host.phase is Phase.THINKING:
                entropy = float(step.output.entropy[row])
                assert token == host.advance(favourites[position], entropy)
                self.emitted[position] += 1
            else:
                assert token == favourites[position]
                host.answer(token)
                mixes = self.requests[position].params.policy == "mixture_of_inputs"
                self.emitted[position] += mixes or step_plan.counts_answers
            self.check(position, host)
        assert not self.table.rows.state[-1].any()  # the discrete one

    def check(self, position: int, host: ThinkingState) -> None:
        """The row of the table is where the scheduler has it."""
        slot, policy = position + 1, policy_named(self.requests[position].params.policy)
        mixes_answer = policy is not None and policy.mixes_answer
        thinking = host.phase is Phase.THINKING
        phase = THINKING if policy is None else GUIDED
        if not thinking and not mixes_answer:
            phase = ANSWERING
        expected = [phase, host.run, self.emitted[position], host.steps, host.forced, host.matched]
        assert self.table.rows.state[slot].tolist() == expected
        if mixes_answer:
            assert bool(self.table.guided.answering[slot]) is not thinking


@settings(deadline=None, derandomize=True, max_examples=80)
@given(batches, st.booleans(), st.integers(0, 17))
def test_host_and_device_agree(batch: list[Course], samples: bool, restart: int) -> None:
    device = Batch([course.params for course in batch], samples)
    for number, favourites in enumerate(zip(*(c.favourites for c in batch), strict=True)):
        if number == restart:
            device.restart()
        device.step(favourites)


@pytest.mark.parametrize("samples", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_thinks_again(policy: str, samples: bool) -> None:
    """Twice; the token that ends a thought is no part of the start that follows."""
    params = rethinking_params(policy, think_start_ids=(3, 1))
    batch = Batch([params], samples)
    phases = []
    for favourite in (0, 3, 1, 3, 1, 2, 3, 3, 3, 1):
        batch.step([favourite])
        phases.append(batch.hosts[0].phase)
    thinks, answers = Phase.THINKING, Phase.ANSWERING
    assert phases == [
        thinks,
        *[answers] * 3,
        *[thinks] * 2,
        *[answers] * 3,
        thinks,
    ]


# reopen alone.


@dataclass(frozen=True)
class Answer:
    """A row in its answer, or not; and the tokens that it emits."""

    start_ids: tuple[int, ...]
    policy: str
    answering: bool
    emitted: list[int]


@st.composite
def answers(draw: st.DrawFn, length: int) -> Answer:
    emitted = draw(st.lists(tokens, min_size=length, max_size=length))
    policy = draw(st.sampled_from(POLICIES))
    return Answer(draw(st.just(()) | markers), policy, draw(st.booleans()), emitted)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.integers(1, 15).flatmap(lambda length: st.lists(answers(length), min_size=1, max_size=5)))
def test_reopen_equals_the_schedulers_answer(rows: list[Answer]) -> None:
    """Of rows that answer, until they think; and no other row is touched."""
    requests = [
        Request(1 + i, rethinking_params(row.policy, think_start_ids=row.start_ids))
        for i, row in enumerate(rows)
    ]
    phases = [Phase.ANSWERING if row.answering else Phase.THINKING for row in rows]
    hosts = [
        ThinkingState(request.params.rules, phase=phase, run=2, steps=5)
        for request, phase in zip(requests, phases, strict=True)
    ]
    table = ConceptTable(len(rows) + 2, 6, "cpu")
    table.start(
        [request.start(copy(h), step=7) for request, h in zip(requests, hosts, strict=True)]
    )
    table.guided.state.fill_(3.0)
    slots = torch.arange(1, len(rows) + 1)
    plan = plan_rethinking(
        [RowParameters(request.params, 1, GREEDY) for request in requests], torch.device("cpu")
    )
    assert (plan is None) == (not any(row.start_ids for row in rows))
    if plan is None:
        return
    for number in range(len(rows[0].emitted)):
        ids = torch.tensor([row.emitted[number] for row in rows])
        state, guided = table.rows.state.clone(), [column.clone() for column in table.guided]
        reopen(plan, table, slots, ids, answering_rows(plan, table, slots))
        touched = {0, len(rows) + 1}
        for row, request, host in zip(rows, requests, hosts, strict=True):
            if host.phase is Phase.THINKING or not row.start_ids:
                touched.add(request.slot)
                continue
            opens = host.answer(int(ids[request.slot - 1]))
            policy = policy_named(row.policy)
            phase = THINKING if policy is None else GUIDED
            if not opens and not (policy is not None and policy.mixes_answer):
                phase = ANSWERING
            expected = [phase, host.run, 7, 5, 0, host.matched]
            assert table.rows.state[request.slot].tolist() == expected
            assert table.guided.state[request.slot].tolist() == [0.0 if opens else 3.0] * 6
            assert not (opens and table.guided.answering[request.slot])
        same = sorted(touched)
        assert torch.equal(table.rows.state[same], state[same])
        for column, before in zip(table.guided, guided, strict=True):
            assert torch.equal(column[same], before[same])


def test_a_row_that_does_not_answer_yet_is_left_alone() -> None:
    """In the middle of its prefill; and in the step that ends its thought."""
    params = rethinking_params(think_start_ids=(3,))
    requests = [Request(1, params), Request(2, params)]
    plan = plan_of(requests)
    assert plan is not None and plan.rethinking is not None
    table = ConceptTable(4, 6, "cpu")
    table.start([requests[0].start()])
    logits = torch.full((2, 16), -60.0)
    logits[:, 3] = 0.0  # the think-end
    step = ConceptStep(table, plan, torch.tensor([1, 2]))
    step.think(logits, sampling_of(requests), replace(plan.step, samples=False))
    ids = step.final_ids(torch.tensor([3, 3]))
    step.rethink(ids)
    assert ids.tolist() == [3, 3]
    assert table.rows.phase[1:3].tolist() == [ANSWERING, DISCRETE]
    assert not table.rows.matched.any()


def test_nothing_happens_without_rows_that_may_think_again() -> None:
    requests = [Request(1, rethinking_params()), Request(2, None)]
    plan = plan_of(requests)
    assert plan is not None and plan.rethinking is None
    table = ConceptTable(4, 6, "cpu")
    step = ConceptStep(table, plan, torch.tensor([1, 2]))
    step.rethink(torch.tensor([3, 3]))  # not even think() is needed
    assert not table.rows.state.any()


def test_a_policy_remembers_nothing_of_its_last_thought() -> None:
    params = rethinking_params("swi_reasoning", think_start_ids=(2,))
    batch = Batch([params], samples=False)
    for favourite in (0, 1, 3):  # 3 is the think-end
        batch.step([favourite])
    remembered = batch.table.guided.state[1].clone()
    assert remembered[0] == 1  # begun
    batch.step([0])
    assert torch.equal(batch.table.guided.state[1], remembered)
    batch.step([2])
    assert not batch.table.guided.state[1].any()
