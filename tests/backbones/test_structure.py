"""What each family is made of: layers, parameters, how blocks start, which options exist."""

from __future__ import annotations

import re

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from jellyfit import backbones, functional, layers
from jellyfit.backbones import (
    VGGSNN,
    Backbone,
    MSResNet,
    PLIFNet,
    QKFormer,
    SEW7BNet,
    SEWResNet,
    Spikformer,
    SpikingConvNet,
    SpikingRecurrentNet,
    SpikingResNet,
    SpikingVGG,
)
from jellyfit.errors import ConfigError, InputError
from jellyfit.neurons import IFNode, LIFNode, NonSpikingLIFNode, ParametricLIFNode
from jellyfit.surrogates import ATan, Rect, Sigmoid
from tests.backbones.families import FAMILIES, frames, made, neuron


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def fires(net):
    return sum(node.fires for _, node in functional.named_neurons(net))


# ------------------------------------------------------------------ the numbers that docstrings tell

RESNETS = {18: "11,689,512", 34: "21,797,672", 50: "25,557,032", 101: "44,549,160", 152: "60,192,808"}
TOLD = [
    (VGGSNN, {}, "9,271,498"),
    *[(SpikingResNet, {"depth": depth}, told) for depth, told in RESNETS.items()],
    *[(SEWResNet, {"depth": depth}, told) for depth, told in RESNETS.items()],
    (SpikingVGG, {"depth": 11}, "132,868,840"),
    (SpikingVGG, {"depth": 13}, "133,053,736"),
    (SpikingVGG, {"depth": 16}, "138,365,992"),
    (SpikingVGG, {"depth": 19}, "143,678,248"),
    (MSResNet, {"depth": 18}, "11,693,736"),
    (MSResNet, {"depth": 34}, "21,801,896"),
    (MSResNet, {"depth": 104}, "77,350,504"),
    (Spikformer, {"embed_dims": 384, "depths": 8}, "16,797,592"),
    (Spikformer, {"embed_dims": 512, "depths": 8}, "29,664,808"),
    (Spikformer, {"embed_dims": 768, "depths": 8}, "66,301,768"),
    (Spikformer, {"patch_size": 4, "num_classes": 10, "embed_dims": 384, "num_heads": 12}, "9,310,906"),
    (Spikformer, {"in_channels": 2, "num_classes": 10, "num_heads": 16, "depths": 2}, "2,563,594"),
    (QKFormer, {"num_heads": (6, 6, 6)}, "16,472,584"),
    (QKFormer, {"embed_dims": 512, "num_heads": (8, 8, 8)}, "29,077,864"),
    (QKFormer, {"embed_dims": 768, "num_heads": (12, 12, 12)}, "64,960,552"),
    (QKFormer, {"num_classes": 10, "num_heads": (8, 8, 8), "depths": (1, 1, 2), "stem": "small"}, "6,707,146"),
]
LEARNT = [  # their neurons are parameters too, which cannot be made on the meta device
    (PLIFNet, {"variant": "mnist"}, "13,201,128"),
    (PLIFNet, {"variant": "fashion_mnist"}, "13,201,128"),
    (PLIFNet, {"variant": "nmnist"}, "17,134,440"),
    (PLIFNet, {"variant": "cifar10"}, "36,720,492"),
    (PLIFNet, {"variant": "cifar10dvs"}, "4,691,818"),
    (PLIFNet, {"variant": "dvsgesture"}, "1,698,933"),
    (SEW7BNet, {"num_classes": 11}, "130,426"),
    (SEW7BNet, {"num_classes": 10, "channels": [64] * 4 + [128] * 3}, "1,192,218"),
    (SpikingRecurrentNet, {}, "108,841"),
]


@pytest.mark.parametrize(("cls", "options", "told"), TOLD + LEARNT)
def test_docstrings_tell_the_number_of_parameters(cls, options, told):
    learnt = (cls, options, told) in LEARNT
    with torch.device("cpu" if learnt else "meta"):
        net = cls(**options)
    assert f"{parameters(net):,}" == told
    assert told in " ".join(cls.__doc__.split())


