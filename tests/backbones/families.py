"""A small network of every family, on the frames that it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from jellyfit import functional
from jellyfit.backbones import (
    VGGSNN,
    Backbone,
    MSResNet,
    PLIFNet,
    QKFormer,
    SEW7BNet,
    SEWResNet,
    Spikformer,
    SpikingRecurrentNet,
    SpikingResNet,
    SpikingVGG,
    resnet,
)
from jellyfit.neurons import BaseNode, LIFNode

Build = Callable[..., Backbone]


def few(cls: Callable[..., Backbone], *args: Any, **options: Any) -> Backbone:
    """A network of bottlenecks, fewer than there are in any, to be quick."""
    with patch.dict(resnet._BLOCKS, {50: (2, 1, 1, 1)}):
        return cls(50, *args, **options)


FAMILIES: dict[str, tuple[Build, tuple[int, ...]]] = {
    "plif": (lambda **k: PLIFNet("nmnist", 3, 4, input_size=(8, 9), voting_size=2, **k), (2, 8, 9)),
    "vgg": (lambda **k: SpikingVGG(11, 3, base_channels=2, pool_size=1, hidden=[8], **k), (3, 32, 33)),
    "vggsnn": (lambda **k: VGGSNN(3, base_channels=2, input_size=(17, 16), **k), (2, 17, 16)),
    "resnet": (lambda **k: SpikingResNet(18, 3, base_channels=4, in_channels=2, stem="small", **k), (2, 12, 9)),
    "resnet50": (lambda **k: few(SpikingResNet, 3, base_channels=2, groups=2, **k), (3, 32, 33)),
    "sew": (lambda **k: SEWResNet(18, 3, base_channels=4, in_channels=2, stem="small", **k), (2, 12, 9)),
    "sew50": (lambda **k: few(SEWResNet, 3, "IAND", base_channels=2, **k), (3, 32, 33)),
    "sew7b": (lambda **k: SEW7BNet(3, [4, 4, 6], input_size=(8, 9), **k), (2, 8, 9)),
    "ms": (lambda **k: MSResNet(18, 3, 2, 4, "small", False, **k), (2, 12, 9)),
    "spikformer": (lambda **k: Spikformer(2, 4, 3, 16, 2, 2.0, 2, **k), (2, 8, 10)),
    "qkformer": (lambda **k: QKFormer(2, 3, 16, (2, 2, 2), (1, 1, 1), 2.0, stem="small", **k), (2, 7, 9)),
    "recurrent": (lambda **k: SpikingRecurrentNet(12, 3, [8, 7], **k), (3, 4)),
}
each_family = pytest.mark.parametrize(("build", "frame"), FAMILIES.values(), ids=FAMILIES)
WITHOUT_CHECKPOINTS = ("recurrent",)


def neuron(**options: Any) -> BaseNode:
    """A neuron that fires often, and is not compiled."""
    return LIFNode(**{"v_threshold": 0.2, "backend": "torch", **options})


def made(build: Build, **options: Any) -> Backbone:
    """The same network each time; as after some training: spikes reach its end in evaluation too."""
    torch.manual_seed(0)
    net = build(**{"neuron": neuron(), **options})
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 2.0 * module.in_features**-0.5)
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    frame = next(frame for known, frame in FAMILIES.values() if known is build)
    with torch.no_grad():
        net(frames(4, 4, frame, seed=7))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    functional.reset_net(net)
    return net


def frames(steps: int, batch: int, frame: tuple[int, ...], seed: int = 0) -> Tensor:
    """The same input each time."""
    return 2.0 * torch.randn(steps, batch, *frame, generator=torch.Generator().manual_seed(seed))
