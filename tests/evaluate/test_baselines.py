"""The baselines do what they say: noise has the asked-for spectrum, copies keep the rhythm."""

import numpy as np
import pytest
import torch
from scipy import signal
from torch import Tensor

from saga_sr.evaluate.baselines import (
    DEFAULT_ENVELOPE,
    NoiseEnvelope,
    fit_envelope,
    shaped_noise,
    spectral_band_replication,
)
from saga_sr.metrics import high_band_error_db
from saga_sr.support.errors import UserError
from saga_sr.support.randomness import torch_generator

RATE = 44100


def pink(seconds: float = 2.0, seed: int = 0, channels: int = 1, slope: float = 1.0) -> Tensor:
    """Noise [1, C, T] whose power falls as 1/f^slope, RMS 0.1."""
    num_samples = round(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal((channels, num_samples)))
    spectrum /= np.maximum(np.fft.rfftfreq(num_samples, 1 / RATE), 20) ** (slope / 2)
    audio = np.fft.irfft(spectrum, num_samples)
    return torch.from_numpy(0.1 * audio / audio.std()).float()[None]


def lowpassed(audio: Tensor, cutoff_hz: float = 4000) -> Tensor:
    sections = signal.cheby1(8, 0.1, cutoff_hz, fs=RATE, output="sos")
    return torch.from_numpy(signal.sosfiltfilt(sections, audio.double().numpy()).copy()).float()


def level_db(audio: Tensor, low_hz: float, high_hz: float) -> float:
    """Mean power per bin of a band by scipy's Welch, in dB."""
    hz, power = signal.welch(audio.numpy(), RATE, nperseg=4096)
    return float(10 * np.log10(power[..., (hz >= low_hz) & (hz < high_hz)].mean()))


# --- spectral band replication


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_sbr_of_noise_continues_its_slope(slope: float) -> None:
    truth = pink(slope=slope)
    restored = spectral_band_replication(lowpassed(truth), 4000, RATE)
    for low, high in ((4500, 6000), (8000, 12000), (15000, 20000)):
        assert level_db(restored, low, high) == pytest.approx(level_db(truth, low, high), abs=3)


def test_sbr_of_a_rising_low_band_does_not_rise_further() -> None:
    truth = pink(slope=-2)
    restored = spectral_band_replication(lowpassed(truth), 4000, RATE)
    assert level_db(restored, 15000, 20000) < level_db(truth, 3400, 4000) + 3


