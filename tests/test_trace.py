"""The host's mirror of a soft request, and the answer assembled from its reports."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from soft_batches import ANSWER, PARAMS, THINK_END

from soft_sglang.answer import accumulate, chunk
from soft_sglang.concept_table import RowStart
from soft_sglang.state_machine import Phase
from soft_sglang.trace import RequestTrace

PROMPT = 20
IDS = [11, 12, 13, 0]
WEIGHTS = [0.5, 0.25, 0.25, 0.0]
PAIRS = [[11, 0.5], [12, 0.25], [13, 0.25]]


def trace_of(**parameters: object) -> RequestTrace:
    return RequestTrace(replace(PARAMS, **parameters), PROMPT, ANSWER, top_k=30)


def commit(
    trace: RequestTrace,
    token: int = 11,
    ids: list[int] = IDS,
    weights: list[float] = WEIGHTS,
    entropy: float = 1.0,
    proposal: int | None = None,
    allowed: bool = True,
) -> None:
    trace.commit(
        token,
        np.array(ids, dtype=np.int64),
        np.array(weights, dtype=np.float32),
        entropy,
        token if proposal is None else proposal,
        allowed,
    )


def commit_end(trace: RequestTrace, **kwargs: object) -> None:
    commit(trace, THINK_END, [THINK_END, 0, 0, 0], [1, 0, 0, 0], **kwargs)


# The mirror.


def test_only_tokens_with_weight_are_kept() -> None:
    trace = trace_of()
    commit(trace)
    commit(trace, 7, [7, 0, 0, 0], [1, 0, 0, 0])
    commit(trace, 1, [1, 2, 3, 4], [0.25] * 4)
    assert [c.ids.tolist() for c in trace.concepts] == [[11, 12, 13], [7], [1, 2, 3, 4]]
    assert [c.weights.tolist() for c in trace.concepts] == [[0.5, 0.25, 0.25], [1], [0.25] * 4]


def test_the_mirror_owns_its_numbers() -> None:
    """The step's buffers are one array for the batch; it must not live on, or change, with it."""
    trace = trace_of()
    ids, weights = np.array([IDS, IDS]), np.array([WEIGHTS, WEIGHTS], dtype=np.float32)
    trace.commit(11, ids[0], weights[0], 1.0, 11, True)
    ids[:], weights[:] = 99, 0.1
    (concept,) = trace.concepts
    assert concept.ids.tolist() == [11, 12, 13] and concept.ids.base is None
    assert concept.weights.tolist() == [0.5, 0.25, 0.25] and concept.weights.base is None


def test_answering_steps_are_not_recorded() -> None:
    trace = trace_of()
    commit(trace, entropy=1.0)
    commit_end(trace, entropy=3.0)
    for _ in range(3):
        commit(trace, entropy=100.0)
    assert len(trace.concepts) == 2
    assert trace.report("stop") == {
        "steps": 2,
        "end": "think_end",
        "mean_entropy": 2.0,
        "concepts": [PAIRS, [[THINK_END, 1.0]]],
    }


def test_the_threshold_is_the_devices() -> None:
    """0.01 is no float32; an entropy of its nearest float32 is not below the device's."""
    trace = trace_of(early_stopping_entropy_threshold=0.01, early_stopping_length_threshold=1)
    at = float(np.float32(0.01))
    assert at < 0.01
    commit(trace, entropy=at)
    assert trace.state.phase is Phase.THINKING and trace.state.run == 0
    commit_end(trace, entropy=float(np.nextafter(np.float32(0.01), np.float32(0))), proposal=11)
    assert trace.state.phase is Phase.ANSWERING and trace.state.cold_stopped


def test_disagreement_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    trace = trace_of()
    with caplog.at_level(logging.ERROR):
        commit(trace, token=11)
        assert not caplog.records
        commit(trace, token=12, proposal=11)
    (record,) = caplog.records
    assert "token 11 at step 2" in record.getMessage()
    assert "device chose 12" in record.getMessage()


# The resume.


def test_the_row_of_a_new_request() -> None:
    trace = trace_of()
    assert trace.row_start(4, emitted=0) == RowStart(
        4, trace.params, ANSWER, Phase.THINKING, run=0, step=0
    )


def test_the_row_of_a_resumed_request() -> None:
    trace = trace_of(early_stopping_entropy_threshold=0.5)
    for entropy in (0.1, 0.9, 0.1, 0.1):
        commit(trace, entropy=entropy)
    assert trace.row_start(9, emitted=4) == RowStart(
        9, trace.params, ANSWER, Phase.THINKING, run=2, step=4
    )
    commit_end(trace)
    resumed = trace.row_start(2, emitted=8)
    assert (resumed.phase, resumed.step) == (Phase.ANSWERING, 8)


@pytest.fixture
def mixed_trace() -> RequestTrace:
    """Inputs at 20 (mixture), 21 (one token), 22 (mixture), 23 (the think-end token)."""
    trace = trace_of()
    commit(trace)
    commit(trace, 7, [7, 0, 0, 0], [1, 0, 0, 0])
    commit(trace, 14, [14, 15, 0, 0], [0.75, 0.25, 0, 0])
    commit_end(trace)
    return trace


