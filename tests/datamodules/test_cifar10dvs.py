"""CIFAR10-DVS from zips of AEDAT 2.0 files."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from jellyfit import events
from jellyfit.datamodules import CIFAR10DVS
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.errors import ConfigError, DataError
from tests.conftest import CONFIGS, ROOT, Cli
from tests.datamodules.made import write_zip
from tests.datamodules.published import Published, Truth, draw, spikingjelly_datasets

REAL = Path(os.environ.get("JELLYFIT_REAL_EVENTS", ROOT.parent / "shared/real_events"))
SIZE = (128, 128)
NUMBERS = (0, 2, 10, 99, 100, 101, 250, 999)
PARTS = ("train", "val", "test")
HEADER = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# created Thu Jul 21 10:11:12 CST 2016\r\n"


def word(x: int, y: int, p: int) -> int:
    """The address of an event whose numbers are those of SpikingJelly: the camera's picture transposed."""
    x_raw, y_raw = 127 - y, 127 - x
    return y_raw << 8 | x_raw << 1 | (1 - p)


def aedat(recorded: Sequence[tuple[int, ...]], header: bytes = HEADER) -> bytes:
    return header + b"".join(struct.pack(">II", word(x, y, p), t) for t, x, y, p in recorded)


def write_class(root: Path, name: str, files: dict[int, bytes]) -> None:
    write_zip(root / f"{name}.zip", {f"{name}/cifar10_{name}_{number}.aedat": part for number, part in files.items()})


def write_all(root: Path) -> dict[str, list[tuple[int, ...]]]:
    made = {}
    for label, name in enumerate(CIFAR10DVS.classes):
        recorded = {number: draw(100 * label + number, 30 + label, SIZE, step=40_000) for number in NUMBERS}
        write_class(root, name, {number: aedat(some) for number, some in recorded.items()})
        made |= {f"cifar10_{name}_{number}": some for number, some in recorded.items()}
    return made


