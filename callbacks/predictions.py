"""``predictions.csv``: what the network says of every sample."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch.distributed

from jellyfit.callbacks.folders import run_folder

__all__ = ["PredictionsCSV"]


class PredictionsCSV(pl.Callback):
    """Write ``predictions.csv`` with a row a sample: its id, predicted class, true class, and a score a class.

    Works with any task whose ``predict_step`` returns ``ids``, ``preds``, ``scores`` and ``target`` as
    :class:`~jellyfit.tasks.ClassificationTask` does. In a distributed run the rows of all processes are gathered.

    Args:
        filename: in the run folder, default ``predictions.csv``.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> from jellyfit.callbacks import PredictionsCSV
        >>> trainer = Trainer(accelerator="cpu", callbacks=[PredictionsCSV()], logger=False, enable_progress_bar=False)
        >>> # trainer.predict(task, datamodule) then writes predictions.csv
    """

    def __init__(self, filename: str = "predictions.csv") -> None:
        self.filename = filename
        self.path: Path | None = None
        self._rows: list[tuple[str, int, int, list[float]]] = []

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._rows = []

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        preds, targets = outputs["preds"].tolist(), outputs["target"].tolist()
        ids = outputs["ids"] or [f"{trainer.global_rank}-{batch_idx}-{i}" for i in range(len(preds))]
        self._rows += list(zip(ids, preds, targets, outputs["scores"].float().tolist(), strict=True))

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        rows = self._rows
        if trainer.world_size > 1:
            parts: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, rows)
            rows = [row for part in parts for row in part]
        if not trainer.is_global_zero or not rows or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        rows.sort(key=lambda row: row[0])
        names = _class_names(trainer, len(rows[0][3]))
        self.path = run_folder(trainer) / self.filename
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "prediction", "label", *(f"score_{name}" for name in names)])
            for name, prediction, target, scores in rows:
                writer.writerow([name, names[prediction], names[target], *(f"{score:.6g}" for score in scores)])


def _class_names(trainer: pl.Trainer, classes: int) -> list[str]:
    names = list(getattr(getattr(trainer, "datamodule", None), "classes", None) or [])
    return [str(name) for name in names] if len(names) == classes else [str(i) for i in range(classes)]
