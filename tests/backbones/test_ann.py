"""Weights of networks that are not spiking, by the names that torchvision and timm give them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jellyfit.backbones import (
    MSResNet,
    PLIFNet,
    SEWResNet,
    SpikingResNet,
    SpikingVGG,
    load_ann_state_dict,
)
from jellyfit.errors import InputError, InputTypeError
from jellyfit.neurons import IFNode, ParametricLIFNode

WIDTH = 4


def numbered(shapes):
    """A state dict whose every tensor holds a number of its own."""
    return {name: torch.full(shape, float(i + 1)) for i, (name, shape) in enumerate(shapes.items())}


def norm(name, channels):
    return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")} | {
        f"{name}.num_batches_tracked": ()
    }


def resnet(blocks=(2, 2, 2, 2), bottleneck=False, classes=5, width=WIDTH):
    """Names and shapes in torchvision's ResNets."""
    shapes = {"conv1.weight": (width, 3, 7, 7), **norm("bn1", width)}
    c = width
    for i, count in enumerate(blocks):
        for j in range(count):
            block, planes = f"layer{i + 1}.{j}", width * 2**i
            out = planes * (4 if bottleneck else 1)
            kernels = [(planes, 1), (planes, 3), (out, 1)] if bottleneck else [(planes, 3), (planes, 3)]
            before = c
            for k, (to, kernel) in enumerate(kernels, start=1):
                shapes[f"{block}.conv{k}.weight"] = (to, before, kernel, kernel)
                shapes |= norm(f"{block}.bn{k}", to)
                before = to
            if j == 0 and (i > 0 or bottleneck):
                shapes[f"{block}.downsample.0.weight"] = (out, c, 1, 1)
                shapes |= norm(f"{block}.downsample.1", out)
            c = out
    return shapes | {"fc.weight": (classes, c), "fc.bias": (classes,)}


def vgg11(batch_norm=True, classes=5, width=WIDTH, hidden=6):
    """Names and shapes in torchvision's VGG-11."""
    shapes, i, c = {}, 0, 3
    for out in (1, "M", 2, "M", 4, 4, "M", 8, 8, "M", 8, 8, "M"):
        if out == "M":
            i += 1
            continue
        shapes |= {f"features.{i}.weight": (out * width, c, 3, 3), f"features.{i}.bias": (out * width,)}
        shapes |= norm(f"features.{i + 1}", out * width) if batch_norm else {}
        i, c = i + (3 if batch_norm else 2), out * width
    for name, (to, features) in {"0": (hidden, c * 49), "3": (hidden, hidden), "6": (classes, hidden)}.items():
        shapes |= {f"classifier.{name}.weight": (to, features), f"classifier.{name}.bias": (to,)}
    return shapes


def small(cls, depth=18, **options):
    return cls(depth, 5, base_channels=WIDTH, neuron=ParametricLIFNode(backend="torch"), **options)


@pytest.mark.parametrize("cls", [SpikingResNet, SEWResNet])
@pytest.mark.parametrize(
    ("depth", "blocks", "bottleneck"),
    [(18, (2, 2, 2, 2), False), (34, (3, 4, 6, 3), False), (50, (3, 4, 6, 3), True), (101, (3, 4, 23, 3), True)],
)
def test_a_resnet_loads_by_name(cls, depth, blocks, bottleneck):
    ann = numbered(resnet(blocks, bottleneck))
    net = small(cls, depth)
    done = load_ann_state_dict(net, ann)
    assert set(done.loaded) == set(ann)
    assert (done.missing, done.unused, done.other_shape) == ([], [], [])
    own = net.state_dict()
    assert all(torch.equal(own[name], value.to(own[name].dtype)) for name, value in ann.items())
    assert own["sn1.w"].item() == 0.0  # neurons are left alone


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_vgg_loads_by_name(batch_norm):
    ann = numbered(vgg11(batch_norm))
    net = small(SpikingVGG, 11, batch_norm=batch_norm, hidden=[6, 6])
    assert set(load_ann_state_dict(net, ann).loaded) == set(ann)
    own = net.state_dict()
    assert all(torch.equal(own[name], value.to(own[name].dtype)) for name, value in ann.items())


def test_a_vgg_of_timm_keeps_its_linear_layers_as_convolutions():
    ann = numbered(vgg11())
    renamed = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
    sizes = {"pre_logits.fc1.weight": (6, 8 * WIDTH, 7, 7), "pre_logits.fc2.weight": (6, 6, 1, 1)}
    timm = {}
    for name, value in ann.items():
        front, _, part = name.rpartition(".")
        key = f"{renamed.get(front, front)}.{part}"
        timm[key] = torch.randn(sizes[key]) if key in sizes else value
    net = small(SpikingVGG, 11, hidden=[6, 6])
    assert len(load_ann_state_dict(net, timm).loaded) == len(ann)
    assert torch.equal(net.classifier[0].weight, timm["pre_logits.fc1.weight"].flatten(1))
    assert torch.equal(net.classifier[3].weight, timm["pre_logits.fc2.weight"].flatten(1))
    assert torch.equal(net.classifier[6].bias, timm["head.fc.bias"])


