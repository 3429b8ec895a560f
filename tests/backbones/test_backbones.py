import copy
import io
import pickle

import pytest
import torch
from torch import nn

from jellyfit import functional, layers
from jellyfit.backbones import Backbone, SpikingConvNet, SpikingMLP, neuron_from
from jellyfit.errors import InputError, InputTypeError, StateError
from jellyfit.neurons import BaseNode, IFNode, LIFNode, ParametricLIFNode

NETS = {
    "conv": (lambda **k: SpikingConvNet((2, 8, 9), 5, channels=(4, 6), hidden=(7,), **k), (2, 8, 9)),
    "mlp": (lambda **k: SpikingMLP(12, 5, hidden=(16,), **k), (12,)),
}
each_net = pytest.mark.parametrize(("build", "frame"), NETS.values(), ids=NETS)


def frames(steps, batch, frame, seed=0):
    return 2.0 * torch.randn(steps, batch, *frame, generator=torch.Generator().manual_seed(seed))


def made(build, **options):
    torch.manual_seed(0)
    return build(neuron=LIFNode(v_threshold=0.1), spiking_output=False, **options)


def neurons_of(net):
    return [module for module in net.modules() if isinstance(module, BaseNode)]


# ------------------------------------------------------------------ what goes in and out


@each_net
@pytest.mark.parametrize("spiking_output", [False, True])
def test_sequence_in_one_value_a_class_and_step_out(build, frame, spiking_output):
    net = build(spiking_output=spiking_output)
    assert net.num_classes == 5 and net.step_mode == "m"
    y_seq = net(frames(3, 2, frame))
    assert y_seq.shape == (3, 2, 5)
    assert set(y_seq.unique().tolist()).issubset({0.0, 1.0}) == spiking_output
    assert isinstance(list(net.modules())[-2], BaseNode) == spiking_output  # the last module is its surrogate
    net.set_step_mode("s")
    functional.reset_net(net)
    assert net(frames(1, 2, frame)[0]).shape == (2, 5)


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, [784 * 10, 10]),
        ({"bias": False}, [784 * 10]),
        ({"hidden": (20, 30), "bias": False}, [784 * 20, 20 * 30, 30 * 10]),
    ],
)
def test_mlp_has_the_layers_it_was_asked_for(options, parameters):
    net = SpikingMLP(784, 10, **options)
    assert [p.numel() for p in net.parameters()] == parameters
    assert len(neurons_of(net)) == 1 + len(options.get("hidden", ()))
    assert net(torch.rand(2, 3, 1, 28, 28)).shape == (2, 3, 10)  # frames are flattened


def test_conv_net_has_the_layers_it_was_asked_for():
    net = SpikingConvNet((1, 17, 8), 3, channels=(4, 5, 6), hidden=(7, 8))
    kinds = [
        type(m) for m in net.modules() if isinstance(m, (layers.Conv2d, layers.Linear, BaseNode, layers.MaxPool2d))
    ]
    assert kinds == [layers.Conv2d, LIFNode, layers.MaxPool2d] * 3 + [layers.Linear, LIFNode] * 2 + [layers.Linear]
    assert [m.out_features for m in net.modules() if isinstance(m, nn.Linear)] == [7, 8, 3]
    assert next(m for m in net.modules() if isinstance(m, nn.Linear)).in_features == 6 * 2 * 1  # 17x8 halved thrice


# ------------------------------------------------------------------ state


@each_net
def test_same_input_gives_the_same_output_twice(build, frame):
    net = made(build).eval()
    x_seq = frames(4, 2, frame)
    first = net(x_seq)
    assert torch.equal(net(x_seq), first)
    assert first.std(0).max() > 0  # the output changes over time: state matters


@each_net
def test_another_batch_size_length_or_dtype_just_works(build, frame):
    net = made(build).eval()
    x_seq = frames(4, 3, frame)
    whole = net(x_seq)
    for batch in (slice(0, 1), slice(0, 2), slice(0, 3)):
        torch.testing.assert_close(net(x_seq[:, batch]), whole[:, batch], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net(x_seq[:2]), whole[:2])
    assert net.double()(x_seq.double()).dtype == torch.float64


