import numpy as np
import pytest
import torch
from scipy import signal

from saga_sr.audio.band_end import Band, band_end_hz, band_of, spectrum_end_hz
from saga_sr.audio.bandwidth import Bandwidth, measure_bandwidth
from saga_sr.audio.streams import ArraySource
from saga_sr.lowpass import Lowpass, apply_lowpass
from saga_sr.rolloff import spectral_rolloff
from saga_sr.support.randomness import torch_generator

RATE = 44100


def _noise(channels: int, seconds: float, slope: float = 0.0) -> torch.Tensor:
    """Noise [C, T] whose level falls by ``slope`` dB per octave above 500 Hz."""
    white = torch.randn(channels, round(seconds * RATE), generator=torch_generator("bandwidth"))
    spectrum = torch.fft.rfft(white.double())
    octaves = torch.fft.rfftfreq(white.shape[-1], 1 / RATE).clamp(min=500).div(500).log2()
    shaped = torch.fft.irfft(spectrum * 10 ** (-slope * octaves / 20), white.shape[-1])
    return (0.1 * shaped).float()


def _design(family: str, cutoff_hz: float) -> np.ndarray:
    if family == "cheby1":
        return signal.cheby1(8, 0.05, cutoff_hz, fs=RATE, output="sos")
    name, order = family.split("-")
    if name == "bessel":
        return signal.bessel(int(order), cutoff_hz, norm="mag", fs=RATE, output="sos")
    return signal.butter(int(order), cutoff_hz, fs=RATE, output="sos")


def _filtered(audio: torch.Tensor, family: str, cutoff_hz: float) -> torch.Tensor:
    """Through a low-pass, forwards and backwards; then rounded to 16 bits."""
    filtered = signal.sosfiltfilt(_design(family, cutoff_hz), audio.double().numpy())
    return torch.from_numpy(np.round(filtered * 32768) / 32768).float()


def _attenuation_db(family: str, cutoff_hz: float, at_hz: float) -> float:
    """Of the two passes of `_filtered`."""
    response = signal.sosfreqz(_design(family, cutoff_hz), [at_hz], fs=RATE)[1]
    return -40 * np.log10(np.abs(response[0]) + 1e-10)


@pytest.mark.parametrize("family", ["butter-4", "butter-6", "bessel-4", "bessel-8"])
@pytest.mark.parametrize("hiss", [0.0, 2e-5])
def test_band_end_hz_behind_a_gentle_filter_is_where_it_begins_to_take_away(family, hiss):
    """Neither deep inside of the passband nor where only remains are left."""
    audio = _filtered(_noise(1, 2.0, slope=4), family, 3000.0)
    audio = audio + hiss * torch.randn(audio.shape, generator=torch_generator("hiss"))
    assert 0.5 < _attenuation_db(family, 3000.0, band_end_hz(audio, RATE)) < 18
    # What it improves on: where the spectrum ends, the filter has left nothing.
    assert _attenuation_db(family, 3000.0, spectrum_end_hz(audio, RATE)) > 35


# The gentle ones' -0.5 dB lie up to two octaves below their -6 dB, or look like no filter at all.
GENTLE = [("butter", 2), ("bessel", 4), ("bessel", 8)]
STEEP = [(family, order) for family in ("cheby1", "ellip", "butter") for order in (4, 6, 8, 10)]


@pytest.mark.parametrize("cutoff_hz", [2500.0, 4000.0, 8000.0])
@pytest.mark.parametrize(("family", "order"), STEEP + GENTLE)
def test_passband_of_an_input_is_what_training_calls_the_passband_of_its_filter(
    family, order, cutoff_hz
):
    """A model of patches is told the one in training and the other by `saga_sr.upsample`."""
    lowpass = Lowpass(family, order, cutoff_hz)
    audio = apply_lowpass(_noise(1, 2.0, slope=5), RATE, lowpass)
    band = band_of(torch.round(audio * 32_768) / 32_768, RATE)
    lost_db = -20 * np.log10(lowpass.gain(band.passband_hz, RATE))
    lost_at_end_db = -20 * np.log10(lowpass.gain(band.end_hz, RATE))
    assert lost_db < lost_at_end_db + 0.1  # ripple
    if (family, order) in STEEP:
        assert lost_db < 3
        assert band.passband_hz > 0.8 * lowpass.passband_hz(RATE)


