"""Frames of events, as an event camera's picture is usually drawn."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jellyfit.errors import InputError
from jellyfit.pictures.style import IMAGE, MUTED, WIDTH, as_array, evenly, make_figure, plural, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["as_event_frames", "event_frame_image", "event_frames", "full_brightness"]


def event_frame_image(frame: NDArray[Any], scale: float) -> NDArray[np.uint8]:
    """Colour one event frame: ON events green, OFF events red, both yellow, none black.

    A channel's brightness is ``255 * sqrt(clip(value / scale, 0, 1))``; the root keeps single events visible beside
    pixels with many.

    Args:
        frame: Counts (or other intensities) ``[2, H, W]``; channel 0 is OFF, channel 1 is ON. What is below 0 is drawn
            as 0.
        scale: The value that gets full brightness, > 0.

    Returns:
        An RGB image ``[H, W, 3]``.

    Raises:
        InputError: A wrong shape, values that are not finite, or a scale that is not a finite number above 0.
        InputTypeError: Something that is not an array of numbers.
    """
    array = as_array("frame", frame, ("2", "H", "W"))
    if array.shape[0] != 2:
        raise InputError(
            f"frame: got shape {list(array.shape)}, expected [2, H, W] with channel 0 = OFF, channel 1 = ON events."
        )
    if not (math.isfinite(scale) and scale > 0):
        raise InputError(f"scale: got {scale}, expected a finite number > 0: the value drawn with full brightness.")
    image = np.zeros((*array.shape[1:], 3), np.uint8)
    image[..., :2] = np.moveaxis(np.rint(255 * np.sqrt(np.clip(array / scale, 0, 1))), 0, -1)  # red: OFF, green: ON
    return image


@styled
def event_frames(
    frames: NDArray[Any], *, label: str | int | None = None, max_frames: int = 16, title: str | None = None
) -> Figure:
    """Draw the frames of one event sample as a grid, each with the number of its time step.

    ON events are green, OFF events red, both yellow, on black (see `event_frame_image`). One scale serves the whole
    sample: the 99th percentile of the values above 0, so that a hot pixel does not darken the rest.

    Args:
        frames: Counts (or other intensities) ``[T, 2, H, W]``; channel 0 is OFF, channel 1 is ON.
        label: Class of the sample, written above the grid.
        max_frames: Draw at most so many frames, evenly spaced over the sample; the figure says when some are left out.
        title: Title of the figure.

    Returns:
        A figure of up to 1200 pixels width at 120 dpi.

    Raises:
        InputError: A wrong shape, values that are not finite, or ``max_frames < 1``.
        InputTypeError: Something that is not an array of numbers.
    """
    array = as_event_frames(frames)
    index = evenly(len(array), max_frames, "max_frames")
    scale = full_brightness(array)
    columns = _grid_columns(len(index))
    rows = math.ceil(len(index) / columns)
    width = max(5.0, min(WIDTH, 2.2 * columns))
    tile = min(4.0, (width / columns - 0.2) * array.shape[2] / array.shape[3])
    figure, panels = make_figure(width, 0.4 + 0.35 * (title is not None) + rows * (tile + 0.4), rows, columns, title)
    for axes, step in zip(panels, index, strict=False):
        axes.imshow(event_frame_image(array[step], scale), interpolation="antialiased", **IMAGE)
        axes.set_title(f"step {step}", fontsize=8, color=MUTED, pad=3)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    for axes in panels[len(index) :]:
        axes.remove()
    parts = [] if label is None else [f"label: {label}"]
    parts.append(
        plural(len(array), "step") if len(index) == len(array) else f"{len(index)} of {len(array)} steps drawn"
    )
    parts.append("ON green, OFF red" if (array > 0).any() else "no events")
    figure.supxlabel(textwrap.fill(" · ".join(parts), int(width * 11)), x=0.012, ha="left", fontsize=9, color=MUTED)
    return figure


def as_event_frames(frames: NDArray[Any]) -> NDArray[Any]:
    """Check frames ``[T, 2, H, W]``.

    Raises:
        InputError: A wrong shape, or values that are not finite.
        InputTypeError: Something that is not an array of numbers.
    """
    array = as_array("frames", frames, ("T", "2", "H", "W"))
    if array.shape[1] != 2:
        raise InputError(
            f"frames: got shape {list(array.shape)}, expected [T, 2, H, W] with channel 0 = OFF, channel 1 = ON events."
        )
    return array


def full_brightness(frames: NDArray[Any]) -> float:
    """The value that is drawn with full brightness: the 99th percentile of those above 0; 1 where none is."""
    events = frames[frames > 0]
    return float(np.percentile(events, 99)) if events.size else 1.0


def _grid_columns(count: int) -> int:
    """Return the number of columns, from square to twice as wide as high, that leaves the fewest cells empty."""
    least = math.ceil(math.sqrt(count))
    return min(range(least, min(count, 2 * least) + 1), key=lambda columns: (-count % columns, columns))
