"""The low-pass: the same filter as scipy's forward-backward one, and drawn as the paper says."""

import numpy as np
import pytest
import torch
from scipy import signal

from saga_sr.lowpass import (
    FAMILIES,
    Lowpass,
    LowpassOptions,
    apply_lowpass,
    draw_lowpass,
    field_lowpass,
)
from saga_sr.support.errors import UserError

RATE = 44100


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _scipy_filtfilt(audio: np.ndarray, lowpass: Lowpass, padlen: int | None = None) -> np.ndarray:
    extra = {"cheby1": {"rp": 0.1}, "ellip": {"rp": 0.1, "rs": 60.0}, "butter": {}}
    if lowpass.family == "bessel":
        sections = signal.bessel(
            lowpass.order, lowpass.cutoff_hz, norm="mag", output="sos", fs=RATE
        )
    else:
        sections = signal.iirfilter(
            lowpass.order,
            lowpass.cutoff_hz,
            btype="low",
            ftype=lowpass.family,
            output="sos",
            fs=RATE,
            **extra[lowpass.family],
        )
    return signal.sosfiltfilt(sections, audio, axis=-1, padlen=padlen)


def _error_db(estimate: np.ndarray, reference: np.ndarray) -> float:
    return float(10 * np.log10(np.sum((estimate - reference) ** 2) / np.sum(reference**2) + 1e-20))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("order", range(2, 11))
def test_apply_lowpass_every_family_and_order_agrees_with_sosfiltfilt(
    family: str, order: int
) -> None:
    audio = _noise(2, 20000)
    for cutoff_hz in (2000.0, 7123.4, 16000.0):
        lowpass = Lowpass(family, order, cutoff_hz)  # type: ignore[arg-type]
        reference = _scipy_filtfilt(audio.double().numpy(), lowpass, padlen=8000)
        assert _error_db(apply_lowpass(audio, RATE, lowpass).numpy(), reference) < -90


def test_apply_lowpass_default_scipy_padding_agrees_away_from_the_ends() -> None:
    audio, lowpass = _noise(1, 60000), Lowpass("ellip", 10, 2000.0)
    reference = _scipy_filtfilt(audio.double().numpy(), lowpass)
    filtered = apply_lowpass(audio, RATE, lowpass).numpy()
    assert _error_db(filtered[:, 6000:-6000], reference[:, 6000:-6000]) < -60


def test_apply_lowpass_batch_of_filters_equals_one_by_one() -> None:
    audio = _noise(4, 2, 9000)
    lowpasses = [Lowpass(family, 3 + i, 2500.0 * (i + 1)) for i, family in enumerate(FAMILIES)]
    batched = apply_lowpass(audio, RATE, lowpasses)
    for item, lowpass in enumerate(lowpasses):
        alone = apply_lowpass(audio[item], RATE, lowpass)
        assert _error_db(batched[item].numpy(), alone.numpy()) < -90


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_apply_lowpass_on_a_gpu_equals_the_cpu() -> None:
    audio = _noise(len(FAMILIES), 2, 100_000)
    lowpasses = [Lowpass(family, 10, 2000.0 + 3000 * i) for i, family in enumerate(FAMILIES)]
    on_cpu = apply_lowpass(audio, RATE, lowpasses).numpy()
    assert _error_db(apply_lowpass(audio.cuda(), RATE, lowpasses).cpu().numpy(), on_cpu) < -60


def test_apply_lowpass_channels_are_treated_alike() -> None:
    mono = _noise(1, 5000)
    filtered = apply_lowpass(mono.expand(2, -1), RATE, field_lowpass(4000.0))
    assert torch.equal(filtered[0], filtered[1])


@pytest.mark.parametrize("length", [1, 2, 100, 3000])
def test_apply_lowpass_clip_shorter_than_ringing_keeps_a_constant(length: int) -> None:
    audio = torch.full((1, length), 0.5)
    filtered = apply_lowpass(audio, RATE, Lowpass("butter", 10, 2000.0))
    torch.testing.assert_close(filtered, audio, atol=1e-5, rtol=0)


def test_apply_lowpass_silence_and_empty_stay_as_they_are() -> None:
    assert not apply_lowpass(torch.zeros(2, 500), RATE, field_lowpass(4000.0)).any()
    assert apply_lowpass(torch.zeros(2, 0), RATE, field_lowpass(4000.0)).shape == (2, 0)


