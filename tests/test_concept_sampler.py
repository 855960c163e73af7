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
from soft_sglang.kernels.table_rows import GUIDED, MARKER_LIMIT, NO_TOKEN, THINKING
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


SEVERAL = replace(
    PARAMS,
    early_stopping_entropy_threshold=5.0,
    early_stopping_length_threshold=2,
    think_end_ids=(7, 8, 9),
    cold_stop_ids=(5, 6, 7, 8, 9),
)
RETHINKS = replace(SEVERAL, think_start_ids=(1, 2))


@pytest.mark.parametrize(
    ("params", "end_width", "forced_width"),
    [
        ([PARAMS, NARROW], 1, 1),
        ([PARAMS, SEVERAL], 3, 5),
        ([replace(SEVERAL, cold_stop_ids=(7, 8, 9))], 3, 3),
        ([replace(SEVERAL, think_end_first_token=True)], 1, 5),
        ([replace(PARAMS, cold_stop_ids=(4, THINK_END))], 1, 2),
        (
            [
                replace(PARAMS, think_end_ids=(1,) * 4, cold_stop_ids=(1,) * 4),
                replace(PARAMS, cold_stop_ids=(2,) * 6 + (THINK_END,)),
                PARAMS,
            ],
            4,
            7,
        ),
    ],
)
def test_widths_of_the_markers(
    params: list[SoftThinkingParams], end_width: int, forced_width: int
) -> None:
    """As wide as the longest of the batch; discrete rows have none."""
    plan = plan_of([Request(1, None), *(Request(2 + i, p) for i, p in enumerate(params))])
    assert plan is not None
    assert (plan.step.end_width, plan.step.forced_width) == (end_width, forced_width)


@pytest.mark.parametrize(
    ("seeded", "rethinks", "samples", "counts", "draws"),
    [
        (False, False, True, False, False),
        (True, False, True, True, True),
        (True, False, False, True, False),
        (False, True, True, True, False),
        (False, True, False, True, False),
        (True, True, True, True, True),
        (True, True, False, True, False),
    ],
)
def test_which_answers_are_counted(
    seeded: bool, rethinks: bool, samples: bool, counts: bool, draws: bool
) -> None:
    """Those that draw by their position, and those that may lead to another thought."""
    params = replace(RETHINKS if rethinks else SEVERAL, seeded=seeded)
    other = Request(1, None, top_p=1.0 if samples else 0.9)
    plan = plan_of([other, Request(2, params)])
    assert plan is not None and plan.step.samples == samples
    assert (plan.step.counts_answers, plan.step.seeded_answers) == (counts, draws)
    assert (plan.rethinking is not None) == rethinks


def test_plan_of_rows_that_may_think_again() -> None:
    plan = plan_of(
        [
            Request(1, None),
            Request(2, RETHINKS),
            Request(3, SEVERAL),
            Request(4, replace(PARAMS, think_start_ids=(7,))),
            Request(5, replace(RETHINKS, policy="discrete", policy_columns=1)),
        ]
    )
    assert plan is not None and plan.rethinking is not None
    index, start_ids, last, phase = vars(plan.rethinking).values()
    assert index.tolist() == [1, 3, 4]
    assert start_ids.tolist() == [
        [*ids, *[NO_TOKEN] * (MARKER_LIMIT - len(ids))] for ids in ([1, 2], [7], [1, 2])
    ]
    assert last.tolist() == [1, 0, 1]
    assert phase.tolist() == [THINKING, THINKING, GUIDED]


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
        assert step.output is not None and step.output.end_allowed.tolist() == [False]
    assert run(table, [request], logits, SAMPLED[:1])[0].tolist() == [THINK_END]


def test_a_marker_of_several_tokens_ends_with_its_last_one() -> None:
    """The tokens before are ordinary ones, fed as mixtures; the last one is fed alone."""
    request = Request(2, replace(SEVERAL, early_stopping_entropy_threshold=0.0))
    table = started(request)
    for token, matched in ((7, 0b1), (8, 0b10), (7, 0b1), (8, 0b10)):
        ids, _ = run(table, [request], logits_of([token, 20], gap=0.1), SAMPLED[:1])
        assert ids.tolist() == [token]
        assert [i for i, _ in fed(table, 2)[:2]] == [token, 20]
        assert table.rows.phase[2] == Phase.THINKING and table.rows.matched[2] == matched
    ids, _ = run(table, [request], logits_of([9, 20], gap=0.1), SAMPLED[:1])
    assert ids.tolist() == [9]
    assert fed(table, 2) == [(9, 1.0)]
    assert table.rows.phase[2] == Phase.ANSWERING and table.rows.matched[2] == 0


