import functools
import json
import multiprocessing
import os
import pickle
import re
from collections import Counter
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

from jellyfit import events as ev
from jellyfit import native
from jellyfit.errors import InputError, InputTypeError


def make(N, size=(8, 10), seed=0, span=1000):
    random = np.random.default_rng(seed)
    times = np.sort(random.integers(0, span, N)) + 123
    return ev.make_events(
        times, random.integers(0, size[1], N), random.integers(0, size[0], N), random.integers(0, 2, N)
    )


def numpy_only():
    return mock.patch.dict(os.environ, JELLYFIT_NATIVE="0")


def both(events, framing, size=(8, 10), **options):
    """to_frames with C and without: the two must agree to the dtype."""
    fast = ev.to_frames(events, framing, size, **options)
    with numpy_only():
        plain = ev.to_frames(events, framing, size, **options)
    assert fast.dtype == plain.dtype
    np.testing.assert_array_equal(fast, plain)
    return fast


def reference(events, slice_of, T, size=(8, 10)):
    """Frames by counting events in Python, each put into its slice by arithmetic on its own index or time."""
    counts = Counter((slice_of(i, int(e["t"])), int(e["p"]), int(e["y"]), int(e["x"])) for i, e in enumerate(events))
    frames = np.zeros((T, 2, *size), np.int64)
    for place, count in counts.items():
        frames[place] = count
    return frames


