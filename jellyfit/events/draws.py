"""What augmentations of events and of frames share: checks of their parameters, random draws, and geometry."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from jellyfit.errors import InputError, InputTypeError

__all__ = [
    "Rectangle",
    "check_generator",
    "check_items",
    "check_number",
    "check_probability",
    "check_range",
    "check_whole",
    "nda_magnitudes",
    "rectangle",
    "rotation",
    "shear",
]

Item = TypeVar("Item")
Rectangle = tuple[int, int, int, int]
"""First row, row behind the last, first column, column behind the last."""


def check_number(
    name: str, value: Any, above: float | None = None, at_least: float | None = None, at_most: float | None = None
) -> float:
    """A finite number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InputTypeError(f"{name} must be a number; got {value!r}.")
    low = (above is not None and value <= above) or (at_least is not None and value < at_least)
    high = at_most is not None and value > at_most
    if low or high or not math.isfinite(value):
        bounds = {", above": above, ", at least": at_least, ", at most": at_most}
        expected = "finite" + "".join(f"{words} {bound}" for words, bound in bounds.items() if bound is not None)
        raise InputError(f"{name} must be {expected}; got {value}.")
    return float(value)


def check_whole(name: str, value: Any, low: int, high: int | None = None) -> int:
    """An integer from ``low`` to ``high`` (default: no end)."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputTypeError(f"{name} must be an integer; got {value!r}.")
    if value < low or (high is not None and value > high):
        expected = f"at least {low}" if high is None else f"from {low} to {high}"
        raise InputError(f"{name} must be {expected}; got {value}.")
    return int(value)


def check_probability(name: str, value: Any) -> float:
    """A number from 0 to 1."""
    if not 0 <= check_number(name, value) <= 1:
        raise InputError(f"{name} must be a probability, from 0 (never) to 1 (always); got {value}.")
    return float(value)


def check_range(name: str, value: Any, low: float, high: float) -> tuple[float, float]:
    """Two numbers, the smaller first, within ``[low, high]``; one number stands for both."""
    ends = (value, value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(ends, Sequence) or isinstance(ends, str) or len(ends) != 2:
        raise InputTypeError(f"{name} must be two numbers, the least and the most, such as [0.1, 0.9]; got {value!r}.")
    first, last = (check_number(name, end) for end in ends)
    if not low <= first <= last <= high:
        raise InputError(f"{name} must be two numbers from {low} to {high}, the smaller first; got {value!r}.")
    return first, last


def check_items(name: str, values: Any, kind: Callable[..., Item]) -> tuple[Item, ...]:
    """A sequence of at least one object of a class."""
    assert isinstance(kind, type)  # typed as what can be called: mypy lets no abstract class through as a type
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InputTypeError(f"{name} must be a list of objects of {kind.__name__}; got {values!r}.")
    for value in values:
        if not isinstance(value, kind):
            raise InputTypeError(f"{name} must hold objects of {kind.__name__}; got {value!r}.")
    if not values:
        raise InputError(f"{name} must hold at least one {kind.__name__}.")
    return tuple(values)


def check_generator(rng: Any) -> np.random.Generator:
    """The source of every draw."""
    if not isinstance(rng, np.random.Generator):
        raise InputTypeError(f"rng must be a NumPy generator, such as numpy.random.default_rng(0); got {rng!r}.")
    return rng


def rectangle(rng: np.random.Generator, size: tuple[int, int], height: int, width: int) -> Rectangle:
    """A rectangle whose centre is any pixel of ``size``; what lies outside is cut off."""
    top = int(rng.integers(size[0])) - height // 2
    left = int(rng.integers(size[1])) - width // 2
    return max(top, 0), min(top + height, size[0]), max(left, 0), min(left + width, size[1])


def rotation(degrees: float) -> npt.NDArray[np.float64]:
    """The matrix that takes (x, y) counter-clockwise on a picture whose rows run down."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cosine, sine], [-sine, cosine]])


def shear(degrees: float) -> npt.NDArray[np.float64]:
    """The matrix that moves each row along itself, as far as a line at this angle to the upright does."""
    return np.array([[1.0, math.tan(math.radians(degrees))], [0.0, 1.0]])


def nda_magnitudes(magnitude: int, size: tuple[int, int]) -> tuple[int, float, int, float]:
    """Pixels to roll, degrees to rotate, side to cut out, degrees to shear, for a picture of ``size``.

    Pixels are meant for pictures of 48 x 48 and grow with the picture.
    """
    scale = max(size) / 48
    roll, side = (max(round(pixels * scale), 1) for pixels in (2 * magnitude + 1, 8 * magnitude))
    return roll, 15.0 * magnitude, side, 15.0 * magnitude
