"""What every neuron promises, whatever its equations: shapes, step modes, state, parameters, errors."""

import copy
import io
import math
import pickle
import re
import warnings

import pytest
import torch
from torch import nn

from jellyfit import functional, neurons, surrogates
from jellyfit.errors import ConfigError, InputError, InputTypeError, StateError
from jellyfit.kernels import KernelWarning
from jellyfit.neurons import BaseNode, IFNode, LIFNode, MemoryModule, ParametricLIFNode

ALL = [IFNode, LIFNode, ParametricLIFNode]
MODES = ["s", "m"]
each_neuron = pytest.mark.parametrize("neuron", ALL)
each_mode = pytest.mark.parametrize("step_mode", MODES)


def inputs(*shape, dtype=torch.float32, seed=0):
    """Large enough to fire."""
    return 1.2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) + 0.6


def run(node, x_seq):
    """The sequence ``[T, N, *]``, in whichever step mode the neuron is."""
    return node(x_seq) if node.step_mode == "m" else torch.stack([node(x) for x in x_seq])


class AdaptiveNode(BaseNode):
    """A neuron as a user writes it: its threshold rises with every spike, by a memory of its own."""

    def __init__(self, beta=0.5, rho=0.9, **options):
        super().__init__(**options)
        self.beta, self.rho = beta, rho
        self.register_memory("a", 0.0)

    def neuronal_charge(self, x):
        self.v = 0.5 * self.v + x

    def neuronal_fire(self):
        return self.surrogate_function(self.v - self.v_threshold - self.beta * self.a)

    def neuronal_reset(self, spike):
        super().neuronal_reset(spike)
        self.a = self.rho * self.a + spike


# ------------------------------------------------------------------ the equations


@each_neuron
@pytest.mark.parametrize("v_reset", [0.0, None, -0.2])
def test_single_step_equals_multi_step_with_gradients(neuron, v_reset):
    x_seq = inputs(6, 3, 4)
    results = []
    for step_mode in MODES:
        node = neuron(step_mode=step_mode, v_reset=v_reset, store_v_seq=True)
        x = x_seq.clone().requires_grad_()
        spikes = run(node, x)
        (spikes.sum() + (node.v**2).sum()).backward()
        results.append((spikes, node.v, node.v_seq, x.grad, [p.grad for p in node.parameters()]))
    assert results[0][0].any() and not results[0][0].all()
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-7)


@each_mode
@pytest.mark.parametrize(("x", "period"), [(1.0, 1), (0.75, 2), (0.5, 2), (0.25, 4), (0.375, 3)])
def test_integrate_and_fire_fires_every_ceil_of_threshold_over_input(step_mode, x, period):
    spikes = run(IFNode(step_mode=step_mode), torch.full((24, 1, 2), x))
    expected = [float((t + 1) % period == 0) for t in range(24)]
    assert period == math.ceil(1.0 / x)
    assert spikes[:, 0, 0].tolist() == spikes[:, 0, 1].tolist() == expected


def test_soft_reset_keeps_what_exceeds_the_threshold():
    node = IFNode(v_reset=None, step_mode="m")
    spikes = node(torch.full((8, 1, 1), 0.75))
    assert spikes.sum() == 6  # floor(8 · 0.75 / 1): nothing is lost
    assert node.v.item() == 0.0
    hard = IFNode(step_mode="m")
    assert hard(torch.full((8, 1, 1), 0.75)).sum() == 4


@pytest.mark.parametrize("neuron", [LIFNode, ParametricLIFNode])
@pytest.mark.parametrize("v_reset", [0.0, None, -0.5])
def test_potential_decays_to_rest_by_a_constant_factor(neuron, v_reset):
    tau, v0, rest = 4.0, 0.9, v_reset or 0.0
    node = neuron(tau, v_reset=v_reset, step_mode="m", store_v_seq=True, v_threshold=10.0, decay_input=False)
    node.v = torch.full((1, 1), v0)
    node(torch.zeros(10, 1, 1))
    expected = [rest + (v0 - rest) * (1 - 1 / tau) ** (t + 1) for t in range(10)]
    torch.testing.assert_close(node.v_seq.flatten(), torch.tensor(expected))


@pytest.mark.parametrize(("decay_input", "limit"), [(True, 0.6), (False, 1.8)])
def test_constant_input_below_threshold_settles_at_its_closed_form(decay_input, limit):
    node = LIFNode(tau=3.0, decay_input=decay_input, v_threshold=5.0, step_mode="m", store_v_seq=True)
    assert not node(torch.full((40, 1, 1), 0.6)).any()
    steps = torch.arange(1, 41, dtype=torch.float32)
    torch.testing.assert_close(node.v_seq.flatten(), limit * (1 - (2 / 3) ** steps))


