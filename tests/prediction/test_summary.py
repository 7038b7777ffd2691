"""The summary table: rows worked by hand, and the fate of an earlier table."""

import csv
from pathlib import Path

import numpy as np
import pytest

from unetseg.errors import InputError
from unetseg.prediction.summary import (
    COLUMNS,
    ImageSummary,
    join_tables,
    read_cells,
    read_summary,
    read_table,
    summary_rows,
    update_summary,
    write_table,
)

CLASSES = ("background", "cell")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def summary_of(name="a.png", size=None, seconds=1.23456):
    return ImageSummary(
        name,
        np.array([90, 10]),
        [np.array([90]), np.array([6, 1, 3])],
        np.array([[72.0, 12.0], [80.0, 20.0]]),
        size,
        seconds,
    )


def images_in(path):
    return [row[0] for row in read_summary(path)]


def test_rows_are_those_worked_by_hand():
    background, cell = summary_rows([summary_of()], CLASSES)
    assert background == [
        *("a.png", "background", 90, 0.9, 1, 90.0, 90.0, 90.0, "px", 0.9, 1.235)
    ]  # fmt: skip
    assert cell == ["a.png", "cell", 10, 0.1, 3, 10 / 3, 3.0, 6.0, "px", 0.6, 1.235]


def test_areas_have_the_unit_of_the_pixels():
    _, cell = summary_rows([summary_of(size=(0.5, 0.25, "µm"))], CLASSES)
    mean, median, largest, unit = cell[5:9]
    assert (mean, median, largest) == pytest.approx((10 / 3 / 8, 3 / 8, 6 / 8))
    assert unit == "µm²"


def test_a_class_that_was_not_found_has_empty_cells():
    nothing = np.zeros(0, np.int64)
    empty = ImageSummary("a", np.zeros(2, int), [nothing, nothing], np.zeros((2, 2)), None, 0.0)
    (row, _) = summary_rows([empty], CLASSES)
    assert row == ["a", "background", 0, None, 0, None, None, None, "px", None, 0.0]
    update_summary(Path("s.csv"), [empty], CLASSES)
    assert "nan" not in Path("s.csv").read_text().lower()
    assert Path("s.csv").read_text().splitlines()[1] == "a,background,0,,0,,,,px,,0"


def test_the_file_is_read_by_any_program():
    update_summary(Path("s.csv"), [summary_of(size=(1.0, 1.0, "µm"))], CLASSES)
    with open("s.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert rows[1]["class"] == "cell"
    assert rows[1]["area_unit"] == "µm²"
    assert float(rows[1]["mean_object_area"]) == pytest.approx(10 / 3)


def test_rows_of_other_images_are_kept_and_those_of_the_same_replaced_where_they_stand():
    path = Path("s.csv")
    update_summary(path, [summary_of(n) for n in ("a", "=b", "c\n")], CLASSES)
    before = path.read_text().splitlines()
    update_summary(path, [summary_of("d"), summary_of("=b", seconds=9)], CLASSES)
    after = path.read_text().splitlines()
    assert images_in(path)[::2] == ["a", "=b", "c\\n", "d"]
    assert after[:3] + after[5:7] == before[:3] + before[5:7]
    assert [line.split(",")[-1] for line in after[3:5]] == ["9", "9"]


def test_an_image_with_other_classes_loses_its_old_rows():
    update_summary(Path("s.csv"), [summary_of("a")], CLASSES)
    update_summary(Path("s.csv"), [summary_of("a")], ("sky", "tree"))
    assert [row[1] for row in read_summary(Path("s.csv"))] == ["sky", "tree"]


def test_without_new_rows_nothing_is_written():
    path = Path("s.csv")
    update_summary(path, [], CLASSES)
    assert not path.exists()
    update_summary(path, [summary_of()], CLASSES)
    before = path.stat().st_mtime_ns, path.read_bytes()
    update_summary(path, [], CLASSES, overwrite=True)
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before


def test_a_file_of_another_program_is_replaced_only_where_that_is_asked_for():
    path = Path("s.csv")
    path.write_text("my,own\n1,2\n")
    with pytest.raises(InputError, match="overwrite=True"):
        update_summary(path, [], CLASSES)
    assert path.read_text() == "my,own\n1,2\n"
    update_summary(path, [], CLASSES, overwrite=True)
    update_summary(path, [summary_of()], CLASSES)
    assert images_in(path) == ["a.png", "a.png"]


# --- tables ----------------------------------------------------------------------------------


def test_cells_are_written_plainly():
    write_table(Path("t.csv"), ["a", "b"], [["x", 1], [None, 0.25], ["1,5 µm²", 12345678901]])
    assert Path("t.csv").read_bytes().decode() == 'a,b\nx,1\n,0.25\n"1,5 µm²",12345678901\n'


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "'x", "''=x", 'a"b', "", " x"])
def test_texts_come_back_and_none_is_a_formula(text):
    write_table(Path("t.csv"), ["a", "b"], [[text, "x"]])
    assert read_table(Path("t.csv"), ["a", "b"]) == [[text, "x"]]
    assert Path("t.csv").read_text().splitlines()[1][0] not in "=+-@"


def test_a_text_stays_on_one_line():
    write_table(Path("t.csv"), ["a"], [["x\ny\udcff\x1b"]])
    assert Path("t.csv").read_bytes() == b"a\nx\\ny\\udcff\\x1b\n"


def test_a_table_without_rows_has_a_header():
    write_table(Path("t.csv"), ["a", "b"], [])
    assert read_table(Path("t.csv"), ["a", "b"]) == []


@pytest.mark.parametrize("row", [["x"], [float("nan"), 1], [1, float("inf")]], ids=str)
def test_no_row_is_short_and_no_number_undefined(row):
    with pytest.raises(ValueError):
        write_table(Path("t.csv"), ["a", "b"], [row])
    assert not Path("t.csv").exists()


@pytest.mark.parametrize(
    "content", [b"", b"a,c\n", b"a,b\n1\n", b"\xff\xfe", b"\0\0", b"\n", b'"a'], ids=repr
)
def test_what_is_no_such_table_is_refused(content):
    Path("t.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"t\.csv"):
        read_table(Path("t.csv"), ["a", "b"])


def test_joined_tables_keep_names_that_look_like_numbers_and_rows_of_fewer_columns(tmp_path):
    write_table(tmp_path / "t" / "b10.csv", ["image", "class", "area"], [["b10.png", "nan", -2.5]])
    write_table(
        tmp_path / "t" / "b9.csv",
        ["image", "class", "area", "mean_1"],
        [["b9.png", "001", 7, None], ["b9.png", "=x", 8, 0.25]],
    )
    join_tables((tmp_path / "t").glob("*"), tmp_path / "all.csv")
    assert read_cells(tmp_path / "all.csv") == [
        ["image", "class", "area", "mean_1"],
        ["b9.png", "001", "7", ""],
        ["b9.png", "=x", "8", "0.25"],
        ["b10.png", "nan", "-2.5", ""],
    ]
