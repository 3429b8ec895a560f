"""CIFAR-10 and CIFAR-100 from files in their true bytes."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from jellyfit.datamodules import CIFAR10, CIFAR100
from jellyfit.datamodules.fetch import SourceFile
from jellyfit.errors import ConfigError, DataError
from tests.conftest import CONFIGS, Cli

EACH = 10  # images of a class in a training file


def write_cifar10(folder: Path, each: int = EACH) -> dict[str, tuple[int, np.ndarray]]:
    """Six files: of every image its class in a byte, then 1,024 bytes each of red, green and blue, row by row."""
    return _write(folder, [f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"], 10, 1, each)


def write_cifar100(folder: Path, each: int = EACH) -> dict[str, tuple[int, np.ndarray]]:
    """Two files; in front of the class, its coarse class in another byte."""
    return _write(folder, ["train.bin"], ["test.bin"], 100, 2, each)


def _write(
    folder: Path, train: list[str], test: list[str], classes: int, label_bytes: int, each: int
) -> dict[str, tuple[int, np.ndarray]]:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    truth = {}
    for part, names in (("train", train), ("test", test)):
        number = 0
        for name in names:
            content = b""
            for label in rng.permutation(np.repeat(np.arange(classes), each)).tolist():
                pixels = rng.integers(0, 256, (3, 32, 32), dtype=np.uint8)
                content += bytes([label // 5, label][-label_bytes:]) + pixels.tobytes()
                truth[f"{part}-{number:05d}"] = label, pixels
                number += 1
            (folder / name).write_bytes(content)
    return truth


def pack(files: Mapping[str, bytes], path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize(
    ("module", "write"), [(CIFAR10, write_cifar10), (CIFAR100, write_cifar100)], ids=["CIFAR10", "CIFAR100"]
)
def test_every_image_is_read_exactly_and_stands_in_one_part(tmp_path: Path, module: type[CIFAR10], write) -> None:
    truth = write(tmp_path / "bin")
    data = module(tmp_path, batch_size=64, val_fraction=0.2)
    data.setup("fit")
    data.setup("test")
    seen = set()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for batch in loader:
            assert batch.x.dtype == torch.uint8
            for n, name in enumerate(batch.ids):
                assert name not in seen
                seen.add(name)
                assert int(batch.y[n]) == truth[name][0]
                np.testing.assert_array_equal(batch.x[n].numpy(), truth[name][1])
    assert seen == set(truth)


def test_validation_has_its_share_of_every_class_and_depends_on_the_seed_alone(tmp_path: Path) -> None:
    truth = write_cifar10(tmp_path)

    def ids(seed: int) -> list[str]:
        data = CIFAR10(tmp_path, val_fraction=0.1, seed=seed, batch_size=100)
        data.setup("fit")
        (batch,) = data.val_dataloader()
        return batch.ids

    assert ids(0) == ids(0) != ids(1)
    assert np.bincount([truth[name][0] for name in ids(0)]).tolist() == [5] * 10
    data = CIFAR10(tmp_path, val_fraction=0, batch_size=1000)
    data.setup("fit")
    (batch,) = data.val_dataloader()
    assert batch.ids == [name for name in truth if name.startswith("test")]


def test_the_archive_is_verified_and_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path / "made", each=1)
    files = {f"cifar-10-batches-bin/{path.name}": path.read_bytes() for path in sorted((tmp_path / "made").iterdir())}
    root = tmp_path / "data"
    root.mkdir()
    pack({"cifar-10-batches-bin/readme.html": b"", **files}, root / "cifar-10-binary.tar.gz")
    with pytest.raises(DataError, match="not the file that it should be: its MD5"):
        CIFAR10(root, download=False).prepare_data()
    md5 = hashlib.md5((root / "cifar-10-binary.tar.gz").read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "file", SourceFile("cifar-10-binary.tar.gz", md5=md5))
    for _ in range(2):
        data = CIFAR10(root)
        data.prepare_data()
        assert len(data.records("train").labels) == 50
        (root / "cifar-10-binary.tar.gz").unlink(missing_ok=True)


def test_missing_files_are_named_with_their_page_and_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz, 170 MB, MD5 c32a") as told:
        CIFAR10(tmp_path, download=False).prepare_data()
    assert "www.cs.toronto.edu/~kriz" in str(told.value)
    assert str(tmp_path) in str(told.value)
    write_cifar10(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"holds .*data_batch_1.bin.* but not data_batch_3.bin"):
        CIFAR10(tmp_path, download=False).prepare_data()


def python2_pickle(columns: Mapping[str, np.ndarray | list[int]]) -> bytes:
    """A dict of arrays and lists of integers as Python 2 pickled it: strings of bytes, NumPy's old module."""

    def string(text: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(text)) + text

    content = b"\x80\x02}("
    for key, value in columns.items():
        content += string(key.encode())
        if isinstance(value, list):
            content += b"](" + b"".join(b"M" + struct.pack("<H", number) for number in value) + b"e"
        else:
            shape = b"".join(b"M" + struct.pack("<H", side) for side in value.shape)
            content += b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n(M\0\0t" + string(b"b") + b"\x87R"
            content += b"(M\1\0(" + shape + b"tcnumpy\ndtype\n" + string(b"u1") + b"M\0\0M\1\0\x87R"
            content += b"(M\3\0" + string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffM\0\0tb"
            content += b"\x89" + string(value.tobytes()) + b"tb"
    return content + b"u."


@pytest.mark.parametrize(
    ("module", "write", "folder"),
    [(CIFAR10, write_cifar10, "cifar-10-batches-py"), (CIFAR100, write_cifar100, "cifar-100-python")],
    ids=["CIFAR10", "CIFAR100"],
)
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_the_python_version_is_converted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: type[CIFAR10], write, folder: str, packed: bool
) -> None:
    truth = write(tmp_path / "binary", each=1)
    files = {}
    for path in (tmp_path / "binary").iterdir():
        table = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 3072 + module.layout.label_bytes)
        kinds = ["labels"] if module is CIFAR10 else ["coarse_labels", "fine_labels"]
        labels = {kind: table[:, i].tolist() for i, kind in enumerate(kinds)}
        files[f"{folder}/{path.stem}"] = python2_pickle({**labels, "data": table[:, len(kinds) :]})
    root = tmp_path / "data"
    (root / folder).mkdir(parents=True)
    if packed:
        (root / folder).rmdir()
        pack(files, root / module.python_file.name)
        md5 = hashlib.md5((root / module.python_file.name).read_bytes()).hexdigest()
        monkeypatch.setattr(module, "python_file", SourceFile(module.python_file.name, md5=md5))
    else:
        for name, content in files.items():
            (root / name).write_bytes(content)
    data = module(root, batch_size=1000, download=False)
    data.setup("test")
    (batch,) = data.test_dataloader()
    for n, name in enumerate(batch.ids):
        assert int(batch.y[n]) == truth[name][0]
        np.testing.assert_array_equal(batch.x[n].numpy(), truth[name][1])
    monkeypatch.setattr("jellyfit.datamodules.cifar._read_pickled", lambda *_: pytest.fail("converted again"))
    module(root, download=False).prepare_data()


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("it ran",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps(Evil()), "asks for builtins.print, which is no array"),
        (python2_pickle({"labels": [1], "data": np.zeros((2, 3072), np.uint8)}), r"shape \[2, 3072\]"),
        (python2_pickle({"data": np.zeros((1, 3072), np.uint8)}), "labels"),
        (b"not a pickle", "is damaged"),
        (b"", "is damaged"),
    ],
)
def test_a_pickle_that_is_no_batch_is_refused_and_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    for name in (*CIFAR10.layout.train, *CIFAR10.layout.test):
        (tmp_path / name.removesuffix(".bin")).write_bytes(content)
    with pytest.raises(DataError, match=words):
        CIFAR10(tmp_path, download=False).prepare_data()
    assert "it ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes are no whole number of images of 3,073 bytes"),
        (bytes(3072), "3,072 bytes are no whole number"),
        (bytes([10]) + bytes(3072), "labels run from 0 to 10; expected 0 to 9"),
    ],
)
def test_files_that_are_cut_short_or_others_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    write_cifar10(tmp_path, each=1)
    (tmp_path / "data_batch_2.bin").write_bytes(content)
    with pytest.raises(DataError, match=words) as told:
        CIFAR10(tmp_path).setup("fit")
    assert str(tmp_path) in str(told.value)


