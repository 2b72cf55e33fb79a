"""Training draws from prepared latents, with the same metadata as draws from audio."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset

from saga_sr.config import ModelConfig
from saga_sr.data.latent_texts import SegmentTexts
from saga_sr.data.latents import LatentFolder, Manifest, encoding_of, probe_weights, same_weights
from saga_sr.dataset import Item
from saga_sr.support.differences import differences
from saga_sr.support.errors import UserError
from saga_sr.support.randomness import numpy_generator
from saga_sr.text import text_for_clip


# --- training ---------------------------------------------------------------------------------
class LatentDataset(Dataset[Item]):
    """``dataset[draw]`` is (HR latent [D, L], metadata): `SAGASRDataset` without the audio.

    Folders are drawn equally often, segments by the seconds they stand for, and one of the K
    low-passes uniformly. The metadata is that of `SAGASRDataset` with ``lr_latent`` [D, L] in the
    place of ``lr_audio``.

    Args:
        roots: sets of latents, all of one encoder.
        config: the model that is to be trained on them.
        seed: of the draws.
        compute_rolloff: put ``rolloff_low`` and ``rolloff_high`` (Hz) into the metadata.
        use_caption: whether the prompt uses captions.
        overfit_clips: repeat so many fixed items for ever; 0 is off.
        caption_files: one per audio folder of the sets; None: captions.jsonl beside the audio.

    Raises:
        UserError: a set is incomplete, damaged, or made for another segment length or encoder; or
            there are more or fewer caption files than audio folders.
    """

    def __init__(
        self,
        roots: Sequence[Path | str],
        config: ModelConfig,
        seed: int,
        compute_rolloff: bool = False,
        use_caption: bool = True,
        overfit_clips: int = 0,
        caption_files: Sequence[Path] | None = None,
    ) -> None:
        self.seed, self.compute_rolloff, self.use_caption = seed, compute_rolloff, use_caption
        self.overfit_clips = overfit_clips
        self.seconds_total = config.duration_s
        self.manifests = {Path(root): Manifest.load(Path(root)) for root in roots}
        for root, manifest in self.manifests.items():
            _check_encoding(root, manifest, config)
        self.folders = [
            LatentFolder(root, number, manifest)
            for root, manifest in self.manifests.items()
            for number in range(len(manifest.folders))
        ]
        given: Sequence[Path | None] = caption_files or [None] * len(self.folders)
        if len(given) != len(self.folders):
            names = ", ".join(folder.entry.audio_dir for folder in self.folders)
            raise UserError(
                f"--caption_file: {len(given)} files for the {len(self.folders)} audio folders "
                f"that were encoded: {names}"
            )
        pairs, with_text = zip(self.folders, given, strict=True), config.stage.text
        self.segment_texts = [SegmentTexts(folder, path, with_text) for folder, path in pairs]

    def check_weights(self, pretransform: torch.nn.Module) -> None:
        """Refuse latents that another VAE made.

        Raises:
            UserError: names the set.
        """
        probe = probe_weights(pretransform)
        for root, manifest in self.manifests.items():
            if not same_weights(manifest.weights_probe, probe):
                raise UserError(
                    f"{root}: these latents were made by an autoencoder with other weights; give "
                    "training the one that pre_encode was given, or encode again"
                )

    def pick(self, draw: int) -> tuple[int, int, int]:
        """(folder, segment, variant) of a draw."""
        repeated = draw % self.overfit_clips if self.overfit_clips else draw
        rng = numpy_generator("latent", self.seed, repeated)
        folder = int(rng.integers(len(self.folders)))
        segment = self.folders[folder].segment_at(rng.random())
        return folder, segment, int(rng.integers(self.folders[folder].manifest.variants))

    def __getitem__(self, draw: int) -> Item:
        number, segment, variant = self.pick(draw)
        folder = self.folders[number]
        hr, metadata = folder.read(segment, variant)
        if not self.compute_rolloff:
            del metadata["rolloff_low"], metadata["rolloff_high"]
        caption, transcript = self.segment_texts[number](segment)
        metadata |= {
            "audio_path": folder.audio_path(segment),
            "transcript": transcript,
            "caption": caption,
            "prompt": text_for_clip(caption, transcript, self.use_caption),
            "seconds_start": 0.0,
            "seconds_total": self.seconds_total,
            "draw": draw,
        }
        return hr, metadata

    def texts(self) -> Iterator[tuple[str | None, str | None]]:
        """(caption, transcript) of every segment."""
        return itertools.chain.from_iterable(texts.all() for texts in self.segment_texts)

    def fingerprint(self) -> str:
        """Hash of the manifests: equal where draws give equal items."""
        ids = [manifest.id for manifest in self.manifests.values()]
        return hashlib.sha256(json.dumps(ids).encode("utf-8")).hexdigest()

    def describe(self) -> str:
        """Segments, hours, variants and size of each set."""
        lines = []
        for root, manifest in self.manifests.items():
            segments = sum(folder.segments for folder in manifest.folders)
            hours = sum(folder.hours for folder in manifest.folders)
            lines.append(
                f"{root}: paired latents of {hours:.2f} h of audio, {segments} segments with "
                f"{manifest.variants} low-passes each, {manifest.dtype}, "
                f"{manifest.bytes_per_hour / 1e6:.0f} MB per hour"
            )
        lines += [line for texts in self.segment_texts if (line := texts.describe())]
        return "\n".join(lines)


def _check_encoding(root: Path, manifest: Manifest, config: ModelConfig) -> None:
    found = differences(manifest.encoding, encoding_of(config))
    if found:
        raise UserError.listing(
            f"{root}: these latents do not fit the model config (latents -> config)",
            [line for _, line in found],
        )
