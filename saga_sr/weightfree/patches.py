"""Tokens in time and frequency.

A token that is one MDCT frame of all bins cannot share what it learns about one frequency with the
next, and a transformer narrower than the frame cannot even hold it. Here a token is a patch, some
neighbouring bins of some neighbouring frames:

                 columns (time)
               +----+----+----+
    rows       | 1  | 3  | 5  |     the sequence runs up each column, so that its length alone
    (frequency)+----+----+----+     says where every token lies, whatever the window's length
               | 0  | 2  | 4  |
               +----+----+----+

Its place is told twice: by a rotary position, half of it turned by the row and half by the column,
which makes attention see distances in frequency and in time; and by a learned vector for its row,
since no frequency is like another. The transformer stays stable-audio-tools'; both stand where it
looks for its own positions; its attention is computed in our own way (`PatchAttention`).

Shapes: B items, C audio channels, H bins of a channel (D = C x H latent channels), L frames,
R = H / bins rows, K = L / frames columns, N = K x R tokens of P = C x bins x frames numbers.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saga_sr.support.precision import full_precision
from saga_sr.support.stable_audio import quiet_import

with quiet_import():
    from stable_audio_tools.models.transformer import Attention

ROTARY_BASE = 100.0  # the slowest turn takes about 600 rows or columns


@dataclass(frozen=True)
class PatchGrid:
    """How an MDCT latent [B, D, L] is cut into tokens [B, N, P].

    Attributes:
        channels: audio channels C; a patch holds all of them.
        num_bins: MDCT bins of a channel, H.
        bins: of a patch; divides ``num_bins``.
        frames: of a patch; divides the latent length of every window.
    """

    channels: int
    num_bins: int
    bins: int
    frames: int

    def __post_init__(self) -> None:
        if self.num_bins % self.bins:
            raise ValueError(f"patches of {self.bins} bins do not divide {self.num_bins} bins")

    @property
    def rows(self) -> int:
        """Patches above each other, R."""
        return self.num_bins // self.bins

    @property
    def token_dim(self) -> int:
        """Numbers of a patch, P."""
        return self.channels * self.bins * self.frames

    def to_tokens(self, latent: Tensor) -> Tensor:
        """[B, D, L] -> [B, N, P].

        Raises:
            ValueError: the length is no multiple of ``frames``.
        """
        batch, _, length = latent.shape
        if length % self.frames:
            raise ValueError(f"patches of {self.frames} frames do not divide {length} frames")
        cut = latent.reshape(
            batch, self.channels, self.rows, self.bins, length // self.frames, self.frames
        )
        return cut.permute(0, 4, 2, 1, 3, 5).reshape(batch, -1, self.token_dim)

    def from_tokens(self, tokens: Tensor) -> Tensor:
        """[B, N, P] -> [B, D, L], the inverse of `to_tokens`."""
        batch, count, _ = tokens.shape
        columns = count // self.rows
        cut = tokens.reshape(batch, columns, self.rows, self.channels, self.bins, self.frames)
        return cut.permute(0, 3, 2, 4, 1, 5).reshape(
            batch, self.channels * self.num_bins, columns * self.frames
        )

    def row_values(self, values: Tensor, columns: int) -> Tensor:
        """Numbers of each row, [B, R, n], at every token: [B, N, n]."""
        return values.repeat(1, columns, 1)

    def known_share(self, passband_hz: Tensor, sample_rate: int) -> Tensor:
        """How much of each row lies below the passband's end [B]: [B, R], 0 to 1.

        Where it is 1, the patch is told by the LR latent and need not be generated.
        """
        row_hz = sample_rate / 2 / self.rows
        row = torch.arange(self.rows, device=passband_hz.device, dtype=passband_hz.dtype)
        return (passband_hz[:, None] / row_hz - row).clamp(0, 1)


class PatchRotary(nn.Module):
    """Rotary positions of patches, in the place of stable-audio-tools' `RotaryEmbedding`.

    Args:
        head_dim: of the attention, a multiple of 4: a fourth of the pairs' angles follow the row...
        rows: of the grid.
    """

    inv_freq: Tensor

    def __init__(self, head_dim: int, rows: int) -> None:
        super().__init__()
        if head_dim % 4:
            raise ValueError(f"attention heads of {head_dim} dimensions; a multiple of 4 is needed")
        self.rows = rows
        steps = torch.arange(head_dim // 4) / (head_dim // 4)
        self.register_buffer("inv_freq", ROTARY_BASE**-steps, persistent=False)

    def forward_from_seq_len(self, count: int) -> tuple[Tensor, float]:
        """Angles [N, head_dim] of ``count`` tokens, and the scale that stable-audio-tools expects:
        dimension i is turned with i + head_dim / 2, the first half of them by the row."""
        with full_precision(self.inv_freq):
            token = torch.arange(count, device=self.inv_freq.device)
            row, column = (token % self.rows).float(), (token // self.rows).float()
            angles = torch.cat(
                [row[:, None] * self.inv_freq, column[:, None] * self.inv_freq], dim=1
            )
        return torch.cat([angles, angles], dim=1), 1.0


class RowEmbedding(nn.Module):
    """A learned vector for each row, in the place of stable-audio-tools' absolute positions."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, width) / 50)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, width] -> what is added to it, [N, width]."""
        return self.weight.repeat(tokens.shape[1] // len(self.weight), 1)


class PatchAttention(Attention):
    """stable-audio-tools' attention in the precision of its projections, made for a few hundred
    tokens on a CPU.

    The original turns queries and keys in float32, and torch's fused attention is slow on a CPU
    where sequences are short, above all backward: together they take as long as all the rest of
    the transformer. Weights and results are the original's, up to rounding.
    """

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        rotary_pos_emb: tuple[Tensor, float] | None = None,
        **_: Any,
    ) -> Tensor:
        """[B, N, E], with ``context`` [B, M, cond_token_dim] for cross-attention -> [B, N, E]."""
        if context is None:
            q, k, v = self.to_qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        else:
            q = self.to_q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            k, v = self.to_kv(context).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if rotary_pos_emb is not None:
            angles = rotary_pos_emb[0]
            cos, sin = angles.cos().to(q.dtype), angles.sin().to(q.dtype)
            q, k = _turned(q, cos, sin), _turned(k, cos, sin)
        on_cpu = q.device.type == "cpu"
        out = _short_attention(q, k, v) if on_cpu else F.scaled_dot_product_attention(q, k, v)
        return self.to_out(out.transpose(1, 2).flatten(2))


@torch.compiler.disable  # compiled by torch 2.11 its gradient is NaN on a CPU in bfloat16
def _short_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of [B, H, N, d] written out."""
    weights = (q * q.shape[-1] ** -0.5 @ k.mT).softmax(dim=-1)
    return weights.to(v.dtype) @ v


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def give_positions(transformer: Any, rows: int, head_dim: int) -> None:
    """Put a grid's positions and `PatchAttention` into stable-audio-tools' `ContinuousTransformer`.

    The sequence must be patches alone: conditions come in by adaLN and cross-attention.

    Raises:
        ValueError: the transformer's attention is of a kind that `PatchAttention` does not do.
    """
    for module in transformer.modules():
        if type(module) is Attention:
            if module.qk_norm != "none" or module.differential or module.feat_scale:
                raise ValueError("patches need attention without qk_norm and the like")
            module.__class__ = PatchAttention
    transformer.rotary_pos_emb = PatchRotary(head_dim, rows)
    transformer.pos_emb = RowEmbedding(rows, transformer.dim)
    transformer.use_abs_pos_emb = True
