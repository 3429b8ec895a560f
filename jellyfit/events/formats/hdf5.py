"""HDF5 files of spikes: SHD and SSC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jellyfit.errors import DataError, InputError
from jellyfit.events.array import EventArray, make_events
from jellyfit.events.formats.base import Format, Recording, Source, in_chunks

__all__ = ["Hdf5", "read_labels"]

_UNITS = 700
_MARK = b"\x89HDF\r\n\x1a\n"


class Hdf5(Format):
    """Spikes of many recordings in one file, as in SHD and SSC (Cramer, Stradmann, Schemmel and Zenke, 2020).

    A spike of unit u is an ON event of column u and row 0, so that the sensor has the size (1, 700). Times are stored
    in seconds, as float16 in SHD; they are made float64 before they become µs.
    """

    name = "hdf5"
    title = "SHD .h5"
    suffixes = (".h5", ".hdf5")

    def matches(self, head: bytes, suffix: str) -> bool:
        return head.startswith(_MARK)

    def read(self, source: Source) -> Recording:
        return Recording(_chunks(source), (1, _UNITS))


def read_labels(path: str | Path) -> npt.NDArray[np.int64]:
    """Read the class of every recording of an SHD or SSC file.

    Args:
        path: The file.

    Returns:
        Labels ``[recordings]``.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: The file is damaged or holds no labels.

    Examples:
        >>> import tempfile
        >>> import h5py
        >>> from jellyfit import events
        >>> path = tempfile.mkdtemp() + "/shd.h5"
        >>> with h5py.File(path, "w") as file:
        ...     file["labels"] = [7, 0, 19]
        >>> events.read_labels(path)
        array([ 7,  0, 19])
    """
    with _opened(Path(path)) as file:
        if "labels" not in file:
            raise DataError(f"{path} has no array labels; SHD and SSC have. It holds {', '.join(file)}.")
        return np.asarray(file["labels"][:], np.int64)


def _chunks(source: Source) -> Iterator[EventArray]:
    with _opened(source.path) as file:
        missing = [name for name in ("spikes/times", "spikes/units") if name not in file]
        if missing:
            raise DataError(
                f"{source.path} has no {' and no '.join(missing)}: known of HDF5 are SHD and SSC. It holds "
                f"{', '.join(file)}."
            )
        times, units = file["spikes/times"], file["spikes/units"]
        if source.sample is None or not 0 <= source.sample < len(times):
            raise InputError(
                f"{source.path} holds {len(times):,} recordings; give sample from 0 to {len(times) - 1}, got "
                f"{source.sample}."
            )
        seconds = np.asarray(times[source.sample], np.float64)
        unit = np.asarray(units[source.sample])
    if len(seconds) != len(unit) or not np.isfinite(seconds).all():
        raise DataError(
            f"{source.path}, recording {source.sample}, has {len(seconds)} times and {len(unit)} units, all of which "
            "must be finite. Fetch the file again."
        )
    t = np.rint(seconds * 1e6).astype(np.int64)
    yield from in_chunks(source, make_events(t, unit, np.zeros(len(t), np.int64), np.ones(len(t), np.bool_)))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except (OSError, KeyError, RuntimeError) as error:
        raise DataError(f"{path} is a truncated or damaged HDF5 file ({error}). Fetch it again.") from error
