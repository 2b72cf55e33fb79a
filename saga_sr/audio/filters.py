"""Zero-phase filtering of clips: one overlap-save for the low-pass and for the crossover.

    block k    |margin|------- kept -------|margin|
    block k+1                       |margin|------- kept -------|margin|

Whole clips in one FFT do not fit a processor's cache and take about twice the time.
"""

from math import ceil, log2

import torch
from torch import Tensor

CACHED_VALUES = 1 << 16  # filtered at once on a CPU: half the time of whole clips


def block_length(margin: int) -> int:
    """FFT length for filters that reach ``margin`` samples to either side: a fourth of a block is
    thrown away at most."""
    return max(4096, 2 ** ceil(log2(8 * max(margin, 1))))


def overlap_save(padded: Tensor, response: Tensor, length: int, margin: int) -> Tensor:
    """Multiply spectra block by block.

    Args:
        padded: [B, ..., margin + length + margin] at least, the clip with what lies around it.
        response: [B, block / 2 + 1], real: the gain of item b at the bins of a block. Its impulse
            response reaches ``margin`` samples to either side.
        length: of the clip, above 0.
        margin: in samples.

    Returns:
        [B, ..., length].
    """
    block = 2 * (response.shape[-1] - 1)
    hop = block - 2 * margin
    num_blocks = ceil(length / hop)
    missing = (num_blocks - 1) * hop + block - padded.shape[-1]
    zeros = padded.new_zeros(1).expand(*padded.shape[:-1], max(missing, 0))
    blocks = torch.cat([padded, zeros], dim=-1).unfold(-1, block, hop)
    gain = response.reshape(len(response), *([1] * (padded.dim() - 1)), -1)
    filtered = padded.new_empty(*padded.shape[:-1], length)
    step = _blocks_at_once(filtered, block)
    for begin in range(0, num_blocks, step):
        spectrum = torch.fft.rfft(blocks[..., begin : begin + step, :])  # [B, ..., n, bins]
        kept = torch.fft.irfft(spectrum.mul_(gain), n=block)[..., margin : margin + hop].flatten(-2)
        target = filtered[..., begin * hop : (begin + step) * hop]
        target.copy_(kept[..., : target.shape[-1]])
    return filtered


def _blocks_at_once(audio: Tensor, block: int) -> int:
    """Blocks per step: what fits a processor's cache, and on other devices all at once."""
    if audio.device.type != "cpu":
        return audio.shape[-1]
    return max(1, CACHED_VALUES * audio.shape[-1] // (block * audio.numel()))


def kernel_response(kernels: Tensor, block: int) -> Tensor:
    """Gains [B, block / 2 + 1] of odd, symmetric kernels [B, 2 M + 1] about their middle."""
    middle = kernels.shape[-1] // 2
    turned = kernels.new_zeros(len(kernels), block)
    turned[:, : middle + 1] = kernels[:, middle:]
    turned[:, block - middle :] = kernels[:, :middle]
    return torch.fft.rfft(turned).real


def pad_reflected(audio: Tensor, margin: int) -> Tensor:
    """[..., T] -> [..., margin + T + margin], mirrored about the first and the last sample.

    Unlike torch's reflection it goes back and forth as often as it takes, for rows of any length.
    """
    length = audio.shape[-1]
    period = max(2 * (length - 1), 1)
    beyond = torch.arange(1, margin + 1, device=audio.device)
    before, after = ((-beyond.flip(0)) % period, (length - 1 + beyond) % period)
    mirrored = [audio[..., torch.minimum(index, period - index)] for index in (before, after)]
    return torch.cat([mirrored[0], audio, mirrored[1]], dim=-1)


def pad_odd(audio: Tensor, margin: int) -> Tensor:
    """[..., T] -> [..., margin + T + margin], turned about its end points as sosfiltfilt does.

    Where the clip is shorter than the margin the outermost value is held.
    """
    turned = min(margin, audio.shape[-1] - 1)
    first, last = audio[..., :1], audio[..., -1:]
    left = 2 * first - audio[..., 1 : turned + 1].flip(-1)
    right = 2 * last - audio[..., -turned - 1 : -1].flip(-1)
    hold = margin - turned
    held_left, held_right = (
        end.expand(*audio.shape[:-1], hold) for end in (2 * first - last, 2 * last - first)
    )
    return torch.cat([held_left, left, audio, right, held_right], dim=-1)
