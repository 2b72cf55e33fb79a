"""What the LR latent tells is kept; the rest is generated from noise of the input's own size."""

from dataclasses import replace

import pytest
import torch
from tiny_models import built, tiny_demo
from torch import Tensor

from saga_sr.config import parse_model_config
from saga_sr.lowpass import apply_lowpass, field_lowpass
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.restore import generate
from saga_sr.support.errors import UserError

RATE = 44100
PASSBAND_HZ = torch.tensor([4000.0, 9000.0])
TOLD_ROWS = (1, 3)  # of 8, each 2756 Hz high


def _audio(seconds_of_segments: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(2, 1, 4096 * seconds_of_segments, generator=generator) / 8
    return apply_lowpass(noise, RATE, [field_lowpass(float(hz)) for hz in PASSBAND_HZ])


def _heard(model: SAGASRModel, audio: Tensor) -> Conditioning:
    return model.condition(audio, passband_hz=PASSBAND_HZ)


def test_told_patches_stay_the_lr_latent_and_the_rest_is_generated() -> None:
    model, audio = built(tiny_demo()), _audio()
    cond = _heard(model, audio)
    noise = torch.randn(2, 64, 64)
    with torch.no_grad():
        latent = generate(model, cond, noise, model.config.sampling)
    lr_latent = model.encode(audio)
    for item, rows in enumerate(TOLD_ROWS):
        same = (latent[item] == lr_latent[item]).all(dim=1)
        assert same.nonzero().flatten().tolist() == list(range(8 * rows))


def test_noise_and_data_have_the_size_of_the_octave_below_the_passbands_end() -> None:
    model, audio = built(tiny_demo()), _audio()
    frame = _heard(model, audio).frame
    above = (1 - frame.told) * torch.ones(2, 64, 64)
    start = frame.leave(torch.ones(2, 64, 64))
    lr_latent = model.encode(audio)
    for item, hz in enumerate(PASSBAND_HZ.tolist()):
        centre_hz = (torch.arange(64) + 0.5) * RATE / 128
        octave = lr_latent[item, (centre_hz >= hz / 2) & (centre_hz < hz)]
        expected = octave.square().mean().sqrt()
        assert float(start[item][above[item] == 1].mean()) == pytest.approx(
            float(expected), rel=0.1
        )


def test_the_answer_scales_with_the_input() -> None:
    model, audio = built(tiny_demo(model__pretransform__config__level_floor=1e-6)), _audio()
    noise = torch.randn(2, 64, 64)
    with torch.no_grad():
        latents = [
            generate(model, _heard(model, gain * audio), noise, model.config.sampling)
            for gain in (1.0, 0.01)
        ]
    companded = 0.01**model.config.model.pretransform.config.power
    error = (latents[1] / companded - latents[0]).norm() / latents[0].norm()
    assert error < 0.01


@pytest.mark.parametrize("frames", [4, 32, 96])
def test_a_window_may_have_any_length(frames: int) -> None:
    model = built(tiny_demo())
    cond = Conditioning(torch.randn(2, 64, frames), passband_hz=PASSBAND_HZ)
    with torch.no_grad():
        y_velocity = model.velocity(torch.randn(2, 64, frames), torch.rand(2), cond)
        velocity = model.frame(cond).leave_velocity(y_velocity)
    assert velocity.shape == (2, 64, frames)
    for item, rows in enumerate(TOLD_ROWS):
        assert not velocity[item, : 8 * rows].any()
        assert velocity[item, 8 * rows :].abs().min() > 0


def test_without_the_lr_latent_nothing_of_it_is_heard() -> None:
    model, audio = built(tiny_demo()), _audio()
    cond = _heard(model, audio)
    other = replace(cond.frame, heard=torch.randn_like(cond.frame.heard))
    changed = replace(cond, frame=other)
    x_t, t = torch.randn(2, 64, 64), torch.rand(2)
    drop = torch.tensor([True, False])
    with torch.no_grad():
        first, second = (model.velocity(x_t, t, c, drop_lr=drop) for c in (cond, changed))
    assert torch.equal(first[0], second[0])
    assert not torch.allclose(first[1], second[1], atol=1e-3)


def test_the_passband_is_needed() -> None:
    model = built(tiny_demo())
    with pytest.raises(ValueError, match="passband_hz is needed"):
        model.frame(Conditioning(torch.zeros(1, 64, 64)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model__diffusion__patch": {"bins": 7, "frames": 4}}, "patch.bins is 7, but must divide"),
        ({"model__diffusion__patch": {"bins": 8, "frames": 3}}, "no multiple of hop x"),
        ({"model__diffusion__config__io_channels": 64}, "patch makes it 32"),
        ({"model__diffusion__config__input_concat_dim": 64}, "patch makes it 69"),
        ({"model__diffusion__patch": None}, "an MDCT needs model.diffusion.patch"),
        ({"model__diffusion__prior_width": 8}, "model.diffusion.prior_width"),
        ({"sampling__target_rolloff": None}, "sampling.target_rolloff"),
        ({"model__diffusion__config__global_cond_type": "prepend"}, "a prepended token is no"),
        ({"model__pretransform__config__level_floor": None}, "level_floor"),
    ],
)
def test_configs_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_model_config(tiny_demo(**change))


def test_a_loud_patch_counts_for_less_and_its_neighbours_as_before() -> None:
    model = built(tiny_demo())
    frame = model.frame(_heard(model, _audio()))
    x_t, t = torch.ones(2, 64, 64), torch.full((2,), 0.5)
    end_hz = torch.full((2,), 22_050.0)
    even = model.family.weight(frame, x_t, t, end_hz)
    assert (even == model.family.missing(frame, end_hz)).all()
    x_t[:, 48:56, 8:12] = 10.0
    loud = model.family.weight(frame, x_t, t, end_hz)
    assert torch.allclose(loud[:, 48:56, 8:12], torch.tensor((0.25 + 1.0) / 100))
    loud[:, 48:56, 8:12] = even[:, 48:56, 8:12]
    assert torch.equal(loud, even)
