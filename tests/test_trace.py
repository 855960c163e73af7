"""The host's mirror of a soft request, and the answer assembled from its reports."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from soft_batches import ANSWER, PARAMS, THINK_END

from soft_sglang.answer import accumulate, chunk
from soft_sglang.concept_table import RowStart
from soft_sglang.state_machine import Phase, ThinkingState
from soft_sglang.trace import ClosedThought, PolicyMemory, RequestTrace, Step

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
        "longest_run": 0,
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
    assert trace.state.phase is Phase.ANSWERING and trace.state.end == "cold_stop"


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
        4, trace.params, ANSWER, ThinkingState(trace.params.rules), step=0
    )


def test_the_row_of_a_resumed_request() -> None:
    trace = trace_of(early_stopping_entropy_threshold=0.5)
    for entropy in (0.1, 0.9, 0.1, 0.1):
        commit(trace, entropy=entropy)
    state = ThinkingState(trace.params.rules, run=2, steps=4, longest_run=2)
    assert trace.row_start(9, emitted=4) == RowStart(9, trace.params, ANSWER, state, step=4)
    commit_end(trace)
    resumed = trace.row_start(2, emitted=8)
    assert resumed.state is not None
    assert (resumed.state.phase, resumed.step) == (Phase.ANSWERING, 8)


def test_the_row_of_a_request_that_begins_with_its_answer() -> None:
    trace = trace_of(closed=True, think_start_ids=START)
    state = ThinkingState(trace.params.rules, phase=Phase.ANSWERING, end="closed")
    assert trace.row_start(4, emitted=0) == RowStart(4, trace.params, ANSWER, state, step=0)


def test_the_row_of_a_request_in_the_middle_of_a_forced_end() -> None:
    trace = trace_of(think_end_ids=(5, 6), cold_stop_ids=(4, 5, 6), max_thinking_steps=1)
    commit(trace)
    commit(trace, 4, proposal=11)
    state = trace.row_start(2, emitted=2).state
    assert state is not None and (state.forced, state.steps) == (1, 2)
    commit(trace, 5, proposal=11)
    commit(trace, 6, proposal=11)
    assert trace.state.end == "budget"


def test_the_row_of_a_request_that_another_server_prefilled() -> None:
    """Before a decode step the row holds the input that follows the last token."""
    trace = trace_of()
    assert trace.row_start(3, emitted=0, decoding=True).concept is None
    commit(trace)
    row = trace.row_start(3, emitted=1, decoding=True)
    assert row.concept is trace.concepts[0]
    assert row._replace(concept=None) == trace.row_start(3, emitted=1)
    commit(trace, 7, [7, 0, 0, 0], [1, 0, 0, 0])
    assert trace.row_start(3, emitted=2, decoding=True).concept is None  # the token itself
    commit(trace, 14, [14, 15, 0, 0], [0.75, 0.25, 0, 0])
    assert trace.row_start(3, emitted=3, decoding=True).concept is trace.concepts[2]
    commit_end(trace)
    for emitted in (4, 5, 9):  # its answer
        assert trace.row_start(3, emitted=emitted, decoding=True).concept is None


def test_another_servers_seed() -> None:
    trace = trace_of(seed=5, max_thinking_steps=2)
    trace.take_seed(-(2**63))
    assert trace.row_start(3, emitted=0).params == replace(
        PARAMS, seed=-(2**63), max_thinking_steps=2
    )


def test_a_request_that_is_prefilled_anew_has_no_past() -> None:
    trace = trace_of(return_entropies=True)
    trace.prompt_len = 77
    trace.first_step = Step(np.array(IDS), np.array(WEIGHTS, dtype=np.float32), 1.0, 11, True)
    commit(trace)
    trace.report(None)
    trace.begin_again()
    new = RequestTrace(trace.params, 77, ANSWER, top_k=30)
    assert vars(trace) == vars(new)


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
    assert trace.report(end) == {
        "steps": 2,
        "end": end,
        "mean_entropy": 0.375,
        "longest_run": 0,
    }


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
        "longest_run": 0,
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


def test_the_longest_run() -> None:
    """Of steps below the threshold one after the other; forced tokens are not counted."""
    trace = trace_of(
        early_stopping_entropy_threshold=0.5,
        early_stopping_length_threshold=3,
        think_end_ids=(5, 6),
        cold_stop_ids=(5, 6),
        return_concepts=False,
    )
    for entropy in (0.1, 0.1, 0.9, 0.1):
        commit(trace, entropy=entropy)
    assert trace.report("abort") == {
        "steps": 4,
        "end": "abort",
        "mean_entropy": pytest.approx(0.3),
        "longest_run": 2,
    }
    commit(trace, entropy=0.1)
    commit(trace, 5, entropy=0.1, proposal=11)
    commit(trace, 6, entropy=0.1, proposal=11)
    report = trace.report("eos")
    assert report is not None
    assert (report["steps"], report["end"], report["longest_run"]) == (7, "cold_stop", 3)


@pytest.mark.parametrize(
    ("tokens", "proposals", "end"),
    [
        ([11, 5, 6], [11, 5, 6], "think_end"),
        ([11, 5, 5, 6], [11, 5, 5, 6], "think_end"),
        ([11, 11, 11, 4, 5, 6], [11] * 6, "budget"),
        ([11, 11, 11, 5, 6], [11, 11, 11, 5, 11], "budget"),  # the rest of the marker
    ],
)
def test_how_a_marker_of_several_tokens_ended_thinking(
    tokens: list[int], proposals: list[int], end: str, caplog: pytest.LogCaptureFixture
) -> None:
    trace = trace_of(think_end_ids=(5, 6), cold_stop_ids=(4, 5, 6), max_thinking_steps=3)
    for number, (token, proposal) in enumerate(zip(tokens, proposals, strict=True)):
        assert trace.is_thinking and trace.answer_start == number
        commit(trace, token, [token, 0], [1, 0], proposal=proposal)
    assert not trace.is_thinking and not trace.is_recording
    assert trace.answer_start == len(tokens)
    report = trace.report("stop")
    assert report is not None
    assert (report["steps"], report["end"]) == (len(tokens), end)
    assert report["concepts"] == [[[token, 1.0]] for token in tokens]
    assert not caplog.records, "host and device disagree"


def test_a_request_that_ends_while_its_thought_is_made_to_end() -> None:
    trace = trace_of(think_end_ids=(5, 6), cold_stop_ids=(4, 5, 6), max_thinking_steps=0)
    commit(trace, 4, proposal=11)
    commit(trace, 5, proposal=11)
    report = trace.report("length")
    assert report is not None and (report["steps"], report["end"]) == (2, "length")


def test_a_request_that_never_thinks() -> None:
    closed = ClosedThought(replace(PARAMS, return_concepts=False))
    assert closed.report(None) is None
    assert closed.report("stop") == {
        "steps": 0,
        "end": "closed",
        "mean_entropy": 0.0,
        "longest_run": 0,
    }
    asked = ClosedThought(replace(PARAMS, return_entropies=True))
    assert asked.report(None) is None
    report = asked.report("abort")
    assert report is not None
    assert (report["end"], report["concepts"], report["entropies"]) == ("closed", [], [])


def test_the_two_reports_of_nothing_are_the_same() -> None:
    """Of a request that cannot think, and of one that could have."""
    params = {"closed": True, "return_entropies": True}
    never, might = ClosedThought(replace(PARAMS, **params)), trace_of(**params)
    assert never.report("eos") == might.report("eos")


# Thinking again.

START = (8, 9)
"""Begins a thought."""


def commit_answer(trace: RequestTrace, *tokens: int) -> None:
    """What the device sends of a row that answers is not its concept."""
    for token in tokens:
        commit(trace, token, [77, 78, 0, 0], [0.5, 0.5, 0, 0], entropy=50.0, proposal=77)


@pytest.fixture
def reopened() -> RequestTrace:
    """Output: 0 and 1 a thought, 2 to 5 an answer that opens another, 6 to 8 that, 9 an answer."""
    trace = trace_of(
        think_start_ids=START,
        return_entropies=True,
        early_stopping_entropy_threshold=0.5,
        early_stopping_length_threshold=3,
    )
    commit(trace, entropy=0.25)
    commit_end(trace, entropy=3.0)
    commit_answer(trace, 30, 8, 8, 9)
    commit(trace, 12, [12, 13, 0, 0], [0.75, 0.25, 0, 0], entropy=0.25)
    commit(trace, entropy=0.25)
    commit_end(trace, entropy=0.25, proposal=11)
    commit_answer(trace, 31)
    return trace


def test_phases_of_a_request_that_thinks_again() -> None:
    trace = trace_of(think_start_ids=START)
    phases = []
    for token in (11, THINK_END, 8, 9, 11, THINK_END, 9, 8, 9, 8, 9):
        phases.append(trace.is_thinking)
        assert trace.is_recording
        commit(trace, token, [token], [1.0]) if trace.is_thinking else commit_answer(trace, token)
    assert phases == [
        *[True, True, False, False],
        *[True, True, False, False, False],
        *[True, True],
    ]


def test_the_report_of_a_request_that_thought_again(reopened: RequestTrace) -> None:
    report = reopened.report("eos")
    assert report == {
        "steps": 5,
        "end": "cold_stop",
        "mean_entropy": 0.8,
        "longest_run": 3,
        "concepts": [PAIRS, [[THINK_END, 1.0]], [[12, 0.75], [13, 0.25]], PAIRS, [[THINK_END, 1]]],
        "entropies": [0.25, 3.0, 0.25, 0.25, 0.25],
        "positions": [0, 1, 6, 7, 8],
    }
    assert reopened.answer_start == 9


def test_the_end_of_a_request_that_thinks_again_when_it_ends() -> None:
    trace = trace_of(think_start_ids=(8,), return_concepts=False)
    commit_end(trace)
    assert trace.answer_start == 1
    commit_answer(trace, 30, 8)
    assert trace.is_thinking and trace.answer_start == 1
    commit(trace)
    assert trace.answer_start == 4
    report = trace.report("length")
    assert report is not None
    assert (report["steps"], report["end"]) == (2, "length")
    assert "positions" not in report  # they belong to what is told of the steps


def test_inputs_of_a_request_that_thought_again(reopened: RequestTrace) -> None:
    """The answer's tokens are plain; the mixtures behind them are where they were."""
    assert [len(c.ids) for c in reopened.concepts] == [3, 1, 1, 1, 1, 1, 2, 3, 1, 1]
    assert [c.ids[0] for c in reopened.concepts[2:6]] == [30, 8, 8, 9]
    found = reopened.concepts_between(0, 10_000)
    assert [position for position, _ in found] == [PROMPT, PROMPT + 6, PROMPT + 7]
    assert found[1][1].pairs() == [[12, 0.75], [13, 0.25]]