def test_an_ms_resnet_has_its_own_names_for_the_ends():
    ann = numbered(resnet())
    net = small(MSResNet)
    with pytest.raises(InputError, match=r"Missing: layer1\.0\.downsample\.0\.weight, .*Not in the network: none"):
        load_ann_state_dict(net, ann)  # its first stage has a stride
    done = load_ann_state_dict(net, ann, strict=False)
    assert len(done.loaded) == len(ann)
    assert {name.rpartition(".")[0] for name in done.missing} == {"layer1.0.downsample.0", "layer1.0.downsample.1"}
    assert torch.equal(net.stem[0].weight, ann["conv1.weight"])
    assert torch.equal(net.stem[1].running_var, ann["bn1.running_var"])
    assert torch.equal(net.head.weight, ann["fc.weight"])


def test_what_does_not_fit_is_told_and_with_strict_nothing_is_loaded():
    ann = numbered(resnet(classes=1000)) | {"aux.weight": torch.zeros(3)}
    del ann["layer1.0.bn1.bias"]
    net = small(SpikingResNet)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_ann_state_dict(net, ann)
    message = str(caught.value)
    assert "Missing: layer1.0.bn1.bias." in message
    assert "Not in the network: aux.weight." in message
    assert "Of another shape: fc.weight, fc.bias." in message
    assert "strict=False" in message
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    done = load_ann_state_dict(net, ann, strict=False)
    assert (done.missing, done.unused) == (["layer1.0.bn1.bias"], ["aux.weight"])
    assert done.other_shape == ["fc.weight", "fc.bias"]
    assert torch.equal(net.conv1.weight, ann["conv1.weight"])
    assert torch.equal(net.fc.weight, before["fc.weight"])


def test_long_lists_are_cut_short():
    ann = numbered({name: shape for name, shape in resnet().items() if not name.startswith("layer")})
    with pytest.raises(
        InputError, match=r"Missing: layer1\.0\.conv1\.weight, .*layer1\.0\.conv2\.weight and \d+ more\."
    ):
        load_ann_state_dict(small(SpikingResNet), ann)


def test_old_files_and_those_of_several_devices_load():
    ann = numbered(resnet())
    old = {f"module.{name}": value for name, value in ann.items() if not name.endswith("num_batches_tracked")}
    net = small(SpikingResNet)
    assert len(load_ann_state_dict(net, old).loaded) == len(old)
    assert torch.equal(net.conv1.weight, ann["conv1.weight"])


def test_weights_take_the_networks_dtype():
    net = small(SpikingResNet).double()
    load_ann_state_dict(net, numbered(resnet()))
    assert net.conv1.weight.dtype == torch.float64
    assert net.conv1.weight.requires_grad


def test_a_small_stem_keeps_its_own_weights():
    net = small(SpikingResNet, stem="small")
    assert load_ann_state_dict(net, numbered(resnet()), strict=False).other_shape == ["conv1.weight"]


def test_other_networks_and_other_files_are_refused():
    with pytest.raises(InputTypeError, match="PLIFNet has no ANN of its shape"):
        load_ann_state_dict(PLIFNet("mnist", channels=1), {})
    with pytest.raises(InputError, match="of 1 tensors 0 fit"):
        load_ann_state_dict(small(SpikingResNet), {"encoder.weight": torch.zeros(2)}, strict=False)


def test_the_numbers_of_an_ann_pass_through_where_neurons_let_them():
    """With neurons that hand their input on, the spiking network computes what the ANN does."""

    class Relu(IFNode):
        def multi_step_forward(self, x_seq):
            return x_seq.relu()

    class Block(nn.Module):
        def __init__(self, c, out, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(c, out, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(out)
            self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(out)
            self.downsample = None
            if stride > 1:
                self.downsample = nn.Sequential(nn.Conv2d(c, out, 1, stride, bias=False), nn.BatchNorm2d(out))

        def forward(self, x):
            y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            return (y + (x if self.downsample is None else self.downsample(x))).relu()

    class ResNet18(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(WIDTH)
            for i in range(4):
                c, out, stride = (WIDTH * 2 ** max(i - 1, 0), WIDTH * 2**i, 2 if i else 1)
                self.add_module(f"layer{i + 1}", nn.Sequential(Block(c, out, stride), Block(out, out, 1)))
            self.fc = nn.Linear(8 * WIDTH, 5)

        def forward(self, x):
            y = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
            for i in range(4):
                y = self.get_submodule(f"layer{i + 1}")(y)
            return self.fc(y.mean((2, 3)))

    torch.manual_seed(0)
    ann = ResNet18().eval()
    net = SpikingResNet(18, 5, base_channels=WIDTH, neuron=Relu(backend="torch")).eval()
    load_ann_state_dict(net, ann.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(net(x[None])[0], ann(x))
