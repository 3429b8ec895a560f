"""Kernels for CUDA: the source of :mod:`~jellyfit.kernels.cuda_source`, compiled and launched by CuPy.

Tensors are PyTorch's and stay where they are: a kernel gets their addresses, and runs on PyTorch's current stream of
their device. Nothing here waits for the device or allocates memory of its own, so a launch can be captured in a CUDA
graph (once it has run outside of one).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from jellyfit.kernels.cuda_source import THREADS, CudaWriter
from jellyfit.kernels.emit import KernelSpec
from jellyfit.kernels.errors import KernelUnavailableError
from jellyfit.kernels.layout import Param

__all__ = ["OPTIONS", "CudaTarget", "CupyLauncher", "Launch", "Launcher", "why_not"]

OPTIONS = ("-std=c++14", "--fmad=false")
"""Options for the compiler: + - * / are each rounded by themselves, as in eager PyTorch."""

_BLOCKS = 16  # of each multiprocessor at most; a grid that is smaller than the data goes on to the next elements

Launch = Callable[[int, int, Sequence["int | np.generic"]], None]
"""Runs a kernel: ``(blocks, threads in a block, arguments)``. An ``int`` is passed as 64 bits, a NumPy number as is."""


class Launcher(Protocol):
    """What compiles CUDA source and runs its kernels."""

    def load(self, source: str, names: Sequence[str], device: torch.device) -> dict[str, Launch]:
        """Compile ``source`` for ``device``: its kernels by name."""
        ...

    def multiprocessors(self, device: torch.device) -> int:
        """How many multiprocessors ``device`` has."""
        ...


@functools.cache
def why_not() -> str | None:
    """Why CUDA kernels cannot run here and what to install; ``None`` when they can."""
    version = torch.version.cuda
    extra = "cuda12" if version is None else f"cuda{version.split('.')[0]}"
    install = f"pip install 'jellyfit[{extra}]'"
    if version is None:
        return f"torch was built without CUDA (install a CUDA build of torch, then {install})"
    if not torch.cuda.is_available():
        return f"no NVIDIA driver or GPU was found (kernels on one need CuPy: {install})"
    if importlib.util.find_spec("cupy") is None:
        return f"CuPy is not installed ({install})"
    try:
        importlib.import_module("cupy")
    except Exception as error:  # a CUDA library that it needs is missing, or is another version than it was made for
        return f"CuPy does not import: {type(error).__name__}: {error} (to install it again: {install})"
    return None


class CupyLauncher:
    """Compiles with CuPy's NVRTC, once a device, and launches on PyTorch's current stream."""

    def load(self, source: str, names: Sequence[str], device: torch.device) -> dict[str, Launch]:
        """Compile ``source`` for ``device``: its kernels by name.

        Raises:
            KernelUnavailableError: CuPy cannot compile or load it.
        """
        return _compiled(source, tuple(names), _index(device))

    def multiprocessors(self, device: torch.device) -> int:
        """How many multiprocessors ``device`` has."""
        return _multiprocessors(_index(device))


@functools.cache
def _multiprocessors(index: int) -> int:
    return int(torch.cuda.get_device_properties(index).multi_processor_count)


@functools.lru_cache(maxsize=4096)
def _compiled(source: str, names: tuple[str, ...], index: int) -> dict[str, Launch]:
    import cupy

    try:
        with cupy.cuda.Device(index):
            module = cupy.RawModule(code=source, options=OPTIONS)
            functions = {name: module.get_function(name).kernel for name in names}
    except Exception as error:
        text = str(error).strip().split("\n")
        raise KernelUnavailableError(f"CuPy cannot compile kernels: {'; '.join(text[:3])[:500]}") from error
    return {name: functools.partial(_launch, function, index) for name, function in functions.items()}


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


class _TorchStream:
    """A stream of PyTorch's as CuPy takes it.

    Args:
        address: of the CUDA stream.
    """

    def __init__(self, address: int) -> None:
        self.address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


@functools.lru_cache(maxsize=64)
def _stream(address: int, index: int) -> Any:
    import cupy

    if hasattr(cupy.cuda.Stream, "from_external"):  # since CuPy 14, which warns of the other
        return cupy.cuda.Stream.from_external(_TorchStream(address))
    return cupy.cuda.ExternalStream(address, index)


def _launch(
    function: Callable[..., None], index: int, blocks: int, threads: int, arguments: Sequence[int | np.generic]
) -> None:
    import cupy

    stream = _stream(torch.cuda.current_stream(index).cuda_stream, index)
    packed = tuple(np.int64(argument) if isinstance(argument, int) else argument for argument in arguments)
    with cupy.cuda.Device(index):
        function((blocks,), (threads,), packed, stream=stream)


class CudaTarget:
    """Runs a step's kernels on a CUDA device.

    Args:
        spec: what the kernels are generated from.
        device: where it runs.
        launcher: what compiles and launches; default: CuPy.
    """

    def __init__(
        self,
        spec: KernelSpec,
        device: torch.device | None = None,
        launcher: Launcher | None = None,
    ) -> None:
        self.real, self.io = spec.real, spec.io
        self.device = torch.device("cuda") if device is None else device
        self._launcher: Launcher = CupyLauncher() if launcher is None else launcher
        self._spec = spec
        self._writer = CudaWriter(spec)
        self._keeps = bool(spec.program.keep)
        self._kernels: dict[str, dict[int, Launch]] = {}
        self._numbers: dict[str, Tensor] = {}  # constants that are no part of the source, by pass
        self.stretch = self._writer.stretch
        """Time steps between two states that forward keeps for backward; a shorter sequence keeps none."""

    def source(self, which: str) -> str:
        """The generated source of ``"forward"`` or ``"backward"``."""
        return self._write(which)[0]

    def _write(self, which: str) -> tuple[str, list[float]]:
        writer = CudaWriter(self._spec)
        text = writer.forward() if which == "forward" else writer.backward()
        return text, [value.number for value in writer.names.lifted.values()]

    def prepare(self) -> None:
        """Compile forward, so that what cannot be compiled shows before anything depends on it."""
        self._load("forward")

    def forward(
        self, x: Tensor, firsts: Sequence[Tensor | None], params: Sequence[Param], want_v_seq: bool, keep: bool
    ) -> tuple[Tensor, list[Tensor], Tensor | None, Tensor | None]:
        """Spikes, the states at the end, the potentials of every step and the states kept for backward.

        ``x`` ``[T, N, *]`` is dense, and what is given and returned has its memory order.
        """
        steps, count = x.shape[0], x.numel() // x.shape[0]
        spikes = torch.empty_like(x)
        lasts = [self._state_like(x) for _ in firsts]
        v_seq = torch.empty_like(x, dtype=self.real) if want_v_seq else None
        kept = None
        if keep:
            self._load("backward")  # now, and not in the middle of capturing a graph
            stretches = (steps - 1) // self.stretch
            if stretches and firsts and self._keeps:
                kept = torch.empty(stretches, len(firsts), count, dtype=self.real, device=x.device)
        addresses = [_pointer(tensor) for tensor in (x, spikes, v_seq, kept, *firsts, *lasts)]
        width, blocks = self._grid("forward", count, addresses)
        launch = self._load("forward")[width]
        launch(blocks, THREADS["forward"], [count, steps, *addresses, *self._param_arguments("forward", params)])
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
        given = [x, grad_spikes, grad_x, grad_v_seq, kept, *firsts, *grad_lasts, *grad_firsts]
        addresses = [_pointer(tensor) for tensor in given]
        width, blocks = self._grid("backward", count, addresses)
        # what each element, or else each thread, adds to a sum: without atomic operations, the same numbers every time
        shares = [
            torch.empty(count, dtype=self.real, device=x.device)
            if each
            else torch.empty(blocks * THREADS["backward"], dtype=torch.float64, device=x.device)
            for each in self._writer.each
        ]
        launch = self._load("backward")[width]
        more = [*self._param_arguments("backward", params), *map(_pointer, shares)]
        launch(blocks, THREADS["backward"], [count, steps, *addresses, *more])
        found = [
            share.view(-1, period, inner if each else 1).sum((0, 2), dtype=torch.float64).to(self.real)
            for share, (period, inner), each in zip(shares, sums, self._writer.each, strict=True)
        ]
        return grad_x, grad_firsts, found

    # ---------------------------------------------------------------- launching

    def _state_like(self, x: Tensor) -> Tensor:
        return torch.empty_strided(x.shape[1:], x.stride()[1:], dtype=self.real, device=x.device)

    def _load(self, which: str) -> dict[int, Launch]:
        if which not in self._kernels:
            names = self._writer.kernels(which)
            text, numbers = self._write(which)
            launches = self._launcher.load(text, list(names.values()), self.device)
            self._numbers[which] = torch.tensor(numbers, dtype=self.real, device=self.device)
            self._kernels[which] = {width: launches[name] for width, name in names.items()}
        return self._kernels[which]

    def _param_arguments(self, which: str, params: Sequence[Param]) -> list[int]:
        found = [argument for tensor, period, inner in params for argument in (tensor.data_ptr(), period, inner)]
        return found + ([self._numbers[which].data_ptr()] if len(self._numbers[which]) else [])

    def _grid(self, which: str, count: int, addresses: Sequence[int]) -> tuple[int, int]:
        """Elements that a thread takes at a time, and blocks."""
        width = self._writer.width
        if count % width or any(address % 16 for address in addresses):
            width = 1
        blocks = -(-count // (width * THREADS[which]))
        rounds = -(-blocks // (_BLOCKS * self._launcher.multiprocessors(self.device)))
        return width, -(-blocks // rounds)


def _pointer(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
