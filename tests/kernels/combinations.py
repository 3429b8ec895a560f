"""Which settings of which neurons the tests of generated kernels go through."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from jellyfit import neurons, surrogates
from jellyfit.neurons import BaseNode

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

NEURONS = [
    name
    for name in neurons.__all__
    if isinstance(kind := getattr(neurons, name), type)
    and issubclass(kind, BaseNode)
    and kind.neuronal_charge is not BaseNode.neuronal_charge
    and kind.multi_step_forward is BaseNode.multi_step_forward
]
SURROGATES = [
    name
    for name in surrogates.__all__
    if isinstance(kind := getattr(surrogates, name), type)
    and kind not in (surrogates.SurrogateFunction, surrogates.PoissonPass)  # random numbers do not fuse
]

SETTINGS: Mapping[str, Sequence[Any]] = {
    "neuron": NEURONS,
    "surrogate": SURROGATES,
    "dtype": DTYPES,
    "params": ("numbers", "scalar", "channel", "element"),
    "v_reset": (None, -0.2, 0.0),
    "detach_reset": (False, True),
    "decay_input": (False, True),
    "store_v_seq": (False, True),
}

# Where the default says nothing: an adaptation that does something, and exponents that stay small.
_EXTRA = {"IzhikevichNode": {"a": 0.3, "b": 0.2}, "EIFNode": {"delta_T": 0.7}}


def pairwise(options: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Few combinations in which every two values of two options meet somewhere."""
    names = list(options)
    wanted = {
        (a, i, b, j)
        for a, b in itertools.combinations(names, 2)
        for i in range(len(options[a]))
        for j in range(len(options[b]))
    }
    found = []
    while wanted:
        chosen: dict[str, int] = {}
        a, i, b, j = min(wanted, key=lambda pair: (names.index(pair[0]), pair[1], names.index(pair[2]), pair[3]))
        chosen[a], chosen[b] = i, j
        for name in names:
            if name not in chosen:
                gain = [
                    sum(pair in wanted for pair in _pairs({**chosen, name: k}, names))
                    for k in range(len(options[name]))
                ]
                chosen[name] = gain.index(max(gain))
        wanted -= set(_pairs(chosen, names))
        found.append({name: options[name][k] for name, k in chosen.items()})
    return found


def _pairs(chosen: Mapping[str, int], names: Sequence[str]) -> Iterator[tuple[str, int, str, int]]:
    for a, b in itertools.combinations([name for name in names if name in chosen], 2):
        yield a, chosen[a], b, chosen[b]


def label(settings: Mapping[str, Any]) -> str:
    """A combination as part of a test's name."""
    return "-".join(str(value).removeprefix("torch.") for value in settings.values())


def make(settings: Mapping[str, Any], step: Sequence[int], backend: str = "auto") -> BaseNode:
    """The neuron of a combination, for steps of shape ``step``.

    Every parameter that may be a tensor is a learnable one where ``params`` says so: one number (``scalar``), one a
    channel (axis 1) or one an element.
    """
    kind = getattr(neurons, settings["neuron"])
    options = {"detach_reset": settings["detach_reset"], "v_reset": settings["v_reset"], "step_mode": "m"}
    options["store_v_seq"] = settings["store_v_seq"]
    if settings["neuron"] in ("LIFNode", "ParametricLIFNode"):
        options["decay_input"] = settings["decay_input"]
    surrogate = getattr(surrogates, settings["surrogate"])()
    node = kind(**options, **_EXTRA.get(settings["neuron"], {}), surrogate_function=surrogate, backend=backend)
    shapes = {"scalar": (), "channel": (step[1], *(1 for _ in step[2:])), "element": tuple(step[1:])}
    if (shape := shapes.get(settings["params"])) is not None:
        generator = torch.Generator().manual_seed(3)
        for name in node._values:
            value = getattr(node, name)
            if isinstance(value, float):
                drawn = value * (1.0 + 0.2 * torch.rand(shape, generator=generator)) + 0.05
                node.register_value(name, nn.Parameter(drawn))
            elif isinstance(value, nn.Parameter):
                node.register_value(name, nn.Parameter(0.3 * torch.rand(shape, generator=generator)))
    return node.to(torch.float64) if settings["dtype"] == torch.float64 else node
