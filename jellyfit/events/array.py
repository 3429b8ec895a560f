"""The array of events that every part of jellyfit takes and gives."""

import ctypes
import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from jellyfit import native
from jellyfit.errors import InputError, InputTypeError

__all__ = [
    "EVENT_DTYPE",
    "EventArray",
    "EventWarning",
    "check_events",
    "check_sensor_size",
    "make_events",
    "outside_error",
    "sort_events",
]

EVENT_DTYPE = np.dtype([("t", np.int64), ("x", np.uint16), ("y", np.uint16), ("p", np.bool_)])
"""One event, 13 bytes: time ``t`` in µs, column ``x``, row ``y``, polarity ``p`` (True = ON, brighter)."""

EventArray: TypeAlias = npt.NDArray[np.void]
"""A NumPy structured array ``[N]`` of :data:`EVENT_DTYPE`."""

_LARGEST_SIDE = 2**16
_MANY = 2**14  # events: from here on a C loop is worth its look-up

# NumPy takes three times as long for times that lie 13 bytes apart.
_SOURCE = r"""
#include <stdint.h>
#include <string.h>

int ascending(const char *events, int64_t n) {
  int64_t before = INT64_MIN, earlier = 0;
  for (int64_t i = 0; i < n; i++) {
    int64_t t;
    memcpy(&t, events + i * 13, sizeof t);
    earlier |= t < before;
    before = t;
  }
  return !earlier;
}
"""


class EventWarning(UserWarning):
    """Events were not as they should be and were put right; the message counts them.

    Examples:
        >>> import warnings
        >>> from jellyfit.events import EventWarning
        >>> warnings.simplefilter("error", EventWarning)  # rather stop than go on with what was put right
    """


def make_events(t: npt.ArrayLike, x: npt.ArrayLike, y: npt.ArrayLike, p: npt.ArrayLike) -> EventArray:
    """Make an event array from four columns.

    Values are checked, never wrapped or rounded. The order stays as given.

    Args:
        t: Times ``[N]`` in µs, integers.
        x: Columns ``[N]``, integers from 0 to 65535.
        y: Rows ``[N]``, integers from 0 to 65535.
        p: Polarities ``[N]``: booleans, or integers 0 (OFF) and 1 (ON).

    Returns:
        Events ``[N]`` of :data:`EVENT_DTYPE`, a copy.

    Raises:
        InputTypeError: A column is not made of integers or booleans.
        InputError: The columns are not one-dimensional or differ in length, or a value does not fit.

    Examples:
        >>> from jellyfit.events import make_events
        >>> events = make_events(t=[10, 25], x=[3, 0], y=[1, 1], p=[1, 0])
        >>> events["t"].tolist(), events["p"].tolist()
        ([10, 25], [True, False])
    """
    columns = {name: _column(name, values) for name, values in (("t", t), ("x", x), ("y", y), ("p", p))}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"The columns of events differ in length: {lengths}. Give one t, x, y and p for each event.")
    events = np.empty(lengths["t"], EVENT_DTYPE)
    for name, column in columns.items():
        events[name] = column
    return events


def check_events(events: npt.NDArray[Any], sensor_size: Sequence[int] | None = None) -> EventArray:
    """Check an event array and give it the standard dtype.

    Any structured array with integer fields t, x, y and p is taken, in any order of the fields (further fields are
    left out). The events may be sorted or not.

    Args:
        events: Structured array ``[N]``.
        sensor_size: (height, width) of the camera in pixels. None (default) leaves the coordinates unchecked.

    Returns:
        Events ``[N]`` of :data:`EVENT_DTYPE`: the array itself if it has that dtype, else a converted copy.

    Raises:
        InputTypeError: Not a structured array with integer fields t, x, y, p.
        InputError: Not one-dimensional, a value that does not fit, or events outside the sensor; the message counts
            them and shows the first.

    Examples:
        >>> from jellyfit.events import check_events, make_events
        >>> from jellyfit.errors import InputError
        >>> events = make_events(t=[10, 25], x=[3, 0], y=[1, 1], p=[1, 0])
        >>> len(check_events(events, sensor_size=(2, 4)))
        2
        >>> try:
        ...     check_events(events, sensor_size=(2, 3))
        ... except InputError:
        ...     print("outside")
        outside
    """
    if not isinstance(events, np.ndarray):
        raise InputTypeError(
            f"Events must be a NumPy structured array with fields t, x, y, p; got {type(events).__name__}. "
            "make_events(t, x, y, p) makes one."
        )
    if events.dtype != EVENT_DTYPE:
        missing = [name for name in ("t", "x", "y", "p") if name not in (events.dtype.names or ())]
        if missing:
            raise InputTypeError(
                f"Events must be a NumPy structured array with fields t, x, y, p; an array of dtype {events.dtype} "
                f"has no {', '.join(missing)}. make_events(t, x, y, p) makes one from four arrays."
            )
    if events.ndim != 1:
        raise InputError(f"Events must be one-dimensional, [N]; got the shape {list(events.shape)}. Flatten them.")
    if events.dtype != EVENT_DTYPE:
        events = make_events(events["t"], events["x"], events["y"], events["p"])
    if sensor_size is not None:
        height, width = check_sensor_size(sensor_size)
        if ((events["x"] >= width) | (events["y"] >= height)).any():
            raise outside_error(events, (height, width))
    return events


