"""What the network is given: conditions, nulls, guidance, stages; checked on random weights."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from stable_audio_tools.models import transformer as sat_transformer
from tiny_models import built, changed, shipped, text_and_rolloff, tiny_demo, tiny_vae

from saga_sr.config import parse_model_config
from saga_sr.flow import preconditioning
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.sampler import Branch, guidance_terms

F2_VAE, F2_DEMO = text_and_rolloff(tiny_vae()), text_and_rolloff(tiny_demo())


def _inputs(
    model: SAGASRModel, size: int = 2, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    """Random x_t [B, D, L], t [B] and all conditions that the model's stage has."""
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    x_t, lr = torch.randn(2, size, config.latent_dim, config.latent_length, generator=generator)
    text = torch.randn(size, 12, 24, generator=generator)
    text[:, 5:] = 0
    rolloff = torch.rand(size, 2, generator=generator) * 20_000
    stage = config.stage
    cond = Conditioning(
        lr, text if stage.text else None, rolloff if stage.rolloff else None,
        torch.full((size,), 4000.0),
    )  # fmt: skip
    return x_t, torch.rand(size, generator=generator), cond


def _rounding(like: torch.Tensor) -> dict[str, float]:
    """Tolerances of float32 sums in another order, beside the largest value."""
    return {"atol": 1e-5 * float(like.abs().max()), "rtol": 1e-3}


