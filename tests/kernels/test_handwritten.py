"""CUDA kernels written by hand: their source, their checks and, on the CPU, their results."""

import copy
import doctest
import pickle

import pytest
import torch

from jellyfit import neurons, surrogates
from jellyfit.errors import ConfigError, InputError, InputTypeError
from jellyfit.kernels import cuda, handwritten
from jellyfit.kernels.handwritten import CKernel, CKernel1D, CKernel2D, NeuronBPTTKernel, NeuronFPTTKernel
from tests.kernels import nvrtc
from tests.kernels.combinations import SURROGATES
from tests.kernels.cuda_on_host import HostGrid, needs_compiler

TORCH = {"float": torch.float32, "double": torch.float64, "half2": torch.float16}
ONE = {"float": "1.0f", "double": "1.0", "half2": "__float2half2_rn(1.0f)"}


class IFNodeFPTTKernel(NeuronFPTTKernel):
    def neuronal_charge(self):
        if self.dtype == "half2":
            return "h_seq[t] = __hadd2(v_v_seq[t], x_seq[t]);"
        return "h_seq[t] = v_v_seq[t] + x_seq[t];"


class IFNodeBPTTKernel(NeuronBPTTKernel):
    def grad_h_next_to_v(self):
        return f"const {self.dtype} grad_h_next_to_v = {ONE[self.dtype]};"

    def grad_h_to_x(self):
        return f"const {self.dtype} grad_h_to_x = {ONE[self.dtype]};"


class LIFNodeFPTTKernel(NeuronFPTTKernel):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.add_param(f"const {self.dtype} &", "decay")

    def neuronal_charge(self):
        return "h_seq[t] = v_v_seq[t] + decay * (x_seq[t] - v_v_seq[t]);"


def on_host(kernel: CKernel) -> CKernel:
    kernel.launcher, kernel._device_type = HostGrid(), "cpu"
    return kernel


def heaviside() -> CKernel1D:
    kernel = CKernel1D("heaviside")
    kernel.add_param("const float *", "x")
    kernel.add_param("float *", "y")
    kernel.core = "y[index] = x[index] >= 0.0f ? 1.0f : 0.0f;"
    return kernel


def sum_over_time() -> CKernel2D:
    kernel = CKernel2D("sum_over_time")
    kernel.add_param("const float *", "x_seq")
    kernel.add_param("float *", "y")
    kernel.add_param("float &", "factor")
    kernel.pre_core = "float total = 0.0f;"
    kernel.core = "total += x_seq[t];"
    kernel.post_core = "y[index] = factor * total;"
    return kernel


def draw(*shape, dtype=torch.float32, seed=0):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 0.3).to(dtype)


def test_examples_in_the_documentation_are_true():
    assert doctest.testmod(handwritten).failed == 0


# ---------------------------------------------------------------- source


ALL = [
    heaviside(),
    sum_over_time(),
    *(IFNodeFPTTKernel(hard, dtype) for hard in (False, True) for dtype in TORCH),
    *(
        IFNodeBPTTKernel(getattr(surrogates, name)(), hard, detach, dtype)
        for name, hard, detach, dtype in [
            *((name, True, False, "float") for name in SURROGATES),
            *(("ATan", hard, detach, dtype) for hard in (False, True) for detach in (False, True) for dtype in TORCH),
        ]
    ),
]


@pytest.mark.parametrize("architecture", ["sm_70", "sm_80", "sm_90"])
def test_source_compiles_without_a_word(architecture):
    nvrtc.require()
    for kernel in ALL:
        assert nvrtc.compiled(kernel.full_codes, architecture, cuda.OPTIONS)[1] == ""


