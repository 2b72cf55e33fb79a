"""The index and the crops: only what is needed is read, and nothing bad passes unseen."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from saga_sr.audio import file as audio_file
from saga_sr.audio import index as audio_index
from saga_sr.audio.file import read_crop, read_header
from saga_sr.audio.index import AudioIndex
from saga_sr.audio.packed_names import PackedNames
from saga_sr.support.errors import UserError

RATE = 44100
FORMATS = {
    "wav": {},
    "flac": {},
    "ogg": {},
    "mp3": {},
    "aiff": {},
    "opus": {"format": "OGG", "subtype": "OPUS"},
}


def _noise(frames: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((frames, channels))


def _write(path: Path, audio: np.ndarray, rate: int = RATE, **how: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate, **how)
    return path


def _scan(folder: Path, *more: Path) -> AudioIndex:
    return AudioIndex.scan([folder, *more], cache_dir=folder.parent / "cache", progress=False)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_file, "RETRY_DELAY_S", 0.0)


# --- crops ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_read_crop_every_format_equals_the_slice_of_the_whole_file(
    suffix: str, tmp_path: Path
) -> None:
    path = _write(tmp_path / f"a.{suffix}", _noise(100_000), 48000, **FORMATS[suffix])
    whole, _ = soundfile.read(path, dtype="float32", always_2d=True)
    crop = read_crop(path, 33_333, 20_000, 48000)
    np.testing.assert_array_equal(crop, whole[33_333:53_333].T)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 48000, 96000, 192000, 44056])
def test_read_crop_other_rates_equal_the_slice_of_the_resampled_file(
    rate: int, tmp_path: Path
) -> None:
    path = _write(tmp_path / "a.wav", _noise(2 * rate, 1), rate, subtype="FLOAT")
    whole, _ = soundfile.read(path, dtype="float32", always_2d=True)
    resampled = soxr.resample(whole, rate, RATE, quality="HQ").T
    for start, length in ((0, 5000), (31_415, 20_000), (RATE, RATE), (70_001, 18_199)):
        crop = read_crop(path, start, length, RATE)
        expected = resampled[:, start : start + length]
        np.testing.assert_allclose(crop[:, : expected.shape[1]], expected, atol=3e-6)


@pytest.mark.parametrize("rate", [RATE, 48000])
def test_read_crop_over_the_ends_is_filled_with_zeros(rate: int, tmp_path: Path) -> None:
    path = _write(tmp_path / "a.wav", _noise(4800), rate, subtype="FLOAT")
    inside = read_crop(path, 0, 4400, RATE)
    padded = read_crop(path, -1000, 7000, RATE)
    assert padded.shape == (2, 7000)
    assert not padded[:, :1000].any()
    np.testing.assert_allclose(padded[:, 1000:5400], inside, atol=1e-6)
    assert not padded[:, 1000 + 4801 :].any()
    assert not read_crop(path, 90_000, 100, RATE).any()


def test_read_crop_float_samples_over_full_scale_stay_as_they_are(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.wav", np.full((100, 1), 1.5), subtype="FLOAT")
    assert read_crop(path, 0, 100, RATE).max() == 1.5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_read_crop_non_finite_samples_are_an_error_with_the_path(
    bad: float, tmp_path: Path
) -> None:
    audio = _noise(1000)
    audio[500, 1] = bad
    path = _write(tmp_path / "nan.wav", audio, subtype="FLOAT")
    read_crop(path, 0, 400, RATE)
    with pytest.raises(UserError, match=r"nan\.wav.*NaN or infinite"):
        read_crop(path, 400, 400, RATE)


def test_read_crop_file_that_stays_bad_is_retried_logged_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UserError, match=r"gone\.wav.*3 attempts"):
        read_crop(tmp_path / "gone.wav", 0, 100, RATE)
    assert sum("gone.wav: attempt" in record.message for record in caplog.records) == 3


def test_read_crop_file_that_comes_back_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "a.wav", _noise(1000))
    hidden = path.rename(tmp_path / "hidden.wav")
    monkeypatch.setattr(audio_file, "RETRY_DELAY_S", 1e-9)
    monkeypatch.setattr(time, "sleep", lambda _: hidden.exists() and hidden.rename(path))
    assert read_crop(path, 0, 1000, RATE).shape == (2, 1000)


def test_index_read_file_that_changed_since_the_scan_is_an_error(tmp_path: Path) -> None:
    path = _write(tmp_path / "in" / "a.wav", _noise(5000))
    index = _scan(tmp_path / "in")
    _write(path, _noise(4000))
    with pytest.raises(UserError, match=r"a\.wav.*changed since it was indexed"):
        index.read(0, 0, 100, RATE)


# --- bad input ------------------------------------------------------------------------------------


def test_scan_missing_folder_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--train_dir .*nowhere: there is no such folder"):
        AudioIndex.scan([tmp_path / "nowhere"], flag="--train_dir")


def test_scan_file_instead_of_folder_is_an_error(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.wav", _noise(100))
    with pytest.raises(UserError, match="it is a file"):
        AudioIndex.scan([path])


def test_scan_empty_folder_and_folder_without_audio_name_the_formats(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(UserError, match=r"no audio.*\.flac"):
        _scan(folder)
    (folder / "notes.txt").write_text("no audio", encoding="utf-8")
    with pytest.raises(UserError, match="no audio"):
        _scan(folder)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.fixture
def good_folder(tmp_path: Path) -> Path:
    for number in range(4):
        _write(tmp_path / "in" / f"good{number}.flac", _noise(20_000, seed=number))
    return tmp_path / "in"


def test_scan_unusable_files_are_counted_and_listed_with_reasons(good_folder: Path) -> None:
    (good_folder / "empty.wav").touch()
    (good_folder / "text.mp3").write_text("this is not audio", encoding="utf-8")
    _truncate(_write(good_folder / "cut.flac", _noise(50_000)))
    index = _scan(good_folder)
    assert len(index) == 4
    reasons = {Path(path).name: reason for path, reason in index.unusable}
    assert set(reasons) == {"empty.wav", "text.mp3", "cut.flac"}
    assert "0 bytes" in reasons["empty.wav"]
    assert all(reasons.values())
    assert "3 files cannot be used" in index.describe(progress=False)
    assert str(good_folder / "cut.flac") in index.describe(progress=False)


def test_scan_too_many_unusable_files_are_one_error_that_lists_them(good_folder: Path) -> None:
    for number in range(4):
        (good_folder / f"empty{number}.wav").touch()
    with pytest.raises(UserError, match=r"4 of 8 audio files cannot be used(.|\n)*empty3\.wav"):
        _scan(good_folder)


def test_scan_no_usable_file_is_an_error_even_for_one_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "only.wav").touch()
    with pytest.raises(UserError, match="1 of 1 audio files cannot be used"):
        _scan(tmp_path / "in")


def test_read_header_file_without_samples_or_without_permission_says_so(tmp_path: Path) -> None:
    path = _write(tmp_path / "none.wav", np.zeros((0, 1)))
    assert "no samples" in read_header(path).problem
    assert read_header(tmp_path / "gone.wav").problem == "No such file or directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_scan_file_without_permission_is_read_once_it_is_permitted(good_folder: Path) -> None:
    path = good_folder / "good0.flac"
    path.chmod(0)
    assert len(_scan(good_folder)) == 3
    path.chmod(0o644)
    assert len(_scan(good_folder)) == 4


# --- index ----------------------------------------------------------------------------------------


def test_scan_finds_every_format_at_any_depth_and_no_hidden_files(tmp_path: Path) -> None:
    for depth, (suffix, how) in enumerate(FORMATS.items()):
        folder = tmp_path.joinpath("in", *"abcdef"[:depth])
        _write(folder / f"x.{suffix.upper()}", _noise(4800), 48000, **({"format": suffix} | how))
    _write(tmp_path / "in" / "._x.wav", _noise(100))
    index = _scan(tmp_path / "in")
    paths = [index.relative_path(position) for position in range(len(index))]
    assert {path.rsplit(".")[-1].lower() for path in paths} == set(FORMATS)
    assert paths == sorted(paths)
    assert all(index.path(position).is_file() for position in range(len(index)))
    assert index.header(0) == read_header(index.path(0))


def test_scan_link_in_a_circle_ends(good_folder: Path) -> None:
    (good_folder / "circle").symlink_to(good_folder, target_is_directory=True)
    assert len(_scan(good_folder)) == 4


def test_scan_name_that_is_not_utf8_is_kept(good_folder: Path) -> None:
    os.rename(os.fsencode(good_folder / "good0.flac"), os.fsencode(good_folder) + b"/g\xe9.flac")
    index = _scan(good_folder)
    assert all(index.read(position, 0, 10, RATE).shape == (2, 10) for position in range(4))


def test_scan_second_time_reads_no_header_but_of_changed_files(
    good_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _scan(good_folder)
    seen: list[str] = []

    def watching(path: bytes) -> audio_file.AudioHeader:
        seen.append(Path(os.fsdecode(path)).name)
        return read_header(path)

    monkeypatch.setattr(audio_index, "read_header", watching)
    again = _scan(good_folder)
    assert seen == []
    assert again.fingerprint() == first.fingerprint()
    _write(good_folder / "good1.flac", _noise(12_345))
    _write(good_folder / "new.wav", _noise(10))
    (good_folder / "good2.flac").unlink()
    changed = _scan(good_folder)
    assert sorted(seen) == ["good1.flac", "new.wav"]
    assert changed.frames.tolist() == [20_000, 12_345, 20_000, 10]
    assert changed.fingerprint() != first.fingerprint()


@pytest.mark.parametrize("damage", [b"", b"garbage", b"PK\x03\x04 half a zip"])
def test_scan_damaged_cache_is_made_anew(good_folder: Path, damage: bytes) -> None:
    _scan(good_folder)
    (cache,) = (good_folder.parent / "cache").iterdir()
    cache.write_bytes(damage)
    assert len(_scan(good_folder)) == 4
    assert cache.stat().st_size > len(damage)


def test_scan_many_headers_are_saved_on_the_way(
    good_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan that dies in its second portion starts from the first."""
    monkeypatch.setattr(audio_index, "HEADERS_PER_SAVE", 2)

    def dying(path: bytes) -> audio_file.AudioHeader:
        if path.endswith(b"good2.flac"):
            raise KeyboardInterrupt
        return read_header(path)

    monkeypatch.setattr(audio_index, "read_header", dying)
    with pytest.raises(KeyboardInterrupt):
        _scan(good_folder)
    seen: list[bytes] = []
    monkeypatch.setattr(audio_index, "read_header", lambda p: seen.append(p) or read_header(p))
    assert len(_scan(good_folder)) == 4
    assert len(seen) == 2


