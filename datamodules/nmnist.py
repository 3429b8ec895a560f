"""N-MNIST: handwritten digits moved in front of an event camera."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy.typing as npt

from jellyfit import events
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.datamodules.recordings import Cache, Recording, RecordingsModule
from jellyfit.errors import DataError

__all__ = ["NMNIST"]


class NMNIST(RecordingsModule):
    """N-MNIST: MNIST's 60,000 and 10,000 digits, moved in three saccades in front of an ATIS camera (34 x 34, 300 ms).

    ``Train.zip`` and ``Test.zip`` are put into ``root`` by hand; they need not be unpacked. With ``Train.zip`` alone
    the test samples are drawn from it, as are the validation samples, by class.

    Args:
        root: folder of the files, default ``data/nmnist``.
        frames, batch_size, num_workers, pin_memory, seed, cache, compress, val_fraction, test_fraction, download,
            prepare_workers: see :class:`~jellyfit.datamodules.RecordingsModule`.
        train_only: do without ``Test.zip``; default ``False``.

    Source: Orchard, Jayawant, Cohen and Thakor, "Converting static image datasets to spiking neuromorphic datasets
    using saccades", Frontiers in Neuroscience 9 (2015).
    """

    files = (
        SourceFile("Train.zip", "20959b8e626244a1b502305a9e6e2031", size=1_181_000_000),
        SourceFile("Test.zip", "69ca8762b2fe404d9b9bad1103e97832", size=196_000_000),
    )
    page = "www.garrickorchard.com/datasets/n-mnist"
    expected = {"train": 60_000, "test": 10_000}
    sensor_size = (34, 34)
    classes = tuple("0123456789")

    def __init__(
        self,
        root: str | os.PathLike[str] = "data/nmnist",
        frames: events.Framing | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        pin_memory: bool | None = None,
        seed: int = 0,
        cache: Cache = "events",
        compress: bool = False,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        download: bool = True,
        prepare_workers: int | None = None,
        train_only: bool = False,
    ) -> None:
        super().__init__(
            root, frames, batch_size, num_workers, pin_memory, seed, cache, compress, val_fraction, test_fraction,
            download, prepare_workers,
        )  # fmt: skip
        self.train_only = train_only

    def needed(self) -> tuple[SourceFile, ...]:
        return (SourceFile("Train.zip"),) if self.train_only else self.files  # or a part of it, of any content

    def recordings(self) -> Iterable[Recording]:
        for file in self.needed():
            folder = file.name.removesuffix(".zip")
            part = None if self.train_only else folder.lower()
            for name in self.tree(file.name).glob(f"{folder}/*/*.bin"):
                _, label, number = name.removesuffix(".bin").split("/")
                if label not in self.classes:
                    raise DataError(f"{file.name}: the folder of {name} is no digit.")
                yield Recording(f"{folder.lower()}-{number}", file.name, name, int(label), part)

    def decode(self, path: Path, recording: Recording) -> npt.NDArray[Any]:
        return events.read_events(path, format="atis")
