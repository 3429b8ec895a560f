"""Containers that run what they hold over time: step by step, or with time merged into the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from jellyfit import functional
from jellyfit.errors import InputError, InputTypeError
from jellyfit.kernels.linear import linear
from jellyfit.layers.shapes import MemoryLayer, check_state
from jellyfit.layers.stateless import Linear
from jellyfit.neurons.base import StepModule

__all__ = [
    "ElementWiseRecurrentContainer",
    "LinearRecurrentContainer",
    "MultiStepContainer",
    "SeqToANNContainer",
    "StepModeContainer",
    "TLastMultiStepContainer",
    "TLastSeqToANNContainer",
]


class _Container(StepModule, nn.Sequential):
    """A sequential whose modules stay in single-step mode; in step mode ``"s"`` it is a plain ``nn.Sequential``."""

    keeps_children_single_step = True
    _advice = "Put it beside this container, in step mode 'm', or into a MultiStepContainer."

    def __init__(self, *modules: nn.Module) -> None:
        nn.Sequential.__init__(self, *modules)

    def _merges_time(self) -> bool:
        """Whether step mode ``"m"`` runs all time steps as one batch."""
        return False

    def _empty(self) -> _Container:
        return type(self)()

    def _admit(self, name: str, module: nn.Module | None) -> None:
        """Refuse what cannot work in here; the rest takes single steps."""
        if module is None:
            return
        if self._merges_time():
            for inner, stateful in functional.named_stateful(module):
                place = f"{name}.{inner}".rstrip(".")
                raise InputTypeError(
                    f"{self.describe()} runs all time steps as one batch, but {place!r} in it "
                    f"({type(stateful).__name__}) remembers from one step to the next. {self._advice}"
                )
        functional.set_step_mode(module, "s")

    def add_module(self, name: str, module: nn.Module | None) -> None:
        self._admit(name, module)
        super().add_module(name, module)

    def insert(self, index: int, module: nn.Module) -> _Container:
        self._admit(str(index), module)
        return super().insert(index, module)

    def __setitem__(self, index: int, module: nn.Module) -> None:
        self._admit(str(index), module)
        super().__setitem__(index, module)

    def __getitem__(self, index: slice | int) -> Any:
        if not isinstance(index, slice):
            return super().__getitem__(index)
        part = self._empty()
        for name, module in list(self._modules.items())[index]:
            part.add_module(name, module)
        part.step_mode = self.step_mode
        return part

    def _run(self, x: Tensor) -> Tensor:
        return nn.Sequential.forward(self, x)  # type: ignore[no-untyped-call,no-any-return]


class MultiStepContainer(_Container):
    """Holds single-step modules (stateful or not) and runs them over ``[T, N, *]`` one time step after another.

    In step mode ``"s"`` it runs them on one step ``[N, *]``. Starts in step mode ``"m"``.

    Args:
        modules: applied in turn to each step.

    Examples:
        >>> import torch
        >>> from jellyfit import layers, neurons
        >>> net = layers.MultiStepContainer(torch.nn.Linear(3, 4), neurons.IFNode())
        >>> net(torch.zeros(5, 2, 3)).shape
        torch.Size([5, 2, 4])
    """

    _step_mode = "m"

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "s":
            return self._run(x)
        return functional.multi_step_forward(x, self._run)


class SeqToANNContainer(_Container):
    """Holds stateless modules and runs them over ``[T, N, *]`` at once, as a batch of ``T·N``.

    In step mode ``"s"`` it runs them on one step ``[N, *]``. Starts in step mode ``"m"``.

    Args:
        modules: stateless modules, applied in turn.

    Raises:
        InputTypeError: one of them, or of those inside them, keeps a state (a neuron).

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.SeqToANNContainer(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())(torch.zeros(5, 2, 3, 8, 8)).shape
        torch.Size([5, 2, 4, 6, 6])
    """

    _step_mode = "m"

    def _merges_time(self) -> bool:
        return True

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "s":
            return self._run(x)
        return functional.seq_to_ann_forward(x, self._run)


class _TimeLast(_Container):
    """Mixed in before a container: its sequences are ``[N, *, T]``."""

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "s":
            return self._run(x)
        if x.ndim < 2:
            raise InputError(
                f"{self.describe()}: expected a sequence [N, *, T], time last; got shape {list(x.shape)}. Add the "
                "missing axes, or use step_mode='s' for one step [N, *]."
            )
        y: Tensor = super().forward(x.movedim(-1, 0))  # type: ignore[no-untyped-call]
        return y.movedim(0, -1)


class TLastMultiStepContainer(_TimeLast, MultiStepContainer):
    """A :class:`MultiStepContainer` of sequences whose last axis is time: ``[N, *, T]`` to ``[N, *, T]``.

    In step mode ``"s"`` it runs what it holds on one step ``[N, *]``. Starts in step mode ``"m"``.

    Args:
        modules: single-step modules, applied in turn to each step.

    Raises:
        InputError: fewer than two axes.

    Examples:
        >>> import torch
        >>> from jellyfit import layers, neurons
        >>> net = layers.TLastMultiStepContainer(torch.nn.Linear(3, 4), neurons.IFNode())
        >>> net(torch.zeros(2, 3, 5)).shape
        torch.Size([2, 4, 5])
    """


class TLastSeqToANNContainer(_TimeLast, SeqToANNContainer):
    """A :class:`SeqToANNContainer` of sequences whose last axis is time: ``[N, *, T]`` to ``[N, *, T]``.

    In step mode ``"s"`` it runs what it holds on one step ``[N, *]``. Starts in step mode ``"m"``.

    Args:
        modules: stateless modules, applied in turn.

    Raises:
        InputTypeError: one of them, or of those inside them, keeps a state (a neuron).
        InputError: fewer than two axes.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.TLastSeqToANNContainer(torch.nn.Linear(3, 4))(torch.zeros(2, 3, 5)).shape
        torch.Size([2, 4, 5])
    """


class StepModeContainer(_Container):
    """Gives modules without a step mode one: both modes over whatever it holds. Starts in step mode ``"s"``.

    Args:
        stateful: whether what it holds keeps a state between steps: then step mode ``"m"`` runs step by step, else
            with time merged into the batch.
        step_mode: ``"s"`` (default) or ``"m"``; may be left out before the modules.
        modules: applied in turn.

    Raises:
        InputTypeError: one of them, or of those inside them, keeps a state, but ``stateful`` is ``False``.

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> layers.StepModeContainer(False, "m", torch.nn.Linear(3, 4))(torch.zeros(5, 2, 3)).shape
        torch.Size([5, 2, 4])
    """

    _advice = "Set stateful=True."

    def __init__(self, stateful: bool, step_mode: str | nn.Module = "s", *modules: nn.Module) -> None:
        self.stateful = stateful  # first: modules are admitted by it
        if isinstance(step_mode, nn.Module):
            modules, step_mode = (step_mode, *modules), "s"
        super().__init__(*modules)
        self.step_mode = step_mode

    def _merges_time(self) -> bool:
        return not self.stateful

    def _empty(self) -> StepModeContainer:
        return type(self)(self.stateful)

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "s":
            return self._run(x)
        if self.stateful:
            return functional.multi_step_forward(x, self._run)
        return functional.seq_to_ann_forward(x, self._run)

    def extra_repr(self) -> str:
        return f"stateful={self.stateful}, step_mode={self.step_mode!r}"


class _Recurrent(MemoryLayer):
    """A module whose last output ``y`` comes back with the next input; what it holds takes single steps."""

    keeps_children_single_step = True
    y: Tensor | None

    def __init__(self, sub_module: nn.Module, step_mode: str) -> None:
        super().__init__(step_mode)
        functional.set_step_mode(sub_module, "s")
        self.sub_module = sub_module
        self.register_memory("y", None)

    def _last(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The last output, of ``shape``: zeros at the start."""
        if self.y is None:
            return x.new_zeros(shape)
        check_state(self, "y", self.y, shape, x.device)
        return self.y

    def _keep(self, y: Tensor, shape: tuple[int, ...], why: str) -> Tensor:
        if y.shape != shape:
            raise InputError(
                f"{self.describe()}: its sub_module ({type(self.sub_module).__name__}) gave {list(y.shape)}; expected "
                f"{list(shape)}, {why}."
            )
        self.y = y
        return y


