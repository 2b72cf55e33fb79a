"""An interval over few files holds what it promises and pairs what is of the same clips."""

import numpy as np
import pytest

from saga_sr.evaluate.intervals import interval, resampled_counts, weighted_means
from saga_sr.evaluate.report import Results
from saga_sr.evaluate.scores import CLIP_METRICS

GROUP = ("music", 4000.0)


def of_mean(values: np.ndarray, *key: int | str) -> tuple[float, float]:
    counts = resampled_counts([str(n) for n in range(len(values))], *key)
    found = interval(weighted_means(values, counts), len(values))
    assert found is not None
    return found


@pytest.mark.parametrize(("num_files", "least"), [(5, 0.88), (30, 0.92)])
def test_intervals_hold_the_true_mean_as_often_as_they_say(num_files: int, least: float) -> None:
    """Of 5 files the plain percentiles of the bootstrap hold it in 84 % of the cases."""
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(300):
        low, high = of_mean(rng.normal(2.0, 3.0, num_files), trial)
        held += low < 2.0 < high
    assert least < held / 300 < 0.99


def test_an_interval_is_a_function_of_its_key_alone() -> None:
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    assert of_mean(values, 0, "a") == of_mean(values, 0, "a") != of_mean(values, 0, "b")


def test_clips_of_one_file_count_as_one_witness() -> None:
    values = np.random.default_rng(1).normal(size=12)
    alone = of_mean(values)
    files = [str(n // 10) for n in range(120)]
    counts = resampled_counts(files)
    repeated = interval(weighted_means(values.repeat(10), counts), 12)
    assert repeated == pytest.approx(alone, abs=1e-9)
    assert interval(weighted_means(values, resampled_counts(["one"] * 12)), 1) is None


def test_clips_without_a_value_are_left_out() -> None:
    counts = np.array([[1.0, 1.0, 1.0], [0.0, 2.0, 1.0], [3.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    means = weighted_means(np.array([1.0, 4.0, np.nan]), counts)
    assert means[:3].tolist() == [2.5, 4.0, 1.0]
    assert np.isnan(means[3])


def filled(pairs: list[tuple[str, str]]) -> Results:
    """Two rows that differ by 1 on every clip, beside what makes clips differ."""
    results = Results(CLIP_METRICS, ["a", "b"], pairs=pairs)
    hard = np.random.default_rng(2).normal(size=20) * 10
    for number, value in enumerate(hard):
        for row, better in (("a", 0.0), ("b", 1.0)):
            noise = 0.1 * np.sin(7 * number)
            values = {"lsd": value - better * (1 + noise), "seam_step_db": -value}
            results.add(GROUP, row, str(number), values)
    results.add(GROUP, "a", "19", {"lsd": float("nan")})
    results.add(GROUP, "b", "0", {"velocity_error": 0.5})
    return results


def test_a_difference_is_paired_and_of_the_clips_that_both_have() -> None:
    results = filled([("b", "a")])
    wide = results.interval(GROUP, "b", "lsd")
    value, narrow, count = results.difference(GROUP, "b", "a", "lsd")
    assert count == 19
    assert value == pytest.approx(-1.0, abs=0.05)
    assert narrow is not None
    assert wide is not None
    assert narrow[1] < 0
    assert narrow[1] - narrow[0] < 0.05 * (wide[1] - wide[0])
    assert results.difference(GROUP, "b", "a", "seam_step_db")[0] == 0  # of magnitudes


def test_what_only_one_row_has_is_not_compared() -> None:
    line = filled([("b", "a"), ("b", "nobody")]).differences()
    assert [(one["row"], one["minus"]) for one in line] == [("b", "a")]
    assert set(line[0]["differences"]) == {"lsd", "seam_step_db"}
