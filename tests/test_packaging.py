"""What is built from a checkout is whole: the linked folders are real packages in the wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

LINKS = ("tasks", "datamodules", "callbacks", "configs")


@pytest.mark.parametrize("name", LINKS)
def test_the_checkout_holds_relative_links(name: str) -> None:
    link = ROOT / "jellyfit" / name
    assert link.is_symlink(), f"jellyfit/{name} is no symbolic link: this checkout was made without symlink support"
    assert str(link.readlink()) == f"../{name}"


def test_the_wheel_holds_the_three_linked_packages_and_the_configs(tmp_path: Path) -> None:
    source = tmp_path / "source"
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, files):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            target.symlink_to((ROOT / name).readlink())
        elif (ROOT / name).is_file():
            target.write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), "."]
    done = subprocess.run(build, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder in LINKS[:3]:
        for path in (ROOT / folder).glob("*.py"):
            assert f"jellyfit/{folder}/{path.name}" in names
    for path in (ROOT / "configs").glob("*.yaml"):
        assert f"jellyfit/configs/{path.name}" in names
    assert {"jellyfit/py.typed", "jellyfit/neurons/base.py"} <= names
    assert not [name for name in names if name.startswith(("tests/", "tasks/", "benchmarks/", "examples/"))]
