import itertools
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from jellyfit import pictures
from jellyfit.errors import InputError, InputTypeError
from jellyfit.pictures.style import BLUE, VERMILLION

LONG = "backbone.stages.3.blocks.11.shortcut.convolution.normalisation.neuron"
EPOCHS = [{"epoch": float(e), "train/loss": 3.0 - 0.2 * e, "val/accuracy": 0.1 * e} for e in range(6)]


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def binary(T: int, n: int, rate: float = 0.1) -> np.ndarray:
    return (random().random((T, n)) < rate).astype(np.float32)


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def right_title(axes) -> str:
    return axes.get_title(loc="right")


def marks(axes) -> LineCollection:
    (collection,) = axes.collections
    assert isinstance(collection, LineCollection)
    return collection


def lines(axes) -> dict[str, tuple[list[float], list[float]]]:
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


def repeated(n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.arange(1, 6) * 1000, np.arange(5.0) * (1 + seed)) for seed in range(n)]


# Every figure


FIGURES = {
    "raster": lambda: pictures.spike_raster({"conv.neuron": binary(10, 300), LONG: np.zeros((10, 3))}, title="Spikes"),
    "raster of 20 layers": lambda: pictures.spike_raster({f"layer.{i}": binary(8, 20) for i in range(20)}),
    "raster of one neuron": lambda: pictures.spike_raster({"out": np.ones((1, 1))}),
    "rates": lambda: pictures.firing_rates({LONG: 0.7, "b": 0.0, "c": 0.2}, title="A title " * 30),
    "all silent": lambda: pictures.firing_rates({"a": 0.0}),
    "frames": lambda: pictures.event_frames(random().poisson(0.1, (16, 2, 34, 34)), label=7, title="Sample"),
    "one frame": lambda: pictures.event_frames(np.ones((1, 2, 5, 40)), label="a class with a very long name " * 3),
    "tall frames": lambda: pictures.event_frames(np.ones((7, 2, 60, 4))),
    "curves": lambda: pictures.learning_curves([*EPOCHS, {"epoch": 6, "test/accuracy": 0.512345}], title="Run"),
    "curves of 30 layers": lambda: pictures.learning_curves(
        [{"epoch": e, **{f"firing_rate/{LONG}{i}": 0.01 * i for i in range(30)}} for e in range(3)],
        groups=["firing_rate"],
    ),
    "means": lambda: pictures.mean_curves({LONG: repeated(4), "b": repeated(1)}, title="Return"),
    "matrix": lambda: pictures.confusion_matrix(random().poisson(9, (11, 11)), [f"{LONG}{i}" for i in range(11)]),
    "matrix of 2": lambda: pictures.confusion_matrix(np.eye(2), ["no", "yes"], title="Test"),
    "matrix of 40": lambda: pictures.confusion_matrix(np.eye(40), [f"class number {i}" for i in range(40)]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_lies_outside_the_figure(name):
    figure = FIGURES[name]()
    pictures.to_array(figure)  # lays the figure out
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 >= -0.01
    assert box.y0 >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= height + 0.01


@pytest.mark.parametrize("name", ["raster", "rates", "frames", "curves", "means", "matrix of 2"])
def test_the_title_is_written_only_when_given(name):
    assert FIGURES[name]()._suptitle.get_text()
    assert pictures.firing_rates({"a": 0.1})._suptitle is None


def test_matplotlib_settings_are_left_alone_and_a_usual_dark_style_does_not_leak_in():
    with matplotlib.rc_context({"axes.facecolor": "black", "text.usetex": True, "image.origin": "lower"}):
        before = dict(matplotlib.rcParams)
        figure = pictures.confusion_matrix(np.array([[3, 0], [1, 2]]), ["$a", "b$"])
        pictures.to_array(figure)
        assert dict(matplotlib.rcParams) == before
    axes = figure.axes[0]
    assert axes.get_facecolor() == (1, 1, 1, 1)
    assert axes.get_ylim() == (1.5, -0.5)  # the first class is on top
    assert [label.get_text() for label in axes.get_yticklabels()] == ["$a", "b$"]


def test_a_dollar_in_a_name_is_not_read_as_a_formula():
    pictures.to_array(pictures.spike_raster({r"a$\frac$": np.ones((2, 2))}, title="$x_"))


def test_neither_pyplot_nor_a_display_is_needed_and_the_import_is_light(tmp_path):
    code = """
import sys
import jellyfit.pictures as pictures
assert "matplotlib" not in sys.modules, "matplotlib is imported before it is needed"
import numpy as np
ones = np.ones((3, 2, 4, 4))
figures = [
    pictures.spike_raster({"a": ones[:, 0, 0]}), pictures.firing_rates({"a": 0.1}), pictures.event_frames(ones),
    pictures.learning_curves([{"epoch": 0, "val/loss": 1.0}]), pictures.confusion_matrix(np.eye(3)),
    pictures.mean_curves({"a": [([1, 2], [1, 2]), ([1, 2], [2, 2])]}),
]
for index, figure in enumerate(figures):
    pictures.save(figure, f"{sys.argv[1]}/{index}.png", dpi=40)
    pictures.to_array(figure, dpi=40)
assert "matplotlib.pyplot" not in sys.modules
"""
    bare = {k: v for k, v in os.environ.items() if k not in {"DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND"}}
    root = Path(__file__).parents[1]
    call = [sys.executable, "-W", "error", "-c", code, str(tmp_path)]
    result = subprocess.run(call, env=bare, cwd=root, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.iterdir())) == 6


def test_all_names_what_is_public():
    public = {name for name, value in vars(pictures).items() if callable(value) and not name.startswith("_")}
    assert public == set(pictures.__all__)
    assert list(pictures.__all__) == sorted(pictures.__all__)
    assert all(getattr(pictures, name).__doc__ for name in pictures.__all__)


# spike_raster


def test_raster_has_a_panel_for_each_layer_and_a_mark_for_each_spike():
    layers = {"conv1": binary(10, 40), "conv2": binary(10, 7, 0.5), "out": np.ones((10, 1), bool)}
    figure = pictures.spike_raster(layers)
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(layers)
    for axes, spikes in zip(figure.axes, layers.values(), strict=True):
        assert len(marks(axes).get_segments()) == np.count_nonzero(spikes)


def test_raster_marks_stand_at_their_step_and_neuron():
    spikes = np.zeros((5, 4))
    spikes[1, 3] = spikes[4, 0] = 1
    centres = [
        segment.mean(axis=0).tolist() for segment in marks(pictures.spike_raster({"a": spikes}).axes[0]).get_segments()
    ]
    assert centres == [[1, 3], [4, 0]]


def test_raster_label_has_neurons_and_rate():
    spikes = np.zeros((4, 5))
    spikes[0] = 1
    assert right_title(pictures.spike_raster({"a": spikes}).axes[0]) == "5 neurons · rate 0.25"
    assert right_title(pictures.spike_raster({"a": spikes[:, :1]}).axes[0]) == "1 neuron · rate 0.25"


def test_raster_leaves_out_neurons_evenly_and_says_so():
    spikes = np.zeros((3, 1001))
    spikes[:, ::2] = 1
    axes = pictures.spike_raster({"a": spikes}, max_neurons=11).axes[0]
    drawn = sorted({segment.mean(axis=0)[1] for segment in marks(axes).get_segments()})
    assert drawn == list(range(0, 1001, 100))
    assert right_title(axes) == "11 of 1,001 neurons drawn · rate 0.5"  # 501 / 1001, over all neurons


def test_raster_keeps_a_silent_layer():
    quiet, loud = pictures.spike_raster({"quiet": np.zeros((6, 3)), "loud": np.ones((6, 3))}).axes
    assert texts(quiet) == ["silent"]
    assert texts(loud) == []
    assert len(marks(quiet).get_segments()) == 0
    assert right_title(quiet) == "3 neurons · rate 0"


def test_raster_does_not_call_a_layer_silent_whose_spikes_were_left_out():
    spikes = np.zeros((2, 100))
    spikes[0, 50] = 1
    axes = pictures.spike_raster({"a": spikes}, max_neurons=2).axes[0]
    assert len(marks(axes).get_segments()) == 0
    assert texts(axes) == []


def test_raster_draws_smaller_values_shorter_and_paler_and_negative_ones_in_another_colour():
    axes = pictures.spike_raster({"a": np.array([[3.0, 1.0, -1.0, 0.0]])}).axes[0]
    large, small, negative = marks(axes).get_segments()
    assert np.ptp(large[:, 1]) > np.ptp(small[:, 1])
    colours = marks(axes).get_colors()
    assert colours[0, 3] == 1
    assert colours[1, 3] == colours[2, 3] < 1
    assert tuple(colours[0, :3]) == to_rgb(BLUE)
    assert tuple(colours[2, :3]) == to_rgb(VERMILLION)
    assert np.ptp(negative[:, 1]) == pytest.approx(np.ptp(small[:, 1]))
    assert right_title(axes) == "4 neurons · rate 0.75 · values -1 to 3"


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float32])
def test_raster_takes_any_real_dtype(dtype):
    spikes = binary(5, 9, 0.4).astype(dtype)
    axes = pictures.spike_raster({"a": spikes}).axes[0]
    assert len(marks(axes).get_segments()) == np.count_nonzero(spikes)


