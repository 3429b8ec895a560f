"""What every neuron does, whatever its equations: one matrix over all of them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from jellyfit import functional, neurons
from jellyfit.errors import InputError, StateError
from jellyfit.neurons import BaseNode

T, N, C = 4, 3, 5
NEURONS: dict[str, Callable[..., Any]] = {
    "IFNode": neurons.IFNode,
    "IFNode-soft": lambda **o: neurons.IFNode(v_reset=None, detach_reset=True, **o),
    "LIFNode": neurons.LIFNode,
    "LIFNode-input-kept": lambda **o: neurons.LIFNode(tau=3.0, decay_input=False, **o),
    "LIFNode-per-channel": lambda **o: neurons.LIFNode(
        tau=torch.linspace(1.5, 3.0, C), v_threshold=torch.nn.Parameter(torch.linspace(0.5, 1.0, C)), **o
    ),
    "ParametricLIFNode": neurons.ParametricLIFNode,
    "ParametricLIFNode-per-channel": lambda **o: neurons.ParametricLIFNode(torch.linspace(1.5, 3.0, C), **o),
    "LinearNode": neurons.LinearNode,
    "LinearNode-per-channel": lambda **o: neurons.LinearNode(
        torch.linspace(0.2, 0.8, C), torch.linspace(0.5, 1.0, C), learn_v_threshold=False, **o
    ),
    "QIFNode": neurons.QIFNode,
    "EIFNode": neurons.EIFNode,
    "IzhikevichNode": lambda **o: neurons.IzhikevichNode(a=0.3, b=0.2, **o),
    "AdaptiveLIFNode": lambda **o: neurons.AdaptiveLIFNode(tau_a=5.0, **o),
    "KLIFNode": neurons.KLIFNode,
    "KLIFNode-per-channel": lambda **o: neurons.KLIFNode(
        scale_reset=True, init_k=torch.linspace(0.7, 1.4, C), v_reset=None, **o
    ),
    "LIAFNode": lambda **o: neurons.LIAFNode(torch.relu, True, **o),
    "CUBALIFNode": neurons.CUBALIFNode,
    "ComplementaryLIFNode": neurons.ComplementaryLIFNode,
    "GatedLIFNode": lambda **o: neurons.GatedLIFNode(T, **o),
    "GatedLIFNode-per-channel": lambda **o: neurons.GatedLIFNode(T, C, **o),
    "ILIFNode": neurons.ILIFNode,
    "TernaryIFNode": neurons.TernaryIFNode,
    "TernaryLIFNode": lambda **o: neurons.TernaryLIFNode(v_reset=None, **o),
    "RAFNode": neurons.RAFNode,
    "RAFNode-learnt": lambda **o: neurons.RAFNode(omega=torch.nn.Parameter(torch.tensor(0.7)), **o),
    "SLTTLIFNode": neurons.SLTTLIFNode,
    "NonSpikingIFNode": neurons.NonSpikingIFNode,
    "NonSpikingLIFNode": lambda **o: neurons.NonSpikingLIFNode(3.0, **o),
    "PSN": lambda **o: neurons.PSN(T, backend=o.get("backend", "auto")),
    "MaskedPSN": lambda **o: neurons.MaskedPSN(2, T, lambda_init=1.0, **o),
    "SlidingPSN": lambda **o: neurons.SlidingPSN(3, **o),
}
STEPPING = [name for name in NEURONS if name != "PSN"]  # a PSN sees the whole sequence
RECURRENT = [name for name in STEPPING if "PSN" not in name]
each = pytest.mark.parametrize("name", NEURONS)
each_stepping = pytest.mark.parametrize("name", STEPPING)


def make(name: str, **options: Any) -> BaseNode:
    torch.manual_seed(1)
    node: BaseNode = NEURONS[name](**{"step_mode": "m", **options})
    return node


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (0.9 * torch.randn(shape, generator=generator) + 0.5).to(dtype)


def run(node: BaseNode, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Output over time, and gradients of input and parameters."""
    x = x.clone().requires_grad_()
    output = node(x) if node.step_mode == "m" else torch.stack([node(step) for step in x])
    weights = torch.linspace(-1.0, 2.0, output.numel(), dtype=x.dtype).view_as(output)
    (output * weights).sum().backward()
    gradients = [x.grad, *(p.grad for p in node.parameters())]
    return output.detach(), [gradient for gradient in gradients if gradient is not None]


