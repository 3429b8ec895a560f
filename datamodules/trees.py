"""Files of a data set as one tree, whether they lie in a folder or in an archive, which then need not be unpacked."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from jellyfit.datamodules.fetch import exclusive
from jellyfit.errors import DataError
from jellyfit.progress import track

__all__ = [
    "FileTree",
    "FolderTree",
    "JoinedTree",
    "NamedTrees",
    "Tree",
    "ZipTree",
    "archive_stem",
    "open_nested",
    "open_tree",
    "unpacked_tree",
]

_ARCHIVE = re.compile(r"(\.part\d+)?\.(zip|tar|tar\.gz|tgz|rar)$")


def archive_stem(name: str) -> str:
    """The name of an archive without its ending; the same for all parts of an archive in parts.

    Args:
        name: of the file. One that is no archive keeps its name.

    Examples:
        >>> from jellyfit.datamodules.trees import archive_stem
        >>> [archive_stem(name) for name in ("DvsGesture.tar.gz", "ES-imagenet-0.18.part07.rar", "labels.csv")]
        ['DvsGesture', 'ES-imagenet-0.18', 'labels.csv']
    """
    return _ARCHIVE.sub("", name)


class Tree(ABC):
    """Files by their names, which are relative and have forward slashes, in sorted order."""

    @abstractmethod
    def names(self) -> list[str]:
        """Every file."""

    @abstractmethod
    def local(self, name: str) -> AbstractContextManager[Path]:
        """A context in which the file lies on disk: ``with tree.local(name) as path``."""

    @abstractmethod
    def _facts(self) -> Iterator[str]:
        """One line a file that changes when its content does."""

    def digest(self) -> str:
        """Sixteen hex digits that change when a file is added, removed or changed."""
        digest = hashlib.sha256()
        for fact in self._facts():
            digest.update(fact.encode() + b"\n")
        return digest.hexdigest()[:16]

    def glob(self, pattern: str) -> list[str]:
        """Names that match ``pattern``, in which ``*`` stands within one part of the path; ``**/`` begins anywhere."""
        parts = PurePosixPath(pattern).parts
        anywhere = parts[0] == "**"
        wanted = parts[anywhere:]
        return [
            name
            for name in self.names()
            if len(found := PurePosixPath(name).parts) == len(wanted) or (anywhere and len(found) > len(wanted))
            if all(map(fnmatchcase, found[-len(wanted) :], wanted))
        ]


class FolderTree(Tree):
    """The files under a folder.

    Args:
        folder: must exist.

    Examples:
        >>> import pathlib, tempfile
        >>> from jellyfit.datamodules.trees import FolderTree
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = pathlib.Path(folder, "a.txt").write_text("one")
        ...     FolderTree(folder).names()
        ['a.txt']
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def names(self) -> list[str]:
        found = (path for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        yield self.folder / name

    def _facts(self) -> Iterator[str]:
        for name in self.names():
            yield f"{name} {(self.folder / name).stat().st_size}"


class FileTree(Tree):
    """A single file.

    Args:
        path: of the file.

    Examples:
        >>> import pathlib, tempfile
        >>> from jellyfit.datamodules.trees import FileTree
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "labels.csv")
        ...     _ = path.write_text("one")
        ...     FileTree(path).names()
        ['labels.csv']
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def names(self) -> list[str]:
        return [self.path.name]

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        yield self.path.parent / name

    def _facts(self) -> Iterator[str]:
        yield f"{self.path.name} {self.path.stat().st_size}"


class ZipTree(Tree):
    """The files in a zip archive, each unpacked only while it is read.

    Args:
        path: of the archive.

    Raises:
        DataError: it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._archive: zipfile.ZipFile | None = None
        self._process = 0

    def _open(self) -> zipfile.ZipFile:
        if self._archive is None or self._process != os.getpid():  # a place in a file cannot be shared
            try:
                self._archive, self._process = zipfile.ZipFile(self.path), os.getpid()
            except (zipfile.BadZipFile, EOFError) as error:
                raise DataError(f"{self.path} is a damaged zip archive ({error}). Fetch it again.") from error
            # a tree is part of cycles, whose pieces end in any order: its file would warn that nobody has closed it
            weakref.finalize(self, self._archive.close)
        return self._archive

    def names(self) -> list[str]:
        hidden = ("__MACOSX/",)
        return sorted(
            info.filename
            for info in self._open().infolist()
            if not info.is_dir()
            and not info.filename.startswith(hidden)
            and not PurePosixPath(info.filename).name.startswith(".")
        )

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="jellyfit-") as scratch:
            path = Path(scratch) / PurePosixPath(name).name
            try:
                with self._open().open(name) as member, path.open("wb") as out:
                    shutil.copyfileobj(member, out, 1 << 20)
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise DataError(f"{name} in {self.path} is damaged ({error}). Fetch the archive again.") from error
            yield path

    def _facts(self) -> Iterator[str]:
        for info in sorted(self._open().infolist(), key=lambda info: info.filename):
            yield f"{info.filename} {info.file_size} {info.CRC:08x}"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_archive": None}