def test_potential_exactly_at_the_threshold_fires():
    assert IFNode()(torch.tensor([[1.0, 0.5, 1.5]])).tolist() == [[1.0, 0.0, 1.0]]


def test_detach_reset_cuts_the_gradient_through_the_reset_alone():
    grads = []
    for detach_reset in (False, True):
        node = IFNode(detach_reset=detach_reset)
        x = torch.tensor([[0.8]], requires_grad=True)
        node(x)  # h = 0.8: no spike; v = (1 - s) h, so dv/dx is 1 - s'(h - 1) h, or 1
        (grad,) = torch.autograd.grad(node.v.sum(), x)
        grads.append(grad.item())
    slope = 4 * torch.sigmoid(torch.tensor(-0.8)) * torch.sigmoid(torch.tensor(0.8))
    assert grads[0] == pytest.approx(1 - slope.item() * 0.8)
    assert grads[1] == 1.0


# ------------------------------------------------------------------ subclasses that change one equation


@each_mode
def test_subclass_that_overrides_only_charge(step_mode):
    class Halving(BaseNode):
        def neuronal_charge(self, x):
            self.v = 0.5 * self.v + x

    node = Halving(step_mode=step_mode)
    assert run(node, torch.full((4, 1, 1), 0.6)).flatten().tolist() == [0.0, 0.0, 1.0, 0.0]  # 0.6, 0.9, 1.05, 0.6


@each_mode
def test_subclass_that_overrides_only_fire(step_mode):
    class Graded(IFNode):
        def neuronal_fire(self):
            return 2.0 * super().neuronal_fire()

    node = Graded(step_mode=step_mode, v_reset=None)
    assert run(node, torch.full((3, 1, 1), 0.7)).flatten().tolist() == [0.0, 2.0, 0.0]
    torch.testing.assert_close(node.v, torch.tensor([[0.1]]))  # 1.4 - 2 · 1 + 0.7


@each_mode
def test_subclass_that_overrides_only_reset(step_mode):
    class HalfReset(IFNode):
        def neuronal_reset(self, spike):
            self.v = self.v - 0.5 * spike

    node = HalfReset(step_mode=step_mode)
    assert run(node, torch.full((4, 1, 1), 0.5)).flatten().tolist() == [0.0, 1.0, 1.0, 1.0]


def test_subclass_without_a_charge_is_told_what_to_write():
    class Nothing(BaseNode):
        pass

    with pytest.raises(TypeError, match=re.escape("Nothing must define neuronal_charge(self, x)")):
        Nothing()(torch.zeros(1, 1))


def test_memory_module_without_a_step_is_told_what_to_write():
    with pytest.raises(TypeError, match=re.escape("must define single_step_forward(self, x)")):
        MemoryModule()(torch.zeros(1, 1))


# ------------------------------------------------------------------ parameters: numbers, tensors, learnable


PER_CHANNEL = torch.tensor([0.7, 1.0, 1.4]).reshape(3, 1, 1)


@each_mode
@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("name", ["v_threshold", "v_reset", "tau"])
def test_per_channel_value_acts_as_one_neuron_a_channel(name, learnable, step_mode):
    values = {"v_threshold": PER_CHANNEL, "v_reset": PER_CHANNEL - 1.2, "tau": PER_CHANNEL + 1.1}[name]
    x_seq = inputs(6, 2, 3, 4, 5)
    node = LIFNode(**{name: nn.Parameter(values.clone()) if learnable else values}, step_mode=step_mode)
    spikes = run(node, x_seq)
    for channel in range(3):
        alone = LIFNode(**{name: values[channel].item()}, step_mode=step_mode)
        assert torch.equal(spikes[:, :, channel], run(alone, x_seq[:, :, channel]))
        torch.testing.assert_close(node.v[:, channel], alone.v)
    assert [n for n, _ in node.named_parameters()] == ([name] if learnable else [])
    assert list(node.state_dict()) == [name]


