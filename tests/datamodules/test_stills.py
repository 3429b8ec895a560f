"""Datamodules of still images: augmentation, batches, uint8 until the device, broken files."""

from __future__ import annotations

import pickle
import random
import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from jellyfit import events, frames, images
from jellyfit.backbones import SpikingConvNet
from jellyfit.datamodules import Batch, BrokenImageWarning, ImageDataModule, ImageSource
from jellyfit.errors import ConfigError, DataError
from jellyfit.images import BrokenImageError
from jellyfit.tasks import ClassificationTask

COUNT = 12


def picture(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (3, 10, 12), dtype=np.uint8)


class Source(ImageSource):
    def __init__(self, broken: frozenset[int] = frozenset()) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return COUNT

    def describe(self, index: int) -> tuple[str, int]:
        return f"image-{index}", index % 3

    def read(self, index: int, first: images.Window | None, rng: np.random.Generator) -> np.ndarray:
        if index in self.broken:
            raise BrokenImageError(f"image-{index} is a broken image.")
        return picture(index)


class Data(ImageDataModule):
    classes = ("a", "b", "c")
    broken: frozenset[int] = frozenset()

    def images(self, split: str) -> ImageSource:
        return Source(self.broken if split == "train" else frozenset())


def batches(epoch: int = 0, **settings: Any) -> list[Batch]:
    data = Data(**{"batch_size": 4, "pin_memory": False, **settings})
    data.setup("fit")
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def by_id(found: list[Batch]) -> dict[str, torch.Tensor]:
    return {name: batch.x[n] for batch in found for n, name in enumerate(batch.ids or ())}


def test_batches_are_the_pixels_as_they_are() -> None:
    found = batches()
    assert {batch.x.dtype for batch in found} == {torch.uint8}
    assert len(by_id(found)) == COUNT
    for name, pixels in by_id(found).items():
        np.testing.assert_array_equal(pixels.numpy(), picture(int(name.split("-")[1])))


TRANSFORMS = [images.RandomResizedCrop(8), frames.HorizontalFlip(), images.RandAugment(), images.RandomErasing(p=0.5)]


def test_augmentation_depends_on_seed_epoch_and_sample_alone() -> None:
    one, again = by_id(batches(transforms=TRANSFORMS)), by_id(batches(transforms=TRANSFORMS, batch_size=3))
    later, other = by_id(batches(1, transforms=TRANSFORMS)), by_id(batches(transforms=TRANSFORMS, seed=1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], later[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert {tuple(pixels.shape) for pixels in one.values()} == {(3, 8, 8)}


@pytest.mark.slow
def test_worker_processes_augment_alike() -> None:
    mixed: dict[str, Any] = {"transforms": TRANSFORMS, "batch_transforms": [frames.Mixup()]}
    for one, two in zip(batches(**mixed), batches(**mixed, num_workers=2), strict=True):
        assert one.ids == two.ids
        assert torch.equal(one.x, two.x)
        assert torch.equal(one.y, two.y)


def test_evaluation_has_transforms_of_its_own() -> None:
    data = Data(batch_size=COUNT, transforms=TRANSFORMS, eval_transforms=[images.CenterCrop(6)])
    data.setup("fit")
    (batch,) = data.val_dataloader()
    assert batch.ids == [f"image-{i}" for i in range(COUNT)]
    np.testing.assert_array_equal(batch.x[5].numpy(), picture(5)[:, 2:8, 3:9])


def test_transforms_run_in_the_order_given_whatever_they_take() -> None:
    invert = ImageOps.invert
    crop = frames.RandomCrop(padding=0, size=(4, 4))
    for order, corner in (([invert, crop], 255), ([crop, invert], 255)):
        data = Data(transforms=order, batch_size=COUNT)
        data.setup("fit")
        (batch,) = data.train_dataloader()
        assert batch.x.shape[-2:] == (4, 4)
        source = corner - picture(int((batch.ids or [""])[0].split("-")[1]))
        windows = [source[:, y : y + 4, x : x + 4] for y in range(7) for x in range(9)]
        assert any(np.array_equal(batch.x[0].numpy(), window) for window in windows)


def test_a_function_that_draws_from_the_global_generators_repeats_and_leaves_them() -> None:
    def sometimes(image: Image.Image) -> Image.Image:
        return ImageOps.invert(image) if random.random() < 0.5 else image

    random.seed(1)
    before = random.getstate()
    one, two = by_id(batches(transforms=[sometimes])), by_id(batches(transforms=[sometimes]))
    assert random.getstate() == before
    assert all(torch.equal(one[name], two[name]) for name in one)
    inverted = [not np.array_equal(one[name], picture(int(name.split("-")[1]))) for name in one]
    assert 0 < sum(inverted) < COUNT


def test_mixing_gives_shares_of_classes_and_floats_of_the_same_scale() -> None:
    (batch, *_) = batches(batch_transforms=[frames.Mixup(alpha=1.0)])
    assert batch.x.dtype == torch.float32
    assert batch.y.shape == (4, 3)
    torch.testing.assert_close(batch.y.sum(1), torch.ones(4))
    assert 100 < float(batch.x.mean()) < 155
    (cut, *_) = batches(batch_transforms=[frames.CutMix(alpha=1.0)])
    assert cut.x.dtype == torch.uint8, "cutting makes no new values"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"transforms": [frames.Mixup()]}, "transforms[0]=Mixup(alpha=1.0, p=1.0): this belongs into batch_transforms"),
        ({"eval_transforms": [images.Normalize()]}, "this belongs into normalize"),
        ({"transforms": [images.RandAugment]}, "expected an object, RandAugment(...), not its class"),
        ({"transforms": [events.EventDrop()]}, "expected a transform of jellyfit.images"),
        ({"transforms": ["flip"]}, "expected a transform of jellyfit.images"),
        ({"transforms": images.RandAugment()}, "expected a list"),
    ],
)
def test_what_stands_in_the_wrong_place_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        Data(**settings)


