"""The bundled model: its training script, its data, and what the shipped weights do."""

import json
import os
import random
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from soft_sglang.bundled import MODEL_PATH

SCRIPTS = Path(__file__).parent.parent / "scripts/bundled_model"
sys.path.append(str(SCRIPTS))

from conversations import batches, conversation  # noqa: E402
from held_out import held_out  # noqa: E402
from phrasings import TEMPLATES, ask  # noqa: E402
from problems import Problem, Term, parse, splits  # noqa: E402
from thoughts import CHECK_SHARES, think  # noqa: E402
from tokenizer import THINK_END, build_tokenizer  # noqa: E402

TEST_SET = [json.loads(line) for line in (Path(MODEL_PATH) / "held_out.jsonl").open()]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def run(script, *arguments, cwd):
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    environment.pop("PYTHONSAFEPATH", None)  # the scripts import their neighbours
    command = [sys.executable, SCRIPTS / script, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def arms(table):
    """Rows of the evaluation's table by arm: share right, tokens."""
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if "%" in line]
    return {
        name: (float(right.split("%")[0]) / 100, float(tokens)) for name, right, tokens, *_ in rows
    }


def test_a_few_steps_give_a_model_that_can_be_evaluated(tmp_path):
    run("train.py", "--out", "model", "--steps", 3, "--batch-size", 4, cwd=tmp_path)
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
    table = run("evaluate.py", "model", "--problems", 4, "--max-new-tokens", 8, cwd=tmp_path)
    assert len(arms(table)) == 7


def test_the_shipped_model_thinks_less_with_cold_stop_and_answers_as_well(tmp_path):
    names = ["CoT sampling", "Soft Thinking"]
    found = arms(run("evaluate.py", "--problems", 100, "--arms", *names, cwd=tmp_path))
    (right, tokens), (soft_right, soft_tokens) = (found[name] for name in names)
    assert right > 0.65
    assert soft_right > right - 0.1  # 100 questions: a standard error of about 0.04
    assert soft_tokens < 0.85 * tokens


def test_the_shipped_test_set_is_the_one_the_script_makes():
    questions = held_out("test", len(TEST_SET))
    assert len(TEST_SET) >= 1000
    assert [row["question"] for row in TEST_SET] == [q.text for q in questions]
    assert [row["answer"] for row in TEST_SET] == [str(eval(str(q.problem))) for q in questions]
    assert len({row["problem"] for row in TEST_SET}) == len(TEST_SET)


def test_no_training_template_can_make_a_held_out_one():
    for group in TEMPLATES:
        made = set()
        for template in group.training:
            parts = [part.strip("[]").split("|") for part in re.split(r"(\[[^]]*\])", template)]
            made |= {"".join(choice) for choice in product(*parts)}
        assert not made & {*group.validation, *group.test}
        assert not set(group.validation) & set(group.test)


def test_training_meets_no_held_out_problem():
    rng = random.Random(3)
    held = {normal(q.problem) for q in held_out("test", 300) + held_out("validation", 300)}
    for _ in range(500):
        text = conversation(rng).derivation
        stated = re.search(r"(?:need|is) ([\d*+-]+)[.,;]", text)[1]
        assert normal(eval_terms(stated)) not in held
        assert ask("training", rng).problem.fold == "training"


def normal(problem: Problem):
    return sorted((term.sign, *sorted(term.factors)) for term in problem.terms).__repr__()


def eval_terms(expression: str) -> Problem:
    terms = re.findall(r"([+-]?)([\d*]+)", expression)
    return Problem(
        tuple(Term(-1 if s == "-" else 1, tuple(map(int, body.split("*")))) for s, body in terms)
    )


def test_thoughts_are_true():
    rng = random.Random(4)
    numbers_of_checks = set()
    for _ in range(1000):
        problem = ask("training", rng).problem
        thought = think(problem, rng)
        numbers_of_checks.add(len(thought.checks))
        claims = re.findall(r"([\d*+-]+)(?:=| is | gives | makes | equals )(\d+)", thought.text)
        claims = [(left, right) for left, right in claims if re.search("[*+-]", left)]
        assert claims
        assert all(eval(left) == int(right) for left, right in claims), thought.text
        results = re.findall(r"the answer is (\d+)\.", thought.text)
        assert results == [str(eval(str(problem)))] * (1 + len(thought.checks))
    assert numbers_of_checks == set(range(len(CHECK_SHARES)))


def test_every_split_of_a_product_is_right():
    for a, b in product(range(2, 100), repeat=2):
        for steps in splits(a, b):
            assert steps[-1].result == a * b


def test_operations_on_round_or_small_numbers_are_never_held_out():
    for form, numbers in (("a*b", (40, 7)), ("a+b", (3, 9)), ("a-b", (70, 13))):
        problem = parse(form, dict(zip("ab", numbers, strict=True)))
        assert problem.fold == "training"


def test_a_thought_that_is_cut_teaches_to_answer_but_not_to_stop(tokenizer):
    think_end = tokenizer.convert_tokens_to_ids(THINK_END)
    batch = next(batches(tokenizer, 32, seed=5))
    cut = 0
    for ids, labels, thinking in zip(batch.ids, batch.labels, batch.thinking, strict=True):
        end = ids.tolist().index(think_end)
        assert thinking[end - 1]
        assert not thinking[end:].any()
        assert labels[end] == ids[end + 1]
        cut += labels[end - 1] == -100
        assert labels[end - 1] in (-100, think_end)
    assert 0 < cut < 32


def test_the_tokenizer_knows_every_held_out_word_and_keeps_any_text(tokenizer):
    spelled = re.compile("[a-z]")
    for row in TEST_SET:
        tokens = tokenizer.tokenize(row["question"])
        assert "".join(tokens) == row["question"].lower()
        letters = {token for token in tokens if spelled.fullmatch(token)}
        assert letters <= {"i", "a"}, row["question"]
    for text in ("zebra crossing 3.5%", "\n\n  x\t", "", "$4 = {b}"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text.lower().replace("\t", " ")
    assert set(tokenizer("漢字")["input_ids"]) == {tokenizer.unk_token_id}