def test_per_channel_init_tau_gives_a_learnable_tau_a_channel():
    node = ParametricLIFNode(torch.tensor([1.5, 2.0, 8.0]), step_mode="m")
    x_seq = inputs(5, 2, 3)
    spikes = node(x_seq)
    torch.testing.assert_close(node.tau, torch.tensor([1.5, 2.0, 8.0]))
    for channel, tau in enumerate((1.5, 2.0, 8.0)):
        alone = ParametricLIFNode(tau, step_mode="m")
        assert torch.equal(spikes[..., channel], alone(x_seq[..., channel]))
    spikes.sum().backward()
    assert node.w.grad.shape == (3,) and node.w.grad.all()


@each_mode
@pytest.mark.parametrize("v_reset_is_soft", [False, True])
@pytest.mark.parametrize("surrogate", [surrogates.Sigmoid, surrogates.ATan])
def test_gradients_of_inputs_and_parameters_are_those_of_finite_differences(surrogate, v_reset_is_soft, step_mode):
    def sequence(x, tau, threshold, v_reset):
        # non-spiking twin: smooth, so finite differences exist
        node = LIFNode(2.0, v_reset=None if v_reset_is_soft else 0.0, surrogate_function=surrogate(spiking=False))
        node.step_mode = step_mode
        node.tau, node.v_threshold = tau, threshold
        if not v_reset_is_soft:
            node.v_reset = v_reset
            node.reset()
        return run(node, x), node.v

    x = inputs(4, 2, 3, dtype=torch.float64).requires_grad_()
    values = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([2.0, 2.5, 3.0], [0.7, 1.0, 1.4])]
    v_reset = torch.tensor([-0.1, 0.0, 0.2], dtype=torch.float64, requires_grad=not v_reset_is_soft)
    assert torch.autograd.gradcheck(sequence, (x, *values, v_reset))


def test_gradient_of_plifs_time_constant_is_that_of_finite_differences():
    node = ParametricLIFNode(surrogate_function=surrogates.Sigmoid(spiking=False), step_mode="m").double()
    x = inputs(4, 2, 3, dtype=torch.float64)

    def sequence(w):
        functional.reset_net(node)
        return torch.func.functional_call(node, {"w": w}, (x,))

    assert torch.autograd.gradcheck(sequence, (node.w.detach().clone().requires_grad_(),))


@each_mode
def test_learnable_threshold_and_reset_receive_the_surrogates_gradient(step_mode):
    node = LIFNode(
        tau=nn.Parameter(torch.tensor(2.0)),
        v_threshold=nn.Parameter(torch.full((4,), 0.8)),
        v_reset=nn.Parameter(torch.full((4,), -0.1)),
        step_mode=step_mode,
    )
    run(node, inputs(5, 3, 4)).sum().backward()
    assert {n for n, p in node.named_parameters() if p.grad is not None and p.grad.any()} == {
        "tau",
        "v_threshold",
        "v_reset",
    }
    assert (node.v_threshold.grad < 0).all()  # a higher threshold makes fewer spikes
    counts = []
    for _ in range(2):
        functional.reset_net(node)
        with torch.no_grad():
            counts.append(run(node, inputs(5, 3, 4)).sum())
            node.v_threshold.add_(0.5)
    assert counts[1] < counts[0]


def test_neurons_own_matrix_of_weights_need_not_broadcast_to_the_input():
    class Lateral(IFNode):
        def __init__(self):
            super().__init__(step_mode="m")
            self.inhibition = nn.Parameter(0.1 * torch.ones(3, 3))

        def neuronal_charge(self, x):
            super().neuronal_charge(x - x @ self.inhibition)

    node = Lateral()
    with pytest.warns(KernelWarning, match=r"Lateral.* runs in eager PyTorch.*aten\.mm is not a pointwise"):
        node(inputs(4, 2, 3)).sum().backward()
    assert node.inhibition.grad.any()
    node(inputs(4, 2, 3, seed=1))  # says it once


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["v_threshold", "v_reset"])
@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_value_that_is_not_finite_is_refused(name, bad, kind):
    with pytest.raises(InputError, match=rf"IFNode\({name}=.*finite"):
        IFNode(**{name: kind(bad)})


