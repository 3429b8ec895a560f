"""Integrate events to frames.

A :class:`Framing` says which events make which frame, :func:`to_frames` applies it. To slice in a way of your own,
subclass :class:`Slicing` and write ``slices``, or give a function to :class:`CustomSlices`; to make frames that are no
counts, take one of ``jellyfit.events.representations``, subclass :class:`Framing` and write ``frames``, or give a
function to :class:`CustomFrames`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from jellyfit.errors import InputError, InputTypeError
from jellyfit.events.array import EventArray, check_events, check_sensor_size, sort_events
from jellyfit.events.counting import count_events
from jellyfit.events.parameters import Parameterized
from jellyfit.events.sums import EventSums, HostSums

__all__ = [
    "CustomFrames",
    "CustomSlices",
    "FixedDuration",
    "FixedNumber",
    "Framing",
    "Representation",
    "Slicing",
    "to_frames",
]

_MOST_FRAMES = 2**20  # a mistaken unit of time should not take all memory


class Framing(Parameterized, ABC):
    """How events become frames. Compares and pickles by its parameters; :meth:`key` names it in a cache.

    Attributes:
        channels: Channels C of a frame; 2 unless a subclass says otherwise. A network takes as many.

    Examples:
        >>> import numpy as np
        >>> from jellyfit.events import Framing, make_events, to_frames
        >>> class LatestTime(Framing):
        ...     def frames(self, events, sensor_size):
        ...         surface = np.zeros((1, 2, *sensor_size))
        ...         surface[0, events["p"].astype(int), events["y"], events["x"]] = events["t"]
        ...         return surface
        >>> to_frames(make_events(t=[7], x=[1], y=[0], p=[1]), LatestTime(), (1, 2))[0, 1].tolist()
        [[0.0, 7.0]]
    """

    channels: int = 2
    _needs_order: ClassVar[bool] = (
        True  # False: works on unsorted events too, and the pass that counts checks the order
    )

    @abstractmethod
    def frames(self, events: EventArray, sensor_size: tuple[int, int]) -> npt.NDArray[Any]:
        """Make the frames of one recording. Called by :func:`to_frames`, which checks and sorts first.

        Args:
            events: Events ``[N]`` sorted by time. N = 0 only if the caller of :func:`to_frames` allows it.
            sensor_size: (height, width).

        Returns:
            Frames ``[T, C, H, W]`` of C = :attr:`channels`.
        """


class Representation(Framing):
    """A framing that is a formula over sums of events. Subclasses write :meth:`build`.

    The formula works on the host and, through ``jellyfit.frames.frames_on_device``, on any device of PyTorch.

    Examples:
        >>> from jellyfit import events
        >>> class AnyEvent(events.Representation):
        ...     def build(self, sums):
        ...         return sums.count(events.FixedNumber(T=1).slices(sums.events)) > 0
        >>> recording = events.make_events([0, 1, 2], [0, 0, 1], [0, 0, 0], [1, 1, 0])
        >>> events.to_frames(recording, AnyEvent(), (1, 2)).tolist()
        [[[[False, True]], [[True, False]]]]
    """

    @abstractmethod
    def build(self, sums: EventSums) -> Any:
        """Frames ``[T, C, H, W]`` from the sums over one recording, as an array of the module ``sums.xp``."""

    def frames(self, events: EventArray, sensor_size: tuple[int, int]) -> npt.NDArray[Any]:
        """Make the frames of one recording on the host; see :func:`to_frames`."""
        frames: npt.NDArray[Any] = self.build(HostSums(events, sensor_size))
        return frames


class Slicing(Representation):
    """A framing whose frame j counts the events of slice j. Subclasses write :meth:`slices`.

    Examples:
        >>> from jellyfit.events import Slicing, make_events, to_frames
        >>> class Halves(Slicing):
        ...     def slices(self, events):
        ...         return [(0, len(events) // 2), (len(events) // 2, len(events))]
        >>> to_frames(make_events(t=[1, 2, 3], x=[0, 0, 0], y=[0, 0, 0], p=[1, 1, 1]), Halves(), (1, 1))[:, 1].flatten()
        array([1, 2], dtype=uint8)
    """

    @abstractmethod
    def slices(self, events: EventArray) -> npt.NDArray[np.int64]:
        """Choose the slices.

        Args:
            events: Events ``[N]`` sorted by time.

        Returns:
            ``[T, 2]``, for each slice the index of its first event and the one behind its last; equal when empty.
        """

    def windows(self, events: EventArray) -> npt.NDArray[np.int64]:
        """When slices begin and end, for representations that look at times.

        Args:
            events: Events ``[N]`` sorted by time.

        Returns:
            ``[T, 2]``, start and end of each slice in µs. Unless a subclass knows better: the times of its first and
            last event, and for an empty slice the end of the one in front (of the first: the recording's beginning).
        """
        windows = np.zeros((len(slices := self.slices(events)), 2), np.int64)
        last = int(events["t"][0]) if len(events) else 0
        for j, (start, stop) in enumerate(slices.tolist()):
            windows[j] = (events["t"][start], events["t"][stop - 1]) if stop > start else (last, last)
            last = windows[j, 1]
        return windows

    def build(self, sums: EventSums) -> Any:
        """Count the events of every slice."""
        return sums.count(self.slices(sums.events))

    def frames(self, events: EventArray, sensor_size: tuple[int, int]) -> npt.NDArray[Any]:
        """Count the events of every slice; see :func:`to_frames`."""
        frames = self._count(events, sensor_size)
        if frames is None:
            raise InputError(
                "The events are not sorted by time. Call to_frames, which sorts them, or sort_events first."
            )
        return frames

    def _count(self, events: EventArray, sensor_size: tuple[int, int]) -> npt.NDArray[Any] | None:
        slices = _check_slices(self.slices(events), len(events), f"{type(self).__name__}.slices")
        return count_events(events, slices, sensor_size)


class FixedNumber(Slicing):
    """T frames, whatever the length of the recording.

    With ``split_by="number"`` every slice has floor(N / T) events and the last one takes the rest (all of them when
    N < T). With ``split_by="time"`` every slice lasts floor((t_last - t_first) / T) µs and the last one takes the
    rest; a slice in which nothing happened is a frame of zeros. These are the rules of SpikingJelly (Fang et al.,
    2023), where an empty slice is an error.

    Args:
        T: Number of frames, at least 1.
        split_by: ``"number"`` (default) or ``"time"``.

    Raises:
        InputError: T is less than 1 or above 2**20, or ``split_by`` is neither.
        InputTypeError: T is not an integer.

    Examples:
        >>> from jellyfit.events import FixedNumber, make_events, to_frames
        >>> events = make_events(t=[0, 1, 2, 90, 99], x=[0] * 5, y=[0] * 5, p=[1] * 5)
        >>> to_frames(events, FixedNumber(T=2), (1, 1))[:, 1].flatten().tolist()
        [2, 3]
        >>> to_frames(events, FixedNumber(T=2, split_by="time"), (1, 1))[:, 1].flatten().tolist()
        [3, 2]
    """

    _needs_order = False

    def __init__(self, T: int, split_by: Literal["number", "time"] = "number") -> None:
        self.T = positive_integer("T", T, "frames", "T=16 is usual for event cameras")
        if self.T > _MOST_FRAMES:
            raise InputError(f"T must be at most {_MOST_FRAMES} frames; got {T}.")
        if split_by not in ("number", "time"):
            raise InputError(
                f"split_by must be 'number' (slices of equally many events) or 'time' (slices of equal duration); "
                f"got {split_by!r}."
            )
        self.split_by = split_by

    def slices(self, events: EventArray) -> npt.NDArray[np.int64]:
        """See :meth:`Slicing.slices`; no event is left out."""
        if self.split_by == "number" or not len(events):
            starts = np.arange(self.T, dtype=np.int64) * (len(events) // self.T)
        else:
            starts = _time_starts(events["t"], _span(events["t"]) // self.T, self.T)
        return _contiguous(starts, len(events))

    def windows(self, events: EventArray) -> npt.NDArray[np.int64]:
        """See :meth:`Slicing.windows`; slices of equal duration begin and end on time, with events or without."""
        if self.split_by == "number" or not len(events):
            return super().windows(events)
        first, last = int(events["t"][0]), int(events["t"][-1])
        return _contiguous(first + (last - first) // self.T * np.arange(self.T, dtype=np.int64), last)


class FixedDuration(Slicing):
    """Frames of equal duration; T = floor((t_last - t_first) / duration) + 1 differs between recordings.

    Slice j holds the events with j * duration <= t - t_first < (j + 1) * duration. A recording without events, where
    it is allowed, gives one frame of zeros.

    Args:
        duration: Duration of a frame in µs, at least 1.

    Raises:
        InputError: The duration is less than 1; later, a recording that would make more than 2**20 frames.
        InputTypeError: The duration is not an integer.

    Examples:
        >>> from jellyfit.events import FixedDuration, make_events, to_frames
        >>> events = make_events(t=[0, 1, 2, 90, 99], x=[0] * 5, y=[0] * 5, p=[1] * 5)
        >>> to_frames(events, FixedDuration(40), (1, 1))[:, 1].flatten().tolist()
        [3, 0, 2]
    """

    _needs_order = False

    def __init__(self, duration: int) -> None:
        self.duration = positive_integer("duration", duration, "µs", "10 ms are duration=10000")

    def slices(self, events: EventArray) -> npt.NDArray[np.int64]:
        """See :meth:`Slicing.slices`; no event is left out."""
        if not len(events):
            return np.zeros((1, 2), np.int64)
        span = _span(events["t"])
        T = span // self.duration + 1
        if T > _MOST_FRAMES:
            raise InputError(
                f"duration={self.duration} µs cuts a recording of {span} µs into {T} frames, more than {_MOST_FRAMES}. "
                "Give a longer duration; if the recording should be shorter, check its times (they are in µs)."
            )
        return _contiguous(_time_starts(events["t"], self.duration, T), len(events))

    def windows(self, events: EventArray) -> npt.NDArray[np.int64]:
        """See :meth:`Slicing.windows`; every slice lasts :attr:`duration`."""
        starts = self.duration * np.arange(len(self.slices(events)), dtype=np.int64)
        if len(events):
            starts += int(events["t"][0])
        return np.stack([starts, starts + self.duration], axis=1)


class CustomSlices(Slicing):
    """Slices chosen by a function of yours. They may overlap or leave events out.

    Args:
        function: Takes events ``[N]`` sorted by time, returns integers: either ``[T, 2]``, the index of each slice's
            first event and the one behind its last, or ``[T + 1]`` ascending boundaries of T adjoining slices. In
            YAML give its dotted path; for worker processes it must be a function of a module, no lambda.

    Raises:
        InputTypeError: Not a function.

    Examples:
        >>> from jellyfit.events import CustomSlices, make_events, to_frames
        >>> events = make_events(t=[0, 1, 2, 3], x=[0] * 4, y=[0] * 4, p=[1] * 4)
        >>> to_frames(events, CustomSlices(lambda events: [[0, 3], [1, 4]]), (1, 1))[:, 1].flatten().tolist()
        [3, 3]
    """

    def __init__(self, function: Callable[[npt.NDArray[Any]], Any]) -> None:
        self.function = _check_function(function, "events -> slices [T, 2] or boundaries [T + 1]")

    def slices(self, events: EventArray) -> npt.NDArray[np.int64]:
        """See :meth:`Slicing.slices`."""
        return _check_slices(self.function(events), len(events), f"The function of {self!r}")


class CustomFrames(Framing):
    """Frames made by a function of yours.

    Args:
        function: Takes events ``[N]`` sorted by time and the sensor size (height, width), returns frames
            ``[T, C, H, W]`` of booleans, integers or floats, all finite. In YAML give its dotted path; for worker
            processes it must be a function of a module, no lambda.
        channels: C, default 2.

    Raises:
        InputError: Fewer than one channel.
        InputTypeError: Not a function, or ``channels`` is not an integer.

    Examples:
        >>> import numpy as np
        >>> from jellyfit.events import CustomFrames, make_events, to_frames
        >>> events = make_events(t=[0], x=[0], y=[0], p=[1])
        >>> to_frames(events, CustomFrames(lambda events, size: np.ones((3, 2, *size))), (4, 5)).shape
        (3, 2, 4, 5)
    """

    def __init__(
        self, function: Callable[[npt.NDArray[Any], tuple[int, int]], npt.NDArray[Any]], channels: int = 2
    ) -> None:
        self.function = _check_function(function, "(events, sensor_size) -> frames [T, C, H, W]")
        self.channels = positive_integer("channels", channels, "channels of a frame", "ON and OFF are channels=2")

    def frames(self, events: EventArray, sensor_size: tuple[int, int]) -> npt.NDArray[Any]:
        """Call the function and check what it returns: type and shape (InputTypeError, InputError), finite values."""
        check_events(events, sensor_size)
        frames = self.function(events, sensor_size)
        expected = f"frames [T, {self.channels}, {sensor_size[0]}, {sensor_size[1]}] with T of at least 1"
        if not isinstance(frames, np.ndarray) or frames.dtype.kind not in "biuf":
            given = f"an array of {frames.dtype}" if isinstance(frames, np.ndarray) else type(frames).__name__
            raise InputTypeError(f"The function of {self!r} must return {expected}, a NumPy array; got {given}.")
        if frames.ndim != 4 or frames.shape[1:] != (self.channels, *sensor_size) or not len(frames):
            raise InputError(f"The function of {self!r} must return {expected}; got the shape {list(frames.shape)}.")
        if frames.dtype.kind == "f" and not np.isfinite(frames).all():
            bad = np.count_nonzero(~np.isfinite(frames))
            raise InputError(f"The function of {self!r} returned {bad} values that are NaN or infinite.")
        return frames


def to_frames(
    events: npt.NDArray[Any],
    framing: Framing,
    sensor_size: Sequence[int],
    *,
    empty: Literal["error", "zeros"] = "error",
) -> npt.NDArray[Any]:
    """Integrate events to frames: with a slicing ``frames[j, p, y, x]`` counts the events of slice j at (x, y).

    No event is lost: with :class:`FixedNumber` and :class:`FixedDuration` the frames sum to N. Fewer events than
    frames, many events at one instant and slices without events are all legal.

    Args:
        events: Structured array ``[N]`` with fields t (µs), x, y, p, as :func:`~jellyfit.events.check_events` takes
            it. Unsorted times are sorted first (stable), with a warning.
        framing: Which events make which frame.
        sensor_size: (height, width) in pixels.
        empty: What to do with a recording without events: ``"error"`` (default), or ``"zeros"`` for frames of zeros
            (T of them, or one where T depends on the recording; a custom function is called and decides).

    Returns:
        Frames ``[T, C, H, W]`` of C = ``framing.channels``. Of a slicing: counts, channel 0 = OFF, 1 = ON, uint8, or
        uint16 or uint32 where a count needs it; of other framings: see there.

    Raises:
        InputError: No events (unless ``empty="zeros"``), events outside the sensor, frames larger than 16 GiB, a
            custom function whose result does not fit, ``empty`` or ``sensor_size`` not as above.
        InputTypeError: Not an event array, not a framing.

    Warns:
        EventWarning: The events were not sorted by time; counts them.

    Examples:
        >>> from jellyfit.events import FixedNumber, make_events, to_frames
        >>> frames = to_frames(make_events(t=[10, 25], x=[3, 0], y=[1, 1], p=[1, 0]), FixedNumber(T=2), (2, 4))
        >>> frames.shape, frames[0, 1].tolist()
        ((2, 2, 2, 4), [[0, 0, 0, 0], [0, 0, 0, 1]])
    """
    events, size = check_recording(events, framing, sensor_size, empty)
    if isinstance(framing, Slicing) and not framing._needs_order:
        frames = framing._count(events, size)
        if frames is not None:
            return frames  # one pass over the events did everything
    return framing.frames(sort_events(events, warn=True), size)


def check_recording(
    events: npt.NDArray[Any], framing: Framing, sensor_size: Sequence[int], empty: str
) -> tuple[EventArray, tuple[int, int]]:
    """Check the arguments of :func:`to_frames`, all but the order and the coordinates of the events."""
    if not isinstance(framing, Framing):
        raise InputTypeError(f"framing must be a Framing such as FixedNumber(T=16); got {type(framing).__name__}.")
    if empty not in ("error", "zeros"):
        raise InputError(f"empty must be 'error' or 'zeros'; got {empty!r}.")
    size = check_sensor_size(sensor_size)
    events = check_events(events)
    if not len(events) and empty == "error":
        raise InputError(
            "A recording without events cannot be integrated to frames. If that is meant, give empty='zeros' for "
            "frames of zeros; otherwise check the file, or leave the sample out."
        )
    return events, size


def _span(times: npt.NDArray[np.int64]) -> int:
    """Time from the first event to the last in µs; 0 rather than negative for unsorted events."""
    return max(int(times[-1]) - int(times[0]), 0)


def _time_starts(times: npt.NDArray[np.int64], duration: int, T: int) -> npt.NDArray[np.int64]:
    """For each of T slices the index of the first event at or after its start, by binary search for all at once.

    np.searchsorted finds the same, but first copies the column out of the structured array: longer than the counting.
    """
    edges = int(times[0]) + duration * np.arange(T, dtype=np.int64)
    low, high = np.zeros(T, np.int64), np.full(T, len(times), np.int64)
    for _ in range(len(times).bit_length()):
        middle = (low + high) // 2
        later = (times[np.minimum(middle, len(times) - 1)] < edges) & (low < high)
        low, high = np.where(later, middle + 1, low), np.where(later, high, middle)
    low[0] = 0  # already so, unless the events are unsorted: the slices must hold every event for that to be seen
    return low


def _contiguous(starts: npt.NDArray[np.int64], stop: int) -> npt.NDArray[np.int64]:
    return np.stack([starts, np.append(starts[1:], stop)], axis=1)


def _check_slices(slices: Any, N: int, who: str) -> npt.NDArray[np.int64]:
    """Slices [T, 2] from slices or from boundaries [T + 1]."""
    expected = "integers: slices [T, 2] of (start, stop) indices, or [T + 1] boundaries, with T of at least 1"
    array = np.asarray(slices)
    if array.dtype.kind not in "iu":
        raise InputTypeError(f"{who} must return {expected}; got an array of {array.dtype}.")
    if array.ndim == 1 and len(array) > 1:
        array = _contiguous(array[:-1], array[-1])
    if array.ndim != 2 or array.shape[1] != 2 or not len(array):
        raise InputError(f"{who} must return {expected}; got the shape {list(np.shape(slices))}.")
    wrong = (array[:, 0] < 0) | (array[:, 0] > array[:, 1]) | (array[:, 1] > N)
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(
            f"{who} must return slices with 0 <= start <= stop <= N = {N}; slice {first} is "
            f"({array[first, 0]}, {array[first, 1]})."
        )
    return array.astype(np.int64)


def positive_integer(name: str, value: int, unit: str, example: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputTypeError(f"{name} must be an integer, in {unit}; got {value!r} ({example}).")
    if value < 1:
        raise InputError(f"{name} must be at least 1 ({unit}); got {value}. For instance, {example}.")
    return int(value)


def _check_function(function: Any, expected: str) -> Any:
    if not callable(function):
        raise InputTypeError(
            f"function must be a function {expected}; got {function!r}. In YAML, give its dotted path, such as "
            "my_package.my_module.my_function."
        )
    return function
