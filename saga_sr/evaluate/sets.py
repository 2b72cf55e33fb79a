"""Whether a set of restored clips is distributed like the set of truths.

An `Embedding` makes points of a clip's frames; two distances compare the points of two sets:

- FD, the Frechet distance of two Gaussians. It needs more frames than dimensions, and with few it
  is biased: two sets of one distribution are apart.
- KD, the kernel distance: the squared maximum mean discrepancy with a Gaussian kernel whose
  width is the median distance of two truths, times 100, as in KAD (arXiv 2502.15602). Clips stand
  for themselves by the mean over their frames, and no two clips of one file are ever compared, so
  it is unbiased however few they are: 0 is expected of equal distributions, and chance may bring
  it below. An output equal to its truth scores 0 exactly.

Both are functions of how often each clip counts (`saga_sr.evaluate.intervals`).
"""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import soxr
import torch
from torch import Tensor

from saga_sr import metrics
from saga_sr.support.extras import optional

Frames = Sequence[Tensor]  # of each clip, [frames, dimensions]
Distance = Callable[[Frames, Frames, Sequence[str], np.ndarray], np.ndarray]
KD_SCALE = 100.0
MOST_RESAMPLED = 64  # dimensions; beyond, a Frechet distance has no interval: it would take hours


# ---------------------------------------------------------------------------------------------
# Distances
def frechet(est: Frames, ref: Frames, files: Sequence[str], counts: np.ndarray) -> np.ndarray:
    """`saga_sr.metrics.frechet_distance` of the frames of all clips.

    Args:
        est, ref: frames of the same clips in the same order.
        files: of each clip.
        counts: [draws, clips], how often each clip counts; the first draw is the sample itself.

    Returns:
        [draws]; all NaN where the sample has too few frames, all but the first NaN where there are
        more than `MOST_RESAMPLED` dimensions.
    """
    distances = np.full(len(counts), np.nan)
    dimensions = ref[0].shape[1]
    if min(sum(len(clip) for clip in side) for side in (est, ref)) <= dimensions:
        return distances
    used = counts if dimensions <= MOST_RESAMPLED else counts[:1]
    ours, theirs = (_gaussians(side, torch.from_numpy(used)) for side in (est, ref))
    found = metrics.gaussian_distance(*ours, *theirs)
    distances[: len(used)] = found.numpy()
    return distances