def test_raster_grows_with_the_number_of_layers_but_stays_a_page():
    few = pictures.spike_raster({str(i): binary(4, 200) for i in range(2)}).get_size_inches()
    many = pictures.spike_raster({str(i): binary(4, 200) for i in range(20)}).get_size_inches()
    assert few[0] == many[0] == 10
    assert few[1] < many[1] < 30


@pytest.mark.parametrize(
    ("spikes", "message"),
    [
        ({}, "no layer"),
        ({"a": np.ones(3)}, r"spikes\['a'\]: got shape \[3\], expected \[T, n\]"),
        ({"a": np.ones((2, 3, 4))}, r"got shape \[2, 3, 4\]"),
        ({"a": np.ones((0, 3))}, "empty"),
        ({"a": np.array([[1.0, np.nan]])}, "1 of 2 values are NaN"),
        ({"a": np.ones((2, 3)), "b": np.ones((4, 3))}, r"time steps, \{'a': 2, 'b': 4\}"),
    ],
)
def test_raster_refuses_what_it_cannot_draw(spikes, message):
    with pytest.raises(InputError, match=message):
        pictures.spike_raster(spikes)


def test_raster_refuses_no_neurons_and_no_numbers():
    with pytest.raises(InputError, match="max_neurons: got 0"):
        pictures.spike_raster({"a": np.ones((2, 3))}, max_neurons=0)
    with pytest.raises(InputTypeError, match="got dtype"):
        pictures.spike_raster({"a": np.array([["x"]])})
    with pytest.raises(InputTypeError, match="cannot be read as a NumPy array"):
        pictures.spike_raster({"a": [[1, 2], [3]]})


