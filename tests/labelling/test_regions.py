import numpy as np
import pytest

from tests.support import draw
from unetseg.labelling import regions as regions_module
from unetseg.labelling.regions import find_regions


def purity(regions, mask):
    """Return the share of pixels that are of the commonest class of their region."""
    counts = np.zeros((regions.max() + 1, 3), int)
    np.add.at(counts, (regions, mask), 1)
    return counts.max(1).sum() / mask.size


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_regions_end_at_edges(dtype, channels):
    image, mask = draw(0, (64, 57), channels, dtype)
    regions = find_regions(image)
    assert regions.shape == mask.shape
    assert regions.dtype == np.int32
    assert np.array_equal(np.unique(regions), np.arange(7 * 6))
    assert purity(regions, mask) > 0.97


def test_a_region_is_in_one_piece():
    from scipy import ndimage

    regions = find_regions(draw(1)[0])
    assert all(ndimage.label(regions == number)[1] == 1 for number in np.unique(regions))


def test_a_plain_image_has_regions_too():
    assert find_regions(np.zeros((25, 30, 1), np.uint8)).max() + 1 == 9


def test_a_large_image_is_halved(monkeypatch):
    monkeypatch.setattr(regions_module, "_MAX_PIXELS", 40 * 40)
    image, mask = draw(2, (101, 78))
    regions = find_regions(image)
    assert regions.shape == (26, 20)
    assert purity(regions.repeat(4, 0).repeat(4, 1)[:101, :78], mask) > 0.9
