"""The velocity error of a clip: what a model's transformer knows of it (docs/metrics.md)."""

from collections import defaultdict

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from saga_sr.evaluate.example import Example
from saga_sr.metrics import LOSS_TIMES, MIDDLE_TIMES
from saga_sr.model import SAGASRModel
from saga_sr.support.randomness import key_to_seed
from saga_sr.training.validation import flow_losses
from saga_sr.upsample.longform import Layout

BATCH = 8  # segments at once; changes no figure


@torch.no_grad()
def velocity_errors(
    model: SAGASRModel,
    example: Example,
    end_hz: float | None,
    text: Tensor | None = None,
    target_rolloff_hz: float | None = None,
) -> dict[str, float]:
    """`saga_sr.flow.velocity_error` at the times of validation, means over a clip's segments.

    Args:
        model: on the device that is to do the work.
        example: the clip. Segments spread evenly cover it; a shorter one is filled with silence.
            The noise depends on its name and on the segment's number.
        end_hz: where the spectrum of the truth ends; None is Nyquist.
        text: [1, N, width] of the text encoder; None is no text.
        target_rolloff_hz: f_h; None is the model's default.

    Returns:
        ``velocity_error``, the mean of those at `MIDDLE_TIMES`, and ``velocity_error_t0.125`` ...;
        NaN where nothing is missing.
    """
    size, device = model.config.sample_size, next(model.parameters()).device
    layout = Layout(example.truth.shape[0], model.config.audio_channels)
    hr, lr = (
        _segments(layout.split(audio), size).to(device)
        for audio in (example.truth, example.lr_audio)
    )
    found: dict[str, list[float]] = defaultdict(list)
    for first in range(0, len(hr), BATCH):
        batch = slice(first, first + BATCH)
        count = len(hr[batch])
        cond = model.condition(
            lr[batch],
            text=None if text is None else text.to(device).expand(count, -1, -1),
            target_rolloff_hz=_each(target_rolloff_hz, count, device),
            passband_hz=_each(example.passband_hz, count, device),
        )
        end = example.sample_rate / 2 if end_hz is None else end_hz
        ends = torch.full((count,), end, device=device)
        keys = [
            key_to_seed("velocity error", example.name, first + number) for number in range(count)
        ]
        for key, of_segment in flow_losses(
            model, model.encode(hr[batch]), cond, ends, keys
        ).items():
            found[key] += of_segment.tolist()
    by_time = {f"velocity_error_t{t:g}": _mean(found[f"velocity_error_t{t:g}"]) for t in LOSS_TIMES}
    middle = float(np.mean([by_time[f"velocity_error_t{t:g}"] for t in MIDDLE_TIMES]))
    return {"velocity_error": middle, **by_time}


def _segments(audio: Tensor, size: int) -> Tensor:
    """[N, C, T] -> [segments, C, size], clip by clip."""
    length = audio.shape[-1]
    padded = functional.pad(audio, (0, max(0, size - length)))
    starts = np.linspace(0, max(0, length - size), max(1, -(-length // size))).astype(int)
    return torch.cat([padded[..., start : start + size] for start in starts])


def _each(value: float | None, count: int, device: torch.device) -> Tensor | None:
    return None if value is None else torch.full((count,), value, device=device)


def _mean(values: list[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return sum(finite) / len(finite) if finite else float("nan")
