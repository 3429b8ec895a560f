"""Frames made on the device that the network runs on: the events travel, 13 bytes each, and not the frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jellyfit.events.array import EVENT_DTYPE, EventArray, outside_error, sort_events
from jellyfit.events.counting import check_frames_fit
from jellyfit.events.frames import Framing, Representation, check_recording
from jellyfit.events.sums import NEVER, EventSums

__all__ = ["DeviceSums", "frames_on_device"]


class DeviceSums(EventSums):
    """The sums over events as tensors on a device, equal to those of the host.

    Args:
        events: Events ``[N]`` of :data:`~jellyfit.events.EVENT_DTYPE`, sorted by time.
        sensor_size: (height, width).
        device: Where to, such as ``"cuda"``.

    Raises:
        InputError: Events outside the sensor.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import events
        >>> from jellyfit.frames import DeviceSums
        >>> recording = events.make_events([0, 5, 10], [0, 0, 1], [0, 0, 0], [1, 1, 1])
        >>> DeviceSums(recording, (1, 2), "cpu").count(np.array([[0, 2], [2, 3]]))[:, 1, 0].tolist()
        [[2, 0], [0, 1]]
    """

    xp = torch

    def __init__(self, events: EventArray, sensor_size: tuple[int, int], device: str | torch.device) -> None:
        super().__init__(events, sensor_size)
        self.device = torch.device(device)
        # one copy of the bytes as they lie; the columns are taken apart over there
        raw = np.ascontiguousarray(events).view(np.uint8).reshape(len(events), EVENT_DTYPE.itemsize)
        rows = torch.from_numpy(raw if raw.flags.writeable else raw.copy()).to(self.device)
        self._t = rows[:, :8].flatten().view(torch.int64)
        x, y = (rows[:, at].long() | rows[:, at + 1].long() << 8 for at in (8, 10))
        height, width = sensor_size
        if bool(((x >= width) | (y >= height)).any()):
            raise outside_error(events, sensor_size)
        self._place = ((rows[:, 12] != 0).long() * height + y) * width + x
        self._frame = 2 * height * width

    def count(self, slices: npt.NDArray[np.int64]) -> Tensor:
        shape = check_frames_fit(len(slices), 2, self.sensor_size)
        at, _ = self._in_slices(slices)
        counts = torch.zeros(len(slices) * self._frame, dtype=torch.int64, device=self.device)
        counts.scatter_add_(0, at, torch.ones_like(at))
        largest = int(counts.max())
        dtype = next(d for d in (torch.uint8, torch.uint16, torch.uint32) if largest < 2 ** (8 * d.itemsize))
        return counts.view(shape).to(dtype)

    def latest(self, slices: npt.NDArray[np.int64], carry: bool) -> Tensor:
        shape = check_frames_fit(len(slices), 2, self.sensor_size, itemsize=8)
        at, times = self._in_slices(slices)
        out = torch.full((len(slices) * self._frame,), NEVER, dtype=torch.int64, device=self.device)
        out = out.scatter_reduce_(0, at, times, "amax").view(shape)
        return out.cummax(0).values if carry else out

    def voxels(self, bins: int) -> Tensor:
        shape = self._check_voxels(bins)
        out = torch.zeros(bins * self._frame, dtype=torch.int64, device=self.device)
        if len(self.events):
            position, span = (bins - 1) * (self._t - self._t[0]), self.span()
            at = position.div(span, rounding_mode="floor")
            rest = position - at * span
            out.scatter_add_(0, at * self._frame + self._place, span - rest)
            # behind the last instant lies nothing: what is added there is 0
            out.scatter_add_(0, (at + 1).clamp_(max=bins - 1) * self._frame + self._place, rest)
        return out.view(shape)

    def column(self, values: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values.copy()).to(self.device).view(-1, 1, 1, 1)

    def matrix(self, values: npt.NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def cast(self, values: Tensor, dtype: str) -> Tensor:
        return values.to(getattr(torch, dtype))

    def _in_slices(self, slices: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Of every event in every slice (they may overlap): where it falls in all frames laid flat, and its time."""
        bounds = torch.from_numpy(np.array(slices)).to(self.device)
        lengths = bounds[:, 1] - bounds[:, 0]
        which = torch.repeat_interleave(torch.arange(len(slices), device=self.device), lengths)
        within = torch.arange(len(which), device=self.device) - (lengths.cumsum(0) - lengths)[which]
        event = bounds[:, 0][which] + within
        return which * self._frame + self._place[event], self._t[event]


def frames_on_device(
    events: npt.NDArray[Any],
    framing: Framing,
    sensor_size: Sequence[int],
    device: str | torch.device,
    *,
    empty: Literal["error", "zeros"] = "error",
) -> Tensor:
    """Integrate events to frames on a device: :func:`jellyfit.events.to_frames`, of equal result.

    The events are copied there and added up there. Counts and voxels are whole numbers and so the same to the last
    bit; exponentials and normalised grids may differ in the last digits of float32. A framing that is no
    :class:`~jellyfit.events.Representation` (one's own ``frames``, a custom function) is made on the host and copied.

    Args:
        events: Structured array ``[N]`` with fields t (µs), x, y, p. Unsorted times are sorted first, with a warning.
        framing: Which events make which frame.
        sensor_size: (height, width) in pixels.
        device: Where to, such as ``"cuda"``; it must know float64, unless frames are counts.
        empty: What to do with a recording without events: ``"error"`` (default) or ``"zeros"``.

    Returns:
        Frames ``[T, C, H, W]`` on the device, of the dtype that ``to_frames`` gives.

    Raises:
        InputError: As ``to_frames``: no events, events outside the sensor, frames larger than 16 GiB.
        InputTypeError: Not an event array, not a framing.

    Warns:
        EventWarning: The events were not sorted by time.

    Examples:
        >>> from jellyfit import events
        >>> from jellyfit.frames import frames_on_device
        >>> recording = events.make_events([0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0])
        >>> frames = frames_on_device(recording, events.FixedNumber(T=2), (1, 2), "cpu")
        >>> frames.dtype, frames[:, :, 0].tolist()
        (torch.uint8, [[[0, 0], [2, 0]], [[0, 1], [0, 1]]])
    """
    events, size = check_recording(events, framing, sensor_size, empty)
    events = sort_events(events, warn=True)
    if isinstance(framing, Representation):
        frames: Tensor = framing.build(DeviceSums(events, size, device))
        return frames
    return torch.as_tensor(framing.frames(events, size)).to(device)
