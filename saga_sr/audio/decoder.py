"""What libsndfile does not read: AAC, ALAC, WMA, AC-3 ... in MP4, WebM, Matroska and the like.

PyAV brings FFmpeg in its wheel. The format is found by content: FFmpeg is given an open file, never
a name, so a name may be in any language and encoding, and its suffix may lie. Only formats of one
file are allowed (no playlists: a page's upload must not make FFmpeg open other files or addresses).

Decoding is exact in length and start: FFmpeg removes the encoder's delay where the file tells it,
the padding at the end goes where an MP4 tells the true length. A raw AAC stream (ADTS) tells
neither and keeps both.

A crop from the middle seeks to `PREROLL_S` before it. Time stamps may be too coarse or jitter too
much to know which sample a frame begins with: `measure` decodes the whole file once, counts, and
says whether they can be trusted. Where they cannot, crops are decoded from the start.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from saga_sr.audio.repair import Note, Piece, SplicedFile, note

if TYPE_CHECKING:
    import av

PREROLL_S = 0.5  # an MP3 frame may need nine earlier ones, Opus 80 ms, SBR a few frames
_MAX_PADDING_FRAMES = 3  # that an MP4's own length may cut off the end, in frames of the codec
_DECODER_NOISE = 0.1  # of the power; AAC and AC-3 fill bands with noise of their own
FORMATS = (
    "mov,matroska,asf,aac,ac3,eac3,mp3,ogg,flac,wav,w64,aiff,caf,au,avi,flv,mpegts,mpeg,amr,ape,"
    "wv,tta,dsf,dts,mpc,mpc8,tak,voc,iff,ircam,nistsphere,oma,rm,latm,loas,truehd,spx,gsm,wtv,mxf"
)
NO_SOUND = "it holds no sound (no audio stream)"


class NoSoundError(OSError):
    """A picture, a film without sound: nothing is damaged, but there is nothing to hear."""


class UnknownFormatError(OSError):
    """FFmpeg does not know what this is."""


@dataclass(frozen=True)
class Known:
    """What an earlier look at a file found; opening it then costs no decoding.

    Attributes:
        frames: the true length, in samples per channel.
        sample_rate: Hz.
        channels: how many.
        exact_seeks: whether time stamps lead to every frame's first sample exactly.
        is_plain: whether libsndfile may be asked first, without a look at the file's structure.
    """

    frames: int
    sample_rate: int
    channels: int
    exact_seeks: bool = True
    is_plain: bool = True


@dataclass(frozen=True)
class Measured:
    """What decoding a whole file gives.

    Attributes:
        known: about its audio.
        notes: what was wrong with the file and was mended.
    """

    known: Known
    notes: tuple[Note, ...]


def measure(path: Path | str | bytes, pieces: Sequence[Piece] = ()) -> Measured:
    """Decode a file once to its end, or ``pieces`` of it (`saga_sr.audio.repair`).

    Raises:
        OSError: FFmpeg cannot decode it; `NoSoundError` where it has no audio stream.
    """
    with _Stream(path, pieces) as stream:
        counted, exact, largest = 0, True, 0
        samples_heard: dict[int, np.ndarray] = {}  # position -> a few frames, ever further apart
        previous: _Frame | None = None
        for frame in stream.frames():
            if previous is not None:  # the last frame may be shorter than its grid
                exact = exact and stream.position(previous) == counted - len(previous.samples)
            if counted >= 2 * max(samples_heard, default=stream.sample_rate // 2):
                samples_heard[counted] = frame.samples
            counted += len(frame.samples)
            largest = max(largest, len(frame.samples))
            previous = frame
        if previous is None:
            raise OSError("it holds no samples")
        told = stream.told_frames() or counted
        padding = counted - told
        if padding < -largest:
            rate = stream.sample_rate
            raise OSError(f"it is truncated: {counted / rate:.1f} of {told / rate:.1f} s are there")
        if 0 < padding <= _MAX_PADDING_FRAMES * largest:
            counted -= padding
        known, notes = Known(counted, stream.sample_rate, stream.channels, exact), stream.notes
    if exact and not all(_seeks_to(path, pieces, known, *heard) for heard in samples_heard.items()):
        known = replace(known, exact_seeks=False)
    return Measured(known, notes)


def _seeks_to(
    path: Path | str | bytes,
    pieces: Sequence[Piece],
    known: Known,
    first: int,
    heard: np.ndarray,
) -> bool:
    """Whether a seek gives what decoding from the start gave, but for a decoder's own noise."""
    heard = heard[: known.frames - first]
    with DecodedFile(path, known, pieces) as file:
        try:
            again = file.read(first, len(heard))
        except OSError:
            return False
    difference = float(np.square(again - heard).sum()) if again.shape == heard.shape else np.inf
    return difference <= _DECODER_NOISE * float(np.square(heard).sum())