def test_docstrings_tell_no_other_number_of_parameters():
    for cls in {cls for cls, _, _ in TOLD + LEARNT}:
        known = {told for each, _, told in TOLD + LEARNT if each is cls}
        assert set(re.findall(r"\d{1,3}(?:,\d{3})+", cls.__doc__)) == known


@pytest.mark.parametrize(
    ("net", "neurons"),
    [
        (lambda: PLIFNet("cifar10", channels=2), 8),
        (lambda: PLIFNet("cifar10dvs", channels=2), 6),
        *[(lambda d=d: SpikingVGG(d, 5, base_channels=1, hidden=[2, 2]), n) for d, n in ((11, 10), (13, 12), (16, 15))],
        (lambda: VGGSNN(base_channels=1), 8),
        (lambda: SpikingVGG(19, 5, base_channels=1, hidden=[2, 2]), 18),
        *[(lambda d=d: SpikingResNet(d, 5, base_channels=1), n) for d, n in ((18, 17), (34, 33), (50, 49), (101, 100))],
        *[(lambda d=d: SEWResNet(d, 5, base_channels=1), n) for d, n in ((18, 20), (34, 36), (50, 53), (101, 104))],
        (lambda: SEW7BNet(5, channels=[4] * 7), 15),
        *[(lambda d=d: MSResNet(d, 5, base_channels=1), n) for d, n in ((18, 17), (34, 33), (104, 103))],
        (lambda: Spikformer(embed_dims=8, num_heads=1, depths=3), 5 + 3 * 5),
        (lambda: QKFormer(embed_dims=8, num_heads=(1, 1, 1)), 4 + 3 + 3 + 10 * 5),
        (lambda: SpikingRecurrentNet(hidden=[2, 2]), 2),
    ],
)
def test_number_of_neuron_layers(net, neurons):
    assert fires(net()) == neurons


def test_paths_of_learnt_weights_are_as_many_as_the_depth_says():
    for depth in (11, 13, 16, 19):
        net = SpikingVGG(depth, 5, base_channels=1, hidden=[2, 2])
        assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in net.modules()) == depth
    for depth in (18, 34, 50, 101, 152):
        net = SpikingResNet(depth, 5, base_channels=1)
        shortcuts = sum(name.endswith("downsample.0") for name, _ in net.named_modules())
        assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in net.modules()) - shortcuts == depth
    for depth in (18, 34):
        net = MSResNet(depth, 5, base_channels=1)
        shortcuts = sum(name.endswith("downsample.0") for name, _ in net.named_modules())
        assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in net.modules()) - shortcuts == depth


# ------------------------------------------------------------------ defaults and options


@pytest.mark.parametrize(
    ("net", "cls", "surrogate", "settings"),
    [
        (lambda: PLIFNet("mnist", channels=1), ParametricLIFNode, ATan, {"v_threshold": 1.0, "detach_reset": True}),
        (lambda: SpikingVGG(11, 5, base_channels=1, hidden=[]), IFNode, ATan, {"detach_reset": True}),
        (lambda: SpikingResNet(18, 5, base_channels=1), IFNode, ATan, {"detach_reset": True}),
        (lambda: SEWResNet(18, 5, base_channels=1), IFNode, ATan, {"detach_reset": True}),
        (lambda: SEW7BNet(5, channels=[2]), ParametricLIFNode, ATan, {"detach_reset": True}),
        (lambda: MSResNet(18, 5, base_channels=1), LIFNode, Rect, {"v_threshold": 0.5, "decay_input": False}),
        (lambda: QKFormer(embed_dims=8, num_heads=(1, 1, 1)), LIFNode, Sigmoid, {"tau": 2.0, "detach_reset": True}),
        (lambda: Spikformer(embed_dims=8, num_heads=1), LIFNode, Sigmoid, {"tau": 2.0, "detach_reset": True}),
        (lambda: SpikingRecurrentNet(), ParametricLIFNode, Rect, {"v_reset": None}),
    ],
)
def test_neurons_by_default_are_the_papers(net, cls, surrogate, settings):
    for _, node in functional.named_neurons(net()):
        if node.fires:
            assert type(node) is cls
            assert type(node.surrogate_function) is surrogate
            assert {name: getattr(node, name) for name in settings} == settings


