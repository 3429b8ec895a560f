"""Averages of weights: the recurrence, where they are used, and what checkpoints hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor

from jellyfit.backbones import SpikingConvNet
from jellyfit.callbacks import EMAWeights, InterruptCheckpoint
from jellyfit.datamodules import DigitImages
from jellyfit.errors import ConfigError
from jellyfit.tasks import ClassificationTask
from tests.callbacks.test_callbacks import make_trainer
from tests.conftest import CONFIGS, Cli, start, wait

# Lightning's own: it calls what torch has deprecated, and gives advice that the command line leaves out.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


class Images(DigitImages):
    """Scans as frames ``[1, 8, 8]``."""

    def collate(self, samples: Any) -> Any:
        batch = super().collate(samples)
        return batch._replace(x=batch.x.reshape(len(batch.x), 1, 8, 8))


class Watch(pl.Callback):
    """The network's state after every step, and in every validation."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []
        self.validated: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.steps.append(copy_of(pl_module.state_dict()))

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.validated.append(copy_of(pl_module.state_dict()))


def copy_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


@pytest.fixture
def task() -> Iterator[ClassificationTask]:
    torch.manual_seed(0)
    yield ClassificationTask(
        SpikingConvNet((1, 8, 8), 10, channels=[3]), T=2, optimizer=lambda ps: torch.optim.SGD(ps, lr=0.5)
    )


def averaged(states: list[dict[str, Tensor]], decay: float, warmup: bool) -> dict[str, Tensor]:
    """The recurrence, in float64."""
    average = {name: value.double() for name, value in states[0].items()}
    for n, state in enumerate(states[1:], 1):
        d = min(decay, (1 + n) / (10 + n)) if warmup else decay
        for name, value in state.items():
            average[name] = d * average[name] + (1 - d) * value if value.is_floating_point() else value.double()
    return average


def assert_same(state: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 0.0) -> None:
    assert state.keys() == expected.keys()
    for name, value in state.items():
        torch.testing.assert_close(value.double(), expected[name].double(), rtol=rtol, atol=rtol / 10, msg=name)


@pytest.mark.parametrize(("decay", "warmup"), [(0.9, False), (0.9999, True), (0.25, True), (0.0, False)])
def test_checkpoints_validation_and_the_fitted_task_have_the_averages(
    tmp_path: Path, task: ClassificationTask, decay: float, warmup: bool
) -> None:
    watch, ema = Watch(), EMAWeights(decay, warmup)
    trainer = make_trainer(tmp_path, ema, watch, limit_train_batches=3, max_epochs=2)
    trainer.fit(task, datamodule=Images())
    expected = averaged(watch.steps, decay, warmup)
    assert_same(task.state_dict(), expected, rtol=1e-5)
    assert_same(watch.validated[0], averaged(watch.steps[:3], decay, warmup), rtol=1e-5)
    assert_same(watch.validated[-1], expected, rtol=1e-5)
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    checkpoint = torch.load(tmp_path / "after.ckpt", weights_only=True)
    assert_same(checkpoint["state_dict"], task.state_dict())
    assert_same(checkpoint["current_model_state"], watch.steps[-1])
    number = "backbone.conv.0.1.num_batches_tracked"
    assert checkpoint["state_dict"][number] == 6, "integers are copied"
    if decay:
        name = "backbone.conv.0.0.weight"
        assert not torch.equal(checkpoint["state_dict"][name], checkpoint["current_model_state"][name])


def test_averages_are_made_every_so_many_steps(tmp_path: Path, task: ClassificationTask) -> None:
    watch = Watch()
    trainer = make_trainer(tmp_path, EMAWeights(0.5, warmup=False, every=2), watch, limit_train_batches=6)
    trainer.fit(task, datamodule=Images())
    assert_same(task.state_dict(), averaged(watch.steps[1::2], 0.5, False), rtol=1e-5)


def test_an_interrupt_in_validation_keeps_weights_and_averages_apart(tmp_path: Path, task: ClassificationTask) -> None:
    class Stop(Watch):
        def on_validation_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if not trainer.sanity_checking:
                raise KeyboardInterrupt

    stop, interrupt = Stop(), InterruptCheckpoint(tmp_path)
    trainer = make_trainer(tmp_path, EMAWeights(0.9), stop, interrupt, limit_train_batches=3)
    with suppress(SystemExit, KeyboardInterrupt):
        trainer.fit(task, datamodule=Images())
    assert interrupt.saved is not None
    checkpoint = torch.load(interrupt.saved, weights_only=True)
    assert_same(checkpoint["current_model_state"], stop.steps[-1])
    assert_same(checkpoint["state_dict"], averaged(stop.steps, 0.9, True), rtol=1e-5)


