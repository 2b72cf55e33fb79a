from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy import signal
from tiny_models import built, tiny_levels
from tiny_restorer import HOP, RATE, SEGMENT, tiny_model
from tiny_text_models import build_tiny_t5

from saga_sr.audio.bandwidth import BandTrack
from saga_sr.audio.streams import ArraySource
from saga_sr.config import SamplingSection
from saga_sr.lowfreq import low_frequency_replace
from saga_sr.restore import restore
from saga_sr.support.randomness import torch_generator
from saga_sr.upsample.longform import (
    Layout,
    Settings,
    _window_conditions,
    audible,
    restore_stream,
)
from saga_sr.upsample.windows import WindowGrid, position_noise

SAMPLING = SamplingSection(num_steps=3, guidance_acoustic=1.4, guidance_text=1.2)
BAND = BandTrack.constant(4000.0)
SETTINGS = Settings(SAMPLING, BAND, limit_input=False, target_rolloff_hz=12_000.0)


def _low_passed(
    channels: int, frames: int, cutoff_hz: float = 4000.0, name: str = ""
) -> torch.Tensor:
    noise = 0.1 * torch.randn(channels, frames, generator=torch_generator("longform", name))
    sos = signal.cheby1(8, 0.05, cutoff_hz, fs=RATE, output="sos")
    padding = min(1000, frames - 1)
    filtered = signal.sosfiltfilt(sos, noise.double().numpy(), padlen=padding)
    return torch.from_numpy(filtered.copy()).float()


def _restored(audio: torch.Tensor, settings: Settings = SETTINGS, *, model=None, rate=RATE):
    pieces = restore_stream(model or tiny_model(), ArraySource(audio, rate), settings)
    return torch.cat(list(pieces), dim=-1)


