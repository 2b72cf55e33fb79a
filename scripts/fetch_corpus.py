"""Fetch a real training corpus from the package registries: music, speech and effects.

``foxdot`` is the source distribution of FoxDot on the Python package index: 342 short sounds,
CC-BY-SA-4.0. It needs nothing but pip. ``debian`` is six data packages of Debian, about five
hours, and needs apt-get and dpkg-deb. ``games`` is the music, the voices and the sounds of a dozen
games more, for training only (2.3 GB to download). ``drums`` is the strokes of the drum kits of
Hydrogen, for training only (143 MB to download). ``scores`` is 31 MIDI pieces, rendered several
times through a soundfont (76 MB to download, minutes of work, 0.8 GB; needs tinysoundfont), for
training only. ``unseen`` is nine packages more (0.6 GB to download), none of it for training: what
does a model make of recordings from elsewhere? Nothing of all this is part of this repository.

The output folder then holds

    train/{music,speech,effects}            every usable sound
    train_fullband/{music,speech,effects}   the ones whose spectrum really reaches 18 kHz (links)
    val/{music,speech,effects}              sources held out: see corpus_sources.py
    unseen/{music,speech,effects}           packages held out, what of them is full-band
    licenses/                               licence and copyright files; they go with the sounds
    manifest.json                           a line for each file: origin, licence, what was measured
    */*/captions.jsonl, */*/*.txt           what the sources say of their sounds: captions, and
                                            transcripts where something known is spoken

A package is fetched once: it is done when the manifest, written last, names it and all its files
are there. Files appear whole, and a run that was stopped is simply started again.
"""

# ruff: noqa: E402
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from saga_sr.support.errors import UserError, run_cli


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; needs nothing but the standard library."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("corpus"), help="folder (%(default)s)")
    parser.add_argument(
        "--sets",
        nargs="+",
        choices=("foxdot", "debian", "games", "drums", "scores", "unseen"),
        default=["foxdot"],
        help="what to fetch (foxdot)",
    )
    parser.add_argument(
        "--captions_only",
        action="store_true",
        help="fetch nothing; write the captions of what is there anew",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    OPTIONS = parse_args()

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

import soundfile

from band_screen import screen
from corpus_captions import Words, words_of
from corpus_sources import (
    AUDIO_SUFFIXES,
    CATEGORIES,
    FOXDOT,
    RESERVED,
    SETS,
    Place,
    Source,
    is_reserved,
)
from render_scores import render_folder, synthesizer
from saga_sr.data.caption_table import CAPTION_FILE, CaptionRecord, CaptionTable
from saga_sr.support.files import atomic_path, sha256_of, write_json_atomic, write_text_atomic

Record = dict[str, Any]

MAX_NAMED = 10  # files left out that are named on the screen


def main(options: argparse.Namespace) -> None:
    """Fetch what is missing, then say what there is."""
    output: Path = options.output
    wanted = [] if options.captions_only else options.sets
    for source in [source for name in wanted for source in SETS[name]]:
        manifest = read_manifest(output)
        if is_complete(output, manifest.get(source.package)):
            print(f"{source.package}: already there")
            continue
        manifest[source.package] = fetch(source, output)
        write_json_atomic(output / "manifest.json", manifest)
    manifest = read_manifest(output)
    if not manifest:
        raise UserError(f"{output}: no manifest.json; there is no corpus here to caption")
    print_summary(output, manifest)
    write_captions(output, manifest)


def read_manifest(output: Path) -> dict[str, Record]:
    """The packages fetched so far; empty if there are none."""
    path = output / "manifest.json"
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable ({error}); delete it to fetch again") from error


def is_complete(output: Path, entry: Record | None) -> bool:
    """Whether every file of a package is there with its size."""
    if entry is None:
        return False
    paths = [(output / record["file"], record["bytes"]) for record in entry["files"]]
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def fetch(source: Source, output: Path) -> Record:
    """Download one package, sort its sounds into ``output``; returns its manifest entry.

    Raises:
        UserError: it is reserved, or cannot be fetched.
    """
    if is_reserved(source.package):
        raise UserError(
            f"{source.package}: reserved, models are judged on it; never fetched for a corpus "
            f"(corpus_sources.py: {', '.join(RESERVED)})"
        )
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=output) as scratch:
        print(f"{source.package}: fetching ...", flush=True)
        download = download_foxdot if source is FOXDOT else download_debian
        folder = download(source, Path(scratch))
        keep_licences(source, folder, output / "licenses")
        sounds = folder / source.folder
        if source.soundfont is not None:
            sounds = render(sounds, source.soundfont, output, Path(scratch) / "rendered")
        files, left_out = sort_in(source, sounds, output)
    for name, reason in list(left_out.items())[:MAX_NAMED]:
        print(f"  left out: {name}: {reason}")
    if len(left_out) > MAX_NAMED:
        print(f"  left out: {len(left_out) - MAX_NAMED} more, see manifest.json")
    if not files:
        raise UserError(f"{source.package}: no usable sound in {source.folder} of the package")
    return {"licence": source.licence, "files": files, "left_out": left_out}


