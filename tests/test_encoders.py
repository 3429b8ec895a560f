import copy
import math
import pickle
import re

import pytest
import torch
from torch import nn

from jellyfit import encoders, functional
from jellyfit.encoders import (
    Encoder,
    GaussianTuningEncoder,
    LatencyEncoder,
    PeriodicEncoder,
    PoissonEncoder,
    PopEncoder,
    PopSpikeEncoderDeterministic,
    PopSpikeEncoderRandom,
    PopulationEncoder,
    StatefulEncoder,
    StatelessEncoder,
    WeightedPhaseEncoder,
)
from jellyfit.errors import InputError, StateError

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


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize(
    "make",
    [
        lambda generator: PoissonEncoder("m", generator),
        lambda generator: PopulationEncoder(3, spiking="random", step_mode="m", generator=generator),
        lambda generator: PopSpikeEncoderRandom(3, 10, 4, (-3, 3), 0.4, generator=generator),
    ],
    ids=["Poisson", "Population", "PopSpikeEncoderRandom"],
)
def test_a_copy_goes_on_with_the_same_random_numbers(make, again):
    encoder = make(seeded(3))
    x = torch.rand(4, 3) if isinstance(encoder, PopEncoder) else torch.rand(4, 2, 3)
    encoder(x)
    twin = again(encoder)
    assert torch.equal(twin(x), encoder(x)) and torch.equal(twin(x), encoder(x))
    assert isinstance(encoder.generator, torch.Generator) and twin.generator is not encoder.generator


def test_values_are_repeated_for_many_steps():
    spikes = functional.poisson_encode(torch.tensor([[0.0, 0.25, 1.0]]), T=4000, generator=seeded())
    assert spikes.shape == (4000, 1, 3)
    rates = spikes.mean((0, 1)).tolist()
    assert rates[0] == 0.0 and rates[2] == 1.0 and rates[1] == pytest.approx(0.25, abs=0.03)


# ------------------------------------------------------------------ encoders that play a train

TRAIN = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 1.0]]])
STATEFUL = [
    (lambda: LatencyEncoder(5), 5, ()),
    (lambda: LatencyEncoder(5, "log"), 5, ()),
    (lambda: WeightedPhaseEncoder(4), 4, ()),
    (lambda: GaussianTuningEncoder(4, 6), 6, (4,)),
    (lambda: PeriodicEncoder(TRAIN), 3, ()),
]
stateful = pytest.mark.parametrize(("make", "T", "more"), STATEFUL, ids=lambda value: getattr(value, "__name__", None))


