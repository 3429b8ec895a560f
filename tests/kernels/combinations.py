"""Which settings of which neurons the tests of generated kernels go through."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from jellyfit import neurons, surrogates
from jellyfit.neurons import BaseNode

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class _Gated(neurons.GatedLIFNode):
    """The part of it that is a kernel, for any number of steps: without the conductances, which scale the input."""

    forward = BaseNode.forward


_STAND_INS: Mapping[str, type[BaseNode]] = {"GatedLIFNode": _Gated}
NEURONS = [
    name
    for name in neurons.__all__
    if isinstance(kind := getattr(neurons, name), type)
    and issubclass(kind, BaseNode)
    and kind.neuronal_charge is not BaseNode.neuronal_charge
    and kind.multi_step_forward is BaseNode.multi_step_forward
    and name != "OTTTLIFNode"  # step by step alone; its kernel is that of SLTTLIFNode
]
SURROGATES = [
    name
    for name in surrogates.__all__
    if isinstance(kind := getattr(surrogates, name), type)
    and kind not in (surrogates.SurrogateFunction, surrogates.PoissonPass)  # random numbers do not fuse
]

WITH_EVERY_NEURON = ("Sigmoid", "ATan", "PiecewiseQuadratic", "Rect", "DeterministicPass")
SETTINGS: Mapping[str, Sequence[Any]] = {
    "neuron": NEURONS,
    "surrogate": WITH_EVERY_NEURON,
    "dtype": DTYPES,
    "params": ("numbers", "scalar", "channel", "element"),
    "v_reset": (None, -0.2, 0.0),
    "detach_reset": (False, True),
    "decay_input": (False, True),
    "store_v_seq": (False, True),
}

# What has no default, and where the default says nothing: an adaptation that does something, exponents that stay small.
_EXTRA: Mapping[str, Mapping[str, Any]] = {
    "IzhikevichNode": {"a": 0.3, "b": 0.2},
    "EIFNode": {"delta_T": 0.7},
    "AdaptiveLIFNode": {"tau_a": 5.0},
    "KLIFNode": {"scale_reset": True, "init_k": 1.2},
    "LIAFNode": {"act": torch.tanh, "threshold_related": True},
    "GatedLIFNode": {"T": 1},
}


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


def every(options: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every neuron with some surrogates, and every other surrogate with one neuron."""
    others = [name for name in SURROGATES if name not in options["surrogate"]]
    few = {
        "neuron": ("LIFNode",),
        "surrogate": others,
        "dtype": (torch.float32, torch.bfloat16),
        "params": ("numbers", "channel"),
        "v_reset": (None, -0.2),
    }
    return pairwise(options) + pairwise({**options, **few})


def label(settings: Mapping[str, Any]) -> str:
    """A combination as part of a test's name."""
    return "-".join(str(value).removeprefix("torch.") for value in settings.values())


def build(neuron: str, **options: Any) -> BaseNode:
    """The neuron of that name in multi-step mode, with those of ``options`` that it takes."""
    kind = _STAND_INS.get(neuron) or getattr(neurons, neuron)
    takes = inspect.signature(kind).parameters
    given = {**options, "step_mode": "m"}
    return kind(**_EXTRA.get(neuron, {}), **{name: value for name, value in given.items() if name in takes})


def make(settings: Mapping[str, Any], step: Sequence[int], backend: str = "auto") -> BaseNode:
    """The neuron of a combination, for steps of shape ``step``.

    Every parameter that may be a tensor is a learnable one where ``params`` says so: one number (``scalar``), one a
    channel (axis 1) or one an element.
    """
    torch.manual_seed(0)  # some start from numbers drawn at random
    node = build(
        settings["neuron"],
        surrogate_function=getattr(surrogates, settings["surrogate"])(),
        backend=backend,
        **{name: settings[name] for name in ("v_reset", "detach_reset", "decay_input", "store_v_seq")},
    )
    shapes = {"scalar": (), "channel": (step[1], *(1 for _ in step[2:])), "element": tuple(step[1:])}
    if (shape := shapes.get(settings["params"])) is not None:
        generator = torch.Generator().manual_seed(3)
        for name in node._values:
            value = getattr(node, name)
            if isinstance(value, float):
                drawn = value * (1.0 + 0.2 * torch.rand(shape, generator=generator)) + 0.05
                node.register_value(name, nn.Parameter(drawn))
            elif isinstance(value, nn.Parameter):  # from where it starts: a factor near 0 would only add up rounding
                drawn = value.detach() + 0.3 * torch.rand(shape, generator=generator)
                node.register_value(name, nn.Parameter(drawn))
    return node.to(torch.float64) if settings["dtype"] == torch.float64 else node


class Oddly(BaseNode):
    """Memories called like words of C++, like what stands around the lines, and like nothing in ASCII."""

    NAMES = (
        "new", "template", "state", "grad", "keep", "EXP", "number0", "first_v", "grad_v", "s", "x1", "τ", "t0",
        "buffer0", "v_in", "first", "kept_h", "v_",
    )  # fmt: skip

    def __init__(self, **options):
        super().__init__(surrogate_function=surrogates.ATan(), step_mode="m", **options)
        for name in self.NAMES:
            self.register_memory(name, 0.5)

    def neuronal_charge(self, x):
        self.v = self.v * 0.5 + torch.exp(-x * x) * torch.tanh(self.buffer0) + torch.exp(-self.v_in * self.v_in)
        for name in self.NAMES:
            self.v = self.v + 0.1 * getattr(self, name)
            setattr(self, name, getattr(self, name) * 0.5 + x)
