"""Files of a data set as one tree, whether they lie in a folder or in an archive, which then need not be unpacked."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath

from jellyfit.datamodules.fetch import exclusive
from jellyfit.errors import DataError
from jellyfit.progress import track

__all__ = ["FolderTree", "Tree", "ZipTree", "open_tree"]


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
        """Names that match ``pattern``, in which ``*`` stands within one part of the path."""
        parts = PurePosixPath(pattern).parts
        return [
            name
            for name in self.names()
            if len(found := PurePosixPath(name).parts) == len(parts)
            and all(PurePosixPath(part).match(wanted) for part, wanted in zip(found, parts, strict=True))
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


def open_tree(path: Path, scratch: Path) -> Tree:
    """The files of an archive or folder.

    Zip archives are read as they are; tar archives (which cannot be read in any order) and rar archives are unpacked
    once, into a folder under ``scratch`` that is whole or absent.

    Args:
        path: a folder, or an archive: ``.zip``, ``.tar``, ``.tar.gz``, ``.tgz``, ``.rar``.
        scratch: folder for what has to be unpacked.

    Raises:
        DataError: a damaged archive, one of another kind, or a rar archive without a program that unpacks it.
    """
    if path.is_dir():
        return FolderTree(path)
    if zipfile.is_zipfile(path):
        return ZipTree(path)
    if path.name.endswith(".rar"):
        return FolderTree(_unpacked(path, scratch, _unpack_rar))
    if tarfile.is_tarfile(path):
        return FolderTree(_unpacked(path, scratch, _unpack_tar))
    raise DataError(f"{path} is no archive that can be read here (zip, tar, rar). Is its download whole?")


def _unpacked(path: Path, scratch: Path, unpack: Callable[[Path, Path], None]) -> Path:
    target = scratch / path.name.split(".")[0]
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
            f"into {target.parent / path.name.split('.')[0]}."
        ) from error
    try:
        with rarfile.RarFile(path) as archive:
            archive.extractall(target)
    except rarfile.RarCannotExec as error:
        raise DataError(
            f"{path} is a rar archive, and no program that unpacks it was found. Install one of unrar, bsdtar (package "
            f"libarchive-tools) or 7z, or unpack it by hand into {target.parent / path.name.split('.')[0]}."
        ) from error
    except rarfile.Error as error:
        raise DataError(f"{path} is a damaged rar archive, or a part of it is missing ({error}).") from error
