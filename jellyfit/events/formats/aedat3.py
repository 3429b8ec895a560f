"""AEDAT 3.1: packets of events, as libcaer and DVS128 Gesture have them."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np

from jellyfit.errors import DataError, InputError
from jellyfit.events.array import EventArray, EventWarning
from jellyfit.events.formats.base import Format, Recording, Source, chip_size, text_header
from jellyfit.events.formats.records import PACKET, Clock, Field, Layout, Run, pack, unpack

__all__ = ["Aedat3"]

_HEADER = struct.Struct("<hhiiiiii")
_RECORD = struct.Struct("<II")
_SPECIAL, _POLARITY = 0, 1
_KINDS = {0: "special", 2: "frame", 3: "IMU", 4: "IMU", 5: "sample", 6: "ear", 7: "configuration"}
_RESET = 1  # the kind of special event after which time starts again at 0
_CAMERAS = ("DVS128", "DAVIS208", "DAVIS240C", "DAVIS346", "DAVIS640")  # named in a header that is written
_LARGEST_PACKET = 4096
_LARGEST_TIME = 2**62 - 1

_LAYOUT = Layout(
    PACKET, Field(17, 15), Field(2, 15), p_bit=1, kept_mask=1, kept_value=1, others="events marked as invalid"
)


class _Packet(NamedTuple):
    kind: int
    source: int
    event_size: int
    time_offset: int
    overflow: int
    capacity: int
    number: int
    valid: int


class Aedat3(Format):
    """AEDAT 3.1, "RAW": packets with a header of 28 bytes, little-endian; only packets of polarity events are read.

    An event's time is 31 bits of its own above which stand the overflows that the packet's header counts. Events that
    are not marked as valid are left out. After a timestamp reset time starts again at 0 in the file; here it goes on
    from the last event before it, with a warning.
    """

    name = "aedat3"
    title = "AEDAT 3.1"
    suffixes = (".aedat",)

    def matches(self, head: bytes, suffix: str) -> bool:
        return head.startswith(b"#!AER-DAT3.")

    def read(self, source: Source) -> Recording:
        source.refuse_sample()
        lines, start = text_header(source.data, b"#", b"#!END-HEADER")
        if lines[0] != "#!AER-DAT3.1" or "#Format: RAW" not in lines:
            shape = next((line for line in lines if line.startswith("#Format")), "no line #Format")
            raise DataError(
                f"{source.path} is {lines[0][2:]} with {shape}; known here is AER-DAT3.1 with #Format: RAW. Convert it "
                "with DV or jAER."
            )
        if not lines[-1].startswith("#!END-HEADER"):
            raise source.damaged(start, "the header does not end in #!END-HEADER")
        cameras = [line.partition(":")[2].strip() for line in lines if line.startswith("#Source")]
        return Recording(_chunks(source, start), chip_size(cameras[0]) if cameras else None)

    def write(self, file: IO[bytes], events: EventArray, sensor_size: tuple[int, int] | None) -> None:
        times = events["t"]
        if len(times) and (times[0] < 0 or times[-1] > _LARGEST_TIME):
            raise InputError(
                f"{self.title} has room for times from 0 to {_LARGEST_TIME} µs; got {times[0]} to {times[-1]}. Shift "
                "the times: events['t'] -= events['t'][0]."
            )
        overflow = times >> 31
        records = pack(events, _LAYOUT, self.title, times & (2**31 - 1))
        camera = next((name for name in _CAMERAS if chip_size(name) == sensor_size), "unknown")
        header = ("#!AER-DAT3.1", "#Format: RAW", f"#Source 1: {camera}", "#Start-Time: 1970-01-01 00:00:00 (TZ+0000)")
        file.write("".join(f"{line}\r\n" for line in (*header, "#!END-HEADER")).encode())
        start = 0
        while start < len(records):
            stop = min(start + _LARGEST_PACKET, int(np.searchsorted(overflow, overflow[start], "right")))
            count = stop - start
            file.write(_HEADER.pack(_POLARITY, 1, PACKET.size, 4, overflow[start], count, count, count))
            file.write(records[start:stop].tobytes())
            start = stop


def _chunks(source: Source, start: int) -> Iterator[EventArray]:
    """Events of as many packets at a time as make a chunk."""
    clock = Clock()
    runs: list[Run] = []
    waiting = 0
    for end, run in _runs(source, start):
        runs.append(run)
        waiting += run[1]
        if waiting >= source.chunk:
            source.position = end
            yield _events(source, runs, waiting, clock)
            runs, waiting = [], 0
    source.position = len(source.data)
    yield _events(source, runs, waiting, clock)


def _events(source: Source, runs: list[Run], count: int, clock: Clock) -> EventArray:
    events = unpack(source.data, runs, _LAYOUT, clock)
    if len(events) < count:
        source.left_out[_LAYOUT.others] += count - len(events)
    return events


def _runs(source: Source, start: int) -> Iterator[tuple[int, Run]]:
    """Each packet of polarity events, in pieces of at most a chunk: the byte behind it, and its records."""
    data, offset, length, size, chunk = source.data.data, start, len(source.data), PACKET.size, source.chunk
    shift = latest = resets = 0
    newest: tuple[int, int] | None = None  # time and place of the last event
    camera = None
    while offset < length:
        if length - offset < _HEADER.size:
            source.cut_short(offset, f"a packet header of {_HEADER.size} bytes")
            break
        packet = _Packet._make(_HEADER.unpack_from(data, offset))
        body, number = offset + _HEADER.size, packet.number
        _check(source, offset, packet)
        end = body + packet.capacity * packet.event_size
        if end > length:
            source.cut_short(offset, f"a packet of {packet.number} events")
            number = min(number, (length - body) // packet.event_size)
        if packet.kind == _POLARITY and number:
            if camera not in (None, packet.source):
                raise source.damaged(
                    offset,
                    f"a packet from source {packet.source} among those from source {camera}",
                    "Files of several cameras are not read; split it with DV.",
                )
            camera = packet.source
            time = shift + (packet.overflow << 31)
            if number <= chunk:
                yield end, (body, number, time)
            else:
                for first in range(0, number, chunk):
                    yield end, (body + first * size, min(chunk, number - first), time)
            newest = time, body + (number - 1) * size
        elif packet.kind == _SPECIAL and _resets(source, body, packet, number):
            resets += camera is not None
            if newest is not None:
                latest, newest = newest[0] + _RECORD.unpack_from(data, newest[1])[1], None
            shift = latest
        if packet.kind != _POLARITY:
            source.left_out[f"{_KINDS.get(packet.kind, 'other')} events"] += number
        offset = end
    if resets:
        warnings.warn(
            f"{source.path}: the camera's clock was set to 0 {resets} times after the first event. Times go on from "
            "the last event before; how long the pause was is not known.",
            EventWarning,
            stacklevel=2,
        )


def _check(source: Source, offset: int, packet: _Packet) -> None:
    capacity, number, size = packet.capacity, packet.number, packet.event_size
    if size <= 0 or capacity < 0 or not 0 <= number <= capacity or packet.overflow < 0 or packet.kind < 0:
        raise source.damaged(
            offset,
            f"a packet header of {number} events of {size} bytes, of kind {packet.kind}, with room for {capacity}",
        )
    if packet.kind == _POLARITY and (size, packet.time_offset) != (PACKET.size, 4):
        raise source.damaged(offset, f"polarity events of {size} bytes with their time at byte {packet.time_offset}")


def _resets(source: Source, body: int, packet: _Packet, number: int) -> bool:
    """Whether a packet of special events holds a timestamp reset."""
    words = (source.data[body + i * packet.event_size :][:1] for i in range(number))
    return any(len(word) and word[0] & 1 and word[0] >> 1 == _RESET for word in words)
