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
    "es": "Spanish", "fi": "Finnish", "fr": "French", "ga": "Irish", "gl": "Galician",
    "he": "Hebrew", "hu": "Hungarian", "it": "Italian", "ja": "Japanese", "ko": "Korean",
    "lt": "Lithuanian", "ml": "Malayalam", "nb": "Norwegian Bokmål", "nds": "Low German",
    "nl": "Dutch", "nn": "Norwegian Nynorsk", "pl": "Polish", "pt": "Portuguese",
    "pt_BR": "Brazilian Portuguese", "ro": "Romanian", "ru": "Russian", "sl": "Slovenian",
    "sr": "Serbian", "sv": "Swedish", "tn": "Tswana", "uk": "Ukrainian", "wa": "Walloon",
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
    "singularity": "science fiction", "extremetuxracer": "racing", "lincity": "city-building",
    "warmux": "cartoon", "flare": "fantasy",
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


def music_of(setting: str) -> Callable[[PurePosixPath], Told]:
    return lambda path: music(setting, path)


# --- spoken names ---------------------------------------------------------------------------------
def ktuberling(path: PurePosixPath) -> Told:
    """``<language>/<thing>``; the thing may be named in any language."""
    return Words(f"A voice names a part of a picture in {LANGUAGES[path.parts[0].split('@')[0]]}.")


