"""Augmentation of images: a Pillow image in, a Pillow image out; and what cuts a window out of one.

A transform is called with an image and a NumPy generator, from which every draw comes. A datamodule's ``transforms``
takes a list of them; those of :mod:`jellyfit.frames` go into the same list. To write one, subclass
:class:`ImageTransform` and write ``transform``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from jellyfit.errors import DataError, InputError, InputTypeError
from jellyfit.events.draws import check_generator, check_number, check_range, check_whole
from jellyfit.events.parameters import Parameterized

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "Box",
    "CenterCrop",
    "ImageTransform",
    "RandomAffine",
    "RandomResizedCrop",
    "Resample",
    "Resize",
    "Size",
    "Window",
    "from_image",
    "pillow",
    "to_image",
]

Size: TypeAlias = tuple[int, int]
"""Width and height, as Pillow has them."""
Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels."""
Resample: TypeAlias = Literal["nearest", "bilinear", "bicubic"]
_TRIES = 10


def pillow() -> ModuleType:
    """The module ``PIL.Image``.

    Raises:
        DataError: it is not installed; says what to do.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError("images need Pillow: pip install 'jellyfit[images]'.") from error
    return Image


def to_image(pixels: npt.NDArray[np.uint8]) -> Image:
    """An array ``[C, H, W]`` of uint8 as a Pillow image: grey (C = 1) or RGB (C = 3).

    Raises:
        InputError: another shape.
        InputTypeError: not uint8.

    Examples:
        >>> import numpy as np
        >>> from jellyfit.images import to_image
        >>> to_image(np.zeros((3, 4, 6), np.uint8)).size
        (6, 4)
    """
    if pixels.dtype != np.uint8:
        raise InputTypeError(f"pixels must be uint8, 0 to 255; got {pixels.dtype}.")
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
        raise InputError(f"pixels must be [C, H, W] with 1 or 3 channels; got the shape {list(pixels.shape)}.")
    image: Image = pillow().fromarray(
        pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    )
    return image


def from_image(image: Image) -> npt.NDArray[np.uint8]:
    """A Pillow image, grey or RGB, as an array ``[C, H, W]`` of uint8.

    Raises:
        InputTypeError: no Pillow image, or of another mode.

    Examples:
        >>> import numpy as np
        >>> from jellyfit.images import from_image, to_image
        >>> pixels = np.arange(24, dtype=np.uint8).reshape(3, 2, 4)
        >>> bool((from_image(to_image(pixels)) == pixels).all())
        True
    """
    _check_image(image)
    pixels = np.array(image)  # a copy, which can be written
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _check_image(image: Any) -> None:
    if not isinstance(image, pillow().Image):
        raise InputTypeError(f"expected a Pillow image; got {type(image).__name__}.")
    if image.mode not in ("L", "RGB"):
        raise InputTypeError(f"expected an image in mode L or RGB; got {image.mode}. Call image.convert('RGB').")


class ImageTransform(Parameterized, ABC):
    """Base of augmentations of images. Compares and pickles by its parameters. Subclasses write :meth:`transform`.

    Examples:
        >>> import numpy as np
        >>> from PIL import ImageOps
        >>> from jellyfit import images
        >>> class Upside(images.ImageTransform):
        ...     def transform(self, image, rng):
        ...         return ImageOps.flip(image)
        >>> picture = images.to_image(np.array([[[1, 2], [3, 4]]], np.uint8))
        >>> images.from_image(Upside()(picture, np.random.default_rng(0)))[0].tolist()
        [[3, 4], [1, 2]]
    """

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Augment an image.

        Args:
            image: Pillow image in mode L or RGB; it is left as it is.
            rng: Source of every draw.

        Raises:
            InputTypeError: Not an image of these modes, not a generator.
        """
        check_generator(rng)
        _check_image(image)
        return self.transform(image, rng)

    @abstractmethod
    def transform(self, image: Image, rng: np.random.Generator) -> Image:
        """Augment an image; see :meth:`__call__`, which checks first. Never writes into ``image``."""