def test_packed_names_give_back_what_was_packed() -> None:
    names = [b"a", b"", "深/ü.wav".encode(), b"\xff"]
    packed = PackedNames.pack(names)
    assert packed.unpack() == names
    assert [packed[k] for k in range(len(packed))] == names
    assert PackedNames.pack([]).unpack() == []


def test_draw_folders_are_equal_and_files_by_duration(tmp_path: Path) -> None:
    _write(tmp_path / "big" / "long.wav", _noise(30_000, 1))
    _write(tmp_path / "big" / "short.wav", _noise(10_000, 1))
    _write(tmp_path / "small" / "only.wav", _noise(100, 1))
    index = _scan(tmp_path / "big", tmp_path / "small")
    rng = np.random.default_rng(0)
    counts = np.bincount([index.draw(rng) for _ in range(8000)], minlength=3) / 8000
    np.testing.assert_allclose(counts, [0.375, 0.125, 0.5], atol=0.02)


# --- description ----------------------------------------------------------------------------------


@pytest.fixture
def mixed_index(tmp_path: Path) -> AudioIndex:
    dull = soxr.resample(soxr.resample(_noise(3 * RATE, 1), RATE, 8000), 8000, RATE)
    _write(tmp_path / "in" / "dull.wav", dull, subtype="FLOAT")
    _write(tmp_path / "in" / "dull8k.wav", _noise(2 * 8000, 1), 8000)
    _write(tmp_path / "in" / "bright.wav", _noise(3 * RATE, 2))
    _write(tmp_path / "in" / "silent.wav", np.zeros((RATE, 1)))
    return _scan(tmp_path / "in")


