"""What is done to the pixels of images as arrays and tensors: erased on the host, normalised on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from jellyfit.errors import InputError
from jellyfit.events.draws import check_number, check_probability, check_range, check_whole
from jellyfit.events.parameters import Parameterized
from jellyfit.frames import FrameTransform

__all__ = ["Normalize", "RandomErasing"]

_TRIES = 10


class Normalize(Parameterized):
    """Pixels of 0 to 255 -> ``(x / 255 - mean) / std``, floats.

    Args:
        mean: Of each channel, one for all; default 0: the result is within 0 to 1.
        std: Of each channel, or one for all; above 0, default 1.

    Raises:
        InputError: Numbers that cannot be, or a number of them that is not that of channels.

    Examples:
        >>> import torch
        >>> from jellyfit.images import Normalize
        >>> Normalize()(torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1)).flatten().tolist()
        [0.0, 0.20000001788139343, 1.0]
    """

    def __init__(self, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)) -> None:
        self.mean = tuple(check_number("mean", value) for value in mean)
        self.std = tuple(check_number("std", value, above=0) for value in std)
        if len(self.mean) != len(self.std) or not self.mean:
            raise InputError(f"mean and std must have as many numbers, one a channel; got {mean} and {std}.")

    def __call__(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Normalise images ``[*, C, H, W]`` of 0 to 255 (uint8, or floats where they were mixed).

        Args:
            x: They are left as they are.
            dtype: Of the result, default float32.
        """
        if len(self.mean) not in (1, x.shape[-3]):
            raise InputError(f"{self!r} is for {len(self.mean)} channels; got images of the shape {list(x.shape)}.")
        mean, std = (torch.tensor(values, device=x.device).view(-1, 1, 1) for values in (self.mean, self.std))
        scaled = x.to(torch.float32, copy=True).mul_(1 / (255 * std)).sub_(mean / std)
        return scaled.to(dtype)


class RandomErasing(FrameTransform):
    """Fill a rectangle of random area and shape, anywhere, with a colour or with noise; frames of uint8.

    Args:
        p: Probability, default 0.5.
        scale: Least and most share of the area, default 0.02 to 1/3.
        ratio: Least and most height over width, drawn evenly on a logarithmic scale; default 0.3 to 3.3.
        fill: Value of each channel, 0 to 255 (the data set's mean is what zeros are after normalisation); ``None``
            (default): every value is drawn.

    Raises:
        InputError: Out of bounds; later, a fill of another number of channels, or frames that are not uint8.
        InputTypeError: Not numbers.

    Source: Zhong, Zheng, Kang, Li and Yang, "Random erasing data augmentation", AAAI 2020.

    Examples:
        >>> import numpy as np
        >>> from jellyfit import images
        >>> picture = np.zeros((1, 1, 32, 32), np.uint8)
        >>> int(images.RandomErasing(p=1.0, fill=[1])(picture, np.random.default_rng(0)).sum())
        108
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.02, 1 / 3),
        ratio: tuple[float, float] = (0.3, 3.3),
        fill: Sequence[int] | None = None,
    ) -> None:
        self.p = check_probability("p", p)
        self.scale = check_range("scale", scale, 0.0, 1.0)
        self.ratio = check_range("ratio", ratio, 0.0, math.inf)
        check_number("ratio", self.ratio[0], above=0)
        self.fill = None if fill is None else tuple(check_whole("fill", value, 0, 255) for value in fill)

    def transform(self, frames: Tensor, rng: np.random.Generator) -> Tensor:
        if frames.dtype != torch.uint8:
            raise InputError(f"{self!r} erases frames of uint8, 0 to 255; got {frames.dtype}.")
        channels, height, width = frames.shape[-3:]
        if self.fill is not None and len(self.fill) != channels:
            raise InputError(f"{self!r}: the frames have {channels} channels; give as many values.")
        if rng.uniform() >= self.p:
            return frames
        low, high = (math.log(end) for end in self.ratio)
        for _ in range(_TRIES):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(low, high))
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < h <= height and 0 < w <= width:
                top, left = int(rng.integers(height - h, endpoint=True)), int(rng.integers(width - w, endpoint=True))
                frames = frames.clone()
                frames[..., top : top + h, left : left + w] = self._filling(channels, h, w, rng)
                break
        return frames

    def _filling(self, channels: int, height: int, width: int, rng: np.random.Generator) -> Tensor:
        if self.fill is None:
            return torch.from_numpy(rng.integers(0, 256, (channels, height, width), dtype=np.uint8))
        return torch.tensor(self.fill, dtype=torch.uint8).view(-1, 1, 1)
