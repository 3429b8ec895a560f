"""Dropout whose mask stays, and dropout of connections."""

import pytest
import torch
from torch import nn

from jellyfit import functional, layers
from jellyfit.errors import InputError, StateError


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("kind", "shape"), [("Dropout", (8, 50)), ("Dropout2d", (8, 50, 3, 4))])
@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_what_is_dropped_stays_dropped_until_a_reset(kind, shape, step_mode):
    torch.manual_seed(0)
    drop = getattr(layers, kind)(0.25, step_mode=step_mode)
    ones = torch.ones(6, *shape)

    def run():
        return drop(ones) if step_mode == "m" else torch.stack([drop(x) for x in ones])

    y_seq = run()
    assert y_seq.unique().tolist() == [0.0, pytest.approx(1.0 / 0.75)]
    assert bool((y_seq == y_seq[0]).all()) and torch.equal(run(), y_seq)
    assert abs((y_seq == 0.0).float().mean() - 0.25) < 0.06
    functional.reset_net(drop)
    assert drop.mask is None and not torch.equal(run(), y_seq)


def test_dropout_2d_drops_whole_channels():
    y_seq = layers.Dropout2d(0.5, step_mode="m")(torch.ones(3, 4, 20, 5, 6))
    assert bool((y_seq == y_seq[..., :1, :1]).all()) and 0.0 < (y_seq == 0.0).float().mean() < 1.0


@pytest.mark.parametrize("kind", ["Dropout", "Dropout2d"])
def test_evaluation_is_the_identity_and_keeps_the_mask(kind):
    drop = getattr(layers, kind)(0.5).eval()
    x = draw(2, 3, 4, 4)
    assert drop(x) is x and drop.mask is None
    mask = drop.train()(torch.ones(2, 3, 4, 4))
    assert drop.eval()(x) is x
    assert torch.equal(drop.train()(torch.ones(2, 3, 4, 4)), mask)


def test_masks_come_from_the_global_generator_and_are_torchs():
    torch.manual_seed(5)
    found = layers.Dropout(0.3)(torch.ones(4, 5))
    torch.manual_seed(5)
    assert torch.equal(found, nn.functional.dropout(torch.ones(4, 5), 0.3))
    torch.manual_seed(5)
    assert torch.equal(layers.Dropout(0.3, step_mode="m")(torch.ones(3, 4, 5))[2], found)


def test_the_gradient_passes_where_the_mask_does():
    drop = layers.Dropout(0.5, step_mode="m")
    x_seq = draw(4, 3, 5).requires_grad_()
    drop(x_seq).sum().backward()
    assert torch.equal(x_seq.grad, drop.mask.expand(4, 3, 5)) and not drop.mask.requires_grad


def test_masks_work_under_autocast():
    net = nn.Sequential(layers.Linear(5, 5, step_mode="m"), layers.Dropout(0.5, step_mode="m"))
    with torch.autocast("cpu", torch.bfloat16):
        y_seq = net(draw(3, 2, 5))
    assert y_seq.dtype == torch.bfloat16
    assert net(draw(3, 2, 5)).dtype == torch.float32  # the same mask serves


def test_a_mask_of_another_shape_is_an_error_that_teaches():
    drop = layers.Dropout(0.5)
    drop(draw(2, 5))
    with pytest.raises(StateError, match=r"its state 'mask' is \[2, 5\] on cpu.*asks for \[2, 6\] on cpu.*reset_net"):
        drop(draw(2, 6))
    drop = layers.Dropout2d(0.5)
    drop(draw(2, 5, 4, 4))
    assert drop(draw(2, 5, 3, 3)).shape == (2, 5, 3, 3)  # a mask of channels fits images of any size
    with pytest.raises(InputError, match=r"expected \[N, C, H, W\]"):
        drop(draw(2, 5))


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
@pytest.mark.parametrize("kind", ["Dropout", "Dropout2d"])
def test_what_is_no_probability_is_refused(kind, p):
    with pytest.raises(InputError, match=rf"{kind}\(p=.*0 <= p < 1"):
        getattr(layers, kind)(p)
    with pytest.raises(InputError, match="0 <= p < 1"):
        layers.DropConnectLinear(3, 4, p=p)


def test_nothing_dropped_is_nothing_changed():
    x_seq = draw(3, 2, 5)
    assert torch.equal(layers.Dropout(0.0, step_mode="m")(x_seq), x_seq)


# ---------------------------------------------------------------- connections


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_no_connection_dropped_is_a_linear_layer_with_its_activation(training, bias):
    layer = layers.DropConnectLinear(4, 3, bias=bias, p=0.0, step_mode="m").train(training)
    linear = nn.Linear(4, 3, bias)
    layer.load_state_dict(linear.state_dict())
    x_seq = draw(5, 2, 4)
    torch.testing.assert_close(layer(x_seq), linear(x_seq).relu())
    layer(x_seq).sum().backward()
    assert bool(torch.isfinite(layer.weight.grad).all())


def test_every_sample_has_connections_of_its_own():
    torch.manual_seed(0)
    layer = layers.DropConnectLinear(1, 2000, bias=False, p=0.3, activation=None)
    layer.weight.data.fill_(1.0)
    y = layer(torch.ones(2, 1))
    assert set(y.unique().tolist()) == {0.0, 1.0}  # and nothing is scaled
    assert abs(y.mean().item() - 0.7) < 0.03
    assert not torch.equal(y[0], y[1])


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("invariant", [True, False])
def test_connections_stay_dropped_only_when_invariant(invariant, step_mode):
    torch.manual_seed(0)
    layer = layers.DropConnectLinear(20, 30, invariant=invariant, activation=None, step_mode=step_mode)
    x_seq = torch.ones(4, 2, 20)
    y_seq = layer(x_seq) if step_mode == "m" else torch.stack([layer(x) for x in x_seq])
    assert bool((y_seq == y_seq[0]).all()) == invariant
    functional.reset_net(layer)
    assert layer.kept_w is None and layer.kept_b is None
    assert not torch.equal(layer(x_seq if step_mode == "m" else x_seq[0]).view(-1, 2, 30)[0], y_seq[0])


def test_evaluation_is_the_average_of_training():
    torch.manual_seed(0)
    layer = layers.DropConnectLinear(40, 3, p=0.4, samples_num=20_000)
    x = draw(2, 40)
    with torch.no_grad():
        average = layer(x.repeat(10_000, 1)).view(10_000, 2, 3).mean(0)
        torch.testing.assert_close(layer.eval()(x), average, rtol=0.0, atol=0.03)
        layer.activation = None
        expected = 0.6 * nn.functional.linear(x, layer.weight, layer.bias)
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("activation", [nn.Tanh(), None, "relu"])
def test_activations_of_dropped_connections(activation):
    layer = layers.DropConnectLinear(4, 3, p=0.0, activation=activation)
    expected = nn.functional.linear(draw(2, 4), layer.weight, layer.bias)
    expected = {"relu": expected.relu(), None: expected}.get(activation, expected.tanh())
    torch.testing.assert_close(layer(draw(2, 4)), expected)
    assert (layer.activation is activation) == (activation != "relu")


def test_mistakes_with_dropped_connections_are_told():
    with pytest.raises(InputError, match=r"samples_num=0\): expected at least 1"):
        layers.DropConnectLinear(4, 3, samples_num=0)
    with pytest.raises(InputError, match=r"in_features = 4 on axis -1, which has 5"):
        layers.DropConnectLinear(4, 3)(draw(2, 5))
    with pytest.raises(InputError, match=r"expected \[N, in_features\]"):
        layers.DropConnectLinear(4, 3)(draw(2, 6, 4))
