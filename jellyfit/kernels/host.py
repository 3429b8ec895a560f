"""Kernels on the host: C, compiled by the host's compiler, vectorised, on every core."""

from __future__ import annotations

import ctypes
import functools
import re
import sys
from collections.abc import Callable, Sequence
from struct import Struct

import torch
from torch import Tensor

from jellyfit import native
from jellyfit.kernels import vector
from jellyfit.kernels.emit import KernelSpec
from jellyfit.kernels.errors import KernelUnavailableError
from jellyfit.kernels.host_source import BLOCK, STRETCH, Writer
from jellyfit.kernels.layout import Param

__all__ = ["FLAGS", "STRETCH", "HostTarget", "load"]

_SCRATCH = 1 << 18  # bytes that a block's kept values may take: they should stay in the second-level cache

_OPENMP = "-fopenmp-simd" if sys.platform == "darwin" else "-fopenmp"  # Apple's compiler has vectors, but no threads
FLAGS = (_OPENMP, "-fno-math-errno", "-fno-trapping-math", "-lm")


def load(name: str, source: str, real: torch.dtype) -> Callable[[bytes], None] | None:
    """Compile a source of :class:`Writer`, or take it from the cache: its ``run``, or ``None`` without a compiler."""
    library = native.load(name, source, FLAGS)
    if library is None:
        return None
    vector.bind(library, source, real)
    run = library.run
    run.argtypes, run.restype = [ctypes.c_char_p], None
    return run


class HostTarget:
    """Runs a step's kernels on the host.

    Args:
        spec: what the kernels are generated from.
    """

    stretch = STRETCH

    def __init__(
        self,
        spec: KernelSpec,
    ) -> None:
        self.program, self.real = spec.program, spec.real
        self._spec = spec
        self._constants: dict[str, ctypes.Array[ctypes.c_double]] = {}
        self._name = re.sub(r"\W+", "_", spec.title) or "neuron"
        self._forward: Callable[[bytes], None] | None = None
        self._backward: Callable[[bytes], None] | None = None
        self._row = 4 * max(1, len(spec.program.keep)) * (2 if spec.real == torch.float64 else 1)

    def source(self, which: str) -> str:
        """The generated source of ``"forward"`` or ``"backward"``."""
        return self._write(which)[0]

    def _write(self, which: str) -> tuple[str, list[float]]:
        writer = Writer(self._spec)
        text = writer.forward() if which == "forward" else writer.backward()
        return text, [value.number for value in writer.names.lifted.values()]

    def _load(self, which: str) -> Callable[[bytes], None]:
        text, numbers = self._write(which)
        self._constants[which] = (ctypes.c_double * len(numbers))(*numbers)
        run = load(f"{self._name}-{which}", text, self.real)
        if run is None:
            raise KernelUnavailableError(native.status().reason or "the generated C code does not compile")
        return run

    def prepare(self) -> None:
        """Compile forward, so that what cannot be compiled shows before anything depends on it."""
        if self._forward is None:
            self._forward = self._load("forward")

    def forward(
        self, x: Tensor, firsts: Sequence[Tensor | None], params: Sequence[Param], want_v_seq: bool, keep: bool
    ) -> tuple[Tensor, list[Tensor], Tensor | None, Tensor | None]:
        """Spikes, the states at the end, the potentials of every step and the states kept for backward.

        ``x`` ``[T, N, *]`` is dense, and what is given and returned has its memory order.
        """
        steps, count = x.shape[0], x.numel() // x.shape[0]
        spikes = torch.empty_like(x)
        if x.is_contiguous():  # the quicker way to make them
            lasts = [torch.empty(x.shape[1:], dtype=self.real, device=x.device) for _ in firsts]
        else:
            lasts = [torch.empty_strided(x.shape[1:], x.stride()[1:], dtype=self.real, device=x.device) for _ in firsts]
        v_seq = torch.empty_like(x, dtype=self.real) if want_v_seq else None
        stretches = (steps - 1) // STRETCH
        kept = (
            torch.empty(stretches, len(firsts), count, dtype=self.real, device=x.device)
            if keep and stretches and firsts
            else None
        )
        if self._forward is None:
            self._forward = self._load("forward")
        elements, threads = _split(count, steps, BLOCK)
        arguments = [count, steps, elements, threads, x.data_ptr(), spikes.data_ptr(), _pointer(v_seq), _pointer(kept)]
        arguments += [_pointer(first) for first in firsts]
        arguments += [last.data_ptr() for last in lasts]
        for tensor, period, inner in params:
            arguments += [tensor.data_ptr(), period, inner]
        arguments.append(ctypes.addressof(self._constants["forward"]))
        self._forward(_struct(len(arguments)).pack(*arguments))
        return spikes, lasts, v_seq, kept

    def backward(
        self,
        x: Tensor,
        firsts: Sequence[Tensor | None],
        params: Sequence[Param],
        kept: Tensor | None,
        grad_spikes: Tensor,
        grad_lasts: Sequence[Tensor | None],
        grad_v_seq: Tensor | None,
        sums: Sequence[tuple[int, int]],
    ) -> tuple[Tensor, list[Tensor | None], list[Tensor]]:
        """Gradients of the input, of the states given at the start, and the sums (period and inner size given)."""
        steps, count = x.shape[0], x.numel() // x.shape[0]
        grad_x = torch.empty_like(x)
        grad_firsts = [None if first is None else torch.empty_like(first) for first in firsts]
        if self._backward is None:
            self._backward = self._load("backward")
        room = _SCRATCH // (self._row * min(steps, STRETCH))
        elements, threads = _split(count, steps, max(64, min(BLOCK, room // 64 * 64)))
        blocks = -(-count // elements)
        width = sum(period for period, _ in sums)
        chunks = min(blocks, 64 if width * 256 <= count else 8) if sums else blocks
        totals = torch.empty(width, dtype=self.real, device=x.device) if sums else None
        arguments = [count, steps, elements, threads, chunks, width, x.data_ptr(), grad_spikes.data_ptr()]
        arguments += [grad_x.data_ptr(), _pointer(grad_v_seq), _pointer(kept), _pointer(totals)]
        for tensors in (firsts, grad_lasts, grad_firsts):
            arguments += [_pointer(tensor) for tensor in tensors]
        for tensor, period, inner in params:
            arguments += [tensor.data_ptr(), period, inner]
        offset = 0
        for period, inner in sums:
            arguments += [period, inner, offset]
            offset += period
        arguments.append(ctypes.addressof(self._constants["backward"]))
        self._backward(_struct(len(arguments)).pack(*arguments))
        if totals is None:
            return grad_x, grad_firsts, []
        found = [totals] if len(sums) == 1 else list(totals.split([period for period, _ in sums]))  # type: ignore[no-untyped-call]
        return grad_x, grad_firsts, found


@functools.cache
def _struct(count: int) -> Struct:
    """Packs ``count`` arguments of a kernel."""
    return Struct(f"{count}q")


def _pointer(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _split(count: int, steps: int, largest: int) -> tuple[int, int]:
    """Elements in a block, and threads, for ``count`` elements: small jobs stay on one core."""
    if count * steps < 32768:
        return largest, 1
    threads = torch.get_num_threads()
    even = -(-count // threads)
    return min(largest, -(-even // 64) * 64), min(threads, -(-count // 64))