def test_neurons_behind_attention_have_half_the_threshold_by_default():
    for net in (Spikformer(embed_dims=8, num_heads=1), QKFormer(embed_dims=8, num_heads=(1, 1, 1))):
        thresholds = {name.split(".")[-1]: node.v_threshold for name, node in functional.named_neurons(net)}
        assert thresholds["attn_lif"] == 0.5
        assert thresholds["proj_lif"] == 1.0


@pytest.mark.parametrize("cls", [SpikingResNet, SEWResNet, MSResNet])
@pytest.mark.parametrize("in_channels", [2, 3])
def test_stems_take_small_frames_and_large_ones(cls, in_channels):
    shapes = {}
    for stem in ("imagenet", "small"):
        net = cls(18, 5, in_channels=in_channels, base_channels=2, stem=stem, neuron=neuron()).eval()
        seen = []
        net.get_submodule("layer4").register_forward_pre_hook(lambda _, x, seen=seen: seen.append(x[0].shape[-2:]))
        net.get_submodule("layer4.0").register_forward_pre_hook(lambda _, x, seen=seen: seen.append(x[0].shape[-2:]))
        net(torch.rand(2, 1, in_channels, 32, 48))
        shapes[stem] = tuple(seen[0])
    assert shapes == {"imagenet": (2, 3), "small": (8, 12)}


def test_plif_variants_can_be_changed():
    net = PLIFNet("dvsgesture", num_classes=4, channels=3, in_channels=1, input_size=(64, 32), voting_size=5)
    assert net(torch.zeros(2, 1, 1, 64, 32)).shape == (2, 1, 4)
    assert [m.out_features for m in net.modules() if isinstance(m, nn.Linear)] == [512, 20]
    assert PLIFNet("dvsgesture", channels=1).num_classes == 11
    y_seq = PLIFNet("mnist", channels=4, dropout=0.0, neuron=neuron())(torch.rand(3, 8, 1, 28, 28))
    assert set((10 * y_seq).round(decimals=4).unique().tolist()) <= set(map(float, range(11)))  # shares of ten


def test_vgg_without_norms_and_with_another_classifier():
    net = SpikingVGG(13, 5, batch_norm=False, base_channels=2, pool_size=2, hidden=[6])
    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [(m.in_features, m.out_features) for m in net.modules() if isinstance(m, nn.Linear)] == [(64, 6), (6, 5)]
    with pytest.raises(ConfigError, match="a norm is given too"):
        SpikingVGG(13, 5, batch_norm=False, norm=layers.BatchNorm2d)


def test_paper_spikformer_pools_spikes():
    order = {}
    for before in (True, False):
        net = Spikformer(2, 4, 3, 16, 2, depths=1, pool_before_neuron=before, neuron=neuron())
        order[before] = [type(m).__name__ for m in net.patch_embed.stages[3]][2:]
        assert net(torch.rand(2, 1, 2, 8, 8)).shape == (2, 1, 3)
    assert order == {True: ["MaxPool2d", "LIFNode"], False: ["LIFNode", "MaxPool2d"]}


@pytest.mark.parametrize(("patch_size", "tokens"), [(2, (8, 16)), (4, (4, 8)), (8, (2, 4)), (16, (1, 2))])
def test_spikformer_makes_a_token_of_every_patch(patch_size, tokens):
    net = Spikformer(2, patch_size, 3, 16, 2, depths=1, neuron=neuron())
    assert net.patch_embed(torch.rand(2, 1, 2, 16, 32)).shape == (2, 1, 16, *tokens)


def test_qkformer_stages_shrink():
    for stem, size in (("imagenet", (2, 3)), ("small", (8, 12))):
        net = QKFormer(2, 3, 16, (2, 2, 2), (1, 1, 1), stem=stem, neuron=neuron())
        y = torch.rand(2, 1, 2, 32, 48)
        for name in ("patch_embed1", "patch_embed2", "patch_embed3"):
            y = net.get_submodule(name)(y)
        assert y.shape == (2, 1, 16, *size)


