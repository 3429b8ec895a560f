"""The networks of the benchmark of training steps: jellyfit's, SpikingJelly's own, and jellyfit's with peers' neurons.

A net of SpikingJelly's is its class of the same name, with the same weights. Norse and snnTorch have no such nets, so
their neurons are put into jellyfit's, in place of its own, with torch's linear layers: convolutions, norms and pooling
are then the same. As their equations differ from SpikingJelly's, jellyfit runs a *twin* beside each: its net with the
peer's very neuron.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import peers
import torch
from stand_ins import spikingjelly_module
from torch import Tensor, nn

from jellyfit import functional, neurons
from jellyfit.backbones import Backbone, PLIFNet, SEWResNet, SpikingResNet, SpikingVGG

CLASSES = 10


@dataclass(frozen=True)
class Case:
    """One net at one size.

    Attributes:
        name: of the row.
        shape: of the input ``[T, N, C, H, W]``.
        neuron: in all layers, as ``peers.main_neuron`` names it.
        make: jellyfit's net with a neuron.
        theirs: SpikingJelly's net of the same structure.
        neurons_of: libraries whose neurons are also put into jellyfit's net.
        goal: times faster than SpikingJelly that is aimed at.
    """

    name: str
    shape: tuple[int, int, int, int, int]
    neuron: str
    make: Callable[[neurons.BaseNode], Backbone]
    theirs: Callable[[str], nn.Module]
    neurons_of: tuple[str, ...] = ()
    goal: float | None = None


@dataclass(frozen=True)
class Contender:
    """A net of some library as a function: ``[T, N, C, H, W] -> [T, N, classes]``, from a reset state."""

    net: nn.Module
    run: Callable[[Tensor], Tensor]


def neuron_of(name: str) -> neurons.BaseNode:
    """The neuron that networks are trained with: as in ``peers``, without a gradient through the reset."""
    node = peers.main_neuron(name)
    node.detach_reset = True
    return node


# -------------------------------------------------------------------- SpikingJelly's nets


def _options(neuron: str) -> dict[str, Any]:
    """What gives SpikingJelly's networks the neuron of :func:`neuron_of`."""
    theirs = spikingjelly_module("neuron")
    kind = {"IF": theirs.IFNode, "LIF": theirs.LIFNode, "PLIF": theirs.ParametricLIFNode}[neuron]
    return {"spiking_neuron": kind, "surrogate_function": spikingjelly_module("surrogate").ATan(), "detach_reset": True}


def _resnet(neuron: str) -> nn.Module:
    return spikingjelly_module("model.spiking_resnet").spiking_resnet18(num_classes=CLASSES, **_options(neuron))  # type: ignore[no-any-return]


def _sew_resnet(neuron: str) -> nn.Module:
    return spikingjelly_module("model.sew_resnet").sew_resnet18(cnf="ADD", num_classes=CLASSES, **_options(neuron))  # type: ignore[no-any-return]


def _vgg(neuron: str) -> nn.Module:
    """VGG-11 with one linear layer behind the convolutions: with the original ones 9 weights in 10 would be there."""
    layer = spikingjelly_module("layer")
    with torch.device("meta"):
        net = spikingjelly_module("model.spiking_vgg").spiking_vgg11_bn(num_classes=CLASSES, **_options(neuron))
    net.avgpool, net.classifier = layer.AdaptiveAvgPool2d(1), nn.Sequential(layer.Linear(512, CLASSES))
    return net.to_empty(device="cpu")  # type: ignore[no-any-return]


def _plif_net(channels: int) -> Callable[[str], nn.Module]:
    def make(neuron: str) -> nn.Module:
        return spikingjelly_module("model.parametric_lif_net").NMNISTNet(channels, **_options(neuron))  # type: ignore[no-any-return]

    return make


def prepared(net: Any) -> Any:
    """The net without dropout (every library draws its masks otherwise), its last layers strong enough to fire."""
    with torch.no_grad():
        for module in net.modules():
            if "Dropout" in type(module).__name__:
                module.p = 0.0
            elif isinstance(module, nn.Linear):
                module.weight *= 10.0
    return net


# -------------------------------------------------------------------- the cases


def vgg(node: neurons.BaseNode) -> Backbone:
    return SpikingVGG(11, CLASSES, pool_size=1, hidden=[], neuron=node)


