"""MS ResNet: residual networks whose shortcuts carry membrane potentials, and whose convolutions see spikes alone."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from jellyfit import layers
from jellyfit.backbones.images import ImageBackbone, Norm, Parts, check_choice, check_positive, fire, zero_weights
from jellyfit.backbones.resnet import Stem, add_stages, blocks_of
from jellyfit.neurons import BaseNode, LIFNode
from jellyfit.surrogates import Rect

__all__ = ["MSResNet"]

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 104: (3, 8, 32, 8)}  # of each stage


class _MSBlock(nn.Module):
    """Neuron, convolution, norm, twice; added to the shortcut, with no neuron behind the sum."""

    def __init__(self, in_channels: int, channels: int, stride: int, pools: bool, parts: Parts) -> None:
        super().__init__()
        self.spike1 = parts.neuron()
        self.conv1 = layers.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = parts.norm(channels)
        self.spike2 = parts.neuron()
        self.conv2 = layers.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = parts.norm(channels)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or in_channels != channels:
            self.downsample = nn.Sequential()
            if pools and stride > 1:  # odd sizes are rounded up, as a convolution of that stride does
                self.downsample.append(layers.AvgPool2d(stride, ceil_mode=True))
                stride = 1
            self.downsample.append(layers.Conv2d(in_channels, channels, 1, stride, bias=False))
            self.downsample.append(parts.norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.spike1(x))
        y = self.conv2(fire(self.bn1, self.spike2, y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.bn2(y) + shortcut  # type: ignore[no-any-return]


class MSResNet(ImageBackbone):
    """Membrane-shortcut (MS) ResNet: neuron, convolution, norm, twice, added to a shortcut of real values.

    No neuron stands behind the sum, so an untrained network of any depth passes its input on. Input
    ``[T, N, C, H, W]``, output ``[T, N, num_classes]``: the real values of the linear layer. Weights of SpikingJelly's
    networks load as they are, those of ResNets that are not spiking with
    :func:`~jellyfit.backbones.load_ann_state_dict`.

    Parameters with 1000 classes: 11,693,736 (18), 21,801,896 (34), 77,350,504 (104).

    Args:
        depth: 18, 34 or 104 layers with weights. With 104 the stem is three convolutions 3x3, and shortcuts that
            shrink average before they convolve.
        num_classes: number of outputs, default 1000.
        in_channels: channels of a frame, default 3.
        base_channels: of the first stage, default 64; the others have 2, 4 and 8 times as many.
        stem: ``"imagenet"`` (default): convolution of stride 2, and a first stage of stride 2; ``"small"``: conv 3x3 of
            stride 1, and a first stage of stride 1, for frames of about 32x32.
        zero_init_residual: start every block as its shortcut: the last norm's weights are 0; default ``True``.
        neuron: template of every neuron layer; default the paper's, ``LIFNode(4 / 3, decay_input=False,
            v_threshold=0.5, surrogate_function=Rect(1.0), detach_reset=True)``. (SpikingJelly takes ``Rect(2.0)``.)
        norm: class of the norms, or what makes one for a number of channels; default
            ``layers.ThresholdDependentBatchNorm2d``, whose weights start at the neuron's threshold.
        dropout: share of the linear layer's inputs that is dropped for a whole sequence; default 0. (The authors'
            program has 0.2 with 104 layers.)
        checkpoint_blocks: see :class:`~jellyfit.backbones.ImageBackbone`.
        carry_state: see :class:`~jellyfit.backbones.Backbone`.

    Raises:
        InputError: another depth or stem, sizes below 1; in the forward pass, other frames.
        ConfigError: ``zero_init_residual`` with a norm that has no weights.

    Source: Hu et al., "Advancing spiking neural networks toward deep residual learning", IEEE Transactions on Neural
    Networks and Learning Systems 36 (2025).

    Examples:
        >>> import torch
        >>> from jellyfit.backbones import MSResNet
        >>> net = MSResNet(18, num_classes=10, base_channels=4, stem="small")
        >>> net(torch.zeros(4, 2, 3, 32, 32)).shape
        torch.Size([4, 2, 10])
    """

    def __init__(
        self,
        depth: Literal[18, 34, 104],
        num_classes: int = 1000,
        in_channels: int = 3,
        base_channels: int = 64,
        stem: Stem = "imagenet",
        zero_init_residual: bool = True,
        neuron: BaseNode | None = None,
        norm: Norm | None = None,
        dropout: float = 0.0,
        checkpoint_blocks: bool = False,
        carry_state: bool = False,
    ) -> None:
        super().__init__(num_classes, in_channels, checkpoint_blocks, carry_state)
        check_choice("MSResNet", "depth", depth, _BLOCKS)
        check_choice("MSResNet", "stem", stem, ("imagenet", "small"))
        check_positive("MSResNet", base_channels=[base_channels])
        if neuron is None:
            neuron = LIFNode(4 / 3, decay_input=False, v_threshold=0.5, surrogate_function=Rect(1.0), detach_reset=True)
        parts = Parts(neuron, norm or layers.ThresholdDependentBatchNorm2d)
        stride = 2 if stem == "imagenet" else 1
        deep, c = depth == 104, base_channels
        if deep:  # with biases, as the authors' program has them
            convolutions = [layers.Conv2d(in_channels, c, 3, stride, 1)]
            convolutions += [layers.Conv2d(c, c, 3, 1, 1) for _ in range(2)]
        else:
            kernel = 7 if stem == "imagenet" else 3
            convolutions = [layers.Conv2d(in_channels, c, kernel, stride, kernel // 2, bias=False)]
        self.stem = nn.Sequential(*convolutions, parts.norm(c))

        def block(i: int, first: bool) -> _MSBlock:
            channels = base_channels << i
            before = channels // 2 if first and i > 0 else channels
            return _MSBlock(before, channels, (2 if i > 0 else stride) if first else 1, deep, parts)

        add_stages(self, _BLOCKS[depth], block)
        self.head_lif = parts.neuron()
        self.avgpool = layers.AdaptiveAvgPool2d(1)
        self.dropout = layers.Dropout(dropout)
        self.head = layers.Linear(8 * base_channels, num_classes)
        if zero_init_residual:
            for residual in blocks_of(self):
                zero_weights("MSResNet", residual.get_submodule("bn2"))
        self.set_step_mode("m")

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W] -> [T, N, num_classes]`` (without ``T`` in single-step mode)."""
        self.check_frames(x)
        y = self.head_lif(self.run_blocks(blocks_of(self), self.stem(x)))
        return self.head(self.dropout(self.avgpool(y).flatten(-3)))  # type: ignore[no-any-return]
