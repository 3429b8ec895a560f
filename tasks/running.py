"""One forward pass of a network, with what saves memory or time in training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from jellyfit.checkpointing import checkpoint
from jellyfit.kernels import SpikeCompression

__all__ = ["run_backbone"]


def run_backbone(
    backbone: nn.Module, x: Tensor, compiled: bool = False, time_chunks: int = 1, spike_compression: bool = False
) -> Tensor:
    """``backbone(x)``, ``[T, N, *] -> [T, N, C]``.

    Args:
        backbone: the network; with ``compiled`` it is compiled in place, at the first call.
        x: its input.
        compiled: run it through ``torch.compile``, unless hooks look into it, which a compiled network does not call.
        time_chunks: see :func:`jellyfit.checkpointing.checkpoint`; where gradients are wanted.
        spike_compression: see :class:`jellyfit.kernels.SpikeCompression`; where gradients are wanted.

    Examples:
        >>> import torch
        >>> from jellyfit.backbones import SpikingMLP
        >>> from jellyfit.tasks.running import run_backbone
        >>> run_backbone(SpikingMLP(4, 2), torch.rand(8, 3, 4), time_chunks=2).shape
        torch.Size([8, 3, 2])
    """
    if compiled:
        if any(module._forward_hooks or module._forward_pre_hooks for module in backbone.modules()):
            with _uncompiled(backbone):
                return backbone(x)  # type: ignore[no-any-return]
        if backbone._compiled_call_impl is None:  # also of a copy: nothing compiled is copied
            backbone.compile()
        return backbone(x)  # type: ignore[no-any-return]
    if not torch.is_grad_enabled():
        return backbone(x)  # type: ignore[no-any-return]
    with SpikeCompression() if spike_compression else nullcontext():
        return checkpoint(backbone, x, time_chunks) if time_chunks > 1 else backbone(x)  # type: ignore[no-any-return]


@contextmanager
def _uncompiled(backbone: nn.Module) -> Iterator[None]:
    kept, backbone._compiled_call_impl = backbone._compiled_call_impl, None
    try:
        yield
    finally:
        backbone._compiled_call_impl = kept