# --- drum kits ------------------------------------------------------------------------------------
# By file name, without the number and the strength of the stroke; codes as the kits' drumkit.xml
# gives them. Where a kit puts a sound into a slot of another name, or gives none, nothing is said.
STROKES = {
    # Audiophob: its slots keep the names they had before
    "124382__cubix__8bit-snare": "an 8-bit snare drum",
    "25671__walter-odington__garage-city-snare-snappy": "a snappy snare drum",
    "99930__menegass__noise-tom": "a tom-tom drum", "99931__menegass__noise-tom": "a tom-tom drum",
    "101450__menegass__tomh": "a high tom-tom drum",
    "116973__cbeeching__hat-light": "a closed hi-hat",
    "104227__minorr__hhat-paiste-302-14-open-p": "an open hi-hat",
    "124101__connersaw8__crash": "a crash cymbal",
    # BJA_Pacific
    "bd": "a bass drum", "sn": "a snare drum", "sn3": "a snare drum roll",
    "sn4": "a dry snare drum", "hh": "a closed hi-hat", "hh2": "an open hi-hat", "hh3": "a hi-hat",
    "tm": "a tom-tom drum", "tm2": "a floor tom", "cb": "a crash cymbal", "cb2": "a crash cymbal",
    "bl": "the bell of a ride cymbal", "rd": "a ride cymbal", "rd2": "a ride cymbal",
    # ColomboAcousticDrumkit
    "bassdrum-4mics-br-stereo-soft": "a bass drum, played softly",
    "bassdrum-4mics-br-stereo-normal": "a bass drum", "stick-rim": "a side stick on a snare drum",
    "snare-opaque-normal-mic-rimshot": "a rimshot on a snare drum",
    "snare-opaque-normal-mic-normal_shot": "a snare drum",
    "snare-opaque-2mics_normal-shot": "a snare drum", "tom-low": "a low tom-tom drum",
    "tom-mid": "a middle tom-tom drum", "tom-hi": "a high tom-tom drum",
    "hihat-closed": "a closed hi-hat", "hihat-semi-open": "a half-open hi-hat",
    "hihat-open": "an open hi-hat", "crash16i__crash": "a crash cymbal",
    "crash16i__ride": "a crash cymbal, played as a ride",
    "crash16i__ride_cup": "the bell of a crash cymbal", "crash20i__crash": "a crash cymbal",
    "crash20i__ride": "a crash cymbal, played as a ride",
    "crash20i__ride-cup": "the bell of a crash cymbal",
    # ElectricEmpireKit
    "ee_kick_lite": "a light kick drum", "ee_kick_low": "a low kick drum",
    "ee_kick_nz": "a noisy kick drum", "ee_kick_old": "a kick drum",
    "ee_kick_power": "a powerful kick drum", "ee_kick_ring": "a ringing kick drum",
    "ee_kick_stomp": "a stomping kick drum", "ee_kick_dist": "a distorted kick drum",
    "ee_kick_hard": "a hard kick drum", "ee_click": "a click", "ee_snare": "a snare drum",
    "ee_snare_low": "a low snare drum", "ee_snare_ring": "a ringing snare drum",
    "ee_clap": "a hand clap", "ee_clap_hard": "a hard hand clap",
    "ee_hat_cl_bs": "a closed hi-hat", "ee_hat_cl_dirty": "a dirty closed hi-hat",
    "ee_hat_low": "a low hi-hat", "ee_hat_ring": "a ringing hi-hat",
    "ee_hat_op_dirty": "a dirty open hi-hat", "ee_hat_op_phaser": "an open hi-hat with a phaser",
    "ee_conga": "a conga drum", "ee_drum": "a drum", "ee_whistle": "a whistle",
    # ForzeeStereo
    "kick": "a kick drum", "tomlow": "a low tom-tom drum", "tommid": "a middle tom-tom drum",
    "tomhigh": "a high tom-tom drum", "snare": "a snare drum",
    "snarerim": "a rimshot on a snare drum", "snareoff": "a snare drum with its snares off",
    "snareoffrim": "a rimshot on a snare drum with its snares off",
    "rimclick": "a rim click on a snare drum", "hihatclosed": "a closed hi-hat",
    "hihatopen": "an open hi-hat", "hihatsemiopen": "a half-open hi-hat",
    "hihatfoot": "a hi-hat closed by its pedal", "ride": "a ride cymbal",
    "ridebell": "the bell of a ride cymbal", "ridebow": "the bow of a ride cymbal",
    "china": "a china cymbal", "crashride18": "a crash/ride cymbal",
    "crashride18bell": "the bell of a crash/ride cymbal",
    "crashride18bow": "the bow of a crash/ride cymbal", "crash18": "a crash cymbal",
    "splash10": "a splash cymbal", "tambourine": "a tambourine",
    "tambourinefoot": "a pedal tambourine", "agogolow": "a low agogo bell",
    "agogohigh": "a high agogo bell", "stick": "a drumstick",
    # Gimme A Hand 1.0
    "cajonthumps": "a thump on a cajon", "cajonslaps": "a slap on a cajon", "maraca": "a maraca",
    "handclap": "a hand clap", "fingersnap": "a finger snap", "bongohi": "a high bongo drum",
    "bongolo": "a low bongo drum", "cowbell": "a cowbell", "clave": "a clave",
    "woodblock": "a wood block", "waterglasshi": "a high water glass",
    "waterglasslo": "a low water glass",
    # HardElectro1
    "hardhse_k": "a kick drum", "hardhse_k_03_b": "a kick drum", "powr_bd": "a kick drum",
    "powr_sn": "a snare drum", "amp_clap": "a hand clap", "clap": "a hand clap",
    "fx_chh": "a closed hi-hat", "hard_chh": "a closed hi-hat", "chh": "a closed hi-hat",
    "hard_hse_ohh": "an open hi-hat", "powr_hh": "a hi-hat", "yfx": "a zap",
    # Millo-Drums_v.1, Millo_MultiLayered2 and Millo_MultiLayered3
    "clap_dry_c": "a dry hand clap", "closehihat": "a closed hi-hat",
    "cra_rock_a": "a crash cymbal", "crash": "a crash cymbal", "misc_cowbell": "a cowbell",
    "mc_cb": "a cowbell", "openhat": "an open hi-hat", "pedalhihat": "a hi-hat closed by its pedal",
    "stick_woody": "a stick", "tom1_a": "a high tom-tom drum", "tom1": "a middle tom-tom drum",
    "tom2": "a low tom-tom drum", "floortom": "a floor tom", "hhclosed": "a closed hi-hat",
    "hhopen": "an open hi-hat", "hhpedal": "a hi-hat closed by its pedal",
    "jsnare": "a jazz snare drum", "rsnare": "a rock snare drum", "rim": "a side stick",
    "tom": "a tom-tom drum", "cc": "a crash cymbal", "ft": "a low tom-tom drum",
    "hh_p": "a hi-hat closed by its pedal", "ho": "an open hi-hat", "rc": "a ride cymbal",
    "rs": "a side stick", "sd": "a rock snare drum", "sr": "a snare drum roll",
    "t1": "a high tom-tom drum", "t2": "a middle tom-tom drum",
    # The Black Pearl 1.0
    "pearlkick": "a kick drum", "pearlsidestick": "a side stick on a snare drum",
    "pearlsnare": "a snare drum", "pearlsnarerimshot": "a rimshot on a snare drum",
    "pearltomfloor": "a floor tom", "pearltom": "a tom-tom drum",
    "sabianhatclosed": "a closed hi-hat", "sabianhatpedal": "a hi-hat closed by its pedal",
    "sabianhatsemiopen": "a half-open hi-hat", "sabianhatopen": "an open hi-hat",
    "sabianhatswish": "a swishing hi-hat", "sabianhatchoke": "a choked hi-hat",
    "paisteride": "a ride cymbal", "paistebell": "the bell of a ride cymbal",
    "paisterideflink": "a ride cymbal", "sabiancrash": "a crash cymbal",
    "sabiancrashflink": "a crash cymbal", "zildjiansplash": "a splash cymbal",
    "zildjiansplashchoke": "a choked splash cymbal",
    # VariBreaks
    "vp kick": "a kick drum", "vp snare": "a snare drum", "vp tom low": "a low tom-tom drum",
    "vp tom mid": "a middle tom-tom drum", "vp tom hi": "a high tom-tom drum",
    "vp hat 1 cl": "a closed hi-hat", "vp hat 2 cl": "a closed hi-hat",
    "vp hat 3 cl": "a closed hi-hat", "vp hat 1 pd": "a hi-hat closed by its pedal",
    "vp hat 1 op": "an open hi-hat", "vp click": "a click", "vp drum": "a drum",
    # rumpf_kit_z01_h2, whose file names are numbers
    "beats_06-38": "a bass drum", "beats_06-46": "a bass drum", "beats_07-18": "a bass drum",
    "beats_07-20": "a bass drum", "beats_09-12": "a stick", "beats_01-21": "a snare drum",
    "beats_06-25": "a snare drum", "beats_01-26": "a hand clap", "beats_09-10": "a closed hi-hat",
    "beats_06-28": "a hi-hat closed by its pedal", "beats_08-31": "an open hi-hat",
    "beats_08-17": "a low tom-tom drum", "beats_08-18": "a middle tom-tom drum",
    "beats_08-19": "a high tom-tom drum", "beats_06-43": "a crash cymbal",
    "beats_08-20": "a cymbal", "beats_06-30": "a cymbal",
    "beats_06-40": "the bell of a ride cymbal", "beats_08-32": "a cowbell",
}  # fmt: skip
STRENGTH = re.compile(r"-(soft|hard|med)(est)?$")
STRENGTH_NAMES = {"soft": ", played softly", "hard": ", played hard", "med": ""}
# circAfrique v4: the drum and the stroke
AFRICAN_STROKE = re.compile(r"^(djembe|sangban|dununba|kenkeni)\d (.+)$")
AFRICAN_STROKES = {
    "slap": "a slap on a {}", "tone": "a tone on a {}", "bass": "a bass stroke on a {}",
    "head hit": "a hit on the head of a {}", "head mute": "a muted hit on the head of a {}",
    "bell": "a hit on the bell of a {}", "bell hit": "a hit on the bell of a {}",
    "bell mute": "a muted hit on the bell of a {}",
}  # fmt: skip


