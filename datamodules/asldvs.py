"""ASL-DVS: letters of the American sign language, held in front of an event camera."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy.typing as npt

from jellyfit import events
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.datamodules.recordings import Recording, RecordingsModule
from jellyfit.datamodules.trees import Tree, open_nested
from jellyfit.errors import DataError

__all__ = ["ASLDVS"]

_FILE = "ICCV2019_DVS_dataset.zip"


class ASLDVS(RecordingsModule):
    """ASL-DVS: 24 letters, shown by five people to a DAVIS240C (180 x 240); 4,200 samples of about 100 ms of each.

    ``ICCV2019_DVS_dataset.zip`` is put into ``root`` by hand. It holds an archive for each letter; these are unpacked
    from it once, and read as they are. Its host packed it anew for everybody, so it has no fixed MD5; the checksums
    inside it are compared when it is read.

    The publishers give no parts, and the names of the files do not say who holds the letter: the parts, drawn from
    each letter by ``seed``, have people in common, which flatters every accuracy on this data set.

    Args:
        root: folder of the file.
        frames, batch_size, num_workers, pin_memory, seed, cache, compress, val_fraction, test_fraction, download,
            prepare_workers: see :class:`~jellyfit.datamodules.RecordingsModule`.

    Raises:
        ConfigError: an argument that cannot be.
        DataError: files that are missing or damaged; names them.

    Examples:
        >>> from jellyfit.datamodules import ASLDVS
        >>> data = ASLDVS(root="data/asldvs")
        >>> data.sensor_size, "".join(data.classes)
        ((180, 240), 'abcdefghiklmnopqrstuvwxy')

    Source: Bi, Chadha, Abbas, Bourtsoulatze and Andreopoulos, "Graph-based object classification for neuromorphic
    vision sensing", ICCV (2019).
    """

    files = (SourceFile(_FILE),)
    page = "github.com/PIX2NVS/NVS2Graph"
    expected: Mapping[str, int] = {"all": 100_800}
    sensor_size = (180, 240)
    classes = tuple("abcdefghiklmnopqrstuvwxy")  # j and z are movements

    def open(self, path: Path, scratch: Path) -> Tree:
        return open_nested(path, scratch)

    def recordings(self) -> Iterable[Recording]:
        for path in map(PurePosixPath, self.tree(_FILE).glob("**/*.mat")):
            letter = path.parent.name
            if letter not in self.classes:
                raise DataError(f"{_FILE}: {path} does not lie in the folder of a letter, a to y without j.")
            yield Recording(path.stem, _FILE, str(path), self.classes.index(letter))

    def decode(self, path: Path, recording: Recording) -> npt.NDArray[Any]:
        return events.read_events(path, format="mat")
