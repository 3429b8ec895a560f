import math
import pickle
import re

import pytest
import torch

from jellyfit import surrogates
from jellyfit.errors import ConfigError, InputError
from jellyfit.neurons import IFNode
from jellyfit.surrogates import SurrogateFunction

# every surrogate that there is, now and later; only base classes are left out
CLASSES = [
    cls
    for cls in (getattr(surrogates, name) for name in surrogates.__all__)
    if isinstance(cls, type) and issubclass(cls, SurrogateFunction) and cls is not SurrogateFunction
]
each_surrogate = pytest.mark.parametrize("cls", CLASSES)
with_alpha = pytest.mark.parametrize("cls", [cls for cls in CLASSES if getattr(cls(), "alpha", 0) > 0])
with_primitive = pytest.mark.parametrize(
    "cls", [cls for cls in CLASSES if cls.primitive is not SurrogateFunction.primitive]
)
spikes_where_positive = pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls.spike is SurrogateFunction.spike])

GRID = torch.linspace(-3.0, 3.0, 2400, dtype=torch.float64)  # 2400: hits neither 0 nor a corner


def _logistic(x):
    return 1.0 / (1.0 + math.exp(-x))


# one number in, one number out: nothing shared with the tensor code under test
CLOSED_FORMS = {
    "PiecewiseQuadratic": lambda x, a=1.0: a - a * a * abs(x) if abs(x) <= 1 / a else 0.0,
    "PiecewiseExp": lambda x, a=1.0: a / 2 * math.exp(-a * abs(x)),
    "Sigmoid": lambda x, a=4.0: a * _logistic(a * x) * (1 - _logistic(a * x)),
    "SoftSign": lambda x, a=2.0: a / (2 * (1 + abs(a * x)) ** 2),
    "SuperSpike": lambda x, a=1.0: a / (1 + abs(x)) ** 2,
    "ATan": lambda x, a=2.0: a / 2 / (1 + (math.pi / 2 * a * x) ** 2),
    "NonzeroSignLogAbs": lambda x, a=1.0: a / (1 + abs(a * x)),
    "Erf": lambda x, a=2.0: a / math.sqrt(math.pi) * math.exp(-((a * x) ** 2)),
    "QPseudoSpike": lambda x, a=2.0: (1 + 2 * abs(x) / (a - 1)) ** -a,
    "FakeNumericalGradient": lambda x, a=0.3: min(1 / abs(x), a),
    "LogTailedReLU": lambda x, a=0.0: 1 / x if x > 1 else (1.0 if x > 0 else a),
    "PiecewiseLeakyReLU": lambda x: 0.5 if abs(x) <= 1 else 0.01,
    "SquarewaveFourierSeries": lambda x: 0.5 * math.cos(2 * math.pi * x / 8),
    "S2NN": lambda x, a=4.0: a * _logistic(a * x) * (1 - _logistic(a * x)) if x < 0 else 1 / (x + 1),
    "LeakyKReLU": lambda x: 1.0 if x >= 0 else 0.0,
    "Rect": lambda x, a=1.0: a if abs(x) < 1 / (2 * a) else 0.0,
    "DeterministicPass": lambda x: 1.0,
    "PoissonPass": lambda x: 1.0,
    "MultiLevelSpikeCount": lambda x: 1.0 if 0 <= x <= 4 else 0.0,
}


def gradient_of(surrogate, x):
    x = x.clone().requires_grad_()
    surrogate(x).sum().backward()
    return x.grad


def test_there_are_surrogates_to_test():
    assert {"Sigmoid", "ATan", "PiecewiseQuadratic", "Rect", "DeterministicPass"} <= {cls.__name__ for cls in CLASSES}


@spikes_where_positive
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_forward_is_the_step_and_fires_at_zero(cls, dtype):
    x = torch.tensor([[-3.0, -1e-3, -0.0, 0.0, 1e-3, 3.0, float("inf"), -float("inf")]], dtype=dtype)
    spikes = cls()(x)
    assert spikes.tolist() == [[0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]]
    assert spikes.dtype == dtype