def render(scores: Path, soundfont: Source, output: Path, rendered: Path) -> Path:
    """Play MIDI scores; returns the folder of the sounds."""
    synthesizer()  # or it is missed after the download
    rendered.mkdir()
    folder = download_debian(soundfont, rendered)
    keep_licences(soundfont, folder, output / "licenses")
    (path,) = (folder / soundfont.folder).iterdir()
    print("  rendering ...", flush=True)
    render_folder(scores, path, rendered / "sounds")
    return rendered / "sounds"


def download_foxdot(source: Source, scratch: Path) -> Path:
    """The unpacked source distribution. pip asks its build for metadata, which takes seconds."""
    requirement = scratch / "requirement.txt"
    pinned = f"{source.package}=={source.version} --hash=sha256:{source.sha256}"
    requirement.write_text(pinned, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-binary", source.package, "--require-hashes", "--dest", "."]
    run([*pip, *options, "-r", requirement.name], scratch, "is pip set up for a package index?")
    (archive,) = scratch.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(scratch / "unpacked", filter="data")
    return next((scratch / "unpacked").iterdir())


def download_debian(source: Source, scratch: Path) -> Path:
    """The unpacked package of whatever Debian release apt is set up for."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise UserError(
                f"--sets debian, games, drums, scores and unseen need {tool}, which this machine "
                "lacks: they work on Debian and its relatives; --sets foxdot works everywhere"
            )
    run(["apt-get", "download", source.package], scratch, "try apt-get update as root first")
    (archive,) = scratch.glob("*.deb")
    check_hash(source, archive)
    run(["dpkg-deb", "--extract", archive.name, "unpacked"], scratch, "is the disk full?")
    return scratch / "unpacked"


def check_hash(source: Source, archive: Path) -> None:
    """apt has checked the signature; this checks that it is the package that was looked at."""
    version = archive.name.split("_")[1].replace("%3a", ":")
    if version != source.version:
        print(f"  version {version} instead of {source.version}: the hash is not known")
    elif sha256_of(archive) != source.sha256:
        raise UserError(f"{archive.name}: not the package that is known under this version")


def run(command: list[str], folder: Path, hint: str) -> None:
    """Run a tool in ``folder``; what it says is shown only if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-1500:]
        raise UserError(f"{' '.join(command[:3])} failed ({hint})\n{said}")


def keep_licences(source: Source, folder: Path, licenses: Path) -> None:
    """Licences ask to be handed on with the sounds, and credits to be given."""
    copies = {
        "copyright": folder / f"usr/share/doc/{source.package}/copyright",
        "LICENSE": folder / "LICENSE",
        "README": folder / "README.md",  # FoxDot thanks the sources of its sounds there
        "credits": folder / source.folder / "sounds/credits.txt",
    }
    for kind, path in copies.items():
        if path.exists():
            with atomic_path(licenses / f"{source.package}.{kind}.txt") as temporary:
                shutil.copyfile(path, temporary)
    about = f"{source.package} {source.version}: {source.licence}. Sounds are unchanged, renamed.\n"
    write_text_atomic(licenses / f"{source.package}.about.txt", about)


