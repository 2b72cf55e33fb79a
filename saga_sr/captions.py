"""Captions of an audio folder by Qwen2-Audio: the text that training reads (paper Sec. 3).

    python -m saga_sr.captions --audio_dir DIR                        # DIR/captions.jsonl
    python -m saga_sr.captions --audio_dir DIR --from lr --cutoff_hz 4000
    for i in 1 2 3 4; do                                              # four GPUs
        CUDA_VISIBLE_DEVICES=$((i - 1)) python -m saga_sr.captions --audio_dir DIR --shard $i/4 &
    done; wait
    python -m saga_sr.captions --audio_dir DIR                        # joins the four files

Each caption is appended as soon as it is there, so a killed run goes on where it was. A file is
captioned again only where its contents changed. Lines without a ``hash`` are written by hand: they
are kept, and the model is not asked about their files. See docs/captions.md.
"""

# ruff: noqa: E402
import argparse
import re
from pathlib import Path

from saga_sr.errors import EXIT_PARTIAL, UserError, run_cli

DEFAULT_MODEL = "Qwen/Qwen2-Audio-7B"
DTYPES = ("auto", "fp32", "fp16", "bf16", "4bit")
STYLES = ("auto", "caption", "chat")
MAX_SEGMENT_S = 30.0  # Qwen2-Audio's encoder drops what lies beyond
MAX_CUTOFF_HZ = 8000.0  # half of the 16 kHz that Qwen2-Audio hears


def build_parser() -> argparse.ArgumentParser:
    summary, examples = (__doc__ or "").split("\n", 1)
    parser = argparse.ArgumentParser(
        prog="python -m saga_sr.captions",
        description=summary,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--audio_dir", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="default: captions.jsonl in DIR (captions.lr4000.jsonl for --from lr at 4000 Hz)",
    )
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="hub id or local folder of a Qwen2-Audio model (default: %(default)s)",
    )
    parser.add_argument(
        "--style",
        choices=STYLES,
        default="auto",
        help="caption: the authors' prompt; chat: the same request through the model's chat "
        "template; auto: chat where the model's name says Instruct",
    )
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="4bit needs bitsandbytes")
    parser.add_argument("--device", help="cuda, cuda:1, cpu, ... (default: cuda if there is one)")
    parser.add_argument("--batch_size", type=int, default=8, help="clips per model call")
    parser.add_argument(
        "--segment_s",
        type=float,
        default=10.0,
        help="longer files are captioned in equal parts of at most this (default: %(default)s)",
    )
    parser.add_argument("--max_new_tokens", type=int, default=256, help="of a caption")
    parser.add_argument("--shard", metavar="I/N", help="caption the I-th of N parts (1/4 .. 4/4)")
    parser.add_argument(
        "--from",
        dest="source",
        choices=("hr", "lr"),
        default="hr",
        help="caption the files as they are, or low-passed as the model will get them",
    )
    parser.add_argument("--cutoff_hz", type=float, help="of the low-pass of --from lr")
    return parser


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the flags, without torch.

    Raises:
        UserError: lists every flag whose value cannot be.
    """
    options = build_parser().parse_args(argv)
    problems = [
        f"--{name} is {getattr(options, name)}, at least 1 is needed"
        for name in ("batch_size", "max_new_tokens")
        if getattr(options, name) < 1
    ]
    if not 1 <= options.segment_s <= MAX_SEGMENT_S:
        problems.append(f"--segment_s is {options.segment_s:g}, allowed: 1 to {MAX_SEGMENT_S:g}")
    if (options.source == "lr") != (options.cutoff_hz is not None):
        problems.append("--from lr and --cutoff_hz go together")
    elif options.source == "lr" and not 0 < options.cutoff_hz < MAX_CUTOFF_HZ:
        problems.append(
            f"--cutoff_hz is {options.cutoff_hz:g}, it must lie between 0 and {MAX_CUTOFF_HZ:g}: "
            "Qwen2-Audio hears nothing above"
        )
    options.shard, problem = _parse_shard(options.shard)
    if problems + problem:
        raise UserError.listing("the flags cannot be used", problems + problem)
    if options.output is None:
        kind = "" if options.cutoff_hz is None else f".lr{options.cutoff_hz:g}"
        options.output = options.audio_dir / f"captions{kind}.jsonl"
    return options


def _parse_shard(text: str | None) -> tuple[tuple[int, int] | None, list[str]]:
    if text is None:
        return None, []
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        return None, [f"--shard is {text}, it must be I/N with I from 1 to N, such as 1/4"]
    return (int(match[1]), int(match[2])), []


OPTIONS: argparse.Namespace | None = None
if __name__ == "__main__":

    def _read_flags() -> None:
        global OPTIONS
        OPTIONS = parse_options()

    if code := run_cli(_read_flags):
        raise SystemExit(code)

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import soxr
import torch
from tqdm import tqdm

from saga_sr.audio_files import AudioIndex
from saga_sr.caption_table import CaptionLog, CaptionRecord
from saga_sr.files import sha256_of
from saga_sr.hub import load_frozen
from saga_sr.lowpass import apply_lowpass, field_lowpass
from saga_sr.text import in_batches, tidy_text

Item = TypeVar("Item")

CAPTION_RATE = 16000  # Hz, mono: what Qwen2-Audio takes
LOWPASS_RATE = 44100  # Hz: the low-pass is the one of the super-resolution model
MIN_CLIP_S = 0.5  # shorter clips are filled up; below 0.1 s the model crashes: no audio token
REQUEST = "Generate the caption in English:"
CAPTION_PROMPT = f"<|audio_bos|><|AUDIO|><|audio_eos|>{REQUEST}"
QWEN_ADVICE = (
    "Captions need a Qwen2-Audio model (17 GB in half precision). Where there is a network, "
    f"`hf download {DEFAULT_MODEL} --local-dir qwen2-audio` fetches it; bring that folder here and "
    "give it as --model. Training needs no captions: transcripts or no text do, and F0 "
    "(cross_attention_cond_ids: []) uses neither."
)


# --- the model ------------------------------------------------------------------------------------


class Captioner:
    """Qwen2-Audio: mono 16 kHz clips in, captions out. Loaded with the first clip.

    Decoding is greedy, so that a clip has one caption whatever else is in its batch or run.

    Args:
        model: hub id or local folder.
        device: where it runs; by default a GPU if there is one.
        dtype: of `DTYPES`; auto is bf16 or fp16 on a GPU and fp32 elsewhere.
        style: of `STYLES`.
        max_new_tokens: longest caption, in tokens; the authors' is 256.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        device: str | None = None,
        dtype: str = "auto",
        style: str = "auto",
        max_new_tokens: int = 256,
    ) -> None:
        self.model = model
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = dtype
        self.is_chat = style == "chat" or (style == "auto" and "instruct" in model.lower())
        self.max_new_tokens = max_new_tokens

    @property
    def name(self) -> str:
        """The model as captions.jsonl names it: without folders of this machine."""
        return Path(self.model).resolve().name if Path(self.model).is_dir() else self.model

    def caption(self, clips: Sequence[np.ndarray]) -> list[str]:
        """A caption, on one line, for each clip: float32 [T] in [-1, 1], 16 kHz, up to 30 s.

        Raises:
            UserError: the model cannot be had, or the batch does not fit into the GPU's memory.
        """
        processor, network = self._loaded
        inputs = processor(
            text=[self._prompt] * len(clips),
            audio=[_fill_up(clip) for clip in clips],
            sampling_rate=CAPTION_RATE,
            return_tensors="pt",
            padding=True,
        ).to(self.device)
        inputs["input_features"] = inputs["input_features"].to(network.dtype)
        try:
            tokens = network.generate(**inputs, max_new_tokens=self.max_new_tokens, **GREEDY)
        except torch.cuda.OutOfMemoryError as error:
            raise UserError(
                f"{len(clips)} clips at once do not fit into the memory of {self.device}: "
                "use a smaller --batch_size, or --dtype 4bit"
            ) from error
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        return [tidy_text(text) for text in processor.batch_decode(answers, **WORDS_ONLY)]

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        processor, network = load_frozen(
            self.model,
            "AutoProcessor",
            "Qwen2AudioForConditionalGeneration",
            ("qwen2_audio",),
            QWEN_ADVICE,
            **_precision(self.dtype, self.device),
        )
        processor.tokenizer.padding_side = "left"  # a decoder goes on from the right end
        return processor, network if self.dtype == "4bit" else network.to(self.device)

    @cached_property
    def _prompt(self) -> str:
        if not self.is_chat:
            return CAPTION_PROMPT
        content = [{"type": "audio"}, {"type": "text", "text": REQUEST}]
        processor, _ = self._loaded
        return processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )


