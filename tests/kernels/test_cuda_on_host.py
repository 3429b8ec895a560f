"""CUDA kernels, executed on the CPU, against eager PyTorch: indices, tails, vector loads, stretches and sums."""

import copy
import itertools
import mmap
import pickle
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from jellyfit import neurons, surrogates
from jellyfit.kernels import cuda, naive
from jellyfit.kernels.cuda import CudaTarget
from jellyfit.kernels.fused import FusedStep
from jellyfit.kernels.ops import OPS
from jellyfit.neurons import BaseNode
from tests.kernels import nvrtc
from tests.kernels.combinations import DTYPES, SETTINGS, every, label, make
from tests.kernels.cuda_on_host import HostGrid, compiled, cuda_kernels_on_the_host, needs_compiler
from tests.kernels.test_cuda_source import Oddly

pytestmark = needs_compiler

SIZES = (1, 3, 17, 63, 65, 1000, 4097, 64, 4096)
STEPS = (1, 2, 5, 20)
# exp, tanh and sigmoid are the C library's here, and others in eager PyTorch
EXPONENTIAL = ("EIFNode", "Oddly", "ComplementaryLIFNode", "LIAFNode")
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-13, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Of gradients; for half precision a rounding of the result."""


@pytest.fixture(autouse=True)
def nan_where_nothing_is_written():
    """Fresh tensors hold NaN, so that an element which a kernel forgets shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def draw(*shape, dtype=torch.float32, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * (1.2 * torch.randn(shape, generator=generator) + 0.5)).to(dtype)


def run(node: BaseNode, x: torch.Tensor, carry: bool = True):
    """Spikes, potentials and gradients of two calls, of which the second goes on from where the first stopped."""
    node.reset()
    node.zero_grad()
    x = x.detach().requires_grad_()
    spikes, potentials = [], []
    for part in (x, (x * 0.9).to(x.dtype)) if carry else (x,):
        spikes.append(node(part))
        potentials += [node.v_seq] if node.store_v_seq else []
    potentials += [getattr(node, name) for name in node.kernels.states]
    outputs = [*spikes, *potentials]
    generator = torch.Generator().manual_seed(5)
    weights = [torch.randn(output.shape, generator=generator).to(output.dtype) for output in outputs]
    sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True)).backward()
    gradients = [x.grad, *(p.grad for p in node.parameters() if p.grad is not None)]
    return [output.detach() for output in spikes], [output.detach() for output in potentials], gradients


def assert_agrees(node: BaseNode, x: torch.Tensor, grid: HostGrid | None = None, carry: bool = True):
    """The kernels' results are eager PyTorch's: spikes and potentials to the bit, gradients closely."""
    exact = type(node).__name__ not in EXPONENTIAL
    eager = copy.deepcopy(node)
    eager.backend = "torch"
    grid = HostGrid() if grid is None else grid
    before = len(grid.launched)
    with cuda_kernels_on_the_host(grid):
        *outputs, gradients = run(node, x, carry)
    assert len(grid.launched) - before == (4 if carry else 2), "kernels should have run"
    *expected_outputs, expected_gradients = run(eager, x, carry)
    for i, (found, expected) in enumerate(zip(outputs, expected_outputs, strict=True)):
        for output, wanted in zip(found, expected, strict=True):
            assert output.dtype == wanted.dtype and output.shape == wanted.shape
            if exact or (i == 0 and node.fires):
                assert torch.equal(output.nan_to_num(), wanted.nan_to_num())
            else:  # an output of half precision is rounded once more
                close = TOLERANCE[output.dtype] if output.dtype in (torch.float16, torch.bfloat16) else 1e-5
                torch.testing.assert_close(output, wanted, rtol=close, atol=close, equal_nan=True)
    for i, (gradient, expected) in enumerate(zip(gradients, expected_gradients, strict=True)):
        assert gradient.dtype == expected.dtype and gradient.shape == expected.shape
        usable = expected.isfinite()
        assert torch.equal(gradient.isfinite(), usable)
        if usable.any():
            gradient, expected = gradient[usable].double(), expected[usable].double()
            allowed = TOLERANCE[x.dtype] if exact else max(1e-4, TOLERANCE[x.dtype])
            error, largest = (gradient - expected).abs().max(), expected.abs().max()
            if error > allowed * largest + 1e-30:  # a sum of terms that cancel: who is nearer to the truth?
                truth = run(copy.deepcopy(eager).double(), x.double(), carry)[2][i][usable]
                assert (gradient - truth).abs().max() <= 4.0 * (expected - truth).abs().max()
    return grid


