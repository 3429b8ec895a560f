"""Records of a fixed size to events: where each field lies is said once, C and NumPy both work from it."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from jellyfit import native
from jellyfit.errors import InputError
from jellyfit.events.array import EVENT_DTYPE, EventArray

__all__ = [
    "AE16",
    "AE32",
    "AER40",
    "DAT",
    "PACKET",
    "Clock",
    "Field",
    "Layout",
    "OutsideError",
    "Run",
    "Words",
    "ascending",
    "keep_first",
    "pack",
    "unpack",
]

Run: TypeAlias = "tuple[int, int, int | None]"
"""Records that lie side by side: offset in bytes, number, and the time to add, None to go on with the clock's."""


@dataclass(frozen=True)
class Words:
    """How a record's address and time are stored.

    Attributes:
        name: of the C function.
        dtype: of a record, with the fields ``time`` and ``address``, or ``high`` and ``low`` for one word that is both.
        time_bits: how many of the lowest bits are the time.
    """

    name: str
    dtype: np.dtype[Any]
    time_bits: int = 32

    @functools.cached_property
    def size(self) -> int:
        """Bytes of a record."""
        return self.dtype.itemsize


AE32 = Words("ae32", np.dtype([("address", ">u4"), ("time", ">u4")]))
AE16 = Words("ae16", np.dtype([("address", ">u2"), ("time", ">u4")]))
PACKET = Words("packet", np.dtype([("address", "<u4"), ("time", "<u4")]))
DAT = Words("dat", np.dtype([("time", "<u4"), ("address", "<u4")]))
AER40 = Words("aer40", np.dtype([("high", "u1"), ("low", ">u4")]), time_bits=23)


@dataclass(frozen=True)
class Field:
    """A coordinate in an address: bits ``shift`` to ``shift + bits - 1``; ``mirror - value`` if there is a mirror."""

    shift: int
    bits: int
    mirror: int = -1


@dataclass(frozen=True)
class Layout:
    """What the bits of a record mean.

    Attributes:
        words: how address and time are stored.
        x: column.
        y: row.
        p_bit: polarity.
        p_inverted: 1 where a polarity bit of 0 means ON.
        kept_mask, kept_value: a record is an event if ``address & kept_mask == kept_value``.
        wraps: the time counter goes on from 0 when it is full; a step back by more than half its range is such a wrap.
        marker_mask, marker_value, marker_time: a record with ``address & marker_mask == marker_value`` is no event and
            adds ``marker_time`` to the times that follow. No record has such an address by default.
        others: what the records are that are no events, for a summary.
    """

    words: Words
    x: Field
    y: Field
    p_bit: int
    p_inverted: int = 0
    kept_mask: int = 0
    kept_value: int = 0
    wraps: bool = False
    marker_mask: int = 0
    marker_value: int = 1
    marker_time: int = 0
    others: str = "other records"

    def transposed(self) -> Layout:
        """The same with rows and columns exchanged."""
        return replace(self, x=self.y, y=self.x)

    def as_stored(self) -> Layout:
        """The same without mirrors."""
        return replace(self, x=replace(self.x, mirror=-1), y=replace(self.y, mirror=-1))


@functools.cache
def _numbers(layout: Layout) -> npt.NDArray[np.int64]:
    """What the C code reads of a layout, in its order."""
    numbers = [*astuple(layout.x), *astuple(layout.y), layout.p_bit, layout.p_inverted]
    numbers += [layout.kept_mask, layout.kept_value, layout.wraps]
    numbers += [layout.marker_mask, layout.marker_value, layout.marker_time, 2**layout.words.time_bits]
    return np.array(numbers, np.int64)


@dataclass
class Clock:
    """What is added to a record's time, and the time of the last event as it is in the file (-1: none yet)."""

    added: int = 0
    last: int = -1


class OutsideError(Exception):
    """A record whose mirrored coordinate is below 0."""

    def __init__(self, offset: int, x: int, y: int) -> None:
        super().__init__(offset, x, y)
        self.offset, self.x, self.y = offset, x, y


