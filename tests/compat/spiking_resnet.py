"""Rows of spiking ResNets, and what those of SEW ResNets share with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest.mock import patch

from jellyfit.backbones import SpikingResNet, resnet
from tests.compat.networks import ABSENT, agree, draw, node, same_sizes, theirs_by_default
from tests.compat.rows import Row, peer

FEW = (2, 1, 1, 1)  # blocks of each stage where a whole network would take long
BUILDERS: dict[str, tuple[int, dict[str, int]]] = {  # what it is called: our depth and options
    **{f"resnet{depth}": (depth, {}) for depth in (18, 34, 50, 101, 152)},
    "resnext50_32x4d": (50, {"groups": 32, "width_per_group": 4}),
    "resnext101_32x8d": (101, {"groups": 32, "width_per_group": 8}),
    "wide_resnet50_2": (50, {"width_per_group": 128}),
    "wide_resnet101_2": (101, {"width_per_group": 128}),
}
INSIDE = "a part of the network; of your own, write an `nn.Module` from `layers` and `neurons`"
SHARED = {
    "block": "follows from `depth`",
    "layers": "`depth`",
    "norm_layer": ABSENT["norm_layer"],
    "replace_stride_with_dilation": "no dilation: every network here classifies",
    "spiking_neuron": ABSENT["spiking_neuron"],
}


def compare(
    module: str,
    ours: Callable[..., Any],
    depth: int,
    options: dict[str, Any],
    blocks: Sequence[int] = FEW,
) -> None:
    """``ours(depth)``, of these blocks, against the network of ``module``, by its class."""
    models = peer(f"model.{module}")
    block = models.BasicBlock if depth < 50 else models.Bottleneck
    cls = getattr(models, ours.__name__)
    theirs = cls(block, list(blocks), num_classes=5, **options, **theirs_by_default())
    with patch.dict(resnet._BLOCKS, {depth: tuple(blocks)}):
        mine = ours(depth, 5, neuron=node(), **options)
    agree(mine, theirs, draw(3, 1, 3, 32, 32))


def compare_builder(module: str, ours: Callable[..., Any], name: str, options: dict[str, Any]) -> None:
    """Numbers of the smallest, sizes of all; bottlenecks are compared with the class."""
    depth, own = BUILDERS[name.partition("_")[2]]
    if depth == 18:
        compare(module, ours, depth, options, (2, 2, 2, 2))
    builder = getattr(peer(f"model.{module}"), name)
    same_sizes(lambda: ours(depth, **own, **options), lambda: builder(**options, **theirs_by_default()))


def builder_rows(prefix: str, ours: Callable[..., Any], options: dict[str, Any], more: dict[str, str]) -> list[Row]:
    found = []
    for name, (depth, own) in BUILDERS.items():
        call = f"{ours.__name__}({', '.join([str(depth), *(f'{key}={value}' for key, value in own.items())])})"
        row = Row(
            f"{prefix}_{name}",
            "different",
            partial(compare_builder, f"{prefix}_resnet", ours, f"{prefix}_{name}", options),
            note=f"`{call}`; weights load by name",
            ours=f"backbones.{ours.__name__}",
            arguments={name: ABSENT[name] for name in ("pretrained", "progress", "spiking_neuron")} | more,
        )
        found.append(row)
    return found


def with_groups(module: str, ours: Callable[..., Any], options: dict[str, Any]) -> None:
    """Bottlenecks, in groups and wider."""
    compare(module, ours, 50, options | {"groups": 4, "width_per_group": 16})


ROWS: list[Row] = [
    Row(
        "SpikingResNet",
        "different",
        partial(with_groups, "spiking_resnet", SpikingResNet, {"zero_init_residual": True}),
        note="the same numbers, and weights load by name",
        arguments=SHARED,
    ),
    *(Row(name, "absent", note=INSIDE) for name in ("BasicBlock", "Bottleneck", "conv1x1", "conv3x3")),
    *builder_rows("spiking", SpikingResNet, {}, {}),
]
