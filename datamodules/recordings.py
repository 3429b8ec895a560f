"""What published data sets of recordings share: files, decoding, cache, parts; a subclass says what lies where."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy.typing as npt

from jellyfit import events
from jellyfit.datamodules.base import EventDataModule
from jellyfit.datamodules.cache import check_cache
from jellyfit.datamodules.fetch import SourceFile, fetch, find
from jellyfit.datamodules.splits import counted, saved_split, split_by_class, split_by_group
from jellyfit.datamodules.store import ArrayStore, build_store, default_workers
from jellyfit.datamodules.trees import Tree, archive_stem, open_tree
from jellyfit.errors import ConfigError, DataError
from jellyfit.frames import BatchTransform, FrameTransform

__all__ = ["Recording", "RecordingsModule"]

Cache = Literal["events", "frames", "none"]
_CACHES = ("events", "frames", "none")


class Recording(NamedTuple):
    """One sample of a published data set.

    Attributes:
        id: its name, unique in the data set.
        tree: which of the data set's trees holds its file.
        name: of that file in the tree.
        label: its class.
        part: ``"train"``, ``"val"`` or ``"test"`` where the publishers say so, else ``None``.
        group: who or what must not stand in two parts (a person, a recording), where that is known.
        detail: what else :meth:`RecordingsModule.decode` needs to know, such as where in the file it lies.

    Examples:
        >>> from jellyfit.datamodules import Recording
        >>> Recording("train-00003", "Train.zip", "Train/4/00003.bin", 4, "train").label
        4
    """

    id: str
    tree: str
    name: str
    label: int
    part: str | None = None
    group: str | None = None
    detail: Any = None


class RecordingsModule(EventDataModule):
    """Base of published data sets of event recordings.

    The stages are: fetch (or place by hand) the files, verify them, decode the recordings, integrate them to frames.
    Archives are not unpacked where that can be avoided, and what is decoded is kept once, in few files that are
    mapped into memory. Every stage is done once and is whole or absent; one process of a node does it and the others
    wait. A subclass states :attr:`files`, :attr:`page`, :attr:`sensor_size` and :attr:`classes`, and writes
    :meth:`recordings` (and :meth:`decode`, when :func:`jellyfit.events.read_events` does not know its files)::

        class MyRecordings(RecordingsModule):
            files = (SourceFile("recordings.zip", md5="..."),)
            page = "example.org/recordings"
            sensor_size = (128, 128)
            classes = ("left", "right")

            def recordings(self):
                for name in self.tree("recordings.zip").glob("*/*.aedat"):
                    folder, file = name.split("/")
                    yield Recording(name, "recordings.zip", name, self.classes.index(folder))

    Attributes:
        files: that the data set is made of.
        page: where a person finds them.
        expected: number of samples of each part of the whole data set, or of ``"all"``, for ``jellyfit data check``.
        version: of the decoder; a new number makes new caches.

    Args:
        root: folder of the data set: its files lie in it or in ``download``, caches in ``cache``, splits in
            ``splits``.
        frames: how events become frames; default ``FixedNumber(T=10)``.
        batch_size, num_workers, pin_memory, seed: see :class:`~jellyfit.datamodules.SpikingDataModule`. The seed also
            draws the parts that the publishers do not give.
        cache: ``"events"`` (default): decoded events are kept, and any ``frames`` made of them; ``"frames"``: frames
            alone are kept, made anew for other ``frames``; ``"none"``: files are decoded each time.
        compress: make the cache smaller and loading slower; default ``False``.
        val_fraction: share of the training samples that validates, default 0.1: of each class, or of the groups where
            they are known. 0 validates on the test samples.
        test_fraction: share of all samples that tests, where the publishers give no parts; default 0.1.
        download: fetch files that may be fetched by programs; default ``True``.
        prepare_workers: processes that decode; default: one a core.
        event_transforms, frame_transforms, batch_transforms: augmentation of the training samples, see
            :class:`~jellyfit.datamodules.EventDataModule`.

    Raises:
        ConfigError: an argument that cannot be.
        DataError: files that are missing or damaged; names them.

    Examples:
        >>> import pathlib, tempfile
        >>> from jellyfit import events
        >>> from jellyfit.datamodules import Recording, RecordingsModule, SourceFile
        >>> class Mine(RecordingsModule):
        ...     files = (SourceFile("mine"),)
        ...     sensor_size = (4, 6)
        ...     classes = ("left", "right")
        ...
        ...     def recordings(self):
        ...         for name in self.tree("mine").glob("*.npz"):
        ...             yield Recording(name, "mine", name, int("right" in name))
        >>> with tempfile.TemporaryDirectory() as root:
        ...     folder = pathlib.Path(root, "unpacked", "mine")
        ...     folder.mkdir(parents=True)
        ...     for i in range(10):
        ...         recorded = events.make_events(t=[1, 9], x=[i // 2, 0], y=[0, 3], p=[1, 0])
        ...         events.write_events(folder / f"{i}-{'left' if i % 2 else 'right'}.npz", recorded)
        ...     data = Mine(root, val_fraction=0.25, test_fraction=0.2, prepare_workers=0)
        ...     data.setup("fit")
        ...     data.setup("test")
        ...     [len(list(data.samples(part))) for part in ("train", "val", "test")]
        [6, 2, 2]
    """

    files: ClassVar[tuple[SourceFile, ...]] = ()
    page: ClassVar[str] = ""
    expected: Mapping[str, int] = {}
    version: ClassVar[int] = 1

    def __init__(
        self,
        root: str | os.PathLike[str],
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
        event_transforms: Sequence[events.EventTransform | events.EventMix | Callable[..., Any]] | None = None,
        frame_transforms: Sequence[FrameTransform | Callable[..., Any]] | None = None,
        batch_transforms: Sequence[BatchTransform] | None = None,
    ) -> None:
        super().__init__(
            root,
            frames,
            batch_size,
            num_workers,
            pin_memory,
            seed,
            event_transforms=event_transforms,
            frame_transforms=frame_transforms,
            batch_transforms=batch_transforms,
        )
        name = type(self).__name__
        if cache not in _CACHES:
            raise ConfigError(f"{name}(cache={cache!r}): expected one of {', '.join(map(repr, _CACHES))}.")
        for argument, share in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
            if not 0.0 <= share < 1.0:
                raise ConfigError(f"{name}({argument}={share}): expected a share of the samples, from 0 to below 1.")
        self.cache: Cache = cache
        self.compress = compress
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.download = download
        self.prepare_workers = default_workers() if prepare_workers is None else prepare_workers
        self._trees: dict[str, Tree] = {}
        self._store: ArrayStore | None = None
        self._all: list[Recording] | None = None
        self._places: dict[str, int] | None = None
        self._parts: dict[str, list[Recording]] | None = None

    # ------------------------------------------------------------ what a data set says

    def recordings(self) -> Iterable[Recording]:
        """Every sample of the data set. Subclasses write it."""
        raise TypeError(f"{type(self).__name__} must define recordings(self)")

    def decode(self, path: Path, recording: Recording) -> npt.NDArray[Any]:
        """Events of one sample, from its file; by default what :func:`jellyfit.events.read_events` reads."""
        return events.read_events(path)

    def decoder(self) -> dict[str, Any]:
        """Settings that change what :meth:`decode` gives, as plain data: another setting makes another cache."""
        return {}

    def needed(self) -> tuple[SourceFile, ...]:
        """The files that these settings need; by default all of :attr:`files`."""
        return self.files

    # ------------------------------------------------------------ stages

    def prepare_data(self) -> None:
        """Fetch, verify, decode and integrate whatever is missing. Lightning calls it once a node."""
        self._prepare()

    def setup(self, stage: str) -> None:
        self._prepare()
        super().setup(stage)

    def _prepare(self) -> None:
        if self._parts is not None:
            return
        self._open()
        found = self._recordings()
        parts = self._split(found)
        if self.cache != "none":
            self._store = self._build(found)
        self._parts = parts

    def _open(self) -> None:
        """Have every file, and open it as a tree."""
        if self._trees:
            return
        by_hand = {file.name: folder for file in self.needed() if (folder := self._unpacked(file)) is not None}
        wanted = [file for file in self.needed() if file.name not in by_hand]
        paths = fetch(wanted, self.root, self.page, download=self.download) if wanted else {}
        scratch = self.root / "unpacked"
        opened = set()
        for file in self.needed():
            stem = archive_stem(file.name)
            if stem in opened:
                continue  # a further part of an archive in parts, which is read through its first one
            opened.add(stem)
            if file.name in by_hand:
                self._trees[file.name] = self.open(by_hand[file.name], scratch)
            elif file.name in paths:
                self._trees[file.name] = self.open(paths[file.name], scratch)

    def open(self, path: Path, scratch: Path) -> Tree:
        """The tree of one file of the data set, or of the folder into which somebody has unpacked it."""
        return open_tree(path, scratch)

    def _unpacked(self, file: SourceFile) -> Path | None:
        """A folder into which somebody has unpacked ``file`` by hand: ``root/unpacked/NAME``, without its ending."""
        folder = self.root / "unpacked" / archive_stem(file.name)
        return folder if find(file, self.root) is None and folder.is_dir() else None

    def tree(self, name: str) -> Tree:
        """The files in ``name``, one of :attr:`files`."""
        self._open()
        try:
            return self._trees[name]
        except KeyError:
            raise DataError(f"{type(self).__name__}: {name} is not among its files in {self.root.resolve()}.") from None

    def _recordings(self) -> list[Recording]:
        if self._all is None:
            found = list(self.recordings())
            self._check(found)
            self._all = found
        return self._all

    def _check(self, found: Sequence[Recording]) -> None:
        name = type(self).__name__
        if not found:
            raise DataError(
                f"{name}: no recordings were found in {', '.join(file.name for file in self.needed())} in "
                f"{self.root.resolve()}. Are these the files of {self.page}, with their folders as they were?"
            )
        ids = {recording.id for recording in found}
        if len(ids) != len(found):
            raise DataError(f"{name}: {len(found) - len(ids)} of {len(found)} recordings have the id of another one.")
        for recording in found:
            if not 0 <= recording.label < len(self.classes):
                raise DataError(
                    f"{name}, recording {recording.id!r}: label {recording.label} is outside 0 to "
                    f"{len(self.classes) - 1} ({len(self.classes)} classes)."
                )

    def _build(self, found: Sequence[Recording]) -> ArrayStore:
        parameters: dict[str, Any] = {
            "dataset": type(self).__name__,
            "version": self.version,
            "decoder": self.decoder(),
            "sources": {name: tree.digest() for name, tree in sorted(self._trees.items())},
        }
        make: Any = _decode
        if self.cache == "frames":
            parameters["frames"] = self.frames.key()
            make = _integrate
        return build_store(
            self.root / "cache",
            self.cache,
            parameters,
            [recording.id for recording in found],
            list(found),
            functools.partial(make, self._light()),
            workers=self.prepare_workers,
            compress=self.compress,
            description=f"Preparing {type(self).__name__}",
        )

    def _light(self) -> RecordingsModule:
        """A copy that decodes, for other processes: without the lists of all samples."""
        light = copy.copy(self)
        light._all = light._parts = light._places = light._store = None
        light.trainer = None
        return light

    # ------------------------------------------------------------ parts

    def _split(self, found: Sequence[Recording]) -> dict[str, list[Recording]]:
        """Which recordings train, validate and test."""
        by_id = {recording.id: recording for recording in found}
        official = [recording for recording in found if recording.part is not None]
        if official:
            test = [recording for recording in official if recording.part == "test"]
            val = [recording for recording in official if recording.part == "val"]
            rest = [recording for recording in official if recording.part == "train"]
        else:
            rest, test = self._draw(found, self.test_fraction, "test")
            val = []
        if not val and self.val_fraction:
            rest, val = self._draw(rest, self.val_fraction, "val")
            if not val:
                raise ConfigError(
                    f"{type(self).__name__}(val_fraction={self.val_fraction:g}): no class has enough samples to give "
                    "one for validation. Give a larger share, or 0 to validate on the test samples."
                )
        parts = {"train": rest, "val": val or test, "test": test}
        place = {name: i for i, name in enumerate(by_id)}
        indices = {name: [place[recording.id] for recording in part] for name, part in parts.items()}
        chosen = saved_split(self.root / "splits", self._split_name(), list(by_id), indices)
        return {name: [by_id[i] for i in ids] for name, ids in chosen.items()}

    def _split_name(self) -> str:
        return f"val-{self.val_fraction:g}-test-{self.test_fraction:g}-seed-{self.seed}"

    def _draw(self, found: Sequence[Recording], share: float, name: str) -> tuple[list[Recording], list[Recording]]:
        """Take ``share`` of the recordings away: of each class, or of the groups where they are known."""
        fractions = {"rest": 1.0 - share, name: share}
        if all(recording.group is not None for recording in found):
            parts = split_by_group([recording.group for recording in found], fractions, self.seed)
        else:
            parts = split_by_class([recording.label for recording in found], fractions, self.seed)
        return [found[i] for i in parts["rest"]], [found[i] for i in parts[name]]

    def samples(self, split: str) -> Iterable[tuple[str, Recording, int]]:
        """Id, recording and label of every sample of ``split``."""
        self._prepare()
        assert self._parts is not None
        return [(recording.id, recording, recording.label) for recording in self._parts[split]]

    # ------------------------------------------------------------ samples

    def read(self, source: Recording) -> npt.NDArray[Any]:
        """Events of one sample: out of the cache, or decoded from its file."""
        if self._store is not None and self.cache == "events":
            array: npt.NDArray[Any] = self._store[self._place(source)]
            return array
        return _decode(self, source)

    def integrate(self, source: Recording) -> npt.NDArray[Any]:
        """Frames of one sample: out of the cache, or made from its events."""
        if self._store is not None and self.cache == "frames":
            array: npt.NDArray[Any] = self._store[self._place(source)].copy()  # a mapped file cannot be written
            return array
        return super().integrate(source)

    def integrate_many(self, sources: Sequence[Recording]) -> npt.NDArray[Any] | None:
        """Frames of N samples at once, ``[T, N, C, H, W]``, where they lie in the cache and are of one length."""
        if self._store is None or self.cache != "frames" or type(self).integrate is not RecordingsModule.integrate:
            return None
        return self._store.gather([self._place(source) for source in sources])

    def _place(self, recording: Recording) -> int:
        if self._places is None:
            self._places = {known.id: i for i, known in enumerate(self._recordings())}
        return self._places[recording.id]

    def summary(self) -> str:
        """What there is: samples of each part and class, and what the cache takes; prepares what is missing."""
        self._prepare()
        assert self._parts is not None
        lines = [f"{type(self).__name__} in {self.root.resolve()}"]
        for name, part in self._parts.items():
            lines.append(counted(name, [recording.label for recording in part], len(self.classes)))
        if self._store is not None:
            lines.append(f"  cache {self._store.nbytes() / 1e6:,.1f} MB of {self.cache}")
        return "\n".join(lines)

    def problems(self) -> list[str]:
        """Everything that is wrong with the files and the caches, each byte of which is read."""
        self._prepare()
        found = [
            f"{folder.name}: {damage}"
            for folder in sorted((self.root / "cache").glob("*-*"))
            if folder.is_dir() and (damage := check_cache(folder)) is not None
        ]
        recordings = self._recordings()
        for part, number in self.expected.items():
            count = len(recordings) if part == "all" else sum(recording.part == part for recording in recordings)
            if count != number:
                found.append(f"{count:,} recordings ({part}), the whole data set has {number:,}")
        return found


def _decode(module: RecordingsModule, recording: Recording) -> npt.NDArray[Any]:
    """Events of one recording, checked against the sensor."""
    with module.tree(recording.tree).local(recording.name) as path:
        decoded = module.decode(path, recording)
    return events.check_events(decoded, module.sensor_size)


def _integrate(module: RecordingsModule, recording: Recording) -> npt.NDArray[Any]:
    return module.to_frames(module.read(recording))
