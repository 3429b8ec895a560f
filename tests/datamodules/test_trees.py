"""Files in folders and archives as one tree."""

from __future__ import annotations

import io
import pickle
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from jellyfit.datamodules.trees import FolderTree, JoinedTree, ZipTree, open_nested, open_tree
from jellyfit.errors import DataError

FILES = {"Train/0/b.bin": b"bb", "Train/0/a.bin": b"a", "Train/1/c.bin": b"ccc", "readme.txt": b"hello"}


def write(kind: str, folder: Path, files: dict[str, bytes]) -> Path:
    if kind == "folder":
        for name, content in files.items():
            (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "data" / name).write_bytes(content)
        return folder / "data"
    path = folder / f"data.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_files_are_the_same_wherever_they_lie(tmp_path: Path, kind: str) -> None:
    tree = open_tree(write(kind, tmp_path, FILES), tmp_path / "scratch")
    assert tree.names() == sorted(FILES)
    assert tree.glob("Train/*/*.bin") == ["Train/0/a.bin", "Train/0/b.bin", "Train/1/c.bin"]
    assert tree.glob("*.txt") == ["readme.txt"]
    assert tree.glob("Train/*") == []
    assert tree.glob("**/*.bin") == ["Train/0/a.bin", "Train/0/b.bin", "Train/1/c.bin"]
    assert tree.glob("**/0/*.bin") == ["Train/0/a.bin", "Train/0/b.bin"]
    assert tree.glob("**/*.txt") == ["readme.txt"]
    for name, content in FILES.items():
        with tree.local(name) as path:
            assert path.read_bytes() == content
            assert path.suffix == Path(name).suffix
    copy = pickle.loads(pickle.dumps(tree))
    with copy.local("readme.txt") as path:
        assert path.read_bytes() == b"hello"


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_the_digest_changes_with_the_content(tmp_path: Path, kind: str) -> None:
    digests = set()
    for i, files in enumerate([FILES, {**FILES, "readme.txt": b"hello!"}, {**FILES, "more": b""}]):
        (tmp_path / str(i)).mkdir()
        path = write(kind, tmp_path / str(i), files)
        digests.add(open_tree(path, tmp_path / str(i) / "scratch").digest())
        assert open_tree(path, tmp_path / str(i) / "scratch").digest() in digests
    assert len(digests) == 3


def test_what_a_mac_adds_is_not_seen(tmp_path: Path) -> None:
    path = write("zip", tmp_path, {**FILES, "__MACOSX/Train/._a.bin": b"", "Train/.DS_Store": b""})
    assert ZipTree(path).names() == sorted(FILES)


def test_a_file_of_a_zip_is_on_disk_only_while_it_is_read(tmp_path: Path) -> None:
    with ZipTree(write("zip", tmp_path, FILES)).local("readme.txt") as path:
        assert path.exists()
    assert not path.exists()


def test_tar_archives_are_unpacked_once_and_whole(tmp_path: Path) -> None:
    path = write("tar.gz", tmp_path, FILES)
    tree = open_tree(path, tmp_path / "scratch")
    assert isinstance(tree, FolderTree)
    assert tree.folder == tmp_path / "scratch" / "data"
    (tree.folder / "readme.txt").write_bytes(b"mine")
    with open_tree(path, tmp_path / "scratch").local("readme.txt") as again:
        assert again.read_bytes() == b"mine"
    assert not [p for p in (tmp_path / "scratch").iterdir() if p.name.startswith(".data")]


def test_a_tar_archive_that_is_cut_short_leaves_nothing(tmp_path: Path) -> None:
    path = write("tar.gz", tmp_path, {f"{i}": bytes(range(256)) * 200 for i in range(20)})
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError, match="damaged"):
        open_tree(path, tmp_path / "scratch")
    assert [p.name for p in (tmp_path / "scratch").iterdir() if p.is_dir()] == []


def test_a_tar_archive_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    path = write("tar", tmp_path, {"../../evil": b"x"})
    with pytest.raises(DataError, match="damaged"):
        open_tree(path, tmp_path / "scratch")
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path.parent / "evil").exists()


def test_damaged_zip_archives_and_other_files_are_refused(tmp_path: Path) -> None:
    path = write("zip", tmp_path, {"a.bin": bytes(i * i % 251 for i in range(5000))})
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="a.bin in .* is damaged"), ZipTree(path).local("a.bin"):
        pass
    other = tmp_path / "other.zip"
    other.write_bytes(b"no archive at all")
    with pytest.raises(DataError, match="no archive"):
        open_tree(other, tmp_path)


def test_a_rar_archive_without_a_reader_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rarfile", None)
    path = tmp_path / "part01.rar"
    path.write_bytes(b"Rar!\x1a\x07\x01\x00")
    with pytest.raises(DataError, match=r"jellyfit\[rar\]"):
        open_tree(path, tmp_path / "scratch")


# ------------------------------------------------------------ archives within archives


def write_nested(folder: Path, inner: dict[str, dict[str, bytes]]) -> Path:
    parts = {}
    for name, files in inner.items():
        (folder / name).mkdir(parents=True)
        parts[f"all/{name}.zip"] = write("zip", folder / name, files).read_bytes()
    return write("zip", folder, {**parts, "all/readme.txt": b"hello"})


def test_the_files_of_archives_within_an_archive_are_one_tree(tmp_path: Path) -> None:
    path = write_nested(tmp_path, {"a": {"a/1.bin": b"one"}, "b": {"b/1.bin": b"uno", "b/2.bin": b"due"}})
    tree = open_nested(path, tmp_path / "scratch")
    assert tree.glob("**/*.bin") == ["a/1.bin", "b/1.bin", "b/2.bin"]
    for name, content in (("a/1.bin", b"one"), ("b/2.bin", b"due"), ("all/readme.txt", b"hello")):
        with pickle.loads(pickle.dumps(tree)).local(name) as found:
            assert found.read_bytes() == content
    assert sorted(p.name for p in (tmp_path / "scratch/data/all").iterdir()) == ["a.zip", "b.zip", "readme.txt"]
    assert open_nested(tmp_path / "scratch/data", tmp_path / "scratch").names() == tree.names()


def test_the_digest_of_archives_within_an_archive_changes_with_their_content(tmp_path: Path) -> None:
    digests = set()
    for name, content in (("1", b"one"), ("2", b"two"), ("3", b"three")):
        path = write_nested(tmp_path / name, {"a": {"a/1.bin": content}})
        digests.add(open_nested(path, tmp_path / name / "scratch").digest())
    assert len(digests) == 3


def test_an_archive_without_others_in_it_is_read_as_it_is(tmp_path: Path) -> None:
    tree = open_nested(write("zip", tmp_path, FILES), tmp_path / "scratch")
    assert isinstance(tree, ZipTree)
    assert not (tmp_path / "scratch").exists()


def test_archives_that_hold_the_same_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    trees = [ZipTree(write("zip", tmp_path / name, {"a.bin": b""})) for name in ("one", "two")]
    with pytest.raises(DataError, match="a.bin is in two of the archives"):
        JoinedTree(trees).names()


def test_an_outer_archive_that_is_damaged_leaves_nothing(tmp_path: Path) -> None:
    path = write_nested(tmp_path, {"a": {"a/1.bin": bytes(i * i % 251 for i in range(5000))}})
    content = bytearray(path.read_bytes())
    content[300] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        open_nested(path, tmp_path / "scratch")
    assert [p.name for p in (tmp_path / "scratch").iterdir() if p.is_dir()] == []