class ElementWiseRecurrentContainer(_Recurrent):
    """Feedback element by element: ``y[t] = sub_module(element_wise_function(y[t-1], x[t]))``, with ``y[-1] = 0``.

    The network around it may run whole sequences; inside, time goes step by step in both step modes, and
    ``functional.set_step_mode`` leaves ``sub_module`` in single-step mode. The last output is the memory ``y``.

    Args:
        sub_module: maps ``[N, *]`` to the same shape; a neuron, or several layers.
        element_wise_function: of the last output and the input, both ``[N, *]``; such as ``torch.add``. A ``lambda``
            works, but cannot be pickled.
        step_mode: ``"s"`` (default): ``[N, *]`` a call; ``"m"``: ``[T, N, *]`` a call.

    Raises:
        InputError: ``sub_module`` gives another shape.
        StateError: the last output is of another shape than the input: a reset is missing.

    Source: Fang et al., "SpikingJelly", Science Advances 9 (2023).

    Examples:
        >>> import torch
        >>> from jellyfit import layers
        >>> net = layers.ElementWiseRecurrentContainer(torch.nn.Identity(), torch.add, step_mode="m")
        >>> net(torch.ones(4, 1, 1)).flatten().tolist()
        [1.0, 2.0, 3.0, 4.0]
    """

    def __init__(
        self, sub_module: nn.Module, element_wise_function: Callable[[Tensor, Tensor], Tensor], step_mode: str = "s"
    ) -> None:
        super().__init__(sub_module, step_mode)
        self.element_wise_function = element_wise_function

    def single_step_forward(self, x: Tensor) -> Tensor:
        y = self.sub_module(self.element_wise_function(self._last(x, x.shape), x))
        return self._keep(y, x.shape, "the shape of its input: output and input meet element by element")

    def extra_repr(self) -> str:
        name = getattr(self.element_wise_function, "__name__", type(self.element_wise_function).__name__)
        return f"element_wise_function={name}, {super().extra_repr()}"