class JoinedTree(Tree):
    """The files of several trees as one.

    Args:
        trees: no two of which have a file of the same name.

    Raises:
        DataError: two have one; names it, when the files are asked for.

    Examples:
        >>> import pathlib, tempfile
        >>> from jellyfit.datamodules.trees import FolderTree, JoinedTree
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a/1.txt", "b/2.txt"):
        ...         path = pathlib.Path(folder, name)
        ...         path.parent.mkdir()
        ...         _ = path.write_text(name)
        ...     JoinedTree([FolderTree(f"{folder}/b"), FolderTree(f"{folder}/a")]).names()
        ['1.txt', '2.txt']
    """

    def __init__(self, trees: Sequence[Tree]) -> None:
        self.trees = list(trees)
        self._owners: dict[str, Tree] = {}

    def _find_owners(self) -> dict[str, Tree]:
        if not self._owners:
            for tree in self.trees:
                for name in tree.names():
                    if name in self._owners:
                        raise DataError(f"{name} is in two of the archives that belong together. Are they mixed up?")
                    self._owners[name] = tree
        return self._owners

    def names(self) -> list[str]:
        return sorted(self._find_owners())

    def local(self, name: str) -> AbstractContextManager[Path]:
        return self._find_owners()[name].local(name)

    def _facts(self) -> Iterator[str]:
        for tree in self.trees:
            yield from tree._facts()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_owners": {}}


class NamedTrees(Tree):
    """The files of several trees as one, with its tree's name in front of each.

    Args:
        trees: by name; a name may have slashes, none is the beginning of another.

    Examples:
        >>> import pathlib, tempfile
        >>> from jellyfit.datamodules.trees import FolderTree, NamedTrees
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = pathlib.Path(folder, "1.npz").write_text("one")
        ...     NamedTrees({"letters/a": FolderTree(folder)}).names()
        ['letters/a/1.npz']
    """

    def __init__(self, trees: Mapping[str, Tree]) -> None:
        self.trees = dict(sorted(trees.items()))

    def names(self) -> list[str]:
        return sorted(f"{prefix}/{name}" for prefix, tree in self.trees.items() for name in tree.names())

    def local(self, name: str) -> AbstractContextManager[Path]:
        prefix = next(str(parent) for parent in PurePosixPath(name).parents if str(parent) in self.trees)
        return self.trees[prefix].local(name[len(prefix) + 1 :])

    def _facts(self) -> Iterator[str]:
        for prefix, tree in self.trees.items():
            yield f"{prefix} {tree.digest()}"


