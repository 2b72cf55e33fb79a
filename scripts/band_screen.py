"""Is a recording really full-band? Roll-off alone cannot tell.

A model that learns bandwidth extension from dull recordings learns to produce nothing, and one
that learns from hissing recordings learns to produce hiss. Both look innocent: the file says
44.1 kHz, and stationary noise even gives a high roll-off. So two things are measured on the level
of 500 Hz bands over time: how high the bands reach that hold sound, and how much the level from 10
to 16 kHz moves. Sound moves; the noise of a tape, a microphone or a dither does not.

A band holds sound where its loud frames (95th percentile) lie above -100 dBFS and either its level
moves by more than 6 dB or the band is so loud (-80 dBFS) that no noise floor explains it: the hiss
of a record player is a sound effect. Speech has to move by 15 dB from 10 to 16 kHz as well, and it
must not be clipped: the high band of a clipped voice is distortion, and moves with the voice.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

N_FFT = 2048
HOP = 512
BAND_HZ = 500
FULL_BAND_HZ = 18_000
MIN_SECONDS = 0.05
MIN_PEAK_DB = -60.0
MAX_PEAK_DB = 6.0  # a lossy codec overshoots full scale by a little; more is a broken level
CLIPPED_AT = 0.99
SPEECH_MAX_CLIPPED = 0.001
MAX_CLIPPED = 0.01  # a distorted drum is meant
SOUND_DB = -100.0
LOUD_DB = -80.0
MOVES_DB = 6.0
SPEECH_MOVES_DB = 15.0
LONG_S = 90.0
EXCERPT_S = 15.0
EXCERPT_PLACES = (0.15, 0.35, 0.55, 0.75, 0.9)


@dataclass(frozen=True)
class Screening:
    """What was measured of one file."""

    seconds: float
    sample_rate: int
    channels: int
    artist: str
    peak_db: float
    clipped: float  # share of samples
    reach_hz: int  # upper edge of the highest band that holds sound
    high_band_moves_db: float  # 95th minus 10th percentile of the level, mean over 10 to 16 kHz

    @property
    def unusable(self) -> str:
        """Why the file cannot be used at all; empty if it can."""
        if self.seconds < MIN_SECONDS:
            return f"shorter than {MIN_SECONDS} s"
        if not MIN_PEAK_DB <= self.peak_db <= MAX_PEAK_DB:
            return f"peak of {self.peak_db:g} dBFS is outside {MIN_PEAK_DB:g} to {MAX_PEAK_DB:g}"
        return ""

    def is_full_band(self, *, speech: bool) -> bool:
        """Whether the spectrum reaches `FULL_BAND_HZ` by sound, not by noise or by clipping."""
        moves = not speech or self.high_band_moves_db >= SPEECH_MOVES_DB
        clean = self.clipped <= (SPEECH_MAX_CLIPPED if speech else MAX_CLIPPED)
        return self.reach_hz >= FULL_BAND_HZ and moves and clean


def screen(path: Path) -> Screening:
    """Measure ``path``; of a long file five excerpts stand for the whole.

    Raises:
        soundfile.LibsndfileError: the file cannot be decoded.
    """
    with soundfile.SoundFile(path) as file:
        audio = _read(file)
        rate, seconds = file.samplerate, file.frames / file.samplerate
        channels, artist = file.channels, file.artist
    peak = float(np.abs(audio).max(initial=0.0))
    reach_hz, moves_db = _bands(audio.mean(axis=1), rate)
    return Screening(
        seconds=round(seconds, 3),
        sample_rate=rate,
        channels=channels,
        artist=artist,
        peak_db=round(20 * np.log10(peak + 1e-10), 1),
        clipped=round(float((np.abs(audio) >= CLIPPED_AT).mean()), 5),
        reach_hz=reach_hz,
        high_band_moves_db=round(moves_db, 1),
    )


def _read(file: soundfile.SoundFile) -> np.ndarray:
    """Samples [T, C]; of a long file excerpts, in order."""
    if file.frames <= LONG_S * file.samplerate:
        return file.read(dtype="float32", always_2d=True)
    length = int(EXCERPT_S * file.samplerate)
    excerpts = []
    for place in EXCERPT_PLACES:
        file.seek(int(place * (file.frames - length)))
        excerpts.append(file.read(length, dtype="float32", always_2d=True))
    return np.concatenate(excerpts)


def _bands(mono: np.ndarray, sample_rate: int) -> tuple[int, float]:
    """The reach in Hz and the movement of 10 to 16 kHz in dB."""
    mono = np.pad(mono, (0, max(0, 2 * N_FFT - len(mono))))
    window = np.hanning(N_FFT)
    frames = np.lib.stride_tricks.sliding_window_view(mono, N_FFT)[::HOP] * window
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2 / (window.sum() / 2) ** 2  # full-scale sine: 1
    bins_hz = np.fft.rfftfreq(N_FFT, 1 / sample_rate)
    edges_hz = np.arange(0, min(sample_rate // 2, 22_050) - BAND_HZ + 1, BAND_HZ)
    level_db = np.stack(
        [_level_db(power[:, (bins_hz >= low) & (bins_hz < low + BAND_HZ)]) for low in edges_hz]
    )
    loud, quiet = np.percentile(level_db, (95, 10), axis=1)
    holds_sound = (loud > SOUND_DB) & ((loud - quiet > MOVES_DB) | (loud > LOUD_DB))
    reach_hz = int(edges_hz[holds_sound].max(initial=-BAND_HZ)) + BAND_HZ
    high = (edges_hz >= 10_000) & (edges_hz < 16_000)
    return reach_hz, float((loud - quiet)[high].mean()) if high.any() else 0.0


def _level_db(power: np.ndarray) -> np.ndarray:
    """Mean level of each frame; digital silence is -160 dB."""
    return np.asarray(10 * np.log10(power.mean(axis=1) + 1e-16))
