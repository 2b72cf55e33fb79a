"""What a training step costs, in parts, against the straightforward step, in one process.

    python benchmarks/training_step.py --model_config saga_model_config_small.json
    python benchmarks/training_step.py --model_config saga_model_config.json --device cuda --bf16

The baseline does what a first implementation does with stable-audio-tools: it encodes HR and LR one
after the other through the VAE as it is (weight norm computed each time, Snake in six passes), runs
the DiT through its own forward (activation checkpointing always on), steps an AdamW that is not
fused and averages the weights one by one. The weights of the VAE are random: time does not depend
on them. Paired latents (saga_sr.pre_encode) leave out the encoding.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent.parent))

from saga_sr.config import EMASection, load_model_config
from saga_sr.ema import EMA
from saga_sr.flow import interpolate, target_velocity
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.weights import fold_weight_norm


class Parts:
    """Median seconds of named parts."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self.repeats = device, repeats
        self.seconds: dict[str, float] = {}

    def measure(self, name: str, run: Callable[[], object]) -> None:
        times = []
        for _ in range(self.repeats + 1):  # the first is a warm-up
            self._wait()
            start = time.perf_counter()
            run()
            self._wait()
            times.append(time.perf_counter() - start)
        self.seconds[name] = sorted(times[1:])[self.repeats // 2]

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def straightforward_encoder(model: SAGASRModel) -> Callable[[Tensor], Tensor]:
    """The VAE's encoder as stable-audio-tools builds it."""
    from stable_audio_tools.models.autoencoders import create_autoencoder_from_config

    raw = model.config.model.pretransform.config.model_dump(mode="json")
    rate = model.config.sample_rate
    network = create_autoencoder_from_config({"sample_rate": rate, "model": raw})
    network = network.to(next(model.parameters()).device).requires_grad_(False)
    return lambda audio: network.encoder(audio).chunk(2, dim=1)[0]


def straightforward_forward(model: SAGASRModel, x_t: Tensor, t: Tensor, lr: Tensor) -> Tensor:
    """F0 through the DiT's own forward."""
    seconds = {"seconds_start": 0.0, "seconds_total": model.config.duration_s}
    embedded = [
        model.conditioners[n]([v] * len(t), x_t.device)[0][:, 0] for n, v in seconds.items()
    ]
    return model.dit(x_t, t, input_concat_cond=lr, global_embed=torch.cat(embedded, dim=-1))


def update_one_by_one(averages: list[Tensor], parameters: list[Tensor], decay: float) -> None:
    with torch.no_grad():
        for average, parameter in zip(averages, parameters, strict=True):
            average.lerp_(parameter, 1 - decay)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model_config", default="saga_model_config_small.json")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--peak_tflops", type=float, help="dense peak, for the FLOP utilisation")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    device = torch.device(options.device)
    config = load_model_config(options.model_config)
    torch.manual_seed(0)
    model = SAGASRModel(config).to(device).train()
    fold_weight_norm(model)
    shape = (options.batch_size, config.audio_channels, config.sample_size)
    hr, lr = 0.1 * torch.randn(shape, device=device), 0.1 * torch.randn(shape, device=device)
    latent = torch.randn(shape[0], config.latent_dim, config.latent_length, device=device)
    noise, t = torch.randn_like(latent), torch.rand(shape[0], device=device)
    parameters = [p for _, p in model.trainable()]
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=options.bf16)
    ours, theirs = Parts(device, options.repeats), Parts(device, options.repeats)

    def learn(velocity: Tensor) -> None:
        loss = (velocity.float() - target_velocity(latent, noise)).square().mean()
        loss.backward()

    x_t = interpolate(latent, noise, t)
    cond = Conditioning(latent)
    with autocast:
        if model.pretransform.needs_weights:
            encode = straightforward_encoder(model)
            with torch.no_grad():
                theirs.measure("encode", lambda: (encode(hr), encode(lr)))
                ours.measure("encode", lambda: model.encode(torch.cat([hr, lr])))
        else:
            with torch.no_grad():
                theirs.measure("encode", lambda: (model.encode(hr), model.encode(lr)))
                ours.measure("encode", lambda: model.encode(torch.cat([hr, lr])))
        theirs.measure(
            "forward + backward",
            lambda: learn(straightforward_forward(model, x_t, t, latent)),
        )
        ours.measure("forward + backward", lambda: learn(model.velocity(x_t, t, cond)))
    for parts, fused in ((theirs, False), (ours, True)):
        keywords = {"fused": True} if fused else {"foreach": False}
        optimizer = torch.optim.AdamW(parameters, lr=1e-9, **keywords)
        parts.measure("optimiser", optimizer.step)
        del optimizer
    ema = EMA(model.trainable(), EMASection())
    theirs.measure("EMA", lambda: update_one_by_one(list(ema.averages.values()), parameters, 0.999))
    ours.measure("EMA", lambda: ema.update(1))

    print(
        f"\n{options.model_config}, {shape[0]} clips of {config.duration_s:.2f} s, {device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}\n"
    )
    print("| part | straightforward (s) | here (s) | ratio |\n|---|---|---|---|")
    for name, seconds in ours.seconds.items():
        ratio = theirs.seconds[name] / seconds
        print(f"| {name} | {theirs.seconds[name]:.3f} | {seconds:.3f} | {ratio:.2f} |")
    before, now = sum(theirs.seconds.values()), sum(ours.seconds.values())
    latents = now - ours.seconds["encode"]
    print(f"| **step on the fly** | {before:.3f} | {now:.3f} | **{before / now:.2f}** |")
    print(
        f"| **step from paired latents** | {now:.3f} (on the fly, here) | {latents:.3f} | "
        f"**{now / latents:.1f}** |"
    )
    with FlopCounterMode(display=False) as counter:
        learn(model.velocity(x_t, t, cond))
    rate = counter.get_total_flops() / ours.seconds["forward + backward"] / 1e12
    print(
        f"\nforward + backward: {counter.get_total_flops() / 1e9:.0f} GFLOP at {rate:.3f} TFLOP/s"
    )
    if options.peak_tflops:
        print(
            f"model FLOP utilisation of the step: "
            f"{counter.get_total_flops() / latents / 1e12 / options.peak_tflops:.1%} from latents"
        )


if __name__ == "__main__":
    main()
