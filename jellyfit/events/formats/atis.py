"""ATIS events of 40 bits: N-MNIST and N-Caltech101."""

from __future__ import annotations

from typing import IO

import numpy as np

from jellyfit.errors import InputError
from jellyfit.events.array import EventArray
from jellyfit.events.formats.base import Format, Recording, Source, record_chunks
from jellyfit.events.formats.records import AER40, Field, Layout, ascending, pack

__all__ = ["Atis"]

_MARKER_ROW = 240
_MARKER_TIME = 2**13
_LARGEST_STORED = 2**AER40.time_bits - 1
_MOST_MARKERS = 2**24

_LAYOUT = Layout(
    AER40, Field(32, 8), Field(24, 8), p_bit=23, marker_mask=0xFF << 24, marker_value=_MARKER_ROW << 24,
    marker_time=_MARKER_TIME, others="overflow markers",
)  # fmt: skip


class Atis(Format):
    """ATIS ``.bin``: 40 bits an event, big-endian: column, row, polarity and 23 bits of time in µs; no header.

    Nothing in the file says what it is: it is known by its suffix, if its times ascend. A record of row 240 is no
    event: it adds 2**13 µs to the times that follow (Orchard, Jayawant, Cohen and Thakor, 2015, and the reader of their
    data sets).
    """

    name = "atis"
    title = "ATIS .bin"
    suffixes = (".bin",)

    def matches(self, head: bytes, suffix: str) -> bool:
        return suffix in self.suffixes and ascending(head, _LAYOUT)

    def read(self, source: Source) -> Recording:
        source.refuse_sample()
        return Recording(record_chunks(source, 0, _LAYOUT))

    def write(self, file: IO[bytes], events: EventArray, sensor_size: tuple[int, int] | None) -> None:
        if not len(events):
            raise InputError(f"{self.title} has no header: without events it would be an empty file. Write .npz.")
        if (events["y"] == _MARKER_ROW).any():
            raise InputError(
                f"{self.title} has no room for row {_MARKER_ROW}, which marks an overflow of time. Write .npz, or "
                "leave that row out."
            )
        times = events["t"]
        if times[0] < 0:
            raise InputError(f"{self.title} has room for times from 0 on; got {times[0]} µs.")
        markers = np.maximum(-((_LARGEST_STORED - times) // _MARKER_TIME), 0)  # needed before each event
        if markers[-1] > _MOST_MARKERS:
            raise InputError(
                f"{self.title} would need {markers[-1]} overflow markers to reach {times[-1]} µs. Shift the times: "
                "events['t'] -= events['t'][0]."
            )
        records = np.zeros(len(events) + int(markers[-1]), AER40.dtype)
        records["low"] = _MARKER_ROW << 24
        records[np.arange(len(events)) + markers] = pack(events, _LAYOUT, self.title, times - markers * _MARKER_TIME)
        file.write(records.tobytes())
