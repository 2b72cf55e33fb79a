"""Audio in, paired latents out: training then never waits for the frozen encoder.

    python -m saga_sr.pre_encode --audio_dir AUDIO --output_dir LATENTS \\
        --model_config saga_model_config.json --pretransform_ckpt vae.safetensors --variants 4
    python train_saga_sr.py --train_dir LATENTS ...
    python -m saga_sr.pre_encode ... --devices 8 --num_nodes 2      # the same command on each node

Every file is cut into segments, by default one after the other. Of each segment the HR latent is
stored once, and K LR latents, each from its own random low-pass (or what else --degradations names)
with its cutoff and both roll-offs.
Everything random is a function of the seed and the segment. The work is divided into shards, which
appear whole or not at all: a killed run goes on with the first shard that is not there, and any
number of processes may share the work. See `saga_sr.data.latents` for the files.

With the VAE and half precision an hour takes 9.9 MB for its HR latents and 9.9 MB for each
low-pass: 3,800 hours with 4 low-passes are 189 GB.
"""

import argparse
from pathlib import Path

from saga_sr.pre_encode.early import refuse_early
from saga_sr.support.arguments import add_degradations, problems_of_degradations
from saga_sr.support.choices import PRECISIONS, STORED_DTYPES
from saga_sr.support.errors import UserError, run_cli


def build_parser() -> argparse.ArgumentParser:
    summary, examples = (__doc__ or "").split("\n", 1)
    parser = argparse.ArgumentParser(
        prog="python -m saga_sr.pre_encode",
        description=summary,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--audio_dir", type=Path, nargs="+", required=True, metavar="DIR",
        help="several are drawn equally often in training")  # fmt: skip
    add("--output_dir", type=Path, required=True, metavar="DIR")
    add("--model_config", type=Path, required=True, metavar="FILE")
    add("--pretransform_ckpt", metavar="FILE_OR_HUB_ID",
        help="weights of the VAE, or Stable Audio Open")  # fmt: skip
    add("--variants", type=int, default=1, metavar="K", help="LR clips per segment (1)")
    add("--caption_file", type=Path, nargs="+", metavar="FILE",
        help="captions.jsonl of each --audio_dir (default: the one inside)")  # fmt: skip
    add("--seed", type=int, default=0, metavar="N", help="(0)")

    machine = parser.add_argument_group("machine")
    add = machine.add_argument
    add("--batch_size", type=int, default=8, metavar="N", help="clips per call of the encoder (8)")
    add("--num_workers", type=int, default=2, metavar="N", help="processes that read audio (2)")
    add("--precision", choices=PRECISIONS, default="32-true", help="of the encoder")
    add("--accelerator", choices=("auto", "cpu", "gpu", "mps"), default="auto")
    add("--devices", type=int, default=1, metavar="N", help="per node (1)")
    add("--num_nodes", type=int, default=1, metavar="N", help="(1)")

    rare = parser.add_argument_group("rare")
    add = rare.add_argument
    add("--hop_s", type=float, metavar="S",
        help="between segments (default: their length, no overlap)")  # fmt: skip
    add("--jitter", type=float, default=0.0, metavar="X",
        help="random shift of each segment, in hops, 0 to 1 (0)")  # fmt: skip
    add("--min_bandwidth_hz", type=float, default=0.0, metavar="HZ",
        help="leave duller files out (0)")  # fmt: skip
    add_degradations(rare)
    add("--lowpass_resample", action="store_true",
        help="also resample to twice the cutoff and back, as the authors' code does")  # fmt: skip
    add("--dtype", choices=STORED_DTYPES, default="float16", help="of the stored latents")
    add("--shard_segments", type=int, default=256, metavar="N", help="segments per file (256)")
    add("--allow_random_pretransform", action="store_true", help="untrained VAE (tests only)")
    return parser


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the flags, without torch.

    Raises:
        UserError: lists every flag whose value cannot be.
    """
    options = build_parser().parse_args(argv)
    problems = [
        f"--{name} is {getattr(options, name)}, at least {least} is needed"
        for name, least in (
            ("variants", 1), ("shard_segments", 1), ("batch_size", 1), ("devices", 1),
            ("num_nodes", 1), ("num_workers", 0), ("seed", 0), ("min_bandwidth_hz", 0),
        )
        if getattr(options, name) < least
    ]  # fmt: skip
    if options.hop_s is not None and not options.hop_s > 0:
        problems.append(f"--hop_s is {options.hop_s:g}, must be above 0")
    if not 0 <= options.jitter <= 1:
        problems.append(f"--jitter is {options.jitter:g}, must be in 0..1")
    if options.caption_file and len(options.caption_file) != len(options.audio_dir):
        problems.append(
            f"--caption_file: {len(options.caption_file)} files for "
            f"{len(options.audio_dir)} folders"
        )
    problems += problems_of_degradations(options.degradations)
    if problems:
        raise UserError.listing("the flags cannot be used", problems)
    return options


def run() -> int:
    """Encode as the flags say."""
    flags = parse_options()
    refuse_early(flags)
    from saga_sr.pre_encode.encode import main

    main(flags)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(run))
