"""The thinking state machine: its two faces agree, and its corner cases are as the method says."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from one_thread import one_thread  # noqa: F401 - the import switches it on

from soft_sglang.kernels import thinking_state
from soft_sglang.kernels.table_rows import NO_LIMIT, NO_TOKEN
from soft_sglang.kernels.thinking_state import ThoughtState, advance
from soft_sglang.state_machine import Phase, ThinkingState, ThoughtRules

THINK_END, OTHER = 7, 3


def float32(x: float) -> float:
    return float(np.float32(x))


def neighbours(x: float) -> list[float]:
    """A float32 and the ones directly below and above it."""
    return [float(np.nextafter(np.float32(x), np.float32(to))) for to in (x, 0, 100)]


def device_rules(rules: Sequence[ThoughtRules]) -> thinking_state.ThoughtRules:
    """The rules of a batch as the table holds them, as wide as the batch needs."""

    def padded(sequences: list[tuple[int, ...]]) -> torch.Tensor:
        width = max(map(len, sequences))
        return torch.tensor([[*ids, *[NO_TOKEN] * (width - len(ids))] for ids in sequences])

    return thinking_state.ThoughtRules(
        torch.tensor([r.entropy_threshold for r in rules]),
        torch.tensor([r.length_threshold for r in rules]),
        torch.tensor([r.max_thinking_steps for r in rules]),
        padded([r.end_ids for r in rules]),
        torch.tensor([len(r.end_ids) for r in rules]),
        padded([r.forced_ids for r in rules]),
        torch.tensor([len(r.forced_ids) for r in rules]),
    )


def device_state(hosts: Sequence[ThinkingState]) -> ThoughtState:
    columns = zip(*((h.run, h.steps, h.forced, h.matched) for h in hosts), strict=True)
    return ThoughtState(*(torch.tensor(column) for column in columns))


@dataclass(frozen=True)
class Step:
    proposal: int
    entropy: float
    allowed: bool


@dataclass(frozen=True)
class Request:
    rules: ThoughtRules
    steps: list[Step]


token = st.integers(0, 3)


@st.composite
def requests(draw: st.DrawFn, length: int, single: bool) -> Request:
    threshold = draw(
        st.sampled_from([0.0, float32(0.01), float32(0.1), 1.0])
        | st.floats(0, 2, width=32, allow_subnormal=False)
    )
    end = tuple(draw(st.lists(token, min_size=1, max_size=1 if single else 4)))
    before = () if single else tuple(draw(st.lists(token, max_size=3)))
    first_token = draw(st.booleans())
    entropies = st.sampled_from([0.0, *neighbours(threshold), 5.0])
    step = st.builds(
        Step,
        proposal=token | st.sampled_from(end) | st.just(4),
        entropy=entropies | st.floats(0, 3, width=32, allow_subnormal=False),
        allowed=st.sampled_from([True, True, True, False]),
    )
    steps = draw(st.lists(step, min_size=length, max_size=length))
    rules = ThoughtRules(
        threshold,
        length_threshold=draw(st.integers(1, 5)),
        end_ids=end[:1] if first_token else end,
        forced_ids=before + end,
        max_thinking_steps=draw(st.sampled_from([NO_LIMIT, NO_LIMIT, 0, 1, 3, 6])),
    )
    return Request(rules, steps)


batches = st.tuples(st.integers(1, 15), st.booleans()).flatmap(
    lambda shape: st.lists(requests(*shape), min_size=1, max_size=5)
)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(batches)
def test_host_and_device_agree(batch: list[Request]) -> None:
    """Over whole thoughts, whatever the company, and the end of one is the start of the next.

    A thought is over exactly when its marker has been emitted, by whomever; but what is forced is
    emitted whole, also where its beginning happens to complete a marker that was under way.
    """
    hosts = [ThinkingState(r.rules) for r in batch]
    emitted_by: list[list[int]] = [[] for _ in batch]
    rules = device_rules([r.rules for r in batch])
    state = device_state(hosts)
    for steps in zip(*(request.steps for request in batch), strict=True):
        device = advance(
            proposal=torch.tensor([step.proposal for step in steps]),
            entropy=torch.tensor([step.entropy for step in steps], dtype=torch.float32),
            state=state,
            rules=rules,
            allowed=torch.tensor([step.allowed for step in steps]),
        )
        state = device.state
        for i, (host, step) in enumerate(zip(hosts, steps, strict=True)):
            emitted = host.advance(step.proposal, step.entropy, step.allowed)
            ended = host.phase is Phase.ANSWERING
            assert emitted == device.token[i]
            assert device_state([host]) == ThoughtState(*(c[i : i + 1] for c in state))
            assert ended == device.ended[i]
            # what is not the model's own step is fed alone
            assert (ended or host.forced > 0) == device.alone[i]
            emitted_by[i].append(emitted)
            if has_marker_once(host.rules):
                completed = ends_with(emitted_by[i], host.rules.end_ids)
                assert completed if ended else (not completed or host.forced)
            if ended:
                emitted_by[i].clear()
            host.phase = Phase.THINKING  # think on: a device row would have left the phase


def ends_with(emitted: list[int], marker: tuple[int, ...]) -> bool:
    return tuple(emitted[-len(marker) :]) == marker


def has_marker_once(rules: ThoughtRules) -> bool:
    """Whether a thought is over exactly when the marker has been emitted: all but the first-token
    form, in which what is forced goes on after it, and what no request can ask for."""
    marker, forced = rules.end_ids, rules.forced_ids
    ends = [n for n in range(len(forced) + 1) if ends_with(list(forced[:n]), marker)]
    return ends == [len(forced)]


class Both:
    """Host and device side by side; a step returns the token that both emit."""

    def __init__(
        self,
        entropy_threshold: float,
        length_threshold: int,
        end: tuple[int, ...] = (THINK_END,),
        cold_stop: tuple[int, ...] = (),
        budget: int = NO_LIMIT,
    ) -> None:
        forced = cold_stop or end
        rules = ThoughtRules(entropy_threshold, length_threshold, end, forced, budget)
        self.host = ThinkingState(rules)

    def step(self, entropy: float = 9.0, proposal: int = OTHER, allowed: bool = True) -> int:
        device = advance(
            torch.tensor([proposal]),
            torch.tensor([entropy]),
            device_state([self.host]),
            device_rules([self.host.rules]),
            torch.tensor([allowed]),
        )
        token = self.host.advance(proposal, entropy, allowed)
        assert token == device.token.item()
        assert device_state([self.host]) == device.state
        assert (self.host.phase is Phase.ANSWERING) == device.ended.item()
        return token

    def steps(self, proposals: Sequence[int], entropy: float = 9.0) -> list[int]:
        return [self.step(entropy, proposal) for proposal in proposals]


@pytest.fixture
def three() -> Both:
    """Three steps below half a nat stop."""
    return Both(entropy_threshold=0.5, length_threshold=3)


# Cold Stop.


def test_cold_stop_replaces_the_step_that_completes_the_run(three: Both) -> None:
    assert [three.step(0.1) for _ in range(3)] == [OTHER, OTHER, THINK_END]
    assert three.host.phase is Phase.ANSWERING and three.host.end == "cold_stop"
    assert three.host.steps == 3


def test_one_uncertain_step_starts_the_run_anew(three: Both) -> None:
    entropies = [0.1, 0.1, 0.9, 0.1, 0.1, 0.6, 0.1, 0.1, 0.1]
    assert [three.step(h) for h in entropies] == [OTHER] * 8 + [THINK_END]
    assert three.host.steps == 9


@pytest.mark.parametrize("threshold", [float32(0.01), 0.5, float32(1e-30)])
def test_the_threshold_itself_is_not_below_it(threshold: float) -> None:
    at, below, above = neighbours(threshold)
    both = Both(threshold, length_threshold=1)
    assert [both.step(h) for h in (at, above, at, below)] == [OTHER, OTHER, OTHER, THINK_END]


def test_threshold_0_never_stops() -> None:
    both = Both(entropy_threshold=0.0, length_threshold=1)
    assert [both.step(0.0) for _ in range(20)] == [OTHER] * 20
    assert both.step(-0.0) == OTHER
    assert both.host.run == both.host.longest_run == 0


def test_a_length_of_1_stops_at_once() -> None:
    assert Both(entropy_threshold=0.5, length_threshold=1).step(0.1) == THINK_END


def test_a_natural_end_needs_no_low_entropy(three: Both) -> None:
    assert three.step(2.0, proposal=THINK_END) == THINK_END
    assert three.host.phase is Phase.ANSWERING and three.host.end == "think_end"


def test_a_natural_end_where_the_run_completes_is_no_cold_stop(three: Both) -> None:
    three.step(0.1)
    three.step(0.1)
    assert three.step(0.1, proposal=THINK_END) == THINK_END
    assert three.host.phase is Phase.ANSWERING and three.host.end == "think_end"


def test_a_forbidden_think_end_delays_cold_stop(three: Both) -> None:
    tokens = [three.step(0.1, allowed=False) for _ in range(5)]
    assert tokens == [OTHER] * 5
    assert three.host.phase is Phase.THINKING and three.host.run == 5
    assert three.step(0.1, allowed=True) == THINK_END
    assert three.host.end == "cold_stop"


def test_a_delayed_cold_stop_is_forgotten_when_the_run_breaks(three: Both) -> None:
    for _ in range(4):
        three.step(0.1, allowed=False)
    assert three.step(0.9, allowed=True) == OTHER
    assert three.host.run == 0


def test_a_resumed_request_continues_its_run(three: Both) -> None:
    state = ThinkingState(three.host.rules, run=2, steps=40)
    assert state.advance(OTHER, 0.1) == THINK_END
    assert state.steps == 41


def test_the_longest_run_is_told(three: Both) -> None:
    for entropy in (0.1, 0.1, 0.9, 0.1, 0.9):
        three.step(entropy)
    assert (three.host.run, three.host.longest_run) == (0, 2)


# Markers of several tokens.


def test_a_marker_ends_thinking_when_it_is_complete() -> None:
    both = Both(0.0, 1, end=(7, 8, 9))
    assert both.steps([7, 8, 7, 8]) == [7, 8, 7, 8]
    assert both.host.phase is Phase.THINKING
    assert both.step(proposal=9) == 9
    assert both.host.end == "think_end"


def test_a_marker_that_overlaps_itself() -> None:
    both = Both(0.0, 1, end=(7, 7, 8))
    both.steps([7, 7, 7, 8])
    assert both.host.end == "think_end" and both.host.steps == 4


def test_a_forced_end_is_the_whole_sequence_whatever_is_proposed() -> None:
    both = Both(0.5, 2, end=(7, 8), cold_stop=(5, 6, 7, 8))
    assert both.steps([OTHER, OTHER], entropy=0.1) == [OTHER, 5]
    assert both.host.phase is Phase.THINKING
    assert both.steps([OTHER, 9, 1], entropy=9.0) == [6, 7, 8]
    assert both.host.end == "cold_stop"
    # the forced steps count, and leave the run as it was
    assert (both.host.steps, both.host.run, both.host.longest_run) == (5, 2, 2)


def test_what_the_model_begins_is_completed_only() -> None:
    both = Both(0.5, 3, end=(7, 8, 9), cold_stop=(5, 7, 8, 9))
    assert both.steps([OTHER, 7, 8, OTHER], entropy=0.1) == [OTHER, 7, 8, 9]
    assert both.host.end == "cold_stop" and both.host.steps == 4


def test_a_match_that_breaks_off_is_not_completed() -> None:
    both = Both(0.5, 3, end=(7, 8, 9))
    assert both.steps([OTHER, 7, OTHER, 7, 7], entropy=0.1) == [OTHER, 7, 7, 8, 9]


def test_a_forbidden_token_of_the_rest_gives_up_the_sequence() -> None:
    both = Both(0.5, 1, end=(7, 8, 9))
    assert both.step(0.1) == 7
    assert both.step(0.9, proposal=4, allowed=False) == 4
    assert both.host.phase is Phase.THINKING and both.host.forced == 0
    assert both.steps([OTHER] * 3, entropy=0.1) == [7, 8, 9]


def test_the_first_token_form() -> None:
    """It ends thinking by itself; what is forced is the whole marker."""
    rules = ThoughtRules(0.5, 2, end_ids=(7,), forced_ids=(7, 8, 9))
    state = ThinkingState(rules)
    assert state.advance(7, 9.0) == 7
    assert (state.end, state.steps) == ("think_end", 1)
    state = ThinkingState(rules)
    assert [state.advance(OTHER, 0.1) for _ in range(4)] == [OTHER, 7, 8, 9]
    assert state.end == "cold_stop"


# The budget.


@pytest.mark.parametrize("budget", [0, 1, 5])
@pytest.mark.parametrize("end", [(7,), (7, 8, 9)])
def test_the_budget_is_exact(budget: int, end: tuple[int, ...]) -> None:
    both = Both(0.0, 1, end=end, budget=budget)
    assert both.steps([OTHER] * (budget + len(end))) == [OTHER] * budget + list(end)
    assert both.host.phase is Phase.ANSWERING and both.host.end == "budget"


def test_a_natural_end_at_the_budget_is_the_models() -> None:
    both = Both(0.0, 1, budget=2)
    assert both.steps([OTHER, OTHER, THINK_END]) == [OTHER, OTHER, THINK_END]
    assert both.host.end == "think_end"


def test_cold_stop_at_the_budget_is_told_as_such() -> None:
    both = Both(0.5, 3, budget=2)
    both.steps([OTHER] * 3, entropy=0.1)
    assert both.host.end == "cold_stop"


# Thinking again.


def again(start: tuple[int, ...], **state: object) -> ThinkingState:
    rules = ThoughtRules(0.5, 3, (THINK_END,), (THINK_END,), 4, start)
    return ThinkingState(rules, phase=Phase.ANSWERING, **state)


def test_the_start_marker_begins_another_thought() -> None:
    state = again((5, 6), run=2, steps=3, end="think_end")
    assert [state.answer(t) for t in (5, 5, 6)] == [False, False, True]
    assert state.phase is Phase.THINKING and state.run == 0
    assert state.advance(OTHER, 9.0) == OTHER
    # the budget is that of all thoughts
    assert state.advance(OTHER, 9.0) == THINK_END
    assert (state.end, state.steps) == ("budget", 5)


def test_without_a_start_marker_an_answer_stays_one() -> None:
    state = again(())
    assert not any(state.answer(t) for t in range(10))
    assert state.phase is Phase.ANSWERING and state.matched == 0
