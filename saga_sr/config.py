"""The model's JSON, in stable-audio-tools' format, as frozen and validated objects.

stable-audio-tools reads its JSON with ``.get(key, default)``, so a misspelt key is silently a
default there. Here every key is known, every type is checked, and the relations between sections
(heads, widths, latent channels, lengths) are checked before anything is built. All problems are
reported at once, each with its JSON path, the value found and the relation that it breaks.

What a stage of the user's plan is follows from the file alone (`Stage`): F0 has no condition id in
``cross_attention_cond_ids``, F1 has ``"prompt"``, and F2 sets ``compute_rolloff``, which
``--compute_rolloff`` writes into the exported config.

No torch here: flags and configs are checked before it is imported.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from saga_sr.support.choices import Solver
from saga_sr.support.differences import differences
from saga_sr.support.errors import UserError
from saga_sr.support.shipped import shipped_file

PROMPT_ID = "prompt"
SECONDS_IDS = ("seconds_start", "seconds_total")
MIN_HEAD_DIM = 32  # stable-audio-tools rotates at least 32 channels of every head
Positive = Annotated[int, Field(gt=0)]

# Far above any use; what is above cannot be built, and torch says so in a traceback.
Width = Annotated[int, Field(gt=0, le=2**14)]
Depth = Annotated[int, Field(gt=0, le=256)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A JSON object: no unknown keys, no change after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )


# --- pretransform -------------------------------------------------------------------------------
class OobleckEncoder(Section):
    in_channels: Width
    channels: Width = 128
    c_mults: tuple[Width, ...]
    strides: tuple[Width, ...]
    latent_dim: Width
    use_snake: bool = False
    antialias_activation: bool = False


class OobleckDecoder(Section):
    out_channels: Width
    channels: Width = 128
    c_mults: tuple[Width, ...]
    strides: tuple[Width, ...]
    latent_dim: Width
    use_snake: bool = False
    antialias_activation: bool = False
    use_nearest_upsample: bool = False
    final_tanh: bool = True


class EncoderSection(Section):
    type: Literal["oobleck"]
    config: OobleckEncoder
    requires_grad: bool = False


class DecoderSection(Section):
    type: Literal["oobleck"]
    config: OobleckDecoder


class BottleneckSection(Section):
    type: Literal["vae"]


class AutoencoderConfig(Section):
    encoder: EncoderSection
    decoder: DecoderSection
    bottleneck: BottleneckSection
    latent_dim: Width
    downsampling_ratio: Width
    io_channels: Width


class MDCTConfig(Section):
    """The weight-free pretransform; ``band_std`` is measured by scripts/measure_band_std.py."""

    hop: Width
    channels: Width
    power: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Companding: a coefficient x becomes sign(x) |x|^power."""
    band_hz: tuple[float, ...] = (0.0,)
    """Frequencies at which ``band_std`` is given, increasing."""
    band_std: tuple[Annotated[float, Field(gt=0)], ...] = (1.0,)
    """Standard deviation of the companded coefficients there; interpolated between."""
    level_floor: Annotated[float, Field(gt=0)] = 0.003
    """Least level that a frame is measured against, in units of the latent."""
    level_bins: Width | None = None
    """Every group of so many bins brings its level as a latent channel of its own; null: none."""

    @property
    def latent_dim(self) -> int:
        return self.channels * (self.hop + (self.hop // self.level_bins if self.level_bins else 0))


class AutoencoderPretransformSection(Section):
    type: Literal["autoencoder"]
    config: AutoencoderConfig
    scale: float = 1.0
    iterate_batch: bool = False

    @property
    def latent_dim(self) -> int:
        return self.config.latent_dim

    @property
    def downsampling_ratio(self) -> int:
        return self.config.downsampling_ratio


class MDCTPretransformSection(Section):
    type: Literal["mdct"]
    config: MDCTConfig

    @property
    def latent_dim(self) -> int:
        return self.config.latent_dim

    @property
    def downsampling_ratio(self) -> int:
        return self.config.hop


PretransformSection = Annotated[
    AutoencoderPretransformSection | MDCTPretransformSection, Field(discriminator="type")
]


# --- conditioning and diffusion -----------------------------------------------------------------
class T5Config(Section):
    """A T5, as stable-audio-tools names it."""

    kind: ClassVar[Literal["t5"]] = "t5"
    t5_model_name: str
    """Any T5 id of the hub, a local folder, or a package (`saga_sr.support.hub`)."""
    max_length: Width = 128
    dim: Width = 768
    """Width of that T5's output (stable-audio-tools reads it off the name)."""

    @property
    def model(self) -> str:
        return self.t5_model_name


class TransformersConfig(Section):
    """Ours: any text encoder that transformers' AutoModel loads, such as BERT, MiniLM or MPNet."""

    kind: ClassVar[Literal["transformers"]] = "transformers"
    model_name: str
    """A local folder, an id of the hub, or ``package:NAME/FOLDER``: the folder inside an installed
    Python package that carries the model (`saga_sr.support.hub`)."""
    max_length: Width = 128
    dim: Width
    """Width of its last hidden state."""

    @property
    def model(self) -> str:
        return self.model_name


class NumberConfig(Section):
    min_val: float = 0.0
    max_val: float = 1.0


class T5Section(Section):
    id: Literal["prompt"]
    type: Literal["t5"]
    config: T5Config


class TransformersSection(Section):
    id: Literal["prompt"]
    type: Literal["transformers"]
    config: TransformersConfig


class NumberSection(Section):
    id: Literal["seconds_start", "seconds_total"]
    type: Literal["number"]
    config: NumberConfig


class ConditioningSection(Section):
    configs: tuple[
        Annotated[T5Section | TransformersSection | NumberSection, Field(discriminator="type")], ...
    ]
    cond_dim: Width


class DiTConfig(Section):
    io_channels: Width
    input_concat_dim: Width
    embed_dim: Width
    depth: Depth
    num_heads: Width
    cond_token_dim: Width
    global_cond_dim: Annotated[int, Field(ge=0)]
    prepend_cond_dim: Width
    project_cond_tokens: bool = False
    project_global_cond: bool = True
    transformer_type: Literal["continuous_transformer"] = "continuous_transformer"
    global_cond_type: Literal["prepend", "adaLN"] = "prepend"
    num_memory_tokens: Annotated[int, Field(ge=0)] = 0
    attn_kwargs: dict[str, Any] = {}
    ff_kwargs: dict[str, Any] = {}
    norm_kwargs: dict[str, Any] = {}


class PatchSection(Section):
    """MDCT bins and frames of a token."""

    bins: Width
    frames: Width


class DiffusionSection(Section):
    type: Literal["dit"]
    diffusion_objective: Literal["rectified_flow"]
    cross_attention_cond_ids: tuple[str, ...]
    global_cond_ids: tuple[str, ...]
    config: DiTConfig
    compute_rolloff: bool = False
    """Ours: the two roll-off frequencies are conditions (F2; the flag ``--compute_rolloff``)."""
    parameterisation: Literal["flow", "v"] = "flow"
    """Ours: what the DiT answers (`flow.network_gains`): the flow's velocity, or ``v`` as Stable
    Audio Open's does, from which the velocity follows exactly."""
    preconditioning_std: Annotated[float, Field(gt=0)] | None = None
    """Ours: data's standard deviation in `flow.preconditioning`; null: the DiT answers the velocity
    itself."""
    null_lr_value: float = 0.0
    """Ours: every element of an absent LR latent (0 for the VAE; outside the data for MDCT)."""
    patch: PatchSection | None = None
    """Ours, of an MDCT: its tokens are patches (`weightfree.patches`). null, of an autoencoder:
    they are latent frames."""
    student_steps: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    """Ours: a student (`saga_sr.distill`), made for these numbers of steps; null: none."""


class ModelSection(Section):
    pretransform: PretransformSection
    conditioning: ConditioningSection
    diffusion: DiffusionSection
    io_channels: Width


# --- training and sampling ----------------------------------------------------------------------
class InverseLR(Section):
    """lr(n) = (1 - warmup^(n+1)) max(final_lr, lr (1 + n / inv_gamma)^-power), n = steps done."""

    inv_gamma: Annotated[float, Field(gt=0)] = 1e6
    power: Annotated[float, Field(ge=0)] = 0.5
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.99
    final_lr: Annotated[float, Field(ge=0)] = 0.0
    cooldown_fraction: Fraction = 0.0
    """Ours: the last part of ``max_steps`` over which the rate goes linearly to zero."""


class DropoutSection(Section):
    """Condition dropout: three disjoint events per sample (marginals of 10 %, paper section 3)."""

    both_prob: Fraction = 0.05
    lr_prob: Fraction = 0.05
    """The LR latent is absent, the text stays."""
    text_prob: Fraction = 0.05
    """The text is absent, the LR latent stays."""
    rolloff_prob: Fraction = 0.0
    """The target roll-off f_h is not told, whatever else is: 0 Hz stands for it. Never in the
    paper, where one must be given; with it, a target of 0 is the model's own guess."""


class EMASection(Section):
    """decay(n) = min(beta, 1 - (1 + n)^-power), as in stable-audio-tools' training."""

    beta: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    power: Annotated[float, Field(gt=0)] = 0.75


class DegradationSection(Section):
    """Shares of what ``--degradations`` names, and how often residue is added to any of them."""

    lowpass: Annotated[float, Field(ge=0)] = 0.6
    codec: Annotated[float, Field(ge=0)] = 0.25
    resampler: Annotated[float, Field(ge=0)] = 0.15
    residue: Annotated[float, Field(ge=0, le=1)] = 0.5


class TrainingSection(Section):
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    lr_schedule: InverseLR = InverseLR()
    use_ema: bool = True
    ema: EMASection = EMASection()
    timestep_sampler: Literal["uniform", "logit_normal"] = "logit_normal"
    dropout: DropoutSection = DropoutSection()
    degradations: DegradationSection = DegradationSection()
    gradient_clip_norm: Annotated[float, Field(gt=0)] = 1.0


class SamplingSection(Section):
    """What inference does where the user says nothing; an exported model carries its own."""

    solver: Solver = "euler"
    num_steps: Positive = 100
    emulate_linear_steps: Positive | None = None
    """N of the linear-quadratic schedule; null: 2.5 times the steps; up to the steps: linear."""
    guidance_acoustic: float = 1.4
    guidance_text: float = 1.2
    level_temperature: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Ours, of an MDCT with levels: the size of the noise that levels start from. 1 samples them
    as the paper samples everything, 0 starts from what is expected."""
    level_gain_db: float = 0.0
    """Ours, of an MDCT with levels: what generated levels are raised by. What is expected of a
    level is the mean of a logarithm, which lies below the logarithm of the mean power."""
    target_rolloff: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """f_h for audio whose true roll-off is unknown, as a fraction of the Nyquist frequency; 0 is
    the model's own guess (`DropoutSection.rolloff_prob`)."""


@dataclass(frozen=True)
class Stage:
    """F0, F1, F2 of the user's plan: the conditions beside the LR latent and the seconds.

    F0 has none, F1 text, F2 text and both roll-offs.
    """

    text: bool
    rolloff: bool

    def __str__(self) -> str:
        parts = ["LR latent", *["text"] * self.text, *["roll-off"] * self.rolloff]
        return " + ".join(parts)

    @property
    def short_name(self) -> str:
        """f0, f1 or f2 of the user's plan; roll-off without text is no stage of it."""
        if self.rolloff and not self.text:
            return "f0-rolloff"
        return f"f{self.text + self.rolloff}"


class ModelConfig(Section):
    """A whole JSON file; build one with `load_model_config` or `parse_model_config`."""

    model_type: Literal["diffusion_cond"]
    sample_size: Positive
    """Length of a segment in samples."""
    sample_rate: Positive
    audio_channels: Positive
    model: ModelSection
    training: TrainingSection = TrainingSection()
    sampling: SamplingSection = SamplingSection()

    @property
    def latent_dim(self) -> int:
        return self.model.pretransform.latent_dim

    @property
    def downsampling_ratio(self) -> int:
        return self.model.pretransform.downsampling_ratio

    @property
    def latent_length(self) -> int:
        return self.sample_size // self.downsampling_ratio

    @property
    def duration_s(self) -> float:
        """Length of a segment in seconds; also the value of ``seconds_total``."""
        return self.sample_size / self.sample_rate

    @cached_property
    def stage(self) -> Stage:
        diffusion = self.model.diffusion
        return Stage(PROMPT_ID in diffusion.cross_attention_cond_ids, diffusion.compute_rolloff)

    @property
    def guesses_rolloff(self) -> bool:
        """Whether it was trained to do without a target roll-off, too."""
        return self.stage.rolloff and self.training.dropout.rolloff_prob > 0

    @property
    def has_levels(self) -> bool:
        """Whether its latents hold levels of their own (`MDCTConfig.level_bins`)."""
        section = self.model.pretransform
        return isinstance(section, MDCTPretransformSection) and bool(section.config.level_bins)

    @property
    def text(self) -> T5Config | TransformersConfig | None:
        """The text encoder's settings, or None where the file lists no prompt conditioner."""
        configs = self.model.conditioning.configs
        return next((c.config for c in configs if c.type != "number"), None)

    @property
    def least_parameters(self) -> int:
        """A lower bound of the model's weights: its large matrices alone, by their shapes."""
        model = self.model
        dit = model.diffusion.config
        feedforward = dit.ff_kwargs.get("mult", 4) * (3 if dit.ff_kwargs.get("glu", True) else 2)
        count = int((4 + feedforward) * dit.depth * dit.embed_dim**2)  # attention: q, k, v and out
        if model.pretransform.type == "autoencoder":
            for part in (model.pretransform.config.encoder, model.pretransform.config.decoder):
                widths = [part.config.channels * m for m in (1, *part.config.c_mults)]
                pairs = zip(pairwise(widths), part.config.strides, strict=False)
                count += sum(2 * stride * a * b for (a, b), stride in pairs)
        return count

    def replacing(self, path: str, value: Any) -> "ModelConfig":
        """A validated copy in which the key at the dotted ``path`` has another value."""
        raw = self.model_dump(mode="json")
        *parents, key = path.split(".")
        node = raw
        for parent in parents:
            node = node[parent]
        node[key] = value
        return parse_model_config(raw, origin=path)

    def with_num_steps(self, num_steps: int) -> "ModelConfig":
        """A validated copy that samples in ``num_steps`` steps, on a schedule of the same shape."""
        config, sampling = self.replacing("sampling.num_steps", num_steps), self.sampling
        if sampling.emulate_linear_steps is None:  # 2.5 times the steps, however many
            return config
        emulated = round(sampling.emulate_linear_steps * num_steps / sampling.num_steps)
        return config.replacing("sampling.emulate_linear_steps", max(emulated, 1))


def load_model_config(path: Path | str) -> ModelConfig:
    """Read and validate a model JSON; the shipped ones are found by their names from any folder.

    Raises:
        UserError: the file is missing, is not JSON, or breaks any rule; all problems are listed.
    """
    shipped = shipped_file(str(path)) if len(Path(path).parts) == 1 else None
    readable = shipped if shipped is not None and not Path(path).exists() else Path(path)
    try:
        raw = json.loads(readable.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: the model config cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: the model config is not UTF-8 text ({error})") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from error
    return parse_model_config(raw, origin=str(path))


def parse_model_config(raw: Any, origin: str = "model config") -> ModelConfig:
    """Validate a decoded JSON value; ``origin`` names it in the error.

    Raises:
        UserError: lists every unknown key, wrong value and broken relation.
    """
    problems: list[str] = []
    config = None
    try:
        config = ModelConfig.model_validate(raw)
    except ValidationError as error:
        problems += [_describe(item) for item in error.errors()]
    # A list where an object belongs is already reported; relations need the object.
    problems += _broken_relations(_Values(raw))
    if problems or config is None:
        heading = f"{origin}: {len(problems)} problem{'s' * (len(problems) > 1)} in the config"
        raise UserError.listing(heading, problems)
    return config


# --- what is said of a problem ------------------------------------------------------------------
_EARLIER_KEYS = {
    "sigma_distribution": "the time distribution is training.timestep_sampler here "
    "('uniform' or 'logit_normal')",
    "cfg_dropout_prob": "a dropout of p is training.dropout here: both_prob = lr_prob = "
    "text_prob = p / 2 drops each condition with probability p",
    "ema_decay": "the EMA is training.ema here (beta and power)",
}
_UNION_TAGS = {"autoencoder", "mdct", "t5", "transformers", "number"}


def _describe(item: Any) -> str:
    """One pydantic error as ``path: what was found, what is allowed``."""
    parts = [part for part in item["loc"] if part not in _UNION_TAGS]
    path = ".".join(str(part) for part in parts)
    if item["type"] == "extra_forbidden":
        hint = _EARLIER_KEYS.get(str(parts[-1]))
        return f"{path} is not a known key" + (f": {hint}" if hint else "")
    if item["type"] == "missing":
        return f"{path} is missing"
    found = json.dumps(item["input"], default=str, ensure_ascii=False)
    found = found if len(found) <= 60 else found[:57] + "..."
    message = item["msg"][0].lower() + item["msg"][1:]
    return f"{path or 'the file'} is {found}: {message}"


class _Values:
    """Values of a raw JSON by dotted path; relations look at whatever is there and well typed."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def get(self, path: str, kind: type | tuple[type, ...] = int) -> Any:
        """The value at ``path``, or None where it is absent or not of ``kind``."""
        node = self.raw
        for key in path.split("."):
            node = node.get(key) if isinstance(node, dict) else None
        return node if isinstance(node, kind) and not isinstance(node, bool) else None

    def strings(self, path: str) -> list[str]:
        return [item for item in self.get(path, list) or [] if isinstance(item, str)]


def _broken_relations(values: _Values) -> list[str]:
    """Every relation between keys that does not hold, in words."""
    checks = (_latent_relations, _width_relations, _condition_relations, _autoencoder_relations)
    found = [problem for check in checks for problem in check(values)]
    found += [*_patch_relations(values), *_student_relations(values)]
    return found + list(_mdct_relations(values)) + list(_dropout_relations(values))


_NUMBER = (int, float)
_PRETRANSFORM = "model.pretransform"
_DIFFUSION = "model.diffusion"
_DIT = "model.diffusion.config"


def _latent_shape(values: _Values) -> tuple[int | None, int | None, int | None]:
    """(latent channels, samples per latent frame, audio channels) of the pretransform."""
    if values.get(f"{_PRETRANSFORM}.type", str) == "mdct":
        hop = values.get(f"{_PRETRANSFORM}.config.hop")
        channels = values.get(f"{_PRETRANSFORM}.config.channels")
        group = values.get(f"{_PRETRANSFORM}.config.level_bins")
        levels = hop // group if hop and group else 0
        return ((hop + levels) * channels if hop and channels else None), hop, channels
    names = ("latent_dim", "downsampling_ratio", "io_channels")
    latent_dim, ratio, channels = (values.get(f"{_PRETRANSFORM}.config.{n}") for n in names)
    return latent_dim, ratio, channels


def _latent_relations(values: _Values) -> Iterator[str]:
    latent_dim, ratio, channels = _latent_shape(values)
    size = values.get("sample_size")
    if size and ratio and size % ratio:
        yield (
            f"sample_size is {size}, no multiple of the pretransform's downsampling ratio {ratio}; "
            f"the nearest are {size // ratio * ratio} and {(size // ratio + 1) * ratio}"
        )
    patched = values.get(f"{_DIFFUSION}.patch", dict) is not None
    paths = ["model.io_channels", f"{_DIT}.io_channels", f"{_DIT}.input_concat_dim"]
    for path in paths[:1] if patched else paths:
        found = values.get(path)
        if found and latent_dim and found != latent_dim:
            yield f"{path} is {found}, but the pretransform's latents have {latent_dim} channels"
    audio_channels = values.get("audio_channels")
    if audio_channels and channels and audio_channels != channels:
        yield f"audio_channels is {audio_channels}, but the pretransform has {channels}"


def _patch_relations(values: _Values) -> Iterator[str]:
    path = f"{_DIFFUSION}.patch"
    if values.get(path, dict) is None:
        return
    if values.get(f"{_PRETRANSFORM}.type", str) != "mdct":
        yield f"{path} needs an MDCT as pretransform"
        return
    if values.get(f"{_DIT}.global_cond_type", str) != "adaLN":
        yield f"{path} needs {_DIT}.global_cond_type adaLN: a prepended token is no patch"
    _, hop, channels = _latent_shape(values)
    bins, frames, size = (values.get(n) for n in (f"{path}.bins", f"{path}.frames", "sample_size"))
    if hop and bins and hop % bins:
        yield f"{path}.bins is {bins}, but must divide {_PRETRANSFORM}.config.hop, {hop}"
    if hop and frames and size and size % (hop * frames):
        yield f"sample_size is {size}, no multiple of hop x {path}.frames, {hop * frames}"
    embed, heads = values.get(f"{_DIT}.embed_dim"), values.get(f"{_DIT}.num_heads")
    if embed and heads and embed // heads % 4:
        yield f"{_DIT}: heads of {embed // heads} dimensions; {path} needs a multiple of 4"
    if not (channels and bins and frames):
        return
    group = values.get(f"{_PRETRANSFORM}.config.level_bins")
    if group and bins % group:
        yield f"{_PRETRANSFORM}.config.level_bins is {group}, but must divide {path}.bins, {bins}"
        return
    coefficients = channels * bins * frames
    token_dim = coefficients + (coefficients // group if group else 0)
    heard = token_dim + coefficients + channels * frames + 1
    expected = {"io_channels": token_dim, "input_concat_dim": heard}
    for name, number in expected.items():
        found = values.get(f"{_DIT}.{name}")
        if found and found != number:
            yield f"{_DIT}.{name} is {found}, but {path} makes it {number}"


def _width_relations(values: _Values) -> Iterator[str]:
    names = ("embed_dim", "num_heads", "cond_token_dim", "prepend_cond_dim")
    embed, heads, token, prepend = (values.get(f"{_DIT}.{name}") for name in names)
    if embed and prepend and prepend != embed:
        yield f"{_DIT}.prepend_cond_dim is {prepend}, but must equal embed_dim {embed}"
    cond_dim = values.get("model.conditioning.cond_dim")
    if token and cond_dim and token != cond_dim:
        yield f"{_DIT}.cond_token_dim is {token}, but model.conditioning.cond_dim is {cond_dim}"
    if not (embed and heads):
        return
    head_dim = embed // heads
    if embed % heads or head_dim < MIN_HEAD_DIM:
        yield (
            f"{_DIT}.num_heads is {heads}, but embed_dim {embed} / num_heads must be a whole "
            f"number of at least {MIN_HEAD_DIM}"
        )
    elif token:
        projected = values.get(_DIT, dict).get("project_cond_tokens") is True
        context = embed if projected else token
        if context % head_dim or heads % max(1, context // head_dim):
            yield (
                f"{_DIT}.cond_token_dim is {token}, but cross-attention needs a multiple of the "
                f"head size {head_dim} (embed_dim {embed} / num_heads {heads}) whose number of "
                f"heads divides {heads}"
            )


def _condition_relations(values: _Values) -> Iterator[str]:
    entries = values.get("model.conditioning.configs", list) or []
    known = [entry.get("id") for entry in entries if isinstance(entry, dict)]
    for entry_id in {entry_id for entry_id in known if known.count(entry_id) > 1}:
        yield f"model.conditioning.configs lists the id {entry_id!r} more than once"
    for key in ("cross_attention_cond_ids", "global_cond_ids"):
        ids = values.strings(f"{_DIFFUSION}.{key}")
        for unknown in (name for name in ids if name not in known):
            yield f"{_DIFFUSION}.{key} names {unknown!r}, but the conditioners are {known}"
        if len(set(ids)) < len(ids):
            yield f"{_DIFFUSION}.{key} names an id twice: {ids}"
    global_ids = values.strings(f"{_DIFFUSION}.global_cond_ids")
    if PROMPT_ID in global_ids:
        yield f"{_DIFFUSION}.global_cond_ids names 'prompt', but a text is not one vector"
    std = values.get(f"{_DIFFUSION}.preconditioning_std", _NUMBER)
    if std is not None and values.get(f"{_DIFFUSION}.parameterisation", str) == "v":
        yield (
            f"{_DIFFUSION}.preconditioning_std is {std:g}, but parameterisation 'v' has gains of "
            "its own: use null"
        )
    cond_dim = values.get("model.conditioning.cond_dim")
    global_dim = values.get(f"{_DIT}.global_cond_dim")
    if cond_dim and global_dim is not None and global_dim != len(global_ids) * cond_dim:
        yield (
            f"{_DIT}.global_cond_dim is {global_dim}, but {len(global_ids)} global_cond_ids x "
            f"cond_dim {cond_dim} = {len(global_ids) * cond_dim}"
        )
    for entry in entries:
        bounds = entry.get("config") if isinstance(entry, dict) else None
        if isinstance(bounds, dict) and {"min_val", "max_val"} <= bounds.keys():
            low, high = bounds["min_val"], bounds["max_val"]
            if all(isinstance(b, int | float) for b in (low, high)) and not low < high:
                yield f"model.conditioning.configs: {entry.get('id')}: min_val {low} >= {high}"


def _autoencoder_relations(values: _Values) -> Iterator[str]:
    if values.get(f"{_PRETRANSFORM}.type", str) != "autoencoder":
        return
    base = f"{_PRETRANSFORM}.config"
    latent_dim, ratio, channels = _latent_shape(values)
    for part, audio_key, factor in (("encoder", "in_channels", 2), ("decoder", "out_channels", 1)):
        path = f"{base}.{part}.config"
        dim = values.get(f"{path}.latent_dim")
        if dim and latent_dim and dim != factor * latent_dim:
            why = " (mean and scale of the VAE)" if factor == 2 else ""
            yield f"{path}.latent_dim is {dim}, but must be {factor} x {latent_dim}{why}"
        audio = values.get(f"{path}.{audio_key}")
        if audio and channels and audio != channels:
            yield f"{path}.{audio_key} is {audio}, but {base}.io_channels is {channels}"
        strides = values.get(f"{path}.strides", list) or []
        mults = values.get(f"{path}.c_mults", list) or []
        if len(strides) != len(mults):
            yield f"{path}: {len(strides)} strides, but {len(mults)} c_mults"
        if ratio and strides and all(isinstance(s, int) for s in strides):
            product = math.prod(strides)
            if product != ratio:
                yield f"{path}.strides multiply to {product}, but downsampling_ratio is {ratio}"


def _mdct_relations(values: _Values) -> Iterator[str]:
    levels = f"{_PRETRANSFORM}.config.level_bins"
    for name, nothing in {"level_temperature": 1.0, "level_gain_db": 0.0}.items():
        value = values.get(f"sampling.{name}", _NUMBER)
        if value is not None and value != nothing and not values.get(levels):
            yield f"sampling.{name} is {value:g}, which needs {levels}"
    if values.get(f"{_PRETRANSFORM}.type", str) != "mdct":
        return
    if values.get(f"{_DIFFUSION}.patch", dict) is None:
        yield f"an MDCT needs {_DIFFUSION}.patch"
    hop = values.get(f"{_PRETRANSFORM}.config.hop")
    if hop and hop % 2:
        yield f"{_PRETRANSFORM}.config.hop is {hop}, but must be even"
    hz = values.get(f"{_PRETRANSFORM}.config.band_hz", list)
    std = values.get(f"{_PRETRANSFORM}.config.band_std", list)
    if (hz is None) != (std is None) or (hz and std and len(hz) != len(std)):
        yield f"{_PRETRANSFORM}.config: band_hz and band_std must have the same length"
    numbers = [h for h in hz or [] if isinstance(h, int | float)]
    if any(b <= a for a, b in pairwise(numbers)):
        yield f"{_PRETRANSFORM}.config.band_hz must increase"


def _student_relations(values: _Values) -> Iterator[str]:
    if values.get(f"{_DIFFUSION}.student_steps", list) is None:
        return
    own = {"solver": "euler", "guidance_acoustic": 1, "guidance_text": 1}
    for name, only in own.items():
        found = values.get(f"sampling.{name}", object)
        found = SamplingSection.model_fields[name].default if found is None else found
        if found != only:
            yield (
                f"sampling.{name} is {found}, but {_DIFFUSION}.student_steps says that this is a "
                f"student, whose steps are its own and hold its teacher's guidance: {only}"
            )


def _dropout_relations(values: _Values) -> Iterator[str]:
    section = values.get("training.dropout", dict) or {}
    if values.get("sampling.target_rolloff", object) == 0 and not section.get("rolloff_prob"):
        yield (
            "sampling.target_rolloff is 0, the model's own guess, which it learns with "
            "training.dropout.rolloff_prob above 0"
        )
    probs = [section.get(k, 0.05) for k in ("both_prob", "lr_prob", "text_prob")]
    if all(isinstance(p, int | float) for p in probs) and sum(probs) > 1:
        yield f"training.dropout: the three probabilities sum to {sum(probs):g}, more than 1"


# What may differ between the stages of one model: no weight depends on it.
_NOT_IN_THE_WEIGHTS = {
    "model.diffusion.cross_attention_cond_ids",
    "model.diffusion.compute_rolloff",
    "model.pretransform.iterate_batch",
    "sample_size",
}
_OF_TEXT = re.compile(
    r"model\.conditioning\.configs\.\d+\."
    r"(type|config\.(t5_model_name|model_name|max_length|dim))"
)


def stage_differences(earlier: ModelConfig, later: ModelConfig) -> tuple[list[str], list[str]]:
    """(what keeps the weights of ``earlier`` from starting ``later``, what is only worth saying).

    Weights depend on shapes and on what the numbers in a latent, a token or an answer mean. The
    text encoder is outside of them, and a stage without text has learnt nothing about it.
    """
    refused, said = [], []
    sections = ("sample_rate", "audio_channels", "sample_size", "model")
    old, new = (config.model_dump(mode="json") for config in (earlier, later))
    for path, line in differences({k: old[k] for k in sections}, {k: new[k] for k in sections}):
        if path in _NOT_IN_THE_WEIGHTS:
            continue
        of_text = _OF_TEXT.fullmatch(path) is not None
        if not of_text or (earlier.stage.text and path.endswith(".dim")):
            refused.append(line)
        elif earlier.stage.text:
            said.append(line)
    return refused, said


def student_config(config: ModelConfig, made_for: Sequence[int]) -> ModelConfig:
    """``config`` of a student made for so many steps: even ones by Euler, the most of them, of one
    branch."""
    own: dict[str, Any] = {"solver": "euler", "guidance_acoustic": 1.0, "guidance_text": 1.0}
    for name in ("num_steps", "emulate_linear_steps"):
        own[name] = max(made_for)
    for name, value in own.items():
        config = config.replacing(f"sampling.{name}", value)
    return config.replacing("model.diffusion.student_steps", list(made_for))


def teacher_problems(teacher: ModelConfig, student: ModelConfig) -> list[str]:
    """Why ``teacher`` cannot teach ``student``."""
    if teacher.model.diffusion.student_steps:
        return ["it is a student itself; distil the model that taught it"]
    if teacher.stage != student.stage:
        return [f"it was trained with {teacher.stage}, this config has {student.stage}"]
    untaught = student.replacing("model.diffusion.student_steps", None)
    refused, said = stage_differences(teacher, untaught)
    return refused + said


def untrained_guidance(config: ModelConfig) -> list[str]:
    """Why the guidance scales of ``config.sampling`` need a branch that dropout never trained.

    Eq. (4) evaluates u(0, 0) for s_a != 1 and u(z_l, 0) for s_t != s_a (with text). A branch whose
    dropout probability is 0 was never trained, and guidance with it is noise.
    """
    dropout, sampling = config.training.dropout, config.sampling
    problems = []
    if config.stage.text:
        untrained_both, untrained_text = dropout.both_prob == 0, dropout.text_prob == 0
    else:
        untrained_both, untrained_text = dropout.both_prob + dropout.lr_prob == 0, False
    if sampling.guidance_acoustic != 1 and untrained_both:
        problems.append(
            f"guidance_acoustic is {sampling.guidance_acoustic:g}, but training.dropout never "
            "drops the LR latent together with the text: --guidance_acoustic 1"
            f"{' --guidance_text 1' if untrained_text else ''}, or train with both_prob > 0"
        )
    if sampling.guidance_text != sampling.guidance_acoustic and untrained_text:
        problems.append(
            f"guidance_text is {sampling.guidance_text:g}, but training.dropout.text_prob is 0: "
            f"use guidance_text = guidance_acoustic, or train with text_prob > 0"
        )
    return problems
