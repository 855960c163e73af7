"""The report against runs whose truth is known, and what it refuses to compare."""

import json
import random
import re

import numpy as np
import pytest
from report_runs import ARMS, COT, SAMPLING, Truth, lines, write_lines, write_run

from soft_sglang.eval.errors import EvaluationError
from soft_sglang.eval.report import markdown, write_report


def _report(folders, out, plots=False):
    return write_report(folders, out, plots=plots).read_text()


def _tables(text):
    """Every table as {first cell: {header: cell}}, by the header's first cell and a number."""
    tables = []
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        rows = [re.split(r" (?<!\\)\| ", line[2:-2]) for line in block.splitlines()]
        header, _, *body = rows
        tables.append({row[0]: dict(zip(header, row, strict=True)) for row in body})
    return tables


def _table(text, column):
    """The first table that has the column."""
    return next(t for t in _tables(text) if column in next(iter(t.values())))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A complete run of two datasets and its report: folder, text of the report, its folder."""
    folder = tmp_path_factory.mktemp("toy")
    run = write_run(folder / "run", datasets={"alpha": 60, "beta": 40})
    return run, _report([run], folder / "out", plots=True), folder / "out"


def _means(run, arm, dataset):
    """Accuracy in percent, tokens of all and of correct answers, by the plainest calculation."""
    grades = {
        (g["problem"], g["sample"]): g["correct"]
        for g in lines(run / "grades.jsonl")
        if (g["arm"], g["dataset"]) == (arm, dataset)
    }
    answers = [
        a for a in lines(run / "answers.jsonl") if (a["arm"], a["dataset"]) == (arm, dataset)
    ]
    correct = [a["tokens"] for a in answers if grades[a["problem"], a["sample"]]]
    return (
        100 * np.mean(list(grades.values())),
        np.mean([a["tokens"] for a in answers]),
        np.mean(correct),
    )


def test_paper_table_has_the_means_and_their_changes(toy):
    run, text, _ = toy
    table = _table(text, "accuracy ↑<br>alpha")
    cot, soft = table["CoT (sampling)"], table["Soft Thinking"]
    changes, averages = [], []
    for dataset in ("alpha", "beta"):
        accuracy, tokens, _ = _means(run, "cot", dataset)
        assert cot[f"accuracy ↑<br>{dataset}"] == f"{accuracy:.1f}"
        assert cot[f"tokens ↓<br>{dataset}"] == f"{tokens:.1f}"
        soft_accuracy, soft_tokens, _ = _means(run, "soft", dataset)
        assert soft[f"accuracy ↑<br>{dataset}"].startswith(f"{soft_accuracy:.1f} (")
        change = 100 * (soft_tokens / tokens - 1)
        assert soft[f"tokens ↓<br>{dataset}"] == f"{soft_tokens:.1f} (−{-change:.1f} %\\*)"
        changes.append(soft_accuracy - accuracy)
        averages.append((tokens, soft_tokens))
    expected = np.mean(changes)
    assert markdown.signed(expected) in soft["accuracy ↑<br>average"]
    tokens, soft_tokens = np.mean(averages, axis=0)
    change = 100 * (soft_tokens / tokens - 1)
    assert soft["tokens ↓<br>average"] == f"{soft_tokens:.1f} (−{-change:.1f} %\\*)"


def test_correct_answers_have_a_table_of_their_own(toy):
    run, text, _ = toy
    table = [t for t in _tables(text) if "tokens ↓<br>beta" in next(iter(t.values()))][1]
    _, _, correct = _means(run, "cold_stop_only", "beta")
    assert table["Cold Stop only"]["tokens ↓<br>beta"].startswith(f"{correct:.1f} (")


def test_details(toy):
    run, text, _ = toy
    detail = text[text.index("### toy-1B on beta") :]
    accuracy, tokens, correct = _means(run, "soft", "beta")
    row = _table(detail, "pass@1")["Soft Thinking"]
    assert row["answers"] == "80/80"
    assert row["pass@1"].startswith(f"{accuracy:.1f} [")
    cot_accuracy, cot_tokens, _ = _means(run, "cot", "beta")
    assert row["change in points"].startswith(f"{markdown.signed(accuracy - cot_accuracy)} [")
    grades = [
        g for g in lines(run / "grades.jsonl") if (g["arm"], g["dataset"]) == ("soft", "beta")
    ]
    solved = {g["problem"] for g in grades if g["correct"]}
    assert row["pass@2"].startswith(f"{100 * len(solved) / 40:.1f} [")
    row = _table(detail, "all answers")["Soft Thinking"]
    assert row["all answers"].startswith(f"{tokens:.1f} [")
    assert row["correct answers"].startswith(f"{correct:.1f} [")
    assert row["change in %"].startswith(f"−{100 * (1 - tokens / cot_tokens):.1f} [−")
    assert row["thinking"] == f"{tokens - 5:.1f}"  # answers of the toy have 5 tokens
    answers = [
        a for a in lines(run / "answers.jsonl") if (a["arm"], a["dataset"]) == ("soft", "beta")
    ]
    cold = sum(a["soft_thinking"]["end"] == "cold_stop" for a in answers)
    assert row["ended by Cold Stop, %"] == f"{100 * cold / 80:.1f}"
    assert _table(detail, "all answers")["CoT (sampling)"]["ended by Cold Stop, %"] == "–"
    assert "ended by the budget, %" not in detail
    row = _table(detail, "tokens per second")["Soft Thinking"]
    assert row["tokens per second"] == "500.0"
    assert row["tokens"] == str(sum(a["tokens"] for a in answers))


def test_every_way_in_which_thoughts_ended_is_shown(tmp_path):
    run = write_run(tmp_path / "run", datasets={"alpha": 10})
    answers = lines(run / "answers.jsonl")
    soft = [answer["soft_thinking"] for answer in answers if answer["arm"] == "soft"]
    for number, thought in enumerate(soft):
        thought["end"] = "budget" if number < 3 else "closed" if number == 3 else "think_end"
    write_lines(run / "answers.jsonl", answers)
    table = _table(_report([run], tmp_path / "out"), "ended by the budget, %")
    columns = ["ended by Cold Stop, %", "ended by the budget, %", "closed by the prompt, %"]
    assert [table["Soft Thinking"][column] for column in columns] == ["0.0", "15.0", "5.0"]
    assert [table["Soft Thinking, no Cold Stop"][column] for column in columns] == ["0.0"] * 3
    assert [table["CoT (greedy)"][column] for column in columns] == ["–"] * 3


def test_ablation_finds_what_the_toy_was_made_of(toy):
    """Cold Stop alone saves 15 % of thinking, both 25 %, mixtures alone 2 %."""
    run, text, _ = toy
    section = text[text.index("### toy-1B, average") :]
    rows = _table(section, "tokens, in % of CoT's")

    def number(step):
        value, low, high = re.findall(r"[+−]?\d+\.\d", rows[step]["tokens, in % of CoT's"])
        assert float(low.replace("−", "-")) < float(high.replace("−", "-"))
        return float(value.replace("−", "-"))

    total, cold = number("Soft Thinking with Cold Stop"), number("Cold Stop alone")
    mixtures_after, cold_after = (
        number("Mixtures, where Cold Stop is on already"),
        number("Cold Stop, where mixtures are on already"),
    )
    assert total == pytest.approx(-24.4, abs=1)
    assert cold == pytest.approx(-14.7, abs=1)
    assert number("Mixtures alone") == pytest.approx(-2, abs=1)
    assert total == pytest.approx(cold + mixtures_after, abs=0.11)
    assert total == pytest.approx(number("Mixtures alone") + cold_after, abs=0.11)
    greedy = number("Greedy alone")
    sampled, heaviest = (
        sum(_means(run, arm, dataset)[1] for dataset in ("alpha", "beta"))
        for arm in ("cot", "cot_greedy")
    )
    assert greedy == pytest.approx(100 * (heaviest / sampled - 1), abs=0.051)
    assert number("Mixtures alone") == pytest.approx(
        greedy + number("Mixtures beside greedy"), abs=0.11
    )
    paragraph = section.split("\n\n")[2]
    assert "arXiv 2508.03440" in paragraph
    share = re.search(r"Cold Stop alone (\d+\.\d) \[", paragraph.split("Share")[1])
    assert float(share.group(1)) == pytest.approx(100 * cold / total, abs=0.5)
    assert "accuracy not distinguishable" in paragraph


def test_without_a_saving_nothing_is_shared(tmp_path):
    same = {"cot": COT, "soft": Truth(), "cold_stop_only": Truth()}
    # the same random answers everywhere: no difference at all
    run = write_run(tmp_path / "run", arms={"cot": COT}, datasets={"alpha": 30})
    for file in ("answers", "grades"):
        records = lines(run / f"{file}.jsonl")
        copies = [record | {"arm": arm} for arm in same for record in records]
        write_lines(run / f"{file}.jsonl", copies)
    content = json.loads((run / "run.json").read_text()) | {"arms": list(same)}
    (run / "run.json").write_text(json.dumps(content))

    text = _report([run], tmp_path / "out")

    assert "There is no saving to divide." in text
    assert "Soft Thinking with Cold Stop: not distinguishable [–];" in text
    assert r"\*" not in text


def test_report_is_a_function_of_the_raw_files(toy, tmp_path):
    """Not of the order in which answers arrived, nor of place or time: byte by byte."""
    run, text, out = toy
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    (copy / "run.json").write_bytes((run / "run.json").read_bytes())
    (copy / "times.jsonl").write_bytes((run / "times.jsonl").read_bytes())
    for file in ("answers.jsonl", "grades.jsonl"):
        records = lines(run / file)
        random.Random(0).shuffle(records)
        write_lines(copy / file, records)
    assert _report([copy], tmp_path / "out", plots=True) == text
    images = sorted(path.name for path in out.glob("*.png"))
    assert len(images) == 9
    for name in images:
        assert (tmp_path / "out" / name).read_bytes() == (out / name).read_bytes(), name


def test_every_image_is_shown_and_there(toy):
    _, text, out = toy
    assert sorted(re.findall(r"!\[.*\]\((.*)\)", text)) == sorted(p.name for p in out.glob("*.png"))


def test_settings_are_printed_without_absolute_paths(tmp_path):
    run = write_run(tmp_path / "run", model="/home/somebody/models/toy-1B", samples=1)
    text = _report([run], tmp_path / "out")
    assert "sglang 0.5.21" in text
    assert "temperature 0.6" in text
    assert "max_topk 10" in text
    assert "math_verify (rule 1)" in text
    assert "path toy-1B" in text
    assert "/home" not in text
    assert str(tmp_path) not in text


def _without(run, arm, keep):
    """Take away answers and grades of an arm."""
    for file in ("answers.jsonl", "grades.jsonl"):
        kept = [r for r in lines(run / file) if r["arm"] != arm or keep(r)]
        write_lines(run / file, kept)


def test_an_incomplete_arm_is_marked_and_compared_with_nothing(tmp_path):
    run = write_run(tmp_path / "run", datasets={"alpha": 20, "beta": 10})
    _without(run, "soft", lambda r: r["dataset"] == "beta" or int(r["problem"][1:]) < 7)

    text = _report([run], tmp_path / "out")

    assert _table(text, "graded answers")["toy-1B"]["graded answers"] == "14/40"
    row = _table(text, "tokens ↓<br>alpha")["Soft Thinking"]
    assert row["tokens ↓<br>alpha"] == row["accuracy ↑<br>alpha"] == "14/40 answers"
    assert row["tokens ↓<br>average"] == "–"
    assert "%" in row["tokens ↓<br>beta"]
    detail = text[text.index("### toy-1B on alpha") :]
    row = _table(detail, "all answers")["Soft Thinking"]
    assert row["answers"] == "**14/40**"
    assert row["change in %"] == "–"
    assert "[" not in row["all answers"]
    ablation = text[text.index("### toy-1B, alpha") : text.index("### toy-1B, beta")]
    assert "Cold Stop alone" in ablation
    assert "`soft`" not in ablation


def test_without_a_complete_baseline_there_are_no_changes(tmp_path):
    run = write_run(tmp_path / "run", datasets={"alpha": 20})
    _without(run, "cot", lambda r: r["problem"] != "p3")
    text = _report([run], tmp_path / "out")
    table = _table(text, "tokens ↓<br>alpha")
    assert table["CoT (sampling)"]["tokens ↓<br>alpha"] == "38/40 answers"
    assert "(" not in table["Soft Thinking"]["tokens ↓<br>alpha"]
    assert "Where the saving comes from" not in text


def test_an_arm_without_a_correct_answer_has_no_tokens_of_correct_ones(tmp_path):
    arms = {"cot": Truth(soft=False, skill=0), "soft": ARMS["soft"]}
    run = write_run(tmp_path / "run", arms=arms, datasets={"alpha": 10})
    text = _report([run], tmp_path / "out")
    table = [t for t in _tables(text) if "tokens ↓<br>alpha" in next(iter(t.values()))][1]
    assert table["CoT (sampling)"]["tokens ↓<br>alpha"] == "–"
    _, _, correct = _means(run, "soft", "alpha")
    assert table["Soft Thinking"]["tokens ↓<br>alpha"] == f"{correct:.1f}"
    pass_at_1 = _table(text, "pass@1")["CoT (sampling)"]["pass@1"]
    assert pass_at_1 == f"0.0 [0.0, {100 * (1 - 0.025 ** (1 / 10)):.1f}]"


def test_answers_without_grades_count_as_missing(tmp_path):
    run = write_run(tmp_path / "run", datasets={"alpha": 10})
    write_lines(run / "grades.jsonl", lines(run / "grades.jsonl")[1:])
    row = _table(_report([run], tmp_path / "out"), "graded answers")["toy-1B"]
    assert row["graded answers"] == "19/20"
    assert row["answers without a grade"] == "1"


def test_a_run_that_has_just_begun(tmp_path):
    run = write_run(tmp_path / "run", datasets={"alpha": 10})
    for file in ("answers.jsonl", "grades.jsonl", "times.jsonl"):
        (run / file).unlink()
    text = _report([run], tmp_path / "out", plots=True)
    assert text.count("0/20") >= len(ARMS)
    assert not list((tmp_path / "out").glob("*.png"))


def test_datasets_of_one_model_come_from_several_folders(tmp_path, toy):
    _, text, _ = toy
    for name, problems in (("alpha", 60), ("beta", 40)):
        write_run(tmp_path / name, datasets={name: problems})
    together = _report([tmp_path / "alpha", tmp_path / "beta"], tmp_path / "out")
    assert _tables(together)[:2] == _tables(text)[:2]
    assert "run 2 of 2" in together


def test_arms_of_one_dataset_come_from_several_folders(tmp_path):
    arms = dict(ARMS)
    soft = {"soft": arms.pop("soft")}
    one = write_run(tmp_path / "one", arms=arms)
    other = write_run(tmp_path / "other", arms=soft)
    whole = write_run(tmp_path / "whole")
    together = _report([other, one], tmp_path / "out")
    assert _tables(together) == _tables(_report([whole], tmp_path / "out whole"))


def test_arms_of_the_user_are_shown_by_name_and_described(tmp_path):
    fields = {"policy": "soft_thinking", "max_topk": 3}
    arms = {"cot": COT, "k3": Truth(0.9)}
    changes = {"added_arms": {"k3": fields}}
    one = write_run(tmp_path / "one", arms=arms, datasets={"alpha": 20}, changes=changes)
    text = _report([one], tmp_path / "out")
    assert r"\*" in _table(text, "tokens ↓<br>alpha")["k3"]["tokens ↓<br>alpha"]
    assert "- arm k3: policy soft_thinking, max_topk 3" in text

    changes = {"added_arms": {"k3": fields | {"max_topk": 4}}}
    other = write_run(tmp_path / "other", arms=arms, datasets={"beta": 20}, changes=changes)
    with pytest.raises(EvaluationError, match="the arm k3 is"):
        write_report([one, other], tmp_path / "out")


def test_models_are_groups_of_rows(tmp_path):
    one = write_run(tmp_path / "one", datasets={"alpha": 20, "beta": 10})
    other = write_run(tmp_path / "other", model="org/other-7B", datasets={"alpha": 20})
    text = _report([one, other], tmp_path / "out")
    first = text[: text.index("The same with the tokens")]
    assert first.index("**toy-1B**") < first.index("**other-7B**")
    assert first.count("Soft Thinking |") == 2
    row = first.split("**other-7B**")[1].splitlines()[1]
    assert row.count("–") == 4, "beta and the average, in accuracy and in tokens"


def test_a_judge_is_shown_beside_math_verify(tmp_path):
    run = write_run(tmp_path / "run", datasets={"alpha": 20})
    grades = lines(run / "grades.jsonl")
    judged = [g | {"grader": "llm_judge:j", "correct": True} for g in grades if g["arm"] == "soft"]
    write_lines(run / "grades.jsonl", judged + grades)
    text = _report([run], tmp_path / "out")
    table = _table(text, "pass@1 by llm_judge:j")
    assert table["Soft Thinking"]["pass@1 by llm_judge:j"].startswith("100.0 [")
    assert table["CoT (sampling)"]["pass@1 by llm_judge:j"] == "–"
    accuracy, _, _ = _means(run, "cot", "alpha")
    assert table["CoT (sampling)"]["pass@1"].startswith(f"{accuracy:.1f}")


OTHER_SAMPLING = SAMPLING | {"temperature": 1.0}
MODEL = {"path": "models/toy-1B", "name": "toy-1B", "digest": "0123abcd"}
VERSIONS = {"soft_sglang": "0.1.0", "sglang": "0.5.21", "python": "3.11.2"}
OTHER_DATA = [{"name": "alpha", "path": "alpha.jsonl", "digest": "other", "problems": 60}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 3}, r"samples \(for alpha\) is 3 in one and 2"),
        ({"sampling": OTHER_SAMPLING}, r"sampling \(for alpha\)"),
        ({"soft_thinking": {"max_topk": 5}}, r"soft_thinking \(for alpha\)"),
        ({"prompt": {"alpha": "{question}"}}, "the prompt of alpha"),
        ({"datasets": OTHER_DATA}, "the digest of alpha"),
        ({"model": MODEL | {"digest": "other"}}, "the model's weights"),
        ({"model": MODEL | {"path": "other/toy-1B"}}, "the model's path"),
        ({"versions": VERSIONS | {"sglang": "0.5.20"}}, "versions.sglang"),
        ({"versions": VERSIONS | {"soft_sglang": "0.0.9"}}, "versions.soft_sglang"),
        ({"engine_args": {"tp_size": 2}}, "engine_args"),
    ],
)
def test_runs_that_differ_are_not_compared(tmp_path, changes, message):
    one = write_run(tmp_path / "one", arms={"cot": COT})
    other = write_run(tmp_path / "other", arms={"soft": ARMS["soft"]}, changes=changes)
    with pytest.raises(EvaluationError, match=f"not comparable: {message}"):
        write_report([one, other], tmp_path / "out")


def test_runs_on_servers_of_other_addresses_are_one(tmp_path):
    for name, arm in (("one", "cot"), ("other", "soft")):
        changes = {"server": f"http://{name}:30000"}
        write_run(tmp_path / name, arms={arm: ARMS[arm]}, changes=changes)
    text = _report([tmp_path / "one", tmp_path / "other"], tmp_path / "out")
    assert "%" in _table(text, "tokens ↓<br>alpha")["Soft Thinking"]["tokens ↓<br>alpha"]


def test_stock_arms_are_told_from_cot(tmp_path):
    """Its rate is not stock SGLang's, and without it there are no changes."""
    arms = {"cot_greedy": COT, "cot_stock": COT, "cot": COT}
    text = _report([write_run(tmp_path / "run", arms=arms)], tmp_path / "out")
    rates = _table(text, "tokens per second")
    assert list(rates) == ["CoT (sampling)", "CoT (stock sampling)", "CoT (greedy)"]
    assert "which the arm `cot_stock` has" in text
    assert "No changes" not in text

    del arms["cot"]
    text = _report([write_run(tmp_path / "stock", arms=arms)], tmp_path / "stock_out")
    assert "which the arm `cot_stock` has" not in text
    assert "is not among the arms of: toy-1B on alpha." in text