# The published generation settings draw words at random; None takes their parameters away.
GREEDY = {"do_sample": False, "num_beams": 1, "temperature": None, "top_p": None, "top_k": None}
WORDS_ONLY = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}


def _fill_up(clip: np.ndarray) -> np.ndarray:
    missing = round(MIN_CLIP_S * CAPTION_RATE) - len(clip)
    return np.pad(clip, (0, max(missing, 0)))


def _precision(dtype: str, device: torch.device) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` for a ``--dtype``."""
    if dtype == "4bit":
        return _four_bit(device)
    if dtype == "auto":
        half = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp16"
        dtype = "fp32" if device.type == "cpu" else half
    return {"dtype": {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[dtype]}


def _four_bit(device: torch.device) -> dict[str, Any]:
    missing = [name for name in ("bitsandbytes", "accelerate") if find_spec(name) is None]
    if missing or device.type != "cuda":
        raise UserError(
            "--dtype 4bit needs an NVIDIA GPU and the packages bitsandbytes and accelerate "
            f"(here: {device.type}; missing: {', '.join(missing) or 'none'}); "
            "pip install bitsandbytes accelerate"
        )
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float16
    )
    return {"quantization_config": config, "device_map": {"": device}}


# --- audio ----------------------------------------------------------------------------------------


def split_seconds(duration_s: float, segment_s: float) -> list[tuple[float, float]]:
    """Equal parts of at most ``segment_s`` that cover [0, duration_s), to the millisecond."""
    count = max(math.ceil(duration_s / segment_s - 1e-9), 1)
    borders = [round(duration_s * i / count, 3) for i in range(count + 1)]
    return list(pairwise(borders))


def to_caption_audio(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """[C, T] of any rate to the mono 16 kHz [T] that Qwen2-Audio takes."""
    mono = audio.mean(axis=0, dtype=np.float32)
    return mono if sample_rate == CAPTION_RATE else soxr.resample(mono, sample_rate, CAPTION_RATE)


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


def main(argv: list[str] | None = None) -> int:
    """The command line: 0 all done, 1 some files failed, 2 a mistake in the flags."""
    return run_cli(lambda: caption_folder(OPTIONS or parse_options(argv)))


if __name__ == "__main__":
    raise SystemExit(main())
