"""What people have is read whole, from its first sample to its last, at any place."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import (
    RATE,
    crashed,
    encode,
    melody,
    mp3,
    silent_film,
    with_xing_frames,
    without_xing,
    write,
)

from saga_sr.audio.decoder import NO_SOUND
from saga_sr.audio.file import read_crop, read_header
from saga_sr.audio.reader import open_audio
from saga_sr.audio.streams import FileSource, SilentFilmError
from saga_sr.support.errors import UserError


def read_whole(path: Path) -> np.ndarray:
    with open_audio(path) as file:
        return file.read(0, file.frames)


def shift_of(audio: np.ndarray, original: np.ndarray) -> int:
    """By how many samples ``audio`` comes late, from the peak of the cross-correlation."""
    size = 1 << (len(audio) + len(original)).bit_length()
    spectrum = np.fft.rfft(audio[:, 0], size) * np.conj(np.fft.rfft(original[:, 0], size))
    peak = int(np.argmax(np.fft.irfft(spectrum)))
    return peak if peak < size // 2 else peak - size


# --- FFmpeg's part --------------------------------------------------------------------------------
EXACT = {  # file -> (codec, whether there is a picture too)
    "memo.m4a": ("aac", False),
    "phone.mp4": ("aac", True),
    "phone.mov": ("aac", True),
    "page.webm": ("libopus", False),
    "opus.mp4": ("libopus", False),
    "mp3.mp4": ("libmp3lame", False),
    "lossless.m4a": ("alac", False),
    "lossless.mkv": ("flac", True),
}
DELAYED = {  # whose container tells no delay: file -> (codec, delay that FFmpeg's encoder has)
    "stream.aac": ("aac", 1024),
    "film.ac3": ("ac3", 256),
    "film.mkv": ("aac", 0),
}


@pytest.mark.parametrize("name", EXACT)
def test_films_and_memos_have_the_length_and_start_of_what_was_recorded(
    name: str, tmp_path: Path
) -> None:
    codec, film = EXACT[name]
    original = melody(channels=2)
    audio = read_whole(encode(tmp_path / name, original, codec, film=film))
    assert audio.shape == original.shape
    assert shift_of(audio, original) == 0
    error = np.sqrt(np.mean((audio - original) ** 2) / np.mean(original**2))
    assert error < 0.1


@pytest.mark.parametrize("name", DELAYED)
def test_what_tells_no_delay_is_read_whole(name: str, tmp_path: Path) -> None:
    codec, delay = DELAYED[name]
    original = melody()
    audio = read_whole(encode(tmp_path / name, original, codec))
    assert shift_of(audio, original) == delay
    assert len(original) <= len(audio) < len(original) + 4096


@pytest.mark.parametrize("name", [*EXACT, *DELAYED])
def test_a_crop_is_the_stretch_of_the_whole(name: str, tmp_path: Path) -> None:
    codec, film = EXACT.get(name, (DELAYED.get(name, ("",))[0], False))
    path = encode(tmp_path / name, melody(8.0), codec, film=film)
    header, whole = read_header(path), read_whole(path)
    assert header.exact_seeks
    for start in (0, 1000, 123_457, 250_001, len(whole) - 5000):
        crop = read_crop(path, start, 5000, RATE, header)
        expected = whole[start : start + 5000, 0]
        # AAC and AC-3 decoders fill bands with noise of their own, which a seek does not repeat.
        tolerance = 0.1 if codec in ("aac", "ac3") else 1e-5
        assert np.abs(crop[0] - expected).std() <= tolerance * expected.std()


def test_vorbis_in_webm_whose_time_stamps_are_too_coarse_is_decoded_from_the_start(
    tmp_path: Path,
) -> None:
    """Vorbis blocks have two sizes, so that milliseconds do not tell where one begins."""
    import av

    write(tmp_path / "a.ogg", melody(5.0))
    path = tmp_path / "a.webm"
    with av.open(str(tmp_path / "a.ogg")) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    header, whole = read_header(path), read_whole(path)
    assert not header.exact_seeks
    crop = read_crop(path, 200_001, 5000, RATE, header)
    np.testing.assert_array_equal(crop[0], whole[200_001:205_001, 0])


@pytest.mark.parametrize(
    ("codec", "name"), [("wmav2", "a.wma"), ("eac3", "a.eac3"), ("libmp3lame", "a.avi")]
)
def test_other_codecs_are_read(codec: str, name: str, tmp_path: Path) -> None:
    audio = read_whole(encode(tmp_path / name, melody(channels=2), codec))
    assert abs(len(audio) - 3 * RATE) < 4096
    assert np.sqrt(np.mean(audio**2)) == pytest.approx(
        np.sqrt(np.mean(melody(channels=2) ** 2)), 0.1
    )


def test_the_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    memo = encode(tmp_path / "a.m4a", melody(1.0), "aac")
    for name in ("memo.wav", "memo", "memo.txt"):
        path = tmp_path / name
        path.write_bytes(memo.read_bytes())
        assert read_header(path) == read_header(memo)
        assert read_header(path).frames == RATE


def test_a_film_without_sound_is_said_to_have_none(tmp_path: Path) -> None:
    film = silent_film(tmp_path / "film.mp4")
    assert read_header(film).problem == NO_SOUND
    with pytest.raises(SilentFilmError, match=r"film\.mp4.*no sound"):
        FileSource(film)


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    memo = encode(tmp_path / "a.m4a", melody(1.0), "aac")
    playlists = {
        "a.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{memo}\n#EXT-X-ENDLIST\n",
        "a.ffconcat": f"ffconcat version 1.0\nfile {memo}\n",
    }
    for name, text in playlists.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert read_header(tmp_path / name).problem


def test_a_memo_that_lost_its_end_is_an_error(tmp_path: Path) -> None:
    path = encode(
        tmp_path / "a.m4a", melody(4.0), "aac", container_options={"movflags": "faststart"}
    )
    os.truncate(path, path.stat().st_size // 2)
    assert "truncated" in read_header(path).problem


# --- headers that are wrong -----------------------------------------------------------------------


def test_an_mp3_with_a_right_header_has_the_length_of_what_was_encoded(tmp_path: Path) -> None:
    original = melody(rate=16000)
    path = mp3(tmp_path / "a.mp3", original, 16000)
    assert len(read_whole(path)) == len(original)
    assert shift_of(read_whole(path), original) == 0
    assert read_header(path).note == ""


@pytest.mark.parametrize("told_frames", [0, 10, 1000])
def test_an_mp3_whose_header_is_wrong_is_read_whole(told_frames: int, tmp_path: Path) -> None:
    original = melody(rate=16000)
    data = mp3(tmp_path / "right.mp3", original, 16000).read_bytes()
    path = tmp_path / "a.mp3"
    path.write_bytes(with_xing_frames(data, told_frames))
    audio = read_whole(path)
    # The padding at the end is not believed either: up to two frames more.
    assert len(original) <= len(audio) < len(original) + 2 * 576
    assert shift_of(audio, original) == 0
    assert "its header says" in read_header(path).note


def test_an_mp3_of_variable_bit_rate_without_a_header_is_read_whole(tmp_path: Path) -> None:
    original = melody(20.0, rate=16000)
    data = mp3(tmp_path / "right.mp3", original, 16000).read_bytes()
    path = tmp_path / "a.mp3"
    path.write_bytes(without_xing(data))
    audio = read_whole(path)
    assert len(audio) % 576 == 0
    assert len(original) <= len(audio) < len(original) + 4 * 576
    crop = read_crop(path, 200_001, 5000, 16000, read_header(path))
    np.testing.assert_allclose(crop[0], audio[200_001:205_001, 0], atol=1e-5)


def test_joined_mp3s_are_read_to_the_end_of_the_last(tmp_path: Path) -> None:
    one = mp3(tmp_path / "one.mp3", melody(1.5, rate=16000), 16000)
    two = mp3(tmp_path / "two.mp3", melody(2.5, rate=16000), 16000)
    path = tmp_path / "joined.mp3"
    path.write_bytes(one.read_bytes() + two.read_bytes())
    audio = read_whole(path)
    assert 4.0 <= len(audio) / 16000 < 4.0 + 4 * 576 / 16000
    assert "2 MP3s joined" in read_header(path).note
    end = audio[-len(read_whole(two)) :]
    assert np.sqrt(np.mean(end**2)) > 0.5 * np.sqrt(np.mean(read_whole(two) ** 2))


def test_joined_mp3s_of_other_rates_are_an_error_that_says_so(tmp_path: Path) -> None:
    one = mp3(tmp_path / "one.mp3", melody(1.5, rate=16000), 16000)
    two = mp3(tmp_path / "two.mp3", melody(1.5, rate=44100), 44100)
    path = tmp_path / "joined.mp3"
    path.write_bytes(one.read_bytes() + two.read_bytes())
    assert "changes from 16000 Hz" in read_header(path).problem


def test_an_mp3_in_blocks_is_the_mp3_at_once(tmp_path: Path) -> None:
    """soundfile seeks after each read; the next MP3 frame then lacks the earlier ones it needs."""
    path = mp3(tmp_path / "a.mp3", melody(6.0, rate=16000), 16000, q="7")
    whole, _ = soundfile.read(path, dtype="float32", always_2d=True)
    with open_audio(path) as file:
        blocks = np.concatenate(list(file.blocks(5000)))
        np.testing.assert_allclose(blocks, whole, atol=1e-5)
        for start in (70_001, 30_003, 1, 50_021):
            np.testing.assert_allclose(
                file.read(start, 3000), whole[start : start + 3000], atol=1e-4
            )


@pytest.mark.parametrize(
    ("suffix", "how"), [("ogg", {}), ("opus", {"format": "OGG", "subtype": "OPUS"})]
)
def test_chained_oggs_are_read_to_the_end_of_the_last(
    suffix: str, how: dict[str, str], tmp_path: Path
) -> None:
    parts = [write(tmp_path / f"{k}.{suffix}", melody(1.0 + k), **how) for k in range(3)]
    path = tmp_path / f"chain.{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    expected = np.concatenate([read_whole(part) for part in parts])
    assert len(expected) == 6 * RATE
    np.testing.assert_array_equal(read_whole(path), expected)
    crop = read_crop(path, RATE - 1000, 2000, RATE, read_header(path))
    np.testing.assert_array_equal(crop[0], expected[RATE - 1000 : RATE + 1000, 0])
    assert "3 recordings" in read_header(path).note


@pytest.mark.parametrize("told_bytes", [0, 20_000])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT", "GSM610"])
def test_a_wav_whose_recorder_crashed_is_read_whole(
    told_bytes: int, subtype: str, tmp_path: Path
) -> None:
    rate = 8000 if subtype == "GSM610" else RATE
    right = write(tmp_path / "right.wav", melody(20.0, rate), rate, subtype=subtype)
    path = tmp_path / "crashed.wav"
    path.write_bytes(crashed(right.read_bytes(), told_bytes))
    np.testing.assert_array_equal(read_whole(path), read_whole(right))
    assert "never finished" in read_header(path).note


def test_a_wav_with_chunks_behind_its_audio_is_no_crashed_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", melody(1.0))
    data = path.read_bytes()
    path.write_bytes(data + b"LIST" + (2000).to_bytes(4, "little") + bytes(2000))
    assert read_header(path).frames == RATE
    assert read_header(path).note == ""


def test_a_wav_that_was_cut_off_says_what_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", melody(2.0))
    os.truncate(path, path.stat().st_size - 2 * RATE)
    assert read_header(path).frames == pytest.approx(RATE, abs=2)
    assert "1.0 s that its header promises" in read_header(path).note


def test_a_flac_without_a_length_is_read_whole(tmp_path: Path) -> None:
    """As one that is written to a pipe: nobody could go back to fill it in."""
    right = write(tmp_path / "right.flac", melody(3.0))
    data = bytearray(right.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path = tmp_path / "pipe.flac"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_whole(path), read_whole(right))
    crop = read_crop(path, 70_001, 3000, RATE, read_header(path))
    np.testing.assert_array_equal(crop[0], read_whole(right)[70_001:73_001, 0])


# --- the rest of libsndfile -----------------------------------------------------------------------
UNSEEKABLE = [("WAV", "GSM610"), ("W64", "GSM610"), ("AIFF", "GSM610"), ("AU", "G721_32")]


@pytest.mark.parametrize(("container", "subtype"), UNSEEKABLE)
def test_an_encoding_that_cannot_seek_is_read_on(
    container: str, subtype: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.bin", melody(4.0, 8000), 8000, format=container, subtype=subtype)
    whole = read_whole(path)
    assert len(whole) >= 4 * 8000
    assert np.sqrt(np.mean((whole[:32000] - melody(4.0, 8000)) ** 2)) < 0.03
    blocks = np.concatenate(list(FileSource(path).blocks()))
    np.testing.assert_array_equal(blocks, whole)
    with open_audio(path) as file:
        for start in (20_000, 5_000):  # onwards, and back
            np.testing.assert_array_equal(file.read(start, 100), whole[start : start + 100])


@pytest.mark.parametrize("subtype", ["GSM610", "IMA_ADPCM", "MS_ADPCM"])
def test_padding_of_the_last_block_of_a_wav_is_left_out(subtype: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", melody(1.0, 8000), 8000, subtype=subtype)
    data = bytearray(path.read_bytes())
    at = data.index(b"fact") + 8
    data[at : at + 4] = (7990).to_bytes(4, "little")
    path.write_bytes(data)
    assert soundfile.info(path).frames >= 8000
    assert len(read_whole(path)) == read_header(path).frames == 7990
    crop = read_crop(path, 7000, 2000, 8000, read_header(path))
    np.testing.assert_array_equal(crop[0, :990], read_whole(path)[7000:, 0])
    assert not crop[0, 990:].any()


def test_an_mp3_in_a_wav_has_the_length_that_decoding_gives(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.wav", melody(1.0), "libmp3lame")
    audio = read_whole(path)
    assert RATE <= len(audio) < RATE + 3 * 1152


@pytest.mark.parametrize(
    ("suffix", "container"),
    [("au", "AU"), ("snd", "AU"), ("caf", "CAF"), ("w64", "W64"), ("rf64", "RF64"), ("voc", "VOC")],
)
def test_older_containers_are_read(suffix: str, container: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{suffix}", melody(1.0, 44100), 44100, format=container)
    np.testing.assert_allclose(read_whole(path), melody(1.0, 44100), atol=1e-4)


@pytest.mark.parametrize("name", [b"caf\xe9.m4a", b"caf\xe9.wav", "声音".encode() + b".mp3"])
def test_a_name_in_any_encoding_is_opened(name: bytes, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(name)
    plain = tmp_path / f"a{path.suffix}"
    if path.suffix == ".m4a":
        encode(plain, melody(1.0), "aac")
    else:
        write(plain, melody(1.0))
    plain.rename(path)
    assert FileSource(path).frames == RATE


def test_text_is_no_audio(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no audio at all\n" * 100, encoding="utf-8")
    with pytest.raises(UserError, match=r"notes\.txt: it cannot be read as audio"):
        FileSource(tmp_path / "notes.txt")


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 of an Ogg page (RFC 3533), its own field being zero."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return value


@pytest.mark.parametrize("frames", [1000, 5800])
def test_a_vorbis_stream_that_ends_before_its_last_page_says_is_truncated(
    tmp_path: Path, frames: int
) -> None:
    """Its last frame alone would be found: libsndfile gives some that are none."""
    path = tmp_path / "a.ogg"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(100_000), 44100)
    assert not read_header(path).problem
    data = bytearray(path.read_bytes())
    page = data.rindex(b"OggS")
    told = int.from_bytes(data[page + 6 : page + 14], "little")
    data[page + 6 : page + 14] = (told + frames).to_bytes(8, "little")
    data[page + 22 : page + 26] = bytes(4)
    data[page + 22 : page + 26] = _ogg_checksum(data[page:]).to_bytes(4, "little")
    path.write_bytes(data)
    with soundfile.SoundFile(path) as file:
        file.seek(-1, soundfile.SEEK_END)
        assert len(file.read(1)) == 1
    assert "truncated" in read_header(path).problem
