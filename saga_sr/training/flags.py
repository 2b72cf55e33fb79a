"""The flags of train_saga_sr.py, read and checked without torch.

A value that the JSON's ``training`` and ``sampling`` sections hold too is the JSON's where the flag
is not given. All wrong values are reported at once.
"""

import argparse
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from saga_sr.support.arguments import (
    add_degradations,
    finite_float,
    problems_of_degradations,
)
from saga_sr.support.errors import UserError, run_cli
from saga_sr.training.early import refuse_early

LOGGERS = ("tensorboard", "csv", "wandb")
PRECISIONS = ("auto", "32-true", "bf16-mixed")
OPTIMIZERS = ("adamw", "adamw8bit")
PARAMETERISATIONS = ("flow", "v")
LAUNCHER_VARIABLES = {"WORLD_SIZE", "SLURM_NTASKS", "MASTER_ADDR"}  # torchrun, srun, by hand
LEAST = {
    "batch_size": 1,
    "accumulate_grad_batches": 1,
    "max_steps": 1,
    "devices": 1,
    "num_nodes": 1,
    "num_workers": 0,
    "overfit_clips": 0,
    "val_every_n_steps": 1,
    "val_num_clips": 0,
    "val_num_train_clips": 0,
    "val_num_steps": 1,
    "distill_steps": 1,
    "teacher_steps": 1,
    "min_bandwidth_hz": 0,
    "val_num_pictures": 0,
    "checkpoint_every_n_steps": 1,
    "keep_checkpoints": 1,
    "val_emulate_linear_steps": 1,
    "seed": 0,
}
_Group = argparse._ArgumentGroup


def parse_options(argv: list[str] | None = None, doc: str = __doc__) -> argparse.Namespace:
    """Parse and check the flags.

    Args:
        argv: None takes those of the command line.
        doc: what ``--help`` shows beside them, a summary line first: the script's docstring.

    Raises:
        UserError: lists every flag whose value cannot be.
    """
    options = build_parser(doc).parse_args(argv)
    checks = (_values, _starts, _folders, _combinations, _processes)
    if problems := [problem for check in checks for problem in check(options)]:
        raise UserError.listing("the flags cannot be used", problems)
    return options


def options_of(name: str, doc: str | None) -> argparse.Namespace:
    """The flags of the script called ``name``, or nothing where it is imported.

    They are read before torch is: ``--help``, a wrong flag and what cannot work answer at once.
    """
    options = argparse.Namespace()

    def read() -> None:
        nonlocal options
        options = parse_options(doc=doc or "")
        refuse_early(options)

    if name == "__main__" and (code := run_cli(read)):
        raise SystemExit(code)
    return options


def build_parser(doc: str) -> argparse.ArgumentParser:
    """All flags, in the groups of ``--help``: those of every run first, the rare ones last."""
    summary, examples = doc.split("\n", 1)
    parser = argparse.ArgumentParser(
        prog="train_saga_sr.py",
        usage="train_saga_sr.py --train_dir DIR --model_config FILE [--compute_rolloff] [...]",
        description=summary,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _run(parser.add_argument_group("the run: F0, F1 or F2"))
    _weights(parser.add_argument_group("where the weights start"))
    _data(parser.add_argument_group("data"))
    _validation(parser.add_argument_group("validation"))
    _output(parser.add_argument_group("checkpoints and logs"))
    _machine(parser.add_argument_group("machine"))
    _rare(parser.add_argument_group("rare: memory, speed, small corpora, finding faults"))
    return parser


# --- the groups -------------------------------------------------------------------------------
def _run(group: _Group) -> None:
    add = group.add_argument
    add("--train_dir", type=Path, nargs="+", required=True, metavar="DIR",
        help="audio folders or pre-encoded latents; several are drawn equally often")  # fmt: skip
    add("--val_dir", type=Path, nargs="+", metavar="DIR", help="held-out audio folders (optional)")
    add("--model_config", type=Path, required=True, metavar="FILE",
        help='a JSON; "prompt" in its cross_attention_cond_ids: F1, text too')  # fmt: skip
    captions = group.add_mutually_exclusive_group()
    captions.add_argument("--use_caption", action="store_true", default=True,
        help="text is caption and transcript (default)")  # fmt: skip
    captions.add_argument("--disable_caption", action="store_false", dest="use_caption",
        help="text is the transcript only")  # fmt: skip
    add("--compute_rolloff", action="store_true",
        help="measure both roll-offs and condition on them: with text, F2")  # fmt: skip
    add("--batch_size", type=int, default=8, metavar="N",
        help="clips per process and micro-batch (8)")  # fmt: skip
    add("--accumulate_grad_batches", type=int, default=1, metavar="N",
        help="micro-batches per optimiser step (1)")  # fmt: skip
    add("--learning_rate", type=float, metavar="LR", help="(default: the JSON's)")
    add("--max_steps", type=int, default=26000, metavar="N", help="optimiser steps (26000)")
    add("--seed", type=int, default=0, metavar="N", help="(0)")
    add("--output_dir", type=Path, metavar="DIR",
        help="(runs/, named after config and stage: runs/saga_sr-f0)")  # fmt: skip


def _weights(group: _Group) -> None:
    add = group.add_argument
    add("--pretrained_ckpt", metavar="FILE_OR_HUB_ID",
        help="Stable Audio Open: VAE, conditioners and the widened DiT")  # fmt: skip
    add("--parameterisation", choices=PARAMETERISATIONS,
        help="what the DiT answers: the flow's velocity, or v as Stable Audio Open 1.0 does, from "
        "which the velocity follows exactly (default: as the starting weights do)")  # fmt: skip
    add("--pretransform_ckpt", metavar="FILE", help="weights of the VAE alone")
    add("--init_from", metavar="FOLDER_OR_HUB_ID",
        help="exported model of an earlier stage to start from")  # fmt: skip
    add("--distill_from", metavar="FOLDER_OR_HUB_ID",
        help="exported model whose guided sampling a student learns to do in few steps; "
        "--model_config: its config.json")  # fmt: skip
    add("--distill_steps", type=int, nargs="+", metavar="N",
        help="numbers of steps that the student is made for (1 2 4)")  # fmt: skip
    add("--teacher_steps", type=int, default=4, metavar="N",
        help="midpoint steps of two evaluations from noise to data that it learns to do (4)",
    )  # fmt: skip
    add("--checkpoint", metavar="PATH|last", help="resume exactly from here")
    add("--overwrite", action="store_true", help="replace the run that lies in --output_dir")
    add("--export_only", action="store_true", help="write the export of --checkpoint and stop")


def _data(group: _Group) -> None:
    add = group.add_argument
    add("--caption_file", type=Path, nargs="+", metavar="FILE",
        help="captions.jsonl of each --train_dir (default: the one inside)")  # fmt: skip
    add("--min_bandwidth_hz", type=float, default=0.0, metavar="HZ",
        help="leave out training files whose spectrum ends below this (0: keep all)")  # fmt: skip
    add_degradations(group)
    add("--lowpass_resample", action="store_true",
        help="also resample to twice the cutoff and back, as the authors' code does")  # fmt: skip
    add("--num_workers", type=int, default=2, metavar="N", help="processes that read audio (2)")


def _validation(group: _Group) -> None:
    add = group.add_argument
    add("--disable_val_lowfreq_replace", action="store_true",
        help="judge the model's own low band, not the input's")  # fmt: skip
    add(
        "--guidance_acoustic",
        type=finite_float,
        metavar="S_A",
        help="s_a of eq. (4), 1.4 in the paper",
    )
    add(
        "--guidance_text", type=finite_float, metavar="S_T", help="s_t of eq. (4), 1.2 in the paper"
    )
    add("--val_num_steps", type=int, metavar="N", help="of the solver (default: the JSON's)")
    add("--val_emulate_linear_steps", type=int, metavar="N",
        help="of the linear-quadratic schedule (default: the JSON's)")  # fmt: skip
    add("--val_every_n_steps", type=int, default=1000, metavar="N", help="optimiser steps (1000)")
    add("--val_cutoff_hz", type=float, default=4000.0, metavar="HZ",
        help="of the low-passes that make the inputs (4000)")  # fmt: skip
    add("--val_num_clips", type=int, default=16, metavar="N", help="fixed clips of --val_dir (16)")
    add("--val_num_train_clips", type=int, default=4, metavar="N",
        help="fixed training clips that are validated too: is it memorising? (4)")  # fmt: skip
    add("--val_num_pictures", type=int, default=3, metavar="N",
        help="clips whose WAVs and spectrograms are written (3)")  # fmt: skip


def _output(group: _Group) -> None:
    add = group.add_argument
    add("--checkpoint_every_n_steps", type=int, default=1000, metavar="N",
        help="optimiser steps (1000)")  # fmt: skip
    add("--keep_checkpoints", type=int, default=3, metavar="N", help="newest ones to keep (3)")
    add("--logger", choices=LOGGERS, default="tensorboard",
        help="beside metrics.csv, which is always written (tensorboard)")  # fmt: skip


def _machine(group: _Group) -> None:
    add = group.add_argument
    add("--precision", choices=PRECISIONS, default="auto",
        help="auto: bf16-mixed where the hardware multiplies it, else 32-true")  # fmt: skip
    add("--accelerator", default="auto", choices=("auto", "cpu", "gpu", "mps"))
    add("--devices", type=int, default=1, metavar="N", help="per node (1)")
    add("--num_nodes", type=int, default=1, metavar="N", help="(1)")
    add("--strategy", default="auto", choices=("auto", "ddp", "fsdp"))


def _rare(group: _Group) -> None:
    add = group.add_argument
    add("--activation_checkpointing", action="store_true",
        help="less memory, a third more computing")  # fmt: skip
    add("--optimizer", choices=OPTIMIZERS, default="adamw",
        help="adamw8bit: its state in a quarter of the memory (pip install bitsandbytes)",
    )  # fmt: skip
    add("--ema_on_cpu", action="store_true",
        help="keep the averaged weights in the machine's memory, not the GPU's")  # fmt: skip
    add("--compile", action="store_true", help="torch.compile the DiT; needs a C++ compiler")
    add("--lowpass_on_device", action="store_true",
        help="low-pass whole batches where the model trains, not in the workers (not yet timed on "
        "a GPU)")  # fmt: skip
    add("--augment", action="store_true",
        help="gain, polarity, channel swap, speed, mixing and bass, for small corpora")  # fmt: skip
    add("--overfit_clips", type=int, default=0, metavar="N",
        help="train on N fixed clips only: can the model memorise them?")  # fmt: skip
    add("--fast_dev_run", action="store_true",
        help="one batch through training, validation and export, then stop")  # fmt: skip
    add("--detect_anomaly", action="store_true",
        help="slow: name the layer or operation where a NaN was born")  # fmt: skip
    add("--allow_random_pretransform", action="store_true",
        help="train on an untrained autoencoder (tests only)")  # fmt: skip


# --- the checks -------------------------------------------------------------------------------
def _values(options: argparse.Namespace) -> Iterator[str]:
    for name, least in LEAST.items():
        value = getattr(options, name)
        for number in value if isinstance(value, list) else [value]:
            if number is not None and number < least:
                yield f"--{name} is {number}, at least {least} is needed"
    for name in ("learning_rate", "val_cutoff_hz"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            yield f"--{name} is {value:g}, must be above 0"


def _starts(options: argparse.Namespace) -> Iterator[str]:
    if options.export_only and options.checkpoint is None:
        yield "--export_only needs --checkpoint"
    if options.distill_from:
        for flag in ("init_from", "pretrained_ckpt", "pretransform_ckpt"):
            if getattr(options, flag):
                yield f"--distill_from and --{flag} both start the weights: give one"
        for flag in ("guidance_acoustic", "guidance_text"):
            if getattr(options, flag) is not None:
                yield f"--{flag}: a student learns the guidance in the config of --distill_from"
    elif options.distill_steps:
        yield "--distill_steps needs --distill_from"
    for flag in ("pretrained_ckpt", "pretransform_ckpt"):
        if options.init_from and getattr(options, flag):
            yield f"--init_from and --{flag} both start the weights: give one"
    if options.export_only and options.fast_dev_run:
        yield "--export_only does not go with --fast_dev_run, which keeps nothing"


def _folders(options: argparse.Namespace) -> Iterator[str]:
    for flag in ("train_dir", "val_dir"):
        for folder in getattr(options, flag) or []:
            if not folder.is_dir():
                yield f"--{flag} {folder}: no such folder"
    if not options.model_config.is_file():
        yield f"--model_config {options.model_config}: no such file"


def _combinations(options: argparse.Namespace) -> Iterator[str]:
    yield from problems_of_degradations(options.degradations)
    if options.lowpass_on_device and options.degradations != ["lowpass"]:
        yield "--lowpass_on_device does not go with other --degradations, which run on the CPU only"
    if options.lowpass_on_device and options.lowpass_resample:
        yield "--lowpass_on_device does not go with --lowpass_resample, which runs on the CPU only"
    if options.optimizer == "adamw8bit" and find_spec("bitsandbytes") is None:
        yield "--optimizer adamw8bit: not installed; pip install bitsandbytes"
    if options.strategy == "fsdp":
        sharded = "does not go with --strategy fsdp, which shards what it would make smaller"
        if options.optimizer == "adamw8bit":
            yield f"--optimizer adamw8bit {sharded}"
        if options.ema_on_cpu:
            yield f"--ema_on_cpu {sharded}"


def _processes(options: argparse.Namespace) -> Iterator[str]:
    processes = options.devices * options.num_nodes
    launched = os.environ.get("WORLD_SIZE", processes)  # torchrun says how many there are
    if str(launched) != str(processes):
        yield (
            f"--devices {options.devices} x --num_nodes {options.num_nodes} is {processes} "
            f"processes, but the launcher started {launched}"
        )
    if options.num_nodes > 1 and not LAUNCHER_VARIABLES & os.environ.keys():
        yield (
            f"--num_nodes {options.num_nodes}: no launcher started this process, so it would wait "
            "for the others for ever; use torchrun or srun (docs/multi_gpu.md)"
        )
