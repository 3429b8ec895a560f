"""Augmentation of events: what each does, in numbers, and what holds for all."""

import copy
import json
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

from jellyfit import events as ev
from jellyfit.errors import ConfigError, InputError, InputTypeError
from jellyfit.events.draws import nda_magnitudes, rectangle

SIZE = (24, 30)


def make(N, seed=0, span=10_000, size=SIZE):
    random = np.random.default_rng(seed)
    times = np.sort(random.integers(0, span, N)) + 77
    return ev.make_events(
        times, random.integers(0, size[1], N), random.integers(0, size[0], N), random.integers(0, 2, N)
    )


def grid(size=SIZE, t=0):
    """One event on every pixel."""
    y, x = np.indices(size).reshape(2, -1)
    return ev.make_events(np.full(x.size, t), x, y, np.ones(x.size, bool))


def rng(seed=0):
    return np.random.default_rng(seed)


TRANSFORMS = [
    ev.DropTime(),
    ev.DropArea(sensor_size=SIZE),
    ev.DropEvents(),
    ev.EventDrop(sensor_size=SIZE),
    ev.HorizontalFlip(sensor_size=SIZE),
    ev.Shift(3, sensor_size=SIZE),
    ev.Roll(3, sensor_size=SIZE),
    ev.SpatialJitter(1.5, sensor_size=SIZE),
    ev.CutOut(9, sensor_size=SIZE),
    ev.Rotate(30.0, sensor_size=SIZE),
    ev.Shear(30.0, sensor_size=SIZE),
    ev.NDA(sensor_size=SIZE),
    ev.NDA(3, number=4, sensor_size=SIZE),
    ev.TimeJitter(500.0),
    ev.TimeScale(),
    ev.PolarityFlip(),
    ev.PolarityFlip(each=True),
    ev.WithProbability(ev.DropTime(), 0.5),
    ev.OneOf([ev.DropTime(), ev.TimeScale()]),
]
each_transform = pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: repr(t)[:60])

# ------------------------------------------------------------ what holds for all


