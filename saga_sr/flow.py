"""Rectified flow (paper: flow matching): the maths of training.

Time convention, written down only here and used everywhere (stable-audio-tools' `rectified_flow`):

    t = 1 is noise, t = 0 is data
    x_t = (1 - t) x_data + t noise
    v   = d x_t / d t = noise - x_data

The model learns v from x_t; sampling integrates v from t = 1 down to t = 0. The paper counts time
the other way round, which is the same objective.
"""

import math
from typing import Literal

import torch
from torch import Tensor

TimestepSampler = Literal["uniform", "logit_normal"]
Parameterisation = Literal["flow", "v"]


def interpolate(x_data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Point of the straight path from data to noise.

    Args:
        x_data: data, [B, ...].
        noise: standard normal noise of the same shape.
        t: time of each item in [0, 1], [B].

    Returns:
        x_t = (1 - t) x_data + t noise, shaped like ``x_data``.
    """
    t = _per_item(t, x_data)
    return (1 - t) * x_data + t * noise


def target_velocity(x_data: Tensor, noise: Tensor) -> Tensor:
    """What the model should predict anywhere on the path: v = noise - x_data."""
    return noise - x_data


def velocity_loss(velocity: Tensor, x_data: Tensor, noise: Tensor, weight: Tensor) -> Tensor:
    """Mean squared velocity error of each item: the objective of flow matching (paper, section 2).

    Args:
        velocity: what was predicted, [B, D, L].
        x_data, noise: the ends of the path, [B, D, L].
        weight: what a squared error counts (`saga_sr.frame.Family.weight`), at least 0 and
            broadcastable; the mean is over where it is not 0.

    Returns:
        [B]; 0 where nothing counts.
    """
    error = velocity.float() - target_velocity(x_data, noise)
    return weighted_mean(error.square(), weight, dim=(1, 2))


def velocity_error(
    velocity: Tensor, blind: Tensor, x_data: Tensor, noise: Tensor, missing: Tensor
) -> Tensor:
    """Squared error of ``velocity`` as a share of that of ``blind``, what F = 0 answers.

    1 means that the network knows nothing, 0 everything; unlike the loss it compares between runs.

    Args:
        velocity, blind: [B, D, L].
        x_data, noise: the ends of the path, [B, D, L].
        missing: 1 where it counts, 0 elsewhere; broadcastable.

    Returns:
        [B]; NaN where nothing counts.
    """
    target = target_velocity(x_data, noise)
    ours, theirs = (
        (missing * (guess.float() - target).square()).sum(dim=(1, 2)) for guess in (velocity, blind)
    )
    return ours / theirs


def weighted_mean(values: Tensor, weight: Tensor, dim: tuple[int, ...]) -> Tensor:
    """Mean of ``weight`` x ``values`` over where ``weight`` is not 0; 0 where that is nowhere."""
    weight = weight.expand_as(values)
    return (values * weight).sum(dim=dim) / (weight != 0).float().sum(dim=dim).clamp(min=1)


def data_from_velocity(x_t: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """The data that a velocity points to: x_data = x_t - t v (shapes as in `interpolate`)."""
    return x_t - _per_item(t, x_t) * v


def preconditioning(t: Tensor, data_std: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gains that leave a network only what x_t does not tell: v = skip x_t + out F(in x_t).

    For data of standard deviation s the best linear guess of v from x_t is skip x_t; what remains
    has standard deviation out, and in x_t has 1 (the idea of Karras et al. 2022, for this path).
    A narrow transformer without it spends its width on carrying x_t, and its layer norms lose the
    amplitude.

    Args:
        t: [B] in [0, 1].
        data_std: s.

    Returns:
        in, skip and out, each [B].
    """
    variance = ((1 - t) * data_std) ** 2 + t**2
    return variance**-0.5, (t - (1 - t) * data_std**2) / variance, data_std * variance**-0.5


def v_objective_time(t: Tensor) -> Tensor:
    """Time u of the v objective's path where it meets the straight path at ``t``; both in [0, 1].

    stable-audio-tools' "v" mixes cos(pi u / 2) data + sin(pi u / 2) noise. With
    n = sqrt((1-t)^2 + t^2), x_t / n is that mixture at u = (2 / pi) atan2(t, 1 - t).
    """
    return torch.atan2(t, 1 - t) * (2 / math.pi)


def network_gains(
    t: Tensor, parameterisation: Parameterisation, data_std: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """How a network F answers the velocity: v = skip x_t + out F(in x_t, time).

    - ``flow``: F answers v itself, or with ``data_std`` what `preconditioning` leaves of it.
    - ``v``: F answers as it does under stable-audio-tools' v objective, F = cos(pi u / 2) noise -
      sin(pi u / 2) data, for which x_t / n and u are (`v_objective_time`). Two equations in noise
      and data: v = noise - data = (2 t - 1) / n^2 x_t + F / n, exactly, for any data. These are the
      gains of `preconditioning` for ``data_std`` 1.

    Args:
        t: [B] in [0, 1].
        parameterisation: see above.
        data_std: of `preconditioning`, None for none.

    Returns:
        in, skip, out and time, each [B].
    """
    if parameterisation == "v":
        return *preconditioning(t, 1.0), v_objective_time(t)
    if data_std is None:
        return torch.ones_like(t), torch.zeros_like(t), torch.ones_like(t), t
    return *preconditioning(t, data_std), t


def sample_timesteps(n: int, sampler: TimestepSampler, generator: torch.Generator) -> Tensor:
    """Training times in [0, 1], float32 [n].

    Args:
        n: how many.
        sampler: ``uniform``, or ``logit_normal`` = sigmoid of a standard normal, which spends more
            of the training in the middle of the path (the authors' choice).
        generator: a CPU generator, see `saga_sr.support.randomness`.
    """
    if sampler == "uniform":
        return torch.rand(n, generator=generator)
    if sampler == "logit_normal":
        return torch.randn(n, generator=generator).sigmoid()
    raise ValueError(f"timestep_sampler is {sampler!r}; allowed: uniform, logit_normal")


def _per_item(t: Tensor, like: Tensor) -> Tensor:
    return t.to(like).reshape(-1, *[1] * (like.dim() - 1))