# firing_rates


def test_bars_are_as_long_as_the_rates():
    rates = {"a": 0.1, "b": 0.0, "c": 0.75, "d": 2.5}
    axes = pictures.firing_rates(rates).axes[0]
    assert [bar.get_width() for bar in axes.patches] == list(rates.values())
    assert [label.get_text() for label in axes.get_yticklabels()] == list(rates)
    low, high = axes.get_ylim()
    assert low > high  # the first layer is on top


def test_rates_are_printed_with_what_is_wrong_with_them():
    axes = pictures.firing_rates({"a": 0.12345, "b": 0.0, "c": 0.75, "d": 0.5, "e": 1e-4}).axes[0]
    assert texts(axes) == ["0.123", "0 · silent", "0.75 · saturated", "0.5", "0.0001"]
    blue, red = to_rgb(BLUE), to_rgb(VERMILLION)
    assert [bar.get_facecolor()[:3] for bar in axes.patches] == [blue, blue, red, blue, blue]


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf")])
def test_rates_that_cannot_be_are_refused(rate):
    with pytest.raises(InputError, match=r"rates\['a'\]: got "):
        pictures.firing_rates({"a": rate})


def test_no_rates_are_refused():
    with pytest.raises(InputError, match="no layer"):
        pictures.firing_rates({})


