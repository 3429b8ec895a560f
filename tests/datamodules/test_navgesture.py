"""NavGesture, sitting and walking, from ATIS .dat files in zips in a zip; split by people."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from jellyfit import events
from jellyfit.datamodules import NAVGestureSit, NAVGestureWalk
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.errors import DataError
from tests.datamodules.made import write_zip, zipped
from tests.datamodules.published import Published, Truth, draw, spikingjelly_datasets

SIZE = (240, 304)
PARTS = ("train", "val", "test")
USERS = [f"user{i:02d}" for i in range(1, 9)]


def dat(recorded: Sequence[tuple[int, ...]], version: int = 1) -> bytes:
    """Time and address, little-endian, 32 bits each; rows are counted from below."""
    head = f"% Data file containing Event2D events.\n% Version {version}\n% Date 2017-05-24 10:00:00\n".encode()
    x_bits, y_shift, p_shift = {1: (9, 9, 17), 2: (14, 14, 28)}[version]
    assert all(x < 1 << x_bits for _, x, _, _ in recorded)
    return head + bytes((0, 8)) + b"".join(
        struct.pack("<II", t, p << p_shift | (239 - y) << y_shift | x) for t, x, y, p in recorded
    )  # fmt: skip


def samples() -> dict[str, list[tuple[int, ...]]]:
    """Events of every file, by its name; somebody does not make every gesture."""
    labels = NAVGestureWalk.classes
    return {
        f"{user}_{labels[(i + k) % 6]}_{k}": draw(10 * i + k, 40 + i, SIZE, step=20_000, first=7_000_000)
        for i, user in enumerate(USERS)
        for k in range(2 + i % 3)
    }


def write_outer(path: Path, made: dict[str, bytes]) -> None:
    users = sorted({name.split("_")[0] for name in made})
    inner = {
        f"{user}.zip": zipped({f"{user}/{name}.dat": part for name, part in made.items() if name.startswith(user)})
        for user in users
    }
    write_zip(path, inner)


class TestNAVGestureWalk(Published):
    module = NAVGestureWalk
    config = "navgesture_walk.yaml"
    settings: ClassVar = {"val_fraction": 0.2, "test_fraction": 0.25}
    first_file = "navgesture-walk.zip"

    def write(self, root: Path) -> dict[str, Truth]:
        made = samples()
        versions = {name: 1 + (name.endswith("_1") and self.both_versions) for name in made}
        write_outer(root / self.first_file, {name: dat(some, versions[name]) for name, some in made.items()})
        labels = NAVGestureWalk.classes
        return {name: Truth(None, labels.index(name.split("_")[1]), some) for name, some in made.items()}

    both_versions = True

    def theirs(self, root: Path, name: str) -> dict[str, np.ndarray]:
        """SpikingJelly knows version 1 alone."""
        (root / "sample.dat").write_bytes(dat(samples()[name]))
        return read_by_spikingjelly(root / "sample.dat")

    def test_nobody_is_in_two_parts(self, made: tuple[Path, dict[str, Truth]]) -> None:
        root, _ = made
        drawn = []
        for seed in (0, 0, 1):
            data = self.data(root, seed=seed)
            drawn.append({part: {name.split("_")[0] for name, _, _ in data.samples(part)} for part in PARTS})
            assert [len(drawn[-1][part]) for part in PARTS] == [5, 1, 2]
            assert set.union(*drawn[-1].values()) == set(USERS)
        assert drawn[0] == drawn[1]
        assert drawn[0] != drawn[2]


class TestNAVGestureSit(TestNAVGestureWalk):
    module = NAVGestureSit
    config = "navgesture_sit.yaml"
    first_file = "navgesture-sit.zip"
    both_versions = False


# ------------------------------------------------------------ single files


def read_by_spikingjelly(path: Path) -> dict[str, np.ndarray]:
    theirs = spikingjelly_datasets("nav_gesture")
    theirs._read_aedat_save_to_np(path, path.with_suffix(".npz"))
    with np.load(path.with_suffix(".npz")) as sample:
        return {field: sample[field] for field in "txyp"}


def decoded(path: Path) -> list[tuple[int, int, int, bool]]:
    return NAVGestureWalk(path.parent).decode(path, None).tolist()  # type: ignore[arg-type]


def test_only_events_before_the_last_kept_one_are_left_out_and_spikingjelly_leaves_out_others(tmp_path: Path) -> None:
    recorded = [(t, t % 300, t % 240, t % 2) for t in (10, 30, 20, 25, 30, 40, 35, 50, 60)]
    (tmp_path / "a.dat").write_bytes(dat(recorded))
    with pytest.warns(events.EventWarning, match="3 of 9 events are earlier"):
        found = decoded(tmp_path / "a.dat")
    assert [event[0] for event in found] == [10, 30, 30, 40, 50, 60]
    assert [tuple(map(int, event)) for event in found] == [recorded[i] for i in (0, 1, 4, 5, 7, 8)]
    theirs = read_by_spikingjelly(tmp_path / "a.dat")
    assert 60 - 10 not in theirs["t"].tolist(), "its last events are lost"


@pytest.mark.parametrize("header", [b"", b"% Data file containing Event2D events.\n\x00\x08"])
def test_a_file_that_does_not_say_its_version_is_of_version_1(tmp_path: Path, header: bytes) -> None:
    recorded = draw(0, 50, SIZE)
    content = dat(recorded)
    (tmp_path / "a.dat").write_bytes(header + content[-8 * 50 :])
    assert [tuple(map(int, event)) for event in decoded(tmp_path / "a.dat")] == recorded


def test_version_2_is_read_and_spikingjelly_misreads_it(tmp_path: Path) -> None:
    recorded = draw(0, 50, SIZE)
    (tmp_path / "a.dat").write_bytes(dat(recorded, version=2))
    assert [tuple(map(int, event)) for event in decoded(tmp_path / "a.dat")] == recorded
    theirs = read_by_spikingjelly(tmp_path / "a.dat")
    assert theirs["y"].tolist() != [event[2] for event in recorded]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("user01_xx_0", dat([(1, 2, 3, 1)]), "expected names such as user01_le_1.dat, .* got user01/user01_xx_0.dat"),
        ("user01_0", dat([(1, 2, 3, 1)]), "expected names such as user01_le_1.dat"),
        ("user01_le_0", dat([(1, 2, 3, 1)])[:-1], "sample 'user01_le_0': .*is truncated"),
        ("user01_le_0", dat([(1, 304, 3, 1)]), "sample 'user01_le_0': 1 of 1 events lie outside the sensor"),
        ("user01_le_0", dat([(1, 2, 3, 1)]).replace(b"\x00\x08", b"\x07\x08"), "sample 'user01_le_0': .*damaged"),
    ],
)
def test_what_is_wrong_in_the_archive_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, words: str
) -> None:
    write_outer(tmp_path / "navgesture-walk.zip", {name: content, "user02_le_0": dat([(1, 2, 3, 1)])})
    monkeypatch.setattr(NAVGestureWalk, "files", (SourceFile("navgesture-walk.zip"),))
    with pytest.raises(DataError, match=words):
        NAVGestureWalk(tmp_path, val_fraction=0.0, prepare_workers=0).prepare_data()


def test_published_facts() -> None:
    assert NAVGestureWalk.files == (SourceFile("navgesture-walk.zip", "5d305266f13005401959e819abe206f0"),)
    assert NAVGestureSit.files == (SourceFile("navgesture-sit.zip", "1571753ace4d9e0946e6503313712c22"),)
    for module in (NAVGestureWalk, NAVGestureSit):
        assert module.page.startswith("www.neuromorphic-vision.com")
        assert module.sensor_size == SIZE
        assert set(module.classes) == {"le", "ri", "up", "do", "ho", "se"}
        assert list(module.classes) == sorted(module.classes), "labels are SpikingJelly's: folders in order"
