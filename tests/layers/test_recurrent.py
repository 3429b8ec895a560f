"""Spiking recurrent networks against torch's cells and closed forms. SpikingJelly's numbers: tests/compat."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jellyfit import functional
from jellyfit.errors import ConfigError, InputError, InputTypeError
from jellyfit.layers.recurrent import (
    SpikingGRU,
    SpikingGRUCell,
    SpikingLSTM,
    SpikingLSTMCell,
    SpikingRNNBase,
    SpikingRNNCellBase,
    SpikingVanillaRNN,
    SpikingVanillaRNNCell,
    directional_rnn_cell_forward,
)
from jellyfit.surrogates import ATan, Sigmoid, SurrogateFunction

CELLS = [SpikingVanillaRNNCell, SpikingLSTMCell, SpikingGRUCell]
NETWORKS = [SpikingVanillaRNN, SpikingLSTM, SpikingGRU]


class Smooth(SurrogateFunction):
    """Any function in the place of spikes."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("cell", "peer"),
    [
        (lambda: SpikingVanillaRNNCell(5, 7, True, Smooth(torch.tanh)), nn.RNNCell),
        (lambda: SpikingGRUCell(5, 7, True, Smooth(torch.sigmoid), Smooth(torch.tanh)), nn.GRUCell),
        (lambda: SpikingLSTMCell(5, 7, True, Smooth(torch.sigmoid), Smooth(torch.tanh)), nn.LSTMCell),
    ],
)
def test_with_smooth_activations_a_cell_is_torchs(cell: Any, peer: Any) -> None:
    ours, theirs = cell().double(), peer(5, 7).double()
    for side in ("ih", "hh"):
        getattr(theirs, f"weight_{side}").data.copy_(getattr(ours, f"weight_{side}")())
        getattr(theirs, f"bias_{side}").data.copy_(getattr(ours, f"bias_{side}")())
    x, h, c = torch.randn(4, 5).double(), torch.randn(4, 7).double(), torch.rand(4, 7).double() - 1.0
    if isinstance(ours, SpikingLSTMCell):  # c stays below 1, and torch's h is o·tanh(c)
        (mine, mine_c), (_, their_c) = ours(x, (h, c)), theirs(x, (h, c))
        torch.testing.assert_close(mine_c, their_c)
        assert bool((their_c <= 1.0).all())
        assert mine.shape == h.shape
    else:
        torch.testing.assert_close(ours(x, h), theirs(x, h))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_with_smooth_activations_a_network_is_torchs(bidirectional: bool) -> None:
    ours = SpikingVanillaRNN(5, 7, 2, bidirectional=bidirectional, surrogate_function=Smooth(torch.tanh)).double()
    theirs = nn.RNN(5, 7, 2, bidirectional=bidirectional).double()
    for suffix, cells in [("", ours.cells)] + ([("_reverse", ours.cells_reverse)] if bidirectional else []):
        for i, cell in enumerate(cells):
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(theirs, f"{part}_l{i}{suffix}").data.copy_(getattr(cell, part)())
    x = torch.randn(6, 3, 5).double()
    y, h = ours(x)
    y2, h2 = theirs(x)
    torch.testing.assert_close(y, y2)
    order = [0, 2, 1, 3] if bidirectional else [0, 1]  # torch's states alternate directions
    torch.testing.assert_close(h, h2[order])


def test_the_cell_state_of_an_lstm_is_cut_to_one_and_its_gradient_is_not() -> None:
    cell = SpikingLSTMCell(1, 1)
    for parameter in cell.parameters():
        nn.init.ones_(parameter)  # every gate fires
    c = torch.ones(1, 1, requires_grad=True)
    h, after = cell(torch.ones(1, 1), (torch.zeros(1, 1), c))
    assert (h.item(), after.item()) == (1.0, 1.0)  # f c + i g is 2
    after.sum().backward()
    assert c.grad is not None
    assert c.grad.item() == 1.0


@pytest.mark.parametrize("network", NETWORKS)
def test_states_are_spikes(network: Any) -> None:
    y, states = network(5, 7, 2)(torch.randn(6, 3, 5) * 3.0)
    for tensor in [y, *(states if isinstance(states, tuple) else [states])]:
        assert set(tensor.unique().tolist()) <= {0.0, 1.0}
    assert 0.0 < float(y.detach().mean()) < 1.0 or network is SpikingLSTM


@pytest.mark.parametrize("network", NETWORKS)
def test_a_sequence_in_pieces_gives_what_it_gives_at_once(network: Any) -> None:
    net = network(5, 7, 2).double()
    x = torch.randn(7, 3, 5).double() * 3.0
    whole, last = net(x)
    pieces, states = [], None
    for part in x.split(3):
        y, states = net(part, states)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces), whole)
    torch.testing.assert_close(states, last)
    functional.set_step_mode(net, "s")
    steps, states = [], None
    for step in x:
        y, states = net(step, states)
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps), whole)
    torch.testing.assert_close(states, last)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("T", "N"), [(1, 1), (3, 0), (3, 2)])