def test_the_row_of_a_request_that_answers_and_may_think_again(reopened: RequestTrace) -> None:
    commit_answer(reopened, 8)
    start = reopened.row_start(3, emitted=11)
    assert start.state is not None and start.step == 11
    assert (start.state.phase, start.state.matched) == (Phase.ANSWERING, 0b1)
    assert start.state.steps == 5
    commit_answer(reopened, 9)
    again = reopened.row_start(3, emitted=12).state
    assert again is not None
    assert (again.phase, again.run, again.matched) == (Phase.THINKING, 0, 0)


def test_a_run_does_not_reach_into_another_thought() -> None:
    trace = trace_of(
        think_start_ids=(8,),
        early_stopping_entropy_threshold=0.5,
        early_stopping_length_threshold=3,
    )
    commit(trace, entropy=0.1)
    commit_end(trace, entropy=0.1)
    commit_answer(trace, 8)
    for _ in range(2):
        commit(trace, entropy=0.1)
    assert trace.is_thinking
    report = trace.report("length")
    assert report is not None and report["longest_run"] == 2


def test_the_budget_is_that_of_all_thoughts() -> None:
    trace = trace_of(think_start_ids=(8,), max_thinking_steps=2)
    commit(trace)
    commit_end(trace)
    commit_answer(trace, 8)
    commit_end(trace, proposal=11)
    report = trace.report("eos")
    assert report is not None and (report["steps"], report["end"]) == (3, "budget")


