"""Read and write files of events."""

import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jellyfit.errors import DataError, InputError, InputTypeError
from jellyfit.events.array import EventArray, make_events, sort_events
from jellyfit.native import write_whole

__all__ = ["read_events", "write_events"]

_FIELDS = ("t", "x", "y", "p")


class _Format(NamedTuple):
    name: str
    matches: Callable[[bytes], bool]  # told from the first 4,096 bytes
    read: Callable[[Path], EventArray]


def read_events(path: str | os.PathLike[str]) -> EventArray:
    """Read the events of a file. The format is told from the content, not from the name.

    Formats: ``.npz`` with arrays t (µs), x, y and p of any integer or boolean dtype.

    Args:
        path: The file.

    Returns:
        Events ``[N]`` of :data:`~jellyfit.events.EVENT_DTYPE`, sorted by time.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: The file is in no known format, truncated or damaged, or lacks an array or holds values that are
            no events.
        OSError: The file cannot be read.

    Warns:
        EventWarning: The events were not sorted by time; counts them.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from jellyfit.events import read_events
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "one.npz")
        ...     np.savez(path, t=[10, 25], x=[3, 0], y=[1, 1], p=[1, 0])
        ...     read_events(path)["x"].tolist()
        [3, 0]
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except FileNotFoundError as error:
        near = next(parent for parent in path.absolute().parents if parent.exists())
        text = f"There is no file of events at this path (its folders exist up to {near})"
        raise FileNotFoundError(error.errno, text, str(path)) from error
    except IsADirectoryError as error:
        raise IsADirectoryError(error.errno, "Events are read from a file, and this is a folder", str(path)) from error
    for known in _FORMATS:
        if known.matches(head):
            return sort_events(known.read(path), warn=True)
    if not head:
        raise DataError(f"{path} is empty. Was its download or copy interrupted? Fetch it again.")
    raise DataError(
        f"{path} is in no format of events that is known here ({', '.join(known.name for known in _FORMATS)}); it "
        f"starts with {head[:16]!r}. Is it a damaged file, or one of another kind?"
    )


def write_events(path: str | os.PathLike[str], events: npt.NDArray[Any]) -> None:
    """Write events to an ``.npz`` file: arrays t (int64, µs), x, y (uint16) and p (bool), sorted by time.

    The file is written whole or not at all: under a temporary name in the same folder, then renamed.

    Args:
        path: The file, ending in ``.npz``. An existing one is replaced. Its folder must exist.
        events: Structured array ``[N]``, as :func:`~jellyfit.events.check_events` takes it.

    Raises:
        InputError: The name does not end in ``.npz``, or see :func:`~jellyfit.events.check_events`.
        InputTypeError: See :func:`~jellyfit.events.check_events`.
        OSError: The file cannot be written (FileNotFoundError, PermissionError, a full disk); says what to do.

    Warns:
        EventWarning: The events were not sorted by time; counts them.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from jellyfit.events import make_events, read_events, write_events
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "one.npz")
        ...     write_events(path, make_events(t=[10, 25], x=[3, 0], y=[1, 1], p=[1, 0]))
        ...     len(read_events(path))
        2
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise InputError(
            f"Events are written as .npz; got the name {path.name!r}. Give {path.with_suffix('.npz').name!r}."
        )
    events = sort_events(events, warn=True)
    try:
        with write_whole(path) as file:
            np.savez(file, t=events["t"], x=events["x"], y=events["y"], p=events["p"])
    except OSError as error:
        advice = {
            FileNotFoundError: f"the folder {path.parent} does not exist; make it first",
            PermissionError: f"no permission to write in {path.parent}; choose another folder",
        }.get(type(error), "free some space or choose another folder; no part of the file was left behind")
        reason = f"Cannot write {len(events)} events ({error.strerror or error}): {advice}"
        raise type(error)(error.errno, reason, str(path)) from error


def _read_npz(path: Path) -> EventArray:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [name for name in _FIELDS if name not in archive.files]
            if missing:
                raise DataError(
                    f"{path} has no {', '.join(missing)}: a .npz of events holds the arrays t, x, y and p; "
                    f"this one holds {', '.join(archive.files) or 'none'}."
                )
            columns = [archive[name] for name in _FIELDS]
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, NotImplementedError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is a truncated or damaged .npz file ({error}). Fetch or write it again.") from error
    try:
        return make_events(*columns)
    except (InputError, InputTypeError) as error:
        raise DataError(f"{path} holds no events: {error}") from error


_FORMATS = (_Format(".npz", lambda head: head.startswith((b"PK\x03\x04", b"PK\x05\x06")), _read_npz),)