def test_errors_of_transforms_name_the_sample() -> None:
    with pytest.raises(DataError, match=r"Data, sample 'image-\d+': CenterCrop.*smaller"):
        batches(transforms=[images.CenterCrop(20)])


def test_images_of_different_sizes_in_a_batch_are_told() -> None:
    class Ragged(Data):
        def images(self, split: str) -> ImageSource:
            class Uneven(Source):
                def read(self, index: int, *rest: Any) -> np.ndarray:
                    return picture(index)[:, : 5 + index]

            return Uneven()

    data = Ragged(batch_size=4)
    data.setup("fit")
    with pytest.raises(DataError, match=r"differ in shape.*Resize"):
        next(iter(data.train_dataloader()))


def test_a_broken_image_stops_the_run_unless_it_may_be_skipped() -> None:
    class Broken(Data):
        broken = frozenset({2, 7})

    data = Broken(batch_size=4)
    data.setup("fit")
    with pytest.raises(BrokenImageError, match="image-[27] is a broken"):
        list(data.train_dataloader())
    data = Broken(batch_size=4, skip_broken=True, batch_transforms=[frames.Mixup()])
    data.setup("fit")
    with pytest.warns(BrokenImageWarning) as told:
        found = list(data.train_dataloader())
    assert sorted(set(by_id(found))) == sorted(f"image-{i}" for i in set(range(COUNT)) - {2, 7})
    assert [len(batch.y) == len(batch.x) for batch in found] == [True] * 3
    assert [str(each.message)[-10:] for each in told] == ["number 1).", "number 2)."]


def test_a_batch_of_nothing_but_broken_images_is_an_error() -> None:
    class Broken(Data):
        broken = frozenset(range(COUNT))

    data = Broken(batch_size=4, skip_broken=True)
    data.setup("fit")
    with pytest.warns(BrokenImageWarning), pytest.raises(DataError, match="all 4 images of a batch are broken"):
        next(iter(data.train_dataloader()))


class Seen(ClassificationTask):
    """Keeps what the network was given."""

    seen: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return super().forward(x)


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning", "ignore:.*does not have many workers.*")
@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_the_task_is_given_normalised_images(tmp_path: Path, precision: Any) -> None:
    task = Seen(SpikingConvNet((3, 10, 12), 3, channels=[2], hidden=[]), T=2)
    data = Data(batch_size=COUNT, normalize=images.Normalize((0.5, 0.4, 0.3), (0.1, 0.2, 0.3)))
    trainer = pl.Trainer(
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", precision=precision, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.test(task, data, verbose=False)
    pixels = np.stack([picture(i) for i in range(COUNT)]) / 255
    expected = (pixels - np.reshape((0.5, 0.4, 0.3), (3, 1, 1))) / np.reshape((0.1, 0.2, 0.3), (3, 1, 1))
    exact = precision == "32-true"
    assert task.seen.dtype == (torch.float32 if exact else torch.bfloat16)
    np.testing.assert_allclose(task.seen.float().numpy(), expected, atol=1e-5 if exact else 0.05)


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
def test_fewer_outputs_than_classes_are_told_before_training() -> None:
    task = Seen(SpikingConvNet((3, 10, 12), 2, channels=[2], hidden=[]), T=2)
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    with pytest.raises(ConfigError, match=r"3 classes, the network 2 outputs. Set --model.backbone.num_classes=3"):
        trainer.test(task, Data(), verbose=False)


def test_a_datamodule_with_transforms_can_be_pickled() -> None:
    data = Data(transforms=TRANSFORMS, batch_transforms=[frames.Mixup()])
    data.setup("fit")
    again = pickle.loads(pickle.dumps(data))
    assert again.transforms == tuple(TRANSFORMS)
