"""Two processes on one CPU (DDP over gloo) train, test and predict as one run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from jellyfit.callbacks import read_metrics
from tests.cluster import runs
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
    assert "sync_dist" not in two.err
    run(tmp_path, "predict", *config, *TWO, "--ckpt_path=best")
    with (folder / "predictions.csv").open() as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    assert sorted(ids) == [f"digit-{i:05d}" for i in range(1200, 1797)]


@pytest.mark.slow
def test_losses_and_rates_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    # batches of 48: the last ones are smaller, and smaller on one process than on the other
    frozen = ("--model.optimizer.lr=0", "--model.T=4", "--model.encoder=null", "--data.batch_size=48")
    config = ("-c", CONFIGS / "digits_fc.yaml", *frozen, "--trainer.max_epochs=2")
    two = run(tmp_path, "fit", *config, *TWO, "--name=two")
    assert "sync_dist" not in two.err
    run(tmp_path, "fit", *config, "--name=one")
    run(tmp_path, "test", *config, *TWO, "--name=two", "--ckpt_path=last")
    run(tmp_path, "test", *config, "--name=one", "--ckpt_path=last")
    for file in ("metrics.csv", "test_metrics.csv"):
        rows = [read_metrics(tmp_path / f"runs/{name}/0/{file}") for name in ("one", "two")]
        for first, second in zip(*rows, strict=True):
            measured = {name for name in first if name not in ("epoch", "step")}
            assert any(name.endswith("/loss") for name in measured)
            for name in measured:
                assert second[name] == pytest.approx(first[name], rel=1e-6), name


@pytest.mark.slow
def test_two_processes_train_and_test_the_event_digits(tmp_path: Path, digits_root: Path) -> None:
    config = ("-c", CONFIGS / "digits.yaml", f"--data.root={digits_root}", "--trainer.max_epochs=1")
    run(tmp_path, "fit", *config, *TWO, "--trainer.limit_train_batches=3", "--trainer.limit_val_batches=1")
    tested = run(tmp_path, "test", *config, *TWO, "--trainer.limit_test_batches=2", "--ckpt_path=last")
    assert 0.0 <= float(figures(tested)["test/accuracy"]) <= 1.0
    assert (tmp_path / "runs/digits/0/pictures/confusion_matrix.png").is_file()


MINE = """
import torch
from jellyfit.datamodules import InMemory, Sample, SpikingDataModule

class Frames(SpikingDataModule):
    classes = ("few", "many")

    def dataset(self, split):
        generator = torch.Generator().manual_seed(len(split))
        frames = [torch.rand(2, 1, 4, 4, generator=generator) * (1 + i % 2) for i in range(133)]
        return InMemory(Sample(frame, i % 2, str(i)) for i, frame in enumerate(frames))
"""

MINE_YAML = """
model:
  class_path: jellyfit.tasks.ClassificationTask
  init_args:
    backbone:
      class_path: jellyfit.backbones.SpikingConvNet
      init_args: {input_size: [1, 4, 4], num_classes: 2, channels: [3]}
data: {class_path: frames_for_two.Frames, init_args: {batch_size: 66}}
trainer: {max_epochs: 2, limit_train_batches: 1}
"""


@pytest.mark.slow
def test_batch_norm_when_one_process_validates_a_batch_more(tmp_path: Path) -> None:
    (tmp_path / "frames_for_two.py").write_text(MINE)
    (tmp_path / "mine.yaml").write_text(MINE_YAML)
    run(tmp_path, "fit", "-c", "mine.yaml", *TWO)  # 67 samples, two batches, and 66, one batch
    run(tmp_path, "validate", "-c", "mine.yaml", "--ckpt_path=last")
    (*_, two), (one,) = (read_metrics(tmp_path / f"runs/mine/0/{name}.csv") for name in ("metrics", "validate_metrics"))
    for name in ("val/loss", "val/accuracy", "firing_rate/conv.0.2"):
        assert two[name] == pytest.approx(one[name], rel=1e-6), "the running statistics of one process serve both"


@pytest.mark.slow
def test_fewer_samples_than_processes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "frames_for_two.py").write_text(MINE.replace("range(133)", "range(1 if split == 'val' else 4)"))
    (tmp_path / "mine.yaml").write_text(MINE_YAML)
    outcome = wait(start(tmp_path, "fit", "-c", "mine.yaml", *TWO, OMP_NUM_THREADS="1"))
    assert outcome.status == 1
    assert "Frames: the val split holds 1 samples, fewer than there are processes (2)" in outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_learn_what_one_with_the_joint_batch_learns(tmp_path: Path, accumulate: int) -> None:
    """46 samples: the last batch of each process has 3 in place of 4, the joint one 6 in place of 8."""
    settings = ("--data.size=46", f"--trainer.accumulate_grad_batches={accumulate}")
    runs.run(tmp_path, *settings, "--data.batch_size=8", "--name=one", *runs.callback("Losses", folder="one"))
    two = ("--data.batch_size=4", "--name=two", *runs.TWO)
    runs.run(tmp_path, *settings, *two, *runs.callback("Losses", folder="two"))
    one, two_ = (runs.losses(tmp_path / name) for name in ("one", "two"))
    assert len(one) == 18
    assert two_ == pytest.approx(one, rel=1e-5)
    assert one[-1] < one[0], "it learns"
    weights = runs.last(tmp_path, "two")["state_dict"]
    for name, tensor in runs.last(tmp_path, "one")["state_dict"].items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    for first, second in zip(runs.rows(tmp_path, "one"), runs.rows(tmp_path, "two"), strict=True):
        assert second == pytest.approx(first, rel=1e-5)


@pytest.mark.slow
def test_states_are_each_processes_own_and_only_batch_norm_is_sent_around(tmp_path: Path) -> None:
    carry = ("--model.backbone.norm=true", "--trainer.max_epochs=1")
    runs.run(tmp_path, *carry, *runs.TWO, *runs.callback("States"))
    first, second = (json.loads((tmp_path / f"states-{rank}.json").read_text()) for rank in (0, 1))
    names = {name.rpartition(".")[2] for name in first["buffers"]}
    assert names == {"running_mean", "running_var", "num_batches_tracked"}
    assert first["v"] != second["v"]
    assert len(first["v"]) == 4 * 16


@pytest.mark.slow
def test_parameters_without_gradients_are_named(tmp_path: Path) -> None:
    unused = ("--model.backbone.unused=true", "--trainer.max_epochs=1")
    outcome = runs.run(tmp_path, *unused, *runs.TWO, status=2)
    assert "backbone.spare.weight, backbone.spare.bias got no gradient in a step" in outcome.err
    assert "--trainer.strategy=ddp_find_unused_parameters_true" in outcome.err
    runs.run(tmp_path, *unused, *runs.TWO, "--trainer.strategy=ddp_find_unused_parameters_true")


@pytest.mark.slow
def test_data_are_prepared_by_one_of_two_processes(tmp_path: Path) -> None:
    runs.run(tmp_path, *runs.TWO, "--trainer.max_epochs=1", "--data.note=note")
    assert (tmp_path / "note").read_text() == "node 0 process 0\n"
