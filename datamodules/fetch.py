"""Files that a data set is made of: where they come from, whether they are whole, and how to get them."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from jellyfit.errors import ConfigError, DataError
from jellyfit.native import write_whole
from jellyfit.progress import track

__all__ = ["SourceFile", "exclusive", "fetch", "find", "verify"]

_BLOCK = 1 << 20
_TRIES = 3


@dataclass(frozen=True)
class SourceFile:
    """One file of a data set.

    Attributes:
        name: of the file.
        md5: of its content, where its publisher gives one.
        urls: from where programs may fetch it, tried in turn; none: a person has to.
        size: in bytes, for messages.
        needed: whether the data set is useless without it.

    Examples:
        >>> from jellyfit.datamodules.fetch import SourceFile
        >>> SourceFile("Train.zip", md5="20959b8e626244a1b502305a9e6e2031").urls
        ()
    """

    name: str
    md5: str | None = None
    urls: tuple[str, ...] = ()
    size: int | None = None
    needed: bool = True


@contextmanager
def exclusive(folder: Path, what: str) -> Iterator[None]:
    """Hold the lock ``what`` of ``folder`` among all processes that see it; the others wait here.

    Raises:
        ConfigError: called while a process that another one has started runs the script of that one, which may hold
            the lock and wait for this process.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigError(
            "this script prepares data as soon as it is imported, and a process that helps to prepare them imports it. "
            "Put what the script does under `if __name__ == '__main__':`."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{what}.lock"):
        yield


def find(file: SourceFile, root: Path) -> Path | None:
    """Where under ``root`` the file lies: in ``root`` itself, or in ``root/download``."""
    return next((path for path in (root / file.name, root / "download" / file.name) if path.is_file()), None)


def verify(file: SourceFile, path: Path) -> None:
    """Compare the content of ``path`` with the MD5 of its publisher, once: a stamp beside it remembers.

    Raises:
        DataError: they differ.
    """
    if file.md5 is None:
        return
    state = path.stat()
    fact = {"md5": file.md5, "size": state.st_size, "modified": state.st_mtime_ns}
    stamp = path.with_name(f".{path.name}.verified")
    with suppress(OSError, ValueError):
        if json.loads(stamp.read_text()) == fact:
            return
    found = _md5(path)
    if found != file.md5:
        raise DataError(
            f"{path} is not the file that it should be: its MD5 is {found}, expected {file.md5} ({state.st_size:,} "
            "bytes here). Its download was probably cut short: delete it and fetch it again."
        )
    with suppress(OSError):  # in a folder that others own it is verified again next time
        stamp.write_text(json.dumps(fact))


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    size = path.stat().st_size
    with path.open("rb") as file:
        for _ in track(range(-(-size // _BLOCK)), f"Verifying {path.name}", enabled=size > 1 << 30):
            digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def fetch(files: Sequence[SourceFile], root: Path, page: str, *, download: bool = True) -> dict[str, Path]:
    """Have all ``files`` under ``root``, whole; download those that may be downloaded.

    A download that was cut short goes on where it stopped. Of several processes one downloads and the others wait.

    Args:
        files: what is needed.
        root: folder of the data set.
        page: where a person finds the files.
        download: whether to fetch what is missing; ``False`` for machines that must not.

    Returns:
        Path of each file that is there, by name.

    Raises:
        DataError: some are missing (names each with its size and MD5, the page, and where to put it), or damaged.
    """
    with exclusive(root, "fetch"):
        for file in files:
            if find(file, root) is None and file.urls and download:
                _download(file, root / "download")
        found = {file.name: path for file in files if (path := find(file, root)) is not None}
        missing = [file for file in files if file.needed and file.name not in found]
        if missing:
            lines = "".join(f"\n  {_describe(file)}" for file in missing)
            raise DataError(
                f"{len(missing)} of {len(files)} files of this data set are missing in {root.resolve()}:{lines}\nGet "
                f"them from {page} and put them there, or give their folder with --data.init_args.root DIR."
            )
        for file in files:
            if file.name in found:
                verify(file, found[file.name])
    return found


def _describe(file: SourceFile) -> str:
    size = [f"{file.size / 1e6:,.0f} MB"] if file.size else []
    return ", ".join([file.name, *size, *([f"MD5 {file.md5}"] if file.md5 else [])])


def _download(file: SourceFile, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{file.name}.part"
    problems = []
    for url in file.urls:
        problem = _try(file, url, part)
        if problem is None:
            part.replace(folder / file.name)
            part.with_name(f".{part.name}.verified").unlink(missing_ok=True)
            return
        problems.append(f"{url}: {problem}")
    raise DataError(
        f"{_describe(file)} could not be downloaded:\n  " + "\n  ".join(problems) + f"\nWhat has arrived is kept in "
        f"{part} and goes on from there; or put the whole file into {folder} by hand."
    )


def _try(file: SourceFile, url: str, part: Path) -> Exception | None:
    """Fetch ``url`` into ``part``; what went wrong, or ``None``."""
    problem: Exception | None = None
    for attempt in range(_TRIES):
        time.sleep(attempt)
        try:
            _transfer(url, part, file.name)
            verify(file, part)
            return None
        except DataError as error:
            part.unlink(missing_ok=True)
            return error
        except OSError as error:  # those of urllib are among them
            problem = error
            if isinstance(error, urllib.error.HTTPError):
                error.close()
                if error.code < 500:
                    break  # asking again gives the same answer
    return problem


def _transfer(url: str, part: Path, name: str) -> None:
    """Append to ``part`` what is missing of ``url``."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        error.close()
        return  # nothing is missing
    with response:
        resumed = response.status == 206
        left = int(response.headers.get("Content-Length") or 0)
        total = left + have if resumed else left
        with part.open("ab" if resumed else "wb") as out:
            got = have if resumed else 0
            blocks = iter(lambda: response.read(_BLOCK), b"")
            for block in track(blocks, f"Downloading {name}", total=-(-left // _BLOCK)):
                out.write(block)
                got += len(block)
    if total and got < total:
        raise ConnectionError(f"the connection ended after {got:,} of {total:,} bytes")


def write_json(path: Path, content: object) -> None:
    """Write plain data as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as file:
        file.write(json.dumps(content, indent=1).encode())


def free_bytes(folder: Path) -> int:
    """Free space on the disk of ``folder``, which need not exist yet."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    state = os.statvfs(existing)
    return state.f_bavail * state.f_frsize
