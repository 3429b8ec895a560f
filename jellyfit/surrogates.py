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

Names, defaults and formulas are SpikingJelly's (Fang et al., Science Advances 9, 2023); papers are named where a class
has one of its own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from jellyfit.errors import ConfigError, InputError
from jellyfit.rng import Drawing

__all__ = [
    "S2NN",
    "ATan",
    "DeterministicPass",
    "Erf",
    "FakeNumericalGradient",
    "LeakyKReLU",
    "LogTailedReLU",
    "MultiLevelSpikeCount",
    "NonzeroSignLogAbs",
    "PiecewiseExp",
    "PiecewiseLeakyReLU",
    "PiecewiseQuadratic",
    "PoissonPass",
    "QPseudoSpike",
    "Rect",
    "Sigmoid",
    "SoftSign",
    "SquarewaveFourierSeries",
    "SuperSpike",
    "SurrogateFunction",
    "heaviside",
]


def heaviside(x: Tensor) -> Tensor:
    """Heaviside's step Θ(x): 1 where ``x >= 0``, else 0 (also for NaN), in the shape and dtype of ``x``.

    Args:
        x: any shape, floating-point.

    Examples:
        >>> import torch
        >>> from jellyfit.surrogates import heaviside
        >>> heaviside(torch.tensor([-0.1, 0.0, 0.1]))
        tensor([0., 1., 1.])
    """
    return (x >= 0).to(x.dtype)


