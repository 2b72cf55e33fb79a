"""The coordinates that the flow runs in: for the paper's model those of the latents.

    y = (z - mean) / std,   z = mean + std y,   so   v_z = std v_y

On y runs the paper's own flow, with standard normal noise (`saga_sr.flow`). Where the latents of a
family are of very different size, or partly known, a frame of its own makes the unknown part of one
size. A `Family` makes the frame of a batch from what the batch is conditioned on; this one is the
paper's, which leaves everything as it is. `saga_sr.families` chooses.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from saga_sr.model import Conditioning


@dataclass(frozen=True)
class Frame:
    """The frame of B items; the latents' own.

    Attributes:
        lr_latent: [B, D, L], the LR latent as the network is shown it.
    """

    lr_latent: Tensor

    def without_lr(self, drop: Tensor, null: float) -> "Frame":
        """The same, but to the items ``drop`` [B] the null is shown instead of the LR latent."""
        return replace(self, lr_latent=self.lr_latent.masked_fill(drop[:, None, None], null))

    def enter(self, z: Tensor) -> Tensor:
        """z [B, D, L] -> y."""
        return z

    def leave(self, y: Tensor) -> Tensor:
        """y [B, D, L] -> z."""
        return y

    def leave_velocity(self, v: Tensor) -> Tensor:
        """v_y [B, D, L] -> v_z."""
        return v


class Family:
    """What a family of latents brings to the paper's method; the paper's brings nothing."""

    def frame(self, cond: "Conditioning") -> Any:
        """The frame of a batch."""
        return Frame(cond.lr_latent)

    def prepare(self, dit: Any) -> None:
        """Change a new DiT where its tokens are no latent frames."""

    def start(self, noise: Tensor, level_temperature: float) -> Tensor:
        """Where sampling starts, y at t = 1, of standard normal ``noise`` [..., D, L]."""
        return noise

    def louder(self, frame: Any, gain_db: float) -> Any:
        """The frame in which whatever is generated comes out louder by so much."""
        return frame

    def tokens(self, x_t: Tensor, frame: Any) -> Tensor:
        """The network's input [B, 2 D, L]: the LR latent concatenated on channels (section 2).

        Args:
            x_t: [B, D, L], y at the time t.
            frame: of the batch.
        """
        return torch.cat([x_t, frame.lr_latent], dim=1)

    def latent(self, answer: Tensor) -> Tensor:
        """The network's answer -> [B, D, L]."""
        return answer

    def weight(self, frame: Any, x_t: Tensor, t: Tensor, hr_end_hz: Tensor) -> Tensor:
        """What a squared error of the velocity v_y counts, at least 0, broadcastable to [B, D, L].

        A function of what the network is told alone, or the flow would not end in the data.

        Args:
            frame: of the batch.
            x_t: [B, D, L], y at the time t.
            t: [B].
            hr_end_hz: [B], where the spectrum of each HR clip ends.
        """
        return torch.ones_like(hr_end_hz)[:, None, None]

    def missing(self, frame: Any, hr_end_hz: Tensor) -> Tensor:
        """1 where the flow makes what nothing told, 0 elsewhere; there `val/velocity_error` looks.

        Args:
            frame: of the batch.
            hr_end_hz: [B], where the spectrum of each HR clip ends; nothing is missing above.

        Returns:
            Broadcastable to [B, D, L].
        """
        return torch.ones_like(hr_end_hz)[:, None, None]
