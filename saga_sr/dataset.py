"""Training samples (paper: random segments, low-passed), each a function of (seed, draw number).

The draw number is a position in one endless global sequence. `DrawSampler` deals the sequence out
to ranks, and a worker process only computes what it is told, so the items are the same for any
number of workers and ranks, and to resume is to start the sampler where it stopped.

    draw -> folder -> file -> crop -> HR -> low-pass -> LR        metadata: paths, cutoff, text

The low-pass is drawn here and applied by `degrade`: to a clip here, or to a batch by the trainer.

Crops are drawn by duration: every second of a folder is equally likely, and every folder is as
likely as the next, however big it is. Rules that would otherwise be accidents:

- A file shorter than the segment lies at a random place in it, with zeros around it. (Looping it
  would teach splices and rhythms that no recording has; a sound that begins and ends in silence is
  what the model meets at the ends of real files.)
- A mono file is copied to both channels of a stereo model.
- A stereo file gives a mono model one of its channels, drawn at random: never a mix-down, which
  cancels what is out of phase.
- A file with more channels than the model gives a mono model one at random, a stereo model its
  first two (front left and right in every common layout).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import wraps
from math import ceil
from pathlib import Path
from typing import Any, Protocol, TypeVar
from zlib import crc32

import numpy as np
import soxr
import torch
from scipy import signal
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from saga_sr.audio.band_end import spectrum_end_hz
from saga_sr.audio.file import resampled_length
from saga_sr.audio.index import AudioIndex
from saga_sr.degradation import Degradations
from saga_sr.lowpass import Lowpass, LowpassOptions, apply_lowpass, draw_lowpass
from saga_sr.rolloff import spectral_rolloff
from saga_sr.support.errors import UserError
from saga_sr.support.randomness import numpy_generator
from saga_sr.text import read_transcript, text_for_clip

Item = tuple[Tensor, dict[str, Any]]
Audio = TypeVar("Audio", Tensor, np.ndarray)
MAX_CATEGORIES = 12
BASS_CORNER_HZ = (60.0, 600.0)
SPEED_MARGIN = 512  # samples read on both sides for the resampling filter of a speed change


class Captions(Protocol):
    """What the dataset asks of a caption table (`saga_sr.text.CaptionTable`)."""

    def lookup(self, path: str, start_s: float, end_s: float) -> str | None: ...

    def captions_of(self, path: str) -> list[str]: ...


@dataclass(frozen=True)
class AugmentOptions:
    """Changes to the HR clip before it is low-passed; by default none.

    Attributes:
        gain_db: uniform in +- this many dB; less where the clip would pass full scale.
        flip_polarity: every second clip.
        swap_channels: every second clip.
        max_speed_change: tape speed between 1 / (1 + this) and 1 + this, log-uniform.
        mix_probability: how often a second clip of the index is added. The text stays the first's.
        mix_level_db: the second clip's gain is uniform from this to 0 dB.
        bass_db: the bass of every second clip is turned up or down, uniform in +- this many dB:
            how much there is of it says nothing of what is missing above.
    """

    gain_db: float = 0.0
    flip_polarity: bool = False
    swap_channels: bool = False
    max_speed_change: float = 0.0
    mix_probability: float = 0.0
    mix_level_db: float = -15.0
    bass_db: float = 0.0

    def __post_init__(self) -> None:
        for name in ("gain_db", "max_speed_change", "bass_db"):
            if (value := getattr(self, name)) < 0:
                raise UserError(f"augmentation: {name} {value:g} must be at least 0")
        if self.mix_level_db > 0:
            raise UserError(f"augmentation: mix_level_db {self.mix_level_db:g} must be at most 0")
        if not 0 <= self.mix_probability <= 1:
            raise UserError(
                f"augmentation: mix_probability {self.mix_probability:g} is not in 0..1"
            )


@dataclass(frozen=True)
class Crop:
    """A stretch of a file, counted in samples at the model's rate; it may start before the file."""

    position: int  # in the index
    start: int
    length: int


