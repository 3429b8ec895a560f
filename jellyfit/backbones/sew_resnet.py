"""SEW ResNet: residual networks of spikes, whose blocks join branch and shortcut behind the neurons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from jellyfit import layers
from jellyfit.backbones.images import ImageBackbone, Norm, Parts, check_choice, check_positive, fire
from jellyfit.backbones.resnet import Depth, Stem, _ResidualBlock, _ResNet
from jellyfit.errors import InputError
from jellyfit.neurons import BaseNode, ParametricLIFNode
from jellyfit.surrogates import ATan

__all__ = ["SEW7BNet", "SEWResNet"]

Connection = Literal["ADD", "AND", "IAND"]
_CONNECT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # of the branch's spikes and the shortcut's
    "ADD": lambda branch, shortcut: branch + shortcut,
    "AND": lambda branch, shortcut: branch * shortcut,
    "IAND": lambda branch, shortcut: (1.0 - branch) * shortcut,
}


class _SEWBlock(_ResidualBlock):
    """The spikes of the branch are joined with those of the shortcut."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        bottleneck: bool,
        groups: int,
        width: int,
        parts: Parts,
        cnf: Connection,
    ) -> None:
        super().__init__(in_channels, channels, stride, bottleneck, groups, width, parts)
        self.cnf = cnf
        if self.downsample is not None:
            self.downsample_sn = parts.neuron()

    def forward(self, x: Tensor) -> Tensor:
        _, norm, node = self.layer(self.depth)
        spikes = fire(norm, node, self.branch(x))
        shortcut = x
        if self.downsample is not None:
            conv, its_norm = self.downsample
            shortcut = fire(its_norm, self.downsample_sn, conv(x))
        return _CONNECT[self.cnf](spikes, shortcut)

    def extra_repr(self) -> str:
        return f"cnf={self.cnf!r}"


def _always_firing(node: BaseNode, steps: int = 8) -> float:
    """A constant input at which ``node`` fires at every step: 1, 2, 4, ... times its threshold."""
    drive = torch.as_tensor(node.v_threshold).detach().cpu().max().reshape(1, 1)
    for _ in range(10):
        spikes, _ = node.run(drive.expand(steps, 1, 1))
        if bool((spikes == 1).all()):
            return drive.item()
        drive = 2 * drive
    raise InputError(
        f"SEWResNet(cnf='AND', zero_init_residual=True): {type(node).__name__} fires at every step at no constant "
        "input, so a block cannot start as its shortcut. Leave zero_init_residual out."
    )


