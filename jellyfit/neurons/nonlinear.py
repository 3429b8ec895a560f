"""Nonlinear integrate and fire: the potential grows faster near the threshold."""

from __future__ import annotations

import torch
from torch import Tensor

from jellyfit import surrogates
from jellyfit.neurons.base import BaseNode, Value, _short

__all__ = ["EIFNode", "QIFNode"]


class QIFNode(BaseNode):
    """Quadratic integrate-and-fire neuron: ``h = v + (x + a0 (v - v_rest)(v - v_c)) / τ``.

    Args:
        tau: membrane time constant in time steps, above 1, default 2.
        v_c: critical potential, beyond which the potential grows by itself, default 0.8.
        a0: strength of the quadratic term, above 0, default 1.
        v_threshold: default 1.
        v_rest: resting potential, default 0.
        v_reset: default -0.1; ``None`` selects the soft reset.
        surrogate_function, detach_reset, step_mode, backend, store_v_seq: see :class:`~jellyfit.neurons.BaseNode`.

    Source: Gerstner et al., "Neuronal dynamics", section 5.3 (2014).

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.QIFNode(v_reset=0.0)
        >>> node(torch.tensor([[1.0, 2.0]])).tolist()
        [[0.0, 1.0]]
        >>> node.v.tolist()
        [[0.5, 0.0]]
    """

    tau: Value
    v_c: Value
    a0: Value
    v_rest: Value

    def __init__(
        self,
        tau: Value = 2.0,
        v_c: Value = 0.8,
        a0: Value = 1.0,
        v_threshold: Value = 1.0,
        v_rest: Value = 0.0,
        v_reset: Value | None = -0.1,
        surrogate_function: surrogates.SurrogateFunction | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
    ) -> None:
        super().__init__(v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq)
        self.register_value("tau", tau, above=1.0)
        self.register_value("v_c", v_c)
        self.register_value("a0", a0, above=0.0)
        self.register_value("v_rest", v_rest)

    def neuronal_charge(self, x: Tensor) -> None:
        self.v = self.v + (x + self.a0 * (self.v - self.v_rest) * (self.v - self.v_c)) / self.tau

    def extra_repr(self) -> str:
        values = ", ".join(f"{name}={_short(getattr(self, name))}" for name in ("tau", "v_c", "a0", "v_rest"))
        return f"{values}, {super().extra_repr()}"


class EIFNode(BaseNode):
    """Exponential integrate-and-fire neuron: ``h = v + (x + v_rest - v + Δ exp((v - θ_rh) / Δ)) / τ``.

    Args:
        tau: membrane time constant in time steps, above 1, default 2.
        delta_T: sharpness Δ, above 0, default 1.
        theta_rh: rheobase threshold θ_rh, default 0.8.
        v_threshold: default 1.
        v_rest: resting potential, default 0.
        v_reset: default -0.1; ``None`` selects the soft reset.
        surrogate_function, detach_reset, step_mode, backend, store_v_seq: see :class:`~jellyfit.neurons.BaseNode`.

    Source: Gerstner et al., "Neuronal dynamics", section 5.2 (2014).

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.EIFNode(step_mode="m")
        >>> node(torch.full((4, 2, 8), 0.8)).shape
        torch.Size([4, 2, 8])
    """

    tau: Value
    delta_T: Value
    theta_rh: Value
    v_rest: Value

    def __init__(
        self,
        tau: Value = 2.0,
        delta_T: Value = 1.0,
        theta_rh: Value = 0.8,
        v_threshold: Value = 1.0,
        v_rest: Value = 0.0,
        v_reset: Value | None = -0.1,
        surrogate_function: surrogates.SurrogateFunction | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
    ) -> None:
        super().__init__(v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq)
        self.register_value("tau", tau, above=1.0)
        self.register_value("delta_T", delta_T, above=0.0)
        self.register_value("theta_rh", theta_rh)
        self.register_value("v_rest", v_rest)

    def neuronal_charge(self, x: Tensor) -> None:
        upswing = self.delta_T * torch.exp((self.v - self.theta_rh) / self.delta_T)
        self.v = self.v + (x + self.v_rest - self.v + upswing) / self.tau

    def extra_repr(self) -> str:
        names = ("tau", "delta_T", "theta_rh", "v_rest")
        return ", ".join(f"{name}={_short(getattr(self, name))}" for name in names) + f", {super().extra_repr()}"
