"""CUDA kernels on a real GPU. Everywhere else these tests are skipped.

What is rounded correctly (+ - * /) is the same on every device, so most is compared with eager PyTorch on the CPU, to
the bit. Eager PyTorch on the device itself divides by a number as it multiplies by the inverse, and is compared with
where that is the same.
"""

import copy
import os

import pytest
import torch
from torch import nn

from jellyfit import neurons, surrogates
from jellyfit.kernels import cuda
from jellyfit.kernels.handwritten import NeuronFPTTKernel
from jellyfit.neurons import BaseNode
from tests.kernels.combinations import DTYPES, NEURONS, SETTINGS, every, label, make

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() and os.environ.get("JELLYFIT_REQUIRE_GPU") != "1", reason="no CUDA device"
)

DEVICE = "cuda"
ON_DEVICE = ("EIFNode", "ParametricLIFNode")  # exp and sigmoid are the device's own: compared with eager PyTorch there
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@pytest.fixture(autouse=True)
def kernels_can_run():
    reason = cuda.why_not()
    if reason is not None:
        pytest.fail(f"CUDA kernels cannot run here: {reason}", pytrace=False)


def draw(*shape, dtype=torch.float32, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * (1.2 * torch.randn(shape, generator=generator) + 0.5)).to(dtype)


def run(node: BaseNode, x: torch.Tensor):
    """Spikes, potentials, and gradients of two calls, on the CPU."""
    node.reset()
    x = x.detach().requires_grad_()
    outputs = [node(x), node((x * 0.9).to(x.dtype))]
    outputs += [node.v_seq] if node.store_v_seq else []
    outputs += [getattr(node, name) for name in node.kernels.states]
    generator = torch.Generator().manual_seed(5)
    weights = [torch.randn(output.shape, generator=generator).to(output) for output in outputs]
    sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True)).backward()
    gradients = [x.grad, *(p.grad for p in node.parameters())]
    return [output.detach().cpu() for output in outputs], [gradient.cpu() for gradient in gradients]


def assert_agrees(node: BaseNode, x: torch.Tensor) -> None:
    """``node`` on the device agrees with eager PyTorch."""
    name = type(node).__name__
    where = DEVICE if name in ON_DEVICE else "cpu"
    eager = copy.deepcopy(node).to(where)
    eager.backend = "torch"
    ours = copy.deepcopy(node).to(DEVICE)
    ours.backend = "cupy"
    outputs, gradients = run(ours, x.to(DEVICE))
    expected_outputs, expected_gradients = run(eager, x.to(where))
    for output, expected in zip(outputs, expected_outputs, strict=True):
        assert output.dtype == expected.dtype and output.shape == expected.shape
        if name in ON_DEVICE:  # a rounding may differ, and then a spike in many thousands
            assert ((output - expected).abs() > 1e-5 * (1 + expected.abs())).float().mean() < 1e-3
        else:
            assert torch.equal(output.nan_to_num(), expected.nan_to_num())
    for gradient, expected in zip(gradients, expected_gradients, strict=True):
        usable = expected.isfinite()
        assert gradient.shape == expected.shape and gradient.dtype == expected.dtype
        if usable.any():
            error = (gradient[usable].double() - expected[usable].double()).abs()
            allowed = TOLERANCE[x.dtype] * expected[usable].double().abs().max()
            assert (error > allowed).double().mean() < (
                1e-3 if name in ON_DEVICE else 1e-12
            ) or error.max() < 10 * allowed


@pytest.mark.parametrize("settings", every(SETTINGS), ids=label)
def test_every_setting_agrees_with_eager(settings):
    scale = 0.3 if settings["neuron"] in ("EIFNode", "QIFNode") else 1.0
    for steps, size in ((1, 3), (4, 1000), (5, 4097), (20, 4096)):
        x = draw(steps, 2, size, dtype=settings["dtype"], scale=scale)
        assert_agrees(make(settings, x.shape[1:]), x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("neuron", NEURONS)
def test_every_neuron_and_dtype_agrees_with_eager_on_many_elements(neuron, dtype):
    settings = {
        "neuron": neuron, "surrogate": "ATan", "dtype": dtype, "params": "numbers", "v_reset": -0.2,
        "detach_reset": False, "decay_input": True, "store_v_seq": True,
    }  # fmt: skip
    for shape in ((16, 64, 4096), (10, 7, 3, 33)):
        x = draw(*shape, dtype=dtype, scale=0.3)
        assert_agrees(make(settings, x.shape[1:]), x)


def test_channels_last_images_and_misaligned_tensors_agree_with_eager():
    node = neurons.LIFNode(step_mode="m", v_threshold=nn.Parameter(torch.linspace(0.5, 1.5, 5).view(5, 1, 1)))
    x = draw(6, 3, 5, 8, 8)
    assert_agrees(node, x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3))
    storage = draw(6 * 64 + 1).to(DEVICE)
    ours, eager = neurons.LIFNode(step_mode="m", backend="cupy"), neurons.LIFNode(step_mode="m", backend="torch")
    for offset in (0, 1):
        part = storage[offset : offset + 6 * 64].view(6, 64)
        ours.reset(), eager.reset()
        assert torch.equal(ours(part).cpu(), eager(part.cpu()))


