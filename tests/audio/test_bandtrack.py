"""The end of a band over time, on sounds like those that people have."""

import numpy as np
import pytest
import soxr
import torch
from recordings import voice
from scipy import signal

from saga_sr.audio.bandwidth import BandTrack, Bandwidth, measure_bandwidth
from saga_sr.audio.streams import ArraySource
from saga_sr.support.randomness import numpy_generator

RATE = 44100


def _telephone(sound: np.ndarray, cutoff_hz: float = 3800.0) -> np.ndarray:
    sos = signal.cheby1(8, 0.05, cutoff_hz, fs=RATE, output="sos")
    return signal.sosfiltfilt(sos, sound).copy()


def _measured(sound: np.ndarray, rate: int = RATE) -> Bandwidth:
    audio = torch.from_numpy(np.ascontiguousarray(sound)).float()
    return measure_bandwidth(ArraySource(torch.atleast_2d(audio), rate), RATE)


def _noise(count: int, level_dbfs: float) -> np.ndarray:
    return 10 ** (level_dbfs / 20) * numpy_generator("noise").standard_normal(count)


def _tones(count: int, hz: tuple[float, ...], amplitude: float) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * np.outer(hz, np.arange(count) / RATE)).sum(axis=0)


def _dithered(sound: np.ndarray) -> np.ndarray:
    rng = numpy_generator("dither")
    dither = rng.random(len(sound)) - rng.random(len(sound))
    return np.round(sound * 32768 + dither) / 32768