def _difference_db(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Peak difference in dB of full scale."""
    return 20 * np.log10((found - expected).abs().max().item() + 1e-12)


# ---------------------------------------------------------------------------- restoration
def test_one_segment_equals_the_plain_restoration_of_a_clip():
    model, audio = tiny_model(), _low_passed(1, SEGMENT)
    noise = position_noise(model.config.latent_dim, 0, SEGMENT // HOP, SETTINGS.seed)
    target = torch.tensor([SETTINGS.target_rolloff_hz])
    cond = model.condition(audio[None], None, target, torch.tensor([4000.0]))
    clip = restore(model, cond, noise[None], SAMPLING)
    expected = low_frequency_replace(clip, audio[None], 4000.0, RATE)[0]
    assert _difference_db(_restored(audio), expected) < -110


def test_one_segment_is_raised_like_the_plain_restoration_of_a_clip():
    model, audio = built(tiny_levels()), _low_passed(1, 4096)
    sampling = model.config.sampling.model_copy(update={"num_steps": 2, "level_gain_db": 6.0})
    noise = position_noise(model.config.latent_dim, 0, 64, 0)
    cond = model.condition(audio[None], passband_hz=torch.tensor([4000.0]))
    clip = restore(model, cond, noise[None], sampling)
    expected = low_frequency_replace(clip, audio[None], 4000.0, RATE)[0]
    found = _restored(audio, Settings(sampling, BAND, limit_input=False), model=model)
    assert _difference_db(found, expected) < _difference_db(expected, 0 * expected) - 90


@pytest.mark.parametrize("frames", [1, 50, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT + 77])
@pytest.mark.parametrize("rate", [RATE, 16_000])
def test_any_length_comes_out_as_long_as_it_went_in(frames, rate):
    audio = torch.full((1, frames), 0.1)
    found = _restored(audio, rate=rate)
    assert found.shape == (1, round(frames * RATE / rate))
    assert found.isfinite().all()


def test_the_batch_of_windows_changes_less_than_minus_90_db():
    audio = _low_passed(2, 9 * SEGMENT)
    results = [
        _restored(audio, Settings(SAMPLING, BAND, target_rolloff_hz=12_000.0, batch=batch))
        for batch in (1, 5, 64)
    ]
    assert _difference_db(results[0], results[1]) < -90
    assert _difference_db(results[0], results[2]) < -90


def test_the_seed_decides_and_repeats():
    audio = _low_passed(1, 2 * SEGMENT)
    first, again, other = (
        _restored(audio, Settings(SAMPLING, BAND, target_rolloff_hz=12_000.0, seed=seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert _difference_db(first, other) > -60


def test_the_kept_band_is_the_input_at_the_input_level():
    audio = _low_passed(1, 8 * SEGMENT)
    found = _restored(audio)
    assert (found - audio).std() > 0.01  # the model did add something
    hz, change = signal.welch((found - audio)[0], RATE, nperseg=4096, detrend=False)
    _, level = signal.welch(audio[0], RATE, nperseg=4096, detrend=False)
    kept = hz < 3400
    assert 10 * np.log10(change[kept] / level[kept]).max() < -60


@pytest.mark.parametrize("field", ["target_rolloff_hz", "seed"])
def test_what_the_settings_say_reaches_the_model(field):
    audio = _low_passed(1, 2 * SEGMENT)
    changed = Settings(**{**vars(SETTINGS), field: 3000})
    assert _difference_db(_restored(audio, changed), _restored(audio)) > -60


def test_text_is_asked_for_per_window_from_its_own_audio(tmp_path):
    folder = str(build_tiny_t5(tmp_path / "t5"))
    model, heard = tiny_model(text_model=folder), []

    def text(audio: torch.Tensor) -> torch.Tensor:
        heard.append(audio)
        return torch.full((1, 8, 16), float(len(heard)))

    audio = _low_passed(1, 3 * SEGMENT)
    settings = Settings(**{**vars(SETTINGS), "text": text})
    found = _restored(audio, settings, model=model)
    assert len(heard) == 4
    assert all(window.shape == (1, SEGMENT) for window in heard)
    assert torch.equal(heard[0], audio[:, :SEGMENT])
    assert _difference_db(found, _restored(audio, model=model)) > -60


def test_a_cutoff_below_the_band_hides_the_rest_from_the_model():
    """Two inputs that differ only above the cutoff become the same."""
    low = _low_passed(1, 2 * SEGMENT, 2500.0)
    time = torch.arange(low.shape[-1]) / RATE
    dirty = low + 0.05 * torch.sin(2 * torch.pi * 3800 * time)
    settings = Settings(
        **{**vars(SETTINGS), "band": BandTrack.constant(3000.0), "limit_input": True}
    )
    clean_result, dirty_result = (_restored(audio, settings) for audio in (low, dirty))
    inner = slice(SEGMENT // 8, -SEGMENT // 8)  # a tone that begins is not a pure tone
    # What a filter leaves of the tone, 60 dB below it, is still heard above the band.
    assert _difference_db(dirty_result[:, inner], clean_result[:, inner]) < -40


def test_a_window_is_told_the_passband_and_hears_up_to_the_bands_end():
    band = BandTrack((0, 2 * SEGMENT), (4000.0, 3000.0), (3500.0, 1800.0))
    source = ArraySource(_low_passed(1, 4 * SEGMENT, 8000.0), RATE)
    model, settings = tiny_model(), Settings(**{**vars(SETTINGS), "band": band})
    layout, config = Layout(1, model.config.audio_channels), model.config
    grid = WindowGrid.covering(4 * config.latent_length, config.latent_length)
    told = [
        window.passband_hz.item()
        for window in _window_conditions(model, source, layout, settings, grid)
    ]
    assert told[0] == 3500
    assert told[-1] == 1800
    assert set(told) == {1800, 3500}


def _high_band(audio: torch.Tensor, low_hz: float = 5000.0) -> torch.Tensor:
    sos = signal.butter(8, low_hz, "high", fs=RATE, output="sos")
    return torch.from_numpy(signal.sosfiltfilt(sos, audio.double().numpy()).copy())


@pytest.mark.parametrize(
    "residue",
    [
        lambda x: 1e-4 * torch.randn(x.shape, generator=torch_generator("hiss")),
        lambda x: 0.05 * torch.sin(2 * torch.pi * 19_000 * torch.arange(x.shape[-1]) / RATE),
        lambda x: torch.round(x * 32_768) / 32_768 - x,
    ],
)
def test_residue_above_the_band_changes_little_of_what_is_added(residue):
    clean = _low_passed(1, 3 * SEGMENT)
    dirty = clean + residue(clean)
    settings = Settings(SAMPLING, BAND, target_rolloff_hz=12_000.0)
    inner = slice(SEGMENT // 8, -SEGMENT // 8)
    added, as_ever = (_high_band(_restored(x, settings))[:, inner] for x in (dirty, clean))
    assert 20 * np.log10((added - as_ever).norm() / as_ever.norm()) < -20
    unlimited = _restored(dirty, Settings(**{**vars(settings), "limit_input": False}))
    worse = _high_band(unlimited)[:, inner] - as_ever
    assert worse.norm() > (added - as_ever).norm()


def test_full_band_stretches_pass_through_and_the_others_are_restored():
    full = 0.1 * torch.randn(1, 8 * SEGMENT, generator=torch_generator("studio"))
    dull = _low_passed(1, 8 * SEGMENT)
    change, back = 3 * SEGMENT + 1234, 6 * SEGMENT - 77
    position = torch.arange(8 * SEGMENT)
    is_full = (position >= change) & (position < back)
    audio = torch.where(is_full, full, dull)
    band = BandTrack((0, change, back), (4000.0, RATE / 2, 4000.0))
    found = _restored(audio, Settings(SAMPLING, band, target_rolloff_hz=12_000.0))
    assert _difference_db(found[:, change:back], audio[:, change:back]) < -120
    guard = round(0.05 * RATE)
    for stretch in (slice(0, change - guard), slice(back + guard, None)):
        added = _high_band(found[:, stretch] - audio[:, stretch])
        assert added.std() > 0.01
        assert _high_band(found[:, stretch]).std() > 10 * _high_band(dull[:, stretch]).std()


# ---------------------------------------------------------------------------- channels
def test_three_channels_are_three_mono_jobs_with_one_seed():
    audio = torch.cat([_low_passed(1, 2 * SEGMENT, name=name) for name in "abc"])
    found = _restored(audio)
    for channel in range(3):
        alone = _restored(audio[channel : channel + 1])
        assert _difference_db(found[channel : channel + 1], alone) < -90


def test_mono_from_a_stereo_model_keeps_the_energy_of_the_high_band():
    model, audio = tiny_model(channels=2), _low_passed(1, 4 * SEGMENT)
    mono = _restored(audio, model=model)
    stereo = _restored(audio.expand(2, -1), model=model)
    assert mono.shape == (1, 4 * SEGMENT)
    high = [(signal_ - audio).square().mean().item() for signal_ in (mono, stereo)]
    assert 10 * np.log10(high[0] / high[1]) == pytest.approx(0, abs=1)
    assert (stereo[0] - stereo[1]).std() > 0.01  # the mean of the two would be quieter


def test_stereo_from_a_stereo_model_is_one_job():
    assert Layout(2, 2).jobs == 1
    model, audio = tiny_model(channels=2), _low_passed(2, 2 * SEGMENT)
    noise = position_noise(model.config.latent_dim, 0, SEGMENT // HOP, 0)
    target = torch.tensor([SETTINGS.target_rolloff_hz])
    cond = model.condition(audio[None, :, :SEGMENT], None, target, torch.tensor([4000.0]))
    clip = restore(model, cond, noise[None], SAMPLING)
    expected = low_frequency_replace(clip, audio[None, :, :SEGMENT], 4000.0, RATE)[0]
    found = _restored(audio[:, :SEGMENT], model=model)
    assert _difference_db(found, expected) < -110


# ---------------------------------------------------------------------------- memory
class _WatchedSource(ArraySource):
    """Knows how far its first reader (conditions) is ahead of its second one (crossover)."""

    def __init__(self, audio: torch.Tensor) -> None:
        super().__init__(audio, RATE)
        self.read: list[int] = []
        self.most_ahead = 0

    def blocks(self) -> Iterator[np.ndarray]:
        reader = len(self.read)
        self.read.append(0)
        for start in range(0, self.frames, 1000):
            block = self._frames[start : start + 1000]
            self.read[reader] += len(block)
            self.most_ahead = max(self.most_ahead, max(self.read) - min(self.read))
            yield block


def test_a_long_source_is_read_no_further_ahead_than_the_front_is_long():
    ahead = []
    for segments in (40, 80):
        source = _WatchedSource(_low_passed(1, segments * SEGMENT))
        for _ in restore_stream(tiny_model(), source, SETTINGS):
            pass
        ahead.append(source.most_ahead)
    windows = SAMPLING.num_steps + SETTINGS.batch + 3
    assert ahead[1] <= windows * SEGMENT + 1000
    assert ahead[1] <= ahead[0] + SEGMENT


# ---------------------------------------------------------------------------- silence
def test_silence_stays_silent_and_sound_is_untouched_by_it():
    audio = _low_passed(1, 6 * SEGMENT)
    audio[:, 2 * SEGMENT : 5 * SEGMENT] = 0
    found = _restored(audio)
    guard = round(0.046 * RATE)
    assert (found[:, 2 * SEGMENT + guard : 5 * SEGMENT - guard] == 0).all()
    assert found[:, : 2 * SEGMENT].std() > audio[:, : 2 * SEGMENT].std()


def test_audible_is_1_within_25_ms_of_sound_and_0_from_45_ms_on():
    lr = torch.zeros(2, 20_000)
    lr[1, 10_000] = 1e-3
    gain = audible(lr, RATE)[0]
    assert gain.shape == (20_000,)
    distance_s = (torch.arange(20_000) - 10_000).abs() / RATE
    assert (gain[distance_s <= 0.025] == 1).all()
    assert (gain[distance_s >= 0.0455] == 0).all()
    assert gain.diff().abs().max() < 1 / (0.010 * RATE)
