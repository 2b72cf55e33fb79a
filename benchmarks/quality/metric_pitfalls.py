#!/usr/bin/env python
"""The pitfalls of audio super-resolution metrics, each as a number.

    python benchmarks/quality/metric_pitfalls.py                          print the tables
    python benchmarks/quality/metric_pitfalls.py --write docs/metrics.md  put them into the page

Everything is synthetic and seeded: noise whose true distribution is known, so that it is also known
what a good metric should say. Takes about ten seconds on one core.
"""

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from saga_sr.audio.band_end import spectrum_end_hz
from saga_sr.lowpass import apply_lowpass, field_lowpass
from saga_sr.metrics import (
    LSD_DEFINITIONS,
    frechet_distance,
    high_band_error_db,
    level_in_silence_db,
    lsd,
    offline_embedding,
    si_sdr,
)
from saga_sr.support.files import write_text_atomic
from saga_sr.support.tables import markdown_table

RATE = 44100
CUTOFF_HZ = 4000.0
BEGIN, END = "<!-- {} -->", "<!-- end of {} -->"


# --- signals ------------------------------------------------------------------------------------


def weighted(audio: Tensor, gain: Callable[[Tensor], Tensor]) -> Tensor:
    """The clip with its spectrum multiplied by ``gain(frequency in Hz)``."""
    hz = torch.fft.rfftfreq(audio.shape[-1], 1 / RATE, dtype=audio.dtype)
    return torch.fft.irfft(torch.fft.rfft(audio) * gain(hz), n=audio.shape[-1])


def pink(seed: int, seconds: float = 6.0, channels: int = 1) -> Tensor:
    """Pink noise [1, C, T], RMS 0.1, float64."""
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(
        1, channels, round(seconds * RATE), generator=generator, dtype=torch.float64
    )
    audio = weighted(white, lambda hz: hz.clamp(min=20) ** -0.5)
    return 0.1 * audio / audio.std()


def low(audio: Tensor) -> Tensor:
    """The field's test input at 4 kHz."""
    return apply_lowpass(audio, RATE, field_lowpass(CUTOFF_HZ))


def high(audio: Tensor) -> Tensor:
    return audio - low(audio)


def as_int16(audio: Tensor) -> Tensor:
    return (audio * 32768).round() / 32768


