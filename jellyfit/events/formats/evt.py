"""Prophesee ``.raw`` streams: EVT 2.0 and EVT 3.0 (docs.prophesee.ai, encoding formats)."""

from __future__ import annotations

import ctypes
import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jellyfit import native
from jellyfit.errors import DataError
from jellyfit.events.array import EVENT_DTYPE, EventArray
from jellyfit.events.formats.base import Format, Recording, Source, text_header
from jellyfit.events.formats.dat import stated_size
from jellyfit.events.formats.records import keep_first

__all__ = ["Evt2", "Evt3"]

_MOST_BEHIND = 10  # a counter this near to its end that goes back to its beginning has started again
_VECTOR = 12  # the most events of one word
_EARLY = "events before the first time"

# A stream is words of 16 or 32 bits; the highest 4 bits say what a word is. Words carry on state: the time, and in
# EVT 3.0 the row and the column of the next group of pixels too. Both functions return the number of events, or
# -1 - the word at which a column leaves the 11 bits that it has.
_SOURCE = r"""
#include <stdint.h>
#include <string.h>

#define STRIDE 13 /* bytes an event: int64 t, uint16 x, uint16 y, bool p */
#define MOST_BEHIND 10

typedef struct { int64_t high, loops, time, y, x, p, early; } State;

static uint8_t *put(uint8_t *event, int64_t t, uint16_t x, uint16_t y, uint8_t p) {
  memcpy(event, &t, sizeof t);
  memcpy(event + 8, &x, sizeof x);
  memcpy(event + 10, &y, sizeof y);
  event[12] = p;
  return event + STRIDE;
}

static int64_t base(State *s, int64_t high, int high_bits, int low_bits) {
  if (s->high - high >= (1LL << high_bits) - 1 - MOST_BEHIND) s->loops++;
  s->high = high;
  return ((s->loops << high_bits) + high) << low_bits;
}

int64_t evt2(const uint8_t *bytes, int64_t n, State *s, uint8_t *events) {
  uint8_t *event = events;
  for (int64_t i = 0; i < n; i++) {
    const uint8_t *b = bytes + 4 * i;
    const uint32_t word = (uint32_t)b[3] << 24 | b[2] << 16 | b[1] << 8 | b[0];
    switch (word >> 28) {
      case 0: case 1:
        if (s->high < 0) { s->early++; break; }
        event = put(event, s->time + ((word >> 22) & 0x3F), (word >> 11) & 0x7FF, word & 0x7FF, word >> 28);
        break;
      case 8: s->time = base(s, word & 0xFFFFFFF, 28, 6); break;
    }
  }
  return (event - events) / STRIDE;
}

int64_t evt3(const uint8_t *bytes, int64_t n, State *s, uint8_t *events) {
  uint8_t *event = events;
  for (int64_t i = 0; i < n; i++) {
    const unsigned word = bytes[2 * i + 1] << 8 | bytes[2 * i], kind = word >> 12;
    switch (kind) {
      case 0: s->y = word & 0x7FF; break;
      case 2:
        if (s->high < 0) { s->early++; break; }
        event = put(event, s->time, word & 0x7FF, s->y, (word >> 11) & 1);
        break;
      case 3: s->x = word & 0x7FF; s->p = (word >> 11) & 1; break;
      case 4: case 5: {
        const int width = kind == 4 ? 12 : 8;
        for (int bit = 0; bit < width; bit++) {
          if (!((word >> bit) & 1)) continue;
          if (s->x + bit > 0x7FF) return -1 - i;
          if (s->high < 0) { s->early++; continue; }
          event = put(event, s->time, s->x + bit, s->y, s->p);
        }
        s->x += width;
        break;
      }
      case 6: s->time = (s->time & ~0xFFFLL) | (word & 0xFFF); break;
      case 8: s->time = base(s, word & 0xFFF, 12, 12); break;
    }
  }
  return (event - events) / STRIDE;
}
"""


@dataclass
class _State:
    """What a stream carries on from word to word; -1: no word for the high bits of the time yet."""

    high: int = -1
    loops: int = 0
    time: int = 0
    y: int = 0
    x: int = 0
    p: int = 0
    early: int = 0


_ROOM = 2**22  # events for which memory is taken at once, of which a block may need few


class _WordError(Exception):
    """A word that cannot be; its index."""