class TestCIFAR10DVS(Published):
    module = CIFAR10DVS
    config = "cifar10dvs.yaml"
    settings: ClassVar = {"val_fraction": 0.25, "test_fraction": 0.25}
    plif_config = "cifar10dvs_plif.yaml"
    net = ("--model.backbone.base_channels=2",)
    frames = ("--data.frames.framing.T=2",)
    first_file = "airplane.zip"

    def write(self, root: Path) -> dict[str, Truth]:
        return {
            # in the order of text 99 and 999 are the last two of NUMBERS
            name: Truth("test" if name.endswith(("_99", "_999")) else "train", label, recorded)
            for name, recorded in write_all(root).items()
            for label in [CIFAR10DVS.classes.index(name.split("_")[1])]
        }

    def theirs(self, root: Path, name: str) -> dict[str, np.ndarray]:
        kind = name.split("_")[1]
        with zipfile.ZipFile(root / f"{kind}.zip") as archive:
            (root / "sample.aedat").write_bytes(archive.read(f"{kind}/{name}.aedat"))
        return spikingjelly_datasets("cifar10_dvs")._load_origin_data(root / "sample.aedat")

    def test_the_recipe_of_plif_net_trains_and_tests(self, made: tuple[Path, dict[str, Truth]], cli: Cli) -> None:
        root, _ = made
        for verb in ("fit", "test"):
            outcome = cli(
                verb, "-c", CONFIGS / self.plif_config, f"--data.root={root}", "--data.prepare_workers=0",
                "--data.batch_size=2", "--trainer.fast_dev_run=true", "--model.backbone.channels=2",
                "--data.frames.T=2", *self.flags(),
            )  # fmt: skip
            assert outcome.status == 0, outcome.err
            assert {"fit": "train/loss", "test": "test/accuracy"}[verb] in outcome.out

    def test_frames_of_the_recipe_are_48_by_48(self, made: tuple[Path, dict[str, Truth]]) -> None:
        data = self.data(made[0], frames=events.Resized(events.FixedNumber(T=2), (48, 48)), cache="frames")
        full = self.data(made[0], frames=events.FixedNumber(T=2))
        for each in (data, full):
            each.prepare_data()
            each.setup("test")
        small, large = (next(iter(each.test_dataloader())).x for each in (data, full))
        assert small.shape[-2:] == (48, 48)
        np.testing.assert_allclose(small.mean((-2, -1)), large.float().mean((-2, -1)), rtol=1e-5)

    def test_workers_load_the_batches_that_the_process_itself_loads(self, made: tuple[Path, dict[str, Truth]]) -> None:
        own, workers = (self.data(made[0], cache="frames", num_workers=number) for number in (0, 1))
        for mine, theirs in zip(self.batches(own), self.batches(workers), strict=True):
            assert mine.ids == theirs.ids
            assert torch.equal(mine.x, theirs.x)
            assert torch.equal(mine.y, theirs.y)

    def test_the_split_in_file_order_is_spikingjelly_s(self, made: tuple[Path, dict[str, Truth]]) -> None:
        root, truth = made
        listed = sorted(truth, key=lambda name: (truth[name].label, f"{name}.npz"))
        indices = [[i for i, name in enumerate(listed) if truth[name].label == label] for label in range(10)]
        utils = spikingjelly_datasets("utils")
        for share in (0.25, 0.1, 0.5):
            _, theirs = utils._split_class_indices(indices, 1 - share, random_split=False)
            data = self.data(root, test_fraction=share)
            assert [name for name, _, _ in data.samples("test")] == [listed[i] for i in theirs]

    def test_the_split_of_tebn_tests_numbers_below_a_hundred(self, made: tuple[Path, dict[str, Truth]]) -> None:
        root, _ = made
        for seed in (0, 1):
            parts = self.parts(root, split="tebn", seed=seed)
            assert {int(name.split("_")[2]) for name in parts["test"]} == {0, 2, 10, 99}
            assert {int(name.split("_")[2]) for name in parts["train"] + parts["val"]} == {100, 101, 250, 999}
            assert [len(parts[part]) for part in PARTS] == [30, 10, 40]

    def test_shuffled_draws_a_share_of_each_class_by_seed(self, made: tuple[Path, dict[str, Truth]]) -> None:
        root, _ = made
        drawn = [self.parts(root, split="shuffled", seed=seed) for seed in (0, 0, 1)]
        assert drawn[0] == drawn[1]
        assert drawn[0]["test"] != drawn[2]["test"]
        assert sorted(name.split("_")[1] for name in drawn[0]["test"]) == sorted(2 * CIFAR10DVS.classes)

    def parts(self, root: Path, **settings: Any) -> dict[str, list[str]]:
        data = self.data(root, **settings)
        parts = {part: [name for name, _, _ in data.samples(part)] for part in PARTS}
        everything = list(chain.from_iterable(parts.values()))
        assert len(set(everything)) == len(everything) == 80, "no sample stands in two parts"
        return parts


# ------------------------------------------------------------ single files


def decoded(tmp_path: Path, content: bytes) -> events.EventArray:
    (tmp_path / "a.aedat").write_bytes(content)
    return CIFAR10DVS(tmp_path).decode(tmp_path / "a.aedat", None)  # type: ignore[arg-type]


def test_special_words_are_no_events_and_spikingjelly_takes_them_for_some(tmp_path: Path) -> None:
    content = aedat([(1, 2, 3, 1)]) + struct.pack(">II", 0x8000, 2) + aedat([(3, 4, 5, 0)], header=b"")
    assert decoded(tmp_path, content).tolist() == [(1, 2, 3, True), (3, 4, 5, False)]
    assert len(spikingjelly_datasets("cifar10_dvs")._load_origin_data(tmp_path / "a.aedat")["t"]) == 3


