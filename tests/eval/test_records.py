"""The raw files: nothing is lost, half lines are dropped, and a run is resumed as it began."""

import json
from dataclasses import replace

import pytest

from soft_sglang.eval import records
from soft_sglang.eval.folder import begin_or_resume, opened
from soft_sglang.eval.records import (
    ANSWERS,
    GRADES,
    RUN,
    TIMES,
    Answer,
    Grade,
    Lines,
    RecordError,
    Run,
    Timing,
    read_answers,
    read_grades,
    read_run,
    read_timings,
)

ANSWER = Answer(
    arm="soft",
    dataset="math500",
    problem="test/1",
    sample=0,
    seed=7,
    question="Wie groß ist π?\u2028",
    truth="\\pi",
    request={"temperature": 0.6},
    text="a</think>b",
    thinking="a",
    answer="b",
    tokens=3,
    thinking_tokens=2,
    finish_reason="stop",
    soft_thinking={"steps": 2, "end": "think_end", "mean_entropy": 0.5, "entropies": [0.5, 0.5]},
    seconds=0.25,
    finished_at=1.5,
)
GRADE = Grade("soft", "math500", "test/1", 0, "math_verify", 1, True, "\\pi")
TIMING = Timing("soft", "math500", 1, 3, 0.25)
RUN_RECORD = Run(
    format=1,
    versions={"sglang": "0.5.21", "torch": None},
    model={"path": "m", "name": "m", "digest": "0"},
    server="engine",
    engine_args={},
    datasets=[{"name": "math500", "path": "p", "digest": "1", "problems": 500}],
    samples=1,
    arms=["cot", "soft"],
    sampling={"temperature": 0.6},
    soft_thinking={"max_topk": 10},
    seed=0,
    prompt={"math500": "{question}"},
    machine="here",
    started="2026-01-01T00:00:00+00:00",
)


def append(folder, name, *records):
    with Lines(folder / name) as lines:
        for record in records:
            lines.append(record)


def test_round_trip(tmp_path):
    begin_or_resume(tmp_path, RUN_RECORD)
    append(tmp_path, ANSWERS, ANSWER, replace(ANSWER, sample=1, thinking=None, soft_thinking=None))
    append(tmp_path, GRADES, GRADE)
    append(tmp_path, TIMES, TIMING, TIMING)
    assert read_run(tmp_path) == RUN_RECORD
    assert next(read_answers(tmp_path)) == ANSWER
    assert [answer.key.sample for answer in read_answers(tmp_path)] == [0, 1]
    assert read_grades(tmp_path) == [GRADE]
    assert read_timings(tmp_path) == [TIMING, TIMING]


def test_an_answer_is_in_the_file_at_once(tmp_path):
    with Lines(tmp_path / ANSWERS) as lines:
        lines.append(ANSWER)
        assert list(read_answers(tmp_path)) == [ANSWER]


@pytest.mark.parametrize("cut", [1, 30, 10_000])
@pytest.mark.parametrize("block", [7, 1 << 20])
def test_half_a_line_is_dropped_and_written_again(tmp_path, monkeypatch, cut, block):
    monkeypatch.setattr(records, "_BLOCK", block)
    append(tmp_path, ANSWERS, ANSWER, replace(ANSWER, sample=1))
    path = tmp_path / ANSWERS
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    path.write_bytes(whole[: max(first, len(whole) - cut)])
    assert list(read_answers(tmp_path)) == [ANSWER]
    append(tmp_path, ANSWERS, replace(ANSWER, sample=1))
    assert path.read_bytes() == whole


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 100])
def test_a_file_without_a_whole_line_is_emptied(tmp_path, content):
    (tmp_path / ANSWERS).write_bytes(content)
    append(tmp_path, ANSWERS, ANSWER)
    assert list(read_answers(tmp_path)) == [ANSWER]


def test_an_answer_without_texts_has_the_numbers():
    lean = ANSWER.without_texts()
    texts = {"question": "", "truth": "", "request": {}, "text": "", "thinking": None, "answer": ""}
    assert replace(lean, soft_thinking=None) == replace(ANSWER, **texts, soft_thinking=None)
    assert list(lean.soft_thinking.pop("entropies")) == ANSWER.soft_thinking["entropies"]
    assert lean.soft_thinking == {"steps": 2, "end": "think_end", "mean_entropy": 0.5}
    assert replace(ANSWER, soft_thinking=None).without_texts().soft_thinking is None