def kernels_run(grid: HostGrid) -> set[str]:
    return {name.rsplit("_", 2)[1] + "_" + name.rsplit("_", 2)[2] for name, _, _ in grid.launched}


@pytest.mark.parametrize("settings", every(SETTINGS), ids=label)
def test_every_setting_agrees_with_eager(settings):
    scale = 0.3 if settings["neuron"] in ("EIFNode", "QIFNode") else 1.0  # else they grow beyond all bounds
    offset = sum(map(ord, label(settings)))
    for i, size in enumerate(SIZES):
        if (i + offset) % 3 == 0:
            continue  # every size with most settings
        steps = STEPS[(i + offset) % len(STEPS)]
        x = draw(steps, 1, size, dtype=settings["dtype"], scale=scale, seed=i)
        assert_agrees(make(settings, x.shape[1:]), x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_size_and_number_of_steps_agrees_with_eager(dtype):
    node = neurons.ParametricLIFNode(step_mode="m", surrogate_function=surrogates.ATan(), store_v_seq=True)
    node.to(dtype if dtype == torch.float64 else torch.float32)
    grid = HostGrid()
    for size, steps in itertools.product(SIZES, STEPS):
        assert_agrees(node, draw(steps, size, 1, dtype=dtype), grid, carry=False)
    assert kernels_run(grid) == {
        f"{which}_{width}" for which in ("forward", "backward") for width in ("vector", "scalar")
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_misaligned_tensors_take_the_path_of_single_elements(dtype):
    node = neurons.LIFNode(step_mode="m", surrogate_function=surrogates.ATan())
    storage, grid = draw(5 * 64 + 3, dtype=dtype), HostGrid()
    for offset in (0, 1, 3):
        assert_agrees(node, storage[offset : offset + 5 * 64].view(5, 64), grid, carry=False)
    assert [name.rsplit("_", 1)[1] for name, _, _ in grid.launched] == ["vector"] * 2 + ["scalar"] * 4


def test_a_misaligned_gradient_or_state_takes_the_path_of_single_elements():
    x = draw(5, 64).requires_grad_()
    node, eager = (neurons.LIFNode(step_mode="m", backend=backend) for backend in ("auto", "torch"))
    weights = draw(5 * 64 + 1, seed=1)[1:].view(5, 64)
    v = draw(65, seed=2)[1:]
    grid, gradients = HostGrid(), []
    for each in (node, eager):
        with cuda_kernels_on_the_host(grid):
            each(x)
            each.v = v.clone() if each is eager else v
            spikes = each(x)
        gradients.append(torch.autograd.grad(spikes, x, weights)[0])
    assert [name.rsplit("_", 1)[1] for name, _, _ in grid.launched] == ["vector", "scalar", "scalar"]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-7)
    x.grad = None
    with cuda_kernels_on_the_host(grid):
        node.reset()
        node(x).backward(weights)
    assert [name.rsplit("_", 1)[1] for name, _, _ in grid.launched[3:]] == ["vector", "scalar"]


@pytest.mark.parametrize("params", ["scalar", "channel", "element"])
@pytest.mark.parametrize("shape", [(3, 5, 7, 4), (2, 8, 4, 4), (8, 5, 3, 3)], ids=str)
def test_images_of_both_memory_formats_agree_with_eager(shape, params):
    settings = {
        "neuron": "LIFNode", "surrogate": "ATan", "dtype": torch.float32, "params": params, "v_reset": -0.2,
        "detach_reset": False, "decay_input": True, "store_v_seq": True,
    }  # fmt: skip
    for steps in (1, 10):
        x = draw(steps, *shape)
        for form in (x, x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)):
            node = make(settings, shape)
            assert_agrees(node, form)
            with cuda_kernels_on_the_host(HostGrid()):
                node.reset()
                assert node(form).stride() == form.stride()


