"""What saves memory or time in training, through the task: the numbers are those of training without it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jellyfit import layers
from jellyfit.backbones import Backbone, SEWResNet, SpikingConvNet, SpikingMLP
from jellyfit.datamodules import Batch, InMemory, Sample, collate_sequences
from jellyfit.errors import ConfigError
from jellyfit.kernels import SpikeCompression
from jellyfit.metrics import FiringRateMeter
from jellyfit.neurons import LIFNode
from jellyfit.parameter_groups import ParameterGroups
from jellyfit.tasks import ClassificationTask
from tests.conftest import CONFIGS, Cli
from tests.tasks.test_classification import Stills, make_task, make_trainer

# Lightning's own: it calls what torch has deprecated, and gives advice that the command line leaves out.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


class Frames(Stills):
    """Sequences ``[4, 2, 8, 8]`` of three kinds."""

    classes = ("a", "b", "c")

    def dataset(self, split: str) -> InMemory:
        generator = torch.Generator().manual_seed(len(split))
        frames = [torch.rand(4, 2, 8, 8, generator=generator) * (1 + i % 3) for i in range(12)]
        return InMemory(Sample(frame, i % 3, f"{split}-{i}") for i, frame in enumerate(frames))

    def collate(self, samples: Any) -> Batch:
        return collate_sequences(samples)


def network(norms: bool = True) -> Backbone:
    torch.manual_seed(0)
    if norms:
        return SpikingConvNet((2, 8, 8), 3, channels=[8, 8])
    net = SpikingMLP(2 * 64, 3, hidden=[16, 16])
    for parameter in net.parameters():
        parameter.data *= 6.0  # so that every layer fires
    return net


def passed(task: ClassificationTask, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients of a training step."""
    task.zero_grad()
    loss, _ = task.step(batch, "train")
    loss.backward()
    return loss.detach(), [parameter.grad.clone() for parameter in task.parameters() if parameter.grad is not None]


def a_batch(size: int = 6) -> Batch:
    x = torch.rand(4, size, 2, 8, 8, generator=torch.Generator().manual_seed(size)) * 2
    return Batch(x, torch.arange(size) % 3)


def fitted(folder: Path, task: ClassificationTask, **settings: Any) -> dict[str, float]:
    trainer = make_trainer(folder, max_epochs=6, **settings)
    trainer.fit(task, datamodule=Frames(batch_size=4))
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


# ------------------------------------------------------------ torch.compile


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated.*:DeprecationWarning")  # torch's compiler uses it
def test_a_compiled_network_computes_and_learns_the_same_and_shares_checkpoints(tmp_path: Path) -> None:
    plain = ClassificationTask(network(norms=False))
    compiled = ClassificationTask(copy.deepcopy(plain.backbone), compile=True)
    for size in (6, 6, 5):  # another size is compiled once more
        loss, gradients = passed(plain, a_batch(size))
        other, others = passed(compiled, a_batch(size))
        torch.testing.assert_close(other, loss, rtol=1e-6, atol=1e-6)
        for one, two in zip(gradients, others, strict=True):
            torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-6)
    assert compiled.backbone._compiled_call_impl is not None
    assert compiled.state_dict().keys() == plain.state_dict().keys()

    task = ClassificationTask(network(norms=False), compile=True)
    trainer = make_trainer(tmp_path)
    trainer.fit(task, datamodule=Frames(batch_size=6))
    assert any(name.startswith("firing_rate/") for name in trainer.callback_metrics), "measured without the compiler"
    trainer.save_checkpoint(tmp_path / "compiled.ckpt")
    again = ClassificationTask.load_from_checkpoint(tmp_path / "compiled.ckpt", backbone=network(norms=False))
    x = a_batch().x
    torch.testing.assert_close(again(x), task(x), rtol=1e-6, atol=1e-6)
    trained = make_trainer(tmp_path)
    trained.fit(again, datamodule=Frames(batch_size=6))
    trained.save_checkpoint(tmp_path / "plain.ckpt")
    back = ClassificationTask.load_from_checkpoint(tmp_path / "plain.ckpt", backbone=network(norms=False), compile=True)
    torch.testing.assert_close(back(x), again(x), rtol=1e-6, atol=1e-6)


def test_a_network_that_is_watched_runs_without_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    task = ClassificationTask(network(norms=False), compile=True)

    def compiled(*_: Any) -> Tensor:
        raise AssertionError("compiled")

    task.backbone._compiled_call_impl = compiled
    with FiringRateMeter(task.backbone) as meter:
        task(a_batch().x)
    assert all(0.05 < rate < 0.95 for rate in meter.rates().values()) and len(meter.rates()) == 3
    with pytest.raises(AssertionError, match="compiled"):
        task(a_batch().x)
    copied = copy.deepcopy(task)
    assert copied.backbone._compiled_call_impl is None, "a copy is compiled by itself"


# ------------------------------------------------------------ memory


def test_compressed_spikes_give_the_same_gradients_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[SpikeCompression] = []

    class Counted(SpikeCompression):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr("jellyfit.tasks.running.SpikeCompression", Counted)
    plain = ClassificationTask(network())
    packed = ClassificationTask(copy.deepcopy(plain.backbone), spike_compression=True)
    loss, gradients = passed(plain, a_batch())
    other, others = passed(packed, a_batch())
    assert torch.equal(loss, other)
    assert all(torch.equal(one, two) for one, two in zip(gradients, others, strict=True))
    (compression,) = made
    assert compression.dense_bytes == 32 * compression.packed_bytes > 0
    with torch.no_grad():
        packed(a_batch().x)
    assert len(made) == 1, "nothing is kept for backward then"


