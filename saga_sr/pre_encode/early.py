"""What can be refused before torch is imported and a corpus read."""

import argparse
from pathlib import Path

from saga_sr.config import ModelConfig, load_model_config
from saga_sr.support.errors import UserError


def refuse_early(options: argparse.Namespace) -> ModelConfig:
    """Refuse what cannot be encoded; returns the config.

    Raises:
        UserError: lists what is wrong.
    """
    config = load_model_config(options.model_config)
    problems = [
        f"--audio_dir {folder}: no such folder"
        for folder in options.audio_dir
        if not folder.is_dir()
    ]
    problems += [
        f"--caption_file {path}: no such file"
        for path in options.caption_file or []
        if not path.is_file()
    ]
    given = options.pretransform_ckpt
    if given and not Path(given).exists() and given.count("/") != 1:
        problems.append(f"--pretransform_ckpt {given}: no such file or folder")
    needed = config.model.pretransform.type == "autoencoder"
    if needed and not given and not options.allow_random_pretransform:
        problems.append(
            "the config's autoencoder has no weights: latents of a random one are worthless. Give "
            "--pretransform_ckpt (a VAE, or Stable Audio Open, which holds one)"
        )
    if options.output_dir.exists() and not options.output_dir.is_dir():
        problems.append(f"--output_dir {options.output_dir}: it is a file; a folder is expected")
    if problems:
        raise UserError.listing("this cannot be encoded", problems)
    return config
