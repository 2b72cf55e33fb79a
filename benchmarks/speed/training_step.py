"""What a training step costs, in parts, against the straightforward step, in one process.

    OMP_NUM_THREADS=1 python benchmarks/speed/training_step.py
    OMP_NUM_THREADS=1 python benchmarks/speed/training_step.py --bf16
    OMP_NUM_THREADS=1 python benchmarks/speed/training_step.py --model_config FULL.json \\
        --batch_size 1 --repeats 1 --bf16
    python benchmarks/speed/training_step.py --model_config FULL.json --device cuda --bf16 \\
        --batch_size 16 --peak_tflops 989

The baseline does what a first implementation does with stable-audio-tools: it decodes whole files
and filters forward and backward, encodes HR and LR one after the other through the VAE as it is
(weight norm computed each time, Snake in six passes), runs the DiT through its own forward
(activation checkpointing always on), steps an AdamW that is not fused and averages the weights one
by one. Both ways take turns. Paired latents (`saga_sr.pre_encode`) take the place of
the audio and leave out the encoding. The weights of the VAE are random: time does not depend on
them.

Worker processes prepare data beside the step, so data is a row of its own and not in the sums. On a
CPU the time is this process's processor time, which stays fair on a machine that does other things
as well; medians are reported. FLOPs are those of the DiT's forward and backward without activation
checkpointing; their utilisation is of ``--peak_tflops``, or else of a 2048 x 2048 matrix product
measured here.

Optimiser and averages of a model with more than 100 M trained parameters are measured on its first
layers and scaled by their share: all of it would need 21 GB.
"""

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# ruff: noqa: E402
import numpy as np
import soundfile
import torch
from data_loading import make_music, straightforward_item
from latent_set import write_synthetic_set
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from saga_sr.audio.index import AudioIndex
from saga_sr.config import EMASection, ModelConfig, load_model_config
from saga_sr.data.latent_dataset import LatentDataset
from saga_sr.dataset import ClipReader, SAGASRDataset
from saga_sr.flow import interpolate, target_velocity
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.training.ema import EMA
from saga_sr.weights import fold_weight_norm

MEASURED_PARAMETERS = 100_000_000
Stage = Callable[[], object]


# --- time ---------------------------------------------------------------------------------------


class Clock:
    """Seconds of named stages: processor time on a CPU, wall-clock time on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"

    def now(self) -> float:
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() if self.on_gpu else time.process_time()

    def medians(self, ways: list[dict[str, Stage]], repeats: int) -> list[dict[str, float]]:
        """Median seconds of every stage of every way; the ways take turns."""
        seconds: list[dict[str, list[float]]] = [{name: [] for name in way} for way in ways]
        for repeat in range(repeats + (repeats > 1)):  # the first warms up
            for way, kept in zip(ways, seconds, strict=True):
                for name, stage in way.items():
                    began = self.now()
                    stage()
                    took = self.now() - began
                    if repeat or repeats == 1:
                        kept[name].append(took)
        return [{n: statistics.median(t) for n, t in one.items()} for one in seconds]


def matmul_peak_tflops(device: torch.device, dtype: torch.dtype) -> float:
    size = 8192 if device.type == "cuda" else 2048
    matrix, clock = torch.randn(size, size, device=device).to(dtype), Clock(device)
    (found,) = clock.medians([{"product": lambda: matrix @ matrix}], 5)
    return 2 * size**3 / found["product"] / 1e12


# --- data ---------------------------------------------------------------------------------------


def data_stages(config: ModelConfig, batch_size: int, folder: Path) -> list[dict[str, Stage]]:
    """A batch's data: straightforward, from audio, from latents; on one core."""
    audio = folder / "audio"
    audio.mkdir()
    path = audio / "music.flac"
    soundfile.write(path, make_music(180.0, np.random.default_rng(0)), config.sample_rate)
    index = AudioIndex.scan([audio], cache_dir=folder / "cache", progress=False)
    reader = ClipReader(index, config.sample_size, config.sample_rate, config.audio_channels)
    from_audio = SAGASRDataset(reader, seed=0, compute_rolloff=True)
    write_synthetic_set(folder / "latents", config, 512)
    from_latents = LatentDataset([folder / "latents"], config, 0, compute_rolloff=True)
    rng, draws = np.random.default_rng(0), iter(range(1 << 62))

    def straightforward() -> None:
        for _ in range(batch_size):
            straightforward_item(path, rng, config.sample_size)

    def items_of(dataset: SAGASRDataset | LatentDataset) -> Stage:
        return lambda: [dataset[next(draws)] for _ in range(batch_size)]

    return [{"data": straightforward}, {"data": items_of(from_audio)},
            {"data": items_of(from_latents)}]  # fmt: skip


