"""What is in a file of events, without holding it in memory."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from jellyfit.events.array import EventArray
from jellyfit.events.formats import OpenFile, Orientation, open_file
from jellyfit.progress import track

__all__ = ["Summary", "summarize", "take_all"]

_MEGABYTE = 2**20
_LONG = 64  # megabytes from which on progress is shown


@dataclass(frozen=True)
class Summary:
    """What :func:`summarize` found.

    Attributes:
        path: The file.
        format: Its format, for people.
        events: Number of events.
        on: How many of them are ON.
        first: The earliest time in µs; None without events.
        last: The latest time in µs; None without events.
        extent: (height, width) of the smallest sensor that holds all events; (0, 0) without events.
        sensor_size: (height, width) where the file says so, else None.
        unsorted: How many events lie before the event in front of them.
        left_out: How many records that are no events of a pixel were left out, by kind.

    Examples:
        >>> from jellyfit.events import Summary
        >>> summary = Summary("a.npz", ".npz", 8, 6, 0, 4_000_000, (2, 3), None, 0, {})
        >>> summary.duration, summary.rate, summary.on_share
        (4000000, 2.0, 0.75)
    """

    path: Path
    format: str
    events: int
    on: int
    first: int | None
    last: int | None
    extent: tuple[int, int]
    sensor_size: tuple[int, int] | None
    unsorted: int
    left_out: Mapping[str, int]

    @property
    def duration(self) -> int:
        """Time from the first event to the last in µs."""
        return 0 if self.first is None or self.last is None else self.last - self.first

    @property
    def rate(self) -> float:
        """Events per second; NaN where all are at one time."""
        return self.events / self.duration * 1e6 if self.duration else float("nan")

    @property
    def on_share(self) -> float:
        """Share of ON events, 0 to 1; NaN without events."""
        return self.on / self.events if self.events else float("nan")


class _Tally:
    """Adds up what a summary needs."""

    def __init__(self) -> None:
        self.events = self.on = self.unsorted = self.height = self.width = 0
        self.first: int | None = None
        self.last: int | None = None
        self.before: int | None = None  # the time of the last event so far

    def add(self, events: EventArray) -> None:
        if not len(events):
            return
        times = np.ascontiguousarray(events["t"])
        self.events += len(events)
        self.on += int(np.count_nonzero(events["p"]))
        self.height = max(self.height, int(events["y"].max()) + 1)
        self.width = max(self.width, int(events["x"].max()) + 1)
        self.unsorted += int(np.count_nonzero(times[1:] < times[:-1]))
        self.unsorted += self.before is not None and int(times[0]) < self.before
        low, high, self.before = int(times.min()), int(times.max()), int(times[-1])
        self.first = low if self.first is None else min(low, self.first)
        self.last = high if self.last is None else max(high, self.last)


def summarize(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    orientation: Orientation = "camera",
    truncated: Literal["error", "warn"] = "error",
    sample: int | None = None,
    progress: bool = False,
) -> Summary:
    """Count the events of a file, in constant memory.

    Args:
        path: The file.
        format: See :func:`~jellyfit.events.read_events`.
        orientation: See :func:`~jellyfit.events.read_events`.
        truncated: See :func:`~jellyfit.events.read_events`.
        sample: See :func:`~jellyfit.events.read_events`.
        progress: Show how far it is, for long files. Default False.

    Returns:
        A :class:`Summary`.

    Raises:
        FileNotFoundError: See :func:`~jellyfit.events.read_events`; so for all.
        DataError: As above.
        InputError: As above.
        ConfigError: As above.

    Examples:
        >>> import tempfile
        >>> from jellyfit import events
        >>> path = tempfile.mkdtemp() + "/three.npz"
        >>> events.write_events(path, events.make_events(t=[0, 5, 20], x=[1, 7, 3], y=[0, 1, 2], p=[1, 0, 1]))
        >>> summary = events.summarize(path)
        >>> summary.events, summary.on, summary.duration, summary.extent
        (3, 2, 20, (3, 8))
    """
    opened = open_file(
        path, chunk=_MEGABYTE, format=format, orientation=orientation, truncated=truncated, sample=sample
    )
    tally = _Tally()
    take_all(opened, tally.add, f"Reading {opened.source.path.name}", progress)
    return Summary(
        opened.source.path, opened.format.title, tally.events, tally.on, tally.first, tally.last,
        (tally.height, tally.width), opened.recording.sensor_size, tally.unsorted, dict(opened.source.left_out),
    )  # fmt: skip


def take_all(opened: OpenFile, take: Callable[[EventArray], None], description: str, progress: bool) -> None:
    """Give every chunk of a file to a function.

    Args:
        opened: the file.
        take: what to do with a chunk.
        description: what is being done, for the progress bar.
        progress: show a progress bar, if the file is large.
    """
    megabytes = len(opened.source.data) // _MEGABYTE

    def ticks() -> Iterator[None]:
        shown = 0
        for events in opened.recording.chunks:
            take(events)
            reached = opened.source.position // _MEGABYTE
            yield from itertools.repeat(None, reached - shown)
            shown = reached

    for _ in track(ticks(), f"{description} (MiB)", megabytes, enabled=progress and megabytes >= _LONG):
        pass
