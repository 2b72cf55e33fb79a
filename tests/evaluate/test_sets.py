"""Distances of sets of clips: right values, no bias where none is promised, NaN where too few."""

import numpy as np
import pytest
import soxr
import torch
from torch import Tensor

from saga_sr.evaluate.sets import Aisfx, frechet, kernel, mel_triangles
from saga_sr.lowpass import apply_lowpass, field_lowpass
from saga_sr.metrics import frechet_distance

ONCE = np.ones((1, 12))


def clips(seed: int, count: int = 12, frames: int = 5, dimensions: int = 4) -> list[Tensor]:
    """Normal frames around a place of each clip's own: clips differ more than their frames."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(1, dimensions, generator=generator)
        + 0.3 * torch.randn(frames, dimensions, generator=generator)
        for _ in range(count)
    ]


def names(count: int = 12) -> list[str]:
    return [str(number) for number in range(count)]


def test_frechet_of_clips_that_count_twice_is_that_of_repeated_clips() -> None:
    est, ref = clips(1), clips(2)
    counts = np.ones((2, 12))
    counts[1, 3], counts[1, 5] = 3, 0
    once, resampled = frechet(est, ref, names(), counts)
    assert once == pytest.approx(frechet_distance(torch.cat(est), torch.cat(ref)), rel=1e-6)
    chosen = [number for number in range(12) for _ in range(int(counts[1, number]))]
    again = [torch.cat([side[number] for number in chosen]) for side in (est, ref)]
    assert resampled == pytest.approx(frechet_distance(*again), rel=1e-6)


def test_frechet_of_too_few_frames_is_no_number() -> None:
    est, ref = clips(1, frames=1, dimensions=12), clips(2, frames=1, dimensions=12)
    assert np.isnan(frechet(est, ref, names(), ONCE)).all()


def test_frechet_of_many_dimensions_has_a_value_and_no_resamples() -> None:
    est, ref = clips(1, frames=7, dimensions=70), clips(2, frames=7, dimensions=70)
    found = frechet(est, ref, names(), np.ones((3, 12)))
    assert found[0] == pytest.approx(frechet_distance(torch.cat(est), torch.cat(ref)), rel=1e-6)
    assert np.isnan(found[1:]).all()


def test_kernel_of_the_truth_itself_is_zero_and_of_something_else_is_not() -> None:
    ref = clips(1)
    assert kernel(ref, ref, names(), ONCE)[0] == pytest.approx(0, abs=1e-9)
    moved = [clip + 2 for clip in ref]
    wide = [3 * clip for clip in clips(2)]
    assert kernel(moved, ref, names(), ONCE)[0] > 30
    assert kernel(wide, ref, names(), ONCE)[0] > 5


@pytest.mark.parametrize("count", [3, 12])
def test_kernel_expects_zero_of_equal_distributions_however_few_and_frechet_does_not(
    count: int,
) -> None:
    counts = np.ones((1, count))
    pairs = [(clips(2 * n, count), clips(2 * n + 1, count)) for n in range(300)]
    kernels = np.array([kernel(*pair, names(count), counts)[0] for pair in pairs])
    assert abs(kernels.mean()) < 3 * kernels.std() / np.sqrt(len(kernels))
    distances = np.array([frechet(*pair, names(count), counts)[0] for pair in pairs])
    assert distances.mean() > 10 * distances.std() / np.sqrt(len(distances))


def test_kernel_never_compares_two_clips_of_one_file() -> None:
    est, ref = clips(1), clips(2)
    files = [str(number // 2) for number in range(12)]
    halves = [[torch.cat(side[n : n + 2]) for n in range(0, 12, 2)] for side in (est, ref)]
    whole = kernel(*halves, names(6), np.ones((1, 6)))
    assert kernel(est, ref, files, ONCE) == pytest.approx(whole, rel=1e-6)
    assert np.isnan(kernel(est, ref, ["one"] * 12, ONCE)).all()


def test_kernel_of_resamples_leaves_copies_of_a_clip_apart() -> None:
    """A clip drawn twice is not compared with itself."""
    est, ref = clips(1), clips(2)
    counts = np.zeros((1, 12))
    counts[0, :3] = 2, 1, 1
    found = kernel(est, ref, names(), counts)
    of_three = np.ones((1, 12)) * (np.arange(12) < 3)
    assert np.isfinite(found).all()
    assert found != pytest.approx(kernel(est, ref, names(), of_three))
    alone = np.zeros((1, 12))
    alone[0, 4] = 12
    assert np.isnan(kernel(est, ref, names(), alone)).all()


def test_mel_triangles_cover_every_bin_once_and_weigh_no_band_more() -> None:
    weights = mel_triangles(44100, 2048, 96)
    assert weights.sum(dim=1).numpy() == pytest.approx(np.ones(96), rel=1e-5)
    assert (weights[:, 1:-1] > 0).any(dim=0).all()
    centre = weights.argmax(dim=1)
    assert (centre.diff() > 0).all()
    librosa = pytest.importorskip("librosa")
    hz = librosa.mel_frequencies(98, fmin=0, fmax=22050, htk=True)[1:-1]
    assert (centre * 44100 / 2048).numpy() == pytest.approx(hz, abs=22)


def test_aisfx_hears_the_high_band_and_not_the_length() -> None:
    pytest.importorskip("aisfx")
    embed = Aisfx(torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    audio = 0.1 * torch.randn(2, 6 * 44100, generator=generator)
    dull = apply_lowpass(audio, 44100, field_lowpass(4000.0))
    whole, low, short = embed(audio, 44100), embed(dull, 44100), embed(audio[:, :4000], 44100)
    assert whole.shape == low.shape == (3, 512)
    assert short.shape == (1, 512)
    apart = (whole - low).norm(dim=1)
    assert apart.min() > 3 * torch.pdist(whole).max()
    again = embed(torch.from_numpy(soxr.resample(audio.T.numpy(), 44100, 48000)).T, 48000)
    assert (again - whole).norm(dim=1).max() < 0.2 * apart.min()