# event frames


def test_event_colours():
    frame = np.zeros((2, 1, 4))
    frame[1, 0, 0] = 2  # ON
    frame[0, 0, 1] = 2  # OFF
    frame[:, 0, 2] = 2  # both
    image = pictures.event_frame_image(frame, scale=2)
    assert image.dtype == np.uint8
    assert image.tolist() == [[[0, 255, 0], [255, 0, 0], [255, 255, 0], [0, 0, 0]]]


def test_event_brightness_is_the_root_of_the_share_and_is_clipped():
    frame = np.array([[[1.0, 4.0, 99.0, -3.0]], [[0.0] * 4]])
    assert pictures.event_frame_image(frame, scale=4)[0, :, 0].tolist() == [128, 255, 255, 0]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.float16])
def test_event_frame_takes_any_real_dtype_and_keeps_the_shape(dtype):
    assert pictures.event_frame_image(np.ones((2, 3, 5), dtype), 1.0).shape == (3, 5, 3)


def test_frames_each_show_their_step_and_share_a_robust_scale():
    frames = np.zeros((4, 2, 10, 10))
    frames[:, 1] = 2
    frames[0, 1, 0, 0] = 1000  # a hot pixel
    figure = pictures.event_frames(frames, label="wave")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["step 0", "step 1", "step 2", "step 3"]
    for axes in figure.axes:
        assert (axes.images[0].get_array()[1:] == [0, 255, 0]).all()
    assert figure._supxlabel.get_text() == "label: wave · 4 steps · ON green, OFF red"


def test_frames_are_left_out_evenly():
    figure = pictures.event_frames(np.ones((41, 2, 3, 3)), max_frames=5)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [f"step {step}" for step in (0, 10, 20, 30, 40)]
    assert "5 of 41 steps drawn" in figure._supxlabel.get_text()


def test_a_sample_without_events_is_black_and_says_so():
    figure = pictures.event_frames(np.zeros((2, 2, 3, 3)))
    assert all((axes.images[0].get_array() == 0).all() for axes in figure.axes)
    assert figure._supxlabel.get_text() == "2 steps · no events"


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 11, 16])
def test_the_grid_holds_exactly_the_frames(count):
    assert len(pictures.event_frames(np.ones((count, 2, 2, 2))).axes) == count


def test_frames_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"frame: got shape \[3, 4, 4\], expected \[2, H, W\]"):
        pictures.event_frame_image(np.ones((3, 4, 4)), 1)
    with pytest.raises(InputError, match=r"frames: got shape \[5, 1, 4, 4\], expected \[T, 2, H, W\]"):
        pictures.event_frames(np.ones((5, 1, 4, 4)))
    with pytest.raises(InputError, match=r"expected \[T, 2, H, W\]"):
        pictures.event_frames(np.ones((2, 4, 4)))
    with pytest.raises(InputError, match="max_frames: got 0"):
        pictures.event_frames(np.ones((5, 2, 4, 4)), max_frames=0)


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_a_scale_that_cannot_be_is_refused(scale):
    with pytest.raises(InputError, match="scale: got"):
        pictures.event_frame_image(np.ones((2, 1, 1)), scale)


# learning_curves


