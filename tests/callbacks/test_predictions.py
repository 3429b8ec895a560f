"""``predictions.csv`` and ``predictions.npz``."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jellyfit.callbacks import PredictionsCSV
from tests.conftest import CONFIGS, Cli
from tests.tasks.test_classification import Stills, make_task, make_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def predict(folder: Path, **settings: Any) -> PredictionsCSV:
    callback = PredictionsCSV(**settings)
    make_trainer(folder, callbacks=[callback]).predict(make_task(), datamodule=Stills(batch_size=4))
    return callback


def test_a_row_has_id_prediction_label_and_the_predictions_score(tmp_path: Path) -> None:
    callback = predict(tmp_path, all_scores=False)
    assert callback.path == tmp_path / "predictions.csv"
    found = rows(tmp_path / "predictions.csv")
    assert list(found[0]) == ["id", "prediction", "label", "score"]
    assert [row["id"] for row in found] == [f"test-{i:02d}" for i in range(10)]
    assert [row["label"] for row in found] == ["abc"[i % 3] for i in range(10)]
    assert list(tmp_path.iterdir()) == [callback.path]
    with_all = rows(Path(str(predict(tmp_path / "all").path)))
    for short, long in zip(found, with_all, strict=True):
        assert long == {**short, **{f"score_{name}": long[f"score_{name}"] for name in "abc"}}
        assert float(short["score"]) == max(float(long[f"score_{name}"]) for name in "abc")


def test_arrays_hold_the_same_and_all_scores(tmp_path: Path) -> None:
    predict(tmp_path, filename="mine.csv", npz=True)
    arrays = np.load(tmp_path / "mine.npz")
    (expected,) = make_trainer(tmp_path).predict(make_task(), datamodule=Stills()) or ()
    np.testing.assert_allclose(arrays["scores"], expected["scores"].numpy(), rtol=1e-6)  # type: ignore[index]
    assert arrays["scores"].dtype == np.float32
    assert arrays["predictions"].tolist() == expected["preds"].tolist()  # type: ignore[index]
    assert arrays["labels"].tolist() == [i % 3 for i in range(10)]
    assert arrays["ids"].tolist() == [row["id"] for row in rows(tmp_path / "mine.csv")]
    assert arrays["classes"].tolist() == ["a", "b", "c"]


def test_one_among_the_callbacks_takes_the_place_of_the_command_lines_own(cli: Cli, tmp_path: Path) -> None:
    callback = '{"class_path": "jellyfit.callbacks.PredictionsCSV", "init_args": {"all_scores": false, "npz": true}}'
    outcome = cli("predict", "-c", CONFIGS / "digits_fc.yaml", "--model.T=2", f"--trainer.callbacks=[{callback}]")
    assert outcome.status == 0, outcome.err
    assert outcome.out.count("Predictions: ") == 1
    folder = tmp_path / "runs/digits_fc/0"
    assert list(rows(folder / "predictions.csv")[0]) == ["id", "prediction", "label", "score"]
    assert np.load(folder / "predictions.npz")["scores"].shape == (597, 10)
