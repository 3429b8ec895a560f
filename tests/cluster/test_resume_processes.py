"""Runs of two processes that are stopped and go on: with as many, with fewer, with more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.cluster.runs import TWO, assert_same_state, callback, last, metrics, rows, run

RANDOM = ("--model.backbone.dropout=0.3", "--data.draws=true", "--trainer.max_epochs=2")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_signal_to_one_of_two_processes_stops_both_and_the_run_goes_on_to_the_bit(
    tmp_path: Path, workers: int
) -> None:
    settings = (*RANDOM, *TWO, "--data.batch_size=3", f"--data.num_workers={workers}")  # 8 steps an epoch
    run(tmp_path, *settings, "--name=whole")
    stopped = run(tmp_path, *settings, "--name=stopped", *callback("SignalAt", step=10, rank=1), status=130)
    assert "Saved runs/stopped/0/checkpoints/last.ckpt" in stopped.out
    saved = last(tmp_path, "stopped")
    assert saved["global_step"] == 11
    states = saved["jellyfit_processes"]["states"]
    assert sorted(states) == [0, 1]
    assert not torch.equal(states[0]["rng"]["torch"], states[1]["rng"]["torch"]), "each its own"
    run(tmp_path, *settings, "--name=stopped", "--ckpt_path=last")
    assert_same_state(last(tmp_path, "whole"), last(tmp_path, "stopped"))
    assert metrics(tmp_path, "whole") == metrics(tmp_path, "stopped"), "counts of both processes go on"


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_processes_goes_on_with_the_remaining_samples(
    tmp_path: Path, before: int, after: int
) -> None:
    """The joint batch is kept, so that all can be compared; 47 samples: the last is left out, or a batch of its own."""
    settings = {1: ("--data.batch_size=4",), 2: (*TWO, "--data.batch_size=2")}
    plain = ("--trainer.max_epochs=2", "--data.size=46")
    run(tmp_path, *plain, *settings[after], "--name=whole")
    stop = callback("SignalAt", step=16, rank=before - 1)
    run(tmp_path, *plain, *settings[before], "--name=changed", *stop, status=130)
    assert last(tmp_path, "changed")["global_step"] == 17
    run(tmp_path, *plain, *settings[after], "--name=changed", "--ckpt_path=last")
    whole, changed = last(tmp_path, "whole"), last(tmp_path, "changed")
    assert changed["global_step"] == whole["global_step"] == 24
    for name, tensor in whole["state_dict"].items():
        torch.testing.assert_close(changed["state_dict"][name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    for one, two in zip(rows(tmp_path, "whole"), rows(tmp_path, "changed"), strict=True):
        assert one == pytest.approx(two, rel=1e-5), "no sample is counted twice or left out"


@pytest.mark.slow
def test_the_place_in_the_data_holds_for_other_batches_too(tmp_path: Path) -> None:
    """Stopped after 9 of 24 samples; the remaining 15 in threes for each of two processes are 3 steps."""
    small = ("--data.size=24", "--trainer.max_epochs=2")
    stop = callback("SignalAt", step=2)
    run(tmp_path, *small, "--data.batch_size=3", "--name=changed", *stop, status=130)
    run(tmp_path, *small, "--data.batch_size=3", *TWO, "--name=changed", "--ckpt_path=last")
    assert last(tmp_path, "changed")["global_step"] == 3 + 3 + 4
    assert [row["epoch"] for row in rows(tmp_path, "changed")] == [0, 1]


@pytest.mark.slow
def test_after_an_epoch_another_number_of_processes_just_goes_on(tmp_path: Path) -> None:
    run(tmp_path, *TWO, "--data.batch_size=2", "--trainer.max_epochs=1", "--name=a")
    run(tmp_path, "--data.batch_size=4", "--trainer.max_epochs=2", "--name=a", "--ckpt_path=last")
    run(tmp_path, *TWO, "--data.batch_size=2", "--name=a", "--ckpt_path=last")
    run(tmp_path, "--data.batch_size=4", "--name=whole")
    for name, tensor in last(tmp_path, "whole")["state_dict"].items():
        torch.testing.assert_close(last(tmp_path, "a")["state_dict"][name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    assert re.sub(r"\.\d+", "", metrics(tmp_path, "a")).count("\n") == 4
