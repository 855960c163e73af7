"""The concept table: what a row holds when a request takes its slot."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from soft_batches import (
    ANSWER,
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

from soft_sglang.concept_table import AnswerSampling, ConceptTable, RowStart
from soft_sglang.state_machine import Phase


def test_parameters_survive_the_table_exactly() -> None:
    table = ConceptTable(8, 6, "cpu")
    extremes = [
        replace(PARAMS, seed=-(2**63), noise="gumbel", think_end_id=151935),
        replace(PARAMS, seed=2**63 - 1, noise="dirichlet", early_stopping_length_threshold=2**31),
        replace(PARAMS, seed=2**53 + 1, early_stopping_entropy_threshold=0.01),
    ]
    starts = [
        RowStart(slot, params, ANSWER, Phase.THINKING, run=slot, step=10 * slot)
        for slot, params in zip((5, 2, 7), extremes, strict=True)
    ]
    table.start(starts)
    slots = torch.tensor([5, 2, 7])
    parameters = {name: value.tolist() for name, value in table.rows.parameters(slots).items()}
    assert parameters["seed"] == [-(2**63), 2**63 - 1, 2**53 + 1]
    assert parameters["think_end"] == [151935, THINK_END, THINK_END]
    assert parameters["length_threshold"] == [256, 2**31, 256]
    assert parameters["entropy_threshold"][2] == float(np.float32(0.01))
    assert len(set(parameters["noise"])) == 3
    for name in AnswerSampling._fields:
        assert parameters[f"answer_{name}"] == [getattr(ANSWER, name)] * 3
    assert table.rows.run[slots].tolist() == [5, 2, 7]
    assert table.rows.step[slots].tolist() == [50, 20, 70]


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