def _gaussians(clips: Frames, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Means [draws, D] and covariances [draws, D, D] of the frames of clips that count so often."""
    origin = torch.cat(list(clips)).double().mean(dim=0)
    moved = [clip.double() - origin for clip in clips]  # sums of squares lose no digits
    number = counts @ torch.tensor([float(len(clip)) for clip in moved], dtype=torch.float64)
    mean = counts @ torch.stack([clip.sum(dim=0) for clip in moved]) / number[:, None]
    squares = torch.stack([clip.T @ clip for clip in moved])
    second = torch.einsum("rn,nij->rij", counts, squares)
    centred = second - number[:, None, None] * mean[:, :, None] * mean[:, None, :]
    return mean + origin, centred / (number - 1)[:, None, None]


def kernel(est: Frames, ref: Frames, files: Sequence[str], counts: np.ndarray) -> np.ndarray:
    """The kernel distance, times `KD_SCALE`; arguments as of `frechet`.

    Returns:
        [draws]; NaN where fewer than two files count.
    """
    apart = np.not_equal.outer(np.asarray(files), np.asarray(files)).astype(float)
    ours, theirs = (torch.cat(list(side)).double() for side in (est, ref))
    means = [_means_over(side) for side in (est, ref)]  # [clips, frames], rows sum to 1
    between = torch.from_numpy(apart)[_clip_of(ref)][:, _clip_of(ref)].bool()
    if not between.any():
        return np.full(len(counts), np.nan)
    width = torch.cdist(theirs, theirs)[between].median().clamp(min=1e-12)

    def of_clips(first: int, second: int) -> np.ndarray:
        points = (ours, theirs)
        distance = torch.cdist(points[first], points[second]) / width
        return (means[first] @ (-distance.square() / 2).exp() @ means[second].T).numpy()

    crossed = of_clips(0, 1)
    compared = (of_clips(0, 0) + of_clips(1, 1) - crossed - crossed.T) * apart
    weight = ((counts @ apart) * counts).sum(axis=1)
    total = ((counts @ compared) * counts).sum(axis=1)
    return KD_SCALE * np.divide(total, weight, out=np.full(len(counts), np.nan), where=weight > 0)


def _clip_of(clips: Frames) -> Tensor:
    """The number of the clip of each frame."""
    return torch.arange(len(clips)).repeat_interleave(torch.tensor([len(clip) for clip in clips]))


def _means_over(clips: Frames) -> Tensor:
    """[clips, frames]: the matrix that takes means over each clip's frames."""
    member = torch.nn.functional.one_hot(_clip_of(clips), len(clips)).double().T
    return member / member.sum(dim=1, keepdim=True)


DISTANCES: dict[str, Distance] = {"FD": frechet, "KD": kernel}


# ---------------------------------------------------------------------------------------------
# Embeddings
class Embedding(Protocol):
    """Frames of a clip as points in a space where sets of clips are compared.

    Attributes:
        name: in tables, after that of a distance.
        distances: keys of `DISTANCES`.
    """

    name: str
    distances: Sequence[str]

    def __call__(self, audio: Tensor, sample_rate: int) -> Tensor:
        """[C, T] -> [frames, dimensions]."""
        ...


class OfflineEmbedding:
    """Band statistics; needs nothing and compares with nothing but itself."""

    name = "offline"
    distances: Sequence[str] = ("FD", "KD")

    def __call__(self, audio: Tensor, sample_rate: int) -> Tensor:
        return metrics.offline_embedding(audio, sample_rate)


class OpenL3:
    """OpenL3 in stable-audio-metrics' convention: what published OpenL3 FDs mostly mean.

    mel256, 512 dimensions a channel, left and right concatenated (a mono clip twice), peak
    normalised to -1 dBFS, windows of 1 s, hop 0.5 s; the frames of all clips are pooled.

    Args:
        content: ``music`` or ``env``, the audio the network was trained on.

    Raises:
        UserError: the package is not installed.
    """

    distances: Sequence[str] = ("FD",)

    def __init__(self, content: str) -> None:
        self.name = f"OpenL3 {content}"
        self._package = optional("openl3", "--openl3", "pip install openl3 (needs TensorFlow)")
        self._model = self._package.models.load_audio_embedding_model(
            input_repr="mel256", content_type=content, embedding_size=512
        )

    def __call__(self, audio: Tensor, sample_rate: int) -> Tensor:
        peak = audio.abs().max().clamp(min=1e-9)
        normalised = (audio * (10 ** (-1 / 20) / peak)).numpy()
        channels = [normalised[0], normalised[min(1, len(normalised) - 1)]]
        embedded = [
            self._package.get_audio_embedding(
                channel, sample_rate, model=self._model, hop_size=0.5, verbose=False
            )[0]
            for channel in channels
        ]
        return torch.from_numpy(np.concatenate(embedded, axis=1))


class Aisfx:
    """aiSFX (Ma and Lerch, ISMIR 2022): a network trained to tell sound effects apart, 44.1 kHz.

    512 dimensions of 96 mel bands up to 22.05 kHz, windows of about 2.3 s; the package carries the
    weights (CC BY 4.0). Its spectrogram needs Essentia, so it is made here by the same rules:
    power, symmetric Hann window of 2048 / 1024, triangles on the HTK mel scale that sum to one.
    The level is kept, since the network was trained with it; channels are mixed down.

    Raises:
        UserError: the package is not installed.
    """

    name = "aisfx"
    distances: Sequence[str] = ("KD",)  # an FD of 512 dimensions would need thousands of frames
    install = "pip install --no-deps -r requirements-metrics.txt"
    _RATE, _N_FFT, _HOP, _BANDS, _FRAMES = 44100, 2048, 1024, 96, 100
    _LEAST_FRAMES = 8  # three poolings by two
    _LARGEST = 9.457798957824707  # of the spectrograms that it was trained on

    def __init__(self, device: torch.device) -> None:
        network = optional("aisfx.models.cnn2d", self.name, self.install)
        path = optional("aisfx.inference", self.name, self.install).get_path_modelWeights()
        # Beside the weights lie numbers of classes, which numpy wrote under its old name.
        scalar = np.int64(0).__reduce__()[0], "numpy.core.multiarray.scalar"
        numbers: list[Any] = [scalar, np.dtype, type(np.dtype("int64"))]
        with torch.serialization.safe_globals(numbers):
            weights, _ = torch.load(path, map_location="cpu", weights_only=True)
        prefix = "embedding_net."
        own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        self._network = network.EmbeddingNet("max", 3, 1, 64)
        self._network.load_state_dict(own)
        self._network.eval().to(device)
        self._device = device
        self._mel = mel_triangles(self._RATE, self._N_FFT, self._BANDS)
        self._window = torch.hann_window(self._N_FFT, periodic=False)

    @classmethod
    def is_installed(cls) -> bool:
        return importlib.util.find_spec(cls.name) is not None

    @torch.no_grad()
    def __call__(self, audio: Tensor, sample_rate: int) -> Tensor:
        mono = audio.mean(dim=0).float()
        if sample_rate != self._RATE:
            mono = torch.from_numpy(soxr.resample(mono.numpy(), sample_rate, self._RATE))
        power = torch.stft(
            mono, self._N_FFT, self._HOP, window=self._window, pad_mode="constant",
            return_complex=True,
        ).abs().square()  # fmt: skip
        level = (1e4 * (self._mel @ power) + 1).log10().T / self._LARGEST  # [N, 96]
        level = torch.nn.functional.pad(level, (0, 0, 0, max(0, self._LEAST_FRAMES - len(level))))
        windows = level.tensor_split(max(1, round(len(level) / self._FRAMES)))
        return torch.cat([self._network(one[None].to(self._device)).cpu() for one in windows])


def mel_triangles(sample_rate: int, n_fft: int, bands: int) -> Tensor:
    """[bands, F]: triangles straight on the HTK mel scale up to Nyquist, whose rows sum to 1."""
    hz = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    mel = 2595 * (1 + hz / 700).log10()
    edges = torch.linspace(0, float(mel[-1]), bands + 2, dtype=torch.float64)
    place = (mel - edges[1:-1, None]) / (edges[1] - edges[0])
    weight = (1 - place.abs()).clamp(min=0)
    return (weight / weight.sum(dim=1, keepdim=True)).float()
