"""Neurons under ``torch.compile``: one registered operator, so that the compiler sees a whole sequence as one node.

The operator knows the neuron by a number (:data:`NODES`), so it always runs with the neuron's present settings.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from jellyfit.kernels import naive
from jellyfit.kernels.freed import saved_tensors

if TYPE_CHECKING:
    from jellyfit.kernels import FusedStep
    from jellyfit.neurons.base import BaseNode

__all__ = ["NODES", "register", "run"]

_Result = TypeVar("_Result")

NODES: WeakValueDictionary[int, BaseNode] = WeakValueDictionary()
"""Neurons that compiled graphs refer to, by number."""

_numbers = itertools.count()


def register(node: BaseNode) -> int:
    """The number under which ``node`` stands in :data:`NODES` from now on."""
    number = next(_numbers)
    NODES[number] = node
    return number


def run(
    number: int, names: Sequence[str], paths: Sequence[str], node: BaseNode, x_seq: Tensor
) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """What a compiled graph holds of a neuron: spikes ``[T, N, *]``, the states at the end, and ``v_seq`` if stored.

    Args:
        number: of the node in :data:`NODES`.
        names: of its states.
        paths: dotted names of the tensors that its equations use.
        node: the neuron.
        x_seq: ``[T, N, *]``.
    """
    node.materialise(x_seq[0])
    states = [getattr(node, name) for name in names]
    params = []
    for path in paths:
        value = node
        for part in path.split("."):
            value = getattr(value, part)
        params.append(value)
    out = torch.ops.jellyfit.neuron(x_seq.contiguous(), states, params, number, node.store_v_seq)
    return out[0], out[1 : 1 + len(names)], out[-1] if node.store_v_seq else None


@torch.library.custom_op("jellyfit::neuron", mutates_args=())
def _forward(
    x_seq: Tensor, states: Sequence[Tensor], params: Sequence[Tensor], number: int, want_v_seq: bool
) -> list[Tensor]:
    node = NODES[number]
    plan = _plan(node, x_seq)
    if plan is not None:
        spikes, lasts, v_seq = plan(x_seq, states, params, want_v_seq)
        return [spikes, *lasts] if v_seq is None else [spikes, *lasts, v_seq]
    return [tensor.clone() for tensor in _eager(node, x_seq, states, params, want_v_seq)]


@_forward.register_fake
def _(x_seq: Tensor, states: Sequence[Tensor], params: Sequence[Tensor], number: int, want_v_seq: bool) -> list[Tensor]:
    wide = torch.promote_types(x_seq.dtype, torch.float32)
    out = [torch.empty_like(x_seq), *(torch.empty_like(x_seq[0], dtype=wide) for _ in states)]
    return [*out, torch.empty_like(x_seq, dtype=wide)] if want_v_seq else out


@torch.library.custom_op("jellyfit::neuron_backward", mutates_args=())
def _backward(
    grads: Sequence[Tensor],
    x_seq: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    number: int,
    want_v_seq: bool,
) -> list[Tensor]:
    node = NODES[number]
    plan = _plan(node, x_seq)
    if plan is not None:
        grad_v_seq = grads[-1] if want_v_seq else None
        found = plan.gradients(x_seq, states, params, grads[0], grads[1 : 1 + len(states)], grad_v_seq)
    else:
        found = _with_autograd(_eager_gradients, node, grads, x_seq, states, params, want_v_seq)
    return [
        torch.zeros_like(tensor) if grad is None else grad.contiguous()
        for grad, tensor in zip(found, (x_seq, *states, *params), strict=True)
    ]


@_backward.register_fake
def _(
    grads: Sequence[Tensor],
    x_seq: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    number: int,
    want_v_seq: bool,
) -> list[Tensor]:
    return [torch.empty_like(tensor) for tensor in (x_seq, *states, *params)]


def _eager(
    node: BaseNode, x_seq: Tensor, states: Sequence[Tensor], params: Sequence[Tensor], want_v_seq: bool
) -> list[Tensor]:
    spikes, lasts, sequences = naive.run(node.kernels.step, x_seq, states, params)
    return [spikes, *lasts, *([sequences[node.kernels.states.index("v")]] if want_v_seq else [])]


def _eager_gradients(
    node: BaseNode,
    grads: Sequence[Tensor],
    x_seq: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    want_v_seq: bool,
) -> list[Tensor | None]:
    inputs = [tensor.detach().requires_grad_() for tensor in (x_seq, *states, *params)]
    outputs = _eager(node, inputs[0], inputs[1 : 1 + len(states)], inputs[1 + len(states) :], want_v_seq)
    pairs = [(output, grad) for output, grad in zip(outputs, grads, strict=True) if output.requires_grad]
    return list(torch.autograd.grad([o for o, _ in pairs], inputs, [g for _, g in pairs], allow_unused=True))


def _plan(node: BaseNode, x_seq: Tensor) -> FusedStep | None:
    if not x_seq.numel():
        return None
    return node.kernels.plan(x_seq, _with_autograd)


def _with_autograd(function: Callable[..., _Result], *args: object) -> _Result:
    """Call it where autograd works: inside an operator it is switched off for this thread, so in another one."""
    with ThreadPoolExecutor(1) as other:
        return other.submit(function, *args).result()


def _setup_context(ctx: object, inputs: tuple[object, ...], output: object) -> None:
    x_seq, states, params, number, want_v_seq = inputs
    ctx.save_for_backward(x_seq, *states, *params)  # type: ignore[attr-defined,misc]
    ctx.sizes, ctx.number, ctx.want_v_seq = (len(states), len(params)), number, want_v_seq  # type: ignore[attr-defined,arg-type]


def _gradient(ctx: object, grads: Sequence[Tensor]) -> tuple[object, ...]:
    x_seq, *tensors = saved_tensors(ctx)
    states, params = ctx.sizes  # type: ignore[attr-defined]
    found = torch.ops.jellyfit.neuron_backward(
        [grad.contiguous() for grad in grads],
        x_seq,
        tensors[:states],
        tensors[states:],
        ctx.number,  # type: ignore[attr-defined]
        ctx.want_v_seq,  # type: ignore[attr-defined]
    )
    return found[0], found[1 : 1 + states], found[1 + states : 1 + states + params], None, None


_forward.register_autograd(_gradient, setup_context=_setup_context)
