"""Events of event cameras: check, read, write, simulate, augment, and integrate to frames.

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
from jellyfit.events.augment import (
    NDA,
    CutOut,
    DropArea,
    DropEvents,
    DropTime,
    EventDrop,
    EventMix,
    EventTransform,
    HorizontalFlip,
    OneOf,
    PolarityFlip,
    Roll,
    Rotate,
    Shear,
    Shift,
    SpatialJitter,
    SpatialTransform,
    TimeJitter,
    TimeScale,
    WithProbability,
)
from jellyfit.events.cutting import Cut, cut
from jellyfit.events.files import iter_events, read_events, write_events
from jellyfit.events.formats.hdf5 import read_labels
from jellyfit.events.frames import (
    CustomFrames,
    CustomSlices,
    FixedDuration,
    FixedNumber,
    Framing,
    Representation,
    Slicing,
    to_frames,
)
from jellyfit.events.representations import CountsAndTimes, MergedCounts, Resized, TimeSurface, VoxelGrid
from jellyfit.events.simulate import DVSSimulator, three_saccades
from jellyfit.events.summary import Summary, summarize

__all__ = [
    "EVENT_DTYPE",
    "NDA",
    "CountsAndTimes",
    "CustomFrames",
    "CustomSlices",
    "Cut",
    "CutOut",
    "DVSSimulator",
    "DropArea",
    "DropEvents",
    "DropTime",
    "EventArray",
    "EventDrop",
    "EventMix",
    "EventTransform",
    "EventWarning",
    "FixedDuration",
    "FixedNumber",
    "Framing",
    "HorizontalFlip",
    "MergedCounts",
    "OneOf",
    "PolarityFlip",
    "Representation",
    "Resized",
    "Roll",
    "Rotate",
    "Shear",
    "Shift",
    "Slicing",
    "SpatialJitter",
    "SpatialTransform",
    "Summary",
    "TimeJitter",
    "TimeScale",
    "TimeSurface",
    "VoxelGrid",
    "WithProbability",
    "check_events",
    "check_sensor_size",
    "cut",
    "iter_events",
    "make_events",
    "read_events",
    "read_labels",
    "sort_events",
    "summarize",
    "three_saccades",
    "to_frames",
    "write_events",
]