@pytest.mark.parametrize("chunks", [2, 3, 4, 9])
def test_stretches_of_time_give_the_same_gradients(chunks: int) -> None:
    plain = ClassificationTask(network(norms=False))
    cut = ClassificationTask(copy.deepcopy(plain.backbone), time_chunks=chunks)
    both = ClassificationTask(copy.deepcopy(plain.backbone), time_chunks=chunks, spike_compression=True)
    loss, gradients = passed(plain, a_batch())
    for task in (cut, both):
        for _ in range(2):  # every forward starts from a reset state
            other, others = passed(task, a_batch())
            assert torch.equal(other, loss)
            for one, two in zip(gradients, others, strict=True):
                torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-7)


def test_stretches_of_time_of_a_network_that_is_no_backbone() -> None:
    def plain() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(layers.Flatten(), layers.Linear(128, 5), LIFNode(), layers.Linear(5, 3))

    tasks = [ClassificationTask(plain(), num_classes=3, time_chunks=chunks) for chunks in (1, 2)]
    (loss, gradients), (other, others) = (passed(task, a_batch()) for task in tasks for _ in range(1))
    torch.testing.assert_close(other, loss, rtol=1e-6, atol=0)
    for one, two in zip(gradients, others, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-7)


def test_checkpointed_blocks_give_the_same_gradients() -> None:
    torch.manual_seed(0)
    nets = [
        SEWResNet(18, num_classes=3, in_channels=2, base_channels=4, stem="small", checkpoint_blocks=on)
        for on in (False, True)
    ]
    nets[1].load_state_dict(nets[0].state_dict())
    (loss, gradients), (other, others) = (passed(ClassificationTask(net), a_batch()) for net in nets)
    torch.testing.assert_close(other, loss, rtol=1e-6, atol=0)
    for one, two in zip(gradients, others, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_checkpointed_blocks_compression_and_chunks_through_the_command_line(
    cli: Cli, tmp_path: Path, digits_root: Path
) -> None:
    backbone = {
        "class_path": "jellyfit.backbones.SEWResNet",
        "init_args": {
            "depth": 18,
            "num_classes": 10,
            "in_channels": 2,
            "base_channels": 4,
            "stem": "small",
            "checkpoint_blocks": True,
        },
    }
    outcome = cli(
        "fit",
        *("-c", CONFIGS / "digits.yaml", f"--data.root={digits_root}", f"--model.backbone={json.dumps(backbone)}"),
        *("--model.spike_compression=true", "--model.time_chunks=2", "--model.memory_format=channels_last"),
        *("--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"),
    )
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "runs/digits/0/checkpoints/last.ckpt").is_file()


# ------------------------------------------------------------ precision and memory format


def test_half_precision_and_channels_last_learn(tmp_path: Path) -> None:
    def make(**settings: Any) -> ClassificationTask:
        return ClassificationTask(network(), optimizer=lambda ps: torch.optim.Adam(ps, lr=0.02), **settings)

    plain = fitted(tmp_path, make())
    last = fitted(tmp_path, make(memory_format="channels_last"))
    assert last["train/loss"] == pytest.approx(plain["train/loss"], rel=1e-2)
    half = fitted(tmp_path, make(), precision="bf16-mixed")
    both = fitted(tmp_path, make(memory_format="channels_last", spike_compression=True), precision="bf16-mixed")
    for run in (plain, last, half, both):
        assert run["train/loss"] < 0.8, run  # ln 3 = 1.1 at the start
    assert half["train/loss"] == pytest.approx(plain["train/loss"], rel=0.25)


def test_images_stay_channels_last_in_the_network() -> None:
    task, seen = ClassificationTask(network(), memory_format="channels_last"), []
    task.backbone.conv[0][0].register_forward_hook(lambda module, args, out: seen.append(out[0]))
    task(a_batch().x)
    assert task.backbone.conv[0][0].weight.is_contiguous(memory_format=torch.channels_last)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


# ------------------------------------------------------------ parameter groups


def test_a_task_gives_the_optimizer_groups(tmp_path: Path) -> None:
    task = make_task(
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
        parameter_groups=ParameterGroups(lr_scales={"head.*.bias": 3.0}),
    )
    task.extra = nn.Parameter(torch.zeros(2))
    optimizer = task.configure_optimizers()
    found = {group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert found == {
        "lr x 1": (0.01, 0.1),
        "lr x 3, no decay": (pytest.approx(0.03), 0.0),
        "others": (0.01, 0.1),
    }
    default = make_task(parameter_groups=ParameterGroups()).configure_optimizers()
    assert {group["lr"] for group in default.param_groups} == {0.001}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"time_chunks": 0}, "time_chunks=0"),
        ({"compile": True, "time_chunks": 2}, "compile=True goes with none of time_chunks"),
        ({"compile": True, "spike_compression": True}, "compile=True goes with none"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_task(**settings)
    if "compile" not in settings:
        return
    with pytest.raises(ConfigError, match="checkpoint_blocks"):
        ClassificationTask(SEWResNet(18, num_classes=3, base_channels=4, checkpoint_blocks=True), T=2, compile=True)
