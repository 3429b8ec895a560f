import re

import pytest
import torch
import torchmetrics
from torch import nn

from jellyfit import functional, layers
from jellyfit.backbones import Backbone, SpikingMLP
from jellyfit.errors import ConfigError, InputError
from jellyfit.neurons import BaseNode, IFNode, LIFNode, ParametricLIFNode


def nested():
    """Neurons in every kind of place; each fires on the second step of 0.6."""
    return nn.ModuleDict(
        {
            "list": nn.ModuleList([IFNode(), nn.Sequential(nn.Identity(), IFNode())]),
            "container": layers.MultiStepContainer(layers.StepModeContainer(True, IFNode())),
        }
    )


def neurons_of(net):
    return [module for module in net.modules() if isinstance(module, BaseNode)]


# ------------------------------------------------------------------ reset


def test_reset_reaches_every_neuron_however_deep():
    net = nested()
    nodes = neurons_of(net)
    assert len(nodes) == 3
    for node in nodes:
        node(torch.full((1, 2), 0.6))
        assert node.v.shape == (1, 2)
    functional.reset_net(net)
    assert [node.v for node in nodes] == [0.0] * 3


def test_reset_calls_the_reset_of_modules_that_are_not_ours():
    class Foreign(nn.Module):
        def __init__(self):
            super().__init__()
            self.count = 3

        def reset(self):
            self.count = 0

    net = nn.Sequential(nn.Sequential(Foreign()), IFNode())
    functional.reset_net(net)
    assert net[0][0].count == 0


def test_reset_leaves_metrics_alone():
    net = nn.Sequential(IFNode())
    net.accuracy = torchmetrics.MeanMetric()
    net.metrics = torchmetrics.MetricCollection({"mean": torchmetrics.MeanMetric()})
    net.accuracy.update(3.0)
    net.metrics["mean"].update(4.0)
    net[0](torch.full((1, 1), 0.6))
    functional.reset_net(net)
    assert net.accuracy.compute() == 3.0 and net.metrics["mean"].compute() == 4.0
    assert net[0].v == 0.0


def test_what_a_reset_reaches_is_named():
    net = nested()
    net["metric"], net["layer"] = torchmetrics.MeanMetric(), layers.Linear(2, 2)
    assert [name for name, _ in functional.named_stateful(net)] == ["list.0", "list.1.1", "container.0.0"]
    assert functional.named_stateful(net["list"][0]) == [("", net["list"][0])]


def test_reset_of_a_single_neuron_and_of_a_net_without_any():
    node = IFNode()
    node(torch.full((1, 1), 0.6))
    functional.reset_net(node)
    assert node.v == 0.0
    linear = nn.Linear(2, 2)
    before = linear.weight.clone()
    functional.reset_net(linear)
    assert torch.equal(linear.weight, before)


# ------------------------------------------------------------------ detach


def test_detach_keeps_the_state_and_cuts_its_graph():
    node = IFNode(v_threshold=10.0)
    net = nn.Sequential(node)
    early = torch.full((1, 1), 0.3, requires_grad=True)
    late = torch.full((1, 1), 0.4, requires_grad=True)
    net(early)
    functional.detach_net(net)
    torch.testing.assert_close(node.v, torch.tensor([[0.3]]))
    net(late)
    node.v.sum().backward()
    assert late.grad is not None and early.grad is None


def test_truncated_backpropagation_sees_only_its_own_segment():
    linear = nn.Linear(3, 4)
    net = nn.Sequential(linear, LIFNode(v_threshold=0.3))
    functional.set_step_mode(net[1], "m")
    x_seq = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0))
    for segment in x_seq.split(2):
        net(segment).sum().backward()  # the graph of the last segment is freed: going back into it would raise
        functional.detach_net(net)
    assert linear.weight.grad.any()
    net(x_seq[:2])
    with pytest.raises(RuntimeError, match="second time"):
        for segment in x_seq.split(2):
            net(segment).sum().backward()


# ------------------------------------------------------------------ step mode, backend, names


def test_step_mode_reaches_every_module_that_has_one():
    net = nested()
    functional.set_step_mode(net, "m")
    assert [node.step_mode for node in neurons_of(net)] == ["m", "m", "s"]  # the last is held by a container
    assert net["container"].step_mode == "m"
    functional.set_step_mode(net, "s")
    assert [node.step_mode for node in neurons_of(net)] == ["s"] * 3


@pytest.mark.parametrize("bad", ["x", "", None])
def test_unknown_step_mode_is_refused(bad):
    with pytest.raises(InputError, match=rf"step_mode={re.escape(repr(bad))}"):
        functional.set_step_mode(nested(), bad)


