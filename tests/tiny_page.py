"""A listening page of two clips whose versions can be told by a pilot tone each."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from saga_sr.listen.page import Curve, ListeningPage, PageClip, PageMetric, Version
from saga_sr.lowpass import field_lowpass

RATE = 44100
DURATION_S = 1.5
COMMON_HZ = 500.0  # in every version, with one phase
PILOT_HZ = {"F0": 7000.0, "F1": 8000.0, "noise": 9000.0, "truth": 10000.0}
LOUDER_DB = 6.0  # of F1
METRICS = {"lsd": PageMetric("LSD", "low", "a distance"), "si_sdr": PageMetric("SI-SDR", "high")}


def tone(hz: float, duration_s: float = DURATION_S) -> Tensor:
    time = torch.arange(round(duration_s * RATE), dtype=torch.float64) / RATE
    return torch.sin(2 * torch.pi * hz * time).float()[None]


def versions(duration_s: float = DURATION_S) -> list[Version]:
    common = 0.25 * tone(COMMON_HZ, duration_s)

    def made(name: str) -> Tensor:
        audio = common + 0.05 * tone(PILOT_HZ[name], duration_s)
        return audio * 10 ** (LOUDER_DB / 20) if name == "F1" else audio

    return [
        Version("truth", "truth", made("truth")),
        Version("input", "input", common, {"lsd": 3.0, "si_sdr": 9.0}),
        Version("noise", "baseline", made("noise"), {"lsd": 2.0, "si_sdr": float("nan")}),
        Version("F0", "system", made("F0"), {"lsd": 1.5, "si_sdr": 1.0}),
        Version("F1", "system", made("F1"), {"lsd": 1.0, "si_sdr": 2.0}),
    ]


def clip(name: str, category: str, cutoff_hz: float = 4000.0) -> PageClip:
    text = "<b>雨</b> & a script: </script>"
    return PageClip(name, category, RATE, field_lowpass(cutoff_hz), text)


def write_page(folder: Path) -> Path:
    page = ListeningPage(folder, "F0, F1", METRICS)
    page.add(clip("speech/one", "speech"), versions())
    page.add(clip("music/two", "music", 6000.0), versions(1.0))
    steps = np.arange(0, 1000, 10)
    curves = [Curve("val/lsd", run, steps, 3 / (1 + steps / (100 + i))) for i, run in
              enumerate(("F0", "F1"))]  # fmt: skip
    curves.append(Curve("val/lsd", "F0", steps, 3.5 / (1 + steps / 100), is_common=True))
    return page.write(curves, ["These runs were validated by different rules."])
