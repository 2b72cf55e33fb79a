"""What may be heard in training, and what counts as full-band."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import soundfile
from scipy import signal

import band_screen
import corpus_captions
import corpus_sources
import fetch_corpus
from saga_sr.data.caption_table import CaptionRecord, CaptionTable
from saga_sr.support.errors import UserError
from saga_sr.text import read_transcript

ROOT = Path(__file__).resolve().parents[2]
RATE = 44_100


def bursts(rng: np.random.Generator) -> np.ndarray:
    """Two seconds of noise that comes and goes four times a second: full-band, and it moves."""
    time_s = np.arange(2 * RATE) / RATE
    envelope = np.exp(-20 * (time_s % 0.25))
    return 0.2 * envelope * rng.standard_normal(len(time_s))


def screened(tmp_path: Path, audio: np.ndarray, name: str = "a.wav") -> band_screen.Screening:
    soundfile.write(tmp_path / name, audio, RATE, subtype="FLOAT")
    return band_screen.screen(tmp_path / name)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# --- hold-out ---------------------------------------------------------------------------------


UNSEEN = {source.package: source.place for source in corpus_sources.UNSEEN}


@pytest.mark.parametrize(
    ("place", "path", "split", "category"),
    [
        (corpus_sources.place_klettres, "fr/alpha/a-2.ogg", "val", "speech"),
        (corpus_sources.place_klettres, "lt/syllab/lis.ogg", "val", "speech"),
        (corpus_sources.place_klettres, "it/syllab/li.ogg", "train", "speech"),
        (corpus_sources.place_wesnoth, "vengeful.ogg", "val", "music"),
        (corpus_sources.place_wesnoth, "the_deep_path.ogg", "val", "music"),
        (corpus_sources.place_wesnoth, "battle-epic.ogg", "train", "music"),
        (corpus_sources.place_sonic_pi, "loop_breakbeat.flac", "val", "effects"),
        (corpus_sources.place_sonic_pi, "bd_boom.flac", "val", "effects"),  # the same uploader
        (corpus_sources.place_sonic_pi, "loop_amen.flac", "train", "effects"),
        (corpus_sources.place_foxdot, "_/tilde/0_ride.wav", "val", "effects"),
        (corpus_sources.place_foxdot, "_/2/two1.wav", "val", "speech"),
        (corpus_sources.place_foxdot, "p/lower/0_tabla.wav", "train", "effects"),
        (corpus_sources.place_hyperrogue, "music/hr3-hell.ogg", "train", "music"),
        (corpus_sources.place_hyperrogue, "sounds/die-princess.ogg", "train", "speech"),
        (corpus_sources.place_hyperrogue, "sounds/splash1.ogg", "train", "effects"),
        (corpus_sources.place_singularity, "win/Apex Aleph.ogg", "train", "music"),
        (corpus_sources.place_lmms, "drums/ride01.ogg", "train", "effects"),
        (corpus_sources.place_game("a"), "Sounds/voices/Pirate/Bye.ogg", "train", "speech"),
        (corpus_sources.place_game("a"), "Music/Pirate.ogg", "train", "music"),
        (corpus_sources.place_game("a"), "sounds/music_box.ogg", "train", "effects"),
        (corpus_sources.place_megaglest, "u/sounds/archer_ack2.wav", "train", "speech"),
        (corpus_sources.place_megaglest, "u/sounds/archer_attack2.wav", "train", "effects"),
        (corpus_sources.place_tuxpaint, "animals/owl_desc_ru.ogg", "train", "speech"),
        (corpus_sources.place_tuxpaint, "symbols/math/7_en_GB.ogg", "train", "speech"),
        (corpus_sources.place_tuxpaint, "animals/horned_owl.ogg", "train", "effects"),
        (corpus_sources.place_scores, "a--written--harp--drums.flac", "train", "music"),
        (corpus_sources.place_scores, "a--drums-1--drums.flac", "train", "effects"),
        (corpus_sources.place_drums, "Gimme A Hand 1.0/Clave-Soft.wav", "train", "effects"),
        (UNSEEN["flare-game"], "fantasycore/soundfx/npcs/merchant_01.ogg", "unseen", "speech"),
        (UNSEEN["flare-game"], "fantasycore/music/boss_theme.ogg", "unseen", "music"),
        (UNSEEN["warmux-data"], "sound/default/voices/jump.ogg", "unseen", "speech"),
        (UNSEEN["lincity-ng-data"], "sounds/Commune1.wav", "unseen", "effects"),
        (UNSEEN["pushover-data"], "castle.ogg", "unseen", "music"),
        (UNSEEN["ktuberling-data"], "ru/ball.ogg", "unseen", "speech"),
    ],
)
def test_place_follows_the_hold_out_rule(place, path, split, category):
    found = place(PurePosixPath(path))
    assert (found.split, found.category) == (split, category)


def test_unseen_packages_are_in_no_other_set():
    packages = [source.package for one in corpus_sources.SETS.values() for source in one]
    assert len(set(packages)) == len(packages)
    for source in corpus_sources.UNSEEN:
        assert source.place(PurePosixPath("music/a.ogg")).split == "unseen"


def test_place_kits_with_equal_file_names_stay_apart():
    stems = {
        corpus_sources.place_drums(PurePosixPath(kit) / "bd_01.flac").stem
        for kit in ("Millo_MultiLayered2", "Millo_MultiLayered3")
    }
    assert len(stems) == 2


def test_place_gives_different_sounds_different_names():
    # Equal names in two folders, in two cases of one letter, and with characters that are replaced.
    stems = [
        corpus_sources.place_foxdot(PurePosixPath(path)).stem
        for path in ("x/lower/0_kick.wav", "x/upper/0_kick.wav", "_/1/one1.wav", "_/2/two1.wav")
    ]
    assert len({stem.lower() for stem in stems}) == len(stems)


@pytest.mark.parametrize("path", ["animals/owl_desc_fr.ogg", "symbols/math/7_lt.ogg"])
def test_place_held_out_languages_are_not_heard_in_games(path):
    assert corpus_sources.place_tuxpaint(PurePosixPath(path)) is None
    assert corpus_sources.place_unknown_horizons(PurePosixPath("voice/fr/0/1.ogg")) is None
    assert corpus_sources.place_unknown_horizons(PurePosixPath("voice/de/0/1.ogg")) is not None


@pytest.mark.parametrize(
    "name", [*corpus_sources.RESERVED, "fillets-ng-data-cs", "0ad-data-common", "GCompris-qt-data"]
)
def test_reserved_packages_are_refused_by_name_before_anything_is_fetched(tmp_path, name):
    source = replace(corpus_sources.DEBIAN[0], package=name)
    with pytest.raises(UserError, match=f"{name}: reserved"):
        fetch_corpus.fetch(source, tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_no_set_holds_a_reserved_package():
    packages = [source.package for one in corpus_sources.SETS.values() for source in one]
    assert packages
    assert not any(map(corpus_sources.is_reserved, packages))


def test_place_single_cycles_are_left_out():
    assert corpus_sources.place_lmms(PurePosixPath("shapes/moog.wav")) is None


# --- captions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("package", "origin", "caption", "transcript"),
    [
        ("FoxDot", "_/2/two1.wav", 'A voice says "two".', "two"),
        ("FoxDot", "i/lower/0_jungle_snare.wav", "A jungle snare drum.", ""),
        ("sonic-pi-samples", "misc_crow.flac", "A crow caws.", ""),
        ("klettres-data", "de/alpha/ae.ogg", "A voice says the letter Ä in German.", "Ä"),
        ("klettres-data", "es/syllab/nna.ogg", 'A voice says "ña" in Spanish.', "ña"),
        ("klettres-data", "nb/alpha/U00E5.ogg",
         "A voice says the letter Å in Norwegian Bokmål.", ""),
        ("klettres-data", "ru/alpha/scha.ogg", 'A voice says the letter "scha" in Russian.', ""),
        # The number is the place in a list that the package does not spell out.
        ("klettres-data", "fr/alpha/a-7.ogg",
         "A voice says a letter of the alphabet in French.", ""),
        ("klettres-data", "lt/syllab/le3k.ogg", "A voice says a syllable in Lithuanian.", ""),
        ("wesnoth-1.16-music", "elvish-theme.ogg", "Music of a fantasy game: elvish theme.", ""),
        ("wesnoth-1.16-data", "data/core/sounds/human-female-hit-2.ogg",
         "A game sound effect: woman being hit.", ""),
        ("hedgewars-data", "Sounds/voices/Default_ru/Takecover.ogg",
         "A voice in a game in Russian: take cover.", ""),
        ("megaglest-data", "tilesets/autumn/sounds/owl.ogg",
         "Ambience of an autumn landscape: owl.", ""),
        ("tuxpaint-stamps-default", "animals/birds/owl.ogg", "The sound of an owl.", ""),
        ("tuxpaint-stamps-default", "animals/birds/owl_desc_pt_BR.ogg",
         "A voice names a picture in Brazilian Portuguese: owl.", ""),
        ("tuxpaint-stamps-default", "symbols/math/7_nn.ogg",
         "A voice says the number seven in Norwegian Nynorsk.", ""),
        ("hydrogen-drumkits", "ForzeeStereo/SnareOffRim-3.wav",
         "A rimshot on a snare drum with its snares off.", ""),
        ("hydrogen-drumkits", "The Black Pearl 1.0/PearlTom2-Softest.wav",
         "A tom-tom drum, played softly.", ""),
        ("hydrogen-drumkits", "The Black Pearl 1.0/PearlTom2-Med.wav", "A tom-tom drum.", ""),
        # Codes that the kit's own list explains, and numbers that are part of the name.
        ("hydrogen-drumkits", "BJA_Pacific/HH2_08.aiff", "An open hi-hat.", ""),
        ("hydrogen-drumkits", "Millo_MultiLayered3/t1_01.flac", "A high tom-tom drum.", ""),
        ("hydrogen-drumkits", "rumpf_kit_z01_h2/beats_01-26.flac", "A hand clap.", ""),
        ("hydrogen-drumkits", "circAfrique v4/Kenkeni1 Bell Mute.wav",
         "A muted hit on the bell of a kenkeni drum.", ""),
        ("ktuberling-data", "wa/boke.ogg", "A voice names a part of a picture in Walloon.", ""),
        ("openclonk-data", "UrbanBolero.ogg", "Music of a mining game: Urban Bolero.", ""),
    ],
)  # fmt: skip
def test_caption_says_what_the_source_says(package, origin, caption, transcript):
    told = corpus_captions.words_of(package, origin)
    assert told == corpus_captions.Words(caption, transcript)


@pytest.mark.parametrize(
    ("package", "origin"),
    [
        ("colobot-common-sounds", "sounds/sound021.wav"),
        ("FoxDot", "_/caret/0.wav"),
        ("hedgewars-data", "Sounds/1C.ogg"),
        ("tuxpaint-stamps-default", "seasonal/christmas/gift.ogg"),
        ("hydrogen-drumkits", "rumpf_kit_z01_h2/beats_01-10.flac"),
        ("hydrogen-drumkits", "Audiophob/86335__zgump__tom-0105.wav"),  # in the slot of a kick
    ],
)
def test_caption_is_not_made_up_where_the_source_says_nothing(package, origin):
    assert corpus_captions.words_of(package, origin) is None


def test_every_source_has_somebody_who_tells_of_it():
    packages = {source.package for one in corpus_sources.SETS.values() for source in one}
    assert corpus_captions.TELLERS.keys() == packages


def write_manifest(corpus: Path, *files: tuple[str, str, bool]) -> None:
    records = []
    for file, origin, full_band in files:
        split, category, name = PurePosixPath(file).parts
        for part in [split, *["train_fullband"] * (full_band and split == "train")]:
            (corpus / part / category).mkdir(parents=True, exist_ok=True)
            (corpus / part / category / name).touch()
        record = {"file": file, "origin": origin, "split": split, "category": category}
        records.append({**record, "full_band": full_band, "seconds": 1.0})
    (corpus / "manifest.json").write_text(json.dumps({"FoxDot": {"files": records}}), "utf-8")


def test_captions_only_writes_what_training_reads_for_the_corpus_that_is_there(tmp_path, capsys):
    write_manifest(
        tmp_path,
        ("train/speech/one.wav", "_/1/one1.wav", True),
        ("train/effects/snare.wav", "i/lower/0_jungle_snare.wav", False),
        ("train/effects/caret.wav", "_/caret/0.wav", False),
        ("val/speech/two.wav", "_/2/two1.wav", True),
    )
    options = fetch_corpus.parse_args(["--output", str(tmp_path), "--captions_only"])
    fetch_corpus.main(options)
    for folder, name, text in (("train/speech", "one.wav", 'A voice says "one".'),
                               ("train_fullband/speech", "one.wav", 'A voice says "one".'),
                               ("train/effects", "snare.wav", "A jungle snare drum."),
                               ("val/speech", "two.wav", 'A voice says "two".')):  # fmt: skip
        table = CaptionTable.read(tmp_path / folder / "captions.jsonl")
        assert table.lookup(name, 0.0, 0.5) == text
        assert table.paths() == {name}
    assert read_transcript(tmp_path / "train_fullband/speech/one.wav") == "one\n"
    assert read_transcript(tmp_path / "train/effects/snare.wav") is None
    assert "50%" in capsys.readouterr().out.split("train/effects")[1].splitlines()[0]


def test_captions_of_another_origin_and_other_transcripts_are_kept(tmp_path, capsys):
    write_manifest(tmp_path, ("train/speech/one.wav", "_/1/one1.wav", False))
    folder = tmp_path / "train/speech"
    heard = CaptionRecord("one.wav", "A man counts.", hash="ab", model="a model").to_line()
    (folder / "captions.jsonl").write_text(heard, encoding="utf-8")
    (folder / "one.txt").write_text("uno", encoding="utf-8")
    fetch_corpus.main(fetch_corpus.parse_args(["--output", str(tmp_path), "--captions_only"]))
    assert (folder / "captions.jsonl").read_text(encoding="utf-8") == heard
    assert (folder / "one.txt").read_text(encoding="utf-8") == "uno"
    assert "kept" in capsys.readouterr().out


def test_captions_only_without_a_corpus_says_so(tmp_path):
    with pytest.raises(UserError, match=r"no manifest\.json"):
        fetch_corpus.main(fetch_corpus.parse_args(["--output", str(tmp_path), "--captions_only"]))


# --- screening --------------------------------------------------------------------------------


def test_screen_moving_full_band_sound_is_full_band(tmp_path, rng):
    found = screened(tmp_path, bursts(rng))
    assert found.is_full_band(speech=False)
    assert found.is_full_band(speech=True)
    assert found.reach_hz == 22_000


def test_screen_low_passed_sound_reaches_its_cutoff_only(tmp_path, rng):
    sos = signal.ellip(10, 0.1, 120, 16_000, fs=RATE, output="sos")
    found = screened(tmp_path, signal.sosfiltfilt(sos, bursts(rng)))
    assert not found.is_full_band(speech=False)
    assert 15_500 <= found.reach_hz <= 17_000


def test_screen_dull_sound_in_hiss_is_not_full_band(tmp_path, rng):
    sos = signal.butter(8, 8_000, fs=RATE, output="sos")
    audio = signal.sosfiltfilt(sos, bursts(rng))
    found = screened(tmp_path, audio + 3e-4 * rng.standard_normal(len(audio)))
    assert not found.is_full_band(speech=False)


def test_screen_loud_hiss_is_an_effect_but_no_speech(tmp_path, rng):
    found = screened(tmp_path, 0.1 * rng.standard_normal(2 * RATE))
    assert found.is_full_band(speech=False)
    assert not found.is_full_band(speech=True)


def test_screen_clipped_speech_is_not_full_band(tmp_path, rng):
    found = screened(tmp_path, np.clip(6 * bursts(rng), -1, 1))
    assert found.reach_hz == 22_000
    assert not found.is_full_band(speech=True)


@pytest.mark.parametrize("audio", [np.zeros(RATE), np.full(RATE, 8.0), np.ones(100)])
def test_screen_silent_broken_and_tiny_files_are_unusable(tmp_path, audio):
    assert screened(tmp_path, audio).unusable


def test_screen_long_file_is_judged_by_excerpts(tmp_path, rng):
    whole = screened(tmp_path, np.tile(bursts(rng), 50))
    assert whole.seconds == 100.0
    assert whole.is_full_band(speech=False)


# --- sorting ----------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, rng) -> Path:
    """A folder like FoxDot's: a training sound, a dull one, a held-out one, a broken one."""
    folder = tmp_path / "snd"
    sos = signal.butter(8, 3_000, fs=RATE, output="sos")
    sounds = {
        "x/lower/bright.wav": bursts(rng),
        "x/lower/dull.wav": signal.sosfiltfilt(sos, bursts(rng)),
        "_/tilde/ride.wav": bursts(rng),
    }
    for name, audio in sounds.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, audio, RATE)
    (folder / "x/lower/broken.wav").write_bytes(b"RIFF and nothing else")
    return folder


