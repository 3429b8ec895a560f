import copy
import pickle
import re

import pytest
import torch
from torch import nn

from jellyfit import functional, layers
from jellyfit.errors import InputError, InputTypeError, StateError
from jellyfit.neurons import IFNode, LIFNode, ParametricLIFNode

CONTAINERS = [layers.MultiStepContainer, layers.SeqToANNContainer, lambda *m: layers.StepModeContainer(True, *m)]


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stateless():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm.running_mean.uniform_(-0.1, 0.1)
    norm.running_var.uniform_(0.2, 0.4)
    return [nn.Conv2d(3, 4, 3, padding=1), norm]


def networks():
    """The same conv, batch norm, neuron written in four ways."""
    return {
        "containers by kind": nn.Sequential(
            layers.SeqToANNContainer(*stateless()), layers.MultiStepContainer(ParametricLIFNode(v_threshold=0.5))
        ),
        "all step by step": layers.MultiStepContainer(*stateless(), ParametricLIFNode(v_threshold=0.5)),
        "step mode containers": nn.Sequential(
            layers.StepModeContainer(False, *stateless()),
            layers.StepModeContainer(True, ParametricLIFNode(v_threshold=0.5)),
        ),
        "nested": layers.MultiStepContainer(
            layers.StepModeContainer(False, *stateless()),
            layers.MultiStepContainer(nn.Sequential(ParametricLIFNode(v_threshold=0.5))),
        ),
        "layers with a step mode": nn.Sequential(
            layers.Conv2d(3, 4, 3, padding=1), layers.BatchNorm2d(4), ParametricLIFNode(v_threshold=0.5)
        ),
    }


@pytest.mark.parametrize("name", networks())
def test_step_by_step_equals_layer_by_layer_with_gradients(name):
    net = networks()[name].eval()
    reference = networks()["containers by kind"].eval()
    net.load_state_dict(dict(zip(net.state_dict(), reference.state_dict().values(), strict=True)))
    results = []
    for step_mode in ("s", "m"):
        functional.set_step_mode(net, step_mode)
        functional.reset_net(net)
        net.zero_grad()
        x_seq = images(5, 2, 3, 6, 7).requires_grad_()
        spikes = net(x_seq) if step_mode == "m" else torch.stack([net(x) for x in x_seq])
        (spikes * images(5, 2, 4, 6, 7, seed=1)).sum().backward()
        results.append((spikes, x_seq.grad, [p.grad for p in net.parameters()]))
    functional.set_step_mode(reference, "m")
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][0], reference(images(5, 2, 3, 6, 7)))
    assert 0.05 < results[0][0].mean() < 0.95
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("container", [CONTAINERS[0], CONTAINERS[2]])
def test_what_a_container_holds_stays_in_single_step_mode(container):
    inner, nested = LIFNode(step_mode="m"), IFNode(step_mode="m")
    held = container(nn.Sequential(inner), layers.Linear(2, 2, step_mode="m"), layers.MultiStepContainer(nested))
    net = nn.Sequential(LIFNode(), held, layers.Linear(2, 2))
    for step_mode in ("s", "m", "s", "m"):
        assert inner.step_mode == held[1].step_mode == held[2].step_mode == nested.step_mode == "s"
        functional.set_step_mode(net, step_mode)
        assert net[0].step_mode == held.step_mode == net[2].step_mode == step_mode


def test_containers_start_in_the_step_mode_they_document():
    assert layers.MultiStepContainer().step_mode == layers.SeqToANNContainer().step_mode == "m"
    assert layers.StepModeContainer(True).step_mode == layers.StepModeContainer(False).step_mode == "s"


def test_single_step_containers_take_one_step():
    x = images(2, 3, 6, 6)
    conv = nn.Conv2d(3, 4, 3)
    for container in CONTAINERS:
        held = container(conv)
        held.step_mode = "s"
        assert torch.equal(held(x), conv(x))


def test_stateful_choice_of_step_mode_container():
    x_seq = torch.full((4, 1, 2), 0.5)
    seen = []

    class Watch(nn.Module):
        def forward(self, x):
            seen.append(tuple(x.shape))
            return x

    for stateful in (True, False):
        held = layers.StepModeContainer(stateful, Watch())
        held.step_mode = "m"
        assert torch.equal(held(x_seq), x_seq)
    assert seen == [(1, 2)] * 4 + [(4, 2)]


