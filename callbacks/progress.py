"""Progress as plain lines, for logs and pipes."""

from __future__ import annotations

import time

import lightning.pytorch as pl

__all__ = ["PlainProgress"]

_SHOWN = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")


class PlainProgress(pl.Callback):
    """Print one line an epoch: losses, accuracies and seconds. For output that is not a terminal.

    Args:
        metrics: logged names to show, default the losses and accuracies of training and validation.
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
