"""What is restored and judged: one clip at one cutoff, with its truth."""

from dataclasses import dataclass

from torch import Tensor

from saga_sr.degradation import Kept
from saga_sr.lowfreq import Mode, low_frequency_replace
from saga_sr.lowpass import Lowpass


@dataclass(frozen=True)
class Example:
    """One clip at one cutoff.

    Attributes:
        name: path of its file below the data folder, without suffix.
        truth: [C, T].
        lr_audio: [C, T], the truth low-passed or degraded otherwise.
        sample_rate: in Hz.
        lowpass: how, or what a codec or an old device has kept of it.
        prompt: its text for a model, "" for none.
        other_prompt: the text of another clip, for the control that is told the wrong one.
        transcript: what is said in it, "" if unknown.
    """

    name: str
    truth: Tensor
    lr_audio: Tensor
    sample_rate: int
    lowpass: Lowpass | Kept
    prompt: str = ""
    other_prompt: str = ""
    transcript: str = ""

    @property
    def passband_hz(self) -> float:
        return self.lowpass.passband_hz(self.sample_rate)

    def crossed(self, generated: Tensor, mode: Mode) -> Tensor:
        """``generated`` [C, T] above the band of the input, the input below."""
        return low_frequency_replace(
            generated[None], self.lr_audio[None], self.crossover_hz(mode), self.sample_rate, mode
        )[0]

    def crossover_hz(self, mode: Mode) -> float:
        """Hard: the filter's nominal cutoff. Otherwise where the input's own passband ends."""
        return self.lowpass.cutoff_hz if mode == "hard" else self.passband_hz