def test_passband_of_what_no_filter_ends_is_its_band():
    for audio in (_noise(1, 2.0, slope=6), _noise(2, 1.0)):
        band = band_of(audio, RATE)
        assert band.passband_hz == band.end_hz
        assert measure_bandwidth(ArraySource(audio, RATE), RATE).track.passbands_hz == (RATE / 2,)
    assert band_of(torch.zeros(1, RATE), RATE) == Band(0.0, 0.0)


def test_passband_of_a_recording_is_that_of_its_pieces():
    lowpass = Lowpass("butter", 4, 4000.0)
    audio = apply_lowpass(_noise(1, 12.0, slope=5), RATE, lowpass)
    measured = measure_bandwidth(ArraySource(audio, RATE), RATE)
    (passband_hz,) = measured.track.passbands_hz
    assert passband_hz == pytest.approx(lowpass.passband_hz(RATE), rel=0.2)
    assert passband_hz < 0.9 * measured.end_hz


@pytest.mark.parametrize("slope", [0, 6, 12, 20])
def test_band_end_hz_takes_no_steady_slope_for_a_filter(slope):
    audio = _noise(1, 2.0, slope)
    assert band_end_hz(audio, RATE) == spectrum_end_hz(audio, RATE)


def test_band_end_hz_of_a_dip_is_above_it():
    """What falls and comes back is content: a notch is no end."""
    sos = signal.butter(6, [3000, 8000], "bandstop", fs=RATE, output="sos")
    audio = torch.from_numpy(signal.sosfiltfilt(sos, _noise(1, 3.0).numpy()).copy())
    assert band_end_hz(audio, RATE) == spectrum_end_hz(audio, RATE) > 21_000


@pytest.mark.parametrize("seconds", [0.01, 0.05, 0.3])
def test_band_end_hz_of_a_very_short_clip_is_within_its_spectrum(seconds):
    audio = _filtered(_noise(1, 1.0), "cheby1", 4000.0)[:, : round(seconds * RATE)]
    assert 0 < band_end_hz(audio, RATE) <= spectrum_end_hz(audio, RATE)


@pytest.mark.parametrize("cutoff_hz", [3000.0, 8000.0, 16_000.0])
def test_measure_bandwidth_is_where_the_low_pass_is(cutoff_hz):
    audio = _filtered(_noise(2, 6.0), "cheby1", cutoff_hz)
    measured = measure_bandwidth(ArraySource(audio, RATE), RATE)
    assert measured.end_hz == pytest.approx(cutoff_hz, rel=0.07)
    assert measured.rolloff_hz == pytest.approx(
        spectral_rolloff(audio[None], RATE).item(), rel=0.02
    )
    assert not measured.is_full
    assert not measured.is_silent


def test_bandwidth_of_a_slow_file_ends_at_its_own_nyquist_frequency():
    noise = 0.1 * torch.randn(1, 5 * 8000, generator=torch_generator("8k"))
    assert 3600 < measure_bandwidth(ArraySource(noise, 8000), RATE).end_hz < 4000


def test_bandwidth_follows_the_loud_parts():
    loud = _filtered(_noise(1, 11.0), "cheby1", 6000.0)
    hiss = 1e-3 * torch.randn(1, 20 * RATE, generator=torch_generator("hiss"))
    measured = measure_bandwidth(ArraySource(torch.cat([hiss, loud], 1), RATE), RATE)
    assert measured.end_hz == pytest.approx(6000, rel=0.07)


def test_full_band_and_silence_are_recognised():
    noise = 0.1 * torch.randn(1, 2 * RATE, generator=torch_generator("full"))
    assert measure_bandwidth(ArraySource(noise, RATE), RATE).is_full
    silence = measure_bandwidth(ArraySource(torch.zeros(2, RATE), RATE), RATE)
    assert silence == Bandwidth(0.0, 0.0, RATE / 2)
    assert silence.is_silent