def test_shapes_and_dtypes(network: Any, dtype: torch.dtype, T: int, N: int) -> None:
    net = network(5, 7, 2, bidirectional=True, dropout_p=0.5).to(dtype)
    x = torch.randn(T, N, 5, dtype=dtype).requires_grad_()
    y, states = net(x)
    assert (y.shape, y.dtype) == ((T, N, 14), dtype)
    for state in states if isinstance(states, tuple) else [states]:
        assert (state.shape, state.dtype) == ((4, N, 7), dtype)
    y.float().sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("invariant", [False, True])
def test_dropout_lies_between_layers_and_only_in_training(invariant: bool) -> None:
    net = SpikingVanillaRNN(5, 400, 2, dropout_p=0.25, invariant_dropout_mask=invariant)
    seen: list[Tensor] = []
    net.cells[1].linear_ih.register_forward_hook(lambda m, args, y: seen.append(args[0]))  # type: ignore[union-attr]
    nn.init.ones_(net.cells[0].bias_ih())  # type: ignore[operator]
    nn.init.zeros_(net.cells[0].weight_ih())  # type: ignore[operator]
    nn.init.zeros_(net.cells[0].weight_hh())  # type: ignore[operator]
    x = torch.zeros(4, 2, 5)
    y, _ = net(x)
    assert set(y.unique().tolist()) <= {0.0, 1.0}  # none behind the last layer
    dropped = seen[0] == 0.0
    torch.testing.assert_close(seen[0][~dropped], torch.full_like(seen[0][~dropped], 1 / 0.75))
    assert 0.2 < float(dropped.float().mean()) < 0.3
    assert bool((dropped == dropped[:1]).all()) == invariant
    net.eval()(x)
    assert bool((seen[1] == 1.0).all())


def test_the_input_half_of_the_gates_is_one_product() -> None:
    net, calls = SpikingLSTM(5, 7, 1), []
    net.cells[0].linear_ih.register_forward_hook(lambda m, args, y: calls.append(y.shape))  # type: ignore[union-attr]
    net(torch.rand(6, 3, 5))
    assert calls == [(6, 3, 28)]


@pytest.mark.parametrize("kind", [*CELLS, SpikingVanillaRNN, SpikingLSTM, SpikingGRU])
def test_copies_and_pickles_give_the_same_numbers(kind: Any) -> None:
    module = kind(5, 7) if kind in CELLS else kind(5, 7, 2)
    x = torch.randn(3, 5) if kind in CELLS else torch.randn(4, 3, 5)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(twin(x), module(x), rtol=0, atol=0)


def test_a_network_remembers_nothing() -> None:
    net = SpikingLSTM(5, 7, 2)
    x = torch.randn(4, 3, 5)
    assert torch.equal(net(x)[0], net(x)[0])
    assert functional.named_stateful(net) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpikingGRUCell(0, 3), "input_size=0"),
        (lambda: SpikingGRU(5, 7, 0), "num_layers=0"),
        (lambda: SpikingGRU(5, 7, 1, dropout_p=1.0), "dropout_p=1.0"),
        (lambda: SpikingGRU(5, 7, 1)(torch.rand(3, 5)), r"got shape \[3, 5\]; expected \[T, N, 5\]"),
        (lambda: SpikingGRU(5, 7, 1)(torch.rand(0, 3, 5)), "T >= 1"),
        (lambda: SpikingGRU(5, 7, 1)(torch.rand(4, 3, 6)), "expected"),
        (lambda: SpikingGRU(5, 7, 1)(torch.rand(4, 3, 5), torch.zeros(2, 3, 7)), r"expected 1 of shape \[1, 3, 7\]"),
        (lambda: SpikingLSTM(5, 7, 1)(torch.rand(4, 3, 5), torch.zeros(1, 3, 7)), "expected 2 of shape"),
        (lambda: directional_rnn_cell_forward(SpikingGRUCell(5, 7), torch.rand(4, 5), torch.zeros(4, 7)), "expected x"),
        (
            lambda: directional_rnn_cell_forward(SpikingLSTMCell(5, 7), torch.rand(4, 3, 5), torch.zeros(3, 7)),
            "2 states",
        ),
    ],
)
def test_mistakes_are_named(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_single_steps_are_refused_where_a_sequence_is_needed() -> None:
    both = SpikingGRU(5, 7, 1, bidirectional=True)
    masked = SpikingGRU(5, 7, 2, dropout_p=0.5, invariant_dropout_mask=True)
    for net, why in ((both, "both directions"), (masked, "dropout mask")):
        functional.set_step_mode(net, "s")
        with pytest.raises(InputError, match=why):
            net(torch.rand(3, 5))
    assert masked.eval()(torch.rand(3, 5))[0].shape == (3, 7)


def test_states_of_another_type_are_refused() -> None:
    with pytest.raises(InputTypeError, match="states are dict"):
        SpikingGRU(5, 7, 1)(torch.rand(4, 3, 5), {})


def test_one_surrogate_that_spikes_and_one_that_does_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="spiking=True"):
        SpikingLSTMCell(5, 7, surrogate_function1=Sigmoid(), surrogate_function2=ATan(spiking=False))


def test_bases_say_what_a_subclass_has_to_write() -> None:
    with pytest.raises(TypeError, match="must define step"):
        SpikingRNNCellBase(5, 7)(torch.rand(3, 5))
    with pytest.raises(TypeError, match="must define the class method base_cell"):
        SpikingRNNBase(5, 7, 1)
