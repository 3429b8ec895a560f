"""What holds for every family of networks."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn

from jellyfit import functional, layers
from jellyfit.backbones import ImageBackbone, PLIFNet
from jellyfit.checkpointing import Checkpointed
from jellyfit.errors import InputError, InputTypeError
from jellyfit.neurons import LIFNode, ParametricLIFNode
from tests.backbones.families import FAMILIES, WITHOUT_CHECKPOINTS, each_family, frames, made, neuron


def nodes_of(net):
    return [node for _, node in functional.named_neurons(net) if node.fires]


# ------------------------------------------------------------------ what goes in and out


@each_family
def test_a_sequence_gives_a_value_a_class_and_step_and_the_same_again(build, frame):
    net = made(build).eval()
    x_seq = frames(4, 2, frame)
    y_seq = net(x_seq)
    assert net.num_classes == 3 and net.step_mode == "m"
    assert y_seq.shape == (4, 2, 3)
    assert torch.equal(net(x_seq), y_seq)
    assert y_seq.std(0).max() > 0, "nothing changes over time"
    assert y_seq.std(1).max() > 0, "nothing depends on the input"


@each_family
def test_single_steps_give_the_same(build, frame):
    net = made(build).eval()
    x_seq = frames(4, 2, frame)
    expected = net(x_seq)
    net.set_step_mode("s")
    for _ in range(2):
        functional.reset_net(net)
        torch.testing.assert_close(torch.stack([net(x) for x in x_seq]), expected, rtol=1e-4, atol=1e-5)


@each_family
def test_one_step_one_sample_and_none(build, frame):
    net = made(build).eval()
    x_seq = frames(4, 3, frame)
    whole = net(x_seq)
    torch.testing.assert_close(net(x_seq[:1]), whole[:1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net(x_seq[:, :1]), whole[:, :1], rtol=1e-4, atol=1e-5)
    assert net(x_seq[:, :0]).shape == (4, 0, 3)


@each_family
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_dtypes(build, frame, dtype):
    net = made(build).to(dtype)
    y_seq = net(frames(3, 2, frame).to(dtype))
    assert y_seq.dtype == dtype
    assert y_seq.isfinite().all()
    y_seq.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@each_family
def test_gradients_reach_every_parameter(build, frame):
    net = made(build, neuron=ParametricLIFNode(v_threshold=0.2, backend="torch"))
    y_seq = net(frames(4, 3, frame))
    (y_seq * torch.randn_like(y_seq)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    silent = [n for n, p in net.named_parameters() if p.ndim > 1 and not p.grad.any()]
    assert silent == []


@each_family
def test_carried_state_makes_pieces_equal_one_long_sequence(build, frame):
    x_seq = frames(6, 2, frame)
    expected = made(build).eval()(x_seq)
    net = made(build, carry_state=True).eval()
    pieces = torch.cat([net(piece) for piece in x_seq.split([2, 1, 3])])
    torch.testing.assert_close(pieces, expected, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ neurons and norms


@each_family
def test_every_neuron_is_a_copy_of_the_template(build, frame):
    template = ParametricLIFNode(3.0, v_threshold=0.7, v_reset=None, backend="torch")
    nodes = nodes_of(made(build, neuron=template))
    assert len(nodes) > 1
    assert all(type(node) is ParametricLIFNode and node.v_threshold == 0.7 and node.v_reset is None for node in nodes)
    assert len({id(node.w) for node in [template, *nodes]}) == len(nodes) + 1


@each_family
@pytest.mark.parametrize("bad", [LIFNode, "LIFNode", nn.ReLU()], ids=["class", "name", "another module"])
def test_what_is_no_neuron_is_refused(build, frame, bad):
    with pytest.raises(InputTypeError, match="expected a neuron such as LIFNode"):
        build(neuron=bad)


with_norm = pytest.mark.parametrize("name", [name for name in FAMILIES if "former" not in name])


@with_norm
def test_norms_are_of_the_class_or_function_given(name):
    build, frame = FAMILIES[name]
    made_for = []
    plain = layers.BatchNorm1d if name == "recurrent" else layers.BatchNorm2d
    effective = layers.TemporalEffectiveBatchNorm1d if name == "recurrent" else layers.TemporalEffectiveBatchNorm2d

    def own(channels):
        made_for.append(channels)
        return effective(4, channels)

    net = made(build, norm=own)
    norms = [module for module in net.modules() if isinstance(module, plain)]
    assert [norm.num_features for norm in norms] == made_for
    assert all(type(norm) is effective for norm in norms)
    assert net(frames(4, 2, frame)).shape == (4, 2, 3)
    nearly = made(build, norm=partial(plain, momentum=0.3))
    assert all(module.momentum == 0.3 for module in nearly.modules() if isinstance(module, plain))


@pytest.mark.parametrize("name", [n for n in FAMILIES if "former" not in n and n != "recurrent"])
def test_threshold_dependent_norms_know_the_threshold(name):
    build, _ = FAMILIES[name]
    net = made(build, norm=layers.ThresholdDependentBatchNorm2d)
    norms = [m for m in net.modules() if isinstance(m, layers.ThresholdDependentBatchNorm2d)]
    assert len(norms) > 1
    assert all(norm.v_th == 0.2 for norm in norms)
    added = {norm.alpha for norm in norms}
    assert added == ({1.0, 2**-0.5} if "resnet" in name else {1.0})


def test_norms_that_cannot_work_are_refused():
    build, _ = FAMILIES["resnet"]
    with pytest.raises(InputTypeError, match=r"made BatchNorm2d; expected a norm with a step mode"):
        build(norm=nn.BatchNorm2d)
    many = LIFNode(v_threshold=torch.ones(4, 1, 1))
    with pytest.raises(InputError, match=r"starts at one threshold, but the neuron has \[4, 1, 1\]"):
        build(norm=layers.ThresholdDependentBatchNorm2d, neuron=many)


# ------------------------------------------------------------------ copies, memory, export


@each_family
def test_copies_and_pickles_right_after_a_training_step(build, frame):
    net = made(build, carry_state=True).eval()
    x_seq = frames(3, 2, frame)
    net(x_seq.clone().requires_grad_()).sum().backward()
    twins = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    expected = net(x_seq)
    for twin in twins:
        assert torch.equal(twin(x_seq), expected)
    fresh = build(neuron=neuron()).eval()
    fresh.load_state_dict(net.state_dict())
    functional.reset_net(net)
    assert torch.equal(fresh(x_seq), net(x_seq))


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in WITHOUT_CHECKPOINTS])
def test_blocks_computed_again_change_no_number(name):
    build, frame = FAMILIES[name]
    found = []
    for wanted in (False, True):
        net = made(build, checkpoint_blocks=wanted)
        x_seq = frames(3, 2, frame).requires_grad_()
        kept = []
        torch.manual_seed(2)  # for dropout
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            y_seq = net(x_seq)
        (y_seq * torch.arange(3.0)).sum().backward()
        buffers = dict(net.named_buffers())
        found.append((y_seq, x_seq.grad, [p.grad for p in net.parameters()], buffers, sum(kept)))
    (y1, x1, p1, b1, kept1), (y2, x2, p2, b2, kept2) = found
    assert torch.equal(y1, y2)
    torch.testing.assert_close(x1, x2)
    for left, right in zip(p1, p2, strict=True):
        torch.testing.assert_close(left, right)
    for key in b1:
        assert torch.equal(b1[key], b2[key]), f"{key}: statistics are updated once"
    assert kept2 < 0.7 * kept1


@each_family
def test_a_network_computed_again_in_pieces_of_time(build, frame):
    x_seq = frames(4, 2, frame)
    expected = made(build).eval()(x_seq)
    net = Checkpointed(made(build).eval(), chunks=2)
    y_seq = net(x_seq)
    torch.testing.assert_close(y_seq, expected, rtol=1e-4, atol=1e-5)
    y_seq.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@each_family
def test_fused_kernels_give_the_same_as_torch(build, frame):
    x_seq = frames(3, 2, frame)
    outputs = [made(build, neuron=neuron(backend=backend))(x_seq) for backend in ("torch", "auto")]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ input that does not fit


@each_family
def test_input_that_does_not_fit_is_refused_with_both_shapes(build, frame):
    net = made(build)
    for shape in [(2, *frame), (3, 2, frame[0] + 1, *frame[1:]), (3, 2)]:
        with pytest.raises(InputError) as caught:
            net(torch.zeros(shape))
        message = str(caught.value)
        assert message.startswith(f"{type(net).__name__}: got shape {list(shape)}; expected [T, N, ")
        assert "for still images set the task's T" in message
    net.set_step_mode("s")
    with pytest.raises(InputError, match=r"expected \[N, "):
        net(torch.zeros(3, 2, *frame))


@pytest.mark.parametrize("name", ["vgg", "spikformer", "plif", "sew7b"])
def test_frames_that_are_too_small_are_refused(name):
    build, frame = FAMILIES[name]
    with pytest.raises(InputError, match=r"expected \[T, N, C, H, W\] with C = [23], H"):
        made(build)(torch.zeros(3, 2, frame[0], 3, 3))


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "recurrent"])
def test_frames_are_what_every_other_family_takes(name):
    build, frame = FAMILIES[name]
    net = build(neuron=neuron())
    assert isinstance(net, ImageBackbone)
    assert net.in_channels == frame[0]


def test_of_nested_backbones_a_block_may_be_one():
    class Pair(ImageBackbone):
        def __init__(self):
            super().__init__(3, 2, checkpoint_blocks=True)
            self.blocks = nn.ModuleList([made(FAMILIES["resnet"][0])])
            self.set_step_mode("m")

        def forward(self, x):
            self.check_frames(x)
            return self.run_blocks(self.blocks, x)

    net, alone = Pair().eval(), made(FAMILIES["resnet"][0]).eval()
    x_seq = frames(3, 2, (2, 12, 9))
    y_seq = net(x_seq)
    assert torch.equal(y_seq, alone(x_seq))
    y_seq.sum().backward()
    alone(x_seq).sum().backward()
    for mine, theirs in zip(net.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_a_neuron_of_ones_own_can_be_the_template():
    class Own(LIFNode):
        def neuronal_charge(self, x):
            self.v = self.v + x * x

    assert {type(node) for node in nodes_of(PLIFNet("mnist", channels=2, neuron=Own(backend="torch")))} == {Own}
