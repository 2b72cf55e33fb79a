"""A recording to try the page with: eight seconds of plucked strings and a shaker, as from an old
tape, with nothing above 4 kHz.

It is synthesised (Karplus and Strong, "Digital synthesis of plucked-string and drum timbres",
1983), hence under this repository's own licence, and the same at every call.
"""

from pathlib import Path

import numpy as np
import soundfile
import torch

from saga_sr.audio.streams import ArraySource, Reader, resampled
from saga_sr.support.randomness import numpy_generator

DURATION_S = 8.0
SAMPLE_RATE = 8000  # of the file, hence 4 kHz of band
_RATE = 32_000  # of the synthesis
_LEAD_S = 0.1  # of silence: a file that begins within a note begins with a click
_BEAT_S = 0.25
_CHORDS = ((45, 52, 57, 60, 64), (41, 48, 53, 57, 60), (43, 50, 55, 59, 62), (40, 47, 52, 56, 59))
_PATTERN = (0, 2, 3, 4, 3, 2, 4, 3)  # which note of the chord, beat by beat


def write_example(folder: Path) -> Path:
    """Write the recording into ``folder`` as 16 bit WAV."""
    mix = _strings() + 0.25 * _shaker()
    mix = np.pad(mix, (round(_LEAD_S * _RATE), 0))[: len(mix)] * 0.6 / np.abs(mix).max()
    source = ArraySource(torch.from_numpy(mix[None]).float(), _RATE)
    dull = Reader(resampled(source, SAMPLE_RATE)).take(round(DURATION_S * SAMPLE_RATE))
    path = folder / "example.wav"
    soundfile.write(path, dull[0].numpy(), SAMPLE_RATE, "PCM_16")
    return path


def _strings() -> np.ndarray:
    mix = np.zeros(round(DURATION_S * _RATE))
    for beat in range(round(DURATION_S / _BEAT_S)):
        chord = _CHORDS[beat // len(_PATTERN) % len(_CHORDS)]
        notes = [chord[_PATTERN[beat % len(_PATTERN)]]]
        if beat % len(_PATTERN) == 0:
            notes.append(chord[0])
        for note in set(notes):
            start = round(beat * _BEAT_S * _RATE)
            sound = _pluck(440 * 2 ** ((note - 69) / 12), len(mix) - start, beat)
            mix[start : start + len(sound)] += sound
    return mix


def _pluck(frequency_hz: float, most: int, draw: int) -> np.ndarray:
    """A string of ``frequency_hz``, for two seconds or ``most`` samples."""
    period = round(_RATE / frequency_hz)
    string = numpy_generator("example", "pluck", draw).uniform(-1, 1, period)
    rounds = []
    for _ in range(-(-min(2 * _RATE, most) // period)):
        rounds.append(string)
        string = 0.998 * (0.5 * string + 0.5 * np.roll(string, 1))
    sound = np.concatenate(rounds)[:most]
    fade = np.clip((np.arange(len(sound), 0, -1) / _RATE - _LEAD_S) / 0.1, 0, 1)
    return sound * fade


def _shaker() -> np.ndarray:
    """Noise, louder towards high frequencies, on every beat and loudest on every other."""
    time_s = np.arange(round(DURATION_S * _RATE)) / _RATE
    noise = np.diff(numpy_generator("example", "shaker").standard_normal(len(time_s) + 1))
    beat, since_s = np.divmod(time_s, _BEAT_S)
    return noise * np.exp(-since_s / 0.03) * np.where(beat % 2 == 1, 1.0, 0.35)
