"""Fused neurons as autograd, autocast, checkpointing and torch.compile see them."""

import copy
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from jellyfit import functional, neurons, surrogates
from jellyfit.errors import ConfigError, StateError
from jellyfit.kernels import KernelWarning, naive
from jellyfit.kernels.host import STRETCH
from jellyfit.neurons import BaseNode, IFNode, IzhikevichNode, LIFNode, ParametricLIFNode


def draw(*shape, seed=0, dtype=torch.float32):
    return (1.2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + 0.4).to(dtype)


def pair(kind=LIFNode, **options):
    """The same neuron, fused and eager."""
    options = {"step_mode": "m", "surrogate_function": surrogates.ATan(), **options}
    fused = kind(backend="cpu", **options)
    eager = copy.deepcopy(fused)
    eager.backend = "torch"
    return fused, eager


def assert_close(fused, eager, tolerance=1e-6):
    assert fused.shape == eager.shape and fused.dtype == eager.dtype
    assert (fused - eager).abs().max() <= tolerance * eager.abs().max()


def test_kernels_are_what_runs_by_default():
    node = LIFNode(step_mode="m")
    node(draw(3, 4, 5))
    assert node.kernels.plan(draw(3, 4, 5)) is not None


def test_no_graph_and_nothing_kept_without_gradient():
    node = LIFNode(step_mode="m")
    kept = []
    x = draw(3 * STRETCH, 2, 5).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t), torch.no_grad():
        assert node(x).grad_fn is None and node.v.grad_fn is None
    assert not kept


def test_a_first_call_in_inference_mode_finds_its_kernels():
    class Doubling(BaseNode):  # a class of its own, so that nothing is known of it
        def neuronal_charge(self, x):
            self.v = 0.5 * self.v + 2.0 * x

    node, x = Doubling(step_mode="m", backend="cpu"), draw(4, 3, 5)
    with torch.inference_mode():
        spikes = node(x)
    assert torch.equal(spikes, Doubling(step_mode="m", backend="torch")(x))
    node.reset()
    leaf = x.clone().requires_grad_()
    node(leaf).sum().backward()
    assert leaf.grad.any()


def test_lif_keeps_nothing_of_the_inputs_size_but_the_input():
    for steps in (4, 2 * STRETCH + 1):
        node, kept = LIFNode(step_mode="m"), []
        x = draw(steps, 2, 50).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t) or t, lambda t: t):
            node(x)
        others = [t for t in kept if t.data_ptr() != x.data_ptr()]
        assert sum(t.numel() for t in others) <= x.numel() // STRETCH


@pytest.mark.parametrize("steps", [STRETCH - 1, STRETCH, STRETCH + 1, 2 * STRETCH, 3 * STRETCH + 7])
@pytest.mark.parametrize("kind", [LIFNode, IzhikevichNode, ParametricLIFNode])
def test_long_sequences_agree_with_eager(kind, steps):
    fused, eager = pair(kind, **({"a": 0.2, "b": 0.1} if kind is IzhikevichNode else {}))
    x = draw(steps, 3, 7)
    results = []
    for node in (fused, eager):
        leaf = x.clone().requires_grad_()
        spikes = node(leaf)
        (spikes * draw(steps, 3, 7, seed=1)).sum().backward()
        results.append((spikes, node.v, leaf.grad, *(p.grad for p in node.parameters())))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    for ours, expected in zip(results[0][2:], results[1][2:], strict=True):
        assert_close(ours, expected, 5e-6)


@pytest.mark.parametrize("wanted", ["x", "w", "v"])
def test_gradient_of_one_thing_alone(wanted):
    grads = []
    for node in pair(ParametricLIFNode):
        x, v = draw(4, 3, 5), draw(3, 5, seed=1) * 0.1
        leaf = {"x": x, "v": v, "w": node.w}[wanted]
        node.w.requires_grad_(wanted == "w")
        leaf.requires_grad_()
        node.v = v
        node._state_dtype = torch.float32
        (node(x) * draw(4, 3, 5, seed=2)).sum().backward()
        grads.append(leaf.grad)
    assert grads[1].any()
    assert_close(*grads)


@pytest.mark.parametrize("source", ["spikes", "v", "v_seq"])
def test_gradient_from_each_output_alone(source):
    grads = []
    for node in pair(store_v_seq=True):
        x = draw(5, 3, 4).requires_grad_()
        spikes = node(x)
        output = {"spikes": spikes, "v": node.v, "v_seq": node.v_seq}[source]
        (output * draw(*output.shape, seed=3)).sum().backward()
        grads.append(x.grad)
    assert grads[1].any()
    assert_close(*grads)