def test_describe_counts_files_rates_channels_and_warns_of_dull_audio(
    mixed_index: AudioIndex,
) -> None:
    text = mixed_index.describe(progress=False)
    assert "4 files" in text
    assert "44100 Hz x 3, 8000 Hz x 1" in text
    assert "1 ch x 3, 2 ch x 1" in text
    assert "WARNING" in text


def test_exclude_below_leaves_dull_and_silent_files_out_and_counts_them(
    mixed_index: AudioIndex,
) -> None:
    mixed_index.exclude_below(15_000, progress=False)
    assert [mixed_index.relative_path(k) for k in range(len(mixed_index))] == ["bright.wav"]
    assert mixed_index.excluded == 3
    assert "3 files left out" in mixed_index.describe(progress=False)
    assert mixed_index.draw(np.random.default_rng(0)) == 0
    with pytest.raises(UserError, match="min_bandwidth_hz 30000"):
        mixed_index.exclude_below(30_000, progress=False)


def test_bandwidth_is_measured_once_and_cached(
    mixed_index: AudioIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed_index.measure_bandwidth(range(4), progress=False)
    again = AudioIndex.scan(
        mixed_index.folders, cache_dir=mixed_index.folders[0].parent / "cache", progress=False
    )
    np.testing.assert_array_equal(again.bandwidth_hz, mixed_index.bandwidth_hz)
    assert np.isfinite(again.bandwidth_hz).all()
    assert again.bandwidth_hz[1] == pytest.approx(4000, rel=0.1)  # dull.wav
    assert again.bandwidth_hz[3] == 0  # silent.wav


def test_index_of_a_million_files_draws_and_loads_quickly(tmp_path: Path) -> None:
    count = 1_000_000
    names = PackedNames.pack([b"d%06d/f.wav" % number for number in range(count)])
    table = audio_index.FolderTable(
        names=names,
        problems={},
        size=np.full(count, 9, dtype=np.int64),
        mtime_ns=np.full(count, 9, dtype=np.int64),
        frames=np.full(count, RATE, dtype=np.int64),
        sample_rate=np.full(count, RATE, dtype=np.int32),
        channels=np.full(count, 2, dtype=np.int32),
        exact_seeks=np.ones(count, dtype=bool),
        bandwidth_hz=np.full(count, np.nan, dtype=np.float32),
    )
    table.save(tmp_path / "big.npz")
    began = time.process_time()
    loaded = audio_index.FolderTable.load(tmp_path / "big.npz")
    assert loaded is not None
    index = AudioIndex([tmp_path], [loaded])
    rng = np.random.default_rng(0)
    drawn = [index.relative_path(index.draw(rng)) for _ in range(1000)]
    assert time.process_time() - began < 5.0
    assert len(set(drawn)) > 990
