"""MATLAB ``.mat`` files of ASL-DVS."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from jellyfit.errors import DataError, InputError, InputTypeError
from jellyfit.events.array import EventArray, make_events
from jellyfit.events.formats.base import Format, Recording, Source, in_chunks

__all__ = ["Mat"]

_SIZE = (180, 240)
_NAMES = {"t": "ts", "x": "x", "y": "y", "p": "pol"}


class Mat(Format):
    """MATLAB files, version 5 to 7, with the arrays ts (µs), x, y and pol, as in ASL-DVS (Bi et al., 2019).

    They were recorded with a DAVIS240C, which counts columns from the right and rows from below.
    """

    name = "mat"
    title = "ASL-DVS .mat"
    suffixes = (".mat",)

    def matches(self, head: bytes, suffix: str) -> bool:
        return head.startswith(b"MATLAB ")

    def read(self, source: Source) -> Recording:
        source.refuse_sample()
        if source.data[:10].tobytes() == b"MATLAB 7.3":
            raise DataError(
                f"{source.path} is a MATLAB file of version 7.3, which is not read. In MATLAB: load it, then "
                "save(name, 'ts', 'x', 'y', 'pol', '-v7')."
            )
        return Recording(_chunks(source), _SIZE)


def _chunks(source: Source) -> Iterator[EventArray]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(source.path, variable_names=list(_NAMES.values()))
    except (MatReadError, zlib.error, ValueError, TypeError, EOFError, OSError) as error:
        raise DataError(
            f"{source.path} is a truncated or damaged .mat file ({error}). Fetch or write it again."
        ) from error
    missing = [name for name in _NAMES.values() if name not in found]
    if missing:
        raise DataError(f"{source.path} has no {', '.join(missing)}: ASL-DVS has the arrays ts, x, y and pol.")
    try:
        columns = {field: _integers(found[name]) for field, name in _NAMES.items()}
        if source.orientation != "stored":
            columns["x"], columns["y"] = _SIZE[1] - 1 - columns["x"], _SIZE[0] - 1 - columns["y"]
        events = make_events(columns["t"], columns["x"], columns["y"], columns["p"])
    except (InputError, InputTypeError) as error:
        raise DataError(f"{source.path} holds no events: {error}") from error
    yield from in_chunks(source, events)


def _integers(array: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """A column [N] of an array [N, 1] or [1, N]; MATLAB's numbers are floats unless one says otherwise."""
    column = array.reshape(-1) if array.size == max(array.shape, default=1) else array
    if column.dtype.kind == "f" and not (np.isfinite(column) & (column == np.rint(column))).all():
        raise InputTypeError("the arrays must hold whole numbers; times are in µs.")
    return column.astype(np.int64)
