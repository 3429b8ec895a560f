"""The examples in docstrings run and give what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest
import torch

from tests.test_public_api import MODULES


def has_examples(name: str) -> bool:
    return any(test.examples for test in doctest.DocTestFinder().find(importlib.import_module(name)))


WITH_EXAMPLES = [name for name in MODULES if has_examples(name)]


def test_examples_are_found() -> None:
    assert {"jellyfit.surrogates", "jellyfit.encoders", "jellyfit.functional.neuron"} <= set(WITH_EXAMPLES)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_are_true(name: str) -> None:
    torch.manual_seed(0)
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0, "see above"
