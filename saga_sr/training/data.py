"""What a training run reads: draws of audio or of prepared latents, fixed clips, and their text.

The kind of data follows from the folder: one that `saga_sr.pre_encode` wrote holds paired latents,
any other is searched for audio. Either way a draw number gives one item with the same metadata.
"""

import hashlib
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_only

from saga_sr.audio.index import AudioIndex
from saga_sr.config import ModelConfig
from saga_sr.data.caption_table import CAPTION_FILE, CaptionTable
from saga_sr.data.coverage import text_coverage
from saga_sr.data.fixed_clips import FixedClips, RepeatedClips
from saga_sr.data.latent_dataset import LatentDataset
from saga_sr.data.latents import is_latent_folder
from saga_sr.dataset import (
    AugmentOptions,
    ClipReader,
    SAGASRDataset,
)
from saga_sr.degradation import Degradations
from saga_sr.families import targets_end_with_spectrum
from saga_sr.lowpass import LowpassOptions
from saga_sr.model import SAGASRModel
from saga_sr.rolloff import hz_to_unit
from saga_sr.support.errors import UserError
from saga_sr.support.processes import process_count, process_rank
from saga_sr.text import TextEncoder, text_for_clip

say = rank_zero_only(print)
SMALL_CORPUS_AUGMENTATION = AugmentOptions(
    gain_db=6.0,
    flip_polarity=True,
    swap_channels=True,
    max_speed_change=0.15,
    mix_probability=0.2,
    bass_db=15.0,
)
TARGET_ROLLOFF_DRAWS = 128  # draws over which the default target roll-off is measured


@dataclass
class TrainingData:
    """The draws of a run, and the fixed clips that are validated, by the name of their metrics."""

    draws: SAGASRDataset | LatentDataset
    fixed: dict[str, FixedClips | RepeatedClips] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """Equal where equal draws give equal items."""
        if isinstance(self.draws, LatentDataset):
            return self.draws.fingerprint()
        return self.draws.reader.index.fingerprint()

    def check_weights(self, model: SAGASRModel) -> None:
        """Refuse prepared latents that another autoencoder than the model's made."""
        if isinstance(self.draws, LatentDataset):
            self.draws.check_weights(model.pretransform)

    def text_fingerprint(self, use_caption: bool) -> str:
        """Equal where equal draws have equal texts."""
        digest = hashlib.sha256()
        for pair in self.texts():
            digest.update(text_for_clip(*pair, use_caption).encode("utf-8", "replace") + b"\0")
        return digest.hexdigest()

    def texts(self) -> Iterator[tuple[str | None, str | None]]:
        """(caption, transcript) of every segment's length of the training audio."""
        if isinstance(self.draws, LatentDataset):
            yield from self.draws.texts()
        elif self.draws.reader.with_text:
            yield from self.draws.reader.texts()

    def possible_texts(self) -> Iterator[tuple[str | None, str | None]]:
        """Every (caption, transcript) that any draw or fixed clip can meet."""
        if isinstance(self.draws, LatentDataset):
            yield from self.draws.texts()
        readers = [clips.reader for clips in self.fixed.values()]
        if isinstance(self.draws, SAGASRDataset):
            readers.append(self.draws.reader)
        for reader in readers:
            yield from reader.possible_texts()

    def default_target_rolloff(self, config: ModelConfig) -> float:
        """What a model is asked for where the true roll-off is unknown: the median f_h of the
        training draws, as a fraction in [0, 1), or 0, its own guess, where it learns to make one.
        """
        if config.training.dropout.rolloff_prob:
            return 0.0
        rolloffs = [self.draws[draw][1]["rolloff_high"] for draw in range(TARGET_ROLLOFF_DRAWS)]
        return round(float(hz_to_unit(torch.tensor(rolloffs), config.sample_rate).median()), 3)


