"""Spiking ResNet: the residual networks with neurons in place of ReLU; and what SEW ResNets share with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

from torch import Tensor, nn

from jellyfit import layers
from jellyfit.backbones.images import (
    ImageBackbone,
    Norm,
    Parts,
    check_choice,
    check_positive,
    fire,
    init_convolutions,
    zero_weights,
)
from jellyfit.errors import ConfigError
from jellyfit.neurons import BaseNode, IFNode, StepModule
from jellyfit.surrogates import ATan

__all__ = ["SpikingResNet"]

_BLOCKS = {  # of each stage
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
Depth = Literal[18, 34, 50, 101, 152]
Stem = Literal["imagenet", "small"]


def add_stages(net: nn.Module, blocks: Sequence[int], make: Callable[[int, bool], nn.Module]) -> None:
    """Add ``layer1``, ``layer2``, ...; ``make`` gets a stage's index, and whether the block is its first."""
    for i, count in enumerate(blocks):
        net.add_module(f"layer{i + 1}", nn.Sequential(*[make(i, j == 0) for j in range(count)]))


def blocks_of(net: nn.Module) -> list[nn.Module]:
    """All blocks of the four stages, in the order in which they run."""
    return [block for i in range(1, 5) for block in net.get_submodule(f"layer{i}").children()]


