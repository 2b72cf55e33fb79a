# ruff: noqa: E402  (flags are checked before torch is imported)
"""Audio files of any length, rate and channel count, at full bandwidth.

    python -m saga_sr.upsample recording.mp3 --model MODEL --output restored.wav
    python -m saga_sr.upsample a.wav b.ogg folder/ --model MODEL --output restored/

and in Python ``upsample(model, audio, sample_rate)``. The result has 44.1 kHz, the length and the
channels of the input, its level, and its low band. What the flags do not give comes from the
model's own ``sampling`` block.

A folder's tree is kept below the output folder, where ``upsample.jsonl`` records what is done: the
same command continues an interrupted run and leaves finished files alone. A file that cannot be
used is reported and the others are done; docs/upsample.md explains the options.
"""

import argparse
import sys
from pathlib import Path

from saga_sr.errors import EXIT_PARTIAL, EXIT_USER_ERROR, UserError, run_cli

_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
_SOLVERS = ("euler", "midpoint", "heun", "ab2")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m saga_sr.upsample",
        description="Bring audio files to full bandwidth (44.1 kHz).",
        epilog="What is not given comes from the model's own sampling block (config.json).",
    )
    add = parser.add_argument
    add("inputs", nargs="+", type=Path, metavar="INPUT", help="audio files or folders")
    add("--model", required=True, help="folder of an exported model, or a hub id owner/name")
    add("--output", required=True, type=Path, help="a .wav or .flac file, or a folder")
    add("--overwrite", action="store_true", help="replace outputs that exist")
    add("--format", choices=("wav", "flac"), help="of files in an output folder (wav)")
    add("--bits", choices=("16", "24", "float"), help="float for WAV, 24 for FLAC")
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--target_rolloff",
        type=_fraction,
        help="how much high-frequency energy: the roll-off to aim at, in [0, 1) of 22050 Hz",
    )
    group.add_argument("--target_rolloff_hz", type=_positive_float, help="the same in Hz")
    add("--prompt", default="", help="what is heard, for models trained with text")
    add("--caption", choices=("off", "auto"), default="off", help="auto: Qwen2-Audio listens")
    add("--guidance_acoustic", type=float, help="s_a of eq. 4")
    add("--guidance_text", type=float, help="s_t of eq. 4")
    add("--num_steps", type=_positive_int, help="steps of the solver")
    add("--solver", choices=_SOLVERS)
    add("--seed", type=int, default=0)
    add("--num_candidates", type=_positive_int, default=1, help="seeds, each to its own file")
    add("--input_cutoff_hz", type=_positive_float, help="where the input's band ends (measured)")
    add("--crossover", choices=("soft", "hard"), default="soft")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    add(
        "--precision",
        choices=_PRECISIONS,
        default="32-true",
        help="of the DiT; bf16-mixed is much faster where the hardware has it",
    )
    add("--window_batch", type=_positive_int, help="segments per evaluation (by device)")
    return parser


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return value


def _positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 0 and below 1")
    return value


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    return build_parser().parse_args(argv)


if __name__ == "__main__":
    FLAGS = parse_args()

import hashlib
import json
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from saga_sr import __version__
from saga_sr.bandwidth import Bandwidth, measure_bandwidth
from saga_sr.config import SamplingSection, untrained_guidance
from saga_sr.files import remove_leftovers
from saga_sr.jobs import Job, Journal, collect_jobs
from saga_sr.longform import Progress, Settings, TextOfWindow, restore_stream
from saga_sr.lowfreq import Mode
from saga_sr.model import SAGASRModel
from saga_sr.rolloff import unit_to_hz
from saga_sr.streams import (
    ENCODINGS,
    ArraySource,
    AudioSource,
    FileSource,
    WrittenAudio,
    resampled,
    write_audio,
)
from saga_sr.text import TextEncoder

if TYPE_CHECKING:
    from saga_sr.captions import Captioner

_AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_BAR = "{l_bar}{bar}| {elapsed}<{remaining}"
_DEFAULT_BATCH = {"cpu": 4, "mps": 4, "cuda": 16}

