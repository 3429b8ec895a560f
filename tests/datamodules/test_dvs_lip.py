"""DVS-Lip from structured arrays in a zip archive."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from jellyfit.datamodules import DVSLip
from jellyfit.datamodules.dvs_lip import read_structured
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.errors import DataError
from tests.datamodules.made import write_zip
from tests.datamodules.published import Published, Truth, draw

STORED = np.dtype([("t", "<i4"), ("x", "i1"), ("y", "i1"), ("p", "i1")])  # what the authors' files hold
WORDS = {"accused": 0, "benefits": 13, "young": 99}
PARTS = {"train": 5, "test": 2}


def npy(events: list[tuple[int, ...]], dtype: np.dtype = STORED) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(events, dtype))
    return file.getvalue()


def samples() -> dict[str, tuple[str, Truth]]:
    made = {}
    for part, number in PARTS.items():
        for word, label in WORDS.items():
            for i in range(number):
                events = draw(len(made), 50 + i, (128, 128))
                made[f"{part}-{word}-{i}"] = (f"DVS-Lip/{part}/{word}/{i}.npy", Truth(part, label, events))
    return made


class TestDVSLip(Published):
    module = DVSLip
    config = "dvs_lip.yaml"
    net = ("--model.backbone.channels=[2,2,2,2]", "--model.backbone.hidden=[]")
    first_file = "DVS-Lip.zip"
    settings: ClassVar[dict[str, Any]] = {"val_fraction": 0.2}

    def write(self, root: Path) -> dict[str, Truth]:
        made = samples()
        write_zip(root / "DVS-Lip.zip", {name: npy(truth.events) for name, truth in made.values()})
        return {name: truth for name, (_, truth) in made.items()}

    def theirs(self, root: Path, name: str) -> dict[str, np.ndarray]:
        with zipfile.ZipFile(root / "DVS-Lip.zip") as archive:
            stored = np.load(io.BytesIO(archive.read(samples()[name][0])))
        return {field: stored[field].astype(int) for field in "txyp"}

    def test_validation_takes_its_share_of_every_word(self, made: tuple[Path, dict[str, Truth]]) -> None:
        data = self.data(made[0])
        assert sorted(label for _, _, label in data.samples("val")) == sorted(WORDS.values())

    def test_a_folder_that_is_no_word_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_zip(tmp_path / "DVS-Lip.zip", {"DVS-Lip/train/acused/0.npy": npy([(0, 1, 2, 1)])})
        self.publish(tmp_path, monkeypatch)
        with pytest.raises(DataError, match="the folder of DVS-Lip/train/acused/0.npy is none of the 100 words"):
            self.data(tmp_path).prepare_data()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is damaged"),
        (b"no array", "is damaged"),
        (npy([(1, 2, 3, 1)] * 9)[:-4], "is damaged"),
        (npy([(1, -2, 3, 1)]), "values of x are outside"),
        (npy([(1, 2)], np.dtype([("t", "i4"), ("x", "i1")])), "has no y, p"),
    ],
)
def test_a_file_that_is_damaged_or_another_one_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "0.npy").write_bytes(content)
    with pytest.raises(DataError, match=words) as told:
        read_structured(tmp_path / "0.npy")
    assert str(tmp_path / "0.npy") in str(told.value)


def test_published_facts() -> None:
    assert DVSLip.files == (SourceFile("DVS-Lip.zip", "2dcb959255122d4cdeb6094ca282494b"),)
    assert DVSLip.page == "sites.google.com/view/event-based-lipreading"
    assert DVSLip.expected == {"train": 14896, "test": 4975}
    assert len(set(DVSLip.classes)) == 100
    assert list(DVSLip.classes) == sorted(DVSLip.classes), "the authors number the sorted words"
