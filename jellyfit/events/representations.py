"""Frames that say more, or less, than how many events of either polarity there were.

Each is a :class:`~jellyfit.events.Framing` for :func:`~jellyfit.events.to_frames` and for the datamodules' ``frames``.
How many channels its frames have stands in its ``channels``; the network's first layer takes as many.
"""

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from jellyfit.errors import InputError, InputTypeError
from jellyfit.events.frames import Representation, Slicing, positive_integer
from jellyfit.events.sums import EventSums

__all__ = ["CountsAndTimes", "MergedCounts", "Resized", "TimeSurface", "VoxelGrid"]


class MergedCounts(Representation):
    """Counts of both polarities in one channel: their sum, or ON minus OFF.

    Args:
        slicing: Which events make which frame, such as ``FixedNumber(T=16)``.
        mode: ``"sum"`` (default): frames ``[T, 1, H, W]`` of the narrowest of uint8, uint16 and uint32 that holds the
            counts; every event counts. ``"signed"``: ON minus OFF as int16, int32 or int64; opposite events cancel.

    Raises:
        InputError: Another mode.
        InputTypeError: Not a slicing.

    Examples:
        >>> from jellyfit import events
        >>> recording = events.make_events([0, 1, 2], [0, 0, 0], [0, 0, 0], [1, 0, 0])
        >>> for mode in ("sum", "signed"):
        ...     frames = events.to_frames(recording, events.MergedCounts(events.FixedNumber(T=1), mode), (1, 2))
        ...     print(frames.tolist(), frames.dtype)
        [[[[3, 0]]]] uint8
        [[[[-1, 0]]]] int16
    """

    channels = 1

    def __init__(self, slicing: Slicing, mode: Literal["sum", "signed"] = "sum") -> None:
        if mode not in ("sum", "signed"):
            raise InputError(f"mode must be 'sum' or 'signed' (ON minus OFF); got {mode!r}.")
        self.slicing = _check_slicing(slicing)
        self.mode = mode

    def build(self, sums: EventSums) -> Any:
        """See the class."""
        counts = sums.count(self.slicing.slices(sums.events))
        width = 8 * counts.dtype.itemsize
        wide = sums.cast(counts, "int64")
        if self.mode == "signed":
            return sums.cast(wide[:, 1:] - wide[:, :1], f"int{2 * width}")
        total = wide[:, 1:] + wide[:, :1]
        return sums.cast(total, f"uint{width if int(total.max()) < 2**width else 2 * width}")


class VoxelGrid(Representation):
    """Events shared between the two nearest of T instants (bilinear in time), float32.

    The instants lie evenly from the first event to the last. An event at ``t`` has the place
    ``t' = (T - 1) (t - t_first) / (t_last - t_first)`` among them and adds ``max(0, 1 - |j - t'|)`` to instant j at its
    pixel. The shares are added up as whole numbers, so the result does not depend on the order of events, and no event
    is lost: with two channels the grid sums to N. With T = 1, or when all events have one time, they fall into the
    first instant.

    Args:
        T: Number of instants, at least 1.
        channels: 1 (default): ON events add, OFF events subtract, as in the paper; 2: channel 0 = OFF, 1 = ON.
        normalize: Bring the values that are not 0 to mean 0 and standard deviation 1, those of one recording together.
            Default False.

    Raises:
        InputError: T is less than 1, or another number of channels.
        InputTypeError: T is not an integer.

    Source: Zhu, Yuan, Chaney and Daniilidis, "Unsupervised event-based learning of optical flow, depth, and
    egomotion", CVPR 2019. Normalisation: Rebecq et al., "High speed and high dynamic range video with an event
    camera", 2019.

    Examples:
        >>> from jellyfit import events
        >>> recording = events.make_events([0, 25, 100], [0, 1, 0], [0, 0, 0], [1, 1, 1])
        >>> events.to_frames(recording, events.VoxelGrid(T=3), (1, 2)).tolist()
        [[[[1.0, 0.5]]], [[[0.0, 0.5]]], [[[1.0, 0.0]]]]
    """

    def __init__(self, T: int, channels: Literal[1, 2] = 1, normalize: bool = False) -> None:
        self.T = positive_integer("T", T, "instants", "T=5 is usual for voxel grids")
        if channels not in (1, 2):
            raise InputError(f"channels must be 1 (ON minus OFF) or 2 (OFF, ON); got {channels!r}.")
        self.channels = channels
        self.normalize = normalize

    def build(self, sums: EventSums) -> Any:
        """See the class."""
        shares = sums.voxels(self.T)
        if self.channels == 1:
            shares = shares[:, 1:] - shares[:, :1]
        grid = sums.cast(shares, "float64") / sums.span()
        if self.normalize:
            grid = _normalized(grid, sums)
        return sums.cast(grid, "float32")


