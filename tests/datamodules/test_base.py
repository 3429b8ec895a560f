"""Batches, the order of samples, and datamodules that people write."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jellyfit import events
from jellyfit.datamodules import (
    Batch,
    EventDataModule,
    InMemory,
    ResumableSampler,
    Sample,
    SpikingDataModule,
    as_batch,
    collate_sequences,
    collate_stills,
)
from jellyfit.errors import ConfigError, DataError, InputError

# ------------------------------------------------------------ batches


def test_sequences_become_one_batch() -> None:
    samples = [Sample(np.full((4, 3), n, np.uint8), n, f"s{n}") for n in range(5)]
    batch = collate_sequences(samples)
    assert batch.x.shape == (4, 5, 3)
    assert batch.x.dtype == torch.uint8
    assert batch.x[2, :, 1].tolist() == [0, 1, 2, 3, 4]
    assert batch.y.tolist() == [0, 1, 2, 3, 4]
    assert batch.ids == ["s0", "s1", "s2", "s3", "s4"]
    assert batch.lengths is None


def test_shorter_sequences_are_padded_with_zeros_at_the_end() -> None:
    samples = [
        Sample(torch.ones(length, 2, dtype=dtype), 0, "a") for length, dtype in ((3, torch.uint8), (1, torch.int16))
    ]
    batch = collate_sequences(samples)
    assert batch.x.shape == (3, 2, 2)
    assert batch.x.dtype == torch.int16, "wide enough for all"
    assert batch.x[:, 1].tolist() == [[1, 1], [0, 0], [0, 0]]
    assert batch.lengths.tolist() == [3, 1]


def test_a_batch_knows_where_its_samples_have_not_ended() -> None:
    samples = [Sample(torch.ones(length, 2), 0, "a") for length in (3, 1, 2)]
    batch = collate_sequences(samples)
    assert batch.mask().tolist() == [[True, True, True], [True, False, True], [True, False, False]]
    assert torch.equal(batch.x.any(-1), batch.mask())
    assert collate_sequences(samples[:1]).mask().all()
    with pytest.raises(InputError, match="mask over time"):
        Batch(torch.zeros(4, 3), torch.zeros(4)).mask()
    with pytest.raises(InputError, match="lengths"):
        batch._replace(lengths=torch.tensor([4, 1, 1])).mask()


def test_stills_become_one_batch() -> None:
    batch = collate_stills([Sample(np.full((1, 2, 2), n, np.float32), n, str(n)) for n in range(3)])
    assert batch.x.shape == (3, 1, 2, 2)
    assert batch.y.dtype == torch.int64


def test_batches_of_other_datamodules_are_accepted() -> None:
    x, y, lengths = torch.zeros(2, 3), torch.zeros(3), torch.ones(3)
    batch = Batch(x, y)
    assert as_batch(batch) is batch
    for given in ((x, y), [x, y], {"x": x, "y": y}):
        assert as_batch(given) == (x, y, None, None)
    assert as_batch((x, y, ["a"], lengths)) == (x, y, ["a"], lengths)
    assert as_batch({"x": x, "y": y, "lengths": lengths, "ids": ["a"]}) == (x, y, ["a"], lengths)


@pytest.mark.parametrize("given", [torch.zeros(2), (torch.zeros(2),), {"x": 1}, [1, 2], "xy", (torch.zeros(2),) * 5])
def test_anything_else_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match=f"a batch is .*got {type(given).__name__}"):
        as_batch(given)


# ------------------------------------------------------------ order of samples


def test_every_epoch_has_an_order_of_its_own() -> None:
    sampler = ResumableSampler(50, shuffle=True, seed=3)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert sorted(orders[-1]) == list(range(50))
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]
    assert list(ResumableSampler(50, shuffle=True, seed=4)) != orders[0]
    assert list(ResumableSampler(50, shuffle=False, seed=3)) == list(range(50))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_processes_share_the_samples_without_repeating_any(shuffle: bool, ranks: int) -> None:
    samplers = [ResumableSampler(20, shuffle, 0, ranks, rank) for rank in range(ranks)]
    parts = [list(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(part) for part in parts]
    assert sorted(chain.from_iterable(parts)) == list(range(20))


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_in_training_processes_get_equally_many(ranks: int) -> None:
    parts = [list(ResumableSampler(20, True, 0, ranks, rank, even=True)) for rank in range(ranks)]
    assert {len(part) for part in parts} == {20 // ranks}
    seen = list(chain.from_iterable(parts))
    assert len(seen) == len(set(seen))


def test_a_sampler_can_say_the_epoch_too() -> None:
    plain, both = (ResumableSampler(20, True, 3, 2, 1, with_epoch=pairs) for pairs in (False, True))
    for epoch in (0, 4):
        plain.set_epoch(epoch)
        both.set_epoch(epoch)
        both.start = plain.start = (4, 6)
        assert list(both) == [(epoch, index) for index in plain]


def test_an_epoch_can_start_in_its_middle() -> None:
    sampler = ResumableSampler(20, shuffle=True, seed=0)
    sampler.set_epoch(2)
    whole = list(sampler)
    sampler.start = (2, 8)
    assert list(sampler) == whole[8:]
    assert len(sampler) == 20
    sampler.set_epoch(3)
    assert len(list(sampler)) == 20, "only that epoch"


# ------------------------------------------------------------ datamodules


class Recordings(EventDataModule):
    sensor_size = (6, 8)
    classes = ("left", "right")

    def samples(self, split: str) -> Iterable[tuple[str, Any, int]]:
        for label, name in enumerate(self.classes):
            for path in sorted((self.root / split / name).glob("*.npz")):
                yield path.stem, path, label


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for split, number in (("train", 3), ("val", 2), ("test", 2)):
        for name in ("left", "right"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(number):
                n = 40 + i
                np.savez(
                    folder / f"{name}-{i}.npz",
                    t=np.sort(generator.integers(0, 1000 * (i + 1), n)),
                    x=generator.integers(0, 8, n),
                    y=generator.integers(0, 6, n),
                    p=generator.integers(0, 2, n),
                )
    return tmp_path


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
def test_own_recordings_in_a_few_lines(recordings: Path, in_memory: bool, workers: int) -> None:
    data = Recordings(
        recordings, events.FixedNumber(T=5), batch_size=4, in_memory=in_memory, num_workers=workers, pin_memory=False
    )
    for stage in ("fit", "test"):
        data.setup(stage)
    train = list(data.train_dataloader())
    assert [len(batch.y) for batch in train] == [4, 2]
    (test,) = data.test_dataloader()
    assert test.x.shape == (5, 4, 2, 6, 8)
    assert test.ids == ["left-0", "left-1", "right-0", "right-1"]
    assert test.y.tolist() == [0, 0, 1, 1]
    assert test.x.sum((0, 2, 3, 4)).tolist() == [40, 41, 40, 41]
    (predict,) = data.predict_dataloader()
    assert torch.equal(predict.x, test.x)


def test_own_recordings_of_different_length(recordings: Path) -> None:
    data = Recordings(recordings, events.FixedDuration(500), batch_size=4)
    data.setup("test")
    (batch,) = data.test_dataloader()
    assert batch.lengths is not None
    assert len(batch.x) == int(batch.lengths.max())
    assert int(batch.lengths.min()) < len(batch.x)


def test_an_unreadable_recording_is_named(recordings: Path) -> None:
    np.savez(recordings / "test/left/left-0.npz", t=[1], x=[100], y=[0], p=[0])
    data = Recordings(recordings)
    data.setup("test")
    with pytest.raises(DataError, match="Recordings, sample 'left-0'"):
        list(data.test_dataloader())


def test_a_label_without_a_class_is_named(recordings: Path) -> None:
    class Wrong(Recordings):
        def samples(self, split: str) -> Iterable[tuple[str, Any, int]]:
            return [("a", "nowhere.npz", 2)]

    with pytest.raises(DataError, match=r"sample 'a': label 2 is outside 0 to 1 \(2 classes\)"):
        Wrong(recordings).setup("test")


def test_an_empty_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Recordings: the train split holds no samples"):
        Recordings(tmp_path).setup("fit")


def test_what_a_subclass_must_write_is_said() -> None:
    with pytest.raises(TypeError, match=r"SpikingDataModule must define dataset\(self, split\)"):
        SpikingDataModule().setup("fit")
    with pytest.raises(TypeError, match=r"EventDataModule must define samples\(self, split\)"):
        EventDataModule("x").setup("fit")


@pytest.mark.parametrize("setting", ["batch_size=0", "num_workers=-1"])
def test_settings_that_cannot_be(setting: str) -> None:
    name, _, value = setting.partition("=")
    with pytest.raises(ConfigError, match=setting):
        SpikingDataModule(**{name: int(value)})


def test_loading_draws_nothing_from_the_global_generator() -> None:
    class Data(SpikingDataModule):
        def dataset(self, split: str) -> InMemory:
            return InMemory(Sample(torch.zeros(2, 1), 0, str(i)) for i in range(9))

    data = Data(batch_size=4)
    data.setup("fit")
    before = torch.get_rng_state()
    first, second = ([batch.ids for batch in data.train_dataloader()] for _ in range(2))
    list(data.val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)
    assert first == second, "the order depends on seed and epoch alone"
