"""What `make gpu-check` measures, a function a section.

Every section runs in a process of its own, from a `Machine` and `Sizes` alone; a rehearsal runs the
same functions with `TINY` on the CPU.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soundfile
import torch
from data_loading import make_music
from device_lowpass import measure as measure_lowpass
from tiny_models import shipped, text_and_rolloff, tiny_vae
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.commands import DEMO_MODEL, ROOT, run_commands
from benchmarks.gpu.machine import GIB, Machine
from benchmarks.gpu.models import Training, built, conditions
from benchmarks.gpu.parallel import compare_processes
from benchmarks.gpu.report import Report
from saga_sr.audio.bandwidth import BandTrack
from saga_sr.audio.streams import ArraySource
from saga_sr.config import ModelConfig, SamplingSection, parse_model_config, student_config
from saga_sr.families import create_pretransform
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.sampler import Branch, guidance, sample, solver_plan
from saga_sr.upsample.longform import Settings, restore_stream

RATE = 44100
PAPER_CLIPS = 256  # of an optimiser step
STUDENT_STEPS, FEW_STEPS = (1, 2, 4), 4
MOST_UPSAMPLE_S = 15.0
COUNTED_GIB = 14.79  # of the recipe for 24 GB (docs/multi_gpu.md)
COUNTED_TAUGHT_GIB = 19.09  # with a teacher (docs/gpu/counts.md)


@dataclass(frozen=True)
class Sizes:
    """Attributes:
    config: F2.
    repeats: of what is timed.
    windows: sampled at once: one, and as many as `upsample` takes on a GPU.
    steps: of the teacher.
    audio_s: restored at most; a slow card gets less.
    clips: tried for a micro-batch, the largest that the card holds is taken.
    encoded: clips that the VAE encodes at once.
    compiler: backend of ``torch.compile``.
    demo_steps, demo_s: of the end-to-end run; seconds of audio.
    """

    config: ModelConfig
    repeats: int
    windows: tuple[int, int]
    steps: int
    audio_s: float
    clips: tuple[int, ...]
    encoded: int
    compiler: str
    demo_steps: int
    demo_s: float


REAL = Sizes(
    parse_model_config(text_and_rolloff(shipped("saga_model_config.json"))),
    repeats=7, windows=(1, 16), steps=100, audio_s=90.0, clips=(64, 32, 16, 8, 4, 2, 1),
    encoded=4, compiler="inductor", demo_steps=50, demo_s=6.0,
)  # fmt: skip
_THIN = {"channels": 16, "c_mults": [1, 1]}
_TINY = text_and_rolloff(tiny_vae())
for _half in ("encoder", "decoder"):
    # Not as thin as the tests': on CPUs with AMX, bfloat16 convolutions (oneDNN, torch 2.11) of
    # fewer than 16 channels and 64 or more channels x taps are wrong.
    _TINY["model"]["pretransform"]["config"][_half]["config"] |= _THIN
TINY = Sizes(
    parse_model_config(_TINY),
    repeats=1, windows=(1, 2), steps=3, audio_s=0.3, clips=(2,),
    encoded=2, compiler="aot_eager", demo_steps=1, demo_s=1.5,
)  # fmt: skip


def relative(value: Tensor, truth: Tensor) -> float:
    """Norm of the difference over that of ``truth``."""
    return float((value.float() - truth.float()).norm() / truth.float().norm())


def decibels(ratio: float) -> float:
    """Of amplitudes; an error of nothing is -240."""
    return 20 * math.log10(max(ratio, 1e-12))


@contextmanager
def strict_float32() -> Iterator[None]:
    """No TF32, which torch lets cuDNN's convolutions use by default."""
    kept = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = kept


# --- the sections -------------------------------------------------------------------------------
def card(machine: Machine, sizes: Sizes, report: Report) -> None:
    facts = machine.facts
    peak, source = machine.peak_tflops()
    product = machine.product_tflops()
    report.say(
        f"{facts.count} x {facts.name}, {facts.memory_bytes / GIB:.1f} GiB, {facts.details}. "
        f"Dense bfloat16 peak: {peak:.4g} TFLOP/s ({source}); a product of two large bfloat16 "
        f"matrices reaches {product:.4g} TFLOP/s, {product / peak:.0%} of it."
    )