@each_transform
def test_the_same_generator_gives_the_same_events_and_another_gives_others(transform):
    events = make(800)
    first, again = (transform(events, rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert any(not np.array_equal(transform(events, rng(seed)), first) for seed in range(20))


@each_transform
def test_results_are_sorted_events_of_the_sensor_and_the_input_is_left_alone(transform):
    events = make(800)
    before = events.copy()
    events.flags.writeable = False
    for seed in range(10):
        result = transform(events, rng(seed))
        ev.check_events(result, SIZE)
        assert result.dtype == ev.EVENT_DTYPE
        assert (np.diff(result["t"]) >= 0).all()
    np.testing.assert_array_equal(events, before)


@each_transform
@pytest.mark.parametrize("N", [0, 1, 2])
def test_few_events_are_no_trouble(transform, N):
    for seed in range(10):
        assert len(transform(make(N), rng(seed))) <= N


@each_transform
def test_transforms_pickle_copy_compare_and_have_keys(transform):
    for twin in (pickle.loads(pickle.dumps(transform)), copy.deepcopy(transform)):
        assert twin == transform
        np.testing.assert_array_equal(twin(make(100), rng(3)), transform(make(100), rng(3)))
    assert json.loads(json.dumps(transform.key())) == transform.key()
    assert sum(other == transform for other in TRANSFORMS) == 1


@each_transform
def test_what_is_no_event_array_or_generator_is_refused(transform):
    with pytest.raises(InputTypeError, match="structured array with fields t, x, y, p"):
        transform(np.zeros(3), rng())
    with pytest.raises(InputTypeError, match="numpy.random.default_rng"):
        transform(make(3), 0)
    if isinstance(transform, ev.SpatialTransform):
        with pytest.raises(InputError, match="1 of 1 events lie outside the sensor"):
            transform(ev.make_events([0], [30], [0], [0]), rng())


@pytest.mark.parametrize(
    "transform",
    [ev.DropArea(), ev.Rotate(), ev.NDA(), ev.OneOf([ev.Roll()]), ev.WithProbability(ev.Shift(), 1.0)],
    ids=repr,
)
def test_the_size_of_the_sensor_can_be_given_later(transform):
    with pytest.raises(ConfigError, match=r"needs the size of the sensor: \w+\(..., sensor_size=\(height, width\)\)"):
        transform(make(10), rng())
    before = copy.deepcopy(transform)
    sized = transform.for_sensor(SIZE)
    assert len(sized(make(10), rng())) <= 10
    assert sized != transform == before
    assert sized.for_sensor((100, 100)) == sized, "a size that was given stays"


def test_transforms_without_a_place_need_no_size():
    assert ev.DropTime().for_sensor(SIZE) == ev.DropTime()


# ------------------------------------------------------------ dropping


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.floats(0, 1))
def test_drop_time_leaves_out_one_interval(seed, ratio):
    events = ev.make_events(range(1000), [0] * 1000, [0] * 1000, [1] * 1000)
    kept = ev.DropTime(ratio)(events, rng(seed))["t"]
    lost = np.setdiff1d(events["t"], kept)
    assert len(lost) <= ratio * 1000 + 1
    assert len(lost) == 0 or lost[-1] - lost[0] == len(lost) - 1, "without a gap"
    assert len(lost) == 0 or abs(len(lost) - ratio * 1000) <= 1 or lost[-1] == 999, "cut by the end alone"


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.floats(0, 1))
def test_drop_area_leaves_out_one_rectangle(seed, ratio):
    kept = ev.DropArea(ratio, SIZE)(grid(), rng(seed))
    picture = np.zeros(SIZE, bool)
    picture[kept["y"], kept["x"]] = True
    rows, columns = (~picture).any(1).nonzero()[0], (~picture).any(0).nonzero()[0]
    height, width = round(ratio * 24), round(ratio * 30)
    assert len(rows) <= height
    assert len(columns) <= width
    if len(rows):
        assert not picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].any()
        assert len(rows) == height or rows[0] == 0 or rows[-1] == 23
        assert len(columns) == width or columns[0] == 0 or columns[-1] == 29


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.floats(0, 1), st.integers(1, 200))
def test_drop_events_drops_so_many_and_keeps_their_order(seed, ratio, N):
    events = make(N)
    kept = ev.DropEvents(ratio)(events, rng(seed))
    assert len(kept) == N - int(ratio * N)
    rest = iter(events.tolist())
    assert all(event in rest for event in kept.tolist()), "a subsequence"


def test_drop_events_may_drop_any_event():
    kept = [ev.DropEvents(0.5)(make(10), rng(seed))["t"].tolist() for seed in range(100)]
    share = [sum(t in one for one in kept) / 100 for t in make(10)["t"].tolist()]
    assert 0.3 < min(share) <= max(share) < 0.7


@pytest.mark.parametrize("cls", [ev.DropTime, ev.DropEvents])
def test_ratios_are_drawn_evenly_from_their_range(cls):
    events = ev.make_events(range(1000), [0] * 1000, [0] * 1000, [1] * 1000)
    lost = np.array([1000 - len(cls((0.2, 0.4))(events, rng(seed))) for seed in range(300)])
    assert lost.max() <= 401
    assert np.isclose(lost[lost >= 199].mean(), 300, atol=12)


def test_event_drop_does_each_of_four_things_as_often():
    events = np.concatenate([grid(t=t) for t in range(0, 100, 10)])
    N, pixels = len(events), len(grid())
    drop = ev.EventDrop(time_ratio=0.25, area_ratio=0.25, event_ratio=0.3, sensor_size=SIZE)
    kinds = []
    for seed in range(400):
        kept = drop(events, rng(seed))
        per_instant = {len(kept[kept["t"] == t]) for t in range(0, 100, 10)}
        if len(kept) == N:
            kinds.append("nothing")
        elif per_instant == {0, pixels}:
            kinds.append("time")
        elif len(per_instant) == 1:
            kinds.append("area")
        else:
            kinds.append("events")
            assert len(kept) == N - int(0.3 * N)
    assert all(70 < kinds.count(kind) < 135 for kind in ("nothing", "time", "area", "events"))


