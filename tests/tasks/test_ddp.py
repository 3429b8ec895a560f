"""Two processes on one CPU (DDP over gloo) train, test and predict as one run."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.conftest import CONFIGS, Outcome, start, wait

TWO = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp")


def run(folder: Path, *args: object) -> Outcome:
    outcome = wait(start(folder, *args, OMP_NUM_THREADS="1"))
    assert outcome.status == 0, outcome.err
    return outcome


def figures(outcome: Outcome) -> dict[str, str]:
    lines = [
        (line.split(": ")[0], line.split(": ")[1]) for line in outcome.out.splitlines() if line.startswith("test/")
    ]
    assert len(lines) == len({name for name, _ in lines}), "one process talks"
    return dict(lines)


@pytest.mark.slow
def test_two_processes_fit_test_and_predict(tmp_path: Path) -> None:
    config = ("-c", CONFIGS / "digits_fc.yaml", "--model.T=4", "--model.encoder=null", "--trainer.max_epochs=2")
    run(tmp_path, "fit", *config, *TWO)
    assert [path.name for path in (tmp_path / "runs/digits_fc").iterdir()] == ["0"], "one run folder for both"
    folder = tmp_path / "runs/digits_fc/0"
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3
    two = run(tmp_path, "test", *config, *TWO, "--ckpt_path=best")
    one = run(tmp_path, "test", *config, "--ckpt_path=best")
    assert figures(two)["test/accuracy"] == figures(one)["test/accuracy"], "each sample is counted once"
    run(tmp_path, "predict", *config, *TWO, "--ckpt_path=best")
    with (folder / "predictions.csv").open() as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    assert sorted(ids) == [f"digit-{i:05d}" for i in range(1200, 1797)]


@pytest.mark.slow
def test_two_processes_train_and_test_the_event_digits(tmp_path: Path, digits_root: Path) -> None:
    config = ("-c", CONFIGS / "digits.yaml", f"--data.root={digits_root}", "--trainer.max_epochs=1")
    run(tmp_path, "fit", *config, *TWO, "--trainer.limit_train_batches=3", "--trainer.limit_val_batches=1")
    tested = run(tmp_path, "test", *config, *TWO, "--trainer.limit_test_batches=2", "--ckpt_path=last")
    assert 0.0 <= float(figures(tested)["test/accuracy"]) <= 1.0
    assert (tmp_path / "runs/digits/0/pictures/confusion_matrix.png").is_file()