@pytest.mark.parametrize("bad", [1.0, 0.5, 0.0, -2.0, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [float, torch.tensor, lambda v: torch.tensor([2.0, v])])
def test_time_constant_of_one_or_less_is_refused(bad, kind):
    with pytest.raises(InputError, match=r"LIFNode\(tau=.*above 1"):
        LIFNode(tau=kind(bad))
    with pytest.raises(InputError, match=r"ParametricLIFNode\(init_tau=.*above 1"):
        ParametricLIFNode(init_tau=kind(bad))


@pytest.mark.parametrize("bad", ["1.0", [1.0], None, True, torch.tensor([1, 2])])
def test_threshold_of_another_type_is_refused(bad):
    with pytest.raises(InputTypeError, match=r"IFNode\(v_threshold="):
        IFNode(v_threshold=bad)


@each_mode
@pytest.mark.parametrize("name", ["v_threshold", "v_reset", "tau"])
def test_value_that_does_not_fit_the_input_is_refused_naming_module_and_shapes(name, step_mode):
    net = nn.Sequential(nn.Identity(), LIFNode(**{name: torch.full((3,), 1.5)}))  # [C] given for images
    functional.set_step_mode(net, step_mode)
    shape = (2, 3, 4, 5)
    with pytest.raises(InputError, match=rf"^'1' \(LIFNode.*{name} has shape \[3\].*\[2, 3, 4, 5\].*\[C, 1, 1\]"):
        net(torch.zeros(shape) if step_mode == "s" else torch.zeros(6, *shape))


# ------------------------------------------------------------------ state


@each_neuron
@each_mode
def test_state_is_made_from_the_first_input_and_is_not_in_state_dict(neuron, step_mode):
    node = neuron(step_mode=step_mode)
    keys = list(node.state_dict())
    x = inputs(2, 3, 4, dtype=torch.float64)
    node.double()
    node(x)
    assert node.v.shape == (x.shape if step_mode == "s" else x.shape[1:])
    assert node.v.dtype == torch.float64
    assert list(node.state_dict()) == keys == [n for n, _ in node.named_parameters()]
    assert not list(node.buffers())


@each_mode
@pytest.mark.parametrize("v_reset", [0.0, None, -0.3])
def test_state_is_kept_between_calls_and_forgotten_by_reset(step_mode, v_reset):
    node = IFNode(step_mode=step_mode, v_reset=v_reset)
    start = v_reset or 0.0
    assert node.v == start
    x_seq = torch.full((1, 2, 3), 0.6)
    first, second = run(node, x_seq), run(node, x_seq)
    assert not first.any()
    assert second.all() == (start + 1.2 >= 1.0)
    assert not torch.equal(node.v, torch.full((2, 3), start + 0.6))
    functional.reset_net(node)
    assert node.v == start
    assert torch.equal(run(node, x_seq), first)


def test_state_starts_at_a_tensor_v_reset():
    node = IFNode(v_reset=torch.tensor([-0.5, 0.0, 0.75]))
    assert node(torch.full((2, 3), 0.3)).tolist() == [[0.0, 0.0, 1.0]] * 2
    torch.testing.assert_close(node.v[0], torch.tensor([-0.2, 0.3, 0.75]))


@each_neuron
@each_mode
@pytest.mark.parametrize(
    ("second", "told"),
    [
        (torch.zeros(3, 5, 4), r"\[5, 4\] torch.float32 on cpu"),
        (torch.zeros(3, 1, 4), r"\[1, 4\] torch.float32 on cpu"),  # would broadcast
        (torch.zeros(3, 2, 4, dtype=torch.float64), r"\[2, 4\] torch.float64 on cpu"),
        (torch.zeros(3, 2, 4, device="meta"), r"\[2, 4\] torch.float32 on meta"),
    ],
    ids=["batch size", "batch size 1", "dtype", "device"],
)
def test_input_that_no_longer_fits_the_state_is_an_error_that_names_the_module(neuron, step_mode, second, told):
    net = nn.Sequential(nn.Sequential(nn.Identity(), neuron()))
    functional.set_step_mode(net, step_mode)
    functional.reset_net(net)
    node = net[0][1]
    run_net = net if step_mode == "m" else lambda x_seq: [net(x) for x in x_seq]
    run_net(torch.zeros(3, 2, 4))
    left = r"'v' is \[2, 4\] torch.float32 on cpu"
    with pytest.raises(StateError, match=rf"^'0\.1' \({neuron.__name__}.*{left}.*{told}.*reset_net"):
        run_net(second)
    functional.reset_net(net)
    net.to(second.device).to(second.dtype)
    run_net(second)
    assert node.v.shape == second.shape[1:]
    assert (node.v.dtype, node.v.device) == (second.dtype, second.device)


@each_neuron
def test_state_follows_to_and_goes_on_from_there(neuron):
    node = neuron(step_mode="m", store_v_seq=True)
    x_seq = inputs(6, 2, 3)
    node(x_seq[:3])
    node.double()
    assert node.v.dtype == node.v_seq.dtype == torch.float64
    late = node(x_seq[3:].double())
    whole = neuron(step_mode="m")
    assert torch.equal(late.float(), whole(x_seq)[3:])
    with pytest.raises(StateError, match=r"torch.float64.*torch.float32"):
        node(x_seq)


@each_neuron
@each_mode
def test_copies_and_pickles_right_after_a_forward_with_gradients(neuron, step_mode):
    node = neuron(step_mode=step_mode, store_v_seq=True)
    x_seq = inputs(4, 2, 3)
    spikes = run(node, x_seq.clone().requires_grad_())
    file = io.BytesIO()
    torch.save(node, file)
    file.seek(0)
    twins = [copy.deepcopy(node), pickle.loads(pickle.dumps(node)), torch.load(file, weights_only=False)]
    following = run(node, x_seq)
    for twin in twins:
        assert not twin.v.requires_grad and not twin.v_seq.requires_grad
        assert torch.equal(run(twin, x_seq), following)  # they have the state, too
    (spikes.sum() + following.sum()).backward()  # and the original still has its graph


def test_copy_does_not_share_its_state_with_the_original():
    node = IFNode()
    node(torch.full((1, 2), 0.5))
    twin = copy.deepcopy(node)
    twin.v.add_(1.0)
    assert node.v.tolist() == [[0.5, 0.5]]


def test_state_dict_saves_and_loads_right_after_a_forward_into_a_fresh_neuron():
    node = ParametricLIFNode(3.0, v_threshold=nn.Parameter(torch.tensor([0.5, 0.6])), step_mode="m")
    x_seq = inputs(4, 2, 2)
    spikes = node(x_seq)
    file = io.BytesIO()
    torch.save(node.state_dict(), file)
    file.seek(0)
    fresh = ParametricLIFNode(2.0, v_threshold=nn.Parameter(torch.ones(2)), step_mode="m")
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh(x_seq), spikes)


