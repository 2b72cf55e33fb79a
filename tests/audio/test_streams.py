import resource
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile
import soxr
import torch
from scipy import ndimage, signal

from saga_sr.audio.streams import (
    ArraySource,
    FileSource,
    Reader,
    map_with_context,
    resampled,
    write_audio,
)
from saga_sr.support.errors import UserError
from saga_sr.support.randomness import numpy_generator, torch_generator

RATE = 44100


def _audio(channels: int, frames: int) -> torch.Tensor:
    return 0.1 * torch.randn(channels, frames, generator=torch_generator("streams"))


def _in_pieces(audio: torch.Tensor, seed: int = 0) -> Iterator[torch.Tensor]:
    rng, start = numpy_generator("pieces", seed), 0
    while start < audio.shape[-1]:
        stop = start + int(rng.integers(0, 700))
        yield audio[..., start:stop]
        start = stop


# ---------------------------------------------------------------------------- in
@pytest.mark.parametrize("rate", [8000, 11025, 22050, 48000, 192000])
def test_resampled_stream_equals_resampling_at_once(rate):
    audio = _audio(2, 150_001)
    found = torch.cat(list(resampled(ArraySource(audio, rate), RATE)), dim=-1)
    expected = soxr.resample(audio.T.numpy(), rate, RATE, quality="HQ").T
    assert found.shape[-1] == round(150_001 * RATE / rate)
    shared = min(found.shape[-1], expected.shape[-1])
    assert np.abs(found.numpy()[:, :shared] - expected[:, :shared]).max() < 1e-6


@pytest.mark.parametrize("frames", [1, 2, 7, 100])
@pytest.mark.parametrize("rate", [8000, 44100, 96000])
def test_resampled_length_is_exact_for_the_shortest_audio(rate, frames):
    pieces = list(resampled(ArraySource(_audio(3, frames), rate), RATE))
    assert sum(piece.shape[-1] for piece in pieces) == round(frames * RATE / rate)
    assert all(piece.shape[0] == 3 for piece in pieces)


def test_a_file_reads_as_its_samples(tmp_path):
    audio = _audio(2, 100_000)
    soundfile.write(tmp_path / "a.wav", audio.T.numpy(), RATE, subtype="FLOAT")
    found = torch.cat(list(resampled(FileSource(tmp_path / "a.wav"), RATE)), dim=-1)
    assert torch.equal(found, audio)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_sample_that_is_no_number_is_an_error_that_says_where(tmp_path, value):
    audio = _audio(1, 100_000)
    audio[0, 88_200] = value
    soundfile.write(tmp_path / "bad.wav", audio.T.numpy(), RATE, subtype="FLOAT")
    with pytest.raises(UserError, match=r"bad\.wav: a sample at 2\.000 s is NaN or infinite"):
        list(resampled(FileSource(tmp_path / "bad.wav"), RATE))


@pytest.mark.parametrize("content", [b"", b"no audio", b"RIFF"])
def test_a_file_that_is_no_audio_is_an_error_that_names_it(tmp_path, content):
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.wav: it cannot be read as audio: "):
        FileSource(tmp_path / "x.wav")


def test_a_file_that_lost_its_middle_is_an_error(tmp_path):
    path = tmp_path / "torn.flac"
    soundfile.write(path, _audio(1, 300_000).T.numpy(), RATE)
    source = FileSource(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"torn\.flac"):
        list(resampled(source, RATE))


# ---------------------------------------------------------------------------- in between
@pytest.mark.parametrize("seed", range(3))
def test_map_with_context_equals_the_function_of_the_whole(seed):
    kernel = signal.firwin(101, 0.2)
    audio = _audio(2, 5000).double()

    def filtered(x):
        return torch.from_numpy(ndimage.convolve1d(x.numpy(), kernel, mode="constant"))

    pieces = list(map_with_context(_in_pieces(audio, seed), filtered, context=50))
    assert torch.allclose(torch.cat(pieces, dim=-1), filtered(audio), atol=1e-12)
    assert len(pieces) > 5


