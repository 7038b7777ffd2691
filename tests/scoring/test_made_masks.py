"""Masks made by any program, as predictions."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import unetseg
from tests.support import NAMES, VALUES_TOML, masks_of, read, write_set
from unetseg.cli.app import main
from unetseg.errors import InputError


def test_a_prediction_is_itself_a_valid_mask(home):
    unetseg.predict(["data/test"])
    by_model, by_masks = unetseg.evaluate(), unetseg.evaluate(predictions="predictions")
    np.testing.assert_array_equal(by_model.scores.confusion, by_masks.scores.confusion)
    shutil.copytree("data/test/images", "again/images")
    shutil.copytree("predictions", "again/masks", ignore=shutil.ignore_patterns("overlays"))
    assert unetseg.evaluate("again").scores.mean_iou == 1


def test_masks_of_any_program_are_scored_by_hand_worked_numbers(empty):
    Path("truth/images").mkdir(parents=True)
    for folder in ("truth/masks", "made"):
        Path(folder).mkdir()
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint8)
    guess = np.array([[0, 1, 1, 1], [0, 0, 1, 0]], np.uint8)
    Image.fromarray(truth * 9).save("truth/images/a.png")
    Image.fromarray(truth).save("truth/masks/a.png")
    Image.fromarray(guess).save("made/a.tif")
    found = unetseg.evaluate("truth", predictions="made").scores
    assert found.confusion.tolist() == [[3, 1], [1, 3]]
    assert found.iou == {"0": pytest.approx(3 / 5), "1": pytest.approx(3 / 5)}
    assert found.pixel_accuracy == pytest.approx(6 / 8)


def test_two_masks_of_one_stem_are_an_error(empty):
    write_set("truth", 3)
    shutil.copytree("truth/masks", "made")
    tifffile.imwrite("made/im1.tif", np.zeros((64, 56), np.uint8))
    tifffile.imwrite("made/other.tif", np.zeros((3, 3), np.uint8))
    shutil.copy("made/im0.png", "made/other.png")
    with pytest.raises(InputError, match=r"im1.tif: im1.png has the same stem; keep one"):
        unetseg.evaluate("truth", predictions="made")
    Path("made/im1.tif").unlink()
    assert unetseg.evaluate("truth", predictions="made").scores.mean_iou == 1


def test_masks_of_several_pages_are_scored_by_the_page_named(empty):
    Path("truth/images").mkdir(parents=True)
    for folder in ("truth/masks", "made"):
        Path(folder).mkdir()
    mask = np.array([[0, 0, 1], [1, 0, 1]], np.uint8)
    for path in ("truth/images/a.tif", "truth/masks/a.tif", "made/a.tif"):
        tifffile.imwrite(path, np.stack([np.zeros_like(mask), mask]), photometric="minisblack")
    with pytest.raises(InputError, match="holds 2 pages"):
        unetseg.evaluate("truth", predictions="made")
    settings = unetseg.PredictSettings(page=1)
    found = unetseg.evaluate("truth", predictions="made", settings=settings).scores
    assert found.confusion.tolist() == [[3, 0], [0, 3]]


def test_values_to_ignore_and_classes_may_be_given_for_masks_of_any_program(empty):
    write_set("set", 2, values=(0, 7, 9), toml=None, ignored=255)
    shutil.copytree("set/masks", "made")
    with pytest.raises(InputError, match="ignore=255"):
        unetseg.evaluate("set", predictions="made")
    found = unetseg.evaluate("set", predictions="made", ignore=(255,)).scores
    assert found.classes == ("0", "7", "9")
    assert found.confusion.sum() == 2 * 59 * 56
    text = "".join(f'[[class]]\nname = "c{v}"\nvalue = {v}\n' for v in (0, 7, 9))
    Path("mine.toml").write_text(text)
    found = unetseg.evaluate("set", predictions="made", classes="mine.toml", ignore=(255,)).scores
    assert found.classes == ("c0", "c7", "c9")
    path = next(Path("made").iterdir())
    Image.fromarray(np.full((64, 56), 255, np.uint8)).save(path)
    with pytest.raises(InputError, match=r"3,304 ignored pixels where .* first at \(x 0, y 5\)"):
        unetseg.evaluate("set", predictions="made", ignore=(255,))


def test_with_a_model_masks_are_read_as_those_that_it_writes(home):
    unetseg.predict(["data/test"])
    before = unetseg.evaluate(predictions="predictions").scores
    text = "".join(f'[[class]]\nname = "{n}"\nvalue = {v + 5}\n' for v, n in enumerate(NAMES))
    Path("data/test/classes.toml").write_text(text)
    for path in Path("data/test/masks").iterdir():
        Image.fromarray(read(path) + 5).save(path)
    with pytest.raises(InputError):
        unetseg.evaluate(predictions="predictions")
    found = unetseg.evaluate(predictions="predictions", model=["default"]).scores
    np.testing.assert_array_equal(found.confusion, before.confusion)


def test_masks_that_do_not_fit_are_named(home):
    with pytest.raises(InputError, match=r"made: not found"):
        unetseg.evaluate(predictions="made")
    Path("made").mkdir()
    for stem, mask in masks_of("data/test/masks").items():
        Image.fromarray(mask[:50] if stem == "im101" else mask).save(f"made/{stem}.png")
    with pytest.raises(InputError, match=r"im101.png: 50 x 56 pixels, the truth has 64 x 56"):
        unetseg.evaluate(predictions="made")
    Path("made/im102.png").unlink()
    with pytest.raises(InputError, match="no mask for im102"):
        unetseg.evaluate(predictions="made")
    shutil.rmtree("data/test")
    with pytest.raises(InputError, match="true masks"):
        unetseg.evaluate(predictions="made")


def test_predictions_of_colours_are_scored_without_classes_toml(empty):
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)], np.uint8)
    write_set("set", 2, toml=None)
    Path("made").mkdir()
    for path in Path("set/masks").iterdir():
        mask = read(path)
        Image.fromarray(colours[mask]).save(path)
        indexed = Image.fromarray(mask)
        indexed.putpalette(colours.tobytes())
        indexed.save(Path("made") / path.name)
    assert unetseg.evaluate("set", predictions="made").scores.mean_iou == 1


def test_true_masks_scored_against_themselves_are_said(home):
    seen = []
    for made in ("data/test/masks", "predictions"):
        unetseg.predict(["data/test"])
        unetseg.evaluate(predictions=made, on_progress=lambda one: seen.append(str(one)))
        is_said = any("holds the true masks themselves" in one for one in seen)
        assert is_said == (made == "data/test/masks")
        seen.clear()


def test_a_few_pixels_without_a_class_count_as_wrong_wherever_masks_are_looked_at(empty):
    write_set("truth", 5, toml="ignore = [9]\n" + VALUES_TOML)
    shutil.copytree("truth/masks", "made")
    for path in Path("made").iterdir():
        mask = np.array(Image.open(path))
        mask[30, 10:16] = 9
        Image.fromarray(mask).save(path)
    found = unetseg.evaluate("truth", predictions="made", boundary=2)
    assert 0.9 < found.scores.mean_iou < 1
    assert found.boundaries is not None
    assert main(["suspects", "truth", "--predictions", "made"]) == 0
