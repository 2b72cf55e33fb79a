"""What the corpus is made of: packages, where their sounds lie, who may be heard in training.

A source is one package of a registry. Its ``place`` function says for every audio file inside
which part it goes to: train or val, and music, speech or effects. ``None`` leaves a file out.

Held out is by source, never by clip: both composers of the four validation tracks, two whole
languages, every sound of the uploaders of the validation effects, and whole instruments of
FoxDot. A model is then never judged on a voice, a synthesiser or a recording room that it has
heard. The rules are written out below, so that they can be read and checked.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

Split = Literal["train", "val"]
Category = Literal["music", "speech", "effects"]
CATEGORIES: tuple[Category, ...] = ("music", "speech", "effects")
AUDIO_SUFFIXES = {".wav", ".aif", ".aiff", ".flac", ".ogg", ".opus", ".mp3"}


@dataclass(frozen=True)
class Place:
    """Where a file of a package goes in the corpus."""

    split: Split
    category: Category
    stem: str


@dataclass(frozen=True)
class Source:
    """One package, the folder inside it that holds sounds, and its hold-out rule."""

    package: str
    version: str  # the one whose hash is known; a Debian release may carry another
    sha256: str
    folder: str
    licence: str
    place: Callable[[PurePosixPath], Place | None]


# Every track by Gianmarco Leone and by Jeremy Nicoll (the artist tags of the package).
WESNOTH_VAL = {"the_dangerous_symphony", "the_deep_path", "nunc_dimittis", "vengeful"}

# Two languages, so no speaker and no microphone is shared.
KLETTRES_VAL = {"fr", "lt"}

# Every sound by the uploaders of the validation effects (the package's copyright file). The three
# in the last line are there only because their uploader made one of the others.
SONIC_PI_VAL = {
    "ambi_haunted_hum",
    "ambi_lunar_land",
    "bass_dnb_f",
    "bd_zum",
    "drum_heavy_kick",
    "drum_roll",
    "guit_e_slide",
    "guit_harmonics",
    "loop_breakbeat",
    "misc_burp",
    "misc_cineboom",
    "perc_swash",
    "sn_dub",
    "vinyl_scratch",
    *("ambi_choir", "ambi_glass_hum", "bd_boom"),
}

# FoxDot names no authors; a folder is one instrument. Tabla (p) is not here: sonic-pi has the same.
FOXDOT_VAL = {"_/2", "_/tilde", "h/lower", "i/upper", "s/lower", "t/upper", "y/lower", "z/lower"}
FOXDOT_VOICES = {"_/1", "_/2", "_/3", "_/4", "_/exclamation", "c/upper"}

HYPERROGUE_VOICE = re.compile(
    r".*-(prince|princess|fairy|rosebeauty|gardener|necromancer|vizier|cultist\w*)$"
)
# Single periods of a wave, made to be looped by a synthesiser: no sound by themselves.
LMMS_SINGLE_CYCLES = {"shapes", "waveforms"}


def plain_name(text: str) -> str:
    """Letters, digits, dot, plus, hyphen and underscore only; safe on every file system."""
    return re.sub(r"[^\w.+-]+", "_", text).strip("_")


def place_foxdot(path: PurePosixPath) -> Place:
    """``snd/<letter>/<case>/<file>``: the folder is the instrument."""
    group = path.parent.as_posix()
    return Place(
        split="val" if group in FOXDOT_VAL else "train",
        category="speech" if group in FOXDOT_VOICES else "effects",
        stem=plain_name(f"foxdot_{group.replace('/', '-')}_{path.stem}"),
    )


def place_sonic_pi(path: PurePosixPath) -> Place:
    """One flat folder; the uploader decides."""
    split: Split = "val" if path.stem in SONIC_PI_VAL else "train"
    return Place(split, "effects", f"sonicpi_{plain_name(path.stem)}")


def place_wesnoth(path: PurePosixPath) -> Place:
    """One flat folder; the composer decides."""
    split: Split = "val" if path.stem in WESNOTH_VAL else "train"
    return Place(split, "music", f"wesnoth_{plain_name(path.stem).replace('-', '_')}")


def place_klettres(path: PurePosixPath) -> Place:
    """``<language>/{alpha,syllab}/<file>``; the language decides."""
    split: Split = "val" if path.parts[0] in KLETTRES_VAL else "train"
    return Place(split, "speech", plain_name("klettres_" + "_".join(path.with_suffix("").parts)))


def place_hyperrogue(path: PurePosixPath) -> Place:
    """``music/`` and ``sounds/``; some of the sounds are voices."""
    category: Category = "music" if path.parts[0] == "music" else "effects"
    if category == "effects" and HYPERROGUE_VOICE.fullmatch(path.stem):
        category = "speech"
    return Place("train", category, f"hyperrogue_{plain_name(path.stem)}")


def place_singularity(path: PurePosixPath) -> Place:
    """Music by one composer, with two folders for the endings of the game."""
    return Place("train", "music", f"singularity_{plain_name(path.stem)}")


def place_lmms(path: PurePosixPath) -> Place | None:
    """``<kind>/<file>``: drums, loops and notes of instruments."""
    if path.parts[0] in LMMS_SINGLE_CYCLES:
        return None
    return Place("train", "effects", plain_name("lmms_" + "_".join(path.with_suffix("").parts)))


FOXDOT = Source(
    "FoxDot", "0.9.0", "f5d21aaab19c62965e5a5465ca646f1bd6274d16afd3392d7e652914194dffb1",
    "FoxDot/snd", "CC-BY-SA-4.0", place_foxdot,
)  # fmt: skip

DEBIAN = (
    Source(
        "sonic-pi-samples", "3.2.2~repack-8",
        "25f2312d2fae005e6ad0f4726b8ed3084e776006a5a132083506e960224ac79d",
        "usr/share/sonic-pi/samples", "CC0", place_sonic_pi,
    ),
    Source(
        "wesnoth-1.16-music", "1:1.16.9-1",
        "f9bc3cde92b4ab30db5d7b85f89b4bcc3d788dd92602956d0347250850bf59bb",
        "usr/share/games/wesnoth/1.16/data/core/music", "GPL-2+", place_wesnoth,
    ),
    Source(
        "hyperrogue-music", "12.0q-1",
        "61ab9f4c2169442d85f42c42d26e80c1a18b93c741f3d44f1b9d83015904e7f7",
        "usr/share/hyperrogue", "CC-BY-SA-3.0 (music), CC-BY-SA-4.0, CC-BY-3.0 and CC0 (sounds)",
        place_hyperrogue,
    ),
    Source(
        "singularity-music", "007-2",
        "139ba1e408eeb0a72f1fff3760ca46558b9f81bed97dc8c0efa108c4007f4845",
        "usr/share/games/singularity/music", "CC-BY-SA-3.0", place_singularity,
    ),
    Source(
        "klettres-data", "4:22.12.3-1",
        "1186d257a19e84230856baea0b0b1ded8be9195080fcdb2588970b5cd937f5a8",
        "usr/share/klettres", "GPL-2+", place_klettres,
    ),
    Source(
        "lmms-common", "1.2.2+dfsg1-6",
        "7d9aa55dd05f11edc57104203ee1c350e3e41f8936ab3741da2bb1158fd46c37",
        "usr/share/lmms/samples", "GPL-2+", place_lmms,
    ),
)  # fmt: skip

SETS: dict[str, tuple[Source, ...]] = {"foxdot": (FOXDOT,), "debian": DEBIAN}
