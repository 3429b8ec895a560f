"""Bytes of event files, written event by event from the formats' descriptions: what the decoders are tested on."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import numpy as np

from jellyfit import events as ev

Event = tuple[int, int, int, int]  # t, x, y, p


def events(rows: Iterable[Event]) -> ev.EventArray:
    return np.array([(t, x, y, bool(p)) for t, x, y, p in rows], ev.EVENT_DTYPE)


def random_rows(N: int, width: int, height: int, last: int, seed: int = 0) -> list[Event]:
    random = np.random.default_rng(seed)
    columns = [np.sort(random.integers(0, last, N)), *(random.integers(0, n, N) for n in (width, height, 2))]
    return [tuple(map(int, row)) for row in zip(*columns, strict=True)]


HEADER_2 = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"


def aedat2_header(chip: str | None = "eu.seebetter.ini.chips.DVS128", end: bool = False) -> bytes:
    line = f"# AEChip: {chip}\r\n".encode() if chip else b""
    return HEADER_2 + line + (b"#End Of ASCII Header\r\n" if end else b"")


def dvs128(rows: Iterable[Event], record: str = ">II") -> bytes:
    """Rows are of the camera's picture."""
    return b"".join(struct.pack(record, (127 - y) << 8 | (127 - x) << 1 | (1 - p), t % 2**32) for t, x, y, p in rows)


def davis(rows: Iterable[Event], height: int, width: int) -> bytes:
    return b"".join(
        struct.pack(">II", (height - 1 - y) << 22 | (width - 1 - x) << 12 | p << 11, t % 2**32) for t, x, y, p in rows
    )


HEADER_3 = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2016-04-15 09:53:22 (TZ-0700)\r\n"
END_3 = b"#!END-HEADER\r\n"


def polarity(rows: Iterable[Event], valid: Sequence[int] | None = None) -> list[bytes]:
    rows = list(rows)
    valid = valid or [1] * len(rows)
    return [
        struct.pack("<II", x << 17 | y << 2 | p << 1 | v, t % 2**31)
        for (t, x, y, p), v in zip(rows, valid, strict=True)
    ]


def packet(
    records: Sequence[bytes], kind: int = 1, overflow: int = 0, capacity: int | None = None, source: int = 1
) -> bytes:
    size = len(records[0]) if records else 8
    capacity = len(records) if capacity is None else capacity
    header = struct.pack("<hhiiiiii", kind, source, size, 4, overflow, capacity, len(records), len(records))
    return header + b"".join(records) + bytes((capacity - len(records)) * size)


def special(kind: int, time: int = 0) -> bytes:
    return packet([struct.pack("<II", kind << 1 | 1, time)], kind=0)


def atis(rows: Iterable[Event]) -> bytes:
    return b"".join((x << 32 | y << 24 | p << 23 | t).to_bytes(5, "big") for t, x, y, p in rows)


ATIS_MARKER = atis([(0, 0, 240, 0)])


def dat2(rows: Iterable[Event]) -> bytes:
    return b"".join(struct.pack("<II", t % 2**32, p << 28 | y << 14 | x) for t, x, y, p in rows)


def dat1(rows: Iterable[Event]) -> bytes:
    return b"".join(struct.pack("<II", t % 2**32, p << 17 | (239 - y) << 9 | x) for t, x, y, p in rows)


RAW_HEADER = b"% Date 2020-09-25 07:48:29\n% evt VERSION\n% geometry 1280x720\n% end\n"


def evt2(rows: Iterable[Event]) -> bytes:
    """A word of high bits before the first event and whenever they change."""
    words: list[int] = []
    high = None
    for t, x, y, p in rows:
        if t >> 6 != high:
            high = t >> 6
            words.append(8 << 28 | high % 2**28)
        words.append(p << 28 | (t & 63) << 22 | x << 11 | y)
    return np.array(words, "<u4").tobytes()


def evt3(rows: Sequence[Event], seed: int = 0) -> bytes:
    """Runs of one row, time and polarity become vectors or single events, as chance has it."""
    random = np.random.default_rng(seed)
    words: list[int] = []
    high = low = row = None
    i = 0
    while i < len(rows):
        t, x, y, p = rows[i]
        if t >> 12 != high:
            high, low = t >> 12, None
            words.append(8 << 12 | high % 2**12)
        if t & 0xFFF != low:
            low = t & 0xFFF
            words.append(6 << 12 | low)
        if y != row:
            row = y
            words.append(y)
        if random.integers(2):
            words.append(2 << 12 | p << 11 | x)
            i += 1
            continue
        words.append(3 << 12 | p << 11 | x)
        for _ in range(random.integers(1, 4)):
            width = int(random.choice([8, 12]))
            bits = 0
            while i < len(rows) and (rows[i][0], rows[i][2], rows[i][3]) == (t, y, p) and 0 <= rows[i][1] - x < width:
                if bits >> (rows[i][1] - x):
                    break  # a vector gives its events from left to right
                bits |= 1 << (rows[i][1] - x)
                i += 1
            words.append((4 if width == 12 else 5) << 12 | bits)
            x += width
    return np.array(words, "<u2").tobytes()
