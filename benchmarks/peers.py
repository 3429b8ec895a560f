"""The contenders of the benchmarks: jellyfit's neurons and those of other libraries that solve the same equations.

Libraries differ in details: whether the input decays, whether the reset carries a gradient, which surrogates there are.
So each peer stands beside its *twin*, jellyfit's neuron with the peer's very equation; the twin is what it is checked
against and what its time is divided by. A peer runs in the form that suits it best: all of the sequence in one call
where it takes one, else a loop over ``x.unbind(0)``, with the functional interface where there is one.
"""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import importlib.util
import logging
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jellyfit import neurons, surrogates
from jellyfit.kernels.linear import Linear

LIBRARIES = {"SpikingJelly": "spikingjelly", "snnTorch": "snntorch", "Norse": "norse"}
NEURONS = ("IF", "LIF", "PLIF", "EIF", "Izhikevich")


def torchs_linear(net: nn.Module) -> None:
    """Give ``net`` torch's linear layers, which peers have, in place of jellyfit's; parameters stay the same ones."""
    for name, layer in list(net.named_modules()):
        if isinstance(layer, Linear):
            plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
            plain.weight, plain.bias = layer.weight, layer.bias
            net.set_submodule(name, plain)


@dataclass(frozen=True)
class Runner:
    """A neuron of some library as a function: spikes ``[T, N, *]`` of an input ``[T, N, *]``, from a reset state."""

    run: Callable[[Tensor], Tensor]
    params: tuple[Tensor, ...] = ()
    module: Any = None

    def forward_backward(self, x: Tensor, grad: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Spikes, and the gradients of ``x`` and of the parameters when that of the spikes is ``grad``."""
        spikes = self.run(x)
        return spikes, torch.autograd.grad(spikes, (x, *self.params), grad)


@dataclass(frozen=True)
class Peer:
    """A neuron of another library, and jellyfit's with the same equation (``None``: it is :func:`main_neuron`)."""

    library: str
    what: str
    runner: Runner
    twin: neurons.BaseNode | None = None


def installed(library: str) -> bool:
    return importlib.util.find_spec(LIBRARIES[library]) is not None


def version(library: str) -> str | None:
    return importlib.metadata.version(LIBRARIES[library]) if installed(library) else None


def ours(node: neurons.BaseNode, backend: str = "auto") -> Runner:
    """A copy of a neuron of jellyfit."""
    node = copy.deepcopy(node)
    node.step_mode, node.backend = "m", backend
    return _stateful(node)


def _stateful(node: Any, compiled: Callable[[Tensor], Tensor] | None = None) -> Runner:
    """A neuron that keeps its state, and optionally its compiled form: reset it, then run it."""

    def run(x: Tensor) -> Tensor:
        node.reset()
        return (node if compiled is None else compiled)(x)  # type: ignore[no-any-return]

    return Runner(run, tuple(node.parameters()), node)


def compiled(runner: Runner) -> Runner:
    """The same neuron under ``torch.compile``, for one shape."""
    torch._dynamo.reset()
    return _stateful(runner.module, torch.compile(runner.module, dynamic=False))


def main_neuron(neuron: str) -> neurons.BaseNode:
    """The neuron that is measured: SpikingJelly's equation and defaults (τ = 2, threshold 1, hard reset), with ATan."""
    atan = surrogates.ATan()
    if neuron == "IF":
        return neurons.IFNode(surrogate_function=atan)
    if neuron == "LIF":
        return neurons.LIFNode(tau=2.0, surrogate_function=atan)
    if neuron == "PLIF":
        return neurons.ParametricLIFNode(init_tau=2.0, surrogate_function=atan)
    if neuron == "EIF":
        return neurons.EIFNode(surrogate_function=atan)
    return neurons.IzhikevichNode(v_reset=-0.1, a=0.2, b=0.1, surrogate_function=atan)


def peers(neuron: str, without: Collection[str] = ()) -> list[Peer]:
    """The installed peers that have ``neuron``."""
    found = []
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)  # it says for each neuron that there is none
    for library, maker in (("SpikingJelly", _spikingjelly), ("snnTorch", _snntorch), ("Norse", _norse)):
        if library not in without and installed(library):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what its dependencies say at import is not our matter
                made = maker(neuron)
            if made is not None:
                found.append(made)
    return found


