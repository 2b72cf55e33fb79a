"""Degradations that no low-pass makes: codecs, the resamplers of old devices, and residue.

    HR --codec or resampler or low-pass--> LR --residue--> LR: dither, noise floor, tones above

The low-pass alone is the paper's and the default (`saga_sr.lowpass`). The others are chosen by
``--degradations``, their shares stand in the config's ``training.degradations``. What a degraded
clip really keeps is measured against its original, so ``lr_cutoff_hz`` and ``lr_passband_hz`` are
true for codecs whose own low-pass nobody documents. All draws are functions of a passed generator.

Names: ``mp3-64``, ``aac-64`` and ``opus-12`` (kbit/s), ``vorbis-0`` (quality 0 to 10), ``gsm``,
``ulaw`` and ``alaw`` (8 kHz telephone), ``zoh-11025`` (samples repeated) and ``linear-11025``
(straight lines).
"""

import io
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from saga_sr.audio.band_end import long_term_levels, spectrum_end_hz
from saga_sr.config import DegradationSection
from saga_sr.lowpass import Lowpass, apply_lowpass
from saga_sr.support.choices import DegradationKind
from saga_sr.support.errors import UserError

CODECS = ("mp3", "aac", "opus", "vorbis", "gsm", "ulaw", "alaw")
RESAMPLERS = ("zoh", "linear")
_ALLOWED = "mp3-KBPS, aac-KBPS, opus-KBPS, vorbis-QUALITY, gsm, ulaw, alaw, zoh-RATE, linear-RATE"
_NUMBERS = {  # name -> what its number may be
    "mp3": (32.0, 320.0),
    "aac": (16.0, 256.0),
    "opus": (6.0, 256.0),
    "vorbis": (0.0, 10.0),
    "zoh": (4000.0, 40_000.0),
    "linear": (4000.0, 40_000.0),
}
_DRAWN: dict[str, tuple[float, ...]] = {  # a number is drawn from these
    "mp3": (32, 40, 48, 56, 64, 80, 96, 128),
    "aac": (16, 24, 32, 48, 64, 96, 128),
    "opus": (6, 8, 12, 16, 24, 32),
    "vorbis": (0, 1, 2, 3),
    "gsm": (0,),
    "ulaw": (0,),
    "alaw": (0,),
    "zoh": (8000, 11_025, 12_000, 16_000, 22_050),
    "linear": (8000, 11_025, 12_000, 16_000, 22_050),
}
_KEPT_DB, _UNTOUCHED_DB = 6.0, 1.0  # what may be missing of a band that is kept, and of a passband
_NYQUIST_KEPT = 0.96  # of an old rate's Nyquist frequency: above it the resampler's own filter
_MAX_DELAY = 6000  # samples that a codec may shift a clip by


