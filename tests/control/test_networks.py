"""Actors, critics and decoders: their formulas, gradients, state, what SpikingJelly and PopSAN compute."""

from __future__ import annotations

import copy
import functools
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from jellyfit import functional
from jellyfit.control import (
    Actor,
    Critic,
    GroupLinear,
    MembraneDecoder,
    MLPActor,
    RateDecoder,
    RunningNorm,
    SpikingActor,
)
from jellyfit.encoders import PopEncoder, PopSpikeEncoderDeterministic, PopSpikeEncoderRandom
from jellyfit.errors import ConfigError, InputError
from jellyfit.neurons import CUBALIFNode


def spikes(T: int = 5, N: int = 3, features: int = 6) -> Tensor:
    return torch.randint(0, 2, (T, N, features), generator=torch.Generator().manual_seed(0)).float()


def test_a_group_layer_is_a_grouped_convolution() -> None:
    layer = GroupLinear(2, 3)
    conv = torch.nn.Conv1d(2, 2, 3, groups=2)
    conv.weight.data, conv.bias.data = layer.weight.data[:, None], layer.bias.data  # type: ignore[union-attr]
    x = torch.randn(4, 6)
    torch.testing.assert_close(layer(x), conv(x.view(4, 2, 3)).squeeze(-1))
    with pytest.raises(InputError, match="got 5 features; expected 2 populations of 3"):
        layer(torch.zeros(1, 5))


def test_the_last_potential_is_a_rate_with_weights_times_the_number_of_steps() -> None:
    rate, last = RateDecoder(2, 3), MembraneDecoder(2, 3)
    last.group.weight.data, last.group.bias.data = rate.group.weight.data / 5, rate.group.bias.data / 5
    torch.testing.assert_close(last(spikes()), rate(spikes()))


@pytest.mark.parametrize("decode", ["last-mem", "max-mem", "max-abs-mem", "mean-mem"])
def test_a_membrane_decoder_adds_up_over_time(decode: Any) -> None:
    decoder = MembraneDecoder(2, 3, decode)
    potentials = decoder.group(spikes()).cumsum(0)
    expected = {
        "last-mem": potentials[-1],
        "max-mem": potentials.amax(0),
        "mean-mem": potentials.mean(0),
        "max-abs-mem": potentials.gather(0, potentials.abs().argmax(0, keepdim=True))[0],
    }[decode]
    torch.testing.assert_close(decoder(spikes()), expected)
    with pytest.raises(ConfigError):
        MembraneDecoder(2, 3, "middle")  # type: ignore[arg-type]


def popsan(actor: SpikingActor, obs: Tensor) -> Tensor:
    """PopSAN's forward pass, step by step: current-based neurons, rates, one linear map a population."""
    encoded = actor.encoder(obs)
    state: dict[int, Tensor] = {}
    total = torch.zeros(len(obs), actor.act_dim * actor.core.decoder.pop_dim)
    linears = [module for module in actor.core.layers if isinstance(module, torch.nn.Linear)]
    for step in encoded:
        s = step
        for i, linear in enumerate(linears):
            c, v, before = (state.get(3 * i + k, torch.zeros(len(obs), linear.out_features)) for k in range(3))
            c = 0.5 * c + torch.nn.functional.linear(s, linear.weight, linear.bias)
            v = 0.75 * v * (1 - before) + c
            s = (v >= 0.5).float()
            state |= {3 * i: c, 3 * i + 1: v, 3 * i + 2: s}
        total = total + s
    return torch.tanh(actor.core.decoder.group(total / len(encoded))) * actor.scale + actor.middle


def test_with_a_rate_decoder_it_is_popsan() -> None:
    torch.manual_seed(0)
    actor = SpikingActor(4, 2, [-2.0, 0.0], [2.0, 1.0], hidden=[16, 12], decoder=RateDecoder)
    obs = torch.randn(7, 4)
    torch.testing.assert_close(actor(obs), popsan(actor, obs))


def test_actions_stay_between_their_bounds() -> None:
    torch.manual_seed(0)
    actor = MLPActor(3, 2, [-2.0, 0.0], [2.0, 1.0], hidden=[8])
    acts = actor(100 * torch.randn(1000, 3))
    assert bool((acts >= actor.low).all())
    assert bool((acts <= actor.high).all())
    assert acts.amin(0).tolist() == pytest.approx([-2.0, 0.0], abs=1e-2)
    assert acts.amax(0).tolist() == pytest.approx([2.0, 1.0], abs=1e-2)
    for low, high in ((1.0, 1.0), (-float("inf"), 1.0)):
        with pytest.raises(InputError, match="expected finite bounds, low below high"):
            MLPActor(3, 2, low, high)
    with pytest.raises(InputError, match=r"expected observations \[N, 3\]; got \[3\]"):
        actor(torch.zeros(3))


