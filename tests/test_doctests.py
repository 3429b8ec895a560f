"""Every public class and function shows how it is used, and the example runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from tests.test_public_api import MODULES, public

COMMAND_LINE = {"cli", "config_errors", "doctor", "native", "progress", "runs", "show"}  # no library


def subjects() -> dict[str, Any]:
    """What the library offers: public classes and functions of its modules, by where they are defined."""
    modules = {name for name in MODULES if name.count(".") == 1 and name.split(".")[1] not in COMMAND_LINE}
    found = {}
    for name in modules | {"jellyfit.kernels.handwritten"}:
        for _, value in public(importlib.import_module(name)):
            if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__.startswith("jellyfit"):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return dict(sorted(found.items()))


SUBJECTS = subjects()


def examples(value: Any) -> list[doctest.DocTest]:
    """The examples of a class or function, and of a class's own methods."""
    finder = doctest.DocTestFinder(recurse=True, exclude_empty=True)
    return finder.find(value, module=importlib.import_module(value.__module__))


def test_classes_and_functions_are_found() -> None:
    assert {"jellyfit.neurons.leaky.LIFNode", "jellyfit.losses.RateMSE", "jellyfit.events.frames.to_frames"} <= set(
        SUBJECTS
    )


@pytest.mark.parametrize("name", SUBJECTS)
def test_there_is_an_example_and_it_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = examples(SUBJECTS[name])
    own = [test for test in found if test.name.split(".")[-1] == SUBJECTS[name].__name__ and test.examples]
    assert own, f"{name} has no example: add a section Examples: with >>> lines"
    for test in found:
        runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
        said: list[str] = []
        runner.run(test, out=said.append)
        assert runner.failures == 0, "".join(said)
    assert list(tmp_path.iterdir()) == [], "an example leaves files behind"
