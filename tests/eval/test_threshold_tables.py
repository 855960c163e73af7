"""The report's tables and plot of low-entropy runs and thresholds, against plain calculations."""

import re

import numpy as np
import pytest
from report_runs import ARMS, COT, Truth, lines, write_lines, write_run

from soft_sglang.eval.families import families
from soft_sglang.eval.measurements import read_models
from soft_sglang.eval.plots import threshold_curves
from soft_sglang.eval.report import write_report


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("thresholds") / "run")


@pytest.fixture(scope="module")
def text(run):
    return report(run)


def report(run):
    return write_report([run], run.parent / "report", plots=False).read_text()


def rows(text, corner):
    """The rows of the table with this first cell, as {header: cell}."""
    table = text[text.index(f"| {corner} |") :].split("\n\n")[0]
    header, _, *body = [re.split(r" (?<!\\)\| ", line[2:-2]) for line in table.splitlines()]
    return [dict(zip(header, row, strict=True)) for row in body]


def of_arm(run, arm):
    """Its thoughts, each with whether its answer is right."""
    grades = {
        (grade["problem"], grade["sample"]): grade["correct"]
        for grade in lines(run / "grades.jsonl")
        if grade["arm"] == arm
    }
    return [
        (answer["soft_thinking"], grades[answer["problem"], answer["sample"]])
        for answer in lines(run / "answers.jsonl")
        if answer["arm"] == arm
    ]


def first_stop(entropies, threshold, length):
    run = 0
    for step, entropy in enumerate(entropies, start=1):
        run = run + 1 if entropy < threshold else 0
        if run == length:
            return step
    return None


def longest(entropies, threshold):
    length = 0
    while first_stop(entropies, threshold, length + 1):
        length += 1
    return length


def test_distribution_of_the_longest_runs(run, text):
    corner = "longest run, in steps"
    (row,) = [row for row in rows(text, corner) if row[corner] == "Soft Thinking"]
    thoughts = of_arm(run, "soft")
    assert row["thoughts"] == "120"
    assert row["Cold Stop"] == "0.01 nats, 256 steps"
    ended = sum(thought["end"] == "cold_stop" for thought, _ in thoughts)
    assert row["ended by it, %"] == f"{100 * ended / 120:.1f}"
    for threshold in (0.01, 0.05, 0.1):
        found = sorted(longest(thought["entropies"], threshold) for thought, _ in thoughts)
        half, most = found[60 - 1], found[108 - 1]  # of 120
        assert row[f"below {threshold} nats"] == f"{half} / {most} / {found[-1]}"
    assert "CoT (sampling)" not in text.split("#### Low-entropy runs")[1], "it has no entropies"


def test_what_would_have_been_cut(run, text):
    table = rows(text, "stopped / saved / right, %")
    names = [row["stopped / saved / right, %"] for row in table]
    assert names == ["Cold Stop only"] * 3 + ["Soft Thinking, no Cold Stop"] * 3
    thoughts = of_arm(run, "soft_no_cold_stop")
    steps = sum(len(thought["entropies"]) for thought, _ in thoughts)
    for row, threshold in zip(table[3:], (0.01, 0.05, 0.1), strict=True):
        assert row["below"] == f"{threshold} nats"
        assert row["ended already, %"] == "0.0"
        for length in (8, 16, 32):
            saved, right = 0, []
            for thought, correct in thoughts:
                size = len(thought["entropies"])
                stop = first_stop(thought["entropies"], threshold, length) or size
                if stop < size:
                    saved, right = saved + size - stop, [*right, correct]
            assert right, "the toy is stopped now and then"
            shares = (len(right) / 120, saved / steps, np.mean(right))
            expected = " / ".join(f"{100 * share:.1f}" for share in shares)
            assert row[f"{length} steps"] == expected
        assert row["256 steps"] == "0.0 / 0.0 / –"


