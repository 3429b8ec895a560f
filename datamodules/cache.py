"""Folders on disk that are whole or absent, keyed by what made them."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jellyfit.errors import DataError

__all__ = ["CacheWarning", "cache_key", "cached_folder", "check_cache"]

MANIFEST = "manifest.json"
_SMALL = 1 << 24  # a file below this many bytes is compared with its hash whenever the cache is used


class CacheWarning(UserWarning):
    """A cache was damaged and is made again.

    Examples:
        >>> import warnings
        >>> from jellyfit.datamodules import CacheWarning
        >>> warnings.simplefilter("error", CacheWarning)  # rather stop than make it again
    """


def cache_key(parameters: dict[str, Any]) -> str:
    """Sixteen hex digits that stand for ``parameters`` (plain data)."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:16]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _slow(file)


def _slow(file: Any) -> str:  # Python 3.10 has no file_digest
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _damage(folder: Path, parameters: dict[str, Any], whole: bool = True) -> str | None:
    """What is wrong with a cache folder, or ``None``. Without ``whole``, of large files only the size is looked at."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["parameters"] != json.loads(json.dumps(parameters)):
            return "it was made with other parameters"
        for name, digest in manifest["sha256"].items():
            size = (folder / name).stat().st_size
            if size != manifest["bytes"][name] or ((whole or size < _SMALL) and _digest(folder / name) != digest):
                return f"{name} has changed since it was written"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (KeyError, TypeError, ValueError):
        return f"{MANIFEST} cannot be read"
    return None


def check_cache(folder: Path) -> str | None:
    """What is wrong with the cache in ``folder``, every byte of which is read; ``None`` for a good one."""
    try:
        parameters = json.loads((folder / MANIFEST).read_text())["parameters"]
    except (OSError, KeyError, ValueError):
        return f"{MANIFEST} is missing or cannot be read"
    return _damage(folder, parameters)


def cached_folder(
    root: Path,
    name: str,
    parameters: dict[str, Any],
    build: Callable[[Path], None],
    size_hint: str = "",
    whole: bool = True,
) -> Path:
    """The folder ``root/name-KEY``, made by ``build`` unless it is there and undamaged.

    ``build`` writes into a temporary folder beside it, which is renamed when it is whole: whatever interrupts the
    work (Ctrl-C, a full disk, a crash) leaves no half-made cache, and of two processes that build at once one wins.

    Args:
        root: where caches lie; made when missing.
        name: first part of the folder's name.
        parameters: everything that the content depends on, as plain data; checked against the folder's manifest.
        build: writes the files of the cache into the empty folder that it is given.
        whole: compare every byte with the manifest whenever the cache is used (default); ``False``, for caches that
            take long to read: of large files the size alone.
        size_hint: e.g. ``"about 200 MB"``, for the message when the disk is full.

    Returns:
        The folder.

    Raises:
        DataError: it cannot be written (no permission, disk full).

    Warns:
        CacheWarning: a damaged cache was found and is made again.
    """
    folder = root / f"{name}-{cache_key(parameters)}"
    if folder.exists():
        damage = _damage(folder, parameters, whole)
        if damage is None:
            return folder
        warnings.warn(f"cache {folder} is damaged: {damage}. It is made again.", CacheWarning, stacklevel=2)
    scratch: Path | None = None
    try:
        root.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
        build(scratch)
        files = sorted(scratch.iterdir())
        manifest = {
            "parameters": parameters,
            "sha256": {file.name: _digest(file) for file in files},
            "bytes": {file.name: file.stat().st_size for file in files},
        }
        (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1))
        scratch.chmod(0o755)
        if folder.exists():
            if _damage(folder, parameters, whole) is None:
                return folder  # another process was faster
            shutil.rmtree(folder)
        scratch.replace(folder)
    except OSError as error:
        raise DataError(
            f"cannot write the cache {folder}: {error.strerror or error}."
            + (f" It takes {size_hint}." if size_hint else "")
            + " Free some space or choose another place with --data.init_args.root DIR; no half-made files are left."
        ) from error
    finally:
        if scratch is not None and scratch.exists():
            shutil.rmtree(scratch, ignore_errors=True)
    return folder
