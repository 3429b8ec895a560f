"""Leaky integrate and fire: the potential leaks towards its resting value with a time constant."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from jellyfit import surrogates
from jellyfit.errors import InputError
from jellyfit.neurons.base import BaseNode, Value, _short

__all__ = ["LIFNode", "ParametricLIFNode"]


class _LeakyNode(BaseNode):
    """What leaky neurons share: the leak, written once for whatever 1/τ is."""

    decay_input: bool

    def _leak(self, x: Tensor) -> Tensor:
        """``x - (v - v_reset)``, or without the input when that does not decay."""
        rest = 0.0 if self.v_reset is None else self.v_reset
        drive: Tensor = self.v - rest
        return x - drive if self.decay_input else -drive

    def _charge(self, x: Tensor, leak: Tensor) -> None:
        self.v = self.v + leak if self.decay_input else self.v + leak + x

    def extra_repr(self) -> str:
        return f"decay_input={self.decay_input}, {super().extra_repr()}"


class LIFNode(_LeakyNode):
    """Leaky integrate-and-fire neuron.

    ``h = v + (x - (v - v_reset)) / τ`` when the input decays too (``decay_input=True``), else
    ``h = v - (v - v_reset) / τ + x``. In the leak ``v_reset=None`` counts as 0.

    Args:
        tau: membrane time constant in time steps, above 1, default 2; a number, tensor or ``nn.Parameter``.
        decay_input: whether the input is divided by τ as well; default ``True``.
        v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq: see
            :class:`~jellyfit.neurons.BaseNode`.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.LIFNode(tau=2.0)
        >>> node(torch.tensor([[1.0, 3.0]])).tolist()
        [[0.0, 1.0]]
        >>> node.v.tolist()
        [[0.5, 0.0]]
    """

    tau: Value

    def __init__(
        self,
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
        super().__init__(v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq)
        self.register_value("tau", tau, above=1.0)
        self.decay_input = decay_input

    def neuronal_charge(self, x: Tensor) -> None:
        self._charge(x, self._leak(x) / self.tau)

    def extra_repr(self) -> str:
        return f"tau={_short(self.tau)}, {super().extra_repr()}"


class ParametricLIFNode(_LeakyNode):
    """LIF neuron with a learnable time constant (PLIF): ``1/τ = sigmoid(w)``, ``w`` starts at ``-ln(init_tau - 1)``.

    The charge is that of :class:`LIFNode`. One ``w`` a layer when ``init_tau`` is a number; of the shape of
    ``init_tau`` (per channel, per element) when it is a tensor.

    Args:
        init_tau: time constant at the start in time steps, above 1, default 2.
        decay_input: whether the input is divided by τ as well; default ``True``.
        v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq: see
            :class:`~jellyfit.neurons.BaseNode`.

    Source: Fang et al., "Incorporating learnable membrane time constant to enhance learning of spiking neural
    networks", ICCV 2021.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.ParametricLIFNode(init_tau=4.0, step_mode="m")
        >>> node(torch.full((3, 1, 1), 2.0)).flatten().tolist()
        [0.0, 0.0, 1.0]
        >>> round(node.tau.item(), 4)
        4.0
    """

    w: nn.Parameter

    def __init__(
        self,
        init_tau: Value = 2.0,
        decay_input: bool = True,
        v_threshold: Value = 1.0,
        v_reset: Value | None = 0.0,
        surrogate_function: surrogates.SurrogateFunction | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
    ) -> None:
        super().__init__(v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq)
        if isinstance(init_tau, Tensor):
            if not bool((torch.isfinite(init_tau) & (init_tau > 1.0)).all()):
                raise InputError(
                    f"ParametricLIFNode(init_tau={init_tau!r}): every time constant must be finite and above 1."
                )
            w = -torch.log(init_tau.detach() - 1.0)
        elif isinstance(init_tau, (int, float)) and math.isfinite(init_tau) and init_tau > 1.0:
            w = torch.tensor(-math.log(init_tau - 1.0))
        else:
            raise InputError(f"ParametricLIFNode(init_tau={init_tau!r}): expected a finite time constant above 1.")
        self.register_value("w", nn.Parameter(w))
        self.decay_input = decay_input

    def neuronal_charge(self, x: Tensor) -> None:
        self._charge(x, self._leak(x) * self.w.sigmoid())

    @property
    def tau(self) -> Tensor:
        """The present time constant ``1 / sigmoid(w)``, detached, of the shape of ``w``."""
        return 1.0 / self.w.detach().sigmoid()

    def extra_repr(self) -> str:
        return f"tau={_short(self.tau)}, {super().extra_repr()}"
