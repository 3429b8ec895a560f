"""Rows of SEW ResNets."""

from __future__ import annotations

import pytest
import torch

from jellyfit.backbones import SEWResNet
from tests.compat.networks import node, theirs_by_default
from tests.compat.rows import Row, peer
from tests.compat.spiking_resnet import INSIDE, SHARED, builder_rows, compare, with_groups

CNF = {"cnf": '`"ADD"` by default; there it has to be given'}


def networks() -> None:
    """Every connection gives the same numbers, but for ``"IAND"`` in bottlenecks, whose sides are confused there."""
    for cnf in ("ADD", "AND", "IAND"):
        compare("sew_resnet", SEWResNet, 18, {"cnf": cnf})
    with_groups("sew_resnet", SEWResNet, {"cnf": "ADD"})
    with pytest.raises(AssertionError, match="output"):
        compare("sew_resnet", SEWResNet, 50, {"cnf": "IAND"})


def start() -> None:
    """There ``zero_init_residual`` zeroes the weights alone, so that with ``"AND"`` nothing passes a block."""
    models = peer("model.sew_resnet")
    theirs = models.SEWResNet(
        models.BasicBlock, [1, 1, 1, 1], zero_init_residual=True, cnf="AND", **theirs_by_default()
    )
    assert not theirs.layer1[0].bn2.bias.any()
    ours = SEWResNet(18, 5, "AND", zero_init_residual=True, base_channels=2, neuron=node())
    block = ours.get_submodule("layer1.0")
    spikes = (torch.rand(3, 2, 2, 4, 4) > 0.5).float()
    assert torch.equal(block(spikes), spikes)


def both() -> None:
    networks()
    start()


ROWS: list[Row] = [
    Row(
        "SEWResNet",
        "different",
        both,
        note='the same numbers, and weights load by name; with `"IAND"` bottlenecks differ (there the two sides are '
        'confused), and with `"AND"` `zero_init_residual` makes blocks start as their shortcuts',
        arguments=SHARED | CNF,
    ),
    *(Row(name, "absent", note=INSIDE) for name in ("BasicBlock", "Bottleneck", "conv1x1", "conv3x3", "sew_function")),
    *(
        Row(name, "absent", note="distributed training is Lightning's: `trainer.strategy`")
        for name in ("SEWResNet34Builder", "SEWResNet34Config")
    ),
    *builder_rows("sew", SEWResNet, {"cnf": "ADD"}, CNF),
]
