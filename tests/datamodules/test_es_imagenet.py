"""ES-ImageNet from an archive in 25 parts, or from its unpacked folder."""

from __future__ import annotations

import io
import sys
import types
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from jellyfit import events
from jellyfit.datamodules import ESImageNet
from jellyfit.datamodules.es_imagenet import eight_steps
from jellyfit.errors import DataError
from tests.datamodules.published import Published, Truth, spikingjelly_datasets

TRAIN = {"class0": "n01440764", "class7": "n01514668", "class999": "n15075141"}
EIGHT = events.CustomSlices(eight_steps)


def npz(recorded: list[tuple[int, ...]]) -> bytes:
    """``pos`` and ``neg``: rows of row, column, time as bytes."""
    file = io.BytesIO()
    rows = [np.array([(y, x, t) for t, x, y, p in recorded if p == sign], np.uint8).reshape(-1, 3) for sign in (1, 0)]
    np.savez_compressed(file, pos=rows[0], neg=rows[1])
    return file.getvalue()


def sample(seed: int, count: int = 70) -> list[tuple[int, ...]]:
    """Sorted by step, ON before OFF within one, as merging the two arrays gives them; no event in step 1 or 8."""
    random = np.random.default_rng(seed)
    rows = random.integers((2, 17, 17, 0), (8, 240, 240, 2), (count, 4))
    return [tuple(row) for row in sorted(rows.tolist(), key=lambda row: (row[0], -row[3]))]


def tree() -> tuple[dict[str, bytes], dict[str, Truth]]:
    files: dict[str, bytes] = {}
    truth: dict[str, Truth] = {}
    for folder, synset in TRAIN.items():
        for i in range(4):
            name = f"{synset}_{10026 + i}"
            truth[name] = Truth("train", int(folder.removeprefix("class")), sample(len(truth)))
            files[f"train/{folder}/{name}.npz"] = npz(truth[name].events)
    lines = []
    for i, label in enumerate((999, 0, 7)):
        name = f"ILSVRC2012_val_{i + 1:08d}"
        truth[name] = Truth("test", label, sample(100 + i))
        files[f"val/{name}.npz"] = npz(truth[name].events)
        lines.append(f"{name}.npz {label} 190 254\n")
    files["val/ILSVRC2012_val_00009999.npz"] = npz(sample(5))  # without a label: in no part
    files["vallabel.txt"] = "".join(lines).encode()
    files["trainlabel.txt"] = b"not read\n"
    return files, truth


class Rar(AbstractContextManager[None]):
    """Stands for the package ``rarfile``, whose programs a test cannot rely on: unpacks what the test says."""

    opened: list[str]

    def __init__(self, path: Path) -> None:
        self.opened.append(Path(path).name)
        names = {file.name for file in Path(path).parent.glob("*.rar")}
        assert len(names) == 25, "all parts lie beside the first one"

    def __exit__(self, *_: object) -> None:
        pass

    def extractall(self, target: Path) -> None:
        for name, content in tree()[0].items():
            path = Path(target) / "ES-imagenet-0.18" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


