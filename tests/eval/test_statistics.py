"""Statistics against independent calculations: SciPy, enumeration, simulation with known truth."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from soft_sglang.eval.statistics import Bootstrap, Interval, average, pass_at_k


def test_resamples_have_the_frequencies_of_all_possible_ones():
    values = np.array([0.0, 1.0, 10.0])
    expected: dict[float, float] = {}
    for drawn in itertools.product(values, repeat=3):
        expected[sum(drawn) / 3] = expected.get(sum(drawn) / 3, 0) + 1 / 27

    means = Bootstrap(3, "tiny").mean(values).resamples

    found, counts = np.unique(means.round(9), return_counts=True)
    assert np.allclose(found, sorted(expected))
    chances = [expected[key] for key in sorted(expected)]
    assert scipy.stats.chisquare(counts, np.array(chances) * means.size).pvalue > 0.001


@pytest.mark.parametrize("distribution", ["accuracy", "tokens"])
def test_interval_of_a_mean_is_scipys(distribution):
    random = np.random.default_rng(1)
    values = (
        random.binomial(4, 0.7, 150) / 4
        if distribution == "accuracy"
        else random.gamma(2, 300, 150)
    )
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=50_000, method="percentile", random_state=random
    ).confidence_interval

    ours = Bootstrap(150, "d").mean(values).interval()

    width = theirs.high - theirs.low
    assert abs(ours.low - theirs.low) < 0.04 * width
    assert abs(ours.high - theirs.high) < 0.04 * width


def test_interval_of_a_paired_relative_change_is_scipys():
    random = np.random.default_rng(2)
    baseline = random.gamma(3, 200, 120)
    treated = baseline * random.uniform(0.5, 1.0, 120)

    def change(a, b, axis):
        return a.mean(axis) / b.mean(axis) - 1

    theirs = scipy.stats.bootstrap(
        (treated, baseline),
        change,
        paired=True,
        n_resamples=50_000,
        method="percentile",
        random_state=random,
    ).confidence_interval

    bootstrap = Bootstrap(120, "d")
    ours = (bootstrap.mean(treated) / bootstrap.mean(baseline)).interval()

    width = theirs.high - theirs.low
    assert abs(ours.low - 1 - theirs.low) < 0.04 * width
    assert abs(ours.high - 1 - theirs.high) < 0.04 * width


def test_ratio_is_a_mean_over_a_varying_number_of_answers():
    tokens_of_correct = np.array([30.0, 0.0, 100.0, 50.0])
    correct = np.array([3.0, 0.0, 4.0, 1.0])
    bootstrap = Bootstrap(4, "d")
    estimate = bootstrap.ratio(tokens_of_correct, correct)
    assert estimate.value == 180 / 8
    interval = estimate.interval()
    assert 10 <= interval.low < estimate.value < interval.high <= 50
    # the resample that draws only the second problem has no correct answer and is left out
    undefined = np.isnan(estimate.resamples).mean()
    assert undefined == pytest.approx(1 / 4**4, abs=0.002)


def test_ratio_without_any_answer_is_not_a_number():
    estimate = Bootstrap(3, "d").ratio(np.zeros(3), np.zeros(3))
    assert math.isnan(estimate.value)
    assert math.isnan(estimate.interval().low)


def test_difference_is_paired():
    bootstrap = Bootstrap(50, "d")
    values = np.random.default_rng(3).normal(0, 100, 50)
    difference = bootstrap.mean(values + 3) - bootstrap.mean(values)
    assert difference.value == pytest.approx(3)
    assert difference.interval().low == pytest.approx(3)
    assert difference.interval().high == pytest.approx(3)


def test_datasets_are_resampled_independently_and_reproducibly():
    values = np.random.default_rng(4).random(80)
    one, again, other = (Bootstrap(80, name).mean(values) for name in ("a", "a", "b"))
    assert np.array_equal(one.resamples, again.resamples)
    assert not np.array_equal(one.resamples, Bootstrap(80, "a", seed=1).mean(values).resamples)
    assert abs(np.corrcoef(one.resamples, other.resamples)[0, 1]) < 0.04


def test_average_over_datasets_has_the_error_of_independent_means():
    random = np.random.default_rng(5)
    first, second = random.normal(0, 1, 200), random.normal(5, 2, 300)
    estimate = average([Bootstrap(200, "a").mean(first), Bootstrap(300, "b").mean(second)])
    assert estimate.value == pytest.approx((first.mean() + second.mean()) / 2)
    error = math.hypot(first.std() / math.sqrt(200), second.std() / math.sqrt(300)) / 2
    interval = estimate.interval()
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.04)


def test_average_of_one_dataset_keeps_its_exact_interval():
    estimate = Bootstrap(10, "d").proportion(np.ones(10))
    assert average([estimate]).interval() == estimate.interval()


@pytest.mark.parametrize("problems", [1, 7, 300])
def test_all_right_or_all_wrong_has_the_exact_binomial_interval(problems):
    bootstrap = Bootstrap(problems, "d")
    for share in (0, 1):
        ours = bootstrap.proportion(np.full(problems, float(share))).interval()
        result = scipy.stats.binomtest(share * problems, problems)
        theirs = result.proportion_ci(0.95, method="exact")
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
        percent = bootstrap.proportion(np.full(problems, float(share))).times(100).interval()
        assert (percent.low, percent.high) == pytest.approx((100 * ours.low, 100 * ours.high))


def test_resamples_that_are_all_the_same_give_no_interval():
    bootstrap, values = Bootstrap(30, "d"), np.random.default_rng(8).random(30)
    same = bootstrap.mean(values) - bootstrap.mean(values)
    solved = average([Bootstrap(30, name).proportion(np.ones(30)).times(100) for name in "ab"])
    for estimate, value in ((same, 0), (solved, 100), (Bootstrap(1, "d").mean(values[:1]), None)):
        assert value is None or estimate.value == value
        assert not estimate.interval().defined
        assert not estimate.interval().excludes(1e9)
    assert bootstrap.mean(values).interval().defined


def test_excludes():
    assert Interval(1, 2).excludes(0)
    assert not Interval(0, 2).excludes(0)
    assert not Interval(-1, 1).excludes(0)
    assert Interval(-2, -1).excludes(0)
    assert not Interval(math.nan, math.nan).excludes(0)


def test_no_problem_is_an_error():
    with pytest.raises(ValueError, match="no problem"):
        Bootstrap(0, "d")


def test_resampling_does_not_depend_on_the_block():
    """More resamples than one block, and not a multiple of it."""
    values = np.arange(20.0)
    estimate = Bootstrap(20, "d", resamples=1234).mean(values)
    assert estimate.resamples.shape == (1234,)
    assert estimate.resamples.std() == pytest.approx(values.std() / math.sqrt(20), rel=0.1)


@pytest.mark.parametrize("samples", [1, 4, 6])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(samples):
    correct = np.arange(samples + 1)
    for k in range(1, samples + 1):
        expected = [
            np.mean([min(s) < c for s in itertools.combinations(range(samples), k)])
            for c in correct  # the first c samples are the correct ones
        ]
        assert pass_at_k(samples, correct, k) == pytest.approx(expected)


def test_pass_at_1_is_the_mean():
    correct = np.array([0, 3, 16, 7])
    assert pass_at_k(16, correct, 1) == pytest.approx(correct / 16)


@pytest.mark.parametrize("k", [0, 5])
def test_pass_at_k_wants_k_samples(k):
    with pytest.raises(ValueError, match=f"pass@{k} needs"):
        pass_at_k(4, np.array([1]), k)


def _chances(random, problems):
    """Problems that a model nearly always or nearly never solves, 0.7 on average."""
    return random.beta(0.7, 0.3, problems)


def test_interval_covers_the_truth_as_often_as_it_says():
    random, bootstrap = np.random.default_rng(6), Bootstrap(200, "d", resamples=1000)
    covered = naive = 0
    for _ in range(500):
        means = random.binomial(4, _chances(random, 200)) / 4
        covered += not bootstrap.proportion(means).interval().excludes(0.7)
        error = math.sqrt(
            means.mean() * (1 - means.mean()) / (200 * 4)
        )  # answers as if independent
        naive += abs(means.mean() - 0.7) < 1.96 * error
    assert 0.925 < covered / 500 < 0.975
    assert naive / 500 < 0.85, "the simulation does not tell clusters from single answers"


def test_paired_interval_covers_the_truth_and_is_narrower():
    random, bootstrap = np.random.default_rng(7), Bootstrap(200, "d", resamples=1000)
    other = Bootstrap(200, "other", resamples=1000)
    covered, widths, unpaired_widths = 0, [], []
    for _ in range(500):
        chances = _chances(random, 200)
        one = random.binomial(4, chances) / 4
        two = random.binomial(4, chances * 0.9) / 4  # 0.07 less on average
        interval = (bootstrap.proportion(two) - bootstrap.proportion(one)).interval()
        unpaired = (other.proportion(two) - bootstrap.proportion(one)).interval()
        covered += not interval.excludes(-0.07)
        widths.append(interval.high - interval.low)
        unpaired_widths.append(unpaired.high - unpaired.low)
    assert 0.925 < covered / 500 < 0.975
    assert np.mean(widths) < 0.7 * np.mean(unpaired_widths)
