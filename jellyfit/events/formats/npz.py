"""``.npz`` files: arrays t, x, y and p, as SpikingJelly and HARDVS have them too, or ES-ImageNet's pos and neg."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from jellyfit.errors import DataError, InputError, InputTypeError
from jellyfit.events.array import EventArray, make_events, sort_events
from jellyfit.events.formats.base import Format, Recording, Source, in_chunks

__all__ = ["Npz"]

_FIELDS = ("t", "x", "y", "p")
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, NotImplementedError, TypeError)


class Npz(Format):
    """A zip archive of arrays: t (µs), x, y, p of any integer or boolean dtype, compressed or not.

    Or ``pos`` and ``neg`` as in ES-ImageNet (Lin, Ding, Qu, Deng, Li, 2021): rows of (row, column, time), where a time
    is the number of a step from 1 to 8, no µs. They are merged and sorted by time; at one time ON comes first.
    """

    name = "npz"
    title = ".npz"
    suffixes = (".npz",)

    def matches(self, head: bytes, suffix: str) -> bool:
        return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))

    def read(self, source: Source) -> Recording:
        source.refuse_sample()
        return Recording(_chunks(source))

    def write(self, file: IO[bytes], events: EventArray, sensor_size: tuple[int, int] | None) -> None:
        np.savez(file, t=events["t"], x=events["x"], y=events["y"], p=events["p"])


def _chunks(source: Source) -> Iterator[EventArray]:
    try:
        with source.path.open("rb") as file, zipfile.ZipFile(file) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if {"pos", "neg"} <= set(names):
                yield from _positive_and_negative(source, archive)
            else:
                yield from _columns(source, archive, names)
    except _ZIP_ERRORS as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{source.path} is a truncated or damaged .npz file ({error}). Fetch or write it again."
        ) from error


def _columns(source: Source, archive: zipfile.ZipFile, names: list[str]) -> Iterator[EventArray]:
    """Chunks of the four arrays, read side by side, so that none is ever whole in memory."""
    missing = [name for name in _FIELDS if name not in names]
    if missing:
        raise DataError(
            f"{source.path} has no {', '.join(missing)}: a .npz of events holds the arrays t, x, y and p; "
            f"this one holds {', '.join(names) or 'none'}."
        )
    arrays = [_Array(source, archive, name) for name in _FIELDS]
    lengths = {array.name: array.length for array in arrays}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{source.path} holds no events: its arrays differ in length: {lengths}.")
    length = arrays[0].length
    for first in range(0, max(length, 1), source.chunk):
        count = min(source.chunk, length - first)
        try:
            yield make_events(*(array.take(count) for array in arrays))
        except (InputError, InputTypeError) as error:
            raise DataError(f"{source.path} holds no events: {error}") from error
        source.position = len(source.data) * (first + count) // max(length, 1)
    for array in arrays:
        array.close()


class _Array:
    """An array in the archive, read from its beginning to its end."""

    def __init__(self, source: Source, archive: zipfile.ZipFile, name: str) -> None:
        self.name = name
        self.member = archive.open(f"{name}.npy")
        try:
            version = np.lib.format.read_magic(self.member)
        except ValueError as error:
            raise DataError(f"{source.path} holds no events: The column {name} is no NumPy array.") from error
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, self.dtype = headers[version](self.member)
        if self.dtype.hasobject:
            raise ValueError(f"the column {name} needs pickle, which can run any program and is not read")
        if len(shape) != 1:
            raise DataError(
                f"{source.path} holds no events: The column {name} must be one-dimensional; got shape {list(shape)}."
            )
        self.length = shape[0]

    def take(self, count: int) -> npt.NDArray[Any]:
        """The next values."""
        raw = self.member.read(count * self.dtype.itemsize)
        if len(raw) < count * self.dtype.itemsize:
            raise EOFError(f"the column {self.name} ends early")
        return np.frombuffer(raw, self.dtype)

    def close(self) -> None:
        """Reach the end, where the archive checks its sum."""
        if self.member.read(1):
            raise ValueError(f"the column {self.name} is longer than it says")
        self.member.close()


def _positive_and_negative(source: Source, archive: zipfile.ZipFile) -> Iterator[EventArray]:
    rows = []
    for name in ("pos", "neg"):
        with archive.open(f"{name}.npy") as member:
            array = np.lib.format.read_array(member, allow_pickle=False)
        if array.ndim != 2 or array.shape[1] != 3:
            raise DataError(
                f"{source.path} holds no events: {name} must have the shape [N, 3], (row, column, time); got "
                f"{list(array.shape)}."
            )
        rows.append(array)
    polarity = np.repeat([True, False], [len(array) for array in rows])
    y, x, t = np.concatenate(rows).T
    try:
        events = sort_events(make_events(t, x, y, polarity))
    except (InputError, InputTypeError) as error:
        raise DataError(f"{source.path} holds no events: {error}") from error
    yield from in_chunks(source, events)