# ---------------------------------------------------------------------------- one degradation
@dataclass(frozen=True)
class Degradation:
    """A codec round trip or an old device's resampling.

    Attributes:
        name: of `CODECS` or `RESAMPLERS`.
        number: kbit/s, quality or rate in Hz; 0 where there is none.
    """

    name: str
    number: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Degradation":
        """From ``mp3-64`` and the like.

        Raises:
            UserError: there is no such degradation.
        """
        name, _, number = text.partition("-")
        if name in CODECS + RESAMPLERS and (name in _NUMBERS) == bool(number):
            try:
                value = float(number or 0)
            except ValueError:
                value = -1.0
            low, high = _NUMBERS.get(name, (0.0, 0.0))
            if low <= value <= high:
                return cls(name, value)
        raise UserError(f"degradation {text!r}: allowed are {_ALLOWED}")

    def __str__(self) -> str:
        return f"{self.name}-{self.number:g}" if self.name in _NUMBERS else self.name

    @property
    def own_rate(self) -> int | None:
        """The rate that it works at, if not the clip's own."""
        if self.name in RESAMPLERS:
            return round(self.number)
        return {"gsm": 8000, "ulaw": 8000, "alaw": 8000, "opus": 48_000}.get(self.name)

    def apply(self, audio: Tensor, sample_rate: int) -> Tensor:
        """Degrade [C, T] float32: aligned with it, as long, at the same rate."""
        samples = audio.numpy(force=True).T
        rate = self.own_rate or sample_rate
        inside = samples if rate == sample_rate else soxr.resample(samples, sample_rate, rate, "HQ")
        if self.name in RESAMPLERS:
            wide = _read_as_old_devices_do(inside, rate, sample_rate, len(samples), self.name)
        else:
            coded = self._round_trip(np.ascontiguousarray(inside), rate)
            wide = coded if rate == sample_rate else soxr.resample(coded, rate, sample_rate, "HQ")
            wide = _aligned(wide, samples)
        return torch.from_numpy(np.ascontiguousarray(wide.T, dtype=np.float32)).to(audio.device)

    def _round_trip(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """Encode and decode [n, C]."""
        channels = samples.shape[1]
        level = None
        match self.name:
            case "aac":
                return _through_aac(samples, rate, self.number)
            case "mp3":  # libsndfile's scale of constant rates
                low, high = (32, 320) if rate >= 32_000 else (8, 160)
                options: dict[str, Any] = {"format": "MP3", "subtype": "MPEG_LAYER_III"}
                options["bitrate_mode"] = "CONSTANT"
                level = (high - self.number) / (high - low)
            case "opus":
                options = {"format": "OGG", "subtype": "OPUS"}
                level = 1 - (1000 * self.number / channels - 6000) / 250_000
            case "vorbis":
                options = {"format": "OGG", "subtype": "VORBIS"}
                level = 1 - self.number / 10
            case _:
                subtype = {"gsm": "GSM610", "ulaw": "ULAW", "alaw": "ALAW"}[self.name]
                options = {"format": "WAV", "subtype": subtype}
        if level is not None:
            options["compression_level"] = float(np.clip(level, 0, 0.999))  # libmp3lame refuses 1
        if self.name == "gsm" and channels > 1:  # a codec of one channel
            mono = [self._round_trip(samples[:, c : c + 1], rate) for c in range(channels)]
            return np.concatenate(mono, axis=1)
        file = io.BytesIO()
        with soundfile.SoundFile(file, "w", rate, channels, **options) as writer:
            writer.write(np.clip(samples, -1, 1))
        file.seek(0)
        with soundfile.SoundFile(file) as reader:
            blocks = []
            while len(block := reader.read(1 << 14, dtype="float32", always_2d=True)):
                blocks.append(block)
        return np.concatenate(blocks) if blocks else np.zeros_like(samples)


def _through_aac(samples: np.ndarray, rate: int, kbps: float) -> np.ndarray:
    """Encode and decode [n, C] by FFmpeg's AAC (low complexity); its delay is still there.

    The packets go from one codec to the other, without a file around them.
    """
    import av

    layout = "mono" if samples.shape[1] == 1 else "stereo"
    encoder = av.CodecContext.create("aac", "w")
    encoder.sample_rate, encoder.bit_rate = rate, round(1000 * kbps)
    encoder.layout, encoder.format = layout, "fltp"
    encoder.open()
    size = encoder.frame_size
    # whole frames, and one more: what the delay pushes out at the end
    padded = np.pad(samples, ((0, -len(samples) % size + size), (0, 0))).astype(np.float32)
    packets = []
    for start in range(0, len(padded), size):
        block = np.ascontiguousarray(padded[start : start + size].T)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, start
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoder = av.CodecContext.create("aac", "r")
    decoder.extradata = encoder.extradata
    frames = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    return np.concatenate([frame.to_ndarray() for frame in frames], axis=1).T


def _read_as_old_devices_do(
    slow: np.ndarray, rate: int, sample_rate: int, length: int, way: str
) -> np.ndarray:
    """Repeat the samples of [n, C], or draw lines between them."""
    position = np.arange(length) * rate / sample_rate
    if way == "zoh":
        return slow[np.minimum(position.astype(int), len(slow) - 1)]
    at = np.arange(len(slow))
    return np.stack([np.interp(position, at, channel) for channel in slow.T], axis=1)


def _aligned(coded: np.ndarray, original: np.ndarray) -> np.ndarray:
    """[n, C] as long as the original, shifted to where it fits best."""
    one, other = (values.mean(axis=1) for values in (coded, original))
    size = 1 << (len(one) + len(other)).bit_length()
    likeness = np.fft.irfft(np.fft.rfft(one, size) * np.fft.rfft(other, size).conj())
    shifts = np.arange(-_MAX_DELAY, _MAX_DELAY + 1)
    shift = int(shifts[np.argmax(likeness[shifts])])
    coded = coded[shift:] if shift >= 0 else np.pad(coded, ((-shift, 0), (0, 0)))
    missing = max(len(original) - len(coded), 0)
    return np.pad(coded[: len(original)], ((0, missing), (0, 0)))


@dataclass(frozen=True)
class Kept:
    """The band that a degraded clip keeps; it answers like a `saga_sr.lowpass.Lowpass`."""

    cutoff_hz: float
    end_of_passband_hz: float

    def passband_hz(self, sample_rate: int) -> float:
        return min(self.end_of_passband_hz, sample_rate / 2)


def kept_hz(
    hr: Tensor, lr: Tensor, sample_rate: int, own_rate: int | None = None
) -> tuple[float, float]:
    """What a degraded clip really keeps of its original [C, T].

    Args:
        hr, lr: the original and the clip, aligned.
        sample_rate: Hz.
        own_rate: of the degradation; what lies above half of it are mirror images.

    Returns:
        (cutoff, passband) in Hz: up to where no more than 6 dB, and 1 dB, are missing.
    """
    end_hz = spectrum_end_hz(hr, sample_rate)
    if end_hz == 0:
        return 0.0, 0.0
    if own_rate is not None:
        end_hz = min(end_hz, _NYQUIST_KEPT * own_rate / 2)
    grid_hz, hr_db = long_term_levels(hr, sample_rate)
    missing_db = hr_db - long_term_levels(lr, sample_rate)[1]
    inside = grid_hz <= end_hz
    found = []
    for allowed_db in (_KEPT_DB, _UNTOUCHED_DB):
        kept = np.flatnonzero(inside & (missing_db < allowed_db))
        found.append(float(grid_hz[kept[-1]]) if len(kept) else float(grid_hz[0]))
    return found[0], found[1]


# ---------------------------------------------------------------------------- drawing
@dataclass(frozen=True)
class LRClip:
    """An LR clip, and what is true of it.

    Attributes:
        audio: [C, T].
        kept: the low-pass that made it, or what else it keeps of its original.
        degradation: what made it; None for a low-pass.
    """

    audio: Tensor
    kept: Lowpass | Kept
    degradation: Degradation | None = None


@dataclass(frozen=True)
class Degradations:
    """What LR clips are made by: ``--degradations`` and the config's ``training.degradations``.

    Attributes:
        kinds: what may be drawn; "residue" is added to some of any kind. The paper's low-pass alone
            by default.
        shares: how often.

    Raises:
        UserError: there is nothing to draw.
    """

    kinds: tuple[DegradationKind, ...] = ("lowpass",)
    shares: DegradationSection = field(default_factory=DegradationSection)

    def __post_init__(self) -> None:
        if not any(share > 0 for share in self._drawn().values()):
            raise UserError(
                f"--degradations {' '.join(self.kinds)}: the config's training.degradations give "
                "them no share; lowpass, codec or resampler needs one above 0"
            )

    def _drawn(self) -> dict[DegradationKind, float]:
        return {kind: getattr(self.shares, kind) for kind in self.kinds if kind != "residue"}

    def draw_kind(self, rng: np.random.Generator) -> DegradationKind:
        """Low-pass, codec or resampler, by the shares of those that take part."""
        drawn = self._drawn()
        weights = np.array(list(drawn.values()), dtype=float)
        return list(drawn)[rng.choice(len(drawn), p=weights / weights.sum())]

    def make_lr(
        self, hr: Tensor, lowpass: Lowpass, rng: np.random.Generator, sample_rate: int
    ) -> LRClip:
        """Make the LR clip of an original, by what is drawn.

        Args:
            hr: [C, T], nominally in [-1, 1].
            lowpass: what a low-pass would be.
            rng: of all else, so that ``hr`` and ``lowpass`` are those of a run with that alone.
            sample_rate: Hz.
        """
        kind = self.draw_kind(rng)
        clip: LRClip | None = None
        if kind != "lowpass":
            degradation = draw_degradation(rng, kind)
            audio = degradation.apply(hr, sample_rate)
            kept = Kept(*kept_hz(hr, audio, sample_rate, degradation.own_rate))
            if kept.cutoff_hz > 0:  # a silent clip keeps nothing: its low-pass will do
                clip = LRClip(audio, kept, degradation)
        clip = clip or LRClip(apply_lowpass(hr, sample_rate, lowpass), lowpass)
        if "residue" in self.kinds and rng.random() < self.shares.residue:
            audio = add_residue(clip.audio, rng, clip.kept.cutoff_hz, sample_rate)
            clip = replace(clip, audio=audio)
        return clip


def draw_degradation(rng: np.random.Generator, kind: DegradationKind) -> Degradation:
    """A codec, or a resampler, and its rate; all equally likely."""
    names = CODECS if kind == "codec" else RESAMPLERS
    name = names[rng.integers(len(names))]
    return Degradation(name, float(rng.choice(_DRAWN[name])))


def add_residue(
    audio: Tensor, rng: np.random.Generator, cutoff_hz: float, sample_rate: int
) -> Tensor:
    """[C, T] with what recordings have above their band, one of three alike likely.

    Dither of 16 bits (triangular); white noise at -90 to -55 dBFS; one to three tones at -70 to
    -45 dBFS, above the cutoff.
    """
    shape, way = tuple(audio.shape), rng.integers(3)
    if way == 0:
        dither = torch.from_numpy(rng.random(shape) - rng.random(shape)).to(audio)
        return torch.round(audio * 32_768 + dither) / 32_768
    if way == 1:
        level = 10 ** (rng.uniform(-90, -55) / 20)
        return audio + torch.from_numpy(level * rng.standard_normal(shape)).to(audio)
    time_s = np.arange(shape[-1]) / sample_rate
    tones = np.zeros(shape[-1])
    low_hz = min(1.1 * cutoff_hz, 0.9 * sample_rate / 2)
    for _ in range(rng.integers(1, 4)):
        amplitude = 2**0.5 * 10 ** (rng.uniform(-70, -45) / 20)
        hz = rng.uniform(low_hz, 0.97 * sample_rate / 2)
        tones += amplitude * np.sin(2 * np.pi * (hz * time_s + rng.random()))
    return audio + torch.from_numpy(tones).to(audio)
