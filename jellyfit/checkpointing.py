"""Activation checkpointing: less memory for a second forward pass, with the numbers of training without it.

What lies between the input and the output of a *segment* is not kept for backward, but computed once more when backward
comes to it. A segment is a block of the network, a stretch of time, or both. The second computation runs on a twin of
the network that starts from the state, the batch-norm statistics and the random numbers of the first; so states and
statistics are updated once, and dropout masks are the same. (``torch.utils.checkpoint`` alone would start it from the
state that the first one left.)

Backward through T time steps keeps about 1/chunks of what it kept; a step of training takes about a third longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from jellyfit.backbones.base import Backbone
from jellyfit.errors import InputError, InputTypeError, StateError
from jellyfit.neurons.base import BaseNode, MemoryModule, StepModule
from jellyfit.neurons.pure import twin_of, with_own_buffers

__all__ = ["Checkpointed", "checkpoint", "checkpoint_blocks"]


def checkpoint(module: nn.Module, x: Tensor, chunks: int = 1) -> Any:
    """``module(x)``, of which nothing is kept for backward but the input and the states at the start of each chunk.

    Args:
        module: any module; neurons, containers and backbones in it go on from their states as in any call.
        x: its input; a sequence ``[T, N, *]`` if there is more than one chunk.
        chunks: into how many stretches of time the sequence is cut, each a segment of its own; default 1. With more,
            ``module`` must be in step mode ``"m"``, and what looks at the whole sequence sees one chunk: batch norm
            then takes its statistics over a chunk.

    Returns:
        The module's output; of several chunks, their outputs one behind the other.

    Raises:
        InputError: ``chunks`` below 1, or an empty sequence.
        InputTypeError: several chunks of a module whose output is no tensor.
        StateError: in backward, if a state of before the call has been changed in place.

    Source: Chen et al., "Training deep nets with sublinear memory cost", arXiv:1604.06174 (2016).

    Examples:
        >>> import torch
        >>> from jellyfit import layers, neurons
        >>> from jellyfit.checkpointing import checkpoint
        >>> net = torch.nn.Sequential(layers.Linear(3, 2, step_mode="m"), neurons.LIFNode(step_mode="m"))
        >>> checkpoint(net, torch.rand(8, 4, 3), chunks=2).shape
        torch.Size([8, 4, 2])
    """
    if chunks < 1:
        raise InputError(f"checkpoint(chunks={chunks}): expected at least 1.")
    if chunks == 1:
        return _segment(module, x)
    if x.ndim < 2 or x.shape[0] == 0:
        raise InputError(f"checkpoint(chunks={chunks}): expected a sequence [T, N, *], T >= 1; got {list(x.shape)}.")
    recording = [node for node in module.modules() if isinstance(node, BaseNode) and node.store_v_seq]
    outputs: list[Tensor] = []
    potentials: list[list[Any]] = [[] for _ in recording]
    with ExitStack() as sequences:
        for inner in module.modules():
            if isinstance(inner, Backbone) and not inner._carried:
                sequences.enter_context(inner.one_sequence())
        for part in x.chunk(chunks):
            y = _segment(module, part)
            if not isinstance(y, Tensor):
                raise InputTypeError(
                    f"checkpoint(chunks={chunks}): {type(module).__name__} gave {type(y).__name__}; expected a tensor "
                    "[T, N, *], to put the chunks together. Use chunks=1."
                )
            outputs.append(y)
            for node, seen in zip(recording, potentials, strict=True):
                seen.append(node.v_seq)
    for node, seen in zip(recording, potentials, strict=True):
        if node.step_mode == "m":  # in single steps it has recorded all by itself
            node._v_seq = [torch.cat(seen)]
    return torch.cat(outputs)


def _segment(module: nn.Module, x: Tensor) -> Any:
    """``module(x)`` as one segment."""
    if not torch.is_grad_enabled():
        return module(x)
    for node in module.modules():
        if isinstance(node, BaseNode):
            node._find_kernels()  # so that twins share them
    before = twin_of(module, with_own_buffers)
    versions = [(tensor, tensor._version) for tensor in _states(before)]
    runs = 0

    def run(x: Tensor) -> Any:
        nonlocal runs
        runs += 1
        if runs == 1:
            return module(x)
        if any(tensor._version != version for tensor, version in versions):
            raise StateError(
                f"checkpoint of {type(module).__name__}: a state of before the call has been changed in place since "
                "then, so that its outputs cannot be computed once more. Write self.v = self.v + x, not self.v += x."
            )
        return twin_of(before, with_own_buffers)(x)

    return torch.utils.checkpoint.checkpoint(run, x, use_reentrant=False)


def _states(module: nn.Module) -> list[Tensor]:
    return [
        value
        for inner in module.modules()
        if isinstance(inner, MemoryModule)
        for value in inner.memories()
        if isinstance(value, Tensor)
    ]


def checkpoint_blocks(blocks: Iterable[nn.Module], x: Tensor, chunks: int = 1) -> Any:
    """Run blocks one after another, each of them a segment (or several, in time).

    Args:
        blocks: a ``Sequential``, or any modules of which each takes the output of the one before. A block should hold
            more than one layer: what lies between blocks is kept.
        x: input of the first.
        chunks: see :func:`checkpoint`.

    Returns:
        The last block's output.

    Raises:
        InputError, InputTypeError, StateError: see :func:`checkpoint`.

    Examples:
        >>> import torch
        >>> from jellyfit import layers, neurons
        >>> from jellyfit.checkpointing import checkpoint_blocks
        >>> def block(features, out):
        ...     return torch.nn.Sequential(layers.Linear(features, out, step_mode="m"), neurons.LIFNode(step_mode="m"))
        >>> checkpoint_blocks([block(3, 5), block(5, 2)], torch.rand(8, 4, 3)).shape
        torch.Size([8, 4, 2])
    """
    y: Any = x
    for block in blocks:
        y = checkpoint(block, y, chunks)
    return y


class Checkpointed(StepModule):
    """A module that keeps nothing of what it computes for backward but its input and states: see :func:`checkpoint`.

    Its ``state_dict`` is that of the module, so a network can be trained with and used without. Starts in step mode
    ``"m"``; in step mode ``"s"`` every step is a segment.

    Args:
        module: what is wrapped.
        chunks: stretches of time in step mode ``"m"``, default 1.

    Raises:
        InputError, InputTypeError, StateError: see :func:`checkpoint`.

    Examples:
        >>> import torch
        >>> from jellyfit import layers, neurons
        >>> from jellyfit.checkpointing import Checkpointed
        >>> block = torch.nn.Sequential(layers.Linear(3, 2, step_mode="m"), neurons.LIFNode(step_mode="m"))
        >>> net = Checkpointed(block, chunks=4)
        >>> net(torch.rand(8, 4, 3)).shape
        torch.Size([8, 4, 2])
        >>> list(net.state_dict())
        ['0.weight', '0.bias']
    """

    _step_mode = "m"

    def __init__(self, module: nn.Module, chunks: int = 1) -> None:
        super().__init__()
        if chunks < 1:
            raise InputError(f"Checkpointed(chunks={chunks}): expected at least 1.")
        self.module = module
        self.chunks = chunks

    def forward(self, x: Tensor) -> Any:
        """What the module gives."""
        return checkpoint(self.module, x, self.chunks if self.step_mode == "m" else 1)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """That of the module."""
        return self.module.state_dict(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        for key in [key for key in state_dict if key.startswith(prefix)]:
            state_dict[f"{prefix}module.{key.removeprefix(prefix)}"] = state_dict.pop(key)  # type: ignore[attr-defined,index]
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"chunks={self.chunks}, step_mode={self.step_mode!r}"