class DecodedFile:
    """A file that FFmpeg decodes, read by sample position; close it, or use it in a ``with``.

    Args:
        path: of the file.
        known: from `measure`.
        pieces: of the file, where it is not read as it is.
    """

    def __init__(
        self,
        path: Path | str | bytes,
        known: Known,
        pieces: Sequence[Piece] = (),
    ) -> None:
        self._path, self._pieces, self._exact_seeks = path, pieces, known.exact_seeks
        self.frames = known.frames
        self._stream = _Stream(path, pieces)
        self._decoded = self._stream.frames()
        self.sample_rate, self.channels = self._stream.sample_rate, self._stream.channels
        self._position = 0  # of what comes next
        self._held: np.ndarray = np.zeros((0, self.channels), np.float32)

    def read(self, first: int, count: int) -> np.ndarray:
        """``count`` frames from ``first``, float32 [count, C]; fewer where the file ends.

        Raises:
            OSError: a packet is damaged.
        """
        count = max(min(count, self.frames - first), 0)
        self._go_to(first)
        parts = [self._held]
        have = len(self._held)
        while have < count and (frame := next(self._decoded, None)) is not None:
            parts.append(frame.samples)
            have += len(frame.samples)
        samples = np.concatenate(parts)
        self._held = samples[count:]
        self._position += min(count, len(samples))
        return samples[:count]

    def _go_to(self, first: int) -> None:
        """Make ``first`` the next position: by reading on, by seeking, or from the start."""
        preroll = round(PREROLL_S * self.sample_rate)
        is_near = 0 <= first - self._position <= 4 * preroll
        if not is_near and not self._seek(first, preroll) and first < self._position:
            self._restart()
        self._skip(first - self._position)

    def _restart(self) -> None:
        self._stream.close()
        self._stream = _Stream(self._path, self._pieces)
        self._decoded = self._stream.frames()
        self._position, self._held = 0, self._held[:0]

    def _seek(self, first: int, preroll: int) -> bool:
        """Seek to before ``first``; False where that is not possible exactly."""
        if not self._exact_seeks or first <= preroll:
            return False
        self._restart()
        self._stream.seek(first - preroll)
        decoded = self._stream.frames(after_seek=True)
        frame = next(decoded, None)
        position = None if frame is None else self._stream.position(frame)
        if frame is None or position is None or not 0 <= position <= first - preroll // 2:
            self._restart()
            return False
        self._decoded, self._position, self._held = decoded, position, frame.samples
        return True

    def _skip(self, count: int) -> None:
        while count > 0:
            if not len(self._held):
                frame = next(self._decoded, None)
                if frame is None:
                    return
                self._held = frame.samples
            step = min(count, len(self._held))
            self._held = self._held[step:]
            self._position += step
            count -= step

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> "DecodedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class _Frame:
    samples: np.ndarray  # float32 [n, C]
    pts: int | None  # in the stream's time base


