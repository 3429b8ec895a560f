"""What the kernels compute, in the plainest words: the eager twin."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jellyfit.kernels.trace import StepFunction

__all__ = ["run"]


def run(
    step: StepFunction, x_seq: Tensor, states: Sequence[Tensor], params: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Run ``step`` over a sequence ``[T, N, *]``, one step after another.

    Args:
        step: one time step, see :func:`jellyfit.kernels.trace.trace_step`.
        x_seq: input; half precision is widened, and the spikes narrowed again.
        states: states before the first step, each ``[N, *]``.
        params: the step's parameters.

    Returns:
        Spikes ``[T, N, *]``, the states after the last step, and each state after every step, ``[T, N, *]``.
    """
    wide = x_seq.to(torch.promote_types(x_seq.dtype, torch.float32))
    spikes, history = [], []
    for x in wide.unbind(0):
        spike, states = step(x, states, params, lambda equation, **named: None)
        spikes.append(spike)
        history.append(states)
    sequences = [torch.stack(steps) for steps in zip(*history, strict=True)]
    return torch.stack(spikes).to(x_seq.dtype), list(states), sequences
