"""Networks shared out among two processes (FSDP2 over gloo) through Lightning's ModelParallelStrategy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jellyfit import neurons
from jellyfit.errors import StateError
from jellyfit.sharding import consolidate, shard
from tests.cluster.runs import SMALL, assert_same_state, callback, last, metrics, rows, run
from tests.conftest import start, wait

STRATEGY = "lightning.pytorch.strategies.ModelParallelStrategy"
SHARDED = (
    "--trainer.devices=2",
    f"--trainer.strategy={STRATEGY}",
    "--trainer.strategy.data_parallel_size=2",
    "--trainer.strategy.tensor_parallel_size=1",
    "--data.batch_size=2",
)
ONE_FILE = "--trainer.strategy.save_distributed_checkpoint=false"


@pytest.mark.slow
def test_a_sharded_network_trains_as_one_process_does_and_its_one_file_goes_on_there(tmp_path: Path) -> None:
    run(tmp_path, "--data.batch_size=4", "--name=one")
    two = run(tmp_path, *SHARDED, ONE_FILE, "--name=two", "--trainer.max_epochs=2")
    assert "Warning" not in two.err
    for one, shards in zip(rows(tmp_path, "one"), rows(tmp_path, "two"), strict=False):
        assert shards == pytest.approx(one, rel=1e-5)
    run(tmp_path, "--data.batch_size=4", "--name=two", "--ckpt_path=last")
    for name, tensor in last(tmp_path, "one")["state_dict"].items():
        torch.testing.assert_close(last(tmp_path, "two")["state_dict"][name], tensor, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.slow
def test_a_sharded_checkpoint_goes_on_to_the_bit_and_becomes_one_file(tmp_path: Path) -> None:
    settings = (*SHARDED, "--trainer.max_epochs=2", "--model.backbone.dropout=0.2")
    run(tmp_path, *settings, "--name=whole")
    run(tmp_path, *settings, "--name=parts", *callback("SignalAt", step=15, rank=1), status=130)
    shards = tmp_path / "runs/parts/0/checkpoints/last.ckpt"
    assert {path.suffix for path in shards.iterdir()} == {".distcp", ".pt", ""}, "a file of each process and .metadata"
    run(tmp_path, *settings, "--name=parts", "--ckpt_path=last")
    assert metrics(tmp_path, "parts") == metrics(tmp_path, "whole")
    one, two = (
        consolidate(tmp_path / f"runs/{name}/0/checkpoints/last.ckpt", tmp_path / f"{name}.ckpt")
        for name in ("parts", "whole")
    )
    assert_same_state(torch.load(one, weights_only=True), torch.load(two, weights_only=True))
    longer = ("--name=parts", "--data.batch_size=4", "--trainer.max_epochs=3", "--model.backbone.dropout=0.2")
    run(tmp_path, *longer, f"--ckpt_path={one}")
    assert last(tmp_path, "parts", "1")["global_step"] == 36
    refused = run(tmp_path, "--name=parts", f"--ckpt_path={shards}", status=2)
    assert "a sharded checkpoint" in refused.err
    assert "consolidate(" in refused.err


@pytest.mark.slow
def test_tensors_are_not_cut(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    args = ("--trainer.devices=1", f"--trainer.strategy={STRATEGY}", "--trainer.strategy.tensor_parallel_size=2")
    outcome = wait(start(tmp_path, "fit", "-c", "small.yaml", *args, "--trainer.devices=2", OMP_NUM_THREADS="1"))
    assert outcome.status != 0
    assert "Set tensor_parallel_size=1 and data_parallel_size=2" in outcome.err


def test_a_network_without_values_is_refused() -> None:
    with torch.device("meta"):
        layer = torch.nn.Linear(3, 2)
    with pytest.raises(StateError, match="'weight' is on the meta device, without values; make the network on the CPU"):
        shard(layer, mesh=None)  # type: ignore[arg-type]


def test_a_neuron_that_looks_at_its_values_cannot_be_made_on_meta() -> None:
    with torch.device("meta"), pytest.raises(StateError, match=r"ParametricLIFNode\(w=...\).*Make neurons on the CPU"):
        neurons.ParametricLIFNode()