def test_state_that_is_carried_on_carries_its_gradient():
    grads = []
    for node in pair():
        x = draw(6, 3, 4).requires_grad_()
        (torch.cat([node(x[:2]), node(x[2:3]), node(x[3:])]) * draw(6, 3, 4, seed=1)).sum().backward()
        grads.append(x.grad)
    assert_close(*grads)


def test_single_steps_and_one_sequence_give_the_same_bits():
    x = draw(5, 3, 4)
    node = LIFNode()
    steps = torch.stack([node(step) for step in x])
    v = node.v
    node.reset()
    node.step_mode = "m"
    assert torch.equal(node(x), steps) and torch.equal(node.v, v)


def test_one_neuron_used_twice_in_a_network():
    grads = []
    for node in pair(ParametricLIFNode):
        first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        for layer, seed in ((first, 1), (second, 2)):
            layer.weight.data = draw(4, 4, seed=seed)
        x = draw(5, 3, 4).requires_grad_()
        y = node(first(x))
        functional.reset_net(node)
        node(second(y)).sum().backward()
        grads.append((x.grad, first.weight.grad, node.w.grad))
    for ours, expected in zip(*grads, strict=True):
        assert_close(ours, expected)


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 5), (3, 4, 5), (2, 1, 1, 1), (3, 1, 5), (4, 1), (1,), ()], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_parameters_of_every_shape(shape, channels_last):
    def leaf(low, seed):
        return nn.Parameter(low + torch.rand(shape, generator=torch.Generator().manual_seed(seed)))

    x = draw(12, 3, 4, 5)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    x = x.unflatten(0, (6, 2))
    results = []
    for node in pair():
        node.tau, node.v_threshold, node.v_reset = leaf(1.5, 0), leaf(0.6, 1), leaf(-0.3, 2)
        node.reset()
        spikes = node(x)
        (spikes * draw(*x.shape, seed=4)).sum().backward()
        results.append((spikes, node.tau.grad, node.v_threshold.grad, node.v_reset.grad))
    assert torch.equal(results[0][0], results[1][0])
    for ours, expected in zip(results[0][1:], results[1][1:], strict=True):
        assert ours.shape == shape
        assert_close(ours, expected, 1e-5)