@pytest.mark.parametrize("raw", [tiny_vae(), F2_VAE], ids=["F0", "F2"])
def test_velocity_equals_the_forward_of_stable_audio_tools(raw: dict[str, Any]) -> None:
    """The same DiT, called through its own 19-argument forward, as an independent oracle."""
    model = built(raw)
    x_t, t, cond = _inputs(model)
    arguments: dict[str, Any] = {}
    with torch.no_grad():
        if cond.rolloff_hz is not None and cond.text is not None:
            unit = cond.rolloff_hz * 2048 / 44100 / 1025
            token, vector = model.rolloff_conditioner(unit)
            present = (cond.text != 0).any(-1, keepdim=True)
            prompt = model.conditioners["prompt"](cond.text) * present
            timestep = model.dit.to_timestep_embed(model.dit.timestep_features(t[:, None]))
            arguments = {
                "cross_attn_cond": torch.cat([prompt, token], dim=1),
                "prepend_cond": (vector + timestep)[:, None],
                "prepend_cond_mask": torch.ones(2, 1, dtype=torch.bool),
            }
        seconds = [
            model.conditioners[name]([value] * 2)[0][:, 0]
            for name, value in (("seconds_start", 0.0), ("seconds_total", 4096 / 44100))
        ]
        expected = model.dit(
            x_t,
            t,
            input_concat_cond=cond.lr_latent,
            global_embed=torch.cat(seconds, dim=-1),
            use_checkpointing=False,
            **arguments,
        )
        torch.testing.assert_close(model.velocity(x_t, t, cond), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("raw", [F2_VAE, F2_DEMO], ids=["prepend", "adaLN"])
@pytest.mark.parametrize("what", ["lr_latent", "text", "rolloff_low", "rolloff_high", "t"])
def test_velocity_depends_on_every_condition(raw: dict[str, Any], what: str) -> None:
    model = built(raw)
    x_t, t, cond = _inputs(model)
    before = model.velocity(x_t, t, cond)
    lr, text, rolloff = cond.lr_latent.clone(), cond.text.clone(), cond.rolloff_hz.clone()
    if what == "lr_latent":
        lr += 0.1
    elif what == "text":
        text[:, 0] += 1
    elif what == "t":
        t = t * 0.5
    else:
        rolloff[:, int(what == "rolloff_high")] += 500
    cond = replace(cond, lr_latent=lr, text=text, rolloff_hz=rolloff)
    after = model.velocity(x_t, t, cond)
    assert (after - before).abs().max() > 1e-4


def test_preconditioned_velocity_is_skip_plus_scaled_answer() -> None:
    plain = built(tiny_demo(model__diffusion__preconditioning_std=None))
    model = built(tiny_demo(model__diffusion__preconditioning_std=0.5))
    x_t, t, cond = _inputs(model)
    c_in, c_skip, c_out = (c[:, None, None] for c in preconditioning(t, 0.5))
    expected = c_skip * x_t + c_out * plain.velocity(c_in * x_t, t, cond)
    torch.testing.assert_close(model.velocity(x_t, t, cond), expected, **_rounding(expected))


def test_items_of_a_batch_do_not_see_each_other() -> None:
    model = built(F2_DEMO)
    x_t, t, cond = _inputs(model, size=3)
    together = model.velocity(x_t, t, cond)
    alone = torch.cat(
        [model.velocity(x_t[i : i + 1], t[i : i + 1], cond[i : i + 1]) for i in (0, 1, 2)]
    )
    torch.testing.assert_close(together, alone, **_rounding(alone))


@pytest.mark.parametrize("null", [0.0, -5.0])
def test_dropped_conditions_are_the_documented_nulls(null: float) -> None:
    model = built(text_and_rolloff(tiny_vae(model__diffusion__null_lr_value=null)))
    x_t, t, cond = _inputs(model)
    drop = torch.tensor([True, False])
    dropped = model.velocity(x_t, t, cond, drop_lr=drop, drop_text=~drop)
    lr, text = cond.lr_latent.clone(), cond.text.clone()
    lr[0], text[1] = null, 0
    expected = model.velocity(x_t, t, Conditioning(lr, text, cond.rolloff_hz))
    torch.testing.assert_close(dropped, expected)


def test_padding_rows_do_not_change_with_the_projection_bias() -> None:
    """No text is the null, and the text projection's bias must not leak into padding."""
    model = built(F2_VAE)
    x_t, t, cond = _inputs(model)
    null = Conditioning(cond.lr_latent, torch.zeros_like(cond.text), cond.rolloff_hz)
    before = model.velocity(x_t, t, null)
    torch.nn.init.normal_(model.conditioners["prompt"].bias)
    torch.testing.assert_close(model.velocity(x_t, t, null), before)


@pytest.mark.parametrize("raw", [F2_DEMO, tiny_demo()], ids=["F2", "F0"])
@pytest.mark.parametrize("one_batch", [True, False])
def test_guided_velocity_is_equation_4(raw: dict[str, Any], one_batch: bool) -> None:
    model, s_a, s_t = built(raw), 1.4, 1.2
    x_t, t, cond = _inputs(model)
    has_text, yes = cond.text is not None, torch.tensor([True, True])
    neither = model.velocity(x_t, t, cond, yes, yes)
    lr_only = model.velocity(x_t, t, cond, ~yes, yes)
    both = model.velocity(x_t, t, cond)
    expected = neither + s_a * (lr_only - neither)
    expected = expected + s_t * (both - lr_only) if has_text else expected
    terms = guidance_terms(s_a, s_t, has_text)
    guided = model.guided_velocity(x_t, t, cond, terms, one_batch=one_batch)
    torch.testing.assert_close(guided, expected, **_rounding(expected))


def test_neutral_guidance_is_the_conditional_velocity() -> None:
    model = built(F2_DEMO)
    x_t, t, cond = _inputs(model)
    guided = model.guided_velocity(x_t, t, cond, [(1.0, Branch(lr=True, text=True))])
    torch.testing.assert_close(guided, model.velocity(x_t, t, cond))


STAGES = {
    "F0": {},
    "F1": {"model__diffusion__cross_attention_cond_ids": ["prompt"]},
    "F2": {
        "model__diffusion__cross_attention_cond_ids": ["prompt"],
        "model__diffusion__compute_rolloff": True,
    },
    "roll-off without text": {"model__diffusion__compute_rolloff": True},
    "the user's earlier file": {
        "model__diffusion__cross_attention_cond_ids": ["prompt", "seconds_start", "seconds_total"]
    },
    "no seconds": {
        "model__diffusion__global_cond_ids": [],
        "model__diffusion__config__global_cond_dim": 0,
    },
}


@pytest.mark.parametrize("make", [tiny_vae, tiny_demo], ids=["VAE", "MDCT"])
@pytest.mark.parametrize("stage", STAGES)
def test_trainable_parameters_are_those_that_the_stage_reaches(stage: str, make: Any) -> None:
    """What DDP needs: every parameter with requires_grad gets a gradient, and no other would."""
    model = built(make(**STAGES[stage]))
    model.requires_grad_(False)
    used = built(make(**STAGES[stage]))
    expected = {name for name, _ in used.trainable()}
    model.dit.requires_grad_(True)
    model.conditioners.requires_grad_(True)
    model.rolloff_conditioner.requires_grad_(True)
    model.velocity(*_inputs(model)).square().mean().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert reached == expected


def test_every_stage_has_the_same_parameters() -> None:
    shapes = [
        {name: value.shape for name, value in built(tiny_vae(**STAGES[s])).state_dict().items()}
        for s in ("F0", "F1", "F2", "roll-off without text", "the user's earlier file")
    ]
    assert all(shape == shapes[0] for shape in shapes)


def test_missing_condition_is_an_error() -> None:
    model = built(F2_VAE)
    x_t, t, cond = _inputs(model)
    with pytest.raises(ValueError, match="text embeddings"):
        model.velocity(x_t, t, Conditioning(cond.lr_latent, None, cond.rolloff_hz))
    with pytest.raises(ValueError, match="rolloff_hz"):
        model.velocity(x_t, t, Conditioning(cond.lr_latent, cond.text, None))


def test_activation_checkpointing_is_off_unless_asked_for_and_changes_nothing() -> None:
    model = built(tiny_demo()).train()
    x_t, t, cond = _inputs(model)
    grads = []
    for model.activation_checkpointing in (False, True):
        model.zero_grad()
        velocity = model.velocity(x_t, t, cond)
        names = str(velocity.grad_fn.next_functions)  # touched so that the graph is alive
        assert names
        velocity.square().mean().backward()
        grads.append(model.dit.transformer.layers[0].ff.ff[2].weight.grad.clone())
    torch.testing.assert_close(*grads)


def test_traps_of_stable_audio_tools_are_disarmed() -> None:
    assert torch._dynamo.config.suppress_errors is False
    assert sat_transformer.flash_attn_func is None


def test_full_config_on_the_meta_device() -> None:
    """Every shape of the full model, 1.06 billion parameters in the DiT, one forward."""
    raw = changed(
        text_and_rolloff(shipped("saga_model_config.json")),
        model__diffusion__cross_attention_cond_ids=["prompt", "seconds_start", "seconds_total"],
    )
    with torch.device("meta"):
        model = SAGASRModel(parse_model_config(raw))
        parameters = sum(parameter.numel() for parameter in model.dit.parameters())
        assert parameters == pytest.approx(1.06e9, rel=0.01)
        audio = torch.empty(1, 2, 262_144)
        latent = model.encode(audio)
        assert latent.shape == (1, 64, 128)
        cond = Conditioning(latent, torch.empty(1, 128, 768), torch.empty(1, 2))
        assert model.velocity(latent, torch.empty(1), cond).shape == latent.shape
        assert model.decode(latent).shape == audio.shape
    assert model.rolloff_conditioner.to_cross[-1].out_features == 768
    assert model.rolloff_conditioner.to_global[-1].out_features == 1536