class Window(ImageTransform):
    """Base of what cuts a rectangle out of an image and resizes it. Subclasses write :meth:`window`.

    It says beforehand which part of an image it needs at which size, so that no more of a file is decoded.

    Args:
        resample: How pixels are weighted: ``"nearest"``, ``"bilinear"`` (default) or ``"bicubic"``; the last two look
            at every pixel that falls into one of the result.

    Raises:
        InputError: Another way.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import images
        >>> class LeftHalf(images.Window):
        ...     def window(self, size, rng):
        ...         return (0, 0, size[0] / 2, size[1]), (size[0] // 2, size[1])
        >>> picture = images.to_image(np.array([[[1, 2], [3, 4]]], np.uint8))
        >>> images.from_image(LeftHalf()(picture, np.random.default_rng(0)))[0].tolist()
        [[1], [3]]
    """

    resample: Resample

    def __init__(self, resample: Resample = "bilinear") -> None:
        if resample not in ("nearest", "bilinear", "bicubic"):
            raise InputError(f"resample must be 'nearest', 'bilinear' or 'bicubic'; got {resample!r}.")
        self.resample = resample

    @abstractmethod
    def window(self, size: Size, rng: np.random.Generator) -> tuple[Box, Size]:
        """What to cut out of an image of ``size`` (width, height), and the width and height of the result."""

    def cut(self, image: Image, box: Box, size: Size) -> Image:
        """The rectangle ``box`` of an image, resized."""
        return image.resize(size, pillow().Resampling[self.resample.upper()], box)

    def transform(self, image: Image, rng: np.random.Generator) -> Image:
        return self.cut(image, *self.window(image.size, rng))


def _sides(name: str, size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width, of which one number gives both."""
    height, width = (size, size) if isinstance(size, int) else size
    return check_whole(name, height, 1), check_whole(name, width, 1)


class Resize(Window):
    """Resize the whole image.

    Args:
        size: Length of the shorter side in pixels (the other follows); or height and width.
        resample: See :class:`Window`; default ``"bilinear"``.

    Raises:
        InputError: Below 1, or another way of resampling.
        InputTypeError: Not integers.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import images
        >>> photo = images.to_image(np.zeros((3, 375, 500), np.uint8))
        >>> images.Resize(256)(photo, np.random.default_rng(0)).size
        (341, 256)
    """

    def __init__(self, size: int | tuple[int, int], resample: Resample = "bilinear") -> None:
        super().__init__(resample)
        self.size = check_whole("size", size, 1) if isinstance(size, int) else _sides("size", size)

    def window(self, size: Size, rng: np.random.Generator) -> tuple[Box, Size]:
        whole: Box = (0, 0, *size)
        if not isinstance(self.size, int):
            return whole, (self.size[1], self.size[0])
        shorter = min(size)
        return whole, (max(self.size * size[0] // shorter, 1), max(self.size * size[1] // shorter, 1))


class CenterCrop(Window):
    """Cut out the middle.

    Args:
        size: Height and width in pixels; one number gives both.

    Raises:
        InputError: Below 1; later, an image that is smaller.
        InputTypeError: Not integers.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import images
        >>> picture = images.to_image(np.arange(16, dtype=np.uint8).reshape(1, 4, 4))
        >>> images.from_image(images.CenterCrop(2)(picture, np.random.default_rng(0)))[0].tolist()
        [[5, 6], [9, 10]]
    """

    resample = "nearest"  # nothing is resized

    def __init__(self, size: int | tuple[int, int]) -> None:
        self.size = _sides("size", size)

    def window(self, size: Size, rng: np.random.Generator) -> tuple[Box, Size]:
        height, width = self.size
        if size[0] < width or size[1] < height:
            raise InputError(
                f"{self!r}: an image of {size[1]} x {size[0]} (height x width) is smaller. Put a Resize before it."
            )
        left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
        return (left, top, left + width, top + height), (width, height)


class RandomResizedCrop(Window):
    """Cut out a rectangle of random area and shape, anywhere, and resize it.

    Ten times a share of the area and an aspect ratio are drawn, until the rectangle fits into the image; where none
    does, the middle is taken, as large as the ratios allow.

    Args:
        size: Height and width of the result in pixels; one number gives both.
        scale: Least and most share of the image's area, default 0.08 to 1.
        ratio: Least and most width over height, drawn evenly on a logarithmic scale; default 3/4 to 4/3.
        resample: See :class:`Window`; default ``"bilinear"``.

    Raises:
        InputError: Out of bounds, or another way of resampling.
        InputTypeError: Not numbers.

    Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import images
        >>> photo = images.to_image(np.zeros((3, 375, 500), np.uint8))
        >>> crop = images.RandomResizedCrop(224)
        >>> crop(photo, np.random.default_rng(0)).size
        (224, 224)
        >>> box, size = crop.window(photo.size, np.random.default_rng(0))
        >>> box
        (65, 166, 194, 337)
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        resample: Resample = "bilinear",
    ) -> None:
        super().__init__(resample)
        self.size = _sides("size", size)
        self.scale = check_range("scale", scale, 0.0, 1.0)
        self.ratio = check_range("ratio", ratio, 0.0, math.inf)
        for name, least in (("scale", self.scale[0]), ("ratio", self.ratio[0])):
            check_number(name, least, above=0)

    def window(self, size: Size, rng: np.random.Generator) -> tuple[Box, Size]:
        result = (self.size[1], self.size[0])
        low, high = (math.log(end) for end in self.ratio)
        for _ in range(_TRIES):
            area = size[0] * size[1] * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(low, high))
            width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < width <= size[0] and 0 < height <= size[1]:
                left = int(rng.integers(size[0] - width, endpoint=True))
                top = int(rng.integers(size[1] - height, endpoint=True))
                return (left, top, left + width, top + height), result
        ratio = min(max(size[0] / size[1], self.ratio[0]), self.ratio[1])
        width, height = min(size[0], round(size[1] * ratio)), min(size[1], round(size[0] / ratio))
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        return (left, top, left + max(width, 1), top + max(height, 1)), result


