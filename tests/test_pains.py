"""What users of spiking network libraries have suffered from, and what happens here instead."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jellyfit import functional, layers
from jellyfit.backbones import Backbone, SpikingConvNet, SpikingMLP
from jellyfit.errors import InputError, StateError
from jellyfit.neurons import AdaptiveLIFNode, BaseNode, IFNode, LIFNode, MemoryModule, ParametricLIFNode

BACKENDS = ["torch", "auto"]
STEP_MODES = ["s", "m"]
T, N, C = 5, 3, 4


def small_net(backend: str, step_mode: str = "m", node: Callable[..., BaseNode] = LIFNode) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(layers.Linear(C, C), node(backend=backend), layers.Linear(C, C), node(backend=backend))
    functional.set_step_mode(net, step_mode)
    return net


def sequence(seed: int = 0) -> Tensor:
    return torch.randn(T, N, C, generator=torch.Generator().manual_seed(seed)) * 3.0


def run(net: nn.Module, x_seq: Tensor, step_mode: str) -> Tensor:
    """A sequence through a network, whichever mode it is in."""
    return net(x_seq) if step_mode == "m" else torch.stack([net(x) for x in x_seq])  # type: ignore[no-any-return]


# ---------------------------------------------------------------- the reset that was forgotten


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("step_mode", STEP_MODES)
@pytest.mark.parametrize("node", [LIFNode, ParametricLIFNode, IFNode, AdaptiveLIFNode])
@pytest.mark.parametrize("detach_reset", [False, True])
def test_a_second_backward_after_a_forgotten_reset_names_the_fix(
    backend: str, step_mode: str, node: Any, detach_reset: bool
) -> None:
    net = small_net(backend, step_mode, lambda backend: node(backend=backend, detach_reset=detach_reset))
    run(net, sequence(), step_mode).sum().backward()
    y = run(net, sequence(1), step_mode)  # to forget it is no error as long as nobody goes back
    with pytest.raises(StateError, match=r"second time.*reset_net\(net\).*Backbone.*detach_net\(net\)"):
        y.sum().backward()
    functional.reset_net(net)
    run(net, sequence(2), step_mode).sum().backward()
    functional.detach_net(net)
    run(net, sequence(3), step_mode).sum().backward()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_batch_norm_that_runs_with_its_neuron_names_the_fix_too(backend: str) -> None:
    norm, node = layers.BatchNorm2d(2, step_mode="m"), LIFNode(step_mode="m", backend=backend)
    net = layers.Sequential(layers.Conv2d(2, 2, 3, step_mode="m"), norm, node)
    x_seq = torch.randn(T, N, 2, 5, 5)
    net(x_seq).sum().backward()
    y = net(x_seq)
    with pytest.raises(StateError, match="reset_net"):
        y.sum().backward()


def test_modules_of_ones_own_with_a_memory_name_the_fix_too() -> None:
    class Trace(MemoryModule):
        def __init__(self) -> None:
            super().__init__("m")
            self.register_memory("trace", 0.0)

        def single_step_forward(self, x: Tensor) -> Tensor:
            self.trace = self.trace * 0.5 + x.exp()
            return self.trace * x

    net = nn.Sequential(layers.Linear(C, C, step_mode="m"), Trace())
    net(sequence()).sum().backward()
    y = net(sequence())
    with pytest.raises(StateError, match="reset_net"):
        y.sum().backward()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("step_mode", STEP_MODES)
def test_a_retained_graph_can_be_gone_back_into(backend: str, step_mode: str) -> None:
    net, twin = (small_net(backend, step_mode) for _ in range(2))
    run(net, sequence(), step_mode).sum().backward(retain_graph=True)
    run(net, sequence(1), step_mode).sum().backward()
    functional.reset_net(twin)
    first = run(twin, sequence(), step_mode)
    second = run(twin, sequence(1), step_mode)
    (2.0 * first.sum() + second.sum() - first.sum()).backward()
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("backend", BACKENDS)
def test_backbones_need_no_reset(backend: str) -> None:
    net = SpikingMLP(C, 3, [8], neuron=LIFNode(backend=backend))
    for seed in range(3):
        net(sequence(seed)).sum().backward()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_input_gives_the_same_output_twice(backend: str) -> None:
    mlp = SpikingMLP(C, 3, [8], neuron=LIFNode(backend=backend)).eval()
    conv = SpikingConvNet((2, 8, 8), 3, [4], neuron=LIFNode(backend=backend)).eval()
    with torch.no_grad():
        for net, x_seq in ((mlp, sequence()), (conv, torch.rand(T, N, 2, 8, 8) * 4.0)):
            first = net(x_seq)
            assert torch.equal(net(x_seq), first)
            net(x_seq[:, :1])  # another batch size in between
            assert torch.equal(net(x_seq), first)


class Wrapper:
    """No module, but holds one."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module


