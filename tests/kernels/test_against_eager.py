"""Kernels on the host against eager PyTorch: spikes and states to the bit, gradients to 1e-6."""

import copy
import itertools

import pytest
import torch

from jellyfit import neurons, surrogates
from jellyfit.kernels import KernelWarning
from jellyfit.neurons import BaseNode
from tests.kernels.combinations import SURROGATES

SIZES = (1, 3, 17, 63, 65, 1000, 4097)
STEPS = (1, 2, 5)
LEAKY = ("LIFNode", "ParametricLIFNode")
NEURONS = ("IFNode", "LIFNode", "ParametricLIFNode", "QIFNode", "EIFNode", "IzhikevichNode")
WITH_EVERY_NEURON = ("Sigmoid", "ATan", "PiecewiseQuadratic", "Rect", "DeterministicPass")
PRIMITIVES = {
    name: getattr(surrogates, name).primitive is not surrogates.SurrogateFunction.primitive for name in SURROGATES
}
EXTRA = {"IzhikevichNode": {"a": 0.3, "b": 0.2}}


@pytest.fixture(autouse=True)
def nan_where_nothing_is_written():
    """Fresh tensors hold NaN, so that an element which a kernel forgets shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def draw(steps, *shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (1.2 * torch.randn(steps, *shape, generator=generator) + 0.5).to(dtype)


def run(node: BaseNode, x, backend, carry=True):
    """Everything that comes out of a node, forward and backward, over two calls of which the second goes on."""
    node.backend = backend
    node.reset()
    node.zero_grad()
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    spikes = node(x)
    v_seq = node.v_seq
    if carry:
        spikes = spikes + node(x * 0.9)
        v_seq = v_seq + node.v_seq
    states = [getattr(node, name) for name in ("v", "w") if name in node._memories]
    generator = torch.Generator().manual_seed(5)
    outputs = [spikes, v_seq, *states]
    weights = [torch.randn(o.shape, generator=generator).to(o.dtype) for o in outputs]
    sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True)).backward()
    return outputs, [x.grad, *(p.grad for p in node.parameters())]


def assert_same(node, x, tolerance=1e-6, carry=True):
    outputs, gradients = run(node, x, "cpu", carry)
    expected_outputs, expected_gradients = run(node, x, "torch", carry)
    for output, expected in zip(outputs, expected_outputs, strict=True):
        assert output.dtype == expected.dtype and output.shape == expected.shape
        assert torch.equal(output.nan_to_num(), expected.nan_to_num()), (node, list(x.shape))
    for i, (gradient, expected) in enumerate(zip(gradients, expected_gradients, strict=True)):
        assert gradient.dtype == expected.dtype and gradient.shape == expected.shape
        usable = expected.isfinite()
        assert torch.equal(gradient.isfinite(), usable)
        if not usable.any():
            continue
        gradient, expected = gradient[usable].double(), expected[usable].double()
        scale, error = expected.abs().max(), (gradient - expected).abs().max()
        if i > 0:  # a parameter's gradient is a sum, whose terms may cancel: their size is the scale
            elementwise = copy.deepcopy(node)
            elementwise.w = torch.nn.Parameter(node.w.detach().expand(x.shape[1:]).clone())
            scale = run(elementwise, x, "torch", carry)[1][i].abs().sum().double()
        assert error <= tolerance * scale, f"{error / scale:.2g} of the largest, {node}, {list(x.shape)}"


def make(name, surrogate, soft, detach, decay):
    options = dict(EXTRA.get(name, {}))
    if soft:
        options["v_reset"] = None
    if name in LEAKY:
        options["decay_input"] = decay
    return getattr(neurons, name)(
        surrogate_function=surrogate, detach_reset=detach, step_mode="m", store_v_seq=True, **options
    )


@pytest.mark.parametrize("surrogate", WITH_EVERY_NEURON)
@pytest.mark.parametrize("name", NEURONS)
def test_every_option_and_size_agrees_with_eager(name, surrogate):
    for soft, detach, decay in itertools.product((False, True), (False, True), (True, False)):
        if not decay and name not in LEAKY:
            continue
        node = make(name, getattr(surrogates, surrogate)(), soft, detach, decay)
        for size, steps in itertools.product(SIZES, STEPS):
            assert_same(node, draw(steps, size, 1) * (0.3 if name in ("EIFNode", "QIFNode") else 1.0), 2e-6)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("surrogate", [name for name in SURROGATES if name not in WITH_EVERY_NEURON])
def test_every_surrogate_agrees_with_eager(surrogate, soft):
    node = make("LIFNode", getattr(surrogates, surrogate)(), soft, False, True)
    for size, steps in itertools.product(SIZES, STEPS):
        assert_same(node, draw(steps, size, 1) * 2.0, 2e-6)


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_surrogates_agree_with_eager_at_zero_at_edges_and_far_away(surrogate):
    edges = torch.tensor([0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0, 1e-6, 1e4])
    node = make("IFNode", getattr(surrogates, surrogate)(), False, True, True)
    node.v_threshold = 0.0
    assert_same(node, torch.cat([edges, -edges]).reshape(1, -1, 1), carry=False)


@pytest.mark.parametrize("surrogate", [name for name in SURROGATES if PRIMITIVES[name]])
def test_primitives_agree_with_eager(surrogate):
    node = make("IFNode", getattr(surrogates, surrogate)(spiking=False), False, False, True)
    outputs, gradients = run(node, draw(3, 17, 1), "cpu")
    torch.testing.assert_close((outputs, gradients), run(node, draw(3, 17, 1), "torch"), rtol=1e-5, atol=1e-5)


def test_random_surrogates_run_in_eager_and_say_so():
    torch.manual_seed(0)
    node = make("IFNode", surrogates.PoissonPass(), False, False, True)
    with pytest.warns(KernelWarning, match="runs in eager PyTorch.*aten.bernoulli is not a pointwise operation"):
        spikes = node(torch.full((2, 50), 1.5))
    assert set(spikes.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", NEURONS)
def test_other_dtypes_agree_with_eager(name, dtype):
    node = make(name, surrogates.ATan(), False, False, True)
    if dtype == torch.float64:
        node.double()
    tolerance = {torch.float64: 1e-13, torch.bfloat16: 8e-3, torch.float16: 1e-3}[dtype]  # a rounding of the result
    for size, steps in itertools.product(SIZES, STEPS):
        assert_same(node, draw(steps, size, dtype=dtype) * 0.5, tolerance)
