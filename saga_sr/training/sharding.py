"""FSDP: every process keeps its share of the weights, gradients, moments and averages.

A layer's weights are gathered when the layer is reached and given up again after it, so that a
model needs 1/W of its memory on each of W processes, and one layer. This is torch's FSDP2: sharded
tensors are `DTensor`s under their old names, and what works on tensors works on them. Three things
need care: tensors are made whole for files (`for_file`), cut up again from files (`cut_like`), and
given up after each velocity, since the averages are swapped in between.

A checkpoint is the same file with and without sharding, so a run may go on with either.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


def shard(model: Any, mesh: DeviceMesh) -> None:
    """Shard a `SAGASRModel` in place, but for its frozen pretransform."""
    for layer in model.dit.transformer.layers:
        fully_shard(layer, mesh=mesh)
    frozen = set(model.pretransform.parameters())
    fully_shard(model, mesh=mesh, reshard_after_forward=True, ignored_params=frozen)
    register_fsdp_forward_method(model, "velocity")  # what is called from outside


def is_sharded(model: nn.Module) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def whole(value: Tensor) -> Tensor:
    """A sharded tensor as a whole; all processes must ask for it. Others as they are."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def for_file(value: Tensor) -> Tensor:
    """`whole`, and a sharded tensor on the CPU: all of them at once are more than a GPU holds."""
    return whole(value).cpu() if isinstance(value, DTensor) else value


def cut_like(value: Tensor, pattern: Tensor) -> Tensor:
    """A copy of a whole tensor, sharded if ``pattern`` is; all processes must ask for it."""
    if not isinstance(pattern, DTensor) or isinstance(value, DTensor):
        return value.clone()
    on_device = value.to(pattern.device, copy=True)
    return distribute_tensor(on_device, pattern.device_mesh, pattern.placements)


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a sharded model on the CPU of the first process; empty on the others."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state: dict[str, Any] = get_model_state_dict(model, options=options)
    return state


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's FSDP2 with checkpoints of one file.

    Lightning's own single file numbers the optimiser's state by all parameters, frozen ones
    included, which no other strategy reads. Here it is what the optimiser itself would write.
    """

    lightning_restore_optimizer = True

    def __init__(self, processes: int) -> None:
        super().__init__(
            data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False
        )

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return _in_state(optimizer.state_dict(), lambda number, value: for_file(value))

    def load_checkpoint(
        self, checkpoint_path: Path | str, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(checkpoint_path)

    @torch.no_grad()
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        for name, value in checkpoint["state_dict"].items():
            own[name].copy_(cut_like(value, own[name]))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]

            def cut(number: int, value: Tensor, parameters: list[Tensor] = parameters) -> Tensor:
                pattern = parameters[number]
                return cut_like(value, pattern) if value.shape == pattern.shape else value

            optimizer.load_state_dict(_in_state(state, cut))


def _in_state(state: dict[str, Any], change: Callable[[int, Tensor], Tensor]) -> dict[str, Any]:
    """An optimiser's state dict with ``change(number of the parameter, tensor)`` on each tensor."""
    changed = {
        number: {
            name: change(number, value) if isinstance(value, Tensor) else value
            for name, value in entry.items()
        }
        for number, entry in state["state"].items()
    }
    return state | {"state": changed}
