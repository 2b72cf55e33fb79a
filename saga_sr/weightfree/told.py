"""What the LR latent tells before anything is generated: a frame without parameters.

    told    patches that lie wholly below the passband's end are the LR latent's own: no noise, no
            velocity, no loss; attention reads them
    scale   everywhere else noise and data are measured against what is heard at the same moment
            in the octave below the passband's end

The bands' fixed scales are in the MDCT latent already (``band_std``), so the scale says: above the
cutoff the spectrum goes on as spectra do on average. What it is really like is the transformer's
to find out, and with tokens in time and frequency it does (docs/demo_model/README.md).

Shapes: B items, C channels, H bins (D = C x H latent channels), L frames; N tokens of P numbers.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from saga_sr.weightfree.patches import PatchGrid

LEVEL_FRAMES = 9  # 0.1 s with a hop of 512
LIMIT = 10.0  # scales: more is told apart no longer
_MAGNITUDE_FLOOR = 0.02  # of the window's level


@dataclass(frozen=True)
class Told:
    """What is known of B windows.

    Attributes:
        told: [B, D, 1], 1 in told patches and 0 elsewhere.
        scale: [B, D, L], of noise and data.
        heard: [B, N, F], what the network hears of each patch besides its noisy data.
    """

    told: Tensor
    scale: Tensor
    heard: Tensor


def listen(
    grid: PatchGrid, lr_latent: Tensor, passband_hz: Tensor, sample_rate: int, floor: float
) -> Told:
    """Listen to LR latents.

    Args:
        grid: how latents are cut.
        lr_latent: [B, D, L].
        passband_hz: [B], up to where the LR audio is the truth.
        sample_rate: in Hz.
        floor: least scale, in units of the latent.

    Every patch hears: its LR latent over the scale; the logarithm of its magnitudes and of the
    scale, both relative to the whole window's level, since the scale alone would hide how loudness
    changes in time; and how much of it lies in the passband.
    """
    length = lr_latent.shape[-1]
    bands = lr_latent.unflatten(1, (grid.channels, grid.num_bins))
    bin_hz = sample_rate / 2 / grid.num_bins
    centre_hz = (torch.arange(grid.num_bins, device=lr_latent.device) + 0.5) * bin_hz
    below = centre_hz < passband_hz[:, None]
    octave = (below & (centre_hz >= passband_hz[:, None] / 2)).to(lr_latent)  # [B, H]
    power = torch.einsum("bh,bchl->bcl", octave, bands.square())
    power = power / octave.sum(dim=1).clamp(min=1)[:, None, None]
    reach = LEVEL_FRAMES // 2
    power = F.avg_pool1d(power, LEVEL_FRAMES, 1, reach, count_include_pad=False)
    level = (power + floor**2).sqrt()  # [B, C, L]
    scale = level.repeat_interleave(grid.num_bins, dim=1)
    window = bands.square().mean(dim=(1, 2, 3)).sqrt()[:, None, None] + floor
    magnitude = (lr_latent.abs() / window + _MAGNITUDE_FLOOR).log() / 2 + 1
    share = grid.known_share(passband_hz, sample_rate)  # [B, R]
    loudness = (level / window).log() / 2
    loudness = loudness.unflatten(2, (-1, grid.frames)).transpose(1, 2).flatten(2)  # [B, K, C f]
    heard = [
        grid.to_tokens(LIMIT * (lr_latent / scale / LIMIT).tanh()),
        grid.to_tokens(magnitude),
        loudness.repeat_interleave(grid.rows, dim=1),
        grid.row_values(share[..., None], length // grid.frames),
    ]
    told = (share == 1).to(lr_latent).repeat_interleave(grid.bins, dim=1)
    return Told(told.repeat(1, grid.channels)[..., None], scale, torch.cat(heard, dim=-1))