def open_training_data(options: Namespace, config: ModelConfig) -> TrainingData:
    """Index, check and describe the folders that the flags name.

    Raises:
        UserError: folders without usable data, latents of another encoder, audio and latents mixed,
            or flags that prepared latents make meaningless.
    """
    if options.caption_file and not config.stage.text:
        say(f"--caption_file is not read: {config.stage} has no text")
    data = TrainingData(_open_draws(options, config))
    rolloff, cutoff_hz = config.stage.rolloff, options.val_cutoff_hz
    if options.val_dir and options.val_num_clips:
        reader = _open_audio(options.val_dir, "--val_dir", options, config)
        data.fixed["val"] = FixedClips(
            reader, options.val_num_clips, cutoff_hz, compute_rolloff=rolloff
        )
    if options.overfit_clips:
        if isinstance(data.draws, SAGASRDataset):
            data.fixed["overfit_clips"] = RepeatedClips(data.draws)
        else:
            say(
                "--overfit_clips with prepared latents: only train/loss shows what is memorised; "
                "metrics and samples of those clips need the audio as --train_dir"
            )
    elif options.val_num_train_clips and isinstance(data.draws, SAGASRDataset):
        data.fixed["train_clips"] = FixedClips(
            data.draws.reader, options.val_num_train_clips, cutoff_hz, compute_rolloff=rolloff
        )
    return data


def _open_draws(options: Namespace, config: ModelConfig) -> SAGASRDataset | LatentDataset:
    prepared = [is_latent_folder(folder) for folder in options.train_dir]
    if not any(prepared):
        return SAGASRDataset(
            _open_audio(options.train_dir, "--train_dir", options, config),
            seed=options.seed,
            lowpass=LowpassOptions(resample=options.lowpass_resample),
            compute_rolloff=config.stage.rolloff,
            augment=SMALL_CORPUS_AUGMENTATION if options.augment else None,
            overfit_clips=options.overfit_clips,
            defer_lowpass=options.lowpass_on_device,
            measure_end=targets_end_with_spectrum(config),
            degradations=Degradations(tuple(options.degradations), config.training.degradations),
        )
    if not all(prepared):
        audio = options.train_dir[prepared.index(False)]
        raise UserError(f"--train_dir {audio}: holds no latents, but another folder does: give one")
    used = ("augment", "lowpass_resample", "lowpass_on_device", "min_bandwidth_hz")
    meaningless = [f"--{name}" for name in used if getattr(options, name)]
    if options.degradations != ["lowpass"]:
        meaningless.append("--degradations")
    if meaningless:
        raise UserError(
            f"{', '.join(meaningless)}: without effect on prepared latents: saga_sr.pre_encode has "
            "already chosen and degraded their clips"
        )
    latents = LatentDataset(
        options.train_dir, config, options.seed, config.stage.rolloff, options.use_caption,
        options.overfit_clips, options.caption_file,
    )  # fmt: skip
    say(latents.describe())
    return latents


def _open_audio(
    folders: list[Path], flag: str, options: Namespace, config: ModelConfig
) -> ClipReader:
    """Index folders and describe them; captions come from each folder's table."""
    index = AudioIndex.scan(folders, flag=flag)
    if options.min_bandwidth_hz and flag == "--train_dir":
        index.exclude_below(options.min_bandwidth_hz)
    say(index.describe())
    tables = None
    if config.stage.text and options.use_caption:
        given = options.caption_file if flag == "--train_dir" else None
        paths = given or [folder / CAPTION_FILE for folder in folders]
        if len(paths) != len(folders):
            raise UserError(f"--caption_file: {len(paths)} files for {len(folders)} folders")
        tables = [CaptionTable.read(path) if given or path.is_file() else None for path in paths]
    return ClipReader(
        index, config.sample_size, config.sample_rate, config.audio_channels,
        options.use_caption, tables, config.stage.text,
    )  # fmt: skip


def prepare_text(data: TrainingData, encoder: TextEncoder, use_caption: bool) -> None:
    """Say which clips have text, and embed each distinct text once before the first step.

    Of several processes each embeds its share, so that they come to the first step together: one
    that did it alone would let the others wait longer than torch lets them.
    """
    if process_rank() == 0:
        coverage = text_coverage(data.texts(), use_caption)
        print(coverage)
        if warning := coverage.warning():
            print(warning)
    texts = (text_for_clip(*pair, use_caption) for pair in data.possible_texts())
    encoder.fill_cache(texts, share=(process_rank(), process_count()))
