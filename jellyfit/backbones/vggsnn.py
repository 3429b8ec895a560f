"""VGGSNN: the network of eight convolutions with which augmentation and losses for CIFAR10-DVS are compared."""

from __future__ import annotations

from torch import Tensor, nn

from jellyfit import layers
from jellyfit.backbones.images import ImageBackbone, Norm, Parts, check_positive, init_convolutions
from jellyfit.errors import InputError
from jellyfit.neurons import BaseNode, LIFNode
from jellyfit.surrogates import PiecewiseQuadratic

__all__ = ["VGGSNN"]

_STAGES = ((1, 2), (4, 4), (8, 8), (8, 8))  # of each convolution, times the channels of the first


class VGGSNN(ImageBackbone):
    """VGGSNN: four stages of twice conv 3x3, batch norm and neuron, each ending in average pool 2x2; a linear layer.

    Input ``[T, N, C, H, W]`` with frames of ``input_size``, output ``[T, N, num_classes]``: the real values of the
    linear layer. 9,271,498 parameters with 10 classes.

    Args:
        num_classes: number of outputs, default 10.
        in_channels: channels of a frame, default 2.
        base_channels: of the first convolution, default 64; the others have 2, 4, 4, 8, 8, 8 and 8 times as many.
        input_size: height and width of a frame, default 48, 48.
        neuron: template of every neuron layer; default the paper's: the input is added as it is, the potential halves
            in every step, ``LIFNode(2.0, decay_input=False, surrogate_function=PiecewiseQuadratic(1.0))``.
        norm: class of the norms, or what makes one for a number of channels; default ``layers.BatchNorm2d``.
        dropout: share of the last layer's inputs that is dropped for a whole sequence; default 0.
        checkpoint_blocks: see :class:`~jellyfit.backbones.ImageBackbone`; a block is a stage.
        carry_state: see :class:`~jellyfit.backbones.Backbone`.

    Raises:
        InputError: sizes below 1, frames below 16x16; in the forward pass, other frames.

    Source: Deng, Li, Zhang and Gu, "Temporal efficient training of spiking neural network via gradient re-weighting",
    ICLR 2022, and their program.

    Examples:
        >>> import torch
        >>> from jellyfit.backbones import VGGSNN
        >>> net = VGGSNN(base_channels=4)
        >>> net(torch.zeros(3, 2, 2, 48, 48)).shape
        torch.Size([3, 2, 10])
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 2,
        base_channels: int = 64,
        input_size: tuple[int, int] = (48, 48),
        neuron: BaseNode | None = None,
        norm: Norm | None = None,
        dropout: float = 0.0,
        checkpoint_blocks: bool = False,
        carry_state: bool = False,
    ) -> None:
        super().__init__(num_classes, in_channels, checkpoint_blocks, carry_state)
        h, w = input_size
        check_positive("VGGSNN", base_channels=[base_channels], input_size=[h, w])
        self.frame_size = h, w
        h, w = h >> len(_STAGES), w >> len(_STAGES)
        if min(h, w) == 0:
            raise InputError(
                f"VGGSNN(input_size={list(self.frame_size)}): four stages halve such frames down to nothing. Use "
                "frames of 16x16 or more."
            )
        if neuron is None:
            neuron = LIFNode(2.0, decay_input=False, surrogate_function=PiecewiseQuadratic(1.0))
        parts = Parts(neuron, norm or layers.BatchNorm2d)
        modules: list[nn.Module] = []
        c = in_channels
        for stage in _STAGES:
            for factor in stage:
                out = base_channels * factor
                modules += [layers.Conv2d(c, out, 3, padding=1), parts.norm(out), parts.neuron()]
                c = out
            modules.append(layers.AvgPool2d(2))
        self.features = layers.Sequential(*modules)
        head: list[nn.Module] = [layers.Dropout(dropout)] if dropout else []
        self.classifier = nn.Sequential(*head, layers.Linear(c * h * w, num_classes))
        init_convolutions(self)
        self.set_step_mode("m")

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W] -> [T, N, num_classes]`` (without ``T`` in single-step mode)."""
        self.check_frames(x)
        y = self.run_stages(self.features, x)
        return self.classifier(y.flatten(-3))  # type: ignore[no-any-return]
