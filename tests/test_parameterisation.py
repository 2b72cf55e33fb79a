"""A DiT trained with stable-audio-tools' v objective answers the flow's velocity exactly."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from stable_audio_tools.inference.sampling import get_alphas_sigmas
from stable_audio_tools.models.dit import DiffusionTransformer
from tiny_models import built, tiny_demo, tiny_vae
from torch import Tensor

from saga_sr.config import parse_model_config
from saga_sr.flow import (
    data_from_velocity,
    interpolate,
    network_gains,
    target_velocity,
    v_objective_time,
)
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.support.errors import UserError
from saga_sr.support.randomness import torch_generator
from saga_sr.weights import load_stable_audio, stable_audio_parameterisation

SECONDS = torch.zeros(1, 64)  # the global embedding that both are given
TIMES = torch.tensor([0.02, 0.2, 0.5, 0.8, 0.98])


def latents(count: int, generator: torch.Generator) -> Tensor:
    """[count, 8, 32] of unit size in which neighbours and channels tell of each other."""
    slow = torch.randn(count, 2, 4, generator=generator).repeat_interleave(8, dim=-1)
    mixing = torch.randn(8, 2, generator=torch_generator("mixing"))
    return (mixing / mixing.norm(dim=1, keepdim=True)) @ slow


@pytest.fixture(scope="module")
def original() -> DiffusionTransformer:
    """stable-audio-tools' DiT without LR channels, trained with its v objective."""
    raw = tiny_vae()["model"]["diffusion"]["config"] | {"input_concat_dim": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dit = DiffusionTransformer(diffusion_objective="v", **raw)
    generator = torch_generator("v objective")
    optimizer = torch.optim.Adam(dit.parameters(), lr=2e-3)
    for _ in range(100):
        data, u = latents(16, generator), torch.rand(16, generator=generator)
        noise = torch.randn(data.shape, generator=generator)
        alpha, sigma = (gain[:, None, None] for gain in get_alphas_sigmas(u))
        answer = dit(
            alpha * data + sigma * noise,
            u,
            global_embed=SECONDS.expand(16, -1),
            use_checkpointing=False,
        )
        loss = (answer - (alpha * noise - sigma * data)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return dit.eval()


def started_from(
    original: DiffusionTransformer, folder: Path, parameterisation: str
) -> SAGASRModel:
    """Our model with those weights, and no embedding of the seconds beside them."""
    state = {f"model.model.{name}": value for name, value in original.state_dict().items()}
    torch.save({"state_dict": state}, folder / "model.ckpt")
    raw = tiny_vae(model__diffusion__parameterisation=parameterisation)
    model = built(raw)
    load_stable_audio(model, folder / "model.ckpt")
    for conditioner in model.conditioners.values():
        for parameter in conditioner.parameters():
            parameter.data.zero_()
    return model


@torch.no_grad()
def test_same_estimate_of_the_data_as_stable_audio_tools(
    original: DiffusionTransformer, tmp_path: Path
) -> None:
    model = started_from(original, tmp_path, "v")
    plain = started_from(original, tmp_path, "flow")
    generator = torch_generator("held out")
    data = latents(len(TIMES), generator)
    noise, lr = (torch.randn(data.shape, generator=generator) for _ in range(2))
    x_t = interpolate(data, noise, TIMES)
    cond = Conditioning(lr)

    # the same mixture of the same data and noise, on stable-audio-tools' own path
    alpha, sigma = (gain[:, None, None] for gain in get_alphas_sigmas(v_objective_time(TIMES)))
    mixture = alpha * data + sigma * noise
    answer = original(
        mixture,
        v_objective_time(TIMES),
        global_embed=SECONDS.expand(len(TIMES), -1),
        use_checkpointing=False,
    )
    theirs = alpha * mixture - sigma * answer
    ours = data_from_velocity(x_t, model.velocity(x_t, TIMES, cond), TIMES)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)

    # it learnt something, and read as a velocity the same answer is of no use
    misread = data_from_velocity(x_t, plain.velocity(x_t, TIMES, cond), TIMES)
    error, misread_error, power = (
        value.square().mean(dim=(1, 2)) for value in (ours - data, misread - data, data)
    )
    assert bool((error[:3] < 0.3 * power[:3]).all())
    assert bool((misread_error > 1.2 * error).all())


@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_velocity_follows_from_v_for_any_data(t: float) -> None:
    generator = torch_generator("identity")
    data, noise = torch.randn(2, 1, 500, generator=generator, dtype=torch.float64)
    data, time = 3 * data + 7, torch.tensor([t], dtype=torch.float64)
    c_in, skip, out, u = network_gains(time, "v", None)
    alpha, sigma = get_alphas_sigmas(u)
    x_t = (1 - t) * data + t * noise
    torch.testing.assert_close(c_in * x_t, alpha * data + sigma * noise)
    velocity = skip * x_t + out * (alpha * noise - sigma * data)
    torch.testing.assert_close(velocity, target_velocity(data, noise))
    assert 0 <= float(u) <= 1
    assert math.isclose(float(v_objective_time(torch.tensor([t]))), float(u), abs_tol=1e-6)


def test_parameterisation_is_recorded_in_the_export(tmp_path: Path) -> None:
    model = built(tiny_vae(model__diffusion__parameterisation="v"))
    loaded = SAGASRModel.from_pretrained(model.save_pretrained(tmp_path))
    assert loaded.config.model.diffusion.parameterisation == "v"
    x_t, lr = torch.randn(2, 2, 8, 128, generator=torch_generator("x"))
    t, cond = torch.tensor([0.3, 0.7]), Conditioning(lr)
    torch.testing.assert_close(loaded.velocity(x_t, t, cond), model.velocity(x_t, t, cond))
    with pytest.raises(UserError, match="gains of its own"):
        parse_model_config(
            tiny_demo(
                model__diffusion__parameterisation="v",
                model__diffusion__preconditioning_std=0.5,
            )
        )


@pytest.mark.parametrize(
    ("objective", "expected"),
    [("v", "v"), (None, "v"), ("rectified_flow", "flow"), ("rf_denoiser", "flow")],
)
@pytest.mark.parametrize("place", ["beside", "inside"])
def test_objective_is_read_from_the_config_of_the_weights(
    objective: str | None, expected: str, place: str, tmp_path: Path
) -> None:
    diffusion: dict[str, Any] = {"type": "dit"}
    if objective is not None:
        diffusion["diffusion_objective"] = objective
    config = {"model_type": "diffusion_cond", "model": {"diffusion": diffusion}}
    checkpoint: dict[str, Any] = {"state_dict": {"x": torch.zeros(1)}}
    if place == "inside":  # stable-audio-tools' training embeds it
        checkpoint["model_config"] = config
    else:
        (tmp_path / "model_config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.save(checkpoint, tmp_path / "model.ckpt")
    assert stable_audio_parameterisation(tmp_path / "model.ckpt")[0] == expected
    if place == "beside":
        assert stable_audio_parameterisation(tmp_path)[0] == expected


def test_weights_without_a_config_are_taken_for_stable_audio_open_and_that_is_said(
    tmp_path: Path,
) -> None:
    torch.save({"state_dict": {}}, tmp_path / "model.ckpt")
    found, reason = stable_audio_parameterisation(tmp_path / "model.ckpt")
    assert found == "v"
    assert "no model_config.json" in reason


def test_unknown_objective_is_named(tmp_path: Path) -> None:
    raw = {"model": {"diffusion": {"diffusion_objective": "eps"}}}
    (tmp_path / "model_config.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(UserError, match="'eps'; known: v, rectified_flow"):
        stable_audio_parameterisation(tmp_path)
