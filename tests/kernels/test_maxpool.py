"""Max pooling: torch's numbers to the bit, whatever the values, sizes and windows."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from jellyfit import layers, native
from jellyfit.kernels.maxpool import Windows, can_pool, max_pool

pytestmark = pytest.mark.skipif(not native.status().usable, reason="no C compiler")

SHAPES = [(1, 1, 2, 2), (3, 2, 5, 7), (2, 3, 34, 34), (2, 1, 3, 131), (40, 16, 33, 18), (1, 2, 300, 70)]
HALVES, STEM = Windows(2, 2, 2, 2, 0, 0), Windows(3, 3, 2, 2, 1, 1)
WINDOWS = [
    HALVES,
    STEM,
    Windows(3, 3, 2, 2, 0, 0),
    Windows(3, 3, 1, 1, 1, 1),
    Windows(2, 2, 1, 1, 1, 1),
    Windows(3, 2, 1, 3, 1, 0),
    Windows(1, 4, 2, 1, 0, 2),
    Windows(2, 2, 3, 5, 0, 0),
    Windows(2, 2, 3, 5, 1, 1),
    Windows(5, 5, 2, 3, 2, 1),
    Windows(1, 1, 1, 1, 0, 0),
    Windows(1, 1, 2, 2, 0, 0),
    Windows(15, 15, 1, 4, 7, 7),
]


def values(kind: str, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    if kind == "spikes":  # nearly all windows hold equal values
        return (x > 1).float()
    if kind == "special":
        choice = torch.randint(0, 12, shape, generator=generator)
        for number, value in enumerate((math.nan, math.inf, -math.inf, 0.0, -0.0)):
            x = torch.where(choice == number, torch.tensor(value), x)
    return x


def torchs(x: Tensor, windows: Windows) -> Tensor:
    return F.max_pool2d(x, windows[:2], windows[2:4], windows[4:])


def bits(x: Tensor) -> Tensor:
    return x.detach().view(torch.int32)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["normal", "spikes", "special"])
def test_numbers_and_gradients_are_torchs_to_the_bit(kind: str, shape: tuple[int, ...]) -> None:
    same_to_the_bit(values(kind, shape), HALVES)


@pytest.mark.parametrize("windows", WINDOWS, ids=lambda windows: "-".join(map(str, windows)))
@pytest.mark.parametrize("kind", ["normal", "spikes", "special"])
def test_windows_of_any_size_are_torchs_to_the_bit(kind: str, windows: Windows) -> None:
    for shape in (
        (2, 3, 17, 19),
        (1, 2, 32, 32),
        (40, 16, 18, 15),
        (1, 1, 15, 61),
        (2, 1, windows.height, windows.width),
    ):
        same_to_the_bit(values(kind, shape), windows)


def test_where_all_is_minus_infinity_the_gradient_goes_to_the_first_value() -> None:
    same_to_the_bit(torch.full((1, 2, 9, 9), -math.inf), STEM)
    same_to_the_bit(torch.full((1, 2, 9, 9), math.nan), STEM)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_share_planes(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        same_to_the_bit(values("spikes", (5, 7, 40, 40)), STEM)
    finally:
        torch.set_num_threads(before)


def same_to_the_bit(x: Tensor, windows: Windows) -> None:
    x.requires_grad_()
    assert can_pool(x, windows)
    expected, found = torchs(x, windows), max_pool(x, windows)
    assert found.shape == expected.shape
    both_nan = found.isnan() & expected.isnan()
    assert torch.equal(bits(found)[~both_nan], bits(expected)[~both_nan])
    assert torch.equal(found.isnan(), expected.isnan())
    grad = values("normal", expected.shape)
    grad[0, 0, 0, 0] = -0.0
    (wanted,) = torch.autograd.grad(expected, x, grad)
    (got,) = torch.autograd.grad(found, x, grad)
    assert torch.equal(bits(got), bits(wanted))


@pytest.mark.parametrize("windows", WINDOWS[:-1], ids=lambda windows: "-".join(map(str, windows)))
def test_a_gradient_can_be_differentiated_again(windows: Windows) -> None:
    x = torch.randn(2, 3, 5, 6, requires_grad=True)
    seconds = []
    for pool in (max_pool, torchs):
        (grad,) = torch.autograd.grad(pool(x, windows).pow(3).sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(grad.pow(2).sum(), x)[0])
    torch.testing.assert_close(*seconds)


def test_a_gradient_in_another_memory_format_is_taken() -> None:
    x = torch.randn(2, 3, 6, 6, requires_grad=True)
    grad = torch.randn(2, 3, 3, 3).to(memory_format=torch.channels_last)
    expected, found = (torch.autograd.grad(pool(x, HALVES), x, grad)[0] for pool in (torchs, max_pool))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("sizes", [(2,), (3, 2, 1), ((3, 2), (2, 1), (1, 0)), (2, 1)], ids=str)
@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_the_layer_uses_it_and_keeps_a_byte_a_window(step_mode: str, sizes: tuple[Any, ...]) -> None:
    pool = copy.deepcopy(layers.MaxPool2d(*sizes, step_mode=step_mode))
    x = torch.rand(3, 2, 4, 8, 8) if step_mode == "m" else torch.rand(6, 4, 8, 8)
    x.requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        y = pool(x)
    assert [(t.dtype, t.numel()) for t in kept] == [(torch.uint8, y.numel())]
    assert torch.equal(y.flatten(), F.max_pool2d(x.reshape(6, 4, 8, 8), *sizes).flatten())


@pytest.mark.parametrize(
    "layer",
    [
        layers.MaxPool2d(16, 1, 8),
        layers.MaxPool2d(2, ceil_mode=True),
        layers.MaxPool2d(2, dilation=2),
        layers.MaxPool2d(2, return_indices=True),
    ],
    ids=str,
)
def test_other_poolings_stay_torchs(layer: layers.MaxPool2d) -> None:
    x = torch.rand(2, 3, 7, 9)
    expected = torch.nn.MaxPool2d.forward(layer, x)
    found = layer(x)
    for one, other in zip(*((y if isinstance(y, tuple) else (y,)) for y in (found, expected)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "x",
    [
        torch.rand(2, 3, 8, 8).to(memory_format=torch.channels_last),
        torch.rand(2, 3, 8, 8, dtype=torch.float64),
        torch.rand(2, 3, 8, 8).bfloat16(),
        torch.rand(2, 3, 8, 9)[..., :8],
        torch.rand(0, 3, 8, 8),
    ],
    ids=["channels_last", "float64", "bfloat16", "strided", "empty"],
)
def test_other_inputs_are_for_torch(x: Tensor) -> None:
    assert torch.equal(layers.MaxPool2d(2)(x), F.max_pool2d(x, 2))


def test_torch_func_sees_through_the_layer() -> None:
    pool, x = layers.MaxPool2d(2), torch.rand(5, 2, 3, 6, 6)
    assert torch.equal(torch.func.vmap(pool)(x), torch.stack([pool(one) for one in x]))


def test_frames_too_small_are_torchs_error() -> None:
    with pytest.raises(RuntimeError, match="too small"):
        layers.MaxPool2d(2)(torch.rand(1, 1, 1, 4))


@pytest.mark.parametrize("layer", [layers.MaxPool2d(2, 2, 2), layers.MaxPool2d(2, 2, -1)], ids=str)
def test_impossible_paddings_are_torchs_error(layer: layers.MaxPool2d) -> None:
    with pytest.raises(RuntimeError, match="pad"):
        layer(torch.rand(1, 1, 8, 8))


@pytest.mark.parametrize("windows", [Windows(2, 2, 2, 2, 0, 0), Windows(3, 3, 2, 2, 1, 1)], ids=str)
def test_batched_gradients_are_those_one_by_one(windows: Windows) -> None:
    x = torch.randn(2, 3, 9, 8, requires_grad=True)
    y = max_pool(x, windows)
    many = torch.randn(5, *y.shape)
    (found,) = torch.autograd.grad(y, x, many, is_grads_batched=True, retain_graph=True)
    for batched, grad in zip(found, many, strict=True):
        torch.testing.assert_close(batched, torch.autograd.grad(y, x, grad, retain_graph=True)[0])


def test_the_default_device_plays_no_part() -> None:
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    expected = F.max_pool2d(x, 2)
    with torch.device("meta"):
        y = layers.MaxPool2d(2)(x)
        (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(grad.square().sum(), x)
    assert torch.equal(y, expected) and second.shape == x.shape


def test_negated_views_are_left_to_torch() -> None:
    x = torch._neg_view(torch.randn(2, 3, 8, 8))
    assert torch.equal(layers.MaxPool2d(2)(x), F.max_pool2d(x, 2))