def test_sbr_keeps_the_low_band_and_the_rhythm() -> None:
    gate = (torch.arange(2 * RATE) // (RATE // 4) % 2).float()
    truth = pink() * gate
    low = lowpassed(truth)
    restored = spectral_band_replication(low, 4000, RATE)
    error = lowpassed(restored - low, 3500)
    assert error.square().mean() < 1e-4 * low.square().mean()
    steady_db = high_band_error_db(pink(seed=5), truth, 5000).item()
    assert high_band_error_db(restored, truth, 5000).item() < steady_db / 5


def test_sbr_a_copied_tone_stays_a_tone() -> None:
    # 3000 Hz moves up by half the cutoff to 5000 Hz; a wrong phase would smear it.
    hop_bins = RATE / 2048
    cutoff_hz, tone_hz = 186 * hop_bins, 140 * hop_bins
    tone = 0.1 * torch.sin(2 * torch.pi * tone_hz * torch.arange(2 * RATE) / RATE)
    broad = lowpassed(0.001 * pink())
    restored = spectral_band_replication(broad + tone, cutoff_hz, RATE)
    hz, power = signal.welch(restored[0, 0].numpy(), RATE, nperseg=8192)
    near = (hz > tone_hz + 60 * hop_bins) & (hz < tone_hz + 120 * hop_bins)
    peak = hz[near][power[near].argmax()]
    assert peak == pytest.approx(tone_hz + 93 * hop_bins, abs=6)
    assert power[near].max() > 0.5 * power[near].sum()


def test_sbr_each_item_of_a_batch_is_as_alone() -> None:
    low = lowpassed(torch.cat([pink(seed=1), 0.01 * pink(seed=2, slope=2)]))
    together = spectral_band_replication(low, 4000, RATE)
    alone = [spectral_band_replication(low[i : i + 1], 4000, RATE) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-7, rtol=1e-5)


def test_sbr_silence_stays_silent_and_short_clips_keep_their_length() -> None:
    assert spectral_band_replication(torch.zeros(1, 2, RATE), 4000, RATE).abs().max() == 0
    short = lowpassed(pink(0.01))
    assert spectral_band_replication(short, 4000, RATE).shape == short.shape


# --- shaped noise


def test_noise_of_a_fitted_envelope_has_the_spectrum_of_the_clips() -> None:
    envelope = fit_envelope((pink(seed=seed)[0], RATE) for seed in range(4))
    clip = 0.3 * pink(seed=9, channels=2)
    noise = shaped_noise(lowpassed(clip), envelope, RATE, torch_generator("test"))
    assert noise.shape == clip.shape
    for low, high in ((100, 400), (1000, 2000), (4000, 8000), (12000, 16000)):
        assert level_db(noise, low, high) == pytest.approx(level_db(clip, low, high), abs=1.5)


def test_noise_follows_the_level_of_each_clip() -> None:
    clips = torch.cat([pink(seed=1), 0.01 * pink(seed=1), torch.zeros(1, 1, 2 * RATE)])
    noise = shaped_noise(clips, DEFAULT_ENVELOPE, RATE, torch_generator("test"))
    levels = noise.square().mean(dim=(1, 2)).sqrt()
    assert levels[1] / levels[0] == pytest.approx(0.01, rel=0.05)
    assert levels[2] == 0


def test_noise_is_a_function_of_the_generator_and_differs_between_channels() -> None:
    clip = pink(channels=2)
    first, again, other = (
        shaped_noise(clip, DEFAULT_ENVELOPE, RATE, torch_generator("test", seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert np.corrcoef(first[0].numpy())[0, 1] == pytest.approx(0, abs=0.1)


def test_envelope_a_lossy_clip_says_nothing_above_its_end() -> None:
    full, dull = pink(seed=1)[0], lowpassed(pink(seed=2), 8000)[0]
    of_full = fit_envelope([(full, RATE)])
    of_both = fit_envelope([(full, RATE), (dull, RATE), (dull, RATE)])
    assert of_both.level_db[-1] == of_full.level_db[-1]
    of_dull = fit_envelope([(dull, RATE)])
    assert of_dull.hz[-1] < 8000 < of_full.hz[-1]


def test_envelope_does_not_depend_on_the_rate_or_level_of_a_clip() -> None:
    clip = pink(slope=0.5)[0]
    half_rate = torch.from_numpy(signal.resample_poly(0.01 * clip.numpy(), 1, 2, axis=-1)).float()
    at_rate, at_half = fit_envelope([(clip, RATE)]), fit_envelope([(half_rate, RATE // 2)])
    shared = len([hz for hz in at_half.hz if 100 < hz < 8000])
    np.testing.assert_allclose(
        np.diff(at_half.level_db[3 : 3 + shared]), np.diff(at_rate.level_db[3 : 3 + shared]), atol=1
    )


def test_envelope_of_silence_is_refused() -> None:
    with pytest.raises(UserError, match="not silent"):
        fit_envelope([(torch.zeros(1, RATE), RATE)])


def test_envelope_between_and_beyond_its_points_is_interpolated_and_held() -> None:
    envelope = NoiseEnvelope((100.0, 10000.0), (-20.0, -60.0))
    amplitude = envelope.amplitude(torch.tensor([0.0, 50.0, 100.0, 1000.0, 10000.0, 22050.0]))
    expected = 10 ** (torch.tensor([-20.0, -20, -20, -40, -60, -60]) / 20)
    torch.testing.assert_close(amplitude, expected)
