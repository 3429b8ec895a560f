"""Imports point one way, and importing the library is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

LINKS = ("tasks", "datamodules", "callbacks", "configs")

# who may not import what (prefixes of dotted names)
FORBIDDEN = {
    "jellyfit/kernels": ("jellyfit.neurons", "jellyfit.layers", "jellyfit.backbones", "jellyfit.functional"),
    "jellyfit/surrogates.py": ("jellyfit.neurons", "jellyfit.layers", "jellyfit.backbones", "jellyfit.functional"),
    "jellyfit/events": ("torch", "jellyfit.neurons", "jellyfit.layers", "jellyfit.backbones", "jellyfit.functional"),
    "jellyfit/frames": ("jellyfit.neurons", "jellyfit.layers", "jellyfit.backbones", "jellyfit.functional"),
    "jellyfit/images": ("jellyfit.neurons", "jellyfit.layers", "jellyfit.backbones", "jellyfit.functional"),
    "jellyfit/neurons": ("jellyfit.layers", "jellyfit.backbones", "jellyfit.functional"),
    "jellyfit/functional": ("jellyfit.layers", "jellyfit.backbones"),
    "jellyfit/layers": ("jellyfit.backbones",),
    "datamodules": ("jellyfit.tasks", "jellyfit.callbacks"),
    "callbacks": ("jellyfit.tasks",),
}


def library_files() -> Iterator[Path]:
    for path in sorted((ROOT / "jellyfit").rglob("*.py")):
        if path.relative_to(ROOT / "jellyfit").parts[0] not in LINKS:
            yield path


def imports(path: Path, module_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if module_level else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def starts(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def test_the_library_imports_neither_lightning_nor_the_folders_above_it() -> None:
    above = ("lightning", "pytorch_lightning", "jellyfit.tasks", "jellyfit.callbacks", "jellyfit.datamodules")
    for path in library_files():
        if path.name == "cli.py":
            continue
        wrong = [name for name in imports(path) for prefix in above if starts(name, prefix)]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize("place", FORBIDDEN)
def test_imports_point_one_way(place: str) -> None:
    target = ROOT / place
    files = [target] if target.is_file() else sorted(target.rglob("*.py"))
    assert files
    for path in files:
        wrong = [name for name in imports(path) for prefix in FORBIDDEN[place] if starts(name, prefix)]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_nothing_imports_torchvision_or_torchaudio_at_module_level() -> None:
    files = [*library_files(), *(path for folder in LINKS[:3] for path in (ROOT / folder).rglob("*.py"))]
    for path in files:
        wrong = [n for n in imports(path, module_level=True) if n.split(".")[0] in ("torchvision", "torchaudio")]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_importing_the_library_does_not_load_lightning_or_matplotlib() -> None:
    code = (
        "import sys; from jellyfit import neurons, layers, functional, events, losses, backbones, pictures; "
        "print([m for m in ('lightning', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
