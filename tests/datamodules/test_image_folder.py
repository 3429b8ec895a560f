"""Folders of images, as ImageNet is kept."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jellyfit import images
from jellyfit.datamodules import BrokenImageWarning, ImageFolder
from jellyfit.datamodules.image_folder import Listing
from jellyfit.errors import ConfigError, DataError
from jellyfit.images import BrokenImageError
from tests.conftest import CONFIGS, Cli

CLASSES = ("n01", "n02", "n03")


def write_folders(
    root: Path, classes: tuple[str, ...] = CLASSES, each: int = 4, size: tuple[int, int] = (40, 48)
) -> None:
    """``train`` and ``val`` with a folder for each class, full of JPEG files of one shade each."""
    for part in ("train", "val"):
        for label, name in enumerate(classes):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(each if part == "train" else 2):
                pixels = np.full((*size, 3), 40 * label + i, np.uint8)
                Image.fromarray(pixels).save(folder / f"{name}_{i}.JPEG", quality=100)


def data(root: Path, **settings: object) -> ImageFolder:
    return ImageFolder(root, **{"batch_size": 32, "eval_transforms": [images.Resize((32, 32))], **settings})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folders(tmp_path / "images")
    return tmp_path / "images"


def test_classes_are_the_sorted_folders_and_every_file_is_read(root: Path) -> None:
    made = data(root, transforms=[images.Resize((32, 32))])
    made.setup("fit")
    made.setup("test")
    assert made.classes == CLASSES
    (train,), (val,), (test,) = made.train_dataloader(), made.val_dataloader(), made.test_dataloader()
    assert sorted(train.ids) == [f"train/{name}/{name}_{i}.JPEG" for name in CLASSES for i in range(4)]
    assert val.ids == test.ids == [f"val/{name}/{name}_{i}.JPEG" for name in CLASSES for i in range(2)]
    for batch in (train, val):
        for n, name in enumerate(batch.ids):
            label = CLASSES.index(name.split("/")[1])
            assert int(batch.y[n]) == label
            assert abs(int(batch.x[n, 0, 5, 5]) - (40 * label + int(name[-6]))) <= 1


def test_validation_can_be_drawn_from_training_by_class(root: Path) -> None:
    made = data(root, val_fraction=0.25, transforms=[images.Resize((32, 32))])
    made.setup("fit")
    made.setup("test")
    (train,), (val,), (test,) = made.train_dataloader(), made.val_dataloader(), made.test_dataloader()
    assert val.y.tolist() == [0, 1, 2]
    assert not set(train.ids) & set(val.ids)
    assert len(train.ids) + len(val.ids) == 12
    assert all(name.startswith("val/") for name in test.ids), "those nobody has chosen by"


def test_training_images_alone_can_be_trained_on_but_not_tested_with(root: Path) -> None:
    shutil.rmtree(root / "val")
    made = data(root, val_fraction=0.25)
    made.prepare_data()
    made.setup("fit")
    assert [line.split()[0] for line in made.summary().splitlines()] == ["ImageFolder", "train", "val"]
    with pytest.raises(DataError, match="val is missing"):
        made.setup("test")


def test_a_test_folder_tests(root: Path) -> None:
    (root / "val").rename(root / "test")
    made = data(root, val_fraction=0.25)
    made.setup("test")
    assert next(iter(made.test_dataloader())).ids[0].startswith("test/")


def test_the_index_is_made_once_and_anew_when_a_folder_changes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data(root).prepare_data()
    write = Listing.write
    monkeypatch.setattr(Listing, "write", lambda *_: pytest.fail("listed again"))
    data(root).prepare_data()
    monkeypatch.setattr(Listing, "write", write)
    (root / "train/n02/n02_0.JPEG").rename(root / "train/n02/n02_9.JPEG")
    names = [data(root).listing("train").name(i) for i in range(12)]
    assert names[4:8] == ["n02/n02_1.JPEG", "n02/n02_2.JPEG", "n02/n02_3.JPEG", "n02/n02_9.JPEG"]


def test_names_take_no_room_in_pickles_and_may_be_any_bytes(tmp_path: Path) -> None:
    names = [f"train/a/{i:04d} größe.png" for i in range(600)] + ["train/b/x.PNG", "val/a/1.png", "val/b/1.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / os.fsdecode(b"train/b/\xff.png")).touch()
    (tmp_path / "train/b/.hidden.png").touch()
    (tmp_path / "train/b/notes.txt").touch()
    made = data(tmp_path)
    made.setup("fit")
    listing = made.listing("train")
    found = [listing.name(i) for i in range(len(listing))]
    assert found[0] == "a/0000 größe.png" and len(found) == 602
    assert all((listing.folder / name).is_file() for name in found)
    assert found[600:] == sorted(["b/x.PNG", os.fsdecode(b"b/\xff.png")])
    assert len(pickle.dumps(made.train_dataloader().dataset)) < 5000


def test_the_index_can_lie_elsewhere(root: Path, tmp_path: Path) -> None:
    data(root, cache=tmp_path / "index").prepare_data()
    assert not (root / "cache").exists()
    assert list((tmp_path / "index").glob("index-train-*/names.npy"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root: (root / "val").rename(root / "valid"), r"val is missing. Images are expected in"),
        (lambda root: (root / "val/n02").rename(root / "val/n09"), r"1 folders of classes that train does not have"),
        (
            lambda root: [f.unlink() for f in (root / "train/n02").iterdir()],
            r"no images .* in 1 class folders: \['n02'",
        ),
        (lambda root: [f.rename(root / f.name) for f in (root / "val").iterdir()], r"holds no folders of classes"),
    ],
)
def test_folders_that_are_not_as_expected_are_told(root: Path, spoil, words: str) -> None:
    spoil(root)
    with pytest.raises(DataError, match=words):
        data(root).prepare_data()


def test_a_broken_image_is_named_or_skipped(root: Path) -> None:
    path = root / "train/n02/n02_1.JPEG"
    path.write_bytes(path.read_bytes()[:-300])
    made = data(root)
    made.setup("fit")
    with pytest.raises(BrokenImageError, match=r"n02_1.JPEG is a broken image"):
        list(made.train_dataloader())
    made = data(root, skip_broken=True)
    made.setup("fit")
    with pytest.warns(BrokenImageWarning, match=r"n02_1.JPEG.*left out \(number 1\)"):
        (batch,) = made.train_dataloader()
    assert len(batch.ids) == 11


def test_training_images_are_drafts_and_the_others_are_not(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    def watched(path: Path, *rest: object, draft: bool, upright: bool) -> Image.Image:
        seen.add((path.parts[-3], draft, upright))
        return images.read_image(path, *rest, draft=draft, upright=upright)

    monkeypatch.setattr("jellyfit.datamodules.image_folder.read_image", watched)
    for settings in ({}, {"draft": False, "upright": True}):
        made = data(root, **settings)
        made.setup("fit")
        list(made.train_dataloader())
        list(made.val_dataloader())
    assert seen == {("train", True, False), ("val", False, False), ("train", False, True), ("val", False, True)}


def test_defaults_are_imagenet_s(root: Path) -> None:
    made = ImageFolder(root, batch_size=32)
    made.setup("fit")
    (train,), (val,) = made.train_dataloader(), made.val_dataloader()
    assert train.x.shape == (12, 3, 224, 224)
    assert val.x.shape == (6, 3, 224, 224)
    grey = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) * 255
    assert float(made.normalize(grey).abs().max()) < 1e-5


def test_a_share_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="val_fraction=-0.1"):
        ImageFolder("nowhere", val_fraction=-0.1)


def test_it_is_prepared_and_checked_from_the_command_line(root: Path, cli: Cli) -> None:
    arguments = ("-c", CONFIGS / "imagenet_sew_resnet18.yaml", f"--data.root={root}")
    outcome = cli("data", "prepare", *arguments)
    assert outcome.status == 0, outcome.err
    assert "train        12 samples, 4 to 4 of each of 3 classes (folder train)" in outcome.out
    assert cli("data", "check", *arguments).status == 0
    (root / "val/n01/n01_0.JPEG").write_bytes(b"no picture")
    outcome = cli("data", "check", *arguments)
    assert outcome.status == 1
    assert "n01_0.JPEG is a broken image" in outcome.out