def test_reset_finds_neurons_wherever_they_are_nested() -> None:
    class Own(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

    nodes = [LIFNode() for _ in range(6)]
    net = nn.ModuleDict(
        {
            "list": nn.ModuleList([nn.Sequential(nodes[0]), Own(Own(nodes[1]))]),
            "dict": nn.ModuleDict({"a": layers.MultiStepContainer(nodes[2])}),
            "stateful": layers.StepModeContainer(True, nodes[3]),
            "data parallel": nn.DataParallel(Own(nodes[4])),
            "backbone": Own(SpikingMLP(C, 2, neuron=nodes[5])),
        }
    )
    nodes[5] = next(module for module in net["backbone"].modules() if isinstance(module, BaseNode))
    for node in nodes:
        node.step_mode = "s"
        node(torch.rand(N, C))
        assert isinstance(node.v, Tensor)
    functional.reset_net(net)
    assert [node.v for node in nodes] == [0.0] * 6
    assert len(functional.named_neurons(net)) == 6


# ---------------------------------------------------------------- states that do not fit


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("step_mode", STEP_MODES)
@pytest.mark.parametrize(("before", "after"), [(N, 1), (1, N), (N, N - 1), (N, 0)])
def test_a_state_of_another_batch_size_is_never_broadcast(
    backend: str, step_mode: str, before: int, after: int
) -> None:
    net = small_net(backend, step_mode)
    x = torch.randn(T, N, C)
    run(net, x[:, :before], step_mode)
    with pytest.raises(StateError, match=r"'1' .*reset_net"):
        run(net, x[:, :after], step_mode)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_load_whatever_the_state_is(backend: str) -> None:
    fresh, used = small_net(backend), small_net(backend)
    used(sequence())
    assert list(used.state_dict()) == list(fresh.state_dict())
    fresh.load_state_dict(used.state_dict())
    used(sequence())
    used.load_state_dict(fresh.state_dict())  # with a state of batch size N inside
    assert list(dict(used.named_buffers())) == []


# ---------------------------------------------------------------- which axis is time


def test_layers_of_images_refuse_a_sequence_in_single_steps_and_a_step_as_a_sequence() -> None:
    for layer in (layers.Conv2d(2, 2, 3), layers.BatchNorm2d(2), layers.MaxPool2d(2), layers.AvgPool2d(2)):
        with pytest.raises(InputError, match=r"expected \[N, C, H, W\]"):
            layer(torch.rand(T, N, 2, 8, 8))
        layer.step_mode = "m"
        with pytest.raises(InputError, match=r"expected \[T, N, C, H, W\]"):
            layer(torch.rand(N, 2, 8, 8))


def test_backbones_refuse_a_shape_without_time() -> None:
    with pytest.raises(InputError, match=r"\[T, N, C, H, W\]"):
        SpikingConvNet((2, 8, 8), 3, [4])(torch.rand(N, 2, 8, 8))
    with pytest.raises(InputError, match=r"\[T, N, \*\]"):
        SpikingMLP(C, 3)(torch.rand(N, C))
    with pytest.raises(InputError, match="takes a sequence"):
        LIFNode(step_mode="m")(torch.rand(N))


@pytest.mark.parametrize("backend", BACKENDS)
def test_both_modes_give_the_same_numbers_and_one_call_sets_all(backend: str) -> None:
    net = small_net(backend)
    expected = net(sequence())
    functional.reset_net(net)
    functional.set_step_mode(net, "s")
    assert {m.step_mode for m in net.modules() if hasattr(m, "step_mode")} == {"s"}
    torch.testing.assert_close(run(net, sequence(), "s"), expected)


# ---------------------------------------------------------------- gradients


UPSTREAM: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda y: (y.transpose(0, 2) * torch.arange(1.0, C + 1)[:, None, None]).sum(),
    "expanded": lambda y: y.sum(),
    "every second": lambda y: (y[::2, :, ::2] * 3.0).sum(),
    "one step": lambda y: y[-1].pow(2).sum() + y[0, 0, 0],
    "flipped": lambda y: (y.flip(0).cumsum(0) * torch.arange(1.0, T + 1)[:, None, None]).sum(),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", UPSTREAM)
@pytest.mark.parametrize("layout", ["contiguous", "time last", "batch first"])
def test_gradients_do_not_depend_on_how_tensors_lie_in_memory(backend: str, name: str, layout: str) -> None:
    order = {"contiguous": (0, 1, 2), "time last": (2, 1, 0), "batch first": (1, 0, 2)}[layout]
    found = []
    for x_seq in (sequence(), sequence().permute(order).contiguous().permute(order)):
        x = x_seq.detach().requires_grad_()
        node = ParametricLIFNode(step_mode="m", backend=backend)
        UPSTREAM[name](node(x)).backward()
        found.append((x.grad, node.w.grad))
    reference = sequence().requires_grad_()
    node = ParametricLIFNode(step_mode="m", backend="torch")
    y = node(reference)
    (grad_y,) = torch.autograd.grad(UPSTREAM[name](y), y, retain_graph=True)
    y.backward(grad_y.clone(memory_format=torch.contiguous_format))
    for grad, grad_w in found:
        torch.testing.assert_close(grad, reference.grad)
        torch.testing.assert_close(grad_w, node.w.grad)


# ---------------------------------------------------------------- memory


def graph_size(tensor: Tensor) -> int:
    """Nodes that backward from a tensor could visit."""
    pending, known = [tensor.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is not None and node not in known:
            known.add(node)
            pending += [following for following, _ in node.next_functions]
    return len(known)


def live_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(found), Tensor) for found in gc.get_objects())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("step_mode", STEP_MODES)
@pytest.mark.parametrize("how", ["reset_net", "detach_net", "backbone that carries", "without gradients"])
def test_an_epoch_needs_no_more_memory_than_a_batch(backend: str, step_mode: str, how: str) -> None:
    net: nn.Module = small_net(backend, step_mode)
    if how == "backbone that carries":
        net = SpikingMLP(C, C, [C], neuron=LIFNode(backend=backend), carry_state=True)
        step_mode = "m"
    tensors, sizes = [], []
    for seed in range(6):
        if how == "without gradients":
            with torch.no_grad():
                y = run(net, sequence(seed), step_mode)
        else:
            y = run(net, sequence(seed), step_mode)
            y.sum().backward()
            if how.endswith("_net"):
                getattr(functional, how)(net)
        sizes.append(graph_size(y))
        del y
        tensors.append(live_tensors())
    assert len(set(sizes[1:])) == 1
    assert len(set(tensors[2:])) == 1


