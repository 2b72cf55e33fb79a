"""Few evaluations: distilled students against their teacher with every solver, held out.

    python benchmarks/quality/few_steps.py --model TEACHER --student STUDENT \\
        --audio_dir corpus/val/music corpus/val/speech corpus/val/effects --output docs/few_steps

Segments of the model's own length, spread over the files of each folder, are low-passed
(Chebyshev-1, order 8) at ``--cutoff_hz``, restored, and joined by the soft crossover at the end of
the passband. The teacher runs on the schedule of its own ``sampling`` block, with its guidance; a
student on even steps. NFE is the number of evaluations of the DiT per segment, the branches of
eq. (4) counted. Everything but solver and steps is fixed: segments, low-pass, noise.

    FD            Frechet distance of all segments from their truths (`metrics.offline_embedding`)
    behind        by how much it exceeds the teacher's least, of any solver and number of steps
    texture       `texture_db`: what the band above the cutoff is made of
    LSD, band     as `python -m saga_sr.evaluate` has them, mean over segments
    level         above the cutoff, of the result against the truth, in the median of the segments
    off           how far above the cutoff the result is from where the teacher's flow really ends
                  (`END_STEPS` of midpoint), against the start's distance from there, in the median:
                  what a student, or a solver, is asked for, whatever that is worth

The baselines are the unprocessed input and the teacher's start, the noise that its flow begins
with, decoded. ``--output`` gets table.md and plot.png. The exit code is 1
where a student of four steps is more than 5 % behind, or a student at as many steps as it was made
for is not ahead of every solver that evaluates as often.
"""

import argparse
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from saga_sr import metrics
from saga_sr.audio.band_end import spectrum_end_hz
from saga_sr.audio.index import AudioIndex
from saga_sr.config import ModelConfig
from saga_sr.lowfreq import low_frequency_replace
from saga_sr.lowpass import apply_lowpass, field_lowpass
from saga_sr.model import SAGASRModel
from saga_sr.restore import restore, segment_noise
from saga_sr.sampler import guidance, solver_plan
from saga_sr.support.files import write_text_atomic
from saga_sr.support.naming import named_folders
from saga_sr.support.tables import DPI, markdown_table, number, save_figure

BATCH = 8
ENOUGH_HZ = 14_000.0  # where the spectrum of a segment must end, at least
TURNS = 64  # through the files of a folder, a segment of each in turn
PER_STEP = {"euler": 1, "ab2": 1, "midpoint": 2, "heun": 2}
END_STEPS = 32
ALLOWED_BEHIND = 0.05  # of a student of four steps
PLOTTED = ("FD", "texture (dB)", "LSD", "band error (dB)")


@dataclass(frozen=True)
class Row:
    """One sampler: who evaluates how often, and what came of it (`PLOTTED`, level)."""

    name: str
    solver: str
    nfe: int
    values: dict[str, float]


