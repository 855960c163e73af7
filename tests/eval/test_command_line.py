"""The command: whole runs against a foreign server, and every mistake in one line."""

import json
import socket

import pytest
from foreign_server import ForeignServer, add, add_apart, add_closed, add_softly, judge

from soft_sglang.eval.__main__ import main
from soft_sglang.eval.records import read_answers, read_grades, read_run, read_timings

COT = "--arms=cot_stock,cot_greedy"


@pytest.fixture(scope="module")
def adder():
    """A server without the plugin."""
    with ForeignServer(add) as server:
        yield server


@pytest.fixture
def data(tmp_path):
    """Four sums; the last truth is wrong."""
    path = tmp_path / "sums.jsonl"
    items = [{"question": f"{i} + 10?", "answer": i + 10 + (i == 3)} for i in range(4)]
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


@pytest.fixture
def command(data, tmp_path, adder):
    """A run of ten answers per arm, as arguments."""
    out = tmp_path / "out"
    return ["run", "--base-url", adder.url, "--data", str(data), COT, "--out", str(out)]


def complaint(capsys, argv):
    """The one line that a mistake is told in."""
    capsys.readouterr()
    assert main(argv) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("soft_sglang.eval: ")
    return line


def test_run(command, tmp_path, adder):
    adder.requests.clear()
    assert main([*command, "--samples=2"]) == 0
    run, answers = read_run(tmp_path / "out"), list(read_answers(tmp_path / "out"))
    assert (run.samples, run.arms, run.model["name"]) == (2, ["cot_stock", "cot_greedy"], "adder")
    assert run.versions["soft_sglang"] is None and run.versions["math_verify"]
    assert len({answer.key for answer in answers}) == len(answers) == 2 * 4 * 2
    assert [answer.arm for answer in answers] == ["cot_stock"] * 8 + ["cot_greedy"] * 8
    first = min(answers, key=lambda answer: answer.key)  # they arrive in any order
    assert (first.thinking, first.answer) == ("I add.", "The answer is \\boxed{10}.")
    assert (first.tokens, first.thinking_tokens, first.soft_thinking) == (9, 6, None)
    assert first.request in adder.requests
    assert first.request["messages"][0]["content"] == (
        "Please reason step by step, and put your final answer within \\boxed{}.\n\n0 + 10?"
    )
    assert not any("soft_thinking" in request for request in adder.requests)
    neutral = {"repetition_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0}
    assert all(neutral.items() <= request.items() for request in adder.requests)
    grades = {grade.key: grade for grade in read_grades(tmp_path / "out")}
    assert len(grades) == 16
    assert all(grade.correct == (key.problem != "3") for key, grade in grades.items())
    assert [(t.arm, t.answers, t.tokens) for t in read_timings(tmp_path / "out")] == [
        ("cot_stock", 8, 72),
        ("cot_greedy", 8, 72),
    ]


def test_a_finished_run_asks_nothing_more(command, tmp_path, adder):
    assert main(command) == 0
    before = (tmp_path / "out" / "answers.jsonl").read_bytes()
    adder.requests.clear()
    assert main(command) == 0
    assert adder.requests == []
    assert (tmp_path / "out" / "answers.jsonl").read_bytes() == before
    assert len(read_grades(tmp_path / "out")) == 8


def test_missing_answers_are_asked_and_no_other(command, tmp_path):
    assert main(command) == 0
    path = tmp_path / "out" / "answers.jsonl"
    kept = path.read_bytes().splitlines(keepends=True)[::2]
    path.write_bytes(b"".join(kept) + b'{"arm": "co')
    assert main(command) == 0
    lines = path.read_bytes().splitlines(keepends=True)
    assert lines[: len(kept)] == kept
    assert len({answer.key for answer in read_answers(tmp_path / "out")}) == len(lines) == 8


def test_thinking_apart(command, tmp_path):
    with ForeignServer(add_apart) as server:
        command[2] = server.url + "/v1/"
        assert main(command) == 0
    answer = min(read_answers(tmp_path / "out"), key=lambda answer: answer.key)
    assert (answer.thinking, answer.answer) == ("I add.", "\\boxed{10}")
    assert answer.text == "I add.</think>\\boxed{10}"
    assert answer.thinking_tokens == 6


def test_a_thought_that_the_prompt_closed_is_all_answer(command, tmp_path):
    def sometimes(request):
        question = request["messages"][0]["content"]
        return add_closed(request) if "3 + 10" in question else add_softly(request)

    command[command.index(COT)] = "--arms=soft"
    with ForeignServer(sometimes, with_plugin=True) as server:
        command[2] = server.url
        assert main(command) == 0
    *others, closed = sorted(read_answers(tmp_path / "out"), key=lambda answer: answer.key)
    assert (closed.thinking, closed.thinking_tokens, closed.end) == ("", 0, "closed")
    assert closed.answer == closed.text == "The answer is \\boxed{13}."
    assert {(answer.thinking, answer.end) for answer in others} == {("I add.", "think_end")}


def test_judge(command, tmp_path):
    with ForeignServer(judge) as server:
        arguments = ["--judge-url", server.url, "--judge-model", "org/judge"]
        assert main([*command, *arguments]) == 0
        asked = len(server.requests)
        assert main(["grade", str(tmp_path / "out"), *arguments]) == 0
        assert asked == len(server.requests) == 8
    assert all(request["temperature"] == 0 for request in server.requests)
    arms = {
        text for request in server.requests for text in ("cot", "greedy") if text in str(request)
    }
    assert not arms
    grades = read_grades(tmp_path / "out")
    assert [grade.grader for grade in grades].count("math_verify") == 8
    judged = [grade for grade in grades if grade.grader == "llm_judge:org/judge"]
    assert len(judged) == 8
    assert all(grade.correct == (grade.problem != "3") for grade in judged)


def test_a_judge_without_a_verdict(command, tmp_path, adder):
    assert main([*command, "--judge-url", adder.url, "--judge-model", "adder"]) == 0
    judged = [g for g in read_grades(tmp_path / "out") if g.grader == "llm_judge:adder"]
    assert len(judged) == 8
    assert not any(grade.correct for grade in judged)
    assert all("boxed" in grade.extracted for grade in judged)


def test_list(capsys):
    assert main(["list"]) == 0
    output = capsys.readouterr().out
    assert "math500" in output and "Soft Thinking + Gumbel noise" in output


# Mistakes --------------------------------------------------------------------------------------


def test_unreachable_server(capsys, command):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        command[2] = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert f"no server answers at {command[2]}" in complaint(capsys, command)
    command[2] = "no url"
    assert "no server answers at no url" in complaint(capsys, command)


def test_a_server_that_goes_away(capsys, command, tmp_path):
    calls = []

    def add_thrice(request):
        calls.append(request)
        if len(calls) > 3:
            raise ConnectionAbortedError
        return add(request)

    with ForeignServer(add_thrice) as server:
        command[2] = server.url
        capsys.readouterr()
        assert main([*command, "--concurrency=1"]) == 2
    assert f"the server at {server.url} does not answer" in capsys.readouterr().err
    assert len(list(read_answers(tmp_path / "out"))) == 1  # of three requests, two tried the arms
    assert read_timings(tmp_path / "out") == []  # tokens that were broken off are missing


def test_a_judge_out_of_reach(capsys, command, tmp_path):
    assert main([*command, "--judge-url=http://127.0.0.1:9", "--judge-model=m"]) == 2
    assert "the judge at http://127.0.0.1:9 does not answer" in capsys.readouterr().err
    assert len(read_grades(tmp_path / "out")) == 8  # by math-verify


def test_soft_arms_without_the_plugin(capsys, command, tmp_path):
    command.remove(COT)
    assert "has no soft thinking" in complaint(capsys, command)
    assert not (tmp_path / "out" / "run.json").exists()


def test_prompts_that_close_every_thought(capsys, command, tmp_path):
    command[command.index(COT)] = "--arms=soft"
    with ForeignServer(add_closed, with_plugin=True) as server:
        command[2] = server.url
        capsys.readouterr()
        assert main(command) == 2
    error = capsys.readouterr().err
    assert "arm soft: the prompt closes the thought before it begins" in error
    assert not list(read_answers(tmp_path / "out"))


def test_a_gateway_that_drops_the_field(capsys, command, tmp_path):
    command[command.index(COT)] = "--arms=soft"
    with ForeignServer(add, with_plugin=True) as server:
        command[2] = server.url
        capsys.readouterr()
        assert main(command) == 2
    assert "something on the way drops the field soft_thinking" in capsys.readouterr().err
    assert not list(read_answers(tmp_path / "out"))


def test_another_run_in_the_folder(capsys, command):
    assert main(command) == 0
    assert "seed: was 0, is 1" in complaint(capsys, [*command, "--seed=1"])
    assert "datasets[0].digest" in complaint(capsys, [*command, "--limit=3"])
    assert "sampling.top_k: was 30, is 5" in complaint(capsys, [*command, "--top-k=5"])
    command[2] = "no url"  # told before the model is asked for
    assert "samples: was 1, is 2" in complaint(capsys, [*command, "--samples=2"])
    assert "no server answers" in complaint(capsys, command)


def test_a_refused_command_may_be_corrected(capsys, command, tmp_path):
    """The trial passes, and the first answer is refused: nothing is bound yet."""

    def add_briefly(request):
        if request["max_tokens"] > 100:
            raise ConnectionAbortedError
        return add(request)

    with ForeignServer(add_briefly) as server:
        command[2] = server.url
        assert main([*command, "--max-new-tokens=101"]) == 2
        assert read_run(tmp_path / "out").sampling["max_new_tokens"] == 101
        assert main([*command, "--max-new-tokens=100"]) == 0
        assert read_run(tmp_path / "out").sampling["max_new_tokens"] == 100
        assert len(list(read_answers(tmp_path / "out"))) == 8
        assert "was 100, is 101" in complaint(capsys, [*command, "--max-new-tokens=101"])


def test_answers_that_do_not_fit_the_context(capsys, command, tmp_path):
    with ForeignServer(add, context=100) as server:
        command[2] = server.url
        message = complaint(capsys, [*command, "--max-new-tokens=100"])
        assert "--max-new-tokens must leave room for the prompt" in message
        assert "context of 100 tokens, got 100" in message
        assert not (tmp_path / "out" / "run.json").exists()
        assert main([*command, "--max-new-tokens=99"]) == 0


def test_a_prefix_cache_that_stays_is_told_once(capsys, command):
    assert main(command) == 0
    assert capsys.readouterr().err.count("The prefix cache cannot be emptied between arms") == 1


MISTAKES = {
    "dataset": (["--datasets=math501"], "there is no dataset 'math501'; known are math500"),
    "arm": (["--arms=softer"], "there is no arm 'softer'; the arms are cot, "),
    "file": (["--data=none.json"], "none.json: No such file or directory"),
    "twice": (["--datasets=bundled,bundled"], "the dataset 'bundled' is given twice"),
    "temperature": (["--temperature=-1"], "--temperature must be at least 0, got -1.0"),
    "top_p": (["--top-p=0"], "--top-p must be above 0"),
    "half a judge": (["--judge-model=m"], "--judge-url and --judge-model belong together"),
    "two models": (["--model-path=m"], "--base-url excludes --model-path"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(capsys, command, mistake):
    arguments, expected = MISTAKES[mistake]
    assert expected in complaint(capsys, [*command, *arguments])


def test_a_broken_line(capsys, command, data):
    data.write_text('{"question": "1?", "answer": 1}\n{"question": "2?"}\n')
    assert f"{data}, line 2: the field 'answer' is missing" in complaint(capsys, command)


def test_a_model_that_is_not_there(capsys, data, tmp_path):
    path = tmp_path / "model"
    command = ["run", f"--model-path={path}", f"--data={data}", f"--out={tmp_path / 'out'}"]
    assert f"there is no model at {path}" in complaint(capsys, command)


def test_folders_without_a_run(capsys, tmp_path):
    assert "holds no run" in complaint(capsys, ["grade", str(tmp_path)])


def test_a_folder_that_cannot_be_written(capsys, command, tmp_path):
    (tmp_path / "out").write_text("")
    assert "cannot be written" in complaint(capsys, command)


@pytest.mark.parametrize(
    "argument", ["--samples=0", "--engine-arg=tp", "--add-arm=a=[]", "--limit=x", "--prompt=x"]
)
def test_arguments_that_mean_nothing(capsys, command, argument):
    with pytest.raises(SystemExit) as exit_:
        main([*command, argument])
    assert exit_.value.code == 2
    assert argument.split("=")[0] in capsys.readouterr().err
