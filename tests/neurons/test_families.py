"""What each neuron of its own kind must do, from closed forms and special cases."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from jellyfit import neurons, surrogates
from jellyfit.errors import ConfigError, InputError, StateError

T, N, C = 6, 2, 4


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) + 0.6).to(dtype)


# ------------------------------------------------------------------------------------------------ LinearNode


def test_linear_node_becomes_a_lif_neuron() -> None:
    x = draw(T, N, C, dtype=torch.float64)
    lif = neurons.LIFNode(tau=4.0, step_mode="m", v_reset=None)
    linear = neurons.LinearNode(0.75, 0.25, step_mode="m", v_reset=None).double()
    torch.testing.assert_close(linear(x), lif(x))
    torch.testing.assert_close(linear.v, lif.v)


@pytest.mark.parametrize("learn", ["alpha", "beta", "v_threshold"])
def test_linear_node_learns_what_it_is_told_to(learn: str) -> None:
    flags = {f"learn_{name}": name == learn for name in ("alpha", "beta", "v_threshold")}
    node = neurons.LinearNode(0.6, torch.full((C,), 0.9), 0.8, **flags, step_mode="m")
    assert [name for name, _ in node.named_parameters()] == ["decay" if learn == "alpha" else learn]
    node(draw(T, N, C)).sum().backward()
    parameter = next(node.parameters())
    assert parameter.grad is not None
    assert parameter.grad.abs().sum() > 0
    assert node.alpha.item() == pytest.approx(0.6)


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.1, torch.tensor([0.5, 1.5])])
def test_linear_node_refuses_a_decay_outside_0_and_1(bad: object) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        neurons.LinearNode(bad)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ variants


def test_klif_with_k_1_is_a_lif_neuron_that_is_never_below_0() -> None:
    x = draw(T, N, C).abs()
    assert torch.equal(neurons.KLIFNode(step_mode="m")(x), neurons.LIFNode(step_mode="m")(x))
    node = neurons.KLIFNode()
    node(torch.tensor([[-3.0]]))
    assert node.v.item() == 0.0


def test_klif_scales_its_reset() -> None:
    scaled, plain = (neurons.KLIFNode(scale, v_reset=None, init_k=2.0) for scale in (True, False))
    x = torch.tensor([[1.4]])  # h = 2 · 1.4 / 2 = 1.4
    assert scaled(x).item() == plain(x).item() == 1.0
    assert plain.v.item() == pytest.approx(1.4 - 1.0)
    assert scaled.v.item() == pytest.approx(1.4 / 2 - 1.0 / 2)


def test_klifs_k_is_learnt_and_must_be_above_0() -> None:
    node = neurons.KLIFNode(step_mode="m")
    node(draw(T, N, C)).sum().backward()
    assert node.k.grad.abs() > 0
    with pytest.raises(InputError, match="above 0"):
        neurons.KLIFNode(init_k=0.0)


@pytest.mark.parametrize("related", [True, False])
def test_liaf_spikes_like_a_lif_neuron_and_puts_out_its_activation(related: bool) -> None:
    liaf = neurons.LIAFNode(torch.tanh, related, step_mode="m", store_v_seq=True)
    lif = neurons.LIFNode(step_mode="m", store_v_seq=True)
    x = draw(T, N, C)
    output, spikes = liaf(x), lif(x)
    assert torch.equal(liaf.v_seq, lif.v_seq)
    silent = spikes == 0  # there the potential after the reset is h
    expected = torch.tanh(lif.v_seq - 1.0 if related else lif.v_seq)
    torch.testing.assert_close(output[silent], expected[silent])


def test_liaf_takes_a_module_as_activation_whose_parameters_are_learnt() -> None:
    node = neurons.LIAFNode(torch.nn.PReLU(), True, step_mode="m", backend="torch")
    node(draw(T, N, C)).sum().backward()
    assert [name for name, _ in node.named_parameters()] == ["act.weight"]
    assert next(node.parameters()).grad.abs() > 0


def test_clif_takes_more_away_the_more_it_has_fired() -> None:
    node = neurons.ComplementaryLIFNode()
    lowered = []
    for _ in range(3):
        node.v = torch.zeros(1, 1)
        before = 2.0
        assert node(torch.tensor([[before]])).item() == 1.0
        lowered.append(before - node.v.item())
    assert lowered[0] == pytest.approx(1.0 + 1.0 / (1.0 + math.exp(-1.0)))  # m = 1 after the first spike
    assert lowered == sorted(lowered)
    assert len(set(lowered)) == 3


# ------------------------------------------------------------------------------------------------ adaptation


def test_the_adaptive_threshold_rises_with_each_spike_and_decays_with_its_time_constant() -> None:
    node = neurons.AdaptiveLIFNode(tau_a=10.0, beta=2.0)
    rho = math.exp(-0.1)
    node(torch.tensor([[10.0]]))
    assert node.a.item() == pytest.approx(1.0 - rho)
    node(torch.tensor([[0.0]]))
    assert node.a.item() == pytest.approx(rho * (1.0 - rho))
    threshold = 1.0 + 2.0 * node.a.item()
    for v, fires in ((threshold + 1e-3, 1.0), (threshold - 1e-3, 0.0)):
        probe = neurons.AdaptiveLIFNode(tau_a=10.0, beta=2.0)
        probe.a = node.a.clone()
        assert probe(torch.tensor([[2.0 * v]])).item() == fires


def test_adaptation_without_strength_is_a_lif_neuron() -> None:
    x = draw(T, N, C)
    assert torch.equal(neurons.AdaptiveLIFNode(beta=0.0, step_mode="m")(x), neurons.LIFNode(step_mode="m")(x))


def test_the_adaptations_time_constant_can_be_learnt() -> None:
    node = neurons.AdaptiveLIFNode(tau_a=torch.nn.Parameter(torch.tensor(5.0)), step_mode="m")
    node(draw(T, N, C) * 2).sum().backward()
    assert node.tau_a.grad.abs() > 0


# ------------------------------------------------------------------------------------------------ current, resonance


def test_cuba_potential_is_the_sum_of_two_decays() -> None:
    node = neurons.CUBALIFNode(0.5, 0.75, v_threshold=100.0, step_mode="m", store_v_seq=True)
    x = torch.zeros(T, 1, 1)
    x[0] = 1.0
    node(x)
    expected = [sum(0.75 ** (t - i) * 0.5**i for i in range(t + 1)) for t in range(T)]
    torch.testing.assert_close(node.v_seq.flatten(), torch.tensor(expected))


def test_resonator_rings_at_its_frequency() -> None:
    node = neurons.RAFNode(b=-0.1, omega=0.7, dt=0.5, v_threshold=100.0, step_mode="m", store_v_seq=True)
    x = torch.zeros(T, 1, 1)
    x[0] = 1.0
    node(x)
    expected = [math.exp(-0.05 * t) * math.sin(0.35 * t) for t in range(T)]
    torch.testing.assert_close(node.v_seq.flatten(), torch.tensor(expected))


def test_resonator_answers_to_input_of_its_own_frequency() -> None:
    time = torch.arange(60.0)
    spikes = [
        neurons.RAFNode(omega=1.0, b=-0.1, step_mode="m")(0.4 * torch.sin(w * time).view(-1, 1, 1)).sum()
        for w in (0.3, 1.0, 2.5)
    ]
    assert spikes[1] > spikes[0]
    assert spikes[1] > spikes[2]


# ------------------------------------------------------------------------------------------------ gates


def set_gates(node: neurons.GatedLIFNode, **logits: float) -> neurons.GatedLIFNode:
    with torch.no_grad():
        for name, logit in logits.items():
            getattr(node, name).fill_(logit)
    return node


def test_glif_with_closed_gates_is_a_leaky_neuron_with_a_hard_reset() -> None:
    x = draw(T, N, C, dtype=torch.float64).abs()
    node = set_gates(neurons.GatedLIFNode(T, init_tau=0.6).double(), alpha=40.0, beta=-40.0, gamma=40.0)
    v = torch.zeros(N, C, dtype=torch.float64)
    for step, spike in zip(x, node(x), strict=True):
        v = 0.6 * v + step
        assert torch.equal(spike, (v >= 0.5).double())
        v = v * (1.0 - spike)


def test_glif_with_open_gates_leaks_linearly_and_resets_softly() -> None:
    x = draw(T, N, C, dtype=torch.float64).abs()
    node = neurons.GatedLIFNode(T, init_linear_decay=0.1, init_v_subreset=0.4, init_conduct=0.25).double()
    set_gates(node, alpha=-40.0, beta=40.0, gamma=-40.0)
    v, spike = torch.zeros(N, C, dtype=torch.float64), 0.0
    for step, found in zip(x, node(x), strict=True):
        v = v - 0.1 + 0.25 * step - 0.4 * spike
        spike = (v >= 0.5).double()
        assert torch.equal(found, spike)


def test_glif_learns_everything_it_has() -> None:
    node = neurons.GatedLIFNode(T, C)
    node(draw(T, N, C, 3, 3)).sum().backward()
    silent = {name for name, p in node.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert silent == set()


def test_glif_says_what_it_was_made_for() -> None:
    with pytest.raises(InputError, match="T = 6 steps"):
        neurons.GatedLIFNode(T)(draw(T + 1, N, C))
    with pytest.raises(InputError, match="5 channels"):
        neurons.GatedLIFNode(T, 5)(draw(T, N, C))
    with pytest.raises(InputError, match="tau starts at 1"):
        neurons.GatedLIFNode(T, init_tau=1.0)
    with pytest.raises(InputError, match="at least 1"):
        neurons.GatedLIFNode(0)
    node = neurons.GatedLIFNode(1, step_mode="s")
    node(draw(N, C))
    with pytest.raises(StateError, match="reset_net"):
        node(draw(N, C))


# ------------------------------------------------------------------------------------------------ more than one spike


def test_ilif_fires_whole_numbers_and_takes_as_many_thresholds_away() -> None:
    node = neurons.ILIFNode(v_threshold=0.5, surrogate_function=surrogates.MultiLevelSpikeCount(3))
    assert node(torch.tensor([[-1.0, 0.2, 0.6, 1.1, 7.0]])).tolist() == [[0.0, 0.0, 1.0, 2.0, 3.0]]
    torch.testing.assert_close(node.v, torch.tensor([[-1.0, 0.2, 0.1, 0.1, 5.5]]))


@pytest.mark.parametrize("v_reset", [0.2, None])
def test_ternary_neurons_are_odd_where_the_reset_is(v_reset: float | None) -> None:
    x = draw(T, N, C)
    node = neurons.TernaryIFNode(v_reset=v_reset, step_mode="m")
    spikes, v = node(x), node.v
    assert set(spikes.unique().tolist()) == {-1.0, 0.0, 1.0}
    node.reset()
    if v_reset is None:
        assert torch.equal(node(-x), -spikes)
        assert torch.equal(node.v, -v)
    else:
        node(torch.tensor([[[5.0, -5.0]]]))
        assert node.v.flatten().tolist() == pytest.approx([0.2, 0.2])


# ------------------------------------------------------------------------------------------------ no spike


@pytest.mark.parametrize(
    ("decode", "expected"),
    [("last-mem", [-1.0, 0.0]), ("max-mem", [2.0, 1.0]), ("max-abs-mem", [2.0, -3.0]), ("mean-mem", [0.0, -0.5])],
)
@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_potentials_are_decoded_in_both_step_modes(decode: str, expected: list[float], step_mode: str) -> None:
    potentials = torch.tensor([[1.0, 1.0], [2.0, -3.0], [-2.0, 0.0], [-1.0, 0.0]]).unsqueeze(1)
    x = potentials.diff(dim=0, prepend=torch.zeros(1, 1, 2))
    node = neurons.NonSpikingIFNode(decode, step_mode=step_mode)
    for _ in range(2):
        output = node(x) if step_mode == "m" else [node(step) for step in x][-1]
        torch.testing.assert_close(output, torch.tensor([expected]))
        node.reset()


def test_unknown_decoder_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'max-abs-mem'"):
        neurons.NonSpikingLIFNode(decode="last")


# ------------------------------------------------------------------------------------------------ online


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_online_neurons_send_no_gradient_back_in_time(backend: str) -> None:
    x = draw(T, N, C).requires_grad_()
    node = neurons.SLTTLIFNode(backend=backend, step_mode="m")
    spikes = node(x)
    (gradient,) = torch.autograd.grad(spikes[3].sum(), x)
    assert gradient[3].abs().sum() > 0
    assert gradient[:3].abs().sum() == 0


def test_a_loss_after_every_step_needs_no_earlier_step() -> None:
    node = neurons.SLTTLIFNode()
    weight = torch.nn.Parameter(torch.ones(C))
    for step in draw(T, N, C):
        node(step * weight).sum().backward()  # would fail for the graph of the step before
    assert weight.grad is not None


def test_traces_of_online_neurons_decay_and_carry_no_gradient() -> None:
    node = neurons.OTTTLIFNode(tau=4.0)
    expected = torch.zeros(N, C)
    for step in draw(T, N, C).requires_grad_():
        spike, trace = node(step)
        expected = 0.75 * expected + spike.detach()
        torch.testing.assert_close(trace, expected)
        assert not trace.requires_grad
    assert node.trace is trace
    node.reset()
    assert node.trace is None
    node.step_mode = "m"
    with pytest.raises(InputError, match="step by step"):
        node(draw(T, N, C))
