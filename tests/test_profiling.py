"""Time by kind of layer, memory, and processors that are slow in bfloat16."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from jellyfit import layers, neurons
from jellyfit.backbones import SpikingMLP
from jellyfit.doctor import has_fast_bfloat16, slow_precision
from jellyfit.errors import ConfigError
from jellyfit.profiling import KINDS, LayerTimes, peak_memory
from jellyfit.tasks import ClassificationTask


def net(backend: str) -> layers.Sequential:
    modules = [
        layers.Conv2d(2, 8, 3),
        layers.BatchNorm2d(8),
        neurons.LIFNode(backend=backend),
        layers.MaxPool2d(2),
        layers.Flatten(),
        layers.Linear(8 * 15 * 15, 4),
    ]
    for module in modules:
        module.step_mode = "m"
    return layers.Sequential(*modules)


@pytest.mark.parametrize("hooks", [True, False])
def test_every_kind_of_layer_takes_some_time(hooks: bool) -> None:
    made, x = net("auto"), torch.rand(4, 2, 2, 32, 32)
    made.insert(4, layers.BatchNorm2d(8, step_mode="m"))  # the other one runs as one with the neuron
    made(x).sum().backward()
    made[2].reset()
    with LayerTimes(hooks=hooks) as times:
        made(x).sum().backward()
    assert set(times.seconds) == {*KINDS, "other"}
    assert all(times.seconds[kind] > 0 for kind in KINDS), times.seconds
    assert times.seconds["other"] < sum(times.seconds[kind] for kind in KINDS)


def test_time_of_eager_neurons_is_theirs_forward_and_backward() -> None:
    node, x = neurons.LIFNode(backend="torch", step_mode="m"), torch.rand(4, 200_000, requires_grad=True)
    node(x).sum().backward()
    node.reset()
    with LayerTimes() as forward:
        y = node(x).sum()
    with LayerTimes() as both:
        node.reset()
        y = node(x).sum()
        y.backward()
    for times in (forward, both):
        assert times.seconds["neurons"] > 0.8 * sum(times.seconds.values()), times.seconds
    assert both.seconds["neurons"] > 1.2 * forward.seconds["neurons"]


def test_layers_that_run_as_one_still_do() -> None:
    made = net("auto")
    with LayerTimes() as times:
        made(torch.rand(4, 2, 2, 32, 32))
    names = {event.name for event in times._profiler.events()}
    assert "_Run" in names
    assert "aten::native_batch_norm" not in names


def test_it_cleans_up_behind_an_error() -> None:
    class Broken(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("broken")

    times = LayerTimes()
    with pytest.raises(ValueError, match="broken"), times:
        Broken(1, 1, 1)(torch.zeros(1, 1, 1, 1))
    assert times.seconds == {}
    assert not torch.nn.modules.module._global_forward_pre_hooks
    with LayerTimes() as again:
        torch.zeros(2).add(1)
    assert again.seconds["other"] > 0


def test_there_is_one_profiler_at_a_time() -> None:
    with LayerTimes():
        torch.zeros(2).add(1)
        with pytest.raises(ConfigError, match="another profiler"):
            LayerTimes().__enter__()


def test_kernels_are_made_under_a_profiler_that_marks_modules() -> None:
    node, x = neurons.LIFNode(step_mode="m", backend="cpu"), torch.rand(4, 8)
    scope = torch.autograd.profiler.record_function("surrogate")
    node.surrogate_function.register_forward_pre_hook(lambda *_: scope.__enter__() and None)
    node.surrogate_function.register_forward_hook(lambda *_: scope.__exit__(None, None, None))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        spikes = node(x)
    assert torch.equal(spikes, neurons.LIFNode(step_mode="m", backend="torch")(x))


def test_other_lines_on_standard_error_are_kept(capfd: pytest.CaptureFixture[str]) -> None:
    import os

    from jellyfit.profiling import _without_chatter

    with _without_chatter():
        os.write(2, b"USDT: what nobody asked for\nworth reading\n")
    assert capfd.readouterr().err == "worth reading\n"


def test_peak_memory_grows_with_what_is_used() -> None:
    before = peak_memory(torch.device("cpu"))
    kept = torch.ones(2**26)  # 256 MiB
    assert peak_memory(torch.device("cpu")) >= kept.nbytes
    assert peak_memory(torch.device("cpu")) >= before


@pytest.mark.parametrize(("flags", "fast"), [("sse avx512f avx512_bf16", True), ("sse avx2", False)])
def test_a_processor_without_bfloat16_is_warned_about(monkeypatch: pytest.MonkeyPatch, flags: str, fast: bool) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"flags : {flags}\n")
    cpu = torch.device("cpu")
    assert has_fast_bfloat16() is fast
    said = slow_precision("bf16-mixed", cpu)
    assert (said is None) is fast
    assert said is None or "trainer.precision=32-true" in said
    assert slow_precision("32-true", cpu) is None
    assert slow_precision("bf16-mixed", torch.device("cuda")) is None


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*")
def test_a_fit_in_a_slow_precision_begins_with_a_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for fast, precision, told in ((False, "bf16-mixed", True), (True, "bf16-mixed", False), (False, "32-true", False)):
        monkeypatch.setattr("jellyfit.doctor.has_fast_bfloat16", lambda fast=fast: fast)
        task = ClassificationTask(SpikingMLP(4, 2), T=2)
        trainer = pl.Trainer(
            accelerator="cpu", precision=precision, fast_dev_run=True, enable_progress_bar=False,  # type: ignore[arg-type]
            enable_model_summary=False, default_root_dir=tmp_path, logger=False,
        )  # fmt: skip
        samples = torch.utils.data.TensorDataset(torch.zeros(4, 4), torch.tensor([0, 1, 0, 1]))
        trainer.fit(task, torch.utils.data.DataLoader(samples))
        assert ("no instructions for bfloat16" in capsys.readouterr().out) == told
