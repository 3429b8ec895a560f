"""Linear layers: torch's numbers up to roundings where the faster product is taken, torch's own in all other cases."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from jellyfit import layers
from jellyfit.control import Critic, StackedLinear
from jellyfit.errors import StateError
from jellyfit.kernels import SpikeCompression
from jellyfit.kernels import linear as module
from jellyfit.kernels.linear import Linear, linear, outruns

PRODUCT = module.onednn_product()

pytestmark = pytest.mark.skipif(PRODUCT is None, reason="this PyTorch has no oneDNN product for linear layers")

ROWS, IN, OUT = 256, 160, 192
"""Large enough for oneDNN's product, forth and back."""


class Spy:
    """oneDNN's product, and the shapes of what it was called with."""

    def __init__(self) -> None:
        self.seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def __call__(self, x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        self.seen.append((tuple(x.shape), tuple(weight.shape)))
        assert PRODUCT is not None
        assert weight.is_contiguous() or weight.t().is_contiguous()  # or oneDNN would run its reference code
        return PRODUCT(x, weight, *rest)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    """A machine on which oneDNN is the faster one, whatever this one is."""
    found = Spy()
    monkeypatch.setattr(module, "_product", lambda: found)
    torch.manual_seed(0)
    return found


def sample(*shape: int) -> Tensor:
    return torch.randn(*shape)


def close(found: Tensor, expected: Tensor, relative: float = 1e-6) -> bool:
    assert found.shape == expected.shape
    return bool((found.double() - expected).abs().max() <= relative * expected.abs().max())


# Layouts of x [*, IN]; all of them have ROWS rows.
INPUTS: dict[str, Callable[[], Tensor]] = {
    "plain": lambda: sample(ROWS, IN),
    "sequence": lambda: sample(4, ROWS // 4, IN),
    "four axes": lambda: sample(4, 2, ROWS // 8, IN),
    "transposed": lambda: sample(IN, ROWS).t(),
    "batch first": lambda: sample(ROWS // 4, 4, IN).transpose(0, 1),
    "strided": lambda: sample(ROWS, 3, IN)[:, 1],
    "every second": lambda: sample(ROWS, 2 * IN)[:, ::2],
    "equal rows": lambda: sample(1, IN).expand(ROWS, IN),
    "equal steps": lambda: sample(1, ROWS // 4, IN).expand(4, ROWS // 4, IN),
    "unaligned": lambda: sample(ROWS * IN + 1)[1:].view(ROWS, IN),
}
WEIGHTS: dict[str, Callable[[], Tensor]] = {
    "plain": lambda: sample(OUT, IN),
    "transposed": lambda: sample(IN, OUT).t(),
    "a part": lambda: sample(OUT, 2 * IN)[:, IN:],
}


@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_values_and_gradients_are_those_of_torch(spy: Spy, inputs: str, weights: str, with_bias: bool) -> None:
    given = [INPUTS[inputs](), WEIGHTS[weights](), *([sample(OUT)] if with_bias else [])]
    for tensor in given:
        tensor.requires_grad_()
    wide = [tensor.detach().double().requires_grad_() for tensor in given]
    found, expected = linear(*given), F.linear(*wide)
    grad = sample(*expected.shape)
    grads = torch.autograd.grad(found, given, grad)
    assert len(spy.seen) == 3  # forward, and the gradients of x and of the weight
    assert close(found, expected)
    for got, wanted in zip(grads, torch.autograd.grad(expected, wide, grad.double()), strict=True):
        assert close(got, wanted)
    assert grads[1].is_contiguous()  # or DistributedDataParallel would copy it


def test_a_gradient_of_equal_values_is_taken(spy: Spy) -> None:
    x, weight = sample(ROWS, IN).requires_grad_(), sample(OUT, IN).requires_grad_()
    found = torch.autograd.grad(linear(x, weight).sum(), (x, weight))  # its gradient is one number, spread
    expected = torch.autograd.grad(F.linear(x.double(), weight.double()).sum(), (x, weight))
    assert all(close(one, other.double()) for one, other in zip(found, expected, strict=True))
    assert len(spy.seen) == 3


@pytest.mark.parametrize("needed", ["x", "weight", "bias", "none"])
def test_only_what_is_asked_for_is_computed_and_kept(spy: Spy, needed: str) -> None:
    given = {"x": sample(ROWS, IN), "weight": sample(OUT, IN), "bias": sample(OUT)}
    if needed != "none":
        given[needed].requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        y = linear(**given)
    products = {"x": 1, "weight": 1, "bias": 0, "none": 0}[needed]
    assert len(kept) == products and y.requires_grad == (needed != "none")
    if needed != "none":
        y.backward(sample(ROWS, OUT))
        expected = given[needed].grad
        assert expected is not None and expected.shape == given[needed].shape
    assert len(spy.seen) == 1 + products


def test_gradients_can_be_differentiated_again(spy: Spy) -> None:
    given = [sample(ROWS, IN).requires_grad_(), sample(OUT, IN).requires_grad_(), sample(OUT).requires_grad_()]
    thirds = []
    for function, tensors in ((linear, given), (F.linear, [t.detach().double().requires_grad_() for t in given])):
        grads = torch.autograd.grad(function(*tensors).pow(3).sum(), tensors, create_graph=True)
        seconds = torch.autograd.grad(sum(g.pow(2).sum() for g in grads), tensors, create_graph=True)  # type: ignore[arg-type]
        thirds.append((*grads, *seconds, *torch.autograd.grad(sum(s.sum() for s in seconds), tensors)))  # type: ignore[arg-type]
    assert len(spy.seen) > 6
    for found, expected in zip(*thirds, strict=True):
        assert close(found, expected, 1e-5)


def test_the_same_is_computed_twice_to_the_bit(spy: Spy) -> None:
    given = [sample(ROWS, IN).requires_grad_(), sample(OUT, IN).requires_grad_()]
    once, again = ((y := linear(*given), *torch.autograd.grad(y.sin().sum(), given)) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))


def test_numbers_that_are_none_go_through(spy: Spy) -> None:
    x, weight = sample(ROWS, IN), sample(OUT, IN)
    x[3, 5], x[9, 0] = torch.nan, torch.inf
    found, expected = linear(x, weight), F.linear(x, weight)
    assert spy.seen
    assert torch.equal(found.isnan(), expected.isnan()) and torch.equal(found.isinf(), expected.isinf())


def test_spikes_are_kept_as_bits(spy: Spy) -> None:
    weight, spikes = sample(OUT, IN).requires_grad_(), (sample(4, ROWS // 4, IN) > 0.5).float()
    with SpikeCompression() as compression:
        y = linear(spikes, weight)
    assert compression.packed_bytes == spikes.numel() // 8 and compression.dense_bytes == 4 * spikes.numel()
    (packed,) = torch.autograd.grad(y.sin().sum(), weight)
    (plain,) = torch.autograd.grad(linear(spikes, weight).sin().sum(), weight)
    assert torch.equal(packed, plain)


def test_a_second_backward_is_told_what_was_forgotten(spy: Spy) -> None:
    y = linear(sample(ROWS, IN), sample(OUT, IN).requires_grad_()).sum()
    y.backward()
    with pytest.raises(StateError, match="second time"):
        y.backward()


def test_activations_can_be_computed_again(spy: Spy) -> None:
    x, layer = sample(ROWS, IN).requires_grad_(), Linear(IN, OUT)
    (expected,) = torch.autograd.grad(layer(x).sin().sum(), x)
    (found,) = torch.autograd.grad(checkpoint(layer, x, use_reentrant=False).sin().sum(), x)
    assert torch.equal(found, expected)


# ---------------------------------------------------------------- torch's own


def under_autocast(x: Tensor, weight: Tensor, multiply: Any) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        return multiply(x, weight)


def under_a_dispatch_mode(x: Tensor, weight: Tensor, multiply: Any) -> Any:
    with FlopCounterMode(display=False) as counter:
        multiply(x, weight)
    return torch.tensor(counter.get_total_flops())


def without_onednn(x: Tensor, weight: Tensor, multiply: Any) -> Any:
    torch._C._set_mkldnn_enabled(False)  # torch.backends.mkldnn.flags warns of another flag
    try:
        return multiply(x, weight)
    finally:
        torch._C._set_mkldnn_enabled(True)


def forward_mode(x: Tensor, weight: Tensor, multiply: Any) -> Any:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(multiply(forward_ad.make_dual(x, torch.ones_like(x)), weight)).tangent


class Labelled(Tensor):
    """A subclass that wants to be seen."""


OTHER: dict[str, Callable[[Tensor, Tensor, Any], Any]] = {
    "float64": lambda x, w, f: f(x.double(), w.double()),
    "bfloat16": lambda x, w, f: f(x.bfloat16(), w.bfloat16()),
    "autocast": under_autocast,
    "dispatch mode": under_a_dispatch_mode,
    "without oneDNN": without_onednn,
    "forward mode": forward_mode,
    "vmap": lambda x, w, f: torch.func.vmap(lambda part: f(part, w))(x.unsqueeze(0)),
    "torch.func.grad": lambda x, w, f: torch.func.grad(lambda w: f(x, w).sin().sum())(w),
    "torch.func.jvp": lambda x, w, f: torch.func.jvp(lambda x: f(x, w), (x,), (x,))[1],
    "jit.trace": lambda x, w, f: torch.jit.trace(f, (x, w), check_trace=False)(x, w),
    "meta": lambda x, w, f: torch.tensor(f(x.to("meta"), w.to("meta")).shape),
    "subclass": lambda x, w, f: f(x.as_subclass(Labelled), w),  # type: ignore[arg-type]
    "strided bias": lambda x, w, f: f(x, w, torch.arange(2.0 * OUT)[::2]),
    "spread bias": lambda x, w, f: f(x, w, torch.ones(1).expand(OUT)),
    "no rows": lambda x, w, f: f(x[:0], w),
    "one row": lambda x, w, f: f(x[:1], w),
    "a row without batch": lambda x, w, f: f(x[0], w),
    "few outputs": lambda x, w, f: f(x, w[:2]),
    "a vector of weights": lambda x, w, f: f(x, w[0]),
}


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("case", OTHER)
def test_everything_else_is_for_torch(spy: Spy, case: str) -> None:
    x, weight = sample(ROWS, IN), sample(OUT, IN)
    expected = OTHER[case](x, weight, F.linear)
    spy.seen.clear()
    found = OTHER[case](x, weight, linear)
    assert spy.seen == []
    assert torch.equal(found, expected) and type(found) is type(expected)


def test_exported_networks_hold_torchs_operations(spy: Spy) -> None:
    program = torch.export.export(nn.Sequential(layers.Linear(IN, OUT)).eval(), (sample(ROWS, IN),))
    assert "mkldnn" not in str(program.graph) and "linear" in str(program.graph)
    assert spy.seen == []


def test_compiled_networks_hold_torchs_operations(spy: Spy) -> None:
    x, weight = sample(ROWS, IN), sample(OUT, IN)
    compiled = torch.compile(linear, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x, weight), F.linear(x, weight))
    assert spy.seen == []


@pytest.mark.parametrize(
    ("x", "weight", "bias"),
    [((ROWS, IN + 1), (OUT, IN), None), ((ROWS, IN), (OUT, IN), (OUT + 1,))],
    ids=["features", "bias"],
)
def test_shapes_that_do_not_fit_are_torchs_error(spy: Spy, x: Any, weight: Any, bias: Any) -> None:
    with pytest.raises(RuntimeError, match="cannot be multiplied|size|must match"):
        linear(sample(*x), sample(*weight), None if bias is None else sample(*bias))


@pytest.mark.parametrize(
    ("rows", "inputs", "outputs", "expected"),
    [
        (1, 17, 256, False),  # an action of a robot
        (100, 256, 256, True),  # a critic's batch
        (100, 23, 256, False),
        (500, 170, 64, False),
        (500, 170, 256, True),  # a spiking actor's batch of five steps
        (500, 256, 60, True),
        (3, 2048, 2048, False),
        (4, 2048, 2048, True),
        (1 << 20, 64, 3, False),
        (1 << 20, 3, 64, False),
    ],
)
def test_what_is_large_enough(spy: Spy, rows: int, inputs: int, outputs: int, expected: bool) -> None:
    x = torch.zeros(1).expand(rows, inputs)
    assert outruns(x, torch.zeros(outputs, inputs)) == expected
    stacked = torch.zeros(1).expand(4, rows, inputs), torch.zeros(1).expand(4, outputs, inputs)
    assert outruns(*stacked) == expected  # of several side by side, each must be


def test_a_small_weight_of_many_rows_has_torchs_gradient(spy: Spy) -> None:
    x, weight = sample(8192, 32), sample(32, 32).requires_grad_()
    (found,) = torch.autograd.grad(linear(x, weight).sum(), weight)
    assert [shapes[0] for shapes in spy.seen] == [(8192, 32)]
    assert close(found, torch.ones(32, 8192).double() @ x.double())


@pytest.mark.parametrize(
    ("vendor", "capability", "taken"),
    [
        ("AuthenticAMD", "AVX512", True),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
        ("", "DEFAULT", False),
    ],
)
def test_the_processor_decides(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, vendor: str, capability: str, taken: bool
) -> None:
    described = tmp_path / "cpuinfo"
    described.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\n", encoding="utf-8")
    monkeypatch.setattr(module, "_DESCRIPTION", described)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert (module._product.__wrapped__() is not None) == (taken and torch._C.has_mkl)
    described.unlink()  # Windows has no such file
    monkeypatch.setattr(module.platform, "processor", lambda: f"Family 26 Model 2, {vendor}")
    assert (module._product.__wrapped__() is not None) == (taken and torch._C.has_mkl)


def test_another_pytorch_may_lack_the_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        """Operations of a PyTorch that has none of this name."""

    monkeypatch.setattr(torch.ops, "mkldnn", Other())
    assert module.onednn_product() is None


# ---------------------------------------------------------------- where it is used


@pytest.mark.parametrize(
    "net",
    [
        Linear(IN, OUT),
        layers.Linear(IN, OUT, step_mode="m"),
        layers.WSLinear(IN, OUT, step_mode="m"),
        layers.LinearRecurrentContainer(nn.Tanh(), IN, IN, step_mode="m"),
        layers.SpikingVanillaRNN(IN, OUT, 1),
    ],
    ids=lambda net: type(net).__name__,
)
def test_layers_use_it_with_the_numbers_of_torch(spy: Spy, net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    x_seq = sample(3, ROWS, IN)

    def run() -> list[Tensor]:
        y = net(x_seq)
        y = y[0] if isinstance(y, tuple) else y
        getattr(net, "reset", lambda: None)()
        grads = torch.autograd.grad(y.sin().sum(), list(net.parameters()), allow_unused=True)
        return [y, *(grad for grad in grads if grad is not None)]

    found = run()
    assert len(spy.seen) >= 2
    monkeypatch.setattr(module, "_product", lambda: None)
    for one, other in zip(found, run(), strict=True):
        assert close(one, other.double(), 1e-5)


def test_layers_are_those_of_torch_to_everyone_else() -> None:
    ours, theirs = Linear(3, 4), nn.Linear(3, 4)
    assert isinstance(ours, nn.Linear) and list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = sample(5, 3)
    assert torch.equal(pickle.loads(pickle.dumps(ours))(x), theirs(x))
    called: list[int] = []
    ours.register_forward_hook(lambda *_: called.append(1))
    ours(x)
    assert called == [1]


def test_critics_use_it(spy: Spy) -> None:
    critic = Critic(17, 6)
    critic(sample(100, 17), sample(100, 6)).sum().backward()
    assert [shapes for shapes in spy.seen if shapes == ((100, 256), (256, 256))]
    assert len(spy.seen) == 2 * 3  # of both, the products of the hidden layer


@pytest.mark.parametrize("with_bias", [True, False])
def test_a_stack_has_a_product_for_each(spy: Spy, with_bias: bool) -> None:
    parts = [nn.Linear(IN, OUT, bias=with_bias) for _ in range(3)]
    stacked, x = StackedLinear(parts), sample(2, ROWS // 2, 3, IN).requires_grad_()
    y, weights = stacked(x), list(stacked.parameters())
    grad = sample(*y.shape)
    found = torch.autograd.grad(y, (x, *weights), grad)
    assert len(spy.seen) == 3 * 3
    for k, part in enumerate(parts):
        part.double()
        own = x.detach()[..., k, :].double().requires_grad_()
        expected = part(own)
        assert close(y[..., k, :], expected)
        wanted = torch.autograd.grad(expected, (own, *part.parameters()), grad[..., k, :].double())
        assert close(found[0][..., k, :], wanted[0])
        for one, other in zip(found[1:], wanted[1:], strict=True):
            assert close(one[k], other)


def test_batched_gradients_are_those_one_by_one(spy: Spy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LEAST", 1)
    x, weight, bias = (tensor.requires_grad_() for tensor in (torch.randn(6, 40), torch.randn(30, 40), torch.randn(30)))
    y = linear(x, weight, bias)
    assert type(y.grad_fn).__name__ == "_LinearBackward"
    many = torch.randn(5, *y.shape)
    found = torch.autograd.grad(y, (x, weight, bias), many, is_grads_batched=True, retain_graph=True)
    for i, grad in enumerate(many):
        for batched, one in zip(found, torch.autograd.grad(y, (x, weight, bias), grad, retain_graph=True), strict=True):
            torch.testing.assert_close(batched[i], one)
