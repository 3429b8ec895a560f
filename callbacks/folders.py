"""The run folder as callbacks and tasks see it: where pictures and tables go."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger

from jellyfit import pictures
from jellyfit.runs import PICTURES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["run_folder", "save_picture", "save_table"]


def run_folder(trainer: pl.Trainer) -> Path:
    """Where this run keeps its files: the command line's ``runs/NAME/VERSION``, else the trainer's log folder.

    In a distributed run call it on the first process only, or on all of them.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> from jellyfit.callbacks import run_folder
        >>> trainer = Trainer(accelerator="cpu", default_root_dir="mine", logger=False, enable_progress_bar=False)
        >>> run_folder(trainer).name
        'mine'
    """
    folder = getattr(trainer, "run_folder", None)
    if folder is not None:
        return Path(folder)
    for logger in trainer.loggers:
        folder = getattr(logger, "log_dir", None)
        if folder:
            return Path(folder)
    return Path(trainer.default_root_dir)


def save_picture(trainer: pl.Trainer, name: str, figure: Figure) -> Path:
    """Write ``figure`` to ``pictures/NAME.png`` in the run folder, and to TensorBoard where that is a logger.

    Under ``fast_dev_run`` nothing is written.

    Examples:
        >>> import tempfile
        >>> from lightning.pytorch import Trainer
        >>> from jellyfit import pictures
        >>> from jellyfit.callbacks import save_picture
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trainer = Trainer(accelerator="cpu", default_root_dir=folder, logger=False, enable_progress_bar=False)
        ...     path = save_picture(trainer, "rates", pictures.firing_rates({"layer": 0.1}))
        ...     path.relative_to(folder).as_posix()
        'pictures/rates.png'
    """
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return run_folder(trainer) / PICTURES / f"{name}.png"
    path = pictures.save(figure, run_folder(trainer) / PICTURES / f"{name}.png")
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, pictures.to_array(figure), trainer.global_step, dataformats="HWC")
    return path


def save_table(trainer: pl.Trainer, name: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows to ``NAME.csv`` in the run folder; floats with 6 digits, NaN as an empty cell.

    Under ``fast_dev_run`` nothing is written.

    Examples:
        >>> import tempfile
        >>> from lightning.pytorch import Trainer
        >>> from jellyfit.callbacks import save_table
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trainer = Trainer(accelerator="cpu", default_root_dir=folder, logger=False, enable_progress_bar=False)
        ...     path = save_table(trainer, "per_class", ["class", "recall"], [{"class": "cat", "recall": 2 / 3}])
        ...     path.read_text().split()
        ['class,recall', 'cat,0.666667']
    """
    path = run_folder(trainer) / f"{name}.csv"
    if not trainer.fast_dev_run:  # type: ignore[attr-defined]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([_cell(row[column]) for column in columns] for row in rows)
    return path


def _cell(value: Any) -> Any:
    return ("" if math.isnan(value) else f"{value:.6g}") if isinstance(value, float) else value
