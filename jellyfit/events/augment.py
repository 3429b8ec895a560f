"""Augmentation of events: structured arrays in, structured arrays out.

A transform is called with events and a NumPy generator, from which every draw comes: the same generator state, the same
result. A datamodule's ``event_transforms`` takes a list of them and gives each sample of each epoch a generator of its
own. To write one, subclass :class:`EventTransform` and write ``transform``.

What needs the size of the sensor has an argument ``sensor_size``; a datamodule knows it, so there it may be left out.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from jellyfit.errors import ConfigError
from jellyfit.events.array import EventArray, check_events, check_sensor_size, sort_events
from jellyfit.events.draws import (
    Rectangle,
    check_generator,
    check_items,
    check_number,
    check_probability,
    check_range,
    check_whole,
    nda_magnitudes,
    rectangle,
    rotation,
    shear,
)
from jellyfit.events.parameters import Parameterized

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "NDA",
    "CutOut",
    "DropArea",
    "DropEvents",
    "DropTime",
    "EventDrop",
    "EventMix",
    "EventTransform",
    "HorizontalFlip",
    "OneOf",
    "PolarityFlip",
    "Roll",
    "Rotate",
    "Shear",
    "Shift",
    "SpatialJitter",
    "SpatialTransform",
    "TimeJitter",
    "TimeScale",
    "WithProbability",
]

_MASK_GRID = 16  # points a side at which EventMix measures how much of the volume its mask covers


class EventTransform(Parameterized, ABC):
    """Base of augmentations of events. Compares and pickles by its parameters. Subclasses write :meth:`transform`.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> class KeepOn(events.EventTransform):
        ...     def transform(self, events, rng):
        ...         return events[events["p"]]
        >>> recording = events.make_events([0, 1, 2], [5, 6, 7], [0, 0, 0], [1, 0, 1])
        >>> KeepOn()(recording, np.random.default_rng(0))["x"].tolist()
        [5, 7]
    """

    def __call__(self, events: npt.NDArray[Any], rng: np.random.Generator) -> EventArray:
        """Augment events.

        Args:
            events: Structured array ``[N]`` with fields t (µs), x, y, p, sorted by time; it is left as it is. N = 0 is
                given back.
            rng: Source of every draw.

        Returns:
            Events ``[M]`` of :data:`~jellyfit.events.EVENT_DTYPE`, sorted by time.

        Raises:
            InputError: Events outside the sensor, where its size is known.
            InputTypeError: Not an event array, not a generator.
        """
        check_generator(rng)
        events = self._checked(events)
        return self.transform(events, rng) if len(events) else events

    @abstractmethod
    def transform(self, events: EventArray, rng: np.random.Generator) -> EventArray:
        """Augment at least one event; see :meth:`__call__`, which checks first. Never writes into ``events``."""

    def for_sensor(self, sensor_size: Sequence[int]) -> Self:
        """This transform, or where it was given no size of the sensor, a copy that has this one (height, width)."""
        return self

    def _checked(self, events: npt.NDArray[Any]) -> EventArray:
        return check_events(events)


class _OnSensor:
    """What needs the size of the sensor, and may be given it later."""

    sensor_size: tuple[int, int] | None

    def _keep_size(self, sensor_size: Sequence[int] | None) -> None:
        self.sensor_size = None if sensor_size is None else check_sensor_size(sensor_size)

    def for_sensor(self, sensor_size: Sequence[int]) -> Self:
        """This transform, or where it was given no size of the sensor, a copy that has this one (height, width)."""
        if self.sensor_size is not None:
            return self
        own = copy.copy(self)
        own.sensor_size = check_sensor_size(sensor_size)
        return own

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the sensor.

        Raises:
            ConfigError: They were not given.
        """
        if self.sensor_size is None:
            name = type(self).__name__
            raise ConfigError(
                f"{self!r} needs the size of the sensor: {name}(..., sensor_size=(height, width)), or "
                f"for_sensor((height, width)). In a datamodule's event_transforms it is known."
            )
        return self.sensor_size