def test_where_cold_stop_ended_thoughts_there_is_a_lower_bound(run, text):
    row = rows(text, "stopped / saved / right, %")[2]
    stopped = 0
    for thought, _ in of_arm(run, "cold_stop_only"):
        stop = first_stop(thought["entropies"], 0.1, 32)
        by_itself = stop == len(thought["entropies"]) and thought["end"] == "think_end"
        stopped += stop is not None and not by_itself
    assert row["32 steps"] == f"≥ {100 * stopped / 120:.1f}"


def test_why_cold_stop_never_fires_is_said(tmp_path):
    arms = {"cot": COT, "soft": Truth(), "soft_no_cold_stop": Truth()}
    run = write_run(tmp_path / "run", arms=arms, datasets={"alpha": 20})
    runs = [longest(thought["entropies"], 0.01) for thought, _ in of_arm(run, "soft")]
    text = report(run)
    assert (
        "Cold Stop ended no thought of Soft Thinking: it waits for 256 steps in a row below 0.01 "
        f"nats, and the longest such run has {max(runs)}."
    ) in text
    assert "no thought of Soft Thinking, no" not in text


def test_a_thought_that_was_closed_is_none(tmp_path):
    run = write_run(tmp_path / "run", arms={"soft": Truth()}, datasets={"alpha": 20})
    first, *others = lines(run / "answers.jsonl")
    closed = {"steps": 0, "end": "closed", "mean_entropy": 0.0, "longest_run": 0, "entropies": []}
    write_lines(run / "answers.jsonl", [first | {"soft_thinking": closed}, *others])
    (row,) = rows(report(run), "longest run, in steps")
    assert row["thoughts"] == "39"


def test_without_entropies_there_is_nothing(tmp_path):
    arms = {"cot": COT, "soft": Truth(entropy=False)}
    run = write_run(tmp_path / "run", arms=arms, datasets={"alpha": 10})
    text = report(run)
    assert "Low-entropy runs" not in text
    assert "would have cut" not in text
    assert threshold_curves.draw(read_models([run])[0].datasets["alpha"]) is None


# Sweeps ----------------------------------------------------------------------------------------


def sweep(folder, arms, base=None):
    """A run of a sweep: arms `soft_h…` as {(nats, steps): truth}."""
    added = {
        f"soft_h{entropy}_l{length}": {
            "policy": "soft_thinking",
            "early_stopping_entropy_threshold": entropy,
            "early_stopping_length_threshold": length,
        }
        for entropy, length in arms
    }
    truths = {**(base or {}), **dict(zip(added, arms.values(), strict=True))}
    return write_run(folder, arms=truths, datasets={"alpha": 40}, changes={"added_arms": added})


def test_a_sweep_is_sorted_by_tokens_and_compared_with_no_cold_stop(tmp_path):
    arms = {
        (0.1, 32): Truth(0.8, 1.0, 0.5),
        (0.1, 8): Truth(0.5, 0.5, 0.9),
        (0.05, 8): Truth(0.6, 0.0, 0.9),
    }
    run = sweep(tmp_path / "run", arms, {"cot": COT, "soft_no_cold_stop": Truth(1.2)})
    table = rows(report(run), "fewest tokens first")
    answers, grades = lines(run / "answers.jsonl"), lines(run / "grades.jsonl")
    tokens = {row["arm"]: [] for row in answers}
    for answer in answers:
        tokens[answer["arm"]].append(answer["tokens"])
    means = {arm: np.mean(found) for arm, found in tokens.items()}
    accuracy = {
        arm: 100 * np.mean([g["correct"] for g in grades if g["arm"] == arm]) for arm in means
    }
    names = [row["fewest tokens first"] for row in table]
    assert names[:2] == ["**soft_h0.1_l8**", "soft_h0.05_l8"], "one above it is more accurate"
    assert names[2] == "**soft_h0.1_l32**"
    assert names[3].strip("*") == "Soft Thinking, no Cold Stop"
    assert names[3].startswith("**") == (accuracy["soft_no_cold_stop"] > accuracy["soft_h0.1_l32"])
    first, *_, last = table
    assert (first["Cold Stop"], last["Cold Stop"]) == ("0.1 nats, 8 steps", "–")
    assert first["tokens"].startswith(f"{means['soft_h0.1_l8']:.1f} [")
    change = 100 * (1 - means["soft_h0.1_l8"] / means["soft_no_cold_stop"])
    assert first["change in % against `soft_no_cold_stop`"].startswith(f"−{change:.1f} [−")
    points = accuracy["soft_no_cold_stop"] - accuracy["soft_h0.1_l8"]
    assert first["change in points against `soft_no_cold_stop`"].startswith(f"−{points:.1f} [−")
    assert last["change in % against `soft_no_cold_stop`"] == "–"


