"""The degradation (paper: how LR audio is made): draw a low-pass filter, apply it without phase.

The paper trains on audio low-passed by a random Chebyshev, Butterworth, Bessel or elliptic filter
of order 2-10 with its cutoff in 2-16 kHz. The usual way is ``scipy.signal.sosfiltfilt``: the
recursive filter runs forward and then backward, which leaves no phase shift and the squared
response |H(f)|^2. Here that response is multiplied onto the spectrum instead. It is the same filter
(test: better than -60 dB for every family and order), a batch may hold a different filter per item,
and it runs on any torch device.

Drawing and applying are apart, so that a filter can be stored, repeated and fixed for a test set.
Filtering twice doubles each family's own droop: `Lowpass.passband_hz` says how far the low-passed
audio really equals the original.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, gcd, log
from typing import Any, Literal, get_args

import numpy as np
import torch
from scipy import signal
from torch import Tensor

from saga_sr.audio.filters import block_length, overlap_save, pad_odd
from saga_sr.support.errors import UserError

Family = Literal["cheby1", "butter", "bessel", "ellip"]
FAMILIES: tuple[Family, ...] = get_args(Family)
PASSBAND_RIPPLE_DB = 0.1  # cheby1 and ellip, as in the authors' code
STOPBAND_DB = 60.0  # ellip, as in the authors' code
PASSBAND_EDGE_DB = -0.5
RESIDUAL_RINGING = 1e-5  # what is left of the filter's ringing where the padding ends
MAX_ORDER = 10


@dataclass(frozen=True)
class Lowpass:
    """One zero-phase low-pass filter.

    Attributes:
        family: the analogue prototype.
        order: of the filter that runs forward and backward, 1 to 10.
        cutoff_hz: where one pass is at -3 dB (butter, bessel) or leaves its ripple (cheby1, ellip).
        resample: also resample down to twice the cutoff and back up, as the authors' code does.
    """

    family: Family
    order: int
    cutoff_hz: float
    resample: bool = False

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise UserError(f"low-pass family is {self.family!r}; allowed: {', '.join(FAMILIES)}")
        if not 1 <= self.order <= MAX_ORDER:
            raise UserError(f"low-pass order is {self.order}; allowed: 1 to {MAX_ORDER}")

    def gain(self, frequency_hz: np.ndarray | float, sample_rate: int) -> np.ndarray:
        """Amplitude response of the forward-backward filter, resampling included, in [0, ~1]."""
        frequency_hz = np.asarray(frequency_hz, dtype=np.float64)
        cos_w = np.cos(2 * np.pi * frequency_hz.reshape(-1) / sample_rate)
        powers = np.stack([np.ones_like(cos_w), cos_w, cos_w**2])
        coefficients = _power_coefficients([_design(self, sample_rate)])
        gain = _squared_response(coefficients, powers).reshape(frequency_hz.shape)
        return gain * _resampling_gain(frequency_hz / self.cutoff_hz) if self.resample else gain

    def passband_hz(self, sample_rate: int) -> float:
        """Where the forward-backward response falls through -0.5 dB, in Hz."""
        low_hz, high_hz = 0.0, sample_rate / 2
        for _ in range(2):  # a grid, and a finer grid in the step where it falls through
            grid_hz = np.linspace(low_hz, high_hz, 129)
            level_db = 20 * np.log10(np.maximum(self.gain(grid_hz, sample_rate), 1e-15))
            below = int(np.argmax(level_db < PASSBAND_EDGE_DB))
            low_hz, high_hz = grid_hz[below - 1], grid_hz[below]
        share = (level_db[below - 1] - PASSBAND_EDGE_DB) / (level_db[below - 1] - level_db[below])
        return float(low_hz + share * (high_hz - low_hz))


def field_lowpass(cutoff_hz: float) -> Lowpass:
    """The field's fixed test filter: Chebyshev-1 of order 8 (authors' code, paper Sec. 4)."""
    return Lowpass("cheby1", 8, cutoff_hz)


@dataclass(frozen=True)
class LowpassOptions:
    """What `draw_lowpass` draws from; the defaults are the paper's."""

    families: tuple[Family, ...] = FAMILIES
    min_order: int = 2
    max_order: int = 10
    min_cutoff_hz: float = 2000.0
    max_cutoff_hz: float = 16000.0
    max_rolloff_fraction: float = 0.94  # a cutoff above the clip's own content removes nothing
    resample: bool = False

    def __post_init__(self) -> None:
        if not self.families or not set(self.families) <= set(FAMILIES):
            raise UserError(
                f"low-pass families are {list(self.families)}; allowed: {', '.join(FAMILIES)}"
            )
        if not 1 <= self.min_order <= self.max_order <= MAX_ORDER:
            raise UserError(
                f"low-pass orders {self.min_order} to {self.max_order}; "
                f"allowed: 1 to {MAX_ORDER}, the lower one first"
            )
        if not 0 < self.min_cutoff_hz <= self.max_cutoff_hz:
            raise UserError(
                f"low-pass cutoffs {self.min_cutoff_hz:g} to {self.max_cutoff_hz:g} Hz: "
                "the lower one must be above 0 and not above the upper one"
            )


