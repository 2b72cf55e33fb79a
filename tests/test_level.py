"""The level that the low band promises: gain, gradients, what it learns, and the default target."""

from typing import Any

import pytest
import torch
from tiny_models import built, text_and_rolloff, tiny_demo

from saga_sr.config import MDCTConfig, parse_model_config
from saga_sr.errors import UserError
from saga_sr.level import LevelPredictor
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.restore import condition

BAND_HZ = tuple(1000.0 * band for band in range(1, 21))
CONFIG = MDCTConfig(hop=64, channels=1, band_hz=BAND_HZ, band_std=(1.0,) * 20, level_floor=1e-4)


def _predictor(channels: int = 1, seed: int = 0) -> LevelPredictor:
    """A predictor whose last layers are random too."""
    torch.manual_seed(seed)
    predictor = LevelPredictor(CONFIG.model_copy(update={"channels": channels}), 44100, 16)
    torch.nn.init.normal_(predictor.last.weight, std=0.3)
    return predictor


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _model(**values: Any) -> SAGASRModel:
    model = built(text_and_rolloff(tiny_demo(**values)))
    assert model.level_predictor is not None
    torch.nn.init.normal_(model.level_predictor.last.weight, std=0.3)
    return model


def _condition(model: SAGASRModel, lr_latent: torch.Tensor) -> Conditioning:
    size = len(lr_latent)
    rolloff_hz = torch.tensor([[4000.0, 14000.0]]).expand(size, 2)
    return Conditioning(lr_latent, torch.zeros(size, 12, 24), rolloff_hz)


def test_expanded_bands_interpolate_between_their_centres() -> None:
    predictor = _predictor()
    torch.testing.assert_close(predictor.bands.sum(dim=1), torch.ones(64))
    rising = torch.tensor(BAND_HZ)[None, None, :, None]
    bin_hz = (torch.arange(64) + 0.5) * 22050 / 64
    expected = bin_hz.clamp(1000, 20_000)[None, :, None]
    torch.testing.assert_close(predictor.expand(rising), expected, rtol=1e-4, atol=0.1)


def test_untrained_predictor_expects_what_is_measured() -> None:
    predictor = LevelPredictor(CONFIG, 44100, 16)
    log_level, _ = predictor(_noise(2, 64, 30), torch.ones(2, 64, 30), None)
    assert not log_level.any()


@pytest.mark.parametrize("gain", [0.01, 30.0])
def test_noise_level_scales_with_the_input(gain: float) -> None:
    model = _model(model__pretransform__config__level_floor=1e-9)
    lr_latent = _noise(2, 64, 64)
    level = model.noise_level(_condition(model, lr_latent))
    louder = model.noise_level(_condition(model, gain * lr_latent))
    assert float((level / level.mean()).log().std()) > 0.01  # it says something
    torch.testing.assert_close(louder, gain * level, rtol=1e-4, atol=0)


def test_noise_level_depends_on_the_target_rolloff() -> None:
    model, lr_latent = _model(), _noise(1, 64, 64)
    dull, bright = (
        Conditioning(lr_latent, torch.zeros(1, 12, 24), torch.tensor([[4000.0, high_hz]]))
        for high_hz in (6000.0, 18_000.0)
    )
    assert (model.noise_level(dull) / model.noise_level(bright) - 1).abs().max() > 1e-3


def test_flow_takes_the_level_as_given_and_the_level_does_not_see_the_flow() -> None:
    model = _model()
    cond = _condition(model, _noise(2, 64, 64))
    assert not model.noise_level(cond).requires_grad
    model.level_loss(cond, _noise(2, 64, 64, seed=1)).backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {"level_predictor"}


def test_dropped_lr_latent_is_not_heard() -> None:
    """Branches of eq. (4) without the LR latent know no more of it than its level."""
    model = _model()
    assert model.level_embed is not None
    torch.nn.init.normal_(model.level_embed.weight)
    cond, x_t, t = _condition(model, _noise(1, 64, 64)), _noise(1, 64, 64, seed=2), torch.rand(1)
    drop = torch.tensor([True])
    before = model.velocity(x_t, t, cond, drop_lr=drop), model.velocity(x_t, t, cond)
    torch.nn.init.zeros_(model.level_embed.weight)
    after = model.velocity(x_t, t, cond, drop_lr=drop), model.velocity(x_t, t, cond)
    torch.testing.assert_close(before[0], after[0])
    assert (before[1] - after[1]).abs().max() > 1e-3


def test_predictor_learns_where_the_high_band_follows_the_low_band() -> None:
    """Frames with a strong band at 2 kHz have a high band 20 times as strong as the others."""
    predictor = LevelPredictor(CONFIG, 44100, 16)
    optimizer = torch.optim.Adam(predictor.parameters(), lr=0.01)
    losses = []
    for step in range(120):
        hr = _noise(4, 64, 32, seed=step)
        strong = (_noise(4, 1, 4, seed=1000 + step) > 0).repeat_interleave(8, dim=-1)
        hr[:, 4:8] *= torch.where(strong, 2.0, 0.5)
        hr[:, 20:] *= torch.where(strong, 2.0, 0.1)
        lr = hr.clone()
        lr[:, 16:] = 0
        measured = torch.ones_like(lr)
        log_level, _ = predictor(lr, measured, None)
        loss = predictor.loss(log_level, hr, measured)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.8
    assert sum(losses[-10:]) / 10 < 0.5


def test_expected_rolloff_is_the_mean_over_channels() -> None:
    mono, stereo = _predictor(), _predictor(channels=2)
    left, right = _noise(3, 64, 40), 0.3 * _noise(3, 64, 40, seed=1)
    low, one, two = torch.tensor([0.2, 0.3, 0.4]), torch.ones(3, 64, 40), torch.ones(3, 128, 40)
    with torch.no_grad():
        both = stereo.expected_rolloff(torch.cat([left, right], dim=1), two, low)
        each = [mono.expected_rolloff(channel, one, low) for channel in (left, right)]
    torch.testing.assert_close(both, torch.stack(each).mean(dim=0))
    assert ((both > 0) & (both < 1)).all()


def test_default_target_is_what_the_low_band_promises() -> None:
    model = _model()
    audio = 0.1 * _noise(2, 1, 4096)
    with torch.no_grad():
        default, chosen = condition(model, audio), condition(model, audio, None, torch.ones(2))
        assert default.rolloff_hz is not None
        assert chosen.rolloff_hz is not None
        promised = model.expected_rolloff_hz(default.lr_latent, default.rolloff_hz[:, 0])
    assert torch.equal(default.rolloff_hz[:, 1], promised)
    assert torch.equal(chosen.rolloff_hz[:, 1], torch.ones(2))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model__pretransform__config__level_floor": None}, "level_width needs"),
        ({"model__diffusion__level_width": None}, "target_rolloff is null"),
    ],
)
def test_config_that_lacks_what_the_level_needs_is_refused(
    values: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        parse_model_config(tiny_demo(**values))
