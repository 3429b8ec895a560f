"""File formats of events: one small file for each family, and how they are told apart."""

from __future__ import annotations

import difflib
import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from jellyfit.errors import DataError, InputError
from jellyfit.events.formats.aedat2 import Aedat1, Aedat2
from jellyfit.events.formats.aedat3 import Aedat3
from jellyfit.events.formats.aedat4 import Aedat4
from jellyfit.events.formats.atis import Atis
from jellyfit.events.formats.base import Format, Orientation, Recording, Source
from jellyfit.events.formats.dat import Dat
from jellyfit.events.formats.evt import Evt2, Evt3
from jellyfit.events.formats.hdf5 import Hdf5
from jellyfit.events.formats.mat import Mat
from jellyfit.events.formats.npz import Npz

__all__ = ["FORMATS", "Format", "OpenFile", "Orientation", "Recording", "Source", "named_format", "open_file"]

FORMATS: tuple[Format, ...] = (
    Npz(), Aedat4(), Aedat3(), Aedat2(), Evt3(), Evt2(), Hdf5(), Mat(), Dat(), Aedat1(), Atis()
)  # fmt: skip
"""All formats, in the order in which a file is tried. Those that need the suffix of its name stand last."""

_HEAD = 4096


@dataclass
class OpenFile:
    """A file whose events can be taken.

    Attributes:
        format: what it is.
        source: its bytes and how they are read.
        recording: its events, in chunks, and what its header says.
    """

    format: Format
    source: Source
    recording: Recording


def open_file(
    path: str | os.PathLike[str],
    *,
    chunk: int,
    format: str | None = None,
    orientation: Orientation = "camera",
    truncated: Literal["error", "warn"] = "error",
    sample: int | None = None,
) -> OpenFile:
    """Open a file of events and find out what it is.

    For the arguments and errors see :func:`jellyfit.events.iter_events`.
    """
    if isinstance(chunk, bool) or not isinstance(chunk, int | np.integer) or chunk < 1:
        raise InputError(f"chunk must be a number of events, an integer of at least 1; got {chunk!r}.")
    for name, value, known in (
        ("orientation", orientation, get_args(Orientation)),
        ("truncated", truncated, ("error", "warn")),
    ):
        if value not in known:
            raise InputError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}.")
    chosen = None if format is None else named_format(format)
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            if not head:
                raise DataError(f"{path} is empty. Was its download or copy interrupted? Fetch it again.")
            data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except FileNotFoundError as error:
        near = next(parent for parent in path.absolute().parents if parent.exists())
        text = f"There is no file of events at this path (its folders exist up to {near})"
        raise FileNotFoundError(error.errno, text, str(path)) from error
    except IsADirectoryError as error:
        raise IsADirectoryError(error.errno, "Events are read from a file, and this is a folder", str(path)) from error
    found = chosen or _find(path, head)
    source = Source(path, data, int(chunk), orientation, truncated, sample)
    return OpenFile(found, source, found.read(source))


def named_format(name: str) -> Format:
    """The format of a name.

    Raises:
        InputError: There is none.
    """
    names = {known.name: known for known in FORMATS}
    if name not in names:
        close = difflib.get_close_matches(str(name), names, n=1)
        raise InputError(
            f"There is no format {name!r}{f'; did you mean {close[0]!r}?' if close else '.'} The formats are "
            f"{', '.join(names)}."
        )
    return names[name]


def _find(path: Path, head: bytes) -> Format:
    suffix = path.suffix.lower()
    for known in FORMATS:
        if known.matches(head, suffix):
            return known
    raise DataError(
        f"{path} is in no format of events that is known here ({', '.join(known.title for known in FORMATS)}); it "
        f"starts with {head[:16]!r}. Is it a damaged file, or one of another kind? If you know its format, give format."
    )