def test_an_arm_twice_is_an_error(tmp_path):
    folders = [write_run(tmp_path / name, arms={"cot": COT}) for name in ("one", "other")]
    with pytest.raises(EvaluationError, match="cot on alpha is in another folder as well"):
        write_report(folders, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample": 2}, "has sample 2 of problem p0, but every arm has 2 samples"),
        ({"arm": "gumbel"}, "an answer of gumbel to alpha"),
        ({"dataset": "gamma"}, "an answer of cot to gamma"),
        ({"problem": "p99"}, "alpha has 10 problems, but 11 were answered"),
    ],
)
def test_answers_that_do_not_belong_to_the_run(tmp_path, change, message):
    run = write_run(tmp_path / "run", datasets={"alpha": 10})
    answers = lines(run / "answers.jsonl")
    write_lines(run / "answers.jsonl", [*answers, answers[0] | change])
    with pytest.raises(EvaluationError, match=message):
        write_report([run], tmp_path / "out")


def test_two_rules_of_one_grader_are_an_error(tmp_path):
    run = write_run(tmp_path / "run", datasets={"alpha": 10})
    grades = lines(run / "grades.jsonl")
    write_lines(run / "grades.jsonl", [grades[0] | {"rule": 2}, *grades[1:]])
    with pytest.raises(EvaluationError, match="math_verify graded by rule 1 and by rule 2"):
        write_report([run], tmp_path / "out")


def test_no_folder_and_no_run(tmp_path):
    with pytest.raises(EvaluationError, match="no folder"):
        write_report([], tmp_path / "out")
    with pytest.raises(EvaluationError, match="holds no run"):
        write_report([tmp_path], tmp_path / "out")


def test_numbers():
    assert markdown.plain(83.25) == markdown.plain(83.24999999999999) == "83.2"
    assert markdown.plain(-0.04) == "0.0"
    assert markdown.plain(-11.64) == "−11.6"
    assert markdown.plain(float("nan")) == "–"
    assert markdown.signed(0.04) == "0.0"
    assert markdown.signed(2.46) == "+2.5"
    assert markdown.signed(-2.46) == "−2.5"
    assert markdown.tokens(5719.4) == "5719"
    assert markdown.tokens(57.14) == "57.1"
    assert markdown.duration(59.6) == "1:00"
    assert markdown.duration(3723) == "1:02:03"


def test_bars_in_names_do_not_break_tables():
    assert markdown.table(["a|b"], [["c"]]) == "| a\\|b |\n| :-- |\n| c |"
