"""SHD and SSC from HDF5 files in zip archives."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import pytest
import torch

from jellyfit import events
from jellyfit.datamodules import SHD, SSC
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.errors import DataError
from tests.conftest import CONFIGS, Cli
from tests.datamodules.made import write_zip
from tests.datamodules.published import Published, Truth, spikingjelly_datasets

DIGITS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "null",
    "eins",
    "zwei",
    "drei",
    "vier",
    "fuenf",
    "sechs",
    "sieben",
    "acht",
    "neun",
]


def spikes(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds, as float16, and units."""
    random = np.random.default_rng(seed)
    return np.sort(random.random(count) * (0.3 + seed % 7 / 7)).astype(np.float16), random.integers(0, 700, count)


def write_h5(path: Path, labels: list[int], seeds: list[int], speakers: list[int] | None, words: list[str]) -> None:
    with h5py.File(path, "w") as file:
        for name, dtype in (("times", np.float16), ("units", np.uint16)):
            file.create_dataset(f"spikes/{name}", (len(labels),), h5py.special_dtype(vlen=np.dtype(dtype)))
        for i, seed in enumerate(seeds):
            file["spikes/times"][i], file["spikes/units"][i] = spikes(seed, 40 + seed)
        file["labels"] = np.array(labels, np.uint16)
        file["extra/keys"] = np.array([word.encode() for word in words])
        if speakers is not None:
            file["extra/speaker"] = np.array(speakers, np.uint16)