def test_pickles_hold_no_images(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    data = CIFAR10(tmp_path)
    data.setup("fit")
    dataset = data.train_dataloader().dataset
    content = pickle.dumps(dataset)
    assert len(content) < 20_000
    again = pickle.loads(content)
    assert torch.equal(again[(0, 7)].sample.x, dataset[(0, 7)].sample.x)


def test_a_share_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="val_fraction=1"):
        CIFAR10(val_fraction=1.0)


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_with_the_same_weights(tmp_path: Path, cli: Cli) -> None:
    write_cifar10(tmp_path / "data", each=2)
    arguments = (
        "fit", "-c", CONFIGS / "cifar10_spikformer.yaml", "--data.root=data", "--data.batch_size=16", "--model.T=2",
        "--model.backbone.embed_dims=48", "--model.backbone.depths=1",
    )  # fmt: skip
    last = [*arguments, "--name=two", "--trainer.max_epochs=2"]
    for command in ([*arguments, "--name=one", "--trainer.max_epochs=2"], [*last[:-1], "--trainer.max_epochs=1"]):
        assert cli(*command).status == 0
    assert cli(*last, "--ckpt_path=last").status == 0
    one, two = (
        torch.load(tmp_path / f"runs/{name}/0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("one", "two")
    )
    assert all(torch.equal(one[name], two[name]) for name in one if isinstance(one[name], torch.Tensor))


def test_it_is_prepared_and_checked_from_the_command_line(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar10(tmp_path / "data")
    arguments = ("-c", CONFIGS / "cifar10_plif.yaml", f"--data.root={tmp_path / 'data'}")
    outcome = cli("data", "prepare", *arguments)
    assert outcome.status == 0, outcome.err
    assert "test      100 samples, 10 to 10 of each of 10 classes" in outcome.out
    outcome = cli("data", "check", *arguments)
    assert outcome.status == 1
    assert "500 images (train), the whole data set has 50,000" in outcome.out
    monkeypatch.setattr(CIFAR10, "expected", {"train": 500, "test": 100})
    outcome = cli("data", "check", *arguments)
    assert outcome.status == 0, outcome.err