class SpatialTransform(_OnSensor, EventTransform):
    """Base of augmentations that move events on the sensor or remove a part of it.

    Args:
        sensor_size: (height, width) in pixels; None (default): given later by :meth:`for_sensor`.

    Raises:
        InputError: No such size.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> class Corner(events.SpatialTransform):
        ...     def transform(self, events, rng):
        ...         return events[events["x"] < self.size[1] // 2]
        >>> recording = events.make_events([0, 1], [1, 2], [0, 0], [1, 1])
        >>> len(Corner(sensor_size=(4, 4))(recording, np.random.default_rng(0)))
        1
    """

    def __init__(self, sensor_size: tuple[int, int] | None = None) -> None:
        self._keep_size(sensor_size)

    def _checked(self, events: npt.NDArray[Any]) -> EventArray:
        return check_events(events, self.size)

    def _moved(self, events: EventArray, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> EventArray:
        """The events at other places; those that have left the sensor are dropped."""
        height, width = self.size
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        moved = events[inside]
        moved["x"], moved["y"] = x[inside], y[inside]
        return moved

    def _without(self, events: EventArray, area: Rectangle) -> EventArray:
        top, bottom, left, right = area
        x, y = events["x"], events["y"]
        return events[(y < top) | (y >= bottom) | (x < left) | (x >= right)]


# ------------------------------------------------------------ dropping


class DropTime(EventTransform):
    """Drop all events of an interval: it begins anywhere in the recording and ends with it at the latest.

    Args:
        ratio: Least and most length of the interval, as a share of the recording's duration; drawn evenly. Default
            0.1 to 0.9. One number fixes it.

    Raises:
        InputError: Not two shares from 0 to 1, the smaller first.
        InputTypeError: Not numbers.

    Source: Gu, Sng, Hu and Yu, "EventDrop: data augmentation for event-based learning", IJCAI 2021.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> recording = events.make_events(range(100), [0] * 100, [0] * 100, [1] * 100)
        >>> kept = events.DropTime(ratio=0.3)(recording, np.random.default_rng(1))
        >>> len(kept), int(np.diff(kept["t"]).max())
        (70, 31)
    """

    def __init__(self, ratio: tuple[float, float] | float = (0.1, 0.9)) -> None:
        self.ratio = check_range("ratio", ratio, 0, 1)

    def transform(self, events: EventArray, rng: np.random.Generator) -> EventArray:
        t = events["t"] - events["t"][0]
        duration = int(t[-1]) + 1  # an event lasts 1 µs
        start = rng.uniform() * duration
        kept: npt.NDArray[np.bool_] = (t < start) | (t >= start + rng.uniform(*self.ratio) * duration)
        return events[kept]


class DropArea(SpatialTransform):
    """Drop all events of a rectangle whose centre is anywhere on the sensor.

    (The authors' published code drops whole rows and columns through that rectangle; their paper, tonic and this class
    drop the rectangle.)

    Args:
        ratio: Least and most side of the rectangle, as a share of the sensor's height and width; drawn evenly. Default
            0.05 to 0.25. One number fixes it.
        sensor_size: (height, width); None (default): the datamodule's.

    Raises:
        InputError: Not two shares from 0 to 1, the smaller first; no such size.
        InputTypeError: Not numbers.

    Source: Gu et al., IJCAI 2021, see :class:`DropTime`.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> y, x = np.indices((20, 20)).reshape(2, -1)
        >>> everywhere = events.make_events(np.arange(400), x, y, np.ones(400, bool))
        >>> len(events.DropArea(ratio=0.2, sensor_size=(20, 20))(everywhere, np.random.default_rng(0)))  # 4 x 4 less
        384
    """

    def __init__(
        self, ratio: tuple[float, float] | float = (0.05, 0.25), sensor_size: tuple[int, int] | None = None
    ) -> None:
        super().__init__(sensor_size)
        self.ratio = check_range("ratio", ratio, 0, 1)

    def transform(self, events: EventArray, rng: np.random.Generator) -> EventArray:
        ratio = rng.uniform(*self.ratio)
        height, width = self.size
        return self._without(events, rectangle(rng, self.size, round(ratio * height), round(ratio * width)))


class DropEvents(EventTransform):
    """Drop a share of the events, drawn without regard to place and time.

    Args:
        ratio: Least and most share that is dropped; drawn evenly. Default 0.1 to 0.9. One number fixes it.

    Raises:
        InputError: Not two shares from 0 to 1, the smaller first.
        InputTypeError: Not numbers.

    Source: Gu et al., IJCAI 2021, see :class:`DropTime`.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> recording = events.make_events(range(100), [0] * 100, [0] * 100, [1] * 100)
        >>> len(events.DropEvents(ratio=0.25)(recording, np.random.default_rng(0)))
        75
    """

    def __init__(self, ratio: tuple[float, float] | float = (0.1, 0.9)) -> None:
        self.ratio = check_range("ratio", ratio, 0, 1)

    def transform(self, events: EventArray, rng: np.random.Generator) -> EventArray:
        dropped = int(rng.uniform(*self.ratio) * len(events))
        kept = np.ones(len(events), bool)
        kept[rng.choice(len(events), dropped, replace=False)] = False
        return events[kept]


class EventDrop(SpatialTransform):
    """EventDrop: nothing, :class:`DropTime`, :class:`DropArea` or :class:`DropEvents`, each with probability 1/4.

    A recording of which nothing would be left stays whole.

    Args:
        time_ratio: Ratio of :class:`DropTime`, default 0.1 to 0.9.
        area_ratio: Ratio of :class:`DropArea`, default 0.05 to 0.25.
        event_ratio: Ratio of :class:`DropEvents`, default 0.1 to 0.9.
        sensor_size: (height, width); None (default): the datamodule's.

    Raises:
        InputError: Not two shares from 0 to 1, the smaller first; no such size.
        InputTypeError: Not numbers.

    Source: Gu et al., IJCAI 2021, see :class:`DropTime`. (The authors draw ratios from a few values, in steps of 0.1,
    0.05 and 0.1; here from the whole range.)

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> recording = events.make_events(range(100), [0] * 100, [0] * 100, [1] * 100)
        >>> drop, rng = events.EventDrop(event_ratio=0.5, sensor_size=(1, 1)), np.random.default_rng(0)
        >>> left = [len(drop(recording, rng)) for _ in range(50)]
        >>> 50 in left, 100 in left, min(left) < 50
        (True, True, True)
    """

    def __init__(
        self,
        time_ratio: tuple[float, float] | float = (0.1, 0.9),
        area_ratio: tuple[float, float] | float = (0.05, 0.25),
        event_ratio: tuple[float, float] | float = (0.1, 0.9),
        sensor_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(sensor_size)
        self.time_ratio = check_range("time_ratio", time_ratio, 0, 1)
        self.area_ratio = check_range("area_ratio", area_ratio, 0, 1)
        self.event_ratio = check_range("event_ratio", event_ratio, 0, 1)

    def transform(self, events: EventArray, rng: np.random.Generator) -> EventArray:
        ways = (
            None,
            DropTime(self.time_ratio),
            DropArea(self.area_ratio, self.size),
            DropEvents(self.event_ratio),
        )
        way = ways[rng.integers(len(ways))]
        kept = events if way is None else way(events, rng)
        return kept if len(kept) else events


# ------------------------------------------------------------ places


class HorizontalFlip(SpatialTransform):
    """Mirror left and right, with probability p.

    Args:
        p: Probability, default 0.5.
        sensor_size: (height, width); None (default): the datamodule's.

    Raises:
        InputError: Not a probability; no such size.
        InputTypeError: Not a number.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> recording = events.make_events([0, 1], [0, 3], [7, 7], [1, 1])
        >>> events.HorizontalFlip(p=1.0, sensor_size=(8, 10))(recording, np.random.default_rng(0))["x"].tolist()
        [9, 6]
    """

    def __init__(self, p: float = 0.5, sensor_size: tuple[int, int] | None = None) -> None:
        super().__init__(sensor_size)
        self.p = check_probability("p", p)

    def transform(self, events: EventArray, rng: np.random.Generator) -> EventArray:
        if rng.uniform() >= self.p:
            return events
        events = events.copy()
        events["x"] = self.size[1] - 1 - events["x"]
        return events


class _Move(SpatialTransform):
    """Move everything by up to so many pixels in either direction."""

    def __init__(self, pixels: int = 5, sensor_size: tuple[int, int] | None = None) -> None:
        super().__init__(sensor_size)
        self.pixels = check_whole("pixels", pixels, 0)

    def _places(self, events: EventArray, rng: np.random.Generator) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        right, down = rng.integers(-self.pixels, self.pixels, 2, endpoint=True)
        return events["x"].astype(np.int64) + right, events["y"].astype(np.int64) + down


class Shift(_Move):
    """Move everything by up to so many pixels, right or left and up or down; what leaves the sensor is dropped.

    Args:
        pixels: Most pixels in either direction, drawn evenly; default 5.
        sensor_size: (height, width); None (default): the datamodule's.

    Raises:
        InputError: Below 0; no such size.
        InputTypeError: Not an integer.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> recording = events.make_events([0, 1], [0, 3], [4, 4], [1, 1])
        >>> moved = events.Shift(pixels=2, sensor_size=(8, 10))(recording, np.random.default_rng(0))
        >>> moved["x"].tolist(), moved["y"].tolist()
        ([2, 5], [5, 5])
    """

    def transform(self, events: EventArray, rng: np.random.Generator) -> EventArray:
        return self._moved(events, *self._places(events, rng))


class Roll(_Move):
    """Move everything by up to so many pixels; what leaves the sensor comes back on the other side.

    Args:
        pixels: Most pixels in either direction, drawn evenly; default 5.
        sensor_size: (height, width); None (default): the datamodule's.

    Raises:
        InputError: Below 0; no such size.
        InputTypeError: Not an integer.

    Source: Li, Kim, Park, Geller and Panda, "Neuromorphic data augmentation for training spiking neural networks",
    ECCV 2022.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> recording = events.make_events([0, 1], [0, 9], [4, 4], [1, 1])
        >>> rolled = events.Roll(pixels=2, sensor_size=(8, 10))(recording, np.random.default_rng(0))
        >>> rolled["x"].tolist(), rolled["y"].tolist()
        ([2, 1], [5, 5])
    """

    def transform(self, events: EventArray, rng: np.random.Generator) -> EventArray:
        x, y = self._places(events, rng)
        height, width = self.size
        return self._moved(events, x % width, y % height)


class SpatialJitter(SpatialTransform):
    """Move every event on its own by a normally distributed number of pixels; what leaves the sensor is dropped.

    Args:
        std: Standard deviation in pixels along either axis, at least 0; places are rounded. Default 1.
        sensor_size: (height, width); None (default): the datamodule's.

    Raises:
        InputError: Not finite or below 0; no such size.
        InputTypeError: Not a number.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> recording = events.make_events(range(4), [50] * 4, [50] * 4, [1] * 4)
        >>> jittered = events.SpatialJitter(std=1.0, sensor_size=(100, 100))(recording, np.random.default_rng(0))
        >>> jittered["x"].tolist()
        [50, 50, 51, 50]
    """

    def __init__(self, std: float = 1.0, sensor_size: tuple[int, int] | None = None) -> None:
        super().__init__(sensor_size)
        self.std = check_number("std", std, at_least=0)

    def transform(self, events: EventArray, rng: np.random.Generator) -> EventArray:
        x, y = np.rint(rng.normal(0.0, self.std, (2, len(events)))).astype(np.int64)
        return self._moved(events, events["x"] + x, events["y"] + y)


class CutOut(SpatialTransform):
    """Drop all events of a square whose centre is anywhere on the sensor.

    Args:
        side: Side of the square in pixels, at least 1; default 8.
        sensor_size: (height, width); None (default): the datamodule's.

    Raises:
        InputError: Below 1; no such size.
        InputTypeError: Not an integer.

    Source: DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout", 2017.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> y, x = np.indices((20, 20)).reshape(2, -1)
        >>> everywhere = events.make_events(np.arange(400), x, y, np.ones(400, bool))
        >>> len(events.CutOut(side=5, sensor_size=(20, 20))(everywhere, np.random.default_rng(0)))
        375
    """

    def __init__(self, side: int = 8, sensor_size: tuple[int, int] | None = None) -> None:
        super().__init__(sensor_size)
        self.side = check_whole("side", side, 1)

    def transform(self, events: EventArray, rng: np.random.Generator) -> EventArray:
        return self._without(events, rectangle(rng, self.size, self.side, self.side))


class _Turn(SpatialTransform):
    """Turn or slant the picture about its centre by up to so many degrees."""

    matrix: ClassVar[Any]

    def __init__(self, degrees: float = 15.0, sensor_size: tuple[int, int] | None = None) -> None:
        super().__init__(sensor_size)
        self.degrees = check_number("degrees", degrees, at_least=0)

    def transform(self, events: EventArray, rng: np.random.Generator) -> EventArray:
        height, width = self.size
        centre = np.array([[(width - 1) / 2], [(height - 1) / 2]])
        matrix = self.matrix(rng.uniform(-self.degrees, self.degrees))
        # an event lies anywhere in its pixel: with all in the middle, a pattern of holes would arise
        places = np.stack([events["x"], events["y"]]) - centre + rng.uniform(-0.5, 0.5, (2, len(events)))
        x, y = np.rint(matrix @ places + centre).astype(np.int64)
        return self._moved(events, x, y)


class Rotate(_Turn):
    """Turn about the centre of the sensor; what leaves it is dropped.

    An event's place within its pixel is drawn, so that events of one pixel go to a few neighbouring ones and no pattern
    of holes arises.

    Args:
        degrees: Most degrees either way, drawn evenly; default 15.
        sensor_size: (height, width); None (default): the datamodule's.

    Raises:
        InputError: Not finite or below 0; no such size.
        InputTypeError: Not a number.

    Source: Li et al., ECCV 2022, see :class:`Roll`.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> recording = events.make_events([0, 1], [10, 20], [10, 10], [1, 1])
        >>> turned = events.Rotate(degrees=30.0, sensor_size=(21, 21))(recording, np.random.default_rng(0))
        >>> turned["x"].tolist(), turned["y"].tolist()
        ([10, 19], [10, 9])
    """

    matrix = staticmethod(rotation)


class Shear(_Turn):
    """Slant the picture: each row moves along itself, the further the further it is from the middle.

    What leaves the sensor is dropped. As in :class:`Rotate` an event's place within its pixel is drawn.

    Args:
        degrees: Most degrees to the upright either way, at most 89, drawn evenly; default 15.
        sensor_size: (height, width); None (default): the datamodule's.

    Raises:
        InputError: Not finite, below 0, or above 89; no such size.
        InputTypeError: Not a number.

    Source: Li et al., ECCV 2022, see :class:`Roll`.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> recording = events.make_events([0, 1, 2], [10, 10, 10], [0, 10, 20], [1, 1, 1])
        >>> events.Shear(degrees=45.0, sensor_size=(21, 21))(recording, np.random.default_rng(0))["x"].tolist()
        [8, 10, 12]
    """

    matrix = staticmethod(shear)

    def __init__(self, degrees: float = 15.0, sensor_size: tuple[int, int] | None = None) -> None:
        super().__init__(degrees, sensor_size)
        check_number("degrees", degrees, at_most=89)


class NDA(SpatialTransform):
    """Neuromorphic data augmentation: a mirror with probability 1/2, then some of roll, rotate, cut out and shear.

    Magnitudes 1, 2 and 3 roll by up to 3, 5 and 7 pixels, rotate and shear by up to 15, 30 and 45 degrees, and cut out
    squares of 8, 16 and 24 pixels. Pixels are those of a picture of 48 x 48, as in the paper, and grow with the sensor.
    (The authors' published code has magnitude 1 for N-Caltech101 and 2 for CIFAR10-DVS, one operation a sample, and
    leaves out the square; without it, write a list of :class:`OneOf`.)

    Args:
        magnitude: 1 (default), 2 or 3.
        number: How many of the four operations a sample goes through, all different; 1 (default) to 4.
        flip: Mirror too, with probability 1/2; default True. Turn it off where left and right are classes.
        sensor_size: (height, width); None (default): the datamodule's.

    Raises:
        InputError: Another magnitude or number; no such size.
        InputTypeError: Not integers.

    Source: Li et al., ECCV 2022, see :class:`Roll`.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> recording = events.make_events(range(5), range(10, 15), [20] * 5, [1] * 5)
        >>> for seed in (0, 3):
        ...     augmented = events.NDA(sensor_size=(48, 48))(recording, np.random.default_rng(seed))
        ...     print(augmented["x"].tolist(), augmented["y"].tolist())
        [37, 37, 36, 35, 34] [20, 20, 20, 20, 20]
        [37, 35, 34, 33, 32] [20, 20, 20, 20, 20]
    """

    def __init__(
        self, magnitude: int = 1, number: int = 1, flip: bool = True, sensor_size: tuple[int, int] | None = None
    ) -> None:
        super().__init__(sensor_size)
        self.magnitude = check_whole("magnitude", magnitude, 1, 3)
        self.number = check_whole("number", number, 1, 4)
        self.flip = flip

    def transform(self, events: EventArray, rng: np.random.Generator) -> EventArray:
        size = self.size
        roll, turn, side, slant = nda_magnitudes(self.magnitude, size)
        ways: tuple[EventTransform, ...] = (
            Roll(roll, size),
            Rotate(turn, size),
            CutOut(side, size),
            Shear(slant, size),
        )
        chosen = [ways[i] for i in rng.choice(len(ways), self.number, replace=False)]
        for way in [HorizontalFlip(0.5, size), *chosen] if self.flip else chosen:
            events = way(events, rng)
        return events


# ------------------------------------------------------------ time and polarity


class TimeJitter(EventTransform):
    """Move every event in time by a normally distributed duration, and sort again.

    Args:
        std: Standard deviation in µs, at least 0; times are rounded to whole µs. Default 1,000 (1 ms).

    Raises:
        InputError: Not finite or below 0.
        InputTypeError: Not a number.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> recording = events.make_events([1000, 2000, 3000], [0, 1, 2], [0, 0, 0], [1, 1, 1])
        >>> jittered = events.TimeJitter(std=1000.0)(recording, np.random.default_rng(0))
        >>> jittered["t"].tolist(), jittered["x"].tolist()
        ([1126, 1868, 3640], [0, 1, 2])
    """

    def __init__(self, std: float = 1000.0) -> None:
        self.std = check_number("std", std, at_least=0)

    def transform(self, events: EventArray, rng: np.random.Generator) -> EventArray:
        events = events.copy()
        events["t"] += np.rint(rng.normal(0.0, self.std, len(events))).astype(np.int64)
        return sort_events(events)


class TimeScale(EventTransform):
    """Play the recording faster or slower; the first event stays where it is.

    Args:
        factor: Least and most factor by which durations are multiplied, above 0; drawn evenly. Default 0.8 to 1.25.
            One number fixes it.

    Raises:
        InputError: Not two numbers from 0.001 to 1000, the smaller first.
        InputTypeError: Not numbers.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> recording = events.make_events([1000, 2000, 3000], [0, 1, 2], [0, 0, 0], [1, 1, 1])
        >>> events.TimeScale(factor=1.5)(recording, np.random.default_rng(0))["t"].tolist()
        [1000, 2500, 4000]
    """

    def __init__(self, factor: tuple[float, float] | float = (0.8, 1.25)) -> None:
        self.factor = check_range("factor", factor, 1e-3, 1e3)

    def transform(self, events: EventArray, rng: np.random.Generator) -> EventArray:
        first = events["t"][0]
        events = events.copy()
        events["t"] = first + np.rint((events["t"] - first) * rng.uniform(*self.factor)).astype(np.int64)
        return events


class PolarityFlip(EventTransform):
    """Turn ON into OFF and OFF into ON, with probability p: of the whole recording, or of every event on its own.

    Args:
        p: Probability, default 0.5.
        each: Draw for every event; default False: for the recording.

    Raises:
        InputError: Not a probability.
        InputTypeError: Not a number.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> recording = events.make_events([0, 1], [0, 0], [0, 0], [1, 0])
        >>> events.PolarityFlip(p=1.0)(recording, np.random.default_rng(0))["p"].tolist()
        [False, True]
    """

    def __init__(self, p: float = 0.5, each: bool = False) -> None:
        self.p = check_probability("p", p)
        self.each = each

    def transform(self, events: EventArray, rng: np.random.Generator) -> EventArray:
        events = events.copy()
        events["p"] ^= rng.uniform(size=len(events) if self.each else 1) < self.p
        return events


# ------------------------------------------------------------ of others


class WithProbability(EventTransform):
    """Another augmentation, with probability p; else the events as they are.

    Args:
        augmentation: The other.
        p: Probability, default 0.5.

    Raises:
        InputError: Not a probability.
        InputTypeError: Not an event transform, not a number.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> recording, rng = events.make_events(range(10), [0] * 10, [0] * 10, [1] * 10), np.random.default_rng(0)
        >>> half = events.WithProbability(events.DropEvents(ratio=0.5), p=0.5)
        >>> sorted({len(half(recording, rng)) for _ in range(20)})
        [5, 10]
    """

    def __init__(self, augmentation: EventTransform, p: float = 0.5) -> None:
        (self.augmentation,) = check_items("augmentation", [augmentation], EventTransform)
        self.p = check_probability("p", p)

    def transform(self, events: EventArray, rng: np.random.Generator) -> EventArray:
        return self.augmentation(events, rng) if rng.uniform() < self.p else events

    def for_sensor(self, sensor_size: Sequence[int]) -> Self:
        own = copy.copy(self)
        own.augmentation = self.augmentation.for_sensor(sensor_size)
        return own


class OneOf(EventTransform):
    """One of several augmentations, each as likely as the others.

    Args:
        augmentations: The others, at least one.

    Raises:
        InputError: None.
        InputTypeError: Not a list of event transforms.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> recording, rng = events.make_events(range(10), [0] * 10, [0] * 10, [1] * 10), np.random.default_rng(0)
        >>> one = events.OneOf([events.DropEvents(ratio=0.5), events.DropEvents(ratio=0.2)])
        >>> sorted({len(one(recording, rng)) for _ in range(20)})
        [5, 8]
    """

    def __init__(self, augmentations: Sequence[EventTransform]) -> None:
        self.augmentations = check_items("augmentations", augmentations, EventTransform)

    def transform(self, events: EventArray, rng: np.random.Generator) -> EventArray:
        return self.augmentations[rng.integers(len(self.augmentations))](events, rng)

    def for_sensor(self, sensor_size: Sequence[int]) -> Self:
        own = copy.copy(self)
        own.augmentations = tuple(augmentation.for_sensor(sensor_size) for augmentation in self.augmentations)
        return own


class EventMix(_OnSensor, Parameterized):
    """Mix two recordings by a random mask in space and time, and their labels in proportion.

    Both recordings begin at the same time. A share λ of the volume (height, width, duration), drawn from a beta
    distribution, keeps the events of the first; in the rest are those of the other. The border between them is a level
    of a sum of two to four Gaussians with random weights, centres and widths. With r1 and r2 as the shares of either
    recording's events that are left, the label is r1 / (r1 + r2) the first's and the rest the other's.

    In a datamodule's ``event_transforms`` the other recording is drawn from the training set, and labels become vectors
    of shares.

    Args:
        alpha: Both parameters of λ's beta distribution, above 0; default 1: every λ is as likely.
        p: Probability to mix at all, default 1.
        sensor_size: (height, width); None (default): the datamodule's.

    Raises:
        InputError: ``alpha`` is not finite and above 0, ``p`` not a probability; no such size.
        InputTypeError: Not numbers.

    Source: Shen, Zhao and Zeng, "EventMix: an efficient data augmentation strategy for event-based learning",
    Information Sciences 644, 2023. (There the mask is drawn on frames; here it is evaluated at every event.)

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> rng = np.random.default_rng(0)
        >>> first, other = (
        ...     events.make_events(range(1000), rng.integers(0, 32, 1000), rng.integers(0, 32, 1000), [on] * 1000)
        ...     for on in (True, False)
        ... )
        >>> mixed, share = events.EventMix(sensor_size=(32, 32))(first, other, rng)
        >>> kept = int(mixed["p"].sum())
        >>> round(share - kept / len(mixed), 9), 0 < kept < 1000
        (0.0, True)
    """

    def __init__(self, alpha: float = 1.0, p: float = 1.0, sensor_size: tuple[int, int] | None = None) -> None:
        self._keep_size(sensor_size)
        self.alpha = check_number("alpha", alpha, above=0)
        self.p = check_probability("p", p)

    def __call__(
        self, events: npt.NDArray[Any], other: npt.NDArray[Any], rng: np.random.Generator
    ) -> tuple[EventArray, float]:
        """Mix.

        Args:
            events: Events ``[N]`` sorted by time.
            other: Events ``[M]`` sorted by time, of the same sensor.
            rng: Source of every draw.

        Returns:
            The mixed events, sorted, from the first event's time on; and the share of ``events`` in the label, 0 to 1.

        Raises:
            InputError: Events outside the sensor.
            InputTypeError: Not event arrays, not a generator.
        """
        check_generator(rng)
        events, other = check_events(events, self.size), check_events(other, self.size)
        if rng.uniform() >= self.p or not len(events) or not len(other):
            return events, 1.0
        other = other.copy()
        other["t"] += events["t"][0] - other["t"][0]
        duration = max(int(max(events["t"][-1], other["t"][-1]) - events["t"][0]), 1)
        gaussians = _Gaussians(rng)
        axis = (np.arange(_MASK_GRID) + 0.5) / _MASK_GRID
        level = np.quantile(gaussians(*np.meshgrid(axis, axis, axis)), rng.beta(self.alpha, self.alpha))

        def covered(e: EventArray) -> npt.NDArray[np.bool_]:
            height, width = self.size
            return gaussians((e["t"] - events["t"][0]) / duration, e["y"] / height, e["x"] / width) > level

        parts = events[~covered(events)], other[covered(other)]
        left, taken = (len(part) / len(whole) for part, whole in zip(parts, (events, other), strict=True))
        if left + taken == 0:  # a mask between all events
            return events, 1.0
        return sort_events(np.concatenate(parts)), left / (left + taken)


class _Gaussians:
    """A sum of two to four Gaussians in the unit cube."""

    def __init__(self, rng: np.random.Generator) -> None:
        number = int(rng.integers(2, 5))
        self.weights = rng.uniform(size=number)
        self.centres = rng.uniform(size=(number, 3))
        self.widths = 0.5 * np.maximum(rng.uniform(size=(number, 3)), 0.1)

    def __call__(self, *places: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        total: npt.NDArray[np.float64] = np.zeros(places[0].shape)
        for weight, centre, width in zip(self.weights, self.centres, self.widths, strict=True):
            distance = sum(((place - c) / w) ** 2 for place, c, w in zip(places, centre, width, strict=True))
            total += weight * np.exp(-0.5 * distance)
        return total
