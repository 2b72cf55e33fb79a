"""Audio of any length, rate and channel count through a model that sees one segment of its own.

    source --resampled--> windows --condition--> DiT, all windows together --> latents --> decode
       \\                                       (saga_sr.windows)                            |
        `------resampled again, later---------------------------------------> crossover <---'

Everything is a stream: what has been decoded and crossed over leaves, and memory does not grow with
the length. The source is read four times (bandwidth twice, conditions, crossover), because the
conditions run ahead of the crossover by as many windows as the sampler has steps.

Where the input's band ends is a track over time (`saga_sr.audio.bandwidth`). A window hears nothing
above the lowest end inside it: what lies there is hiss, dither, a pilot tone, mirror images, or
somebody else's highs, and no training clip has it. The crossover follows the track itself, so
full-band stretches pass through untouched.

No level is changed anywhere, per window or per file.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from saga_sr.audio.bandwidth import FADE_S, BandTrack
from saga_sr.audio.file import resampled_length
from saga_sr.audio.streams import AudioSource, Reader, map_located, map_with_context, resampled
from saga_sr.config import SamplingSection
from saga_sr.lowfreq import (
    Mode,
    crossover_margin,
    crossover_transition_hz,
    low_frequency_replace,
)
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.sampler import guidance, solver_plan
from saga_sr.upsample.windows import WindowGrid, position_noise, solve_windows

_SILENCE = 2.0**-16  # half a step of 16 bits
_SILENCE_HOLD_S, _SILENCE_FADE_S = 0.025, 0.010


# ---------------------------------------------------------------------------- channels
@dataclass(frozen=True)
class Layout:
    """How a source's channels C become J jobs of the model's channels M, and back.

    As many channels as the model has are one job. Otherwise every channel is a job of its own, all
    with the same noise, copied to all of the model's channels. Of the copies' results the first is
    kept: their mean would lose high-band energy, up to 3 dB where they differ.
    """

    channels: int
    model_channels: int

    @property
    def jobs(self) -> int:
        return 1 if self.channels == self.model_channels else self.channels

    def split(self, audio: Tensor) -> Tensor:
        """[C, n] -> [J, M, n]."""
        if self.channels == self.model_channels:
            return audio[None]
        return audio[:, None].expand(-1, self.model_channels, -1)

    def join(self, audio: Tensor) -> Tensor:
        """[J, M, n] -> [C, n]."""
        return audio[0] if self.channels == self.model_channels else audio[:, 0]


# ---------------------------------------------------------------------------- restoration
TextOfWindow = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Settings:
    """How to restore; all choices made.

    Attributes:
        sampling: solver, steps, guidance scales.
        band: where the input's band ends, over time; so does the crossover.
        limit_input: take away what lies above before the model hears it. Off only for inputs that a
            training low-pass made, whose skirts the model knows.
        target_rolloff_hz: f_h; None is the model's choice. Unused by a model without roll-off.
        text: gives the embedding [1, N, T5 width] of a window's text from its audio [C, T]; None
            for no text.
        seed: of the noise.
        batch: most segments in one evaluation of the model (each counts once per branch of eq. 4).
        mode: of the crossover.
        autocast: type the DiT computes in, None for the weights' own.
    """

    sampling: SamplingSection
    band: BandTrack
    limit_input: bool = True
    target_rolloff_hz: float | None = None
    text: TextOfWindow | None = None
    seed: int = 0
    batch: int = 4
    mode: Mode = "soft"
    autocast: torch.dtype | None = None


Progress = Callable[[int, int], None]  # (segments evaluated now, segments to evaluate in all)


@torch.no_grad()
def restore_stream(
    model: SAGASRModel, source: AudioSource, settings: Settings, progress: Progress | None = None
) -> Iterator[Tensor]:
    """Super-resolve a source of any length.

    Args:
        model: in evaluation mode, on its device.
        source: read twice.
        settings: see there.
        progress: called after each evaluation of the model.

    Yields:
        Audio [C, n] on the CPU at the model's rate, together round(frames x rate / own rate) long.
    """
    rate = model.config.sample_rate
    layout = Layout(source.channels, model.config.audio_channels)
    latents = sample_latents(model, source, layout, settings, progress)
    ratio, margin = model.config.downsampling_ratio, model.pretransform.margin_frames
    generated = Reader(map_with_context(latents, model.decode, margin, scale=ratio))

    def pairs() -> Iterator[Tensor]:
        for piece in resampled(source, rate):
            sr_audio = generated.take(piece.shape[-1])
            yield torch.stack([sr_audio, layout.split(piece).to(sr_audio)])  # [2, J, M, n]

    def crossed(pair: Tensor, start: int) -> Tensor:
        sr_audio, lr_audio = pair
        mixed = torch.zeros_like(lr_audio)
        for end_hz, weight in settings.band.weights(
            start, start + pair.shape[-1], round(FADE_S * rate)
        ):
            one = lr_audio  # of a full-band stretch
            if end_hz < rate / 2:
                one = low_frequency_replace(sr_audio, lr_audio, end_hz, rate, settings.mode)
            mixed += one * weight.to(one)
        return torch.lerp(lr_audio, mixed, audible(lr_audio, rate))

    context = max(crossover_margin(rate, min(settings.band.ends_hz)), silence_margin(rate))
    for piece in map_located(pairs(), crossed, context):
        yield layout.join(piece).cpu()


def sample_latents(
    model: SAGASRModel,
    source: AudioSource,
    layout: Layout,
    settings: Settings,
    progress: Progress | None = None,
) -> Iterator[Tensor]:
    """Latents [J, D, n] of the whole source, from left to right (see `windows`)."""
    config, device = model.config, next(model.dit.parameters()).device
    length = resampled_length(source.frames, source.sample_rate, config.sample_rate)
    frames = -(-length // config.downsampling_ratio)
    margin = model.pretransform.margin_frames
    grid = WindowGrid.covering(frames, config.latent_length, edge=margin)
    evaluations = solver_plan(settings.sampling)
    conditions = _window_conditions(model, source, layout, settings, grid)

    def noise(cond: Conditioning, window_start: int, start: int, stop: int) -> Tensor:
        window = window_start, window_start + config.latent_length
        one = position_noise(config.latent_dim, *window, settings.seed).to(device)
        one = model.family.start(one, settings.sampling.level_temperature)
        start_state = cond.frame.leave(one.expand_as(cond.lr_latent))
        return start_state[..., start - window_start : stop - window_start]

    def evaluated(windows: int) -> None:
        if progress is not None:
            progress(windows, grid.count * len(evaluations))

    yield from solve_windows(
        grid,
        evaluations,
        _window_velocity(model, layout, settings),
        lambda _index: next(conditions),
        noise,
        max(settings.batch // layout.jobs, 1),
        evaluated,
    )


def _window_conditions(
    model: SAGASRModel, source: AudioSource, layout: Layout, settings: Settings, grid: WindowGrid
) -> Iterator[Conditioning]:
    """The J conditions of every window, each from its own audio alone, exactly as in training."""
    config, device = model.config, next(model.dit.parameters()).device
    pieces = resampled(source, config.sample_rate)
    reader = Reader(layout.split(piece) for piece in pieces)
    target_hz = None
    if settings.target_rolloff_hz is not None:
        target_hz = torch.full((layout.jobs,), settings.target_rolloff_hz, device=device)
    fade = round(FADE_S * config.sample_rate)
    for index in range(grid.count):
        start = index * grid.hop * config.downsampling_ratio
        band = settings.band.lowest(start + fade, start + config.sample_size - fade)
        audio = reader.peek(config.sample_size).to(device)  # [J, M, up to a segment]
        reader.skip(grid.hop * config.downsampling_ratio)
        audio = F.pad(audio, (0, config.sample_size - audio.shape[-1]))
        if settings.limit_input:
            audio = limited(audio, band.end_hz, config.sample_rate)
        text = None
        if settings.text is not None:
            text = settings.text(layout.join(audio)).to(device).expand(layout.jobs, -1, -1)
        passband_hz = torch.full((layout.jobs,), band.passband_hz, device=device)
        cond = model.condition(audio, text, target_hz, passband_hz)
        frame = model.family.louder(cond.frame, settings.sampling.level_gain_db)
        yield replace(cond, frame=frame)


def limited(audio: Tensor, end_hz: float, sample_rate: int) -> Tensor:
    """[J, M, n] without what lies above the end of its band; the band itself is untouched."""
    stop_hz = end_hz + crossover_transition_hz(torch.tensor(1.1 * end_hz)).item()
    if stop_hz >= sample_rate / 2:
        return audio
    return low_frequency_replace(torch.zeros_like(audio), audio, stop_hz, sample_rate)


def _window_velocity(
    model: SAGASRModel, layout: Layout, settings: Settings
) -> Callable[[Tensor, Tensor, Tensor, list[Conditioning]], Tensor]:
    """eq. (4) for b windows of J jobs: (x [b, J, D, W], t [b], until [b], conditions) -> v."""
    device = next(model.dit.parameters()).device

    def velocity(x: Tensor, t: Tensor, until: Tensor, conditions: list[Conditioning]) -> Tensor:
        cast: AbstractContextManager = nullcontext()
        if settings.autocast is not None:
            cast = torch.autocast(device.type, settings.autocast)
        cond = Conditioning.joined(conditions)
        times, ends = (at.repeat_interleave(layout.jobs) for at in (t, until))
        terms = guidance(settings.sampling, cond.text)
        with cast:
            y = cond.frame.enter(x.flatten(0, 1))
            v = model.guided_velocity(y, times, cond, terms, ends)
        return cond.frame.leave_velocity(v.float()).unflatten(0, x.shape[:2])

    return velocity


# ---------------------------------------------------------------------------- silence
def silence_margin(sample_rate: int) -> int:
    """Samples on either side that `audible` looks at."""
    return round(_SILENCE_HOLD_S * sample_rate) + 2 * round(_SILENCE_FADE_S * sample_rate)


def audible(lr_audio: Tensor, sample_rate: int) -> Tensor:
    """1 near sound, 0 in digital silence, fading in between: silence in, silence out.

    A model may hiss where a recording holds exact zeros, between tracks for example. Silence is
    where no channel reaches half a step of 16 bits within 25 ms.

    Args:
        lr_audio: [..., C, n].
        sample_rate: Hz.

    Returns:
        [..., 1, n] in [0, 1].
    """
    hold, fade = round(_SILENCE_HOLD_S * sample_rate), round(_SILENCE_FADE_S * sample_rate)
    loud = lr_audio.abs().amax(dim=-2, keepdim=True) > _SILENCE
    near = _count_around(loud, hold + fade) > 0  # the fade lies outside of the hold
    counted = _count_around(torch.ones_like(near), fade)
    return (_count_around(near, fade) / counted).to(lr_audio)


def _count_around(flags: Tensor, reach: int) -> Tensor:
    """How many of the neighbours up to ``reach`` away on either side are true; int32 like it."""
    length = flags.shape[-1]
    total = F.pad(flags.cumsum(dim=-1, dtype=torch.int32), (1, 0))
    index = torch.arange(length, device=flags.device)
    stop, start = (index + reach + 1).clamp(max=length), (index - reach).clamp(min=0)
    return total[..., stop] - total[..., start]
