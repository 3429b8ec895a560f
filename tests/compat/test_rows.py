"""Every row of ``docs/migrating.md`` is true, and no name of SpikingJelly's is left out."""

from __future__ import annotations

import importlib
import inspect

import pytest

from tests.compat import table
from tests.compat.rows import GROUPS, Row, defaults_differ, peer
from tests.conftest import ROOT

ROWS = [(group, row) for group in GROUPS for row in table.rows(group)]
KNOWN = [(group, row) for group, row in ROWS if row.status != "absent"]


def names(rows: list[tuple[str, Row]]) -> list[str]:
    return [f"{group}-{row.name}" for group, row in rows]


def ours(group: str, row: Row) -> object:
    path = row.ours or f"{GROUPS[group][1]}.{row.name}"
    module, name = path.split(".", 1)
    found: object = importlib.import_module(f"jellyfit.{module}")
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("group", "row"), KNOWN, ids=names(KNOWN))
def test_the_numbers_are_as_the_row_says(group: str, row: Row) -> None:
    peer(GROUPS[group][0])
    assert row.check is not None
    row.check()


@pytest.mark.parametrize(("group", "row"), KNOWN, ids=names(KNOWN))
def test_arguments_and_defaults_are_as_the_row_says(group: str, row: Row) -> None:
    theirs = getattr(peer(GROUPS[group][0]), row.name)
    differences = defaults_differ(ours(group, row), theirs)  # type: ignore[arg-type]
    assert set(differences) == set(row.arguments), differences


@pytest.mark.parametrize("group", GROUPS)
def test_every_name_of_spikingjelly_has_one_row(group: str) -> None:
    module = peer(GROUPS[group][0])
    theirs = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__.startswith("spikingjelly")
        and value.__module__.startswith(module.__name__)
    }
    listed = [row.name for row in table.rows(group)]
    assert len(listed) == len(set(listed))
    assert theirs - set(listed) == set(), "without a row"
    assert set(listed) - theirs == set(), "rows of names that SpikingJelly does not have"


@pytest.mark.parametrize(("group", "row"), ROWS, ids=names(ROWS))
def test_what_is_absent_is_absent(group: str, row: Row) -> None:
    if row.status != "absent":
        assert ours(group, row) is not None
        return
    module = importlib.import_module(f"jellyfit.{GROUPS[group][1]}")
    assert not hasattr(module, row.name)


def test_the_table_in_the_documentation_is_the_one_written_from_the_rows() -> None:
    assert (ROOT / "docs/migrating.md").read_text() == table.page(), "run: make migrating"
