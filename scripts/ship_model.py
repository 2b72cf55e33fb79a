"""Export a trained run as the folder that the repository ships: half precision, measured sampling.

    python scripts/ship_model.py runs/demo --output models/saga-sr-demo \
        --target_rolloff 0.7 --num_steps 8 --emulate_linear_steps 8 --solver ab2

The sampling values are what `saga_sr.evaluate --sweep` and `benchmarks/quality/solvers.py` found
best; they become the model's own defaults. The averaged weights of the run's export are rounded to
float16. Of several runs that started from the same weights the mean is exported ("model soup",
Wortsman et al. 2022, arXiv 2203.05482): runs side by side, each on a core of its own, add up.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

from saga_sr.support.errors import UserError, run_cli

if TYPE_CHECKING:
    from saga_sr.model import SAGASRModel

SAMPLING = (
    "target_rolloff",
    "emulate_linear_steps",
    "solver",
    "guidance_acoustic",
    "guidance_text",
    "level_temperature",
    "level_gain_db",
)


def mean_model(models: "list[SAGASRModel]") -> "SAGASRModel":
    """The first of the models, with the mean of the trained weights of all.

    Raises:
        UserError: the models are not of one architecture.
    """
    import torch

    first, *others = models
    if any(other.config.model != first.config.model for other in others):
        raise UserError(
            'runs: a mean needs models of one architecture; their "model" blocks differ'
        )
    with torch.no_grad():
        for together in zip(*(model.trainable() for model in models), strict=True):
            parameters = [parameter for _, parameter in together]
            parameters[0].copy_(torch.stack(parameters).mean(dim=0))
    return first


def main() -> None:
    summary, details = (__doc__ or "").split("\n", 1)
    parser = argparse.ArgumentParser(description=summary, epilog=details)
    parser.add_argument("runs", type=Path, nargs="+", help="output folders of train_saga_sr.py")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--target_rolloff", type=float, help="in [0, 1)")
    parser.add_argument("--num_steps", type=int)
    parser.add_argument("--emulate_linear_steps", type=int, help="up to --num_steps: linear")
    parser.add_argument("--solver")
    parser.add_argument("--guidance_acoustic", type=float)
    parser.add_argument("--guidance_text", type=float)
    parser.add_argument("--level_temperature", type=float)
    parser.add_argument("--level_gain_db", type=float)
    parser.add_argument(
        "--corpus",
        type=Path,
        help="output folder of fetch_corpus.py, whose full-band part it was trained on: its "
        "sources go into the card's sources.json",
    )
    options = parser.parse_args()

    import torch

    from fetch_corpus import read_manifest
    from saga_sr.evaluate.sources import write_sources
    from saga_sr.model import SAGASRModel

    model = mean_model([SAGASRModel.from_pretrained(run / "export") for run in options.runs])
    if options.num_steps is not None:
        model.config = model.config.with_num_steps(options.num_steps)
    for name in SAMPLING:
        if (value := getattr(options, name)) is not None:
            model.config = model.config.replacing(f"sampling.{name}", value)
    folder = model.save_pretrained(options.output, dtype=torch.float16)
    if options.corpus is not None:
        write_sources(read_manifest(options.corpus), folder, full_band=True)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    print(f"{folder}: {size:.1f} MiB")


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
