"""The concept table: what a row holds when a request takes its slot."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from soft_batches import (
    ANSWER,
    INF,
    PARAMS,
    SAMPLED,
    THINK_END,
    Request,
    assert_rows_unchanged,
    contents,
    fed,
    logits_of,
    run,
    started,
)

from soft_sglang.concept import Concept
from soft_sglang.concept_table import AnswerSampling, ConceptTable, RowStart
from soft_sglang.kernels.table_rows import FORCED_LIMIT, MARKER_LIMIT, NO_LIMIT, NO_TOKEN
from soft_sglang.state_machine import Phase, ThinkingState


def test_parameters_survive_the_table_exactly() -> None:
    table = ConceptTable(8, 6, "cpu")
    extremes = [
        replace(
            PARAMS,
            seed=-(2**63),
            noise="gumbel",
            think_end_ids=(151935,),
            cold_stop_ids=(2**31, 151935),
        ),
        replace(PARAMS, seed=2**63 - 1, noise="dirichlet", early_stopping_length_threshold=2**31),
        replace(
            PARAMS, seed=2**53 + 1, early_stopping_entropy_threshold=0.01, max_thinking_steps=0
        ),
    ]
    starts = [
        RowStart(
            slot,
            params,
            ANSWER,
            ThinkingState(params.rules, run=slot, steps=9 * slot, forced=slot + 20, matched=slot),
            step=10 * slot,
        )
        for slot, params in zip((5, 2, 7), extremes, strict=True)
    ]
    table.start(starts)
    slots = torch.tensor([5, 2, 7])
    parameters = {name: value.tolist() for name, value in table.rows.parameters(slots).items()}
    assert parameters["seed"] == [-(2**63), 2**63 - 1, 2**53 + 1]
    assert table.rows.end_ids[slots, 0].tolist() == [151935, THINK_END, THINK_END]
    assert table.rows.forced_ids[slots, 0].tolist() == [2**31, THINK_END, THINK_END]
    assert parameters["end_length"] == [1, 1, 1] and parameters["forced_length"] == [2, 1, 1]
    assert parameters["length_threshold"] == [256, 2**31, 256]
    assert parameters["max_thinking_steps"] == [NO_LIMIT, NO_LIMIT, 0]
    assert parameters["entropy_threshold"][2] == float(np.float32(0.01))
    assert len(set(parameters["noise"])) == 3
    for name in AnswerSampling._fields:
        assert parameters[f"answer_{name}"] == [getattr(ANSWER, name)] * 3
    assert table.rows.run[slots].tolist() == [5, 2, 7]
    assert table.rows.step[slots].tolist() == [50, 20, 70]
    assert table.rows.thought[slots].tolist() == [45, 18, 63]
    assert table.rows.forced[slots].tolist() == [25, 22, 27]
    assert table.rows.matched[slots].tolist() == [5, 2, 7]


FULL_MARKER = tuple(range(100, 100 + MARKER_LIMIT))
FULL_STOP = (*range(200, 200 + FORCED_LIMIT - MARKER_LIMIT), *FULL_MARKER)


@pytest.mark.parametrize(
    ("markers", "end_ids", "forced_ids"),
    [
        ({"think_end_ids": (8,), "cold_stop_ids": (8,)}, (8,), (8,)),
        ({"think_end_ids": (8, 9), "cold_stop_ids": (5, 0, 8, 9)}, (8, 9), (5, 0, 8, 9)),
        (
            {"think_end_ids": FULL_MARKER, "cold_stop_ids": FULL_STOP},
            FULL_MARKER,
            FULL_STOP,
        ),
        (
            {
                "think_end_ids": (8, 9),
                "cold_stop_ids": (5, 8, 9),
                "think_end_first_token": True,
            },
            (8,),
            (5, 8, 9),
        ),
    ],
)
def test_markers(
    markers: dict[str, object], end_ids: tuple[int, ...], forced_ids: tuple[int, ...]
) -> None:
    """They lie in the row from its begin, and nothing that is a token follows them."""
    table = started(Request(2, replace(PARAMS, think_end_ids=FULL_STOP[:3], cold_stop_ids=(1,))))
    table.start([Request(2, replace(PARAMS, **markers)).start()])
    rows = table.rows
    for column, ids in ((rows.end_ids, end_ids), (rows.forced_ids, forced_ids)):
        assert column[2].tolist() == [*ids, *[NO_TOKEN] * (column.shape[1] - len(ids))]
    parameters = rows.parameters(torch.tensor([2]))
    assert parameters["end_length"].tolist() == [len(end_ids)]
    assert parameters["forced_length"].tolist() == [len(forced_ids)]


SEVERAL = replace(
    PARAMS,
    early_stopping_entropy_threshold=5.0,
    think_end_ids=(8, 9, 10),
    cold_stop_ids=(5, 6, 8, 9, 10),
)


def test_a_row_follows_the_state_of_its_thought() -> None:
    """Match and forced position, as the steps leave them and as a start repeats them."""
    request = Request(2, replace(SEVERAL, early_stopping_length_threshold=4))
    table, state = started(request), request.state()
    for favourite in (8, 9, 8, 11, 11, 11):
        logits = logits_of([favourite, 20], gap=0.1)
        _, step = run(table, [request], logits, SAMPLED[:1])
        assert step.output is not None
        state.advance(favourite, step.output.entropy.item())
        other = ConceptTable(8, 6, "cpu")
        other.start([replace(request, slot=5).start(state, int(table.rows.step[2]))])
        assert torch.equal(other.rows.state[5], table.rows.state[2])
    assert (state.forced, state.run) == (3, 4)
    assert table.rows.thought[2] == table.rows.step[2] == 6


def test_a_row_forgets_the_forced_tokens_of_its_former_owner() -> None:
    request = Request(2, replace(SEVERAL, early_stopping_length_threshold=1))
    table = started(request)
    run(table, [request], logits_of([11, 12], gap=0.1), SAMPLED[:1])
    assert table.rows.forced[2] == 1 and table.rows.thought[2] == 1
    table.start([request.start()])
    assert table.rows.state[2].tolist() == started(request).rows.state[2].tolist()
    forbidden = logits_of([11, 8], gap=0.1)
    forbidden[0, 6] = -INF
    run(table, [request], forbidden, SAMPLED[:1])
    assert table.rows.forced[2] == 0


@pytest.mark.parametrize(
    ("phase", "code"), [(Phase.THINKING, 1), (Phase.ANSWERING, 2), (Phase.DISCRETE, 0)]
)
def test_a_row_starts_in_the_phase_of_its_state(phase: Phase, code: int) -> None:
    request = Request(2, replace(PARAMS, think_start_ids=(1, 2)))
    table = started()
    table.start([request.start(ThinkingState(PARAMS.rules, phase=phase, matched=1), step=4)])
    assert table.rows.phase[2] == code
    assert table.rows.matched[2] == 1 and table.rows.step[2] == 4


def test_discrete_requests_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    table = started(Request(2, PARAMS))
    monkeypatch.setattr(table, "_upload", lambda *args: pytest.fail("an upload"))
    table.start([RowStart(1, None), RowStart(3, None)])
    table.start([])


def test_a_discrete_request_resets_a_soft_slot() -> None:
    request = Request(2, PARAMS)
    table = started(request, Request(4, PARAMS))
    run(table, [request], logits_of([10, 11]), SAMPLED[:1])
    before = contents(table)
    table.start([RowStart(2, None)])
    assert table.rows.weights[2].sum() == 0
    assert table.rows.phase[2] == Phase.DISCRETE
    assert table.rows.run[2] == table.rows.step[2] == 0
    assert not table.rows.state[2].any()
    assert (table.rows.end_ids[2] == NO_TOKEN).all()
    assert (table.rows.forced_ids[2] == NO_TOKEN).all()
    assert_rows_unchanged(table, before, [0, 1, 3, 4, 5, 6, 7])


def test_a_soft_request_takes_over_a_soft_slot() -> None:
    first = Request(2, replace(PARAMS, max_topk=6, early_stopping_entropy_threshold=5.0))
    table = started(first)
    run(table, [first], logits_of(range(10, 16), gap=0.1), SAMPLED[:1])
    assert len(fed(table, 2)) == 6 and table.rows.run[2] == 1
    second = Request(2, replace(PARAMS, max_topk=2, seed=99))
    table.start([second.start()])
    assert fed(table, 2) == []  # until its first step, the input is the prompt's
    assert table.rows.run[2] == table.rows.step[2] == 0
    run(table, [second], logits_of([20, 21, 22]), SAMPLED[:1])
    assert [i for i, _ in fed(table, 2)] == [20, 21]


def test_a_row_starts_with_the_input_that_another_server_chose() -> None:
    table = started(Request(2, PARAMS))
    hidden = torch.arange(3, dtype=torch.float32)
    concepts = {
        5: Concept(np.array([10, 11]), np.array([0.75, 0.25], dtype=np.float32)),
        3: Concept(np.array([12]), np.ones(1, dtype=np.float32), hidden),
        4: None,
    }
    before = contents(table)
    table.start(
        [
            RowStart(slot, PARAMS, ANSWER, ThinkingState(PARAMS.rules, steps=1), 1, (), concept)
            for slot, concept in concepts.items()
        ]
    )
    assert fed(table, 5) == [(10, 0.75), (11, 0.25)]
    assert fed(table, 4) == []
    assert table.guided.fed_hidden.nonzero().flatten().tolist() == [3]
    assert table.hidden is not None
    assert table.hidden[3].tolist() == hidden.tolist() and not table.hidden[5].any()
    assert_rows_unchanged(table, before, [0, 1, 2, 6, 7])
    table.start([RowStart(3, PARAMS, ANSWER, ThinkingState(PARAMS.rules))])
    assert not table.guided.fed_hidden[3]