@each_net
def test_carried_state_makes_pieces_equal_one_long_sequence(build, frame):
    whole_net, net = made(build).eval(), made(build, carry_state=True).eval()
    x_seq = frames(9, 2, frame)
    pieces = torch.cat([net(piece) for piece in x_seq.split([2, 1, 4, 2])])
    torch.testing.assert_close(pieces, whole_net(x_seq), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(net(x_seq), pieces)
    functional.reset_net(net)
    torch.testing.assert_close(net(x_seq), pieces, rtol=1e-5, atol=1e-6)
    assert "carry_state=True" in repr(net)


@each_net
def test_carried_state_is_cut_from_the_past_so_memory_stays_constant(build, frame):
    net = made(build, carry_state=True)
    first = frames(2, 2, frame).requires_grad_()
    net(first)
    net(frames(2, 2, frame, seed=1)).sum().backward()
    assert first.grad is None

    def graph_nodes():
        """Nodes of the graph behind everything that the network remembers."""
        pending, seen = [m.v.grad_fn for m in neurons_of(net)], set()
        while pending:
            node = pending.pop()
            if node is not None and node not in seen:
                seen.add(node)
                pending.extend(parent for parent, _ in node.next_functions)
        return len(seen)

    sizes = []
    for seed in range(3):
        net(frames(2, 2, frame, seed=seed))
        sizes.append(graph_nodes())
    assert sizes[0] == sizes[1] == sizes[2] > 0


def test_carried_state_of_another_batch_size_is_an_error_that_names_the_layer():
    net = SpikingMLP(4, 2, carry_state=True)
    net(torch.zeros(2, 3, 4))
    with pytest.raises(StateError, match=r"^'head\.2' \(LIFNode.*\[3, 2\].*\[1, 2\].*reset_net"):
        net(torch.zeros(2, 1, 4))


@each_net
def test_single_step_mode_equals_multi_step_mode(build, frame):
    net = made(build).eval()
    x_seq = frames(5, 2, frame)
    layer_by_layer = net(x_seq)
    net.set_step_mode("s")
    assert {m.step_mode for m in net.modules() if hasattr(m, "step_mode")} == {"s"}
    for _ in range(2):  # in single-step mode the caller says where a sequence begins
        functional.reset_net(net)
        step_by_step = torch.stack([net(x) for x in x_seq])
        torch.testing.assert_close(step_by_step, layer_by_layer, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(torch.stack([net(x) for x in x_seq]), layer_by_layer)


@each_net
def test_gradient_reaches_every_parameter(build, frame):
    net = build(neuron=ParametricLIFNode(v_threshold=0.3))
    net(frames(4, 3, frame)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert all(p.grad.any() for name, p in net.named_parameters() if name.endswith((".w", ".weight")))


# ------------------------------------------------------------------ the neuron template


@each_net
def test_neuron_template_gives_independent_neurons_of_its_kind(build, frame):
    template = ParametricLIFNode(3.0, v_threshold=nn.Parameter(torch.tensor(0.8)), v_reset=None)
    template(torch.full((7, 11), 0.1))  # used before: its state is not handed on
    assert neuron_from(template).v == 0.0
    net = build(neuron=template, spiking_output=True)
    nodes = neurons_of(net)
    assert len(nodes) >= 2 and all(type(node) is ParametricLIFNode and node.v_reset is None for node in nodes)
    assert len({id(node.w) for node in [template, *nodes]}) == len(nodes) + 1
    assert len({id(node.v_threshold) for node in [template, *nodes]}) == len(nodes) + 1
    net(frames(3, 2, frame))
    assert template.v.shape == (7, 11)
    with torch.no_grad():
        nodes[0].w.fill_(0.0)
    torch.testing.assert_close(nodes[1].tau, torch.tensor(3.0))


def test_default_neuron_is_a_fresh_lif():
    first, second = neuron_from(None), neuron_from(None)
    assert type(first) is LIFNode and first is not second


@pytest.mark.parametrize("bad", [LIFNode, "LIFNode", nn.ReLU()], ids=["class", "name", "another module"])
@each_net
def test_neuron_that_is_none_is_refused(build, frame, bad):
    with pytest.raises(InputTypeError, match=r"neuron=.*expected a neuron such as LIFNode\(tau=2.0\)"):
        build(neuron=bad)


# ------------------------------------------------------------------ copies


@each_net
def test_copies_pickles_and_checkpoints_right_after_a_forward_with_gradients(build, frame):
    net = made(build, carry_state=True).eval()
    x_seq = frames(3, 2, frame)
    net(x_seq.clone().requires_grad_())
    twins = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    following = net(x_seq)
    for twin in twins:
        assert torch.equal(twin(x_seq), following)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    fresh = build(neuron=LIFNode(v_threshold=0.1), spiking_output=False, carry_state=True).eval()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    functional.reset_net(net)
    assert torch.equal(fresh(x_seq), net(x_seq))


@each_net
def test_a_copy_still_resets_itself(build, frame):
    net = copy.deepcopy(made(build).eval())
    x_seq = frames(3, 2, frame)
    assert torch.equal(net(x_seq), net(x_seq))


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"input_size": (2, 8, 8), "num_classes": 0}, r"num_classes=\[0\]\): every size must be at least 1"),
        ({"input_size": (0, 8, 8), "num_classes": 2}, r"input_size=\[0, 8, 8\]\)"),
        ({"input_size": (2, 8, 8), "num_classes": 2, "channels": (4, 0)}, r"channels=\[4, 0\]\)"),
        ({"input_size": (2, 8, 8), "num_classes": 2, "hidden": (0,)}, r"hidden=\[0\]\)"),
        ({"input_size": (2, 3, 8), "num_classes": 2}, r"2 stages halve a frame of 3x8 pixels down to nothing"),
        ({"input_size": (8, 8), "num_classes": 2}, r"input_size=\[8, 8\]\): expected channels, height and width"),
    ],
)
def test_conv_net_that_cannot_be_built_is_refused(arguments, told):
    with pytest.raises(InputError, match=r"SpikingConvNet\(.*" + told):
        SpikingConvNet(**arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"in_features": 0, "num_classes": 2}, r"in_features=\[0\]\)"),
        ({"in_features": 3, "num_classes": -1}, r"num_classes=\[-1\]\)"),
        ({"in_features": 3, "num_classes": 2, "hidden": (4, 0)}, r"hidden=\[4, 0\]\)"),
    ],
)
def test_mlp_that_cannot_be_built_is_refused(arguments, told):
    with pytest.raises(InputError, match=r"SpikingMLP\(" + told):
        SpikingMLP(**arguments)