ENCODERS = {
    "deterministic": functools.partial(
        PopSpikeEncoderDeterministic, pop_dim=5, spike_ts=4, mean_range=(-3, 3), std=0.4
    ),
    "random": functools.partial(PopSpikeEncoderRandom, pop_dim=5, spike_ts=4, mean_range=(-3, 3), std=0.4),
    "none": functools.partial(PopEncoder, pop_dim=5, spike_ts=4, mean_range=(-3, 3), std=0.4),
}


@pytest.mark.parametrize("lateral", [False, True])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_everything_an_actor_is_made_of_learns(encoder: str, lateral: bool) -> None:
    torch.manual_seed(0)
    actor = SpikingActor(3, 2, hidden=[32], encoder=ENCODERS[encoder], lateral=lateral)
    actor(torch.randn(16, 3)).square().sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in actor.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


def test_lateral_spikes_are_heard_one_step_later_and_in_their_population_alone() -> None:
    torch.manual_seed(0)
    actor = SpikingActor(3, 2, hidden=[8], lateral=True, decoder=functools.partial(MembraneDecoder, pop_dim=4))
    plain = SpikingActor(3, 2, hidden=[8], decoder=functools.partial(MembraneDecoder, pop_dim=4))
    own = {name.replace("3.sub_module", "3"): value for name, value in actor.state_dict().items() if "weight" in name}
    weight = actor.core.layers[3].element_wise_function.weight
    plain.load_state_dict(
        {name: value for name, value in actor.state_dict().items() if "element_wise_function" not in name}
    )
    obs = torch.randn(5, 3)
    assert own
    torch.nn.init.zeros_(weight)
    torch.testing.assert_close(actor(obs), plain(obs))
    weight.data[0] = 5.0
    changed = actor(obs) != plain(obs)
    assert bool(changed[:, 0].any())
    assert not bool(changed[:, 1].any())


def test_an_actor_forgets_and_gives_the_same_again() -> None:
    torch.manual_seed(0)
    actor = SpikingActor(3, 1, hidden=[16])
    obs = torch.randn(4, 3)
    first = actor(obs)
    actor(torch.randn(9, 3))
    assert torch.equal(actor(obs), first)
    for twin in (pickle.loads(pickle.dumps(actor)), copy.deepcopy(actor)):
        assert torch.equal(twin(obs), first)
    assert not any("v" in name.split(".") for name in actor.state_dict())


def test_kernels_and_eager_pytorch_agree() -> None:
    torch.manual_seed(0)
    actor = SpikingActor(5, 3, hidden=[24, 24], neuron=CUBALIFNode())
    eager = copy.deepcopy(actor)
    functional.set_backend(eager, "torch")
    obs = torch.randn(6, 5)
    results = []
    for net in (actor, eager):
        acts = net(obs)
        acts.sum().backward()
        results.append((acts, [parameter.grad for parameter in net.parameters()]))
    assert torch.equal(results[0][0], results[1][0])
    for fast, slow in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-7)


def test_one_that_is_no_actor_says_what_to_write() -> None:
    with pytest.raises(TypeError, match="must define values"):
        Actor(1, 1)(torch.zeros(1, 1))


def test_critics_are_separate_networks() -> None:
    critic = Critic(3, 2, hidden=[8], number=3)
    obs, act = torch.randn(4, 3), torch.randn(4, 2)
    values = critic(obs, act)
    assert values.shape == (3, 4)
    assert torch.equal(values[0], critic.first(obs, act))
    assert not torch.equal(values[0], values[1])
    for i, net in enumerate(critic.nets):
        torch.testing.assert_close(values[i], net(torch.cat([obs, act], 1)).squeeze(1))


def test_statistics_of_parts_are_those_of_the_whole() -> None:
    x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 0.1]) + 3
    parts = RunningNorm(3)
    for part in x.split([1, 99, 0, 400, 500]):
        parts.update(part)
    np.testing.assert_allclose(parts.mean, x.double().mean(0), rtol=1e-9)
    np.testing.assert_allclose(parts.var, x.double().var(0, correction=0), rtol=1e-9)
    seen = parts(x)
    assert seen.dtype == torch.float32
    assert float(seen.abs().max()) == 3.0
    twin = RunningNorm(3)
    twin.load_state_dict(parts.state_dict())
    assert torch.equal(twin(x), seen)
    with pytest.raises(InputError, match="observation 1 is nan at place 2"):
        parts.update(torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, float("nan")]]))
    with pytest.raises(InputError, match=r"expected observations \[N, 3\]; got \[5, 2\]"):
        parts.update(torch.zeros(5, 2))
