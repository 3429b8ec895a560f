"""DVS128 Gesture: hand and arm gestures of 29 people in front of an event camera."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jellyfit import events
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.datamodules.recordings import Recording, RecordingsModule
from jellyfit.datamodules.trees import Tree
from jellyfit.errors import DataError

__all__ = ["DVS128Gesture"]

_NOTHING = np.empty(0, events.EVENT_DTYPE)
_LISTS = {"train": "trials_to_train.txt", "test": "trials_to_test.txt"}


class DVS128Gesture(RecordingsModule):
    """DVS128 Gesture: 11 hand and arm gestures of 29 people in several lights, seen by a DVS128 (128 x 128, about 6 s).

    ``DvsGesture.tar.gz`` is put into ``root`` by hand; it is unpacked once. Its 122 recordings hold all gestures of
    one person under one light, one after another. They are cut by their tables ``NAME_labels.csv`` into 1,176 samples
    of the people of ``trials_to_train.txt`` and 288 of those of ``trials_to_test.txt``, as in SpikingJelly; who
    leaves some out counts fewer (the paper counts 1,342 in all). Validation people are taken from the training
    people, so nobody stands in two parts.

    One table is wrong: in ``user22_led_labels.csv`` class 9 ends after class 10 has begun. Its lines are taken as
    they are, so the events in between belong to both samples. Events that the camera marked as invalid are left out;
    SpikingJelly keeps them.

    With ``cache="none"`` every sample decodes the whole recording that it lies in: use one of the caches.

    Args:
        root: folder of the files.
        frames, batch_size, num_workers, pin_memory, seed, cache, compress, val_fraction, test_fraction, download,
            prepare_workers: see :class:`~jellyfit.datamodules.RecordingsModule`.

    Raises:
        ConfigError: an argument that cannot be.
        DataError: files that are missing or damaged; names them.

    Examples:
        >>> from jellyfit.datamodules import DVS128Gesture
        >>> data = DVS128Gesture("data/dvs_gesture", batch_size=16)
        >>> data.classes[0], data.sensor_size
        ('hand_clapping', (128, 128))

    Source: Amir et al., "A low power, fully event-based gesture recognition system", CVPR (2017).
    """

    files = (
        SourceFile("DvsGesture.tar.gz", "8a5c71fb11e24e5ca5b11866ca6c00a1"),
        SourceFile("gesture_mapping.csv", "109b2ae64a0e1f3ef535b18ad7367fd1", needed=False),
    )
    page = "ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8/folder/50167556794"
    expected: Mapping[str, int] = {"train": 1_176, "test": 288}
    sensor_size = (128, 128)
    classes = (
        "hand_clapping",
        "right_hand_wave",
        "left_hand_wave",
        "right_arm_clockwise",
        "right_arm_counter_clockwise",
        "left_arm_clockwise",
        "left_arm_counter_clockwise",
        "arm_roll",
        "air_drums",
        "air_guitar",
        "other_gestures",
    )

    def recordings(self) -> Iterable[Recording]:
        archive = self.files[0].name
        tree = self.tree(archive)
        names = set(tree.names())
        for part, list_name in _LISTS.items():
            where = next((name for name in sorted(names) if name.split("/")[-1] == list_name), None)
            if where is None:
                raise DataError(f"{archive} holds no {list_name}, which says who belongs to the {part} part.")
            folder = where.removesuffix(list_name)
            for trial in _lines(tree, where):
                stem = trial.removesuffix(".aedat")
                table = f"{folder}{stem}_labels.csv"
                missing = [name for name in (f"{folder}{trial}", table) if name not in names]
                if missing:
                    raise DataError(f"{archive} holds no {missing[0]}, which {list_name} names.")
                with tree.local(table) as path:
                    gestures = events.cut(_NOTHING, path)
                for i, (label, start, end, _) in enumerate(gestures):
                    yield Recording(
                        f"{stem}-{i:02d}", archive, f"{folder}{trial}", label - 1, part,
                        group=stem.split("_")[0], detail=(label, start, end),
                    )  # fmt: skip

    def decode(self, path: Path, recording: Recording) -> npt.NDArray[Any]:
        state = path.stat()
        whole = _read_whole(str(path), state.st_size, state.st_mtime_ns)
        return events.cut(whole, [recording.detail])[0].events


@functools.lru_cache(maxsize=1)
def _read_whole(path: str, size: int, modified: int) -> npt.NDArray[Any]:
    """A whole recording; the last one is kept, since the dozen samples in it are asked for one after another."""
    return events.read_events(path, format="aedat3")


def _lines(tree: Tree, name: str) -> list[str]:
    with tree.local(name) as path:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
