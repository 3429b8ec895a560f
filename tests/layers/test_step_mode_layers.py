"""torch's layers with a step mode."""

import copy

import pytest
import torch
from torch import nn

from jellyfit import functional, layers
from jellyfit.errors import InputError


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ours, torch's, one step's shape
PAIRS = [
    (
        lambda **k: layers.Conv2d(3, 4, 3, 2, 1, bias=False, **k),
        lambda: nn.Conv2d(3, 4, 3, 2, 1, bias=False),
        (3, 7, 7),
    ),
    (
        lambda **k: layers.Conv2d(4, 4, (3, 1), groups=2, padding="same", padding_mode="circular", **k),
        lambda: nn.Conv2d(4, 4, (3, 1), groups=2, padding="same", padding_mode="circular"),
        (4, 6, 6),
    ),
    (lambda **k: layers.BatchNorm2d(3, eps=1e-3, momentum=0.2, **k), lambda: nn.BatchNorm2d(3, 1e-3, 0.2), (3, 4, 5)),
    (lambda **k: layers.BatchNorm2d(3, affine=False, **k), lambda: nn.BatchNorm2d(3, affine=False), (3, 4, 5)),
    (
        lambda **k: layers.MaxPool2d(3, 2, 1, ceil_mode=True, **k),
        lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        (3, 8, 7),
    ),
    (
        lambda **k: layers.AvgPool2d(2, 1, 1, count_include_pad=False, **k),
        lambda: nn.AvgPool2d(2, 1, 1, count_include_pad=False),
        (3, 5, 5),
    ),
    (
        lambda **k: layers.AvgPool2d(2, divisor_override=3, **k),
        lambda: nn.AvgPool2d(2, divisor_override=3),
        (3, 4, 4),
    ),
    (lambda **k: layers.Linear(5, 4, **k), lambda: nn.Linear(5, 4), (5,)),
    (lambda **k: layers.Linear(5, 4, bias=False, **k), lambda: nn.Linear(5, 4, bias=False), (2, 5)),
    (lambda **k: layers.Flatten(**k), lambda: nn.Flatten(), (3, 4, 5)),
    (lambda **k: layers.Flatten(2, 3, **k), lambda: nn.Flatten(2, 3), (3, 4, 5)),
]
IDS = [
    "strided conv",
    "grouped conv",
    "batch norm",
    "batch norm without affine",
    "max pool",
    "average pool",
    "divided pool",
]
IDS += ["linear", "linear on two axes", "flatten", "flatten some"]
each_layer = pytest.mark.parametrize(("ours", "plain", "shape"), PAIRS, ids=IDS)


@each_layer
def test_layer_equals_torchs_in_both_step_modes_and_shares_its_state_dict(ours, plain, shape):
    layer, reference = ours().eval(), plain().eval()
    x_seq = images(4, 2, *shape)
    layer.load_state_dict(reference.state_dict())  # strict: same keys
    expected = torch.stack([reference(x) for x in x_seq])
    torch.testing.assert_close(torch.stack([layer(x) for x in x_seq]), expected)
    functional.set_step_mode(layer, "m")
    torch.testing.assert_close(layer(x_seq), expected)
    constructed = ours(step_mode="m").eval()
    constructed.load_state_dict(layer.state_dict())
    torch.testing.assert_close(constructed(x_seq), expected)
    for parameter in layer.parameters():
        nn.init.constant_(parameter, 0.25)
    reference.load_state_dict(layer.state_dict())  # and back
    torch.testing.assert_close(layer(x_seq)[1], reference(x_seq[1]))