def segments(folder: Path, most: int, config: ModelConfig) -> Iterator[Tensor]:
    """Up to ``most`` segments [C, T], of every file in turn, whose spectrum ends high enough."""
    rate, size = config.sample_rate, config.sample_size
    index = AudioIndex.scan([folder], progress=False)
    frames = [
        index.header(i).frames * rate // index.header(i).sample_rate for i in range(len(index))
    ]
    files = [i for i, length in enumerate(frames) if length >= size]
    files = files[:: max(1, len(files) // most)]
    for turn in range(TURNS):
        for position in files:
            start = round((0.5 + 0.618 * turn) % 1 * (frames[position] - size))
            clip = torch.from_numpy(index.read(position, start, size, rate))
            if len(clip) != config.audio_channels:
                clip = clip.mean(0, keepdim=True).expand(config.audio_channels, -1)
            if spectrum_end_hz(clip, rate) > ENOUGH_HZ:
                yield clip
                most -= 1
            if most == 0:
                return


class Segments:
    """Truths, inputs and noise, the same for everybody.

    Args:
        config: of the teacher.
        folders: of audio.
        per_folder: how many segments of each.
        cutoff_hz: of the low-pass.
    """

    def __init__(
        self, config: ModelConfig, folders: Sequence[Path], per_folder: int, cutoff_hz: float
    ):
        self.rate, self.cutoff_hz, lowpass = config.sample_rate, cutoff_hz, field_lowpass(cutoff_hz)
        self.truth = torch.stack([s for f in folders for s in segments(f, per_folder, config)])
        self.end_hz = torch.tensor([spectrum_end_hz(clip, self.rate) for clip in self.truth])
        self.lr_audio = apply_lowpass(self.truth, self.rate, lowpass)
        self.passband_hz = lowpass.passband_hz(self.rate)
        keys = [("few steps", i) for i in range(len(self.truth))]
        self.noise = segment_noise(config, keys)
        self._truths = self._embedded(self.truth)
        self.start = self.end = self.lr_audio  # of the teacher's flow: `follow`

    def follow(self, model: SAGASRModel, bf16: bool) -> None:
        """Keep where the teacher's flow starts and ends."""
        self.start, _ = restored(model, self, "euler", 0, False)
        self.end, _ = restored(model, self, "midpoint", END_STEPS, bf16)

    def quality(self, audio: Tensor) -> dict[str, float]:
        """What restored (or unprocessed) audio is worth."""
        pair = (audio, self.truth, self.cutoff_hz, self.rate, self.end_hz)
        gain = self._power_above(audio) / self._power_above(self.truth)
        found = {
            "FD": metrics.frechet_distance(self._embedded(audio), self._truths),
            "texture (dB)": metrics.texture_db(*pair).nanmean().item(),
            "LSD": metrics.lsd(audio, self.truth, "saga", self.rate, None, self.end_hz)
            .mean()
            .item(),
            "band error (dB)": metrics.high_band_error_db(*pair).mean().item(),
        }
        off = self._power_above(audio - self.end) / self._power_above(self.start - self.end)
        return found | {
            "level (dB)": 10 * gain.log10().median().item(),
            "off (dB)": 10 * off.log10().median().item(),
        }

    def _embedded(self, audio: Tensor) -> Tensor:
        return torch.cat([metrics.offline_embedding(clip, self.rate) for clip in audio])

    def _power_above(self, audio: Tensor) -> Tensor:
        """[B], power above the cutoff."""
        high = torch.fft.rfftfreq(audio.shape[-1], 1 / self.rate) > self.cutoff_hz
        return torch.fft.rfft(audio)[..., high].abs().square().sum(dim=(1, 2)) + 1e-12


@torch.no_grad()
def restored(
    model: SAGASRModel, clips: Segments, solver: str, steps: int, bf16: bool
) -> tuple[Tensor, int]:
    """All segments in ``steps`` steps of ``solver``, and how often that evaluates the DiT; without
    a step what the model makes without its DiT."""
    if steps:
        sampling = model.config.with_num_steps(steps).replacing("sampling.solver", solver).sampling
    else:
        sampling = model.config.sampling.model_copy(update={"num_steps": 0})
    passband_hz = torch.full((len(clips.truth),), clips.passband_hz)
    parts, branches = [], 1
    batches = (clips.lr_audio, clips.noise, passband_hz)
    for lr_audio, noise, end_hz in zip(*(one.split(BATCH) for one in batches), strict=True):
        cond = model.condition(lr_audio, passband_hz=end_hz)
        branches = len(guidance(sampling, cond.text))
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            parts.append(restore(model, cond, noise, sampling).float())
    joined = low_frequency_replace(torch.cat(parts), clips.lr_audio, clips.passband_hz, clips.rate)
    return joined, len(solver_plan(sampling)) * branches if steps else 0


def measured(
    name: str, model: SAGASRModel, clips: Segments, solver: str, steps: int, bf16: bool
) -> Row:
    """Restore all segments in ``steps`` steps of ``solver`` and measure them."""
    audio, nfe = restored(model, clips, solver, steps, bf16)
    return Row(name, solver, nfe, clips.quality(audio))


def table(rows: Sequence[Row], least: float) -> str:
    """All rows in Markdown; ``least`` is the teacher's least FD."""
    header = ["", "solver", "NFE", "FD", "behind", *list(rows[0].values)[1:]]
    lines = []
    for row in rows:
        distance, *others = row.values.values()
        behind = f"{100 * (distance / least - 1):+.1f} %"
        cells = [f"{distance:.3f}", behind, *map(number, others)]
        lines.append([row.name, row.solver, str(row.nfe), *cells])
    return markdown_table(header, lines)


def plot(rows: Sequence[Row]) -> Figure:
    """Quality against NFE, a panel per metric; the unprocessed input (NFE 0) is left out."""
    figure = Figure(figsize=(11, 7), layout="constrained", dpi=DPI)
    for axes, metric in zip(figure.subplots(2, 2).flat, PLOTTED, strict=True):
        for name, solver in dict.fromkeys((row.name, row.solver) for row in rows if row.nfe):
            ours = [row for row in rows if (row.name, row.solver) == (name, solver)]
            ours.sort(key=lambda row: row.nfe)
            taught = solver == "own steps"
            axes.plot(
                [row.nfe for row in ours],
                [row.values[metric] for row in ours],
                marker="o",
                linewidth=2.5 if taught else 1.2,
                label=f"{name}, {solver}",
            )
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("evaluations of the DiT")
        axes.set_ylabel(metric)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    return figure


def shortcomings(
    rows: Sequence[Row], teacher: str, made_for: dict[str, Sequence[int]]
) -> list[str]:
    """Where a student does not do what it was made for; ``made_for``: student -> steps."""
    taught = [row for row in rows if row.name == teacher]
    least = min(row.values["FD"] for row in taught)
    found = []
    for row in rows:
        if row.nfe not in made_for.get(row.name, ()):
            continue
        distance = row.values["FD"]
        if row.nfe == 4 and distance > (1 + ALLOWED_BEHIND) * least:
            found.append(f"{row.name}: at 4 it is {100 * (distance / least - 1):.1f} % behind")
        for other in taught:
            if other.nfe == row.nfe and other.values["FD"] <= distance:
                found.append(f"{row.name}: at {row.nfe} {other.solver} is ahead of it")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="[NAME=]FOLDER", help="the teacher")
    parser.add_argument("--student", nargs="+", default=[], metavar="[NAME=]FOLDER")
    parser.add_argument("--audio_dir", type=Path, nargs="+", required=True)
    parser.add_argument("--clips", type=int, default=48, help="segments of each folder")
    parser.add_argument("--cutoff_hz", type=float, default=4000.0)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 100])
    parser.add_argument("--solvers", nargs="+", choices=PER_STEP, default=list(PER_STEP))
    parser.add_argument("--bf16", action="store_true", help="sample in bfloat16")
    parser.add_argument("--output", type=Path, required=True, help="folder of table.md, plot.png")
    flags = parser.parse_args()
    [(teacher, folder)] = named_folders([flags.model], "--model")
    model = SAGASRModel.from_pretrained(folder)
    clips = Segments(model.config, flags.audio_dir, flags.clips, flags.cutoff_hz)
    clips.follow(model, flags.bf16)
    rows = [
        Row("unprocessed", "", 0, clips.quality(clips.lr_audio)),
        Row("start", "", 0, clips.quality(clips.start)),
    ]
    for solver in flags.solvers:
        for steps in sorted({n // PER_STEP[solver] for n in flags.evaluations} - {0}):
            rows.append(measured(teacher, model, clips, solver, steps, flags.bf16))
            print(rows[-1], flush=True)
    made_for = {}
    for name, folder in named_folders(flags.student, "--student"):
        model = SAGASRModel.from_pretrained(folder)
        made_for[name] = model.config.model.diffusion.student_steps or ()
        for steps in sorted(set(flags.evaluations)):
            row = measured(name, model, clips, "euler", steps, flags.bf16)
            rows.append(Row(row.name, "own steps", row.nfe, row.values))
            print(rows[-1], flush=True)
    least = min(row.values["FD"] for row in rows if row.name == teacher)
    machine = platform.processor() or platform.machine()
    title = f"{machine}, {len(clips.truth)} segments of {model.config.duration_s:.2f} s"
    text = f"{title}, {clips.cutoff_hz / 1000:g} kHz\n\n{table(rows, least)}\n"
    write_text_atomic(flags.output / "table.md", text)
    save_figure(plot(rows), flags.output / "plot.png")
    print(f"\n{text}")
    problems = shortcomings(rows, teacher, made_for)
    print("\n".join(problems) or "The students do what they were made for.")
    return bool(problems)


if __name__ == "__main__":
    raise SystemExit(main())
