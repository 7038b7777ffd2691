"""Pixels that show no scene get no class: ignored areas, cropped edges, fields of view."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import unetseg
from tests.support import QUICK, VALUES_TOML, draw, read, write_image, write_set
from unetseg.classes import IGNORED
from unetseg.errors import InputError
from unetseg.pictures import tiff
from unetseg.prediction.summary import read_summary
from unetseg.progress import Note

SETTINGS = {"patches": unetseg.PatchSettings(size=32, per_image=4), **QUICK}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder whose masks ignore rows 0 to 4, the run trained on it, and the training's output."""
    home, said, before = tmp_path_factory.mktemp("strip"), [], Path.cwd()
    os.chdir(home)
    try:
        write_set("set", 8, toml="ignore = [9]\n" + VALUES_TOML, ignored=9)
        unetseg.train("set", on_progress=said.append, **SETTINGS)
        write_image(Path("new"), draw(50)[0])
        write_image(Path("wide"), draw(50, (64, 90))[0])
    finally:
        os.chdir(before)
    return home, [str(one) for one in said if isinstance(one, Note)]


@pytest.fixture
def strip(trained, monkeypatch, tmp_path):
    """The folder of `trained`, and an empty folder for the output."""
    monkeypatch.chdir(trained[0])
    return tmp_path


def test_an_area_that_training_ignores_is_ignored_in_all_that_predict_writes(strip, trained):
    assert any("7.8 % of the pixels are ignored in every image" in note for note in trained[1])
    done = unetseg.predict(["new.png", "wide.png"], out=strip, objects=["all"], overlay=True)
    mask = read(strip / "new.png")
    assert (mask[:5] == 9).all()
    assert (mask[5:] != 9).all()
    rows = [row for row in read_summary(done.summary) if row[0] == "new.png"]
    assert sum(int(row[2]) for row in rows) == (64 - 5) * 56
    assert (tifffile.imread(strip / "objects/new.tif")[:5] == 0).all()
    overlay = read(strip / "overlays/new.png")[:4, :56]
    assert (overlay == overlay[..., :1]).all()  # grey on grey: no class is painted there
    assert (read(strip / "wide.png") != 9).all()  # of another size nothing is known


def test_the_library_and_scores_leave_the_same_area_out(strip):
    model = unetseg.Model(["default"])
    labels = model.labels(model.read(Path("new.png")))
    assert (labels[:5] == IGNORED).all()
    assert (labels[5:] != IGNORED).all()
    write_set(strip / "test", 2, first=60, toml=VALUES_TOML)  # labelled up to the edge
    found = unetseg.evaluate(strip / "test").scores
    assert found.confusion.sum() == 2 * (64 - 5) * 56


def test_masks_of_a_model_are_scored_without_the_area_that_it_ignores(strip):
    write_set(strip / "test", 2, first=60, toml=VALUES_TOML)  # labelled up to the edge
    unetseg.predict(strip / "test", out=strip / "made")
    Path(strip / "test/classes.toml").write_text("ignore = [9]\n" + VALUES_TOML)
    with pytest.raises(InputError, match=r"280 ignored pixels .* name it: model$"):
        unetseg.evaluate(strip / "test", predictions=strip / "made")
    by_model = unetseg.evaluate(strip / "test").scores
    by_masks = unetseg.evaluate(strip / "test", predictions=strip / "made", model="default").scores
    assert by_masks.confusion.sum() == 2 * (64 - 5) * 56
    np.testing.assert_array_equal(by_masks.confusion, by_model.confusion)
    hole = read(strip / "made/im60.png")
    hole[30:40, 7] = 9
    Image.fromarray(hole).save(strip / "made/im60.png")
    said = []
    given = {"predictions": strip / "made", "model": "default", "on_progress": said.append}
    holed = unetseg.evaluate(strip / "test", **given).scores.confusion
    assert "10 pixels, 0.15 % of those scored, have no class in the masks" in str(said[-1])
    np.testing.assert_array_equal(holed.sum(1), by_model.confusion.sum(1))
    truth = read(strip / "test/masks/im60.png")[30:40, 7]
    was = unetseg.Model("default").labels(strip / "test/images/im60.png")[30:40, 7]
    wrong = np.where(truth == 0, 1, 0)
    expected = by_model.confusion.copy()
    np.subtract.at(expected, (truth, was), 1)
    np.add.at(expected, (truth, wrong), 1)
    np.testing.assert_array_equal(holed, expected)
    hole[20:45, 7:10] = 9  # more than a hundredth
    Image.fromarray(hole).save(strip / "made/im60.png")
    with pytest.raises(InputError, match=r"75 ignored pixels .* \(x 7, y 20\); .* true mask$"):
        unetseg.evaluate(strip / "test", **given)


