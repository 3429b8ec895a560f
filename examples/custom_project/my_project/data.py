"""A data set: recordings of one's own camera, in a folder per class."""

from collections.abc import Iterable
from pathlib import Path

from jellyfit.datamodules import EventDataModule
from jellyfit.errors import DataError

__all__ = ["MyCamera"]


class MyCamera(EventDataModule):
    """Recordings ``ROOT/SPLIT/CLASS/*.npz`` with arrays t (µs), x, y, p, of a camera of 16x16 pixels."""

    sensor_size = (16, 16)
    classes = ("left", "right")

    def samples(self, split: str) -> Iterable[tuple[str, Path, int]]:
        folder = self.root / split
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}. Make the recordings first: python make_data.py {self.root}")
        for label, name in enumerate(self.classes):
            for path in sorted((folder / name).glob("*.npz")):
                yield f"{name}/{path.stem}", path, label
