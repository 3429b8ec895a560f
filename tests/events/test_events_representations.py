"""Voxel grids, time surfaces and the like against the same in plain Python, with C, with NumPy and on a device."""

import doctest
import json
import math
import os
import pickle
import re
from fractions import Fraction
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

from jellyfit import events as ev
from jellyfit import native
from jellyfit.errors import InputError, InputTypeError
from jellyfit.events import sums
from jellyfit.frames import DeviceSums, frames_on_device

SIZE = (4, 5)
NUMBER, TIME, DURATION = ev.FixedNumber(3), ev.FixedNumber(3, "time"), ev.FixedDuration(20)
SLICINGS = (NUMBER, TIME, DURATION)

event_lists = st.lists(
    st.tuples(st.integers(-50, 50), st.integers(0, 4), st.integers(0, 3), st.booleans()), min_size=1, max_size=40
).map(lambda rows: ev.make_events(*zip(*sorted(rows, key=lambda row: row[0]), strict=True)))


def make(N, size=SIZE, seed=0, span=1000):
    random = np.random.default_rng(seed)
    times = np.sort(random.integers(0, span, N)) + 123
    return ev.make_events(
        times, random.integers(0, size[1], N), random.integers(0, size[0], N), random.integers(0, 2, N)
    )


def everywhere(events, framing, size=SIZE, **options):
    """to_frames with C, with NumPy, and on a device: all of one dtype and shape, and equal."""
    fast = ev.to_frames(events, framing, size, **options)
    with mock.patch.dict(os.environ, JELLYFIT_NATIVE="0"):
        plain = ev.to_frames(events, framing, size, **options)
    device = frames_on_device(events, framing, size, "cpu", **options)
    assert fast.dtype == plain.dtype == device.numpy().dtype
    np.testing.assert_array_equal(fast, plain)
    if fast.dtype.kind in "iu" or (isinstance(framing, ev.VoxelGrid) and not framing.normalize):
        np.testing.assert_array_equal(fast, device.numpy())
    else:
        np.testing.assert_allclose(fast, device.numpy(), rtol=3e-7, atol=1e-7)
    assert fast.shape[1:] == (framing.channels, *(framing.size if isinstance(framing, ev.Resized) else size))
    return fast


# ------------------------------------------------------------ voxel grids


@settings(deadline=None, max_examples=40)
@given(event_lists, st.integers(1, 9))
def test_a_voxel_grid_is_the_sum_of_the_papers_kernels(events, T):
    first, last = int(events["t"][0]), int(events["t"][-1])
    expected = [[[[Fraction(0)] * 5 for _ in range(4)] for _ in range(2)] for _ in range(T)]
    for t, x, y, p in events.tolist():
        place = Fraction((T - 1) * (t - first), last - first) if last > first else Fraction(0)
        for j in range(T):
            expected[j][int(p)][y][x] += max(Fraction(0), 1 - abs(j - place))
    expected = np.array(expected, float).astype(np.float32)
    grid = everywhere(events, ev.VoxelGrid(T, channels=2))
    np.testing.assert_array_equal(grid, expected)
    signed = everywhere(events, ev.VoxelGrid(T))
    np.testing.assert_allclose(signed, expected[:, 1:] - expected[:, :1], rtol=1e-6, atol=1e-6)


def test_no_event_is_lost_between_the_instants():
    events = make(5000)
    grid = everywhere(events, ev.VoxelGrid(7, channels=2))
    assert grid.dtype == np.float32
    assert grid.sum(dtype=np.float64) == pytest.approx(5000, rel=1e-6)
    on = int(events["p"].sum())
    assert everywhere(events, ev.VoxelGrid(7)).sum(dtype=np.float64) == pytest.approx(2 * on - 5000, abs=1e-2)


def test_a_voxel_grid_does_not_depend_on_the_order_of_events():
    events = make(500, span=40)
    shuffled = events[np.argsort(events["t"] + np.random.default_rng(0).uniform(0, 0.9, 500))]
    assert not np.array_equal(shuffled, events)
    for framing in (ev.VoxelGrid(5), ev.VoxelGrid(5, normalize=True)):
        np.testing.assert_array_equal(everywhere(shuffled, framing), everywhere(events, framing))