def test_neurons_in_nested_containers_are_reset():
    node = IFNode()
    net = layers.MultiStepContainer(nn.Sequential(layers.StepModeContainer(True, nn.Identity(), nn.Sequential(node))))
    x_seq = torch.full((2, 1, 1), 0.4)
    first = net(x_seq)
    assert first.flatten().tolist() == [0.0, 0.0]
    assert net(x_seq).flatten().tolist() == [1.0, 0.0]  # goes on from 0.8
    functional.reset_net(net)
    assert node.v == 0.0
    assert torch.equal(net(x_seq), first)
    functional.reset_net(net)
    assert net(torch.zeros(2, 5, 1)).shape == (2, 5, 1)


def test_container_copies_and_pickles_with_its_state():
    net = layers.MultiStepContainer(nn.Linear(2, 2), LIFNode())
    x_seq = images(4, 3, 2)
    net(x_seq)
    twins = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    expected = net(x_seq)
    for twin in twins:
        assert torch.equal(twin(x_seq), expected)
        assert twin.step_mode == "m"


def test_container_is_a_sequential_with_its_keys():
    held = layers.SeqToANNContainer(*stateless())
    plain = nn.Sequential(*stateless())
    assert list(held.state_dict()) == list(plain.state_dict())
    held.load_state_dict(plain.state_dict())
    assert len(held) == 2 and isinstance(held[0], nn.Conv2d)


def test_seq_to_ann_keeps_channels_last():
    x_seq = images(4 * 2, 3, 6, 6).to(memory_format=torch.channels_last).view(4, 2, 3, 6, 6)
    seen = []

    class Watch(nn.Module):
        def forward(self, x):
            seen.append((x.is_contiguous(memory_format=torch.channels_last), x.data_ptr() == x_seq.data_ptr()))
            return x

    conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    y_seq = layers.SeqToANNContainer(Watch(), conv)(x_seq)
    assert seen == [(True, True)]  # and without a copy
    assert y_seq.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y_seq, torch.stack([conv(x) for x in x_seq]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("shape", [(3,), (0, 2, 3)])
def test_what_is_no_sequence_is_refused(container, shape):
    held = container(nn.Identity())
    held.step_mode = "m"
    with pytest.raises(
        InputError, match=r"expected a sequence \[T, N, \*\] with T >= 1; got shape " + re.escape(str(list(shape)))
    ):
        held(torch.zeros(shape))


def test_repr_tells_what_a_step_mode_container_is():
    assert "stateful=True, step_mode='s'" in repr(layers.StepModeContainer(True, nn.Identity()))


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_slice_is_a_container_of_the_same_kind_and_step_mode(container):
    held = container(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2))
    for step_mode in ("s", "m"):
        held.step_mode = step_mode
        part = held[1:]
        assert type(part) is type(held) and part.step_mode == step_mode
        assert list(part) == [held[1], held[2]] and held[-1] is held[2]
        assert list(part.state_dict()) == [key for key in held.state_dict() if key.startswith("2.")]  # names stay
        x_seq = images(3, 2, 2, 4, 4)
        step_by_step = torch.stack([part.eval()[1](part[0](x)) for x in x_seq])
        whole = part(x_seq) if step_mode == "m" else torch.stack([part(x) for x in x_seq])
        torch.testing.assert_close(whole, step_by_step)
    assert len(held[:0]) == 0


def test_a_slice_of_a_step_mode_container_is_as_stateful():
    node = IFNode()
    part = layers.StepModeContainer(True, nn.Identity(), node)[1:]
    part.step_mode = "m"
    assert part.stateful and part(torch.full((4, 1, 1), 0.5)).flatten().tolist() == [0.0, 1.0, 0.0, 1.0]
    assert not layers.StepModeContainer(False, nn.Identity(), nn.ReLU())[1:].stateful


@pytest.mark.parametrize(
    ("container", "advice"),
    [
        (layers.SeqToANNContainer, "step mode 'm', or into a MultiStepContainer"),
        (lambda *m: layers.StepModeContainer(False, *m), "Set stateful=True"),
    ],
)
def test_a_neuron_where_time_is_merged_into_the_batch_is_refused(container, advice):
    told = (
        r"runs all time steps as one batch, but '1.0' in it \(LIFNode\) remembers from one step to the next.*" + advice
    )
    with pytest.raises(InputTypeError, match=told):
        container(nn.Linear(2, 2), nn.Sequential(LIFNode()))
    with pytest.raises(InputTypeError, match="'0.0' in it"):
        container(layers.MultiStepContainer(IFNode()))

    class Own(nn.Module):
        def reset(self):
            pass

    held = container(nn.Identity())
    for put in (
        lambda m: held.append(m),
        lambda m: held.insert(0, m),
        lambda m: held.extend([m]),
        lambda m: held.__setitem__(0, m),
        lambda m: held.add_module("more", m),
    ):
        for stateful in (Own(), IFNode()):
            with pytest.raises(InputTypeError, match=type(stateful).__name__):
                put(stateful)
    assert len(held) == 1 and isinstance(held[0], nn.Identity)


