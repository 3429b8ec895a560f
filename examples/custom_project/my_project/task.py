import torchmetrics

from jellyfit import tasks


class MyTask(tasks.ClassificationTask):
    """Classification that also logs train/f1, val/f1 and test/f1."""

    def configure_metrics(self, stage):
        f1 = torchmetrics.F1Score("multiclass", num_classes=self.num_classes, average="macro")
        return super().configure_metrics(stage) | {"f1": f1}
