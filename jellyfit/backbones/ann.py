"""Weights of networks that are not spiking, as a start for spiking ones of the same shape."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from jellyfit.backbones.base import Backbone
from jellyfit.backbones.ms_resnet import MSResNet
from jellyfit.backbones.resnet import _ResNet
from jellyfit.backbones.vgg import SpikingVGG
from jellyfit.errors import InputError, InputTypeError
from jellyfit.neurons import BaseNode

__all__ = ["LoadedWeights", "load_ann_state_dict"]


class LoadedWeights(NamedTuple):
    """What :func:`load_ann_state_dict` has done, by name.

    Attributes:
        loaded: of the network, as the ANN has them now.
        missing: of the network, left as they were: the ANN has none of that name. (Without those of neurons.)
        unused: of the ANN: the network has none of that name.
        other_shape: of the network, left as they were: the ANN's has another shape.

    Examples:
        >>> from jellyfit.backbones import LoadedWeights
        >>> LoadedWeights(["conv1.weight"], [], [], ["fc.weight"]).other_shape
        ['fc.weight']
    """

    loaded: list[str]
    missing: list[str]
    unused: list[str]
    other_shape: list[str]


def load_ann_state_dict(net: Backbone, state_dict: Mapping[str, Tensor], strict: bool = True) -> LoadedWeights:
    """Copy convolutions, norms and linear layers of a ResNet or VGG that is not spiking into a spiking one.

    Names are those of torchvision's and timm's checkpoints (``conv1.weight``, ``layer1.0.bn1.bias``,
    ``features.0.weight``, ...; a ``module.`` before them does no harm). It is a start for training, not a conversion:
    the thresholds of the neurons do not know these weights.

    Args:
        net: a :class:`SpikingResNet`, :class:`SEWResNet`, :class:`MSResNet` or :class:`SpikingVGG`.
        state_dict: the ANN's.
        strict: raise an error unless everything fits; default ``True``. With ``False`` what fits is loaded, and the
            rest is told: of another number of classes, say.

    Returns:
        What was loaded and what was not.

    Raises:
        InputTypeError: another network.
        InputError: not all fits and ``strict`` is ``True``, or nothing fits. The network is then as it was.

    Examples:
        >>> import torch
        >>> from jellyfit.backbones import SpikingResNet, load_ann_state_dict
        >>> net = SpikingResNet(18, num_classes=10, base_channels=4)
        >>> ann = {name: torch.ones_like(value) for name, value in net.state_dict().items()}
        >>> ann["fc.weight"], ann["fc.bias"] = torch.ones(1000, 32), torch.ones(1000)
        >>> done = load_ann_state_dict(net, ann, strict=False)
        >>> len(done.loaded), done.other_shape
        (120, ['fc.weight', 'fc.bias'])
    """
    if not isinstance(net, (_ResNet, MSResNet, SpikingVGG)):
        raise InputTypeError(
            f"load_ann_state_dict: {type(net).__name__} has no ANN of its shape; expected a SpikingResNet, SEWResNet, "
            "MSResNet or SpikingVGG."
        )
    given = {_name_in(net, name.removeprefix("module.")): value for name, value in state_dict.items()}
    own = net.state_dict()
    neurons = tuple(f"{prefix}." for prefix, module in net.named_modules() if isinstance(module, BaseNode))
    optional = "num_batches_tracked"  # old files lack it
    shapes = {name: _as_wanted(given[name], own[name]).shape == own[name].shape for name in own if name in given}
    done = LoadedWeights(
        loaded=[name for name, same in shapes.items() if same],
        missing=[n for n in own if n not in given and not n.startswith(neurons) and not n.endswith(optional)],
        unused=[name for name in given if name not in own],
        other_shape=[name for name, same in shapes.items() if not same],
    )
    if not done.loaded or (strict and (done.missing or done.unused or done.other_shape)):
        raise InputError(
            f"load_ann_state_dict: of {len(given)} tensors {len(done.loaded)} fit into {type(net).__name__}. Missing: "
            f"{_listed(done.missing)}. Not in the network: {_listed(done.unused)}. Of another shape: "
            f"{_listed(done.other_shape)}. Look at the depth and at batch_norm, or pass strict=False to load what fits."
        )
    with torch.no_grad():
        for name in done.loaded:
            own[name].copy_(_as_wanted(given[name], own[name]))
    return done


def _name_in(net: nn.Module, name: str) -> str:
    """The network's name for what the ANN calls ``name``."""
    if isinstance(net, MSResNet):
        for theirs, ours in (("conv1.", "stem.0."), ("bn1.", "stem.1."), ("fc.", "head.")):
            if name.startswith(theirs):
                return ours + name.removeprefix(theirs)
    if isinstance(net, SpikingVGG):  # timm's: linear layers as convolutions, the last one apart
        linear = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
        found = re.fullmatch(r"(?:pre_logits\.fc([12])|head\.fc)\.(weight|bias)", name)
        if found and len(linear) == 3:
            return f"{linear[int(found[1]) - 1 if found[1] else 2]}.{found[2]}"
    return name


def _as_wanted(value: Tensor, like: Tensor) -> Tensor:
    """A linear layer's weights that are kept as those of a convolution, flattened."""
    return value.flatten(1) if like.ndim == 2 and value.ndim == 4 else value


def _listed(names: list[str], most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or "none"