@stateful
@pytest.mark.parametrize("batch", [1, 3, 0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_sequence_and_single_steps_play_the_same_train_round_and_round(make, T, more, batch, dtype):
    x = (0.9 * torch.rand(batch, 2, generator=seeded())).to(dtype)
    single, sequence = make(), make()
    sequence.step_mode = "m"
    steps = torch.stack([single(x) for _ in range(2 * T + 1)])
    together = torch.cat([sequence(x.expand(length, *x.shape)) for length in (1, T, T)])
    assert steps.shape == (2 * T + 1, batch, 2, *more) and torch.equal(steps, together)
    assert torch.equal(steps[T:], steps[: T + 1])
    assert steps.dtype == (torch.float32 if isinstance(single, PeriodicEncoder) else dtype)
    assert set(steps.unique().tolist()) <= {0.0, 1.0}


@stateful
def test_a_new_input_counts_only_after_a_reset(make, T, more):
    if isinstance(make(), PeriodicEncoder):
        return  # it plays the same whatever the input
    dark, bright = torch.zeros(1, 2), torch.full((1, 2), 0.9)
    encoder = make()
    first = torch.stack([encoder(dark)] + [encoder(bright) for _ in range(T - 1)])
    functional.reset_net(nn.Sequential(encoder))
    second = torch.stack([encoder(bright) for _ in range(T)])
    fresh = make()
    assert torch.equal(first, torch.stack([fresh(dark) for _ in range(T)]))
    assert not torch.equal(first, second)


@stateful
def test_another_shape_or_dtype_needs_a_reset(make, T, more):
    encoder = nn.Sequential(make())
    encoder(torch.zeros(1, 2))
    for other in (torch.zeros(4, 2), torch.zeros(1, 2, dtype=torch.float64)):
        with pytest.raises(StateError, match=r"plays the train of an input \[1, 2\] torch.float32.*reset_net"):
            encoder(other)
    functional.reset_net(encoder)
    encoder(torch.zeros(4, 2))


@stateful
def test_a_train_is_no_part_of_state_dict_and_survives_copies(make, T, more):
    encoder, x = make(), torch.full((1, 2), 0.5)
    encoder(x)
    assert not encoder.state_dict()
    for twin in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert twin.t == 1 and torch.equal(twin(x), make_and_skip(make, x))
    assert encoder.t == 1


def make_and_skip(make, x):
    encoder = make()
    encoder(x)
    return encoder(x)


@stateful
def test_a_train_may_be_carried_by_the_caller(make, T, more):
    x_seq = torch.full((T, 1, 2), 0.5)
    encoder = make()
    first, state = encoder.run(x_seq[:2])
    rest, _ = encoder.run(x_seq[2:], state)
    assert encoder.spike is None
    encoder.step_mode = "m"
    assert torch.equal(torch.cat([first, rest]), encoder(x_seq))


@stateful
def test_no_sequence_is_refused(make, T, more):
    encoder = make()
    encoder.step_mode = "m"
    for shape in ((0, 1, 2), (3,)):
        with pytest.raises(InputError, match=re.escape(f"got shape {list(shape)}")):
            encoder(torch.zeros(shape))


def test_larger_values_spike_earlier_and_everything_spikes_once():
    x = torch.linspace(0.0, 1.0, 101).unsqueeze(0)
    for enc_function in ("linear", "log"):
        spikes = functional.latency_encode(x, 20, enc_function)
        assert torch.equal(spikes.sum(0), torch.ones(1, 101))
        times = spikes.argmax(0)[0]
        assert (times[1:] <= times[:-1]).all() and times[0] == 19 and times[-1] == 0


@pytest.mark.parametrize("T", [1, 2, 8, 30])
def test_latency_is_the_formula(T):
    values = torch.rand(200, generator=seeded(), dtype=torch.float64)
    alpha = math.exp(T - 1) - 1
    for enc_function, formula in (
        ("linear", lambda x: (T - 1) * (1 - x)),
        ("log", lambda x: T - 1 - math.log(alpha * x + 1)),
    ):
        times = functional.latency_encode(values, T, enc_function).argmax(0)
        assert times.tolist() == [round(formula(x)) for x in values.tolist()]


def test_logarithmic_latency_works_for_many_steps():
    times = functional.latency_encode(torch.tensor([0.0, 1e-30, 0.5, 1.0]), 1000, "log").argmax(0)
    assert times.tolist() == [999, round(30 * math.log(10)), 1, 0]


@pytest.mark.parametrize("K", [1, 3, 8, 20])
def test_phases_are_the_binary_digits(K):
    whole = torch.arange(min(2**K, 500))
    spikes = functional.weighted_phase_encode(whole.double() / 2**K, K)
    weights = 2.0 ** -torch.arange(1, K + 1, dtype=torch.float64)
    assert torch.equal((spikes * weights[:, None]).sum(0) * 2**K, whole.double())
    x = torch.rand(50, generator=seeded()).double() * (1 - 2.0**-K)
    error = x - (functional.weighted_phase_encode(x, K) * weights[:, None]).sum(0)
    assert (error >= 0).all() and (error < 2.0**-K).all()


def test_gaussian_neurons_spike_at_once_at_their_centre_and_never_far_from_it():
    n, T = 7, 10
    low, high = -2.0, 3.0
    spacing = (high - low) / (n - 2)
    for i in range(2, n):
        x = torch.tensor([[low + (2 * i - 3) / 2 * spacing]], dtype=torch.float64)
        spikes = functional.gaussian_tuning_encode(x, n, T, low, high)
        assert spikes.shape == (T, 1, 1, n)
        assert spikes[0, 0, 0].argmax() == i - 1 and spikes[0].sum() == 1
        assert spikes[-1].sum() == 0
        assert spikes.sum(0)[0, 0, abs(torch.arange(n) - (i - 1)) > 2].sum() == 0
    x = torch.linspace(low, high, 300).unsqueeze(0)
    assert (functional.gaussian_tuning_encode(x, n, T, low, high).sum((0, 3)) >= 1).all()


def test_gaussian_neurons_may_have_a_range_for_every_feature():
    x = torch.rand(5, 2, generator=seeded())
    scaled = x * torch.tensor([2.0, 10.0]) + torch.tensor([-1.0, 3.0])
    low, high = torch.tensor([-1.0, 3.0]), torch.tensor([1.0, 13.0])
    expected = functional.gaussian_tuning_encode(x.double(), 5, 8)
    assert torch.equal(functional.gaussian_tuning_encode(scaled.double(), 5, 8, low, high), expected)


def test_a_train_for_one_sample_is_played_to_every_sample():
    encoder = PeriodicEncoder(TRAIN, "m")
    assert torch.equal(encoder(torch.zeros(4, 5, 9)), TRAIN[[0, 1, 2, 0]].expand(4, 5, 2))
    assert encoder.to(torch.float64).train_spike.dtype == torch.float64


NAN = torch.tensor([[0.5, float("nan")]])
REFUSED = [
    (
        lambda: LatencyEncoder(5)(torch.tensor([[1.5]])),
        "LatencyEncoder(.*): latency_encode: got values from 1.5 to 1.5",
    ),
    (lambda: LatencyEncoder(5)(torch.tensor([[-0.5]])), r"expected values in \[0, 1\]"),
    (lambda: LatencyEncoder(5)(NAN), "got NaN"),
    (lambda: LatencyEncoder(5)(torch.zeros(1, 2, dtype=torch.uint8)), "torch.uint8; expected floating-point"),
    (lambda: LatencyEncoder(0), "LatencyEncoder: T=0: expected a whole number of at least 1"),
    (lambda: LatencyEncoder(2.5), "T=2.5"),
    (lambda: LatencyEncoder(True), "T=True"),
    (lambda: LatencyEncoder(5, "cubic"), "enc_function='cubic'"),
    (lambda: functional.latency_encode(torch.zeros(1), 5, "cubic"), "enc_function='cubic'"),
    (lambda: WeightedPhaseEncoder(3)(torch.ones(1, 1)), r"values in \[0, 0.875\]. Scale the input by 1 - 2\^-K"),
    (lambda: WeightedPhaseEncoder(3)(NAN), "got NaN"),
    (lambda: WeightedPhaseEncoder(0), "K=0"),
    (lambda: GaussianTuningEncoder(2, 5), "n=2: expected a whole number of at least 3"),
    (lambda: GaussianTuningEncoder(5, 1), "T=1: expected a whole number of at least 2"),
    (lambda: GaussianTuningEncoder(5, 5, 1.0, 1.0), "expected x_max above x_min"),
    (lambda: GaussianTuningEncoder(5, 5, torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0])), "x_max above x_min"),
    (lambda: GaussianTuningEncoder(5, 5, beta=0.0), "beta=0.0"),
    (lambda: GaussianTuningEncoder(5, 5)(torch.tensor([[1.5]])), "values outside the range"),
    (lambda: GaussianTuningEncoder(5, 5)(NAN), "got NaN"),
    (lambda: PeriodicEncoder(torch.zeros(3)), "spike train"),
    (lambda: PeriodicEncoder([[1.0]]), "got list"),
    (lambda: PeriodicEncoder(torch.zeros(3, 2, 1))(torch.zeros(3, 1)), "train is of 2 samples, the input of 3"),
    (lambda: functional.poisson_encode(torch.zeros(1), T=0), "T=0"),
    (lambda: functional.poisson_encode(NAN), "poisson_encode: got NaN"),
    (lambda: PoissonEncoder()(NAN), r"PoissonEncoder\(\): got NaN"),
    (lambda: PopulationEncoder(0), "obs_dim=0"),
    (lambda: PopulationEncoder(2, 0), "pop_dim=0"),
    (lambda: PopulationEncoder(2, mean_range=(3, -3)), "mean_range"),
    (lambda: PopulationEncoder(2, std=0.0), "std=0.0"),
    (lambda: PopulationEncoder(2, spiking="poisson"), "spiking='poisson'"),
    (lambda: PopulationEncoder(2)(torch.zeros(4, 3)), r"observations \[N, 2\]; got \[4, 3\]"),
    (lambda: PopEncoder(2, 3, 0, (-1, 1), 0.5), "spike_ts=0"),
    (lambda: PopEncoder(2, 3, 4, (-1, 1), 0.5)(torch.zeros(4, 2, dtype=torch.int64)), "torch.int64"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_base_class_says_what_to_write():
    with pytest.raises(TypeError, match=re.escape("StatelessEncoder must define forward(self, x)")):
        StatelessEncoder()(torch.zeros(1))
    with pytest.raises(TypeError, match=re.escape("StatefulEncoder must define single_step_encode(self, x)")):
        StatefulEncoder(3)(torch.zeros(1))


# ------------------------------------------------------------------ populations


def test_activation_is_the_bell_curve_of_every_value():
    encoder, x = PopulationEncoder(2, 3, (-1.0, 1.0), 0.5, "none"), torch.tensor([[0.3, -0.7]])
    expected = [math.exp(-0.5 * ((value - mean) / 0.5) ** 2) for value in (0.3, -0.7) for mean in (-1.0, 0.0, 1.0)]
    torch.testing.assert_close(encoder(x)[0].tolist(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spiking", ["deterministic", "random", "none"])
def test_population_gives_the_same_step_by_step(spiking):
    x_seq = torch.randn(6, 4, 2, generator=seeded())
    single = PopulationEncoder(2, 5, spiking=spiking, generator=seeded(1))
    sequence = PopulationEncoder(2, 5, spiking=spiking, step_mode="m", generator=seeded(1))
    spikes = sequence(x_seq)
    assert spikes.shape == (6, 4, 10)
    assert torch.equal(torch.stack([single(x) for x in x_seq]), spikes)
    functional.set_step_mode(single, "m")
    functional.reset_net(single)
    if spiking != "random":
        assert torch.equal(single(x_seq), spikes)


def test_regular_spikes_are_as_many_as_the_activation_says():
    encoder = PopulationEncoder(1, 4, std=1.0, step_mode="m").double()
    activation = encoder.activation(torch.tensor([[0.4]], dtype=torch.float64)).detach()
    spikes = encoder(torch.full((50, 1, 1), 0.4, dtype=torch.float64)).detach()
    assert torch.equal(spikes.sum(0), (50 * activation / 0.999).floor())


def test_population_state_is_forgotten_at_a_reset():
    encoder, x = PopulationEncoder(1, 3, std=1.0), torch.tensor([[0.6]])
    first = [encoder(x).tolist() for _ in range(3)]
    assert [encoder(x).tolist() for _ in range(3)] != first
    functional.reset_net(encoder)
    assert [encoder(x).tolist() for _ in range(3)] == first


@pytest.mark.parametrize("make", [PopSpikeEncoderDeterministic, PopSpikeEncoderRandom, PopEncoder])
def test_gradients_reach_centres_widths_and_observations(make):
    encoder = make(2, 5, 4, (-2.0, 2.0), 0.7)
    x = torch.randn(3, 2, generator=seeded()).requires_grad_()
    encoder(x).sum().backward()
    for tensor in (encoder.mean, encoder.std, x):
        assert tensor.grad.isfinite().all() and tensor.grad.any()


@pytest.mark.parametrize("make", [PopSpikeEncoderRandom, PopEncoder])
def test_every_step_has_the_gradient_of_the_activation(make):
    encoder, x = make(2, 5, 4, (-2.0, 2.0), 0.7), torch.randn(3, 2, generator=seeded())
    encoder(x).sum().backward()
    found = encoder.mean.grad.clone()
    encoder.zero_grad()
    (4 * encoder.activation(x).sum()).backward()
    torch.testing.assert_close(found, encoder.mean.grad)


def test_regular_spikes_have_the_gradient_of_all_charge_so_far():
    encoder = PopSpikeEncoderDeterministic(1, 1, 5, (0.0, 1.0), 1.0).double()
    x = torch.tensor([[0.5]], dtype=torch.float64)
    encoder(x).sum().backward()
    found = encoder.mean.grad.clone()
    encoder.zero_grad()
    (15 * encoder.activation(x).sum()).backward()  # 1 + 2 + 3 + 4 + 5
    torch.testing.assert_close(found, encoder.mean.grad)


def test_one_observation_after_another_needs_no_reset():
    encoder, x = PopSpikeEncoderDeterministic(2, 5, 7, (-2.0, 2.0), 0.7), torch.randn(3, 2, generator=seeded())
    first = encoder(x)
    encoder(x[:1])
    functional.set_step_mode(encoder, "s")
    assert torch.equal(encoder(x), first)
    assert first.shape == (7, 3, 10)


@pytest.mark.parametrize("name", [name for name in encoders.__all__ if name.startswith("Pop")])
def test_population_learns_what_its_state_dict_holds(name):
    options = {} if name == "PopulationEncoder" else {"spike_ts": 4}
    encoder = getattr(encoders, name)(obs_dim=2, pop_dim=5, mean_range=(-2.0, 2.0), std=0.7, **options)
    assert {key: tuple(value.shape) for key, value in encoder.state_dict().items()} == {
        "mean": (1, 2, 5),
        "std": (1, 2, 5),
    }
