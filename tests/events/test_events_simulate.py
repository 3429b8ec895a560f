import pickle
import re

import numpy as np
import pytest
from sklearn.datasets import load_digits

from jellyfit import events as ev
from jellyfit.errors import InputError, InputTypeError

EPS = 0.1


def video_of(levels):
    """A video whose log intensity, log(I + eps), follows ``levels`` [K] or [K, H, W], all at least log(eps)."""
    levels = np.asarray(levels, float)
    return np.exp(levels.reshape(len(levels), *(levels.shape[1:] or (1, 1)))) - EPS


def one_pixel(levels, times, on, off, refractory):
    """One pixel by the definition: walk along each segment to the next crossing, one event after the other."""
    reference, last, events = levels[0], None, []
    for k in range(len(levels) - 1):
        start, end = levels[k], levels[k + 1]
        while True:
            if end >= reference + on:
                reference, polarity = reference + on, True
            elif end <= reference - off:
                reference, polarity = reference - off, False
            else:
                break
            t = round(times[k] + (reference - start) / (end - start) * (times[k + 1] - times[k]))
            if last is None or t - last >= refractory:
                events.append((t, polarity))
                last = t
    return events


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("change", "count"), [(0.19, 0), (0.2, 1), (0.21, 1), (0.6, 3), (1.1, 5), (1.4, 7), (2.0, 10)])
def test_a_ramp_gives_floor_of_change_by_threshold_at_the_predicted_times(sign, change, count):
    e = ev.DVSSimulator().simulate(video_of([0, sign * change]), [1000, 101_000])
    assert e["t"].tolist() == [1000 + round((i + 1) * 0.2 / change * 100_000) for i in range(count)]
    assert (e["p"] == (sign > 0)).all()


def test_thresholds_are_per_polarity():
    sim = ev.DVSSimulator(threshold_on=0.5, threshold_off=0.1)
    e = sim.simulate(video_of([0, 1.05, 0.35]), [0, 1000, 2000])
    assert e["p"].tolist() == [True] * 2 + [False] * 6


def test_the_level_moves_by_one_threshold_per_event():
    # up by 0.5: ON at 0.2 and 0.4, the level stays at 0.4; down to -0.05: OFF at 0.2 and 0.0.
    e = ev.DVSSimulator().simulate(video_of([0, 0.5, -0.05]), [0, 500, 1050])
    assert list(zip(e["t"].tolist(), e["p"].tolist(), strict=True)) == [(200, 1), (400, 1), (800, 0), (1000, 0)]


def test_more_video_frames_of_the_same_ramp_change_nothing():
    fine = ev.DVSSimulator().simulate(video_of(np.linspace(0, 1.5, 31)), np.arange(31) * 1000)
    coarse = ev.DVSSimulator().simulate(video_of([0, 1.5]), [0, 30_000])
    assert len(fine) == len(coarse) == 7
    assert np.abs(fine["t"] - coarse["t"]).max() <= 1


@pytest.mark.parametrize("refractory", [0, 1, 400, 2500])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_pixel_is_the_pixel_of_the_definition(seed, refractory):
    random = np.random.default_rng(seed)
    levels = np.cumsum(random.normal(0, 0.4, (25, 3, 5)), axis=0)
    levels += np.log(EPS) - levels.min()
    times = np.cumsum(random.integers(500, 1500, 25))
    sim = ev.DVSSimulator(0.17, 0.23, refractory=refractory)
    e = sim.simulate(video_of(levels), times)
    assert (np.diff(e["t"]) >= 0).all()
    for y in range(3):
        for x in range(5):
            mine = e[(e["x"] == x) & (e["y"] == y)]
            expected = one_pixel(levels[:, y, x], times, 0.17, 0.23, refractory)
            assert list(zip(mine["t"].tolist(), mine["p"].tolist(), strict=True)) == expected


def test_the_refractory_period_suppresses_events():
    ramp, times = video_of([0, 1.1]), [0, 55_000]  # an event every 10,000 µs
    assert ev.DVSSimulator(refractory=10_000).simulate(ramp, times)["t"].tolist() == [10000, 20000, 30000, 40000, 50000]
    assert ev.DVSSimulator(refractory=10_001).simulate(ramp, times)["t"].tolist() == [10000, 30000, 50000]
    assert ev.DVSSimulator(refractory=10**9).simulate(ramp, times)["t"].tolist() == [10000]


