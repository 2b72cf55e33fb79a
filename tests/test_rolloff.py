"""The spectral roll-off and its embedding."""

import librosa
import numpy as np
import pytest
import torch

from saga_sr.rolloff import (
    N_FFT,
    RolloffFourierConditioner,
    hz_to_unit,
    spectral_rolloff,
    unit_to_hz,
)

RATE = 44100
BIN_HZ = RATE / N_FFT


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tone_hz", [440.0, 5000.0, 15000.0])
def test_rolloff_of_a_pure_tone_is_the_tone(tone_hz: float) -> None:
    time_s = torch.arange(RATE) / RATE
    # A fade keeps the spectrum of the tone's own beginning and end out of the sum.
    tone = torch.sin(2 * torch.pi * tone_hz * time_s) * torch.hann_window(RATE)
    assert abs(float(spectral_rolloff(tone[None, None], RATE)) - tone_hz) < 3 * BIN_HZ


def test_rolloff_agrees_with_librosa_on_the_summed_spectrum() -> None:
    audio = _noise(1, 1, 40_000).cumsum(-1).diff() + torch.linspace(0, 0.1, 39_999)
    spectrum = np.abs(librosa.stft(audio[0, 0].numpy(), n_fft=N_FFT, hop_length=512))
    expected = librosa.feature.spectral_rolloff(
        S=spectrum.sum(axis=1, keepdims=True), sr=RATE, roll_percent=0.985
    )
    assert float(spectral_rolloff(audio, RATE)) == pytest.approx(float(expected[0, 0]), abs=1e-2)


def test_rolloff_of_silence_is_zero_and_of_anything_below_one() -> None:
    click = torch.zeros(1, 2, 5000)
    click[..., 2500] = 1.0
    assert float(spectral_rolloff(torch.zeros(1, 2, 5000), RATE)) == 0
    assert float(hz_to_unit(spectral_rolloff(click, RATE), RATE)) < 1


def test_rolloff_does_not_depend_on_gain_polarity_or_the_batch() -> None:
    audio = _noise(3, 2, 9000)
    together = spectral_rolloff(audio, RATE)
    alone = torch.cat([spectral_rolloff(-0.1 * item[None], RATE) for item in audio])
    assert torch.equal(together, alone)


def test_rolloff_hears_an_antiphase_clip() -> None:
    mono = _noise(1, 1, 9000)
    antiphase = torch.cat([mono, -mono], dim=1)
    assert torch.equal(spectral_rolloff(antiphase, RATE), spectral_rolloff(mono, RATE))


def test_rolloff_of_one_sample_is_defined() -> None:
    assert spectral_rolloff(torch.ones(1, 1, 1), RATE).shape == (1,)


def test_unit_and_hz_are_inverse() -> None:
    hz = torch.tensor([0.0, 4000.0, RATE / 2])
    unit = hz_to_unit(hz, RATE)
    torch.testing.assert_close(unit_to_hz(unit, RATE), hz)
    assert float(unit.max()) == pytest.approx(1024 / 1025)


@pytest.mark.parametrize(("cross", "global_dim"), [(768, 1536), (512, 512)])
def test_conditioner_shapes_are_those_of_the_config(cross: int, global_dim: int) -> None:
    conditioner = RolloffFourierConditioner(cross, global_dim, dropout_rate=0.1)
    token, vector = conditioner(torch.tensor([[0.1, 0.7], [0.2, 0.9], [0.0, 0.0]]))
    assert token.shape == (3, 1, cross)
    assert vector.shape == (3, global_dim)


def test_conditioner_tells_the_two_rolloffs_and_neighbouring_bins_apart() -> None:
    conditioner = RolloffFourierConditioner(16, 16)
    pairs = torch.tensor([[0.2, 0.7], [0.7, 0.2], [0.2, 0.7 + 1 / 1025]])
    features = conditioner.features(pairs)
    assert (features[0] - features[1]).norm() > 1
    assert (features[0] - features[2]).norm() > 0.1


def test_conditioner_never_drops_in_training_mode() -> None:
    conditioner = RolloffFourierConditioner(8, 8, dropout_rate=0.9).train()
    pair = torch.tensor([[0.3, 0.6]])
    assert torch.equal(conditioner(pair)[1], conditioner(pair)[1])
