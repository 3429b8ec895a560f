"""Checkpointing changes the memory of training and nothing else."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from jellyfit import functional, layers
from jellyfit.backbones import Backbone, SpikingConvNet, SpikingMLP
from jellyfit.checkpointing import Checkpointed, checkpoint, checkpoint_blocks
from jellyfit.errors import InputError, InputTypeError, StateError
from jellyfit.layers.recurrent import SpikingLSTM
from jellyfit.metrics import FiringRateMeter
from jellyfit.neurons import BaseNode, LIFNode, MemoryModule, ParametricLIFNode, SlidingPSN

BACKENDS = ["torch", "auto"]
T, N = 6, 2


def block(channels: int, out: int, backend: str, dropout: float = 0.3) -> nn.Sequential:
    return layers.Sequential(
        layers.Conv2d(channels, out, 3, padding=1, step_mode="m"),
        layers.BatchNorm2d(out, step_mode="m"),
        ParametricLIFNode(step_mode="m", backend=backend),
        nn.Dropout(dropout),
        LIFNode(v_threshold=0.2, step_mode="m", backend=backend),
    )


def conv_net(backend: str = "torch", dropout: float = 0.3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(block(2, 4, backend, dropout), block(4, 3, backend, dropout))


def frames(seed: int = 1) -> Tensor:
    return torch.randn(T, N, 2, 5, 5, generator=torch.Generator().manual_seed(seed)) * 2.0


def states(net: nn.Module) -> list[Tensor]:
    return [v for m in net.modules() if isinstance(m, MemoryModule) for v in m.memories() if isinstance(v, Tensor)]


def train(net: nn.Module, run: Callable[[Tensor], Tensor], calls: int = 2) -> dict[str, list[Tensor]]:
    """Everything that training computes, over several calls in which state is carried with its graph."""
    torch.manual_seed(5)
    inputs = [frames(i).requires_grad_() for i in range(calls)]
    outputs = [run(x) for x in inputs]
    loss = sum((y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum() for y in outputs)
    assert isinstance(loss, Tensor)
    before = [v.clone() for v in states(net)]
    loss.backward()
    assert all(map(torch.equal, before, states(net)))  # backward leaves the state alone
    return {
        "outputs": outputs,
        "gradients of inputs": [x.grad for x in inputs if x.grad is not None],
        "gradients": [p.grad for p in net.parameters() if p.grad is not None],
        "buffers": [buffer.clone() for buffer in net.buffers()],
        "states": states(net),
        "random numbers": [torch.rand(3)],
    }


def agree(found: dict[str, list[Tensor]], expected: dict[str, list[Tensor]], exactly: bool = True) -> None:
    tolerance = {"rtol": 0.0, "atol": 0.0} if exactly else {"rtol": 1e-5, "atol": 1e-6}
    for what, tensors in expected.items():
        assert tensors or what == "buffers"
        assert len(found[what]) == len(tensors), what
        for mine, other in zip(found[what], tensors, strict=True):
            torch.testing.assert_close(mine, other, **tolerance, msg=lambda text, what=what: f"{what}: {text}")


@contextmanager
def kept_bytes() -> Iterator[list[int]]:
    """Bytes of all that autograd keeps for backward; parameters, which live anyway, aside."""
    seen: dict[int, int] = {}
    alive = []
    total: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total
    total.append(sum(seen.values()))


# ---------------------------------------------------------------- the same numbers


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("training", [True, False])
def test_one_segment_gives_every_number_to_the_bit(backend: str, training: bool) -> None:
    net = conv_net(backend).train(training)
    twin = copy.deepcopy(net)
    agree(train(twin, lambda x: checkpoint(twin, x)), train(net, net))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_segment_a_block_gives_every_number_to_the_bit(backend: str) -> None:
    net = conv_net(backend)
    twin, wrapped = copy.deepcopy(net), copy.deepcopy(net)
    expected = train(net, net)
    agree(train(twin, lambda x: checkpoint_blocks(twin, x)), expected)
    chain = nn.Sequential(*(Checkpointed(part) for part in wrapped))
    agree(train(chain, chain), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("chunks", [2, 3, 4, T, 100])
def test_chunks_of_time_give_the_same_numbers(backend: str, chunks: int) -> None:
    net = conv_net(backend, dropout=0.0).eval()  # in training, batch norm takes its statistics over a chunk
    twin = copy.deepcopy(net)
    agree(train(twin, lambda x: checkpoint(twin, x, chunks)), train(net, net), exactly=False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_segments_inside_segments(backend: str) -> None:
    net = conv_net(backend)
    inside = copy.deepcopy(net)
    nested = Checkpointed(nn.Sequential(Checkpointed(inside[0]), nn.Sequential(Checkpointed(inside[1]))))
    agree(train(nested, nested), train(net, net))


@pytest.mark.parametrize("backend", BACKENDS)
def test_single_steps(backend: str) -> None:
    net = conv_net(backend)
    functional.set_step_mode(net, "s")
    wrapped = Checkpointed(copy.deepcopy(net), chunks=3)
    functional.set_step_mode(wrapped, "s")

    def steps(module: nn.Module) -> Callable[[Tensor], Tensor]:
        return lambda x: torch.stack([module(step) for step in x])

    agree(train(wrapped, steps(wrapped)), train(net, steps(net)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("chunks", [1, 3])
def test_containers_and_memories_of_every_kind(backend: str, chunks: int) -> None:
    class Average(MemoryModule):
        """Remembers a tensor, a list and a number."""

        def __init__(self) -> None:
            super().__init__("m")
            self.register_memory("mean", 0.0)
            self.register_memory("seen", [])
            self.register_memory("steps", 0)

        def single_step_forward(self, x: Tensor) -> Tensor:
            self.steps += 1
            self.seen = [*self.seen[-1:], x]
            self.mean = self.mean * 0.5 + sum(self.seen) / self.steps
            return self.mean

    torch.manual_seed(0)
    net = nn.Sequential(
        layers.MultiStepContainer(nn.Conv2d(2, 3, 3), LIFNode(v_threshold=0.2, backend=backend)),
        layers.StepModeContainer(False, nn.Conv2d(3, 4, 3)),
        Average(),
        LIFNode(v_threshold=0.2, v_reset=None, step_mode="m", backend=backend),
    )
    functional.set_step_mode(net, "m")
    twin = copy.deepcopy(net)
    run = Checkpointed(twin, chunks)
    agree(train(run, run), train(net, net), exactly=chunks == 1)
    assert twin[2].steps == net[2].steps == 2 * T


@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("carry_state", [False, True])
def test_backbones_begin_their_sequence_once(chunks: int, carry_state: bool) -> None:
    class Outer(Backbone):
        """A backbone in a backbone."""

        def __init__(self) -> None:
            super().__init__(carry_state)
            self.inner = SpikingConvNet((2, 5, 5), 3, [4], neuron=ParametricLIFNode(), carry_state=carry_state)
            self.set_step_mode("m")

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)  # type: ignore[no-any-return]

    torch.manual_seed(0)
    net = Outer().eval()
    twin = copy.deepcopy(net)
    agree(train(twin, lambda x: checkpoint(twin, x, chunks)), train(net, net), exactly=False)
    assert not any(module._carried for module in twin.modules() if isinstance(module, Backbone))


def test_a_learnable_reset_potential_and_the_potentials_over_time() -> None:
    torch.manual_seed(0)
    node = LIFNode(v_reset=nn.Parameter(torch.zeros(4)), step_mode="m", store_v_seq=True)
    net = nn.Sequential(layers.Linear(3, 4, step_mode="m"), node)
    found = []
    for run in (net, Checkpointed(copy.deepcopy(net), 3)):
        x = torch.randn(T, N, 3, generator=torch.Generator().manual_seed(1))
        run(x).sum().backward()
        node = next(module for module in run.modules() if isinstance(module, BaseNode))
        assert node.v_seq is not None
        assert node.v_seq.shape == (T, N, 4)
        found.append([node.v_seq.detach(), *(p.grad for p in run.parameters())])
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other)


def test_modules_with_states_of_their_own() -> None:
    net = SpikingLSTM(3, 4, 2)
    x = torch.randn(T, N, 3)
    y, (h, c) = checkpoint(net, x)
    expected, (h2, c2) = net(x)
    assert torch.equal(y, expected)
    assert torch.equal(torch.stack([h, c]), torch.stack([h2, c2]))
    losses = (y.sum() + c.sum(), expected.sum() + c2.sum())
    gradients = [torch.autograd.grad(loss, list(net.parameters())) for loss in losses]
    assert all(map(torch.equal, *gradients))


def test_backward_twice_with_a_retained_graph() -> None:
    net = conv_net()
    y = checkpoint(net, frames())
    grads = [torch.autograd.grad(y.sum(), list(net.parameters()), retain_graph=True) for _ in range(2)]
    assert all(map(torch.equal, *grads))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_and_autocast(dtype: torch.dtype) -> None:
    net = conv_net(dropout=0.0)
    twin = copy.deepcopy(net)
    if dtype == torch.float64:
        agree(
            train(twin.double(), lambda x: checkpoint(twin, x.double()).float()),
            train(net.double(), lambda x: net(x.double()).float()),
        )
        return

    def under_autocast(run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def call(x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return run(x).float()

        return call

    agree(train(twin, under_autocast(lambda x: checkpoint(twin, x))), train(net, under_autocast(net)))


# ---------------------------------------------------------------- what it is for, and what stays as it is


@pytest.mark.parametrize("backend", BACKENDS)
def test_less_is_kept_for_backward(backend: str) -> None:
    net, x = conv_net(backend, dropout=0.0), torch.randn(24, N, 2, 16, 16)
    kept = {}
    for name, run in (
        ("plain", net),
        ("blocks", lambda x: checkpoint_blocks(net, x)),
        ("one segment", lambda x: checkpoint(net, x)),
    ):
        functional.reset_net(net)
        with kept_bytes() as total:
            run(x)
        kept[name] = total[0]
    assert kept["blocks"] < 0.5 * kept["plain"]
    assert kept["one segment"] < kept["blocks"]
    assert kept["one segment"] < 1.5 * x.numel() * x.element_size()


def test_nothing_is_computed_twice_without_gradients() -> None:
    net, calls = conv_net(), []
    net[0].register_forward_hook(lambda *args: calls.append(1))
    with torch.no_grad():
        checkpoint(net, frames())
    assert len(calls) == 1


def test_firing_rates_count_a_spike_once() -> None:
    net = conv_net(dropout=0.0)
    with FiringRateMeter(net) as plain:
        net(frames()).sum().backward()
    functional.reset_net(net)
    with FiringRateMeter(net) as meter:
        checkpoint(net, frames()).sum().backward()
    assert {k: n for k, (_, n) in meter.sums().items()} == {k: n for k, (_, n) in plain.sums().items()}


def test_the_state_dict_is_that_of_the_module() -> None:
    net = conv_net()
    wrapped = nn.Sequential(Checkpointed(net[0]), Checkpointed(net[1]))
    assert list(wrapped.state_dict()) == list(net.state_dict())
    other = conv_net()
    for parameter in other.parameters():
        nn.init.ones_(parameter)
    wrapped.load_state_dict(other.state_dict())
    assert all(bool((parameter == 1.0).all()) for parameter in net.parameters())
    Checkpointed(net).load_state_dict(other.state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        wrapped.load_state_dict({})


def test_copies_and_pickles_work() -> None:
    net = Checkpointed(conv_net(dropout=0.0), 2).eval()
    x = frames()
    expected = net(x)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        functional.reset_net(twin)
        assert torch.equal(twin(x), expected)
        twin(x).sum().backward()
    assert str(net).startswith("Checkpointed(\n  chunks=2, step_mode='m'")


def test_an_empty_batch_and_one_step() -> None:
    net = nn.Sequential(layers.Linear(3, 4, step_mode="m"), LIFNode(step_mode="m"))
    for shape in ((4, 0, 3), (1, 2, 3)):
        functional.reset_net(net)
        y = checkpoint(net, torch.randn(shape), 2)
        assert y.shape == (*shape[:2], 4)
        y.sum().backward()


# ---------------------------------------------------------------- mistakes


def test_mistakes_are_named() -> None:
    net = conv_net()
    with pytest.raises(InputError, match="chunks=0"):
        checkpoint(net, frames(), 0)
    with pytest.raises(InputError, match="chunks=0"):
        Checkpointed(net, 0)
    with pytest.raises(InputError, match=r"got \[3\]"):
        checkpoint(net, torch.rand(3), 2)
    with pytest.raises(InputTypeError, match="gave tuple"):
        checkpoint(SpikingLSTM(3, 4, 1), torch.rand(T, N, 3), 2)


def test_a_state_changed_in_place_is_noticed() -> None:
    class InPlace(MemoryModule):
        def __init__(self) -> None:
            super().__init__("m")
            self.register_memory("v", torch.zeros(N, 3))

        def single_step_forward(self, x: Tensor) -> Tensor:
            self.v += x.detach()
            return x * self.v

    net = InPlace()
    y = checkpoint(net, torch.rand(T, N, 3, requires_grad=True))
    with pytest.raises(StateError, match="changed in place"):
        y.sum().backward()


# ---------------------------------------------------------------- torch.utils.checkpoint alone


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("reset_before_backward", [False, True])
def test_plain_checkpointing_cannot_update_the_state_twice(
    backend: str, step_mode: str, reset_before_backward: bool
) -> None:
    net = conv_net(backend)
    functional.set_step_mode(net, step_mode)
    x = frames().requires_grad_()
    run: Any = net if step_mode == "m" else lambda x: torch.stack([net(step) for step in x])
    y = torch.utils.checkpoint.checkpoint(run, x, use_reentrant=False)
    if reset_before_backward:
        functional.reset_net(net)
    before = [copy.copy(m.v) for m in net.modules() if isinstance(m, BaseNode)]
    with pytest.raises(StateError, match=r"jellyfit\.checkpointing"):
        y.sum().backward()
    for old, new in zip(before, [m.v for m in net.modules() if isinstance(m, BaseNode)], strict=True):
        assert torch.equal(old, new) if isinstance(old, Tensor) else old == new


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_plain_checkpointing_of_a_backbone_works(backend: str, reentrant: bool) -> None:
    torch.manual_seed(0)
    net = SpikingConvNet((2, 5, 5), 3, [4], neuron=ParametricLIFNode(backend=backend))
    twin = copy.deepcopy(net)
    found = train(twin, lambda x: torch.utils.checkpoint.checkpoint(twin, x, use_reentrant=reentrant))
    agree(found, train(net, net))


def test_plain_checkpointing_of_a_backbone_that_carries_its_state_is_refused() -> None:
    net = SpikingMLP(3, 2, carry_state=True)
    y = torch.utils.checkpoint.checkpoint(net, torch.rand(T, N, 3), use_reentrant=False)
    with pytest.raises(StateError, match=r"jellyfit\.checkpointing"):
        y.sum().backward()


def test_pure_functions_run_inside_a_plain_checkpoint() -> None:
    node = LIFNode(step_mode="m")
    x = torch.rand(T, N, 3, requires_grad=True)
    y = torch.utils.checkpoint.checkpoint(lambda x: node.run(x)[0], x, use_reentrant=False)
    (expected,) = torch.autograd.grad(node.run(x)[0].sum(), x)
    (found,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("reentrant", [False, True])
def test_plain_checkpointing_of_a_segment_that_resets_itself_works(reentrant: bool) -> None:
    net = conv_net("auto", dropout=0.0).eval()
    twin = copy.deepcopy(net)

    def begun_anew(module: nn.Module) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            functional.reset_net(module)
            return module(x)  # type: ignore[no-any-return]

        return run

    again = begun_anew(twin)
    found = train(twin, lambda x: torch.utils.checkpoint.checkpoint(again, x, use_reentrant=reentrant), calls=1)
    expected = train(net, begun_anew(net), calls=1)
    del expected["states"]  # torch stops the second computation early; the next segment resets them anyway
    agree(found, expected)


@pytest.mark.parametrize("make", [lambda: SlidingPSN(3), lambda: layers.Delay(1), lambda: layers.SynapseFilter()])
def test_plain_checkpointing_of_any_memory_in_single_steps_is_refused(make: Any) -> None:
    module = make()
    x = torch.rand(T, N, 3, requires_grad=True)
    y = torch.utils.checkpoint.checkpoint(lambda x: torch.stack([module(s).exp() for s in x]), x, use_reentrant=False)
    with pytest.raises(StateError, match=r"jellyfit\.checkpointing"):
        y.sum().backward()
    functional.reset_net(module)
    steps = Checkpointed(module)
    steps.step_mode = "s"
    expected, found = (
        torch.autograd.grad(torch.stack([run(s).exp() for s in x]).sum(), x)[0]
        for run in (copy.deepcopy(module), steps)
    )
    assert torch.equal(found, expected)
