"""Ctrl-C, SIGTERM, a cluster's signal before time is up, a broken environment: training stops and keeps everything."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from lightning.pytorch.utilities.exceptions import SIGTERMException

from jellyfit.callbacks.folders import run_folder
from jellyfit.rng import get_rng_state, set_rng_state
from jellyfit.runs import CHECKPOINTS, slurm_job

__all__ = ["InterruptCheckpoint"]


class InterruptCheckpoint(pl.Callback):
    """Save ``checkpoints/last.ckpt`` when training is told to stop by a signal, or by a broken environment.

    Training stops between two batches, so that a resumed run goes on to the bit: after the batch in progress (with
    gradient accumulation: after the step in progress). Several processes agree after which one; a signal to any of them
    counts for all. One that comes during their validation counts when that is over.

    =============  ==================================================================================================
    SIGINT         Ctrl-C. The second one stops at once.
    SIGTERM        as SIGINT.
    SIGUSR1        under SLURM (Lightning's ``SLURMEnvironment``, whose ``auto_requeue`` and ``requeue_signal`` hold):
                   besides, the job is queued again, by ``scontrol requeue``; training goes on if that fails.
    =============  ==================================================================================================

    An error that leaves whole what was learnt (:attr:`ControlError.resumable <jellyfit.errors.ControlError>`) is raised
    as any other, with a note that names the checkpoint.

    Args:
        folder: where ``last.ckpt`` goes; default: ``checkpoints`` in the run folder.

    Attributes:
        saved: the checkpoint that was written, if any; on the first process.
        requeued: the job that was put into the queue again, if any.

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
        self.requeued: str | None = None
        self._received = 0  # number of the signal that this process got
        self._agreed = 0  # of that for which all processes stop before the next batch
        self._random: dict[str, Any] = {}  # the generators before that batch was loaded, or before validation
        self._requeue_signal = 0
        self._kept = False
        self._previous: dict[int, Any] = {}
        self._launcher: Any = None
        self._speaks = True

    # ------------------------------------------------------------ signals

    # Not in on_fit_start: Lightning notes the handlers after it, and would put these back when all is over.
    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._listen(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._listen(trainer)

    def _listen(self, trainer: pl.Trainer) -> None:
        if self._previous or threading.current_thread() is not threading.main_thread():
            return
        self._received = self._agreed = self._requeue_signal = 0
        self._kept = False
        self._launcher = trainer.strategy.launcher
        self._speaks = trainer.is_global_zero
        numbers = [signal.SIGINT, signal.SIGTERM]
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue and environment.requeue_signal:
            self._requeue_signal = environment.requeue_signal
            numbers.append(environment.requeue_signal)
        # Lightning's own handlers of the last two save, or talk to the other processes, in the midst of a batch
        self._previous = {number: signal.signal(number, self._on_signal) for number in numbers}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        if number == signal.SIGINT:
            self._restore(number)
            if self._speaks:
                print("\nStopping after this batch; press Ctrl-C again to stop at once.", flush=True)
        elif number == signal.SIGTERM and isinstance(self._launcher, _SubprocessScriptLauncher):
            self._launcher.kill(number)

    def _restore(self, *numbers: int) -> None:
        for number in numbers or tuple(self._previous):
            previous = self._previous.pop(number, None)
            if previous is not None:
                signal.signal(number, previous)

    # ------------------------------------------------------------ between two batches

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._agreed:
            self._random = get_rng_state()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.fit_loop._should_accumulate():
            return  # gradients are in no checkpoint
        number = self._received
        if trainer.world_size > 1:
            device = trainer.strategy.root_device
            number = int(trainer.strategy.reduce(torch.tensor(number, device=device), reduce_op="max"))
        if number:
            self._agreed = number
            self._random = get_rng_state()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if not self._agreed:
            return
        number, self._agreed, self._received = self._agreed, 0, 0
        now = get_rng_state()
        self._save(trainer)
        trainer.strategy.barrier("InterruptCheckpoint")
        if number == self._requeue_signal and not self._requeue(trainer):
            set_rng_state(now)
            return
        self._kept = True
        raise KeyboardInterrupt

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._random = get_rng_state()

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._received and trainer.world_size == 1 and not self._requeue_signal:
            self._received = self._agreed = 0
            self._save(trainer)
            self._kept = True
            raise KeyboardInterrupt

    def _requeue(self, trainer: pl.Trainer) -> bool:
        """Put the job into the queue again; whether that was done, on every process."""
        job, problem = slurm_job(), ""
        if trainer.is_global_zero:
            try:
                done = subprocess.run(["scontrol", "requeue", str(job)], capture_output=True, text=True, check=False)
                problem = done.stderr.strip() or f"status {done.returncode}" if done.returncode else ""
            except OSError as error:
                problem = str(error)
            if problem:
                warnings.warn(
                    f"scontrol requeue {job} failed ({problem}); training goes on. What was saved, "
                    "checkpoints/last.ckpt, is used when the job is started again.",
                    stacklevel=2,
                )
        succeeded = bool(trainer.strategy.broadcast(not problem))
        self.requeued = job if succeeded else None
        return succeeded

    # ------------------------------------------------------------ saving

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._previous = {}  # Lightning puts the handlers back
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or self._kept:
            return
        if getattr(exception, "resumable", False):
            self._save_together(trainer, exception)
        elif isinstance(exception, (KeyboardInterrupt, SIGTERMException)) and trainer.global_step > 0:
            self._random = get_rng_state()
            self._save(trainer)

    def _save_together(self, trainer: pl.Trainer, exception: BaseException) -> None:
        """Save after an exception that every process has raised, at the same place."""
        if not trainer.validating:
            self._random = get_rng_state()
        status, trainer.state.status = trainer.state.status, TrainerStatus.RUNNING  # the others are there, too
        try:
            self._save(trainer)
            trainer.strategy.barrier("InterruptCheckpoint")  # a process that ends takes the others with it
        finally:
            trainer.state.status = status
        if self.saved is not None:
            exception.__notes__ = [*getattr(exception, "__notes__", ()), f"Saved {self.saved}."]

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        folder = run_folder(trainer) / CHECKPOINTS if self.folder is None else self.folder
        path = folder / "last.ckpt"
        set_rng_state(self._random)  # loading a batch may have drawn from them, as may validation
        # not trainer.save_checkpoint: it waits for the other processes, which may be gone
        checkpoint = trainer._checkpoint_connector.dump_checkpoint()
        loop = trainer.fit_loop.epoch_loop
        batches: Any = loop.batch_progress.current
        if batches.ready > batches.completed == batches.processed and not loop._should_accumulate():
            # Stopped before a batch or within it: Lightning adds one to its count of steps when it goes on from there.
            checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
        if trainer.validating:
            rewind_validation(checkpoint["loops"]["fit_loop"])
        trainer.strategy.save_checkpoint(checkpoint, path)
        if trainer.is_global_zero:
            self.saved = path

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._restore()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_previous": {}, "_launcher": None}


def rewind_validation(loops: dict[str, Any]) -> None:
    """In the state of a fit loop: validation has begun, and is to be made from its beginning."""
    nothing = dict.fromkeys(("ready", "started", "processed", "completed"), 0)
    loops["epoch_loop.val_loop.batch_progress"].update(total={**nothing, "ready": 1, "started": 1}, current=nothing)
