"""Tasks in Python: forward, losses and metrics, optimizers, what subclasses write, and what errors say."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from jellyfit import losses
from jellyfit.backbones import SpikingMLP
from jellyfit.callbacks import SpikePictures
from jellyfit.datamodules import Batch, InMemory, Sample, SpikingDataModule, collate_sequences, collate_stills
from jellyfit.encoders import PoissonEncoder
from jellyfit.errors import ConfigError, InputError
from jellyfit.tasks import ClassificationTask, SpikingTask

# Lightning's own: it calls what torch has deprecated, and gives advice that the command line leaves out.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch.set_anomaly_enabled(False)


class Stills(SpikingDataModule):
    classes = ("a", "b", "c")
    number = 10

    def dataset(self, split: str) -> InMemory:
        generator = torch.Generator().manual_seed({"train": 0, "val": 1, "test": 2}[split])
        return InMemory(
            Sample(torch.rand(4, generator=generator) * 5, i % 3, f"{split}-{i:02d}") for i in range(self.number)
        )

    def collate(self, samples: Any) -> Batch:
        return collate_stills(samples)


def make_task(**settings: Any) -> ClassificationTask:
    torch.manual_seed(0)
    return ClassificationTask(SpikingMLP(4, 3), **{"T": 3, **settings})


def make_trainer(folder: Path, **settings: Any) -> pl.Trainer:
    return pl.Trainer(
        **{
            "default_root_dir": folder,
            "accelerator": "cpu",
            "max_epochs": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            **settings,
        }
    )


# ------------------------------------------------------------ forward


def test_stills_are_repeated_and_sequences_are_not() -> None:
    still, x = make_task(T=3), torch.rand(5, 4) * 5
    sequence = make_task(T=None)
    assert still(x).shape == (3, 5, 3)
    torch.testing.assert_close(still(x), sequence(x.expand(3, 5, 4)), rtol=0, atol=0)


def test_every_forward_starts_from_a_reset_state() -> None:
    x = torch.rand(5, 4) * 5
    task = make_task()
    assert torch.equal(task(x), task(x))
    plain = ClassificationTask(_plain_network(), num_classes=3, T=3)  # any nn.Module will do in Python
    assert torch.equal(plain(x), plain(x))


def _plain_network() -> Any:
    from jellyfit import layers
    from jellyfit.neurons import LIFNode

    return nn.Sequential(layers.Linear(4, 3), LIFNode(), layers.Linear(3, 3))


def test_stills_without_t_say_what_to_set() -> None:
    with pytest.raises(InputError, match=r"without T takes sequences .*\[5, 4\].*set model.init_args.T"):
        make_task(T=None)(torch.rand(5, 4))


def test_counts_become_floating_point() -> None:
    counts = torch.randint(0, 9, (6, 5, 4), dtype=torch.uint8)
    task = make_task(T=None)
    assert torch.equal(task(counts), task(counts.float()))
    assert task.prepare_input(counts).dtype == torch.float32
    assert task.double().prepare_input(counts).dtype == torch.float64


def test_an_input_that_is_no_tensor() -> None:
    with pytest.raises(InputError, match="x must be a tensor; got list"):
        make_task()([1.0])  # type: ignore[arg-type]


def test_an_encoder_comes_after_the_repetition() -> None:
    x = make_task(T=50, encoder=PoissonEncoder()).prepare_input(torch.full((2, 4), 0.5))
    assert x.shape == (50, 2, 4)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(x[0], x[1]) or not torch.equal(x[1], x[2]), "every step is drawn anew"


def test_nan_in_the_input_names_the_place_when_anomalies_are_looked_for(tmp_path: Path) -> None:
    class Broken(Stills):
        def dataset(self, split: str) -> InMemory:
            samples = super().dataset(split)
            samples.samples[0].x[2] = float("nan")
            return samples

    trainer = make_trainer(tmp_path, detect_anomaly=True)
    with pytest.raises(InputError, match=r"input batch \[10, 4\] holds 1 values that are NaN .*index \[\d, 2\]"):
        trainer.fit(make_task(), datamodule=Broken())
    torch.set_anomaly_enabled(False)
    make_task()(torch.full((1, 4), float("nan")))  # not looked for otherwise: it would cost every step


# ------------------------------------------------------------ losses and metrics


def test_metrics_are_those_computed_by_hand(tmp_path: Path) -> None:
    task, data = make_task(top_k=2), Stills(batch_size=4)  # batches of 4, 4 and 2
    trainer = make_trainer(tmp_path)
    trainer.test(task, datamodule=data, verbose=False)
    samples = [data.dataset("test")[i] for i in range(10)]
    x, y = torch.stack([sample.x for sample in samples]), torch.tensor([sample.y for sample in samples])
    with torch.no_grad():
        rates = task(x).mean(0)
    logged = trainer.callback_metrics
    assert float(logged["test/accuracy"]) == pytest.approx(float((rates.argmax(-1) == y).float().mean()))
    top = rates.topk(2).indices
    assert float(logged["test/accuracy_top2"]) == pytest.approx(float((top == y[:, None]).any(-1).float().mean()))
    assert float(logged["test/loss"]) == pytest.approx(float(nn.functional.cross_entropy(rates, y)), rel=1e-5)
    assert "test/confusion" not in logged
    assert (tmp_path / "pictures/confusion_matrix.png").is_file()


def test_the_loss_of_an_epoch_weighs_batches_by_their_size(tmp_path: Path) -> None:
    task = make_task(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    losses: list[float] = []
    step = task.step

    def watched(batch: Batch, stage: str) -> Any:
        loss, values = step(batch, stage)
        losses.append(float(loss.detach()))
        return loss, values

    task.step = watched  # type: ignore[method-assign]
    trainer = make_trainer(tmp_path, max_epochs=2)
    trainer.fit(task, datamodule=Stills(batch_size=4))  # batches of 4, 4 and 2
    for stage, (a, b, c) in (("train", losses[6:9]), ("val", losses[9:])):
        expected = (4 * a + 4 * b + 2 * c) / 10
        assert float(trainer.callback_metrics[f"{stage}/loss"]) == pytest.approx(expected, rel=1e-7)


def test_a_task_that_runs_its_training_step_by_itself_logs_its_own_loss(tmp_path: Path) -> None:
    class Own(ClassificationTask):
        def configure_metrics(self, stage: str) -> dict[str, Metric]:
            return {}

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss, _ = self.step(batch, "train")
            self.log("train/loss", 0.0 * loss.detach() + 7.0, on_epoch=True, on_step=False, batch_size=len(batch.y))
            return loss

    trainer = make_trainer(tmp_path)
    trainer.fit(Own(SpikingMLP(4, 3), T=3), datamodule=Stills(batch_size=4))
    assert float(trainer.callback_metrics["train/loss"]) == 7.0
    assert 0 < float(trainer.callback_metrics["val/loss"]) < 7.0


def test_what_a_broken_off_run_counted_is_forgotten(tmp_path: Path) -> None:
    class Broken(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise ValueError("broken")

    task = make_task()
    with pytest.raises(ValueError, match="broken"):
        make_trainer(tmp_path, callbacks=[Broken()]).fit(task, datamodule=Stills(batch_size=4))
    assert task.loss_of("train").update_called
    trainer = make_trainer(tmp_path)
    trainer.fit(task, datamodule=Stills(batch_size=4))
    again = copy.deepcopy(task)
    one, two = make_trainer(tmp_path), make_trainer(tmp_path)
    one.test(task, datamodule=Stills(batch_size=4), verbose=False)
    two.test(again, datamodule=Stills(), verbose=False)
    assert one.callback_metrics["test/accuracy"] == two.callback_metrics["test/accuracy"]
    torch.testing.assert_close(one.callback_metrics["test/loss"], two.callback_metrics["test/loss"], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("top_k", "expected"), [(5, set()), (3, set()), (2, {"accuracy_top2"}), (1, set()), (0, set())]
)
def test_top_k_needs_more_than_k_classes(top_k: int, expected: set[str]) -> None:
    assert set(make_task(top_k=top_k).configure_metrics("val")) - {"accuracy"} == expected


def test_firing_rates_are_logged_for_every_layer(tmp_path: Path) -> None:
    for wanted in (True, False):
        task = ClassificationTask(SpikingMLP(4, 3, hidden=[6]), T=3, log_firing_rates=wanted)
        trainer = make_trainer(tmp_path)
        trainer.fit(task, datamodule=Stills())
        rates = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("firing_rate/")}
        assert bool(rates) == wanted
        assert all(0 <= float(value) <= 1 for value in rates.values())


def test_predictions(tmp_path: Path) -> None:
    task = make_task()
    (part,) = make_trainer(tmp_path).predict(task, datamodule=Stills()) or ()
    assert part["ids"] == [f"test-{i:02d}" for i in range(10)]
    assert torch.equal(part["preds"], part["scores"].argmax(-1))
    assert part["scores"].shape == (10, 3)
    assert task.predict_step((torch.rand(2, 4), torch.zeros(2, dtype=torch.long)), 0)["ids"] is None


def test_the_readout_is_that_of_the_loss_unless_given() -> None:
    assert isinstance(make_task(loss=losses.MembraneCrossEntropy()).readout, losses.MembraneReadout)
    own = losses.MembraneReadout("max")
    assert make_task(readout=own).readout is own
    assert isinstance(make_task().loss, losses.RateCrossEntropy)


def test_padding_does_not_change_the_loss() -> None:
    task = make_task(T=None)
    x, y = torch.rand(3, 2, 4) * 5, torch.tensor([0, 1])
    padded = torch.cat([x, torch.rand(4, 2, 4)])
    loss, values = task.step(Batch(x, y), "train")
    other, same = task.step(Batch(padded, y, lengths=torch.tensor([3, 3])), "train")
    torch.testing.assert_close(other, loss)
    torch.testing.assert_close(same["preds"], values["preds"])


@pytest.mark.parametrize("loss", [losses.RateCrossEntropy(), losses.PerStepCrossEntropy(), losses.RateMSE()])
def test_a_padded_batch_is_its_samples_one_by_one(tmp_path: Path, loss: losses.Loss) -> None:
    class Sequences(Stills):
        """Samples of 1 to 4 steps; ``size`` of them a batch, so that padding is what differs."""

        def dataset(self, split: str) -> InMemory:
            stills = super().dataset(split)
            return InMemory(
                Sample(sample.x.expand(1 + i % 4, 4), *sample[1:]) for i, sample in enumerate(stills.samples)
            )

        def collate(self, samples: Any) -> Batch:
            return collate_sequences(samples)

    logged = []
    for size in (1, 10):
        torch.manual_seed(0)
        task = ClassificationTask(SpikingMLP(4, 3, hidden=[6]), T=None, loss=copy.deepcopy(loss), top_k=2)
        trainer = make_trainer(tmp_path)
        trainer.validate(task, datamodule=Sequences(batch_size=size), verbose=False)
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        predictions = trainer.predict(task, datamodule=Sequences(batch_size=size)) or []
        scores = torch.cat([part["scores"] for part in predictions])  # type: ignore[call-overload]
        logged.append({**values, "scores": scores})
    alone, padded = logged
    torch.testing.assert_close(padded.pop("scores"), alone.pop("scores"))
    assert {"val/loss", "val/accuracy", "firing_rate/head.2", "firing_rate/head.4"} <= set(alone)
    assert padded == pytest.approx(alone, rel=1e-6)


def test_mixed_labels_train_and_count_as_their_largest_class(tmp_path: Path) -> None:
    mixed = torch.tensor([[0.6, 0.4, 0.0], [0.1, 0.2, 0.7]])

    class Mixed(Stills):
        def collate(self, samples: Any) -> Batch:
            batch = super().collate(samples)
            return batch._replace(y=mixed[torch.arange(len(batch.y)) % 2])

    task = make_task(top_k=2)
    trainer = make_trainer(tmp_path, callbacks=[SpikePictures()], limit_val_batches=0)
    trainer.fit(task, datamodule=Mixed(batch_size=4))
    assert 0 < float(trainer.callback_metrics["train/loss"]) < 3
    x = torch.rand(2, 4) * 5
    loss, values = task.step(Batch(x, mixed), "train")
    assert values["target"].tolist() == [0, 2]
    expected = nn.functional.cross_entropy(task(x).mean(0), mixed)
    torch.testing.assert_close(loss, expected)
    assert (tmp_path / "pictures/spike_raster.png").is_file()


def test_a_subclass_adds_a_metric_of_its_own(tmp_path: Path) -> None:
    class Mine(ClassificationTask):
        def configure_metrics(self, stage: str) -> dict[str, Metric]:
            return {**super().configure_metrics(stage), "mean_label": MeanMetric()}

        def update_metrics(self, metrics: Any, **values: Any) -> None:
            for metric in metrics:
                if isinstance(metric, MeanMetric):
                    metric.update(values["target"])
                else:
                    metric.update(values["preds"], values["target"])

    trainer = make_trainer(tmp_path)
    trainer.fit(Mine(SpikingMLP(4, 3), T=3), datamodule=Stills())
    expected = sum(i % 3 for i in range(10)) / 10
    for stage in ("train", "val"):
        assert float(trainer.callback_metrics[f"{stage}/mean_label"]) == pytest.approx(expected)


def test_a_task_without_step_says_what_to_write() -> None:
    task = SpikingTask(SpikingMLP(4, 3), T=3)
    with pytest.raises(TypeError, match=r"SpikingTask must define step\(self, batch, stage\)"):
        task.training_step((torch.rand(2, 4), torch.zeros(2, dtype=torch.long)), 0)


# ------------------------------------------------------------ optimizers


def test_the_default_optimizer() -> None:
    optimizer = make_task().configure_optimizers()
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["lr"] == 1e-3


def test_a_scheduler_steps_every_epoch_or_every_step(tmp_path: Path) -> None:
    for interval, expected in (("epoch", 0.5**2), ("step", 0.5**6)):  # 2 epochs of 3 batches
        task = make_task(
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0),
            scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5),
            scheduler_interval=interval,
        )
        trainer = make_trainer(tmp_path, max_epochs=2)
        trainer.fit(task, datamodule=Stills(batch_size=4))
        assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(expected)


def test_reduce_on_plateau_watches_the_monitored_metric(tmp_path: Path) -> None:
    def reduce(optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", 0.5, patience=0, eps=0.0)

    task = make_task(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-9), scheduler=reduce)
    assert task.configure_optimizers()["lr_scheduler"]["monitor"] == "val/accuracy"
    trainer = make_trainer(tmp_path, max_epochs=3)
    trainer.fit(task, datamodule=Stills(batch_size=4))
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-9 * 0.25), "no better in epochs 2 and 3"


def test_frozen_parameters_are_left_out() -> None:
    task = make_task()
    parameters = list(task.parameters())
    parameters[0].requires_grad_(False)
    (group,) = task.configure_optimizers().param_groups
    assert len(group["params"]) == len(parameters) - 1
    for parameter in parameters:
        parameter.requires_grad_(False)
    with pytest.raises(ConfigError, match="no parameter to train"):
        task.configure_optimizers()


# ------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"T": 0}, "T=0: expected at least 1 time step"),
        ({"scheduler_interval": "day"}, "expected 'epoch' or 'step'"),
        ({"memory_format": "mine"}, "expected 'contiguous' or 'channels_last'"),
        ({"num_classes": 1}, "number of classes is 1; expected 2 or more"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_task(**settings)


def test_an_unknown_number_of_classes() -> None:
    with pytest.raises(ConfigError, match="number of classes is None.*set num_classes in Sequential"):
        ClassificationTask(_plain_network(), T=3)


def test_a_task_can_be_copied_and_pickled(tmp_path: Path) -> None:
    task = make_task(encoder=None)
    make_trainer(tmp_path).fit(task, datamodule=Stills())
    x = torch.rand(2, 4) * 5
    for again in (copy.deepcopy(task), pickle.loads(pickle.dumps(task))):
        assert torch.equal(again(x), task(x))
        assert again._trainer is None
        make_trainer(tmp_path).fit(again, datamodule=Stills())
        pairs = zip(again.parameters(), task.parameters(), strict=True)
        assert not all(torch.equal(a, b) for a, b in pairs), "weights of its own"


def test_a_checkpoint_made_in_python_loads_with_plain_data_only(tmp_path: Path) -> None:
    task = make_task()
    trainer = make_trainer(tmp_path)
    trainer.fit(task, datamodule=Stills())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert "jellyfit_processes" in torch.load(tmp_path / "a.ckpt", weights_only=True)
    again = ClassificationTask.load_from_checkpoint(tmp_path / "a.ckpt", backbone=SpikingMLP(4, 3), T=3)
    x: Tensor = torch.rand(2, 4)
    assert torch.equal(again(x), task(x))
