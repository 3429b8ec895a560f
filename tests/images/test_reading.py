"""Image files of many kinds, read as RGB."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jellyfit.errors import DataError
from jellyfit.images import BrokenImageError, CenterCrop, RandomResizedCrop, Resize, from_image, read_image

RNG = np.random.default_rng


def smooth(height: int, width: int) -> np.ndarray:
    """Colours that change slowly, so that JPEG and resizing hardly change them."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x / width, 255 * y / height, 128 + 0 * x], -1).astype(np.uint8)


def saved(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def test_rgb_is_read_to_the_bit(tmp_path: Path) -> None:
    pixels = RNG(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    image = read_image(saved(tmp_path / "a.png", pixels))
    np.testing.assert_array_equal(np.asarray(image), pixels)
    np.testing.assert_array_equal(from_image(image), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_and_palettes_become_rgb(tmp_path: Path, mode: str) -> None:
    pixels = np.repeat(np.array([[0, 255], [255, 0]], np.uint8), 8, 0).repeat(8, 1)
    image = read_image(saved(tmp_path / "a.png", pixels, mode))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(from_image(image), np.stack([pixels] * 3))


def test_sixteen_bits_become_eight_by_their_share_of_the_whole(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    saved(tmp_path / "a.png", values)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode.startswith("I")
    assert from_image(read_image(tmp_path / "a.png"))[:, 0].tolist() == [[0, 1, 128, 255]] * 3


def test_numbers_that_are_no_brightness_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a.tif", np.array([[0.5, 2.0]], np.float32))
    with pytest.raises(BrokenImageError, match=r"a\.tif.*mode 'F'"):
        read_image(tmp_path / "a.tif")
    saved(tmp_path / "b.tif", np.array([[0, 1 << 20]], np.int32))
    with pytest.raises(BrokenImageError, match=r"b\.tif.*not of 16 bits"):
        read_image(tmp_path / "b.tif")


def test_what_is_transparent_is_laid_on_white(tmp_path: Path) -> None:
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], np.uint8)
    seen = from_image(read_image(saved(tmp_path / "a.png", pixels)))[:, 0].T.tolist()
    assert seen[:2] == [[10, 20, 30], [255, 255, 255]]
    assert seen[2] == [127, 127, 127]  # half black on white
    Image.fromarray(np.zeros((1, 2), np.uint8)).convert("P").save(tmp_path / "b.png", transparency=0)
    assert from_image(read_image(tmp_path / "b.png")).min() == 255


def test_cmyk_is_converted(tmp_path: Path) -> None:
    saved(tmp_path / "a.jpg", np.full((16, 16, 3), [200, 40, 40], np.uint8), "CMYK", quality=100)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.mode == "CMYK"
    red = from_image(read_image(tmp_path / "a.jpg")).mean((1, 2))
    np.testing.assert_allclose(red, [200, 40, 40], atol=4)


def test_orientation_is_followed_on_request_only(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the stored picture lies on its side
    saved(tmp_path / "a.jpg", smooth(40, 80), exif=exif, quality=100)
    assert read_image(tmp_path / "a.jpg").size == (80, 40)
    upright = read_image(tmp_path / "a.jpg", upright=True)
    assert upright.size == (40, 80)
    stored = from_image(read_image(tmp_path / "a.jpg"))
    np.testing.assert_array_equal(from_image(upright), np.rot90(stored, -1, (1, 2)))
    assert read_image(tmp_path / "a.jpg", Resize(20), upright=True).size == (20, 40)


@pytest.mark.parametrize("window", [Resize(50), Resize((30, 70)), RandomResizedCrop(40), CenterCrop((64, 90))])
def test_a_window_cut_while_reading_is_the_one_cut_afterwards(tmp_path: Path, window: Resize) -> None:
    path = saved(tmp_path / "a.png", RNG(0).integers(0, 256, (100, 140, 3), dtype=np.uint8))
    at_once = read_image(path, window, RNG(3))
    np.testing.assert_array_equal(np.asarray(at_once), np.asarray(window(read_image(path), RNG(3))))


@pytest.mark.parametrize("size", [(801, 1203), (640, 512), (60, 47)])
def test_draft_gives_nearly_the_same_picture(tmp_path: Path, size: tuple[int, int]) -> None:
    path = saved(tmp_path / "a.jpg", smooth(*size), quality=95)
    for seed in range(5):
        crop = RandomResizedCrop(48, scale=(0.3, 1.0), resample="bicubic")
        exact, quick = (from_image(read_image(path, crop, RNG(seed), draft=draft)) for draft in (False, True))
        assert np.abs(exact.astype(int) - quick).max() <= 6
        assert exact.shape == (3, 48, 48)


def test_draft_decodes_fewer_pixels_but_never_fewer_than_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "a.jpg", smooth(800, 1200))
    seen = []
    cut = Resize.cut
    monkeypatch.setattr(Resize, "cut", lambda self, image, *rest: seen.append(image.size) or cut(self, image, *rest))
    for shorter in (100, 101, 400, 401, 801):
        read_image(path, Resize(shorter), draft=True)
    read_image(path, Resize(100))
    assert seen == [(150, 100), (300, 200), (600, 400), (1200, 800), (1200, 800), (1200, 800)]


@pytest.mark.parametrize("cut", [0, 10, 400, -40])
@pytest.mark.parametrize("ending", ["jpg", "png", "bmp"])
def test_a_file_cut_short_is_named(tmp_path: Path, ending: str, cut: int) -> None:
    path = saved(tmp_path / f"a.{ending}", RNG(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BrokenImageError, match=rf"a\.{ending} is a broken image: .+ Replace or remove it"):
        read_image(path)


def test_a_file_that_is_missing_is_not_called_broken(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone.jpg cannot be read: No such file") as caught:
        read_image(tmp_path / "gone.jpg")
    assert not isinstance(caught.value, BrokenImageError)


def test_without_pillow_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"pip install 'jellyfit\[images\]'"):
        read_image(tmp_path / "a.png")
