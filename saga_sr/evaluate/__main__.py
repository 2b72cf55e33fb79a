"""Measure models, baselines and other people's results on the same clips with the same ruler.

    python -m saga_sr.evaluate --data DIR --model MODEL --cutoffs 4000 8000 12000 --output REPORT

DIR holds audio, by preference in a folder per category (music, speech, effects). Every file gives
one clip, low-passed by the field's fixed filter (Chebyshev 1, order 8, zero phase), and every row
of the tables is measured on exactly these clips: the unprocessed input, the best that the model's
pretransform could do, two simple baselines, each model with and without its transformer, each
folder of predictions.

A clip whose truth stops early (lossy sources) is measured up to where it stops. What cannot be
measured is said, never averaged in. REPORT/report.md has tables and pictures, REPORT/clips.csv
every number, REPORT/run.json what is needed to compute them again. docs/metrics.md explains them.
REPORT/listen.html plays some clips in all versions (docs/listening.md).
"""

import argparse
from pathlib import Path

from saga_sr.support.arguments import finite_float, natural_number, positive_float, positive_int
from saga_sr.support.choices import AUTO_PRECISIONS, CROSSOVERS, DEVICES, SOLVERS
from saga_sr.support.errors import UserError, run_cli

SWEEPS: dict[str, tuple[float, ...]] = {
    "num_steps": (1, 2, 4, 8, 16, 32, 64),
    "guidance_acoustic": (1.0, 1.2, 1.4, 1.7, 2.0),
    "guidance_text": (1.0, 1.2, 1.4, 1.7, 2.0),
    "target_rolloff": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    "level_gain_db": (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0),
}

LEAST_SECONDS, LEAST_CUTOFF_HZ = 0.1, 500.0
CONTROLS = ("wrong_text", "no_text", "other_seed", "true_rolloff", "no_replacement")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m saga_sr.evaluate",
        description="Measure models, baselines and predictions on the same clips.",
        epilog="NAME=FOLDER names a row; otherwise it is called after its folder.",
    )
    data = parser.add_argument_group("what is measured")
    add = data.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="audio, a folder per category")
    add("--model", nargs="+", default=[], metavar="[NAME=]FOLDER", help="exported models")
    add("--predictions", nargs="+", default=[], metavar="[NAME=]FOLDER",
        help="somebody's outputs for the inputs that --write_audio inputs writes, as "
        "FOLDER/<cutoff>/<clip>.wav")  # fmt: skip
    add(
        "--cutoffs", nargs="+", type=positive_float, default=[4000.0, 8000.0, 12000.0], metavar="HZ"
    )
    add("--degradations", nargs="+", default=[], metavar="NAME",
        help="also clips made by mp3-KBPS, aac-KBPS, opus-KBPS, vorbis-QUALITY, gsm, ulaw, alaw, "
        "zoh-RATE, linear-RATE in place of the low-pass, such as mp3-64 gsm zoh-11025")  # fmt: skip
    add("--num_clips", type=positive_int, default=100, help="at most so many per category (100)")
    add("--clip_seconds", type=positive_float, default=5.94, help="at most so long (5.94)")
    add("--mono", action="store_true", help="mix the truth down to one channel first")
    add("--sample_rate", type=positive_int, help="in Hz; the models', or 44100")
    add("--seed", type=int, default=0)

    model = parser.add_argument_group("how a model runs (default: its own sampling block)")
    add = model.add_argument
    add("--num_steps", type=positive_int)
    add("--emulate_linear_steps", type=positive_int, metavar="N",
        help="of the t-schedule: small steps first, as in N linear ones")  # fmt: skip
    add("--solver", choices=SOLVERS)
    add("--guidance_acoustic", type=finite_float, metavar="S_A")
    add("--guidance_text", type=finite_float, metavar="S_T")
    add("--level_gain_db", type=finite_float, metavar="DB",
        help="what generated levels are raised by")  # fmt: skip
    add("--target_rolloff", type=_target, default="default", metavar="oracle|default|X",
        help="f_h: the truth's own, the model's default, or a number in [0, 1)")  # fmt: skip
    add("--no_text", action="store_true", help="give no clip its caption and transcript")
    add("--controls", nargs="+", default=[], metavar="CONTROL",
        help="also each model with one thing changed, to see whether it is heeded: wrong_text "
        "(another clip's), no_text, target_rolloff=X, true_rolloff, other_seed; or as it is, the "
        "input's band not put back: no_replacement")  # fmt: skip
    add("--crossover", choices=CROSSOVERS, default="soft",
        help="how the input's band is put back; off: models as they are")  # fmt: skip
    add("--sweep", nargs="+", action="append", default=[], metavar=("OPTION", "VALUE"),
        help="also measure each model over values of " + ", ".join(SWEEPS))  # fmt: skip
    add("--device", choices=DEVICES, default="auto")
    add("--precision", choices=AUTO_PRECISIONS, default="32-true")
    add(
        "--window_batch", type=positive_int, help="segments per evaluation of the model (by device)"
    )

    extra = parser.add_argument_group("extra rows and metrics")
    add = extra.add_argument
    add("--noise_envelope", type=Path, metavar="DIR", help="shape the noise like this corpus")
    add("--openl3", choices=("music", "env"), help="Frechet distance over OpenL3 (extra package)")
    add("--visqol", action="store_true", help="ViSQOL, audio mode (extra package)")
    add("--recogniser", metavar="MODEL", help="WER and CER by this speech recogniser")

    output = parser.add_argument_group("output")
    add = output.add_argument
    add("--output", type=Path, required=True, metavar="REPORT", help="folder of the report")
    add("--overwrite", action="store_true", help="replace a report that is there")
    add("--write_audio", choices=("inputs", "all"), help="the clips as WAV, for others or to hear")
    add("--num_pictures", type=int, default=3, choices=range(4), help="per category and row (3)")
    add("--num_listen", type=natural_number, default=4, metavar="N",
        help="clips on the listening page per category and cutoff; 0: no page (4)")  # fmt: skip
    return parser


