"""What each source of the corpus says of its sounds, as captions and as transcripts.

A caption says what the package tells by its folders, file names and credits, and no more: nobody
has listened. Where a name tells nothing (``sound021``), there is none. The letter or syllable that
is spoken is in the caption; where its spelling in the language itself is known, it is a transcript
too.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class Words:
    """What is known of one sound."""

    caption: str
    transcript: str = ""


Told = Words | None

LANGUAGES = {
    "ar": "Arabic", "be": "Belarusian", "bg": "Bulgarian", "ca": "Catalan", "cs": "Czech",
    "da": "Danish", "de": "German", "el": "Greek", "en": "English", "en_GB": "British English",
    "es": "Spanish", "fr": "French", "he": "Hebrew", "hu": "Hungarian", "it": "Italian",
    "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "ml": "Malayalam",
    "nb": "Norwegian Bokmål", "nds": "Low German", "nl": "Dutch", "nn": "Norwegian Nynorsk",
    "pl": "Polish", "pt": "Portuguese", "pt_BR": "Brazilian Portuguese", "ro": "Romanian",
    "ru": "Russian", "sl": "Slovenian", "sv": "Swedish", "tn": "Tswana", "uk": "Ukrainian",
    "zh_tw": "Taiwanese Mandarin",
}  # fmt: skip
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def plain_words(name: str) -> str:
    """The words of a file name in lower case: ``MenuItem_Selected-02`` is "menu item selected"."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    parts = re.split(r"[^A-Za-z']+", re.sub(r"\d+", " ", name).lower())
    words = " ".join(WHOLE_WORDS.get(part, part) for part in parts if len(part) > 1).split()
    return " ".join(sorted(words, key=lambda word: word not in ADJECTIVES))


# Words that file names run together, shorten or misspell.
WHOLE_WORDS = {
    "accord": "chord", "bansheeexp": "banshee explosion", "bassdrum": "bass drum",
    "bassslap": "bass slap", "beerbubble": "beer bubbling", "benchsaw": "bench saw",
    "bigjump": "big jump", "biginn": "big inn", "bluegroper": "blue groper",
    "bonuscave": "bonus cave", "bossattack": "boss attack", "cant": "can't",
    "coraltrout": "coral trout", "cosmostation": "cosmic station",
    "darkforestkeep": "dark forest keep", "dartfire": "dart fire", "darthit": "dart hit",
    "empexplode": "EMP explosion", "elementalgem": "elemental gem",
    "filt": "filtered",
    "forestmap": "forest map", "galacticbattle": "galactic battle", "garbagetruck": "garbage truck",
    "ghostforest": "ghost forest", "girlface": "girl's face", "goldspin": "gold spinning",
    "goldenvalley": "golden valley", "grenadefire": "grenade fire",
    "grenadeimpact": "grenade impact", "heartofmachine": "heart of the machine",
    "hogchant": "hog chant", "icant": "I can't", "icecrash": "ice crash",
    "leveldone": "level done", "lrgexp": "large explosion", "magicmissile": "magic missile",
    "medexp": "medium explosion", "melonimpact": "melon impact", "mineimpact": "mine impact",
    "nohit": "no hit", "planewater": "plane hitting water", "poisoncough": "poison cough",
    "poisonmoan": "poison moan", "rubberduck": "rubber duck", "shardhit": "shard hit",
    "treeboss": "tree boss", "treehit": "tree hit", "tropicalbreeze": "tropical breeze",
    "tucan": "toucan", "winebubble": "wine bubbling", "wisphunt": "wisp hunt",
    "worldmap": "world map", "yellowpepper": "yellow pepper",
    "goldping": "gold ping",
    "greatblue": "great blue", "hi": "high", "hihat": "hi-hat", "ironping": "iron ping",
    "lo": "low", "mousesqueak": "mouse squeak", "mudchute": "", "newfrontier": "new frontier",
    "nightdream": "night dream", "perc": "percussion", "rosebeauty": "rose beauty",
    "seafight": "sea fight", "steamhiss": "steam hiss", "stonegrind": "stone grinding",
    "swordman": "swordsman", "tomtom": "tom-tom", "uh": "", "vinebeast": "vine beast",
    "vinespirit": "vine spirit", "wardrums": "war drums",
}  # fmt: skip
ADJECTIVES = {
    "big", "black", "blue", "brown", "closed", "deep", "distorted", "electric", "female",
    "filtered", "golden", "great", "green", "hard", "heavy", "high", "indian", "little", "long",
    "low", "mid", "new", "old", "open", "opened", "red", "short", "small", "soft", "thick",
    "white", "yellow",
}  # fmt: skip


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!")) else ".")


def title(name: str) -> str:
    """The title of a piece by its file name; "" where that is only a number."""
    words = " ".join(re.sub(r"[_-]+", " ", name).split())
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", words)
    words = re.sub(r"( old)?\d*$", "", words)
    words = " ".join(WHOLE_WORDS.get(word, word) for word in words.split()).strip()
    return words if re.search("[A-Za-z]{3}", words) and words not in EMPTY_NAMES else ""


def article(noun: str) -> str:
    return ("an " if noun[:1] in "aeiou" else "a ") + noun


# --- single sounds --------------------------------------------------------------------------------
# In the order that counts: the first name that a file's words contain.
INSTRUMENTS = (
    ("closedhat", "a closed hi-hat"), ("openhat", "an open hi-hat"),
    ("closed hi-hat", "a closed hi-hat"), ("open hi-hat", "an open hi-hat"),
    ("openhihat", "an open hi-hat"), ("open noise hat", "an open hi-hat"),
    ("hi-hat", "a hi-hat"), ("hh", "a hi-hat"),
    ("jungle snare", "a jungle snare drum"), ("rock snare", "a rock snare drum"),
    ("soft snare", "a soft snare drum"), ("snare", "a snare drum"),
    ("dist kick", "a distorted kick drum"), ("big kick", "a big kick drum"),
    ("kick", "a kick drum"), ("bass drum", "a bass drum"), ("deep drum", "a deep drum"),
    ("cymrev", "a reversed cymbal"), ("crash", "a crash cymbal"), ("ride", "a ride cymbal"),
    ("rimshot", "a rimshot"), ("clap", "a hand clap"), ("snap", "a finger snap"),
    ("cowbell", "a cowbell"), ("conga", "a conga drum"), ("tabla", "a tabla drum"),
    ("tamborine", "a tambourine"), ("triangle", "a triangle"), ("shaker", "a shaker"),
    ("shake", "a shaker"), ("tom", "a tom-tom drum"), ("wood", "a wood block"),
    ("low bass", "a low bass"), ("airhorn", "an air horn"), ("horn", "a horn"),
    ("stab", "a stab"), ("synth", "a synthesizer"), ("keys", "a keyboard"),
    ("lazer", "a laser zap"), ("beep", "a beep"), ("bleep", "a bleep"), ("glitch", "a glitch"),
    ("scratch", "a record scratch"), ("rewind", "a record rewind"), ("noise", "a burst of noise"),
    ("metallic", "a metallic hit"), ("metal", "a metallic hit"), ("percussion", "a percussion hit"),
    ("can", "a hit on a can"), ("rev", "a reversed sound"),
)  # fmt: skip


def foxdot(path: PurePosixPath) -> Told:
    """``<letter>/<case>/<file>``: numbers and shouts are spoken, all else is one stroke or note."""
    words = plain_words(path.stem)
    if words in DIGITS:
        return Words(f'A voice says "{words}".', words)
    if words in ("ayy", "yeah"):
        return Words(f'A voice shouts "{words}".', words)
    if "voice" in words.split():
        return Words("A voice, as a short sample.")
    found = next((what for name, what in INSTRUMENTS if _has(words, name)), None)
    return Words(sentence(found)) if found else None


def _has(words: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", words) is not None


SONIC_PI_KINDS = {
    "ambi": "an ambient sound", "bass": "a synthesizer bass note", "bd": "a bass drum",
    "drum": "an acoustic drum kit", "elec": "an electronic percussion sound",
    "glitch": "a digital glitch sound", "guit": "an electric guitar", "loop": "a rhythmic loop",
    "mehackit": "a synthetic sound", "perc": "a percussion sound", "sn": "a snare drum",
    "tabla": "a tabla drum", "vinyl": "a turntable sound",
}  # fmt: skip
SONIC_PI_PLAIN = {"bd", "sn", "tabla"}  # what follows is the name of a set or of a stroke
SONIC_PI_NAMES = {
    "misc_burp": "a person burps", "misc_crow": "a crow caws",
    "misc_cineboom": "a cinematic boom", "guit_e_fifths": "an electric guitar playing fifths",
    "guit_e_slide": "a slide on an electric guitar",
    "guit_em9": "an E minor ninth chord on a guitar", "guit_harmonics": "harmonics on a guitar",
    "loop_amen": "the amen break, a drum loop", "loop_amen_full": "the amen break, a drum loop",
    "loop_breakbeat": "a breakbeat drum loop", "loop_3d_printer": "a loop of a 3D printer",
    "loop_tabla": "a loop of tabla drums", "ambi_choir": "an ambient sound: a choir",
    "drum_roll": "a drum roll",
}  # fmt: skip


def sonic_pi(path: PurePosixPath) -> Told:
    """``<kind>_<name>``; the kinds are those of Sonic Pi's manual."""
    if path.stem in SONIC_PI_NAMES:
        return Words(sentence(SONIC_PI_NAMES[path.stem]))
    kind, _, name = path.stem.partition("_")
    if kind not in SONIC_PI_KINDS:
        return None
    words = plain_words(name)
    if kind == "mehackit":  # phones and robots
        return Words(sentence(f"a synthetic sound: {words}"))
    if not words or kind in SONIC_PI_PLAIN:
        return Words(sentence(SONIC_PI_KINDS[kind]))
    return Words(sentence(f"{SONIC_PI_KINDS[kind]}: {words}"))


LMMS_KINDS = {
    "basses": "a bass note", "bassloops": "a bass loop", "beats": "a drum loop",
    "drums": "a drum sound", "effects": "a sound effect", "instruments": "an instrument",
    "latin": "a Latin music sample", "misc": "a sound", "stringsnpads": "a pad sound",
}  # fmt: skip


def lmms(path: PurePosixPath) -> Told:
    words = plain_words(re.sub("^e_", "electric_", path.stem))
    if words in ("", "undefined"):
        return None
    return Words(sentence(f"{LMMS_KINDS[path.parts[0]]}: {words}"))


# --- letters and syllables ------------------------------------------------------------------------
# Languages whose files are named as their own alphabet spells, but for these.
SPELT: dict[str, dict[str, str]] = {
    "de": {"ae": "ä", "oe": "ö", "ue": "ü", "sz": "ß"},
    "en": {},
    "en_GB": {},
    "es": {"nn": "ñ", "uu": "ü"},
    "it": {},
    "pt_BR": {},
}


def klettres(path: PurePosixPath) -> Told:
    """``<language>/{alpha,syllab}/<what is said>``, or a mere number after ``a-`` and ``ad-``."""
    code, kind = path.parts[:2]
    language = LANGUAGES[code]
    name = re.sub(r"^\d+-", "", path.stem)
    if name.startswith("U00"):
        name = chr(int(name[1:], 16))
    if re.search(r"\d", name):
        what = "a letter of the alphabet" if kind == "alpha" else "a syllable"
        return Words(f"A voice says {what} in {language}.")
    for ours, theirs in SPELT.get(code, {}).items():
        name = name.replace(ours, theirs)
    transcript = name if code in SPELT else ""
    if kind == "syllab":
        return Words(f'A voice says "{name}" in {language}.', transcript)
    shown = name if name == "ß" else name.upper()
    if len(name) > 1:  # the romanised name of a letter, or two signs
        shown = f'"{name}"'
    return Words(f"A voice says the letter {shown} in {language}.", shown if transcript else "")


# --- games ----------------------------------------------------------------------------------------
HEDGEWARS_EVENTS = {
    "byebye": "bye bye", "comeonthen": "come on then", "cutitout": "cut it out",
    "enemydown": "enemy down", "firepunch": "fire punch", "firstblood": "first blood",
    "flyaway": "fly away", "gonnagetyou": "gonna get you", "illgetyou": "I'll get you",
    "justyouwait": "just you wait", "leavemealone": "leave me alone", "nooo": "no",
    "ohdear": "oh dear", "runaway": "run away", "sameteam": "same team", "solong": "so long",
    "takecover": "take cover", "thisoneismine": "this one is mine", "uh-oh": "uh-oh",
    "watchit": "watch it", "watchthis": "watch this", "whatthe": "what the", "yessir": "yes sir",
    "youllregretthat": "you'll regret that",
}  # fmt: skip
HEDGEWARS_PACKS = {
    "British": ("British ", ""), "HillBilly": ("hillbilly ", ""), "Mobster": ("mobster ", ""),
    "Pirate": ("pirate ", ""), "Robot": ("robot ", ""), "Russian": ("Russian ", ""),
    "Singer": ("singer ", ""), "Surfer": ("surfer ", ""), "Classic": ("", ""),
    "Default": ("", ""), "Russian_pl": ("Russian ", " in Polish"),
}  # fmt: skip
SETTINGS = {
    "hedgewars": "cartoon", "naev": "space", "supertux": "platform", "colobot": "space",
    "freedroidrpg": "science fiction", "widelands": "settler", "unknown_horizons": "seafaring",
    "megaglest": "strategy", "wesnoth": "fantasy", "hyperrogue": "fantasy",
    "singularity": "science fiction",
}  # fmt: skip
EMPTY_NAMES = {"sound", "sounds", "music", "track", "", "hv", "gameplay", "mr tree"}


def hedgewars_voice(path: PurePosixPath) -> Told:
    """``Sounds/voices/<pack>/<event>``: who speaks, and on what occasion."""
    pack, event = path.parts[2], re.sub(r"\d+$", "", path.stem)
    event = plain_words(event) if event.startswith("Poison") else event.lower()
    style, spoken = HEDGEWARS_PACKS.get(pack, ("", ""))
    if pack.startswith("Default_"):
        spoken = f" in {LANGUAGES[pack.removeprefix('Default_')]}"
    return Words(f"A {style}voice in a game{spoken}: {HEDGEWARS_EVENTS.get(event, event)}.")


def music(setting: str, path: PurePosixPath) -> Told:
    """Kind of game, title, and what the folder says of the place."""
    name = title(path.stem)
    place = path.parent.name if path.parent.name in MUSIC_PLACES else ""
    scene = f" for {article(place)} level" if place else ""
    return Words(f"Music of {article(setting)} game{scene}{f': {name}' if name else ''}.")


MUSIC_PLACES = {"antarctic", "castle", "forest", "tropical"}
NOISE_WORDS = re.compile(r"\b(sounds?|effects?|snd)\b")
DEED_NAMES = {
    "die": "dying", "hit": "being hit", "attack": "attacking", "walk": "walking",
    "select": "answering", "sel": "answering", "ack": "answering", "fly": "flying",
    "standing": "standing", "miss": "missing its target",
}  # fmt: skip
DEEDS = re.compile(rf"^(?!under|air)(.+?) ({'|'.join(DEED_NAMES)})$")
DEED_FIRST = re.compile(r"^(die|hit|seen|speak|heal) (.+)$")


def deed(words: str) -> str:
    """``goblin hit`` is "goblin being hit"."""
    found = DEEDS.match(words)
    if not found:
        return words.replace("female human", "woman")
    actor = found[1].replace("female human", "woman")
    if found[2] == "die" and actor in MACHINES:
        return f"{actor} being destroyed"
    return f"{actor} {DEED_NAMES[found[2]]}"


MACHINES = {"airship", "battle machine", "catapult", "flying carpet", "golem", "ornithopter"}


def game(name: str) -> Callable[[PurePosixPath], Told]:
    """Effects, voices and music by the words of their names."""

    def told(path: PurePosixPath) -> Told:
        folders = [folder.lower() for folder in path.parts[:-1]]
        if {"music", "songs"} & set(folders):
            return music(SETTINGS[name], path)
        if name == "hedgewars" and "voices" in folders:
            return hedgewars_voice(path)
        if name == "unknown_horizons" and folders[:1] == ["voice"]:
            return Words(f"A voice speaks {LANGUAGES[folders[1]]} in a game.")
        if folders[-1:] == ["voice_samples"]:
            return Words("A voice of a robot in a game.")
        words = NOISE_WORDS.sub("", plain_words(path.stem))
        words = deed(" ".join(words.split()))
        if words in EMPTY_NAMES:
            return None
        if {"speech", "tux_ingame_comments"} & set(folders):
            return Words(f"A voice in a game: {words}.")
        if {"animals", "critters"} & set(folders):
            return Words(f"The sound of {words if words.endswith('s') else article(words)}.")
        return Words(f"A game sound effect: {words}.")

    return told


HYPERROGUE_VOICES = {
    "prince", "princess", "fairy", "rose beauty", "gardener", "necromancer", "vizier",
}  # fmt: skip


def hyperrogue(path: PurePosixPath) -> Told:
    if path.parts[0] == "music":
        place = plain_words(path.stem.rsplit("-", 1)[-1])
        return Words(f"Music of a fantasy game: {place}.")
    words = plain_words(path.stem).removeprefix("message ")
    found = DEED_FIRST.match(words)
    if "cultist" in words or (found and found[2] in HYPERROGUE_VOICES):
        who = "cultist" if "cultist" in words else words.split(" ", 1)[1]
        return Words(f"The voice of {article(who)} in a game.")
    if found and found[1] in ("die", "hit"):
        words = deed(f"{found[2]} {found[1]}") if found[1] == "die" else f"hit by {found[2]}"
    elif found:
        words = found[2]
    if words.startswith("pickup "):
        words = f"picking up {words.removeprefix('pickup ')}"
    return Words(f"A game sound effect: {words}.")


MEGAGLEST_ALIASES = {
    "ab": "", "dr": "dragon rider", "ele": "elephant", "orni": "ornithopter",
    "tech": "", "cudgel": "cudgel lady", "stickfighter": "stick fighter",
}  # fmt: skip
MEGAGLEST_DEED = re.compile(r"^(.*?) ?(die|hit|attack|walk|select|sel|ack|fly)[a-h]?$")


def megaglest(path: PurePosixPath) -> Told:
    """Units by their folder where they have one: what they do, and their voices."""
    if "music" in path.parts:
        faction = path.parts[3] if "factions" in path.parts else "menu"
        return Words(f"Music of a strategy game: {faction}.")
    if path.parts[0] == "tilesets":
        land = {"mediterran": "mediterranean", "desert2": "desert", "pine_peat": "pine_forest"}
        place = plain_words(land.get(path.parts[1], path.parts[1]))
        return Words(f"Ambience of {article(place)} landscape: {plain_words(path.stem)}.")
    words = plain_words(path.stem)
    who = plain_words(path.parts[5]) if "units" in path.parts and len(path.parts) > 6 else ""
    found = MEGAGLEST_DEED.match(words)
    if not found:
        own = who.split()[-1:] != words.split()[:1] and who  # "initiate harvest" names it already
        return Words(f"A game sound effect: {own + ' ' if own else ''}{words}.")
    actor = who or MEGAGLEST_ALIASES.get(found[1], found[1])
    if found[2] in ("select", "ack", "sel"):
        return Words(f"The voice of {article(actor)} in a game.") if actor else None
    return Words(f"A game sound effect: {deed(f'{actor} {found[2]}')}.") if actor else None


# --- stamps ---------------------------------------------------------------------------------------
STAMP = re.compile(r"^(?P<name>.+?)(?P<desc>_desc)?(?:_(?P<code>[a-z]{2}(?:_[A-Za-z]{2})?))?$")
# What a stamp of these folders sounds like is what its picture shows.
STAMP_SOUNDS = {"animals", "hobbies", "household", "naturalforces"}


def tuxpaint(path: PurePosixPath) -> Told:
    """``<kind>/.../<picture>[_desc][_<language>]``: a stamp's own sound, or a voice that names it.

    Numbers and letters have a sound in several languages, which can only be their names.
    """
    found = STAMP.match(path.stem)
    assert found is not None
    code, name = found["code"], found["name"]
    if code not in LANGUAGES:
        code, name = None, name + (f"_{code}" if code else "")
    language = f" in {LANGUAGES[code]}" if code else ""
    thing = _pictured(path.parent, name)
    if found["desc"]:
        return Words(f"A voice names a picture{language}: {thing}.")
    if path.parts[0] == "symbols" and path.parts[1] in ("math", "alphabets"):
        return Words(f"A voice says {thing}{language}.")
    if code:
        return Words(f"A voice speaks{language}.")
    if path.parts[0] in STAMP_SOUNDS:
        return Words(f"The sound of {article(thing)}.")
    return None


OPERATORS = dict(
    zip(
        (f"op{number}" for number in range(10)),
        ("plus", "minus", "times", "divided by", "equals", "not equal", "less than",
         "greater than", "less than or equal", "greater than or equal"),
        strict=True,
    )
)  # fmt: skip


def _pictured(folder: PurePosixPath, name: str) -> str:
    parts = folder.parts
    if parts[:2] == ("symbols", "math") and name in "0123456789":
        return f"the number {DIGITS[int(name)]}"
    if parts[:3] == ("symbols", "alphabets", "asl"):
        sign = name.removeprefix("asl_").removeprefix("zzz_")
        return f"the hand sign for {sign.upper()}"
    if parts[:2] == ("symbols", "alphabets"):
        letter, *rest = re.sub("_(filled|outline)$", "", name).split("_")
        if rest[:1] == ["eszett"]:
            return "the letter sharp S"
        return f"the letter {letter.upper()}{' ' + ' '.join(rest) if rest else ''}"
    if parts[:2] == ("symbols", "chess"):
        colour = {"b": "black", "w": "white"}[name[0]]
        return f"{colour} {name.rsplit('_', 1)[-1]}"
    if parts[:3] == ("symbols", "math", "operators"):
        return f"the sign for {OPERATORS[name[:3]]}"
    if parts[:2] == ("symbols", "faces"):
        return f"{name} face"
    if parts[:3] == ("symbols", "money", "00_symbols"):
        return f"{name.rsplit('_', 1)[-1]} sign"
    if parts[:2] == ("symbols", "money"):
        return " ".join([parts[2].replace("us", "American"), plain_words(name), "money"])
    return plain_words(name.removeprefix("t_")) or plain_words(parts[-1])


# --- music ----------------------------------------------------------------------------------------
def singularity(path: PurePosixPath) -> Told:
    mood = {"lose": " at a defeat", "win": " at a victory"}.get(path.parent.name, "")
    return Words(f"Music of a science fiction game{mood}: {title(path.stem)}.")


def warzone(path: PurePosixPath) -> Told:
    return Words("Music of a science fiction war game.")


def fretsonfire(path: PurePosixPath) -> Told:
    """``<band>/<song>/{guitar,song}``: a guitar track and the band without it."""
    name = title(path.parent.name)
    what = "the guitar track" if path.stem == "guitar" else "the backing track"
    return Words(sentence(f"{what} of a song for a guitar game: {name}"))


def wesnoth_music(path: PurePosixPath) -> Told:
    return music("fantasy", path)


TELLERS: dict[str, Callable[[PurePosixPath], Told]] = {
    "FoxDot": foxdot,
    "sonic-pi-samples": sonic_pi,
    "lmms-common": lmms,
    "klettres-data": klettres,
    "wesnoth-1.16-music": wesnoth_music,
    "hyperrogue-music": hyperrogue,
    "singularity-music": singularity,
    "hedgewars-data": game("hedgewars"),
    "warzone2100-music": warzone,
    "naev-data": game("naev"),
    "supertux-data": game("supertux"),
    "colobot-common-sounds": game("colobot"),
    "freedroidrpg-data": game("freedroidrpg"),
    "widelands-data": game("widelands"),
    "unknown-horizons": game("unknown_horizons"),
    "megaglest-data": megaglest,
    "wesnoth-1.16-data": game("wesnoth"),
    "tuxpaint-stamps-default": tuxpaint,
    "fretsonfire-songs-sectoid": fretsonfire,
    "fretsonfire-songs-muldjord": fretsonfire,
}


def words_of(package: str, origin: str) -> Told:
    """What ``package`` says of the file ``origin``; None where it says nothing."""
    return TELLERS[package](PurePosixPath(origin))