def test_recurrent_network_hears_its_own_spikes_and_ends_in_an_integrator():
    net = SpikingRecurrentNet(4, 3, hidden=[6], dropout=0.0, neuron=neuron())
    assert isinstance(list(net.layers)[-1], NonSpikingLIFNode)
    x_seq = torch.rand(5, 2, 4)
    with_feedback = net(x_seq)
    feedback = next(m for name, m in net.named_modules() if name.endswith("element_wise_function.linear"))
    torch.testing.assert_close(feedback.weight @ feedback.weight.T, torch.eye(6))
    with torch.no_grad():
        feedback.weight.zero_()
    assert not torch.equal(net(x_seq), with_feedback)
    without = SpikingRecurrentNet(4, 3, hidden=[6], recurrent=False, batch_norm=False)
    assert [(m.in_features, m.bias is not None) for m in without.modules() if isinstance(m, nn.Linear)] == [
        (4, True),
        (6, True),
    ]
    assert fires(SpikingRecurrentNet(4, 3, hidden=[])) == 0


# ------------------------------------------------------------------ how blocks start


def spikes_of(net, shape, seed=0):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5).float()


@pytest.mark.parametrize("template", [IFNode(), LIFNode(3.0), LIFNode(v_reset=None, v_threshold=0.3)], ids=str)
@pytest.mark.parametrize("cnf", ["ADD", "AND", "IAND"])
@pytest.mark.parametrize("depth", [18, 50])
def test_sew_blocks_start_as_their_shortcuts(depth, cnf, template):
    template.backend = "torch"
    net = SEWResNet(depth, 5, cnf, zero_init_residual=True, base_channels=2, neuron=template)
    block = net.get_submodule("layer1.1")
    x_seq = spikes_of(net, (6, 2, 2 if depth == 18 else 8, 5, 5)).requires_grad_()
    y_seq = block(x_seq)
    assert torch.equal(y_seq, x_seq)
    if cnf == "ADD":
        (gradient,) = torch.autograd.grad(y_seq.sum(), x_seq)
        torch.testing.assert_close(gradient, torch.ones_like(x_seq))
    plain = SEWResNet(depth, 5, cnf, base_channels=2, neuron=template).get_submodule("layer1.1")
    assert not torch.equal(plain(10 * x_seq), 10 * x_seq)


@pytest.mark.parametrize("depth", [18, 50])
def test_sew_iand_is_what_the_branch_does_not_veto(depth):
    net = SEWResNet(depth, 5, "IAND", base_channels=2, neuron=IFNode(backend="torch"))
    block = net.get_submodule("layer1.1")
    last = 2 if depth == 18 else 3
    norm = getattr(block, f"bn{last}")
    nn.init.zeros_(norm.weight)
    x_seq = spikes_of(net, (6, 2, 2 if depth == 18 else 8, 5, 5))
    nn.init.constant_(norm.bias, 1.0)  # the branch always fires
    assert not block(x_seq).any()


def test_zero_init_of_other_resnets():
    block = SpikingResNet(18, 5, zero_init_residual=True, base_channels=2, neuron=IFNode(backend="torch"))
    block = block.get_submodule("layer1.1")
    x_seq = spikes_of(block, (6, 2, 2, 5, 5))
    assert torch.equal(block(x_seq), x_seq)  # a spike makes the last neuron fire
    ms = MSResNet(18, 5, base_channels=2, neuron=LIFNode(backend="torch")).get_submodule("layer1.1")
    x_seq = torch.randn(6, 2, 2, 5, 5)
    assert torch.equal(ms(x_seq), x_seq)
    plain = MSResNet(18, 5, base_channels=2, zero_init_residual=False, neuron=neuron()).get_submodule("layer1.1")
    assert not torch.equal(plain(x_seq), x_seq)


def test_and_that_cannot_start_as_its_shortcut_is_refused():
    class Silent(IFNode):
        def neuronal_fire(self):
            return 0.0 * self.v

    with pytest.raises(InputError, match="Silent fires at every step at no constant input"):
        SEWResNet(18, 5, "AND", zero_init_residual=True, base_channels=1, neuron=Silent(backend="torch"))
    with pytest.raises(ConfigError, match="NeuNorm has none|GroupNorm has none"):
        SpikingResNet(
            18, 5, zero_init_residual=True, base_channels=2, norm=lambda c: layers.GroupNorm(1, c, affine=False)
        )