class TimeSurface(Representation):
    """How long ago the last event was: ``exp(-(t_end - t_last) / τ)`` per pixel and polarity, float32.

    Frame j looks back from the end of slice j at the latest event of every pixel and polarity up to then, in this
    slice or an earlier one. Values are in [0, 1]: 1 for an event at this moment, 0 where there was none so far. Slices
    of equal duration end on time, others with their last event.

    Args:
        slicing: Which events make which frame; channel 0 = OFF, 1 = ON.
        tau: Time constant τ in µs, above 0. Default 50,000 (50 ms).

    Raises:
        InputError: τ is not above 0, or above 10^15; later, slices that do not follow each other in time.
        InputTypeError: Not a slicing, or τ is not a number.

    Source: Lagorce, Orchard, Galluppi, Shi and Benosman, "HOTS: a hierarchy of event-based time-surfaces for pattern
    recognition", IEEE TPAMI 39, 2017 (there one surface an event, of its neighbourhood; here one a slice, of all
    pixels).

    Examples:
        >>> from jellyfit import events
        >>> recording = events.make_events([0, 1000, 2000], [0, 1, 2], [0, 0, 0], [1, 1, 1])
        >>> surface = events.TimeSurface(events.FixedNumber(T=1), tau=1000.0)
        >>> [round(float(value), 4) for value in events.to_frames(recording, surface, (1, 4))[0, 1, 0]]
        [0.1353, 0.3679, 1.0, 0.0]
    """

    def __init__(self, slicing: Slicing, tau: float = 50_000.0) -> None:
        if isinstance(tau, bool) or not isinstance(tau, int | float | np.integer | np.floating):
            raise InputTypeError(f"tau must be a number, the time constant in µs; got {tau!r}.")
        if not 0 < tau <= 1e15:
            raise InputError(f"tau must be above 0 and at most 1e15, in µs (50 ms are tau=50000); got {tau}.")
        self.slicing = _check_slicing(slicing)
        self.tau = float(tau)

    def build(self, sums: EventSums) -> Any:
        """See the class."""
        ends = self.slicing.windows(sums.events)[:, 1]
        if (ends[1:] < ends[:-1]).any():
            raise InputError(f"{self!r} looks back in time: no slice may end before the one in front of it.")
        surface = sums.cast(sums.latest(self.slicing.slices(sums.events), carry=True), "float64")
        surface -= sums.cast(sums.column(ends), "float64")  # where nothing happened, so long ago that exp gives 0
        surface /= self.tau
        surface = sums.cast(surface, "float32")
        return sums.xp.exp(surface, out=surface)