def gate(seconds: float = 6.0) -> Tensor:
    """On and off four times a second, power 1 on average."""
    time = torch.arange(round(seconds * RATE))
    return (time // (RATE // 8) % 2).double() * 2**0.5


def mp3(audio: Tensor) -> Tensor:
    """Through a real MP3 encoder that keeps nothing above about 16 kHz."""
    buffer = io.BytesIO()
    samples = audio[0].T.numpy().astype(np.float32)
    soundfile.write(
        buffer, samples, RATE, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.5
    )
    decoded, _ = soundfile.read(io.BytesIO(buffer.getvalue()), always_2d=True)
    return torch.from_numpy(decoded[: audio.shape[-1]].T.copy())[None]


# --- pitfalls -----------------------------------------------------------------------------------


def value(number: float) -> str:
    return f"{number:.2f}"


def definitions() -> str:
    """The same pairs by every definition."""
    truth, other = pink(1), pink(2)
    silent_half = torch.cat([truth, torch.zeros_like(truth)], dim=-1)
    pairs = {
        "input low-passed at 4 kHz, float": (low(truth), truth),
        "the same input saved as 16 bit": (as_int16(low(truth)), truth),
        "truth and input exchanged": (truth, low(truth)),
        "another draw of the same high band": (low(truth) + high(other), truth),
        "high band 6 dB too quiet": (low(truth) + 0.5012 * high(truth), truth),
        "3 dB quieter, else perfect": (0.7079 * truth, truth),
        "identical, half of it digital silence": (silent_half, silent_half),
    }
    rows = [
        [name, *(value(lsd(est, ref, rule).item()) for rule in LSD_DEFINITIONS)]
        for name, (est, ref) in pairs.items()
    ]
    return markdown_table(["LSD of", *LSD_DEFINITIONS], rows)


def hiss() -> str:
    """The same guess with and without hiss where the truth is silent."""
    truth, other = pink(1, 3.0), low(pink(1, 3.0)) + 0.1 * high(pink(2, 3.0))
    silence = torch.zeros_like(truth)
    truth = torch.cat([truth, silence], dim=-1)
    hissing = 10 ** (-94 / 20) * pink(3, 3.0).sign()
    rows = []
    for name, tail in (("digital silence", silence), ("noise at -94 dBFS", hissing)):
        est = torch.cat([other, tail], dim=-1)
        of_rules = [value(lsd(est, truth, rule).item()) for rule in LSD_DEFINITIONS]
        rows.append([name, *of_rules, f"{level_in_silence_db(est, truth).item():.1f}"])
    header = ["in the silent half of the clip", *LSD_DEFINITIONS, "in silence (dBFS)"]
    return markdown_table(header, rows)


def blur() -> str:
    """In noise-like bins a constant scores better than the truth's own distribution."""
    generator = np.random.default_rng(0)
    truth, other = generator.exponential(size=(2, 200, 1025))  # power of Gaussian bins
    constant = np.full_like(truth, np.exp(np.log(truth).mean()))
    rows = []
    for name, est, theory in (
        ("another draw from the true distribution", other, np.pi / (np.sqrt(3) * np.log(10))),
        ("a constant: the mean log power", constant, np.pi / (np.sqrt(6) * np.log(10))),
    ):
        squared = np.square(np.log10(est) - np.log10(truth))
        rows.append([name, value(np.sqrt(squared.mean(axis=1)).mean()), f"{theory:.3f}"])
    return markdown_table(["estimate of noise-like bins", "LSD", "theory"], rows)


def noise_and_rhythm() -> str:
    """Steady noise of the right average spectrum against a high band that comes and goes."""
    pulse = gate()
    body = low(pink(1))
    truth = body + high(pink(2) * pulse)
    estimates = {
        "nothing above 4 kHz": body,
        "steady noise, right average spectrum": body + high(pink(3)),
        "the same 20 dB quieter": body + 0.1 * high(pink(3)),
        "noise that comes and goes with the truth": body + high(pink(3) * pulse),
    }
    rows = [
        [
            name,
            value(lsd(est, truth, low_hz=CUTOFF_HZ).item()),
            value(high_band_error_db(est, truth, CUTOFF_HZ).item()),
            value(si_sdr(est, truth).item()),
        ]
        for name, est in estimates.items()
    ]
    return markdown_table(["estimate", "LSD-HF", "band error (dB)", "SI-SDR (dB)"], rows)


def lossy_truth() -> str:
    """A truth that ends at 16 kHz punishes those who go on to 22."""
    source = pink(1)
    truth = mp3(source)
    body = low(truth)
    end_hz = spectrum_end_hz(truth[0], RATE)
    continued = body + high(pink(2))
    stopped = body + high(mp3(pink(2)))
    rows = [
        [
            name,
            *(
                value(metric(est, truth, top).item())
                for top in (None, end_hz)
                for metric in (
                    lambda e, r, hz: lsd(e, r, low_hz=CUTOFF_HZ, high_hz=hz),
                    lambda e, r, hz: high_band_error_db(e, r, CUTOFF_HZ, end_hz=hz),
                )
            ),
        ]
        for name, est in (("goes on to 22 kHz", continued), ("stops where the MP3 stops", stopped))
    ]
    upto = f"{end_hz / 1000:.1f} kHz"
    header = [
        f"high band of an MP3 that ends at {upto}",
        "LSD-HF to 22 kHz",
        "band error to 22 kHz",
    ]
    return markdown_table([*header, f"LSD-HF to {upto}", f"band error to {upto}"], rows)


def mix_down() -> str:
    """What is wrong in opposite directions on two channels vanishes in a mono mix-down."""
    truth, other = pink(1, channels=2), pink(2, channels=2)
    added = high(other[:, :1])
    est = truth + torch.cat([added, -added], dim=1)
    rows = [[rule, value(lsd(est, truth, rule).item())] for rule in LSD_DEFINITIONS]
    return markdown_table(["noise added left, and with the other sign right", "LSD"], rows)


def few_frames() -> str:
    """The Frechet distance of two draws of one distribution, by how many frames there are."""
    rows = []
    for clips in (3, 10, 30):
        est, ref = (
            torch.cat([offline_embedding(pink(1000 * side + n)[0]) for n in range(clips)])
            for side in (1, 2)
        )
        rows.append([f"{clips} clips, {len(est)} frames", f"{frechet_distance(est, ref):.4f}"])
    return markdown_table(["both sides pink noise", "FD offline"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "definitions": definitions,
    "hiss": hiss,
    "blur": blur,
    "noise and rhythm": noise_and_rhythm,
    "lossy truth": lossy_truth,
    "mix-down": mix_down,
    "few frames": few_frames,
}


def insert(page: str, name: str, table: str) -> str:
    """The page with the table between its two marks replaced."""
    begin, end = BEGIN.format(name), END.format(name)
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="replace the tables in this file"
    )
    options = parser.parse_args()
    page = options.write.read_text(encoding="utf-8") if options.write else None
    for name, build in TABLES.items():
        table = build()
        print(f"{name}\n\n{table}\n")
        page = None if page is None else insert(page, name, table)
    if page is not None:
        write_text_atomic(options.write, page)


if __name__ == "__main__":
    main()
