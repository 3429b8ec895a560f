"""Augmentation of images: windows, geometry, colours, erasing, normalisation; formulas against NumPy's."""

from __future__ import annotations

import inspect
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from jellyfit import images
from jellyfit.errors import InputError, InputTypeError
from jellyfit.images import colors, from_image, to_image
from jellyfit.images.transforms import warp
from tests.conftest import ROOT

RNG = np.random.default_rng
GRAY = (299, 587, 114)  # thousandths of red, green and blue


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return RNG(seed).integers(0, 256, shape, dtype=np.uint8)


ALL = [
    images.Resize(12),
    images.CenterCrop(8),
    images.RandomResizedCrop(10),
    images.RandomAffine(),
    images.ColorJitter(0.4, 0.4, 0.4, 0.1),
    images.RandAugment(3, 9, 0.5),
]


@pytest.mark.parametrize("transform", ALL, ids=lambda transform: type(transform).__name__)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_transform_depends_on_its_generator_alone_and_leaves_its_input(
    transform: images.ImageTransform, channels: int
) -> None:
    pixels = noise(channels, 16, 20)
    picture = to_image(pixels)
    one, two = (from_image(transform(picture, RNG(5))) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(from_image(picture), pixels)
    assert one.dtype == np.uint8
    assert len(one) == channels
    assert pickle.loads(pickle.dumps(transform)) == transform


def test_the_page_of_augmentation_names_every_one() -> None:
    page = (ROOT / "docs/augmentation.md").read_text()
    bases = (images.ImageTransform, images.RandomErasing)
    made = [getattr(images, name) for name in images.__all__]
    named = [each for each in made if isinstance(each, type) and issubclass(each, bases)]
    assert len(named) == 9
    missing = [each.__name__ for each in named if not inspect.isabstract(each) and f"`{each.__name__}`" not in page]
    assert missing == []


def test_what_is_no_image_or_generator_is_refused() -> None:
    flip = images.Resize(3)
    with pytest.raises(InputTypeError, match="Pillow image; got ndarray"):
        flip(noise(3, 4, 4), RNG(0))  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="mode L or RGB; got CMYK"):
        flip(to_image(noise(3, 4, 4)).convert("CMYK"), RNG(0))
    with pytest.raises(InputTypeError, match="rng must be"):
        flip(to_image(noise(3, 4, 4)), 0)  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="uint8"):
        to_image(np.zeros((3, 4, 4)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 or 3 channels"):
        to_image(noise(4, 4, 3))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: images.Resize(0), "size must be at least 1"),
        (lambda: images.Resize(4, "cubic"), "resample must be"),
        (lambda: images.RandomResizedCrop(4, scale=(0.0, 1.0)), "scale must be finite, above 0"),
        (lambda: images.RandomResizedCrop(4, ratio=(2.0, 1.0)), "the smaller first"),
        (lambda: images.ColorJitter(hue=0.6), "hue must be"),
        (lambda: images.RandAugment(magnitude=11), "magnitude must be"),
        (lambda: images.RandAugment(number=-1), "number must be"),
        (lambda: images.RandomErasing(p=2), "probability"),
        (lambda: images.RandomErasing(fill=[256]), "fill must be"),
        (lambda: images.Normalize([0.5], [0.0]), "std must be finite, above 0"),
        (lambda: images.Normalize([0.5], [0.1, 0.2]), "as many numbers"),
        (
            lambda: images.CenterCrop(9)(to_image(noise(1, 8, 10)), RNG(0)),
            "image of 8 x 10 (height x width) is smaller",
        ),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        make()


# ------------------------------------------------------------ windows


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (256, 256), (1, 700)])
def test_resize_gives_the_shorter_side(height: int, width: int) -> None:
    out = images.Resize(256)(to_image(np.zeros((1, height, width), np.uint8)), RNG(0)).size
    assert min(out) == 256
    assert out == (256 * width // min(height, width), 256 * height // min(height, width))


def test_resize_to_half_is_the_mean_weighted_by_a_triangle() -> None:
    pixels = noise(1, 1, 12)
    got = from_image(images.Resize((1, 6))(to_image(pixels), RNG(0)))[0, 0]
    weights = np.array([0.25, 0.75, 0.75, 0.25]) / 2  # of the pixels 1.5, 0.5, -0.5, -1.5 from the centre, over 2
    for i in range(1, 5):
        assert abs(int(got[i]) - pixels[0, 0, 2 * i - 1 : 2 * i + 3] @ weights) <= 1


def test_the_middle_is_cut_out() -> None:
    pixels = noise(3, 11, 20)
    cut = from_image(images.CenterCrop((4, 6))(to_image(pixels), RNG(0)))
    np.testing.assert_array_equal(cut, pixels[:, 4:8, 7:13])  # 3.5 rows above, rounded to the even 4


def test_random_resized_crops_have_the_areas_and_shapes_that_were_asked_for() -> None:
    crop = images.RandomResizedCrop(8, scale=(0.2, 0.5), ratio=(0.5, 2.0))
    rng = RNG(0)
    boxes = np.array([crop.window((400, 300), rng)[0] for _ in range(2000)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area, ratio = width * height / (400 * 300), width / height
    assert 0.19 < area.min() < 0.21 and 0.49 < area.max() < 0.51
    assert 0.49 < ratio.min() < 0.51 and 1.9 < ratio.max() < 2.02
    assert boxes.min() >= 0 and boxes[:, 2].max() == 400 and boxes[:, 3].max() == 300
    assert abs(np.log(ratio).mean()) < 0.05, "as often wide as high"


def test_an_image_that_no_rectangle_fits_into_gives_its_middle() -> None:
    crop = images.RandomResizedCrop(8, scale=(1.0, 1.0))
    assert crop.window((1000, 10), RNG(0)) == ((493, 0, 506, 10), (8, 8))
    assert crop.window((10, 1000), RNG(0)) == ((0, 493, 10, 506), (8, 8))
    assert crop.window((1, 1), RNG(0))[0] == (0, 0, 1, 1)


# ------------------------------------------------------------ geometry


def test_warp_moves_turns_and_scales_about_the_centre() -> None:
    pixels = np.zeros((1, 9, 9), np.uint8)
    pixels[0, 4, 6] = 200  # two to the right of the centre

    def place(matrix: tuple[float, float, float, float], shift: tuple[float, float] = (0, 0)) -> list[list[int]]:
        return np.argwhere(from_image(warp(to_image(pixels), matrix, shift, 0))[0] == 200).tolist()

    assert place((1, 0, 0, 1)) == [[4, 6]]
    assert place((1, 0, 0, 1), (1, -2)) == [[2, 7]]
    assert place((0, 1, -1, 0)) == [[6, 4]]
    assert place((-1, 0, 0, -1)) == [[4, 2]]
    assert from_image(warp(to_image(pixels), (1, 0, 0, 1), (5, 0), 77))[0, :, :5].min() == 77


def test_affine_stays_within_its_bounds() -> None:
    pixels = np.zeros((1, 41, 41), np.uint8)
    pixels[0, 20, 20] = 255
    moved = images.RandomAffine(degrees=0, translate=(0.25, 0.0), scale=(1, 1))
    seen = set()
    for seed in range(60):
        (row, column), *_ = np.argwhere(from_image(moved(to_image(pixels), RNG(seed)))[0])
        assert row == 20
        seen.add(int(column))
    assert min(seen) >= 10 and max(seen) <= 30 and len(seen) > 12


# ------------------------------------------------------------ colours


def luma(pixels: np.ndarray) -> np.ndarray:
    """Grey as Pillow makes it: thousandths, rounded."""
    return np.round(sum(weight * pixels[c].astype(int) for c, weight in enumerate(GRAY)) / 1000)


def test_brightness_contrast_and_saturation_are_blends_with_black_mean_grey_and_grey() -> None:
    pixels = noise(3, 6, 6)
    grey = luma(pixels)
    plain = {
        colors._brightness: np.zeros((3, 6, 6)),
        colors._contrast: np.full((3, 6, 6), int(grey.mean() + 0.5)),
        colors._color: np.stack([grey] * 3),
    }
    for way, ground in plain.items():
        for factor in (0.0, 0.3, 1.0, 1.9):
            expected = np.clip(factor * pixels + (1 - factor) * ground, 0, 255)
            got = from_image(way(to_image(pixels), factor))
            assert np.abs(got - expected).max() <= 2, (way, factor)


def test_hue_turns_the_circle() -> None:
    red = to_image(np.array([[[240]], [[0]], [[0]]], np.uint8))
    assert from_image(colors._hue(red, 1 / 3)).argmax() == 1, "a third of a round: green"
    assert from_image(colors._hue(red, -1 / 3)).argmax() == 2, "backwards: blue"
    np.testing.assert_array_equal(from_image(colors._hue(red, 0.0)), from_image(red))


def test_jitter_draws_every_factor_from_its_range() -> None:
    picture = to_image(np.full((3, 2, 2), 100, np.uint8))
    values = [int(from_image(images.ColorJitter(brightness=0.5)(picture, RNG(seed)))[0, 0, 0]) for seed in range(300)]
    assert 50 <= min(values) < 53 and 147 < max(values) <= 150
    unchanged = images.ColorJitter()(picture, RNG(0))
    np.testing.assert_array_equal(from_image(unchanged), from_image(picture))


def test_posterize_and_solarize_are_what_they_are() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    np.testing.assert_array_equal(from_image(colors._posterize(to_image(ramp), 4)), ramp // 16 * 16)
    np.testing.assert_array_equal(from_image(colors._posterize(to_image(ramp), 8)), ramp)
    solar = from_image(colors._solarize(to_image(ramp), 200))
    np.testing.assert_array_equal(solar, np.where(ramp < 200, ramp, 255 - ramp))
    np.testing.assert_array_equal(from_image(colors._solarize(to_image(ramp), 256)), ramp)


def test_nothing_happens_at_strength_zero_but_for_what_has_none() -> None:
    picture = to_image(noise(3, 12, 12))
    for i, operation in enumerate(colors._operations(0.0, 0.0, picture.size, 0)):
        if i not in (1, 2):  # auto-contrast and equalise
            np.testing.assert_array_equal(from_image(operation(picture)), from_image(picture), err_msg=str(i))


def test_randaugment_uses_every_operation_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.zeros(14, int)
    strengths = []

    def operations(share: float, signed: float, *_: Any) -> list[Callable[[Image.Image], Image.Image]]:
        strengths.append((share, signed))

        def count(i: int) -> Callable[[Image.Image], Image.Image]:
            def operation(image: Image.Image) -> Image.Image:
                counts[i] += 1
                return image

            return operation

        return [count(i) for i in range(14)]

    monkeypatch.setattr(colors, "_operations", operations)
    picture, rng = to_image(noise(3, 4, 4)), RNG(0)
    augment = images.RandAugment(number=2, magnitude=9, std=0.5, p=0.5)
    for _ in range(2000):
        augment(picture, rng)
    assert 1900 < counts.sum() < 2100
    assert counts.min() > 100 and counts.max() < 190
    shares = np.array([share for share, _ in strengths])
    assert shares.max() == 1.0 and abs(shares.mean() - 0.897) < 0.01, "cut off at 10"
    assert abs(np.mean([signed > 0 for _, signed in strengths]) - 0.5) < 0.03


# ------------------------------------------------------------ pixels


def test_erased_rectangles_have_the_area_and_fill_that_were_asked_for() -> None:
    frame = torch.zeros(1, 3, 40, 60, dtype=torch.uint8)
    erase = images.RandomErasing(p=1.0, scale=(0.1, 0.2), ratio=(0.5, 2.0), fill=[10, 20, 30])
    for seed in range(50):
        erased = erase(frame, RNG(seed))
        share = float((erased[0, 0] == 10).float().mean())
        assert 0.09 < share < 0.21
        assert torch.equal(erased[0, 1], erased[0, 0] * 2) and torch.equal(erased[0, 2], erased[0, 0] * 3)
        rows, columns = erased[0, 0].nonzero().T
        assert (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1) == len(rows), "a rectangle"
    assert int(frame.sum()) == 0


def test_erasing_happens_with_its_probability_and_fills_with_noise() -> None:
    frame = np.zeros((1, 1, 32, 32), np.uint8)
    erase = images.RandomErasing(p=0.25)
    rng = RNG(0)
    results = [erase(frame, rng) for _ in range(1000)]
    assert 0.2 < np.mean([result.any() for result in results]) < 0.3
    noisy = next(result for result in results if (result > 0).sum() > 100)
    values = noisy[noisy > 0]
    assert len(set(values.tolist())) > 50
    with pytest.raises(InputError, match="uint8"):
        erase(frame.astype(np.float32), RNG(0))
    with pytest.raises(InputError, match="1 channels"):
        images.RandomErasing(fill=[1, 2, 3])(frame, RNG(0))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalisation_is_its_formula(dtype: torch.dtype) -> None:
    x = torch.from_numpy(noise(2, 3, 5, 5)).to(dtype)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    kept = x.clone()
    y = images.Normalize(mean, std)(x)
    expected = (x.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(y, expected.float(), atol=1e-6, rtol=1e-6)
    assert torch.equal(x, kept)
    assert images.Normalize(mean, std)(x, torch.bfloat16).dtype == torch.bfloat16
    with pytest.raises(InputError, match="3 channels"):
        images.Normalize(mean, std)(x[:, :2])
