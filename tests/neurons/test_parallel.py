"""Parallel spiking neurons: the numbers of SpikingJelly, both step modes, the fused threshold."""

import copy
import pickle

import pytest
import torch

from jellyfit import functional
from jellyfit.errors import InputError, StateError
from jellyfit.neurons import PSN, MaskedPSN, SlidingPSN
from tests.compat.rows import peer

T = 6


def draw(*shape, seed=0):
    return 2.0 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + 1.0


def masked(lambda_init=1.0, k=3, **options):
    return MaskedPSN(k, T, lambda_init, **{"step_mode": "m", **options})


CASES = {
    "PSN": lambda: PSN(T),
    "MaskedPSN": masked,
    "MaskedPSN half way": lambda: masked(0.4),
    "SlidingPSN": lambda: SlidingPSN(3, step_mode="m"),
    "SlidingPSN longer than T": lambda: SlidingPSN(9, step_mode="m"),
}


def run(node, x):
    x = x.clone().requires_grad_()
    spikes = node(x)
    (spikes * draw(*x.shape, seed=1)).sum().backward()
    return spikes.detach(), [x.grad, *(p.grad for p in node.parameters())]


@pytest.mark.parametrize("case", CASES)
def test_kernels_agree_with_eager_and_with_spikingjelly(case):
    torch.manual_seed(3)
    node = CASES[case]()
    assert node.kernels.plan(draw(T, 3, 5)) is not None
    eager = copy.deepcopy(node)
    eager.backend = "torch"
    arguments = {
        "PSN": lambda peer: peer(T),
        "MaskedPSN": lambda peer: peer(3, T, float(node.lambda_), step_mode="m"),
        "SlidingPSN": lambda peer: peer(node.k, step_mode="m"),
    }
    name = type(node).__name__
    theirs = arguments[name](getattr(peer("neuron"), name))
    theirs.load_state_dict(node.state_dict())
    x = draw(T, 3, 5)
    ours, expected, peers = run(node, x), run(eager, x), run(theirs, x)
    assert 0.02 < ours[0].mean() < 0.98
    assert torch.equal(ours[0], expected[0]) and torch.equal(ours[0], peers[0])
    for one, other, third in zip(ours[1], expected[1], peers[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(one, third, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["MaskedPSN", "SlidingPSN", "SlidingPSN longer than T"])
def test_step_by_step_is_the_sequence(case):
    node = CASES[case]()
    x = draw(T, 3, 5)
    sequence = run(node, x)
    functional.set_step_mode(node, "s")
    for parameter in node.parameters():
        parameter.grad = None
    for _ in range(2):
        functional.reset_net(node)
        leaf = x.clone().requires_grad_()
        spikes = torch.stack([node(step) for step in leaf])
    (spikes * draw(*x.shape, seed=1)).sum().backward()
    assert torch.equal(spikes, sequence[0])
    for one, other in zip([leaf.grad, *(p.grad for p in node.parameters())], sequence[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_lambda_follows_training_and_is_saved():
    node = masked(0.0)
    everything = node(draw(T, 3, 5))
    node.lambda_ = 1.0
    assert not torch.equal(node(draw(T, 3, 5)), everything)
    other = masked(0.0)
    other.load_state_dict(node.state_dict())
    assert float(other.lambda_) == 1.0


def test_defaults_are_spikingjellys():
    neurons = peer("neuron")
    for ours, theirs in ((PSN(T), neurons.PSN(T)), (SlidingPSN(4), neurons.SlidingPSN(4))):
        assert ours.surrogate_function.alpha == theirs.surrogate_function.alpha
        assert torch.equal(ours.bias, theirs.bias)
        assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert torch.equal(SlidingPSN(4).weight, neurons.SlidingPSN(4).weight)
    assert masked().state_dict().keys() == neurons.MaskedPSN(3, T).state_dict().keys()
    assert float(MaskedPSN(3, T).lambda_) == 0.0 and MaskedPSN(3, T).step_mode == "s"


@pytest.mark.parametrize("case", CASES)
def test_copies_pickles_half_precision_and_a_batch_of_none(case):
    node = CASES[case]()
    x = draw(T, 3, 5)
    spikes = node(x)
    assert torch.equal(pickle.loads(pickle.dumps(node))(x), spikes)
    assert node(x.bfloat16()).dtype == torch.bfloat16
    assert node(x[:, :0]).shape == (T, 0, 5)


def test_misuse_is_told():
    with pytest.raises(InputError, match=r"T = 6 steps; got shape \[5, 3, 4\]"):
        PSN(T)(draw(5, 3, 4))
    node = PSN(T)
    node.step_mode = "s"
    with pytest.raises(InputError, match="step mode 'm' only"):
        node(draw(3, 4))
    with pytest.raises(InputError, match="lambda_ = 0.5.*Set lambda_ to 1"):
        masked(0.5, step_mode="s")(draw(3, 4))
    node = masked(step_mode="s")
    for step in draw(T, 3, 4):
        node(step)
    with pytest.raises(StateError, match="reset_net"):
        node(draw(3, 4))
    for wrong in (lambda: PSN(0), lambda: MaskedPSN(7, T), lambda: SlidingPSN(0)):
        with pytest.raises(InputError):
            wrong()
