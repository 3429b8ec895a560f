"""Pictures of what a network does: spikes, firing rates, its input, learning curves."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from jellyfit import pictures
from jellyfit.callbacks.folders import save_picture
from jellyfit.callbacks.loggers import MetricsCSV
from jellyfit.datamodules.batch import Batch, as_batch
from jellyfit.losses import hard_labels
from jellyfit.metrics import SpikeRecorder
from jellyfit.rng import get_rng_state, set_rng_state

__all__ = ["SpikePictures"]


class SpikePictures(pl.Callback):
    """Draw, as PNG in the run folder's ``pictures/`` and in TensorBoard:

    * ``spike_raster``: when which neuron fires, layer by layer, for one sample;
    * ``firing_rates``: spikes per neuron and step of every layer, for that sample;
    * ``event_frames``: the sample's frames, ON green and OFF red (inputs ``[T, N, 2, H, W]`` only);
    * ``learning_curves``: losses and accuracies over epochs.

    Drawn at the end of training from the first validation batch, and after a test from the first test batch (names
    begin with ``test_``). Needs no display and leaves the random numbers of training as they are.

    Args:
        sample: index in that batch of the sample to draw, default 0.
        every_n_epochs: draw in training too, after every so many epochs; default 0: only at the end.
        max_neurons: neurons drawn a layer at most, default 200.

    Examples:
        >>> from jellyfit.callbacks import SpikePictures
        >>> SpikePictures(sample=3, every_n_epochs=5).every_n_epochs
        5
    """  # noqa: D415

    def __init__(self, sample: int = 0, every_n_epochs: int = 0, max_neurons: int = 200) -> None:
        self.sample = sample
        self.every_n_epochs = every_n_epochs
        self.max_neurons = max_neurons
        self._batch: Batch | None = None
        self._rows: list[dict[str, float]] = []

    def _keep(self, trainer: pl.Trainer, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0 and trainer.is_global_zero:
            batch = as_batch(batch)
            n = min(self.sample, len(batch.y) - 1)
            self._batch = Batch(batch.x, batch.y[n : n + 1], batch.ids[n : n + 1] if batch.ids else None)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._keep(trainer, batch, batch_idx)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._keep(trainer, batch, batch_idx)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._batch is None:  # no validation data
            self._keep(trainer, batch, batch_idx)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._remember(trainer)
        if self.every_n_epochs and trainer.current_epoch and trainer.current_epoch % self.every_n_epochs == 0:
            self._draw(trainer, pl_module)
            self._draw_curves(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._remember(trainer)
        self._draw(trainer, pl_module)
        self._draw_curves(trainer)
        self._batch = None

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._draw(trainer, pl_module, "test_")
        self._batch = None

    def _remember(self, trainer: pl.Trainer) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if values and trainer.current_epoch > 0:
            self._rows.append({"epoch": trainer.current_epoch - 1, **values})

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule, prefix: str = "") -> None:
        if self._batch is None or not trainer.is_global_zero:
            return
        batch, still = self._batch, getattr(pl_module, "T", None) is not None
        n = min(self.sample, batch.x.shape[0 if still else 1] - 1)
        x = (batch.x[n : n + 1] if still else batch.x[:, n : n + 1]).to(pl_module.device)
        spikes = self._record(pl_module, x)
        title = f"label {self._label(trainer, batch)}" + (f", {batch.ids[0]}" if batch.ids else "")
        if spikes:
            figure = pictures.spike_raster(spikes, max_neurons=self.max_neurons, title=title)
            save_picture(trainer, f"{prefix}spike_raster", figure)
            rates = {layer: float(abs(values).mean()) for layer, values in spikes.items()}
            save_picture(trainer, f"{prefix}firing_rates", pictures.firing_rates(rates, title=title))
        if not still and x.ndim == 5 and x.shape[2] == 2:
            save_picture(
                trainer, f"{prefix}event_frames", pictures.event_frames(x[:, 0].float().cpu().numpy(), title=title)
            )

    @staticmethod
    def _label(trainer: pl.Trainer, batch: Batch) -> str:
        label = int(hard_labels(batch.y)[0])
        classes = getattr(getattr(trainer, "datamodule", None), "classes", None) or ()
        return str(classes[label]) if label < len(classes) else str(label)

    @staticmethod
    def _record(pl_module: pl.LightningModule, x: Tensor) -> dict[str, Any]:
        net = getattr(pl_module, "backbone", pl_module)
        assert isinstance(net, nn.Module)
        modes = [(module, module.training) for module in pl_module.modules()]
        rng = get_rng_state()
        pl_module.eval()
        try:
            with torch.no_grad(), SpikeRecorder(net) as recorder:
                pl_module(x)
        finally:
            set_rng_state(rng)
            for module, training in modes:
                module.training = training
        return {name: spikes.float().numpy() for name, spikes in recorder.spikes().items()}

    def _draw_curves(self, trainer: pl.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        rows = next((logger.rows for logger in trainer.loggers if isinstance(logger, MetricsCSV)), self._rows)
        if any(name.startswith(("train/", "val/")) for row in rows for name in row):
            save_picture(trainer, "learning_curves", pictures.learning_curves(rows))