def test_modules_added_later_take_single_steps_too():
    held = layers.MultiStepContainer(layers.Linear(2, 2))
    held.append(IFNode(step_mode="m")).insert(0, LIFNode(step_mode="m"))
    held[1] = layers.Linear(2, 2, step_mode="m")
    assert [module.step_mode for module in held] == ["s", "s", "s"]
    assert held(images(3, 4, 2)).shape == (3, 4, 2)


@pytest.mark.parametrize("stateful", [True, False])
def test_step_mode_of_a_container_stands_before_its_modules_or_not_at_all(stateful):
    conv, relu = nn.Conv2d(1, 1, 1), nn.ReLU()
    for held, step_mode in (
        (layers.StepModeContainer(stateful, "m", conv, relu), "m"),
        (layers.StepModeContainer(stateful, "s", conv, relu), "s"),
        (layers.StepModeContainer(stateful, conv, relu), "s"),
        (layers.StepModeContainer(stateful, "m", conv, relu)[:], "m"),
    ):
        assert list(held) == [conv, relu] and held.step_mode == step_mode
    with pytest.raises(InputError, match="step_mode='x'"):
        layers.StepModeContainer(stateful, "x", conv)


# ---------------------------------------------------------------- time last


@pytest.mark.parametrize("kind", ["MultiStepContainer", "SeqToANNContainer"])
def test_time_can_come_last(kind):
    modules = [nn.Conv2d(3, 4, 3), nn.ReLU()]
    first, last = getattr(layers, kind)(*modules), getattr(layers, f"TLast{kind}")(*modules)
    assert isinstance(last, type(first)) and last.step_mode == "m"
    x_seq = images(5, 2, 3, 6, 7)
    expected = first(x_seq)
    y_seq = last(x_seq.movedim(0, -1))
    assert y_seq.shape == (2, 4, 4, 5, 5)
    assert torch.equal(y_seq.movedim(-1, 0), expected)
    last.step_mode = "s"
    torch.testing.assert_close(last(x_seq[1]), expected[1])
    assert type(last[1:]) is type(last)


def test_time_last_with_neurons():
    net = layers.TLastMultiStepContainer(IFNode())
    assert net(torch.full((1, 1, 4), 0.5)).tolist() == [[[0.0, 1.0, 0.0, 1.0]]]
    with pytest.raises(InputTypeError, match="remembers from one step to the next"):
        layers.TLastSeqToANNContainer(IFNode())


@pytest.mark.parametrize("kind", ["TLastMultiStepContainer", "TLastSeqToANNContainer"])
def test_time_last_without_time_is_an_error_that_teaches(kind):
    net = getattr(layers, kind)(nn.Identity())
    with pytest.raises(InputError, match=r"expected a sequence \[N, \*, T\], time last; got shape \[3\]"):
        net(torch.zeros(3))
    with pytest.raises(InputError, match="T >= 1"):
        net(torch.zeros(2, 3, 0))


# ---------------------------------------------------------------- feedback


def unrolled(weight, bias, x_seq, outputs):
    """Feedback through ``tanh`` and a linear layer, written out."""
    y, found = x_seq.new_zeros(x_seq.shape[1], outputs), []
    for x in x_seq:
        y = torch.tanh(torch.cat([x, y], -1) @ weight.T + bias)
        found.append(y)
    return torch.stack(found)


@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_linear_feedback_and_its_gradient_through_time_are_those_written_out(step_mode):
    net = layers.LinearRecurrentContainer(nn.Tanh(), 3, 3, step_mode=step_mode).double()
    x_seq = images(6, 2, 3).double().requires_grad_()
    y_seq = net(x_seq) if step_mode == "m" else torch.stack([net(x) for x in x_seq])
    expected = unrolled(net.rc.weight, net.rc.bias, x_seq, 3)
    torch.testing.assert_close(y_seq, expected)
    inputs = [x_seq, net.rc.weight, net.rc.bias]
    upstream = images(6, 2, 3, seed=1).double()
    torch.testing.assert_close(*(torch.autograd.grad(y, inputs, upstream) for y in (y_seq, expected)))
    assert torch.equal(net.y, y_seq[-1])


