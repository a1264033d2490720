"""Confidence intervals of what an evaluation measured; numpy only."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Interval", "bootstrap_mean_interval", "paired_difference_interval", "wilson_interval"]


@dataclass(frozen=True)
class Interval:
    """A confidence interval, both ends included."""

    low: float
    high: float


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a success probability, from `successes` of `n` independent trials.

    Raises:
        ValueError: If not 0 <= successes <= n, n < 1, or `confidence` is not in (0, 1).
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials are impossible: give 0 <= successes <= n, n >= 1")
    _check_confidence(confidence)
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    centre = (successes + z2 / 2) / (n + z2)
    half = (z2 * (successes * (n - successes) / n + z2 / 4)) ** 0.5 / (n + z2)
    # The two ends that are exact in theory must not suffer from rounding.
    return Interval(0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def bootstrap_mean_interval(
    values_per_seed: ArrayLike | Sequence[ArrayLike],
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a mean over training seeds: seeds are drawn anew first, then the episodes of each.

    With a single training seed only the spread over its episodes enters; with very few seeds the interval is known
    to be too narrow, which is why `n` and the single means belong beside it.

    Args:
        values_per_seed: (S, E), or S arrays of any lengths; each training seed counts equally.
        confidence: Probability that the interval shall cover the mean, in (0, 1).
        resamples: How many means are drawn.
        seed: Of the drawing.

    Raises:
        ValueError: If there is no seed, a seed has no or non-finite values, or `confidence` is not in (0, 1).
    """
    groups = [np.asarray(values, np.float64) for values in values_per_seed]
    if not groups or any(group.ndim != 1 or group.size == 0 for group in groups):
        shapes = [group.shape for group in groups]
        raise ValueError(f"values of shapes {shapes} per training seed: give one non-empty row of values for each seed")
    if not all(np.isfinite(group).all() for group in groups):
        raise ValueError("the values contain NaN or infinity: a mean needs finite values")
    _check_confidence(confidence)
    if resamples < 1:
        raise ValueError(f"resamples={resamples} draws no mean: give at least 1")

    generator = np.random.default_rng(seed)
    chosen = generator.integers(len(groups), size=(resamples, len(groups)))
    means = np.empty(chosen.shape)  # (R, S)
    for index, group in enumerate(groups):
        here = chosen == index
        draws = generator.integers(group.size, size=(int(here.sum()), group.size))
        means[here] = group[draws].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means.mean(axis=1), (tail, 1 - tail))
    return Interval(float(low), float(high))


def paired_difference_interval(
    a: ArrayLike | Sequence[ArrayLike],
    b: ArrayLike | Sequence[ArrayLike],
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Two-level bootstrap of mean(a - b), where a[s][e] and b[s][e] are the same episode of the same training seed.

    Pairing takes out what makes an episode hard for both, so that a difference (between step counts, say) shows with
    far fewer episodes than two separate intervals would need. Arguments as in `bootstrap_mean_interval`.

    Raises:
        ValueError: If `a` and `b` differ in shape, or as in `bootstrap_mean_interval`.
    """
    rows_a, rows_b = ([np.asarray(row, np.float64) for row in rows] for rows in (a, b))
    shapes_a, shapes_b = ([row.shape for row in rows] for rows in (rows_a, rows_b))
    if shapes_a != shapes_b:
        raise ValueError(f"values of shapes {shapes_a} and {shapes_b} are no pairs: give both the same episodes")
    differences = [row_a - row_b for row_a, row_b in zip(rows_a, rows_b, strict=True)]
    return bootstrap_mean_interval(differences, confidence, resamples, seed)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} is no probability inside (0, 1): give 0.95, say")
