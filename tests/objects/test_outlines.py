"""Outlines of objects: worked by hand, and drawn again by a slower second way."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from unetseg.objects.outlines import GeoJson, Outlining


def outlines(numbers):
    """Return the outlines that `Outlining` makes of a whole label image (H, W), by number."""
    return dict(Outlining(numbers.shape).add(0, np.pad(numbers, ((1, 1), (0, 0)))))


def signed_area(ring):
    x, y = np.asarray(ring, float).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def drawn(polygons, shape):
    """Draw polygons again: inside, a ray to the left crosses an odd number of sides."""
    numbers = np.zeros(shape, int)
    for number, parts in polygons.items():
        for rings in parts:
            inside = np.zeros(shape, bool)
            for ring in rings:
                for (x, y), (_, below) in zip(ring, np.roll(ring, -1, 0), strict=True):
                    top, bottom = sorted((int(y), int(below)))
                    inside[top:bottom, int(x) :] ^= True
            numbers[inside] = number
    return numbers


def test_an_outline_runs_along_the_sides_of_pixels():
    numbers = np.array([[0, 0, 0], [0, 5, 5], [0, 5, 0]], np.int32)
    assert list(outlines(numbers)) == [5]
    ((ring,),) = outlines(numbers)[5]
    corners = [(1, 1), (3, 1), (3, 2), (2, 2), (2, 3), (1, 3)]
    assert {tuple(corner) for corner in ring.tolist()} == set(corners)
    assert signed_area(ring) == 3


def test_a_hole_is_a_ring_that_runs_the_other_way():
    numbers = np.ones((3, 3), np.int32)
    numbers[1, 1] = 0
    ((outer, hole),) = outlines(numbers)[1]
    assert (signed_area(outer), signed_area(hole)) == (9, -1)


def test_pixels_that_touch_by_a_corner_are_two_polygons_of_one_object():
    parts = outlines(np.array([[1, 0], [0, 1]], np.int32))[1]
    assert [[signed_area(ring) for ring in rings] for rings in parts] == [[1], [1]]


@settings(max_examples=200, deadline=None)
@given(
    arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3))
)
def test_polygons_drawn_again_are_the_label_image_and_every_ring_is_simple(numbers):
    polygons = outlines(numbers)
    np.testing.assert_array_equal(drawn(polygons, numbers.shape), numbers)
    for parts in polygons.values():
        for outer, *holes in parts:
            assert signed_area(outer) > 0
            assert all(signed_area(hole) < 0 for hole in holes)
            for ring in (outer, *holes):
                assert len({tuple(corner) for corner in ring.tolist()}) == len(ring) >= 4


def to_geojson(polygons, properties, *place):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.geojson"
        with GeoJson(path, *place) as file:
            for number, parts in polygons.items():
                file.add(number, parts, properties[number])
        return path.read_bytes()


def features_of(data):
    whole = json.loads(data)
    assert whole["type"] == "FeatureCollection"
    return whole["features"]


def test_geojson_is_closed_and_counter_clockwise_as_its_standard_asks():
    numbers = np.array([[1, 1, 0], [1, 1, 2]], np.int32)
    data = to_geojson(outlines(numbers), {1: {"class": "cell"}, 2: {"class": "dust"}})
    first, second = features_of(data)
    assert first["properties"] == {"class": "cell"}
    (ring,) = first["geometry"]["coordinates"]
    assert ring[0] == ring[-1]
    assert signed_area(ring[:-1]) == 4
    assert second["geometry"]["coordinates"][0][0] == [2, 1]


def test_parts_are_a_multi_polygon():
    data = to_geojson(outlines(np.array([[1, 0, 1]], np.int32)), {1: {}})
    (feature,) = features_of(data)
    assert feature["geometry"]["type"] == "MultiPolygon"
    assert len(feature["geometry"]["coordinates"]) == 2


@pytest.mark.parametrize("down", [-0.5, 0.5])
def test_on_a_map_rings_are_placed_and_still_counter_clockwise(down):
    numbers = np.array([[1, 1]], np.int32)
    data = to_geojson(outlines(numbers), {1: {}}, (0.5, 0, 100, 0, down, 200), 32633)
    (feature,) = features_of(data)
    (ring,) = feature["geometry"]["coordinates"]
    assert {tuple(p) for p in ring} == {
        (100, 200),
        (101, 200),
        (101, 200 + down),
        (100, 200 + down),
    }
    assert signed_area(ring[:-1]) == pytest.approx(0.5)
    assert json.loads(data)["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"


def test_no_objects_are_an_empty_collection():
    assert outlines(np.zeros((3, 4), np.int32)) == {}
    assert features_of(to_geojson({}, {})) == []