Audio = TypeVar("Audio", Tensor, np.ndarray)


# ---------------------------------------------------------------------------- one call
@dataclass(frozen=True)
class UpsampleOptions:
    """What a user may choose; None is the model's own choice (its ``sampling`` block).

    Attributes:
        target_rolloff: how much high-frequency energy, in [0, 1) of the Nyquist frequency.
        target_rolloff_hz: the same in Hz.
        prompt: what is heard; "" is no text.
        caption: ``auto`` lets Qwen2-Audio write a prompt for each window of the input.
        guidance_acoustic, guidance_text: s_a and s_t of eq. (4).
        num_steps, solver: of the sampler.
        seed: of the noise.
        input_cutoff_hz: where the input's band ends; None is measured.
        crossover: ``soft`` or ``hard``.
        precision: of the DiT: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        window_batch: segments per evaluation of the model; None depends on the device.
    """

    target_rolloff: float | None = None
    target_rolloff_hz: float | None = None
    prompt: str = ""
    caption: Literal["off", "auto"] = "off"
    guidance_acoustic: float | None = None
    guidance_text: float | None = None
    num_steps: int | None = None
    solver: str | None = None
    seed: int = 0
    input_cutoff_hz: float | None = None
    crossover: Mode = "soft"
    precision: str = "32-true"
    window_batch: int | None = None


def upsample(
    model: SAGASRModel,
    audio: Audio,
    sample_rate: int,
    options: UpsampleOptions | None = None,
    progress: Progress | None = None,
) -> Audio:
    """Bring audio to the model's rate and to full bandwidth.

    Args:
        model: from `SAGASRModel.from_pretrained`, on the device that is to do the work.
        audio: [C, T] or [T], nominally in [-1, 1], tensor or array; any length and channel count.
        sample_rate: of ``audio`` in Hz.
        options: None is all defaults.
        progress: called with (segments evaluated now, segments to evaluate in all).

    Returns:
        [C, T'] or [T'] like ``audio``, float32 on the CPU, T' = round(T x 44100 / sample_rate), at
        the level of the input. It may go beyond full scale; nothing is clipped.

    Raises:
        UserError: the audio is empty or not finite, or an option does not suit the model.
    """
    tensor = torch.as_tensor(audio)
    if tensor.numel() == 0:
        raise UserError("the audio is empty")
    source = ArraySource(tensor.reshape(-1, tensor.shape[-1]), sample_rate)
    options = options or UpsampleOptions()
    bandwidth = measure_bandwidth(source, model.config.sample_rate)
    pieces = restored(model, source, options, bandwidth, progress)
    result = torch.cat(list(pieces), dim=-1).reshape(*tensor.shape[:-1], -1)
    return result if isinstance(audio, Tensor) else result.numpy()


def restored(
    model: SAGASRModel,
    source: AudioSource,
    options: UpsampleOptions,
    bandwidth: Bandwidth,
    progress: Progress | None = None,
) -> Iterator[Tensor]:
    """The stream behind `upsample`: pieces [C, n]. Full-band and silent sources pass through."""
    if passes_through(options, bandwidth):
        return resampled(source, model.config.sample_rate)
    return restore_stream(model, source, _settings(model, options, bandwidth), progress)


def passes_through(options: UpsampleOptions, bandwidth: Bandwidth) -> bool:
    """Whether there is nothing to add, or nothing to add it to."""
    return options.input_cutoff_hz is None and (bandwidth.is_full or bandwidth.is_silent)


def _settings(model: SAGASRModel, options: UpsampleOptions, bandwidth: Bandwidth) -> Settings:
    cutoff_hz = _cutoff_hz(model, options, bandwidth)
    device = next(model.dit.parameters()).device
    return Settings(
        sampling=_sampling(model, options),
        cutoff_hz=cutoff_hz,
        limit_input=cutoff_hz < bandwidth.end_hz,
        target_rolloff_hz=_target_hz(model, options),
        text=_text(model, options, device),
        seed=options.seed,
        batch=options.window_batch or _DEFAULT_BATCH.get(device.type, 4),
        mode=options.crossover,
        autocast=_AUTOCAST[options.precision],
    )