class _Spike(torch.autograd.Function):
    """The surrogate's spikes forward; its gradient backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, surrogate: SurrogateFunction) -> Tensor:
        return surrogate.spike(x)

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

    Examples:
        >>> import torch
        >>> from jellyfit.surrogates import SurrogateFunction
        >>> class Triangle(SurrogateFunction):
        ...     def gradient(self, x):
        ...         return (1.0 - x.abs()).clamp(min=0.0)
        >>> x = torch.tensor([-0.5, 0.0, 2.0], requires_grad=True)
        >>> spikes = Triangle()(x)
        >>> spikes.sum().backward()
        >>> spikes.tolist(), x.grad.tolist()
        ([0.0, 1.0, 1.0], [0.5, 1.0, 0.0])
    """

    shown: ClassVar[tuple[str, ...]] = ()
    """Names of the parameters that ``repr`` tells."""

    def __init__(self, spiking: bool = True) -> None:
        super().__init__()
        self.spiking = spiking
        if not spiking and type(self).primitive is SurrogateFunction.primitive:
            raise ConfigError(
                f"{type(self).__name__}(spiking=False): this surrogate defines no primitive to output instead of "
                "spikes. Use spiking=True, or a surrogate with a primitive() such as Sigmoid or ATan."
            )

    def spike(self, x: Tensor) -> Tensor:
        """The forward pass, undifferentiated: Θ(x) unless a subclass writes another one; same shape as ``x``."""
        return heaviside(x)

    def gradient(self, x: Tensor) -> Tensor:
        """What stands in for Θ'(x) in the backward pass; same shape as ``x``. Subclasses write it."""
        raise TypeError(f"{type(self).__name__} must define gradient(self, x): the surrogate of the step's derivative")

    def primitive(self, x: Tensor) -> Tensor:
        """The smooth function whose derivative is :meth:`gradient`, where one is known; same shape as ``x``."""
        raise ConfigError(f"{type(self).__name__} has no primitive; keep spiking=True")

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of ``x = h - v_threshold``, or the primitive when ``spiking`` is ``False``."""
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
        parts = [f"{name}={getattr(self, name):g}" for name in self.shown]
        return ", ".join(parts if self.spiking else [*parts, "spiking=False"])

    def _number(self, name: str, value: Any, meaning: str, above: float = -math.inf) -> float:
        """``value`` as a finite float above a bound."""
        if (
            not isinstance(value, (int, float))
            or isinstance(value, bool)
            or not math.isfinite(value)
            or not value > above
        ):
            bound = "" if above == -math.inf else f" above {above:g}"
            raise InputError(
                f"{type(self).__name__}({name}={value!r}): {name} is {meaning} and must be a finite number{bound}."
            )
        return float(value)


class _Alpha(SurrogateFunction):
    """A surrogate with one positive parameter, its steepness ``alpha``."""

    shown: ClassVar[tuple[str, ...]] = ("alpha",)

    def __init__(self, alpha: float, spiking: bool = True) -> None:
        super().__init__(spiking)
        self.alpha = self._number("alpha", alpha, "the steepness of the surrogate gradient", above=0.0)


def _two_tails(x: Tensor, tail: Callable[[Tensor], Tensor]) -> Tensor:
    """A symmetric step from 0 to 1: ``tail(|x|)`` left of 0 and ``1 - tail(|x|)`` from there on; ``tail(0) = 1/2``.

    Clamps instead of ``abs`` keep autograd's derivative at 0.
    """
    return torch.where(x < 0, tail(-x.clamp(max=0.0)), 1.0 - tail(x.clamp(min=0.0)))


class PiecewiseQuadratic(_Alpha):
    """Triangle: ``g'(x) = α - α²|x|`` where ``|x| <= 1/α``, else 0.

    The primitive is ``-α²/2 |x| x + αx + 1/2`` inside that window, 0 to its left and 1 to its right.

    Args:
        alpha: height of the triangle and inverse of half its base, default 1.
        spiking: see :class:`SurrogateFunction`.

    Raises:
        InputError: ``alpha`` is not a finite number above 0.

    Examples:
        >>> import torch
        >>> from jellyfit import surrogates
        >>> x = torch.tensor([-0.5, 0.0, 2.0], requires_grad=True)
        >>> surrogates.PiecewiseQuadratic()(x).sum().backward()
        >>> x.grad
        tensor([0.5000, 1.0000, 0.0000])

    Source: Esser et al., "Convolutional networks for fast, energy-efficient neuromorphic computing", PNAS 113 (2016);
    Bellec et al., "Long short-term memory and learning-to-learn in networks of spiking neurons", NeurIPS 2018.
    """

    def __init__(self, alpha: float = 1.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)

    def gradient(self, x: Tensor) -> Tensor:
        return (self.alpha - self.alpha * self.alpha * x.abs()).clamp(min=0.0)

    def primitive(self, x: Tensor) -> Tensor:
        inside = x.clamp(-1.0 / self.alpha, 1.0 / self.alpha)
        return (self.alpha - self.alpha * self.alpha / 2 * inside.abs()) * inside + 0.5


class PiecewiseExp(_Alpha):
    """Two-sided exponential: ``g'(x) = α/2 exp(-α|x|)``; ``g(x) = 1/2 exp(αx)`` below 0, mirrored above.

    Args:
        alpha: steepness, default 1.
        spiking: see :class:`SurrogateFunction`.

    Raises:
        InputError: ``alpha`` is not a finite number above 0.

    Examples:
        >>> import torch
        >>> from jellyfit import surrogates
        >>> x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
        >>> surrogates.PiecewiseExp()(x).sum().backward()
        >>> x.grad
        tensor([0.1839, 0.5000, 0.1839])

    Source: Shrestha and Orchard, "SLAYER: spike layer error reassignment in time", NeurIPS 2018.
    """

    def __init__(self, alpha: float = 1.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)

    def gradient(self, x: Tensor) -> Tensor:
        return self.alpha / 2 * torch.exp(-self.alpha * x.abs())

    def primitive(self, x: Tensor) -> Tensor:
        return _two_tails(x, lambda distance: 0.5 * torch.exp(-self.alpha * distance))


class Sigmoid(_Alpha):
    """Derivative of the logistic function: ``g'(x) = α σ(αx) (1 - σ(αx))``; primitive ``g(x) = σ(αx)``.

    Args:
        alpha: steepness, default 4.
        spiking: see :class:`SurrogateFunction`.

    Raises:
        InputError: ``alpha`` is not a finite number above 0.

    Examples:
        >>> import torch
        >>> from jellyfit import surrogates
        >>> x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
        >>> surrogates.Sigmoid()(x).sum().backward()
        >>> x.grad
        tensor([0.0707, 1.0000, 0.0707])

    Source: Neftci, Mostafa and Zenke, "Surrogate gradient learning in spiking neural networks", IEEE Signal Processing
    Magazine 36 (2019).
    """

    def __init__(self, alpha: float = 4.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)

    def gradient(self, x: Tensor) -> Tensor:
        s = Sigmoid.primitive(self, x)  # a subclass may have another one
        return self.alpha * s * (1.0 - s)

    def primitive(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.alpha * x)


class SoftSign(_Alpha):
    """Derivative of the soft sign: ``g'(x) = α / (2 (1 + |αx|)²)``; ``g(x) = (αx / (1 + |αx|) + 1) / 2``.

    Args:
        alpha: steepness, default 2.
        spiking: see :class:`SurrogateFunction`.

    Raises:
        InputError: ``alpha`` is not a finite number above 0.

    Examples:
        >>> import torch
        >>> from jellyfit import surrogates
        >>> x = torch.tensor([-0.5, 0.0, 0.5], requires_grad=True)
        >>> surrogates.SoftSign()(x).sum().backward()
        >>> x.grad
        tensor([0.2500, 1.0000, 0.2500])
    """

    def __init__(self, alpha: float = 2.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)

    def gradient(self, x: Tensor) -> Tensor:
        scale = 1.0 + (self.alpha * x).abs()
        return (self.alpha / 2) / (scale * scale)

    def primitive(self, x: Tensor) -> Tensor:
        scaled = self.alpha * x
        return 0.5 * (scaled / (1.0 + scaled.abs())) + 0.5


class SuperSpike(_Alpha):
    """Fast sigmoid's derivative: ``g'(x) = α / (1 + |x|)²``; no primitive.

    Args:
        alpha: height, default 1.
        spiking: see :class:`SurrogateFunction`.

    Raises:
        InputError: ``alpha`` is not a finite number above 0.
        ConfigError: ``spiking=False``: there is no primitive.

    Examples:
        >>> import torch
        >>> from jellyfit import surrogates
        >>> x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
        >>> surrogates.SuperSpike()(x).sum().backward()
        >>> x.grad
        tensor([0.2500, 1.0000, 0.2500])

    Source: Zenke and Ganguli, "SuperSpike: supervised learning in multilayer spiking neural networks", Neural
    Computation 30 (2018).
    """

    def __init__(self, alpha: float = 1.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)

    def gradient(self, x: Tensor) -> Tensor:
        scale = 1.0 + x.abs()
        return self.alpha / (scale * scale)


class ATan(_Alpha):
    """Arc tangent's derivative: ``g'(x) = (α/2) / (1 + (π/2 αx)²)``; ``g(x) = arctan(π/2 αx)/π + 1/2``.

    Args:
        alpha: steepness, default 2.
        spiking: see :class:`SurrogateFunction`.

    Raises:
        InputError: ``alpha`` is not a finite number above 0.

    Examples:
        >>> import torch
        >>> from jellyfit import surrogates
        >>> x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
        >>> surrogates.ATan()(x).sum().backward()
        >>> x.grad
        tensor([0.0920, 1.0000, 0.0920])

    Source: Fang et al., "Incorporating learnable membrane time constant to enhance learning of spiking neural
    networks", ICCV 2021.
    """

    def __init__(self, alpha: float = 2.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)

    def gradient(self, x: Tensor) -> Tensor:
        scaled = (math.pi / 2 * self.alpha) * x
        return (self.alpha / 2) / (1.0 + scaled * scaled)

    def primitive(self, x: Tensor) -> Tensor:
        return torch.atan((math.pi / 2 * self.alpha) * x) / math.pi + 0.5


class NonzeroSignLogAbs(_Alpha):
    """Long tails: ``g'(x) = α / (1 + |αx|)``; primitive ``g(x) = sign(x) ln(1 + |αx|)``, unbounded.

    Args:
        alpha: steepness, default 1.
        spiking: see :class:`SurrogateFunction`.

    Raises:
        InputError: ``alpha`` is not a finite number above 0.

    Examples:
        >>> import torch
        >>> from jellyfit import surrogates
        >>> x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
        >>> surrogates.NonzeroSignLogAbs()(x).sum().backward()
        >>> x.grad
        tensor([0.5000, 1.0000, 0.5000])
    """

    def __init__(self, alpha: float = 1.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)

    def gradient(self, x: Tensor) -> Tensor:
        return self.alpha / (1.0 + (self.alpha * x).abs())

    def primitive(self, x: Tensor) -> Tensor:
        scaled = self.alpha * x
        return torch.where(scaled < 0, -torch.log1p(-scaled.clamp(max=0.0)), torch.log1p(scaled.clamp(min=0.0)))


class Erf(_Alpha):
    """Gaussian: ``g'(x) = α/√π exp(-α²x²)``; primitive ``g(x) = (1 + erf(αx)) / 2``.

    Args:
        alpha: steepness, default 2.
        spiking: see :class:`SurrogateFunction`.

    Raises:
        InputError: ``alpha`` is not a finite number above 0.

    Examples:
        >>> import torch
        >>> from jellyfit import surrogates
        >>> x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
        >>> surrogates.Erf()(x).sum().backward()
        >>> x.grad
        tensor([0.0207, 1.1284, 0.0207])

    Source: Yin, Corradi and Bohté, "Effective and efficient computation with multiple-timescale spiking recurrent
    neural networks", ICONS 2020.
    """

    def __init__(self, alpha: float = 2.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)

    def gradient(self, x: Tensor) -> Tensor:
        scaled = self.alpha * x
        return (self.alpha / math.sqrt(math.pi)) * torch.exp(-(scaled * scaled))

    def primitive(self, x: Tensor) -> Tensor:
        return 0.5 * torch.erf(self.alpha * x) + 0.5


class PiecewiseLeakyReLU(SurrogateFunction):
    """Rectangle with a floor: ``g'(x) = 1/(2w)`` where ``|x| < w``, else ``c``; ``g`` is its integral.

    The primitive is ``x/(2w) + 1/2`` inside the window; outside it goes on with slope ``c``.

    Args:
        w: half the width of the window, above 0, default 1.
        c: gradient outside, default 0.01.
        spiking: see :class:`SurrogateFunction`.

    Raises:
        InputError: ``w`` is not above 0.

    Examples:
        >>> import torch
        >>> from jellyfit import surrogates
        >>> x = torch.tensor([-0.5, 0.0, 2.0], requires_grad=True)
        >>> surrogates.PiecewiseLeakyReLU()(x).sum().backward()
        >>> x.grad
        tensor([0.5000, 0.5000, 0.0100])
    """

    shown = ("w", "c")

    def __init__(self, w: float = 1.0, c: float = 0.01, spiking: bool = True) -> None:
        super().__init__(spiking)
        self.w = self._number("w", w, "half the width of the window", above=0.0)
        self.c = self._number("c", c, "the gradient outside the window")

    def gradient(self, x: Tensor) -> Tensor:
        return torch.full_like(x, self.c).masked_fill(x.abs() < self.w, 0.5 / self.w)

    def primitive(self, x: Tensor) -> Tensor:
        inside = x.clamp(-self.w, self.w)
        return inside * (0.5 / self.w) + 0.5 + self.c * (x - inside)


class SquarewaveFourierSeries(SurrogateFunction):
    """Derivative of a square wave's Fourier series: ``g'(x) = 4/T Σ_i cos((2i-1) 2πx/T)``.

    The sum runs over ``i = 1 .. n - 1``, as in SpikingJelly: ``n = 2`` is one term. The primitive is
    ``1/2 + 2/π Σ_i sin((2i-1) 2πx/T) / (2i-1)``.

    Args:
        n: one more than the number of terms, at least 2, default 2.
        T_period: period of the wave, above 0, default 8.
        spiking: see :class:`SurrogateFunction`.

    Raises:
        InputError: ``n`` is below 2 or ``T_period`` not above 0.

    Examples:
        >>> import torch
        >>> from jellyfit import surrogates
        >>> x = torch.tensor([-4.0, 0.0, 4.0], requires_grad=True)
        >>> surrogates.SquarewaveFourierSeries()(x).sum().backward()
        >>> x.grad
        tensor([-0.5000,  0.5000, -0.5000])
    """

    shown = ("n", "T_period")

    def __init__(self, n: int = 2, T_period: float = 8.0, spiking: bool = True) -> None:
        super().__init__(spiking)
        if not isinstance(n, int) or isinstance(n, bool) or n < 2:
            raise InputError(
                f"SquarewaveFourierSeries(n={n!r}): the series has n - 1 terms; expected a whole number of at least 2."
            )
        self.n = n
        self.T_period = self._number("T_period", T_period, "the period of the wave", above=0.0)

    def _terms(self) -> list[tuple[int, float]]:
        """Odd numbers, each with the angular frequency that belongs to it."""
        return [(k, k * 2 * math.pi / self.T_period) for k in range(1, 2 * self.n - 2, 2)]

    def gradient(self, x: Tensor) -> Tensor:
        waves = [torch.cos(frequency * x) for _, frequency in self._terms()]
        return (4.0 / self.T_period) * functools.reduce(torch.add, waves)

    def primitive(self, x: Tensor) -> Tensor:
        waves = [torch.sin(frequency * x) * (1.0 / k) for k, frequency in self._terms()]
        return (2.0 / math.pi) * functools.reduce(torch.add, waves) + 0.5


class S2NN(Sigmoid):
    """Logistic below 0, logarithm above: ``g'(x) = α σ(αx) (1 - σ(αx))``, from 0 on ``β / (x + 1)``.

    The primitive is ``σ(αx)`` below 0 and ``β ln(x + 1) + 1/2`` from 0 on.

    Args:
        alpha: steepness below 0, default 4.
        beta: gradient at 0, default 1.
        spiking: see :class:`SurrogateFunction`.

    Raises:
        InputError: ``alpha`` or ``beta`` is not above 0.

    Examples:
        >>> import torch
        >>> from jellyfit import surrogates
        >>> x = torch.tensor([0.0, 1.0, 3.0], requires_grad=True)
        >>> surrogates.S2NN()(x).sum().backward()
        >>> x.grad
        tensor([1.0000, 0.5000, 0.2500])

    Source: Suetake et al., "S2NN: time step reduction of spiking surrogate gradients for training energy efficient
    single-step neural networks", arXiv:2201.10879 (2022).
    """

    shown = ("alpha", "beta")

    def __init__(self, alpha: float = 4.0, beta: float = 1.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)
        self.beta = self._number("beta", beta, "the gradient at 0", above=0.0)

    def gradient(self, x: Tensor) -> Tensor:
        return torch.where(x < 0, super().gradient(x), self.beta / (x.clamp(min=0.0) + 1.0))

    def primitive(self, x: Tensor) -> Tensor:
        return torch.where(x < 0, super().primitive(x), self.beta * torch.log1p(x.clamp(min=0.0)) + 0.5)


class QPseudoSpike(_Alpha):
    """Tails that fall as a power: ``g'(x) = (1 + 2|x|/(α-1))^(-α)``.

    The primitive is ``(1 - 2x/(α-1))^(1-α) / 2`` below 0, mirrored above.

    Args:
        alpha: exponent of the tails, above 1, default 2.
        spiking: see :class:`SurrogateFunction`.

    Raises:
        InputError: ``alpha`` is not above 1.

    Examples:
        >>> import torch
        >>> from jellyfit import surrogates
        >>> x = torch.tensor([-0.5, 0.0, 0.5], requires_grad=True)
        >>> surrogates.QPseudoSpike()(x).sum().backward()
        >>> x.grad
        tensor([0.2500, 1.0000, 0.2500])

    Source: Herranz-Celotti and Rouat, "Stabilizing spiking neuron training", arXiv:2202.00282 (2022).
    """

    def __init__(self, alpha: float = 2.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)
        self._number("alpha", alpha, "the exponent of the tails", above=1.0)

    def gradient(self, x: Tensor) -> Tensor:
        return self._base(x.abs()) ** -self.alpha

    def primitive(self, x: Tensor) -> Tensor:
        return _two_tails(x, lambda distance: 0.5 * self._base(distance) ** (1.0 - self.alpha))

    def _base(self, distance: Tensor) -> Tensor:
        return 1.0 + (2.0 / (self.alpha - 1.0)) * distance


class LeakyKReLU(SurrogateFunction):
    """Leaky rectifier: ``g'(x) = k`` where ``x >= 0``, else ``leak``; primitive ``g(x) = x g'(x)``.

    Args:
        leak: gradient below 0, default 0.
        k: gradient from 0 on, default 1.
        spiking: see :class:`SurrogateFunction`.

    Raises:
        InputError: ``leak`` or ``k`` is not a finite number.

    Examples:
        >>> import torch
        >>> from jellyfit import surrogates
        >>> x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
        >>> surrogates.LeakyKReLU()(x).sum().backward()
        >>> x.grad
        tensor([0., 1., 1.])
    """

    shown = ("leak", "k")

    def __init__(self, leak: float = 0.0, k: float = 1.0, spiking: bool = True) -> None:
        super().__init__(spiking)
        self.leak = self._number("leak", leak, "the gradient below 0")
        self.k = self._number("k", k, "the gradient from 0 on")

    def gradient(self, x: Tensor) -> Tensor:
        return torch.full_like(x, self.leak).masked_fill(x >= 0, self.k)

    def primitive(self, x: Tensor) -> Tensor:
        return torch.where(x >= 0, self.k * x, self.leak * x)


class FakeNumericalGradient(_Alpha):
    """Difference quotient of the step seen from 0: ``g'(x) = min(1/|x|, α)``; no primitive.

    Args:
        alpha: largest gradient, default 0.3.

    Raises:
        InputError: ``alpha`` is not a finite number above 0.

    Examples:
        >>> import torch
        >>> from jellyfit import surrogates
        >>> x = torch.tensor([-1.0, 0.0, 4.0], requires_grad=True)
        >>> surrogates.FakeNumericalGradient()(x).sum().backward()
        >>> x.grad
        tensor([0.3000, 0.3000, 0.2500])
    """

    def __init__(self, alpha: float = 0.3) -> None:
        super().__init__(alpha)

    def gradient(self, x: Tensor) -> Tensor:
        return torch.reciprocal(x.abs()).clamp(max=self.alpha)


class LogTailedReLU(SurrogateFunction):
    """Rectifier with a logarithmic tail: ``g'(x) = α`` up to 0, 1 up to 1, then ``1/x``.

    The primitive is ``αx`` up to 0, ``x`` up to 1 and ``ln(x) + 1`` beyond.

    Args:
        alpha: gradient below 0, default 0.
        spiking: see :class:`SurrogateFunction`.

    Raises:
        InputError: ``alpha`` is not a finite number.

    Examples:
        >>> import torch
        >>> from jellyfit import surrogates
        >>> x = torch.tensor([0.0, 0.5, 2.0], requires_grad=True)
        >>> surrogates.LogTailedReLU()(x).sum().backward()
        >>> x.grad
        tensor([0.0000, 1.0000, 0.5000])

    Source: Cai et al., "Deep learning with low precision by half-wave Gaussian quantization", CVPR 2017.
    """

    shown = ("alpha",)

    def __init__(self, alpha: float = 0.0, spiking: bool = True) -> None:
        super().__init__(spiking)
        self.alpha = self._number("alpha", alpha, "the gradient below 0")

    def gradient(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, torch.reciprocal(x.clamp(min=1.0)), self.alpha)

    def primitive(self, x: Tensor) -> Tensor:
        rectified = torch.where(x > 0, x, self.alpha * x)
        return torch.where(x > 1, torch.log(x.clamp(min=1.0)) + 1.0, rectified)


class Rect(_Alpha):
    """Rectangle of area 1: ``g'(x) = α`` where ``|x| < 1/(2α)``, else 0; ``g`` is the clamped ramp.

    Args:
        alpha: height of the rectangle and inverse of its width, default 1.
        spiking: see :class:`SurrogateFunction`.

    Raises:
        InputError: ``alpha`` is not a finite number above 0.

    Examples:
        >>> import torch
        >>> from jellyfit import surrogates
        >>> x = torch.tensor([-1.0, 0.0, 0.25], requires_grad=True)
        >>> surrogates.Rect()(x).sum().backward()
        >>> x.grad
        tensor([0., 1., 1.])

    Source: Wu et al., "Spatio-temporal backpropagation for training high-performance spiking neural networks",
    Frontiers in Neuroscience 12 (2018).
    """

    def __init__(self, alpha: float = 1.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)

    def gradient(self, x: Tensor) -> Tensor:
        return self.alpha * (x.abs() < 0.5 / self.alpha).to(x.dtype)

    def primitive(self, x: Tensor) -> Tensor:
        return (self.alpha * x + 0.5).clamp(0.0, 1.0)


class DeterministicPass(SurrogateFunction):
    """Straight-through estimator: ``g'(x) = 1``; primitive ``g(x) = x``.

    Args:
        spiking: see :class:`SurrogateFunction`.

    Examples:
        >>> import torch
        >>> from jellyfit import surrogates
        >>> x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
        >>> surrogates.DeterministicPass()(x).sum().backward()
        >>> x.grad
        tensor([1., 1., 1.])

    Source: Bengio, Léonard and Courville, "Estimating or propagating gradients through stochastic neurons for
    conditional computation", arXiv:1308.3432 (2013).
    """

    def gradient(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)

    def primitive(self, x: Tensor) -> Tensor:
        return x


class PoissonPass(Drawing, DeterministicPass):
    """Random spikes, straight through: 1 with probability ``x``; ``g'(x) = 1``; primitive ``g(x) = x``.

    Below 0 (and for NaN) it never spikes, above 1 always. Random numbers do not fuse: a neuron with it runs in eager
    PyTorch.

    Args:
        spiking: see :class:`SurrogateFunction`.
        generator: source of the random numbers; default torch's own.

    Examples:
        >>> import torch
        >>> from jellyfit import surrogates
        >>> x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
        >>> spikes = surrogates.PoissonPass()(x)
        >>> spikes.sum().backward()
        >>> spikes.tolist(), x.grad.tolist()
        ([0.0, 0.0, 1.0], [1.0, 1.0, 1.0])
    """

    def __init__(self, spiking: bool = True, generator: torch.Generator | None = None) -> None:
        super().__init__(spiking)
        self.generator = generator

    def spike(self, x: Tensor) -> Tensor:
        return torch.bernoulli(torch.where(x > 0, x, 0.0).clamp(max=1.0), generator=self.generator)


class MultiLevelSpikeCount(SurrogateFunction):
    """Counts instead of single spikes: ``round(x)`` in ``0 .. D``; ``g'(x) = 1`` in the window, else 0.

    Halves are rounded to even. The primitive is ``x`` clamped to ``[0, D]``.

    Args:
        max_spike_count: largest count ``D``, at least 1, default 4.
        spiking: see :class:`SurrogateFunction`.
        grad_window: both ends of the window in which the gradient is 1, included; default ``(0, D)``.

    Raises:
        InputError: ``max_spike_count`` is no whole number above 0, or the window is empty.

    Examples:
        >>> import torch
        >>> from jellyfit import surrogates
        >>> x = torch.tensor([-1.0, 1.5, 5.0], requires_grad=True)
        >>> counts = surrogates.MultiLevelSpikeCount(max_spike_count=4)(x)
        >>> counts.sum().backward()
        >>> counts.tolist(), x.grad.tolist()
        ([0.0, 2.0, 4.0], [0.0, 1.0, 0.0])

    Source: Luo et al., "Integer-valued training and spike-driven inference spiking neural network for high-performance
    and energy-efficient object detection", ECCV 2024.
    """

    shown = ("max_spike_count", "grad_min", "grad_max")

    def __init__(
        self, max_spike_count: int = 4, spiking: bool = True, grad_window: tuple[float, float] | None = None
    ) -> None:
        super().__init__(spiking)
        if not isinstance(max_spike_count, int) or isinstance(max_spike_count, bool) or max_spike_count < 1:
            raise InputError(
                f"MultiLevelSpikeCount(max_spike_count={max_spike_count!r}): expected a whole number of at least 1."
            )
        self.max_spike_count = max_spike_count
        window = (0.0, float(max_spike_count)) if grad_window is None else grad_window
        if not isinstance(window, (tuple, list)) or len(window) != 2:
            raise InputError(f"MultiLevelSpikeCount(grad_window={window!r}): expected two numbers, from and to.")
        self.grad_min = self._number("grad_window", window[0], "two ends, of which the lower")
        self.grad_max = self._number("grad_window", window[1], "two ends, of which the upper", above=self.grad_min)

    def spike(self, x: Tensor) -> Tensor:
        return x.round().clamp(0.0, float(self.max_spike_count))

    def gradient(self, x: Tensor) -> Tensor:
        return ((x >= self.grad_min) & (x <= self.grad_max)).to(x.dtype)

    def primitive(self, x: Tensor) -> Tensor:
        return x.clamp(0.0, float(self.max_spike_count))