# -------------------------------------------------------------------- SpikingJelly: the same equations and surrogate


def _spikingjelly(neuron: str) -> Peer:
    """Its multi-step mode; on the CPU SpikingJelly 2.0 runs PyTorch operations, for LIF with a backward of its own."""
    theirs = importlib.import_module("spikingjelly.activation_based.neuron")
    atan = importlib.import_module("spikingjelly.activation_based.surrogate").ATan()
    if neuron == "IF":
        node = theirs.IFNode(surrogate_function=atan, step_mode="m")
    elif neuron == "LIF":
        node = theirs.LIFNode(tau=2.0, surrogate_function=atan, step_mode="m")
    elif neuron == "PLIF":
        node = theirs.ParametricLIFNode(init_tau=2.0, surrogate_function=atan, step_mode="m")
    elif neuron == "EIF":
        node = theirs.EIFNode(surrogate_function=atan, step_mode="m")
    else:
        node = theirs.IzhikevichNode(v_reset=-0.1, a=0.2, b=0.1, surrogate_function=atan, step_mode="m")
    what = f"{type(node).__name__}(step_mode='m'), surrogate ATan"
    return Peer("SpikingJelly", what, _stateful(node))


# -------------------------------------------------------------------- snnTorch: Leaky, stepped in a loop


class LearnableBeta(neurons.BaseNode):
    """Twin of snnTorch's ``Leaky(learn_beta=True)``: ``h = clamp(β, 0, 1) v + x``."""

    def __init__(self, beta: float) -> None:
        super().__init__(detach_reset=True, surrogate_function=surrogates.ATan())
        self.beta = nn.Parameter(torch.tensor(beta))

    def neuronal_charge(self, x: Tensor) -> None:
        self.v = nn.functional.hardtanh(self.beta, 0.0, 1.0) * self.v + x


def _snntorch(neuron: str) -> Peer | None:
    """``Leaky``: ``h = β v + x``, where the input does not decay and no gradient goes through the reset.

    Its reset happens at the beginning of the next step, not at the end of this one, so the membrane that it returns is
    the one before the reset; the spikes are the same. That holds for ``reset_mechanism="zero"`` only: "subtract" takes
    the threshold off after the decay, other libraries (and papers) before it, and later spikes then differ. A neuron
    exactly at the threshold spikes here and in SpikingJelly, but not in snnTorch and Norse; the random input of the
    checks never is.
    """
    beta = {"IF": 1.0, "LIF": 0.5, "PLIF": 0.5}.get(neuron)
    if beta is None:
        return None
    snntorch = importlib.import_module("snntorch")
    atan = importlib.import_module("snntorch.surrogate").atan(alpha=2.0)
    leaky = snntorch.Leaky(beta=beta, spike_grad=atan, reset_mechanism="zero", learn_beta=neuron == "PLIF")

    def run(x: Tensor) -> Tensor:
        spikes, mem = [], torch.zeros_like(x[0])
        for step in x.unbind(0):
            spike, mem = leaky(step, mem)
            spikes.append(spike)
        return torch.stack(spikes)

    twins = {
        "IF": neurons.IFNode(detach_reset=True, surrogate_function=surrogates.ATan()),
        "LIF": neurons.LIFNode(tau=2.0, decay_input=False, detach_reset=True, surrogate_function=surrogates.ATan()),
        "PLIF": LearnableBeta(beta),
    }
    learnt = ", learn_beta=True" if neuron == "PLIF" else ""
    what = f"Leaky(beta={beta}{learnt}, reset_mechanism='zero') in a loop, surrogate atan"
    return Peer("snnTorch", what, Runner(run, tuple(leaky.parameters())), twins[neuron])


# -------------------------------------------------------------------- Norse: functional steps in a loop


