"""Stopping and going on gives the weights, to the bit, of not stopping."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from jellyfit import events, frames
from jellyfit.backbones import SpikingMLP
from jellyfit.callbacks import read_metrics
from jellyfit.datamodules import EventDataModule
from jellyfit.neurons import LIFNode
from jellyfit.tasks import ClassificationTask
from tests.cluster import runs
from tests.conftest import CONFIGS, Cli, start, wait

# Random everywhere: a Poisson encoder draws in training and validation, the order of samples changes every epoch.
SETTINGS = (
    "-c",
    CONFIGS / "digits_fc.yaml",
    "--model.T=4",
    "--data.batch_size=32",
    '--model.scheduler={"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 1, "gamma": 0.5}}',
)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def assert_same_weights(a: Path, b: Path) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("workers", [0, 1])
def test_stopping_after_epoch_2_and_resuming_changes_nothing(cli: Cli, tmp_path: Path, workers: int) -> None:
    settings = (*SETTINGS, f"--data.num_workers={workers}")
    assert cli("fit", *settings, "--name=whole", "--trainer.max_epochs=4").status == 0
    assert cli("fit", *settings, "--name=parts", "--trainer.max_epochs=2").status == 0
    halfway = weights(tmp_path / "runs/parts/0/checkpoints/last.ckpt")
    outcome = cli("fit", *settings, "--name=parts", "--trainer.max_epochs=4", "--ckpt_path=last")
    assert outcome.status == 0, outcome.err
    whole, parts = (tmp_path / f"runs/{name}/0" for name in ("whole", "parts"))
    assert_same_weights(whole / "checkpoints/last.ckpt", parts / "checkpoints/last.ckpt")
    assert not all(
        torch.equal(tensor, halfway[name]) for name, tensor in weights(whole / "checkpoints/last.ckpt").items()
    )
    assert (parts / "metrics.csv").read_text() == (whole / "metrics.csv").read_text(), "one row an epoch, none lost"
    assert [folder.name for folder in (tmp_path / "runs/parts").iterdir()] == ["0"], "goes on in the same run folder"


def test_resuming_from_the_best_checkpoint_starts_a_new_run_folder(cli: Cli, tmp_path: Path) -> None:
    assert cli("fit", *SETTINGS, "--trainer.max_epochs=1").status == 0
    before = (tmp_path / "runs/digits_fc/0/metrics.csv").read_text()
    assert cli("fit", *SETTINGS, "--trainer.max_epochs=2", "--ckpt_path=best").status == 0
    assert (tmp_path / "runs/digits_fc/1/checkpoints/last.ckpt").is_file()
    assert (tmp_path / "runs/digits_fc/0/metrics.csv").read_text() == before


def test_ctrl_c_saves_a_checkpoint_exits_130_and_goes_on_to_the_bit(cli: Cli, tmp_path: Path) -> None:
    settings = (*SETTINGS, "--trainer.max_epochs=3")  # of 32 steps
    process = start(tmp_path, "fit", *settings, "--name=stopped", *runs.callback("SignalAt", step=42))
    outcome = wait(process)
    assert outcome.status == 130, outcome
    assert "Saved runs/stopped/0/checkpoints/last.ckpt. Go on: jellyfit fit" in outcome.out
    assert "Traceback" not in outcome.err
    state = torch.load(tmp_path / "runs/stopped/0/checkpoints/last.ckpt", weights_only=True)
    assert (state["epoch"], state["global_step"]) == (1, 43), "in the middle of an epoch"

    assert cli("fit", *settings, "--name=stopped", "--ckpt_path=last").status == 0
    assert cli("fit", *settings, "--name=whole").status == 0
    assert_same_weights(
        tmp_path / "runs/whole/0/checkpoints/last.ckpt", tmp_path / "runs/stopped/0/checkpoints/last.ckpt"
    )
    stopped, whole = (tmp_path / f"runs/{name}/0/metrics.csv" for name in ("stopped", "whole"))
    assert stopped.read_text() == whole.read_text(), "the training loss is that of the whole epoch"


STEPS = """{"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 5, "gamma": 0.9}}"""
SCALER = """{"class_path": "lightning.pytorch.plugins.MixedPrecision", "init_args": {"precision": "16-mixed",
    "device": "cpu", "scaler": {"class_path": "torch.amp.GradScaler", "init_args":
    {"device": "cpu", "init_scale": 256.0, "growth_interval": 5}}}}"""
PLATEAU = """{"class_path": "lightning.pytorch.cli.ReduceLROnPlateau", "init_args":
    {"monitor": "val/loss", "patience": 0, "threshold": 10.0}}"""


@pytest.mark.filterwarnings("error", "ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
@pytest.mark.parametrize(
    "settings",
    [
        ("--model.backbone.dropout=0.3", "--data.draws=true"),
        ("--model.backbone.dropout=0.3", "--data.draws=true", "--data.num_workers=1"),
        (f"--model.scheduler={STEPS}", "--model.scheduler_interval=step"),
        (f"--model.scheduler={PLATEAU}",),
        ("--trainer.accumulate_grad_batches=4",),
        ("--trainer.precision=bf16-mixed", "--model.backbone.dropout=0.3"),
        (f"--trainer.plugins={SCALER}",),
        ("--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping", "--trainer.callbacks.monitor=val/loss"),
        ("--trainer.check_val_every_n_epoch=2",),
        ("--trainer.val_check_interval=5",),
    ],
    ids=["draws", "worker", "by step", "plateau", "accumulated", "bf16", "scaler", "early stopping", "val 2", "val 5"],
)
def test_a_run_stopped_within_an_epoch_ends_as_one_that_was_not(
    cli: Cli, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    (tmp_path / "small.yaml").write_text(runs.SMALL)
    fit = ("fit", "-c", "small.yaml", *settings)
    assert cli(*fit, "--name=whole").status == 0
    for step in (14, 23):  # in the middle of the second epoch, and in its last batch
        stop = runs.callback("SignalAt", step=step, once=f"sent-{step}")
        stopped = cli(*fit, f"--name=at-{step}", *stop)
        assert stopped.status == 130, stopped
        assert runs.last(tmp_path, f"at-{step}")["global_step"] < runs.last(tmp_path, "whole")["global_step"]
        again = cli(*fit, f"--name=at-{step}", "--ckpt_path=last")
        assert again.status == 0, again.err
        runs.assert_same_state(runs.last(tmp_path, "whole"), runs.last(tmp_path, f"at-{step}"))
        precision = [runs.last(tmp_path, name).get("MixedPrecision") for name in ("whole", f"at-{step}")]
        assert precision[0] == precision[1]
        assert (precision[0] is not None) == ("GradScaler" in settings[0]), "the state of the scaler of gradients"
        assert runs.last(tmp_path, "whole")["lr_schedulers"] == runs.last(tmp_path, f"at-{step}")["lr_schedulers"]
        assert runs.metrics(tmp_path, "whole") == runs.metrics(tmp_path, f"at-{step}")


def test_a_run_stopped_in_validation_ends_as_one_that_was_not(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(runs.SMALL)
    fit = ("fit", "-c", "small.yaml", "--model.backbone.dropout=0.3", "--data.batch_size=4")
    assert cli(*fit, "--name=whole").status == 0
    assert cli(*fit, "--name=parts", *runs.callback("SignalAt", step=1, validation="true")).status == 130
    assert cli(*fit, "--name=parts", "--ckpt_path=last").status == 0
    runs.assert_same_state(runs.last(tmp_path, "whole"), runs.last(tmp_path, "parts"))
    assert runs.metrics(tmp_path, "whole") == runs.metrics(tmp_path, "parts")


@pytest.mark.parametrize("validation", ["--trainer.check_val_every_n_epoch=1", "--trainer.check_val_every_n_epoch=2"])
def test_a_checkpoint_of_the_last_step_of_an_epoch_goes_on_with_its_end(
    cli: Cli, tmp_path: Path, validation: str
) -> None:
    (tmp_path / "small.yaml").write_text(runs.SMALL)
    every = ("--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint", "--trainer.callbacks.save_top_k=-1")
    every = (*every, "--trainer.callbacks.every_n_train_steps=12", "--trainer.callbacks.filename={step}")
    fit = ("fit", "-c", "small.yaml", *every, "--model.backbone.dropout=0.3", validation)  # 12 steps an epoch
    assert cli(*fit, "--name=whole", "--trainer.callbacks.dirpath=whole").status == 0
    for step in (12, 24):
        again = (f"--name=from-{step}", "--trainer.callbacks.dirpath=parts", f"--ckpt_path=whole/step={step}.ckpt")
        assert cli(*fit, *again).status == 0
        assert_same_weights(tmp_path / "whole/step=36.ckpt", tmp_path / "parts/step=36.ckpt")
        whole, parts = runs.rows(tmp_path, "whole"), runs.rows(tmp_path, f"from-{step}")
        assert parts == whole[-len(parts) :]
        assert len(parts) == 3 - (step // 12 - 1), "the end of the epoch of the checkpoint is made up for"


def test_going_on_from_a_checkpoint_of_every_few_steps(cli: Cli, tmp_path: Path) -> None:
    every = (
        "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint",
        "--trainer.callbacks.every_n_train_steps=10",
        "--trainer.callbacks.save_top_k=-1",
    )
    settings = (*SETTINGS, *every, "--trainer.max_epochs=2")  # of 32 steps
    assert cli("fit", *settings, "--name=whole", "--trainer.callbacks.dirpath=whole").status == 0
    for part in ("epoch=0-step=20", "epoch=1-step=40"):
        again = ("--trainer.callbacks.dirpath=parts", f"--ckpt_path=whole/{part}.ckpt")
        assert cli("fit", *settings, "--name=parts", *again).status == 0
        assert_same_weights(tmp_path / "whole/epoch=1-step=60.ckpt", tmp_path / "parts/epoch=1-step=60.ckpt")
        runs = [tmp_path / f"runs/{name}" for name in ("whole", "parts")]
        rows = [read_metrics(sorted(run.iterdir())[-1] / "metrics.csv") for run in runs]
        assert rows[1] == rows[0][-len(rows[1]) :], "losses of the whole epoch"


class Specks(EventDataModule):
    """Twelve recordings of noise, made up on the spot."""

    sensor_size = (8, 8)
    classes = ("a", "b")

    def samples(self, split: str) -> list[tuple[str, int, int]]:
        return [(f"{split}-{i}", i, i % 2) for i in range(12)]

    def read(self, source: int) -> events.EventArray:
        draws = np.random.default_rng(source)
        x, y, p = draws.integers(0, 8, 60), draws.integers(0, 8, 60), draws.integers(0, 2, 60)
        return events.make_events(np.sort(draws.integers(0, 900, 60)), x, y, p)


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning", "ignore:.*does not have many workers.*")
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("workers", [0, 1])
def test_augmented_runs_go_on_to_the_bit_after_an_epoch_and_within_one(tmp_path: Path, workers: int) -> None:
    def run(folder: str, workers: int, seed: int = 0, resume: Path | None = None) -> Path:
        torch.manual_seed(0)
        data = Specks(
            "nowhere",
            events.FixedNumber(T=3),
            batch_size=2,
            num_workers=workers,
            seed=seed,
            event_transforms=[events.EventMix(), events.EventDrop()],
            frame_transforms=[frames.RandomCrop(1)],
            batch_transforms=[frames.Mixup()],
        )
        callback = ModelCheckpoint(tmp_path / folder, "{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = pl.Trainer(
            default_root_dir=tmp_path,
            accelerator="cpu",
            max_epochs=2,
            logger=False,
            callbacks=[callback],
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        task = ClassificationTask(SpikingMLP(128, 2, neuron=LIFNode(backend="torch")))
        trainer.fit(task, datamodule=data, ckpt_path=resume)
        return tmp_path / folder / "step=12.ckpt"

    whole = run("whole", 0)
    for step in (4, 6, 9):  # within the first epoch, after it, within the second
        resumed = run(f"from-{step}", workers, resume=tmp_path / f"whole/step={step}.ckpt")
        assert_same_weights(whole, resumed)
    different = run("other", 0, seed=1)
    with pytest.raises(AssertionError):
        assert_same_weights(whole, different)
