"""Frames of events as a moving picture."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from jellyfit.errors import InputError
from jellyfit.native import write_whole
from jellyfit.pictures.frames import as_event_frames, event_frame_image, full_brightness

__all__ = ["save_gif"]

_SIDE = 256  # pixels that small sensors are enlarged towards


def save_gif(frames: NDArray[Any], path: str | os.PathLike[str], fps: float = 10.0) -> Path:
    """Write the frames of one event sample as a moving GIF, whole or not at all.

    Colours and brightness are those of `event_frames`. A small sensor is enlarged by a whole number, to at most 256
    pixels.

    Args:
        frames: Counts (or other intensities) ``[T, 2, H, W]``; channel 0 is OFF, channel 1 is ON.
        path: Where to write, ending in ``.gif``. Missing folders are made; an older file is replaced.
        fps: Frames a second, > 0 and at most 100, the most that GIF has. Default 10.

    Returns:
        The path.

    Raises:
        InputError: A wrong shape, values that are not finite, another suffix or a wrong `fps`.
        InputTypeError: Something that is not an array of numbers.
        OSError: The folder cannot be made or written.

    Examples:
        >>> import tempfile, numpy as np
        >>> from jellyfit.pictures import save_gif
        >>> path = save_gif(np.eye(4).reshape(2, 2, 2, 2), tempfile.mkdtemp() + "/two.gif")
        >>> path.read_bytes()[:6]
        b'GIF89a'
    """
    from PIL import Image

    path = Path(path)
    if path.suffix.lower() != ".gif":
        raise InputError(f"path: got {str(path)!r}, expected a name that ends in .gif.")
    if not (math.isfinite(fps) and 0 < fps <= 100):
        raise InputError(f"fps: got {fps}, expected frames a second, above 0 and at most 100.")
    array = as_event_frames(frames)
    scale = full_brightness(array)
    factor = max(_SIDE // max(array.shape[2:]), 1)
    images = [Image.fromarray(event_frame_image(frame, scale).repeat(factor, 0).repeat(factor, 1)) for frame in array]
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as file:
        images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=1000 / fps, loop=0)
    return path