@each_mode
def test_state_set_by_hand_is_where_the_neuron_starts_and_receives_its_gradient(step_mode):
    v0 = torch.tensor([[0.9, 0.2]], dtype=torch.float64, requires_grad=True)

    def sequence(v):
        node = LIFNode(surrogate_function=surrogates.Sigmoid(spiking=False), step_mode=step_mode)
        node.v = v
        return run(node, inputs(3, 1, 2, dtype=torch.float64)), node.v

    assert torch.autograd.gradcheck(sequence, (v0,))
    node = IFNode(step_mode=step_mode)
    node.v = torch.tensor([[0.9, 0.2]])
    assert run(node, torch.full((1, 1, 2), 0.2)).tolist() == [[[1.0, 0.0]]]


def test_state_set_by_hand_to_a_number_fills_it():
    node = IFNode()
    node.v = 0.75
    assert node(torch.full((2, 3), 0.25)).all()


def test_state_set_by_hand_that_does_not_fit_is_an_error():
    node = IFNode()
    node.v = torch.zeros(7)
    with pytest.raises(StateError, match=r"'v' is \[7\].*set by hand.*\[2, 3\]"):
        node(torch.zeros(2, 3))


# ------------------------------------------------------------------ memories of one's own


def test_memory_of_a_users_neuron_works_in_both_step_modes():
    x_seq = inputs(7, 2, 3)
    results = []
    for step_mode in MODES:
        node = AdaptiveNode(step_mode=step_mode)
        x = x_seq.clone().requires_grad_()
        spikes = run(node, x)
        (spikes.sum() + node.a.sum()).backward()
        results.append((spikes, node.v, node.a, x.grad))
    torch.testing.assert_close(*results)
    spikes, a = results[0][0], torch.zeros(2, 3)
    for step in spikes:
        a = 0.9 * a + step
    torch.testing.assert_close(results[0][2], a)
    assert a.any()


def test_memory_of_a_users_neuron_resets_copies_moves_and_stays_out_of_state_dict():
    node = AdaptiveNode(step_mode="m")
    node(inputs(5, 2, 3).requires_grad_())
    assert not node.state_dict()
    twin = copy.deepcopy(node)
    assert torch.equal(twin.a, node.a) and not twin.a.requires_grad
    node.detach()
    assert not node.a.requires_grad
    node.double()
    assert node.a.dtype == torch.float64
    assert [name for name, _ in node.named_memories()][-1] == "a"
    assert any(value is node.a for value in node.memories())
    node.reset()
    assert node.a == 0.0


