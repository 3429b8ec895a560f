"""Where a training step's time goes, and what to do about it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.profilers import PyTorchProfiler
from torch import Tensor
from torch.optim import Optimizer

from jellyfit.callbacks.folders import run_folder
from jellyfit.doctor import has_fast_bfloat16
from jellyfit.errors import ConfigError
from jellyfit.kernels import backend_status
from jellyfit.neurons import BaseNode
from jellyfit.profiling import LayerTimes, peak_memory

__all__ = ["StepProfile"]

_PARTS = {
    "data": "waiting for the batch and moving it",
    "forward": "with loss and metrics",
    "backward": "",
    "optimizer": "with clipping and scheduler",
    "callbacks": "pictures, checkpoints and the like",
}
_WARM_UP = 2  # steps in which kernels are compiled and memory is found


class StepProfile(pl.Callback):
    """Print where the time of training steps goes, how much memory was needed, and one line of advice.

    Parts of a step by the clock: ``data``, ``forward``, ``backward``, ``optimizer``, ``callbacks``. Then the shares of
    neurons, convolutions, linear layers, norms and pooling in forward and backward, from torch's profiler over a few
    steps, which do not count for the clock. All of it stands in ``step_profile.json`` in the run folder too. The first
    two steps of a run are left out, and so is what happens between epochs. torch has one profiler at a time: with
    ``--trainer.profiler=pytorch`` layers are not told apart.

    Every other step costs five looks at the clock; the two steps with the profiler take about twice as long, once a
    run. On a GPU measured steps wait for it five times, other steps never.

    Args:
        every_n_steps: measure one step in so many, default 5.
        layer_steps: steps with torch's profiler, default 2; 0: none.
        every_n_epochs: print during training too, after every so many epochs; default 0: only at the end.
        filename: in the run folder, default ``step_profile.json``.

    Raises:
        ConfigError: ``every_n_steps`` below 1, or another number below 0.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> from jellyfit.callbacks import StepProfile
        >>> profile = StepProfile(every_n_steps=10)
        >>> trainer = Trainer(accelerator="cpu", callbacks=[profile], logger=False, enable_progress_bar=False)
        >>> # trainer.fit(task, datamodule) then prints the parts of a step
    """

    def __init__(
        self,
        every_n_steps: int = 5,
        layer_steps: int = 2,
        every_n_epochs: int = 0,
        filename: str = "step_profile.json",
    ) -> None:
        if every_n_steps < 1 or layer_steps < 0 or every_n_epochs < 0:
            raise ConfigError(
                f"StepProfile(every_n_steps={every_n_steps}, layer_steps={layer_steps}, every_n_epochs="
                f"{every_n_epochs}): expected at least 1, 0 and 0."
            )
        self.every_n_steps = every_n_steps
        self.layer_steps = layer_steps
        self.every_n_epochs = every_n_epochs
        self.filename = filename
        self._behind = _Behind(self)
        self._forget()

    def _forget(self) -> None:
        self._index = 0  # of the step that runs or comes next, in this run
        self._last: float | None = None  # when the latest part ended
        self._step: dict[str, float] = {}
        self._steps: list[dict[str, float]] = []
        self._layers: dict[str, float] = {}
        self._times: LayerTimes | None = None

    # ------------------------------------------------------------ measuring

    def _has_layers(self) -> bool:
        return _WARM_UP <= self._index < _WARM_UP + self.layer_steps

    def _is_measured(self) -> bool:
        behind = self._index - _WARM_UP - self.layer_steps
        return behind >= 0 and behind % self.every_n_steps == 0

    def _begin(self, module: pl.LightningModule) -> None:
        """A part begins."""
        if self._is_measured() and module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        self._last = time.perf_counter()

    def _end(self, part: str, module: pl.LightningModule) -> None:
        """What ran since the latest part belongs to ``part``."""
        if self._last is not None and self._is_measured():
            begun = self._last
            self._begin(module)
            self._step[part] = self._step.get(part, 0.0) + self._last - begun

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._forget()
        if self._behind not in trainer.callbacks:  # type: ignore[attr-defined]
            trainer.callbacks.append(self._behind)  # type: ignore[attr-defined]
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin(pl_module)  # workers start now: their first batch is waited for too

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._end("data", pl_module)
        if self._has_layers() and not isinstance(trainer.profiler, PyTorchProfiler):  # type: ignore[attr-defined]
            compiled = any(hasattr(module, "_orig_mod") for module in pl_module.modules())
            self._times = LayerTimes(pl_module.device, hooks=not compiled)
            self._times.__enter__()

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        self._end("forward", pl_module)

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end("backward", pl_module)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        self._end_layers()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._end("optimizer", pl_module)
        self._end_layers()

    def _after_callbacks(self, module: pl.LightningModule) -> None:
        self._end("callbacks", module)
        if "data" in self._step and "forward" in self._step:
            self._steps.append(self._step)
        self._step = {}
        self._index += 1
        self._begin(module)

    def _end_layers(self) -> None:
        if self._times is not None:
            self._times.__exit__(None, None, None)
            for kind, seconds in self._times.seconds.items():
                self._layers[kind] = self._layers.get(kind, 0.0) + seconds
            self._times = None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._end_layers()

    # ------------------------------------------------------------ telling

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._tell(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._behind in trainer.callbacks:  # type: ignore[attr-defined]
            trainer.callbacks.remove(self._behind)  # type: ignore[attr-defined]
        self._tell(trainer, pl_module)

    def figures(self, module: pl.LightningModule) -> dict[str, Any]:
        """What was measured so far: milliseconds a step by part, shares of layers, peak memory in bytes, advice."""
        count = len(self._steps)
        parts = {part: 1e3 * sum(step.get(part, 0.0) for step in self._steps) / max(count, 1) for part in _PARTS}
        total = sum(self._layers.values())
        shares = {kind: seconds / total for kind, seconds in self._layers.items() if seconds} if total else {}
        return {
            "steps": count,
            "step_ms": sum(parts.values()),
            "parts_ms": parts,
            "layers": shares,
            "peak_memory_bytes": peak_memory(module.device),
            "advice": _advice(parts, shares, module) if count else "",
        }

    def _tell(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        figures = self.figures(module)
        print("\n".join(_lines(figures)), flush=True)
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            path = run_folder(trainer) / self.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(figures, indent=1) + "\n")


class _Behind(pl.Callback):
    """Stands behind all other callbacks, so that their time is known."""

    def __init__(self, profile: StepProfile) -> None:
        self._profile = profile

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._profile._after_callbacks(pl_module)


def _lines(figures: Mapping[str, Any]) -> list[str]:
    if not figures["steps"]:
        return ["Training step: no step was measured; the first ones of a run are left out."]
    total = figures["step_ms"]
    lines = [f"Training step: {total:.1f} ms (mean of {figures['steps']} steps)"]
    for part, ms in figures["parts_ms"].items():
        said = f"  ({_PARTS[part]})" if _PARTS[part] else ""
        lines.append(f"  {part:<10}{ms:>9.1f} ms {100 * ms / total:>4.0f} %{said}")
    if figures["layers"]:
        found = sorted(figures["layers"].items(), key=lambda item: -item[1])
        shares = ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in found)
        lines.append(f"  of forward and backward: {shares}")
    lines.append(f"  peak memory {figures['peak_memory_bytes'] / 2**20:.0f} MiB")
    lines.append(f"Advice: {figures['advice']}")
    return lines


def _advice(parts: Mapping[str, float], layers: Mapping[str, float], module: pl.LightningModule) -> str:
    """One line; the first that applies."""
    total = sum(parts.values())
    shares = {part: ms / total for part, ms in parts.items()}
    on_gpu = module.device.type == "cuda"
    if shares["data"] > 0.2:
        return (
            f"{100 * shares['data']:.0f} % of a step waits for data: raise data.num_workers, or prepare and cache more "
            "of what a sample needs."
        )
    if layers.get("neurons", 0.0) > 0.3:
        share = f"neurons take {100 * layers['neurons']:.0f} % of forward and backward"
        backend, why = ("cupy", "cupy") if on_gpu else ("cpu", "the C compiler")
        if any(isinstance(node, BaseNode) and node.backend == "torch" for node in module.modules()):
            return f"{share} in eager PyTorch: set model.backend to auto, for fused kernels."
        if backend_status().get(backend) is not None:
            return f"{share} in eager PyTorch: jellyfit doctor says what {why} lacks."
        return f"{share}, with fused kernels already: fewer time steps T, or neurons with fewer states, cost less."
    if shares["callbacks"] > 0.1:
        return f"{100 * shares['callbacks']:.0f} % of a step goes to callbacks: let them act less often."
    if shares["optimizer"] > 0.2:
        return (
            f"{100 * shares['optimizer']:.0f} % of a step goes to the optimizer: set fused: true in its init_args, or "
            "take larger batches."
        )
    if layers.get("convolutions", 0.0) > 0.5:
        share = f"convolutions take {100 * layers['convolutions']:.0f} % of forward and backward"
        if (on_gpu or has_fast_bfloat16()) and str(getattr(module.trainer, "precision", "")).startswith("32"):
            return f"{share}: try trainer.precision=bf16-mixed with model.memory_format=channels_last."
        return f"{share}: try model.memory_format=channels_last; it wins on some machines."
    return "no part stands out; larger batches use the machine better as long as memory lasts."
