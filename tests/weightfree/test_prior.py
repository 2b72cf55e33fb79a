"""Where the flow starts: gain, gradients, what is learnt, what is missing, the default target."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_models import built, text_and_rolloff, tiny_demo

from saga_sr.config import MDCTConfig, parse_model_config
from saga_sr.flow import interpolate, target_velocity
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.rolloff import spectral_rolloff
from saga_sr.support.errors import UserError
from saga_sr.weightfree.frame import MDCTFrame
from saga_sr.weightfree.mdct import MDCTPretransform
from saga_sr.weightfree.prior import Prior, PriorPredictor

CONFIG = MDCTConfig(hop=64, channels=1, level_floor=1e-4)
CUTOFF_BIN = 16  # of 64
EVERYWHERE = torch.ones(1, 64, 1)


def _predictor(channels: int = 1, seed: int = 0) -> PriorPredictor:
    """A predictor whose last layer is random too."""
    torch.manual_seed(seed)
    predictor = PriorPredictor(CONFIG.model_copy(update={"channels": channels}), 44100, 8)
    torch.nn.init.normal_(predictor.last.weight, std=0.3)
    return predictor


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _prior(predictor: PriorPredictor, lr_latent: torch.Tensor) -> Prior:
    measured = torch.ones_like(lr_latent)
    return predictor.prior(lr_latent, measured, *predictor(lr_latent, measured, None))


def _model(**values: Any) -> SAGASRModel:
    model = built(text_and_rolloff(tiny_demo(**values)))
    assert model.prior_predictor is not None
    torch.nn.init.normal_(model.prior_predictor.last.weight, std=0.3)
    return model


def _condition(
    model: SAGASRModel, lr_latent: torch.Tensor, target_hz: float | None = 14_000.0
) -> Conditioning:
    size = len(lr_latent)
    told_hz = [4000.0] if target_hz is None else [4000.0, target_hz]
    rolloff_hz = torch.tensor([told_hz]).expand(size, -1)
    return Conditioning(lr_latent, torch.zeros(size, 12, 24), rolloff_hz)


def test_expanded_bands_interpolate_between_their_centres() -> None:
    predictor = _predictor()
    torch.testing.assert_close(predictor.bands.sum(dim=1), torch.ones(64))
    centres_hz = 2**predictor.octaves
    bin_hz = (torch.arange(64) + 0.5) * 22050 / 64
    expected = bin_hz.clamp(float(centres_hz[0]), float(centres_hz[-1]))[None, :, None]
    rising = centres_hz[None, None, :, None]
    torch.testing.assert_close(predictor.expand(rising), expected, rtol=1e-4, atol=0.1)


def test_untrained_predictor_expects_what_is_measured() -> None:
    predictor = PriorPredictor(CONFIG, 44100, 8)
    log_level, _ = predictor(_noise(2, 64, 30), torch.ones(2, 64, 30), None)
    assert not log_level.any()


@pytest.mark.parametrize("gain", [0.01, 30.0])
def test_prior_scales_with_the_input(gain: float) -> None:
    model = _model(model__pretransform__config__level_floor=1e-9)
    lr_latent = _noise(2, 64, 64)
    prior = model.frame(_condition(model, lr_latent)).prior
    louder = model.frame(_condition(model, gain * lr_latent)).prior
    assert float((prior.scale / prior.scale.mean()).log().std()) > 0.01  # it says something
    for one, other in ((prior.std, louder.std), (prior.scale, louder.scale)):
        torch.testing.assert_close(other, gain * one, rtol=1e-4, atol=0)


def test_prior_depends_on_the_target_rolloff_where_it_is_known() -> None:
    model, lr_latent = _model(), _noise(1, 64, 64)
    dull, bright, unknown = (
        model.frame(_condition(model, lr_latent, hz)).prior.scale for hz in (6000.0, 18_000.0, None)
    )
    assert (dull / bright - 1).abs().max() > 1e-3
    assert (dull / unknown - 1).abs().max() > 1e-3
    assert torch.isfinite(unknown).all()


def test_flow_starts_at_the_lr_latent_and_the_predictor_does_not_see_the_flow() -> None:
    model = _model()
    lr_latent, hr_latent = _noise(2, 64, 64), _noise(2, 64, 64, seed=1)
    frame = model.frame(_condition(model, lr_latent))
    assert torch.equal(frame.leave(torch.zeros(2, 64, 64)), lr_latent)
    assert not any(x.requires_grad for x in (frame.prior.std, frame.prior.scale, frame.heard))
    model.family.loss(frame, hr_latent, torch.full((2,), 22_050.0)).backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {"prior_predictor"}


def test_given_frame_is_the_one_that_would_be_computed() -> None:
    model = _model()
    cond, x_t, t = _condition(model, _noise(2, 64, 64)), _noise(2, 64, 64, seed=2), torch.rand(2)
    given = replace(cond, frame=model.frame(cond))
    torch.testing.assert_close(model.velocity(x_t, t, given), model.velocity(x_t, t, cond))


def test_flow_in_a_frame_is_the_flow_of_the_latents() -> None:
    """Points and velocities of the path from the frame's start to z are those of y, left."""
    model = _model()
    z, noise, t = _noise(1, 64, 64, seed=2), _noise(1, 64, 64, seed=3), torch.tensor([0.3])
    frame = model.frame(_condition(model, _noise(1, 64, 64)))
    y, start = frame.enter(z), frame.leave(noise)
    torch.testing.assert_close(frame.leave(y), z)
    torch.testing.assert_close(frame.leave(interpolate(y, noise, t)), interpolate(z, start, t))
    velocity = frame.leave_velocity(target_velocity(y, noise))
    torch.testing.assert_close(velocity, target_velocity(z, start))


