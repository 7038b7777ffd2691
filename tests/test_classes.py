"""Class tables: their validity, the values and colours of classes, and their files."""

from itertools import combinations

import numpy as np
import pytest
from skimage import color

from unetseg.classes import (
    ClassTable,
    SegmentationClass,
    colour_to_rgb,
    default_colour,
    named_classes,
    parse_ignored,
    read_classes,
    table_of,
)
from unetseg.errors import InputError


def one(name="a", value=0, colour="#000000"):
    return SegmentationClass(name, value, colour)


VALUES = ClassTable((one("back", 0, "#000000"), one("line", 128, "#ff0000")), (255,))
COLOURS = ClassTable((one("back", None, "#000000"), one("line", None, "#ff0000")), ("#ffffff",))


@pytest.mark.parametrize(
    ("classes", "ignore", "problem"),
    [
        ((), (), "0 found"),
        ((one(), one("b", None)), (), "some have a value"),
        ((one(""),), (), "a name of 0 characters"),
        ((one(value=-1),), (), "value -1"),
        ((one(value=65536),), (), "value 65536"),
        ((one(colour="red"),), (), "colour 'red'"),
        ((one(), one("a", 1)), (), "name 'a' stands twice"),
        ((one(), one("b", 0)), (), "value or colour 0 stands twice"),
        ((one(value=None), one("b", None)), (), "'#000000' stands twice"),
        ((one(),), ("#ffffff",), "beside classes given by values"),
        ((one(value=None),), (255,), "beside classes given by colours"),
        ((one(),), (0,), "0 is a class and ignored"),
    ],
)
def test_what_is_no_table_is_refused(classes, ignore, problem):
    with pytest.raises(InputError) as error:
        ClassTable(classes, ignore)
    assert problem in str(error.value)


def test_what_stands_for_a_class():
    assert (VALUES.encoding, COLOURS.encoding) == ("values", "colours")
    assert (VALUES.key(1), COLOURS.key(1)) == (128, "#ff0000")
    assert VALUES.pixel_values() == (0, 128)
    assert COLOURS.pixel_values() == (0, 1)  # where masks were colours a prediction is an index
    assert VALUES.names == ("back", "line")


@pytest.mark.parametrize("table", [VALUES, COLOURS])
def test_a_table_survives_its_file_and_json(table, tmp_path):
    (tmp_path / "classes.toml").write_text(table.to_toml())
    assert read_classes(tmp_path / "classes.toml") == table
    assert ClassTable.from_dict(table.to_dict()) == table


def test_names_of_any_kind_survive_the_file(tmp_path):
    names = ['say "hi"', "back\\slash", "Zelle ä", "line\nend", "\x1b[31m", "日本"]
    table = ClassTable(tuple(one(n, i) for i, n in enumerate(names)))
    (tmp_path / "classes.toml").write_text(table.to_toml(), "utf-8")
    assert list(read_classes(tmp_path / "classes.toml").names) == names


