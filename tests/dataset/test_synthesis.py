import cmath
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage, stats

from unetseg.dataset.synthesis import (
    _ELLIPSE,
    _LINE,
    CLASSES,
    _draw_ellipse,
    _draw_line,
    _rasterise,
    _truncated_normal,
    draw_image,
    synthesize,
)
from unetseg.errors import InputError, Interrupted
from unetseg.settings import SynthSettings
from unetseg.signals import Caught

FLAT = SynthSettings(noise=0)
SMALL = SynthSettings(height=60, width=50)


def test_image_and_mask_have_the_size_asked_for_and_classes_of_the_table():
    image, mask = draw_image(SynthSettings(height=60, width=90), "train", 0)
    assert image.shape == (60, 90, 1)
    assert mask.shape == (60, 90)
    assert image.dtype == mask.dtype == np.uint8
    assert mask.max() < len(CLASSES.classes)
    assert CLASSES.names == ("background", "line", "ellipse")


def test_an_image_depends_on_seed_split_and_index_alone():
    settings = SynthSettings(height=40, width=40)
    first = draw_image(settings, "train", 3)
    draw_image(settings, "train", 4)
    again = draw_image(settings, "train", 3)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


def test_no_two_of_seed_split_and_index_give_the_same_image():
    keys = [(s, split, i) for s in (0, 1, 2**32) for split in ("train", "test") for i in range(4)]
    drawn = {
        draw_image(SynthSettings(height=8, width=8, seed=s), split, i)[0].tobytes()
        for s, split, i in keys
    }
    assert len(drawn) == len(keys)


def test_background_is_normal_given_that_it_lies_between_0_6_and_1():
    values = _truncated_normal(np.random.default_rng(0), 0.75, 0.1, (100, 100)).ravel()
    expected = stats.truncnorm((0.6 - 0.75) / 0.1, (1 - 0.75) / 0.1, 0.75, 0.1)
    assert stats.kstest(values, expected.cdf).pvalue > 0.01


@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
def test_background_never_leaves_its_range(noise):
    image, mask = draw_image(SynthSettings(height=100, width=100, noise=noise), "train", 1)
    background = image[mask == 0]
    assert background.min() >= 153  # 0.6
    assert background.max() <= 255


def test_mean_of_the_background_is_drawn_per_image_from_0_7_to_0_9():
    means = []
    for index in range(30):
        image, mask = draw_image(FLAT, "train", index)
        means.append(np.unique(image[mask == 0]).item() / 255)
    assert 0.7 - 0.002 <= min(means) < 0.75
    assert 0.85 < max(means) <= 0.9 + 0.002


def test_a_shape_has_one_grey_value_of_at_most_0_7():
    for index in range(20):
        image, mask = draw_image(SynthSettings(noise=0, max_shapes=1), "train", index)
        for label in (_LINE, _ELLIPSE):
            greys = np.unique(image[mask == label])
            assert len(greys) <= 1
            assert all(greys <= 0.7 * 255 + 0.5)


def test_every_number_of_shapes_from_1_to_the_most_occurs():
    # Without noise, shapes of one image are told apart by their greys.
    counts = set()
    for index in range(12):
        image, mask = draw_image(SynthSettings(noise=0, max_shapes=3), "train", index)
        counts.add(len(np.unique(image[mask == _ELLIPSE])))
    assert counts == {1, 2, 3}


def test_lines_lie_over_ellipses():
    # Any line and any ellipse centred in a single pixel cover it.
    for index in range(10):
        _, mask = draw_image(SynthSettings(height=1, width=1), "train", index)
        assert mask.item() == _LINE


def test_drawn_sizes_stay_in_their_ranges():
    rng = np.random.default_rng(0)
    radii = np.array([_draw_ellipse(rng) for _ in range(2000)])
    assert 5 <= radii.min() < 5.2
    assert 19.8 < radii.max() <= 20
    ratio = radii[:, 0] / radii[:, 1]
    assert 0.5 <= ratio.min() < 0.55
    assert 1.8 < ratio.max() <= 2
    lines = np.array([_draw_line(rng) for _ in range(2000)])
    assert 20 <= 2 * lines[:, 0].min() < 21
    assert 199 < 2 * lines[:, 0].max() <= 200
    assert set(lines[:, 1]) == {1.0, 2.0}


def covered(label, radii, place, y, x):
    """Whether a shape covers a pixel: the pixel turned back by the shape's angle."""
    row, column, angle = place
    turned = complex(x - column, y - row) * cmath.exp(-1j * angle)
    u, v = turned.real / radii[0], turned.imag / radii[1]
    return u**2 + v**2 <= 1 if label == _ELLIPSE else abs(u) <= 1 and abs(v) <= 1