def test_curves_have_a_panel_for_each_metric_and_a_line_for_each_stage():
    rows = [
        {"epoch": 0, "step": 9, "train/loss": 2.0, "val/loss": "", "lr-Adam": 0.1, "firing_rate/a": 0.2},
        {"epoch": 0, "step": 9, "train/loss": None, "val/loss": 2.5, "val/accuracy": 0.3},
        {"epoch": "1", "step": "19", "train/loss": "1.0", "val/loss": float("nan"), "val/accuracy": "0.5"},
        {"train/loss": 77.0},  # no epoch
    ]
    loss, accuracy = pictures.learning_curves(rows).axes
    assert loss.get_title(loc="left") == "loss"
    assert lines(loss) == {"train": ([0, 1], [2, 1]), "val": ([0], [2.5]), "best val": ([0], [2.5])}
    assert accuracy.get_title(loc="left") == "accuracy"
    assert lines(accuracy) == {"val": ([0, 1], [0.3, 0.5]), "best val": ([1], [0.5])}
    assert texts(accuracy) == ["val"]
    assert loss.get_xlabel() == "epoch"


@pytest.mark.parametrize(
    ("metric", "best", "where"),
    [("loss", 0.1, 2), ("accuracy", 0.9, 1), ("mean_error", 0.1, 2), ("f1", 0.9, 1), ("glossary", 0.9, 1)],
)
def test_the_best_validation_value_is_marked_at_its_epoch(metric, best, where):
    rows = [{"epoch": e, f"val/{metric}": v} for e, v in enumerate([0.5, 0.9, 0.1, 0.1, 0.9])]
    (axes,) = pictures.learning_curves(rows).axes
    assert lines(axes)["best val"] == ([where], [best])
    assert right_title(axes) == f"best val {best} · epoch {where}"


def test_no_best_is_marked_without_validation():
    (axes,) = pictures.learning_curves([{"epoch": 0, "train/loss": 1.0}]).axes
    assert set(lines(axes)) == {"train"}
    assert right_title(axes) == ""


def test_one_epoch_is_drawn_as_points():
    (axes,) = pictures.learning_curves([{"epoch": 0, "train/loss": 1.0, "val/loss": 2.0}]).axes
    assert all(line.get_marker() == "o" for line in axes.lines)


def test_test_is_a_single_point_with_its_value():
    rows = [*EPOCHS, {"epoch": 6, "test/loss": 9.0}, {"epoch": 5, "test/loss": 1.25}]
    loss, _ = pictures.learning_curves(rows).axes
    assert lines(loss)["test"] == ([5], [1.25])
    assert "test 1.25" in texts(loss)


def test_rows_may_come_in_any_order_and_the_last_of_equal_epochs_counts():
    rows = [{"epoch": 2, "val/x": 1.0}, {"epoch": 0, "val/x": 5.0}, {"epoch": 2, "val/x": 3.0}]
    (axes,) = pictures.learning_curves(rows).axes
    assert lines(axes)["val"] == ([0, 2], [5, 3])


def test_several_learners_are_a_band_around_their_mean():
    rows = [
        {"epoch": e, "val/return": 2.0 * e, "val/return/0": 2.0 * e - 3, "val/return/1": 2.0 * e + 3, "val/top/5": 1.0}
        for e in range(3)
    ]
    shared, own = pictures.learning_curves(rows).axes
    assert lines(shared)["val"] == ([0, 1, 2], [0, 2, 4])
    assert texts(shared).count("val") == 1
    (band,) = shared.collections
    points = band.get_paths()[0].vertices
    assert sorted({(float(x), float(y)) for x, y in points}) == [(0, -3), (0, 3), (1, -1), (1, 5), (2, 1), (2, 7)]
    assert own.get_title(loc="left") == "top/5", "a number without a whole is a metric like any other"


def test_groups_have_panels_of_their_own_after_the_metrics():
    rows = [
        {"epoch": e, "firing_rate/a": 0.1, "firing_rate/b.c": 0.2, "lr-Adam": 0.01, "val/loss": 1.0} for e in range(3)
    ]
    loss, rate, lr = pictures.learning_curves(rows, groups=["firing_rate", "lr"]).axes
    assert loss.get_title(loc="left") == "loss"
    assert list(lines(rate)) == texts(rate) == ["a", "b.c"]
    assert lines(lr) == {"Adam": ([0, 1, 2], [0.01] * 3)}