def draw_lowpass(rng: np.random.Generator, rolloff_hz: float, options: LowpassOptions) -> Lowpass:
    """A random low-pass for a clip whose own spectral roll-off is ``rolloff_hz``.

    Family, order and cutoff are uniform; cutoff = max(2000, min(draw, 0.94 x roll-off)), so that
    something is removed even from dull audio (authors' code).
    """
    family = options.families[rng.integers(len(options.families))]
    order = int(rng.integers(options.min_order, options.max_order + 1))
    drawn_hz = rng.uniform(options.min_cutoff_hz, options.max_cutoff_hz)
    cutoff_hz = max(options.min_cutoff_hz, min(drawn_hz, options.max_rolloff_fraction * rolloff_hz))
    return Lowpass(family, order, float(cutoff_hz), options.resample)


def apply_lowpass(audio: Tensor, sample_rate: int, lowpass: Lowpass | Sequence[Lowpass]) -> Tensor:
    """Low-pass audio with zero phase, all channels alike.

    Args:
        audio: [..., T], any range; float32 or float64.
        sample_rate: in Hz.
        lowpass: one filter for all, or a sequence with one filter per item of the first dimension.

    Returns:
        Audio of the same shape, type and device.

    Raises:
        UserError: a cutoff is not between 0 and half the sample rate.
    """
    if isinstance(lowpass, Lowpass):
        return apply_lowpass(audio[None], sample_rate, [lowpass])[0]
    if len(lowpass) != audio.shape[0]:
        raise ValueError(f"{len(lowpass)} low-pass filters for {audio.shape[0]} items")
    filtered = _filter_zero_phase(audio, sample_rate, lowpass)
    for item, one in enumerate(lowpass):
        if one.resample:
            filtered[item] = _resample_down_and_up(filtered[item], sample_rate, one.cutoff_hz)
    return filtered


def _filter_zero_phase(audio: Tensor, sample_rate: int, lowpass: Sequence[Lowpass]) -> Tensor:
    """[B, ..., T] -> [B, ..., T], item b by filter b."""
    length = audio.shape[-1]
    if length == 0 or audio.shape[0] == 0:
        return audio.clone()
    designs = [_design(one, sample_rate) for one in lowpass]
    margin = max(_ringing_samples(sections) for sections in designs)
    gain = _gain_on_bins(designs, block_length(margin), audio)
    return overlap_save(pad_odd(audio, margin), gain, length, margin)


def _gain_on_bins(designs: Sequence[np.ndarray], fft_length: int, like: Tensor) -> Tensor:
    """Responses [B, fft_length // 2 + 1] on the device of ``like``, computed in double precision.

    Single precision is too coarse near the poles of a steep filter; MPS has no double precision.
    """
    device = torch.device("cpu") if like.device.type == "mps" else like.device
    coefficients = torch.from_numpy(_power_coefficients(designs)).to(device)
    return _squared_response(coefficients, _cosine_powers(fft_length, device)).to(like)


