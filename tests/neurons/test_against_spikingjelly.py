"""Ours and SpikingJelly 2.0's, side by side: same names, same options, same numbers."""

import copy
import itertools

import pytest
import torch

from jellyfit import neurons, surrogates
from jellyfit.surrogates import SurrogateFunction
from tests.compat.rows import peer

T = 5


SHARED_OPTIONS = {
    "v_threshold": (1.0, 0.6),
    "v_reset": (0.0, None, -0.2),
    "detach_reset": (False, True),
}
LEAK_OPTIONS = {"decay_input": (True, False)}
NEURONS = {
    "IFNode": SHARED_OPTIONS,
    "LIFNode": {**SHARED_OPTIONS, **LEAK_OPTIONS, "tau": (2.0, 3.7)},
    "ParametricLIFNode": {**SHARED_OPTIONS, **LEAK_OPTIONS, "init_tau": (2.0, 3.7)},
    # without a hard reset these two grow beyond all bounds
    "QIFNode": {"v_reset": (0.0, -0.2), "detach_reset": (False, True), "tau": (3.7,), "a0": (0.7,), "v_c": (0.5,)},
    "EIFNode": {"v_reset": (0.0, -0.2), "detach_reset": (False, True), "delta_T": (0.7,), "theta_rh": (0.6,)},
    "IzhikevichNode": {"v_reset": (None, -0.2), "detach_reset": (False, True), "a": (0.3,), "b": (0.2,)},
}
SURROGATES = ("Sigmoid", "ATan", "PiecewiseQuadratic", "Rect", "DeterministicPass")


def _run(node, x, weights, v_weights):
    """Spikes, potentials and gradients of a weighted sum of both outputs."""
    node.to(x.dtype)
    x = x.clone().requires_grad_()
    spikes = node(x) if node.step_mode == "m" else torch.stack([node(step) for step in x])
    ((spikes * weights).sum() + (node.v * v_weights).sum()).backward()
    gradients = {"x": x.grad, **{name: p.grad for name, p in node.named_parameters()}}
    return spikes.detach(), node.v.detach(), None if node.v_seq is None else node.v_seq.detach(), gradients


def _combinations(options):
    return [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("neuron", NEURONS)
def test_neuron_agrees_with_spikingjelly_for_every_option(neuron, surrogate, step_mode, dtype):
    peer_node = getattr(peer("neuron"), neuron)
    peer_surrogate = getattr(peer("surrogate"), surrogate)
    generator = torch.Generator().manual_seed(7)
    # both signs, and large enough that every option's neuron sometimes fires and sometimes stays silent
    x = 1.5 * torch.randn(T, 3, 17, generator=generator, dtype=torch.float64).to(dtype) + 0.4
    weights = torch.randn(T, 3, 17, generator=generator, dtype=torch.float64).to(dtype)
    v_weights = torch.randn(3, 17, generator=generator, dtype=torch.float64).to(dtype)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-13}
    # each kernel takes the compiler a moment: float64 ones are compared with eager in tests/kernels
    backend = "auto" if dtype == torch.float32 or surrogate == "ATan" else "torch"
    for options in _combinations(NEURONS[neuron]):
        common = {**options, "step_mode": step_mode, "store_v_seq": True}
        ours = getattr(neurons, neuron)(surrogate_function=getattr(surrogates, surrogate)(), backend=backend, **common)
        theirs = peer_node(surrogate_function=peer_surrogate(), **common)
        exact = copy.deepcopy(theirs)
        spikes, v, v_seq, gradients = _run(ours, x, weights, v_weights)
        peer_spikes, peer_v, peer_v_seq, peer_gradients = _run(theirs, x, weights, v_weights)
        assert 0.02 < spikes.mean() < 0.98, f"{options}: the test's input must make some neurons fire, and some not"
        assert torch.equal(spikes, peer_spikes), options
        torch.testing.assert_close(v, peer_v, **tolerance, msg=lambda text, o=options: f"v, {o}: {text}")
        torch.testing.assert_close(v_seq, peer_v_seq, **tolerance, msg=lambda text, o=options: f"v_seq, {o}: {text}")
        assert gradients.keys() == peer_gradients.keys()
        for name, gradient in gradients.items():
            largest = peer_gradients[name].abs().max()
            assert largest > 0
            error = (gradient - peer_gradients[name]).abs().max() / largest
            if error > 1e-6:  # a sum of terms that cancel, or a step that doubles differences: who is nearer the truth?
                truth = _run(exact, x.double(), weights.double(), v_weights.double())[3][name]
                if name == "w":  # the size of the terms is what rounding is relative to
                    elementwise = copy.deepcopy(ours).double()
                    elementwise.reset()
                    elementwise.backend = "torch"
                    elementwise.w = torch.nn.Parameter(ours.w.detach().double().expand(x.shape[1:]).clone())
                    largest = _run(elementwise, x.double(), weights.double(), v_weights.double())[3]["w"].abs().sum()
                theirs_off, error = ((g - truth).abs().max() / largest for g in (peer_gradients[name], gradient))
                assert error <= max(1e-6, 2.0 * theirs_off), f"gradient of {name} is off by {error:.2g}, {options}"