def test_memory_format_passes_through_without_a_copy():
    x = draw(8, 3, 6, 5).to(memory_format=torch.channels_last).unflatten(0, (4, 2)).requires_grad_()
    node = LIFNode(step_mode="m")
    spikes = node(x)
    assert spikes.stride() == x.stride() and node.v.stride() == x.stride()[1:]
    assert spikes.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    (grad,) = torch.autograd.grad(spikes.sum(), x)
    assert grad.stride() == x.stride()


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.transpose(0, 1),
        lambda t: t.transpose(1, 2),
        lambda t: t[:, ::2],
        lambda t: t[..., 1:],
        lambda t: t[:1].expand(6, -1, -1),
        lambda t: t.flip(0),
    ],
)
def test_views_as_input_and_as_upstream_gradient(view):
    base, upstream = draw(6, 8, 7), draw(6, 8, 7, seed=1)
    results = []
    for node in pair():
        leaf = base.clone().requires_grad_()
        spikes = node(view(leaf))
        spikes.backward(view(upstream))
        results.append((spikes, leaf.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert_close(results[0][1], results[1][1])


def test_same_bits_twice_and_with_any_number_of_threads():
    node = ParametricLIFNode(init_tau=torch.full((5, 1), 2.0), step_mode="m")
    x = draw(4, 40, 5, 300)
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 3, 2):
            torch.set_num_threads(count)
            node.reset()
            node.zero_grad()
            leaf = x.clone().requires_grad_()
            spikes = node(leaf)
            (spikes * x).sum().backward()
            found.append((spikes, leaf.grad, node.w.grad.clone()))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_gradient_of_the_gradient_is_eagers():
    penalties = []
    for node in pair(ParametricLIFNode, surrogate_function=surrogates.Sigmoid()):
        node.double()
        x = draw(4, 3, 5, dtype=torch.float64).requires_grad_()
        (grad,) = torch.autograd.grad(node(x).sum(), x, create_graph=True)
        grad.square().sum().backward()
        penalties.append((x.grad, node.w.grad))
    for ours, expected in zip(*penalties, strict=True):
        assert expected.any()
        assert_close(ours, expected, 1e-12)


def test_gradients_are_those_of_finite_differences_for_the_smooth_twin():
    node = ParametricLIFNode(
        step_mode="m", backend="cpu", surrogate_function=surrogates.Sigmoid(spiking=False)
    ).double()

    def sequence(x, w):
        node.reset()
        node.w.data = w.data
        node.w.requires_grad_(False)
        return node(x)

    x = draw(3, 2, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sequence(x, node.w), (x,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_feeds_half_precision_and_keeps_a_float32_state(dtype):
    layer, node = nn.Linear(6, 5), LIFNode(step_mode="m")
    with torch.autocast("cpu", dtype=dtype):
        spikes = node(layer(draw(4, 3, 6)))
    assert spikes.dtype == dtype and node.v.dtype == torch.float32
    spikes.float().sum().backward()
    assert layer.weight.grad.isfinite().all() and layer.weight.grad.any()


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_a_block_that_resets_itself(reentrant):
    node, layer = LIFNode(step_mode="m"), nn.Linear(5, 5)
    layer.weight.data = draw(5, 5, seed=3)

    def block(x):
        node.reset()
        return node(layer(x))

    grads = []
    for run in (block, lambda x: checkpoint(block, x, use_reentrant=reentrant)):
        layer.zero_grad()
        x = draw(4, 3, 5).requires_grad_()
        run(x).sum().backward()
        grads.append((x.grad, layer.weight.grad.clone()))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_input_changed_in_place_between_forward_and_backward_is_an_error():
    x = draw(4, 3, 5).requires_grad_()
    y = x * 1.0
    spikes = LIFNode(step_mode="m")(y)
    y.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        spikes.sum().backward()


def test_changed_settings_take_effect():
    for change in (
        lambda n: setattr(n, "tau", 3.5),
        lambda n: setattr(n, "v_threshold", 0.4),
        lambda n: setattr(n, "v_reset", None),
        lambda n: setattr(n, "detach_reset", True),
        lambda n: setattr(n, "decay_input", False),
        lambda n: setattr(n.surrogate_function, "alpha", 5.0),
        lambda n: setattr(n, "surrogate_function", surrogates.Rect()),
        lambda n: setattr(n, "tau", torch.tensor([2.0, 3.0, 4.0, 5.0])),
        lambda n: n.register_value("v_threshold", nn.Parameter(torch.tensor(0.7))),
    ):
        results = []
        for node in pair():
            node(draw(3, 2, 4).requires_grad_()).sum().backward()
            change(node)
            node.reset()
            x = draw(5, 2, 4, seed=1).requires_grad_()
            spikes = node(x)
            spikes.backward(draw(5, 2, 4, seed=2))
            results.append((spikes, x.grad))
        assert torch.equal(results[0][0], results[1][0])
        assert_close(results[0][1], results[1][1])


def test_a_setting_that_keeps_changing_is_compiled_once(monkeypatch):
    from jellyfit import native

    built = []
    original = native._build
    monkeypatch.setattr(native, "_build", lambda *args: built.append(args) or original(*args))
    fused, eager = pair()
    for i in range(12):
        for node in (fused, eager):
            node.tau = 2.3 + 0.017 * i
            node.surrogate_function.alpha = 1.7 + 0.1 * i
            node.reset()
        grads = []
        for node in (fused, eager):
            x = draw(5, 2, 4, seed=i).requires_grad_()
            node(x).backward(draw(5, 2, 4, seed=2))
            grads.append(x.grad)
        assert_close(*grads)
    assert len(built) <= 10


def test_another_default_device_changes_nothing():
    results = []
    for device in ("cpu", "meta"):
        node, x = ParametricLIFNode(step_mode="m"), draw(STRETCH + 6, 3, 5).requires_grad_()
        with torch.device(device):
            spikes = node(x)
            spikes.sum().backward()
        results.append((spikes, node.v, x.grad, node.w.grad))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_copies_and_pickles_run_after_the_original_has_run():
    node = LIFNode(step_mode="m")
    x = draw(3, 2, 4)
    node(x)
    for twin in (copy.deepcopy(node), pickle.loads(pickle.dumps(node))):
        assert twin._kernels is None
        twin.reset()
        node.reset()
        assert torch.equal(twin(x), node(x))


def test_state_of_another_batch_size_is_still_an_error():
    node = LIFNode(step_mode="m")
    node(draw(3, 2, 4))
    with pytest.raises(StateError, match="reset_net"):
        node(draw(3, 5, 4))


class Mixing(BaseNode):
    def neuronal_charge(self, x):
        self.v = self.v + x - x.mean(-1, keepdim=True)


class Drawing(BaseNode):
    def neuronal_charge(self, x):
        self.v = self.v + x + 0.0 * torch.rand_like(x)


class Deciding(BaseNode):
    def neuronal_charge(self, x):
        self.v = self.v + (x if bool(x.sum() > 0) else -x)


class WritingIntoTheInput(BaseNode):
    def neuronal_charge(self, x):
        self.v = self.v + x.mul_(1.0)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Mixing, r"aten\.(mean|sum) "),
        (Drawing, r"aten\.rand_like is not a pointwise operation"),
        (Deciding, r"aten\.sum mixes neurons"),
        (WritingIntoTheInput, r"in-place operation"),
    ],
)
def test_what_is_not_pointwise_runs_in_eager_and_says_why_once(kind, reason, recwarn):
    node, x = kind(step_mode="m"), draw(4, 3, 5)
    with pytest.warns(KernelWarning, match=rf"{kind.__name__}.*runs in eager PyTorch.*{reason}"):
        spikes = node(x.clone())
    node.reset()
    assert torch.equal(node(x.clone()), spikes)  # no second warning: it would be an error
    expected = kind(step_mode="m", backend="torch")(x.clone())
    assert torch.equal(spikes, expected)
    with pytest.raises(ConfigError, match=rf"backend='cpu' cannot run it.*{reason}"):
        kind(step_mode="m", backend="cpu")(x)


