"""N-MNIST: handwritten digits moved in front of an event camera."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy.typing as npt

from jellyfit import events
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.datamodules.recordings import Cache, Recording, RecordingsModule
from jellyfit.errors import ConfigError, DataError
from jellyfit.frames import BatchTransform, FrameTransform

__all__ = ["NMNIST"]

Split = Literal["official", "file-order", "shuffled"]


class NMNIST(RecordingsModule):
    """N-MNIST: MNIST's 60,000 and 10,000 digits, moved in three saccades in front of an ATIS camera (34 x 34, 300 ms).

    ``Train.zip`` and ``Test.zip`` are put into ``root`` by hand; they need not be unpacked.

    Args:
        root: folder of the files, default ``data/nmnist``.
        frames, batch_size, num_workers, pin_memory, seed, cache, compress, val_fraction, test_fraction, download,
            prepare_workers, event_transforms, frame_transforms, batch_transforms: see
            :class:`~jellyfit.datamodules.RecordingsModule`.
        split: ``"official"`` (default): the samples of ``Test.zip`` test. The others do without it, and take a
            ``Train.zip`` that holds a part of the digits too: with ``"file-order"`` the last of its samples by number
            test, ``test_fraction`` of all; with ``"shuffled"`` that share of each class, drawn by ``seed``.

    Raises:
        ConfigError: an argument that cannot be.
        DataError: files that are missing or damaged; names them.

    Examples:
        >>> from jellyfit.datamodules import NMNIST
        >>> data = NMNIST(root="data/nmnist", split="file-order")
        >>> data.sensor_size, len(data.classes), [file.name for file in data.needed()]
        ((34, 34), 10, ['Train.zip'])

    Source: Orchard, Jayawant, Cohen and Thakor, "Converting static image datasets to spiking neuromorphic datasets
    using saccades", Frontiers in Neuroscience 9 (2015).
    """

    files = (
        SourceFile("Train.zip", "20959b8e626244a1b502305a9e6e2031", size=1_181_000_000),
        SourceFile("Test.zip", "69ca8762b2fe404d9b9bad1103e97832", size=196_000_000),
    )
    page = "www.garrickorchard.com/datasets/n-mnist"
    expected: Mapping[str, int] = {"train": 60_000, "test": 10_000}
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
        split: Split = "official",
        event_transforms: Sequence[events.EventTransform | events.EventMix | Callable[..., Any]] | None = None,
        frame_transforms: Sequence[FrameTransform | Callable[..., Any]] | None = None,
        batch_transforms: Sequence[BatchTransform] | None = None,
    ) -> None:
        super().__init__(
            root, frames, batch_size, num_workers, pin_memory, seed, cache, compress, val_fraction, test_fraction,
            download, prepare_workers, event_transforms, frame_transforms, batch_transforms,
        )  # fmt: skip
        if split not in ("official", "file-order", "shuffled"):
            raise ConfigError(f"NMNIST(split={split!r}): expected 'official', 'file-order' or 'shuffled'.")
        self.split = split
        if split != "official":
            self.expected = {}

    def needed(self) -> tuple[SourceFile, ...]:
        if self.split == "official":
            return self.files
        return (replace(self.files[0], md5=None),)  # or a part of it

    def recordings(self) -> Iterable[Recording]:
        for file in self.needed():
            source = file.name.removesuffix(".zip").lower()
            paths = sorted(map(PurePosixPath, self.tree(file.name).glob("**/*.bin")), key=lambda path: path.stem)
            first_tested = math.ceil(len(paths) * (1.0 - self.test_fraction))
            for i, path in enumerate(paths):
                if path.parent.name not in self.classes:
                    raise DataError(f"{file.name}: {path} does not lie in the folder of a digit, 0 to 9.")
                parts = {"official": source, "file-order": "train" if i < first_tested else "test", "shuffled": None}
                label = int(path.parent.name)
                yield Recording(f"{source}-{path.stem}", file.name, str(path), label, parts[self.split])

    def decode(self, path: Path, recording: Recording) -> npt.NDArray[Any]:
        return events.read_events(path, format="atis")

    def _split_name(self) -> str:
        return f"{self.split}-{super()._split_name()}"
