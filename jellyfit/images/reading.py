"""Image files of whatever kind -> RGB, 8 bits a channel; no more of a JPEG is decoded than is needed."""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jellyfit.errors import DataError, JellyfitError
from jellyfit.images.transforms import Box, Size, Window, pillow

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["BrokenImageError", "read_image"]

_ORIENTATION = 0x0112  # the EXIF tag
_CONVERTED = ("1", "L", "P", "CMYK", "YCbCr", "HSV", "RGBX")  # by Pillow, and rightly


class BrokenImageError(DataError):
    """A file that is no image, or whose image is cut short or damaged; the message names it.

    Examples:
        >>> import pathlib, tempfile
        >>> from jellyfit.images import BrokenImageError, read_image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "a.jpg")
        ...     _ = path.write_bytes(b"no picture")
        ...     try:
        ...         read_image(path)
        ...     except BrokenImageError:
        ...         print("skipped")
        skipped
    """


def read_image(
    path: str | os.PathLike[str],
    first: Window | None = None,
    rng: np.random.Generator | None = None,
    *,
    draft: bool = False,
    upright: bool = False,
) -> Image:
    """Read an image file as RGB, 8 bits a channel.

    Greyscale becomes three equal channels, 16 bits become 8 (65,535 becomes 255), CMYK is converted, what is
    transparent is laid on white, and of an animation the first picture is taken.

    Args:
        path: of the file; any format that Pillow knows.
        first: a transform that cuts a window out, applied while reading; default: the whole image.
        rng: source of its draws; default: one that starts at 0.
        draft: let the JPEG decoder shrink by 2, 4 or 8, as long as the window keeps the pixels that it is resized to:
            faster, with slightly other pixels. Default ``False``.
        upright: turn the image as its EXIF tag says; default ``False``: pixels as they are stored, which is what
            published figures on ImageNet were made with.

    Returns:
        A Pillow image in mode RGB.

    Raises:
        BrokenImageError: no image, or a damaged one.
        DataError: the file cannot be read at all; or Pillow is missing.

    Examples:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from jellyfit.images import Resize, from_image, read_image, to_image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "grey.png")
        ...     to_image(np.full((1, 40, 60), 7, np.uint8)).save(path)
        ...     image = read_image(path, Resize(20))
        >>> image.mode, image.size, from_image(image).max()
        ('RGB', (30, 20), np.uint8(7))
    """
    path = Path(path)
    pil = pillow()
    try:
        with pil.open(path) as image:
            return _read(image, first, np.random.default_rng(0) if rng is None else rng, draft, upright)
    except JellyfitError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, pil.DecompressionBombError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's fault, not the image's
            raise DataError(f"{path} cannot be read: {error.strerror}.") from error
        reason = str(error) if str(path) not in str(error) else "no kind of image that Pillow knows"
        raise BrokenImageError(f"{path} is a broken image: {reason}. Replace or remove it.") from error


def _read(image: Image, first: Window | None, rng: np.random.Generator, draft: bool, upright: bool) -> Image:
    if upright and image.getexif().get(_ORIENTATION, 1) != 1:
        from PIL import ImageOps

        image = ImageOps.exif_transpose(image)
    if first is None:
        return _rgb(image)
    box, size = first.window(image.size, rng)
    if draft:
        box = _shrink(image, box, size)
    return first.cut(_rgb(image), box, size)


def _shrink(image: Image, box: Box, size: Size) -> Box:
    """Have the decoder shrink ``image`` as far as ``box`` stays at least of ``size``; the box in the smaller image."""
    whole = image.size
    across = math.ceil(size[0] * whole[0] / (box[2] - box[0]))
    down = math.ceil(size[1] * whole[1] / (box[3] - box[1]))
    shrunk = image.draft(None, (across, down))  # None: the mode stays
    if shrunk is None:
        return box
    factor = shrunk[1][2] / whole[0]
    return box[0] * factor, box[1] * factor, box[2] * factor, box[3] * factor


def _rgb(image: Image) -> Image:
    mode = image.mode
    if mode == "I" or mode.startswith("I;16"):
        return _from_16_bits(image)
    if mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        seen = image.convert("RGBA")
        paper: Image = pillow().new("RGBA", seen.size, "white")
        paper.alpha_composite(seen)
        return paper.convert("RGB")
    if mode == "RGB":
        image.load()
        return image
    if mode in _CONVERTED:
        return image.convert("RGB")
    raise BrokenImageError(
        f"{getattr(image, 'filename', 'the image')}: pixels of the mode {mode!r} have no one meaning as RGB. Save it "
        "as RGB or grey."
    )


def _from_16_bits(image: Image) -> Image:
    values = np.asarray(image).astype(np.int64)  # Pillow's own conversion would cut them off at 255
    if values.min() < 0 or values.max() > 65535:
        raise BrokenImageError(
            f"{getattr(image, 'filename', 'the image')}: values from {values.min()} to {values.max()} are not of 16 "
            "bits. Save it with 8 or 16."
        )
    grey: Image = pillow().fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    return grey.convert("RGB")
