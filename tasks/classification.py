"""Classification of sequences (event frames, spike trains) and of still images."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix

from jellyfit import losses, pictures
from jellyfit.backbones import Backbone
from jellyfit.callbacks.folders import save_picture, save_table
from jellyfit.datamodules.batch import Batch, as_batch
from jellyfit.encoders import Encoder
from jellyfit.errors import ConfigError
from jellyfit.metrics import Accuracy, per_class
from jellyfit.parameter_groups import ParameterGroups
from jellyfit.tasks.base import SpikingTask

__all__ = ["ClassificationTask"]


class ClassificationTask(SpikingTask):
    """Train a spiking network to tell classes apart.

    Labels are class numbers ``[N]``, or where samples are mixed shares of classes ``[N, C]``; for accuracies a sample
    is then of the class with the largest share.

    Logs ``STAGE/loss``, ``STAGE/accuracy`` (top-1) and ``STAGE/accuracy_topK`` when there are more than K classes;
    after a test, draws a confusion matrix, writes ``per_class.csv`` (see :func:`jellyfit.metrics.per_class`) into the
    run folder and names the worst classes.

    Subclass it and write only what differs: :meth:`configure_loss`, :meth:`configure_metrics`,
    ``configure_optimizers``, ``forward``.

    Args:
        backbone: the network, ``[T, N, *] -> [T, N, num_classes]``.
        loss: see :mod:`jellyfit.losses`; default :class:`~jellyfit.losses.RateCrossEntropy`.
        readout: what predictions are made with; default: the loss's own.
        num_classes: default: the backbone's ``num_classes``.
        top_k: K of the second accuracy, default 5.
        T, encoder, optimizer, scheduler, scheduler_interval, backend, memory_format, log_firing_rates,
            parameter_groups, compile, time_chunks, spike_compression: see :class:`~jellyfit.tasks.SpikingTask`.

    Raises:
        ConfigError: the number of classes is not known.

    Examples:
        >>> import torch
        >>> from jellyfit import losses
        >>> from jellyfit.backbones import SpikingMLP
        >>> from jellyfit.tasks import ClassificationTask
        >>> task = ClassificationTask(SpikingMLP(4, 2), loss=losses.RateMSE(), T=8)
        >>> # lightning.pytorch.Trainer().fit(task, datamodule) trains it
        >>> task(torch.zeros(3, 4)).shape
        torch.Size([8, 3, 2])
    """

    monitor = "val/accuracy"
    mode = "max"

    def __init__(
        self,
        backbone: Backbone,
        loss: losses.Loss | None = None,
        readout: losses.Readout | None = None,
        num_classes: int | None = None,
        top_k: int = 5,
        T: int | None = None,
        encoder: Encoder | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        backend: str = "auto",
        memory_format: Literal["contiguous", "channels_last"] = "contiguous",
        log_firing_rates: bool = True,
        parameter_groups: ParameterGroups | None = None,
        compile: bool = False,  # noqa: A002
        time_chunks: int = 1,
        spike_compression: bool = False,
    ) -> None:
        super().__init__(
            backbone,
            T,
            encoder,
            optimizer,
            scheduler,
            scheduler_interval,
            backend,
            memory_format,
            log_firing_rates,
            parameter_groups,
            compile,
            time_chunks,
            spike_compression,
        )
        classes = getattr(backbone, "num_classes", None) if num_classes is None else num_classes
        if not isinstance(classes, int) or classes < 2:
            raise ConfigError(
                f"{type(self).__name__}: the number of classes is {classes!r}; expected 2 or more. Give it, or "
                f"set num_classes in {type(backbone).__name__}."
            )
        self.num_classes = classes
        self.top_k = top_k
        self.loss = self.configure_loss() if loss is None else loss
        self.readout = self.loss.readout if readout is None else readout
        self._rows: list[dict[str, Any]] = []  # of the last test, one a class

    def configure_loss(self) -> losses.Loss:
        """The loss when none was given; default :class:`~jellyfit.losses.RateCrossEntropy`."""
        return losses.RateCrossEntropy()

    def configure_metrics(self, stage: str) -> dict[str, Metric]:
        """Accuracy, top-K accuracy when classes allow, and for ``"test"`` the confusion matrix."""
        classes = self.num_classes
        metrics: dict[str, Metric] = {"accuracy": Accuracy()}
        if 1 < self.top_k < classes:
            metrics[f"accuracy_top{self.top_k}"] = Accuracy(self.top_k)
        if stage == "test":
            metrics["confusion"] = MulticlassConfusionMatrix(classes, validate_args=False)
        return metrics

    def step(self, batch: Batch, stage: str) -> tuple[Tensor, dict[str, Any]]:
        y_seq = self(batch.x)
        loss = self.loss(y_seq, batch.y, batch.lengths)
        return loss, {"preds": self.readout(y_seq.detach(), batch.lengths), "target": losses.hard_labels(batch.y)}

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """``ids`` (or ``None``), ``preds [N]``, ``scores [N, C]`` and ``target [N]`` of a batch."""
        batch = as_batch(batch)
        scores = self.readout(self(batch.x), batch.lengths)
        return {"ids": batch.ids, "preds": scores.argmax(-1), "scores": scores, "target": losses.hard_labels(batch.y)}

    def on_test_epoch_end(self) -> None:
        confusion = self.metrics_of("test").get("confusion")
        counts = confusion.compute() if confusion is not None else None  # compute() talks to every process
        super().on_test_epoch_end()
        if isinstance(counts, Tensor) and self.trainer.is_global_zero:
            self._save_confusion(counts.to("cpu", torch.int64))

    def _save_confusion(self, counts: Tensor) -> None:
        classes = getattr(getattr(self.trainer, "datamodule", None), "classes", None) or None
        names = [str(name) for name in classes] if classes and len(classes) == self.num_classes else None
        save_picture(self.trainer, "confusion_matrix", pictures.confusion_matrix(counts.numpy(), names))
        table = per_class(counts)
        values = zip(*(column.tolist() for column in table.values()), strict=True)
        self._rows = [
            {"class": name, **dict(zip(table, row, strict=True))}
            for name, row in zip(names or map(str, range(self.num_classes)), values, strict=True)
        ]
        save_table(self.trainer, "per_class", ["class", *table], self._rows)

    def summary(self) -> list[str]:
        """The worst classes of the last test, at most three."""
        worst = sorted((row for row in self._rows if row["samples"]), key=lambda row: row["recall"])[:3]
        if not worst or worst[0]["recall"] == 1.0:
            return []
        shown = ", ".join(f"{row['class']} ({row['recall']:.4f} of {row['samples']})" for row in worst)
        return [f"Worst classes: {shown}"]