def _sampling(model: SAGASRModel, options: UpsampleOptions) -> SamplingSection:
    """The model's sampling block with what the user chose."""
    config = model.config
    if options.num_steps is not None:
        config = config.with_num_steps(options.num_steps)
    for name in ("guidance_acoustic", "guidance_text", "solver"):
        if getattr(options, name) is not None:
            config = config.replacing(f"sampling.{name}", getattr(options, name))
    if problems := untrained_guidance(config):
        raise UserError.listing("guidance that this model was not trained for", problems)
    return config.sampling


def _cutoff_hz(model: SAGASRModel, options: UpsampleOptions, bandwidth: Bandwidth) -> float:
    given, nyquist_hz = options.input_cutoff_hz, model.config.sample_rate / 2
    if given is None:
        return bandwidth.end_hz
    if not 0 < given < nyquist_hz:
        raise UserError(
            f"--input_cutoff_hz is {given:g}; allowed: above 0 and below {nyquist_hz:g}"
        )
    return given


def _target_hz(model: SAGASRModel, options: UpsampleOptions) -> float | None:
    config = model.config
    nyquist_hz = config.sample_rate / 2
    given = options.target_rolloff_hz is not None or options.target_rolloff is not None
    if not config.stage.rolloff:
        if given:
            raise UserError("--target_rolloff: this model was trained without --compute_rolloff")
        return None
    if options.target_rolloff_hz is not None:
        if not 0 <= options.target_rolloff_hz < nyquist_hz:
            found = f"{options.target_rolloff_hz:g}"
            raise UserError(f"--target_rolloff_hz is {found}; allowed: 0 to below {nyquist_hz:g}")
        return options.target_rolloff_hz
    unit = options.target_rolloff
    unit = config.sampling.target_rolloff if unit is None else unit
    if unit is None:
        return None  # what the low band of each window promises
    if not 0 <= unit < 1:
        raise UserError(f"--target_rolloff is {unit:g}; allowed: 0 to below 1")
    return unit_to_hz(unit, config.sample_rate).item()


def _text(
    model: SAGASRModel, options: UpsampleOptions, device: torch.device
) -> TextOfWindow | None:
    prompt, listens = options.prompt.strip(), options.caption == "auto"
    if not prompt and not listens:
        return None
    settings = model.config.text
    if not model.config.stage.text or settings is None:
        flag = "--caption auto" if listens else "--prompt"
        raise UserError(f"{flag}: this model was trained without text")
    if prompt and listens:
        raise UserError("--prompt and --caption auto: give one of them")
    encoder = TextEncoder(settings.t5_model_name, settings.max_length, device=device)
    if prompt:
        embedding = encoder.encode([prompt])
        return lambda _audio: embedding
    return _captions(encoder, model.config.sample_rate, device)


@lru_cache(maxsize=1)
def _captioner(device: str) -> "Captioner":
    """One for all files: it is 7 billion parameters large."""
    from saga_sr.captions import Captioner

    return Captioner(device=device)


