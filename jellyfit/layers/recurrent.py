"""Spiking recurrent networks: vanilla, LSTM and GRU cells whose gates are spikes, and stacks of them over time.

As in ``torch.nn``, a cell takes one time step and a network a whole sequence; both are given their states and return
them. Nothing is remembered between calls, so there is nothing to reset.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jellyfit.errors import ConfigError, InputError, InputTypeError
from jellyfit.kernels.linear import Linear
from jellyfit.neurons.base import StepModule
from jellyfit.surrogates import Erf, SurrogateFunction

__all__ = [
    "SpikingGRU",
    "SpikingGRUCell",
    "SpikingLSTM",
    "SpikingLSTMCell",
    "SpikingRNNBase",
    "SpikingRNNCellBase",
    "SpikingVanillaRNN",
    "SpikingVanillaRNNCell",
    "bidirectional_rnn_cell_forward",
    "directional_rnn_cell_forward",
]

States = tuple[Tensor, ...]


class SpikingRNNCellBase(nn.Module):
    """Base of all cells: ``W_ih x + b_ih`` and ``W_hh h + b_hh`` of every gate, of which :meth:`step` makes new states.

    A subclass says how many gates and states it has, and writes :meth:`step`. The input's half of the gates does not
    depend on the state, so :meth:`run` computes it for a whole sequence in one matrix product.

    Args:
        input_size: features of the input.
        hidden_size: features of every state.
        bias: whether there are ``b_ih`` and ``b_hh``; default ``True``.

    Attributes:
        gates: how many gates ``W_ih`` and ``W_hh`` hold, one below the other.
        states: how many states a step takes and returns; the first is the output.
        linear_ih: ``Linear(input_size, gates · hidden_size)``.
        linear_hh: ``Linear(hidden_size, gates · hidden_size)``.

    Raises:
        InputError: a size below 1.

    Examples:
        >>> import torch
        >>> from jellyfit.layers.recurrent import SpikingRNNCellBase
        >>> class Accumulator(SpikingRNNCellBase):
        ...     def step(self, drive, h):
        ...         return (h + drive,)
        >>> Accumulator(3, 5)(torch.rand(2, 3)).shape
        torch.Size([2, 5])
    """

    gates: ClassVar[int] = 1
    states: ClassVar[int] = 1

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        super().__init__()
        if input_size < 1 or hidden_size < 1:
            raise InputError(
                f"{type(self).__name__}(input_size={input_size}, hidden_size={hidden_size}): expected at least 1."
            )
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        self.linear_ih = Linear(input_size, self.gates * hidden_size, bias=bias)
        self.linear_hh = Linear(hidden_size, self.gates * hidden_size, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and biases anew from U(-1/√hidden_size, 1/√hidden_size)."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for linear in (self.linear_ih, self.linear_hh):
            for parameter in linear.parameters():
                nn.init.uniform_(parameter, -bound, bound)

    def weight_ih(self) -> Tensor:
        """``W_ih [gates · hidden_size, input_size]``."""
        return self.linear_ih.weight

    def weight_hh(self) -> Tensor:
        """``W_hh [gates · hidden_size, hidden_size]``."""
        return self.linear_hh.weight

    def bias_ih(self) -> Tensor | None:
        """``b_ih [gates · hidden_size]``, or ``None``."""
        return self.linear_ih.bias

    def bias_hh(self) -> Tensor | None:
        """``b_hh [gates · hidden_size]``, or ``None``."""
        return self.linear_hh.bias

    def step(self, drive: Tensor, *states: Tensor) -> States:
        """New states from ``drive = W_ih x + b_ih``, ``[N, gates · hidden_size]``, and states ``[N, hidden_size]``."""
        raise TypeError(f"{type(self).__name__} must define step(self, drive, *states) and return a tuple of states")

    def run(self, x_seq: Tensor, states: States) -> tuple[Tensor, States]:
        """Over ``x_seq [T, N, input_size]``: the first state of every step ``[T, N, hidden_size]``, the last states."""
        outputs = []
        for drive in self.linear_ih(x_seq).unbind(0):
            states = self.step(drive, *states)
            outputs.append(states[0])
        return torch.stack(outputs), states

    def forward(self, x: Tensor, h: Tensor | None = None) -> Any:
        """``x [N, input_size]`` and state ``h [N, hidden_size]`` (default: zeros) -> the new state, like ``h``."""
        return self.step(self.linear_ih(x), self._zeros(x) if h is None else h)[0]

    def _zeros(self, x: Tensor) -> Tensor:
        return x.new_zeros(*x.shape[:-1], self.hidden_size)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, bias={self.bias}"


class SpikingVanillaRNNCell(SpikingRNNCellBase):
    """Spiking Elman cell: ``h' = Θ(W_ih x + b_ih + W_hh h + b_hh)``.

    Args:
        input_size: features of the input.
        hidden_size: features of the state.
        bias: whether there are ``b_ih`` and ``b_hh``; default ``True``.
        surrogate_function: Θ and its gradient; default ``Erf()``.

    Raises:
        InputError: a size below 1.

    Source: Elman, "Finding structure in time", Cognitive Science 14 (1990), with spikes for the activation.

    Examples:
        >>> import torch
        >>> from jellyfit.layers.recurrent import SpikingVanillaRNNCell
        >>> cell = SpikingVanillaRNNCell(3, 5)
        >>> h = cell(torch.rand(2, 3))
        >>> cell(torch.rand(2, 3), h).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        surrogate_function: SurrogateFunction | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias)
        self.surrogate_function = Erf() if surrogate_function is None else surrogate_function

    def step(self, drive: Tensor, *states: Tensor) -> States:
        return (self.surrogate_function(drive + self.linear_hh(states[0])),)


