"""What a user of `upsample` may choose, and the call itself for audio in memory."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from saga_sr.audio.bandwidth import BandTrack, Bandwidth, measure_bandwidth
from saga_sr.audio.streams import ArraySource, AudioSource, ChannelSource, Reader, resampled
from saga_sr.config import SamplingSection, untrained_guidance
from saga_sr.lowfreq import Mode
from saga_sr.model import SAGASRModel
from saga_sr.rolloff import unit_to_hz
from saga_sr.support.device import pick_precision
from saga_sr.support.errors import UserError
from saga_sr.support.files import is_unicode
from saga_sr.text import TextEncoder
from saga_sr.upsample.longform import Progress, Settings, TextOfWindow, restore_stream

if TYPE_CHECKING:
    from saga_sr.captions.qwen import Captioner


_AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_DEFAULT_BATCH = {"cpu": 4, "mps": 4, "cuda": 16}
Audio = TypeVar("Audio", Tensor, np.ndarray)


# ---------------------------------------------------------------------------- one call
@dataclass(frozen=True)
class UpsampleOptions:
    """What a user may choose; None is the model's own choice (its ``sampling`` block).

    Attributes:
        target_rolloff: how much high-frequency energy, in [0, 1) of the Nyquist frequency; 0 is
            the model's own guess, where it has learnt to make one.
        target_rolloff_hz: the same in Hz.
        prompt: what is heard; "" is no text.
        caption: ``auto`` lets Qwen2-Audio write a prompt for each window of the input.
        level_gain_db: what the new band is raised by, of a model with levels.
        guidance_acoustic, guidance_text: s_a and s_t of eq. (4).
        num_steps, solver: of the sampler; 0 steps are where the flow starts, without the DiT.
        emulate_linear_steps: N of its t-schedule (`linear_quadratic_schedule`); None keeps the
            shape of the model's own.
        seed: of the noise.
        input_cutoff_hz: where the input's band ends; None is measured.
        crossover: ``soft``, ``hard``, or ``off`` for the pure model (digital silence stays silent).
        precision: of the DiT: ``32-true``, ``bf16-mixed``, ``16-mixed``, or ``auto``
            (`saga_sr.support.device.pick_precision`).
        window_batch: segments per evaluation of the model; None depends on the device.
    """

    target_rolloff: float | None = None
    target_rolloff_hz: float | None = None
    prompt: str = ""
    caption: Literal["off", "auto"] = "off"
    level_gain_db: float | None = None
    guidance_acoustic: float | None = None
    guidance_text: float | None = None
    num_steps: int | None = None
    emulate_linear_steps: int | None = None
    solver: str | None = None
    seed: int = 0
    input_cutoff_hz: float | None = None
    crossover: Mode = "soft"
    precision: str = "32-true"
    window_batch: int | None = None

    @classmethod
    def of(cls, flags: argparse.Namespace, **chosen: Any) -> "UpsampleOptions":
        """The options that a command's flags name alike, with ``chosen`` in their place."""
        given = {name: getattr(flags, name) for name in cls.__dataclass_fields__ if name in flags}
        return cls(**(given | chosen))


def upsample(
    model: SAGASRModel,
    audio: Audio,
    sample_rate: int,
    options: UpsampleOptions | None = None,
    progress: Progress | None = None,
) -> Audio:
    """Bring audio to the model's rate and to full bandwidth.

    Args:
        model: from `SAGASRModel.from_pretrained`, on the device that is to do the work.
        audio: [C, T] or [T], nominally in [-1, 1], tensor or array; any length and channel count.
        sample_rate: of ``audio`` in Hz.
        options: None is all defaults.
        progress: called with (segments evaluated now, segments to evaluate in all).

    Returns:
        [C, T'] or [T'] like ``audio``, float32 on the CPU, T' = round(T x 44100 / sample_rate), at
        the level of the input. It may go beyond full scale; nothing is clipped.

    Raises:
        UserError: the audio is empty or not finite, or an option does not suit the model.
    """
    tensor = torch.as_tensor(audio)
    if tensor.numel() == 0:
        raise UserError("the audio is empty")
    source = ArraySource(tensor.reshape(-1, tensor.shape[-1]), sample_rate)
    options = options or UpsampleOptions()
    bandwidth = measure_bandwidth(source, model.config.sample_rate)
    pieces = restored(model, source, options, bandwidth, progress)
    result = torch.cat(list(pieces), dim=-1).reshape(*tensor.shape[:-1], -1)
    return result if isinstance(audio, Tensor) else result.numpy()


def restored(
    model: SAGASRModel,
    source: AudioSource,
    options: UpsampleOptions,
    bandwidth: Bandwidth,
    progress: Progress | None = None,
    limit_input: bool = True,
) -> Iterator[Tensor]:
    """The stream behind `upsample`: pieces [C, n]. Full-band and silent sources pass through."""
    if passes_through(options, bandwidth):
        return resampled(source, model.config.sample_rate)
    if bandwidth.channels and options.input_cutoff_hz is None:
        return _channel_by_channel(model, source, options, bandwidth.channels, progress)
    settings = resolve(model, options, bandwidth, limit_input)
    return restore_stream(model, source, settings, progress)


