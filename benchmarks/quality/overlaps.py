"""Do neighbouring windows agree? The level of the new band across the overlaps.

    python benchmarks/quality/overlaps.py --model MODEL

A steady input (low-passed noise) is upsampled, and the power of the result above the cutoff is
averaged over all windows at each place between one window's start and the next one's. Windows that
are sampled one by one and cross-faded afterwards are unrelated where they overlap, so their mix is
up to 3 dB too quiet there; it is the pumping that users of other systems report. Windows that are
solved together (`saga_sr.upsample.windows`) have one state there.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from scipy import signal
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from saga_sr.audio.streams import ArraySource
from saga_sr.lowpass import apply_lowpass, field_lowpass
from saga_sr.model import SAGASRModel
from saga_sr.restore import restore
from saga_sr.rolloff import unit_to_hz
from saga_sr.support.randomness import torch_generator
from saga_sr.upsample.longform import Layout, Settings, sample_latents
from saga_sr.upsample.windows import WindowGrid, position_noise

RATE = 44100
CUTOFF_HZ = 5000.0
SLICES = 12  # places between one window's start and the next


def steady_input(seconds: float) -> Tensor:
    """Pink-like noise below the cutoff, [1, T]."""
    white = torch.randn(1, round(seconds * RATE), generator=torch_generator("steady"))
    pink = signal.lfilter([1.0], [1.0, -0.9], white.numpy())
    return apply_lowpass(torch.from_numpy(0.05 * pink).float(), RATE, field_lowpass(CUTOFF_HZ))


@torch.no_grad()
def solved_together(model: SAGASRModel, audio: Tensor, settings: Settings) -> Tensor:
    latents = sample_latents(model, ArraySource(audio, RATE), Layout(1, 1), settings)
    return model.decode(torch.cat(list(latents), dim=-1))[0]


def cross_faded(model: SAGASRModel, audio: Tensor, settings: Settings, grid: WindowGrid) -> Tensor:
    """The usual way: every window by itself, then complementary weights on the audio."""
    ratio, size = model.config.downsampling_ratio, model.config.sample_size
    result = torch.zeros(1, grid.length * ratio)
    fade_in = grid.fade_in().repeat_interleave(ratio)
    target_hz = None
    if settings.target_rolloff_hz is not None:
        target_hz = torch.tensor([settings.target_rolloff_hz])
    for k in range(grid.count):
        start = k * grid.hop * ratio
        window = torch.nn.functional.pad(audio, (0, size))[:, start : start + size]
        noise = position_noise(model.config.latent_dim, 0, grid.window, k)
        cond = model.condition(window[None], None, target_hz)
        sampled = restore(model, cond, noise[None], settings.sampling)[0]
        if k > 0:
            sampled[:, : len(fade_in)] *= fade_in
        if k < grid.count - 1:
            sampled[:, size - len(fade_in) :] *= 1 - fade_in
        result[:, start : start + size] += sampled
    return result


def levels_between_starts(audio: Tensor, hop: int) -> np.ndarray:
    """Mean level in dB above the cutoff at `SLICES` places of a hop, file ends left out."""
    sos = signal.butter(8, 1.2 * CUTOFF_HZ, "highpass", fs=RATE, output="sos")
    power = np.square(signal.sosfiltfilt(sos, audio[0].numpy()))
    hops = len(power) // hop
    folded = power[: hops * hop].reshape(hops, hop)[1:-1].mean(axis=0)
    return 10 * np.log10([part.mean() for part in np.array_split(folded, SLICES)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a mono model")
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--num_steps", type=int, default=16)
    flags = parser.parse_args()
    model = SAGASRModel.from_pretrained(flags.model)
    config, audio = model.config, steady_input(flags.seconds)
    sampling = config.with_num_steps(flags.num_steps).sampling
    target_hz = unit_to_hz(sampling.target_rolloff, RATE).item()
    settings = Settings(sampling, CUTOFF_HZ, target_rolloff_hz=target_hz)
    frames = -(-audio.shape[-1] // config.downsampling_ratio)
    grid = WindowGrid.covering(frames, config.latent_length, model.pretransform.margin_frames)
    hop, overlap = grid.hop * config.downsampling_ratio, round(SLICES * grid.overlap / grid.hop)
    print(f"{grid.count} windows; the overlap is the first {overlap} of {SLICES} places\n")
    print("| way | level at each place, dB against the mean of the others | overlap |")
    print("|---|---|---|")
    for name, result in {
        "cross-faded afterwards": cross_faded(model, audio, settings, grid),
        "solved together": solved_together(model, audio, settings),
    }.items():
        levels = levels_between_starts(result, hop)
        levels -= levels[overlap:].mean()
        places = " ".join(f"{level:+.1f}" for level in levels)
        print(f"| {name} | {places} | {levels[:overlap].mean():+.2f} dB |", flush=True)


if __name__ == "__main__":
    main()