def plif_net(channels: int) -> Callable[[neurons.BaseNode], Backbone]:
    return lambda node: PLIFNet("nmnist", channels=channels, neuron=node)


def resnet(node: neurons.BaseNode) -> Backbone:
    return SpikingResNet(18, CLASSES, neuron=node)


def sew_resnet(node: neurons.BaseNode) -> Backbone:
    return SEWResNet(18, CLASSES, neuron=node)


CASES = (
    Case("Spiking ResNet-18", (4, 4, 3, 64, 64), "LIF", resnet, _resnet, goal=1.25),
    Case("Spiking ResNet-18", (4, 2, 3, 128, 128), "LIF", resnet, _resnet, goal=1.25),
    Case("Spiking VGG-11", (4, 4, 3, 64, 64), "LIF", vgg, _vgg, ("snnTorch", "Norse"), goal=1.4),
    Case("SEW ResNet-18", (4, 4, 3, 64, 64), "IF", sew_resnet, _sew_resnet, goal=1.4),
    Case("SEW ResNet-18", (4, 2, 3, 128, 128), "IF", sew_resnet, _sew_resnet, goal=1.4),
    Case("PLIF-Net", (10, 4, 2, 34, 34), "PLIF", plif_net(128), _plif_net(128), ("snnTorch",), goal=2.0),
    Case("PLIF-Net small", (10, 32, 2, 34, 34), "PLIF", plif_net(16), _plif_net(16), ("snnTorch",), goal=2.0),
)


# -------------------------------------------------------------------- contenders


class PeerNeuron(nn.Module):
    """A neuron of another library in a net of jellyfit's."""

    def __init__(self, runner: peers.Runner) -> None:
        super().__init__()
        self.run = runner.run
        self.learnt = nn.ParameterList(runner.params)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x).to(x.dtype)  # Norse's spikes are float32 in float64 too


def with_neurons_of(net: Backbone, make: Callable[[], peers.Peer]) -> Backbone:
    """``net`` whose neurons are those of a peer, each a new one, and whose linear layers are torch's."""
    peers.torchs_linear(net)
    places = [name for name, module in net.named_modules() if isinstance(module, neurons.BaseNode)]
    for place in places:
        net.set_submodule(place, PeerNeuron(make().runner))
    return net


def of_case(case: Case, without: list[str]) -> tuple[dict[str, Contender], dict[str, str], dict[str, str]]:
    """Contenders by name, whom the time of each is divided by, and why others do not take part."""
    torch.manual_seed(0)
    found: dict[str, Contender] = {}
    absent: dict[str, str] = {}
    net = prepared(case.make(neuron_of(case.neuron)))
    found["jellyfit"] = Contender(net, net)
    eager = copy.deepcopy(net)
    functional.set_backend(eager, "torch")
    found["eager"], against = Contender(eager, eager), {"eager": "jellyfit"}
    names = [name for name in peers.LIBRARIES if name == "SpikingJelly" or name in case.neurons_of]
    for library in names:
        if library in without or not peers.installed(library):
            absent[library] = "not installed"
        elif library == "SpikingJelly":
            found[library], against[library] = theirs_of(case, net), "jellyfit"
        else:
            twin_name = f"jellyfit as {library}"
            make = functools.partial(_peer, library, case.neuron)
            node = make().twin
            assert node is not None
            twin = prepared(case.make(node))
            twin.load_state_dict(net.state_dict(), strict=False)  # all but what neurons learn
            theirs = with_neurons_of(copy.deepcopy(twin), make)
            found[twin_name], found[library] = Contender(twin, twin), Contender(theirs, theirs)
            against[library] = twin_name
    return found, against, absent


def _peer(library: str, neuron: str) -> peers.Peer:
    (peer,) = peers.peers(neuron, [name for name in peers.LIBRARIES if name != library])
    return peer


def theirs_of(case: Case, ours: nn.Module) -> Contender:
    """SpikingJelly's net with our weights."""
    net = prepared(case.theirs(case.neuron))
    net.load_state_dict(ours.state_dict())
    functional_of_theirs = spikingjelly_module("functional")
    functional_of_theirs.set_step_mode(net, "m")

    def run(x: Tensor) -> Tensor:
        functional_of_theirs.reset_net(net)
        return net(x)  # type: ignore[no-any-return]

    return Contender(net, run)
