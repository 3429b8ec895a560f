"""How networks are compared: the same weights, input and dropout masks; then outputs, gradients and statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from jellyfit.backbones import Backbone
from jellyfit.neurons import LIFNode
from jellyfit.surrogates import ATan
from tests.compat.rows import close, peer

__all__ = ["agree", "draw", "node", "parameters", "same_sizes", "theirs_by_default"]

THRESHOLD = 0.4
ABSENT = {
    "spiking_neuron": "`neuron`, a neuron to copy",
    "pretrained": "weights that you have: `load_ann_state_dict`",
    "progress": "nothing is downloaded",
    "norm_layer": "`norm`",
    "T": "takes sequences, gives a value for every step",
}


def node() -> LIFNode:
    """A neuron that fires often."""
    return LIFNode(v_threshold=THRESHOLD, surrogate_function=ATan(), detach_reset=True, backend="torch")


def theirs_by_default() -> dict[str, Any]:
    """What makes the same neuron in SpikingJelly's networks."""
    return {
        "spiking_neuron": peer("neuron").LIFNode,
        "v_threshold": THRESHOLD,
        "surrogate_function": peer("surrogate").ATan(),
        "detach_reset": True,
    }


def draw(steps: int, *shape: int) -> Tensor:
    """Input of both."""
    return 2.0 * torch.rand(steps, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def agree(ours: Backbone, theirs: nn.Module, x_seq: Tensor, mean: bool = False, names: bool = True) -> None:
    """Both make the same of ``x_seq``, in training and evaluation, in multi-step mode.

    ``mean``: theirs gives the mean over time. ``names``: their weights have our names too, not our order alone.
    """
    with torch.no_grad():
        for module in theirs.modules():
            if isinstance(module, nn.Linear):
                module.weight *= 4.0  # so that what follows fires
    weights = theirs.double().state_dict()
    own = ours.double().state_dict()
    assert [value.shape for value in own.values()] == [value.shape for value in weights.values()]
    assert (list(own) == list(weights)) == names
    ours.load_state_dict(dict(zip(own, weights.values(), strict=True)))
    for net in (ours, theirs):
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = 0.9  # so that evaluation sees statistics of this input
    functional = peer("functional")
    functional.set_step_mode(theirs, "m")
    for training in (True, False):
        for net in (ours, theirs):
            net.train(training)
        functional.reset_net(theirs)
        found, expected = (_run(net, x_seq, mean and net is ours) for net in (ours, theirs))
        assert expected["output"].std() > 0.01, "a comparison of nothing"
        for what, value in found.items():
            close(value, expected[what], f"{type(ours).__name__}, training {training}: {what}")


def _run(net: nn.Module, x_seq: Tensor, mean: bool) -> dict[str, Tensor]:
    torch.manual_seed(1)  # for dropout
    x_seq = x_seq.clone().requires_grad_()
    y = net(x_seq)
    y = y.mean(0) if mean else y
    weights = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(2))
    parameters = [*net.parameters()]
    gradients = torch.autograd.grad((y * weights).sum(), [x_seq, *parameters])
    found = {"output": y} | {f"gradient {i}": gradient for i, gradient in enumerate(gradients)}
    return found | {f"buffer {i}": buffer.double() for i, buffer in enumerate(net.buffers())}


def parameters(net: nn.Module) -> int:
    """How many numbers are learnt."""
    return sum(parameter.numel() for parameter in net.parameters())


def same_sizes(ours: Any, theirs: Any) -> None:
    """What both functions make has weights of the same names and shapes; nothing is allocated."""
    with torch.device("meta"):
        left, right = (make().state_dict() for make in (ours, theirs))
    assert {name: value.shape for name, value in left.items()} == {name: value.shape for name, value in right.items()}
