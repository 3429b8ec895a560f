"""Augmentation of frames: ``[T, C, H, W]`` in, ``[T, C, H, W]`` out, one draw for all frames of a sample.

A transform is called with frames (a NumPy array or a tensor; it gives back the same kind) and a NumPy generator, from
which every draw comes. A datamodule's ``frame_transforms`` takes a list of them. To write one, subclass
:class:`FrameTransform` and write ``transform``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from jellyfit.errors import InputError, InputTypeError
from jellyfit.events.draws import (
    check_generator,
    check_number,
    check_probability,
    check_whole,
    nda_magnitudes,
    rectangle,
    rotation,
    shear,
)
from jellyfit.events.parameters import Parameterized

__all__ = [
    "NDA",
    "CutOut",
    "FrameTransform",
    "HorizontalFlip",
    "RandomCrop",
    "Roll",
    "Rotate",
    "Shear",
]

Frames = TypeVar("Frames", npt.NDArray[Any], Tensor)


class FrameTransform(Parameterized, ABC):
    """Base of augmentations of frames. Compares and pickles by its parameters. Subclasses write :meth:`transform`.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> from jellyfit import frames
        >>> class Upside(frames.FrameTransform):
        ...     def transform(self, frames, rng):
        ...         return frames.flip(-2)
        >>> Upside()(torch.arange(4).view(1, 1, 2, 2), np.random.default_rng(0)).flatten().tolist()
        [2, 3, 0, 1]
    """

    def __call__(self, frames: Frames, rng: np.random.Generator) -> Frames:
        """Augment the frames of one sample.

        Args:
            frames: ``[T, C, H, W]``, counts or floats; they are left as they are.
            rng: Source of every draw.

        Returns:
            Frames of the same kind (array or tensor), on the same device.

        Raises:
            InputError: Not four dimensions.
            InputTypeError: Not an array or tensor, not a generator.
        """
        check_generator(rng)
        if not isinstance(frames, np.ndarray | Tensor):
            raise InputTypeError(f"frames must be an array or tensor [T, C, H, W]; got {type(frames).__name__}.")
        if frames.ndim != 4:
            raise InputError(f"frames must be those of one sample, [T, C, H, W]; got the shape {list(frames.shape)}.")
        if isinstance(frames, Tensor):
            return self.transform(frames, rng)
        own = np.ascontiguousarray(frames)
        result = self.transform(torch.from_numpy(own if own.flags.writeable else own.copy()), rng)
        return result.numpy()

    @abstractmethod
    def transform(self, frames: Tensor, rng: np.random.Generator) -> Tensor:
        """Augment frames ``[T, C, H, W]``; see :meth:`__call__`, which checks first. Never writes into ``frames``."""


class RandomCrop(FrameTransform):
    """Surround the frames with zeros and cut out a window of the first size (or another), anywhere.

    Args:
        padding: Rows and columns of zeros put on every side, at least 0; default 4.
        size: (height, width) of the window; None (default): that of the frames.

    Raises:
        InputError: Below 0, or sides below 1; later, frames that are smaller than the window with their padding.
        InputTypeError: Not integers.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import frames
        >>> picture = np.arange(1, 5, dtype=np.uint8).reshape(1, 1, 2, 2)
        >>> frames.RandomCrop(padding=1)(picture, np.random.default_rng(0))[0, 0].tolist()
        [[3, 4], [0, 0]]
    """

    def __init__(self, padding: int = 4, size: tuple[int, int] | None = None) -> None:
        self.padding = check_whole("padding", padding, 0)
        if size is None:
            self.size = None
        else:
            height, width = (check_whole("size", side, 1) for side in size)
            self.size = (height, width)

    def transform(self, frames: Tensor, rng: np.random.Generator) -> Tensor:
        height, width = frames.shape[-2:] if self.size is None else self.size
        padded = F.pad(frames, (self.padding,) * 4)
        spare = padded.shape[-2] - height, padded.shape[-1] - width
        if min(spare) < 0:
            raise InputError(
                f"{self!r}: frames of {frames.shape[-2]} x {frames.shape[-1]} with their padding are smaller than the "
                f"window of {height} x {width}. Give more padding or a smaller size."
            )
        top, left = (int(rng.integers(room, endpoint=True)) for room in spare)
        return padded[..., top : top + height, left : left + width].contiguous()


class HorizontalFlip(FrameTransform):
    """Mirror left and right, with probability p.

    Args:
        p: Probability, default 0.5.

    Raises:
        InputError: Not a probability.
        InputTypeError: Not a number.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import frames
        >>> picture = np.arange(1, 5, dtype=np.uint8).reshape(1, 1, 2, 2)
        >>> frames.HorizontalFlip(p=1.0)(picture, np.random.default_rng(0))[0, 0].tolist()
        [[2, 1], [4, 3]]
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = check_probability("p", p)

    def transform(self, frames: Tensor, rng: np.random.Generator) -> Tensor:
        if rng.uniform() >= self.p:
            return frames
        return frames[..., torch.arange(frames.shape[-1] - 1, -1, -1)]  # flip() knows no uint16 and uint32