def check_sensor_size(sensor_size: Sequence[int]) -> tuple[int, int]:
    """Check a sensor size, in pixels.

    Args:
        sensor_size: Two integers, (height, width), each from 1 to 65536.

    Returns:
        The size as a tuple of two Python integers.

    Raises:
        InputError: Anything else.

    Examples:
        >>> from jellyfit.events import check_sensor_size
        >>> check_sensor_size([34, 34])
        (34, 34)
    """
    size = tuple(sensor_size) if isinstance(sensor_size, Sequence | np.ndarray) else ()
    integers = all(isinstance(side, int | np.integer) and not isinstance(side, bool) for side in size)
    if len(size) != 2 or not integers or not all(1 <= side <= _LARGEST_SIDE for side in size):
        raise InputError(
            f"sensor_size must be two integers, (height, width) in pixels, each from 1 to {_LARGEST_SIDE}; "
            f"got {sensor_size!r}. DVS128 cameras have (128, 128), N-MNIST (34, 34)."
        )
    return int(size[0]), int(size[1])


def sort_events(events: npt.NDArray[Any], *, warn: bool = False) -> EventArray:
    """Sort events by time; events of one time keep their order.

    Args:
        events: Structured array ``[N]``, as :func:`check_events` takes it.
        warn: Warn if the events were not sorted. False by default.

    Returns:
        Events ``[N]`` of :data:`EVENT_DTYPE`: the array itself if it is sorted and of that dtype, else a copy.

    Raises:
        InputTypeError: See :func:`check_events`.
        InputError: See :func:`check_events`.

    Warns:
        EventWarning: With ``warn``, says how many events came before the time of the event in front of them.

    Examples:
        >>> from jellyfit.events import make_events, sort_events
        >>> sort_events(make_events(t=[25, 10], x=[3, 0], y=[1, 1], p=[1, 0]))["t"].tolist()
        [10, 25]
    """
    events = check_events(events)
    if _ascending(events):
        return events
    times = events["t"]
    earlier = times[1:] < times[:-1]
    count = int(np.count_nonzero(earlier))
    if not count:
        return events
    if warn:
        first = int(earlier.argmax())
        warnings.warn(
            f"The times of {len(events)} events are not sorted: {count} lie before the event in front of them (the "
            f"first is event {first + 1}, t = {times[first + 1]} µs after t = {times[first]} µs). They were sorted; "
            "if that is not meant, check how the file was decoded (a time counter that overflows goes back).",
            EventWarning,
            stacklevel=3,
        )
    return events[np.argsort(times, kind="stable")]


def _ascending(events: EventArray) -> bool:
    """Whether C says that the times ascend; False where it was not asked."""
    if len(events) < _MANY or not events.flags.c_contiguous:
        return False
    library = native.load("ascending", _SOURCE)
    if library is None:
        return False
    library.ascending.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    return bool(library.ascending(events.ctypes.data, len(events)))


def _column(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    """One column as a checked array of integers or booleans."""
    column = np.asarray(values)
    if column.ndim != 1:
        raise InputError(f"The column {name} of events must be one-dimensional, [N]; got shape {list(column.shape)}.")
    if column.size == 0:
        return column.astype(EVENT_DTYPE[name])
    if column.dtype.kind not in "iub":
        raise InputTypeError(
            f"The column {name} of events must hold integers{' or booleans' if name == 'p' else ''}; got "
            f"{column.dtype}. {'Times are in µs: np.rint(seconds * 1e6).astype(np.int64).' if name == 't' else ''}"
        )
    if column.dtype == EVENT_DTYPE[name] or column.dtype.kind == "b":
        return column
    low, high = (0, 1) if name == "p" else (np.iinfo(EVENT_DTYPE[name]).min, np.iinfo(EVENT_DTYPE[name]).max)
    outside = (column < low) | (column > high)
    if outside.any():
        first = int(outside.argmax())
        hint = " For polarities of -1 and 1 give p > 0." if name == "p" else ""
        raise InputError(
            f"{np.count_nonzero(outside)} of {column.size} values of {name} are outside {low}..{high}; the first is "
            f"{column[first]} at index {first}.{hint}"
        )
    return column


def outside_error(events: EventArray, sensor_size: tuple[int, int]) -> InputError:
    """The error for events of which at least one lies outside the sensor: counts them and shows the first."""
    height, width = sensor_size
    outside = (events["x"] >= width) | (events["y"] >= height)
    first = int(outside.argmax())
    return InputError(
        f"{np.count_nonzero(outside)} of {len(events)} events lie outside the sensor of height {height} and "
        f"width {width} (x goes up to {events['x'].max()}, y up to {events['y'].max()}). The first is event "
        f"{first}: {_show(events[first])}. Give sensor_size as (height, width) of the camera, or choose which "
        "events to leave out: events[(events['x'] < width) & (events['y'] < height)]."
    )


def _show(event: np.void) -> str:
    return ", ".join(f"{name}={event[name]}" for name in ("t", "x", "y", "p"))