@each_net
@pytest.mark.parametrize("change", ["another size", "no time axis"])
def test_input_that_does_not_fit_is_refused_with_both_shapes(build, frame, change):
    net = build()
    shape = (3, 2, *frame[:-1], frame[-1] + 4) if change == "another size" else (2, *frame)
    with pytest.raises(InputError) as caught:
        net(torch.zeros(shape))
    assert f"got shape {list(shape)}; expected [T, N, " in str(caught.value)
    assert "for still images set the task's T" in str(caught.value)
    net.set_step_mode("s")
    with pytest.raises(InputError, match=r"expected \[N, "):
        net(torch.zeros(3, 2, *frame))


def test_subclass_writes_only_its_modules_and_forward():
    class Own(Backbone):
        def __init__(self):
            super().__init__()
            self.num_classes = 3
            self.body = nn.Sequential(layers.Linear(2, 3), layers.MultiStepContainer(IFNode()))
            self.set_step_mode("m")

        def forward(self, x):
            return self.body(x)

    net = Own()
    x_seq = frames(4, 2, (2,))
    assert torch.equal(net(x_seq), net(x_seq))
    assert torch.equal(net(x=x_seq), net(x_seq))  # however it is called
    assert net.body[1].step_mode == "m" and net.body[1][0].step_mode == "s"


class Nested(Backbone):
    """A backbone around another, which it calls once or, for a pair of inputs, twice."""

    def __init__(self, inner, carry_state=False):
        super().__init__(carry_state)
        self.num_classes = inner.num_classes
        self.inner = inner
        self.set_step_mode("m")

    def forward(self, x):
        if isinstance(x, tuple):
            return self.inner(x[0]), self.inner(x[1])
        return self.inner(x)


def small(**options):
    return SpikingMLP(4, 3, hidden=(32,), **options)


def test_of_nested_backbones_the_outer_one_decides_whether_the_state_is_carried():
    x_seq = frames(6, 2, (4,))
    for depth in (1, 2):
        whole, carrying = made(small), made(small)
        resetting = made(small, carry_state=True)
        for level in range(depth):
            carrying = Nested(carrying, carry_state=level == depth - 1)
            resetting = Nested(resetting)
        expected = whole(x_seq)
        assert torch.equal(torch.cat([carrying(piece) for piece in x_seq.split(2)]), expected)
        assert not torch.equal(torch.cat([whole(piece) for piece in x_seq.split(2)]), expected)
        assert torch.equal(resetting(x_seq), expected)
        assert torch.equal(resetting(x_seq), expected)


def test_an_inner_backbone_called_twice_or_alone_starts_anew():
    net = Nested(made(small))
    x_seq = frames(6, 2, (4,))
    first, second = net((x_seq, x_seq))
    assert torch.equal(first, second)
    carrying = Nested(made(small), carry_state=True)
    with pytest.raises(InputError):
        carrying(frames(6, 2, (5,)))
    carrying(x_seq)
    assert torch.equal(carrying.inner(x_seq), first)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch.compile's own doing
def test_compiled_backbones_reset_and_carry_too():
    x_seq = frames(6, 2, (4,))
    for carry_state in (False, True):
        net = Nested(made(small), carry_state)
        compiled = torch.compile(copy.deepcopy(net), backend="eager", fullgraph=True)
        with torch.no_grad():
            for _ in range(2):
                assert torch.equal(compiled(x_seq), net(x_seq))


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_an_exported_network_gives_the_same_for_other_input_and_remembers_nothing(training, tmp_path):
    net = SpikingConvNet((2, 12, 12), 3, channels=[4], neuron=LIFNode(v_threshold=0.2)).train(training)
    x, other = (torch.rand(4, 2, 2, 12, 12, generator=torch.Generator().manual_seed(i)) for i in range(2))
    program = torch.export.export(net, (x,))
    torch.export.save(program, tmp_path / "net.pt2")
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    expected = copy.deepcopy(net)(other)
    torch.testing.assert_close(loaded(other), expected)
    if not training:  # batch statistics move on
        torch.testing.assert_close(loaded(other), expected)
    assert all(value == 0.0 for node in functional.named_neurons(net) for value in [node[1].v])
    with pytest.raises(Exception, match="(?i)shape|size|guard"):
        loaded(torch.rand(5, 2, 2, 12, 12))  # made for T = 4
