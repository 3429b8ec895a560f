"""What every network shares: it starts each sequence from a reset state by itself."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from jellyfit import functional
from jellyfit.errors import InputError, InputTypeError
from jellyfit.neurons import BaseNode, LIFNode, StepModule, pure

__all__ = ["Backbone", "neuron_from"]


def neuron_from(template: BaseNode | None) -> BaseNode:
    """A fresh neuron made from a template: same class, same settings, parameters of its own, no state.

    Args:
        template: any neuron; ``None`` gives ``LIFNode()``.

    Raises:
        InputTypeError: not a neuron (its class, for example).

    Examples:
        >>> from jellyfit.backbones import neuron_from
        >>> from jellyfit.neurons import LIFNode
        >>> template = LIFNode(tau=3.0)
        >>> node = neuron_from(template)
        >>> node.tau, node is template
        (3.0, False)
    """
    if template is None:
        return LIFNode()
    if not isinstance(template, BaseNode):
        raise InputTypeError(f"neuron={template!r}: expected a neuron such as LIFNode(tau=2.0), not its class or name.")
    node = copy.deepcopy(template)
    node.reset()
    return node


class Backbone(StepModule):
    """Base of all networks: ``[T, N, *] -> [T, N, num_classes]`` in step mode ``"m"`` (default), one step in ``"s"``.

    In multi-step mode every call starts from a reset state: the same input gives the same output twice, and nobody
    writes ``reset_net``. In single-step mode the caller decides when a sequence begins (``functional.reset_net``). A
    backbone inside another that carries its state carries its own with it.

    ``torch.export.export(net, (x_seq,))`` gives a program for that number of time steps, without memories.

    A subclass builds its modules in ``__init__``, calls ``self.set_step_mode("m")`` at its end, and writes
    ``forward``.

    Attributes:
        num_classes: number of outputs; tasks read it.

    Args:
        carry_state: keep the state between multi-step calls, detached, for streaming; default ``False``.

    Examples:
        >>> import torch
        >>> from jellyfit import layers, neurons
        >>> from jellyfit.backbones import Backbone
        >>> class OneLayer(Backbone):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.num_classes = 2
        ...         self.layers = torch.nn.Sequential(layers.Linear(3, 2), neurons.LIFNode())
        ...         self.set_step_mode("m")
        ...
        ...     def forward(self, x):
        ...         return self.layers(x)
        >>> net, x_seq = OneLayer(), torch.rand(4, 1, 3)
        >>> bool((net(x_seq) == net(x_seq)).all())
        True
    """

    num_classes: int
    _carried: bool = False  # what runs it decides when a sequence begins
    _is_twin: bool = False  # see jellyfit.neurons.pure

    def __init__(self, carry_state: bool = False) -> None:
        super().__init__()
        self.carry_state = carry_state
        self._step_mode = "m"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.step_mode == "s" or self._carried:
            return super().__call__(*args, **kwargs)
        if torch.compiler.is_exporting():  # a program without memories, whose every call starts afresh
            return pure.call(self, *args, step_mode="m", **kwargs)[0]
        if self.carry_state:
            with self.one_sequence():
                return super().__call__(*args, **kwargs)
        if pure.is_backward_running() and not self._is_twin:  # torch.utils.checkpoint computes this call once more
            return pure.twin_of(self, pure.with_own_buffers)(*args, **kwargs)
        functional.reset_net(self)
        return super().__call__(*args, **kwargs)

    @contextmanager
    def one_sequence(self) -> Iterator[None]:
        """Calls inside this ``with`` block are parts of one sequence, which begins where the block does.

        The state is reset there (with ``carry_state``: cut from the graph), and kept from call to call inside.
        """
        (functional.detach_net if self.carry_state else functional.reset_net)(self)
        inner = [module for module in self.modules() if isinstance(module, Backbone) and not module._carried]
        try:
            for backbone in inner:
                backbone._carried = True
            yield
        finally:
            for backbone in inner:
                backbone._carried = False

    def set_step_mode(self, step_mode: str) -> None:
        """Set the step mode of the network and of everything in it."""
        functional.set_step_mode(self, step_mode)

    def misfit(self, x: Tensor, step_shape: str) -> InputError:
        """The error for an input that is not of ``step_shape`` (``"[N, C, H, W]"``), told in the present step mode."""
        hint = ""
        if self.step_mode == "m":
            step_shape = step_shape.replace("[N", "[T, N")
            hint = " (a sequence; for still images set the task's T)"
        return InputError(f"{type(self).__name__}: got shape {list(x.shape)}; expected {step_shape}{hint}.")

    def check_features(self, x: Tensor, in_features: int) -> None:
        """Raise :class:`~jellyfit.errors.InputError` unless a sample has ``in_features`` values at every step."""
        lead = 2 if self.step_mode == "m" else 1
        if math.prod(x.shape[lead:]) != in_features or x.ndim <= lead:
            raise self.misfit(x, f"[N, *] with {in_features} values a sample and step")

    def extra_repr(self) -> str:
        return f"step_mode={self.step_mode!r}" + (", carry_state=True" if self.carry_state else "")
