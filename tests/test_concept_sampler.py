"""The concept sampler on one batch: planning, phases, ids, sampling parameters."""

from dataclasses import replace

import pytest
import torch
from one_thread import one_thread  # noqa: F401 - the import switches it on
from soft_batches import (
    ANSWER,
    INF,
    PARAMS,
    SAMPLED,
    THINK_END,
    TOP_K_OFF,
    Request,
    assert_rows_unchanged,
    contents,
    fed,
    logits_of,
    plan_of,
    run,
    sampling_of,
    started,
)

from soft_sglang.concept_sampler import ConceptStep, plan_batch
from soft_sglang.concept_table import RowStart
from soft_sglang.kernels.concept_step import DIRICHLET_CANDIDATES
from soft_sglang.parameters import SoftThinkingParams
from soft_sglang.state_machine import Phase

# Planning.


def test_no_plan_without_soft_requests() -> None:
    assert plan_batch([], torch.device("cpu")) is None
    assert plan_of([Request(1, None), Request(2, None)]) is None


NARROW = replace(PARAMS, max_topk=2, separate_answer=False)
WIDE = replace(PARAMS, max_topk=5, noise="gumbel", separate_answer=False)


def test_plan_of_a_mixed_batch() -> None:
    needs_another_sampler = Request(1, None, top_p=0.9)
    plan = plan_of(
        [needs_another_sampler, Request(2, NARROW, top_k=30), Request(3, None), Request(4, WIDE)]
    )
    assert plan is not None
    assert plan.positions == (1, 3)
    assert plan.index is not None and plan.index.tolist() == [1, 3]
    assert (plan.step.width, plan.step.candidates) == (5, 30)
    assert (plan.step.with_gumbel, plan.step.with_dirichlet) == (True, False)
    assert not plan.step.samples and not plan.step.with_unfiltered
    assert not plan.answers


def test_plan_of_a_soft_batch_needs_no_index() -> None:
    plan = plan_of([Request(1, PARAMS, top_p=0.9), Request(2, PARAMS, top_k=3)])
    assert plan is not None
    assert plan.index is None and plan.positions == (0, 1)
    assert plan.answers


@pytest.mark.parametrize(
    ("row", "samples", "unfiltered"),
    [
        (Request(1, None), True, True),
        (Request(1, None, top_k=1), True, False),
        (Request(1, None, top_k=256, top_p=0.5, min_p=0.1), True, False),
        (Request(1, None, top_k=257), False, False),
        (Request(1, None, top_p=0.95), False, False),
        (Request(1, None, min_p=0.05), False, False),
        (Request(1, PARAMS, top_p=0.95), True, False),  # thinks so, but answers with ANSWER
        (Request(1, NARROW, top_p=0.95), False, False),
    ],
)
def test_which_rows_are_sampled_with_the_concepts(
    row: Request, samples: bool, unfiltered: bool
) -> None:
    """Those whose candidates are enough: a top-k of at most 256, or no filter at all."""
    plan = plan_of([Request(2, PARAMS, top_k=5), row])
    assert plan is not None
    assert (plan.step.samples, plan.step.with_unfiltered) == (samples, unfiltered)
    assert (plan.index is None) == (samples or row.params is not None)
    if samples:
        limit = row.top_k if row.params is None and row.top_k < TOP_K_OFF else 0
        assert plan.step.candidates == max(5, ANSWER.top_k, limit)


@pytest.mark.parametrize(
    ("noise_name", "top_k", "expected"),
    [
        ("none", TOP_K_OFF, 4),
        ("none", 3, 4),
        ("none", 30, 30),
        ("gumbel", TOP_K_OFF, 4),
        ("dirichlet", TOP_K_OFF, DIRICHLET_CANDIDATES),
        ("dirichlet", 30, 30),
    ],
)
def test_candidates(noise_name: str, top_k: int, expected: int) -> None:
    plan = plan_of([Request(1, replace(PARAMS, noise=noise_name), top_k=top_k)])
    assert plan is not None and plan.step.candidates == expected


# Phases.


def test_only_thinking_rows_emit_concepts() -> None:
    """A batch of every kind: discrete, thinking, in the middle of its prefill, answering."""
    discrete, thinking = Request(1, None, top_p=0.9), Request(2, PARAMS)
    prefilling, answering = Request(3, PARAMS), Request(4, PARAMS)
    table = started(thinking, answering)
    run(table, [answering], logits_of([THINK_END]), SAMPLED[:1])
    table.start([RowStart(3, None)])
    before = contents(table)
    logits = logits_of([10, 11], [12, 13], [14, 15], [16, 17])
    ids, step = run(table, [discrete, thinking, prefilling, answering], logits, SAMPLED[:4])
    assert ids.tolist() == [30, 12, 32, 33]
    assert [i for i, _ in fed(table, 2)[:2]] == [12, 13]
    assert_rows_unchanged(table, before, [0, 1, 3, 4, 5, 6, 7])
    assert step.output is not None
    assert step.output.ids.shape == (3, 4)
    assert step.output.proposal.tolist()[0] == 12


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("neighbour", [None, PARAMS])
def test_sampled_ids_are_kept_and_keep_their_type(
    dtype: torch.dtype, neighbour: SoftThinkingParams | None
) -> None:
    thinking, other = Request(2, PARAMS), Request(3, neighbour)
    sampled = SAMPLED[:2].to(dtype)
    ids, _ = run(started(thinking), [thinking, other], logits_of([10], [11]), sampled)
    assert ids.dtype == dtype and ids.tolist() == [10, 31]
    assert sampled.tolist() == [30, 31]