def precision(machine: Machine, sizes: Sizes, report: Report) -> None:
    """bfloat16 against float32: velocity, loss, gradient of the same training step."""
    training = Training(sizes.config, machine, 2)
    module, model = training.module, training.module.model
    module.ema.averages.clear()  # room for a second set of gradients
    parameters = [p for _, p in model.trainable()]
    velocities, losses, gradients = [], [], []
    with strict_float32():
        for bf16 in (False, True):
            z_h, cond = module.encode_batch(training.batch)
            t, noise, *_ = module.draw(training.batch, like=z_h)
            with torch.no_grad(), machine.bf16(bf16):
                velocities.append(model.velocity(noise, t, cond).float())
            losses.append(float(training.micro_step(bf16)))
            gradients.append([p.grad for p in parameters])
            for parameter in parameters:
                parameter.grad = None
    dots = [
        sum(float((a * b).sum()) for a, b in zip(gradients[i], gradients[j], strict=True))
        for i, j in ((0, 1), (0, 0), (1, 1))
    ]
    error, cosine = relative(velocities[1], velocities[0]), dots[0] / (dots[1] * dots[2]) ** 0.5
    report.agrees("velocity in bfloat16, error", 100 * error, 3, " %")
    report.agrees("loss in bfloat16, error", 100 * abs(losses[1] / losses[0] - 1), 1, " %")
    report.agrees("gradient in bfloat16, 1 - cosine", 1 - cosine, 0.02)
    report.say(f"Loss {losses[0]:.6f} in float32 without TF32, {losses[1]:.6f} in bf16-mixed.")


@torch.no_grad()
def vae(machine: Machine, sizes: Sizes, report: Report) -> None:
    """The VAE in float32, as it runs, and under autocast."""
    config, clips = sizes.config, sizes.encoded
    torch.manual_seed(0)
    with machine.device:
        pretransform = create_pretransform(config)
        audio = 0.1 * torch.randn(clips, config.audio_channels, config.sample_size)
        latent = torch.randn(clips, config.latent_dim, config.latent_length)
    pretransform.fold_weight_norm()
    unguarded = type(pretransform).decode.__wrapped__  # autocast does not reach `decode` itself
    parts: dict[str, Callable[[], Tensor]] = {
        "encode": partial(pretransform.encode, audio),
        "decode": partial(unguarded, pretransform, latent),
    }

    def strictly(part: Callable[[], Tensor]) -> Tensor:
        with strict_float32():
            return part()

    def cast(part: Callable[[], Tensor]) -> Tensor:
        with machine.bf16():
            return part().float()

    rows = []
    for name, part in parts.items():
        ways = [partial(strictly, part), part, partial(cast, part)]
        truth, *others = (way() for way in ways)
        errors = [relative(one, truth) for one in others]
        seconds = machine.seconds(ways, sizes.repeats)
        shown = [f"{1000 * s / clips:.2f}" for s in seconds]
        in_db = [f"{decibels(error):.1f}" for error in errors]
        rows.append([name, *shown, *in_db, f"{seconds[1] / seconds[2]:.2f}"])
        if name == "encode":
            report.agrees("latent encoded under autocast, error", 100 * errors[1], 3, " %")
        else:
            report.at_most(
                "audio decoded as it is (TF32 in cuDNN), error", float(in_db[0]), -60, " dB"
            )
    report.table(
        ("one clip", "float32, ms", "as it is, ms", "autocast, ms", "error as it is, dB",
         "error of autocast, dB", "speed of autocast"), rows,
    )  # fmt: skip
    report.say(
        "*As it is* is float32 with torch's defaults, TF32 in cuDNN's convolutions; errors are "
        f"against float32 without it. {clips} clips of {config.duration_s:.2f} s at once, random "
        "weights. `decode` leaves autocast by itself; here it was kept inside."
    )


