import numpy as np
import pytest
import torch

from saga_sr.config import DegradationSection
from saga_sr.degradation import (
    Degradation,
    Degradations,
    add_residue,
    draw_degradation,
    kept_hz,
)
from saga_sr.lowpass import apply_lowpass, field_lowpass
from saga_sr.support.errors import UserError
from saga_sr.support.randomness import numpy_generator, torch_generator

RATE = 44_100
NAMES = [
    "mp3-64",
    "aac-48",
    "opus-12",
    "vorbis-0",
    "gsm",
    "ulaw",
    "alaw",
    "zoh-11025",
    "linear-16000",
]


def _clip(channels: int = 1, seconds: float = 1.5) -> torch.Tensor:
    """Noise that falls by 6 dB per octave and swells, float32 [C, T]."""
    count = round(seconds * RATE)
    noise = torch.randn(channels, count, generator=torch_generator("degraded"))
    spectrum = torch.fft.rfft(noise) / torch.fft.rfftfreq(count, 1 / RATE).clamp(min=300).div(300)
    swell = 0.3 + 0.7 * torch.sin(7 * torch.arange(count) / RATE).square()
    sound = torch.fft.irfft(spectrum, count) * swell
    return 0.1 * sound / sound.std()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_degraded_clip_is_aligned_and_as_long_and_keeps_the_low_band(name, channels):
    clip, degradation = _clip(channels), Degradation.parse(name)
    assert str(degradation) == name
    found = degradation.apply(clip, RATE)
    assert found.shape == clip.shape
    assert found.dtype == torch.float32
    low = field_lowpass(2000.0)
    kept, truth = (apply_lowpass(x, RATE, low)[:, 2000:-2000] for x in (found, clip))
    likeness = (kept * truth).sum() / (kept.norm() * truth.norm())
    assert likeness > 0.6  # opus-12 in stereo; the others 0.9
    assert torch.equal(found, degradation.apply(clip, RATE))


@pytest.mark.parametrize(
    ("name", "low_hz", "high_hz"),
    [
        ("gsm", 3000, 4000),
        ("ulaw", 3500, 4000),
        ("zoh-11025", 3500, 5513),
        ("linear-16000", 3500, 8000),
        ("mp3-64", 9000, 17_000),
        ("aac-16", 3000, 4500),
        ("aac-48", 12_000, 17_000),
        ("opus-6", 3000, 8000),
    ],
)
def test_what_is_kept_is_measured(name, low_hz, high_hz):
    clip, degradation = _clip(), Degradation.parse(name)
    degraded = degradation.apply(clip, RATE)
    cutoff_hz, passband_hz = kept_hz(clip, degraded, RATE, degradation.own_rate)
    assert low_hz <= cutoff_hz <= high_hz
    assert 1000 <= passband_hz <= cutoff_hz


@pytest.mark.parametrize("cutoff_hz", [3000.0, 9000.0])
def test_what_a_low_pass_keeps_is_its_cutoff(cutoff_hz):
    clip, lowpass = _clip(), field_lowpass(cutoff_hz)
    found = kept_hz(clip, apply_lowpass(clip, RATE, lowpass), RATE)
    assert found[0] == pytest.approx(cutoff_hz, rel=0.05)
    assert found[1] == pytest.approx(lowpass.passband_hz(RATE), rel=0.06)


def test_silence_keeps_nothing():
    silence = torch.zeros(1, RATE)
    assert kept_hz(silence, Degradation("ulaw").apply(silence, RATE), RATE) == (0.0, 0.0)


@pytest.mark.parametrize("text", ["mp3", "mp3-9", "gsm-8", "zoh-x", "aac-8", "", "opus-", "mp3-"])
def test_what_does_not_exist_is_said(text):
    with pytest.raises(UserError, match="allowed are mp3-KBPS"):
        Degradation.parse(text)


@pytest.mark.parametrize("codec", ["mp3", "aac"])
def test_more_bits_keep_more(codec):
    clip = _clip()
    errors = [
        (Degradation(codec, kbps).apply(clip, RATE) - clip)[:, 3000:-3000].norm()
        for kbps in (32.0, 64.0, 128.0)
    ]
    assert errors[0] > errors[1] > errors[2]


# ---------------------------------------------------------------------------- drawing
def test_kinds_are_drawn_by_their_shares():
    degradations, rng = Degradations(("lowpass", "codec", "residue")), numpy_generator("kinds")
    drawn = [degradations.draw_kind(rng) for _ in range(2000)]
    assert set(drawn) == {"lowpass", "codec"}
    assert drawn.count("codec") / 2000 == pytest.approx(0.25 / 0.85, abs=0.04)


def test_kinds_without_a_share_are_refused():
    shares = DegradationSection(codec=0.0)
    assert Degradations(("lowpass", "codec"), shares).draw_kind(numpy_generator("k")) == "lowpass"
    with pytest.raises(UserError, match=r"--degradations codec residue: .* no share"):
        Degradations(("codec", "residue"), shares)


def test_an_lr_clip_is_a_function_of_the_generator_and_says_what_it_keeps():
    clip, lowpass, made_by = _clip(), field_lowpass(4000.0), set()
    degradations = Degradations(("lowpass", "codec", "resampler"))
    for draw in range(24):
        one, same = (
            degradations.make_lr(clip, lowpass, numpy_generator("lr", draw), RATE) for _ in range(2)
        )
        assert torch.equal(one.audio, same.audio)
        assert 0 < one.kept.passband_hz(RATE) <= 1.05 * one.kept.cutoff_hz
        if one.degradation is None:
            assert torch.equal(one.audio, apply_lowpass(clip, RATE, lowpass))
        else:
            assert torch.equal(one.audio, one.degradation.apply(clip, RATE))
        made_by.add(one.degradation and one.degradation.name)
    assert None in made_by
    assert made_by & {"zoh", "linear"}
    assert made_by & {"mp3", "aac", "opus", "vorbis"}


def test_silence_is_low_passed_whatever_is_drawn():
    silence = torch.zeros(1, RATE)
    for draw in range(4):
        found = Degradations(("codec",)).make_lr(
            silence, field_lowpass(4000.0), numpy_generator("silence", draw), RATE
        )
        assert found.degradation is None
        assert not found.audio.any()


def test_every_codec_and_resampler_is_drawn_and_can_be_named():
    rng = numpy_generator("draws")
    drawn = [draw_degradation(rng, kind) for kind in ("codec", "resampler") for _ in range(200)]
    assert {one.name for one in drawn} == {
        "mp3", "aac", "opus", "vorbis", "gsm", "ulaw", "alaw", "zoh", "linear"
    }  # fmt: skip
    assert all(Degradation.parse(str(one)) == one for one in drawn)


def test_residue_lies_above_the_band_and_is_quiet():
    clip = apply_lowpass(_clip(), RATE, field_lowpass(4000.0))
    ways = set()
    for draw in range(12):
        found = add_residue(clip, numpy_generator("residue", draw), 4000.0, RATE)
        again = add_residue(clip, numpy_generator("residue", draw), 4000.0, RATE)
        assert torch.equal(found, again)
        level_db = 20 * np.log10((found - clip).square().mean().sqrt().item())
        assert -105 < level_db < -40
        ways.add(round(level_db))
    assert len(ways) > 3