def test_the_area_that_training_ignores_is_said_once_and_can_be_given_a_class(strip):
    write_set(strip / "test", 2, first=60, toml=VALUES_TOML)  # labelled up to the edge
    said = []
    unetseg.predict(strip / "test", out=strip / "made", on_progress=said.append)
    notes = [str(one) for one in said if "as in training" in str(one)]
    text = "7.8 % of the pixels of 64 x 56 are ignored, as in training; whole=True includes them"
    assert notes == [text]
    whole, said = unetseg.PredictSettings(whole=True), []
    given = {"out": strip / "made", "settings": whole, "on_progress": said.append}
    assert len(unetseg.predict(strip / "test", **given).written) == 2
    assert not [one for one in said if "as in training" in str(one)]
    assert (read(strip / "made/im60.png") != 9).all()
    given = {"predictions": strip / "made", "model": "default", "settings": whole}
    by_masks = unetseg.evaluate(strip / "test", **given).scores.confusion
    by_model = unetseg.evaluate(strip / "test", settings=whole).scores.confusion
    assert by_model.sum() == 2 * 64 * 56
    np.testing.assert_array_equal(by_masks, by_model)


def test_edges_are_cropped_in_predict_as_they_were_in_training(strip, empty):
    write_set("plain", 6)
    patches = unetseg.PatchSettings(size=32, per_image=4, crop="bottom=6")
    unetseg.train("plain", run="cropped", **{**SETTINGS, "patches": patches})
    unetseg.predict(["plain"], model="cropped", out="masks")
    assert (read("masks/im0.png")[-6:] == 255).all()
    assert (read("masks/im0.png")[:-6] < 3).all()
    wider = unetseg.PredictSettings(crop="right=3")
    unetseg.predict(["plain"], model="cropped", out="masks", settings=wider)
    assert (read("masks/im0.png")[:, -3:] == 255).all()
    assert (read("masks/im0.png")[:-6, :-3] < 3).all()
    assert (read("masks/im0.png")[-6:] == 255).all()  # there, no model has learned anything
    whole = unetseg.PredictSettings(crop="right=3", whole=True)
    unetseg.predict(["plain"], model="cropped", out="masks", settings=whole)
    assert (read("masks/im0.png")[:, -3:] == 255).all()
    assert (read("masks/im0.png")[:, :-3] < 3).all()


def test_outside_the_field_of_view_nothing_is_predicted(strip):
    (strip / "fov").mkdir()
    view = np.zeros((64, 56), np.uint8)
    view[10:50, 8:40] = 255
    Image.fromarray(view).save(strip / "fov/new_mask.png")
    done = unetseg.predict(["new.png"], out=strip / "out", fov=strip / "fov")
    np.testing.assert_array_equal(read(strip / "out/new.png") == 9, view == 0)
    assert done.written
    assert unetseg.predict(["new.png"], out=strip / "out", fov=strip / "fov").skipped
    view[10] = 0
    Image.fromarray(view).save(strip / "fov/new_mask.png")
    assert unetseg.predict(["new.png"], out=strip / "out", fov=strip / "fov").written
    with pytest.raises(InputError, match="without mask"):
        unetseg.predict(["new.png", "wide.png"], out=strip / "out", fov=strip / "fov")


