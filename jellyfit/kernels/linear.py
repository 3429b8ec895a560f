"""Matrix products of linear layers, by the faster of the two libraries that PyTorch carries.

On x86 PyTorch multiplies float32 matrices with MKL, which uses AVX-512 on Intel's processors alone. On those of AMD
that have it (Zen 4 and later) oneDNN, there for convolutions, is about twice as fast: 190 to 260 GFLOP/s a core where
MKL makes 80 to 115. Everywhere else, and in all that is not a plain product, :func:`linear` is PyTorch's own.

What decides is the processor and the shapes, never a clock or the number of threads: the same run takes the same path.
"""

from __future__ import annotations

import functools
import math
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jellyfit import kernels
from jellyfit.kernels.freed import saved_tensors

__all__ = ["Linear", "linear", "outruns"]

_Product = Callable[[Tensor, Tensor, Tensor | None, str, list[Any], str], Tensor]

_DESCRIPTION = Path("/proc/cpuinfo")

# Multiply-adds of one product, measured on Zen 5. A call of oneDNN's costs 10 µs more than one of MKL's, and a node in
# Python some more: with two threads that share the work, all that is saved in 5 million.
_LEAST = 6_000_000
# A product of fewer rows or features is over before its matrix is read, which no arithmetic makes faster.
_NARROWEST = 4
# The gradient of a smaller weight is few sums over many rows, which oneDNN shares badly among threads.
_SMALLEST_WEIGHT = 1 << 13


def _is_amd() -> bool:
    try:
        described = _DESCRIPTION.read_text(encoding="utf-8", errors="replace")
    except OSError:
        described = platform.processor()  # on Windows it ends with the vendor
    return "AuthenticAMD" in described


@functools.cache
def _product() -> _Product | None:
    """``(x, weight, bias, "none", [], "") -> x @ weight.T + bias`` of oneDNN where it is the faster one, else ``None``.

    It is what ``torch.compile`` calls for linear layers, and not promised to stay: a PyTorch without it has its own.
    """
    if not torch._C.has_mkl or torch.backends.cpu.get_cpu_capability() != "AVX512" or not _is_amd():
        return None
    return onednn_product()


def onednn_product() -> _Product | None:
    """The operation, whatever the processor; ``None`` where this PyTorch does not have it as it is called here."""
    found = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch._C._has_mkldnn else None
    names = [] if found is None else [argument.name for argument in found.default._schema.arguments]
    product: _Product | None = found.default if names == ["X", "W", "B", "attr", "scalars", "algorithm"] else None  # type: ignore[union-attr]
    return product


def outruns(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether :func:`linear` takes oneDNN's product for these: plain float32 on the CPU, large enough to gain by it.

    Args:
        x: see :func:`linear`; or, of K layers side by side that have a product each, ``[K, *, in_features]``.
        weight: or ``[K, out_features, in_features]``.
        bias: or ``[K, out_features]``.

    Examples:
        >>> import torch
        >>> from jellyfit.kernels.linear import outruns
        >>> outruns(torch.zeros(1, 17), torch.zeros(256, 17))  # an action of a robot: too small
        False
    """
    return (
        not torch.compiler.is_compiling()
        and not torch._C._is_tracing()
        and _product() is not None
        and weight.ndim > 1
        and x.numel() * weight.shape[-2] >= _LEAST
        and _gains(x, weight)
        and kernels.on_host(*(tensor for tensor in (x, weight, bias) if tensor is not None))
        and (bias is None or (bias.shape == weight.shape[:-1] and bias.is_contiguous()))  # oneDNN looks at no strides
        and torch._C._get_mkldnn_enabled()
    )


def _gains(x: Tensor, weight: Tensor) -> bool:
    """Whether the shapes fit, and make products that are large enough."""
    *number, out_features, in_features = weight.shape
    values = x.numel() // math.prod(number)  # of the input of one product
    return (
        x.ndim >= weight.ndim
        and x.shape[-1] == in_features
        and min(values // in_features, in_features, out_features) >= _NARROWEST
        and values * out_features >= _LEAST
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear``, with oneDNN's product in both passes where that :func:`outruns` MKL's.

    The two differ by roundings. Gradients of any order go through; only those that are asked for are computed.

    Args:
        x: ``[*, in_features]``.
        weight: ``[out_features, in_features]``.
        bias: ``[out_features]``, default none.

    Returns:
        ``x weightᵀ + bias``, ``[*, out_features]``.

    Examples:
        >>> import torch
        >>> from jellyfit.kernels.linear import linear
        >>> linear(torch.ones(5, 2, 3), torch.ones(4, 3), torch.ones(4))[0, 0].tolist()
        [4.0, 4.0, 4.0, 4.0]
    """
    if outruns(x, weight, bias):
        return _Linear.apply(x, weight, bias)  # type: ignore[no-any-return, no-untyped-call]
    return F.linear(x, weight, bias)


def _dense(matrix: Tensor) -> Tensor:
    """Without gaps between rows or columns: with them oneDNN takes its reference code, a thousand times slower."""
    return matrix.contiguous() if matrix.stride(1) == 1 else matrix.t().contiguous().t()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(
            x if ctx.needs_input_grad[1] else None,
            weight if ctx.needs_input_grad[0] else None,
        )
        product = _product()
        assert product is not None
        return product(x, _dense(weight), bias, "none", [], "")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = saved_tensors(ctx)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = linear(grad, weight.t())
        rows = grad.reshape(-1, grad.shape[-1])
        if ctx.needs_input_grad[1]:
            columns = x.reshape(-1, x.shape[-1]).t()
            large = len(columns) * rows.shape[1] >= _SMALLEST_WEIGHT
            grad_weight = (linear if large else F.linear)(rows.t(), columns)
        if ctx.needs_input_grad[2]:
            grad_bias = rows.sum(0)
        return grad_x, grad_weight, grad_bias


class Linear(nn.Linear):
    """``torch.nn.Linear`` through :func:`linear`: the same arguments, parameters and ``state_dict``.

    Examples:
        >>> import torch
        >>> from jellyfit.kernels.linear import Linear
        >>> Linear(3, 7)(torch.zeros(5, 3)).shape
        torch.Size([5, 7])
    """

    def forward(self, x: Tensor) -> Tensor:
        """``[*, in_features] -> [*, out_features]``."""
        return linear(x, self.weight, self.bias)
