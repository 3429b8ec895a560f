"""Run folders: ``runs/NAME/VERSION/`` holds a run's config, checkpoints, metrics and pictures."""

from __future__ import annotations

from pathlib import Path

from jellyfit.errors import ConfigError

__all__ = ["CHECKPOINTS", "PICTURES", "find_checkpoint", "new_run", "next_version", "run_of_checkpoint"]

CHECKPOINTS = "checkpoints"
"""Folder in a run folder."""
PICTURES = "pictures"
"""Folder in a run folder."""


def _versions(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.is_dir() and entry.name.isdigit())


def next_version(root: Path, name: str) -> Path:
    """The folder that the next run called ``name`` will get; it is not made."""
    versions = _versions(root / name)
    return root / name / str(versions[-1] + 1 if versions else 0)


def new_run(root: Path, name: str) -> Path:
    """Make the folder of a new run, ``root/name/VERSION``; two processes never get the same one.

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        (root / name).mkdir(parents=True, exist_ok=True)
        while True:
            folder = next_version(root, name)
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise ConfigError(
            f"cannot make a run folder in {root / name}: {error.strerror}. Give another place with --runs DIR."
        ) from error


def find_checkpoint(root: Path, name: str, which: str) -> Path:
    """The newest ``best`` or ``last`` checkpoint of the runs called ``name``.

    Raises:
        ConfigError: there is none; the message says what was looked for and which runs exist.
    """
    for version in reversed(_versions(root / name)):
        path = root / name / str(version) / CHECKPOINTS / f"{which}.ckpt"
        if path.is_file():
            return path
    others = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    hint = f" Runs under {root}: {', '.join(others)}; choose one with --name." if others else ""
    raise ConfigError(
        f"--ckpt_path {which}: no {root / name}/VERSION/{CHECKPOINTS}/{which}.ckpt was found. Train first "
        f"(jellyfit fit), or give the path of a checkpoint file.{hint}"
    )


def run_of_checkpoint(path: Path) -> Path | None:
    """The run folder that checkpoint ``path`` lies in, or ``None`` when it lies elsewhere."""
    return path.parent.parent if path.parent.name == CHECKPOINTS else None
