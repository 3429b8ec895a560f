"""What a checkpoint keeps of every process beside the weights: its random numbers, and what it has counted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch.distributed
from lightning.fabric.utilities import move_data_to_device
from torchmetrics import Metric

from jellyfit.callbacks.interrupt import rewind_validation
from jellyfit.rng import get_rng_state, set_rng_state

if TYPE_CHECKING:
    from jellyfit.tasks.base import SpikingTask
    from jellyfit.tasks.task import Task

KEY = "jellyfit_processes"
"""Where it stands in a checkpoint."""


def counting(task: SpikingTask, stage: str) -> Iterator[tuple[str, Metric]]:
    """Everything in ``task`` that counts over an epoch of ``stage``, by its dotted name."""
    for name, module in task.named_modules():
        if isinstance(module, Metric) and name.startswith((f"stage_losses.{stage}_", f"stage_metrics.{stage}_")):
            yield name, module


def of_every_process(task: Task, mine: Any) -> dict[int, Any]:
    """``mine`` of every process, by its rank; all of them call this together.

    After an error the others may be gone: then that of this process alone.
    """
    trainer = task._trainer
    number, rank = (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)
    if number > 1 and trainer is not None and not trainer.interrupted and torch.distributed.is_initialized():
        gathered: list[Any] = [None] * number
        torch.distributed.all_gather_object(gathered, mine)
        return dict(enumerate(gathered))
    return {rank: mine}


def save_processes(task: SpikingTask, checkpoint: dict[str, Any]) -> None:
    """Put into ``checkpoint`` what every process needs to go on to the bit, see :func:`of_every_process`."""
    counted = {
        name: {"updates": metric.update_count, "state": move_data_to_device(metric.metric_state, torch.device("cpu"))}
        for name, metric in counting(task, "train")
        if metric.update_called
    }
    states = of_every_process(task, {"rng": get_rng_state(), "counted": counted})
    checkpoint[KEY] = {"number": 1 if task._trainer is None else task._trainer.world_size, "states": states}


def restore_processes(task: SpikingTask, saved: dict[str, Any]) -> None:
    """Go on from what :func:`save_processes` has put into a checkpoint.

    With as many processes as then, each goes on from its own. With another number, a process whose place was not there
    draws a new stream of random numbers, and what was counted is shared out, so that sums over all processes stay.
    """
    rank, number = task.trainer.global_rank, task.trainer.world_size
    states: dict[int, Any] = saved["states"]
    own = states.get(rank)
    if own is not None:
        set_rng_state(own["rng"])
    else:
        set_rng_state(states[min(states)]["rng"], rank)
    for name, metric in counting(task, "train"):
        counted = {place: state["counted"][name] for place, state in states.items() if name in state["counted"]}
        if not counted:
            continue
        mine = [each["state"] for place, each in sorted(counted.items()) if place % number == rank]
        # on all: processes must agree on what was updated
        metric._update_count = max(each["updates"] for each in counted.values())
        for key, value in move_data_to_device(mine[0], task.device).items() if mine else ():
            setattr(metric, key, value)
        for state in mine[1:]:
            _merge(name, metric, move_data_to_device(state, task.device))


def _merge(name: str, metric: Metric, state: dict[str, Any]) -> None:
    try:
        metric.merge_state(state)
    except RuntimeError:  # of a class that cannot
        warnings.warn(
            f"{name}: {type(metric).__name__} cannot merge what several processes have counted; its value of this "
            "epoch leaves a part out. Go on with as many processes as before, or from the end of an epoch.",
            stacklevel=2,
        )


# ------------------------------------------------------------ the end of an epoch that is gone on with


def finish_batch(checkpoint: dict[str, Any]) -> None:
    """Let a checkpoint made right after the last batch of an epoch go on with that epoch's validation.

    Lightning would begin the next epoch. Here its counts are set to those of a run stopped at the start of validation.
    """
    loops = checkpoint.get("loops", {}).get("fit_loop", {})
    batches = loops.get("epoch_loop.batch_progress")
    if not batches or not batches["is_last_batch"]:
        return
    current = batches["current"]
    if not current["ready"] == current["processed"] == current["completed"] + 1:
        return  # not made in on_train_batch_end
    for part in ("total", "current"):
        batches[part]["completed"] += 1
    rewind_validation(loops)


def finish_epoch(trainer: pl.Trainer) -> None:
    """Where an epoch is gone on with behind its last batch and has no validation, go to its end at once."""
    loop = trainer.fit_loop.epoch_loop
    if not loop.restarted_on_last or not loop._num_ready_batches_reached():
        return
    if not loop._should_check_val_fx(trainer.fit_loop._data_fetcher):  # type: ignore[arg-type]
        loop.val_loop._has_run = True
        loop._batches_that_stepped += 1  # which follows validation


def end_restart(trainer: pl.Trainer) -> None:
    """At the end of an epoch that was gone on with: what follows is a run as any other.

    Lightning leaves ``ReduceLROnPlateau`` out there, as metrics may be missing (those of a validation before the stop).
    """
    trainer.fit_loop.epoch_loop._restarting = False  # done by Lightning only if there was a batch
    plateaus = [config for config in trainer.lr_scheduler_configs if config.reduce_on_plateau]
    if all(config.monitor in trainer.callback_metrics for config in plateaus):
        trainer.fit_loop._restarting = False
