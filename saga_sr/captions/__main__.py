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

import argparse
import re
from pathlib import Path

from saga_sr.captions import DEFAULT_MODEL
from saga_sr.support.errors import UserError, run_cli

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
    add = parser.add_argument
    add("--audio_dir", type=Path, required=True, metavar="DIR")
    add("--output", type=Path, metavar="FILE",
        help="default: captions.jsonl in DIR (captions.lr4000.jsonl for --from lr at 4000 Hz)",
    )  # fmt: skip
    add("--from", dest="source", choices=("hr", "lr"), default="hr",
        help="caption the files as they are, or low-passed as the model will get them",
    )  # fmt: skip
    add("--cutoff_hz", type=float, metavar="HZ", help="of the low-pass of --from lr")
    add("--segment_s", type=float, default=10.0, metavar="S",
        help="longer files are captioned in equal parts of at most this (default: %(default)s)",
    )  # fmt: skip

    machine = parser.add_argument_group("machine")
    add = machine.add_argument
    add("--device", help="cuda, cuda:1, cpu, ... (default: cuda if there is one)")
    add("--dtype", choices=DTYPES, default="auto", help="4bit needs bitsandbytes")
    add("--batch_size", type=int, default=8, metavar="N", help="clips per model call (8)")
    add("--shard", metavar="I/N", help="caption the I-th of N parts (1/4 .. 4/4)")

    rare = parser.add_argument_group("rare")
    add = rare.add_argument
    add("--model", default=DEFAULT_MODEL,
        help="hub id or local folder of a Qwen2-Audio model (default: %(default)s)")  # fmt: skip
    add("--style", choices=STYLES, default="auto",
        help="caption: the authors' prompt; chat: the same request through the model's chat "
        "template; auto: chat where the model's name says Instruct")  # fmt: skip
    add("--max_new_tokens", type=int, default=256, metavar="N", help="of a caption (256)")
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


def run() -> int:
    """Caption as the flags say; returns the exit code."""
    flags = parse_options()
    from saga_sr.captions.folder import caption_folder

    return caption_folder(flags)


if __name__ == "__main__":
    raise SystemExit(run_cli(run))
