"""Batch norm and neuron as one kernel: the numbers of the two layers, to the bit."""

import copy
import math

import pytest
import torch
from torch import nn

from jellyfit import backbones, kernels, layers, surrogates
from jellyfit.kernels.batchnorm import Normalisation, batch_statistics
from jellyfit.kernels.norm_backward import NormBackward
from jellyfit.neurons import LIFNode, ParametricLIFNode


def draw(*shape, seed=0, channels_last=False):
    x = 2.0 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + 0.7
    if channels_last:
        x = x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, shape[:2])
    return x


def network(kind=LIFNode, channels=5, norm=layers.BatchNorm2d, **options):
    norm = norm(channels, step_mode="m")
    generator = torch.Generator().manual_seed(9)
    norm.weight.data = 0.5 + torch.rand(channels, generator=generator)
    norm.bias.data = torch.randn(channels, generator=generator)
    return layers.Sequential(norm, kind(step_mode="m", surrogate_function=surrogates.ATan(), **options))


def watched(net):
    """A copy that runs as two layers, because someone looks at the output of the first."""
    twin = copy.deepcopy(net)
    twin[0].register_forward_hook(lambda *args: None)
    return twin


def run(net, x, upstream):
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    spikes = net(x)
    spikes.backward(upstream)
    gradients = [x.grad, *(p.grad for p in net.parameters())]
    return spikes, net[1].v, gradients, [buffer.clone() for buffer in net.buffers()]


def assert_same_bits(ours, expected):
    for one, other in zip(ours, expected, strict=True):
        if isinstance(one, list):
            assert_same_bits(one, other)
        else:
            assert torch.equal(one, other)


def assert_close(ours, expected, tolerance=1e-6):
    """Within ``tolerance`` of the largest value."""
    for one, other in zip(ours, expected, strict=True):
        assert (one - other).abs().max() <= tolerance * other.abs().max()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        (4, 2, 5, 7, 3),
        (3, 2, 5, 1, 1),
        (70, 1, 5, 4, 4),
        (2, 8, 5, 16, 16),
        (4, 3, 5, 17, 19),
        (3, 2, 5, 33, 40),  # a channel of an image is more than a block
        (70, 1, 5, 16, 17),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [LIFNode, ParametricLIFNode])
def test_numbers_are_those_of_the_two_layers(kind, shape, channels_last):
    channels_last = channels_last and shape[-1] > 1  # one pixel is both formats, and torch takes either way of summing
    one = network(kind)
    two, eager = watched(one), copy.deepcopy(one)
    eager[1].backend = "torch"
    for round_ in range(2):  # the second with moved running statistics
        x = draw(*shape, seed=round_, channels_last=channels_last)
        upstream = draw(*shape, seed=7, channels_last=channels_last)
        results = []
        for net in (one, two, eager):
            net[1].reset()
            net.zero_grad()
            results.append(run(net, x, upstream))
        assert 0.0 < results[0][0].mean() < 1.0
        assert_same_bits(results[0], results[1])
        assert torch.equal(results[0][0], results[2][0])
        assert_same_bits(results[0][3], results[2][3])


def test_gradients_are_the_same_bits_for_any_number_of_threads():
    net = network(ParametricLIFNode)
    x, upstream = draw(3, 4, 5, 48, 48), draw(3, 4, 5, 48, 48, seed=7)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 1, 2):
            torch.set_num_threads(threads)
            net.zero_grad()
            net[1].reset()
            found.append([grad.clone() for grad in run(net, x, upstream)[2]])
    finally:
        torch.set_num_threads(before)
    assert_same_bits(found[1], found[0])
    assert_same_bits(found[2], found[0])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("frozen", [["x"], ["weight"], ["bias"], ["weight", "bias"], ["x", "weight", "bias"]], ids=str)
