"""Metrics as CSV, plain progress, pictures, and checkpoints when a run is interrupted."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from jellyfit.backbones import SpikingMLP
from jellyfit.callbacks import InterruptCheckpoint, MetricsCSV, PlainProgress, ProgressBar, SpikePictures, read_metrics
from jellyfit.datamodules import DigitImages
from jellyfit.rng import get_rng_state
from jellyfit.tasks import ClassificationTask

# Lightning's own: it calls what torch has deprecated, and gives advice that the command line leaves out.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


def make_task() -> ClassificationTask:
    torch.manual_seed(0)
    return ClassificationTask(SpikingMLP(64, 10, hidden=[8]), T=3)


def make_trainer(folder: Path, *callbacks: pl.Callback, **settings: Any) -> pl.Trainer:
    return pl.Trainer(
        **{
            "default_root_dir": folder,
            "accelerator": "cpu",
            "max_epochs": 1,
            "limit_train_batches": 2,
            "limit_val_batches": 1,
            "limit_test_batches": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": list(callbacks),
            **settings,
        }
    )


# ------------------------------------------------------------ metrics.csv


def test_what_is_logged_at_one_step_shares_a_row(tmp_path: Path) -> None:
    logger = MetricsCSV(tmp_path / "name/3")
    logger.log_metrics({"epoch": 0, "val/loss": 2.0}, step=9)
    logger.log_metrics({"epoch": 0, "train/loss": 1.5}, step=9)
    logger.log_metrics({"epoch": 1, "train/loss": 1.0}, step=19)
    assert not logger.path.exists()
    logger.save()
    assert logger.path.read_text().splitlines() == [
        "epoch,step,val/loss,train/loss",
        "0,9,2,1.5",
        "1,19,,1",
    ]
    assert read_metrics(logger.path)[1] == {"epoch": 1, "step": 19, "train/loss": 1}
    assert (logger.name, logger.version) == ("name", "3")


def test_rows_before_the_step_gone_on_from_are_kept(tmp_path: Path) -> None:
    first = MetricsCSV(tmp_path)
    for step in (9, 19, 29):
        first.log_metrics({"epoch": step // 10, "loss": step}, step=step)
    first.finalize("success")
    second = MetricsCSV(tmp_path)
    second.log_metrics({"epoch": 1, "loss": -1, "new": 0.5}, step=19)
    second.finalize("success")
    assert read_metrics(tmp_path / "metrics.csv") == [
        {"epoch": 0, "step": 9, "loss": 9},
        {"epoch": 1, "step": 19, "loss": -1, "new": 0.5},
    ]


def test_a_save_that_fails_leaves_the_last_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = MetricsCSV(tmp_path)
    logger.log_metrics({"loss": 1.0}, step=0)
    logger.save()
    before = logger.path.read_text()
    logger.log_metrics({"loss": 2.0}, step=1)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(Path, "replace", _no_space)
        logger.save()
    assert logger.path.read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
    logger.save()
    assert len(read_metrics(logger.path)) == 2


def _no_space(*_: Any) -> None:
    raise OSError("no space")


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.csv") == []


# ------------------------------------------------------------ progress


def test_one_line_an_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer(tmp_path, PlainProgress(), max_epochs=2).fit(make_task(), datamodule=DigitImages())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    for line in lines:
        assert [part.split()[0] for part in line.split("  ")[1:-1]] == [
            "train/loss", "train/accuracy", "val/loss", "val/accuracy",
        ]  # fmt: skip
        assert line.endswith(" s)")


def test_the_bar_shows_the_loss_of_the_epoch_so_far(tmp_path: Path) -> None:
    shown: list[float | None] = []
    losses: list[float] = []

    class Bar(ProgressBar):
        def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
            metrics = super().get_metrics(trainer, pl_module)
            if trainer.training:
                shown.append(metrics["train/loss"])
            return metrics

        def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
            losses.append(float(args[1]["loss"]))
            shown.clear()
            super().on_train_batch_end(trainer, *args)
            means.append(shown[-1])

    means: list[float | None] = []
    task = make_task()
    trainer = make_trainer(tmp_path, Bar(refresh_rate=2), limit_train_batches=5, enable_progress_bar=True)
    trainer.fit(task, datamodule=DigitImages())
    assert means == pytest.approx([losses[0]] * 2 + [sum(losses[:3]) / 3] * 2 + [sum(losses) / 5])
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(sum(losses) / 5)


# ------------------------------------------------------------ pictures


def test_pictures_change_neither_random_numbers_nor_modes(tmp_path: Path) -> None:
    task, callback = make_task(), SpikePictures()
    task.train()
    task.backbone.eval()  # mixed on purpose
    modes = [module.training for module in task.modules()]
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    x = torch.rand(1, 1, 8, 8)
    before = get_rng_state()
    spikes = callback._record(task, x)
    after = get_rng_state()
    assert torch.equal(before.pop("torch"), after.pop("torch"))
    before.pop("cuda"), after.pop("cuda")
    assert before == after
    assert [module.training for module in task.modules()] == modes
    assert spikes
    assert all(values.shape[0] == 3 for values in spikes.values())


def test_pictures_of_fit_and_test(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, SpikePictures(sample=1000))  # beyond the batch: its last one
    task = make_task()
    trainer.fit(task, datamodule=DigitImages())
    names = {path.stem for path in (tmp_path / "pictures").iterdir()}
    assert names == {"spike_raster", "firing_rates", "learning_curves"}
    trainer.test(task, datamodule=DigitImages(), verbose=False)
    names |= {"test_spike_raster", "test_firing_rates", "confusion_matrix"}
    assert {path.stem for path in (tmp_path / "pictures").iterdir()} == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (tmp_path / "pictures").iterdir())


def test_training_is_the_same_with_pictures_in_it(tmp_path: Path) -> None:
    weights = []
    for callbacks in ([], [SpikePictures(every_n_epochs=1)]):
        task = make_task()
        make_trainer(tmp_path, *callbacks, max_epochs=2).fit(task, datamodule=DigitImages())
        weights.append(torch.cat([parameter.detach().flatten() for parameter in task.parameters()]))
    assert torch.equal(*weights)


# ------------------------------------------------------------ interrupted


class _CtrlC(pl.Callback):
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_saves_between_two_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handler = signal.getsignal(signal.SIGINT)
    callback = InterruptCheckpoint(tmp_path / "here")
    trainer = make_trainer(tmp_path, _CtrlC(), callback, limit_train_batches=5, limit_val_batches=0)
    with pytest.raises(SystemExit):
        trainer.fit(make_task(), datamodule=DigitImages())
    assert callback.saved == tmp_path / "here/last.ckpt"
    assert torch.load(callback.saved, weights_only=True)["global_step"] == 2
    assert "press Ctrl-C again to stop at once" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is handler


def test_the_second_ctrl_c_is_pythons_own(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    callback = InterruptCheckpoint(tmp_path)
    strategy = SimpleNamespace(launcher=None)
    connector = SimpleNamespace(cluster_environment=None)
    trainer: Any = SimpleNamespace(strategy=strategy, is_global_zero=True, _accelerator_connector=connector)
    callback.on_train_start(trainer, SimpleNamespace())  # type: ignore[arg-type]
    assert signal.getsignal(signal.SIGINT) == callback._on_signal
    callback._on_signal(signal.SIGINT, None)
    assert signal.getsignal(signal.SIGINT) is handler
    callback.teardown(SimpleNamespace(), SimpleNamespace(), "fit")  # type: ignore[arg-type]


def test_other_errors_save_nothing(tmp_path: Path) -> None:
    class Broken(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise ValueError("broken")

    callback = InterruptCheckpoint(tmp_path / "here")
    with pytest.raises(ValueError, match="broken"):
        make_trainer(tmp_path, callback, Broken()).fit(make_task(), datamodule=DigitImages())
    assert callback.saved is None
    assert not (tmp_path / "here").exists()