def test_apply_lowpass_impulse_has_no_delay() -> None:
    impulse = torch.zeros(1, 4001)
    impulse[0, 2000] = 1.0
    filtered = apply_lowpass(impulse, RATE, Lowpass("cheby1", 8, 4000.0))
    torch.testing.assert_close(filtered, filtered.flip(-1), atol=1e-5, rtol=0)
    assert filtered.argmax() == 2000


@pytest.mark.parametrize("resample", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_passband_tone_there_is_half_a_decibel_down(family: str, resample: bool) -> None:
    lowpass = Lowpass(family, 6, 5000.0, resample=resample)  # type: ignore[arg-type]
    edge_hz = lowpass.passband_hz(RATE)
    time_s = torch.arange(RATE, dtype=torch.float64) / RATE
    tone = torch.sin(2 * torch.pi * edge_hz * time_s)[None]
    inner = slice(RATE // 4, -RATE // 4)
    filtered = apply_lowpass(tone, RATE, lowpass)
    power_ratio = filtered[:, inner].square().mean() / tone[:, inner].square().mean()
    assert 10 * float(power_ratio.log10()) == pytest.approx(-0.5, abs=0.02)
    below = np.linspace(0, 0.999 * edge_hz, 500)
    assert (lowpass.gain(below, RATE) > 10 ** (-0.5 / 20)).all()


def test_apply_lowpass_resampling_removes_what_a_gentle_filter_leaves() -> None:
    audio = _noise(1, 30000)
    plain = apply_lowpass(audio, RATE, Lowpass("butter", 2, 4000.0))
    resampled = apply_lowpass(audio, RATE, Lowpass("butter", 2, 4000.0, resample=True))
    assert resampled.shape == audio.shape

    def energy_above_6_khz(signal_: torch.Tensor) -> float:
        spectrum = torch.fft.rfft(signal_[0] * torch.hann_window(30000)).abs().square()
        return float(spectrum[int(6000 / RATE * 30000) :].sum())

    assert energy_above_6_khz(resampled) < 1e-3 * energy_above_6_khz(plain)


def test_draw_lowpass_dull_clip_has_its_cutoff_below_its_rolloff() -> None:
    draws = [
        draw_lowpass(np.random.default_rng(seed), 5000.0, LowpassOptions()) for seed in range(200)
    ]
    assert max(one.cutoff_hz for one in draws) == pytest.approx(0.94 * 5000)
    silent = draw_lowpass(np.random.default_rng(0), 0.0, LowpassOptions())
    assert silent.cutoff_hz == 2000.0


def test_draw_lowpass_bright_clips_cover_the_papers_ranges() -> None:
    rng = np.random.default_rng(1)
    draws = [draw_lowpass(rng, 22050.0, LowpassOptions()) for _ in range(3000)]
    cutoffs = np.array([one.cutoff_hz for one in draws])
    assert {one.family for one in draws} == set(FAMILIES)
    assert {one.order for one in draws} == set(range(2, 11))
    assert cutoffs.min() >= 2000
    assert cutoffs.max() <= 16000
    assert cutoffs.mean() == pytest.approx(9000, abs=300)
    assert np.std(cutoffs) == pytest.approx(14000 / np.sqrt(12), rel=0.05)


def test_draw_lowpass_same_key_gives_the_same_filter() -> None:
    first, second = (
        draw_lowpass(np.random.default_rng(7), 20000.0, LowpassOptions()) for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("cutoff_hz", [0.0, -5.0, 22050.0, 30000.0])
def test_apply_lowpass_impossible_cutoff_is_named(cutoff_hz: float) -> None:
    with pytest.raises(UserError, match="cutoff"):
        apply_lowpass(torch.zeros(1, 100), RATE, field_lowpass(cutoff_hz))


@pytest.mark.parametrize(
    "wrong",
    [
        {"families": ("cheby2",)},
        {"families": ()},
        {"min_order": 0},
        {"min_order": 9, "max_order": 3},
        {"min_cutoff_hz": 8000.0, "max_cutoff_hz": 4000.0},
    ],
)
def test_lowpass_options_impossible_range_is_named(wrong: dict) -> None:
    with pytest.raises(UserError, match="low-pass"):
        LowpassOptions(**wrong)