def test_an_image_of_another_size_than_the_ignored_area_is_said(strip):
    said = []
    write_image(strip / "also", draw(51, (64, 90))[0])
    inputs = ["new.png", "wide.png", strip / "also.png"]
    unetseg.predict(inputs, out=strip / "out", on_progress=said.append)
    text = (
        "training ignored 7.8 % of the pixels of 64 x 56; wide.png has 64 x 90, so they get a "
        "class there"
    )
    assert [one.text for one in said if isinstance(one, Note) and one.warning] == [text]
    scored, notes = strip / "scored", []
    write_set(scored, 1, first=70, toml="ignore = [9]\n" + VALUES_TOML)
    for folder, pixels in zip(("images", "masks"), draw(51, (64, 90)), strict=True):
        Image.fromarray(np.squeeze(pixels)).save(scored / folder / "wide.png")
    unetseg.evaluate(scored, on_progress=notes.append)
    assert [one.text for one in notes if isinstance(one, Note) and one.warning] == [text]
    whole, said = unetseg.PredictSettings(whole=True), []
    unetseg.predict(["wide.png"], out=strip / "out", settings=whole, on_progress=said.append)
    (strip / "fov").mkdir()
    Image.fromarray(np.full((64, 90), 255, np.uint8)).save(strip / "fov/wide.png")
    given = {"fov": strip / "fov", "on_progress": said.append}
    unetseg.predict(["wide.png"], out=strip / "out", **given)
    assert not [one for one in said if isinstance(one, Note) and one.warning]


def test_a_folder_of_labels_or_negatives_is_no_field_of_view(strip):
    (strip / "fov").mkdir()
    labels = np.zeros((64, 56), np.uint8)
    labels[::6] = 255
    Image.fromarray(labels).save(strip / "fov/new.png")
    said = []
    unetseg.predict(["new.png"], out=strip / "out", fov=strip / "fov", on_progress=said.append)
    (doubt,) = [str(one) for one in said if isinstance(one, Note) and one.warning]
    assert "fov/new.png has 22 regions, as labels have, where a field of view has one; pix" in doubt
    y, x = np.indices((64, 56))
    rim = (y - 32) ** 2 + (x - 28) ** 2 > 28**2
    Image.fromarray(rim * np.uint8(255)).save(strip / "fov/new.png")
    with pytest.raises(InputError, match=r"fov/new.png: holds the surround .*; exchange black"):
        unetseg.predict(["new.png"], out=strip / "none", fov=strip / "fov")
    assert not (strip / "none").exists()


@pytest.mark.parametrize("kind", ["alpha", "nodata"])
def test_an_image_with_gaps_is_decoded_once_and_its_overlay_is_black_there(
    strip, monkeypatch, kind
):
    image = draw(50)[0][..., 0]
    shown = np.full(image.shape, 255, np.uint8)
    shown[:20, :30] = 0
    given = {"tile": (16, 16), "compression": "adobe_deflate"}
    if kind == "alpha":
        pixels, given = np.dstack([image, shown]), given | {"extrasamples": ["unassalpha"]}
    else:
        pixels = np.where(shown, np.maximum(image, 1), 0).astype(np.uint8)
        given |= {"extratags": [(42113, "s", 0, "0", True)]}
    tifffile.imwrite(strip / "gaps.tif", pixels, photometric="minisblack", **given)
    decoded, decode = [], tiff._Tiles._decode
    monkeypatch.setattr(
        tiff._Tiles, "_decode", lambda self, row: decoded.append(row) or decode(self, row)
    )
    done = unetseg.predict([strip / "gaps.tif"], out=strip / "out", objects=["all"], overlay=True)
    assert done.written
    assert sorted(decoded) == [0, 1, 2, 3]
    model = unetseg.Model("default")
    for found in (
        model.labels(strip / "gaps.tif"),
        model.labels_and_confidence(strip / "gaps.tif")[0],
    ):
        np.testing.assert_array_equal(found == IGNORED, read(strip / "out/gaps.png") == 9)
    labels = read(strip / "out/gaps.png")
    assert (labels[shown == 0] == 9).all()
    assert (labels[5:][shown[5:] > 0] != 9).all()
    overlay = read(strip / "out/overlays/gaps.png")[:64, :56]
    assert set(np.unique(overlay[1:19, 1:29])) == {55, 85}  # black below grey hatches
    assert overlay[21:].max() > 100


