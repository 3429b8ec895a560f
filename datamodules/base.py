"""What every datamodule shares: stages, loaders, an order of samples that can be resumed."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from jellyfit import events
from jellyfit.datamodules.augmented import Augmented, check_transforms, naming
from jellyfit.datamodules.batch import Batch, Gathered, Sample, collate_sequences
from jellyfit.errors import ConfigError, DataError
from jellyfit.frames import BatchTransform, FrameTransform
from jellyfit.progress import track
from jellyfit.rng import generator_of, seeded_globals

__all__ = ["EventDataModule", "InMemory", "ResumableSampler", "SpikingDataModule"]

Source = TypeVar("Source")
SPLITS = ("train", "val", "test")


class ResumableSampler(DistributedSampler[int]):
    """Order of samples that depends on (seed, epoch) alone, shared between processes, and can start in mid-epoch.

    Unlike its parent it never repeats a sample to make processes even, so metrics over a test set are exact; in
    training, where every process must take the same number of steps, the few samples too many are left out of this
    epoch (the order changes, so they have their turn in another).

    Args:
        size: number of samples.
        shuffle: new order every epoch.
        seed: of the order.
        num_replicas: number of processes, default 1.
        rank: index of this process, default 0.
        even: give every process the same number of samples (training).
        with_epoch: give pairs (epoch, sample) in place of samples, for datasets whose samples differ from epoch to
            epoch (and whose workers live through many).

    Examples:
        >>> from jellyfit.datamodules import ResumableSampler
        >>> sampler = ResumableSampler(5, shuffle=False, seed=0, num_replicas=2, rank=1)
        >>> list(sampler)
        [1, 3]
    """

    def __init__(
        self,
        size: int,
        shuffle: bool,
        seed: int,
        num_replicas: int = 1,
        rank: int = 0,
        even: bool = False,
        with_epoch: bool = False,
    ) -> None:
        super().__init__(range(size), num_replicas, rank, shuffle, seed)  # type: ignore[arg-type]
        self.size = size
        self.even = even
        self.with_epoch = with_epoch
        self.start: tuple[int, int] = (0, 0)  # epoch, and samples of all processes to pass over in it

    def __iter__(self) -> Iterator[Any]:
        order = np.arange(self.size)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        epoch, done = self.start
        if epoch == self.epoch:
            order = order[done:]  # whatever the number of processes was, they had the first of the order
        mine = order[self.rank :: self.num_replicas][: self.share(len(order))]
        indices: list[int] = mine.tolist()
        return iter([(self.epoch, index) for index in indices] if self.with_epoch else indices)

    def __len__(self) -> int:
        return self.share(self.size)

    def share(self, size: int) -> int:
        """How many of ``size`` samples are this process's."""
        whole, rest = divmod(size, self.num_replicas)
        return whole if self.even else whole + (self.rank < rest)


class _ResumableLoader(DataLoader[Sample]):
    """A training loader whose place in an unfinished epoch Lightning saves in checkpoints and restores from them.

    The place is counted in samples of all processes that training has finished with, not in those loaded ahead: it is
    a place in the epoch's order, also for another number of processes or another batch size.
    """

    trainer: pl.Trainer | None = None
    _begun: tuple[int, int] = (0, 0)  # where an epoch was gone on with: batches, samples of all processes

    def state_dict(self) -> dict[str, int]:
        if self.trainer is None or not isinstance(self.sampler, ResumableSampler):
            return {}
        loop = self.trainer.fit_loop
        # not "completed", which lags behind in on_train_batch_end
        batches = loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
        epoch = loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        if batches >= self.trainer.num_training_batches:  # the next is this one's successor, if it is not counted yet
            return {"epoch": int(loop.epoch_progress.current.started), "samples": 0}  # type: ignore[attr-defined]
        before, samples = self._begun if self.sampler.start[0] == epoch else (0, 0)
        samples += int(batches - before) * (self.batch_size or 1) * self.sampler.num_replicas
        return {"epoch": int(epoch), "samples": samples}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        if not state_dict or not isinstance(self.sampler, ResumableSampler):
            return
        sampler = self.sampler
        epoch, samples = sampler.start = (state_dict["epoch"], state_dict["samples"])
        sampler.set_epoch(epoch)  # workers begin to load before Lightning says so
        if samples and self.trainer is not None:
            left = math.ceil(sampler.share(sampler.size - samples) / (self.batch_size or 1))
            self._begun = (len(self) - left, samples)
            progress = self.trainer.fit_loop.epoch_loop.batch_progress.current
            # Lightning ends an epoch by its count of batches, which is another one when batches have another size
            more = self._begun[0] - progress.processed  # type: ignore[attr-defined]
            for count in ("ready", "started", "processed", "completed"):
                setattr(progress, count, getattr(progress, count) + more)


