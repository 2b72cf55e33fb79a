"""How far a restored clip is from the truth, measured so that other people can compare.

Published LSD figures differ because everybody measures another thing: another window, floor,
mix-down and band. Here each definition has a name (`LSD_DEFINITIONS`). Our own, "saga",
weighs both directions alike, asks nothing where the truth is silent (`level_in_silence_db` says
what is heard there) and does not notice 16-bit rounding.

LSD likes a blurred constant better than an independent draw from the truth's own distribution, so
it never stands alone: `high_band_error_db` asks when and where energy appears above the cutoff,
`seam_step_db` whether the joint can be heard, `si_sdr` whether the kept band was kept, and
`frechet_distance` compares whole sets. `spectrum_end_hz` says up to where a truth may be measured
at all: many sources are lossy and hold nothing above 16 kHz. docs/metrics.md shows each pitfall.

Shapes: `est` (estimate) and `ref` (truth) are [B, C, T] in [-1, 1] of one rate; results are [B].
Everything is computed in float32, autocast or not, or in float64 when both inputs are float64. A
band limit is one number or a tensor [B] in Hz. 0 dBFS is a mean square of 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise
from math import log2
from typing import Concatenate, ParamSpec

import numpy as np
import torch
from torch import Tensor

from saga_sr.support.errors import UserError

P = ParamSpec("P")
Metric = Callable[Concatenate[Tensor, Tensor, P], Tensor]
Hertz = float | Tensor
N_FFT = 2048
HOP = 512
BAND_FLOOR_DBFS = -105.0  # about 16-bit rounding noise in the top third octave: nobody's signal
SI_SDR_LIMIT_DB = 120.0  # beyond float32's own rounding
TEXTURE_N_FFT, TEXTURE_HOP = 1024, 256
TEXTURE_QUANTILES = 64
TEXTURE_BLOCK = 16  # frames, 93 ms: what alternates between the halves of a truth
_TEXTURE_FLOOR = 5e-7  # of |STFT|^2; that of LSD "saga" at this window
SEAM_OCTAVES = 1 / 6  # width of the bands on the two sides of the cutoff
MRSTFT_RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))  # n_fft, hop, window
MRSTFT_POWER_FLOOR = 1e-8
LOSS_TIMES = (0.125, 0.375, 0.625, 0.875)  # of the flow, where its losses and errors are measured
MIDDLE_TIMES = (0.375, 0.625)  # of them; noise and data tell both little at the ends
LEAST_BAND = 2 ** (1 / 3)  # a truth must reach a third octave beyond the cutoff
_WINDOW_POWER = 3 / 8 * N_FFT  # sum of the squared Hann window
_BIN_TOLERANCE = 1e-3  # of a bin; float32 places a frequency within 1e-4 of one


def _paired(metric: Metric[P]) -> Metric[P]:
    """Give a metric two tensors of one shape in full precision, whatever autocast says; of an item
    that is not finite all metrics are NaN."""

    @wraps(metric)
    def checked(est: Tensor, ref: Tensor, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        if est.shape != ref.shape or est.dim() != 3:
            raise ValueError(
                "estimate and truth must both be [batch, channels, samples] of one shape, not "
                f"{list(est.shape)} and {list(ref.shape)}"
            )
        both_double = est.dtype == ref.dtype == torch.float64
        dtype = torch.float64 if both_double else torch.float32
        with torch.autocast(est.device.type, enabled=False):
            value = metric(est.to(dtype), ref.to(dtype), *args, **kwargs)
        finite = (est.isfinite() & ref.isfinite()).all(dim=(1, 2))
        return value.masked_fill(~finite, torch.nan)

    return checked


def _power(audio: Tensor, n_fft: int, hop: int, pad_mode: str = "constant") -> Tensor:
    """|STFT|^2 with a centred Hann window, unnormalised: [B, C, T] -> [B, C, F, N]."""
    window = torch.hann_window(n_fft, dtype=audio.dtype, device=audio.device)
    flat = audio.reshape(-1, audio.shape[-1])
    spectrum = torch.stft(flat, n_fft, hop, window=window, pad_mode=pad_mode, return_complex=True)
    return spectrum.abs().square().unflatten(0, audio.shape[:-1])


def _per_item(hertz: Hertz, batch: int, like: Tensor) -> Tensor:
    """One number or a tensor [B] as a tensor [B]."""
    return torch.as_tensor(hertz, dtype=like.dtype, device=like.device).expand(batch)


def _bins(num_bins: int, sample_rate: int, hertz: Tensor) -> tuple[Tensor, Tensor]:
    """Bin numbers [F], and frequencies as fractional bins; a limit on a bin lies just below it.

    Frequencies that are bins by themselves (`spectrum_end_hz`) must not fall on either side by the
    rounding of float32.
    """
    number = torch.arange(num_bins, dtype=hertz.dtype, device=hertz.device)
    return number, hertz * (2 * (num_bins - 1) / sample_rate) - _BIN_TOLERANCE


def _band_mask(
    power: Tensor, sample_rate: int, low_hz: Hertz | None, high_hz: Hertz | None
) -> Tensor:
    """[B, F]: which bins lie in [low_hz, high_hz], both ends included.

    Raises:
        ValueError: a band holds no bin.
    """
    num_bins, batch = power.shape[-2], power.shape[0]
    low = _per_item(0.0 if low_hz is None else low_hz, batch, power)
    high = _per_item(sample_rate / 2 if high_hz is None else high_hz, batch, power)
    number, first = _bins(num_bins, sample_rate, low)
    _, last = _bins(num_bins, sample_rate, high)
    mask = (number >= first[:, None]) & (number <= last[:, None] + 2 * _BIN_TOLERANCE)
    if not mask.any(dim=1).all():
        item = int((~mask.any(dim=1)).nonzero()[0])
        raise ValueError(
            f"item {item}: no frequency bin lies between {low[item]:g} and {high[item]:g} Hz"
        )
    return mask


# ---------------------------------------------------------------------------------------------
# Log-spectral distance
@dataclass(frozen=True)
class LsdDefinition:
    """One published way to compute LSD = mean over frames of sqrt(mean over bins of d^2).

    Attributes:
        source: who uses it.
        n_fft, hop: samples at 44.1 kHz.
        floor: added to or clamped onto the power |STFT|^2, see ``symmetric``.
        symmetric: d = difference of log10 max(power, floor). If false, ssr_eval's
            d = log10(ref^2 / (est + floor)^2 + floor) on magnitudes.
        mono: channels are mixed down first; otherwise each channel is a clip of its own.
        pad_mode: what the centred STFT puts outside the clip.
        counts_silence: frames where the truth does not reach the floor anywhere in the band count;
            otherwise they do not, padding changes nothing, and no hiss in them is a reward.
        scales_with_rate: window and hop keep their duration at other rates, as in ssr_eval.
    """

    source: str
    n_fft: int = N_FFT
    hop: int = HOP
    floor: float = 1e-8
    symmetric: bool = True
    mono: bool = True
    pad_mode: str = "reflect"
    counts_silence: bool = True
    scales_with_rate: bool = False

    def stft_size(self, sample_rate: int) -> tuple[int, int]:
        """(n_fft, hop) in samples at ``sample_rate``."""
        if self.scales_with_rate:
            return int(self.n_fft / (44100 / sample_rate)), int(sample_rate / 100)
        return self.n_fft, self.hop

    def squared_distance(self, est_power: Tensor, ref_power: Tensor) -> Tensor:
        """d^2 of each bin, in squared decades of power."""
        if self.symmetric:
            est_log = est_power.clamp(min=self.floor).log10()
            return (est_log - ref_power.clamp(min=self.floor).log10()).square()
        ratio = ref_power / (est_power.sqrt() + self.floor).square()
        return (ratio + self.floor).log10().square()


LSD_DEFINITIONS: dict[str, LsdDefinition] = {
    "saga": LsdDefinition(
        "this project: channel by channel, frames where the truth is heard, floor 12 dB above "
        "16-bit rounding noise",
        floor=1e-6,
        mono=False,
        pad_mode="constant",
        counts_silence=False,
    ),
    "ssr_eval": LsdDefinition(
        "ssr_eval (NVSR, AudioSR, A2SB)",
        hop=441,
        floor=1e-12,
        symmetric=False,
        pad_mode="constant",
        scales_with_rate=True,
    ),
    "ap_bwe": LsdDefinition("AP-BWE, NU-Wave 2 and their line: 2048/512, power clamped at 1e-8"),
    "universr": LsdDefinition("UniverSR: 1024/256, power clamped at 1e-6", 1024, 256, 1e-6),
}


@_paired
def lsd(
    est: Tensor,
    ref: Tensor,
    definition: str = "saga",
    sample_rate: int = 44100,
    low_hz: Hertz | None = None,
    high_hz: Hertz | None = None,
) -> Tensor:
    """Log-spectral distance in decades of power (1.0 = 10 dB), lower is better.

    LSD-HF is ``low_hz=cutoff``, LSD-LF is ``high_hz=cutoff``; give ``high_hz=spectrum_end_hz(...)``
    where the truth ends early. Published split bins that are not the cutoff (UniverSR's 8 kHz model
    starts at bin 80 = 3750 Hz) are given in Hz.

    Args:
        est, ref: [B, C, T] in [-1, 1].
        definition: a key of `LSD_DEFINITIONS`.
        sample_rate: in Hz.
        low_hz, high_hz: the band that is measured, a number or [B]; None is the whole spectrum.

    Returns:
        [B]. "saga" is NaN where the truth is silent in the band: nothing can be said.

    Raises:
        UserError: unknown definition.
        ValueError: shapes differ, or the band holds no bin.
    """
    rule = _definition(definition)
    n_fft, hop = rule.stft_size(sample_rate)
    if rule.mono:
        est, ref = est.mean(dim=1, keepdim=True), ref.mean(dim=1, keepdim=True)
    est_power, ref_power = (_power(audio, n_fft, hop, rule.pad_mode) for audio in (est, ref))
    in_band = _band_mask(est_power, sample_rate, low_hz, high_hz)[:, None, :, None]  # [B, 1, F, 1]
    squared = rule.squared_distance(est_power, ref_power).masked_fill(~in_band, 0)
    per_frame = (squared.sum(dim=2) / in_band.sum(dim=2)).sqrt()  # [B, C, N]
    if rule.counts_silence:
        return per_frame.mean(dim=(1, 2))
    heard = ((ref_power > rule.floor) & in_band).any(dim=2)  # [B, C, N]
    return _mean_where(per_frame, heard, empty=torch.nan)


@_paired
def level_in_silence_db(
    est: Tensor,
    ref: Tensor,
    sample_rate: int = 44100,
    low_hz: Hertz | None = None,
    high_hz: Hertz | None = None,
) -> Tensor:
    """What is heard where the truth is silent: the estimate's level in the band over exactly the
    frames that LSD "saga" leaves out, in dBFS; lower is better.

    Args:
        est, ref, sample_rate, low_hz, high_hz: as in `lsd`.

    Returns:
        [B], at least `BAND_FLOOR_DBFS`; NaN where the truth is nowhere silent in the band.
    """
    rule = LSD_DEFINITIONS["saga"]
    est_power, ref_power = (_power(audio, rule.n_fft, rule.hop) for audio in (est, ref))
    in_band = _band_mask(est_power, sample_rate, low_hz, high_hz)[:, None, :, None]
    silent = ~((ref_power > rule.floor) & in_band).any(dim=2)  # [B, C, N]
    mean_square = (est_power * in_band).sum(dim=2) * (2 / (rule.n_fft * _WINDOW_POWER))
    return _level_db(_mean_where(mean_square, silent, empty=torch.nan))


def _definition(name: str) -> LsdDefinition:
    if name not in LSD_DEFINITIONS:
        raise UserError(f"LSD definition {name!r}; known: {', '.join(LSD_DEFINITIONS)}")
    return LSD_DEFINITIONS[name]


def _mean_where(values: Tensor, counted: Tensor, empty: float = 0.0) -> Tensor:
    """[B, ...] -> [B]: the mean of the counted values, ``empty`` where none counts."""
    total = (values * counted).flatten(1).sum(dim=1)
    number = counted.flatten(1).sum(dim=1)
    return torch.where(number > 0, total / number.clamp(min=1), empty)


# ---------------------------------------------------------------------------------------------
# Energy in bands
def band_edges_hz(low_hz: float, high_hz: float) -> list[float]:
    """Edges of third-octave bands from ``low_hz`` up to ``high_hz``.

    A remainder of at least a sixth of an octave at the top is a band of its own, a smaller one
    belongs to the band below it.

    Raises:
        ValueError: ``low_hz`` is not below ``high_hz``.
    """
    if not 0 < low_hz < high_hz:
        raise ValueError(f"no band lies between {low_hz:g} and {high_hz:g} Hz")
    thirds = 3 * log2(high_hz / low_hz)
    num_bands = max(1, round(thirds))
    return [low_hz * 2 ** (band / 3) for band in range(num_bands)] + [high_hz]


def _band_power(audio: Tensor, edges_hz: list[list[float]], sample_rate: int) -> Tensor:
    """Mean square of each band and frame, [B, C, T] -> [B, C, K, N].

    ``edges_hz`` holds a list of rising edges per item; an item with fewer bands than the others has
    empty ones at the end.
    """
    power = _power(audio, N_FFT, HOP)
    num_bands = max(len(edges) for edges in edges_hz) - 1
    member = power.new_zeros(len(edges_hz), num_bands, power.shape[-2])
    for item, edges in enumerate(edges_hz):
        given = torch.tensor(edges, dtype=power.dtype, device=power.device)[:, None]
        number, limits = _bins(power.shape[-2], sample_rate, given)
        member[item, : len(edges) - 1] = (number >= limits[:-1]) & (number < limits[1:])
    return torch.einsum("bkf,bcfn->bckn", member, power) * (2 / (N_FFT * _WINDOW_POWER))


def _level_db(mean_square: Tensor) -> Tensor:
    """dBFS, no lower than `BAND_FLOOR_DBFS`."""
    return 10 * mean_square.clamp(min=10 ** (BAND_FLOOR_DBFS / 10)).log10()


@_paired
def high_band_error_db(
    est: Tensor,
    ref: Tensor,
    cutoff_hz: Hertz,
    sample_rate: int = 44100,
    end_hz: Hertz | None = None,
) -> Tensor:
    """Mean absolute level difference of third-octave bands above the cutoff, frame by frame, in dB.

    This is what separates a model from shaped noise: it asks when and where energy appears. Levels
    are floored at `BAND_FLOOR_DBFS`, so that the emptiness of a low-passed clip costs what can be
    missed and not what float32 can represent; a band and frame where both are at the floor does not
    count. A low-passed clip scores about 37 dB on music, a restored one about 10.

    Args:
        est, ref: [B, C, T] in [-1, 1].
        cutoff_hz: where the bands begin, a number or [B].
        sample_rate: in Hz.
        end_hz: where they end (`spectrum_end_hz` of the truth), a number or [B]; None is Nyquist.

    Returns:
        [B]; 0 if both are silent above the cutoff.

    Raises:
        ValueError: a cutoff is not below its ``end_hz``.
    """
    edges = _third_octaves_hz(ref, cutoff_hz, sample_rate, end_hz)
    est_db, ref_db = (_level_db(_band_power(audio, edges, sample_rate)) for audio in (est, ref))
    counted = torch.maximum(est_db, ref_db) > BAND_FLOOR_DBFS
    return _mean_where((est_db - ref_db).abs(), counted)


@_paired
def seam_step_db(est: Tensor, ref: Tensor, cutoff_hz: Hertz, sample_rate: int = 44100) -> Tensor:
    """Level step across the cutoff, less the same step in the truth, in dB; 0 is a perfect joint.

    The step is the level of the sixth of an octave above the cutoff minus that of the sixth below
    it, over the whole clip. Negative: the new band starts too quiet (a hole); positive: too loud.

    Returns:
        [B], signed; 0 where the truth is silent on both sides and the estimate too.
    """
    lows = _per_item(cutoff_hz, est.shape[0], est).tolist()
    side = 2**SEAM_OCTAVES
    edges = [[hz / side, hz, hz * side] for hz in lows]
    steps = []
    for audio in (est, ref):
        level_db = _level_db(_band_power(audio, edges, sample_rate).mean(dim=(1, 3)))  # [B, 2]
        steps.append(level_db[:, 1] - level_db[:, 0])
    return steps[0] - steps[1]


# ---------------------------------------------------------------------------------------------
# Texture
@_paired
def texture_db(
    est: Tensor,
    ref: Tensor,
    cutoff_hz: Hertz,
    sample_rate: int = 44100,
    end_hz: Hertz | None = None,
) -> Tensor:
    """How differently the fine structure above the cutoff is distributed, in dB; lower is better.

    Noise, partials, grains and copies differ in how the level changes from one STFT bin to the
    next, in time and in frequency. For each third octave the distributions of these two changes
    are compared (Wasserstein-1 distance in dB, at 64 quantiles); the result is their mean. It asks
    what the band is made of, not when: another draw of the truth's own process scores the floor
    (`texture_floor_db`), a blur does not, and loudness does not matter.

    Args:
        est, ref, cutoff_hz, sample_rate, end_hz: as in `high_band_error_db`.

    Returns:
        [B]; NaN for clips shorter than 4 frames (17 ms).
    """
    edges = _third_octaves_hz(ref, cutoff_hz, sample_rate, end_hz)
    ours, theirs = (_changes_db(audio, edges, sample_rate) for audio in (est, ref))
    return _texture_distance(ours, theirs)


def texture_floor_db(
    ref: Tensor, cutoff_hz: Hertz, sample_rate: int = 44100, end_hz: Hertz | None = None
) -> Tensor:
    """`texture_db` between two halves of the truth, blocks of 93 ms taken in turns: what is
    nothing. [B]; NaN for clips shorter than two blocks."""
    edges = _third_octaves_hz(ref, cutoff_hz, sample_rate, end_hz)
    return _texture_distance(*(_changes_db(ref, edges, sample_rate, half) for half in (0, 1)))


def _third_octaves_hz(
    ref: Tensor, cutoff_hz: Hertz, sample_rate: int, end_hz: Hertz | None
) -> list[list[float]]:
    """Rising edges of the bands of each item."""
    lows = _per_item(cutoff_hz, len(ref), ref).tolist()
    ends = _per_item(sample_rate / 2 if end_hz is None else end_hz, len(ref), ref).tolist()
    return [band_edges_hz(low, end) for low, end in zip(lows, ends, strict=True)]


def _changes_db(
    audio: Tensor, edges_hz: list[list[float]], sample_rate: int, half: int | None = None
) -> list[Tensor]:
    """Quantiles of the level's changes in time and in frequency, [K, 2, Q] for each item."""
    power = _power(audio, TEXTURE_N_FFT, TEXTURE_HOP)
    level_db = 10 * power.clamp(min=_TEXTURE_FLOOR).log10()  # [B, C, F, N]
    found = []
    for one, edges in zip(level_db, edges_hz, strict=True):
        number, limits = _bins(one.shape[-2], sample_rate, one.new_tensor(edges))
        bands = [one[:, (number >= low) & (number < high)] for low, high in pairwise(limits)]
        # two frames apart: neighbours share three quarters of their samples
        changes = [(band[..., 2:] - band[..., :-2], band[:, 1:] - band[:, :-1]) for band in bands]
        quantiles = [_quantiles(_part(change, half)) for pair in changes for change in pair]
        found.append(torch.stack(quantiles).unflatten(0, (-1, 2)))
    return found