def test_training_says_what_becomes_of_pixels_ignored_here_and_there(empty):
    write_set("set", 6, toml="ignore = [9]\n" + VALUES_TOML)
    for k, path in enumerate(sorted(Path("set/masks").iterdir())):
        mask = read(path)
        mask[8 * k : 8 * k + 20, 10:50] = 9
        Image.fromarray(mask).save(path)
    said = []
    unetseg.build_store("set", "p.h5", SETTINGS["patches"], on_progress=said.append)
    assert any("22 % of the pixels are ignored in one image and not" in str(n) for n in said)
    assert unetseg.open_store("p.h5").info.ignored_area is None


def test_where_an_image_has_no_data_no_class_is_trained_counted_or_scored(empty):
    write_set("set", 6)
    hidden, counted = np.zeros(3, int), np.zeros(3, int)
    for k, path in enumerate(sorted(Path("set/images").iterdir())):
        image, mask = np.maximum(read(path), 1), read(f"set/masks/{path.stem}.png")
        image[8 * k : 8 * k + 10, 5:40] = 0
        hidden += np.bincount(mask[image == 0], minlength=3)
        counted += np.bincount(mask[image > 0], minlength=3)
        path.unlink()
        declared = [(42113, "s", 0, "0", True)]
        tifffile.imwrite(path.with_suffix(".tif"), image, extratags=declared)
    said = []
    unetseg.build_store("set", "p.h5", SETTINGS["patches"], on_progress=said.append)
    notes = [str(one) for one in said if isinstance(one, Note)]
    assert "9.8 % of the pixels have no data: train and predict ignore them" in notes
    assert not [note for note in notes if "in one image and not in another" in note]
    assert hidden.sum() == 6 * 350
    found = unetseg.inspect_folder("set")
    assert found.counts.sum(0).tolist() == counted.tolist()
    unetseg.train("p.h5", **QUICK)
    scores = unetseg.evaluate("set", include_trained=True).scores
    assert scores.confusion.sum(1).tolist() == counted.tolist()
    unetseg.predict("set", out="made")
    made = unetseg.evaluate("set", predictions="made", settings=None).scores
    np.testing.assert_array_equal(made.confusion, scores.confusion)


@pytest.mark.parametrize("ignored", [None, 9])
def test_a_corner_without_data_in_all_training_images_is_predicted_where_there_is_data(
    empty, ignored
):
    write_set("set", 6, toml="ignore = [9]\n" + VALUES_TOML)
    for path in sorted(Path("set/images").iterdir()):
        image, mask = read(path), read(f"set/masks/{path.name}")
        clear = np.full(image.shape, 255, np.uint8)
        clear[:20, :30] = 0
        if ignored:  # the masks ignore the corner, too, and a strip below it
            mask[:20, :30], mask[-4:] = ignored, ignored
        Image.fromarray(np.dstack([image, clear]), "LA").save(path)
        Image.fromarray(mask).save(f"set/masks/{path.name}")
    unetseg.build_store("set", "p.h5", SETTINGS["patches"])
    area = unetseg.open_store("p.h5").info.ignored_area
    unetseg.train("p.h5", **QUICK)
    write_image(Path("next"), draw(50)[0])
    unetseg.predict(["next.png"], out="made")
    strip = np.zeros((64, 56), np.bool_)
    strip[-4:] = ignored is not None
    np.testing.assert_array_equal(read("made/next.png") == 9, strip)
    np.testing.assert_array_equal(area.pixels if area else np.zeros_like(strip), strip)
    unetseg.predict(["set"], out="made")
    assert (read("made/im0.png")[:20, :30] == 9).all()


