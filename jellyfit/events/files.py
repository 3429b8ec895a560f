"""Read and write files of events."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from jellyfit.errors import InputError
from jellyfit.events.array import EVENT_DTYPE, EventArray, EventWarning, check_events, check_sensor_size, sort_events
from jellyfit.events.formats import FORMATS, Format, Orientation, named_format, open_file
from jellyfit.native import write_whole

__all__ = ["iter_events", "put_in_order", "read_events", "write_events"]

_READ_AT_ONCE = 2**26  # events; most files are then one array, which needs no joining


def read_events(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    orientation: Orientation = "camera",
    truncated: Literal["error", "warn"] = "error",
    unsorted: Literal["sort", "drop"] = "sort",
    sample: int | None = None,
) -> EventArray:
    """Read the events of a file.

    The format is told from the content; the suffix of the name decides only where the content says nothing (ATIS
    ``.bin``, and AEDAT 1.0 and ``.dat`` without a header). Formats: AEDAT 1.0, 2.0, 3.1 and 4, ATIS ``.bin``,
    Prophesee ``.dat`` and EVT 2.0 and 3.0, ``.npz``, ASL-DVS ``.mat``, SHD and SSC ``.h5``.

    Args:
        path: The file.
        format: Name of the format (``"aedat1"``, ``"aedat2"``, ``"aedat3"``, ``"aedat4"``, ``"atis"``, ``"dat"``,
            ``"evt2"``, ``"evt3"``, ``"hdf5"``, ``"mat"``, ``"npz"``). None (default): find out.
        orientation: ``"camera"`` (default) gives the picture that the camera saw, row 0 on top and column 0 on the
            left. ``"spikingjelly"`` gives the same, but for AEDAT 1.0 and 2.0 of a DVS128 its transpose, as
            SpikingJelly's CIFAR10-DVS has it. ``"stored"`` gives the addresses as they are in the file.
        truncated: What to do with a file that ends in the middle of an event: ``"error"`` (default), or ``"warn"`` to
            read what stands before that (not of ``.npz``, ``.mat`` and ``.h5``, whose contents are listed at the end).
        unsorted: What to do with events that come after a later one: ``"sort"`` (default), or ``"drop"`` to leave out
            each that is earlier than the last one kept, which suits a camera that repeats itself (NavGesture).
        sample: Which recording of a file of several (SHD, SSC), from 0 on.

    Returns:
        Events ``[N]`` of :data:`~jellyfit.events.EVENT_DTYPE`, sorted by time. Records that are no events of a pixel
        (synchronisation, pictures, motion, events that the camera's software marked as invalid) are left out;
        :func:`~jellyfit.events.summarize` counts them.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: The file is in no known format, truncated or damaged (the message says at which byte), or holds
            values that are no events.
        InputError: An argument that is none of the above, or a sample where there is none.
        ConfigError: A package that this format needs is not installed.
        OSError: The file cannot be read.

    Warns:
        EventWarning: The events were not sorted by time, the camera's clock was set back, or the file is truncated and
            ``truncated="warn"``.

    Examples:
        >>> import tempfile
        >>> from jellyfit import events
        >>> path = tempfile.mkdtemp() + "/two.aedat"
        >>> events.write_events(path, events.make_events(t=[10, 25], x=[3, 4], y=[0, 1], p=[1, 0]))
        >>> events.read_events(path).tolist()
        [(10, 3, 0, True), (25, 4, 1, False)]
    """
    if unsorted not in ("sort", "drop"):
        raise InputError(f"unsorted must be 'sort' or 'drop'; got {unsorted!r}.")
    opened = open_file(
        path, chunk=_READ_AT_ONCE, format=format, orientation=orientation, truncated=truncated, sample=sample
    )
    return put_in_order(list(opened.recording.chunks), unsorted)


def iter_events(
    path: str | os.PathLike[str],
    *,
    chunk: int = 1_000_000,
    format: str | None = None,
    orientation: Orientation = "camera",
    truncated: Literal["error", "warn"] = "error",
    sample: int | None = None,
) -> Iterator[EventArray]:
    """Read the events of a file in chunks, so that a file of any size needs little memory.

    They come in the order of the file; :func:`read_events` also sorts them. (A ``.mat`` file, a recording of SHD and
    ES-ImageNet's arrays are held in memory as a whole.)

    Args:
        path: The file.
        chunk: Events in each array, but for the last one, which may have fewer. Default 1,000,000, 13 MB.
        format: See :func:`read_events`.
        orientation: See :func:`read_events`.
        truncated: See :func:`read_events`.
        sample: See :func:`read_events`.

    Returns:
        An iterator over events ``[chunk]`` of :data:`~jellyfit.events.EVENT_DTYPE`; it gives nothing for a recording
        without events.

    Raises:
        FileNotFoundError: See :func:`read_events`; so for all. Damage is found when its place in the file is reached.
        DataError: As above.
        InputError: As above, or a chunk below 1.
        ConfigError: As above.
        OSError: As above.

    Warns:
        EventWarning: At the end, where the events were not sorted by time; counts them.

    Examples:
        >>> import tempfile
        >>> from jellyfit import events
        >>> path = tempfile.mkdtemp() + "/five.npz"
        >>> events.write_events(path, events.make_events(t=range(5), x=range(5), y=[0] * 5, p=[1] * 5))
        >>> [len(chunk) for chunk in events.iter_events(path, chunk=2)]
        [2, 2, 1]
    """
    opened = open_file(path, chunk=chunk, format=format, orientation=orientation, truncated=truncated, sample=sample)
    return _counting_unsorted(opened.source.path, _of_size(opened.recording.chunks, chunk))


def write_events(
    path: str | os.PathLike[str],
    events: npt.NDArray[Any],
    format: str | None = None,
    *,
    sensor_size: Sequence[int] | None = None,
) -> None:
    """Write events to a file, sorted by time. :func:`read_events` gives back the same events, to the bit.

    The file is written whole or not at all: under a temporary name in the same folder, then renamed.

    Formats and what they have room for:

    - ``npz`` (``.npz``): any events, as arrays t (int64, µs), x, y (uint16) and p (bool).
    - ``aedat3`` (``.aedat``): AEDAT 3.1; x and y below 2**15, t from 0 to 2**62 - 1.
    - ``aedat2`` (``.aedat``): AEDAT 2.0; sensors up to 480 x 640, first time below 2**32, gaps below 2**31.
    - ``dat`` (``.dat``): version 2; x and y below 2**14, first time below 2**32, gaps below 2**31.
    - ``atis`` (``.bin``): x and y below 2**8, no row 240, t from 0 to 38 hours, at least one event.

    Args:
        path: The file. An existing one is replaced. Its folder must exist.
        events: Structured array ``[N]``, as :func:`~jellyfit.events.check_events` takes it.
        format: Name of the format; default: that of the suffix, for ``.aedat`` AEDAT 3.1.
        sensor_size: (height, width) of the camera, for formats whose header says so. Default: unknown; AEDAT 2.0, in
            which it decides what an address means, takes the smallest camera that fits.

    Raises:
        InputError: A suffix that does not fit the format, a value that the format has no room for, events outside the
            sensor, or see :func:`~jellyfit.events.check_events`.
        InputTypeError: See :func:`~jellyfit.events.check_events`.
        OSError: The file cannot be written (FileNotFoundError, PermissionError, a full disk); says what to do.

    Warns:
        EventWarning: The events were not sorted by time; counts them.

    Examples:
        >>> import pathlib, tempfile
        >>> from jellyfit import events
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "one.bin"
        >>> events.write_events(path, events.make_events(t=[7], x=[3], y=[2], p=[1]))
        >>> path.read_bytes().hex(" ")  # column, row, polarity and time
        '03 02 80 00 07'
    """
    path = Path(path)
    chosen = _format_to_write(path, format)
    size = None if sensor_size is None else check_sensor_size(sensor_size)
    events = sort_events(check_events(events, size), warn=True)
    try:
        with write_whole(path) as file:
            chosen.write(file, events, size)
    except OSError as error:
        advice = {
            FileNotFoundError: f"the folder {path.parent} does not exist; make it first",
            PermissionError: f"no permission to write in {path.parent}; choose another folder",
        }.get(type(error), "free some space or choose another folder; no part of the file was left behind")
        reason = f"Cannot write {len(events)} events ({error.strerror or error}): {advice}"
        raise type(error)(error.errno, reason, str(path)) from error


def put_in_order(chunks: Sequence[EventArray], unsorted: Literal["sort", "drop"] = "sort") -> EventArray:
    """Join the chunks of a file to events sorted by time.

    Args:
        chunks: in the order of the file.
        unsorted: see :func:`read_events`.
    """
    events = chunks[0] if len(chunks) == 1 else np.concatenate([np.empty(0, EVENT_DTYPE), *chunks])
    if unsorted == "drop":
        times = events["t"]
        kept = times >= np.maximum.accumulate(times)
        if not kept.all():
            warnings.warn(
                f"{np.count_nonzero(~kept)} of {len(events)} events are earlier than one before and were left out.",
                EventWarning,
                stacklevel=3,
            )
            events = events[kept]
    return sort_events(events, warn=True)


def _of_size(pieces: Iterable[EventArray], chunk: int) -> Iterator[EventArray]:
    """Events in arrays of exactly ``chunk``, and the rest, from arrays of at most so many."""
    waiting: list[EventArray] = []
    count = 0
    for piece in pieces:
        start = 0
        while count + len(piece) - start >= chunk:
            stop = start + chunk - count
            part = piece[start:stop]
            yield np.concatenate([*waiting, part]) if waiting else part
            waiting, count, start = [], 0, stop
        if start < len(piece):
            waiting.append(piece[start:])
            count += len(piece) - start
    if waiting:
        yield np.concatenate(waiting) if len(waiting) > 1 else waiting[0]


def _counting_unsorted(path: Path, chunks: Iterable[EventArray]) -> Iterator[EventArray]:
    count = 0
    last = None
    for events in chunks:
        times = events["t"]
        count += int(np.count_nonzero(times[1:] < times[:-1])) + bool(last is not None and times[0] < last)
        last = times[-1]
        yield events
    if count:
        warnings.warn(
            f"The times in {path} are not sorted: {count} events lie before the event in front of them. They were "
            "given in the order of the file; read_events sorts them.",
            EventWarning,
            stacklevel=2,
        )


def _format_to_write(path: Path, format: str | None) -> Format:
    written = [known for known in FORMATS if known.writes]
    suffix = path.suffix.lower()
    if format is None:
        found = next((known for known in written if suffix in known.suffixes), None)
        if found is None:
            suffixes = ", ".join(dict.fromkeys(known.suffixes[0] for known in written))
            raise InputError(
                f"Events are written as {suffixes}; got the name {path.name!r}. Give {path.with_suffix('.npz').name!r}."
            )
        return found
    chosen = named_format(format)
    if not chosen.writes:
        raise InputError(
            f"{chosen.title} is read, not written. Formats to write: {', '.join(known.name for known in written)}."
        )
    if suffix not in chosen.suffixes:
        raise InputError(
            f"{chosen.title} files end in {chosen.suffixes[0]}; got the name {path.name!r}. Give "
            f"{path.with_suffix(chosen.suffixes[0]).name!r}."
        )
    return chosen