class _Seeded(Dataset[Sample]):
    """Samples as a worker loads them: what a dataset draws from the global generators depends on seed, epoch and index.

    So a run that goes on draws what it would have drawn; the state of a worker's generators is in no checkpoint.
    """

    def __init__(self, samples: Dataset[Sample], seed: int) -> None:
        self.samples = samples
        self.seed = seed

    def __len__(self) -> int:
        return len(self.samples)  # type: ignore[arg-type]

    def __getitem__(self, place: tuple[int, int] | int) -> Sample:
        epoch, index = place if isinstance(place, tuple) else (0, place)  # as under overfit_batches
        with seeded_globals(generator_of(self.seed, epoch, index)):
            return self.samples[index]

    def __getitems__(self, places: list[tuple[int, int] | int]) -> Sequence[Sample]:
        """The samples of a batch: at once where they are gathered, which draws nothing."""
        indices = [place[1] if isinstance(place, tuple) else place for place in places]
        gathered = self.samples.gathered(indices) if isinstance(self.samples, _Frames) else None
        return [self[place] for place in places] if gathered is None else gathered


class SpikingDataModule(pl.LightningDataModule):
    """Base of all datamodules: a subclass gives its datasets, this makes loaders that resume to the bit.

    A subclass writes :meth:`dataset`, and :meth:`prepare_data` when something must be made or checked on disk first.

    Attributes:
        classes: names of the classes, in the order of the labels.

    Args:
        batch_size: samples a step and process, default 64.
        num_workers: processes that load data, default 0: the main process loads.
        pin_memory: page-locked batches for faster copies to a GPU; default: when there is one.
        seed: of the order of samples, default 0.

    Examples:
        >>> import torch
        >>> from jellyfit.datamodules import InMemory, Sample, SpikingDataModule
        >>> class Noise(SpikingDataModule):
        ...     classes = ("quiet", "loud")
        ...
        ...     def dataset(self, split):
        ...         return InMemory(Sample(torch.rand(4, 3) * (i % 2), i % 2, f"{split}-{i}") for i in range(6))
        >>> data = Noise(batch_size=3)
        >>> data.setup("test")
        >>> batch = next(iter(data.test_dataloader()))
        >>> batch.x.shape, batch.y.tolist(), batch.ids
        (torch.Size([4, 3, 3]), [0, 1, 0], ['test-0', 'test-1', 'test-2'])
    """

    classes: Sequence[str] = ()

    def __init__(
        self, batch_size: int = 64, num_workers: int = 0, pin_memory: bool | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ConfigError(f"data.init_args.batch_size={batch_size}: expected at least 1.")
        if num_workers < 0:
            raise ConfigError(f"data.init_args.num_workers={num_workers}: expected 0 (load in this process) or more.")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        self.seed = seed
        self._datasets: dict[str, Dataset[Sample]] = {}

    def dataset(self, split: str) -> Dataset[Sample]:
        """Samples of ``split`` (``"train"``, ``"val"`` or ``"test"``). Subclasses write it."""
        raise TypeError(f"{type(self).__name__} must define dataset(self, split)")

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Samples -> batch; sequences by default (``[T, N, *]``)."""
        return collate_sequences(samples)

    def setup(self, stage: str) -> None:
        """Make the datasets that ``stage`` needs."""
        needed = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}[stage]
        for split in needed:
            if split not in self._datasets:
                dataset = self.dataset(split)
                if len(dataset) == 0:  # type: ignore[arg-type]
                    raise DataError(f"{type(self).__name__}: the {split} split holds no samples.")
                self._datasets[split] = dataset

    def train_dataloader(self) -> DataLoader[Sample]:
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Sample]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Sample]:
        """The test split, in order."""
        return self._loader("test")

    def _loader(self, split: str) -> DataLoader[Sample]:
        dataset: Dataset[Any] = self._datasets[split]
        training = split == "train"
        trainer = self.trainer
        size: int = len(dataset)  # type: ignore[arg-type]
        processes = trainer.world_size if trainer else 1
        if size < processes:  # one without a sample would leave the others waiting for it
            raise DataError(
                f"{type(self).__name__}: the {split} split holds {size} samples, fewer than there are processes "
                f"({processes}). Use at most {size}: --trainer.devices={size}."
            )
        augmented = dataset if isinstance(dataset, Augmented) else None
        if training and self.num_workers > 0 and augmented is None:
            dataset = _Seeded(dataset, self.seed)
        sampler = ResumableSampler(
            size,
            shuffle=training,
            seed=self.seed,
            num_replicas=processes,
            rank=trainer.global_rank if trainer else 0,
            even=training,
            with_epoch=isinstance(dataset, Augmented | _Seeded),
        )
        loader = (_ResumableLoader if training else DataLoader)(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=self.collate if augmented is None else augmented.collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self.pin_memory,
            # workers' seeds come from here, not from the global generator: validating more or less changes nothing
            generator=torch.Generator().manual_seed(self.seed),
        )
        if isinstance(loader, _ResumableLoader):
            loader.trainer = trainer
            if trainer is not None:  # Lightning sets the epoch only after workers have begun to load
                sampler.set_epoch(trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]
        return loader

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "trainer": None, "_datasets": {}}


class _Frames(Dataset[Sample], Generic[Source]):
    """Samples of an :class:`EventDataModule` as frames, integrated when asked for."""

    def __init__(self, module: EventDataModule, samples: Sequence[tuple[str, Any, int]]) -> None:
        self.module = module
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def recording(self, index: int) -> tuple[str, events.EventArray, int]:
        """Id, events and label of a sample."""
        name, source, label = self.samples[index]
        with naming(self.module, name):
            return name, self.module.read(source), label

    def __getitem__(self, index: int) -> Sample:
        name, source, label = self.samples[index]
        with naming(self.module, name):
            return Sample(self.module.integrate(source), label, name)

    def __getitems__(self, indices: list[int]) -> Sequence[Sample]:
        """The samples of a batch, which is what a loader asks for where it can."""
        gathered = self.gathered(indices)
        return [self[index] for index in indices] if gathered is None else gathered

    def gathered(self, indices: list[int]) -> Gathered | None:
        """The samples of a batch where they can be had at once."""
        chosen = [self.samples[index] for index in indices]
        frames = self.module.integrate_many([source for _, source, _ in chosen])
        if frames is None:
            return None
        return Gathered(torch.from_numpy(frames), [label for _, _, label in chosen], [name for name, _, _ in chosen])


class InMemory(Dataset[Sample]):
    """Samples held in memory.

    Examples:
        >>> import torch
        >>> from jellyfit.datamodules import InMemory, Sample
        >>> samples = InMemory([Sample(torch.zeros(4, 3), 1, "first")])
        >>> len(samples), samples[0].id
        (1, 'first')
    """

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.samples = list(samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


class EventDataModule(SpikingDataModule):
    """Event recordings, integrated to frames ``[T, N, C, H, W]``.

    By default C = 2 (channel 0 = OFF, 1 = ON) and frames are counts, unsigned integers; other representations have
    other channels, see ``frames.channels``.

    A subclass states :attr:`sensor_size` and :attr:`classes` and writes :meth:`samples`; and :meth:`read` when its
    recordings are not files that :func:`jellyfit.events.read_events` knows::

        class MyCamera(EventDataModule):
            sensor_size = (128, 128)
            classes = ("left", "right")

            def samples(self, split):
                for label, name in enumerate(self.classes):
                    for path in sorted((self.root / split / name).glob("*.npz")):
                        yield path.stem, path, label

    Attributes:
        sensor_size: height and width of the sensor in pixels.

    Args:
        root: folder of the data.
        frames: how events become frames, see :mod:`jellyfit.events`; default ``FixedNumber(T=10)``.
        batch_size, num_workers, pin_memory, seed: see :class:`SpikingDataModule`.
        in_memory: integrate every sample once and keep its frames (of training samples only where their events are not
            augmented); default ``False``.
        event_transforms: augmentation of the events of training samples, in this order: those of
            :mod:`jellyfit.events`, which are given a generator, and any other callable, such as tonic's transforms,
            which is called with a copy of the events alone while the global generators are seeded. Default none.
        frame_transforms: augmentation of the frames of training samples: those of :mod:`jellyfit.frames`, and any other
            callable, which is called with the frames as a tensor ``[T, C, H, W]`` alone. Default none.
        batch_transforms: mixing of training batches (``Mixup``, ``CutMix`` of :mod:`jellyfit.frames`); labels become
            shares of classes ``[N, classes]``. Default none.

    Augmentation depends on ``seed``, epoch and sample alone: not on the number of workers, nor on whether a run was
    stopped and resumed.

    Raises:
        ConfigError: a transform in the wrong list, or something that is none.

    Examples:
        >>> from jellyfit import events
        >>> from jellyfit.datamodules import EventDataModule
        >>> class OneEvent(EventDataModule):
        ...     sensor_size = (4, 6)
        ...     classes = ("left", "right")
        ...
        ...     def samples(self, split):
        ...         yield from (("a", 0, 0), ("b", 5, 1))  # id, source, label
        ...
        ...     def read(self, source):
        ...         return events.make_events(t=[10], x=[source], y=[1], p=[1])
        >>> data = OneEvent("no/files", frames=events.FixedNumber(T=3))
        >>> data.setup("test")
        >>> batch = next(iter(data.test_dataloader()))
        >>> batch.x.shape, batch.y.tolist()
        (torch.Size([3, 2, 2, 4, 6]), [0, 1])
    """

    sensor_size: tuple[int, int]

    def __init__(
        self,
        root: str | os.PathLike[str],
        frames: events.Framing | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        pin_memory: bool | None = None,
        seed: int = 0,
        in_memory: bool = False,
        event_transforms: Sequence[events.EventTransform | events.EventMix | Callable[..., Any]] | None = None,
        frame_transforms: Sequence[FrameTransform | Callable[..., Any]] | None = None,
        batch_transforms: Sequence[BatchTransform] | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers, pin_memory, seed)
        self.root = Path(root)
        self.frames = events.FixedNumber(T=10) if frames is None else frames
        self.in_memory = in_memory
        self.event_transforms = check_transforms("event_transforms", event_transforms)
        self.frame_transforms = check_transforms("frame_transforms", frame_transforms)
        self.batch_transforms = check_transforms("batch_transforms", batch_transforms)

    def samples(self, split: str) -> Iterable[tuple[str, Any, int]]:
        """Id, source (a path, or whatever :meth:`read` takes) and label of every sample of ``split``."""
        raise TypeError(f"{type(self).__name__} must define samples(self, split)")

    def read(self, source: Any) -> events.EventArray:
        """Events of one sample; by default from the file ``source``."""
        return events.read_events(source)

    def to_frames(self, recording: events.EventArray, empty: Literal["error", "zeros"] = "error") -> npt.NDArray[Any]:
        """Frames of a sample's events; by default :attr:`frames` of them, ``[T, C, H, W]``."""
        return events.to_frames(recording, self.frames, self.sensor_size, empty=empty)

    def integrate(self, source: Any) -> npt.NDArray[Any]:
        """Frames of one sample; by default those of the events that :meth:`read` gives."""
        return self.to_frames(self.read(source))

    def integrate_many(self, sources: Sequence[Any]) -> npt.NDArray[Any] | None:
        """Frames of N samples at once, ``[T, N, C, H, W]``; None (here, always) to integrate them one by one."""
        return None

    def dataset(self, split: str) -> Dataset[Any]:
        samples = list(self.samples(split))
        for name, _, label in samples:
            if not 0 <= label < len(self.classes):
                raise DataError(
                    f"{type(self).__name__}, sample {name!r}: label {label} is outside 0 to {len(self.classes) - 1} "
                    f"({len(self.classes)} classes)."
                )
        lazy: _Frames[Any] = _Frames(self, samples)
        frames: Dataset[Sample] = lazy
        training = split == "train"
        if self.in_memory and not (training and self.event_transforms):
            indices = track(range(len(samples)), f"Integrating frames ({split})", enabled=len(samples) > 5000)
            frames = InMemory(lazy[i] for i in indices)
        if training and (self.event_transforms or self.frame_transforms or self.batch_transforms):
            return Augmented(self, lazy.recording, frames)
        return frames
