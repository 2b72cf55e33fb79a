"""Many files with one model: what is done, what is left, and what is said of each."""

import argparse
import hashlib
import json
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from tqdm import tqdm

from saga_sr import __version__
from saga_sr.audio.bandwidth import Bandwidth, measure_bandwidth
from saga_sr.audio.file import resampled_length
from saga_sr.audio.scan import Scan
from saga_sr.audio.streams import (
    ENCODINGS,
    AudioSource,
    FileSource,
    SilentFilmError,
    WrittenAudio,
    write_audio,
)
from saga_sr.model import SAGASRModel
from saga_sr.support.device import pick_device
from saga_sr.support.errors import EXIT_PARTIAL, EXIT_USER_ERROR, UserError
from saga_sr.support.files import fitting_name, remove_leftovers
from saga_sr.support.shipped import shipped_model
from saga_sr.upsample.jobs import Job, Journal, collect_jobs
from saga_sr.upsample.options import UpsampleOptions, passes_through, resolve, restored

_BAR = "{l_bar}{bar}| {elapsed}<{remaining}"


# ---------------------------------------------------------------------------- command line
def model_fingerprint(model: SAGASRModel) -> str:
    """Hash of a model's config and weights, wherever they were loaded from."""
    digest = hashlib.blake2b(model.config.model_dump_json().encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _say(text: str, file: TextIO | None = None) -> None:
    """Print above the progress bars, at once: a pipe is to show it when it happens."""
    file = file or sys.stdout
    with tqdm.external_write_mode(file):
        print(text, file=file, flush=True)


@dataclass
class _Run:
    """One command: the model, the options, and what came of each file."""

    model: SAGASRModel
    flags: argparse.Namespace
    options: UpsampleOptions
    fingerprint: str
    journals: dict[Path, Journal] = field(default_factory=dict)  # output folder -> its journal
    done: int = 0
    failed: int = 0
    silent_films: int = 0

    def do(self, job: Job) -> None:
        try:
            self._do_candidates(job)
            self.done += 1
        except SilentFilmError as error:
            if job.root is None:  # asked for by name
                self.failed += 1
                _say(f"error: {error}", sys.stderr)
            else:
                self.silent_films += 1
                _say(f"{error}: left alone")
        except (UserError, OSError, torch.OutOfMemoryError) as error:
            self.failed += 1
            _say(f"error: {_message(job, error)}", sys.stderr)

    def _do_candidates(self, job: Job) -> None:
        outputs = _candidate_outputs(job.output, self.options.seed, self.flags.num_candidates)
        key = self._key(job)
        journal = None if job.root is None else self._journal(job.root)
        missing = [
            (seed, path)
            for seed, path in outputs
            if journal is None or not journal.is_done(path, key | {"seed": seed})
        ]
        for seed, path in outputs:
            if (seed, path) not in missing:
                _say(f"{path}: done before")
            elif path.exists() and (path.samefile(job.input) or not self.flags.overwrite):
                hint = "it is the input" if path.samefile(job.input) else "--overwrite replaces it"
                raise UserError(f"{path}: exists already ({hint})")
        if not missing:
            return
        source, rate = FileSource(job.input), self.model.config.sample_rate
        if resampled_length(source.frames, source.sample_rate, rate) == 0:
            found = f"{source.frames} samples at {source.sample_rate} Hz"
            raise UserError(f"{job.input}: too short: {found} are none at {rate} Hz")
        bandwidth = measure_bandwidth(source, rate)
        _say(describe(source, bandwidth, self.options))
        for seed, path in missing:
            remove_leftovers(path)
            report = self._write(path, source, bandwidth, replace(self.options, seed=seed))
            if journal is not None:
                journal.add(path, key | {"seed": seed}, report)

    def _key(self, job: Job) -> dict[str, Any]:
        """What a finished output must have been made from to be left alone."""
        try:
            status = job.input.stat()
        except OSError as error:
            raise UserError(f"{job.input}: {error.strerror}") from error
        return {
            "input": str(job.input),
            "input_bytes": status.st_size,
            "input_mtime_ns": status.st_mtime_ns,
            "made_by": self.fingerprint,
        }

    def _journal(self, folder: Path) -> Journal:
        if folder not in self.journals:
            _make_folder(folder)
            self.journals[folder] = Journal(folder)
        return self.journals[folder]

    def _write(
        self, path: Path, source: AudioSource, bandwidth: Bandwidth, options: UpsampleOptions
    ) -> dict[str, Any]:
        rate, encoding = self.model.config.sample_rate, _encoding(path, self.flags.bits)
        frames = round(source.frames * rate / source.sample_rate)
        start = time.perf_counter()
        with tqdm(desc=path.name, delay=1, disable=None, leave=False, bar_format=_BAR) as bar:

            def progress(now: int, total: int) -> None:
                bar.total = total
                bar.update(now)

            pieces = restored(self.model, source, options, bandwidth, progress)
            written = write_audio(path, pieces, rate, source.channels, frames, encoding)
        seconds = time.perf_counter() - start
        _say(_describe_result(path, written, encoding, rate, seconds))
        return {
            "rolloff_hz": round(bandwidth.rolloff_hz, 1),
            "band_end_hz": round(bandwidth.end_hz, 1),
            "band_track": [
                [start, round(end_hz, 1)]
                for start, end_hz in zip(
                    bandwidth.track.starts, bandwidth.track.ends_hz, strict=True
                )
            ],
            "passed_through": passes_through(options, bandwidth),
            "seconds": round(seconds, 3),
            **asdict(written),
        }


def _message(job: Job, error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return f"{job.input}: out of memory on the device; try a smaller --window_batch"
    return f"{job.output}: {error}"


def _candidate_outputs(output: Path, seed: int, count: int) -> list[tuple[int, Path]]:
    if count == 1:
        return [(seed, output)]
    seeds = range(seed, seed + count)
    return [
        (s, output.with_name(fitting_name(output.stem, f".seed{s}{output.suffix}"))) for s in seeds
    ]


def _encoding(path: Path, bits: str | None) -> str:
    return bits or ENCODINGS[path.suffix.lower()][0]


def describe(source: AudioSource, bandwidth: Bandwidth, options: UpsampleOptions) -> str:
    """One line on what an input is and what will be done with it."""
    duration_s = source.frames / source.sample_rate
    what = f"{source.name}: {source.sample_rate} Hz, {source.channels} ch, {duration_s:.2f} s"
    if notes := getattr(source, "notes", ()):
        what += f" ({'; '.join(map(str, notes))})"
    if bandwidth.is_silent:
        return f"{what}, silent: stays silent"
    what += f", roll-off {bandwidth.rolloff_hz:.0f} Hz, band ends at {bandwidth.end_hz:.0f} Hz"
    if bandwidth.old_rate is not None:
        what += f" (above: mirror images of {bandwidth.old_rate:g} Hz)"
    if passes_through(options, bandwidth):
        hint = "if that is hiss, give --input_cutoff_hz"
        return f"{what}: full-band already, passes through ({hint})"
    given = options.input_cutoff_hz
    if given is not None:
        return f"{what}, taken to end at {given:.0f} Hz"
    if bandwidth.channels:
        return what + _describe_channels(bandwidth)
    return what + _describe_changes(bandwidth)


def _describe_channels(bandwidth: Bandwidth) -> str:
    """Where each channel ends."""
    ends = [
        "is silent" if one.is_silent else "full-band" if one.is_full else f"{one.end_hz:.0f} Hz"
        for one in bandwidth.channels
    ]
    listed = ", ".join(f"{number} {end}" for number, end in enumerate(ends, 1))
    return f"; its channels differ: {listed} (--input_cutoff_hz takes one for all)"


def _describe_changes(bandwidth: Bandwidth) -> str:
    """Where the band's end changes, and how to overrule that; empty where it does not."""
    if not bandwidth.varies:
        return ""
    track, rate = bandwidth.track, 2 * bandwidth.nyquist_hz
    stretches = [
        f"{start / rate:.1f} s {'full-band' if end_hz >= bandwidth.nyquist_hz else f'{end_hz:.0f}'}"
        for start, end_hz in zip(track.starts, track.ends_hz, strict=True)
    ]
    more = f", and {len(stretches) - 8} more" if len(stretches) > 8 else ""
    listed = ", ".join(stretches[:8]) + more
    return f"; it changes: from {listed} (--input_cutoff_hz takes one for all)"


def _describe_result(
    path: Path, written: WrittenAudio, encoding: str, rate: int, seconds: float
) -> str:
    duration_s = written.frames / rate
    peak_db = 20 * np.log10(max(written.peak, 1e-10))
    line = f"  -> {path}: {duration_s:.2f} s in {seconds:.1f} s, peak {peak_db:+.1f} dBFS"
    if not written.over:
        return line
    fate = "kept as they are" if encoding == "float" else f"clipped by the {encoding} bit format"
    return f"{line}\n  {written.over} samples are over full scale and {fate}"


def _check_encodings(jobs: list[Job], bits: str | None) -> None:
    for suffix in {job.output.suffix.lower() for job in jobs}:
        if bits is not None and bits not in ENCODINGS[suffix]:
            allowed = ", ".join(ENCODINGS[suffix])
            raise UserError(f"--bits {bits}: a {suffix} file holds {allowed}")


def _fingerprint(model: SAGASRModel, flags: argparse.Namespace, options: UpsampleOptions) -> str:
    """Everything but the input and the seed that the samples of an output depend on."""
    chosen = asdict(replace(options, seed=0, window_batch=None))
    parts = [__version__, model_fingerprint(model), chosen, flags.bits]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def main(flags: argparse.Namespace) -> int:
    """Do what the flags say.

    Returns:
        0, 1 (some files failed), 2 (all of them), or 130 (stopped by Ctrl-C).
    """
    looked = Scan()
    jobs = collect_jobs(flags.inputs, flags.output, flags.format, looked)
    _check_encodings(jobs, flags.bits)
    device, options = pick_device(flags.device), UpsampleOptions.of(flags)
    model = SAGASRModel.from_pretrained(flags.model or shipped_model())
    fingerprint = _fingerprint(model, flags, options)
    model = model.to(device)
    # A wrong option is one error, not one per file.
    resolve(model, options, Bandwidth(0.0, 1.0, model.config.sample_rate / 2))
    for folder in {job.root for job in jobs if job.root is not None}:
        _make_folder(folder)
    if looked.others:
        _say(looked.others_text())
    run = _Run(model, flags, options, fingerprint)
    for path, problem in looked.unreadable:
        run.failed += 1
        _say(f"error: {path}: the folder cannot be looked into ({problem})", sys.stderr)
    try:
        for job in _with_count(jobs):
            run.do(job)
    except KeyboardInterrupt:
        _say("stopped; the same command goes on from here", sys.stderr)
        return 128 + signal.SIGINT
    if run.failed and run.failed + run.done > 1:
        count = len(jobs) - run.silent_films
        print(f"{run.done} of {count} files done, {run.failed} failed", file=sys.stderr)
    return 0 if not run.failed else EXIT_PARTIAL if run.done else EXIT_USER_ERROR


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {path}: the folder cannot be made ({error.strerror})") from error


def _with_count(jobs: list[Job]) -> Iterable[Job]:
    if len(jobs) == 1:
        return jobs
    return tqdm(jobs, desc="files", unit="file", disable=None)
