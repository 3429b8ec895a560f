"""What every task shares: one forward from a reset state, optimizer, metrics, firing rates, exact resume."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import Metric

from jellyfit import functional
from jellyfit.backbones import Backbone
from jellyfit.datamodules.batch import Batch, as_batch
from jellyfit.encoders import Encoder
from jellyfit.errors import ConfigError, InputError
from jellyfit.metrics import FiringRateMeter
from jellyfit.rng import get_rng_state, set_rng_state

__all__ = ["STAGES", "SpikingTask"]

STAGES = ("train", "val", "test")


class SpikingTask(pl.LightningModule):
    """Base of all tasks.

    It resets the network's state before every forward by itself, turns still images into sequences, builds optimizer
    and scheduler, keeps torchmetrics per stage, logs losses, metrics and firing rates, and puts the state of the
    random number generators into checkpoints, so that a resumed run goes on to the bit.

    A subclass writes :meth:`step` (batch -> loss, and what metrics are updated with), and as many of the hooks
    :meth:`configure_metrics`, :meth:`update_metrics`, :meth:`configure_optimizers`, ``forward`` as it wants different.

    Logged names: ``train/loss``, ``val/loss``, ``test/loss``, ``STAGE/METRIC``, ``firing_rate/LAYER`` (in spikes per
    neuron and time step, over the validation set).

    Attributes:
        monitor: logged name by which the best checkpoint is chosen.
        mode: ``"min"`` or ``"max"``.

    Args:
        backbone: the network, ``[T, N, *] -> [T, N, num_classes]``.
        T: time steps for which still inputs ``[N, *]`` are repeated; ``None`` (default): the data are sequences.
        encoder: turns inputs into spikes, after the repetition; default none (direct coding).
        optimizer: callable ``parameters -> optimizer``; default Adam with learning rate 0.001.
        scheduler: callable ``optimizer -> scheduler``; default none.
        scheduler_interval: when the scheduler steps: every ``"epoch"`` (default) or ``"step"``.
        backend: of every neuron, see :class:`~jellyfit.neurons.BaseNode`; default ``"auto"``.
        memory_format: of images in the network, ``"contiguous"`` (default) or ``"channels_last"``.
        log_firing_rates: measure and log firing rates in validation; default ``True``.
    """

    monitor: str = "val/loss"
    mode: Literal["min", "max"] = "min"

    def __init__(
        self,
        backbone: Backbone,
        T: int | None = None,
        encoder: Encoder | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        backend: str = "auto",
        memory_format: Literal["contiguous", "channels_last"] = "contiguous",
        log_firing_rates: bool = True,
    ) -> None:
        super().__init__()
        if T is not None and T < 1:
            raise ConfigError(
                f"model.init_args.T={T}: expected at least 1 time step (or null when data are sequences)."
            )
        if scheduler_interval not in ("epoch", "step"):
            raise ConfigError(f"scheduler_interval={scheduler_interval!r}: expected 'epoch' or 'step'.")
        if memory_format not in ("contiguous", "channels_last"):
            raise ConfigError(f"memory_format={memory_format!r}: expected 'contiguous' or 'channels_last'.")
        self.backbone = backbone
        self._backbone_resets = isinstance(backbone, Backbone)  # any nn.Module will do in Python
        self.T = T
        self.encoder = encoder
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.scheduler_interval = scheduler_interval
        self.log_firing_rates = log_firing_rates
        functional.set_step_mode(backbone, "m")
        functional.set_backend(backbone, backend)
        if encoder is not None:
            functional.set_step_mode(encoder, "m")
        if memory_format == "channels_last":
            backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.stage_metrics = nn.ModuleDict()
        self._meter = FiringRateMeter(backbone)
        self._rng_to_restore: dict[str, Any] | None = None
        self._keep_hyperparameters()

    def _keep_hyperparameters(self) -> None:
        """Under the command line, checkpoints hold the configuration as plain data: load_from_checkpoint(path) works.

        Elsewhere the arguments are objects, which would not load under ``weights_only=True``: nothing is kept.
        """
        from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters

        if _given_hyperparameters.get() is not None:
            self.save_hyperparameters(logger=False)

    # ------------------------------------------------------------ forward

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, *]`` (or stills ``[N, *]`` when ``T`` is set) -> ``[T, N, C]``, from a reset state."""
        x = self.prepare_input(x)
        if not self._backbone_resets:
            functional.reset_net(self.backbone)
        return self.backbone(x)  # type: ignore[no-any-return]

    def prepare_input(self, x: Tensor) -> Tensor:
        """Input as the network takes it: floating-point, a sequence, encoded."""
        if not isinstance(x, Tensor):
            raise InputError(f"{type(self).__name__}: a batch's x must be a tensor; got {type(x).__name__}.")
        if not x.is_floating_point():
            x = x.to(self.dtype)
        if torch.is_anomaly_enabled() and not bool(torch.isfinite(x).all()):
            bad = torch.nonzero(~torch.isfinite(x))
            raise InputError(
                f"the input batch {list(x.shape)} holds {len(bad)} values that are NaN or infinite, the first at index "
                f"{bad[0].tolist()}. Look at the data of this batch."
            )
        if self.T is not None:
            x = x.unsqueeze(0).expand(self.T, *x.shape)
        elif x.ndim < 3:
            raise InputError(
                f"{type(self).__name__} without T takes sequences [T, N, *]; got shape {list(x.shape)}. For still "
                "inputs [N, *] set model.init_args.T to the number of time steps."
            )
        if self.encoder is not None:
            functional.reset_net(self.encoder)
            x = self.encoder(x)
        return x

    # ------------------------------------------------------------ hooks that subclasses write

    def step(self, batch: Batch, stage: str) -> tuple[Tensor, dict[str, Any]]:
        """Loss of a batch, and keyword arguments for :meth:`update_metrics`. ``stage``: train, val or test."""
        raise TypeError(f"{type(self).__name__} must define step(self, batch, stage)")

    def configure_metrics(self, stage: str) -> dict[str, Metric]:
        """Metrics of a stage (``"train"``, ``"val"``, ``"test"``) by name; default none."""
        return {}

    def update_metrics(self, metrics: Iterable[Metric], **values: Any) -> None:
        """Update ``metrics`` with what :meth:`step` returned; default: ``metric.update(preds, target)``."""
        for metric in metrics:
            metric.update(values["preds"], values["target"])

    def configure_optimizers(self) -> Any:
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not parameters:
            raise ConfigError("the network has no parameter to train.")
        optimizer = self.make_optimizer(parameters) if self.make_optimizer else torch.optim.Adam(parameters, lr=1e-3)
        if self.make_scheduler is None:
            return optimizer
        scheduler: dict[str, Any] = {"scheduler": self.make_scheduler(optimizer), "interval": self.scheduler_interval}
        if isinstance(scheduler["scheduler"], ReduceLROnPlateau):
            scheduler["monitor"] = getattr(scheduler["scheduler"], "monitor", self.monitor)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    # ------------------------------------------------------------ stages

    def metrics_of(self, stage: str) -> dict[str, Metric]:
        """The metric objects of ``stage`` by name."""
        key = f"{stage}_metrics"  # a ModuleDict has no room for the key "train"
        return dict(self.stage_metrics[key].items()) if key in self.stage_metrics else {}  # type: ignore[operator]

    def setup(self, stage: str) -> None:
        for name in STAGES:
            if f"{name}_metrics" not in self.stage_metrics:
                self.stage_metrics[f"{name}_metrics"] = nn.ModuleDict(self.configure_metrics(name))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self._run(batch, "train")

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self._run(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self._run(batch, "test")

    def _run(self, batch: Any, stage: str) -> Tensor:
        batch = as_batch(batch)
        loss, values = self.step(batch, stage)
        metrics = self.metrics_of(stage)
        if metrics:
            self.update_metrics(metrics.values(), **values)
        self.log(
            f"{stage}/loss",
            loss.detach(),
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            batch_size=len(batch.y),
            sync_dist=stage != "train",
        )
        return loss

    def _log_metrics(self, stage: str) -> None:
        for name, metric in self.metrics_of(stage).items():
            value = metric.compute()
            if isinstance(value, Tensor) and value.ndim == 0:
                self.log(f"{stage}/{name}", value, prog_bar=name == "accuracy")
            metric.reset()

    def on_train_epoch_end(self) -> None:
        self._log_metrics("train")

    def on_validation_epoch_start(self) -> None:
        if self.log_firing_rates and not self.trainer.sanity_checking:
            self._meter.start()

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")
        self._meter.stop()
        if self.log_firing_rates and not self.trainer.sanity_checking:
            for layer, rate in self._meter.rates().items():
                self.log(f"firing_rate/{layer}", rate, sync_dist=True)

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    # ------------------------------------------------------------ exact resume

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["jellyfit_rng"] = get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._rng_to_restore = checkpoint.get("jellyfit_rng")

    def on_train_start(self) -> None:
        if self._rng_to_restore is not None:
            set_rng_state(self._rng_to_restore, self.global_rank)
            self._rng_to_restore = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_trainer": None, "_fabric": None}
