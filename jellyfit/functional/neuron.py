"""Neurons as functions: the state goes in and comes out, nothing is remembered between calls.

They run the very neurons of :mod:`jellyfit.neurons`, fused kernels included: one is made for each set of arguments and
kept. Gradients flow to the input, the state and every parameter that is a tensor.

Shapes: ``*_multi_step`` take a sequence ``[T, N, *]``, ``*_step`` one step ``[N, *]``; states are ``[N, *]``, or a
number for the same value everywhere. The states that come back are at least float32.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from jellyfit.errors import InputError
from jellyfit.neurons import BaseNode, EIFNode, IFNode, IzhikevichNode, LIFNode, ParametricLIFNode, QIFNode
from jellyfit.neurons.base import Value
from jellyfit.surrogates import SurrogateFunction

__all__ = [
    "eif_multi_step",
    "eif_step",
    "if_multi_step",
    "if_step",
    "izhikevich_multi_step",
    "izhikevich_step",
    "lif_charge",
    "lif_multi_step",
    "lif_step",
    "plif_multi_step",
    "plif_step",
    "qif_multi_step",
    "qif_step",
    "voltage_reset",
]

Steps: TypeAlias = tuple[Tensor, Tensor, Tensor | None]
"""Spikes ``[T, N, *]``, the last potential ``[N, *]``, and all potentials ``[T, N, *]`` if they were asked for."""


@functools.lru_cache(maxsize=64)
def _node(thread: int, kind: type[BaseNode], settings: tuple[tuple[str, Any], ...]) -> BaseNode:
    """A neuron with these settings, kept: its kernels are traced once. Threads do not share one."""
    return kind(step_mode="m", **dict(settings))


@contextlib.contextmanager
def _lent(
    kind: type[BaseNode], settings: Mapping[str, Any], params: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> Iterator[BaseNode]:
    """A kept neuron in a given state, which it has forgotten afterwards.

    Tensors among the settings, and ``params``, are lent to it too: they are new in every call.
    """
    tensors = {name: value for name, value in settings.items() if isinstance(value, Tensor)}
    if tensors:
        checked: dict[str, Any] = {**settings, **{name: value.detach() for name, value in tensors.items()}}
        kind(**checked)
    numbers = tuple((name, value) for name, value in settings.items() if name not in tensors)
    node = _node(threading.get_ident(), kind, numbers)  # type: ignore[arg-type]  # classes are hashable
    lent = {**tensors, **params}
    own = {name: node.__dict__.get(name, 0.0) for name in lent}
    for name in lent:
        node._parameters.pop(name, None)
    try:
        node.__dict__.update(lent)
        node.__dict__.update(state)
        yield node
    finally:
        node.__dict__.update(own)
        node.reset()


def _pure(node: BaseNode, x_seq: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
    """Spikes, the states after the last step, and the potentials if the neuron keeps them."""
    spikes = node(x_seq)
    return spikes, {name: value for name, value in node.named_memories() if not name.startswith("_")}, node.v_seq


def _start(function: str, x: Tensor, state: Mapping[str, float | Tensor]) -> dict[str, Tensor]:
    """States as tensors like one step of input ``x`` ``[N, *]``."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        given = str(x.dtype) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"{function}: got input of {given}; expected a floating-point tensor.")
    wide = torch.promote_types(x.dtype, torch.float32)
    start = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            start[name] = torch.full_like(x, value, dtype=wide, requires_grad=False)
        elif value.shape != x.shape:
            raise InputError(
                f"{function}: the state {name} has shape {list(value.shape)}; expected that of one step of the input, "
                f"{list(x.shape)}, or a number."
            )
        else:
            start[name] = value.to(wide)
    return start