def test_times_are_unsigned_and_go_on_after_the_counter_is_full(tmp_path: Path) -> None:
    """SpikingJelly takes the end of such a recording for its beginning, so its last frame by time is another one."""
    recorded = [(2**31 - 5, 1, 1, 1), (2**32 - 10, 2, 2, 0), (20, 3, 3, 1), (40, 4, 4, 1)]
    found = decoded(tmp_path, aedat(recorded))
    assert found["t"].tolist() == [2**31 - 5, 2**32 - 10, 2**32 + 20, 2**32 + 40]
    theirs = spikingjelly_datasets("cifar10_dvs")._load_origin_data(tmp_path / "a.aedat")
    assert theirs["t"][-1] < theirs["t"][0]


def test_the_camera_s_picture_is_the_transpose(tmp_path: Path) -> None:
    found = decoded(tmp_path, aedat([(1, 2, 100, 1)]))
    camera = events.read_events(tmp_path / "a.aedat")
    assert (found["x"][0], found["y"][0]) == (2, 100)
    assert (camera["x"][0], camera["y"][0]) == (100, 2)


@pytest.mark.skipif(not REAL.is_dir(), reason="no real recordings (set JELLYFIT_REAL_EVENTS to their folder)")
@pytest.mark.parametrize("name", ["dvs128_alex_walking_again.aedat", "dvs128_chave_fenda.aedat"])
def test_real_recordings_of_this_camera_are_those_that_spikingjelly_reads(tmp_path: Path, name: str) -> None:
    found = decoded(tmp_path, (REAL / name).read_bytes())
    theirs = spikingjelly_datasets("cifar10_dvs")._load_origin_data(REAL / name)
    for field in "txyp":
        np.testing.assert_array_equal(found[field], theirs[field], err_msg=field)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({0: aedat([(1, 2, 3, 1)])[:-3]}, "sample 'cifar10_airplane_0': .*is truncated"),
        ({0: b"no recording"}, "sample 'cifar10_airplane_0': "),
        (
            {"x": aedat([(1, 2, 3, 1)])},
            "airplane.zip: expected names such as cifar10_airplane_0.aedat; got airplane/cif",
        ),
    ],
)
def test_what_is_wrong_in_an_archive_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[Any, bytes], words: str
) -> None:
    for name in CIFAR10DVS.classes:
        write_class(tmp_path, name, files if name == "airplane" else {1: aedat([(1, 2, 3, 1)])})
    monkeypatch.setattr(CIFAR10DVS, "files", tuple(SourceFile(f"{name}.zip") for name in CIFAR10DVS.classes))
    with pytest.raises(DataError, match=words):
        CIFAR10DVS(tmp_path, split="shuffled", val_fraction=0.0, prepare_workers=0).prepare_data()


def test_a_split_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="'file-order', 'tebn' or 'shuffled'"):
        CIFAR10DVS(split="random")  # type: ignore[arg-type]


def test_published_facts() -> None:
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    numbers = (7712788, 7712791, 7712794, 7712812, 7712815, 7712818, 7712842, 7712851, 7712836, 7712839)
    md5 = [
        "0afd5c4bf9ae06af762a77b180354fdd",
        "8438dfeba3bc970c94962d995b1b9bdd",
        "a9c207c91c55b9dc2002dc21c684d785",
        "52c63c677c2b15fa5146a8daf4d56687",
        "b6bf21f6c04d21ba4e23fc3e36c8a4a3",
        "f379ebdf6703d16e0a690782e62639c3",
        "cad6ed91214b1c7388a5f6ee56d08803",
        "e7cbbf77bec584ffbf913f00e682782a",
        "41c7bd7d6b251be82557c6cce9a7d5c9",
        "89f3922fd147d9aeff89e76a2b0b70a7",
    ]
    assert CIFAR10DVS.files == tuple(
        SourceFile(f"{name}.zip", digest, (f"https://ndownloader.figshare.com/files/{number}",))
        for name, digest, number in zip(names, md5, numbers, strict=True)
    )
    assert CIFAR10DVS.classes == names
    assert CIFAR10DVS.expected == {"all": 10_000}
    assert CIFAR10DVS.sensor_size == SIZE
