import copy
import re

import pytest
import torch
from torch import nn

from jellyfit import functional, layers
from jellyfit.errors import InputError, InputTypeError
from jellyfit.losses import PerStepCrossEntropy
from jellyfit.neurons import IFNode, LIFNode


def seeded(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------ batch norm merged into convolutions


def worn(norm):
    """A batch norm that has seen something."""
    generator = torch.Generator().manual_seed(3)
    for name, value in norm.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) + (0.5 if name != "running_mean" else -0.5))
    return norm


CONVOLUTIONS = [
    (nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), (4, 2, 7)),
    (nn.Conv2d(2, 4, 3, bias=False, groups=2), nn.BatchNorm2d(4), (4, 2, 7, 7)),
    (nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3, affine=False), (4, 2, 4, 4, 4)),
    (nn.ConvTranspose2d(2, 3, 3), nn.BatchNorm2d(3), (4, 2, 5, 5)),
    (layers.Conv2d(2, 3, 3), layers.BatchNorm2d(3), (4, 2, 7, 7)),
]


@pytest.mark.parametrize(("conv", "bn", "shape"), CONVOLUTIONS, ids=lambda value: type(value).__name__)
def test_merged_layer_gives_what_both_gave(conv, bn, shape):
    conv, bn = copy.deepcopy(conv).eval(), worn(copy.deepcopy(bn)).eval()
    before = conv.weight.clone()
    fused, x = functional.fuse_conv_bn(conv, bn), seeded(*shape)
    torch.testing.assert_close(fused(x), bn(conv(x)), rtol=1e-4, atol=1e-5)
    assert type(fused) is type(conv) and torch.equal(conv.weight, before)


def test_step_mode_survives_the_merge():
    conv, bn = layers.Conv2d(2, 3, 3, step_mode="m").eval(), worn(layers.BatchNorm2d(3, step_mode="m")).eval()
    x_seq = seeded(5, 4, 2, 7, 7)
    torch.testing.assert_close(functional.fuse_conv_bn(conv, bn)(x_seq), bn(conv(x_seq)), rtol=1e-4, atol=1e-5)


def test_pairs_are_merged_throughout_a_copy_of_the_network():
    net = nn.Sequential(
        layers.Conv2d(2, 3, 3),
        worn(layers.BatchNorm2d(3)),
        IFNode(backend="torch"),
        layers.Sequential(layers.Conv2d(3, 4, 3), worn(layers.BatchNorm2d(4)), IFNode(backend="torch")),
        worn(layers.BatchNorm2d(4)),
    ).eval()
    x = 2.0 * seeded(3, 2, 9, 9)
    fused = functional.fuse_conv_bn_eval_modules(net)
    assert [type(module).__name__ for module in fused] == ["Conv2d", "Identity", "IFNode", "Sequential", "BatchNorm2d"]
    assert type(fused[3][1]) is nn.Identity and type(net[1]) is layers.BatchNorm2d
    torch.testing.assert_close(fused(x), net(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("conv", "bn", "message"),
    [
        (nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3).eval(), "in training mode"),
        (nn.Conv2d(2, 3, 3).eval(), nn.BatchNorm2d(3), "in training mode"),
        (nn.Conv2d(2, 3, 3).eval(), nn.BatchNorm2d(4).eval(), "gives 3 channels, the batch norm takes 4"),
        (nn.Conv2d(2, 3, 3).eval(), nn.BatchNorm2d(3, track_running_stats=False).eval(), "running statistics"),
    ],
)
def test_what_cannot_be_merged_is_refused(conv, bn, message):
    with pytest.raises(InputError, match=message):
        functional.fuse_conv_bn(conv, bn)


# ------------------------------------------------------------------ weights, thresholds, reset


def test_kaiming_weights_have_the_variance_that_torch_starts_from():
    net = nn.Sequential(nn.Linear(200, 300), nn.Sequential(layers.Conv2d(20, 300, 3)), nn.BatchNorm2d(3))
    before = [parameter.detach().clone() for parameter in net.parameters()]
    torch.manual_seed(0)
    functional.kaiming_normal_conv_linear_weight(net)
    for module, fan_in in ((net[0], 200), (net[1][0], 180)):
        assert module.weight.var().item() == pytest.approx(1 / (3 * fan_in), rel=0.05)
        assert (module.weight.abs() > 2.5 / (3 * fan_in) ** 0.5).any()  # the uniform distribution ends at 1.73
    for i in (1, 3, 4, 5):
        assert torch.equal(list(net.parameters())[i], before[i])


def test_threshold_margin_is_learned_from_and_not_saved():
    node = LIFNode(backend="torch")
    functional.set_threshold_margin(node, torch.tensor([[0, 1], [1, 0]]))
    torch.testing.assert_close(node.v_threshold, torch.tensor([[0.9, 1.1], [1.1, 0.9]]))
    assert node(torch.full((2, 2), 2.0)).tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert not node.state_dict()
    functional.set_threshold_margin(node.eval(), torch.tensor([[0, 1]]), eval_threshold=0.7)
    assert node.v_threshold == 0.7