@pytest.mark.parametrize("params", ["scalar", "channel"])
@pytest.mark.parametrize("size", [1000, 4096, 4097])
def test_a_grid_smaller_than_the_data_goes_round_several_times(size, params, monkeypatch):
    monkeypatch.setattr(cuda, "_BLOCKS", 1)
    settings = {
        "neuron": "ParametricLIFNode", "surrogate": "Sigmoid", "dtype": torch.float32, "params": params,
        "v_reset": None, "detach_reset": False, "decay_input": True, "store_v_seq": False,
    }  # fmt: skip
    x = draw(9, 2, size)
    grid = assert_agrees(make(settings, x.shape[1:]), x)
    assert all(blocks == 1 for _, blocks, _ in grid.launched)


def test_blocks_are_shared_out_evenly():
    node = neurons.IFNode(step_mode="m")
    grid = HostGrid(multiprocessors=1)
    with cuda_kernels_on_the_host(grid):
        node(draw(1, 17 * 256 * 4))
    assert grid.launched == [("IFNode_forward_vector", 9, 256)]  # 17 blocks' work, 16 at a time: 9 and 8, not 16 and 1


def test_gradients_of_parameters_are_the_same_every_time():
    x = draw(7, 3, 1000)
    gradients = []
    for _ in range(3):
        node = neurons.ParametricLIFNode(step_mode="m", init_tau=torch.full((1000,), 2.0))
        node.register_value("v_threshold", nn.Parameter(torch.tensor(0.8)))
        with cuda_kernels_on_the_host(HostGrid()):
            gradients.append(run(node, x)[2])
    for again in gradients[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients[0], again, strict=True))


