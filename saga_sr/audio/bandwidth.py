"""Where the band of a recording ends, over time.

A full-band host may talk to a guest on the telephone; a broadcast changes between archive and
studio. So a band's end belongs to a stretch of a file. The file is read twice:

    chunks of 0.25 s --levels--> what each says of the end --cheapest path--> stretches
    each stretch     --pieces of 5 s, `band_of`, median by energy--> its end

A chunk says little: a vowel has no highs, a pause shows the hiss that lies under everything, a
click is full-band. Hence evidence is one-sided. A *filter's edge* (a fall for good as of
`band_end._FADES`) speaks for a low end; sound above an end speaks against it, unless it is no
louder than what lies above that edge in the chunks around; a chunk that is merely dull says next to
nothing; one that is much quieter than its surroundings says nothing at all. The cheapest sequence
of ends pays for what contradicts it and for every change, so that short events change nothing.

The channels of a source share a track, unless one of them falls away from another where the other
goes on, as a guest's does on whose side the telephone is: then each is measured alone.

Sounds of old devices, brought to a higher rate by repeating samples or by straight lines between
them, hold mirror images above their old Nyquist frequency. Their differences pulse at the
old rate, which gives them away; they are measured at that rate.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import soxr
import torch
from scipy import signal
from torch import Tensor

from saga_sr.audio.band_end import (
    _END_WINDOW_S,
    _FADES,
    _LOWEST_HZ,
    _MIN_BINS,
    _NOTHING_DB,
    _ROUNDING_POWER,
    _SILENT_MEAN_SQUARE,
    _STEPS,
    Band,
    band_of,
    is_clipped,
)
from saga_sr.audio.streams import AudioSource, ChannelSource, Reader, resampled
from saga_sr.rolloff import spectral_rolloff

FULL_BAND = 0.9  # of the Nyquist frequency; 19.8 kHz at 44.1 kHz
FADE_S = 0.02  # from one end to the next, on the side of the lower one
_PIECE_S, _CHUNK_S = 5.0, 0.25
_CHUNKS_AT_ONCE = 32
_EDGE_OF_CHUNK = (5 / 24, 22.0)  # (octaves, dB): a cliff as coarse levels show it
_EDGE_DB = 6.0
_QUIET_DB, _AROUND = 25.0, 12  # that much below the loudest of so many chunks around: no evidence
_HUM_HZ = 300.0  # what lies below does not make a chunk loud
_RESIDUE_DB, _RESIDUE_AROUND = 6.0, 40
_LEFT_BY_FILTER_DB = 35.0
_CHANGE, _DULL = 1.5, 0.05  # costs; sound an octave above an end costs 1 per chunk
_PAUSE = 0.003
_EDGE_SLOPE = 3.0  # a filter stays where it is: its edge tells an end to a third of an octave
_SAME_END = 1.15  # ends closer than this are one,
_NEARLY_FULL = 0.8  # and all above this, of the Nyquist frequency, beside full-band sound

# Rates of old devices and files, lowest first, and how deep differences pulse there.
_OLD_RATES = (4000, 5512.5, 6000, 8000, 11025, 11127, 12000, 16000, 22050, 24000, 32000)
_PULSE, _NARROW = 0.1, 3.0
_APART_DB = 20.0  # a step between channels that makes them be measured apart
_FAR_SOFTER_DB = 60.0  # than the loudest channel: crosstalk
_HELD_PASSBAND = 0.26  # of an old rate: repeated samples have lost 1 dB there (a sinc)
_BESIDE_HZ = (-83.0, -31.0, 29.0, 79.0)


# ---------------------------------------------------------------------------- the track
@dataclass(frozen=True)
class BandTrack:
    """Ends of the band, stretch by stretch.

    Attributes:
        starts: first sample of each stretch at the model's rate; the first is 0.
        ends_hz: of each stretch; the Nyquist frequency where there is nothing to add.
        passbands_hz: up to where each is untouched; not given, the ends.
    """

    starts: tuple[int, ...]
    ends_hz: tuple[float, ...]
    passbands_hz: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "passbands_hz", self.passbands_hz or self.ends_hz)

    @classmethod
    def constant(cls, end_hz: float) -> "BandTrack":
        return cls((0,), (end_hz,))

    def lowest(self, start: int, stop: int) -> Band:
        """The band with the lowest end within the samples [start, stop)."""
        bands = [Band(*ends) for ends in zip(self.ends_hz, self.passbands_hz, strict=True)]
        inside = [
            band
            for first, after, band in zip(self.starts, (*self.starts[1:], stop), bands, strict=True)
            if first < stop and after > start
        ]
        return min(inside, key=lambda band: band.end_hz, default=bands[-1])

    def weights(self, start: int, stop: int, fade: int) -> list[tuple[float, Tensor]]:
        """Which ends hold in [start, stop), and how much: (end in Hz, weights [stop - start]).

        The weights add up to 1. They change over ``fade`` samples on the side of the lower end:
        full-band sound is never faded.
        """
        position = torch.arange(start, stop, dtype=torch.float64)
        rising = [torch.ones_like(position)]
        for first, before_hz, after_hz in zip(
            self.starts[1:], self.ends_hz, self.ends_hz[1:], strict=False
        ):
            begin = first - fade if after_hz > before_hz else first
            rising.append(((position - begin + 0.5) / max(fade, 1)).clamp(0, 1))
        falling = [*rising[1:], torch.zeros_like(position)]
        found = []
        for end_hz, up, down in zip(self.ends_hz, rising, falling, strict=True):
            weight = up - down
            if bool((weight > 0).any()):
                found.append((end_hz, weight.float()))
        return found


@dataclass(frozen=True)
class Bandwidth:
    """The real bandwidth of a source, measured at the model's rate.

    Attributes:
        rolloff_hz: 98.5 % spectral roll-off, as the model was trained on.
        end_hz: where its band ends, for most of its energy; 0 for silence.
        nyquist_hz: of the model's rate.
        track: the same over time; not given, it is ``end_hz`` throughout.
        old_rate: of a device that left mirror images above half of it, in Hz; None for none.
        channels: each alone, where their bands end in different places; else empty.
    """

    rolloff_hz: float
    end_hz: float
    nyquist_hz: float
    track: BandTrack = field(default=None)  # type: ignore[assignment]
    old_rate: float | None = None
    channels: tuple["Bandwidth", ...] = ()

    def __post_init__(self) -> None:
        if self.track is None:
            band = Band(self.end_hz, self.end_hz)
            object.__setattr__(self, "track", _merged([0], [band], self.nyquist_hz))

    @property
    def is_silent(self) -> bool:
        return self.end_hz == 0

    @property
    def is_full(self) -> bool:
        """Whether there is nothing left for the model to add, anywhere."""
        if self.channels:
            return all(channel.is_full or channel.is_silent for channel in self.channels)
        return all(end_hz >= FULL_BAND * self.nyquist_hz for end_hz in self.track.ends_hz)

    @property
    def varies(self) -> bool:
        return len(self.track.ends_hz) > 1


# ---------------------------------------------------------------------------- measuring
def measure_bandwidth(source: AudioSource, sample_rate: int) -> Bandwidth:
    """Measure a source, which is read twice, and twice more for each channel where these differ;
    memory grows by 2 kB for a second of it."""
    chunks = _read_chunks(source, sample_rate)
    old_rate = chunks.old_rate()
    stretches = [(0, 0.0)] if old_rate else _stretches(chunks)
    whole = _measure_stretches(source, sample_rate, stretches, old_rate)
    if not chunks.channels_part():
        return whole
    channels = tuple(
        measure_bandwidth(ChannelSource(source, channel), sample_rate)
        for channel in range(source.channels)
    )
    ends_hz = [min(channel.track.ends_hz) for channel in channels if not channel.is_silent]
    return replace(whole, channels=channels) if _differ(ends_hz) else whole


def _differ(ends_hz: list[float]) -> bool:
    return max(ends_hz, default=1.0) > _SAME_END * min(ends_hz, default=1.0)


def _measure_stretches(
    source: AudioSource,
    sample_rate: int,
    stretches: list[tuple[int, float]],
    old_rate: float | None,
) -> Bandwidth:
    """Ends of (first chunk, coarse end) stretches, with the samples where they really change."""
    chunk, nyquist_hz = round(_CHUNK_S * sample_rate), sample_rate / 2
    reader = Reader(resampled(source, sample_rate))
    done, starts, bands = 0, [0], []
    measured: list[_Piece] = []
    for number, (_, coarse_hz) in enumerate(stretches):
        last = number + 1 == len(stretches)
        stop = None if last else stretches[number + 1][0] * chunk - chunk
        own = []
        while audio := _piece(reader, round(_PIECE_S * sample_rate), done, stop):
            own.append(_measured(audio[0], sample_rate, old_rate))
            done += audio[0].shape[-1]
        band = _band_of_most(own)
        if band.end_hz == 0 and len(stretches) > 1:
            band = Band(coarse_hz, coarse_hz)
        bands.append(band)
        measured += own
        if not last:
            region = reader.take(2 * chunk)
            lower_hz, upper_hz = sorted((coarse_hz, stretches[number + 1][1]))
            rises = coarse_hz == lower_hz
            change = _where_it_changes(region, sample_rate, lower_hz, upper_hz, rises)
            starts.append(done + change)
            done += region.shape[-1]
    audible = [piece for piece in measured if piece.band.end_hz > 0]
    rolloff_hz = _weighted_median([(piece.energy, piece.rolloff_hz) for piece in audible])
    whole, track = _band_of_most(measured), _merged(starts, bands, nyquist_hz)
    if len(track.ends_hz) == 1:
        track = _merged([0], [whole], nyquist_hz)
    return Bandwidth(rolloff_hz, whole.end_hz, nyquist_hz, track, old_rate)


@dataclass(frozen=True)
class _Piece:
    """What 5 s say."""

    energy: float
    rolloff_hz: float
    band: Band


def _band_of_most(pieces: list[_Piece]) -> Band:
    """Of most of the energy of what is heard."""
    audible = [piece for piece in pieces if piece.band.end_hz > 0]
    end_hz, passband_hz = (
        _weighted_median([(piece.energy, getattr(piece.band, name)) for piece in audible])
        for name in ("end_hz", "passband_hz")
    )
    return Band(end_hz, min(passband_hz, end_hz))


def _piece(reader: Reader, longest: int, done: int, stop: int | None) -> tuple[Tensor] | None:
    count = longest if stop is None else min(longest, stop - done)
    audio = reader.take(count) if count > 0 else None
    return (audio,) if audio is not None and audio.shape[-1] else None


def _measured(audio: Tensor, sample_rate: int, old_rate: float | None) -> _Piece:
    energy = audio.double().square().sum().item()
    if old_rate:
        slow = soxr.resample(audio.numpy().T, sample_rate, old_rate, quality="HQ")
        audio, sample_rate = torch.from_numpy(np.ascontiguousarray(slow.T)), round(old_rate)
    rolloff_hz = spectral_rolloff(audio[None], sample_rate).item()
    band = band_of(audio, sample_rate)
    if old_rate:
        band = replace(band, passband_hz=min(band.passband_hz, _HELD_PASSBAND * old_rate))
    return _Piece(energy, rolloff_hz, band)


def _merged(starts: list[int], bands: list[Band], nyquist_hz: float) -> BandTrack:
    """Stretches whose ends turn out alike become one."""
    kept: list[tuple[int, float, float]] = []
    full = FULL_BAND if len(starts) == 1 else _NEARLY_FULL
    for start, band in zip(starts, bands, strict=True):
        end_hz, passband_hz = band.end_hz, band.passband_hz
        if end_hz >= full * nyquist_hz:
            end_hz = passband_hz = nyquist_hz
        if kept and max(kept[-1][1], end_hz) <= _SAME_END * min(kept[-1][1], end_hz):
            continue
        kept.append((start, end_hz, passband_hz))
    return BandTrack(*(tuple(values) for values in zip(*kept, strict=True)))


def _where_it_changes(
    audio: Tensor, sample_rate: int, lower_hz: float, upper_hz: float, rises: bool
) -> int:
    """The sample of [C, n] from which (up to which) there is sound above the lower end.

    It may be anywhere in it: the chunks are no finer. What lies above the lower end in the outer
    eighth on its side is residue, and so is what a filter leaves, 35 dB below the band; the change
    is where these are left behind by 6 dB.
    """
    length, step = audio.shape[-1], max(round(0.002 * sample_rate), 1)
    samples = audio.double().numpy()
    samples = samples if rises else samples[:, ::-1]
    if length < 32 * step:
        return length
    hz = np.fft.rfftfreq(2 * length, 1 / sample_rate)
    mirrored = np.concatenate([samples, samples[:, ::-1]], axis=1)  # no step where it wraps round
    spectrum = np.fft.rfft(mirrored)
    highs, lows = (
        _block_power(np.fft.irfft(spectrum * band)[:, :length], step)
        for band in ((hz > 1.3 * lower_hz) & (hz < upper_hz), (hz > _HUM_HZ) & (hz < lower_hz))
    )
    residue = highs[: len(highs) // 8].max() + 10 ** (-_LEFT_BY_FILTER_DB / 10) * lows
    above = np.flatnonzero(highs > residue * 10 ** (_RESIDUE_DB / 10))
    change = int(above[0]) * step if len(above) else length
    return change if rises else length - change


def _block_power(samples: np.ndarray, step: int) -> np.ndarray:
    blocks = samples[:, : samples.shape[1] // step * step].reshape(len(samples), -1, step)
    return np.square(blocks).mean(axis=(0, 2)) + 1e-12


def _weighted_median(weighted: list[tuple[float, float]]) -> float:
    """The value at which half of the weight is reached; 0 of nothing."""
    half, reached = sum(weight for weight, _ in weighted) / 2, 0.0
    for weight, value in sorted(weighted, key=lambda pair: pair[1]):
        reached += weight
        if reached >= half:
            return value
    return 0.0


# ---------------------------------------------------------------------------- chunks
@dataclass(frozen=True)
class _Chunks:
    """What pieces of 0.25 s show.

    Attributes:
        grid_hz: [J], `_STEPS` to an octave.
        level_db: [K, J], median around each frequency.
        loudness_db: [K], without hum; -inf where all is clipped, which says nothing.
        pulse: [K, R], depth of the differences' pulse at each of `_OLD_RATES`.
        nyquist_hz: half of the rate.
        channel_db: [C, J], of each channel over the whole source.
    """

    grid_hz: np.ndarray
    level_db: np.ndarray
    loudness_db: np.ndarray
    pulse: np.ndarray
    nyquist_hz: float
    channel_db: np.ndarray

    def channels_part(self) -> bool:
        """Whether the level of one channel falls, within half an octave, by `_APART_DB` more than
        that of another. What is only softer or mixed otherwise does not."""
        top_db = self.channel_db.max(axis=1, initial=-np.inf)
        channel_db = self.channel_db[top_db > top_db.max(initial=-np.inf) - _FAR_SOFTER_DB]
        width = _STEPS // 2
        if len(channel_db) < 2 or channel_db.shape[1] < 3 * width:
            return False
        difference_db = channel_db[:, None] - channel_db  # [C, C, J]
        around = np.median(
            np.lib.stride_tricks.sliding_window_view(difference_db, width, axis=2), axis=3
        )
        step_db = around[..., : -3 * width // 2] - around[..., 3 * width // 2 :]
        return bool((step_db > _APART_DB).any())

    def speaks(self) -> np.ndarray:
        """[K]: whether a chunk is loud enough among those around it to say anything."""
        if not len(self.loudness_db):
            return np.zeros(0, bool)
        padded = np.pad(self.loudness_db, _AROUND, mode="edge")
        around = np.lib.stride_tricks.sliding_window_view(padded, 2 * _AROUND + 1).max(axis=1)
        silent_db = 10 * np.log10(_SILENT_MEAN_SQUARE)
        return (self.loudness_db > around - _QUIET_DB) & (self.loudness_db > silent_db)

    def old_rate(self) -> float | None:
        """The rate that most of what speaks pulses at, the lowest one; None for none."""
        speaks = self.speaks()
        if not speaks.any():
            return None
        depth = np.median(self.pulse[speaks], axis=0)
        found = np.flatnonzero(depth > _PULSE)
        return _OLD_RATES[found[0]] if len(found) else None


def _read_chunks(source: AudioSource, sample_rate: int) -> _Chunks:
    chunk = round(_CHUNK_S * sample_rate)
    grid_hz, _ = _grid(sample_rate)
    levels, loudness, pulses = [], [], []
    of_channels: np.ndarray | float = 0.0
    for audio in _blocks(source, sample_rate, chunk):
        by_channel, clear = _chunk_power(audio, sample_rate)
        of_channels = of_channels + by_channel.sum(axis=1)
        power = by_channel.sum(axis=0)
        hz_per_bin = sample_rate / 2 / (power.shape[1] - 1)
        levels.append(_chunk_levels(power, sample_rate))
        loud = power[:, round(_HUM_HZ / hz_per_bin) :].sum(axis=1) / power.shape[1]
        loudness.append(np.where(clear, 10 * np.log10(loud + 1e-30), -np.inf))
        pulses.append(_pulse(audio, sample_rate))
    if not levels:
        empty, nothing = np.zeros((0, len(_OLD_RATES))), np.zeros((0, len(grid_hz)))
        return _Chunks(grid_hz, nothing, np.zeros(0), empty, sample_rate / 2, nothing)
    return _Chunks(
        grid_hz,
        np.concatenate(levels),
        np.concatenate(loudness),
        np.concatenate(pulses),
        sample_rate / 2,
        _chunk_levels(np.asarray(of_channels), sample_rate),
    )


def _blocks(source: AudioSource, sample_rate: int, chunk: int) -> Iterator[np.ndarray]:
    """Whole chunks [C, k, chunk]; what is left at the end belongs to the one before it."""
    reader = Reader(resampled(source, sample_rate))
    while (audio := reader.take(_CHUNKS_AT_ONCE * chunk)).shape[-1] >= chunk:
        whole = audio.shape[-1] // chunk
        yield audio[:, : whole * chunk].reshape(audio.shape[0], whole, chunk).numpy()


def _chunk_power(audio: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """[C, k, n] -> power [C, k, F] of frames that are not clipped, which adds up to the mean over
    channels; whether there are any such frames [k]."""
    size = 2 * int(np.ceil(sample_rate * _END_WINDOW_S / 2))
    window = signal.windows.blackmanharris(size, sym=False).astype(np.float32)
    frames, clipped = (
        np.lib.stride_tricks.sliding_window_view(values, size, axis=2)[:, :, :: size // 2]
        for values in (audio, is_clipped(audio))
    )
    power = torch.fft.rfft(torch.from_numpy(frames * window)).abs().square().numpy()
    counts = np.asarray(~clipped.any(axis=3))  # [C, k, frames]
    clear = np.asarray(counts.any(axis=2).any(axis=0))
    counts |= ~clear[:, None]
    mean = (power * counts[..., None]).sum(axis=2) / counts.sum(axis=(0, 2))[:, None]
    return mean.astype(np.float64) / float(np.square(window.astype(np.float64)).sum()), clear


@lru_cache(maxsize=4)
def _grid(sample_rate: int) -> tuple[np.ndarray, tuple[tuple[int, int], ...]]:
    """Frequencies of the levels, and the bins around each."""
    size = 2 * int(np.ceil(sample_rate * _END_WINDOW_S / 2))
    bins_per_hz = size / sample_rate
    top_hz = 0.98 * sample_rate / 2
    octaves = max(np.log2(top_hz / _LOWEST_HZ), 1 / _STEPS)
    grid_hz = _LOWEST_HZ * 2 ** np.arange(0, octaves, 1 / _STEPS)
    half = np.maximum(grid_hz * (2 ** (1 / _STEPS) - 1) * bins_per_hz, _MIN_BINS)
    middle = grid_hz * bins_per_hz
    spans = zip(np.rint(middle - half).astype(int), np.rint(middle + half).astype(int), strict=True)
    return grid_hz, tuple((max(a, 0), b + 1) for a, b in spans)


def _chunk_levels(power: np.ndarray, sample_rate: int) -> np.ndarray:
    _, spans = _grid(sample_rate)
    decibel = 10 * np.log10(power + 1e-30)
    return np.stack([np.median(decibel[:, a:b], axis=1) for a, b in spans], axis=1)


def _pulse(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """[C, k, n] -> [k, R]: how deep the power of the first or second difference pulses at
    `_OLD_RATES`.

    Between the samples of an old rate a straight line has no second difference, and steps no first
    one. Noise pulses by about 1 / sqrt(n).
    """
    return np.maximum(*(_pulse_of(np.diff(audio, order, axis=2), sample_rate) for order in (1, 2)))


def _pulse_of(difference: np.ndarray, sample_rate: int) -> np.ndarray:
    power = np.square(difference).sum(axis=0)  # [k, n]
    time_s = np.arange(power.shape[1]) / sample_rate
    total = power.sum(axis=1, keepdims=True) + 1e-20
    depth, beside = (
        np.abs(power @ np.exp(-2j * np.pi * np.outer(time_s, hz))) / total
        for hz in (_OLD_RATES, np.add.outer(_OLD_RATES, _BESIDE_HZ).ravel())
    )
    # An attack is short and has energy beside the line as well.
    beside = beside.reshape(len(depth), len(_OLD_RATES), -1).max(axis=2)
    depth = np.where(depth > _NARROW * beside, depth, 0.0)
    # The old rate must be slower than this one, and its images must lie in what can be heard.
    slower = np.array(_OLD_RATES) < 0.9 * sample_rate
    return np.where(slower, depth, 0.0)


# ---------------------------------------------------------------------------- the path
def _stretches(chunks: _Chunks) -> list[tuple[int, float]]:
    """(first chunk, coarse end in Hz) of each stretch, by the cheapest path through all chunks."""
    if len(chunks.level_db) == 0 or len(chunks.grid_hz) < _STEPS:
        return [(0, 0.0)]
    speaks = chunks.speaks()
    end, is_filtered = _chunk_ends(chunks)
    costs, states = _costs(chunks.level_db, end, is_filtered, speaks)
    path = _cheapest_path(costs, _CHANGE)
    first = np.flatnonzero(np.diff(path, prepend=-1))
    top_hz = chunks.nyquist_hz
    return [
        (int(k), top_hz if path[k] == len(states) - 1 else float(chunks.grid_hz[states[path[k]]]))
        for k in first
    ]


def _chunk_ends(chunks: _Chunks) -> tuple[np.ndarray, np.ndarray]:
    """[K] steps of the grid at which chunks end (J: nowhere); whether it is a filter's edge."""
    level_db = chunks.level_db
    num_chunks, num_steps = level_db.shape
    highest_above = np.maximum.accumulate(level_db[:, ::-1], axis=1)[:, ::-1]
    start = np.full(num_chunks, num_steps)
    for octaves, least_db in (_EDGE_OF_CHUNK, *_FADES):
        width = round(octaves * _STEPS)
        falls = level_db[:, :-width] - highest_above[:, width:] >= least_db
        first = np.where(falls.any(axis=1), falls.argmax(axis=1), num_steps)
        start = np.minimum(start, first)
    is_filtered = start < num_steps
    at_start = level_db[np.arange(num_chunks), np.minimum(start, num_steps - 1)]
    nothing_db = np.maximum(10 * np.log10(_ROUNDING_POWER), level_db.max(axis=1) - _NOTHING_DB)
    threshold = np.where(is_filtered, at_start - _EDGE_DB, nothing_db)
    above = level_db > threshold[:, None]
    last = num_steps - 1 - above[:, ::-1].argmax(axis=1)
    last = np.where(above.any(axis=1), last, 0)
    full = chunks.grid_hz[last] >= FULL_BAND * chunks.nyquist_hz
    return np.where(full, num_steps, last), is_filtered & ~full