# --- the step -----------------------------------------------------------------------------------


class Step:
    """The stages of one training step on made-up audio, straightforward and as it is here."""

    def __init__(self, config: ModelConfig, options: argparse.Namespace) -> None:
        self.device = torch.device(options.device)
        torch.manual_seed(0)
        self.config, self.model = config, SAGASRModel(config).to(self.device).train()
        fold_weight_norm(self.model)
        self.model.pretransform.eval()
        self.autocast = torch.autocast(options.device, torch.bfloat16, enabled=options.bf16)
        shape = (options.batch_size, config.audio_channels, config.sample_size)
        self.hr, self.lr = (0.1 * torch.randn(shape, device=self.device) for _ in range(2))
        latent_shape = (shape[0], config.latent_dim, config.latent_length)
        self.latent, self.noise = torch.randn(2, *latent_shape, device=self.device)
        self.t = torch.rand(shape[0], device=self.device)
        self.loss: Tensor = torch.zeros(())
        self.trained = list(_first_parameters(self.model))
        every = sum(p.numel() for _, p in self.model.trainable())
        self.scale = every / sum(p.numel() for p in self.trained)
        if options.compile:
            self.model.dit.transformer.compile()

    def straightforward(self) -> dict[str, Stage]:
        encoder = _their_encoder(self.config).to(self.device)
        averages = [p.detach().clone() for p in self.trained]

        def encode() -> None:
            with torch.no_grad(), self.autocast:
                for audio in (self.hr, self.lr):
                    encoder(audio)

        def average() -> None:
            with torch.no_grad():
                for mean, parameter in zip(averages, self.trained, strict=True):
                    mean.lerp_(parameter, 0.001)

        return {
            "encode": encode,
            "forward": lambda: self._forward(self._their_velocity),
            "backward": lambda: self.loss.backward(),
            "optimiser": self._adamw(foreach=False),
            "EMA": average,
        }

    def ours(self) -> dict[str, Stage]:
        ema = EMA([(str(k), p) for k, p in enumerate(self.trained)], EMASection())

        def encode() -> None:
            with torch.no_grad(), self.autocast:
                self.model.encode(torch.cat([self.hr, self.lr]))

        return {
            "encode": encode,
            "forward": lambda: self._forward(self._our_velocity),
            "backward": lambda: self.loss.backward(),
            "optimiser": self._adamw(fused=True),
            "EMA": lambda: ema.update(1),
        }

    def _adamw(self, foreach: bool | None = None, fused: bool | None = None) -> Stage:
        """A step of AdamW; the first one, which makes its state, is behind it."""
        for parameter in self.trained:
            parameter.grad = torch.zeros_like(parameter)
        optimizer = torch.optim.AdamW(self.trained, lr=1e-9, foreach=foreach, fused=fused)
        optimizer.step()
        return optimizer.step

    def flops(self) -> int:
        with FlopCounterMode(display=False) as counter:
            self._forward(self._our_velocity)
            self.loss.backward()
        return counter.get_total_flops()

    def _forward(self, velocity: Callable[[Tensor], Tensor]) -> None:
        with self.autocast:
            answer = velocity(interpolate(self.latent, self.noise, self.t))
        error = answer.float() - target_velocity(self.latent, self.noise)
        self.loss = error.square().mean()

    def _our_velocity(self, x_t: Tensor) -> Tensor:
        return self.model.velocity(x_t, self.t, Conditioning(self.latent))

    def _their_velocity(self, x_t: Tensor) -> Tensor:
        """F0 through the DiT's own forward."""
        seconds = {"seconds_start": 0.0, "seconds_total": self.config.duration_s}
        embedded = [
            self.model.conditioners[name]([value] * len(x_t), x_t.device)[0][:, 0]
            for name, value in seconds.items()
        ]
        condition = torch.cat(embedded, dim=-1)
        return self.model.dit(x_t, self.t, input_concat_cond=self.latent, global_embed=condition)


