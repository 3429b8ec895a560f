"""Spikes that are kept for backward as bits or bytes instead of floats.

A convolution or linear layer keeps its input to compute the gradient of its weight. Where that input is spikes, 32 of
them fit into the memory of one float.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import Self

from jellyfit import native
from jellyfit.errors import ConfigError
from jellyfit.kernels.host import FLAGS
from jellyfit.kernels.layout import is_dense_sequence

__all__ = ["SpikeCompression"]

_SOURCE = r"""
#include <stdint.h>
#include <string.h>

enum { CHUNK = 1 << 14 };

// Each pack returns 1 and writes bits (the first value in the lowest bit) if all of x is 0 or 1; else it gives up and
// returns 0. A value is one of the type's two patterns for 0 and 1; its bit can be cut out of the pattern.
#define CODEC(NAME, TYPE, ONE, SHIFT) \
    int pack_##NAME(const TYPE* x, uint8_t* bits, int64_t n, int threads) { \
        int good = 1; \
        const int64_t chunks = (n + CHUNK - 1) / CHUNK; \
        _Pragma("omp parallel for schedule(static) num_threads(threads) if (threads > 1)") \
        for (int64_t chunk = 0; chunk < chunks; ++chunk) { \
            int go; \
            _Pragma("omp atomic read") \
            go = good; \
            if (!go) continue; \
            const int64_t first = chunk * CHUNK, last = first + CHUNK < n ? first + CHUNK : n; \
            TYPE bad = 0; \
            for (int64_t i = first; i < last && !bad; i += 64) { \
                uint8_t byte[64] = {0}; \
                const int64_t count = last - i < 64 ? last - i : 64; \
                for (int64_t j = 0; j < count; ++j) { \
                    const TYPE bit = (x[i + j] >> SHIFT) & 1; \
                    bad |= x[i + j] ^ (TYPE)(bit * (TYPE)ONE); \
                    byte[j] = (uint8_t)bit; \
                } \
                for (int64_t j = 0; j < (count + 7) / 8; ++j) { \
                    uint64_t eight; \
                    memcpy(&eight, byte + 8 * j, 8); \
                    bits[i / 8 + j] = (uint8_t)((eight * 0x0102040810204080u) >> 56); \
                } \
            } \
            if (bad) { \
                _Pragma("omp atomic write") \
                good = 0; \
            } \
        } \
        return good; \
    } \
    void unpack_##NAME(const uint8_t* bits, TYPE* x, int64_t n, int threads) { \
        const int64_t whole = n / 8; \
        _Pragma("omp parallel for schedule(static) num_threads(threads) if (threads > 1)") \
        for (int64_t i = 0; i < whole; ++i) \
            for (int64_t j = 0; j < 8; ++j) x[8 * i + j] = (TYPE)(((bits[i] >> j) & 1) * (TYPE)ONE); \
        for (int64_t i = 8 * whole; i < n; ++i) x[i] = (TYPE)(((bits[i / 8] >> (i % 8)) & 1) * (TYPE)ONE); \
    }

