"""Rows of neurons."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jellyfit import neurons
from tests.compat.rows import Row, close, peer

T, N, C = 5, 3, 12
DEFAULT = {"v_threshold": (1.0, 0.6), "v_reset": (0.0, None, -0.2), "detach_reset": (False, True)}
LEAK = {**DEFAULT, "tau": (2.0, 3.7), "decay_input": (True, False)}
BOUNDED = {"v_reset": (0.0, -0.2), "detach_reset": (False, True)}  # without a hard reset these grow beyond all bounds


def drive(dtype: torch.dtype, scale: float = 1.5, shift: float = 0.4) -> Tensor:
    """Input of both signs, and large enough that a neuron sometimes fires and sometimes stays silent."""
    generator = torch.Generator().manual_seed(7)
    return (scale * torch.randn(T, N, C, generator=generator, dtype=torch.float64) + shift).to(dtype)


def run(node: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Outputs, states and gradients of a weighted sum of the outputs."""
    node.to(x.dtype)
    x = x.clone().requires_grad_()
    outputs = node(x) if getattr(node, "step_mode", "m") == "m" else [node(step) for step in x]
    if isinstance(outputs, list):
        outputs = torch.stack(outputs)
    weights = torch.linspace(-1.0, 2.0, outputs.numel(), dtype=x.dtype).view_as(outputs)
    (outputs * weights).sum().backward()
    found = {"output": outputs.detach(), "gradient of x": x.grad}
    for name in getattr(node, "_memories", {}):
        value = getattr(node, name)
        if isinstance(value, Tensor) and not name.startswith("_"):
            found[f"state {name}"] = value.detach()
    found |= {f"gradient of {name}": p.grad for name, p in node.named_parameters()}
    return {name: value for name, value in found.items() if value is not None}


