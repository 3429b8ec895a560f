"""A recurrent network for spike trains without space: audio (SHD, SSC), touch, any ``[T, N, features]``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from jellyfit import layers
from jellyfit.backbones.base import Backbone, neuron_from
from jellyfit.backbones.images import check_positive
from jellyfit.errors import ConfigError
from jellyfit.kernels.linear import Linear
from jellyfit.neurons import BaseNode, NonSpikingLIFNode, ParametricLIFNode, StepModule
from jellyfit.surrogates import Rect

__all__ = ["SpikingRecurrentNet"]


class _Feedback(nn.Module):
    """Adds a linear map of a layer's last spikes to its input."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = Linear(size, size, bias=False)
        nn.init.orthogonal_(self.linear.weight)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return x + self.linear(y)  # type: ignore[no-any-return]


class SpikingRecurrentNet(Backbone):
    """Recurrent network: linear, batch norm, neurons that hear each other's last spikes; a leaky read-out.

    Input ``[T, N, *]`` (flattened; 700 channels of the Spiking Heidelberg Digits), output ``[T, N, num_classes]``: the
    potentials of leaky integrators that do not fire, for a loss over time such as
    :class:`~jellyfit.losses.PerStepCrossEntropy`. 108,841 parameters by default (of 700 channels, 20 classes).

    Args:
        in_features: values in one step of one sample, default 700.
        num_classes: number of outputs, default 20.
        hidden: neurons of each layer, default 128.
        recurrent: whether a layer's neurons are connected to each other; default ``True``.
        batch_norm: whether there is a norm behind every linear layer; default ``True``.
        dropout: share of a layer's spikes that is dropped for a whole sequence; default 0.1.
        readout_tau: time constant of the read-out in time steps, above 1; default 10.
        neuron: template of every neuron layer; default
            ``ParametricLIFNode(10.0, v_reset=None, surrogate_function=Rect())``. (In the paper every neuron has a time
            constant of its own: give a tensor of that size.)
        norm: class of the norms, or what makes one for a number of features; default ``layers.BatchNorm1d``.
        carry_state: see :class:`~jellyfit.backbones.Backbone`.

    Raises:
        InputError: sizes below 1, ``readout_tau`` not above 1; in the forward pass, other features.
        ConfigError: a norm is given, but ``batch_norm=False``.

    Source: Bittar and Garner, "A surrogate gradient spiking baseline for speech command recognition", Frontiers in
    Neuroscience 16 (2022); data: Cramer et al., "The Heidelberg spiking data sets for the systematic evaluation of
    spiking neural networks", IEEE Transactions on Neural Networks and Learning Systems 33 (2022).

    Examples:
        >>> import torch
        >>> from jellyfit.backbones import SpikingRecurrentNet
        >>> SpikingRecurrentNet(hidden=[16, 16])(torch.zeros(5, 2, 700)).shape
        torch.Size([5, 2, 20])
    """

    def __init__(
        self,
        in_features: int = 700,
        num_classes: int = 20,
        hidden: Sequence[int] = (128,),
        recurrent: bool = True,
        batch_norm: bool = True,
        dropout: float = 0.1,
        readout_tau: float = 10.0,
        neuron: BaseNode | None = None,
        norm: type[layers.BatchNorm1d] | Callable[[int], StepModule] | None = None,
        carry_state: bool = False,
    ) -> None:
        super().__init__(carry_state)
        check_positive("SpikingRecurrentNet", in_features=[in_features], num_classes=[num_classes], hidden=hidden)
        if norm is not None and not batch_norm:
            raise ConfigError("SpikingRecurrentNet(batch_norm=False): a norm is given too. Leave one of the two out.")
        self.in_features = in_features
        self.num_classes = num_classes
        template = ParametricLIFNode(10.0, v_reset=None, surrogate_function=Rect()) if neuron is None else neuron

        def linear(features: int, size: int) -> list[nn.Module]:
            norms = [(norm or layers.BatchNorm1d)(size)] if batch_norm else []
            return [layers.Linear(features, size, bias=not batch_norm), *norms]

        modules: list[nn.Module] = [layers.Flatten()]
        features = in_features
        for size in hidden:
            node: StepModule = neuron_from(template)
            if recurrent:
                node = layers.ElementWiseRecurrentContainer(node, _Feedback(size))
            modules += [*linear(features, size), node, layers.Dropout(dropout)]
            features = size
        readout = NonSpikingLIFNode(readout_tau)
        self.layers = layers.Sequential(*modules, *linear(features, num_classes), readout)
        self.set_step_mode("m")

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, *] -> [T, N, num_classes]`` (without ``T`` in single-step mode)."""
        self.check_features(x, self.in_features)
        return self.layers(x)  # type: ignore[no-any-return]
