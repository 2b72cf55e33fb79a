"""Scores as sound: a soundfont of one sine and a score of a few notes, made here."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

import corpus_captions
import render_scores
from saga_sr.support.errors import UserError

RATE = render_scores.SAMPLE_RATE
KITS = (0, 8)


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def soundfont_of_a_sine() -> bytes:
    """Every preset of bank 0, and `KITS`, play a looped sine: A4 at key 69 (SoundFont 2.04)."""
    period, zeros = RATE / 440, b"\0" * 92
    length = round(period * 44)
    wave = (20000 * np.sin(2 * np.pi * np.arange(length) / period)).astype("<i2").tobytes()
    presets = [(0, program) for program in range(128)] + [(128, kit) for kit in KITS]

    def name(text: str) -> bytes:
        return text.encode().ljust(20, b"\0")

    phdr = b"".join(
        name(f"Tone {bank} {program}") + struct.pack("<HHHIII", program, bank, i, 0, 0, 0)
        for i, (bank, program) in enumerate(presets)
    ) + name("EOP") + struct.pack("<HHHIII", 0, 0, len(presets), 0, 0, 0)  # fmt: skip
    pbag = b"".join(struct.pack("<HH", i, 0) for i in range(len(presets) + 1))
    pgen = struct.pack("<HH", 41, 0) * len(presets) + struct.pack("<HH", 0, 0)  # instrument 0
    inst = name("sine") + struct.pack("<H", 0) + name("EOI") + struct.pack("<H", 1)
    ibag = struct.pack("<HHHH", 0, 0, 3, 0)
    igen = struct.pack("<8H", 38, 3600, 54, 1, 53, 0, 0, 0)  # rings for 8 s, looped; sample 0
    last = round(period * 40)
    shdr = name("sine") + struct.pack("<IIIIIBbHH", 0, length, 0, last, RATE, 69, 0, 0, 1)
    shdr += name("EOS") + b"\0" * 26
    lists = [
        b"INFO" + chunk(b"ifil", struct.pack("<HH", 2, 4)),
        b"sdta" + chunk(b"smpl", wave + zeros),
        b"pdta"
        + chunk(b"phdr", phdr) + chunk(b"pbag", pbag) + chunk(b"pmod", b"\0" * 10)
        + chunk(b"pgen", pgen) + chunk(b"inst", inst) + chunk(b"ibag", ibag)
        + chunk(b"imod", b"\0" * 10) + chunk(b"igen", igen) + chunk(b"shdr", shdr),
    ]  # fmt: skip
    return chunk(b"RIFF", b"sfbk" + b"".join(chunk(b"LIST", part) for part in lists))


def score(drums: bool) -> bytes:
    """A melody of A4 on channel 0, a bass on channel 1 and, if asked for, drums; 4 s. The one with
    drums leaves the melody's channel soft and off pitch, and sounds on."""
    track = b"\0\xc0\x0b" + b"\0\xc1\x21"  # vibraphone, fingered bass
    for _ in range(4):
        track += b"\0\x90\x45\x64" + b"\0\x91\x2d\x64"
        track += (b"\0\x99\x24\x64") if drums else b""
        track += b"\x83\x60\x80\x45\0" + b"\x83\x60\x81\x2d\0"  # 480 ticks each: half a second
    track += (b"\0\xb0\x07\x10" + b"\0\xe0\0\x70" + b"\0\x91\x2d\x64") if drums else b""
    track += b"\0\xff\x2f\0"
    head = struct.pack(">HHH", 0, 1, 480)
    parts = [b"MThd" + struct.pack(">I", 6) + head, b"MTrk" + struct.pack(">I", len(track)) + track]
    return b"".join(parts)


@pytest.fixture
def rendered(tmp_path: Path) -> Path:
    pytest.importorskip("tinysoundfont")
    scores = tmp_path / "scores"
    scores.mkdir()
    (scores / "march.mid").write_bytes(score(drums=True))
    (scores / "waltz.mid").write_bytes(score(drums=False))
    (tmp_path / "font.sf2").write_bytes(soundfont_of_a_sine())
    render_scores.render_folder(scores, tmp_path / "font.sf2", tmp_path / "out")
    return tmp_path


def pitch_hz(audio: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(audio[:, 0] * np.hanning(len(audio))))
    hz = np.fft.rfftfreq(len(audio), 1 / RATE)
    return float(hz[np.argmax(spectrum * (hz > 250))])  # the melody, not the bass


def test_every_piece_becomes_its_versions_with_their_instruments(rendered: Path) -> None:
    names = sorted(path.stem for path in (rendered / "out").iterdir())
    kinds = [name.split("--")[:2] for name in names]
    others = [["waltz", "other-1"], ["waltz", "other-2"], ["waltz", "written"]]
    assert kinds == [["march", kind] for kind in
                     ("drums-1", "drums-2", "other-1", "other-2", "written")] + others  # fmt: skip
    assert "march--written--tone_0_11--tone_0_33--drums" in names
    assert all(name.endswith("drums") == name.startswith("march") for name in names)


def test_written_is_the_score_and_others_stay_in_their_ranges(rendered: Path) -> None:
    for path in (rendered / "out").glob("waltz*"):
        audio, rate = soundfile.read(path)
        assert rate == RATE
        assert np.abs(audio).max() == pytest.approx(render_scores.PEAK, abs=0.01)
        seconds, hz = len(audio) / rate - render_scores.TAIL_S, pitch_hz(audio[: 3 * rate])
        if "--written--" in path.name:
            assert seconds == pytest.approx(4.0, abs=0.05)
            assert hz == pytest.approx(440, abs=2)
        else:
            assert 4 / 1.2 - 0.05 < seconds < 4 / 0.85 + 0.05
            assert 440 * 2 ** (-5 / 12) - 3 < hz < 440 * 2 ** (6 / 12) + 3
            bass = int(path.stem.split("--")[3].split("_")[-1])
            assert bass in render_scores.BASSES


def test_a_piece_alone_is_what_it_is_among_others(rendered: Path) -> None:
    (rendered / "scores" / "march.mid").unlink()
    render_scores.render_folder(rendered / "scores", rendered / "font.sf2", rendered / "again")
    again = sorted((rendered / "again").iterdir())
    assert len(again) == 3
    for path in again:
        assert path.read_bytes() == (rendered / "out" / path.name).read_bytes()


def test_caption_names_the_instruments() -> None:
    tell = corpus_captions.words_of
    written = tell("openttd-openmsx", "a--written--grand_piano--slap_bass--drums.flac")
    alone = tell("openttd-openmsx", "a--drums-2--drums.flac")
    assert written is not None
    assert alone is not None
    assert written.caption == (
        "Music of a game, played by a synthesizer: grand piano, slap bass and drums."
    )
    assert alone.caption == "Rhythm of a game's music, played by a synthesizer: drums."


def test_a_folder_without_scores_is_said(tmp_path: Path) -> None:
    pytest.importorskip("tinysoundfont")
    with pytest.raises(UserError, match="no MIDI file"):
        render_scores.render_folder(tmp_path, tmp_path / "font.sf2", tmp_path / "out")
