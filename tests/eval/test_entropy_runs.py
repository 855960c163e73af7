"""Low-entropy runs: by hand, and as the state machine that ends thoughts counts them."""

import json

import numpy as np
import pytest

from soft_sglang.eval.client import summary
from soft_sglang.eval.entropy_runs import first_steps, longest_run, run_lengths
from soft_sglang.state_machine import Phase, ThinkingState, ThoughtRules

TENTH = np.float32(0.1)
TOKEN, THINK_END = 5, 7


@pytest.mark.parametrize(
    ("entropies", "threshold", "runs"),
    [
        ([], 0.1, []),
        ([0.05, 0.2, 0.09, 0.0, 0.3], 0.1, [1, 0, 1, 2, 0]),
        ([0.05, 0.05, 0.05], 0.1, [1, 2, 3]),
        ([0.5, 0.5], 0.1, [0, 0]),
        ([0.05, 0.1, 0.05, 0.05], 0.1, [1, 0, 1, 2]),  # equal is not below
        ([0.0, 0.0], 0.0, [0, 0]),
        ([float(TENTH)], 0.1, [0]),  # equal as float32, though 0.1 is less as float64
        ([float(np.nextafter(TENTH, np.float32(0)))], 0.1, [1]),
    ],
)
def test_runs(entropies, threshold, runs):
    assert run_lengths(entropies, threshold).tolist() == runs
    assert longest_run(entropies, threshold) == max(runs, default=0)


def test_first_steps():
    runs = run_lengths([0.01, 0.01, 0.5, 0.01, 0.01, 0.01], 0.1)
    assert first_steps(runs, [1, 2, 3, 4, 100]).tolist() == [1, 2, 6, 7, 7]


def test_entropies_are_recorded_so_that_no_comparison_changes():
    random = np.random.default_rng(0)
    entropies = random.exponential(0.1, 2000).astype(np.float32)
    around = [TENTH, np.nextafter(TENTH, np.float32(0)), np.nextafter(TENTH, np.float32(1))]
    entropies = np.concatenate([entropies, around, [0, 1e-38, 12.5]]).astype(np.float32)
    told = {"steps": len(entropies), "end": "stop", "entropies": entropies.tolist()}
    recorded = json.loads(json.dumps(summary(told)))["entropies"]
    assert np.array_equal(np.array(recorded, np.float32), entropies)
    assert max(len(str(entropy)) for entropy in recorded) < 16


@pytest.mark.parametrize("seed", range(60))
def test_the_answers_own_longest_run_and_end_are_the_same(seed):
    """A thought of random steps, some at the threshold itself, in the scheduler's state machine."""
    random = np.random.default_rng(seed)
    threshold, length = random.choice([0.0, 0.01, 0.1, 0.3]), int(random.integers(1, 12))
    pool = np.array([0.0, 0.005, 0.01, 0.05, 0.1, 0.3, 0.7], np.float32)
    entropies = random.choice(pool, int(random.integers(1, 80)), p=[0.2, 0.2, *[0.12] * 5]).tolist()
    state = ThinkingState(
        ThoughtRules(float(np.float32(threshold)), length, (THINK_END,), (THINK_END,))
    )
    for step, entropy in enumerate(entropies, start=1):
        state.advance(THINK_END if step == len(entropies) else TOKEN, entropy)
        if state.phase is not Phase.THINKING:
            break
    told = {"longest_run": state.longest_run, "entropies": entropies[: state.steps]}
    recorded = summary({**told, "steps": state.steps, "end": state.end, "mean_entropy": 0.0})

    assert longest_run(recorded["entropies"], threshold) == recorded["longest_run"]
    (stop,) = first_steps(run_lengths(entropies, threshold), [length])
    assert (stop < len(entropies)) == (recorded["end"] == "cold_stop")
    assert min(stop, len(entropies)) == recorded["steps"]