def test_dropped_lr_latent_is_not_heard() -> None:
    """Branches of eq. (4) without the LR latent know no more of it than the prior."""
    model = _model()
    assert model.prior_embed is not None
    torch.nn.init.normal_(model.prior_embed.weight)
    cond, x_t, t = _condition(model, _noise(1, 64, 64)), _noise(1, 64, 64, seed=2), torch.rand(1)
    drop = torch.tensor([True])
    before = model.velocity(x_t, t, cond, drop_lr=drop), model.velocity(x_t, t, cond)
    torch.nn.init.zeros_(model.prior_embed.weight)
    after = model.velocity(x_t, t, cond, drop_lr=drop), model.velocity(x_t, t, cond)
    torch.testing.assert_close(before[0], after[0])
    assert (before[1] - after[1]).abs().max() > 1e-3


def _frames_that_come_and_go(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """HR and LR latents [4, 64, 32]: frames with a strong low band have a high band 20 times as
    strong as that of the others; the LR latent ends at `CUTOFF_BIN`."""
    hr = _noise(4, 64, 32, seed=seed)
    strong = (_noise(4, 1, 4, seed=1000 + seed) > 0).repeat_interleave(8, dim=-1)
    hr[:, :8] *= torch.where(strong, 2.0, 0.5)
    hr[:, 12:] *= torch.where(strong, 2.0, 0.1)
    lr = hr.clone()
    lr[:, CUTOFF_BIN:] = 0
    return hr, lr


def test_predictor_learns_the_level_and_what_is_missing() -> None:
    torch.manual_seed(0)
    predictor = PriorPredictor(CONFIG, 44100, 8)
    optimizer = torch.optim.Adam(predictor.parameters(), lr=0.01)
    losses = []
    for step in range(100):
        hr, lr = _frames_that_come_and_go(step)
        loss = predictor.loss(hr, _prior(predictor, lr), torch.ones_like(lr), EVERYWHERE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1.2
    assert sum(losses[-10:]) / 10 < 0.6 * losses[0]
    prior = _prior(predictor, lr)
    missing = (prior.std / prior.scale).mean(dim=(0, 2))
    assert missing[: CUTOFF_BIN - 2].mean() < 0.1 < 0.9 < missing[CUTOFF_BIN + 2 :].mean()


def test_errors_count_for_less_where_far_more_is_there_than_was_expected() -> None:
    model = _model()
    frame = model.frame(_condition(model, _noise(1, 64, 64)))
    ones, t = torch.ones_like(frame.prior.mean), torch.tensor([0.5])
    expected, surprised = (
        model.family.weight(frame, level * ones, t, torch.tensor([22_050.0])) for level in (1, 10)
    )
    torch.testing.assert_close(surprised, expected * (0.25 + 1.0) / 100)
    assert not model.family.weight(frame, ones, t, torch.tensor([0.0])).any()


def test_channels_are_predicted_alike_and_apart() -> None:
    mono, stereo = _predictor(), _predictor(channels=2)
    left, right = _noise(3, 64, 40), 0.3 * _noise(3, 64, 40, seed=1)
    with torch.no_grad():
        both = _prior(stereo, torch.cat([left, right], dim=1))
        each = [_prior(mono, channel) for channel in (left, right)]
    for name in ("std", "scale"):
        expected = torch.cat([getattr(one, name) for one in each], dim=1)
        torch.testing.assert_close(getattr(both, name), expected)


def test_expected_rolloff_is_that_of_the_expected_spectrum() -> None:
    """With the true spectrum for the expected one it is what the STFT finds, to half a band."""
    model = _model()
    pretransform = model.pretransform
    assert isinstance(pretransform, MDCTPretransform)
    audio = torch.stack([_low_noise(5000.0), _low_noise(12_000.0)])[:, None]
    latent = pretransform.encode(audio)
    scale = latent.abs().mean(dim=-1, keepdim=True).expand_as(latent)
    prior = Prior(torch.zeros_like(latent), scale, scale, latent, latent)  # unused, the last two
    frame = MDCTFrame(latent, prior, latent)
    expected_hz = model.family.default_target_hz(frame, torch.tensor([0.0, 0.0]))
    true_hz = spectral_rolloff(audio, 44100)
    torch.testing.assert_close(expected_hz, true_hz, rtol=0.1, atol=0)
    at_least_hz = torch.tensor([20_000.0, 0.0])
    assert model.family.default_target_hz(frame, at_least_hz)[0] == 20_000.0


def _low_noise(end_hz: float) -> torch.Tensor:
    spectrum = torch.fft.rfft(0.1 * _noise(16_384, seed=int(end_hz)))
    spectrum[int(end_hz * 16_384 / 44100) :] *= 1e-3
    return torch.fft.irfft(spectrum)


def test_default_target_is_what_the_low_band_promises() -> None:
    model = _model()
    audio = 0.1 * _noise(2, 1, 4096)
    with torch.no_grad():
        default, chosen = model.condition(audio), model.condition(audio, None, torch.ones(2))
        assert default.rolloff_hz is not None
        assert chosen.rolloff_hz is not None
        low_hz = default.rolloff_hz[:, 0]
        untold = replace(default, rolloff_hz=low_hz[:, None], frame=None)
        promised = model.family.default_target_hz(model.frame(untold), low_hz)
    assert torch.equal(default.rolloff_hz[:, 1], promised)
    assert torch.equal(chosen.rolloff_hz[:, 1], torch.ones(2))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model__pretransform__config__level_floor": None}, "level_floor"),
        ({"model__diffusion__prior_width": None}, "target_rolloff is null"),
    ],
)
def test_config_that_lacks_what_the_prior_needs_is_refused(
    values: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        parse_model_config(tiny_demo(**values))


def test_what_a_codec_left_out_teaches_the_predictor_nothing() -> None:
    """Above the end of the truth's spectrum neither loss nor gradient depends on the truth."""
    predictor = _predictor()
    lr, hr = _noise(1, 64, 64), _noise(1, 64, 64, seed=1)
    content = (torch.arange(64) < 40).float()[None, :, None]
    results = []
    for empty in (hr, hr * (torch.arange(64) < 40)[None, :, None]):
        predictor.zero_grad()
        loss = predictor.loss(empty, _prior(predictor, lr), torch.ones_like(lr), content)
        loss.backward()
        gradients = [p.grad.clone() for p in predictor.parameters() if p.grad is not None]
        results.append((loss.item(), gradients))
    assert results[0][0] == results[1][0]
    for one, other in zip(results[0][1], results[1][1], strict=True):
        assert torch.equal(one, other)
    nothing = predictor.loss(hr, _prior(predictor, lr), torch.ones_like(lr), 0 * content)
    assert nothing.item() == 0