def test_answers_are_sampled_with_after_thinking_parameters() -> None:
    requests = [
        Request(1, None, 0.5, 0.9, 50, 0.01),
        Request(2, PARAMS, 0.6, 0.95, 30, 0.02),
        Request(3, PARAMS, 0.7, 0.85, 20, 0.03),
        Request(4, None, 0.8, 0.8, TOP_K_OFF, 0.0),
    ]
    table = started(requests[1], requests[2])
    run(table, [requests[1]], logits_of([THINK_END]), SAMPLED[:1])  # slot 2 answers now
    plan = plan_of(requests)
    assert plan is not None
    own = sampling_of(requests)
    copies = [value.clone() for value in own]
    view = ConceptStep(table, plan, torch.tensor([1, 2, 3, 4])).answer_sampling(own)
    for name, mine, now, copied in zip(ANSWER._fields, own, view, copies, strict=True):
        assert torch.equal(mine, copied)
        assert now.dtype == mine.dtype and now.shape == mine.shape
        expected = mine.clone()
        expected[1] = getattr(ANSWER, name)
        assert torch.equal(now, expected), name


def test_nothing_is_replaced_where_no_request_asks_for_it() -> None:
    request = Request(2, replace(PARAMS, separate_answer=False))
    table = started(request)
    run(table, [request], logits_of([THINK_END]), SAMPLED[:1])
    plan = plan_of([request])
    assert plan is not None
    own = sampling_of([request])
    assert ConceptStep(table, plan, torch.tensor([2])).answer_sampling(own) is own


def test_a_natural_think_end_is_fed_alone() -> None:
    request = Request(2, PARAMS)
    table = started(request)
    ids, step = run(table, [request], logits_of([THINK_END, 11, 12], gap=0.1), SAMPLED[:1])
    assert ids.tolist() == [THINK_END]
    assert fed(table, 2) == [(THINK_END, 1.0)]
    assert table.rows.phase[2] == Phase.ANSWERING and table.rows.step[2] == 1
    assert step.output is not None
    assert step.output.ids.tolist() == [[THINK_END, 0, 0, 0]]
    assert step.output.weights.tolist() == [[1, 0, 0, 0]]


def test_a_think_end_that_is_not_the_heaviest_is_part_of_the_mixture() -> None:
    request = Request(2, PARAMS)
    table = started(request)
    run(table, [request], logits_of([11, THINK_END, 12], gap=0.1), SAMPLED[:1])
    assert [i for i, _ in fed(table, 2)[:3]] == [11, THINK_END, 12]
    assert table.rows.phase[2] == Phase.THINKING


def test_a_forced_think_end_replaces_the_concept() -> None:
    params = replace(
        PARAMS, early_stopping_entropy_threshold=5.0, early_stopping_length_threshold=2
    )
    request = Request(2, params)
    table = started(request)
    logits = logits_of([11, 12, 13], gap=0.1)
    assert run(table, [request], logits, SAMPLED[:1])[0].tolist() == [11]
    assert table.rows.run[2] == 1
    ids, step = run(table, [request], logits, SAMPLED[:1])
    assert ids.tolist() == [THINK_END]
    assert fed(table, 2) == [(THINK_END, 1.0)]
    assert table.rows.phase[2] == Phase.ANSWERING
    assert step.output is not None
    assert step.output.ids.tolist() == [[THINK_END, 0, 0, 0]]
    assert step.output.weights.tolist() == [[1, 0, 0, 0]]
    assert step.output.proposal.tolist() == [11]


def test_a_grammar_that_forbids_the_think_end_delays_cold_stop() -> None:
    params = replace(
        PARAMS, early_stopping_entropy_threshold=5.0, early_stopping_length_threshold=1
    )
    request = Request(2, params)
    table = started(request)
    logits = logits_of([11, 12], gap=0.1)
    forbidden = logits.clone()
    forbidden[0, THINK_END] = -INF
    for _ in range(3):
        ids, step = run(table, [request], forbidden, SAMPLED[:1])
        assert ids.tolist() == [11]
        assert step.output is not None and step.output.think_end_allowed.tolist() == [False]
    assert run(table, [request], logits, SAMPLED[:1])[0].tolist() == [THINK_END]


def test_what_the_ranks_agree_on_is_what_counts() -> None:
    """The other rank sees other logits; after the step it has the first rank's everything."""
    params = replace(PARAMS, early_stopping_entropy_threshold=5.0)
    first, second = Request(2, params), Request(4, params)
    mine, theirs = started(first, second), started(first, second)
    sent: list[torch.Tensor] = []

    def send(tensor: torch.Tensor) -> torch.Tensor:
        sent.append(tensor.clone())
        return tensor

    logits = logits_of([10, 11], [THINK_END, 13], gap=0.1)
    other_logits = logits_of([20, 21], [22, 23], gap=9.0)
    ids, step = run(mine, [first, second], logits, SAMPLED[:2], send)
    received = iter(sent)
    agreed, other_step = run(
        theirs, [first, second], other_logits, SAMPLED[:2], lambda _: next(received)
    )
    assert agreed.tolist() == ids.tolist() == [10, THINK_END]
    assert step.output is not None and other_step.output is not None
    assert all(torch.equal(a, b) for a, b in zip(step.output, other_step.output, strict=True))
    for name, value in contents(mine).items():
        assert torch.equal(contents(theirs)[name], value), name
