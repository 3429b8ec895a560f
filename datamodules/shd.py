"""SHD and SSC: spoken words as spikes of a model of the inner ear."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy.typing as npt

from jellyfit import events
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.datamodules.recordings import Recording, RecordingsModule
from jellyfit.datamodules.trees import Tree, unpacked_tree
from jellyfit.errors import DataError

__all__ = ["SHD", "SSC", "HeidelbergDataModule"]

_EXTRA = ("extra/speaker", "extra/keys")


class HeidelbergDataModule(RecordingsModule):
    """Base of SHD and SSC: spikes of 700 units of a model of the inner ear. A sample is ``[T, 700]``.

    The zip archives are unpacked once. What loading reads are mapped caches, so worker processes share no HDF5 file;
    with ``cache="none"`` each opens the file for itself.

    Spikes are ON events of column ``unit`` and row 0. Times are stored in seconds as float16 and made float64 before
    they become µs; tonic multiplies them as float16, which NumPy 2 lets overflow.

    A subclass states ``files``, ``page``, ``classes`` and :attr:`parts`. Names of classes in the files replace its own.

    Attributes:
        parts: part of each archive, by its name.

    Args:
        root: folder of the files.
        frames: how spikes become time steps; ``FixedDuration(10_000)`` (10 ms) is usual. Samples then differ in
            length, and a batch ``[T, N, 700]`` comes with their ``lengths``.
        batch_size, num_workers, pin_memory, seed, cache, compress, val_fraction, test_fraction, download,
            prepare_workers: see :class:`~jellyfit.datamodules.RecordingsModule`.

    Raises:
        ConfigError: an argument that cannot be.
        DataError: files that are missing or damaged; names them.

    Examples:
        >>> from jellyfit.datamodules.shd import HeidelbergDataModule
        >>> HeidelbergDataModule.sensor_size
        (1, 700)

    Source: Cramer, Stradmann, Schemmel and Zenke, "The Heidelberg spiking data sets for the systematic evaluation of
    spiking neural networks", IEEE Transactions on Neural Networks and Learning Systems 33 (2022).
    """

    parts: ClassVar[dict[str, str]] = {}
    sensor_size = (1, 700)

    def open(self, path: Path, scratch: Path) -> Tree:
        return unpacked_tree(path, scratch)  # every sample is read out of the same large file

    def recordings(self) -> Iterable[Recording]:
        for archive, part in self.parts.items():
            tree = self.tree(archive)
            inside = [name for name in tree.names() if name.endswith(".h5")]
            if len(inside) != 1:
                raise DataError(f"{archive} holds {len(inside)} .h5 files; expected one.")
            with tree.local(inside[0]) as path:
                table = _read_table(path)
            if len(table.words) == len(self.classes):
                self.classes = table.words
            for i, label in enumerate(table.labels):
                speaker = f"speaker {table.speakers[i]}" if table.speakers else None
                yield Recording(f"{part}-{i:05d}", archive, inside[0], label, part, speaker, detail=i)

    def decode(self, path: Path, recording: Recording) -> npt.NDArray[Any]:
        return events.read_events(path, format="hdf5", sample=recording.detail)

    def to_frames(self, recording: npt.NDArray[Any], empty: Literal["error", "zeros"] = "error") -> npt.NDArray[Any]:
        return super().to_frames(recording, empty)[:, -1, 0]  # spikes are ON events of the only row


class _Table(NamedTuple):
    labels: list[int]
    speakers: list[int]  # none where the file does not tell them
    words: tuple[str, ...]  # names of the classes, likewise


def _read_table(path: Path) -> _Table:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            speakers, words = (
                file[name][:].tolist() if name in file else [] for name in ("extra/speaker", "extra/keys")
            )
            return _Table(file["labels"][:].tolist(), speakers, tuple(word.decode() for word in words))
    except (OSError, KeyError, RuntimeError) as error:
        raise DataError(f"{path} is a damaged HDF5 file, or another one ({error}). Fetch it again.") from error


class SHD(HeidelbergDataModule):
    """Spiking Heidelberg Digits: the digits 0 to 9 in English and German, spoken by 12 people. Samples ``[T, 700]``.

    8,156 training and 2,264 test samples; two of the people speak in the test part alone. The publishers give no
    validation part: it is the speech of other people than the training part's (``val_fraction`` is the share of the
    people), so a network chosen by it is chosen for people whom it has not heard. Many papers choose by the test
    part, and report higher accuracies for it.

    SpikingJelly calls it ``SpikingHeidelbergDigits``.

    Args:
        root: folder of the files.
        frames, batch_size, num_workers, pin_memory, seed, cache, compress, val_fraction, test_fraction, download,
            prepare_workers: see :class:`HeidelbergDataModule`.

    Raises:
        ConfigError: an argument that cannot be.
        DataError: files that are missing or damaged; names them.

    Examples:
        >>> from jellyfit import events
        >>> from jellyfit.datamodules import SHD
        >>> data = SHD("data/shd", frames=events.FixedDuration(10_000))
        >>> data.classes[3], data.classes[13], [file.name for file in data.files]
        ('three', 'drei', ['shd_train.h5.zip', 'shd_test.h5.zip'])

    Source: see :class:`HeidelbergDataModule`.
    """

    files = (
        SourceFile(
            "shd_train.h5.zip",
            "f3252aeb598ac776c1b526422d90eecb",
            ("https://zenkelab.org/datasets/shd_train.h5.zip",),
        ),
        SourceFile(
            "shd_test.h5.zip",
            "1503a5064faa34311c398fb0a1ed0a6f",
            ("https://zenkelab.org/datasets/shd_test.h5.zip",),
        ),
    )
    page = "zenkelab.org/datasets"
    parts: ClassVar[dict[str, str]] = {"shd_train.h5.zip": "train", "shd_test.h5.zip": "test"}
    expected: Mapping[str, int] = {"train": 8_156, "test": 2_264}
    classes = (
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
        "null", "eins", "zwei", "drei", "vier", "fuenf", "sechs", "sieben", "acht", "neun",
    )  # fmt: skip


class SSC(HeidelbergDataModule):
    """Spiking Speech Commands: 35 English words, spoken by many people. Samples ``[T, 700]``.

    75,466 training, 9,981 validation and 20,382 test samples, the publishers' parts. SpikingJelly 2.0
    (``SpikingSpeechCommands``) lists SHD's files here by mistake, and so finds no data; the MD5s are tonic's. The words
    are named by the files.

    Args:
        root: folder of the files.
        frames, batch_size, num_workers, pin_memory, seed, cache, compress, val_fraction, test_fraction, download,
            prepare_workers: see :class:`HeidelbergDataModule`.

    Raises:
        ConfigError: an argument that cannot be.
        DataError: files that are missing or damaged; names them.

    Examples:
        >>> from jellyfit import events
        >>> from jellyfit.datamodules import SSC
        >>> data = SSC("data/ssc", frames=events.FixedDuration(10_000))
        >>> len(data.classes), [file.name for file in data.files]
        (35, ['ssc_train.h5.zip', 'ssc_valid.h5.zip', 'ssc_test.h5.zip'])

    Source: see :class:`HeidelbergDataModule`.
    """

    files = (
        SourceFile(
            "ssc_train.h5.zip",
            "d102be95e7144fcc0553d1f45ba94170",
            ("https://zenkelab.org/datasets/ssc_train.h5.zip",),
        ),
        SourceFile(
            "ssc_valid.h5.zip",
            "b4eee3516a4a90dd0c71a6ac23a8ae43",
            ("https://zenkelab.org/datasets/ssc_valid.h5.zip",),
        ),
        SourceFile(
            "ssc_test.h5.zip",
            "a35ff1e9cffdd02a20eb850c17c37748",
            ("https://zenkelab.org/datasets/ssc_test.h5.zip",),
        ),
    )
    page = "zenkelab.org/datasets"
    parts: ClassVar[dict[str, str]] = {
        "ssc_train.h5.zip": "train",
        "ssc_valid.h5.zip": "val",
        "ssc_test.h5.zip": "test",
    }
    expected: Mapping[str, int] = {"train": 75_466, "val": 9_981, "test": 20_382}
    classes = tuple(f"word {number}" for number in range(35))
