"""Rows of PLIF-Nets."""

from __future__ import annotations

from functools import partial

from jellyfit.backbones import PLIFNet
from tests.compat.networks import ABSENT, agree, draw, node, theirs_by_default
from tests.compat.rows import Row, peer

NETS = {  # SpikingJelly's class: our variant, one frame
    "MNISTNet": ("mnist", (1, 28, 28)),
    "FashionMNISTNet": ("fashion_mnist", (1, 28, 28)),
    "NMNISTNet": ("nmnist", (2, 34, 34)),
    "CIFAR10Net": ("cifar10", (3, 32, 32)),
    "CIFAR10DVSNet": ("cifar10dvs", (2, 128, 128)),
    "DVSGestureNet": ("dvsgesture", (2, 128, 128)),
}


def compare(name: str) -> None:
    variant, frame = NETS[name]
    theirs = getattr(peer("model.parametric_lif_net"), name)(4, **theirs_by_default())
    agree(PLIFNet(variant, channels=4, neuron=node()), theirs, draw(3, 2, *frame))  # type: ignore[arg-type]


ROWS: list[Row] = [
    Row(
        name,
        "different",
        partial(compare, name),
        note=f'`PLIFNet("{variant}")`; the same numbers, and weights load by name',
        ours="backbones.PLIFNet",
        arguments={
            "channels": "by default the variant's, which is the same",
            "spiking_neuron": ABSENT["spiking_neuron"],
        },
    )
    for name, (variant, _) in NETS.items()
]
