"""Validation: the same clips, low-pass, times and noise each time, so that curves are comparable.

Two kinds of numbers per clip. The flow-matching loss at fixed times and noise, per time bin, shows
where a condition helps. The metrics of restored audio show what a listener gets: by the plan's rule
(the true roll-off as target, replacement at the measured roll-off) and, so that F0, F1 and F2 can
be compared fairly, by one common rule (the default target, replacement up to the passband's end).
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from saga_sr import metrics
from saga_sr.flow import interpolate, velocity_error, velocity_loss
from saga_sr.metrics import LOSS_TIMES
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.restore import segment_noise

NOISE_SEED = 20240924
ClipMetrics = dict[str, Tensor]  # name -> [B]


def clip_noise(model: SAGASRModel, clips: Sequence[int], purpose: str) -> Tensor:
    """Noise [B, D, L] of fixed clips, a function of the clip's number and the purpose."""
    return segment_noise(model.config, [(purpose, NOISE_SEED, clip) for clip in clips])


def flow_losses(
    model: SAGASRModel,
    hr_latent: Tensor,
    cond: Conditioning,
    hr_end_hz: Tensor,
    clips: Sequence[int],
) -> ClipMetrics:
    """Loss and velocity error of each clip (`saga_sr.flow`) at fixed times with fixed noise.

    The error is over what is missing (`saga_sr.frame.Family.missing`); digital silence, such as
    the padding of short clips, asks nothing.

    Returns:
        ``loss`` and ``velocity_error`` (means over the times), and ``loss_t0.125``,
        ``velocity_error_t0.125`` ... per time, each [B]. An error is NaN where nothing is missing.
    """
    losses, errors, frame = {}, {}, model.frame(cond)
    cond, y = replace(cond, frame=frame), frame.enter(hr_latent)
    missing = model.family.missing(frame, hr_end_hz) * (hr_latent != 0)
    for time in LOSS_TIMES:
        noise = clip_noise(model, clips, f"val-loss-{time}").to(hr_latent)
        t = torch.full((len(clips),), time, device=hr_latent.device)
        x_t = interpolate(y, noise, t)
        velocity, blind = model.velocity(x_t, t, cond), model.blind_velocity(x_t, t)
        weight = model.family.weight(frame, x_t, t, hr_end_hz)
        losses[f"loss_t{time:g}"] = velocity_loss(velocity, y, noise, weight)
        errors[f"velocity_error_t{time:g}"] = velocity_error(velocity, blind, y, noise, missing)
    means = {
        name: torch.stack(list(values.values())).mean(dim=0)
        for name, values in (("loss", losses), ("velocity_error", errors))
    }
    return {**means, **losses, **errors}


def audio_metrics(
    estimate: Tensor, truth: Tensor, cutoff_hz: Tensor, end_hz: Tensor, sample_rate: int
) -> ClipMetrics:
    """LSD, LSD above the cutoff, high-band error and SI-SDR of restored clips, each [B].

    As in `saga_sr.evaluate`, nothing is asked above the end of the truth's own spectrum, ``end_hz``
    [B], where that leaves enough above the cutoff; validation cannot leave a clip out.
    """
    enough = end_hz >= metrics.LEAST_BAND * cutoff_hz
    end_hz = torch.where(enough, end_hz, sample_rate / 2)
    lsd = partial(metrics.lsd, estimate, truth, sample_rate=sample_rate, high_hz=end_hz)
    return {
        "lsd": lsd(),
        "lsd_hf": lsd(low_hz=cutoff_hz),
        "high_band_error_db": metrics.high_band_error_db(
            estimate, truth, cutoff_hz, sample_rate, end_hz
        ),
        "si_sdr": metrics.si_sdr(estimate, truth),
    }


def suffixed(values: ClipMetrics, suffix: str) -> ClipMetrics:
    return {f"{name}_{suffix}": value for name, value in values.items()}


class MeanOverClips:
    """Means of per-clip metrics over batches and processes; every clip counts once."""

    def __init__(self) -> None:
        self._values: dict[str, dict[int, float]] = {}  # metric -> clip -> value
        self._categories: dict[int, str] = {}  # clip -> category; "" for none

    def add(
        self, clips: Sequence[int], values: ClipMetrics, categories: Sequence[str] = ()
    ) -> None:
        for name, per_clip in values.items():
            pairs = zip(clips, per_clip.float().tolist(), strict=True)
            self._values.setdefault(name, {}).update(pairs)
        self._categories.update(zip(clips, categories, strict=False))

    def means(self) -> dict[str, float]:
        """Mean of every metric over all clips of all processes; clips without a value left out."""
        values, _ = self._gathered()
        return _means(values)

    def means_by_category(self) -> dict[str, float]:
        """The same for the clips of each category: ``speech/lsd``; nothing without categories."""
        values, categories = self._gathered()
        means: dict[str, float] = {}
        for category in sorted(set(categories.values()) - {""}):
            clips = {clip for clip, own in categories.items() if own == category}
            found = _means(values, clips)
            means |= {f"{category}/{metric}": value for metric, value in found.items()}
        return means

    def _gathered(self) -> tuple[dict[str, dict[int, float]], dict[int, str]]:
        """Values and categories of all processes."""
        own = (self._values, self._categories)
        parts: list[Any] = [own]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, own)
        merged: dict[str, dict[int, float]] = {}
        categories: dict[int, str] = {}
        for values, named in parts:
            categories |= named
            for name, by_clip in values.items():
                merged.setdefault(name, {}).update(by_clip)
        return merged, categories


def _means(
    values: Mapping[str, Mapping[int, float]], clips: Container[int] | None = None
) -> dict[str, float]:
    """Mean of each metric over ``clips`` (None: all) that have a value."""
    means = {}
    for name, by_clip in values.items():
        chosen = [by_clip[clip] for clip in sorted(by_clip) if clips is None or clip in clips]
        finite = [value for value in chosen if value == value]
        if finite:
            means[name] = sum(finite) / len(finite)
    return means
