"""``python -m soft_sglang.eval`` on the bundled model: by URL, in an Engine, killed half-way."""

import os
import signal
import subprocess
import sys
import time

import pytest
from asking import THINK_END, chat

from soft_sglang.eval.__main__ import main
from soft_sglang.eval.arms import arms_named
from soft_sglang.eval.cold_stop import thresholds_in
from soft_sglang.eval.entropy_runs import longest_run
from soft_sglang.eval.records import read_answers, read_grades, read_run, read_timings

PROBLEMS, SAMPLES = 5, 2
ASKED_AGAIN = ("cot", "cot_greedy", "cold_stop_only", "soft")
ARMS = [arm.name for arm in arms_named("all")]
COMMAND = [
    "run",
    f"--limit={PROBLEMS}",
    f"--samples={SAMPLES}",
    "--max-new-tokens=150",
    "--early-stopping-length-threshold=4",
    "--early-stopping-entropy-threshold=0.05",
]
FINISHES_WITHIN = 300
"""Seconds."""


def by_key(folder, arms=None):
    answers = list(read_answers(folder))
    keyed = {answer.key: answer for answer in answers if arms is None or answer.arm in arms}
    assert arms is not None or len(keyed) == len(answers)
    return keyed


def start(arguments):
    """The command as a user starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "soft_sglang.eval", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )


def finish(process):
    """Its output; kills what is left of it."""
    try:
        output, _ = process.communicate(timeout=FINISHES_WITHIN)
        return output.decode()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def evaluated(server, tmp_path_factory):
    """Folder of a run of all arms by URL."""
    folder = tmp_path_factory.mktemp("evaluated")
    assert main([*COMMAND, f"--base-url={server.url}", f"--out={folder}"]) == 0
    return folder


def test_every_arm_answers_every_problem_and_sample(evaluated):
    answers = by_key(evaluated)
    questions = {key[1:] for key in answers}
    assert {key.arm for key in answers} == set(ARMS)
    assert len(questions) == PROBLEMS * SAMPLES
    assert len(answers) == len(ARMS) * len(questions)
    assert {grade.key for grade in read_grades(evaluated)} == set(answers)
    for key, answer in answers.items():
        assert answer.seed == answers[key._replace(arm="cot")].seed
    timings = {timing.arm: timing for timing in read_timings(evaluated)}
    for arm in ARMS:
        of_arm = [answer for answer in answers.values() if answer.arm == arm]
        assert timings[arm].answers == len(of_arm)
        assert timings[arm].tokens == sum(answer.tokens for answer in of_arm)


def test_thinking_is_counted_in_the_same_way_everywhere(evaluated):
    """In the output ids; what the policies report of themselves must agree."""
    ended = 0
    for answer in by_key(evaluated).values():
        if answer.soft_thinking is None:
            assert answer.arm == "cot_greedy"
        else:
            entropies = answer.soft_thinking["entropies"]
            assert answer.soft_thinking["steps"] == len(entropies) == answer.thinking_tokens
            mean = answer.soft_thinking["mean_entropy"]
            assert sum(entropies) / len(entropies) == pytest.approx(mean, rel=1e-4, abs=1e-6)
            asked = thresholds_in(answer.request["soft_thinking"])
            threshold = 0.0 if asked is None else asked.entropy
            assert answer.soft_thinking["longest_run"] == longest_run(entropies, threshold)
        if answer.thinking is None:
            assert answer.thinking_tokens == answer.tokens
            assert answer.answer == ""
        else:
            ended += 1
            assert answer.text == f"{answer.thinking}{THINK_END}{answer.answer}"
            assert answer.thinking_tokens <= answer.tokens
    assert ended > len(ARMS)


def test_thinking_is_counted_as_sglang_counts(evaluated, client):
    """Its own count needs a reasoning parser on the server, so that the evaluation does without."""
    answers = [a for a in by_key(evaluated, ("cot_greedy",)).values() if a.key.sample == 0]
    assert len(answers) == PROBLEMS
    for answer in answers:
        direct = chat(client, False, answer.question, temperature=0, max_tokens=150)
        assert direct.usage.completion_tokens == answer.tokens
        assert direct.usage.model_extra["reasoning_tokens"] == answer.thinking_tokens
        thinking = direct.choices[0].message.reasoning_content
        assert thinking == (answer.text if answer.thinking is None else answer.thinking).strip()


def test_cold_stop_only_where_it_should(evaluated):
    ends = {}
    for answer in by_key(evaluated).values():
        ends.setdefault(answer.arm, set()).add((answer.soft_thinking or {}).get("end"))
    cold = {arm for arm, reasons in ends.items() if "cold_stop" in reasons}
    assert cold == {"cold_stop_only", "soft", "gumbel", "dirichlet"}


def test_killed_half_way(server, evaluated, tmp_path):
    """Nothing is lost or repeated, and every answer is as without the kill."""
    command = [*COMMAND, f"--arms={','.join(ASKED_AGAIN)}", f"--base-url={server.url}"]
    command += [f"--out={tmp_path}", "--concurrency=2"]
    total = len(ASKED_AGAIN) * PROBLEMS * SAMPLES
    path = tmp_path / "answers.jsonl"

    process = start(command)
    deadline = time.monotonic() + FINISHES_WITHIN
    while not path.exists() or path.read_bytes().count(b"\n") < total // 2:
        assert process.poll() is None and time.monotonic() < deadline, finish(process)
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"arm": "soft", "data')  # what a kill within a write leaves
    assert total // 2 <= killed.count(b"\n") < total

    again = start(command)
    output = finish(again)
    assert again.returncode == 0, output
    kept = killed[: killed.rindex(b"\n") + 1]
    assert path.read_bytes().startswith(kept)
    answers, whole = by_key(tmp_path), by_key(evaluated, ASKED_AGAIN)
    assert {key: answer.text for key, answer in answers.items()} == {
        key: answer.text for key, answer in whole.items()
    }
    grades = {grade.key: grade for grade in read_grades(tmp_path)}
    assert grades == {g.key: g for g in read_grades(evaluated) if g.arm in ASKED_AGAIN}


def test_engine_and_server_say_the_same(evaluated, tmp_path):
    """The chat template, the parameters and the counting of both clients are equal."""
    process = start([*COMMAND, f"--arms={','.join(ASKED_AGAIN)}", f"--out={tmp_path}"])
    output = finish(process)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    by_engine, by_server = by_key(tmp_path), by_key(evaluated, ASKED_AGAIN)
    assert set(by_engine) == set(by_server)
    for key, answer in by_engine.items():
        other = by_server[key]
        assert (answer.text, answer.thinking_tokens) == (other.text, other.thinking_tokens)
        assert answer.seed == other.seed
        if answer.soft_thinking is not None:
            assert answer.soft_thinking["end"] == other.soft_thinking["end"]
            assert answer.soft_thinking["entropies"] == pytest.approx(
                other.soft_thinking["entropies"], rel=1e-3, abs=1e-5
            )
    one, other = read_run(tmp_path), read_run(evaluated)
    assert one.model["name"] == other.model["name"] == "bundled"
    assert (one.datasets, one.sampling, one.prompt) == (
        other.datasets,
        other.sampling,
        other.prompt,
    )
    assert one.versions["sglang"] == other.versions["sglang"]
    assert (one.server, other.server.startswith("http")) == ("engine", True)
