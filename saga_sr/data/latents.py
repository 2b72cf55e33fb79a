"""Paired latents on disk: what `saga_sr.pre_encode` writes and training reads.

    OUT/manifest.json                 how it was made: encoder, segments, low-passes; the contract
    OUT/folder-000/*.npy              per audio folder: its segments, file names and texts
    OUT/folder-000/shard-000000.safetensors, ...   the latents of 256 segments each

A shard holds, for S segments with K low-passes each, ``hr`` [S, D, L], ``lr`` [S, K, D, L], the
cutoffs, the roll-offs and where the HR spectrum ends. Text is no part of it: it is looked up when
it is needed (`saga_sr.data.latent_texts`). What is kept of it is for a machine without the audio: a
segment names its caption and transcript by their position in a list of distinct texts, since
embeddings would be 12 times the latents.

The index is memory-mapped, and of a shard only the rows that are asked for are read. To open a set
reads the manifest and looks at which shards there are; its size on disk costs neither time nor
memory. Nothing is a pickle, and no path is read from a
file: names of shards are made from their numbers.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from saga_sr.audio.file import with_retries
from saga_sr.audio.packed_names import PackedNames
from saga_sr.config import DegradationSection, ModelConfig, Positive, Section
from saga_sr.support.errors import UserError, first_line
from saga_sr.support.files import atomic_path, write_json_atomic

MANIFEST = "manifest.json"
NO_TEXT = -1
_WITH_TEXTS = "saga_sr latents 2"

# Folding the weight norm or storing weights in half precision moves a probe by less, another VAE
# by more.
PROBE_TOLERANCE = 1e-3
DTYPES: Mapping[str, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
STORED_DTYPES = {
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32,
}  # fmt: skip
MAX_HEADER_BYTES = 1 << 20


# --- the contract -----------------------------------------------------------------------------
class FolderEntry(Section):
    """One audio folder of a set."""

    audio_dir: str
    segments: Positive
    hours: float


class LowpassEntry(Section):
    """The `saga_sr.lowpass.LowpassOptions` that the LR audio was drawn from."""

    families: tuple[str, ...]
    min_order: int
    max_order: int
    min_cutoff_hz: float
    max_cutoff_hz: float
    max_rolloff_fraction: float
    resample: bool


class DegradationsEntry(Section):
    """The `saga_sr.degradation.Degradations` that made the LR audio."""

    kinds: tuple[str, ...]
    shares: DegradationSection


class Manifest(Section):
    """How a set of latents was made. Two sets with equal manifests hold the same latents.

    Format 2 counted the texts and the place of the audio to that; its sets are read as before.
    """

    format: Literal["saga_sr latents 2", "saga_sr latents 3"] = "saga_sr latents 3"
    encoding: dict[str, Any]
    """`encoding_of` the model config."""
    weights_probe: tuple[tuple[float, float], ...]
    """`probe_weights` of the pretransform."""
    latent_dim: Positive
    latent_length: Positive
    dtype: Literal["float16", "bfloat16", "float32"]
    precision: str
    """Of the encoder, as Lightning names it."""
    variants: Positive
    hop_s: float
    jitter: float
    seed: int
    lowpass: LowpassEntry
    degradations: DegradationsEntry | None = None
    """None: the low-pass alone."""
    shard_segments: Positive
    folders: tuple[FolderEntry, ...]
    source: str
    """Fingerprint of the audio index."""

    @property
    def id(self) -> str:
        """What a shard must carry to belong to this manifest."""
        left_out: dict[str, Any] = {}
        if self.format != _WITH_TEXTS:
            left_out["folders"] = {"__all__": {"audio_dir"}}
        if self.degradations is None:  # as in the sets of before there were any
            left_out["degradations"] = True
        return hashlib.sha256(self.model_dump_json(exclude=left_out).encode("utf-8")).hexdigest()

    def shards(self, folder: int) -> int:
        """How many shards a folder has."""
        return -(-self.folders[folder].segments // self.shard_segments)

    @property
    def bytes_per_hour(self) -> float:
        """Size of the latents of one hour of audio."""
        item = DTYPES[self.dtype].itemsize * self.latent_dim * self.latent_length
        segments = sum(folder.segments for folder in self.folders)
        return item * (1 + self.variants) * segments / sum(folder.hours for folder in self.folders)

    def save(self, root: Path) -> None:
        write_json_atomic(root / MANIFEST, self.model_dump(mode="json"))

    @classmethod
    def load(cls, root: Path) -> "Manifest":
        """Read ``root/manifest.json``.

        Raises:
            UserError: it is missing or not a manifest of latents.
        """
        path = root / MANIFEST
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UserError(f"{path}: it cannot be read ({error.strerror})") from error
        except ValidationError as error:
            problems = [
                f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}"
                for one in error.errors(include_url=False)[:12]
            ]
            raise UserError.listing(f"{path}: not a manifest of latents", problems) from error


def is_latent_folder(folder: Path | str) -> bool:
    """Whether a folder was written by `saga_sr.pre_encode`, rather than holding audio."""
    try:
        return b'"saga_sr latents ' in (Path(folder) / MANIFEST).read_bytes()
    except OSError:
        return False


def encoding_of(config: ModelConfig) -> dict[str, Any]:
    """What of a model config decides which latent a clip has."""
    section = config.model.pretransform.model_dump(mode="json", exclude={"iterate_batch"})
    return {
        "sample_rate": config.sample_rate,
        "sample_size": config.sample_size,
        "audio_channels": config.audio_channels,
        "pretransform": section,
    }


def probe_weights(pretransform: torch.nn.Module) -> tuple[tuple[float, float], ...]:
    """(projection on a fixed wave, norm) of each tensor that encoding depends on.

    Unlike a hash, probes can be compared with a tolerance: folding a weight norm rounds differently
    from one version of torch to the next.
    """
    probes = []
    for name, value in pretransform.state_dict().items():
        if not value.is_floating_point() or ".decoder." in f".{name}":
            continue
        flat = value.detach().double().flatten().cpu()
        wave = torch.cos(torch.arange(flat.numel(), dtype=torch.float64) + 0.5)
        probes.append((float(flat @ wave), float(flat.norm())))
    return tuple(probes)


def same_weights(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> bool:
    """Whether two `probe_weights` are those of one encoder."""
    return len(first) == len(second) and all(
        abs(a - b) <= PROBE_TOLERANCE * max(norm_a, norm_b)
        and abs(norm_a - norm_b) <= PROBE_TOLERANCE * max(norm_a, norm_b)
        for (a, norm_a), (b, norm_b) in zip(first, second, strict=True)
    )


# --- one audio folder's index -----------------------------------------------------------------
class SegmentTable:
    """The segments of one audio folder, as arrays; see `COLUMNS`. Loaded arrays are memory maps."""

    COLUMNS = (
        "start",  # [N] int64, first sample of each segment at the model's rate; may be negative
        "file",  # [N] int32, row of its file in `names`
        "cumulative_s",  # [N] float64, running sum of the seconds of audio that segments stand for
        "caption",  # [N] int32, row of its caption in `texts`, or NO_TEXT
        "transcript",  # [N] int32, the same for the transcript
    )
    PACKED = ("names", "texts")  # relative paths and distinct texts

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.start = arrays["start"]
        self.file = arrays["file"]
        self.cumulative_s = arrays["cumulative_s"]
        self.caption = arrays["caption"]
        self.transcript = arrays["transcript"]
        self.names = PackedNames(arrays["names_blob"], arrays["names_ends"])
        self.texts = PackedNames(arrays["texts_blob"], arrays["texts_ends"])

    @classmethod
    def array_names(cls) -> list[str]:
        return [*cls.COLUMNS, *(f"{name}_{part}" for name in cls.PACKED for part in _PACKED_PARTS)]

    def save(self, folder: Path) -> None:
        arrays = {name: getattr(self, name) for name in self.COLUMNS}
        for name in self.PACKED:
            packed = getattr(self, name)
            arrays |= {f"{name}_blob": packed.blob, f"{name}_ends": packed.ends}
        for name, array in arrays.items():
            with atomic_path(folder / f"{name}.npy") as temporary:
                np.save(temporary, array, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path, segments: int) -> "SegmentTable":
        """Map the arrays of a folder.

        Raises:
            UserError: one is missing, damaged or not as long as the manifest says.
        """
        arrays = {name: _map_array(folder / f"{name}.npy") for name in cls.array_names()}
        for name in cls.COLUMNS:
            if arrays[name].shape != (segments,) or arrays[name].dtype.kind not in "if":
                raise UserError(f"{folder / name}.npy: damaged; run saga_sr.pre_encode again")
        return cls(arrays)

    def text(self, row: int) -> str | None:
        """A distinct text by its row."""
        return None if row == NO_TEXT else self.texts[_checked(row, self.texts)].decode("utf-8")

    def audio_name(self, segment: int) -> str:
        """Path of a segment's file below its audio folder, as far as it is UTF-8."""
        row = _checked(int(self.file[segment]), self.names)
        name = self.names[row].decode("utf-8", errors="replace")
        path = PurePath(name)
        if path.is_absolute() or ".." in path.parts:  # texts are read beside it
            raise ValueError(f"the file name {name!r} leaves the audio folder")
        return name