class Roll(FrameTransform):
    """Move everything by up to so many pixels; what leaves a frame comes back on the other side.

    Args:
        pixels: Most pixels, right or left and up or down, drawn evenly; default 5.

    Raises:
        InputError: Below 0.
        InputTypeError: Not an integer.

    Source: Li, Kim, Park, Geller and Panda, "Neuromorphic data augmentation for training spiking neural networks",
    ECCV 2022.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import frames
        >>> picture = np.arange(1, 7, dtype=np.uint8).reshape(1, 1, 2, 3)
        >>> frames.Roll(pixels=1)(picture, np.random.default_rng(0))[0, 0].tolist()
        [[4, 5, 6], [1, 2, 3]]
    """

    def __init__(self, pixels: int = 5) -> None:
        self.pixels = check_whole("pixels", pixels, 0)

    def transform(self, frames: Tensor, rng: np.random.Generator) -> Tensor:
        down, right = rng.integers(-self.pixels, self.pixels, 2, endpoint=True).tolist()
        return torch.roll(frames, (down, right), (-2, -1))


class CutOut(FrameTransform):
    """Put zeros into a square whose centre is anywhere.

    Args:
        side: Side of the square in pixels, at least 1; default 8.

    Raises:
        InputError: Below 1.
        InputTypeError: Not an integer.

    Source: DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout", 2017.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import frames
        >>> int(frames.CutOut(side=3)(np.ones((1, 1, 9, 9), np.uint8), np.random.default_rng(0)).sum())
        72
    """

    def __init__(self, side: int = 8) -> None:
        self.side = check_whole("side", side, 1)

    def transform(self, frames: Tensor, rng: np.random.Generator) -> Tensor:
        top, bottom, left, right = rectangle(rng, (frames.shape[-2], frames.shape[-1]), self.side, self.side)
        frames = frames.clone()
        frames[..., top:bottom, left:right] = 0
        return frames


class _Turn(FrameTransform):
    """Turn or slant frames about their centre by up to so many degrees."""

    matrix: ClassVar[Any]

    def __init__(self, degrees: float = 15.0, mode: Literal["nearest", "bilinear"] = "nearest") -> None:
        if mode not in ("nearest", "bilinear"):
            raise InputError(f"mode must be 'nearest' (counts stay counts) or 'bilinear' (floats); got {mode!r}.")
        self.degrees = check_number("degrees", degrees, at_least=0)
        self.mode = mode

    def transform(self, frames: Tensor, rng: np.random.Generator) -> Tensor:
        there = self.matrix(rng.uniform(-self.degrees, self.degrees))
        back = np.linalg.inv(there)  # every pixel looks up where it came from
        T, _, height, width = frames.shape
        sides = torch.tensor([width, height], dtype=torch.float64, device=frames.device)
        rows, columns = (torch.arange(side, dtype=torch.float64, device=frames.device) for side in (height, width))
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        centre = (sides - 1) / 2
        came_from = (torch.stack([x, y], -1) - centre) @ torch.from_numpy(back.T).to(frames.device) + centre
        grid = (came_from + 0.5) * 2 / sides - 1  # pixel centres, with the borders of the picture at -1 and 1
        # whole numbers above 2**24 need float64; half precision is calculated in float32
        exact = frames.dtype in (torch.float64, torch.uint32, torch.int32, torch.int64)
        wide = torch.float64 if exact else torch.float32
        turned = F.grid_sample(
            frames.to(wide), grid.to(wide).expand(T, -1, -1, -1), self.mode, "zeros", align_corners=False
        )
        if self.mode == "nearest" or frames.is_floating_point():
            return turned.to(frames.dtype)
        return turned.to(torch.float32)