def test_the_names_at_the_ends_of_lines_do_not_overlap():
    rows = [{"epoch": e, **{f"g/{i}": 1.0 + 1e-6 * i for i in range(8)}, "g/far": 9.0} for e in range(2)]
    figure = pictures.learning_curves(rows, groups=["g"])
    pictures.to_array(figure)
    boxes = sorted((text.get_window_extent() for text in figure.axes[0].texts), key=lambda box: box.y0)
    overlaps = [lower.y1 - upper.y0 for lower, upper in itertools.pairwise(boxes)]
    assert max(overlaps) < 2  # pixels; the boxes hold room for letters that none of these names has


def test_another_column_can_be_x():
    rows = [{"epoch": 0, "step": 10 * i, "val/loss": 1.0 / (i + 1)} for i in range(100)]
    (axes,) = pictures.learning_curves(rows, x="step").axes
    assert axes.get_xlabel() == "step"
    assert lines(axes)["val"][0] == [10 * i for i in range(100)]
    assert right_title(axes) == "best val 0.01 · step 990"


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], {}, "no row of 0 has a value for 'epoch'"),
        ([{"step": 1, "val/loss": 1.0}], {}, r"columns are \['step', 'val/loss'\]; choose"),
        ([{"epoch": 0, "lr-Adam": 1.0}], {}, "nothing to draw.*groups="),
        ([{"epoch": 0, "val/loss": 1.0}], {"groups": ["lr"]}, r"no column has a value for \['lr'\]"),
        ([{"epoch": 0, "val/loss": "high"}], {}, "got 'high' in the column 'val/loss'"),
    ],
)
def test_rows_with_nothing_to_draw_are_refused(rows, options, message):
    with pytest.raises(InputError, match=message):
        pictures.learning_curves(rows, **options)


# mean_curves


def test_the_mean_of_runs_lies_within_students_interval():
    from scipy import stats

    axes = pictures.mean_curves({"a": repeated(4), "b": repeated(1)}).axes[0]
    drawn = lines(axes)
    assert drawn["a (4 seeds)"] == ([1000, 2000, 3000, 4000, 5000], [0, 2.5, 5, 7.5, 10])
    assert drawn["b (1 seed)"][1] == [0, 1, 2, 3, 4]
    (band,) = axes.collections  # one run has none
    at_the_end = [y for x, y in band.get_paths()[0].vertices if x == 5000]
    expected = stats.t.interval(0.95, 3, loc=10, scale=stats.sem([4, 8, 12, 16]))
    assert (min(at_the_end), max(at_the_end)) == pytest.approx(expected)
    assert "95 % confidence" in right_title(axes)
    assert right_title(pictures.mean_curves({"b": repeated(1)}).axes[0]) == ""


def test_runs_measured_at_other_places_are_interpolated_where_all_have_been():
    runs = [([0, 10, 20], [0, 10, 20]), ([5, 15, 25], [5, 15, 25])]
    drawn = lines(pictures.mean_curves({"a": runs}).axes[0])
    assert drawn["a (2 seeds)"] == ([5, 10, 15, 20], [5, 10, 15, 20])


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({}, "got none"),
        ({"a": []}, "'a' has no runs"),
        ({"a": [([1, 2], [1])]}, "got 2 places and 1 values"),
        ({"a": [([2, 1], [1, 2])]}, "not in order"),
        ({"a": [([1], [np.nan])]}, "NaN or infinite"),
        ({"a": [([1, 2], [1, 2]), ([3], [1])]}, "nothing of the x axis in common"),
    ],
)
def test_runs_without_a_mean_are_refused(curves, message):
    with pytest.raises(InputError, match=message):
        pictures.mean_curves(curves)


