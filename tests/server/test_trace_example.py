"""``examples/trace.py`` against the running server."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from asking import COLD, QUESTION, answer_of, chat

from soft_sglang.bundled import MODEL_PATH

EXAMPLE = Path(__file__).parents[2] / "examples/trace.py"
STEP = re.compile(r" *(\d+)  (\d\.\d{3}) [█▏▎▍▌▋▊▉ ]{8}   (\S.*)")
CELL = re.compile(r"(\S+) +([01]\.\d{3})")


def _run(server, *options):
    return subprocess.run(
        [sys.executable, EXAMPLE, "--url", server.url, "--question", QUESTION, *options],
        capture_output=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )


def _steps(output):
    """Step, entropy and rest of every line of the table."""
    return [match.groups() for line in output.splitlines() if (match := STEP.fullmatch(line))]


def test_trace_shows_every_step_and_the_answer(server, client):
    run = _run(server, *["--temperature", "1", "--top-p", "1", "--max-topk", "4", "--seed", "1"])
    assert run.returncode == 0, run.stderr
    soft = {"max_topk": 4, "return_concepts": True}
    response = chat(client, soft, extra_body={"top_k": 30, "min_p": 0.001}, seed=1)
    answer = answer_of(response.choices[0])

    head, summary, *_ = run.stdout.splitlines()
    assert head == QUESTION
    assert f"{answer['steps']} thinking steps" in summary
    assert f"mean entropy {answer['mean_entropy']:.3f} nats" in summary
    steps = _steps(run.stdout)
    assert [int(number) for number, _, _ in steps] == list(range(1, answer["steps"] + 1))
    assert any(float(entropy) > 0 for _, entropy, _ in steps)
    for (_, _, rest), concept in zip(steps, answer["concepts"], strict=True):
        shown = [float(weight) for _, weight in CELL.findall(rest)]
        assert shown == pytest.approx([w for _, w in concept if w >= 0.001], abs=1e-3)
    assert steps[-1][2].startswith("</think>")
    assert steps[-1][2].endswith("the model ended thinking")
    assert f"thinking  {response.choices[0].message.reasoning_content.strip()}" in run.stdout
    assert re.search(r"^answer    \S", run.stdout, re.MULTILINE)


def test_trace_shows_cold_stop(server):
    run = _run(
        server,
        *("--entropy-threshold", str(COLD["early_stopping_entropy_threshold"])),
        *("--length-threshold", str(COLD["early_stopping_length_threshold"])),
        *("--tokenizer", MODEL_PATH),
    )
    assert run.returncode == 0, run.stderr
    steps = _steps(run.stdout)
    assert len(steps) == 5
    assert steps[-1][2].startswith("</think> 1.000")
    assert steps[-1][2].endswith("Cold Stop ended thinking")


def test_refusal_is_shown(server):
    run = _run(server, "--max-topk", "99")
    assert run.returncode == 1
    assert "soft_thinking.max_topk must be an integer from 1 to 32" in run.stderr


def test_no_server():
    run = subprocess.run(
        [sys.executable, EXAMPLE, "--url", "http://127.0.0.1:1"],
        capture_output=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )
    assert run.returncode == 1
    assert "There is no server at http://127.0.0.1:1" in run.stderr
