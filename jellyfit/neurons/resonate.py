"""Resonate and fire: the potential oscillates, and so answers to input of its own frequency."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jellyfit import surrogates
from jellyfit.neurons.base import BaseNode, Value, _short

__all__ = ["RAFNode"]


class RAFNode(BaseNode):
    """Resonate-and-fire neuron: a damped oscillation of ``(u, v)`` that the input drives.

    ``u = e^{b·dt} (u cos(ω·dt) - v sin(ω·dt)) + x`` and ``h = e^{b·dt} (u sin(ω·dt) + v cos(ω·dt))``, both from the
    ``u`` before the step; spikes reset ``v`` alone.

    Args:
        b: damping, below 0 for an oscillation that dies away, default -0.2.
        omega: angular frequency ω, default 1.
        dt: length of a step, above 0, default 1.
        v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq: see
            :class:`~jellyfit.neurons.BaseNode`.

    Source: Izhikevich, "Resonate-and-fire neurons", Neural Networks 14 (2001).

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.RAFNode(step_mode="m")
        >>> x = torch.zeros(5, 1, 1)
        >>> x[0] = 2.0
        >>> node(x).flatten().tolist()
        [0.0, 1.0, 0.0, 0.0, 0.0]
    """

    u: Tensor | float
    b: Value
    omega: Value
    dt: float

    def __init__(
        self,
        b: Value = -0.2,
        omega: Value = 1.0,
        dt: float = 1.0,
        v_threshold: Value = 1.0,
        v_reset: Value | None = 0.0,
        surrogate_function: surrogates.SurrogateFunction | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
    ) -> None:
        super().__init__(v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq)
        self.register_value("b", b)
        self.register_value("omega", omega)
        self.register_value("dt", dt, above=0.0)
        self.register_memory("u", 0.0)

    def neuronal_charge(self, x: Tensor) -> None:
        damping = _apply("exp", self.b * self.dt)
        cos, sin = (_apply(name, self.omega * self.dt) for name in ("cos", "sin"))
        u = damping * (self.u * cos - self.v * sin) + x
        self.v = damping * (self.u * sin + self.v * cos)
        self.u = u

    def extra_repr(self) -> str:
        return f"b={_short(self.b)}, omega={_short(self.omega)}, dt={_short(self.dt)}, {super().extra_repr()}"


def _apply(function: str, value: Value) -> Value:
    """``exp``, ``cos`` or ``sin`` of a number or a tensor."""
    return getattr(torch if isinstance(value, Tensor) else math, function)(value)  # type: ignore[no-any-return]
