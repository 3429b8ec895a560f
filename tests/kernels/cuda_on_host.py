"""CUDA kernels executed on the CPU: the same source, compiled by the host's C++ compiler under ``cuda_on_host.h``."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from jellyfit.kernels import fused
from jellyfit.kernels.cuda import CudaTarget, Launch

HEADER = Path(__file__).with_name("cuda_on_host.h")
FLAGS = ("-O1", "-std=c++14", "-shared", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-fno-math-errno")
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused", "-Wno-maybe-uninitialized")

COMPILER = shutil.which("g++") or shutil.which("clang++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler (g++ or clang++)")


_kept = tempfile.TemporaryDirectory(prefix="jellyfit-cuda-")  # goes when the tests end


@functools.cache
def _folder() -> Path:
    """Where libraries are kept."""
    folder = Path(_kept.name)
    for name in ("cuda_fp16.h", "cuda_bf16.h"):  # what they declare is in our header
        (folder / name).touch()
    return folder


@functools.cache
def compiled(source: str) -> ctypes.CDLL:
    """The library of a CUDA source; ``grid_NAME`` runs kernel ``NAME``."""
    kernels = re.findall(r'extern "C" __global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\(', source)
    grids = [
        f'extern "C" void grid_{name}(int first, int blocks, int threads, const int64_t* a) '
        f"{{ run_grid({name}, first, blocks, threads, a); }}"
        for name in kernels
    ]
    text = "\n".join([source, *grids])
    key = hashlib.sha256(text.encode()).hexdigest()[:24]
    library = _folder() / f"{key}.so"
    command = [COMPILER, *FLAGS, *WARNINGS, f"-I{_folder()}", "-include", HEADER, "-x", "c++", "-", "-o", library]
    made = subprocess.run(command, input=text, capture_output=True, text=True)
    assert made.returncode == 0, f"{made.stderr[:3000]}\n{source}"
    return ctypes.CDLL(str(library))


class HostGrid:
    """A launcher that runs grids as loops on the CPU, on CPU tensors.

    Args:
        multiprocessors: of the pretended device.
        last_blocks: run only so many blocks, the last of the grid; default: all.
    """

    def __init__(self, multiprocessors: int = 1, last_blocks: int | None = None) -> None:
        self._multiprocessors = multiprocessors
        self._last_blocks = last_blocks
        self.launched: list[tuple[str, int, int]] = []  # kernel, blocks, threads

    def multiprocessors(self, device: torch.device) -> int:
        return self._multiprocessors

    def load(self, source: str, names: Sequence[str], device: torch.device) -> dict[str, Launch]:
        library = compiled(source)
        return {name: functools.partial(self._launch, library, name, _pointers(source, name)) for name in names}

    def _launch(
        self,
        library: ctypes.CDLL,
        name: str,
        pointers: dict[int, str],
        blocks: int,
        threads: int,
        arguments: Sequence[int | np.generic],
    ) -> None:
        self.launched.append((name, blocks, threads))
        if name.endswith("_vector"):  # what the CPU forgives, a GPU does not
            for i, what in pointers.items():
                assert arguments[i] % 16 == 0, f"{what} is not aligned to 16 bytes"
        packed = (ctypes.c_int64 * len(arguments))()
        for i, argument in enumerate(arguments):
            raw = argument.tobytes() if isinstance(argument, np.generic) else int(argument).to_bytes(8, "little")
            ctypes.memmove(ctypes.byref(packed, 8 * i), raw, len(raw))
        first = 0 if self._last_blocks is None else max(0, blocks - self._last_blocks)
        getattr(library, f"grid_{name}")(first, blocks, threads, packed)


def _pointers(source: str, name: str) -> dict[int, str]:
    """Position and name of a kernel's pointers, but for those to parameters, which are read one by one."""
    head = re.search(rf"\b{name}\((.*?)\)\s*{{", source, re.DOTALL)
    assert head is not None
    found = dict(enumerate(part.strip() for part in head[1].split(",")))
    return {i: text for i, text in found.items() if "*" in text and not re.search(r"real\* p\d+$|total_\d+$", text)}


@contextmanager
def cuda_kernels_on_the_host(grid: HostGrid) -> Iterator[None]:
    """Within, fused kernels for CPU tensors are those for CUDA, run by ``grid``."""

    def target(device: torch.device) -> Callable[..., CudaTarget]:
        return functools.partial(CudaTarget, device=device, launcher=grid)

    with mock.patch.object(fused, "_target", target):
        yield
