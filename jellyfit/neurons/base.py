"""What a spiking neuron is: charge, fire, reset; and how its state lives, dies and is checked.

Three classes, each a little more than the one before:

* :class:`StepModule` runs one time step a call (``step_mode="s"``) or a whole sequence (``"m"``);
* :class:`MemoryModule` also remembers something between calls (its *memories*, such as a membrane potential);
* :class:`BaseNode` is a neuron: three equations, of which a subclass writes only the one that differs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from jellyfit import kernels, surrogates
from jellyfit.errors import InputError, InputTypeError, StateError
from jellyfit.kernels.freed import Backwarded, is_freed, warned_of
from jellyfit.neurons import compiled, pure
from jellyfit.neurons.fused import NodeKernels

__all__ = ["BaseNode", "MemoryModule", "StepModule", "Value"]

Value: TypeAlias = float | Tensor
"""A neuron's parameter: a number, a per-channel or per-element tensor, or an ``nn.Parameter`` (learnable)."""


class StepModule(nn.Module):
    """A module that can take one time step ``[N, *]`` (``step_mode="s"``) or a sequence ``[T, N, *]`` (``"m"``).

    The same input gives the same result in both modes. Subclasses choose by :attr:`step_mode` in ``forward``.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> node = neurons.LIFNode(step_mode="s")
        >>> node(torch.rand(3, 8)).shape
        torch.Size([3, 8])
        >>> node.reset()
        >>> node.step_mode = "m"
        >>> node(torch.rand(5, 3, 8)).shape
        torch.Size([5, 3, 8])
    """

    keeps_children_single_step: ClassVar[bool] = False
    """Containers that step through time themselves set this: ``functional.set_step_mode`` then leaves what they hold
    in single-step mode."""

    _step_mode: str = "s"
    _path: str = ""  # dotted name in the network, for messages; written by jellyfit.functional

    @property
    def step_mode(self) -> str:
        """``"s"``: one time step a call. ``"m"``: one sequence a call."""
        return self._step_mode

    @step_mode.setter
    def step_mode(self, value: str) -> None:
        if value not in ("s", "m"):
            raise InputError(
                f"step_mode={value!r} given to {type(self).__name__}; expected 's' (one time step [N, *] a call) or "
                "'m' (a sequence [T, N, *] a call)."
            )
        self._step_mode = value

    def describe(self) -> str:
        """The module as an error message should name it: where it is in the network, and what it is."""
        own = f"{type(self).__name__}({self.extra_repr()})"  # one line, without what the module holds
        return f"{self._path!r} ({own})" if self._path else own


def _map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply ``function`` to every tensor in ``value``, which may nest lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_map_tensors(function, item) for item in value)
    if isinstance(value, dict):
        return {key: _map_tensors(function, item) for key, item in value.items()}
    return value