def test_linear_feedback_with_the_last_output_ignored_is_the_module_alone():
    net = layers.LinearRecurrentContainer(IFNode(), 3, 3, bias=False, step_mode="m")
    net.rc.weight.data = torch.cat([torch.eye(3), torch.zeros(3, 3)], 1)
    x_seq = images(6, 2, 3)
    assert torch.equal(net(x_seq), IFNode(step_mode="m")(x_seq))


def test_linear_feedback_multiplies_the_input_once_for_all_steps(monkeypatch):
    seen = []
    linear = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda x, *rest: seen.append(tuple(x.shape)) or linear(x, *rest))
    layers.LinearRecurrentContainer(nn.Tanh(), 5, 5, step_mode="m")(images(4, 2, 5))
    assert seen == [(4, 2, 5)] + [(2, 5)] * 4


def test_feedback_element_by_element_adds_up():
    net = layers.ElementWiseRecurrentContainer(nn.Identity(), torch.add, step_mode="m")
    x_seq = images(5, 2, 3)
    torch.testing.assert_close(net(x_seq), x_seq.cumsum(0))
    torch.testing.assert_close(net(x_seq), x_seq.sum(0) + x_seq.cumsum(0))  # goes on


def test_function_of_feedback_takes_the_last_output_first():
    net = layers.ElementWiseRecurrentContainer(nn.Identity(), torch.sub)
    x = torch.tensor([[1.0]])
    assert [net(x).item() for _ in range(3)] == [-1.0, -2.0, -3.0]


def feedback():
    return [
        layers.ElementWiseRecurrentContainer(nn.Sequential(layers.Linear(3, 3), IFNode()), torch.add),
        layers.LinearRecurrentContainer(nn.Sequential(layers.Linear(3, 3), IFNode()), 3, 3),
    ]


@pytest.mark.parametrize("which", [0, 1])
def test_what_feedback_holds_takes_single_steps_whatever_the_network_does(which):
    net = nn.Sequential(feedback()[which], layers.Linear(3, 3))
    for step_mode in ("s", "m"):
        functional.set_step_mode(net, step_mode)
        assert net[0].step_mode == net[1].step_mode == step_mode
        assert [module.step_mode for module in net[0].sub_module] == ["s", "s"]
    held = IFNode(step_mode="m")
    layers.ElementWiseRecurrentContainer(held, torch.add, step_mode="m")
    assert held.step_mode == "s"


@pytest.mark.parametrize("which", [0, 1])
def test_a_reset_of_feedback_reaches_what_it_holds(which):
    net = feedback()[which]
    functional.set_step_mode(net, "m")
    x_seq = 3.0 * images(5, 2, 3)
    first = net(x_seq)
    assert not torch.equal(net(x_seq), first)
    functional.reset_net(net)
    assert net.y is None and net.sub_module[1].v == 0.0
    assert torch.equal(net(x_seq), first)


@pytest.mark.parametrize("which", [0, 1])
def test_feedback_of_another_batch_or_shape_is_an_error_that_teaches(which):
    net = feedback()[which]
    net(images(2, 3))
    with pytest.raises(StateError, match=r"its state 'y' is \[2, 3\].*asks for \[4, 3\].*reset_net"):
        net(images(4, 3))
    wrong = [
        lambda: layers.ElementWiseRecurrentContainer(nn.Linear(3, 4), torch.add),
        lambda: layers.LinearRecurrentContainer(nn.Linear(3, 4), 3, 3),
    ][which]()
    with pytest.raises(InputError, match=r"its sub_module \(Linear\) gave \[2, 4\]; expected \[2, 3\]"):
        wrong(images(2, 3))


def test_linear_feedback_of_other_features_is_an_error_that_teaches():
    with pytest.raises(InputError, match=r"in_features = 3 on axis -1, which has 5"):
        layers.LinearRecurrentContainer(IFNode(), 3, 3, step_mode="m")(images(4, 2, 5))


def test_feedback_in_a_container_that_merges_time_is_refused():
    with pytest.raises(InputTypeError, match="remembers from one step to the next"):
        layers.SeqToANNContainer(feedback()[0])