def test_what_is_frozen_gets_no_gradient_and_changes_no_other(frozen, training):
    found = []
    for names in ([], frozen):
        net = network(ParametricLIFNode).train(training)
        leaves = {"x": draw(4, 2, 5, 6, 6), **dict(net[0].named_parameters()), "w": net[1].w}
        for name, leaf in leaves.items():
            leaf.requires_grad_(name not in names)
        net(leaves["x"]).backward(draw(4, 2, 5, 6, 6, seed=4))
        found.append({name: leaf.grad for name, leaf in leaves.items()})
    for name in found[0]:
        assert found[1][name] is None if name in frozen else torch.equal(found[1][name], found[0][name])


def test_gradients_come_through_recorded_potentials_too():
    one = network(ParametricLIFNode, store_v_seq=True)
    results = []
    for net in (one, watched(one)):
        x = draw(70, 2, 5, 3, 3).requires_grad_()
        (net(x).sum() + net[1].v_seq.square().sum() + net[1].v.sum()).backward()
        results.append([x.grad, *(p.grad for p in net.parameters())])
    assert_close(*results)


def ran_as_ours(monkeypatch):
    """Counts the backward passes that are no longer torch's."""
    counted, original = [], NormBackward.of.__func__
    monkeypatch.setattr(
        NormBackward, "of", classmethod(lambda cls, *a, **k: counted.append(1) or original(cls, *a, **k))
    )
    return counted


@pytest.mark.parametrize(
    "norm, shape",
    [
        (layers.BatchNorm2d(5), (6, 5, 17, 19)),
        (layers.BatchNorm2d(5), (1, 5, 16, 16)),
        (layers.BatchNorm2d(2), (2, 2, 90, 101)),
        (layers.BatchNorm1d(3), (4, 3, 300)),
        (layers.BatchNorm3d(2), (3, 2, 7, 8, 9)),
        (layers.ThresholdDependentBatchNorm2d(1.0, 0.5, 4, step_mode="s"), (2, 4, 20, 20)),
    ],
    ids=str,
)
def test_gradients_of_a_norm_alone_are_exact(norm, shape, monkeypatch):
    counted = ran_as_ours(monkeypatch)
    norm = copy.deepcopy(norm)
    norm.bias.data.normal_(generator=torch.Generator().manual_seed(3))
    exact, theirs = copy.deepcopy(norm).double(), getattr(nn, f"BatchNorm{len(shape) - 2}d")(shape[1])
    theirs.load_state_dict(norm.state_dict())
    x, upstream = draw(*shape), draw(*shape, seed=1)
    found = []
    for module, dtype in ((norm, torch.float32), (theirs, torch.float32), (exact, torch.float64)):
        leaf = x.detach().to(dtype, copy=True).requires_grad_()
        y = module(leaf)
        y.backward(upstream.to(dtype))
        found.append([y, leaf.grad, *(p.grad for p in module.parameters()), *module.buffers()])
    assert len(counted) == 1
    for ours, torchs, value in zip(*found, strict=True):  # torch's mean is a float too, and of sums little may be left
        error, others = ((one - value).abs().max() / value.abs().max() for one in (ours, torchs))
        assert error <= max(1e-6, 1.1 * others)


def test_forward_of_a_norm_alone_is_torchs_to_the_bit():
    ours, theirs, x = layers.BatchNorm2d(5), nn.BatchNorm2d(5), draw(6, 5, 17, 19)
    assert torch.equal(ours(x.requires_grad_()), theirs(x))
    assert_same_bits(list(ours.buffers()), list(theirs.buffers()))


@pytest.mark.parametrize("threads", [2, 3])
def test_gradients_of_a_norm_alone_are_the_same_bits_for_any_number_of_threads(threads):
    norm, x, upstream = layers.BatchNorm2d(7), draw(8, 7, 40, 41).requires_grad_(), draw(8, 7, 40, 41, seed=1)
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            found.append(torch.autograd.grad(norm(x), [x, *norm.parameters()], upstream))
    finally:
        torch.set_num_threads(before)
    assert_same_bits(*found)


