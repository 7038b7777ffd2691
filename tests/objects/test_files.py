"""Files of objects, read again by the libraries that other programs use."""

import json

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from unetseg.classes import ClassTable, SegmentationClass
from unetseg.dataset import shapes
from unetseg.objects import files
from unetseg.objects.files import write_objects
from unetseg.objects.separation import find_objects
from unetseg.pictures import bands
from unetseg.pictures.bands import write_numbers
from unetseg.pictures.georeference import Georeference

TABLE = ClassTable(
    (
        SegmentationClass("background", 0, "#000000"),
        SegmentationClass("cell", 1, "#00ff00"),
        SegmentationClass("dust", 2, "#ff0000"),
    )
)
LABELS = np.zeros((20, 30), np.uint8)
LABELS[2:8, 3:9] = 1
LABELS[12:18, 3:9] = 1
LABELS[4:6, 20:25] = 2
IMAGE = np.full((20, 30, 1), 7, np.uint8)


def write_all(*args, **options):
    return list(write_objects(*args, **options))


@pytest.fixture
def objects():
    return find_objects(LABELS, {1: None, 2: None})


def test_objects_of_all_classes_share_one_numbering(objects):
    assert objects.kinds.tolist() == [1, 1, 2]
    assert [objects.numbers[3, 4], objects.numbers[13, 4], objects.numbers[4, 20]] == [1, 2, 3]


def test_the_label_image_and_the_polygons_are_read_again(tmp_path, objects):
    path = tmp_path / "objects" / "a.tif"
    rows = write_all(path, objects, TABLE, IMAGE, text={"made": "here"})
    with tifffile.TiffFile(path) as file:
        assert file.asarray().dtype == np.uint16
        np.testing.assert_array_equal(file.asarray(), objects.numbers)
        assert json.loads(file.pages[0].description)["made"] == "here"
    features = json.loads(path.with_suffix(".geojson").read_text())["features"]
    assert [f["id"] for f in features] == [1, 2, 3]
    third = features[2]["properties"]
    assert third["classification"] == {"name": "dust", "color": [255, 0, 0]}
    assert third["measurements"]["area"] == 10
    assert features[0]["geometry"]["coordinates"] == [[[3, 2], [9, 2], [9, 8], [3, 8], [3, 2]]]
    assert [(row["number"], row["class"], row["area"]) for row in rows] == [
        (1, "cell", 36),
        (2, "cell", 36),
        (3, "dust", 10),
    ]
    assert not (tmp_path / "objects" / "a-map.geojson").exists()


def test_resolution_and_place_are_kept(tmp_path, objects):
    tags = (
        (33550, 12, 3, (0.5, 0.5, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, 1000.0, 2000.0, 0.0), True),
    )
    place = Georeference((20_000, 20_000), "cm", tags)
    path = tmp_path / "a.tif"
    write_all(path, objects, TABLE, IMAGE, georeference=place)
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].tags["ModelTiepointTag"].value[3:5] == (1000.0, 2000.0)
        assert file.pages[0].tags["XResolution"].value == (20_000, 1)
    whole = json.loads((tmp_path / "a-map.geojson").read_text())
    ring = whole["features"][0]["geometry"]["coordinates"][0]
    assert {tuple(point) for point in ring} == {
        (1001.5, 1999.0),
        (1004.5, 1999.0),
        (1004.5, 1996.0),
        (1001.5, 1996.0),
    }