# One pass: load, drop or unwrap, mirror, store. The five ways to load a record make five functions; what the bits mean
# comes as numbers, which the loop keeps in registers. A pixel outside the sensor ends it at once.
_SOURCE = r"""
#include <stdint.h>
#include <string.h>

#define STRIDE 13 /* bytes an event: int64 t, uint16 x, uint16 y, bool p */

static uint64_t le32(const uint8_t *b) { return (uint64_t)b[3] << 24 | (uint64_t)b[2] << 16 | b[1] << 8 | b[0]; }
static uint64_t be32(const uint8_t *b) { return (uint64_t)b[0] << 24 | (uint64_t)b[1] << 16 | b[2] << 8 | b[3]; }
static uint64_t be16(const uint8_t *b) { return b[0] << 8 | b[1]; }

/* runs: [n, 4] of offset, number, time to add, whether to add it. clock: time added, time of the last event.
   Returns the number of events, or -1 - the offset of a record outside the sensor. A layout is plain without wraps,
   markers and mirrors: its loop is compiled apart, for then all that it needs stays in registers. */
#define DEFINE_UNPACK(NAME, SIZE, ADDRESS, TIME)                                                                     \
  static inline __attribute__((always_inline)) int64_t NAME##_any(                                                  \
      const uint8_t *data, int64_t n, const int64_t *runs, const int64_t *layout, int64_t *clock, uint8_t *events,  \
      const int plain) {                                                                                            \
    const int64_t x_shift = layout[0], x_mask = (1LL << layout[1]) - 1, x_mirror = plain ? -1 : layout[2];          \
    const int64_t y_shift = layout[3], y_mask = (1LL << layout[4]) - 1, y_mirror = plain ? -1 : layout[5];          \
    const int64_t p_bit = layout[6], p_inverted = layout[7], kept_mask = layout[8], kept_value = layout[9];         \
    const int64_t wraps = !plain && layout[10], marker_mask = plain ? 0 : layout[11];                               \
    const int64_t marker_value = plain ? 1 : layout[12], marker_time = layout[13], time_range = layout[14];         \
    int64_t added = clock[0], last = clock[1];                                                                      \
    uint8_t *event = events;                                                                                        \
    for (int64_t i = 0; i < n; i++) {                                                                               \
      const uint8_t *record = data + runs[4 * i], *end = record + runs[4 * i + 1] * SIZE;                           \
      if (runs[4 * i + 3]) added = runs[4 * i + 2];                                                                 \
      for (; record < end; record += SIZE) {                                                                        \
        const int64_t address = ADDRESS;                                                                            \
        if ((address & kept_mask) != kept_value) continue;                                                          \
        if ((address & marker_mask) == marker_value) { added += marker_time; continue; }                            \
        int64_t t = (TIME) & (time_range - 1), x = (address >> x_shift) & x_mask, y = (address >> y_shift) & y_mask; \
        if (wraps && last - t > time_range / 2) added += time_range;                                                \
        last = t;                                                                                                   \
        t += added;                                                                                                 \
        if (x_mirror >= 0) x = x_mirror - x;                                                                        \
        if (y_mirror >= 0) y = y_mirror - y;                                                                        \
        if (x < 0 || y < 0) return -1 - (record - data);                                                            \
        const uint16_t column = x, row = y;                                                                         \
        memcpy(event, &t, sizeof t);                                                                                \
        memcpy(event + 8, &column, sizeof column);                                                                  \
        memcpy(event + 10, &row, sizeof row);                                                                       \
        event[12] = ((address >> p_bit) & 1) ^ p_inverted;                                                          \
        event += STRIDE;                                                                                            \
      }                                                                                                             \
    }                                                                                                               \
    clock[0] = added;                                                                                               \
    clock[1] = last;                                                                                                \
    return (event - events) / STRIDE;                                                                               \
  }                                                                                                                 \
  int64_t NAME(const uint8_t *data, int64_t n, const int64_t *runs, const int64_t *layout, int64_t *clock,          \
               uint8_t *events) {                                                                                   \
    const int plain = layout[2] < 0 && layout[5] < 0 && !layout[10] && !layout[11] && layout[12];                   \
    return plain ? NAME##_any(data, n, runs, layout, clock, events, 1)                                              \
                 : NAME##_any(data, n, runs, layout, clock, events, 0);                                             \
  }

DEFINE_UNPACK(ae32, 8, be32(record), be32(record + 4))
DEFINE_UNPACK(ae16, 6, be16(record), be32(record + 2))
DEFINE_UNPACK(packet, 8, le32(record), le32(record + 4))
DEFINE_UNPACK(dat, 8, le32(record + 4), le32(record))
DEFINE_UNPACK(aer40, 5, (uint64_t)record[0] << 32 | be32(record + 1), address)
"""