# confusion_matrix


def test_cells_hold_the_counts_and_the_title_the_accuracy():
    counts = random().poisson(3, (5, 5)) + np.diag([1000, 20, 20, 20, 20])
    axes = pictures.confusion_matrix(counts).axes[0]
    written = {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in axes.texts}
    assert written == {index: str(count) for index, count in np.ndenumerate(counts)}
    right, total = np.trace(counts), counts.sum()
    assert axes.get_title(loc="left") == f"accuracy {right / total:.2%} ({right:,} of {total:,})"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


def test_colours_are_shares_of_the_true_class():
    axes = pictures.confusion_matrix(np.array([[3, 1], [0, 2]])).axes[0]
    assert axes.images[0].get_array().tolist() == [[0.75, 0.25], [0, 1]]
    assert axes.images[0].get_clim() == (0, 1)


def test_a_class_without_samples_is_shown_as_empty():
    axes = pictures.confusion_matrix(np.array([[5, 1, 0], [0, 0, 0], [0, 2, 2]]), ["a", "b", "c"]).axes[0]
    assert axes.images[0].get_array().mask.tolist() == [[False] * 3, [True] * 3, [False] * 3]
    assert sorted(texts(axes)) == sorted(["5", "1", "0", "no samples", "0", "2", "2"])
    (box,) = axes.patches
    assert (box.get_y(), box.get_height()) == (0.5, 1)


def test_a_matrix_without_any_sample_is_drawn():
    axes = pictures.confusion_matrix(np.zeros((2, 2))).axes[0]
    assert axes.get_title(loc="left") == "no samples"


def test_counts_are_written_up_to_20_classes():
    assert len(pictures.confusion_matrix(np.eye(20)).axes[0].texts) == 400
    assert len(pictures.confusion_matrix(np.eye(21)).axes[0].texts) == 0


def test_labels_name_both_axes():
    axes = pictures.confusion_matrix(np.eye(3), ["cat", "dog", "ox"]).axes[0]
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [tick.get_text() for tick in ticks] == ["cat", "dog", "ox"]


def test_a_thousand_classes_have_a_pixel_each():
    counts = np.eye(1000, dtype=np.int64)
    counts[7] = 0
    figure = pictures.confusion_matrix(counts, [f"class {i}" for i in range(1000)])
    image = pictures.to_array(figure)
    axes = figure.axes[0]
    assert axes.get_position().width * figure.get_size_inches()[0] * 120 >= 1000
    assert axes.get_position().height * figure.get_size_inches()[1] * 120 >= 1000
    assert max(image.shape) < 1400
    assert "1 of 1,000 classes without samples" in axes.get_title(loc="left")


@pytest.mark.parametrize(
    ("matrix", "labels", "message"),
    [
        (np.ones((2, 3)), None, r"got shape \[2, 3\], expected a square"),
        (np.ones(4), None, r"got shape \[4\]"),
        (np.zeros((0, 0)), None, "empty"),
        (np.array([[1, -1], [0, 1]]), None, "negative or fractional"),
        (np.array([[0.9, 0.1], [0, 1]]), None, "before normalising"),
        (np.eye(3), ["a", "b"], "got 2 names for 3 classes"),
    ],
)
def test_matrices_that_are_none_are_refused(matrix, labels, message):
    with pytest.raises(InputError, match=message):
        pictures.confusion_matrix(matrix, labels)


# save, to_array


@pytest.fixture
def figure() -> Figure:
    return pictures.firing_rates({"a": 0.1, "b": 0.2})


def test_save_writes_a_png_of_the_stated_size_and_nothing_else(figure, tmp_path):
    path = pictures.save(figure, tmp_path / "new" / "folder" / "rates.png", dpi=50)
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    width, height = (int(inches * 50) for inches in figure.get_size_inches())
    image = imread(path)
    assert image.shape[:2] == (height, width)
    np.testing.assert_array_equal(np.rint(image[..., :3] * 255), pictures.to_array(figure, dpi=50))
    assert [file.name for file in path.parent.iterdir()] == ["rates.png"]


