"""The grader, on hand-made pairs of answer and truth: verdicts come from thought, not from it."""

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from soft_sglang.eval.boxes import last_boxed
from soft_sglang.eval.grading import grade
from soft_sglang.eval.grading_workers import GradingWorkers

PAIRS = [
    json.loads(line)
    for line in Path(__file__).with_name("grading_pairs.jsonl").read_text().splitlines()
]
KNOWN_DISAGREEMENTS = 2
"""As docs/evaluation.md says. More would be a silent change of the rule."""


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair['kind']}: {pair['answer'][:40]}")
def test_verdict(pair):
    right = grade(pair["answer"], pair["truth"]).correct == pair["correct"]
    assert right is ("known_disagreement" not in pair)


def test_pairs_cover_what_they_should():
    kinds = Counter(pair["kind"] for pair in PAIRS)
    wanted = ("fraction", "interval", "unit", "several boxes", "no box", "none", "set", "text")
    assert len(PAIRS) >= 200
    assert all(kinds[kind] >= 5 for kind in wanted)
    assert min(Counter(pair["correct"] for pair in PAIRS).values()) >= 80
    assert sum("known_disagreement" in pair for pair in PAIRS) == KNOWN_DISAGREEMENTS
    assert len({(pair["answer"], pair["truth"]) for pair in PAIRS}) == len(PAIRS)


@pytest.mark.parametrize(
    ("text", "boxed"),
    [
        (r"\boxed{1}", "1"),
        (r"\boxed {1}", "1"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{1}, \boxed{2}", "1, 2"),
        (r"$a=\boxed{1}$ and $b=\boxed{2}$", "1, 2"),
        (r"\boxed{1}. \boxed{2}", "2"),
        (r"\boxed{3} or \boxed{1} \text{ or } \boxed{2}", "3, 1, 2"),
        (r"\boxed{1} \boxed{", "1"),
        (r"\boxed{1", None),
        (r"\boxed{}", None),
        (r"boxed{1}", None),
        ("", None),
    ],
)
def test_which_box_counts(text, boxed):
    assert last_boxed(text) == boxed


def test_any_thread_may_grade():
    sample = PAIRS[::10]
    with ThreadPoolExecutor(4) as threads:
        verdicts = list(threads.map(lambda pair: grade(pair["answer"], pair["truth"]), sample))
    assert verdicts == [grade(pair["answer"], pair["truth"]) for pair in sample]


def test_an_answer_that_takes_for_ever_is_wrong_and_delays_no_other():
    pairs = [
        (r"\boxed{9^{9^{9^{9}}}}", "5"),
        *[(rf"\boxed{{\frac{{{i}}}{{3}}}}", f"{i}/3") for i in range(4)],
        (r"\boxed{(10^{10^{10}})!}", "7"),
    ]
    began = time.monotonic()
    with GradingWorkers(2, deadline=3.0) as workers:
        verdicts = dict(workers.grade(pairs))
    assert [verdicts[i].correct for i in range(len(pairs))] == [False, *[True] * 4, False]
    assert verdicts[0].extracted is None
    assert time.monotonic() - began < 60
