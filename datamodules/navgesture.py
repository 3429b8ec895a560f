"""NavGesture: gestures that steer a phone, made in front of an event camera while sitting or walking."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy.typing as npt

from jellyfit import events
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.datamodules.recordings import Recording, RecordingsModule
from jellyfit.datamodules.trees import Tree, open_nested
from jellyfit.errors import DataError

__all__ = ["NAVGestureSit", "NAVGestureWalk"]


class _NAVGesture(RecordingsModule):
    """What both halves share."""

    page = "www.neuromorphic-vision.com (its link is dead)"
    sensor_size = (240, 304)
    classes = ("do", "ho", "le", "ri", "se", "up")  # down, home, left, right, select, up

    def open(self, path: Path, scratch: Path) -> Tree:
        return open_nested(path, scratch)

    def recordings(self) -> Iterable[Recording]:
        (file,) = self.files
        for path in map(PurePosixPath, self.tree(file.name).glob("**/*.dat")):
            user, label = [*path.stem.split("_"), "", ""][:2]
            if label not in self.classes:
                raise DataError(
                    f"{file.name}: expected names such as user01_le_1.dat, with one of {', '.join(self.classes)} in "
                    f"second place; got {path}."
                )
            yield Recording(path.stem, file.name, str(path), self.classes.index(label), group=user)

    def decode(self, path: Path, recording: Recording) -> npt.NDArray[Any]:
        found = events.read_events(path, format="dat", orientation="stored", unsorted="drop")
        found["y"] = self.sensor_size[0] - 1 - found["y"]  # in files of either version
        return found


class NAVGestureWalk(_NAVGesture):
    """NavGesture-walk: six gestures, made while walking in front of the camera of a phone that is held (240 x 304).

    ``navgesture-walk.zip`` is put into ``root`` by hand. It holds an archive for each person; these are unpacked from
    it once, and read as they are. The publishers give no parts: ``seed`` draws the people who validate and test, so
    that nobody is in two parts.

    Events that lie before the time of an event in front of them are left out, with a warning that counts them.
    SpikingJelly 2.0 leaves out as many others at the end of the recording, and reads files of version 2 as if they
    were of version 1.

    Args:
        root: folder of the file.
        frames, batch_size, num_workers, pin_memory, seed, cache, compress, val_fraction, test_fraction, download,
            prepare_workers: see :class:`~jellyfit.datamodules.RecordingsModule`. Shares are of people.

    Raises:
        ConfigError: an argument that cannot be.
        DataError: files that are missing or damaged; names them.

    Warns:
        EventWarning: events that are left out.

    Examples:
        >>> from jellyfit.datamodules import NAVGestureWalk
        >>> data = NAVGestureWalk(root="data/navgesture", test_fraction=0.2)
        >>> data.sensor_size, data.classes
        ((240, 304), ('do', 'ho', 'le', 'ri', 'se', 'up'))

    Source: Maro, Ieng and Benosman, "Event-based gesture recognition with dynamic background suppression using
    smartphone computational capabilities", Frontiers in Neuroscience 14 (2020).
    """

    files = (SourceFile("navgesture-walk.zip", "5d305266f13005401959e819abe206f0"),)


class NAVGestureSit(_NAVGesture):
    """NavGesture-sit: the six gestures of :class:`NAVGestureWalk`, made while sitting; ``navgesture-sit.zip``.

    Args:
        root: folder of the file.
        frames, batch_size, num_workers, pin_memory, seed, cache, compress, val_fraction, test_fraction, download,
            prepare_workers: see :class:`~jellyfit.datamodules.RecordingsModule`. Shares are of people.

    Raises:
        ConfigError: an argument that cannot be.
        DataError: files that are missing or damaged; names them.

    Warns:
        EventWarning: events that are left out.

    Examples:
        >>> from jellyfit.datamodules import NAVGestureSit
        >>> NAVGestureSit(root="data/navgesture").files[0].name
        'navgesture-sit.zip'

    Source: see :class:`NAVGestureWalk`.
    """

    files = (SourceFile("navgesture-sit.zip", "1571753ace4d9e0946e6503313712c22"),)
