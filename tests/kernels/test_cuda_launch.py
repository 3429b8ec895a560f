"""Where CUDA kernels can run, and how CuPy is asked to run them: with a CuPy that only takes notes."""

import contextlib
import sys
import types

import numpy as np
import pytest
import torch

from jellyfit import kernels, neurons
from jellyfit.errors import ConfigError
from jellyfit.kernels import KernelUnavailableError, KernelWarning, cuda, fused


@pytest.fixture(autouse=True)
def nothing_remembered():
    caches = (cuda.why_not, cuda._compiled, cuda._stream)
    for function in caches:
        function.cache_clear()
    yield
    for function in caches:
        function.cache_clear()


@pytest.fixture
def pretend(monkeypatch):
    """Pretend to have some version of CUDA, a device, and CuPy, or not."""

    def say(version="12.8", device=True, cupy=True):
        monkeypatch.setattr(torch.version, "cuda", version)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: device)
        module = types.ModuleType("cupy")
        module.__spec__ = types.SimpleNamespace(name="cupy")
        monkeypatch.setitem(sys.modules, "cupy", module if cupy else None)
        cuda.why_not.cache_clear()

    return say


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ({"version": None}, ["torch was built without CUDA", "pip install 'jellyfit[cuda12]'"]),
        ({"device": False}, ["no NVIDIA driver or GPU", "pip install 'jellyfit[cuda12]'"]),
        ({"cupy": False}, ["CuPy is not installed", "pip install 'jellyfit[cuda12]'"]),
        ({"version": "13.0", "cupy": False}, ["CuPy is not installed", "pip install 'jellyfit[cuda13]'"]),
    ],
    ids=["torch", "device", "cupy", "cuda13"],
)
def test_the_reason_says_what_is_missing_and_what_to_install(pretend, setting, parts):
    pretend(**setting)
    reason = cuda.why_not()
    assert all(part in reason for part in parts)
    assert kernels.backend_status()["cupy"] == reason
    with pytest.raises(ConfigError, match=r"backend='cupy' cannot run here: .*pip install 'jellyfit\[cuda1[23]\]'"):
        neurons.LIFNode(backend="cupy")
    with pytest.raises(KernelUnavailableError, match="jellyfit"):
        fused._target(torch.device("cuda"))


def test_a_cupy_that_does_not_import_is_a_reason(pretend, monkeypatch, tmp_path):
    pretend()
    assert cuda.why_not() is None
    monkeypatch.delitem(sys.modules, "cupy")
    (tmp_path / "cupy.py").write_text("raise OSError('libnvrtc.so.12: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    cuda.why_not.cache_clear()
    assert "CuPy does not import: OSError: libnvrtc.so.12" in cuda.why_not()


def test_the_reason_is_looked_for_once(pretend, monkeypatch):
    pretend(cupy=False)
    first = cuda.why_not()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("asked again"))
    assert cuda.why_not() is first


def test_devices_of_other_kinds_have_no_kernels():
    with pytest.raises(KernelUnavailableError, match="'meta'"):
        fused._target(torch.device("meta"))


def test_a_cuda_device_gets_cuda_kernels_for_itself(pretend):
    pretend()
    assert fused._target(torch.device("cuda", 1)).keywords == {"device": torch.device("cuda", 1)}


class Notes:
    """A CuPy that writes down what it is asked."""

    def __init__(self, monkeypatch, new=True, fail=None):
        self.said = []
        cupy = types.ModuleType("cupy")
        cupy.RawModule = self.module
        self.fail = fail

        class Stream:
            if new:

                @staticmethod
                def from_external(stream):
                    return ("stream", stream.__cuda_stream__()[1])

        cupy.cuda = types.SimpleNamespace(
            Device=self.device, Stream=Stream, ExternalStream=lambda address, index: ("old stream", address)
        )
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        self.current = 0x100
        monkeypatch.setattr(
            torch.cuda, "current_stream", lambda index: types.SimpleNamespace(cuda_stream=self.current + index)
        )

    @contextlib.contextmanager
    def device(self, index):
        self.said.append(("device", index))
        yield
        self.said.append(("back", index))

    def module(self, code, options):
        if self.fail:
            raise self.fail
        self.said.append(("module", code, options))

        def function(grid, block, arguments, stream):
            self.said.append(("launch", grid, block, arguments, stream))

        return types.SimpleNamespace(get_function=lambda name: types.SimpleNamespace(kernel=function))


def test_source_is_compiled_once_for_each_device_with_exact_arithmetic(monkeypatch):
    notes = Notes(monkeypatch)
    launcher = cuda.CupyLauncher()
    for index in (0, 1, 0):
        launcher.load("source", ["name"], torch.device("cuda", index))
    assert [note for note in notes.said if note[0] == "module"] == [("module", "source", cuda.OPTIONS)] * 2
    assert [note for note in notes.said if note[0] == "device"] == [("device", 0), ("device", 1)]
    assert "--fmad=false" in cuda.OPTIONS and not any("fast" in option for option in cuda.OPTIONS)


@pytest.mark.parametrize("new", [True, False], ids=["CuPy 14", "CuPy 13"])
def test_kernels_run_on_the_current_stream_of_the_tensors_device(monkeypatch, new):
    notes = Notes(monkeypatch, new)
    launch = cuda.CupyLauncher().load("source", ["name"], torch.device("cuda", 1))["name"]
    del notes.said[:]
    launch(7, 256, [1 << 40, np.float32(0.5)])
    notes.current = 0x200
    launch(7, 256, [0])
    kind = "stream" if new else "old stream"
    first, second = (note for note in notes.said if note[0] == "launch")
    assert first == ("launch", (7,), (256,), (1 << 40, np.float32(0.5)), (kind, 0x101))
    assert [type(argument) for argument in first[3]] == [np.int64, np.float32]
    assert second[4] == (kind, 0x201)
    assert [note for note in notes.said if note[0] != "launch"] == [("device", 1), ("back", 1)] * 2


def test_a_compilation_that_fails_is_told_in_few_words(monkeypatch):
    Notes(monkeypatch, fail=RuntimeError("kern.cu(1): error: no\nmore\nand more\nand so on"))
    with pytest.raises(
        KernelUnavailableError, match=r"CuPy cannot compile kernels: kern\.cu\(1\): error: no; more; and more$"
    ):
        cuda.CupyLauncher().load("source", ["name"], torch.device("cuda", 0))


def test_neurons_on_a_device_without_kernels_run_in_eager_pytorch_and_say_so_once(pretend, monkeypatch):
    """On tensors that say that they are on CUDA, as far as the choice of kernels goes."""
    pretend(cupy=False)
    from jellyfit.neurons import fused as choice

    monkeypatch.setattr(choice, "_warned", set())
    node = neurons.LIFNode(step_mode="m")
    node.kernels._look_at_settings()

    class OnCuda:
        shape, dtype, device, is_cuda = torch.Size([4, 2, 3]), torch.float32, torch.device("cuda", 0), True

        def __getitem__(self, i):
            return torch.zeros(2, 3)

    with pytest.warns(KernelWarning, match="CuPy is not installed"):
        assert node.kernels.plan(OnCuda()) is None
    assert node.kernels.plan(OnCuda()) is None