class _GatedCell(SpikingRNNCellBase):
    """A cell with a second surrogate for its candidate state."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        surrogate_function1: SurrogateFunction | None = None,
        surrogate_function2: SurrogateFunction | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias)
        self.surrogate_function1 = Erf() if surrogate_function1 is None else surrogate_function1
        self.surrogate_function2 = surrogate_function2
        if surrogate_function2 is not None and surrogate_function2.spiking != self.surrogate_function1.spiking:
            raise ConfigError(
                f"{type(self).__name__}: surrogate_function1 has spiking={self.surrogate_function1.spiking} and "
                f"surrogate_function2 has spiking={surrogate_function2.spiking}; expected the same in both."
            )

    def _candidate(self, x: Tensor) -> Tensor:
        surrogate = self.surrogate_function1 if self.surrogate_function2 is None else self.surrogate_function2
        return surrogate(x)  # type: ignore[no-any-return]


class SpikingLSTMCell(_GatedCell):
    """Spiking LSTM cell: ``c' = min(f c + i g, 1)`` and ``h' = o c'`` with spikes for ``i``, ``f``, ``g`` and ``o``.

    They are ``Θ(W_ih x + b_ih + W_hh h + b_hh)``. The sum ``f c + i g`` can be 2; it is cut to 1, so that states stay
    spikes, and its gradient is left as if it was not cut.

    Args:
        input_size: features of the input.
        hidden_size: features of both states.
        bias: whether there are ``b_ih`` and ``b_hh``; default ``True``.
        surrogate_function1: Θ and its gradient; default ``Erf()``.
        surrogate_function2: those of ``g``; default ``None``: the first.

    Raises:
        InputError: a size below 1.
        ConfigError: one surrogate spikes and the other does not.

    Source: Lotfi Rezaabad and Vishwanath, "Long short-term memory spiking networks and their applications",
    ICONS 2020.

    Examples:
        >>> import torch
        >>> from jellyfit.layers.recurrent import SpikingLSTMCell
        >>> cell = SpikingLSTMCell(3, 5)
        >>> h, c = cell(torch.rand(2, 3))
        >>> h, c = cell(torch.rand(2, 3), (h, c))
        >>> h.shape, bool(((c == 0) | (c == 1)).all())
        (torch.Size([2, 5]), True)
    """

    gates = 4
    states = 2

    def step(self, drive: Tensor, *states: Tensor) -> States:
        h, c = states
        i, f, g, o = (drive + self.linear_hh(h)).chunk(4, dim=-1)
        spike = self.surrogate_function1
        c = spike(f) * c + spike(i) * self._candidate(g)
        c = c - (c.detach() - 1.0).clamp(min=0.0)  # exactly 1 where it was above
        return spike(o) * c, c

    def forward(self, x: Tensor, hc: tuple[Tensor, Tensor] | Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One step.

        Args:
            x: ``[N, input_size]``.
            hc: states ``h, c``, ``[N, hidden_size]`` each, as a pair or as one tensor ``[2, N, hidden_size]``; default:
                zeros.

        Returns:
            The new ``h`` and ``c``.
        """
        h, c = (self._zeros(x), self._zeros(x)) if hc is None else hc
        h, c = self.step(self.linear_ih(x), h, c)
        return h, c


