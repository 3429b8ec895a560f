"""Ctrl-C (and SIGTERM) in training: stop between two batches and keep everything."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from jellyfit.callbacks.folders import run_folder
from jellyfit.runs import CHECKPOINTS

__all__ = ["InterruptCheckpoint"]


class InterruptCheckpoint(pl.Callback):
    """Save ``checkpoints/last.ckpt`` when training is interrupted.

    The first Ctrl-C lets the batch in progress finish, so that the checkpoint lies exactly between two batches and a
    resumed run goes on to the bit; the second one stops at once.

    Args:
        folder: where ``last.ckpt`` goes; default: ``checkpoints`` in the run folder.

    Attributes:
        saved: the checkpoint that was written, if any.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> from jellyfit.callbacks import InterruptCheckpoint
        >>> callback = InterruptCheckpoint(folder="checkpoints")
        >>> trainer = Trainer(accelerator="cpu", callbacks=[callback], logger=False, enable_progress_bar=False)
        >>> callback.saved is None  # nothing has been interrupted
        True
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self.saved: Path | None = None
        self._requested = False
        self._previous: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # not in on_fit_start: Lightning notes the handlers after it, and would put this one back when all is over
        self._requested = False
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
        self._restore()
        print("\nStopping after this batch; press Ctrl-C again to stop at once.", flush=True)

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _stop_here(self) -> None:
        if self._requested:
            self._requested = False
            raise KeyboardInterrupt

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._stop_here()

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._stop_here()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        interrupted = isinstance(exception, (KeyboardInterrupt, SIGTERMException))
        if not interrupted or trainer.state.fn != TrainerFn.FITTING or trainer.global_step == 0:
            return
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        folder = run_folder(trainer) / CHECKPOINTS if self.folder is None else self.folder
        path = folder / "last.ckpt"
        # not trainer.save_checkpoint: it waits for the other processes, which may be gone
        checkpoint = trainer._checkpoint_connector.dump_checkpoint()
        loop = trainer.fit_loop.epoch_loop
        batches: Any = loop.batch_progress.current
        if batches.ready > batches.completed == batches.started and not loop._should_accumulate():
            # Stopped before a batch: Lightning adds one to its count of steps when it goes on from there.
            checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
        trainer.strategy.save_checkpoint(checkpoint, path)
        if trainer.is_global_zero:
            self.saved = path

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._restore()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_previous": None}