def test_normalized_values_have_mean_0_and_deviation_1_where_there_are_any():
    plain, normalized = (everywhere(make(60), ev.VoxelGrid(6, normalize=n)) for n in (False, True))
    assert (plain == 0).any()
    assert not normalized[plain == 0].any()
    values = normalized[plain != 0].astype(np.float64)
    assert values.mean() == pytest.approx(0, abs=1e-6)
    assert values.std() == pytest.approx(1, abs=1e-6)
    scaled = (plain[plain != 0] - plain[plain != 0].mean()) / plain[plain != 0].std()
    np.testing.assert_allclose(values, scaled, rtol=1e-4, atol=1e-5)


def test_normalizing_values_that_are_all_alike_gives_zeros():
    events = ev.make_events([3, 3], [0, 1], [0, 0], [1, 1])
    assert not everywhere(events, ev.VoxelGrid(2, normalize=True)).any()


@pytest.mark.parametrize("path", ["C", "NumPy", "device"])
def test_a_recording_too_long_for_64_bits_is_an_error(path, monkeypatch):
    if path == "NumPy":
        monkeypatch.setenv("JELLYFIT_NATIVE", "0")
    events = ev.make_events([0, 2**61], [0, 0], [0, 0], [0, 0])
    make_frames = (lambda *a: frames_on_device(*a, "cpu")) if path == "device" else ev.to_frames
    with pytest.raises(InputError, match=r"too long for a voxel grid of 5 bins.*they are in µs"):
        make_frames(events, ev.VoxelGrid(5), SIZE)
    assert make_frames(events, ev.VoxelGrid(2), SIZE).sum() == -2


# ------------------------------------------------------------ time surfaces


