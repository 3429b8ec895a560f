"""Augmentation of batches: samples are mixed with each other, and so are their labels.

A transform is called with a batch ``[T, N, *]``, its labels as shares of classes ``[N, C]`` (see
:func:`jellyfit.losses.soft_labels`), a NumPy generator, and the lengths of padded samples. A datamodule's
``batch_transforms`` takes a list of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from jellyfit.errors import InputError, InputTypeError
from jellyfit.events.draws import check_generator, check_number, check_probability, rectangle
from jellyfit.events.parameters import Parameterized

__all__ = ["BatchTransform", "CutMix", "Mixup"]


class BatchTransform(Parameterized, ABC):
    """Base of what mixes the samples of a batch: each with one other, drawn by a permutation, in the same proportion.

    Subclasses write :meth:`mix`.

    Args:
        alpha: Both parameters of the beta distribution of the share λ that a sample keeps, above 0.
        p: Probability to mix a batch at all.

    Raises:
        InputError: ``alpha`` is not finite and above 0, ``p`` not a probability.
        InputTypeError: Not numbers.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> from jellyfit import frames
        >>> class Halves(frames.BatchTransform):  # the second half of the time is the other's
        ...     def mix(self, x, other, share, rng):
        ...         half = len(x) // 2
        ...         return torch.cat([x[:half], other[half:]]), half / len(x)
        >>> x, y = torch.eye(2).expand(4, 2, 2), torch.eye(2)
        >>> x, y, lengths = Halves()(x, y, np.random.default_rng(1))
        >>> y.tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """

    def __init__(self, alpha: float = 1.0, p: float = 1.0) -> None:
        self.alpha = check_number("alpha", alpha, above=0)
        self.p = check_probability("p", p)

    @abstractmethod
    def mix(self, x: Tensor, other: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
        """Mix two batches ``[T, N, *]`` sample by sample.

        Args:
            x: The samples.
            other: Their partners, of the same shape.
            share: λ, the share of ``x`` that was drawn.
            rng: Source of further draws.

        Returns:
            The mixed batch, and the share of ``x`` in it for the labels.
        """

    def __call__(
        self, x: Tensor, y: Tensor, rng: np.random.Generator, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Mix a batch.

        Args:
            x: Samples ``[T, N, *]``; they are left as they are.
            y: Labels ``[N, C]``, shares of classes that sum to 1, floating-point.
            rng: Source of every draw.
            lengths: Valid time steps of each sample ``[N]`` where they differ.

        Returns:
            Mixed samples, labels, and lengths: a mixed sample is as long as the longer of its two.

        Raises:
            InputError: Shapes that do not fit.
            InputTypeError: Labels that are class numbers, not a generator.
        """
        check_generator(rng)
        if not y.is_floating_point():
            raise InputTypeError(
                f"labels to be mixed are shares of classes [N, C]; got {y.dtype}. Use losses.soft_labels(y, classes)."
            )
        if x.ndim < 2 or y.ndim != 2 or x.shape[1] != len(y):
            raise InputError(
                f"expected a batch [T, N, *] and labels [N, C]; got the shapes {list(x.shape)} and {list(y.shape)}."
            )
        if rng.uniform() >= self.p:
            return x, y, lengths
        partner = torch.from_numpy(rng.permutation(len(y))).to(x.device)
        x, share = self.mix(x, x[:, partner], float(rng.beta(self.alpha, self.alpha)), rng)
        if lengths is not None:
            lengths = torch.maximum(lengths, lengths[partner.to(lengths.device)])
        return x, share * y + (1 - share) * y[partner.to(y.device)], lengths


class Mixup(BatchTransform):
    """``λ x + (1 - λ) x'``, and the same of the labels; counts become float32.

    Args:
        alpha: Both parameters of λ's beta distribution, above 0; default 1.
        p: Probability to mix a batch, default 1.

    Raises:
        InputError: ``alpha`` is not finite and above 0, ``p`` not a probability.
        InputTypeError: Not numbers.

    Source: Zhang, Cisse, Dauphin and Lopez-Paz, "mixup: beyond empirical risk minimization", ICLR 2018.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> from jellyfit import frames
        >>> x, y = torch.eye(3).expand(5, 3, 3), torch.eye(3)
        >>> mixed, labels, _ = frames.Mixup()(x, y, np.random.default_rng(0))
        >>> mixed.shape, torch.equal(mixed[0], labels)
        (torch.Size([5, 3, 3]), True)
    """

    def mix(self, x: Tensor, other: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
        if not x.is_floating_point():
            x, other = x.float(), other.float()
        return share * x + (1 - share) * other, share


class CutMix(BatchTransform):
    """A rectangle of every frame comes from the other sample, and the labels in proportion to its area.

    The rectangle has ``sqrt(1 - λ)`` of either side, its centre is anywhere, and what lies outside is cut off.

    Args:
        alpha: Both parameters of λ's beta distribution, above 0; default 1.
        p: Probability to mix a batch, default 1.

    Raises:
        InputError: ``alpha`` is not finite and above 0, ``p`` not a probability; later, samples without pixels.
        InputTypeError: Not numbers.

    Source: Yun, Han, Oh, Chun, Choe and Yoo, "CutMix: regularization strategy to train strong classifiers with
    localizable features", ICCV 2019.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> from jellyfit import frames
        >>> x = torch.arange(2).view(1, 2, 1, 1, 1).expand(4, 2, 2, 8, 8)  # a sample of zeros, one of ones
        >>> mixed, labels, _ = frames.CutMix()(x, torch.eye(2), np.random.default_rng(1))
        >>> torch.equal(mixed.float().mean((0, 2, 3, 4)), labels[:, 1])
        True
    """

    def mix(self, x: Tensor, other: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
        if x.ndim < 4:
            raise InputError(f"CutMix mixes frames [T, N, C, H, W]; got the shape {list(x.shape)}.")
        height, width = x.shape[-2:]
        sides = np.sqrt(1 - share) * np.array([height, width])
        top, bottom, left, right = rectangle(rng, (height, width), int(sides[0]), int(sides[1]))
        x = x.clone()
        x[..., top:bottom, left:right] = other[..., top:bottom, left:right]
        return x, 1 - (bottom - top) * (right - left) / (height * width)