def test_heaviside_of_nan_is_silent():
    assert surrogates.heaviside(torch.tensor([float("nan"), 0.0])).tolist() == [0.0, 1.0]


@each_surrogate
def test_gradient_is_the_closed_form(cls):
    expected = [CLOSED_FORMS[cls.__name__](x) for x in GRID.tolist()]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(gradient_of(cls(), GRID), expected, rtol=1e-12, atol=1e-12)


@with_alpha
@pytest.mark.parametrize("alpha", [1.5, 3.0])
def test_gradient_is_the_closed_form_for_other_alphas(cls, alpha):
    expected = [CLOSED_FORMS[cls.__name__](x, alpha) for x in GRID.tolist()]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(gradient_of(cls(alpha=alpha), GRID), expected, rtol=1e-12, atol=1e-12)


@each_surrogate
def test_incoming_gradient_multiplies_the_surrogates(cls):
    x = GRID[::40].clone().requires_grad_()
    torch.manual_seed(0)
    incoming = torch.linspace(-2, 2, len(x), dtype=torch.float64)
    (cls()(x) * incoming).sum().backward()
    torch.testing.assert_close(x.grad, incoming * cls().gradient(x.detach()))


@each_surrogate
def test_gradient_keeps_shape_and_dtype(cls):
    for dtype in (torch.float32, torch.bfloat16):
        grad = gradient_of(cls(), GRID[:6].reshape(1, 2, 3).to(dtype))
        assert (grad.shape, grad.dtype) == ((1, 2, 3), dtype)


@with_primitive
def test_gradient_is_the_derivative_of_the_primitive(cls):
    step = 1e-6
    smooth = cls(spiking=False)
    slope = (smooth(GRID + step) - smooth(GRID - step)) / (2 * step)
    torch.testing.assert_close(gradient_of(cls(), GRID), slope, rtol=1e-6, atol=1e-6)


@with_primitive
def test_without_spikes_the_output_is_the_primitive_and_autograd_gives_its_gradient(cls):
    smooth = cls(spiking=False)
    assert torch.equal(smooth(GRID), cls().primitive(GRID))
    assert not torch.equal(smooth(GRID), cls()(GRID))
    torch.testing.assert_close(gradient_of(smooth, GRID), gradient_of(cls(), GRID), rtol=1e-10, atol=1e-12)


@with_primitive
def test_spikes_can_be_turned_off_and_on(cls):
    surrogate = cls()
    torch.manual_seed(0)  # one draws
    spikes = surrogate(GRID)
    surrogate.set_spiking_mode(False)
    assert torch.equal(surrogate(GRID), surrogate.primitive(GRID))
    assert "spiking=False" in repr(surrogate)
    surrogate.set_spiking_mode(True)
    torch.manual_seed(0)
    assert torch.equal(surrogate(GRID), spikes)
    assert "spiking" not in repr(surrogate)


@with_alpha
@pytest.mark.parametrize("alpha", [0, -1.0, float("nan"), float("inf"), "4", None, torch.tensor(4.0)])
def test_alpha_that_is_not_a_positive_number_is_refused(cls, alpha):
    with pytest.raises(InputError, match=rf"{cls.__name__}\(alpha=.*finite number above [01]"):
        cls(alpha=alpha)


@with_alpha
def test_repr_tells_alpha(cls):
    others = ", beta=1" if cls is surrogates.S2NN else ""
    assert repr(cls(alpha=2.5)) == f"{cls.__name__}(alpha=2.5{others})"


@each_surrogate
def test_pickled_surrogate_does_the_same(cls):
    surrogate = cls(alpha=1.25) if hasattr(cls(), "alpha") else cls()
    twin = pickle.loads(pickle.dumps(surrogate))
    assert torch.equal(gradient_of(twin, GRID), gradient_of(surrogate, GRID))
    assert repr(twin) == repr(surrogate)


