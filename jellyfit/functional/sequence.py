"""Sequences: modules run over time, in chunks, with truncated back-propagation; delays; order of axes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from jellyfit.errors import InputError
from jellyfit.functional.network import detach_net, reset_net

__all__ = [
    "batch_first",
    "chunk_multi_step_forward",
    "delay",
    "delay_step",
    "multi_step_forward",
    "seq_to_ann_forward",
    "t_last_multi_step_forward",
    "t_last_seq_to_ann_forward",
    "time_first",
    "truncated_bptt",
]

Modules = Callable[[Tensor], Any] | list[nn.Module] | tuple[nn.Module, ...] | nn.Sequential


def _check_sequence(x_seq: Tensor, what: str) -> None:
    if x_seq.ndim < 2 or x_seq.shape[0] == 0:
        raise InputError(f"{what}: expected a sequence [T, N, *] with T >= 1; got shape {list(x_seq.shape)}.")


def _check_time_last(x_seq: Tensor, what: str) -> None:
    if x_seq.ndim < 2 or x_seq.shape[-1] == 0:
        raise InputError(f"{what}: expected a sequence [N, *, T] with T >= 1; got shape {list(x_seq.shape)}.")


def _check_chunk(chunk: int, what: str) -> None:
    if not isinstance(chunk, int) or isinstance(chunk, bool) or chunk < 1:
        raise InputError(f"{what}={chunk!r}: expected a whole number of time steps, at least 1.")


def _chain(modules: Modules) -> Callable[[Tensor], Any]:
    if not isinstance(modules, (list, tuple)):
        return modules

    def run(x: Tensor) -> Any:
        for module in modules:
            x = module(x)
        return x

    return run


def time_first(x: Tensor, contiguous: bool = False) -> Tensor:
    """Batch-first data ``[N, T, *]`` as a sequence ``[T, N, *]``.

    Args:
        x: ``[N, T, *]``.
        contiguous: copy, so that every time step lies together in memory; default ``False``: a view.

    Raises:
        InputError: fewer than two axes.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> functional.time_first(torch.zeros(32, 10, 3)).shape
        torch.Size([10, 32, 3])
    """
    if x.ndim < 2:
        raise InputError(f"time_first and batch_first swap the first two axes; got shape {list(x.shape)}.")
    swapped = x.transpose(0, 1)
    return swapped.contiguous() if contiguous else swapped


def batch_first(x: Tensor, contiguous: bool = False) -> Tensor:
    """A sequence ``[T, N, *]`` as batch-first data ``[N, T, *]``.

    Args:
        x: ``[T, N, *]``.
        contiguous: copy, so that every sample lies together in memory; default ``False``: a view.

    Raises:
        InputError: fewer than two axes.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> functional.batch_first(torch.zeros(10, 32, 3)).shape
        torch.Size([32, 10, 3])
    """
    return time_first(x, contiguous)


def multi_step_forward(x_seq: Tensor, single_step_module: Modules) -> Tensor:
    """Run single-step modules over a sequence, one time step after another.

    Args:
        x_seq: ``[T, N, *]``.
        single_step_module: a module (or a list of them, applied in turn) that maps ``[N, *]`` to ``[N, *]``.

    Returns:
        ``[T, N, *]``.

    Raises:
        InputError: ``x_seq`` is no sequence.

    Examples:
        >>> import torch
        >>> from jellyfit import functional, neurons
        >>> functional.multi_step_forward(torch.full((4, 1, 1), 0.6), neurons.IFNode(backend="torch")).flatten()
        tensor([0., 1., 0., 1.])
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

    Raises:
        InputError: ``x_seq`` is no sequence, or the module does not keep the first axis.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> functional.seq_to_ann_forward(torch.zeros(4, 2, 3), torch.nn.Linear(3, 5)).shape
        torch.Size([4, 2, 5])
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


