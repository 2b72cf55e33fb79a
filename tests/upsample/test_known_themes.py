"""What users of other tools of this kind ran into, and the right answer here.

Each theme is named after the public thread that it comes from.
"""

from functools import lru_cache

import numpy as np
import pytest
import torch
from recordings import voice
from scipy import signal
from tiny_restorer import SEGMENT, tiny_model

from saga_sr.audio.bandwidth import Bandwidth, measure_bandwidth
from saga_sr.audio.streams import ArraySource
from saga_sr.degradation import Degradation, kept_hz
from saga_sr.lowpass import apply_lowpass, field_lowpass
from saga_sr.model import SAGASRModel
from saga_sr.support.shipped import shipped_model
from saga_sr.upsample import UpsampleOptions, upsample

RATE = 44_100


@lru_cache
def shipped() -> SAGASRModel:
    return SAGASRModel.from_pretrained(shipped_model())


def _restored(audio: torch.Tensor, rate: int = RATE) -> torch.Tensor:
    """By the shipped model, in two steps."""
    options = UpsampleOptions(num_steps=2, emulate_linear_steps=2)
    return upsample(shipped(), audio, rate, options)


def _measured(audio: torch.Tensor) -> Bandwidth:
    return measure_bandwidth(ArraySource(audio, RATE), RATE)


def _voice(seconds: float = 2.5) -> torch.Tensor:
    return torch.from_numpy(voice(seconds)).float()[None]


def _band(audio: torch.Tensor, low_hz: float, high_hz: float) -> torch.Tensor:
    sos = signal.butter(8, (low_hz, high_hz), "bandpass", fs=RATE, output="sos")
    return torch.from_numpy(signal.sosfiltfilt(sos, audio.double().numpy()).copy())


