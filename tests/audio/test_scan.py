"""One rule for what is audio below a folder, and a word on what is not."""

import os
from collections import Counter
from pathlib import Path

import pytest
from recordings import encode, melody, mp3, silent_film, write

from saga_sr.audio.index import AudioIndex
from saga_sr.audio.scan import is_audio_content, others_text, scan_audio


def names(folder: Path, excluded: Path | None = None) -> list[str]:
    return [os.fsdecode(file.name) for file in scan_audio(folder, excluded).audio]


def test_audio_is_found_by_suffix_or_by_content_and_the_rest_is_counted(tmp_path: Path) -> None:
    encode(tmp_path / "memo.M4A", melody(0.5), "aac")
    (tmp_path / "without_suffix").write_bytes((tmp_path / "memo.M4A").read_bytes())
    write(tmp_path / "deep" / "a.dat", melody(0.5), format="WAV")
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    for name in ("a.txt", "b.txt", "c.jpg", "README"):
        (tmp_path / name).write_text("ID3, RIFF and OggS", encoding="utf-8")
    (tmp_path / "utf16").write_bytes("\ufeffnotes".encode("utf-16-le"))
    scan = scan_audio(tmp_path)
    found = [os.fsdecode(file.name) for file in scan.audio]
    assert found == ["broken.wav", "deep/a.dat", "memo.M4A", "without_suffix"]
    assert scan.others_text() == ("5 other files left alone: 2 without suffix, 2 .txt, 1 .jpg")


@pytest.mark.parametrize(
    "suffix", ["wav", "flac", "ogg", "aiff", "au", "caf", "w64", "rf64", "voc"]
)
def test_content_of_libsndfiles_formats_is_known(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{suffix}", melody(0.5, 44100), 44100)
    with open(path, "rb") as file:
        assert is_audio_content(file)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.m4a", "aac"),
        ("a.aac", "aac"),
        ("a.mov", "aac"),
        ("a.mkv", "aac"),
        ("a.webm", "libopus"),
        ("a.wma", "wmav2"),
        ("a.avi", "libmp3lame"),
        ("a.ts", "aac"),
    ],
)
def test_content_of_ffmpegs_formats_is_known(name: str, codec: str, tmp_path: Path) -> None:
    path = encode(tmp_path / name, melody(0.5), codec)
    with open(path, "rb") as file:
        assert is_audio_content(file)


def test_content_of_an_mp3_with_and_without_a_tag_is_known(tmp_path: Path) -> None:
    data = mp3(tmp_path / "a.mp3", melody(0.5, 16000), 16000).read_bytes()
    for number, content in enumerate((data, data[data.index(b"\xff\xf3") :])):
        (tmp_path / f"{number}").write_bytes(content)
        with open(tmp_path / f"{number}", "rb") as file:
            assert is_audio_content(file)


def test_hidden_and_system_folders_are_left_alone(tmp_path: Path) -> None:
    for folder in (".AppleDouble", ".Trash-1000", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "kept"):
        write(tmp_path / folder / "a.wav", melody(0.1))
    write(tmp_path / "._a.wav", melody(0.1))
    assert names(tmp_path) == ["kept/a.wav"]


def test_linked_folders_are_searched_once_and_by_their_own_name(tmp_path: Path) -> None:
    write(tmp_path / "in" / "z" / "a.wav", melody(0.1))
    write(tmp_path / "elsewhere" / "b.wav", melody(0.1))
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in" / "z", target_is_directory=True)
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in" / "out").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert names(tmp_path / "in") == ["out/b.wav", "z/a.wav"]
    assert names(tmp_path / "in", excluded=tmp_path / "elsewhere") == ["z/a.wav"]


def test_the_index_says_what_it_left_alone_and_what_it_mends(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / "in" / f"{number}.wav", melody(0.5))
    silent_film(tmp_path / "in" / "film.mp4")
    (tmp_path / "in" / "a.txt").touch()
    joined = (tmp_path / "in" / "0.wav").with_suffix(".ogg")
    part = write(tmp_path / "part.ogg", melody(0.5)).read_bytes()
    joined.write_bytes(part + part)
    for _ in range(2):  # the second time from the cache
        index = AudioIndex.scan([tmp_path / "in"], tmp_path / "cache", progress=False)
        assert len(index) == 5
        text = index.describe(progress=False)
        assert "2 other files left alone: 1 .txt, 1 without sound" in text
        assert "1 files are mended" in text
        assert "2 recordings" in text


def test_many_kinds_are_summed_up() -> None:
    others = Counter({f".{letter}": 1 for letter in "abcdefgh"} | {".txt": 10})
    assert others_text(others).startswith("18 other files left alone: 10 .txt, 1 .a")
    assert others_text(others).endswith("3 more")
    assert others_text(Counter({".jpg": 1})) == "1 other file left alone: 1 .jpg"


def test_a_link_to_itself_is_counted_as_unreadable(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a.wav").touch()
    scan = scan_audio(tmp_path)
    assert [file.name for file in scan.audio] == [b"a.wav"]
    assert [Path(path).name for path, _ in scan.unreadable] == ["loop"]
