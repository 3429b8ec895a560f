"""Modules as pure functions of input and state: what they remember goes in and comes out, and nothing else changes.

A *twin* is a shallow copy of a module and of all modules in it: the same parameters and buffers, memories of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from jellyfit.errors import InputError

__all__ = ["call", "fresh_twin_of", "is_backward_running", "twin_of", "with_own_buffers"]


def is_backward_running() -> bool:
    """Whether this is called from inside a backward pass, where ``torch.utils.checkpoint`` runs modules once more."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def twin_of(module: Any, replace: Callable[[Any], None] | None = None, made: dict[int, Any] | None = None) -> Any:
    """A twin of ``module``, made without running any code of its class.

    Args:
        module: any ``nn.Module``.
        replace: called with every twin as soon as it has tables of its own, to put other tensors into them.
        made: twins by the identity of their originals, so that a module used twice has one twin.
    """
    made = {} if made is None else made
    if id(module) in made:
        return made[id(module)]
    twin = made[id(module)] = object.__new__(type(module))
    twin.__dict__ = dict(module.__dict__)
    twin.__dict__["_is_twin"] = True
    if replace is not None:
        for table in ("_parameters", "_buffers"):
            twin.__dict__[table] = dict(getattr(module, table))
        replace(twin)
    twin.__dict__["_modules"] = {
        name: None if child is None else twin_of(child, replace, made) for name, child in module._modules.items()
    }
    return twin


def with_own_buffers(twin: nn.Module) -> None:
    """For :func:`twin_of`: copies of the buffers, so that the original's (of a batch norm, say) stay as they are."""
    for name, buffer in twin._buffers.items():
        if buffer is not None and not buffer.requires_grad:
            twin._buffers[name] = buffer.clone()


def _memories(module: nn.Module) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Of every memory in ``module``: its dotted name, and where it lives."""
    for prefix, inner in module.named_modules():
        records = getattr(inner, "_records", ())
        for name in getattr(inner, "_memories", ()):
            if name not in records:
                yield (f"{prefix}.{name}" if prefix else name), inner.__dict__, name


def fresh_twin_of(module: Any) -> Any:
    """A twin that remembers nothing."""
    twin = twin_of(module)
    for inner in twin.modules():
        if getattr(inner, "_memories", None) is not None:
            inner.reset()
    return twin


def call(
    module: nn.Module, *inputs: Any, state: Mapping[str, Any] | None = None, step_mode: str
) -> tuple[Any, dict[str, Any]]:
    """Output of ``module`` from ``state``, and the state after it; ``module`` itself stays as it is.

    Args:
        module: has memories, or holds modules that have.
        inputs: of its forward pass: one step ``[N, *]`` or a sequence ``[T, N, *]``.
        state: by dotted name, as this function gives it; what is missing starts afresh, and
            ``None`` is a fresh start.
        step_mode: ``"s"`` or ``"m"``; of the outermost module alone.

    Raises:
        InputError: ``state`` names something that is no memory of ``module``.
    """
    twin = fresh_twin_of(module)
    twin.__dict__["_step_mode"] = step_mode
    remembered = {path: (owner, name) for path, owner, name in _memories(twin)}
    unknown = set(state or ()) - remembered.keys()
    if unknown:
        raise InputError(
            f"{type(module).__name__}: the state given holds {sorted(unknown)}, which it does not remember; expected "
            f"some of {sorted(remembered)}."
        )
    for path, value in (state or {}).items():
        owner, name = remembered[path]
        owner[name] = value
    output = twin.forward(*inputs)
    return output, {path: owner[name] for path, (owner, name) in remembered.items()}
