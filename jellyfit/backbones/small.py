"""Small networks that train in seconds on a laptop."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from jellyfit import layers
from jellyfit.backbones.base import Backbone, neuron_from
from jellyfit.backbones.images import ImageBackbone, check_positive
from jellyfit.errors import InputError
from jellyfit.neurons import BaseNode

__all__ = ["SpikingConvNet", "SpikingMLP"]


class SpikingConvNet(ImageBackbone):
    """Convolutional network: stages of conv 3x3, batch norm, neuron, max pool 2x2; then fully connected layers.

    Input ``[T, N, C, H, W]``, output ``[T, N, num_classes]``: real values of the last linear layer, or the spikes of a
    last layer of neurons when ``spiking_output`` is set.

    Args:
        input_size: channels, height and width of one frame, e.g. ``[2, 34, 34]``.
        num_classes: number of outputs.
        channels: output channels of each convolutional stage, default 16, 32; each stage halves height and width.
        hidden: sizes of fully connected spiking layers before the output, default none.
        neuron: template of every neuron layer; default ``LIFNode()``.
        spiking_output: put neurons on the output too; default ``False``.
        carry_state: see :class:`~jellyfit.backbones.Backbone`.

    Raises:
        InputError: a frame too small for the number of stages, or sizes that are not positive.

    Examples:
        >>> import torch
        >>> from jellyfit.backbones import SpikingConvNet
        >>> from jellyfit.neurons import ParametricLIFNode
        >>> net = SpikingConvNet([2, 16, 16], num_classes=3, channels=[4, 8], neuron=ParametricLIFNode(backend="torch"))
        >>> net(torch.rand(5, 2, 2, 16, 16)).shape
        torch.Size([5, 2, 3])
    """

    def __init__(
        self,
        input_size: tuple[int, int, int],
        num_classes: int,
        channels: Sequence[int] = (16, 32),
        hidden: Sequence[int] = (),
        neuron: BaseNode | None = None,
        spiking_output: bool = False,
        carry_state: bool = False,
    ) -> None:
        check_positive("SpikingConvNet", input_size=input_size, channels=channels, hidden=hidden)
        c, h, w = _frame_size("SpikingConvNet", input_size)
        super().__init__(num_classes, c, carry_state=carry_state)
        self.input_size, self.frame_size = (c, h, w), (h, w)
        stages: list[nn.Module] = []
        for out in channels:
            stages.append(
                layers.Sequential(
                    layers.Conv2d(c, out, 3, padding=1, bias=False),
                    layers.BatchNorm2d(out),
                    neuron_from(neuron),
                    layers.MaxPool2d(2),
                )
            )
            c, h, w = out, h // 2, w // 2
        if h == 0 or w == 0:
            raise InputError(
                f"SpikingConvNet(input_size={list(input_size)}, channels={list(channels)}): {len(channels)} stages "
                f"halve a frame of {input_size[1]}x{input_size[2]} pixels down to nothing. Use fewer stages."
            )
        self.conv = nn.Sequential(*stages)
        self.head = _fully_connected(c * h * w, hidden, num_classes, neuron, spiking_output, bias=True)
        self.set_step_mode("m")

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W] -> [T, N, num_classes]`` (without ``T`` in single-step mode)."""
        self.check_frames(x)
        return self.head(self.conv(x))  # type: ignore[no-any-return]


class SpikingMLP(Backbone):
    """Fully connected network: linear layers, each followed by neurons.

    Input ``[T, N, *]`` (flattened), output spikes ``[T, N, num_classes]``.

    Args:
        in_features: values in one step of one sample, e.g. 784.
        num_classes: number of outputs.
        hidden: sizes of the layers before the output, default none: a single fully connected layer.
        neuron: template of every neuron layer; default ``LIFNode()``.
        bias: whether linear layers have a bias, default ``True``.
        spiking_output: neurons on the output too, default ``True``.
        carry_state: see :class:`~jellyfit.backbones.Backbone`.

    Examples:
        >>> import torch
        >>> from jellyfit.backbones import SpikingMLP
        >>> net = SpikingMLP(16, num_classes=3, hidden=[8])
        >>> net(torch.zeros(5, 2, 4, 4)).shape
        torch.Size([5, 2, 3])
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden: Sequence[int] = (),
        neuron: BaseNode | None = None,
        bias: bool = True,
        spiking_output: bool = True,
        carry_state: bool = False,
    ) -> None:
        super().__init__(carry_state)
        check_positive("SpikingMLP", in_features=[in_features], num_classes=[num_classes], hidden=hidden)
        self.num_classes = num_classes
        self.in_features = in_features
        self.head = _fully_connected(in_features, hidden, num_classes, neuron, spiking_output, bias)
        self.set_step_mode("m")

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, *] -> [T, N, num_classes]`` (without ``T`` in single-step mode)."""
        self.check_features(x, self.in_features)
        return self.head(x)  # type: ignore[no-any-return]


def _fully_connected(
    features: int, hidden: Sequence[int], num_classes: int, neuron: BaseNode | None, spiking_output: bool, bias: bool
) -> nn.Sequential:
    modules: list[nn.Module] = [layers.Flatten()]
    for size in [*hidden, num_classes]:
        modules += [layers.Linear(features, size, bias=bias), neuron_from(neuron)]
        features = size
    return nn.Sequential(*(modules if spiking_output else modules[:-1]))


def _frame_size(name: str, input_size: Sequence[int]) -> tuple[int, int, int]:
    if len(input_size) != 3:
        raise InputError(f"{name}(input_size={list(input_size)}): expected channels, height and width of one frame.")
    c, h, w = input_size
    return c, h, w
