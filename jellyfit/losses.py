"""Readouts and losses over time.

A network gives a sequence ``y_seq [T, N, C]``: spikes or real values. A *readout* turns it into scores ``[N, C]``, from
which predictions are made; a *loss* compares it with class labels ``[N]`` (int64). Every loss names the readout that
goes with it as :attr:`Loss.readout`. Samples shorter than the batch are padded at the end and come with their
``lengths [N]`` in time steps: what lies behind counts for nothing. All losses compute in float32 or wider.

Where samples are mixed, a label is a vector of the shares of the classes, ``[N, C]``, floats that sum to 1; every loss
takes these too. What a sample is counted as is then the class with the largest share (:func:`hard_labels`).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jellyfit.errors import InputError, InputTypeError

__all__ = [
    "TET",
    "Loss",
    "MembraneCrossEntropy",
    "MembraneReadout",
    "PerStepCrossEntropy",
    "RateCrossEntropy",
    "RateMSE",
    "RateReadout",
    "Readout",
    "hard_labels",
    "padding_mask",
    "soft_labels",
]


def _check_outputs(y_seq: Tensor) -> None:
    if y_seq.ndim != 3 or y_seq.shape[0] == 0:
        raise InputError(
            f"expected the network's output as [T, N, C] with T >= 1; got shape {list(y_seq.shape)}. A backbone in "
            "multi-step mode gives one value a class and time step."
        )


def _check_labels(y_seq: Tensor, target: Tensor) -> None:
    _check_outputs(y_seq)
    _, batch, classes = y_seq.shape
    if target.is_floating_point() and target.ndim == 2:
        _check_shares(target, batch, classes)
        return
    if target.is_floating_point() or target.dtype == torch.bool:
        raise InputTypeError(f"expected class labels as integers; got dtype {target.dtype}. Use target.long().")
    if target.shape != (batch,):
        swapped = target.shape == (y_seq.shape[0],)
        raise InputError(
            f"expected labels of shape [{batch}], one a sample; got {list(target.shape)}."
            + (" If the output is [N, T, C], give functional.time_first(output)." if swapped else "")
        )
    if target.device.type == "cpu" and batch and not 0 <= int(target.min()) <= int(target.max()) < classes:
        raise InputError(
            f"labels run from {int(target.min())} to {int(target.max())}, but the network has {classes} outputs "
            f"(labels 0 to {classes - 1}). Set the backbone's num_classes to the data's."
        )


def _check_shares(target: Tensor, batch: int, classes: int) -> None:
    if target.shape != (batch, classes):
        raise InputError(
            f"expected labels as shares of classes of shape [{batch}, {classes}]; got {list(target.shape)}. Set the "
            "backbone's num_classes to the data's."
        )
    if target.device.type == "cpu" and batch:
        fits = (target >= 0).all(1) & ((target.sum(1) - 1).abs() <= 1e-2)
        if not bool(fits.all()):
            first = int((~fits).nonzero()[0])
            raise InputError(
                f"labels as shares of classes must be at least 0 and sum to 1; those of sample {first} are "
                f"{target[first].tolist()}."
            )


def soft_labels(target: Tensor, num_classes: int) -> Tensor:
    """Class labels as shares of classes: 1 for the sample's class, 0 for the others.

    Args:
        target: Class labels ``[N]``, integers; or shares ``[N, C]``, which are given back.
        num_classes: C.

    Returns:
        Shares ``[N, C]``, floating-point.

    Raises:
        InputError: Labels outside 0 to C - 1, shares of another shape.

    Examples:
        >>> import torch
        >>> from jellyfit.losses import soft_labels
        >>> soft_labels(torch.tensor([2, 0]), 3).tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    if target.is_floating_point():
        _check_shares(target, len(target), num_classes)
        return target
    if target.device.type == "cpu" and len(target) and not 0 <= int(target.min()) <= int(target.max()) < num_classes:
        raise InputError(
            f"labels run from {int(target.min())} to {int(target.max())}; expected 0 to {num_classes - 1}."
        )
    return F.one_hot(target.long(), num_classes).float()


