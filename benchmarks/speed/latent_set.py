"""Paired latents: how long a set of any size takes to open, what a draw costs, bytes per hour.

    python benchmarks/speed/latent_set.py                                # a thousand and a million
    python benchmarks/speed/latent_set.py --segments --audio_dir VAL     # a real set's size on disk

The synthetic sets have the shapes of the model config, four low-passes a segment and 256 segments a
shard, as `saga_sr.pre_encode` writes them. Their latents are holes in sparse files, so that a set
of 80 GB needs a few MB of disk; to open one does not read them. Each set is opened in a process of
its own that has imported everything before: the seconds and the growth of its memory are of the
set alone. The baseline of the growth is what an index of Python objects would need: a dictionary
per segment.

``--audio_dir`` encodes real audio (with random weights, where the config's encoder needs weights:
the size does not depend on them) and compares the bytes on disk with what the manifest promises.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from saga_sr.audio.packed_names import PackedNames
from saga_sr.config import ModelConfig, load_model_config
from saga_sr.data.latent_dataset import LatentDataset
from saga_sr.data.latents import (
    FolderEntry,
    LowpassEntry,
    Manifest,
    SegmentTable,
    encoding_of,
    folder_path,
    shard_path,
)
from saga_sr.lowpass import LowpassOptions
from saga_sr.pre_encode import __main__ as pre_encode_flags
from saga_sr.pre_encode import encode

VARIANTS = 4
PER_SHARD = 256
SEGMENTS_PER_FILE = 20
DRAWS = 1000


def synthetic_manifest(config: ModelConfig, segments: int) -> Manifest:
    entry = FolderEntry(
        audio_dir="/audio", segments=segments, hours=segments * config.duration_s / 3600
    )
    return Manifest(
        encoding=encoding_of(config), weights_probe=(), latent_dim=config.latent_dim,
        latent_length=config.latent_length, dtype="float16", precision="32-true",
        variants=VARIANTS, hop_s=config.duration_s, jitter=0.0, seed=0,
        lowpass=LowpassEntry(**vars(LowpassOptions())), shard_segments=PER_SHARD,
        folders=(entry,), source="",
    )  # fmt: skip


def write_synthetic_set(root: Path, config: ModelConfig, segments: int) -> None:
    """A set whose shards are right in every way, but hold only zeros."""
    manifest = synthetic_manifest(config, segments)
    files = -(-segments // SEGMENTS_PER_FILE)
    names = PackedNames.pack(
        [b"music/album %05d/track %07d.flac" % (k // 12, k) for k in range(files)]
    )
    texts = PackedNames.pack([b"The caption of track number %07d." % k for k in range(files)])
    rows = np.arange(segments, dtype=np.int32)
    SegmentTable(
        {
            "start": rows.astype(np.int64) * config.sample_size,
            "file": rows // SEGMENTS_PER_FILE,
            "cumulative_s": (rows + 1) * config.duration_s,
            "caption": rows // SEGMENTS_PER_FILE,
            "transcript": np.full(segments, -1, dtype=np.int32),
            "names_blob": names.blob, "names_ends": names.ends,
            "texts_blob": texts.blob, "texts_ends": texts.ends,
        }
    ).save(folder_path(root, 0))  # fmt: skip
    for shard in range(manifest.shards(0)):
        count = min(PER_SHARD, segments - shard * PER_SHARD)
        write_sparse_shard(shard_path(root, 0, shard), manifest, count)
    manifest.save(root)


def write_sparse_shard(path: Path, manifest: Manifest, segments: int) -> None:
    """A safetensors file of zeros that takes no room: its header, and then a hole."""
    latent = [manifest.latent_dim, manifest.latent_length]
    shapes: dict[str, tuple[str, list[int]]] = {
        "hr": ("F16", [segments, *latent]),
        "lr": ("F16", [segments, VARIANTS, *latent]),
        "rolloff_high": ("F32", [segments]),
        "hr_end_hz": ("F32", [segments]),
    }
    for name in ("lr_cutoff_hz", "lr_passband_hz", "rolloff_low"):
        shapes[name] = ("F32", [segments, VARIANTS])
    header: dict[str, object] = {"__metadata__": {"manifest": manifest.id}}
    end = 0
    for name, (dtype, shape) in shapes.items():
        begin, end = end, end + int(np.prod(shape)) * (2 if dtype == "F16" else 4)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


# --- opening ------------------------------------------------------------------------------------


def resident_bytes() -> int:
    """Memory of this process that is in use now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_and_draw(root: Path, config: ModelConfig) -> dict[str, float]:
    """Seconds to open a set and per draw, and by how much the memory grew."""
    before, began = resident_bytes(), time.perf_counter()
    dataset = LatentDataset([root], config, seed=0)
    dataset[0]
    opened_s = time.perf_counter() - began
    grown = resident_bytes() - before
    began = time.process_time()
    for draw in range(DRAWS):
        dataset[draw]
    per_draw_s = (time.process_time() - began) / DRAWS
    return {"opened_s": opened_s, "grown": grown, "per_draw_s": per_draw_s,
            "grown_after": resident_bytes() - before}  # fmt: skip