@torch.no_grad()
def sampling(machine: Machine, sizes: Sizes, report: Report) -> None:
    """Eq. (4) by the teacher, one branch by a student; CUDA graphs; real-time factors."""
    student = student_config(sizes.config, STUDENT_STEPS)
    teacher = sizes.config.replacing("sampling.num_steps", sizes.steps)
    rows = []
    for who, config, target in (("teacher", teacher, 20), ("student", student, 200)):
        model, count = built(config, machine), config.sampling.num_steps
        for windows in sizes.windows:
            noise, cond = conditions(config, machine, windows)
            terms = guidance(config.sampling, cond.text)
            vae = [partial(_encoded, model, windows), partial(model.decode, cond.lr_latent)]
            encode_s, decode_s = machine.seconds(vae, 1)
            velocity = partial(_velocity, model, cond, terms)
            t = torch.full((windows,), 0.5, device=machine.device)
            with machine.bf16():
                ways = [velocity, machine.graphed(velocity, noise, t, t / 2)]
                steps = solver_plan(SamplingSection(num_steps=FEW_STEPS))
                eager, graphed = (sample(way, noise, steps) for way in ways)
                timed = [partial(way, noise, t, t / 2) for way in ways]
                eager_s, graph_s = machine.seconds(timed, sizes.repeats)
            report.agrees(
                f"{who}, {windows} windows: CUDA graph against eager, error",
                100 * relative(graphed, eager), 0.5, " %",
            )  # fmt: skip
            factors = [
                windows * config.duration_s / (encode_s + count * one_s + decode_s)
                for one_s in (eager_s, graph_s)
            ]
            milliseconds = [1000 * one_s for one_s in (eager_s, graph_s)]
            rows.append([
                f"{who}, {count} x {len(terms)}, {windows} at once",
                *(f"{value:.2f}" for value in (*milliseconds, eager_s / graph_s)),
                *(f"{value:.1f}" for value in (1000 * encode_s, 1000 * decode_s, *factors)),
            ])  # fmt: skip
        report.at_least(
            f"`upsample`, {who}, {count} x {len(terms)} evaluations: real-time factor",
            _upsampled(machine, sizes, model, count * eager_s / windows), target,
        )  # fmt: skip
    report.table(
        ("evaluations x branches, windows", "eager, ms", "graph, ms", "ratio", "encode, ms",
         "decode, ms", "real-time factor", "with graphs"), rows,
    )  # fmt: skip
    report.say(
        "An evaluation in bfloat16 with its branches in one batch; the VAE in float32. The factors "
        "are seconds of audio over encoding, all evaluations and decoding. `upsample` also reads, "
        "measures, crosses over, and casts the weights anew in each evaluation."
    )


def _velocity(
    model: SAGASRModel,
    cond: Conditioning,
    terms: list[tuple[float, Branch]],
    x: Tensor,
    t: Tensor,
    until: Tensor,
) -> Tensor:
    return model.guided_velocity(x, t, cond, terms, until)


def _encoded(model: SAGASRModel, windows: int) -> Tensor:
    config, device = model.config, next(model.parameters()).device
    return model.condition(
        0.1 * torch.randn(windows, config.audio_channels, config.sample_size, device=device)
    ).lr_latent


def _upsampled(machine: Machine, sizes: Sizes, model: SAGASRModel, window_s: float) -> float:
    """Real-time factor of a whole file as `saga_sr.upsample` does it, crossover included.

    Args:
        window_s: what a window takes at least, so that a slow card gets a shorter file.
    """
    config = model.config
    most_s = MOST_UPSAMPLE_S / window_s * config.duration_s
    seconds = max(2 * config.duration_s, min(sizes.audio_s, most_s))
    music = make_music(seconds, np.random.default_rng(0)).T.astype(np.float32)
    source = ArraySource(torch.from_numpy(music), RATE)
    assert config.text is not None
    text = torch.ones(1, config.text.max_length, config.text.dim)
    chosen = Settings(
        config.sampling,
        BandTrack.constant(4000.0),
        target_rolloff_hz=16_000.0,
        text=lambda _: text,
        batch=sizes.windows[-1],
        autocast=torch.bfloat16,
    )
    (took_s,) = machine.seconds([lambda: list(restore_stream(model, source, chosen))], 1)
    return music.shape[1] / RATE / took_s