CODEC(float32, uint32_t, 0x3f800000u, 23)
CODEC(float64, uint64_t, 0x3ff0000000000000u, 52)
CODEC(bfloat16, uint16_t, 0x3f80u, 7)
CODEC(float16, uint16_t, 0x3c00u, 10)
"""


@functools.cache
def _codec(dtype: torch.dtype) -> tuple[Callable[..., int], Callable[..., None]] | None:
    name = str(dtype).removeprefix("torch.")
    library = native.load("spikes", _SOURCE, FLAGS) if name in ("float32", "float64", "bfloat16", "float16") else None
    if library is None:
        return None
    functions = getattr(library, f"pack_{name}"), getattr(library, f"unpack_{name}")
    for function in functions:
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]
    functions[1].restype = None
    return functions


@dataclass
class _Packed:
    """Spikes in little room: ``data`` holds bits or bytes in memory order."""

    data: Tensor
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    bits: bool


def _pack(x: Tensor, bits: bool) -> _Packed | None:
    """``x`` packed, or ``None`` when it is anything but zeros and ones."""
    flat = torch.as_strided(x, (x.numel(),), (1,))
    codec = _codec(x.dtype) if x.device.type == "cpu" and bits else None
    if codec is not None:
        data = torch.empty((x.numel() + 7) // 8, dtype=torch.uint8, device=x.device)
        if not codec[0](x.data_ptr(), data.data_ptr(), x.numel(), torch.get_num_threads()):
            return None
        return _Packed(data, x.shape, x.stride(), x.dtype, True)
    small = flat[:1024]
    if not bool(((small == 0) | (small == 1)).all()):
        return None  # told by a glance; the whole is looked at only if it may be spikes
    data = flat.to(torch.uint8)
    if not bool(((data <= 1) & (data == flat)).all()):
        return None
    if bits:
        padded = torch.nn.functional.pad(data, (0, -len(data) % 8)).view(-1, 8)
        data = (padded << torch.arange(8, dtype=torch.uint8, device=x.device)).sum(1, dtype=torch.uint8)
    return _Packed(data, x.shape, x.stride(), x.dtype, bits)


def _unpack(packed: _Packed) -> Tensor:
    data = packed.data
    out = torch.empty_strided(packed.shape, packed.stride, dtype=packed.dtype, device=data.device)
    codec = _codec(packed.dtype) if data.device.type == "cpu" and packed.bits else None
    if codec is not None:
        codec[1](data.data_ptr(), out.data_ptr(), out.numel(), torch.get_num_threads())
        return out
    flat = torch.as_strided(out, (out.numel(),), (1,))
    if packed.bits:
        places = torch.arange(8, dtype=torch.uint8, device=data.device)
        data = ((data.unsqueeze(1) >> places) & 1).flatten()[: out.numel()]
    flat.copy_(data)
    return out


class SpikeCompression:
    """Context manager under which spikes kept for backward take 1 bit (or 1 byte) each instead of a float.

    Every tensor that autograd keeps while it is open is looked at: dense ones made of zeros and ones alone are packed
    and come back, to the bit, in backward; all others are kept as they are. Looking costs nothing to speak of for real
    values (the first few tell), packing one pass over the spikes. On CUDA each look waits for the device.

        with SpikeCompression() as compression:
            loss = net(x).sum()
        loss.backward()
        print(compression)

    Args:
        storage: ``"bits"`` (default; 32 times smaller than float32) or ``"uint8"`` (4 times).
        minimum: smaller tensors are left alone, default 1024 elements.

    Attributes:
        dense_bytes: what the packed tensors would have taken.
        packed_bytes: what they take.

    Raises:
        ConfigError: another ``storage``.

    Source: the ``float`` to ``char`` storage of Fang et al., "SpikingJelly", Science Advances 9 (2023), Supplement.

    Examples:
        >>> import torch
        >>> from jellyfit.kernels import SpikeCompression
        >>> layer, spikes = torch.nn.Linear(64, 8), torch.ones(32, 64)
        >>> with SpikeCompression() as compression:
        ...     loss = layer(spikes).sum()
        >>> loss.backward()
        >>> compression.dense_bytes, compression.packed_bytes
        (8192, 256)
    """

    def __init__(self, storage: Literal["bits", "uint8"] = "bits", minimum: int = 1024) -> None:
        if storage not in ("bits", "uint8"):
            raise ConfigError(f"SpikeCompression(storage={storage!r}): expected 'bits' or 'uint8'.")
        self.storage = storage
        self.minimum = minimum
        self.dense_bytes = 0
        self.packed_bytes = 0
        self._hooks: list[Any] = []

    def _save(self, tensor: Tensor) -> Tensor | _Packed:
        usable = (
            type(tensor) is Tensor
            and tensor.is_floating_point()
            and tensor.numel() >= self.minimum
            and tensor.layout is torch.strided
            and not (tensor.is_leaf and tensor.requires_grad)
            and is_dense_sequence(tensor.unsqueeze(0))
        )
        packed = _pack(tensor.detach(), self.storage == "bits") if usable else None
        if packed is None:
            return tensor
        self.dense_bytes += tensor.numel() * tensor.element_size()
        self.packed_bytes += packed.data.numel()
        return packed

    @staticmethod
    def _restore(kept: Tensor | _Packed) -> Tensor:
        return _unpack(kept) if isinstance(kept, _Packed) else kept

    def __enter__(self) -> Self:
        hooks = torch.autograd.graph.saved_tensors_hooks(self._save, self._restore)
        hooks.__enter__()
        self._hooks.append(hooks)
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.pop().__exit__(*error)

    def __repr__(self) -> str:
        return (
            f"SpikeCompression(storage={self.storage!r}): {self.dense_bytes / 2**20:.1f} MiB of spikes kept in "
            f"{self.packed_bytes / 2**20:.1f} MiB"
        )