def in_own_process(root: Path, config_file: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--open", str(root), "--model_config", str(config_file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def bytes_of_objects(segments: int) -> int:
    """Memory of a list of dictionaries, one per segment, extrapolated from a part of it."""
    part = min(segments, 20_000)
    before = resident_bytes()
    kept = [
        {"path": f"music/album {k // 240:05d}/track {k // 20:07d}.flac", "start": 1000 * k + 0.5,
         "caption": f"The caption of track number {k:07d}."}
        for k in range(part)
    ]  # fmt: skip
    grown = max(resident_bytes() - before, sum(sys.getsizeof(one) for one in kept))
    return grown * segments // part


def report_opening(sizes: list[int], config_file: Path) -> None:
    config = load_model_config(config_file)
    columns = ("segments", "hours", "latents", "shards", "open + first item", "memory",
               "1,000 draws later", "per draw", "a dictionary per segment")  # fmt: skip
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for segments in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_synthetic_set(Path(folder), config, segments)
            found = in_own_process(Path(folder), config_file)
            size = sum(path.stat().st_size for path in Path(folder).rglob("*.safetensors"))
        print(
            f"| {segments:,} | {segments * config.duration_s / 3600:,.1f} | {size / 1e9:,.2f} GB "
            f"| {-(-segments // PER_SHARD):,} | {found['opened_s']:.2f} s "
            f"| {found['grown'] / 1e6:.0f} MB | {found['grown_after'] / 1e6:.0f} MB "
            f"| {1000 * found['per_draw_s']:.2f} ms | {bytes_of_objects(segments) / 1e6:.0f} MB |",
            flush=True,
        )


# --- a real set ---------------------------------------------------------------------------------


def report_size(audio_dir: Path, config_file: Path, variants: int) -> None:
    """Encode the audio and weigh the set."""

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "latents"
        flags = ["--audio_dir", audio_dir, "--output_dir", root, "--model_config", config_file,
                 "--variants", variants, "--num_workers", 0, "--accelerator", "cpu",
                 "--allow_random_pretransform"]  # fmt: skip
        began = time.process_time()
        encode.main(pre_encode_flags.parse_options([str(flag) for flag in flags]))
        seconds = time.process_time() - began
        manifest = Manifest.load(root)
        hours = sum(entry.hours for entry in manifest.folders)
        files = [path for path in root.rglob("*") if path.is_file()]
        shards = sum(path.stat().st_size for path in files if path.suffix == ".safetensors")
        rest = sum(path.stat().st_size for path in files) - shards
    print(
        f"\n{config_file.name}, {hours:.4f} h of audio, {variants} low-passes, float16: "
        f"{shards / hours / 1e6:.2f} MB per hour in shards (the manifest says "
        f"{manifest.bytes_per_hour / 1e6:.2f}), {rest / hours / 1e6:.2f} MB per hour of index; "
        f"{hours * 3600 / seconds:.2f} s of audio per processor second"
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    full = Path(__file__).resolve().parents[2] / "saga_model_config.json"
    parser.add_argument("--model_config", type=Path, default=full)
    parser.add_argument("--segments", type=int, nargs="*", default=[1000, 1_000_000])
    parser.add_argument("--audio_dir", type=Path, help="encode this and weigh the result")
    parser.add_argument("--variants", type=int, default=4)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    options = build_parser().parse_args()
    if options.open:
        found = open_and_draw(options.open, load_model_config(options.model_config))
        print(json.dumps(found))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, "
          f"{options.model_config.name}\n")  # fmt: skip
    if options.segments:
        report_opening(options.segments, options.model_config)
    if options.audio_dir:
        report_size(options.audio_dir, options.model_config, options.variants)


if __name__ == "__main__":
    main()
