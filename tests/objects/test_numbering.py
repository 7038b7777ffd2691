"""Sets of masks that number objects, and sets that hold classes, drawn by NumPy and SciPy alone."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.support import DATA
from unetseg.errors import Code
from unetseg.objects.numbering import doubt_classes, doubt_numbers, measure_numbers
from unetseg.pictures.masks import RawMask, find_keys

SHAPE = (160, 200)
ROWS, COLUMNS = np.mgrid[: SHAPE[0], : SHAPE[1]]


def disc(row, column, radius):
    return (ROWS - row) ** 2 + (COLUMNS - column) ** 2 <= radius**2


def cells(seed, count):
    """Return discs that do not touch, numbered row by row as most programs do."""
    rng, drawn = np.random.default_rng(seed), np.zeros(SHAPE, bool)
    placed = 0
    while placed < count:
        radius = rng.integers(6, 13)
        one = (rng.integers(2, SHAPE[0] - 2), rng.integers(2, SHAPE[1] - 2))
        if not (drawn & disc(*one, radius + 2)).any():
            drawn |= disc(*one, radius)
            placed += 1
    return ndimage.label(drawn)[0].astype(np.uint8)


def cut_in_two(mask):
    """Move the right half of the first object to a far corner."""
    mask = mask.copy()
    columns = np.nonzero(mask == 1)[1]
    mask[(mask == 1) & (np.median(columns) < COLUMNS)] = 0
    mask[-3:, -12:] = 1
    return mask


def with_gaps(mask, seed):
    """Delete three objects, as a filter by size does."""
    gone = np.random.default_rng(seed).choice(np.arange(1, mask.max()), 3, replace=False)
    return np.where(np.isin(mask, gone), np.uint8(0), mask)


def shuffled(mask, seed):
    order = np.random.default_rng(seed).permutation(int(mask.max())) + 1
    return np.append(0, order).astype(np.uint8)[mask]


def organs(seed, present=range(1, 6)):
    """Return one area for each class, each of its own size and place, moved a little."""
    rng, mask = np.random.default_rng(seed), np.zeros(SHAPE, np.uint8)
    homes = [(40, 40, 30), (45, 130, 20), (110, 60, 12), (120, 150, 25), (80, 100, 6)]
    for value in present:
        row, column, radius = homes[value - 1]
        mask[disc(row + rng.integers(-5, 6), column + rng.integers(-5, 6), radius)] = value
    return mask


def with_lesion(seed):
    """Return a large area anywhere, and in half of the masks a small one inside."""
    rng = np.random.default_rng(seed)
    row, column = rng.integers(40, 120), rng.integers(40, 160)
    mask = disc(row, column, 35).astype(np.uint8)
    if seed % 2:
        mask[disc(row + rng.integers(-20, 21), column + rng.integers(-20, 21), 6)] = 2
    return mask


def with_lumen(seed):
    """Return a thick ring anywhere, filled by a second class in half of the masks."""
    rng = np.random.default_rng(seed)
    place, radius = (rng.integers(40, 120), rng.integers(40, 160)), rng.integers(8, 35)
    mask = disc(*place, radius).astype(np.uint8)
    mask[disc(*place, radius * 0.7)] = 2 if seed % 2 else 0
    return mask


def scene(seed):
    """Return eight classes in patches without any order; four to eight in an image."""
    rng = np.random.default_rng(seed)
    kept = rng.choice(np.arange(1, 9), rng.integers(4, 9), replace=False)
    return np.kron(rng.choice(np.append(0, kept), (8, 10)), np.ones((20, 20))).astype(np.uint8)


def paint(mask, seed):
    """Return each number in a colour of its own, other colours in each image."""
    colours = np.random.default_rng(seed).integers(40, 255, (256, 3)).astype(np.uint8)
    colours[0] = 0
    return colours[mask]


COUNTS = [9, 11, 13, 10, 12, 9, 13, 11, 10, 12]
ONE_TO_THREE = [1, 2, 3, 2, 1, 3, 2, 3, 1, 2, 3, 2]
FEW = [3, 5, 4, 5, 3, 4, 5, 4]
OBJECTS = {
    "the same number of many": [cells(i, 9) for i in range(4)],
    "1 to k": [cells(i, n) for i, n in enumerate(COUNTS)],
    "two objects in two pieces": [
        cut_in_two(cells(i, n)) if i < 2 else cells(i, n) for i, n in enumerate(COUNTS)
    ],
    "gaps": [with_gaps(cells(i, n), i) for i, n in enumerate(COUNTS)],
    "in no order": [shuffled(cells(i, n), i) for i, n in enumerate(COUNTS)],
    "one image": [cells(1, 20)],
    "random colours": [paint(cells(i, n), i) for i, n in enumerate(COUNTS)],
    "few, 16 bits": [cells(i, n).astype(np.uint16) for i, n in enumerate(FEW)],
    "some masks empty": [cells(i, n) * np.uint8(i != 3) for i, n in enumerate(COUNTS)],
}
OPEN = {
    "few": [cells(i, n) for i, n in enumerate(FEW)],
    "one to three": [cells(i, n) for i, n in enumerate(ONE_TO_THREE)],
    "one to three, numbered by columns": [
        np.ascontiguousarray(cells(i, n).T) for i, n in enumerate(ONE_TO_THREE)
    ],
    "one to three in no order, 16 bits": [
        shuffled(cells(i, n), i).astype(np.uint16) for i, n in enumerate(ONE_TO_THREE)
    ],
    "one or two": [cells(i, 1 + i % 2) for i in range(18)],
    "few, gaps": [with_gaps(cells(i, n + 3), i) for i, n in enumerate(FEW)],
}
CLASSES = {
    "two values": [(cells(i, n) > 0).astype(np.uint8) for i, n in enumerate(COUNTS)],
    "organs": [organs(i) for i in range(8)],
    "eight organs": [
        np.concatenate([organs(i), np.where(organs(50 + i) < 4, 5 + organs(50 + i), 0)])
        for i in range(6)
    ],
    "organs, 16 bits": [organs(i).astype(np.uint16) for i in range(8)],
    "slices that show some organs": [
        organs(i, np.random.default_rng(i).choice(range(1, 6), 3 + i % 3, replace=False))
        for i in range(10)
    ],
    "slices that show the first organs": [organs(i, range(1, 4 + i % 3)) for i in range(10)],
    "scenes": [scene(i) for i in range(10)],
    "one image of organs": [organs(0)],
    "the same number of cells": [cells(i, 4) for i in range(8)],
    "two cells in each": [cells(i, 2) for i in range(12)],
    "one to three in no order": [shuffled(cells(i, n), i) for i, n in enumerate(ONE_TO_THREE)],
    "few masks of one or two": [cells(i, 1 + i % 2) for i in range(8)],
    "one or two organs": [organs(i, range(1, 2 + i % 2)) for i in range(18)],
    "one or the other organ": [organs(i, [1 + i % 3]) for i in range(18)],
    "an organ with a lesion in it": [with_lesion(i) for i in range(18)],
    "an organ with a lesion in it, 16 bits": [with_lesion(i).astype(np.uint16) for i in range(18)],
    "wall and lumen": [with_lumen(i) for i in range(18)],
    "0 and 255 beside": [organs(i) + np.uint8(255) * (organs(i) == 5) for i in range(6)],
}


def judged(masks, name="img_{}"):
    found = {}
    for i, values in enumerate(masks):
        raw = RawMask(values)
        found[Path(name.format(i) + ".png")] = measure_numbers(raw, find_keys(raw))
    error = doubt_classes(found)
    return error and error.code


@pytest.mark.parametrize("kind", OBJECTS)
def test_values_that_number_objects_are_recognised(kind):
    assert judged(OBJECTS[kind]) is Code.OBJECT_NUMBERS


@pytest.mark.parametrize("kind", OPEN)
def test_few_objects_are_asked_about(kind):
    assert judged(OPEN[kind]) is Code.OBJECTS_OR_CLASSES


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_are_never_taken_for_objects(kind):
    assert judged(CLASSES[kind]) is None


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real data")
@pytest.mark.parametrize("side", [96, 360])
def test_road_scenes_and_crops_of_them_are_classes(side):
    scenes = [
        np.asarray(Image.open(p)) for p in sorted((DATA / "camvid-100/masks").glob("*.png"))[::4]
    ]
    rng = np.random.default_rng(0)
    for _ in range(10):
        crops = []
        for mask in scenes:
            row, column = (rng.integers(0, length - side + 1) for length in mask.shape)
            crops.append(mask[row : row + side, column : column + side])
        assert judged(crops) is None


@pytest.mark.parametrize("name", ["img_{}_cp_masks", "img_{}-lbl", "img_{}_instances"])
def test_the_names_that_programs_give_to_numbered_objects_count(name):
    assert judged([cells(i, 4) for i in range(8)], name) is Code.OBJECT_NUMBERS
    assert judged([scene(i) for i in range(8)], name) is None


def test_names_of_label_images_settle_what_is_open():
    assert judged(OPEN["few"], "img_{}_labels") is Code.OBJECT_NUMBERS
    assert judged(CLASSES["organs"], "img_{}_labels") is None


def test_noise_and_empty_masks_are_no_numbers():
    noise = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
    raw = RawMask(noise)
    assert measure_numbers(raw, find_keys(raw)) is None
    assert judged([np.zeros(SHAPE, np.uint8)] * 3) is None


def test_black_and_white_masks_and_those_of_classes_number_no_objects():
    numbered = [(Path(f"{seed}.png"), cells(seed, 8)) for seed in range(6)]
    torn = [(path, cut_in_two(mask)) for path, mask in numbered]
    lone = [(Path("lone.png"), cut_in_two(cells(7, 1)))]  # one object, hidden in the middle
    assert doubt_numbers(numbered) is doubt_numbers(torn + lone) is None
    assert doubt_numbers([(Path("empty.png"), np.zeros(SHAPE, np.int32))]) is None
    white = [(Path(f"white{path.name}"), np.int32(mask > 0)) for path, mask in numbered[:2]]
    assert doubt_numbers([*numbered, *white]).what == "white0.png"
    classes = [(path, np.where(mask > 0, mask % 2 + 1, 0)) for path, mask in numbered]
    assert doubt_numbers(classes).what == "0.png"


@pytest.mark.parametrize("numbered", [3, 1])
def test_masks_of_one_value_beside_numbered_objects_are_two_kinds(numbered):
    masks = [cells(i, 9) if i < numbered else (cells(i, 9) > 0).astype(np.uint8) for i in range(10)]
    found = {}
    for i, values in enumerate(masks):
        raw = RawMask(values)
        found[Path(f"img_{i}.png")] = measure_numbers(raw, find_keys(raw))
    error = doubt_classes(found)
    assert error
    assert error.what == f"img_{numbered}.png"
    assert f"two kinds of masks in one set ({10 - numbered} and {numbered})" in str(error)