@pytest.mark.parametrize("name", ["v", "a", "v_threshold", "forward"])
def test_memory_whose_name_is_taken_is_refused(name):
    with pytest.raises(InputError, match=rf"register_memory\('{name}'\) on AdaptiveNode"):
        AdaptiveNode().register_memory(name, 0.0)


def test_tensor_memory_need_not_have_the_inputs_shape_and_follows_to_through_a_reset():
    class Counting(IFNode):
        def __init__(self):
            super().__init__(step_mode="m")
            self.register_memory("fired", torch.zeros(3))

        def neuronal_reset(self, spike):
            super().neuronal_reset(spike)
            self.fired = self.fired + spike.sum(0)

    node = Counting()
    with pytest.warns(KernelWarning, match="memory 'fired' starts as Tensor"):
        spikes = node(inputs(4, 2, 3))
    assert torch.equal(node.fired, spikes.sum((0, 1))) and node.fired.any()
    spikes = spikes + node(inputs(4, 2, 3, seed=1))
    assert torch.equal(node.fired, spikes.sum((0, 1)))
    node.double()
    node.reset()
    assert node.fired.dtype == torch.float64 and node.fired.tolist() == [0.0, 0.0, 0.0]
    node(inputs(4, 2, 3, dtype=torch.float64))
    node.fired.add_(1.0)
    node.reset()
    assert not node.fired.any()


def test_nested_memory_detaches_and_copies_whole():
    class Delay(MemoryModule):
        def __init__(self):
            super().__init__("m")
            self.register_memory("queue", {"past": [], "steps": 0})

        def single_step_forward(self, x):
            self.queue["past"].append(x * 1.0)
            self.queue["steps"] += 1
            return self.queue["past"][0]

    module = Delay()
    x_seq = inputs(3, 2).requires_grad_()
    assert torch.equal(module(x_seq), x_seq[:1].expand(3, 2))
    assert not copy.deepcopy(module).queue["past"][2].requires_grad
    module.detach()
    assert not module.queue["past"][0].requires_grad and module.queue["steps"] == 3
    module.reset()
    assert module.queue == {"past": [], "steps": 0}


# ------------------------------------------------------------------ store_v_seq


@each_mode
def test_v_seq_holds_the_potentials_after_the_reset(step_mode):
    node = IFNode(step_mode=step_mode, store_v_seq=True)
    assert node.v_seq is None
    run(node, torch.full((5, 2, 1), 0.4))
    torch.testing.assert_close(node.v_seq[:, 0, 0], torch.tensor([0.4, 0.8, 0.0, 0.4, 0.8]))
    assert node.v_seq.shape == (5, 2, 1)
    assert torch.equal(node.v_seq[-1], node.v)
    functional.reset_net(node)
    assert node.v_seq is None
    run(node, torch.zeros(3, 7, 1))  # another batch size
    assert node.v_seq.shape == (3, 7, 1)


def test_v_seq_is_the_last_calls_in_multi_step_mode_and_grows_in_single_step_mode():
    x_seq = inputs(3, 2, 1)
    multi, single = IFNode(step_mode="m", store_v_seq=True), IFNode(store_v_seq=True)
    for node in (multi, single):
        run(node, x_seq)
        assert node.v_seq.shape == (3, 2, 1)
        run(node, x_seq)
    assert multi.v_seq.shape == (3, 2, 1) and single.v_seq.shape == (6, 2, 1)
    assert torch.equal(single.v_seq[3:], multi.v_seq)


@each_mode
def test_gradient_flows_through_v_seq(step_mode):
    node = IFNode(step_mode=step_mode, store_v_seq=True, v_threshold=9.0)
    x_seq = inputs(3, 2, 1).requires_grad_()
    run(node, x_seq)
    node.v_seq.sum().backward()
    torch.testing.assert_close(x_seq.grad[:, 0, 0], torch.tensor([3.0, 2.0, 1.0]), atol=1e-3, rtol=0)


# ------------------------------------------------------------------ inputs that cannot be taken