def test_backend_is_set_for_the_chosen_kind_of_neuron():
    net = nn.Sequential(IFNode(), nn.Sequential(LIFNode(), ParametricLIFNode()), nn.Linear(1, 1))
    functional.set_backend(net, "torch", instance=LIFNode)
    assert [node.backend for node in neurons_of(net)] == ["auto", "torch", "auto"]
    functional.set_backend(net, "torch", instance=(IFNode, ParametricLIFNode))
    assert [node.backend for node in neurons_of(net)] == ["torch"] * 3
    functional.set_backend(net, "auto")
    assert [node.backend for node in neurons_of(net)] == ["auto"] * 3


@pytest.mark.parametrize("net", [nn.Sequential(IFNode(), LIFNode()), nn.Linear(1, 1)])
def test_unknown_backend_is_refused_before_anything_is_changed(net):
    with pytest.raises(ConfigError, match="backend='tpu'; expected one of"):
        functional.set_backend(net, "tpu")
    assert {node.backend for node in neurons_of(net)} <= {"auto"}


def test_backend_that_cannot_run_here_is_refused_before_anything_is_changed(monkeypatch):
    reasons = {"torch": None, "cpu": None, "cupy": "no GPU found"}
    monkeypatch.setattr("jellyfit.kernels.backend_status", lambda: reasons)
    net = nn.Sequential(IFNode(), LIFNode())
    with pytest.raises(ConfigError, match="backend='cupy' cannot run here: no GPU found"):
        functional.set_backend(net, "cupy")
    assert [node.backend for node in net] == ["auto", "auto"]


def test_neurons_are_named_in_the_order_of_the_network():
    net = nn.Sequential(nn.Linear(1, 1), IFNode(), nn.Sequential(LIFNode()))
    assert [(name, type(node)) for name, node in functional.named_neurons(net)] == [("1", IFNode), ("2.0", LIFNode)]


# ------------------------------------------------------------------ over time


def test_multi_step_forward_runs_step_by_step():
    x_seq = torch.full((4, 1, 2), 0.6)
    expected = IFNode(step_mode="m")(x_seq)
    for modules in (IFNode(), [nn.Identity(), IFNode()], (IFNode(),), nn.Sequential(IFNode()), IFNode().forward):
        assert torch.equal(functional.multi_step_forward(x_seq, modules), expected)
    assert expected[:, 0, 0].tolist() == [0.0, 1.0, 0.0, 1.0]


def test_seq_to_ann_forward_merges_time_into_the_batch():
    x_seq = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    linear = nn.Linear(3, 5)
    shapes = []

    def watch(x):
        shapes.append(tuple(x.shape))
        return x

    for modules in (linear, [watch, linear], (linear,), nn.Sequential(linear), linear.forward):
        torch.testing.assert_close(functional.seq_to_ann_forward(x_seq, modules), linear(x_seq))
    assert shapes == [(8, 3)]


def test_seq_to_ann_forward_takes_strided_sequences_and_outputs():
    x_seq = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).transpose(0, 1)
    assert not x_seq.is_contiguous()
    doubled = functional.seq_to_ann_forward(x_seq, lambda x: (x * 2).t().contiguous().t())
    torch.testing.assert_close(doubled, 2 * x_seq)


@pytest.mark.parametrize("function", [functional.multi_step_forward, functional.seq_to_ann_forward])
@pytest.mark.parametrize("shape", [(), (3,), (0, 2, 3)])
def test_what_is_no_sequence_is_refused(function, shape):
    with pytest.raises(InputError) as caught:
        function(torch.zeros(shape), nn.Identity())
    expected = f"{function.__name__}: expected a sequence [T, N, *] with T >= 1; got shape {list(shape)}."
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("module", "given"),
    [(lambda x: x[:3], "[3, 5]"), (lambda x: x.sum(), "[]"), (lambda x: (x, x), "tuple")],
    ids=["fewer rows", "scalar", "tuple"],
)
def test_module_that_does_not_keep_the_batch_is_refused(module, given):
    with pytest.raises(InputError) as caught:
        functional.seq_to_ann_forward(torch.zeros(4, 2, 5), module)
    assert f"input [4, 2, 5] was merged to a batch of 8, but the module returned {given}" in str(caught.value)


# ------------------------------------------------------------------ nobody writes reset_net


def test_backward_twice_in_a_row_never_meets_a_freed_graph():
    class Own(Backbone):
        num_classes = 2

        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(layers.Linear(3, 2), LIFNode(v_reset=nn.Parameter(torch.zeros(2))))
            self.set_step_mode("m")

        def forward(self, x):
            return self.layers(x)

    x_seq = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    for net in (Own(), SpikingMLP(3, 2), SpikingMLP(3, 2, carry_state=True)):
        for _ in range(3):
            net(x_seq).sum().backward()
    loose = nn.Sequential(layers.Linear(3, 2), LIFNode())  # no backbone: here one must
    functional.set_step_mode(loose, "m")
    loose(x_seq).sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        loose(x_seq).sum().backward()
    functional.reset_net(loose)
    loose(x_seq).sum().backward()