def hard_labels(target: Tensor) -> Tensor:
    """The class of every sample: its label, or the class with the largest share of it.

    Args:
        target: Class labels ``[N]``, integers; or shares of classes ``[N, C]``, floating-point.

    Returns:
        Class labels ``[N]``, int64.

    Examples:
        >>> import torch
        >>> from jellyfit.losses import hard_labels
        >>> hard_labels(torch.tensor([[0.3, 0.7], [1.0, 0.0]])).tolist(), hard_labels(torch.tensor([1, 0])).tolist()
        ([1, 0], [1, 0])
    """
    return target.argmax(-1) if target.is_floating_point() else target.long()


def padding_mask(lengths: Tensor, T: int) -> Tensor:
    """Where samples have not ended.

    Args:
        lengths: Valid time steps of each sample ``[N]``, integers from 1 to T.
        T: Time steps of the batch.

    Returns:
        ``[T, N]``, True where step t belongs to sample n, False where it is padding.

    Raises:
        InputError: Lengths outside 1 to T.

    Examples:
        >>> import torch
        >>> from jellyfit.losses import padding_mask
        >>> padding_mask(torch.tensor([3, 1]), T=3).tolist()
        [[True, True], [True, False], [True, False]]
    """
    if lengths.ndim != 1 or (len(lengths) and not 1 <= int(lengths.min()) <= int(lengths.max()) <= T):
        raise InputError(f"lengths: expected values [N] from 1 to T = {T}; got {lengths.tolist()}.")
    return torch.arange(T, device=lengths.device)[:, None] < lengths


def _valid(y_seq: Tensor, lengths: Tensor) -> Tensor:
    """Mask ``[T, N, 1]``: True where a sample has not ended."""
    steps, batch, _ = y_seq.shape
    if lengths.shape != (batch,) or (batch and not 1 <= int(lengths.min()) <= int(lengths.max()) <= steps):
        raise InputError(f"lengths: expected {batch} values from 1 to T = {steps}; got {lengths.tolist()}.")
    return padding_mask(lengths.to(y_seq.device), steps).unsqueeze(-1)


def _comparable(target: Tensor, scores: Tensor) -> Tensor:
    """Labels as cross entropy takes them: integers, or shares of the scores' dtype."""
    return target.to(scores.dtype) if target.is_floating_point() else target.long()


def _time_mean(y_seq: Tensor, lengths: Tensor | None) -> Tensor:
    """Mean over the valid steps, ``[N, *]``."""
    if lengths is None:
        return y_seq.mean(0)
    total = y_seq.masked_fill(~_valid(y_seq, lengths), 0.0).sum(0)
    return total / lengths.to(y_seq.device).unsqueeze(-1)


def _wide(x: Tensor) -> Tensor:
    """At least float32, whatever autocast made of the outputs."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class Readout(nn.Module):
    """Base of all readouts: ``forward(y_seq [T, N, C], lengths=None) -> scores [N, C]``; the largest score wins.

    Examples:
        >>> import torch
        >>> from jellyfit.losses import Readout
        >>> class Last(Readout):
        ...     def forward(self, y_seq, lengths=None):
        ...         return y_seq[-1]
        >>> Last()(torch.tensor([[[0.0, 1.0]], [[2.0, 3.0]]])).tolist()
        [[2.0, 3.0]]
    """

    def forward(self, y_seq: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Scores ``[N, C]``; ``lengths [N]``: valid time steps of each sample (default all). Subclasses write it."""
        raise TypeError(f"{type(self).__name__} must define forward(self, y_seq, lengths=None)")


class RateReadout(Readout):
    """Mean over time: firing rates of spiking outputs, mean logits of real-valued ones.

    Examples:
        >>> import torch
        >>> from jellyfit.losses import RateReadout
        >>> RateReadout()(torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]]])).tolist()
        [[0.5, 1.0]]
    """

    def forward(self, y_seq: Tensor, lengths: Tensor | None = None) -> Tensor:
        _check_outputs(y_seq)
        return _time_mean(_wide(y_seq), lengths)