@lru_cache(maxsize=8)
def _cosine_powers(fft_length: int, device: torch.device) -> Tensor:
    """1, cos(w) and cos(w)^2 at the bins of a real FFT: [3, F], double precision."""
    bins = torch.arange(fft_length // 2 + 1, dtype=torch.float64, device=device)
    cos_w = torch.cos(2 * torch.pi / fft_length * bins)
    return torch.stack([torch.ones_like(cos_w), cos_w, cos_w**2])


def _power_coefficients(designs: Sequence[np.ndarray]) -> np.ndarray:
    """|B|^2 and |A|^2 of each section as coefficients of 1, cos(w), cos(w)^2: [B, S, 2, 3].

    For real c, |c0 + c1 z^-1 + c2 z^-2|^2 on the unit circle is a quadratic in cos(w): no complex
    arithmetic is needed. Sections that a filter does not have pass everything.
    """
    longest = max(len(design) for design in designs)
    sections = np.tile([1.0, 0.0, 0.0, 1.0, 0.0, 0.0], (len(designs), longest, 1))
    for item, design in enumerate(designs):
        sections[item, : len(design)] = design
    c0, c1, c2 = np.moveaxis(sections.reshape(len(designs), longest, 2, 3), -1, 0)
    return np.stack([(c0 - c2) ** 2 + c1**2, 2 * c1 * (c0 + c2), 4 * c0 * c2], axis=-1)


def _squared_response(coefficients: Any, powers: Any) -> Any:
    """|H|^2 [B, F] from `_power_coefficients` and powers of cos(w) [3, F]; arrays or tensors."""
    response = 1.0
    for section in range(coefficients.shape[1]):
        quotient = coefficients[:, section, 0] @ powers
        quotient /= coefficients[:, section, 1] @ powers
        response = quotient * response
    return response


@lru_cache(maxsize=256)
def _design(lowpass: Lowpass, sample_rate: int) -> np.ndarray:
    """Second-order sections [ceil(order / 2), 6]."""
    if not 0 < lowpass.cutoff_hz < sample_rate / 2:
        raise UserError(
            f"low-pass cutoff is {lowpass.cutoff_hz:g} Hz; "
            f"it must be between 0 and {sample_rate / 2:g} Hz, half the sample rate"
        )
    common: dict[str, Any] = {"fs": sample_rate, "output": "sos"}
    match lowpass.family:
        case "cheby1":
            sections = signal.cheby1(lowpass.order, PASSBAND_RIPPLE_DB, lowpass.cutoff_hz, **common)
        case "ellip":
            sections = signal.ellip(
                lowpass.order, PASSBAND_RIPPLE_DB, STOPBAND_DB, lowpass.cutoff_hz, **common
            )
        case "butter":
            sections = signal.butter(lowpass.order, lowpass.cutoff_hz, **common)
        case "bessel":  # "mag": the cutoff is where the magnitude is -3 dB, as for butter
            sections = signal.bessel(lowpass.order, lowpass.cutoff_hz, norm="mag", **common)
    return sections


def _ringing_samples(sections: np.ndarray) -> int:
    """Samples until forward-backward ringing has fallen below `RESIDUAL_RINGING`."""
    radius = max(float(np.abs(np.roots(section[3:])).max()) for section in sections)
    # 1.5: two passes decay like n r^n rather than r^n
    return 1 + (ceil(1.5 * log(RESIDUAL_RINGING) / log(radius)) if radius > 0 else 0)


def _resample_down_and_up(audio: Tensor, sample_rate: int, cutoff_hz: float) -> Tensor:
    """[..., T] through twice the cutoff (to whole Hz) and back, by scipy's polyphase filter."""
    low_rate = min(round(2 * cutoff_hz), sample_rate)
    common = gcd(low_rate, sample_rate)
    up, down = low_rate // common, sample_rate // common
    samples = audio.detach().cpu().numpy()
    # "line": a clip that does not end at zero must not ring there
    narrow = signal.resample_poly(samples, up, down, axis=-1, padtype="line")
    wide = signal.resample_poly(narrow, down, up, axis=-1, padtype="line")[..., : audio.shape[-1]]
    return torch.from_numpy(np.ascontiguousarray(wide)).to(audio)


def _resampling_gain(relative_frequency: np.ndarray) -> np.ndarray:
    """Amplitude of `_resample_down_and_up` at frequency / cutoff: resample_poly's filter, twice.

    That filter is a Kaiser (5.0) windowed sinc of 10 periods to each side, so its shape depends on
    the ratio alone.
    """
    oversampling = 64
    taps = signal.firwin(20 * oversampling + 1, 1 / oversampling, window=("kaiser", 5.0))
    _, response = signal.freqz(taps, worN=np.atleast_1d(relative_frequency) * np.pi / oversampling)
    return np.abs(response.reshape(np.shape(relative_frequency))) ** 2
