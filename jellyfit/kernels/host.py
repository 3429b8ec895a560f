"""Kernels on the host: C, compiled by the host's compiler, vectorised, on every core."""

from __future__ import annotations

import ctypes
import functools
import re
import sys
from collections.abc import Callable, Sequence
from struct import Struct
from typing import NamedTuple

import torch
from torch import Tensor

from jellyfit import native
from jellyfit.kernels import vector
from jellyfit.kernels.emit import KernelSpec
from jellyfit.kernels.errors import KernelUnavailableError
from jellyfit.kernels.host_source import BLOCK, STRETCH, Writer
from jellyfit.kernels.layout import Param
from jellyfit.kernels.norm_backward import NO_NORM, NormBackward

__all__ = ["FLAGS", "STRETCH", "HostTarget", "function_of", "load", "threads_for"]

_SHARED = 32768  # elements from which threads share the work
_SCRATCH = 1 << 18  # bytes that a block's kept values may take: they should stay in the second-level cache

_OPENMP = "-fopenmp-simd" if sys.platform == "darwin" else "-fopenmp"  # Apple's compiler has vectors, but no threads
FLAGS = (_OPENMP, "-fno-math-errno", "-fno-trapping-math", "-lm")


def load(name: str, source: str, real: torch.dtype) -> Callable[[bytes], None] | None:
    """Compile a source of :class:`Writer`, or take it from the cache: its ``run``, or ``None`` without a compiler."""
    library = native.load(name, source, FLAGS)
    if library is None:
        return None
    vector.bind(library, source, real)
    return function_of(library, "run")


def function_of(library: ctypes.CDLL, name: str) -> Callable[[bytes], None]:
    """A function of ``library`` that takes one packed list of numbers and pointers."""
    function: Callable[[bytes], None] = getattr(library, name)
    function.argtypes, function.restype = [ctypes.c_char_p], None  # type: ignore[attr-defined]
    return function


def threads_for(elements: int) -> int:
    """How many threads a pass over so many elements is worth: one where starting others takes longer."""
    return torch.get_num_threads() if elements >= _SHARED else 1


class _Pass:
    """A compiled pass.

    Args:
        run: its function.
        numbers: constants that are no part of its source.
    """

    def __init__(self, run: Callable[[bytes], None], numbers: Sequence[float]) -> None:
        self._run = run
        self._numbers = (ctypes.c_double * len(numbers))(*numbers)
        self._address = ctypes.addressof(self._numbers)

    def __call__(self, numbers: Sequence[int], tensors: Sequence[Tensor | None], params: Sequence[Param]) -> None:
        """Run it on whole numbers, tensors and parameters, in the order of the source's arguments."""
        arguments = [*numbers, *[0 if tensor is None else tensor.data_ptr() for tensor in tensors]]
        for tensor, period, inner in params:
            arguments += (tensor.data_ptr(), period, inner)
        arguments.append(self._address)
        self._run(_struct(len(arguments)).pack(*arguments))


