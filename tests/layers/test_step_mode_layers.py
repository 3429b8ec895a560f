"""torch's layers with a step mode."""

import copy
import inspect

import pytest
import torch
from torch import nn

from jellyfit import functional, layers
from jellyfit.errors import ConfigError, InputError


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


CONV = ((4, 6, 3), {"stride": 2, "padding": 1})
AGAINST_TORCH = {  # torch's name without the rank: arguments, one sample's channels
    "AdaptiveAvgPool": (((2,), {}), 3),
    "AdaptiveMaxPool": (((2,), {}), 3),
    "AvgPool": (((2,), {"stride": 1, "padding": 1, "count_include_pad": False}), 3),
    "BatchNorm": (((3,), {"eps": 0.1}), 3),
    "Conv": (CONV, 4),
    "ConvTranspose": (CONV, 4),
    "MaxPool": (((2,), {"stride": 1, "padding": 1, "ceil_mode": True}), 3),
}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", AGAINST_TORCH)
def test_layer_of_any_rank_equals_torchs_and_shares_its_state_dict(name, rank):
    (arguments, options), channels = AGAINST_TORCH[name]
    ours = getattr(layers, f"{name}{rank}d")(*arguments, **options, step_mode="m").eval()
    reference = getattr(nn, f"{name}{rank}d")(*arguments, **options).eval()
    for tensor in reference.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) + 0.5)
    ours.load_state_dict(reference.state_dict())
    x_seq = images(4, 2, channels, *(4, 5, 6)[:rank])
    expected = torch.stack([reference(x) for x in x_seq])
    torch.testing.assert_close(ours(x_seq), expected)
    ours.step_mode = "s"
    assert torch.equal(ours(x_seq[2]), expected[2])
    reference.load_state_dict(ours.state_dict())
    assert isinstance(ours, type(reference))


@pytest.mark.parametrize("name", ["BatchNorm2d", "GroupNorm", "Conv2d", "ConvTranspose3d", "Upsample", "AvgPool1d"])
def test_positional_arguments_are_torchs(name):
    """Arguments stand where torch has them: what is known by position means the same."""
    theirs = [p for p in inspect.signature(getattr(nn, name)).parameters if p not in ("device", "dtype", "bias")]
    ours = [p for p in inspect.signature(getattr(layers, name)).parameters if p not in ("device", "dtype", "bias")]
    assert ours == [*theirs, "step_mode"]


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["MaxPool", "AdaptiveMaxPool"])
def test_indices_of_a_pool_are_those_within_a_step(kind, rank):
    pool = getattr(layers, f"{kind}{rank}d")(2, return_indices=True)
    x_seq = images(4, 2, 3, *(4, 6, 8)[:rank])
    by_step = [pool(x) for x in x_seq]
    pool.step_mode = "m"
    maxima, indices = pool(x_seq)
    assert torch.equal(maxima, torch.stack([step[0] for step in by_step]))
    assert torch.equal(indices, torch.stack([step[1] for step in by_step]))
    with pytest.raises(InputError, match="step mode 'm'"):
        pool(x_seq[0])


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_unpooling_puts_the_maxima_back(rank):
    x_seq = images(4, 2, 3, *(5, 6, 7)[:rank]) + 10.0
    pool = getattr(layers, f"MaxPool{rank}d")(2, return_indices=True, step_mode="m")
    unpool = getattr(layers, f"MaxUnpool{rank}d")(2, step_mode="m")
    maxima, indices = pool(x_seq)
    back = unpool(maxima, indices, x_seq.shape[3:])
    assert back.shape == x_seq.shape
    assert torch.equal(back[back != 0.0], x_seq[back != 0.0]) and int((back != 0.0).sum()) == maxima.numel()
    functional.set_step_mode(unpool, "s")
    assert torch.equal(unpool(maxima[1], indices[1], x_seq.shape[3:]), back[1])
    with pytest.raises(InputError, match=r"MaxUnpool.*step mode 's': got shape"):
        unpool(maxima, indices)


def test_transposed_convolution_takes_an_output_size():
    conv = layers.ConvTranspose2d(3, 4, 3, stride=2, step_mode="m")
    x_seq = images(4, 2, 3, 5, 5)
    y_seq = conv(x_seq, [12, 12])
    assert y_seq.shape == (4, 2, 4, 12, 12)
    conv.step_mode = "s"
    torch.testing.assert_close(conv(x_seq[3], [12, 12]), y_seq[3])


