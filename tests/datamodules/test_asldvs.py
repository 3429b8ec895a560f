"""ASL-DVS from MATLAB files in zips in a zip."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import scipy.io

from jellyfit.datamodules import ASLDVS
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.errors import DataError
from tests.datamodules.made import write_zip, zipped
from tests.datamodules.published import Published, Truth, draw, spikingjelly_datasets

SIZE = (180, 240)
OUTER = "ICCV2019_DVS_dataset.zip"
PARTS = ("train", "val", "test")


def mat(recorded: list[tuple[int, ...]], kind: type = np.int32, **more: np.ndarray) -> bytes:
    """A MATLAB file of version 5: columns ts, x, y and pol; the camera counts columns and rows from the other end."""
    t, x, y, p = np.array(recorded).reshape(-1, 4).T[:, :, None]
    content = io.BytesIO()
    scipy.io.savemat(content, {"ts": t.astype(kind), "x": 239 - x, "y": 179 - y, "pol": p.astype(np.uint8), **more})
    return content.getvalue()


def samples() -> dict[str, list[tuple[int, ...]]]:
    """Events of every file, by letter and number."""
    return {
        f"{letter}_{i + 1:04d}": draw(8 * n + i, 30 + n, SIZE, step=3_000)
        for n, letter in enumerate("aiky")
        for i in range(8)
    }


def write_outer(root: Path, made: dict[str, bytes]) -> None:
    """An archive for each letter in one that its host makes: it begins with a folder without a name."""
    letters = sorted({name[0] for name in made})
    inner = {
        f"{letter}.zip": zipped({f"{letter}/{name}.mat": part for name, part in made.items() if name[0] == letter})
        for letter in letters
    }
    write_zip(root / OUTER, {"/": b"", **inner})


class TestASLDVS(Published):
    module = ASLDVS
    config = "asldvs.yaml"
    settings: ClassVar = {"val_fraction": 0.25, "test_fraction": 0.25}
    first_file = OUTER

    def write(self, root: Path) -> dict[str, Truth]:
        made = samples()
        write_outer(root, {name: mat(recorded) for name, recorded in made.items()})
        return {name: Truth(None, ASLDVS.classes.index(name[0]), recorded) for name, recorded in made.items()}

    def theirs(self, root: Path, name: str) -> dict[str, np.ndarray]:
        (root / "sample.mat").write_bytes(mat(samples()[name]))
        spikingjelly_datasets("asl_dvs")._read_mat_save_to_np(root / "sample.mat", root / "sample.npz")
        with np.load(root / "sample.npz") as sample:
            return {field: sample[field] for field in "txyp"}

    def test_a_file_of_unknown_md5_that_was_cut_short_is_named(
        self, made: tuple[Path, dict[str, Truth]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root, _ = made
        monkeypatch.setattr(ASLDVS, "files", (SourceFile(OUTER),))
        (root / OUTER).write_bytes((root / OUTER).read_bytes()[:-100])
        with pytest.raises(DataError, match=rf"{OUTER} is no archive .*Is its download whole\?"):
            self.data(root).prepare_data()

    def test_parts_have_their_share_of_each_letter_drawn_by_seed(self, made: tuple[Path, dict[str, Truth]]) -> None:
        root, _ = made
        drawn = []
        for seed in (0, 0, 1):
            data = self.data(root, seed=seed)
            drawn.append({part: [name for name, _, _ in data.samples(part)] for part in PARTS})
            for part, number in (("test", 2), ("val", 1), ("train", 5)):
                assert Counter(name[0] for name in drawn[-1][part]) == dict.fromkeys("aiky", number)
        assert drawn[0] == drawn[1]
        assert drawn[0]["test"] != drawn[2]["test"]

    def test_archives_are_unpacked_once_and_no_further_than_they_must(
        self, made: tuple[Path, dict[str, Truth]]
    ) -> None:
        root, truth = made
        self.data(root).prepare_data()
        inner = root / "unpacked/ICCV2019_DVS_dataset"
        assert sorted(path.name for path in inner.iterdir()) == ["a.zip", "i.zip", "k.zip", "y.zip"]
        (root / OUTER).unlink()  # the unpacked ones will do
        data = self.data(root)
        assert sum(len(list(data.samples(part))) for part in PARTS) == len(truth)

    def test_folders_unpacked_by_hand_will_do(self, made: tuple[Path, dict[str, Truth]]) -> None:
        root, truth = made
        place = root / "unpacked/ICCV2019_DVS_dataset"
        with zipfile.ZipFile(root / OUTER) as outer:
            for name in ("a.zip", "i.zip"):
                with zipfile.ZipFile(outer.open(name)) as archive:
                    archive.extractall(place)
            for name in ("k.zip", "y.zip"):
                outer.extract(name, place)
        (root / OUTER).unlink()
        data = self.data(root)
        found = {name: data.read(recording) for part in PARTS for name, recording, _ in data.samples(part)}
        assert {name: len(array) for name, array in found.items()} == {k: len(v.events) for k, v in truth.items()}


def test_numbers_that_matlab_keeps_as_floats_are_read(tmp_path: Path) -> None:
    recorded = draw(0, 30, SIZE)
    (tmp_path / "a.mat").write_bytes(mat(recorded, np.float64))
    found = ASLDVS(tmp_path).decode(tmp_path / "a.mat", None)  # type: ignore[arg-type]
    assert [tuple(map(int, event)) for event in found.tolist()] == recorded


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("j_0001", mat([(1, 2, 3, 1)]), "j/j_0001.mat does not lie in the folder of a letter"),
        ("a_0001", mat([(1, 2, 3, 1)])[:-40], "sample 'a_0001': .*damaged .mat file"),
        ("a_0001", b"MATLAB", "sample 'a_0001': "),
        ("a_0001", mat([(1, 240, 3, 1)]), "sample 'a_0001': 1 of 1 events lie outside the sensor"),
    ],
)
def test_what_is_wrong_in_the_archive_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    write_outer(tmp_path, {name: content, "b_0001": mat([(1, 2, 3, 1)])})
    with pytest.raises(DataError, match=words):
        ASLDVS(tmp_path, val_fraction=0.0, prepare_workers=0).prepare_data()


def test_published_facts() -> None:
    assert ASLDVS.files == (SourceFile(OUTER),)
    assert ASLDVS.page == "github.com/PIX2NVS/NVS2Graph"
    assert ASLDVS.expected == {"all": 100_800}
    assert ASLDVS.sensor_size == SIZE
    assert "".join(ASLDVS.classes) == "abcdefghiklmnopqrstuvwxy"
