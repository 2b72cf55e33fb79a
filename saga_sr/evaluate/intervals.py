"""How sure a figure over few clips is: 95 % intervals by the bootstrap over files.

A statistic is a function of how often each clip counts: once each in the sample at hand, and as
often as its file was drawn in each resample (n files out of n, with replacement). All rows of a
table share the draws, so that a difference of two rows is paired: what makes a clip hard for both
cancels.

With few files the spread of the resamples is too narrow. Hesterberg's expanded percentiles
("What teachers should know about the bootstrap", 2015, sec. 5.3) widen it as Student's t would.
A Frechet distance grows when clips repeat; so resamples are shifted to have the statistic as
their mean, which changes nothing for means.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from saga_sr.support.randomness import numpy_generator

RESAMPLES = 1000
COVERAGE = 0.95
Interval = tuple[float, float]


def resampled_counts(files: Sequence[str], *key: int | str) -> np.ndarray:
    """How often each clip counts, [1 + RESAMPLES, clips], float64; once each in the first row.

    Args:
        files: of each clip, the file it is from; clips of one file are drawn together.
        key: of the draws, see `saga_sr.support.randomness`.
    """
    distinct, of_clip = np.unique(np.asarray(files), return_inverse=True)
    share = np.full(len(distinct), 1 / len(distinct))
    drawn = numpy_generator("bootstrap", *key).multinomial(len(distinct), share, RESAMPLES)
    return np.concatenate([np.ones((1, len(of_clip))), drawn[:, of_clip].astype(float)])


def weighted_means(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means [1 + RESAMPLES] of values [clips]; NaN values are left out."""
    present = ~np.isnan(values)
    total = counts[:, present].sum(axis=1)
    summed = counts[:, present] @ values[present]
    return np.divide(summed, total, out=np.full(len(counts), np.nan), where=total > 0)


def interval(statistics: np.ndarray, num_files: int) -> Interval | None:
    """The interval of a statistic, None where fewer than two files have a value.

    Args:
        statistics: [1 + RESAMPLES], the first of the sample itself.
        num_files: how many files have a value.
    """
    value, draws = statistics[0], statistics[1:]
    draws = draws[np.isfinite(draws)]
    if num_files < 2 or not np.isfinite(value) or not len(draws):
        return None
    tail = (1 - COVERAGE) / 2
    widened = np.sqrt(num_files / (num_files - 1)) * stats.t.ppf(tail, num_files - 1)
    tail = stats.norm.cdf(widened)
    low, high = np.quantile(draws, [tail, 1 - tail]) + value - draws.mean()
    return float(low), float(high)
