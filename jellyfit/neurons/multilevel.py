"""Neurons whose spikes have more values than 0 and 1."""

from __future__ import annotations

from torch import Tensor

from jellyfit import surrogates
from jellyfit.neurons.base import BaseNode, Value
from jellyfit.neurons.integrate import IFNode
from jellyfit.neurons.leaky import LIFNode

__all__ = ["ILIFNode", "TernaryIFNode", "TernaryLIFNode"]


class ILIFNode(LIFNode):
    """Integer LIF neuron: ``h = v - v / τ + x``, ``s = clamp(round(h / v_threshold), 0, D)``, soft reset.

    It trains with whole numbers of spikes, and runs on spikes of 0 and 1 with ``D`` times as many time steps.

    Args:
        tau: membrane time constant in time steps, above 1, default 4/3 (a quarter of the potential stays).
        v_threshold: default 1.
        surrogate_function: counts the spikes, default ``MultiLevelSpikeCount(4)``, in which ``D`` is 4.
        detach_reset, step_mode, store_v_seq, backend: see :class:`~jellyfit.neurons.BaseNode`.

    Source: Luo et al., "Integer-valued training and spike-driven inference spiking neural network for high-performance
    and energy-efficient object detection", ECCV 2024.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.ILIFNode()
        >>> node(torch.tensor([[-1.0, 0.4, 0.6, 2.2, 9.0]])).tolist()
        [[0.0, 0.0, 1.0, 2.0, 4.0]]
    """

    def __init__(
        self,
        tau: Value = 4.0 / 3.0,
        v_threshold: Value = 1.0,
        surrogate_function: surrogates.SurrogateFunction | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            tau, False, v_threshold, None,
            surrogates.MultiLevelSpikeCount(4) if surrogate_function is None else surrogate_function,
            detach_reset, step_mode, backend, store_v_seq,
        )  # fmt: skip

    def neuronal_fire(self) -> Tensor:
        return self.surrogate_function(self.v / self.v_threshold)  # type: ignore[no-any-return]


class _TernaryNode(BaseNode):
    """Spikes of -1, 0 and 1, mixed in before a neuron that says how it charges."""

    def _events(self) -> tuple[Tensor, Tensor]:
        """Where the potential is above the threshold, and where it is below minus the threshold."""
        return self.surrogate_function(self.v - self.v_threshold), self.surrogate_function(-self.v - self.v_threshold)

    def neuronal_fire(self) -> Tensor:
        above, below = self._events()
        return above - below

    def single_step_forward(self, x: Tensor) -> Tensor:
        self.neuronal_charge(x)
        above, below = self._events()
        spike = above - below
        # A hard reset is the same for both signs; the soft one takes the threshold away on its own side.
        self.neuronal_reset(spike if self.v_reset is None else above + below)
        return spike


class TernaryIFNode(_TernaryNode, IFNode):
    """Integrate-and-fire neuron with signed spikes: ``s = Θ(h - v_threshold) - Θ(-h - v_threshold)``.

    The reset acts at spikes of both signs.

    Args:
        v_threshold: of both signs, above 0, default 1.
        v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq: see
            :class:`~jellyfit.neurons.BaseNode`.

    Source: Guo et al., "Ternary spike: learning ternary spikes for spiking neural networks", AAAI 2024.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> neurons.TernaryIFNode()(torch.tensor([[-1.2, -0.5, 0.5, 1.0]])).tolist()
        [[-1.0, 0.0, 0.0, 1.0]]
    """


class TernaryLIFNode(_TernaryNode, LIFNode):
    """Leaky integrate-and-fire neuron with signed spikes: the charge of :class:`LIFNode`, else :class:`TernaryIFNode`.

    Args:
        tau, decay_input, v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq: see
            :class:`~jellyfit.neurons.LIFNode`.

    Source: as :class:`TernaryIFNode`.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> neurons.TernaryLIFNode()(torch.tensor([[-3.0, -1.0, 2.0]])).tolist()
        [[-1.0, 0.0, 1.0]]
    """
