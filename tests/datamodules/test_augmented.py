"""Augmented training samples: the same for seed, epoch and sample, whoever loads them; transforms of others; labels."""

from __future__ import annotations

import doctest
import pickle
import random
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from jellyfit import events, frames, rng
from jellyfit.datamodules import Batch, Digits, EventDataModule, Sample, augmented, collate_sequences
from jellyfit.errors import ConfigError, DataError

SIZE = (12, 16)


class Recordings(EventDataModule):
    """Recordings made up on the spot: sample i of class i % 3."""

    sensor_size = SIZE
    classes = ("a", "b", "c")

    def samples(self, split: str) -> Iterable[tuple[str, Any, int]]:
        part = ("train", "val", "test").index(split)
        return [(f"{split}-{i}", (part, i), i % 3) for i in range((10, 4, 4)[part])]

    def read(self, source: Any) -> events.EventArray:
        draws = np.random.default_rng(source)
        n = 200
        x, y = draws.integers(0, SIZE[1], n), draws.integers(0, SIZE[0], n)
        return events.make_events(np.sort(draws.integers(0, 1000, n)), x, y, draws.integers(0, 2, n))


class Decimate:
    """A transform of tonic's kind: called with events alone, draws from the global generators, may write into them."""

    def __init__(self, share: float = 0.5) -> None:
        self.share = share

    def __call__(self, events: np.ndarray) -> np.ndarray:
        assert set("xytp") == set(events.dtype.names or ())
        events["t"] += random.randint(0, 3)
        kept = np.random.rand(len(events)) < self.share  # noqa: NPY002
        return events[kept & (torch.rand(len(events)) < 0.9).numpy()]


class Halve(torch.nn.Module):
    """A transform of frames of torchvision's kind."""

    def forward(self, frames: Tensor) -> Tensor:
        return frames * (torch.rand(()) if frames.is_floating_point() else 1)


ALL: dict[str, Any] = {
    "event_transforms": [events.EventDrop(), Decimate(), events.Roll(2)],
    "frame_transforms": [frames.RandomCrop(2), Halve(), Halve(), frames.Rotate(mode="bilinear")],
    "batch_transforms": [frames.CutMix(), frames.Mixup()],
}


def build(**settings: Any) -> Recordings:
    data = Recordings(
        "nowhere", **{"frames": events.FixedNumber(T=4), "batch_size": 4, "pin_memory": False, **settings}
    )
    data.setup("fit")
    return data


def epochs(data: Recordings, number: int = 2) -> list[list[Batch]]:
    loader, batches = data.train_dataloader(), []
    for epoch in range(number):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        batches.append(list(loader))
    return batches


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.ids == b.ids
        assert a.x.dtype == b.x.dtype
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)


# ------------------------------------------------------------ reproducible


@pytest.mark.parametrize("kinds", [["event_transforms"], ["frame_transforms"], ["batch_transforms"], list(ALL)])
@pytest.mark.parametrize("in_memory", [False, True])
def test_samples_are_the_same_whatever_the_number_of_workers(kinds: list[str], in_memory: bool) -> None:
    settings = {kind: ALL[kind] for kind in kinds}
    alone = epochs(build(in_memory=in_memory, **settings))
    for workers in (1, 2):
        for mine, theirs in zip(alone, epochs(build(num_workers=workers, **settings)), strict=True):
            assert_equal(mine, theirs)


@pytest.mark.parametrize("kind", ["event_transforms", "batch_transforms"])
def test_every_epoch_sample_and_seed_has_draws_of_its_own(kind: str) -> None:
    def by_id(batches: list[Batch]) -> dict[str, Tensor]:
        return {name: batch.x[:, n].float() for batch in batches for n, name in enumerate(batch.ids or [])}

    first, second = (by_id(epoch) for epoch in epochs(build(**{kind: ALL[kind]})))
    other = by_id(epochs(build(seed=1, **{kind: ALL[kind]}))[0])
    assert first.keys() == second.keys() == other.keys()
    for again in (second, other):
        assert sum(torch.equal(first[name], again[name]) for name in first) <= 2


def test_an_epoch_gone_on_with_in_its_middle_is_the_same() -> None:
    whole = epochs(build(**ALL))
    data = build(**ALL, num_workers=1)
    loader = data.train_dataloader()
    loader.load_state_dict({"epoch": 1, "samples": data.batch_size})  # type: ignore[attr-defined]
    loader.sampler.set_epoch(1)  # type: ignore[attr-defined]
    assert_equal(list(loader), whole[1][1:])


def test_loading_leaves_the_global_generators_as_they_are() -> None:
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    random.seed(3), np.random.seed(3), torch.manual_seed(3)  # noqa: NPY002
    expected = random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
    random.seed(3), np.random.seed(3), torch.manual_seed(3)  # noqa: NPY002
    one = epochs(build(**ALL))
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected  # noqa: NPY002
    random.setstate(before[0])
    torch.set_rng_state(before[2])
    assert_equal(epochs(build(**ALL))[0], one[0])