def test_sort_in_places_links_and_lists(tmp_path, package):
    output = tmp_path / "corpus"
    files, left_out = fetch_corpus.sort_in(corpus_sources.FOXDOT, package, output)
    found = sorted(str(p.relative_to(output)) for p in output.rglob("*") if p.is_file())
    assert found == [
        "train/effects/foxdot_x-lower_bright.wav",
        "train/effects/foxdot_x-lower_dull.wav",
        "train_fullband/effects/foxdot_x-lower_bright.wav",
        "val/effects/foxdot__-tilde_ride.wav",
    ]
    assert list(left_out) == ["x/lower/broken.wav"]
    assert (output / found[0]).read_bytes() == (package / "x/lower/bright.wav").read_bytes()
    assert (output / found[0]).stat().st_ino == (output / found[2]).stat().st_ino
    assert len(files) == 3


def test_sort_in_keeps_of_unseen_packages_what_is_full_band(tmp_path, package):
    place = corpus_sources.unseen(corpus_sources.place_foxdot)
    output, source = tmp_path / "corpus", replace(corpus_sources.FOXDOT, place=place)
    files, left_out = fetch_corpus.sort_in(source, package, output)
    found = sorted(str(p.relative_to(output)) for p in output.rglob("*") if p.is_file())
    assert found == [
        "unseen/effects/foxdot__-tilde_ride.wav",
        "unseen/effects/foxdot_x-lower_bright.wav",
    ]
    assert [record["split"] for record in files] == ["unseen", "unseen"]
    assert left_out["x/lower/dull.wav"] == "not full-band"


