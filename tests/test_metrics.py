"""The metrics agree with independent packages and hold where those fail: silence, int16, lossy."""

import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
import torchaudio
from scipy import linalg, signal
from torch import Tensor
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

from saga_sr import metrics
from saga_sr.audio.band_end import spectrum_end_hz
from saga_sr.metrics import (
    LSD_DEFINITIONS,
    band_edges_hz,
    frechet_distance,
    high_band_error_db,
    level_in_silence_db,
    lsd,
    multi_resolution_stft,
    offline_embedding,
    seam_step_db,
    si_sdr,
    texture_db,
    texture_floor_db,
)
from saga_sr.support.errors import UserError

RATE = 44100
PAIRED_METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    **{f"lsd {name}": partial(lsd, definition=name) for name in LSD_DEFINITIONS},
    "high_band_error_db": lambda e, r: high_band_error_db(e, r, 4000.0),
    "texture_db": lambda e, r: texture_db(e, r, 4000.0),
    "seam_step_db": lambda e, r: seam_step_db(e, r, 4000.0),
    "si_sdr": si_sdr,
    "multi_resolution_stft": multi_resolution_stft,
}


def noise(seconds: float = 1.0, seed: int = 0, channels: int = 1, slope: float = 1.0) -> Tensor:
    """Noise [1, C, T] whose power falls as 1/f^slope from 100 Hz on (1 is pink), RMS 0.1."""
    num_samples = round(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal((channels, num_samples)))
    spectrum /= np.maximum(np.fft.rfftfreq(num_samples, 1 / RATE), 100) ** (slope / 2)
    spectrum[:, 0] = 0
    audio = np.fft.irfft(spectrum, num_samples)
    return torch.from_numpy(0.1 * audio / audio.std())[None]


def weighted(audio: Tensor, gain: Callable[[Tensor], Tensor]) -> Tensor:
    """The clip with its spectrum multiplied by ``gain(frequency in Hz)``."""
    hz = torch.fft.rfftfreq(audio.shape[-1], 1 / RATE, dtype=torch.float64)
    return torch.fft.irfft(torch.fft.rfft(audio) * gain(hz), n=audio.shape[-1])


def below(audio: Tensor, cutoff_hz: float) -> Tensor:
    return weighted(audio, lambda hz: (hz < cutoff_hz).double())


def lowpassed(audio: Tensor, cutoff_hz: float, order: int = 8) -> Tensor:
    sections = signal.cheby1(order, 0.1, cutoff_hz, fs=RATE, output="sos")
    return torch.from_numpy(signal.sosfiltfilt(sections, audio.numpy()).copy())


def as_int16(audio: Tensor) -> Tensor:
    return (audio * 32768).round() / 32768


# --- all paired metrics


