"""A model in a notebook: any form of an image gives the mask of `predict`, or is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unetseg
from tests.support import QUICK, read, write_set
from unetseg.errors import InputError

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
        (lambda x: x / 255, "image: has floating point numbers, the model was trained on 8 bits"),
        (
            lambda x: x.astype(np.float32) / 255,
            "image: has floating point numbers, the model was trained on 8 bits",
        ),
        (lambda x: x.astype(np.int64).tolist(), "image: has floating point numbers"),
        (lambda x: x.astype(np.uint16), "image: .*16 bits"),
        (lambda x: np.stack([x, 255 - x, x], 2), "image: has 3 channels where one is due"),
        (lambda x: np.stack([x] * 4)[None], "image: an array of the shape"),
        (lambda x: x[:0], "image: an array of the shape"),
        (lambda x: x * np.nan, "image: holds values that are not finite"),
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


def test_bits_are_black_and_white(home):
    model = unetseg.Model("default")
    bits = read(IMAGE) > 128
    np.testing.assert_array_equal(model.labels(bits), model.labels(bits.astype(np.uint8) * 255))
    np.testing.assert_array_equal(model.labels(bits), model.labels(Image.fromarray(bits)))
