"""Layers that run as one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jellyfit import kernels
from jellyfit.kernels.layout import is_dense_sequence
from jellyfit.layers.stateless import BatchNorm1d, BatchNorm2d, BatchNorm3d, is_whole, next_batch_of
from jellyfit.neurons.base import BaseNode
from jellyfit.neurons.pure import is_backward_running

__all__ = ["Sequential", "batch_norm_neuron"]

_NORMS = (BatchNorm1d, BatchNorm2d, BatchNorm3d)


class Sequential(nn.Sequential):
    """``torch.nn.Sequential`` in which a batch norm followed by a neuron runs as one kernel where that is faster.

    The numbers are those of the two layers, to the bit, and so are parameters and ``state_dict``. The pair runs as two
    layers when one of them has hooks of its own (a monitor looks at what stands between them), and wherever
    :func:`batch_norm_neuron` does.

    Args:
        modules: applied in turn, as in ``torch.nn.Sequential``.

    Examples:
        >>> import torch
        >>> from jellyfit import layers, neurons
        >>> net = layers.Sequential(layers.BatchNorm1d(3, step_mode="m"), neurons.IFNode(step_mode="m"))
        >>> net(torch.zeros(5, 2, 3)).shape
        torch.Size([5, 2, 3])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers one after another."""
        modules = list(self)
        i = 0
        while i < len(modules):
            layer, behind = modules[i], modules[i + 1] if i + 1 < len(modules) else None
            if isinstance(layer, _NORMS) and isinstance(behind, BaseNode):
                x = batch_norm_neuron(layer, behind, x)
                i += 2
            else:
                x = layer(x)
                i += 1
        return x


def batch_norm_neuron(norm: nn.Module, node: BaseNode, x_seq: Tensor, residual: Tensor | None = None) -> Tensor:
    """``node(norm(x_seq))`` or ``node(norm(x_seq) + residual)``, as one kernel where it can be.

    It can for float32 sequences on the CPU. What is normalised is then neither written to memory nor kept for backward.

    Args:
        norm: batch norm in step mode ``"m"``; any other norm is applied, and then the neuron.
        node: neuron in step mode ``"m"``.
        x_seq: ``[T, N, C, *]``.
        residual: of the same shape; default: none.

    Returns:
        Spikes ``[T, N, C, *]``.

    Examples:
        >>> import torch
        >>> from jellyfit import layers, neurons
        >>> norm, node = layers.BatchNorm2d(3, step_mode="m"), neurons.IFNode(step_mode="m")
        >>> layers.batch_norm_neuron(norm, node, torch.zeros(5, 2, 3, 8, 8)).shape
        torch.Size([5, 2, 3, 8, 8])
    """
    if (
        isinstance(norm, _NORMS)
        and _can_run_as_one(norm, node, x_seq)
        and (residual is None or _is_like(residual, x_seq))
    ):
        if is_backward_running():
            node._check_not_recomputed()
        plan = node.kernels.plan(x_seq, affine=True, residual=residual is not None)
        if plan is not None:
            return node.kernels.run(node, plan, x_seq, next_batch_of(norm), residual)
    y = norm(x_seq)
    return node(y if residual is None else y + residual)  # type: ignore[no-any-return]


def _can_run_as_one(norm: BatchNorm1d | BatchNorm2d | BatchNorm3d, node: BaseNode, x: Tensor) -> bool:
    return (
        kernels.on_host(x)
        and x.ndim - 1 in norm.step_ndims
        and type(norm).forward is BatchNorm2d.forward  # one that does more has methods of its own
        and type(norm).run_batch is BatchNorm2d.run_batch
        and norm.step_mode == node.step_mode == "m"
        and node.backend in ("auto", "cpu")
        and is_whole(norm)
        and norm.weight.dtype == norm.running_mean.dtype == norm.running_var.dtype == torch.float32  # type: ignore[union-attr]
        and norm.num_features == x.shape[2]
        and x.numel() > x.shape[2]
        and is_dense_sequence(x)
        and type(node).forward is BaseNode.forward
        and type(node).multi_step_forward is BaseNode.multi_step_forward
        and not (_is_watched(norm) or _is_watched(node))
        and not torch.is_anomaly_enabled()
    )


def _is_like(residual: Tensor, x: Tensor) -> bool:
    return kernels.applicable(residual) and (residual.shape, residual.dtype, residual.device) == (
        x.shape,
        x.dtype,
        x.device,
    )


def _is_watched(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )
