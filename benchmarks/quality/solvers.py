"""Solvers: quality against the number of evaluations of the network, on a trained model.

    python benchmarks/quality/solvers.py --model MODEL --audio_dir corpus/val

Clips of one segment are low-passed (Chebyshev-1, order 8) at ``--cutoff_hz``, restored with the
model's own target roll-off and joined by the soft crossover at the end of the passband. NFE is the
number of evaluations of the DiT per clip, the branches of eq. (4) counted. The schedules are
linear, and the paper's linear-quadratic one (S steps emulating 2.5 S).

    LSD           of the paper's definition ("saga"), whole spectrum
    band error    `high_band_error_db`: third-octave bands above the cutoff, frame by frame
    level         above the cutoff, of the result against the truth, in the median of the clips: too
                  few steps of Euler end near the mean of what could be, which is too soft
    distance      of the generated audio from the solution of 300 steps of AB2, dB of its level:
                  what the solver itself does wrong; the others also hold the model's errors

Everything but the solver is fixed (clips, low-pass, noise). The baseline is the unprocessed input.
"""

import argparse
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.shared import RATE, full_band_clips
from saga_sr.audio.band_end import spectrum_end_hz
from saga_sr.config import SamplingSection
from saga_sr.lowfreq import low_frequency_replace
from saga_sr.lowpass import apply_lowpass, field_lowpass
from saga_sr.metrics import high_band_error_db, lsd
from saga_sr.model import SAGASRModel
from saga_sr.restore import generate, segment_noise
from saga_sr.sampler import guidance, solver_plan

BATCH = 8
REFERENCE_STEPS = 300
SCHEDULES = {"linear": 1.0, "linear-quadratic": 2.5}  # emulated steps per step
PER_STEP = {"euler": 1, "ab2": 1, "midpoint": 2, "heun": 2}


class Clips:
    """Truths and inputs of one segment each, with what all solvers share."""

    def __init__(self, model: SAGASRModel, folders: list[Path], per_folder: int, cutoff_hz: float):
        low_pass = field_lowpass(cutoff_hz)
        size, channels = model.config.sample_size, model.config.audio_channels
        clips = [
            clip
            for folder in folders
            for clip in full_band_clips(folder, per_folder, size, 14_000, channels, whole=True)
        ]
        self.truth = torch.stack(clips)
        self.lr_audio = apply_lowpass(self.truth, RATE, low_pass)
        self.cutoff_hz, self.passband_hz = cutoff_hz, low_pass.passband_hz(RATE)
        self.noise = segment_noise(model.config, [("solvers", i) for i in range(len(clips))])
        self.end_hz = torch.tensor([spectrum_end_hz(clip, RATE) for clip in self.truth])

    def quality(self, generated: Tensor) -> tuple[float, float, float]:
        """Mean LSD, mean band error (dB) and median level (dB) after the crossover."""
        found = low_frequency_replace(generated, self.lr_audio, self.passband_hz, RATE)
        error = high_band_error_db(found, self.truth, self.cutoff_hz, RATE, self.end_hz)
        gain = self._power_above(found) / self._power_above(self.truth)
        return (
            lsd(found, self.truth).mean().item(),
            error.mean().item(),
            10 * gain.log10().median().item(),
        )

    def _power_above(self, audio: Tensor) -> Tensor:
        """[B], power above the cutoff."""
        high = torch.fft.rfftfreq(audio.shape[-1], 1 / RATE) > self.cutoff_hz
        return torch.fft.rfft(audio)[..., high].abs().square().sum(dim=(1, 2))


@torch.no_grad()
def solve(model: SAGASRModel, clips: Clips, sampling: SamplingSection) -> tuple[Tensor, int]:
    """Generated audio [B, C, T] and the evaluations of the DiT per clip."""
    parts = []
    for lr_audio, noise in zip(clips.lr_audio.split(BATCH), clips.noise.split(BATCH), strict=True):
        cond = model.condition(lr_audio)
        parts.append(model.decode(generate(model, cond, noise, sampling)))
        branches = len(guidance(sampling, cond.text))
    return torch.cat(parts), len(solver_plan(sampling)) * branches


def rows(
    model: SAGASRModel, flags: argparse.Namespace
) -> Iterator[tuple[str, str, SamplingSection]]:
    for schedule in flags.schedules:
        for solver in flags.solvers:
            per_step = PER_STEP[solver]
            for steps in sorted({n // per_step for n in flags.evaluations if n >= per_step}):
                update = {"solver": solver, "num_steps": steps}
                update["emulate_linear_steps"] = round(SCHEDULES[schedule] * steps)
                yield solver, schedule, model.config.sampling.model_copy(update=update)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--audio_dir", type=Path, nargs="+", required=True)
    parser.add_argument("--clips", type=int, default=8, help="of each folder")
    parser.add_argument("--cutoff_hz", type=float, default=4000.0)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[4, 6, 8, 12, 16, 32, 64])
    parser.add_argument("--solvers", nargs="+", choices=PER_STEP, default=list(PER_STEP))
    parser.add_argument("--schedules", nargs="+", choices=SCHEDULES, default=list(SCHEDULES))
    flags = parser.parse_args()
    model = SAGASRModel.from_pretrained(flags.model)
    clips = Clips(model, flags.audio_dir, flags.clips, flags.cutoff_hz)
    update = {"solver": "ab2", "num_steps": REFERENCE_STEPS, "emulate_linear_steps": 1}
    reference, nfe = solve(model, clips, model.config.sampling.model_copy(update=update))
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {len(clips.truth)} clips of {model.config.duration_s:.2f} s\n")
    print("| solver | schedule | NFE | LSD | band error (dB) | level (dB) | distance (dB) |")
    print("|---|---|---|---|---|---|---|")
    form = "{:.3f} | {:.2f} | {:+.1f}".format
    print(f"| unprocessed | | 0 | {form(*clips.quality(clips.lr_audio))} | |")
    print(f"| ab2, the reference | linear | {nfe} | {form(*clips.quality(reference))} | |")
    for solver, schedule, sampling in rows(model, flags):
        generated, nfe = solve(model, clips, sampling)
        distance = (generated - reference).square().mean() / reference.square().mean()
        quality = form(*clips.quality(generated))
        cells = f"{solver} | {schedule} | {nfe} | {quality} | {10 * distance.log10():.1f}"
        print(f"| {cells} |", flush=True)


if __name__ == "__main__":
    main()
