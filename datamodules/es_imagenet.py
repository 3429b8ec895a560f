"""ES-ImageNet: a million images of ImageNet, made events by a simulated movement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from jellyfit import events
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.datamodules.recordings import Recording, RecordingsModule
from jellyfit.errors import DataError

__all__ = ["STEPS", "ESImageNet", "eight_steps"]

STEPS = 8
"""Time steps of a sample: the image moves eight times."""

_MD5 = (
    "900bdd57b5641f7d81cd4620283fef76",
    "5982532009e863a8f4e18e793314c54b",
    "8f408c1f5a1d4604e48d0d062a8289a0",
    "5c5b5cf0a55954eb639964e3da510097",
    "51feb661b4c9fa87860b63e76b914673",
    "fcd007a2b17b7c13f338734c53f6db31",
    "d3e74b96d9c5df15714bbc3abcd329fc",
    "65b9cf7fa63e18d2e7d92ff45a42a5e5",
    "241c9a37a83ff9efd305fe46d012211e",
    "ceee96971008e30d0cdc34086c49fd75",
    "4fbfefbe6e48758fbb72427c81f119cf",
    "c8cc163be4e5f6451201dccbded4ec24",
    "08c9dff32f6b42c49ef7cd78e37c728e",
    "43aa157dc5bd5fcea81315a46e0322cf",
    "480a69b050f465ef01efcc44ae29f7df",
    "11abd24d92b93e7f85acd63abd4a18ab",
    "3891486a6862c63a325c5f16cd01fdd1",
    "cf8bb0525b514f411bca9d7c2d681f7c",
    "3766bc35572ccacc03f0f293c571d0ae",
    "bf73a5e338644122220e41da7b5630e6",
    "564de4a2609cbb0bb67ffa1bc51f2487",
    "60a9e52db1acadfccc9a9809073f0b04",
    "373b5484826d40d7ec35f0e1605cb6ea",
    "a50612e889b20f99cc7b2725dfd72e9e",
    "0802ccdeb0cff29237faf55164524101",
)


class ESImageNet(RecordingsModule):
    """ES-ImageNet: 1,257,035 training and 49,881 test samples of ImageNet's 1,000 classes (256 x 256, 8 time steps).

    The 25 parts ``ES-imagenet-0.18.partNN.rar`` (100 GB) are put into ``root`` by hand and unpacked once, which takes
    ``jellyfit[rar]`` and one of the programs that it uses; or the folder ``ES-imagenet-0.18`` that somebody else has
    unpacked is put, or linked, into ``root/unpacked``.

    The class of a training sample is the folder that it lies in, that of a test sample (a validation image of
    ImageNet's) stands in ``vallabel.txt``. Validation samples are drawn from the training samples by class.

    Times are the steps 1 to 8, no µs: give :func:`eight_steps` as ``frames`` (see ``configs/es_imagenet.yaml``), with
    ``cache="none"``, since a decoded copy of a million samples takes more room than the files.
    ``FixedNumber(T=8, split_by="time")`` would put all events into its last frame.

    Args:
        root: folder of the files.
        frames, batch_size, num_workers, pin_memory, seed, cache, compress, val_fraction, test_fraction, download,
            prepare_workers: see :class:`~jellyfit.datamodules.RecordingsModule`.

    Raises:
        ConfigError: an argument that cannot be.
        DataError: files that are missing or damaged; names them.

    Examples:
        >>> from jellyfit import events
        >>> from jellyfit.datamodules import ESImageNet
        >>> from jellyfit.datamodules.es_imagenet import eight_steps
        >>> data = ESImageNet("data/es_imagenet", frames=events.CustomSlices(eight_steps), cache="none")
        >>> len(data.classes), len(data.files), data.sensor_size
        (1000, 25, (256, 256))

    Source: Lin et al., "ES-ImageNet: a million event-stream classification dataset for spiking neural networks",
    Frontiers in Neuroscience 15 (2021).
    """

    files = tuple(SourceFile(f"ES-imagenet-0.18.part{i:02d}.rar", md5) for i, md5 in enumerate(_MD5, 1))
    page = "github.com/lyh983012/ES-imagenet-master"
    expected: Mapping[str, int] = {"train": 1_257_035, "test": 49_881}
    sensor_size = (256, 256)
    classes = tuple(f"class{number}" for number in range(1000))

    def recordings(self) -> Iterable[Recording]:
        archive = self.files[0].name
        labels = {name: label for label, name in enumerate(self.classes)}
        validation: dict[str, str] = {}
        table = None
        for name in self.tree(archive).names():
            *_, top, folder, file = ("", "", *name.split("/"))
            if file == "vallabel.txt":
                table = name
            elif not file.endswith(".npz"):
                continue
            elif top == "train":
                if folder not in labels:
                    raise DataError(f"{archive}: the folder of {name} is none of class0 to class999.")
                yield Recording(PurePosixPath(file).stem, archive, name, labels[folder], "train")
            elif folder == "val":
                validation[PurePosixPath(file).stem] = name
        if table is None:
            raise DataError(f"{archive} holds no vallabel.txt, which says the classes of the test samples.")
        yield from self._test(archive, table, validation)

    def _test(self, archive: str, table: str, files: dict[str, str]) -> Iterable[Recording]:
        with self.tree(archive).local(table) as path:
            lines = path.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                file, label = line.split()[0], int(line.split()[1])
                name = files[PurePosixPath(file).stem]
            except (ValueError, IndexError):
                raise DataError(f"{table}, line {number}: expected a file and its label; got {line!r}.") from None
            except KeyError:
                raise DataError(f"{table}, line {number}: {archive} holds no val/{file}.") from None
            yield Recording(PurePosixPath(file).stem, archive, name, label, "test")

    def decode(self, path: Path, recording: Recording) -> npt.NDArray[Any]:
        decoded = events.read_events(path, format="npz")
        if len(decoded) and not 1 <= decoded["t"][0] <= decoded["t"][-1] <= STEPS:
            raise DataError(
                f"{path}: times run from {decoded['t'][0]} to {decoded['t'][-1]}; those of ES-ImageNet from 1 to 8."
            )
        return decoded


def eight_steps(recorded: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """One frame for each of the steps 1 to 8 of an ES-ImageNet sample, for :class:`jellyfit.events.CustomSlices`.

    Args:
        recorded: Events ``[N]``, sorted by time.

    Returns:
        ``[9]``, where each frame begins, and the end.

    Examples:
        >>> from jellyfit import events
        >>> from jellyfit.datamodules.es_imagenet import eight_steps
        >>> recorded = events.make_events([1, 1, 3, 8], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 1])
        >>> eight_steps(recorded).tolist()
        [0, 2, 2, 3, 3, 3, 3, 3, 4]
    """
    return np.searchsorted(recorded["t"], np.arange(1, STEPS + 2)).astype(np.int64)