def test_the_file_of_the_design_is_read(tmp_path):
    (tmp_path / "c.toml").write_text(
        'ignore = [11]\n[[class]]\nname = "background"\nvalue = 0\n'
        '[[class]]\nname = "line"\nvalue = 1\ncolour = "#FF0000"\n[[class]]\nvalue = 7\n'
    )
    table = read_classes(tmp_path / "c.toml")
    assert table.names == ("background", "line", "7")
    assert table.ignore == (11,)
    assert [c.colour for c in table.classes] == [default_colour(0), "#ff0000", default_colour(2)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "0 found"),
        ("classes = 3", "unknown key"),
        ("class = 3", "no list of tables"),
        ("ignore = 3\n[[class]]\nvalue = 0", "no list"),
        ('ignore = ["white"]\n[[class]]\nvalue = 0', "'white'"),
        ("ignore = [true]\n[[class]]\nvalue = 0", "True"),
        ("[[class]]\nname = 'a'", "neither value nor colour"),
        ("[[class]]\nvalue = 1.5", "no whole number"),
        ("[[class]]\nvalue = true", "no whole number"),
        ("[[class]]\nvalue = 1\ncolour = 3", "no text"),
        ("[[class]]\nvalue = 1\nname = 3", "no text"),
        ("[[class]]\nvalue = 1\ncolor = '#ffffff'", "unknown key 'color'"),
        ("[[class]]\nvalue = 0\n[[class]]\nvalue = 0", "stands twice"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_what_is_wrong(tmp_path, text, problem):
    path = tmp_path / "classes.toml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_classes(path)
    assert str(path) in str(error.value)
    assert problem in str(error.value)


@pytest.mark.parametrize(
    "data",
    [{}, {"classes": [], "ignore": []}, {"classes": [{"name": 1}], "ignore": []},
     {"classes": [{"name": "a", "value": "0", "colour": "#000000"}], "ignore": []},
     {"classes": 3, "ignore": []}, {"classes": [3], "ignore": [None]}],
)  # fmt: skip
def test_json_of_strangers_is_refused(data):
    with pytest.raises(InputError):
        ClassTable.from_dict(data)


def test_ignoring_more_takes_classes_out():
    assert VALUES.with_ignored((7,)).ignore == (255, 7)
    smaller = VALUES.with_ignored((128, 255))
    assert smaller.names == ("back",)
    assert smaller.ignore == (255, 128)
    with pytest.raises(InputError, match="ignore: leaves no class: masks hold 0, 128 only"):
        VALUES.with_ignored((0, 128))


def test_what_is_found_is_sorted_and_named_by_itself():
    assert table_of([128, 0, 5]).names == ("0", "5", "128")
    table = table_of(["#ff0000", "#000000"])
    assert table.names == ("#000000", "#ff0000")
    assert table.encoding == "colours"


@pytest.mark.parametrize(("text", "item"), [("255", 255), ("#FF00aa", "#ff00aa"), ("0", 0)])
def test_ignored_items_are_read_from_a_command_line(text, item):
    assert parse_ignored(text) == item


@pytest.mark.parametrize("text", ["white", "-1", "70000", "#ff", "1.5", ""])
def test_what_is_no_value_or_colour_cannot_be_ignored(text):
    with pytest.raises(InputError, match=r"ignore: .* is neither; write values"):
        parse_ignored(text)


def test_classes_of_names_take_default_colours_that_no_other_class_has():
    classes = named_classes(["ground", "cell", "rim"], {"cell": default_colour(0)}, [7, 8, 11])
    assert [(c.name, c.value, c.colour) for c in classes] == [
        ("ground", 7, default_colour(1)),
        ("cell", 8, default_colour(0)),
        ("rim", 11, default_colour(2)),
    ]
    assert [c.value for c in named_classes(["ground", "cell"])] == [0, 1]


def test_default_colours_differ_and_are_colours():
    colours = [default_colour(i) for i in range(64)]
    assert len(set(colours)) == 64
    assert all(0 <= part <= 255 for c in colours for part in colour_to_rgb(c))


def test_names_and_colours_are_changed_by_name():
    table = VALUES.changed(["line=crack"], ["line=#00FF00"])
    assert table.names == ("back", "crack")
    assert [c.colour for c in table.classes] == ["#000000", "#00ff00"]
    with pytest.raises(InputError, match="rename: 'x=y' begins with no class"):
        VALUES.changed(["x=y"], [])


# Linear RGB as people see it who lack one kind of cones (Machado, Oliveira, Fernandes, 2009).
SEEN = {
    "red": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "green": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "blue": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}


@pytest.mark.parametrize("lacking", SEEN)
def test_colour_blind_people_tell_the_first_default_colours_apart(lacking):
    shown = np.array([colour_to_rgb(default_colour(k)) for k in range(8)]) / 255
    linear = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(SEEN[lacking]).T, 0, 1)
    seen = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    places = color.rgb2lab(seen)
    nearest = min(np.linalg.norm(one - other) for one, other in combinations(places, 2))
    assert nearest > 10  # a difference of 2 to 3 is just seen
