"""Sounds and files for the tests: as phones, browsers, recorders and old machines write them."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

from saga_sr.support.files import native_name
from saga_sr.support.randomness import numpy_generator

RATE = 48000


def melody(duration_s: float = 3.0, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """A chord with clicks, float32 [n, C]: what a codec keeps, and where a shift would be seen."""
    t = np.arange(round(duration_s * rate)) / rate
    tones = sum(np.sin(2 * np.pi * hz * t * (1 + 0.05 * t)) for hz in (310.0, 523.0, 1170.0))
    pulses = np.exp(-((t % 0.37) ** 2) / 2e-4)
    mono = 0.1 * tones * (0.3 + pulses)
    return np.stack([mono * (1 - 0.3 * c) for c in range(channels)], axis=1).astype(np.float32)


def voice(seconds: float, seed: int = 0, rate: int = 44_100) -> np.ndarray:
    """Syllables of pulses and hiss that fall by 6 dB per octave, with pauses; full-band."""
    rng, count = numpy_generator("voice", seed), round(seconds * rate)
    time_s = np.arange(count) / rate
    pulses = np.diff(np.floor(np.cumsum(110 + 20 * np.sin(5 * time_s)) / rate), prepend=0)
    sound = 3 * pulses + 0.3 * rng.standard_normal(count)
    spectrum = np.fft.rfft(sound)
    spectrum /= np.maximum(np.fft.rfftfreq(count, 1 / rate) / 400, 1)
    syllables = np.clip(4 * np.sin(2 * np.pi * 3 * time_s) + 2, 0, 1) ** 2
    phrases = (time_s % 1.7) < 1.3
    sound = np.fft.irfft(spectrum, count) * syllables * phrases
    return 0.1 * sound / sound.std() + 1e-6 * rng.standard_normal(count)


def encode(
    path: Path, audio: np.ndarray, codec: str, rate: int = RATE, film: bool = False, **how: str
) -> Path:
    """Write [n, C] with FFmpeg, in the container of the suffix; ``film`` adds a picture first."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[audio.shape[1]]
    with av.open(str(path), "w", **how) as container:
        picture = container.add_stream("mpeg4", rate=25) if film else None
        if picture is not None:
            picture.width = picture.height = 64
            picture.pix_fmt = "yuv420p"
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if "bit_rate" not in how and codec not in ("flac", "alac", "wavpack", "pcm_s16le"):
            stream.bit_rate = 64000 * audio.shape[1]
        sample_format = stream.codec_context.codec.audio_formats[0].name
        if picture is not None:
            for number in range(round(25 * len(audio) / rate)):
                frame = av.VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), "yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(picture.encode(frame))
            container.mux(picture.encode(None))
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(audio.T, dtype=np.float32), "fltp", layout
        )
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(sample_format, layout, rate, stream.codec_context.frame_size)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


def silent_film(path: Path) -> Path:
    """A film without an audio stream."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=25)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), "yuv420p")
        container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
    return path


def mp3(path: Path, audio: np.ndarray, rate: int, **options: str) -> Path:
    """An MP3 of LAME's, by default with a variable bit rate, with ID3 and Xing headers."""
    options = {"b": "0", "q": "5"} | options
    with av.open(str(path), "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=rate, layout="mono")
        stream.codec_context.qscale = True  # type: ignore[attr-defined]
        stream.options = options
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(audio.T, dtype=np.float32), "fltp", "mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler("fltp", "mono", rate, stream.codec_context.frame_size)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


def with_xing_frames(data: bytes, frames: int) -> bytes:
    """An MP3 whose Xing header says another number of frames."""
    at = max(data.find(b"Xing"), data.find(b"Info"))
    assert at > 0
    return data[: at + 8] + struct.pack(">I", frames) + data[at + 12 :]


def without_xing(data: bytes) -> bytes:
    """An MP3 as one is that was written to a pipe: without its first frame, the Xing header."""
    from saga_sr.audio.repair import frame_header, id3_bytes

    start = id3_bytes(data[:10])
    header = frame_header(data[start : start + 4])
    assert header is not None
    return data[:start] + data[start + header.size :]


def crashed(wav: bytes, told_bytes: int = 0) -> bytes:
    """A WAV whose recorder never came to write the sizes."""
    at = wav.find(b"data")
    return (wav[:4] + struct.pack("<I", 0) + wav[8 : at + 4] + struct.pack("<I", told_bytes)) + wav[
        at + 8 :
    ]


def write(path: Path, audio: np.ndarray, rate: int = RATE, **how: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(
        native_name(path), audio, rate, format=how.pop("format", path.suffix[1:]), **how
    )
    return path