class TestESImageNet(Published):
    module = ESImageNet
    config = "es_imagenet.yaml"
    net = ("--model.backbone.channels=[2,2,2,2]", "--model.backbone.hidden=[]")
    first_file = "ES-imagenet-0.18.part01.rar"
    frames = ()
    settings: ClassVar[dict[str, Any]] = {"val_fraction": 0.25}

    @pytest.fixture(autouse=True)
    def rar(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Rar, "opened", [], raising=False)
        package = types.SimpleNamespace(RarFile=Rar, RarCannotExec=RuntimeError, Error=RuntimeError)
        monkeypatch.setitem(sys.modules, "rarfile", package)

    def write(self, root: Path) -> dict[str, Truth]:
        for number in range(1, 26):
            part = root / f"ES-imagenet-0.18.part{number:02d}.rar"
            part.write_bytes(b"Rar!\x1a\x07\x01\x00" + bytes([number]) * 100)
        return tree()[1]

    def theirs(self, root: Path, name: str) -> dict[str, np.ndarray]:
        path = next((root / "unpacked").rglob(f"{name}.npz"))
        return {field: c.astype(int) for field, c in spikingjelly_datasets("es_imagenet")._load_events(path).items()}

    def test_frames_equal_spikingjelly_s(self, made: tuple[Path, dict[str, Truth]]) -> None:
        """One of each step: NumPy's default sort leaves the order within a step open, so frames by number are too."""
        utils = spikingjelly_datasets("utils")
        root, _ = made
        for batch in self.batches(self.data(root, frames=EIGHT))[:2]:
            for n, name in enumerate(batch.ids or ()):
                columns = self.theirs(root, name)
                for step, frame in enumerate(batch.x[:, n].numpy(), 1):
                    begin, end = np.searchsorted(columns["t"], [step, step + 1])
                    x, y, p = (columns[field] for field in "xyp")
                    expected = utils.integrate_events_segment_to_frame(x, y, p, 256, 256, begin, end)
                    np.testing.assert_array_equal(frame, expected)

    def test_every_step_is_a_frame(self, made: tuple[Path, dict[str, Truth]]) -> None:
        root, truth = made
        seen = 0
        for batch in self.batches(self.data(root, frames=EIGHT)):
            assert tuple(batch.x.shape[2:]) == (2, 256, 256)
            for n, name in enumerate(batch.ids or ()):
                expected = np.zeros((8, 2, 256, 256), int)
                for t, x, y, p in truth[name].events:
                    expected[t - 1, p, y, x] += 1
                np.testing.assert_array_equal(batch.x[:, n].numpy(), expected)
                seen += 1
        assert seen == len(truth)

    def test_the_archive_is_unpacked_once_through_its_first_part(self, made: tuple[Path, dict[str, Truth]]) -> None:
        root, _ = made
        for _ in range(2):
            self.data(root).prepare_data()
        assert Rar.opened == ["ES-imagenet-0.18.part01.rar"]

    @pytest.mark.parametrize("folder", ["unpacked/ES-imagenet-0.18", "unpacked/ES-imagenet-0.18/ES-imagenet-0.18"])
    def test_the_unpacked_folder_alone_will_do(self, tmp_path: Path, folder: str) -> None:
        files, truth = tree()
        for name, content in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        data = self.data(tmp_path)
        assert {name for part in ("train", "val", "test") for name, _, _ in data.samples(part)} == set(truth)
        assert Rar.opened == []

    @pytest.mark.parametrize(
        ("name", "content", "words"),
        [
            ("vallabel.txt", None, "holds no vallabel.txt"),
            ("vallabel.txt", b"ILSVRC2012_val_00000001.npz 7\nILSVRC2012_val_9.npz 1\n", "line 2: .* holds no val/"),
            ("vallabel.txt", b"ILSVRC2012_val_00000001.npz seven\n", "line 1: expected a file and its label; got"),
            ("vallabel.txt", b"ILSVRC2012_val_00000001.npz 1000 1 1\n", "label 1000 is outside 0 to 999"),
            ("train/n01440764/a.npz", b"", "is none of class0 to class999"),
            ("train/class0/n01440764_10026.npz", npz(sample(0))[:-30], "n01440764_10026.*damaged"),
            ("train/class0/n01440764_10026.npz", npz([(9, 1, 1, 1)]), "times run from 9 to 9; those of ES-ImageNet"),
        ],
    )  # fmt: skip
    def test_what_is_wrong_in_the_folder_is_named(
        self, tmp_path: Path, name: str, content: bytes | None, words: str
    ) -> None:
        files: dict[str, Any] = tree()[0] | {name: content}
        for file, bytes_ in files.items():
            if bytes_ is not None:
                path = tmp_path / "unpacked/ES-imagenet-0.18" / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bytes_)
        with pytest.raises(DataError, match=words):
            self.data(tmp_path).prepare_data()


def test_published_facts() -> None:
    assert [file.name for file in ESImageNet.files] == [f"ES-imagenet-0.18.part{i:02d}.rar" for i in range(1, 26)]
    assert all(not file.urls for file in ESImageNet.files)
    theirs = spikingjelly_datasets("es_imagenet").ESImageNet.resource_url_md5()
    assert [(file.name, file.md5) for file in ESImageNet.files] == [(name, md5) for name, _, md5 in theirs]
    assert ESImageNet.page == "github.com/lyh983012/ES-imagenet-master"
    assert ESImageNet.sensor_size == (256, 256)
    assert len(set(ESImageNet.classes)) == 1000
