"""AEDAT 1.0 and 2.0: what jAER wrote from DVS128 and DAVIS cameras; CIFAR10-DVS."""

from __future__ import annotations

from typing import IO

import numpy as np

from jellyfit.errors import DataError, InputError
from jellyfit.events.array import EventArray
from jellyfit.events.formats.base import Format, Orientation, Recording, Source, chip_size, record_chunks, text_header
from jellyfit.events.formats.records import AE16, AE32, Field, Layout, Words, ascending, pack

__all__ = ["Aedat1", "Aedat2"]

_END = b"#End Of ASCII Header"
_DVS128 = ("dvs128", "tmpdiff128")
_DAVIS = ("davis", "sbret10")
_WRITTEN = {chip: size for chip in ("DVS128", "DAVIS240C", "DAVIS346", "DAVIS640") if (size := chip_size(chip))}


def _dvs128(words: Words, orientation: Orientation = "camera") -> Layout:
    # jAER counts rows from below and columns from the right; bit 15 marks synchronisation and other special words
    layout = Layout(
        words, Field(1, 7, 127), Field(8, 7, 127), p_bit=0, p_inverted=1, kept_mask=1 << 15, wraps=True,
        others="special words",
    )  # fmt: skip
    return layout.transposed() if orientation == "spikingjelly" else layout


def _davis(height: int, width: int) -> Layout:
    # bit 31 marks samples of the picture sensor and of the motion unit, bit 10 events from outside
    return Layout(
        AE32, Field(12, 10, width - 1), Field(22, 9, height - 1), p_bit=11, kept_mask=1 << 31 | 1 << 10, wraps=True,
        others="APS, IMU and external words",
    )  # fmt: skip


class Aedat1(Format):
    """AEDAT 1.0: a 16-bit address of a DVS128 and a 32-bit time in each record of 6 bytes, big-endian.

    A header is optional; a file without a version line is known by its suffix, if its times ascend.
    """

    name = "aedat1"
    title = "AEDAT 1.0"
    suffixes = (".aedat",)

    def matches(self, head: bytes, suffix: str) -> bool:
        if head.startswith(b"#!"):
            return head.startswith(b"#!AER-DAT1.")
        _, start = text_header(np.frombuffer(head, np.uint8), b"#", _END)
        return suffix in self.suffixes and ascending(head[start:], _dvs128(AE16))

    def read(self, source: Source) -> Recording:
        _, start = text_header(source.data, b"#", _END)
        return _recording(source, start, _dvs128(AE16, source.orientation), (128, 128))


class Aedat2(Format):
    """AEDAT 2.0: a 32-bit address and a 32-bit time in µs in each record of 8 bytes, big-endian.

    Times are unsigned and go on from 0 after 2**32 - 1. What the bits of an address mean depends on the chip, which
    the header names; where it names none, a file with addresses of more than 16 bits is from a DAVIS.
    """

    name = "aedat2"
    title = "AEDAT 2.0"
    suffixes = (".aedat",)

    def matches(self, head: bytes, suffix: str) -> bool:
        return head.startswith(b"#!AER-DAT2.")

    def read(self, source: Source) -> Recording:
        lines, start = text_header(source.data, b"#", _END)
        chip = next((line.partition(":")[2].strip() for line in lines if line.startswith("# AEChip:")), "")
        if _names(_DVS128, chip) or (not chip and not _has_wide_addresses(source, start)):
            return _recording(source, start, _dvs128(AE32, source.orientation), (128, 128))
        if chip and not _names(_DAVIS, chip):
            raise DataError(
                f"{source.path} was recorded from the chip {chip}, whose addresses are not known here (known: DVS128 "
                "and DAVIS). Convert it with jAER."
            )
        size = chip_size(chip)
        if size is None and source.orientation != "stored":
            raise DataError(
                f"{source.path} is from a DAVIS camera of unknown size (chip: {chip or 'not named'}), so its picture "
                "cannot be turned the right way up. Give orientation='stored' for the addresses as they stand there."
            )
        return _recording(source, start, _davis(*(size or (512, 1024))), size)

    def write(self, file: IO[bytes], events: EventArray, sensor_size: tuple[int, int] | None) -> None:
        height, width = sensor_size or (int(events["y"].max(initial=0)) + 1, int(events["x"].max(initial=0)) + 1)
        fitting = [chip for chip, size in _WRITTEN.items() if height <= size[0] and width <= size[1]]
        if not fitting:
            raise InputError(
                f"{self.title} has room for DVS128 and DAVIS cameras of up to 480 x 640 pixels; these events are of a "
                f"sensor of {height} x {width}. Write format='aedat3' or .npz."
            )
        layout = _dvs128(AE32) if fitting[0] == "DVS128" else _davis(*_WRITTEN[fitting[0]])
        records = pack(events, layout, self.title)
        header = ("#!AER-DAT2.0", "# Timestamps tick is 1 us", f"# AEChip: {fitting[0]}", _END.decode())
        file.write("".join(f"{line}\r\n" for line in header).encode())
        file.write(records.tobytes())


def _recording(source: Source, start: int, layout: Layout, size: tuple[int, int] | None) -> Recording:
    source.refuse_sample()
    if source.orientation == "stored":
        layout = layout.as_stored()
    return Recording(record_chunks(source, start, layout), size)


def _names(known: tuple[str, ...], chip: str) -> bool:
    return any(name in chip.lower() for name in known)


def _has_wide_addresses(source: Source, start: int) -> bool:
    head = source.data[start : start + 8 * 4096]
    return bool(head[: len(head) // 8 * 8].reshape(-1, 8)[:, :2].any())
