"""Whole-network operations: reset, detach, step mode, backend, initial weights, margins of the output layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from jellyfit.errors import InputError
from jellyfit.kernels import check_backend
from jellyfit.neurons.base import BaseNode, MemoryModule, StepModule

__all__ = [
    "collect_reset_modules",
    "detach_net",
    "kaiming_normal_conv_linear_weight",
    "named_neurons",
    "named_stateful",
    "reset_collected_modules",
    "reset_net",
    "set_backend",
    "set_step_mode",
    "set_threshold_margin",
]


def _name_modules(net: nn.Module) -> Iterator[nn.Module]:
    """Every module of ``net``, once; ours learn their dotted name on the way, for error messages."""
    for name, module in net.named_modules():
        if isinstance(module, StepModule):
            module._path = name
        yield module


def reset_net(net: nn.Module) -> None:
    """Forget the state of every module in ``net``, however deep it is nested.

    Modules of your own that are not a :class:`~jellyfit.neurons.MemoryModule` but have a ``reset()`` method are reset
    too, except torchmetrics' metrics, whose ``reset`` means something else.

    Args:
        net: any module.

    Examples:
        >>> import torch
        >>> from jellyfit import functional, neurons
        >>> net = torch.nn.Sequential(neurons.IFNode(backend="torch"))
        >>> _ = net(torch.full((1, 2), 0.5))
        >>> net[0].v
        tensor([[0.5000, 0.5000]])
        >>> functional.reset_net(net)
        >>> net[0].v
        0.0
    """
    for module in _name_modules(net):
        if _remembers(module):
            module.reset()  # type: ignore[operator]


def _remembers(module: nn.Module) -> bool:
    return callable(getattr(module, "reset", None)) and not (hasattr(module, "compute") and hasattr(module, "update"))


def named_stateful(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """Dotted names and modules of everything in ``net`` that :func:`reset_net` resets.

    Args:
        net: any module.

    Examples:
        >>> import torch
        >>> from jellyfit import functional, neurons
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), neurons.IFNode())
        >>> [name for name, _ in functional.named_stateful(net)]
        ['1']
    """
    return [(name, module) for name, module in net.named_modules() if _remembers(module)]


def collect_reset_modules(net: nn.Module) -> tuple[nn.Module, ...]:
    """What :func:`reset_net` resets in ``net``, to be kept and given to :func:`reset_collected_modules`.

    Saves the walk through a large network at every reset. Collect anew after changing the network.

    Args:
        net: any module.

    Examples:
        >>> import torch
        >>> from jellyfit import functional, neurons
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), neurons.IFNode())
        >>> functional.collect_reset_modules(net) == (net[1],)
        True
    """
    return tuple(module for _, module in named_stateful(net))


def reset_collected_modules(modules: Iterable[nn.Module]) -> None:
    """Reset what :func:`collect_reset_modules` collected.

    Args:
        modules: modules with a ``reset()`` method.

    Examples:
        >>> import torch
        >>> from jellyfit import functional, neurons
        >>> node = neurons.IFNode(backend="torch")
        >>> collected = functional.collect_reset_modules(node)
        >>> _ = node(torch.full((1, 2), 0.5))
        >>> functional.reset_collected_modules(collected)
        >>> node.v
        0.0
    """
    for module in modules:
        module.reset()  # type: ignore[operator]


def detach_net(net: nn.Module) -> None:
    """Keep the state of every module in ``net`` but cut it from the graph (truncated BPTT, streaming).

    Args:
        net: any module.

    Examples:
        >>> import torch
        >>> from jellyfit import functional, neurons
        >>> node = neurons.IFNode(backend="torch")
        >>> _ = node(torch.full((1, 1), 0.5, requires_grad=True))
        >>> functional.detach_net(node)
        >>> node.v
        tensor([[0.5000]])
    """
    for module in _name_modules(net):
        if isinstance(module, MemoryModule):
            module.detach()


def set_step_mode(net: nn.Module, step_mode: str) -> None:
    """Set ``step_mode`` (``"s"`` or ``"m"``) of every module in ``net`` that has one.

    What a container that steps through time itself holds (``MultiStepContainer``, ``SeqToANNContainer``,
    ``StepModeContainer``) stays in single-step mode.

    Args:
        net: any module.
        step_mode: ``"s"``: one step a call; ``"m"``: a sequence a call.

    Raises:
        InputError: another step mode.

    Examples:
        >>> import torch
        >>> from jellyfit import functional, neurons
        >>> net = torch.nn.Sequential(neurons.IFNode())
        >>> functional.set_step_mode(net, "m")
        >>> net[0].step_mode
        'm'
    """
    for _ in _name_modules(net):
        pass
    pending: list[tuple[nn.Module, str]] = [(net, step_mode)]
    while pending:
        module, mode = pending.pop()
        if isinstance(module, StepModule):
            module.step_mode = mode
            if module.keeps_children_single_step:
                mode = "s"
        pending.extend((child, mode) for child in module.children())


def set_backend(net: nn.Module, backend: str, instance: type[BaseNode] | tuple[type[BaseNode], ...] = BaseNode) -> None:
    """Set the ``backend`` of every neuron in ``net`` that is an ``instance`` (default: all neurons).

    Args:
        net: any module.
        backend: ``"auto"``, ``"torch"``, ``"cpu"`` or ``"cupy"``.
        instance: a class of neurons, or several.

    Raises:
        ConfigError: an unknown backend, or one that cannot run here (the message says why).

    Examples:
        >>> import torch
        >>> from jellyfit import functional, neurons
        >>> net = torch.nn.Sequential(neurons.IFNode())
        >>> functional.set_backend(net, "torch")
        >>> net[0].backend
        'torch'
    """
    check_backend(backend)
    for module in _name_modules(net):
        if isinstance(module, instance):
            module.backend = backend


def named_neurons(net: nn.Module) -> list[tuple[str, BaseNode]]:
    """Dotted names and neurons of ``net``, in the order in which they were registered.

    Args:
        net: any module.

    Examples:
        >>> import torch
        >>> from jellyfit import functional, neurons
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), neurons.IFNode())
        >>> [name for name, _ in functional.named_neurons(net)]
        ['1']
    """
    return [(name, module) for name, module in net.named_modules() if isinstance(module, BaseNode)]


def kaiming_normal_conv_linear_weight(net: nn.Module) -> None:
    """Draw the weights of every convolution and linear layer in ``net`` from Kaiming's normal distribution.

    The variance is that of torch's default uniform distribution (``a=√5``); biases stay as they are.

    Args:
        net: any module.

    Examples:
        >>> import torch
        >>> from jellyfit import functional
        >>> net = torch.nn.Linear(1000, 200)
        >>> functional.kaiming_normal_conv_linear_weight(net)
        >>> round(1000 * net.weight.var().item(), 1)
        0.3

    Source: He et al., "Delving deep into rectifiers", ICCV 2015.
    """
    for module in net.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, a=5**0.5)


def set_threshold_margin(
    output_layer: BaseNode,
    label_one_hot: Tensor,
    eval_threshold: float = 1.0,
    threshold0: float = 0.9,
    threshold1: float = 1.1,
) -> None:
    """Give the output neuron of a sample's class a higher threshold than the others while training: a margin.

    Call it before every forward pass. In evaluation mode all neurons get ``eval_threshold``. The thresholds of a batch
    are never part of ``state_dict``.

    Args:
        output_layer: neurons over ``[N, C]``, one a class.
        label_one_hot: ``[N, C]``, 1 at the sample's class.
        eval_threshold: threshold in evaluation mode, default 1.
        threshold0: threshold of the wrong classes in training mode, default 0.9.
        threshold1: threshold of the right class in training mode, default 1.1.

    Raises:
        InputError: the threshold is learnable or a buffer, so a margin would overwrite it.

    Examples:
        >>> import torch
        >>> from jellyfit import functional, neurons
        >>> node = neurons.LIFNode()
        >>> functional.set_threshold_margin(node, torch.tensor([[0, 1]]))
        >>> node.v_threshold
        tensor([[0.9000, 1.1000]])
        >>> functional.set_threshold_margin(node.eval(), torch.tensor([[0, 1]]))
        >>> node.v_threshold
        1.0
    """
    if "v_threshold" in output_layer._parameters or "v_threshold" in output_layer._buffers:
        raise InputError(
            f"set_threshold_margin: {output_layer.describe()} has a threshold of its own, a tensor in its state_dict; "
            "expected a number. Make the output layer with v_threshold=1.0."
        )
    if output_layer.training:
        low, high = (torch.full_like(label_one_hot, value, dtype=torch.float) for value in (threshold0, threshold1))
        output_layer.v_threshold = torch.where(label_one_hot == 1, high, low)
    else:
        output_layer.v_threshold = eval_threshold
