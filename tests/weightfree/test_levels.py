"""Levels beside coefficients: what they hold, what they do to the sound, and what they cost."""

import math

import pytest
import torch
from tiny_models import built, tiny_demo, tiny_levels
from torch import Tensor

from saga_sr.config import parse_model_config
from saga_sr.restore import generate, restore
from saga_sr.support.errors import UserError
from saga_sr.weightfree.mdct import LEVEL_FLOOR, LEVEL_GAIN

PASSBAND_HZ = torch.tensor([4000.0, 9000.0])
IS_LEVEL = torch.arange(80) % 5 == 4  # of 64 bins in groups of 4


def _audio() -> Tensor:
    return torch.randn(2, 1, 4096, generator=torch.Generator().manual_seed(1)) / 8


def test_levels_are_those_of_the_coefficients_before_them() -> None:
    model = built(tiny_levels())
    plain = built(tiny_demo()).encode(_audio())
    latent = model.encode(_audio())
    assert torch.equal(latent[:, ~IS_LEVEL], plain)
    rms = plain.unflatten(1, (16, 4)).square().mean(dim=2).sqrt()
    told = (latent[:, IS_LEVEL] / LEVEL_GAIN).exp() - LEVEL_FLOOR
    torch.testing.assert_close(told, rms, atol=1e-4, rtol=1e-3)


def test_an_encoding_is_decoded_to_the_same_audio() -> None:
    model = built(tiny_levels())
    torch.testing.assert_close(model.decode(model.encode(_audio())), _audio(), atol=1e-5, rtol=0)


def test_a_level_makes_its_group_as_loud_as_it_says() -> None:
    """Whatever loudness the coefficients have; with square-root companding 2 is 12 dB."""
    model = built(tiny_levels())
    latent = model.encode(_audio())
    louder = latent + math.log(2) * LEVEL_GAIN * IS_LEVEL[:, None]
    unlike = torch.where(IS_LEVEL[:, None], louder, 0.3 * latent)
    power = model.config.model.pretransform.config.power
    expected = 2 ** (1 / power) * _audio()
    for one in (louder, unlike):
        error = (model.decode(one) - expected).square().mean() / expected.square().mean()
        assert 10 * math.log10(float(error)) < -20


def test_a_velocity_is_judged_by_coefficients_and_learnt_by_levels_too() -> None:
    model = built(tiny_levels())
    frame = model.condition(_audio(), passband_hz=PASSBAND_HZ).frame
    everything, x_t = torch.tensor([1e9, 1e9]), torch.randn(2, 80, 64)
    missing = model.family.missing(frame, everything).expand(2, 80, 64)
    weight = model.family.weight(frame, x_t, torch.tensor([0.5, 0.5]), everything)
    assert missing[:, IS_LEVEL].sum() == 0
    assert missing[:, ~IS_LEVEL].sum() > 0
    generated = frame.told.expand(2, 80, 64) == 0
    assert (weight > 0).equal(generated)


def test_levels_may_start_where_they_are_expected() -> None:
    noise = torch.randn(2, 80, 64)
    start = built(tiny_levels()).family.start(noise, 0.25)
    assert start[:, ~IS_LEVEL].equal(noise[:, ~IS_LEVEL])
    assert start[:, IS_LEVEL].equal(0.25 * noise[:, IS_LEVEL])


def test_temperature_changes_what_is_heard() -> None:
    model = built(tiny_levels())
    cond, noise = model.condition(_audio(), passband_hz=PASSBAND_HZ), torch.randn(2, 80, 64)
    sampled, expected = (
        restore(model, cond, noise, model.config.sampling.model_copy(update=change))
        for change in ({"level_temperature": 1.0}, {"level_temperature": 0.0})
    )
    assert not torch.allclose(sampled, expected)


def test_a_gain_makes_what_is_generated_so_much_louder_and_nothing_else() -> None:
    model = built(tiny_levels())
    cond, noise = model.condition(_audio(), passband_hz=PASSBAND_HZ), torch.randn(2, 80, 64)
    sampling = model.config.sampling
    plain, louder = (
        generate(model, cond, noise, sampling.model_copy(update={"level_gain_db": db}))
        for db in (0.0, 6.0)
    )
    told = cond.frame.told.expand_as(plain) == 1
    assert plain[told | ~IS_LEVEL[:, None]].equal(louder[told | ~IS_LEVEL[:, None]])
    rise = (louder - plain)[~told & IS_LEVEL[:, None]]
    # Twice the amplitude; with square-root companding the root of it.
    expected = LEVEL_GAIN * model.config.model.pretransform.config.power * math.log(2)
    torch.testing.assert_close(rise, torch.full_like(rise, expected), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model__pretransform__config__level_bins": 3}, "level_bins is 3, but must divide"),
        ({"model__diffusion__config__io_channels": 32}, "io_channels is 32, but"),
        ({"sampling__level_temperature": 1.5}, "level_temperature"),
    ],
)
def test_what_does_not_fit_is_said(values: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_model_config(tiny_levels(**values))


def test_a_temperature_and_a_gain_need_levels() -> None:
    with pytest.raises(UserError, match=r"level_temperature is 0\.5, which needs"):
        parse_model_config(tiny_demo(sampling__level_temperature=0.5))
    with pytest.raises(UserError, match="level_gain_db is 2, which needs"):
        parse_model_config(tiny_demo(sampling__level_gain_db=2))
