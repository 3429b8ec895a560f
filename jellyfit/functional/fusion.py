"""Batch norm merged into the convolution before it, for inference."""

from __future__ import annotations

import copy
import itertools
from typing import TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from jellyfit.errors import InputError

__all__ = ["fuse_conv_bn", "fuse_conv_bn_eval_modules"]

ConvT = TypeVar("ConvT", bound=_ConvNd)


def fuse_conv_bn(conv: ConvT, bn: _BatchNorm) -> ConvT:
    """A convolution that gives what ``bn(conv(x))`` gives in evaluation mode, in one layer.

    Args:
        conv: a convolution, also transposed; its step mode is kept.
        bn: the batch norm behind it, with running statistics.

    Returns:
        A new convolution with a bias, of the class of ``conv``.

    Raises:
        InputError: one of them is in training mode, ``bn`` has no running statistics, or their channels differ.

    Examples:
        >>> import torch
        >>> from jellyfit import functional, layers
        >>> conv, bn = layers.Conv2d(2, 3, 3, bias=False).eval(), layers.BatchNorm2d(3).eval()
        >>> fused = functional.fuse_conv_bn(conv, bn)
        >>> x = torch.ones(1, 2, 5, 5)
        >>> torch.allclose(fused(x), bn(conv(x)), atol=1e-6)
        True
    """
    if conv.training or bn.training:
        raise InputError("fuse_conv_bn: got a layer in training mode; expected both in evaluation mode. Call .eval().")
    if bn.running_mean is None or bn.running_var is None:
        raise InputError(
            "fuse_conv_bn: the batch norm takes its statistics from each batch (track_running_stats=False); expected "
            "running statistics."
        )
    if conv.out_channels != bn.num_features:
        raise InputError(
            f"fuse_conv_bn: the convolution gives {conv.out_channels} channels, the batch norm takes {bn.num_features}."
        )
    return fuse_conv_bn_eval(conv, bn, transpose=isinstance(conv, _ConvTransposeNd))


def fuse_conv_bn_eval_modules(net: nn.Module) -> nn.Module:
    """A copy of ``net`` in which every batch norm right behind a convolution in a ``Sequential`` is merged into it.

    In its place stands ``nn.Identity``. Pairs that a network's own ``forward`` puts together are not found: merge them
    with :func:`fuse_conv_bn`. The state is not copied to be used: reset the copy before a new sequence.

    Args:
        net: a network in evaluation mode.

    Returns:
        The copy; parameters of other layers are copies too.

    Raises:
        InputError: a pair in training mode.

    Examples:
        >>> import torch
        >>> from jellyfit import functional, layers, neurons
        >>> net = torch.nn.Sequential(layers.Conv2d(2, 3, 3), layers.BatchNorm2d(3), neurons.IFNode()).eval()
        >>> [type(module).__name__ for module in functional.fuse_conv_bn_eval_modules(net)]
        ['Conv2d', 'Identity', 'IFNode']
    """
    net = copy.deepcopy(net)
    for module in net.modules():
        if not isinstance(module, nn.Sequential):
            continue
        names = list(module._modules)
        for first, second in itertools.pairwise(names):
            conv, bn = module._modules[first], module._modules[second]
            if isinstance(conv, _ConvNd) and isinstance(bn, _BatchNorm) and _is_plain(conv, bn):
                module._modules[first] = fuse_conv_bn(conv, bn)
                module._modules[second] = nn.Identity()
    return net


def _is_plain(conv: _ConvNd, bn: _BatchNorm) -> bool:
    return bn.running_mean is not None and conv.out_channels == bn.num_features
