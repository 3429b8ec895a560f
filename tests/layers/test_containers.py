import copy
import pickle
import re

import pytest
import torch
from torch import nn

from jellyfit import functional, layers
from jellyfit.errors import InputError, InputTypeError
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
