"""Who takes part in an evaluation: everything that fills the missing band of the same clips.

    unprocessed              the low-passed clip itself
    ceiling                  the truth through a model's pretransform: more it cannot reach
    band replication, noise  the baselines of `saga_sr.evaluate.baselines`
    a model                  `saga_sr.upsample`, told where the band ends
    its controls             the same with one condition that is wrong, or another seed
    its start                the same without its DiT: where the flow starts, decoded
    predictions              audio files of somebody else

All but the first get the low band back by the same crossover (`saga_sr.lowfreq`); predictions are
taken as they are. Everything random is a function of (seed, clip), so a clip can be made again
alone, and no clip depends on which others are evaluated.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from saga_sr.audio.bandwidth import Bandwidth
from saga_sr.audio.file import read_header
from saga_sr.audio.reader import READ_ERRORS, open_audio, reason
from saga_sr.audio.scan import AUDIO_SUFFIXES
from saga_sr.audio.streams import ArraySource
from saga_sr.degradation import Kept
from saga_sr.evaluate.baselines import NoiseEnvelope, shaped_noise, spectral_band_replication
from saga_sr.evaluate.example import Example
from saga_sr.lowfreq import Mode
from saga_sr.model import SAGASRModel
from saga_sr.rolloff import spectral_rolloff
from saga_sr.support.errors import UserError
from saga_sr.support.files import sha256_of
from saga_sr.support.randomness import key_to_seed, torch_generator
from saga_sr.upsample.longform import Layout
from saga_sr.upsample.options import UpsampleOptions, resolve, restored
from saga_sr.weights import CONFIG_NAME, WEIGHTS_NAME

MAX_LENGTH_DIFFERENCE = 100  # samples; ssr_eval's tolerance
ORACLE = "oracle"
Told = Literal["own", "none", "other"]


class Competitor(ABC):
    """Makes [C, T] at full bandwidth out of an `Example`.

    Attributes:
        name: a row of the tables.
        is_judged: whether the spectrogram page shows its best and worst clips.
        sweep: (option, value) where this is one point of a sweep.
        varies: the row that this differs from in one option: of a control or a point of a sweep.
    """

    name: str
    is_judged: bool = False
    sweep: tuple[str, float] | None = None
    varies: str | None = None

    @abstractmethod
    def restore(self, example: Example) -> Tensor: ...

    def describe(self) -> dict[str, Any]:
        """What defines it, as JSON values."""
        return {}


class Unprocessed(Competitor):
    name = "unprocessed"

    def restore(self, example: Example) -> Tensor:
        return example.lr_audio


@dataclass
class BandReplication(Competitor):
    mode: Mode
    name: str = "band replication"

    def restore(self, example: Example) -> Tensor:
        generated = spectral_band_replication(
            example.lr_audio[None], example.passband_hz, example.sample_rate
        )
        return example.crossed(generated[0], self.mode)


@dataclass
class ShapedNoise(Competitor):
    mode: Mode
    seed: int
    envelope: NoiseEnvelope
    name: str = "shaped noise"

    def restore(self, example: Example) -> Tensor:
        generator = torch_generator("shaped noise", self.seed, example.name)
        audio = example.lr_audio[None]
        generated = shaped_noise(audio, self.envelope, example.sample_rate, generator)
        return example.crossed(generated[0], self.mode)

    def describe(self) -> dict[str, Any]:
        return {"envelope_hz": self.envelope.hz, "envelope_db": self.envelope.level_db}


@dataclass
class Ceiling(Competitor):
    """The truth, encoded and decoded, with the low band replaced."""

    model: SAGASRModel
    mode: Mode
    name: str = "ceiling"

    @torch.no_grad()
    def restore(self, example: Example) -> Tensor:
        config, device = self.model.config, next(self.model.parameters()).device
        layout = Layout(example.truth.shape[0], config.audio_channels)
        audio = layout.split(example.truth).to(device)
        length, ratio = audio.shape[-1], config.downsampling_ratio
        padded = functional.pad(audio, (0, -length % ratio))
        decoded = self.model.decode(self.model.encode(padded))[..., :length]
        return example.crossed(layout.join(decoded).float().cpu(), self.mode)


@dataclass
class Model(Competitor):
    """An exported model, as `saga_sr.upsample` runs it.

    Attributes:
        folder: where it was loaded from.
        options: what the user chose; seed, text, cutoff and oracle target are set per clip.
        oracle: whether the target roll-off is that of the truth.
        told: the text that a model with text gets: the clip's own, none, or another clip's.
    """

    name: str
    model: SAGASRModel
    folder: str
    options: UpsampleOptions
    oracle: bool = False
    told: Told = "own"
    sweep: tuple[str, float] | None = None
    varies: str | None = None
    is_judged: bool = True

    @torch.no_grad()
    def restore(self, example: Example) -> Tensor:
        source = ArraySource(example.lr_audio, example.sample_rate)
        # The end of the band is known: nothing is measured. Of a low-passed input nothing is cut
        # off; what a codec or an old device leaves above its band is no skirt of a filter.
        coded = isinstance(example.lowpass, Kept)
        options, known = self._options(example), self._known(example)
        pieces = restored(self.model, source, options, known, limit_input=coded)
        return torch.cat(list(pieces), dim=-1)

    def conditions(self, example: Example) -> tuple[Tensor | None, float | None]:
        """(text [1, N, width], target roll-off in Hz) that `restore` gives the model; None is no
        text, and the model's default."""
        settings = resolve(self.model, self._options(example), self._known(example))
        text = None if settings.text is None else settings.text(example.lr_audio)
        return text, settings.target_rolloff_hz

    def _options(self, example: Example) -> UpsampleOptions:
        """The user's with what is set per clip."""
        texts = {"own": example.prompt, "other": example.other_prompt, "none": ""}
        options = replace(
            self.options,
            seed=key_to_seed("evaluate", self.options.seed, example.name),
            input_cutoff_hz=example.crossover_hz(self.options.crossover),
            prompt=texts[self.told] if self.has_text else "",
        )
        if self.oracle:
            target_hz = spectral_rolloff(example.truth[None], example.sample_rate).item()
            options = replace(options, target_rolloff=None, target_rolloff_hz=target_hz)
        return options

    def _known(self, example: Example) -> Bandwidth:
        cutoff_hz = example.crossover_hz(self.options.crossover)
        return Bandwidth(0.0, cutoff_hz, example.sample_rate / 2)

    def varied(self, change: str, **fields: Any) -> "Model":
        """The same with one thing changed: the name of the row says what."""
        return replace(
            self, name=f"{self.name} {change}", varies=self.name, is_judged=False, **fields
        )

    def start(self, name: str) -> "Model":
        """The row of what the model makes without its DiT: the noise that the flow starts from, in
        the coordinates of its frame, decoded. With a frame of its own that is noise as loud as
        the octave below the cutoff; for the VAE it is whatever standard normal latents decode to.
        """
        options = replace(self.options, num_steps=0)
        return replace(self, name=name, options=options, told="none", is_judged=False)

    @property
    def has_text(self) -> bool:
        return self.told != "none" and self.model.config.stage.text

    def describe(self) -> dict[str, Any]:
        chosen = {k: v for k, v in vars(self.options).items() if v is not None}
        files = [Path(self.folder) / name for name in (CONFIG_NAME, WEIGHTS_NAME)]
        return {
            "folder": self.folder,
            "stage": str(self.model.config.stage),
            "sampling": self.model.config.sampling.model_dump(mode="json"),
            "chosen": chosen,
            "target_rolloff": ORACLE if self.oracle else self.options.target_rolloff,
            "text": self.told if self.has_text else "none",
            "sha256": {file.name: sha256_of(file) for file in files if file.is_file()},
        }


