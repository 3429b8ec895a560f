"""PLIF-Nets: the plain convolutional networks that came with the parametric LIF neuron, one for each data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from jellyfit import layers
from jellyfit.backbones.images import ImageBackbone, Norm, Parts, check_choice, check_positive
from jellyfit.errors import InputError
from jellyfit.neurons import BaseNode, ParametricLIFNode
from jellyfit.surrogates import ATan

__all__ = ["PLIFNet"]


@dataclass(frozen=True)
class _Variant:
    in_channels: int
    size: int  # height and width of a frame
    channels: int
    convolutions: int  # a stage
    stages: int
    hidden: int  # neurons of the first fully connected layer
    num_classes: int = 10


_VARIANTS = {
    "mnist": _Variant(1, 28, 128, 1, 2, 2048),
    "fashion_mnist": _Variant(1, 28, 128, 1, 2, 2048),
    "nmnist": _Variant(2, 34, 128, 1, 2, 2048),
    "cifar10": _Variant(3, 32, 256, 3, 2, 2048),
    "cifar10dvs": _Variant(2, 128, 128, 1, 4, 512),
    "dvsgesture": _Variant(2, 128, 128, 1, 5, 512, num_classes=11),
}


class PLIFNet(ImageBackbone):
    """PLIF-Net: stages of conv 3x3, batch norm, neuron and max pool 2x2; two fully connected layers; voting.

    Input ``[T, N, C, H, W]``, output ``[T, N, num_classes]``: at every step the share of a class's neurons that fire.
    Weights of SpikingJelly's networks load as they are.

    | variant | frames | stages | hidden | parameters |
    |---|---|---|---|---|
    | ``mnist`` | 1 x 28 x 28 | 2 of one convolution, 128 channels | 2048 | 13,201,128 |
    | ``fashion_mnist`` | 1 x 28 x 28 | 2 of one, 128 | 2048 | 13,201,128 |
    | ``nmnist`` | 2 x 34 x 34 | 2 of one, 128 | 2048 | 17,134,440 |
    | ``cifar10`` | 3 x 32 x 32 | 2 of three, 256 | 2048 | 36,720,492 |
    | ``cifar10dvs`` | 2 x 128 x 128 | 4 of one, 128 | 512 | 4,691,818 |
    | ``dvsgesture`` | 2 x 128 x 128 | 5 of one, 128 | 512 | 1,698,933 |

    Args:
        variant: the data set that it was made for, see the table.
        num_classes: number of outputs; default 10, for ``"dvsgesture"`` 11.
        channels: of every convolution; default: the table's.
        in_channels: channels of a frame; default: the table's.
        input_size: height and width of a frame; default: the table's.
        neuron: template of every neuron layer; default the paper's,
            ``ParametricLIFNode(2.0, surrogate_function=ATan(), detach_reset=True)``.
        norm: class of the norms, or what makes one for a number of channels; default ``layers.BatchNorm2d``.
        dropout: share of the inputs of the fully connected layers that is dropped for a whole sequence; default 0.5.
        voting_size: neurons a class, default 10.
        checkpoint_blocks: see :class:`~jellyfit.backbones.ImageBackbone`; a block is a stage.
        carry_state: see :class:`~jellyfit.backbones.Backbone`.
        hidden: neurons of the first fully connected layer; default: the table's.

    Raises:
        InputError: another variant, sizes below 1, frames too small for the stages; in the forward pass, other frames.

    Source: Fang et al., "Incorporating learnable membrane time constant to enhance learning of spiking neural
    networks", ICCV 2021.

    Examples:
        >>> import torch
        >>> from jellyfit.backbones import PLIFNet
        >>> net = PLIFNet("nmnist", channels=8)
        >>> net(torch.zeros(4, 2, 2, 34, 34)).shape
        torch.Size([4, 2, 10])
    """

    def __init__(
        self,
        variant: Literal["mnist", "fashion_mnist", "nmnist", "cifar10", "cifar10dvs", "dvsgesture"],
        num_classes: int | None = None,
        channels: int | None = None,
        in_channels: int | None = None,
        input_size: tuple[int, int] | None = None,
        neuron: BaseNode | None = None,
        norm: Norm | None = None,
        dropout: float = 0.5,
        voting_size: int = 10,
        checkpoint_blocks: bool = False,
        carry_state: bool = False,
        hidden: int | None = None,
    ) -> None:
        check_choice("PLIFNet", "variant", variant, _VARIANTS)
        given = _VARIANTS[variant]
        super().__init__(
            given.num_classes if num_classes is None else num_classes,
            given.in_channels if in_channels is None else in_channels,
            checkpoint_blocks,
            carry_state,
        )
        channels = given.channels if channels is None else channels
        h, w = (given.size, given.size) if input_size is None else input_size
        hidden = given.hidden if hidden is None else hidden
        check_positive("PLIFNet", channels=[channels], input_size=[h, w], voting_size=[voting_size], hidden=[hidden])
        self.frame_size = h, w
        h, w = h >> given.stages, w >> given.stages
        if min(h, w) == 0:
            raise InputError(
                f"PLIFNet(variant={variant!r}, input_size={list(self.frame_size)}): {given.stages} stages halve such "
                "frames down to nothing. Use larger frames, or a variant with fewer stages."
            )
        if neuron is None:
            neuron = ParametricLIFNode(2.0, surrogate_function=ATan(), detach_reset=True)
        parts = Parts(neuron, norm or layers.BatchNorm2d)
        modules: list[nn.Module] = []
        c = self.in_channels
        for _ in range(given.stages):
            for _ in range(given.convolutions):
                conv = layers.Conv2d(c, channels, 3, padding=1, bias=False)
                modules += [conv, parts.norm(channels), parts.neuron()]
                c = channels
            modules.append(layers.MaxPool2d(2))
        modules.append(layers.Flatten())
        features = c * h * w
        for size in (hidden, self.num_classes * voting_size):
            modules += [layers.Dropout(dropout), layers.Linear(features, size), parts.neuron()]
            features = size
        self.conv_fc = layers.Sequential(*modules, layers.VotingLayer(voting_size))
        self.set_step_mode("m")

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W] -> [T, N, num_classes]`` (without ``T`` in single-step mode)."""
        self.check_frames(x)
        return self.run_stages(self.conv_fc, x)
