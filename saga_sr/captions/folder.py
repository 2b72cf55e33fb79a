"""The captions of a folder, one file after the other, each kept as soon as it is there."""

import argparse
import math
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from tqdm import tqdm

from saga_sr.audio.index import AudioIndex
from saga_sr.captions.qwen import CAPTION_RATE, LOWPASS_RATE, Captioner, to_caption_audio
from saga_sr.data.caption_table import CaptionLog, CaptionRecord
from saga_sr.lowpass import apply_lowpass, field_lowpass
from saga_sr.support.errors import EXIT_PARTIAL, UserError
from saga_sr.support.files import sha256_of
from saga_sr.text import in_batches

Item = TypeVar("Item")


# --- audio ----------------------------------------------------------------------------------------
def split_seconds(duration_s: float, segment_s: float) -> list[tuple[float, float]]:
    """Equal parts of at most ``segment_s`` that cover [0, duration_s), to the millisecond."""
    count = max(math.ceil(duration_s / segment_s - 1e-9), 1)
    borders = [round(duration_s * i / count, 3) for i in range(count + 1)]
    return list(pairwise(borders))


# --- the job --------------------------------------------------------------------------------------
def shard_paths(output: Path, shard: tuple[int, int] | None) -> tuple[Path, list[Path]]:
    """The file that a process writes, and the others of the same job that exist.

    captions.jsonl is shared by all; the second of four shards writes captions.2of4.jsonl. A run
    without shard takes over what any shards have made.
    """
    pattern = re.compile(rf"{re.escape(output.stem)}\.\d+of\d+{re.escape(output.suffix)}")
    parts = output.parent.iterdir() if output.parent.is_dir() else []
    others = {path for path in parts if pattern.fullmatch(path.name)} | {output}
    own = output
    if shard is not None:
        own = output.with_name(f"{output.stem}.{shard[0]}of{shard[1]}{output.suffix}")
    return own, sorted(path for path in others - {own} if path.is_file())


@dataclass
class CaptionJob:
    """The clips of an audio folder that have no caption yet, read one after the other.

    Attributes:
        new, known: how many captions were made and were there before.
        failed: why, for each file that could not be read.
    """

    options: argparse.Namespace
    index: AudioIndex
    log: CaptionLog
    origin: CaptionRecord
    new: int = 0
    known: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def positions(self) -> range:
        """The files of this shard: every N-th one."""
        first, step = self.options.shard or (1, 1)
        return range(first - 1, len(self.index), step)

    def spans(self, position: int) -> list[tuple[float, float]]:
        return split_seconds(float(self.index.duration_s[position]), self.options.segment_s)

    def run(self, captioner: Captioner) -> None:
        """Caption what is missing, with a progress bar in clips."""
        total = sum(len(self.spans(position)) for position in self.positions)
        with tqdm(total=total, desc="captions", unit="clip") as bar:
            for clips in _read_ahead(in_batches(self._missing(bar), self.options.batch_size)):
                captions = captioner.caption([audio for _, audio in clips])
                self.log.append(
                    [
                        replace(record, caption=caption)
                        for (record, _), caption in zip(clips, captions, strict=True)
                    ]
                )
                self.new += len(clips)
                bar.update(len(clips))

    def _missing(self, bar: tqdm) -> Iterator[tuple[CaptionRecord, np.ndarray]]:
        """Clips without caption: a record whose caption is still empty, and its audio."""
        for position in self.positions:
            try:
                for record in self._records(position):
                    if self._is_known(record):
                        self.known += 1
                        bar.update()
                    else:
                        yield record, self._read(position, record)
            except UserError as error:
                self.failed[self.index.relative_path(position)] = str(error)

    def _records(self, position: int) -> list[CaptionRecord]:
        """The clips of a file, without captions."""
        path = self.index.relative_path(position)
        try:
            path.encode("utf-8")
            digest = sha256_of(self.index.path(position))
        except UnicodeEncodeError as error:
            raise UserError(f"{path!a}: its name is not UTF-8") from error
        except OSError as error:
            raise UserError(f"{path}: it cannot be read ({error.strerror})") from error
        return [
            replace(self.origin, path=path, start=start_s, end=end_s, hash=digest)
            for start_s, end_s in self.spans(position)
        ]

    def _is_known(self, record: CaptionRecord) -> bool:
        known = self.log.find(record)
        if known is not None and self.options.shard is None:
            self.log.append([known])
        return known is not None or self.log.is_by_hand(record)

    def _read(self, position: int, record: CaptionRecord) -> np.ndarray:
        """A clip as Qwen2-Audio takes it, low-passed first for ``--from lr``."""
        cutoff_hz = self.options.cutoff_hz
        rate = CAPTION_RATE if cutoff_hz is None else LOWPASS_RATE
        start, end = (round(seconds * rate) for seconds in record.key[1:])
        audio = self.index.read(position, start, end - start, rate)
        if cutoff_hz is not None:
            lowpass = field_lowpass(cutoff_hz)
            audio = apply_lowpass(torch.from_numpy(audio), rate, lowpass).numpy()
        return to_caption_audio(audio, rate)

    def summary(self) -> str:
        lines = [f"{self.log.path}: {self.new} new captions, {self.known} clips were known"]
        if self.failed:
            lines.append(f"{len(self.failed)} files failed and have no caption:")
            lines += [f"  {path}: {reason}" for path, reason in self.failed.items()]
        return "\n".join(lines)


def _read_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """``items``, each made in a thread while the one before it is used."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def caption_folder(options: argparse.Namespace) -> int:
    """Run the job that ``options`` describe; `EXIT_PARTIAL` if some files could not be read.

    Raises:
        UserError: nothing can be captioned: no audio, no model, or an output of another origin.
    """
    captioner = Captioner(
        options.model, options.device, options.dtype, options.style, options.max_new_tokens
    )
    index = AudioIndex.scan([options.audio_dir], flag="--audio_dir")
    origin = CaptionRecord("", "", model=captioner.name, cutoff_hz=options.cutoff_hz)
    log = CaptionLog(*shard_paths(options.output, options.shard), origin)
    if log.mended:
        print(f"{log.path}: its last line was cut short by a kill; that clip is done again")
    job = CaptionJob(options, index, log, origin)
    job.failed.update(index.unusable)
    try:
        job.run(captioner)
    finally:
        log.close()
        print(job.summary())
    return EXIT_PARTIAL if job.failed else 0
