"""Where the elements of a time step lie in memory, and which element of a parameter belongs to each.

Kernels see one step as a row of elements in memory order, whatever its shape and memory format. A parameter that
broadcasts over the step repeats along that row: element ``i`` takes the parameter's element ``i // inner % period``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["Layout", "Param", "aligned", "is_dense_sequence"]

Param: TypeAlias = tuple[Tensor, int, int]
"""A parameter as a kernel takes it: its elements in memory order, the period and the inner size."""


def is_dense_sequence(x: Tensor) -> bool:
    """Whether ``x`` ``[T, N, *]`` is steps one behind the other, each without gaps, in whatever order of its axes."""
    if x.is_contiguous():
        return True
    count = x.numel() // x.shape[0]
    if x.shape[0] > 1 and x.stride(0) != count:
        return False
    expected = 1
    for size, stride in sorted(zip(x.shape[1:], x.stride()[1:], strict=True), key=lambda pair: (pair[1], pair[0])):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def aligned(tensor: Tensor, shape: Sequence[int], stride: Sequence[int], dtype: torch.dtype) -> Tensor:
    """``tensor`` itself if its memory is as asked for, else a copy that is."""
    if tensor.dtype == dtype and tensor.stride() == stride:
        return tensor
    return torch.empty_strided(shape, stride, dtype=dtype, device=tensor.device).copy_(tensor)


@dataclass(frozen=True)
class Layout:
    """The memory order of one time step.

    Attributes:
        shape: of one step.
        order: its axes from the slowest to the fastest in memory.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]

    @classmethod
    def of(cls, x: Tensor) -> Layout:
        """The layout of the steps of a dense sequence ``[T, N, *]``."""
        shape = tuple(x.shape[1:])
        if x.is_contiguous():
            return cls(shape, tuple(range(len(shape))))
        stride = x.stride()[1:]
        return cls(shape, tuple(sorted(range(len(shape)), key=lambda axis: (-stride[axis], -shape[axis]))))

    def _group(self, shape: Sequence[int]) -> tuple[list[int], int, int]:
        """Size of each axis of a parameter of ``shape``, and the positions in :attr:`order` between which it varies."""
        sizes = [1] * (len(self.shape) - len(shape)) + list(shape)
        varying = [i for i, axis in enumerate(self.order) if sizes[axis] != 1]
        return (sizes, varying[0], varying[-1] + 1) if varying else (sizes, 0, 0)

    def indexing(self, shape: Sequence[int]) -> tuple[int, int]:
        """Period and inner size of a parameter of ``shape``."""
        _, begin, end = self._group(shape)
        memory = [self.shape[axis] for axis in self.order]
        return math.prod(memory[begin:end]), math.prod(memory[end:])

    def pack(self, tensor: Tensor, dtype: torch.dtype) -> Param:
        """A parameter as a kernel takes it."""
        if tensor.numel() == 1:
            return (tensor if tensor.dtype == dtype else tensor.to(dtype)), 1, math.prod(self.shape)
        sizes, begin, end = self._group(tensor.shape)
        memory = [self.shape[axis] for axis in self.order]
        if end - begin == 1 and tensor.dtype == dtype and tensor.is_contiguous():  # nothing to put in order
            return tensor, memory[begin], math.prod(memory[end:])
        ordered = tensor.reshape(sizes).permute(self.order)
        target = [size if begin <= i < end else 1 for i, size in enumerate(memory)]
        return ordered.expand(target).to(dtype).contiguous(), math.prod(memory[begin:end]), math.prod(memory[end:])

    def unpack_sum(self, total: Tensor, shape: Sequence[int], result: Sequence[int]) -> Tensor:
        """A sum over the elements of each period of a parameter of ``shape``, as a tensor of shape ``result``.

        The way back of :meth:`pack`.
        """
        sizes, begin, end = self._group(shape)
        if end - begin <= 1:
            return total.view(result)
        ordered = total.reshape([self.shape[axis] if begin <= i < end else 1 for i, axis in enumerate(self.order)])
        back = ordered.permute([self.order.index(axis) for axis in range(len(self.order))])
        extra = [axis for axis, size in enumerate(sizes) if size == 1 and back.shape[axis] != 1]
        return (back.sum(extra, keepdim=True) if extra else back).reshape(result)