def test_settings_that_keep_changing_share_a_source():
    node = neurons.LIFNode(step_mode="m", v_reset=-0.3, surrogate_function=surrogates.ATan())
    grid, x = HostGrid(), draw(11, 3, 8)
    compiled.cache_clear()
    for i in range(8):
        node.tau = 2.0 + 0.3 * i
        assert_agrees(node, x, grid)
    assert compiled.cache_info().currsize < 2 * 7, "the last ones differ in numbers alone"


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_affine_input_is_scaled_and_shifted_with_one_rounding(layout):
    """Scale and shift go in front of the step; the gradient is that of the step's own input."""
    shape = (2, 5, 4, 4)
    x, scale, shift = draw(6, *shape), draw(5, 1, 1, seed=1), draw(5, 1, 1, seed=2)
    if layout == "channels_last":
        x = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    y = (x.double() * scale.double() + shift.double()).float()
    node = neurons.QIFNode(
        step_mode="m", surrogate_function=surrogates.ATan(), v_threshold=nn.Parameter(torch.ones(5, 1, 1))
    )
    grad = draw(6, *shape, seed=3)
    with cuda_kernels_on_the_host(HostGrid()):
        plan = node.kernels.plan(x, affine=True)
        assert isinstance(plan.target, CudaTarget)
        params = node.kernels.params()
        states = [torch.full_like(x[0], -0.1)]
        packed = plan.pack(x, [*params, scale, shift])
        spikes, lasts, _, kept = plan.forward_pass(x, states, packed, False, True)
        grad_y, _, grad_params = plan.backward_pass(x, states, packed, kept, grad, [None], None)
        plain = node.kernels.plan(y)
        expected, expected_lasts, _, kept = plain.forward_pass(y, states, plain.pack(y, params), False, True)
        expected_grads = plain.backward_pass(y, states, plain.pack(y, params), kept, grad.contiguous(), [None], None)
    assert torch.equal(spikes, expected) and torch.equal(lasts[0], expected_lasts[0])
    torch.testing.assert_close(grad_y, expected_grads[0], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(grad_params, expected_grads[2], rtol=1e-6, atol=1e-6)


def test_sequences_within_one_stretch_keep_nothing_and_longer_ones_a_state_for_each_further_stretch():
    node = neurons.LIFNode(step_mode="m")
    with cuda_kernels_on_the_host(HostGrid()):
        for steps in (1, 7, 8, 9, 16, 17):
            x = draw(steps, 3, 5)
            plan = node.kernels.plan(x)
            kept = plan.target.forward(x, [None], [], False, True)[3]
            assert plan.target.stretch == 8
            expected = (steps - 1) // 8
            assert (kept is None) if expected == 0 else list(kept.shape) == [expected, 1, 15]


def test_compiled_graphs_get_the_same_gradients():
    """What ``torch.compile`` calls: gradients without a graph of autograd, also over more than one stretch."""
    for steps in (3, 20):
        x, grad = draw(steps, 4, 6), draw(steps, 4, 6, seed=1)
        found = []
        for backend in ("auto", "torch"):
            node = neurons.LIFNode(step_mode="m", backend=backend)
            if backend == "auto":
                with cuda_kernels_on_the_host(HostGrid()):
                    plan = node.kernels.plan(x)
                    zero = torch.zeros_like(x[0])
                    found.append(plan.gradients(x, [zero], [], grad, [zero], None)[0])
            else:
                leaf = x.clone().requires_grad_()
                node(leaf).backward(grad)
                found.append(leaf.grad)
        torch.testing.assert_close(*found, rtol=1e-6, atol=1e-7)


def sparse(*shape, dtype):
    """A tensor of which only the pages that are touched need memory."""
    count = int(np.prod(shape))
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE, which Python does not name
    return torch.frombuffer(mmap.mmap(-1, count * dtype.itemsize, flags=flags), dtype=dtype, count=count).view(shape)


@pytest.mark.skipif(sys.platform != "linux", reason="needs memory that is only promised")
@pytest.mark.parametrize("width", ["vector", "scalar"])
def test_more_than_two_to_the_31_elements_are_indexed_right(width, monkeypatch):
    """The last block of a grid over more than 2^31 half-precision elements, and two steps of them."""
    monkeypatch.setattr(cuda, "_BLOCKS", 1 << 30)
    torch.use_deterministic_algorithms(False)
    rows = (1 << 31) // 24 * 8 + 8 + (width == "scalar")  # of three channels
    x = sparse(2, rows, 3, dtype=torch.float16)
    tail = 16
    x[:, -tail:] = draw(2, tail, 3, dtype=torch.float16)
    thresholds = torch.tensor([0.3, 0.6, 0.9])
    node = neurons.LIFNode(step_mode="m", v_threshold=thresholds)
    grid = HostGrid(last_blocks=1)
    allocate = lambda like, **options: sparse(*like.shape, dtype=options.get("dtype", like.dtype))  # noqa: E731
    monkeypatch.setattr(torch, "empty_like", allocate)
    monkeypatch.setattr(CudaTarget, "_state_like", lambda self, x: sparse(*x.shape[1:], dtype=self.real))
    with cuda_kernels_on_the_host(grid), torch.no_grad():
        spikes = node(x)
    ((name, blocks, threads),) = grid.launched
    assert name == f"LIFNode_forward_{width}"
    monkeypatch.undo()
    eager = neurons.LIFNode(step_mode="m", v_threshold=thresholds, backend="torch")
    expected = eager(x[:, -tail:].clone())
    elements = 3 * rows - (blocks - 1) * threads * (8 if width == "vector" else 1)  # of the last block
    last = min(tail, elements // 3)
    assert last > 0
    assert torch.equal(spikes[:, -last:], expected[:, -last:])
    assert torch.equal(node.v[-last:], eager.v[-last:])


def test_the_recorded_state_may_stand_anywhere():
    """``v`` is the second of two states; gradients reach it at every step."""

    def step(x, states, params, say):
        w, v = states
        h = 0.5 * v + x - w
        spike = surrogates.ATan()(h - 1.0)
        return spike, [0.9 * w + 0.1 * h, h - spike]

    x, shape = draw(11, 3, 8), (3, 8)
    grads = [draw(11, 3, 8, seed=i) for i in (1, 2)]
    start = [draw(3, 8, seed=3), draw(3, 8, seed=4)]
    with cuda_kernels_on_the_host(HostGrid()):
        plan = FusedStep(step, shape, torch.float32, torch.device("cpu"), ["w", "v"], [0.0, 0.0], [], "two")
        leaves = [tensor.clone().requires_grad_() for tensor in (x, *start)]
        spikes, _, v_seq = plan(leaves[0], leaves[1:], [], True)
        found = torch.autograd.grad([spikes, v_seq], leaves, grads)
    eager = [tensor.clone().requires_grad_() for tensor in (x, *start)]
    expected_spikes, _, sequences = naive.run(step, eager[0], eager[1:], [])
    assert torch.equal(spikes, expected_spikes) and torch.equal(v_seq, sequences[1])
    for gradient, expected in zip(
        found, torch.autograd.grad([expected_spikes, sequences[1]], eager, grads), strict=True
    ):
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


def test_half_precision_of_the_header_is_that_of_torch():
    source = """\
    #include <cuda_fp16.h>
    extern "C" __global__ void convert(const float* x, __half* h, __nv_bfloat16* b, float* back, long long n) {
        for (long long i = 0; i < n; ++i) {
            h[i] = __float2half_rn(x[i]);
            b[i] = __float2bfloat16_rn(x[i]);
            back[i] = __half2float(h[i]) - __bfloat162float(b[i]);
        }
    }
    """
    every = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(torch.float16).float()
    every = every[every.isfinite()]
    random = torch.randn(20000, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.linspace(-9, 6, 20000)
    x = torch.cat(
        [every, every * (1 + 2**-11), every * (1 + 3 * 2**-12), random, torch.tensor([65519.0, 65520.0, 7e4])]
    )
    half, bfloat, back = torch.empty_like(x, dtype=torch.float16), x.bfloat16() * 0, torch.empty_like(x)
    launch = HostGrid().load(source, ["convert"], torch.device("cpu"))["convert"]
    launch(1, 1, [x.data_ptr(), half.data_ptr(), bfloat.data_ptr(), back.data_ptr(), len(x)])
    assert torch.equal(half, x.half()) and torch.equal(bfloat, x.bfloat16())
    assert torch.equal(back.nan_to_num(), (half.float() - bfloat.float()).nan_to_num())


def test_neurons_that_have_run_on_cuda_kernels_can_be_copied_and_pickled():
    node = neurons.ParametricLIFNode(step_mode="m")
    x = draw(4, 3, 8)
    with cuda_kernels_on_the_host(HostGrid()):
        node(x)
        for twin in (copy.deepcopy(node), pickle.loads(pickle.dumps(node))):
            assert torch.equal(twin.v, node.v)
            assert torch.equal(twin(x), copy.deepcopy(node)(x))


def test_many_memories_of_any_name_agree_with_eager():
    for size in (8, 9):
        assert_agrees(Oddly(), draw(10, 1, size))


def test_gradients_flow_into_states_and_from_the_last_states():
    first = draw(3, 8, seed=1)
    found = []
    for backend in ("auto", "torch"):
        node = neurons.IzhikevichNode(
            step_mode="m", a=0.3, b=0.2, backend=backend, surrogate_function=surrogates.ATan()
        )
        x, v, w = (tensor.clone().requires_grad_() for tensor in (draw(12, 3, 8), first, 0.1 * first))
        with cuda_kernels_on_the_host(HostGrid()):
            node.v, node.w = v, w
            node(x)
            found.append(torch.autograd.grad((node.v * first).sum() + node.w.square().sum(), [x, v, w]))
    for gradient, expected in zip(*found, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


def test_a_source_that_does_not_compile_is_a_reason_to_run_in_eager_pytorch():
    class Broken(HostGrid):
        def load(self, source, names, device):
            raise cuda.KernelUnavailableError("CuPy cannot compile kernels: nothing works")

    x = draw(4, 3, 8)
    with cuda_kernels_on_the_host(Broken()), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(neurons.LIFNode(step_mode="m")(x), neurons.LIFNode(step_mode="m", backend="torch")(x))


POSITIVE = ("log", "log1p", "sqrt", "rsqrt", "pow")
OPERATIONS = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "neg": torch.neg,
    "fma": lambda x, y: torch.add(x, y, alpha=0.3), "reciprocal": torch.reciprocal, "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt, "abs": torch.abs, "sign": torch.sign, "floor": torch.floor, "ceil": torch.ceil,
    "round": torch.round, "trunc": torch.trunc, "maximum": torch.maximum, "minimum": torch.minimum,
    "clamp_min": lambda x: x.clamp(min=-0.5), "clamp_max": lambda x: x.clamp(max=0.5),
    "where": lambda x, y: torch.where(x > y, x, y), "copysign": torch.copysign, "exp": torch.exp,
    "expm1": torch.expm1, "log": torch.log, "log1p": torch.log1p, "sin": torch.sin, "cos": torch.cos,
    "tan": torch.tan, "atan": torch.atan, "atan2": torch.atan2, "sinh": torch.sinh, "cosh": torch.cosh,
    "tanh": torch.tanh, "erf": torch.erf, "sigmoid": torch.sigmoid, "pow": torch.pow, "gt": torch.gt,
    "ge": torch.ge, "lt": torch.lt, "le": torch.le, "eq": torch.eq, "ne": torch.ne,
    "and": lambda x, y: (x > 0) & (y > 0), "or": lambda x, y: (x > 0) | (y > 0), "xor": lambda x, y: (x > 0) ^ (y > 0),
    "not": lambda x: ~(x > 0), "real": lambda x: (x > 0).to(x.dtype), "bool": lambda x: torch.logical_not(x),
    "infinite": lambda x: torch.where(x > 1.0, float("inf"), x), "nan": lambda x: torch.where(x > 1.0, float("nan"), x),
}  # fmt: skip


BINARY = {
    "add", "sub", "mul", "div", "fma", "maximum", "minimum", "where", "copysign", "atan2", "pow", "gt", "ge", "lt",
    "le", "eq", "ne", "and", "or", "xor",
}  # fmt: skip
CLOSE = {  # those of other libraries differ in the last bit (eager PyTorch's sqrt is MKL's)
    "exp", "expm1", "log", "log1p", "sin", "cos", "tan", "atan", "atan2", "sinh", "cosh", "tanh", "erf", "sigmoid",
    "pow", "fma", "sqrt", "rsqrt",
}  # fmt: skip


def apply_all(x, y):
    """Every operation's result, as real numbers."""
    found = []
    for name, function in OPERATIONS.items():
        first = x.abs() + 0.1 if name in POSITIVE else x
        takes = 2 if name in BINARY else 1
        found.append(function(*(first, y)[:takes]).to(x.dtype))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_operation_computes_what_eager_pytorch_does(dtype):
    def step(x, states, params, say):
        return (x > 0).to(x.dtype), apply_all(x, states[0])

    x, y = draw(1, 5, 8, dtype=dtype), draw(5, 8, dtype=dtype, seed=1)
    x[0, 0, :4] = torch.tensor([0.5, 1.5, -2.5, y[0, 3]])
    names = [f"state_{name}" for name in OPERATIONS]
    with cuda_kernels_on_the_host(HostGrid()):
        plan = FusedStep(step, (5, 8), dtype, x.device, names, [0.0] * len(names), [], "Operations")
        _, lasts, _ = plan(x, [y, *([None] * (len(names) - 1))], [])
    used = {value.op for value in plan.program.forward}
    assert set(OPS) <= used, f"not tested: {set(OPS) - used}"
    for name, found, expected in zip(OPERATIONS, lasts, apply_all(x[0], y), strict=True):
        if name in CLOSE:
            tolerance = 2e-6 if dtype == torch.float32 else 1e-14
            torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
        else:
            assert torch.equal(found.nan_to_num(), expected.nan_to_num()), name
    if nvrtc.installed():
        nvrtc.compiled(plan.target.source("forward"), "compute_80", cuda.OPTIONS)
