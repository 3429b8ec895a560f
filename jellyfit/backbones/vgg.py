"""Spiking VGG: the VGG networks with neurons in place of ReLU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from jellyfit import layers
from jellyfit.backbones.images import ImageBackbone, Norm, Parts, check_choice, check_positive, init_convolutions
from jellyfit.errors import ConfigError
from jellyfit.neurons import BaseNode, IFNode
from jellyfit.surrogates import ATan

__all__ = ["SpikingVGG"]

_CONVOLUTIONS = {  # of each stage
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class SpikingVGG(ImageBackbone):
    """Spiking VGG: five stages of conv 3x3, batch norm and neuron, each ending in max pool 2x2; a spiking classifier.

    Input ``[T, N, C, H, W]`` with frames of 32x32 or more, output ``[T, N, num_classes]``: the real values of the last
    linear layer. Weights of SpikingJelly's networks, and of VGGs that are not spiking (see
    :func:`~jellyfit.backbones.load_ann_state_dict`), load as they are. For small frames use ``pool_size=1`` and
    ``hidden=[512]`` or none: with the original classifier nine parameters in ten are there.

    Parameters with batch norm and 1000 classes: 132,868,840 (11), 133,053,736 (13), 138,365,992 (16), 143,678,248 (19).

    Args:
        depth: 11, 13, 16 or 19 layers with weights.
        num_classes: number of outputs, default 1000.
        batch_norm: whether there is a norm behind every convolution; default ``True``: without it few spikes reach the
            deeper layers of an untrained network.
        in_channels: channels of a frame, default 3.
        base_channels: of the first stage, default 64; the others have 2, 4, 8 and 8 times as many.
        pool_size: height and width to which the last stage's output is averaged, default 7.
        hidden: neurons of the layers of the classifier before the last, default 4096, 4096.
        neuron: template of every neuron layer; default ``IFNode(surrogate_function=ATan(), detach_reset=True)``.
        norm: class of the norms, or what makes one for a number of channels; default ``layers.BatchNorm2d``.
        dropout: share of the classifier's spikes that is dropped for a whole sequence; default 0.5.
        checkpoint_blocks: see :class:`~jellyfit.backbones.ImageBackbone`; a block is a stage.
        carry_state: see :class:`~jellyfit.backbones.Backbone`.

    Raises:
        InputError: another depth, sizes below 1; in the forward pass, other frames.
        ConfigError: a norm is given, but ``batch_norm=False``.

    Source: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015;
    with spikes: Sengupta et al., "Going deeper in spiking neural networks: VGG and residual architectures", Frontiers
    in Neuroscience 13 (2019).

    Examples:
        >>> import torch
        >>> from jellyfit.backbones import SpikingVGG
        >>> net = SpikingVGG(11, num_classes=10, base_channels=4, pool_size=1, hidden=[])
        >>> net(torch.zeros(4, 2, 3, 32, 32)).shape
        torch.Size([4, 2, 10])
    """

    min_frame = 32

    def __init__(
        self,
        depth: Literal[11, 13, 16, 19],
        num_classes: int = 1000,
        batch_norm: bool = True,
        in_channels: int = 3,
        base_channels: int = 64,
        pool_size: int = 7,
        hidden: Sequence[int] = (4096, 4096),
        neuron: BaseNode | None = None,
        norm: Norm | None = None,
        dropout: float = 0.5,
        checkpoint_blocks: bool = False,
        carry_state: bool = False,
    ) -> None:
        super().__init__(num_classes, in_channels, checkpoint_blocks, carry_state)
        check_choice("SpikingVGG", "depth", depth, _CONVOLUTIONS)
        check_positive("SpikingVGG", base_channels=[base_channels], pool_size=[pool_size], hidden=hidden)
        if norm is not None and not batch_norm:
            raise ConfigError("SpikingVGG(batch_norm=False): a norm is given too. Leave one of the two out.")
        if neuron is None:
            neuron = IFNode(surrogate_function=ATan(), detach_reset=True)
        parts = Parts(neuron, norm or layers.BatchNorm2d)
        modules: list[nn.Module] = []
        c = in_channels
        for convolutions, factor in zip(_CONVOLUTIONS[depth], (1, 2, 4, 8, 8), strict=True):
            for _ in range(convolutions):
                out = base_channels * factor
                norms = [parts.norm(out)] if batch_norm else []
                modules += [layers.Conv2d(c, out, 3, padding=1), *norms, parts.neuron()]
                c = out
            modules.append(layers.MaxPool2d(2))
        self.features = layers.Sequential(*modules)
        self.avgpool = layers.AdaptiveAvgPool2d(pool_size)
        head: list[nn.Module] = []
        features = c * pool_size**2
        for size in hidden:
            head += [layers.Linear(features, size), parts.neuron(), layers.Dropout(dropout)]
            features = size
        self.classifier = nn.Sequential(*head, layers.Linear(features, num_classes))
        init_convolutions(self)
        for module in self.classifier:
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)
        self.set_step_mode("m")

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W] -> [T, N, num_classes]`` (without ``T`` in single-step mode)."""
        self.check_frames(x)
        y = self.avgpool(self.run_stages(self.features, x))
        return self.classifier(y.flatten(-3))  # type: ignore[no-any-return]
