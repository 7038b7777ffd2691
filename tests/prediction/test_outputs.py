"""The files of one image: mask, overlay, probabilities, confidence, objects, and the table."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

import unetseg
from tests.support import NAMES, QUICK, draw, read, write_image, write_set, write_tiff
from unetseg.errors import InputError
from unetseg.objects import files as object_files
from unetseg.objects.counting import PostProcessing, clean
from unetseg.pictures import bands, reading
from unetseg.pictures.reading import read_mask
from unetseg.prediction import segmenter, session
from unetseg.prediction.summary import read_cells, read_summary

IMAGES = Path("data/test/images")


def test_mask_has_the_values_palette_and_size_of_what_was_trained_on(home):
    done = unetseg.predict([IMAGES])
    assert [p.name for p in done.written] == ["im100.png", "im101.png", "im102.png"]
    table = unetseg.Model(["default"], unetseg.PredictSettings()).card.classes
    with Image.open(done.written[0]) as mask:
        assert mask.mode == "P"
        assert mask.size == (56, 64)
        palette = mask.getpalette()
        said = mask.text
    assert set(np.unique(read(done.written[0]))) <= {0, 1, 2}
    for i, one in enumerate(table.classes):
        rgb = tuple(bytes.fromhex(one.colour[1:]))
        assert tuple(palette[3 * i : 3 * i + 3]) == rgb
    assert sum(done.shares.values()) == pytest.approx(1)
    assert set(done.shares) == set(NAMES)
    assert len(said) == 1
    assert {"model", "input", "options"} <= json.loads(said["unetseg"]).keys()


def test_masks_of_0_and_255_come_back_as_0_and_255(empty):
    write_set("set", 4, values=(0, 255, 255), toml=None)
    patches = unetseg.PatchSettings(size=32, per_image=6)
    unetseg.train("set", patches=patches, **{**QUICK, "epochs": 8})
    done = unetseg.predict(["set"])
    found = {int(v) for path in done.written for v in np.unique(read(path))}
    assert found == {0, 255}
    said = []
    done = unetseg.predict(["set"], objects="all", on_progress=said.append)
    assert list(done.counts) == ["255"]
    assert {row[2] for row in read_cells(done.objects)[1:]} == {"255"}
    assert sum("class 0 is taken for the background" in str(one) for one in said) == 1


def test_masks_of_colours_come_back_as_indices_painted_in_them(empty):
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)], np.uint8)
    write_set("set", 4, toml=None)
    for path in Path("set/masks").iterdir():
        Image.fromarray(colours[read(path)]).save(path)
    patches = unetseg.PatchSettings(size=32, per_image=6)
    unetseg.train("set", patches=patches, **{**QUICK, "epochs": 4})
    done = unetseg.predict(["set"])
    assert set(np.unique(read(done.written[0]))) <= {0, 1, 2}
    with Image.open(done.written[0]) as mask:
        painted = np.array(mask.convert("RGB"))
    # Found colours are sorted: #000000, #00ff00, #ff0000.
    np.testing.assert_array_equal(painted, colours[[0, 2, 1]][read(done.written[0])])
    assert len(unetseg.evaluate("set", predictions="predictions").scores.names) == 4


def test_wholly_transparent_pixels_are_ignored_and_an_opaque_channel_changes_nothing(home):
    Path("clear").mkdir()
    grey = read(IMAGES / "im100.png")
    alpha = np.full(grey.shape, 255, np.uint8)
    for name in ("plain", "opaque", "holed"):
        if name == "holed":
            alpha[:9, 5:] = 0
            alpha[20, 7] = 1
        channels = [grey] if name == "plain" else [grey, alpha]
        Image.fromarray(np.dstack(channels).squeeze()).save(f"clear/{name}.png")
    unetseg.predict(["clear"])
    plain, opaque, holed = (
        read(Path("predictions") / f"{name}.png") for name in ("plain", "opaque", "holed")
    )
    np.testing.assert_array_equal(opaque, plain)
    assert (holed[alpha == 0] == 255).all()
    assert not (holed[alpha > 0] == 255).any()


@pytest.mark.parametrize("shape", [(1, 1), (20, 90), (33, 31), (150, 7)])
def test_any_size_of_image_gets_a_mask_of_its_own_size(home, shape):
    path = write_image(Path("odd"), np.full((*shape, 1), 90, np.uint8))
    done = unetseg.predict([path])
    assert read(done.written[0]).shape == shape


def test_probabilities_sum_to_1_and_lead_to_the_mask(home):
    done = unetseg.predict([IMAGES / "im100.png"], probabilities=True)
    shares = tifffile.imread("predictions/probabilities/im100.tif")
    assert shares.shape == (3, 64, 56)
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(shares.argmax(0), read(done.written[0]))


@pytest.mark.parametrize("mode", ["blend", "seamless"])
@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_a_large_image_is_covered_by_bands_with_the_same_result(home, monkeypatch, mode, suffix):
    image = write_tiff("big.tif", tile=(16, 16), compression="adobe_deflate")
    if suffix == "png":
        Image.fromarray(image[..., 0]).save("big.png")
    settings, source = unetseg.PredictSettings(mode=mode), Path(f"big.{suffix}")
    plain = unetseg.predict([source], settings=settings, out="plain")
    expected = read(plain.written[0])
    monkeypatch.setattr(bands, "LARGE", 1000)
    monkeypatch.setattr(session, "_AHEAD", 1000)
    monkeypatch.setattr(segmenter, "_TILE", {"cpu": 64**2})
    monkeypatch.setattr(segmenter, "_WHOLE", 0)
    done = unetseg.predict([source], settings=settings, out="bands")
    assert done.written == (Path("bands/big.tif"),)  # a TIFF, as it is large
    assert done.overlays == ()
    with tifffile.TiffFile(done.written[0]) as tif:
        assert tif.pages.first.is_tiled
        assert tif.pages.first.compression != 1
    found = read_mask("bands/big.tif").values
    assert (found != expected).mean() < 1e-3  # windows of other batches round otherwise
    assert unetseg.predict([source], settings=settings, out="bands").skipped == done.written


def test_objects_of_a_large_image_are_those_of_the_whole(home, monkeypatch):
    write_tiff("big.tif", tile=(16, 16), compression="adobe_deflate")
    whole = unetseg.predict(["big.tif"], out="whole", objects=["all"])
    monkeypatch.setattr(bands, "LARGE", 1000)
    monkeypatch.setattr(object_files, "_AT_ONCE", 1000)
    parts = unetseg.predict(["big.tif"], out="parts", objects=["all"])
    assert not tifffile.TiffFile("parts/objects/big.tif").pages.first.is_tiled
    first, second = (tifffile.imread(f"{out}/objects/big.tif") for out in ("whole", "parts"))
    assert first.max() > 3
    np.testing.assert_array_equal(first, second)
    tables = [dict(enumerate(sorted(read_cells(done.objects)))) for done in (whole, parts)]
    assert tables[0] == tables[1]
    paths = [Path(out, "objects/big.geojson") for out in ("whole", "parts")]
    shapes = [json.loads(path.read_text()) for path in paths]
    by_number = [{f["id"]: f for f in one["features"]} for one in shapes]
    assert by_number[0].keys() == by_number[1].keys() == set(range(1, first.max() + 1))
    for number, feature in by_number[0].items():
        assert feature["geometry"] == by_number[1][number]["geometry"]
    columns = slice(2, 9)  # all but the seconds
    rows = [[row[columns] for row in read_summary(done.summary)] for done in (whole, parts)]
    assert rows[0] == rows[1]
    assert unetseg.predict(["big.tif"], out="parts", objects=["all"]).skipped


def test_pixels_without_data_are_ignored_and_the_place_on_the_map_is_kept(home):
    image, _ = draw(3, (80, 70))
    image = np.maximum(image, 1)  # 0 says that there is no data
    image[:30, :40] = 0
    scale = (33550, "d", 3, (0.5, 0.5, 0.0), True)
    tags = [scale, (42113, "s", 0, "0", True)]
    tifffile.imwrite("map.tif", image[..., 0], extratags=tags)
    done = unetseg.predict(["map.tif"], format="tif")
    mask = read_mask("predictions/map.tif").values
    assert (mask[:30, :40] == 255).all()
    assert (mask != 255).sum() == 80 * 70 - 1200
    with tifffile.TiffFile(done.written[0]) as tif:
        assert tif.pages.first.tags[33550].value == (0.5, 0.5, 0.0)
        assert tif.pages.first.tags[42113].value.strip("\0") == "255"
    rows = read_summary(done.summary)
    assert sum(int(row[2]) for row in rows) == 80 * 70 - 1200
    assert {row[8] for row in rows} == {"map unit²"}
    assert sum(float(row[3]) for row in rows) == pytest.approx(1)


def test_areas_on_a_map_in_degrees_are_in_pixels_and_that_is_said(home):
    keys = (34735, "H", 12, (1, 1, 0, 2, 1024, 0, 1, 2, 2048, 0, 1, 4326), True)
    scale = (33550, "d", 3, (1e-5, 1e-5, 0.0), True)
    tie = (33922, "d", 6, (0.0, 0.0, 0.0, 8.5, 47.4, 0.0), True)
    for name in ("one.tif", "two.tif"):
        tifffile.imwrite(name, draw(3)[0][..., 0], extratags=[scale, tie, keys])
    said = []
    done = unetseg.predict(["one.tif", "two.tif"], objects=["all"], on_progress=said.append)
    assert {row[8] for row in read_summary(done.summary)} == {"px"}
    assert done.pixel_size is None
    (note,) = [str(one) for one in said if "degrees" in str(one)]
    assert note == (
        "one.tif: its map is in degrees, which are no lengths: areas are given in pixels; "
        "reproject it to a system in metres for areas in m²"
    )
    with tifffile.TiffFile("predictions/one.tif") as tif:
        assert tif.pages.first.tags[33550].value == (1e-5, 1e-5, 0.0)


@pytest.mark.parametrize("format", ["tif", "png"])
def test_where_there_is_no_data_nothing_is_sure_or_probable(home, format):
    image = np.maximum(draw(3, (80, 70))[0], 1)
    image[:30, :40] = 0
    tifffile.imwrite("map.tif", image[..., 0], extratags=[(42113, "s", 0, "0", True)])
    settings = unetseg.PredictSettings(min_size=20)
    given = {"probabilities": True, "confidence": True, "format": format, "settings": settings}
    done = unetseg.predict(["map.tif"], **given)
    empty = np.zeros((80, 70), bool)
    empty[:30, :40] = True
    sure = reading.read_image(f"predictions/confidence/map.{format}")[..., 0]
    np.testing.assert_array_equal(sure == 0, empty)
    shares = tifffile.imread("predictions/probabilities/map.tif")
    np.testing.assert_array_equal(np.isnan(shares), np.broadcast_to(empty, shares.shape))
    np.testing.assert_allclose(shares[:, ~empty].sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(read_mask(done.written[0]).values == 255, empty)
    declared = {"probabilities/map.tif": "nan"}
    declared |= {"confidence/map.tif": "0"} if format == "tif" else {}
    for name, value in declared.items():
        with tifffile.TiffFile(f"predictions/{name}") as tif:
            assert tif.pages.first.tags[42113].value.strip("\0") == value


def test_a_place_on_the_map_is_kept_in_all_that_is_written(home):
    image, _ = draw(3, (80, 70))
    keys = (1, 1, 0, 1, 3072, 0, 1, 32632)  # UTM zone 32 north, whose unit nobody states
    scale, tie = (
        (33550, "d", 3, (0.5, 0.5, 0.0), True),
        (33922, "d", 6, (0, 0, 0, 4e5, 5e6, 0), True),
    )
    tags = [scale, tie, (34735, "H", 8, keys, True)]
    tifffile.imwrite("map.tif", image[..., 0], extratags=tags)
    unetseg.predict(["map.tif", IMAGES / "im100.png"], probabilities=True, confidence=True)
    for name in ("map", "probabilities/map", "confidence/map"):
        with tifffile.TiffFile(f"predictions/{name}.tif") as tif:
            assert len(tif.pages) == 1  # of probabilities, the classes are bands
            assert tif.pages.first.tags[33922].value == (0, 0, 0, 4e5, 5e6, 0)
            assert tif.pages.first.tags[34735].value == keys
    assert tifffile.imread("predictions/probabilities/map.tif").shape == (3, 80, 70)
    assert Path("predictions/im100.png").exists()
    assert {r[8] for r in read_summary("predictions/summary.csv") if r[0] == "map.tif"} == {"m²"}
    unetseg.predict(["map.tif"], out="png", format="png")
    assert Path("png/map.png").exists()
    for word in ("tiff", "geotiff"):
        unetseg.predict([IMAGES / "im100.png"], out=word, format=word)
        assert Path(word, "im100.tif").exists()


def test_overlays_are_reduced_and_all_leave_the_same_class_unpainted(home):
    image, _ = draw(3, (200, 260))
    write_image(Path("wide"), image)
    unetseg.predict(["wide.png"], overlay_size=100)
    height, width, _ = read("predictions/overlays/wide.png").shape
    assert 66 < height < 200  # a third, and the legend
    assert 86 <= width < 260
    small = bands.reduce_rows(image, 3)
    assert small.shape == (66, 86, 1)
    np.testing.assert_allclose(small[1, 2, 0], image[3:6, 6:9].mean(), atol=0.5)
    assert bands.reduce_mask(image[..., 0], 3)[1, 2] == image[4, 7, 0]
    card = unetseg.Model("default").card
    assert sum(card.class_pixels) == 9 * 64 * 56
    assert card.unpainted == 0
    assert replace(card, class_pixels=(5, 5, 3)).unpainted is None


def test_confidence_is_grey_and_255_is_certain(home):
    done = unetseg.predict([IMAGES], probabilities=True, confidence=True)
    assert len(done.written) == 3
    shares = tifffile.imread("predictions/probabilities/im100.tif")
    grey = read("predictions/confidence/im100.png")
    np.testing.assert_array_equal(grey, np.rint(shares.max(0) * 255))
    assert len(unetseg.predict([IMAGES], probabilities=True, confidence=True).skipped) == 3


def test_the_summary_has_areas_objects_and_confidence(home):
    done = unetseg.predict([IMAGES], probabilities=True)
    rows = {(row[0], row[1]): row for row in read_summary(done.summary)}
    assert set(rows) == {(f"im{k}.png", name) for k in (100, 101, 102) for name in NAMES}
    mask = read("predictions/im101.png")
    shares = tifffile.imread("predictions/probabilities/im101.tif")
    for value, name in enumerate(NAMES):
        row, where = rows["im101.png", name], mask == value
        numbers, count = ndimage.label(where, np.ones((3, 3)))
        areas = np.bincount(numbers.ravel())[1:]
        assert int(row[2]) == where.sum()
        assert float(row[3]) == pytest.approx(where.mean())
        assert int(row[4]) == count
        if count:
            assert [float(c) for c in row[5:8]] == pytest.approx(
                [areas.mean(), np.median(areas), areas.max()]
            )
            assert float(row[9]) == pytest.approx(shares[value][where].mean(), abs=1e-4)
        assert float(row[10]) > 0


def test_masks_are_mended_as_asked_and_scored_so(home):
    settings = unetseg.PredictSettings(largest=("square",), min_size=30, fill_holes=("square",))
    plain = unetseg.predict([IMAGES], out="plain")
    done = unetseg.predict([IMAGES], settings=settings)
    rules = PostProcessing((1,), 30, (1,))
    for a, b in zip(plain.written, done.written, strict=True):
        np.testing.assert_array_equal(read(b), clean(read(a), rules))
    found = unetseg.evaluate("data/test", settings=settings).scores
    again = unetseg.evaluate("data/test", predictions="predictions").scores
    np.testing.assert_array_equal(found.confusion, again.confusion)
    assert len(unetseg.predict([IMAGES], settings=settings).skipped) == 3


def test_no_data_has_a_value_of_its_own_where_255_is_a_class(home):
    write_set("set", 4, values=(0, 255, 255), toml=None)
    patches = unetseg.PatchSettings(size=32, per_image=6)
    unetseg.train("set", patches=patches, run="two", **QUICK)
    image, _ = draw(3, (80, 70))
    image[:30, :40] = 0
    tags = [(42113, "s", 0, "0", True)]
    tifffile.imwrite("a.tif", image[..., 0], extratags=tags)
    unetseg.predict(["a.tif"], model="two")
    np.testing.assert_array_equal(read("predictions/a.png") == 254, image[..., 0] == 0)


def rows_of_objects():
    header, *rows = read_cells(Path("predictions/objects.csv"))
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_objects_are_numbered_measured_outlined_and_counted(home):
    done = unetseg.predict(sorted(IMAGES.glob("*.png")), objects=["square"])
    assert done.objects == Path("predictions/objects.csv")
    rows = rows_of_objects()
    assert done.counts == {"square": len(rows)}
    assert done.medians == {"square": np.median([float(row["area"]) for row in rows])}
    assert str(len(rows)) in done.tables()[0].rows[1]
    for image in IMAGES.glob("*.png"):
        mask = read(f"predictions/{image.name}")
        numbers = tifffile.imread(f"predictions/objects/{image.stem}.tif")
        assert ((numbers > 0) == (mask == 1)).all()
        of_image = [row for row in rows if row["image"] == image.name]
        assert [int(row["number"]) for row in of_image] == list(range(1, numbers.max() + 1))
        for row in of_image:
            assert row["class"] == "square"
            inside = numbers == int(row["number"])
            assert float(row["area"]) == inside.sum()
            values = read(image)[inside].astype(float)
            assert float(row["mean_1"]) == pytest.approx(values.mean())
            assert 0 < float(row["confidence"]) <= 1
        whole = json.loads(Path(f"predictions/objects/{image.stem}.geojson").read_text())
        assert len(whole["features"]) == numbers.max()
    summary = {(row[0], row[1]): row for row in read_summary(done.summary)}
    for image in IMAGES.glob("*.png"):
        count = sum(row["image"] == image.name for row in rows)
        assert int(summary[image.name, "square"][4]) == count


def test_objects_asked_for_later_are_done_and_rows_of_other_images_stay(home):
    one, other, *_ = sorted(IMAGES.glob("*.png"))
    unetseg.predict([one])
    assert unetseg.predict([one], objects=["all"]).written
    assert unetseg.predict([one], objects=["all"]).skipped
    unetseg.predict([other], objects=["all"])
    assert {row["image"] for row in rows_of_objects()} == {one.name, other.name}


def test_objects_of_a_class_that_is_not_there_are_refused_before_any_work(home):
    with pytest.raises(InputError, match="objects: 'sqare' is no class with objects; did you mean"):
        unetseg.predict([IMAGES], objects=["sqare"])
    assert not Path("predictions/objects").exists()