class LinearRecurrentContainer(_Recurrent):
    """Feedback through a linear layer: ``y[t] = sub_module(W [x[t]; y[t-1]] + b)``, with ``y[-1] = 0``.

    The network around it may run whole sequences; inside, time goes step by step in both step modes, and
    ``functional.set_step_mode`` leaves ``sub_module`` in single-step mode. In step mode ``"m"`` the input's half of the
    product is made for all steps at once. The last output is the memory ``y``.

    Args:
        sub_module: maps ``[N, *, in_features]`` to ``[N, *, out_features]``; a neuron, or several layers.
        in_features: features of the input; the linear layer ``rc`` gives as many.
        out_features: features of ``sub_module``'s output.
        bias: whether the linear layer has a bias, default ``True``.
        step_mode: ``"s"`` (default): ``[N, *, in_features]`` a call; ``"m"``: ``[T, N, *, in_features]`` a call.

    Raises:
        InputError: other features than ``in_features``, or ``sub_module`` gives others than ``out_features``.
        StateError: the last output is of another batch than the input: a reset is missing.

    Source: Fang et al., "SpikingJelly", Science Advances 9 (2023).

    Examples:
        >>> import torch
        >>> from jellyfit import layers, neurons
        >>> net = layers.LinearRecurrentContainer(neurons.IFNode(), 3, 3, step_mode="m")
        >>> net(torch.zeros(5, 2, 3)).shape, net.rc.weight.shape
        (torch.Size([5, 2, 3]), torch.Size([3, 6]))
    """

    step_shape = Linear.step_shape
    step_ndims = Linear.step_ndims
    channels = Linear.channels
    channel_axis = Linear.channel_axis

    def __init__(
        self, sub_module: nn.Module, in_features: int, out_features: int, bias: bool = True, step_mode: str = "s"
    ) -> None:
        super().__init__(sub_module, step_mode)
        self.in_features = in_features
        self.out_features = out_features
        self.rc = nn.Linear(in_features + out_features, in_features, bias)

    def _halves(self) -> tuple[Tensor, Tensor]:
        """The weights of the input and of the last output."""
        weight = self.rc.weight
        return weight[:, : self.in_features], weight[:, self.in_features :]

    def _feed_back(self, driven: Tensor, weight: Tensor) -> Tensor:
        """One step, given the input's half of the product and the weight of the other one."""
        shape = (*driven.shape[:-1], self.out_features)
        y = self.sub_module(driven + linear(self._last(driven, shape), weight))
        return self._keep(y, shape, f"out_features = {self.out_features}")

    def single_step_forward(self, x: Tensor) -> Tensor:
        forth, back = self._halves()
        return self._feed_back(linear(x, forth, self.rc.bias), back)

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        forth, back = self._halves()
        driven = linear(x_seq, forth, self.rc.bias)
        return functional.multi_step_forward(driven, lambda step: self._feed_back(step, back))
