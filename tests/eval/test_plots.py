"""Plots: what they draw is what was measured, and it can be read."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from report_runs import ARMS, COT, Truth, lines, write_lines, write_run

from soft_sglang.eval.arms import ARMS as ALL_ARMS
from soft_sglang.eval.measurements import read_models
from soft_sglang.eval.plots import (
    accuracy_tokens,
    cold_stop_cuts,
    entropy_steps,
    style,
    thinking_lengths,
)
from soft_sglang.eval.plots.labels import Label, place
from soft_sglang.eval.summaries import summarise


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("plots") / "run")


@pytest.fixture(scope="module")
def dataset(run):
    return read_models([run])[0].datasets["alpha"]


def _answers(run, arm):
    return [answer for answer in lines(run / "answers.jsonl") if answer["arm"] == arm]


def test_points_are_the_arms(dataset):
    summaries = summarise(dataset)
    (axes,) = accuracy_tokens.draw({"alpha": summaries}).axes
    points = {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for line in axes.lines
        if len(line.get_xdata()) == 1
    }
    assert points >= {(s.tokens.value, s.accuracy.value) for s in summaries.values()}
    assert {text.get_text() for text in axes.texts} == {b.title for b in dataset.blocks.values()}


def test_arms_far_away_leave_the_others_a_close_up(tmp_path):
    arms = dict(ARMS) | {"coconut_tf": Truth(4, 0.1)}
    run = write_run(tmp_path / "run", arms=arms, datasets={"alpha": 30})
    summaries = summarise(read_models([run])[0].datasets["alpha"])
    overview, close_up = accuracy_tokens.draw({"alpha": summaries}).axes
    assert [text.get_text() for text in overview.texts] == ["COCONUT-TF"]
    assert len(close_up.texts) == len(ARMS)
    assert close_up.get_xlim()[1] < summaries["coconut_tf"].tokens.value < overview.get_xlim()[1]


@pytest.mark.parametrize("seed", range(5))
def test_labels_cover_neither_each_other_nor_points(seed):
    """All arms as close to each other as in the worst real case."""
    random = np.random.default_rng(seed)
    with style.plain_style():
        figure, ((axes,),) = style.panels([4.6], 1)
        axes.set_xlim(100, 200)
        axes.set_ylim(70, 90)
        names = [arm.title for arm in ALL_ARMS.values()]
        points = np.stack([random.normal(150, 15, len(names)), random.normal(80, 2, len(names))], 1)
        labels = [
            Label(name, x, y, "black", (x - 3, x + 3), (y - 2, y + 2))
            for name, (x, y) in zip(names, points, strict=True)
        ]
        boxes = place(figure, axes, labels)
        frame = axes.get_window_extent()
        drawn = [text.get_window_extent() for text in axes.texts]
    for index, box in enumerate(boxes):
        assert np.allclose(box.extents, drawn[index].extents, atol=1), "not where it was planned"
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1
        assert frame.y0 <= box.y0 and box.y1 <= frame.y1
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])
        assert not any(box.contains(*axes.transData.transform(point)) for point in points)


def test_lengths_are_histograms_of_all_answers(run, dataset):
    (axes,) = thinking_lengths.draw(dataset).axes
    medians = [text.get_text() for text in axes.texts if text.get_text() != "median"]
    expected = [np.median([a["thinking_tokens"] for a in _answers(run, arm)]) for arm in ARMS]
    assert medians == [f"{median:g}" for median in expected]
    lengths = [a["thinking_tokens"] for a in _answers(run, "soft")]
    row = list(ARMS).index("soft")
    heights, edges, baseline = axes.patches[2 * row].get_data()
    counts, _ = np.histogram(lengths, edges)
    assert counts.sum() == len(lengths)
    assert np.allclose(heights - baseline, 0.82 * counts / counts.max())


def test_a_thought_without_end_does_not_stretch_the_axis(tmp_path):
    run = write_run(tmp_path / "run", arms={"cot": COT, "soft": Truth()}, datasets={"alpha": 50})
    answers = lines(run / "answers.jsonl")
    endless = answers[-1] | {"thinking_tokens": 30000}
    write_lines(run / "answers.jsonl", [*answers[:-1], endless])
    (axes,) = thinking_lengths.draw(read_models([run])[0].datasets["alpha"]).axes
    longest = max(answer["thinking_tokens"] for answer in answers)
    assert axes.get_xlim()[1] < 1.5 * longest
    texts = [text.get_text() for text in axes.texts]
    end = axes.get_xlim()[1]
    beyond = sum(a["arm"] == "soft" and a["thinking_tokens"] > end for a in answers[:-1]) + 1
    assert str(beyond) in texts and "beyond" in texts


def test_lengths_over_decades_have_a_logarithmic_axis(tmp_path):
    arms = {"cot": COT, "coconut_tf": Truth(60)}
    run = write_run(tmp_path / "run", arms=arms, datasets={"alpha": 20})
    (axes,) = thinking_lengths.draw(read_models([run])[0].datasets["alpha"]).axes
    assert axes.get_xscale() == "log"


def test_cuts_are_put_beside_cots_length_of_the_same_problem(run, dataset):
    figure = cold_stop_cuts.draw(dataset)
    left, right = figure.axes[2:4]  # the second row: Soft Thinking
    cot: dict[str, list[int]] = {}
    for answer in _answers(run, "cot"):
        cot.setdefault(answer["problem"], []).append(answer["thinking_tokens"])
    cut = [a for a in _answers(run, "soft") if a["soft_thinking"]["end"] == "cold_stop"]
    steps = [a["soft_thinking"]["steps"] for a in cut]
    shares = [a["soft_thinking"]["steps"] / np.mean(cot[a["problem"]]) for a in cut]
    assert left.get_title(loc="left") == "Soft Thinking"
    assert right.get_title(loc="left") == (
        f"{len(cut)} of 120 answers cut; "
        f"medians: step {np.median(steps):g}, {np.median(shares):.2f} of CoT"
    )
    counts, edges, _ = left.patches[0].get_data()
    assert np.array_equal(counts, np.histogram(steps, edges)[0])
    counts, edges, _ = right.patches[0].get_data()
    assert counts.sum() == len(cut)
    assert np.array_equal(counts, np.histogram(shares, edges)[0])


def test_cuts_without_cot_have_no_share(tmp_path):
    run = write_run(tmp_path / "run", arms={"soft": Truth(cold_stop=0.5)}, datasets={"alpha": 20})
    assert len(cold_stop_cuts.draw(read_models([run])[0].datasets["alpha"]).axes) == 1


def test_entropy_band_is_that_of_the_answers_that_still_think(run, dataset):
    figure = entropy_steps.draw(dataset)
    assert len(figure.axes) == 2 * 3, "the arms with entropies"
    thoughts = [a["soft_thinking"]["entropies"] for a in _answers(run, "soft")]
    (line,) = figure.axes[3].lines
    width = line.get_xdata()[1] - line.get_xdata()[0]
    for step, mean in zip(line.get_xdata(), line.get_ydata(), strict=True):
        first = round(step - (width - 1) / 2)  # from 1
        inside = [t[first - 1 : first - 1 + round(width)] for t in thoughts]
        assert mean == pytest.approx(np.mean(np.concatenate(inside)))
    still = np.mean([len(thought) >= line.get_xdata()[-1] for thought in thoughts])
    assert 0.1 <= still < 0.15


def test_what_was_not_measured_is_not_drawn(tmp_path):
    arms = {"cot": COT, "soft": Truth(entropy=False)}
    run = write_run(tmp_path / "run", arms=arms, datasets={"alpha": 10})
    answers = lines(run / "answers.jsonl")
    write_lines(run / "answers.jsonl", [a | {"thinking_tokens": None} for a in answers])
    dataset = read_models([run])[0].datasets["alpha"]
    assert entropy_steps.draw(dataset) is None
    assert cold_stop_cuts.draw(dataset) is None
    assert thinking_lengths.draw(dataset) is None
    assert accuracy_tokens.draw({"alpha": {}}) is None


def test_thoughts_are_shown_even_if_no_first_sample_is_there(tmp_path):
    run = write_run(tmp_path / "run", arms={"soft": Truth()}, datasets={"alpha": 2})
    answers = [answer for answer in lines(run / "answers.jsonl") if answer["sample"]]
    write_lines(run / "answers.jsonl", answers)
    figure = entropy_steps.draw(read_models([run])[0].datasets["alpha"])
    assert figure is not None
    assert len(figure.axes[0].collections) == 2


@pytest.mark.parametrize("largest", [0, 1, 7, 49, 50, 51, 12345])
def test_bins_of_counts_hold_the_same_whole_numbers_each(largest):
    edges = style.whole_bins(largest, 50)
    held, _ = np.histogram(np.arange(largest + 1), edges)
    assert held.sum() == largest + 1
    assert len(held) <= 51
    assert set(held[:-1]) <= {held[0]} and held[-1] <= held[0]


def test_no_two_arms_look_the_same():
    looks = [style.look(arm) for arm in ALL_ARMS]
    assert len(set(looks)) == len(ALL_ARMS)
    assert style.GREY not in {look.colour for look in looks}, "the look of unknown arms"


def test_colours_differ_for_the_colour_blind():
    """Distance in CIE Lab after a simulation of deuteranopia (Viénot, Brettel and Mollon 1999)."""
    colours = sorted({style.look(arm).colour for arm in ALL_ARMS})
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_lms = np.array(
        [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
    )
    blind = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    seen = linear @ (np.linalg.inv(to_lms) @ blind @ to_lms).T
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = np.clip(seen, 0, 1) @ to_xyz.T / to_xyz.sum(axis=1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    assert distances[~np.eye(len(colours), dtype=bool)].min() > 10


def test_files_are_images_without_date_or_version(tmp_path):
    figure = Figure(figsize=(2, 1))
    FigureCanvasAgg(figure)
    path = tmp_path / style.file_name("org/model 7B", "é|x", "kind")
    style.save(figure, path)
    assert path.name == "org-model-7B-x-kind.png"
    with Image.open(path) as image:
        assert set(image.info) <= {"dpi"}
        assert image.width > 100