def test_a_sweep_without_it_is_compared_with_cot_or_with_nothing(tmp_path):
    arms = {(0.1, 8): Truth(0.5, cold_stop=1), (0.1, 16): Truth(0.6, cold_stop=1)}
    table = rows(
        report(sweep(tmp_path / "with" / "run", arms, {"cot": COT})), "fewest tokens first"
    )
    assert table[0]["change in % against `cot`"].startswith("−")
    table = rows(report(sweep(tmp_path / "without" / "run", arms)), "fewest tokens first")
    assert table[0]["change in %"] == "–"


def test_an_incomplete_arm_of_a_sweep_is_last_and_compared_with_nothing(tmp_path):
    arms = {(0.1, 8): Truth(0.5, cold_stop=1), (0.1, 16): Truth(0.6, cold_stop=1)}
    run = sweep(tmp_path / "run", arms, {"cot": COT})
    kept = [a for a in lines(run / "answers.jsonl") if a["arm"] != "soft_h0.1_l8" or a["sample"]]
    write_lines(run / "answers.jsonl", kept)
    *_, last = rows(report(run), "fewest tokens first")
    assert list(last.values()) == [
        *("soft_h0.1_l8", "0.1 nats, 8 steps", "**40/80** answers"),
        *["–"] * 4,
    ]


def test_the_usual_arms_are_no_sweep(text):
    assert "fewest tokens first" not in text


def test_families(tmp_path):
    arms = {**ARMS, "gumbel": Truth(cold_stop=0.5), "unknown": Truth()}
    run = write_run(tmp_path / "run", arms=arms, datasets={"alpha": 20})
    found = families(read_models([run])[0].datasets["alpha"])
    assert [[block.arm for block in family.blocks] for family in found] == [
        ["cot", "cold_stop_only"],
        ["soft", "soft_no_cold_stop"],
        ["gumbel"],
    ]
    assert [family.least_stopped.arm for family in found] == [
        "cold_stop_only",  # the toy's CoT has no entropies
        "soft_no_cold_stop",
        "gumbel",
    ]
    without = [family.without_cold_stop for family in found]
    assert [block and block.arm for block in without] == ["cot", "soft_no_cold_stop", None]


# The plot --------------------------------------------------------------------------------------


def test_curves(run):
    figure = threshold_curves.draw(read_models([run])[0].datasets["alpha"])
    assert len(figure.axes) == 4, "two families"
    stopped, saved = figure.axes[2:]
    assert stopped.get_title(loc="left") == "Soft Thinking, no Cold Stop"
    thoughts = [thought["entropies"] for thought, _ in of_arm(run, "soft_no_cold_stop")]
    steps = sum(map(len, thoughts))
    for place, threshold in enumerate((0.01, 0.05, 0.1)):
        line, other = stopped.lines[place], saved.lines[place]
        assert line.get_label() == f"{threshold} nats"
        for length, share, part in zip(
            line.get_xdata(), line.get_ydata(), other.get_ydata(), strict=True
        ):
            cut = [len(t) - (first_stop(t, threshold, length) or len(t)) for t in thoughts]
            assert share == pytest.approx(100 * sum(n > 0 for n in cut) / len(thoughts))
            assert part == pytest.approx(100 * sum(cut) / steps)
    assert np.isnan(figure.axes[0].lines[0].get_ydata()[-1]), "Cold Stop ended thoughts before"