class Heidelberg(Published):
    """What SHD and SSC share."""

    net = ("--model.backbone.hidden=[4]",)
    frames = ()
    parts: ClassVar[dict[str, tuple[str, list[int], list[int] | None]]]  # of each archive: part, labels, speakers
    words: ClassVar[list[str]]

    def write(self, root: Path) -> dict[str, Truth]:
        truth = {}
        for archive, (part, labels, speakers) in self.parts.items():
            seeds = [len(truth) + i for i in range(len(labels))]
            path = root / archive.removesuffix(".zip")
            write_h5(path, labels, seeds, speakers, self.words)
            write_zip(root / archive, {path.name: path.read_bytes()})
            path.unlink()
            for i, (label, seed) in enumerate(zip(labels, seeds, strict=True)):
                times, units = spikes(seed, 40 + seed)
                recorded = [(round(float(t) * 1e6), int(unit), 0, 1) for t, unit in zip(times, units, strict=True)]
                truth[f"{part}-{i:05d}"] = Truth(part, label, recorded)
        return truth

    def arranged(self, frames: np.ndarray) -> np.ndarray:
        return frames[:, 1, 0]

    def unpacked(self, root: Path, name: str) -> tuple[h5py.File, int]:
        part, _, number = name.partition("-")
        archive = next(archive for archive, content in self.parts.items() if content[0] == part)
        name = archive.removesuffix(".zip")
        return h5py.File(root / "unpacked" / name / name), int(number)

    def test_frames_equal_spikingjelly_s(self, made: tuple[Path, dict[str, Truth]]) -> None:
        theirs = spikingjelly_datasets("shd")
        root, _ = made
        for batch in self.batches(self.data(root))[:2]:
            for n, name in enumerate(batch.ids or ()):
                file, number = self.unpacked(root, name)
                with file:
                    columns = {"t": file["spikes/times"][number], "x": file["spikes/units"][number]}
                frames = theirs._integrate_events_by_fixed_frames_number(columns, "number", 3, 700)
                np.testing.assert_array_equal(batch.x[:, n].numpy(), frames)

    def test_samples_of_different_length_come_with_their_lengths(self, made: tuple[Path, dict[str, Truth]]) -> None:
        root, truth = made
        batches = self.batches(self.data(root, frames=events.FixedDuration(10_000)))
        assert any(batch.lengths is not None for batch in batches)
        for batch in batches:
            steps = [(truth[name].events[-1][0] - truth[name].events[0][0]) // 10_000 + 1 for name in batch.ids or ()]
            assert tuple(batch.x.shape) == (max(steps), len(steps), 700)
            if len(set(steps)) > 1:
                assert batch.lengths is not None
                assert batch.lengths.tolist() == steps
            for n, name in enumerate(batch.ids or ()):
                expected = torch.zeros(len(batch.x), 700, dtype=torch.int64)
                for t, unit, _, _ in truth[name].events:
                    expected[(t - truth[name].events[0][0]) // 10_000, unit] += 1
                assert torch.equal(batch.x[:, n].long(), expected)

    def test_padded_steps_count_for_nothing(self, made: tuple[Path, dict[str, Truth]]) -> None:
        from jellyfit.losses import RateCrossEntropy

        batch = next(
            batch
            for batch in self.batches(self.data(made[0], frames=events.FixedDuration(10_000)))
            if batch.lengths is not None
        )
        y_seq = torch.rand(len(batch.x), len(batch.y), len(self.module.classes), generator=torch.manual_seed(0))
        together = RateCrossEntropy()(y_seq, batch.y, batch.lengths)
        alone = [
            RateCrossEntropy()(y_seq[:length, n : n + 1], batch.y[n : n + 1])
            for n, length in enumerate(batch.lengths.tolist())
        ]
        torch.testing.assert_close(together, torch.stack(alone).mean())

    def test_words_are_named_by_the_files(self, made: tuple[Path, dict[str, Truth]]) -> None:
        data = self.data(made[0])
        data.prepare_data()
        assert list(data.classes) == self.words

    @pytest.mark.parametrize("damage", ["labels", "spikes/times", "truncated", "two files"])
    def test_a_damaged_file_is_named(
        self, made: tuple[Path, dict[str, Truth]], monkeypatch: pytest.MonkeyPatch, damage: str, tmp_path: Path
    ) -> None:
        root, _ = made
        name = self.first_file.removesuffix(".zip")
        with zipfile.ZipFile(root / self.first_file) as archive:
            archive.extract(name, tmp_path)
        path = tmp_path / name
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:-500])
        elif damage != "two files":
            with h5py.File(path, "a") as file:
                del file[damage]
        copies = [name, f"copy_of_{name}"] if damage == "two files" else [name]
        write_zip(root / self.first_file, dict.fromkeys(copies, path.read_bytes()))
        self.publish(root, monkeypatch)
        with pytest.raises(DataError, match=r"holds 2 \.h5 files" if damage == "two files" else name):
            self.data(root).prepare_data()


