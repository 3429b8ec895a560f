"""Rows of recurrent."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jellyfit import surrogates
from jellyfit.errors import InputError
from jellyfit.layers import recurrent
from tests.compat.rows import Row, close, peer

N, INPUTS, HIDDEN = 3, 5, 7


def pair(name: str, *args: Any, **options: Any) -> tuple[nn.Module, nn.Module]:
    """Both, made after the same seed: parameters have the same names, and are drawn in the same order."""
    made = []
    for module in (recurrent, peer("rnn")):
        torch.manual_seed(1)
        made.append(getattr(module, name)(INPUTS, HIDDEN, *args, **options).double())
    ours, theirs = made
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        close(ours.state_dict()[key], value, key)
    return ours, theirs


def flat(results: Any) -> list[Tensor]:
    """All tensors of a result, in order."""
    return [results] if isinstance(results, Tensor) else [tensor for part in results for tensor in flat(part)]


def agree(pair: Sequence[nn.Module], x: Tensor, states: Any = None, seed: int = 2) -> None:
    """Outputs, states and gradients of both."""
    found = []
    for module in pair:
        torch.manual_seed(seed)
        given = x.clone().requires_grad_()
        outputs = flat(module(given, states))
        sum(((i + 1) * y * torch.linspace(1, 2, y.numel()).view_as(y)).sum() for i, y in enumerate(outputs)).backward()
        found.append([*outputs, given.grad, *(parameter.grad for parameter in module.parameters())])
        module.zero_grad()
    for i, (mine, other) in enumerate(zip(*found, strict=True)):
        close(mine, other, f"{type(pair[0]).__name__}, result {i}")
    assert float(given.grad.abs().sum()) > 0.0  # type: ignore[union-attr]


def some(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64) * 3.0


def spikes(*shape: int) -> Tensor:
    return (torch.rand(*shape, dtype=torch.float64) > 0.5).double()


def cell(name: str) -> Any:
    """A cell: one step, from nothing and from given states."""

    def check() -> None:
        states = {"SpikingLSTMCell": 2}.get(name, 1)
        for bias, second in itertools.product((True, False), (False, True) if "Vanilla" not in name else (False,)):
            mine, other = pair(name, bias)
            if second:
                mine.surrogate_function2, other.surrogate_function2 = surrogates.ATan(), peer("surrogate").ATan()
            agree((mine, other), some(N, INPUTS))
            given = tuple(spikes(N, HIDDEN) for _ in range(states))
            agree((mine, other), some(N, INPUTS), given if states > 1 else given[0])
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if bias else 2]:
                close(getattr(mine, part)(), getattr(other, part)(), part)
        mine, other = pair(name)
        for module, library in ((mine, surrogates), (other, peer("surrogate"))):
            smooth = library.Sigmoid(spiking=False)  # real values: rounding would show
            setattr(module, "surrogate_function" if "Vanilla" in name else "surrogate_function1", smooth)
        real = tuple(some(N, HIDDEN) for _ in range(states))
        agree((mine, other), some(N, INPUTS), real if states > 1 else real[0])

    return check


def network(name: str) -> Any:
    """A stack: layers, directions, dropout (the same masks after the same seed), states given and not."""

    def check() -> None:
        count = getattr(recurrent, name).states_num()
        assert count == getattr(peer("rnn"), name).states_num()
        for layers, both, invariant in itertools.product((1, 3), (False, True), (False, True)):
            nets = pair(name, layers, True, 0.4, invariant, both)
            x = some(6, N, INPUTS)
            agree(nets, x)
            given = tuple(spikes(layers * (1 + both), N, HIDDEN) for _ in range(count))
            agree(nets, x, given if count > 1 else given[0])
            agree([net.eval() for net in nets], x)
        agree(pair(name, num_layers=2, bias=False), some(1, 1, INPUTS))

    return check


def one_direction() -> None:
    """Outputs agree; theirs gives the last states of a cell with several as a tuple."""
    run, other = recurrent.directional_rnn_cell_forward, peer("rnn").directional_rnn_cell_forward
    for name in ("SpikingVanillaRNNCell", "SpikingGRUCell"):
        mine, theirs = pair(name)
        x, h = some(6, N, INPUTS), spikes(N, HIDDEN)
        for a, b in zip(run(mine, x, h), other(theirs, x, h), strict=True):  # type: ignore[arg-type]
            close(a, b, name)
    mine, theirs = pair("SpikingLSTMCell")
    x, states = some(6, N, INPUTS), spikes(2, N, HIDDEN)
    (y, last), (y2, last2) = run(mine, x, states), other(theirs, x, states)  # type: ignore[arg-type]
    close(y, y2, "output")
    assert isinstance(last2, tuple)
    assert last.shape == states.shape
    close(last, torch.stack(last2), "states")


def both_directions() -> None:
    run, other = recurrent.bidirectional_rnn_cell_forward, peer("rnn").bidirectional_rnn_cell_forward
    for name, shape in (("SpikingGRUCell", (N, HIDDEN)), ("SpikingLSTMCell", (2, N, HIDDEN))):
        (a, b), (c, d) = pair(name), pair(name)
        for module in (c, d):
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.neg_()
        x, states, reverse = some(6, N, INPUTS), spikes(*shape), spikes(*shape)
        mine = run(a, c, x, states, reverse)  # type: ignore[arg-type]
        theirs = other(b, d, x, states, reverse)
        stacked = [torch.stack(t) if isinstance(t, tuple) else t for t in theirs]
        for left, right in zip(flat(mine), stacked, strict=True):
            close(left, right, name)
        assert isinstance(theirs[1], tuple) == (len(shape) == 3)


def cell_base() -> None:
    """The same draw of weights; a subclass of ours writes one step, one of theirs builds its layers too."""
    assert not list(peer("rnn").SpikingRNNCellBase(INPUTS, HIDDEN).parameters())
    base = recurrent.SpikingRNNCellBase(INPUTS, HIDDEN)
    assert base.weight_ih().shape == (HIDDEN, INPUTS)
    before = base.weight_hh().clone()
    base.reset_parameters()
    assert not torch.equal(before, base.weight_hh())
    assert float(base.weight_hh().detach().abs().max()) <= HIDDEN**-0.5
    with pytest.raises(InputError):
        recurrent.SpikingRNNCellBase(0, HIDDEN)


def network_base() -> None:
    """Both find their cells with ``base_cell`` and count states with ``states_num``; ours makes them by itself."""
    theirs = peer("rnn")

    class Mine(recurrent.SpikingRNNBase):
        @classmethod
        def base_cell(cls) -> type[recurrent.SpikingRNNCellBase]:
            return recurrent.SpikingGRUCell

    class Theirs(theirs.SpikingRNNBase):  # type: ignore[name-defined,misc]
        @staticmethod
        def base_cell() -> Any:
            return theirs.SpikingGRUCell

        @staticmethod
        def states_num() -> int:
            return 1

    nets = []
    for kind, atan in ((Mine, surrogates.ATan()), (Theirs, theirs.surrogate.ATan())):
        torch.manual_seed(1)
        nets.append(kind(INPUTS, HIDDEN, 2, True, 0, False, True, atan).double())
    assert Mine.states_num() == 1  # theirs has to be told
    agree(nets, some(6, N, INPUTS))
    assert hasattr(nets[1], "create_cells")
    assert not hasattr(nets[0], "create_cells")


ROWS: list[Row] = [
    Row(
        "SpikingRNNCellBase",
        "different",
        cell_base,
        note="has its linear layers already: a subclass gives `gates`, `states` and one `step`, and gets the input's "
        "half of all gates for a whole sequence at once",
    ),
    Row(
        "SpikingRNNBase",
        "different",
        network_base,
        note="a subclass writes `base_cell` alone (`states_num` and the cells follow from it; no `create_cells`)",
    ),
    *(Row(f"Spiking{kind}Cell", "same", cell(f"Spiking{kind}Cell")) for kind in ("VanillaRNN", "LSTM", "GRU")),
    *(Row(f"Spiking{kind}", "same", network(f"Spiking{kind}")) for kind in ("VanillaRNN", "LSTM", "GRU")),
    Row(
        "directional_rnn_cell_forward",
        "different",
        one_direction,
        note="takes our cells; last states have the shape of the first, for an LSTM too (there: a tuple)",
    ),
    Row(
        "bidirectional_rnn_cell_forward",
        "different",
        both_directions,
        note="takes our cells; last states have the shape of the first, for an LSTM too (there: a tuple)",
    ),
]
