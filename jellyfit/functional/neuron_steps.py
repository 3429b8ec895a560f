"""Further neurons as functions, most of them one step at a time; see :mod:`jellyfit.functional.neuron`."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from jellyfit.errors import InputError
from jellyfit.functional.neuron import Steps, _multi_step, _single_step
from jellyfit.neurons import (
    ComplementaryLIFNode,
    CUBALIFNode,
    ILIFNode,
    KLIFNode,
    LIAFNode,
    RAFNode,
    TernaryIFNode,
    TernaryLIFNode,
)
from jellyfit.neurons.base import Value
from jellyfit.surrogates import SurrogateFunction

__all__ = [
    "clif_step",
    "cuba_lif_step",
    "ilif_multi_step",
    "ilif_step",
    "klif_step",
    "liaf_step",
    "raf_step",
    "ternary_if_step",
    "ternary_lif_step",
]


def ternary_if_step(
    x: Tensor,
    v: float | Tensor,
    v_threshold: Value,
    v_reset: Value | None,
    surrogate_function: SurrogateFunction | None,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of :class:`~jellyfit.neurons.TernaryIFNode`, as a function.

    Args:
        x: ``[N, *]``.
        v: potential before the step, ``[N, *]`` or a number.
        v_threshold: firing threshold.
        v_reset: potential after a spike; ``None``: soft reset.
        surrogate_function: see :mod:`jellyfit.surrogates`; ``None``: ``Sigmoid()``.
        detach_reset: let no gradient flow through the spike inside the reset; default ``False``.

    Returns:
        Spikes and the potential after the step, each ``[N, *]``.

    Raises:
        InputError: a state of another shape, or a parameter that makes no sense.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> x = torch.tensor([[0.5, 3.0]])
        >>> spike, v = functional.ternary_if_step(x, 0.0, 1.0, 0.0, None)
        >>> spike
        tensor([[0., 1.]])
    """
    settings = {
        "v_threshold": v_threshold,
        "v_reset": v_reset,
        "surrogate_function": surrogate_function,
        "detach_reset": detach_reset,
    }
    spike, after = _single_step("ternary_if_step", TernaryIFNode, x, {"v": v}, {}, settings)
    return spike, after["v"]