_PACKED_PARTS = ("blob", "ends")


def _checked(row: int, rows: PackedNames) -> int:
    if not 0 <= row < len(rows):
        raise ValueError(f"row {row} of {len(rows)}")
    return row


def _map_array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # whatever damaged bytes provoke in numpy's header parser
        raise UserError(
            f"{path}: missing or damaged ({first_line(error)}); run saga_sr.pre_encode again"
        ) from error
    return array


# --- shards -----------------------------------------------------------------------------------
def folder_path(root: Path, folder: int) -> Path:
    return root / f"folder-{folder:03d}"


def shard_path(root: Path, folder: int, shard: int) -> Path:
    return folder_path(root, folder) / f"shard-{shard:06d}.safetensors"


def write_shard(path: Path, tensors: dict[str, Tensor], manifest: Manifest) -> None:
    """Write a shard, whole or not at all."""
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"manifest": manifest.id})


def shard_is_finished(path: Path, manifest: Manifest) -> bool:
    """Whether an undamaged shard of this manifest lies at ``path``."""
    try:
        with safe_open(path, "pt") as shard:
            return (shard.metadata() or {}).get("manifest") == manifest.id
    except Exception:  # missing, or whatever damaged bytes provoke: it is written again
        return False


class ShardReader:
    """Rows of a safetensors file by reads of exactly those bytes.

    Draws are random: around each row that is touched through a memory map the system would read
    ahead, and what it reads (128 KiB to 8 MiB) is up to 500 times what a draw needs.

    Raises:
        ValueError: the file is damaged. So are most other errors that a damaged header leads to.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        length = int.from_bytes(self._read(0, 8), "little")
        if not 0 < length <= MAX_HEADER_BYTES:
            raise ValueError(f"its header claims {length} bytes")
        self.header = json.loads(self._read(8, length))
        self.metadata = self.header.pop("__metadata__", {})
        self.first_byte = 8 + length
        end = max(entry["data_offsets"][1] for entry in self.header.values())
        if self.file.seek(0, os.SEEK_END) != self.first_byte + end:
            raise ValueError("it is not as long as its header says")

    def row(self, name: str, *index: int) -> Tensor:
        """``tensor[index]`` of a stored tensor, in its own type."""
        entry = self.header[name]
        dtype, shape = STORED_DTYPES[entry["dtype"]], entry["shape"]
        position = 0
        for one, size in zip(index, shape, strict=False):
            if not 0 <= one < size:
                raise ValueError(f"{name} has no row {index}")
            position = position * size + one
        rest = shape[len(index) :]
        count = math.prod(rest) * dtype.itemsize
        begin = entry["data_offsets"][0] + position * count
        if begin + count > entry["data_offsets"][1]:
            raise ValueError(f"{name} does not fill its shape {shape}")
        data = self._read(self.first_byte + begin, count)
        return torch.frombuffer(bytearray(data), dtype=dtype).reshape(rest)

    def _read(self, position: int, count: int) -> bytes:
        self.file.seek(position)
        data = self.file.read(count)
        if len(data) != count:
            raise ValueError("it is truncated")
        return data


class LatentFolder:
    """The latents of one audio folder.

    Args:
        root: of the set.
        number: of the folder in it.
        manifest: of the set.
    """

    def __init__(self, root: Path, number: int, manifest: Manifest) -> None:
        self.root, self.number, self.manifest = root, number, manifest
        self.entry = manifest.folders[number]
        self._require_shards()

    def _require_shards(self) -> None:
        count = self.manifest.shards(self.number)
        below = folder_path(self.root, self.number)
        there = {path.name for path in below.glob("shard-*.safetensors")}
        missing = sum(shard_path(self.root, self.number, k).name not in there for k in range(count))
        if missing:
            raise UserError(
                f"{below}: {missing} of {count} shards are not there yet; "
                "run the same saga_sr.pre_encode command again to finish it"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Workers map the arrays themselves: a memory map would be sent as a whole copy."""
        return {name: value for name, value in vars(self).items() if name != "table"}

    @cached_property
    def table(self) -> SegmentTable:
        return SegmentTable.load(folder_path(self.root, self.number), self.entry.segments)

    def segment_at(self, share: float) -> int:
        """The segment at a share in [0, 1) of the folder's seconds."""
        cumulative_s = self.table.cumulative_s
        found = int(np.searchsorted(cumulative_s, share * cumulative_s[-1], side="right"))
        return min(found, self.entry.segments - 1)

    def read(self, segment: int, variant: int) -> tuple[Tensor, dict[str, Any]]:
        """HR latent [D, L] float32, and ``lr_latent`` with its cutoff, passband and roll-offs.

        Raises:
            UserError: the shard is missing, damaged or of another set.
        """
        shard, row = divmod(segment, self.manifest.shard_segments)
        path = shard_path(self.root, self.number, shard)
        try:
            return with_retries(path, lambda: self._read_once(path, row, variant))
        except UserError as error:
            raise UserError(
                f"{error}; delete it and run the same saga_sr.pre_encode command again"
            ) from error

    def _read_once(self, path: Path, row: int, variant: int) -> tuple[Tensor, dict[str, Any]]:
        try:
            with open(path, "rb", buffering=0) as file:
                stored = ShardReader(file)
                if stored.metadata.get("manifest") != self.manifest.id:
                    raise ValueError("it belongs to another set of latents")
                hr = stored.row("hr", row).float()
                values: dict[str, Any] = {
                    "lr_latent": stored.row("lr", row, variant).float(),
                }
                for name in ("rolloff_high", "hr_end_hz"):
                    values[name] = float(stored.row(name, row))
                for name in ("lr_cutoff_hz", "lr_passband_hz", "rolloff_low"):
                    values[name] = float(stored.row(name, row, variant))
            self._check_latents(hr, values["lr_latent"])
        except Exception as error:  # whatever damaged bytes provoke
            raise OSError(first_line(error)) from error
        return hr, values

    def _check_latents(self, *latents: Tensor) -> None:
        shape = (self.manifest.latent_dim, self.manifest.latent_length)
        for latent in latents:
            if tuple(latent.shape) != shape:
                raise ValueError(f"a latent has shape {list(latent.shape)}, not {list(shape)}")
            if not torch.isfinite(latent).all():
                raise ValueError("a latent is not finite")

    def kept_texts(self, segment: int) -> tuple[str | None, str | None]:
        """(caption, transcript) of a segment when it was encoded."""
        with self._damage_named():
            caption, transcript = self.table.caption[segment], self.table.transcript[segment]
            return self.table.text(int(caption)), self.table.text(int(transcript))

    def audio_name(self, segment: int) -> str:
        """Path of a segment's file below its audio folder."""
        with self._damage_named():
            return self.table.audio_name(segment)

    def audio_path(self, segment: int) -> str:
        return str(Path(self.entry.audio_dir) / self.audio_name(segment))

    def span_s(self, segment: int) -> tuple[float, float]:
        """The seconds (start, end) of its file that a segment stands for."""
        table, encoding = self.table, self.manifest.encoding
        rate, size = encoding["sample_rate"], encoding["sample_size"]
        with self._damage_named():
            rows = [int(table.file[segment]) + k for k in (0, 1)]
            first, stop = (int(k) for k in np.searchsorted(table.file, rows))
            before_s = float(table.cumulative_s[first - 1]) if first else 0.0
            file_s = float(table.cumulative_s[stop - 1]) - before_s  # divided between its segments
            start = int(table.start[segment])
        return max(start, 0) / rate, min((start + size) / rate, file_s)

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, IndexError) as error:
            below = folder_path(self.root, self.number)
            raise UserError(
                f"{below}: its index is damaged ({first_line(error)}); run the same "
                "saga_sr.pre_encode command again"
            ) from error