def test_event_drop_never_drops_everything():
    drop = ev.EventDrop(time_ratio=1.0, area_ratio=1.0, event_ratio=1.0, sensor_size=(1, 1))
    events = ev.make_events([5, 6, 7], [0] * 3, [0] * 3, [1] * 3)
    assert all(len(drop(events, rng(seed))) > 0 for seed in range(50))


# ------------------------------------------------------------ places


def test_a_flip_mirrors_columns_and_twice_is_nothing():
    events = make(100)
    flip = ev.HorizontalFlip(1.0, SIZE)
    mirrored = flip(events, rng())
    assert mirrored["x"].tolist() == [29 - x for x in events["x"].tolist()]
    for name in "typ":
        np.testing.assert_array_equal(mirrored[name], events[name])
    np.testing.assert_array_equal(flip(mirrored, rng()), events)
    np.testing.assert_array_equal(ev.HorizontalFlip(0.0, SIZE)(events, rng()), events)
    flips = sum(not np.array_equal(ev.HorizontalFlip(0.3, SIZE)(events, rng(seed)), events) for seed in range(400))
    assert 80 < flips < 160


@pytest.mark.parametrize("seed", range(5))
def test_a_shift_moves_all_alike_and_drops_what_leaves(seed):
    kept = ev.Shift(6, SIZE)(grid(), rng(seed))
    right, down = np.random.default_rng(seed).integers(-6, 6, 2, endpoint=True)
    assert len(kept) == (24 - abs(down)) * (30 - abs(right))
    event = ev.make_events([0], [15], [12], [1])
    assert ev.Shift(6, SIZE)(event, rng(seed)).tolist() == [(0, 15 + right, 12 + down, True)]


@pytest.mark.parametrize("seed", range(5))
def test_a_roll_is_that_of_numpy(seed):
    rolled = ev.Roll(6, SIZE)(make(300), rng(seed))
    assert len(rolled) == 300
    before, after = (ev.to_frames(e, ev.FixedNumber(1), SIZE)[0] for e in (make(300), rolled))
    right, down = np.random.default_rng(seed).integers(-6, 6, 2, endpoint=True)
    np.testing.assert_array_equal(after, np.roll(before, (down, right), (1, 2)))


def test_shifts_reach_all_their_pixels():
    event = ev.make_events([0], [15], [12], [1])
    seen = {tuple(ev.Shift(1, SIZE)(event, rng(seed))[["x", "y"]].tolist()[0]) for seed in range(200)}
    assert seen == {(x, y) for x in (14, 15, 16) for y in (11, 12, 13)}


def test_spatial_jitter_is_normal_and_of_every_event_on_its_own():
    events = ev.make_events(range(5000), [500] * 5000, [500] * 5000, [1] * 5000)
    jittered = ev.SpatialJitter(3.0, (1000, 1000))(events, rng())
    for name in "xy":
        moved = jittered[name].astype(float) - 500
        assert abs(moved.mean()) < 0.15
        assert moved.std() == pytest.approx(3.0, rel=0.05)
    assert abs(np.corrcoef(jittered["x"], jittered["y"])[0, 1]) < 0.05
    np.testing.assert_array_equal(ev.SpatialJitter(0.0, SIZE)(make(10), rng()), make(10))
    edge = ev.make_events([0] * 100, [0] * 100, [0] * 100, [1] * 100)
    assert 10 < len(ev.SpatialJitter(1.0, SIZE)(edge, rng())) < 70, "what leaves is dropped, never wrapped"


@pytest.mark.parametrize("seed", range(6))
def test_cut_out_removes_the_same_square_at_all_times(seed):
    events = np.concatenate([grid(t=0), grid(t=1)])
    kept = ev.CutOut(7, SIZE)(events, rng(seed))
    first, second = kept[kept["t"] == 0], kept[kept["t"] == 1]
    assert first[["x", "y"]].tolist() == second[["x", "y"]].tolist()
    top, bottom, left, right = rectangle(rng(seed), SIZE, 7, 7)
    assert 16 <= (bottom - top) * (right - left) == len(grid()) - len(first) <= 49