class RandomAffine(ImageTransform):
    """Turn, move and scale an image about its centre.

    Args:
        degrees: Most degrees either way; default 30.
        translate: Most of the width and of the height to move by, either way; default 0.15 of each.
        scale: Least and most enlargement; default 0.85 to 1.11.
        fill: Value of the pixels that come in, 0 to 255; default 0.

    Raises:
        InputError: Out of bounds.
        InputTypeError: Not numbers.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import images
        >>> picture = images.to_image(np.full((1, 28, 28), 200, np.uint8))
        >>> moved = images.RandomAffine(degrees=0, translate=(0.5, 0), scale=(1, 1))(picture, np.random.default_rng(1))
        >>> images.from_image(moved)[0, 14, [0, 13, 27]].tolist()
        [0, 200, 200]
    """

    def __init__(
        self,
        degrees: float = 30.0,
        translate: tuple[float, float] = (0.15, 0.15),
        scale: tuple[float, float] = (0.85, 1.11),
        fill: int = 0,
    ) -> None:
        self.degrees = check_number("degrees", degrees, at_least=0)
        across, down = (check_number("translate", share, at_least=0, at_most=1) for share in translate)
        self.translate = (across, down)
        self.scale = check_range("scale", scale, 0.0, math.inf)
        check_number("scale", self.scale[0], above=0)
        self.fill = check_whole("fill", fill, 0, 255)

    def transform(self, image: Image, rng: np.random.Generator) -> Image:
        angle = math.radians(rng.uniform(-self.degrees, self.degrees))
        shift = [
            round(rng.uniform(-share, share) * side) for share, side in zip(self.translate, image.size, strict=True)
        ]
        scale = rng.uniform(*self.scale)
        cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
        return warp(image, (cosine, sine, -sine, cosine), (shift[0], shift[1]), self.fill)


def warp(image: Image, matrix: tuple[float, float, float, float], shift: tuple[float, float], fill: int) -> Image:
    """Every pixel takes the value from where ``matrix`` (a b; c d), about the centre, points after moving back.

    Nearest pixels; what comes from outside is ``fill`` in every channel.
    """
    a, b, c, d = matrix
    x, y = image.size[0] / 2, image.size[1] / 2
    u, v = x + shift[0], y + shift[1]
    coefficients = (a, b, x - a * u - b * v, c, d, y - c * u - d * v)
    pil = pillow()
    color = fill if image.mode == "L" else (fill,) * 3
    return image.transform(image.size, pil.Transform.AFFINE, coefficients, pil.Resampling.NEAREST, fillcolor=color)
