"""Likeness: measures worked by hand or a slower way, ranges, plain words, and real images."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from scipy import ndimage, stats

from tests.support import DATA
from unetseg.errors import InputError
from unetseg.pictures import reading
from unetseg.pictures.transforms import rescale_image
from unetseg.prediction.likeness import (
    Appearance,
    AppearanceRange,
    appearance_of_patches,
    describe,
    sample_windows,
)
from unetseg.records import read_record, to_plain

LINES = DATA / "lines-ellipses" / "images"


def texture(seed, size=128, channels=1):
    """Return a picture of soft bright spots on a dark ground with noise, 0 to about 255."""
    rng = np.random.default_rng(seed)
    soft = ndimage.gaussian_filter(rng.random((size, size, channels)), (2, 2, 0))
    soft = np.exp((soft - soft.mean()) / soft.std())
    return (20 + 25 * soft + rng.normal(0, 3, soft.shape)).astype(np.float32)


def look_at(image, size=64):
    return describe(sample_windows(image, size))


def a_look(**values):
    return Appearance(*(values.get(field.name, (0.0,)) for field in fields(Appearance)))


# --- windows ---------------------------------------------------------------------------------


class OnlyRows:
    """An image that is had by rows alone."""

    def __init__(self, image):
        self.shape, self._image = image.shape, image

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        return self._image[rows]


def test_windows_are_spread_from_edge_to_edge():
    image = np.arange(100, dtype=np.uint16).reshape(10, 10, 1)
    windows = sample_windows(OnlyRows(image), 4)
    assert windows.dtype == np.float32
    assert windows.shape == (9, 4, 4, 1)
    assert windows[:, 0, 0, 0].tolist() == [0, 3, 6, 30, 33, 36, 60, 63, 66]


def test_of_a_large_image_64_windows_are_taken():
    windows = sample_windows(np.zeros((900, 1200, 2), np.uint8), 10)
    assert windows.shape == (64, 10, 10, 2)
    assert sample_windows(np.zeros((900, 25, 2), np.uint8), 10).shape == (24, 10, 10, 2)


def test_an_image_smaller_than_a_window_is_reflected():
    windows = sample_windows(OnlyRows(np.array([[[1], [2]], [[3], [4]]], np.uint8)), 4)
    assert windows[0, :, :, 0].tolist() == [[1, 2, 2, 1], [3, 4, 4, 3], [3, 4, 4, 3], [1, 2, 2, 1]]


# --- measures --------------------------------------------------------------------------------


def slow_sharpness_and_fineness(windows):
    """Return both for windows (n, S, S) of one channel, by convolution."""
    levels = []
    halves = windows.reshape(len(windows), windows.shape[1] // 2, 2, -1, 2).mean((2, 4))
    for x in (windows, halves):
        laplace = np.array([ndimage.laplace(w)[1:-1, 1:-1] for w in x])
        steps = [np.diff(x, axis=1) ** 2, np.diff(x, axis=2) ** 2]
        levels.append([np.sqrt((laplace**2).mean()), np.sqrt(np.mean([s.mean() for s in steps]))])
    (second, first), (second_half, first_half) = levels
    return np.log2(second / first / (second_half / first_half)), np.log2(second / second_half)


def test_measures_are_those_of_a_slower_way():
    windows = np.stack([texture(k, 32, 2) for k in range(3)])
    look = describe(windows)
    for c in range(2):
        few = windows[:, ::2, ::2, c].ravel().astype(float)
        assert look.mean[c] == pytest.approx(few.mean(), rel=1e-6)
        assert look.contrast[c] == pytest.approx(np.log2(few.std()), rel=1e-5)
        assert (look.low[c], look.high[c]) == pytest.approx(tuple(np.percentile(few, [1, 99])))
    slow = [slow_sharpness_and_fineness(windows[..., c].astype(float)) for c in range(2)]
    skew = np.mean([stats.skew(windows[:, ::2, ::2, c].ravel()) for c in range(2)])
    assert look.skewness == pytest.approx((skew,), abs=1e-4)
    assert (*look.sharpness, *look.fineness) == pytest.approx(tuple(np.mean(slow, 0)), abs=1e-4)


def test_white_noise_is_as_sharp_as_can_be_told_and_fine():
    noise = np.random.default_rng(0).normal(100, 20, (16, 64, 64, 1)).astype(np.float32)
    look = describe(noise)
    assert look.sharpness[0] == pytest.approx(0, abs=0.02)
    assert look.fineness[0] == pytest.approx(1, abs=0.02)


def test_a_blur_takes_sharpness_and_brightness_does_not():
    image = texture(0)
    plain, brighter = look_at(image), look_at(image * 3 + 10)
    assert brighter.contrast[0] - plain.contrast[0] == pytest.approx(np.log2(3), abs=1e-5)
    assert brighter.sharpness == pytest.approx(plain.sharpness, abs=1e-4)
    assert brighter.fineness == pytest.approx(plain.fineness, abs=1e-4)
    blurred = look_at(ndimage.gaussian_filter(image, (2, 2, 0)))
    assert blurred.sharpness[0] < plain.sharpness[0] - 0.3
    assert blurred.fineness[0] < -1.5


def test_a_negative_has_the_opposite_skewness():
    image = texture(0)
    assert look_at(image).skewness[0] > 1
    assert look_at(255 - image).skewness == pytest.approx((-look_at(image).skewness[0],), abs=1e-3)


def test_an_empty_image_has_finite_measures():
    look = describe(np.full((2, 16, 16, 1), 7, np.float32))
    assert np.isfinite(look.values()).all()
    assert (look.mean, look.skewness, look.sharpness, look.fineness) == ((7,), (0,), (0,), (0,))


@pytest.mark.parametrize("scale", [1e-25, 1e35])
def test_floats_of_any_size_have_finite_measures(scale):
    image = texture(0)
    look, plain = look_at(image * np.float32(scale)), look_at(image)
    for name in ("skewness", "sharpness", "fineness"):
        assert getattr(look, name) == pytest.approx(getattr(plain, name), abs=1e-3)


# --- ranges and words ------------------------------------------------------------------------


def test_ranges_are_widened_by_their_spread_and_at_least_a_little():
    looks = [a_look(mean=(m,), skewness=(0.5,), contrast=(2.0,)) for m in (10.0, 14.0)]
    found = AppearanceRange.of(looks, 64)
    assert (found.least.mean, found.most.mean) == ((10,), (14,))
    assert found.tolerance.mean == ((1 + 20 / 2) * 2,)
    assert found.tolerance.low == (0.5 * 4,)  # half the standard deviation 2^2
    assert found.tolerance.skewness == (0.3,)
    assert not found.unlike(looks[0])
    assert not found.unlike(replace(looks[0], mean=(35.9,)))
    assert found.unlike(replace(looks[0], mean=(36.1,))) == ["brighter"]


def test_of_several_channels_the_one_furthest_off_is_named():
    names = ("mean", "contrast", "low", "high")
    looks = [a_look(**dict.fromkeys(names, (1.0 * k, 2.0, 3.0))) for k in range(9)]
    dark = replace(looks[0], mean=(0.0, -99.0, -9.0))
    (said,) = AppearanceRange.of(looks, 64).unlike(dark)
    assert said == "darker in channel 2"
    with pytest.raises(ValueError):
        AppearanceRange.of(looks, 64).unlike(a_look())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: 255 - x, "brighter"),
        (lambda x: 90 - x, "like a negative"),
        (lambda x: x * 0.25, "less contrast"),
        (lambda x: x / 257, "less contrast"),
        (lambda x: x * 0.4 + 130, "brighter"),
        (lambda x: ndimage.gaussian_filter(x, (3, 3, 0)), "less sharp"),
        (lambda x: rescale_image(x, (256, 256)), "coarser structures"),
        (lambda x: rescale_image(x, (64, 64)), "finer structures"),
        (lambda x: x + np.random.default_rng(0).normal(0, 20, x.shape), "noisier"),
    ],
    ids=["inverted", "negative", "quarter", "/257", "lifted", "blur", "x2", "x0.5", "noise"],
)
def test_what_has_changed_is_said(change, words):
    found = AppearanceRange.of([look_at(texture(k)) for k in range(12)], 64)
    image = texture(100)
    assert found.unlike(look_at(image)) == []
    said = " and ".join(found.unlike(look_at(change(image).astype(np.float32))))
    assert words in said


@pytest.mark.parametrize("count", [3, 7])
def test_few_images_tell_gross_differences_alone(count):
    found = AppearanceRange.of([look_at(texture(k)) for k in range(count)], 64)
    assert not any(found.unlike(look_at(texture(k))) for k in range(100, 150))
    image = texture(100)
    blurred = ndimage.gaussian_filter(image, (3, 3, 0))
    for alike in (image / 2, image + 1.5 * image.std(), blurred):
        assert found.unlike(look_at(alike.astype(np.float32))) == []
    assert found.unlike(look_at(image / 257)) == ["less contrast"]
    assert "more contrast" in found.unlike(look_at(image * 16))
    assert found.unlike(look_at(image + 6 * image.std())) == ["brighter"]


def test_images_of_the_same_kind_are_alike():
    found = AppearanceRange.of([look_at(texture(k)) for k in range(20)], 64)
    assert sum(bool(found.unlike(look_at(texture(k)))) for k in range(100, 150)) <= 1


@pytest.mark.skipif(not LINES.is_dir(), reason="no real images here")
def test_real_images_are_alike_until_they_are_changed():
    paths = sorted(LINES.glob("*.png"))[:24]
    pictures = [reading.read_image(path)[..., :1].astype(np.float32) for path in paths]
    found = AppearanceRange.of([look_at(p, 96) for p in pictures[:20]], 96)
    for picture in pictures[20:]:
        assert found.unlike(look_at(picture, 96)) == []
        for changed in (
            255 - picture,
            picture / 4,
            picture / 257,
            ndimage.gaussian_filter(picture, (3, 3, 0)),
            rescale_image(picture, (800, 400)),
            rescale_image(picture, (200, 100)),
        ):
            assert found.unlike(look_at(changed, 96))


# --- of patches ------------------------------------------------------------------------------


def test_the_middles_of_patches_are_looked_at():
    patches = np.stack([texture(k, 80) for k in range(16)])
    sources = np.repeat(np.arange(8), 2)
    found = appearance_of_patches(patches, sources, 64)
    by_hand = [describe(patches[2 * k : 2 * k + 2, 8:72, 8:72]) for k in range(8)]
    assert found == AppearanceRange.of(by_hand, 64)


def test_of_a_large_patch_windows_side_by_side_are_looked_at():
    patches = np.stack([texture(k, 200) for k in range(8)])
    found = appearance_of_patches(patches, np.arange(8), 192)
    windows = [
        np.stack([p[t : t + 96, s : s + 96] for t in (4, 100) for s in (4, 100)]) for p in patches
    ]
    assert found == AppearanceRange.of([describe(w) for w in windows], 96)


def test_too_few_images_say_nothing_of_others():
    patches = np.zeros((70, 20, 20, 1), np.uint8)
    assert appearance_of_patches(patches, np.arange(70) % 2, 16) is None
    assert appearance_of_patches(patches, np.arange(70) % 3, 16).images == 3
    assert appearance_of_patches(patches, np.arange(70) % 8, 7) is None


# --- as JSON ---------------------------------------------------------------------------------


def some_looks():
    return AppearanceRange.of([look_at(texture(k, 32, 2), 16) for k in range(3)], 16)


def read(data):
    return read_record(AppearanceRange, data, "looks")


def test_looks_come_back_from_json():
    found = some_looks()
    assert read(json.loads(json.dumps(to_plain(found), allow_nan=False))) == found


@pytest.mark.parametrize(
    "change",
    [
        {"images": 0},
        {"images": "3"},
        {"images": True},
        {"size": 4},
        {"size": 10**6},
        {"least": None},
        {"least": {}},
        {"least": [1, 2]},
        {"most": {"mean": [float("nan"), 0]}},
        {"most": {"mean": ["1", 0]}},
        {"most": {"mean": [-1e9, 0]}},
        {"most": {"mean": [1]}},
        {"most": {"skewness": [1, 1]}},
        {"most": {"mean": 5}},
        {"tolerance": {"mean": [0, 1]}},
    ],
    ids=str,
)
def test_damaged_looks_are_refused(change):
    data = to_plain(some_looks())
    for key, value in change.items():
        partial = isinstance(value, dict) and value
        data[key] = data[key] | value if partial else value
    with pytest.raises(InputError, match="looks: "):
        read(data)
    with pytest.raises(InputError):
        read({})