def open_nested(path: Path, scratch: Path) -> Tree:
    """The files of an archive or folder that holds zip archives: those in the inner archives, and those beside them.

    The outer archive is unpacked once, as nothing can be read out of an archive within another one without unpacking
    all of it each time. The inner ones are read as they are.

    Args:
        path: as for :func:`open_tree`; inner archives that lie unpacked are taken too.
        scratch: folder for what has to be unpacked.

    Raises:
        DataError: see :func:`open_tree`.
    """
    tree = open_tree(path, scratch)
    if not any(name.endswith(".zip") for name in tree.names()):
        return tree
    tree = unpacked_tree(path, scratch)
    inner = [ZipTree(tree.folder / name) for name in tree.names() if name.endswith(".zip")]
    return JoinedTree([tree, *inner])


def open_tree(path: Path, scratch: Path) -> Tree:
    """The files of an archive or folder, or a single file.

    Zip archives are read as they are; tar archives (which cannot be read in any order) and rar archives are unpacked
    once, into a folder under ``scratch`` that is whole or absent.

    Args:
        path: a folder; an archive: ``.zip``, ``.tar``, ``.tar.gz``, ``.tgz``, ``.rar`` (the first part of one in
            parts); or any other file.
        scratch: folder for what has to be unpacked.

    Raises:
        DataError: a damaged archive, one of another kind, or a rar archive without a program that unpacks it.
    """
    if path.is_file() and archive_stem(path.name) == path.name:
        return FileTree(path)
    return ZipTree(path) if zipfile.is_zipfile(path) else unpacked_tree(path, scratch)


def unpacked_tree(path: Path, scratch: Path) -> FolderTree:
    """The files of an archive, unpacked once, or those of a folder; for large files that are read more than once.

    Args:
        path: as for :func:`open_tree`, but no single file.
        scratch: folder for what has to be unpacked.

    Raises:
        DataError: see :func:`open_tree`.
    """
    if path.is_dir():
        return FolderTree(path)
    if zipfile.is_zipfile(path):
        return FolderTree(_unpacked(path, scratch, _unpack_zip))
    if path.name.endswith(".rar"):
        return FolderTree(_unpacked(path, scratch, _unpack_rar))
    if tarfile.is_tarfile(path):
        return FolderTree(_unpacked(path, scratch, _unpack_tar))
    raise DataError(f"{path} is no archive that can be read here (zip, tar, rar). Is its download whole?")


def _unpacked(path: Path, scratch: Path, unpack: Callable[[Path, Path], None]) -> Path:
    target = scratch / archive_stem(path.name)
    with exclusive(scratch, f"unpack-{path.name}"):
        if target.is_dir():
            return target
        unfinished = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=scratch))
        try:
            unpack(path, unfinished)
            unfinished.chmod(0o755)
            unfinished.replace(target)
        except OSError as error:
            raise DataError(f"{path} cannot be unpacked into {scratch}: {error.strerror or error}.") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _unpack_zip(path: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in track(archive.infolist(), f"Unpacking {path.name}"):
                archive.extract(member, target)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path} is a damaged archive ({error}). Fetch it again.") from error


def _unpack_tar(path: Path, target: Path) -> None:
    try:
        with tarfile.open(path) as archive:
            for member in track(archive, f"Unpacking {path.name}"):
                archive.extract(member, target, filter="data")  # refuses paths that lead out of the folder
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path} is a damaged archive ({error}). Fetch it again.") from error


def _unpack_rar(path: Path, target: Path) -> None:
    try:
        import rarfile
    except ImportError as error:
        raise DataError(
            f"{path} is a rar archive: install jellyfit[rar] and the program unrar, bsdtar or 7z, or unpack it by hand "
            f"into {target.parent / archive_stem(path.name)}."
        ) from error
    try:
        with rarfile.RarFile(path) as archive:
            archive.extractall(target)
    except rarfile.RarCannotExec as error:
        raise DataError(
            f"{path} is a rar archive, and no program that unpacks it was found. Install one of unrar, bsdtar (package "
            f"libarchive-tools) or 7z, or unpack it by hand into {target.parent / archive_stem(path.name)}."
        ) from error
    except rarfile.Error as error:
        raise DataError(f"{path} is a damaged rar archive, or a part of it is missing ({error}).") from error
