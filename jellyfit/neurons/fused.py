"""How a neuron finds its kernels: one :class:`NodeKernels` a neuron, made when it first runs.

Kernels are traced from the neuron's own equations, for one shape, dtype and set of settings. Changing a setting
(``node.tau = 4.0``) traces anew.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from jellyfit import kernels
from jellyfit.errors import ConfigError
from jellyfit.kernels import (
    FusedStep,
    KernelUnavailableError,
    KernelWarning,
    Normalisation,
    NotPointwiseError,
    batch_norm_step,
)
from jellyfit.neurons import compiled
from jellyfit.neurons.pure import fresh_twin_of, twin_of

if TYPE_CHECKING:
    from jellyfit.neurons.base import BaseNode

__all__ = ["NodeKernels"]

_CHANGING = {
    "training",
    "_path",
    "_step_mode",
    "_state_dtype",
    "_kernels",
    "_backwarded",
    "_reset_by",
    "_v_seq",
    "_parameters",
    "_buffers",
    "_modules",
}
_KEPT = 64  # plans of a neuron: as many shapes as one network meets
_OFTEN = 3
_warned: set[str] = set()


class NodeKernels:
    """The kernels of one neuron.

    Args:
        node: the neuron.
    """

    def __init__(self, node: BaseNode) -> None:
        self.node = node
        self.step = node_step(node)
        self.number = compiled.register(node)
        self.states = [name for name in node._memories if not name.startswith("_")]
        self._plans: dict[tuple[Any, ...], FusedStep | str] = {}
        self._tables: list[dict[str, Any]] = []  # what every module in the neuron holds: attributes, parameters, ...
        self._sizes: list[int] = []
        self._getters: list[tuple[Callable[[Any], Any], dict[str, Any]]] = []  # of settings, or of modules within
        self._settings: list[Any] = []
        self._params: list[tuple[dict[str, Any], str]] = []
        self._latest: tuple[tuple[Any, ...], FusedStep] | None = None  # what the latest call used
        self._to_say = ""
        self._changes = 0

    # ---------------------------------------------------------------- finding a plan

    def plan(
        self,
        x: Tensor,
        call: Callable[..., FusedStep | str] | None = None,
        affine: bool = False,
        residual: bool = False,
    ) -> FusedStep | None:
        """Kernels for input ``x`` ``[T, N, *]``, or ``None`` where eager PyTorch has to do it.

        Args:
            x: the input.
            call: how to call what makes new kernels; default: plainly.
            affine: see :class:`~jellyfit.kernels.FusedStep`.
            residual: see there.

        Raises:
            ConfigError: the neuron's ``backend`` asks for kernels that cannot run.
        """
        if not (self._tables and self._unchanged()):
            self._look_at_settings()
        try:
            key = (x.shape, x.dtype, x.device, (affine, residual), self._kinds())
        except AttributeError:  # a tensor has become a number
            self._tables.clear()
            return self.plan(x, call, affine, residual)
        if self._latest is not None and key == self._latest[0]:  # quicker than to hash it
            return self._latest[1]
        found = self._find(key, x, call)
        self._latest = None if found is None else (key, found)
        return found

    def _find(self, key: tuple[Any, ...], x: Tensor, call: Callable[..., FusedStep | str] | None) -> FusedStep | None:
        entry = key[3]
        key = (key[0][1:], *key[1:])  # for any number of time steps
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) >= _KEPT:
                self._plans.clear()
            found = self._plans[key] = call(self._make, x, *entry) if call else self._make(x, *entry)
        if isinstance(found, str):
            if self.node.backend != "auto":
                raise ConfigError(
                    f"{self.node.describe()}: backend={self.node.backend!r} cannot run it: {found}. Use backend='auto' "
                    "or 'torch' to run it in eager PyTorch."
                )
            return None
        return found

    def params(self) -> list[Tensor]:
        """The tensors that the equations use beside input and state: parameters and buffers, in a fixed order."""
        return [owner[name] for owner, name in self._params]

    def _kinds(self) -> tuple[tuple[torch.Size, torch.dtype, bool], ...]:
        """Shape, dtype and wish for a gradient of every parameter."""
        return tuple([(p.shape, p.dtype, p.requires_grad) for p in self.params()])

    def constants(self) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
        """What a compiled graph holds: the node's number, its states, and the dotted names of its tensors."""
        paths = []
        for prefix, module in self.node.named_modules():
            paths += [f"{prefix}.{name}" if prefix else name for _, name in _tensors_of(module)]
        return self.number, tuple(self.states), tuple(paths)

    def _unchanged(self, kinds: Sequence[Any] = ()) -> bool:
        """Whether every setting is what it was when the plans were made (compared by identity first: quick).

        And, where ``kinds`` are given, every parameter of that kind.
        """
        try:
            return (
                list(map(len, self._tables)) == self._sizes
                and [get(table) for get, table in self._getters] == self._settings
                and (not kinds or kinds == self._kinds())
            )
        except Exception:  # one is gone, or is of a kind that cannot tell whether it is equal
            return False

    def _look_at_settings(self) -> None:
        self._changes += bool(self._plans)
        self._plans.clear()
        self._latest = None
        self._tables, self._getters, self._params = [], [], []
        for module in self.node.modules():
            changing = _CHANGING | set(getattr(module, "_memories", ()))
            names = [name for name, value in module.__dict__.items() if name not in changing and not _has_tensor(value)]
            if names:
                self._getters.append((operator.itemgetter(*names), module.__dict__))
            if module._modules:
                self._getters.append((operator.itemgetter(*module._modules), module._modules))
            self._tables += [module.__dict__, module._parameters, module._buffers, module._modules]
            self._params += _tensors_of(module)
        self._sizes = list(map(len, self._tables))
        self._settings = [get(table) for get, table in self._getters]

    # ---------------------------------------------------------------- making one

    def _make(self, x: Tensor, affine: bool, residual: bool) -> FusedStep | str:
        node = self.node
        step = x[0]
        node.check_values(step)
        try:
            if node.backend != "auto":
                kernels.check_device(node.backend, x.device)
            return FusedStep(
                node_step(_without_state(node)),
                step.shape,
                x.dtype,
                x.device,
                self.states,
                [self._start(name) for name in self.states],
                self._kinds(),
                type(node).__name__,
                affine=affine,
                lift=self._changes > _OFTEN,  # a setting that keeps changing is not worth a compilation each time
                residual=residual,
            )
        except KernelUnavailableError as error:
            reason = str(error)
            if reason not in _warned and node.backend == "auto" and x.is_cuda:  # the host's loader warns by itself
                _warned.add(reason)
                warnings.warn(f"Neurons run in eager PyTorch, slower: {reason}", KernelWarning, stacklevel=5)
            return reason
        except NotPointwiseError as error:
            reason = str(error)
        except Exception as error:  # the neuron's own code does not run on the shapes that a trace gives it
            reason = f"its equations cannot be traced ({type(error).__name__}: {error})"
        if node.backend == "auto" and (key := f"{type(node).__qualname__}: {reason}") not in _warned:
            _warned.add(key)
            self._to_say = reason
        return reason

    def source(self, target: str, which: str, shape: torch.Size, dtype: torch.dtype) -> str:
        """The source of a kernel, on any machine.

        Args:
            target: ``"cpu"`` or ``"cuda"``.
            which: ``"forward"`` or ``"backward"``.
            shape: of one step's input.
            dtype: of the input.

        Raises:
            NotPointwiseError: the neuron has none.
        """
        self._look_at_settings()
        start = [self._start(name) for name in self.states]
        title = type(self.node).__name__
        return kernels.source(self.step, shape, dtype, target, self.states, start, self._kinds(), title, which)

    def explain(self) -> None:
        """Say once why the neuron has just run in eager PyTorch (had it failed there too, its error would say more)."""
        if self._to_say:
            reason, self._to_say = self._to_say, ""
            warnings.warn(
                f"{self.node.describe()} runs in eager PyTorch, slower and with the same numbers: {reason}. "
                "backend='torch' says that this is intended.",
                KernelWarning,
                stacklevel=4,
            )

    def _start(self, name: str) -> float:
        value = self.node.reset_value(name)
        if isinstance(value, (int, float)):
            return float(value)
        if name == "v" and value is None:
            return 0.0  # made from v_reset: a tensor is always given
        raise NotPointwiseError(f"its memory {name!r} starts as {type(value).__name__}, not as a number")

    # ---------------------------------------------------------------- running

    def run_again(self, node: BaseNode, x: Tensor) -> Tensor | None:
        """Spikes for input ``x`` ``[T, N, *]`` if it is like the latest call's, and nothing has changed since.

        The quick way for what happens most; everything else (``None``) goes the whole way, with its checks.
        """
        if self._latest is None:
            return None
        (shape, dtype, device, (affine, _), kinds), plan = self._latest
        if (
            kernels.applicable(x)
            and x.shape == shape
            and x.dtype is dtype
            and x.device == device
            and not affine
            and not torch.is_anomaly_enabled()
            and self._unchanged(kinds)
        ):
            return self.run(node, plan, x)
        return None

    def run(
        self,
        node: BaseNode,
        plan: FusedStep,
        x: Tensor,
        norm: Normalisation | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Run ``plan`` over ``x`` ``[T, N, *]`` from the state of ``node``, the neuron or its twin, and leave it there.

        With ``norm`` the input is batch-normalised on the way, and ``residual`` added to it; the plan then is made for
        that.
        """
        memory = node.__dict__
        states: list[Tensor | None] = []
        for name, start in zip(self.states, plan.start, strict=True):
            value = memory[name]
            if isinstance(value, Tensor):
                if value.shape != x.shape[1:] or value.device != x.device or (node._state_dtype or x.dtype) != x.dtype:
                    node._check_state(name, value, x[0])
                states.append(value)
            elif value is None:
                states.append(node.initial_v(x[0], plan.real))
            else:
                states.append(None if value == start else torch.full_like(x[0], value, dtype=plan.real))
        if norm is None:
            spikes, lasts, v_seq = plan(x, states, self.params(), node.store_v_seq)
        else:
            spikes, lasts, v_seq = batch_norm_step(plan, norm, x, states, self.params(), node.store_v_seq, residual)
        for name, last in zip(self.states, lasts, strict=True):
            memory[name] = last
        memory["_state_dtype"] = x.dtype
        if v_seq is not None:
            node._keep_v_seq(v_seq)
        return spikes


def node_step(node: BaseNode) -> Callable[..., tuple[Tensor, list[Tensor]]]:
    """The neuron's ``single_step_forward`` as a function of input, states and parameters."""

    def step(
        x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor], say: Callable[..., None]
    ) -> tuple[Tensor, list[Tensor]]:
        remaining = iter(params)

        def replace(twin: nn.Module) -> None:
            for owner, name in _tensors_of(twin):
                owner[name] = next(remaining)

        twin = twin_of(node, replace)
        names = [name for name in node._memories if not name.startswith("_")]
        twin.__dict__.update(zip(names, states, strict=True))
        kind: Any = type(node)

        def charge(x: Tensor) -> None:
            say("charge")
            kind.neuronal_charge(twin, x)
            say("fire", h=twin.v)

        def reset(spike: Tensor) -> None:
            say("reset")
            kind.neuronal_reset(twin, spike)

        twin.__dict__.update(neuronal_charge=charge, neuronal_reset=reset)
        spike = twin.single_step_forward(x)
        return spike, [twin.__dict__[name] for name in names]

    return step


def _without_state(node: BaseNode) -> BaseNode:
    """A twin that a graph may hold: the neuron holds its state, and so the graph, and neither would be freed."""
    twin: BaseNode = fresh_twin_of(node)
    for module in twin.modules():
        if "_kernels" in module.__dict__:
            module.__dict__["_kernels"] = None
    return twin


def _tensors_of(module: nn.Module) -> list[tuple[dict[str, Any], str]]:
    """Where a module keeps what its equations take beside input and state: attributes, parameters and buffers."""
    memories = getattr(module, "_memories", ())
    return [
        (owner, name)
        for owner in (module.__dict__, module._parameters, module._buffers)
        for name, value in owner.items()
        if isinstance(value, Tensor) and value.is_floating_point() and name not in memories
    ]


def _has_tensor(value: Any) -> bool:
    return isinstance(value, (Tensor, nn.Module)) or (
        isinstance(value, (list, tuple)) and any(isinstance(item, Tensor) for item in value)
    )