def test_names_say_what_a_kernel_is():
    assert IFNodeFPTTKernel(True, "float").kernel_name == "IFNodeFPTTKernel_float_hard_reset"
    backward = IFNodeBPTTKernel(surrogates.ATan(), False, True, "half2")
    assert backward.kernel_name == "IFNodeBPTTKernel_half2_soft_reset_detach_reset"
    assert backward.check_attributes(hard_reset=False, detach_reset=True, dtype="half2")
    assert not backward.check_attributes(hard_reset=True)


def test_source_is_in_four_parts():
    kernel = sum_over_time()
    assert kernel.full_codes.index(kernel.declaration) < kernel.full_codes.index("total += x_seq[t];")
    assert kernel.full_codes.endswith(kernel.tail)
    assert "for (long long t = index; t < numel; t += dt)" in kernel.head
    assert "for (long long t = numel - N + index; t >= 0; t -= dt)" in CKernel2D("back", reverse=True).head
    assert kernel.cparams == {
        "numel": "const long long &", "N": "const long long &", "x_seq": "const float *", "y": "float *",
        "factor": "float &",
    }  # fmt: skip


def test_lines_keep_their_own_indentation():
    kernel = CKernel1D("loop")
    kernel.add_param("float *", "y")
    kernel.core = """
        for (int i = 0; i < 2; ++i) {
            y[index] += i;
        }
    """
    assert "        for (int i = 0; i < 2; ++i) {\n            y[index] += i;\n        }\n" in kernel.full_codes


def test_a_neuron_without_its_lines_is_an_error_that_says_which():
    with pytest.raises(TypeError, match=r"NeuronFPTTKernel must define neuronal_charge\(self\)"):
        NeuronFPTTKernel(True, "float").full_codes  # noqa: B018
    with pytest.raises(TypeError, match=r"NeuronBPTTKernel must define grad_h_next_to_v\(self\)"):
        NeuronBPTTKernel(surrogates.ATan(), True, False, "float").full_codes  # noqa: B018


# ---------------------------------------------------------------- results


@needs_compiler
@pytest.mark.parametrize("size", [1, 3, 255, 256, 257, 1000])
def test_kernels_of_one_element_and_of_one_neuron_compute_every_element(size):
    x = draw(size)
    y = torch.full_like(x, torch.nan)
    on_host(heaviside()).simple_call(x=x, y=y)
    assert torch.equal(y, (x >= 0).float())
    x_seq, y = draw(5, size), torch.full((size,), torch.nan)
    on_host(sum_over_time()).simple_call(x_seq=x_seq, y=y, factor=0.5)
    torch.testing.assert_close(y, 0.5 * x_seq.sum(0))


@needs_compiler
def test_a_grid_may_be_given():
    x, y = draw(300), torch.zeros(300)
    kernel = on_host(heaviside())
    kernel((3,), (100,), {"x": x, "y": y, "numel": 300})
    assert torch.equal(y, (x >= 0).float())
    assert kernel.launcher.launched == [("heaviside", 3, 100)]


def forward(kernel, x, v, **numbers):
    v_v_seq = torch.cat([v[None], torch.full_like(x, torch.nan)])
    h_seq, spike_seq = torch.full_like(x, torch.nan), torch.full_like(x, torch.nan)
    on_host(kernel).simple_call(x_seq=x, v_v_seq=v_v_seq, h_seq=h_seq, spike_seq=spike_seq, **numbers)
    return spike_seq, h_seq, v_v_seq


def thresholds(v_reset):
    return {"v_th": 0.8} if v_reset is None else {"v_th": 0.8, "v_reset": v_reset}


