"""Encoders as functions: values ``[N, *]`` to a spike train ``[T, N, *]``, nothing remembered."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from jellyfit.errors import InputError

__all__ = ["gaussian_tuning_encode", "latency_encode", "poisson_encode", "weighted_phase_encode"]


def check_floating(what: str, x: Tensor) -> None:
    """Refuse what is not floating-point, by name of who was given it."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        given = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise InputError(
            f"{what}: got {given}; expected floating-point values in [0, 1]. Use x.float() / 255 for 8-bit images."
        )


def check_range(what: str, x: Tensor, high: float = 1.0, advice: str = "") -> None:
    """Refuse NaN and what is not between 0 and ``high``."""
    check_floating(what, x)
    if x.numel() and not bool(((x >= 0) & (x <= high)).all()):
        detail = "NaN" if bool(x.isnan().any()) else f"values from {x.min().item():g} to {x.max().item():g}"
        raise InputError(f"{what}: got {detail}; expected values in [0, {high:g}]. {advice or 'Rescale the input.'}")


def check_steps(what: str, steps: int, least: int = 1) -> None:
    """Refuse a number of time steps that is none."""
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < least:
        raise InputError(f"{what}={steps!r}: expected a whole number of at least {least}.")


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _spikes_at(times: Tensor, T: int) -> Tensor:
    """Boolean ``[T, *]``: True where the time step is that of ``times`` ``[*]``."""
    steps = torch.arange(T, device=times.device, dtype=times.dtype)
    return steps.view(-1, *(1 for _ in times.shape)) == times


def poisson_encode(x: Tensor, T: int | None = None, generator: torch.Generator | None = None) -> Tensor:
    """Rate code: a spike with probability ``x`` at every step, ``s = [u <= x]`` with ``u`` uniform in [0, 1).

    Values below 0 never spike, values of 1 and more always do. No gradient flows to ``x``.

    Args:
        x: any shape, floating-point.
        T: time steps; default ``None``: one draw for each value of ``x``, in its shape.
        generator: source of the random numbers, for draws that can be repeated; default torch's own.

    Returns:
        Spikes ``[T, *]``, or of the shape of ``x``.

    Raises:
        InputError: ``x`` is not floating-point or holds NaN (looked for on the CPU alone; elsewhere NaN never spikes),
            or ``T`` is no whole number above 0.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> functional.poisson_encode(torch.tensor([[0.0, 1.0]]), T=2, generator=torch.Generator().manual_seed(0))
        tensor([[[0., 1.]],
        <BLANKLINE>
                [[0., 1.]]])
    """
    if T is not None:
        check_steps("poisson_encode: T", T)
    return poisson_spikes("poisson_encode", x, x.shape if T is None else torch.Size((T, *x.shape)), generator)