def test_every_public_neuron_stands_in_the_matrix() -> None:
    public = {name for name in neurons.__all__ if name.endswith(("Node", "PSN"))}
    bases = {"BaseNode", "AdaptBaseNode", "NonSpikingBaseNode"}
    apart = {"OTTTLIFNode"}  # gives two outputs: see test_online
    assert {name.split("-")[0] for name in NEURONS} == public - bases - apart


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@each_stepping
def test_both_step_modes_give_the_same(name: str, backend: str) -> None:
    x = draw(T, N, C)
    output, gradients = run(make(name, backend=backend), x)
    single, single_gradients = run(make(name, step_mode="s", backend=backend), x)
    torch.testing.assert_close(single, output, rtol=1e-6, atol=1e-6)
    for gradient, expected in zip(single_gradients, gradients, strict=True):
        scale = expected.abs().max().clamp(min=1e-3)
        torch.testing.assert_close(gradient / scale, expected / scale, rtol=1e-5, atol=1e-5)


@each
def test_some_fire_and_some_do_not(name: str) -> None:
    output = make(name, backend="torch")(draw(T, N, C) * (4.0 if "PSN" in name else 1.0))
    assert 0.02 < (output == 0).float().mean() < 0.98 or name.startswith("NonSpiking")
    assert output.isfinite().all()