def pair(name: str, *args: Any, **options: Any) -> tuple[nn.Module, nn.Module]:
    """Ours and theirs, with equal parameters."""
    ours, theirs = getattr(neurons, name)(*args, **options), getattr(peer("neuron"), name)(*args, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def same_surrogate(ours: nn.Module, theirs: nn.Module) -> None:
    """Assert that both have the same surrogate by default."""
    x = torch.linspace(-2.0, 2.0, 101, dtype=torch.float64)
    found = []
    for node in (ours, theirs):
        argument = x.clone().requires_grad_()
        node.surrogate_function(argument).sum().backward()
        found.append(argument.grad)
    torch.testing.assert_close(found[0], found[1])


def compare(
    name: str,
    options: dict[str, tuple[Any, ...]] | None = None,
    args: tuple[Any, ...] = (),
    modes: str = "sm",
) -> Callable[[], None]:
    """A check that both give the same for every combination of options, in both step modes and two dtypes."""

    def check() -> None:
        same_surrogate(*pair(name, *args))
        given = options or {}
        for values in itertools.product(*given.values()):
            chosen = dict(zip(given, values, strict=True))
            for mode, dtype in itertools.product(modes, (torch.float32, torch.float64)):
                ours, theirs = pair(name, *args, **chosen)
                ours.step_mode = theirs.step_mode = mode
                ours.backend = "torch" if chosen != {} and dtype == torch.float32 else "auto"
                x = drive(dtype)
                found, expected = run(ours, x), run(theirs, x)
                assert expected.keys() <= found.keys()
                for key, value in expected.items():
                    scale = value.abs().max().clamp(min=1.0)  # sums of many terms: relative to the largest
                    close(found[key] / scale, value / scale, f"{name} {chosen} {mode} {dtype} {key}")

    return check


def base_node(name: str) -> Callable[[], None]:
    """The difference: SpikingJelly 2.0 no longer runs a subclass that says how it charges."""

    def charge(self: Any, x: Tensor) -> None:
        self.v = self.v * 0.5 + x

    def check() -> None:
        ours, theirs = (
            type("Mine", (getattr(module, name),), {"neuronal_charge": charge})()
            for module in (neurons, peer("neuron"))
        )
        same_surrogate(ours, theirs)
        assert ours(torch.ones(1, 2)).tolist() == [[1.0, 1.0]]
        with pytest.raises(NotImplementedError, match="single_step_functional_forward"):
            theirs(torch.ones(1, 2))

    return check


def liaf() -> None:
    """The difference: SpikingJelly's multi-step mode gives another output than its single-step mode."""
    for options in ({}, {"tau": 3.7, "v_reset": None}, {"v_threshold": 0.6, "detach_reset": True}):
        for act, related in ((torch.tanh, True), (torch.relu, False)):
            compare("LIAFNode", {name: (value,) for name, value in options.items()}, (act, related), modes="s")()
            ours, theirs = pair("LIAFNode", act, related, **options)
            expected = run(theirs, drive(torch.float64))["output"]
            for node in (ours, theirs):
                node.reset()
                node.step_mode = "m"
            close(run(ours, drive(torch.float64))["output"], expected)
            wrong = run(theirs, drive(torch.float64))["output"]
            assert set(wrong.unique().tolist()) <= {0.0, 1.0}
            assert not torch.allclose(wrong, expected)


def non_spiking(name: str, **options: Any) -> Callable[[], None]:
    def check() -> None:
        for decode in ("max-mem", "max-abs-mem", "mean-mem"):
            ours, theirs = pair(name, decode=decode, **options)
            ours.step_mode = "m"
            found, expected = run(ours, drive(torch.float64)), run(theirs, drive(torch.float64))
            close(found["output"], expected["output"], decode)
            close(found["gradient of x"], expected["gradient of x"], decode)
        ours, theirs = pair(name, **options)
        ours.step_mode = "m"
        x = drive(torch.float64)
        potentials = theirs(x)
        assert isinstance(potentials, list)  # the difference
        assert isinstance(getattr(peer("neuron"), name)(decode="last-mem", **options)(x), list)
        close(ours(x), torch.stack(potentials))
        close(ours.v, potentials[-1])

    return check


def non_spiking_base() -> None:
    assert issubclass(peer("neuron").NonSpikingIFNode, peer("neuron").NonSpikingBaseNode)
    assert issubclass(neurons.NonSpikingIFNode, neurons.NonSpikingBaseNode)
    assert neurons.NonSpikingBaseNode().decode is None
    assert not hasattr(peer("neuron").NonSpikingIFNode(), "reset")  # the difference: ours remembers
    assert hasattr(neurons.NonSpikingIFNode(), "reset")


def psn(name: str, *args: Any) -> Callable[[], None]:
    def check() -> None:
        torch.manual_seed(0)
        ours, theirs = pair(name, *args)
        same_surrogate(ours, theirs)
        for mode in ("m",) if name == "PSN" else "ms":
            ours, theirs = pair(name, *args)
            ours.step_mode = theirs.step_mode = mode
            if name == "MaskedPSN":
                for node in (ours, theirs):
                    node.lambda_ = 1.0 if mode == "s" else 0.3
            for dtype in (torch.float32, torch.float64):
                for node in (ours, theirs):
                    node.zero_grad()
                    if hasattr(node, "reset"):
                        node.reset()
                x = drive(dtype, shift=1.2)
                found, expected = run(ours, x), run(theirs, x)
                assert 0.02 < expected["output"].mean() < 0.98
                for key, value in expected.items():
                    if not key.startswith("state "):
                        close(found[key], value, f"{mode} {dtype} {key}")

    return check


def otttlif() -> None:
    for options in ({}, {"tau": 3.0, "decay_input": True, "v_reset": 0.0}):
        ours, theirs = pair("OTTTLIFNode", **options)
        same_surrogate(ours, theirs)
        for x in drive(torch.float32):
            found, expected = ours(x), theirs(x)
            assert isinstance(found, tuple)
            assert isinstance(expected, list)  # the difference
            for mine, other in zip(found, expected, strict=True):
                close(mine, other)
        assert not found[1].requires_grad
        for node in (ours, theirs):
            node.eval()
            node.reset()
        for x in drive(torch.float32):
            assert torch.equal(ours(x), theirs(x))
    ours, theirs = pair("OTTTLIFNode")
    gradients = []
    for node in (ours, theirs):
        x = drive(torch.float64).requires_grad_()
        sum((node(step)[0] * (t + 1)).sum() for t, step in enumerate(x)).backward()
        gradients.append(x.grad)
    close(*gradients)


def gated() -> None:
    """The difference: SpikingJelly's goes through images in multi-step mode alone."""
    per_channel = {"inplane": C}
    for options in (
        {},
        per_channel,
        {**per_channel, "init_linear_decay": 0.1, "init_v_subreset": 0.3, "init_tau": 0.4, "init_conduct": 0.7},
    ):
        ours, theirs = pair("GatedLIFNode", T, **options)
        for name, parameter in neurons.GatedLIFNode(T, **options).named_parameters():
            if name not in ("alpha", "beta", "gamma"):  # these start at random
                close(parameter, dict(theirs.named_parameters())[name], name)
        x = drive(torch.float32)[..., None, None]
        found, expected = run(ours, x), run(theirs, x)
        for key, value in expected.items():
            if not key.startswith("state "):
                close(found[key], value, key)
        single = neurons.GatedLIFNode(T, **options, step_mode="s")
        single.load_state_dict(ours.state_dict())
        result = run(single, x)
        close(result["output"], found["output"])
        close(result["gradient of x"], found["gradient of x"])
    ours, theirs = pair("GatedLIFNode", T, inplane=C)
    x = drive(torch.float32)
    assert ours(x).shape == x.shape
    assert theirs(x).shape != x.shape
    with pytest.raises(AssertionError):
        peer("neuron").GatedLIFNode(T, step_mode="s")(x[0])


LATER_CONTROL = "comes with reinforcement learning (population-coded actors)"
LATER_CONVERSION = "comes with ANN-to-SNN conversion"
OWN = "a neuron of your own is a class with one equation, `neuronal_charge`, and runs on fused kernels"
BASE = (
    "a subclass writes `neuronal_charge`, as in the paper and in SpikingJelly before 2.0, which wants the whole step, "
    "as `single_step_functional_forward`"
)
STATES = {"store_state_seqs": "`store_v_seq` keeps the potentials; `m` is an attribute"}

ROWS: list[Row] = [
    Row("BaseNode", "different", base_node("BaseNode"), note=BASE),
    Row("IFNode", "same", compare("IFNode", DEFAULT)),
    Row("LIFNode", "same", compare("LIFNode", LEAK)),
    Row(
        "ParametricLIFNode",
        "same",
        compare("ParametricLIFNode", {**DEFAULT, "init_tau": (2.0, 3.7), "decay_input": (True, False)}),
    ),
    Row("QIFNode", "same", compare("QIFNode", {**BOUNDED, "tau": (3.7,), "a0": (0.7,), "v_c": (0.5,)})),
    Row("EIFNode", "same", compare("EIFNode", {**BOUNDED, "delta_T": (0.7,), "theta_rh": (0.6,)})),
    Row("AdaptBaseNode", "different", base_node("AdaptBaseNode"), note=BASE),
    Row(
        "IzhikevichNode",
        "same",
        compare(
            "IzhikevichNode", {"v_reset": (None, -0.2), "detach_reset": (False, True), "a": (0.0, 0.3), "b": (0.2,)}
        ),
    ),
    Row("KLIFNode", "same", compare("KLIFNode", {**LEAK, "scale_reset": (False, True)})),
    Row(
        "LIAFNode",
        "different",
        liaf,
        note="the same numbers step by step; in multi-step mode SpikingJelly gives LIF spikes instead of `act`",
    ),
    Row(
        "CUBALIFNode",
        "same",
        compare("CUBALIFNode", {"v_reset": (0.0, None), "c_decay": (0.5, 0.3), "v_threshold": (0.5, 1.0)}),
    ),
    Row(
        "ComplementaryLIFNode",
        "different",
        compare("ComplementaryLIFNode", {"tau": (2.0, 3.0), "v_threshold": (1.0, 0.7)}),
        arguments=STATES,
        note="the same numbers",
    ),
    Row(
        "GatedLIFNode",
        "different",
        gated,
        note="the same numbers; also runs step by step, and on `[T, N, C]`",
    ),
    Row(
        "ILIFNode",
        "same",
        compare("ILIFNode", {"tau": (4 / 3, 2.0), "v_threshold": (1.0, 0.6), "detach_reset": (False, True)}),
    ),
    Row("TernaryIFNode", "same", compare("TernaryIFNode", DEFAULT)),
    Row("TernaryLIFNode", "same", compare("TernaryLIFNode", LEAK)),
    Row("RAFNode", "same", compare("RAFNode", {**DEFAULT, "b": (-0.2, -0.5), "omega": (1.0, 2.0), "dt": (1.0, 0.5)})),
    Row(
        "NonSpikingBaseNode",
        "different",
        non_spiking_base,
        note="both step modes; keeps its potential until `reset_net`, as every neuron does",
    ),
    Row(
        "NonSpikingIFNode",
        "different",
        non_spiking("NonSpikingIFNode"),
        note="without `decode` a tensor `[T, N, *]` instead of a list; `decode='last-mem'` gives the last potential",
    ),
    Row("NonSpikingLIFNode", "different", non_spiking("NonSpikingLIFNode", tau=3.0), note="as `NonSpikingIFNode`"),
    Row("PSN", "same", psn("PSN", T)),
    Row("MaskedPSN", "same", psn("MaskedPSN", 2, T)),
    Row("SlidingPSN", "same", psn("SlidingPSN", 3)),
    Row(
        "OTTTLIFNode",
        "different",
        otttlif,
        note="the same numbers; in training a tuple `(spike, trace)` instead of a list",
    ),
    Row("SLTTLIFNode", "same", compare("SLTTLIFNode", LEAK, modes="s")),
    Row("SimpleBaseNode", "absent", note="use `neurons.BaseNode`"),
    Row("SimpleIFNode", "absent", note="use `neurons.IFNode`"),
    Row("SimpleLIFNode", "absent", note="use `neurons.LIFNode`"),
    *(Row(name, "absent", note=LATER_CONTROL) for name in ("ILCBaseNode", "ILCCUBALIFNode", "ILCIFNode", "ILCLIFNode")),
    *(
        Row(name, "absent", note=LATER_CONVERSION)
        for name in (
            "ActivationAwareIFNode",
            "HalfThresholdIFNode",
            "STBIFNode",
            "FewSpikeNode",
            "FewSpikeTable",
            "HGNode",
            "OutlierAwareThresholdNode",
        )
    ),
    Row("FlexSN", "absent", note="not needed: every subclass of `BaseNode` is fused"),
    *(
        Row(name, "absent", note=OWN)
        for name in (
            "DSRIFNode",
            "DSRLIFNode",
            "MPBNBaseNode",
            "MPBNLIFNode",
            "NoisyBaseNode",
            "NoisyCUBALIFNode",
            "NoisyILCBaseNode",
            "NoisyILCCUBALIFNode",
            "NoisyNonSpikingBaseNode",
            "NoisyNonSpikingIFNode",
        )
    ),
    Row("powerlaw_psd_gaussian", "absent", note="a helper of the noisy neurons"),
]
