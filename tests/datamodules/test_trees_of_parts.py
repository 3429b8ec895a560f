"""Single files, archives within archives and archives in parts as trees."""

from __future__ import annotations

import gc
import pickle
from pathlib import Path

import pytest

from jellyfit.datamodules.trees import FileTree, FolderTree, NamedTrees, ZipTree, archive_stem, open_tree, unpacked_tree
from jellyfit.errors import DataError
from tests.datamodules.made import zipped


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("Train.zip", "Train"),
        ("DvsGesture.tar.gz", "DvsGesture"),
        ("shd_train.h5.zip", "shd_train.h5"),
        ("ES-imagenet-0.18.part01.rar", "ES-imagenet-0.18"),
        ("ES-imagenet-0.18.part25.rar", "ES-imagenet-0.18"),
        ("train_label.txt", "train_label.txt"),
    ],
)
def test_names_without_their_endings(name: str, stem: str) -> None:
    assert archive_stem(name) == stem


def test_a_file_that_is_no_archive_is_a_tree_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("one")
    (tmp_path / "other.txt").write_text("not seen")
    tree = pickle.loads(pickle.dumps(open_tree(path, tmp_path / "scratch")))
    assert isinstance(tree, FileTree)
    assert tree.names() == ["labels.txt"]
    with tree.local("labels.txt") as local:
        assert local.read_text() == "one"
    digest = tree.digest()
    path.write_text("longer")
    assert tree.digest() != digest
    assert not (tmp_path / "scratch").exists()


def test_files_of_one_name_in_two_archives_are_told_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.zip").write_bytes(zipped({"1.npz": name.encode(), "in/2.npz": b"2"}))
    tree = NamedTrees({f"letters/{name}": ZipTree(tmp_path / f"{name}.zip") for name in ("b", "a")})
    tree = pickle.loads(pickle.dumps(tree))
    assert tree.names() == ["letters/a/1.npz", "letters/a/in/2.npz", "letters/b/1.npz", "letters/b/in/2.npz"]
    assert tree.glob("letters/*/*.npz") == ["letters/a/1.npz", "letters/b/1.npz"]
    for name in ("a", "b"):
        with tree.local(f"letters/{name}/1.npz") as path:
            assert path.read_text() == name
    digest = tree.digest()
    (tmp_path / "b.zip").write_bytes(zipped({"1.npz": b"c", "in/2.npz": b"2"}))
    assert pickle.loads(pickle.dumps(tree)).digest() != digest


def test_an_archive_is_closed_when_its_tree_ends(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"1.npz": b"1"}))
    tree = ZipTree(tmp_path / "a.zip")
    tree.names()
    archive = tree._archive
    assert archive is not None
    assert archive.fp is not None
    del tree
    gc.collect()
    assert archive.fp is None


def test_a_zip_archive_is_unpacked_once_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "shd_train.h5.zip"
    path.write_bytes(zipped({"shd_train.h5": b"one"}))
    tree = unpacked_tree(path, tmp_path / "scratch")
    assert isinstance(tree, FolderTree)
    assert tree.folder == tmp_path / "scratch" / "shd_train.h5"
    (tree.folder / "shd_train.h5").write_bytes(b"mine")
    with unpacked_tree(path, tmp_path / "scratch").local("shd_train.h5") as again:
        assert again.read_bytes() == b"mine"
    assert isinstance(open_tree(path, tmp_path / "scratch"), ZipTree)


def test_a_zip_archive_that_is_damaged_or_leads_outside_leaves_nothing_there(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    content = bytearray(zipped({"a.bin": bytes(i * i % 251 for i in range(5000))}))
    content[200] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        unpacked_tree(path, tmp_path / "scratch")
    assert [p.name for p in (tmp_path / "scratch").iterdir() if p.is_dir()] == []
    path.write_bytes(zipped({"../../evil": b"x"}))
    unpacked_tree(path, tmp_path / "scratch")
    assert not (tmp_path.parent / "evil").exists()
    assert not (tmp_path / "evil").exists()
