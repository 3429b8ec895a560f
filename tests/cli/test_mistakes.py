"""A mistake in the command or the configuration: one line, status 2, nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import CONFIGS, Cli

FC = ("-c", CONFIGS / "digits_fc.yaml", "--model.T=2", "--trainer.max_epochs=1")
NEURON = "--model.backbone.neuron"
CALLBACKS = "lightning.pytorch.callbacks"


def assert_one_line(outcome: Any, *words: str) -> None:
    assert outcome.status == 2, outcome
    lines = outcome.err.strip().splitlines()
    assert len(lines) == 1, outcome.err
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model.backbon=x",), ("model.init_args.backbon", "did you mean 'backbone'")),
        ((f"{NEURON}.tau=two",), ("neuron.init_args.tau", "expected float", "'two'")),
        ((f"{NEURON}.tau=0.5",), ("LIFNode(tau=0.5)", "above 1")),
        ((f"{NEURON}=jellyfit.neurons.LIFNod",), ("LIFNod", "did you mean 'jellyfit.neurons.LIFNode'")),
        ((f"{NEURON}=jellyfit.neuron.LIFNode",), ("jellyfit has no 'neuron'", "jellyfit.neurons.LIFNode")),
        ((f"{NEURON}=jelyfit.neurons.LIFNode",), ("no module 'jelyfit'", "did you mean 'jellyfit'")),
        ((f"{NEURON}=torch.nn.Linear",), ("neuron", "Linear", "not a subclass of")),
        (("--trainer.max_epoch=3",), ("trainer.max_epoch", "did you mean 'max_epochs'")),
        (("--trainer.max_epochs=x",), ("trainer.max_epochs", "expected", "int", "'x'")),
        (("--dat.batch_size=3",), ("unknown key 'dat'", "did you mean 'data'")),
        (("--data.batch_size=0",), ("batch_size=0", "at least 1")),
        (("--data.num_workers=-1",), ("num_workers=-1",)),
        (("--model.T=0",), ("model.init_args.T=0", "at least 1 time step")),
        (("--model.optimizer.lrr=0.1",), ("lrr", "did you mean 'lr'")),
        (("--model.optimizer=torch.optim.Adamm",), ("Adamm", "did you mean 'torch.optim.Adam'")),
        (("--model.scheduler_interval=day",), ("scheduler_interval", "'epoch' or 'step'", "'day'")),
        (
            ("--trainer.logger=TensorBoardLogger", "--trainer.logger.name=mine"),
            ("trainer.logger.init_args.save_dir: missing", "TensorBoardLogger needs it", "save_dir=. stands for"),
        ),
        (
            ("--trainer.logger=TensorBoardLoger", "--trainer.logger.name=mine"),
            ("no class 'TensorBoardLoger'", "did you mean 'TensorBoardLogger'"),
        ),
        (
            ("--trainer.logger=lightning.pytorch.loggers.WandbLoger", "--trainer.logger.project=mine"),
            ("trainer.logger:", "did you mean 'lightning.pytorch.loggers.WandbLogger'"),
        ),
        (("--trainer.logger=maybe",), ("trainer.logger", "expected a Logger", "bool", "'maybe'")),
        (
            ("--trainer.logger=CSVLogger", "--trainer.logger.save_dir=.", "--trainer.logger+=CSVLogger"),
            ("trainer.logger[1].init_args.save_dir: missing",),
        ),
        (
            (f"--trainer.callbacks+={CALLBACKS}.EarlyStopping", "--trainer.callbacks.monitr=val/loss"),
            ("trainer.callbacks[1].init_args.monitr", "did you mean 'monitor'"),
        ),
        (
            (f"--trainer.callbacks+={CALLBACKS}.EarlyStoping", "--trainer.callbacks.monitor=val/loss"),
            ("trainer.callbacks[1]", f"did you mean '{CALLBACKS}.EarlyStopping'"),
        ),
        (("--model.backbone.hidden=[3,a]",), ("backbone.init_args.hidden[1]", "expected int", "'a'")),
        ((f"{NEURON}.v_threshold=0.5x",), ("v_threshold", "expected float", "'0.5x'")),
        (("--ckpt_path=last",), ("--ckpt_path last", "runs/digits_fc", "Train first")),
        (("--ckpt_path=best",), ("--ckpt_path best", "runs/digits_fc", "Train first")),
        (("--ckpt_path=nowhere.ckpt",), ("--ckpt_path nowhere.ckpt", "no such file")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) and str(value[0]).startswith("--") else "",
)
def test_a_mistake_is_told_in_one_line(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    assert_one_line(cli("fit", *FC, *arguments), "jellyfit fit: error:", *words)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_config_file_names_the_one_that_is_near(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("trainer: {}\n")
    assert_one_line(cli("fit", "-c", "mime.yaml"), "no config file 'mime.yaml'", "did you mean 'mine.yaml'")
    assert_one_line(cli("fit", "--config=mime.yaml"), "no config file 'mime.yaml'", "did you mean 'mine.yaml'")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_invalid_yaml_is_told_with_its_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("model:\n  class_path: [a\ndata: {}\n")
    assert_one_line(cli("fit", "-c", "bad.yaml"), "bad.yaml, line 3", "not valid YAML")


def test_a_config_that_is_no_mapping(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("- 1\n- 2\n")
    assert_one_line(cli("fit", "-c", "bad.yaml"), "bad.yaml", "expected keys and values")


def test_a_mistake_in_a_file_is_told_like_one_in_an_argument(cli: Cli, tmp_path: Path) -> None:
    text = (CONFIGS / "digits_fc.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("in_features", "in_feature"))
    assert_one_line(cli("fit", "-c", "mine.yaml"), "backbone.init_args.in_feature", "did you mean 'in_features'")
    (tmp_path / "mine.yaml").write_text(text.replace("max_epochs", "max_epoch"))
    assert_one_line(cli("fit", "-c", "mine.yaml"), "trainer.max_epoch", "did you mean 'max_epochs'")


def test_no_model(cli: Cli, tmp_path: Path) -> None:
    assert_one_line(cli("fit"), "no model given", "-c FILE")
    assert list(tmp_path.iterdir()) == []


def test_too_few_frames(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("fit", "-c", CONFIGS / "digits.yaml", "--data.frames.T=0")
    assert_one_line(outcome, "T", "0")
    assert list(tmp_path.iterdir()) == []


def test_unknown_verb(cli: Cli) -> None:
    outcome = cli("fti")
    assert outcome.status == 2
    assert "unknown verb 'fti'; did you mean 'fit'?" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_abbreviations_are_refused_by_every_verb(cli: Cli, verb: str) -> None:
    assert_one_line(cli(verb, *FC[:2], "--trainer.limit_test_batche=1"), "did you mean 'limit_test_batches'")


def test_a_file_that_is_no_checkpoint(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.ckpt").write_bytes(b"these are not weights")
    outcome = cli("test", *FC, "--ckpt_path=mine.ckpt")
    assert_one_line(outcome, "mine.ckpt", "not a checkpoint")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.ckpt"]


def test_a_torch_file_that_is_no_checkpoint(cli: Cli, tmp_path: Path) -> None:
    for content in ([1, 2], {"weight": torch.zeros(2)}):
        torch.save(content, tmp_path / "mine.ckpt")
        assert_one_line(cli("test", *FC, "--ckpt_path=mine.ckpt"), "mine.ckpt", "not a checkpoint")


def test_a_folder_as_checkpoint(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert_one_line(cli("test", *FC, "--ckpt_path=mine"), "--ckpt_path mine", "folder")


def test_a_checkpoint_of_another_architecture(cli: Cli, tmp_path: Path) -> None:
    assert cli("fit", *FC).status == 0
    files = sorted(tmp_path.rglob("*"))
    outcome = cli("test", *FC, "--model.backbone.hidden=[20]", "--ckpt_path=best")
    assert_one_line(outcome, "best.ckpt does not fit this network", "runs/digits_fc/0/config.yaml")
    assert "backbone.hidden" in outcome.out
    assert [path for path in sorted(tmp_path.rglob("*")) if "tensorboard" not in path.parts] == [
        path for path in files if "tensorboard" not in path.parts
    ]


@pytest.mark.parametrize("place", ["file/below", "file"])
def test_a_place_for_runs_that_cannot_be_written(cli: Cli, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    assert_one_line(cli("fit", *FC, f"--runs={place}"), "cannot make a run folder", "--runs DIR")


def test_debugging_shows_the_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from jellyfit.errors import ConfigError

    monkeypatch.setenv("JELLYFIT_DEBUG", "1")
    with pytest.raises(ConfigError, match="at least 1 time step"):
        cli("fit", *FC, "--model.T=0")
