"""The backward pass of convolutions: torch's gradients within its own roundings, whatever the sizes."""

from __future__ import annotations

import copy
import math
import pickle
import platform
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from jellyfit import layers, native
from jellyfit.kernels import SpikeCompression, convolution
from jellyfit.kernels.convolution import conv2d, is_faster

pytestmark = pytest.mark.skipif(not native.status().usable, reason="no C compiler")

PAIRS = {"3x3": ((3, 3), (1, 1), (1, 1)), "3x3 bare": ((3, 3), (1, 1), (0, 0)), "3x3 wide": ((3, 3), (1, 1), (2, 1))}
PAIRS |= {
    "stride 2": ((3, 3), (2, 2), (1, 1)),
    "1x1": ((1, 1), (1, 1), (0, 0)),
    "1x1 stride 2": ((1, 1), (2, 2), (0, 0)),
}
PAIRS |= {"uneven": ((2, 5), (3, 1), (0, 2))}
# N, I, O, H, W: odd images, channels that fill no panel, one row, several blocks of images, none of which fills its own
SIZES = [(2, 3, 5, 7, 9), (3, 40, 33, 8, 5), (1, 64, 32, 3, 40), (5, 33, 17, 24, 23), (9, 64, 70, 13, 12)]
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def problem(
    sizes: tuple[int, ...], kernel: tuple[int, int], memory_format: torch.memory_format = torch.contiguous_format
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, weights and bias that want gradients."""
    count, ins, outs, *size = sizes
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(count, ins, *size, generator=generator) < 0.3).float()
    weight = torch.randn(outs, ins, *kernel, generator=generator) / (ins * math.prod(kernel)) ** 0.5
    x, weight = (tensor.contiguous(memory_format=memory_format) for tensor in (x, weight))
    return x.requires_grad_(), weight.requires_grad_(), torch.randn(outs, generator=generator).requires_grad_()


def ours(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, ...] = (1, 1),
    padding: tuple[int, ...] = (0, 0),
) -> Tensor:
    """``conv2d`` with a backward pass of our own, whether that is faster or not."""
    return convolution._Conv2d.apply(x, weight, bias, stride, padding)  # type: ignore[no-any-return, no-untyped-call]


def gradients(y: Tensor, tensors: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(y, tensors, grad.to(y.dtype))


def grad_of(y: Tensor) -> Tensor:
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("pair", PAIRS)
def test_forward_is_torchs_to_the_bit_and_gradients_are_exact(
    pair: str, sizes: tuple[int, ...], memory_format: str
) -> None:
    kernel, stride, padding = PAIRS[pair]
    given = problem(sizes, kernel, FORMATS[memory_format])
    y = ours(*given, stride, padding)
    plain = F.conv2d(*given, stride, padding)
    assert torch.equal(y, plain) and y.stride() == plain.stride()
    grad = grad_of(y)
    found = gradients(y, given, grad)
    doubles = tuple(tensor.detach().double().requires_grad_() for tensor in given)
    exact = gradients(F.conv2d(*doubles, stride, padding), doubles, grad)
    for a, b, tensor in zip(found, exact, given, strict=True):
        assert a.stride() == tensor.stride()
        assert float((a.double() - b).abs().max()) <= 1e-6 * float(b.abs().max())


@pytest.mark.parametrize("sizes", [(16, 512, 512, 2, 2), (2, 256, 512, 8, 8)], ids=str)
def test_many_channels_add_no_error(sizes: tuple[int, ...]) -> None:
    x, weight, _ = problem(sizes, (3, 3))
    y = ours(x, weight, None, padding=(1, 1))
    grad = grad_of(y)
    found = gradients(y, (x, weight), grad)
    doubles = tuple(tensor.detach().double().requires_grad_() for tensor in (x, weight))
    exact = gradients(F.conv2d(*doubles, padding=1), doubles, grad)
    for a, b in zip(found, exact, strict=True):
        assert float((a.double() - b).abs().max()) <= 1e-6 * float(b.abs().max())


@pytest.mark.parametrize("pair", ["3x3", "stride 2"])
@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 2), (1, 2)], ids=str)
def test_only_the_gradients_that_are_wanted(needed: tuple[int, ...], pair: str) -> None:
    kernel, stride, padding = PAIRS[pair]
    given = problem((3, 40, 33, 8, 6), kernel)
    y = ours(*given, stride, padding)
    every = gradients(y, given, grad_of(y))
    some = [t if i in needed else t.detach() for i, t in enumerate(given)]
    found = gradients(ours(*some, stride, padding), tuple(some[i] for i in needed), grad_of(y))
    for a, i in zip(found, needed, strict=True):
        assert torch.equal(a, every[i])


@pytest.mark.parametrize("pair", ["3x3", "stride 2", "1x1"])
@pytest.mark.parametrize("sizes", [(9, 64, 70, 13, 12), (16, 96, 64, 4, 4)], ids=str)
def test_threads_and_runs_give_the_same_bits(sizes: tuple[int, ...], pair: str) -> None:
    kernel, stride, padding = PAIRS[pair]
    given = problem(sizes, kernel)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 1, 2, 3, 40):
            torch.set_num_threads(threads)
            y = ours(*given, stride, padding)
            found.append(gradients(y, given[:2], grad_of(y)))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_gradients_in_any_memory_format_are_taken() -> None:
    x, weight, _ = problem((4, 40, 36, 6, 6), (3, 3))
    y = ours(x, weight, None, padding=(1, 1))
    grad = grad_of(y)
    expected = gradients(y, (x, weight), grad)
    for other in (
        grad.contiguous(memory_format=torch.channels_last),
        grad.transpose(2, 3).contiguous().transpose(2, 3),
        torch.cat([grad, grad], 3)[..., :6],
    ):
        assert not other.is_contiguous()
        y = ours(x, weight, None, padding=(1, 1))
        assert all(torch.equal(a, b) for a, b in zip(gradients(y, (x, weight), other), expected, strict=True))
    y = ours(x, weight, None, padding=(1, 1))
    (found,) = torch.autograd.grad(y.sum(), weight)  # a single number, expanded
    (wanted,) = torch.autograd.grad(F.conv2d(x, weight, padding=1).sum(), weight)
    torch.testing.assert_close(found, wanted)


def test_inputs_that_are_not_dense_are_taken() -> None:
    wide = torch.randn(4, 40, 6, 12)
    weight = torch.randn(40, 36, 3, 3).transpose(0, 1).requires_grad_()
    x = wide[..., ::2].requires_grad_()
    found = gradients(ours(x, weight, None, padding=(1, 1)), (x, weight), torch.ones(4, 36, 6, 6))
    expected = gradients(F.conv2d(x, weight, padding=1), (x, weight), torch.ones(4, 36, 6, 6))
    for a, b in zip(found, expected, strict=True):
        assert float((a - b).abs().max()) <= 3e-6 * float(b.abs().max())


@pytest.mark.parametrize("pair", ["3x3", "stride 2"])
def test_a_gradient_can_be_differentiated_again(pair: str) -> None:
    kernel, stride, padding = PAIRS[pair]
    given = problem((2, 33, 34, 6, 5), kernel)
    seconds = []
    for function in (ours, F.conv2d):
        y = function(*given, stride, padding)
        firsts = torch.autograd.grad(y.pow(3).sum(), given, create_graph=True)
        seconds.append(torch.autograd.grad(sum(grad.pow(2).sum() for grad in firsts), given))
    for a, b in zip(*seconds, strict=True):
        assert float((a - b).abs().max()) <= 3e-6 * float(b.abs().max())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_does_not_get_lost(value: float) -> None:
    x, weight, _ = problem((2, 40, 40, 8, 8), (3, 3))
    y = ours(x, weight, None, padding=(1, 1))
    grad = grad_of(y)
    grad[1, 3, 4, 5] = value
    grad_x, grad_weight = gradients(y, (x, weight), grad)
    theirs = gradients(F.conv2d(x, weight, padding=1), (x, weight), grad)
    for found, expected in zip((grad_x, grad_weight), theirs, strict=True):
        assert not bool(expected.isfinite().all())
        assert not bool(found[~expected.isfinite()].isfinite().any())
    assert bool(grad_x[0].isfinite().all())  # another image


def test_spikes_that_are_kept_can_be_compressed() -> None:
    conv = layers.Conv2d(64, 64, 3, padding=1)
    x = (torch.rand(16, 64, 8, 8) < 0.2).float()
    grads = []
    for compression in (None, SpikeCompression()):
        conv.zero_grad()
        if compression is None:
            loss = conv(x).square().sum()
        else:
            with compression:
                loss = conv(x).square().sum()
            assert compression.dense_bytes == x.numel() * 4 and compression.packed_bytes == x.numel() // 8
        loss.backward()
        grads.append(conv.weight.grad)
    assert torch.equal(*grads)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="options of x86 compilers")
@pytest.mark.parametrize("flags", [(), ("-mno-avx512f",), ("-mno-avx",)], ids=["AVX-512", "AVX", "SSE"])
@pytest.mark.parametrize("pair", ["3x3", "stride 2", "1x1"])
def test_processors_with_narrower_vectors(pair: str, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    library = convolution._library(*flags)
    assert library is not None and library.panel <= {(): 32, ("-mno-avx512f",): 16, ("-mno-avx",): 8}[flags]
    monkeypatch.setattr(convolution, "_library", lambda: library)
    for sizes in SIZES:
        for memory_format in FORMATS:
            test_forward_is_torchs_to_the_bit_and_gradients_are_exact(pair, sizes, memory_format)


# -------------------------------------------------------------------- in the layer


def name_of(y: Tensor) -> str:
    """Of the function that made ``y``, behind the views that give it its shape."""
    node: Any = y.grad_fn
    while "View" in node.name():
        node = node.next_functions[0][0]
    return str(node.name())


def test_the_layer_uses_it_where_it_is_faster() -> None:
    for step_mode, shape in (("s", (8, 64, 8, 8)), ("m", (4, 2, 64, 8, 8))):
        conv = layers.Conv2d(64, 64, 3, padding=1, step_mode=step_mode)
        y = conv(torch.rand(shape))
        assert name_of(y) == "_Conv2dBackward"
        copied = pickle.loads(pickle.dumps(copy.deepcopy(conv)))
        assert name_of(copied(torch.ones(shape))) == "_Conv2dBackward"
        with torch.no_grad():
            assert conv(torch.rand(shape)).grad_fn is None


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"groups": 2}, (8, 64, 8, 8)),
        ({"dilation": 2}, (8, 64, 8, 8)),
        ({"padding_mode": "circular"}, (8, 64, 8, 8)),
        ({"padding": "same"}, (8, 64, 8, 8)),
        ({"padding": "valid"}, (8, 64, 8, 8)),
        ({"padding": 0}, (0, 64, 8, 8)),
        ({"dtype": torch.float64}, (8, 64, 8, 8)),
        ({"kernel_size": 5, "padding": 2}, (8, 64, 8, 8)),
        ({}, (1, 64, 1, 1)),
        ({}, (1, 64, 256, 256)),
    ],
    ids=str,
)
def test_the_layer_leaves_all_else_to_torch(options: dict[str, Any], shape: tuple[int, ...]) -> None:
    conv = layers.Conv2d(64, 64, **{"kernel_size": 3, "padding": 1} | options)
    assert name_of(conv(torch.rand(shape, dtype=options.get("dtype", torch.float32)))) != "_Conv2dBackward"


def test_autocast_compile_and_functional_transforms_are_left_to_torch() -> None:
    conv, x = layers.Conv2d(64, 64, 3, padding=1), torch.rand(8, 64, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert name_of(conv(x)) != "_Conv2dBackward"
    jacobian = torch.func.grad(lambda x: conv(x).square().sum())(x)
    x.requires_grad_()
    torch.testing.assert_close(jacobian, torch.autograd.grad(conv(x).square().sum(), x)[0], rtol=1e-4, atol=1e-5)
    exported = torch.export.export(conv, (x.detach(),))
    assert torch.equal(exported.module()(x.detach()), conv(x))


@pytest.mark.parametrize("change", [{"stride": 1}, {"stride": [1, 1]}, {"stride": (1,)}, {"padding": [0, 0]}], ids=str)
def test_attributes_may_be_whatever_torch_takes(change: dict[str, Any]) -> None:
    conv, x = layers.Conv2d(64, 64, 3), torch.rand(8, 64, 8, 8)
    y = conv(x)
    for name, value in change.items():
        setattr(conv, name, value)
    changed = conv(x)
    assert torch.equal(changed, y)
    changed.sum().backward()


def test_mistakes_are_told_by_torch() -> None:
    x = torch.rand(8, 64, 8, 8)
    with pytest.raises(RuntimeError, match="non-positive stride"):
        layers.Conv2d(64, 64, 3, stride=0)(x)
    with pytest.raises(RuntimeError, match="expected input"):
        conv2d(x, torch.rand(64, 3, 3, 3))
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        conv2d(x, torch.rand(64, 64, 9, 3))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch's own, of forward mode
def test_batched_gradients_and_tangents_are_left_to_torch() -> None:
    conv, x = layers.Conv2d(64, 64, 3, padding=1), torch.rand(8, 64, 8, 8, requires_grad=True)
    y = conv(x)
    many = torch.randn(3, *y.shape)
    found = torch.autograd.grad(y, (x, conv.weight), many, is_grads_batched=True, retain_graph=True)
    for i, grad in enumerate(many):
        for a, b in zip(found, torch.autograd.grad(y, (x, conv.weight), grad, retain_graph=True), strict=True):
            assert float((a[i] - b).abs().max()) <= 3e-6 * float(b.abs().max())
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x.detach(), torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(conv(dual)).tangent
    assert tangent is not None and bool(tangent.isfinite().all())


def test_another_default_dtype_does_not_change_the_scratch_memory() -> None:
    program = (
        "import torch; from jellyfit import layers\n"
        "conv, x = layers.Conv2d(64, 64, 3, padding=1), torch.rand(8, 64, 8, 8)\n"
        "torch.set_default_dtype(torch.bfloat16)\n"
        "y = conv(x); y.sum().backward(); print(conv.weight.grad.dtype)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "torch.float32"


def test_large_scratch_memory_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "_scratch", threading.local())
    small, large = convolution._room(1000), convolution._room(convolution._KEPT // 4 + 1)
    assert large.numel() > convolution._KEPT // 4 and getattr(convolution._scratch, "room", None) is None
    again = convolution._room(1000)
    assert convolution._room(500) is again and again is not small


def test_threads_of_python_do_not_share_scratch_memory() -> None:
    given = problem((8, 64, 64, 8, 8), (3, 3))
    y = grad_of(F.conv2d(*given, padding=1))
    expected = gradients(ours(*given, padding=(1, 1)), given, y)

    def work(_: int) -> bool:
        found = gradients(ours(*given, padding=(1, 1)), given, y)
        return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(40)))


def test_few_channels_are_slower() -> None:
    sizes = {2: False, 16: False, 32: True, 64: True, 512: True}
    padding = stride = (1, 1)
    panel = convolution._library().panel  # type: ignore[union-attr]
    for channels, faster in sizes.items():
        if panel == 32 or channels not in (16, 32):  # processors with narrower vectors fill narrower panels
            assert is_faster((16, channels, 16, 16), (channels, channels, 3, 3), stride, padding) == faster
    if panel == 32:
        for last in (False, True):
            assert is_faster((16, 64, 16, 16), (64, 64, 1, 1), stride, (0, 0), last) != last


def test_without_a_compiler_convolutions_are_torchs() -> None:
    program = (
        "import torch; from jellyfit import layers\n"
        "y = layers.Conv2d(64, 64, 3, padding=1)(torch.rand(8, 64, 8, 8))\n"
        "y.sum().backward(); print(y.grad_fn.name())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"JELLYFIT_NATIVE": "0"}
    )
    assert done.stdout.strip() == "ConvolutionBackward0"