def _multi_step(
    function: str,
    kind: type[BaseNode],
    x_seq: Tensor,
    state: Mapping[str, float | Tensor],
    params: Mapping[str, Tensor],
    settings: Mapping[str, Any],
) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
    if isinstance(x_seq, Tensor) and (x_seq.ndim < 2 or x_seq.shape[0] == 0):
        raise InputError(f"{function}: expected a sequence [T, N, *] with T >= 1; got shape {list(x_seq.shape)}.")
    start = _start(function, x_seq[0] if isinstance(x_seq, Tensor) else x_seq, state)
    with _lent(kind, settings, params, start) as node:
        return _pure(node, x_seq)


def _single_step(
    function: str,
    kind: type[BaseNode],
    x: Tensor,
    state: Mapping[str, float | Tensor],
    params: Mapping[str, Tensor],
    settings: Mapping[str, Any],
) -> tuple[Tensor, dict[str, Tensor]]:
    start = _start(function, x, state)
    with _lent(kind, settings, params, start) as node:
        spikes, after, _ = _pure(node, x.unsqueeze(0))
    return spikes.squeeze(0), after


def if_multi_step(
    x_seq: Tensor,
    v: float | Tensor,
    v_threshold: Value = 1.0,
    v_reset: Value | None = 0.0,
    surrogate_function: SurrogateFunction | None = None,
    detach_reset: bool = False,
    store_v_seq: bool = False,
) -> Steps:
    """:class:`~jellyfit.neurons.IFNode` over a sequence, as a function.

    Args:
        x_seq: ``[T, N, *]``.
        v: potential before the first step, ``[N, *]`` or a number.
        v_threshold: firing threshold; default 1.0.
        v_reset: potential after a spike; ``None``: soft reset; default 0.0.
        surrogate_function: see :mod:`jellyfit.surrogates`; default ``Sigmoid()``.
        detach_reset: let no gradient flow through the spike inside the reset; default ``False``.
        store_v_seq: give the potential after every step too; default ``False``.

    Returns:
        Spikes ``[T, N, *]``, the last potential ``[N, *]``, and the potentials after every step ``[T, N, *]``, or
        ``None``.

    Raises:
        InputError: ``x_seq`` is no sequence, a state of another shape, or a parameter that makes no sense.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> x_seq = torch.full((4, 1, 1), 1.5)
        >>> spikes, v, _ = functional.if_multi_step(x_seq, 0.0)
        >>> spikes.flatten()
        tensor([1., 1., 1., 1.])
    """
    settings = {
        "v_threshold": v_threshold,
        "v_reset": v_reset,
        "surrogate_function": surrogate_function,
        "detach_reset": detach_reset,
        "store_v_seq": store_v_seq,
    }
    spikes, after, v_seq = _multi_step("if_multi_step", IFNode, x_seq, {"v": v}, {}, settings)
    return spikes, after["v"], v_seq


