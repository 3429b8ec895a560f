"""Measures of a spiking network and of its training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from jellyfit.errors import ConfigError, InputError
from jellyfit.functional import named_neurons
from jellyfit.neurons import BaseNode
from jellyfit.neurons.pure import is_backward_running

__all__ = ["Accuracy", "FiringRateMeter", "SpikeRecorder", "WeightedMean", "per_class"]

# Sums over a whole data set; Apple's GPUs have no float64.
SUM_DTYPE = torch.float32 if torch.backends.mps.is_available() else torch.float64


_SET_BY_UPDATES = frozenset({"total", "weight", "_computed", "_update_count"})


class WeightedMean(Metric):
    """Mean of numbers with weights, over all processes: an epoch's loss from its batches' losses and their sizes.

    Updating never waits for the GPU, and NaN stays NaN. (torchmetrics' ``MeanMetric`` looks at every value for NaN, or,
    told not to by ``nan_strategy="disable"``, forgets the weights.)

    Examples:
        >>> import torch
        >>> from jellyfit.metrics import WeightedMean
        >>> mean = WeightedMean()
        >>> mean.update(torch.tensor(1.0), weight=3)
        >>> mean.update(torch.tensor(5.0), weight=1)
        >>> mean.compute().item()
        2.0
    """

    total: Tensor
    weight: Tensor
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=SUM_DTYPE), dist_reduce_fx="sum")
        self.add_state("weight", torch.zeros((), dtype=SUM_DTYPE), dist_reduce_fx="sum")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _SET_BY_UPDATES:
            self.__dict__[name] = value  # nn.Module's way to a plain attribute takes longer than what is counted
        else:
            super().__setattr__(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> WeightedMean:
        # follows the network to its device, never to half precision
        super()._apply(lambda tensor: tensor.to(fn(tensor).device), exclude_state)
        return self

    def update(self, value: Tensor, weight: float = 1.0) -> None:
        """Count ``value`` (one number as a tensor) ``weight`` times."""
        self.total = torch.add(self.total, value.detach(), alpha=weight)
        self.weight = self.weight + weight

    def compute(self) -> Tensor:
        """The mean over all processes; NaN before any update."""
        return self.total / self.weight

    def so_far(self) -> float:
        """The mean on this process alone, for showing progress; NaN before any update. Waits for the GPU."""
        return float(self.total / self.weight)


class Accuracy(WeightedMean):
    """Share of samples whose class is among the ``top_k`` with the largest scores, over all processes.

    The same value as torchmetrics' ``MulticlassAccuracy(average="micro")``, which counts what this has no use for: an
    update takes a third of the time, which shows in the steps of small networks.

    Args:
        top_k: default 1; of equal scores counts what ``torch.argmax`` or ``torch.topk`` takes.

    Raises:
        ConfigError: ``top_k`` below 1.
        InputError: fewer classes than ``top_k``.

    Examples:
        >>> import torch
        >>> from jellyfit.metrics import Accuracy
        >>> accuracy = Accuracy()
        >>> accuracy.update(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        >>> accuracy.compute().item()
        0.5
    """

    higher_is_better = True

    def __init__(self, top_k: int = 1) -> None:
        super().__init__()
        if top_k < 1:
            raise ConfigError(f"Accuracy(top_k={top_k}): expected at least 1.")
        self.top_k = top_k

    def update(self, preds: Tensor, target: Tensor) -> None:  # type: ignore[override]
        """Count samples by their scores ``[N, C]`` and classes ``[N]``."""
        if self.top_k == 1:
            hits = preds.argmax(-1) == target
        else:
            if preds.shape[-1] < self.top_k:
                raise InputError(f"Accuracy(top_k={self.top_k}): the scores {list(preds.shape)} are of fewer classes.")
            hits = preds.topk(self.top_k).indices == target.unsqueeze(-1)
        self.total = self.total + hits.sum()
        self.weight = self.weight + len(target)


class _NeuronHooks:
    """Watch the spikes of every neuron of a network between ``start`` and ``stop`` (or in a ``with`` block)."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self._handles: list[Any] = []

    def start(self) -> None:
        """Begin watching."""
        self.stop()
        for name, neuron in _firing_neurons(self.net):
            self._handles.append(neuron.register_forward_hook(self._hook(name)))

    def stop(self) -> None:
        """Stop watching; what was seen is kept."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor | tuple[Tensor, ...]) -> None:
            if is_backward_running():
                return  # a checkpointed segment is computed once more: these spikes have been seen
            spikes = output[0] if isinstance(output, tuple) else output  # OTTT puts its trace out as well
            self._see(name, spikes.detach())

        return hook

    def _see(self, name: str, spikes: Tensor) -> None:
        raise TypeError(f"{type(self).__name__} must define _see(self, name, spikes)")

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _firing_neurons(net: nn.Module) -> list[tuple[str, BaseNode]]:
    return [(name, neuron) for name, neuron in named_neurons(net) if neuron.fires]


class FiringRateMeter(_NeuronHooks):
    """Firing rate of every neuron layer: spikes, of either sign, per neuron, sample and time step.

    ::

        with FiringRateMeter(net) as meter:
            net(x_seq)
        meter.rates()      # {"conv.2": 0.08, ...}

    Attributes:
        valid: where samples have not ended, ``[T, N]`` (see :func:`jellyfit.losses.padding_mask`), set before every
            batch that is padded: spikes at other steps of a layer in multi-step mode count for nothing. Or which
            samples count, ``[N]``. ``None`` (default): everything counts.

    Args:
        net: network whose neurons (found by their dotted names) are watched.

    Examples:
        >>> import torch
        >>> from jellyfit.metrics import FiringRateMeter
        >>> from jellyfit.neurons import IFNode
        >>> net = torch.nn.Sequential(IFNode(step_mode="m"))
        >>> with FiringRateMeter(net) as meter:
        ...     spikes = net(torch.full((4, 1, 2), 0.5))
        >>> meter.rates()
        {'0': 0.5}
    """

    valid: Tensor | None = None

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def start(self) -> None:
        """Begin a new measurement."""
        self._sums.clear()
        super().start()

    def _see(self, name: str, spikes: Tensor) -> None:
        total, count = self._sums.get(name, (torch.zeros((), dtype=SUM_DTYPE), 0))
        if self.valid is not None:
            valid, over_time = self.valid.to(spikes.device), self._over_time(name)
            if valid.ndim == 1:
                spikes = spikes[:, valid] if over_time else spikes[valid]
            elif over_time and spikes.shape[:2] == valid.shape:
                spikes = spikes[valid]
        total = total.to(spikes.device) + spikes.abs().sum(dtype=SUM_DTYPE)
        self._sums[name] = (total, count + spikes.numel())

    def _over_time(self, name: str) -> bool:
        return dict(named_neurons(self.net))[name].step_mode == "m"

    def sums(self) -> dict[str, tuple[Tensor, int]]:
        """Of every layer, run or not: the number of spikes since ``start``, and over how many values."""
        nothing = torch.zeros((), dtype=SUM_DTYPE)
        return {name: self._sums.get(name, (nothing, 0)) for name, _ in _firing_neurons(self.net)}

    def rates(self) -> dict[str, float]:
        """Firing rate of each layer that has run since ``start``, in spikes per neuron and step."""
        return {name: float(total) / count for name, (total, count) in self.sums().items() if count}


class SpikeRecorder(_NeuronHooks):
    """The spikes of one sample in every neuron layer, over all calls since ``start``.

    Args:
        net: network whose neurons are recorded.
        sample: index in the batch, default 0.

    Examples:
        >>> import torch
        >>> from jellyfit.metrics import SpikeRecorder
        >>> from jellyfit.neurons import IFNode
        >>> net = torch.nn.Sequential(IFNode(step_mode="m"))
        >>> with SpikeRecorder(net) as recorder:
        ...     spikes = net(torch.full((4, 1, 2), 0.5))
        >>> recorder.spikes()["0"][:, 0].tolist()
        [0.0, 1.0, 0.0, 1.0]
    """

    def __init__(self, net: nn.Module, sample: int = 0) -> None:
        super().__init__(net)
        self.sample = sample
        self._steps: dict[str, list[Tensor]] = {}

    def start(self) -> None:
        """Begin a new recording."""
        self._steps.clear()
        super().start()

    def _see(self, name: str, spikes: Tensor) -> None:
        neuron = dict(named_neurons(self.net))[name]
        seq = spikes if neuron.step_mode == "m" else spikes.unsqueeze(0)
        self._steps.setdefault(name, []).append(seq[:, self.sample].reshape(len(seq), -1).cpu())

    def spikes(self) -> dict[str, Tensor]:
        """Spikes ``[T, neurons]`` of the sample, by layer."""
        return {name: torch.cat(steps) for name, steps in self._steps.items()}


def per_class(confusion: Tensor) -> dict[str, Tensor]:
    """How well each class is told, from counts of what it was taken for.

    Args:
        confusion: ``[C, C]``, samples of the class of the row that were taken for the class of the column.

    Returns:
        By name, a value a class ``[C]``: ``samples`` (int64); ``recall``, the share of its samples that were taken for
        it (its accuracy); ``precision``, the share of what was taken for it that was of it; ``f1``, their harmonic
        mean. float64; NaN where there is nothing to divide by (a class without samples, or never predicted).

    Raises:
        InputError: not square.

    Examples:
        >>> import torch
        >>> from jellyfit.metrics import per_class
        >>> table = per_class(torch.tensor([[3, 1], [0, 4]]))
        >>> {name: [round(float(value), 3) for value in values] for name, values in table.items()}
        {'samples': [4.0, 4.0], 'recall': [0.75, 1.0], 'precision': [1.0, 0.8], 'f1': [0.857, 0.889]}
    """
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1]:
        raise InputError(
            f"per_class: expected counts [C, C], classes against predictions; got {list(confusion.shape)}."
        )
    counts = confusion.to("cpu", torch.float64)
    right, samples, taken = counts.diagonal(), counts.sum(1), counts.sum(0)
    return {
        "samples": samples.long(),
        "recall": right / samples,
        "precision": right / taken,
        "f1": 2.0 * right / (samples + taken),
    }