def t_last_multi_step_forward(x_seq: Tensor, single_step_module: Modules) -> Tensor:
    """:func:`multi_step_forward` for sequences with time last.

    Args:
        x_seq: ``[N, *, T]``.
        single_step_module: a module (or a list of them, applied in turn) that maps ``[N, *]`` to ``[N, *]``.

    Returns:
        ``[N, *, T]``.

    Raises:
        InputError: ``x_seq`` is no sequence.

    Examples:
        >>> import torch
        >>> from jellyfit import functional, neurons
        >>> functional.t_last_multi_step_forward(torch.full((1, 4), 0.6), neurons.IFNode(backend="torch"))
        tensor([[0., 1., 0., 1.]])
    """
    _check_time_last(x_seq, "t_last_multi_step_forward")
    run = _chain(single_step_module)
    return torch.stack([run(x) for x in x_seq.unbind(-1)], dim=-1)


def t_last_seq_to_ann_forward(x_seq: Tensor, stateless_module: Modules) -> Tensor:
    """:func:`seq_to_ann_forward` for sequences with time last.

    Args:
        x_seq: ``[N, *, T]``.
        stateless_module: a module (or a list of them, applied in turn) that maps ``[B, *]`` to ``[B, *]``.

    Returns:
        ``[N, *, T]``.

    Raises:
        InputError: ``x_seq`` is no sequence, or the module does not keep the first axis.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> functional.t_last_seq_to_ann_forward(torch.zeros(2, 3, 7), torch.nn.Linear(3, 5)).shape
        torch.Size([2, 5, 7])
    """
    _check_time_last(x_seq, "t_last_seq_to_ann_forward")
    return seq_to_ann_forward(x_seq.movedim(-1, 0), stateless_module).movedim(0, -1)


def chunk_multi_step_forward(split_size: int, x_seq: Tensor, multi_step_module: Callable[[Tensor], Tensor]) -> Tensor:
    """Run a multi-step module over a sequence in chunks of time, which needs less memory at a time.

    The state goes on from chunk to chunk, so the result is that of one call. (A backbone resets itself at every call:
    give it ``carry_state=True``.)

    Args:
        split_size: time steps a chunk; the last one may be shorter.
        x_seq: ``[T, N, *]``.
        multi_step_module: maps ``[t, N, *]`` to ``[t, N, *]``.

    Returns:
        ``[T, N, *]``.

    Raises:
        InputError: ``x_seq`` is no sequence, or ``split_size`` is no whole number above 0.

    Examples:
        >>> import torch
        >>> from jellyfit import functional, neurons
        >>> node = neurons.IFNode(step_mode="m", backend="torch")
        >>> functional.chunk_multi_step_forward(3, torch.full((4, 1, 1), 0.6), node).flatten()
        tensor([0., 1., 0., 1.])
    """
    _check_sequence(x_seq, "chunk_multi_step_forward")
    _check_chunk(split_size, "chunk_multi_step_forward: split_size")
    return torch.cat([multi_step_module(chunk) for chunk in torch.split(x_seq, split_size)])


def delay(x_seq: Tensor, delay_steps: int) -> Tensor:
    """A sequence that comes ``delay_steps`` later: zeros first, and the last steps are lost.

    Args:
        x_seq: ``[T, *]``.
        delay_steps: 0 or more.

    Returns:
        ``[T, *]``.

    Raises:
        InputError: a negative delay.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> functional.delay(torch.tensor([1.0, 2.0, 3.0, 4.0]), 1)
        tensor([0., 1., 2., 3.])
    """
    _check_delay(delay_steps, "delay")
    steps = min(delay_steps, x_seq.shape[0])
    return torch.cat([torch.zeros_like(x_seq[:steps]), x_seq[: x_seq.shape[0] - steps]])


def _check_delay(delay_steps: int, what: str) -> None:
    if not isinstance(delay_steps, int) or isinstance(delay_steps, bool) or delay_steps < 0:
        raise InputError(f"{what}(delay_steps={delay_steps!r}): expected a whole number of time steps, 0 or more.")