class Rotate(_Turn):
    """Turn about the centre; zeros come in at the corners.

    Args:
        degrees: Most degrees either way, drawn evenly; default 15.
        mode: ``"nearest"`` (default): every pixel takes the value of the nearest one, and the dtype stays.
            ``"bilinear"``: it takes the mean of the four around, weighted by distance; counts become float32.

    Raises:
        InputError: Not finite or below 0, or another mode.
        InputTypeError: Not a number.

    Source: Li et al., ECCV 2022, see :class:`Roll`.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import frames
        >>> picture = np.zeros((1, 1, 21, 21), np.uint8)
        >>> picture[0, 0, 10] = 1  # a level line
        >>> turned = frames.Rotate(degrees=30.0)(picture, np.random.default_rng(0))[0, 0]
        >>> [int(turned[:, column].argmax()) for column in (0, 10, 20)]
        [11, 10, 9]
    """

    matrix = staticmethod(rotation)


class Shear(_Turn):
    """Slant frames: each row moves along itself, the further the further it is from the middle.

    Args:
        degrees: Most degrees to the upright either way, at most 89, drawn evenly; default 15.
        mode: ``"nearest"`` (default) or ``"bilinear"``, see :class:`Rotate`.

    Raises:
        InputError: Not finite, below 0, or above 89; another mode.
        InputTypeError: Not a number.

    Source: Li et al., ECCV 2022, see :class:`Roll`.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import frames
        >>> picture = np.zeros((1, 1, 21, 21), np.uint8)
        >>> picture[..., 10] = 1  # an upright line
        >>> slanted = frames.Shear(degrees=45.0)(picture, np.random.default_rng(0))[0, 0]
        >>> slanted[[0, 10, 20]].argmax(1).tolist()
        [8, 10, 12]
    """

    matrix = staticmethod(shear)

    def __init__(self, degrees: float = 15.0, mode: Literal["nearest", "bilinear"] = "nearest") -> None:
        super().__init__(degrees, mode)
        check_number("degrees", degrees, at_most=89)


class NDA(FrameTransform):
    """Neuromorphic data augmentation of frames; see :class:`jellyfit.events.NDA`, which does the same to events.

    Args:
        magnitude: 1 (default), 2 or 3.
        number: How many of roll, rotate, cut out and shear a sample goes through, all different; 1 (default) to 4.
        flip: Mirror too, with probability 1/2; default True.

    Raises:
        InputError: Another magnitude or number.
        InputTypeError: Not integers.

    Source: Li et al., ECCV 2022, see :class:`Roll`.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import frames
        >>> picture = np.zeros((1, 2, 48, 48), np.uint8)
        >>> picture[:, :, 20, 10] = 1
        >>> for seed in (0, 3):
        ...     y, x = frames.NDA()(picture, np.random.default_rng(seed))[0, 0].nonzero()
        ...     print(x.tolist(), y.tolist())
        [38] [20]
        [36] [20]
    """

    def __init__(self, magnitude: int = 1, number: int = 1, flip: bool = True) -> None:
        self.magnitude = check_whole("magnitude", magnitude, 1, 3)
        self.number = check_whole("number", number, 1, 4)
        self.flip = flip

    def transform(self, frames: Tensor, rng: np.random.Generator) -> Tensor:
        roll, turn, side, slant = nda_magnitudes(self.magnitude, (frames.shape[-2], frames.shape[-1]))
        ways: tuple[FrameTransform, ...] = (Roll(roll), Rotate(turn), CutOut(side), Shear(slant))
        chosen = [ways[i] for i in rng.choice(len(ways), self.number, replace=False)]
        for way in [HorizontalFlip(), *chosen] if self.flip else chosen:
            frames = way(frames, rng)
        return frames
