"""Networks that are stacked: what each does alone, nothing of another, and back to ordinary ones."""

from __future__ import annotations

import copy
import functools
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jellyfit.control import (
    Actor,
    Critic,
    Decoder,
    MembraneDecoder,
    MLPActor,
    Policy,
    RateDecoder,
    RunningNorm,
    SpikingActor,
    StackedLinear,
    stack,
    unstack,
)
from jellyfit.encoders import PopSpikeEncoderRandom
from jellyfit.errors import InputError
from jellyfit.neurons import PSN, CUBALIFNode, GatedLIFNode, LIFNode, ParametricLIFNode
from tests.control.test_networks import ENCODERS

K = 3


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def spiking(**options: Any) -> SpikingActor:
    return SpikingActor(4, 2, [-2.0, 0.0], [1.0, 3.0], **{"hidden": [16, 8], **options})


ACTORS = {
    "mlp": functools.partial(MLPActor, 4, 2, hidden=[16]),
    "default": spiking,
    "current": functools.partial(spiking, encoder=ENCODERS["none"], decoder=RateDecoder, lateral=True),
    "farthest": functools.partial(spiking, decoder=functools.partial(MembraneDecoder, decode="max-abs-mem")),
    "learnable neurons": functools.partial(spiking, neuron=ParametricLIFNode(v_threshold=0.2), lateral=True),
    "a threshold a neuron": functools.partial(
        spiking, hidden=[20], neuron=LIFNode(v_threshold=0.2 * torch.rand(20) + 0.05)
    ),
}


@pytest.mark.parametrize("name", ACTORS)
def test_a_stack_does_what_each_does_with_the_gradients_of_each(name: str) -> None:
    actors = [ACTORS[name]() for _ in range(K)]
    stacked = stack(actors, 4)
    assert list(stacked.state_dict()) == list(actors[0].state_dict())
    obs, weight = torch.randn(12, K, 4), torch.randn(12, K, 2)
    acts = stacked(obs)
    (acts * weight).sum().backward()
    for k, actor in enumerate(actors):
        own = actor(obs[:, k])
        torch.testing.assert_close(acts[:, k], own, rtol=1e-6, atol=1e-6)
        (own * weight[:, k]).sum().backward()
        for (place, mine), theirs in zip(actor.named_parameters(), stacked.parameters(), strict=True):
            assert mine.grad is not None
            assert theirs.grad is not None
            found = theirs.grad[k].view_as(mine.grad)
            torch.testing.assert_close(
                found, mine.grad, rtol=1e-5, atol=1e-5, msg=lambda m, place=place: f"{place}: {m}"
            )


@pytest.mark.parametrize("name", [*ACTORS, "random"])
def test_one_learns_nothing_of_another(name: str) -> None:
    encoder = functools.partial(PopSpikeEncoderRandom, pop_dim=5, spike_ts=4, mean_range=(-3, 3), std=0.4)
    make = functools.partial(spiking, encoder=encoder) if name == "random" else ACTORS[name]
    stacked = stack([make() for _ in range(K)], 4)
    obs = torch.randn(6, K, 4)
    other = obs.clone()
    other[:, 0] = 1.5
    results = []
    for seen in (obs, other):
        torch.manual_seed(1)
        acts = stacked(seen)
        results.append((acts, torch.autograd.grad(acts.square().sum(), list(stacked.parameters()))))
    (first, grads), (second, changed) = results
    assert not torch.equal(first[:, 0], second[:, 0])
    assert torch.equal(first[:, 1:], second[:, 1:])
    for a, b in zip(grads, changed, strict=True):
        assert torch.equal(a[1:], b[1:])


def test_critics_and_norms_are_stacked_too() -> None:
    critics, norms = [Critic(4, 2, hidden=[8]) for _ in range(K)], [RunningNorm(4) for _ in range(K)]
    obs, act = 3 * torch.randn(50, K, 4), torch.randn(50, K, 2)
    critic, norm = stack(critics, 4, 2), stack(norms)
    norm.update(obs[:20])
    norm.update(obs[20:])
    for k in range(K):
        norms[k].update(obs[:20, k])
        norms[k].update(obs[20:, k])
        torch.testing.assert_close(norm(obs)[:, k], norms[k](obs[:, k]))
        torch.testing.assert_close(critic(obs, act)[:, :, k], critics[k](obs[:, k], act[:, k]))
        torch.testing.assert_close(critic.first(obs, act)[:, k], critics[k].first(obs[:, k], act[:, k]))
        assert unstack(norm, k, RunningNorm(4)).count.shape == ()
    with pytest.raises(InputError, match=r"expected observations \[N, 3, 4\]; got \[5, 4\]"):
        norm.update(torch.zeros(5, 4))


