"""CSV tables: what is written is read back, whatever a text holds; what is no table is refused."""

from pathlib import Path

import pytest

from unetseg.errors import InputError
from unetseg.prediction.csv_tables import read_table, write_table


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


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
