"""A tiny real model of the demo family with random output layers, for tests of inference."""

from functools import lru_cache

import torch
from tiny_models import tiny_demo

from saga_sr.config import parse_model_config
from saga_sr.model import SAGASRModel
from saga_sr.support.randomness import torch_generator

HOP = 64
SEGMENT = 64 * HOP  # samples; 93 ms
RATE = 44100


@lru_cache
def tiny_model(channels: int = 1, text_model: str | None = None) -> SAGASRModel:
    """`tiny_demo` with roll-offs, or at F2 with the T5 in ``text_model``.

    A fresh DiT answers zero; here its last layers are random, so that what it is given matters.
    """
    raw = tiny_demo(
        audio_channels=channels,
        model__io_channels=HOP * channels,
        model__pretransform__config__channels=channels,
        model__diffusion__compute_rolloff=True,
        model__diffusion__config__io_channels=32 * channels,
        model__diffusion__config__input_concat_dim=68 * channels + 1,
    )
    raw["sampling"] |= {"num_steps": 4, "guidance_acoustic": 1.4, "guidance_text": 1.2}
    if text_model is not None:
        raw["model"]["diffusion"]["cross_attention_cond_ids"] = ["prompt"]
        text = raw["model"]["conditioning"]["configs"][0]["config"]
        text |= {"t5_model_name": text_model, "max_length": 8, "dim": 16}
    torch.manual_seed(0)  # stable-audio-tools draws initial weights from the ambient generator
    model = SAGASRModel(parse_model_config(raw))
    generator = torch_generator("tiny")
    with torch.no_grad():
        for parameter in model.dit.parameters():
            if not parameter.any():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.05 * noise)
    return model.eval()
