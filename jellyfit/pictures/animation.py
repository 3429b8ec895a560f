"""Frames of events, and other pictures, as a moving picture."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jellyfit.errors import InputError
from jellyfit.native import write_whole
from jellyfit.pictures.frames import as_event_frames, event_frame_image, full_brightness

__all__ = ["save_film", "save_gif"]

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
    target = _checked(path, fps)
    array = as_event_frames(frames)
    scale = full_brightness(array)
    factor = max(_SIDE // max(array.shape[2:]), 1)
    return _write([event_frame_image(frame, scale).repeat(factor, 0).repeat(factor, 1) for frame in array], target, fps)


def save_film(images: Sequence[NDArray[np.uint8]], path: str | os.PathLike[str], fps: float = 30.0) -> Path:
    """Write pictures, such as those of an environment that is rendered, as a moving GIF, whole or not at all.

    Args:
        images: Pictures ``[H, W, 3]``, uint8, of one size; at least one.
        path: Where to write, ending in ``.gif``. Missing folders are made; an older file is replaced.
        fps: Frames a second, > 0 and at most 100, the most that GIF has. Default 30.

    Returns:
        The path.

    Raises:
        InputError: No pictures or pictures of another shape, another suffix or a wrong `fps`.
        OSError: The folder cannot be made or written.

    Examples:
        >>> import tempfile, numpy as np
        >>> from jellyfit.pictures import save_film
        >>> path = save_film([np.zeros((4, 4, 3), np.uint8)] * 2, tempfile.mkdtemp() + "/two.gif")
        >>> path.read_bytes()[:6]
        b'GIF89a'
    """
    target = _checked(path, fps)
    shapes = {image.shape for image in images}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 3 or shape[2] != 3:
        raise InputError(f"images: expected pictures [H, W, 3] of one size; got {len(images)} of {sorted(shapes)}.")
    return _write(images, target, fps)


def _checked(path: str | os.PathLike[str], fps: float) -> Path:
    path = Path(path)
    if path.suffix.lower() != ".gif":
        raise InputError(f"path: got {str(path)!r}, expected a name that ends in .gif.")
    if not (math.isfinite(fps) and 0 < fps <= 100):
        raise InputError(f"fps: got {fps}, expected frames a second, above 0 and at most 100.")
    return path


def _write(arrays: Sequence[NDArray[np.uint8]], path: Path, fps: float) -> Path:
    from PIL import Image

    images = [Image.fromarray(array) for array in arrays]
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as file:
        images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=1000 / fps, loop=0)
    return path