class SpikingGRUCell(_GatedCell):
    """Spiking GRU cell: ``h' = (1 - z) n + z h`` with spikes for ``r``, ``z`` and ``n``.

    ``r`` and ``z`` are ``Θ(W_ih x + b_ih + W_hh h + b_hh)``, and ``n = Θ(W_in x + b_in + r (W_hn h + b_hn))``.

    Args:
        input_size: features of the input.
        hidden_size: features of the state.
        bias: whether there are ``b_ih`` and ``b_hh``; default ``True``.
        surrogate_function1: Θ and its gradient; default ``Erf()``.
        surrogate_function2: those of ``n``; default ``None``: the first.

    Raises:
        InputError: a size below 1.
        ConfigError: one surrogate spikes and the other does not.

    Source: Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014, with spikes for the
    activations.

    Examples:
        >>> import torch
        >>> from jellyfit.layers.recurrent import SpikingGRUCell
        >>> cell = SpikingGRUCell(3, 5)
        >>> cell(torch.rand(2, 3), torch.zeros(2, 5)).shape
        torch.Size([2, 5])
    """

    gates = 3

    def step(self, drive: Tensor, *states: Tensor) -> States:
        (h,) = states
        r_in, z_in, n_in = drive.chunk(3, dim=-1)
        r_rec, z_rec, n_rec = self.linear_hh(h).chunk(3, dim=-1)
        r = self.surrogate_function1(r_in + r_rec)
        z = self.surrogate_function1(z_in + z_rec)
        n = self._candidate(n_in + r * n_rec)
        return ((1.0 - z) * n + z * h,)


