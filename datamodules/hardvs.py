"""HARDVS: 300 human activities in front of an event camera."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy.typing as npt

from jellyfit import events
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.datamodules.recordings import Recording, RecordingsModule
from jellyfit.datamodules.trees import NamedTrees, Tree, ZipTree, unpacked_tree
from jellyfit.errors import DataError

__all__ = ["HARDVS"]


class HARDVS(RecordingsModule):
    """HARDVS: more than 100,000 recordings of 300 human activities, seen by a DAVIS346 (260 x 346, about 5 s).

    Four files are put into ``root`` by hand: ``MINI_HARDVS_files.zip``, which holds one zip archive for each activity
    (it is unpacked, they are not), and the lists ``train_label.txt``, ``val_label.txt`` and ``test_label.txt``, which
    are the publishers' parts. A line of them begins with ``action_001/NAME``; the class is the activity's number.

    The tree and the lists are as SpikingJelly reads them; no original file was at hand when this was written.

    Args:
        root: folder of the files.
        frames, batch_size, num_workers, pin_memory, seed, cache, compress, val_fraction, test_fraction, download,
            prepare_workers: see :class:`~jellyfit.datamodules.RecordingsModule`.

    Raises:
        ConfigError: an argument that cannot be.
        DataError: files that are missing or damaged; names them.

    Examples:
        >>> from jellyfit.datamodules import HARDVS
        >>> data = HARDVS("data/hardvs")
        >>> len(data.classes), data.classes[0], data.sensor_size
        (300, 'action_001', (260, 346))

    Source: Wang et al., "HARDVS: revisiting human activity recognition with dynamic vision sensors", AAAI (2024).
    """

    files = (
        SourceFile("MINI_HARDVS_files.zip", "9c4cc0d9ba043faa17f6f1a9e9aff982"),
        SourceFile("train_label.txt", "0d642b6e6871034f151b2649a89d8d3c"),
        SourceFile("val_label.txt", "cd2cebcba80e4552102bbacf2b5df812"),
        SourceFile("test_label.txt", "5b664af5843f9b476a9c22626f7f5a59"),
    )
    page = "github.com/Event-AHU/HARDVS"
    sensor_size = (260, 346)
    classes = tuple(f"action_{number:03d}" for number in range(1, 301))

    def open(self, path: Path, scratch: Path) -> Tree:
        if path.suffix == ".txt":
            return super().open(path, scratch)
        outer = unpacked_tree(path, scratch)
        inner = {name.removesuffix(".zip"): ZipTree(outer.folder / name) for name in outer.glob("**/action_*.zip")}
        return NamedTrees(inner) if inner else outer

    def recordings(self) -> Iterable[Recording]:
        archive, *lists = (file.name for file in self.files)
        files = _by_action(self.tree(archive).names())
        for name in lists:
            part = name.removesuffix("_label.txt")
            with self.tree(name).local(name) as path:
                lines = path.read_text().splitlines()
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                key = line.split()[0].removesuffix(".npz")
                action = key.split("/")[0]
                if action not in self.classes or key not in files:
                    raise DataError(f"{name}, line {number}: {archive} holds no recording {key!r}.")
                yield Recording(key.replace("/", "-"), archive, files[key], self.classes.index(action), part)

    def decode(self, path: Path, recording: Recording) -> npt.NDArray[Any]:
        return events.read_events(path, format="npz")


def _by_action(names: Iterable[str]) -> dict[str, str]:
    """Names of files by ``action_001/NAME``, wherever in the archives they lie."""
    found = {}
    for name in names:
        action = re.search(r"(?:^|/)(action_\d{3})/", name)
        if action and name.endswith(".npz"):
            found[f"{action[1]}/{PurePosixPath(name).stem}"] = name
    return found
