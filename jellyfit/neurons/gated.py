"""Gated LIF: learnable gates mix the ways in which a neuron can leak, integrate and reset."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from jellyfit import surrogates
from jellyfit.errors import InputError, StateError
from jellyfit.neurons.base import BaseNode

__all__ = ["GatedLIFNode"]


class GatedLIFNode(BaseNode):
    """LIF neuron whose learnable gates mix two leaks, two kinds of input and two resets (GLIF).

    With α gating the leak, β the input, γ the reset, and ``s'`` the spike of the step before:
    ``h = (1 - α (1 - τ)) (1 - γ s') v - (1 - α) l + x (1 - β (1 - g_t)) - (1 - γ) r s'``; ``s = Θ(h - v_threshold)``.
    All of α, β, γ, τ, threshold, linear leak ``l``, reset ``r`` and conductances ``g_t`` (one a time step) are learnt
    through a sigmoid: the parameters hold their logits.

    Args:
        T: number of time steps: ``g_t`` has as many values.
        inplane: number of channels (of ``[N, C, *]``) for parameters per channel; ``None`` (default): per layer.
        init_linear_decay: ``l`` at the start; default ``init_v_threshold / (2 T)``.
        init_v_subreset: ``r`` at the start; default ``init_v_threshold``.
        init_tau: part of the potential that an exponential leak keeps, at the start, default 0.25.
        init_v_threshold: threshold at the start, default 0.5.
        init_conduct: ``g_t`` at the start, default 0.5.
        surrogate_function: default ``Sigmoid(alpha=4.0)``.
        step_mode: ``"m"`` (default) or ``"s"``.
        backend, store_v_seq: see :class:`~jellyfit.neurons.BaseNode`.

    Raises:
        InputError: a value outside (0, 1), another number of channels or of time steps.
        StateError: more than T single steps without a reset.

    Source: Yao et al., "GLIF: a unified gated leaky integrate-and-fire neuron for spiking neural networks", NeurIPS
    2022.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.GatedLIFNode(T=4, inplane=3)
        >>> node(torch.rand(4, 2, 3, 8, 8)).shape
        torch.Size([4, 2, 3, 8, 8])
        >>> node.conduct.shape
        torch.Size([4, 3])
    """

    alpha: nn.Parameter
    beta: nn.Parameter
    gamma: nn.Parameter
    tau: nn.Parameter
    v_threshold: nn.Parameter
    linear_decay: nn.Parameter
    v_subreset: nn.Parameter
    conduct: nn.Parameter
    spike: Tensor | float
    _steps: int

    def __init__(
        self,
        T: int,
        inplane: int | None = None,
        init_linear_decay: float | None = None,
        init_v_subreset: float | None = None,
        init_tau: float = 0.25,
        init_v_threshold: float = 0.5,
        init_conduct: float = 0.5,
        surrogate_function: surrogates.SurrogateFunction | None = None,
        step_mode: str = "m",
        backend: str = "auto",
        store_v_seq: bool = False,
    ) -> None:
        super().__init__(
            surrogate_function=surrogate_function, step_mode=step_mode, backend=backend, store_v_seq=store_v_seq
        )
        if T < 1 or (inplane is not None and inplane < 1):
            raise InputError(f"GatedLIFNode(T={T}, inplane={inplane}): expected at least 1 time step and 1 channel.")
        self.T, self.inplane = T, inplane
        shape = () if inplane is None else (inplane,)
        self._values.clear()  # these lie along the channels, and are placed there when used
        for gate in ("alpha", "beta", "gamma"):
            setattr(self, gate, nn.Parameter(torch.empty(shape).uniform_(-0.1, 0.1)))
        starts = {
            "tau": init_tau,
            "v_threshold": init_v_threshold,
            "linear_decay": init_v_threshold / (2 * T) if init_linear_decay is None else init_linear_decay,
            "v_subreset": init_v_threshold if init_v_subreset is None else init_v_subreset,
            "conduct": init_conduct,
        }
        for name, start in starts.items():
            if not 0.0 < start < 1.0:
                raise InputError(
                    f"GatedLIFNode: {name} starts at {start}; expected a number between 0 and 1, exclusive."
                )
            logit = math.log(start / (1.0 - start))
            setattr(self, name, nn.Parameter(torch.full((T, *shape) if name == "conduct" else shape, logit)))
        self.register_memory("spike", 0.0)
        self.register_memory("_steps", 0)

    def _value(self, name: str, x: Tensor) -> Tensor:
        """Parameter ``name`` between 0 and 1, placed along the channels of ``x``, one step."""
        value: Tensor = getattr(self, name).sigmoid()
        return value.view(-1, *(1,) * (x.ndim - 2)) if value.ndim == 1 else value

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of the same shape as ``x``: ``[T, N, *]`` in step mode ``"m"``, ``[N, *]`` in step mode ``"s"``."""
        self._check_input(x)
        single = self._step_mode == "s"
        step = x if single else x[0]
        if self.inplane is not None and (step.ndim < 2 or step.shape[1] != self.inplane):
            raise InputError(
                f"{self.describe()}: made for {self.inplane} channels; one step of the input is {list(step.shape)}, "
                "expected [N, C, *]."
            )
        if single:
            if self._steps >= self.T:
                raise StateError(
                    f"{self.describe()}: has run T = {self.T} steps since its last reset. Call "
                    "functional.reset_net(net) before a new sequence."
                )
            conduct: Tensor = self.conduct[self._steps]
            self._steps += 1
        else:
            if x.shape[0] != self.T:
                raise InputError(
                    f"{self.describe()}: made for sequences of T = {self.T} steps; got shape {list(x.shape)}."
                )
            conduct = self.conduct
        # The conductance is the one thing that differs from step to step: it scales the input beforehand.
        gate = 1.0 - self.beta.sigmoid() * (1.0 - conduct.sigmoid())
        if self.inplane is not None:
            gate = gate.view(*gate.shape[:-1], *(1,) * (not single), -1, *(1,) * (step.ndim - 2))
        elif not single:
            gate = gate.view(-1, *(1,) * step.ndim)
        return super().forward(x * gate.to(x.dtype))

    def neuronal_charge(self, x: Tensor) -> None:
        alpha, gamma, tau = (self._value(name, x) for name in ("alpha", "gamma", "tau"))
        kept = (1.0 - alpha * (1.0 - tau)) * self.v
        drained = (1.0 - alpha) * self._value("linear_decay", x)
        lowered = (1.0 - gamma) * self._value("v_subreset", x) * self.spike
        self.v = kept - drained + x - kept * gamma * self.spike - lowered

    def neuronal_fire(self) -> Tensor:
        return self.surrogate_function(self.v - self._value("v_threshold", self.v))  # type: ignore[no-any-return]

    def neuronal_reset(self, spike: Tensor) -> None:
        """Remember the spike: it lowers the potential in the next step's charge."""
        self.spike = spike

    def extra_repr(self) -> str:
        return f"T={self.T}, inplane={self.inplane}, step_mode={self.step_mode!r}, backend={self.backend!r}"