def test_a_map_has_plain_columns_in_the_system_of_the_image(tmp_path, objects):
    tags = (
        (33550, 12, 3, (0.5, 0.5, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, 1000.0, 2000.0, 0.0), True),
        (34735, 3, 12, (1, 1, 0, 2, 3072, 0, 1, 32633, 3076, 0, 1, 9001), True),
    )
    write_all(tmp_path / "a.tif", objects, TABLE, IMAGE, georeference=Georeference(tags=tags))
    whole = json.loads((tmp_path / "a-map.geojson").read_text())
    assert whole["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    third = whole["features"][2]["properties"]
    assert (third["number"], third["class"], third["colour"]) == (3, "dust", "#ff0000")
    assert (third["area"], third["area_in_unit"], third["area_unit"]) == (10, 2.5, "m²")
    assert third["unit"] == "m"
    plain = json.loads((tmp_path / "a.geojson").read_text())
    assert "crs" not in plain
    assert plain["features"][2]["properties"]["metadata"] == {"unit": "m"}


@pytest.fixture
def blobs():
    """Return a mask of a class with ragged shapes and holes, and its objects."""
    rng = np.random.default_rng(3)
    field = ndimage.gaussian_filter(rng.normal(size=(120, 150)), 3)
    labels = (abs(field) > 0.04).astype(np.uint8)
    labels[::12, ::12] = 0
    return labels, find_objects(labels, {1: None})


def features_of(path):
    whole = json.loads(path.read_text())
    assert whole["type"] == "FeatureCollection"
    return whole["features"]


def polygons_of(feature):
    kind, places = feature["geometry"]["type"], feature["geometry"]["coordinates"]
    assert kind in ("Polygon", "MultiPolygon")
    return [places] if kind == "Polygon" else places


def test_polygons_drawn_again_are_the_label_image(tmp_path, blobs):
    labels, objects = blobs
    write_all(tmp_path / "a.tif", objects, TABLE, labels[..., None])
    again = np.zeros(labels.shape, int)
    holes = 0
    for feature in features_of(tmp_path / "a.geojson"):
        polygons = polygons_of(feature)
        again[shapes.rings(polygons, labels.shape)] = feature["id"]  # as QuPath's are read
        holes += sum(len(rings) - 1 for rings in polygons)
    assert holes > 3
    assert objects.areas.sum() == (labels > 0).sum()
    np.testing.assert_array_equal(again, objects.numbers)  # all of the pixels, not 99.9 %


def test_features_keep_the_rules_of_rfc_7946(tmp_path, blobs):
    labels, objects = blobs
    write_all(tmp_path / "a.tif", objects, TABLE, labels[..., None])
    features = features_of(tmp_path / "a.geojson")
    assert len({f["id"] for f in features}) == len(objects.kinds)
    for feature in features:
        assert feature["type"] == "Feature"
        assert isinstance(feature["properties"], dict)
        for outer, *holes in polygons_of(feature):
            for ring in (outer, *holes):
                assert len(ring) >= 4
                assert ring[0] == ring[-1]
                assert len({tuple(place) for place in ring}) == len(ring) - 1
            x, y = np.array(outer).T
            assert x[:-1] @ y[1:] - x[1:] @ y[:-1] > 0  # counter-clockwise
            for x, y in (np.array(hole).T for hole in holes):
                assert x[:-1] @ y[1:] - x[1:] @ y[:-1] < 0


def test_features_keep_the_rules_of_qupaths_reader(tmp_path, blobs):
    labels, objects = blobs
    rows = write_all(tmp_path / "a.tif", objects, TABLE, labels[..., None])
    for feature, row in zip(features_of(tmp_path / "a.geojson"), rows, strict=True):
        about = feature["properties"]
        assert about["objectType"] == "detection"
        assert about["name"] == str(row["number"])
        assert about["classification"] == {"name": "cell", "color": [0, 255, 0]}
        # It takes an object from names to numbers.
        assert all(type(value) in (int, float) for value in about["measurements"].values())
        assert about["measurements"]["feret_max"] == row["feret_max"]


def test_rows_and_polygons_do_not_depend_on_the_bands(tmp_path, blobs, monkeypatch):
    labels, objects = blobs
    rng = np.random.default_rng(0)
    image = rng.normal(1e6, 3, (*labels.shape, 2)).astype(np.float32)
    sure = rng.integers(0, 256, labels.shape).astype(np.uint8)
    found = {}
    for pixels in (10**6, 600, 1):
        monkeypatch.setattr(files, "_AT_ONCE", pixels)
        path = tmp_path / str(pixels) / "a.tif"
        rows = write_all(path, objects, TABLE, image, confidence=sure)
        features = {f["id"]: f["geometry"] for f in features_of(path.with_suffix(".geojson"))}
        found[pixels] = {row["number"]: row for row in rows}, features
    whole, shapes_of_whole = found.pop(10**6)
    for rows, features in found.values():
        assert features == shapes_of_whole
        assert rows.keys() == whole.keys()
        for number, row in rows.items():
            known = {
                key: value for key, value in whole[number].items() if value not in (None, "cell")
            }
            assert {key: row[key] for key in known} == pytest.approx(known, rel=1e-9)
    inside = objects.numbers == 5
    assert whole[5]["mean_2"] == pytest.approx(image[inside][:, 1].astype(float).mean(), rel=1e-12)
    assert whole[5]["deviation_2"] == pytest.approx(image[inside][:, 1].astype(float).std())
    assert whole[5]["confidence"] == pytest.approx(sure[inside].mean() / 255)


def test_more_than_65535_objects_take_32_bits(tmp_path):
    labels = np.zeros((2, 2 * 70_000), np.uint8)
    labels[0, ::2] = 1
    objects = find_objects(labels, {1: None})
    write_numbers(tmp_path / "a.tif", objects.numbers)
    assert tifffile.imread(tmp_path / "a.tif").dtype == np.uint32
    assert tifffile.imread(tmp_path / "a.tif").max() == 70_000


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize("size", [1, 400, 10**6])
def test_a_label_image_lies_in_strips_which_imagej_reads(tmp_path, monkeypatch, dtype, size):
    monkeypatch.setattr(bands, "_STRIP", size)  # bytes: a row, some rows, the whole image
    numbers = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (33, 41), dtype)
    write_numbers(tmp_path / "a.tif", numbers)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        [page] = file.pages
        assert not page.is_tiled
        assert page.dtype == dtype
        rows = max(1, size // (41 * page.dtype.itemsize))
        assert len(page.dataoffsets) == -(-33 // min(rows, 33))
        np.testing.assert_array_equal(page.asarray(), numbers)


def test_an_image_without_objects_has_empty_files(tmp_path):
    objects = find_objects(np.zeros((4, 5), np.uint8), {1: None})
    assert write_all(tmp_path / "a.tif", objects, TABLE, IMAGE[:4, :5]) == []
    assert json.loads((tmp_path / "a.geojson").read_text())["features"] == []
    assert tifffile.imread(tmp_path / "a.tif").max() == 0
