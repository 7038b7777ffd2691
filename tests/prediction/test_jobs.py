"""The places of predictions: refusals before any work, and files that are left alone."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import unetseg
from tests.support import QUICK, read, write_tiff
from unetseg.errors import InputError
from unetseg.pictures import bands
from unetseg.pictures.reading import read_mask

IMAGES = Path("data/test/images")


def test_a_second_run_leaves_all_as_it_is(home):
    first = unetseg.predict([IMAGES])
    stamps = {p: p.stat().st_mtime_ns for p in (*first.written, *first.overlays)}
    second = unetseg.predict([IMAGES])
    assert second.written == ()
    assert second.skipped == first.written
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps


def test_batch_size_and_device_change_no_mask_so_nothing_is_done_again(home):
    unetseg.predict([IMAGES])
    again = unetseg.predict([IMAGES], settings=unetseg.PredictSettings(batch_size=3, device="cpu"))
    assert len(again.skipped) == 3


def test_the_same_stride_in_other_words_is_the_same_option(home):
    unetseg.predict([IMAGES], settings=unetseg.PredictSettings(stride="50%"))
    again = unetseg.predict([IMAGES], settings=unetseg.PredictSettings(stride="16"))
    assert len(again.skipped) == 3  # windows are 32 pixels wide


@pytest.mark.parametrize("change", ["option", "image", "model", "overlay", "probabilities"])
def test_what_has_changed_is_done_again(home, change):
    unetseg.predict([IMAGES], overlay=False)
    settings, options = unetseg.PredictSettings(), {"overlay": False}
    if change == "option":
        settings = unetseg.PredictSettings(stride="8")
    elif change == "image":
        shutil.copy(IMAGES / "im101.png", IMAGES / "im100.png")
    elif change == "model":
        unetseg.train(overwrite=True, **{**QUICK, "epochs": 1})
    else:
        options[change] = True
    again = unetseg.predict([IMAGES], settings=settings, **options)
    assert len(again.written) == (1 if change == "image" else 3)


def test_a_strangers_file_is_kept_unless_told_otherwise(home):
    Path("predictions").mkdir()
    Image.fromarray(np.full((4, 4), 7, np.uint8)).save("predictions/im101.png")
    with pytest.raises(InputError, match=r"im101.png: already exists and was not written by"):
        unetseg.predict([IMAGES])
    assert sorted(p.name for p in Path("predictions").iterdir()) == ["im101.png"]
    unetseg.predict([IMAGES], overwrite=True)
    assert read("predictions/im101.png").shape == (64, 56)


def test_a_strangers_file_that_is_no_picture_is_treated_alike(home):
    Path("predictions").mkdir()
    Path("predictions/im101.png").write_text("notes")
    with pytest.raises(InputError, match="was not written by unetseg"):
        unetseg.predict([IMAGES])
    done = unetseg.predict([IMAGES], overwrite=True)
    assert len(done.written) == 3


@pytest.fixture
def strangers(home):
    """Pictures in the places of an overlay and of probabilities."""
    places = Path("predictions/overlays/im101.png"), Path("predictions/probabilities/im101.tif")
    for place in places:
        place.parent.mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(place)
    return places


def test_a_strangers_overlay_or_probabilities_are_kept_unless_told_otherwise(strangers):
    overlay, shares = strangers
    with pytest.raises(InputError, match=r"overlays.im101.png: already exists and was not"):
        unetseg.predict([IMAGES])
    with pytest.raises(InputError, match=r"probabilities.im101.tif: already exists and was not"):
        unetseg.predict([IMAGES], overlay=False, probabilities=True)
    assert not Path("predictions/im100.png").exists()
    unetseg.predict([IMAGES], probabilities=True, overwrite=True)
    assert read(overlay).shape[:2] != (4, 4)
    assert tifffile.imread(shares).shape == (3, 64, 56)
    assert len(unetseg.predict([IMAGES], probabilities=True).skipped) == 3


def test_an_overlay_and_probabilities_of_other_options_are_done_again(home):
    image, near = [IMAGES / "im100.png"], unetseg.PredictSettings(stride="8")
    unetseg.predict(image, probabilities=True)
    files = [Path(f"predictions/{n}") for n in ("overlays/im100.png", "probabilities/im100.tif")]
    before = [f.read_bytes() for f in files]
    unetseg.predict(image, settings=near, overlay=False)  # the mask alone is of these options
    done = unetseg.predict(image, settings=near, probabilities=True)
    assert len(done.written) == 1
    assert all(f.read_bytes() != b for f, b in zip(files, before, strict=True))


@pytest.mark.parametrize("other", ["im100.tif", "IM100.png"])
def test_two_images_of_one_stem_are_an_error_before_any_work(home, other):
    Path("more").mkdir()
    shutil.copy(IMAGES / "im100.png", Path("more") / other)
    with pytest.raises(InputError, match="would both be written to"):
        unetseg.predict([IMAGES, "more"])
    assert not Path("predictions").exists()


@pytest.mark.parametrize("name", ["objects.csv", "objects/im101.csv", "objects/im101.geojson"])
def test_a_strangers_table_or_polygons_are_kept_unless_told_otherwise(home, name):
    place, notes = Path("predictions", name), Path("predictions/objects/notes.csv")
    notes.parent.mkdir(parents=True)
    for path in (place, notes):
        path.write_text('{"type":"FeatureCollection","features":[{"type":"Feature"}]}')
    with pytest.raises(InputError, match=f"{place.name}: already exists and was not written by"):
        unetseg.predict([IMAGES], objects="square")
    assert "Feature" in place.read_text()
    assert not Path("predictions/im100.png").exists()
    done = unetseg.predict([IMAGES], objects="square", overwrite=True)
    assert len(done.objects.read_text().splitlines()) == 1 + done.counts["square"]
    assert "Feature" in notes.read_text()
    assert len(unetseg.predict([IMAGES], objects="square").skipped) == 3


@pytest.mark.parametrize(
    ("other", "options"),
    [("a.png", {"format": "tif"}), ("a.png", {}), ("a-000.png", {"objects": "square"})],
)
def test_a_stack_and_its_pages_share_no_place_with_another_image(home, other, options):
    pages = np.stack([read(IMAGES / f"im10{k}.png") for k in range(2)])
    tifffile.imwrite("a.tif", pages, photometric="minisblack")
    shutil.copy(IMAGES / "im102.png", other)
    settings = unetseg.PredictSettings(page="all")
    with pytest.raises(InputError, match="would both be written to"):
        unetseg.predict(["a.tif", other], settings=settings, **options)
    assert not Path("predictions").exists()


def test_outlines_on_a_map_share_no_place_with_those_of_another_image(home):
    tags = [
        (33550, 12, 3, (0.5, 0.5, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, 1000.0, 2000.0, 0.0), True),
    ]
    tifffile.imwrite("a.tif", read(IMAGES / "im100.png"), extratags=tags)
    shutil.copy(IMAGES / "im101.png", "a-map.png")
    with pytest.raises(InputError, match=r"would both be written to .*a-map;"):
        unetseg.predict(["a.tif", "a-map.png"], objects="square")
    assert not Path("predictions").exists()
    for _ in range(2):  # the outlines of the first call are known as such
        unetseg.predict("a.tif", objects="square")
        assert Path("predictions/objects/a-map.geojson").exists()
    assert not unetseg.predict(["a.tif", "a-map.png"]).failed


def test_writing_over_an_input_is_refused(home):
    with pytest.raises(InputError, match="would overwrite an input"):
        unetseg.predict([IMAGES], out=IMAGES, overwrite=True)
    Path("out/overlays").mkdir(parents=True)
    shutil.copy(IMAGES / "im100.png", "out/overlays")
    with pytest.raises(InputError, match="would overwrite an input"):
        unetseg.predict(["out/overlays"], out="out", overwrite=True)


@pytest.mark.parametrize("inputs", [["missing.png"], ["nothing"], ["http://host/a.png"], []])
def test_nothing_to_predict_is_said(home, inputs):
    Path("nothing").mkdir()
    with pytest.raises(InputError):
        unetseg.predict(inputs)
    assert not Path("predictions").exists()


def test_a_mode_is_an_option_that_makes_predictions_differ(home):
    unetseg.predict([IMAGES], overlay=False)
    settings = unetseg.PredictSettings(mode="blend")
    assert len(unetseg.predict([IMAGES], settings=settings, overlay=False).written) == 3


def test_what_a_large_image_cannot_have_is_said_before_any_work(home, monkeypatch):
    write_tiff("big.tif")
    monkeypatch.setattr(bands, "LARGE", 1000)
    for option in ("overlay", "probabilities", "confidence"):
        with pytest.raises(InputError, match=f"{option}: .*megapixels"):
            unetseg.predict(["big.tif"], **{option: True})
    assert not Path("predictions").exists()


def test_masks_can_be_tiffs_and_are_masks_again(home):
    png = unetseg.predict([IMAGES], out="png", overlay=False)
    tif = unetseg.predict([IMAGES], out="tif", overlay=False, format="tif")
    assert [p.name for p in tif.written] == ["im100.tif", "im101.tif", "im102.tif"]
    for a, b in zip(png.written, tif.written, strict=True):
        np.testing.assert_array_equal(read_mask(b).values, read(a))
    scored = [unetseg.evaluate("data/test", predictions=out).scores for out in ("png", "tif")]
    assert scored[0].mean_iou == scored[1].mean_iou
    assert len(unetseg.predict([IMAGES], out="tif", overlay=False, format="tif").skipped) == 3