@needs_compiler
@pytest.mark.parametrize("v_reset", [None, -0.25])
@pytest.mark.parametrize("dtype", TORCH)
def test_forward_of_a_neuron_is_that_of_the_same_neuron_in_pytorch(dtype, v_reset):
    x, v = draw(7, 34, dtype=TORCH[dtype]), 0.1 * draw(34, dtype=TORCH[dtype], seed=1)
    spikes, h_seq, v_v_seq = forward(IFNodeFPTTKernel(v_reset is not None, dtype), x, v, **thresholds(v_reset))
    node = neurons.IFNode(v_threshold=0.8, v_reset=v_reset, step_mode="m", store_v_seq=True, backend="torch")
    node.v = v.double() if dtype == "double" else v.float()
    if dtype == "half2":  # potentials are rounded to half precision at every step: one at a time
        for t in range(7):
            expected = node(x[t : t + 1])
            assert torch.equal(spikes[t : t + 1], expected)
            torch.testing.assert_close(v_v_seq[t + 1].float(), node.v, rtol=2e-3, atol=2e-3)
            node.v = v_v_seq[t + 1].float()
    else:
        assert torch.equal(spikes, node(x))
        assert torch.equal(v_v_seq[1:], node.v_seq)
        assert torch.equal(h_seq, v_v_seq[:-1] + x)


@needs_compiler
def test_further_parameters_come_in_by_name():
    x, v = draw(6, 11), torch.zeros(11)
    spikes, _, _ = forward(LIFNodeFPTTKernel(True, "float"), x, v, v_th=0.8, v_reset=0.0, decay=0.5)
    node = neurons.LIFNode(v_threshold=0.8, tau=2.0, step_mode="m", backend="torch")
    assert torch.equal(spikes, node(x))


@needs_compiler
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("v_reset", [None, -0.25])
@pytest.mark.parametrize("dtype", TORCH)
def test_backward_of_a_neuron_is_autograds(dtype, v_reset, detach_reset):
    surrogate = surrogates.ATan()
    x, v = draw(7, 34, dtype=TORCH[dtype]), 0.1 * draw(34, dtype=TORCH[dtype], seed=1)
    real = torch.float64 if dtype == "double" else torch.float32
    wide_x, wide_v = x.to(real).requires_grad_(), v.to(real).requires_grad_()
    options = {"v_threshold": 0.8, "v_reset": v_reset, "detach_reset": detach_reset, "surrogate_function": surrogate}
    node = neurons.IFNode(**options, step_mode="m", store_v_seq=True, backend="torch")
    node.v = wide_v
    grads = [draw(7, 34, seed=2).to(x.dtype), draw(7, 34, seed=3).to(x.dtype)]
    spikes = node(wide_x)
    expected = torch.autograd.grad([spikes, node.v_seq], [wide_x, wide_v], [grad.to(real) for grad in grads])
    before = torch.cat([wide_v[None], node.v_seq[:-1]]).detach()
    h_seq = (before + wide_x.detach()).to(x.dtype)
    kernel = on_host(IFNodeBPTTKernel(surrogate, v_reset is not None, detach_reset, dtype))
    grad_x, grad_v = torch.full_like(x, torch.nan), torch.full_like(v, torch.nan)
    kernel.simple_call(
        grad_spike_seq=grads[0], grad_v_seq=grads[1], h_seq=h_seq, grad_x_seq=grad_x, grad_v_init=grad_v,
        **thresholds(v_reset),
    )  # fmt: skip
    tolerance = {"float": 1e-6, "double": 1e-13, "half2": 2e-2}[dtype]
    for found, wanted in zip((grad_x, grad_v), expected, strict=True):
        assert (found.to(real) - wanted).abs().max() <= tolerance * wanted.abs().max()


@needs_compiler
@pytest.mark.parametrize("name", SURROGATES)
def test_every_surrogate_gradient_is_traced(name):
    surrogate = getattr(surrogates, name)()
    h_seq, ones, zeros = draw(1, 500), torch.ones(1, 500), torch.zeros(1, 500)
    grad_x, grad_v = torch.full_like(h_seq, torch.nan), torch.full((500,), torch.nan)
    on_host(IFNodeBPTTKernel(surrogate, True, True, "float")).simple_call(
        grad_spike_seq=ones, grad_v_seq=zeros, h_seq=h_seq, grad_x_seq=grad_x, grad_v_init=grad_v, v_th=0.8, v_reset=0.0
    )
    torch.testing.assert_close(grad_x, surrogate.gradient(h_seq - 0.8), rtol=1e-5, atol=1e-6)