def test_sort_in_takes_the_same_sound_once(tmp_path, package):
    again = package / "y/lower/again.wav"
    again.parent.mkdir(parents=True)
    again.write_bytes((package / "x/lower/bright.wav").read_bytes())
    files, left_out = fetch_corpus.sort_in(corpus_sources.FOXDOT, package, tmp_path / "corpus")
    assert left_out["y/lower/again.wav"] == "the same as x/lower/bright.wav"
    assert len(files) == 3


def test_is_complete_notices_a_missing_and_a_shortened_file(tmp_path, package):
    output = tmp_path / "corpus"
    files, _ = fetch_corpus.sort_in(corpus_sources.FOXDOT, package, output)
    entry = {"files": files}
    assert fetch_corpus.is_complete(output, entry)
    assert not fetch_corpus.is_complete(output, None)
    first = output / files[0]["file"]
    whole = first.read_bytes()
    first.write_bytes(whole[:100])
    assert not fetch_corpus.is_complete(output, entry)
    first.unlink()
    assert not fetch_corpus.is_complete(output, entry)


def test_main_complete_package_is_not_fetched_again(tmp_path, package, capsys, monkeypatch):
    output = tmp_path / "corpus"
    files, left_out = fetch_corpus.sort_in(corpus_sources.FOXDOT, package, output)
    manifest = {"FoxDot": {"licence": "x", "files": files, "left_out": left_out}}
    (output / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    monkeypatch.setenv("PATH", "")  # nothing could be fetched
    monkeypatch.setattr(sys, "executable", "")
    fetch_corpus.main(fetch_corpus.parse_args(["--output", str(output)]))
    printed = capsys.readouterr().out
    assert "already there" in printed
    assert "2 / 0.001 h" in printed


def test_main_broken_manifest_is_one_clear_message(tmp_path):
    (tmp_path / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"manifest\.json: not readable"):
        fetch_corpus.main(fetch_corpus.parse_args(["--output", str(tmp_path)]))


@pytest.mark.parametrize("name", sorted(corpus_sources.SETS.keys() - {"foxdot"}))
def test_debian_without_apt_says_what_works(tmp_path, name):
    run = subprocess.run(
        [sys.executable, "scripts/fetch_corpus.py", "--output", str(tmp_path), "--sets", name],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "drums, scores and unseen need apt-get" in run.stderr
    assert "Traceback" not in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == []


def test_failing_tool_is_quoted(tmp_path):
    with pytest.raises(UserError, match=r"(?s)try this.*unrecognized"):
        fetch_corpus.run([sys.executable, "-m", "json.tool", "--nonsense"], tmp_path, "try this")
