"""Rows of attention layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jellyfit import functional
from jellyfit.layers import attention
from jellyfit.neurons import IFNode
from tests.compat.rows import Row, close, peer


def agree(name: str, shape: tuple[int, ...], *args: Any, **options: Any) -> tuple[nn.Module, nn.Module]:
    """Both made with the same arguments and weights agree in outputs, gradients and states; gives them back."""
    torch.manual_seed(0)
    ours = getattr(attention, name)(*args, **options).double()
    theirs = getattr(peer("layer"), name)(*args, **options).double()
    functional.set_backend(ours, "torch")
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, 0.3)  # so that neurons fire
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(shape, dtype=torch.float64)
    weights = torch.randn(shape, dtype=torch.float64)
    found = []
    for layer in (ours, theirs):
        given = x.clone().requires_grad_()
        y = layer(given)
        (y * weights).sum().backward()
        found.append((y, given.grad, *(parameter.grad for parameter in layer.parameters())))
    for i, (mine, other) in enumerate(zip(*found, strict=True)):
        close(mine, other, f"{name} {args} {options}, result {i}")
    assert shape[0] == 1 or min(float(result.detach().abs().sum()) for result in found[0][:2]) > 0.0
    for mine, other in zip(potentials(ours), potentials(theirs), strict=True):
        close(mine.reshape(-1), other.reshape(-1), f"{name}: state")
    return ours, theirs


def potentials(layer: nn.Module) -> Iterator[Tensor]:
    for module in layer.modules():
        if hasattr(module, "v_threshold"):
            yield module.v


def temporal() -> None:
    for reduction in (2, 3, 8):
        agree("TemporalWiseAttention", (8, 3, 4, 5, 5), 8, reduction)
        agree("TemporalWiseAttention", (8, 3, 4), 8, reduction=reduction, dimension=2)
    agree("TemporalWiseAttention", (1, 1, 2, 1, 1), 1, 1)


def multi_dimensional() -> None:
    shape = (8, 3, 6, 5, 4)
    for use in ((True, True, True), (True, False, False), (False, True, False), (False, False, True)):
        for kernel_size in (3, 7):
            agree("MultiDimensionalAttention", shape, 8, 6, 2, 3, kernel_size, *use)
    agree("MultiDimensionalAttention", shape, T=1, C=6, reduction_c=3, use_temporal=False)


def takes_neurons_not_their_settings(name: str) -> Callable[..., None]:
    """The one difference of the layers with neurons."""

    def check(*shape: int, **options: Any) -> None:
        for heads in (1, 2, 8):
            agree(name, shape, 8, heads, **options)
        agree(name, (1, 2, *shape[2:]), 8, **options)
        getattr(peer("layer"), name)(8, tau=3.0, **options)
        with pytest.raises(TypeError, match="tau"):
            getattr(attention, name)(8, tau=3.0, **options)
        layer = getattr(attention, name)(8, spiking_neuron=IFNode(v_threshold=0.7), **options)
        assert {node.v_threshold for _, node in functional.named_neurons(layer)} == {0.7}
        custom = getattr(peer("layer"), name)(8, spiking_neuron=peer("neuron").IFNode, **options)
        layer = getattr(attention, name)(8, spiking_neuron=IFNode, **options)
        thresholds = [[m.v_threshold for m in net.modules() if hasattr(m, "v_threshold")] for net in (custom, layer)]
        assert thresholds[0] == thresholds[1]  # neurons made by a callable are all alike

    return check


def self_attention() -> None:
    check = takes_neurons_not_their_settings("SpikingSelfAttention")
    check(4, 3, 8, 5)
    check(4, 3, 8, 1)


def query_key() -> None:
    check = takes_neurons_not_their_settings("QKAttention")
    check(4, 3, 8, 5)
    check(4, 3, 8, 5, qka_type="channel")


def query_key_of(name: str) -> Callable[[], None]:
    return lambda: takes_neurons_not_their_settings(name)(4, 3, 8, 5)


NEURONS = (
    "settings of the neurons in it come with `spiking_neuron` (a neuron to copy, or a callable), not as `**kwargs`"
)
FIXED = {"qka_type": "set by the class, as there"}

ROWS: list[Row] = [
    Row("TemporalWiseAttention", "same", temporal),
    Row("MultiDimensionalAttention", "same", multi_dimensional),
    Row("SpikingSelfAttention", "different", self_attention, note=f"{NEURONS}; also goes step by step"),
    Row("QKAttention", "different", query_key, note=f"{NEURONS}; also goes step by step"),
    Row("TokenQKAttention", "different", query_key_of("TokenQKAttention"), note=NEURONS, arguments=FIXED),
    Row("ChannelQKAttention", "different", query_key_of("ChannelQKAttention"), note=NEURONS, arguments=FIXED),
    Row(
        "SpikeDrivenSelfAttention",
        "different",
        lambda: takes_neurons_not_their_settings("SpikeDrivenSelfAttention")(4, 3, 8, 5, 4),
        note=NEURONS,
    ),
]
