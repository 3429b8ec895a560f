"""N-Caltech101 from a zip of ATIS files."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from jellyfit.datamodules import NCaltech101
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.errors import DataError
from jellyfit.events import FixedNumber
from tests.conftest import ROOT
from tests.datamodules.made import atis, write_zip
from tests.datamodules.published import Published, Truth, draw, spikingjelly_datasets

REAL = Path(os.environ.get("JELLYFIT_REAL_EVENTS", ROOT.parent / "shared/real_events"))
SIZE = (180, 240)
COUNTS = {"BACKGROUND_Google": 8, "Faces_easy": 4, "accordion": 5, "car_side": 4, "yin_yang": 12}
PARTS = ("train", "val", "test")


def samples() -> dict[str, list[tuple[int, ...]]]:
    """Events of every file, by the name of its folder and its own: images are numbered from 1 in each class."""
    names = [f"{kind}/image_{i + 1:04d}" for kind, count in COUNTS.items() for i in range(count)]
    return {name: draw(i, 40 + i, SIZE, step=5_000) for i, name in enumerate(names)}


class TestNCaltech101(Published):
    module = NCaltech101
    config = "ncaltech101.yaml"
    settings: ClassVar = {"val_fraction": 0.25, "test_fraction": 0.25}
    first_file = "Caltech101.zip"

    def write(self, root: Path) -> dict[str, Truth]:
        made = samples()
        files = {f"Caltech101/{name}.bin": atis(recorded) for name, recorded in made.items()}
        write_zip(root / "Caltech101.zip", {**files, "Caltech101/ReadMe.txt": b"", "__MACOSX/Caltech101/._x.bin": b"x"})
        return {
            name.replace("/", "-"): Truth(None, NCaltech101.classes.index(name.split("/")[0]), recorded)
            for name, recorded in made.items()
        }

    def theirs(self, root: Path, name: str) -> dict[str, np.ndarray]:
        with zipfile.ZipFile(root / "Caltech101.zip") as archive:
            (root / "sample.bin").write_bytes(archive.read(f"Caltech101/{name.replace('-', '/')}.bin"))
        return spikingjelly_datasets("utils").load_ATIS_bin(root / "sample.bin")

    def test_parts_have_their_share_of_each_class_drawn_by_seed(self, made: tuple[Path, dict[str, Truth]]) -> None:
        root, _ = made
        drawn = []
        for seed in (0, 0, 1):
            data = self.data(root, seed=seed)
            drawn.append({part: [name for name, _, _ in data.samples(part)] for part in PARTS})
            for part, numbers in (("test", [2, 1, 1, 1, 3]), ("val", [1, 0, 1, 0, 2])):
                assert Counter(name.split("-")[0] for name in drawn[-1][part]) == Counter(
                    dict(zip(COUNTS, numbers, strict=True))
                )
        assert drawn[0] == drawn[1]
        assert drawn[0]["test"] != drawn[2]["test"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "Caltech101/Faces/image_0001",
            b"12345",
            "Faces/image_0001.bin lies in the folder of none of the 101",
        ),
        ("Caltech101/ant/image_0001", b"1234", "sample 'ant-image_0001': .*is truncated"),
        ("Caltech101/ant/image_0001", atis([(5, 240, 3, 1)]), "sample 'ant-image_0001': 1 of 1 events lie outside"),
    ],
)
def test_what_is_wrong_in_the_archive_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, words: str
) -> None:
    write_zip(
        tmp_path / "Caltech101.zip", {f"{name}.bin": content, "Caltech101/ant/image_0002.bin": atis([(1, 2, 3, 1)])}
    )
    monkeypatch.setattr(NCaltech101, "files", (SourceFile("Caltech101.zip"),))
    with pytest.raises(DataError, match=words):
        NCaltech101(tmp_path, val_fraction=0.0, prepare_workers=0).prepare_data()


@pytest.mark.skipif(not REAL.is_dir(), reason="no real recordings (set JELLYFIT_REAL_EVENTS to their folder)")
def test_real_recordings_fit_the_sensor_and_give_spikingjelly_s_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {"car_side": REAL / "ncaltech101_car.bin", "chair": REAL / "ncaltech101_chair.bin"}
    files = {f"Caltech101/{kind}/image_0001.bin": path.read_bytes() for kind, path in paths.items()}
    write_zip(tmp_path / "Caltech101.zip", files)
    monkeypatch.setattr(NCaltech101, "files", (SourceFile("Caltech101.zip"),))
    frames = FixedNumber(T=5, split_by="time")
    data = NCaltech101(tmp_path, frames, test_fraction=0.0, val_fraction=0.0, prepare_workers=0)
    utils = spikingjelly_datasets("utils")
    for name, recording, _ in data.samples("train"):
        events = utils.load_ATIS_bin(paths[name.split("-")[0]])
        theirs = utils.integrate_events_by_fixed_frames_number(events, "time", 5, *SIZE)
        np.testing.assert_array_equal(data.integrate(recording), theirs)
    assert len(list(data.samples("train"))) == 2


def test_published_facts() -> None:
    assert NCaltech101.files == (SourceFile("Caltech101.zip", "66201824eabb0239c7ab992480b50ba3"),)
    assert NCaltech101.page == "www.garrickorchard.com/datasets/n-caltech101"
    assert NCaltech101.sensor_size == SIZE
    assert len(set(NCaltech101.classes)) == 101
    assert list(NCaltech101.classes) == sorted(NCaltech101.classes), "labels are SpikingJelly's: folders in order"
    assert "Faces" not in NCaltech101.classes