def test_positions_begin_where_the_first_thought_does() -> None:
    trace = trace_of(closed=True, think_start_ids=(8,), return_entropies=True)
    assert not trace.is_thinking and trace.is_recording
    assert trace.report(None) == {"concepts": [], "entropies": [], "positions": []}
    commit_answer(trace, 30, 31)
    assert trace.report("abort") == {
        "steps": 0,
        "end": "closed",
        "mean_entropy": 0.0,
        "longest_run": 0,
        "concepts": [],
        "entropies": [],
        "positions": [],
    }
    commit_answer(trace, 8)
    commit(trace, entropy=0.5)
    assert trace.report(None) == {"concepts": [PAIRS], "entropies": [0.5], "positions": [3]}
    assert trace.report(None) == {"concepts": [], "entropies": [], "positions": []}


def test_a_policy_starts_afresh_in_another_thought() -> None:
    trace = trace_of(policy="swi_reasoning", think_start_ids=(8,))

    def step(token: int) -> None:
        arrays = np.array([token]), np.ones(1, dtype=np.float32)
        trace.commit(token, *arrays, 1.0, token, True, PolicyMemory([1.0, 2.0], None))

    step(11)
    step(THINK_END)
    assert trace.row_start(1, emitted=2).policy_state == [1.0, 2.0]
    step(30)  # the policy is not asked there: what it remembers is left as it was
    step(8)
    assert trace.row_start(1, emitted=4).policy_state == ()
    step(11)
    assert trace.row_start(1, emitted=5).policy_state == [1.0, 2.0]