@pytest.mark.parametrize("seed", range(6))
def test_rotation_is_a_product_of_complex_numbers(seed):
    size = (41, 51)
    turned = ev.Rotate(80.0, size)(make(500, size=size), rng(seed))
    draws = np.random.default_rng(seed)
    angle = np.deg2rad(draws.uniform(-80, 80))
    events, (right, down) = make(500, size=size), draws.uniform(-0.5, 0.5, (2, 500))
    # rows run down: the imaginary axis points up
    place = ((events["x"] + right - 25.0) - 1j * (events["y"] + down - 20.0)) * np.exp(1j * angle)
    x, y = np.rint(place.real + 25), np.rint(20 - place.imag)
    inside = (x >= 0) & (x < 51) & (y >= 0) & (y < 41)
    assert turned["x"].tolist() == x[inside].tolist()
    assert turned["y"].tolist() == y[inside].tolist()
    assert 0 < inside.sum() < 500


@pytest.mark.parametrize("seed", range(6))
def test_shear_moves_rows_along_themselves(seed):
    size = (41, 61)
    events = ev.make_events([0] * 41, [30] * 41, range(41), [1] * 41)
    slanted = ev.Shear(30.0, size)(events, rng(seed))
    draws = np.random.default_rng(seed)
    slope = np.tan(np.deg2rad(draws.uniform(-30, 30)))
    right, down = draws.uniform(-0.5, 0.5, (2, 41))
    assert slanted["y"].tolist() == list(range(41))
    assert slanted["x"].tolist() == [round(30 + right[y] + slope * (y + down[y] - 20)) for y in range(41)]


def test_a_rotated_picture_has_no_holes():
    many = np.concatenate([grid((41, 41), t) for t in range(40)])
    turned = ev.to_frames(ev.Rotate(60.0, (41, 41))(many, rng(3)), ev.FixedNumber(1), (41, 41))[0, 1]
    y, x = np.indices((41, 41)) - 20
    inner = turned[x**2 + y**2 < 18**2].astype(float)
    assert inner.min() > 15
    assert inner.mean() == pytest.approx(40, rel=0.02)


@pytest.mark.parametrize(
    ("magnitude", "size", "expected"),
    [
        (1, (48, 48), (3, 15.0, 8, 15.0)),
        (2, (48, 48), (5, 30.0, 16, 30.0)),
        (3, (48, 48), (7, 45.0, 24, 45.0)),
        (1, (128, 96), (8, 15.0, 21, 15.0)),
        (1, (8, 8), (1, 15.0, 1, 15.0)),
    ],
)
def test_magnitudes_of_nda(magnitude, size, expected):
    assert nda_magnitudes(magnitude, size) == expected


def test_nda_does_so_many_different_things():
    events, size = grid((48, 48)), (48, 48)
    nothing = [ev.NDA(1, 4, flip=False, sensor_size=size)(events, rng(seed)) for seed in range(20)]
    assert all(len(kept) < len(events) for kept in nothing), "all four leave gaps or a hole"
    once = [ev.NDA(1, 1, flip=False, sensor_size=size)(events, rng(seed)) for seed in range(200)]
    whole = sum(len(kept) == len(events) for kept in once)
    assert 30 < whole < 75, "one in four rolls, which loses nothing"
    left = ev.make_events([0], [10], [24], [1])
    for flip, low, high in ((True, 30, 70), (False, 0, 0)):
        augmented = [ev.NDA(flip=flip, sensor_size=size)(left, rng(seed)) for seed in range(100)]
        assert low <= sum(bool((kept["x"] > 24).any()) for kept in augmented) <= high


# ------------------------------------------------------------ time and polarity