def _channel_by_channel(
    model: SAGASRModel,
    source: AudioSource,
    options: UpsampleOptions,
    bands: Sequence[Bandwidth],
    progress: Progress | None,
) -> Iterator[Tensor]:
    """Each channel as a recording of its own, and together again."""
    count = sum(not passes_through(options, band) for band in bands)

    def of_all(now: int, total: int) -> None:
        if progress is not None:
            progress(now, count * total)

    streams = [
        restored(model, ChannelSource(source, channel), options, band, of_all)
        for channel, band in enumerate(bands)
    ]
    first, others = streams[0], [Reader(stream) for stream in streams[1:]]
    for piece in first:
        yield torch.cat([piece, *(other.take(piece.shape[-1]) for other in others)])


def passes_through(options: UpsampleOptions, bandwidth: Bandwidth) -> bool:
    """Whether there is nothing to add, or nothing to add it to."""
    return options.input_cutoff_hz is None and (bandwidth.is_full or bandwidth.is_silent)


def resolve(
    model: SAGASRModel, options: UpsampleOptions, bandwidth: Bandwidth, limit_input: bool = True
) -> Settings:
    """What ``options`` mean for a model and a source.

    Raises:
        UserError: an option does not suit the model.
    """
    device = next(model.dit.parameters()).device
    return Settings(
        sampling=_sampling(model, options),
        band=_band(model, options, bandwidth),
        limit_input=limit_input,
        target_rolloff_hz=_target_hz(model, options),
        text=_text(model, options, device),
        seed=options.seed,
        batch=options.window_batch or _DEFAULT_BATCH.get(device.type, 4),
        mode=options.crossover,
        autocast=_AUTOCAST[pick_precision(options.precision, device)],
    )


def _sampling(model: SAGASRModel, options: UpsampleOptions) -> SamplingSection:
    """The model's sampling block with what the user chose."""
    config = model.config
    if options.level_gain_db is not None:
        if not config.has_levels:
            raise UserError("--level_gain_db: this model's latents have no levels")
        config = config.replacing("sampling.level_gain_db", options.level_gain_db)
    if options.num_steps == 0:
        return config.sampling.model_copy(update={"num_steps": 0})
    if options.num_steps is not None:
        config = config.with_num_steps(options.num_steps)
    for name in ("guidance_acoustic", "guidance_text", "solver", "emulate_linear_steps"):
        if getattr(options, name) is not None:
            config = config.replacing(f"sampling.{name}", getattr(options, name))
    if problems := untrained_guidance(config):
        raise UserError.listing("guidance that this model was not trained for", problems)
    return config.sampling


def _band(model: SAGASRModel, options: UpsampleOptions, bandwidth: Bandwidth) -> BandTrack:
    given, nyquist_hz = options.input_cutoff_hz, model.config.sample_rate / 2
    if given is None:
        return bandwidth.track
    if not 0 < given < nyquist_hz:
        raise UserError(
            f"--input_cutoff_hz is {given:g}; allowed: above 0 and below {nyquist_hz:g}"
        )
    return BandTrack.constant(given)


def _target_hz(model: SAGASRModel, options: UpsampleOptions) -> float | None:
    config = model.config
    nyquist_hz = config.sample_rate / 2
    given = options.target_rolloff_hz is not None or options.target_rolloff is not None
    if not config.stage.rolloff:
        if given:
            raise UserError("--target_rolloff: this model was trained without --compute_rolloff")
        return None
    unit, target_hz = options.target_rolloff, options.target_rolloff_hz
    if target_hz is None:
        unit = config.sampling.target_rolloff if unit is None else unit
        if not 0 <= unit < 1:
            raise UserError(f"--target_rolloff is {unit:g}; allowed: 0 to below 1")
        target_hz = unit_to_hz(unit, config.sample_rate).item()
    elif not 0 <= target_hz < nyquist_hz:
        raise UserError(f"--target_rolloff_hz is {target_hz:g}; allowed: 0 to below {nyquist_hz:g}")
    if target_hz == 0 and not config.guesses_rolloff:
        raise UserError(
            "--target_rolloff is 0, the model's own guess, which this one has not learnt to make "
            "(training.dropout.rolloff_prob is 0); allowed: above 0"
        )
    return target_hz


def _text(
    model: SAGASRModel, options: UpsampleOptions, device: torch.device
) -> TextOfWindow | None:
    prompt, listens = options.prompt.strip(), options.caption == "auto"
    if not prompt and not listens:
        return None
    settings = model.config.text
    if not model.config.stage.text or settings is None:
        flag = "--caption auto" if listens else "--prompt"
        raise UserError(f"{flag}: this model was trained without text")
    if not is_unicode(prompt):
        raise UserError("--prompt: not UTF-8")
    if prompt and listens:
        raise UserError("--prompt and --caption auto: give one of them")
    encoder = TextEncoder(settings.model, settings.max_length, settings.kind, device=device)
    if prompt:
        embedding = encoder.encode([prompt])
        return lambda _audio: embedding
    return _captions(encoder, model.config.sample_rate, device)


@lru_cache(maxsize=1)
def _captioner(device: str) -> "Captioner":
    """One for all files: it is 7 billion parameters large."""
    from saga_sr.captions.qwen import Captioner

    return Captioner(device=device)


def _captions(encoder: TextEncoder, sample_rate: int, device: torch.device) -> TextOfWindow:
    from saga_sr.captions.qwen import to_caption_audio

    captioner = _captioner(str(device))

    def heard(audio: Tensor) -> Tensor:
        clip = to_caption_audio(audio.numpy(force=True), sample_rate)
        return encoder.encode(captioner.caption([clip]))

    return heard
