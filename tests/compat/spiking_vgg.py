"""Rows of spiking VGGs."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from jellyfit.backbones import SpikingVGG
from tests.compat.networks import ABSENT, THRESHOLD, agree, draw, node, same_sizes, theirs_by_default
from tests.compat.rows import Row, peer

CONFIGURATIONS = {  # a sixteenth as wide
    11: [4, "M", 8, "M", 16, 16, "M", 32, 32, "M", 32, 32, "M"],
    13: [4, 4, "M", 8, 8, "M", 16, 16, "M", 32, 32, "M", 32, 32, "M"],
    16: [4, 4, "M", 8, 8, "M", 16, 16, 16, "M", 32, 32, 32, "M", 32, 32, 32, "M"],
    19: [4, 4, "M", 8, 8, "M", 16, 16, 16, 16, "M", 32, 32, 32, 32, "M", 32, 32, 32, 32, "M"],
}


def theirs(depth: int, batch_norm: bool) -> nn.Module:
    """One of theirs; its classifier, whose size is fixed, made anew as a narrow one."""
    layer, lif = peer("layer"), peer("neuron").LIFNode
    make = peer("model.spiking_vgg").SpikingVGG
    with torch.device("meta"):
        net = make(CONFIGURATIONS[depth], batch_norm, num_classes=5, init_weights=False, **theirs_by_default())
    modules: list[nn.Module] = []
    for features in (32 * 49, 6):
        neuron = lif(v_threshold=THRESHOLD, surrogate_function=peer("surrogate").ATan(), detach_reset=True)
        modules += [layer.Linear(features, 6), neuron, layer.Dropout(0.5)]
    net.classifier = nn.Sequential(*modules, layer.Linear(6, 5))
    net.to_empty(device="cpu")
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
            module.reset_parameters()
    return net  # type: ignore[no-any-return]


def compare(depth: int, batch_norm: bool) -> None:
    ours = SpikingVGG(depth, 5, batch_norm, base_channels=4, hidden=[6, 6], neuron=node())  # type: ignore[arg-type]
    agree(ours, theirs(depth, batch_norm), draw(3, 2, 3, 32, 32))
    builder = getattr(peer("model.spiking_vgg"), f"spiking_vgg{depth}" + ("_bn" if batch_norm else ""))
    same_sizes(lambda: SpikingVGG(depth, batch_norm=batch_norm), lambda: builder(**theirs_by_default()))  # type: ignore[arg-type]


def row(depth: int, batch_norm: bool) -> Row:
    absent = ["pretrained", "progress", "spiking_neuron", *(["norm_layer"] if batch_norm else [])]
    call = f"SpikingVGG({depth})" if batch_norm else f"SpikingVGG({depth}, batch_norm=False)"
    return Row(
        f"spiking_vgg{depth}" + ("_bn" if batch_norm else ""),
        "different",
        partial(compare, depth, batch_norm),
        note=f"`{call}`; the same numbers, and weights load by name",
        ours="backbones.SpikingVGG",
        arguments={name: ABSENT[name] for name in absent},
    )


ROWS: list[Row] = [
    Row(
        "SpikingVGG",
        "different",
        partial(compare, 11, True),
        note="the same numbers, and weights load by name",
        arguments={
            "cfg": "`depth`, `base_channels`",
            "batch_norm": "on by default: without it few spikes reach the deeper layers of an untrained network",
            "init_weights": "always: `load_state_dict` overwrites them",
            "norm_layer": ABSENT["norm_layer"],
            "spiking_neuron": ABSENT["spiking_neuron"],
        },
    ),
    *(row(depth, batch_norm) for depth in CONFIGURATIONS for batch_norm in (True, False)),
]
