"""The sums over events that frames are made of: counts, latest times and voxels, in C or NumPy.

A representation is a formula over these sums. They come from an :class:`EventSums`, here on the host;
``jellyfit.frames`` has one for every device that PyTorch knows, so that the formula is written once.
"""

import ctypes
import math
from abc import ABC, abstractmethod
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from jellyfit import native
from jellyfit.errors import InputError
from jellyfit.events.array import EventArray, check_events
from jellyfit.events.counting import check_frames_fit, count_events

__all__ = ["NEVER", "EventSums", "HostSums"]

NEVER = int(np.iinfo(np.int64).min)
"""The latest time of a pixel that has seen no event: before all others."""

# Slices may overlap, so the latest time is a maximum and not simply the last one written. Voxels are kept as whole
# numbers: the two shares of an event add up to `span` exactly, in any order of the events.
_SOURCE = r"""
#include <stdint.h>
#include <string.h>

#define STRIDE 13 /* bytes an event: int64 t, uint16 x, uint16 y, bool p */

static int64_t place(const char *event, int64_t height, int64_t width, int64_t *t) {
  uint16_t x, y;
  uint8_t p;
  memcpy(t, event, sizeof *t);
  memcpy(&x, event + 8, sizeof x);
  memcpy(&y, event + 10, sizeof y);
  memcpy(&p, event + 12, sizeof p);
  return ((int64_t)(p != 0) * height + y) * width + x;
}

void latest(const char *events, const int64_t *bounds, int64_t slices, int64_t height, int64_t width, int64_t carry,
            int64_t *out) {
  int64_t size = 2 * height * width;
  for (int64_t j = 0; j < slices; j++) {
    int64_t *frame = out + j * size;
    if (carry && j > 0) memcpy(frame, frame - size, size * sizeof *frame);
    const char *event = events + bounds[2 * j] * STRIDE, *end = events + bounds[2 * j + 1] * STRIDE;
    for (; event < end; event += STRIDE) {
      int64_t t, at = place(event, height, width, &t);
      if (t > frame[at]) frame[at] = t;
    }
  }
}

void voxels(const char *events, int64_t count, int64_t bins, int64_t height, int64_t width, int64_t first,
            int64_t span, int64_t *out) {
  int64_t size = 2 * height * width;
  for (int64_t i = 0; i < count; i++) {
    int64_t t, at = place(events + i * STRIDE, height, width, &t);
    int64_t position = (bins - 1) * (t - first), bin = position / span, rest = position % span;
    out[bin * size + at] += span - rest;
    if (rest) out[(bin + 1) * size + at] += rest;
  }
}
"""


class EventSums(ABC):
    """Sums over the events of one recording, and the few operations that a formula over them needs.

    Attributes:
        events: Events ``[N]``, sorted by time and within the sensor.
        sensor_size: (height, width).
        xp: The module of ``exp``, ``concatenate`` and so on for what the methods return: NumPy or PyTorch.

    Args:
        events: Events ``[N]`` sorted by time.
        sensor_size: (height, width).
    """

    xp: ModuleType

    def __init__(self, events: EventArray, sensor_size: tuple[int, int]) -> None:
        self.events = events
        self.sensor_size = sensor_size

    @abstractmethod
    def count(self, slices: npt.NDArray[np.int64]) -> Any:
        """Events of every slice, ``[T, 2, H, W]``, of the narrowest of uint8, uint16 and uint32 that holds them."""

    @abstractmethod
    def latest(self, slices: npt.NDArray[np.int64], carry: bool) -> Any:
        """Latest time of every slice, ``[T, 2, H, W]`` int64; :data:`NEVER` where there was no event.

        With ``carry`` the events of earlier slices count too.
        """

    @abstractmethod
    def voxels(self, bins: int) -> Any:
        """Events shared between the two nearest of ``bins`` instants, ``[bins, 2, H, W]`` int64.

        The instants divide the time from the first event to the last evenly. An event counts as :meth:`span`.
        """

    @abstractmethod
    def column(self, values: npt.NDArray[np.int64]) -> Any:
        """One number a slice, ``[T] -> [T, 1, 1, 1]``, to calculate with."""

    @abstractmethod
    def matrix(self, values: npt.NDArray[np.float64]) -> Any:
        """A matrix to multiply frames with."""

    @abstractmethod
    def cast(self, values: Any, dtype: str) -> Any:
        """Values of another dtype, named as in NumPy and PyTorch."""

    def span(self) -> int:
        """Time from the first event to the last in µs, at least 1."""
        times = self.events["t"]
        return max(int(times[-1]) - int(times[0]), 1) if len(times) else 1

    def _check_voxels(self, bins: int) -> tuple[int, int, int, int]:
        """Shape of the voxels; refuses what would not fit into memory or 64 bits."""
        shape = check_frames_fit(bins, 2, self.sensor_size, itemsize=8)
        if max(bins - 1, len(self.events)) * self.span() >= 2**63:
            raise InputError(
                f"A recording of {self.span()} µs and {len(self.events)} events is too long for a voxel grid of {bins} "
                "bins. Check its times (they are in µs), or cut it."
            )
        return shape