def test_the_order_of_events_at_one_time_is_by_row_and_column():
    levels = np.zeros((2, 3, 4))
    levels[1] = 0.3
    e = ev.DVSSimulator().simulate(video_of(levels), [0, 300])
    assert list(zip(e["y"].tolist(), e["x"].tolist(), strict=True)) == [(y, x) for y in range(3) for x in range(4)]


def test_a_still_video_gives_no_events():
    for options in ({}, {"refractory": 100}, {"threshold_std": 0.1}):
        assert len(ev.DVSSimulator(**options).simulate(np.full((5, 4, 4), 0.3), np.arange(5))) == 0


def test_noise_has_its_rate_on_every_pixel_and_both_polarities():
    still = np.full((2, 34, 34), 0.5)
    e = ev.DVSSimulator(noise_rate=2.0).simulate(still, [0, 10_000_000])
    expected = 2.0 * 10 * 34 * 34
    assert abs(len(e) - expected) < 5 * np.sqrt(expected)
    assert abs(e["p"].mean() - 0.5) < 0.02
    per_pixel = np.bincount(e["y"].astype(int) * 34 + e["x"], minlength=34 * 34)
    assert abs(per_pixel.var() / per_pixel.mean() - 1) < 0.25  # Poisson
    assert abs(e["t"].mean() / 5_000_000 - 1) < 0.02


def test_noise_is_the_same_for_a_seed_and_differs_between_samples():
    video, times = np.random.default_rng(0).random((20, 8, 8)), np.arange(20) * 5000
    sim = ev.DVSSimulator(noise_rate=50.0, threshold_std=0.03, refractory=300, seed=3)
    alone = sim.simulate(video, times, sample=5)
    for other in range(5):
        sim.simulate(video, times, sample=other)
    np.testing.assert_array_equal(sim.simulate(video, times, sample=5), alone)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(sim)).simulate(video, times, sample=5), alone)
    assert not np.array_equal(sim.simulate(video, times, sample=6), alone)


def test_mismatch_is_a_pattern_of_the_camera():
    ramp = video_of([np.zeros((20, 20)), np.full((20, 20), 3.0)])
    sim = ev.DVSSimulator(threshold_std=0.03, seed=1)
    first, second = sim.simulate(ramp, [0, 1000]), sim.simulate(ramp, [0, 1000], sample=9)
    np.testing.assert_array_equal(first, second)
    per_pixel = np.bincount(first["y"].astype(int) * 20 + first["x"])
    assert 10 <= per_pixel.min() < 14 < 16 < per_pixel.max() <= 40
    other = ev.DVSSimulator(threshold_std=0.03, seed=2).simulate(ramp, [0, 1000])
    assert len(other) != len(first)
    wild = ev.DVSSimulator(threshold_std=5.0).simulate(ramp, [0, 1000])
    assert wild["p"].all()  # thresholds stay above 0.01
    assert len(wild) <= 300 * 400


def test_leak_sends_on_events_at_its_rate():
    e = ev.DVSSimulator(leak_rate=2.0).simulate(np.full((2, 1, 1), 0.2), [0, 1_100_000])
    assert e["t"].tolist() == [500_000, 1_000_000]
    assert e["p"].all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"threshold_on": 0.0}, InputError, "threshold_on must be finite and above 0; got 0.0"),
        ({"threshold_off": -1}, InputError, "threshold_off"),
        ({"threshold_std": float("nan")}, InputError, "threshold_std"),
        ({"refractory": -1}, InputError, "refractory must be at least 0"),
        ({"refractory": 0.5}, InputTypeError, "refractory must be an integer"),
        ({"noise_rate": float("inf")}, InputError, "noise_rate"),
        ({"eps": 0}, InputError, "eps"),
        ({"seed": -1}, InputError, "seed"),
        ({"leak_rate": "1"}, InputTypeError, "leak_rate must be a number"),
    ],
)
def test_parameters_of_the_camera_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        ev.DVSSimulator(**options)