@each_neuron
@pytest.mark.parametrize(
    ("x", "error", "told"),
    [
        (torch.zeros(0, 2, 3), InputError, r"T = 0 time steps, shape \[0, 2, 3\]; expected T >= 1"),
        (torch.zeros(5), InputError, r"takes a sequence \[T, N, \*\]; got shape \[5\].*step_mode='s'"),
        (torch.zeros(4, 2, 3, dtype=torch.int64), InputTypeError, r"dtype torch.int64.*Use x.float\(\)"),
        (torch.zeros(4, 2, 3, dtype=torch.bool), InputTypeError, r"dtype torch.bool"),
        (torch.zeros(4, 2, 3, dtype=torch.complex64), InputTypeError, r"dtype torch.complex64"),
        ([[0.0]], InputTypeError, r"got list; expected a torch.Tensor"),
    ],
    ids=["no steps", "one axis", "integers", "booleans", "complex numbers", "list"],
)
def test_input_that_cannot_be_a_sequence_is_refused_in_words(neuron, x, error, told):
    net = nn.Sequential(neuron(step_mode="m"))
    functional.reset_net(net)
    with pytest.raises(error, match=rf"^'0' \({neuron.__name__}\(.*{told}"):
        net(x)


@each_mode
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_under_anomaly_detection_is_found_at_its_index(step_mode, bad):
    x = torch.zeros(3, 2, 4)
    x[1, 0, 2] = bad
    index = "[1, 0, 2]"
    node = IFNode(step_mode=step_mode)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that anomaly detection is slow
        with torch.autograd.detect_anomaly(), pytest.raises(InputError, match=re.escape(f"first at index {index}")):
            node(x)
    node.reset()
    node(x)  # the check costs a pass over the input: only on demand


@pytest.mark.parametrize("bad", ["x", "S", None, 0])
def test_unknown_step_mode_is_refused(bad):
    with pytest.raises(InputError, match=r"expected 's' \(one time step \[N, \*\] a call\) or 'm'"):
        IFNode(step_mode=bad)


def test_unknown_backend_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="backend='tpu'; expected one of 'auto', 'torch', 'cpu', 'cupy'"):
        IFNode(backend="tpu")
    node = IFNode()
    with pytest.raises(ConfigError, match="backend='tpu'"):
        node.backend = "tpu"
    assert node.backend == "auto"


def test_backend_that_cannot_run_here_is_refused_with_its_reason(monkeypatch):
    reasons = {"cpu": "no compiler", "torch": None, "cupy": "no GPU"}
    monkeypatch.setattr("jellyfit.kernels.backend_status", lambda: reasons)
    with pytest.raises(ConfigError, match="backend='cupy' cannot run here: no GPU"):
        IFNode(backend="cupy")
    assert IFNode(backend="torch").backend == "torch"


# ------------------------------------------------------------------ how inputs lie in memory, and what they are


@each_neuron
def test_strided_and_channels_last_inputs_give_what_contiguous_ones_give(neuron):
    x_seq = inputs(4, 2, 3, 6, 5)
    weights = inputs(4, 2, 3, 6, 5, seed=1)
    channels_last = torch.stack([x.to(memory_format=torch.channels_last) for x in x_seq])
    layouts = {
        "contiguous": x_seq,
        "channels last": x_seq.flatten(0, 1).to(memory_format=torch.channels_last).view(4, 2, 3, 6, 5),
        "stacked channels last": channels_last,
        "time in the middle": x_seq.transpose(0, 1).contiguous().transpose(0, 1),
        "every second": torch.stack([x_seq, x_seq], dim=-1).flatten(-2)[..., ::2],
        "reversed twice": x_seq.flip(0).flip(0).transpose(-1, -2).contiguous().transpose(-1, -2),
    }
    assert not layouts["channels last"].is_contiguous() and not layouts["every second"].is_contiguous()
    results = {}
    for name, x in layouts.items():
        node = neuron(step_mode="m")
        x = x.detach().requires_grad_()
        spikes = node(x)
        (spikes * weights).sum().backward()
        results[name] = (spikes, node.v, x.grad)
    for name, result in results.items():
        torch.testing.assert_close(result, results["contiguous"], msg=lambda text, n=name: f"{n}: {text}")


def test_expanded_input_is_read_and_not_written():
    frame = torch.full((1, 2, 3), 0.6)
    node = IFNode(step_mode="m")
    assert node(frame.expand(4, 2, 3))[:, 0, 0].tolist() == [0.0, 1.0, 0.0, 1.0]
    assert torch.equal(frame, torch.full((1, 2, 3), 0.6))


@each_neuron
@each_mode
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_and_stays_in_its_dtype(neuron, step_mode, dtype):
    node = neuron(step_mode=step_mode)
    x_seq = inputs(4, 2, 3).to(dtype).requires_grad_()
    spikes = run(node, x_seq)
    assert spikes.dtype == dtype and node.v.dtype == torch.float32
    assert torch.equal(spikes, run(neuron(step_mode=step_mode), x_seq.float()).to(dtype))
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    spikes.sum().backward()
    assert x_seq.grad.dtype == dtype and x_seq.grad.isfinite().all() and x_seq.grad.any()


