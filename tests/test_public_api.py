"""What is public exists, is documented, and can be pickled."""

from __future__ import annotations

import importlib
import inspect
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import nn

from tests.conftest import ROOT

PACKAGE = ROOT / "jellyfit"
FOLDERS = (PACKAGE, *(PACKAGE / name for name in ("tasks", "datamodules", "callbacks")))


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = sorted({dotted(path) for folder in FOLDERS for path in folder.rglob("*.py")} - {"jellyfit.__main__"})


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    for name in getattr(module, "__all__", ()):
        yield name, getattr(module, name)


def own_classes() -> dict[str, type]:
    found = {}
    for module in map(importlib.import_module, MODULES):
        for _, value in public(module):
            if inspect.isclass(value) and value.__module__.startswith("jellyfit"):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return dict(sorted(found.items()))


CLASSES = own_classes()


def constructible(classes: dict[str, type]) -> dict[str, type]:
    """The ``nn.Module`` classes whose arguments all have defaults."""
    found = {}
    for name, cls in classes.items():
        if not issubclass(cls, nn.Module) or inspect.isabstract(cls):
            continue
        parameters = inspect.signature(cls).parameters.values()
        if all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
            found[name] = cls
    return found


BY_DEFAULT = constructible(CLASSES)


def test_modules_and_classes_are_found() -> None:
    assert {"jellyfit.neurons.base", "jellyfit.tasks.classification", "jellyfit.callbacks"} <= set(MODULES)
    assert "jellyfit.neurons.leaky.LIFNode" in BY_DEFAULT


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_exists_and_has_a_docstring(name: str) -> None:
    module = importlib.import_module(name)
    names = list(getattr(module, "__all__", ()))
    assert len(names) == len(set(names))
    assert [n for n in names if not hasattr(module, n)] == []
    own = [(n, v) for n, v in public(module) if inspect.isclass(v) or inspect.isfunction(v)]
    assert [n for n, v in own if not (v.__doc__ or "").strip()] == [], "without a docstring"


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_method_has_a_docstring_where_it_is_first_defined(name: str) -> None:
    cls = CLASSES[name]
    missing = []
    for method, value in vars(cls).items():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if method.startswith("_") or not inspect.isfunction(function) or function.__module__ != cls.__module__:
            continue
        first = not any(method in vars(base) for base in cls.__mro__[1:])
        if first and not (function.__doc__ or "").strip():
            missing.append(method)
    assert missing == []


@pytest.mark.parametrize("name", BY_DEFAULT)
def test_modules_made_with_defaults_pickle(name: str) -> None:
    module = BY_DEFAULT[name]()
    copy = pickle.loads(pickle.dumps(module))
    assert type(copy) is type(module)
    assert copy.state_dict().keys() == module.state_dict().keys()
    assert repr(copy) == repr(module)


def test_the_reference_lists_every_public_module() -> None:
    listed = set(re.findall(r"^::: (\S+)$", (ROOT / "docs/reference.md").read_text(), re.MULTILINE))
    top = {name for name in MODULES if name.count(".") == 1 or name == "jellyfit.kernels.handwritten"}
    assert listed == {name for name in top if list(public(importlib.import_module(name)))}


@pytest.mark.parametrize("name", MODULES)
def test_no_public_name_hides_a_module_of_the_same_name(name: str) -> None:
    for attribute, value in public(importlib.import_module(name)):
        assert inspect.ismodule(value) or f"{name}.{attribute}" not in MODULES