@pytest.mark.parametrize(
    ("start", "end", "positions"),
    [
        (0, 20, []),
        (0, 21, [20]),
        (0, 24, [20, 22]),
        (0, 10_000, [20, 22]),
        (20, 21, [20]),
        (21, 22, []),
        (21, 23, [22]),
        (22, 23, [22]),
        (23, 30, []),
        (24, 99, []),
        (20, 20, []),
        (0, 0, []),
    ],
)
def test_concepts_between(
    mixed_trace: RequestTrace, start: int, end: int, positions: list[int]
) -> None:
    found = mixed_trace.concepts_between(start, end)
    assert [position for position, _ in found] == positions
    for position, concept in found:
        assert concept is mixed_trace.concepts[position - PROMPT]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_chunks_of_a_prefill_cover_every_concept_once(mixed_trace: RequestTrace, size: int) -> None:
    chunks = [mixed_trace.concepts_between(i, i + size) for i in range(0, 30, size)]
    assert [position for part in chunks for position, _ in part] == [20, 22]


def test_no_concepts_before_the_first_step() -> None:
    assert trace_of().concepts_between(0, 100) == []


# The reports.


@pytest.mark.parametrize("end", ["eos", "stop", "length", "abort"])
def test_the_end_of_a_request_that_was_still_thinking(end: str) -> None:
    trace = trace_of(return_concepts=False)
    commit(trace, entropy=0.5)
    commit(trace, entropy=0.25)
    assert trace.report(end) == {"steps": 2, "end": end, "mean_entropy": 0.375}


@pytest.mark.parametrize("end", ["eos", "stop", "length", "abort"])
def test_the_end_of_thinking_comes_before_the_end_of_the_request(end: str) -> None:
    natural, forced = (
        trace_of(early_stopping_entropy_threshold=0.5, early_stopping_length_threshold=1)
        for _ in range(2)
    )
    commit_end(natural, entropy=0.1)
    commit_end(forced, entropy=0.1, proposal=11)
    for trace, expected in ((natural, "think_end"), (forced, "cold_stop")):
        commit(trace)  # the answer
        report = trace.report(end)
        assert report is not None
        assert (report["end"], report["steps"]) == (expected, 1)


def test_a_request_that_ends_before_its_first_step() -> None:
    assert trace_of().report("abort") == {
        "steps": 0,
        "end": "abort",
        "mean_entropy": 0.0,
        "concepts": [],
    }


def test_nothing_to_report_without_concepts() -> None:
    trace = trace_of(return_concepts=False)
    commit(trace)
    assert trace.report(None) is None


def test_a_report_is_json() -> None:
    trace = trace_of()
    commit(trace)
    report = trace.report("length")
    assert json.loads(json.dumps(report)) == report
    assert report is not None and report["concepts"] == [PAIRS]


def test_each_report_carries_only_new_concepts() -> None:
    trace = trace_of()
    assert trace.report(None) == {"concepts": []}
    commit(trace)
    assert trace.report(None) == {"concepts": [PAIRS]}
    assert trace.report(None) == {"concepts": []}
    commit(trace)
    commit_end(trace)
    report = trace.report("eos")
    assert report is not None
    assert report["concepts"] == [PAIRS, [[THINK_END, 1.0]]]
    assert (report["steps"], report["end"]) == (3, "think_end")


# The answer.


def test_accumulate() -> None:
    reports = [
        {"concepts": []},
        {"concepts": [PAIRS]},
        {"concepts": [PAIRS, [[3, 1.0]]]},
        {"steps": 3, "end": "think_end", "mean_entropy": 0.5, "concepts": []},
    ]
    before = json.dumps(reports)
    answer = None
    for report in reports:
        answer = accumulate(answer, report)
    assert answer == {
        "steps": 3,
        "end": "think_end",
        "mean_entropy": 0.5,
        "concepts": [PAIRS, PAIRS, [[3, 1.0]]],
    }
    assert json.dumps(reports) == before


def test_accumulate_without_concepts() -> None:
    answer = accumulate(None, {"steps": 1, "end": "eos", "mean_entropy": 0.5})
    assert answer == {"steps": 1, "end": "eos", "mean_entropy": 0.5}


def test_accumulate_extends_in_place() -> None:
    answer = accumulate(None, {"concepts": [PAIRS]})
    concepts = answer["concepts"]
    assert accumulate(answer, {"concepts": [PAIRS]}) is answer
    assert answer["concepts"] is concepts and len(concepts) == 2


def test_the_chunks_of_a_stream_are_the_answer_in_pieces() -> None:
    trace = trace_of()
    answer, told, parts = None, 0, []
    for i in range(7):
        commit(trace, 30 + i, [30 + i, 1, 0, 0], [0.75, 0.25, 0, 0])
        report = trace.report("length" if i == 6 else None)
        assert report is not None
        answer = accumulate(answer, report)
        if i % 3 == 0:  # the other chunks are dropped or merged on their way
            part, told = chunk(answer, told)
            parts.append(part)
    assert answer is not None
    assert [len(part["concepts"]) for part in parts] == [1, 3, 3]
    assert [c for part in parts for c in part["concepts"]] == answer["concepts"]
    assert len(answer["concepts"]) == 7  # cutting a part takes nothing from the whole
    assert [part.get("steps") for part in parts] == [None, None, 7]


def test_a_chunk_is_not_changed_by_what_follows() -> None:
    answer = accumulate(None, {"concepts": [PAIRS]})
    part, told = chunk(answer, 0)
    accumulate(answer, {"concepts": [PAIRS], "steps": 2})
    assert part == {"concepts": [PAIRS]} and told == 1
    assert chunk(answer, told) == ({"concepts": [PAIRS], "steps": 2}, 2)


def test_a_chunk_without_concepts() -> None:
    assert chunk({"steps": 1}, 0) == ({"steps": 1}, 0)