@pytest.mark.parametrize("name", ACTORS)
def test_what_was_stacked_comes_back_to_the_bit(name: str) -> None:
    actors = [ACTORS[name]() for _ in range(K)]
    stacked = stack(actors, 4)
    for twin in (stacked, pickle.loads(pickle.dumps(stacked)), copy.deepcopy(stacked)):
        for k, actor in enumerate(actors):
            again = unstack(twin, k, ACTORS[name]())
            for (place, value), own in zip(again.state_dict().items(), actor.state_dict().values(), strict=True):
                assert torch.equal(value, own), place
    with pytest.raises(InputError, match="there is no network 3; expected 0 to 2"):
        unstack(stacked, 3, ACTORS[name]())


def test_a_stack_is_of_its_own_and_draws_nothing() -> None:
    actors = [MLPActor(4, 2, hidden=[8]) for _ in range(K)]
    before = torch.get_rng_state()
    stacked = stack(actors, 4)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        for parameter in stacked.parameters():
            parameter.zero_()
    assert all(bool(parameter.any()) for actor in actors for parameter in actor.parameters())


class OnItsOwn(Decoder):
    """A decoder with weights of its own."""

    def __init__(self, act_dim: int) -> None:
        super().__init__(act_dim, 4)
        self.gain = nn.Parameter(torch.ones(act_dim))

    def forward(self, spikes: Tensor) -> Tensor:
        return self.group(spikes.mean(0)) * self.gain  # type: ignore[no-any-return]


class FirstValue(Actor):
    """Takes the second axis for the features, and gets another shape."""

    def values(self, obs: Tensor) -> Tensor:
        return obs[:, : self.act_dim]


class OfTheBatch(MLPActor):
    """Mixes what lies side by side."""

    def values(self, obs: Tensor) -> Tensor:
        return super().values(obs - obs.mean(1, keepdim=True))


class Fails(MLPActor):
    """Knows two axes alone."""

    def values(self, obs: Tensor) -> Tensor:
        return super().values(obs.t().t())


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (functools.partial(spiking, decoder=OnItsOwn), "core.decoder.gain of OnItsOwn"),
        (functools.partial(spiking, neuron=PSN(5)), "core.layers.1.weight of PSN"),
        (functools.partial(spiking, neuron=GatedLIFNode(5)), "core.layers.1.alpha of GatedLIFNode"),
        (functools.partial(FirstValue, 4, 2), "it fails with 2 of them: The size of tensor a"),
        (functools.partial(OfTheBatch, 4, 2), "other values than each alone"),
        (functools.partial(Fails, 4, 2), "it fails with 2 of them: t\\(\\) expects a tensor with <= 2 dimensions"),
    ],
)
def test_what_cannot_be_stacked_is_named(make: Any, why: str) -> None:
    with pytest.raises(InputError, match=rf"cannot be stacked for several learners: .*({why})"):
        stack([make() for _ in range(2)], 4)


def test_networks_of_several_makes_are_refused() -> None:
    with pytest.raises(InputError, match="differ in their tensors"):
        stack([MLPActor(4, 2, hidden=[8]), MLPActor(4, 2, hidden=[9])])
    stacked = StackedLinear([nn.Linear(3, 2, bias=False) for _ in range(K)])
    assert stacked.bias is None
    assert stacked(torch.zeros(5, 7, K, 3)).shape == (5, 7, K, 2)
    for wrong in (torch.zeros(K, 3), torch.zeros(5, 2, 3), torch.zeros(5, K, 4)):
        with pytest.raises(InputError, match=r"StackedLinear: expected \[N, 3, 3\]; got"):
            stacked(wrong)
    with pytest.raises(InputError, match=r"MLPActor: expected observations \[N, 3, 4\]; got \[5, 4\]"):
        stack([MLPActor(4, 2) for _ in range(K)])(torch.zeros(5, 4))


def test_kernels_and_eager_pytorch_agree_on_a_stack() -> None:
    from jellyfit import functional

    stacked = stack([spiking(neuron=CUBALIFNode()) for _ in range(K)], 4)
    eager, obs, results = copy.deepcopy(stacked), torch.randn(6, K, 4), []
    functional.set_backend(eager, "torch")
    for net in (stacked, eager):
        acts = net(obs)
        results.append((acts, torch.autograd.grad(acts.sum(), list(net.parameters()))))
    assert torch.equal(results[0][0], results[1][0])
    for fast, slow in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-7)


def test_a_policy_normalises_and_acts() -> None:
    norm = RunningNorm(4)
    norm.update(5 + 2 * torch.randn(100, 4))
    actor, obs = MLPActor(4, 2, hidden=[8]), torch.randn(3, 4)
    policy = Policy(actor, norm)
    assert torch.equal(policy(obs), actor(norm(obs)))
    assert torch.equal(Policy(actor)(obs), actor(obs))
    assert torch.equal(torch.from_numpy(pickle.loads(pickle.dumps(policy)).act(obs.numpy())), policy(obs))
