"""Run folders: ``runs/NAME/VERSION/`` holds a run's config, checkpoints, metrics and pictures.

On a cluster the job names it, ``runs/NAME/job-ID/``: a job that is started again goes on in its folder.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import yaml

from jellyfit.errors import ConfigError

__all__ = [
    "CHECKPOINTS",
    "PICTURES",
    "find_checkpoint",
    "is_checkpoint",
    "is_sharded",
    "job_run",
    "new_run",
    "next_version",
    "repeats",
    "run_of_checkpoint",
    "slurm_job",
]

CHECKPOINTS = "checkpoints"
"""Folder in a run folder."""
PICTURES = "pictures"
"""Folder in a run folder."""


JOB = "job-"


def slurm_job() -> str | None:
    """Number of the SLURM job that this process is part of (``123``, of an array ``123_4``), else ``None``.

    Shells inside a job (``srun --pty bash``) count as none, as for Lightning.

    Examples:
        >>> from jellyfit.runs import slurm_job
        >>> job = slurm_job()
        >>> job is None or job[0].isdigit()
        True
    """
    if "SLURM_NTASKS" not in os.environ or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ.get('SLURM_ARRAY_TASK_ID', '0')}"
    return os.environ.get("SLURM_JOB_ID")


def job_run(root: Path, name: str) -> Path | None:
    """The run folder of the cluster job that this process is part of; ``None`` outside of jobs. It is not made.

    It is the same on every node, and when the job is started again: ``root/name/job-ID``, where ID is torchrun's
    ``--rdzv-id``, or SLURM's number of the job (and behind it that of the step, of a second ``srun`` in one script).
    """
    run = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if run != "none":
        return root / name / f"{JOB}{run}"
    job, step = slurm_job(), os.environ.get("SLURM_STEP_ID", "0")
    if job is None:
        return None
    return root / name / (f"{JOB}{job}" if step == "0" else f"{JOB}{job}.{step}")


def is_sharded(path: Path) -> bool:
    """Whether ``path`` is a sharded checkpoint: a folder with a file of every process."""
    return (path / "meta.pt").is_file()


def is_checkpoint(path: Path) -> bool:
    """Whether there is a checkpoint at ``path``: a file, or a folder of shards."""
    return path.is_file() or is_sharded(path)


def _versions(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.is_dir() and entry.name.isdigit())


def next_version(root: Path, name: str) -> Path:
    """The folder that the next run called ``name`` will get; it is not made."""
    versions = _versions(root / name)
    return root / name / str(versions[-1] + 1 if versions else 0)


def new_run(root: Path, name: str, folder: Path | None = None) -> Path:
    """Make the folder of a new run, ``root/name/VERSION``; two processes never get the same one.

    Args:
        root: where runs lie.
        name: of the run.
        folder: make this one in its place, if it is not there (see :func:`job_run`).

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            return folder
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
    runs = [root / name / str(version) for version in _versions(root / name)]
    jobs = list((root / name).glob(f"{JOB}*"))
    found = [path for run in [*runs, *jobs] if is_checkpoint(path := run / CHECKPOINTS / f"{which}.ckpt")]
    if found:
        return max(found, key=lambda path: path.stat().st_mtime) if jobs else found[-1]
    others = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    hint = f" Runs under {root}: {', '.join(others)}; choose one with --name." if others else ""
    raise ConfigError(
        f"--ckpt_path {which}: no {root / name}/VERSION/{CHECKPOINTS}/{which}.ckpt was found. Train first "
        f"(jellyfit fit), or give the path of a checkpoint file.{hint}"
    )


def repeats(folder: Path) -> list[Path]:
    """Run ``folder``, and the runs beside it whose ``config.yaml`` differs from its own in nothing but seeds and names.

    Of several with the same seeds it is one: ``folder`` itself, else the newest.
    """
    known = _settings(folder)
    others = (path for path in folder.parent.iterdir() if path != folder and (path / "config.yaml").is_file())
    found = {} if known is None else {known[1]: folder}
    for other in sorted(others, key=lambda path: (path / "config.yaml").stat().st_mtime, reverse=True):
        settings = _settings(other)
        if known is not None and settings is not None and settings[0] == known[0]:
            found.setdefault(settings[1], other)
    return list(found.values()) or [folder]


def _settings(folder: Path) -> tuple[str, str] | None:
    """Of a run: what it was configured to do, and its seeds; ``None`` where nothing is known of it."""
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        for name in ("name", "runs", "ckpt_path"):
            config.pop(name, None)
        seeds = [config.pop("seed_everything", None), (config["data"].get("init_args") or {}).pop("seed", None)]
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        return None
    return json.dumps(config, default=str).replace(str(folder), ""), json.dumps(seeds)


def run_of_checkpoint(path: Path) -> Path | None:
    """The run folder that checkpoint ``path`` lies in, or ``None`` when it lies elsewhere."""
    return path.parent.parent if path.parent.name == CHECKPOINTS else None
