"""Parameters that are trained differently: without weight decay, or with a learning rate of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.optim import Optimizer

from jellyfit.errors import ConfigError
from jellyfit.layers import NeuNorm
from jellyfit.neurons import BaseNode

__all__ = ["ParameterGroups"]

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, NeuNorm)


class ParameterGroups:
    """Rules that divide a network's parameters into groups for the optimizer.

    A *name* is a parameter's dotted name in the network, such as ``layer1.0.conv1.weight``; a *pattern* is a name with
    ``*`` for anything (``layer1.*``, ``*.bias``). The learning rate of a parameter is that of the optimizer, times the
    factor of every pattern in ``lr_scales`` that its name fits, times ``layer_decay`` once for every layer behind its
    own. Schedules multiply on top; one that sets learning rates by itself (``OneCycleLR``, ``CyclicLR``) undoes them.

    Layers are counted in the order in which the network lists them. A layer is a numbered block (``layer1.0``,
    ``blocks.3``), or a module outside of any; one without a weight matrix (a norm, a neuron) belongs to the layer
    before it. The last layer, usually the classifier, has the optimizer's own learning rate.

    Args:
        no_decay: whether biases, norms and neurons (their time constants, thresholds, ...) are spared from weight
            decay; default ``True``.
        no_decay_names: patterns of further parameters without weight decay; default none.
        lr_scales: factors of the learning rate by pattern; default none.
        layer_decay: factor of the learning rate from a layer to the one before it, above 0 to 1; default 1.0.

    Raises:
        ConfigError: a factor that is not above 0; a layer decay outside 0 to 1; when groups are made, a pattern that
            fits no parameter.

    Source: layer-wise decay: Clark et al., "ELECTRA", ICLR 2020, and Bao et al., "BEiT", ICLR 2022.

    Examples:
        >>> import torch
        >>> from jellyfit.backbones import SpikingMLP
        >>> from jellyfit.parameter_groups import ParameterGroups
        >>> groups = ParameterGroups(lr_scales={"head.1.*": 0.1})
        >>> optimizer = groups.optimizer(SpikingMLP(4, 2, hidden=[3]), lambda ps: torch.optim.AdamW(ps, lr=0.01))
        >>> for group in optimizer.param_groups:
        ...     print(group["name"], round(group["lr"], 4), group["weight_decay"], len(group["params"]))
        lr x 0.1 0.001 0.01 1
        lr x 0.1, no decay 0.001 0.0 1
        lr x 1 0.01 0.01 1
        lr x 1, no decay 0.01 0.0 1
    """

    def __init__(
        self,
        no_decay: bool = True,
        no_decay_names: Sequence[str] = (),
        lr_scales: Mapping[str, float] | None = None,
        layer_decay: float = 1.0,
    ) -> None:
        for pattern, factor in (lr_scales or {}).items():
            if not factor > 0.0:
                raise ConfigError(
                    f"ParameterGroups(lr_scales={{{pattern!r}: {factor!r}}}): expected a factor above 0. What is not "
                    "to be trained at all is frozen with requires_grad_(False)."
                )
        if not 0.0 < layer_decay <= 1.0:
            raise ConfigError(f"ParameterGroups(layer_decay={layer_decay!r}): expected a factor above 0, at most 1.")
        self.no_decay = no_decay
        self.no_decay_names = list(no_decay_names)
        self.lr_scales = dict(lr_scales or {})
        self.layer_decay = layer_decay

    def groups(self, net: nn.Module) -> list[dict[str, Any]]:
        """Groups as optimizers take them, of all parameters of ``net`` that are trained.

        Each holds ``params``, a ``name``, its ``lr_scale`` (factor of the learning rate), and, where nothing is to
        decay, ``weight_decay`` 0.
        """
        owned = [(name, parameter, owner) for name, parameter, owner in _owned(net) if parameter.requires_grad]
        self._check_patterns([name for name, _, _ in owned])
        depths = _depths([(name, parameter.ndim > 1 and not _is_spared(owner)) for name, parameter, owner in owned])
        last = max(depths.values(), default=0)
        groups: dict[str, dict[str, Any]] = {}
        for name, parameter, owner in owned:
            scale = self.layer_decay ** (last - depths[name])
            for pattern, factor in self.lr_scales.items():
                scale *= factor if fnmatchcase(name, pattern) else 1.0
            spared = self.no_decay and (parameter.ndim <= 1 or _is_spared(owner))
            spared = spared or any(fnmatchcase(name, pattern) for pattern in self.no_decay_names)
            label = f"lr x {scale:.4g}" + (", no decay" if spared else "")
            group = groups.setdefault(f"{scale!r} {spared}", {"params": [], "name": label, "lr_scale": scale})
            group["params"].append(parameter)
            if spared:
                group["weight_decay"] = 0.0
        return list(groups.values())

    def optimizer(
        self, net: nn.Module, make: Callable[[Any], Optimizer], others: Sequence[nn.Parameter] = ()
    ) -> Optimizer:
        """An optimizer of ``net`` with these groups.

        Args:
            net: the network.
            make: groups -> optimizer, as in ``lambda groups: torch.optim.AdamW(groups, lr=0.001)``.
            others: parameters outside of the network; they are a group to which no rule applies.
        """
        groups = self.groups(net)
        if others:
            groups.append({"params": list(others), "name": "others", "lr_scale": 1.0})
        made = make(groups)
        for group in made.param_groups:
            group["lr"] = group["lr"] * group["lr_scale"]
        return made

    def _check_patterns(self, names: list[str]) -> None:
        for argument, patterns in (("no_decay_names", self.no_decay_names), ("lr_scales", self.lr_scales)):
            for pattern in patterns:
                if not any(fnmatchcase(name, pattern) for name in names):
                    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
                    raise ConfigError(
                        f"ParameterGroups({argument}): {pattern!r} fits no parameter that is trained. Names are "
                        f"{shown}; * stands for anything."
                    )

    def __repr__(self) -> str:
        return (
            f"ParameterGroups(no_decay={self.no_decay}, no_decay_names={self.no_decay_names}, "
            f"lr_scales={self.lr_scales}, layer_decay={self.layer_decay})"
        )


def _owned(net: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Every parameter once, with its dotted name and the module that holds it."""
    seen = set()
    for prefix, module in net.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter not in seen:
                seen.add(parameter)
                yield (f"{prefix}.{name}" if prefix else name), parameter, module


def _is_spared(owner: nn.Module) -> bool:
    """Whether a module's parameters are those of a norm or neuron, whatever their shape."""
    return isinstance(owner, (BaseNode, *_NORMS))


def _layer(name: str) -> str:
    """``layer1.0.conv1.weight`` is of the layer ``layer1.0``, ``stem.weight`` of ``stem``."""
    parts = name.split(".")[:-1]
    number = next((i for i, part in enumerate(parts) if part.isdigit()), 0)
    return ".".join(parts[: number + 1])


def _depths(parameters: Iterable[tuple[str, bool]]) -> dict[str, int]:
    """The number of each parameter's layer, from names in order and whether each is a weight matrix."""
    parameters = list(parameters)
    with_matrix = dict.fromkeys(_layer(name) for name, is_matrix in parameters if is_matrix)
    numbers = {layer: number for number, layer in enumerate(with_matrix)}
    depths: dict[str, int] = {}
    current = 0
    for name, _ in parameters:
        current = numbers.get(_layer(name), current)
        depths[name] = current
    return depths
