"""What other thresholds would have cut: by hand, and by the plainest loops."""

import numpy as np
import pytest

from soft_sglang.eval.measurements import Block, Dataset
from soft_sglang.eval.records import Answer
from soft_sglang.eval.what_if import Grid, cuts, longest_runs

LOW, HIGH = 0.01, 0.5


def block(thoughts, arm="soft", request=None):
    """Of thoughts as (entropies, end, whether the answer is right)."""
    answers = tuple(
        Answer(
            *(arm, "alpha", f"p{number}", 0, 0, "", "", {}, "", None, "", 9, len(entropies or ())),
            finish_reason="stop",
            soft_thinking={"steps": len(entropies or ()), "end": end, "entropies": entropies},
            seconds=0.0,
            finished_at=0.0,
        )
        for number, (entropies, end, _) in enumerate(thoughts)
    )
    verdicts = {a.key: right for a, (*_, right) in zip(answers, thoughts, strict=True)}
    problems = tuple(answer.problem for answer in answers)
    return Block(*(arm, problems, 1, len(answers), answers, 0, verdicts, {}, ()), request=request)


def test_cuts_by_hand():
    thoughts = [
        ([HIGH, LOW, LOW, LOW, HIGH, HIGH], "think_end", True),
        ([LOW, LOW], "think_end", False),  # its last step ends it anyway
        ([LOW, LOW, LOW], "cold_stop", True),  # of a length threshold of 3
        ([HIGH, HIGH], "length", False),
        ([], "closed", True),
        (None, "think_end", True),
    ]
    found = cuts(block(thoughts), 0.1, [1, 2, 3, 4])
    assert found.stopped.tolist() == [75, 50, 50, 0]
    assert found.saved == pytest.approx([100 * n / 13 for n in (4 + 1 + 2, 3 + 1, 2, 0)])
    assert found.right[:3] == pytest.approx([200 / 3, 100, 100]) and np.isnan(found.right[3])
    assert found.known.tolist() == [True, True, True, False]
    assert longest_runs(block(thoughts), 0.1).tolist() == [3, 2, 3, 0]


def test_an_entropy_that_is_the_threshold_is_not_below_it():
    found = cuts(block([([LOW, LOW, LOW, HIGH], "think_end", True)]), LOW, [1])
    assert (found.stopped, found.saved) == (0, 0)


@pytest.mark.parametrize(("end", "stopped"), [("think_end", 0), ("length", 100), ("budget", 100)])
def test_a_run_that_is_complete_at_the_last_step(end, stopped):
    """Ending by itself goes before Cold Stop, Cold Stop before a limit."""
    found = cuts(block([([HIGH, LOW, LOW], end, True)]), 0.1, [2])
    assert (found.stopped, found.saved, found.known) == (stopped, 0, True)


@pytest.mark.parametrize("seed", range(20))
def test_cuts_by_plain_loops(seed):
    random = np.random.default_rng(seed)
    thoughts = [
        (
            random.choice([0.005, 0.01, 0.05, 0.1, 0.5], int(random.integers(1, 40))).tolist(),
            str(random.choice(["think_end", "cold_stop", "length"])),
            bool(random.random() < 0.6),
        )
        for _ in range(30)
    ]
    threshold = float(random.choice([0.01, 0.1, 0.2]))
    lengths = [1, 2, 3, 5, 8, 13]
    found = cuts(block(thoughts), threshold, lengths)
    for place, length in enumerate(lengths):
        stopped, saved, right, known = 0, 0, 0, True
        for entropies, end, correct in thoughts:
            run = 0
            for step, entropy in enumerate(entropies, start=1):
                run = run + 1 if entropy < threshold else 0
                if run == length and (step < len(entropies) or end != "think_end"):
                    stopped, right = stopped + 1, right + correct
                    saved += len(entropies) - step
                    break
            else:
                known = known and end != "cold_stop"
        total = sum(len(entropies) for entropies, *_ in thoughts)
        assert found.stopped[place] == pytest.approx(100 * stopped / 30)
        assert found.saved[place] == pytest.approx(100 * saved / total)
        assert found.right[place] == pytest.approx(
            100 * right / stopped if stopped else np.nan, nan_ok=True
        )
        assert found.known[place] == known


def cold_stop(entropy, length):
    return {
        "early_stopping_entropy_threshold": entropy,
        "early_stopping_length_threshold": length,
    }


def test_the_grid_has_usual_thresholds_and_those_of_the_runs():
    thoughts = [([0.06] * 16 + [0.5], "think_end", True)]
    blocks = {
        "cot": block(thoughts, "cot", cold_stop(0, 8)),
        "soft": block(thoughts, "soft", cold_stop(0.02, 300)),
    }
    grid = Grid.of(Dataset("alpha", blocks, None))
    assert grid == Grid((0.01, 0.02, 0.05, 0.1), (8, 16, 32, 300))
    del blocks["soft"]
    grid = Grid.of(Dataset("alpha", {"cot": block([], "cot")}, None))
    assert grid == Grid((0.01, 0.05, 0.1), (8,))
