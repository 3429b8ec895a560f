"""HARDVS from npz files in zip archives in a zip archive, split by three lists."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jellyfit.datamodules import HARDVS
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.errors import DataError
from tests.datamodules.made import write_zip, zipped
from tests.datamodules.published import Published, Truth, draw

NAMES = [f"dvSave-2021_10_15_19_18_{second:02d}" for second in range(6)]  # the same in two activities
ACTIONS = {"action_001": 0, "action_042": 41, "action_300": 299}


def npz(events: list[tuple[int, ...]]) -> bytes:
    file = io.BytesIO()
    t, x, y, p = np.array(events).T
    np.savez(file, t=t.astype(np.int64), x=x.astype(np.int16), y=y.astype(np.int16), p=p.astype(np.int8))
    return file.getvalue()


def samples() -> dict[str, Truth]:
    made = {}
    for action, label in ACTIONS.items():
        for i, name in enumerate(NAMES):
            part = "test" if i == 0 else "val" if i == 3 else "train"
            made[f"{action}/{name}"] = Truth(part, label, draw(len(made), 60 + i, (260, 346)))
    return made


class TestHARDVS(Published):
    module = HARDVS
    config = "hardvs.yaml"
    net = ("--model.backbone.channels=[2,2,2,2]", "--model.backbone.hidden=[]")
    first_file = "MINI_HARDVS_files.zip"

    def write(self, root: Path) -> dict[str, Truth]:
        made = samples()
        inner = {
            f"MINI_HARDVS_files/{action}.zip": zipped(
                {f"{key.split('/')[1]}.npz": npz(truth.events) for key, truth in made.items() if key.startswith(action)}
            )
            for action in ACTIONS
        }
        write_zip(root / "MINI_HARDVS_files.zip", inner)
        for part in ("train", "val", "test"):
            lines = [f"{key} 64 {truth.label}\n" for key, truth in made.items() if truth.part == part]
            (root / f"{part}_label.txt").write_text("".join(lines) + "\n")
        return {key.replace("/", "-"): truth for key, truth in made.items()}

    def theirs(self, root: Path, name: str) -> dict[str, np.ndarray]:
        action, _, recording = name.partition("-")
        with zipfile.ZipFile(root / "MINI_HARDVS_files.zip") as outer:
            inner = zipfile.ZipFile(io.BytesIO(outer.read(f"MINI_HARDVS_files/{action}.zip")))
        with np.load(io.BytesIO(inner.read(f"{recording}.npz"))) as stored:
            return {field: stored[field].astype(int) for field in "txyp"}

    def test_the_inner_archives_stay_packed(self, made: tuple[Path, dict[str, Truth]]) -> None:
        root, _ = made
        self.data(root).prepare_data()
        names = [path.name for path in (root / "unpacked").rglob("*.*") if not path.name.startswith(".")]
        assert sorted(names) == sorted(f"{action}.zip" for action in ACTIONS)

    def test_activities_that_were_unpacked_by_hand_will_do(self, made: tuple[Path, dict[str, Truth]]) -> None:
        root, truth = made
        (root / "MINI_HARDVS_files.zip").unlink()
        for name, sample in truth.items():
            action, _, recording = name.partition("-")
            folder = root / "unpacked/MINI_HARDVS_files" / action
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{recording}.npz").write_bytes(npz(sample.events))
        data = self.data(root)
        assert {name for part in ("train", "val", "test") for name, _, _ in data.samples(part)} == set(truth)

    @pytest.mark.parametrize("line", ["action_001/dvSave-2021_10_15_19_18_99 64 0", "action_301/x 1 2", "nothing"])
    def test_a_line_without_its_recording_is_named(self, made: tuple[Path, dict[str, Truth]], line: str,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
        root, _ = made
        (root / "val_label.txt").write_text(f"action_001/{NAMES[3]} 64 0\n{line}\n")
        self.publish(root, monkeypatch)
        with pytest.raises(DataError, match=rf"val_label.txt, line 2: .* holds no recording '{line.split()[0]}'"):
            self.data(root).prepare_data()


def test_published_facts() -> None:
    assert HARDVS.files == (
        SourceFile("MINI_HARDVS_files.zip", "9c4cc0d9ba043faa17f6f1a9e9aff982"),
        SourceFile("train_label.txt", "0d642b6e6871034f151b2649a89d8d3c"),
        SourceFile("val_label.txt", "cd2cebcba80e4552102bbacf2b5df812"),
        SourceFile("test_label.txt", "5b664af5843f9b476a9c22626f7f5a59"),
    )
    assert HARDVS.page == "github.com/Event-AHU/HARDVS"
    assert HARDVS.sensor_size == (260, 346)
    assert len(set(HARDVS.classes)) == 300
