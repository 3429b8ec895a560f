"""DVS-Lip: spoken words, seen by an event camera that looks at the speaker's mouth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jellyfit import events
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.datamodules.recordings import Recording, RecordingsModule
from jellyfit.errors import DataError, JellyfitError

__all__ = ["DVSLip", "read_structured"]


class DVSLip(RecordingsModule):
    """DVS-Lip: 100 English words, 50 of them in pairs that sound alike, spoken by 40 people (128 x 128, about 1 s).

    ``DVS-Lip.zip`` is put into ``root`` by hand; it need not be unpacked. Its parts are the publishers' own: 14,896
    training samples, and 4,975 test samples of other people. Who speaks in a training sample is not told, so the
    validation samples are drawn by class and share people with the training samples: validation accuracy is higher
    than test accuracy.

    The words, the tree, the dtype and the numbers of samples are those of the authors' own loader and tables; no
    original file was at hand when this was written.

    Args:
        root: folder of the files.
        frames, batch_size, num_workers, pin_memory, seed, cache, compress, val_fraction, test_fraction, download,
            prepare_workers: see :class:`~jellyfit.datamodules.RecordingsModule`.

    Raises:
        ConfigError: an argument that cannot be.
        DataError: files that are missing or damaged; names them.

    Examples:
        >>> from jellyfit.datamodules import DVSLip
        >>> data = DVSLip("data/dvs_lip")
        >>> len(data.classes), data.classes[0], data.sensor_size
        (100, 'accused', (128, 128))

    Source: Tan et al., "Multi-grained spatio-temporal features perceived network for event-based lip-reading", CVPR
    (2022).
    """

    files = (SourceFile("DVS-Lip.zip", "2dcb959255122d4cdeb6094ca282494b"),)
    page = "sites.google.com/view/event-based-lipreading"
    expected: Mapping[str, int] = {"train": 14_896, "test": 4_975}
    sensor_size = (128, 128)
    classes = (
        "accused", "action", "allow", "allowed", "america", "american", "another", "around", "attacks", "banks",
        "become", "being", "benefit", "benefits", "between", "billion", "called", "capital", "challenge", "change",
        "chief", "couple", "court", "death", "described", "difference", "different", "during", "economic", "education",
        "election", "england", "evening", "everything", "exactly", "general", "germany", "giving", "ground", "happen",
        "happened", "having", "heavy", "house", "hundreds", "immigration", "judge", "labour", "leaders", "legal",
        "little", "london", "majority", "meeting", "military", "million", "minutes", "missing", "needs", "number",
        "numbers", "paying", "perhaps", "point", "potential", "press", "price", "question", "really", "right", "russia",
        "russian", "saying", "security", "several", "should", "significant", "spend", "spent", "started", "still",
        "support", "syria", "syrian", "taken", "taking", "terms", "these", "thing", "think", "times", "tomorrow",
        "under", "warning", "water", "welcome", "words", "worst", "years", "young",
    )  # fmt: skip

    def recordings(self) -> Iterable[Recording]:
        archive = self.files[0].name
        for name in self.tree(archive).names():
            *_, part, word, file = ("", "", *name.split("/"))
            if part not in ("train", "test") or not file.endswith(".npy"):
                continue
            if word not in self.classes:
                raise DataError(f"{archive}: the folder of {name} is none of the 100 words.")
            number = file.removesuffix(".npy")
            yield Recording(f"{part}-{word}-{number}", archive, name, self.classes.index(word), part)

    def decode(self, path: Path, recording: Recording) -> npt.NDArray[Any]:
        return read_structured(path)


def read_structured(path: Path) -> npt.NDArray[Any]:
    """Read a ``.npy`` file that holds one structured array with the fields t (µs), x, y, p.

    Args:
        path: The file.

    Returns:
        Events ``[N]``, sorted by time.

    Raises:
        DataError: It is damaged, or holds something else.

    Examples:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from jellyfit.datamodules.dvs_lip import read_structured
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "0.npy")
        ...     np.save(path, np.array([(5, 1, 2, 1)], [("t", "i4"), ("x", "i1"), ("y", "i1"), ("p", "i1")]))
        ...     read_structured(path).tolist()
        [(5, 1, 2, True)]
    """
    try:
        stored = np.load(path, allow_pickle=False)
        return events.sort_events(stored, warn=True)
    except (ValueError, EOFError, JellyfitError) as error:
        raise DataError(f"{path} is damaged, or no array of events ({error}). Fetch it again.") from error