def test_gradients_of_a_norm_alone_can_be_differentiated_again():
    ours, theirs = layers.BatchNorm2d(3), nn.BatchNorm2d(3)
    x, upstream = draw(2, 3, 16, 17), draw(2, 3, 16, 17, seed=1)
    found = []
    for norm in (ours, theirs):
        leaf, grad = x.clone().requires_grad_(), upstream.clone().requires_grad_()
        (first,) = torch.autograd.grad(norm(leaf), leaf, grad, create_graph=True)
        found.append([first, *torch.autograd.grad(first.square().sum(), [leaf, grad, norm.weight])])
    assert_close(*found)


@pytest.mark.parametrize("frozen", [["x"], ["weight"], ["bias"], ["weight", "bias"]], ids=str)
@pytest.mark.parametrize("residual", [False, True])
def test_what_is_frozen_changes_no_other_gradient_of_large_images(frozen, residual):
    found = []
    for names in ([], frozen):
        net = network(ParametricLIFNode)
        leaves = {"x": draw(4, 2, 5, 17, 16), **dict(net[0].named_parameters()), "w": net[1].w}
        if residual:
            leaves["residual"] = draw(4, 2, 5, 17, 16, seed=2)
        for name, leaf in leaves.items():
            leaf.requires_grad_(name not in names)
        spikes = layers.batch_norm_neuron(net[0], net[1], leaves["x"], leaves.get("residual"))
        spikes.backward(draw(4, 2, 5, 17, 16, seed=4))
        found.append({name: leaf.grad for name, leaf in leaves.items()})
    for name in found[0]:
        assert found[1][name] is None if name in frozen else torch.equal(found[1][name], found[0][name])


@pytest.mark.parametrize("shape", [(5, 2, 5, 17, 16), (70, 1, 5, 16, 16)], ids=str)
def test_states_and_recorded_potentials_of_large_images_have_their_gradients(shape, monkeypatch):
    counted = ran_as_ours(monkeypatch)
    one = network(ParametricLIFNode, store_v_seq=True)
    results = []
    for net in (one, watched(one)):
        x, v = draw(*shape).requires_grad_(), draw(*shape[1:], seed=3).requires_grad_()
        net[1].v = v * 1.0
        (net(x).sum() + net[1].v_seq.square().sum() + net[1].v.sum()).backward()
        results.append([x.grad, v.grad, *(p.grad for p in net.parameters())])
    assert len(counted) == 2
    assert_close(*results)


class ElementwiseLIF(LIFNode):
    """A neuron with a parameter for every element: too many sums for keeping them apart for every channel."""

    def __init__(self, shape, **options):
        super().__init__(**options)
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, math.prod(shape)).view(shape))

    def neuronal_charge(self, x):
        super().neuronal_charge(x * self.gain)


def test_a_parameter_of_every_element_of_large_images_has_its_gradient():
    shape = (2, 3, 40, 32, 32)
    net = layers.Sequential(layers.BatchNorm2d(40, step_mode="m"), ElementwiseLIF(shape[2:], step_mode="m"))
    results = []
    for module in (net, watched(net)):
        x = draw(*shape).requires_grad_()
        module(x).backward(draw(*shape, seed=1))
        results.append([x.grad, *(p.grad for p in module.parameters())])
    assert_close(*results)


def test_without_a_compiler_statistics_are_torchs(monkeypatch):
    net, x, upstream = network(), draw(4, 2, 5, 7, 3), draw(4, 2, 5, 7, 3, seed=7)
    twin = copy.deepcopy(net)
    expected = run(twin, x, upstream)[2]
    monkeypatch.setattr("jellyfit.kernels.batchnorm._function", lambda name: None)
    assert_same_bits(run(net, x, upstream)[2], expected)


def test_a_forward_that_was_replaced_on_a_layer_is_called():
    net, seen = network(), []
    original = net[0].forward
    net[0].forward = lambda x: seen.append(x.shape) or original(x)
    net(draw(4, 2, 5, 6, 6))
    assert seen == [(4, 2, 5, 6, 6)]