def _inner(audio: torch.Tensor) -> torch.Tensor:
    """Without the ends, where a clip that is cut off has a step."""
    return audio[..., RATE // 10 : -RATE // 10]


def _level_db(audio: torch.Tensor) -> float:
    return 20 * np.log10(audio.double().square().mean().sqrt().item() + 1e-12)


# ---------------------------------------------------------------------------- codecs, old devices
@pytest.mark.parametrize("codec", ["mp3-48", "aac-32"])
def test_spectral_holes_of_a_codec_are_neither_an_end_nor_filled(codec):
    """versatile_audio_super_resolution 5, UniverSR 4: a hole below the codec's cutoff is no end of
    the band; what is below the end stays as it is, holes and all, and what is above is made."""
    truth, degradation = _voice(), Degradation.parse(codec)
    coded = degradation.apply(truth, RATE)
    kept, _ = kept_hz(truth, coded, RATE)
    measured = _measured(coded)
    assert kept / 1.2 < measured.end_hz < 1.2 * kept
    restored = _restored(coded)
    low = _inner(_band(restored - coded, 100, 0.75 * measured.end_hz))
    assert _level_db(low) < _level_db(coded) - 50
    above = 1.1 * measured.end_hz, 20_000.0
    assert _level_db(_band(restored, *above)) > _level_db(_band(coded, *above)) + 6


@pytest.mark.parametrize("name", ["zoh-11025", "linear-11025", "zoh-22050"])
def test_mirror_images_of_old_game_sounds_are_replaced(name):
    """SDL 2663 (audible aliasing of 11 and 22 kHz sounds), realmz 2 (repeated samples)."""
    degradation = Degradation.parse(name)
    old = degradation.apply(_voice(), RATE)
    assert _measured(old).old_rate == degradation.own_rate
    images, made = (
        _band(audio, 0.6 * degradation.number, 20_000.0) for audio in (old, _restored(old))
    )
    likeness = (images * made).sum() / (images.norm() * made.norm())
    assert abs(likeness) < 0.1
    assert _level_db(made) > -90


@pytest.mark.parametrize("rate", [RATE, 24_000])
def test_a_dull_file_is_restored_whatever_its_rate_is(rate):
    """aeromamba 5: the same rate in and out, but dull; AP-BWE 5: 24 kHz that came out as it was."""
    dull = apply_lowpass(_voice(), RATE, field_lowpass(5000.0))
    if rate != RATE:
        dull = torch.from_numpy(signal.resample_poly(dull.numpy(), 80, 147, axis=1).copy())
    restored = _restored(dull, rate)
    assert restored.shape[-1] == round(dull.shape[-1] * RATE / rate)
    assert _level_db(_band(restored, 6500, 20_000)) > -75


# ---------------------------------------------------------------------------- filters that fail
def _rumble() -> torch.Tensor:
    return 0.3 * torch.sin(2 * torch.pi * 60 * torch.arange(2 * SEGMENT) / RATE)[None]


ODD = {
    "silence": torch.zeros(1, 3 * SEGMENT),
    "one step of 16 bits": torch.full((1, 2 * SEGMENT), 2.0**-15),
    "a constant": torch.full((1, 2 * SEGMENT), 0.25),
    "rumble": _rumble(),
    "one sample": torch.nn.functional.pad(torch.ones(1, 1), (SEGMENT, SEGMENT)),
    "a song that ends in silence": torch.cat([_rumble(), torch.zeros(1, 4 * SEGMENT)], dim=1),
    "Nyquist": 0.1 * (1 - 2.0 * (torch.arange(2 * SEGMENT) % 2))[None],
}


@pytest.mark.parametrize("name", ODD)
def test_no_filter_fails_on_dull_or_silent_files(name):
    """versatile_audio_super_resolution 25, FlashSR 6, AudioSR-Colab-Fork 3: "critical frequencies
    must be 0 < Wn < 1", on silence, on little treble, in the last piece of a certain song."""
    audio = ODD[name]
    found = upsample(tiny_model(), audio, RATE, UpsampleOptions(num_steps=1))
    assert found.shape == audio.shape
    assert found.isfinite().all()
    if not audio.any():
        assert not found.any()


# ---------------------------------------------------------------------------- time and channels
def test_what_is_silent_stays_silent_and_what_sounds_is_where_it_was():
    """Applio 455 (muted where there was sound and the other way round), SSRC 30 and
    versatile_audio_super_resolution 22 (silence added at the ends)."""
    count, gap = 8 * SEGMENT, 3 * SEGMENT
    sound = apply_lowpass(_voice()[:, :count], RATE, field_lowpass(4000.0))
    silence = torch.zeros(1, gap)
    audio = torch.cat([silence, sound, silence, sound, silence], dim=1)
    found = upsample(tiny_model(), audio, RATE, UpsampleOptions(num_steps=1))
    assert found.shape == audio.shape
    fade = round(0.05 * RATE)
    for start in (0, gap + count, 2 * (gap + count)):
        assert not found[:, start + fade : start + gap - fade].any()
    likeness = torch.nn.functional.conv1d(found[None], audio[:, fade:-fade][None])[0, 0]
    assert likeness.argmax() == fade


def test_stereo_comes_out_as_stereo():
    """versatile_audio_super_resolution 71: only mono output."""
    right = apply_lowpass(_voice()[:, : 8 * SEGMENT], RATE, field_lowpass(4000.0))
    audio = torch.cat([torch.zeros_like(right), right])
    found = upsample(tiny_model(), audio, RATE, UpsampleOptions(num_steps=1))
    assert found.shape == audio.shape
    low = _inner(_band(found - audio, 100, 3000))
    assert max(_level_db(low[0]), _level_db(low[1])) < _level_db(right) - 40


@pytest.mark.parametrize("frames", [1, 100, SEGMENT // 3])
@pytest.mark.parametrize("rate", [8000, RATE])
def test_a_file_shorter_than_a_segment_is_a_file(frames, rate):
    """EnglishSpeechUpsampler 2: nothing is left of a recording shorter than the model's input."""
    audio = 0.1 * torch.ones(1, frames)
    found = upsample(tiny_model(), audio, rate, UpsampleOptions(num_steps=1))
    assert found.shape[-1] == round(frames * RATE / rate)
    assert found.isfinite().all()
