"""Trials of a recording."""

from __future__ import annotations

import numpy as np
import pytest

from jellyfit import events as ev
from jellyfit.errors import DataError, InputError

TABLE = "class,startTime_usec,endTime_usec\n1,10,20\n11,18,40\n2,40,40\n3,90,200\n"
EVENTS = ev.make_events(np.arange(0, 100, 2), np.arange(50), np.zeros(50, int), np.ones(50, int))


@pytest.mark.parametrize("table", [TABLE, "\ufeff" + TABLE, TABLE.replace("\n", "\r\n")])
def test_a_trial_begins_at_its_start_and_ends_before_its_end(tmp_path, table):
    (tmp_path / "labels.csv").write_text(table, encoding="utf-8", newline="")
    pieces = ev.cut(EVENTS, tmp_path / "labels.csv")
    assert [(piece.label, piece.start, piece.end) for piece in pieces] == [
        (1, 10, 20), (11, 18, 40), (2, 40, 40), (3, 90, 200),
    ]  # fmt: skip
    assert [piece.events["t"].tolist() for piece in pieces] == [
        [10, 12, 14, 16, 18], list(range(18, 40, 2)), [], [90, 92, 94, 96, 98],
    ]  # fmt: skip
    assert pieces[0].events.base is not None, "a view"
    assert [p.events.tolist() for p in ev.cut(EVENTS, str(tmp_path / "labels.csv"))] == [
        p.events.tolist() for p in pieces
    ]


def test_events_of_one_time_stay_together():
    events = ev.make_events([1, 1, 2, 2, 3], range(5), [0] * 5, [1] * 5)
    (piece,) = ev.cut(events, [(0, 1, 2)])
    assert piece.events["x"].tolist() == [0, 1]


def test_unsorted_events_are_sorted_first():
    with pytest.warns(ev.EventWarning, match="not sorted"):
        (piece,) = ev.cut(EVENTS[::-1], [(7, 0, 6)])
    assert piece.events["t"].tolist() == [0, 2, 4]


def test_tables_that_cannot_be_are_errors(tmp_path):
    path = tmp_path / "labels.csv"
    for content, message in [
        ("", "has no column class, startTime_usec, endTime_usec: .* got nothing"),
        ("class,start,end\n1,2,3\n", "has no column startTime_usec, endTime_usec"),
        (TABLE + "4,5\n", "line 6: expected three whole numbers"),
        (TABLE + "4,five,6\n", "line 6: expected three whole numbers"),
        (TABLE + "4,6,5\n", r"row 4: expected class, start, end with start <= end in µs; got \(4, 6, 5\)"),
    ]:
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            ev.cut(EVENTS, path)
    with pytest.raises(InputError, match="row 0: expected class, start, end"):
        ev.cut(EVENTS, [(1, 6, 5)])
    with pytest.raises(FileNotFoundError):
        ev.cut(EVENTS, tmp_path / "none.csv")
