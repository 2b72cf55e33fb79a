"""The sampling loop never waits for its device: no value and no tensor crosses to the host or back.

Checked without a GPU: on torch's ``meta`` device nothing is computed and a value cannot be read at
all, and every operation is seen by a dispatch mode.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_models import built, changed, text_and_rolloff, tiny_demo, tiny_vae
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.sampler import guidance_terms, sample, solver_plan


class CrossingsSeen(TorchDispatchMode):
    """Lists the operations that touch a tensor on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.found: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        self.operations += 1
        tensors = [one for one in tree_leaves((args, kwargs, result)) if isinstance(one, Tensor)]
        if any(one.device.type == "cpu" for one in tensors):
            self.found.append(str(function))
        return result


def _conditions(model: SAGASRModel, items: int) -> tuple[Tensor, Conditioning]:
    """Noise and every condition of F2, the frame included, on the meta device."""
    config = model.config
    assert config.text is not None
    latent = torch.randn(items, config.latent_dim, config.latent_length)
    text = torch.randn(items, config.text.max_length, config.text.dim)
    cond = Conditioning(latent, text, torch.rand(items, 2), torch.full((items,), 4000.0))
    cond = replace(cond, frame=model.frame(cond)).to("meta")
    return torch.randn_like(cond.lr_latent), cond


@pytest.mark.parametrize("raw", [tiny_demo(), tiny_vae()], ids=["MDCT", "VAE"])
@pytest.mark.parametrize("solver", ["euler", "midpoint", "ab2"])
def test_sampling_loop_never_meets_the_host(raw: dict[str, Any], solver: str) -> None:
    model = built(text_and_rolloff(changed(raw, sampling__solver=solver)))
    noise, cond = _conditions(model, 2)
    model = model.to("meta")
    terms = guidance_terms(1.4, 1.2, has_text=True)
    assert len(terms) == 3

    def velocity(x_t: Tensor, t: Tensor, until: Tensor) -> Tensor:
        return model.guided_velocity(x_t, t, cond, terms, until)

    with CrossingsSeen() as seen:
        latent = sample(velocity, noise, solver_plan(model.config.sampling))
    assert latent.shape == noise.shape
    assert latent.device.type == "meta"
    assert seen.operations > 100
    assert seen.found == []


def test_sampling_that_reads_a_value_would_be_seen() -> None:
    with CrossingsSeen() as seen:
        torch.zeros(3, device="meta") + torch.ones(3).to("meta")
    assert seen.found
    with pytest.raises((RuntimeError, NotImplementedError)):
        float(torch.zeros((), device="meta"))