class TestSHD(Heidelberg):
    module = SHD
    config = "shd.yaml"
    first_file = "shd_train.h5.zip"
    settings: ClassVar[dict[str, Any]] = {"val_fraction": 0.3}
    words = DIGITS
    parts: ClassVar = {
        "shd_train.h5.zip": ("train", [0, 3, 19, 10, 7, 3, 3, 0, 12], [0, 1, 2, 0, 1, 2, 0, 1, 2]),
        "shd_test.h5.zip": ("test", [5, 0, 19, 1], [4, 5, 0, 4]),
    }

    def test_validation_is_the_speech_of_other_people(self, made: tuple[Path, dict[str, Truth]]) -> None:
        data = self.data(made[0])
        speakers = self.parts["shd_train.h5.zip"][2] or []
        people = {part: {speakers[int(name[-5:])] for name, _, _ in data.samples(part)} for part in ("train", "val")}
        assert len(people["val"]) == 1
        assert people["train"] | people["val"] == {0, 1, 2}
        assert not people["train"] & people["val"]

    def test_slices_by_duration_equal_spikingjelly_s_where_float16_is_exact(self) -> None:
        theirs = spikingjelly_datasets("shd")
        times = np.array([0, 1, 1, 2, 5, 9], np.float16) / 8  # seconds; SpikingJelly counts in ms, in float16
        units = np.array([3, 699, 3, 0, 5, 3])
        expected = theirs._integrate_events_by_fixed_duration({"t": times, "x": units}, 200, 700)
        recorded = events.make_events((times.astype(float) * 1e6).astype(int), units, [0] * 6, [1] * 6)
        ours = events.to_frames(recorded, events.FixedDuration(200_000), (1, 700))[:, 1, 0]
        np.testing.assert_array_equal(ours, expected)

    def test_times_do_not_overflow_as_float16_does(self, made: tuple[Path, dict[str, Truth]]) -> None:
        """The defect of tonic: seconds as float16, times a million, are infinite."""
        root, truth = made
        self.data(root).prepare_data()
        file, number = self.unpacked(root, "train-00006")
        with file, np.errstate(over="ignore"):
            assert np.isinf(file["spikes/times"][number] * 1e6).any()
        assert max(t for t, *_ in truth["train-00006"].events) > 2**16

    @pytest.mark.parametrize("verb", ["fit", "test"])
    def test_the_recurrent_config_trains_and_tests(
        self, made: tuple[Path, dict[str, Truth]], cli: Cli, verb: str
    ) -> None:
        config = "shd_recurrent.yaml"
        outcome = cli(
            verb, "-c", CONFIGS / config, f"--data.root={made[0]}", "--data.prepare_workers=0", "--data.batch_size=2",
            "--model.backbone.hidden=[4]", "--trainer.fast_dev_run=true", *self.flags(),
        )  # fmt: skip
        assert outcome.status == 0, outcome.err
        assert {"fit": "train/loss", "test": "test/accuracy"}[verb] in outcome.out


class TestSSC(Heidelberg):
    module = SSC
    config = "ssc.yaml"
    first_file = "ssc_train.h5.zip"
    words: ClassVar = [f"command {number}" for number in range(35)]
    parts: ClassVar = {
        "ssc_train.h5.zip": ("train", [0, 3, 34, 10, 7], None),
        "ssc_valid.h5.zip": ("val", [5, 0, 34], None),
        "ssc_test.h5.zip": ("test", [1, 2, 30, 4], None),
    }

    def test_the_publishers_validation_part_validates(self, made: tuple[Path, dict[str, Truth]]) -> None:
        data = self.data(made[0], val_fraction=0.5)
        assert [name for name, _, _ in data.samples("val")] == [f"val-{i:05d}" for i in range(3)]


@pytest.mark.parametrize(
    ("module", "facts"),
    [
        (SHD, {"shd_train": "f3252aeb598ac776c1b526422d90eecb", "shd_test": "1503a5064faa34311c398fb0a1ed0a6f"}),
        (
            SSC,
            {
                "ssc_train": "d102be95e7144fcc0553d1f45ba94170",
                "ssc_valid": "b4eee3516a4a90dd0c71a6ac23a8ae43",
                "ssc_test": "a35ff1e9cffdd02a20eb850c17c37748",
            },
        ),
    ],
)
def test_published_facts(module: Any, facts: dict[str, str]) -> None:
    assert module.files == tuple(
        SourceFile(f"{name}.h5.zip", md5, (f"https://zenkelab.org/datasets/{name}.h5.zip",))
        for name, md5 in facts.items()
    )
    assert module.page == "zenkelab.org/datasets"
    assert module.sensor_size == (1, 700)


def test_numbers_of_samples() -> None:
    assert SHD.expected == {"train": 8156, "test": 2264}
    assert SSC.expected == {"train": 75466, "val": 9981, "test": 20382}
    assert list(SHD.classes) == DIGITS
    assert len(SSC.classes) == 35


def test_spikingjelly_lists_shd_s_files_for_ssc() -> None:
    """The defect that DATASETS names: its SSC would fetch SHD."""
    theirs = spikingjelly_datasets("shd").SpikingSpeechCommands.resource_url_md5()
    assert {name for name, _, _ in theirs} == {file.name for file in SHD.files}
