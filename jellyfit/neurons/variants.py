"""Relatives of the LIF neuron: another charge, another output or another reset."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from jellyfit import surrogates
from jellyfit.neurons.base import Value, _short
from jellyfit.neurons.leaky import LIFNode
from jellyfit.neurons.linear import _learnt

__all__ = ["ComplementaryLIFNode", "KLIFNode", "LIAFNode"]


class KLIFNode(LIFNode):
    """LIF neuron whose charge is scaled by a learnable ``k`` and rectified (KLIF): ``h = relu(k · LIF charge)``.

    Args:
        scale_reset: whether the reset acts on ``h / k`` with threshold ``v_threshold / k``; default ``False``.
        tau: membrane time constant in time steps, above 1, default 2.
        decay_input: whether the input is divided by τ as well; default ``True``.
        v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq: see
            :class:`~jellyfit.neurons.BaseNode`.
        init_k: ``k`` at the start, default 1; a number (one ``k`` a layer), or a tensor that broadcasts over one step
            ``[N, *]`` (per channel: ``[C, 1, 1]`` for images).

    Source: Jiang and Zhang, "KLIF: an optimized spiking neuron unit for tuning surrogate gradient slope and membrane
    potential", 2023.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.KLIFNode()
        >>> node(torch.tensor([[2.0, 1.0, -1.0]])).tolist()
        [[1.0, 0.0, 0.0]]
        >>> node.v.tolist()
        [[0.0, 0.5, 0.0]]
    """

    k: Tensor

    def __init__(
        self,
        scale_reset: bool = False,
        tau: Value = 2.0,
        decay_input: bool = True,
        v_threshold: Value = 1.0,
        v_reset: Value | None = 0.0,
        surrogate_function: surrogates.SurrogateFunction | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
        init_k: Value = 1.0,
    ) -> None:
        super().__init__(
            tau, decay_input, v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq
        )
        self.scale_reset = scale_reset
        self.register_value("k", _learnt(init_k, True), above=0.0)

    def neuronal_charge(self, x: Tensor) -> None:
        super().neuronal_charge(x)
        self.v = torch.relu(self.k * self.v)

    def neuronal_reset(self, spike: Tensor) -> None:
        if not self.scale_reset:
            super().neuronal_reset(spike)
            return
        self.v = self.v / self.k
        self._reset_v(spike, self.v_threshold / self.k)

    def extra_repr(self) -> str:
        return f"scale_reset={self.scale_reset}, k={_short(self.k)}, {super().extra_repr()}"


class LIAFNode(LIFNode):
    """LIF neuron with an analog output: ``act(h - v_threshold)`` or ``act(h)``; its spikes only reset it.

    Args:
        act: activation function of the output, such as ``torch.relu`` or an ``nn.Module``.
        threshold_related: whether the output is ``act(h - v_threshold)`` (``True``) or ``act(h)``.
        tau, decay_input, v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq: see
            :class:`~jellyfit.neurons.LIFNode`.

    Source: Wu et al., "LIAF-Net: leaky integrate and analog fire network for lightweight and efficient spatiotemporal
    information processing", IEEE TNNLS 2021.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.LIAFNode(torch.relu, threshold_related=True)
        >>> node(torch.tensor([[3.0, 1.0]])).tolist()
        [[0.5, 0.0]]
        >>> node.v.tolist()
        [[0.0, 0.5]]
    """

    fires = False

    def __init__(
        self,
        act: Callable[[Tensor], Tensor] | nn.Module,
        threshold_related: bool,
        tau: Value = 2.0,
        decay_input: bool = True,
        v_threshold: Value = 1.0,
        v_reset: Value | None = 0.0,
        surrogate_function: surrogates.SurrogateFunction | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
    ) -> None:
        super().__init__(
            tau, decay_input, v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq
        )
        self.act = act
        self.threshold_related = threshold_related

    def single_step_forward(self, x: Tensor) -> Tensor:
        """One time step ``[N, *]`` -> analog output ``[N, *]``; updates ``self.v``."""
        self.neuronal_charge(x)
        output = self.act(self.v - self.v_threshold if self.threshold_related else self.v)
        self.neuronal_reset(self.neuronal_fire())
        return output

    def extra_repr(self) -> str:
        act = "" if isinstance(self.act, nn.Module) else f"act={getattr(self.act, '__name__', repr(self.act))}, "
        return f"{act}threshold_related={self.threshold_related}, {super().extra_repr()}"


class ComplementaryLIFNode(LIFNode):
    """LIF neuron with a complementary potential ``m`` (CLIF), through which gradients reach far back in time.

    ``h = v - v / τ + x``; ``m = m · sigmoid(h / τ) + s``; ``v = h - s (v_threshold + sigmoid(m))``.

    Args:
        tau: membrane time constant in time steps, above 1, default 2.
        v_threshold: default 1.
        surrogate_function: default ``Rect(alpha=1.0)``.
        step_mode, detach_reset, backend, store_v_seq: see :class:`~jellyfit.neurons.BaseNode`.

    Source: Huang et al., "CLIF: complementary leaky integrate-and-fire neuron for spiking neural networks", ICML 2024.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.ComplementaryLIFNode(step_mode="m")
        >>> node(torch.full((3, 1, 1), 0.8)).flatten().tolist()
        [0.0, 1.0, 0.0]
        >>> node.m.shape
        torch.Size([1, 1])
    """

    m: Tensor | float

    def __init__(
        self,
        tau: Value = 2.0,
        v_threshold: Value = 1.0,
        surrogate_function: surrogates.SurrogateFunction | None = None,
        step_mode: str = "s",
        detach_reset: bool = False,
        backend: str = "auto",
        store_v_seq: bool = False,
    ) -> None:
        super().__init__(
            tau, False, v_threshold, None,
            surrogates.Rect() if surrogate_function is None else surrogate_function,
            detach_reset, step_mode, backend, store_v_seq,
        )  # fmt: skip
        self.register_memory("m", 0.0)

    def neuronal_reset(self, spike: Tensor) -> None:
        if self.detach_reset:
            spike = spike.detach()
        self.m = self.m * torch.sigmoid(self.v / self.tau) + spike
        self.v = self.v - spike * (self.v_threshold + torch.sigmoid(self.m))