@each_layer
def test_gradients_are_the_same_in_both_step_modes(ours, plain, shape):
    layer = ours().eval()
    results = []
    for step_mode in ("s", "m"):
        layer.step_mode = step_mode
        layer.zero_grad()
        x_seq = images(4, 2, *shape).requires_grad_()
        y_seq = layer(x_seq) if step_mode == "m" else torch.stack([layer(x) for x in x_seq])
        (y_seq**2).sum().backward()
        results.append((x_seq.grad, [p.grad for p in layer.parameters()]))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "build",
    [
        lambda **k: layers.Conv2d(3, 4, 3, **k),
        lambda **k: layers.BatchNorm2d(3, **k),
        lambda **k: layers.Linear(3, 4, **k),
    ],
)
def test_layer_is_made_on_the_device_and_of_the_dtype_asked_for(build):
    layer = build(device="meta", dtype=torch.float64, step_mode="m")
    assert layer.step_mode == "m"
    assert {(p.device.type, p.dtype) for p in layer.parameters()} == {("meta", torch.float64)}
    assert {p.dtype for p in build().parameters()} == {torch.float32}


def test_layer_is_an_instance_of_torchs():
    assert isinstance(layers.Conv2d(1, 1, 1), nn.Conv2d) and isinstance(layers.Linear(1, 1), nn.Linear)
    assert isinstance(layers.BatchNorm2d(1), nn.BatchNorm2d)


def test_batch_norm_takes_statistics_over_time_and_batch_in_multi_step_mode():
    x_seq = 3.0 * images(4, 2, 3, 5, 5) + torch.arange(4.0).reshape(4, 1, 1, 1, 1)
    norm, merged = layers.BatchNorm2d(3, step_mode="m"), nn.BatchNorm2d(3)
    y_seq = norm(x_seq)
    torch.testing.assert_close(y_seq.flatten(0, 1), merged(x_seq.flatten(0, 1)))
    torch.testing.assert_close(norm.running_mean, merged.running_mean)
    torch.testing.assert_close(y_seq.mean((0, 1, 3, 4)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y_seq.var((0, 1, 3, 4), correction=0), torch.ones(3), atol=1e-4, rtol=0)
    assert norm.num_batches_tracked == 1
    assert y_seq[0].mean() < -0.1 < 0.1 < y_seq[3].mean()  # a step's own mean stays


@pytest.mark.parametrize(
    "layer", [layers.Conv2d(3, 4, 3), layers.BatchNorm2d(3), layers.MaxPool2d(2), layers.AvgPool2d(2)]
)
@pytest.mark.parametrize(
    ("step_mode", "shape", "expected", "other"),
    [
        ("s", (4, 2, 3, 6, 6), "[N, C, H, W]", "m"),
        ("m", (2, 3, 6, 6), "[T, N, C, H, W]", "s"),
        ("s", (3, 6, 6), "[N, C, H, W]", "m"),
    ],
)
def test_wrong_number_of_axes_is_an_error_that_teaches(layer, step_mode, shape, expected, other):
    net = nn.Sequential(nn.Sequential(copy.deepcopy(layer)))
    functional.set_step_mode(net, step_mode)
    with pytest.raises(InputError) as caught:
        net(torch.zeros(shape))
    message = str(caught.value)
    assert message.startswith(f"'0.0' ({type(layer).__name__}(")
    assert f"in step mode '{step_mode}': got shape {list(shape)}; expected {expected}." in message
    assert f"functional.set_step_mode(net, '{other}')" in message


def test_layers_keep_channels_last():
    x_seq = images(4 * 2, 3, 6, 6).to(memory_format=torch.channels_last).view(4, 2, 3, 6, 6)
    net = nn.Sequential(layers.Conv2d(3, 4, 3), layers.BatchNorm2d(4), layers.MaxPool2d(2))
    net.to(memory_format=torch.channels_last)
    functional.set_step_mode(net, "m")
    y_seq = net(x_seq)
    assert y_seq.shape == (4, 2, 4, 2, 2)
    assert y_seq.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("bad", ["multi", None, 1])
def test_unknown_step_mode_is_refused(bad):
    with pytest.raises(InputError, match=r"step_mode=.* given to Conv2d"):
        layers.Conv2d(1, 1, 1, step_mode=bad)


def test_every_public_layer_is_documented():
    assert layers.__all__ == sorted(layers.__all__)
    for name in layers.__all__:
        assert getattr(layers, name).__doc__, name