def halves(events):
    return [0, len(events) // 2, len(events)]


def signed(events, sensor_size):
    frames = np.zeros((1, 2, *sensor_size), np.float32)
    np.add.at(frames, (0, events["p"].astype(int), events["y"], events["x"]), 0.5)
    return frames


event_lists = st.lists(
    st.tuples(st.integers(-50, 50), st.integers(0, 9), st.integers(0, 7), st.booleans()), min_size=1, max_size=60
).map(lambda rows: ev.make_events(*zip(*sorted(rows, key=lambda row: row[0]), strict=True)))


@settings(deadline=None)
@given(event_lists, st.integers(1, 70))
def test_split_by_number_is_the_rule(events, T):
    per = len(events) // T
    frames = both(events, ev.FixedNumber(T))
    assert frames.sum() == len(events)
    np.testing.assert_array_equal(frames, reference(events, lambda i, t: min(i // per, T - 1) if per else T - 1, T))


@settings(deadline=None)
@given(event_lists, st.integers(1, 70))
def test_split_by_time_is_the_rule(events, T):
    first, dt = int(events["t"][0]), int(events["t"][-1] - events["t"][0]) // T
    frames = both(events, ev.FixedNumber(T, split_by="time"))
    assert frames.sum() == len(events)
    slice_of = lambda i, t: min((t - first) // dt, T - 1) if dt else T - 1  # noqa: E731
    np.testing.assert_array_equal(frames, reference(events, slice_of, T))


@settings(deadline=None)
@given(event_lists, st.integers(1, 120))
def test_fixed_duration_is_the_rule(events, duration):
    first, last = int(events["t"][0]), int(events["t"][-1])
    frames = both(events, ev.FixedDuration(duration))
    assert frames.sum() == len(events)
    T = len(range(first, last + 1, duration))
    np.testing.assert_array_equal(frames, reference(events, lambda i, t: (t - first) // duration, T))


@settings(deadline=None)
@given(event_lists, st.randoms(use_true_random=False), st.integers(1, 20))
@pytest.mark.filterwarnings("ignore::jellyfit.events.EventWarning")
def test_frames_by_time_do_not_depend_on_the_order(events, random, n):
    order = list(range(len(events)))
    random.shuffle(order)
    for framing in (ev.FixedNumber(n, split_by="time"), ev.FixedDuration(n)):
        np.testing.assert_array_equal(both(events[order], framing), both(events, framing))


@pytest.mark.parametrize("N", [1, 3, 17, 63, 65, 1000])
@pytest.mark.parametrize("size", [(1, 1), (3, 17), (63, 65), (1, 1000)])
@pytest.mark.parametrize("framing", [ev.FixedNumber(5), ev.FixedNumber(5, "time"), ev.FixedDuration(77)])
def test_c_and_numpy_agree_on_odd_sizes(N, size, framing):
    frames = both(make(N, size), framing, size)
    assert frames.shape[1:] == (2, *size)
    assert frames.sum() == N


def test_the_c_path_is_used_where_there_is_a_compiler():
    if not native.status().usable:
        pytest.skip(native.status().reason)
    with mock.patch("jellyfit.events.counting._count_numpy", side_effect=AssertionError("NumPy path used")):
        assert ev.to_frames(make(100), ev.FixedNumber(4), (8, 10)).sum() == 100


def test_without_a_compiler_it_warns_once_and_gives_the_same(monkeypatch):
    events, framing = make(1000), ev.FixedNumber(7, "time")
    expected = ev.to_frames(events, framing, (8, 10))
    monkeypatch.setattr(native, "_loaded", {})
    monkeypatch.setattr(native, "_warned", set())
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.warns(native.NativeWarning, match="no-such-compiler") as seen:
        np.testing.assert_array_equal(ev.to_frames(events, framing, (8, 10)), expected)
        np.testing.assert_array_equal(ev.to_frames(events, framing, (8, 10)), expected)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("count", "dtype"),
    [(255, np.uint8), (256, np.uint16), (65535, np.uint16), (65536, np.uint32), (70000, np.uint32)],
)
def test_counters_widen_and_lose_nothing(count, dtype):
    # Before the busy slice are others, whose counts must survive the widening; in it another pixel was counted already.
    quiet = ev.make_events([0, 0, 1], [1, 1, 2], [0, 0, 1], [1, 1, 0])
    busy = np.concatenate([ev.make_events([2], [5], [5], [0]), np.repeat(ev.make_events([2], [9], [7], [1]), count)])
    after = ev.make_events([3], [0], [0], [0])
    framing = ev.CustomSlices(lambda events: [0, 2, 3, 4 + count, 5 + count])
    frames = both(np.concatenate([quiet, busy, after]), framing)
    assert frames.dtype == dtype
    assert frames[0, 1, 0, 1] == 2
    assert frames[1, 0, 1, 2] == 1
    assert frames[2, 1, 7, 9] == count
    assert frames[2, 0, 5, 5] == 1
    assert frames[3, 0, 0, 0] == 1
    assert frames.sum(dtype=np.int64) == count + 5


def test_channel_0_is_off_and_rows_are_y():
    frames = both(ev.make_events([0, 1], [3, 4], [5, 6], [False, True]), ev.FixedNumber(1))
    assert frames[0, 0, 5, 3] == 1
    assert frames[0, 1, 6, 4] == 1


def test_a_time_without_events_is_a_frame_of_zeros():
    frames = both(ev.make_events([0, 1, 100], [0] * 3, [0] * 3, [0] * 3), ev.FixedNumber(10, "time"))
    assert frames.sum(axis=(1, 2, 3)).tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("framing", [ev.FixedNumber(4), ev.FixedNumber(4, "time")])
def test_fewer_events_than_frames_is_legal(framing):
    assert both(make(2), framing).sum() == 2


def test_many_events_at_one_instant_fall_into_the_last_frame():
    events = ev.make_events([7] * 50, [0] * 50, [0] * 50, [1] * 50)
    assert both(events, ev.FixedNumber(4, "time")).sum(axis=(1, 2, 3)).tolist() == [0, 0, 0, 50]
    assert both(events, ev.FixedDuration(10)).sum(axis=(1, 2, 3)).tolist() == [50]


def test_times_may_be_negative_and_far_apart():
    events = ev.make_events([-(2**62), 0, 2**62 - 1], [0] * 3, [0] * 3, [0] * 3)
    assert both(events, ev.FixedNumber(2, "time")).sum(axis=(1, 2, 3)).tolist() == [1, 2]


@pytest.mark.parametrize("framing", [ev.FixedNumber(4), ev.FixedNumber(4, "time"), ev.FixedDuration(9)])
def test_a_recording_without_events(framing):
    none = make(0)
    with pytest.raises(InputError, match="empty='zeros'"):
        ev.to_frames(none, framing, (8, 10))
    frames = both(none, framing, empty="zeros")
    assert frames.shape == (getattr(framing, "T", 1), 2, 8, 10)
    assert not frames.any()


@pytest.mark.parametrize("native_off", [False, True])
@pytest.mark.parametrize(("column", "bound"), [("x", 10), ("y", 8)])
def test_an_event_on_the_edge_is_an_error_not_the_next_row(native_off, column, bound, monkeypatch):
    events = make(100)
    events[column][60] = bound - 1
    both(events, ev.FixedNumber(3))
    events[column][60] = bound
    if native_off:
        monkeypatch.setenv("JELLYFIT_NATIVE", "0")
    for framing in (ev.FixedNumber(3), ev.CustomSlices(halves), ev.CustomFrames(signed)):
        with pytest.raises(InputError, match=rf"1 of 100 events .* event 60: .*{column}={bound}"):
            ev.to_frames(events, framing, (8, 10))


@pytest.mark.parametrize("native_off", [False, True])
@pytest.mark.parametrize(
    "framing", [ev.FixedNumber(3), ev.FixedNumber(3, "time"), ev.FixedDuration(100), ev.CustomSlices(halves)]
)
def test_unsorted_events_are_sorted_and_counted(framing, native_off, monkeypatch):
    events = make(100)
    expected = ev.to_frames(events, framing, (8, 10))
    if native_off:
        monkeypatch.setenv("JELLYFIT_NATIVE", "0")
    mixed = np.concatenate([events[50:], events[:50]])
    with pytest.warns(ev.EventWarning, match="100 events are not sorted: 1 lie") as seen:
        frames = ev.to_frames(mixed, framing, (8, 10))
    assert len(seen) == 1
    assert seen[0].filename == __file__
    np.testing.assert_array_equal(frames.sum(axis=0), expected.sum(axis=0))


@pytest.mark.parametrize("native_off", [False, True])
def test_every_unsorted_pair_is_seen_wherever_it_lies(native_off, monkeypatch):
    if native_off:
        monkeypatch.setenv("JELLYFIT_NATIVE", "0")
    events = make(17)
    events["t"] = np.arange(17)
    for framing in (ev.FixedNumber(4), ev.FixedNumber(4, "time"), ev.FixedDuration(3)):
        for i in range(16):
            mixed = events.copy()
            mixed[[i, i + 1]] = events[[i + 1, i]]
            with pytest.warns(ev.EventWarning):
                frames = ev.to_frames(mixed, framing, (8, 10))
            np.testing.assert_array_equal(frames, ev.to_frames(events, framing, (8, 10)))


def test_views_and_other_dtypes_are_taken():
    events = make(1001)
    other = np.zeros(1001, [("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "i8")])
    for name in "txyp":
        other[name] = events[name]
    np.testing.assert_array_equal(both(other[::2], ev.FixedNumber(3)), both(events[::2].copy(), ev.FixedNumber(3)))
    events.flags.writeable = False
    assert both(events[:500], ev.FixedNumber(3)).sum() == 500


def test_custom_slices_may_overlap_and_leave_gaps():
    events = make(100)
    windows = ev.CustomSlices(lambda events: np.array([[0, 60], [40, 100], [99, 99]]))
    assert both(events, windows).sum(axis=(1, 2, 3)).tolist() == [60, 60, 0]
    np.testing.assert_array_equal(both(events, ev.CustomSlices(halves)), both(events, ev.FixedNumber(2)))


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        ([0, 101], InputError, "slice 0 is (0, 101)"),
        ([[0, 50], [50, 40]], InputError, "slice 1 is (50, 40)"),
        ([-1, 100], InputError, "slice 0 is (-1, 100)"),
        ([0], InputError, "got the shape [1]"),
        ([[0, 1, 2]], InputError, "got the shape [1, 3]"),
        (np.zeros((0, 2), int), InputError, "got the shape [0, 2]"),
        ([0.0, 100.0], InputTypeError, "float64"),
        (None, InputTypeError, "object"),
    ],
)
def test_custom_slices_that_do_not_fit_are_errors(result, error, message):
    with pytest.raises(error, match=re.escape(message)):
        ev.to_frames(make(100), ev.CustomSlices(lambda events: result), (8, 10))


def test_custom_frames_gives_what_the_function_gives():
    frames = ev.to_frames(make(100), ev.CustomFrames(signed), (8, 10))
    assert frames.dtype == np.float32
    assert frames.sum() == 50


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (np.zeros((3, 2, 10, 8)), InputError, "[3, 2, 10, 8]"),
        (np.zeros((0, 2, 8, 10)), InputError, "[0, 2, 8, 10]"),
        (np.zeros((2, 8, 10)), InputError, "[2, 8, 10]"),
        (np.full((1, 2, 8, 10), np.nan), InputError, "160 values that are NaN"),
        ([[0]], InputTypeError, "got list"),
        (np.zeros((1, 2, 8, 10), complex), InputTypeError, "complex128"),
    ],
)
def test_custom_frames_that_do_not_fit_are_errors(result, error, message):
    with pytest.raises(error, match=re.escape(message)):
        ev.to_frames(make(100), ev.CustomFrames(lambda events, size: result), (8, 10))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: ev.FixedNumber(0), InputError, "T must be at least 1 (frames); got 0"),
        (lambda: ev.FixedNumber(-3), InputError, "got -3"),
        (lambda: ev.FixedNumber(2.0), InputTypeError, "T must be an integer"),
        (lambda: ev.FixedNumber(True), InputTypeError, "T must be an integer"),
        (lambda: ev.FixedNumber(4, "events"), InputError, "got 'events'"),
        (lambda: ev.FixedDuration(0), InputError, "duration must be at least 1"),
        (lambda: ev.FixedDuration(1e4), InputTypeError, "duration must be an integer"),
        (lambda: ev.CustomSlices("a.b"), InputTypeError, "dotted path"),
        (lambda: ev.CustomFrames(None), InputTypeError, "dotted path"),
    ],
)
def test_parameters_are_checked_when_they_are_given(build, error, message):
    with pytest.raises(error, match=re.escape(message)):
        build()


def test_to_frames_checks_its_other_arguments():
    with pytest.raises(InputTypeError, match="got int"):
        ev.to_frames(make(3), 16, (8, 10))
    with pytest.raises(InputError, match="empty must be"):
        ev.to_frames(make(3), ev.FixedNumber(2), (8, 10), empty="skip")
    with pytest.raises(InputError, match="sensor_size"):
        ev.to_frames(make(3), ev.FixedNumber(2), 128)


def test_far_too_many_frames_are_an_error_instead_of_an_exhausted_machine():
    events = ev.make_events([0, 10**9], [0, 0], [0, 0], [0, 0])
    with pytest.raises(InputError, match="duration=1 µs cuts a recording of 1000000000 µs into 1000000001 frames"):
        ev.to_frames(events, ev.FixedDuration(1), (8, 10))
    with pytest.raises(InputError, match=r"1000001 frames of 128 x 128 pixels would take 30\.5 GiB"):
        ev.to_frames(events, ev.FixedDuration(1000), (128, 128))
    with pytest.raises(InputError, match="T must be at most"):
        ev.FixedNumber(10**10)


FRAMINGS = [
    ev.FixedNumber(16),
    ev.FixedNumber(16, "time"),
    ev.FixedNumber(8),
    ev.FixedDuration(16),
    ev.CustomSlices(halves),
    ev.CustomFrames(signed),
]


@pytest.mark.parametrize("framing", FRAMINGS)
def test_framings_pickle_compare_and_have_keys(framing):
    twin = pickle.loads(pickle.dumps(framing))
    assert twin == framing
    assert hash(twin) == hash(framing)
    assert twin.key() == framing.key()
    assert json.loads(json.dumps(framing.key())) == framing.key()
    same = [other for other in FRAMINGS if other == framing]
    assert len(same) == 1
    assert sum(other.key() == framing.key() for other in FRAMINGS) == 1


def test_framings_show_their_parameters():
    assert repr(ev.FixedNumber(16, "time")) == "FixedNumber(T=16, split_by='time')"
    assert repr(ev.CustomSlices(halves)) == f"CustomSlices(function={__name__}.halves)"


def test_the_key_of_a_function_changes_with_its_source(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    keys = []
    for number in (1, 2):
        module = tmp_path / f"my_slices_{number}.py"
        module.write_text(f"def cut(events):\n    return [0, {number}]\n")
        keys.append(ev.CustomSlices(__import__(module.stem).cut).key()["function"])
    assert keys[0]["function"] == "my_slices_1.cut"
    assert len(keys[0]["sha256"]) == 64
    assert keys[0]["sha256"] != keys[1]["sha256"]


def test_the_key_of_functions_without_source_or_with_bound_arguments():
    class Cutter:
        def __call__(self, events):
            return [0, len(events)]

    assert ev.CustomSlices(len).key()["function"] == {"function": "builtins.len", "sha256": None}
    assert ev.CustomSlices(Cutter()).key()["function"]["function"].endswith("Cutter")
    keys = [ev.CustomSlices(functools.partial(halves, n=n)).key()["function"] for n in (1, 2)]
    assert [key["keywords"] for key in keys] == [{"n": 1}, {"n": 2}]
    with pytest.raises(InputTypeError, match="override key"):
        ev.CustomSlices(functools.partial(halves, {1})).key()


def test_a_subclass_writes_only_its_slices():
    class Firsts(ev.Slicing):
        def __init__(self, n: int) -> None:
            self.n = n

        def slices(self, events):
            return np.array([[0, self.n]])

    assert both(make(50), Firsts(7)).sum() == 7
    assert Firsts(7) == Firsts(7) != Firsts(8)
    assert Firsts(7).key()["n"] == 7


def test_frames_called_directly_on_unsorted_events_is_an_error():
    events = ev.make_events([5, 1], [0, 0], [0, 0], [0, 0])
    with pytest.raises(InputError, match="to_frames, which sorts"):
        ev.FixedNumber(1).frames(events, (1, 1))


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("{class_path: jellyfit.events.FixedNumber, init_args: {T: 16, split_by: time}}", ev.FixedNumber(16, "time")),
        ("{class_path: FixedDuration, init_args: {duration: 1000}}", ev.FixedDuration(1000)),
        (f"{{class_path: CustomSlices, init_args: {{function: {__name__}.halves}}}}", ev.CustomSlices(halves)),
        (f"{{class_path: CustomFrames, init_args: {{function: {__name__}.signed}}}}", ev.CustomFrames(signed)),
    ],
)
def test_framings_are_named_in_yaml(yaml, expected):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--framing", type=ev.Framing)
    config = parser.parse_string(f"framing: {yaml}")
    make_objects = getattr(parser, "instantiate", None) or parser.instantiate_classes
    assert make_objects(config).framing == expected


# ------------------------------------------------------------ several threads


def test_threads_count_what_one_counts(monkeypatch):
    from jellyfit.events import counting

    events = make(3000, (5, 17))
    framings = [ev.FixedNumber(T, split_by) for T in (1, 2, 7, 40) for split_by in ("number", "time")]
    expected = [ev.to_frames(events, framing, (5, 17)) for framing in framings]
    started = []
    apart = counting._count_apart
    monkeypatch.setattr(counting, "_MANY", 10)
    monkeypatch.setattr(counting, "_count_apart", lambda *a: started.append(a[-1]) or apart(*a))
    for threads in (2, 3, 8):
        monkeypatch.setattr(counting, "_threads", lambda N, threads=threads: threads)
        for framing, frames in zip(framings, expected, strict=True):
            found = ev.to_frames(events, framing, (5, 17))
            assert found.dtype == frames.dtype
            np.testing.assert_array_equal(found, frames)
    assert set(started) == {2, 3, 7, 8}
    crowd = ev.make_events(range(700), [0] * 700, [0] * 700, [1] * 700)
    assert ev.to_frames(crowd, ev.FixedNumber(2), (5, 17))[:, 1, 0, 0].tolist() == [350, 350], "a wider type"
    with pytest.raises(InputError, match="outside"):
        ev.to_frames(events, ev.FixedNumber(4), (5, 16))
    with pytest.warns(ev.EventWarning, match="not sorted"):
        swapped = events[::-1].copy()
        np.testing.assert_array_equal(ev.to_frames(swapped, ev.FixedNumber(1), (5, 17)), expected[0])


def test_few_events_and_loaders_processes_count_in_one_thread(monkeypatch):
    from jellyfit.events import counting

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert counting._threads(1000) == 1
    assert counting._threads(10**8) == 8
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert counting._threads(10**8) == 3
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "the loader")
    assert counting._threads(10**8) == 1
