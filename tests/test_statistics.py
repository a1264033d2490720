import numpy as np
import pytest

from shortcut_policy.statistics import (
    Interval,
    bootstrap_mean_interval,
    paired_difference_interval,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "n", "confidence", "low", "high"),
    [
        (0, 10, 0.95, 0.0, 0.2775327998628892),  # z^2 / (n + z^2)
        (10, 10, 0.95, 0.7224672001371107, 1.0),
        (8, 10, 0.95, 0.4901624715366414, 0.9433178485456247),
    ],
)
def test_wilson_interval_known_answers(successes, n, confidence, low, high):
    interval = wilson_interval(successes, n, confidence)
    assert interval.low == pytest.approx(low, abs=1e-7)
    assert interval.high == pytest.approx(high, abs=1e-7)


@pytest.mark.parametrize(("confidence", "z"), [(0.9, 1.6448536269514722), (0.99, 2.5758293035489004)])
def test_the_ends_of_wilsons_interval_are_z_standard_errors_away(confidence, z):
    interval = wilson_interval(32, 50, confidence)
    for end in (interval.low, interval.high):
        assert abs(0.64 - end) == pytest.approx(z * np.sqrt(end * (1 - end) / 50))
    assert interval.low < 0.64 < interval.high


def test_wilson_interval_equals_scipy():
    scipy_stats = pytest.importorskip("scipy.stats")
    for n in (1, 7, 100):
        for successes in {0, 1, n // 2, n}:
            for confidence in (0.5, 0.95, 0.99):
                theirs = scipy_stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
                ours = wilson_interval(successes, n, confidence)
                assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_interval_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match=f"{successes} successes of {n} trials"):
        wilson_interval(successes, n)


def test_bootstrap_of_two_episodes_is_binomial():
    # the mean of two draws from {0, 1} is 0, 1/2, 1 with probability 1/4, 1/2, 1/4
    assert bootstrap_mean_interval([[0, 1]]) == Interval(0, 1)
    assert bootstrap_mean_interval([[0, 1]], confidence=0.4) == Interval(0.5, 0.5)
    assert bootstrap_mean_interval([[0, 1]], confidence=0.6) == Interval(0, 1)


def test_bootstrap_draws_whole_training_seeds_that_count_equally():
    # episodes of a seed are alike, so only the drawing of seeds remains: again 1/4, 1/2, 1/4
    values = [np.zeros(30), np.ones(10)]
    assert bootstrap_mean_interval(values) == Interval(0, 1)
    assert bootstrap_mean_interval(values, confidence=0.4) == Interval(0.5, 0.5)


def test_bootstrap_of_many_episodes_agrees_with_the_normal_interval():
    values = np.random.default_rng(0).normal(3, 2, size=400)
    half = 1.959964 * values.std() / 20
    interval = bootstrap_mean_interval([values])
    assert interval.low == pytest.approx(values.mean() - half, abs=0.03 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.03 * half)


def test_bootstrap_covers_the_mean_where_training_seeds_differ():
    generator = np.random.default_rng(0)
    hits = pooled_hits = 0
    for trial in range(200):
        values = generator.normal(size=(10, 1)) + generator.normal(size=(10, 20))
        interval = bootstrap_mean_interval(values, resamples=300, seed=trial)
        pooled = bootstrap_mean_interval([values.ravel()], resamples=300, seed=trial)
        hits += interval.low <= 0 <= interval.high
        pooled_hits += pooled.low <= 0 <= pooled.high
    assert 0.87 <= hits / 200 <= 0.99
    assert pooled_hits / 200 < 0.6  # what taking all episodes for independent would do


def test_bootstrap_is_a_function_of_its_seed():
    values = np.random.default_rng(0).uniform(size=(3, 20))
    assert bootstrap_mean_interval(values) == bootstrap_mean_interval(values)
    assert bootstrap_mean_interval(values, seed=1) != bootstrap_mean_interval(values)


def test_pairing_takes_out_the_difficulty_of_the_episodes():
    generator = np.random.default_rng(0)
    b = generator.uniform(size=(3, 50))
    noise = generator.normal(scale=0.01, size=b.shape)
    interval = paired_difference_interval(b + 0.1 + noise, b)
    assert 0.09 < interval.low < 0.1 < interval.high < 0.11
    constant = paired_difference_interval(b, b + 0.25)
    assert (constant.low, constant.high) == pytest.approx((-0.25, -0.25))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_mean_interval([]), r"values of shapes \[\]"),
        (lambda: bootstrap_mean_interval([[1.0], []]), r"\(0,\)"),
        (lambda: bootstrap_mean_interval([1.0, 2.0]), r"shapes \[\(\), \(\)\]"),
        (lambda: bootstrap_mean_interval([[np.nan]]), "NaN"),
        (lambda: bootstrap_mean_interval([[1.0]], confidence=95), "confidence=95"),
        (lambda: bootstrap_mean_interval([[1.0]], resamples=0), "resamples=0"),
        (lambda: paired_difference_interval([[1.0, 2.0]], [[1.0]]), "no pairs"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