class _Stream:
    """The first audio stream of a file, decoded frame by frame."""

    def __init__(self, path: Path | str | bytes, pieces: Sequence[Piece]) -> None:
        import av

        self.notes: tuple[Note, ...] = ()
        self._file = SplicedFile(path, pieces) if pieces else open(path, "rb")  # noqa: SIM115
        try:
            with _translated(UnknownFormatError):
                self._container = av.open(
                    self._file,
                    mode="r",
                    options={"format_whitelist": FORMATS, "protocol_whitelist": "file"},
                    metadata_errors="replace",
                )
        except BaseException:
            self._file.close()
            raise
        try:
            self._open_stream()
        except BaseException:
            self.close()
            raise

    def _open_stream(self) -> None:
        from av.stream import Discard

        if not self._container.streams.audio:
            raise NoSoundError(NO_SOUND)
        self._audio = self._container.streams.audio[0]
        self._tick_s = self._audio.time_base or Fraction(1, 1)
        for other in self._container.streams:
            if other is not self._audio:
                other.discard = Discard.all
        # Headers may know half of it: HE-AAC's says half the rate, and mono where it is stereo.
        self.sample_rate, self.channels = 0, 0
        self._going = self._decode()
        self._first = next(self._going, None)
        if self._first is None:
            raise OSError("it holds no samples")
        self._origin, self._first_length = self._first.pts, len(self._first.samples)

    def frames(self, after_seek: bool = False) -> Iterator[_Frame]:
        """Decoded frames from the current position on; to be asked for once per position.

        Raises:
            OSError: a packet is damaged (one at either end is left out, and said), or rate or
                channels change on the way.
        """
        if after_seek:
            yield from self._decode(after_seek=True)
        elif self._first is not None:
            yield self._first
            yield from self._going

    def seek(self, position: int) -> None:
        """Go to a frame that begins at or before a sample position."""
        assert self._origin is not None
        ticks = self._origin + int(position / (self.sample_rate * self._tick_s))
        with _translated():
            self._container.seek(ticks, stream=self._audio)

    def position(self, frame: _Frame) -> int | None:
        """Which sample a frame begins with, by its time stamp.

        A time stamp of a millisecond is too coarse alone, but frames of one size begin on a grid.
        """
        if frame.pts is None or self._origin is None:
            return None
        if frame.pts == self._origin:
            return 0
        near = float((frame.pts - self._origin) * self._tick_s) * self.sample_rate
        grid = len(frame.samples)
        return self._first_length + round((near - self._first_length) / grid) * grid

    def told_frames(self) -> int | None:
        """The length in samples that the container tells, where it tells one to the sample."""
        duration = self._audio.duration
        if duration is None or "mp4" not in self._container.format.name:
            return None
        frames = duration * self._tick_s * self.sample_rate
        return int(frames) if frames.denominator == 1 else None

    def close(self) -> None:
        self._container.close()
        self._file.close()

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decode(self, after_seek: bool = False) -> Iterator[_Frame]:
        import av

        done, damage = 0, ""
        packets = self._container.demux(self._audio)
        while (packet := _next_packet(packets)) is not None:
            try:
                decoded = packet.decode()
            except av.FFmpegError as error:
                damage = damage or _reason(error)
                continue
            for frame in cast(list[av.AudioFrame], decoded):
                if damage and done:
                    at_s = done / self.sample_rate
                    raise OSError(f"{at_s:.1f} s after where reading began it is damaged: {damage}")
                if damage and not after_seek:
                    self.notes = note("begins_damaged", reason=damage)
                damage = ""
                samples = self._samples(frame)
                done += len(samples)
                yield _Frame(samples, frame.pts)
        if damage and done:
            self.notes = note("ends_damaged", reason=damage)
        elif damage:
            raise OSError(damage)

    def _samples(self, frame: "av.AudioFrame") -> np.ndarray:
        """float32 [n, C], full scale at 1."""
        array: Any = frame.to_ndarray()  # [C, n], or [1, n C] where channels are interleaved
        channels = frame.layout.nb_channels
        if not self.sample_rate:
            self.sample_rate, self.channels = frame.sample_rate, channels
        if (frame.sample_rate, channels) != (self.sample_rate, self.channels):
            raise OSError(
                f"it changes from {self.sample_rate} Hz, {self.channels} channels to "
                f"{frame.sample_rate} Hz, {channels} channels"
            )
        array = array.T if frame.format.is_planar else array.reshape(-1, channels)
        if array.dtype == np.uint8:
            return (array.astype(np.float32) - 128) / 128
        if np.issubdtype(array.dtype, np.integer):
            return (array / -float(np.iinfo(array.dtype).min)).astype(np.float32)
        return np.ascontiguousarray(array, dtype=np.float32)


def _next_packet(packets: "Iterator[av.Packet]") -> "av.Packet | None":
    with _translated():
        return next(packets, None)


@contextmanager
def _translated(kind: type[OSError] = OSError) -> Iterator[None]:
    """FFmpeg's errors as an `OSError` that says what FFmpeg says."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise kind(_reason(error)) from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
