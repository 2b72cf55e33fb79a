"""Partials: the fine structure of a spectrum, and how it goes on above where it ends.

The spectrum of a tone repeats itself along frequency: what stands s Hz apart, for s a multiple of
the fundamental, is alike. So the lag at which the heard spectrum is most like itself tells how to
go on: repeat it at that lag, patch after patch. Copying by any other distance puts partials where
none are (on held-out music the pattern so found correlates with the truth by 0.3, at a fixed
distance by 0.02).

        heard                    continued
    |.|.|.|.|.|.|.|.|    !.|.|.|.|.|.!.|.|.|.|.|
              <--s-->     copy 1       copy 2

Only the pattern is continued: log power less its own mean over half a kilohertz. How loud the new
band is, and how certain the pattern, is for others to say (`saga_sr.weightfree.prior`).

Shapes: R rows (channels of items), H bins, L frames, N coarse frames.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_AVERAGED_S = 0.2
_ENVELOPE_HZ = 560.0
_MAX_CONTRAST = 2.0  # nats
_LOWEST_BIN = 6
_LAGS = (0.3, 0.75)  # shares of the heard band
_MIN_LAG = 4
_LEAST_LIKENESS = 0.5  # what noise reaches, at the best of many lags


def continue_partials(power: Tensor, num_heard: Tensor, frame_s: float, bin_hz: float) -> Tensor:
    """How the pattern of a spectrum goes on where nothing is heard.

    Args:
        power: [R, H, L], power of the heard spectrum relative to its level.
        num_heard: [R], bins that are heard, from the lowest on.
        frame_s: seconds from frame to frame.
        bin_hz: Hz from bin to bin.

    Returns:
        [R, H, L], natural logarithm of amplitude around its local mean, weighted by how sure it is;
        0 where the spectrum is heard and where it does not repeat itself.
    """
    bins = torch.arange(power.shape[1], device=power.device)
    heard = (bins >= _LOWEST_BIN) & (bins < num_heard[:, None])
    pattern = _pattern(power, heard[..., None].to(power), frame_s, bin_hz)
    lag, likeness = _best_lag(pattern, num_heard)
    sureness = ((likeness - _LEAST_LIKENESS) / (1 - _LEAST_LIKENESS)).clamp(0, 1)
    continued = _repeated_upwards(pattern, num_heard, lag) * sureness[:, None]
    return F.interpolate(continued, size=power.shape[-1], mode="linear", align_corners=False)


def local_mean(values: Tensor, bin_hz: float) -> Tensor:
    """[R, H, N] averaged along bins over half a kilohertz."""
    width = 2 * round(_ENVELOPE_HZ / 2 / bin_hz) + 1
    rows = values.mT.flatten(0, 1)[:, None]  # [R N, 1, H]
    means = F.avg_pool1d(rows, width, 1, width // 2, count_include_pad=False)
    return means.squeeze(1).unflatten(0, (values.shape[0], -1)).mT


def _pattern(power: Tensor, heard: Tensor, frame_s: float, bin_hz: float) -> Tensor:
    """[R, H, N]: log amplitude of power averaged over 0.2 s, less its envelope; 0 where ``heard``
    [R, H, 1] is 0."""
    width = 2 * round(_AVERAGED_S / 2 / frame_s) + 1
    coarse = F.avg_pool1d(power, width, max(width // 2, 1), width // 2, count_include_pad=False)
    coarse = coarse + 1e-8
    envelope = local_mean(coarse * heard, bin_hz) / local_mean(heard, bin_hz).clamp(min=1e-6)
    pattern = 0.5 * (coarse / envelope.clamp(min=1e-8)).log()
    return pattern.clamp(-_MAX_CONTRAST, _MAX_CONTRAST) * heard


def _best_lag(pattern: Tensor, num_heard: Tensor) -> tuple[Tensor, Tensor]:
    """The lag in bins at which a pattern [R, H, N] repeats itself, and its likeness, [R, N] each.

    The likeness is the correlation of the part above the lag with the part below the end less it.
    """
    num_bins = pattern.shape[1]
    lags = torch.arange(num_bins, device=pattern.device)
    spectrum = torch.fft.rfft(pattern, n=2 * num_bins, dim=1)
    products = torch.fft.irfft(spectrum.abs().square(), n=2 * num_bins, dim=1)[:, :num_bins]
    energy = F.pad(pattern.square().cumsum(dim=1), (0, 0, 1, 0))  # [R, H + 1, N], below a bin
    lower_end = (num_heard[:, None] - lags).clamp(0, num_bins)
    lower = energy.gather(1, lower_end[..., None].expand_as(products))
    upper = energy[:, -1:] - energy[:, (lags + _LOWEST_BIN).clamp(max=num_bins)]
    likeness = products / (lower * upper).clamp(min=1e-6).sqrt()
    shortest = (_LAGS[0] * num_heard).clamp(min=_MIN_LAG)[:, None]
    allowed = (lags >= shortest) & (lags <= _LAGS[1] * num_heard[:, None])
    best = likeness.masked_fill(~allowed[..., None], -1.0).max(dim=1)
    return best.indices.clamp(min=_MIN_LAG), best.values


def _repeated_upwards(pattern: Tensor, num_heard: Tensor, lag: Tensor) -> Tensor:
    """[R, H, N] with the bins from ``num_heard`` on filled by copies from ``lag`` bins below."""
    bins = torch.arange(pattern.shape[1], device=pattern.device)
    beyond = bins - num_heard[:, None] + 1  # [R, H]
    copies = -(-beyond[..., None].clamp(min=0) // lag[:, None])  # [R, H, N]
    source = (bins[:, None] - copies * lag[:, None]).clamp(min=0)
    return pattern.gather(1, source) * (copies > 0)
