"""Names that flags, JSON and code share; no import, so that ``--help`` answers at once."""

from typing import Literal, get_args

Solver = Literal["euler", "midpoint", "heun", "ab2"]
SOLVERS: tuple[Solver, ...] = get_args(Solver)
Crossover = Literal["soft", "hard", "off"]
CROSSOVERS: tuple[Crossover, ...] = get_args(Crossover)
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")  # Lightning's names
AUTO_PRECISIONS = ("auto", *PRECISIONS)  # of `saga_sr.support.device.pick_precision`
DEVICES = ("auto", "cpu", "cuda", "mps")
STORED_DTYPES = ("float16", "bfloat16", "float32")  # of prepared latents
DegradationKind = Literal["lowpass", "codec", "resampler", "residue"]
DEGRADATION_KINDS: tuple[DegradationKind, ...] = get_args(DegradationKind)
