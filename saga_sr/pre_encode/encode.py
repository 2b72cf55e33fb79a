"""A corpus cut into segments, each encoded with several low-passes, in shards that are whole."""

import argparse
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from saga_sr import weights
from saga_sr.audio.band_end import spectrum_end_hz
from saga_sr.audio.file import resampled_length
from saga_sr.audio.index import AudioIndex
from saga_sr.audio.packed_names import PackedNames
from saga_sr.config import ModelConfig
from saga_sr.data.caption_table import CAPTION_FILE, CaptionTable
from saga_sr.data.latents import DTYPES as TORCH_DTYPES
from saga_sr.data.latents import (
    MANIFEST,
    NO_TEXT,
    DegradationsEntry,
    FolderEntry,
    LowpassEntry,
    Manifest,
    SegmentTable,
    encoding_of,
    folder_path,
    probe_weights,
    same_weights,
    shard_is_finished,
    shard_path,
    write_shard,
)
from saga_sr.dataset import ClipReader, Crop
from saga_sr.degradation import Degradations, LRClip
from saga_sr.families import create_pretransform
from saga_sr.lowpass import LowpassOptions, draw_lowpass
from saga_sr.pre_encode.early import refuse_early
from saga_sr.pretransform import Pretransform
from saga_sr.rolloff import spectral_rolloff
from saga_sr.support.device import check_accelerator
from saga_sr.support.differences import differences
from saga_sr.support.errors import UserError
from saga_sr.support.processes import start_worker
from saga_sr.support.randomness import numpy_generator
from saga_sr.text import read_transcript

Clip = dict[str, Tensor]
Key = tuple[int, int]  # (folder, segment)


