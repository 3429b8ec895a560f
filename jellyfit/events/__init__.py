"""Events of event cameras: check, read, write, simulate, and integrate to frames.

Events are NumPy structured arrays with the fields t (int64, µs), x, y (uint16) and p (bool, True = ON), sorted by t.
A sensor size is always (height, width). Nothing here needs PyTorch.
"""

from jellyfit.events.array import (
    EVENT_DTYPE,
    EventArray,
    EventWarning,
    check_events,
    check_sensor_size,
    make_events,
    sort_events,
)
from jellyfit.events.files import read_events, write_events
from jellyfit.events.frames import (
    CustomFrames,
    CustomSlices,
    FixedDuration,
    FixedNumber,
    Framing,
    Slicing,
    to_frames,
)
from jellyfit.events.simulate import DVSSimulator, three_saccades

__all__ = [
    "EVENT_DTYPE",
    "CustomFrames",
    "CustomSlices",
    "DVSSimulator",
    "EventArray",
    "EventWarning",
    "FixedDuration",
    "FixedNumber",
    "Framing",
    "Slicing",
    "check_events",
    "check_sensor_size",
    "make_events",
    "read_events",
    "sort_events",
    "three_saccades",
    "to_frames",
    "write_events",
]
