"""Prophesee and ATIS ``.dat``, versions 1 and 2: NavGesture, N-CARS."""

from __future__ import annotations

import re
from typing import IO

from jellyfit.errors import DataError
from jellyfit.events.array import EventArray
from jellyfit.events.formats.base import Format, Recording, Source, record_chunks, text_header
from jellyfit.events.formats.records import DAT, Field, Layout, ascending, pack

__all__ = ["Dat", "stated_size"]

_ATIS = (240, 304)
_KINDS = (0x00, 0x0C)  # of events of pixels; others are triggers and the like
_VERSION_1 = Layout(DAT, Field(0, 9), Field(9, 8, _ATIS[0] - 1), p_bit=17, wraps=True)
_VERSION_2 = Layout(DAT, Field(0, 14), Field(14, 14), p_bit=28, wraps=True)


class Dat(Format):
    """``.dat``: a 32-bit time in µs and a 32-bit address in each record of 8 bytes, little-endian.

    The header says which version it is: a line ``% Version 2``, else version 1. Version 1 is that of the ATIS of
    304 x 240 pixels, which counts rows from below. A file without a header is known by its suffix, if
    its times ascend, and read as version 1.
    """

    name = "dat"
    title = "Prophesee .dat"
    suffixes = (".dat",)

    def matches(self, head: bytes, suffix: str) -> bool:
        if head.startswith(b"%"):
            return suffix in self.suffixes or re.search(rb"(?m)^% *Version ", head) is not None
        return suffix in self.suffixes and ascending(head, _VERSION_1)

    def read(self, source: Source) -> Recording:
        source.refuse_sample()
        lines, start = text_header(source.data, b"%")
        if lines:
            if len(source.data) < start + 2:
                raise source.damaged(start, "the header is not followed by the kind and size of the events")
            kind, size = source.data[start : start + 2].tolist()
            if kind not in _KINDS or size != DAT.size:
                raise source.damaged(start, f"events of kind {kind}, {size} bytes each; known are 0 and 12, 8 bytes")
            start += 2
        version = next((found[1] for line in lines if (found := re.match(r"% *Version +(\d+)", line))), "1")
        if version not in ("1", "2"):
            raise DataError(f"{source.path} is a .dat file of version {version}; known are versions 1 and 2.")
        layout = _VERSION_1 if version == "1" else _VERSION_2
        if source.orientation == "stored":
            layout = layout.as_stored()
        return Recording(record_chunks(source, start, layout), _ATIS if version == "1" else stated_size(lines))

    def write(self, file: IO[bytes], events: EventArray, sensor_size: tuple[int, int] | None) -> None:
        records = pack(events, _VERSION_2, self.title)
        lines = ["% Data file containing CD events.", "% Version 2"]
        if sensor_size is not None:
            lines += [f"% Height {sensor_size[0]}", f"% Width {sensor_size[1]}"]
        file.write("".join(f"{line}\n" for line in lines).encode() + bytes((_KINDS[1], DAT.size)))
        file.write(records.tobytes())


def stated_size(lines: list[str]) -> tuple[int, int] | None:
    """(height, width) from the header of a Prophesee file, in any of its three spellings; None where it says none."""
    text = "\n".join(lines).lower()
    geometry = re.search(r"geometry +(\d+)x(\d+)", text)
    if geometry:
        return int(geometry[2]), int(geometry[1])
    sides = [re.search(rf"\b{side}[ =](\d+)", text) for side in ("height", "width")]
    return (int(sides[0][1]), int(sides[1][1])) if sides[0] and sides[1] else None
