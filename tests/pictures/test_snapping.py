import numpy as np
import pytest

from unetseg.classes import ClassTable, SegmentationClass
from unetseg.errors import InputError
from unetseg.pictures.masks import RawMask
from unetseg.pictures.snapping import snap


def test_blends_are_judged_by_the_keys_that_a_mask_holds():
    """Grey lies between black and white, but the first mask holds no white."""
    table = ClassTable(
        (
            SegmentationClass("ground", None, "#000000"),
            SegmentationClass("block", None, "#ff0000"),
            SegmentationClass("bar", None, "#808080"),
        ),
        ("#ffffff",),
    )
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, 20:] = (255, 0, 0)
    pixels[5:15, 5:15] = 128
    pixels[:, 20] = (100, 0, 0)
    snapped = snap(RawMask(pixels), table, "mask")
    assert snapped.mask[8, 8] == 2
    assert snapped.mask[30, 20] == 0
    assert snapped.blended == 40
    pixels[30:38, 2:10] = 255
    with pytest.raises(InputError, match="look like class #808080"):
        snap(RawMask(pixels), table, "mask")
    ignored = ClassTable(
        (*table.classes[:2], SegmentationClass("sky", None, "#ffffff")), ("#808080",)
    )
    assert snap(RawMask(pixels), ignored, "mask").mask[8, 8] == 255
