"""A tiny real model of the demo family with random output layers, for tests of inference."""

import json
from functools import lru_cache
from pathlib import Path

import torch

from saga_sr.config import parse_model_config
from saga_sr.model import SAGASRModel
from saga_sr.support.randomness import torch_generator

HOP = 64
SEGMENT = 64 * HOP  # samples; 93 ms
RATE = 44100
DEMO = Path(__file__).parents[1] / "models" / "saga-sr-demo" / "config.json"


@lru_cache
def tiny_model(channels: int = 1, text_model: str | None = None) -> SAGASRModel:
    """The shipped demo model at F2, with segments of 4096 samples and a DiT 64 wide, 2 deep.

    A fresh DiT answers zero; here its last layers are random, so that what it is given matters.
    """
    raw = json.loads(DEMO.read_text(encoding="utf-8"))
    raw["sample_size"], raw["audio_channels"] = SEGMENT, channels
    pretransform = raw["model"]["pretransform"]["config"]
    pretransform |= {
        "hop": HOP,
        "channels": channels,
        "band_hz": [0.0],
        "band_std": [0.2],
        "power": 0.6,
    }
    raw["model"]["io_channels"] = HOP * channels
    raw["model"]["conditioning"]["cond_dim"] = 64
    diffusion = raw["model"]["diffusion"]
    diffusion["compute_rolloff"] = True
    diffusion["config"] |= {
        "io_channels": HOP * channels,
        "input_concat_dim": HOP * channels,
        "embed_dim": 64,
        "depth": 2,
        "num_heads": 2,
        "cond_token_dim": 64,
        "global_cond_dim": 128,
        "prepend_cond_dim": 64,
    }
    raw["sampling"] |= {"num_steps": 4, "guidance_acoustic": 1.4, "guidance_text": 1.2}
    if text_model is not None:
        diffusion["cross_attention_cond_ids"] = ["prompt"]
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