@dataclass(frozen=True)
class ClipReader:
    """Crops of an index as clips in the model's format, with their text.

    Attributes:
        index: the files.
        sample_size: samples per clip.
        sample_rate: in Hz.
        channels: 1 or 2.
        use_caption: whether the prompt uses captions (`saga_sr.text.text_for_clip`).
        captions: a caption table or None per folder of the index; None: no captions at all.
        with_text: whether clips have text at all; without, transcripts are not even looked for.
    """

    index: AudioIndex
    sample_size: int
    sample_rate: int = 44100
    channels: int = 2
    use_caption: bool = True
    captions: Sequence[Captions | None] | None = None
    with_text: bool = True

    def __post_init__(self) -> None:
        if self.channels not in (1, 2):
            raise ValueError(f"{self.channels} channels: models have 1 or 2")
        if self.captions is not None and len(self.captions) != len(self.index.folders):
            raise ValueError("one caption table (or None) per folder is expected")

    def draw_start(self, rng: np.random.Generator, position: int, length: int) -> Crop:
        """A stretch of ``length`` samples of a file; a shorter file lies anywhere inside it."""
        available = resampled_length(
            int(self.index.frames[position]),
            int(self.index.sample_rate[position]),
            self.sample_rate,
        )
        room = available - length
        start = int(rng.integers(abs(room) + 1))
        return Crop(position, start if room >= 0 else -start, length)

    def read(self, crop: Crop, rng: np.random.Generator) -> Tensor:
        """Decode a crop: float32 [channels, crop.length]; ``rng`` draws a mono model's channel."""
        audio = self.index.read(crop.position, crop.start, crop.length, self.sample_rate)
        if audio.shape[0] == 1:
            audio = np.repeat(audio, self.channels, axis=0)
        elif self.channels == 1:
            audio = audio[rng.integers(audio.shape[0])][None]
        return torch.from_numpy(np.ascontiguousarray(audio[: self.channels]))

    def text(self, crop: Crop) -> dict[str, Any]:
        """Metadata ``transcript``, ``caption`` (None where there is none) and ``prompt``."""
        transcript = read_transcript(self.index.path(crop.position)) if self.with_text else None
        caption = self.caption(crop)
        prompt = text_for_clip(caption, transcript, self.use_caption)
        return {"transcript": transcript, "caption": caption, "prompt": prompt}

    def texts(self) -> Iterator[tuple[str | None, str | None]]:
        """(caption, transcript) of consecutive segments of every file."""
        for position, duration_s in enumerate(self.index.duration_s):
            transcript = read_transcript(self.index.path(position))
            for start in range(0, max(1, int(duration_s * self.sample_rate)), self.sample_size):
                yield self.caption(Crop(position, start, self.sample_size)), transcript

    def possible_texts(self) -> Iterator[tuple[str | None, str | None]]:
        """Every (caption, transcript) that a crop can have, wherever it begins."""
        for position in range(len(self.index)):
            transcript = read_transcript(self.index.path(position))
            table = self.captions[self.index.folder_of[position]] if self.captions else None
            captions = table.captions_of(self.index.relative_path(position)) if table else []
            for caption in (None, *captions):
                yield caption, transcript

    def caption(self, crop: Crop) -> str | None:
        """The caption of the crop's seconds, where its folder has captions."""
        table = self.captions[self.index.folder_of[crop.position]] if self.captions else None
        if table is None:
            return None
        start_s = max(crop.start, 0) / self.sample_rate
        end_s = min(
            (crop.start + crop.length) / self.sample_rate,
            float(self.index.duration_s[crop.position]),
        )
        return table.lookup(self.index.relative_path(crop.position), start_s, end_s)

    def categories(self, positions: Sequence[int]) -> list[str]:
        """The category of files (music, speech, effects): the name of their folder where several
        are indexed, of their first subfolder otherwise; "" where that gives none, only one, or more
        than `MAX_CATEGORIES` (subfolders of speakers or albums are no categories)."""
        index = self.index
        if len(index.folders) > 1:
            folders = [Path(folder).resolve() for folder in index.folders]
            labels = [folder.name for folder in folders]
            if len(set(labels)) < len(labels):
                labels = [f"{folder.parent.name}-{folder.name}" for folder in folders]
            names = [labels[index.folder_of[position]] for position in positions]
        else:
            parents = [Path(index.relative_path(position)).parent for position in positions]
            names = [parent.parts[0] if parent.parts else "" for parent in parents]
        useful = 1 < len(set(names)) <= MAX_CATEGORIES
        return names if useful else [""] * len(names)

    def metadata(self, crop: Crop, lowpass: Lowpass) -> dict[str, Any]:
        """The keys of the user's plan that every item has, with ``lowpass`` for `degrade`."""
        return {
            "lowpass": asdict(lowpass),  # Lightning moves no frozen dataclass to a device
            "audio_path": str(self.index.path(crop.position)),
            "lr_cutoff_hz": lowpass.cutoff_hz,
            "lr_passband_hz": lowpass.passband_hz(self.sample_rate),
            **self.text(crop),
            "seconds_start": 0.0,
            "seconds_total": self.sample_size / self.sample_rate,
        }


