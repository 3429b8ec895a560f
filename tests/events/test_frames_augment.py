"""Augmentation of frames: values against NumPy, the dtypes that frames have, and what holds for all."""

import copy
import json
import pickle
import re

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from scipy import ndimage

from jellyfit import frames as fr
from jellyfit.errors import InputError, InputTypeError
from jellyfit.events.draws import rectangle, rotation, shear

TRANSFORMS = [
    fr.RandomCrop(3),
    fr.RandomCrop(0, size=(9, 8)),
    fr.HorizontalFlip(),
    fr.Roll(3),
    fr.CutOut(5),
    fr.Rotate(40.0),
    fr.Rotate(40.0, "bilinear"),
    fr.Shear(40.0),
    fr.Shear(40.0, "bilinear"),
    fr.NDA(2, number=2),
]
each_transform = pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
DTYPES = [np.bool_, np.uint8, np.uint16, np.uint32, np.int16, np.int64, np.float16, np.float32, np.float64]


def make(dtype=np.uint8, T=3, C=2, size=(11, 14), seed=0):
    return np.random.default_rng(seed).integers(0, 200, (T, C, *size)).astype(dtype)


def rng(seed=0):
    return np.random.default_rng(seed)


# ------------------------------------------------------------ what holds for all


@each_transform
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_give_arrays_and_tensors_tensors_of_equal_values(transform, dtype):
    given = make(dtype)
    before = given.copy()
    array = transform(given, rng(1))
    tensor = transform(torch.from_numpy(given), rng(1))
    assert isinstance(array, np.ndarray)
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(array, tensor.numpy())
    np.testing.assert_array_equal(given, before)
    floats = getattr(transform, "mode", "nearest") == "bilinear" and given.dtype.kind != "f"
    assert array.dtype == (np.float32 if floats else dtype)


@each_transform
def test_all_frames_and_channels_of_a_sample_are_treated_alike(transform):
    one = make(np.float32, T=1, C=1)
    together = transform(np.broadcast_to(one, (4, 3, 11, 14)), rng(2))
    alone = transform(one, rng(2))
    np.testing.assert_allclose(together, np.broadcast_to(alone, together.shape), rtol=1e-6)


