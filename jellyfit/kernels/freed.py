"""Graphs that backward has already freed: going back into one is the mark of a forgotten reset, and is said so."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from jellyfit.errors import StateError

__all__ = ["Backwarded", "is_freed", "saved_tensors", "warned_of"]

_ADVICE = (
    "Trying to backward through the graph a second time: it reaches back into an earlier call, whose graph an earlier "
    "backward has freed. The state that was left by that call was not reset. Call jellyfit.functional.reset_net(net) "
    "before every sequence (a network in a jellyfit.backbones.Backbone does it by itself), or "
    "jellyfit.functional.detach_net(net) to go on from the state without its graph. If you do call backward twice on "
    "the same outputs, pass retain_graph=True to the first."
)
_SECOND = "second time"
_FAR = 256  # nodes: several time steps of any neuron


def saved_tensors(ctx: Any) -> tuple[Any, ...]:
    """``ctx.saved_tensors`` in a backward pass, with advice where they have been freed.

    Raises:
        StateError: the graph was freed by an earlier backward pass.
    """
    try:
        found: tuple[Any, ...] = ctx.saved_tensors
    except RuntimeError as error:
        if _SECOND in str(error):
            raise StateError(_ADVICE) from error
        raise
    return found


class Backwarded:
    """A tensor hook that knows whether gradients have ever come through.

    Attributes:
        seen: whether they have.
    """

    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen = False

    def __call__(self, grad: Tensor) -> None:
        """Note that a gradient has come."""
        self.seen = True


def is_freed(tensor: Tensor) -> bool:
    """Whether backward from ``tensor`` would soon meet a graph that has been freed. Slow: looks at node after node."""
    pending: list[Any] = [tensor.grad_fn]
    known: set[Any] = set()
    while pending and len(known) < _FAR:
        node = pending.pop(0)
        if node is None or node in known:
            continue
        known.add(node)
        python = isinstance(node, torch.autograd.function.BackwardCFunction)
        names = ["saved_tensors"] if python else [name for name in dir(node) if name.startswith("_saved_")]
        if any(_raises(node, name) for name in names):
            return True
        pending += [following for following, _ in node.next_functions]
    return False


def _raises(node: Any, name: str) -> bool:
    try:
        getattr(node, name)
    except RuntimeError as error:
        return _SECOND in str(error)
    return False


class _Warned(torch.autograd.Function):
    """Identity whose backward raises: behind it there is only a freed graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise StateError(_ADVICE)


def warned_of(tensor: Tensor) -> Tensor:
    """``tensor``, from which backward raises a :class:`~jellyfit.errors.StateError` with advice."""
    return _Warned.apply(tensor)  # type: ignore[no-untyped-call,no-any-return]
