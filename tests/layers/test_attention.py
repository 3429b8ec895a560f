"""Attention layers: what their scores are, both step modes, dtypes, messages. SpikingJelly's numbers: tests/compat."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jellyfit import functional
from jellyfit.errors import InputError, InputTypeError
from jellyfit.layers.attention import (
    ChannelQKAttention,
    MultiDimensionalAttention,
    QKAttention,
    SpikeDrivenSelfAttention,
    SpikingSelfAttention,
    TemporalWiseAttention,
    TokenQKAttention,
)
from jellyfit.neurons import IFNode, LIFNode

NODE = LIFNode(backend="torch", detach_reset=True)
SPIKING: dict[str, Any] = {
    "ssa": (lambda **k: SpikingSelfAttention(8, 2, **k), (8, 5)),
    "token": (lambda **k: TokenQKAttention(8, 2, **k), (8, 5)),
    "channel": (lambda **k: ChannelQKAttention(8, 2, **k), (8, 5)),
    "sdsa": (lambda **k: SpikeDrivenSelfAttention(8, 2, **k), (8, 3, 2)),
}
WHOLE: dict[str, Any] = {
    "temporal": (lambda: TemporalWiseAttention(4, 2), (6, 5, 5)),
    "temporal of vectors": (lambda: TemporalWiseAttention(4, 2, 2), (6,)),
    "multi": (lambda: MultiDimensionalAttention(4, 6, 2, 3), (6, 5, 5)),
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def lively(layer: nn.Module) -> nn.Module:
    """Weights with which neurons fire."""
    for parameter in layer.parameters():
        nn.init.normal_(parameter, 0.3)
    return layer


def all_layers() -> list[Any]:
    spiking = [(name, lambda make=make: make(spiking_neuron=NODE), shape) for name, (make, shape) in SPIKING.items()]
    whole = [(name, make, shape) for name, (make, shape) in WHOLE.items()]
    return [pytest.param(make, shape, id=name) for name, make, shape in [*spiking, *whole]]


@pytest.mark.parametrize(("make", "shape"), all_layers())
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("N", [0, 1, 3])
def test_shape_and_dtype_are_kept_and_gradients_arrive(make: Any, shape: Any, dtype: torch.dtype, N: int) -> None:
    layer = lively(make().to(dtype))
    x = torch.randn(4, N, *shape, dtype=dtype).requires_grad_()
    y = layer(x)
    assert y.shape == x.shape
    assert y.dtype == dtype
    y.float().sum().backward()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())
    assert all(p.grad is not None for p in layer.parameters())


@pytest.mark.parametrize(("make", "shape"), all_layers())
def test_copies_and_pickles_give_the_same_numbers(make: Any, shape: Any) -> None:
    layer = lively(make())
    x = torch.randn(4, 2, *shape)
    twin, thawed = copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))
    y = layer(x)
    assert torch.equal(y, twin(x))
    assert torch.equal(y, thawed(x))


@pytest.mark.parametrize("name", SPIKING)
def test_step_by_step_gives_the_numbers_of_the_whole_sequence(name: str) -> None:
    make, shape = SPIKING[name]
    layer = lively(make(spiking_neuron=NODE)).double().eval()
    x = torch.randn(5, 3, *shape, dtype=torch.float64)
    y_seq = layer(x)
    assert float(y_seq.detach().abs().sum()) > 0.0
    functional.reset_net(layer)
    functional.set_step_mode(layer, "s")
    torch.testing.assert_close(torch.stack([layer(step) for step in x]), y_seq)


@pytest.mark.parametrize("name", SPIKING)
def test_one_time_step_is_a_sequence_too(name: str) -> None:
    make, shape = SPIKING[name]
    assert make(spiking_neuron=NODE)(torch.randn(1, 2, *shape)).shape == (1, 2, *shape)


@pytest.mark.parametrize("name", SPIKING)
def test_neurons_are_copies_of_the_template(name: str) -> None:
    make, _ = SPIKING[name]
    template = IFNode(v_threshold=0.7)
    template(torch.ones(2, 3))
    nodes = [node for _, node in functional.named_neurons(make(spiking_neuron=template))]
    assert len(nodes) >= 3
    assert len(set(map(id, [*nodes, template]))) == len(nodes) + 1
    for node in nodes:
        assert (type(node), node.v_threshold, node.v, node.step_mode) == (IFNode, 0.7, 0.0, "m")
    assert template.step_mode == "s"


def test_self_attention_is_the_product_of_the_three_spike_matrices() -> None:
    layer = lively(SpikingSelfAttention(8, 2, NODE)).double()
    seen: dict[str, Tensor] = {}
    layer.qkv_lif.register_forward_hook(lambda m, a, y: seen.update(qkv=y))
    layer.attn_lif.register_forward_hook(lambda m, a, y: seen.update(attention=a[0]))
    layer(torch.randn(4, 3, 8, 5, dtype=torch.float64))
    q, k, v = seen["qkv"].view(4, 3, 3, 2, 4, 5).unbind(2)
    expected = torch.einsum("tnhci,tnhcj,tnhdj->tnhdi", q, k, v) / 8  # i: token that asks, j: token that answers
    assert float(expected.detach().sum()) > 0.0
    assert torch.equal(seen["attention"].view_as(expected), expected)


def test_the_number_of_heads_does_not_change_spike_driven_attention() -> None:
    one, four = (lively(SpikeDrivenSelfAttention(8, heads, NODE)).eval() for heads in (1, 4))
    four.load_state_dict(one.state_dict())
    x = torch.randn(4, 2, 8, 3, 3)
    assert torch.equal(one(x), four(x))


def test_weights_of_zero_halve_the_input_once_for_every_attention() -> None:
    x = torch.randn(4, 2, 6, 5, 5)
    for use in ((True, True, True), (True, False, True), (False, True, False)):
        layer = MultiDimensionalAttention(4, 6, 2, 3, 3, *use)
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
        torch.testing.assert_close(layer(x), x.relu() / 2 ** sum(use))
    temporal = TemporalWiseAttention(4, 2)
    for parameter in temporal.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(temporal(x), x / 2)


@pytest.mark.parametrize("name", WHOLE)
def test_scores_do_not_depend_on_the_rest_of_the_batch(name: str) -> None:
    make, shape = WHOLE[name]
    layer, x = lively(make()), torch.randn(4, 3, *shape)
    torch.testing.assert_close(layer(x)[:, 1:2], layer(x[:, 1:2]))


@pytest.mark.parametrize("name", WHOLE)
def test_whole_sequences_are_asked_for(name: str) -> None:
    make, shape = WHOLE[name]
    layer = make()
    functional.set_step_mode(layer, "s")
    with pytest.raises(InputError, match="step mode 'm' only"):
        layer(torch.randn(2, *shape))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TemporalWiseAttention(4), "reduction=16: expected 1 to 4"),
        (lambda: TemporalWiseAttention(4, 0), "reduction=0: expected 1 to 4"),
        (lambda: TemporalWiseAttention(16, dimension=3), "dimension=3"),
        (lambda: MultiDimensionalAttention(4, 16), "reduction_t=16: expected 1 to 4"),
        (lambda: MultiDimensionalAttention(16, 4), "reduction_c=16: expected 1 to 4"),
        (lambda: MultiDimensionalAttention(16, 16, kernel_size=5), "kernel_size=5"),
        (
            lambda: MultiDimensionalAttention(16, 16, use_temporal=False, use_channel=False, use_spatial=False),
            "at least one",
        ),
        (lambda: SpikingSelfAttention(10, 4), "dim=10, num_heads=4"),
        (lambda: QKAttention(8, 0), "num_heads=0"),
        (lambda: QKAttention(8, qka_type="head"), "qka_type='head'"),
        (lambda: TemporalWiseAttention(4, 2)(torch.rand(5, 2, 3)), "made for T = 4; got 5"),
        (lambda: TemporalWiseAttention(4, 2)(torch.rand(4, 2, 3, 3)), r"expected \[T, N, L\] or \[T, N, C, H, W\]"),
        (lambda: MultiDimensionalAttention(4, 6, 2, 3)(torch.rand(4, 2, 5, 3, 3)), "made for C = 6; got 5"),
        (lambda: MultiDimensionalAttention(4, 6, 2, 3)(torch.rand(4, 2, 6)), "got shape"),
        (lambda: SpikingSelfAttention(8)(torch.rand(4, 2, 5, 8)), r"expected \[T, N, C, L\] with C = 8"),
        (lambda: SpikingSelfAttention(8)(torch.rand(2, 8, 5)), "got shape"),
        (lambda: SpikeDrivenSelfAttention(8)(torch.rand(4, 2, 8, 5)), r"expected \[T, N, C, H, W\] with C = 8"),
    ],
)
def test_mistakes_are_named(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("wrong", ["LIFNode", nn.ReLU, nn.ReLU()])
def test_what_is_no_neuron_is_refused(wrong: Any) -> None:
    with pytest.raises(InputTypeError, match="expected a neuron such as"):
        SpikingSelfAttention(8, spiking_neuron=wrong)