def test_a_network_and_its_graph_are_freed_together() -> None:
    import weakref

    for backend in BACKENDS:
        net = small_net(backend)
        net(sequence()).sum().backward()
        net(sequence())
        node = weakref.ref(net[1])
        del net
        gc.collect()
        assert node() is None


# ---------------------------------------------------------------- precision


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_potentials_keep_their_precision(backend: str, dtype: torch.dtype) -> None:
    class Drop(LIFNode):
        """Ten thousand small inputs would be lost in half precision."""

    node = Drop(tau=1e4, decay_input=False, v_threshold=100.0, step_mode="m", backend=backend)
    with torch.autocast("cpu", dtype):
        drive = torch.nn.functional.linear(torch.ones(400, 1, 1), torch.full((1, 1), 0.05))
        assert drive.dtype == dtype
        spikes = node(drive)
    assert spikes.dtype == dtype
    assert node.v.dtype == torch.float32
    expected = LIFNode(tau=1e4, decay_input=False, v_threshold=100.0, step_mode="m", backend="torch")
    expected(drive.float())
    assert node.v.item() == pytest.approx(expected.v.item(), rel=1e-5)
    assert node.v.item() > 19.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_on_and_off_in_one_sequence_is_named(backend: str) -> None:
    net = small_net(backend)
    net(sequence())
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(StateError, match="bfloat16"):
        net(sequence())


# ---------------------------------------------------------------- copies


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("step_mode", STEP_MODES)
def test_a_copy_in_the_middle_of_a_sequence_goes_on_by_itself(backend: str, step_mode: str) -> None:
    net = small_net(backend, step_mode)
    x_seq = sequence()
    run(net, x_seq[:2], step_mode)
    twin = copy.deepcopy(net)
    assert twin[1].v.grad_fn is None
    rest = run(net, x_seq[2:], step_mode)
    run(twin, sequence(1), step_mode)  # what the copy does, the original does not see
    functional.reset_net(net)
    run(net, x_seq[:2], step_mode)
    again = copy.deepcopy(net)
    assert torch.equal(run(again, x_seq[2:], step_mode), rest)
    run(again, x_seq, step_mode).sum().backward()
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_backbone_in_a_backbone_keeps_its_state_in_a_stream() -> None:
    class Outer(Backbone):
        def __init__(self) -> None:
            super().__init__(carry_state=True)
            self.inner = SpikingMLP(C, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)  # type: ignore[no-any-return]

    torch.manual_seed(0)
    net = Outer()
    parts = [net(part) for part in sequence().split(2)]
    functional.reset_net(net)
    assert torch.equal(torch.cat(parts), net(sequence()))


def test_parts_of_one_sequence_can_be_run_one_by_one() -> None:
    net = SpikingMLP(C, 3, [8])
    whole = net(sequence())
    with net.one_sequence():
        parts = [net(part) for part in sequence().split(2)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(net(sequence()), whole)  # from now on every call begins anew
    torch.cat(parts).sum().backward()
