"""What the command line asks of every task."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from jellyfit.doctor import slow_precision
from jellyfit.errors import ConfigError
from jellyfit.metrics import SUM_DTYPE, FiringRateMeter

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Task"]


class Task(pl.LightningModule):
    """Base of all tasks: what ``jellyfit fit`` and the other verbs need to know of a LightningModule.

    Attributes:
        monitor: logged name by which the best checkpoint is chosen.
        mode: ``"min"`` or ``"max"``.
        weights_only_best: whether the best checkpoint holds weights alone, so that only the last one is gone on from:
            for tasks that have much more to keep than weights; default ``False``.

    Examples:
        >>> from jellyfit.tasks import SpikingTask, Task, TD3Task
        >>> issubclass(SpikingTask, Task), issubclass(TD3Task, Task)
        (True, True)
    """

    monitor: str = "val/loss"
    mode: Literal["min", "max"] = "min"
    weights_only_best: bool = False

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # set by Lightning 36 times a step, as it calls its hooks
            self.__dict__[name] = value  # nn.Module's own way asks first whether it is a parameter, module or buffer
        else:
            super().__setattr__(name, value)

    @property
    def network(self) -> nn.Module | None:
        """What is trained, for the first line that is printed; ``None`` while it is not made yet."""
        return None

    def summary(self) -> list[str]:
        """Lines that the command line prints when a test is over, beside the metrics; default none."""
        return []

    def on_fit_start(self) -> None:
        """Say so where the precision that was chosen is a trap."""
        said = slow_precision(str(self.trainer.precision), self.device)
        if said is not None and self.trainer.is_global_zero:
            print(f"Note: {said}", flush=True)

    def _log_same(self, name: str, value: Tensor, **options: Any) -> None:
        """Log what is already the same on every process: Lightning is asked for the maximum, which changes nothing."""
        self.log(name, value, sync_dist=True, reduce_fx="max", batch_size=1, **options)

    def _log_firing_rates(self, *meters: FiringRateMeter) -> None:
        """Log spikes per neuron and step of every layer, of all networks (of one make) and processes together."""
        sums = [meter.sums() for meter in meters]
        if not sums[0]:
            return
        totals = torch.stack([torch.stack([total.to(self.device) for total, _ in each.values()]) for each in sums])
        counts = torch.tensor([[count for _, count in each.values()] for each in sums], dtype=SUM_DTYPE).to(totals)
        totals, counts = self.trainer.strategy.reduce(torch.stack([totals.sum(0), counts.sum(0)]), reduce_op="sum")
        for layer, rate, count in zip(sums[0], totals / counts, counts.tolist(), strict=True):
            if count:
                self._log_same(f"firing_rate/{layer}", rate)

    def _keep_hyperparameters(self) -> None:
        """Under the command line, checkpoints hold the configuration as plain data: load_from_checkpoint(path) works.

        Elsewhere the arguments are objects, which would not load under ``weights_only=True``: nothing is kept.
        """
        from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters

        if _given_hyperparameters.get() is not None:
            self.save_hyperparameters(logger=False)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """The task that a checkpoint holds, made anew and given its weights; arguments are Lightning's.

        Checkpoints of the command line know the class of their task: called on a base class of it, as in
        ``Task.load_from_checkpoint(path)``, this gives that class.

        Raises:
            ConfigError: the checkpoint's class is not known here, or not a subclass of the one this is called on.
        """
        saved = _saved_class_path(checkpoint_path)
        if saved is None:
            return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        module, _, name = saved.rpartition(".")
        found = getattr(sys.modules.get(module), name, None)  # a checkpoint imports no code
        if not isinstance(found, type) or not issubclass(found, cls):
            problem = f"not a subclass of {cls.__name__}" if isinstance(found, type) else "not imported"
            raise ConfigError(
                f"{checkpoint_path} holds a task of the class {saved}, which is {problem}. Import it (from {module} "
                f"import {name}) and call {name}.load_from_checkpoint; its weights alone are the file's 'state_dict'."
            )
        return super(Task, found).load_from_checkpoint(checkpoint_path, *args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_trainer": None, "_fabric": None}


def _saved_class_path(checkpoint: Any) -> str | None:
    """The class that the checkpoint file says its task has; ``None`` where it says nothing or cannot be looked into."""
    if not isinstance(checkpoint, (str, os.PathLike)) or not Path(checkpoint).is_file():
        return None
    try:  # "meta": no weights are read
        content = torch.load(checkpoint, map_location="meta", weights_only=True)
    except Exception:  # Lightning will say what is wrong with it
        return None
    return (content.get("hyper_parameters") or {}).get("_class_path")