def degrade(
    hr: Tensor, metadata: Sequence[dict[str, Any]], sample_rate: int
) -> list[dict[str, Any]]:
    """Low-pass a batch as its items say, on its device.

    Args:
        hr: [B, C, T].
        metadata: of the items, each with a ``lowpass`` (the fields of `Lowpass`).
        sample_rate: in Hz.

    Returns:
        The metadata with ``lr_audio`` [C, T] in place of ``lowpass``, and with ``rolloff_low`` (Hz)
        where it has ``rolloff_high``.
    """
    complete = [dict(item) for item in metadata]
    lowpass = [Lowpass(**item.pop("lowpass")) for item in complete]
    lr = apply_lowpass(hr, sample_rate, lowpass)
    for item, audio in zip(complete, lr, strict=True):
        item["lr_audio"] = audio
    if "rolloff_high" in metadata[0]:
        rolloff_hz = spectral_rolloff(lr, sample_rate).tolist()
        for item, one_hz in zip(complete, rolloff_hz, strict=True):
            item["rolloff_low"] = one_hz
    return complete


def one_thread(make_item: Callable[[Any, int], Item]) -> Callable[[Any, int], Item]:
    """Make an item with one thread: sums over two are rounded otherwise than a worker's are, and an
    item must not depend on who computes it."""

    @wraps(make_item)
    def wrapped(dataset: Any, number: int) -> Item:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return make_item(dataset, number)
        finally:
            torch.set_num_threads(threads)

    return wrapped


