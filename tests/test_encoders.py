import math
import pickle
import re

import pytest
import torch
from torch import nn

from jellyfit import functional
from jellyfit.encoders import Encoder, PoissonEncoder
from jellyfit.errors import InputError

EDGES = torch.tensor([-1.0, -0.1, 1.0, 1.5])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_spikes_come_with_the_probability_of_the_value(rate):
    steps = 40_000
    spikes = PoissonEncoder("m", seeded())(torch.full((steps, 1, 1), rate))
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    deviation = math.sqrt(rate * (1 - rate) / steps)
    assert abs(spikes.mean().item() - rate) < 4 * deviation


def test_draws_are_independent_over_time_samples_and_features():
    spikes = PoissonEncoder("m", seeded())(torch.full((2000, 2, 3), 0.5)).flatten(1)
    correlation = torch.corrcoef(torch.cat([spikes[:-1], spikes[1:]], dim=1).t())
    off_diagonal = correlation[~torch.eye(12, dtype=torch.bool)]
    assert off_diagonal.abs().max() < 5 / math.sqrt(1999)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_nothing_never_spikes_and_one_always_does(dtype):
    x = torch.cat([torch.zeros(1), EDGES]).to(dtype)
    spikes = PoissonEncoder("m", seeded())(x.expand(5000, 1, 5))
    assert spikes.dtype == dtype
    assert spikes.float().mean((0, 1)).tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_values_spike_as_seldom_in_half_precision(dtype):
    rate, draws = 2.0**-10, 200_000
    spikes = PoissonEncoder("m", seeded())(torch.full((draws, 1), rate, dtype=dtype)).float()
    assert abs(spikes.mean().item() - rate) < 4 * math.sqrt(rate / draws)


def test_a_draw_equal_to_the_value_spikes():
    x = torch.rand(20, 3, 4, generator=seeded())
    assert PoissonEncoder("m", seeded())(x).all()
    assert not PoissonEncoder("m", seeded())(x.nextafter(torch.tensor(-1.0))).any()


def test_same_seed_gives_the_same_spikes_and_another_gives_others():
    x = torch.full((20, 3, 4), 0.5)
    first, second = (PoissonEncoder("m", seeded(3))(x) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, PoissonEncoder("m", seeded(4))(x))
    encoder = PoissonEncoder("m", seeded(3))
    encoder(x)
    assert not torch.equal(encoder(x), first)  # the stream goes on


def test_without_a_generator_torchs_own_is_used():
    x = torch.full((20, 3, 4), 0.5)
    torch.manual_seed(5)
    first = PoissonEncoder("m")(x)
    torch.manual_seed(5)
    assert torch.equal(PoissonEncoder("m")(x), first)
    before = torch.get_rng_state()
    PoissonEncoder("m", seeded())(x)
    assert torch.equal(torch.get_rng_state(), before)  # a generator of one's own leaves it alone


def test_single_steps_draw_what_a_sequence_draws():
    x_seq = torch.rand(16, 2, 8, generator=seeded(9))
    sequence = PoissonEncoder("m", seeded())(x_seq)
    single = PoissonEncoder("s", seeded())
    assert torch.equal(torch.stack([single(x) for x in x_seq]), sequence)
    assert not torch.equal(sequence[0], sequence[1])


def test_step_mode_is_set_with_the_networks():
    net = nn.Sequential(PoissonEncoder())
    functional.set_step_mode(net, "m")
    assert net[0].step_mode == "m"
    with pytest.raises(InputError, match="step_mode='x' given to PoissonEncoder"):
        PoissonEncoder("x")


def test_no_gradient_flows_to_the_values():
    assert not PoissonEncoder()(torch.rand(2, 3, requires_grad=True)).requires_grad


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_values_that_are_not_floating_point_are_refused(dtype):
    with pytest.raises(
        InputError, match=re.escape(f"got {dtype}; expected floating-point values in [0, 1]. Use x.float() / 255")
    ):
        PoissonEncoder()(torch.zeros(2, 3, dtype=dtype))


def test_encoder_pickles():
    encoder = pickle.loads(pickle.dumps(PoissonEncoder("m")))
    assert encoder.step_mode == "m" and isinstance(encoder, Encoder)
    assert encoder(torch.ones(2, 1, 1)).all()