class SEWResNet(_ResNet):
    """Spike-element-wise (SEW) ResNet: a block's output is ``g(spikes of its branch, spikes of its shortcut)``.

    ``g`` is ``cnf``: ``"ADD"`` is ``A + S`` (so that what follows sees small integers), ``"AND"`` is ``A · S``,
    ``"IAND"`` is ``(1 - A) · S``. With ``zero_init_residual`` every block starts as its shortcut.

    Input ``[T, N, C, H, W]``, output ``[T, N, num_classes]``: the real values of the linear layer. Weights of
    SpikingJelly's networks, and of ResNets that are not spiking (see
    :func:`~jellyfit.backbones.load_ann_state_dict`), load as they are. (SpikingJelly's bottlenecks confuse the two
    sides of ``"IAND"``; here they are as in the paper.)

    Parameters with 1000 classes: 11,689,512 (18), 21,797,672 (34), 25,557,032 (50), 44,549,160 (101), 60,192,808 (152).

    Args:
        depth: 18, 34, 50, 101 or 152 layers with weights.
        num_classes: number of outputs, default 1000.
        cnf: how branch and shortcut are joined, ``"ADD"`` (default), ``"AND"`` or ``"IAND"``.
        zero_init_residual: start every block as its shortcut: the last norm's weights are 0, so that the branch never
            fires (for ``"AND"`` its biases are such that it always does); default ``False``.
        groups, width_per_group, in_channels, base_channels, stem: see :class:`~jellyfit.backbones.SpikingResNet`.
        neuron: template of every neuron layer; default ``IFNode(surrogate_function=ATan(), detach_reset=True)``.
        norm: class of the norms, or what makes one for a number of channels; default ``layers.BatchNorm2d``.
        checkpoint_blocks: see :class:`~jellyfit.backbones.ImageBackbone`.
        carry_state: see :class:`~jellyfit.backbones.Backbone`.

    Raises:
        InputError: another depth, stem or ``cnf``, sizes below 1; ``"AND"`` with ``zero_init_residual`` and a neuron
            that no constant input makes fire at every step; in the forward pass, other frames.
        ConfigError: groups without bottlenecks; ``zero_init_residual`` with a norm that has no weights.

    Source: Fang et al., "Deep residual learning in spiking neural networks", NeurIPS 2021.

    Examples:
        >>> import torch
        >>> from jellyfit.backbones import SEWResNet
        >>> net = SEWResNet(18, num_classes=10, cnf="IAND", base_channels=4, stem="small")
        >>> net(torch.zeros(4, 2, 3, 32, 32)).shape
        torch.Size([4, 2, 10])
    """

    def __init__(
        self,
        depth: Depth,
        num_classes: int = 1000,
        cnf: Connection = "ADD",
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
        check_choice("SEWResNet", "cnf", cnf, _CONNECT)
        super().__init__(
            partial(_SEWBlock, cnf=cnf), depth, num_classes, zero_init_residual, groups, width_per_group, in_channels,
            base_channels, stem, neuron, norm, checkpoint_blocks, carry_state,
        )  # fmt: skip

    def _zero_init(self, block: nn.Module) -> None:
        super()._zero_init(block)
        if isinstance(block, _SEWBlock) and block.cnf == "AND":
            _, norm, node = block.layer(block.depth)
            nn.init.constant_(norm.bias, _always_firing(node))  # type: ignore[arg-type]


class SEW7BNet(ImageBackbone):
    """7B-Net: seven SEW blocks, each followed by max pool 2x2, for event cameras of 128x128 pixels.

    A block is two times conv 3x3, batch norm, neuron; where the number of channels changes, conv 1x1, batch norm and a
    neuron stand before it. Input ``[T, N, C, H, W]``, output ``[T, N, num_classes]``: the real values of the linear
    layer.

    7B-Net is ``channels=[32] * 7`` (130,426 parameters with the 11 classes of DVS Gesture), Wide-7B-Net is
    ``channels=[64] * 4 + [128] * 3`` (1,192,218 with the 10 classes of CIFAR10-DVS).

    Args:
        num_classes: number of outputs.
        channels: of each block; each halves height and width. Default 32, seven times.
        cnf: how branch and shortcut are joined, see :class:`~jellyfit.backbones.SEWResNet`; default ``"ADD"``.
        in_channels: channels of a frame, default 2.
        input_size: height and width of a frame, default 128x128.
        neuron: template of every neuron layer; default
            ``ParametricLIFNode(2.0, surrogate_function=ATan(), detach_reset=True)``.
        norm: class of the norms, or what makes one for a number of channels; default ``layers.BatchNorm2d``.
        checkpoint_blocks: see :class:`~jellyfit.backbones.ImageBackbone`.
        carry_state: see :class:`~jellyfit.backbones.Backbone`.

    Raises:
        InputError: another ``cnf``, sizes below 1, frames too small for the blocks; in the forward pass, other frames.

    Source: Fang et al., "Deep residual learning in spiking neural networks", NeurIPS 2021.

    Examples:
        >>> import torch
        >>> from jellyfit.backbones import SEW7BNet
        >>> net = SEW7BNet(11, channels=[4, 4, 8], input_size=[32, 32])
        >>> net(torch.zeros(4, 2, 2, 32, 32)).shape
        torch.Size([4, 2, 11])
    """

    def __init__(
        self,
        num_classes: int,
        channels: Sequence[int] = (32, 32, 32, 32, 32, 32, 32),
        cnf: Connection = "ADD",
        in_channels: int = 2,
        input_size: tuple[int, int] = (128, 128),
        neuron: BaseNode | None = None,
        norm: Norm | None = None,
        checkpoint_blocks: bool = False,
        carry_state: bool = False,
    ) -> None:
        super().__init__(num_classes, in_channels, checkpoint_blocks, carry_state)
        check_choice("SEW7BNet", "cnf", cnf, _CONNECT)
        h, w = input_size
        check_positive("SEW7BNet", channels=channels, input_size=[h, w])
        self.frame_size = h, w
        h, w = h >> len(channels), w >> len(channels)
        if min(h, w) == 0:
            raise InputError(
                f"SEW7BNet(channels={list(channels)}, input_size={list(self.frame_size)}): {len(channels)} blocks "
                "halve such frames down to nothing. Use larger frames or fewer blocks."
            )
        if neuron is None:
            neuron = ParametricLIFNode(2.0, surrogate_function=ATan(), detach_reset=True)
        parts = Parts(neuron, norm or layers.BatchNorm2d)
        c = in_channels
        self.blocks = nn.Sequential()
        for out in channels:
            block = layers.Sequential()
            if out != c:
                block.extend([layers.Conv2d(c, out, 1, bias=False), parts.norm(out), parts.neuron()])
            block.extend([_SEWBlock(out, out, 1, False, 1, 64, parts, cnf), layers.MaxPool2d(2)])
            self.blocks.append(block)
            c = out
        self.fc = layers.Linear(c * h * w, num_classes)
        self.set_step_mode("m")

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W] -> [T, N, num_classes]`` (without ``T`` in single-step mode)."""
        self.check_frames(x)
        return self.fc(self.run_blocks(self.blocks, x).flatten(-3))  # type: ignore[no-any-return]
