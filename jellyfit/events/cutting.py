"""Cut a recording into the trials that a table of labels names, as for DVS128 Gesture."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from jellyfit.errors import DataError, InputError
from jellyfit.events.array import EventArray, sort_events

__all__ = ["Cut", "cut"]

_COLUMNS = ("class", "startTime_usec", "endTime_usec")

Labels: TypeAlias = "str | os.PathLike[str] | Sequence[tuple[int, int, int]]"


class Cut(NamedTuple):
    """A piece of a recording.

    Attributes:
        label: its class, as it stands in the table: from 1 on in DVS128 Gesture.
        start: its begin in µs; included.
        end: its end in µs; not included.
        events: its events ``[N]``, with the times of the recording.

    Examples:
        >>> from jellyfit import events
        >>> e = events.make_events(t=[0, 10], x=[1, 2], y=[0, 0], p=[1, 1])
        >>> (piece,) = events.cut(e, [(5, 0, 10)])
        >>> piece.label, piece.end, len(piece.events)
        (5, 10, 1)
    """

    label: int
    start: int
    end: int
    events: EventArray


def cut(events: npt.NDArray[Any], labels: Labels) -> list[Cut]:
    """Cut a recording at start <= t < end.

    Pieces may overlap, and events between them are in none. (In DVS128 Gesture one pair overlaps:
    ``user22_led_labels.csv``, where class 9 ends after class 10 starts. Amir et al., 2017.)

    Args:
        events: Events ``[N]``, as :func:`~jellyfit.events.check_events` takes them; unsorted ones are sorted, with a
            warning.
        labels: Path of a CSV file with the columns ``class``, ``startTime_usec`` and ``endTime_usec``, such as
            DVS128 Gesture's ``*_labels.csv``; or rows (class, start, end), in µs.

    Returns:
        One :class:`Cut` for each row, in the order of the rows; its events are a view.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: A file that is no such table, or a row of it that ends before it starts; says which.
        InputError: The same of rows that were given.

    Examples:
        >>> from jellyfit import events
        >>> e = events.make_events(t=[0, 10, 20, 30], x=[1, 2, 3, 4], y=[0] * 4, p=[1] * 4)
        >>> [(piece.label, piece.events["x"].tolist()) for piece in events.cut(e, [(5, 0, 20), (2, 20, 40)])]
        [(5, [1, 2]), (2, [3, 4])]
    """
    events = sort_events(events, warn=True)
    rows = _read(Path(labels)) if isinstance(labels, str | os.PathLike) else [tuple(map(int, row)) for row in labels]
    for number, row in enumerate(rows):
        if len(row) != 3 or row[1] > row[2]:
            error = DataError if isinstance(labels, str | os.PathLike) else InputError
            where = f"{labels}, " if error is DataError else ""
            raise error(f"{where}row {number}: expected class, start, end with start <= end in µs; got {row}.")
    times = np.ascontiguousarray(events["t"])
    pieces = []
    for label, start, end in rows:
        first, stop = np.searchsorted(times, (start, end))
        pieces.append(Cut(label, start, end, events[first:stop]))
    return pieces


def _read(path: Path) -> list[tuple[int, ...]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(
                f"{path} has no column {', '.join(missing)}: expected {', '.join(_COLUMNS)} in its first line, got "
                f"{', '.join(reader.fieldnames or ()) or 'nothing'}."
            )
        try:
            return [tuple(int(row[name]) for name in _COLUMNS) for row in reader]
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}, line {reader.line_num}: expected three whole numbers ({error}).") from error