def test_broken_lines_are_named(tmp_path):
    append(tmp_path, ANSWERS, ANSWER)
    good = (tmp_path / ANSWERS).read_text()
    without = json.dumps({k: v for k, v in json.loads(good).items() if k != "seed"})
    for content, complaint in (
        (good + "{\n" + good, r"answers\.jsonl, line 2 is not JSON"),
        ("[]\n", "line 1 is not an object"),
        (without + "\n", "line 1: the field 'seed' is missing"),
        (good + good, "line 2: .* is there twice"),
    ):
        (tmp_path / ANSWERS).write_text(content)
        with pytest.raises(RecordError, match=complaint):
            list(read_answers(tmp_path))


def test_the_last_grade_of_a_grader_counts(tmp_path):
    judged = replace(GRADE, grader="llm_judge:m")
    newer = replace(GRADE, rule=2, correct=False)
    append(tmp_path, GRADES, GRADE, judged, newer)
    assert read_grades(tmp_path) == [newer, judged]


def test_missing_and_foreign_runs(tmp_path):
    with pytest.raises(RecordError, match=r"holds no run: run\.json is missing"):
        read_run(tmp_path)
    for content, complaint in (("{", "not JSON"), ('{"format": 2}', "format 1"), ("[]", "format")):
        (tmp_path / RUN).write_text(content)
        with pytest.raises(RecordError, match=complaint):
            read_run(tmp_path)


CHANGES = {
    "samples": (replace(RUN_RECORD, samples=2), "samples: was 1, is 2"),
    "arms": (replace(RUN_RECORD, arms=["cot"]), "arms: was"),
    "arm": (replace(RUN_RECORD, arms=["cot", "selar"]), r"arms\[1\]: was 'soft', is 'selar'"),
    "sampling": (
        replace(RUN_RECORD, sampling={"temperature": 1.0}),
        r"sampling\.temperature: was 0.6, is 1.0",
    ),
    "version": (
        replace(RUN_RECORD, versions={"sglang": "0.6", "torch": None}),
        r"versions\.sglang: was '0.5.21', is '0.6'",
    ),
    "model": (
        replace(RUN_RECORD, model=RUN_RECORD.model | {"digest": "2"}),
        r"model\.digest: was '0', is '2'",
    ),
    "dataset": (
        replace(RUN_RECORD, datasets=[RUN_RECORD.datasets[0] | {"digest": "2"}]),
        r"datasets\[0\]\.digest",
    ),
    "client": (replace(RUN_RECORD, server="http://a"), "server: was 'engine', is 'a server'"),
    "new field": (replace(RUN_RECORD, engine_args={"tp_size": 2}), r"engine_args\.tp_size: was No"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_run_is_refused_by_the_field_that_differs(tmp_path, change):
    begin_or_resume(tmp_path, RUN_RECORD)
    append(tmp_path, ANSWERS, ANSWER)
    other, complaint = CHANGES[change]
    with pytest.raises(RecordError, match=complaint):
        begin_or_resume(tmp_path, other)
    assert read_run(tmp_path) == RUN_RECORD


def test_time_machine_and_address_may_differ(tmp_path):
    first = replace(RUN_RECORD, server="http://a")
    begin_or_resume(tmp_path, first)
    append(tmp_path, ANSWERS, ANSWER)
    begin_or_resume(tmp_path, replace(first, machine="m", started="s", server="http://b"))
    assert read_run(tmp_path) == first


@pytest.mark.parametrize("change", CHANGES)
def test_while_there_is_no_answer_parameters_may_change(tmp_path, change):
    begin_or_resume(tmp_path, RUN_RECORD)
    (tmp_path / ANSWERS).write_text('{"arm": "so')  # half of one is none
    other, _ = CHANGES[change]
    begin_or_resume(tmp_path, other)
    assert read_run(tmp_path) == other


def test_what_is_no_run_is_not_overwritten(tmp_path):
    (tmp_path / RUN).write_text("[]")
    with pytest.raises(RecordError, match="format"):
        begin_or_resume(tmp_path, RUN_RECORD)
    assert (tmp_path / RUN).read_text() == "[]"


def test_answers_without_a_run_are_not_overwritten(tmp_path):
    append(tmp_path, ANSWERS, ANSWER)
    with pytest.raises(RecordError, match=r"holds answers but no run\.json"):
        begin_or_resume(tmp_path, RUN_RECORD)


def test_one_process_at_a_time(tmp_path):
    with opened(tmp_path), pytest.raises(RecordError, match="another process"), opened(tmp_path):
        pass
    with opened(tmp_path):
        pass