def _part(changes: Tensor, half: int | None) -> Tensor:
    """All frames, or every other block of them."""
    if half is None:
        return changes
    block = torch.arange(changes.shape[-1], device=changes.device) // TEXTURE_BLOCK
    return changes[..., block % 2 == half]


def _quantiles(values: Tensor) -> Tensor:
    """[...] -> [Q], NaN of nothing."""
    if values.numel() == 0:
        return values.new_full((TEXTURE_QUANTILES,), torch.nan)
    place = (torch.arange(TEXTURE_QUANTILES, device=values.device) + 0.5) / TEXTURE_QUANTILES
    return values.flatten().sort().values[(place * values.numel()).long()]


def _texture_distance(ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
    return torch.stack([(a - b).abs().mean() for a, b in zip(ours, theirs, strict=True)])


# ---------------------------------------------------------------------------------------------
# Waveform and multi-resolution distances
@_paired
def si_sdr(
    est: Tensor,
    ref: Tensor,
    sample_rate: int = 44100,
    low_hz: float | None = None,
    high_hz: float | None = None,
    zero_mean: bool = False,
) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB, of a band if limits are given.

    10 log10(|a ref|^2 / |a ref - est|^2) with a = <est, ref> / |ref|^2 over all channels at once
    (one gain for the whole clip). The mean is kept unless ``zero_mean``. Band limits cut the clip's
    spectrum at whole bins, so ``high_hz=cutoff`` is the low-band SI-SDR: how well the input was
    kept. Full band it mostly measures how little was added, and the silent low-pass wins.

    Returns:
        [B] within +-`SI_SDR_LIMIT_DB`; NaN where the truth is silent, since nothing can be said.
    """
    if zero_mean:
        est, ref = est - est.mean(dim=-1, keepdim=True), ref - ref.mean(dim=-1, keepdim=True)
    if low_hz is not None or high_hz is not None:
        est, ref = (_keep_band(audio, sample_rate, low_hz, high_hz) for audio in (est, ref))
    est, ref = est.flatten(1), ref.flatten(1)
    ref_energy = ref.square().sum(dim=1)
    scaled = ref * ((est * ref).sum(dim=1) / ref_energy)[:, None]
    ratio = scaled.square().sum(dim=1) / (scaled - est).square().sum(dim=1)
    # A silent estimate is 0 / 0: it holds nothing of the truth.
    ratio = torch.where(est.square().sum(dim=1) == 0, torch.zeros_like(ratio), ratio)
    decibel = (10 * ratio.log10()).clamp(-SI_SDR_LIMIT_DB, SI_SDR_LIMIT_DB)
    return decibel.masked_fill(ref_energy == 0, float("nan"))


def _keep_band(
    audio: Tensor, sample_rate: int, low_hz: float | None, high_hz: float | None
) -> Tensor:
    """The clip's part in [low_hz, high_hz], cut with zero phase at whole bins of its spectrum."""
    spectrum = torch.fft.rfft(audio)
    keep = _band_mask(spectrum[:, 0, :, None].abs(), sample_rate, low_hz, high_hz)[:1]
    return torch.fft.irfft(spectrum * keep, n=audio.shape[-1])


@_paired
def multi_resolution_stft(est: Tensor, ref: Tensor) -> Tensor:
    """Multi-resolution STFT distance of Yamamoto et al. (Parallel WaveGAN), as auraloss has it.

    Mean over three resolutions of spectral convergence plus the mean absolute difference of natural
    log magnitudes (power clamped at 1e-8), all channels of a clip at once.

    Returns:
        [B], 0 for equal clips.
    """
    per_resolution = [
        _stft_distance(_magnitude(est, *size), _magnitude(ref, *size))
        for size in MRSTFT_RESOLUTIONS
    ]
    return torch.stack(per_resolution).mean(dim=0)


def _magnitude(audio: Tensor, n_fft: int, hop: int, window_length: int) -> Tensor:
    """[B, C, T] -> [B, C * F * N], floored."""
    window = torch.hann_window(window_length, dtype=audio.dtype, device=audio.device)
    flat = audio.reshape(-1, audio.shape[-1])
    spectrum = torch.stft(flat, n_fft, hop, window_length, window, return_complex=True)
    power = spectrum.abs().square().clamp(min=MRSTFT_POWER_FLOOR)
    return power.sqrt().reshape(audio.shape[0], -1)


def _stft_distance(est: Tensor, ref: Tensor) -> Tensor:
    convergence = (ref - est).norm(dim=1) / ref.norm(dim=1)
    return convergence + (est.log() - ref.log()).abs().mean(dim=1)


# ---------------------------------------------------------------------------------------------
# Distance of two sets of clips
OFFLINE_EMBEDDING = "band statistics (offline; not comparable with OpenL3)"
_EMBEDDING_BANDS = 16
_EMBEDDING_WINDOW_S = 0.5
_EMBEDDING_HOP_S = 0.25


def frechet_distance(est: Tensor, ref: Tensor) -> float:
    """Frechet distance of two Gaussians fitted to embeddings; lower is better.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2), in float64. It is biased by the number of frames:
    only figures over the same list of clips can be compared.

    Args:
        est, ref: embeddings [frames, dimensions]; the frames of all clips pooled.

    Raises:
        UserError: not more frames than dimensions, so that a covariance would be singular.
    """
    for name, frames in (("estimate", est), ("truth", ref)):
        if frames.shape[0] <= frames.shape[1]:
            raise UserError(
                f"Frechet distance needs more frames than dimensions: the {name} has "
                f"{frames.shape[0]} frames of {frames.shape[1]} dimensions"
            )
    est, ref = est.double(), ref.double()
    return float(gaussian_distance(est.mean(dim=0), est.T.cov(), ref.mean(dim=0), ref.T.cov()))


def gaussian_distance(
    est_mean: Tensor, est_cov: Tensor, ref_mean: Tensor, ref_cov: Tensor
) -> Tensor:
    """Frechet distance [...] of Gaussians with means [..., D] and covariances [..., D, D]."""
    root = _symmetric_root(ref_cov)
    # tr (S1 S2)^1/2 = tr (S2^1/2 S1 S2^1/2)^1/2, and the latter is symmetric
    cross = root @ est_cov @ root
    shared = torch.linalg.eigvalsh((cross + cross.mT) / 2).clamp(min=0).sqrt().sum(dim=-1)
    traces = sum(cov.diagonal(dim1=-2, dim2=-1).sum(dim=-1) for cov in (est_cov, ref_cov))
    return ((est_mean - ref_mean).square().sum(dim=-1) + traces - 2 * shared).clamp(min=0)


def _symmetric_root(matrix: Tensor) -> Tensor:
    """Square roots [..., D, D] of symmetric positive semidefinite matrices."""
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    return (vectors * values.clamp(min=0).sqrt()[..., None, :]) @ vectors.mT


def offline_embedding(audio: Tensor, sample_rate: int = 44100) -> Tensor:
    """Band statistics that need no download: `OFFLINE_EMBEDDING`. No figure of OpenL3's scale.

    Half-second windows, hop a quarter; mean and standard deviation over time of the levels, in
    units of 10 dB, of 16 bands that divide 100 Hz to 20 kHz evenly on a log scale.

    Args:
        audio: [C, T] in [-1, 1]; channels are averaged in power. A shorter clip is one window.

    Returns:
        [frames, 32].
    """
    edges = np.geomspace(100.0, min(20000.0, sample_rate / 2), _EMBEDDING_BANDS + 1).tolist()
    power = _band_power(audio[None].float(), [edges], sample_rate)[0].mean(dim=0)  # [16, N]
    level = _level_db(power) / 10
    size, hop = (round(s * sample_rate / HOP) for s in (_EMBEDDING_WINDOW_S, _EMBEDDING_HOP_S))
    windows = level.unfold(1, min(size, level.shape[1]), hop)  # [16, frames, size]
    return torch.cat([windows.mean(dim=2), windows.std(dim=2, unbiased=False)]).T
