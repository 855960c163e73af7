"""Datasets from files, and the mapping of the hub's columns on local stand-ins."""

import json
import socket
from dataclasses import replace

import pytest

from soft_sglang.eval.datasets import (
    BUNDLED,
    HUB,
    DatasetError,
    Problem,
    from_file,
    from_hub,
    named,
)

FORK = [
    {"prompt": [{"from": "user", "value": "What is 1+1?"}], "final_answer": "2"},
    {"prompt": [{"from": "user", "value": "What is 1/2 of 3?"}], "final_answer": "\\frac{3}{2}"},
]
PLAIN = [
    {"question": "What is 1+1?", "answer": 2},
    {"id": "half", "question": "What is 1/2 of 3?", "answer": 1.5},
]


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def lines(items):
    return "".join(json.dumps(item) + "\n" for item in items)


@pytest.mark.parametrize("form", [json.dumps, lines])
def test_layouts(tmp_path, form):
    assert list(from_file(write(tmp_path / "a.json", form(FORK))).problems) == [
        Problem("0", "What is 1+1?", "2"),
        Problem("1", "What is 1/2 of 3?", "\\frac{3}{2}"),
    ]
    assert list(from_file(write(tmp_path / "b.jsonl", form(PLAIN))).problems) == [
        Problem("0", "What is 1+1?", "2"),
        Problem("half", "What is 1/2 of 3?", "1.5"),
    ]


def test_only_a_line_feed_ends_a_line(tmp_path):
    """JSON allows other separators in its texts; a byte order mark is no part of the first line."""
    question = "one\u2028two\u2029three\x85four"
    line = json.dumps({"question": question, "answer": "1"}, ensure_ascii=False)
    (tmp_path / "a.jsonl").write_bytes(f"\ufeff{line}\r\n{line}\n".encode())
    problems = from_file(tmp_path / "a.jsonl").problems
    assert [problem.question for problem in problems] == [question] * 2


def test_problem_is_the_question_or_its_id(tmp_path):
    items = [{"problem": "What is 1+1?", "answer": "2"}]
    assert from_file(write(tmp_path / "a.json", items)).problems[0].question == "What is 1+1?"
    items[0]["question"], items[0]["problem"] = items[0]["problem"], "7"
    assert from_file(write(tmp_path / "a.json", items)).problems[0].id == "7"


def test_prompt_by_the_name_of_the_file(tmp_path):
    assert from_file(write(tmp_path / "gpqa_diamond.json", FORK)).prompt == "choice"
    assert from_file(write(tmp_path / "mine.json", FORK)).prompt == "math"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "a.json holds no problems"),
        ("[]", "a.json holds no problems"),
        ("[{", "a.json is not JSON"),
        ('{"question": "q", "answer": "1"}\n{"question": ', "a.json, line 2 is not JSON"),
        ('{"question": "q", "answer": "1"}\n\n{"question": "q"}', "line 3: the field 'answer' is"),
        ('[{"question": "q", "answer": "1"}, {"answer": "1"}]', "item 2: the field 'question' is"),
        ('["q"]', "item 1 is not an object"),
        ('[{"question": "q", "answer": ""}]', "item 1: 'answer' is empty"),
        ('[{"question": "q", "answer": ["1"]}]', "item 1: 'answer' must be text or a number"),
        ('[{"question": "q", "answer": null}]', "item 1: 'answer' must be text or a number"),
        ('[{"prompt": "q", "final_answer": "1"}]', "item 1: 'prompt' must be a list"),
        (json.dumps([FORK[0] | {"final_answer": {"a": 1}}]), "'final_answer' must be text"),
        (json.dumps([{"prompt": FORK[0]["prompt"]}]), "the field 'final_answer' is missing"),
        (json.dumps([{"id": 1, "question": "q", "answer": 1}] * 2), "the id '1' is there twice"),
    ],
)
def test_broken_files(tmp_path, content, complaint):
    with pytest.raises(DatasetError, match=r"a\.json") as error:
        from_file(write(tmp_path / "a.json", content))
    assert complaint in str(error.value)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(DatasetError, match=r"none\.json: No such file"):
        from_file(tmp_path / "none.json")
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="not UTF-8"):
        from_file(tmp_path / "a.json")