def test_streams_of_places_differ_even_by_zeros_at_the_end() -> None:
    places = [(), (0,), (0, 0), (0, 0, 0), (1,), (0, 1), (1, 0)]
    draws = [rng.generator_of(7, *place).integers(2**60) for place in places]
    assert len(set(draws)) == len(places)
    assert np.random.default_rng([7, 3]).integers(2**60) != rng.generator_of(7, 3).integers(2**60)


def test_an_error_within_seeded_globals_restores_them_too() -> None:
    before = torch.get_rng_state()
    with pytest.raises(KeyError), rng.seeded_globals(np.random.default_rng(0)):
        torch.rand(3)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------ what is augmented


def test_only_training_samples_are_augmented() -> None:
    plain, data = build(), build(**ALL)
    data.setup("test")
    plain.setup("test")
    for split in ("val", "test"):
        loaders = (getattr(each, f"{split}_dataloader")() for each in (plain, data))
        assert_equal(*(list(loader) for loader in loaders))
    (batch, *_), (augmented_batch, *_) = epochs(plain, 1)[0], epochs(data, 1)[0]
    assert batch.ids == augmented_batch.ids, "the order of samples stays"
    assert not torch.equal(batch.x.float(), augmented_batch.x.float())
    assert batch.y.dtype == torch.int64


def test_samples_are_what_the_transforms_make_of_them_one_after_the_other() -> None:
    ways = [events.DropTime(0.3), events.Roll(3)]
    data = build(event_transforms=ways, frame_transforms=[frames.CutOut(5)], seed=5)
    batch = epochs(data, 1)[0][0]
    index = int((batch.ids or [])[1].split("-")[1])
    draws = rng.generator_of(5, 0, index)
    recording = data.read((0, index))
    for way in ways:
        recording = way.for_sensor(SIZE)(recording, draws)
    expected = frames.CutOut(5)(events.to_frames(recording, data.frames, SIZE), draws)
    assert torch.equal(batch.x[:, 1], torch.from_numpy(expected))


def test_a_recording_that_augmentation_empties_is_frames_of_zeros_and_an_empty_one_an_error() -> None:
    (batch, *_) = epochs(build(event_transforms=[events.DropEvents(1.0)]), 1)[0]
    assert batch.x.shape == (4, 4, 2, *SIZE)
    assert not batch.x.any()

    class Empty(Recordings):
        def read(self, source: Any) -> events.EventArray:
            return super().read(source)[:0]

    data = Empty("nowhere", event_transforms=[events.DropTime()])
    data.setup("fit")
    with pytest.raises(DataError, match=r"Empty, sample 'train-\d': A recording without events"):
        list(data.train_dataloader())


@pytest.mark.parametrize(
    ("frames_", "channels"),
    [
        (events.VoxelGrid(5), 1),
        (events.TimeSurface(events.FixedNumber(5), 300.0), 2),
        (events.CountsAndTimes(events.FixedNumber(5)), 4),
    ],
)
def test_other_representations_go_through_loaders_and_augmentation(frames_: events.Framing, channels: int) -> None:
    for settings in ({}, {"event_transforms": [events.DropTime()], "frame_transforms": [frames.Rotate()]}):
        (batch, *_) = epochs(build(frames=frames_, **settings), 1)[0]
        assert batch.x.shape == (5, 4, channels, *SIZE)
        assert batch.x.dtype == torch.float32


# ------------------------------------------------------------ transforms of others


def test_transforms_that_take_events_alone_work_unchanged_in_the_same_list() -> None:
    plain = build(event_transforms=[events.TimeScale(1.0)])
    for transforms in ([Decimate(0.5)], [events.TimeScale(1.0), Decimate(0.5), events.HorizontalFlip()]):
        for before, after in zip(epochs(plain, 1)[0], epochs(build(event_transforms=transforms), 1)[0], strict=True):
            kept = after.x.sum((0, 2, 3, 4)) / before.x.sum((0, 2, 3, 4))
            assert ((kept > 0.3) & (kept < 0.6)).all()


def test_tonics_transforms_work_unchanged() -> None:
    tonic = pytest.importorskip("tonic", reason="tonic is not installed; the same calling convention is tested above")
    transforms = [
        tonic.transforms.DropEvent(p=0.3),
        tonic.transforms.RandomFlipLR(sensor_size=(SIZE[1], SIZE[0], 2), p=1.0),
        tonic.transforms.TimeJitter(std=10.0, sort_timestamps=True),
        events.EventDrop(),
    ]
    data = build(event_transforms=transforms)
    one, two = epochs(data)
    assert_equal(one, epochs(build(event_transforms=transforms, num_workers=1))[0])
    assert not torch.equal(one[0].x, two[0].x)
    assert 0 < int(one[0].x[:, 0].sum()) <= 140


