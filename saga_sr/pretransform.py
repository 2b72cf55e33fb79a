"""Audio to latents and back: where the flow lives.

Two pretransforms share one interface. `AutoencoderPretransform` is the adapter to
stable-audio-tools' VAE. `MDCTPretransform` needs no weights: a modified discrete cosine transform,
orthonormal and perfectly reconstructing, whose coefficients are companded (sign(x) |x|^p) and
scaled per band, so that the flow sees roughly unit variance in every channel.

The MDCT of a segment of L x hop samples has exactly L frames, as the model needs. It is computed as
a lapped transform: a rotation ("butterfly") across each boundary between blocks, then a DCT-IV of
each block. The first and last edge are left unrotated, which makes the whole map square and
orthonormal, edges included:

      block 0        block 1        block 2
    |..........><..........><..........|      >< : rotation over hop/2 samples on either side
    |  DCT-IV   |   DCT-IV   |  DCT-IV  |
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saga_sr.config import AutoencoderPretransformSection, MDCTConfig, ModelConfig
from saga_sr.precision import in_full_precision
from saga_sr.snake import replace_snakes
from saga_sr.stable_audio import quiet_import

LEVEL_BAND_HZ = 4000.0
LEVEL_FRAMES = 9  # 52 ms with a hop of 256


class Pretransform(nn.Module, ABC):
    """Frozen map between audio [B, C, T] in [-1, 1] and latents [B, D, L], T = L x ratio.

    Attributes:
        channels: audio channels C.
        latent_dim: latent channels D.
        downsampling_ratio: samples per latent frame.
        margin_frames: how many neighbouring latent frames on either side a decoded frame depends
            on; decoding in chunks with this margin equals decoding at once.
        needs_weights: whether it is meaningless without trained weights.
    """

    channels: int
    latent_dim: int
    downsampling_ratio: int
    margin_frames: int
    needs_weights: bool

    def level(self, lr_latent: Tensor) -> Tensor:
        """Scale of the noise and of the data at each position, from the LR latent: [B, D, L] ->
        broadcastable to it; 1 for an autoencoder, whose latents have one scale."""
        return torch.ones_like(lr_latent[:, :1])

    def content(self, end_hz: Tensor) -> Tensor:
        """Where an HR latent is a target: 1 at frequencies below the end of its clip's spectrum
        [B] (`saga_sr.metrics.spectrum_end_hz`) and 0 above, where a codec or a dull microphone has
        left nothing that a model should learn to leave out. Broadcastable to [B, D, L]; 1
        everywhere for an autoencoder, whose channels are no frequencies."""
        return torch.ones_like(end_hz)[:, None, None]

    @abstractmethod
    def encode(self, audio: Tensor) -> Tensor:
        """[B, C, T] -> [B, D, T // downsampling_ratio]; deterministic."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """[B, D, L] -> [B, C, L * downsampling_ratio]; deterministic."""


def create_pretransform(config: ModelConfig) -> Pretransform:
    """The pretransform that a model config names, frozen, in evaluation mode."""
    section = config.model.pretransform
    if isinstance(section, AutoencoderPretransformSection):
        pretransform: Pretransform = AutoencoderPretransform(section, config.sample_rate)
    else:
        pretransform = MDCTPretransform(section.config, config.sample_rate)
    return pretransform.eval().requires_grad_(False)


class MDCTPretransform(Pretransform):
    """Companded and band-scaled MDCT of every audio channel; see the module's picture.

    Args:
        config: hop, channels, companding power, band scales.
        sample_rate: places ``band_hz`` on the bins.
    """

    margin_frames = 1
    needs_weights = False
    basis: Tensor
    cosine: Tensor
    sine: Tensor
    band_std: Tensor
    bin_hz: Tensor

    def __init__(self, config: MDCTConfig, sample_rate: int) -> None:
        super().__init__()
        self.hop = self.downsampling_ratio = config.hop
        self.channels = config.channels
        self.latent_dim = config.hop * config.channels
        self.power = config.power
        self.level_floor = config.level_floor
        self.level_bins = math.ceil(LEVEL_BAND_HZ / (sample_rate / 2 / config.hop))
        n = torch.arange(config.hop, dtype=torch.float64) + 0.5
        basis = torch.cos(math.pi / config.hop * n[:, None] * n[None, :])
        angle = math.pi / 4 * (1 + n[: config.hop // 2] / (config.hop / 2))  # of the sine window
        bin_hz = n * sample_rate / 2 / config.hop
        band_std = np.interp(bin_hz.numpy(), config.band_hz, config.band_std)
        # Functions of the config, hence not part of the weights.
        self._constant("basis", basis * math.sqrt(2 / config.hop))
        self._constant("cosine", angle.sin())
        self._constant("sine", angle.cos())
        self._constant("band_std", torch.from_numpy(band_std)[:, None])
        self._constant("bin_hz", bin_hz)

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value.float(), persistent=False)

    @in_full_precision
    def encode(self, audio: Tensor) -> Tensor:
        batch, channels, length = audio.shape
        blocks = audio.reshape(batch * channels, length // self.hop, self.hop)
        spectrum = self._rotate(blocks, self.sine) @ self.basis  # [B*C, L, hop]
        spectrum = spectrum.sign() * spectrum.abs() ** self.power
        latent = spectrum.mT / self.band_std  # [B*C, hop, L]
        return latent.reshape(batch, self.latent_dim, -1)

    @in_full_precision
    def decode(self, latent: Tensor) -> Tensor:
        batch, _, frames = latent.shape
        spectrum = latent.reshape(batch * self.channels, self.hop, frames) * self.band_std
        spectrum = spectrum.sign() * spectrum.abs() ** (1 / self.power)
        blocks = self._rotate(spectrum.mT @ self.basis, -self.sine)
        return blocks.reshape(batch, self.channels, frames * self.hop)

    def content(self, end_hz: Tensor) -> Tensor:
        below = (self.bin_hz < end_hz[:, None]).float()  # [B, H]
        return below.repeat(1, self.channels)[..., None]

    def amplitude(self, latent: Tensor) -> Tensor:
        """[B, D, L] -> magnitudes of the MDCT coefficients that it stands for, [B, C, H, L]."""
        companded = latent.unflatten(1, (self.channels, self.hop)).abs() * self.band_std
        return companded ** (1 / self.power)

    def level(self, lr_latent: Tensor) -> Tensor:
        """Root mean square of each channel's LR latent below `LEVEL_BAND_HZ` over `LEVEL_FRAMES`.

        Music goes from -20 to -100 dB within a second, far more than a transformer with layer norms
        can follow. Measured against what is heard in the low band at the same moment, the high band
        is of one size nearly everywhere.
        """
        if self.level_floor is None:
            return super().level(lr_latent)
        batch, _, frames = lr_latent.shape
        bands = lr_latent.reshape(batch, self.channels, self.hop, frames)[:, :, : self.level_bins]
        power = F.avg_pool1d(
            bands.square().mean(dim=2), LEVEL_FRAMES, 1, LEVEL_FRAMES // 2, count_include_pad=False
        )  # [B, C, L]
        level = (power + self.level_floor**2).sqrt()
        return level.repeat_interleave(self.hop, dim=1)

    def _rotate(self, blocks: Tensor, sine: Tensor) -> Tensor:
        """Rotate sample pairs mirrored at each inner boundary; ``-sine`` undoes ``sine``.

        The DCT-IV continues a block evenly at its left edge and oddly at its right edge, so the
        right half of a block takes its mirror image with a minus sign, the left half with a plus.
        """
        half = self.hop // 2
        right = blocks[:, :-1, half:].flip(-1)  # ends of blocks 0..L-2, outwards from the boundary
        left = blocks[:, 1:, :half]  # starts of blocks 1..L-1, outwards from the boundary
        rotated_right = self.cosine * right - sine * left
        rotated_left = self.cosine * left + sine * right
        first, last = blocks[:, :1, :half], blocks[:, -1:, half:]
        starts = torch.cat([first, rotated_left], dim=1)
        ends = torch.cat([rotated_right.flip(-1), last], dim=1)
        return torch.cat([starts, ends], dim=-1)


class AutoencoderPretransform(Pretransform):
    """stable-audio-tools' VAE (the only place that knows it).

    `encode` returns the posterior mean over ``scale``: stable-audio-tools' own encode draws from
    the posterior with ambient noise, so that two encodings of one clip differ.

    Args:
        section: the ``pretransform`` section of a model config.
        sample_rate: in Hz.
    """

    needs_weights = True

    def __init__(self, section: AutoencoderPretransformSection, sample_rate: int) -> None:
        super().__init__()
        with quiet_import():
            from stable_audio_tools.models.autoencoders import create_autoencoder_from_config

        config = section.config
        self.channels = config.io_channels
        self.latent_dim = config.latent_dim
        self.downsampling_ratio = config.downsampling_ratio
        self.scale = section.scale
        self.iterate_batch = section.iterate_batch
        self.margin_frames = _decoder_margin(config.decoder.config.strides)
        raw: dict[str, Any] = config.model_dump(mode="json")
        self.model = create_autoencoder_from_config({"sample_rate": sample_rate, "model": raw})
        replace_snakes(self.model)

    def encode(self, audio: Tensor) -> Tensor:
        statistics = self._mapped(self.model.encoder, audio)
        mean, _scale = statistics.chunk(2, dim=1)
        return mean / self.scale

    @in_full_precision  # what is judged and heard
    def decode(self, latent: Tensor) -> Tensor:
        return self._mapped(self.model.decoder, latent * self.scale)

    def _mapped(self, network: nn.Module, batch: Tensor) -> Tensor:
        """``network(batch)``, item by item where the config asks for little memory."""
        if not self.iterate_batch:
            return network(batch)
        return torch.cat([network(item) for item in batch.split(1)])

    def fold_weight_norm(self) -> None:
        """Replace weight_g, weight_v by their product: frozen weights need no renorm per call."""
        for module in self.model.modules():
            if hasattr(module, "weight_g"):
                nn.utils.remove_weight_norm(module)
        self.requires_grad_(False)  # removing makes new parameters, which would be trained


def _decoder_margin(strides: tuple[int, ...]) -> int:
    """Latent frames on either side that a decoded sample depends on (Oobleck decoder).

    Counted from the input on: conv 7; then per block a transposed conv of kernel 2 x stride and
    three residual units (conv 7 with dilations 1, 3, 9); conv 7 at the end.
    """
    frames, samples_per_frame = 3.0, 1
    for stride in reversed(strides):
        samples_per_frame *= stride
        frames += (stride + 3 * (1 + 3 + 9)) / samples_per_frame
    frames += 3 / samples_per_frame
    return math.ceil(frames) + 1