@pytest.mark.parametrize("shape", [(T, 1, C), (T, N, C, 2, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@each
def test_any_shape_and_dtype_comes_out_as_it_went_in(name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if "per-channel" in name and len(shape) > 3 and not name.startswith("Gated"):
        shape = (*shape[:2], 2, 3, C)  # values of shape [C] lie along the last axis
    node = make(name, backend="torch")
    node = node.double() if dtype == torch.float64 else node
    output, gradients = run(node, draw(*shape, dtype=dtype))
    assert output.shape == shape
    assert output.dtype == dtype
    assert gradients[0].dtype == dtype
    assert all(gradient.isfinite().all() for gradient in gradients)


@each_stepping
def test_one_time_step_and_no_sample(name: str) -> None:
    if "Masked" not in name and "Gated" not in name:  # made for T steps
        assert make(name)(draw(1, N, C)).shape == (1, N, C)
    assert make(name)(torch.empty(T, 0, C)).shape == (T, 0, C)
    assert make(name, step_mode="s")(torch.empty(0, C)).shape == (0, C)


@each
def test_input_that_is_not_contiguous_and_gradients_that_are_not(name: str) -> None:
    x = draw(N, T, C)
    output, gradients = run(make(name), x.transpose(0, 1))
    expected, expected_gradients = run(make(name), x.transpose(0, 1).contiguous())
    assert torch.equal(output, expected)
    torch.testing.assert_close(gradients, expected_gradients)
    leaf = x.transpose(0, 1).contiguous().requires_grad_()
    make(name)(leaf).transpose(0, 2).square().sum().backward()  # comes back transposed
    same = x.transpose(0, 1).contiguous().requires_grad_()
    make(name)(same).square().sum().backward()
    torch.testing.assert_close(leaf.grad, same.grad)


@pytest.mark.parametrize("name", RECURRENT)
def test_state_goes_on_from_call_to_call_until_reset(name: str) -> None:
    if name.startswith("Gated"):
        return  # made for T steps
    node, x = make(name), draw(2 * T, N, C)
    whole = node(x)
    node.reset()
    parts = [node(x[:T]), node(x[T:])]
    assert torch.equal(torch.cat(parts), whole)
    node.reset()
    assert torch.equal(node(x), whole)


@pytest.mark.parametrize("name", RECURRENT)
def test_state_of_another_batch_size_is_an_error(name: str) -> None:
    node = make(name)
    node(draw(T, N, C))
    with pytest.raises(StateError, match="reset_net"):
        node(draw(T, 1, C))  # would broadcast
    functional.reset_net(node)
    assert node(draw(T, 1, C)).shape == (T, 1, C)


@each
def test_copies_pickles_and_state_dicts_right_after_a_forward(name: str) -> None:
    node, x = make(name), draw(T, N, C)
    node(x.requires_grad_())
    expected = None if "PSN" in name or "Gated" in name else node(x)  # goes on from the state
    for twin in (copy.deepcopy(node), pickle.loads(pickle.dumps(node))):
        twin.reset()
        node.reset()
        assert torch.equal(twin(x), node(x))
    fresh = make(name)
    fresh.load_state_dict(node.state_dict())
    assert not {"v", "w", "c", "m", "u", "a", "spike"} & node.state_dict().keys() - dict(node.named_parameters()).keys()
    if expected is not None:
        node.reset()
        node(x)
        assert torch.equal(copy.deepcopy(node)(x), expected)


@each
def test_as_pure_functions_they_give_what_a_call_gives_and_remember_nothing(name: str) -> None:
    node, x = make(name), draw(T, N, C)
    before = dict(node.named_memories())
    output, state = node.run(x)
    assert dict(node.named_memories()) == before
    assert torch.equal(output, node(x))
    if name != "PSN":
        stepped = None
        for t in range(T):
            spike, stepped = node.step(x[t], stepped)
            torch.testing.assert_close(spike, output[t], rtol=1e-6, atol=1e-6)
        assert stepped is not None
        assert stepped.keys() == state.keys()
    if name in RECURRENT and not name.startswith("Gated"):
        again, _ = node.run(x, state)
        assert torch.equal(again, node(x))
        with pytest.raises(InputError, match="does not remember"):
            node.run(x, {"q": 1.0})


@pytest.mark.parametrize("name", RECURRENT)
def test_the_pure_step_goes_through_vmap_and_grad(name: str) -> None:
    node, x = make(name), draw(6, N, C)
    together = torch.func.vmap(lambda one: node.step(one)[0])(x)
    torch.testing.assert_close(together, torch.stack([node.step(one)[0] for one in x]))
    gradient = torch.func.grad(lambda one: node.step(one)[0].sum())(x[0])
    leaf = x[0].clone().requires_grad_()
    node.step(leaf)[0].sum().backward()
    torch.testing.assert_close(gradient, leaf.grad)


@each
def test_no_grad_keeps_nothing_and_changes_nothing(name: str) -> None:
    node, x = make(name), draw(T, N, C).requires_grad_()
    expected = node(x).detach()
    node.reset()
    with torch.no_grad():
        output = node(x)
    assert torch.equal(output, expected)
    assert not output.requires_grad
    assert not any(isinstance(value, Tensor) and value.requires_grad for value in node.memories())


@each
def test_nan_is_found_under_anomaly_detection(name: str) -> None:
    x = draw(T, N, C)
    x[1, 2, 3] = float("nan")
    with torch.autograd.set_detect_anomaly(True), pytest.raises(InputError, match=r"\[1, 2, 3\]"):
        make(name)(x)


@each
def test_integers_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match="floating-point"):
        make(name)(torch.ones(T, N, C, dtype=torch.int64))


@each
def test_wrong_step_modes_and_backends_are_refused(name: str) -> None:
    node = make(name)
    with pytest.raises(InputError, match="step_mode='x'"):
        node.step_mode = "x"
    with pytest.raises(ValueError, match="backend='x'"):
        node.backend = "x"


@each
def test_values_that_are_not_numbers_are_refused(name: str) -> None:
    node = make(name)
    for value in node._values:
        with pytest.raises(InputError, match="finite"):
            node.register_value(value, float("nan"))
