"""What each verb prints and writes."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch

import jellyfit
from jellyfit.callbacks import read_metrics
from jellyfit.errors import ConfigError
from jellyfit.tasks import ClassificationTask, SpikingTask
from tests.conftest import CONFIGS, Cli, start, wait

FC = ("-c", CONFIGS / "digits_fc.yaml", "--model.T=2", "--trainer.max_epochs=1")
RUN = Path("runs/digits_fc/0")


def succeed(cli: Cli, *arguments: object) -> str:
    outcome = cli(*arguments)
    assert outcome.status == 0, outcome.err
    assert "Traceback" not in outcome.err
    return outcome.out


def test_fit_fills_a_run_folder_and_the_next_fit_another(cli: Cli, tmp_path: Path) -> None:
    out = succeed(cli, "fit", *FC)
    run = tmp_path / RUN
    assert {path.name for path in run.iterdir()} == {
        "config.yaml", "metrics.csv", "checkpoints", "pictures", "tensorboard",
    }  # fmt: skip
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert {path.name for path in (run / "pictures").iterdir()} == {
        "firing_rates.png", "learning_curves.png", "spike_raster.png",
    }  # fmt: skip
    assert any((run / "tensorboard").glob("events.out.tfevents.*"))
    assert (run / "config.yaml").read_text().startswith(f"# jellyfit=={jellyfit.__version__}")
    (row,) = read_metrics(run / "metrics.csv")
    assert row["epoch"] == 0
    assert {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "firing_rate/"} <= {
        name[: len("firing_rate/")] if name.startswith("firing_rate/") else name for name in row
    }
    assert f"Run folder: {RUN}" in out
    assert f"Best val/accuracy: {row['val/accuracy']:.4f}" in out
    assert "epoch 1/1  train/loss" in out

    before = (run / "metrics.csv").read_bytes()
    succeed(cli, "fit", *FC)
    assert sorted(path.name for path in run.parent.iterdir()) == ["0", "1"]
    assert (run / "metrics.csv").read_bytes() == before
    assert (run.parent / "1/metrics.csv").read_bytes() == before, "the same seed gives the same numbers"
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_the_written_config_runs_again(cli: Cli, tmp_path: Path) -> None:
    succeed(cli, "fit", *FC, "--name=a")
    succeed(cli, "fit", "-c", "runs/a/0/config.yaml", "--name=b")
    first, second = (tmp_path / f"runs/{name}/0/metrics.csv" for name in "ab")
    assert first.read_text() == second.read_text()


def test_test_validate_and_predict_use_the_trained_weights(cli: Cli, tmp_path: Path) -> None:
    succeed(cli, "fit", *FC)
    config = (tmp_path / RUN / "config.yaml").read_text()

    out = succeed(cli, "test", *FC, "--ckpt_path=best")
    assert "Note" not in out
    (row,) = read_metrics(tmp_path / RUN / "test_metrics.csv")
    assert f"test/accuracy: {row['test/accuracy']:.4f}" in out
    assert f"test/loss: {row['test/loss']:.4f}" in out
    for name in ("confusion_matrix", "test_spike_raster", "test_firing_rates"):
        assert (tmp_path / RUN / f"pictures/{name}.png").stat().st_size > 1000

    out = succeed(cli, "validate", *FC, "--ckpt_path=best")
    (row,) = read_metrics(tmp_path / RUN / "validate_metrics.csv")
    assert f"val/accuracy: {row['val/accuracy']:.4f}" in out

    out = succeed(cli, "predict", *FC, "--ckpt_path=best")
    assert f"Predictions: {RUN}/predictions.csv" in out
    with (tmp_path / RUN / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"digit-{i:05d}" for i in range(1200, 1797)]
    assert list(rows[0]) == ["id", "prediction", "label", "score", *(f"score_{i}" for i in range(10))]
    for row in rows:
        scores = [float(row[f"score_{i}"]) for i in range(10)]
        assert scores[int(row["prediction"])] == float(row["score"]) == max(scores)

    assert [path.name for path in (tmp_path / "runs/digits_fc").iterdir()] == ["0"], "all in the checkpoint's run"
    assert (tmp_path / RUN / "config.yaml").read_text() == config
    assert not list((tmp_path / RUN).glob("config-*.yaml"))


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_without_a_checkpoint_a_note_says_so(cli: Cli, tmp_path: Path, verb: str) -> None:
    out = succeed(cli, verb, *FC)
    assert "Note: no --ckpt_path given: the network has its initial, untrained weights" in out


def test_settings_given_win_over_the_checkpoints_and_a_note_names_the_key(cli: Cli, tmp_path: Path) -> None:
    succeed(cli, "fit", *FC)
    out = succeed(cli, "test", *FC, "--model.backbone.neuron.tau=3", "--ckpt_path=best")
    assert "Note: " in out
    assert "backbone.neuron.tau: 2.0 then, 3.0 now" in out
    assert "runs/digits_fc/0/config.yaml has the old ones" in out
    changed = read_metrics(tmp_path / RUN / "test_metrics.csv")
    out = succeed(cli, "test", *FC, "--ckpt_path=best")
    assert "Note" not in out
    assert read_metrics(tmp_path / RUN / "test_metrics.csv") != changed, "tau=3 was used"


def test_a_task_loads_from_its_checkpoint_alone(cli: Cli, tmp_path: Path) -> None:
    succeed(cli, "fit", *FC)
    path = tmp_path / RUN / "checkpoints/best.ckpt"
    saved = torch.load(path, weights_only=True)["state_dict"]
    task = ClassificationTask.load_from_checkpoint(path, map_location="cpu")
    assert task.T == 2
    assert all(torch.equal(saved[name], tensor) for name, tensor in task.state_dict().items())
    task.eval()
    assert task(torch.rand(3, 1, 8, 8)).shape == (2, 3, 10)


def test_no_logger_still_gives_a_run_folder_and_nothing_beside_it(cli: Cli, tmp_path: Path) -> None:
    for version in "01":
        succeed(cli, "fit", *FC, "--trainer.logger=false")
        run = tmp_path / "runs/digits_fc" / version
        assert {path.name for path in run.iterdir()} == {"config.yaml", "checkpoints", "pictures"}
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_logger_of_ones_own_writes_into_the_run_folder(cli: Cli, tmp_path: Path) -> None:
    logger = (
        '{"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": {"save_dir": ".", "name": "mine"}}'
    )
    succeed(cli, "fit", *FC, f"--trainer.logger={logger}")
    assert (tmp_path / RUN / "mine").is_dir()
    assert (tmp_path / RUN / "metrics.csv").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize("name", ["TensorBoardLogger", "lightning.pytorch.loggers.TensorBoardLogger"])
def test_a_logger_named_on_the_command_line(cli: Cli, tmp_path: Path, name: str) -> None:
    logger = (f"--trainer.logger={name}", "--trainer.logger.save_dir=.", "--trainer.logger.name=mine")
    succeed(cli, "fit", *FC, *logger)
    assert any((tmp_path / RUN / "mine").rglob("events.out.tfevents.*"))
    assert (tmp_path / RUN / "metrics.csv").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_wandb_offline_writes_into_the_run_folder_and_nowhere_else(tmp_path: Path) -> None:
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    work.mkdir()
    logger = "lightning.pytorch.loggers.WandbLogger"
    (work / "wandb.yaml").write_text(f"trainer: {{logger: {{class_path: {logger}, init_args: {{project: digits}}}}}}\n")
    forms = (("-c", "wandb.yaml"), ("--trainer.logger=WandbLogger", "--trainer.logger.project=digits"))
    environment = {f"WANDB_{name}_DIR": str(elsewhere) for name in ("CACHE", "CONFIG", "DATA")}
    for version, form in enumerate(forms):
        outcome = wait(start(work, "fit", *FC, *form, WANDB_MODE="offline", **environment))
        assert outcome.status == 0, outcome.err
        assert "Traceback" not in outcome.err
        run = work / f"runs/digits_fc/{version}"
        assert {path.name for path in run.iterdir()} == {
            "config.yaml", "metrics.csv", "checkpoints", "pictures", "wandb",
        }  # fmt: skip
        (log,) = (run / "wandb").glob("offline-run-*/run-*.wandb")
        for name in read_metrics(run / "metrics.csv")[0]:
            assert name.encode() in log.read_bytes()
        assert f"class_path: {logger}" in (run / "config.yaml").read_text()
    assert sorted(path.name for path in work.iterdir()) == ["runs", "wandb.yaml"]


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_fast_dev_run_writes_nothing(cli: Cli, tmp_path: Path, verb: str) -> None:
    succeed(cli, verb, *FC, "--trainer.fast_dev_run=true", "--trainer.callbacks=null")
    assert list(tmp_path.iterdir()) == []


def test_early_stopping_from_the_command_line(cli: Cli, tmp_path: Path) -> None:
    stop = (
        "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping",
        "--trainer.callbacks.monitor=val/accuracy",
        "--trainer.callbacks.mode=max",
        "--trainer.callbacks.stopping_threshold=0.0",
    )
    succeed(cli, "fit", *FC[:3], "--trainer.max_epochs=5", *stop)
    assert len(read_metrics(tmp_path / RUN / "metrics.csv")) == 1, "stopped after the first epoch"
    assert (tmp_path / RUN / "pictures/spike_raster.png").is_file(), "callbacks+ keeps those of the file"


def test_a_checkpoint_callback_of_ones_own_replaces_the_default_ones(cli: Cli, tmp_path: Path) -> None:
    own = (
        "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint",
        "--trainer.callbacks.dirpath=mine",
        "--trainer.callbacks.filename=own",
    )
    succeed(cli, "fit", *FC, *own)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["own.ckpt"]
    assert not (tmp_path / RUN / "checkpoints").exists()


def test_name_and_runs_choose_the_place(cli: Cli, tmp_path: Path) -> None:
    succeed(cli, "fit", *FC, "--name=mine", "--runs=elsewhere")
    assert (tmp_path / "elsewhere/mine/0/metrics.csv").is_file()
    outcome = cli("test", *FC, "--name=mime", "--runs=elsewhere", "--ckpt_path=best")
    assert outcome.status == 2
    assert "Runs under elsewhere: mine" in outcome.err


def test_a_class_from_the_working_folder(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_task.py").write_text(
        "from jellyfit.losses import RateCrossEntropy\n"
        "from jellyfit.tasks import ClassificationTask\n\n"
        "class MyTask(ClassificationTask):\n"
        "    def configure_loss(self):\n"
        "        return RateCrossEntropy(label_smoothing=0.1)\n"
    )
    text = (CONFIGS / "digits_fc.yaml").read_text().replace("jellyfit.tasks.ClassificationTask", "my_own_task.MyTask")
    (tmp_path / "mine.yaml").write_text(text.replace("    loss: {class_path: jellyfit.losses.RateMSE}\n", ""))
    succeed(cli, "fit", "-c", "mine.yaml", *FC[2:])
    from my_own_task import MyTask  # type: ignore[import-not-found]

    path = tmp_path / "runs/mine/0/checkpoints/last.ckpt"
    for base in (MyTask, ClassificationTask, SpikingTask):
        task = base.load_from_checkpoint(path, map_location="cpu")
        assert type(task) is MyTask
        assert task.loss.label_smoothing == 0.1
    assert MyTask.load_from_checkpoint(str(path), log_firing_rates=False).log_firing_rates is False
    with path.open("rb") as file:
        assert type(MyTask.load_from_checkpoint(file)) is MyTask

    class Another(ClassificationTask):
        pass

    with pytest.raises(ConfigError, match=r"class my_own_task\.MyTask, which is not a subclass of Another"):
        Another.load_from_checkpoint(path)
    monkeypatch.delitem(sys.modules, "my_own_task")
    with pytest.raises(ConfigError, match=r"which is not imported\. Import it \(from my_own_task import MyTask\)"):
        ClassificationTask.load_from_checkpoint(path)


def test_print_config_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    out = succeed(cli, "fit", *FC, "--print_config")
    assert "class_path: jellyfit.tasks.ClassificationTask" in out
    assert list(tmp_path.iterdir()) == []


def test_version_help_and_doctor(cli: Cli, tmp_path: Path) -> None:
    assert succeed(cli, "--version") == f"jellyfit {jellyfit.__version__}\n"
    for arguments in ((), ("--help",), ("-h",), ("help",)):
        out = succeed(cli, *arguments)
        for verb in ("fit", "validate", "test", "predict", "doctor"):
            assert f"\n  {verb} " in out
    report = succeed(cli, "doctor")
    for heading in ("Packages", "Devices", "Neuron backends", "Compiled event code", "Places"):
        assert f"\n{heading}\n" in report
    assert list(tmp_path.iterdir()) == []


def test_help_of_a_verb(cli: Cli) -> None:
    out = succeed(cli, "fit", "--help")
    for key in ("--name", "--runs", "--ckpt_path", "--trainer.max_epochs", "--model.help"):
        assert key in out