def test_gradients_of_parameters_are_the_same_every_time():
    x = draw(8, 64, 1000)
    for init_tau in (2.0, torch.full((1000,), 2.0)):
        node = neurons.ParametricLIFNode(step_mode="m", init_tau=init_tau)
        gradients = []
        for _ in range(3):
            twin = copy.deepcopy(node).to(DEVICE)
            gradients.append(run(twin, x.to(DEVICE))[1])
        for again in gradients[1:]:
            assert all(torch.equal(a, b) for a, b in zip(gradients[0], again, strict=True))


def test_kernels_run_on_the_current_stream():
    """What a slow stream computes is seen by the kernels behind it there."""
    node = neurons.LIFNode(step_mode="m", backend="cupy")
    x = torch.zeros(4, 1 << 16, device=DEVICE)
    source = draw(4, 1 << 16).to(DEVICE)
    node(x)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        x.copy_(source)
        node.reset()
        spikes = node(x)
    assert not stream.query(), "the call should not have waited for the device"
    stream.synchronize()
    assert torch.equal(spikes.cpu(), neurons.LIFNode(step_mode="m", backend="torch")(source.cpu()))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_two_devices_take_turns_and_the_current_device_stays():
    node = neurons.ParametricLIFNode(step_mode="m", backend="cupy")
    expected = run(neurons.ParametricLIFNode(step_mode="m", backend="torch"), draw(9, 40, 100))
    with torch.cuda.device(0):
        for index in (1, 0, 1):
            twin = copy.deepcopy(node).to(f"cuda:{index}")
            outputs, gradients = run(twin, draw(9, 40, 100).to(f"cuda:{index}"))
            assert torch.cuda.current_device() == 0
            assert torch.equal(outputs[0], expected[0][0])
            torch.testing.assert_close(gradients, expected[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("params", ["numbers", "scalar", "channel"])
def test_forward_and_backward_can_be_captured_in_a_graph(params):
    settings = {
        "neuron": "LIFNode", "surrogate": "ATan", "dtype": torch.float32, "params": params, "v_reset": None,
        "detach_reset": False, "decay_input": True, "store_v_seq": False,
    }  # fmt: skip
    shape = (12, 64, 100)
    node = make(settings, shape[1:], backend="cupy").to(DEVICE)
    x, grad = torch.zeros(shape, device=DEVICE, requires_grad=True), draw(*shape, seed=1).to(DEVICE)

    def step():
        node.reset()
        spikes = node(x)
        return spikes, torch.autograd.grad(spikes, [x, *node.parameters()], grad)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for seed in (3, 4):
        with torch.no_grad():
            x.copy_(draw(*shape, seed=seed).to(DEVICE))
        graph.replay()
        torch.cuda.synchronize()
        spikes, gradients = step()
        assert torch.equal(captured[0], spikes)
        assert all(torch.equal(a, b) for a, b in zip(captured[1], gradients, strict=True))


def test_more_than_two_to_the_31_elements():
    count, tail = (1 << 31) + 64, 1 << 12
    free = torch.cuda.mem_get_info()[0]
    if free < 12 * count:
        pytest.skip(f"{free / 2**30:.0f} GiB of the device's memory are free; this needs {12 * count / 2**30:.0f}")
    x = torch.zeros(1, count, device=DEVICE, dtype=torch.float16)
    for place in (0, (1 << 31) - tail // 2, count - tail):
        x[:, place : place + tail] = draw(1, tail, dtype=torch.float16, seed=place % 97).to(DEVICE)
    node = neurons.LIFNode(step_mode="m", backend="cupy")
    with torch.no_grad():
        spikes = node(x)
    for place in (0, (1 << 31) - tail // 2, count - tail):
        eager = neurons.LIFNode(step_mode="m", backend="torch")
        part = slice(place, place + tail)
        assert torch.equal(spikes[:, part].cpu(), eager(x[:, part].cpu()))
        assert torch.equal(node.v[part].cpu(), eager.v)


def test_a_kernel_written_by_hand_runs_on_the_device():
    class IFNodeFPTTKernel(NeuronFPTTKernel):
        def neuronal_charge(self):
            return "h_seq[t] = v_v_seq[t] + x_seq[t];"

    x = draw(6, 1000).to(DEVICE)
    h_seq, spike_seq = torch.empty_like(x), torch.empty_like(x)
    v_v_seq = torch.zeros(7, 1000, device=DEVICE)
    kernel = IFNodeFPTTKernel(hard_reset=True, dtype="float")
    kernel.simple_call(x_seq=x, v_v_seq=v_v_seq, h_seq=h_seq, spike_seq=spike_seq, v_th=1.0, v_reset=0.0)
    expected = neurons.IFNode(step_mode="m", backend="torch", surrogate_function=surrogates.ATan())(x.cpu())
    assert torch.equal(spike_seq.cpu(), expected)


def test_the_backend_says_that_it_is_ready():
    from jellyfit.kernels import backend_status

    assert backend_status()["cupy"] is None
    assert neurons.LIFNode(backend="cupy").backend == "cupy"