def _costs(
    level_db: np.ndarray, end: np.ndarray, is_filtered: np.ndarray, speaks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """[K, S]: what each end costs in each chunk, and the steps of the S ends; the last is full."""
    num_steps = level_db.shape[1]
    states = np.unique(np.append(end[is_filtered & speaks] // 2 * 2, num_steps))
    costs = np.zeros((len(end), len(states)))
    for column, state in enumerate(states):
        slope = np.where(is_filtered, _EDGE_SLOPE, 1.0)
        too_low = np.clip(slope * (end - state - 2) / _STEPS, 0, 1)  # octaves of sound above
        too_high = np.clip(slope * (state - end - 2) / _STEPS, 0, 1)
        explained = _is_residue(level_db, state, is_filtered & speaks & (end <= state + 2))
        against = np.where(explained, 0.0, too_low) + np.where(
            is_filtered, too_high, _DULL * too_high
        )
        # What says nothing goes with the fuller side: a pause is not worth restoring.
        costs[:, column] = np.where(speaks, against, _PAUSE * (num_steps - state) / _STEPS)
    return costs, states


def _is_residue(level_db: np.ndarray, state: int, filtered: np.ndarray) -> np.ndarray:
    """[K]: whether what lies above an end is no louder than under the edges of chunks around."""
    above = level_db[:, min(state + 4, level_db.shape[1]) :]
    if above.shape[1] == 0 or not filtered.any():
        return np.zeros(len(level_db), bool)
    power = np.where(filtered[:, None], 10 ** (above / 10), 0.0)
    summed, count = (
        _sum_around(values, _RESIDUE_AROUND) for values in (power, filtered[:, None].astype(float))
    )
    residue_db = 10 * np.log10(summed / np.maximum(count, 1) + 1e-30)
    excess_db = (above - residue_db).max(axis=1)
    return (count[:, 0] > 0) & (excess_db < _RESIDUE_DB)


def _sum_around(values: np.ndarray, reach: int) -> np.ndarray:
    """[K, n]: sum over the rows up to ``reach`` away."""
    total = np.concatenate([np.zeros((1, values.shape[1])), values.cumsum(axis=0)])
    row = np.arange(len(values))
    return total[np.minimum(row + reach + 1, len(values))] - total[np.maximum(row - reach, 0)]


def _cheapest_path(costs: np.ndarray, change: float) -> np.ndarray:
    """[K] columns of the least sum of costs [K, S] and of ``change`` for every change (Viterbi)."""
    num_chunks, num_states = costs.shape
    came_from = np.zeros((num_chunks, num_states), np.int32)
    total = costs[0].copy()
    for k in range(1, num_chunks):
        best = int(total.argmin())
        jumps = total[best] + change < total
        came_from[k] = np.where(jumps, best, np.arange(num_states))
        total = np.where(jumps, total[best] + change, total) + costs[k]
    path = np.empty(num_chunks, np.int64)
    path[-1] = total.argmin()
    for k in range(num_chunks - 1, 0, -1):
        path[k - 1] = came_from[k, path[k]]
    return path
