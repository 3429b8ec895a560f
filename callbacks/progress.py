"""Progress: a bar in a terminal, plain lines for logs and pipes."""

from __future__ import annotations

import math
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar

__all__ = ["PlainProgress", "ProgressBar"]

_SHOWN = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "train/return", "val/return")


class PlainProgress(pl.Callback):
    """Print one line an epoch: losses, accuracies and seconds. For output that is not a terminal.

    Args:
        metrics: logged names to show, default the losses, accuracies and returns of training and validation.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> from jellyfit.callbacks import PlainProgress
        >>> shown = PlainProgress(metrics=("train/loss", "val/accuracy"))
        >>> trainer = Trainer(accelerator="cpu", callbacks=[shown], logger=False, enable_progress_bar=False)
    """

    def __init__(self, metrics: tuple[str, ...] = _SHOWN) -> None:
        self.metrics = metrics
        self._begun = 0.0
        self._epoch: int | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._print(trainer)
        self._begun = time.monotonic()
        self._epoch = trainer.current_epoch

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._print(trainer)

    def _print(self, trainer: pl.Trainer) -> None:
        # called at the start of the next epoch: only then are all of the last one's metrics known
        if self._epoch is None or not trainer.is_global_zero:
            return
        values = trainer.callback_metrics
        shown = "  ".join(f"{name} {float(values[name]):.4f}" for name in self.metrics if name in values)
        total = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"
        print(f"epoch {self._epoch + 1}/{total}  {shown}  ({time.monotonic() - self._begun:.1f} s)", flush=True)
        self._epoch = None


class ProgressBar(RichProgressBar):
    """Lightning's rich progress bar, which also shows the training loss of the epoch so far (of this process).

    Args:
        refresh_rate: batches after which it is drawn anew, default 10; the loss is asked for no more often, because
            that waits for the GPU.
        leave: keep the bar of every epoch, default ``True``.

    Examples:
        >>> from jellyfit.callbacks import ProgressBar
        >>> ProgressBar(refresh_rate=20).refresh_rate
        20
    """

    def __init__(self, refresh_rate: int = 10, leave: bool = True) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=leave)
        self._loss = math.nan

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        loss_of = getattr(pl_module, "loss_of", None)  # a SpikingTask
        if trainer.training and loss_of is not None:
            if trainer.fit_loop.epoch_loop.batch_idx % self.refresh_rate == 0:
                self._loss = loss_of("train").so_far()
            if not math.isnan(self._loss):
                metrics["train/loss"] = self._loss
        return metrics
