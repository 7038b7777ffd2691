import numpy as np
import pytest
import torch

from unetseg.network.labels import labels_of


@pytest.mark.parametrize("classes", [1, 2, 11, 255])
def test_the_largest_plane_is_found_and_of_equal_ones_the_first(classes):
    draws = np.random.default_rng(classes).integers(0, 4, (classes, 30, 41))  # many are equal
    planes = torch.from_numpy(draws.astype(np.float32))
    found = labels_of(planes)
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found, draws.argmax(0))
    turned = planes.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # classes lie together in memory
    np.testing.assert_array_equal(labels_of(turned), draws.argmax(0))
    np.testing.assert_array_equal(labels_of(planes[:, 3:9, ::2]), draws[:, 3:9, ::2].argmax(0))
