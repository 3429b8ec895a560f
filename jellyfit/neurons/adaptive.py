"""Neurons that adapt: each spike makes the next one harder."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jellyfit import surrogates
from jellyfit.neurons.base import BaseNode, Value, _short
from jellyfit.neurons.leaky import LIFNode

__all__ = ["AdaptBaseNode", "AdaptiveLIFNode", "IzhikevichNode"]


class AdaptBaseNode(BaseNode):
    """Base of neurons with an adaptation current ``w``: a subclass writes ``neuronal_charge``, with ``self.w`` in it.

    After the charge ``w = w + (a (h - v_rest) - w) / τ_w``; a spike adds ``b``. That spike keeps its gradient under
    ``detach_reset``, which is about the potential alone (as in SpikingJelly).

    Args:
        v_threshold: default 1.
        v_reset: default 0; ``None`` selects the soft reset.
        v_rest: resting potential, default 0.
        w_rest: adaptation current at the start, default 0.
        tau_w: time constant of the adaptation in time steps, default 2.
        a: how strongly the potential drives it, default 0.
        b: what a spike adds to it, default 0.
        surrogate_function, detach_reset, step_mode, backend, store_v_seq: see :class:`~jellyfit.neurons.BaseNode`.

    Source: Gerstner et al., "Neuronal dynamics", section 6.1 (2014).

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> class Adapting(neurons.AdaptBaseNode):
        ...     def neuronal_charge(self, x):
        ...         self.v = self.v + x - self.w
        >>> node = Adapting(b=0.4, step_mode="m")
        >>> node(torch.ones(5, 1, 1)).flatten().tolist()
        [1.0, 0.0, 1.0, 0.0, 1.0]
    """

    w: Tensor | float
    v_rest: Value
    tau_w: Value
    a: Value
    b: Value

    def __init__(
        self,
        v_threshold: Value = 1.0,
        v_reset: Value | None = 0.0,
        v_rest: Value = 0.0,
        w_rest: float = 0.0,
        tau_w: Value = 2.0,
        a: Value = 0.0,
        b: Value = 0.0,
        surrogate_function: surrogates.SurrogateFunction | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
    ) -> None:
        super().__init__(v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq)
        self.register_value("v_rest", v_rest)
        self.register_value("tau_w", tau_w, above=0.0)
        self.register_value("a", a)
        self.register_value("b", b)
        self.w_rest = float(w_rest)
        self.register_memory("w", self.w_rest)

    def neuronal_adaptation(self) -> None:
        """Move the adaptation current after the charge: ``w = w + (a (h - v_rest) - w) / τ_w``."""
        self.w = self.w + (self.a * (self.v - self.v_rest) - self.w) / self.tau_w

    def neuronal_fire(self) -> Tensor:
        self.neuronal_adaptation()
        return super().neuronal_fire()

    def neuronal_reset(self, spike: Tensor) -> None:
        super().neuronal_reset(spike)
        self.w = self.w + self.b * spike

    def extra_repr(self) -> str:
        names = ("v_rest", "tau_w", "a", "b")
        values = ", ".join(f"{name}={_short(getattr(self, name))}" for name in names)
        return f"{values}, w_rest={self.w_rest:g}, {super().extra_repr()}"


class IzhikevichNode(AdaptBaseNode):
    """Izhikevich neuron: ``h = v + (x + a0 (v - v_rest)(v - v_c) - w) / τ`` with an adaptation current ``w``.

    Args:
        tau: membrane time constant in time steps, above 1, default 2.
        v_c: critical potential, default 0.8.
        a0: strength of the quadratic term, above 0, default 1.
        v_threshold: default 1.
        v_reset: default 0; ``None`` selects the soft reset.
        v_rest: resting potential, default -0.1.
        w_rest, tau_w, a, b: see :class:`AdaptBaseNode`.
        surrogate_function, detach_reset, step_mode, backend, store_v_seq: see :class:`~jellyfit.neurons.BaseNode`.

    Source: Izhikevich, "Simple model of spiking neurons", IEEE Transactions on Neural Networks 14 (2003).

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.IzhikevichNode(a=0.1, b=0.5, step_mode="m")
        >>> node(torch.full((4, 1, 1), 2.5)).shape
        torch.Size([4, 1, 1])
        >>> node.w.shape
        torch.Size([1, 1])
    """

    tau: Value
    v_c: Value
    a0: Value

    def __init__(
        self,
        tau: Value = 2.0,
        v_c: Value = 0.8,
        a0: Value = 1.0,
        v_threshold: Value = 1.0,
        v_reset: Value | None = 0.0,
        v_rest: Value = -0.1,
        w_rest: float = 0.0,
        tau_w: Value = 2.0,
        a: Value = 0.0,
        b: Value = 0.0,
        surrogate_function: surrogates.SurrogateFunction | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
    ) -> None:
        super().__init__(
            v_threshold, v_reset, v_rest, w_rest, tau_w, a, b,
            surrogate_function, detach_reset, step_mode, backend, store_v_seq,
        )  # fmt: skip
        self.register_value("tau", tau, above=1.0)
        self.register_value("v_c", v_c)
        self.register_value("a0", a0, above=0.0)

    def neuronal_charge(self, x: Tensor) -> None:
        self.v = self.v + (x + self.a0 * (self.v - self.v_rest) * (self.v - self.v_c) - self.w) / self.tau

    def extra_repr(self) -> str:
        values = ", ".join(f"{name}={_short(getattr(self, name))}" for name in ("tau", "v_c", "a0"))
        return f"{values}, {super().extra_repr()}"


class AdaptiveLIFNode(LIFNode):
    """LIF neuron whose threshold rises with every spike and falls back slowly (ALIF, the neuron of LSNNs).

    Fires where ``h`` reaches ``v_threshold + β a``; then ``a = ρ a + (1 - ρ) s`` with ``ρ = exp(-1 / τ_a)``. A soft
    reset takes the threshold of that moment away.

    Args:
        tau: membrane time constant in time steps, above 1, default 2.
        decay_input: whether the input is divided by τ as well; default ``True``.
        beta: how far the threshold rises, default 1.8, for a threshold of about 1.
        tau_a: time constant of the adaptation in time steps, above 0, default 200: it should be of the length of what
            the network has to remember.
        v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq: see
            :class:`~jellyfit.neurons.BaseNode`. ``detach_reset`` is about the potential alone: the spike keeps its
            gradient in ``a``.

    Source: Bellec et al., "Long short-term memory and learning-to-learn in networks of spiking neurons", NeurIPS 2018.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.AdaptiveLIFNode(tau_a=10.0, step_mode="m")
        >>> node(torch.full((6, 1, 1), 2.1)).flatten().tolist()  # a LIF neuron would fire at every step
        [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    """

    a: Tensor | float
    beta: Value
    tau_a: Value

    def __init__(
        self,
        tau: Value = 2.0,
        decay_input: bool = True,
        beta: Value = 1.8,
        tau_a: Value = 200.0,
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
        self.register_value("beta", beta)
        self.register_value("tau_a", tau_a, above=0.0)
        self.register_memory("a", 0.0)

    @property
    def rho(self) -> Value:
        """What is left of the adaptation after a step: ``exp(-1 / tau_a)``."""
        return torch.exp(-1.0 / self.tau_a) if isinstance(self.tau_a, Tensor) else math.exp(-1.0 / self.tau_a)

    def _threshold(self) -> Value:
        return self.v_threshold + self.beta * self.a

    def neuronal_fire(self) -> Tensor:
        return self.surrogate_function(self.v - self._threshold())  # type: ignore[no-any-return]

    def neuronal_reset(self, spike: Tensor) -> None:
        self._reset_v(spike, self._threshold())
        rho = self.rho
        self.a = rho * self.a + (1.0 - rho) * spike

    def extra_repr(self) -> str:
        return f"beta={_short(self.beta)}, tau_a={_short(self.tau_a)}, {super().extra_repr()}"
