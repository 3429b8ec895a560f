"""What every file format shares: the file being read, what was found in it, and how a format is recognised."""

from __future__ import annotations

import re
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from jellyfit.errors import DataError, InputError
from jellyfit.events.array import EventArray, EventWarning
from jellyfit.events.formats.records import Clock, Layout, OutsideError, unpack

__all__ = ["Format", "Orientation", "Recording", "Source", "chip_size", "in_chunks", "record_chunks", "text_header"]

Orientation: TypeAlias = Literal["camera", "spikingjelly", "stored"]

_SIZES = {  # of the chips that headers of AEDAT files name: (height, width)
    "dvs128": (128, 128),
    "tmpdiff128": (128, 128),
    "davis128": (128, 128),
    "davis208": (192, 208),
    "davis240": (180, 240),
    "sbret10": (180, 240),
    "davis346": (260, 346),
    "davis640": (480, 640),
}


@dataclass
class Source:
    """A file that is being read, and how.

    Attributes:
        path: the file, for messages.
        data: its bytes, mapped into memory.
        chunk: how many events one array holds at most.
        orientation: see :func:`jellyfit.events.read_events`.
        truncated: ``"error"`` or ``"warn"``.
        sample: which recording of a file that holds several.
        position: up to which byte the events given so far go.
        left_out: how many records that are no events of a pixel were passed over, by kind.
    """

    path: Path
    data: npt.NDArray[np.uint8]
    chunk: int
    orientation: Orientation
    truncated: Literal["error", "warn"]
    sample: int | None = None
    position: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def damaged(self, offset: int, what: str, advice: str = "Fetch or copy the file again.") -> DataError:
        """The error for a file that is damaged at a byte."""
        return DataError(f"{self.path} is damaged at byte {offset:,} of {len(self.data):,}: {what}. {advice}")

    def cut_short(self, offset: int, what: str) -> None:
        """Say that the file ends in the middle of something: an error, or a warning where that was asked for.

        Raises:
            DataError: With ``truncated="error"``.
        """
        message = f"{self.path} is truncated: {what} begins at byte {offset:,}, the file ends at {len(self.data):,}."
        if self.truncated == "error":
            raise DataError(
                f"{message} Fetch or copy the file again, or give truncated='warn' to read the events before that."
            )
        warnings.warn(f"{message} The events before that were read.", EventWarning, stacklevel=2)

    def refuse_sample(self) -> None:
        """Refuse ``sample`` for a file that holds one recording."""
        if self.sample is not None:
            raise InputError(
                f"{self.path} holds one recording; got sample={self.sample}. Leave sample out: it chooses among the "
                "recordings of a file of several, such as those of SHD."
            )


@dataclass
class Recording:
    """What a format found in a file.

    Attributes:
        chunks: the events in the order of the file, at most ``Source.chunk`` in each array.
        sensor_size: (height, width) where the file says so, else None.
    """

    chunks: Iterator[EventArray]
    sensor_size: tuple[int, int] | None = None


class Format(ABC):
    """One file format. The order of :data:`~jellyfit.events.formats.FORMATS` is that in which they are asked.

    Attributes:
        name: for ``format=`` and the command line.
        title: for people.
        suffixes: of its files, the usual one first.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    @abstractmethod
    def matches(self, head: bytes, suffix: str) -> bool:
        """Whether a file is in this format.

        Args:
            head: its first 4,096 bytes.
            suffix: of its name, in lower case. For formats without a mark of their own only.
        """

    @abstractmethod
    def read(self, source: Source) -> Recording:
        """Read the header, if there is one, and give the events as they are asked for."""

    def write(self, file: IO[bytes], events: EventArray, sensor_size: tuple[int, int] | None) -> None:
        """Write events, sorted by time.

        Raises:
            InputError: A value that the format has no room for, or a format that is only read.
        """
        raise InputError(f"Events are not written as {self.title}. Use .npz, which holds any events.")

    @property
    def writes(self) -> bool:
        """Whether events can be written in this format."""
        return type(self).write is not Format.write


def record_chunks(source: Source, start: int, layout: Layout, clock: Clock | None = None) -> Iterator[EventArray]:
    """Events of a file that, from byte ``start`` on, is nothing but records of one size.

    Raises:
        DataError: The file ends within a record, or a pixel lies outside the sensor.
    """
    clock = clock or Clock()
    size = layout.words.size
    records, rest = divmod(len(source.data) - start, size)
    if rest:
        source.cut_short(len(source.data) - rest, f"a record of {size} bytes")
    for first in range(0, records, source.chunk):
        count = min(source.chunk, records - first)
        offset = start + first * size
        try:
            events = unpack(source.data, [(offset, count, None)], layout, clock)
        except OutsideError as error:
            raise source.damaged(
                error.offset,
                f"column {error.x}, row {error.y} lies outside the sensor",
                "If the camera was another one, orientation='stored' gives the addresses as they are in the file.",
            ) from error
        if len(events) < count:
            source.left_out[layout.others] += count - len(events)
        source.position = offset + count * size
        yield events


def in_chunks(source: Source, events: EventArray) -> Iterator[EventArray]:
    """Chunks of events that are in memory as a whole."""
    for first in range(0, max(len(events), 1), source.chunk):
        source.position = len(source.data) * first // max(len(events), 1)
        yield events[first : first + source.chunk]


def text_header(data: npt.NDArray[np.uint8], mark: bytes, end: bytes | None = None) -> tuple[list[str], int]:
    """Lines of text at the beginning of a file.

    A line begins with ``mark`` and holds no control characters, so that a record that happens to begin with the same
    byte is not taken for one.

    Args:
        data: the file's bytes.
        mark: how each line begins.
        end: how the last line begins, where the format has such a line.

    Returns:
        The lines without their ends, and the offset of the first byte behind them.
    """
    lines: list[str] = []
    offset = 0
    line = re.compile(re.escape(mark) + rb"[^\x00-\x08\x0a-\x1f]*(\r?\n|\Z)")
    text = data.data
    while found := line.match(text, offset):
        lines.append(found.group().decode("utf-8", "replace").rstrip("\r\n"))
        offset = found.end()
        if end is not None and found.group().startswith(end):
            break
    return lines, offset


def chip_size(chip: str) -> tuple[int, int] | None:
    """(height, width) of a chip by its name in a header, such as DVS128 or DAVIS240C; None if unknown."""
    name = chip.lower()
    return next((size for known, size in _SIZES.items() if known in name), None)