def test_limit_spreads_evenly_and_digest_sees_every_problem(tmp_path):
    items = [{"question": f"{i}?", "answer": i} for i in range(10)]
    dataset = from_file(write(tmp_path / "a.json", items))
    assert [p.id for p in dataset.limited(4).problems] == ["0", "2", "5", "7"]
    assert dataset.limited(10) is dataset.limited(99) is dataset.limited(None) is dataset
    digests = {dataset.digest(), dataset.limited(9).digest()}
    items[3]["answer"] = 4
    digests.add(from_file(write(tmp_path / "a.json", items)).digest())
    assert len(digests) == 3


def test_bundled():
    dataset = named(BUNDLED)
    assert len(dataset.problems) >= 1000
    assert dataset.prompt == "none"


def test_unknown_dataset_lists_the_known():
    with pytest.raises(DatasetError, match="no dataset 'math501'; known are math500, aime2024"):
        named("math501")


# The hub --------------------------------------------------------------------------------------

GPQA = {
    "Record ID": "rec1",
    "Question": "Which is a noble gas?",
    "Correct Answer": " Neon\n",
    "Incorrect Answer 1": "Iron",
    "Incorrect Answer 2": "Gold",
    "Incorrect Answer 3": "Lead",
}
ROWS = {
    "math500": {"problem": "1+1?", "answer": "2", "unique_id": "test/a/1.json", "level": 1},
    "aime2024": {"id": 60, "problem": "1+1?", "answer": "002", "year": "2024"},
    "aime2025": {"problem": "1+1?", "answer": "2", "id": "0"},
    "gsm8k": {"question": "1+1?", "answer": "1+1=<<1+1=2>>2\n#### 1,002"},
    "gpqa_diamond": GPQA,
    "amc23": {"id": 5, "question": "1+1?", "answer": 27.0},
}
EXPECTED = {
    "math500": Problem("test/a/1.json", "1+1?", "2"),
    "aime2024": Problem("60", "1+1?", "002"),
    "aime2025": Problem("0", "1+1?", "2"),
    "gsm8k": Problem("0", "1+1?", "1002"),
    "amc23": Problem("0", "1+1?", "27.0"),
}


def stand_in(folder, name):
    """A folder that ``datasets`` loads as it would the one of the hub."""
    source = HUB[name]
    write(folder / "rows.jsonl", lines([ROWS[name]]))
    config = source.config or "default"
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: {config}\n  data_files:\n"
        f"  - split: {source.split}\n    path: rows.jsonl\n---\n"
    )
    return replace(source, path=str(folder))


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """Where ``datasets`` keeps what it reads."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.usefixtures("hub_cache")
def test_columns(tmp_path, name):
    dataset = from_hub(name, stand_in(tmp_path, name))
    assert list(dataset.problems) == [EXPECTED[name]]
    assert dataset.prompt == "math"


@pytest.mark.usefixtures("hub_cache")
def test_options_of_gpqa(tmp_path):
    source = stand_in(tmp_path, "gpqa_diamond")
    dataset = from_hub("gpqa_diamond", source)
    (problem,) = dataset.problems
    question, *options = problem.question.replace("\n\n", "\n").split("\n")
    assert question == "Which is a noble gas?"
    assert [option[:3] for option in options] == ["A. ", "B. ", "C. ", "D. "]
    assert {option[3:] for option in options} == {"Neon", "Iron", "Gold", "Lead"}
    assert f"{problem.truth}. Neon" in options
    assert dataset.prompt == "choice"
    assert from_hub("gpqa_diamond", source).problems == dataset.problems


def test_right_options_of_gpqa_have_every_letter():
    read = HUB["gpqa_diamond"].read
    letters = {read(GPQA | {"Question": f"{i}?"})[1] for i in range(40)}
    assert letters == set("ABCD")


@pytest.mark.usefixtures("hub_cache")
def test_other_columns_than_expected(tmp_path):
    source = stand_in(tmp_path, "math500")
    with pytest.raises(DatasetError, match=r"row 0 of .* is not as expected: KeyError"):
        from_hub("math500", replace(source, id_column="key"))


def test_hub_out_of_reach(monkeypatch):
    def refuse(*_):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(DatasetError, match="math500: the hub does not give HuggingFaceH4/MATH-500"):
        named("math500")
