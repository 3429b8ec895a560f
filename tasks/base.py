"""What every task shares: one forward from a reset state, optimizer, metrics, firing rates, exact resume."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

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
from jellyfit.metrics import FiringRateMeter, WeightedMean
from jellyfit.optimizers import use_fused
from jellyfit.parameter_groups import ParameterGroups
from jellyfit.rng import get_rng_state, set_rng_state
from jellyfit.tasks.layer_sync import keep_step_modes
from jellyfit.tasks.resume import (
    KEY,
    counting,
    end_restart,
    finish_batch,
    finish_epoch,
    restore_processes,
    save_processes,
)
from jellyfit.tasks.running import run_backbone
from jellyfit.tasks.sharded import shard_task
from jellyfit.tasks.task import Task

if TYPE_CHECKING:
    pass

__all__ = ["STAGES", "SpikingTask"]

STAGES = ("train", "val", "test")


class SpikingTask(Task):
    """Base of all tasks.

    It resets the network's state before every forward by itself, turns still images into sequences, builds optimizer
    and scheduler, keeps torchmetrics per stage, logs losses, metrics and firing rates, and puts the state of the
    random number generators into checkpoints, so that a resumed run goes on to the bit.

    A subclass writes :meth:`step` (batch -> loss, and what metrics are updated with), and as many of the hooks
    :meth:`configure_metrics`, :meth:`update_metrics`, :meth:`configure_optimizers`, ``forward`` as it wants different.

    Logged names, once an epoch, over every sample of every process: ``train/loss``, ``val/loss``, ``test/loss``,
    ``STAGE/METRIC``, ``firing_rate/LAYER`` (in spikes per neuron and time step, over the validation set).

    Attributes:
        monitor: logged name by which the best checkpoint is chosen.
        mode: ``"min"`` or ``"max"``.

    Args:
        backbone: the network, ``[T, N, *] -> [T, N, num_classes]``.
        T: time steps for which still inputs ``[N, *]`` are repeated; ``None`` (default): the data are sequences.
        encoder: turns inputs into spikes, after the repetition; default none (direct coding).
        optimizer: callable ``parameters -> optimizer``; default Adam with learning rate 0.001. On the CPU, Adam, AdamW
            and SGD take their steps in one pass unless ``fused`` or ``foreach`` is given, see
            :func:`~jellyfit.optimizers.use_fused`.
        scheduler: callable ``optimizer -> scheduler``; default none.
        scheduler_interval: when the scheduler steps: every ``"epoch"`` (default) or ``"step"``.
        backend: of every neuron, see :class:`~jellyfit.neurons.BaseNode`; default ``"auto"``.
        memory_format: of images in the network, ``"contiguous"`` (default) or ``"channels_last"``.
        log_firing_rates: measure and log firing rates in validation; default ``True``.
        parameter_groups: weight decay and learning rates by parameter; default: the same for all.
        compile: run the network through ``torch.compile``; default ``False``. Weights and checkpoints are the same
            with and without. A network that something looks into (firing rates, monitors) runs without.
        time_chunks: cut the sequence into so many stretches of time and keep nothing inside them for backward, see
            :func:`jellyfit.checkpointing.checkpoint`; default 1: no checkpoints in time.
        spike_compression: keep spikes for backward as bits, see :class:`~jellyfit.kernels.SpikeCompression`; default
            ``False``.

    Raises:
        ConfigError: settings that cannot be, alone or together.

    Examples:
        >>> import torch
        >>> from jellyfit.backbones import SpikingMLP
        >>> from jellyfit.tasks import SpikingTask
        >>> class Silence(SpikingTask):
        ...     def step(self, batch, stage):
        ...         spikes = self(batch.x)
        ...         return spikes.mean(), {}
        >>> task = Silence(SpikingMLP(4, 2), T=8)
        >>> task(torch.zeros(3, 4)).shape  # a still input, repeated
        torch.Size([8, 3, 2])
    """

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
        parameter_groups: ParameterGroups | None = None,
        compile: bool = False,  # noqa: A002
        time_chunks: int = 1,
        spike_compression: bool = False,
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
        if time_chunks < 1:
            raise ConfigError(f"time_chunks={time_chunks}: expected at least 1 (no checkpoints in time).")
        if compile and (time_chunks > 1 or spike_compression or getattr(backbone, "checkpoint_blocks", False)):
            raise ConfigError(
                "compile=True goes with none of time_chunks, spike_compression and the backbone's checkpoint_blocks: "
                "the compiler decides by itself what is kept for backward. Leave out the one or the others."
            )
        self.backbone = backbone
        self._backbone_resets = isinstance(backbone, Backbone)  # any nn.Module will do in Python
        self.T = T
        self.encoder = encoder
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.scheduler_interval = scheduler_interval
        self.log_firing_rates = log_firing_rates
        self.parameter_groups = parameter_groups
        self.compiled = compile
        self.time_chunks = time_chunks
        self.spike_compression = spike_compression
        functional.set_step_mode(backbone, "m")
        functional.set_backend(backbone, backend)
        if encoder is not None:
            functional.set_step_mode(encoder, "m")
        if memory_format == "channels_last":
            backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.stage_losses = nn.ModuleDict({f"{stage}_loss": WeightedMean() for stage in STAGES})
        self.stage_metrics = nn.ModuleDict()
        self._meter = FiringRateMeter(backbone)
        self._to_restore: dict[str, Any] | None = None
        self._keep_hyperparameters()

    @property
    def network(self) -> nn.Module:
        """The backbone."""
        return self.backbone

    # ------------------------------------------------------------ forward

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, *]`` (or stills ``[N, *]`` when ``T`` is set) -> ``[T, N, C]``, from a reset state."""
        x = self.prepare_input(x)
        if not self._backbone_resets:
            functional.reset_net(self.backbone)
        return run_backbone(self.backbone, x, self.compiled, self.time_chunks, self.spike_compression)

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
        make = self.make_optimizer or (lambda parameters: torch.optim.Adam(parameters, lr=1e-3))
        if self.parameter_groups is None:
            optimizer = make(parameters)
        else:
            inside = set(self.backbone.parameters())
            others = [parameter for parameter in parameters if parameter not in inside]
            optimizer = self.parameter_groups.optimizer(self.backbone, make, others)
        sparse = (m for m in self.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) and m.sparse)
        if not any(sparse):  # their gradients are not for fused steps
            use_fused(optimizer)
        if self.make_scheduler is None:
            return optimizer
        scheduler: dict[str, Any] = {"scheduler": self.make_scheduler(optimizer), "interval": self.scheduler_interval}
        if isinstance(scheduler["scheduler"], ReduceLROnPlateau):
            scheduler["monitor"] = getattr(scheduler["scheduler"], "monitor", self.monitor)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def configure_model(self) -> None:
        """Share the network out among the processes where the strategy is Lightning's ``ModelParallelStrategy``."""
        if self.device_mesh is not None:
            shard_task(self, self.device_mesh)

    # ------------------------------------------------------------ stages

    def metrics_of(self, stage: str) -> dict[str, Metric]:
        """The metric objects of ``stage`` by name."""
        key = f"{stage}_metrics"  # a ModuleDict has no room for the key "train"
        return dict(self.stage_metrics[key].items()) if key in self.stage_metrics else {}  # type: ignore[operator]

    def loss_of(self, stage: str) -> WeightedMean:
        """The mean loss of ``stage`` so far in this epoch, on this process; ``compute()`` gives that of all."""
        return self.stage_losses[f"{stage}_loss"]  # type: ignore[return-value]

    def setup(self, stage: str) -> None:
        if self._trainer is not None:  # not set up by hand
            keep_step_modes(self.trainer)
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
        self._meter.valid = None if batch.lengths is None else batch.mask()
        loss, values = self.step(batch, stage)
        self.loss_of(stage).update(loss, len(batch.y))
        metrics = self.metrics_of(stage)
        if metrics:
            self.update_metrics(metrics.values(), **values)
        return loss

    def _forget(self, stage: str) -> None:
        """Count from nothing, also after a run that ended in the middle of an epoch."""
        for _, metric in counting(self, stage):
            metric.reset()

    def _log_metrics(self, stage: str) -> None:
        metrics = self.metrics_of(stage)
        if self.loss_of(stage).update_called:  # not by a subclass that runs its steps by itself
            metrics = {"loss": self.loss_of(stage), **metrics}
        for name, metric in metrics.items():
            value = metric.compute()
            if isinstance(value, Tensor) and value.ndim == 0:
                self._log_same(f"{stage}/{name}", value, prog_bar=name in ("loss", "accuracy"))
            metric.reset()

    def on_train_epoch_start(self) -> None:
        self._forget("train")  # not called when a run goes on in the middle of an epoch

    def on_train_epoch_end(self) -> None:
        self._log_metrics("train")
        end_restart(self.trainer)

    def on_validation_epoch_start(self) -> None:
        self._forget("val")
        if self.log_firing_rates and not self.trainer.sanity_checking:
            self._meter.start()

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")
        self._meter.stop()
        if self.log_firing_rates and not self.trainer.sanity_checking:
            self._log_firing_rates(self._meter)

    def on_test_epoch_start(self) -> None:
        self._forget("test")

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    # ------------------------------------------------------------ exact resume

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        save_processes(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._to_restore = checkpoint.get(KEY)
        finish_batch(checkpoint)

    def on_train_start(self) -> None:
        saved, self._to_restore = self._to_restore, None
        self._forget("train")
        if saved:
            restore_processes(self, saved)
            finish_epoch(self.trainer)
        elif self.global_rank:  # all were seeded alike: every process shall draw masks and spikes of its own
            set_rng_state(get_rng_state(), self.global_rank)