def _captions(encoder: TextEncoder, sample_rate: int, device: torch.device) -> TextOfWindow:
    from saga_sr.captions import to_caption_audio

    captioner = _captioner(str(device))

    def heard(audio: Tensor) -> Tensor:
        clip = to_caption_audio(audio.numpy(force=True), sample_rate)
        return encoder.encode(captioner.caption([clip]))

    return heard


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
    journal: Journal | None
    fingerprint: str
    done: int = 0
    failed: int = 0

    def do(self, job: Job) -> None:
        try:
            self._do_candidates(job)
            self.done += 1
        except (UserError, OSError, torch.OutOfMemoryError) as error:
            self.failed += 1
            _say(f"error: {_message(job, error)}", sys.stderr)

    def _do_candidates(self, job: Job) -> None:
        outputs = _candidate_outputs(job.output, self.options.seed, self.flags.num_candidates)
        key = self._key(job)
        missing = [(seed, path) for seed, path in outputs if not self._is_done(path, key, seed)]
        for seed, path in outputs:
            if (seed, path) not in missing:
                _say(f"{path}: done before")
            elif path.exists() and (path.samefile(job.input) or not self.flags.overwrite):
                hint = "it is the input" if path.samefile(job.input) else "--overwrite replaces it"
                raise UserError(f"{path}: exists already ({hint})")
        if not missing:
            return
        source = FileSource(job.input)
        bandwidth = measure_bandwidth(source, self.model.config.sample_rate)
        _say(describe(source, bandwidth, self.options))
        for seed, path in missing:
            remove_leftovers(path)
            report = self._write(path, source, bandwidth, replace(self.options, seed=seed))
            if self.journal is not None:
                self.journal.add(path, key | {"seed": seed}, report)

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

    def _is_done(self, output: Path, key: dict[str, Any], seed: int) -> bool:
        return self.journal is not None and self.journal.is_done(output, key | {"seed": seed})

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
    return [(s, output.with_name(f"{output.stem}.seed{s}{output.suffix}")) for s in seeds]


def _encoding(path: Path, bits: str | None) -> str:
    return bits or ENCODINGS[path.suffix.lower()][0]


def describe(source: AudioSource, bandwidth: Bandwidth, options: UpsampleOptions) -> str:
    """One line on what an input is and what will be done with it."""
    duration_s = source.frames / source.sample_rate
    what = f"{source.name}: {source.sample_rate} Hz, {source.channels} ch, {duration_s:.2f} s"
    if bandwidth.is_silent:
        return f"{what}, silent: stays silent"
    what += f", roll-off {bandwidth.rolloff_hz:.0f} Hz, band ends at {bandwidth.end_hz:.0f} Hz"
    if passes_through(options, bandwidth):
        hint = "if that is hiss, give --input_cutoff_hz"
        return f"{what}: full-band already, passes through ({hint})"
    given = options.input_cutoff_hz
    return what if given is None else f"{what}, taken to end at {given:.0f} Hz"


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


def pick_device(name: str) -> torch.device:
    """The device that a ``--device`` flag names; ``auto`` takes the best there is.

    Raises:
        UserError: it is not on this machine.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next((kind for kind, there in available.items() if there), "cpu"))
    if not available.get(name, True):
        raise UserError(f"--device {name}: there is none on this machine; allowed: auto, cpu")
    return torch.device(name)


def _options(flags: argparse.Namespace) -> UpsampleOptions:
    names = UpsampleOptions.__dataclass_fields__
    return UpsampleOptions(**{name: getattr(flags, name) for name in names})


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
    jobs = collect_jobs(flags.inputs, flags.output, flags.format)
    _check_encodings(jobs, flags.bits)
    device, options = pick_device(flags.device), _options(flags)
    model = SAGASRModel.from_pretrained(flags.model)
    fingerprint = _fingerprint(model, flags, options)
    model = model.to(device)
    # A wrong option is one error, not one per file.
    _settings(model, options, Bandwidth(0.0, 1.0, model.config.sample_rate / 2))
    into_folder = jobs[0].output != flags.output
    if into_folder:
        _make_folder(flags.output)
    journal = Journal(flags.output) if into_folder else None
    run = _Run(model, flags, options, journal, fingerprint)
    try:
        for job in _with_count(jobs):
            run.do(job)
    except KeyboardInterrupt:
        _say("stopped; the same command goes on from here", sys.stderr)
        return 128 + signal.SIGINT
    if run.failed and len(jobs) > 1:
        print(f"{run.done} of {len(jobs)} files done, {run.failed} failed", file=sys.stderr)
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


if __name__ == "__main__":
    # A polite kill (a scheduler's) ends like Ctrl-C: temporary files go, the journal is whole.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run_cli(lambda: main(FLAGS)))
