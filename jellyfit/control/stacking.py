"""Several networks of one make as a single one, so that one batched call serves all of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from jellyfit import functional, layers
from jellyfit.control.actors import Actor, _Lateral
from jellyfit.control.decoders import GroupLinear
from jellyfit.control.normalisation import RunningNorm
from jellyfit.encoders import _Population
from jellyfit.errors import InputError
from jellyfit.kernels.linear import Linear, linear, outruns
from jellyfit.neurons import BaseNode
from jellyfit.rng import Drawing

__all__ = ["StackedLinear", "stack", "unstack"]

Net = TypeVar("Net", bound=nn.Module)

BROADCAST: tuple[type[nn.Module], ...] = (Actor, GroupLinear, _Lateral, _Population, RunningNorm)
"""Modules whose code does not mind an axis in front of their tensors' own."""


class StackedLinear(nn.Module):
    """K linear layers side by side, ``[..., K, in_features] -> [..., K, out_features]``: one batched matrix product.

    Args:
        linears: K layers of the same shape; their weights are copied, to ``[K, out_features, in_features]``.

    Raises:
        InputError: in the forward pass, another shape.

    Examples:
        >>> import torch
        >>> from jellyfit.control import StackedLinear
        >>> first, second = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)
        >>> x = torch.randn(5, 2, 3)
        >>> torch.allclose(StackedLinear([first, second])(x)[:, 1], second(x[:, 1]), atol=1e-6)
        True
    """

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.in_features, self.out_features = linears[0].in_features, linears[0].out_features
        self.weight = _joined([linear.weight for linear in linears])
        self.bias: nn.Parameter | None = (
            None if linears[0].bias is None else _joined([linear.bias for linear in linears])
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[..., K, in_features] -> [..., K, out_features]``."""
        expected = (len(self.weight), self.in_features)
        if x.ndim < 3 or x.shape[-2:] != expected:
            raise InputError(f"StackedLinear: expected [N, {expected[0]}, {expected[1]}]; got {list(x.shape)}.")
        rows, biases = x.flatten(0, -3).transpose(0, 1), self.bias
        if outruns(rows, self.weight, biases):
            each: Sequence[Tensor | None] = [None] * len(rows) if biases is None else biases.unbind(0)
            y = torch.stack([linear(*one) for one in zip(rows.unbind(0), self.weight.unbind(0), each, strict=True)])
        elif biases is None:
            y = rows @ self.weight.mT
        else:
            y = torch.baddbmm(biases.unsqueeze(1), rows, self.weight.mT)
        return y.transpose(0, 1).view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, in_features={self.in_features}, out_features={self.out_features}"


def stack(nets: Sequence[Net], *sizes: int) -> Net:
    """One network that does what K networks do, each for its own: ``[N, K, *] -> [N, K, *]``.

    Its state dict has the names of theirs, and in front of every tensor an axis of K. What is computed for one of them
    is touched by nothing that belongs to another. Linear layers become :class:`StackedLinear`; everything else is
    elementwise or works on the last axes, as do neurons (also with learnable parameters), encoders and decoders.

    Args:
        nets: networks of the same make, such as actors of one factory; copied.
        sizes: features of each of their inputs ``[N, size]``: the stacked network is tried on random ones, in double
            precision, and must give what they give (unless they draw random numbers). Default: not tried.

    Raises:
        InputError: they differ in their tensors, or hold a module that cannot be stacked, which is named.

    Examples:
        >>> import torch
        >>> from jellyfit.control import SpikingActor, stack
        >>> actors = [SpikingActor(3, 1, hidden=[8]) for _ in range(4)]
        >>> stacked = stack(actors, 3)
        >>> obs = torch.randn(10, 4, 3)
        >>> stacked(obs).shape, torch.allclose(stacked(obs)[:, 2], actors[2](obs[:, 2]), atol=1e-4)
        (torch.Size([10, 4, 1]), True)
    """
    stacked = _stacked(nets)
    if sizes:
        _try(stacked, nets, sizes)
    return stacked


def _stacked(nets: Sequence[Net]) -> Net:
    shapes = [{name: value.shape for name, value in net.state_dict().items()} for net in nets]
    if any(each != shapes[0] for each in shapes):
        raise InputError(f"stack: the {len(nets)} networks differ in their tensors; expected networks of one make.")
    stacked = copy.deepcopy(nets[0])
    for name, module in list(stacked.named_modules()):
        parts = [net.get_submodule(name) for net in nets]
        if type(module) in (nn.Linear, Linear, layers.Linear):
            linear = StackedLinear(parts)  # type: ignore[arg-type]
            if not name:
                return linear  # type: ignore[return-value]
            stacked.set_submodule(name, linear)
            continue
        for kind in (module._parameters, module._buffers):
            for key, own in kind.items():
                if own is not None:
                    if not (isinstance(module, BROADCAST) or (isinstance(module, BaseNode) and key in module._values)):
                        raise InputError(_cannot(nets[0], f"{f'{name}.{key}'.lstrip('.')} of {type(module).__name__}"))
                    joined = _joined([getattr(part, key) for part in parts])
                    kind[key] = joined if isinstance(own, nn.Parameter) else joined.detach()
    return stacked


def _joined(tensors: Sequence[Tensor]) -> nn.Parameter:
    """``[K, *]``; numbers become ``[K, 1]``, which goes together with ``[N, K, features]``."""
    joined = torch.stack([tensor.detach() for tensor in tensors])
    return nn.Parameter(joined if joined.ndim > 1 else joined.unsqueeze(1), tensors[0].requires_grad)


def _cannot(net: nn.Module, why: str) -> str:
    return (
        f"{type(net).__name__} cannot be stacked for several learners: {why}. Networks of linear layers, neurons whose "
        "parameters are values or one a channel, and jellyfit's population encoders and decoders can, where they work "
        "on the last axis and leave the others; train this one with learners=1."
    )


@torch.no_grad()
def _try(stacked: nn.Module, nets: Sequence[nn.Module], sizes: Sequence[int]) -> None:
    """Raise unless ``stacked`` does what ``nets`` do. In double precision no spike hangs on how sums are rounded."""
    together, *each = (copy.deepcopy(net).double() for net in (stacked, *nets))
    for net in (together, *each):
        functional.set_backend(net, "torch")
    with torch.random.fork_rng(devices=[]):
        samples = 97  # as no other axis: the axis of networks comes behind it
        inputs = [torch.randn(samples, len(nets), size, dtype=torch.float64) for size in sizes]
        before = torch.get_rng_state()
        alone = [net(*(x[:, k] for x in inputs)) for k, net in enumerate(each)]
        expected = torch.stack(alone, alone[0].shape.index(samples) + 1)
        draws = not torch.equal(torch.get_rng_state(), before) or any(
            isinstance(module, Drawing) and module.generator is not None for module in together.modules()
        )
        try:
            found: Tensor = together(*inputs)
        except (RuntimeError, InputError) as error:
            raise InputError(_cannot(nets[0], f"it fails with {len(nets)} of them: {error}")) from error
    if found.shape != expected.shape:
        shapes = f"{list(found.shape)} in place of {list(expected.shape)}"
        raise InputError(_cannot(nets[0], f"for {len(nets)} of them it gives {shapes}"))
    if not draws and not torch.allclose(found, expected, rtol=1e-6, atol=1e-9):
        raise InputError(_cannot(nets[0], "for several of them it gives other values than each alone"))


def unstack(stacked: nn.Module, place: int, net: Net) -> Net:
    """Give ``net``, an ordinary network of the same make, the weights that the one at ``place`` has in ``stacked``.

    Args:
        stacked: what :func:`stack` made.
        place: 0 to K-1.
        net: takes the weights, and is returned.

    Raises:
        InputError: there is no such place.

    Examples:
        >>> import torch
        >>> from jellyfit.control import MLPActor, stack, unstack
        >>> stacked = stack([MLPActor(3, 1, hidden=[8]) for _ in range(4)])
        >>> actor, obs = unstack(stacked, 2, MLPActor(3, 1, hidden=[8])), torch.randn(10, 4, 3)
        >>> torch.allclose(actor(obs[:, 2]), stacked(obs)[:, 2], atol=1e-6)
        True
    """
    values = stacked.state_dict()
    number = len(next(iter(values.values())))
    if not 0 <= place < number:
        raise InputError(f"unstack: there is no network {place}; expected 0 to {number - 1}.")
    net.load_state_dict({name: values[name][place].view_as(own) for name, own in net.state_dict().items()})
    return net