def sort_in(source: Source, folder: Path, output: Path) -> tuple[list[Record], dict[str, str]]:
    """Place every sound of ``folder``; returns the records and the files left out, with reasons."""
    files: list[Record] = []
    left_out: dict[str, str] = {}
    first_of: dict[str, str] = {}  # content -> the first file of it
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in AUDIO_SUFFIXES:
            continue
        inside = PurePosixPath(path.relative_to(folder).as_posix())
        place = source.place(inside)
        if place is None:
            continue
        first = first_of.setdefault(sha256_of(path), inside.as_posix())
        if first != inside.as_posix():
            left_out[inside.as_posix()] = f"the same as {first}"
            continue
        try:
            measured = screen(path)
        except soundfile.LibsndfileError as error:
            left_out[inside.as_posix()] = str(error).split(": ", 1)[-1]
            continue
        if measured.unusable:
            left_out[inside.as_posix()] = measured.unusable
            continue
        full_band = measured.is_full_band(speech=place.category == "speech")
        if place.split == "unseen" and not full_band:
            left_out[inside.as_posix()] = "not full-band"
            continue
        target = put(path, place, full_band, output)
        origin = {"file": target, "bytes": path.stat().st_size, "origin": inside.as_posix()}
        where = {"split": place.split, "category": place.category, "full_band": full_band}
        files.append({**origin, **where, **asdict(measured)})
    return files, left_out


def put(path: Path, place: Place, full_band: bool, output: Path) -> str:
    """Move a sound to its place and link it where it belongs too; returns the relative path."""
    name = f"{place.category}/{place.stem}{path.suffix.lower()}"
    target = output / place.split / name
    with atomic_path(target) as temporary:
        shutil.copyfile(path, temporary)
    link = output / "train_fullband" / name
    link.unlink(missing_ok=True)
    if place.split == "train" and full_band:
        link.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(target, link)
    return target.relative_to(output).as_posix()


def link_or_copy(target: Path, link: Path) -> None:
    """A hard link costs no space; some file systems have none."""
    try:
        os.link(target, link)
    except OSError:
        with atomic_path(link) as temporary:
            shutil.copyfile(target, temporary)


def print_summary(output: Path, manifest: dict[str, Record]) -> None:
    """Files and hours of every part."""
    records = [record for entry in manifest.values() for record in entry["files"]]
    train = [record for record in records if record["split"] == "train"]
    parts = {
        "train": train,
        "train_fullband": [record for record in train if record["full_band"]],
        "val": [record for record in records if record["split"] == "val"],
        "unseen": [record for record in records if record["split"] == "unseen"],
    }
    print(f"\n{'':16}" + "".join(f"{category:>18}" for category in (*CATEGORIES, "all")))
    for part, members in parts.items():
        cells = [_cell([r for r in members if r["category"] == c]) for c in CATEGORIES]
        print(f"{part:16}" + "".join(f"{cell:>18}" for cell in (*cells, _cell(members))))
    print(f"\nThe sounds are in {output}; licences and credits are in {output / 'licenses'}.")


def write_captions(output: Path, manifest: dict[str, Record]) -> None:
    """captions.jsonl and transcripts of every folder, and how much of it they tell of.

    What somebody else has written there (`saga_sr.captions`, another transcript) is kept.
    """
    folders: dict[str, dict[str, Words | None]] = {}
    for package, entry in manifest.items():
        for record in entry["files"]:
            words = words_of(package, record["origin"])
            split, category, name = PurePosixPath(record["file"]).parts
            is_linked = split == "train" and record["full_band"]
            for part in [split, *["train_fullband"] * is_linked]:
                folders.setdefault(f"{part}/{category}", {})[name] = words
    print(
        f"\n{'captions':24}{'files':>8}{'with':>8}{'share':>8}{'distinct':>10}{'transcripts':>13}"
    )
    for folder, told in sorted(folders.items()):
        known = {name: words for name, words in sorted(told.items()) if words is not None}
        _write_table(output / folder / CAPTION_FILE, known)
        spoken = {name: words.transcript for name, words in known.items() if words.transcript}
        for name, transcript in spoken.items():
            path = (output / folder / name).with_suffix(".txt")
            if not path.exists():
                write_text_atomic(path, transcript + "\n")
        share, distinct = len(known) / len(told), len({words.caption for words in known.values()})
        counts = f"{len(told):8}{len(known):8}{share:8.0%}{distinct:10}{len(spoken):13}"
        print(f"{folder:24}{counts}")


def _write_table(path: Path, known: dict[str, Words]) -> None:
    if path.exists() and any(record.hash for record in CaptionTable.read(path).records):
        print(f"{path}: kept, its captions are of another origin")
        return
    lines = [CaptionRecord(name, words.caption).to_line() for name, words in known.items()]
    write_text_atomic(path, "".join(lines))


def _cell(records: list[Record]) -> str:
    hours = sum(record["seconds"] for record in records) / 3600
    return f"{len(records)} / {hours:.3f} h"


if __name__ == "__main__":
    raise SystemExit(run_cli(lambda: main(OPTIONS)))