class MembraneReadout(Readout):
    """Membrane potential of an output neuron that never fires: ``v = v + (y - v) / τ``, or ``v = v + y`` without leak.

    Args:
        mode: which value of the potential over time counts: ``"last"`` (default), ``"max"`` or ``"mean"``.
        tau: time constant in time steps, at least 1; ``None`` (default) integrates without a leak.

    Examples:
        >>> import torch
        >>> from jellyfit.losses import MembraneReadout
        >>> y_seq = torch.tensor([[[1.0, 3.0]], [[2.0, -1.0]]])
        >>> MembraneReadout()(y_seq).tolist(), MembraneReadout("max")(y_seq).tolist()
        ([[3.0, 2.0]], [[3.0, 3.0]])
    """

    def __init__(self, mode: Literal["last", "max", "mean"] = "last", tau: float | None = None) -> None:
        super().__init__()
        if mode not in ("last", "max", "mean"):
            raise InputError(f"MembraneReadout(mode={mode!r}): expected 'last', 'max' or 'mean'.")
        if tau is not None and not tau >= 1.0:
            raise InputError(f"MembraneReadout(tau={tau!r}): expected None or a time constant of at least 1.")
        self.mode = mode
        self.tau = tau

    def potentials(self, y_seq: Tensor) -> Tensor:
        """The potential after every step, ``[T, N, C]``."""
        _check_outputs(y_seq)
        y_seq = _wide(y_seq)
        if self.tau is None:
            return y_seq.cumsum(0)
        v = torch.zeros_like(y_seq[0])
        steps = []
        for y in y_seq.unbind(0):
            v = v + (y - v) / self.tau
            steps.append(v)
        return torch.stack(steps)

    def forward(self, y_seq: Tensor, lengths: Tensor | None = None) -> Tensor:
        v_seq = self.potentials(y_seq)
        if self.mode == "mean":
            return _time_mean(v_seq, lengths)
        if lengths is None:
            return v_seq[-1] if self.mode == "last" else v_seq.amax(0)
        valid = _valid(v_seq, lengths)
        if self.mode == "max":
            return v_seq.masked_fill(~valid, float("-inf")).amax(0)
        return v_seq[lengths.to(v_seq.device) - 1, torch.arange(v_seq.shape[1], device=v_seq.device)]

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}, tau={self.tau}"


class Loss(nn.Module):
    """Base of all losses: ``forward(y_seq [T, N, C], target [N], lengths=None) -> scalar``.

    ``target`` holds class numbers ``[N]`` or shares of classes ``[N, C]``.

    Args:
        readout: what predictions are made with under this loss; default :class:`RateReadout`.

    Examples:
        >>> import torch
        >>> from jellyfit.losses import Loss
        >>> class Hinge(Loss):
        ...     def forward(self, y_seq, target, lengths=None):
        ...         return torch.nn.functional.multi_margin_loss(self.readout(y_seq, lengths), target)
        >>> Hinge()(torch.tensor([[[2.0, 0.0]]]), torch.tensor([0])).item()
        0.0
    """

    def __init__(self, readout: Readout | None = None) -> None:
        super().__init__()
        self.readout = RateReadout() if readout is None else readout

    def forward(self, y_seq: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The loss, a scalar; ``lengths [N]`` as in :class:`Readout`. Subclasses write it."""
        raise TypeError(f"{type(self).__name__} must define forward(self, y_seq, target, lengths=None)")


class _CrossEntropy(Loss):
    def __init__(self, label_smoothing: float, readout: Readout | None = None) -> None:
        super().__init__(readout)
        if not 0.0 <= label_smoothing <= 1.0:
            raise InputError(f"{type(self).__name__}(label_smoothing={label_smoothing!r}): expected 0 to 1.")
        self.label_smoothing = label_smoothing

    def forward(self, y_seq: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor:
        _check_labels(y_seq, target)
        scores = self.readout(y_seq, lengths)
        return F.cross_entropy(scores, _comparable(target, scores), label_smoothing=self.label_smoothing)


class RateCrossEntropy(_CrossEntropy):
    """Cross entropy of the mean over time: ``CE(mean_t y, target)``.

    Args:
        label_smoothing: 0 (default) to 1.

    Examples:
        >>> import torch
        >>> from jellyfit.losses import RateCrossEntropy
        >>> loss = RateCrossEntropy()(torch.zeros(4, 2, 3), torch.tensor([0, 2]))
        >>> round(loss.item(), 4)  # ln 3
        1.0986
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing)