def test_forced_tokens_are_fed_alone_whatever_the_model_proposes() -> None:
    """Also a marker that the model proposes meanwhile."""
    request = Request(2, SEVERAL)
    table = started(request)
    run(table, [request], logits_of([11, 12], gap=0.1), SAMPLED[:1])
    for favourite, token in zip((11, 7, 8, 9, 11), SEVERAL.cold_stop_ids, strict=True):
        assert table.rows.phase[2] == Phase.THINKING
        ids, step = run(table, [request], logits_of([favourite, 12], gap=0.1), SAMPLED[:1])
        assert ids.tolist() == [token]
        assert fed(table, 2) == [(token, 1.0)]
        assert step.output is not None
        assert step.output.ids.tolist() == [[token, 0, 0, 0]]
        assert step.output.proposal.tolist() == [favourite]
    assert table.rows.phase[2] == Phase.ANSWERING
    assert table.rows.run[2] == 2 and table.rows.thought[2] == 6


def test_a_marker_that_has_begun_is_gone_on_with() -> None:
    request = Request(2, SEVERAL)
    table = started(request)
    emitted = [
        run(table, [request], logits_of([favourite, 12], gap=0.1), SAMPLED[:1])[0].item()
        for favourite in (11, 7, 11, 11)
    ]
    assert emitted == [11, 7, 8, 9]
    assert table.rows.phase[2] == Phase.ANSWERING


@pytest.mark.parametrize("forbidden", [5, 8, 9])
def test_forced_tokens_are_given_up_where_one_to_come_is_forbidden(forbidden: int) -> None:
    """And begin again as soon as all of them are allowed."""
    request = Request(2, SEVERAL)
    table = started(request)
    free = logits_of([11, 12], gap=0.1)
    emitted = [run(table, [request], free, SAMPLED[:1])[0].item() for _ in range(3)]
    assert emitted == [11, 5, 6] and table.rows.forced[2] == 2
    masked = free.clone()
    masked[0, forbidden] = -INF
    ids, step = run(table, [request], masked, SAMPLED[:1])
    assert step.output is not None
    behind = forbidden == 5  # is emitted already
    assert step.output.end_allowed.tolist() == [behind]
    assert ids.tolist() == [7 if behind else 11]
    assert table.rows.forced[2] == (3 if behind else 0)
    if not behind:
        assert [i for i, _ in fed(table, 2)[:2]] == [11, 12]
    emitted = [run(table, [request], free, SAMPLED[:1])[0].item() for _ in range(2)]
    assert emitted == ([8, 9] if behind else [5, 6])


def test_the_budget_ends_thinking() -> None:
    request = Request(2, replace(PARAMS, max_thinking_steps=2, cold_stop_ids=(6, THINK_END)))
    table = started(request)
    logits = logits_of([11, 12], gap=0.1)
    emitted = [run(table, [request], logits, SAMPLED[:1])[0].item() for _ in range(5)]
    assert emitted == [11, 11, 6, THINK_END, 30]
    assert table.rows.phase[2] == Phase.ANSWERING and table.rows.thought[2] == 4


def test_an_answer_may_think_again() -> None:
    """Its neighbour, with the same tokens, may not."""
    requests = [Request(2, RETHINKS), Request(4, SEVERAL), Request(5, None)]
    table = started(*requests[:2])
    end = logits_of([7], [7], [7]), logits_of([8], [8], [8]), logits_of([9], [9], [9])
    for logits in end:
        run(table, requests, logits, SAMPLED[:3])
    assert table.rows.phase[[2, 4]].tolist() == [Phase.ANSWERING] * 2
    think = logits_of([20, 21], [20, 21], [20, 21], gap=0.1)
    for token, phase in ((1, 2), (1, 2), (2, 1)):
        ids, _ = run(table, requests, think, torch.tensor([token] * 3))
        assert ids.tolist() == [token] * 3  # the answer is another sampler's
        assert table.rows.phase[[2, 4]].tolist() == [phase, Phase.ANSWERING]
        assert fed(table, 2) == [(9, 1.0)]  # none beside the token: it is fed itself
    ids, _ = run(table, requests, think, SAMPLED[:3])
    assert ids.tolist() == [20, 31, 32]
    assert [i for i, _ in fed(table, 2)[:2]] == [20, 21]
    assert table.rows.step[[2, 4]].tolist() == [7, 7] and table.rows.thought[2] == 4


def test_a_start_marker_does_not_reach_back_into_the_thought() -> None:
    """The token that ends thinking is the first one of the start, and yet none of it."""
    params = replace(PARAMS, think_start_ids=(THINK_END, 2))
    request = Request(2, params)
    table = started(request)
    run(table, [request], logits_of([THINK_END]), SAMPLED[:1])
    run(table, [request], logits_of([11]), torch.tensor([2]))
    assert table.rows.phase[2] == Phase.ANSWERING
    for token in (THINK_END, 2):
        run(table, [request], logits_of([11]), torch.tensor([token]))
    assert table.rows.phase[2] == Phase.THINKING


def test_what_the_ranks_agree_on_is_what_counts() -> None:
    """The other rank sees other logits; after the step it has the first rank's everything."""
    params = replace(
        PARAMS, early_stopping_entropy_threshold=5.0, think_start_ids=(1,), cold_stop_ids=(6, 3)
    )
    first, second = Request(2, params), Request(4, replace(params, max_thinking_steps=0))
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
