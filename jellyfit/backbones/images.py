"""What networks for frames share: what they are built from, which frames they take, blocks that are computed again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor, nn

from jellyfit import layers
from jellyfit.backbones.base import Backbone, neuron_from
from jellyfit.errors import ConfigError, InputError, InputTypeError
from jellyfit.neurons import BaseNode, StepModule

__all__ = ["ImageBackbone", "Norm", "Parts", "fire"]

Norm: TypeAlias = type[layers.BatchNorm2d] | Callable[[int], StepModule]
"""A class of batch norms, or what makes a norm when called with a number of channels."""


@dataclass(frozen=True)
class Parts:
    """Makes the neurons and norms of a network.

    Args:
        template: every neuron is a copy of it, see :func:`~jellyfit.backbones.neuron_from`.
        norm_type: called with the number of channels. A class of threshold-dependent batch norms is also told the
            template's threshold, and on how many paths the input of a neuron comes together.

    Raises:
        InputTypeError: ``template`` is no neuron, or ``norm_type`` makes no module with a step mode.
        InputError: a threshold-dependent norm, but the template has many thresholds.

    Examples:
        >>> from jellyfit import layers
        >>> from jellyfit.backbones import Parts
        >>> from jellyfit.neurons import LIFNode
        >>> parts = Parts(LIFNode(v_threshold=0.5), layers.ThresholdDependentBatchNorm2d)
        >>> parts.neuron().v_threshold, parts.norm(3).weight.tolist()
        (0.5, [0.5, 0.5, 0.5])
    """

    template: BaseNode
    norm_type: Norm = layers.BatchNorm2d

    def __post_init__(self) -> None:
        neuron_from(self.template)  # is it one?

    def neuron(self) -> BaseNode:
        """A new neuron."""
        return neuron_from(self.template)

    def norm(self, channels: int, paths: int = 1) -> StepModule:
        """A new norm; its output is one of ``paths`` that are added before a neuron."""
        make = self.norm_type
        if isinstance(make, type) and issubclass(make, layers.ThresholdDependentBatchNorm2d):
            return make(alpha=paths**-0.5, v_th=self._threshold(), num_features=channels)
        build: Callable[[int], object] = make
        norm = build(channels)
        if not isinstance(norm, StepModule):
            raise InputTypeError(
                f"norm={make!r} made {type(norm).__name__}; expected a norm with a step mode, such as "
                "layers.BatchNorm2d (not torch.nn.BatchNorm2d)."
            )
        return norm

    def _threshold(self) -> float:
        threshold = self.template.v_threshold
        if isinstance(threshold, Tensor) and threshold.numel() != 1:
            raise InputError(
                f"norm: a threshold-dependent batch norm starts at one threshold, but the neuron has "
                f"{list(threshold.shape)} of them. Give norm as a function of the number of channels."
            )
        return float(threshold)


def fire(norm: nn.Module, node: BaseNode, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """``node(norm(x) + residual)``, as one kernel where :func:`~jellyfit.layers.batch_norm_neuron` can.

    Args:
        norm: any norm.
        node: any neuron.
        x: a sequence or a step, as both take it.
        residual: of the same shape; default: none.

    Examples:
        >>> import torch
        >>> from jellyfit import layers, neurons
        >>> from jellyfit.backbones import fire
        >>> norm, node = layers.BatchNorm2d(3, step_mode="m"), neurons.IFNode(step_mode="m")
        >>> fire(norm, node, torch.zeros(5, 2, 3, 8, 8)).shape
        torch.Size([5, 2, 3, 8, 8])
    """
    return layers.batch_norm_neuron(norm, node, x, residual)


class ImageBackbone(Backbone):
    """Base of networks for frames: ``[T, N, C, H, W] -> [T, N, num_classes]``.

    A subclass calls :meth:`check_frames` first in its ``forward``.

    Attributes:
        frame_size: height and width that frames must have; ``None``: any.
        min_frame: least height and width.

    Args:
        num_classes: number of outputs.
        in_channels: channels of a frame, C.
        checkpoint_blocks: keep nothing of what happens inside a block for backward, but compute it once more: less
            memory for about a third more time, the same numbers (see :mod:`jellyfit.checkpointing`); default ``False``.
        carry_state: see :class:`~jellyfit.backbones.Backbone`.

    Raises:
        InputError: a number below 1; in the forward pass, frames that do not fit.

    Examples:
        >>> import torch
        >>> from jellyfit import layers, neurons
        >>> from jellyfit.backbones import ImageBackbone
        >>> class OneLayer(ImageBackbone):
        ...     def __init__(self):
        ...         super().__init__(num_classes=4, in_channels=2)
        ...         conv, pool = layers.Conv2d(2, 4, 3), layers.AdaptiveAvgPool2d(1)
        ...         self.blocks = torch.nn.Sequential(conv, neurons.LIFNode(), pool)
        ...         self.set_step_mode("m")
        ...
        ...     def forward(self, x):
        ...         self.check_frames(x)
        ...         return self.run_blocks(self.blocks, x).flatten(-3)
        >>> OneLayer()(torch.zeros(5, 1, 2, 8, 8)).shape
        torch.Size([5, 1, 4])
    """

    frame_size: tuple[int, int] | None = None
    min_frame: int = 1

    def __init__(
        self, num_classes: int, in_channels: int, checkpoint_blocks: bool = False, carry_state: bool = False
    ) -> None:
        super().__init__(carry_state)
        check_positive(type(self).__name__, num_classes=[num_classes], in_channels=[in_channels])
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.checkpoint_blocks = checkpoint_blocks

    def check_frames(self, x: Tensor) -> None:
        """Raise :class:`~jellyfit.errors.InputError` unless ``x`` holds frames that this network takes."""
        lead = 2 if self.step_mode == "m" else 1
        shape = tuple(x.shape[lead:])
        fits = len(shape) == 3 and shape[0] == self.in_channels and min(shape[1:]) >= self.min_frame
        if not fits or self.frame_size not in (None, shape[1:]):
            sizes = [f"C = {self.in_channels}"]
            if self.frame_size is not None:
                sizes += [f"{axis} = {size}" for axis, size in zip("HW", self.frame_size, strict=True)]
            elif self.min_frame > 1:
                sizes.append(f"H and W at least {self.min_frame}")
            raise self.misfit(x, f"[N, C, H, W] with {', '.join(sizes)}")

    def run_blocks(self, blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
        """Run modules one after another; with ``checkpoint_blocks`` each of them is computed once more in backward."""
        if self.checkpoint_blocks and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            from jellyfit import checkpointing  # which needs Backbone

            return checkpointing.checkpoint_blocks(blocks, x)  # type: ignore[no-any-return]
        for block in blocks:
            x = block(x)
        return x

    def run_stages(self, stages: layers.Sequential, x: Tensor) -> Tensor:
        """Run a sequential; its blocks are what ends with a pooling layer."""
        if not self.checkpoint_blocks:
            return stages(x)  # type: ignore[no-any-return]
        ends = [i + 1 for i, layer in enumerate(stages) if isinstance(layer, (layers.MaxPool2d, layers.AvgPool2d))]
        cuts = sorted({0, *ends, len(stages)})
        return self.run_blocks([stages[a:b] for a, b in pairwise(cuts)], x)


def check_positive(name: str, **sizes: Sequence[int]) -> None:
    """Raise :class:`~jellyfit.errors.InputError` for an argument of ``name`` that holds a number below 1."""
    for argument, values in sizes.items():
        if any(value < 1 for value in values):
            raise InputError(f"{name}({argument}={list(values)}): every size must be at least 1.")


def check_choice(name: str, argument: str, value: object, choices: Iterable[object]) -> None:
    """Raise :class:`~jellyfit.errors.InputError` unless ``value`` is one of ``choices``."""
    known = list(choices)
    if value not in known:
        raise InputError(f"{name}({argument}={value!r}): expected one of {', '.join(map(repr, known))}.")


def init_convolutions(net: nn.Module) -> None:
    """Draw the weights of every convolution from Kaiming's normal distribution by its outputs; biases become 0."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def zero_weights(name: str, norm: nn.Module) -> None:
    """Set the weights of a norm to 0, so that its output is its bias; ``name`` is the network's, for the error."""
    weight = getattr(norm, "weight", None)
    if not isinstance(weight, Tensor):
        raise ConfigError(
            f"{name}(zero_init_residual=True): sets the weights of norms to 0, but {type(norm).__name__} has none. "
            "Set zero_init_residual=False, or take a norm with weights."
        )
    nn.init.zeros_(weight)