@needs_compiler
def test_new_lines_are_compiled_anew_and_old_ones_are_not():
    x, y = draw(10), torch.zeros(10)
    kernel = on_host(heaviside())
    kernel.simple_call(x=x, y=y)
    launches = dict(kernel._launches)
    kernel.simple_call(x=x, y=y)
    assert kernel._launches == launches
    kernel.core = "y[index] = 2.0f * x[index];"
    kernel.simple_call(x=x, y=y)
    assert torch.equal(y, 2.0 * x)


@needs_compiler
def test_kernels_can_be_copied_and_pickled():
    kernel = on_host(IFNodeFPTTKernel(True, "float"))
    x, v = draw(3, 8), torch.zeros(8)
    spikes, _, _ = forward(kernel, x, v, v_th=1.0, v_reset=0.0)
    for twin in (copy.deepcopy(kernel), pickle.loads(pickle.dumps(kernel))):
        assert twin.full_codes == kernel.full_codes
        assert torch.equal(forward(twin, x, v, v_th=1.0, v_reset=0.0)[0], spikes)


# ---------------------------------------------------------------- mistakes


def test_mistakes_in_a_declaration_are_named():
    kernel = heaviside()
    with pytest.raises(InputError, match="x is a parameter already"):
        kernel.add_param("float *", "x")
    with pytest.raises(InputError, match="index has a meaning in every kernel of this kind"):
        kernel.add_param("float *", "index")
    with pytest.raises(InputError, match=r"add_param\(ctype='flaot \*', cname='z'\): expected one of float, double"):
        kernel.add_param("flaot *", "z")
    with pytest.raises(InputError, match="expected a C identifier"):
        kernel.add_param("float *", "z-1")
    with pytest.raises(InputError, match=r"kernel_name='my kernel': expected a C identifier"):
        CKernel1D("my kernel")
    with pytest.raises(InputError, match=r"IFNodeFPTTKernel\(dtype='half'\): expected 'float', 'double' or 'half2'"):
        IFNodeFPTTKernel(True, "half")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"y": None}, InputTypeError, r"heaviside: y \(float \*\): got NoneType; expected a tensor"),
        ({"z": torch.zeros(4)}, InputError, r"heaviside: unknown: z\. It takes numel, x, y"),
        (
            {"x": torch.zeros(4).double()},
            InputTypeError,
            r"x \(const float \*\): got torch.float64; expected torch.float32",
        ),
        ({"x": torch.zeros(4, 2)[:, 0]}, InputError, r"x \(const float \*\): is not contiguous .*Use .contiguous\(\)"),
        ({"x": torch.zeros(4, device="meta")}, InputError, "x .*: is on meta; expected a CPU tensor"),
        ({"x": torch.zeros(5)}, InputError, r"tensors differ in size \(x 5, y 4\); say which with numel="),
        ({"numel": 2.5}, InputTypeError, "numel=2.5; expected a whole number"),
    ],
    ids=["type", "unknown", "dtype", "contiguous", "device", "size", "numel"],
)
def test_mistakes_in_a_call_are_named(changes, error, message):
    given = {"x": torch.zeros(4), "y": torch.zeros(4), **changes}
    with pytest.raises(error, match=message):
        on_host(heaviside()).simple_call(**given)


def test_a_missing_parameter_is_named():
    with pytest.raises(InputError, match="heaviside: missing: y"):
        on_host(heaviside()).simple_call(x=torch.zeros(4))
    with pytest.raises(InputError, match="missing: numel"):
        on_host(heaviside())((1,), (32,), {"x": torch.zeros(4), "y": torch.zeros(4)})
    with pytest.raises(InputError, match="one number each"):
        on_host(heaviside())((1, 1), (32,), {"x": torch.zeros(4), "y": torch.zeros(4), "numel": 4})