def _with_clicks(sound: np.ndarray) -> np.ndarray:
    clicked = sound.copy()
    clicked[[len(sound) // 3, len(sound) // 2]] += 0.9
    return clicked


def _clipped_where_loud(sound: np.ndarray) -> np.ndarray:
    louder = sound * np.where(np.arange(len(sound)) // RATE % 3 == 0, 2, 0.5)
    return np.clip(louder, -0.6 * louder.max(), 0.6 * louder.max())


RESIDUES = {
    "dither": _dithered,
    "noise at -80 dBFS": lambda x: x + _noise(len(x), -80),
    "noise at -60 dBFS": lambda x: x + _noise(len(x), -60),
    "a pilot tone": lambda x: x + _tones(len(x), (19_000.0,), 10 ** (-50 / 20)),
    "several tones": lambda x: x + _tones(len(x), (6000.0, 9000.0, 15_734.0), 0.003),
    "hum": lambda x: x + _tones(len(x), (50.0, 150.0, 350.0), 0.03),
    "clicks": _with_clicks,
    "clipped loud phrases": _clipped_where_loud,
}


@pytest.mark.parametrize("residue", RESIDUES)
def test_residue_above_the_band_is_no_band(residue):
    sound = RESIDUES[residue](_telephone(voice(8.0)))
    measured = _measured(sound)
    assert not measured.varies
    assert measured.end_hz == pytest.approx(3900, rel=0.08)


def test_the_voice_itself_is_full_band_all_through():
    measured = _measured(voice(8.0))
    assert measured.is_full
    assert not measured.varies


@pytest.mark.parametrize("seconds", [1.5, 3.0, 5.0])
@pytest.mark.parametrize("hiss_dbfs", [None, -80, -60])
def test_each_change_between_telephone_and_studio_is_found(seconds, hiss_dbfs):
    sound, count = voice(12 * seconds / 1.5), round(seconds * RATE)
    is_telephone = np.arange(len(sound)) // count % 2 == 0
    sound = np.where(is_telephone, _telephone(sound), sound)
    if hiss_dbfs is not None:
        sound = sound + _noise(len(sound), hiss_dbfs)
    track = _measured(sound).track
    truth = [position for position in range(0, len(sound), count) if len(sound) - position > RATE]
    assert len(track.starts) == len(truth)
    for number, (start, true_start) in enumerate(zip(track.starts, truth, strict=True)):
        # In a pause nothing tells where it changes.
        low, high = sorted((start, true_start))
        apart = sound[low:high]
        assert high - low < 0.02 * RATE or np.abs(apart).max() < 0.02, number
    assert [end < 5000 for end in track.ends_hz] == [n % 2 == 0 for n in range(len(truth))]


def test_a_click_a_pause_or_a_dull_moment_changes_nothing():
    sound = voice(10.0)
    sound[4 * RATE : 4 * RATE + RATE // 3] = _telephone(sound)[4 * RATE : 4 * RATE + RATE // 3]
    sound[7 * RATE : 8 * RATE] *= 1e-4
    assert not _measured(sound).varies


@pytest.mark.parametrize("way", ["steps", "lines"])
@pytest.mark.parametrize("old_rate", [8000, 11025, 16000, 22050])
@pytest.mark.parametrize("rate", [RATE, 48_000])
def test_mirror_images_of_an_old_device_are_no_band(way, old_rate, rate):
    old = soxr.resample(voice(6.0), RATE, old_rate)
    position = np.arange(5 * rate) * old_rate / rate
    at = np.arange(len(old))
    sound = old[position.astype(int)] if way == "steps" else np.interp(position, at, old)
    measured = _measured(sound, rate)
    assert measured.old_rate == old_rate
    assert 0.85 * old_rate / 2 < measured.end_hz <= old_rate / 2


def test_a_sound_that_was_resampled_well_has_no_old_rate():
    old = soxr.resample(voice(6.0), RATE, 11_025)
    measured = _measured(soxr.resample(old, 11_025, RATE))
    assert measured.old_rate is None
    assert measured.end_hz == pytest.approx(5300, rel=0.06)


# ---------------------------------------------------------------------------- channels
def test_a_telephone_on_one_channel_is_measured_on_its_own():
    host, guest = voice(6.0), _telephone(voice(6.0, seed=1))
    measured = _measured(np.stack([host, 0.5 * guest]))
    left, right = measured.channels
    assert left.is_full
    assert right.end_hz == pytest.approx(3900, rel=0.08)
    assert not measured.is_full


@pytest.mark.parametrize("way", ["softer", "silent", "both dull", "crosstalk", "other voice"])
def test_channels_that_end_in_one_place_are_measured_together(way):
    sound, other = voice(5.0), voice(5.0, seed=1)
    right = {
        "softer": 0.05 * sound,
        "silent": np.zeros_like(sound),
        "both dull": 0.3 * _telephone(other),
        "crosstalk": 3e-4 * _telephone(sound),
        "other voice": other,
    }[way]
    left = _telephone(sound) if way == "both dull" else sound
    measured = _measured(np.stack([left, right]))
    assert not measured.channels
    assert measured.is_full == (way != "both dull")


# ---------------------------------------------------------------------------- the track
TRACK = BandTrack((0, 1000, 2000), (4000.0, 22_050.0, 8000.0))


def test_a_window_hears_up_to_the_lowest_end_inside_it():
    assert TRACK.lowest(0, 1000).end_hz == 4000
    assert TRACK.lowest(1000, 2000).end_hz == 22_050
    assert TRACK.lowest(1500, 5000).end_hz == 8000
    assert TRACK.lowest(999, 5000).end_hz == 4000


def test_weights_add_up_and_leave_the_fuller_stretch_whole():
    whole = dict(TRACK.weights(0, 3000, fade=100))
    assert torch.allclose(sum(whole.values()), torch.ones(3000))
    assert (whole[22_050.0][1000:2000] == 1).all()
    assert (whole[22_050.0][:900] == 0).all()
    assert (whole[22_050.0][2100:] == 0).all()
    for end_hz, weight in TRACK.weights(950, 1950, fade=100):
        assert torch.equal(weight, whole[end_hz][950:1950])


def test_a_bandwidth_without_a_track_is_the_same_throughout():
    assert Bandwidth(3000.0, 4000.0, 22_050.0).track == BandTrack.constant(4000.0)
    assert Bandwidth(3000.0, 20_500.0, 22_050.0).is_full