# --- which segments there are -------------------------------------------------------------------
def cut_folder(
    reader: ClipReader, folder: int, hop_s: float, jitter: float, seed: int
) -> SegmentTable:
    """All segments of one audio folder.

    Segment k of a file begins at k hops plus a random share ``jitter`` of a hop, but so that it
    still lies in the file; the last one ends with the file. A shorter file is one segment, at a
    random place in it, as in training from audio. A file's seconds are divided equally between its
    segments, so that drawing segments by seconds draws audio by seconds.
    """
    files = reader.index.files_of(folder)
    inside = slice(files.start, files.stop)
    rng = numpy_generator("segments", seed, folder)
    headers = zip(reader.index.frames[inside], reader.index.sample_rate[inside], strict=True)
    lengths = [resampled_length(int(n), int(rate), reader.sample_rate) for n, rate in headers]
    room = np.array(lengths, dtype=np.int64) - reader.sample_size
    hop = max(1, round(hop_s * reader.sample_rate))
    counts = 1 + np.maximum(-(-room // hop), 0)
    file = np.repeat(np.arange(len(files), dtype=np.int32), counts)
    within = np.arange(len(file)) - np.repeat(np.cumsum(counts) - counts, counts)
    shift = rng.integers(round(jitter * hop) + 1, size=len(file))
    start = np.minimum(within * hop + shift, np.maximum(room, 0)[file])
    short = room[file] < 0
    start[short] = -rng.integers(1 - room[file][short])
    names = [reader.index.relative_path(position) for position in files]
    captions, transcripts, texts = _collect_texts(reader, files, file, start)
    return SegmentTable(
        {
            "start": start,
            "file": file,
            "cumulative_s": np.cumsum((reader.index.duration_s[inside] / counts)[file]),
            "caption": captions,
            "transcript": transcripts,
        }
        | _packed("names", names)
        | _packed("texts", texts)
    )


def _packed(name: str, strings: Sequence[str]) -> dict[str, np.ndarray]:
    packed = PackedNames.pack([one.encode("utf-8", errors="replace") for one in strings])
    return {f"{name}_blob": packed.blob, f"{name}_ends": packed.ends}


def _collect_texts(
    reader: ClipReader, files: range, file: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(row of the caption, row of the transcript) per segment, and the distinct texts."""
    rows: dict[str, int] = {}

    def row_of(text: str | None) -> int:
        return NO_TEXT if text is None else rows.setdefault(text, len(rows))

    of_file = [row_of(read_transcript(reader.index.path(position))) for position in files]
    captions = np.full(len(file), NO_TEXT, dtype=np.int32)
    tables = reader.captions
    if tables is not None and tables[reader.index.folder_of[files[0]]] is not None:
        for segment, (row, first) in enumerate(zip(file.tolist(), start.tolist(), strict=True)):
            crop = Crop(files[row], first, reader.sample_size)
            captions[segment] = row_of(reader.caption(crop))
    return captions, np.array(of_file, dtype=np.int32)[file], list(rows)


# --- a segment's audio --------------------------------------------------------------------------
class SegmentClips(Dataset[Clip]):
    """``clips[folder, segment]``: HR audio and K LR clips of it, as functions of the seed.

    ``hr`` [C, T], ``lr`` [K, C, T], ``lr_cutoff_hz``, ``lr_passband_hz`` and ``rolloff_low`` [K],
    ``rolloff_high`` and ``hr_end_hz`` [], all float32 and in Hz.
    """

    def __init__(
        self,
        reader: ClipReader,
        tables: Sequence[SegmentTable],
        variants: int,
        lowpass: LowpassOptions,
        seed: int,
        degradations: Degradations | None = None,
    ) -> None:
        self.reader, self.tables = reader, list(tables)
        self.variants, self.lowpass, self.seed = variants, lowpass, seed
        self.degradations = degradations or Degradations()

    def __getitem__(self, key: Key) -> Clip:
        folder, segment = key
        table, rate = self.tables[folder], self.reader.sample_rate
        position = self.reader.index.files_of(folder)[int(table.file[segment])]
        crop = Crop(position, int(table.start[segment]), self.reader.sample_size)
        hr = self.reader.read(crop, numpy_generator("segment", self.seed, folder, segment))
        rolloff_high_hz = spectral_rolloff(hr[None], rate)[0]
        variants = [
            self._variant(hr, float(rolloff_high_hz), (folder, segment, variant))
            for variant in range(self.variants)
        ]
        lr = torch.stack([variant.audio for variant in variants])
        return {
            "hr": hr,
            "lr": lr,
            "lr_cutoff_hz": torch.tensor([variant.kept.cutoff_hz for variant in variants]),
            "lr_passband_hz": torch.tensor(
                [variant.kept.passband_hz(rate) for variant in variants]
            ),
            "rolloff_low": spectral_rolloff(lr, rate),
            "rolloff_high": rolloff_high_hz,
            "hr_end_hz": torch.tensor(spectrum_end_hz(hr, rate)),
        }

    def _variant(self, hr: Tensor, rolloff_hz: float, key: tuple[int, int, int]) -> LRClip:
        lowpass = draw_lowpass(
            numpy_generator("variant", self.seed, *key), rolloff_hz, self.lowpass
        )
        rng = numpy_generator("degradation", self.seed, *key)
        return self.degradations.make_lr(hr, lowpass, rng, self.reader.sample_rate)


class ShardBatches(Sampler[list[Key]]):
    """The segments of some shards in order, in batches that never cross from one to the next."""

    def __init__(self, shards: Sequence[Key], manifest: Manifest, batch_segments: int) -> None:
        self.shards, self.manifest, self.batch_segments = shards, manifest, batch_segments

    def segments(self, folder: int, shard: int) -> range:
        first = shard * self.manifest.shard_segments
        stop = min(first + self.manifest.shard_segments, self.manifest.folders[folder].segments)
        return range(first, stop)

    def batches(self, folder: int, shard: int) -> list[list[Key]]:
        segments, size = self.segments(folder, shard), self.batch_segments
        return [
            [(folder, segment) for segment in segments[begin : begin + size]]
            for begin in range(0, len(segments), size)
        ]

    def __iter__(self) -> Iterator[list[Key]]:
        for folder, shard in self.shards:
            yield from self.batches(folder, shard)


# --- encoding -----------------------------------------------------------------------------------
def encode_clips(
    clips: Clip, pretransform: Pretransform, fabric: Fabric, dtype: torch.dtype
) -> Clip:
    """Audio of a batch of `SegmentClips` to latents, HR and LR in one go.

    Raises:
        UserError: a latent is not finite in ``dtype``.
    """
    hr, lr = fabric.to_device(clips["hr"]), fabric.to_device(clips["lr"])  # [S,C,T], [S,K,C,T]
    with torch.inference_mode(), fabric.autocast():
        both = pretransform.encode(torch.cat([hr, lr.flatten(0, 1)])).float()
    latents = both.to(dtype).cpu()
    if not torch.isfinite(latents).all():
        raise UserError(f"a latent is not finite in {dtype}; try --dtype float32")
    hr_latents, lr_latents = latents.tensor_split([len(hr)])
    paired = lr_latents.unflatten(0, lr.shape[:2])
    return clips | {"hr": hr_latents.contiguous(), "lr": paired.contiguous()}


def write_shards(
    root: Path,
    manifest: Manifest,
    clips: SegmentClips,
    pretransform: Pretransform,
    fabric: Fabric,
    options: argparse.Namespace,
) -> int:
    """Encode this process's share of the shards that are not finished; returns how many."""
    every = [
        (folder, shard)
        for folder in range(len(manifest.folders))
        for shard in range(manifest.shards(folder))
    ]
    pending = [key for key in every if not shard_is_finished(shard_path(root, *key), manifest)]
    fabric.barrier()  # all have looked before the first writes: they divide the same list
    mine = pending[fabric.global_rank :: fabric.world_size]
    sampler = ShardBatches(mine, manifest, max(1, options.batch_size // (1 + manifest.variants)))
    loader = DataLoader(
        clips,
        batch_sampler=sampler,
        num_workers=options.num_workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=start_worker,
    )
    total = sum(len(sampler.segments(*key)) for key in mine)
    batches = iter(loader)
    hidden = None if fabric.global_rank == 0 else True
    with tqdm(total=total, desc="Encoding", unit=" segments", disable=hidden) as bar:
        for key in mine:
            parts = []
            for batch in itertools.islice(batches, len(sampler.batches(*key))):
                parts.append(
                    encode_clips(batch, pretransform, fabric, TORCH_DTYPES[manifest.dtype])
                )
                bar.update(len(batch["hr"]))
            joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            write_shard(shard_path(root, *key), joined, manifest)
    return len(mine)


# --- a set --------------------------------------------------------------------------------------
def open_reader(options: argparse.Namespace, config: ModelConfig) -> ClipReader:
    """The audio, with the captions that lie beside it."""
    index = AudioIndex.scan(options.audio_dir, flag="--audio_dir")
    if options.min_bandwidth_hz:
        index.exclude_below(options.min_bandwidth_hz)
    given = options.caption_file
    paths = given or [folder / CAPTION_FILE for folder in options.audio_dir]
    tables = [CaptionTable.read(path) if given or path.is_file() else None for path in paths]
    return ClipReader(
        index, config.sample_size, config.sample_rate, config.audio_channels, captions=tables
    )


def load_pretransform(config: ModelConfig, options: argparse.Namespace) -> Pretransform:
    """The encoder with its weights."""
    holder = nn.Module()
    holder.pretransform = create_pretransform(config)
    model = cast(Any, holder)
    if options.pretransform_ckpt:
        report = weights.load_pretransform(model, options.pretransform_ckpt)
        rank_zero_only(print)(report)
    weights.fold_weight_norm(model)
    return model.pretransform


def make_manifest(
    options: argparse.Namespace,
    config: ModelConfig,
    reader: ClipReader,
    tables: Sequence[SegmentTable],
    pretransform: Pretransform,
) -> Manifest:
    """The manifest of the set that ``options`` ask for."""
    folders = [
        FolderEntry(
            audio_dir=str(folder.resolve()),
            segments=len(table.start),
            hours=round(float(table.cumulative_s[-1]) / 3600, 6),
        )
        for folder, table in zip(reader.index.folders, tables, strict=True)
    ]
    return Manifest(
        encoding=encoding_of(config),
        weights_probe=probe_weights(pretransform),
        latent_dim=config.latent_dim,
        latent_length=config.latent_length,
        dtype=options.dtype,
        precision=options.precision,
        variants=options.variants,
        hop_s=hop_s(options, config),
        jitter=options.jitter,
        seed=options.seed,
        lowpass=LowpassEntry(**asdict(lowpass_options(options))),
        degradations=_degradations_entry(options, config),
        shard_segments=options.shard_segments,
        folders=tuple(folders),
        source=reader.index.fingerprint(),
    )


def hop_s(options: argparse.Namespace, config: ModelConfig) -> float:
    return config.duration_s if options.hop_s is None else options.hop_s


def degradations_of(options: argparse.Namespace, config: ModelConfig) -> Degradations:
    return Degradations(tuple(options.degradations), config.training.degradations)


def _degradations_entry(
    options: argparse.Namespace, config: ModelConfig
) -> DegradationsEntry | None:
    if options.degradations == ["lowpass"]:
        return None
    shares = config.training.degradations
    return DegradationsEntry(kinds=tuple(options.degradations), shares=shares)


def lowpass_options(options: argparse.Namespace) -> LowpassOptions:
    return LowpassOptions(resample=options.lowpass_resample)


def claim_folder(root: Path, manifest: Manifest, tables: Sequence[SegmentTable]) -> None:
    """Write the manifest and the index, or find that this very set was begun before; its texts and
    the place of its audio then become the present ones.

    Raises:
        UserError: another set lies there, or other files.
    """
    if (root / MANIFEST).exists():
        begun = Manifest.load(root)
        kept = [
            SegmentTable.load(folder_path(root, number), folder.segments)
            for number, folder in enumerate(begun.folders)
        ]
        _refuse_differences(root, begun, manifest, kept)
        renewed = [k for k, table in enumerate(tables) if _texts_of(table) != _texts_of(kept[k])]
        for number in renewed:
            tables[number].save(folder_path(root, number))
        if renewed:
            print(f"{root}: other texts than before; they are kept anew, the latents stay")
        if begun.format == manifest.format and begun != manifest:  # the audio has moved
            manifest.save(root)
        return
    if root.exists() and any(root.iterdir()):
        leftovers = [path for path in root.iterdir() if not path.name.startswith("folder-")]
        if leftovers:
            raise UserError(f"--output_dir {root}: it holds other files ({leftovers[0].name}, ...)")
    for number, table in enumerate(tables):
        table.save(folder_path(root, number))
    manifest.save(root)  # last: where a manifest lies, the index is complete


def _texts_of(table: SegmentTable) -> list[bytes]:
    arrays = (table.caption, table.transcript, table.texts.blob, table.texts.ends)
    return [array.tobytes() for array in arrays]


def claim_folder_once(
    root: Path, manifest: Manifest, tables: Sequence[SegmentTable], fabric: Fabric
) -> Manifest:
    """`claim_folder` by the first process; what it finds or refuses holds for all."""
    problem = ""
    if fabric.global_rank == 0:
        try:
            claim_folder(root, manifest, tables)
        except UserError as error:
            problem = str(error)
    if problem := fabric.broadcast(problem):
        raise UserError(problem)
    return Manifest.load(root)


def _refuse_differences(
    root: Path, begun: Manifest, asked: Manifest, kept: Sequence[SegmentTable]
) -> None:
    old, new = begun.model_dump(mode="json"), asked.model_dump(mode="json")
    found = []
    if not same_weights(old.pop("weights_probe"), new.pop("weights_probe")):
        found.append("the weights of the autoencoder are others")
    if begun.source not in (asked.source, _source_with_texts(asked.source, kept)):
        found.append("the audio files are others (names, order, lengths)")
    for values in (old, new):
        del values["source"], values["format"]
        for folder in values["folders"]:
            del folder["audio_dir"]
    found += [line for _, line in differences(old, new)]
    if found:
        raise UserError.listing(
            f"--output_dir {root}: it holds latents made otherwise (there -> asked for); give the "
            "same arguments and audio, or another folder",
            found,
        )


def _source_with_texts(fingerprint: str, kept: Sequence[SegmentTable]) -> str:
    """What format 2 called the source: the audio and the texts, which are still kept."""
    source = hashlib.sha256(fingerprint.encode("ascii"))
    for table in kept:
        for array in _texts_of(table):
            source.update(array)
    return source.hexdigest()


def main(options: argparse.Namespace) -> None:
    """Encode what ``options`` say."""
    config = refuse_early(options)
    degradations = degradations_of(options, config)
    check_accelerator(options.accelerator, options.devices)
    several = options.devices * options.num_nodes > 1
    fabric = Fabric(
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy="ddp" if several else "auto",
        precision=options.precision,
    )
    fabric.launch()
    pretransform = load_pretransform(config, options)
    reader = open_reader(options, config)
    tables = [
        cut_folder(reader, folder, hop_s(options, config), options.jitter, options.seed)
        for folder in range(len(reader.index.folders))
    ]
    manifest = make_manifest(options, config, reader, tables, pretransform)
    if fabric.global_rank == 0:
        print(reader.index.describe())
    manifest = claim_folder_once(options.output_dir, manifest, tables, fabric)
    clips = SegmentClips(
        reader, tables, options.variants, lowpass_options(options), options.seed, degradations
    )
    pretransform.to(fabric.device)
    write_shards(options.output_dir, manifest, clips, pretransform, fabric, options)
    fabric.barrier()
    if fabric.global_rank == 0:
        hours = sum(folder.hours for folder in manifest.folders)
        print(
            f"{options.output_dir}: {sum(manifest.shards(k) for k in range(len(tables)))} shards, "
            f"{hours:.2f} h of audio, {manifest.bytes_per_hour / 1e6:.1f} MB per hour"
        )
