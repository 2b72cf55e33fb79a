"""Audio files of any length, rate and channel count, at full bandwidth.

    saga-sr upsample recording.m4a
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
import signal
from pathlib import Path

from saga_sr.support.arguments import finite_float, fraction, positive_float, positive_int
from saga_sr.support.choices import AUTO_PRECISIONS, CROSSOVERS, DEVICES, SOLVERS
from saga_sr.support.errors import run_cli


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m saga_sr.upsample",
        description="Bring audio files to full bandwidth (44.1 kHz).",
        epilog="What is not given comes from the model's own sampling block (config.json).",
    )
    add = parser.add_argument
    add("inputs", nargs="+", type=Path, metavar="INPUT", help="audio files or folders")
    add("--model", help="folder of an exported model, or a hub id owner/name (the shipped model)")
    add("--output", type=Path,
        help="a .wav or .flac file, or a folder (old.restored.wav beside old.mp3, and "
        "recordings.restored beside a folder recordings)")  # fmt: skip
    add("--overwrite", action="store_true", help="replace outputs that exist")

    sound = parser.add_argument_group("what it shall sound like")
    target = sound.add_mutually_exclusive_group()
    target.add_argument("--target_rolloff", type=fraction, metavar="X",
        help="how much high-frequency energy: the roll-off to aim at, in [0, 1) of 22050 Hz; 0: as "
        "the model thinks, if it has learnt to",
    )  # fmt: skip
    target.add_argument("--target_rolloff_hz", type=positive_float, metavar="HZ",
        help="the same in Hz")  # fmt: skip
    add = sound.add_argument
    add("--prompt", default="", metavar="TEXT", help="what is heard, for models trained with text")
    add("--caption", choices=("off", "auto"), default="off", help="auto: Qwen2-Audio listens")
    add("--seed", type=int, default=0, metavar="N", help="(0)")
    add("--num_candidates", type=positive_int, default=1, metavar="N",
        help="seeds, each to its own file (1)")  # fmt: skip

    files = parser.add_argument_group("output files")
    add = files.add_argument
    add("--format", choices=("wav", "flac"), help="of files in an output folder (wav)")
    add("--bits", choices=("16", "24", "float"), help="float for WAV, 24 for FLAC")

    machine = parser.add_argument_group("speed")
    add = machine.add_argument
    add("--num_steps", type=positive_int, metavar="N", help="steps of the solver")
    add("--device", choices=DEVICES, default="auto")
    add("--precision", choices=AUTO_PRECISIONS, default="32-true",
        help="of the DiT; auto: bf16-mixed where that is fast (32-true)")  # fmt: skip
    add("--window_batch", type=positive_int, metavar="N",
        help="segments per evaluation (by device)")  # fmt: skip

    rare = parser.add_argument_group("rare")
    add = rare.add_argument
    add("--level_gain_db", type=finite_float, metavar="DB",
        help="what the new band is raised by, of models with levels (the model's own)")  # fmt: skip
    add("--guidance_acoustic", type=finite_float, metavar="S_A", help="s_a of eq. (4)")
    add("--guidance_text", type=finite_float, metavar="S_T", help="s_t of eq. (4)")
    add("--solver", choices=SOLVERS)
    add("--emulate_linear_steps", type=positive_int, metavar="N",
        help="of the t-schedule: small steps first, as in N linear ones")  # fmt: skip
    add("--input_cutoff_hz", type=positive_float, metavar="HZ",
        help="where the input's band ends (measured)")  # fmt: skip
    add("--crossover", choices=CROSSOVERS, default="soft",
        help="hard: the paper's, with its seam; off: the pure model")  # fmt: skip
    return parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    return build_parser().parse_args(argv)


def run() -> int:
    """Upsample the files that the flags name; returns the exit code."""
    flags = parse_args()
    # A polite kill (a scheduler's) ends like Ctrl-C: temporary files go, the journal is whole.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from saga_sr.upsample.command import main

    return main(flags)


if __name__ == "__main__":
    raise SystemExit(run_cli(run))