def ternary_lif_step(
    x: Tensor,
    v: float | Tensor,
    tau: Value,
    decay_input: bool,
    v_threshold: Value,
    v_reset: Value | None,
    surrogate_function: SurrogateFunction | None,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of :class:`~jellyfit.neurons.TernaryLIFNode`, as a function.

    Args:
        x: ``[N, *]``.
        v: potential before the step, ``[N, *]`` or a number.
        tau: membrane time constant in time steps, above 1.
        decay_input: whether the input is divided by the time constant as well.
        v_threshold: firing threshold.
        v_reset: potential after a spike; ``None``: soft reset.
        surrogate_function: see :mod:`jellyfit.surrogates`; ``None``: ``Sigmoid()``.
        detach_reset: let no gradient flow through the spike inside the reset; default ``False``.

    Returns:
        Spikes and the potential after the step, each ``[N, *]``.

    Raises:
        InputError: a state of another shape, or a parameter that makes no sense.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> x = torch.tensor([[0.5, 3.0]])
        >>> spike, v = functional.ternary_lif_step(x, 0.0, 2.0, True, 1.0, 0.0, None)
        >>> spike
        tensor([[0., 1.]])
    """
    settings = {
        "tau": tau,
        "decay_input": decay_input,
        "v_threshold": v_threshold,
        "v_reset": v_reset,
        "surrogate_function": surrogate_function,
        "detach_reset": detach_reset,
    }
    spike, after = _single_step("ternary_lif_step", TernaryLIFNode, x, {"v": v}, {}, settings)
    return spike, after["v"]


def klif_step(
    x: Tensor,
    v: float | Tensor,
    k: Tensor,
    tau: Value,
    decay_input: bool,
    scale_reset: bool,
    v_threshold: Value,
    v_reset: Value | None,
    surrogate_function: SurrogateFunction | None,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of :class:`~jellyfit.neurons.KLIFNode`, as a function.

    Args:
        x: ``[N, *]``.
        v: potential before the step, ``[N, *]`` or a number.
        k: scale of the charge, above 0; a scalar, or broadcast to one step.
        tau: membrane time constant in time steps, above 1.
        decay_input: whether the input is divided by the time constant as well.
        scale_reset: whether the reset acts on the potential divided by ``k``.
        v_threshold: firing threshold.
        v_reset: potential after a spike; ``None``: soft reset.
        surrogate_function: see :mod:`jellyfit.surrogates`; ``None``: ``Sigmoid()``.
        detach_reset: let no gradient flow through the spike inside the reset; default ``False``.

    Returns:
        Spikes and the potential after the step, each ``[N, *]``.

    Raises:
        InputError: a state of another shape, or a parameter that makes no sense.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> x = torch.tensor([[0.5, 3.0]])
        >>> spike, v = functional.klif_step(x, 0.0, torch.tensor(1.0), 2.0, True, False, 1.0, 0.0, None)
        >>> spike
        tensor([[0., 1.]])
    """
    if not bool((k > 0).all()):
        raise InputError(f"klif_step(k={k!r}): every value must be above 0.")
    settings = {
        "tau": tau,
        "decay_input": decay_input,
        "scale_reset": scale_reset,
        "v_threshold": v_threshold,
        "v_reset": v_reset,
        "surrogate_function": surrogate_function,
        "detach_reset": detach_reset,
    }
    spike, after = _single_step("klif_step", KLIFNode, x, {"v": v}, {"k": k}, settings)
    return spike, after["v"]


def liaf_step(
    x: Tensor,
    v: float | Tensor,
    tau: Value,
    decay_input: bool,
    v_threshold: Value,
    v_reset: Value | None,
    act: Callable[[Tensor], Tensor],
    threshold_related: bool,
    surrogate_function: SurrogateFunction | None,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of :class:`~jellyfit.neurons.LIAFNode`, as a function.

    Args:
        x: ``[N, *]``.
        v: potential before the step, ``[N, *]`` or a number.
        tau: membrane time constant in time steps, above 1.
        decay_input: whether the input is divided by the time constant as well.
        v_threshold: firing threshold.
        v_reset: potential after a spike; ``None``: soft reset.
        act: function of the potential that is put out.
        threshold_related: whether it takes the potential above the threshold instead.
        surrogate_function: see :mod:`jellyfit.surrogates`; ``None``: ``Sigmoid()``.
        detach_reset: let no gradient flow through the spike inside the reset; default ``False``.

    Returns:
        Activations and the potential after the step, each ``[N, *]``.

    Raises:
        InputError: a state of another shape, or a parameter that makes no sense.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> x = torch.tensor([[0.5, 3.0]])
        >>> spike, v = functional.liaf_step(x, 0.0, 2.0, True, 1.0, 0.0, torch.relu, False, None)
        >>> spike
        tensor([[0.2500, 1.5000]])
    """
    settings = {
        "tau": tau,
        "decay_input": decay_input,
        "v_threshold": v_threshold,
        "v_reset": v_reset,
        "act": act,
        "threshold_related": threshold_related,
        "surrogate_function": surrogate_function,
        "detach_reset": detach_reset,
    }
    spike, after = _single_step("liaf_step", LIAFNode, x, {"v": v}, {}, settings)
    return spike, after["v"]


def clif_step(
    x: Tensor,
    v: float | Tensor,
    m: float | Tensor,
    tau: Value,
    v_threshold: Value,
    spike_function: SurrogateFunction | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of :class:`~jellyfit.neurons.ComplementaryLIFNode`, as a function.

    Args:
        x: ``[N, *]``.
        v: potential before the step, ``[N, *]`` or a number.
        m: memory of spikes before the step, ``[N, *]`` or a number.
        tau: membrane time constant in time steps, above 1.
        v_threshold: firing threshold.
        spike_function: the surrogate, see :mod:`jellyfit.surrogates`; ``None``: ``Rect()``.

    Returns:
        Spikes, the potential and the memory of spikes after the step, each ``[N, *]``.

    Raises:
        InputError: a state of another shape, or a parameter that makes no sense.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> x = torch.tensor([[0.5, 3.0]])
        >>> spike, v, m = functional.clif_step(x, 0.0, 0.0, 2.0, 1.0, None)
        >>> spike
        tensor([[0., 1.]])
    """
    settings = {"tau": tau, "v_threshold": v_threshold, "surrogate_function": spike_function}
    spike, after = _single_step("clif_step", ComplementaryLIFNode, x, {"v": v, "m": m}, {}, settings)
    return spike, after["v"], after["m"]


def cuba_lif_step(
    x: Tensor,
    current: float | Tensor,
    v: float | Tensor,
    current_decay: Value,
    voltage_decay: Value,
    v_threshold: Value,
    v_reset: Value | None,
    surrogate_function: SurrogateFunction | None,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of :class:`~jellyfit.neurons.CUBALIFNode`, as a function.

    Args:
        x: ``[N, *]``.
        current: current before the step, ``[N, *]`` or a number.
        v: potential before the step, ``[N, *]`` or a number.
        current_decay: factor of the current a step.
        voltage_decay: factor of the potential a step.
        v_threshold: firing threshold.
        v_reset: potential after a spike; ``None``: soft reset.
        surrogate_function: see :mod:`jellyfit.surrogates`; ``None``: ``Rect()``.
        detach_reset: let no gradient flow through the spike inside the reset; default ``False``.

    Returns:
        Spikes, the current and the potential after the step, each ``[N, *]``.

    Raises:
        InputError: a state of another shape, or a parameter that makes no sense.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> x = torch.tensor([[0.5, 3.0]])
        >>> spike, current, v = functional.cuba_lif_step(x, 0.0, 0.0, 0.5, 0.75, 1.0, 0.0, None)
        >>> spike
        tensor([[0., 1.]])
    """
    settings = {
        "c_decay": current_decay,
        "v_decay": voltage_decay,
        "v_threshold": v_threshold,
        "v_reset": v_reset,
        "surrogate_function": surrogate_function,
        "detach_reset": detach_reset,
    }
    spike, after = _single_step("cuba_lif_step", CUBALIFNode, x, {"c": current, "v": v}, {}, settings)
    return spike, after["c"], after["v"]


def raf_step(
    x: Tensor,
    u: float | Tensor,
    v: float | Tensor,
    b: Value,
    omega: Value,
    dt: float,
    v_threshold: Value,
    v_reset: Value | None,
    surrogate_function: SurrogateFunction | None,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of :class:`~jellyfit.neurons.RAFNode`, as a function.

    Args:
        x: ``[N, *]``.
        u: second potential before the step, ``[N, *]`` or a number.
        v: potential before the step, ``[N, *]`` or a number.
        b: damping, below 0.
        omega: angular frequency.
        dt: length of a step, above 0.
        v_threshold: firing threshold.
        v_reset: potential after a spike; ``None``: soft reset.
        surrogate_function: see :mod:`jellyfit.surrogates`; ``None``: ``Sigmoid()``.
        detach_reset: let no gradient flow through the spike inside the reset; default ``False``.

    Returns:
        Spikes, the second potential and the potential after the step, each ``[N, *]``.

    Raises:
        InputError: a state of another shape, or a parameter that makes no sense.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> x = torch.tensor([[0.5, 3.0]])
        >>> spike, u, v = functional.raf_step(x, 0.0, 0.0, -0.2, 1.0, 1.0, 1.0, 0.0, None)
        >>> spike
        tensor([[0., 0.]])
    """
    settings = {
        "b": b,
        "omega": omega,
        "dt": dt,
        "v_threshold": v_threshold,
        "v_reset": v_reset,
        "surrogate_function": surrogate_function,
        "detach_reset": detach_reset,
    }
    spike, after = _single_step("raf_step", RAFNode, x, {"u": u, "v": v}, {}, settings)
    return spike, after["u"], after["v"]


def ilif_multi_step(
    x_seq: Tensor,
    v: float | Tensor,
    tau: Value = 2.0,
    v_threshold: Value = 1.0,
    surrogate_function: SurrogateFunction | None = None,
    detach_reset: bool = False,
    store_v_seq: bool = False,
) -> Steps:
    """:class:`~jellyfit.neurons.ILIFNode` over a sequence, as a function.

    Args:
        x_seq: ``[T, N, *]``.
        v: potential before the first step, ``[N, *]`` or a number.
        tau: membrane time constant in time steps, above 1; default 2.0.
        v_threshold: firing threshold; default 1.0.
        surrogate_function: counts the spikes; default ``MultiLevelSpikeCount(4)``.
        detach_reset: let no gradient flow through the spikes inside the reset; default ``False``.
        store_v_seq: give the potential after every step too; default ``False``.

    Returns:
        Counts ``[T, N, *]``, the last potential ``[N, *]``, and the potentials after every step ``[T, N, *]``, or
        ``None``.

    Raises:
        InputError: ``x_seq`` is no sequence, a state of another shape, or a parameter that makes no sense.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> counts, v, _ = functional.ilif_multi_step(torch.full((3, 1, 1), 2.4), 0.0)
        >>> counts.flatten()
        tensor([2., 3., 2.])
    """
    settings = {
        "tau": tau,
        "v_threshold": v_threshold,
        "surrogate_function": surrogate_function,
        "detach_reset": detach_reset,
        "store_v_seq": store_v_seq,
    }
    spikes, after, v_seq = _multi_step("ilif_multi_step", ILIFNode, x_seq, {"v": v}, {}, settings)
    return spikes, after["v"], v_seq


def ilif_step(
    x: Tensor,
    v: float | Tensor,
    tau: Value,
    v_threshold: Value,
    surrogate_function: SurrogateFunction | None,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of :class:`~jellyfit.neurons.ILIFNode`, as a function.

    Args:
        x: ``[N, *]``.
        v: potential before the step, ``[N, *]`` or a number.
        tau: membrane time constant in time steps, above 1.
        v_threshold: firing threshold.
        surrogate_function: counts the spikes; ``None``: ``MultiLevelSpikeCount(4)``.
        detach_reset: let no gradient flow through the spikes inside the reset; default ``False``.

    Returns:
        Counts and the potential after the step, each ``[N, *]``.

    Raises:
        InputError: a state of another shape, or a parameter that makes no sense.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> counts, v = functional.ilif_step(torch.tensor([[0.4, 2.2, 9.0]]), 0.0, 2.0, 1.0, None)
        >>> counts
        tensor([[0., 2., 4.]])
    """
    settings = {
        "tau": tau,
        "v_threshold": v_threshold,
        "surrogate_function": surrogate_function,
        "detach_reset": detach_reset,
    }
    spike, after = _single_step("ilif_step", ILIFNode, x, {"v": v}, {}, settings)
    return spike, after["v"]