@each_surrogate
def test_surrogate_has_no_state_to_save(cls):
    assert not cls().state_dict()


@each_surrogate
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_everything_is_finite_at_zero_at_edges_and_far_away(cls, dtype):
    edges = [0.0, -0.0, 0.5, 1.0, 2.0, 4.0, 1e-6, 1e4]
    x = torch.tensor([*edges, *(-edge for edge in edges)], dtype=dtype)
    assert gradient_of(cls(), x).isfinite().all()
    assert cls()(x).isfinite().all()
    if cls.primitive is not SurrogateFunction.primitive:
        assert cls(spiking=False)(x).isfinite().all()
        assert gradient_of(cls(spiking=False), x).isfinite().all()


@with_primitive
def test_the_primitives_derivative_at_zero_is_the_gradient_there(cls):
    zero = torch.zeros(1, dtype=torch.float64)
    torch.testing.assert_close(gradient_of(cls(spiking=False), zero), gradient_of(cls(), zero))


OTHER_PARAMETERS = [
    (surrogates.PiecewiseLeakyReLU(w=0.5, c=0.1), lambda x: 1.0 if abs(x) < 0.5 else 0.1),
    (
        surrogates.SquarewaveFourierSeries(n=4, T_period=5.0),
        lambda x: 0.8 * sum(math.cos(k * 2 * math.pi * x / 5) for k in (1, 3, 5)),
    ),
    (surrogates.S2NN(alpha=1.0, beta=2.0), lambda x: _logistic(x) * _logistic(-x) if x < 0 else 2 / (x + 1)),
    (surrogates.LeakyKReLU(leak=0.2, k=0.7), lambda x: 0.7 if x >= 0 else 0.2),
    (surrogates.LogTailedReLU(alpha=0.2), lambda x: 1 / x if x > 1 else (1.0 if x > 0 else 0.2)),
    (surrogates.MultiLevelSpikeCount(3, grad_window=(0.5, 2.5)), lambda x: 1.0 if 0.5 <= x <= 2.5 else 0.0),
]


