"""Augmentation of colours, and RandAugment, which draws among many operations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from jellyfit.events.draws import check_number, check_probability, check_whole
from jellyfit.images.transforms import ImageTransform, pillow, warp

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ColorJitter", "RandAugment"]


def _enhance(kind: str) -> Callable[[Image, float], Image]:
    """``factor * image + (1 - factor) * plain``: black, its mean grey, its grey image, or its smooth one."""

    def apply(image: Image, factor: float) -> Image:
        from PIL import ImageEnhance

        result: Image = getattr(ImageEnhance, kind)(image).enhance(factor)
        return result

    return apply


_brightness, _contrast, _color, _sharpness = map(_enhance, ("Brightness", "Contrast", "Color", "Sharpness"))


def _hue(image: Image, turn: float) -> Image:
    """Turn the hue of every pixel by ``turn`` rounds of the circle."""
    if image.mode == "L":
        return image
    hsv = np.array(image.convert("HSV"))
    hsv[..., 0] += np.uint8(round(turn * 256) % 256)  # a circle of 256 steps: uint8 comes round by itself
    return pillow().fromarray(hsv, "HSV").convert("RGB")  # type: ignore[no-any-return]


class ColorJitter(ImageTransform):
    """Change brightness, contrast, saturation and hue, in random order.

    Args:
        brightness: Most change; the factor is drawn from ``max(0, 1 - brightness)`` to ``1 + brightness``; default 0.
        contrast: The same for the distance from the image's mean grey; default 0.
        saturation: The same for the distance from the grey image; default 0.
        hue: Most of the colour circle to turn by, either way, at most 0.5; default 0.

    Raises:
        InputError: Out of bounds.
        InputTypeError: Not numbers.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import images
        >>> picture = images.to_image(np.full((3, 2, 2), 100, np.uint8))
        >>> brighter = images.ColorJitter(brightness=0.4)(picture, np.random.default_rng(1))
        >>> images.from_image(brighter)[:, 0, 0].tolist()
        [71, 71, 71]
    """

    def __init__(
        self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, hue: float = 0.0
    ) -> None:
        self.brightness = check_number("brightness", brightness, at_least=0)
        self.contrast = check_number("contrast", contrast, at_least=0)
        self.saturation = check_number("saturation", saturation, at_least=0)
        self.hue = check_number("hue", hue, at_least=0, at_most=0.5)

    def transform(self, image: Image, rng: np.random.Generator) -> Image:
        ways = ((_brightness, self.brightness), (_contrast, self.contrast), (_color, self.saturation), (_hue, self.hue))
        for i in rng.permutation(len(ways)):
            way, most = ways[i]
            change = rng.uniform(-most, most)
            if most > 0:
                image = way(image, change if way is _hue else max(1 + change, 0.0))
        return image


def _auto_contrast(image: Image) -> Image:
    from PIL import ImageOps

    return ImageOps.autocontrast(image)


def _equalize(image: Image) -> Image:
    from PIL import ImageOps

    return ImageOps.equalize(image)


def _solarize(image: Image, threshold: int) -> Image:
    return image.point([255 - value if value >= threshold else value for value in range(256)] * len(image.getbands()))


def _posterize(image: Image, bits: int) -> Image:
    mask = 256 - (1 << (8 - bits)) if bits else 0
    return image.point([value & mask for value in range(256)] * len(image.getbands()))


def _operations(share: float, signed: float, size: tuple[int, int], fill: int) -> tuple[Callable[[Image], Image], ...]:
    """The fourteen operations at a strength of 0 to 1; ``signed`` is the same with a random sign."""
    factor = 1 + 0.9 * signed
    angle = math.radians(30 * signed)
    cosine, sine = math.cos(angle), math.sin(angle)
    slant = 0.3 * signed
    across, down = (round(0.45 * signed * side) for side in size)
    upright = (1.0, 0.0, 0.0, 1.0)
    return (
        lambda image: image,
        _auto_contrast,
        _equalize,
        lambda image: _color(image, factor),
        lambda image: _contrast(image, factor),
        lambda image: _brightness(image, factor),
        lambda image: _sharpness(image, factor),
        lambda image: _posterize(image, 8 - round(4 * share)),
        lambda image: _solarize(image, 256 - round(256 * share)),
        lambda image: warp(image, (cosine, sine, -sine, cosine), (0, 0), fill),
        lambda image: warp(image, (1.0, slant, 0.0, 1.0), (0, 0), fill),
        lambda image: warp(image, (1.0, 0.0, slant, 1.0), (0, 0), fill),
        lambda image: warp(image, upright, (across, 0), fill),
        lambda image: warp(image, upright, (0, down), fill),
    )


class RandAugment(ImageTransform):
    """Some of fourteen operations, drawn anew for every image, all of one strength.

    They are: nothing, auto-contrast, equalise; colour, contrast, brightness and sharpness (by a factor of 1 ± 0.9 at
    full strength); posterise (down to 4 bits), solarise (what is above 256 - 256); rotate (30 degrees), shear (0.3)
    and translate (0.45 of the side) in either direction.

    Args:
        number: Of operations one after another, at least 0; default 2. The same may come twice.
        magnitude: Strength of 0 to 10, default 9.
        std: Standard deviation of the strength around ``magnitude``, drawn for each operation and cut to 0 to 10;
            default 0: always the same.
        p: Probability of each operation, default 1 as in the paper; timm's recipes have 0.5.
        fill: Value of the pixels that come in, 0 to 255; default 128.

    Raises:
        InputError: Out of bounds.
        InputTypeError: Not numbers.

    Source: Cubuk, Zoph, Shlens and Le, "RandAugment: practical automated data augmentation with a reduced search
    space", NeurIPS 2020; the deviation is timm's (Wightman, 2019).

    Examples:
        >>> import numpy as np
        >>> from jellyfit import images
        >>> picture = images.to_image(np.arange(256, dtype=np.uint8).reshape(1, 16, 16))
        >>> augmented = images.RandAugment(number=2, magnitude=9, std=0.5)(picture, np.random.default_rng(0))
        >>> augmented.size
        (16, 16)
    """

    def __init__(
        self, number: int = 2, magnitude: float = 9.0, std: float = 0.0, p: float = 1.0, fill: int = 128
    ) -> None:
        self.number = check_whole("number", number, 0)
        self.magnitude = check_number("magnitude", magnitude, at_least=0, at_most=10)
        self.std = check_number("std", std, at_least=0)
        self.p = check_probability("p", p)
        self.fill = check_whole("fill", fill, 0, 255)

    def transform(self, image: Image, rng: np.random.Generator) -> Image:
        for _ in range(self.number):
            share = float(np.clip(rng.normal(self.magnitude, self.std), 0, 10)) / 10
            signed = share if rng.uniform() < 0.5 else -share
            operations = _operations(share, signed, image.size, self.fill)
            chosen = operations[int(rng.integers(len(operations)))]
            if rng.uniform() < self.p:
                image = chosen(image)
        return image
