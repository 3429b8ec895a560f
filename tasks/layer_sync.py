"""``Trainer(sync_batchnorm=True)`` for networks with step modes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.plugins import LayerSync, TorchSyncBatchNorm
from torch import nn

from jellyfit import layers
from jellyfit.neurons import StepModule

if TYPE_CHECKING:
    import lightning.pytorch as pl

__all__ = ["StepModeSyncBatchNorm", "keep_step_modes"]


class StepModeSyncBatchNorm(LayerSync):
    """Batch norms over the batch of all processes while a network is fitted; step modes stay.

    Lightning's own plugin makes torch's layers, which take time for the batch and the batch for the channels. Tasks of
    ours put this one in its place, so ``--trainer.sync_batchnorm=true`` is all that is to be said. After a fit the
    network has its own layers again, with what they have learnt.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> from jellyfit.tasks import StepModeSyncBatchNorm
        >>> sync, net = StepModeSyncBatchNorm(), torch.nn.Sequential(layers.BatchNorm2d(3, step_mode="m"))
        >>> type(sync.apply(net)[0]).__name__, type(sync.revert(net)[0]).__name__
        ('SyncBatchNorm', 'BatchNorm2d')
    """

    def __init__(self) -> None:
        self._replaced: list[tuple[nn.Module, str, nn.Module]] = []

    def apply(self, model: nn.Module) -> nn.Module:
        """Convert every batch norm in ``model``, in place.

        Raises:
            ConfigError: a batch norm has no form that shares statistics, see
                :meth:`jellyfit.layers.SyncBatchNorm.convert_sync_batchnorm`.
        """
        before = [(parent, name, child) for parent in model.modules() for name, child in parent.named_children()]
        converted = layers.SyncBatchNorm.convert_sync_batchnorm(model)
        self._replaced = [(parent, name, child) for parent, name, child in before if getattr(parent, name) is not child]
        return converted

    def revert(self, model: nn.Module) -> nn.Module:
        """Put the layers of before :meth:`apply` back, with the parameters and statistics of now."""
        for parent, name, own in self._replaced:
            shared = getattr(parent, name)
            own._parameters, own._buffers = shared._parameters, shared._buffers
            own.train(shared.training)
            if isinstance(own, StepModule):
                own.step_mode = shared.step_mode
            parent._modules[name] = own
        self._replaced = []
        return model


def keep_step_modes(trainer: pl.Trainer) -> None:
    """Put :class:`StepModeSyncBatchNorm` in the place of Lightning's plugin, where that is going to be used."""
    strategy: Any = trainer.strategy
    if type(getattr(strategy, "_layer_sync", None)) is TorchSyncBatchNorm:
        strategy._layer_sync = StepModeSyncBatchNorm()