class SAGASRDataset(Dataset[Item]):
    """``dataset[draw]`` is (HR audio [C, T], metadata) of a position in the global sequence.

    Args:
        reader: where clips come from and what they look like.
        seed: of everything random here.
        lowpass: what the degradation is drawn from.
        compute_rolloff: put ``rolloff_low`` and ``rolloff_high`` (Hz) into the metadata.
        augment: changes to the HR clip; none by default.
        overfit_clips: repeat so many fixed items, low-pass included, for ever; 0 is off. Whether a
            model can memorise them is the first question of F0.
        defer_lowpass: leave the drawn low-pass in the metadata (``lowpass``), for `degrade`.
        measure_end: measure ``hr_end_hz``, which is half of an item's work: for targets that end
            there (`saga_sr.families.targets_end_with_spectrum`), and for metrics.
        degradations: what LR clips are made by; the paper's low-pass alone by default. Clips that
            another one made have ``degradation`` in their metadata.

    Metadata: ``lr_audio`` [C, T], ``audio_path``, ``lr_cutoff_hz``, ``lr_passband_hz``,
    ``transcript``, ``caption``, ``prompt``, ``seconds_start`` (0), ``seconds_total``, ``draw``,
    with ``measure_end`` ``hr_end_hz`` (where the HR clip's own spectrum ends,
    `saga_sr.audio.band_end.spectrum_end_hz`), and with ``compute_rolloff`` ``rolloff_low`` and
    ``rolloff_high``. With ``defer_lowpass``, ``lowpass`` is there instead of ``lr_audio``
    and ``rolloff_low``.
    """

    def __init__(
        self,
        reader: ClipReader,
        seed: int,
        lowpass: LowpassOptions | None = None,
        compute_rolloff: bool = False,
        augment: AugmentOptions | None = None,
        overfit_clips: int = 0,
        defer_lowpass: bool = False,
        measure_end: bool = True,
        degradations: Degradations | None = None,
    ) -> None:
        self.reader = reader
        self.seed = seed
        self.degradations = degradations or Degradations()
        self.lowpass = lowpass or LowpassOptions()
        self.compute_rolloff = compute_rolloff
        self.augment = augment or AugmentOptions()
        self.overfit_clips = overfit_clips
        self.defer_lowpass = defer_lowpass
        self.measure_end = measure_end

    @one_thread
    def __getitem__(self, draw: int) -> Item:
        repeated = draw % self.overfit_clips if self.overfit_clips else draw
        rng = numpy_generator("sample", self.seed, repeated)
        crop, hr = self._draw_clip(rng)
        hr = self._augment(hr, rng)
        rolloff_high_hz = clip_rolloff_hz(hr, self.reader.sample_rate)
        lowpass = draw_lowpass(rng, rolloff_high_hz, self.lowpass)
        metadata = self.reader.metadata(crop, lowpass) | {"draw": draw}
        if self.measure_end:
            metadata["hr_end_hz"] = spectrum_end_hz(hr, self.reader.sample_rate)
        if self.compute_rolloff:
            metadata["rolloff_high"] = rolloff_high_hz
        if self.defer_lowpass:
            return hr, metadata
        return hr, self._degraded(hr, lowpass, metadata, repeated)

    def _degraded(
        self, hr: Tensor, lowpass: Lowpass, metadata: dict[str, Any], draw: int
    ) -> dict[str, Any]:
        """The metadata with ``lr_audio``, by a generator of its own: clip and low-pass are those of
        a run with the low-pass alone."""
        rng, rate = numpy_generator("degradation", self.seed, draw), self.reader.sample_rate
        lr = self.degradations.make_lr(hr, lowpass, rng, rate)
        complete = metadata | {"lr_audio": lr.audio}
        del complete["lowpass"]
        if lr.degradation is not None:
            complete["lr_cutoff_hz"] = lr.kept.cutoff_hz
            complete["lr_passband_hz"] = lr.kept.passband_hz(rate)
            complete["degradation"] = str(lr.degradation)
        if self.compute_rolloff:
            complete["rolloff_low"] = clip_rolloff_hz(lr.audio, rate)
        return complete

    def _draw_clip(self, rng: np.random.Generator) -> tuple[Crop, Tensor]:
        """A crop and its audio [C, sample_size], played at a drawn speed."""
        size, change = self.reader.sample_size, self.augment.max_speed_change
        position = self.reader.index.draw(rng)
        if change == 0:
            crop = self.reader.draw_start(rng, position, size)
            return crop, self.reader.read(crop, rng)
        speed = float(np.exp(rng.uniform(-1, 1) * np.log1p(change)))
        crop = self.reader.draw_start(rng, position, ceil(size * speed))
        wider = Crop(position, crop.start - SPEED_MARGIN, crop.length + 2 * SPEED_MARGIN)
        audio = self.reader.read(wider, rng)
        return crop, _change_speed(audio, speed, round(SPEED_MARGIN / speed), size)

    def _augment(self, hr: Tensor, rng: np.random.Generator) -> Tensor:
        """Mix, gain, polarity, channel swap, bass, in this order; [C, T] -> [C, T]."""
        options = self.augment
        if options.mix_probability and rng.random() < options.mix_probability:
            _, other = self._draw_clip(rng)
            hr = hr + other * 10 ** (rng.uniform(options.mix_level_db, 0.0) / 20)
            hr = hr / hr.abs().max().clamp(min=1.0)
        if options.gain_db:
            gain = 10 ** (rng.uniform(-options.gain_db, options.gain_db) / 20)
            peak = float(hr.abs().max())
            hr = hr * (min(gain, 1 / peak) if gain > 1 and peak > 0 else gain)
        if options.flip_polarity and rng.random() < 0.5:
            hr = -hr
        if options.swap_channels and rng.random() < 0.5:
            hr = hr.flip(0)
        if options.bass_db and rng.random() < 0.5:
            level_db = rng.uniform(-options.bass_db, options.bass_db)
            corner_hz = float(np.exp(rng.uniform(*np.log(BASS_CORNER_HZ))))
            hr = _turn_bass(hr, level_db, corner_hz, self.reader.sample_rate)
            hr = hr / hr.abs().max().clamp(min=1.0)
        return hr

    def _apply_lowpass_filter(
        self,
        audio: Audio,
        sample_rate: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> tuple[Audio, float]:
        """Draw a low-pass for audio as training does, and apply it (the user's plan, section 0).

        Args:
            audio: [C, T] or [T], float, an array or a tensor.
            sample_rate: in Hz; None is the dataset's.
            rng: None makes the low-pass a function of the seed and the audio.

        Returns:
            The low-passed audio, like ``audio``, and the cutoff in Hz.
        """
        rate = sample_rate or self.reader.sample_rate
        hr = torch.as_tensor(audio)
        if rng is None:
            digest = crc32(hr.detach().cpu().contiguous().numpy().tobytes())
            rng = numpy_generator("lowpass", self.seed, digest)
        rolloff_hz = clip_rolloff_hz(hr.reshape(-1, hr.shape[-1]).float(), rate)
        lowpass = draw_lowpass(rng, rolloff_hz, self.lowpass)
        lr = apply_lowpass(hr, rate, lowpass)
        return lr if isinstance(audio, Tensor) else lr.numpy(), lowpass.cutoff_hz


def clip_rolloff_hz(audio: Tensor, sample_rate: int) -> float:
    return float(spectral_rolloff(audio[None], sample_rate)[0])


def _change_speed(audio: Tensor, speed: float, lead: int, length: int) -> Tensor:
    """Play [C, T] ``speed`` times as fast; keep ``length`` samples after the first ``lead``."""
    played = soxr.resample(audio.numpy().T, speed * 44100, 44100, quality="HQ")
    return torch.from_numpy(np.ascontiguousarray(played[lead : lead + length].T))


def _turn_bass(audio: Tensor, level_db: float, corner_hz: float, sample_rate: int) -> Tensor:
    """A shelf without phase: the gain is ``level_db`` far below the corner and 0 dB far above."""
    low = signal.butter(1, corner_hz, fs=sample_rate)
    bass = signal.filtfilt(*low, audio.numpy(), axis=-1)
    return audio + (10 ** (level_db / 20) - 1) * torch.from_numpy(bass.astype(np.float32))


class DrawSampler(Sampler[list[int]]):
    """Deals out the endless sequence of draws: the ``batch_sampler`` of a training DataLoader.

    Rank r of W takes draws start + r, start + r + W, ... in batches, so that after n batches the
    ranks together have taken exactly draws start .. start + n W B - 1, each once. To resume, with
    whatever world size, workers or batch size, start at the number of draws already taken.

    Args:
        batch_size: items per batch and rank.
        start: the first draw.
        rank, world_size: which share this process takes.
    """

    def __init__(self, batch_size: int, start: int = 0, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1:
            raise UserError(f"the batch size is {batch_size}; at least 1 is needed")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size}")
        self.batch_size = batch_size
        self.start = start
        self.rank = rank
        self.world_size = world_size

    @property
    def draws_per_batch(self) -> int:
        """How far one batch on every rank advances the global sequence."""
        return self.batch_size * self.world_size

    def __iter__(self) -> Iterator[list[int]]:
        first = self.start + self.rank
        while True:
            yield list(range(first, first + self.draws_per_batch, self.world_size))
            first += self.draws_per_batch


def collate(items: Sequence[Item]) -> tuple[Tensor, list[dict[str, Any]]]:
    """Items to (HR audio [B, C, T], list of their metadata)."""
    hr, metadata = zip(*items, strict=True)
    return torch.stack(hr), list(metadata)