class HostSums(EventSums):
    """The sums as NumPy arrays: one pass in C, and the same numbers from NumPy where there is no compiler.

    Args:
        events: Events ``[N]`` sorted by time.
        sensor_size: (height, width).

    Raises:
        InputError: Events outside the sensor.

    Examples:
        >>> from jellyfit import events
        >>> from jellyfit.events.sums import HostSums
        >>> sums = HostSums(events.make_events([0, 5, 10], [0, 0, 1], [0, 0, 0], [1, 1, 1]), (1, 2))
        >>> sums.voxels(2)[:, 1, 0].tolist()  # an event counts 10: the one in the middle 5 to either end
        [[15, 0], [5, 10]]
    """

    xp = np

    def __init__(self, events: EventArray, sensor_size: tuple[int, int]) -> None:
        super().__init__(np.ascontiguousarray(check_events(events, sensor_size)), sensor_size)

    def count(self, slices: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        frames = count_events(self.events, slices, self.sensor_size)
        if frames is None:
            raise InputError("The events are not sorted by time. Call to_frames, which sorts them, or sort_events.")
        return frames

    def latest(self, slices: npt.NDArray[np.int64], carry: bool) -> npt.NDArray[np.int64]:
        out = np.full(check_frames_fit(len(slices), 2, self.sensor_size, itemsize=8), NEVER)
        library = native.load("sums", _SOURCE)
        if library is not None:
            bounds = np.ascontiguousarray(slices, np.int64)
            _call(library, "latest", self.events, bounds, len(slices), *self.sensor_size, int(carry), out)
            return out
        place = self._place()
        for j, (start, stop) in enumerate(slices.tolist()):
            if carry and j > 0:
                out[j] = out[j - 1]
            np.maximum.at(out[j].reshape(-1), place[start:stop], self.events["t"][start:stop])
        return out

    def voxels(self, bins: int) -> npt.NDArray[np.int64]:
        out = np.zeros(self._check_voxels(bins), np.int64)
        if not len(self.events):
            return out
        first, span = int(self.events["t"][0]), self.span()
        library = native.load("sums", _SOURCE)
        if library is not None:
            _call(library, "voxels", self.events, len(self.events), bins, *self.sensor_size, first, span, out)
            return out
        at, rest = np.divmod((bins - 1) * (self.events["t"] - first), span)
        at = at * math.prod(out.shape[1:]) + self._place()
        flat = out.reshape(-1)
        np.add.at(flat, at, span - rest)
        later = rest > 0
        np.add.at(flat, at[later] + math.prod(out.shape[1:]), rest[later])
        return out

    def column(self, values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return values[:, None, None, None]

    def matrix(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return values

    def cast(self, values: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
        return values.astype(dtype)

    def _place(self) -> npt.NDArray[np.intp]:
        """Index of every event's polarity and pixel in a frame laid flat."""
        height, width = self.sensor_size
        place: npt.NDArray[np.intp] = self.events["p"].astype(np.intp)
        for side, column in ((height, "y"), (width, "x")):
            place *= side
            place += self.events[column]
        return place


def _call(library: ctypes.CDLL, name: str, *arguments: Any) -> None:
    """Call a C function whose arguments are all arrays (as pointers) or 64-bit integers."""
    function = getattr(library, name)
    if function.argtypes is None:
        function.restype = None
        function.argtypes = [ctypes.c_void_p if isinstance(a, np.ndarray) else ctypes.c_int64 for a in arguments]
    function(*(a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments))