@pytest.mark.parametrize(
    ("layer", "shape", "told"),
    [
        (
            layers.Conv2d(3, 4, 3),
            (5, 2, 4, 6, 6),
            r"\[T, N, C, H, W\] with in_channels = 3 on axis 2, which has 4",
        ),
        (layers.Conv1d(3, 4, 3), (5, 3, 2, 6), r"\[T, N, C, L\] with in_channels = 3 on axis 2, which has 2"),
        (
            layers.BatchNorm1d(3),
            (5, 2, 7),
            r"\[T, N, C\] or \[T, N, C, L\] with num_features = 3 on axis 2",
        ),
        (layers.GroupNorm(2, 4), (5, 2, 3, 6), r"num_channels = 4 on axis 2, which has 3"),
        (layers.Linear(3, 4), (5, 2, 6), r"\[T, N, \*, in_features\] with in_features = 3 on axis -1, which has 6"),
        (layers.Linear(3, 4), (2, 3), r"expected \[T, N, \*, in_features\]\. Give it that shape"),
        (layers.Upsample(scale_factor=2), (2, 3), r"one to three space axes\. Give it"),
    ],
)
def test_wrong_channels_in_a_sequence_are_told_with_the_way_out(layer, shape, told):
    layer.step_mode = "m"
    with pytest.raises(InputError, match=told) as caught:
        layer(torch.zeros(shape))
    assert "functional.time_first puts time first" in str(caught.value)
    layer.step_mode = "s"
    with pytest.raises(InputError) as caught:
        layer(torch.zeros(7))
    assert "time_first" not in str(caught.value)


@pytest.mark.parametrize("name", ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm"])
def test_batch_norm_without_a_bias(name):
    norm = getattr(layers, name)(3, bias=False, step_mode="m")
    assert norm.bias is None and [key for key, _ in norm.named_parameters()] == ["weight"]
    shape = (4, 2, 3, *(5,) * {"2": 2, "3": 3}.get(name[-2], 1))
    assert norm(images(*shape)).shape == shape
    assert [key for key, _ in layers.GroupNorm(1, 3, bias=False).named_parameters()] == ["weight"]


# ---------------------------------------------------------------- statistics shared by several processes


def norms():
    net = nn.Sequential(
        layers.Conv2d(2, 3, 3, step_mode="m"),
        layers.BatchNorm2d(3, eps=1e-3, momentum=0.2, step_mode="m"),
        layers.MultiStepContainer(nn.BatchNorm2d(3)),
        nn.ModuleList([layers.BatchNorm1d(3, affine=False), layers.ThresholdDependentBatchNorm3d(1.0, 0.5, 3)]),
    )
    for buffer in net.buffers():
        buffer.data = torch.rand(buffer.shape).to(buffer.dtype) + 0.5
    return net


def test_our_conversion_to_synchronised_batch_norm_keeps_step_modes_and_numbers():
    net = norms()
    expected = {key: value.clone() for key, value in net.state_dict().items()}
    x_seq = images(4, 5, 2, 6, 6)
    before = net[:3].eval()(x_seq)
    converted = layers.SyncBatchNorm.convert_sync_batchnorm(net)
    assert converted is net
    found = [net[1], net[2][0], *net[3]]
    assert [type(norm) for norm in found] == [layers.SyncBatchNorm] * 4
    assert [norm.step_mode for norm in found] == ["m", "s", "s", "m"]
    assert (net[1].eps, net[1].momentum) == (1e-3, 0.2) and not net[3][0].affine and not net[1].training
    assert net.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in net.state_dict().items())
    assert torch.equal(net[:3](x_seq), before)
    functional.set_step_mode(net, "s")
    torch.testing.assert_close(torch.stack([net[:3](x) for x in x_seq]), before)
    twin = layers.SyncBatchNorm.convert_sync_batchnorm(layers.BatchNorm1d(3, step_mode="m"))
    assert type(twin) is layers.SyncBatchNorm and twin.step_mode == "m"


def test_synchronised_batch_norm_alone_trains_as_a_batch_norm():
    one, other = layers.BatchNorm2d(3, step_mode="m"), layers.SyncBatchNorm(3, step_mode="m")
    x_seq = 3.0 * images(4, 2, 3, 5, 5) + 1.0
    torch.testing.assert_close(one(x_seq), other(x_seq))
    torch.testing.assert_close(one.running_var, other.running_var)


def test_torchs_own_conversion_forgets_step_modes():
    net = nn.Sequential(layers.BatchNorm2d(3)).eval()
    x = images(2, 3, 5, 5)
    expected = net(x)
    net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert torch.equal(net(x), expected)  # single steps are all right
    assert not hasattr(net[0], "step_mode")
    with pytest.raises(RuntimeError, match="running_mean should contain 4 elements not 3"):
        net(images(6, 4, 3, 5, 5))


def test_a_norm_with_a_state_has_no_synchronised_form():
    with pytest.raises(ConfigError, match="TemporalEffectiveBatchNorm2d.* has no form"):
        layers.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(layers.TemporalEffectiveBatchNorm2d(4, 3)))


@pytest.mark.parametrize("bad", ["multi", None, 1])
def test_unknown_step_mode_is_refused(bad):
    with pytest.raises(InputError, match=r"step_mode=.* given to Conv2d"):
        layers.Conv2d(1, 1, 1, step_mode=bad)


def test_public_layers_are_listed_in_order():
    assert layers.__all__ == sorted(layers.__all__)