def poisson_spikes(what: str, x: Tensor, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
    """The draws of :func:`poisson_encode`, by name of who was given ``x``."""
    check_floating(what, x)
    if x.device.type == "cpu" and not torch.compiler.is_compiling() and bool(x.isnan().any()):
        raise InputError(f"{what}: got NaN; expected values in [0, 1].")
    dtype = torch.promote_types(x.dtype, torch.float32)  # draws of 16 bits would be 0, and so fire, too often
    draws = torch.rand(shape, generator=generator, dtype=dtype, device=x.device)
    return (draws <= x).to(x.dtype)


def latency_encode(x: Tensor, T: int, enc_function: Literal["linear", "log"] = "linear") -> Tensor:
    """Time code: one spike a value, the earlier the larger it is.

    ``"linear"``: at step ``round((T - 1) (1 - x))``. ``"log"``: at step ``round(T - 1 - ln(αx + 1))`` with
    ``α = exp(T - 1) - 1``. Halves are rounded to even; 1 spikes at step 0, 0 at the last one.

    Args:
        x: values in [0, 1], ``[N, *]``.
        T: time steps.
        enc_function: ``"linear"`` (default) or ``"log"``.

    Returns:
        Spikes ``[T, N, *]``.

    Raises:
        InputError: NaN or values outside [0, 1], ``T`` below 1, or an unknown function.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> functional.latency_encode(torch.tensor([0.0, 0.5, 1.0]), T=5).argmax(0)
        tensor([4, 2, 0])
    """
    check_steps("latency_encode: T", T)
    check_range("latency_encode", x)
    values = _wide(x.detach())
    if enc_function == "linear":
        times = (T - 1) * (1.0 - values)
    elif enc_function == "log":
        values = values.double()  # ln(αx + 1) from ln(αx + x) and ln(1 - x): α itself overflows for many steps
        times = T - 1 - torch.logaddexp(values.log() + (T - 1), torch.log1p(-values))
    else:
        raise InputError(f"latency_encode(enc_function={enc_function!r}): expected 'linear' or 'log'.")
    return _spikes_at(times.round(), T).to(x.dtype)


def weighted_phase_encode(x: Tensor, K: int) -> Tensor:
    """Binary code: step ``k = 1 .. K`` is the ``k``-th binary digit of ``x``, of weight ``2^-k``.

    Args:
        x: values in ``[0, 1 - 2^-K]``, ``[N, *]``.
        K: digits, and so time steps.

    Returns:
        Spikes ``[K, N, *]``, with ``Σ_k 2^-k s_k = x`` but for what is below ``2^-K``.

    Raises:
        InputError: NaN or values outside the range, or ``K`` below 1.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> functional.weighted_phase_encode(torch.tensor([0.625]), K=3).flatten()
        tensor([1., 0., 1.])

    Source: Kim et al., "Deep neural networks with weighted spikes", Neurocomputing 311 (2018).
    """
    check_steps("weighted_phase_encode: K", K)
    high = 1.0 - 2.0**-K
    check_range("weighted_phase_encode", x, high, f"Scale the input by 1 - 2^-K: x * {high:g}.")
    powers = 2.0 ** torch.arange(1, K + 1, device=x.device, dtype=_wide(x).dtype)
    digits = (_wide(x.detach()) * powers.view(-1, *(1 for _ in x.shape))).floor() % 2.0
    return digits.to(x.dtype)


def gaussian_tuning_encode(
    x: Tensor, n: int, T: int, x_min: float | Tensor = 0.0, x_max: float | Tensor = 1.0, beta: float = 1.5
) -> Tensor:
    """Population time code: ``n`` neurons a value, with overlapping bell curves; the nearer a centre, the earlier.

    With ``Δ = x_max - x_min``, neuron ``i = 1 .. n`` has centre ``μ_i = x_min + (2i - 3)/2 · Δ/(n - 2)``, width
    ``σ = Δ / (β (n - 2))`` and activation ``a_i = exp(-(x - μ_i)² / (2σ²))``. It spikes at step
    ``round((T - 1)(1 - a_i))``, and not at all where that is the last step.

    Args:
        x: values ``[N, *]``.
        n: neurons a value, above 2.
        T: time steps, at least 2.
        x_min: least value: a number, or one for every feature as a tensor that broadcasts to ``[N, *]``.
        x_max: largest value, likewise.
        beta: overlap of the curves, default 1.5: larger is narrower.

    Returns:
        Spikes ``[T, N, *, n]``.

    Raises:
        InputError: NaN or values outside the range, an empty range, or ``n``, ``T`` or ``beta`` too small.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> spikes = functional.gaussian_tuning_encode(torch.tensor([[0.5]]), n=5, T=4)
        >>> spikes[0].flatten()
        tensor([0., 0., 1., 0., 0.])

    Source: Bohté, Kok and La Poutré, "Error-backpropagation in temporally encoded networks of spiking neurons",
    Neurocomputing 48 (2002).
    """
    check_steps("gaussian_tuning_encode: n", n, least=3)
    check_steps("gaussian_tuning_encode: T", T, least=2)
    check_floating("gaussian_tuning_encode", x)
    if not beta > 0:
        raise InputError(f"gaussian_tuning_encode(beta={beta!r}): expected a number above 0.")
    values = _wide(x.detach())
    low, high = (torch.as_tensor(end, dtype=values.dtype, device=x.device) for end in (x_min, x_max))
    if not bool((high > low).all()):
        raise InputError(f"gaussian_tuning_encode(x_min={x_min!r}, x_max={x_max!r}): expected x_max above x_min.")
    if x.numel() and not bool(((values >= low) & (values <= high)).all()):
        raise InputError(
            f"gaussian_tuning_encode: got {'NaN' if bool(values.isnan().any()) else 'values outside the range'}; "
            f"expected values from x_min={x_min!r} to x_max={x_max!r}."
        )
    spacing = ((high - low) / (n - 2)).unsqueeze(-1)
    centres = low.unsqueeze(-1) + (torch.arange(1, n + 1, device=x.device, dtype=values.dtype) - 1.5) * spacing
    distance = (values.unsqueeze(-1) - centres) * (beta / spacing)
    times = ((T - 1) * (1.0 - torch.exp(-0.5 * distance.square()))).round()
    spikes = _spikes_at(times, T)
    spikes[-1] = False
    return spikes.to(x.dtype)
