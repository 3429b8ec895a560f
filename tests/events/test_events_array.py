import re
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jellyfit.events
from jellyfit import events as ev
from jellyfit.errors import InputError, InputTypeError


def test_every_public_name_exists_and_is_documented():
    assert ev.__all__ == sorted(ev.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))
    for name in ev.__all__:
        assert getattr(jellyfit.events, name).__doc__, name


def test_make_events_keeps_values_order_and_dtype():
    e = ev.make_events([5, 3], np.array([1, 65535], np.uint32), (0, 7), [True, False])
    assert e.dtype == ev.EVENT_DTYPE
    assert e.tolist() == [(5, 1, 0, True), (3, 65535, 7, False)]


def test_make_events_takes_tensors():
    torch = pytest.importorskip("torch")
    e = ev.make_events(torch.tensor([1, 2]), torch.tensor([3, 4]), torch.tensor([5, 6]), torch.tensor([True, False]))
    assert e.tolist() == [(1, 3, 5, True), (2, 4, 6, False)]


def test_make_events_of_empty_lists_is_empty():
    assert ev.make_events([], [], [], []).shape == (0,)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([0, 0], [1, -1], [0, 0], [0, 1]), "1 of 2 values of x are outside 0..65535; the first is -1 at index 1"),
        (([0], [0], [65536], [0]), "values of y are outside 0..65535; the first is 65536"),
        ((np.array([2**63], np.uint64), [0], [0], [0]), "values of t are outside"),
        (([0, 0], [0, 0], [0, 0], [1, -1]), "give p > 0"),
        (([0, 0], [0, 0], [0, 0], [2, 1]), "values of p are outside 0..1"),
        (([0, 0], [0], [0, 0], [1, 0]), "differ in length"),
        (([[0]], [0], [0], [0]), re.escape("one-dimensional, [N]; got shape [1, 1]")),
    ],
)
def test_make_events_refuses_what_does_not_fit(columns, message):
    with pytest.raises(InputError, match=message):
        ev.make_events(*columns)


def test_make_events_refuses_seconds_and_says_how_to_convert():
    with pytest.raises(InputTypeError, match=re.escape("np.rint(seconds * 1e6)")):
        ev.make_events([0.5], [0], [0], [0])


def test_check_events_passes_the_standard_array_through():
    e = ev.make_events([0, 1], [0, 1], [0, 1], [0, 1])
    assert ev.check_events(e, (2, 2)) is e


@pytest.mark.parametrize(
    "dtype",
    [
        [("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "?")],
        [("x", "i8"), ("y", "i8"), ("t", "i8"), ("p", "i8")],
        [("t", ">i8"), ("x", ">u2"), ("y", ">u2"), ("p", "u1")],
        [("t", "u4"), ("x", "u2"), ("y", "u2"), ("p", "?"), ("extra", "f4")],
    ],
)
def test_check_events_converts_other_structured_arrays(dtype):
    e = np.zeros(3, dtype)
    e["t"], e["x"], e["y"], e["p"] = [7, 8, 9], [1, 2, 3], [4, 5, 6], [1, 0, 1]
    converted = ev.check_events(e)
    assert converted.dtype == ev.EVENT_DTYPE
    assert converted.tolist() == [(7, 1, 4, True), (8, 2, 5, False), (9, 3, 6, True)]


def test_check_events_never_wraps_a_negative_coordinate():
    e = np.zeros(2, [("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "?")])
    e["y"] = [0, -3]
    with pytest.raises(InputError, match="the first is -3 at index 1"):
        ev.check_events(e)


def test_check_events_names_missing_fields_and_types():
    with pytest.raises(InputTypeError, match="has no y, p"):
        ev.check_events(np.zeros(2, [("t", "i8"), ("x", "u2")]))
    with pytest.raises(InputTypeError, match="has no t, x, y, p"):
        ev.check_events(np.zeros(2))
    with pytest.raises(InputTypeError, match="got list"):
        ev.check_events([(0, 0, 0, True)])
    with pytest.raises(InputError, match=re.escape("got the shape [1, 2]")):
        ev.check_events(np.zeros((1, 2), ev.EVENT_DTYPE))


def test_check_events_counts_events_outside_and_shows_the_first():
    e = ev.make_events([10, 20, 30], [0, 4, 9], [0, 2, 0], [0, 1, 1])
    ev.check_events(e, (3, 10))
    with pytest.raises(InputError, match=r"2 of 3 events .* height 3 and width 4 .* event 1: t=20, x=4, y=2, p=True"):
        ev.check_events(e, (3, 4))
    with pytest.raises(InputError, match=r"1 of 3 events"):
        ev.check_events(e, (2, 10))


@pytest.mark.parametrize("size", [(0, 3), (3,), (3, 3, 3), 128, (2.0, 3), (True, 3), (3, 70000), "ab", None])
def test_sensor_size_must_be_two_sides(size):
    with pytest.raises(InputError, match=re.escape("(height, width)")):
        ev.check_sensor_size(size)


def test_sensor_size_from_yaml_is_a_list():
    assert ev.check_sensor_size([128, np.int64(64)]) == (128, 64)


def test_sort_events_does_not_copy_what_is_sorted():
    e = ev.make_events([1, 1, 2], [0, 1, 2], [0, 0, 0], [0, 0, 0])
    assert ev.sort_events(e) is e


@given(st.lists(st.integers(-5, 5), max_size=40))
def test_sort_events_is_stable(times):
    e = ev.make_events(times, range(len(times)), [0] * len(times), [0] * len(times))
    assert ev.sort_events(e).tolist() == sorted(e.tolist(), key=lambda event: event[0])


def test_sort_events_warns_on_request_and_counts():
    e = ev.make_events([1, 5, 3, 4, 2], [0] * 5, [0] * 5, [0] * 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ev.sort_events(e)
    with pytest.warns(ev.EventWarning, match=r"5 events are not sorted: 2 lie before .* event 2, t = 3 µs after t = 5"):
        assert ev.sort_events(e, warn=True)["t"].tolist() == [1, 2, 3, 4, 5]
