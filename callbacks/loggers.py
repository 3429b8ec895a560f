"""``metrics.csv``: one row an epoch, kept when a run goes on."""

from __future__ import annotations

import csv
import os
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

__all__ = ["MetricsCSV", "read_metrics"]

Row = dict[str, float]


def read_metrics(path: str | os.PathLike[str]) -> list[Row]:
    """Rows of a ``metrics.csv``, each with the values that it has; no file gives no rows.

    Examples:
        >>> from jellyfit.callbacks import read_metrics
        >>> read_metrics("there/is/no/metrics.csv")
        []
    """
    path = Path(path)
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


class MetricsCSV(Logger):
    """Logger that writes ``FOLDER/metrics.csv`` with columns ``epoch``, ``step`` and one a metric.

    What is logged at one step shares a row. The file is replaced as a whole at every save, so it can be read at any
    time; rows of an earlier part of the same run are kept, except those at or behind the step at which it goes on.

    Args:
        folder: the run folder.
        filename: default ``metrics.csv``.

    Examples:
        >>> import tempfile
        >>> from jellyfit.callbacks import MetricsCSV, read_metrics
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     logger = MetricsCSV(folder)
        ...     logger.log_metrics({"epoch": 0, "val/loss": 0.5}, step=10)
        ...     logger.save()
        ...     read_metrics(logger.path)
        [{'epoch': 0.0, 'step': 10.0, 'val/loss': 0.5}]
    """

    def __init__(self, folder: str | os.PathLike[str], filename: str = "metrics.csv") -> None:
        super().__init__()
        self.folder = Path(folder)
        self.filename = filename
        self.rows: list[Row] = []
        self._started = False
        self._changed = False

    @property
    def name(self) -> str:
        return self.folder.parent.name

    @property
    def version(self) -> str:
        return self.folder.name

    @property
    def log_dir(self) -> str:
        """The run folder."""
        return str(self.folder)

    @property
    def save_dir(self) -> str:
        return str(self.folder)

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / self.filename

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run folder holds the whole ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        step = len(self.rows) if step is None else step
        if not self._started:
            self._started = True
            self.rows = [row for row in read_metrics(self.path) if row.get("step", -1) < step]
        row = {"step": float(step), **{key: float(value) for key, value in metrics.items()}}
        last = self.rows[-1] if self.rows else {}
        if last.get("step") == row["step"] and last.get("epoch") == row.get("epoch"):
            last.update(row)
        else:
            self.rows.append(row)
        self._changed = True

    @rank_zero_only
    def save(self) -> None:
        if not self._changed:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        columns = dict.fromkeys(["epoch", "step"])
        for row in self.rows:
            columns.update(dict.fromkeys(row))
        handle, scratch = tempfile.mkstemp(dir=self.folder, prefix=".metrics-", suffix=".csv")
        try:
            with os.fdopen(handle, "w", newline="") as file:
                writer = csv.DictWriter(file, list(columns))
                writer.writeheader()
                writer.writerows({key: f"{value:.10g}" for key, value in row.items()} for row in self.rows)
            Path(scratch).chmod(0o644)
            Path(scratch).replace(self.path)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise
        self._changed = False

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()
