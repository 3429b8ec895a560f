"""IDX files, MNIST from them, and still digits."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from jellyfit.datamodules import MNIST, DigitImages, read_idx
from jellyfit.errors import ConfigError, DataError
from tests.cli.test_configs import write_mnist


def idx(values: np.ndarray, code: int) -> bytes:
    shape = struct.pack(f">{values.ndim}I", *values.shape)
    return bytes([0, 0, code, values.ndim]) + shape + values.astype(values.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize(
    ("dtype", "code"), [("u1", 8), ("i1", 9), ("i2", 0x0B), ("i4", 0x0C), ("f4", 0x0D), ("f8", 0x0E)]
)
@pytest.mark.parametrize("gzipped", [False, True])
def test_read_idx(tmp_path: Path, dtype: str, code: int, gzipped: bool) -> None:
    values = np.arange(-12, 12).reshape(2, 3, 4).astype(dtype)
    content = idx(values, code)
    (tmp_path / "a").write_bytes(gzip.compress(content, mtime=0) if gzipped else content)
    read = read_idx(tmp_path / "a")
    np.testing.assert_array_equal(read, values)
    assert read.dtype == values.dtype
    assert read.flags.writeable


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "begins with nothing"),
        (b"\0\0\x08", "not an IDX file"),
        (b"PNG.....", "not an IDX file; it begins with 50 4e 47 2e"),
        (b"\0\0\x07\x01\0\0\0\1\0", "not an IDX file"),
        (b"\0\0\x08\x03\0\0\0\1", "its header promises"),
        (idx(np.zeros(5, "u1"), 8)[:-1], "12 bytes, but its header promises 13"),
        (idx(np.zeros(5, "u1"), 8) + b"\0", "14 bytes, but its header promises 13"),
        (gzip.compress(idx(np.zeros(5, "u1"), 8), mtime=0)[:-9], "damaged gzip file"),
        (b"\x1f\x8b garbage that is no gzip file", "damaged gzip file"),
        (gzip.compress(b"a" * 100, mtime=0)[:12] + b"\xff" * 40, "damaged gzip file"),
    ],
)
def test_read_idx_says_what_is_wrong(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(tmp_path / "file")
    assert words in str(caught.value)
    assert str(tmp_path / "file") in str(caught.value)


def test_mnist_names_missing_files_and_their_place(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist/t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte not found") as caught:
        MNIST(tmp_path / "mnist").prepare_data()
    assert "train-images" not in str(caught.value)
    assert str(tmp_path / "mnist") in str(caught.value)


def test_mnist_splits(tmp_path: Path) -> None:
    root = tmp_path / "mnist"
    write_mnist(root)
    data = MNIST(root, batch_size=100, val_size=30)
    data.prepare_data()
    for stage in ("fit", "test"):
        data.setup(stage)
    (train,), (val,), (test,) = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
    assert train.x.shape == (50, 1, 28, 28)
    assert val.x.shape == (30, 1, 28, 28)
    assert test.x.shape == (80, 1, 28, 28)
    assert train.x.dtype == torch.uint8
    assert val.ids == [f"train-{i:05d}" for i in range(50, 80)]
    assert sorted(train.ids) == [f"train-{i:05d}" for i in range(50)]
    images, labels = read_idx(root / "train-images-idx3-ubyte"), read_idx(root / "train-labels-idx1-ubyte.gz")
    torch.testing.assert_close(val.x[:, 0], torch.from_numpy(images[50:]))
    torch.testing.assert_close(data.normalize(val.x)[:, 0] * 255, torch.from_numpy(images[50:]).float())
    assert val.y.tolist() == labels[50:].tolist()


def test_mnist_without_validation_images_validates_on_the_test_set(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    data = MNIST(tmp_path / "mnist", val_size=0)
    data.setup("fit")
    assert next(iter(data.val_dataloader())).ids[0] == "test-00000"


def test_mnist_refuses_what_cannot_be(tmp_path: Path) -> None:
    root = tmp_path / "mnist"
    write_mnist(root)
    with pytest.raises(ConfigError, match="val_size=-1"):
        MNIST(root, val_size=-1)
    with pytest.raises(ConfigError, match=r"val_size=80.*hold only 80"):
        MNIST(root, val_size=80).setup("fit")
    (root / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(7, "u1"), 8))
    with pytest.raises(DataError, match=r"as many labels \[N\]"):
        MNIST(root, val_size=8).setup("fit")
    (root / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.full(80, 11, "u1"), 8))
    with pytest.raises(DataError, match="labels run from 11 to 11"):
        MNIST(root, val_size=8).setup("fit")


def test_digit_images() -> None:
    from sklearn.datasets import load_digits

    data = DigitImages(batch_size=2000)
    data.setup("fit")
    data.setup("test")
    (val,), (test,) = data.val_dataloader(), data.test_dataloader()
    assert val.x.shape == (200, 1, 8, 8)
    assert test.x.shape == (597, 1, 8, 8)
    assert float(test.x.max()) == 1.0
    torch.testing.assert_close(test.x[:, 0] * 16, torch.from_numpy(load_digits().images[1200:]).float())
    assert test.y.tolist() == load_digits().target[1200:].tolist()