def test_running_statistics_of_another_dtype_are_not_taken_for_float32():
    net = network()
    net[0].running_var = net[0].running_var.double()
    with pytest.raises(RuntimeError, match="Float"):
        net(draw(4, 2, 5, 6, 6))


def test_evaluation_uses_the_running_statistics():
    one = network()
    two = watched(one)
    for net in (one, two):
        net(draw(4, 2, 5, 6, 6))
        net[1].reset()
        net.eval()
    x, upstream = draw(4, 2, 5, 6, 6, seed=3), draw(4, 2, 5, 6, 6, seed=4)
    assert_same_bits(run(one, x, upstream), run(two, x, upstream))
    with torch.no_grad():
        one[1].reset()
        two[1].reset()
        assert torch.equal(one(x), two(x))


def test_what_is_normalised_is_not_kept():
    def kept(net):
        pointers = {}
        x = draw(4, 2, 5, 16, 16).requires_grad_()
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda t: pointers.setdefault(t.data_ptr(), t.numel()) and t, lambda t: t
        )
        with hooks:
            net(x)
        return sum(pointers.values()), x.numel()

    net = network()
    one, size = kept(net)
    two, _ = kept(watched(net))
    assert one <= size * 1.1 < 1.9 * size <= two


def test_state_dict_and_parameters_are_those_of_torchs_sequential():
    net = network()
    plain = nn.Sequential(nn.BatchNorm2d(5), nn.Identity())
    assert list(net.state_dict()) == list(plain.state_dict())
    net.load_state_dict(plain.state_dict())


def test_gradient_of_the_gradient_is_that_of_the_two_layers():
    one = network(ParametricLIFNode)
    results = []
    for net in (one, watched(one)):
        x = draw(3, 2, 5, 4, 4).requires_grad_()
        (grad,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        grad.square().sum().backward()
        results.append([x.grad, *(p.grad for p in net.parameters())])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda net: setattr(net[0], "momentum", None),
        lambda net: net.double(),
        lambda net: setattr(net[1], "backend", "torch"),
        lambda net: net[1].register_forward_hook(lambda *args: None),
        lambda net: net.__setitem__(0, layers.BatchNorm2d(5, affine=False, step_mode="m")),
        lambda net: net.__setitem__(0, layers.BatchNorm2d(5, track_running_stats=False, step_mode="m")),
        lambda net: net.__setitem__(0, nn.Identity()),
    ],
)
def test_pairs_that_cannot_run_as_one_run_as_two(change, monkeypatch):
    net = network()
    change(net)
    x = draw(3, 2, 5, 4, 4)
    if any(p.dtype == torch.float64 for p in net.parameters()):
        x = x.double()
    monkeypatch.setattr("jellyfit.neurons.fused.batch_norm_step", lambda *args: pytest.fail("ran as one"))
    twin = copy.deepcopy(net)
    expected = twin[1](twin[0](x))
    assert torch.equal(net(x), expected)


def test_single_value_a_channel_is_torchs_own_error():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network()(draw(1, 1, 5, 1, 1))


@pytest.mark.parametrize(
    "shape", [(8, 16, 17, 17), (2, 5, 3, 1), (4, 3, 5, 5), (16, 128, 8, 8), (3, 7, 31, 2)], ids=str
)
@pytest.mark.parametrize("momentum", [0.1, 0.037])
def test_statistics_are_torchs_to_the_bit(shape, momentum):
    x = draw(*shape)
    channels = shape[1]
    running = [torch.randn(channels, generator=torch.Generator().manual_seed(1)), torch.rand(channels) + 0.5]
    theirs = [tensor.clone() for tensor in running]
    _, mean, invstd = torch.native_batch_norm(x, None, None, *theirs, True, momentum, 1e-5)
    norm = Normalisation(torch.ones(channels), torch.zeros(channels), *running, True, momentum, 1e-5)
    ours = batch_statistics(x, norm)
    assert_same_bits([*ours, *running], [mean, invstd, *theirs])


