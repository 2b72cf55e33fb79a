import librosa
import numpy as np
import pytest
import torch
from scipy import signal

from saga_sr.lowfreq import (
    crossover_kernels,
    crossover_margin,
    crossover_transition_hz,
    low_frequency_replace,
)
from saga_sr.support.randomness import torch_generator

RATE = 44100
CUTOFF_HZ = 4000.0
LENGTH = 40_000


def _noise(name: str, shape=(2, 2, LENGTH)) -> torch.Tensor:
    return 0.1 * torch.randn(shape, generator=torch_generator("lowfreq", name))


def _band_levels_db(audio: torch.Tensor, width_hz: float = 100.0) -> tuple[np.ndarray, np.ndarray]:
    """(band centres, level of each band in dB), averaged over rows by Welch's method."""
    hz, power = signal.welch(
        audio.reshape(-1, audio.shape[-1]).numpy(), RATE, nperseg=4096, detrend=False
    )
    bands = (hz // width_hz).astype(int)
    level = np.bincount(bands, power.mean(axis=0)) / np.bincount(bands)
    return (np.arange(len(level)) + 0.5) * width_hz, 10 * np.log10(level)


def _change_in_kept_band_db(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest change of any 100 Hz band below the soft transition, relative to its level."""
    hz, change = _band_levels_db(found - expected)
    _, level = _band_levels_db(expected)
    kept_hz = CUTOFF_HZ - crossover_transition_hz(torch.tensor(CUTOFF_HZ)).item()
    return (change - level)[hz < kept_hz - 100].max()


def test_soft_keeps_the_low_band_to_80_db():
    lr, generated = _noise("lr"), _noise("generated")
    out = low_frequency_replace(generated, lr, CUTOFF_HZ, RATE)
    assert _change_in_kept_band_db(out, lr) < -80


def test_soft_keeps_the_generated_band_above_the_cutoff():
    lr, generated = _noise("lr"), _noise("generated")
    out = low_frequency_replace(generated, lr, CUTOFF_HZ, RATE)
    hz, level = _band_levels_db(out - generated)
    _, reference = _band_levels_db(generated)
    assert (level - reference)[hz > CUTOFF_HZ + 100].max() < -80


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_equal_signals_pass_unchanged(mode):
    audio = _noise("same")
    assert torch.allclose(low_frequency_replace(audio, audio, 3000.0, RATE, mode), audio, atol=1e-6)


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_replacing_twice_changes_nothing_in_the_kept_band(mode):
    lr = _noise("lr")
    once = low_frequency_replace(_noise("generated"), lr, CUTOFF_HZ, RATE, mode)
    twice = low_frequency_replace(once, lr, CUTOFF_HZ, RATE, mode)
    assert _change_in_kept_band_db(twice, once) < -80


def test_soft_leaves_no_line_where_the_truth_is_generated():
    """LR: the field's Chebyshev filter; replacement where its passband ends restores the truth."""
    truth = _noise("truth", (1, 2, 200_000))
    sos = signal.cheby1(8, 0.05, CUTOFF_HZ, fs=RATE, output="sos")
    lr = torch.from_numpy(signal.sosfiltfilt(sos, truth.numpy(), axis=-1).copy()).float()
    hz, power = signal.sosfreqz(sos, 1 << 16, fs=RATE)
    passband_hz = hz[20 * np.log10(np.abs(power)) * 2 < -0.5][0]
    out = low_frequency_replace(truth, lr, float(passband_hz), RATE)
    _, level = _band_levels_db(out)
    _, expected = _band_levels_db(truth)
    assert np.abs(level - expected).max() < 0.5


@pytest.mark.parametrize(
    ("mode", "at_least_db", "at_most_db"), [("soft", -3.5, 0.6), ("hard", -3.5, 0.6)]
)
def test_unrelated_signals_of_one_level_show_no_line_at_the_seam(mode, at_least_db, at_most_db):
    """Unrelated halves add in power: at worst half of it is missing in mid-transition."""
    out = low_frequency_replace(
        _noise("a", (2, 2, 200_000)), _noise("b", (2, 2, 200_000)), CUTOFF_HZ, RATE, mode
    )
    hz, level = _band_levels_db(out)
    seam = (level - np.median(level))[(hz > 3000) & (hz < 5000)]
    assert at_least_db < seam.min() <= seam.max() < at_most_db


def test_soft_does_not_ring_longer_than_its_kernel():
    click = torch.zeros(1, 1, 8192)
    click[..., 4096] = 1.0
    out = low_frequency_replace(click, torch.zeros_like(click), CUTOFF_HZ, RATE)
    margin = crossover_margin(RATE, CUTOFF_HZ)
    assert out[..., : 4096 - margin].abs().max() < 1e-6
    assert out[..., 4096 + margin + 1 :].abs().max() < 1e-6


def test_soft_takes_a_cutoff_per_item_and_items_do_not_mix():
    lr, generated = _noise("lr"), _noise("generated")
    both = low_frequency_replace(generated, lr, torch.tensor([2000.0, 9000.0]), RATE)
    for item, cutoff_hz in enumerate([2000.0, 9000.0]):
        rows = slice(item, item + 1)
        alone = low_frequency_replace(generated[rows], lr[rows], cutoff_hz, RATE)
        assert torch.allclose(both[rows], alone, atol=1e-6)


def test_soft_equals_direct_convolution_inside_and_mirrors_the_ends():
    lr, generated = _noise("lr", (1, 1, 9000)), _noise("generated", (1, 1, 9000))
    kernel = crossover_kernels(torch.tensor([CUTOFF_HZ]), RATE)[0].numpy()
    missing = np.pad((lr - generated)[0, 0].double().numpy(), len(kernel) // 2, mode="reflect")
    expected = generated[0, 0].numpy() + np.convolve(missing, kernel, mode="valid")
    found = low_frequency_replace(generated, lr, CUTOFF_HZ, RATE)[0, 0].numpy()
    assert np.abs(found - expected).max() < 1e-6


def test_soft_in_pieces_with_margins_equals_the_whole():
    lr, generated = _noise("lr", (1, 1, 30_000)), _noise("generated", (1, 1, 30_000))
    whole = low_frequency_replace(generated, lr, CUTOFF_HZ, RATE)
    margin = crossover_margin(RATE, CUTOFF_HZ)
    piece = slice(10_000 - margin, 20_000 + margin)
    found = low_frequency_replace(generated[..., piece], lr[..., piece], CUTOFF_HZ, RATE)
    inner = found[..., margin:-margin]
    assert torch.allclose(inner, whole[..., 10_000:20_000], atol=1e-6)


def test_hard_equals_librosa_bin_replacement():
    lr, generated = _noise("lr", (1, 1, 20_000)), _noise("generated", (1, 1, 20_000))
    spectra = [
        librosa.stft(audio[0, 0].numpy(), n_fft=2048, hop_length=512, pad_mode="reflect")
        for audio in (lr, generated)
    ]
    low = np.fft.rfftfreq(2048, 1 / RATE) < CUTOFF_HZ
    mixed = np.where(low[:, None], *spectra)
    expected = librosa.istft(mixed, n_fft=2048, hop_length=512, length=20_000)
    found = low_frequency_replace(generated, lr, CUTOFF_HZ, RATE, "hard")[0, 0].numpy()
    # At the ends librosa has fewer frames per sample.
    assert np.abs(found - expected)[2048:-2048].max() < 1e-6


@pytest.mark.parametrize("mode", ["soft", "hard"])
@pytest.mark.parametrize("length", [1, 2, 100, 1500])
def test_short_audio_keeps_its_length_and_its_value_when_equal(mode, length):
    audio = _noise("short", (1, 2, length))
    out = low_frequency_replace(audio, audio, CUTOFF_HZ, RATE, mode)
    assert torch.allclose(out, audio, atol=1e-6)


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_cutoff_at_the_ends_of_the_spectrum_picks_one_signal(mode):
    lr, generated = _noise("lr"), _noise("generated")
    assert torch.allclose(low_frequency_replace(generated, lr, 0.0, RATE, mode), generated)
    above = low_frequency_replace(generated, lr, RATE / 2 + 1.0, RATE, mode)
    assert torch.allclose(above, lr, atol=1e-5)


def test_misfit_shapes_and_unknown_modes_are_refused():
    audio = torch.zeros(1, 1, 64)
    with pytest.raises(ValueError, match="shapes differ"):
        low_frequency_replace(audio, audio[..., 1:], CUTOFF_HZ, RATE)
    with pytest.raises(ValueError, match="soft, hard"):
        low_frequency_replace(audio, audio, CUTOFF_HZ, RATE, "medium")


def test_off_is_the_generated_audio_itself() -> None:
    generated, lr_audio = torch.randn(2, 1, 2, 4096, generator=torch_generator("off"))
    found = low_frequency_replace(generated, lr_audio, 4000.0, RATE, "off")
    assert torch.equal(found, generated)
    with pytest.raises(ValueError, match="allowed: soft, hard, off"):
        low_frequency_replace(generated, lr_audio, 4000.0, RATE, "none")  # type: ignore[arg-type]
