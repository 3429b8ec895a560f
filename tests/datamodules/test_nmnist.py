"""N-MNIST from zips of ATIS files, its small part too."""

from __future__ import annotations

import os
import shutil
import zipfile
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from jellyfit import events
from jellyfit.datamodules import NMNIST
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.errors import ConfigError, DataError
from tests.conftest import CONFIGS, ROOT, Cli
from tests.datamodules.made import atis, write_zip
from tests.datamodules.published import Published, Truth, draw, slow_frames, spikingjelly_datasets

REAL = Path(os.environ.get("JELLYFIT_REAL_EVENTS", ROOT.parent / "shared/real_events")) / "nmnist_train_1000.zip"
PARTS = ("train", "val", "test")


def digits(folder: str, each: int) -> dict[str, tuple[int, list[tuple[int, ...]]]]:
    """Number, and digit and events, of samples of all ten digits in turn, as MNIST has them: in no order."""
    order = [(7 * i + i // 10) % 10 for i in range(10 * each)]
    first = 1 if folder == "Train" else 10_001
    return {
        f"{folder}/{digit}/{i + 1:05d}": (digit, draw(first + i, 50 + i, (34, 34), step=5_000))
        for i, digit in enumerate(order)
    }


class TestNMNIST(Published):
    module = NMNIST
    config = "nmnist.yaml"
    net = ("--model.backbone.channels=2",)
    settings: ClassVar = {"val_fraction": 0.25}
    first_file = "Train.zip"

    def write(self, root: Path) -> dict[str, Truth]:
        truth = {}
        for folder, each in (("Train", 4), ("Test", 2)):
            made = digits(folder, each)
            write_zip(root / f"{folder}.zip", {f"{name}.bin": atis(recorded) for name, (_, recorded) in made.items()})
            part = folder.lower()
            truth |= {f"{part}-{name[-5:]}": Truth(part, *sample) for name, sample in made.items()}
        return truth

    def theirs(self, root: Path, name: str) -> dict[str, np.ndarray]:
        part, number = name.split("-")
        with zipfile.ZipFile(root / f"{part.title()}.zip") as archive:
            (member,) = (found for found in archive.namelist() if found.endswith(f"{number}.bin"))
            (root / "sample.bin").write_bytes(archive.read(member))
        return spikingjelly_datasets("utils").load_ATIS_bin(root / "sample.bin")

    def test_frames_by_time_equal_those_of_one_event_after_another_and_spikingjelly_s(
        self, made: tuple[Path, dict[str, Truth]]
    ) -> None:
        root, truth = made
        utils = spikingjelly_datasets("utils")
        data = self.data(root, frames=events.FixedNumber(T=4, split_by="time"))
        for batch in self.batches(data)[:3]:
            for n, name in enumerate(batch.ids or ()):
                recorded = truth[name].events
                first, span = recorded[0][0], recorded[-1][0] - recorded[0][0]
                expected = np.zeros((4, 2, 34, 34), int)
                for t, x, y, p in recorded:
                    expected[min((t - first) // (span // 4), 3), p, y, x] += 1
                np.testing.assert_array_equal(batch.x[:, n].numpy(), expected)
                theirs = utils.integrate_events_by_fixed_frames_number(self.theirs(root, name), "time", 4, 34, 34)
                np.testing.assert_array_equal(batch.x[:, n].numpy(), theirs)

    def test_validation_takes_its_share_of_each_digit_from_the_training_samples(
        self, made: tuple[Path, dict[str, Truth]]
    ) -> None:
        root, _ = made
        for seed in (0, 1):
            data = self.data(root, seed=seed)
            labels = {part: sorted(label for _, _, label in data.samples(part)) for part in PARTS}
            assert labels["val"] == list(range(10))
            assert labels["train"] == sorted(3 * list(range(10)))
            assert {name.split("-")[0] for name, _, _ in data.samples("val")} == {"train"}
        seeds = [[name for name, _, _ in self.data(root, seed=seed).samples("val")] for seed in (0, 0, 1)]
        assert seeds[0] == seeds[1] != seeds[2]

    @pytest.mark.slow
    def test_several_processes_decode_the_same(self, made: tuple[Path, dict[str, Truth]]) -> None:
        root, _ = made
        expected = self.batches(self.data(root))
        shutil.rmtree(root / "cache")
        for a, b in zip(self.batches(self.data(root, prepare_workers=2)), expected, strict=True):
            np.testing.assert_array_equal(a.x, b.x)

    def test_folders_unpacked_by_hand_will_do(self, made: tuple[Path, dict[str, Truth]]) -> None:
        root, truth = made
        for name in ("Train", "Test"):  # as `unzip` leaves them in root/unpacked, and in a folder of their own
            place = {"Train": root / "unpacked", "Test": root / "unpacked/Test"}[name]
            with zipfile.ZipFile(root / f"{name}.zip") as archive:
                archive.extractall(place)
            (root / f"{name}.zip").unlink()
        data = self.data(root)
        found = {name: data.read(recording) for part in PARTS for name, recording, _ in data.samples(part)}
        assert {name: len(array) for name, array in found.items()} == {k: len(v.events) for k, v in truth.items()}


# ------------------------------------------------------------ Train.zip alone


@pytest.fixture
def train_alone(tmp_path: Path) -> Path:
    made = digits("Train", 10)
    write_zip(tmp_path / "Train.zip", {f"{name}.bin": atis(recorded) for name, (_, recorded) in made.items()})
    return tmp_path


def parts_of(root: Path, split: Any, **settings: Any) -> dict[str, list[str]]:
    data = NMNIST(root, split=split, prepare_workers=0, cache="none", val_fraction=0.2, **settings)
    parts = {part: [name for name, _, _ in data.samples(part)] for part in PARTS}
    everything = list(chain.from_iterable(parts.values()))
    assert len(set(everything)) == len(everything) == 100, "no sample stands in two parts"
    return parts


def test_in_file_order_the_last_numbers_test_whatever_their_digit(train_alone: Path) -> None:
    for seed in (0, 1):
        parts = parts_of(train_alone, "file-order", seed=seed, test_fraction=0.13)
        assert sorted(parts["test"]) == [f"train-{number:05d}" for number in range(88, 101)]


def test_shuffled_draws_a_share_of_each_digit_by_seed(train_alone: Path) -> None:
    drawn = [parts_of(train_alone, "shuffled", seed=seed, test_fraction=0.2) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert drawn[0]["test"] != drawn[2]["test"]
    labels = {f"train-{name[-5:]}": digit for name, (digit, _) in digits("Train", 10).items()}
    assert sorted(labels[name] for name in drawn[0]["test"]) == sorted(2 * list(range(10)))
    parts_of(train_alone, "file-order")  # in the same folder, each split has a file of its own


def test_a_part_of_train_zip_is_no_problem_where_it_is_asked_for(train_alone: Path) -> None:
    data = NMNIST(train_alone, split="file-order", prepare_workers=0, val_fraction=0.2)
    assert data.problems() == []
    with pytest.raises(DataError, match=r"1 of 2 files .*\n  Test.zip, 196 MB, MD5 69ca"):
        NMNIST(train_alone).prepare_data()


def test_the_small_config_trains_and_tests(train_alone: Path, cli: Cli) -> None:
    config = "nmnist_small.yaml"
    for verb in ("fit", "test"):
        outcome = cli(
            verb, "-c", CONFIGS / config, f"--data.root={train_alone}", "--data.prepare_workers=0",
            "--trainer.fast_dev_run=true", "--model.backbone.channels=[2,2]", "--data.val_fraction=0.2",
            "--data.frames.T=2",
        )  # fmt: skip
        assert outcome.status == 0, outcome.err


def test_a_share_that_leaves_nothing_to_validate_on_is_refused(train_alone: Path) -> None:
    with pytest.raises(ConfigError, match=r"val_fraction=0.01\): no class has enough samples"):
        NMNIST(train_alone, split="file-order", val_fraction=0.01, cache="none").prepare_data()


def test_a_split_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="'official', 'file-order' or 'shuffled'"):
        NMNIST(split="random")  # type: ignore[arg-type]


# ------------------------------------------------------------ single files


def one(root: Path, content: bytes, name: str = "Train/3/00001.bin") -> NMNIST:
    write_zip(root / "Train.zip", {name: content, "Train/3/00002.bin": atis([(1, 2, 3, 1)])})
    return NMNIST(root, split="file-order", test_fraction=0.5, val_fraction=0.0, prepare_workers=0)


def test_overflow_markers_move_the_time_and_spikingjelly_takes_them_for_events(tmp_path: Path) -> None:
    recorded = [(10, 1, 2, 1), (20, 0, 240, 0), (30, 3, 4, 0), (40, 9, 240, 1), (40, 9, 240, 1), (50, 5, 6, 1)]
    data = one(tmp_path, atis(recorded))
    ((_, recording, _),) = data.samples("train")
    assert data.read(recording).tolist() == [
        (10, 1, 2, True),
        (30 + 2**13, 3, 4, False),
        (50 + 3 * 2**13, 5, 6, True),
    ]
    (tmp_path / "a.bin").write_bytes(atis(recorded))
    theirs = spikingjelly_datasets("utils").load_ATIS_bin(tmp_path / "a.bin")
    assert len(theirs["t"]) == 6
    assert theirs["y"].max() == 240, "a row that the sensor does not have"


def test_a_time_without_events_is_an_empty_frame_and_an_error_in_spikingjelly(tmp_path: Path) -> None:
    recorded = [(0, 1, 1, 1), (1, 2, 2, 0), (300_000, 3, 3, 1)]
    data = one(tmp_path, atis(recorded))
    data.frames = events.FixedNumber(T=3, split_by="time")
    ((_, recording, _),) = data.samples("train")
    assert data.integrate(recording).sum((1, 2, 3)).tolist() == [2, 0, 1]
    (tmp_path / "a.bin").write_bytes(atis(recorded))
    utils = spikingjelly_datasets("utils")
    with pytest.raises(IndexError):
        utils.integrate_events_by_fixed_frames_number(utils.load_ATIS_bin(tmp_path / "a.bin"), "time", 3, 34, 34)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (atis([(1, 2, 3, 1)])[:-1], r"sample 'train-00001': .*00001.bin is truncated"),
        (b"", r"sample 'train-00001': .*00001.bin is empty"),
        (atis([(1, 2, 34, 1)]), r"sample 'train-00001': 1 of 1 events lie outside the sensor"),
    ],
)
def test_a_damaged_recording_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        one(tmp_path, content).prepare_data()
    assert not list((tmp_path / "cache").glob("events-*")), "nothing half-made is left"


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    data = one(tmp_path, atis(draw(0, 500, (34, 34))))
    content = bytearray((tmp_path / "Train.zip").read_bytes())
    content[200] ^= 0xFF
    (tmp_path / "Train.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"Train/3/00001.bin in .*Train.zip is damaged"):
        data.prepare_data()


@pytest.mark.parametrize("name", ["Train/x/00001.bin", "00001.bin"])
def test_a_file_in_the_folder_of_no_digit_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"Train.zip: {name} does not lie in the folder of a digit"):
        one(tmp_path, atis([(1, 2, 3, 1)]), name).prepare_data()


def test_published_facts() -> None:
    assert NMNIST.files == (
        SourceFile("Train.zip", "20959b8e626244a1b502305a9e6e2031", size=1_181_000_000),
        SourceFile("Test.zip", "69ca8762b2fe404d9b9bad1103e97832", size=196_000_000),
    )
    assert NMNIST.page == "www.garrickorchard.com/datasets/n-mnist"
    assert NMNIST.expected == {"train": 60_000, "test": 10_000}
    assert NMNIST.sensor_size == (34, 34)
    assert NMNIST.classes == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")


# ------------------------------------------------------------ real events


@pytest.mark.skipif(not REAL.is_file(), reason="needs nmnist_train_1000.zip (set JELLYFIT_REAL_EVENTS to its folder)")
def test_the_first_thousand_real_digits_train_from_their_zip(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/Train.zip").symlink_to(REAL)
    settings = (
        "-c", CONFIGS / "nmnist_small.yaml", "--data.root=real", "--data.prepare_workers=0",
        "--trainer.max_epochs=1", "--trainer.limit_train_batches=3", "--model.backbone.channels=[4,4]",
        "--data.frames.T=2",
    )  # fmt: skip
    assert cli("fit", *settings).status == 0
    outcome = cli("test", *settings, "--ckpt_path=best")
    assert outcome.status == 0, outcome.err
    data = NMNIST(tmp_path / "real", split="file-order", prepare_workers=0)
    parts = {part: list(data.samples(part)) for part in PARTS}
    assert len(parts["train"]) + len(parts["val"]) == 900
    assert sorted(name for name, _, _ in parts["test"]) == [f"train-{number:05d}" for number in range(901, 1001)]
    with zipfile.ZipFile(REAL) as archive:
        sizes = {f"train-{Path(name).stem}": archive.getinfo(name).file_size for name in archive.namelist()}
    for name, recording, label in parts["test"]:
        assert len(data.read(recording)) == sizes[name] // 5
        assert recording.name.split("/")[1] == str(label)
    ((_, recording, _), *_) = parts["test"]
    recorded = [tuple(map(int, event)) for event in data.read(recording).tolist()]
    np.testing.assert_array_equal(data.integrate(recording), slow_frames(recorded, 10, (34, 34)))