class _ResidualBlock(nn.Module):
    """Two convolutions (three in a bottleneck), each with a norm and a neuron, and the convolution of the shortcut.

    Modules have the names that they have in other ResNets: ``conv1``, ``bn1``, ``sn1``, ..., ``downsample``.
    """

    paths: ClassVar[int] = 1  # that are added before a neuron

    def __init__(
        self, in_channels: int, channels: int, stride: int, bottleneck: bool, groups: int, width: int, parts: Parts
    ) -> None:
        super().__init__()
        if bottleneck:
            inner = channels * width // 64 * groups
            out = 4 * channels
            shapes = [(inner, 1, 1, 1), (inner, 3, stride, groups), (out, 1, 1, 1)]
        else:
            out = channels
            shapes = [(channels, 3, stride, 1), (channels, 3, 1, 1)]
        self.depth = len(shapes)
        c = in_channels
        for i, (to, kernel, step, parted) in enumerate(shapes, start=1):
            conv = layers.Conv2d(c, to, kernel, step, kernel // 2, groups=parted, bias=False)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", parts.norm(to, self.paths if i == self.depth else 1))
            self.add_module(f"sn{i}", parts.neuron())
            c = to
        self.downsample: nn.Sequential | None = None
        if stride > 1 or in_channels != out:
            conv = layers.Conv2d(in_channels, out, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, parts.norm(out, self.paths))

    def layer(self, i: int) -> tuple[nn.Module, StepModule, BaseNode]:
        """Convolution, norm and neuron number ``i``."""
        return self.get_submodule(f"conv{i}"), getattr(self, f"bn{i}"), getattr(self, f"sn{i}")

    def branch(self, x: Tensor) -> Tensor:
        """What the last convolution makes of the input; its norm and neuron come next."""
        for i in range(1, self.depth):
            conv, norm, node = self.layer(i)
            x = fire(norm, node, conv(x))
        return self.layer(self.depth)[0](x)  # type: ignore[no-any-return]


class _SpikingBlock(_ResidualBlock):
    """The last neuron fires at the sum of branch and shortcut."""

    paths = 2

    def forward(self, x: Tensor) -> Tensor:
        _, norm, node = self.layer(self.depth)
        shortcut = x if self.downsample is None else self.downsample(x)
        return fire(norm, node, self.branch(x), shortcut)


class _ResNet(ImageBackbone):
    """Stem, four stages of residual blocks, average pooling, linear layer; made of whatever blocks."""

    def __init__(
        self,
        make_block: Callable[..., _ResidualBlock],
        depth: Depth,
        num_classes: int,
        zero_init_residual: bool,
        groups: int,
        width_per_group: int,
        in_channels: int,
        base_channels: int,
        stem: Stem,
        neuron: BaseNode | None,
        norm: Norm | None,
        checkpoint_blocks: bool,
        carry_state: bool,
    ) -> None:
        super().__init__(num_classes, in_channels, checkpoint_blocks, carry_state)
        name, bottleneck = type(self).__name__, depth >= 50
        check_choice(name, "depth", depth, _BLOCKS)
        check_choice(name, "stem", stem, ("imagenet", "small"))
        check_positive(name, base_channels=[base_channels], groups=[groups], width_per_group=[width_per_group])
        if not bottleneck and (groups, width_per_group) != (1, 64):
            raise ConfigError(
                f"{name}({depth}, groups={groups}, width_per_group={width_per_group}): these belong to the bottlenecks "
                "of 50 layers or more. Take such a depth, or leave them out."
            )
        if neuron is None:
            neuron = IFNode(surrogate_function=ATan(), detach_reset=True)
        parts = Parts(neuron, norm or layers.BatchNorm2d)
        large = stem == "imagenet"
        kernel, stride = (7, 2) if large else (3, 1)
        self.conv1 = layers.Conv2d(in_channels, base_channels, kernel, stride, kernel // 2, bias=False)
        self.bn1 = parts.norm(base_channels)
        self.sn1 = parts.neuron()
        self.maxpool = layers.MaxPool2d(3, 2, 1) if large else None
        expansion = 4 if bottleneck else 1

        def block(i: int, first: bool) -> _ResidualBlock:
            channels = base_channels << i
            c = channels * expansion if not first else base_channels if i == 0 else channels * expansion // 2
            stride = 2 if first and i > 0 else 1
            return make_block(c, channels, stride, bottleneck, groups, width_per_group, parts)

        add_stages(self, _BLOCKS[depth], block)
        self.avgpool = layers.AdaptiveAvgPool2d(1)
        self.fc = layers.Linear(8 * base_channels * expansion, num_classes)
        init_convolutions(self)
        if zero_init_residual:
            for residual in blocks_of(self):
                self._zero_init(residual)
        self.set_step_mode("m")

    def _zero_init(self, block: nn.Module) -> None:
        """Make a block start as its shortcut."""
        assert isinstance(block, _ResidualBlock)
        zero_weights(type(self).__name__, block.layer(block.depth)[1])

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W] -> [T, N, num_classes]`` (without ``T`` in single-step mode)."""
        self.check_frames(x)
        y = fire(self.bn1, self.sn1, self.conv1(x))
        if self.maxpool is not None:
            y = self.maxpool(y)
        y = self.avgpool(self.run_blocks(blocks_of(self), y))
        return self.fc(y.flatten(-3))  # type: ignore[no-any-return]


class SpikingResNet(_ResNet):
    """Spiking ResNet: a ResNet whose ReLUs are neurons; the last one of a block fires at the sum with the shortcut.

    Input ``[T, N, C, H, W]``, output ``[T, N, num_classes]``: the real values of the linear layer. Weights of
    SpikingJelly's networks, and of ResNets that are not spiking (see
    :func:`~jellyfit.backbones.load_ann_state_dict`), load as they are. Where it gets deep, a
    :class:`~jellyfit.backbones.SEWResNet` trains better.

    Parameters with 1000 classes: 11,689,512 (18), 21,797,672 (34), 25,557,032 (50), 44,549,160 (101), 60,192,808 (152).
    With ``groups=32, width_per_group=4`` it is a ResNeXt, with ``width_per_group=128`` a wide ResNet.

    Args:
        depth: 18, 34, 50, 101 or 152 layers with weights.
        num_classes: number of outputs, default 1000.
        zero_init_residual: start every block as its shortcut: the last norm's weights are 0; default ``False``.
        groups: of the 3x3 convolutions in bottlenecks (50 layers and more), default 1.
        width_per_group: of a group of the first stage's bottlenecks, default 64.
        in_channels: channels of a frame, default 3.
        base_channels: of the first stage, default 64; the others have 2, 4 and 8 times as many.
        stem: ``"imagenet"`` (default): conv 7x7 of stride 2 and max pool; ``"small"``: conv 3x3, for frames of about
            32x32.
        neuron: template of every neuron layer; default ``IFNode(surrogate_function=ATan(), detach_reset=True)``.
        norm: class of the norms, or what makes one for a number of channels; default ``layers.BatchNorm2d``. With
            ``layers.ThresholdDependentBatchNorm2d`` the paths that are added start at ``v_threshold / √2``.
        checkpoint_blocks: see :class:`~jellyfit.backbones.ImageBackbone`.
        carry_state: see :class:`~jellyfit.backbones.Backbone`.

    Raises:
        InputError: another depth or stem, sizes below 1; in the forward pass, other frames.
        ConfigError: groups without bottlenecks; ``zero_init_residual`` with a norm that has no weights.

    Source: He et al., "Deep residual learning for image recognition", CVPR 2016; with spikes: Zheng et al., "Going
    deeper with directly-trained larger spiking neural networks", AAAI 2021.

    Examples:
        >>> import torch
        >>> from jellyfit.backbones import SpikingResNet
        >>> net = SpikingResNet(18, num_classes=10, base_channels=4, stem="small")
        >>> net(torch.zeros(4, 2, 3, 32, 32)).shape
        torch.Size([4, 2, 10])
    """

    def __init__(
        self,
        depth: Depth,
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
        in_channels: int = 3,
        base_channels: int = 64,
        stem: Stem = "imagenet",
        neuron: BaseNode | None = None,
        norm: Norm | None = None,
        checkpoint_blocks: bool = False,
        carry_state: bool = False,
    ) -> None:
        super().__init__(
            _SpikingBlock, depth, num_classes, zero_init_residual, groups, width_per_group, in_channels, base_channels,
            stem, neuron, norm, checkpoint_blocks, carry_state,
        )  # fmt: skip