class CountsAndTimes(Representation):
    """Counts and latest times of either polarity in four channels, float32.

    Channels 0 and 1 count the OFF and ON events of the slice; 2 and 3 say when in the slice the latest of them was:
    from 0 at its start to 1 at its end, and 0 where there was none. No event is lost: the first two channels sum to N
    where the slicing loses none.

    Args:
        slicing: Which events make which frame.

    Raises:
        InputTypeError: Not a slicing.

    Source: Zhu, Yuan, Chaney and Daniilidis, "EV-FlowNet: self-supervised optical flow estimation for event-based
    cameras", RSS 2018.

    Examples:
        >>> from jellyfit import events
        >>> recording = events.make_events([0, 50, 75, 100], [0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 0])
        >>> frames = events.to_frames(recording, events.CountsAndTimes(events.FixedNumber(T=1)), (1, 2))
        >>> frames[0, :, 0].tolist()
        [[1.0, 0.0], [1.0, 2.0], [1.0, 0.0], [0.0, 0.75]]
    """

    channels = 4

    def __init__(self, slicing: Slicing) -> None:
        self.slicing = _check_slicing(slicing)

    def build(self, sums: EventSums) -> Any:
        """See the class."""
        slices, windows = self.slicing.slices(sums.events), self.slicing.windows(sums.events)
        end, length = windows[:, 1], np.maximum(windows[:, 1] - windows[:, 0], 1)
        times = sums.cast(sums.latest(slices, carry=False), "float64")
        times -= sums.cast(sums.column(end), "float64")
        times /= sums.cast(sums.column(length), "float64")
        times += 1.0  # far below 0 where nothing happened
        parts = [sums.cast(sums.count(slices), "float32"), sums.cast(times, "float32").clip(0.0)]
        return sums.xp.concatenate(parts, 1)


class Resized(Representation):
    """Another representation's frames with another height and width, float32: pixels are averaged by area.

    A pixel of the result is the mean of the pixels that it covers, each weighted with the part of it that is covered;
    where frames grow, pixels are repeated. The mean over a frame stays what it was.

    Args:
        framing: Makes the frames, such as ``FixedNumber(T=10)``.
        size: (height, width) of the result in pixels, at least 1.

    Raises:
        InputError: A side below 1.
        InputTypeError: Not a representation, or sides that are not integers.

    Examples:
        >>> from jellyfit import events
        >>> recording = events.make_events([0, 1, 2], [0, 1, 3], [0, 1, 0], [1, 1, 0])
        >>> half = events.Resized(events.FixedNumber(T=1), size=(1, 2))
        >>> events.to_frames(recording, half, (2, 4)).tolist()  # OFF, ON
        [[[[0.0, 0.25]], [[0.5, 0.0]]]]
    """

    def __init__(self, framing: Representation, size: tuple[int, int]) -> None:
        if not isinstance(framing, Representation):
            raise InputTypeError(f"framing must be a Representation such as FixedNumber(T=10); got {framing!r}.")
        if not isinstance(size, tuple | list) or len(size) != 2:
            raise InputTypeError(f"size must be (height, width), such as (48, 48); got {size!r}.")
        self.framing = framing
        height, width = (positive_integer("size", side, "pixels", "size=(48, 48)") for side in size)
        self.size = height, width
        self.channels = framing.channels

    def build(self, sums: EventSums) -> Any:
        """See the class."""
        frames = sums.cast(self.framing.build(sums), "float64")
        rows, columns = (
            sums.matrix(_shares_of_area(given, wanted))
            for given, wanted in zip(sums.sensor_size, self.size, strict=True)
        )
        return sums.cast(rows @ (frames @ columns.T), "float32")


def _shares_of_area(given: int, wanted: int) -> npt.NDArray[np.float64]:
    """``[wanted, given]``: how much of pixel i of the result is pixel j of the original; rows sum to 1."""
    edges, pixels = np.arange(wanted + 1) * given, np.arange(given) * wanted  # in 1 / (given * wanted), exact
    left, right = np.maximum(edges[:-1, None], pixels), np.minimum(edges[1:, None], pixels + wanted)
    shares: npt.NDArray[np.float64] = np.maximum(right - left, 0) / given
    return shares


def _normalized(grid: Any, sums: EventSums) -> Any:
    """The values that are not 0 with mean 0 and standard deviation 1 (1 is taken where all are alike)."""
    present = sums.cast(grid != 0, "float64")
    count = max(float(present.sum()), 1.0)
    centred = (grid - float(grid.sum()) / count) * present
    deviation = math.sqrt(float((centred * centred).sum()) / count)
    return centred / (deviation if deviation > 0 else 1.0)


def _check_slicing(slicing: Slicing) -> Slicing:
    if not isinstance(slicing, Slicing):
        raise InputTypeError(
            f"slicing must be a Slicing such as FixedNumber(T=16) or FixedDuration(10000); got {slicing!r}."
        )
    return slicing