@pytest.mark.parametrize("nodata", [np.nan, -9999.0])
def test_values_of_no_data_take_no_part_in_what_is_learned(empty, nodata):
    write_set("plain", 6)
    write_set("holed", 6)
    for path in sorted(Path("plain/images").iterdir()):
        image = read(path).astype(np.float32)
        tifffile.imwrite(path.with_suffix(".tif"), image)
        image[:12, 5:40] = nodata
        declared = [(42113, "s", 0, str(nodata), True)]
        tifffile.imwrite(Path("holed/images", path.stem + ".tif"), image, extratags=declared)
        path.unlink()
        Path("holed/images", path.name).unlink()
    for name in ("plain", "holed"):
        unetseg.build_store(name, f"{name}.h5", SETTINGS["patches"])
    plain, holed = (unetseg.open_store(f"{name}.h5").info for name in ("plain", "holed"))
    assert holed.mean[0] == pytest.approx(plain.mean[0], rel=0.1)
    assert holed.std[0] == pytest.approx(plain.std[0], rel=0.2)
    unetseg.train("holed.h5", **QUICK)
    unetseg.predict("holed", out="made")
    assert (read("made/im0.png")[:12, 5:40] == 255).all()
    assert read("made/overlays/im0.png")[20:].max() > 200  # the contrast is that of the data
    scores = unetseg.evaluate("holed", include_trained=True).scores
    made = unetseg.evaluate("holed", predictions="made", settings=None).scores
    assert made.mean_iou == pytest.approx(scores.mean_iou, abs=0.05)
    image[:12, 5:40] = -3.4028235e38  # ArcGIS's value for no data: the network gives no number then
    tifffile.imwrite("undeclared.tif", image)
    ((_, error),) = unetseg.predict("undeclared.tif", out="made").failed
    assert "undeclared.tif: holds -3.40282e+38, which stands for no data" in str(error)
    assert not Path("made/undeclared.png").exists()


def test_a_strip_that_masks_give_a_class_is_found_and_can_be_cropped(empty):
    write_set("set", 4, shape=(80, 56))
    for path in Path("set/images").iterdir():
        image = read(path)
        image[-10:], image[-8:-2, 5:30] = 0, 255
        Image.fromarray(image).save(path)
    found = unetseg.inspect_folder("set")
    (finding,) = [f for f in found.findings if "strip" in f.problem]
    assert "rows 70 to 79 are the same strip in all 4 images" in finding.problem
    assert finding.line == "unetseg check set --crop bottom=10"
    cropped = unetseg.inspect_folder("set", unetseg.PatchSettings(crop="bottom=10"))
    assert not [f for f in cropped.findings if "strip" in f.problem]


def test_nothing_is_said_of_a_strip_before_the_classes_of_the_masks_are_known(empty):
    write_set("set", 4, shape=(80, 56), toml=None)
    for path in Path("set/images").iterdir():
        image = read(path)
        image[-10:], image[-8:-2, 5:30] = 0, 255
        Image.fromarray(image).save(path)
    assert [f for f in unetseg.inspect_folder("set").findings if "strip" in f.problem]
    noise = np.random.default_rng(0).integers(0, 200, (80, 56)).astype(np.uint8)
    Image.fromarray(noise).save("set/masks/im0.png")
    found = unetseg.inspect_folder("set")
    assert found.errors
    assert not [f for f in found.findings if "strip" in f.problem]
