"""The network of SAGA-SR (paper, Fig. 2): what the DiT is given, the velocity that it answers.

                LR latent --------concat on channels--------+
      x_t -----------------------------------------> [x_t, z_l] --> DiT --> velocity
      text tokens, (seconds tokens), roll-off token --cross-attention-->|
      [roll-off + t, seconds + t] --prepended to the sequence---------->|

`SAGASRModel.velocity` is the one place where conditions and their nulls become inputs of the
network; training, validation, inference and evaluation all call it. The layers are
stable-audio-tools' `DiffusionTransformer`, so its weights load; its forward (19 arguments, silent
mask dropping, checkpointing always on) is written again below in the order of the picture.

With ``global_cond_type: adaLN`` nothing is prepended: what would be, modulates every layer.

Shapes: B items, D latent channels, L latent frames, N text tokens, E width of the DiT.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saga_sr.config import PROMPT_ID, ModelConfig
from saga_sr.families import create_family, create_pretransform
from saga_sr.flow import network_gains
from saga_sr.frame import Frame
from saga_sr.rolloff import (
    RolloffFourierConditioner,
    hz_to_unit,
    spectral_rolloff,
    unit_to_hz,
)
from saga_sr.sampler import Branch
from saga_sr.support.precision import full_precision
from saga_sr.support.stable_audio import quiet_import
from saga_sr.weights import load_folder, save_folder

with quiet_import():
    from stable_audio_tools.models import transformer as _sat_transformer
    from stable_audio_tools.models.conditioners import NumberConditioner
    from stable_audio_tools.models.dit import DiffusionTransformer


# With flash-attn installed it casts fp32 attention to fp16; torch's own attention has the same
# kernels for half precision and keeps fp32 as it is.
_sat_transformer.flash_attn_func = None

# Its positions leave autocast on CUDA alone: in bfloat16 elsewhere the 257th is the 256th.
_sat_transformer.RotaryEmbedding.forward = torch.autocast("cpu", enabled=False)(
    _sat_transformer.RotaryEmbedding.forward
)


@dataclass(frozen=True)
class Conditioning:
    """What a batch of B items is conditioned on; absent kinds are None.

    Attributes:
        lr_latent: [B, D, L], encoded low-resolution audio.
        text: [B, N, T5 width], zero rows for padding; all zero where an item has no text.
        rolloff_hz: [B, 2], f_l and f_h in Hz; an f_h of 0 is untold.
        passband_hz: [B], up to where the LR audio is the truth; some families need it.
        frame: what follows from the others (`saga_sr.frame`), put here once it is computed.
    """

    lr_latent: Tensor
    text: Tensor | None = None
    rolloff_hz: Tensor | None = None
    passband_hz: Tensor | None = None
    frame: Any = None

    def __len__(self) -> int:
        return self.lr_latent.shape[0]

    @classmethod
    def joined(cls, parts: Sequence["Conditioning"]) -> "Conditioning":
        """One batch of several that have the same kinds of conditions."""
        return _map_tensors(lambda *values: torch.cat(values), *parts)

    def _each(self, function: Callable[[Tensor], Tensor]) -> "Conditioning":
        return _map_tensors(function, self)

    def __getitem__(self, index: Any) -> "Conditioning":
        """The items that a slice, an index list or a mask selects."""
        return self._each(lambda value: value[index])

    def repeated(self, times: int) -> "Conditioning":
        """The whole batch, ``times`` times one after the other."""
        return self._each(lambda value: value.repeat(times, *[1] * (value.ndim - 1)))

    def to(self, device: torch.device | str) -> "Conditioning":
        return self._each(lambda value: value.to(device))


def _map_tensors(function: Callable[..., Tensor], first: Any, *others: Any) -> Any:
    """A dataclass of tensors, of dataclasses of them and of None, from like ones field by field."""
    changed = {}
    for name in (field.name for field in fields(first)):
        values = [getattr(one, name) for one in (first, *others)]
        if values[0] is not None:
            is_leaf = isinstance(values[0], Tensor)
            changed[name] = function(*values) if is_leaf else _map_tensors(function, *values)
    return replace(first, **changed)


class SAGASRModel(nn.Module):
    """Pretransform, DiT and conditioners of one model config.

    Every stage has the same parameters, so that F0 starts F1 and F1 starts F2; those that the
    stage of ``config`` does not use have ``requires_grad`` False. The T5 encoder is not part of the
    model: the model takes text embeddings (`saga_sr.text.TextEncoder` makes them).

    Args:
        config: a validated model config.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing = False
        diffusion = config.model.diffusion
        self.pretransform = create_pretransform(config)
        self.dit = DiffusionTransformer(
            diffusion_objective=diffusion.diffusion_objective,
            **diffusion.config.model_dump(mode="json"),
        )
        # A new prepended token must not disturb a pre-trained DiT, so it starts at zero.
        nn.init.zeros_(self.dit.to_prepend_embed[-1].weight)
        self.conditioners = _create_conditioners(config)
        self.rolloff_conditioner = RolloffFourierConditioner(
            embedding_dim_cross=diffusion.config.cond_token_dim,
            embedding_dim_global=diffusion.config.embed_dim,
            dropout_rate=0.1,
        )
        self.step_embed: nn.Linear | None = None
        if diffusion.student_steps:  # it starts as its teacher, which hears of no length
            width = self.dit.to_timestep_embed[0].in_features
            self.step_embed = nn.Linear(width, diffusion.config.embed_dim, bias=False)
            nn.init.zeros_(self.step_embed.weight)
        self.family = create_family(config, self.pretransform)
        self.family.prepare(self.dit)
        seconds = {"seconds_start": 0.0, "seconds_total": config.duration_s}
        self._seconds = {name: seconds[name] for name in self.conditioners if name in seconds}
        self._freeze_unused()

    # --- audio and latents ----------------------------------------------------------------------

    def encode(self, audio: Tensor) -> Tensor:
        """[B, C, T] in [-1, 1] -> latent [B, D, L] (the posterior mean for a VAE)."""
        return self.pretransform.encode(audio)

    def decode(self, latent: Tensor) -> Tensor:
        """Latent [B, D, L] -> audio [B, C, T]."""
        return self.pretransform.decode(latent)

    # --- the conditions -------------------------------------------------------------------------

    @torch.no_grad()
    def condition(
        self,
        lr_audio: Tensor,
        text: Tensor | None = None,
        target_rolloff_hz: Tensor | None = None,
        passband_hz: Tensor | None = None,
    ) -> Conditioning:
        """What inference conditions on; the stage decides which kinds there are.

        Args:
            lr_audio: [B, C, T], T = one segment.
            text: [B, N, T5 width]; None is no text.
            target_rolloff_hz: [B], f_h; None is the model's default.
            passband_hz: [B], up to where the audio is the truth; a model of patches needs it.
        """
        config = self.config
        if not config.stage.text:
            text = None
        elif text is None:
            settings = config.text
            assert settings is not None  # a stage with text has its encoder's settings
            text = lr_audio.new_zeros(lr_audio.shape[0], settings.max_length, settings.dim)
        rolloff_hz = None
        if config.stage.rolloff:
            low_hz = spectral_rolloff(lr_audio, config.sample_rate)
            if target_rolloff_hz is None:
                default_hz = unit_to_hz(config.sampling.target_rolloff, config.sample_rate)
                target_rolloff_hz = default_hz.expand(len(low_hz))
            rolloff_hz = torch.stack([low_hz, target_rolloff_hz.to(low_hz)], dim=1)
        cond = Conditioning(self.encode(lr_audio), text, rolloff_hz, passband_hz)
        return replace(cond, frame=self.frame(cond))

    # --- the velocity ---------------------------------------------------------------------------

    def velocity(
        self,
        x_t: Tensor,
        t: Tensor,
        cond: Conditioning,
        drop_lr: Tensor | None = None,
        drop_text: Tensor | None = None,
        until: Tensor | None = None,
    ) -> Tensor:
        """u(x_t, z_l, c) of eq. (4), with the LR latent or the text nulled where asked.

        Args:
            x_t: [B, D, L], in the coordinates of `frame`.
            t: [B], 1 is noise and 0 is data.
            cond: conditions of the B items; kinds that the config's stage does not have are None.
            drop_lr: [B] bool, items whose LR latent is the null (``null_lr_value``).
            drop_text: [B] bool, items whose text is the null (rows of zeros).
            until: [B], where a student's step ends (`saga_sr.distill`); None is t itself.

        Returns:
            [B, D, L], the predicted noise - data.
        """
        frame = self.frame(cond)
        if drop_lr is not None:
            frame = frame.without_lr(drop_lr, self.config.model.diffusion.null_lr_value)
        text = cond.text
        if drop_text is not None and text is not None:
            text = text.masked_fill(drop_text[:, None, None], 0.0)
        rolloff_cross, rolloff_global = self._rolloff(cond.rolloff_hz)
        context = self._context(text, rolloff_cross, len(cond))
        c_in, c_skip, c_out, time = self._gains(t)
        length = torch.zeros_like(t) if until is None else t - until
        answer = self._dit_forward(c_in * x_t, time, length, frame, context, rolloff_global)
        return c_skip * x_t + c_out * answer

    def blind_velocity(self, x_t: Tensor, t: Tensor) -> Tensor:
        """What `velocity` would be of a network that answers zero; shapes as there."""
        _, c_skip, _, _ = self._gains(t)
        return c_skip * x_t

    def _gains(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`network_gains` of this model: in, skip and out [B, 1, 1], time [B]."""
        diffusion = self.config.model.diffusion
        *gains, time = network_gains(t, diffusion.parameterisation, diffusion.preconditioning_std)
        c_in, c_skip, c_out = (gain[:, None, None] for gain in gains)
        return c_in, c_skip, c_out, time

    def frame(self, cond: Conditioning) -> Frame:
        """The coordinates that the flow of a batch runs in."""
        return cond.frame or self.family.frame(cond)

    def guided_velocity(
        self,
        x_t: Tensor,
        t: Tensor,
        cond: Conditioning,
        terms: list[tuple[float, Branch]],
        until: Tensor | None = None,
        one_batch: bool = True,
    ) -> Tensor:
        """Eq. (4): the weighted sum of the branches ``terms`` (see `sampler.guidance_terms`).

        Args:
            x_t: [B, D, L].
            t: [B].
            cond: conditions of the B items.
            terms: (coefficient, branch) pairs.
            until: [B], see `velocity`.
            one_batch: evaluate all branches in one batch; False needs less memory.

        Returns:
            [B, D, L].
        """
        if not one_batch and len(terms) > 1:
            parts = [self.guided_velocity(x_t, t, cond, [term], until) for term in terms]
            return torch.stack(parts).sum(dim=0)
        count = len(terms)

        def per_item(values: list[bool]) -> Tensor:  # filled on the device: no copy to wait for
            return torch.cat([torch.full_like(t, v, dtype=torch.bool) for v in values])

        velocities = self.velocity(
            x_t.repeat(count, 1, 1),
            t.repeat(count),
            cond.repeated(count),
            per_item([not branch.lr for _, branch in terms]),
            per_item([not branch.text for _, branch in terms]),
            None if until is None else until.repeat(count),
        )
        branches = velocities.float().chunk(count)
        return torch.stack([c * v for (c, _), v in zip(terms, branches, strict=True)]).sum(dim=0)

    def _context(
        self, text: Tensor | None, rolloff_cross: Tensor | None, size: int
    ) -> Tensor | None:
        """Cross-attention tokens [B, N, cond_token_dim]: the ids in their order, then roll-off."""
        tokens = []
        for name in self.config.model.diffusion.cross_attention_cond_ids:
            if name != PROMPT_ID:
                tokens.append(self._seconds_embedding(name, size).unsqueeze(1))
                continue
            if text is None:
                raise ValueError("the config has a prompt condition: text embeddings are needed")
            present = (text != 0).any(dim=-1, keepdim=True)  # rows of zeros stay zero: the null
            tokens.append(self.conditioners[PROMPT_ID](text) * present)
        if rolloff_cross is not None:
            tokens.append(rolloff_cross)
        return torch.cat(tokens, dim=1) if tokens else None

    def _rolloff(self, rolloff_hz: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The roll-off's token [B, 1, cond_token_dim] and vector [B, E], where the stage has it."""
        unit = self._rolloff_unit(rolloff_hz)
        return (None, None) if unit is None else self.rolloff_conditioner(unit)

    def _rolloff_unit(self, rolloff_hz: Tensor | None) -> Tensor | None:
        """Normalised roll-offs [B, 2] where the stage has them."""
        if not self.config.stage.rolloff:
            return None
        if rolloff_hz is None:
            raise ValueError("the config computes the roll-off: rolloff_hz is needed")
        return hz_to_unit(rolloff_hz, self.config.sample_rate)

    def _seconds_embedding(self, name: str, size: int) -> Tensor:
        """[size, cond_dim] of a seconds id: the same for every item, since every crop and every
        window is one whole segment."""
        conditioner: Any = self.conditioners[name]  # stable-audio-tools' classes have no types
        low, high = conditioner.min_val, conditioner.max_val
        unit = (self._seconds[name] - low) / (high - low)
        device = next(conditioner.parameters()).device
        return conditioner.embedder(torch.full((1,), unit, device=device)).expand(size, -1)

    def _timestep(self, t: Tensor, step_length: Tensor) -> Tensor:
        """[B, E]: the time, and with it a student's how long its step is."""
        with full_precision(t):  # times that bfloat16 cannot tell apart
            values = torch.cat([t, step_length]).float()
            time, length = self.dit.timestep_features(values[:, None]).chunk(2)
        embedded = self.dit.to_timestep_embed(time)
        return embedded if self.step_embed is None else embedded + self.step_embed(length)

    def _build_rolloff_prepend(self, rolloff_global: Tensor, timestep: Tensor) -> Tensor:
        """How the roll-off enters the DiT beside `_context`: a prepended token [B, 1, E], projected
        from roll-off plus timestep embedding."""
        return self.dit.to_prepend_embed(rolloff_global + timestep).unsqueeze(1)

    def _dit_forward(
        self,
        x_t: Tensor,
        t: Tensor,
        step_length: Tensor,
        frame: Frame,
        context: Tensor | None,
        rolloff_global: Tensor | None,
    ) -> Tensor:
        dit = self.dit
        timestep = self._timestep(t, step_length)
        seconds = [
            self._seconds_embedding(name, x_t.shape[0])
            for name in self.config.model.diffusion.global_cond_ids
        ]
        global_token = timestep
        if seconds:
            global_token = timestep + dit.to_global_embed(torch.cat(seconds, dim=-1))
        tokens = [global_token.unsqueeze(1)]  # [B, 1, E] each
        if rolloff_global is not None:
            tokens.insert(0, self._build_rolloff_prepend(rolloff_global, timestep))

        modulated = self.config.model.diffusion.config.global_cond_type == "adaLN"
        hidden = self.family.tokens(x_t, frame)
        hidden = dit.preprocess_conv(hidden) + hidden
        hidden = dit.transformer(
            hidden.mT,  # [B, L, 2 D], the paper's
            prepend_embeds=None if modulated else torch.cat(tokens, dim=1),
            global_cond=torch.cat(tokens, dim=1).sum(dim=1) if modulated else None,
            context=None if context is None else dit.to_cond_embed(context),
            use_checkpointing=self.activation_checkpointing and self.training,
        )
        hidden = hidden[:, 0 if modulated else len(tokens) :].mT  # [B, D, L]
        answer = dit.postprocess_conv(hidden) + hidden
        return self.family.latent(answer)

    # --- parameters -----------------------------------------------------------------------------

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that the stage trains."""
        return ((n, p) for n, p in self.named_parameters() if p.requires_grad)

    def _freeze_unused(self) -> None:
        """Only what the stage's forward reaches has a gradient; DDP, Adam and EMA skip the rest."""
        diffusion, stage = self.config.model.diffusion, self.config.stage
        self.rolloff_conditioner.requires_grad_(stage.rolloff)
        self.dit.to_prepend_embed.requires_grad_(stage.rolloff)
        used_ids = {*diffusion.cross_attention_cond_ids, *diffusion.global_cond_ids}
        for name, conditioner in self.conditioners.items():
            conditioner.requires_grad_(name in used_ids)
        if diffusion.cross_attention_cond_ids or stage.rolloff:
            return
        self.dit.to_cond_embed.requires_grad_(False)
        for layer in self.dit.transformer.layers:
            layer.cross_attn.requires_grad_(False)
            layer.cross_attend_norm.requires_grad_(False)

    # --- files ----------------------------------------------------------------------------------

    def save_pretrained(self, folder: Path | str, dtype: torch.dtype = torch.float32) -> Path:
        """Write ``config.json`` and ``model.safetensors``: all that `from_pretrained` needs."""
        return save_folder(self, Path(folder), dtype)

    @classmethod
    def from_pretrained(cls, folder_or_hub_id: Path | str) -> "SAGASRModel":
        """Load an exported model in evaluation mode, in float32, on the CPU.

        Args:
            folder_or_hub_id: a folder that `save_pretrained` wrote, or ``owner/name`` of the hub.

        Raises:
            UserError: nothing usable is there, or the weights do not fit the config.
        """
        return load_folder(folder_or_hub_id, cls)


def _create_conditioners(config: ModelConfig) -> nn.ModuleDict:
    """Number embedders and the text projection, with stable-audio-tools' parameter names."""
    cond_dim = config.model.conditioning.cond_dim
    conditioners = nn.ModuleDict()
    for entry in config.model.conditioning.configs:
        if entry.type == "number":
            conditioners[entry.id] = NumberConditioner(
                cond_dim, entry.config.min_val, entry.config.max_val
            )
        else:
            same = entry.config.dim == cond_dim
            conditioners[entry.id] = (
                nn.Identity() if same else nn.Linear(entry.config.dim, cond_dim)
            )
    return conditioners