def unpack(data: npt.NDArray[np.uint8], runs: Sequence[Run], layout: Layout, clock: Clock) -> EventArray:
    """Events of runs of records, in their order.

    Args:
        data: the file's bytes.
        runs: which records.
        layout: what their bits mean.
        clock: goes on from one call to the next.

    Returns:
        The events, without the records that are none.

    Raises:
        OutsideError: A coordinate lies outside the sensor.
    """
    events = np.empty(sum(count for _, count, _ in runs), EVENT_DTYPE)
    library = native.load("records", _SOURCE)
    if library is None:
        kept = 0
        for run in runs:
            kept += _unpack_numpy(data, run, layout, clock, events[kept:])
        return keep_first(events, kept)
    function = _function(library, layout.words.name)
    numbers, state = _numbers(layout), np.array([clock.added, clock.last])
    rows = np.array([(offset, count, time or 0, time is not None) for offset, count, time in runs], np.int64)
    kept = function(data.ctypes.data, len(rows), rows.ctypes.data, numbers.ctypes.data, state.ctypes.data,
                    events.ctypes.data)  # fmt: skip
    if kept < 0:
        offset = -1 - kept
        raise _outside(data, offset, layout)
    clock.added, clock.last = state.tolist()
    return keep_first(events, kept)


def keep_first(events: EventArray, count: int) -> EventArray:
    """The first events of an array with room for more; a copy where a view would keep alive much more than it shows."""
    return events[:count] if 2 * count >= len(events) else events[:count].copy()