class SuperSpike(surrogates.SurrogateFunction):
    """Norse's surrogate, ``1 / (1 + |x|)²``: it has no ATan, and this is the cheapest of those that it has."""

    def gradient(self, x: Tensor) -> Tensor:
        return 1.0 / (x.abs() + 1.0).square()


class NorseIzhikevich(neurons.BaseNode):
    """Twin of Norse's Izhikevich neuron, whose recovery ``u`` follows the potential before the charge, not after it."""

    def __init__(self) -> None:
        super().__init__(v_reset=-0.1, surrogate_function=SuperSpike())
        self.register_memory("u", 0.0)

    def neuronal_charge(self, x: Tensor) -> None:
        v, u = self.v, self.u
        self.v = v + 0.5 * (v**2 + -0.7 * v + -0.08 - u + x)
        self.u = u + 0.5 * (0.2 * v - u)

    def neuronal_reset(self, spike: Tensor) -> None:
        super().neuronal_reset(spike)
        self.u = (1.0 - spike) * self.u + spike * (self.u + 0.1)


def _norse(neuron: str) -> Peer | None:
    """One functional step after another, with the simplest neuron of each kind (no synaptic current)."""
    norse = importlib.import_module("norse.torch")
    twin: neurons.BaseNode
    if neuron == "IF":
        what, twin = "iaf_feed_forward_step", neurons.IFNode(surrogate_function=SuperSpike())
        p, function = norse.IAFParameters(), norse.iaf_feed_forward_step
        state = norse.IAFFeedForwardState(v=torch.tensor(0.0))
    elif neuron == "LIF":
        what, twin = "lif_box_feed_forward_step", neurons.LIFNode(tau=2.0, surrogate_function=SuperSpike())
        p, function = norse.LIFBoxParameters(tau_mem_inv=torch.tensor(0.5)), norse.lif_box_feed_forward_step
        state = norse.LIFBoxFeedForwardState(v=torch.tensor(0.0))
    elif neuron == "Izhikevich":
        what, twin = "izhikevich_feed_forward_step", NorseIzhikevich()
        p = norse.IzhikevichParameters(a=1.0, b=0.2, c=-0.1, d=0.1, sq=1.0, mn=-0.7, bias=-0.08, v_th=1.0, tau_inv=0.5)
        function = norse.izhikevich_feed_forward_step
        state = norse.IzhikevichState(v=torch.tensor(-0.1), u=torch.tensor(0.0))
    else:
        return None

    def run(x: Tensor) -> Tensor:
        spikes, now = [], state
        for step in x.unbind(0):
            spike, now = function(step, now, p, 1.0)
            spikes.append(spike)
        return torch.stack(spikes)

    return Peer("Norse", f"{what} in a loop, surrogate SuperSpike", Runner(run), twin)


# -------------------------------------------------------------------- the checks


def check(name: str, runner: Runner, reference: Runner, x: Tensor, grad: Tensor) -> dict[str, Any]:
    """Compare two runners: ``equal`` says whether all spikes are equal and gradients close."""
    x = x.detach().requires_grad_()
    spikes, grads = runner.forward_backward(x, grad)
    expected, expected_grads = reference.forward_backward(x, grad)
    differing = int((spikes != expected).sum())
    error = max(
        float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in zip(grads, expected_grads, strict=True)
    )
    rate = float(expected.detach().mean())
    return {
        "check": name,
        "equal": differing == 0 and error < 1e-3 and 0.0 < rate < 1.0,
        "spikes": spikes.numel(),
        "differing": differing,
        "gradient_error": error,
        "firing_rate": rate,
    }


def saved_bytes(runner: Runner, x: Tensor) -> int:
    """Bytes of the distinct tensors that a forward pass over ``x`` keeps for backward, ``x`` itself not counted."""
    runner.run(x)  # what is done at first use only is not what is kept
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # keeps the memory, so that its address stays taken

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        spikes = runner.run(x)
    storages.pop(x.untyped_storage().data_ptr(), None)
    assert spikes.requires_grad
    return sum(storages.values())