class MembraneCrossEntropy(_CrossEntropy):
    """Cross entropy of an output membrane potential, see :class:`MembraneReadout`.

    Args:
        mode: ``"last"`` (default), ``"max"`` or ``"mean"``.
        tau: time constant in time steps; ``None`` (default): no leak.
        label_smoothing: 0 (default) to 1.

    Examples:
        >>> import torch
        >>> from jellyfit.losses import MembraneCrossEntropy
        >>> loss = MembraneCrossEntropy("max")(torch.zeros(4, 2, 3), torch.tensor([0, 2]))
        >>> round(loss.item(), 4)
        1.0986
    """

    def __init__(
        self,
        mode: Literal["last", "max", "mean"] = "last",
        tau: float | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(label_smoothing, MembraneReadout(mode, tau))


class RateMSE(Loss):
    """Mean squared error between firing rates and the one-hot label, averaged over samples and classes.

    Examples:
        >>> import torch
        >>> from jellyfit.losses import RateMSE
        >>> RateMSE()(torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]]), torch.tensor([0])).item()
        0.125
    """

    def forward(self, y_seq: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor:
        _check_labels(y_seq, target)
        rate = self.readout(y_seq, lengths)
        return F.mse_loss(rate, soft_labels(target, rate.shape[-1]).to(rate.dtype))


class PerStepCrossEntropy(Loss):
    """Cross entropy at every step, averaged over time; and, if wanted, a term that pulls outputs towards a value.

    ``L = (1 - λ) (1/T) Σ_t CE(y_t, target) + λ mean((y - φ)²)``; with the paper's λ this is
    :class:`TET`.

    Args:
        label_smoothing: 0 (default) to 1.
        mse_weight: λ, 0 (default) to 1: weight of the term that pulls outputs towards φ.
        mse_target: φ, default 1 (a usual firing threshold).

    Source: Deng et al., "Temporal efficient training of spiking neural network via gradient re-weighting", ICLR 2022.

    Examples:
        >>> import torch
        >>> from jellyfit.losses import PerStepCrossEntropy
        >>> loss = PerStepCrossEntropy(mse_weight=0.5)(torch.zeros(4, 2, 3), torch.tensor([0, 2]))
        >>> round(loss.item(), 4)
        1.0493
    """

    def __init__(self, label_smoothing: float = 0.0, mse_weight: float = 0.0, mse_target: float = 1.0) -> None:
        super().__init__()
        for name, value in (("label_smoothing", label_smoothing), ("mse_weight", mse_weight)):
            if not 0.0 <= value <= 1.0:
                raise InputError(f"{type(self).__name__}({name}={value!r}): expected 0 to 1.")
        self.label_smoothing = label_smoothing
        self.mse_weight = mse_weight
        self.mse_target = mse_target

    def forward(self, y_seq: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor:
        _check_labels(y_seq, target)
        y_seq = _wide(y_seq)
        labels = torch.cat([_comparable(target, y_seq)] * len(y_seq))
        step_losses = F.cross_entropy(
            y_seq.flatten(0, 1), labels, label_smoothing=self.label_smoothing, reduction="none"
        ).view(*y_seq.shape[:2], 1)
        loss = _time_mean(step_losses, lengths).mean()
        if self.mse_weight:
            pull = _time_mean((y_seq - self.mse_target).square(), lengths).mean()
            loss = (1.0 - self.mse_weight) * loss + self.mse_weight * pull
        return loss


class TET(PerStepCrossEntropy):
    """Temporal efficient training (TET): :class:`PerStepCrossEntropy` with the names and defaults of its paper.

    ``L = (1 - λ) (1/T) Σ_t CE(y_t, target) + λ mean((y - φ)²)``.

    Args:
        lamb: λ, default 1e-3 (0 to 1).
        means: φ, default 1.
        label_smoothing: 0 (default) to 1.

    Raises:
        InputError: λ or the label smoothing outside 0 to 1.

    Source: Deng et al., "Temporal efficient training of spiking neural network via gradient re-weighting", ICLR 2022.

    Examples:
        >>> import torch
        >>> from jellyfit.losses import TET
        >>> loss = TET(lamb=0.5)(torch.zeros(4, 2, 3), torch.tensor([0, 2]))
        >>> round(loss.item(), 4)  # half of ln 3, half of 1
        1.0493
    """

    def __init__(self, lamb: float = 1e-3, means: float = 1.0, label_smoothing: float = 0.0) -> None:
        if not 0.0 <= lamb <= 1.0:
            raise InputError(f"TET(lamb={lamb!r}): expected 0 to 1.")
        super().__init__(label_smoothing, lamb, means)
