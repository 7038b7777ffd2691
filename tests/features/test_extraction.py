import numpy as np
import pytest
import torch

from tests.support import draw
from unetseg.errors import InputError
from unetseg.features import extraction as features_module
from unetseg.features.extraction import Extractor


@pytest.fixture(scope="module")
def weights():
    return Extractor()


@pytest.fixture
def extractor(weights):
    weights._range = None  # each test has a first image of its own
    return weights


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_images_of_any_depth_and_number_of_channels_are_described(extractor, dtype, channels):
    image, _ = draw(0, (70, 50), channels, dtype)
    found = extractor.extract(image)
    assert found.shape == (70, 50)
    assert found.scale == 1
    sizes = [tuple(level.shape[1:]) for level in found.levels]
    assert sizes == [(96, 64), (48, 32), (24, 16), (12, 8), (6, 4), (3, 2)]
    assert sum(found.groups) == sum(len(level) for level in found.levels)
    assert all(level.isfinite().all() for level in found.levels)


def test_fine_features_are_those_of_the_picture_and_of_it_at_double_size(extractor):
    image = draw(0, (64, 96), 3)[0].astype(np.float32)
    own = extractor.extract(image)
    large = torch.from_numpy(image).movedim(2, 0)[None]
    large = torch.nn.functional.interpolate(large, scale_factor=2.0, mode="bilinear")[0]
    large = extractor.extract(large.movedim(0, 2).numpy())
    fine = extractor.extract(image, finely=True)
    assert (fine.shape, fine.scale, fine.channels) == (own.shape, own.scale, own.channels)
    for k, count in enumerate([16, 24, 40, 112, 320]):
        first, added = fine.levels[k][:-count], fine.levels[k][-count:]
        torch.testing.assert_close(first, own.levels[k])
        torch.testing.assert_close(added, large.levels[k + 1][-count:], atol=0.02, rtol=0.02)
    torch.testing.assert_close(fine.levels[5], own.levels[5])
    assert sum(fine.groups) == sum(len(level) for level in fine.levels)


def test_depth_makes_no_difference(extractor):
    image, _ = draw(0, (64, 64))
    eight = extractor.extract(image)
    extractor._range = None
    sixteen = extractor.extract(image.astype(np.uint16) * 257)
    for a, b in zip(eight.levels, sixteen.levels, strict=True):
        torch.testing.assert_close(a, b, atol=0.05, rtol=0.01)


def test_a_plain_image_has_finite_features(extractor):
    found = extractor.extract(np.full((40, 40, 3), 7, np.uint8))
    assert all(level.isfinite().all() for level in found.levels)


def test_brightness_is_measured_by_the_first_image(extractor):
    image, _ = draw(0, (64, 64))
    first = extractor.extract(image).levels[0][0, :64, :64].float()
    darker = extractor.extract(image // 2).levels[0][0, :64, :64].float()
    assert abs(first.mean()) < 0.01
    assert darker.mean() < -1


def test_a_grey_image_among_colours_is_described_like_them(extractor):
    image, _ = draw(0, (64, 64), 3)
    grey = image.mean(2, keepdims=True).astype(np.uint8)
    three, one = extractor.extract(image), extractor.extract(grey)
    assert one.groups == three.groups
    with pytest.raises(InputError):
        extractor.extract(np.concatenate([image, image], axis=2))


def test_a_large_image_is_described_at_half_its_size(extractor, monkeypatch):
    monkeypatch.setattr(features_module, "MAX_PIXELS", 64 * 64)
    image, _ = draw(0, (101, 99), 3)
    found = extractor.extract(image)
    assert found.shape == (51, 50)
    assert found.scale == 2


def test_features_between_cells_are_interpolated(extractor):
    found = extractor.extract(draw(0, (64, 64))[0])
    two = found.levels[1].float()  # two pixels a cell
    columns = slice(len(found.levels[0]), len(found.levels[0]) + len(two))
    # Pixel 4 lies a quarter of a cell before the centre of cell 2, pixel 5 as far behind it.
    got = found.at(np.array([4, 0]), np.array([5, 0]))[:, columns]
    rows = 0.75 * two[:, 2] + 0.25 * two[:, 1]
    torch.testing.assert_close(got[0], 0.75 * rows[:, 2] + 0.25 * rows[:, 3])
    torch.testing.assert_close(got[1], two[:, 0, 0])


def test_pixels_of_a_large_image_are_found_in_the_reduced_picture(extractor, monkeypatch):
    image, _ = draw(0, (128, 128))
    monkeypatch.setattr(features_module, "MAX_PIXELS", 64 * 64)
    found = extractor.extract(image)
    finest = found.levels[0].float()
    got = found.at(np.array([20, 21]), np.array([33, 33]))[:, : len(finest)]
    middle = (finest[:, 9:12, 16] * 0.75 + finest[:, 9:12, 17] * 0.25).T  # rows 9, 10, 11
    torch.testing.assert_close(got[0], 0.75 * middle[1] + 0.25 * middle[0])
    torch.testing.assert_close(got[1], 0.75 * middle[1] + 0.25 * middle[2])


def test_work_can_be_ended_between_its_steps(extractor):
    calls = []

    def pause():
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extractor.extract(draw(0)[0], pause)
    extractor.extract(draw(0)[0])
    assert len(calls) == 5


@pytest.mark.parametrize("first", [0, 700])
def test_a_blank_first_image_leaves_the_features_of_later_ones_usable(first):
    extractor = Extractor()
    blank = np.full((64, 64, 1), first, np.uint16)
    extractor.extract(blank)
    rng = np.random.default_rng(0)
    image = rng.integers(1000, 9000, (64, 64, 1)).astype(np.uint16)
    found, alone = extractor.extract(image), Extractor().extract(image)
    for level, other in zip(found.levels, alone.levels, strict=True):
        torch.testing.assert_close(level, other)


def test_an_image_far_brighter_than_the_first_has_finite_features():
    extractor, rng = Extractor(), np.random.default_rng(0)
    extractor.extract(rng.integers(100, 110, (64, 64, 1)).astype(np.uint16))
    found = extractor.extract(rng.integers(9000, 60_000, (64, 64, 1)).astype(np.uint16))
    assert all(level.isfinite().all() for level in found.levels)
