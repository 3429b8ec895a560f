"""Tasks under Lightning's ``ModelParallelStrategy``: networks shared out among processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule

from jellyfit.errors import ConfigError
from jellyfit.sharding import shard

if TYPE_CHECKING:
    from jellyfit.tasks.base import SpikingTask


def shard_task(task: SpikingTask, mesh: DeviceMesh) -> None:
    """Shard the backbone of ``task`` over the data-parallel part of ``mesh``, once.

    Raises:
        ConfigError: tensors are to be cut too, or parameters stand outside of the backbone.
    """
    if isinstance(task.backbone, FSDPModule):
        return
    cut = mesh["tensor_parallel"].size()
    if cut > 1:
        raise ConfigError(
            f"trainer.strategy: ModelParallelStrategy with tensor_parallel_size={cut}; expected 1 (layers of spiking "
            f"networks are not cut). Set tensor_parallel_size=1 and data_parallel_size={mesh.size()}."
        )
    outside = [name for name, _ in task.named_parameters() if not name.startswith("backbone.")]
    if outside:
        raise ConfigError(
            f"trainer.strategy: ModelParallelStrategy shares out the backbone alone; the parameters "
            f"{', '.join(outside)} stand outside of it, and would go apart. Use --trainer.strategy=ddp."
        )
    shard(task.backbone, mesh["data_parallel"])