def directional_rnn_cell_forward(cell: SpikingRNNCellBase, x: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """Run a cell over a sequence.

    Args:
        cell: any of the cells.
        x: ``[T, N, input_size]``.
        states: at the start, ``[N, hidden_size]``, or ``[states, N, hidden_size]`` of a cell with several.

    Returns:
        Its first state at every step ``[T, N, hidden_size]``, and the last states, of the shape of ``states``.

    Raises:
        InputError: states of another shape, or an empty sequence.

    Examples:
        >>> import torch
        >>> from jellyfit.layers.recurrent import SpikingLSTMCell, directional_rnn_cell_forward
        >>> y, states = directional_rnn_cell_forward(SpikingLSTMCell(3, 5), torch.rand(4, 2, 3), torch.zeros(2, 2, 5))
        >>> y.shape, states.shape
        (torch.Size([4, 2, 5]), torch.Size([2, 2, 5]))
    """
    if x.ndim != 3 or x.shape[0] == 0:
        raise InputError(f"directional_rnn_cell_forward: expected x as [T, N, input_size]; got {list(x.shape)}.")
    expected = (x.shape[1], cell.hidden_size)
    if states.ndim == 3:
        expected = (cell.states, *expected)  # type: ignore[assignment]
    if tuple(states.shape) != expected or (states.ndim == 2 and cell.states > 1):
        raise InputError(
            f"directional_rnn_cell_forward: {type(cell).__name__} has {cell.states} states "
            f"[{x.shape[1]}, {cell.hidden_size}]; got a tensor of shape {list(states.shape)}."
        )
    y, last = cell.run(x, states.unbind(0) if states.ndim == 3 else (states,))
    return y, torch.stack(last) if states.ndim == 3 else last[0]


def bidirectional_rnn_cell_forward(
    cell: SpikingRNNCellBase, cell_reverse: SpikingRNNCellBase, x: Tensor, states: Tensor, states_reverse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one cell over a sequence and another over it backwards.

    Args:
        cell: any of the cells.
        cell_reverse: another, which sees the last step first.
        x: ``[T, N, input_size]``.
        states: of ``cell`` at the start, see :func:`directional_rnn_cell_forward`.
        states_reverse: of ``cell_reverse`` at the start, that is before the last time step.

    Returns:
        Outputs of both, side by side and in the order of time, ``[T, N, 2 · hidden_size]``; last states of ``cell``,
        and of ``cell_reverse``.

    Raises:
        InputError: states of another shape, or an empty sequence.

    Source: Schuster and Paliwal, "Bidirectional recurrent neural networks", IEEE Transactions on Signal Processing 45
    (1997).

    Examples:
        >>> import torch
        >>> from jellyfit.layers.recurrent import SpikingGRUCell, bidirectional_rnn_cell_forward
        >>> h = torch.zeros(2, 5)
        >>> y, last, first = bidirectional_rnn_cell_forward(
        ...     SpikingGRUCell(3, 5), SpikingGRUCell(3, 5), torch.rand(4, 2, 3), h, h
        ... )
        >>> y.shape, bool((y[-1, :, :5] == last).all()), bool((y[0, :, 5:] == first).all())
        (torch.Size([4, 2, 10]), True, True)
    """
    y, last = directional_rnn_cell_forward(cell, x, states)
    y_reverse, last_reverse = directional_rnn_cell_forward(cell_reverse, x.flip(0), states_reverse)
    return torch.cat([y, y_reverse.flip(0)], dim=-1), last, last_reverse


class SpikingRNNBase(StepModule):
    """Layers of cells over time, in one direction or both; a subclass names its cell with :meth:`base_cell`.

    As in ``torch.nn.LSTM``, states are given and returned, and not remembered. Starts in step mode ``"m"``. In step
    mode ``"s"`` it takes one step ``[N, input_size]``, where one step is enough: not in both directions, and not with a
    dropout mask for the whole sequence.

    Args:
        input_size: features of the input.
        hidden_size: features of every state.
        num_layers: number of layers; each takes the outputs of the one before.
        bias: whether there are ``b_ih`` and ``b_hh``; default ``True``.
        dropout_p: in training, how likely an output of any layer but the last is set to 0; default 0.
        invariant_dropout_mask: draw one dropout mask a sequence instead of one a step; default ``False``.
        bidirectional: run a second stack from the last step to the first; default ``False``.
        cell_args: what a cell takes after ``bias``.

    Raises:
        InputError: sizes below 1, ``dropout_p`` outside [0, 1), wrong shapes, an empty sequence.
        InputTypeError: states that are neither ``None``, nor a tensor, nor a tuple of tensors.

    Examples:
        >>> import torch
        >>> from jellyfit.layers.recurrent import SpikingRNNBase, SpikingVanillaRNNCell
        >>> class MyRNN(SpikingRNNBase):
        ...     @classmethod
        ...     def base_cell(cls):
        ...         return SpikingVanillaRNNCell
        >>> y, h = MyRNN(3, 5, num_layers=2)(torch.rand(4, 2, 3))
        >>> y.shape, h.shape
        (torch.Size([4, 2, 5]), torch.Size([2, 2, 5]))
    """

    _step_mode = "m"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool = True,
        dropout_p: float = 0,
        invariant_dropout_mask: bool = False,
        bidirectional: bool = False,
        *cell_args: Any,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise InputError(f"{type(self).__name__}(num_layers={num_layers}): expected at least 1.")
        if not 0.0 <= dropout_p < 1.0:
            raise InputError(f"{type(self).__name__}(dropout_p={dropout_p}): expected 0 or more and less than 1.")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.dropout_p = dropout_p
        self.invariant_dropout_mask = invariant_dropout_mask
        self.bidirectional = bidirectional
        self.cells = self._stack(cell_args)
        if bidirectional:
            self.cells_reverse = self._stack(cell_args)

    def _stack(self, cell_args: Sequence[Any]) -> nn.ModuleList:
        sizes = [self.input_size] + [self._width] * (self.num_layers - 1)
        cell = self.base_cell()
        return nn.ModuleList(cell(size, self.hidden_size, self.bias, *cell_args) for size in sizes)

    @property
    def _width(self) -> int:
        """Features of a layer's output."""
        return self.hidden_size * (2 if self.bidirectional else 1)

    @classmethod
    def base_cell(cls) -> type[SpikingRNNCellBase]:
        """The class of the cells. Subclasses write it."""
        raise TypeError(f"{cls.__name__} must define the class method base_cell(cls): the class of its cells")

    @classmethod
    def states_num(cls) -> int:
        """How many states a cell has: 2 for an LSTM (``h`` and ``c``), else 1."""
        return cls.base_cell().states

    def forward(
        self, x: Tensor, states: Tensor | tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        """Run over a sequence.

        Args:
            x: ``[T, N, input_size]``; ``[N, input_size]`` in step mode ``"s"``.
            states: at the start, ``[num_layers, N, hidden_size]``, or ``[2 · num_layers, N, hidden_size]`` when
                bidirectional (first those of all forward layers); a tuple of such tensors for a cell with several
                states. Default: zeros.

        Returns:
            The last layer's output ``[T, N, hidden_size]`` (twice as wide when bidirectional; without ``T`` in step
            mode ``"s"``), and the states at the end, as they were given.
        """
        many = self.step_mode == "m"
        self._check(x)
        x_seq = x if many else x.unsqueeze(0)
        before = self._stacked(states, x_seq)
        masks = self._masks(x_seq)
        after: list[Tensor] = [x_seq] * before.shape[1]
        y = x_seq
        for i, cell in enumerate(self.cells):
            if masks is not None and i:
                y = y * masks[i - 1]
            elif self._drops and i:
                y = F.dropout(y, self.dropout_p)
            if self.bidirectional:
                j = self.num_layers + i
                y, after[i], after[j] = bidirectional_rnn_cell_forward(
                    cell,  # type: ignore[arg-type]
                    self.cells_reverse[i],  # type: ignore[arg-type]
                    y,
                    before[:, i],
                    before[:, j],
                )
            else:
                y, after[i] = directional_rnn_cell_forward(cell, y, before[:, i])  # type: ignore[arg-type]
        found = torch.stack(after, dim=1).unbind(0)
        return y if many else y.squeeze(0), found if self.states_num() > 1 else found[0]

    @property
    def _drops(self) -> bool:
        return self.training and self.dropout_p > 0 and self.num_layers > 1

    def _masks(self, x_seq: Tensor) -> Tensor | None:
        """Dropout masks ``[num_layers - 1, N, *]`` for all steps, if it takes such."""
        if not (self._drops and self.invariant_dropout_mask):
            return None
        return F.dropout(x_seq.new_ones(self.num_layers - 1, x_seq.shape[1], self._width), self.dropout_p)

    def _check(self, x: Tensor) -> None:
        many = self.step_mode == "m"
        if not many and (self.bidirectional or (self._drops and self.invariant_dropout_mask)):
            why = "it runs in both directions" if self.bidirectional else "its dropout mask is one for all steps"
            raise InputError(f"{self.describe()}: {why}, so it needs the whole sequence. Use step_mode='m'.")
        if x.ndim != 2 + many or x.shape[-1] != self.input_size or (many and x.shape[0] == 0):
            expected = f"[T, N, {self.input_size}] with T >= 1" if many else f"[N, {self.input_size}]"
            raise InputError(
                f"{self.describe()} in step mode {self.step_mode!r}: got shape {list(x.shape)}; expected {expected}."
            )

    def _stacked(self, states: Tensor | tuple[Tensor, ...] | None, x_seq: Tensor) -> Tensor:
        """States at the start, ``[states, layers, N, hidden_size]``."""
        layers = self.num_layers * (2 if self.bidirectional else 1)
        shape = (self.states_num(), layers, x_seq.shape[1], self.hidden_size)
        if states is None:
            return x_seq.new_zeros(shape)
        single = isinstance(states, Tensor)
        if not single and not (isinstance(states, (tuple, list)) and all(isinstance(s, Tensor) for s in states)):
            raise InputTypeError(
                f"{self.describe()}: states are {type(states).__name__}; expected None, a tensor or a tuple of tensors."
            )
        given: Sequence[Tensor] = [states] if isinstance(states, Tensor) else states
        if len(given) != shape[0] or any(tuple(state.shape) != shape[1:] for state in given):
            raise InputError(
                f"{self.describe()}: got states of shapes {[list(state.shape) for state in given]}; expected "
                f"{shape[0]} of shape {list(shape[1:])} (layers in all directions, N, hidden_size)."
            )
        return torch.stack(list(given))

    def extra_repr(self) -> str:
        parts = f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, bias={self.bias}"
        return f"{parts}, bidirectional={self.bidirectional}, step_mode={self.step_mode!r}"


class SpikingVanillaRNN(SpikingRNNBase):
    """Layers of :class:`SpikingVanillaRNNCell`.

    Args:
        input_size, hidden_size, num_layers, bias, dropout_p, invariant_dropout_mask, bidirectional: see
            :class:`SpikingRNNBase`.
        surrogate_function: see :class:`SpikingVanillaRNNCell`.

    Examples:
        >>> import torch
        >>> from jellyfit.layers.recurrent import SpikingVanillaRNN
        >>> y, h = SpikingVanillaRNN(3, 5, num_layers=1, bidirectional=True)(torch.rand(4, 2, 3))
        >>> y.shape, h.shape
        (torch.Size([4, 2, 10]), torch.Size([2, 2, 5]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool = True,
        dropout_p: float = 0,
        invariant_dropout_mask: bool = False,
        bidirectional: bool = False,
        surrogate_function: SurrogateFunction | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            dropout_p,
            invariant_dropout_mask,
            bidirectional,
            surrogate_function,
        )

    @classmethod
    def base_cell(cls) -> type[SpikingRNNCellBase]:
        return SpikingVanillaRNNCell


class _GatedRNN(SpikingRNNBase):
    """Layers of cells with two surrogates."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool = True,
        dropout_p: float = 0,
        invariant_dropout_mask: bool = False,
        bidirectional: bool = False,
        surrogate_function1: SurrogateFunction | None = None,
        surrogate_function2: SurrogateFunction | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            dropout_p,
            invariant_dropout_mask,
            bidirectional,
            surrogate_function1,
            surrogate_function2,
        )


class SpikingLSTM(_GatedRNN):
    """Layers of :class:`SpikingLSTMCell`; its states are a tuple ``(h, c)``.

    Args:
        input_size, hidden_size, num_layers, bias, dropout_p, invariant_dropout_mask, bidirectional: see
            :class:`SpikingRNNBase`.
        surrogate_function1, surrogate_function2: see :class:`SpikingLSTMCell`.

    Examples:
        >>> import torch
        >>> from jellyfit.layers.recurrent import SpikingLSTM
        >>> net = SpikingLSTM(3, 5, num_layers=2)
        >>> y, (h, c) = net(torch.rand(4, 2, 3))
        >>> y.shape, c.shape
        (torch.Size([4, 2, 5]), torch.Size([2, 2, 5]))
        >>> y, states = net(torch.rand(4, 2, 3), (h, c))  # goes on from there
    """

    @classmethod
    def base_cell(cls) -> type[SpikingRNNCellBase]:
        return SpikingLSTMCell


class SpikingGRU(_GatedRNN):
    """Layers of :class:`SpikingGRUCell`.

    Args:
        input_size, hidden_size, num_layers, bias, dropout_p, invariant_dropout_mask, bidirectional: see
            :class:`SpikingRNNBase`.
        surrogate_function1, surrogate_function2: see :class:`SpikingGRUCell`.

    Examples:
        >>> import torch
        >>> from jellyfit.layers.recurrent import SpikingGRU
        >>> y, h = SpikingGRU(3, 5, num_layers=1)(torch.rand(4, 2, 3))
        >>> y.shape, h.shape
        (torch.Size([4, 2, 5]), torch.Size([1, 2, 5]))
    """

    @classmethod
    def base_cell(cls) -> type[SpikingRNNCellBase]:
        return SpikingGRUCell