def step(machine: Machine, sizes: Sizes, report: Report) -> None:
    """Utilisation of the paper's step of 256 clips from prepared latents."""
    clips, flags = _arrangement(machine, sizes)
    training = Training(sizes.config, machine, clips, *flags)
    with FlopCounterMode(display=False) as counter:
        training.micro_step()
    training.update()
    micro_s, update_s = machine.seconds([training.micro_step, training.update], sizes.repeats)
    peak, source = machine.peak_tflops()
    flops = counter.get_total_flops()
    accumulated = max(1, PAPER_CLIPS // clips)
    step_s = accumulated * micro_s + update_s

    def used(seconds: float, times: int = 1) -> float:
        return 100 * times * flops / seconds / peak / 1e12

    model = training.module.model
    audio = torch.randn(
        2 * sizes.encoded, sizes.config.audio_channels, sizes.config.sample_size,
        device=machine.device,
    )  # fmt: skip
    with torch.no_grad(), machine.bf16():
        (encode_s,) = machine.seconds([lambda: model.encode(audio)], 1)
    encode_s *= PAPER_CLIPS / sizes.encoded
    rows = [
        ["forward and backward", str(clips), f"{1000 * micro_s:.1f}", f"{used(micro_s):.1f}"],
        ["clipping, AdamW, averages", "-", f"{1000 * update_s:.1f}", "-"],
        ["a step of one micro-batch", str(clips), f"{1000 * (micro_s + update_s):.1f}",
         f"{used(micro_s + update_s):.1f}"],
        [f"the paper's step, {accumulated} micro-batches", str(accumulated * clips),
         f"{1000 * step_s:.1f}", f"{used(step_s, accumulated):.1f}"],
        ["the same from audio: encoding HR and LR before it", str(accumulated * clips),
         f"{1000 * (step_s + encode_s):.1f}", f"{used(step_s + encode_s, accumulated):.1f}"],
    ]  # fmt: skip
    report.table(("part", "clips", "ms", "of the peak, %"), rows)
    reached = used(step_s, accumulated)
    report.at_least("utilisation of the paper's step from latents", reached, 45, " %")
    report.say(
        f"F2 with text, {clips} clips of {sizes.config.duration_s:.2f} s in a micro-batch, "
        f"bfloat16 autocast, flags: {' '.join(flags) or 'none'}. {flops / clips / 1e9:.0f} GFLOP "
        f"a clip, forward and backward; peak {peak:.4g} TFLOP/s ({source})."
    )


def _arrangement(machine: Machine, sizes: Sizes) -> tuple[int, list[str]]:
    """Clips of a micro-batch, by the count of docs/multi_gpu.md, and the flags that they need."""
    memory = machine.facts.memory_bytes / GIB
    flags, base = [], 21.0
    if 0 < memory < 34:
        flags, base = recipe_flags(), 11.0 if len(recipe_flags()) > 1 else 17.0
    fitting = [n for n in sizes.clips if base + 0.55 * n < 0.9 * memory]
    return (fitting or [sizes.clips[-1]])[0], flags


def recipe_flags() -> list[str]:
    """What makes the full model fit 24 GB; the 8-bit AdamW where bitsandbytes is installed."""
    eight_bit = ["--optimizer", "adamw8bit"] if find_spec("bitsandbytes") else []
    return ["--ema_on_cpu", *eight_bit]


def compiled(machine: Machine, sizes: Sizes, report: Report) -> None:
    """``--compile`` against the step without."""
    clips, flags = _arrangement(machine, sizes)
    training = Training(sizes.config, machine, clips, *flags)
    before = float(training.micro_step())
    (eager_s,) = machine.seconds([training.micro_step], sizes.repeats)
    training.module.model.dit.transformer.compile(backend=sizes.compiler)  # as --compile does
    began = time.perf_counter()
    after = float(training.micro_step())
    first_s = time.perf_counter() - began
    (compiled_s,) = machine.seconds([training.micro_step], sizes.repeats)
    report.agrees("loss of the compiled step, error", 100 * abs(after / before - 1), 1, " %")
    report.at_least("compiled forward and backward: speed", eager_s / compiled_s, 1, " x")
    report.say(
        f"{clips} clips: {1000 * eager_s:.1f} ms eager, {1000 * compiled_s:.1f} ms compiled, "
        f"{first_s:.0f} s for the first (backend {sizes.compiler})."
    )


def recipe(machine: Machine, sizes: Sizes, report: Report) -> None:
    """Peak memory of the recipe for 24 GB."""
    _peak(machine, report, Training(sizes.config, machine, min(8, sizes.clips[0]), *recipe_flags()))
    report.say(f"The count without a GPU is {COUNTED_GIB} GiB ([multi_gpu.md](../multi_gpu.md)).")


def distillation(machine: Machine, sizes: Sizes, report: Report) -> None:
    """Peak memory of the same recipe with a teacher beside the student."""
    config = student_config(sizes.config, STUDENT_STEPS)
    training = Training(config, machine, min(8, sizes.clips[0]), *recipe_flags())
    teacher = built(sizes.config, machine).requires_grad_(False)
    teacher.pretransform = training.module.model.pretransform  # as `weights.load_teacher`
    training.module.teacher = teacher
    _peak(machine, report, training)
    report.say(f"The count without a GPU is {COUNTED_TAUGHT_GIB} GiB ([counts.md](counts.md)).")


def _peak(machine: Machine, report: Report, training: Training) -> None:
    machine.forget_peak()
    for _ in range(2):  # the first update makes the moments
        training.micro_step()
        training.micro_step()
        training.update()
        training.optimizer.zero_grad(set_to_none=True)
    tensors, taken = machine.peak_bytes()
    (micro_s,) = machine.seconds([training.micro_step], 1)
    report.at_most("memory of the card, context included", taken / 1e9, 24, " GB")
    options, clips = training.module.options, len(training.batch[0])
    report.say(
        f"F2 with text, `{' '.join(training.flags)}`, {clips} clips in a micro-batch, bf16-mixed: "
        f"{tensors / GIB:.2f} GiB of tensors at the peak, {1000 * micro_s / clips:.1f} ms a clip, "
        "forward and backward."
    )
    if options.optimizer != "adamw8bit":
        report.say("bitsandbytes is not installed: this is AdamW in float32, 5.9 GiB more.")


def lowpass(machine: Machine, sizes: Sizes, report: Report) -> None:
    """``--lowpass_on_device`` against the data workers."""
    config, clips = sizes.config, sizes.encoded
    seconds = clips * config.duration_s + 1
    music = torch.from_numpy(make_music(seconds, np.random.default_rng(0)).T.astype(np.float32))
    hr = music[:, : clips * config.sample_size].unflatten(1, (clips, -1)).transpose(0, 1)
    worker_s, batch_s = measure_lowpass(hr.contiguous(), str(machine.device), sizes.repeats)
    report.at_least("`--lowpass_on_device`: speed against one worker", worker_s / batch_s, 1, " x")
    report.say(
        f"{1000 * worker_s:.2f} ms a clip in a worker, {1000 * batch_s:.2f} ms in a batch of "
        f"{clips} where the model trains (a worker's time passes beside the step)."
    )


def demo(machine: Machine, sizes: Sizes, report: Report) -> None:
    """Train, export, upsample, evaluate with the shipped model, by the project's own commands."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number, name in enumerate(("train/a", "train/b", "val/c")):
            path = root / f"{name}.wav"
            path.parent.mkdir(exist_ok=True)
            audio = make_music(sizes.demo_s, np.random.default_rng(number))
            soundfile.write(path, audio.mean(axis=1), RATE)
        on = machine.device.type
        trained, low = root / "run", root / "val/c.wav"
        steps = str(sizes.demo_steps)
        lines = [
            ["train", "--train_dir", root / "train", "--val_dir", root / "val", "--model_config",
             ROOT / "saga_model_config_demo.json", "--init_from", DEMO_MODEL,  # F0: no encoder
             "--batch_size", "2", "--max_steps", steps, "--val_every_n_steps", steps,
             "--val_num_clips", "1", "--val_num_train_clips", "0", "--num_workers", "0",
             "--logger", "csv", "--accelerator", machine.accelerator, "--output_dir", trained],
            ["upsample", low, "--model", trained / "export", "--input_cutoff_hz", "4000",
             "--device", on, "--output", root / "gpu.wav"],
            ["upsample", low, "--model", trained / "export", "--input_cutoff_hz", "4000",
             "--device", "cpu", "--output", root / "cpu.wav"],
            ["evaluate", "--data", root / "val", "--model", DEMO_MODEL, trained / "export",
             "--cutoffs", "4000", "--device", on, "--num_pictures", "0", "--num_listen", "0",
             "--clip_seconds", "1", "--output", root / "report"],
        ]  # fmt: skip
        report.say(run_commands(lines, root))
        for file in ("run/export/model.safetensors", "report/report.md"):
            if not (root / file).is_file():
                raise FileNotFoundError(f"{file}: the commands ended well, but wrote none")
        heard = [soundfile.read(root / f"{name}.wav")[0] for name in ("gpu", "cpu")]
        error = relative(*map(torch.from_numpy, heard))
        report.agrees("restored here against a CPU", decibels(error), -50, " dB")


def parallel(machine: Machine, sizes: Sizes, report: Report) -> None:
    """DDP and FSDP against one process: two processes where there are two cards."""
    processes = min(2, machine.facts.count)
    for strategy, difference in compare_processes(machine.accelerator, processes):
        report.agrees(f"{strategy}, {processes} processes, against one", difference, 1e-3)
    report.say(f"Backend {machine.backend}; a tiny model, the logged numbers and all weights.")
    if processes < 2:
        report.say("One card: a group of one process. **Two were not run.**")


@dataclass(frozen=True)
class Section:
    """Attributes:
    title: of the page.
    run: the function.
    budget_s: at most so long, the start of its process included.
    """

    title: str
    run: Callable[[Machine, Sizes, Report], None]
    budget_s: float


SECTIONS = (
    Section("The card", card, 20),
    Section("bfloat16 against float32", precision, 40),
    Section("The VAE under autocast", vae, 40),
    Section("Sampling", sampling, 110),
    Section("The training step", step, 60),
    Section("--compile", compiled, 120),
    Section("The recipe for 24 GB", recipe, 35),
    Section("Distillation in 24 GB", distillation, 40),
    Section("Low-pass on the device", lowpass, 20),
    Section("The demo, end to end", demo, 70),
    Section("Several processes", parallel, 45),
)