def test_save_takes_text_and_replaces_an_older_file(figure, tmp_path):
    target = tmp_path / "a.PNG"
    target.write_text("old")
    assert pictures.save(figure, str(target), dpi=40) == target
    assert imread(target, format="png").ndim == 3


def test_a_failed_save_leaves_the_older_file_and_nothing_else(figure, tmp_path, monkeypatch):
    def full_disk(file, *args, **kwargs):
        file.write(b"\x89PNG half")
        raise OSError("No space left on device")

    monkeypatch.setattr("matplotlib.image.imsave", full_disk)
    target = tmp_path / "a.png"
    target.write_text("old")
    with pytest.raises(OSError, match="No space left"):
        pictures.save(figure, target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_save_refuses_another_format_before_it_makes_a_folder(figure, tmp_path):
    with pytest.raises(InputError, match=r"expected a name that ends in \.png"):
        pictures.save(figure, tmp_path / "folder" / "a.pdf")
    with pytest.raises(InputError, match="dpi: got 0"):
        pictures.save(figure, tmp_path / "folder" / "a.png", dpi=0)
    assert list(tmp_path.iterdir()) == []


def test_save_into_a_file_as_a_folder_is_an_os_error(figure, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        pictures.save(figure, tmp_path / "file" / "a.png", dpi=40)


def test_to_array_is_rgb_and_leaves_the_figure_as_it_was(figure):
    canvas, dpi = figure.canvas, figure.dpi
    image = pictures.to_array(figure, dpi=60)
    assert image.shape == (int(figure.get_size_inches()[1] * 60), 600, 3)
    assert image.dtype == np.uint8
    assert image.flags["C_CONTIGUOUS"]
    assert (image[0, 0] == 255).all()
    assert image.min() < 100  # something is drawn
    assert figure.canvas is canvas
    assert figure.dpi == dpi


@pytest.mark.parametrize("dpi", [0, -5, float("nan"), float("inf")])
def test_to_array_refuses_a_dpi_that_cannot_be(figure, dpi):
    with pytest.raises(InputError, match="dpi: got"):
        pictures.to_array(figure, dpi)


# save_gif


def test_a_gif_shows_every_frame_enlarged_in_the_colours_of_event_frames(tmp_path):
    from PIL import Image

    frames = random().integers(0, 3, (5, 2, 20, 30))
    path = pictures.save_gif(frames, str(tmp_path / "folder" / "a.gif"), fps=20)
    scale = float(np.percentile(frames[frames > 0], 99))
    with Image.open(path) as image:
        assert (image.n_frames, image.size, image.info["duration"], image.info["loop"]) == (5, (240, 160), 50, 0)
        for step in range(5):
            image.seek(step)
            shown = np.asarray(image.convert("RGB"))[::8, ::8]
            np.testing.assert_array_equal(shown, pictures.event_frame_image(frames[step], scale))
    assert [entry.name for entry in path.parent.iterdir()] == ["a.gif"]


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (np.zeros((0, 2, 3, 4)), {}, "which is empty"),
        (np.zeros((5, 3, 3, 4)), {}, "channel 0 = OFF"),
        (np.full((5, 2, 3, 4), np.nan), {}, "finite"),
        (np.zeros((5, 2, 3, 4)), {"fps": 0}, "above 0 and at most 100"),
        (np.zeros((5, 2, 3, 4)), {"fps": float("nan")}, "fps: got nan"),
        (np.zeros((5, 2, 3, 4)), {"name": "a.png"}, "ends in .gif"),
    ],
)
def test_gifs_that_cannot_be_are_refused(tmp_path, frames, options, message):
    with pytest.raises(InputError, match=message):
        pictures.save_gif(frames, tmp_path / options.get("name", "a.gif"), options.get("fps", 10))
    assert list(tmp_path.iterdir()) == []