def if_step(
    x: Tensor,
    v: float | Tensor,
    v_threshold: Value,
    v_reset: Value | None,
    surrogate_function: SurrogateFunction | None,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of :class:`~jellyfit.neurons.IFNode`, as a function.

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
        >>> spike, v = functional.if_step(x, 0.25, 1.0, 0.0, None)
        >>> spike
        tensor([[0., 1.]])
    """
    settings = {
        "v_threshold": v_threshold,
        "v_reset": v_reset,
        "surrogate_function": surrogate_function,
        "detach_reset": detach_reset,
    }
    spike, after = _single_step("if_step", IFNode, x, {"v": v}, {}, settings)
    return spike, after["v"]


def lif_multi_step(
    x_seq: Tensor,
    v: float | Tensor,
    tau: Value = 2.0,
    decay_input: bool = True,
    v_threshold: Value = 1.0,
    v_reset: Value | None = 0.0,
    surrogate_function: SurrogateFunction | None = None,
    detach_reset: bool = False,
    store_v_seq: bool = False,
) -> Steps:
    """:class:`~jellyfit.neurons.LIFNode` over a sequence, as a function.

    Args:
        x_seq: ``[T, N, *]``.
        v: potential before the first step, ``[N, *]`` or a number.
        tau: membrane time constant in time steps, above 1; default 2.0.
        decay_input: whether the input is divided by the time constant as well; default ``True``.
        v_threshold: firing threshold; default 1.0.
        v_reset: potential after a spike; ``None``: soft reset; default 0.0.
        surrogate_function: see :mod:`jellyfit.surrogates`; default ``Sigmoid()``.
        detach_reset: let no gradient flow through the spike inside the reset; default ``False``.
        store_v_seq: give the potential after every step too; default ``False``.

    Returns:
        Spikes ``[T, N, *]``, the last potential ``[N, *]``, and the potentials after every step ``[T, N, *]``, or
        ``None``.

    Raises:
        InputError: ``x_seq`` is no sequence, a state of another shape, or a parameter that makes no sense.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> x_seq = torch.full((4, 1, 1), 1.5)
        >>> spikes, v, _ = functional.lif_multi_step(x_seq, 0.0)
        >>> spikes.flatten()
        tensor([0., 1., 0., 1.])
    """
    settings = {
        "tau": tau,
        "decay_input": decay_input,
        "v_threshold": v_threshold,
        "v_reset": v_reset,
        "surrogate_function": surrogate_function,
        "detach_reset": detach_reset,
        "store_v_seq": store_v_seq,
    }
    spikes, after, v_seq = _multi_step("lif_multi_step", LIFNode, x_seq, {"v": v}, {}, settings)
    return spikes, after["v"], v_seq


def lif_step(
    x: Tensor,
    v: float | Tensor,
    tau: Value,
    decay_input: bool,
    v_threshold: Value,
    v_reset: Value | None,
    surrogate_function: SurrogateFunction | None,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of :class:`~jellyfit.neurons.LIFNode`, as a function.

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
        >>> spike, v = functional.lif_step(x, 0.25, 2.0, True, 1.0, 0.0, None)
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
    spike, after = _single_step("lif_step", LIFNode, x, {"v": v}, {}, settings)
    return spike, after["v"]


def plif_multi_step(
    x_seq: Tensor,
    v: float | Tensor,
    w: Tensor,
    decay_input: bool = True,
    v_threshold: Value = 1.0,
    v_reset: Value | None = 0.0,
    surrogate_function: SurrogateFunction | None = None,
    detach_reset: bool = False,
    store_v_seq: bool = False,
) -> Steps:
    """:class:`~jellyfit.neurons.ParametricLIFNode` over a sequence, as a function.

    Args:
        x_seq: ``[T, N, *]``.
        v: potential before the first step, ``[N, *]`` or a number.
        w: learnable tensor of which ``sigmoid(w)`` is 1/τ; a scalar, or broadcast to one step.
        decay_input: whether the input is divided by the time constant as well; default ``True``.
        v_threshold: firing threshold; default 1.0.
        v_reset: potential after a spike; ``None``: soft reset; default 0.0.
        surrogate_function: see :mod:`jellyfit.surrogates`; default ``Sigmoid()``.
        detach_reset: let no gradient flow through the spike inside the reset; default ``False``.
        store_v_seq: give the potential after every step too; default ``False``.

    Returns:
        Spikes ``[T, N, *]``, the last potential ``[N, *]``, and the potentials after every step ``[T, N, *]``, or
        ``None``.

    Raises:
        InputError: ``x_seq`` is no sequence, a state of another shape, or a parameter that makes no sense.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> x_seq = torch.full((4, 1, 1), 1.5)
        >>> spikes, v, _ = functional.plif_multi_step(x_seq, 0.0, w=torch.tensor(0.0))
        >>> spikes.flatten()
        tensor([0., 1., 0., 1.])
    """
    settings = {
        "decay_input": decay_input,
        "v_threshold": v_threshold,
        "v_reset": v_reset,
        "surrogate_function": surrogate_function,
        "detach_reset": detach_reset,
        "store_v_seq": store_v_seq,
    }
    spikes, after, v_seq = _multi_step("plif_multi_step", ParametricLIFNode, x_seq, {"v": v}, {"w": w}, settings)
    return spikes, after["v"], v_seq


def plif_step(
    x: Tensor,
    v: float | Tensor,
    w: Tensor,
    decay_input: bool,
    v_threshold: Value,
    v_reset: Value | None,
    surrogate_function: SurrogateFunction | None,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of :class:`~jellyfit.neurons.ParametricLIFNode`, as a function.

    Args:
        x: ``[N, *]``.
        v: potential before the step, ``[N, *]`` or a number.
        w: learnable tensor of which ``sigmoid(w)`` is 1/τ; a scalar, or broadcast to one step.
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
        >>> spike, v = functional.plif_step(x, 0.25, torch.tensor(0.0), True, 1.0, 0.0, None)
        >>> spike
        tensor([[0., 1.]])
    """
    settings = {
        "decay_input": decay_input,
        "v_threshold": v_threshold,
        "v_reset": v_reset,
        "surrogate_function": surrogate_function,
        "detach_reset": detach_reset,
    }
    spike, after = _single_step("plif_step", ParametricLIFNode, x, {"v": v}, {"w": w}, settings)
    return spike, after["v"]


def qif_multi_step(
    x_seq: Tensor,
    v: float | Tensor,
    tau: Value = 2.0,
    v_threshold: Value = 1.0,
    v_reset: Value | None = 0.0,
    v_rest: Value = 0.0,
    v_c: Value = 0.8,
    a0: Value = 1.0,
    detach_reset: bool = False,
    surrogate_function: SurrogateFunction | None = None,
    store_v_seq: bool = False,
) -> Steps:
    """:class:`~jellyfit.neurons.QIFNode` over a sequence, as a function.

    Args:
        x_seq: ``[T, N, *]``.
        v: potential before the first step, ``[N, *]`` or a number.
        tau: membrane time constant in time steps, above 1; default 2.0.
        v_threshold: firing threshold; default 1.0.
        v_reset: potential after a spike; ``None``: soft reset; default 0.0.
        v_rest: resting potential; default 0.0.
        v_c: critical potential; default 0.8.
        a0: curvature, above 0; default 1.0.
        detach_reset: let no gradient flow through the spike inside the reset; default ``False``.
        surrogate_function: see :mod:`jellyfit.surrogates`; default ``Sigmoid()``.
        store_v_seq: give the potential after every step too; default ``False``.

    Returns:
        Spikes ``[T, N, *]``, the last potential ``[N, *]``, and the potentials after every step ``[T, N, *]``, or
        ``None``.

    Raises:
        InputError: ``x_seq`` is no sequence, a state of another shape, or a parameter that makes no sense.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> x_seq = torch.full((4, 1, 1), 1.5)
        >>> spikes, v, _ = functional.qif_multi_step(x_seq, 0.0)
        >>> spikes.flatten()
        tensor([0., 1., 0., 1.])
    """
    settings = {
        "tau": tau,
        "v_threshold": v_threshold,
        "v_reset": v_reset,
        "v_rest": v_rest,
        "v_c": v_c,
        "a0": a0,
        "detach_reset": detach_reset,
        "surrogate_function": surrogate_function,
        "store_v_seq": store_v_seq,
    }
    spikes, after, v_seq = _multi_step("qif_multi_step", QIFNode, x_seq, {"v": v}, {}, settings)
    return spikes, after["v"], v_seq


def qif_step(
    x: Tensor,
    v: float | Tensor,
    tau: Value,
    a0: Value,
    v_rest: Value,
    v_c: Value,
    v_threshold: Value,
    v_reset: Value | None,
    surrogate_function: SurrogateFunction | None,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of :class:`~jellyfit.neurons.QIFNode`, as a function.

    Args:
        x: ``[N, *]``.
        v: potential before the step, ``[N, *]`` or a number.
        tau: membrane time constant in time steps, above 1.
        a0: curvature, above 0.
        v_rest: resting potential.
        v_c: critical potential.
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
        >>> spike, v = functional.qif_step(x, 0.25, 2.0, 1.0, 0.0, 0.8, 1.0, 0.0, None)
        >>> spike
        tensor([[0., 1.]])
    """
    settings = {
        "tau": tau,
        "a0": a0,
        "v_rest": v_rest,
        "v_c": v_c,
        "v_threshold": v_threshold,
        "v_reset": v_reset,
        "surrogate_function": surrogate_function,
        "detach_reset": detach_reset,
    }
    spike, after = _single_step("qif_step", QIFNode, x, {"v": v}, {}, settings)
    return spike, after["v"]


def eif_multi_step(
    x_seq: Tensor,
    v: float | Tensor,
    tau: Value = 2.0,
    v_threshold: Value = 1.0,
    v_reset: Value | None = 0.0,
    v_rest: Value = 0.0,
    theta_rh: Value = 1.0,
    delta_t: Value = 1.0,
    detach_reset: bool = False,
    surrogate_function: SurrogateFunction | None = None,
    store_v_seq: bool = False,
) -> Steps:
    """:class:`~jellyfit.neurons.EIFNode` over a sequence, as a function.

    Args:
        x_seq: ``[T, N, *]``.
        v: potential before the first step, ``[N, *]`` or a number.
        tau: membrane time constant in time steps, above 1; default 2.0.
        v_threshold: firing threshold; default 1.0.
        v_reset: potential after a spike; ``None``: soft reset; default 0.0.
        v_rest: resting potential; default 0.0.
        theta_rh: rheobase threshold; default 1.0.
        delta_t: sharpness of the upswing, above 0 (``delta_T`` of the neuron); default 1.0.
        detach_reset: let no gradient flow through the spike inside the reset; default ``False``.
        surrogate_function: see :mod:`jellyfit.surrogates`; default ``Sigmoid()``.
        store_v_seq: give the potential after every step too; default ``False``.

    Returns:
        Spikes ``[T, N, *]``, the last potential ``[N, *]``, and the potentials after every step ``[T, N, *]``, or
        ``None``.

    Raises:
        InputError: ``x_seq`` is no sequence, a state of another shape, or a parameter that makes no sense.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> x_seq = torch.full((4, 1, 1), 1.5)
        >>> spikes, v, _ = functional.eif_multi_step(x_seq, 0.0)
        >>> spikes.flatten()
        tensor([0., 1., 0., 1.])
    """
    settings = {
        "tau": tau,
        "v_threshold": v_threshold,
        "v_reset": v_reset,
        "v_rest": v_rest,
        "theta_rh": theta_rh,
        "delta_T": delta_t,
        "detach_reset": detach_reset,
        "surrogate_function": surrogate_function,
        "store_v_seq": store_v_seq,
    }
    spikes, after, v_seq = _multi_step("eif_multi_step", EIFNode, x_seq, {"v": v}, {}, settings)
    return spikes, after["v"], v_seq


def eif_step(
    x: Tensor,
    v: float | Tensor,
    tau: Value,
    delta_t: Value,
    theta_rh: Value,
    v_rest: Value,
    v_threshold: Value,
    v_reset: Value | None,
    surrogate_function: SurrogateFunction | None,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of :class:`~jellyfit.neurons.EIFNode`, as a function.

    Args:
        x: ``[N, *]``.
        v: potential before the step, ``[N, *]`` or a number.
        tau: membrane time constant in time steps, above 1.
        delta_t: sharpness of the upswing, above 0 (``delta_T`` of the neuron).
        theta_rh: rheobase threshold.
        v_rest: resting potential.
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
        >>> spike, v = functional.eif_step(x, 0.25, 2.0, 1.0, 0.8, 0.0, 1.0, 0.0, None)
        >>> spike
        tensor([[0., 1.]])
    """
    settings = {
        "tau": tau,
        "delta_T": delta_t,
        "theta_rh": theta_rh,
        "v_rest": v_rest,
        "v_threshold": v_threshold,
        "v_reset": v_reset,
        "surrogate_function": surrogate_function,
        "detach_reset": detach_reset,
    }
    spike, after = _single_step("eif_step", EIFNode, x, {"v": v}, {}, settings)
    return spike, after["v"]


def izhikevich_multi_step(
    x_seq: Tensor,
    v: float | Tensor,
    w: float | Tensor,
    tau: Value = 2.0,
    v_threshold: Value = 1.0,
    v_reset: Value | None = 0.0,
    v_rest: Value = 0.0,
    a: Value = 0.1,
    b: Value = 0.2,
    tau_w: Value = 2.0,
    v_c: Value = 0.8,
    a0: Value = 1.0,
    detach_reset: bool = False,
    surrogate_function: SurrogateFunction | None = None,
    store_state_seq: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """:class:`~jellyfit.neurons.IzhikevichNode` over a sequence, as a function.

    Args:
        x_seq: ``[T, N, *]``.
        v: potential before the first step, ``[N, *]`` or a number.
        w: adaptation before the first step, ``[N, *]`` or a number.
        tau: membrane time constant in time steps, above 1; default 2.0.
        v_threshold: firing threshold; default 1.0.
        v_reset: potential after a spike; ``None``: soft reset; default 0.0.
        v_rest: resting potential; default 0.0.
        a: coupling of the adaptation to the potential; default 0.1.
        b: step of the adaptation at a spike; default 0.2.
        tau_w: time constant of the adaptation in time steps; default 2.0.
        v_c: critical potential; default 0.8.
        a0: curvature, above 0; default 1.0.
        detach_reset: let no gradient flow through the spike inside the reset; default ``False``.
        surrogate_function: see :mod:`jellyfit.surrogates`; default ``Sigmoid()``.
        store_state_seq: give both states after every step too; default ``False``.

    Returns:
        Spikes ``[T, N, *]``, the last potential and adaptation ``[N, *]``, and both after every step ``[T, N, *]``, or
        ``None``.

    Raises:
        InputError: ``x_seq`` is no sequence, a state of another shape, or a parameter that makes no sense.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> x_seq = torch.full((4, 1, 1), 1.5)
        >>> spikes, v, w, _, _ = functional.izhikevich_multi_step(x_seq, 0.0, 0.0)
        >>> spikes.flatten()
        tensor([0., 1., 0., 1.])
    """
    settings = {
        "tau": tau,
        "v_threshold": v_threshold,
        "v_reset": v_reset,
        "v_rest": v_rest,
        "a": a,
        "b": b,
        "tau_w": tau_w,
        "v_c": v_c,
        "a0": a0,
        "detach_reset": detach_reset,
        "surrogate_function": surrogate_function,
    }
    if not store_state_seq:
        spikes, after, _ = _multi_step("izhikevich_multi_step", IzhikevichNode, x_seq, {"v": v, "w": w}, {}, settings)
        return spikes, after["v"], after["w"], None, None
    steps = []
    for x in x_seq.unbind(0):  # the neuron keeps its potentials, but not its adaptation
        spike, after = _single_step("izhikevich_multi_step", IzhikevichNode, x, {"v": v, "w": w}, {}, settings)
        v, w = after["v"], after["w"]
        steps.append((spike, v, w))
    spikes, v_seq, w_seq = (torch.stack(values) for values in zip(*steps, strict=True))
    return spikes, v_seq[-1], w_seq[-1], v_seq, w_seq


def izhikevich_step(
    x: Tensor,
    v: float | Tensor,
    w: float | Tensor,
    tau: Value,
    a0: Value,
    v_rest: Value,
    v_c: Value,
    tau_w: Value,
    a: Value,
    b: Value,
    v_threshold: Value,
    v_reset: Value | None,
    surrogate_function: SurrogateFunction | None,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of :class:`~jellyfit.neurons.IzhikevichNode`, as a function.

    Args:
        x: ``[N, *]``.
        v: potential before the step, ``[N, *]`` or a number.
        w: adaptation before the step, ``[N, *]`` or a number.
        tau: membrane time constant in time steps, above 1.
        a0: curvature, above 0.
        v_rest: resting potential.
        v_c: critical potential.
        tau_w: time constant of the adaptation in time steps.
        a: coupling of the adaptation to the potential.
        b: step of the adaptation at a spike.
        v_threshold: firing threshold.
        v_reset: potential after a spike; ``None``: soft reset.
        surrogate_function: see :mod:`jellyfit.surrogates`; ``None``: ``Sigmoid()``.
        detach_reset: let no gradient flow through the spike inside the reset; default ``False``.

    Returns:
        Spikes and both states after the step, each ``[N, *]``.

    Raises:
        InputError: a state of another shape, or a parameter that makes no sense.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> x = torch.tensor([[0.5, 3.0]])
        >>> spike, v, w = functional.izhikevich_step(x, 0.25, 0.0, 2.0, 1.0, 0.0, 0.8, 2.0, 0.1, 0.2, 1.0, 0.0, None)
        >>> spike
        tensor([[0., 1.]])
    """
    settings = {
        "tau": tau,
        "a0": a0,
        "v_rest": v_rest,
        "v_c": v_c,
        "tau_w": tau_w,
        "a": a,
        "b": b,
        "v_threshold": v_threshold,
        "v_reset": v_reset,
        "surrogate_function": surrogate_function,
        "detach_reset": detach_reset,
    }
    spike, after = _single_step("izhikevich_step", IzhikevichNode, x, {"v": v, "w": w}, {}, settings)
    return spike, after["v"], after["w"]


def lif_charge(
    x: Tensor,
    v: float | Tensor,
    tau: Value,
    decay_input: bool,
    v_reset: Value | None,
) -> Tensor:
    """The charge of :class:`~jellyfit.neurons.LIFNode`: the potential before it fires.

    Args:
        x: ``[N, *]``.
        v: potential before the step, ``[N, *]`` or a number.
        tau: membrane time constant in time steps, above 1.
        decay_input: whether the input is divided by the time constant as well.
        v_reset: potential after a spike; ``None``: soft reset.

    Returns:
        ``[N, *]``.

    Raises:
        InputError: a state of another shape, or a parameter that makes no sense.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> functional.lif_charge(torch.tensor([[3.0]]), 1.0, 2.0, True, 0.0)
        tensor([[2.]])
    """
    settings = {"tau": tau, "decay_input": decay_input, "v_reset": v_reset}
    with _lent(LIFNode, settings, {}, _start("lif_charge", x, {"v": v})) as node:
        node.neuronal_charge(x)
        return node.v  # type: ignore[no-any-return]


def voltage_reset(v: Tensor, spike: Tensor, v_threshold: Value, v_reset: Value | None, detach_reset: bool) -> Tensor:
    """The reset of every neuron: the potential after spikes.

    Args:
        v: potential after charging, ``[N, *]``.
        spike: ``[N, *]``.
        v_threshold: firing threshold.
        v_reset: potential after a spike; ``None``: soft reset.
        detach_reset: let no gradient flow through the spike inside the reset; default ``False``.

    Returns:
        ``[N, *]``.

    Raises:
        InputError: a parameter that makes no sense.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> functional.voltage_reset(torch.tensor([1.5, 0.5]), torch.tensor([1.0, 0.0]), 1.0, None, False)
        tensor([0.5000, 0.5000])
    """
    settings = {"v_threshold": v_threshold, "v_reset": v_reset, "detach_reset": detach_reset}
    with _lent(IFNode, settings, {}, _start("voltage_reset", v, {"v": v})) as node:
        node.neuronal_reset(spike)
        return node.v  # type: ignore[no-any-return]