SETTINGS = (
    "-c",
    CONFIGS / "digits_fc.yaml",
    "--model.T=4",
    '--trainer.callbacks={"class_path": "jellyfit.callbacks.EMAWeights", "init_args": {"decay": 0.99}}',
    # a schedule and groups of ours: they are resumed to the bit as well
    '--model.scheduler={"class_path": "jellyfit.schedules.WarmupCosine", "init_args": {"total": 70, "warmup": 30}}',
    "--model.scheduler_interval=step",
    '--model.parameter_groups={"class_path": "jellyfit.parameter_groups.ParameterGroups", '
    '"init_args": {"layer_decay": 0.5, "lr_scales": {"*.weight": 2.0}}}',
)


def test_resuming_goes_on_to_the_bit_and_a_test_uses_the_averages(cli: Cli, tmp_path: Path) -> None:
    assert cli("fit", *SETTINGS, "--name=whole", "--trainer.max_epochs=3").status == 0
    assert cli("fit", *SETTINGS, "--name=parts", "--trainer.max_epochs=2").status == 0
    outcome = cli("fit", *SETTINGS, "--name=parts", "--trainer.max_epochs=3", "--ckpt_path=last")
    assert outcome.status == 0, outcome.err
    whole, parts = (
        torch.load(tmp_path / f"runs/{name}/0/checkpoints/last.ckpt", weights_only=True) for name in ("whole", "parts")
    )
    for part in ("state_dict", "current_model_state", "averaging_state"):
        assert whole[part].keys() == parts[part].keys()
        for name, value in whole[part].items():
            assert torch.equal(value, parts[part][name]), (part, name)
    metrics = [(tmp_path / f"runs/{name}/0/metrics.csv").read_text() for name in ("whole", "parts")]
    assert metrics[0] == metrics[1]

    tested = cli("test", *SETTINGS, "--name=whole", "--ckpt_path=last")
    assert tested.status == 0 and "WeightAveraging" not in tested.err, tested.err
    plain = (*SETTINGS[:3], "--trainer.callbacks=null", "--ckpt_path=last", "--name=whole")
    accuracy = next(line for line in tested.out.splitlines() if line.startswith("test/accuracy:"))
    assert accuracy in cli("test", *plain).out, "the weights of the file are the averages"
    swapped = {**whole, "state_dict": whole["current_model_state"]}
    torch.save(swapped, tmp_path / "trained.ckpt")
    loss = next(line for line in tested.out.splitlines() if line.startswith("test/loss:"))
    assert loss not in cli("test", *SETTINGS, "--ckpt_path=trained.ckpt").out


def test_a_task_that_makes_its_layers_late_is_averaged_without_a_warning(tmp_path: Path) -> None:
    class Late(ClassificationTask):
        def configure_model(self) -> None:
            """Lightning's callback warns of whoever has this."""

    task = Late(SpikingConvNet((1, 8, 8), 10, channels=[3]), T=2)
    make_trainer(tmp_path, EMAWeights(0.5)).fit(task, datamodule=Images())


def test_weights_in_parts_are_refused(task: ClassificationTask) -> None:
    trainer = SimpleNamespace(strategy=ModelParallelStrategy())
    with pytest.raises(ConfigError, match="ModelParallelStrategy cuts weights into parts.*ddp"):
        EMAWeights().setup(trainer, task, "fit")  # type: ignore[arg-type]


@pytest.mark.slow
def test_two_processes_have_the_same_averages(tmp_path: Path) -> None:
    two = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_epochs=2")
    outcome = wait(start(tmp_path, "fit", *SETTINGS, "--model.encoder=null", *two, OMP_NUM_THREADS="1"))
    assert outcome.status == 0, outcome.err
    assert "WeightAveraging" not in outcome.err
    checkpoint = torch.load(tmp_path / "runs/digits_fc/0/checkpoints/last.ckpt", weights_only=True)
    assert int(checkpoint["averaging_state"]["n_averaged"]) == checkpoint["global_step"]
    tested = wait(start(tmp_path, "test", *SETTINGS, "--model.encoder=null", *two[:3], "--ckpt_path=last"))
    assert tested.status == 0 and "test/accuracy" in tested.out, tested.err


@pytest.mark.parametrize(("settings", "words"), [({"decay": 1.0}, "decay=1.0"), ({"every": 0}, "every=0")])
def test_settings_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        EMAWeights(**settings)
