"""Kernels on the host against eager PyTorch: spikes and states to the bit, gradients to 1e-6."""

import copy
import inspect
import itertools
import math

import pytest
import torch

from jellyfit import neurons, surrogates
from jellyfit.kernels import KernelWarning
from jellyfit.neurons import BaseNode
from tests.kernels.combinations import NEURONS, SURROGATES, WITH_EVERY_NEURON, Oddly, build

SIZES = (1, 3, 17, 63, 65, 1000, 4097)
STEPS = (1, 2, 5)
SMALL = ("EIFNode", "QIFNode")  # these grow beyond all bounds
NOT_TO_THE_BIT = (neurons.ComplementaryLIFNode,)  # the last bit of eager's sigmoid depends on an element's place
PRIMITIVES = {
    name: getattr(surrogates, name).primitive is not surrogates.SurrogateFunction.primitive for name in SURROGATES
}


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
    states = [getattr(node, name) for name in node._memories if not name.startswith("_")]
    generator = torch.Generator().manual_seed(5)
    outputs = [spikes, v_seq, *states]
    weights = [torch.randn(o.shape, generator=generator).to(o.dtype) for o in outputs]
    sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True)).backward()
    return outputs, [x.grad, *(p.grad for p in node.parameters() if p.grad is not None)]


def assert_same(node, x, tolerance=1e-6, carry=True):
    outputs, gradients = run(node, x, "cpu", carry)
    expected_outputs, expected_gradients = run(node, x, "torch", carry)
    for output, expected in zip(outputs, expected_outputs, strict=True):
        assert output.dtype == expected.dtype and output.shape == expected.shape
        if type(node) in NOT_TO_THE_BIT:
            torch.testing.assert_close(
                output, expected, rtol=1e-6 if x.dtype == torch.float32 else tolerance, atol=1e-6
            )
        else:
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
            for name, parameter in node.named_parameters():
                setattr(elementwise, name, torch.nn.Parameter(parameter.detach().expand(x.shape[1:]).clone()))
            scale = run(elementwise, x, "torch", carry)[1][i].abs().sum().double()
        if error <= tolerance * scale:
            continue
        truth = run(copy.deepcopy(node).double(), x.double(), "torch", carry)[1][i][
            usable
        ]  # terms in time cancel too: who is nearer?
        off, eager_off = (gradient - truth).abs().max(), (expected - truth).abs().max()
        assert off <= 4.0 * eager_off, f"{error / scale:.2g} of the largest, {node}, {list(x.shape)}"


def make(name, surrogate, soft, detach, decay):
    options = {"v_reset": None} if soft else {}
    return build(
        name, surrogate_function=surrogate, detach_reset=detach, decay_input=decay, store_v_seq=True, **options
    )


def takes(name, option):
    return option in inspect.signature(getattr(neurons, name)).parameters


@pytest.mark.parametrize("surrogate", WITH_EVERY_NEURON)
@pytest.mark.parametrize("name", NEURONS)
def test_every_option_and_size_agrees_with_eager(name, surrogate):
    options = {
        "v_reset": (False, True) if takes(name, "v_reset") else (False,),
        "detach_reset": (False, True) if takes(name, "detach_reset") else (False,),
        "decay_input": (True, False) if takes(name, "decay_input") else (True,),
    }
    for soft, detach, decay in itertools.product(*options.values()):
        node = make(name, getattr(surrogates, surrogate)(), soft, detach, decay)
        for size, steps in itertools.product(SIZES, STEPS):
            assert_same(node, draw(steps, size, 1) * (0.3 if name in SMALL else 1.0), 2e-6)


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


@pytest.mark.parametrize("threshold", [1.0, 0.3, 1e-29, 1e-38, -0.7, 3e38])
def test_spikes_at_the_threshold_and_beside_it_are_those_of_eager(threshold):
    at = torch.tensor(threshold)
    near = [
        at,
        at.nextafter(torch.tensor(math.inf)),
        at.nextafter(torch.tensor(-math.inf)),
        at * 2.0,
        at * 0.5,
        -at,
        0.0 * at,
    ]
    x = torch.stack([*near, *(torch.tensor(number) for number in (math.inf, -math.inf, math.nan, 1e-45))])
    node = make("IFNode", surrogates.ATan(), False, False, True)
    node.v_threshold = threshold
    assert_same(node, x.reshape(1, -1, 1), carry=False)
    node.reset()
    node.backend = "cpu"
    assert node(x.reshape(1, -1, 1))[0, :3, 0].tolist() == [1.0, 1.0, 0.0]


def test_memories_may_be_called_like_anything_in_the_generated_source():
    node = Oddly(store_v_seq=True)
    for size, steps in ((1, 1), (65, 2), (1000, 5)):
        assert node.kernels.plan(draw(steps, size, 1)) is not None
        assert_same(node, draw(steps, size, 1), 2e-6)


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
