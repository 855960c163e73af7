"""The thinking state machine: its two faces agree, and its corner cases are as the method says."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from one_thread import one_thread  # noqa: F401 - the import switches it on

from soft_sglang.kernels.thinking_state import advance
from soft_sglang.state_machine import Phase, ThinkingState

THINK_END, OTHER = 7, 3


def float32(x: float) -> float:
    return float(np.float32(x))


def neighbours(x: float) -> list[float]:
    """A float32 and the ones directly below and above it."""
    return [float(np.nextafter(np.float32(x), np.float32(to))) for to in (x, 0, 100)]


@dataclass(frozen=True)
class Step:
    proposal: int
    entropy: float
    allowed: bool


@dataclass(frozen=True)
class Request:
    entropy_threshold: float
    length_threshold: int
    think_end: int
    steps: list[Step]


@st.composite
def requests(draw: st.DrawFn, length: int) -> Request:
    threshold = draw(
        st.sampled_from([0.0, float32(0.01), float32(0.1), 1.0])
        | st.floats(0, 2, width=32, allow_subnormal=False)
    )
    think_end = draw(st.integers(0, 3))
    entropies = st.sampled_from([0.0, *neighbours(threshold), 5.0])
    step = st.builds(
        Step,
        proposal=st.integers(0, 3) | st.just(think_end + 1),
        entropy=entropies | st.floats(0, 3, width=32, allow_subnormal=False),
        allowed=st.sampled_from([True, True, False]),
    )
    steps = draw(st.lists(step, min_size=length, max_size=length))
    return Request(threshold, draw(st.integers(1, 5)), think_end, steps)


batches = st.integers(1, 15).flatmap(
    lambda length: st.lists(requests(length=length), min_size=1, max_size=5)
)


@settings(deadline=None, derandomize=True, max_examples=120)
@given(batches)
def test_host_and_device_agree(batch: list[Request]) -> None:
    hosts = [ThinkingState(r.entropy_threshold, r.length_threshold, r.think_end) for r in batch]
    run = torch.zeros(len(batch), dtype=torch.int64)
    for steps in zip(*(request.steps for request in batch), strict=True):
        device = advance(
            proposal=torch.tensor([step.proposal for step in steps]),
            entropy=torch.tensor([step.entropy for step in steps], dtype=torch.float32),
            run=run,
            entropy_threshold=torch.tensor([r.entropy_threshold for r in batch]),
            length_threshold=torch.tensor([r.length_threshold for r in batch]),
            think_end=torch.tensor([r.think_end for r in batch]),
            think_end_allowed=torch.tensor([step.allowed for step in steps]),
        )
        run = device.run
        for i, (host, step) in enumerate(zip(hosts, steps, strict=True)):
            if host.phase is not Phase.THINKING:
                continue
            token = host.advance(step.proposal, step.entropy, step.allowed)
            assert token == device.token[i]
            assert host.run == device.run[i]
            assert host.cold_stopped == device.forced[i]
            assert (host.phase is Phase.ANSWERING) == device.ended[i]


class Both:
    """Host and device side by side; a step returns the token that both emit."""

    def __init__(self, entropy_threshold: float, length_threshold: int) -> None:
        self.host = ThinkingState(entropy_threshold, length_threshold, THINK_END)
        self.run = torch.zeros(1, dtype=torch.int64)

    def step(self, entropy: float, proposal: int = OTHER, allowed: bool = True) -> int:
        device = advance(
            torch.tensor([proposal]),
            torch.tensor([entropy]),
            self.run,
            torch.tensor([self.host.entropy_threshold]),
            torch.tensor([self.host.length_threshold]),
            torch.tensor([THINK_END]),
            torch.tensor([allowed]),
        )
        token = self.host.advance(proposal, entropy, allowed)
        self.run = device.run
        self.forced = bool(device.forced)
        assert (token, self.host.run, self.host.cold_stopped) == (
            device.token.item(),
            device.run.item(),
            self.forced,
        )
        assert (self.host.phase is Phase.ANSWERING) == device.ended.item()
        return token


@pytest.fixture
def three() -> Both:
    """Three steps below half a nat stop."""
    return Both(entropy_threshold=0.5, length_threshold=3)


def test_cold_stop_replaces_the_step_that_completes_the_run(three: Both) -> None:
    assert [three.step(0.1) for _ in range(3)] == [OTHER, OTHER, THINK_END]
    assert three.host.phase is Phase.ANSWERING and three.host.cold_stopped
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
    assert both.host.run == 0


def test_a_length_of_1_stops_at_once() -> None:
    assert Both(entropy_threshold=0.5, length_threshold=1).step(0.1) == THINK_END


def test_a_natural_end_needs_no_low_entropy(three: Both) -> None:
    assert three.step(2.0, proposal=THINK_END) == THINK_END
    assert three.host.phase is Phase.ANSWERING and not three.host.cold_stopped


def test_a_natural_end_where_the_run_completes_is_no_cold_stop(three: Both) -> None:
    three.step(0.1)
    three.step(0.1)
    assert three.step(0.1, proposal=THINK_END) == THINK_END
    assert three.host.phase is Phase.ANSWERING
    assert not three.host.cold_stopped and not three.forced


def test_a_forbidden_think_end_delays_cold_stop(three: Both) -> None:
    tokens = [three.step(0.1, allowed=False) for _ in range(5)]
    assert tokens == [OTHER] * 5
    assert three.host.phase is Phase.THINKING and three.host.run == 5
    assert three.step(0.1, allowed=True) == THINK_END
    assert three.host.cold_stopped


def test_a_delayed_cold_stop_is_forgotten_when_the_run_breaks(three: Both) -> None:
    for _ in range(4):
        three.step(0.1, allowed=False)
    assert three.step(0.9, allowed=True) == OTHER
    assert three.host.run == 0


def test_a_resumed_request_continues_its_run() -> None:
    state = ThinkingState(0.5, 3, THINK_END, run=2, steps=40)
    assert state.advance(OTHER, 0.1) == THINK_END
    assert state.steps == 41
