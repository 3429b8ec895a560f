"""An exponential moving average of the weights, with which networks are validated and tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from jellyfit.errors import ConfigError
from jellyfit.neurons.pure import twin_of

__all__ = ["EMAWeights"]


class _Averages(AveragedModel):
    """torch's, of a twin with tensors of its own: a deep copy takes along what a task was made from, which may not do.

    (From the command line a task holds, in the callable for its optimizer, the parser of its configuration.)
    """

    def __init__(self, task: nn.Module, average: Callable[..., None]) -> None:
        nn.Module.__init__(self)
        copies: dict[Tensor, Any] = {}  # a tensor that is used twice has one copy

        def with_own_tensors(twin: nn.Module) -> None:
            tables: list[dict[str, Any]] = [twin._parameters, twin._buffers]
            for table in tables:
                for name, tensor in table.items():
                    if tensor is None:
                        continue
                    if tensor not in copies:
                        copy = tensor.detach().clone()
                        is_parameter = isinstance(tensor, nn.Parameter)
                        copies[tensor] = nn.Parameter(copy, requires_grad=False) if is_parameter else copy
                    table[name] = copies[tensor]

        self.module = twin_of(task, with_own_tensors)
        self.register_buffer("n_averaged", torch.tensor(0))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = None, average, True


class EMAWeights(WeightAveraging):
    """Keep an exponential moving average (EMA) of the weights, ``a ← d a + (1 - d) w`` after every step.

    Validation runs with the averages, and a checkpoint's ``state_dict`` holds them: what is chosen as the best, tested,
    predicted with or exported is the averaged network. The weights that are being trained lie beside them
    (``current_model_state``), so that a resumed run goes on to the bit. Buffers are averaged as well (the statistics of
    batch norms); integers are copied. After a fit the task has the averages.

    Costs one more copy of the network in memory. For networks whose weights lie on one device each (DDP; not FSDP).

    Args:
        decay: d, default 0.9999: about the last 10,000 steps count. Below 1.
        warmup: let d grow with the number of updates n as ``min(decay, (1 + n) / (10 + n))``, so that a short run is
            not an average of the first steps; default ``True``.
        every: update once in so many steps of the optimizer, default 1.

    Raises:
        ConfigError: a decay outside 0 to 1, or ``every`` below 1; in a fit, a strategy that cuts weights into parts.

    Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM Journal on Control and
    Optimization 30 (1992); the warm-up is that of TensorFlow's ``ExponentialMovingAverage``.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> from jellyfit.callbacks import EMAWeights
        >>> ema = EMAWeights(decay=0.999)
        >>> trainer = Trainer(accelerator="cpu", callbacks=[ema], logger=False, enable_progress_bar=False)
        >>> # trainer.fit(task, datamodule) then validates with the averages
        >>> round(ema.decay_at(0), 3), round(ema.decay_at(90), 3), ema.decay_at(10**6)
        (0.1, 0.91, 0.999)
    """

    def __init__(self, decay: float = 0.9999, warmup: bool = True, every: int = 1) -> None:
        if not 0.0 <= decay < 1.0:
            raise ConfigError(f"EMAWeights(decay={decay!r}): expected 0 or more, below 1; such as 0.999 or 0.9999.")
        if every < 1:
            raise ConfigError(f"EMAWeights(every={every!r}): expected at least 1 step.")
        super().__init__()
        self.decay = decay
        self.warmup = warmup
        self.every = every
        self._averages_in_use = False

    def decay_at(self, updates: int) -> float:
        """The decay after so many updates."""
        return min(self.decay, (1 + updates) / (10 + updates)) if self.warmup else self.decay

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """After every so many steps, and not once more at the end of an epoch."""
        return step_idx is not None and (step_idx + 1) % self.every == 0

    @torch.no_grad()
    def _average(self, averages: list[Tensor], current: list[Tensor], updates: Tensor | int) -> None:
        """Bring tensors of one dtype up to date in place; torch has copied them at the first update."""
        if averages[0].is_floating_point():
            assert self._average_model is not None
            torch._foreach_lerp_(averages, current, 1.0 - self.decay_at(int(self._average_model.n_averaged)))
        else:
            torch._foreach_copy_(averages, current)

    # ------------------------------------------------------------ whose weights the network has

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._averages_in_use = False
        self._average_model = None  # what is tested after a fit has its averages
        if stage != "fit":
            return
        if isinstance(trainer.strategy, (FSDPStrategy, ModelParallelStrategy)):
            raise ConfigError(
                f"EMAWeights: the strategy {type(trainer.strategy).__name__} cuts weights into parts, of which no "
                "averages can be kept. Use --trainer.strategy=ddp, or leave EMAWeights out."
            )
        self._average_model = _Averages(pl_module, self._average)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self._average_model is not None
        self._average_model.to(pl_module.device)  # in setup the network is not yet where it will be
        self._average_model.n_averaged = self._average_model.n_averaged.cpu()  # read every step: no waiting for a GPU

    def _swap_models(self, pl_module: pl.LightningModule) -> None:
        super()._swap_models(pl_module)
        self._averages_in_use = not self._averages_in_use

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._averages_in_use:
            self._swap_models(pl_module)  # and not a copy: checkpoints are written after this too

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._average_model is None:
            return
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._averages_in_use:  # in validation, or after the last step
            swapped = checkpoint["current_model_state"], checkpoint["state_dict"]
            checkpoint["state_dict"], checkpoint["current_model_state"] = swapped

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._average_model is not None:  # else a test: the averages have been loaded as the weights
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
