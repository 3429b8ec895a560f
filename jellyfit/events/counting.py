"""Count events per pixel and polarity: one C loop, and the same in NumPy where there is no compiler."""

import ctypes
import math
import multiprocessing
import os
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from jellyfit import native
from jellyfit.errors import InputError
from jellyfit.events.array import EVENT_DTYPE, EventArray, outside_error

__all__ = ["check_frames_fit", "count_events"]

_COUNTERS = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.uint32))
_LARGEST_BYTES = 2**34
_MANY = 2**18  # events: from here on a second thread is worth its start

_OUTSIDE, _UNSORTED = -1, -2

# One pass reads each event once, checks it against the sensor and against the time of the event in front, and adds one
# to its counter. Counters are as narrow as they can be (a frame of 128 x 128 then fits the first-level cache); one that
# wraps to zero stops the pass, and the caller goes on from that slice with the next wider type. The checks are branches
# that are never taken: collecting them in a variable takes longer. Two events a round, and a polarity's frame looked up
# rather than chosen: so it takes 0.6 ns an event wherever the compiler lays the loop (one event a round: 0.65 to 0.95).
_SOURCE = r"""
#include <stdint.h>
#include <string.h>

#define STRIDE 13 /* bytes an event: int64 t, uint16 x, uint16 y, bool p */
#define OUTSIDE -1
#define UNSORTED -2

/* Reads the event at `event + k * STRIDE` and points `pixel##k` at its counter. */
#define LOCATE(COUNTER, k)                                                                                          \
  int64_t t##k;                                                                                                     \
  uint16_t x##k, y##k;                                                                                              \
  uint8_t p##k;                                                                                                     \
  memcpy(&t##k, event + k * STRIDE, sizeof t##k);                                                                   \
  memcpy(&x##k, event + k * STRIDE + 8, sizeof x##k);                                                               \
  memcpy(&y##k, event + k * STRIDE + 10, sizeof y##k);                                                              \
  memcpy(&p##k, event + k * STRIDE + 12, sizeof p##k);                                                              \
  if ((x##k >= width) | (y##k >= height)) return OUTSIDE;                                                           \
  if (t##k < before) return UNSORTED;                                                                               \
  before = t##k;                                                                                                    \
  COUNTER *pixel##k = polarity[p##k != 0] + y##k * width + x##k;

#define DEFINE_COUNT(NAME, COUNTER)                                                                                 \
  /* Returns the slice at which a counter wrapped, `slices` when none did, OUTSIDE or UNSORTED at such an event. */ \
  int64_t NAME(const char *events, const int64_t *bounds, int64_t first, int64_t slices, int64_t height,            \
               int64_t width, COUNTER *frames) {                                                                    \
    for (int64_t j = first; j < slices; j++) {                                                                      \
      COUNTER *off = frames + j * 2 * height * width, *polarity[2] = {off, off + height * width};                   \
      const char *event = events + bounds[2 * j] * STRIDE, *end = events + bounds[2 * j + 1] * STRIDE;              \
      int64_t before = INT64_MIN;                                                                                   \
      if (bounds[2 * j] > 0 && event < end) memcpy(&before, event - STRIDE, sizeof before);                         \
      for (; event + STRIDE < end; event += 2 * STRIDE) {                                                           \
        LOCATE(COUNTER, 0)                                                                                          \
        LOCATE(COUNTER, 1)                                                                                          \
        if (++*pixel0 == 0) return j;                                                                               \
        if (++*pixel1 == 0) return j;                                                                               \
      }                                                                                                             \
      if (event < end) {                                                                                            \
        LOCATE(COUNTER, 0)                                                                                          \
        if (++*pixel0 == 0) return j;                                                                               \
      }                                                                                                             \
    }                                                                                                               \
    return slices;                                                                                                  \
  }

DEFINE_COUNT(count_uint8, uint8_t)
DEFINE_COUNT(count_uint16, uint16_t)
DEFINE_COUNT(count_uint32, uint32_t)
"""


def count_events(
    events: EventArray, slices: npt.NDArray[np.int64], sensor_size: tuple[int, int]
) -> npt.NDArray[Any] | None:
    """Count the events of each slice per polarity and pixel.

    Args:
        events: Events ``[N]`` of :data:`~jellyfit.events.EVENT_DTYPE`.
        slices: ``[T, 2]``, the first index of each slice and the one behind its last, 0 <= start <= stop <= N. They
            may overlap and leave gaps.
        sensor_size: (height, width).

    Returns:
        Frames ``[T, 2, H, W]`` (channel 0 = OFF, 1 = ON) of the narrowest of uint8, uint16 and uint32 that holds
        every count. None when an event of a slice is earlier than the event in front of it: sort them first.

    Raises:
        InputError: Events outside the sensor, or frames of more than 16 GiB.
    """
    shape = check_frames_fit(len(slices), 2, sensor_size)
    events = np.ascontiguousarray(events)
    bounds = np.ascontiguousarray(slices, np.int64)
    library = native.load("counting", _SOURCE)
    frames, state = _count_numpy(events, bounds, shape) if library is None else _count_c(library, events, bounds, shape)
    if state == _OUTSIDE:
        raise outside_error(events, sensor_size)
    return None if state == _UNSORTED else frames


