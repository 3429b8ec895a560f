"""What is written is read, to the bit, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jellyfit import events as ev
from jellyfit.errors import InputError

SUFFIXES = {"npz": ".npz", "aedat3": ".aedat", "aedat2": ".aedat", "dat": ".dat", "atis": ".bin"}

near = st.sampled_from([0, 127, 128, 239, 240, 255, 256, 345, 479, 511, 639, 16383, 16384, 32767, 32768, 65535])
times = st.one_of(
    st.integers(0, 10**6),
    st.integers(-5, 2**63 - 1),
    st.sampled_from([2**p + d for p in (13, 23, 31, 32, 37, 62) for d in (-1, 0, 1)]),
)
rows = st.lists(st.tuples(times, near, near, st.booleans()), max_size=12)


@settings(max_examples=150, deadline=None)
@given(rows=rows, small=st.booleans())
@pytest.mark.parametrize("name", SUFFIXES)
def test_any_events_are_read_as_they_were_written_or_refused(tmp_path_factory, name, rows, small):
    path = tmp_path_factory.getbasetemp() / f"any{SUFFIXES[name]}"
    if small:
        rows = [(t % 2**25, x % 128, y % 128, p) for t, x, y, p in rows]
    events = ev.sort_events(np.array(rows, ev.EVENT_DTYPE))
    try:
        ev.write_events(path, events, name)
    except InputError as error:
        assert not small or (name == "atis" and not rows), error
        return
    np.testing.assert_array_equal(ev.read_events(path, format=name), events)
    np.testing.assert_array_equal(ev.read_events(path), events)


def some(**columns):
    given = {"t": [10], "x": [1], "y": [2], "p": [1], **columns}
    N = max(map(len, given.values()))
    return ev.make_events(*(np.resize(given[name], N) for name in "txyp"))


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("aedat3", {"x": [2**15]}, "room for x from 0 to 32767; event 0 has x=32768"),
        ("aedat3", {"t": [-1]}, "times from 0 to 4611686018427387903"),
        ("aedat3", {"t": [2**62]}, "times from 0 to 4611686018427387903"),
        ("aedat2", {"x": [640]}, "up to 480 x 640 pixels; these events are of a sensor of 3 x 641"),
        ("aedat2", {"t": [-1]}, "first time from 0 to 4294967295 µs; got -1"),
        ("aedat2", {"t": [2**32]}, r"events\['t'\] -= events\['t'\]\[0\]"),
        ("aedat2", {"t": [0, 2**31]}, "room for 2147483647 µs between two events; between event 0 and the next"),
        ("dat", {"y": [0, 2**14]}, "room for y from 0 to 16383; event 1 has y=16384"),
        ("dat", {"t": [5, 5 + 2**31]}, "lie 2147483648 µs"),
        ("atis", {"x": [256]}, "room for x from 0 to 255"),
        ("atis", {"y": [240]}, "no room for row 240"),
        ("atis", {"t": [-1]}, "times from 0 on"),
        ("atis", {"t": [2**60]}, "overflow markers to reach"),
    ],
)
def test_what_a_format_has_no_room_for_is_refused_and_no_file_is_left(tmp_path, name, columns, message):
    with pytest.raises(InputError, match=message):
        ev.write_events(tmp_path / f"a{SUFFIXES[name]}", some(**columns), name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("columns", "size", "chip"),
    [
        ({}, None, b"DVS128"),
        ({"x": [128]}, None, b"DAVIS240C"),
        ({"y": [200]}, None, b"DAVIS346"),
        ({"x": [600]}, None, b"DAVIS640"),
        ({}, (260, 346), b"DAVIS346"),
    ],
)
def test_aedat2_is_of_the_smallest_camera_that_fits_or_of_the_one_given(tmp_path, columns, size, chip):
    path = tmp_path / "a.aedat"
    ev.write_events(path, some(**columns), "aedat2", sensor_size=size)
    assert b"# AEChip: " + chip + b"\r\n" in path.read_bytes()
    np.testing.assert_array_equal(ev.read_events(path), some(**columns))


@pytest.mark.parametrize("name", ["aedat3", "dat"])
def test_the_sensor_size_is_kept_where_the_header_has_room_for_it(tmp_path, name):
    path = tmp_path / f"a{SUFFIXES[name]}"
    ev.write_events(path, some(), name, sensor_size=(260, 346))
    assert ev.summarize(path).sensor_size == (260, 346)
    ev.write_events(path, some(), name)
    assert ev.summarize(path).sensor_size is None


def test_the_suffix_chooses_the_format(tmp_path):
    titles = {".npz": ".npz", ".aedat": "AEDAT 3.1", ".dat": "Prophesee .dat", ".bin": "ATIS .bin"}
    for suffix, title in titles.items():
        ev.write_events(tmp_path / f"a{suffix}", some())
        assert ev.summarize(tmp_path / f"a{suffix}").format == title


def test_long_recordings_need_several_packets_and_markers(tmp_path):
    N = 20_000
    t = np.arange(N) * 1_000_003  # 5.5 hours
    events = ev.make_events(t, t % 200, t % 100, t % 2)
    for name in ("aedat3", "aedat2", "atis", "dat"):
        path = tmp_path / f"a{SUFFIXES[name]}"
        ev.write_events(path, events, name)
        np.testing.assert_array_equal(ev.read_events(path), events)