def _target(text: str) -> float | str:
    if text in ("oracle", "default"):
        return text
    if not 0 <= (value := float(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be oracle, default, or in [0, 1)")
    return value


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the flags, without torch; ``sweep`` becomes option -> values.

    Raises:
        UserError: lists what cannot be.
    """
    flags = build_parser().parse_args(argv)
    problems = []
    if not flags.data.is_dir():
        problems.append(f"--data {flags.data}: no such folder")
    if flags.output.exists() and not flags.output.is_dir():
        problems.append(f"--output {flags.output}: it is a file; a folder is expected")
    elif (flags.output / "run.json").exists() and not flags.overwrite:
        problems.append(f"--output {flags.output}: a report is there; --overwrite replaces it")
    if flags.degradations and flags.predictions:
        problems.append("--degradations does not go with --predictions")
    if flags.clip_seconds < LEAST_SECONDS:
        problems.append(f"--clip_seconds {flags.clip_seconds:g}: at least {LEAST_SECONDS:g}")
    problems += [
        f"--cutoffs {cutoff_hz:g}: at least {LEAST_CUTOFF_HZ:g} Hz"
        for cutoff_hz in flags.cutoffs
        if cutoff_hz < LEAST_CUTOFF_HZ
    ]
    problems += _wrong_controls(flags)
    if flags.sweep and not flags.model:
        problems.append("--sweep needs a --model")
    sweeps = {}
    for option, *values in flags.sweep:
        try:
            sweeps[option] = _sweep_values(option, values)
        except ValueError as error:
            problems.append(f"--sweep {option}: {error}")
    if len(sweeps) + len(problems) < len(flags.sweep):
        problems.append("--sweep: an option is given twice")
    if problems:
        raise UserError.listing("the flags cannot be used", problems)
    flags.sweep, flags.cutoffs = sweeps, sorted(set(flags.cutoffs))
    return flags


def _wrong_controls(flags: argparse.Namespace) -> list[str]:
    problems = []
    if flags.controls and not flags.model:
        problems.append("--controls needs a --model")
    for control in flags.controls:
        option, _, value = control.partition("=")
        if option == "target_rolloff" and value:
            try:
                _sweep_values(option, [value])
            except ValueError as error:
                problems.append(f"--controls {control}: {error}")
        elif control not in CONTROLS:
            allowed = ", ".join((*CONTROLS, "target_rolloff=X"))
            problems.append(f"--controls {control}: no control; allowed: {allowed}")
        elif flags.no_text and control.endswith("text"):
            problems.append(f"--controls {control} does not go with --no_text")
        elif control == "no_replacement" and flags.crossover == "off":
            problems.append("--controls no_replacement: --crossover off is all rows without it")
        elif control == "true_rolloff" and flags.target_rolloff == "oracle":
            problems.append("--controls true_rolloff: --target_rolloff oracle gives it all rows")
    if len(set(flags.controls)) < len(flags.controls):
        problems.append("--controls: one is given twice")
    return problems


def _sweep_values(option: str, values: list[str]) -> list[float]:
    if option not in SWEEPS:
        raise ValueError(f"not an option to sweep; allowed: {', '.join(SWEEPS)}")
    numbers = sorted({float(value) for value in values} or SWEEPS[option])
    for value in numbers:
        if not abs(value) < float("inf"):
            raise ValueError(f"{value:g} is no finite number")
        if option == "num_steps" and (value < 1 or value != int(value)):
            raise ValueError(f"{value:g} is no number of steps")
        if option == "target_rolloff" and not 0 <= value < 1:
            raise ValueError(f"{value:g} is not in [0, 1)")
    return numbers


def run() -> int:
    """Evaluate as the flags say."""
    flags = parse_args()
    from saga_sr.evaluate.evaluation import main

    main(flags)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(run))
