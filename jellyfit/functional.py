"""Whole-network operations: reset, detach, step mode, backend, and running a module over time.

They find every module of a network however deep it is nested. Shapes: a sequence is ``[T, N, *]`` (time steps, batch,
features), one step ``[N, *]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from jellyfit.errors import InputError
from jellyfit.kernels import check_backend
from jellyfit.neurons.base import BaseNode, MemoryModule, StepModule

__all__ = [
    "detach_net",
    "multi_step_forward",
    "named_neurons",
    "named_stateful",
    "reset_net",
    "seq_to_ann_forward",
    "set_backend",
    "set_step_mode",
]


def _name_modules(net: nn.Module) -> Iterator[nn.Module]:
    """Every module of ``net``, once; ours learn their dotted name on the way, for error messages."""
    for name, module in net.named_modules():
        if isinstance(module, StepModule):
            module._path = name
        yield module


def reset_net(net: nn.Module) -> None:
    """Forget the state of every module in ``net``, however deep it is nested.

    Modules of your own that are not a :class:`~jellyfit.neurons.MemoryModule` but have a ``reset()`` method are reset
    too, except torchmetrics' metrics, whose ``reset`` means something else.
    """
    for module in _name_modules(net):
        if _remembers(module):
            module.reset()  # type: ignore[operator]


def _remembers(module: nn.Module) -> bool:
    return callable(getattr(module, "reset", None)) and not (hasattr(module, "compute") and hasattr(module, "update"))


def named_stateful(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """Dotted names and modules of everything in ``net`` that :func:`reset_net` resets."""
    return [(name, module) for name, module in net.named_modules() if _remembers(module)]


def detach_net(net: nn.Module) -> None:
    """Keep the state of every module in ``net`` but cut it from the graph (truncated BPTT, streaming)."""
    for module in _name_modules(net):
        if isinstance(module, MemoryModule):
            module.detach()


def set_step_mode(net: nn.Module, step_mode: str) -> None:
    """Set ``step_mode`` (``"s"`` or ``"m"``) of every module in ``net`` that has one.

    What a container that steps through time itself holds (``MultiStepContainer``, ``SeqToANNContainer``,
    ``StepModeContainer``) stays in single-step mode.
    """
    for _ in _name_modules(net):
        pass
    pending: list[tuple[nn.Module, str]] = [(net, step_mode)]
    while pending:
        module, mode = pending.pop()
        if isinstance(module, StepModule):
            module.step_mode = mode
            if module.keeps_children_single_step:
                mode = "s"
        pending.extend((child, mode) for child in module.children())


def set_backend(net: nn.Module, backend: str, instance: type[BaseNode] | tuple[type[BaseNode], ...] = BaseNode) -> None:
    """Set the ``backend`` of every neuron in ``net`` that is an ``instance`` (default: all neurons).

    Raises:
        ConfigError: an unknown backend, or one that cannot run here (the message says why).
    """
    check_backend(backend)
    for module in _name_modules(net):
        if isinstance(module, instance):
            module.backend = backend


def named_neurons(net: nn.Module) -> list[tuple[str, BaseNode]]:
    """Dotted names and neurons of ``net``, in the order in which they were registered."""
    return [(name, module) for name, module in net.named_modules() if isinstance(module, BaseNode)]


def _check_sequence(x_seq: Tensor, what: str) -> None:
    if x_seq.ndim < 2 or x_seq.shape[0] == 0:
        raise InputError(f"{what}: expected a sequence [T, N, *] with T >= 1; got shape {list(x_seq.shape)}.")


Modules = Callable[[Tensor], Any] | list[nn.Module] | tuple[nn.Module, ...] | nn.Sequential


def _chain(modules: Modules) -> Callable[[Tensor], Any]:
    if not isinstance(modules, (list, tuple)):
        return modules

    def run(x: Tensor) -> Any:
        for module in modules:
            x = module(x)
        return x

    return run


def multi_step_forward(x_seq: Tensor, single_step_module: Modules) -> Tensor:
    """Run single-step modules over a sequence, one time step after another.

    Args:
        x_seq: ``[T, N, *]``.
        single_step_module: a module (or a list of them, applied in turn) that maps ``[N, *]`` to ``[N, *]``.

    Returns:
        ``[T, N, *]``.
    """
    _check_sequence(x_seq, "multi_step_forward")
    run = _chain(single_step_module)
    return torch.stack([run(x) for x in x_seq.unbind(0)])


def seq_to_ann_forward(x_seq: Tensor, stateless_module: Modules) -> Tensor:
    """Run stateless modules over a sequence at once, by merging time into the batch.

    Args:
        x_seq: ``[T, N, *]``.
        stateless_module: a module (or a list of them, applied in turn) that maps ``[B, *]`` to ``[B, *]``.

    Returns:
        ``[T, N, *]``.
    """
    _check_sequence(x_seq, "seq_to_ann_forward")
    y = _chain(stateless_module)(x_seq.flatten(0, 1))
    if not isinstance(y, Tensor) or y.ndim == 0 or y.shape[0] != x_seq.shape[0] * x_seq.shape[1]:
        given = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise InputError(
            f"seq_to_ann_forward: input {list(x_seq.shape)} was merged to a batch of "
            f"{x_seq.shape[0] * x_seq.shape[1]}, but the module returned {given}; it must keep the first axis."
        )
    return y.view(*x_seq.shape[:2], *y.shape[1:])
