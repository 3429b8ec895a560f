"""StepProfile: parts of a step, shares of layers, advice; nothing else changes for it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from jellyfit.callbacks import StepProfile
from jellyfit.datamodules import DigitImages
from jellyfit.errors import ConfigError
from tests.callbacks.test_callbacks import make_task, make_trainer
from tests.conftest import CONFIGS, Cli

# Lightning's own, see test_callbacks.py
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


@pytest.mark.filterwarnings("ignore:.*PyTorch Profiler default schedule.*")
@pytest.mark.parametrize("profiler", ["none", "simple", "pytorch"])
def test_from_the_command_line(cli: Cli, tmp_path: Path, digits_root: Path, profiler: str) -> None:
    chosen = [] if profiler == "none" else [f"--trainer.profiler={profiler}"]
    outcome = cli(
        "fit", "-c", CONFIGS / "digits.yaml", f"--data.root={digits_root}", "--data.batch_size=4",
        "--trainer.max_epochs=1", "--trainer.limit_train_batches=6", "--trainer.limit_val_batches=1",
        "--trainer.callbacks=StepProfile", "--trainer.callbacks.every_n_steps=1", *chosen,
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert "USDT" not in outcome.err or profiler == "pytorch"  # whose own lines they are
    figures = json.loads((tmp_path / "runs/digits/0/step_profile.json").read_text())
    assert figures["steps"] == 2, "six, without two to warm up and two for the layers"
    assert set(figures["parts_ms"]) == {"data", "forward", "backward", "optimizer", "callbacks"}
    assert all(figures["parts_ms"][part] > 0 for part in ("data", "forward", "backward", "optimizer"))
    assert sum(figures["parts_ms"].values()) == pytest.approx(figures["step_ms"])
    assert figures["peak_memory_bytes"] > 2**20
    if profiler == "pytorch":
        assert figures["layers"] == {}, "torch has one profiler at a time"
    else:
        assert sum(figures["layers"].values()) == pytest.approx(1)
        assert min(figures["layers"][kind] for kind in ("convolutions", "neurons", "pooling")) > 0
        assert "norms" not in figures["layers"], "they run as one with the neurons"
        assert "of forward and backward: " in outcome.out
    assert "  peak memory " in outcome.out
    assert outcome.out.count("Advice: ") == 1
    assert f"Advice: {figures['advice']}\n" in outcome.out


def fit(folder: Path, *callbacks: pl.Callback, data: pl.LightningDataModule | None = None, **settings: Any) -> Any:
    task = make_task()
    settings = {"limit_train_batches": 6, "max_epochs": 2} | settings
    make_trainer(folder, *callbacks, **settings).fit(task, datamodule=data or DigitImages())
    return task


def test_training_is_the_same_with_it(tmp_path: Path) -> None:
    weights = []
    for callbacks in ([], [StepProfile(every_n_steps=1)]):
        task = fit(tmp_path, *callbacks)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in task.parameters()]))
    assert torch.equal(*weights)


class _SlowData(DigitImages):
    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        time.sleep(0.02)
        return batch


def test_waiting_for_data_is_told_and_advised(tmp_path: Path) -> None:
    profile = StepProfile(every_n_steps=1, layer_steps=0)
    figures = profile.figures(fit(tmp_path, profile, data=_SlowData()))
    assert figures["steps"] == 2 * 6 - 2
    assert figures["parts_ms"]["data"] >= 20
    assert figures["layers"] == {}
    assert "raise data.num_workers" in figures["advice"]


class _Slow(pl.Callback):
    def on_train_batch_end(self, *_: Any) -> None:
        time.sleep(0.02)


class _SlowValidation(pl.Callback):
    def on_validation_batch_end(self, *_: Any) -> None:
        time.sleep(0.2)


@pytest.mark.parametrize("first", [True, False])
def test_other_callbacks_are_not_taken_for_data(tmp_path: Path, first: bool) -> None:
    profile = StepProfile(every_n_steps=1, layer_steps=0)
    slow: list[pl.Callback] = [_Slow(), profile] if first else [profile, _Slow()]
    figures = profile.figures(fit(tmp_path, *slow, _SlowValidation(), val_check_interval=3))
    assert figures["parts_ms"]["data"] < 20
    spent = figures["parts_ms"]["optimizer" if first else "callbacks"]
    assert spent >= 20
    assert figures["steps"] == 2 * 6 - 2 - 2, "what comes behind a validation in the middle is left out"


def test_it_can_be_used_again_and_leaves_the_trainer_as_it_was(tmp_path: Path) -> None:
    profile = StepProfile(every_n_steps=1, layer_steps=1, every_n_epochs=1)
    trainer = make_trainer(tmp_path, profile, limit_train_batches=4)
    before = list(trainer.callbacks)
    for _ in range(2):
        trainer.fit(make_task(), datamodule=DigitImages())
        trainer.fit_loop.epoch_progress.reset()
        assert trainer.callbacks == before
    assert len(profile._steps) == 1


def test_a_run_of_one_step_says_that_nothing_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, StepProfile(), fast_dev_run=1)
    assert "no step was measured" in capsys.readouterr().out
    assert not (tmp_path / "step_profile.json").exists()


PARTS = {"data": 0.01, "forward": 0.3, "backward": 0.5, "optimizer": 0.02, "callbacks": 0.0}


@pytest.mark.parametrize(
    ("parts", "layers", "backend", "expected"),
    [
        ({"data": 0.5}, {"neurons": 0.9}, "torch", "waits for data"),
        ({}, {"neurons": 0.5, "convolutions": 0.5}, "torch", "set model.backend to auto"),
        ({}, {"neurons": 0.5, "convolutions": 0.5}, "auto", "neurons take 50 %"),
        ({"callbacks": 0.5}, {}, "auto", "let them act less often"),
        ({"optimizer": 0.5}, {"convolutions": 0.9}, "auto", "fused: true"),
        ({}, {"convolutions": 0.9, "norms": 0.1}, "auto", "memory_format=channels_last"),
        ({}, {"convolutions": 0.4, "norms": 0.6}, "auto", "no part stands out"),
    ],
)
def test_advice_follows_the_figures(
    tmp_path: Path, parts: dict[str, float], layers: dict[str, float], backend: str, expected: str
) -> None:
    profile, task = StepProfile(), make_task()
    task.trainer = make_trainer(tmp_path)
    for node in task.backbone.modules():
        if hasattr(node, "backend"):
            node.backend = backend  # type: ignore[assignment]
    profile._steps, profile._layers = [PARTS | parts], layers
    assert expected in profile.figures(task)["advice"]


def test_numbers_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="every_n_steps=0"):
        StepProfile(every_n_steps=0)