@pytest.mark.parametrize("neuron", NEURONS)
def test_defaults_are_spikingjellys(neuron):
    ours, theirs = getattr(neurons, neuron)(), getattr(peer("neuron"), neuron)()
    names = ["v_threshold", "v_reset", "detach_reset", "step_mode", "store_v_seq", "v"]
    names += ["decay_input"] * hasattr(theirs, "decay_input") + ["tau"] * (neuron == "LIFNode")
    names += [
        name for name in ("v_c", "a0", "v_rest", "delta_T", "theta_rh", "w", "tau_w", "a", "b") if hasattr(theirs, name)
    ]
    for name in names:
        assert getattr(ours, name) == getattr(theirs, name), name
    assert type(ours.surrogate_function).__name__ == type(theirs.surrogate_function).__name__
    assert ours.surrogate_function.alpha == theirs.surrogate_function.alpha
    assert ours.state_dict() == theirs.state_dict()


@pytest.mark.parametrize("store_v_seq", [False, True])
@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_v_seq_is_kept_only_when_asked_for_as_in_spikingjelly(step_mode, store_v_seq):
    x = torch.randn(T, 2, 3, generator=torch.Generator().manual_seed(0))
    weights, v_weights = torch.ones(T, 2, 3), torch.ones(2, 3)
    options = {"step_mode": step_mode, "store_v_seq": store_v_seq}
    ours = _run(neurons.LIFNode(**options), x, weights, v_weights)[2]
    theirs = _run(peer("neuron").LIFNode(**options), x, weights, v_weights)[2]
    assert (ours is None) == (theirs is None) == (not store_v_seq)
    if store_v_seq:
        torch.testing.assert_close(ours, theirs)


ALL_SURROGATES = [
    name
    for name in surrogates.__all__
    if isinstance(getattr(surrogates, name), type)
    and name not in (SurrogateFunction.__name__, "MultiLevelSpikeCount", "PoissonPass")  # these: tests/compat
]


@pytest.mark.parametrize("name", ALL_SURROGATES)
def test_surrogate_agrees_with_spikingjelly(name):
    peers = peer("surrogate")
    if not hasattr(peers, name):
        pytest.skip(f"SpikingJelly has no {name} to compare with")
    x = torch.linspace(-3.0, 3.0, 2400, dtype=torch.float64)  # 2400: does not hit 0 or a corner of a window
    results = []
    for module in (surrogates, peers):
        torch.manual_seed(0)  # for those that draw
        argument = x.clone().requires_grad_()
        spikes = getattr(module, name)()(argument)
        spikes.sum().backward()
        results.append((spikes.detach(), argument.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SURROGATES)
def test_surrogates_primitive_agrees_with_spikingjelly(name):
    x = torch.linspace(-3.0, 3.0, 2400, dtype=torch.float64)
    ours = getattr(surrogates, name)(spiking=False)(x)
    theirs = getattr(peer("surrogate"), name)(spiking=False)(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in SURROGATES if n != "DeterministicPass"])
def test_surrogate_agrees_with_spikingjelly_for_another_alpha(name):
    x = torch.linspace(-3.0, 3.0, 2400, dtype=torch.float64)
    gradients = []
    for module in (surrogates, peer("surrogate")):
        argument = x.clone().requires_grad_()
        getattr(module, name)(alpha=1.7)(argument).sum().backward()
        gradients.append(argument.grad)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)