class _Raw(Format):
    """What the two have in common."""

    suffixes = (".raw",)
    version: str
    word: np.dtype[Any]
    events_of_a_word: int

    def matches(self, head: bytes, suffix: str) -> bool:
        return head.startswith(b"%") and re.search(self._mark(), head) is not None

    def _mark(self) -> bytes:
        number = self.version.encode()
        return rb"(?m)^% *(evt +" + re.escape(number) + rb"|format +EVT" + number.partition(b".")[0] + rb"\b(?!\.))"

    def read(self, source: Source) -> Recording:
        source.refuse_sample()
        lines, start = text_header(source.data, b"% ", b"% end")
        if any(re.match(r"% *endianness +big", line) for line in lines):
            raise DataError(f"{source.path} is big-endian; known is little-endian. Convert it with the Metavision SDK.")
        return Recording(self._chunks(source, start), stated_size(lines))

    def _chunks(self, source: Source, start: int) -> Iterator[EventArray]:
        state, size = _State(), self.word.itemsize
        words, rest = divmod(len(source.data) - start, size)
        if rest:
            source.cut_short(len(source.data) - rest, f"a word of {size} bytes")
        block = max(min(source.chunk, _ROOM) // self.events_of_a_word, 1)
        for done in range(0, words, block):
            offset, count = start + done * size, min(block, words - done)
            source.position = offset + count * size
            try:
                yield self._decode(source.data[offset : source.position], count, state)
            except _WordError as error:
                raise source.damaged(offset + error.args[0] * size, "a column of more than 11 bits") from error
        if state.early:
            source.left_out[_EARLY] += state.early

    def _decode(self, data: npt.NDArray[np.uint8], count: int, state: _State) -> EventArray:
        library = native.load("evt", _SOURCE)
        if library is None:
            return self._decode_numpy(data.view(self.word).astype(np.int64), state)
        events = np.empty(count * self.events_of_a_word, EVENT_DTYPE)
        numbers = np.array(list(vars(state).values()), np.int64)
        function = _function(library, self.name)
        kept = function(data.ctypes.data, count, numbers.ctypes.data, events.ctypes.data)
        if kept < 0:
            raise _WordError(-1 - kept)
        vars(state).update(zip(vars(state), numbers.tolist(), strict=True))
        return keep_first(events, kept)

    @abstractmethod
    def _decode_numpy(self, words: npt.NDArray[np.int64], state: _State) -> EventArray:
        """What the C function of the same name does."""


class Evt2(_Raw):
    """EVT 2.0: words of 32 bits, one event a word: 6 bits of time, 11 of column and row; 28 more bits of time apart."""

    name = "evt2"
    title = "Prophesee EVT 2.0"
    version = "2.0"
    word = np.dtype("<u4")
    events_of_a_word = 1

    def _decode_numpy(self, words: npt.NDArray[np.int64], state: _State) -> EventArray:
        kind = words >> 28
        is_high, is_event = kind == 8, kind <= 1
        started = (state.high >= 0) | (np.cumsum(is_high)[is_event] > 0)
        bases = np.append(state.time, _bases(words[is_high] & 0xFFFFFFF, state, 28, 6))
        word = words[is_event]
        t = bases[np.cumsum(is_high)[is_event]] + ((word >> 22) & 0x3F)
        state.time = int(bases[-1])
        state.early += int(np.count_nonzero(~started))
        return _events(started, t, (word >> 11) & 0x7FF, word & 0x7FF, word >> 28)


class Evt3(_Raw):
    """EVT 3.0: words of 16 bits, each changing a part of the state: row, column, 12 low or 12 high bits of the time.

    A new word of high bits sets the low ones to 0, as in Prophesee's own decoder.
    """

    name = "evt3"
    title = "Prophesee EVT 3.0"
    version = "3.0"
    word = np.dtype("<u2")
    events_of_a_word = _VECTOR

    def _decode_numpy(self, words: npt.NDArray[np.int64], state: _State) -> EventArray:
        kind, value = words >> 12, words & 0xFFF
        is_row, is_base, is_low, is_high = kind == 0, kind == 3, kind == 6, kind == 8
        highs = np.cumsum(is_high)
        started = (state.high >= 0) | (highs > 0)
        bases = np.append(state.time & ~0xFFF, _bases(value[is_high], state, 12, 12))
        time = np.where(is_low, bases[highs] | value, bases[highs])
        times = np.append(state.time, time[is_low | is_high])
        rows = np.append(state.y, value[is_row] & 0x7FF)
        # a vector moves the column on, so a column is that of the last base plus the widths since
        width = np.where(kind == 4, 12, np.where(kind == 5, 8, 0))
        moved = np.cumsum(width) - width
        starts = np.append(state.x, (value & 0x7FF)[is_base] - moved[is_base])
        polarities = np.append(state.p, value[is_base] >> 11)
        group = np.cumsum(is_base)
        # a single event is a vector of one
        single = kind == 2
        x = np.where(single, value & 0x7FF, starts[group] + moved)
        p = np.where(single, value >> 11, polarities[group])
        bits = np.where(single, 1, np.where(kind == 4, value, np.where(kind == 5, value & 0xFF, 0)))
        place, bit = np.nonzero((bits[:, None] >> np.arange(_VECTOR)) & 1)
        column = x[place] + bit
        if (column > 0x7FF).any():
            raise _WordError(int(place[(column > 0x7FF).argmax()]))
        t, y = times[np.cumsum(is_low | is_high)], rows[np.cumsum(is_row)]
        state.time, state.y, state.p = int(times[-1]), int(rows[-1]), int(polarities[-1])
        state.x = int(starts[-1] + width.sum())
        state.early += int(np.count_nonzero(~started[place]))
        return _events(started[place], t[place], column, y[place], p[place])


def _bases(high: npt.NDArray[np.int64], state: _State, high_bits: int, low_bits: int) -> npt.NDArray[np.int64]:
    """Times with low bits of 0 for the words that hold high bits, counting how often these have started again."""
    if not len(high):
        return high
    back = np.append(state.high, high[:-1]) - high
    loops = state.loops + np.cumsum(back >= 2**high_bits - 1 - _MOST_BEHIND)
    state.high, state.loops = int(high[-1]), int(loops[-1])
    return (loops << high_bits | high) << low_bits


def _events(kept: npt.NDArray[np.bool_], *columns: npt.NDArray[np.int64]) -> EventArray:
    events = np.empty(int(np.count_nonzero(kept)), EVENT_DTYPE)
    for name, column in zip("txyp", columns, strict=True):
        events[name] = column[kept]
    return events


def _function(library: ctypes.CDLL, name: str) -> Any:
    function = getattr(library, name)
    if function.argtypes is None:
        function.restype = ctypes.c_int64
        function.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]
    return function