def test_what_a_transform_of_others_gives_back_is_checked() -> None:
    def to_list(events: np.ndarray) -> list[Any]:
        return events.tolist()

    def outside(events: np.ndarray) -> np.ndarray:
        events["x"] = 40
        return events

    for function, words in ((to_list, "structured array with fields t, x, y, p; got list"), (outside, "lie outside")):
        with pytest.raises(DataError, match=rf"Recordings, sample 'train-\d': .*{words}"):
            epochs(build(event_transforms=[function]))


# ------------------------------------------------------------ labels


@pytest.mark.parametrize("kind", [frames.Mixup, frames.CutMix])
def test_labels_of_mixed_batches_are_shares_of_the_classes(kind: Any) -> None:
    for batch, plain in zip(epochs(build(batch_transforms=[kind()]), 1)[0], epochs(build(), 1)[0], strict=True):
        assert batch.y.shape == (len(plain.y), 3)
        assert batch.y.dtype == torch.float32
        torch.testing.assert_close(batch.y.sum(1), torch.ones(len(plain.y)))
        assert set(batch.y.nonzero()[:, 1].tolist()) <= set(plain.y.tolist())


def test_event_mix_takes_its_partners_from_the_training_set() -> None:
    batches = epochs(build(event_transforms=[events.EventMix(), events.DropTime(0.1)]), 3)
    labels = torch.cat([batch.y for epoch in batches for batch in epoch])
    assert labels.shape == (30, 3)
    torch.testing.assert_close(labels.sum(1), torch.ones(30))
    assert 5 < int((labels.max(1).values < 1).sum()) <= 30, "partners are often of another class"
    never = epochs(build(event_transforms=[events.EventMix(p=0.0)]), 1)[0]
    for batch, plain in zip(never, epochs(build(), 1)[0], strict=True):
        assert torch.equal(batch.x, plain.x)
        assert torch.equal(batch.y.argmax(1), plain.y)


def test_mixing_padded_batches_keeps_their_lengths() -> None:
    class Longer(Recordings):
        def read(self, source: Any) -> events.EventArray:
            recording = super().read(source).copy()
            recording["t"] *= 1 + source[1] % 3
            return recording

    settings: dict[str, Any] = {"frames": events.FixedDuration(500), "batch_transforms": [frames.Mixup()]}
    data = Longer("nowhere", batch_size=5, **settings)
    data.setup("fit")
    for batch in data.train_dataloader():
        assert batch.lengths is not None
        assert len(batch.x) == int(batch.lengths.max())
        assert not batch.x[~batch.mask()].any(), "what lies behind the end is zeros"
        assert batch.x[batch.lengths - 1, torch.arange(5)].flatten(1).any(1).all()


def test_soft_labels_of_samples_are_collated() -> None:
    batch = collate_sequences([Sample(np.zeros((2, 1)), torch.tensor([0.25, 0.75]), str(n)) for n in range(3)])
    assert batch.y.tolist() == [[0.25, 0.75]] * 3


# ------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"event_transforms": [frames.Roll()]}, "event_transforms[0]=Roll(pixels=5): this belongs into frame_trans"),
        ({"frame_transforms": [events.EventMix()]}, "this belongs into event_transforms"),
        ({"frame_transforms": [frames.Mixup()]}, "this belongs into batch_transforms"),
        ({"batch_transforms": [frames.Roll()]}, "this belongs into frame_transforms"),
        ({"batch_transforms": [len]}, "expected a BatchTransform, such as jellyfit.frames.Mixup"),
        ({"event_transforms": [events.DropTime(), events.DropTime]}, "event_transforms[1]="),
        ({"event_transforms": [events.DropTime]}, "expected an object, DropTime(...), not its class"),
        ({"event_transforms": [3]}, "expected a transform, or a function of events"),
        ({"frame_transforms": frames.Roll()}, "frame_transforms=Roll(pixels=5): expected a list"),
    ],
)
def test_transforms_in_the_wrong_place_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        Recordings("nowhere", **settings)


def test_a_datamodule_with_transforms_can_be_pickled() -> None:
    data = build(**ALL)
    again = pickle.loads(pickle.dumps(data))
    again.setup("fit")
    assert_equal(epochs(data)[1], epochs(again)[1])
    dataset = data.dataset("train")
    shipped = pickle.loads(pickle.dumps(dataset))  # as to a worker that is started afresh
    for place in ((0, 3), (1, 3)):
        np.testing.assert_array_equal(shipped[place].sample.x, dataset[place].sample.x)
    np.testing.assert_array_equal(dataset[3].sample.x, dataset[0, 3].sample.x)


def test_digits_are_augmented(digits_root: Path) -> None:
    data = Digits(
        digits_root, batch_size=8, event_transforms=[events.NDA(flip=False)], batch_transforms=[frames.Mixup()]
    )
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.x.shape == (10, 8, 2, 34, 34)
    assert batch.y.shape == (8, 10)


def test_examples_run() -> None:
    assert doctest.testmod(augmented).failed == 0
    assert doctest.testmod(rng).failed == 0
