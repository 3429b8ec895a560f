"""Kernels change the speed of a run, not its numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import CONFIGS, Cli


@pytest.mark.slow
def test_digits_trained_with_kernels_and_in_eager_are_the_same_to_the_bit(
    cli: Cli, tmp_path: Path, digits_root: Path
) -> None:
    settings = ("-c", CONFIGS / "digits.yaml", f"--data.root={digits_root}", "--trainer.max_epochs=2")
    settings += ("--trainer.limit_train_batches=6", "--trainer.limit_val_batches=2")
    for name, backend in (("fused", "auto"), ("eager", "torch")):
        outcome = cli("fit", *settings, f"--name={name}", f"--model.backend={backend}")
        assert outcome.status == 0, outcome.err
    fused, eager = (
        torch.load(tmp_path / f"runs/{name}/0/checkpoints/last.ckpt", weights_only=True) for name in ("fused", "eager")
    )
    assert fused["state_dict"].keys() == eager["state_dict"].keys()
    for name, tensor in fused["state_dict"].items():
        assert torch.equal(tensor, eager["state_dict"][name]), name
    read = [(tmp_path / f"runs/{name}/0/metrics.csv").read_text() for name in ("fused", "eager")]
    assert read[0] == read[1]