def delay_step(x: Tensor, queue: tuple[Tensor, ...], delay_steps: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One step of :func:`delay`: what waits goes in and comes out.

    Args:
        x: this step's input ``[N, *]``.
        queue: the last steps' inputs, oldest first, at most ``delay_steps`` of them; ``()`` at the start.
        delay_steps: 0 or more.

    Returns:
        This step's output ``[N, *]`` (zeros while nothing has arrived) and the new queue.

    Raises:
        InputError: a negative delay.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> queue = ()
        >>> for value in (1.0, 2.0, 3.0):
        ...     y, queue = functional.delay_step(torch.tensor([value]), queue, 1)
        >>> y, queue
        (tensor([2.]), (tensor([3.]),))
    """
    _check_delay(delay_steps, "delay_step")
    queue = (*queue, x)
    if len(queue) <= delay_steps:
        return torch.zeros_like(x), queue
    return queue[0], queue[1:]


@contextlib.contextmanager
def _carrying_state(net: object) -> Iterator[None]:
    """Networks that reset themselves at every call (backbones) do so once, here, and then carry their state."""
    modules = net.modules() if isinstance(net, nn.Module) else ()
    resetting = [module for module in modules if getattr(module, "carry_state", None) is False]
    try:
        for module in resetting:
            reset_net(module)
            module.carry_state = True  # type: ignore[assignment]
        yield
    finally:
        for module in resetting:
            module.carry_state = False  # type: ignore[assignment]


def truncated_bptt(
    net: Callable[[Tensor], Tensor],
    x_seq: Tensor,
    loss_function: Callable[[Tensor, slice], Tensor],
    chunk: int,
    backward: Callable[[Tensor], object] = Tensor.backward,
) -> tuple[Tensor, Tensor]:
    """Truncated back-propagation through time: forward and backward chunk by chunk, in memory that T does not change.

    The state goes on from chunk to chunk, but no gradient does. Gradients of all chunks add up in ``.grad``; the
    caller zeroes them before and steps the optimizer after. A bare network starts from the state it is in
    (``reset_net``), a backbone from a reset one; both are left detached.

    Args:
        net: a network in multi-step mode, ``[t, N, *]`` to ``[t, N, *]``.
        x_seq: ``[T, N, *]``.
        loss_function: ``(outputs of a chunk, slice of its time steps) -> scalar``; the slice picks the targets of
            those steps. The whole loss is the sum over chunks, so divide where it should be a mean.
        chunk: time steps a chunk; the last one may be shorter. ``T`` is back-propagation over the whole sequence.
        backward: how to go backward from a chunk's loss; default ``Tensor.backward``. With Lightning
            ``self.manual_backward``, with a gradient scaler ``lambda loss: scaler.scale(loss).backward()``.

    Returns:
        The sum of the chunks' losses, and the outputs ``[T, N, *]``; both detached.

    Raises:
        InputError: ``x_seq`` is no sequence, or ``chunk`` is no whole number above 0.

    Examples:
        >>> import torch
        >>> from jellyfit import functional, layers, neurons
        >>> net = torch.nn.Sequential(layers.Linear(3, 2), neurons.LIFNode(backend="torch"))
        >>> functional.set_step_mode(net, "m")
        >>> x_seq, target_seq = torch.rand(100, 4, 3), torch.ones(100, 4, 2)
        >>> def loss_function(y, steps):
        ...     return torch.nn.functional.mse_loss(y, target_seq[steps])
        >>> loss, y_seq = functional.truncated_bptt(net, x_seq, loss_function, chunk=10)
        >>> y_seq.shape, net[0].weight.grad.shape
        (torch.Size([100, 4, 2]), torch.Size([2, 3]))

    Source: Williams and Peng, "An efficient gradient-based algorithm for on-line training of recurrent network
    trajectories", Neural Computation 2 (1990).
    """
    _check_sequence(x_seq, "truncated_bptt")
    _check_chunk(chunk, "truncated_bptt: chunk")
    losses, outputs, start = [], [], 0
    with _carrying_state(net):
        for x in torch.split(x_seq, chunk):
            if isinstance(net, nn.Module):
                detach_net(net)
            y = net(x)
            loss = loss_function(y, slice(start, start + x.shape[0]))
            backward(loss)
            losses.append(loss.detach())
            outputs.append(y.detach())
            start += x.shape[0]
    if isinstance(net, nn.Module):
        detach_net(net)
    return torch.stack(losses).sum(), torch.cat(outputs)
