"""What the corpus is made of: packages, where their sounds lie, who may be heard in training.

Six sets: ``foxdot`` (Python package index), ``debian`` (six packages; all validation sounds are
in these two), ``games`` (data of games that Debian packages: four times as much, for training
only), ``drums`` (one Debian package of drum kits, for training only), ``scores`` (MIDI scores
rendered through a soundfont, both from Debian, for training only) and ``unseen`` (nine packages of
which nothing is ever trained on: for measuring what a model makes of recordings from elsewhere).

A source is one package of a registry. Its ``place`` function says for every audio file inside
which part it goes to: train, val or unseen, and music, speech or effects. ``None`` leaves a file
out. Of ``unseen`` only what is full-band is kept: there must be a truth to measure against.

Held out is by source, never by clip: both composers of the four validation tracks, two whole
languages, every sound of the uploaders of the validation effects, and whole instruments of
FoxDot. A model is then never judged on a voice, a synthesiser or a recording room that it has
heard. The rules are written out below, so that they can be read and checked.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

# What models are judged on by people who have it: never fetched, and so never trained on. So are
# packages whose names go on from these (other languages, other parts).
RESERVED = ("ufoai-music", "supertuxkart-data", "0ad-data", "fillets-ng-data", "gcompris-qt-data")

Split = Literal["train", "val", "unseen"]
Category = Literal["music", "speech", "effects"]
CATEGORIES: tuple[Category, ...] = ("music", "speech", "effects")
AUDIO_SUFFIXES = {".wav", ".aif", ".aiff", ".flac", ".ogg", ".opus", ".mp3"}


def is_reserved(package: str) -> bool:
    """Whether a package is, or belongs to, one of `RESERVED`."""
    return package.lower().startswith(RESERVED)


@dataclass(frozen=True)
class Place:
    """Where a file of a package goes in the corpus."""

    split: Split
    category: Category
    stem: str


@dataclass(frozen=True)
class Source:
    """One package, the folder inside it that holds sounds, and its hold-out rule.

    With ``soundfont`` the folder holds MIDI scores, and that package the file that plays them.
    """

    package: str
    version: str  # the one whose hash is known; a Debian release may carry another
    sha256: str
    folder: str
    licence: str
    place: Callable[[PurePosixPath], Place | None]
    soundfont: "Source | None" = None


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


# Spoken words of games: <name>_desc_<language>, <digit>_<language>; what units of Megaglest say.
TUXPAINT_SPOKEN = re.compile(r".*_(desc|desc_\w+|[a-z]{2}|[a-z]{2}_[A-Za-z]{2})$")
MEGAGLEST_SPOKEN = re.compile(r".*_(select|ack)\d*$")
VAL_LANGUAGES = re.compile(r".*_(fr|lt)$")


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


def place_game(game: str) -> Callable[[PurePosixPath], Place]:
    """Games keep music, voices and sounds in folders that say so; all of it is for training."""

    def place(path: PurePosixPath) -> Place:
        folders = {folder.lower() for folder in path.parts[:-1]}
        category: Category = "effects"
        if folders & {"music", "songs"}:
            category = "music"
        elif folders & {"voice", "voices", "speech"}:
            category = "speech"
        return Place("train", category, _stem(game, path))

    return place


def place_music(game: str) -> Callable[[PurePosixPath], Place]:
    """A folder of nothing but music."""
    return lambda path: Place("train", "music", _stem(game, path))


place_songs = place_music("songs")


def place_megaglest(path: PurePosixPath) -> Place:
    """Units answer by voice when they are selected and when they are told what to do."""
    place = place_game("megaglest")(path)
    return replace(place, category="speech") if MEGAGLEST_SPOKEN.fullmatch(path.stem) else place


def place_unknown_horizons(path: PurePosixPath) -> Place | None:
    """``voice/<language>``: a language that is held out elsewhere is not heard here either."""
    if path.parts[:2] == ("voice", "fr"):
        return None
    return place_game("unknown_horizons")(path)


def place_tuxpaint(path: PurePosixPath) -> Place | None:
    """A stamp has a sound, and is named in a dozen languages by as many speakers."""
    if VAL_LANGUAGES.fullmatch(path.stem):
        return None
    category: Category = "speech" if TUXPAINT_SPOKEN.fullmatch(path.stem) else "effects"
    return Place("train", category, _stem("tuxpaint", path))


def unseen(place: Callable[[PurePosixPath], Place]) -> Callable[[PurePosixPath], Place]:
    """The same places, but for measuring alone."""
    return lambda path: replace(place(path), split="unseen")


def place_flare(path: PurePosixPath) -> Place:
    """Merchants speak."""
    place = place_game("flare")(path)
    return replace(place, category="speech") if path.parent.name == "npcs" else place


def place_ktuberling(path: PurePosixPath) -> Place:
    """``<language>/<thing>``: a part of a picture, named by a speaker of the language."""
    return Place("train", "speech", _stem("ktuberling", path))


def place_drums(path: PurePosixPath) -> Place:
    """``<kit>/<file>``: single strokes, all of them for training."""
    return Place("train", "effects", _stem("drums", path))


def place_scores(path: PurePosixPath) -> Place:
    """``<piece>--<kind>--<instruments>`` of render_scores.py: drums alone are effects."""
    category: Category = "effects" if "--drums-" in path.stem else "music"
    return Place("train", category, _stem("scores", path))


def _stem(source: str, path: PurePosixPath) -> str:
    return plain_name("_".join((source, *path.with_suffix("").parts)))


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

GAMES = (
    Source(
        "hedgewars-data", "1.0.2-6",
        "722225903a72604403e6e0026e40e9a6953f47a74d94efc5f55504bc05bb4761",
        "usr/share/games/hedgewars/Data", "GFDL-1.3, CC-BY-SA-3.0",
        place_game("hedgewars"),
    ),
    Source(
        "warzone2100-music", "4.3.3-3",
        "d3b2c9f90ea5438d45d4aff18339a03ec808e1affa9dac91f7dad61cb15ee64e",
        "usr/share/games/warzone2100/music", "GPL-2+, CC-BY-SA-3.0, CC0",
        place_songs,
    ),
    Source(
        "naev-data", "0.8.2-1",
        "a98849cacdfc72779e03ceb68f32af03cb3c3f382ba8b82e3299ef87254b454d",
        "usr/share/naev/dat/snd", "GPL-2+, GPL-3, CC-BY-3.0, CC-BY-SA-3.0, public domain",
        place_game("naev"),
    ),
    Source(
        "supertux-data", "0.6.3-2",
        "a6ad8865972f1dbb5e7b49f4e1b381dd16a68f3028a3502cfeaca2400285d27f",
        "usr/share/games/supertux2", "GPL-2+, GPL-3+, CC-BY-SA",
        place_game("supertux"),
    ),
    Source(
        "colobot-common-sounds", "0.2.0-2",
        "819e799542eac69c95b072567b5584eb3e0b2bb900de13efa3684915747b1644",
        "usr/share/games/colobot", "GPL-3+",
        place_game("colobot"),
    ),
    Source(
        "freedroidrpg-data", "1.0-1",
        "16c3cfeb82b1ec20c98493bbe1de2e356bd1aec832845630a5a7f12e303baa2b",
        "usr/share/freedroidrpg/data", "GPL-2+, CC0",
        place_game("freedroidrpg"),
    ),
    Source(
        "widelands-data", "2:1.1-3",
        "0e23d645b15bcfb9e3bcae0de9bc1bdfa75a6ecb36b2e449759d6eb0b4bbd8fb",
        "usr/share/games/widelands/data", "GPL-2+",
        place_game("widelands"),
    ),
    Source(
        "unknown-horizons", "2019.1-6",
        "ff49ea196d0f57c80d4cd4509c030240cbe632881f8c5b2a1265dd3e3795f100",
        "usr/share/unknown-horizons/content/audio", "GPL-2+, CC-BY-SA-3.0",
        place_unknown_horizons,
    ),
    Source(
        "megaglest-data", "3.13.0-3",
        "ed4783d9fc78e201a548b266f7c30325eb16cfd58a20bf4597dd6e622f84a07e",
        "usr/share/games/megaglest", "CC-BY-SA-3.0",
        place_megaglest,
    ),
    Source(
        "wesnoth-1.16-data", "1:1.16.9-1",
        "1012b964bd412a6770685e3324ae3b61e176caff7846192d1ee63d55cd621e26",
        "usr/share/games/wesnoth/1.16", "GPL-2+",
        place_game("wesnoth_sounds"),
    ),
    Source(
        "tuxpaint-stamps-default", "2022.06.04-1",
        "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        "usr/share/tuxpaint/stamps", "GPL-2",
        place_tuxpaint,
    ),
    Source(
        "fretsonfire-songs-sectoid", "1.dfsg-3.1",
        "14c1ed3e43c1a6a80eae7698f0469a0825cd1184e441968d62df89ca418aa0b4",
        "usr/share/games/fretsonfire/data/songs", "MIT",
        place_songs,
    ),
    Source(
        "fretsonfire-songs-muldjord", "2.dfsg-2.1",
        "b37adf8b08b46d4182c283e760e4f40622d83674e05803960ea1e11a92600c7b",
        "usr/share/games/fretsonfire/data/songs", "CC-BY-SA-3.0",
        place_songs,
    ),
)  # fmt: skip

DRUMS = (
    Source(
        "hydrogen-drumkits", "2017.09.19~dfsg-1",
        "6ea3c6df9a67762e2362f946c695e619859126b19fbccf32a2e8f07dfd03b2f4",
        "usr/share/hydrogen/data/drumkits",
        "GPL-2, GPL-2+, CC-BY-SA-3.0, CC-BY-3.0, CC0",
        place_drums,
    ),
)  # fmt: skip

SOUNDFONT = Source(
    "musescore-general-soundfont", "0.2.1-1",
    "21ab87e4b15711817f84130a370bdb51003c90f3bf53e4015f3b410b9ed8c6a5",
    "usr/share/sounds/sf3", "MIT", lambda path: None,
)  # fmt: skip

SCORES = (
    Source(
        "openttd-openmsx", "0.4.2-1",
        "1a728a4ac37a1c614de1f597d3024caa7f54ce93d28f5b979b5758305b916a54",
        "usr/share/games/openttd/baseset/openmsx",
        "GPL-2 (scores), MIT (musescore-general-soundfont, which plays them)",
        place_scores, SOUNDFONT,
    ),
)  # fmt: skip

UNSEEN = (
    Source(
        "openclonk-data", "8.1-3",
        "1505314b47196c5052caf75e870ea2cf36bdb4e1d0c7e3f133da93815b7e642f",
        "usr/share/games/openclonk/Music.ocg", "CC-BY-3.0, CC0",
        unseen(place_music("openclonk")),
    ),
    Source(
        "pushover-data", "0.0.5+git20180909-4",
        "75f52ad553c73660489631b4b4eeb308c3601beee68a097abdd5f2e4e442cbfb",
        "usr/share/pushover/themes", "GPL-3+",
        unseen(place_music("pushover")),
    ),
    Source(
        "xmoto-data", "0.6.1+repack-9",
        "458966c8291579df7dd215a3ebf48cb89fc94e94fe871d124b542eb6233c0e66",
        "usr/share/games/xmoto/Textures/Musics", "GPL-2+",
        unseen(place_music("xmoto")),
    ),
    Source(
        "marsshooter-data", "0.7.6-7",
        "b8d040a9739434f2be96bbf9b38f0743d56d59b853647b2242f9357e38394951",
        "usr/share/games/marsshooter/audio/music", "CC-BY-SA-3.0",
        unseen(place_music("marsshooter")),
    ),
    Source(
        "extremetuxracer-data", "0.8.2-1",
        "8ce6c82e6fb89549d284f43f6c4b0a9d82e6c0e5da753bee0ef419276a21470c",
        "usr/share/games/etr", "GPL-2+",
        unseen(place_game("extremetuxracer")),
    ),
    Source(
        "lincity-ng-data", "2.9~git20150314-5",
        "8f5e85bd42879abdc7099b035d7a3d7468eceb6b93b52a12270c28f3f3c792f9",
        "usr/share/games/lincity-ng", "GPL-2+, CC-BY-SA-2.0",
        unseen(place_game("lincity")),
    ),
    Source(
        "warmux-data", "1:11.04.1+repack2-4",
        "cceec72afcc9d5b0515149eb505bf0d883bd47399e602b30a805cafa2d91eb70",
        "usr/share/games/warmux", "GPL-2+",
        unseen(place_game("warmux")),
    ),
    Source(
        "flare-game", "1.14-1",
        "4ab6a8298276013d35a0806257e130d992761af1b749041433b409c3dafec508",
        "usr/share/games/flare/mods", "CC-BY-SA-3.0+",
        unseen(place_flare),
    ),
    Source(
        "ktuberling-data", "4:22.12.3-1",
        "fba44c875bfa31ea488dadd9263e87a4dcaea0bd47d28817f6c0dc6d2af970ed",
        "usr/share/ktuberling/sounds", "GPL-2+",
        unseen(place_ktuberling),
    ),
)  # fmt: skip

SETS: dict[str, tuple[Source, ...]] = {
    "foxdot": (FOXDOT,),
    "debian": DEBIAN,
    "games": GAMES,
    "drums": DRUMS,
    "scores": SCORES,
    "unseen": UNSEEN,
}