@pytest.mark.parametrize(("surrogate", "closed_form"), OTHER_PARAMETERS, ids=lambda value: type(value).__name__)
def test_gradient_is_the_closed_form_for_other_parameters(surrogate, closed_form):
    expected = torch.tensor([closed_form(x) for x in GRID.tolist()], dtype=torch.float64)
    torch.testing.assert_close(gradient_of(surrogate, GRID), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: surrogates.PiecewiseLeakyReLU(w=0.0), r"PiecewiseLeakyReLU\(w=0.0\): .* above 0"),
        (lambda: surrogates.PiecewiseLeakyReLU(c=float("nan")), r"\(c=nan\): .* a finite number\."),
        (lambda: surrogates.SquarewaveFourierSeries(n=1), r"n=1\): the series has n - 1 terms"),
        (lambda: surrogates.SquarewaveFourierSeries(n=2.0), r"n=2.0\)"),
        (lambda: surrogates.SquarewaveFourierSeries(T_period=0), r"T_period=0\): .* above 0"),
        (lambda: surrogates.S2NN(beta=-1.0), r"S2NN\(beta=-1.0\)"),
        (lambda: surrogates.QPseudoSpike(alpha=1.0), r"QPseudoSpike\(alpha=1.0\): .* above 1"),
        (lambda: surrogates.LeakyKReLU(leak=float("inf")), r"leak=inf"),
        (lambda: surrogates.LeakyKReLU(k=True), r"k=True"),
        (lambda: surrogates.LogTailedReLU(alpha="0"), r"LogTailedReLU\(alpha='0'\)"),
        (lambda: surrogates.MultiLevelSpikeCount(0), r"max_spike_count=0\): expected a whole number of at least 1"),
        (lambda: surrogates.MultiLevelSpikeCount(2.5), r"max_spike_count=2.5"),
        (lambda: surrogates.MultiLevelSpikeCount(grad_window=1.0), r"grad_window=1.0\): expected two numbers"),
        (lambda: surrogates.MultiLevelSpikeCount(grad_window=(2, 1)), r"above 2"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_counts_are_rounded_to_even_and_clamped():
    x = torch.tensor([-0.5, 0.5, 1.5, 2.5, 3.49, 3.51, 9.0, float("inf")])
    assert surrogates.MultiLevelSpikeCount(4)(x).tolist() == [0.0, 0.0, 2.0, 2.0, 3.0, 4.0, 4.0, 4.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_poisson_pass_spikes_with_the_probability_of_its_input(dtype):
    torch.manual_seed(0)
    x = torch.tensor([-1.0, 0.0, float("nan"), 0.25, 0.75, 1.0, 7.0], dtype=dtype).expand(4000, 7)
    spikes = surrogates.PoissonPass()(x)
    assert spikes.dtype == dtype and set(spikes.unique().tolist()) == {0.0, 1.0}
    rates = spikes.float().mean(0)
    assert rates[[0, 1, 2, 5, 6]].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]
    deviation = math.sqrt(0.25 * 0.75 / 4000)
    assert ((rates[[3, 4]] - torch.tensor([0.25, 0.75])).abs() < 4 * deviation).all()


# ------------------------------------------------------------------ a surrogate of the user's own


class Doubled(surrogates.Rect):
    def spike(self, x):
        return 2.0 * super().spike(x)


def test_users_surrogate_with_another_forward_pass_drives_a_neuron():
    x = torch.tensor([[0.6, 1.2, 5.0]], requires_grad=True)
    spikes = IFNode(surrogate_function=Doubled(), backend="torch")(x)
    spikes.sum().backward()
    assert spikes.tolist() == [[0.0, 2.0, 2.0]]
    torch.testing.assert_close(x.grad, torch.tensor([[1.0, 1.0, 0.0]]))
    rows = torch.randn(3, 4)
    assert torch.equal(torch.func.vmap(Doubled())(rows), Doubled()(rows))


class Triangle(SurrogateFunction):
    def gradient(self, x):
        return (1.0 - x.abs()).clamp(min=0.0)


def test_users_surrogate_with_only_a_gradient_trains_a_neuron():
    x = torch.tensor([[0.6, 1.2, 5.0]], requires_grad=True)
    spikes = IFNode(surrogate_function=Triangle())(x)
    spikes.sum().backward()
    assert spikes.tolist() == [[0.0, 1.0, 1.0]]
    torch.testing.assert_close(x.grad, torch.tensor([[0.6, 0.8, 0.0]]))


def test_users_surrogate_without_a_primitive_cannot_stop_spiking():
    with pytest.raises(ConfigError, match=r"Triangle\(spiking=False\).*defines no primitive.*Sigmoid or ATan"):
        Triangle(spiking=False)
    surrogate = Triangle()
    with pytest.raises(ConfigError, match="Triangle has no primitive"):
        surrogate.set_spiking_mode(False)
    assert surrogate.spiking


def test_users_surrogate_without_a_gradient_is_told_what_to_write():
    class Nothing(SurrogateFunction):
        pass

    x = torch.zeros(1, requires_grad=True)
    with pytest.raises(TypeError, match=re.escape("Nothing must define gradient(self, x)")):
        Nothing()(x).sum().backward()


def test_surrogate_can_be_differentiated_twice():
    x = torch.tensor([0.3, -0.4], dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(surrogates.Sigmoid()(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    s = torch.sigmoid(4 * x.detach())
    torch.testing.assert_close(second, 16 * s * (1 - s) * (1 - 2 * s))


def test_vmap_gives_each_samples_gradient():
    x = GRID[::100].reshape(6, 4)
    surrogate = surrogates.ATan()
    together = torch.func.vmap(torch.func.grad(lambda row: surrogate(row).sum()))(x)
    torch.testing.assert_close(together, surrogate.gradient(x))
