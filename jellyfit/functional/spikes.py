"""Losses on spikes, and labels for populations of output neurons."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from jellyfit.errors import InputError
from jellyfit.losses import PerStepCrossEntropy

__all__ = [
    "first_spike_index",
    "kernel_dot_product",
    "redundant_one_hot",
    "spike_similar_loss",
    "temporal_efficient_training_cross_entropy",
]


def first_spike_index(spikes: Tensor) -> Tensor:
    """Mark the first spike of every neuron.

    Args:
        spikes: ``[*, T]``, 0 or 1, time last.

    Returns:
        Boolean ``[*, T]``: True at the first spike alone; all False for a neuron that never spikes.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> functional.first_spike_index(torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
        tensor([[False,  True, False],
                [False, False, False]])
    """
    fired = spikes != 0
    return fired & (fired.cumsum(-1) == 1)


Kernel = Literal["linear", "sigmoid", "polynomial", "gaussian"]


def kernel_dot_product(x: Tensor, y: Tensor, kernel: Kernel = "linear", *args: float) -> Tensor:
    """Similarity of every vector of ``x`` with every vector of ``y``.

    Kernels: ``"linear"`` ``<x, y>``; ``"sigmoid"`` ``σ(α <x, y>)``; ``"polynomial"`` ``<x, y>^p``; ``"gaussian"``
    ``exp(-|x - y|² / (2 σ²))``.

    Args:
        x: ``[N, D]``.
        y: ``[M, D]``.
        kernel: one of the four, default ``"linear"``.
        *args: the kernel's number: α, p or σ.

    Returns:
        ``[N, M]``.

    Raises:
        InputError: wrong shapes, an unknown kernel, or not as many numbers as it takes.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
        >>> functional.kernel_dot_product(x, x, "polynomial", 2.0)
        tensor([[1., 1.],
                [1., 4.]])
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise InputError(
            f"kernel_dot_product: expected x [N, D] and y [M, D]; got {list(x.shape)} and {list(y.shape)}."
        )
    takes = {"linear": 0, "sigmoid": 1, "polynomial": 1, "gaussian": 1}.get(kernel)
    if takes is None:
        raise InputError(
            f"kernel_dot_product(kernel={kernel!r}): expected 'linear', 'sigmoid', 'polynomial' or 'gaussian'."
        )
    if len(args) != takes:
        raise InputError(f"kernel_dot_product: the {kernel} kernel takes {takes} numbers; got {len(args)}: {args}.")
    products = x @ y.t()
    if kernel == "linear":
        return products
    if kernel == "sigmoid":
        return torch.sigmoid(args[0] * products)
    if kernel == "polynomial":
        return products ** args[0]
    squares = x.square().sum(1, keepdim=True) + y.square().sum(1) - 2.0 * products
    return torch.exp(squares.clamp(min=0.0) / (-2.0 * args[0] ** 2))


def spike_similar_loss(
    spikes: Tensor,
    labels: Tensor,
    kernel_type: Kernel = "linear",
    loss_type: Literal["mse", "l1", "bce"] = "mse",
    *args: float,
) -> Tensor:
    """Samples of the same class should spike alike, others not.

    The kernel of every pair of samples (:func:`kernel_dot_product` of their flattened spikes; for the linear kernel of
    the spikes scaled to length 1, so the cosine) is compared with 1 for a common class, 0 for none.

    Args:
        spikes: ``[N, *]``.
        labels: classes ``[N]`` (integers), or ``[N, C]``, one-hot or several hot.
        kernel_type: see :func:`kernel_dot_product`.
        loss_type: ``"mse"`` (default), ``"l1"`` or ``"bce"``, which needs values from 0 to 1: kernel ``"linear"`` of
            spikes, ``"sigmoid"`` or ``"gaussian"``.
        *args: the kernel's number.

    Returns:
        The mean over all pairs, a scalar.

    Raises:
        InputError: wrong shapes, an unknown kernel or loss, or ``"bce"`` with the polynomial kernel.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> spikes = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> functional.spike_similar_loss(spikes, torch.tensor([0, 0, 1]))
        tensor(0.)
    """
    if spikes.ndim < 2 or labels.ndim not in (1, 2) or labels.shape[0] != spikes.shape[0]:
        raise InputError(
            "spike_similar_loss: expected spikes [N, *] and labels [N] or [N, C]; got "
            f"{list(spikes.shape)} and {list(labels.shape)}."
        )
    flat = spikes.flatten(1)
    if kernel_type == "linear":
        flat = F.normalize(flat, dim=1)
    found = kernel_dot_product(flat, flat, kernel_type, *args)
    together = labels[:, None] == labels if labels.ndim == 1 else labels.to(found.dtype) @ labels.to(found.dtype).t()
    wanted = together.to(found.dtype)
    if loss_type == "mse":
        return F.mse_loss(found, wanted)
    if loss_type == "l1":
        return F.l1_loss(found, wanted)
    if loss_type != "bce":
        raise InputError(f"spike_similar_loss(loss_type={loss_type!r}): expected 'mse', 'l1' or 'bce'.")
    if kernel_type == "polynomial":
        raise InputError("spike_similar_loss: 'bce' needs values from 0 to 1, which the polynomial kernel exceeds.")
    return F.binary_cross_entropy(found.clamp(max=1.0), wanted)  # a cosine may exceed 1 by a rounding


def redundant_one_hot(labels: Tensor, num_classes: int, n: int) -> Tensor:
    """One-hot labels for a population of ``n`` output neurons a class.

    Args:
        labels: classes ``[N]`` (integers).
        num_classes: number of classes ``C``.
        n: neurons a class.

    Returns:
        ``[N, C·n]``, float: 1 at all neurons of the sample's class.

    Raises:
        InputError: ``n`` below 1, or a label that is no class.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> functional.redundant_one_hot(torch.tensor([1]), num_classes=3, n=2)
        tensor([[0., 0., 1., 1., 0., 0.]])
    """
    if n < 1:
        raise InputError(f"redundant_one_hot(n={n!r}): expected at least 1 neuron a class.")
    if labels.ndim != 1 or (labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes):
        raise InputError(
            f"redundant_one_hot: expected labels [N] from 0 to {num_classes - 1}; got shape {list(labels.shape)}"
            + (f" with values {int(labels.min())} to {int(labels.max())}." if labels.numel() else ".")
        )
    return F.one_hot(labels.long(), num_classes).repeat_interleave(n, dim=1).float()


def temporal_efficient_training_cross_entropy(x_seq: Tensor, target: Tensor) -> Tensor:
    """Cross entropy at every step, averaged over time (TET).

    The function of :class:`~jellyfit.losses.PerStepCrossEntropy`, which has more options.

    Args:
        x_seq: outputs ``[T, N, C]``.
        target: classes ``[N]``.

    Raises:
        InputError: wrong shapes or labels.
        InputTypeError: labels that are not integers.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> functional.temporal_efficient_training_cross_entropy(torch.zeros(4, 2, 5), torch.tensor([0, 3]))
        tensor(1.6094)

    Source: Deng et al., "Temporal efficient training of spiking neural network via gradient re-weighting", ICLR 2022.
    """
    return PerStepCrossEntropy()(x_seq, target)  # type: ignore[no-any-return]
