import pytest
import torch

from saga_sr.flow import (
    data_from_velocity,
    interpolate,
    preconditioning,
    sample_timesteps,
    target_velocity,
    velocity_error,
    velocity_loss,
)
from saga_sr.support.randomness import torch_generator

X = torch.randn(3, 4, 5, generator=torch_generator("data"))
NOISE = torch.randn(3, 4, 5, generator=torch_generator("noise"))


def test_interpolate_at_the_ends_is_data_and_noise():
    assert torch.equal(interpolate(X, NOISE, torch.zeros(3)), X)
    assert torch.equal(interpolate(X, NOISE, torch.ones(3)), NOISE)


def test_interpolate_takes_one_time_per_item():
    mixed = interpolate(X, NOISE, torch.tensor([0.0, 0.25, 1.0]))
    assert torch.equal(mixed[0], X[0])
    assert torch.allclose(mixed[1], 0.75 * X[1] + 0.25 * NOISE[1])
    assert torch.equal(mixed[2], NOISE[2])


def test_target_velocity_is_the_derivative_of_the_path():
    x, noise = X.double(), NOISE.double()
    t, dt = torch.full((3,), 0.3), torch.full((3,), 1e-3)
    slope = (interpolate(x, noise, t + dt) - interpolate(x, noise, t - dt)) / 2e-3
    assert torch.allclose(slope, target_velocity(x, noise), atol=1e-3)


def test_data_from_velocity_inverts_the_path():
    t = torch.tensor([0.1, 0.5, 0.9])
    x_t = interpolate(X, NOISE, t)
    assert torch.allclose(data_from_velocity(x_t, target_velocity(X, NOISE), t), X, atol=1e-6)


@pytest.mark.parametrize(
    ("sampler", "std"), [("uniform", 0.2887), ("logit_normal", 0.2083)], ids=["uniform", "logit"]
)
def test_sample_timesteps_has_the_named_distribution(sampler, std):
    t = sample_timesteps(20_000, sampler, torch_generator("t", 0))
    assert t.shape == (20_000,)
    assert 0 <= t.min() < t.max() <= 1
    assert t.mean().item() == pytest.approx(0.5, abs=0.01)
    assert t.std().item() == pytest.approx(std, abs=0.01)


def test_sample_timesteps_depends_on_its_generator_alone():
    first, again = (sample_timesteps(8, "uniform", torch_generator("t", 1)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, sample_timesteps(8, "uniform", torch_generator("t", 2)))


def test_sample_timesteps_with_an_unknown_name_says_what_is_allowed():
    with pytest.raises(ValueError, match="uniform, logit_normal"):
        sample_timesteps(1, "cosine", torch_generator("t"))


@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("data_std", [0.3, 1.0])
def test_preconditioning_leaves_what_x_t_does_not_tell(t: float, data_std: float) -> None:
    """On Gaussian data: unit input, a residual of the stated size, uncorrelated with x_t."""
    generator = torch.Generator().manual_seed(0)
    data, noise = torch.randn(2, 200_000, generator=generator)
    data = data * data_std
    times = torch.tensor([t])
    x_t = interpolate(data[None], noise[None], times)[0]
    c_in, c_skip, c_out = (float(c) for c in preconditioning(times, data_std))
    residual = target_velocity(data, noise) - c_skip * x_t
    assert float((c_in * x_t).std()) == pytest.approx(1, rel=0.01)
    assert float(residual.std()) == pytest.approx(c_out, rel=0.01)
    assert abs(float((residual * x_t).mean())) < 0.01 * c_out


def test_velocity_loss_is_zero_at_the_truth_and_counts_only_what_is_a_target() -> None:
    generator = torch_generator("velocity loss")
    x_data, noise, wrong = (torch.randn(2, 6, 5, generator=generator) for _ in range(3))
    truth = target_velocity(x_data, noise)
    quarter = torch.full((2, 1, 1), 0.25)
    assert velocity_loss(truth, x_data, noise, quarter).tolist() == [0, 0]
    loss = velocity_loss(truth + wrong, x_data, noise, quarter)
    torch.testing.assert_close(loss, (wrong / 2).square().mean(dim=(1, 2)))
    target = torch.zeros(2, 6, 1)
    target[0, :4] = 0.25
    loss = velocity_loss(truth + wrong, x_data, noise, target)
    torch.testing.assert_close(loss[0], (wrong[0, :4] / 2).square().mean())
    assert loss[1] == 0


def test_velocity_error_is_1_for_the_blind_and_0_for_the_truth_where_it_looks():
    data, noise, other = torch.randn(3, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    truth = target_velocity(data, noise)
    missing = torch.zeros(2, 4, 1)
    missing[0, :2] = 1
    wrong_below = torch.cat([truth[:, :2], other[:, 2:]], dim=1)
    found = [
        velocity_error(guess, other, data, noise, missing) for guess in (other, truth, wrong_below)
    ]
    assert torch.stack(found)[:, 0].tolist() == pytest.approx([1, 0, 0])
    assert torch.stack(found)[:, 1].isnan().all()  # nothing is missing
    half = velocity_error((truth + other) / 2, other, data, noise, missing)
    assert half[0].item() == pytest.approx(0.25, rel=1e-5)