@dataclass
class Predictions(Competitor):
    """A folder of audio files that somebody else's system made of our inputs.

    ``DIR/<cutoff in Hz>/<clip name>.wav`` (or another format that soundfile reads); where it is
    ``flat`` (a single cutoff), ``DIR/<clip name>.wav`` will do. Rate and channels must be the
    truth's; up to 100 samples more or less at the end are cut off or filled with zeros.
    """

    folder: Path
    name: str
    flat: bool = False
    is_judged: bool = True
    _hashes: dict[str, str] = field(default_factory=dict)

    def check(self, wanted: Sequence[tuple[str, float, int, int]], sample_rate: int) -> None:
        """Look at all files before anything is measured.

        Args:
            wanted: (clip name, cutoff in Hz, channels, samples) of every example.
            sample_rate: of the truth.

        Raises:
            UserError: lists every missing or unfit file.
        """
        problems = []
        for clip, cutoff_hz, channels, samples in wanted:
            path = self._find(clip, cutoff_hz)
            if path is None:
                problems.append(f"{cutoff_hz:g}/{clip}: no such file ({', '.join(_SUFFIXES)})")
                continue
            if problem := _unfit(path, channels, samples, sample_rate):
                problems.append(f"{path.relative_to(self.folder)}: {problem}")
        if problems:
            listed = problems[:20] + [f"and {len(problems) - 20} more"] * (len(problems) > 20)
            raise UserError.listing(
                f"--predictions {self.folder}: {len(problems)} of {len(wanted)} clips cannot be "
                "measured",
                listed,
            )

    def restore(self, example: Example) -> Tensor:
        path = self._find(example.name, example.lowpass.cutoff_hz)
        assert path is not None  # checked before
        try:
            with open_audio(path) as file:
                samples = file.read(0, file.frames)
        except READ_ERRORS as error:
            raise UserError(f"{path}: it cannot be read ({reason(error)})") from error
        audio = torch.from_numpy(samples.T.copy())
        if not torch.isfinite(audio).all():
            raise UserError(f"{path}: it holds samples that are NaN or infinite")
        self._hashes[str(path.relative_to(self.folder))] = sha256_of(path)
        length = example.truth.shape[-1]
        return functional.pad(audio, (0, max(0, length - audio.shape[-1])))[:, :length]

    def _find(self, clip: str, cutoff_hz: float) -> Path | None:
        for below in (self.folder / f"{cutoff_hz:g}", *[self.folder] * self.flat):
            for suffix in _SUFFIXES:
                if (path := below / f"{clip}{suffix}").is_file():
                    return path
        return None

    def describe(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "sha256": dict(sorted(self._hashes.items()))}


_SUFFIXES = tuple(sorted(AUDIO_SUFFIXES, key=lambda suffix: (suffix != ".wav", suffix)))


def _unfit(path: Path, channels: int, samples: int, sample_rate: int) -> str | None:
    """Why a prediction cannot be compared with a truth of this shape, or None."""
    info = read_header(path)
    if info.problem:
        return f"unreadable ({info.problem})"
    if info.sample_rate != sample_rate:
        return f"{info.sample_rate} Hz, the truth has {sample_rate} Hz"
    if info.channels != channels:
        return f"{info.channels} channels, the truth has {channels} (--mono mixes the truth down)"
    if abs(info.frames - samples) > MAX_LENGTH_DIFFERENCE:
        return f"{info.frames} samples, the truth has {samples}"
    return None
