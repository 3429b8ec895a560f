"""Measures of a spiking network."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from jellyfit.functional import named_neurons

__all__ = ["FiringRateMeter", "SpikeRecorder"]


class _NeuronHooks:
    """Watch the spikes of every neuron of a network between ``start`` and ``stop`` (or in a ``with`` block)."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self._handles: list[Any] = []

    def start(self) -> None:
        """Begin watching."""
        self.stop()
        for name, neuron in named_neurons(self.net):
            self._handles.append(neuron.register_forward_hook(self._hook(name)))

    def stop(self) -> None:
        """Stop watching; what was seen is kept."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            self._see(name, output.detach())

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


class FiringRateMeter(_NeuronHooks):
    """Mean output of every neuron layer: spikes per neuron, sample and time step.

    ::

        with FiringRateMeter(net) as meter:
            net(x_seq)
        meter.rates()      # {"conv.2": 0.08, ...}

    Args:
        net: network whose neurons (found by their dotted names) are watched.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def start(self) -> None:
        """Begin a new measurement."""
        self._sums.clear()
        super().start()

    def _see(self, name: str, spikes: Tensor) -> None:
        total, count = self._sums.get(name, (torch.zeros((), dtype=torch.float64), 0))
        total = total.to(spikes.device) + spikes.sum(dtype=torch.float64)
        self._sums[name] = (total, count + spikes.numel())

    def rates(self) -> dict[str, float]:
        """Firing rate of each layer that has run since ``start``, in spikes per neuron and step."""
        return {name: float(total) / max(count, 1) for name, (total, count) in self._sums.items()}


class SpikeRecorder(_NeuronHooks):
    """The spikes of one sample in every neuron layer, over all calls since ``start``.

    Args:
        net: network whose neurons are recorded.
        sample: index in the batch, default 0.
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