def ascending(head: bytes, layout: Layout) -> bool:
    """Whether the times in the first bytes of a file ascend, but for a few: a sign of formats that have no mark.

    Args:
        head: from the first record on.
        layout: of the format that it may be in.
    """
    data = np.frombuffer(head, np.uint8)
    address, times = _words(data, 0, len(data) // layout.words.size, layout)
    times = times[(address & layout.marker_mask) != layout.marker_value]
    return int(np.count_nonzero(np.diff(times) < 0)) <= 1 + len(times) // 10


def pack(
    events: EventArray, layout: Layout, title: str, times: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.void]:
    """Records of events, the inverse of :func:`unpack`.

    Args:
        events: sorted by time.
        layout: what the bits of a record mean.
        title: of the format, for messages.
        times: what is stored, from 0 to the largest time of a record; by default the events' own times, which go on
            from 0 where the layout wraps.

    Returns:
        Records ``[N]`` of ``layout.words.dtype``.

    Raises:
        InputError: A coordinate or time that the format has no room for.
    """
    if times is None:
        times = _wrapped(events["t"], 2**layout.words.time_bits, title)
    address = layout.kept_value | (events["p"].astype(np.int64) ^ layout.p_inverted) << layout.p_bit
    for name, place in (("x", layout.x), ("y", layout.y)):
        value = events[name].astype(np.int64)
        largest = 2**place.bits - 1 if place.mirror < 0 else place.mirror
        if len(value) and value.max() > largest:
            first = int((value > largest).argmax())
            raise InputError(
                f"{title} has room for {name} from 0 to {largest}; event {first} has {name}={value[first]}. Write "
                ".npz, which holds any events, or leave such events out."
            )
        address |= (value if place.mirror < 0 else place.mirror - value) << place.shift
    records = np.empty(len(events), layout.words.dtype)
    if layout.words is AER40:
        records["high"], records["low"] = address >> 32, address & 0xFFFFFFFF | times
    else:
        records["address"], records["time"] = address, times
    return records


def _wrapped(times: npt.NDArray[np.int64], time_range: int, title: str) -> npt.NDArray[np.int64]:
    """Times as a counter shows them, where a reader can tell how often it has started again."""
    if not len(times):
        return times
    gaps = np.diff(times)
    if times[0] < 0 or times[0] >= time_range:
        raise InputError(
            f"{title} has room for a first time from 0 to {time_range - 1} µs; got {times[0]} µs. Shift the times: "
            "events['t'] -= events['t'][0]."
        )
    if len(gaps) and gaps.max() >= time_range // 2:
        first = int(gaps.argmax())
        raise InputError(
            f"{title} has room for {time_range // 2 - 1} µs between two events; between event {first} and the next "
            f"lie {gaps[first]} µs. Write .npz, which holds any events."
        )
    return times % time_range


def _unpack_numpy(data: npt.NDArray[np.uint8], run: Run, layout: Layout, clock: Clock, events: EventArray) -> int:
    offset, count, time = run
    if time is not None:
        clock.added = time
    address, t = _words(data, offset, count, layout)
    index = np.flatnonzero((address & layout.kept_mask) == layout.kept_value)
    marked = (address[index] & layout.marker_mask) == layout.marker_value
    added = clock.added + layout.marker_time * np.cumsum(marked)
    clock.added = int(added[-1]) if len(index) else clock.added
    index, added = index[~marked], added[~marked]
    if not len(index):
        return 0
    address, t = address[index], t[index]
    if layout.wraps:
        time_range = 2**layout.words.time_bits
        wrapped = np.cumsum(np.concatenate([[clock.last], t[:-1]]) - t > time_range // 2) * time_range
        added = added + wrapped
        clock.added += int(wrapped[-1])
    clock.last = int(t[-1])
    x, y = _coordinates(address, layout)
    outside = (x < 0) | (y < 0)
    if outside.any():
        raise _outside(data, offset + int(index[outside.argmax()]) * layout.words.size, layout)
    kept = events[: len(t)]
    kept["t"], kept["x"], kept["y"] = t + added, x, y
    kept["p"] = ((address >> layout.p_bit) & 1) ^ layout.p_inverted
    return len(t)


def _words(
    data: npt.NDArray[np.uint8], offset: int, count: int, layout: Layout
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    records = data[offset : offset + count * layout.words.size].view(layout.words.dtype)
    if layout.words is AER40:
        address = records["high"].astype(np.int64) << 32 | records["low"]
        return address, address & (2**layout.words.time_bits - 1)
    return records["address"].astype(np.int64), records["time"].astype(np.int64)


def _coordinates(address: npt.NDArray[np.int64], layout: Layout) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    values = []
    for place in (layout.x, layout.y):
        value = (address >> place.shift) & (2**place.bits - 1)
        values.append(value if place.mirror < 0 else place.mirror - value)
    return values[0], values[1]


def _outside(data: npt.NDArray[np.uint8], offset: int, layout: Layout) -> OutsideError:
    x, y = _coordinates(_words(data, offset, 1, layout)[0], layout.as_stored())
    return OutsideError(offset, int(x[0]), int(y[0]))


def _function(library: ctypes.CDLL, name: str) -> Any:
    function = getattr(library, name)
    if function.argtypes is None:
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        function.restype = number
        function.argtypes = [pointer, number, pointer, pointer, pointer, pointer]
    return function


assert EVENT_DTYPE.itemsize == 13, "STRIDE and the offsets of the C source are those of EVENT_DTYPE"