def test_a_policy_that_mixes_its_answer_may_think_again() -> None:
    """Its answer's inputs are its own; the reports are of the thoughts still."""
    trace = trace_of(policy="mixture_of_inputs", think_start_ids=(8,))
    commit(trace)
    commit_end(trace)
    commit(trace, 14, [14, 15, 0, 0], [0.75, 0.25, 0, 0])
    commit(trace, 8, [8, 15, 0, 0], [0.75, 0.25, 0, 0])
    assert trace.is_thinking
    commit(trace)
    report = trace.report("length")
    assert report is not None
    assert (report["concepts"], report["positions"]) == (
        [PAIRS, [[THINK_END, 1.0]], PAIRS],
        [0, 1, 4],
    )
    found = [position - PROMPT for position, _ in trace.concepts_between(0, 99)]
    assert found == [0, 2, 3, 4]


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


def test_positions_are_accumulated_as_the_concepts_are() -> None:
    trace = trace_of(think_start_ids=(8,))
    answer, told, parts = None, 0, []
    for token in (11, THINK_END, 30, 8, 11, THINK_END, 30):
        if trace.is_thinking:
            commit(trace, token, [token], [1.0])
        else:
            commit_answer(trace, token)
        report = trace.report(None)
        assert report is not None
        answer = accumulate(answer, report)
        part, told = chunk(answer, told)
        parts.append(part["positions"])
    assert answer is not None and answer["positions"] == [0, 1, 4, 5]
    assert parts == [[0], [1], [], [], [4], [5], []]


@pytest.mark.parametrize(
    ("told", "tokens", "positions"),
    [
        (0, 0, []),
        (0, 1, [0]),
        (0, 4, [0, 1]),
        (2, 4, []),
        (2, 5, [4]),
        (1, 99, [1, 4, 5]),
        (1, None, [1, 4, 5]),
    ],
)
def test_a_chunk_tells_the_steps_of_its_tokens(
    told: int, tokens: int | None, positions: list[int]
) -> None:
    """Under rethinking an answer lies between the steps."""
    answer = {"entropies": [0.5, 1.5, 2.5, 3.5], "positions": [0, 1, 4, 5]}
    part, now = chunk(answer, told, tokens)
    assert part["positions"] == positions and now == told + len(positions)
    assert part["entropies"] == answer["entropies"][told:now]


def test_a_chunk_without_concepts() -> None:
    assert chunk({"steps": 1}, 0) == ({"steps": 1}, 0)