def drums(path: PurePosixPath) -> Told:
    """``<kit>/<instrument>[-<strength>]``: one stroke."""
    name = path.stem.lower()
    african = AFRICAN_STROKE.match(name)
    if african:
        return Words(sentence(AFRICAN_STROKES[african[2]].format(f"{african[1]} drum")))
    strength = STRENGTH.search(name)
    how = STRENGTH_NAMES[strength[1]] if strength else ""
    name = STRENGTH.sub("", name)
    what = STROKES.get(name) or STROKES.get(re.sub(r"[-_ ]*\d+$", "", name))
    return Words(sentence(what + how)) if what else None


def scores(path: PurePosixPath) -> Told:
    """``<piece>--<kind>--<instrument>--...``: what a synthesizer played."""
    kind, *instruments = path.stem.split("--")[1:]
    names = [name.replace("_", " ") for name in instruments]
    *first, last = names
    played = f"{', '.join(first)} and {last}" if first else last
    what = "Rhythm of a game's music" if kind.startswith("drums-") else "Music of a game"
    return Words(f"{what}, played by a synthesizer: {played}.")


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
    "hydrogen-drumkits": drums,
    "openttd-openmsx": scores,
    "openclonk-data": music_of("mining"),
    "pushover-data": music_of("puzzle"),
    "xmoto-data": music_of("motocross"),
    "marsshooter-data": music_of("space"),
    "extremetuxracer-data": game("extremetuxracer"),
    "lincity-ng-data": game("lincity"),
    "warmux-data": game("warmux"),
    "flare-game": game("flare"),
    "ktuberling-data": ktuberling,
}


def words_of(package: str, origin: str) -> Told:
    """What ``package`` says of the file ``origin``; None where it says nothing."""
    return TELLERS[package](PurePosixPath(origin))