def test_own_neurons_error_is_its_own():
    class Wrong(BaseNode):
        def neuronal_charge(self, x):
            self.v = self.v + self.missing

    with pytest.raises(AttributeError, match="missing"):
        Wrong(step_mode="m")(draw(3, 2, 4))


def test_in_place_arithmetic_on_the_state():
    class InPlace(BaseNode):
        def neuronal_charge(self, x):
            v = self.v * 0.5
            v += x
            v.clamp_(min=-1.0)
            self.v = v

    grads = []
    for node in pair(InPlace):
        x = draw(4, 3, 5).requires_grad_()
        spikes = node(x)
        spikes.backward(draw(4, 3, 5, seed=1))
        grads.append((spikes, x.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    assert_close(grads[0][1], grads[1][1])


def test_learnable_surrogate_and_submodule_receive_gradients():
    class Wide(surrogates.SurrogateFunction):
        def __init__(self):
            super().__init__()
            self.width = nn.Parameter(torch.tensor(1.3))

        def gradient(self, x):
            return (self.width - x.abs()).clamp(min=0.0)

        def primitive(self, x):
            return torch.sigmoid(self.width * x)

    class Gain(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.tensor([0.8, 1.1, 1.3, 0.9]))

        def forward(self, x):
            return x * self.gain.exp()

    class Gained(IFNode):
        def __init__(self, **options):
            super().__init__(**options)
            self.gain = Gain()

        def neuronal_charge(self, x):
            super().neuronal_charge(self.gain(x))

    results = []
    for node in pair(Gained, surrogate_function=Wide()):
        node.surrogate_function.spiking = False
        y = node(draw(4, 3, 4))
        y.backward(draw(4, 3, 4, seed=1))
        results.append((y, node.gain.gain.grad, node.surrogate_function.width.grad))
    for ours, expected in zip(*results, strict=True):
        assert expected.any()
        assert_close(ours, expected, 5e-6)


def test_constants_and_casts_in_a_step():
    class Odd(BaseNode):
        def neuronal_charge(self, x):
            half = torch.tensor(0.5)
            bonus = torch.full_like(x, 0.1) + torch.zeros_like(x)
            mask = (x > 0) & ~(self.v > 0.9)
            self.v = torch.where(mask, self.v * half + x + bonus, self.v).clamp(-2.0, 2.0)

    outputs = [node(draw(5, 3, 4)) for node in pair(Odd)]
    assert torch.equal(*outputs) and outputs[0].any()


def test_several_threads_may_run_the_same_class_at_once():
    x = draw(6, 30, 40)
    expected = LIFNode(step_mode="m", backend="torch")(x)
    found, errors = [None] * 4, []

    def work(i):
        try:
            found[i] = LIFNode(step_mode="m")(x)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and all(torch.equal(spikes, expected) for spikes in found)


def test_eager_twin_of_the_kernels_says_the_same_as_the_neuron():
    node = IzhikevichNode(a=0.3, b=0.2, step_mode="m")
    x = draw(5, 3, 4)
    spikes = node(x)
    begin = [torch.zeros(3, 4), torch.zeros(3, 4)]
    twin, (v, w), (v_seq, _) = naive.run(node.kernels.step, x, begin, [])
    assert torch.equal(twin, spikes) and torch.equal(v, node.v) and torch.equal(w, node.w)
    assert torch.equal(v_seq[-1], v)


def test_no_compiler_means_eager_and_one_warning(monkeypatch, tmp_path):
    from jellyfit import native

    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("JELLYFIT_CACHE", str(tmp_path))
    monkeypatch.setattr(native, "_warned", set())
    x = draw(4, 3, 5)
    with pytest.warns(native.NativeWarning, match="no-such-compiler"):
        spikes = neurons.QIFNode(tau=2.6, step_mode="m")(x)
    again = neurons.QIFNode(tau=2.6, step_mode="m")(x)
    assert torch.equal(spikes, again)
    with pytest.raises(ConfigError, match="backend='cpu' cannot run here: No C compiler"):
        LIFNode(backend="cpu")
    monkeypatch.delenv("CC")
    assert torch.equal(neurons.QIFNode(tau=2.6, step_mode="m", backend="cpu")(x), spikes)