def test_statistics_that_a_graph_holds_do_not_change_unseen():
    net = network().eval()
    x = draw(4, 2, 5, 6, 6).requires_grad_()
    spikes = net(x)
    net.train()
    net[1].reset()
    net(draw(4, 2, 5, 6, 6, seed=1))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        spikes.sum().backward()


def test_step_mode_s_of_the_pair_runs_as_two_layers():
    net = network()
    for module in net:
        module.step_mode = "s"
    assert net(draw(4, 5, 6, 6)).shape == (4, 5, 6, 6)


def test_spike_compression_gives_the_same_gradients_from_less_memory():
    conv = nn.Conv2d(5, 4, 3, bias=False)
    net = network()
    x = draw(4, 2, 5, 16, 16)
    found = []
    for storage in (None, "bits", "uint8"):
        conv.zero_grad()
        net.zero_grad()
        net[1].reset()
        net[0].running_mean.zero_()
        net[0].running_var.fill_(1.0)
        leaf = x.clone().requires_grad_()
        if storage is None:
            y = conv(net(leaf).flatten(0, 1))
        else:
            with kernels.SpikeCompression(storage) as compression:
                y = conv(net(leaf).flatten(0, 1))
            ratio = 32 if storage == "bits" else 4
            assert compression.dense_bytes == x.numel() * 4
            assert compression.packed_bytes == -(-x.numel() * 4 // ratio)
        y.square().sum().backward()
        found.append((leaf.grad, conv.weight.grad.clone(), net[0].weight.grad.clone()))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


# ---------------------------------------------------------------- a residual between the two


def fire_at_sum(norm, node, x, residual, as_one, upstream):
    """Spikes, state and statistics, and the gradients of x, residual and parameters."""
    norm, node = copy.deepcopy(norm), copy.deepcopy(node)
    x, residual = (tensor.clone(memory_format=torch.preserve_format).requires_grad_() for tensor in (x, residual))
    spikes = layers.batch_norm_neuron(norm, node, x, residual) if as_one else node(norm(x) + residual)
    spikes.backward(upstream)
    gradients = [x.grad, residual.grad, *(p.grad for p in (*norm.parameters(), *node.parameters()))]
    return [spikes, node.v, *norm.buffers()], gradients


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("residual_last", [False, True])
@pytest.mark.parametrize("shape", [(4, 2, 5, 7, 3), (70, 1, 5, 4, 4), (2, 8, 5, 16, 16)], ids=str)
@pytest.mark.parametrize("kind", [LIFNode, ParametricLIFNode])
def test_residual_is_added_to_what_is_normalised(kind, shape, residual_last, training, monkeypatch):
    norm, node = network(kind).train(training)
    x, upstream = draw(*shape), draw(*shape, seed=7)
    residual = draw(*shape, seed=3, channels_last=residual_last)
    expected, true = fire_at_sum(norm, node, x, residual, False, upstream)
    monkeypatch.setattr(layers.BatchNorm2d, "__call__", lambda *args: pytest.fail("ran one by one"))
    ours, gradients = fire_at_sum(norm, node, x, residual, True, upstream)
    assert 0.0 < expected[0].mean() < 1.0
    assert_same_bits(ours, expected)
    assert_close(gradients, true)


def test_residual_of_channels_last_images():
    norm, node = network()
    x, residual, upstream = (draw(4, 2, 5, 7, 3, seed=seed, channels_last=True) for seed in range(3))
    expected, true = fire_at_sum(norm, node, x, residual, False, upstream)
    ours, gradients = fire_at_sum(norm, node, x, residual, True, upstream)
    assert_same_bits(ours, expected)
    assert_close(gradients, true)
    assert gradients[0].stride() == x.stride()


def test_residual_that_broadcasts_runs_as_layers(monkeypatch):
    norm, node = network()
    x, residual = draw(4, 2, 5, 7, 3), draw(5, 1, 1, seed=1)
    expected = copy.deepcopy(node)(copy.deepcopy(norm)(x) + residual)
    monkeypatch.setattr("jellyfit.neurons.fused.batch_norm_step", lambda *args: pytest.fail("ran as one"))
    assert torch.equal(layers.batch_norm_neuron(norm, node, x, residual), expected)


@pytest.mark.parametrize("wanted", [["x"], ["residual"], ["weight"]], ids=str)
def test_gradients_beside_a_residual_are_the_same_for_any_that_are_wanted(wanted):
    found = []
    for names in (["x", "residual", "weight"], wanted):
        norm, node = network()
        leaves = {"x": draw(4, 2, 5, 6, 6), "residual": draw(4, 2, 5, 6, 6, seed=1), "weight": norm.weight}
        norm.bias.requires_grad_(False)
        for name, leaf in leaves.items():
            leaf.requires_grad_(name in names)
        layers.batch_norm_neuron(norm, node, leaves["x"], leaves["residual"]).backward(draw(4, 2, 5, 6, 6, seed=4))
        found.append({name: leaf.grad for name, leaf in leaves.items()})
    for name in found[0]:
        assert torch.equal(found[1][name], found[0][name]) if name in wanted else found[1][name] is None


def test_gradient_of_the_gradient_of_a_residual():
    results = []
    for as_one in (True, False):
        norm, node = network()
        x, residual = draw(3, 2, 5, 4, 4).requires_grad_(), draw(3, 2, 5, 4, 4, seed=1).requires_grad_()
        spikes = layers.batch_norm_neuron(norm, node, x, residual) if as_one else node(norm(x) + residual)
        grads = torch.autograd.grad(spikes.sum(), [x, residual], create_graph=True)
        sum(grad.square().sum() for grad in grads).backward()
        results.append([x.grad, residual.grad, norm.weight.grad])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


def test_settings_that_keep_changing_do_not_mix_up_the_residual():
    norm, node = network()
    norm.eval()
    x, residual, upstream = (draw(4, 2, 5, 6, 6, seed=seed) for seed in range(3))
    for i in range(6):
        node.tau = 2.0 + 0.3 * i
        node.reset()
        leaves = [tensor.clone().requires_grad_() for tensor in (x, residual)]
        spikes = layers.batch_norm_neuron(norm, node, *leaves)
        spikes.backward(upstream)
        twin = LIFNode(tau=node.tau, step_mode="m", surrogate_function=surrogates.ATan())
        expected, true = fire_at_sum(norm, twin, x, residual, False, upstream)
        assert torch.equal(spikes, expected[0])
        assert_close([leaf.grad for leaf in leaves], true[:2])


def test_residual_stays_on_the_host():
    with pytest.raises(kernels.KernelUnavailableError, match="run on the CPU alone"):
        kernels.FusedStep(
            lambda x, states, params, say: (x, []), [2, 3], torch.float32, torch.device("meta"), [], [], [], "Sum",
            affine=True, residual=True,
        )  # fmt: skip


def test_blocks_of_a_spiking_resnet_run_as_one_unless_watched(monkeypatch):
    calls = []
    original = kernels.batch_norm_step

    def counted(*args):
        calls.append(args[-1] is not None)
        return original(*args)

    monkeypatch.setattr("jellyfit.neurons.fused.batch_norm_step", counted)
    torch.manual_seed(0)
    net = backbones.SpikingResNet(18, 4, base_channels=4, stem="small")
    twin = copy.deepcopy(net)
    for name, module in twin.named_modules():
        if name.endswith("bn2"):
            module.register_forward_hook(lambda *args: None)
    x, found = draw(3, 2, 3, 16, 16), []
    for one in (net, twin):
        calls.clear()
        y = one(x)
        y.square().sum().backward()
        found.append((y, {name: p.grad for name, p in one.named_parameters()}, list(calls)))
    (y, gradients, joined), (expected, true, apart) = found
    assert (joined.count(True), joined.count(False)) == (8, 9)
    assert (apart.count(True), apart.count(False)) == (0, 9)
    assert torch.equal(y, expected)
    for name, grad in gradients.items():
        assert (grad - true[name]).abs().max() <= 1e-6 * true[name].abs().max(), name
