"""A model in a notebook: any form of an image gives the mask of `predict`, or is refused."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import unetseg
from tests.support import QUICK, read, write_set
from unetseg.errors import InputError
from unetseg.pictures.reading import as_image
from unetseg.pictures.transforms import convert_depth

IMAGE = "data/test/images/im100.png"


def test_a_path_an_array_and_a_picture_give_the_mask_that_predict_writes(home):
    unetseg.predict(IMAGE)
    mask = read("predictions/im100.png")
    model = unetseg.Model("default")
    grey = read(IMAGE)
    with Image.open(IMAGE) as picture:
        picture.load()
    forms = [IMAGE, Path(IMAGE), grey, grey[..., None], picture, model.read(IMAGE)]
    forms += [picture.convert("RGB"), np.stack([grey] * 3, 2), picture.convert("LA")]
    forms += [grey.astype(dtype) for dtype in ("int16", "int32", "int64", "uint32", "uint64")]
    forms += [grey.tolist(), torch.from_numpy(grey), picture.convert("I")]
    for form in forms:
        np.testing.assert_array_equal(model.labels(form), mask)
    shares = model.probabilities(grey)
    assert shares.shape == (3, 64, 56)
    labels, confidence = model.labels_and_confidence(picture)
    np.testing.assert_array_equal(labels, mask)
    np.testing.assert_allclose(confidence, shares.max(0))


def test_labels_have_the_size_of_the_image_at_any_scale(empty):
    write_set("set", 5)
    patches = unetseg.PatchSettings(size=16, scale=0.5, per_image=2)
    unetseg.train("set", run="half", patches=patches, **QUICK)
    unetseg.predict("set/images/im0.png", model="half")
    model = unetseg.Model("half")
    assert model.read("set/images/im0.png").shape == (64, 56, 1)
    for form in ("set/images/im0.png", read("set/images/im0.png")):
        np.testing.assert_array_equal(model.labels(form), read("predictions/im0.png"))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda x: x / 255,
            r"^image: holds float64 from 0\.\d+ to 0\.\d+, the model was trained on 8 bits; "
            r"give \(image \* 255\)\.round\(\)\.astype\('uint8'\)$",
        ),
        (
            lambda x: x.astype(np.float32),
            r"^image: holds float32 from \d+ to \d+, the model was trained on 8 bits; "
            r"give uint8 with values as in the training images$",
        ),
        (lambda x: x.astype(np.int64) * 100, r"^image: holds int64 from \d+00 to \d+00, .*8 bits"),
        (lambda x: -x.astype(np.int16), r"^image: holds int16 from -\d+ to -\d+, .*8 bits"),
        (
            lambda x: torch.full((64, 56), 0.5, requires_grad=True),
            "image: holds float32 from 0.5 to 0.5",
        ),
        (lambda x: [[1, 2], [3]], "^image: a list that is no array; give a path, a picture"),
        (lambda x: io.BytesIO(Path(IMAGE).read_bytes()), "image: holds object"),
        (
            lambda x: np.stack([x] * 3),
            r"^image: an array of the shape \(3, 64, 56\), whose first axis seems to be the "
            r"channels; give numpy\.moveaxis\(image, 0, 2\)$",
        ),
        (lambda x: x[None], r"image: an array of the shape \(1, 64, 56\), whose first axis"),
        (lambda x: x.astype(np.uint16), "image: .*16 bits"),
        (lambda x: np.stack([x, 255 - x, x], 2), "image: has 3 channels where one is due"),
        (lambda x: np.stack([x] * 4)[None], "image: an array of the shape"),
        (lambda x: x[:0], "image: an array of the shape"),
        (lambda x: x * np.nan, "image: holds values that are not finite"),
        (lambda x: x - np.float32(3.4e38), r"image: holds -3.4e\+38, which stands for no data"),
        (lambda x: None, "image: holds object"),
        (lambda x: Image.fromarray(x).convert("CMYK"), "image: colours of kind CMYK"),
        (lambda x: "no.png", "no.png: not found"),
    ],
)
def test_an_image_of_another_kind_is_refused_in_the_words_of_predict(home, change, problem):
    model = unetseg.Model("default")
    for work in (model.labels, model.probabilities, model.labels_and_confidence, model.read):
        with pytest.raises(InputError, match=problem):
            work(change(read(IMAGE)))


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_a_file_of_signed_numbers_is_refused_by_that_name(home, tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", read(IMAGE).astype(dtype))
    bits = 8 * np.dtype(dtype).itemsize
    with pytest.raises(InputError, match=f"a.tif: has signed {bits}-bit numbers, .*on 8 bits;"):
        unetseg.Model("default").labels(tmp_path / "a.tif")


def test_bits_are_black_and_white(home):
    model = unetseg.Model("default")
    bits = read(IMAGE) > 128
    np.testing.assert_array_equal(model.labels(bits), model.labels(bits.astype(np.uint8) * 255))
    np.testing.assert_array_equal(model.labels(bits), model.labels(Image.fromarray(bits)))
    for dtype in (np.uint16, np.float32):  # other models do not take them for their numbers
        with pytest.raises(InputError, match="has 8 bits, the model was trained on"):
            convert_depth(as_image(bits, 1, np.dtype(dtype)), np.dtype(dtype), "image")


def test_whole_numbers_of_any_type_are_16_bits_where_they_cannot_be_8():
    deep = np.array([[0, 256], [4095, 65535]])
    for dtype in (np.int32, np.int64, np.uint32):
        found = as_image(deep.astype(dtype), 1, np.dtype(np.uint16))
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found[..., 0], deep)
    for doubtful in (deep // 257, deep + 1, deep - 1):
        with pytest.raises(InputError, match="the model was trained on 16 bits; give uint16 with"):
            as_image(doubtful, 1, np.dtype(np.uint16))
    assert as_image(deep - 1, 1, np.dtype(np.float32)).dtype == np.float32