@each_neuron
def test_batch_of_no_samples_gives_no_spikes(neuron):
    assert neuron(step_mode="m")(torch.zeros(4, 0, 3)).shape == (4, 0, 3)


@each_neuron
def test_no_grad_leaves_no_graph_and_changes_no_number(neuron):
    node = neuron(step_mode="m")
    x_seq = inputs(4, 2, 3).requires_grad_()
    spikes = node(x_seq)
    node.reset()
    with torch.no_grad():
        silent = node(x_seq)
    assert torch.equal(silent, spikes)
    assert spikes.requires_grad and not silent.requires_grad and not node.v.requires_grad


def test_one_neuron_used_twice_in_a_network_is_one_state():
    node = IFNode()
    assert not node(torch.full((1, 1), 0.6)).any()
    assert node(torch.full((1, 1), 0.6)).all()
    net = nn.Sequential(node, nn.Identity(), node)
    functional.reset_net(net)
    assert not net(torch.full((1, 1), 0.6)).any()  # 0.6, then the spike that did not come
    assert net(torch.full((1, 1), 0.6)).all()  # 1.2: reset to 0, then its own spike: 0 + 1


# ------------------------------------------------------------------ torch's transformations


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch.compile, of itself
def test_compiled_in_one_graph_equals_eager():
    torch._dynamo.reset()
    node = ParametricLIFNode(v_threshold=torch.full((3,), 0.9), step_mode="m", store_v_seq=True)
    eager = copy.deepcopy(node)
    compiled = torch.compile(node, fullgraph=True, backend="aot_eager")
    for seed in (0, 1):  # the second call goes on from the state that the first one left
        results = []
        for run_it, owner in ((compiled, node), (eager, eager)):
            functional.detach_net(owner)
            owner.zero_grad()
            x = inputs(2, 4, 3, seed=seed).requires_grad_()
            spikes = run_it(x)
            (spikes.sum() + owner.v.sum()).backward()
            results.append((spikes, owner.v, owner.v_seq, x.grad, owner.w.grad))
        torch.testing.assert_close(*results)
        assert results[0][0].any()
    functional.reset_net(node)
    assert compiled(inputs(2, 5, 3)).shape == (2, 5, 3)  # another batch size after a reset


@each_neuron
def test_functional_call_and_grad_transform_agree_with_backward(neuron):
    node = neuron(v_threshold=nn.Parameter(torch.tensor(0.9)), step_mode="m")
    x_seq = inputs(4, 2, 3)

    def loss(parameters):
        node.reset()
        return torch.func.functional_call(node, parameters, (x_seq,)).sum()

    parameters = {name: p.detach() for name, p in node.named_parameters()}
    gradients = torch.func.grad(loss)(parameters)
    node.reset()
    node(x_seq).sum().backward()
    torch.testing.assert_close(gradients, {name: p.grad for name, p in node.named_parameters()})


@each_neuron
def test_vmap_over_inputs_agrees_with_a_loop(neuron):
    node = neuron(step_mode="m")
    x = inputs(5, 4, 2, 3)  # five sequences

    def gradient(x_seq):
        node.reset()
        return torch.func.grad(lambda value: node(value).sum())(x_seq)

    together = torch.func.vmap(gradient)(x)
    torch.testing.assert_close(together, torch.stack([gradient(x_seq) for x_seq in x]))
    assert together.any()


# ------------------------------------------------------------------ print


def test_repr_tells_what_differs_between_neurons():
    text = repr(
        LIFNode(tau=torch.full((3, 1, 1), 2.5), v_threshold=nn.Parameter(torch.ones(4)), v_reset=None, step_mode="m")
    )
    for part in ("LIFNode(", "tau=Tensor[3, 1, 1]", "v_threshold=Parameter[4]", "v_reset=None", "step_mode='m'"):
        assert part in text
    assert "tau=2.5" in repr(ParametricLIFNode(2.5)) and "v_reset=-0.1" in repr(IFNode(v_reset=-0.1))
    assert "Sigmoid(alpha=4)" in repr(IFNode())


def test_every_public_neuron_is_exported_and_documented():
    assert len(neurons.__all__) == len(set(neurons.__all__))
    for name in neurons.__all__:
        assert hasattr(neurons, name)