@each_transform
def test_the_same_generator_gives_the_same_frames_and_another_gives_others(transform):
    first, again = (transform(make(), rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert any(not np.array_equal(transform(make(), rng(seed)), first) for seed in range(20))


@each_transform
def test_transforms_pickle_copy_compare_and_have_keys(transform):
    for twin in (pickle.loads(pickle.dumps(transform)), copy.deepcopy(transform)):
        assert twin == transform
        np.testing.assert_array_equal(twin(make(), rng(3)), transform(make(), rng(3)))
    assert json.loads(json.dumps(transform.key())) == transform.key()
    assert sum(other == transform for other in TRANSFORMS) == 1


@each_transform
def test_what_is_not_frames_of_one_sample_is_refused(transform):
    with pytest.raises(InputError, match=re.escape("those of one sample, [T, C, H, W]; got the shape [2, 3, 4]")):
        transform(np.zeros((2, 3, 4)), rng())
    with pytest.raises(InputTypeError, match="frames must be an array or tensor"):
        transform([[0]], rng())
    with pytest.raises(InputTypeError, match="numpy.random.default_rng"):
        transform(make(), 0)


@each_transform
def test_read_only_and_reversed_arrays_are_taken(transform):
    given = make()
    expected = transform(given, rng(1))
    given.flags.writeable = False
    np.testing.assert_array_equal(transform(given, rng(1)), expected)
    np.testing.assert_array_equal(transform(given[:, :, ::-1][:, :, ::-1], rng(1)), expected)


# ------------------------------------------------------------ each


@pytest.mark.parametrize("seed", range(8))
def test_a_random_crop_is_a_window_of_the_padded_frames(seed):
    given = make()
    padded = np.pad(given, [(0, 0), (0, 0), (3, 3), (3, 3)])
    draws = np.random.default_rng(seed)
    top, left = draws.integers(6, endpoint=True), draws.integers(6, endpoint=True)
    cropped = fr.RandomCrop(3)(given, rng(seed))
    np.testing.assert_array_equal(cropped, padded[:, :, top : top + 11, left : left + 14])


def test_random_crops_reach_every_place_and_take_another_size():
    spot = np.zeros((1, 1, 5, 6), np.uint8)
    spot[0, 0, 2, 3] = 1
    seen = {tuple(np.argwhere(fr.RandomCrop(1)(spot, rng(seed)))[0, 2:].tolist()) for seed in range(200)}
    assert seen == {(y, x) for y in (1, 2, 3) for x in (2, 3, 4)}
    assert fr.RandomCrop(0, size=(3, 4))(spot, rng()).shape == (1, 1, 3, 4)
    assert fr.RandomCrop(4, size=(13, 14))(spot, rng()).sum() == 1, "all of the padding"
    with pytest.raises(InputError, match="frames of 5 x 6 with their padding are smaller than the window of 9 x 3"):
        fr.RandomCrop(1, size=(9, 3))(spot, rng())


def test_a_flip_is_that_of_numpy_with_its_probability():
    np.testing.assert_array_equal(fr.HorizontalFlip(1.0)(make(), rng()), make()[..., ::-1])
    np.testing.assert_array_equal(fr.HorizontalFlip(0.0)(make(), rng()), make())
    flips = sum(not np.array_equal(fr.HorizontalFlip(0.3)(make(), rng(seed)), make()) for seed in range(400))
    assert 80 < flips < 160


@pytest.mark.parametrize("seed", range(5))
def test_a_roll_is_that_of_numpy(seed):
    down, right = np.random.default_rng(seed).integers(-3, 3, 2, endpoint=True)
    np.testing.assert_array_equal(fr.Roll(3)(make(), rng(seed)), np.roll(make(), (down, right), (2, 3)))


@pytest.mark.parametrize("seed", range(5))
def test_cut_out_puts_zeros_into_a_square(seed):
    cut = fr.CutOut(5)(make() + 1, rng(seed))
    top, bottom, left, right = rectangle(rng(seed), (11, 14), 5, 5)
    assert not cut[..., top:bottom, left:right].any()
    assert np.count_nonzero(cut) == cut.size - 6 * (bottom - top) * (right - left)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("cls", "matrix"), [(fr.Rotate, rotation), (fr.Shear, shear)])
@pytest.mark.parametrize(("mode", "order"), [("nearest", 0), ("bilinear", 1)])
def test_turned_frames_are_those_of_scipy(cls, matrix, mode, order, seed):
    given = make(np.float64)
    forward = matrix(np.random.default_rng(seed).uniform(-40, 40))
    back = np.linalg.inv(forward)[::-1, ::-1]  # scipy's places are (y, x)
    centre = np.array([5.0, 6.5])
    expected = np.empty_like(given)
    for place in np.ndindex(3, 2):
        # "grid-constant": beyond the border there are zeros between which one interpolates
        expected[place] = ndimage.affine_transform(
            given[place], back, centre - back @ centre, order=order, mode="grid-constant"
        )
    turned = cls(40.0, mode)(given, rng(seed))
    close = np.isclose(turned, expected, atol=1e-6)
    assert close.mean() > 0.99, "but for places half way between two pixels"


@pytest.mark.parametrize("size", [(9, 9), (10, 10)])
def test_a_quarter_turn_is_exact_in_every_dtype(size):
    class Quarter(fr.Rotate):
        matrix = staticmethod(lambda degrees: rotation(90.0))

    for dtype in DTYPES:
        given = make(dtype, size=size)
        np.testing.assert_array_equal(Quarter()(given, rng()), np.rot90(given, axes=(2, 3)))
    large = np.full((1, 1, 9, 9), 2**32 - 1, np.uint32)
    assert (Quarter()(large, rng()) == 2**32 - 1).all(), "no count is rounded"
    bilinear = Quarter(mode="bilinear")(make(size=size), rng())
    np.testing.assert_allclose(bilinear, np.rot90(make(size=size), axes=(2, 3)), atol=1e-3)


def test_no_degrees_change_nothing():
    for mode in ("nearest", "bilinear"):
        np.testing.assert_allclose(fr.Rotate(0.0, mode)(make(), rng()), make(), rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(fr.Shear(0.0, mode)(make(), rng()), make(), rtol=1e-5, atol=1e-3)


def test_nda_does_so_many_different_things():
    ones = np.ones((1, 1, 48, 48), np.uint8)
    once = [int(fr.NDA(1, 1)(ones, rng(seed)).sum()) for seed in range(200)]
    assert 30 < once.count(48 * 48) < 75, "one in four rolls, which loses nothing"
    assert all(int(fr.NDA(1, 4)(ones, rng(seed)).sum()) < 48 * 48 for seed in range(20))
    left = np.zeros((1, 1, 48, 48), np.uint8)
    left[0, 0, 24, 10] = 1
    for flip, low, high in ((True, 30, 70), (False, 0, 0)):
        right = sum(bool(fr.NDA(flip=flip)(left, rng(seed))[..., 24:].any()) for seed in range(100))
        assert low <= right <= high


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: fr.RandomCrop(-1), InputError, "padding must be at least 0"),
        (lambda: fr.RandomCrop(size=(0, 4)), InputError, "size must be at least 1"),
        (lambda: fr.RandomCrop(size=(2.5, 4)), InputTypeError, "size must be an integer"),
        (lambda: fr.HorizontalFlip(-0.1), InputError, "p must be a probability"),
        (lambda: fr.Roll("2"), InputTypeError, "pixels must be an integer"),
        (lambda: fr.CutOut(0), InputError, "side must be at least 1"),
        (lambda: fr.Rotate(-3.0), InputError, "degrees must be finite, at least 0"),
        (lambda: fr.Rotate(mode="cubic"), InputError, "mode must be 'nearest' (counts stay counts) or 'bilinear'"),
        (lambda: fr.Shear(90.0), InputError, "degrees must be finite, at most 89"),
        (lambda: fr.NDA(0), InputError, "magnitude must be from 1 to 3"),
        (lambda: fr.NDA(number=5), InputError, "number must be from 1 to 4"),
    ],
)
def test_parameters_are_checked_when_they_are_given(build, error, message):
    with pytest.raises(error, match=re.escape(message)):
        build()


def test_transforms_are_named_in_yaml():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--transforms", type=list[fr.FrameTransform])
    config = parser.parse_string(
        "transforms:\n- class_path: RandomCrop\n  init_args: {padding: 2, size: [32, 32]}\n- class_path: Rotate\n"
    )
    make_objects = getattr(parser, "instantiate", None) or parser.instantiate_classes
    assert make_objects(config).transforms == [fr.RandomCrop(2, (32, 32)), fr.Rotate()]
