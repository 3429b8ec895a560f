"""Synapses with a memory, delays, standardised weights, and the ends of a network."""

import math

import pytest
import torch
from torch import nn

from jellyfit import functional, kernels, layers
from jellyfit.errors import InputError


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def fire(*shape, seed=0, dtype=torch.float32):
    return (draw(*shape, seed=seed) > 0.5).to(dtype)


# ---------------------------------------------------------------- the filter


def test_a_current_decays_where_no_spike_arrives():
    synapse = layers.SynapseFilter(tau=2.0, step_mode="m")
    spikes = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0]).view(5, 1, 1)
    assert synapse(spikes).flatten().tolist() == [1.0, 0.5, 0.25, 1.25, 2.25]
    assert synapse(torch.zeros(2, 1, 1)).flatten().tolist() == [1.125, 0.5625]  # goes on
    functional.reset_net(synapse)
    assert synapse.out_i == 0.0


class Eager(layers.SynapseFilter):
    """The same filter without kernels."""

    def _plan(self, x_seq):
        return None


@pytest.mark.parametrize("learnable", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_kernels_give_the_numbers_of_the_steps(dtype, learnable):
    results = []
    for kind in (layers.SynapseFilter, Eager):
        synapse = kind(tau=3.0, learnable=learnable, step_mode="m")
        x_seq = fire(9, 2, 5, 3, dtype=dtype).requires_grad_()
        y_seq = torch.cat([synapse(x_seq[:4]), synapse(x_seq[4:])])  # through the memory as well
        y_seq.backward(draw(9, 2, 5, 3, seed=1, dtype=dtype))
        assert bool(synapse._plans) == (kind is layers.SynapseFilter)
        assert y_seq.dtype == dtype and synapse.out_i.dtype == (
            torch.float64 if dtype == torch.float64 else torch.float32
        )
        results.append((y_seq, synapse.out_i, x_seq.grad, [p.grad for p in synapse.parameters()]))
    tolerance = 1e-2 if dtype.itemsize == 2 else 1e-5
    torch.testing.assert_close(*results, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_the_filters_gradient_is_that_of_finite_differences(step_mode):
    synapse = layers.SynapseFilter(tau=3.0, learnable=True, step_mode=step_mode).double()

    def run(x_seq, w):
        functional.reset_net(synapse)
        with torch.no_grad():
            synapse.w.copy_(w)
        twin = torch.func.functional_call
        if step_mode == "m":
            return twin(synapse, {"w": w}, (x_seq,))
        return torch.stack([twin(synapse, {"w": w}, (x,)) for x in x_seq])

    x_seq = draw(4, 1, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(run, (x_seq, torch.tensor(-0.4, dtype=torch.float64, requires_grad=True)))


def test_kernels_follow_a_time_constant_that_changes():
    synapse = layers.SynapseFilter(tau=2.0, step_mode="m")
    spikes = torch.tensor([1.0, 0.0]).view(2, 1, 1)
    for tau, expected in ((2.0, 0.5), (4.0, 0.75), (2.0, 0.5)):
        synapse.tau = tau
        functional.reset_net(synapse)
        assert synapse(spikes).flatten().tolist() == [1.0, expected] and synapse.tau == tau


def test_filters_without_kernels_run_step_by_step(monkeypatch):
    def refuse(*arguments, **options):
        raise kernels.KernelUnavailableError("no compiler")

    monkeypatch.setattr("jellyfit.layers.synapses.FusedStep", refuse)
    synapse = layers.SynapseFilter(tau=2.0, step_mode="m")
    assert synapse(torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)).flatten().tolist() == [1.0, 0.5, 0.25]
    assert list(synapse._plans.values()) == [None]


@pytest.mark.parametrize("tau", [1.5, 2.0, 100.0])
def test_a_learnable_time_constant_starts_where_it_is_told(tau):
    synapse = layers.SynapseFilter(tau, learnable=True)
    assert synapse.w.shape == () and synapse.w.item() == pytest.approx(-math.log(tau - 1.0), abs=1e-6)
    assert synapse.tau == pytest.approx(tau, rel=1e-5)
    synapse.tau = 5.0
    assert synapse.tau == pytest.approx(5.0)
    assert list(synapse.state_dict()) == ["w"] and not layers.SynapseFilter(tau).state_dict()
    assert "tau=5, learnable=True" in repr(synapse)


@pytest.mark.parametrize("learnable", [True, False])
@pytest.mark.parametrize("tau", [1.0, 0.5, -2.0, float("inf"), float("nan")])
def test_a_time_constant_not_above_one_is_refused(tau, learnable):
    with pytest.raises(InputError, match=r"SynapseFilter\(tau=.*finite time constant above 1"):
        layers.SynapseFilter(tau, learnable)


# ---------------------------------------------------------------- delays


@pytest.mark.parametrize("steps", [0, 1, 3, 7])
@pytest.mark.parametrize("parts", [[5], [2, 3], [1, 1, 1, 1, 1]])
def test_an_input_comes_out_later(steps, parts):
    delay = layers.Delay(steps, step_mode="m")
    x_seq = draw(5, 2, 3)
    y_seq = torch.cat([delay(part) for part in x_seq.split(parts)])
    assert torch.equal(y_seq, torch.cat([torch.zeros(steps, 2, 3), x_seq])[:5])
    assert len(delay.queue) == steps


def test_gradients_come_out_of_a_delay_too():
    delay = layers.Delay(2)
    x = draw(1, 3).requires_grad_()
    for _ in range(2):
        delay(x)
    (3.0 * delay(draw(1, 3))).sum().backward()
    assert torch.equal(x.grad, torch.full((1, 3), 3.0))


def test_a_negative_delay_is_refused():
    with pytest.raises(InputError, match=r"delay_steps=-1\): expected a number of steps, 0 or more"):
        layers.Delay(-1)


# ---------------------------------------------------------------- standardised weights


@pytest.mark.parametrize("groups", [1, 2])
def test_standardised_weights_have_mean_zero_and_unit_variance_over_their_inputs(groups):
    conv = layers.WSConv2d(4, 6, 3, groups=groups, eps=1e-8)
    weight = conv.get_weight()
    fan_in = 4 // groups * 9
    torch.testing.assert_close(weight.mean((1, 2, 3)), torch.zeros(6), rtol=0.0, atol=1e-6)
    torch.testing.assert_close(weight.var((1, 2, 3)) * fan_in, torch.ones(6), rtol=1e-4, atol=0.0)
    conv.weight.data = 3.0 * conv.weight.data + 7.0
    torch.testing.assert_close(conv.get_weight(), weight, rtol=1e-3, atol=1e-4)


def test_layers_work_with_their_standardised_weights():
    conv, linear = layers.WSConv2d(4, 6, 3, 2, 1, step_mode="m"), layers.WSLinear(5, 3, step_mode="m")
    for layer in (conv, linear):
        nn.init.uniform_(layer.gain, 0.5, 2.0)
    x = draw(2, 3, 4, 7, 7)
    expected = nn.functional.conv2d(x.flatten(0, 1), conv.get_weight(), conv.bias, 2, 1).unflatten(0, (2, 3))
    torch.testing.assert_close(conv(x), expected)
    x = draw(2, 3, 5)
    torch.testing.assert_close(linear(x), nn.functional.linear(x, linear.get_weight(), linear.bias))
    linear(x).sum().backward()
    assert linear.weight.grad is not None and linear.gain.grad is not None


@pytest.mark.parametrize("kind", ["WSConv2d", "WSLinear"])
def test_the_gain_multiplies_every_output_or_is_not_there(kind):
    arguments = (4, 6, 3) if kind == "WSConv2d" else (4, 6)
    layer = getattr(layers, kind)(*arguments)
    before = layer.get_weight()
    layer.gain.data.fill_(2.0)
    torch.testing.assert_close(layer.get_weight(), 2.0 * before)
    plain = getattr(layers, kind)(*arguments, gain=False)
    assert plain.gain is None and list(plain.state_dict()) == ["weight", "bias"]
    plain.load_state_dict({"weight": layer.weight, "bias": layer.bias})
    torch.testing.assert_close(plain.get_weight(), before)
    reference = nn.Conv2d(4, 6, 3) if kind == "WSConv2d" else nn.Linear(4, 6)
    plain.load_state_dict(reference.state_dict())
    assert isinstance(layer, type(reference))


def test_padding_modes_of_standardised_convolutions_are_torchs():
    conv = layers.WSConv2d(2, 3, 3, padding=1, padding_mode="circular")
    plain = nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")
    plain.weight.data, plain.bias.data = conv.get_weight().detach(), conv.bias.detach()
    torch.testing.assert_close(conv(draw(2, 2, 5, 5)), plain(draw(2, 2, 5, 5)))


# ---------------------------------------------------------------- the ends of a network


def test_neighbouring_neurons_vote():
    x = draw(3, 4, 5)
    voting = layers.VotingLayer(7, step_mode="m")
    torch.testing.assert_close(voting(x.repeat_interleave(7, -1)), x)
    voting.step_mode = "s"
    torch.testing.assert_close(voting(x[0].repeat_interleave(7, -1)), x[0])
    assert layers.VotingLayer().voting_size == 10


def test_mistakes_in_voting_are_told():
    with pytest.raises(InputError, match=r"no multiple of voting_size = 10.*voting_size outputs for every class"):
        layers.VotingLayer()(draw(2, 24))
    with pytest.raises(InputError, match=r"expected \[N, C·voting_size\].*set_step_mode\(net, 'm'\)"):
        layers.VotingLayer()(draw(3, 2, 20))
    with pytest.raises(InputError, match=r"voting_size=0\)"):
        layers.VotingLayer(0)


def test_shapes_are_printed(capsys):
    x = draw(2, 3)
    assert nn.Sequential(layers.PrintShapeModule("here"), layers.PrintShapeModule())(x) is x
    assert capsys.readouterr().out == "here [2, 3]\nPrintShapeModule [2, 3]\n"
