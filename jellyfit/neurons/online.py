"""LIF neurons for online training: no gradient flows from one time step to the one before."""

from __future__ import annotations

import torch
from torch import Tensor

from jellyfit import surrogates
from jellyfit.errors import InputError
from jellyfit.neurons.base import Value
from jellyfit.neurons.leaky import LIFNode

__all__ = ["OTTTLIFNode", "SLTTLIFNode"]


class SLTTLIFNode(LIFNode):
    """LIF neuron whose potential is detached before each step: spatial learning through time (SLTT).

    Backward then needs each time step for itself alone: a loss may be differentiated after every step, with memory
    that does not grow with their number.

    Args:
        tau, decay_input, v_threshold, v_reset, surrogate_function, step_mode, backend, store_v_seq: see
            :class:`~jellyfit.neurons.LIFNode`.
        detach_reset: default ``True``.

    Source: Meng et al., "Towards memory- and time-efficient backpropagation for training spiking neural networks",
    ICCV 2023.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.SLTTLIFNode()
        >>> x = torch.ones(2, 1, 1, requires_grad=True)
        >>> spikes = [node(step) for step in x]
        >>> spikes[1].sum().backward()
        >>> x.grad[0].item()
        0.0
    """

    def __init__(
        self,
        tau: Value = 2.0,
        decay_input: bool = True,
        v_threshold: Value = 1.0,
        v_reset: Value | None = 0.0,
        surrogate_function: surrogates.SurrogateFunction | None = None,
        detach_reset: bool = True,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
    ) -> None:
        super().__init__(
            tau, decay_input, v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq
        )

    def neuronal_charge(self, x: Tensor) -> None:
        self.v = self.v.detach()
        super().neuronal_charge(x)


class OTTTLIFNode(SLTTLIFNode):
    """LIF neuron that also emits the trace of its spikes: online training through time (OTTT).

    In training the output is ``(spike, trace)`` with ``trace = λ trace + spike``, ``λ = 1 - 1/τ``, without a gradient:
    what the weights of the next layer are trained with. In evaluation the output is the spike. Step mode ``"s"`` only.

    Args:
        tau: membrane time constant in time steps, above 1, default 2.
        decay_input: default ``False``.
        v_threshold: default 1.
        v_reset: default ``None``, the soft reset.
        surrogate_function, backend, store_v_seq: see :class:`~jellyfit.neurons.LIFNode`.
        detach_reset: default ``True``.
        step_mode: ``"s"``.

    Raises:
        InputError: called in step mode ``"m"``.

    Source: Xiao et al., "Online training through time for spiking neural networks", NeurIPS 2022.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.OTTTLIFNode()
        >>> for _ in range(2):
        ...     spike, trace = node(torch.tensor([[1.5, 0.2]]))
        >>> spike.tolist(), trace.tolist()
        ([[1.0, 0.0]], [[1.5, 0.0]])
        >>> node.eval()(torch.zeros(1, 2)).shape
        torch.Size([1, 2])
    """

    _trace: Tensor | None

    def __init__(
        self,
        tau: Value = 2.0,
        decay_input: bool = False,
        v_threshold: Value = 1.0,
        v_reset: Value | None = None,
        surrogate_function: surrogates.SurrogateFunction | None = None,
        detach_reset: bool = True,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
    ) -> None:
        super().__init__(
            tau, decay_input, v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq
        )
        self.register_memory("_trace", None)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
        """``[N, *]`` -> spikes ``[N, *]``, and in training their trace."""
        if self._step_mode == "m":
            raise InputError(
                f"{self.describe()}: online training goes step by step; use step mode 's' and call it once a time step."
            )
        spike = super().forward(x)
        if not self.training:
            return spike
        with torch.no_grad():
            before = self._trace
            self._trace = spike.detach() if before is None else before * (1.0 - 1.0 / self.tau) + spike
        return spike, self._trace

    @property
    def trace(self) -> Tensor | None:
        """The present trace ``[N, *]``, or ``None`` before the first step."""
        return self._trace
