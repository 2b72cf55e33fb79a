"""Small real models for tests: the shipped JSONs, shrunk until a forward takes milliseconds."""

import copy
import json
from pathlib import Path
from typing import Any

import torch

from saga_sr.config import ModelConfig, parse_model_config
from saga_sr.model import SAGASRModel
from saga_sr.weights import fold_weight_norm

ROOT = Path(__file__).parent.parent
SHIPPED = ("saga_model_config.json", "saga_model_config_small.json", "saga_model_config_demo.json")


def shipped(name: str) -> dict[str, Any]:
    """The decoded JSON of a shipped config."""
    return json.loads((ROOT / name).read_text(encoding="utf-8"))


def changed(raw: dict[str, Any], **values: Any) -> dict[str, Any]:
    """A copy with other values; ``a__b`` names the key b of the section a."""
    raw = copy.deepcopy(raw)
    for path, value in values.items():
        *parents, key = path.split("__")
        node = raw
        for parent in parents:
            node = node.setdefault(parent, {})
        node[key] = value
    return raw


def tiny_demo(**values: Any) -> dict[str, Any]:
    """saga_model_config_demo.json with a DiT of 64 x 2, hop 64 without levels, tokens of 8 bins x
    4 frames, segments of 4096 samples, and a T5; the target roll-off is always told."""
    raw = changed(
        shipped("saga_model_config_demo.json"),
        sample_size=4096,
        model__pretransform__config__hop=64,
        model__pretransform__config__level_bins=None,
        model__io_channels=64,
        model__conditioning__cond_dim=64,
        model__diffusion__patch={"bins": 8, "frames": 4},
        sampling__level_temperature=1.0,
        sampling__level_gain_db=0.0,
        training__dropout__rolloff_prob=0.0,
    )
    raw["model"]["diffusion"]["config"] |= {
        "io_channels": 32, "input_concat_dim": 69, "embed_dim": 64, "depth": 2, "num_heads": 2,
        "cond_token_dim": 64, "global_cond_dim": 128, "prepend_cond_dim": 64,
    }  # fmt: skip
    raw["model"]["conditioning"]["configs"][0] = {
        "id": "prompt",
        "type": "t5",
        "config": {"t5_model_name": "t5-base", "dim": 24, "max_length": 12},
    }
    return changed(raw, **values)


def tiny_levels(**values: Any) -> dict[str, Any]:
    """`tiny_demo` with a channel of level behind every 4 bins."""
    raw = tiny_demo(model__io_channels=80, model__pretransform__config__level_bins=4)
    raw["model"]["diffusion"]["config"] |= {"io_channels": 40, "input_concat_dim": 77}
    return changed(raw, **values)


def tiny_vae(**values: Any) -> dict[str, Any]:
    """The small config with a thin VAE of ratio 32, prepended conditions and short segments."""
    raw = changed(shipped("saga_model_config_small.json"), sample_size=4096)
    network = {"channels": 4, "c_mults": [1, 2], "strides": [4, 8], "use_snake": True}
    raw["model"]["pretransform"]["config"] = {
        "encoder": {"type": "oobleck", "config": {"in_channels": 2, "latent_dim": 16} | network},
        "decoder": {
            "type": "oobleck",
            "config": {"out_channels": 2, "latent_dim": 8, "final_tanh": False} | network,
        },
        "bottleneck": {"type": "vae"},
        "latent_dim": 8, "downsampling_ratio": 32, "io_channels": 2,
    }  # fmt: skip
    raw["model"]["io_channels"] = 8
    raw["model"]["conditioning"]["cond_dim"] = 32
    raw["model"]["conditioning"]["configs"][0]["config"] |= {"dim": 24, "max_length": 12}
    raw["model"]["diffusion"]["config"] |= {
        "io_channels": 8, "input_concat_dim": 8, "embed_dim": 64, "depth": 2, "num_heads": 2,
        "cond_token_dim": 32, "global_cond_dim": 64, "prepend_cond_dim": 64,
    }  # fmt: skip
    return changed(raw, **values)


def text_and_rolloff(raw: dict[str, Any]) -> dict[str, Any]:
    """The same config at F2."""
    return changed(
        raw,
        model__diffusion__cross_attention_cond_ids=["prompt"],
        model__diffusion__compute_rolloff=True,
    )


def built(raw: dict[str, Any], seed: int = 0) -> SAGASRModel:
    """A model with random weights everywhere: a fresh DiT's zero outputs hide its conditions."""
    config: ModelConfig = parse_model_config(raw)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SAGASRModel(config)
        fold_weight_norm(model)
        for name, parameter in model.named_parameters():
            if not name.startswith("pretransform.") and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()