class _Job(NamedTuple):
    """How the work on a sequence is cut.

    Attributes:
        x_shape, x_strides, most_threads: what for.
        steps, size: time steps, and elements of one.
        state: a tensor like a state, without memory.
        forward, backward: elements of a step, time steps, elements in a block, and threads: how each pass begins.
        blocks: of the backward pass.
    """

    x_shape: torch.Size
    x_strides: tuple[int, ...]
    most_threads: int
    steps: int
    size: int
    state: Tensor
    forward: tuple[int, int, int, int]
    backward: tuple[int, int, int, int]
    blocks: int

    @classmethod
    def of(cls, x: Tensor, real: torch.dtype, row: int, threads: int) -> _Job:
        steps, count = x.shape[0], x.numel() // x.shape[0]
        room = _SCRATCH // (row * min(steps, STRETCH))
        state = torch.empty_strided(x.shape[1:], x.stride()[1:], dtype=real, device="cpu")
        state.untyped_storage().resize_(0)
        elements, used = _split(count, steps, max(64, min(BLOCK, room // 64 * 64)), threads)
        return cls(
            x.shape,
            x.stride(),
            threads,
            steps,
            count,
            state,
            (count, steps, *_split(count, steps, BLOCK, threads)),
            (count, steps, elements, used),
            -(-count // elements),
        )


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
        self._name = re.sub(r"\W+", "_", spec.title) or "neuron"
        self._forward: _Pass | None = None
        self._backward: _Pass | None = None
        self._row = 4 * max(1, len(spec.program.keep)) * (2 if spec.real == torch.float64 else 1)
        self._latest: _Job | None = None

    def source(self, which: str) -> str:
        """The generated source of ``"forward"`` or ``"backward"``."""
        return self._write(which)[0]

    def _write(self, which: str) -> tuple[str, list[float]]:
        writer = Writer(self._spec)
        text = writer.forward() if which == "forward" else writer.backward()
        return text, [value.number for value in writer.names.lifted.values()]

    def _load(self, which: str) -> _Pass:
        text, numbers = self._write(which)
        run = load(f"{self._name}-{which}", text, self.real)
        if run is None:
            raise KernelUnavailableError(native.status().reason or "the generated C code does not compile")
        return _Pass(run, numbers)

    def _job(self, x: Tensor) -> _Job:
        """How the work on ``x`` is cut; that of the latest call is at hand."""
        job, threads = self._latest, torch.get_num_threads()
        if job is None or job.x_shape != x.shape or job.x_strides != x.stride() or job.most_threads != threads:
            job = self._latest = _Job.of(x, self.real, self._row, threads)
        return job

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
        job = self._job(x)
        steps = job.steps
        spikes = torch.empty_like(x)
        lasts = [torch.empty_like(job.state) for _ in firsts]
        v_seq = torch.empty_like(x, dtype=self.real) if want_v_seq else None
        kept = None
        if keep and steps > STRETCH and firsts:
            kept = torch.empty((steps - 1) // STRETCH, len(firsts), job.size, dtype=self.real, device="cpu")
        if self._forward is None:
            self._forward = self._load("forward")
        self._forward(job.forward, (x, spikes, v_seq, kept, *firsts, *lasts), params)
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
        norm: NormBackward | None = None,
    ) -> tuple[Tensor, list[Tensor | None], list[Tensor]]:
        """Gradients of the input, of the states given at the start, and the sums (period and inner size given).

        With ``norm`` (the kernels are those of an affine step) its backward pass follows behind every channel.
        """
        job = self._job(x)
        grad_x = torch.empty_like(x)
        grad_firsts = [None if first is None else torch.empty_like(first) for first in firsts]
        if self._backward is None:
            self._backward = self._load("backward")
        begin, chunks, width, totals = job.backward, job.blocks, 0, None
        places: list[int] = []
        if sums:
            for period, inner in sums:
                places += (period, inner, width)
                width += period
            chunks = min(chunks, 64 if width * 256 <= job.size else 8)
            totals = torch.empty(width, dtype=self.real, device="cpu")
        more: tuple[int, ...] = ()
        if norm is not None:
            _, chunks, inner = norm.sizes
            elements, steps, largest, threads = begin
            blocks = -(-inner // largest)
            begin = elements, steps, -(-inner // blocks // 64) * 64, threads
            more = (norm if norm.grad_x is not None else norm._replace(grad_x=grad_x)).arguments()
        elif self._spec.norm_may_follow:
            more = NO_NORM
        self._backward(
            (*begin, chunks, width, *more, *places),
            (x, grad_spikes, grad_x, grad_v_seq, kept, totals, *firsts, *grad_lasts, *grad_firsts),
            params,
        )
        if totals is None:
            return grad_x, grad_firsts, []
        found = [totals] if len(sums) == 1 else list(totals.split([period for period, _ in sums]))  # type: ignore[no-untyped-call]
        return grad_x, grad_firsts, found


@functools.cache
def _struct(count: int) -> Struct:
    """Packs ``count`` arguments of a kernel."""
    return Struct(f"{count}q")


def _split(count: int, steps: int, largest: int, threads: int) -> tuple[int, int]:
    """Elements in a block, and threads, for ``count`` elements: small jobs stay on one core."""
    if count * steps < _SHARED:
        return largest, 1
    even = -(-count // threads)
    return min(largest, -(-even // 64) * 64), min(threads, -(-count // 64))
