"""A task: classification with one more metric."""

from torchmetrics import Metric
from torchmetrics.classification import MulticlassF1Score

from jellyfit.tasks import ClassificationTask

__all__ = ["MyTask"]


class MyTask(ClassificationTask):
    """Classification that logs ``STAGE/f1`` too."""

    def configure_metrics(self, stage: str) -> dict[str, Metric]:
        return super().configure_metrics(stage) | {"f1": MulticlassF1Score(self.num_classes, average="macro")}