@pytest.mark.parametrize("cls", [SpikingVGG, SpikingResNet, SEWResNet])
def test_convolutions_start_with_the_variance_of_their_outputs(cls):
    torch.manual_seed(0)
    net = cls(11 if cls is SpikingVGG else 18, 5, base_channels=16)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() > 10_000]
    assert len(convolutions) > 5
    for conv in convolutions:
        expected = (2.0 / (conv.out_channels * conv.kernel_size[0] ** 2)) ** 0.5
        assert conv.weight.std().item() == pytest.approx(expected, rel=0.05)


# ------------------------------------------------------------------ MS ResNet-104


def test_ms_resnet_104_shrinks_shortcuts_by_averages_and_odd_frames_too():
    net = MSResNet(104, 3, base_channels=2, zero_init_residual=False, dropout=0.2, neuron=neuron()).eval()
    kinds = [type(m) for m in net.get_submodule("layer2.0.downsample")]
    assert kinds == [layers.AvgPool2d, layers.Conv2d, layers.ThresholdDependentBatchNorm2d]
    x_seq = frames(2, 2, (3, 31, 33))
    expected = net(x_seq)
    assert expected.shape == (2, 2, 3)
    net.set_step_mode("s")
    functional.reset_net(net)
    torch.testing.assert_close(torch.stack([net(x) for x in x_seq]), expected, rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------ what cannot be built


@pytest.mark.parametrize(
    ("build", "error", "told"),
    [
        (lambda: PLIFNet("cifar"), InputError, r"variant='cifar'\): expected one of 'mnist', .*'dvsgesture'"),
        (lambda: PLIFNet("mnist", channels=0), InputError, r"channels=\[0\]"),
        (lambda: PLIFNet("dvsgesture", input_size=(128, 16)), InputError, "5 stages halve such frames down to nothing"),
        (lambda: PLIFNet("mnist", num_classes=0), InputError, r"num_classes=\[0\]"),
        (lambda: SpikingVGG(12), InputError, r"depth=12\): expected one of 11, 13, 16, 19"),
        (lambda: SpikingVGG(11, hidden=[0]), InputError, r"hidden=\[0\]"),
        (lambda: SpikingResNet(20), InputError, r"SpikingResNet\(depth=20\): expected one of 18, 34, 50, 101, 152"),
        (lambda: SEWResNet(18, stem="tiny"), InputError, r"SEWResNet\(stem='tiny'\)"),
        (lambda: SEWResNet(18, cnf="XOR"), InputError, r"cnf='XOR'\): expected one of 'ADD', 'AND', 'IAND'"),
        (lambda: SpikingResNet(18, groups=2), ConfigError, "belong to the bottlenecks"),
        (lambda: SpikingResNet(18, in_channels=0), InputError, r"in_channels=\[0\]"),
        (lambda: SEW7BNet(3, [4] * 8), InputError, "8 blocks halve such frames down to nothing"),
        (lambda: MSResNet(50), InputError, r"MSResNet\(depth=50\): expected one of 18, 34, 104"),
        (lambda: Spikformer(patch_size=3), InputError, "patch_size=3"),
        (lambda: Spikformer(embed_dims=20), InputError, "expected a multiple of 8"),
        (lambda: Spikformer(embed_dims=24, num_heads=5), InputError, "multiple of num_heads"),
        (lambda: QKFormer(depths=(1, 2)), InputError, "three numbers each"),
        (lambda: QKFormer(embed_dims=12), InputError, "multiple of 8"),
        (lambda: QKFormer(qka_type="both"), InputError, "qka_type='both'"),
        (lambda: SpikingRecurrentNet(hidden=[0]), InputError, r"hidden=\[0\]"),
        (lambda: SpikingRecurrentNet(batch_norm=False, norm=layers.BatchNorm1d), ConfigError, "a norm is given too"),
        (lambda: SpikingRecurrentNet(readout_tau=1.0), InputError, "above 1"),
    ],
)
def test_what_cannot_be_built_is_refused(build, error, told):
    with pytest.raises(error, match=told):
        build()


# ------------------------------------------------------------------ from YAML


def from_yaml(class_path, **arguments):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--net", type=Backbone)
    config = parser.parse_object({"net": {"class_path": f"jellyfit.backbones.{class_path}", "init_args": arguments}})
    parser.parse_string(parser.dump(config))  # what is saved can be read again
    return parser.instantiate_classes(config).net


TEMPLATE = {"class_path": "jellyfit.neurons.ParametricLIFNode", "init_args": {"init_tau": 3.0}}
IN_YAML = [
    ("PLIFNet", {"variant": "nmnist", "num_classes": 10, "channels": 2, "input_size": [16, 16]}),
    ("SpikingVGG", {"depth": 11, "base_channels": 1, "hidden": [4]}),
    ("SpikingResNet", {"depth": 50, "base_channels": 1, "stem": "small", "checkpoint_blocks": True}),
    ("SEWResNet", {"depth": 18, "base_channels": 1, "cnf": "IAND"}),
    ("SEW7BNet", {"num_classes": 3, "channels": [2, 4], "input_size": [16, 16]}),
    ("MSResNet", {"depth": 18, "base_channels": 1}),
    ("Spikformer", {"embed_dims": 8, "num_heads": 2, "patch_size": 4}),
    ("QKFormer", {"embed_dims": 8, "num_heads": [1, 1, 1], "depths": [1, 1, 1], "carry_state": True}),
    ("SpikingRecurrentNet", {"hidden": [4, 4]}),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("class_path", "arguments"), IN_YAML, ids=[name for name, _ in IN_YAML])
def test_networks_can_be_written_in_yaml(class_path, arguments):
    net = from_yaml(class_path, **arguments, neuron=TEMPLATE)
    assert type(net) is getattr(backbones, class_path)
    nodes = [node for _, node in functional.named_neurons(net) if node.fires]
    assert all(type(node) is ParametricLIFNode for node in nodes)
    assert nodes[0].tau.item() == pytest.approx(3.0)
    for name, value in arguments.items():
        if hasattr(net, name) and isinstance(value, (int, bool, str)):
            assert getattr(net, name) == value


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_norms_can_be_written_in_yaml():
    path = "jellyfit.layers.ThresholdDependentBatchNorm2d"
    net = from_yaml("SpikingResNet", depth=18, base_channels=1, norm=path)
    assert {type(m).__name__ for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {path.split(".")[-1]}
    slow = {"class_path": "jellyfit.layers.BatchNorm2d", "init_args": {"momentum": 0.02}}
    net = from_yaml("PLIFNet", variant="mnist", channels=1, norm=slow)
    assert {m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {0.02}
    net = from_yaml("SpikingRecurrentNet", norm="jellyfit.layers.BatchNorm1d")
    assert isinstance(net, SpikingRecurrentNet)


def test_a_toy_task_is_learnt_by_order_of_spikes_alone():
    torch.manual_seed(0)
    net = SpikingRecurrentNet(8, 2, hidden=[24], dropout=0.0, readout_tau=4.0, neuron=neuron(v_threshold=0.5))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    halves = torch.zeros(8, 32, 8)
    halves[:4, :, :4] = 1.0
    halves[4:, :, 4:] = 1.0
    label = torch.arange(32) % 2
    x_seq = torch.where(label[None, :, None] == 1, halves, halves.flip(0)) * (torch.rand(8, 32, 8) > 0.3)
    for _ in range(60):
        loss = nn.functional.cross_entropy(net(x_seq).mean(0), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (net(x_seq).mean(0).argmax(-1) == label).float().mean() > 0.9


def test_every_network_is_among_the_families():
    networks = {
        value
        for value in vars(backbones).values()
        if isinstance(value, type) and issubclass(value, Backbone) and "Backbone" not in value.__name__
    }
    small = {SpikingConvNet, backbones.SpikingMLP}
    assert {type(made(build)) for build, _ in FAMILIES.values()} == networks - small
