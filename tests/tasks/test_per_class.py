"""How well each class is told: the table after a test, in the run folder and on the command line."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support

from jellyfit.datamodules import Batch
from jellyfit.errors import InputError
from jellyfit.metrics import per_class
from tests.conftest import CONFIGS, Cli, start, wait
from tests.tasks.test_classification import Stills, make_task, make_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_measures_are_scikit_learns() -> None:
    target, preds = torch.randint(0, 5, (2, 200), generator=torch.Generator().manual_seed(0))
    confusion = torch.zeros(5, 5, dtype=torch.long).index_put((target, preds), torch.tensor(1), accumulate=True)
    table = per_class(confusion)
    precision, recall, f1, samples = precision_recall_fscore_support(target, preds)
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1), ("samples", samples)):
        assert table[name].tolist() == pytest.approx(expected.tolist())


def test_what_cannot_be_told_is_nan() -> None:
    table = per_class(torch.tensor([[2, 0, 0], [1, 0, 0], [0, 0, 0]]))
    assert table["samples"].tolist() == [2, 1, 0]
    assert table["recall"].isnan().tolist() == [False, False, True], "no samples"
    assert table["precision"].isnan().tolist() == [False, True, True], "never predicted"
    assert table["f1"].isnan().tolist() == [False, False, True]
    with pytest.raises(InputError, match=r"counts \[C, C\].*got \[2, 3\]"):
        per_class(torch.zeros(2, 3))


@pytest.mark.parametrize("mixed", [False, True])
def test_a_test_leaves_a_table(tmp_path: Path, mixed: bool) -> None:
    class Labelled(Stills):
        def collate(self, samples: Any) -> Batch:
            batch = super().collate(samples)
            shares = 0.6 * torch.nn.functional.one_hot(batch.y, 3) + 0.4 / 3
            return batch._replace(y=shares) if mixed else batch

    task = make_task()
    make_trainer(tmp_path).test(task, datamodule=Labelled(batch_size=4), verbose=False)
    samples = Stills().dataset("test").samples
    target = torch.tensor([sample.y for sample in samples])
    preds = task(torch.stack([sample.x for sample in samples])).mean(0).argmax(-1)
    rows = read(tmp_path / "per_class.csv")
    assert [row["class"] for row in rows] == ["a", "b", "c"]
    assert [int(row["samples"]) for row in rows] == [4, 3, 3]
    for i, row in enumerate(rows):
        assert float(row["recall"]) == pytest.approx(float((preds[target == i] == i).float().mean()), abs=1e-6)
        taken = preds == i
        assert bool(row["precision"]) == bool(taken.any()), "empty where it was never predicted"
        if taken.any():
            assert float(row["precision"]) == pytest.approx(float((target[taken] == i).float().mean()), abs=1e-6)
    (line,) = task.summary()
    worst = min(rows, key=lambda row: float(row["recall"]))
    assert line.startswith(f"Worst classes: {worst['class']} ({float(worst['recall']):.4f} of {worst['samples']})")


def test_without_a_test_and_without_mistakes_there_is_nothing_to_tell() -> None:
    task = make_task()
    assert task.summary() == []
    task._rows = [{"class": "a", "samples": 2, "recall": 1.0}, {"class": "b", "samples": 0, "recall": float("nan")}]
    assert task.summary() == []


@pytest.mark.slow
def test_two_processes_count_every_sample_once(cli: Cli, tmp_path: Path) -> None:
    config = ("-c", CONFIGS / "digits_fc.yaml", "--model.T=4", "--model.encoder=null", "--data.batch_size=48")
    outcome = cli("test", *config, "--name=one")
    assert outcome.status == 0 and "Worst classes: " in outcome.out, outcome.err
    two = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp", "--name=two")
    other = wait(start(tmp_path, "test", *config, *two, OMP_NUM_THREADS="1"))
    assert other.status == 0 and other.out.count("Worst classes: ") == 1, other.err
    one, both = (read(tmp_path / f"runs/{name}/0/per_class.csv") for name in ("one", "two"))
    assert one == both and sum(int(row["samples"]) for row in one) == 597