def test_time_jitter_is_normal_and_keeps_events_whole():
    events = ev.make_events(np.arange(5000) * 10, np.arange(5000) % 30, np.arange(5000) // 30 % 24, [1] * 5000)
    events["x"], events["y"] = np.arange(5000) % 65536, 0
    jittered = ev.TimeJitter(200.0)(events, rng())
    assert sorted(jittered["x"].tolist()) == events["x"].tolist()
    moved = jittered["t"] - jittered["x"].astype(np.int64) * 10
    assert moved.std() == pytest.approx(200, rel=0.05)
    assert abs(moved.mean()) < 10
    np.testing.assert_array_equal(ev.TimeJitter(0.0)(events, rng()), events)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_time_scale_keeps_the_beginning_and_multiplies_durations(factor):
    events = make(100)
    scaled = ev.TimeScale(factor)(events, rng())
    first = int(events["t"][0])
    assert scaled["t"].tolist() == [first + round((t - first) * factor) for t in events["t"].tolist()]
    for name in "xyp":
        np.testing.assert_array_equal(scaled[name], events[name])


def test_polarity_flips_of_the_recording_and_of_every_event():
    events = make(2000)
    np.testing.assert_array_equal(ev.PolarityFlip(1.0)(events, rng())["p"], ~events["p"])
    whole = {int((ev.PolarityFlip(0.5)(events, rng(seed))["p"] != events["p"]).sum()) for seed in range(20)}
    assert whole == {0, 2000}
    each = (ev.PolarityFlip(0.2, each=True)(events, rng())["p"] != events["p"]).mean()
    assert 0.16 < each < 0.24


# ------------------------------------------------------------ of others


def test_one_of_and_with_probability_draw_as_they_say():
    events = make(100)
    lengths = [
        len(ev.OneOf([ev.DropEvents(0.1), ev.DropEvents(0.5), ev.DropEvents(0.9)])(events, rng(seed)))
        for seed in range(300)
    ]
    assert all(70 < lengths.count(n) < 130 for n in (90, 50, 10))
    lengths = [len(ev.WithProbability(ev.DropEvents(0.5), 0.2)(events, rng(seed))) for seed in range(300)]
    assert 35 < lengths.count(50) < 90
    assert lengths.count(50) + lengths.count(100) == 300


# ------------------------------------------------------------ EventMix


def test_a_mix_of_a_recording_with_itself_is_that_recording():
    events = make(500)
    mix = ev.EventMix(sensor_size=SIZE)
    for seed in range(20):
        mixed, share = mix(events, events, rng(seed))
        assert sorted(mixed.tolist()) == sorted(events.tolist()), "mask and rest leave nothing out and nothing twice"
        assert 0 <= share <= 1


def test_the_label_of_a_mix_is_in_proportion_to_what_is_left_of_either():
    first, other = make(400), make(1000, seed=1)
    first["p"], other["p"] = True, False
    shares = []
    for seed in range(100):
        mixed, share = ev.EventMix(sensor_size=SIZE)(first, other, rng(seed))
        kept = mixed["p"].sum() / 400
        taken = (~mixed["p"]).sum() / 1000
        assert share == pytest.approx(kept / (kept + taken))
        shares.append(share)
    assert 0.4 < np.mean(shares) < 0.6
    assert np.std(shares) > 0.2, "alpha=1: every share is as likely"
    narrow = [ev.EventMix(alpha=100.0, sensor_size=SIZE)(first, other, rng(seed))[1] for seed in range(50)]
    assert np.std(narrow) < 0.1


def test_regions_of_a_mix_are_connected_in_space_and_time_not_noise():
    first, other = make(4000), make(4000, seed=1)
    first["p"], other["p"] = True, False
    mixed, share = ev.EventMix(sensor_size=SIZE)(first, other, rng(2))
    assert 0.2 < share < 0.8
    frames = ev.to_frames(mixed, ev.FixedNumber(4, "time"), SIZE).astype(float)
    blocks = frames.reshape(4, 2, 6, 4, 6, 5).sum((3, 5))
    of_first = blocks[:, 1] / blocks.sum(1)
    assert (np.abs(of_first - 0.5) > 0.4).mean() > 0.5, "most blocks are of one recording"


def test_recordings_of_a_mix_begin_together():
    first, other = ev.make_events([1000, 1010], [0, 1], [0, 0], [1, 1]), make(200)
    for seed in range(20):
        mixed, _ = ev.EventMix(sensor_size=SIZE)(first, other, rng(seed))
        assert len(mixed) == 0 or 1000 <= mixed["t"].min() <= mixed["t"].max() <= 1000 + 10_000


def test_nothing_is_mixed_without_luck_or_without_events():
    first, none = make(50), make(0)
    for mix, pair in (
        (ev.EventMix(p=0.0, sensor_size=SIZE), (first, make(60, 1))),
        (ev.EventMix(sensor_size=SIZE), (first, none)),
    ):
        mixed, share = mix(*pair, rng())
        np.testing.assert_array_equal(mixed, first)
        assert share == 1.0
    with pytest.raises(ConfigError, match="needs the size of the sensor"):
        ev.EventMix()(first, first, rng())
    assert ev.EventMix().for_sensor(SIZE) == ev.EventMix(sensor_size=SIZE)
    assert pickle.loads(pickle.dumps(ev.EventMix())) == ev.EventMix() != ev.EventMix(2.0)


# ------------------------------------------------------------ parameters


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: ev.DropTime((0.5, 0.1)), InputError, "ratio must be two numbers from 0 to 1, the smaller first"),
        (lambda: ev.DropEvents(1.1), InputError, "ratio must be two numbers from 0 to 1"),
        (lambda: ev.DropArea([0.1]), InputTypeError, "ratio must be two numbers, the least and the most"),
        (lambda: ev.DropArea("ab"), InputTypeError, "ratio must be two numbers, the least and the most"),
        (lambda: ev.DropArea(sensor_size=(0, 3)), InputError, "sensor_size must be two integers"),
        (lambda: ev.EventDrop(area_ratio=2), InputError, "area_ratio must be two numbers"),
        (lambda: ev.HorizontalFlip(1.5), InputError, "p must be a probability"),
        (lambda: ev.HorizontalFlip("1"), InputTypeError, "p must be a number; got '1'"),
        (lambda: ev.Shift(-1), InputError, "pixels must be at least 0; got -1"),
        (lambda: ev.Roll(1.5), InputTypeError, "pixels must be an integer"),
        (lambda: ev.CutOut(0), InputError, "side must be at least 1"),
        (lambda: ev.Rotate(float("inf")), InputError, "degrees must be finite, at least 0; got inf"),
        (lambda: ev.Shear(90.0), InputError, "degrees must be finite, at most 89; got 90"),
        (lambda: ev.SpatialJitter(-1.0), InputError, "std must be finite, at least 0"),
        (lambda: ev.TimeJitter(float("nan")), InputError, "std must be finite"),
        (lambda: ev.TimeScale(0.0), InputError, "factor must be two numbers from 0.001 to 1000.0"),
        (lambda: ev.NDA(4), InputError, "magnitude must be from 1 to 3; got 4"),
        (lambda: ev.NDA(number=5), InputError, "number must be from 1 to 4; got 5"),
        (lambda: ev.OneOf([]), InputError, "augmentations must hold at least one EventTransform"),
        (lambda: ev.OneOf([len]), InputTypeError, "augmentations must hold objects of EventTransform"),
        (lambda: ev.OneOf(ev.DropTime()), InputTypeError, "augmentations must be a list of objects of EventTransform"),
        (lambda: ev.WithProbability(ev.DropTime, 0.5), InputTypeError, "augmentation must hold objects of"),
        (lambda: ev.EventMix(alpha=0), InputError, "alpha must be finite, above 0; got 0"),
    ],
)
def test_parameters_are_checked_when_they_are_given(build, error, message):
    with pytest.raises(error, match=re.escape(message)):
        build()


def test_transforms_are_named_in_yaml():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--transforms", type=list[ev.EventTransform])
    config = parser.parse_string(
        "transforms:\n"
        "- class_path: DropTime\n"
        "  init_args: {ratio: [0.1, 0.2]}\n"
        "- class_path: jellyfit.events.OneOf\n"
        "  init_args: {augmentations: [{class_path: Roll, init_args: {pixels: 2}}, {class_path: Rotate}]}\n"
    )
    make_objects = getattr(parser, "instantiate", None) or parser.instantiate_classes
    assert make_objects(config).transforms == [ev.DropTime((0.1, 0.2)), ev.OneOf([ev.Roll(2), ev.Rotate()])]
