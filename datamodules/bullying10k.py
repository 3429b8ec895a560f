"""Bullying10K: violent and friendly actions between people, in front of an event camera that shows no faces."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from jellyfit import events
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.datamodules.pickles import ArrayUnpickler
from jellyfit.datamodules.recordings import Recording, RecordingsModule
from jellyfit.errors import DataError, JellyfitError

__all__ = ["Bullying10K", "read_packets"]

_TEST_EVERY = 5
_FIELDS = (("timestamp", "x", "y", "polarity"), ("t", "x", "y", "p"))

# action: figshare's number of the file, MD5
_FILES = {
    "handshake": (41268834, "681d70f499e736a1e805305284ddc425"),
    "slapping": (41247021, "84b41d6805958f9f62f425223916ffc2"),
    "punching": (41263314, "40954f480ab210099d448b7b88fc4719"),
    "walking": (41247024, "56e4cac9c0814ce701c3b2292c15b6a9"),
    "fingerguess": (41253057, "f83114e5b4f0ea57cac86fb080c7e4d7"),
    "strangling": (41261904, "8185ecd6f3147e9b609d22f06270aa86"),
    "greeting": (41268792, "4a763fad728b04c8356db8544f1121fe"),
    "pushing": (41268951, "7986c74ade7149a98672120a89b13ba8"),
    "hairgrabs": (41277855, "a9cf690ed0a3305da4a4b8e110f64db1"),
    "kicking": (41278008, "6c3218f977de4ac29c84a10b17779c33"),
}


class Bullying10K(RecordingsModule):
    """Bullying10K: 10,000 recordings of 10 actions, 6 of them violent, seen by a DAVIS346 (260 x 346, 255 GB in all).

    Ten zip archives, one for each action, are fetched from figshare or put into ``root``; they need not be unpacked.
    A recording has about a million events, so ``cache="frames"`` with ``compress=True`` saves most of the room.

    The publishers give no list of parts. Their loader takes every fifth recording for testing, in the order in which
    the disk happens to list them, as SpikingJelly does, so no two machines agree. Here it is every fifth (the first,
    the sixth, and so on) of all recordings in the order of the classes and, within a class, of their names. Whether
    two parts show the same people is not told.

    Names, MD5s and classes are those of SpikingJelly, the content of the files (packets of structured arrays in a
    pickled ``.npy``) that of the authors' own writer; no original file was at hand when this was written.

    Args:
        root: folder of the files.
        frames, batch_size, num_workers, pin_memory, seed, cache, compress, val_fraction, test_fraction, download,
            prepare_workers: see :class:`~jellyfit.datamodules.RecordingsModule`.

    Raises:
        ConfigError: an argument that cannot be.
        DataError: files that are missing or damaged; names them.

    Examples:
        >>> from jellyfit.datamodules import Bullying10K
        >>> data = Bullying10K("data/bullying10k", cache="frames", compress=True)
        >>> len(data.classes), data.classes[0], data.sensor_size
        (10, 'handshake', (260, 346))

    Source: Dong et al., "Bullying10K: a large-scale neuromorphic dataset towards privacy-preserving bullying
    recognition", NeurIPS (2023).
    """

    files = tuple(
        SourceFile(f"{action}.zip", md5, (f"https://figshare.com/ndownloader/files/{number}",))
        for action, (number, md5) in _FILES.items()
    )
    page = "figshare.com/articles/dataset/Bullying10k/19160663"
    sensor_size = (260, 346)
    classes = tuple(_FILES)

    def recordings(self) -> Iterable[Recording]:
        found = [
            (label, file.name, name)
            for label, file in enumerate(self.files)
            for name in self.tree(file.name).names()
            if name.endswith(".npy")
        ]
        for i, (label, archive, name) in enumerate(found):
            action = self.classes[label]
            stem = name.removesuffix(".npy").removeprefix(f"{action}/").replace("/", "-")
            yield Recording(f"{action}-{stem}", archive, name, label, "train" if i % _TEST_EVERY else "test")

    def decode(self, path: Path, recording: Recording) -> npt.NDArray[Any]:
        return read_packets(path)


def read_packets(path: Path) -> npt.NDArray[Any]:
    """Read a ``.npy`` file of packets of events: structured arrays that begin with time (µs), x, y, polarity.

    Args:
        path: The file. Pickled arrays of arrays are read, other pickled objects are refused.

    Returns:
        Events ``[N]``, sorted by time.

    Raises:
        DataError: It is damaged, or holds something else.

    Examples:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from jellyfit.datamodules.bullying10k import read_packets
        >>> event = np.dtype([("timestamp", "i8"), ("x", "i2"), ("y", "i2"), ("polarity", "i1")])
        >>> packets = np.empty(2, object)
        >>> packets[:] = [np.array([(5, 1, 2, 1)], event), np.array([(7, 3, 4, 0), (8, 3, 4, 1)], event)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(pathlib.Path(folder, "0.npy"), packets)
        ...     read_packets(pathlib.Path(folder, "0.npy")).tolist()
        [(5, 1, 2, True), (7, 3, 4, False), (8, 3, 4, True)]
    """
    try:
        with path.open("rb") as file:
            packets = list(_packets(_read_npy(file))) or [np.empty(0, events.EVENT_DTYPE)]
        names = packets[0].dtype.names or ()
        columns = [np.concatenate([packet[name] for packet in packets]) for name in names[:4]]
        return events.sort_events(events.make_events(*columns), warn=True)
    except (ValueError, TypeError, EOFError, KeyError, pickle.UnpicklingError, JellyfitError) as error:
        raise DataError(f"{path} is damaged, or holds no packets of events ({error}). Fetch it again.") from error


def _read_npy(file: IO[bytes]) -> Any:
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    if header(file)[2].hasobject:
        return ArrayUnpickler(file).load()
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _packets(stored: Any) -> Iterator[npt.NDArray[Any]]:
    """The structured arrays in what was stored: in an array of arrays, or a plain one where all are equally long."""
    if isinstance(stored, np.ndarray) and stored.dtype.names is not None:
        if stored.dtype.names[:4] not in _FIELDS:
            raise ValueError(f"its fields are {', '.join(stored.dtype.names)}; expected {', '.join(_FIELDS[0])}")
        yield stored.reshape(-1)
    elif isinstance(stored, (np.ndarray, list)):
        for packet in stored:
            yield from _packets(packet)
    else:
        raise TypeError(f"it holds {type(stored).__name__} where a packet of events should be")
