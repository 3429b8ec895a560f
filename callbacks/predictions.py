"""``predictions.csv``: what the network says of every sample."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch.distributed

from jellyfit.callbacks.folders import run_folder

__all__ = ["PredictionsCSV"]


class PredictionsCSV(pl.Callback):
    """Write ``predictions.csv`` with a row a sample: its id, predicted class, true class, and scores.

    The columns are ``id``, ``prediction``, ``label``, ``score`` (of the predicted class) and one ``score_CLASS`` a
    class, in the order of the ids. A score is what the task's readout gives, for example a firing rate; the largest
    wins.

    Works with any task whose ``predict_step`` returns ``ids``, ``preds``, ``scores`` and ``target`` as
    :class:`~jellyfit.tasks.ClassificationTask` does. In a distributed run the rows of all processes are gathered.
    ``jellyfit predict`` brings it along; one among ``trainer.callbacks`` takes its place.

    Args:
        filename: in the run folder, default ``predictions.csv``.
        all_scores: whether there is a column for every class, default ``True``; for a thousand classes they make a
            large file.
        npz: write everything as arrays too, default ``False``: ``predictions.npz`` (named after ``filename``) with
            ``ids [N]``, ``predictions [N]`` and ``labels [N]`` (class numbers), ``scores [N, C]`` (float32) and
            ``classes [C]``.

    Attributes:
        path: the file that was written, if any.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> from jellyfit.callbacks import PredictionsCSV
        >>> callback = PredictionsCSV(all_scores=False, npz=True)
        >>> trainer = Trainer(accelerator="cpu", callbacks=[callback], logger=False, enable_progress_bar=False)
        >>> # trainer.predict(task, datamodule) then writes predictions.csv and predictions.npz
    """

    def __init__(self, filename: str = "predictions.csv", all_scores: bool = True, npz: bool = False) -> None:
        self.filename = filename
        self.all_scores = all_scores
        self.npz = npz
        self.path: Path | None = None
        self._ids: list[str] = []
        self._columns: list[tuple[np.ndarray, ...]] = []  # predictions, labels, scores; a tuple a batch

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._ids, self._columns = [], []

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if "preds" not in outputs:  # a task that predicts something else than classes
            return
        values = (outputs["preds"], outputs["target"], outputs["scores"].float())
        self._columns.append(tuple(value.cpu().numpy() for value in values))
        numbers = range(len(outputs["preds"]))
        self._ids += outputs["ids"] or [f"{trainer.global_rank}-{batch_idx}-{i}" for i in numbers]

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        ids, columns = self._ids, self._columns
        if trainer.world_size > 1:
            parts: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, (ids, columns))
            ids, columns = [name for part in parts for name in part[0]], [piece for part in parts for piece in part[1]]
        if not trainer.is_global_zero or not ids or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        order = sorted(range(len(ids)), key=ids.__getitem__)
        ids = [ids[i] for i in order]
        predictions, labels, scores = (np.concatenate(pieces)[order] for pieces in zip(*columns, strict=True))
        names = _class_names(trainer, scores.shape[1])
        self.path = run_folder(trainer) / self.filename
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.npz:
            np.savez(
                self.path.with_suffix(".npz"),
                ids=np.array(ids),
                predictions=predictions,
                labels=labels,
                scores=scores,
                classes=np.array(names),
            )
        with self.path.open("w", newline="") as file:
            writer = csv.writer(file)
            shown = [f"score_{name}" for name in names] if self.all_scores else []
            writer.writerow(["id", "prediction", "label", "score", *shown])
            for name, prediction, label, row in zip(ids, predictions, labels, scores, strict=True):
                every = [f"{score:.6g}" for score in row] if self.all_scores else []
                writer.writerow([name, names[prediction], names[label], f"{row[prediction]:.6g}", *every])


def _class_names(trainer: pl.Trainer, classes: int) -> list[str]:
    names = list(getattr(getattr(trainer, "datamodule", None), "classes", None) or [])
    return [str(name) for name in names] if len(names) == classes else [str(i) for i in range(classes)]