@pytest.mark.parametrize("label", [_LINE, _ELLIPSE])
@pytest.mark.parametrize(
    "place", [(10.3, 8.1, 0.4), (0.0, 0.2, 2.0), (24.4, 17.9, 1.1), (12.0, 17.4, 3.0)]
)
def test_a_shape_is_cut_at_the_border_and_comes_back_nowhere(label, place):
    shape, radii = (25, 18), (9.3, 5.2) if label == _ELLIPSE else (15.5, 2.0)
    window, inside = _rasterise(label, radii, np.array(place), shape)
    drawn = np.zeros(shape, bool)
    drawn[window] = inside
    slow = [[covered(label, radii, place, y, x) for x in range(18)] for y in range(25)]
    np.testing.assert_array_equal(drawn, slow)


def test_noise_and_contrast_leave_every_shape_in_its_place():
    plain = draw_image(SynthSettings(), "train", 5)[1]
    hard = draw_image(SynthSettings(noise=0.3, contrast=0.2), "train", 5)[1]
    np.testing.assert_array_equal(plain, hard)


def test_half_the_contrast_halves_every_distance_from_the_background():
    full, mask = draw_image(FLAT, "train", 2)
    half, _ = draw_image(SynthSettings(noise=0, contrast=0.5), "train", 2)
    background = full[mask == 0].flat[0].astype(float)
    assert abs(half[mask == 0].flat[0] - background) == 0
    np.testing.assert_allclose(half - background, (full - background) / 2, atol=1.01)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("height", 0),
        ("width", 10_001),
        ("seed", -1),
        ("seed", 2**63),
        ("noise", -0.1),
        ("noise", float("inf")),
        ("noise", float("nan")),
        ("contrast", 1.5),
        ("max_shapes", 0),
    ],
)
def test_a_setting_out_of_range_is_named(option, value):
    with pytest.raises(InputError, match=f"^{option}: .* out of range"):
        SynthSettings(**{option: value})


def test_touching_ellipses_have_a_mask_with_borders_and_a_label_image(tmp_path):
    settings = SynthSettings(height=200, width=160, touching=True)
    train, _ = synthesize(tmp_path, n=2, n_test=0, settings=settings)
    for stem in ("0000", "0001"):
        mask = np.array(Image.open(train / "masks" / f"{stem}.png"))
        numbers = tifffile.imread(train / "objects" / f"{stem}.tif")
        assert ((numbers > 0) == (mask > 0)).all()
        parts, count = ndimage.label(mask == 1)
        assert count == numbers.max()  # each inside holds together, and touches no other
        assert all(len(np.unique(numbers[parts == k])) == 1 for k in range(1, count + 1))
        _, areas = ndimage.label(mask > 0)
        assert areas < count  # some ellipses touch
    assert 'name = "ellipse border"' in (train / "classes.toml").read_text()


def test_a_longer_set_begins_with_the_shorter_one(empty):
    synthesize("short", n=3, n_test=2, settings=SMALL)
    synthesize("long", n=5, n_test=2, settings=SMALL)
    files = [p for p in Path("short").rglob("*") if p.is_file()]
    assert len(files) == 2 * (3 + 2) + 2
    for path in files:
        assert path.read_bytes() == Path("long", *path.parts[1:]).read_bytes()


def test_test_images_are_none_of_the_training_images(empty):
    train, test = synthesize("data", n=6, n_test=6, settings=SMALL)
    hashes = [p.read_bytes() for part in (train, test) for p in (part / "images").iterdir()]
    assert len(set(hashes)) == 12


def test_a_set_that_is_there_is_kept_and_half_of_one_is_recognised(empty, monkeypatch):
    synthesize("data", n=4, n_test=1, settings=SMALL)
    with pytest.raises(InputError, match="data/train: already holds labelled images"):
        synthesize("data", n=4, n_test=1, settings=SMALL)
    seen = []

    def stop(self, what, remedy):
        seen.append(what)
        if len(seen) > 2:
            raise Interrupted(2, what, "stopped", remedy)

    with monkeypatch.context() as patch:
        patch.setattr(Caught, "check", stop)
        with pytest.raises(Interrupted, match="overwrite=True"):
            synthesize("half", n=4, n_test=1, settings=SMALL)
    assert {p.stem for p in Path("half/train/images").iterdir()} == {"0000", "0001"}
    assert {p.stem for p in Path("half/train/masks").iterdir()} == {"0000", "0001"}
    with pytest.raises(InputError, match="half/train: holds a half-written set"):
        synthesize("half", n=4, n_test=1, settings=SMALL)
    synthesize("half", n=3, n_test=1, settings=SMALL, overwrite=True)
    assert len(list(Path("half/train/images").iterdir())) == 3


@pytest.mark.parametrize(("n", "n_test"), [(0, 1), (-1, 1), (1, -1), (10**7, 1)])
def test_numbers_out_of_range_are_refused(empty, n, n_test):
    with pytest.raises(InputError, match="out of range"):
        synthesize("data", n=n, n_test=n_test, settings=SMALL)
    assert not Path("data").exists()