@pytest.mark.parametrize("threshold", [torch.ones(3), nn.Parameter(torch.ones(()))], ids=["buffer", "parameter"])
def test_threshold_margin_does_not_overwrite_a_learned_threshold(threshold):
    with pytest.raises(InputError, match="expected a number"):
        functional.set_threshold_margin(LIFNode(v_threshold=threshold), torch.eye(3))


def test_collected_modules_are_those_that_a_reset_reaches():
    net = nn.ModuleDict({"a": IFNode(), "b": nn.Sequential(nn.Linear(1, 1), LIFNode())})
    collected = functional.collect_reset_modules(net)
    assert collected == (net["a"], net["b"][1])
    for node in collected:
        node(torch.ones(1, 1))
    functional.reset_collected_modules(collected)
    assert [node.v for node in collected] == [0.0, 0.0]


# ------------------------------------------------------------------ losses and labels


def test_first_spikes_are_found_also_where_spikes_are_counts():
    spikes = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    assert functional.first_spike_index(spikes).float().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert functional.first_spike_index(spikes.bool()).sum() == 2


def test_similarity_of_vectors_with_themselves():
    x = seeded(4, 6)
    torch.testing.assert_close(functional.kernel_dot_product(x, x, "gaussian", 0.3).diagonal(), torch.ones(4))
    torch.testing.assert_close(functional.kernel_dot_product(x, x).diagonal(), x.square().sum(1))
    gaussian = functional.kernel_dot_product(x, seeded(2, 6, seed=1), "gaussian", 1.5)
    torch.testing.assert_close(gaussian, torch.exp(-torch.cdist(x, seeded(2, 6, seed=1)).square() / (2 * 1.5**2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: functional.kernel_dot_product(seeded(2, 3), seeded(2, 4)), "got [2, 3] and [2, 4]"),
        (lambda: functional.kernel_dot_product(seeded(2, 3), seeded(2, 3), "cosine"), "kernel='cosine'"),
        (lambda: functional.kernel_dot_product(seeded(2, 3), seeded(2, 3), "gaussian"), "takes 1 numbers; got 0"),
        (lambda: functional.kernel_dot_product(seeded(2, 3), seeded(2, 3), "linear", 2.0), "takes 0 numbers; got 1"),
        (lambda: functional.spike_similar_loss(seeded(2, 3), torch.zeros(3)), "got [2, 3] and [3]"),
        (lambda: functional.spike_similar_loss(seeded(2, 3), torch.zeros(2), "linear", "mae"), "loss_type='mae'"),
        (lambda: functional.spike_similar_loss(seeded(2, 3), torch.zeros(2), "polynomial", "bce", 2.0), "exceeds"),
        (lambda: functional.redundant_one_hot(torch.tensor([3]), 3, 2), "labels [N] from 0 to 2"),
        (lambda: functional.redundant_one_hot(torch.tensor([[1]]), 3, 2), "got shape [1, 1]"),
        (lambda: functional.redundant_one_hot(torch.tensor([1]), 3, 0), "n=0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(call, message):
    with pytest.raises(InputError, match=re.escape(message)):
        call()


@pytest.mark.parametrize("loss_type", ["mse", "l1", "bce"])
def test_spikes_that_are_alike_within_classes_alone_lose_nothing(loss_type):
    spikes, labels = torch.eye(3)[[0, 1, 0, 2]].repeat(1, 5), torch.tensor([0, 1, 0, 2])
    assert functional.spike_similar_loss(spikes, labels, "linear", loss_type).item() == pytest.approx(0.0, abs=1e-5)
    assert functional.spike_similar_loss(spikes, labels.flip(0), "linear", loss_type).item() > 0.1


def test_silent_samples_have_a_similarity_loss_and_a_finite_gradient():
    spikes = torch.zeros(3, 4, requires_grad=True)
    loss = functional.spike_similar_loss(spikes, torch.tensor([0, 1, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(5 / 9) and spikes.grad.isfinite().all()


def test_redundant_labels_of_an_empty_batch():
    assert functional.redundant_one_hot(torch.zeros(0, dtype=torch.int64), 3, 2).shape == (0, 6)


def test_tet_loss_is_that_of_the_losses():
    y_seq, target = seeded(4, 5, 3), torch.tensor([0, 2, 1, 1, 0])
    assert torch.equal(
        functional.temporal_efficient_training_cross_entropy(y_seq, target), PerStepCrossEntropy()(y_seq, target)
    )
    with pytest.raises(InputTypeError):
        functional.temporal_efficient_training_cross_entropy(y_seq, target.float())