@pytest.mark.parametrize("name", PAIRED_METRICS)
def test_paired_metrics_a_batch_scores_each_clip_as_alone(name: str) -> None:
    metric = PAIRED_METRICS[name]
    ref = torch.cat([noise(seed=1), 0.01 * noise(seed=2, slope=2)])
    est = torch.cat([noise(seed=3), noise(seed=4)])
    alone = torch.cat([metric(est[i : i + 1], ref[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(metric(est, ref), alone)
    assert alone[0] != alone[1]


@pytest.mark.parametrize("name", PAIRED_METRICS)
def test_paired_metrics_under_autocast_stay_float32(name: str) -> None:
    metric = PAIRED_METRICS[name]
    ref, est = noise(seed=1).float(), noise(seed=2).float()
    expected = metric(est, ref)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        measured = metric(est, ref)
    assert measured.dtype == torch.float32
    assert torch.equal(measured, expected)


@pytest.mark.parametrize("name", PAIRED_METRICS)
def test_paired_metrics_different_lengths_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="of one shape"):
        PAIRED_METRICS[name](noise(1.0), noise(0.9))


@pytest.mark.parametrize("name", PAIRED_METRICS)
def test_paired_metrics_equal_clips_are_perfect(name: str) -> None:
    perfect = metrics.SI_SDR_LIMIT_DB if name == "si_sdr" else 0.0
    ref = noise(channels=2)
    assert PAIRED_METRICS[name](ref, ref).item() == pytest.approx(perfect, abs=1e-6)


# --- LSD


@pytest.fixture(scope="module")
def ssr_eval_metrics() -> Iterator[Callable[[int], Any]]:
    """ssr_eval's metric class, past the package's own imports of sox and torchlibrosa."""
    spec = importlib.util.find_spec("ssr_eval")
    if spec is None or importlib.util.find_spec("skimage") is None:
        pytest.skip("ssr-eval or scikit-image is not installed")
    package = types.ModuleType("ssr_eval")
    package.__path__ = list(spec.submodule_search_locations or [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ssr_eval", package)
        yield importlib.import_module("ssr_eval.metrics").AudioMetrics


@pytest.mark.parametrize("rate", [44100, 48000, 16000])
def test_lsd_ssr_eval_agrees_with_the_ssr_eval_package(
    ssr_eval_metrics: Callable[[int], Any], rate: int
) -> None:
    ref = noise(seed=1)
    for est in (noise(seed=2), lowpassed(ref, 4000), as_int16(lowpassed(ref, 4000))):
        theirs = ssr_eval_metrics(rate)
        spectra = [theirs.wav_to_spectrogram(x[0, 0].numpy()) for x in (est, ref)]
        expected = float(theirs.lsd(*spectra))
        assert lsd(est, ref, "ssr_eval", rate).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("definition", "n_fft", "hop", "floor"),
    [("ap_bwe", 2048, 512, 1e-8), ("universr", 1024, 256, 1e-6)],
)
def test_lsd_clamped_definitions_agree_with_scipy(
    definition: str, n_fft: int, hop: int, floor: float
) -> None:
    ref = noise(seed=1)
    est = lowpassed(ref, 4000)
    logs = []
    for audio in (est, ref):
        samples = audio[0, 0].numpy()
        _, _, stft = signal.stft(
            samples, nperseg=n_fft, noverlap=n_fft - hop, boundary="even", padded=False
        )
        power = np.abs(stft * signal.windows.hann(n_fft, sym=False).sum()) ** 2
        logs.append(np.log10(np.maximum(power, floor)))
    expected = np.sqrt(np.square(logs[0] - logs[1]).mean(axis=0)).mean()
    assert lsd(est, ref, definition).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("definition", LSD_DEFINITIONS)
def test_lsd_a_gain_of_6_db_scores_0_6_in_every_definition(definition: str) -> None:
    ref = noise(slope=0)
    gain = 10 ** (6 / 20)
    assert lsd(ref * gain, ref, definition).item() == pytest.approx(0.6, abs=1e-3)


@pytest.mark.parametrize("definition", LSD_DEFINITIONS)
def test_lsd_independent_white_noise_scores_the_theoretical_0_788(definition: str) -> None:
    # log10 of an exponential variable has standard deviation pi / (sqrt(6) ln 10), a difference of
    # two sqrt(2) times that; the mean over frames of a root is a hair below the root of the mean.
    expected = np.pi / (np.sqrt(3) * np.log(10))
    measured = lsd(noise(3.0, 1, slope=0), noise(3.0, 2, slope=0), definition).item()
    assert measured == pytest.approx(expected, abs=0.01)


def test_lsd_saga_is_symmetric_where_ssr_eval_is_not() -> None:
    full, low = noise(), lowpassed(noise(), 4000)
    assert lsd(full, low).item() == pytest.approx(lsd(low, full).item(), rel=1e-9)
    assert lsd(full, low, "ssr_eval").item() != pytest.approx(
        lsd(low, full, "ssr_eval").item(), rel=0.01
    )


def test_lsd_saga_ignores_16_bit_rounding_where_ssr_eval_halves() -> None:
    ref = noise()
    low = lowpassed(ref, 4000)
    assert lsd(as_int16(low), ref).item() == pytest.approx(lsd(low, ref).item(), abs=0.01)
    assert lsd(as_int16(low), ref, "ssr_eval") < 0.7 * lsd(low, ref, "ssr_eval")


def test_lsd_saga_says_nothing_of_a_silent_truth_where_ssr_eval_gives_12() -> None:
    silence = torch.zeros(1, 1, RATE)
    assert lsd(silence, silence).isnan().all()
    assert lsd(noise(), silence.double()).isnan().all()
    assert lsd(silence, silence, "ssr_eval").item() == pytest.approx(12.0, abs=1e-3)


def test_hiss_where_the_truth_is_silent_changes_no_lsd_and_is_measured_by_itself() -> None:
    ref, est = noise(seed=1), noise(seed=2)
    silence, hiss = torch.zeros_like(ref), noise(seed=3, slope=0)
    hiss = hiss * (10 ** (-60 / 20) / hiss.square().mean().sqrt())
    ref, quiet, hissing = (
        torch.cat([one, tail], -1) for one, tail in ((ref, silence), (est, silence), (est, hiss))
    )
    # only the two frames over the end of the sound differ
    assert lsd(hissing, ref).item() == pytest.approx(lsd(quiet, ref).item(), abs=0.02)
    assert level_in_silence_db(quiet, ref).item() == metrics.BAND_FLOOR_DBFS
    assert level_in_silence_db(hissing, ref).item() == pytest.approx(-60, abs=0.2)
    upper_half = level_in_silence_db(hissing, ref, low_hz=RATE / 4).item()
    assert upper_half == pytest.approx(-63, abs=0.2)
    assert level_in_silence_db(hissing, hissing).isnan().all()


def test_lsd_saga_with_silence_appended_to_both_does_not_change() -> None:
    ref, est = noise(seed=1), noise(seed=2)
    silence = torch.zeros(1, 1, 3 * RATE)
    padded = lsd(torch.cat([est, silence], -1), torch.cat([ref, silence], -1))
    # only the two frames over the old end of the clip differ
    assert padded.item() == pytest.approx(lsd(est, ref).item(), abs=0.02)


def test_lsd_saga_measures_channels_apart_and_others_mix_down() -> None:
    left, right = noise(seed=1), noise(seed=2)
    ref, swapped = torch.cat([left, right], 1), torch.cat([right, left], 1)
    assert lsd(swapped, ref).item() > 0.7
    for definition in ("ssr_eval", "ap_bwe", "universr"):
        assert lsd(swapped, ref, definition).item() == pytest.approx(0, abs=1e-6)


def test_lsd_a_mono_clip_doubled_to_stereo_scores_the_same() -> None:
    ref, est = noise(seed=1), noise(seed=2)
    for definition in LSD_DEFINITIONS:
        stereo = lsd(est.repeat(1, 2, 1), ref.repeat(1, 2, 1), definition)
        torch.testing.assert_close(stereo, lsd(est, ref, definition))


def test_lsd_band_limits_split_an_error_that_lies_above_the_cutoff() -> None:
    ref = noise()
    est = lowpassed(ref, 4000)
    assert lsd(est, ref, high_hz=3800).item() < 0.05
    high = lsd(est, ref, low_hz=4500).item()
    full = lsd(est, ref).item()
    assert high > full > 0.5 * high
    # The full band is the two sides in quadrature, weighted by their bins; frames are alike here.
    low_bins = np.floor(4000 / (RATE / 2048)) + 1
    sides = (lsd(est, ref, high_hz=4000).item(), lsd(est, ref, low_hz=4000.001).item())
    quadrature = np.sqrt((sides[0] ** 2 * low_bins + sides[1] ** 2 * (1025 - low_bins)) / 1025)
    assert full == pytest.approx(quadrature, rel=0.005)


def test_lsd_band_limits_per_item_equal_those_of_each_clip_alone() -> None:
    ref, est = noise(seed=1), noise(seed=2)
    limits = torch.tensor([4000.0, 12000.0])
    both = lsd(est.repeat(2, 1, 1), ref.repeat(2, 1, 1), low_hz=limits, high_hz=limits + 2000)
    alone = [lsd(est, ref, low_hz=hz, high_hz=hz + 2000) for hz in (4000.0, 12000.0)]
    torch.testing.assert_close(both, torch.cat(alone))


def test_lsd_a_limit_that_is_a_bin_includes_it_in_every_precision() -> None:
    # Around bin 474 an error in that bin alone: it must count for both sides, rounded or not.
    ref = noise(slope=0)
    width = RATE / 2048
    est = weighted(ref, lambda hz: torch.where((hz / width - 474).abs() < 0.5, 2.0, 1.0))
    for hz in (474 * width, float(np.float32(474 * width)), 474 * (RATE / 2) / 1024):
        for pair in ((est, ref), (est.float(), ref.float())):
            for other in (-1, 1):
                limits = sorted((hz, hz + other * 0.9 * width))
                assert lsd(*pair, low_hz=limits[0], high_hz=limits[1]).item() > 0.3


def test_lsd_a_band_without_bins_is_refused() -> None:
    with pytest.raises(ValueError, match="no frequency bin lies between 5000 and 4000 Hz"):
        lsd(noise(), noise(), low_hz=5000, high_hz=4000)


def test_lsd_unknown_definition_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="'lsd2'; known: saga, ssr_eval"):
        lsd(noise(), noise(), "lsd2")


# --- bands


def test_band_edges_are_third_octaves_and_end_at_the_top() -> None:
    edges = band_edges_hz(4000, 22050)
    ratios = np.divide(edges[1:], edges[:-1])
    assert edges[0] == 4000
    assert edges[-1] == 22050
    np.testing.assert_allclose(ratios[:-1], 2 ** (1 / 3))
    assert 2 ** (1 / 6) <= ratios[-1] <= 2 ** (1 / 2)


@pytest.mark.parametrize("top_hz", [4001, 4400, 4800, 8000, 22050])
def test_band_edges_any_top_gives_bands_of_a_sixth_to_half_an_octave_or_one(top_hz: float) -> None:
    edges = band_edges_hz(4000, top_hz)
    ratios = np.divide(edges[1:], edges[:-1])
    assert len(ratios) == 1 or (ratios >= 2 ** (1 / 6) - 1e-9).all()
    assert (ratios <= 2 ** (1 / 2) + 1e-9).all()


def test_band_power_of_white_noise_is_the_share_of_its_mean_square() -> None:
    audio = noise(3.0, slope=0)
    measured = metrics._band_power(audio, [[4000.0, 8000.0, 16000.0]], RATE).mean(dim=(0, 1, 3))
    expected = 0.1**2 * torch.tensor([4000.0, 8000.0]) / (RATE / 2)
    torch.testing.assert_close(measured.float(), expected, rtol=0.03, atol=0)


def test_high_band_error_of_a_level_error_is_that_many_decibels() -> None:
    ref = noise(channels=2)
    low = lowpassed(ref, 4000)
    est = low + (ref - low) * 10 ** (-6 / 20)
    # from 5 kHz on, clear of the filter's transition
    assert high_band_error_db(est, ref, 5000).item() == pytest.approx(6, abs=0.2)


def test_high_band_error_is_blind_below_the_cutoff_and_above_the_top() -> None:
    ref = noise()
    middle = below(ref, 14000) - below(ref, 4000)
    for est, lowest, highest in ((ref - middle, 50, 80), (middle, 0, 0.1)):
        assert lowest <= high_band_error_db(est, ref, 6000, end_hz=12000).item() <= highest


def test_high_band_error_of_a_lowpassed_clip_hardly_sees_16_bit_rounding() -> None:
    ref = noise()
    low = lowpassed(ref, 4000)
    float_error = high_band_error_db(low, ref, 4000).item()
    assert float_error > 35
    assert high_band_error_db(as_int16(low), ref, 4000).item() == pytest.approx(float_error, abs=1)


def test_high_band_error_sees_when_energy_appears_where_its_average_is_right() -> None:
    # Gated noise against steady noise of the same long-term spectrum.
    gate = (torch.arange(4 * RATE) // (RATE // 4) % 2).double() * 2**0.5
    ref = noise(4.0, 1) * gate
    same_gate, steady = noise(4.0, 2) * gate, noise(4.0, 2)
    assert high_band_error_db(same_gate, ref, 4000) < 2
    assert high_band_error_db(steady, ref, 4000) > 10 * high_band_error_db(same_gate, ref, 4000)


def test_high_band_error_cutoffs_and_tops_per_item_equal_each_clip_alone() -> None:
    ref, est = noise(seed=1), noise(seed=2, slope=2)
    cutoffs, tops = torch.tensor([4000.0, 12000.0]), torch.tensor([22050.0, 16000.0])
    both = high_band_error_db(est.repeat(2, 1, 1), ref.repeat(2, 1, 1), cutoffs, RATE, tops)
    alone = [
        high_band_error_db(est, ref, low.item(), RATE, top.item())
        for low, top in zip(cutoffs, tops, strict=True)
    ]
    torch.testing.assert_close(both, torch.cat(alone))


def test_high_band_error_cutoff_above_the_top_is_refused() -> None:
    with pytest.raises(ValueError, match="no band lies between 16000 and 15000 Hz"):
        high_band_error_db(noise(), noise(), 16000, end_hz=15000)


def test_silence_against_silence_is_perfect_in_the_band_metrics() -> None:
    silence = torch.zeros(1, 2, RATE)
    assert high_band_error_db(silence, silence, 4000).item() == 0
    assert seam_step_db(silence, silence, 4000).item() == 0
    assert multi_resolution_stft(silence, silence).item() == 0


@pytest.mark.parametrize("step_db", [-12.0, 6.0])
def test_seam_step_is_the_level_error_just_above_the_cutoff(step_db: float) -> None:
    ref = noise(2.0)
    est = weighted(ref, lambda hz: torch.where(hz >= 4000, 10 ** (step_db / 20), 1.0))
    # the analysis window smears the edge over two bins, which fills a hole a little
    assert seam_step_db(est, ref, 4000.0).item() == pytest.approx(step_db, abs=1.0)
    assert seam_step_db(est, ref, 8000.0).item() == pytest.approx(0, abs=0.1)


# --- waveform distances


@pytest.mark.parametrize("zero_mean", [False, True])
def test_si_sdr_agrees_with_torchmetrics(zero_mean: bool) -> None:
    ref = noise(seed=1, channels=2) + 0.05
    est = 0.7 * ref + 0.3 * noise(seed=2, channels=2) - 0.02
    theirs = scale_invariant_signal_distortion_ratio
    mono = [
        theirs(est[:, channel], ref[:, channel], zero_mean=zero_mean).item() for channel in (0, 1)
    ]
    ours = [
        si_sdr(est[:, c : c + 1], ref[:, c : c + 1], zero_mean=zero_mean).item() for c in (0, 1)
    ]
    assert ours == pytest.approx(mono, abs=1e-4)
    if not zero_mean:  # one gain for both channels = the channels played one after the other
        joint = theirs(est.flatten(1), ref.flatten(1)).item()
        assert si_sdr(est, ref).item() == pytest.approx(joint, abs=1e-4)


def test_si_sdr_mono_agrees_with_auraloss() -> None:
    auraloss = pytest.importorskip("auraloss")
    ref, est = noise(seed=1), noise(seed=1) + 0.2 * noise(seed=2)
    theirs = -auraloss.time.SISDRLoss(zero_mean=False)(est, ref).item()
    assert si_sdr(est, ref).item() == pytest.approx(theirs, abs=1e-3)


def test_si_sdr_low_band_is_high_where_only_the_high_band_is_wrong() -> None:
    ref, other = noise(slope=0), noise(seed=2, slope=0)
    est = below(ref, 4000) + other - below(other, 4000)
    assert si_sdr(est, ref).item() < 0
    assert si_sdr(est, ref, high_hz=3000).item() > 40
    assert si_sdr(est, ref, low_hz=6000).item() < -20


def test_si_sdr_silent_truth_is_nan_and_silent_estimate_the_lower_limit() -> None:
    silence = torch.zeros(1, 1, RATE)
    both = si_sdr(torch.cat([noise(), silence.double()]), torch.cat([silence.double(), noise()]))
    assert both[0].isnan()
    assert both[1] == -metrics.SI_SDR_LIMIT_DB


def test_multi_resolution_stft_agrees_with_auraloss() -> None:
    auraloss = pytest.importorskip("auraloss")
    ref, est = noise(seed=1, channels=2).float(), noise(seed=2, channels=2, slope=1.2).float()
    theirs = auraloss.freq.MultiResolutionSTFTLoss()(est, ref).item()
    assert multi_resolution_stft(est, ref).item() == pytest.approx(theirs, abs=1e-3)


# --- Frechet distance


def test_frechet_distance_agrees_with_scipy_and_torchaudio() -> None:
    rng = np.random.default_rng(0)
    est = torch.from_numpy(rng.standard_normal((200, 8)) @ rng.standard_normal((8, 8)) + 1)
    ref = torch.from_numpy(rng.standard_normal((300, 8)))
    means, covs = [x.mean(0) for x in (est, ref)], [x.T.cov() for x in (est, ref)]
    root = linalg.sqrtm(covs[0].numpy() @ covs[1].numpy()).real
    by_scipy = float((means[0] - means[1]).square().sum() + (covs[0] + covs[1]).trace())
    by_scipy -= 2 * np.trace(root)
    by_torchaudio = torchaudio.functional.frechet_distance(means[0], covs[0], means[1], covs[1])
    assert frechet_distance(est, ref) == pytest.approx(by_scipy, rel=1e-6)
    assert frechet_distance(est, ref) == pytest.approx(float(by_torchaudio), rel=1e-6)


def test_frechet_distance_not_more_frames_than_dimensions_is_refused() -> None:
    with pytest.raises(UserError, match="the truth has 8 frames of 8 dimensions"):
        frechet_distance(torch.randn(9, 8), torch.randn(8, 8))


def test_offline_embedding_distance_rises_with_the_bandwidth_that_is_missing() -> None:
    ref = torch.cat([noise(12.0, seed, slope=1.0) for seed in range(2)], dim=1)[0]
    other = noise(12.0, 5)[0]
    embedded = offline_embedding(ref)
    assert embedded.shape[1] == 32
    distances = [
        frechet_distance(offline_embedding(audio), embedded)
        for audio in (other, lowpassed(other, 12000), lowpassed(other, 4000))
    ]
    assert distances == sorted(distances)
    assert distances[1] > 2 * distances[0]


def test_offline_embedding_of_a_short_clip_is_one_frame() -> None:
    assert offline_embedding(noise(0.1)[0]).shape == (1, 32)


# --- spectrum end


@pytest.mark.parametrize("level", [1.0, 1e-3])
@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("cutoff_hz", [4000, 8000, 12000, 16000])
def test_spectrum_end_of_a_lowpassed_clip_is_its_minus_6_db_point(
    cutoff_hz: float, slope: float, level: float
) -> None:
    clip = level * lowpassed(noise(slope=slope), cutoff_hz)[0]
    sections = signal.cheby1(8, 0.1, cutoff_hz, fs=RATE, output="sos")
    hz, gain = signal.freqz_sos(sections, 2**14, fs=RATE)
    minus_6_db_hz = hz[np.flatnonzero(np.abs(gain) ** 2 > 0.5)[-1]]
    assert spectrum_end_hz(clip, RATE) == pytest.approx(minus_6_db_hz, rel=0.025)


@pytest.mark.parametrize("seconds", [0.05, 0.3, 3.0])
@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0, 3.0])
def test_spectrum_end_of_full_band_audio_is_nyquist(slope: float, seconds: float) -> None:
    for seed in range(5):
        assert spectrum_end_hz(noise(seconds, seed, slope=slope)[0], RATE) > 21900


def test_spectrum_end_quiet_high_frequencies_reached_by_a_slope_are_content() -> None:
    # falls by 50 dB from 4 to 8 kHz, then goes on level
    def gain(hz: Tensor) -> Tensor:
        return 10 ** (-50 / 20 * (hz.clamp(4000, 8000) / 4000).log2())

    assert spectrum_end_hz(weighted(noise(2.0, slope=0), gain)[0], RATE) > 21900


def test_spectrum_end_of_a_brickwalled_clip_with_a_noise_floor_is_the_wall() -> None:
    # What an MP3 decoder leaves: nothing above 16 kHz but dither, and a pilot tone at 19 kHz.
    tone = 0.003 * torch.sin(2 * torch.pi * 19000 * torch.arange(2 * RATE) / RATE)
    clip = below(noise(2.0), 16000) + 1e-5 * noise(2.0, 1, slope=0) + tone
    assert spectrum_end_hz(clip[0], RATE) == pytest.approx(16000, rel=0.01)
    assert spectrum_end_hz(as_int16(clip)[0], RATE) == pytest.approx(16000, rel=0.01)


def test_spectrum_end_of_a_real_mp3_is_below_that_of_its_source(tmp_path: Path) -> None:
    audio = noise(2.0)[0].T.numpy()
    path = tmp_path / "lossy.mp3"
    soundfile.write(path, audio, RATE, compression_level=0.5)
    decoded, _ = soundfile.read(path, always_2d=True)
    assert 15000 < spectrum_end_hz(torch.from_numpy(decoded.T.copy()), RATE) < 18000


@pytest.mark.parametrize("low_rate", [8000, 16000, 32000])
def test_spectrum_end_of_an_upsampled_file_is_near_its_old_nyquist(low_rate: int) -> None:
    audio = noise(2.0)[0, 0].numpy()
    upsampled = soxr.resample(soxr.resample(audio, RATE, low_rate), low_rate, RATE)
    end_hz = spectrum_end_hz(torch.from_numpy(upsampled), RATE)
    assert 0.9 * low_rate / 2 < end_hz < low_rate / 2


@pytest.mark.parametrize("rate", [500, 2200, 2600, 8000, 48000, 96000])
def test_spectrum_end_of_full_band_audio_at_other_rates_is_their_nyquist(rate: int) -> None:
    assert spectrum_end_hz(noise(2.0, slope=0)[0], rate) == pytest.approx(rate / 2)


def test_spectrum_end_of_a_fading_clip_is_where_rounding_noise_takes_over() -> None:
    # Butterworth of order 4, twice: 48 dB per octave and no cliff.
    sections = signal.butter(4, 4000, fs=RATE, output="sos")
    fading = torch.from_numpy(signal.sosfiltfilt(sections, noise(2.0).numpy()).copy())
    ends = [spectrum_end_hz(audio[0], RATE) for audio in (fading, as_int16(fading))]
    assert 6000 < ends[0] < 12000
    assert ends[1] == pytest.approx(ends[0], rel=0.05)


def test_spectrum_end_of_a_tone_is_just_above_it() -> None:
    tone = 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(RATE) / RATE)
    assert 1000 <= spectrum_end_hz(tone, RATE) < 1200


@pytest.mark.parametrize(
    "silent", [torch.zeros(2, RATE), torch.full((1, RATE), 0.5), torch.zeros(1, 0)]
)
def test_spectrum_end_of_silence_is_zero(silent: Tensor) -> None:
    assert spectrum_end_hz(silent, RATE) == 0.0


# --- texture


def test_texture_tells_what_a_band_is_made_of_and_not_how_loud_it_is() -> None:
    truth, other = noise(2.0, 1), noise(2.0, 2)
    time_s = torch.arange(truth.shape[-1]) / RATE
    tones = sum(torch.sin(2 * np.pi * hz * time_s) for hz in range(4500, 20000, 1500))[None, None]
    pulsed = other * (time_s * 8 % 1 < 0.5)
    floor_db = texture_floor_db(truth, 4000.0).item()
    other_db = texture_db(other, truth, 4000.0).item()
    assert other_db < 2 * floor_db < 1
    assert texture_db(0.1 * other, truth, 4000.0).item() == pytest.approx(other_db, rel=0.01)
    for another in (0.02 * tones, pulsed, lowpassed(truth, 4000)):
        assert texture_db(another, truth, 4000.0).item() > 5 * max(other_db, floor_db)


def test_texture_of_what_is_too_short_says_nothing() -> None:
    short = noise(0.002)
    assert texture_db(short, short, 4000.0).isnan().all()
    assert texture_floor_db(noise(0.05), 4000.0).isnan().all()


@pytest.mark.parametrize("samples", [slice(5000, 5001), slice(None)], ids=["one", "all"])
@pytest.mark.parametrize("name", PAIRED_METRICS)
def test_paired_metrics_of_what_is_no_number_are_nan(name: str, samples: slice) -> None:
    est, ref = noise(), noise(seed=1)
    broken = torch.cat([est, est])
    broken[1, 0, samples] = torch.nan
    values = PAIRED_METRICS[name](broken, torch.cat([ref, ref]))
    assert values.isfinite().tolist() == [True, False]
