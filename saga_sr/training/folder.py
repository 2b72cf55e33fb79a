"""The output folder of a training run: alone, it reproduces the run.

config.json        resolved model config (what --model_config and the flags came to)
options.json       every flag
environment.json   package versions, Python, platform, git commit
metrics.csv        step, metric, value: one line per logged number
tensorboard/       the same as curves, with pictures
checkpoints/       step=00001000.ckpt ...; written whole or not at all
samples/           WAVs and spectrograms of validation clips
export/            config.json + model.safetensors (EMA weights)
"""

from argparse import Namespace
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from saga_sr.config import ModelConfig
from saga_sr.support.environment import describe_environment, plain_options
from saga_sr.support.files import write_json_atomic


@rank_zero_only
def write_records(folder: Path, options: Namespace, config: ModelConfig) -> None:
    """Write config.json, options.json and environment.json."""
    write_json_atomic(folder / "config.json", config.model_dump(mode="json"))
    write_json_atomic(folder / "options.json", plain_options(options))
    write_json_atomic(folder / "environment.json", describe_environment())
