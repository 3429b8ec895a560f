"""Augmented training samples, which depend on seed, epoch and sample alone, whatever the number of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from jellyfit import events
from jellyfit.datamodules.batch import Batch, Sample
from jellyfit.errors import ConfigError, DataError, InputTypeError
from jellyfit.events.frames import check_recording
from jellyfit.frames import BatchTransform, FrameTransform
from jellyfit.losses import soft_labels
from jellyfit.rng import generator_of, seeded_globals

if TYPE_CHECKING:
    from jellyfit.datamodules.base import EventDataModule

__all__ = ["Augmented", "Drawn", "check_transforms", "naming"]

_LISTS: dict[str, tuple[type, ...]] = {
    "event_transforms": (events.EventTransform, events.EventMix),
    "frame_transforms": (FrameTransform,),
    "batch_transforms": (BatchTransform,),
}
_BATCH = 1  # a stream of its own for the draws of the batch that a sample begins


class Drawn(NamedTuple):
    """A sample, and the place that its draws come from."""

    sample: Sample
    epoch: int
    number: int


def check_transforms(name: str, transforms: Sequence[Any] | None) -> tuple[Any, ...]:
    """The transforms of one of the three lists.

    Args:
        name: ``"event_transforms"``, ``"frame_transforms"`` or ``"batch_transforms"``.
        transforms: What was given; ``None`` is none.

    Raises:
        ConfigError: Not a list, a transform of another list, a class in place of an object, or no callable.

    Examples:
        >>> from jellyfit import events
        >>> from jellyfit.datamodules.augmented import check_transforms
        >>> check_transforms("event_transforms", [events.DropTime(ratio=0.5)])
        (DropTime(ratio=(0.5, 0.5)),)
    """
    if transforms is None:
        return ()
    where = f"data.init_args.{name}"
    if not isinstance(transforms, Sequence) or isinstance(transforms, str):
        raise ConfigError(f"{where}={transforms!r}: expected a list, of one transform at least or empty.")
    for i, transform in enumerate(transforms):
        if isinstance(transform, _LISTS[name]):
            continue
        given = f"{where}[{i}]={transform!r}"
        for other, kinds in _LISTS.items():
            if isinstance(transform, kinds):
                raise ConfigError(f"{given}: this belongs into {other}.")
        if isinstance(transform, type):
            raise ConfigError(f"{given}: expected an object, {transform.__name__}(...), not its class.")
        if name == "batch_transforms":
            raise ConfigError(f"{given}: expected a BatchTransform, such as jellyfit.frames.Mixup.")
        if not callable(transform):
            raise ConfigError(f"{given}: expected a transform, or a function of {name.partition('_')[0]}s.")
    return tuple(transforms)


@contextmanager
def naming(module: EventDataModule, name: str) -> Iterator[None]:
    """Within, an error of the data says in which sample it was found."""
    try:
        yield
    except (ValueError, InputTypeError) as error:
        raise DataError(f"{type(module).__name__}, sample {name!r}: {error}") from error


class Augmented(Dataset[Drawn]):
    """Training samples of an :class:`~jellyfit.datamodules.EventDataModule`, asked for by (epoch, index).

    The sampler gives the epoch: workers that live through many epochs have no other way to know it. An index alone,
    from another sampler (as under Lightning's ``overfit_batches``), is one of epoch 0.

    Args:
        module: Says which transforms.
        recording: Gives id, events and label of a sample by its index.
        frames: The samples as frames, used where events are not augmented.
    """

    def __init__(
        self,
        module: EventDataModule,
        recording: Callable[[int], tuple[str, events.EventArray, int]],
        frames: Dataset[Sample],
    ) -> None:
        self.module = module
        self.recording = recording
        self.frames = frames
        self.event_transforms = tuple(
            transform.for_sensor(module.sensor_size)
            if isinstance(transform, events.EventTransform | events.EventMix)
            else transform
            for transform in module.event_transforms
        )
        self.mixes = any(isinstance(transform, events.EventMix) for transform in self.event_transforms)

    def __len__(self) -> int:
        return len(self.frames)  # type: ignore[arg-type]

    def __getitem__(self, place: tuple[int, int] | int) -> Drawn:
        epoch, index = place if isinstance(place, tuple) else (0, place)
        rng = generator_of(self.module.seed, epoch, index)
        name, x, y = self._from_events(index, rng) if self.event_transforms else self._from_frames(index)
        with naming(self.module, name):
            for transform in self.module.frame_transforms:
                if isinstance(transform, FrameTransform):
                    x = transform(x, rng)
                else:
                    own = x.clone() if isinstance(x, Tensor) else torch.from_numpy(np.array(x))
                    with seeded_globals(rng):
                        x = transform(own)
        return Drawn(Sample(x, y, name), epoch, index)

    def _from_frames(self, index: int) -> tuple[str, Any, int | Tensor]:
        x, y, name = self.frames[index]
        return name, x, y

    def _from_events(self, index: int, rng: np.random.Generator) -> tuple[str, Any, int | Tensor]:
        module = self.module
        name, recording, label = self.recording(index)
        y: int | Tensor = self._shares(label) if self.mixes else label
        with naming(module, name):
            recording, _ = check_recording(recording, module.frames, module.sensor_size, "error")
            recording = events.sort_events(recording, warn=True)
            for transform in self.event_transforms:
                if isinstance(transform, events.EventMix):
                    _, other, label = self.recording(int(rng.integers(len(self))))
                    recording, share = transform(recording, events.sort_events(other), rng)
                    y = share * y + (1 - share) * self._shares(label)
                elif isinstance(transform, events.EventTransform):
                    recording = transform(recording, rng)
                else:
                    with seeded_globals(rng):
                        recording = events.sort_events(transform(recording.copy()))
            return name, module.to_frames(recording, empty="zeros"), y

    def _shares(self, label: int) -> Tensor:
        return soft_labels(torch.tensor([label]), len(self.module.classes))[0]

    def collate(self, drawn: Sequence[Drawn]) -> Batch:
        """Samples -> batch, mixed where the datamodule says so."""
        batch = self.module.collate([each.sample for each in drawn])
        if not self.module.batch_transforms:
            return batch
        rng = generator_of(self.module.seed, drawn[0].epoch, drawn[0].number, _BATCH)
        x, y, lengths = batch.x, soft_labels(batch.y, len(self.module.classes)), batch.lengths
        for transform in self.module.batch_transforms:
            x, y, lengths = transform(x, y, rng, lengths)
        return batch._replace(x=x, y=y, lengths=lengths)