class MemoryModule(StepModule):
    """A :class:`StepModule` with memories: attributes that live from call to call until :meth:`reset`.

    A memory is registered with the value it has after a reset, and then read and written as an ordinary attribute::

        self.register_memory("v", 0.0)      # in __init__
        self.v = self.v + x                 # in single_step_forward

    Memories are never part of ``state_dict``, and are not buffers, so DDP does not broadcast them. They follow
    ``.to()``; copies and pickles hold them detached from any graph.

    Subclasses write :meth:`single_step_forward`; the multi-step form follows from it.

    Args:
        step_mode: ``"s"`` (default) or ``"m"``, see :class:`StepModule`.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> class Sum(neurons.MemoryModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.register_memory("total", 0.0)
        ...
        ...     def single_step_forward(self, x):
        ...         self.total = self.total + x
        ...         return self.total
        >>> module = Sum()
        >>> module(torch.ones(1)), module(torch.ones(1))
        (tensor([1.]), tensor([2.]))
        >>> module.step(torch.ones(1), {"total": 5.0})  # a pure function: what the module remembers is left alone
        (tensor([6.]), {'total': tensor([6.])})
        >>> module.reset()
        >>> module(torch.ones(1))
        tensor([1.])
    """

    _records: ClassVar[tuple[str, ...]] = ()
    """Memories that only record what happened: no part of the state that :meth:`step` and :meth:`run` take and give."""

    _is_twin: bool = False  # see jellyfit.neurons.pure
    _reset_by: int = -1  # the backward pass that has reset it
    _backwarded: Backwarded | None = None  # whether gradients have come through the outputs so far

    def __init__(self, step_mode: str = "s") -> None:
        super().__init__()
        self._memories: dict[str, Any] = {}
        self.step_mode = step_mode

    def register_memory(self, name: str, value: Any) -> None:
        """Add a memory whose value after a reset is ``value``.

        Args:
            name: attribute name, not yet in use.
            value: a ``float`` (a neuron turns it into a tensor like its input at the first step), a tensor, or
                anything else that can be copied; these are kept as they are.

        Raises:
            InputError: the name is taken.
        """
        if hasattr(self, name):
            raise InputError(
                f"register_memory({name!r}) on {type(self).__name__}: it already has an attribute of that name. "
                "Choose another name."
            )
        self._memories[name] = value
        setattr(self, name, self.reset_value(name))

    def reset_value(self, name: str) -> Any:
        """The value that memory ``name`` takes at a reset."""
        value = self._memories[name]
        return value if value is None or isinstance(value, float) else copy.deepcopy(value)

    def named_memories(self) -> Iterator[tuple[str, Any]]:
        """Names and present values of this module's own memories (not of modules inside it)."""
        for name in self._memories:
            yield name, getattr(self, name)

    def memories(self) -> Iterator[Any]:
        """Present values of this module's own memories."""
        for _, value in self.named_memories():
            yield value

    def reset(self) -> None:
        """Forget: every memory returns to its registered value."""
        for name in self._memories:
            self.__dict__[name] = self.reset_value(name)  # memories are plain attributes: no need to ask nn.Module
        if pure.is_backward_running():
            self.__dict__["_reset_by"] = torch._C._current_graph_task_id()

    def detach(self) -> None:
        """Keep the memories' values but cut them from the graph that computed them (truncated BPTT, streaming)."""
        for name, value in self.named_memories():
            setattr(self, name, _map_tensors(Tensor.detach, value))

    def step(self, x: Tensor, state: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """One time step as a pure function: ``(output, state after it)``; what the module remembers is left alone.

        Goes through ``torch.func`` (``grad``, ``vmap``, ``jacrev``) and runs the same code as a call does.

        Args:
            x: ``[N, *]``.
            state: memories by name, as this method gives them; ``None``, or a name that is missing, starts afresh.
        """
        return pure.call(self, x, state=state, step_mode="s")

    def run(self, x_seq: Tensor, state: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A sequence as a pure function: ``(output, state after it)``; on the fused kernels where they can run.

        Args:
            x_seq: ``[T, N, *]``.
            state: see :meth:`step`.
        """
        return pure.call(self, x_seq, state=state, step_mode="m")

    def single_step_forward(self, x: Tensor) -> Tensor:
        """One time step: ``x`` of shape ``[N, *]``. Subclasses write it."""
        raise TypeError(f"{type(self).__name__} must define single_step_forward(self, x)")

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        """A sequence ``[T, N, *]`` -> ``[T, N, *]``: time steps one after another."""
        return torch.stack([self.single_step_forward(x) for x in x_seq.unbind(0)])

    def forward(self, x: Tensor) -> Tensor:
        """``[N, *]`` in step mode ``"s"``, ``[T, N, *]`` in step mode ``"m"``."""
        if torch.compiler.is_compiling():
            return self._run_steps(x)
        if pure.is_backward_running():
            self._check_not_recomputed()
        self._look_back()
        return self._watch(self._run_steps(x))  # type: ignore[no-any-return]

    def _run_steps(self, x: Tensor) -> Tensor:
        return self.single_step_forward(x) if self._step_mode == "s" else self.multi_step_forward(x)

    def _check_not_recomputed(self) -> None:
        """Called in the midst of a backward pass: only a twin, or what was reset in that very pass, may run then."""
        if self._memories and not self._is_twin and self._reset_by != torch._C._current_graph_task_id():
            raise StateError(
                f"{self.describe()}: called in the midst of a backward pass, as torch.utils.checkpoint does to compute "
                "a segment again. That would start from the wrong state and update it twice. Use "
                "jellyfit.checkpointing.Checkpointed (or checkpoint), or put the network into a Backbone, which starts "
                "every sequence from a reset state, or reset it inside the segment."
            )

    def _look_back(self) -> None:
        """Where the state leads back into a graph that backward has freed, make going there an error with advice."""
        if self._is_twin or self._backwarded is None or not torch.is_grad_enabled():
            return
        seen, carried = self._backwarded.seen, self._with_graph()
        if seen or not carried:
            self._backwarded = None
        for name, value in carried:
            if seen and is_freed(value):
                self.__dict__[name] = warned_of(value)

    def _with_graph(self) -> list[tuple[str, Tensor]]:
        """Memories that backward can go through."""
        return [(n, v) for n, v in self.named_memories() if isinstance(v, Tensor) and v.grad_fn is not None]

    def _watch(self, output: Any) -> Any:
        """Learn of it when gradients come back through ``output``."""
        if (
            not self._is_twin
            and isinstance(output, Tensor)
            and output.grad_fn is not None
            and kernels.applicable(output)
            and self._with_graph()
        ):
            if self._backwarded is None:
                self._backwarded = Backwarded()
            output.register_hook(self._backwarded)  # type: ignore[no-untyped-call]
        return output

    def extra_repr(self) -> str:
        return f"step_mode={self._step_mode!r}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MemoryModule:
        for name, value in self.named_memories():
            setattr(self, name, _map_tensors(fn, value))
        self._memories = _map_tensors(fn, self._memories)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in self._memories:
            if name in state:
                state[name] = _map_tensors(lambda tensor: tensor.detach().clone(), state[name])
        return state


class BaseNode(MemoryModule):
    """A spiking neuron: three equations a time step, of which a subclass writes only the one that differs.

    With ``h`` the membrane potential after charging and ``v`` before it (and after the reset):

    * charge (:meth:`neuronal_charge`): ``h = f(v, x)``, written to ``self.v``; a subclass must define it;
    * fire (:meth:`neuronal_fire`): ``s = Θ(h - v_threshold)``, differentiated by the surrogate;
    * reset (:meth:`neuronal_reset`): hard ``v = (1 - s) h + s v_reset``, or soft ``v = h - s v_threshold``.

    Further states are memories (``self.register_memory("a", 0.0)`` in ``__init__``), further learnable values ordinary
    ``nn.Parameter``. State is made from the first input (its shape, device and dtype), kept between calls, and
    forgotten by ``functional.reset_net(net)``.

    Args:
        v_threshold: firing threshold, default 1. Numbers, tensors that broadcast over one step ``[N, *]`` (per channel:
            ``[C, 1, 1]`` for images) or an ``nn.Parameter`` (learnable).
        v_reset: potential after a spike, and at the start, default 0; ``None`` selects the soft reset, whose state
            starts at 0.
        surrogate_function: see :mod:`jellyfit.surrogates`; default ``Sigmoid(alpha=4.0)``.
        detach_reset: let no gradient flow through the spike inside the reset; default ``False``.
        step_mode: ``"s"`` (default): one step ``[N, *]`` a call; ``"m"``: a sequence ``[T, N, *]`` a call.
        backend: ``"auto"`` (default: the fastest that can run), ``"torch"``, ``"cpu"`` or ``"cupy"``.
        store_v_seq: keep the potential after the reset of every step in ``v_seq`` ``[T, N, *]``; default ``False``.

    Raises:
        InputError: wrong shape, an empty sequence, a parameter that does not broadcast to the input, NaN under
            ``torch.autograd.detect_anomaly``.
        InputTypeError: an input that is not floating-point.
        StateError: the state left by an earlier call belongs to another batch size, device or dtype.

    Source: Fang et al., "SpikingJelly", Science Advances 9 (2023); names and defaults follow it.

    Examples:
        >>> import torch
        >>> from jellyfit import neurons
        >>> class SquareLIF(neurons.BaseNode):
        ...     def neuronal_charge(self, x):
        ...         self.v = self.v + (x * x - self.v) / 2.0
        >>> node = SquareLIF(step_mode="m")
        >>> node(torch.full((3, 1, 1), 1.2)).flatten().tolist()
        [0.0, 1.0, 0.0]
    """

    fires: ClassVar[bool] = True
    """Whether the output is spikes: firing rates and rasters leave out neurons whose output is something else."""

    _records = ("_v_seq",)
    v: Any
    _v_seq: list[Tensor] | None
    v_threshold: Value
    v_reset: Value | None

    def __init__(
        self,
        v_threshold: Value = 1.0,
        v_reset: Value | None = 0.0,
        surrogate_function: surrogates.SurrogateFunction | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
    ) -> None:
        super().__init__(step_mode)
        self._state_dtype: torch.dtype | None = None
        self._reset_by = -1  # of its own from the start: kernels look at how many attributes there are
        self._backwarded = None
        self._values: list[str] = []
        self.register_value("v_threshold", v_threshold)
        self.register_value("v_reset", v_reset)
        self.surrogate_function = surrogates.Sigmoid() if surrogate_function is None else surrogate_function
        self.detach_reset = detach_reset
        self.backend = backend
        self.store_v_seq = store_v_seq
        self.register_memory("v", 0.0)
        self.register_memory("_v_seq", None)
        self._kernels: NodeKernels | None = None

    # ---------------------------------------------------------------- the three equations

    def neuronal_charge(self, x: Tensor) -> None:
        """Charge: ``self.v = f(self.v, x)``, with ``x`` one step ``[N, *]``. Every neuron defines it."""
        raise TypeError(f"{type(self).__name__} must define neuronal_charge(self, x), for example: self.v = self.v + x")

    def neuronal_fire(self) -> Tensor:
        """Fire: ``Θ(self.v - v_threshold)`` with the surrogate's gradient; spikes of the shape of ``self.v``."""
        return self.surrogate_function(self.v - self.v_threshold)  # type: ignore[no-any-return]

    def neuronal_reset(self, spike: Tensor) -> None:
        """Reset ``self.v`` where ``spike`` is 1: to ``v_reset``, or down by ``v_threshold`` when that is ``None``."""
        self._reset_v(spike, self.v_threshold)

    def _reset_v(self, spike: Tensor, v_threshold: Value) -> None:
        if self.detach_reset:
            spike = spike.detach()
        if self.v_reset is None:
            self.v = self.v - spike * v_threshold
        else:
            self.v = (1.0 - spike) * self.v + spike * self.v_reset

    # ---------------------------------------------------------------- running them

    def single_step_forward(self, x: Tensor) -> Tensor:
        """One time step ``[N, *]`` -> spikes ``[N, *]``; updates ``self.v``."""
        self.neuronal_charge(x)
        spike = self.neuronal_fire()
        self.neuronal_reset(spike)
        return spike

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        """A sequence ``[T, N, *]`` -> spikes ``[T, N, *]``; ``self.v`` is left at the last step's."""
        if not self.store_v_seq:
            return super().multi_step_forward(x_seq)
        spikes, potentials = [], []
        for x in x_seq.unbind(0):
            spikes.append(self.single_step_forward(x))
            potentials.append(self.v)
        self._keep_v_seq(torch.stack(potentials))
        return torch.stack(spikes)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of the same shape as ``x``: ``[N, *]`` in step mode ``"s"``, ``[T, N, *]`` in step mode ``"m"``.

        The arithmetic and the state are float32 for half-precision input, whose spikes are narrowed again.
        """
        many = self._step_mode == "m"
        if not torch.compiler.is_compiling():
            if torch._C._current_graph_task_id() != -1:  # pure.is_backward_running(), in the quick way
                self._check_not_recomputed()
            if many and self._kernels is not None:
                spikes = self._kernels.run_again(self, x)
                if spikes is not None:
                    return spikes
        self._check_input(x)
        x_seq = x if many else x.unsqueeze(0)
        spikes = self._run_kernels(x_seq)
        if spikes is None:
            if torch.compiler.is_compiling():
                spikes = self._run_eager(x_seq)
            else:
                self._look_back()
                spikes = self._watch(self._run_eager(x_seq))
            if self._kernels is not None:
                self._kernels.explain()
        return spikes if many else spikes.squeeze(0)

    def _run_kernels(self, x_seq: Tensor) -> Tensor | None:
        """Spikes from fused kernels; ``None`` where eager PyTorch has to make them."""
        if self._backend == "torch" or type(self).multi_step_forward is not BaseNode.multi_step_forward:
            return None  # such a subclass says itself how it goes through time
        if torch.compiler.is_compiling():
            return None if torch.compiler.is_exporting() else self._run_compiled(x_seq)
        if not kernels.applicable(x_seq):
            return None
        plan = self.kernels.plan(x_seq)
        return None if plan is None else self.kernels.run(self, plan, x_seq)

    def _run_compiled(self, x_seq: Tensor) -> Tensor:
        number, names, paths = self._compiled_constants()
        spikes, lasts, v_seq = compiled.run(number, names, paths, self, x_seq)
        for name, last in zip(names, lasts, strict=True):
            setattr(self, name, last)
        if v_seq is not None:
            self._keep_v_seq(v_seq)
        return spikes

    def _compiled_constants(self) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
        return self.kernels.constants()

    _compiled_constants._dynamo_marked_constant = True  # type: ignore[attr-defined]  # read once, when compiling

    def step(self, x: Tensor, state: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._find_kernels()
        return super().step(x, state)

    def run(self, x_seq: Tensor, state: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._find_kernels()
        return super().run(x_seq, state)

    def _find_kernels(self) -> None:
        """Have kernels before a twin is made, so that it shares them."""
        if self._backend != "torch" and not torch.compiler.is_compiling():
            self.kernels  # noqa: B018

    @property
    def kernels(self) -> NodeKernels:
        """The fused kernels of this neuron: what runs it unless ``backend`` is ``"torch"``."""
        if self._kernels is None:
            self._kernels = NodeKernels(self)
        return self._kernels

    def _run_eager(self, x_seq: Tensor) -> Tensor:
        wide = x_seq.to(torch.promote_types(x_seq.dtype, torch.float32))
        self.materialise(x_seq[0])
        if self._step_mode == "m":
            return self.multi_step_forward(wide).to(x_seq.dtype)
        spike = self.single_step_forward(wide.squeeze(0))
        if self.store_v_seq:
            self._keep_v_seq(self.v.unsqueeze(0))
        return spike.unsqueeze(0).to(x_seq.dtype)

    def _keep_v_seq(self, v_seq: Tensor) -> None:
        """Keep the potentials of this call's steps."""
        self._v_seq = [v_seq] if self._step_mode == "m" else [*(self._v_seq or []), v_seq]

    @property
    def v_seq(self) -> Tensor | None:
        """Potentials after the reset, ``[T, N, *]``, when ``store_v_seq`` is on and something has run.

        In multi-step mode they are the last call's; in single-step mode all since the last reset.
        """
        if not self._v_seq:
            return None
        if len(self._v_seq) > 1:
            self._v_seq = [torch.cat(self._v_seq)]
        return self._v_seq[0]

    # ---------------------------------------------------------------- parameters and state

    def register_value(
        self, name: str, value: Value | None, *, above: float | None = None, none_allowed: bool | None = None
    ) -> None:
        """Set parameter ``name``: numbers stay numbers, tensors become buffers, ``nn.Parameter`` stays learnable.

        Args:
            name: attribute name.
            value: number, tensor, ``nn.Parameter`` or ``None``.
            above: every element must be greater than this.
            none_allowed: whether ``None`` is a value; default: for ``v_reset`` alone.

        Raises:
            InputTypeError: not a number or floating-point tensor.
            InputError: NaN, infinite or not above the bound.
            StateError: a tensor on the meta device.
        """
        if name not in self._values:
            self._values.append(name)
        if none_allowed is None:
            none_allowed = name == "v_reset"
        where = f"{type(self).__name__}({name}={value!r})"
        if value is None and none_allowed:
            setattr(self, name, None)
            return
        if isinstance(value, Tensor):
            if not value.is_floating_point():
                raise InputTypeError(f"{where}: dtype {value.dtype}; expected a floating-point tensor. Use .float().")
            if value.is_meta:
                raise StateError(
                    f"{type(self).__name__}({name}=...): a tensor on the meta device has no values, and they are "
                    "looked at here. Make neurons on the CPU, and move or shard the network then."
                )
            bad = not bool(torch.isfinite(value).all()) or (above is not None and not bool((value > above).all()))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            value = float(value)
            bad = not math.isfinite(value) or (above is not None and value <= above)
        else:
            raise InputTypeError(f"{where}: expected a number, a tensor or an nn.Parameter.")
        if bad:
            bound = "finite" if above is None else f"finite and above {above:g}"
            raise InputError(f"{where}: every value must be {bound}.")
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            self.register_buffer(name, value)
        else:
            setattr(self, name, value)

    @property
    def backend(self) -> str:
        """Which implementation runs multi-step mode: ``"auto"``, ``"torch"``, ``"cpu"`` or ``"cupy"``."""
        return self._backend

    @backend.setter
    def backend(self, value: str) -> None:
        kernels.check_backend(value)
        self._backend = value

    def reset_value(self, name: str) -> Any:
        if name != "v":
            return super().reset_value(name)
        if isinstance(self.v_reset, Tensor):
            return None  # made from v_reset, differentiably, when the first input tells the shape
        return 0.0 if self.v_reset is None else self.v_reset

    def reset(self) -> None:
        super().reset()
        self.__dict__["_state_dtype"] = None

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_kernels": None}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BaseNode:
        super()._apply(fn, recurse)
        if self._state_dtype is not None:
            self._state_dtype = fn(torch.empty(0, dtype=self._state_dtype)).dtype
        return self

    def materialise(self, x: Tensor) -> None:
        """Make the state fit one step of input ``x`` ``[N, *]``: numbers become tensors like it; misfits are errors.

        State is at least float32, whatever the input's precision.
        """
        wide = torch.promote_types(x.dtype, torch.float32)
        for name, value in self.named_memories():
            if isinstance(value, float):
                setattr(self, name, torch.full_like(x, value, dtype=wide, requires_grad=False))
            elif isinstance(value, Tensor) and not isinstance(self._memories[name], Tensor):
                self._check_state(name, value, x)  # a memory that starts as a tensor has a shape of its own
        if self.v is None and isinstance(self.v_reset, Tensor):
            self.v = self.initial_v(x, wide)
        if self._state_dtype is None:
            self.check_values(x)
            self._state_dtype = x.dtype

    def initial_v(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The potential that a tensor ``v_reset`` makes for one step of input ``x`` ``[N, *]``."""
        v_reset = self.v_reset
        if not isinstance(v_reset, Tensor):
            return torch.full_like(x, 0.0 if v_reset is None else v_reset, dtype=dtype, requires_grad=False)
        return v_reset.to(dtype).expand(self._broadcast("v_reset", v_reset, x))

    def check_values(self, x: Tensor) -> None:
        """Raise :class:`InputError` unless every tensor parameter broadcasts to one step of input ``x`` ``[N, *]``."""
        for name in self._values:
            if isinstance(value := getattr(self, name), Tensor):
                self._broadcast(name, value, x)

    def _broadcast(self, name: str, value: Tensor, x: Tensor) -> torch.Size:
        try:
            fits = np.broadcast_shapes(value.shape, x.shape) == tuple(x.shape)
        except ValueError:
            fits = False
        if not fits:
            raise InputError(
                f"{self.describe()}: {name} has shape {list(value.shape)}, which does not broadcast to one step of "
                f"input {list(x.shape)}. Per-channel values of images need shape [C, 1, 1], of vectors [C]."
            )
        return x.shape

    def _check_state(self, name: str, value: Tensor, x: Tensor) -> None:
        dtype = self._state_dtype or x.dtype
        if value.shape == x.shape and value.device == x.device and dtype == x.dtype:
            return
        raise StateError(
            f"{self.describe()}: its state {name!r} is {list(value.shape)} {dtype} on {value.device}, left by an "
            f"earlier call (or set by hand), but this step's input is {list(x.shape)} {x.dtype} on {x.device}. Call "
            "jellyfit.functional.reset_net(net) before a new sequence or batch."
        )

    def _check_input(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise InputTypeError(f"{self.describe()}: got {type(x).__name__}; expected a torch.Tensor.")
        if not x.is_floating_point():
            raise InputTypeError(
                f"{self.describe()}: got input of dtype {x.dtype}; expected a floating-point dtype. Use x.float()."
            )
        if self._step_mode == "m":
            if x.ndim < 2:
                raise InputError(
                    f"{self.describe()}: step mode 'm' takes a sequence [T, N, *]; got shape {list(x.shape)}. Add the "
                    "missing axes, or use step_mode='s' for one step [N, *]."
                )
            if x.shape[0] == 0:
                raise InputError(
                    f"{self.describe()}: got a sequence of T = 0 time steps, shape {list(x.shape)}; expected T >= 1."
                )
        if torch.compiler.is_compiling() or not torch.is_anomaly_enabled():
            return
        if not bool(torch.isfinite(x).all()):
            where = torch.nonzero(~torch.isfinite(x))[0].tolist()
            raise InputError(
                f"{self.describe()}: input holds NaN or infinity, first at index {where} of shape {list(x.shape)}. "
                "Look at the data, the learning rate and the layer before this neuron."
            )

    def extra_repr(self) -> str:
        parts = [f"{name}={_short(getattr(self, name))}" for name in ("v_threshold", "v_reset")]
        parts += [f"detach_reset={self.detach_reset}", super().extra_repr(), f"backend={self.backend!r}"]
        return ", ".join(parts)


def _short(value: Any) -> str:
    """A parameter for ``print(net)``: numbers in full, tensors by shape."""
    if isinstance(value, Tensor):
        kind = "Parameter" if isinstance(value, nn.Parameter) else "Tensor"
        return f"{value.item():g}" if value.ndim == 0 else f"{kind}{list(value.shape)}"
    return f"{value:g}" if isinstance(value, float) else repr(value)