def test_numbers_are_numbers():
    kernel = on_host(sum_over_time())
    with pytest.raises(InputTypeError, match=r"factor \(float &\): got str; expected a number"):
        kernel.simple_call(x_seq=torch.zeros(2, 3), y=torch.zeros(3), factor="half")
    counting = on_host(CKernel1D("count"))
    counting.add_param("int *", "y")
    counting.add_param("int &", "start")
    with pytest.raises(InputTypeError, match="got 0.5; expected a whole number"):
        counting.simple_call(y=torch.zeros(3, dtype=torch.int32), start=0.5)


def test_shapes_of_a_neuron_are_checked():
    kernel = on_host(IFNodeFPTTKernel(False, "float"))
    given = {"x_seq": torch.zeros(4, 6), "v_v_seq": torch.zeros(5, 6), "h_seq": torch.zeros(4, 6)}
    with pytest.raises(InputError, match=r"spike_seq is \[3, 6\]; expected \[4, 6\]"):
        kernel.simple_call(**given, spike_seq=torch.zeros(3, 6), v_th=1.0)
    with pytest.raises(InputError, match=r"v_v_seq is \[4, 6\]; expected \[5, 6\]"):
        kernel.simple_call(**{**given, "v_v_seq": torch.zeros(4, 6)}, spike_seq=torch.zeros(4, 6), v_th=1.0)
    with pytest.raises(InputError, match=r"x_seq \[4, 2, 3\]; expected \[T, N\] or \[N\]. Use .flatten\(1\)"):
        kernel.simple_call(**{**given, "x_seq": torch.zeros(4, 2, 3)}, spike_seq=torch.zeros(4, 6), v_th=1.0)
    with pytest.raises(InputError, match=r"numel=12, N=6; expected 24 and 6"):
        kernel((1,), (32,), {**given, "spike_seq": torch.zeros(4, 6), "v_th": 1.0, "numel": 12, "N": 6})
    with pytest.raises(InputError, match=r"h_seq is \[4, 5\]; expected \[.., 6\]"):
        kernel.simple_call(**{**given, "h_seq": torch.zeros(4, 5)}, spike_seq=torch.zeros(4, 6), v_th=1.0)


def test_pairs_of_halves_need_an_even_number_of_neurons():
    kernel = on_host(IFNodeFPTTKernel(False, "half2"))
    given = {name: torch.zeros(4, 5).half() for name in ("x_seq", "h_seq", "spike_seq")}
    with pytest.raises(InputError, match="takes pairs, so an even number of neurons. Pad it"):
        kernel.simple_call(**given, v_v_seq=torch.zeros(6, 5).half(), v_th=1.0)
    storage = torch.zeros(25).half()
    with pytest.raises(InputError, match="an even number of elements from an even place"):
        kernel.simple_call(
            **{name: torch.zeros(4, 6).half() for name in ("h_seq", "spike_seq")},
            x_seq=storage[1:25].view(4, 6), v_v_seq=torch.zeros(5, 6).half(), v_th=1.0,
        )  # fmt: skip


def test_without_a_gpu_the_error_says_what_to_install(monkeypatch):
    x = torch.zeros(4)
    with pytest.raises(InputError, match=r"heaviside: x \(const float \*\): is on cpu; expected a CUDA tensor"):
        heaviside().simple_call(x=x, y=x)
    kernel = heaviside()
    kernel._device_type = "cpu"
    monkeypatch.setattr("jellyfit.kernels.handwritten.base.why_not", lambda: "no GPU (pip install 'jellyfit[cuda12]')")
    with pytest.raises(ConfigError, match=r"heaviside cannot run here: no GPU \(pip install 'jellyfit\[cuda12\]'\)"):
        kernel.simple_call(x=x, y=x)
