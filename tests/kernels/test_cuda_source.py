"""The generated CUDA source: it compiles for GPUs of three generations, and is what it should be."""

import re

import pytest
import torch

from jellyfit import neurons, surrogates
from jellyfit.kernels import fused
from jellyfit.kernels.cuda import OPTIONS, CudaTarget
from jellyfit.kernels.fused import FusedStep
from jellyfit.neurons import BaseNode
from tests.kernels import nvrtc
from tests.kernels.combinations import DTYPES, NEURONS, SETTINGS, SURROGATES, build, every, label, make

STEP = (2, 3, 4)
ARCHITECTURES = ("sm_70", "sm_80", "sm_90")


class Nowhere:
    """A launcher for kernels that are only looked at."""

    def load(self, source, names, device):
        return dict.fromkeys(names)

    def multiprocessors(self, device):
        return 1


def target(node, dtype, step=STEP, affine=False, lift=False) -> CudaTarget:
    node.kernels._look_at_settings()
    states = node.kernels.states
    start = [node.kernels._start(name) for name in states]
    params = [(p.shape, p.dtype, p.requires_grad) for p in node.kernels.params()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "_target", lambda device: lambda *args: CudaTarget(*args, torch.device("cpu"), Nowhere()))
        plan = FusedStep(
            node.kernels.step,
            step,
            dtype,
            torch.device("cpu"),
            states,
            start,
            params,
            type(node).__name__,
            affine,
            lift,
        )
    assert isinstance(plan.target, CudaTarget)
    return plan.target


def compile_both(made: CudaTarget, architecture) -> None:
    for which in ("forward", "backward"):
        _, said = nvrtc.compiled(made.source(which), architecture, OPTIONS)
        assert said == "", said


def test_all_neurons_and_surrogates_are_looked_at():
    assert {"IFNode", "LIFNode", "ParametricLIFNode", "QIFNode", "EIFNode", "IzhikevichNode"} <= set(NEURONS)
    assert {"Sigmoid", "ATan", "PiecewiseQuadratic", "Rect", "DeterministicPass"} <= set(SURROGATES)


OPTIONS_OF_SOURCE = {
    **{name: values for name, values in SETTINGS.items() if name != "store_v_seq"},
    "v_reset": (None, -0.2),
    "architecture": ARCHITECTURES,
    "affine": (False, True),
    "lift": (False, True),
}


@pytest.mark.parametrize("settings", every(OPTIONS_OF_SOURCE), ids=label)
def test_source_compiles_for_every_architecture_without_a_word(settings):
    nvrtc.require()
    node = make({**settings, "store_v_seq": False}, STEP)
    compile_both(
        target(node, settings["dtype"], affine=settings["affine"], lift=settings["lift"]), settings["architecture"]
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("neuron", ["LIFNode", "IzhikevichNode"])
def test_vector_kernels_move_sixteen_bytes_at_a_time(neuron, dtype):
    nvrtc.require()
    made = target(getattr(neurons, neuron)(surrogate_function=surrogates.ATan()), dtype)
    for which in ("forward", "backward"):
        text = nvrtc.compiled(made.source(which), "compute_80", OPTIONS)[0].decode()
        vector = next(part for part in text.split(".visible .entry")[1:] if "_vector(" in part)
        moves = re.findall(r"\b(?:ld|st)\.global[\w.]*", vector)
        assert moves
        assert [move for move in moves if not re.search(r"\.v4\.[fub]32$|\.v2\.f64$", move)] == []
        assert "local" not in vector, "everything should be in registers"


class Oddly(BaseNode):
    """Memories called like words of C++, like what stands around the lines, and like nothing in ASCII."""

    NAMES = ("new", "template", "state", "grad", "keep", "EXP", "number0", "first_v", "grad_v", "s", "x1", "τ", "t0")

    def __init__(self):
        super().__init__(step_mode="m")
        for name in self.NAMES:
            self.register_memory(name, 0.5)

    def neuronal_charge(self, x):
        self.v = self.v * 0.5 + torch.exp(-x * x)
        for name in self.NAMES:
            self.v = self.v + 0.1 * getattr(self, name)
            setattr(self, name, getattr(self, name) * 0.5 + x)


def test_memories_may_have_any_name():
    nvrtc.require()
    compile_both(target(Oddly(), torch.float32), "sm_80")
    assert nvrtc.compiled(target(Oddly(), torch.float32, lift=True).source("forward"), "sm_80", OPTIONS)[1] == ""


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_backward_keeps_of_a_stretch_fits_in_registers(dtype):
    for name in NEURONS:
        made = target(build(name), dtype)
        width, words = 16 // dtype.itemsize, max(1, dtype.itemsize // 4)
        keep = int(re.search(r"KEEP = (\d+)", made.source("backward"))[1])
        assert 2 <= made.stretch <= 8
        assert made.stretch == 2 or made.stretch * keep * width * words <= 64
        for which in ("forward", "backward"):
            assert f"STRETCH = {made.stretch};" in made.source(which)


def test_source_tells_what_it_is_and_has_no_atomic_operation_nor_barrier():
    made = target(neurons.ParametricLIFNode(), torch.float32)
    for which in ("forward", "backward"):
        source = made.source(which)
        assert source.startswith(f"// ParametricLIFNode: {which}. Generated by jellyfit.\n")
        assert "// charge" in source and "// fire" in source and "// reset" in source
        assert not re.search(r"atomic|__sync|__shared__|__shfl", source)


def test_lifted_sources_differ_in_nothing_where_neurons_differ_in_numbers_alone():
    def sources(tau, lift):
        made = target(neurons.LIFNode(tau=tau, v_reset=-0.3), torch.float32, lift=lift)
        return [made.source(which) for which in ("forward", "backward")]

    assert sources(2.5, True) == sources(3.5, True)
    assert sources(2.5, False) != sources(3.5, False)


def test_command_line_shows_the_source(capsys):
    from jellyfit.show import main

    main(["show", "LIFNode", "tau=3.0", "--target", "cuda", "--dtype", "float16"])
    out = capsys.readouterr().out
    assert "LIFNode_forward_vector(" in out and "LIFNode_backward_scalar(" in out and "cuda_fp16.h" in out