def slices_and_ends(events, slicing):
    """By the words of the documentation, in plain Python: events and end of every slice."""
    times = events["t"].tolist()
    first, last = times[0], times[-1]
    if slicing is NUMBER:
        per = len(times) // 3
        parts = [list(range(j * per, (j + 1) * per if j < 2 else len(times))) for j in range(3)]
        ends, before = [], first
        for part in parts:
            before = times[part[-1]] if part else before
            ends.append(before)
        return parts, ends
    step = (last - first) // 3 if slicing is TIME else 20
    T = 3 if slicing is TIME else (last - first) // 20 + 1
    parts = [[] for _ in range(T)]
    for i, t in enumerate(times):
        parts[min((t - first) // step, T - 1) if step else T - 1].append(i)
    ends = [first + (j + 1) * step for j in range(T)]
    if slicing is TIME:
        ends[-1] = last
    return parts, ends


@settings(deadline=None, max_examples=25)
@given(event_lists, st.sampled_from(SLICINGS), st.sampled_from([1.0, 33.0, 5e4]))
def test_a_time_surface_looks_back_at_the_latest_event_of_every_pixel(events, slicing, tau):
    parts, ends = slices_and_ends(events, slicing)
    expected = np.zeros((len(parts), 2, *SIZE))
    latest = {}
    for j, (part, end) in enumerate(zip(parts, ends, strict=True)):
        for i in part:
            t, x, y, p = events[i].tolist()
            latest[int(p), y, x] = t
        for place, t in latest.items():
            expected[(j, *place)] = math.exp(-(end - t) / tau)
    surface = everywhere(events, ev.TimeSurface(slicing, tau))
    assert surface.dtype == np.float32
    np.testing.assert_allclose(surface, expected, rtol=1e-6, atol=1e-7)
    assert 0 <= surface.min() <= surface.max() <= 1


def test_surfaces_of_slices_that_overlap_or_leave_events_out():
    events = ev.make_events([0, 10, 20, 30], [0, 1, 2, 3], [0] * 4, [1] * 4)
    surface = ev.TimeSurface(ev.CustomSlices(lambda events: [[0, 2], [1, 2], [3, 4]]), tau=10.0)
    rows = everywhere(events, surface)[:, 1, 0]
    e = math.exp
    np.testing.assert_allclose(rows, [[e(-1), 1, 0, 0, 0], [e(-1), 1, 0, 0, 0], [e(-3), e(-2), 0, 1, 0]], rtol=1e-6)
    backwards = ev.TimeSurface(ev.CustomSlices(lambda events: [[2, 4], [0, 2]]))
    with pytest.raises(InputError, match="no slice may end before the one in front"):
        ev.to_frames(events, backwards, SIZE)


@settings(deadline=None, max_examples=25)
@given(event_lists, st.sampled_from(SLICINGS))
def test_counts_and_times(events, slicing):
    parts, ends = slices_and_ends(events, slicing)
    windows = slicing.windows(events)
    assert windows[:, 1].tolist() == ends
    expected = np.zeros((len(parts), 4, *SIZE))
    for j, (part, (start, end)) in enumerate(zip(parts, windows.tolist(), strict=True)):
        for i in part:
            t, x, y, p = events[i].tolist()
            expected[j, int(p), y, x] += 1
            expected[j, 2 + int(p), y, x] = (t - start) / (end - start) if end > start else 1
    frames = everywhere(events, ev.CountsAndTimes(slicing))
    np.testing.assert_allclose(frames, expected, rtol=1e-6, atol=1e-7)
    assert frames[:, :2].sum() == len(events)


@settings(deadline=None, max_examples=25)
@given(event_lists, st.sampled_from(SLICINGS))
def test_windows_begin_where_the_one_in_front_ends_and_hold_their_events(events, slicing):
    windows, slices = slicing.windows(events), slicing.slices(events)
    assert windows.shape == slices.shape
    assert windows[0, 0] == events["t"][0]
    for (start, end), (first, stop) in zip(windows.tolist(), slices.tolist(), strict=True):
        assert start <= end
        assert all(start <= t <= end for t in events["t"][first:stop])
    if slicing is not NUMBER:
        np.testing.assert_array_equal(windows[1:, 0], windows[:-1, 1])


# ------------------------------------------------------------ one channel


@settings(deadline=None, max_examples=25)
@given(event_lists, st.sampled_from(SLICINGS))
def test_merged_counts_are_sum_and_difference_of_the_two_channels(events, slicing):
    both = ev.to_frames(events, slicing, SIZE).astype(int)
    np.testing.assert_array_equal(everywhere(events, ev.MergedCounts(slicing)), both.sum(1, keepdims=True))
    signed = everywhere(events, ev.MergedCounts(slicing, "signed"))
    np.testing.assert_array_equal(signed, both[:, 1:] - both[:, :1])


@pytest.mark.parametrize(
    ("off", "on", "total", "signed"),
    [(200, 55, np.uint8, np.int16), (200, 56, np.uint16, np.int16), (40_000, 30_000, np.uint32, np.int32)],
)
def test_merged_counts_are_as_wide_as_they_need_to_be(off, on, total, signed):
    events = ev.make_events(np.arange(off + on), [1] * (off + on), [2] * (off + on), np.arange(off + on) >= off)
    frames = everywhere(events, ev.MergedCounts(ev.FixedNumber(1)))
    assert (frames.dtype, int(frames[0, 0, 2, 1])) == (total, off + on)
    frames = everywhere(events, ev.MergedCounts(ev.FixedNumber(1), "signed"))
    assert (frames.dtype, int(frames[0, 0, 2, 1])) == (signed, on - off)


# ------------------------------------------------------------ other sizes


def test_pixels_are_averaged_by_area():
    events = make(4000, (128, 96))
    counts = ev.to_frames(events, NUMBER, (128, 96)).astype(float)
    half = everywhere(events, ev.Resized(NUMBER, (64, 48)), (128, 96))
    np.testing.assert_allclose(half, counts.reshape(3, 2, 64, 2, 48, 2).mean((3, 5)), rtol=1e-6)
    odd = everywhere(events, ev.Resized(NUMBER, (48, 36)), (128, 96))  # 8/3 of a pixel
    fine = counts.repeat(3, -1).repeat(3, -2)  # each pixel in nine, of which 8 x 8 make one
    np.testing.assert_allclose(odd, fine.reshape(3, 2, 48, 8, 36, 8).mean((3, 5)), rtol=1e-6)
    assert odd.dtype == np.float32


def test_frames_that_grow_repeat_their_pixels_and_the_same_size_changes_nothing():
    events = make(200)
    counts = ev.to_frames(events, NUMBER, SIZE)
    larger = everywhere(events, ev.Resized(NUMBER, (8, 15)))
    np.testing.assert_allclose(larger, counts.repeat(2, -2).repeat(3, -1), rtol=1e-6)
    np.testing.assert_array_equal(everywhere(events, ev.Resized(NUMBER, SIZE)), counts)


# ------------------------------------------------------------ what holds for all

FRAMINGS = [
    *SLICINGS,
    ev.MergedCounts(NUMBER),
    ev.MergedCounts(NUMBER, "signed"),
    ev.MergedCounts(TIME),
    ev.VoxelGrid(4),
    ev.VoxelGrid(4, channels=2),
    ev.VoxelGrid(4, normalize=True),
    ev.TimeSurface(NUMBER),
    ev.TimeSurface(NUMBER, 100.0),
    ev.CountsAndTimes(DURATION),
    ev.Resized(NUMBER, (3, 7)),
    ev.Resized(ev.VoxelGrid(4), (2, 2)),
]
each_framing = pytest.mark.parametrize("framing", FRAMINGS, ids=repr)


@each_framing
@pytest.mark.parametrize("N", [1, 2, 63, 1000])
@pytest.mark.parametrize("size", [(1, 1), (3, 17), (63, 65)])
def test_c_numpy_and_device_agree_on_odd_sizes(framing, N, size):
    frames = everywhere(make(N, size), framing, size)
    assert np.isfinite(frames.astype(float)).all()


@each_framing
def test_a_recording_without_events(framing):
    none = make(0)
    for frames in (lambda **o: ev.to_frames(none, framing, SIZE, **o), lambda **o: everywhere(none, framing, **o)):
        with pytest.raises(InputError, match="empty='zeros'"):
            frames()
        assert not frames(empty="zeros").any()


@each_framing
def test_events_at_one_instant(framing):
    events = ev.make_events([7] * 50, [0] * 50, [0] * 50, [1] * 50)
    frames = everywhere(events, framing)
    assert np.isfinite(frames.astype(float)).all()


@each_framing
@pytest.mark.parametrize("path", ["C", "NumPy", "device"])
@pytest.mark.parametrize(("column", "bound"), [("x", 5), ("y", 4)])
def test_an_event_outside_the_sensor_is_an_error(framing, path, column, bound, monkeypatch):
    if path == "NumPy":
        monkeypatch.setenv("JELLYFIT_NATIVE", "0")
    events = make(100)
    events[column][60] = bound
    with pytest.raises(InputError, match=rf"1 of 100 events .* event 60: .*{column}={bound}"):
        if path == "device":
            frames_on_device(events, framing, SIZE, "cpu")
        else:
            ev.to_frames(events, framing, SIZE)


@each_framing
def test_unsorted_events_are_sorted_with_a_warning(framing):
    events = make(100)
    events["t"] = np.arange(100)
    mixed = np.concatenate([events[50:], events[:50]])
    for make_frames in (ev.to_frames, lambda *a: frames_on_device(*a, "cpu").numpy()):
        with pytest.warns(ev.EventWarning, match="100 events are not sorted: 1 lie") as seen:
            frames = make_frames(mixed, framing, SIZE)
        assert len(seen) == 1
        np.testing.assert_allclose(frames, ev.to_frames(events, framing, SIZE), rtol=1e-6)


@each_framing
def test_framings_pickle_compare_and_have_keys(framing):
    twin = pickle.loads(pickle.dumps(framing))
    assert twin == framing
    assert hash(twin) == hash(framing)
    assert twin.channels == framing.channels
    assert json.loads(json.dumps(framing.key())) == framing.key()
    assert sum(other == framing for other in FRAMINGS) == 1
    assert sum(other.key() == framing.key() for other in FRAMINGS) == 1


def test_the_c_path_is_used_where_there_is_a_compiler():
    if not native.status().usable:
        pytest.skip(native.status().reason)
    with mock.patch.object(sums.HostSums, "_place", side_effect=AssertionError("NumPy path used")):
        for framing in FRAMINGS:
            ev.to_frames(make(100), framing, SIZE)


def test_far_too_many_frames_are_an_error():
    for framing in (ev.VoxelGrid(2**18), ev.TimeSurface(ev.FixedNumber(2**18))):
        with pytest.raises(InputError, match=r"262144 frames of 128 x 128 pixels would take 64\.0 GiB"):
            ev.to_frames(make(10), framing, (128, 128))


def test_views_and_read_only_arrays_are_taken():
    events = make(1000)
    expected = everywhere(events[::2].copy(), ev.VoxelGrid(3))
    np.testing.assert_array_equal(everywhere(events[::2], ev.VoxelGrid(3)), expected)
    events.flags.writeable = False
    assert everywhere(events, ev.VoxelGrid(3, channels=2)).sum() == pytest.approx(1000)
    other = np.zeros(1000, [("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "i8")])
    for name in "txyp":
        other[name] = events[name]
    np.testing.assert_array_equal(everywhere(other[::2], ev.VoxelGrid(3)), expected)


def test_one_s_own_formula_runs_on_the_host_and_on_a_device():
    class Busy(ev.Representation):
        channels = 1

        def __init__(self, least: int) -> None:
            self.least = least

        def build(self, sums):
            return sums.cast(sums.count(NUMBER.slices(sums.events)).sum(1) >= self.least, "uint8")[:, None]

    frames = everywhere(make(100), Busy(2))
    assert 0 < frames.sum() < frames.size
    assert Busy(2) == Busy(2) != Busy(3)


def mean_polarity(events, sensor_size):
    frames = np.zeros((1, 1, *sensor_size), np.float32)
    np.add.at(frames, (0, 0, events["y"], events["x"]), np.where(events["p"], 1, -1))
    return frames


def test_custom_frames_may_have_any_number_of_channels_and_go_to_a_device():
    framing = ev.CustomFrames(mean_polarity, channels=1)
    assert everywhere(make(100), framing).any()
    with pytest.raises(InputError, match=re.escape("must return frames [T, 2, 4, 5]")):
        ev.to_frames(make(100), ev.CustomFrames(mean_polarity), SIZE)
    assert framing != ev.CustomFrames(mean_polarity)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: ev.VoxelGrid(0), InputError, "T must be at least 1 (instants); got 0"),
        (lambda: ev.VoxelGrid(2.0), InputTypeError, "T must be an integer"),
        (lambda: ev.VoxelGrid(2, channels=3), InputError, "channels must be 1 (ON minus OFF) or 2 (OFF, ON); got 3"),
        (lambda: ev.TimeSurface(NUMBER, 0), InputError, "tau must be above 0 and at most 1e15, in µs"),
        (lambda: ev.TimeSurface(NUMBER, float("nan")), InputError, "tau must be above 0"),
        (lambda: ev.TimeSurface(NUMBER, "1"), InputTypeError, "tau must be a number"),
        (lambda: ev.TimeSurface(16), InputTypeError, "slicing must be a Slicing such as FixedNumber(T=16)"),
        (lambda: ev.CountsAndTimes(ev.VoxelGrid(3)), InputTypeError, "slicing must be a Slicing"),
        (lambda: ev.MergedCounts(NUMBER, "both"), InputError, "mode must be 'sum' or 'signed'"),
        (lambda: ev.Resized(NUMBER, (0, 48)), InputError, "size must be at least 1 (pixels); got 0"),
        (lambda: ev.Resized(NUMBER, 48), InputTypeError, "size must be (height, width), such as (48, 48); got 48"),
        (lambda: ev.Resized(16, (48, 48)), InputTypeError, "framing must be a Representation such as FixedNumber"),
        (lambda: ev.CustomFrames(mean_polarity, 0), InputError, "channels must be at least 1"),
    ],
)
def test_parameters_are_checked_when_they_are_given(build, error, message):
    with pytest.raises(error, match=re.escape(message)):
        build()


def test_representations_are_named_in_yaml():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--framing", type=ev.Framing)
    yaml = "{class_path: TimeSurface, init_args: {slicing: {class_path: FixedNumber, init_args: {T: 8}}, tau: 1000}}"
    config = parser.parse_string(f"framing: {yaml}")
    make_objects = getattr(parser, "instantiate", None) or parser.instantiate_classes
    assert make_objects(config).framing == ev.TimeSurface(ev.FixedNumber(8), 1000.0)


def test_device_sums_take_columns_apart_byte_by_byte():
    events = ev.make_events([-(2**40), 3], [65535, 258], [1, 0], [0, 1])
    device = DeviceSums(events, (2, 65536), "cpu")
    latest = device.latest(np.array([[0, 2]]), carry=False)
    assert latest[0, 0, 1, 65535] == -(2**40)
    assert latest[0, 1, 0, 258] == 3
    assert torch.count_nonzero(latest != sums.NEVER) == 2


@pytest.mark.parametrize("module", [sums, ev.representations], ids=lambda module: module.__name__)
def test_examples_run(module):
    assert doctest.testmod(module).failed == 0