def check_frames_fit(
    T: int, channels: int, sensor_size: tuple[int, int], itemsize: int = 1
) -> tuple[int, int, int, int]:
    """The shape ``[T, C, H, W]`` of frames, unless they would take more than 16 GiB (InputError)."""
    height, width = sensor_size
    shape = (T, channels, height, width)
    size = math.prod(shape) * itemsize
    if size > _LARGEST_BYTES:
        raise InputError(
            f"{T} frames of {height} x {width} pixels would take {size / 2**30:.1f} GiB for one sample. "
            "Make fewer frames: a longer duration or a smaller T."
        )
    return shape


def _count_c(
    library: ctypes.CDLL, events: EventArray, bounds: npt.NDArray[np.int64], shape: tuple[int, int, int, int]
) -> tuple[npt.NDArray[Any], int]:
    frames: npt.NDArray[Any]
    threads = min(_threads(len(events)), len(bounds))
    for counter in _COUNTERS if threads > 1 else ():
        frames = np.zeros(shape, counter)
        ended = _count_apart(_function(library, f"count_{counter.name}"), events, bounds, frames, threads)
        if ended == shape[0]:
            return frames, ended
        if ended < 0:  # something is the matter: the events in their order tell what
            break
    frames, reached = np.zeros(shape, _COUNTERS[0]), 0
    for counter in _COUNTERS:
        if frames.dtype != counter:
            frames = frames.astype(counter)
            frames[reached:] = 0  # the slice in which a counter wrapped, to be counted again
        count = _function(library, f"count_{counter.name}")
        reached = count(
            events.ctypes.data, bounds.ctypes.data, reached, shape[0], shape[2], shape[3], frames.ctypes.data
        )
        if reached < 0 or reached == shape[0]:
            break
    return frames, reached


def _threads(N: int) -> int:
    """How many threads count N events: one for few of them, and in the processes of a loader, which are several."""
    if N < _MANY or multiprocessing.parent_process() is not None:
        return 1
    cores = native.usable_cores()
    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(told) if told.isdecimal() and int(told) else cores, cores, N // _MANY + 1)


def _count_apart(
    count: Any, events: EventArray, bounds: npt.NDArray[np.int64], frames: npt.NDArray[Any], threads: int
) -> int:
    """Count stretches of slices with about equally many events, each in a thread.

    Returns:
        What a count returns: the number of slices, a slice at which a counter wrapped, or what is the matter.
    """
    _, _, height, width = frames.shape
    ends = np.cumsum(bounds[:, 1] - bounds[:, 0])
    cuts = [0, *np.searchsorted(ends, ends[-1] * np.arange(1, threads) / threads).tolist(), len(bounds)]
    done = [0] * threads

    def run(i: int) -> None:
        done[i] = count(events.ctypes.data, bounds.ctypes.data, cuts[i], cuts[i + 1], height, width, frames.ctypes.data)

    helpers = [threading.Thread(target=run, args=(i,)) for i in range(1, threads)]
    for helper in helpers:  # not a pool: its threads would be missing in a process that is forked later
        helper.start()
    run(0)
    for helper in helpers:
        helper.join()
    return min(
        end if end < 0 else (len(bounds) if end == cut else end) for end, cut in zip(done, cuts[1:], strict=True)
    )


def _function(library: ctypes.CDLL, name: str) -> Any:
    function = getattr(library, name)
    if function.argtypes is None:
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        function.restype = number
        function.argtypes = [pointer, pointer, number, number, number, number, pointer]
    return function


def _count_numpy(
    events: EventArray, bounds: npt.NDArray[np.int64], shape: tuple[int, int, int, int]
) -> tuple[npt.NDArray[Any], int]:
    slices, _, height, width = shape
    frames: npt.NDArray[Any] = np.zeros((slices, 2 * height * width), _COUNTERS[0])
    for j, (start, stop) in enumerate(bounds.tolist()):
        if start == stop:
            continue
        x, y = events["x"][start:stop].copy(), events["y"][start:stop].copy()  # contiguous: faster than in the events
        if x.max() >= width or y.max() >= height:
            return frames, _OUTSIDE
        t = events["t"][max(start - 1, 0) : stop].copy()
        if (t[1:] < t[:-1]).any():
            return frames, _UNSORTED
        pixel = events["p"][start:stop].astype(np.intp)
        pixel *= height
        pixel += y
        pixel *= width
        pixel += x
        counts = np.bincount(pixel, minlength=2 * height * width)
        largest = counts.max()
        if largest > np.iinfo(frames.dtype).max:
            frames = frames.astype(next(counter for counter in _COUNTERS if largest <= np.iinfo(counter).max))
        frames[j] = counts
    return frames.reshape(shape), slices


assert EVENT_DTYPE.itemsize == 13, "STRIDE and the offsets of the C source are those of EVENT_DTYPE"