def _first_parameters(model: SAGASRModel) -> Iterator[nn.Parameter]:
    count = 0
    for _, parameter in model.trainable():
        if count and count + parameter.numel() > MEASURED_PARAMETERS:
            return
        count += parameter.numel()
        yield parameter


def _their_encoder(config: ModelConfig) -> nn.Module:
    """The VAE's encoder as stable-audio-tools builds it; nothing where there is no VAE."""
    section = config.model.pretransform
    if section.type != "autoencoder":
        raise SystemExit("the pretransform of this config is no autoencoder")
    from stable_audio_tools.models.autoencoders import create_autoencoder_from_config

    raw = section.config.model_dump(mode="json")
    network = create_autoencoder_from_config({"sample_rate": config.sample_rate, "model": raw})
    return network.encoder.requires_grad_(False).eval()


# --- report -------------------------------------------------------------------------------------


def report(step: Step, options: argparse.Namespace) -> None:
    clock = Clock(step.device)
    ways = [step.straightforward(), step.ours()]
    theirs, ours = clock.medians(ways, options.repeats)
    for seconds in (theirs, ours):
        for part in ("optimiser", "EMA"):
            seconds[part] *= step.scale
    with tempfile.TemporaryDirectory() as folder:
        stages = data_stages(step.config, options.batch_size, Path(folder))
        data = [one["data"] for one in clock.medians(stages, max(3, options.repeats))]
    print("| part | straightforward (s) | from audio (s) | ratio | from latents (s) |")
    print("|---|---|---|---|---|")
    print(f"| data (180 s FLAC), in workers | {data[0]:.4f} | {data[1]:.4f} "
          f"| {data[0] / data[1]:.1f} | {data[2]:.4f} |")  # fmt: skip
    for part, now in ours.items():
        latents = "-" if part == "encode" else f"{now:.3f}"
        print(f"| {part} | {theirs[part]:.3f} | {now:.3f} | {theirs[part] / now:.2f} | {latents} |")
    before, now = sum(theirs.values()), sum(ours.values())
    from_latents = now - ours["encode"]
    print(f"| **step** | {before:.3f} | {now:.3f} | **{before / now:.2f}** | {from_latents:.3f} |")
    print(
        f"\nA step from paired latents is **{now / from_latents:.1f}** times as fast as one from "
        f"audio, and {before / from_latents:.1f} times as fast as the straightforward one."
    )
    report_utilisation(step, ours["forward"] + ours["backward"], from_latents, options)


def report_utilisation(
    step: Step, learning_s: float, step_s: float, options: argparse.Namespace
) -> None:
    flops = step.flops()
    dtype = torch.bfloat16 if options.bf16 else torch.float32
    peak = options.peak_tflops or matmul_peak_tflops(step.device, dtype)
    source = "given" if options.peak_tflops else "measured, 2048 x 2048 product"
    print(
        f"Forward and backward: {flops / 1e9:.0f} GFLOP, {flops / learning_s / 1e12:.3f} TFLOP/s. "
        f"Peak: {peak:.3f} TFLOP/s ({source}). Model FLOP utilisation: "
        f"{flops / learning_s / peak / 1e12:.0%} of forward and backward, "
        f"{flops / step_s / peak / 1e12:.0%} of the step from latents."
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model_config", type=Path, default=ROOT / "saga_model_config_small.json")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true", help="torch.compile our DiT")
    parser.add_argument("--peak_tflops", type=float, help="dense peak of the device")
    return parser


def main() -> None:
    options = build_parser().parse_args()
    warnings.simplefilter("ignore")
    config = load_model_config(options.model_config)
    print(
        f"\n{options.model_config.name}, {options.batch_size} clips of {config.duration_s:.2f} s, "
        f"{'bf16' if options.bf16 else 'fp32'}, {options.device}, {torch.get_num_threads()} "
        f"thread(s), torch {torch.__version__}, median of {options.repeats}\n",
        flush=True,
    )
    report(Step(config, options), options)


if __name__ == "__main__":
    main()
