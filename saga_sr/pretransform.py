"""Audio to latents and back: where the flow lives (paper, section 2: x -> z).

`AutoencoderPretransform` is the adapter to stable-audio-tools' VAE, the paper's. A pretransform
that needs no weights is in `saga_sr.weightfree.mdct`; `saga_sr.families` chooses.
"""

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from saga_sr.support.precision import in_full_precision
from saga_sr.support.snake import replace_snakes
from saga_sr.support.stable_audio import quiet_import

if TYPE_CHECKING:
    from saga_sr.config import AutoencoderPretransformSection


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

    @abstractmethod
    def encode(self, audio: Tensor) -> Tensor:
        """[B, C, T] -> [B, D, T // downsampling_ratio]; deterministic."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """[B, D, L] -> [B, C, L * downsampling_ratio]; deterministic."""


class AutoencoderPretransform(Pretransform):
    """stable-audio-tools' VAE (the only place that knows it).

    `encode` returns the posterior mean over ``scale``: stable-audio-tools' own encode draws from
    the posterior with ambient noise, so that two encodings of one clip differ.

    Args:
        section: the ``pretransform`` section of a model config.
        sample_rate: in Hz.
    """

    needs_weights = True

    def __init__(self, section: "AutoencoderPretransformSection", sample_rate: int) -> None:
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
        with quiet_import():
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
