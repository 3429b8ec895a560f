"""Spike functions and their surrogate gradients, each defined once.

A neuron fires where its membrane potential reaches the threshold: ``s = Θ(h - v_threshold)`` with ``Θ(0) = 1``. The
derivative of Θ is zero almost everywhere, so training replaces it, in the backward pass alone, by the derivative of a
smooth function: the *surrogate gradient* (Neftci, Mostafa and Zenke 2019).

A surrogate is one small class that states its ``gradient`` and, where it has one, its ``primitive`` (the smooth
function whose derivative the gradient is)::

    class Triangle(SurrogateFunction):
        def gradient(self, x):
            return (1.0 - x.abs()).clamp(min=0.0)

All take ``x = h - v_threshold`` of any shape and floating dtype and give a tensor of the same shape and dtype. With
``spiking=False`` the primitive itself is the output and is differentiated as it stands: a non-spiking twin of the
network, useful to check gradients.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from jellyfit.errors import ConfigError, InputError

__all__ = [
    "ATan",
    "DeterministicPass",
    "PiecewiseQuadratic",
    "Rect",
    "Sigmoid",
    "SurrogateFunction",
    "heaviside",
]


def heaviside(x: Tensor) -> Tensor:
    """Heaviside's step Θ(x): 1 where ``x >= 0``, else 0 (also for NaN), in the shape and dtype of ``x``."""
    return (x >= 0).to(x.dtype)


class _Spike(torch.autograd.Function):
    """Θ forward; the surrogate's gradient backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, surrogate: SurrogateFunction) -> Tensor:
        return heaviside(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, SurrogateFunction], output: Tensor) -> None:
        x, ctx.surrogate = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grad_output * ctx.surrogate.gradient(x), None


class SurrogateFunction(nn.Module):
    """Base of all surrogates: subclass it and write :meth:`gradient` (and :meth:`primitive`, if there is one).

    Args:
        spiking: ``True`` (default) gives spikes forward and the surrogate gradient backward; ``False`` gives the
            primitive, differentiated by autograd.

    Raises:
        ConfigError: ``spiking=False`` for a surrogate that has no primitive.
    """

    def __init__(self, spiking: bool = True) -> None:
        super().__init__()
        self.spiking = spiking
        if not spiking and type(self).primitive is SurrogateFunction.primitive:
            raise ConfigError(
                f"{type(self).__name__}(spiking=False): this surrogate defines no primitive to output instead of "
                "spikes. Use spiking=True, or a surrogate with a primitive() such as Sigmoid or ATan."
            )

    def gradient(self, x: Tensor) -> Tensor:
        """What stands in for Θ'(x) in the backward pass; same shape as ``x``. Subclasses write it."""
        raise TypeError(f"{type(self).__name__} must define gradient(self, x): the surrogate of the step's derivative")

    def primitive(self, x: Tensor) -> Tensor:
        """The smooth function whose derivative is :meth:`gradient`, where one is known; same shape as ``x``."""
        raise ConfigError(f"{type(self).__name__} has no primitive; keep spiking=True")

    def forward(self, x: Tensor) -> Tensor:
        """Spikes (0 or 1) of ``x = h - v_threshold``, or the primitive when ``spiking`` is ``False``."""
        if self.spiking:
            return _Spike.apply(x, self)  # type: ignore[no-untyped-call,no-any-return]
        return self.primitive(x)

    def set_spiking_mode(self, spiking: bool) -> None:
        """Turn spikes on or off (the name that SpikingJelly uses)."""
        if not spiking and type(self).primitive is SurrogateFunction.primitive:
            self.primitive(torch.zeros(()))
        self.spiking = spiking

    def extra_repr(self) -> str:
        """Parameters that differ from call to call, for ``print(net)``."""
        return "" if self.spiking else "spiking=False"


class _Alpha(SurrogateFunction):
    """A surrogate with one positive parameter, its steepness ``alpha``."""

    def __init__(self, alpha: float, spiking: bool) -> None:
        super().__init__(spiking)
        if not (isinstance(alpha, (int, float)) and math.isfinite(alpha) and alpha > 0):
            raise InputError(
                f"{type(self).__name__}(alpha={alpha!r}): alpha is the steepness of the surrogate gradient and must be "
                "a finite number above 0."
            )
        self.alpha = float(alpha)

    def extra_repr(self) -> str:
        return ", ".join(filter(None, [f"alpha={self.alpha:g}", super().extra_repr()]))


class Sigmoid(_Alpha):
    """Derivative of the logistic function: ``g'(x) = α σ(αx) (1 - σ(αx))``; primitive ``g(x) = σ(αx)``.

    Args:
        alpha: steepness, default 4.
        spiking: see :class:`SurrogateFunction`.
    """

    def __init__(self, alpha: float = 4.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)

    def gradient(self, x: Tensor) -> Tensor:
        s = self.primitive(x)
        return self.alpha * s * (1.0 - s)

    def primitive(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.alpha * x)


class ATan(_Alpha):
    """Arc tangent (Fang et al. 2021): ``g'(x) = (α/2) / (1 + (π/2 αx)²)``; ``g(x) = arctan(π/2 αx)/π + 1/2``.

    Args:
        alpha: steepness, default 2.
        spiking: see :class:`SurrogateFunction`.
    """

    def __init__(self, alpha: float = 2.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)

    def gradient(self, x: Tensor) -> Tensor:
        scaled = (math.pi / 2 * self.alpha) * x
        return (self.alpha / 2) / (1.0 + scaled * scaled)

    def primitive(self, x: Tensor) -> Tensor:
        return torch.atan((math.pi / 2 * self.alpha) * x) / math.pi + 0.5


class PiecewiseQuadratic(_Alpha):
    """Triangle (Esser et al. 2016; Bellec et al. 2018): ``g'(x) = α - α²|x|`` where ``|x| <= 1/α``, else 0.

    The primitive is ``-α²/2 |x| x + αx + 1/2`` inside that window, 0 to its left and 1 to its right.

    Args:
        alpha: height of the triangle and inverse of half its base, default 1.
        spiking: see :class:`SurrogateFunction`.
    """

    def __init__(self, alpha: float = 1.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)

    def gradient(self, x: Tensor) -> Tensor:
        return (self.alpha - self.alpha * self.alpha * x.abs()).clamp(min=0.0)

    def primitive(self, x: Tensor) -> Tensor:
        inside = x.clamp(-1.0 / self.alpha, 1.0 / self.alpha)
        return (self.alpha - self.alpha * self.alpha / 2 * inside.abs()) * inside + 0.5


class Rect(_Alpha):
    """Rectangle of area 1 (Wu et al. 2018): ``g'(x) = α`` where ``|x| < 1/(2α)``, else 0; ``g`` is the clamped ramp.

    Args:
        alpha: height of the rectangle and inverse of its width, default 1.
        spiking: see :class:`SurrogateFunction`.
    """

    def __init__(self, alpha: float = 1.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)

    def gradient(self, x: Tensor) -> Tensor:
        return self.alpha * (x.abs() < 0.5 / self.alpha).to(x.dtype)

    def primitive(self, x: Tensor) -> Tensor:
        return (self.alpha * x + 0.5).clamp(0.0, 1.0)


class DeterministicPass(SurrogateFunction):
    """Straight-through estimator (Bengio, Léonard and Courville 2013): ``g'(x) = 1``; primitive ``g(x) = x``."""

    def gradient(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)

    def primitive(self, x: Tensor) -> Tensor:
        return x