def test_map_with_context_scales_positions():
    numbers = torch.arange(100.0)[None]
    pieces = map_with_context(
        _in_pieces(numbers), lambda x: x.repeat_interleave(3, dim=-1), context=10, scale=3
    )
    assert torch.equal(torch.cat(list(pieces), -1), numbers.repeat_interleave(3, dim=-1))


def test_map_with_context_looks_at_a_bounded_stretch():
    longest = 0

    def look(x):
        nonlocal longest
        longest = max(longest, x.shape[-1])
        return x

    list(map_with_context((torch.zeros(1, 100) for _ in range(1000)), look, context=30))
    assert longest <= 100 + 2 * 30


def test_reader_gives_any_portions_in_order():
    numbers = torch.arange(3000.0)[None]
    reader = Reader(_in_pieces(numbers))
    assert torch.equal(reader.peek(900), numbers[:, :900])
    reader.skip(400)
    assert torch.equal(reader.take(1500), numbers[:, 400:1900])
    assert torch.equal(reader.take(5000), numbers[:, 1900:])
    assert reader.take(5).shape == (1, 0)


# ---------------------------------------------------------------------------- out
@pytest.mark.parametrize(
    ("name", "encoding", "step"),
    [("a.wav", "float", 0), ("a.wav", "16", 2**-15), ("a.flac", "24", 2**-23)],
)
def test_written_audio_reads_back(tmp_path, name, encoding, step):
    audio = _audio(2, 5000)
    written = write_audio(tmp_path / name, _in_pieces(audio), RATE, 2, 5000, encoding)
    found, rate = soundfile.read(tmp_path / name, dtype="float64")
    assert (rate, found.shape, written.frames) == (RATE, (5000, 2), 5000)
    assert np.abs(found.T - audio.numpy()).max() <= step
    assert written.peak == audio.abs().max()
    assert written.over == 0


def test_samples_over_full_scale_are_counted_and_float_keeps_them(tmp_path):
    audio = torch.tensor([[0.5, -1.5, 1.25, 1.0]])
    written = write_audio(tmp_path / "a.wav", iter([audio]), RATE, 1, 4, "float")
    assert (written.over, written.peak) == (2, 1.5)
    assert soundfile.read(tmp_path / "a.wav")[0].tolist() == audio[0].tolist()
    write_audio(tmp_path / "b.wav", iter([audio]), RATE, 1, 4, "16")
    assert np.abs(soundfile.read(tmp_path / "b.wav")[0]).max() <= 1  # clipped, not wrapped


def test_a_wav_beyond_4_gib_is_written_as_rf64(tmp_path):
    write_audio(tmp_path / "long.wav", iter([_audio(2, 10)]), RATE, 2, 2**30, "float")
    assert (tmp_path / "long.wav").read_bytes()[:4] == b"RF64"
    assert soundfile.read(tmp_path / "long.wav")[0].shape == (10, 2)


def test_an_error_on_the_way_leaves_no_file(tmp_path):
    def pieces():
        yield _audio(1, 5000)
        raise UserError("the model failed")

    with pytest.raises(UserError, match="the model failed"):
        write_audio(tmp_path / "a.wav", pieces(), RATE, 1, 10_000, "float")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_full_disk_is_one_message_and_leaves_no_file(tmp_path, name):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # a disk with room for 50 kB
    try:
        with pytest.raises(UserError, match=rf"{name}: it cannot be written"):
            write_audio(tmp_path / name, _in_pieces(_audio(1, 200_000)), RATE, 1, 200_000, "16")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_result_that_is_no_number_is_not_written(tmp_path, value):
    audio = _audio(1, 5000)
    audio[0, 4000] = value
    with pytest.raises(UserError, match=r"a\.wav: not written: .* NaN or infinite"):
        write_audio(tmp_path / "a.wav", _in_pieces(audio), RATE, 1, 5000, "float")
    assert list(tmp_path.iterdir()) == []