@pytest.mark.parametrize(
    ("video", "times", "error", "message"),
    [
        (np.full((2, 3, 3), np.nan), [0, 1], InputError, r"18 of 18 values .* nan at [0, 0, 0]"),
        ([[[0.1]], [[-0.5]]], [0, 1], InputError, "1 of 2 values are not, the first is -0.5 at [1, 0, 0]"),
        (np.full((2, 3, 3), np.inf), [0, 1], InputError, "finite"),
        (np.ones((3, 2, 2)), [0, 5, 5], InputError, "frame 2 at 5 µs follows frame 1 at 5 µs (1 such places)"),
        (np.ones((3, 2, 2)), [0, 5], InputError, "times of shape [2]"),
        (np.ones((1, 2, 2)), [0], InputError, "at least two"),
        (np.ones((2, 2)), [0, 1], InputError, "[K, H, W]"),
        (np.ones((2, 0, 2)), [0, 1], InputError, "[2, 0, 2]"),
        (np.ones((2, 2, 2)), [0.0, 0.1], InputTypeError, "np.rint(seconds * 1e6)"),
        (np.ones((2, 2, 2), complex), [0, 1], InputTypeError, "complex128"),
    ],
)
def test_videos_are_checked(video, times, error, message):
    pattern = ".*".join(re.escape(part) for part in message.split(" .* "))
    with pytest.raises(error, match=pattern):
        ev.DVSSimulator().simulate(video, times)


def centre(frame):
    y, x = np.indices(frame.shape)
    return np.array([(frame * y).sum(), (frame * x).sum()]) / frame.sum()


def test_three_saccades_go_along_an_isosceles_triangle_and_return():
    spot = np.zeros((5, 5))
    spot[2, 2] = 1.0
    video, times = ev.three_saccades(spot, (21, 25), zoom=1.0, amplitude=6.0, steps=10)
    np.testing.assert_array_equal(video[0], video[-1])
    middle = np.array([10.0, 12.0])
    corners = [[-3, -3], [3, 0], [-3, 3], [-3, -3]]
    for k, corner in zip((0, 10, 20, 30), corners, strict=True):
        np.testing.assert_allclose(centre(video[k]) - middle, corner, atol=1e-9)
    np.testing.assert_allclose(centre(video[15]) - middle, [0, 1.5], atol=1e-9)  # half way along the second side
    assert times[[0, 10, 20, 30]].tolist() == [0, 100_000, 200_000, 300_000]


def test_shifts_are_exact_for_whole_pixels_and_bilinear_between():
    image = np.random.default_rng(0).random((6, 6))
    video, _ = ev.three_saccades(image, (12, 12), zoom=1.0, amplitude=4.0, steps=2)
    np.testing.assert_allclose(video[0][1:7, 1:7], image)
    assert not video[0][7:].any()
    half = video[3]  # half way from (2, 0) to (-2, 2): (0, 1)
    np.testing.assert_allclose(half[3:9, 4:10], image)
    video, _ = ev.three_saccades(image, (12, 12), zoom=1.0, amplitude=1.0, steps=1)
    np.testing.assert_allclose(video[1][4:9, 3:9], (image[1:] + image[:-1]) / 2)
    np.testing.assert_allclose(video[1].sum(), image.sum())


def test_a_zoom_by_a_whole_number_keeps_the_light_per_area():
    image = np.random.default_rng(0).random((8, 8))
    video, _ = ev.three_saccades(image, zoom=3.0, steps=5)
    np.testing.assert_allclose(video.sum(axis=(1, 2)), 9 * image.sum())
    assert video.shape == (16, 34, 34)


@pytest.mark.parametrize(
    ("image", "options", "error", "message"),
    [
        (np.ones((8, 8)), {"zoom": 4.0}, InputError, "needs 36 x 36 camera pixels; size is 34 x 34"),
        (np.ones((8, 8)), {"zoom": 0}, InputError, "zoom must be finite and above 0"),
        (np.ones((8, 8)), {"amplitude": -1}, InputError, "amplitude"),
        (np.ones((8, 8)), {"steps": 0}, InputError, "steps must be at least 1"),
        (np.ones((8, 8)), {"steps": 100, "duration": 299}, InputError, "duration at least 1 µs"),
        (np.ones((8, 8)), {"size": (34,)}, InputError, "sensor_size"),
        (np.ones((8, 8, 3)), {}, InputError, "[h, w]"),
        (-np.ones((8, 8)), {}, InputError, "64 of 64 values"),
        ([["a"]], {}, InputTypeError, "array of numbers"),
    ],
)
def test_pictures_are_checked(image, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        ev.three_saccades(image, **options)


def test_a_digit_makes_as_many_events_as_an_event_camera_would():
    counts = []
    for sample, image in enumerate(load_digits().images[:20]):
        e = ev.DVSSimulator().simulate(*ev.three_saccades(image / 16), sample=sample)
        ev.check_events(e, (34, 34))
        assert 0 <= e["t"].min() <= e["t"].max() <= 300_000
        assert abs(e["p"].mean() - 0.5) < 0.05  # the picture comes back to where it was
        counts.append(len(e))
    assert 5000 < np.mean(counts) < 8000
    assert e.dtype == ev.EVENT_DTYPE
