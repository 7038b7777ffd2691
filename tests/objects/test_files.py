"""Files of objects, read again by the libraries that other programs use."""

import json

import numpy as np
import pytest
import tifffile

from unetseg.classes import ClassTable, SegmentationClass
from unetseg.objects.files import write_objects
from unetseg.objects.separation import find_objects
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


def test_more_than_65535_objects_take_32_bits(tmp_path):
    labels = np.zeros((2, 2 * 70_000), np.uint8)
    labels[0, ::2] = 1
    objects = find_objects(labels, {1: None})
    from unetseg.pictures.bands import write_numbers

    write_numbers(tmp_path / "a.tif", objects.numbers)
    assert tifffile.imread(tmp_path / "a.tif").dtype == np.uint32
    assert tifffile.imread(tmp_path / "a.tif").max() == 70_000


def test_an_image_without_objects_has_empty_files(tmp_path):
    objects = find_objects(np.zeros((4, 5), np.uint8), {1: None})
    assert write_all(tmp_path / "a.tif", objects, TABLE, IMAGE[:4, :5]) == []
    assert json.loads((tmp_path / "a.geojson").read_text())["features"] == []
    assert tifffile.imread(tmp_path / "a.tif").max() == 0
