"""torch's optimizers in the form that steps fastest on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["use_fused"]

_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)


def use_fused(optimizer: Optimizer) -> Optimizer:
    """Have Adam, AdamW and SGD of parameters on the CPU take their steps in one pass, as with ``fused=True``.

    Weights are those of the other form but for roundings; steps of networks with millions of parameters take a fraction
    of the time. Whoever has set ``fused`` or ``foreach`` keeps it. Everything else stays as it is: other optimizers and
    subclasses, other devices, parameters that are not real numbers or not plain tensors, ``differentiable``,
    ``capturable``, and learning rates that are tensors.

    Args:
        optimizer: changed in place, group by group, before its first step. The choice is part of its state: what is
            loaded goes on as it was saved.

    Returns:
        The same optimizer.

    Examples:
        >>> import torch
        >>> from jellyfit.optimizers import use_fused
        >>> net = torch.nn.Linear(3, 2)
        >>> use_fused(torch.optim.SGD(net.parameters(), lr=0.1)).param_groups[0]["fused"]
        True
        >>> use_fused(torch.optim.SGD(net.parameters(), lr=0.1, fused=False)).param_groups[0]["fused"]
        False
    """
    if type(optimizer) in _FUSED:
        for group in optimizer.param_groups:
            undecided = group["fused"] is None and group["foreach"] is None
            plain = not (group["differentiable"] or group.get("capturable") or isinstance(group["lr"], Tensor))
            if undecided and plain and all(_is_for_fused(parameter) for parameter in group["params"]):
                group["fused"] = True
    return optimizer


def _is_for_fused(parameter: Tensor) -> bool:
    return type(parameter) in (Tensor, nn.Parameter) and parameter.is_cpu and parameter.is_floating_point()
